/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Replays what the real drivers were asked (tests/fixtures/sim/recordings) on the model and compares each
 * answer.
 *
 * Argument: a recording. Its directory's name is the dialect, its own the topic. Not compared, and why:
 *      kernel     log texts: the errno is what programs can use
 *      race       who wins is chance
 *      poll, inotify   need a file system; the kernel's answer is that nothing is to be expected from them
 *      guest      results of VFIO ioctls (eventfds, second group of a VM): not in sysfs
 *      run chown, and the write that it allows: owners belong to the FUSE front (tests/integration/sim)
 *      content of request_count: requests that the real zcrypt driver had sent on its own
 *      races.rec  as a whole: what it does is not all in its records */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "sim/sim.h"

#define FIELDS_MAX  16
#define RECORDS_MAX 4096
#define EVENTS_MAX  4096
#define NEVERS_MAX  16

typedef struct Record {
        char *field[FIELDS_MAX];
        size_t n;
        unsigned line;
} Record;

typedef struct Never {
        uint64_t id;
        const char *path;
        bool done;
        ssize_t result;
} Never;

typedef struct Replay {
        const char *topic;
        Sim *sim;
        SimProfile profile;
        Record *records;
        size_t n_records, at;
        char *events[EVENTS_MAX]; /* sent, in the form of the recording */
        size_t n_events, next_event;
        Never nevers[NEVERS_MAX];
        size_t n_nevers;
        unsigned config_seen, request_seen;
        unsigned config_now, request_now; /* of the guest that detached last */
        size_t compared, skipped;
} Replay;

static const char *recording; /* argv */
static char end[] = "end";

static const char *kind(const Record *r) {
        return r->field[0];
}

static bool is(const Record *r, const char *name) {
        return strcmp(r->field[0], name) == 0;
}

static const char *field(const Record *r, size_t i) {
        return i < r->n ? r->field[i] : "";
}

#define fail_at(r, ...) \
        do { \
                print_error("%s:%u: ", recording, (r)->line); \
                print_error(__VA_ARGS__); \
                print_error("\n"); \
                fail(); \
        } while (0)

static size_t unescape(const char *s, char *d, size_t size) {
        size_t n = 0;

        while (*s) {
                assert_true(n < size);
                if (*s != '\\') {
                        d[n++] = *s++;
                        continue;
                }
                s++;
                if (*s == 'x') {
                        char hex[3] = { s[1], s[2], 0 };

                        d[n++] = (char) strtol(hex, NULL, 16);
                        s += 3;
                        continue;
                }
                d[n++] = *s == 'n' ? '\n' : *s == 't' ? '\t' : *s == '0' ? 0 : *s;
                s++;
        }
        return n;
}

static void append_escaped(char *d, size_t size, const char *s, size_t n) {
        size_t k = strlen(d);

        for (size_t i = 0; i < n; i++) {
                const char *e = s[i] == '\n'   ? "\\n"
                                : s[i] == '\t' ? "\\t"
                                : s[i] == '\\' ? "\\\\"
                                : s[i] == 0    ? "\\0"
                                               : NULL;

                if (e)
                        k += (size_t) snprintf(d + k, size - k, "%s", e);
                else
                        k += (size_t) snprintf(d + k, size - k, "%c", s[i]);
                assert_true(k < size);
        }
}

static const char *relative(const char *path) {
        assert_int_equal(strncmp(path, "/sys/", 5), 0);
        return path + 5;
}

/* "3", "EINVAL", "open:EACCES" as the recording writes results. */
static const char *result_text(ssize_t r, bool open_failed, char buf[static 64]) {
        if (r == SIM_NEVER)
                return "never";
        if (r >= 0)
                (void) snprintf(buf, 64, "%zd", r);
        else
                (void) snprintf(buf, 64, "%s%s", open_failed ? "open:" : "", strerrorname_np((int) -r));
        return buf;
}

static void compare(Replay *p, const Record *r, const char *expected, const char *got) {
        if (strcmp(expected, got) != 0)
                fail_at(r, "%s %s %s: expected '%s', got '%s'", kind(r), field(r, 1), field(r, 2), expected,
                        got);
        p->compared++;
}

static void on_uevent(void *userdata, const char *action, const char *devpath, const char *env,
                      size_t size) {
        Replay *p = userdata;
        char text[2048];

        (void) snprintf(text, sizeof text, "%s@%s", action, devpath);
        for (size_t i = 0; i < size; i += strlen(env + i) + 1) {
                size_t k = strlen(text);

                assert_true(k + 2 < sizeof text);
                text[k] = '\t';
                text[k + 1] = 0;
                append_escaped(text, sizeof text, env + i, strlen(env + i));
        }
        assert_true(p->n_events < EVENTS_MAX);
        p->events[p->n_events] = strdup(text);
        assert_non_null(p->events[p->n_events++]);
}

static void on_done(void *userdata, uint64_t id, ssize_t result, const char *data) {
        Replay *p = userdata;

        for (size_t i = 0; i < p->n_nevers; i++)
                if (p->nevers[i].id == id) {
                        p->nevers[i].done = true;
                        p->nevers[i].result = result;
                }
}

static void start(Replay *p) {
        p->sim = sim_free(p->sim);
        assert_int_equal(sim_new(&p->profile, &p->sim), 0);
        sim_set_uevent(p->sim, on_uevent, p);
        sim_set_done(p->sim, on_done, p);
}

/* accesses; the topic "access" acts as another user but for its first two and last two operations */

static uid_t user(const Replay *p, const Record *r) {
        static const unsigned root_lines[] = { 3, 4, 14, 15 };

        if (strcmp(p->topic, "access") != 0)
                return 0;
        for (size_t i = 0; i < ELEMENTS(root_lines); i++)
                if (r->line == root_lines[i])
                        return 0;
        return 1000;
}

static ssize_t access_file(Replay *p, const Record *r, int flags, char *buf, size_t size,
                           bool *ret_open_failed) {
        SimFile *f;
        ssize_t n;
        int k;

        *ret_open_failed = false;
        k = sim_open(p->sim, relative(field(r, 1)), flags, user(p, r), &f);
        if (k < 0) {
                *ret_open_failed = true;
                return k;
        }
        n = flags == O_RDONLY ? sim_file_read(f, buf, size) : sim_file_write(f, buf, size);
        (void) sim_close(f);
        return n;
}

static void replay_write(Replay *p, const Record *r) {
        char data[8192], text[64];
        bool open_failed;
        ssize_t k;
        size_t n;

        for (size_t i = 0; i < p->n_nevers; i++)
                if (p->nevers[i].path && strcmp(p->nevers[i].path, field(r, 1)) == 0 && p->nevers[i].done) {
                        p->nevers[i].path = NULL;
                        compare(p, r, field(r, 3), result_text(p->nevers[i].result, false, text));
                        return;
                }
        n = unescape(field(r, 2), data, sizeof data);
        if (strcmp(field(r, 2), "0...") == 0) { /* the recording's abbreviation of 5000 digits */
                n = 5000;
                memset(data, '0', n);
        }
        k = access_file(p, r, O_WRONLY, data, n, &open_failed);
        compare(p, r, field(r, 3), result_text(k, open_failed, text));
}

static void compare_content(Replay *p, const Record *r, size_t at) {
        char buf[SIM_PAGE_SIZE], expected[8192], text[64];
        bool open_failed;
        ssize_t n;
        size_t k;

        n = access_file(p, r, O_RDONLY, buf, sizeof buf, &open_failed);
        compare(p, r, field(r, at + 1), result_text(n, open_failed, text));
        k = unescape(field(r, at), expected, sizeof expected);
        if (n >= 0 && ((size_t) n != k || memcmp(buf, expected, k) != 0))
                fail_at(r, "%s: content is '%.*s'", field(r, 1), (int) n, buf);
}

static void replay_blocked(Replay *p, const Record *r) {
        bool write = strcmp(field(r, 1), "write") == 0;
        const char *path = field(r, 2), *data = field(r, 3);
        char buf[SIM_PAGE_SIZE];
        ssize_t n;

        if (write && !*data) /* the data stand in the record of its end */
                for (size_t i = p->at + 1; i < p->n_records && !*data; i++)
                        if (is(&p->records[i], "write") && strcmp(field(&p->records[i], 1), path) == 0 &&
                            strncmp(field(&p->records[i], 3), "open:", 5) != 0)
                                data = field(&p->records[i], 2);
        if (write) {
                size_t size = unescape(data, buf, sizeof buf);

                n = sim_write(p->sim, relative(path), buf, size);
        } else
                n = sim_read(p->sim, relative(path), buf, sizeof buf);
        if (n != SIM_NEVER)
                fail_at(r, "%s ended with %zd", path, n);
        assert_true(p->n_nevers < NEVERS_MAX);
        p->nevers[p->n_nevers++] = (Never) { sim_pending(p->sim), path };
        if (strcmp(field(r, 4), "D") == 0 && sim_interrupt(p->sim, sim_pending(p->sim)))
                fail_at(r, "%s can be interrupted", path);
        p->compared++;
}

/* what the recording holds of a moment: blocks of records, also compared for what is not in them */

typedef struct Names {
        const Replay *p;
        const Record *first;
        size_t n;
        const char *dir;
} Names;

static bool in_block(const Names *names, const char *path) {
        for (size_t i = 0; i < names->n; i++)
                if (strcmp(field(&names->first[i], 1), path) == 0)
                        return true;
        return false;
}

static int check_listed(void *userdata, const char *name, mode_t type) {
        const Names *names = userdata;
        char path[1024];

        (void) snprintf(path, sizeof path, "%s/%s", names->dir, name);
        if (!in_block(names, path))
                fail_at(names->first, "the model has '%s', the real host has not", path);
        return 0;
}

static bool lists(const Record *r) {
        return is(r, "attr") || is(r, "dir") || is(r, "link");
}

/* A block that "probe ls" made names all that is in each directory of which it names something. */
static void check_directories(Replay *p, const Record *first) {
        Names names = { p, first, 1, NULL };
        const char *last = "";
        size_t length = 0;

        while (first + names.n < p->records + p->n_records && lists(&first[names.n]))
                names.n++;
        for (size_t i = 0; i < names.n; i++) {
                const char *path = field(&first[i], 1);
                size_t n = (size_t) (strrchr(path, '/') - path);
                char dir[1024];

                if (n == length && memcmp(path, last, n) == 0)
                        continue;
                last = path;
                length = n;
                (void) snprintf(dir, sizeof dir, "%.*s", (int) n, path);
                names.dir = dir;
                assert_int_equal(sim_readdir(p->sim, relative(dir), check_listed, &names), 0);
        }
}

static void replay_listed(Replay *p, const Record *r) {
        char mode[16], buf[1024];
        SimStat st;
        ssize_t n;

        if (r == p->records || !lists(r - 1))
                check_directories(p, r);
        if (sim_lstat(p->sim, relative(field(r, 1)), &st) < 0)
                fail_at(r, "the model has no '%s'", field(r, 1));
        if (is(r, "link")) {
                n = sim_readlink(p->sim, relative(field(r, 1)), buf, sizeof buf);
                compare(p, r, field(r, 2), n < 0 ? "no link" : buf);
                return;
        }
        (void) snprintf(mode, sizeof mode, "%04o", st.mode & 07777);
        compare(p, r, field(r, 2), mode);
        assert_true(is(r, "dir") ? S_ISDIR(st.mode) : S_ISREG(st.mode));
        if (is(r, "dir") || strcmp(field(r, 5), "-") == 0)
                return;
        if (strstr(field(r, 1), "/request_count")) {
                return;
        }
        p->compared--; /* one record */
        compare_content(p, r, 4);
}

static int check_queue_listed(void *userdata, const char *name, mode_t type) {
        const Names *names = userdata;

        if (strchr(name, '.') && strcmp(name, field(names->first, 1)) >= 0 &&
            strcmp(name, field(&names->first[names->n - 1], 1)) <= 0 && !in_block(names, name))
                fail_at(names->first, "the model has queue '%s'", name);
        return 0;
}

static void replay_queue(Replay *p, const Record *r) {
        char path[256], buf[SIM_PAGE_SIZE];
        const char *got = "-";
        ssize_t n;

        if (r == p->records || !is(r - 1, "queue")) {
                Names names = { p, r, 1, NULL };

                while (r + names.n < p->records + p->n_records && is(&r[names.n], "queue"))
                        names.n++;
                assert_int_equal(sim_readdir(p->sim, "bus/ap/devices", check_queue_listed, &names), 0);
        }
        (void) snprintf(path, sizeof path, "bus/ap/devices/%s/driver", field(r, 1));
        n = sim_readlink(p->sim, path, buf, sizeof buf);
        if (n > 0)
                got = strrchr(buf, '/') + 1;
        else if (n != -ENOENT)
                fail_at(r, "driver link: %zd", n);
        if (strcmp(field(r, 2), got) != 0)
                fail_at(r, "driver is '%s'", got);
        (void) snprintf(path, sizeof path, "bus/ap/devices/%s/status", field(r, 1));
        n = sim_read(p->sim, path, buf, sizeof buf);
        if (n > 0)
                buf[n - 1] = 0; /* the newline */
        compare(p, r, field(r, 3), n > 0 ? buf : "-");
        (void) snprintf(path, sizeof path, "bus/ap/devices/%s", field(r, 1));
        if (sim_lstat(p->sim, path, &(SimStat) {}) < 0)
                fail_at(r, "the queue is missing");
}

static int check_mdev_listed(void *userdata, const char *name, mode_t type) {
        Names *names = userdata;

        if (strlen(name) == 36 && !in_block(names, name))
                fail_at(names->first, "the model has mdev '%s'", name);
        return 0;
}

static void replay_mdev(Replay *p, const Record *r) {
        char path[256];
        SimStat st;

        if (!is(r - 1, "mdev")) {
                Names names = { p, r, 1, NULL };

                while (is(&r[names.n], "mdev"))
                        names.n++;
                assert_int_equal(sim_readdir(p->sim, "devices/vfio_ap/matrix", check_mdev_listed, &names),
                                 0);
        }
        (void) snprintf(path, sizeof path, "devices/vfio_ap/matrix/%s", field(r, 1));
        compare(p, r, "0", sim_lstat(p->sim, path, &st) == 0 ? "0" : "missing");
}

static void replay_zeroized(Replay *p, const Record *r) {
        unsigned a, d;
        char text[32];

        if (!is(r - 1, "zeroized")) {
                Names names = { p, r, 1, NULL };

                while (r + names.n < p->records + p->n_records && is(&r[names.n], "zeroized"))
                        names.n++;
                for (a = 0; a < 256; a++)
                        for (d = 0; d < 256; d++) {
                                (void) snprintf(text, sizeof text, "%02x.%04x", a, d);
                                if (sim_zeroized(p->sim, (uint8_t) a, (uint8_t) d) > 0 &&
                                    !in_block(&names, text))
                                        fail_at(r, "the model zeroized %s", text);
                        }
        }
        assert_int_equal(sscanf(field(r, 1), "%x.%x", &a, &d), 2);
        (void) snprintf(text, sizeof text, "%u", sim_zeroized(p->sim, (uint8_t) a, (uint8_t) d));
        compare(p, r, field(r, 2), text);
}

static void replay_uevent(Replay *p, const Record *r) {
        char text[2048] = "";

        if (strstr(field(r, 1), "/misc/kvm")) { /* KVM's own */
                p->skipped++;
                return;
        }
        for (size_t i = 1; i < r->n; i++) {
                size_t k = strlen(text);

                (void) snprintf(text + k, sizeof text - k, "%s%s", i > 1 ? "\t" : "", field(r, i));
        }
        if (p->next_event == p->n_events)
                fail_at(r, "no such event: %s", text);
        compare(p, r, text, p->events[p->next_event++]);
}

static void replay_run(Replay *p, const Record *r) {
        if (strncmp(field(r, 1), "chown", 5) == 0) {
                p->skipped += 2;
                p->at++; /* the write that it allows */
                return;
        }
        compare(p, r, field(r, 2),
                sim_ctl(p->sim, strncmp(field(r, 1), "rmmod", 5) == 0 ? "rmmod" : "modprobe") < 0 ? "1"
                                                                                                  : "0");
}

static void guest_command(const Replay *p, const Record *r, bool on, int expected) {
        char command[128];
        int k;

        (void) snprintf(command, sizeof command, "guest %s %s", field(r, 1), on ? "on" : "off");
        k = sim_ctl(p->sim, command);
        if (k != expected)
                fail_at(r, "%s: %d", command, k);
}

static void replay_guest(Replay *p, const Record *r) {
        const char *event = field(r, 2);

        (void) sim_guest_events(p->sim, field(r, 1), &p->config_now, &p->request_now);
        if (strncmp(event, "attached", 8) == 0) {
                guest_command(p, r, true, 0);
                p->config_seen = p->config_now;
                p->request_seen = p->request_now;
        } else if (strcmp(event, "open group") == 0)
                guest_command(p, r, true, -EBUSY);
        else if (strcmp(event, "config changed") == 0) {
                if (p->config_now == p->config_seen)
                        fail_at(r, "the guest has not been told");
                p->config_seen = p->config_now;
        } else if (strcmp(event, "request") == 0) {
                if (p->request_now == p->request_seen)
                        fail_at(r, "the guest has not been asked");
                p->request_seen = p->request_now;
        } else if (strcmp(event, "detach") == 0)
                guest_command(p, r, false, 0);
        else {
                p->skipped++;
                return;
        }
        p->compared++;
}

/* hold-read, hold-read-later, hold-seek-read, hold-write on one descriptor; what happened after the first
 * one stands behind them. */
static void replay_hold(Replay *p) {
        const Record *r = &p->records[p->at];
        char buf[SIM_PAGE_SIZE], text[64];
        SimFile *f;
        ssize_t n;

        if (sim_open(p->sim, relative(field(r, 1)), O_RDWR, 0, &f) < 0)
                assert_int_equal(sim_open(p->sim, relative(field(r, 1)), O_WRONLY, 0, &f), 0);
        n = sim_file_read(f, buf, sizeof buf);
        compare(p, r, field(r, 3), result_text(n, false, text));
        for (p->at += 4; p->at < p->n_records && is(&p->records[p->at], "write"); p->at++)
                replay_write(p, &p->records[p->at]);
        p->at--;
        for (size_t i = 1; i < 4; i++) {
                char data[SIM_PAGE_SIZE];
                size_t size = unescape(field(&r[i], 2), data, sizeof data);

                if (is(&r[i], "hold-read-later") && strcmp(field(&r[i], 3), "0") == 0) {
                        p->skipped++; /* behind the end: positions belong to the fronts */
                        continue;
                }
                n = is(&r[i], "hold-write") ? sim_file_write(f, data, size)
                                            : sim_file_read(f, buf, sizeof buf);
                compare(p, &r[i], field(&r[i], 3), result_text(n, false, text));
                if (n >= 0 && !is(&r[i], "hold-write"))
                        assert_memory_equal(buf, data, size);
        }
        (void) sim_close(f);
}

static void replay_boot(Replay *p, const Record *r) {
        char args[512], *save = NULL;
        SimDialect dialect = p->profile.dialect;
        unsigned line;

        assert_int_equal(sim_profile_load("lab", &p->profile, &line), 0);
        p->profile.dialect = dialect;
        (void) snprintf(args, sizeof args, "%s", field(r, 1));
        for (char *a = strtok_r(args, " ", &save); a; a = strtok_r(NULL, " ", &save)) {
                const char *value = strchr(a, '=');

                value = value ? value + 1 : "";
                if (strncmp(a, "ap.apmask=", 10) == 0)
                        (void) snprintf(p->profile.apmask, sizeof p->profile.apmask, "%s", value);
                else if (strncmp(a, "ap.aqmask=", 10) == 0)
                        (void) snprintf(p->profile.aqmask, sizeof p->profile.aqmask, "%s", value);
                else if (strncmp(a, "ap.domain=", 10) == 0)
                        p->profile.default_domain = atoi(value);
                else if (strcmp(a, "ap_model.present=0") == 0)
                        p->profile.no_ap = true;
                else if (strcmp(a, "facilities=!12") == 0)
                        p->profile.no_qci = true;
                else if (strncmp(a, "ap_model.na=", 12) == 0)
                        p->profile.max_adapter = (unsigned) atoi(value);
                else if (strncmp(a, "ap_model.nd=", 12) == 0)
                        p->profile.max_domain = (unsigned) atoi(value);
                else if (strcmp(a, "novfioap") == 0)
                        p->profile.no_vfio_ap = true;
                else
                        fail_at(r, "boot argument '%s' is not known", a);
        }
        start(p);
        p->compared++;
}

static void no_event_left(Replay *p, const Record *r) {
        if (strcmp(p->topic, "uevents") == 0 && p->next_event < p->n_events &&
            !strstr(field(r, 1), "inotify") && !strstr(field(r, 1), "poll"))
                fail_at(r, "the model sent more: %s", p->events[p->next_event]);
}

static void replay_record(Replay *p) {
        const Record *r = &p->records[p->at];

        if (is(r, "section")) {
                no_event_left(p, r);
                p->skipped++;
        } else if (is(r, "write"))
                replay_write(p, r);
        else if (is(r, "read"))
                compare_content(p, r, 2);
        else if (lists(r))
                replay_listed(p, r);
        else if (is(r, "queue"))
                replay_queue(p, r);
        else if (is(r, "mdev"))
                replay_mdev(p, r);
        else if (is(r, "zeroized"))
                replay_zeroized(p, r);
        else if (is(r, "uevent"))
                replay_uevent(p, r);
        else if (is(r, "run"))
                replay_run(p, r);
        else if (is(r, "guest"))
                replay_guest(p, r);
        else if (is(r, "blocked"))
                replay_blocked(p, r);
        else if (is(r, "hold-read"))
                replay_hold(p);
        else if (is(r, "boot"))
                replay_boot(p, r);
        else if (is(r, "model")) {
                if (sim_ctl(p->sim, field(r, 1)) < 0)
                        fail_at(r, "model command '%s' refused", field(r, 1));
                p->compared++;
        } else if (is(r, "kernel") || is(r, "race") || is(r, "poll") || is(r, "inotify"))
                p->skipped++;
        else
                fail_at(r, "record '%s' is not known", kind(r));
}

static void parse(Replay *p, char *text) {
        char *save = NULL;
        unsigned line = 0;

        p->records = calloc(RECORDS_MAX, sizeof *p->records);
        assert_non_null(p->records);
        for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
                Record *r = &p->records[p->n_records];

                line++;
                if (*l == '#')
                        continue;
                assert_true(p->n_records + 1 < RECORDS_MAX); /* the last one stays empty: blocks end there */
                r->line = line;
                for (char *f; (f = strsep(&l, "\t")) && r->n < FIELDS_MAX;)
                        r->field[r->n++] = f;
                p->n_records++;
        }
        p->records[p->n_records].field[0] = end;
}

static void test_replay(void **state) {
        Replay *p = calloc(1, sizeof *p);
        CLEANUP(fclosep)
        FILE *f = NULL;
        CLEANUP(freep)
        char *text = NULL;
        char path[1024], *topic, *series;
        unsigned line;
        size_t n;

        assert_non_null(p);
        (void) snprintf(path, sizeof path, "%s", recording);
        topic = strrchr(path, '/') + 1;
        topic[-1] = 0;
        *strstr(topic, ".rec") = 0;
        series = strrchr(path, '/') + 1;
        p->topic = topic;
        assert_int_equal(sim_profile_load("lab", &p->profile, &line), 0);
        assert_int_equal(sim_dialect_parse(series, &p->profile.dialect), 0);

        f = fopen(recording, "re");
        assert_non_null(f);
        text = calloc(1, 1 << 20);
        assert_non_null(text);
        n = fread(text, 1, (1 << 20) - 1, f);
        assert_true(n > 0 && n < (1 << 20) - 1);
        parse(p, text);

        start(p);
        for (p->at = 0; p->at < p->n_records; p->at++)
                replay_record(p);
        print_message("%s %s: %zu records compared, %zu skipped\n", series, topic, p->compared, p->skipped);
        assert_int_equal(p->compared + p->skipped, p->n_records);
        assert_true(p->compared > 0);

        p->sim = sim_free(p->sim);
        for (size_t i = 0; i < p->n_events; i++)
                free(p->events[i]);
        free(p->records);
        free(p);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_replay) };

        if (argc != 2) {
                (void) fputs("Usage: sim_replay RECORDING\n", stderr);
                return 2;
        }
        recording = argv[1];
        return cmocka_run_group_tests(tests, NULL, NULL);
}
