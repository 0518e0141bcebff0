/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The part that needs rights and time: makes, copies and removes TPMs on disk, in a process of its own (guestcryptd --tpm-job=UUID),
 * so that the daemon needs neither. What it is to do is in RUN/tpm-jobs/UUID, and so is what came of it. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "vtpm/vtpm_backup.h"
#include "vtpm/vtpm_setup.h"
#include "vtpm/vtpm_tree.h"

#define STATE_FILE_MAX (4 * 1024 * 1024)
#define KEY_SIZE       32

typedef struct Job {
        int root_fd, state_fd, tpms_fd, run_fd, job_fd; /* job: its own directory */
        char uuid[UUID_STRING_SIZE];
        char new_name[UUID_STRING_SIZE + 8], gone_name[UUID_STRING_SIZE + 8];
        VtpmJobRequest q;
        char text[VTPM_TEXT_SIZE];
} Job;

__attribute__((format(printf, 3, 4))) static int refuse(Job *j, VtpmVerdict v, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(j->text, sizeof j->text, format, ap);
        va_end(ap);
        return (int) v;
}

static VtpmSetup setup_of(const Job *j, int key_fd) {
        return (VtpmSetup) {
                .root_fd = j->root_fd,
                .state_fd = j->state_fd,
                .ca_uid = j->q.uid_base,
                .record = &j->q.record,
                .key_fd = key_fd,
        };
}

/* ---- a new TPM ---- */

/* Its directory while it is made; nobody takes it for a TPM. */
static int begin(Job *j, int *ret_fd) {
        struct stat st;
        int fd, r;

        if (fstatat(j->tpms_fd, j->uuid, &st, AT_SYMLINK_NOFOLLOW) == 0)
                return refuse(j, VTPM_EXISTS, "there is a TPM with the uuid %s", j->uuid);
        r = vtpm_tree_remove(j->tpms_fd, j->new_name);
        if (r < 0)
                return r;
        fd = vtpm_dir_make(j->tpms_fd, j->new_name, 0700);
        if (fd < 0)
                return fd;

        *ret_fd = fd;
        return VTPM_DONE;
}

/* All of it is there, the definition last: on stable storage, then in its place. */
static int finish(Job *j, int new_fd) {
        CLEANUP(freep) char *json = NULL;
        int r;

        r = vtpm_record_to_json(&j->q.record, &json);
        if (r >= 0)
                r = file_write_synced(new_fd, "tpm.json", json, strlen(json));
        if (r < 0)
                return r;
        if (fsync(new_fd) < 0 || renameat(j->tpms_fd, j->new_name, j->tpms_fd, j->uuid) < 0 ||
            fsync(j->tpms_fd) < 0)
                return -errno;
        return VTPM_DONE;
}

/* Whatever was made of it goes. */
static int give_up(Job *j, int r) {
        char name[UUID_STRING_SIZE + 8];

        (void) vtpm_tree_remove(j->tpms_fd, j->new_name);
        (void) snprintf(name, sizeof name, VTPM_CA_DIR "/new/%s", j->uuid);
        (void) vtpm_tree_remove(j->state_fd, name);
        return r;
}

/* A key of its own, unless the unit was given one for it. */
static int make_key(Job *j, int new_fd) {
        uint8_t key[KEY_SIZE];
        int r;

        if (j->q.record.key != VTPM_KEY_OWN)
                return VTPM_DONE;
        if (vtpm_key_has_credential(&j->q.record)) {
                j->q.record.key = VTPM_KEY_CREDENTIAL;
                return VTPM_DONE;
        }

        if (getrandom(key, sizeof key, 0) != sizeof key)
                return -EIO;
        r = file_write_synced(new_fd, "key", (char *) key, sizeof key);
        explicit_bzero(key, sizeof key);
        return r < 0 ? r : ret_errno(fchmodat(new_fd, "key", 0400, 0));
}

static int make_state(Job *j, int new_fd) {
        CLEANUP(fd_closep) int key_fd = -1, ca_fd = -1, ca_new_fd = -1, fd = -1;
        VtpmSetup s;
        int r;

        r = vtpm_key_open(j->root_fd, new_fd, &j->q.record, &key_fd, j->text);
        if (r != VTPM_DONE)
                return r;
        ca_fd = vtpm_setup_authority(j->state_fd, j->q.uid_base);
        if (ca_fd < 0)
                return ca_fd;
        ca_new_fd = openat(ca_fd, "new", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (ca_new_fd < 0)
                return -errno;

        s = setup_of(j, key_fd);
        r = vtpm_setup_state(&s, ca_new_fd, j->uuid, NULL, j->text);
        if (r != VTPM_DONE)
                return r;

        if (renameat(ca_new_fd, j->uuid, new_fd, "state") < 0)
                return -errno;
        fd = openat(new_fd, "state", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        return fd < 0 ? -errno : vtpm_tree_give(fd, j->q.record.uid);
}

static int do_define(Job *j) {
        CLEANUP(fd_closep) int new_fd = -1;
        int r;

        r = begin(j, &new_fd);
        if (r != VTPM_DONE)
                return r;

        r = make_key(j, new_fd);
        if (r == VTPM_DONE && !j->q.record.ephemeral)
                r = make_state(j, new_fd);
        if (r == VTPM_DONE)
                r = finish(j, new_fd);
        return r == VTPM_DONE ? r : give_up(j, r);
}

/* ---- from a backup, from libvirt ---- */

/* The files of a state are in @state_fd: are they any good? */
static int accept_state(Job *j, int new_fd, int state_fd) {
        CLEANUP(fd_closep) int key_fd = -1;
        VtpmSetup s;
        int r;

        r = vtpm_tree_give(state_fd, j->q.record.uid);
        if (r >= 0)
                r = vtpm_key_open(j->root_fd, new_fd, &j->q.record, &key_fd, j->text);
        if (r != VTPM_DONE)
                return r;

        s = setup_of(j, key_fd);
        r = vtpm_setup_try(&s, state_fd, j->text);
        if (r != VTPM_DONE)
                return r;
        r = vtpm_tree_give(state_fd, j->q.record.uid); /* what trying has left */
        return r < 0 ? r : finish(j, new_fd);
}

static int unpack(Job *j, const VtpmBackup *b, int new_fd, int state_fd) {
        static const char prefix[] = "state/";
        bool has_key = false;
        int r;

        for (size_t i = 0; i < b->n; i++) {
                const VtpmBackupMember *m = &b->members[i];

                if (strncmp(m->name, prefix, sizeof prefix - 1) == 0)
                        r = file_write_synced(state_fd, m->name + sizeof prefix - 1, (char *) m->data,
                                              m->size);
                else if (strcmp(m->name, "key") == 0) {
                        has_key = true;
                        r = file_write_synced(new_fd, "key", (char *) m->data, m->size);
                        if (r >= 0)
                                r = ret_errno(fchmodat(new_fd, "key", 0400, 0));
                } else if (strcmp(m->name, "tpm.json") == 0)
                        r = 0; /* the request has it, with what was to be changed */
                else
                        return refuse(j, VTPM_BAD_RECORD, "the backup has a part '%s' that is not known",
                                      m->name);
                if (r < 0)
                        return r;
        }
        if (has_key != (j->q.record.key == VTPM_KEY_OWN))
                return refuse(j, VTPM_BAD_RECORD, "the backup lacks its key, or has one for no use");
        return VTPM_DONE;
}

static int load_backup(Job *j, VtpmBackup *ret) {
        CLEANUP(freep) char *data = NULL;
        const char *wrong;
        size_t size;
        int r;

        r = file_read_at(j->job_fd, "backup", VTPM_BACKUP_MAX, &data, &size);
        if (r < 0)
                return r;
        r = vtpm_backup_read((uint8_t *) data, size, ret, &wrong);
        explicit_bzero(data, size);
        return r == -EBADMSG ? refuse(j, VTPM_BAD_RECORD, "%s", wrong) : r;
}

static int do_restore(Job *j) {
        CLEANUP(vtpm_backup_clear) VtpmBackup b = {};
        CLEANUP(fd_closep) int new_fd = -1, state_fd = -1;
        int r;

        r = load_backup(j, &b);
        if (r != VTPM_DONE)
                return r;
        r = begin(j, &new_fd);
        if (r != VTPM_DONE)
                return r;

        if (j->q.record.ephemeral)
                r = finish(j, new_fd);
        else {
                state_fd = vtpm_dir_make(new_fd, "state", 0700);
                r = state_fd < 0 ? state_fd : unpack(j, &b, new_fd, state_fd);
                if (r == VTPM_DONE)
                        r = accept_state(j, new_fd, state_fd);
        }
        return r == VTPM_DONE ? r : give_up(j, r);
}

/* swtpm's own lock on a directory: a lock of POSIX on the file ".lock". */
static int lock_foreign(Job *j, int fd, int *ret_fd) {
        CLEANUP(fd_closep) int lock_fd = openat(fd, ".lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET }; /* swtpm wants it to write */

        if (lock_fd < 0)
                return errno == ENOENT ? VTPM_DONE : -errno;
        if (fcntl(lock_fd, F_SETLK, &lock) < 0)
                return errno == EAGAIN || errno == EACCES
                               ? refuse(j, VTPM_IN_USE, "a running swtpm uses '%s'", j->q.directory)
                               : -errno;

        *ret_fd = TAKE_FD(lock_fd);
        return VTPM_DONE;
}

/* @below: where in the request's directory @from_fd is, as a person would write it. */
static int copy_state(Job *j, int from_fd, const char *below, int to_fd) {
        CLEANUP(closedirp) DIR *d = NULL;
        int copy = dup(from_fd), r;
        bool found = false;

        d = copy >= 0 ? fdopendir(copy) : NULL;
        if (!d)
                return -errno;
        for (struct dirent *e; errno = 0, (e = readdir(d));) {
                CLEANUP(freep) char *data = NULL;
                size_t size;

                if (strncmp(e->d_name, "tpm2-", 5) != 0)
                        continue;
                r = file_read_at(from_fd, e->d_name, STATE_FILE_MAX, &data, &size);
                if (r >= 0)
                        r = file_write_synced(to_fd, e->d_name, data, size);
                if (r < 0)
                        return refuse(j, VTPM_BAD_RECORD, "'%s%s/%s': %s", j->q.directory, below, e->d_name,
                                      strerror(-r));
                found = found || strcmp(e->d_name, "tpm2-00.permall") == 0;
        }
        if (errno > 0)
                return -errno;
        return found ? VTPM_DONE
                     : refuse(j, VTPM_BAD_RECORD, "there is no state of a TPM 2.0 in '%s%s'", j->q.directory,
                              below);
}

static int do_import(Job *j) {
        CLEANUP(fd_closep) int directory_fd = -1, from_fd = -1, lock_fd = -1, new_fd = -1, state_fd = -1;
        const char *below = "/tpm2";
        int r;

        directory_fd = openat(j->root_fd, j->q.directory + strspn(j->q.directory, "/"),
                              O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory_fd < 0)
                return refuse(j, VTPM_BAD_RECORD, "'%s': %s", j->q.directory, strerror(errno));
        from_fd = openat(directory_fd, "tpm2", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (from_fd < 0) {
                from_fd = TAKE_FD(directory_fd);
                below = "";
        }
        r = lock_foreign(j, from_fd, &lock_fd);
        if (r != VTPM_DONE)
                return r;
        r = begin(j, &new_fd);
        if (r != VTPM_DONE)
                return r;

        state_fd = vtpm_dir_make(new_fd, "state", 0700);
        r = state_fd < 0 ? state_fd : copy_state(j, from_fd, below, state_fd);
        if (r == VTPM_DONE)
                r = accept_state(j, new_fd, state_fd);
        return r == VTPM_DONE ? r : give_up(j, r);
}

/* ---- with a TPM that there is ---- */

/* Its directory, and its lock in *ret_lock_fd. */
static int open_locked(Job *j, int *ret_fd, int *ret_lock_fd) {
        CLEANUP(fd_closep)
        int fd = openat(j->tpms_fd, j->uuid, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        int r;

        if (fd < 0)
                return -errno;
        r = vtpm_lock(fd, "lock");
        if (r == -EBUSY)
                return refuse(j, VTPM_IN_USE, "somebody runs this TPM");
        if (r < 0)
                return r;

        *ret_lock_fd = r;
        *ret_fd = TAKE_FD(fd);
        return VTPM_DONE;
}

static int add_file(VtpmBackup *b, int fd, const char *name, const char *as) {
        CLEANUP(freep) char *data = NULL;
        size_t size;
        int r;

        r = file_read_at(fd, name, STATE_FILE_MAX, &data, &size);
        if (r < 0)
                return r;
        r = vtpm_backup_add(b, as, (uint8_t *) data, size);
        if (r >= 0)
                TAKE(data);
        return r;
}

static int add_state(VtpmBackup *b, int tpm_fd) {
        CLEANUP(closedirp) DIR *d = NULL;
        char as[VTPM_BACKUP_NAME_MAX + 1];
        int fd, r;

        fd = openat(tpm_fd, "state", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        d = fdopendir(fd);
        if (!d) {
                r = -errno;
                fd_close(fd);
                return r;
        }
        for (struct dirent *e; errno = 0, (e = readdir(d));) {
                if (e->d_name[0] == '.')
                        continue;
                if (snprintf(as, sizeof as, "state/%s", e->d_name) >= (int) sizeof as)
                        return -ENAMETOOLONG;
                r = add_file(b, fd, e->d_name, as);
                if (r < 0)
                        return r;
        }
        return -errno;
}

static int do_backup(Job *j) {
        CLEANUP(vtpm_backup_clear) VtpmBackup b = {};
        CLEANUP(fd_closep) int fd = -1, lock_fd = -1;
        CLEANUP(freep) uint8_t *data = NULL;
        size_t size;
        int r;

        r = open_locked(j, &fd, &lock_fd);
        if (r != VTPM_DONE)
                return r;
        r = add_file(&b, fd, "tpm.json", "tpm.json");
        if (r >= 0 && !j->q.record.ephemeral)
                r = add_state(&b, fd);
        if (r >= 0 && j->q.record.key == VTPM_KEY_OWN)
                r = add_file(&b, fd, "key", "key");
        if (r >= 0)
                r = vtpm_backup_write(&b, &data, &size);
        if (r < 0)
                return r;

        r = file_write_synced(j->job_fd, "backup", (char *) data, size);
        explicit_bzero(data, size);
        return r;
}

static int do_remove(Job *j) {
        CLEANUP(fd_closep) int fd = -1, lock_fd = -1;
        int r;

        r = open_locked(j, &fd, &lock_fd);
        if (r != VTPM_DONE)
                return r;
        r = vtpm_tree_remove(j->tpms_fd, j->gone_name);
        if (r < 0)
                return r;
        /* from here on it is gone, whatever becomes of us */
        if (renameat(j->tpms_fd, j->uuid, j->tpms_fd, j->gone_name) < 0 || fsync(j->tpms_fd) < 0)
                return -errno;
        r = vtpm_tree_remove(j->tpms_fd, j->gone_name);
        return r < 0 ? r : ret_errno(fsync(j->tpms_fd));
}

static int do_renew(Job *j) {
        CLEANUP(fd_closep) int new_fd = -1, run_fd = -1, fd = -1;
        char root[VTPM_PATH_SIZE], path[VTPM_PATH_SIZE + UUID_STRING_SIZE + 2], link[40];
        VtpmSetup s = setup_of(j, -1);
        ssize_t n;
        int r;

        new_fd = vtpm_dir_open(j->run_fd, VTPM_NEW_DIR, 0711);
        if (new_fd < 0)
                return new_fd;
        (void) snprintf(link, sizeof link, "/proc/self/fd/%d", new_fd);
        n = readlink(link, root, sizeof root - 1);
        if (n < 0)
                return -errno;
        root[n] = '\0';
        (void) snprintf(path, sizeof path, "%s/%s", root, j->uuid);

        r = vtpm_setup_state(&s, new_fd, j->uuid, path, j->text);
        if (r == VTPM_DONE) {
                (void) snprintf(path, sizeof path, VTPM_SOCKETS_DIR "/%s", j->uuid);
                run_fd = openat(j->run_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
                if (run_fd < 0)
                        r = -errno;
                else
                        r = vtpm_tree_remove(run_fd, "state");
        }
        if (r == VTPM_DONE)
                r = ret_errno(renameat(new_fd, j->uuid, run_fd, "state"));
        if (r == VTPM_DONE) {
                fd = openat(run_fd, "state", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
                r = fd < 0 ? -errno : vtpm_tree_give(fd, j->q.record.uid);
        }
        if (r != VTPM_DONE)
                (void) vtpm_tree_remove(new_fd, j->uuid);
        return r;
}

static int do_drop(Job *j) {
        CLEANUP(fd_closep) int run_fd = -1;
        char path[VTPM_PATH_SIZE];

        (void) snprintf(path, sizeof path, VTPM_SOCKETS_DIR "/%s", j->uuid);
        run_fd = openat(j->run_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (run_fd < 0)
                return errno == ENOENT ? VTPM_DONE : -errno;
        return vtpm_tree_remove(run_fd, "state");
}

static int do_clean(Job *j) {
        int r;

        (void) give_up(j, 0);
        r = vtpm_tree_remove(j->tpms_fd, j->new_name);
        return r < 0 ? r : vtpm_tree_remove(j->tpms_fd, j->gone_name);
}

/* ---- all of them ---- */

static int open_below(int fd, const char *path) {
        return ret_errno(openat(fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static int open_job(Job *j, const char *uuid) {
        char path[VTPM_PATH_SIZE];
        Uuid id;
        int r;

        if (uuid_parse(uuid, &id) < 0)
                return -EINVAL;
        uuid_format(id, j->uuid);
        (void) snprintf(j->new_name, sizeof j->new_name, VTPM_NEW_PREFIX "%s", j->uuid);
        (void) snprintf(j->gone_name, sizeof j->gone_name, VTPM_GONE_PREFIX "%s", j->uuid);
        (void) snprintf(path, sizeof path, VTPM_JOBS_DIR "/%s", j->uuid);
        if ((j->state_fd = open_below(j->root_fd, VTPM_STATE_DIR)) < 0)
                return j->state_fd;
        if ((j->run_fd = open_below(j->root_fd, VTPM_RUN_DIR)) < 0)
                return j->run_fd;
        if ((j->job_fd = open_below(j->run_fd, path)) < 0)
                return j->job_fd;
        if ((j->tpms_fd = vtpm_dir_open(j->state_fd, VTPM_TPMS_DIR, 0700)) < 0)
                return j->tpms_fd;
        /* the request first: one that a former daemon began may still be at it, and writes here when it ends */
        r = vtpm_job_request_load(j->job_fd, &j->q);
        return r < 0 ? r : vtpm_lock_wait(j->job_fd, "lock");
}

static int carry_out(Job *j) {
        static int (*const jobs[_VTPM_JOB_MAX])(Job * j) = {
                [VTPM_JOB_DEFINE] = do_define, [VTPM_JOB_RESTORE] = do_restore,
                [VTPM_JOB_IMPORT] = do_import, [VTPM_JOB_BACKUP] = do_backup,
                [VTPM_JOB_REMOVE] = do_remove, [VTPM_JOB_RENEW] = do_renew,
                [VTPM_JOB_DROP] = do_drop,     [VTPM_JOB_CLEAN] = do_clean,
        };

        return jobs[j->q.kind](j);
}

int vtpm_launch_job(int root_fd, const char *uuid) {
        Job j = { .root_fd = root_fd, .state_fd = -1, .tpms_fd = -1, .run_fd = -1, .job_fd = -1 };
        int r;

        (void) umask(077);
        r = open_job(&j, uuid);
        if (r >= 0)
                r = carry_out(&j);
        if (r < 0) /* a disk that is full or read-only, mostly */
                r = refuse(&j, VTPM_UNAVAILABLE, "below /" VTPM_STATE_DIR ": %s", strerror(-r));
        if (j.job_fd >= 0)
                r = vtpm_job_result_save(j.job_fd, (VtpmVerdict) r, j.text);
        else
                (void) fprintf(stderr, "TPM %s: %s\n", uuid, j.text);

        vtpm_job_request_clear(&j.q);
        fd_close(j.job_fd);
        fd_close(j.run_fd);
        fd_close(j.tpms_fd);
        fd_close(j.state_fd);
        return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
