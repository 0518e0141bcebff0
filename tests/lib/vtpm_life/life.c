/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/vtpm_life/life.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "vtpm/vtpm_process.h"
#include "vtpm/vtpm_record.h"
#include "vtpm/vtpm_tree.h"

#define PATIENCE_US (60 * UINT64_C(1000000))
#define PLACE       "/mnt" /* of the tests' files: a file system of their own, that nobody else sees */

static const char *launcher;

bool life_possible(void) {
        return geteuid() == 0 && access("/usr/bin/swtpm", X_OK) == 0 &&
               access("/usr/bin/swtpm_setup", X_OK) == 0;
}

/* The first process of the namespace: all others end with it, and those that lost their parents are its own. */
static void be_init(pid_t test) {
        int status = 0, mine = EXIT_FAILURE;
        pid_t pid;

        while ((pid = waitpid(-1, &status, 0)) > 0 || errno == EINTR)
                if (pid == test) {
                        mine = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
                        break;
                }
        _exit(mine);
}

static void be_parent(pid_t init) {
        int status;

        while (waitpid(init, &status, 0) < 0 && errno == EINTR)
                ;
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE);
}

bool life_enclose(void) {
        int alive
                [2]; /* its write end closes with the first process, also before that one is our parent no more */
        pid_t pid;

        if (unshare(CLONE_NEWNS | CLONE_NEWPID) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return false;
        assert(pipe(alive) == 0);
        pid = fork();
        assert(pid >= 0);
        if (pid > 0) {
                fd_close(alive[0]);
                be_parent(pid);
        }

        fd_close(alive[1]);
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
            poll(&(struct pollfd) { .fd = alive[0], .events = POLLIN }, 1, 0) != 0)
                _exit(EXIT_FAILURE);
        fd_close(alive[0]);
        pid = fork();
        assert(pid >= 0);
        if (pid > 0)
                be_init(pid);

        assert(mount("proc", "/proc", "proc", 0, NULL) == 0);
        assert(mount("life", PLACE, "tmpfs", 0, "mode=755") == 0);
        return true;
}

const char *life_path(const Life *l, const char *format, ...) {
        static char buffers[4][512];
        static unsigned next;
        char *b = buffers[next++ % ELEMENTS(buffers)];
        va_list ap;
        int n;

        n = snprintf(b, sizeof *buffers, "%s/", l->root);
        va_start(ap, format);
        (void) vsnprintf(b + n, sizeof *buffers - (size_t) n, format, ap);
        va_end(ap);
        return b;
}

const char *life_run_file(const Life *l, Uuid uuid, const char *name) {
        char text[UUID_STRING_SIZE];

        return life_path(l, VTPM_RUN_DIR "/tpm/%s/%s", uuid_format(uuid, text), name);
}

const char *life_state_file(const Life *l, Uuid uuid, const char *name) {
        char text[UUID_STRING_SIZE];

        return life_path(l, VTPM_STATE_DIR "/tpms/%s/%s", uuid_format(uuid, text), name);
}

void life_init(Life *l, const char *program) {
        *l = (Life) {};
        launcher = program;
        (void) strcpy(l->root, PLACE "/life-XXXXXX");
        assert(mkdtemp(l->root));
        assert(chmod(l->root, 0755) == 0); /* as / is */
        l->root_fd = open(l->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert(l->root_fd >= 0);
        fd_close(file_open_dir(l->root_fd, VTPM_STATE_DIR));
        assert(fchmodat(l->root_fd, VTPM_STATE_DIR, 0700, 0) == 0);
        assert(sd_event_new(&l->event) >= 0);
        assert(life_open(l) >= 0);
}

static void on_event(void *userdata, Uuid uuid, VtpmChange change) {
        ((Life *) userdata)->n_events++;
}

int life_open(Life *l) {
        const VtpmConfig config = {
                .root_fd = l->root_fd,
                .state_dir = VTPM_STATE_DIR,
                .run_dir = VTPM_RUN_DIR,
                .group = LIFE_GROUP,
                .launcher = launcher,
                .max_tpms = 200,
        };

        return vtpm_new(l->event, &config, on_event, l, &l->vtpm);
}

void life_close(Life *l) {
        l->vtpm = vtpm_free(l->vtpm);
}

static int on_time(sd_event_source *s, uint64_t usec, void *userdata) {
        (void) fprintf(stderr, "%s did not come in time\n", (const char *) userdata);
        abort();
}

static void run_once(Life *l, const char *what) {
        sd_event_source *s = NULL;

        assert(sd_event_add_time_relative(l->event, &s, CLOCK_MONOTONIC, PATIENCE_US, 0, on_time,
                                          (void *) what) >= 0);
        assert(sd_event_run(l->event, UINT64_MAX) >= 0);
        sd_event_source_disable_unref(s);
}

void life_pump(void *life) {
        assert(sd_event_run(((Life *) life)->event, 1000) >= 0);
}

uint64_t life_patience(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000 + PATIENCE_US;
}

void life_pump_until(Life *l, uint64_t end, const char *what) {
        if (life_patience() - PATIENCE_US > end) {
                (void) fprintf(stderr, "'%s' did not come true in time\n", what);
                abort();
        }
        life_pump(l);
}

void life_wait(Life *l) {
        while (l->waits > 0)
                run_once(l, "an answer");
}

void life_done(Life *l) {
        CLEANUP(freep) Uuid *list = NULL;
        size_t n = 0;

        if (!l->vtpm)
                assert(life_open(l) >= 0);
        assert(l->vtpm->ops->list(l->vtpm, &list, &n) >= 0);
        for (size_t i = 0; i < n; i++)
                (void) life_stop(l, list[i]);
        life_close(l);
        sd_event_unref(l->event);
        fd_close(l->root_fd);
        assert(vtpm_tree_remove(AT_FDCWD, l->root) >= 0);
}

void life_answer(void *userdata, int r, VtpmVerdict verdict, const char *text, Uuid uuid) {
        Life *l = userdata;

        assert(l->waits > 0);
        l->waits--;
        l->r = r;
        l->verdict = verdict;
        l->uuid = uuid;
        l->n_refused += r < 0 || verdict != VTPM_DONE;
        (void) snprintf(l->text, sizeof l->text, "%s", text);
        if (verdict != VTPM_DONE || r < 0)
                (void) fprintf(stderr, "refused: %s: %s\n", vtpm_verdict_name(verdict), text);
}

static int result(Life *l, int r) {
        if (r < 0) {
                l->waits--;
                return r;
        }
        life_wait(l);
        return l->r < 0 ? l->r : (int) l->verdict;
}

#define CALL(l, name, ...) \
        ((l)->waits++, result(l, (l)->vtpm->ops->name((l)->vtpm, __VA_ARGS__, life_answer, l)))

int life_define(Life *l, const VtpmSpec *spec) {
        return CALL(l, define, spec);
}

int life_start(Life *l, Uuid uuid, TpmModel model) {
        return CALL(l, start, uuid, model);
}

int life_stop(Life *l, Uuid uuid) {
        return CALL(l, stop, uuid);
}

int life_reset(Life *l, Uuid uuid) {
        return CALL(l, reset, uuid);
}

int life_undefine(Life *l, Uuid uuid, bool wipe) {
        return CALL(l, undefine, uuid, wipe);
}

int life_backup(Life *l, Uuid uuid, int fd) {
        return CALL(l, backup, uuid, fd);
}

int life_restore(Life *l, int fd, const VtpmSpec *spec) {
        return CALL(l, restore, fd, spec);
}

int life_import(Life *l, const char *directory, const VtpmSpec *spec) {
        return CALL(l, import, directory, spec);
}

int life_set_guest(Life *l, Uuid uuid, const char *guest) {
        return CALL(l, set_guest, uuid, guest, (Uuid) {});
}

static void on_counters(void *userdata, int r, VtpmVerdict verdict, const char *text,
                        const VtpmCounter *counters, size_t n) {
        Life *l = userdata;

        life_answer(l, r, verdict, text, (Uuid) {});
        l->n_counters = MIN(n, ELEMENTS(l->counters));
        if (l->n_counters > 0)
                memcpy(l->counters, counters, l->n_counters * sizeof *counters);
}

int life_counters(Life *l, Uuid uuid) {
        l->waits++;
        return result(l, l->vtpm->ops->counters(l->vtpm, uuid, on_counters, l));
}

uint64_t life_counter(const Life *l, const char *name) {
        for (size_t i = 0; i < l->n_counters; i++)
                if (strcmp(l->counters[i].name, name) == 0)
                        return l->counters[i].value;
        return UINT64_MAX;
}

VtpmView life_view(Life *l, Uuid uuid) {
        VtpmView v = {};

        assert(l->vtpm->ops->get(l->vtpm, uuid, &v) >= 0);
        return v;
}

void life_until(Life *l, Uuid uuid, VtpmState state) {
        while (life_view(l, uuid).state != state)
                run_once(l, vtpm_state_name(state));
}

pid_t life_pid(const Life *l, Uuid uuid, const char *name) {
        CLEANUP(freep) char *text = NULL;
        unsigned long long since;
        uint64_t actual;
        int pid;

        if (file_read_at(AT_FDCWD, life_run_file(l, uuid, name), 64, &text, NULL) < 0 ||
            sscanf(text, "%d %llu", &pid, &since) != 2 || vtpm_process_since(pid, &actual) < 0 ||
            actual != since)
                return 0;
        return pid;
}

void life_kill(const Life *l, Uuid uuid, const char *name) {
        pid_t pid = life_pid(l, uuid, name);
        int fd;

        assert(pid > 0);
        fd = (int) syscall(SYS_pidfd_open, pid, 0);
        assert(fd >= 0 && syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0);
        while (poll(&(struct pollfd) { .fd = fd, .events = POLLIN }, 1, -1) != 1)
                assert(errno == EINTR);
        fd_close(fd);
}

int life_connect(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

        assert(fd >= 0 && strlen(path) < sizeof address.sun_path);
        (void) strcpy(address.sun_path, path);
        if (connect(fd, (struct sockaddr *) &address, sizeof address) == 0)
                return fd;
        r = -errno;
        fd_close(fd);
        return r;
}

static int as(uid_t uid, gid_t gid, const char *path, bool socket_file) {
        int status, fd;
        pid_t pid = fork();

        if (pid == 0) {
                if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
                        _exit(255);
                fd = socket_file ? life_connect(path) : ret_errno(open(path, O_RDONLY));
                _exit(fd < 0 ? -fd : 0);
        }
        assert(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
               WEXITSTATUS(status) != 255);
        return -WEXITSTATUS(status);
}

int life_connect_as(uid_t uid, gid_t gid, const char *path) {
        return as(uid, gid, path, true);
}

int life_open_as(uid_t uid, const char *path) {
        return as(uid, uid, path, false);
}

void life_write(const char *path, const char *data, size_t size) {
        assert(file_write_synced(AT_FDCWD, path, data, size) >= 0);
}
