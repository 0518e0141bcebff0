/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* race - people who use mdevctl, virsh and guestcryptctl at the same time, all for the same few queues. Each writes down what it surely
 * has: from the moment at which its tool said so, until the moment before it gives it up again. Never may two of these notes share a
 * queue, whichever tools they are of; nor may two devices in sysfs. Some of the tools are killed on the way; what has become of that is
 * looked up.
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "chaos_check.h"

#define USERS_MAX   16
#define NOTES       2 /* a user's: of the definition, of the device */
#define KILLED_EACH 12
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

typedef struct User {
        unsigned i, seed;
        Tool tool;
        char uuid[37], file[256];
        bool defined, live;
        Ids adapters, domains; /* of its definition */
        Note notes[NOTES];
        unsigned long done, refused, killed;
} User;

static struct {
        pthread_mutex_t mutex;
        User users[USERS_MAX];
        unsigned n_users;
        const char *scratch;
        atomic_bool stop;
        unsigned n_wrong;
} race = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *format, ...) {
        va_list ap;

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

/* 1: it said that it is done; 0: that it is not; -1: it was killed, nobody knows. */
static int run(User *u, Tool tool, const char *const *arguments) {
        posix_spawn_file_actions_t actions;
        bool kill_it = pick(u, KILLED_EACH) == 0;
        char *argv[16] = { (char *) tools[tool] };
        pid_t pid;
        int status;

        for (size_t i = 0; arguments[i]; i++)
                argv[i + 1] = (char *) arguments[i];
        (void) posix_spawn_file_actions_init(&actions);
        (void) posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        (void) posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
        (void) posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
        if (posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ) != 0)
                abort();
        (void) posix_spawn_file_actions_destroy(&actions);
        if (kill_it) {
                (void) usleep(pick(u, 40000));
                (void) kill(pid, SIGKILL);
        }
        if (waitpid(pid, &status, 0) < 0)
                abort();
        if (WIFSIGNALED(status)) {
                u->killed++;
                return -1;
        }
        u->done += WEXITSTATUS(status) == 0;
        u->refused += WEXITSTATUS(status) != 0;
        return WEXITSTATUS(status) == 0;
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

/* To a known state: nothing of it is there. Whoever was killed half way leaves what the next one of its kind can take away; for
 * virsh that is mdevctl, which libvirt may still be running. */
static void clear(User *u) {
        Tool tool = u->tool == TOOL_VIRSH ? TOOL_MDEVCTL : u->tool;
        const char *const stop[] = { "stop", "--uuid", u->uuid, NULL };
        const char *const undefine[] = { "undefine", "--uuid", u->uuid, NULL };
        const char *const ours[] = { "undefine", "--stop", u->uuid, NULL };
        char device[128], file[128];

        (void) snprintf(device, sizeof device, "/sys/bus/mdev/devices/%s", u->uuid);
        (void) snprintf(file, sizeof file, "/etc/mdevctl.d/matrix/%s", u->uuid);
        for (unsigned i = 0; i < 20; i++) {
                if (tool == TOOL_GUESTCRYPTCTL ? run(u, tool, ours) == 0
                                               : access(device, F_OK) != 0 && access(file, F_OK) != 0)
                        break;
                if (tool == TOOL_MDEVCTL) {
                        (void) run(u, tool, stop);
                        (void) run(u, tool, undefine);
                }
        }
        u->live = u->defined = false;
}

/* ---- a user ---- */

static void step(User *u) {
        Ids a = {}, d = {};
        int r;

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
                } else if (pick(u, 4) == 0) /* what was killed may have been done later on */
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
        clear(u);
}

static void *play(void *userdata) {
        User *u = userdata;

        while (!atomic_load(&race.stop))
                step(u);
        return NULL;
}

static void *watch(void *userdata) {
        while (!atomic_load(&race.stop))
                checker_look(userdata);
        return NULL;
}

static bool parse_user(const char *name, unsigned seed) {
        User *u = &race.users[race.n_users];

        if (race.n_users == USERS_MAX)
                return false;
        *u = (User) { .i = race.n_users, .seed = seed + race.n_users };
        while (u->tool < _TOOL_MAX && strcmp(tools[u->tool], name) != 0)
                u->tool++;
        (void) snprintf(u->uuid, sizeof u->uuid, "a0000000-0000-4000-8000-%012x", u->i);
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
        (void) sleep((unsigned) strtoul(argv[1], NULL, 10)); /* how long it lasts; nothing is waited for */
        atomic_store(&race.stop, true);
        for (unsigned i = 0; i < race.n_users; i++)
                (void) pthread_join(threads[i], NULL);
        (void) pthread_join(witness, NULL);
        checker_look(&checker); /* and once more, when nothing moves */

        for (unsigned i = 0; i < race.n_users; i++) {
                const User *u = &race.users[i];

                (void) printf("%-14s %5lu done, %5lu refused, %4lu killed\n", tools[u->tool], u->done,
                              u->refused, u->killed);
                if (u->done == 0)
                        complain("user %u, of %s, has done nothing", i, tools[u->tool]);
        }
        (void) printf("witness: %lu looks at %lu devices, %u overlaps\n", checker.looks, checker.mdevs,
                      checker.n_overlaps);
        if (checker.n_overlaps > 0)
                complain("%u overlaps, the first: %s", checker.n_overlaps, checker.first);
        if (checker.looks == 0 || checker.mdevs == 0)
                complain("nobody watched");
        return race.n_wrong > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
