/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A file that is there as a whole or not at all, whatever happens before it is complete. */

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"

/* What is to go if a signal ends us; there is one file at a time. */
static char *volatile unfinished;

static void on_signal(int number) {
        if (unfinished)
                (void) unlink(unfinished);
        (void) raise(number); /* ends us: the handler is gone by now */
}

static void watch_signals(void) {
        static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
        struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int) SA_RESETHAND }, old;

        for (size_t i = 0; i < ELEMENTS(numbers); i++)
                if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
                        (void) sigaction(numbers[i], &action, NULL);
}

int cli_output_begin(const char *name, bool replace, CliOutput *ret) {
        struct stat st;
        char *temporary;
        int fd;

        if (lstat(name, &st) == 0) {
                if (!S_ISREG(st.st_mode)) /* /dev/null, for instance */
                        return -EINVAL;
                if (!replace)
                        return -EEXIST;
        }

        if (asprintf(&temporary, "%s.XXXXXX", name) < 0)
                return -ENOMEM;
        fd = mkostemp(temporary, O_CLOEXEC); /* 0600 */
        if (fd < 0) {
                free(temporary);
                return -errno;
        }

        unfinished = temporary;
        watch_signals();
        *ret = (CliOutput) { .fd = fd, .name = name, .temporary = temporary, .replace = replace };
        return 0;
}

/* Not over what somebody has put there meanwhile. */
static int publish(const CliOutput *o) {
        if (o->replace)
                return rename(o->temporary, o->name) < 0 ? -errno : 0;

        if (renameat2(AT_FDCWD, o->temporary, AT_FDCWD, o->name, RENAME_NOREPLACE) == 0)
                return 0;
        if (errno != EINVAL && errno != ENOSYS) /* the file system cannot */
                return -errno;

        if (link(o->temporary, o->name) < 0 || unlink(o->temporary) < 0)
                return -errno;
        return 0;
}

static int sync_directory(const char *name) {
        CLEANUP(freep) char *copy = strdup(name);
        CLEANUP(fd_closep) int fd = -1;

        if (!copy)
                return -ENOMEM;

        fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0)
                return -errno;
        return 0;
}

int cli_output_finish(CliOutput *o, off_t *ret_size) {
        struct stat st;
        int r;

        if (fstat(o->fd, &st) < 0 || fsync(o->fd) < 0)
                return -errno;
        if (st.st_size == 0)
                return -ENODATA;

        r = publish(o);
        if (r < 0)
                return r;

        unfinished = NULL;
        free(TAKE(o->temporary));
        *ret_size = st.st_size;
        return sync_directory(o->name);
}

void cli_output_discard(CliOutput *o) {
        o->fd = fd_close(o->fd);
        if (!o->temporary)
                return;

        (void) unlink(o->temporary);
        unfinished = NULL;
        free(TAKE(o->temporary));
}
