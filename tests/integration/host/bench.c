/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "sim/sim_sysfs.h"

#define WAIT_US (60 * UINT64_C(1000000))

static char self[4096];

int bench_prepare(void) {
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

        if (n < 0)
                return -errno;
        if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0)
                return -errno;
        return ret_errno(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

int bench_has_fuse(void) {
        CLEANUP(fd_closep)
        int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

        return ret_errno(fd);
}

/* Between the host and the model: counts writes, lets somebody act before one of them, and tells "never" as
 * host/ knows it. */
typedef struct Tap {
        Sysfs sysfs;
        Sysfs *inner;
        Bench *bench;
} Tap;

static int never(ssize_t r) {
        return r == SIM_NEVER ? SYSFS_NEVER : (int) r;
}

static Tap *tap_of(Sysfs *s) {
        return CONTAINER_OF(s, Tap, sysfs);
}

static ssize_t tap_read(Sysfs *s, const char *path, char *buf, size_t size) {
        Sysfs *inner = tap_of(s)->inner;

        return never(inner->ops->read(inner, path, buf, size));
}

static int tap_write(Sysfs *s, const char *path, const char *data, size_t size) {
        Bench *b = tap_of(s)->bench;
        Sysfs *inner = tap_of(s)->inner;

        if (++b->writes == b->hook_at)
                b->hook(b);
        return never(inner->ops->write(inner, path, data, size));
}

static ssize_t tap_readlink(Sysfs *s, const char *path, char *buf, size_t size) {
        Sysfs *inner = tap_of(s)->inner;

        return inner->ops->readlink(inner, path, buf, size);
}

static int tap_list(Sysfs *s, const char *path, sysfs_entry_t fn, void *userdata) {
        Sysfs *inner = tap_of(s)->inner;

        return inner->ops->list(inner, path, fn, userdata);
}

static int tap_exists(Sysfs *s, const char *path) {
        Sysfs *inner = tap_of(s)->inner;

        return inner->ops->exists(inner, path);
}

static void tap_free(Sysfs *s) {
        (void) sysfs_free(tap_of(s)->inner);
        free(tap_of(s));
}

static const SysfsOps tap_ops = {
        .read = tap_read,
        .write = tap_write,
        .readlink = tap_readlink,
        .list = tap_list,
        .exists = tap_exists,
        .free = tap_free,
};

static Sysfs *tap_new(Bench *b) {
        Tap *t = calloc(1, sizeof *t);

        assert_non_null(t);
        t->sysfs.ops = &tap_ops;
        t->bench = b;
        assert_int_equal(sim_sysfs_new(b->sim, &t->inner), 0);
        return &t->sysfs;
}

static void on_changed(void *userdata) {
        Bench *b = userdata;

        b->changed++;
}

void bench_host(Bench *b) {
        b->host = host_free(b->host);
        if (b->child)
                assert_int_equal(host_child_new(b->event, &b->config, self, on_changed, b, &b->host), 0);
        else
                assert_int_equal(host_direct_new(b->event, &b->config, b->tap, b->lock_fd, &b->host), 0);
}

static void server_start(Bench *b, const char *profile) {
        char target[128], p[64], d[64], c;
        int ready[2], sys_fd;

        (void) snprintf(target, sizeof target, "%s/sys", b->root);
        (void) snprintf(p, sizeof p, "--profile=%s", profile);
        (void) snprintf(d, sizeof d, "--dialect=%s", b->dialect);
        assert_int_equal(pipe(ready), 0);
        b->server = fork();
        assert_true(b->server >= 0);
        if (b->server == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing hangs in it longer than the test lives */
                (void) dup2(ready[1], 20);
                (void) close(ready[0]);
                (void) execl(SIM_PROGRAM, SIM_PROGRAM, p, d, "--uevents", "--ready-fd=20", target, NULL);
                _exit(127);
        }
        (void) close(ready[1]);
        assert_int_equal(read(ready[0], &c, 1), 1);
        (void) close(ready[0]);

        sys_fd = openat(b->root_fd, "sys", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(sys_fd >= 0);
        assert_int_equal(sysfs_real_new(sys_fd, &b->eye), 0);
        (void) close(sys_fd);
}

Bench *bench_new(bool child, const char *profile, const char *dialect) {
        Bench *b = calloc(1, sizeof *b);

        assert_non_null(b);
        b->child = child;
        b->dialect = dialect;
        (void) strcpy(b->root, "/tmp/guestcrypt-host-XXXXXX");
        assert_non_null(mkdtemp(b->root));
        b->root_fd = open(b->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_int_equal(mkdirat(b->root_fd, "sys", 0755), 0);
        b->lock_fd = file_open_dir(b->root_fd, "run/lock");
        assert_true(b->lock_fd >= 0);
        assert_int_equal(sd_event_new(&b->event), 0);
        b->config = (HostConfig) {
                .root_fd = b->root_fd,
                .lock_timeout_us = 300000,
                .step_timeout_us = 5000000,
                .scan_timeout_us = 5000000,
        };

        if (child)
                server_start(b, profile);
        else {
                SimProfile *p = malloc(sizeof *p);
                unsigned line;

                assert_non_null(p);
                assert_int_equal(sim_profile_load(profile, p, &line), 0);
                assert_int_equal(sim_dialect_parse(dialect, &p->dialect), 0);
                assert_int_equal(sim_new(p, &b->sim), 0);
                free(p);
                b->tap = tap_new(b);
                assert_int_equal(sim_sysfs_new(b->sim, &b->eye), 0);
        }
        bench_host(b);
        return b;
}

static void tree_remove(const char *root) {
        static const char *const dirs[] = { "run/lock", "run", "dev/vfio", "dev", "sys", "" };
        char path[256];

        (void) snprintf(path, sizeof path, "%s/run/lock/s390apconfig.lock", root);
        (void) unlink(path);
        for (size_t i = 0; i < ELEMENTS(dirs); i++) {
                (void) snprintf(path, sizeof path, "%s/%s", root, dirs[i]);
                (void) rmdir(path);
        }
}

void bench_free(Bench *b) {
        char target[128];

        b->host = host_free(b->host);
        b->tap = sysfs_free(b->tap);
        b->eye = sysfs_free(b->eye);
        b->sim = sim_free(b->sim);
        b->event = sd_event_unref(b->event);
        if (b->child) {
                (void) snprintf(target, sizeof target, "%s/sys", b->root);
                (void) umount2(target, MNT_DETACH);
                (void) kill(b->server, SIGKILL);
                (void) waitpid(b->server, NULL, 0);
        }
        (void) close(b->root_fd);
        (void) close(b->lock_fd);
        tree_remove(b->root);
        free(b);
}

void bench_ctl(Bench *b, const char *format, ...) {
        char text[1024];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        if (b->sim)
                assert_int_equal(sim_ctl(b->sim, text), 0);
        else
                assert_int_equal(bench_write(b, ".sim/ctl", text), 0);
}

unsigned long bench_counter(Bench *b, const char *name) {
        static char state[SIM_CTL_SIZE];
        char key[64];
        const char *p;

        (void) snprintf(key, sizeof key, "%s ", name);
        if (b->sim)
                state[sim_state(b->sim, state, sizeof state - 1)] = '\0';
        else
                assert_true(b->eye->ops->read(b->eye, ".sim/ctl", state, sizeof state) > 0);
        p = strstr(state, key);
        return p ? strtoul(p + strlen(key), NULL, 10) : 0;
}

int bench_write(Bench *b, const char *path, const char *text) {
        return b->eye->ops->write(b->eye, path, text, strlen(text));
}

typedef struct Names {
        char name[8192][40];
        size_t n;
} Names;

static int name_entry(void *userdata, const char *name) {
        Names *names = userdata;

        (void) snprintf(names->name[names->n++], 40, "%s", name);
        return 0;
}

static int name_compare(const void *a, const void *b) {
        return strcmp(a, b);
}

static void state_add(Bench *b, FILE *f, const char *dir, const char *name) {
        static char buf[65536];
        char path[512];
        ssize_t n;

        (void) snprintf(path, sizeof path, "%s/%s", dir, name);
        n = b->eye->ops->read(b->eye, path, buf, sizeof buf);
        if (n >= 0)
                (void) fprintf(f, "%s %s", path, buf);
}

char *bench_state(Bench *b) {
        Names *names = calloc(1, sizeof *names);
        char *text = NULL, path[512], target[512];
        size_t size;
        FILE *f = open_memstream(&text, &size);

        assert_non_null(names);
        state_add(b, f, "bus/ap", "apmask");
        state_add(b, f, "bus/ap", "aqmask");
        assert_int_equal(b->eye->ops->list(b->eye, "bus/ap/devices", name_entry, names), 0);
        qsort(names->name, names->n, sizeof names->name[0], name_compare);
        for (size_t i = 0; i < names->n; i++) {
                if (strchr(names->name[i], '.') == NULL)
                        continue;
                (void) snprintf(path, sizeof path, "bus/ap/devices/%s", names->name[i]);
                state_add(b, f, path, "driver_override");
                (void) snprintf(path, sizeof path, "bus/ap/devices/%s/driver", names->name[i]);
                if (b->eye->ops->readlink(b->eye, path, target, sizeof target) > 0)
                        (void) fprintf(f, "%s %s\n", path, target);
        }

        names->n = 0;
        (void) b->eye->ops->list(b->eye, "bus/mdev/devices", name_entry, names);
        qsort(names->name, names->n, sizeof names->name[0], name_compare);
        for (size_t i = 0; i < names->n; i++) {
                (void) snprintf(path, sizeof path, "bus/mdev/devices/%s", names->name[i]);
                (void) fprintf(f, "%s\n", path);
                state_add(b, f, path, "ap_config");
                if (strcmp(b->dialect, "6.1") == 0) {
                        state_add(b, f, path, "matrix");
                        state_add(b, f, path, "control_domains");
                }
        }
        (void) fclose(f);
        free(names);
        return text;
}

void answer_clear(Answer *a) {
        (void) snapshot_free(a->snapshot);
        free(a->outcomes);
        *a = (Answer) {};
}

void on_scanned(void *userdata, int r, Snapshot *s) {
        Answer *a = userdata;

        assert_false(a->done);
        *a = (Answer) { .done = true, .r = r, .snapshot = s };
}

void on_executed(void *userdata, int r, const HostOutcome *outcomes, size_t n, Snapshot *after) {
        Answer *a = userdata;

        assert_false(a->done);
        *a = (Answer) { .done = true, .r = r, .snapshot = after, .n = n };
        a->outcomes = calloc(n + 1, sizeof *a->outcomes);
        if (n > 0)
                memcpy(a->outcomes, outcomes, n * sizeof *outcomes);
}

void bench_wait(Bench *b, Answer *a) {
        uint64_t until = clock_now_us() + WAIT_US;

        while (!a->done) {
                assert_true(sd_event_run(b->event, 1000000) >= 0);
                if (clock_now_us() > until)
                        fail_msg("no answer for a minute");
        }
}

void bench_scan(Bench *b, HostScan depth, Answer *a) {
        answer_clear(a);
        assert_int_equal(b->host->ops->scan(b->host, depth, on_scanned, a), 0);
        assert_false(a->done);
        bench_wait(b, a);
}

void bench_execute(Bench *b, const Plan *plans, size_t n, Answer *a) {
        answer_clear(a);
        assert_int_equal(b->host->ops->execute(b->host, plans, n, on_executed, a), 0);
        assert_false(a->done);
        bench_wait(b, a);
}

Snapshot *bench_snapshot(Bench *b) {
        Answer a = {};

        bench_scan(b, HOST_SCAN_BASIC, &a);
        assert_int_equal(a.r, 0);
        assert_non_null(a.snapshot);
        return TAKE(a.snapshot);
}
