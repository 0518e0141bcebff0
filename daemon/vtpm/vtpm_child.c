/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Processes of TPMs where there is no systemd: in sessions of their own, so that they go on without us, and found again by their pid
 * files. For them we are what systemd would be: told when they are ready, and keeper of the device's descriptors while we live. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/timer.h"
#include "vtpm/vtpm_record.h"
#include "vtpm/vtpm_runner.h"
#include "vtpm/vtpm_tree.h"

#define KEPT_MAX    128
#define KEPT_NAME   32
#define MESSAGE_MAX 4096
#define PER_TURN    64                      /* messages, before others have their turn */
#define QUEUE_MAX   4096                    /* more than a socket's queue holds */
#define TERM_US     (3 * UINT64_C(1000000)) /* between SIGTERM and SIGKILL */
#define KILL_US     (5 * UINT64_C(1000000)) /* and the end, but for one that hangs in the kernel */
#define FIRST_FD    3
#define SPARE_FD    300 /* above all that a child gets */
#define TEXT_SIZE   320

typedef struct ChildRunner ChildRunner;

typedef struct Kept {
        char name[KEPT_NAME];
        int fd;
} Kept;

typedef struct Child {
        ChildRunner *runner;
        struct Child *next;
        VtpmRole role;
        Uuid uuid;
        pid_t pid;
        int pid_fd;
        bool ours; /* not adopted: it has an exit status for us */
        bool ready, stopping, killed;
        sd_event_source *exit, *timer;
        vtpm_runner_done_t start_done, stop_done;
        void *start_userdata, *stop_userdata;
        char text[TEXT_SIZE]; /* STATUS= */
        Kept *kept;           /* KEPT_MAX of a device */
        size_t n_kept;
} Child;

/* Descriptors of a device that has ended, for its next start. */
typedef struct Store {
        struct Store *next;
        Uuid uuid;
        Kept *kept;
        size_t n_kept;
} Store;

/* A stop of what is not there: answered from the loop all the same. */
typedef struct Later {
        ChildRunner *runner;
        struct Later *next;
        sd_event_source *source;
        vtpm_runner_done_t done;
        void *userdata;
} Later;

struct ChildRunner {
        VtpmRunner runner;
        sd_event *event;
        int root_fd, run_fd, notify_fd;
        char *launcher, *notify_name;
        char notify_path[sizeof((struct sockaddr_un) {}).sun_path];
        sd_event_source *notify;
        const VtpmRunnerEvents *events;
        void *userdata;
        Child *children;
        Store *stores;
        Later *later;
};

#define CHILD_RUNNER(r) CONTAINER_OF(r, ChildRunner, runner)

static Child *child_find(ChildRunner *r, VtpmRole role, Uuid uuid) {
        for (Child *c = r->children; c; c = c->next)
                if (c->role == role && uuid_equal(c->uuid, uuid))
                        return c;
        return NULL;
}

static void kept_close(Kept *kept, size_t n) {
        for (size_t i = 0; i < n; i++)
                fd_close(kept[i].fd);
        free(kept);
}

static void child_unlink(Child *c) {
        for (Child **p = &c->runner->children; *p; p = &(*p)->next)
                if (*p == c) {
                        *p = c->next;
                        return;
                }
}

static void child_free(Child *c) {
        sd_event_source_disable_unref(c->exit);
        sd_event_source_disable_unref(c->timer);
        fd_close(c->pid_fd);
        kept_close(c->kept, c->n_kept);
        free(c);
}

/* ---- descriptors ---- */

static void store_put(ChildRunner *r, Child *c) {
        Store *s;

        if (c->n_kept == 0)
                return;
        s = calloc(1, sizeof *s);
        if (!s)
                return; /* then the guest has lost its TPM; child_free() closes them */
        *s = (Store) { .next = r->stores, .uuid = c->uuid, .kept = TAKE(c->kept), .n_kept = c->n_kept };
        c->n_kept = 0;
        r->stores = s;
}

static Store *store_take(ChildRunner *r, Uuid uuid) {
        for (Store **p = &r->stores; *p; p = &(*p)->next)
                if (uuid_equal((*p)->uuid, uuid)) {
                        Store *s = *p;

                        *p = s->next;
                        return s;
                }
        return NULL;
}

static void store_drop(ChildRunner *r, Uuid uuid) {
        Store *s = store_take(r, uuid);

        if (s) {
                kept_close(s->kept, s->n_kept);
                free(s);
        }
}

static void kept_remove(Child *c, const char *name) {
        for (size_t i = 0; i < c->n_kept;)
                if (strcmp(c->kept[i].name, name) == 0) {
                        fd_close(c->kept[i].fd);
                        c->kept[i] = c->kept[--c->n_kept];
                } else
                        i++;
}

/* ---- start and end ---- */

static void start_answer(Child *c, int r, const char *text) {
        vtpm_runner_done_t done = TAKE(c->start_done);

        if (done)
                done(c->start_userdata, r, text);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        Child *c = userdata;
        vtpm_runner_done_t done;

        if (!c->stopping || !c->killed) { /* not ready in time, or not ended by SIGTERM */
                c->killed = true;
                (void) syscall(SYS_pidfd_send_signal, c->pid_fd, SIGKILL, NULL, 0);
                (void) sd_event_source_set_time_relative(s, KILL_US);
                (void) sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
                return 0;
        }

        done = TAKE(c->stop_done); /* it hangs in the kernel; still watched */
        if (done)
                done(c->stop_userdata, -ETIME, "it does not end, not even by SIGKILL");
        return 0;
}

static int set_timer(Child *c, uint64_t us) {
        int r;

        if (!c->timer)
                return timer_after(c->runner->event, &c->timer, us, on_timer, c);
        r = sd_event_source_set_time_relative(c->timer, us);
        return r < 0 ? r : sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

/* As a launcher's, or 128 + signal; not known of one that we adopted. */
static int exit_status(Child *c, char text[static TEXT_SIZE]) {
        siginfo_t info = {};

        if (!c->ours || waitid(P_PIDFD, (id_t) c->pid_fd, &info, WEXITED) < 0) {
                (void) snprintf(text, TEXT_SIZE, "%s ended", vtpm_role_name(c->role));
                return VTPM_EXIT_FAILURE;
        }
        if (info.si_code == CLD_EXITED) {
                (void) snprintf(text, TEXT_SIZE, "%s ended with status %d", vtpm_role_name(c->role),
                                info.si_status);
                return info.si_status;
        }
        (void) snprintf(text, TEXT_SIZE, "%s was ended by signal %d", vtpm_role_name(c->role),
                        info.si_status);
        return 128 + info.si_status;
}

static void receive_all(ChildRunner *r);

static int on_exit_of(sd_event_source *s, int fd, uint32_t events, void *userdata) {
        Child *c = userdata;
        ChildRunner *r = c->runner;
        vtpm_runner_done_t stop_done;
        char text[TEXT_SIZE];
        bool kept;
        int status;

        receive_all(r); /* its last words, and descriptors */
        status = exit_status(c, text);
        if (c->text[0] && !c->ready)
                (void) snprintf(text, sizeof text, "%s", c->text);

        child_unlink(c);
        stop_done = TAKE(c->stop_done);
        if (c->role == VTPM_ROLE_DEVICE && !c->stopping && (c->ready || !c->start_done))
                store_put(r, c);
        kept = !c->stopping && r->stores && uuid_equal(r->stores->uuid, c->uuid);

        if (c->start_done) {
                if (c->role == VTPM_ROLE_JOB && status == 0)
                        start_answer(c, 0, "");
                else if (c->killed && !c->stopping)
                        start_answer(c, -ETIME, "it was not ready in time");
                else
                        start_answer(c, status > 0 ? status : VTPM_EXIT_FAILURE, text);
        } else if (!c->stopping)
                r->events->ended(r->userdata, c->role, c->uuid, text, kept);
        if (stop_done)
                stop_done(c->stop_userdata, 0, "");
        child_free(c);
        return 0;
}

/* What was told to systemd, were it there: lines of NAME=VALUE, descriptors beside them. */
static void handle_message(Child *c, char *message, int *fds, size_t *n_fds) {
        const char *name = "stored";
        bool store = false, remove = false;

        for (char *save, *line = strtok_r(message, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                if (strcmp(line, "READY=1") == 0 && !c->ready && c->role != VTPM_ROLE_JOB) {
                        c->ready = true;
                        (void) sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
                } else if (strncmp(line, "STATUS=", 7) == 0)
                        (void) snprintf(c->text, sizeof c->text, "%s", line + 7);
                else if (strncmp(line, "FDNAME=", 7) == 0)
                        name = line + 7;
                else if (strcmp(line, "FDSTORE=1") == 0)
                        store = true;
                else if (strcmp(line, "FDSTOREREMOVE=1") == 0)
                        remove = true;
        }

        if (c->role != VTPM_ROLE_DEVICE || strlen(name) >= KEPT_NAME || strchr(name, ':'))
                return;
        if (remove)
                kept_remove(c, name);
        for (; store && *n_fds > 0 && c->kept && c->n_kept < KEPT_MAX; c->n_kept++) {
                (void) snprintf(c->kept[c->n_kept].name, KEPT_NAME, "%s", name);
                c->kept[c->n_kept].fd = fds[--*n_fds];
        }
}

static bool receive(ChildRunner *r) {
        union {
                char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int) * 16)];
                struct cmsghdr header;
        } control;
        char message[MESSAGE_MAX + 1];
        struct iovec iov = { .iov_base = message, .iov_len = MESSAGE_MAX };
        struct msghdr m = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes };
        struct ucred sender = {};
        int fds[16];
        size_t n_fds = 0;
        ssize_t n;

        n = recvmsg(r->notify_fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0)
                return errno == EINTR;
        message[n] = '\0';

        for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
                size_t size = h->cmsg_len - CMSG_LEN(0);

                if (h->cmsg_level != SOL_SOCKET)
                        continue;
                if (h->cmsg_type == SCM_CREDENTIALS && size == sizeof sender)
                        memcpy(&sender, CMSG_DATA(h), sizeof sender);
                else if (h->cmsg_type == SCM_RIGHTS) {
                        n_fds = MIN(size / sizeof *fds, ELEMENTS(fds));
                        memcpy(fds, CMSG_DATA(h), n_fds * sizeof *fds);
                }
        }

        for (Child *c = r->children; c; c = c->next)
                if (c->pid == sender.pid) {
                        bool was_ready = c->ready;

                        handle_message(c, message, fds, &n_fds);
                        if (c->ready && !was_ready)
                                start_answer(c, 0, "");
                        break;
                }
        for (; n_fds > 0; n_fds--)
                fd_close(fds[n_fds - 1]);
        return true;
}

/* What is there, but not without end what is being said meanwhile. */
static void receive_all(ChildRunner *r) {
        for (unsigned i = 0; i < QUEUE_MAX && receive(r); i++)
                ;
}

/* Who says more than can be listened to, whatever it is, keeps nobody from being served. */
static int on_notify(sd_event_source *s, int fd, uint32_t events, void *userdata) {
        for (unsigned i = 0; i < PER_TURN && receive(userdata); i++)
                ;
        return 0;
}

/* ---- a new process ---- */

typedef struct Image {
        char launcher[PATH_MAX], root[16], option[64];
        char *argv[4];
        char notify[128 + 16], listen_pid[32], listen_fds[32], *listen_names;
        char **env;
        int fds[KEPT_MAX]; /* copies far up */
        size_t n_fds;
} Image;

static void image_clear(Image *i) {
        for (size_t k = 0; k < i->n_fds; k++)
                fd_close(i->fds[k]);
        free(i->env);
        free(i->listen_names);
}

static int image_make(ChildRunner *r, Child *c, const Store *store, Image *i) {
        static const char *const ours[] = { "NOTIFY_SOCKET=",  "LISTEN_PID=",   "LISTEN_FDS=",
                                            "LISTEN_FDNAMES=", "WATCHDOG_PID=", "WATCHDOG_USEC=" };
        char uuid[UUID_STRING_SIZE];
        size_t n = 0, size = 0;
        FILE *f;

        *i = (Image) {};
        (void) snprintf(i->launcher, sizeof i->launcher, "%s", r->launcher);
        (void) snprintf(i->root, sizeof i->root, "--root=.");
        (void) snprintf(i->option, sizeof i->option, "--tpm-%s=%s", vtpm_role_name(c->role),
                        uuid_format(c->uuid, uuid));
        i->argv[0] = i->launcher;
        i->argv[1] = i->root;
        i->argv[2] = i->option;

        while (environ[n])
                n++;
        i->env = calloc(n + 5, sizeof *i->env);
        if (!i->env)
                return -ENOMEM;
        n = 0;
        for (char **e = environ; *e; e++) {
                size_t k;

                for (k = 0; k < ELEMENTS(ours); k++)
                        if (strncmp(*e, ours[k], strlen(ours[k])) == 0)
                                break;
                if (k == ELEMENTS(ours))
                        i->env[n++] = *e;
        }
        (void) snprintf(i->notify, sizeof i->notify, "NOTIFY_SOCKET=%s", r->notify_path);
        i->env[n++] = i->notify;
        if (!store)
                return 0;

        f = open_memstream(&i->listen_names, &size);
        if (!f)
                return -ENOMEM;
        (void) fputs("LISTEN_FDNAMES=", f);
        for (; i->n_fds < store->n_kept; i->n_fds++) {
                i->fds[i->n_fds] = fcntl(store->kept[i->n_fds].fd, F_DUPFD_CLOEXEC, SPARE_FD);
                if (i->fds[i->n_fds] < 0) {
                        (void) fclose(f);
                        return -errno;
                }
                (void) fprintf(f, "%s%s", i->n_fds > 0 ? ":" : "", store->kept[i->n_fds].name);
        }
        if (fclose(f) != 0)
                return -ENOMEM;
        (void) snprintf(i->listen_pid, sizeof i->listen_pid, "LISTEN_PID=0000000000");
        (void) snprintf(i->listen_fds, sizeof i->listen_fds, "LISTEN_FDS=%zu", i->n_fds);
        i->env[n++] = i->listen_pid;
        i->env[n++] = i->listen_fds;
        i->env[n++] = i->listen_names;
        return 0;
}

/* In the new process, where another thread's locks may be held for ever: only system calls. */
static void become(const ChildRunner *r, Image *i) {
        char *digit = i->listen_pid + strlen("LISTEN_PID=") + 10;
        struct sigaction action = { .sa_handler = SIG_DFL };
        sigset_t none;
        int null_fd;

        (void) setsid();
        for (int s = 1; s < _NSIG; s++)
                (void) sigaction(s, &action, NULL);
        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);

        null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || fchdir(r->root_fd) < 0)
                _exit(VTPM_EXIT_FAILURE);
        for (size_t k = 0; k < i->n_fds; k++)
                if (dup2(i->fds[k], FIRST_FD + (int) k) < 0)
                        _exit(VTPM_EXIT_FAILURE);
        (void) close_range(FIRST_FD + (unsigned) i->n_fds, UINT_MAX, CLOSE_RANGE_CLOEXEC);
        if (i->n_fds > 0)
                for (pid_t pid = getpid(); pid > 0; pid /= 10)
                        *--digit = (char) ('0' + pid % 10);
        (void) execve(i->launcher, i->argv, i->env);
        _exit(VTPM_EXIT_FAILURE);
}

static int spawn(ChildRunner *r, Child *c, const Store *store) {
        CLEANUP(image_clear) Image image;
        sigset_t all, saved;
        int ret;

        ret = image_make(r, c, store, &image);
        if (ret < 0)
                return ret;

        (void) sigfillset(&all); /* none of our handlers runs in the child */
        (void) pthread_sigmask(SIG_SETMASK, &all, &saved);
        c->pid = fork();
        ret = -errno;
        if (c->pid == 0)
                become(r, &image);
        (void) pthread_sigmask(SIG_SETMASK, &saved, NULL);
        if (c->pid < 0)
                return ret;

        c->pid_fd = (int) syscall(SYS_pidfd_open, c->pid, 0);
        return ret_errno(c->pid_fd);
}

static int child_watch(Child *c) {
        return sd_event_add_io(c->runner->event, &c->exit, c->pid_fd, EPOLLIN, on_exit_of, c);
}

static Child *child_new(ChildRunner *r, VtpmRole role, Uuid uuid) {
        Child *c = calloc(1, sizeof *c);

        if (!c)
                return NULL;
        *c = (Child) { .runner = r, .role = role, .uuid = uuid, .pid_fd = -1 };
        if (role == VTPM_ROLE_DEVICE) {
                c->kept = calloc(KEPT_MAX, sizeof *c->kept);
                if (!c->kept) {
                        free(c);
                        return NULL;
                }
        }
        return c;
}

static int child_start(VtpmRunner *runner, VtpmRole role, Uuid uuid, uint64_t timeout_us,
                       vtpm_runner_done_t done, void *userdata) {
        ChildRunner *r = CHILD_RUNNER(runner);
        Store *store;
        Child *c;
        int ret;

        if (child_find(r, role, uuid))
                return -EALREADY;
        c = child_new(r, role, uuid);
        if (!c)
                return -ENOMEM;

        c->ours = true;
        store = role == VTPM_ROLE_DEVICE ? store_take(r, uuid) : NULL;
        ret = spawn(r, c, store);
        if (ret >= 0)
                ret = child_watch(c);
        if (ret >= 0)
                ret = set_timer(c, timeout_us);
        if (store) { /* it stores anew only what changes */
                for (; ret >= 0 && c->n_kept < store->n_kept; c->n_kept++)
                        c->kept[c->n_kept] = store->kept[c->n_kept];
                if (ret >= 0)
                        store->n_kept = 0;
                kept_close(store->kept, store->n_kept);
                free(store);
        }
        if (ret < 0) {
                if (c->pid > 0) {
                        (void) kill(c->pid, SIGKILL);
                        (void) waitpid(c->pid, NULL, 0);
                }
                child_free(c);
                return ret;
        }

        c->start_done = done;
        c->start_userdata = userdata;
        c->next = r->children;
        r->children = c;
        return 0;
}

static int on_later(sd_event_source *s, void *userdata) {
        Later *l = userdata;

        for (Later **p = &l->runner->later; *p; p = &(*p)->next)
                if (*p == l) {
                        *p = l->next;
                        break;
                }
        l->done(l->userdata, 0, "");
        sd_event_source_disable_unref(l->source);
        free(l);
        return 0;
}

static int answer_later(ChildRunner *r, vtpm_runner_done_t done, void *userdata) {
        Later *l = calloc(1, sizeof *l);
        int ret;

        if (!l)
                return -ENOMEM;
        *l = (Later) { .runner = r, .next = r->later, .done = done, .userdata = userdata };
        ret = sd_event_add_defer(r->event, &l->source, on_later, l);
        if (ret < 0) {
                free(l);
                return ret;
        }
        r->later = l;
        return 0;
}

static int open_run_dir(ChildRunner *r, Uuid uuid) {
        char path[VTPM_PATH_SIZE], text[UUID_STRING_SIZE];

        (void) snprintf(path, sizeof path, VTPM_SOCKETS_DIR "/%s", uuid_format(uuid, text));
        return ret_errno(openat(r->run_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
}

static int child_adopt(VtpmRunner *runner, VtpmRole role, Uuid uuid) {
        ChildRunner *r = CHILD_RUNNER(runner);
        CLEANUP(fd_closep) int run_fd = open_run_dir(r, uuid), pid_fd = -1;
        pid_t pid = 0;
        Child *c;
        int ret;

        pid_fd = run_fd < 0 ? run_fd : vtpm_process_open(run_fd, role, &pid);
        if (pid_fd < 0)
                return pid_fd == -ESRCH || pid_fd == -ENOENT ? 0 : pid_fd;
        c = child_new(r, role, uuid);
        if (!c)
                return -ENOMEM;

        c->ready = true;
        c->pid = pid;
        c->pid_fd = TAKE_FD(pid_fd);
        ret = child_watch(c);
        if (ret < 0) {
                child_free(c);
                return ret;
        }
        c->next = r->children;
        r->children = c;
        return 1;
}

static int child_stop(VtpmRunner *runner, VtpmRole role, Uuid uuid, vtpm_runner_done_t done,
                      void *userdata) {
        ChildRunner *r = CHILD_RUNNER(runner);
        Child *c;
        int ret;

        if (role == VTPM_ROLE_DEVICE)
                store_drop(r, uuid);
        c = child_find(r, role, uuid);
        if (!c &&
            child_adopt(runner, role, uuid) > 0) /* begun by one before us, and not seen at our start */
                c = child_find(r, role, uuid);
        if (!c)
                return answer_later(r, done, userdata);
        if (c->stop_done)
                return -EALREADY;

        ret = set_timer(c, TERM_US);
        if (ret < 0)
                return ret;
        c->stopping = true;
        c->killed = false;
        c->stop_done = done;
        c->stop_userdata = userdata;
        (void) syscall(SYS_pidfd_send_signal, c->pid_fd, SIGTERM, NULL, 0);
        return 0;
}

static void child_runner_free(VtpmRunner *runner) {
        ChildRunner *r = CHILD_RUNNER(runner);

        for (Child *c; (c = r->children);) {
                r->children = c->next;
                child_free(c);
        }
        for (Later *l; (l = r->later);) {
                r->later = l->next;
                sd_event_source_disable_unref(l->source);
                free(l);
        }
        while (r->stores)
                store_drop(r, r->stores->uuid);
        sd_event_source_disable_unref(r->notify);
        fd_close(r->notify_fd);
        if (r->notify_name)
                (void) unlinkat(r->run_fd, r->notify_name, 0);
        free(r->notify_name);
        free(r->launcher);
        free(r);
}

static const VtpmRunnerOps child_ops = {
        .start = child_start,
        .stop = child_stop,
        .adopt = child_adopt,
        .free = child_runner_free,
};

#define NOTIFY_PREFIX "tpm-notify-"

/* Sockets of daemons that died: nobody listens there any more. */
static void remove_stale(ChildRunner *r) {
        CLEANUP(closedirp) DIR *d = NULL;
        int fd = openat(r->run_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        d = fd >= 0 ? fdopendir(fd) : NULL;
        for (struct dirent *e; d && (e = readdir(d));) {
                CLEANUP(fd_closep) int probe = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
                struct sockaddr_un address = { .sun_family = AF_UNIX };

                if (strncmp(e->d_name, NOTIFY_PREFIX, strlen(NOTIFY_PREFIX)) != 0 || probe < 0)
                        continue;
                if (snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", r->run_fd,
                             e->d_name) < (int) sizeof address.sun_path &&
                    connect(probe, (struct sockaddr *) &address, sizeof address) < 0 &&
                    errno == ECONNREFUSED)
                        (void) unlinkat(r->run_fd, e->d_name, 0);
        }
}

/* A socket for each daemon: a second one must not take away what the first one's processes talk to. */
static int open_notify(ChildRunner *r) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char link[40], directory[sizeof r->notify_path];
        const int yes = 1;
        ssize_t n;

        remove_stale(r);
        (void) snprintf(link, sizeof link, "/proc/self/fd/%d", r->run_fd);
        n = readlink(link, directory, sizeof directory - 1);
        if (n < 0)
                return -errno;
        directory[n] = '\0';
        if (snprintf(r->notify_path, sizeof r->notify_path, "%s/" NOTIFY_PREFIX "%d", directory,
                     (int) getpid()) >= (int) sizeof r->notify_path)
                return -ENAMETOOLONG;
        r->notify_name = strdup(strrchr(r->notify_path, '/') + 1);
        if (!r->notify_name)
                return -ENOMEM;

        r->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (r->notify_fd < 0)
                return -errno;
        (void) snprintf(address.sun_path, sizeof address.sun_path, "%s", r->notify_path);
        (void) unlink(address.sun_path);
        if (setsockopt(r->notify_fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) < 0 ||
            bind(r->notify_fd, (struct sockaddr *) &address, sizeof address) < 0 ||
            chmod(address.sun_path, 0600) < 0)
                return -errno;
        return sd_event_add_io(r->event, &r->notify, r->notify_fd, EPOLLIN, on_notify, r);
}

int vtpm_child_new(sd_event *event, int root_fd, int run_fd, const char *launcher,
                   const VtpmRunnerEvents *events, void *userdata, VtpmRunner **ret) {
        ChildRunner *r = calloc(1, sizeof *r);
        int ret_code;

        if (!r)
                return -ENOMEM;
        *r = (ChildRunner) { .runner.ops = &child_ops,
                             .event = event,
                             .root_fd = root_fd,
                             .run_fd = run_fd,
                             .notify_fd = -1,
                             .events = events,
                             .userdata = userdata };
        r->launcher = realpath(launcher, NULL);
        ret_code = r->launcher ? open_notify(r) : -errno;
        if (ret_code < 0) {
                child_runner_free(&r->runner);
                return ret_code;
        }

        *ret = &r->runner;
        return 0;
}
