/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "sim/sim_fuse.h"

#ifndef FOPEN_PARALLEL_DIRECT_WRITES /* headers of Linux before 6.2 */
#define FOPEN_PARALLEL_DIRECT_WRITES (1 << 6)
#endif

#define INODE_HASH 65536u

/* The kernel's sysfs asks nobody for a name, so that tools walk its paths freely. Here the kernel may keep the names
 * that are there as long as their directory is, and asks for the others each time: an object that has gone takes
 * what is below it along. Owner and mode change by setattr only, which the kernel knows of. */
#define KEEP_SECONDS 86400.0

/* A name that the kernel holds. Its address is the inode number; the root is FUSE_ROOT_ID. */
typedef struct Inode {
        struct Inode *next;
        uint64_t serial, lookups;
        struct { /* set by chown and chmod, which udev rules and administrators use */
                bool owner, mode;
                uid_t uid;
                gid_t gid;
                mode_t bits;
        } set;
        unsigned hash;
        char path[]; /* "" is the root */
} Inode;

typedef struct File {
        struct File *prev, *next; /* of all that are open */
        SimFile *sim;
        char *content; /* of the last read at offset 0 */
        size_t n;
} File;

typedef struct Entries {
        struct Entries *prev, *next; /* of all that are open */
        char *names;                 /* type character, name, NUL, and so on */
        size_t n, size, count;
        size_t *at;
        size_t at_size;
} Entries;

/* A request without an answer: the model keeps it (@id) or a delay does (@deadline). */
typedef struct Waiter {
        struct Waiter *next;
        struct Front *front;
        fuse_req_t req;
        uint64_t id, deadline;
        bool read;
        File *file;
        size_t size;
        off_t off;
        ssize_t result;
} Waiter;

typedef struct Front {
        Sim *sim;
        struct fuse_session *session;
        Inode *root, *inodes[INODE_HASH];
        Waiter *waiters;
        File *files;
        Entries *directories;
} Front;

static Front *front_of(fuse_req_t req) {
        return fuse_req_userdata(req);
}

/* inodes */

static Inode *inode_of(Front *f, fuse_ino_t ino) {
        return ino == FUSE_ROOT_ID ? f->root : (Inode *) (uintptr_t) ino;
}

static Inode *inode_get(Front *f, const char *path, uint64_t serial) {
        unsigned hash = 2166136261u;
        size_t n = strlen(path);
        Inode *i;

        for (size_t k = 0; k < n; k++)
                hash = (hash ^ (unsigned char) path[k]) * 16777619u;
        hash %= INODE_HASH;
        for (i = f->inodes[hash]; i; i = i->next)
                if (i->serial == serial && strcmp(i->path, path) == 0)
                        break;
        if (!i) {
                i = calloc(1, sizeof *i + n + 1);
                if (!i)
                        return NULL;
                i->serial = serial;
                i->hash = hash;
                memcpy(i->path, path, n + 1);
                i->next = f->inodes[hash];
                f->inodes[hash] = i;
        }
        i->lookups++;
        return i;
}

static void inode_put(Front *f, Inode *i, uint64_t n) {
        Inode **at = &f->inodes[i->hash];

        i->lookups -= n;
        if (i->lookups > 0 || i == f->root)
                return;
        while (*at != i)
                at = &(*at)->next;
        *at = i->next;
        free(i);
}

/* -ENOENT also if the name means another object by now. */
static int inode_stat(Front *f, const Inode *i, SimStat *ret) {
        int r;

        r = sim_lstat(f->sim, i->path, ret);
        if (r < 0)
                return r;
        return ret->serial == i->serial ? 0 : -ENOENT;
}

static struct stat make_stat(const Inode *i, const SimStat *st) {
        struct stat s = {
                .st_ino = (ino_t) (uintptr_t) i,
                .st_mode = st->mode,
                .st_nlink = 1,
                .st_size = S_ISREG(st->mode) ? SIM_PAGE_SIZE : 0,
                .st_blksize = SIM_PAGE_SIZE,
        };

        if (i->set.owner) {
                s.st_uid = i->set.uid;
                s.st_gid = i->set.gid;
        }
        if (i->set.mode)
                s.st_mode = (st->mode & S_IFMT) | i->set.bits;
        return s;
}

static int join(char *buf, size_t size, const char *dir, const char *name) {
        int n = snprintf(buf, size, "%s%s%s", dir, *dir ? "/" : "", name);

        return n < 0 || (size_t) n >= size ? -ENAMETOOLONG : 0;
}

static void sim_lookup(fuse_req_t req, fuse_ino_t parent, const char *name) {
        Front *f = front_of(req);
        const Inode *dir = inode_of(f, parent);
        struct fuse_entry_param e = { .generation = 1, .attr_timeout = KEEP_SECONDS };
        char path[PATH_MAX];
        SimStat st;
        Inode *i;
        int r;

        r = inode_stat(f, dir, &st);
        if (r == 0)
                r = join(path, sizeof path, dir->path, name);
        if (r == 0)
                r = sim_lstat(f->sim, path, &st);
        if (r < 0) {
                (void) fuse_reply_err(req, -r);
                return;
        }
        i = inode_get(f, path, st.serial);
        if (!i) {
                (void) fuse_reply_err(req, ENOMEM);
                return;
        }
        e.ino = (fuse_ino_t) (uintptr_t) i;
        e.attr = make_stat(i, &st);
        e.entry_timeout = st.fixed ? KEEP_SECONDS : 0;
        if (fuse_reply_entry(req, &e) < 0)
                inode_put(f, i, 1);
}

static void sim_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n) {
        inode_put(front_of(req), inode_of(front_of(req), ino), n);
        fuse_reply_none(req);
}

static void sim_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *list) {
        for (size_t i = 0; i < count; i++)
                inode_put(front_of(req), inode_of(front_of(req), list[i].ino), list[i].nlookup);
        fuse_reply_none(req);
}

static void reply_attr(fuse_req_t req, const Inode *i) {
        struct stat s;
        SimStat st;
        int r;

        r = inode_stat(front_of(req), i, &st);
        if (r < 0) {
                (void) fuse_reply_err(req, -r);
                return;
        }
        s = make_stat(i, &st);
        (void) fuse_reply_attr(req, &s, KEEP_SECONDS);
}

static void sim_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
        reply_attr(req, inode_of(front_of(req), ino));
}

/* A new size (O_TRUNC) and new times mean nothing to an attribute. */
static void sim_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int what,
                        struct fuse_file_info *fi) {
        Inode *i = inode_of(front_of(req), ino);

        if (what & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_MODE)) {
                if (!i->set.owner && !i->set.mode)
                        i->lookups++; /* kept for good: the kernel forgets names that nobody has open */
                if (what & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
                        i->set.owner = true;
                if (what & FUSE_SET_ATTR_UID)
                        i->set.uid = attr->st_uid;
                if (what & FUSE_SET_ATTR_GID)
                        i->set.gid = attr->st_gid;
                if (what & FUSE_SET_ATTR_MODE) {
                        i->set.mode = true;
                        i->set.bits = attr->st_mode & 07777;
                }
        }
        reply_attr(req, i);
}

static void sim_readlink_req(fuse_req_t req, fuse_ino_t ino) {
        Front *f = front_of(req);
        const Inode *i = inode_of(f, ino);
        char target[PATH_MAX];
        SimStat st;
        ssize_t r;

        r = inode_stat(f, i, &st);
        if (r == 0)
                r = sim_readlink(f->sim, i->path, target, sizeof target);
        if (r < 0)
                (void) fuse_reply_err(req, (int) -r);
        else
                (void) fuse_reply_readlink(req, target);
}

/* directories */

static int add_entry(void *userdata, const char *name, mode_t type) {
        Entries *e = userdata;
        size_t n = strlen(name) + 2;

        if (e->n + n > e->size) {
                size_t size = (e->size + n) * 2;
                char *names = realloc(e->names, size);

                if (!names)
                        return -ENOMEM;
                e->names = names;
                e->size = size;
        }
        if (e->count == e->at_size) {
                size_t size = e->at_size * 2 + 64;
                size_t *at = realloc(e->at, size * sizeof *at);

                if (!at)
                        return -ENOMEM;
                e->at = at;
                e->at_size = size;
        }
        e->at[e->count++] = e->n;
        e->names[e->n] = S_ISDIR(type) ? 'd' : S_ISLNK(type) ? 'l' : 'f';
        memcpy(e->names + e->n + 1, name, n - 1);
        e->n += n;
        return 0;
}

static void entries_free(Entries *e) {
        free(e->names);
        free(e->at);
        free(e);
}

#define LINK(list, item) \
        do { \
                (item)->next = (list); \
                if (list) \
                        (list)->prev = (item); \
                (list) = (item); \
        } while (0)

#define UNLINK(list, item) \
        do { \
                if ((item)->prev) \
                        (item)->prev->next = (item)->next; \
                else \
                        (list) = (item)->next; \
                if ((item)->next) \
                        (item)->next->prev = (item)->prev; \
        } while (0)

static void sim_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
        Front *f = front_of(req);
        const Inode *i = inode_of(f, ino);
        Entries *e = calloc(1, sizeof *e);
        SimStat st;
        int r;

        r = e ? inode_stat(f, i, &st) : -ENOMEM;
        if (r == 0)
                r = add_entry(e, ".", S_IFDIR);
        if (r == 0)
                r = add_entry(e, "..", S_IFDIR);
        if (r == 0)
                r = sim_readdir(f->sim, i->path, add_entry, e);
        fi->fh = (uint64_t) (uintptr_t) e;
        if (r == 0)
                r = fuse_reply_open(req, fi) < 0 ? 1 : 0; /* 1: nobody waits for an answer */
        else
                (void) fuse_reply_err(req, -r);
        if (r == 0)
                LINK(f->directories, e);
        else if (e)
                entries_free(e);
}

static void sim_readdir_req(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                            struct fuse_file_info *fi) {
        const Entries *e = (const Entries *) (uintptr_t) fi->fh;
        CLEANUP(freep)
        char *buf = malloc(size);
        size_t n = 0;

        if (!buf) {
                (void) fuse_reply_err(req, ENOMEM);
                return;
        }
        for (size_t k = (size_t) off; k < e->count; k++) {
                const char *entry = e->names + e->at[k];
                struct stat s = {
                        .st_ino = k + 2, /* not the inode's, which the kernel does not know yet; never 0 */
                        .st_mode = *entry == 'd'   ? S_IFDIR
                                   : *entry == 'l' ? S_IFLNK
                                                   : S_IFREG,
                };
                size_t need = fuse_add_direntry(req, buf + n, size - n, entry + 1, &s, (off_t) k + 1);

                if (need > size - n)
                        break;
                n += need;
        }
        (void) fuse_reply_buf(req, buf, n);
}

static void sim_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
        Entries *e = (Entries *) (uintptr_t) fi->fh;

        UNLINK(front_of(req)->directories, e);
        entries_free(e);
        (void) fuse_reply_err(req, 0);
}

/* answers */

static void reply_content(fuse_req_t req, const File *file, size_t size, off_t off) {
        size_t n = (size_t) off < file->n ? file->n - (size_t) off : 0;

        (void) fuse_reply_buf(req, n > 0 ? file->content + off : NULL, MIN(n, size));
}

static void answer(const Waiter *w) {
        if (w->result < 0)
                (void) fuse_reply_err(w->req, (int) -w->result);
        else if (w->read)
                reply_content(w->req, w->file, w->size, w->off);
        else
                (void) fuse_reply_write(w->req, (size_t) w->result);
}

static void interrupted(fuse_req_t req, void *data) {
        const Waiter *w = data;

        (void) sim_interrupt(w->front->sim, w->id); /* answers through done(), if it does; may free @w */
}

/* Answers, now or when the delay is over or the model has done it. */
static void finish(Front *f, Waiter values) {
        uint64_t delay = sim_take_delay(f->sim);
        Waiter *w;

        if (values.result != SIM_NEVER && delay == 0) {
                answer(&values);
                return;
        }
        w = malloc(sizeof *w);
        if (!w) {
                (void) fuse_reply_err(values.req, ENOMEM);
                return;
        }
        *w = values;
        w->front = f;
        w->deadline = clock_now_us() + delay;
        w->id = w->result == SIM_NEVER ? sim_pending(f->sim) : 0;
        w->next = f->waiters;
        f->waiters = w;
        if (w->id)
                fuse_req_interrupt_func(w->req, interrupted, w);
}

static void done(void *userdata, uint64_t id, ssize_t result, const char *data) {
        Front *f = userdata;

        for (Waiter **at = &f->waiters, *w; (w = *at); at = &w->next) {
                if (w->id != id)
                        continue;
                *at = w->next;
                w->result = result;
                if (w->read && result >= 0) {
                        memcpy(w->file->content, data, (size_t) result);
                        w->file->n = (size_t) result;
                }
                answer(w);
                free(w);
                return;
        }
}

/* Answers what has been delayed long enough; milliseconds to the next one, -1 if there is none. */
static int answer_delayed(Front *f) {
        uint64_t now = clock_now_us(), next = UINT64_MAX;

        for (Waiter **at = &f->waiters, *w; (w = *at);) {
                if (!w->id && w->deadline <= now) {
                        *at = w->next;
                        answer(w);
                        free(w);
                        continue;
                }
                if (!w->id && w->deadline < next)
                        next = w->deadline;
                at = &w->next;
        }
        return next == UINT64_MAX ? -1 : (int) MIN((next - now) / 1000 + 1, (uint64_t) 60000);
}

/* files */

static void file_free(File *file) {
        (void) sim_close(file->sim);
        free(file->content);
        free(file);
}

static void sim_open_req(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
        Front *f = front_of(req);
        const Inode *i = inode_of(f, ino);
        File *file = calloc(1, sizeof *file);
        struct fuse_open_out opened;
        SimStat st;
        int r;

        r = file ? inode_stat(f, i, &st) : -ENOMEM;
        if (r == 0) /* as root: the kernel has compared the caller with owner and mode already */
                r = sim_open(f->sim, i->path, fi->flags, 0, &file->sim);
        if (r < 0) {
                free(file);
                (void) fuse_reply_err(req, -r);
                return;
        }
        fi->fh = (uint64_t) (uintptr_t) file;
        /* In sysfs, who writes through one descriptor does not wait for who writes through another; fuse_reply_open() of libfuse 3.14
         * cannot say that. */
        opened = (struct fuse_open_out) { .fh = fi->fh,
                                          .open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES };
        if (fuse_reply_buf(req, (const char *) &opened, sizeof opened) == 0)
                LINK(f->files, file);
        else
                file_free(file);
}

static void sim_release_req(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
        File *file = (File *) (uintptr_t) fi->fh;

        UNLINK(front_of(req)->files, file);
        file_free(file);
        (void) fuse_reply_err(req, 0);
}

static void sim_read_req(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
        File *file = (File *) (uintptr_t) fi->fh;
        ssize_t r = 0;

        if (!file->content) {
                file->content = malloc(SIM_CTL_SIZE);
                if (!file->content) {
                        (void) fuse_reply_err(req, ENOMEM);
                        return;
                }
        }
        if (off == 0) {
                r = sim_file_read(file->sim, file->content, SIM_CTL_SIZE);
                if (r >= 0)
                        file->n = (size_t) r;
        } else if (!sim_file_alive(file->sim))
                r = -ENODEV;
        finish(front_of(req),
               (Waiter) { .req = req, .read = true, .file = file, .size = size, .off = off, .result = r });
}

static void sim_write_req(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
                          struct fuse_file_info *fi) {
        File *file = (File *) (uintptr_t) fi->fh;
        ssize_t r;

        r = sim_file_write(file->sim, buf, size);
        finish(front_of(req), (Waiter) { .req = req, .result = r });
}

/* sysfs has no such operations */

static void sim_create(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode,
                       struct fuse_file_info *fi) {
        (void) fuse_reply_err(req, EACCES);
}

static void sim_mknod(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, dev_t dev) {
        (void) fuse_reply_err(req, EPERM);
}

static void sim_mkdir(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode) {
        (void) fuse_reply_err(req, EPERM);
}

static void sim_unlink(fuse_req_t req, fuse_ino_t dir, const char *name) {
        (void) fuse_reply_err(req, EPERM);
}

static void sim_fsync(fuse_req_t req, fuse_ino_t ino, int data, struct fuse_file_info *fi) {
        (void) fuse_reply_err(req, EINVAL);
}

/* O_TRUNC comes as setattr, whose answer has the size: with an open the kernel would take it for 0, and reads that are given to it
 * with io_submit() would end there. */
static void sim_init(void *userdata, struct fuse_conn_info *conn) {
        conn->want &= ~(unsigned) FUSE_CAP_ATOMIC_O_TRUNC;
}

static const struct fuse_lowlevel_ops ops = {
        .init = sim_init,
        .lookup = sim_lookup,
        .forget = sim_forget,
        .forget_multi = sim_forget_multi,
        .getattr = sim_getattr,
        .setattr = sim_setattr,
        .readlink = sim_readlink_req,
        .opendir = sim_opendir,
        .readdir = sim_readdir_req,
        .releasedir = sim_releasedir,
        .open = sim_open_req,
        .release = sim_release_req,
        .read = sim_read_req,
        .write = sim_write_req,
        .create = sim_create,
        .mknod = sim_mknod,
        .mkdir = sim_mkdir,
        .unlink = sim_unlink,
        .rmdir = sim_unlink,
        .fsync = sim_fsync,
};

static volatile sig_atomic_t ended;

/* One that comes just before the read that it should interrupt is repeated. */
static void on_signal(int signal) {
        ended = 1;
        (void) alarm(1);
}

static int serve(Front *f) {
        struct pollfd p = { .fd = fuse_session_fd(f->session), .events = POLLIN };
        struct fuse_buf buf = {};
        int r = 0;

        while (!ended && !fuse_session_exited(f->session)) {
                int timeout = answer_delayed(f);

                /* without a delay the read waits by itself, which is one system call less for each request */
                if (timeout >= 0) {
                        r = poll(&p, 1, timeout);
                        if (r < 0 && errno != EINTR) {
                                r = -errno;
                                break;
                        }
                        if (r <= 0) {
                                r = 0;
                                continue;
                        }
                }
                r = fuse_session_receive_buf(f->session, &buf);
                if (r == -EINTR || r == -EAGAIN)
                        continue;
                if (r <= 0)
                        break; /* 0: unmounted */
                fuse_session_process_buf(f->session, &buf);
        }
        free(buf.mem);
        return r == -ENODEV || ended ? 0 : MIN(r, 0);
}

/* Nobody is left waiting for a host that ends. */
static void answer_all(Front *f) {
        while (f->waiters) {
                Waiter *w = f->waiters;

                f->waiters = w->next;
                (void) fuse_reply_err(w->req, ENODEV);
                free(w);
        }
}

static void front_free(Front *f) {
        while (f->files) {
                File *next = f->files->next;

                file_free(f->files);
                f->files = next;
        }
        while (f->directories) {
                Entries *next = f->directories->next;

                entries_free(f->directories);
                f->directories = next;
        }
        for (size_t i = 0; i < INODE_HASH; i++)
                while (f->inodes[i]) {
                        Inode *next = f->inodes[i]->next;

                        free(f->inodes[i]);
                        f->inodes[i] = next;
                }
        free(f);
}

int sim_fuse_serve(Sim *sim, const char *mountpoint, int ready_fd) {
        char name[] = "guestcrypt-sim", others[] = "-oallow_other",
             what[] = "-ofsname=guestcrypt-sim,subtype=guestcrypt-sim,default_permissions";
        /* others as root only: else fuse.conf would have to say user_allow_other */
        char *argv[] = { name, what, geteuid() == 0 ? others : NULL, NULL };
        struct fuse_args args = FUSE_ARGS_INIT(argv[2] ? 3 : 2, argv);
        static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGALRM };
        const struct sigaction action = { .sa_handler = on_signal }; /* without SA_RESTART */
        struct sigaction old[ELEMENTS(signals)];
        struct fuse_session *session;
        Front *f;
        int r;

        f = calloc(1, sizeof *f);
        if (!f)
                return -ENOMEM;
        f->sim = sim;
        f->root = inode_get(f, "", 0);
        for (size_t i = 0; i < ELEMENTS(signals); i++)
                (void) sigaction(signals[i], &action, &old[i]);
        f->session = f->root ? fuse_session_new(&args, &ops, sizeof ops, f) : NULL;
        r = -EIO; /* libfuse says why on stderr */
        if (f->session && fuse_session_mount(f->session, mountpoint) == 0) {
                sim_set_done(sim, done, f);
                if (ready_fd >= 0 && write(ready_fd, "ready\n", 6) != 6)
                        r = -errno;
                else
                        r = serve(f);
                sim_set_done(sim, NULL, NULL);
                answer_all(f);
                fuse_session_unmount(f->session);
        }
        session = f->session;
        front_free(f);
        if (session)
                fuse_session_destroy(session);
        if (args.allocated)
                fuse_opt_free_args(&args);
        (void) alarm(0);
        for (size_t i = 0; i < ELEMENTS(signals); i++)
                (void) sigaction(signals[i], &old[i], NULL);
        return r;
}
