/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* race - people who use mdevctl, virsh and guestcryptctl at the same time, all for the same few queues. Each writes down what it surely
 * has: from the moment at which its tool said so, until the moment before it gives it up again. Never may two of these notes share a
 * queue, whichever tools they are of; nor may two devices in sysfs. Some of the tools are killed on the way; what has become of that is
 * looked up. It lasts SECONDS, and on a slow machine until each of them has had a device. What is wrong ends it at once, and the last
 * commands of all are in SCRATCH-DIRECTORY/commands then, a line each that begins with the time.
 *
 * usage: race SECONDS STATE-DIRECTORY SCRATCH-DIRECTORY SEED TOOL...     mdevctl, virsh, guestcryptctl; each may be there more than once */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "chaos_check.h"

#define USERS_MAX   16
#define NOTES       2 /* a user's: of the definition, of the device */
#define UUID_SIZE   37
#define KILLED_EACH 12
#define PATIENCE    10 /* times as long as it is to last: until each user must have had a device */
#define COMMANDS    64 /* of a user's, the last ones, are remembered */
#define SAID_MAX    300
#define LOST_MAX    256
#define ADAPTERS    4
#define DOMAINS     3

static const unsigned adapters[ADAPTERS] = { 1, 2, 3, 4 }, domains[DOMAINS] = { 0x06, 0x10, 0x1b };

extern char **environ;

typedef struct Note {
        bool held;
        Ids adapters, domains;
} Note;

typedef enum Tool { TOOL_MDEVCTL, TOOL_VIRSH, TOOL_GUESTCRYPTCTL, _TOOL_MAX } Tool;
static const char *const tools[] = { "mdevctl", "virsh", "guestcryptctl" };

/* One that has been run: what, when, and what came of it. */
typedef struct Command {
        double begun, ended; /* seconds */
        char line[256], said[SAID_MAX];
        int status; /* as of waitpid() */
} Command;

typedef struct User {
        unsigned i, seed;
        Tool tool;
        char uuid[UUID_SIZE], file[256];
        bool defined, live;
        Ids adapters, domains; /* of its definition */
        Note notes[NOTES];
        char lost[LOST_MAX][UUID_SIZE]; /* a ring: what libvirtd may still be at work on */
        unsigned n_lost;                /* ever */
        unsigned long done, refused, killed;
        bool had_device;
        Command commands[COMMANDS]; /* a ring */
        unsigned n_commands;        /* ever */
} User;

static struct {
        pthread_mutex_t mutex;
        pthread_cond_t changed;
        User users[USERS_MAX];
        unsigned n_users;
        const char *scratch;
        atomic_bool stop;
        unsigned n_wrong;
} race = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *format, ...) {
        va_list ap;

        (void) pthread_cond_signal(&race.changed);
        if (race.n_wrong++ >= 10)
                return;
        va_start(ap, format);
        (void) printf("WRONG: ");
        (void) vprintf(format, ap);
        (void) printf("\n");
        va_end(ap);
}

static unsigned pick(User *u, unsigned n) {
        return (unsigned) rand_r(&u->seed) % n;
}

/* ---- notes ---- */

static void note(User *u, unsigned which, const Ids *a, const Ids *d) {
        Note *mine = &u->notes[which];

        (void) pthread_mutex_lock(&race.mutex);
        *mine = (Note) { true, *a, *d };
        if (which == 1 && !u->had_device) {
                u->had_device = true;
                (void) pthread_cond_signal(&race.changed);
        }
        for (unsigned i = 0; i < race.n_users; i++)
                for (unsigned k = 0; k < NOTES; k++) {
                        const User *o = &race.users[i];
                        unsigned adapter, domain;

                        if (o != u && o->notes[k].held &&
                            matrix_overlaps(a, d, &o->notes[k].adapters, &o->notes[k].domains, &adapter,
                                            &domain))
                                complain("%02x.%04x: %s has it as a %s, and %s (user %u) as a %s", adapter,
                                         domain, tools[u->tool], which ? "device" : "definition",
                                         tools[o->tool], o->i, k ? "device" : "definition");
                }
        (void) pthread_mutex_unlock(&race.mutex);
}

static void unnote(User *u, unsigned which) {
        (void) pthread_mutex_lock(&race.mutex);
        u->notes[which].held = false;
        (void) pthread_mutex_unlock(&race.mutex);
}

/* ---- tools ---- */

static double seconds(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static Command *remember(User *u, char *const *argv) {
        Command *c = &u->commands[u->n_commands++ % COMMANDS];
        size_t n = 0;

        *c = (Command) { .begun = seconds() };
        for (; *argv && n < sizeof c->line; argv++)
                n += (size_t) snprintf(c->line + n, sizeof c->line - n, "%s%s", n > 0 ? " " : "", *argv);
        return c;
}

/* 1: it said that it is done; 0: that it is not; -1: it was killed, nobody knows. */
static int run(User *u, Tool tool, const char *const *arguments) {
        CLEANUP(fd_closep) int output = memfd_create("output", MFD_CLOEXEC);
        posix_spawn_file_actions_t actions;
        bool kill_it = pick(u, KILLED_EACH) == 0;
        char *argv[16] = { (char *) tools[tool] };
        Command *c;
        pid_t pid;

        if (output < 0)
                abort();
        for (size_t i = 0; arguments[i]; i++)
                argv[i + 1] = (char *) arguments[i];
        c = remember(u, argv);
        (void) posix_spawn_file_actions_init(&actions);
        (void) posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        (void) posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
        (void) posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
        if (posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ) != 0)
                abort();
        (void) posix_spawn_file_actions_destroy(&actions);
        if (kill_it) {
                (void) usleep(pick(u, 40000));
                (void) kill(pid, SIGKILL);
        }
        if (waitpid(pid, &c->status, 0) < 0)
                abort();
        c->ended = seconds();
        (void) pread(output, c->said, sizeof c->said - 1, 0);
        if (WIFSIGNALED(c->status)) {
                u->killed++;
                return -1;
        }
        u->done += WEXITSTATUS(c->status) == 0;
        u->refused += WEXITSTATUS(c->status) != 0;
        return WEXITSTATUS(c->status) == 0;
}

#define RUN(u, ...) run(u, u->tool, (const char *const[]) { __VA_ARGS__, NULL })

static char *device_name(const User *u, char buf[static 64]) {
        (void) snprintf(buf, 64, "mdev_%s_matrix", u->uuid);
        for (char *s = buf; *s; s++)
                if (*s == '-')
                        *s = '_';
        return buf;
}

static char *list(const Ids *ids, char buf[static 256]) {
        size_t n = 0;

        for (unsigned i = 0; i < IDS; i++)
                if (ids->has[i])
                        n += (size_t) sprintf(buf + n, "%s%u", n > 0 ? "," : "", i);
        return buf;
}

/* mdevctl's JSON, or libvirt's XML. */
static void write_file(User *u, const Ids *a, const Ids *d) {
        FILE *f = fopen(u->file, "we");
        bool xml = u->tool == TOOL_VIRSH;

        if (!f)
                abort();
        (void) fprintf(
                f,
                xml ? "<device><parent>ap_matrix</parent><capability type='mdev'><type id='vfio_ap-passthrough'/>"
                      "<uuid>%s</uuid>"
                    : "{\"mdev_type\":\"vfio_ap-passthrough\",\"start\":\"manual\",\"attrs\":[%.0s",
                u->uuid);
        for (unsigned i = 0, n = 0; i < 2 * IDS; i++)
                if ((i < IDS ? a : d)->has[i % IDS])
                        (void) fprintf(f, xml ? "%s<attr name='%s' value='%u'/>" : "%s{\"%s\":\"%u\"}",
                                       n++ > 0 && !xml ? "," : "",
                                       i < IDS ? "assign_adapter" : "assign_domain", i % IDS);
        (void) fputs(xml ? "</capability></device>\n" : "]}\n", f);
        if (fclose(f) != 0)
                abort();
}

static int define(User *u, const Ids *a, const Ids *d) {
        char la[256], ld[256];

        write_file(u, a, d);
        if (u->tool == TOOL_MDEVCTL)
                return RUN(u, "define", "--uuid", u->uuid, "--parent", "matrix", "--jsonfile", u->file);
        if (u->tool == TOOL_VIRSH)
                return RUN(u, "nodedev-define", u->file);
        return RUN(u, "define", u->uuid, "--uuid", u->uuid, "--adapters", list(a, la), "--domains",
                   list(d, ld));
}

static int modify(User *u, const Ids *a, const Ids *d) {
        char la[256], ld[256];

        write_file(u, a, d);
        if (u->tool == TOOL_GUESTCRYPTCTL)
                return RUN(u, "modify", u->uuid, "--adapters", list(a, la), "--domains", list(d, ld));
        return RUN(u, "modify", "--uuid", u->uuid, "--parent", "matrix", "--jsonfile", u->file);
}

static int act(User *u, const char *verb, const char *virsh_verb) {
        char name[64];

        if (u->tool == TOOL_MDEVCTL)
                return RUN(u, verb, "--uuid", u->uuid);
        return RUN(u, u->tool == TOOL_VIRSH ? virsh_verb : verb,
                   u->tool == TOOL_VIRSH ? device_name(u, name) : u->uuid);
}

static void new_uuid(User *u) {
        (void) snprintf(u->uuid, sizeof u->uuid, "a0000000-0000-4000-8000-%08x%04x", u->n_lost, u->i);
}

/* As it is in sysfs and in mdevctl's directory, by mdevctl. True: nothing of it is there any more. */
static bool take_away(User *u, const char *uuid) {
        const char *const stop[] = { "stop", "--uuid", uuid, NULL };
        const char *const undefine[] = { "undefine", "--uuid", uuid, NULL };
        char device[128], file[128];
        struct stat st;

        (void) snprintf(device, sizeof device, "/sys/bus/mdev/devices/%s", uuid);
        (void) snprintf(file, sizeof file, "/etc/mdevctl.d/matrix/%s", uuid);
        if (access(device, F_OK) == 0)
                (void) run(u, TOOL_MDEVCTL, stop);
        /* mdevctl empties a file before it writes it: killed in between, it leaves one that it can do nothing with, nor with any
         * other definition while that one is there. */
        if (stat(file, &st) == 0 && (st.st_size > 0 || unlink(file) < 0))
                (void) run(u, TOOL_MDEVCTL, undefine);
        return access(device, F_OK) != 0 && access(file, F_OK) != 0;
}

/* To a known state: nothing of it is there. Whoever was killed half way leaves what the next one of its kind can take away. */
static void clear(User *u) {
        const char *const ours[] = { "undefine", "--stop", u->uuid, NULL };
        bool is_ours = u->tool == TOOL_GUESTCRYPTCTL;

        for (unsigned i = 0; i < 20; i++)
                if (is_ours ? run(u, u->tool, ours) == 0 : take_away(u, u->uuid))
                        break;
        u->live = u->defined = false;
}

/* libvirtd goes on with what a killed virsh has asked for, and begins it at any time: nothing can be said of that device any more. */
static void lose(User *u) {
        (void) strcpy(u->lost[u->n_lost++ % LOST_MAX], u->uuid);
        new_uuid(u);
        u->live = u->defined = false;
}

static void take_away_lost(User *u) {
        for (unsigned i = 0; i < MIN(u->n_lost, (unsigned) LOST_MAX); i++)
                (void) take_away(u, u->lost[i]);
}

/* ---- a user ---- */

static void step(User *u) {
        Ids a = {}, d = {};
        int r;

        take_away_lost(u);
        for (unsigned n = 1 + pick(u, 2); n > 0; n--)
                a.has[adapters[pick(u, ADAPTERS)]] = true;
        for (unsigned n = 1 + pick(u, 2); n > 0; n--)
                d.has[domains[pick(u, DOMAINS)]] = true;

        if (u->live) {
                unnote(u, 1);
                r = act(u, "stop", "nodedev-destroy");
                if (r == 1)
                        u->live = false;
                else if (r == 0)
                        note(u, 1, &u->adapters, &u->domains);
        } else if (!u->defined) {
                r = define(u, &a, &d);
                if (r == 1) {
                        u->defined = true;
                        u->adapters = a;
                        u->domains = d;
                        note(u, 0, &a, &d);
                } else if (r == 0 && pick(u, 4) == 0) /* something may be there that could not be cleared */
                        clear(u);
        } else if (pick(u, 3) == 0) {
                unnote(u, 0);
                r = act(u, "undefine", "nodedev-undefine");
                u->defined = r != 1;
                if (r == 0)
                        note(u, 0, &u->adapters, &u->domains);
        } else if (u->tool != TOOL_VIRSH && pick(u, 3) == 0) {
                unnote(u, 0);
                r = modify(u, &a, &d);
                if (r == 1) {
                        u->adapters = a;
                        u->domains = d;
                }
                if (r >= 0)
                        note(u, 0, &u->adapters, &u->domains);
        } else {
                r = act(u, "start", "nodedev-start");
                if (r == 1) {
                        u->live = true;
                        note(u, 1, &u->adapters, &u->domains);
                }
        }
        if (r >= 0)
                return;

        unnote(u, 0);
        unnote(u, 1);
        if (u->tool == TOOL_VIRSH)
                lose(u);
        else
                clear(u);
}

static void *play(void *userdata) {
        User *u = userdata;

        while (!atomic_load(&race.stop))
                step(u);
        return NULL;
}

static void *watch(void *userdata) {
        Checker *c = userdata;

        while (!atomic_load(&race.stop)) {
                checker_look(c);
                if (c->n_overlaps > 0) {
                        (void) pthread_mutex_lock(&race.mutex);
                        complain("two have the same: %s", c->first);
                        (void) pthread_mutex_unlock(&race.mutex);
                        break;
                }
        }
        return NULL;
}

static bool all_had_devices(void) {
        unsigned i = 0;

        while (i < race.n_users && race.users[i].had_device)
                i++;
        return i == race.n_users;
}

/* As long as it is to last. */
static void wait_for_end(unsigned long lasts) {
        double begun = seconds(), now;

        (void) pthread_mutex_lock(&race.mutex);
        while ((now = seconds() - begun) < (double) lasts * PATIENCE && race.n_wrong == 0 &&
               (now < (double) lasts || !all_had_devices())) {
                struct timespec t;

                (void) clock_gettime(CLOCK_REALTIME, &t);
                t.tv_sec++;
                (void) pthread_cond_timedwait(&race.changed, &race.mutex, &t);
        }
        (void) pthread_mutex_unlock(&race.mutex);
}

static void write_commands(void) {
        char path[512];
        FILE *f;

        (void) snprintf(path, sizeof path, "%s/commands", race.scratch);
        f = fopen(path, "we");
        if (!f)
                abort();
        for (unsigned i = 0; i < race.n_users; i++) {
                const User *u = &race.users[i];

                for (unsigned n = u->n_commands - MIN(u->n_commands, (unsigned) COMMANDS); n < u->n_commands;
                     n++) {
                        const Command *c = &u->commands[n % COMMANDS];

                        (void) fprintf(f, "%.6f - %.6f user %u: %s: %s %d: ", c->begun, c->ended, i, c->line,
                                       WIFSIGNALED(c->status) ? "signal" : "status",
                                       WIFSIGNALED(c->status) ? WTERMSIG(c->status)
                                                              : WEXITSTATUS(c->status));
                        for (const char *s = c->said; *s; s++)
                                (void) fputc(*s == '\n' ? ' ' : *s, f);
                        (void) fputc('\n', f);
                }
        }
        if (fclose(f) != 0)
                abort();
}

static bool parse_user(const char *name, unsigned seed) {
        User *u = &race.users[race.n_users];

        if (race.n_users == USERS_MAX)
                return false;
        *u = (User) { .i = race.n_users, .seed = seed + race.n_users };
        while (u->tool < _TOOL_MAX && strcmp(tools[u->tool], name) != 0)
                u->tool++;
        new_uuid(u);
        (void) snprintf(u->file, sizeof u->file, "%s/user-%u", race.scratch, u->i);
        race.n_users++;
        return u->tool < _TOOL_MAX;
}

int main(int argc, char *argv[]) {
        char definitions[512];
        Checker checker = { .sys = "/sys", .definitions = definitions };
        pthread_t threads[USERS_MAX], witness;
        unsigned seed;

        if (argc < 6)
                return 2;
        (void) snprintf(definitions, sizeof definitions, "%s/matrices", argv[2]);
        race.scratch = argv[3];
        seed = (unsigned) strtoul(argv[4], NULL, 0);
        (void) setvbuf(stdout, NULL, _IOLBF, 0);
        (void) printf("seed %u\n", seed);
        for (int i = 5; i < argc; i++)
                if (!parse_user(argv[i], seed))
                        return 2;

        if (pthread_create(&witness, NULL, watch, &checker) != 0)
                abort();
        for (unsigned i = 0; i < race.n_users; i++)
                if (pthread_create(&threads[i], NULL, play, &race.users[i]) != 0)
                        abort();
        wait_for_end(strtoul(argv[1], NULL, 10));
        atomic_store(&race.stop, true);
        for (unsigned i = 0; i < race.n_users; i++)
                (void) pthread_join(threads[i], NULL);
        (void) pthread_join(witness, NULL);
        checker_look(&checker); /* and once more, when nothing moves */

        for (unsigned i = 0; i < race.n_users; i++) {
                const User *u = &race.users[i];

                (void) printf("%-14s %5lu done, %5lu refused, %4lu killed\n", tools[u->tool], u->done,
                              u->refused, u->killed);
                if (!u->had_device)
                        complain("user %u, of %s, has never had a device", i, tools[u->tool]);
        }
        (void) printf("witness: %lu looks at %lu devices, %u overlaps\n", checker.looks, checker.mdevs,
                      checker.n_overlaps);
        if (checker.n_overlaps > 0)
                complain("%u overlaps, the first: %s", checker.n_overlaps, checker.first);
        if (checker.looks == 0 || checker.mdevs == 0)
                complain("nobody watched");
        if (race.n_wrong > 0)
                write_commands();
        return race.n_wrong > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
