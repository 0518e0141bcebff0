/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/holds.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"

#define HOLD_SIZE_MAX 1024
#define HEADER        "guestcrypt hold 1"

static const char *hold_phase_name(HoldPhase p) {
        return p == HOLD_PREPARED ? "prepared" : "running";
}

static int hold_format(const Hold *h, char buf[static HOLD_SIZE_MAX]) {
        char matrix[UUID_STRING_SIZE], tpm[UUID_STRING_SIZE], name[sizeof h->name];
        size_t n = 0;

        /* on one line; it is for people, the UUID counts */
        for (const char *p = h->name; *p; p++)
                if (!iscntrl((unsigned char) *p))
                        name[n++] = *p;
        name[n] = '\0';

        return snprintf(buf, HOLD_SIZE_MAX, HEADER "\nname %s\nphase %s\n%s%s%s%s%s%s%s%s%s%s", name,
                        hold_phase_name(h->phase), uuid_is_null(h->matrix) ? "" : "matrix ",
                        uuid_is_null(h->matrix) ? "" : uuid_format(h->matrix, matrix),
                        uuid_is_null(h->matrix) ? ""
                        : h->matrix_started     ? " started\n"
                                                : " found\n",
                        uuid_is_null(h->tpm) ? "" : "tpm ",
                        uuid_is_null(h->tpm) ? "" : uuid_format(h->tpm, tpm),
                        uuid_is_null(h->tpm) ? "" : " ",
                        uuid_is_null(h->tpm) ? "" : tpm_model_name(h->model),
                        uuid_is_null(h->tpm) ? ""
                        : h->tpm_started     ? " started\n"
                                             : " found\n",
                        h->unseen ? "unseen\n" : "", "end\n");
}

int holds_set(int dir_fd, const Hold *h) {
        char name[UUID_STRING_SIZE], tmp[UUID_STRING_SIZE + 8], buf[HOLD_SIZE_MAX];
        CLEANUP(fd_closep) int fd = -1;
        int r;

        uuid_format(h->guest, name);
        if (h->phase == HOLD_NONE) {
                if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
                        return -errno;
                return 0;
        }

        /* beside and renamed, but not fsynced: the directory is in memory */
        (void) snprintf(tmp, sizeof tmp, ".%s.new", name);
        fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;
        r = hold_format(h, buf);
        r = file_write_all(fd, buf, (size_t) r);
        if (r >= 0)
                r = ret_errno(renameat(dir_fd, tmp, dir_fd, name));
        if (r < 0)
                (void) unlinkat(dir_fd, tmp, 0);
        return r;
}

/* What stands behind "KEY " in @line, or NULL. */
static char *value_of(char *line, const char *key) {
        size_t n = strlen(key);

        return strncmp(line, key, n) == 0 && line[n] == ' ' ? line + n + 1 : NULL;
}

/* "started" or "found". */
static int parse_started(const char *word, bool *ret) {
        *ret = word && strcmp(word, "started") == 0;
        return word && (*ret || strcmp(word, "found") == 0) ? 0 : -EBADMSG;
}

static int parse_line(Hold *h, char *line) {
        char *value, *word;

        if ((value = value_of(line, "name"))) {
                (void) snprintf(h->name, sizeof h->name, "%s", value);
                return 0;
        }
        if ((value = value_of(line, "phase"))) {
                h->phase = strcmp(value, "prepared") == 0  ? HOLD_PREPARED
                           : strcmp(value, "running") == 0 ? HOLD_RUNNING
                                                           : HOLD_NONE;
                return h->phase == HOLD_NONE ? -EBADMSG : 0;
        }
        if ((value = value_of(line, "matrix"))) {
                word = strsep(&value, " ");
                if (uuid_parse(word, &h->matrix) < 0)
                        return -EBADMSG;
                return parse_started(value, &h->matrix_started);
        }
        if ((value = value_of(line, "tpm"))) {
                word = strsep(&value, " ");
                if (uuid_parse(word, &h->tpm) < 0)
                        return -EBADMSG;
                word = strsep(&value, " ");
                h->model = word ? tpm_model_from_name(word) : _TPM_MODEL_MAX;
                if (h->model == _TPM_MODEL_MAX || h->model == TPM_MODEL_NONE)
                        return -EBADMSG;
                return parse_started(value, &h->tpm_started);
        }
        h->unseen |= strcmp(line, "unseen") == 0;
        return 0; /* of a newer version */
}

static int hold_read(int dir_fd, const char *name, Hold *ret) {
        CLEANUP(freep) char *text = NULL;
        Hold h = {};
        char *rest;
        bool ended = false;
        int r;

        r = uuid_parse(name, &h.guest);
        if (r < 0)
                return r;
        r = file_read_at(dir_fd, name, HOLD_SIZE_MAX, &text, NULL);
        if (r < 0)
                return r;

        rest = text;
        if (strcmp(strsep(&rest, "\n"), HEADER) != 0)
                return -EBADMSG;
        for (char *line; (line = strsep(&rest, "\n")) && !ended;) {
                ended = strcmp(line, "end") == 0;
                r = parse_line(&h, line);
                if (r < 0)
                        return r;
        }
        if (!ended || h.phase == HOLD_NONE)
                return -EBADMSG;
        *ret = h;
        return 0;
}

int holds_read(int dir_fd, Hold **ret, size_t *ret_n, size_t *ret_bad) {
        CLEANUP(fd_closep) int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CLEANUP(closedirp) DIR *dir = NULL;
        CLEANUP(freep) Hold *holds = NULL;
        size_t n = 0, bad = 0, allocated = 0;
        struct dirent *entry;

        if (fd < 0)
                return -errno;
        dir = fdopendir(fd);
        if (!dir)
                return -errno;
        TAKE_FD(fd);

        while (errno = 0, (entry = readdir(dir))) {
                if (entry->d_name[0] == '.')
                        continue;
                if (n == allocated) {
                        Hold *grown = reallocarray(holds, allocated * 2 + 16, sizeof *holds);

                        if (!grown)
                                return -ENOMEM;
                        holds = grown;
                        allocated = allocated * 2 + 16;
                }
                if (hold_read(dir_fd, entry->d_name, &holds[n]) >= 0)
                        n++;
                else
                        bad++;
        }
        if (errno != 0)
                return -errno;

        *ret = TAKE(holds);
        *ret_n = n;
        *ret_bad = bad;
        return 0;
}
