/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* bench_client - how long guestcryptd, or one process for each of many, takes for the same work
 *
 * Prints seconds, how much was done in them, and the CPU time of this process and of those that it started, in seconds. Matrix i is the same for all verbs and for both sides: two adapters by two domains, no two overlap, its UUID
 * looks random. Any failure ends the program: a figure is only printed if all was done. */

#include <errno.h>
#include <glob.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BUS_NAME      "org.guestcrypt1"
#define BUS_ROOT      "/org/guestcrypt1"
#define MANAGER       BUS_NAME ".Manager"
#define MATRIX        BUS_NAME ".Matrix"
#define PROPERTIES    "org.freedesktop.DBus.Properties"
#define PAIRS         127 /* of adapters 1..254; adapter 0 is the host's */
#define MATRICES      (PAIRS * 128)
#define TIMEOUT_US    (600 * UINT64_C(1000000))
#define SETTLED_S     0.003
#define UUID_SIZE     37
#define ARGS_MAX      32
#define LATENCIES_MAX 100000

typedef struct Shape {
        uint16_t adapters[2], domains[2];
        char uuid[UUID_SIZE], name[32];
} Shape;

static double now(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static double cpu_time(void) {
        static const int who[] = { RUSAGE_SELF, RUSAGE_CHILDREN };
        double seconds = 0;

        for (size_t i = 0; i < ELEMENTS(who); i++) {
                struct rusage u;

                (void) getrusage(who[i], &u);
                seconds += (double) (u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                           (double) (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
        }
        return seconds;
}

static _Noreturn void fail(const char *what, int r, const sd_bus_error *error) {
        (void) fprintf(stderr, "bench_client: %s: %s\n", what,
                       error && error->message ? error->message : strerror(-r));
        exit(EXIT_FAILURE);
}

static uint64_t scatter(uint64_t x) {
        x += UINT64_C(0x9e3779b97f4a7c15);
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return x ^ (x >> 31);
}

static Shape shape(size_t i) {
        uint64_t a = scatter(2 * i), b = scatter(2 * i + 1);
        uint16_t adapter = (uint16_t) (1 + 2 * (i % PAIRS)), domain = (uint16_t) (2 * (i / PAIRS));
        Shape s = { { adapter, adapter + 1 }, { domain, domain + 1 } };

        (void) snprintf(s.uuid, sizeof s.uuid, "%08x-%04x-4%03x-8%03x-%012llx", (unsigned) (a >> 32),
                        (unsigned) (a >> 16 & 0xffff), (unsigned) (a & 0xfff), (unsigned) (b >> 48 & 0xfff),
                        (unsigned long long) (b & 0xffffffffffff));
        (void) snprintf(s.name, sizeof s.name, "bench-%zu", i);
        return s;
}

static void matrix_path(const Shape *s, char path[static 96]) {
        (void) snprintf(path, 96, BUS_ROOT "/matrix/%s", s->uuid);
        for (char *p = path; *p; p++)
                if (*p == '-')
                        *p = '_';
}

/* ---- calls to guestcryptd ---- */

typedef struct Verb {
        const char *name;
        int (*make)(sd_bus *bus, const Shape *s, sd_bus_message **ret);
} Verb;

static int append_matrix(sd_bus_message *m, const Shape *s) {
        int r;

        r = sd_bus_message_append_array(m, 'q', s->adapters, sizeof s->adapters);
        if (r >= 0)
                r = sd_bus_message_append_array(m, 'q', s->domains, sizeof s->domains);
        if (r >= 0)
                r = sd_bus_message_append(m, "aq", 0);
        return r;
}

static int make_definition(sd_bus *bus, const Shape *s, bool autostart, sd_bus_message **ret) {
        int r;

        r = sd_bus_message_new_method_call(bus, ret, BUS_NAME, BUS_ROOT, MANAGER, "DefineMatrix");
        if (r >= 0)
                r = sd_bus_message_append(*ret, "ss", s->name, s->uuid);
        if (r >= 0)
                r = append_matrix(*ret, s);
        if (r >= 0)
                r = sd_bus_message_append(*ret, "a{sv}", 1, "autostart", "b", (int) autostart);
        return r;
}

static int make_define(sd_bus *bus, const Shape *s, sd_bus_message **ret) {
        return make_definition(bus, s, false, ret);
}

static int make_define_auto(sd_bus *bus, const Shape *s, sd_bus_message **ret) {
        return make_definition(bus, s, true, ret);
}

static int make_check(sd_bus *bus, const Shape *s, sd_bus_message **ret) {
        int r;

        r = sd_bus_message_new_method_call(bus, ret, BUS_NAME, BUS_ROOT, MANAGER, "CheckMatrix");
        if (r >= 0)
                r = append_matrix(*ret, s);
        if (r >= 0)
                r = sd_bus_message_append(*ret, "a{sv}", 0);
        return r;
}

static int make_of_matrix(sd_bus *bus, const Shape *s, const char *method, sd_bus_message **ret) {
        char path[96];
        int r;

        matrix_path(s, path);
        r = sd_bus_message_new_method_call(bus, ret, BUS_NAME, path, MATRIX, method);
        if (r >= 0)
                r = sd_bus_message_append(*ret, "a{sv}", 0);
        return r;
}

static int make_start(sd_bus *bus, const Shape *s, sd_bus_message **ret) {
        return make_of_matrix(bus, s, "Start", ret);
}

static int make_stop(sd_bus *bus, const Shape *s, sd_bus_message **ret) {
        return make_of_matrix(bus, s, "Stop", ret);
}

static int make_undefine(sd_bus *bus, const Shape *s, sd_bus_message **ret) {
        return make_of_matrix(bus, s, "Undefine", ret);
}

static int make_property(sd_bus *bus, const Shape *s, sd_bus_message **ret) {
        int r;

        r = sd_bus_message_new_method_call(bus, ret, BUS_NAME, BUS_ROOT, PROPERTIES, "Get");
        return r < 0 ? r : sd_bus_message_append(*ret, "ss", MANAGER, "NMatrices");
}

static int make_list(sd_bus *bus, const Shape *s, sd_bus_message **ret) {
        return sd_bus_message_new_method_call(bus, ret, BUS_NAME, BUS_ROOT,
                                              "org.freedesktop.DBus.ObjectManager", "GetManagedObjects");
}

static const Verb verbs[] = {
        { "define", make_define }, { "define-auto", make_define_auto },
        { "check", make_check },   { "start", make_start },
        { "stop", make_stop },     { "undefine", make_undefine },
        { "list", make_list },     { "property", make_property },
};

typedef struct Flight {
        const char *verb;
        size_t in_flight;
        bool count_objects;
        size_t n_objects;
} Flight;

static size_t count_entries(sd_bus_message *m) {
        size_t n = 0;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{oa{sa{sv}}}");
        if (r < 0)
                fail("the answer to 'list'", r, NULL);
        for (; sd_bus_message_at_end(m, 0) == 0; n++) {
                r = sd_bus_message_skip(m, "{oa{sa{sv}}}");
                if (r < 0)
                        fail("the answer to 'list'", r, NULL);
        }
        return n;
}

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        Flight *f = userdata;

        if (sd_bus_message_is_method_error(m, NULL))
                fail(f->verb, 0, sd_bus_message_get_error(m));
        if (f->count_objects)
                f->n_objects = count_entries(m);
        f->in_flight--;
        return 0;
}

static const Verb *find_verb(const char *name) {
        for (size_t i = 0; i < ELEMENTS(verbs); i++)
                if (strcmp(verbs[i].name, name) == 0)
                        return verbs + i;
        fail(name, -EINVAL, NULL);
}

typedef struct Figures {
        double seconds;
        size_t n;
        double cpu;
} Figures;

static void print_figures(const Figures *f) {
        (void) printf("%.6f %zu %.6f\n", f->seconds, f->n, f->cpu);
}

/* @n calls, at most @window of them without an answer; added to @figures. */
static void call_many(sd_bus *bus, const char *name, size_t n, size_t window, Figures *figures) {
        const Verb *verb = find_verb(name);
        Flight f = { .verb = name, .count_objects = verb->make == make_list };
        const char *unique;
        double start, cpu;
        int r;

        r = sd_bus_get_unique_name(bus, &unique); /* returns when there is a connection */
        if (r < 0)
                fail("bus", r, NULL);
        cpu = cpu_time();
        start = now();
        for (size_t i = 0; i < n || f.in_flight > 0;) {
                while (i < n && f.in_flight < window) {
                        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL;
                        Shape s = shape(i++);

                        r = verb->make(bus, &s, &m);
                        if (r >= 0)
                                r = sd_bus_call_async(bus, NULL, m, on_reply, &f, TIMEOUT_US);
                        if (r < 0)
                                fail(name, r, NULL);
                        f.in_flight++;
                }
                r = sd_bus_process(bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(bus, UINT64_MAX);
                if (r < 0)
                        fail(name, r, NULL);
        }
        figures->seconds += now() - start;
        figures->cpu += cpu_time() - cpu;
        figures->n += f.count_objects ? f.n_objects : n;
}

/* The CPU time, in seconds, that the processes @pids, a list with blanks, have had. */
static double cpu_of(const char *pids) {
        double seconds = 0;
        unsigned long long ns;
        int pid, n;

        for (; sscanf(pids, "%d%n", &pid, &n) == 1; pids += n) {
                char pattern[64];
                glob_t found;

                (void) snprintf(pattern, sizeof pattern, "/proc/%d/task/*/schedstat", pid);
                if (glob(pattern, 0, NULL, &found) != 0)
                        fail(pattern, -ESRCH, NULL);
                for (size_t i = 0; i < found.gl_pathc; i++) {
                        FILE *f = fopen(found.gl_pathv[i], "re");

                        if (f && fscanf(f, "%llu", &ns) == 1) /* a thread may have ended */
                                seconds += (double) ns / 1e9;
                        if (f)
                                (void) fclose(f);
                }
                globfree(&found);
        }
        return seconds;
}

/* Waits, awake, until @pids have nothing left to do of what was answered before. */
static void settle(const char *pids) {
        double cpu = cpu_of(pids), since = now();

        while (now() - since < SETTLED_S) {
                double more = cpu_of(pids);

                if (more > cpu) {
                        cpu = more;
                        since = now();
                }
        }
}

/* @count times all are defined, checked and started, and but for the last time stopped and undefined, which is not counted: nothing else
 * runs between. A line of figures for each of the three, with the CPU time of @pids. */
static void run_rounds(sd_bus *bus, size_t n, size_t window, size_t count, const char *pids) {
        static const char *const counted[] = { "define-auto", "check", "start" };
        Figures figures[ELEMENTS(counted)] = {}, others = {};

        for (size_t i = 0; i < count; i++) {
                for (size_t k = 0; i > 0 && k < 2; k++)
                        call_many(bus, k == 0 ? "stop" : "undefine", n, window, &others);
                settle(pids);
                for (size_t k = 0; k < ELEMENTS(counted); k++) {
                        figures[k].cpu -= cpu_of(pids);
                        call_many(bus, counted[k], n, window, &figures[k]);
                        figures[k].cpu += cpu_of(pids);
                }
        }
        for (size_t k = 0; k < ELEMENTS(counted); k++)
                print_figures(&figures[k]);
}

/* What the lines of standard input say, each answered by its figures: all through one connection. */
static void serve(sd_bus *bus) {
        char line[256], verb[16];
        size_t n, window, count;
        int at;

        while (fgets(line, sizeof line, stdin)) {
                Figures figures = {};

                if (sscanf(line, "rounds %zu %zu %zu%n", &n, &window, &count, &at) == 3)
                        run_rounds(bus, n, window, count, line + at);
                else if (sscanf(line, "%15s %zu %zu", verb, &n, &window) == 3) {
                        call_many(bus, verb, n, window, &figures);
                        print_figures(&figures);
                } else
                        fail(line, -EINVAL, NULL);
                (void) fflush(stdout);
        }
}

static int ascending(const void *a, const void *b) {
        double x = *(const double *) a, y = *(const double *) b;

        return (x > y) - (x < y);
}

/* One call after the other for @seconds, with @pause_ms between two; prints how many there were, and the median, the 99th of a hundred
 * and the longest time. */
static void latency(sd_bus *bus, const char *name, double seconds, unsigned pause_ms) {
        static double times[LATENCIES_MAX];
        const Verb *verb = find_verb(name);
        double start = now();
        size_t n = 0;

        while (n < LATENCIES_MAX && (n == 0 || now() - start < seconds)) {
                CLEANUP(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
                CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
                Shape s = shape(n);
                double begin = now();
                int r;

                r = verb->make(bus, &s, &m);
                if (r >= 0)
                        r = sd_bus_call(bus, m, TIMEOUT_US, &error, &reply);
                if (r < 0)
                        fail(name, r, &error);
                times[n++] = now() - begin;
                (void) usleep(pause_ms * 1000);
        }
        qsort(times, n, sizeof *times, ascending);
        (void) printf("%zu %.6f %.6f %.6f\n", n, times[n / 2], times[n * 99 / 100], times[n - 1]);
}

/* ---- starting programs ---- */

extern char **environ;

static pid_t spawn(char *argv[]) {
        pid_t pid;
        int r;

        r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
        if (r != 0)
                fail(argv[0], -r, NULL);
        return pid;
}

/* One process for each matrix, one after the other, but none is started after @limit seconds.
 * "{uuid}" in an argument stands for the matrix's. */
static void run_many(size_t n, double limit, char *command[]) {
        double start = now(), cpu = cpu_time();
        size_t i;

        for (i = 0; i < n && now() - start < limit; i++) {
                char *argv[ARGS_MAX + 1] = {};
                Shape s = shape(i);
                int status;

                for (size_t j = 0; command[j]; j++) {
                        char *at;

                        if (j == ARGS_MAX)
                                fail(command[0], -E2BIG, NULL);
                        argv[j] = command[j];
                        at = strstr(command[j], "{uuid}");
                        if (at && asprintf(&argv[j], "%.*s%s%s", (int) (at - command[j]), command[j], s.uuid,
                                           at + 6) < 0)
                                fail(command[0], -ENOMEM, NULL);
                }
                if (waitpid(spawn(argv), &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
                        fail(command[0], -ECHILD, NULL);
                for (size_t j = 0; command[j]; j++)
                        if (argv[j] != command[j])
                                free(argv[j]);
        }
        (void) printf("%.6f %zu %.6f\n", now() - start, i, cpu_time() - cpu);
}

/* What mdevctl's "define --jsonfile" takes, one file for each matrix. */
static void write_json(size_t n, const char *dir, const char *start) {
        for (size_t i = 0; i < n; i++) {
                CLEANUP(freep) char *path = NULL;
                Shape s = shape(i);
                FILE *f;

                if (asprintf(&path, "%s/%s.json", dir, s.uuid) < 0)
                        fail("json", -ENOMEM, NULL);
                f = fopen(path, "we");
                if (!f)
                        fail(path, -errno, NULL);
                (void) fprintf(
                        f,
                        "{\"mdev_type\":\"vfio_ap-passthrough\",\"start\":\"%s\",\"attrs\":[{\"assign_adapter\":\"%u\"},"
                        "{\"assign_adapter\":\"%u\"},{\"assign_domain\":\"%u\"},{\"assign_domain\":\"%u\"}]}\n",
                        start, s.adapters[0], s.adapters[1], s.domains[0], s.domains[1]);
                if (fclose(f) != 0)
                        fail(path, -errno, NULL);
        }
}

static int get_settled(sd_bus *bus, int *ret) {
        CLEANUP(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        int r;

        r = sd_bus_get_property_trivial(bus, BUS_NAME, BUS_ROOT, MANAGER, "Settled", &error, 'b', ret);
        /* while it has not got its name there is nobody who would answer */
        if (r < 0 && sd_bus_error_has_name(&error, SD_BUS_ERROR_SERVICE_UNKNOWN)) {
                *ret = -1;
                return 0;
        }
        return r;
}

static int on_signal(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return 0; /* only wakes */
}

/* Starts the daemon, prints when it first answered, when it had settled (everything that is to start has been tried), and its
 * pid. It goes on running. */
static void launch(sd_bus *bus, char *command[]) {
        double start, answered = 0;
        int settled = -1, r;
        pid_t pid;

        r = sd_bus_match_signal(bus, NULL, "org.freedesktop.DBus", NULL, NULL, "NameOwnerChanged", on_signal,
                                NULL);
        if (r >= 0)
                r = sd_bus_match_signal(bus, NULL, BUS_NAME, BUS_ROOT, PROPERTIES, "PropertiesChanged",
                                        on_signal, NULL);
        if (r < 0)
                fail("match", r, NULL);

        start = now();
        pid = spawn(command);
        while (settled != 1) {
                r = get_settled(bus, &settled);
                if (r < 0)
                        fail("Settled", r, NULL);
                if (settled >= 0 && answered == 0)
                        answered = now() - start;
                while (settled != 1 && (r = sd_bus_process(bus, NULL)) > 0)
                        ;
                /* the signal can have been read, and dropped, while get_settled() waited */
                if (settled != 1 && r == 0)
                        r = sd_bus_wait(bus, 5000);
                if (r < 0)
                        fail("bus", r, NULL);
                if (waitpid(pid, NULL, WNOHANG) != 0)
                        fail(command[0], -ECHILD, NULL);
        }
        (void) printf("%.6f %.6f %d\n", answered, now() - start, (int) pid);
}

static int usage(void) {
        (void) fprintf(
                stderr,
                "usage: bench_client define|define-auto|check|start|stop|undefine|list|property N WINDOW\n"
                "       bench_client serve   lines with VERB N WINDOW, or rounds N WINDOW COUNT PID...\n"
                "       bench_client latency SECONDS PAUSE-MS check|list|property\n"
                "       bench_client launch COMMAND [ARGUMENT]...\n"
                "       bench_client run N LIMIT COMMAND [ARGUMENT]...\n"
                "       bench_client json N DIRECTORY auto|manual\n");
        return 2;
}

int main(int argc, char *argv[]) {
        CLEANUP(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        const char *verb = argc > 1 ? argv[1] : "";
        size_t n = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
        int r;

        if (n > MATRICES)
                fail(argv[2], -ERANGE, NULL);
        if (strcmp(verb, "json") == 0 && argc == 5) {
                write_json(n, argv[3], argv[4]);
                return 0;
        }
        if (strcmp(verb, "run") == 0 && argc > 4) {
                run_many(n, strtod(argv[3], NULL), argv + 4);
                return 0;
        }

        r = sd_bus_open_system(&bus);
        if (r < 0)
                fail("bus", r, NULL);
        if (strcmp(verb, "launch") == 0 && argc > 2)
                launch(bus, argv + 2);
        else if (strcmp(verb, "latency") == 0 && argc == 5)
                latency(bus, argv[4], strtod(argv[2], NULL), (unsigned) strtoul(argv[3], NULL, 10));
        else if (strcmp(verb, "serve") == 0 && argc == 2)
                serve(bus);
        else if (argc == 4) {
                Figures figures = {};

                call_many(bus, verb, n, strtoul(argv[3], NULL, 10), &figures);
                print_figures(&figures);
        } else
                return usage();
        return 0;
}
