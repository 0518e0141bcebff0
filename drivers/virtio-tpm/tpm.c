/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/tpm.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "drivers/virtio-tpm/codec.h"
#include "drivers/virtio-tpm/notify.h"
#include "drivers/virtio-tpm/report.h"

#define NS_PER_MS UINT64_C(1000000)
#define STEP_DEADLINE_NS \
        (60000 * NS_PER_MS)              /* swtpm answers the control channel between two commands only */
#define DATAFD_RETRY_NS (20 * NS_PER_MS) /* until swtpm has seen that the former data channel was hung up */
#define DATAFD_RETRIES  100

#define CONTROL_BAD_ORDINAL 0x0a
#define CONTROL_IO_ERROR    0x1f

#define NO_REPLY 0xff /* no result and no flags begin with it */

/* What stands above is in the record before what stands below, at whatever instruction the process ends. */
#define RECORD() __asm__ volatile("" ::: "memory")

static const struct {
        uint32_t code;
        uint32_t reply_size;
} controls[_TPM_STEP_MAX] = {
        [TPM_CAPABILITY] = { 0x01, 8 }, /* flags, no result */
        [TPM_DATAFD] = { 0x10, 4 },
        [TPM_BUFFERSIZE] = { 0x11, 16 },
        [TPM_INIT] = { 0x02, 4 },
};

static const char *const step_names[_TPM_STEP_MAX] = {
        [TPM_OFF] = "off",         [TPM_CAPABILITY] = "starting",
        [TPM_DATAFD] = "starting", [TPM_BUFFERSIZE] = "starting",
        [TPM_INIT] = "starting",   [TPM_STARTUP] = "starting",
        [TPM_LOCK] = "starting",   [TPM_READY] = "ready",
        [TPM_FAILED] = "failed",
};

const char *tpm_step_name(const Tpm *t) {
        return t->s->late ? "degraded" : step_names[t->s->step];
}

bool tpm_ready(const Tpm *t) {
        return t->s->step == TPM_READY && !t->s->busy && !t->s->again;
}

bool tpm_failed(const Tpm *t) {
        return t->s->step == TPM_FAILED;
}

static void close_ctrl(Tpm *t) {
        loop_forget(t->loop, &t->ctrl);
        t->ctrl_fd = fd_close(t->ctrl_fd);
}

static void close_data(Tpm *t) {
        if (t->data_fd >= 0)
                (void) notify_discard("data");
        loop_forget(t->loop, &t->data);
        t->data_fd = fd_close(t->data_fd);
}

static void set_deadline(Tpm *t, uint64_t ns) {
        t->s->deadline = t->timer.at = ns > 0 ? loop_now() + ns : 0;
}

/* The data channel goes with it, since nobody knows what else will come out of it. */
static void fail_silently(Tpm *t, const char *why) {
        report(LOG_ERR,
               "the TPM failed: %s; commands are answered with an error until the machine is started anew",
               why);
        close_data(t);
        t->s->step = TPM_FAILED;
        t->s->busy = t->s->late = t->s->again = 0;
        set_deadline(t, 0);
}

static void fail(Tpm *t, const char *why) {
        fail_silently(t, why);
        t->ops->failed(t->userdata);
}

/* One command, with @fd (or -1) beside it. The control channel holds no other then: it is written as a whole. */
static int ctrl_send(Tpm *t, uint32_t code, const uint8_t *body, size_t size, int fd) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr header;
        } control = {};
        uint8_t data[16];
        struct iovec iov = { .iov_base = data, .iov_len = 4 + size };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t n;

        codec_put32(data, code);
        if (size > 0)
                memcpy(data + 4, body, size);
        if (fd >= 0) {
                m.msg_control = control.bytes;
                m.msg_controllen = sizeof control.bytes;
                control.header = (struct cmsghdr) { .cmsg_len = CMSG_LEN(sizeof(int)),
                                                    .cmsg_level = SOL_SOCKET,
                                                    .cmsg_type = SCM_RIGHTS };
                memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof fd);
        }

        t->s->sent = 1;
        n = sendmsg(t->ctrl_fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0)
                return -errno;
        return n == (ssize_t) iov.iov_len ? 0 : -EIO;
}

static int data_send(Tpm *t, const uint8_t *command, size_t size) {
        ssize_t n;

        t->s->response_size = t->s->sent = 0;
        explicit_bzero(t->s->response, sizeof t->s->response);
        RECORD();
        t->s->busy = 1;
        t->s->sent = 1;
        RECORD();
        n = send(t->data_fd, command, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0)
                return -errno;

        /* no other command is in the socket: it takes this one as a whole, or something is wrong with it */
        return n == (ssize_t) size ? 0 : -EIO;
}

static int watch_data(Tpm *t) {
        return loop_watch(t->loop, &t->data, t->data_fd, LOOP_EDGE);
}

/* It is watched once swtpm has taken its end: until then a hang-up means nothing. */
static int begin_datafd(Tpm *t) {
        CLEANUP(fd_closep) int theirs = -1;
        int pair[2];

        close_data(t);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;

        theirs = pair[1];
        t->data_fd = pair[0];
        t->s->own_data = 1;
        (void) notify_store("data", t->data_fd);
        return ctrl_send(t, controls[TPM_DATAFD].code, NULL, 0, theirs);
}

static int begin_startup(Tpm *t) {
        static const uint8_t startup_clear[] = { 0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0 };

        return data_send(t, startup_clear, sizeof startup_clear);
}

/* TPM2_HierarchyChangeAuth of the platform hierarchy to a secret that nobody has: without firmware its authorisation is empty, and
 * would be the guest's. */
static int begin_lock(Tpm *t) {
        enum { SECRET = 32, SIZE = 10 + 4 + 4 + 9 + 2 + SECRET };
        uint8_t command[SIZE] = {
                0x80, 0x02,   0, 0,    0,    SIZE, 0, 0,    0x01, 0x29, /* TPM_ST_SESSIONS, TPM_CC_HierarchyChangeAuth */
                0x40, 0,      0, 0x0c,                                  /* TPM_RH_PLATFORM */
                0,    0,      0, 9,    0x40, 0,    0, 0x09, 0,    0,    0,
                0,    0, /* TPM_RS_PW, an empty password */
                0,    SECRET,
        };
        int r;

        if (getrandom(command + SIZE - SECRET, SECRET, 0) != SECRET)
                return -errno;

        r = data_send(t, command, sizeof command);
        explicit_bzero(command, sizeof command);
        return r;
}

static void step_done(Tpm *t) {
        t->s->step = TPM_READY;
        set_deadline(t, 0);
        t->ops->ready(t->userdata);
}

static void step_begin(Tpm *t, TpmStep step) {
        static const uint8_t size_4096[] = { 0, 0, 0x10, 0 }, no_flags[4] = {};
        int r;

        t->s->sent = 0;
        RECORD();
        t->s->step = step;
        t->s->reply_size = 0;
        memset(t->s->reply, NO_REPLY, sizeof t->s->reply);
        RECORD();
        set_deadline(t, STEP_DEADLINE_NS);
        switch (step) {
        case TPM_CAPABILITY:
                r = ctrl_send(t, controls[step].code, NULL, 0, -1);
                break;
        case TPM_DATAFD:
                r = begin_datafd(t);
                break;
        case TPM_BUFFERSIZE:
                r = ctrl_send(t, controls[step].code, size_4096, sizeof size_4096, -1);
                break;
        case TPM_INIT:
                r = ctrl_send(t, controls[step].code, no_flags, sizeof no_flags, -1);
                break;
        case TPM_STARTUP:
                r = begin_startup(t);
                break;
        case TPM_LOCK:
                r = begin_lock(t);
                break;
        default:
                step_done(t);
                return;
        }
        if (r < 0)
                fail(t, strerror(-r));
}

/* What comes after a good answer. */
static TpmStep step_after(const Tpm *t) {
        switch (t->s->step) {
        case TPM_CAPABILITY:
                return t->data_fd >= 0 && !t->s->own_data ? TPM_BUFFERSIZE : TPM_DATAFD;
        case TPM_DATAFD:
                return TPM_BUFFERSIZE;
        case TPM_BUFFERSIZE:
                return TPM_INIT;
        case TPM_INIT:
                return t->options.keep_platform ? TPM_READY : TPM_STARTUP;
        case TPM_STARTUP:
                return TPM_LOCK;
        default:
                return TPM_READY;
        }
}

static void cycle_begin(Tpm *t) {
        TpmState *s = t->s;

        if (s->busy)
                close_data(t); /* the late response would be taken for another's */
        s->again = s->busy = s->late = s->retries = 0;
        if (t->ctrl_fd < 0)
                fail(t, "there is no swtpm");
        else
                step_begin(t, t->data_fd >= 0 && s->step == TPM_READY ? TPM_INIT : TPM_CAPABILITY);
}

/* Goes on, or over to the power cycle that was asked for meanwhile. */
static void step_next(Tpm *t, TpmStep next) {
        if (t->s->again)
                cycle_begin(t);
        else
                step_begin(t, next);
}

static void ctrl_answer(Tpm *t, uint32_t result) {
        int r;

        switch (t->s->step) {
        case TPM_DATAFD:
                if (result == CONTROL_IO_ERROR && t->s->retries < DATAFD_RETRIES) {
                        t->s->retries++;
                        t->timer.at = loop_now() +
                                      DATAFD_RETRY_NS; /* the deadline of before still stands in the state */
                        t->s->deadline = 0;
                        return;
                }
                if (result == 0) {
                        r = watch_data(t);
                        if (r < 0) {
                                fail(t, strerror(-r));
                                return;
                        }
                }
                break;
        case TPM_BUFFERSIZE:
                if (result == CONTROL_BAD_ORDINAL)
                        result = 0; /* it runs already; INIT will start it anew, with the size it has */
                break;
        }

        if (result != 0) {
                report(LOG_ERR, "swtpm refused control command 0x%x with 0x%x", controls[t->s->step].code,
                       result);
                fail(t, "control command refused");
        } else
                step_next(t, step_after(t));
}

/* Looks at what has come of a reply. */
static void ctrl_received(Tpm *t, uint32_t want) {
        bool whole = t->s->reply_size == want;

        /* an error comes without the rest */
        if (t->s->step != TPM_CAPABILITY && t->s->reply_size >= 4 &&
            (whole || codec_get32(t->s->reply) != 0))
                ctrl_answer(t, codec_get32(t->s->reply));
        else if (t->s->step == TPM_CAPABILITY && whole)
                ctrl_answer(t, 0);
}

static void on_ctrl(void *userdata, uint32_t events) {
        Tpm *t = userdata;
        uint32_t want = t->s->step < TPM_STARTUP ? controls[t->s->step].reply_size : 0;
        size_t due = want > t->s->reply_size ? want - t->s->reply_size : 0;
        ssize_t n;

        /* one byte more than is due: anything beyond is not for us to understand; and into the record at once, as responses are */
        n = recv(t->ctrl_fd, t->s->reply + t->s->reply_size,
                 MIN(due + 1, sizeof t->s->reply - t->s->reply_size), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0) {
                close_ctrl(t);
                (void) notify_discard("tpm");
                if (t->s->step != TPM_FAILED)
                        fail(t, "swtpm hung up its control channel");
                return;
        }

        t->s->reply_size += (uint32_t) n;
        if (t->s->reply_size > want) {
                close_ctrl(t);
                (void) notify_discard("tpm");
                if (t->s->step != TPM_FAILED)
                        fail(t, "swtpm sent more than an answer on its control channel");
                return;
        }
        ctrl_received(t, want);
}

static void response_done(Tpm *t) {
        TpmStep step = t->s->step;
        uint32_t code = codec_code(t->s->response);
        bool late = t->s->late;

        t->s->busy = t->s->late = 0;
        set_deadline(t, 0);
        if (step == TPM_STARTUP || step == TPM_LOCK) {
                /* 0x100: its parent had it started; then the hierarchy can be locked all the same */
                if (code != 0 && !(step == TPM_STARTUP && code == 0x100)) {
                        report(LOG_ERR, "%s answered 0x%x",
                               step == TPM_STARTUP ? "TPM2_Startup" : "locking the platform hierarchy",
                               code);
                        fail(t, "it cannot be made safe for the guest");
                        return;
                }
                step_next(t, step_after(t));
                return;
        }

        if (!late)
                t->ops->response(t->userdata, t->s->response, t->s->response_size);
        if (t->s->again)
                cycle_begin(t);
        else if (late)
                t->ops->ready(t->userdata);
}

/* The number of bytes, 0 at the end, or -errno. */
static ssize_t data_receive(Tpm *t, void *to, size_t size) {
        ssize_t n;

        do
                n = recv(t->data_fd, to, size, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : n;
}

static void on_data(void *userdata, uint32_t events) {
        Tpm *t = userdata;
        TpmState *s = t->s;
        int want = VIRTIO_TPM_MESSAGE_MAX;
        uint8_t extra;
        ssize_t n;

        if (!s->busy) {
                n = data_receive(t, &extra, 1);
                if (n == -EAGAIN)
                        return;
                fail(t, n > 0 ? "swtpm sent what nobody asked for" : "swtpm hung up its data channel");
                return;
        }

        /* into the record at once: it is cleared, so that a process that ends right here leaves a response to be seen there */
        n = data_receive(t, s->response + s->response_size, sizeof s->response - s->response_size);
        if (n == -EAGAIN)
                return;
        if (n <= 0) {
                fail(t, "swtpm hung up its data channel");
                return;
        }

        s->response_size += (uint32_t) n;
        if (s->response_size >= VIRTIO_TPM_HEADER_SIZE)
                want = codec_response_size(s->response);

        /* more than the usual case, a response that is here as a whole and not the longest: there may be something behind it */
        if (s->response_size != (uint32_t) want || s->response_size == sizeof s->response ||
            (events & ~(uint32_t) EPOLLIN) != 0)
                (void) loop_change(t->loop, &t->data, LOOP_EDGE);

        if (want < 0 || s->response_size > (uint32_t) want)
                fail(t, "swtpm's response has no possible size");
        else if (s->response_size == (uint32_t) want)
                response_done(t);
}

static void on_timer(void *userdata) {
        Tpm *t = userdata;

        if (t->s->step == TPM_DATAFD && t->s->deadline == 0)
                step_begin(t, TPM_DATAFD);
        else if (t->s->step != TPM_READY) {
                if (t->s->step < TPM_STARTUP) { /* its answer would be taken for another's */
                        close_ctrl(t);
                        (void) notify_discard("tpm");
                }
                fail(t, "swtpm did not answer in time");
        } else if (t->s->busy && !t->s->late) {
                report(LOG_WARNING,
                       "a command takes longer than its deadline; its response will be thrown away");
                t->s->late = 1;
                t->s->deadline = 0;
                t->ops->late(t->userdata);
                if (t->s->again)
                        cycle_begin(t);
        }
}

void tpm_init(Tpm *t, TpmState *s, Loop *loop, const TpmOps *ops, void *userdata) {
        t->s = s;
        t->loop = loop;
        t->ops = ops;
        t->userdata = userdata;
        t->ctrl_fd = t->data_fd = -1;
        t->ctrl = (LoopSource) { .fd = -1, .ready = on_ctrl, .userdata = t };
        t->data = (LoopSource) { .fd = -1, .ready = on_data, .userdata = t };
        t->timer = (LoopTimer) { .elapsed = on_timer, .userdata = t };
        loop_add_timer(loop, &t->timer);
}

void tpm_done(Tpm *t) {
        t->timer.at = 0;
        loop_forget(t->loop, &t->ctrl);
        loop_forget(t->loop, &t->data);
        t->ctrl_fd = fd_close(t->ctrl_fd);
        t->data_fd = fd_close(t->data_fd);
}

/* Whether the process before us had received a response: it had noted that, or there is one in what was cleared before. */
static bool response_waits(TpmState *s) {
        int size = codec_response_size(s->response);

        if (size < 0 || s->step < TPM_STARTUP || s->step > TPM_READY)
                return false;
        if (s->busy && s->response_size == 0)
                s->response_size = (uint32_t) size;
        return s->response_size == (uint32_t) size;
}

/* The same for a reply on the control channel. */
static bool reply_waits(TpmState *s) {
        if (s->step < TPM_CAPABILITY || s->step >= TPM_STARTUP || s->reply[0] == NO_REPLY)
                return false;
        if (s->reply_size == 0)
                s->reply_size = controls[s->step].reply_size;
        return true;
}

static bool is_socket(int fd) {
        struct stat st;

        return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

int tpm_connect(Tpm *t, int ctrl_fd, int data_fd, bool resume) {
        CLEANUP(fd_closep) int data = data_fd;
        int r;

        if (!resume && (!is_socket(ctrl_fd) || (data_fd >= 0 && !is_socket(data_fd)))) {
                fd_close(ctrl_fd);
                return -ENOTSOCK; /* the present one, if there is one, stays */
        }
        if (!resume && t->s->step != TPM_OFF && t->s->step != TPM_FAILED)
                fail(t, "it was replaced");

        if (ctrl_fd < 0) {
                if (t->s->step != TPM_OFF && t->s->step != TPM_FAILED)
                        fail(t, "its control channel was lost in a restart");
                return 0;
        }

        if (!resume) {
                close_ctrl(t);
                close_data(t);
        }
        r = loop_watch(t->loop, &t->ctrl, ctrl_fd, EPOLLIN);
        if (r < 0) {
                fd_close(ctrl_fd);
                return r;
        }
        t->ctrl_fd = ctrl_fd;
        if (!resume)
                (void) notify_store("tpm", ctrl_fd);

        if (data >= 0) {
                t->data_fd = TAKE_FD(data);
                if (!resume) {
                        t->s->own_data = 0;
                        (void) notify_store("data", t->data_fd);
                }
                r = t->s->step == TPM_DATAFD ? 0 : watch_data(t);
                if (r < 0)
                        return r;
        } else if (resume && t->s->step > TPM_DATAFD && t->s->step < TPM_FAILED)
                fail(t, "its data channel was lost in a restart");

        if (!resume)
                return 0;

        t->timer.at = t->s->deadline;
        if (t->s->step == TPM_DATAFD && t->s->deadline == 0)
                t->timer.at = loop_now(); /* it was to be tried again */
        else if (t->s->step > TPM_OFF && t->s->step < TPM_READY && !t->s->sent)
                step_begin(t, t->s->step); /* the process before us did not come to it */
        else if (reply_waits(t->s))
                ctrl_received(t, controls[t->s->step].reply_size);
        else if (response_waits(t->s))
                response_done(t); /* perhaps once more: who is not waiting will not listen */
        return 0;
}

void tpm_power_cycle(Tpm *t) {
        TpmState *s = t->s;
        bool starting = s->step > TPM_OFF && s->step < TPM_READY;

        if (starting || (s->busy && !s->late))
                s->again = 1; /* once the answer is there, or the deadline has passed */
        else
                cycle_begin(t);
}

int tpm_send(Tpm *t, const uint8_t *command, size_t size) {
        int r;

        /* before it is noted that the command is on its way: whoever finds that note has a deadline for what perhaps was not sent */
        set_deadline(t, t->options.deadline_ns);
        r = data_send(t, command, size);
        if (r < 0)
                fail_silently(t, strerror(-r));
        return r;
}
