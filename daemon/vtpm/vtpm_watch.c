/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Whether a guest has its TPM is known to the device alone: it tells, on a connection that is kept as long as it runs. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/timer.h"
#include "vtpm/vtpm_internal.h"

#define LINES_MAX 256
#define AGAIN_US \
        (1 * UINT64_C(1000000)) /* after a connection that was lost, though the device seems to run */

struct VtpmWatch {
        Tpm *t;
        int fd;
        sd_event_source *io, *again;
        size_t size;
        char lines[LINES_MAX];
        char tpm[16];
        bool connected;
};

static void hang_up(VtpmWatch *w) {
        sd_event_source_disable_unref(TAKE(w->io));
        w->fd = fd_close(w->fd);
        w->size = 0;
}

VtpmWatch *vtpm_watch_end(VtpmWatch *w) {
        if (!w)
                return NULL;

        hang_up(w);
        sd_event_source_disable_unref(w->again);
        free(w);
        return NULL;
}

static int on_again(sd_event_source *s, uint64_t usec, void *userdata);

static void try_again(VtpmWatch *w) {
        hang_up(w);
        sd_event_source_disable_unref(TAKE(w->again));
        (void) timer_after(w->t->m->event, &w->again, AGAIN_US, on_again, w);
}

/* Whether something was told. */
static bool read_lines(VtpmWatch *w) {
        bool told = false;
        size_t used = 0;
        char *end;

        while ((end = memchr(w->lines + used, '\n', w->size - used))) {
                const char *line = w->lines + used;

                *end = '\0';
                used = (size_t) (end + 1 - w->lines);
                if (strncmp(line, "tpm=", 4) == 0)
                        (void) snprintf(w->tpm, sizeof w->tpm, "%s", line + 4);
                else if (strncmp(line, "connected=", 10) == 0)
                        w->connected = strcmp(line + 10, "yes") == 0;
                else if (strcmp(line, "ok") == 0)
                        told = true; /* "error": one of an older version, which does not tell */
        }
        w->size -= used;
        memmove(w->lines, w->lines + used, w->size);
        return told;
}

static int on_io(sd_event_source *s, int fd, uint32_t events, void *userdata) {
        VtpmWatch *w = userdata;
        ssize_t n;

        n = recv(fd, w->lines + w->size, sizeof w->lines - w->size, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                try_again(w);
                return 0;
        }

        w->size += (size_t) n;
        if (read_lines(w))
                vtpm_seen(w->t, w->tpm, w->connected); /* @w may be gone */
        else if (w->size == sizeof w->lines)
                try_again(w);
        return 0;
}

static int dial(VtpmWatch *w) {
        static const char request[] = "watch\n";
        CLEANUP(fd_closep) int sockets_fd = vtpm_open_sockets(w->t, false), fd = -1;

        if (sockets_fd < 0)
                return sockets_fd;
        fd = vtpm_talk_connect(sockets_fd, VTPM_CONTROL_SOCKET);
        if (fd < 0)
                return fd;
        if (send(fd, request, strlen(request), MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t) strlen(request))
                return -errno;
        w->fd = TAKE_FD(fd);
        return sd_event_add_io(w->t->m->event, &w->io, w->fd, EPOLLIN, on_io, w);
}

static int on_again(sd_event_source *s, uint64_t usec, void *userdata) {
        VtpmWatch *w = userdata;

        if (w->fd < 0 && dial(w) < 0)
                try_again(w);
        return 0;
}

VtpmWatch *vtpm_watch_begin(VtpmWatch *w, Tpm *t) {
        if (!w) {
                w = calloc(1, sizeof *w);
                if (!w)
                        return NULL; /* then its state is seen at the next request */
                *w = (VtpmWatch) { .t = t, .fd = -1 };
        }
        if (w->fd < 0 && dial(w) < 0)
                try_again(w);
        return w;
}
