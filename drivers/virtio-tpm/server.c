/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/server.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "drivers/virtio-tpm/notify.h"
#include "drivers/virtio-tpm/report.h"

static void close_client(Server *v) {
        loop_forget(v->loop, &v->client);
        v->client_fd = fd_close(v->client_fd);
        v->s->connected = 0;
        wire_consume(&v->wire);
        v->s->wire.tx_size = v->s->wire.tx_sent = 0;
        v->again = false;
        (void) notify_discard("client");
        v->front->closed(v->front->userdata);
        if (v->once)
                v->loop->stop = true;
}

static void drop_client(Server *v, int r) {
        if (r == -EPIPE || r == -ECONNRESET)
                report(LOG_INFO, "the VMM closed its connection");
        else
                report(LOG_WARNING, "dropping the VMM's connection: %s", strerror(-r));
        close_client(v);
}

/* Sends what there is to send; while that takes time nothing is read. 1: all sent, 0: not yet, negative: dropped. */
static int flush(Server *v) {
        int r;

        if (v->s->wire.tx_size == 0)
                return 1;

        r = wire_send(&v->wire);
        if (r > 0)
                (void) loop_change(v->loop, &v->client, LOOP_EDGE);
        if (r < 0)
                drop_client(v, r);
        return r;
}

static int send_answer(Server *v) {
        int r;

        if (v->s->wire.tx_size == 0)
                return 1;

        r = wire_send(&v->wire);
        if (r == 0)
                (void) loop_change(v->loop, &v->client, EPOLLOUT);
        if (r < 0)
                drop_client(v, r);
        return r;
}

/* One message: then the others have their turn. */
static void on_client(void *userdata, uint32_t events) {
        Server *v = userdata;
        int r;

        if (flush(v) <= 0)
                return;
        if (v->again)
                (void) loop_change(v->loop, &v->client, LOOP_EDGE);

        r = wire_receive(&v->wire);
        if (r == 0)
                return;
        if (r > 0) {
                r = v->front->handle(v->front->userdata, &v->wire, v->again);
                v->again = false;
                if (r >= 0)
                        r = wire_done(&v->wire);
        }
        if (r < 0) {
                drop_client(v, r);
                return;
        }
        if (!v->wire.drained || (events & ~(uint32_t) EPOLLIN) != 0)
                (void) loop_change(v->loop, &v->client, LOOP_EDGE);
        (void) send_answer(v);
}

static bool process_ended(int pid_fd) {
        struct pollfd p = { .fd = pid_fd, .events = POLLIN };

        return poll(&p, 1, 0) != 0;
}

/* The VMM behind the connection is another process than the last one: so is its machine. */
static void check_machine(Server *v, pid_t pid) {
        if (v->s->machine > 0 && v->s->machine == pid && v->machine_fd >= 0 && !process_ended(v->machine_fd))
                return;

        fd_close(v->machine_fd);
        v->machine_fd = pid > 0 ? (int) syscall(SYS_pidfd_open, pid, 0) : -1;
        v->s->machine = v->machine_fd >= 0 ? pid : 0;
        if (v->machine_fd >= 0)
                (void) notify_store("machine", v->machine_fd);
        device_machine_reset(v->device);
}

int server_accept(Server *v, int fd) {
        CLEANUP(fd_closep) int taken = fd;
        struct ucred peer = {};
        socklen_t size = sizeof peer;
        int r;

        if (v->client_fd >= 0) {
                report(LOG_WARNING, "refusing a second connection: there is one VMM to a TPM");
                return -EBUSY;
        }
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                return -errno;
        if (v->peer_uid != (uid_t) -1 && peer.uid != 0 && peer.uid != v->peer_uid) {
                report(LOG_WARNING, "refusing a connection of user %u", (unsigned) peer.uid);
                return -EACCES;
        }

        r = loop_watch(v->loop, &v->client, fd, LOOP_EDGE);
        if (r < 0)
                return r;

        v->client_fd = v->wire.fd = TAKE_FD(taken);
        v->s->connected = 1;
        v->device->s->counters.connections++;
        (void) notify_store("client", fd);
        report(LOG_INFO, "the VMM with process id %d connected", (int) peer.pid);
        check_machine(v, peer.pid);
        return 0;
}

static void on_listener(void *userdata, uint32_t events) {
        Server *v = userdata;
        int fd;

        fd = accept4(v->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
                (void) server_accept(v, fd);
        else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
                report(LOG_WARNING, "cannot accept a connection: %s", strerror(errno));
}

void server_init(Server *v, ServerState *s, Loop *loop, Device *device, const Front *front) {
        v->s = s;
        v->loop = loop;
        v->device = device;
        v->front = front;
        v->listen_fd = v->client_fd = v->machine_fd = -1;
        v->wire = (Wire) { .s = &s->wire,
                           .fd = -1,
                           .header_size = front->header_size,
                           .whole_size = front->whole_size,
                           .brings_fds = front->brings_fds };
        v->listener = (LoopSource) { .fd = -1, .ready = on_listener, .userdata = v };
        v->client = (LoopSource) { .fd = -1, .ready = on_client, .userdata = v };
}

void server_done(Server *v) {
        loop_forget(v->loop, &v->listener);
        loop_forget(v->loop, &v->client);
        v->listen_fd = fd_close(v->listen_fd);
        v->client_fd = fd_close(v->client_fd);
        v->machine_fd = fd_close(v->machine_fd);
        for (unsigned i = 0; i < v->wire.n_fds; i++)
                fd_close(v->wire.fds[i]);
}

int server_listen(Server *v, int fd) {
        int r;

        r = loop_watch(v->loop, &v->listener, fd, EPOLLIN);
        if (r < 0) {
                fd_close(fd);
                return r;
        }

        v->listen_fd = fd;
        return 0;
}

int server_resume(Server *v, int client_fd, int machine_fd) {
        WireState *w = &v->s->wire;
        int r;

        fd_close(v->machine_fd);
        v->machine_fd = machine_fd;
        if (client_fd < 0)
                return 0;

        r = loop_watch(v->loop, &v->client, client_fd, w->tx_size > 0 ? EPOLLOUT : LOOP_EDGE);
        if (r < 0) {
                fd_close(client_fd);
                return r;
        }
        v->client_fd = v->wire.fd = client_fd;

        v->again = wire_recover(&v->wire);
        if (w->rx_size > 0) /* nothing in the socket would tell of it */
                (void) loop_change(v->loop, &v->client, EPOLLIN | EPOLLOUT);
        return 0;
}

bool server_is_between_messages(const Server *v) {
        return v->s->wire.rx_size == 0 && v->s->wire.tx_size == 0;
}
