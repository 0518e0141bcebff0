/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine_env.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "engine/engine_guest_internal.h"
#include "sim/sim_sysfs.h"

#define BUSY_MAX_S  60
#define DEADLINE_US (120 * UINT64_C(1000000)) /* also on a busy machine, or in an emulator */

const EngineCaller root_caller = { .uid = 0, .id = ":1.1" };

/* ---- directories ---- */

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
        return remove(path);
}

static void copy_file(int from, int to, const char *name) {
        CLEANUP(fd_closep) int in = openat(from, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        CLEANUP(fd_closep) int out = -1;
        char buf[65536];
        ssize_t n;

        if (in < 0) /* renamed */
                return;
        out = openat(to, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_true(out >= 0);
        while ((n = read(in, buf, sizeof buf)) > 0)
                assert_int_equal(file_write_all(out, buf, (size_t) n), 0);
        assert_int_equal(n, 0);
}

static void copy_dir(int from, int to) {
        int fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CLEANUP(closedirp) DIR *dir = fdopendir(fd);

        assert_non_null(dir);
        for (struct dirent *e; (e = readdir(dir));) {
                CLEANUP(fd_closep) int a = -1;
                CLEANUP(fd_closep) int b = -1;

                if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                        continue;
                if (e->d_type != DT_DIR) {
                        copy_file(from, to, e->d_name);
                        continue;
                }
                a = openat(from, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                b = file_open_dir(to, e->d_name);
                assert_true(a >= 0 && b >= 0);
                copy_dir(a, b);
        }
}

static uint64_t stamp; /* of the files that stamp_one() has met */

static int stamp_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
        uint64_t parts[] = { st->st_ino, (uint64_t) st->st_size, (uint64_t) st->st_ctim.tv_sec,
                             (uint64_t) st->st_ctim.tv_nsec };

        for (size_t i = 0; i < ELEMENTS(parts); i++)
                stamp = (stamp ^ parts[i]) * UINT64_C(0x100000001b3);
        return 0;
}

static uint64_t stamp_root(const char *root) {
        stamp = 0;
        (void) nftw(root, stamp_one, 16, FTW_PHYS);
        return stamp;
}

static void make_root(Env *env) {
        (void) snprintf(env->root, sizeof env->root, "%s/guestcrypt-engine-XXXXXX",
                        access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        assert_non_null(mkdtemp(env->root));
        env->root_fd = open(env->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(env->root_fd >= 0);
}

static void drop_root(Env *env) {
        env->root_fd = fd_close(env->root_fd);
        (void) nftw(env->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void env_put_file(Env *env, const char *path, const char *text) {
        CLEANUP(freep) char *dir = strdup(path);
        CLEANUP(fd_closep) int fd = -1;
        char *slash = strrchr(dir, '/');

        *slash = '\0';
        fd = file_open_dir(env->root_fd, dir);
        assert_true(fd >= 0);
        assert_int_equal(file_write_synced(fd, slash + 1, text, strlen(text)), 0);
}

/* ---- the simulator, with somebody else in front of it ---- */

static Env *env_of(Sysfs *s) {
        return CONTAINER_OF(s, Env, sysfs);
}

static ssize_t pass_read(Sysfs *s, const char *path, char *buf, size_t size) {
        Sysfs *i = env_of(s)->inner;

        return i->ops->read(i, path, buf, size);
}

static int pass_write(Sysfs *s, const char *path, const char *data, size_t size) {
        Env *env = env_of(s);

        if (env->before_write)
                env->before_write(env, path, data);
        return env->inner->ops->write(env->inner, path, data, size);
}

static ssize_t pass_readlink(Sysfs *s, const char *path, char *buf, size_t size) {
        Sysfs *i = env_of(s)->inner;

        return i->ops->readlink(i, path, buf, size);
}

static int pass_list(Sysfs *s, const char *path, sysfs_entry_t fn, void *userdata) {
        Sysfs *i = env_of(s)->inner;

        return i->ops->list(i, path, fn, userdata);
}

static int pass_exists(Sysfs *s, const char *path) {
        Sysfs *i = env_of(s)->inner;

        return i->ops->exists(i, path);
}

static const SysfsOps pass_ops = {
        .read = pass_read,
        .write = pass_write,
        .readlink = pass_readlink,
        .list = pass_list,
        .exists = pass_exists,
};

static void on_uevent(void *userdata, const char *action, const char *devpath, const char *env_text,
                      size_t size) {
        Env *env = userdata;

        env->changed = true;
}

/* ---- life ---- */

Env *env_new(const char *dialect, const char *extra) {
        static const char small[] =
                "card 0x00 cca\ncard 0x01 accel\ncard 0x02 cca\ncard 0x03 accel\ncard 0x04 ep11\ncard 0x05 ep11\n"
                "domains 0x06,0x10,0x1b,0x47\ncontrol 0x06,0x10,0x11,0x1b,0x47\nmax 63 84\n"
                "apmask 0xc000000000000000000000000000000000000000000000000000000000000000\n"
                "aqmask 0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\nparent mtty mtty 4\n";
        CLEANUP(freep) char *text = NULL;
        Env *env = calloc(1, sizeof *env);
        CLEANUP(fd_closep) int etc_fd = -1;
        SimProfile profile;
        unsigned line = 0;

        assert_non_null(env);
        log_set_max(getenv("ENGINE_TEST_LOG") ? LOG_DEBUG : -1);
        assert_true(asprintf(&text, "dialect %s\n%s%s", dialect,
                             extra && strstr(extra, "card ") ? "" : small, extra ?: "") > 0);
        if (sim_profile_parse(text, &profile, &line) < 0)
                fail_msg("line %u of the profile", line);
        assert_int_equal(sim_new(&profile, &env->sim), 0);
        sim_set_uevent(env->sim, on_uevent, env);
        assert_int_equal(sim_sysfs_new(env->sim, &env->inner), 0);
        env->sysfs.ops = &pass_ops;
        env->config = ENGINE_CONFIG_DEFAULT;
        env->config.rescan_us = UINT64_C(3600) * 1000000; /* only what is meant to be seen in time is seen */
        env->step_timeout_us = 20000;
        assert_int_equal(sd_event_new(&env->event), 0);
        make_root(env);
        etc_fd = file_open_dir(env->root_fd, "etc");
        assert_true(etc_fd >= 0);
        return env;
}

Env *env_free(Env *env) {
        env_stop(env);
        env->event = sd_event_unref(env->event);
        env->inner->ops->free(env->inner);
        env->sim = sim_free(env->sim);
        drop_root(env);
        free(env);
        return NULL;
}

static void on_event(void *userdata, const EngineKey *key, EngineChange change) {
        Env *env = userdata;

        env->n_events++;
        env->n_matrix_events += key->object == ENGINE_MATRIX;
}

static void on_ready(void *userdata) {
        Env *env = userdata;

        env->ready = true;
}

void env_launch(Env *env) {
        HostConfig config = {
                .root_fd = env->root_fd,
                .lock_timeout_us = 200000,
                .step_timeout_us = env->step_timeout_us,
                .scan_timeout_us = 20000,
        };
        CLEANUP(fd_closep) int lock_fd = file_open_dir(env->root_fd, "run/lock");

        env->ready = false;
        assert_int_equal(host_direct_new(env->event, &config, &env->sysfs, lock_fd, &env->host), 0);
        assert_int_equal(engine_new(env->event, &env->config, env->host, env->root_fd, ENV_STATE, ENV_RUN,
                                    on_event, env, &env->engine),
                         0);
        engine_when_ready(env->engine, on_ready, env);
}

void env_start(Env *env) {
        env_launch(env);
        env_wait(env, &env->ready);
        env_settle(env);
}

void env_stop(Env *env) {
        env->engine = engine_free(env->engine);
        if (env->host)
                env->host->ops->free(env->host);
        env->host = NULL;
}

void env_crash(Env *env) {
        Env dead = *env;
        uint64_t before;

        /* as all of it is at one moment, although the file worker is still at it */
        for (;;) {
                before = stamp_root(dead.root);
                make_root(env);
                copy_dir(dead.root_fd, env->root_fd);
                if (stamp_root(dead.root) == before)
                        break;
                drop_root(env);
        }
        env_stop(&dead); /* writes to the old directories at most */
        drop_root(&dead);
        env->engine = NULL;
        env->host = NULL;
        while (sd_event_run(env->event, 0) > 0)
                ;
}

void env_reboot(Env *env, const char *sim_command) {
        CLEANUP(freep) char *run = NULL;

        env_crash(env);
        assert_true(asprintf(&run, "%s/run", env->root) > 0);
        (void) nftw(run, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        env_ctl(env, sim_command);
}

/* ---- the loop ---- */

static uint64_t now_us(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

bool env_turn(Env *env, uint64_t timeout_us) {
        int r;

        r = sd_event_run(env->event, timeout_us);
        assert_true(r >= 0);
        if (env->changed && env->engine) {
                env->changed = false;
                engine_host_changed(env->engine);
                return true;
        }
        return r > 0;
}

unsigned env_step(void) {
        return getenv("MESON_EXE_WRAPPER") ? 7 : 1;
}

void env_wait(Env *env, const bool *flag) {
        uint64_t until = now_us() + DEADLINE_US;

        while (!*flag) {
                if (now_us() > until)
                        fail_msg("nothing came");
                (void) env_turn(env, 1000000);
        }
}

void env_turns(Env *env, unsigned n, const bool *done) {
        for (; n > 0; n--)
                while (!env_turn(env, *done ? 0 : 1000000))
                        if (*done)
                                return;
}

static bool is_busy(const Env *env) {
        const Engine *e = env->engine;

        if (env->changed || e->n_ops > 0 || e->committing || e->executing || e->stirred || e->scanning ||
            e->scan_wanted || e->mdevctl_reading || e->waiters || e->handing || e->n_autostarting > 0 ||
            e->healing || e->guests->saving)
                return true;
        for (size_t i = 0; i < e->n_unresolved; i++)
                if (e->unresolved[i].busy)
                        return true;
        return false;
}

/* One turn after another until @late is seen to be over, too. */
static void turn_until_idle(Env *env, bool (*late)(const Env *env)) {
        uint64_t until = now_us() + DEADLINE_US;

        while (env_turn(env, 0) || is_busy(env) || late(env)) {
                if (now_us() > until)
                        fail_msg("it never comes to rest");
                if (is_busy(env) || late(env))
                        (void) env_turn(env, 10000);
        }
}

static bool nothing_late(const Env *env) {
        return false;
}

static bool is_late(const Env *env) {
        const Engine *e = env->engine;

        return (e->n_lazy > 0 || e->n_lazy_marks > 0 || e->show_timer) && !e->store_failed;
}

void env_settle(Env *env) {
        turn_until_idle(env, nothing_late);
}

void env_rest(Env *env) {
        turn_until_idle(env, is_late);
}

/* They are not late, either, for the sake of many tests. */
unsigned env_speed = 20, env_slowness = 1, env_hurry = 1;

static bool is_deadline(uint64_t usec) {
        return usec == HOOK_DEADLINE_US || usec == HOOK_TPM_DEADLINE_US || usec == GUEST_QUESTION_US;
}

int __real_sd_event_add_time_relative(sd_event *e, sd_event_source **ret, clockid_t clock, uint64_t usec,
                                      uint64_t accuracy, sd_event_time_handler_t callback, void *userdata);
int __wrap_sd_event_add_time_relative(sd_event *e, sd_event_source **ret, clockid_t clock, uint64_t usec,
                                      uint64_t accuracy, sd_event_time_handler_t callback, void *userdata);

int __wrap_sd_event_add_time_relative(sd_event *e, sd_event_source **ret, clockid_t clock, uint64_t usec,
                                      uint64_t accuracy, sd_event_time_handler_t callback, void *userdata) {
        usec = is_deadline(usec) ? usec / env_hurry : usec * env_slowness / env_speed;
        return __real_sd_event_add_time_relative(e, ret, clock, usec, 1, callback, userdata);
}

/* Who closes an inotify descriptor waits for the kernel, 15 ms each time: for thousands of engines a thread does that. Its
 * duplicate, which is closed when the next engine begins, is the last one. */
int __real_inotify_init1(int flags);
int __wrap_inotify_init1(int flags);

static void *close_slowly(void *fd) {
        (void) close((int) (intptr_t) fd);
        return NULL;
}

int __wrap_inotify_init1(int flags) {
        static int before = -1;
        int fd = __real_inotify_init1(flags);
        pthread_t thread;

        if (before >= 0) {
                assert_int_equal(pthread_create(&thread, NULL, close_slowly, (void *) (intptr_t) before), 0);
                assert_int_equal(pthread_detach(thread), 0);
        }
        before = fcntl(fd, F_DUPFD_CLOEXEC, 100); /* out of the way of what is counted */
        return fd;
}

static void on_rescanned(void *userdata, int r) {
        *(bool *) userdata = true;
}

void env_rescan(Env *env) {
        bool done = false;

        assert_int_equal(engine_rescan(env->engine, on_rescanned, &done), 0);
        env_wait(env, &done);
}

struct EnvBusy {
        Work work;
        sem_t over;
};

/* Not for ever: a test that has failed does not say when it is over. */
static int busy_run(Work *w) {
        struct timespec until;

        (void) clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += BUSY_MAX_S;
        while (sem_timedwait(&CONTAINER_OF(w, EnvBusy, work)->over, &until) < 0)
                if (errno == ETIMEDOUT)
                        break;
        return 0;
}

static void busy_done(Work *w, int r) {
        EnvBusy *b = CONTAINER_OF(w, EnvBusy, work);

        (void) sem_destroy(&b->over);
        free(b);
}

EnvBusy *env_busy(Env *env) {
        EnvBusy *b = calloc(1, sizeof *b);

        assert_non_null(b);
        b->work = (Work) { .run = busy_run, .done = busy_done };
        assert_int_equal(sem_init(&b->over, 0, 0), 0);
        assert_int_equal(worker_submit(env->engine->worker, &b->work), 0);
        return b;
}

void env_busy_end(EnvBusy *b) {
        assert_int_equal(sem_post(&b->over), 0);
}

void env_ctl(Env *env, const char *command) {
        int r = sim_ctl(env->sim, command);

        if (r < 0)
                fail_msg("the simulator refuses '%s': %d", command, r);
}

int env_try_write(Env *env, const char *path, const char *data) {
        return (int) MIN(sim_write(env->sim, path, data, strlen(data)), (ssize_t) 0);
}

void env_write(Env *env, const char *path, const char *data) {
        int r = env_try_write(env, path, data);

        if (r < 0)
                fail_msg("writing '%s' to %s: %s", data, path, strerror(-r));
}

void env_foreign(Env *env, const char *uuid, const char *adapters, const char *domains) {
        ApMatrix m = matrix_of(adapters, domains, "");
        char path[160], id[8];

        env_write(env, "devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create", uuid);
        AP_MASK_FOREACH(a, &m.adapters) {
                (void) snprintf(path, sizeof path, "devices/vfio_ap/matrix/%s/assign_adapter", uuid);
                (void) snprintf(id, sizeof id, "%u", a);
                env_write(env, path, id);
        }
        AP_MASK_FOREACH(d, &m.domains) {
                (void) snprintf(path, sizeof path, "devices/vfio_ap/matrix/%s/assign_domain", uuid);
                (void) snprintf(id, sizeof id, "%u", d);
                env_write(env, path, id);
        }
}

/* ---- values ---- */

ApMatrix matrix_of(const char *adapters, const char *domains, const char *control) {
        ApMatrix m = {};

        assert_true(!*adapters || ap_mask_parse_list(adapters, &m.adapters) == 0);
        assert_true(!*domains || ap_mask_parse_list(domains, &m.domains) == 0);
        assert_true(!*control || ap_mask_parse_list(control, &m.control) == 0);
        return m;
}

Uuid uuid_of(const char *text) {
        Uuid uuid;

        assert_int_equal(uuid_parse(text, &uuid), 0);
        return uuid;
}

Uuid uuid_n(unsigned n) {
        char text[64];

        (void) snprintf(text, sizeof text, "00000000-0000-4000-8000-%012x", n);
        return uuid_of(text);
}

/* ---- looking ---- */

typedef struct Names {
        char name[9000][64];
        size_t n;
} Names;

static int add_name(void *userdata, const char *name, mode_t type) {
        Names *names = userdata;

        assert_true(names->n < ELEMENTS(names->name));
        (void) snprintf(names->name[names->n++], sizeof names->name[0], "%s", name);
        return 0;
}

static int compare_names(const void *a, const void *b) {
        return strcmp(a, b);
}

static Names *list_mdevs(Env *env) {
        Names *names = calloc(1, sizeof *names);

        assert_non_null(names);
        (void) sim_readdir(env->sim, "bus/mdev/devices", add_name, names);
        qsort(names->name, names->n, sizeof names->name[0], compare_names);
        return names;
}

static void read_sim(Env *env, char buf[static SIM_PAGE_SIZE + 1], const char *dir, const char *name,
                     const char *attr) {
        char path[256];
        ssize_t n;

        (void) snprintf(path, sizeof path, "%s/%s%s", dir, name, attr);
        n = sim_read(env->sim, path, buf, SIM_PAGE_SIZE);
        buf[n < 0 ? 0 : n] = '\0';
}

/* Drivers and overrides of all queues. */
static void print_queues(Env *env, FILE *f) {
        CLEANUP(freep) Names *names = calloc(1, sizeof *names);

        assert_non_null(names);
        (void) sim_readdir(env->sim, "bus/ap/devices", add_name, names);
        qsort(names->name, names->n, sizeof names->name[0], compare_names);
        for (size_t i = 0; i < names->n; i++) {
                char path[256], driver[256], override[SIM_PAGE_SIZE + 1];
                ssize_t n;

                if (strncmp(names->name[i], "card", 4) == 0)
                        continue;
                (void) snprintf(path, sizeof path, "bus/ap/devices/%s/driver", names->name[i]);
                n = sim_readlink(env->sim, path, driver, sizeof driver - 1);
                driver[n < 0 ? 0 : n] = '\0';
                read_sim(env, override, "bus/ap/devices", names->name[i], "/driver_override");
                (void) fprintf(f, "queue %s %s %s%s", names->name[i], strrchr(driver, '/') ?: "/none",
                               override, strchr(override, '\n') ? "" : "\n");
        }
}

char *env_host_text(Env *env) {
        CLEANUP(freep) Names *names = list_mdevs(env);
        char buf[SIM_PAGE_SIZE + 1], *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        read_sim(env, buf, "bus/ap", "apmask", "");
        (void) fprintf(f, "apmask %s", buf);
        read_sim(env, buf, "bus/ap", "aqmask", "");
        (void) fprintf(f, "aqmask %s", buf);
        print_queues(env, f);
        for (size_t i = 0; i < names->n; i++) {
                (void) fprintf(f, "mdev %s\n", names->name[i]);
                read_sim(env, buf, "bus/mdev/devices", names->name[i], "/ap_config");
                if (!buf[0])
                        read_sim(env, buf, "bus/mdev/devices", names->name[i], "/matrix");
                (void) fputs(buf, f);
                read_sim(env, buf, "bus/mdev/devices", names->name[i], "/control_domains");
                (void) fputs(buf, f);
        }
        (void) fclose(f);
        return text;
}

char *env_matrix_text(Env *env) {
        CLEANUP(freep) Uuid *uuids = NULL;
        char *text = NULL;
        size_t n, size;
        FILE *f = open_memstream(&text, &size);

        assert_int_equal(engine_list_matrices(env->engine, &uuids, &n), 0);
        for (size_t i = 0; i < n; i++) {
                char config[AP_MATRIX_STRING_SIZE], id[UUID_STRING_SIZE];
                EngineMatrix m;

                assert_int_equal(engine_get_matrix(env->engine, uuids[i], &m), 0);
                (void) fprintf(f, "matrix %s %s %s %s%s%s%s\n", m.name, uuid_format(m.uuid, id),
                               ap_matrix_format(&m.matrix, config), matrix_state_name(m.state),
                               m.autostart ? " autostart" : "", m.alternative ? " alternative" : "",
                               m.from_host ? " from_host" : "");
        }
        (void) fclose(f);
        return text;
}

void env_assert_no_overlap(Env *env) {
        CLEANUP(freep) Names *names = list_mdevs(env);
        ApMatrix *all = calloc(names->n + 1, sizeof *all), *host = &all[names->n];
        char buf[SIM_PAGE_SIZE + 1];

        assert_non_null(all);
        read_sim(env, buf, "bus/ap", "apmask", "");
        (void) ap_mask_parse(buf, &host->adapters);
        read_sim(env, buf, "bus/ap", "aqmask", "");
        (void) ap_mask_parse(buf, &host->domains);
        for (size_t i = 0; i < names->n; i++) {
                read_sim(env, buf, "bus/mdev/devices", names->name[i], "/ap_config");
                if (buf[0])
                        assert_int_equal(ap_matrix_parse(buf, &all[i]), 0);
        }
        for (size_t i = 0; i <= names->n; i++)
                for (size_t j = 0; j < i; j++)
                        if (ap_mask_intersects(&all[i].adapters, &all[j].adapters) &&
                            ap_mask_intersects(&all[i].domains, &all[j].domains))
                                fail_msg("%s and %s overlap",
                                         i < names->n ? names->name[i] : "the host's drivers",
                                         names->name[j]);
        free(all);
}

MatrixState env_state_of(Env *env, Uuid uuid) {
        EngineMatrix m;

        if (engine_get_matrix(env->engine, uuid, &m) < 0)
                return _MATRIX_STATE_MAX;
        return m.state;
}

static bool has_word(const char *const *lines, const char *word) {
        for (; *lines; lines++)
                if (strstr(*lines, word))
                        return true;
        return false;
}

bool env_has_problem(Env *env, Uuid uuid, const char *word) {
        EngineMatrix m;

        env_rest(env);
        return engine_get_matrix(env->engine, uuid, &m) == 0 && has_word(m.problems, word);
}

bool env_has_general_problem(Env *env, const char *word) {
        return has_word(engine_problems(env->engine), word);
}

/* ---- asking ---- */

void on_reply(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        Reply *reply = userdata;

        assert_false(reply->done); /* exactly once */
        reply->done = true;
        reply->r = r;
        reply->uuid = uuid;
        if (refusal) {
                assert_int_equal(refusal->verdict, r);
                reply->error = refusal->error;
                (void) snprintf(reply->text, sizeof reply->text, "%s", refusal->text ?: "");
        }
}

static void on_host_changed(void *userdata, int r, const Refusal *refusal, const EngineHostReport *report) {
        Reply *reply = userdata;

        on_reply(userdata, r, refusal, (Uuid) {});
        for (size_t i = 0; report && report->notes && report->notes[i]; i++) {
                size_t used = strlen(reply->text);

                (void) snprintf(reply->text + used, sizeof reply->text - used, "%s\n", report->notes[i]);
        }
        if (report && report->refusal.text)
                (void) snprintf(reply->text, sizeof reply->text, "refused: %s", report->refusal.text);
}

static void on_reconciled(void *userdata, int r, const Refusal *refusal, const EngineHealed *healed,
                          size_t n) {
        Reply *reply = userdata;

        on_reply(userdata, r, refusal, (Uuid) {});
        for (size_t i = 0; i < n; i++) {
                size_t used = strlen(reply->text);

                (void) snprintf(reply->text + used, sizeof reply->text - used, "%s %s\n", healed[i].name,
                                healed[i].what);
        }
}

/* What was answered at once. */
static void take_answer(Reply *reply, int r, Refusal *refusal) {
        if (r == 0)
                return;
        assert_false(reply->done);
        if (r > 0)
                assert_non_null(refusal->text);
        on_reply(reply, r, r > 0 ? refusal : NULL, (Uuid) {});
        refusal_clear(refusal);
}

void env_begin(Env *env, const char *what, Uuid uuid, const ApMatrix *m, Reply *reply) {
        Engine *e = env->engine;
        const EngineCaller *c = &root_caller;
        char name[UUID_STRING_SIZE + 2], text[UUID_STRING_SIZE];
        Refusal refusal = {};
        int r;

        *reply = (Reply) {};
        (void) snprintf(name, sizeof name, "m%s", uuid_format(uuid, text) + 33);
        if (strcmp(what, "define") == 0 || strncmp(what, "define-", 7) == 0) {
                EngineDefine d = { .name = name,
                                   .uuid = uuid,
                                   .matrix = *m,
                                   .start = strstr(what, "-start"),
                                   .autostart = strstr(what, "-autostart"),
                                   .alternative = strstr(what, "-alternative"),
                                   .from_host = strstr(what, "-fromhost") };

                if (d.autostart) /* both have "start" in them */
                        d.start = strstr(what, "-now");
                r = engine_define(e, &d, c, on_reply, reply, &refusal);
        } else if (strcmp(what, "start") == 0 || strcmp(what, "start-from-host") == 0)
                r = engine_start(e, uuid, strcmp(what, "start") != 0, c, on_reply, reply, &refusal);
        else if (strcmp(what, "stop") == 0)
                r = engine_stop(e, uuid, c, on_reply, reply, &refusal);
        else if (strcmp(what, "modify") == 0)
                r = engine_modify(e, uuid, m, c, on_reply, reply, &refusal);
        else if (strcmp(what, "undefine") == 0 || strcmp(what, "undefine-stop") == 0)
                r = engine_undefine(e, uuid, strcmp(what, "undefine") != 0, c, on_reply, reply, &refusal);
        else if (strcmp(what, "autostart") == 0 || strcmp(what, "no-autostart") == 0)
                r = engine_set_autostart(e, uuid, what[0] == 'a', c, on_reply, reply, &refusal);
        else if (strcmp(what, "create") == 0 && m) {
                char config[AP_MATRIX_STRING_SIZE];
                EngineAttr attr = { "ap_config", ap_matrix_format(m, config) };

                r = engine_create_mdev(e, "matrix", "vfio_ap-passthrough", uuid, &attr, 1, c, on_reply,
                                       reply, &refusal);
        } else if (strcmp(what, "create") == 0)
                r = engine_create_mdev(e, "mtty", "mtty-1", uuid, NULL, 0, c, on_reply, reply, &refusal);
        else if (strcmp(what, "remove") == 0)
                r = engine_remove_mdev(e, uuid, c, on_reply, reply, &refusal);
        else if (strcmp(what, "masks") == 0)
                r = engine_set_host_masks(e, &m->adapters, &m->domains, c, on_reply, reply, &refusal);
        else if (strncmp(what, "reserve", 7) == 0 || strncmp(what, "release", 7) == 0) {
                EngineHostWish w = { .wish = { .matrix = *m,
                                               .release = what[2] == 'l',
                                               .others = strstr(what, "-others"),
                                               .force = strstr(what, "-force"),
                                               .means = strstr(what, "-masks")       ? HOST_MEANS_MASKS
                                                        : strstr(what, "-overrides") ? HOST_MEANS_OVERRIDES
                                                                                     : HOST_MEANS_ANY },
                                     .dry_run = strstr(what, "-dry") };

                r = engine_change_host(e, &w, c, on_host_changed, reply, &refusal);
        } else {
                assert_string_equal(what, "reconcile");
                r = engine_reconcile(e, c, on_reconciled, reply, &refusal);
        }
        take_answer(reply, r, &refusal);
}

void env_request(Env *env, const char *what, Uuid uuid, const ApMatrix *m, Reply *reply) {
        env_begin(env, what, uuid, m, reply);
        env_wait(env, &reply->done);
}

void env_define(Env *env, const EngineDefine *d, Reply *reply) {
        Refusal refusal = {};

        *reply = (Reply) {};
        take_answer(reply, engine_define(env->engine, d, &root_caller, on_reply, reply, &refusal), &refusal);
        env_wait(env, &reply->done);
}

void assert_reply(const Reply *reply, int verdict, const char *words, const char *file, int line) {
        CLEANUP(freep) char *copy = strdup(words ?: "");
        char *rest = copy;

        if (reply->r != verdict) {
                print_error("answer %d instead of %d: %s\n", reply->r, verdict, reply->text);
                _fail(file, line);
        }
        if (verdict > 0 && (!reply->text[0] || strchr(reply->text, '\n'))) {
                print_error("not one line: '%s'\n", reply->text);
                _fail(file, line);
        }
        for (char *word; (word = strsep(&rest, "|"));)
                if (!strstr(reply->text, word)) {
                        print_error("'%s' is not in: %s\n", word, reply->text);
                        _fail(file, line);
                }
}

void env_expect_at(Env *env, const char *what, Uuid uuid, const ApMatrix *m, int verdict, const char *words,
                   const char *file, int line) {
        CLEANUP(freep) char *before = env_host_text(env), *after = NULL;
        CLEANUP(freep) char *matrices = env_matrix_text(env), *matrices_after = NULL;
        Reply reply;

        env_request(env, what, uuid, m, &reply);
        assert_reply(&reply, verdict, words, file, line);
        env_assert_no_overlap(env);
        if (verdict == 0)
                return;

        after = env_host_text(env);
        matrices_after = env_matrix_text(env);
        _assert_string_equal(after, before, file, line);
        _assert_string_equal(matrices_after, matrices, file, line);
}
