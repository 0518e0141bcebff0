/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vtpm/vtpm_talk.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/timer.h"
#include "vtpm/vtpm_process.h"

#define ANSWER_MAX 4096
#define DEVICE_US  (5 * UINT64_C(1000000))
#define INIT_US    (30 * UINT64_C(1000000)) /* it may have to be loaded first */
#define SHUTDOWN_US \
        (2 * UINT64_C(1000000)) /* it may be serving somebody else, and then reads nothing of ours */

struct VtpmTalk {
        int fd;
        bool lines; /* a device's answer: lines, the last one "ok" or "error TEXT"; else four bytes */
        sd_event_source *io, *timer;
        vtpm_talk_done_t done;
        void *userdata;
        size_t size;
        char answer[ANSWER_MAX + 1];
};

int vtpm_talk_connect(int run_fd, const char *name) {
        CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        if (fd < 0)
                return -errno;
        /* the directory's own path may be too long for a socket's address */
        (void) snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", run_fd, name);
        return connect(fd, (struct sockaddr *) &address, sizeof address) < 0 ? -errno : TAKE_FD(fd);
}

VtpmTalk *vtpm_talk_cancel(VtpmTalk *t) {
        if (!t)
                return NULL;

        sd_event_source_disable_unref(t->io);
        sd_event_source_disable_unref(t->timer);
        fd_close(t->fd);
        free(t);
        return NULL;
}

static void finish(VtpmTalk *t, int r, const char *answer) {
        sd_event_source_disable_unref(TAKE(t->io));
        sd_event_source_disable_unref(TAKE(t->timer));
        t->done(t->userdata, r, answer);
        (void) vtpm_talk_cancel(t);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        finish(userdata, -ETIME, "");
        return 0;
}

/* Whether the answer is whole, and what it says. */
static bool is_complete(VtpmTalk *t, int *ret_r, const char **ret_answer) {
        static const char error[] = "error ";
        char *line;

        t->answer[t->size] = '\0';
        *ret_answer = t->answer;
        *ret_r = 0;
        if (!t->lines) { /* the result is zero, or an error of the TPM's */
                *ret_r = t->size >= 4 && memcmp(t->answer, "\0\0\0", 4) != 0;
                return t->size >= 4;
        }
        if (t->size == 0 || t->answer[t->size - 1] != '\n')
                return false;

        t->answer[t->size - 1] = '\0';
        line = strrchr(t->answer, '\n');
        line = line ? line + 1 : t->answer;
        if (strcmp(line, "ok") == 0)
                return true;
        if (strncmp(line, error, sizeof error - 1) == 0) {
                *ret_r = 1;
                *ret_answer = line + sizeof error - 1;
                return true;
        }
        t->answer[t->size - 1] = '\n';
        return false;
}

static int on_io(sd_event_source *s, int fd, uint32_t events, void *userdata) {
        VtpmTalk *t = userdata;
        const char *answer;
        ssize_t n;
        int r;

        n = recv(fd, t->answer + t->size, ANSWER_MAX - t->size, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                finish(t, n < 0 ? -errno : -EPIPE, "");
                return 0;
        }

        t->size += (size_t) n;
        if (is_complete(t, &r, &answer))
                finish(t, r, answer);
        else if (t->size == ANSWER_MAX)
                finish(t, -EMSGSIZE, "");
        return 0;
}

static int send_request(int to, const void *data, size_t size, int fd) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr header;
        } control = {};
        struct iovec iov = { .iov_base = (void *) data, .iov_len = size };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (fd >= 0) {
                m.msg_control = control.bytes;
                m.msg_controllen = sizeof control.bytes;
                control.header = (struct cmsghdr) { .cmsg_len = CMSG_LEN(sizeof(int)),
                                                    .cmsg_level = SOL_SOCKET,
                                                    .cmsg_type = SCM_RIGHTS };
                memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof fd);
        }
        return sendmsg(to, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t) size ? 0 : -errno;
}

static int talk(sd_event *event, int run_fd, const char *name, const void *data, size_t size, int fd,
                bool lines, uint64_t limit_us, vtpm_talk_done_t done, void *userdata, VtpmTalk **ret) {
        VtpmTalk *t;
        int r;

        t = calloc(1, sizeof *t);
        if (!t)
                return -ENOMEM;
        *t = (VtpmTalk) { .lines = lines, .done = done, .userdata = userdata };
        t->fd = vtpm_talk_connect(run_fd, name);
        r = t->fd < 0 ? t->fd : send_request(t->fd, data, size, fd);
        if (r >= 0)
                r = sd_event_add_io(event, &t->io, t->fd, EPOLLIN, on_io, t);
        if (r >= 0)
                r = timer_after(event, &t->timer, limit_us, on_timer, t);
        if (r < 0) {
                (void) vtpm_talk_cancel(t);
                return r;
        }

        *ret = t;
        return 0;
}

int vtpm_talk_device(sd_event *event, int run_fd, const char *request, int fd, vtpm_talk_done_t done,
                     void *userdata, VtpmTalk **ret) {
        char line[32];
        int r;

        (void) snprintf(line, sizeof line, "%s\n", request);
        r = talk(event, run_fd, VTPM_CONTROL_SOCKET, line, strlen(line), fd, true, DEVICE_US, done, userdata,
                 ret);
        fd_close(fd);
        return r;
}

int vtpm_talk_swtpm(sd_event *event, int run_fd, const char *name, VtpmTalkCommand command,
                    vtpm_talk_done_t done, void *userdata, VtpmTalk **ret) {
        const uint8_t message[8] = { [3] = (uint8_t) command }; /* INIT has flags: none */

        return talk(event, run_fd, name, message, command == VTPM_TALK_INIT ? 8 : 4, -1, false,
                    command == VTPM_TALK_SHUTDOWN ? SHUTDOWN_US : INIT_US, done, userdata, ret);
}
