/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* chaos - sixteen clients define, start, modify, stop and undefine matrices that overlap, at random, while somebody types into sysfs and
 * somebody else uses mdevctl. Meanwhile a witness looks for overlaps, another measures how soon the daemon answers, and
 * every refusal has to name who really had the queue between the question and the answer.
 *
 * usage: chaos SECONDS STATE-DIRECTORY SCRATCH-DIRECTORY [SEED] */

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "chaos_interfere.h"
#include "chaos_log.h"

#define BUS_NAME       "org.guestcrypt1"
#define BUS_ROOT       "/org/guestcrypt1"
#define MANAGER        BUS_NAME ".Manager"
#define MATRIX         BUS_NAME ".Matrix"
#define ERROR          BUS_NAME ".Error."
#define CLIENTS        16
#define SLOTS          24
#define CALL_TIMEOUT   (60 * UINT64_C(1000000))
#define PROBE_US       10000
#define ANSWER_AGE_US  (10 * UINT64_C(1000000)) /* a question may be answered from what was known */
#define JOURNAL_US     (60 * UINT64_C(1000000)) /* for a checkpoint, once it is quiet */
#define COMPLAINTS_MAX 10
#define OVERTIME_US    (10 * UINT64_C(1000000))
#define OVERTIME_MAX   9

typedef enum Act {
        ACT_DEFINE,
        ACT_DEFINE_START,
        ACT_START,
        ACT_STOP,
        ACT_MODIFY,
        ACT_UNDEFINE,
        ACT_CHECK,
        _ACT_MAX
} Act;

static const char *const act_names[] = {
        [ACT_DEFINE] = "define", [ACT_DEFINE_START] = "define+start",
        [ACT_START] = "start",   [ACT_STOP] = "stop",
        [ACT_MODIFY] = "modify", [ACT_UNDEFINE] = "undefine",
        [ACT_CHECK] = "check",
};

/* A definition that may be: all clients act on all. What it may have had is in the log; an entry ends when an operation that was sent
 * after it was answered has taken it away. */
typedef struct Held {
        size_t entry;
        uint64_t since; /* when we knew that it was granted; UINT64_MAX: asked for */
        bool ended;
} Held;

typedef struct Slot {
        char name[32], uuid[37], path[96];
        Held *held;
        size_t n_held, allocated;
} Slot;

typedef struct Client {
        struct Chaos *chaos;
        sd_bus *bus;
        Slot *slot;
        Act act;
        Ids adapters, domains;
        size_t held; /* of the slot's, where the act asks for queues */
        uint64_t sent;
} Client;

typedef struct Counts {
        unsigned long ok, refused[8];
} Counts;

static const char *const refusals[] = {
        ERROR "Overlap",
        ERROR "HostOwned",
        ERROR "Exists",
        ERROR "NoSuchMatrix",
        ERROR "BadState",
        ERROR "BackendUnavailable",
        SD_BUS_ERROR_UNKNOWN_OBJECT,
};

typedef struct Chaos {
        sd_event *event;
        Client clients[CLIENTS];
        Slot slots[SLOTS];
        Counts counts[_ACT_MAX];
        unsigned seed;
        unsigned n_running, overtime;
        bool ending;
        unsigned complaints;
        unsigned long owners, conflicts;
} Chaos;

static void complain(Chaos *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void complain(Chaos *c, const char *format, ...) {
        va_list ap;

        if (c->complaints++ >= COMPLAINTS_MAX)
                return;
        va_start(ap, format);
        (void) printf("WRONG: ");
        (void) vprintf(format, ap);
        (void) printf("\n");
        va_end(ap);
}

static _Noreturn void fail(const char *what, int r) {
        (void) printf("chaos: %s: %s\n", what, strerror(-r));
        exit(EXIT_FAILURE);
}

/* ---- who had it ---- */

static size_t slot_asks(Slot *s, const Ids *adapters, const Ids *domains) {
        if (s->n_held == s->allocated) {
                s->allocated = s->allocated * 2 + 16;
                s->held = reallocarray(s->held, s->allocated, sizeof *s->held);
                if (!s->held)
                        abort();
        }
        s->held[s->n_held] =
                (Held) { .entry = log_begin("definition", s->name, adapters, domains), .since = UINT64_MAX };
        return s->n_held++;
}

static void slot_ends(Slot *s, size_t i) {
        if (!s->held[i].ended)
                log_end(s->held[i].entry);
        s->held[i].ended = true;
}

/* An operation sent at @sent has taken away all that had been granted before. */
static void slot_lets_go(Slot *s, uint64_t sent) {
        for (size_t i = 0; i < s->n_held; i++)
                if (s->held[i].since < sent)
                        slot_ends(s, i);
}

/* "05.0047 is held by definition 'payments-1'" and the like. */
static bool owner_parse(const char *text, unsigned *adapter, unsigned *domain, const char **kind,
                        char owner[OWNER_SIZE]) {
        static const struct {
                const char *words, *kind;
        } kinds[] = {
                { " is held by definition '", "definition" },
                { " is held by an operation under way on '", "definition" },
                { " is held by mediated device '", "mdev" },
                { " is held by mdevctl's definition '", "mdevctl" },
                { " is left to the host's own drivers", "host" },
        };

        if (sscanf(text, "%2x.%4x", adapter, domain) != 2 || strlen(text) < 7)
                return false;
        for (size_t i = 0; i < ELEMENTS(kinds); i++) {
                size_t n = strlen(kinds[i].words);

                if (strncmp(text + 7, kinds[i].words, n) != 0)
                        continue;
                *kind = kinds[i].kind;
                (void) snprintf(owner, OWNER_SIZE, "%.*s", (int) strcspn(text + 7 + n, "'"), text + 7 + n);
                if (strcmp(*kind, "host") == 0)
                        *owner = 0;
                return true;
        }
        return false;
}

static void check_owner(Client *k, const char *text, uint64_t now) {
        char owner[OWNER_SIZE];
        unsigned adapter, domain;
        const char *kind;

        if (!owner_parse(text, &adapter, &domain, &kind, owner)) {
                complain(k->chaos, "%s of '%s' was refused without the owner: %s", act_names[k->act],
                         k->slot->name, text);
                return;
        }
        k->chaos->owners++;
        if (!log_had(kind, owner, adapter, domain, k->sent, now))
                complain(k->chaos, "%s of '%s' was refused with an owner who did not have it: %s",
                         act_names[k->act], k->slot->name, text);
}

static void check_conflicts(Client *k, sd_bus_message *m, uint64_t now) {
        const char *kind, *owner;
        uint16_t adapter, domain;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "(qqss)");
        while (r >= 0 && (r = sd_bus_message_read(m, "(qqss)", &adapter, &domain, &kind, &owner)) > 0) {
                if (strcmp(kind, "operation") == 0)
                        kind = "definition";
                k->chaos->conflicts++;
                if (adapter >= IDS || domain >= IDS ||
                    !log_had(kind, owner, adapter, domain, k->sent - ANSWER_AGE_US, now))
                        complain(k->chaos, "a check named %s '%s' for %02x.%04x, who did not have it", kind,
                                 owner, adapter, domain);
        }
        if (r < 0)
                fail("the answer to CheckMatrix", r);
}

/* ---- the clients ---- */

static void client_next(Client *k);

static void on_done(Client *k, sd_bus_message *m, uint64_t now) {
        k->chaos->counts[k->act].ok++;
        switch (k->act) {
        case ACT_CHECK:
                return check_conflicts(k, m, now);
        case ACT_UNDEFINE:
                return slot_lets_go(k->slot, k->sent);
        case ACT_MODIFY:
                slot_lets_go(k->slot, k->sent);
                k->slot->held[k->held].since = now;
                return;
        case ACT_DEFINE:
        case ACT_DEFINE_START:
                k->slot->held[k->held].since = now;
                return;
        default:
                return;
        }
}

static void on_refused(Client *k, const sd_bus_error *error, uint64_t now) {
        for (size_t i = 0; i < ELEMENTS(refusals); i++)
                if (strcmp(error->name, refusals[i]) == 0) {
                        k->chaos->counts[k->act].refused[i]++;
                        if (i < 2)
                                check_owner(k, error->message, now);
                        break;
                } else if (i == ELEMENTS(refusals) - 1)
                        complain(k->chaos, "%s of '%s': %s: %s", act_names[k->act], k->slot->name,
                                 error->name, error->message);

        if (k->act == ACT_DEFINE || k->act == ACT_DEFINE_START || k->act == ACT_MODIFY)
                slot_ends(k->slot, k->held);
}

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *ret_error) {
        const sd_bus_error *error = sd_bus_message_get_error(m);
        Client *k = userdata;

        if (error)
                on_refused(k, error, log_now());
        else
                on_done(k, m, log_now());
        client_next(k);
        return 0;
}

static int append_ids(sd_bus_message *m, const Ids *ids) {
        uint16_t list[IDS];
        size_t n = 0;

        for (uint16_t i = 0; i < IDS; i++)
                if (ids->has[i])
                        list[n++] = i;
        return sd_bus_message_append_array(m, 'q', list, n * sizeof *list);
}

static int append_matrix(Client *k, sd_bus_message *m) {
        int r = append_ids(m, &k->adapters);

        if (r >= 0)
                r = append_ids(m, &k->domains);
        return r < 0 ? r : sd_bus_message_append(m, "aq", 0);
}

static int client_message(Client *k, sd_bus_message **ret) {
        static const char *const methods[] = { "DefineMatrix", "DefineMatrix", "Start",      "Stop",
                                               "Modify",       "Undefine",     "CheckMatrix" };
        bool manager = k->act <= ACT_DEFINE_START || k->act == ACT_CHECK;
        unsigned *seed = &k->chaos->seed;
        int r;

        r = sd_bus_message_new_method_call(k->bus, ret, BUS_NAME, manager ? BUS_ROOT : k->slot->path,
                                           manager ? MANAGER : MATRIX, methods[k->act]);
        if (r >= 0 && k->act <= ACT_DEFINE_START)
                r = sd_bus_message_append(*ret, "ss", k->slot->name, k->slot->uuid);
        if (r >= 0 && (k->act <= ACT_DEFINE_START || k->act == ACT_MODIFY || k->act == ACT_CHECK))
                r = append_matrix(k, *ret);
        if (r < 0)
                return r;

        if (k->act <= ACT_DEFINE_START)
                return sd_bus_message_append(*ret, "a{sv}", 2, "start", "b", k->act == ACT_DEFINE_START,
                                             "alternative", "b", rand_r(seed) % 4 == 0);
        if (k->act == ACT_UNDEFINE)
                return sd_bus_message_append(*ret, "a{sv}", 1, "stop", "b", rand_r(seed) % 2);
        return sd_bus_message_append(*ret, "a{sv}", 0);
}

static void client_next(Client *k) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        Chaos *c = k->chaos;
        int r;

        if (c->ending) {
                if (--c->n_running == 0)
                        (void) sd_event_exit(c->event, 0);
                return;
        }

        k->act = (Act) ((unsigned) rand_r(&c->seed) % _ACT_MAX);
        k->slot = &c->slots[(unsigned) rand_r(&c->seed) % SLOTS];
        chaos_pick(&c->seed, &k->adapters, &k->domains);
        r = client_message(k, &m);
        if (r < 0)
                fail("call", r);

        k->sent = log_now();
        if (k->act == ACT_DEFINE || k->act == ACT_DEFINE_START || k->act == ACT_MODIFY)
                k->held = slot_asks(k->slot, &k->adapters, &k->domains);
        r = sd_bus_call_async(k->bus, NULL, m, on_reply, k, CALL_TIMEOUT);
        if (r < 0)
                fail("call", r);
}

static bool has_done_all(const Chaos *c) {
        for (size_t i = 0; i < _ACT_MAX; i++)
                if (c->counts[i].ok == 0)
                        return false;
        return true;
}

/* A machine that is busy with other things may need longer until each act has once met a host that allows it. */
static int on_time(sd_event_source *s, uint64_t usec, void *userdata) {
        Chaos *c = userdata;

        if (has_done_all(c) || ++c->overtime > OVERTIME_MAX) {
                c->ending = true;
                return 0;
        }
        (void) sd_event_source_set_time_relative(s, OVERTIME_US);
        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static void play(Chaos *c, unsigned seconds) {
        int r;

        r = sd_event_new(&c->event);
        if (r >= 0)
                r = sd_event_add_time_relative(c->event, NULL, CLOCK_MONOTONIC, seconds * UINT64_C(1000000),
                                               0, on_time, c);
        for (size_t i = 0; i < SLOTS; i++) {
                Slot *s = &c->slots[i];

                (void) snprintf(s->name, sizeof s->name, "slot-%zu", i);
                (void) snprintf(s->uuid, sizeof s->uuid, "c0000000-0000-4000-8000-%012zx", i);
                (void) snprintf(s->path, sizeof s->path, BUS_ROOT "/matrix/c0000000_0000_4000_8000_%012zx",
                                i);
        }
        for (size_t i = 0; r >= 0 && i < CLIENTS; i++) {
                Client *k = &c->clients[i];

                k->chaos = c;
                r = sd_bus_open_system(&k->bus);
                if (r >= 0)
                        r = sd_bus_attach_event(k->bus, c->event, SD_EVENT_PRIORITY_NORMAL);
        }
        if (r < 0)
                fail("bus", r);

        c->n_running = CLIENTS;
        for (size_t i = 0; i < CLIENTS; i++)
                client_next(&c->clients[i]);
        r = sd_event_loop(c->event);
        if (r < 0)
                fail("loop", r);
}

/* ---- the witnesses ---- */

typedef struct Witness {
        const atomic_bool *stop;
        Checker checker;
        uint64_t slowest, answers, late; /* late: after more than 50 ms */
        bool failed;
} Witness;

static void *watch(void *userdata) {
        Witness *w = userdata;

        while (!atomic_load(w->stop))
                checker_look(&w->checker);
        return NULL;
}

static void *probe(void *userdata) {
        CLEANUP(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        Witness *w = userdata;
        uint32_t n;
        int r;

        r = sd_bus_open_system(&bus);
        while (r >= 0 && !atomic_load(w->stop)) {
                uint64_t begin = log_now(), took;

                r = sd_bus_get_property_trivial(bus, BUS_NAME, BUS_ROOT, MANAGER, "NMatrices", NULL, 'u',
                                                &n);
                took = log_now() - begin;
                w->answers++;
                w->late += took > 50000;
                if (took > w->slowest)
                        w->slowest = took;
                (void) usleep(PROBE_US);
        }
        w->failed = r < 0;
        return NULL;
}

/* ---- what is left in the end ---- */

static pid_t daemon_pid(sd_bus *bus) {
        CLEANUP(sd_bus_creds_unrefp) sd_bus_creds *creds = NULL;
        pid_t pid;
        int r;

        r = sd_bus_get_name_creds(bus, BUS_NAME, SD_BUS_CREDS_PID, &creds);
        if (r >= 0)
                r = sd_bus_creds_get_pid(creds, &pid);
        if (r < 0)
                fail("the daemon's pid", r);
        return pid;
}

/* State of each definition against what sysfs shows. */
static void check_states(Chaos *c, sd_bus *bus) {
        unsigned long started = 0, defined = 0;

        for (size_t i = 0; i < SLOTS; i++) {
                CLEANUP(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
                CLEANUP(freep) char *state = NULL;
                char path[128];
                bool live;
                int r;

                (void) snprintf(path, sizeof path, "/sys/bus/mdev/devices/%s", c->slots[i].uuid);
                live = access(path, F_OK) == 0;
                r = sd_bus_get_property_string(bus, BUS_NAME, c->slots[i].path, MATRIX, "State", &error,
                                               &state);
                if (r < 0 && sd_bus_error_has_name(&error, SD_BUS_ERROR_UNKNOWN_OBJECT)) {
                        if (live)
                                complain(c, "'%s' is not defined, but its device is there",
                                         c->slots[i].name);
                        continue;
                }
                if (r < 0)
                        fail("State", r);
                if (strcmp(state, live ? "started" : "defined") != 0)
                        complain(c, "'%s' is said to be %s, its device is %sthere", c->slots[i].name, state,
                                 live ? "" : "not ");
                started += live;
                defined += !live;
        }
        (void) printf("at the end: %lu started, %lu only defined\n", started, defined);
}

/* Intents that were begun end in the journal, and go with the next checkpoint. */
static void check_journal(Chaos *c, const char *state_dir) {
        uint64_t until = log_now() + JOURNAL_US;
        char path[512], line[256] = "";

        (void) snprintf(path, sizeof path, "%s/journal", state_dir);
        do {
                FILE *f = fopen(path, "re");
                bool open = false;
                char text[4096];

                if (!f)
                        fail(path, -errno);
                while (fgets(text, sizeof text, f))
                        if (strstr(text, " intent ")) {
                                open = true;
                                (void) snprintf(line, sizeof line, "%.200s", text);
                        }
                (void) fclose(f);
                if (!open)
                        return;
                (void) usleep(50000);
        } while (log_now() < until);
        complain(c, "the journal still has an intent: %s", line);
}

static void check_quiet(Chaos *c, const char *state_dir) {
        CLEANUP(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        int r;

        r = sd_bus_open_system(&bus);
        if (r >= 0)
                r = sd_bus_call_method(bus, BUS_NAME, BUS_ROOT, MANAGER, "Reload", NULL, NULL, "");
        if (r < 0)
                fail("Reload", r);
        check_states(c, bus);
        check_journal(c, state_dir);
}

static void report(const Chaos *c) {
        (void) printf("%-12s %8s", "", "done");
        for (size_t i = 0; i < ELEMENTS(refusals); i++)
                (void) printf(" %12.12s", strrchr(refusals[i], '.') + 1);
        (void) printf("\n");
        for (size_t i = 0; i < _ACT_MAX; i++) {
                (void) printf("%-12s %8lu", act_names[i], c->counts[i].ok);
                for (size_t j = 0; j < ELEMENTS(refusals); j++)
                        (void) printf(" %12lu", c->counts[i].refused[j]);
                (void) printf("\n");
        }
}

/* That the test has tested. */
static void check_busy(Chaos *c, const Witness *w, const Interference *sysfs, const Interference *mdevctl) {
        for (size_t i = 0; i < _ACT_MAX; i++)
                if (c->counts[i].ok == 0)
                        complain(c, "not one %s was done", act_names[i]);
        if (c->counts[ACT_DEFINE].refused[0] == 0 || c->counts[ACT_START].refused[0] == 0 ||
            c->counts[ACT_DEFINE].refused[1] == 0)
                complain(c, "nothing was ever refused");
        if (sysfs->done == 0 || mdevctl->done == 0 || sysfs->refused == 0)
                complain(c, "nobody interfered");
        if (w->checker.looks == 0 || w->checker.mdevs == 0 || w->checker.records == 0)
                complain(c, "nobody watched");
}

static void chaos_clear(Chaos *c) {
        for (size_t i = 0; i < ELEMENTS(c->clients); i++)
                (void) sd_bus_flush_close_unref(c->clients[i].bus);
        for (size_t i = 0; i < ELEMENTS(c->slots); i++)
                free(c->slots[i].held);
        (void) sd_event_unref(c->event);
}

int main(int argc, char *argv[]) {
        atomic_bool stop = false;
        Chaos c = {};
        Witness w = { .stop = &stop };
        Interference sysfs = { .stop = &stop }, mdevctl = { .stop = &stop };
        char definitions[512];
        pthread_t threads[4];
        sd_bus *bus;
        pid_t pid;
        int r;

        if (argc < 4)
                return 2;
        c.seed = argc > 4 ? (unsigned) strtoul(argv[4], NULL, 0) : (unsigned) log_now();
        (void) printf("seed %u\n", c.seed);
        sysfs.seed = c.seed + 1;
        mdevctl.seed = c.seed + 2;
        sysfs.scratch = mdevctl.scratch = argv[3];
        (void) snprintf(definitions, sizeof definitions, "%s/matrices", argv[2]);
        w.checker = (Checker) { .sys = "/sys", .definitions = definitions };

        r = sd_bus_open_system(&bus);
        if (r < 0)
                fail("bus", r);
        pid = daemon_pid(bus);

        if (pthread_create(&threads[0], NULL, interfere_sysfs, &sysfs) != 0 ||
            pthread_create(&threads[1], NULL, interfere_mdevctl, &mdevctl) != 0 ||
            pthread_create(&threads[2], NULL, watch, &w) != 0 ||
            pthread_create(&threads[3], NULL, probe, &w) != 0)
                fail("thread", -EAGAIN);
        play(&c, (unsigned) strtoul(argv[1], NULL, 10));
        atomic_store(&stop, true);
        for (size_t i = 0; i < ELEMENTS(threads); i++)
                (void) pthread_join(threads[i], NULL);

        checker_look(&w.checker); /* and once more, when nothing moves */
        check_quiet(&c, argv[2]);
        if (daemon_pid(bus) != pid)
                complain(&c, "the daemon is another one than in the beginning");
        (void) sd_bus_flush_close_unref(bus);

        report(&c);
        (void) printf(
                "%lu refusals with their owner, %lu conflicts of checks; sysfs: %lu done, %lu refused; mdevctl: %lu done, "
                "%lu refused\n",
                c.owners, c.conflicts, sysfs.done, sysfs.refused, mdevctl.done, mdevctl.refused);
        (void) printf("witness: %lu looks at %lu devices and %lu definitions, %u overlaps\n",
                      w.checker.looks, w.checker.mdevs, w.checker.records, w.checker.n_overlaps);
        (void) printf("answers: %lu, the slowest after %.1f ms, %lu after more than 50 ms\n",
                      (unsigned long) w.answers, (double) w.slowest / 1000, (unsigned long) w.late);
        check_busy(&c, &w, &sysfs, &mdevctl);
        if (w.checker.n_overlaps > 0)
                complain(&c, "%u overlaps, the first: %s", w.checker.n_overlaps, w.checker.first);
        if (w.failed) /* how long it takes depends on what else this machine does */
                complain(&c, "the daemon did not answer at all");
        if (c.complaints > 0)
                (void) printf("%u things were wrong\n", c.complaints);
        chaos_clear(&c);
        return c.complaints > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
