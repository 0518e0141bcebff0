/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* power_client STATE-DIR: carries out what standard input says, and answers each line with "done" or why not. Operations that stand in
 * one line, with ";" between, are all sent before the first answer is waited for.
 *
 *   define N ADAPTERS DOMAINS CONTROL [start] [autostart] [from-host]     modify N ADAPTERS DOMAINS CONTROL
 *   start N   stop N   undefine N [stop]   autostart N yes|no   masks ADAPTERS DOMAINS   create N   remove N
 *   settled       waits until what starts automatically has been tried
 *   see NAME      waits until a file was renamed to NAME (or NAME removed) in the state directory or its matrices/
 *
 * A list is as "2,4-6", "-" is an empty one. */

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#define BUS_NAME "org.guestcrypt1"
#define ROOT     "/org/guestcrypt1"
#define WORDS    8
#define CALL_US  (60 * UINT64_C(1000000))
#define SEE_MS   60000

static sd_bus *bus;
static unsigned waiting, failed;
static int watch_fd;

static int check(int r, const char *what) {
        if (r < 0) {
                (void) fprintf(stderr, "power_client: %s: %s\n", what, strerror(-r));
                exit(1);
        }
        return r;
}

static int on_answer(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const sd_bus_error *e = sd_bus_message_get_error(m);

        waiting--;
        if (e) {
                failed++;
                (void) printf("%s: %s\n", e->name, e->message);
        }
        return 0;
}

static void append_list(sd_bus_message *m, const char *list) {
        uint16_t ids[256];
        size_t n = 0;

        for (char *end; *list && *list != '-'; list = *end ? end + 1 : end) {
                unsigned long from = strtoul(list, &end, 0),
                              to = *end == '-' ? strtoul(end + 1, &end, 0) : from;

                for (; from <= to && n < sizeof ids / sizeof *ids; from++)
                        ids[n++] = (uint16_t) from;
        }
        (void) check(sd_bus_message_append_array(m, 'q', ids, n * sizeof *ids), "list");
}

/* All words from @from on are options. */
static void append_options(sd_bus_message *m, char *words[static WORDS], size_t from) {
        (void) check(sd_bus_message_open_container(m, 'a', "{sv}"), "options");
        for (size_t i = from; i < WORDS && words[i]; i++)
                (void) check(sd_bus_message_append(m, "{sv}", words[i], "b", 1), "options");
        (void) check(sd_bus_message_close_container(m), "options");
}

static sd_bus_message *call(const char *path, const char *interface, const char *member) {
        sd_bus_message *m = NULL;

        (void) check(sd_bus_message_new_method_call(bus, &m, BUS_NAME, path, interface, member), member);
        return m;
}

static sd_bus_message *matrix_call(unsigned n, const char *member) {
        char path[96];

        (void) snprintf(path, sizeof path, ROOT "/matrix/00000000_0000_4000_8000_%012x", n);
        return call(path, BUS_NAME ".Matrix", member);
}

static void operation(char *text) {
        char *words[WORDS + 1] = {}, uuid[40], path[96];
        sd_bus_message *m;
        unsigned n = 0;
        const char *verb;

        for (size_t i = 0; i < WORDS && (words[i] = strtok(i == 0 ? text : NULL, " ")); i++)
                ;
        verb = words[0];
        if (strcmp(verb, "masks") != 0)
                n = (unsigned) strtoul(words[1], NULL, 10);
        (void) snprintf(uuid, sizeof uuid, "00000000-0000-4000-8000-%012x", n);

        if (strcmp(verb, "define") == 0) {
                char name[16];

                m = call(ROOT, BUS_NAME ".Manager", "DefineMatrix");
                (void) snprintf(name, sizeof name, "m%u", n);
                (void) check(sd_bus_message_append(m, "ss", name, uuid), "define");
                for (size_t i = 2; i < 5; i++)
                        append_list(m, words[i]);
                append_options(m, words, 5);
        } else if (strcmp(verb, "modify") == 0) {
                m = matrix_call(n, "Modify");
                for (size_t i = 2; i < 5; i++)
                        append_list(m, words[i]);
                append_options(m, words, 5);
        } else if (strcmp(verb, "autostart") == 0) {
                m = matrix_call(n, "SetAutostart");
                (void) check(sd_bus_message_append(m, "b", strcmp(words[2], "yes") == 0), "autostart");
                append_options(m, words, WORDS);
        } else if (strcmp(verb, "masks") == 0) {
                m = call(ROOT, BUS_NAME ".Manager", "SetHostMasks");
                append_list(m, words[1]);
                append_list(m, words[2]);
                append_options(m, words, WORDS);
        } else if (strcmp(verb, "create") == 0) {
                m = call(ROOT, BUS_NAME ".Manager", "CreateMdev");
                (void) check(sd_bus_message_append(m, "sssa(ss)a{sv}", "mtty", "mtty-1", uuid, 0, 0),
                             "create");
        } else if (strcmp(verb, "remove") == 0) {
                (void) snprintf(path, sizeof path, ROOT "/mdev/00000000_0000_4000_8000_%012x", n);
                m = call(path, BUS_NAME ".Mdev", "Remove");
                append_options(m, words, WORDS);
        } else {
                m = matrix_call(n, strcmp(verb, "start") == 0  ? "Start"
                                   : strcmp(verb, "stop") == 0 ? "Stop"
                                                               : "Undefine");
                append_options(m, words, 2);
        }
        (void) check(sd_bus_call_async(bus, NULL, m, on_answer, NULL, CALL_US), verb);
        (void) sd_bus_message_unref(m);
        waiting++;
}

static void see(const char *name) {
        _Alignas(struct inotify_event) char buf[sizeof(struct inotify_event) + NAME_MAX + 1];

        for (;;) {
                struct pollfd p = { .fd = watch_fd, .events = POLLIN };
                const struct inotify_event *e = (const struct inotify_event *) buf;
                ssize_t n;

                if (poll(&p, 1, SEE_MS) <= 0)
                        (void) check(-ETIMEDOUT, name);
                n = read(watch_fd, buf, sizeof buf);
                (void) check(n < 0 ? -errno : 0, "inotify");
                for (const char *at = buf; at < buf + n; at += sizeof *e + e->len) {
                        e = (const struct inotify_event *) at;
                        if (e->len > 0 && strcmp(e->name, name) == 0)
                                return;
                }
        }
}

static int on_change(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return 0;
}

static void settle(void) {
        sd_bus_slot *slot = NULL;
        int settled = 0;

        (void) check(sd_bus_match_signal(bus, &slot, BUS_NAME, ROOT, "org.freedesktop.DBus.Properties",
                                         "PropertiesChanged", on_change, NULL),
                     "settled");
        for (;;) {
                (void) check(sd_bus_get_property_trivial(bus, BUS_NAME, ROOT, BUS_NAME ".Manager", "Settled",
                                                         NULL, 'b', &settled),
                             "settled");
                if (settled)
                        break;
                (void) check(sd_bus_wait(bus, UINT64_MAX), "bus");
                while (check(sd_bus_process(bus, NULL), "bus") > 0)
                        ;
        }
        (void) sd_bus_slot_unref(slot);
}

static void watch(const char *dir, const char *below) {
        char path[PATH_MAX];

        (void) snprintf(path, sizeof path, "%s%s", dir, below);
        if (inotify_add_watch(watch_fd, path, IN_MOVED_TO | IN_DELETE) < 0)
                (void) check(-errno, path);
}

int main(int argc, char *argv[]) {
        char *line = NULL;
        size_t size = 0;
        ssize_t n;

        if (argc != 2)
                return 2;
        watch_fd = inotify_init1(IN_CLOEXEC);
        watch(argv[1], "");
        watch(argv[1], "/matrices");
        (void) check(sd_bus_open_system(&bus), "bus");

        while ((n = getline(&line, &size, stdin)) > 0) {
                char *rest = line;

                line[strcspn(line, "\n")] = '\0';
                if (strncmp(line, "see ", 4) == 0)
                        see(line + 4);
                else if (strcmp(line, "settled") == 0)
                        settle();
                else
                        for (char *op; (op = strsep(&rest, ";"));)
                                operation(op);
                while (waiting > 0) {
                        if (check(sd_bus_process(bus, NULL), "bus") == 0)
                                (void) check(sd_bus_wait(bus, UINT64_MAX), "bus");
                }
                if (failed > 0)
                        return 1;
                (void) puts("done");
                (void) fflush(stdout);
        }
        free(line);
        (void) close(watch_fd);
        bus = sd_bus_flush_close_unref(bus);
        return 0;
}
