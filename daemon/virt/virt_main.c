/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* guestcryptd-virt URI - all of libvirt that guestcryptd uses, in a process that can be killed when a call hangs. Ends with
 * its socket, descriptor VIRT_CHILD_FD, on which it talks as virt_wire.h says. */

#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "virt/virt_change.h"
#include "virt/virt_conn.h"
#include "virt/virt_wire.h"

typedef struct Main {
        Conn *conn;
        WireLines in;
        uint64_t call; /* the id of the one that runs */
        bool stop;
} Main;

static void quiet(void *userdata, virErrorPtr error) {
}

static void say_begun(void *userdata) {
        Main *m = userdata;
        CLEANUP(json_putp) json_object *o = wire_new("event", "begun");

        if (o && wire_add_number(o, "id", m->call) < 0)
                _exit(1);
        conn_send(m->conn, o);
}

static int serve(Main *m, const json_object *call) {
        CLEANUP(json_putp) json_object *reply = wire_new("event", "done");
        const char *kind = wire_string(call, "call");
        VirtOutcome outcome = {};
        WireEdit edit;
        Uuid guest;
        int r;

        if (!reply)
                return -ENOMEM;
        m->call = wire_number(call, "id");
        r = strcmp(kind, "find") != 0 ? wire_uuid(call, "guest", &guest) : 0;
        if (r < 0)
                return r;

        if (strcmp(kind, "find") == 0) {
                if (!conn_find(m->conn, wire_string(call, "name")))
                        outcome.verdict = VIRT_UNAVAILABLE;
        } else if (strcmp(kind, "edit") == 0) {
                r = wire_get_edit(call, &edit);
                if (r < 0)
                        return r;
                virt_change(m->conn, guest, &edit, say_begun, m, &outcome);
                /* what has become of it is known before the answer */
                (void) conn_refresh(m->conn, guest, true);
        } else if (strcmp(kind, "refresh") == 0) {
                if (!conn_refresh(m->conn, guest, true))
                        outcome.verdict = VIRT_UNAVAILABLE;
        } else
                return -EBADMSG;

        r = wire_add_number(reply, "id", m->call);
        if (r >= 0)
                r = wire_put_outcome(reply, &outcome);
        free((char *) outcome.text);
        if (r < 0)
                return r;
        conn_send(m->conn, reply);
        return 0;
}

static void on_socket(int watch, int fd, int events, void *userdata) {
        Main *m = userdata;
        char buffer[16384];
        ssize_t n;
        int r;

        n = recv(fd, buffer, sizeof buffer, 0);
        if (n < 0 && errno == EINTR)
                return;
        r = n > 0 ? wire_lines_add(&m->in, buffer, (size_t) n) : -ECONNRESET;
        while (r >= 0) {
                CLEANUP(json_putp) json_object *call = NULL;

                r = wire_lines_take(&m->in, &call);
                if (r <= 0)
                        break;
                r = serve(m, call);
        }
        if (r < 0) {
                m->stop = true;
                (void) virEventRemoveHandle(watch);
        }
}

int main(int argc, char *argv[]) {
        Main m = {};
        int r;

        if (argc != 2) {
                (void) fprintf(stderr, "guestcryptd-virt is a part of guestcryptd and is started by it.\n");
                return 2;
        }
        /* a call that hangs would hold it when the daemon is gone */
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void) signal(SIGPIPE, SIG_IGN);
        virSetErrorFunc(NULL, quiet);

        if (virEventRegisterDefaultImpl() < 0 || conn_new(argv[1], VIRT_CHILD_FD, &m.conn) < 0)
                return 1;
        r = virEventAddHandle(VIRT_CHILD_FD, VIR_EVENT_HANDLE_READABLE | VIR_EVENT_HANDLE_HANGUP, on_socket,
                              &m, NULL);
        while (r >= 0 && !m.stop)
                r = virEventRunDefaultImpl();

        m.conn = conn_free(m.conn);
        wire_lines_clear(&m.in);
        return r < 0 ? 1 : 0;
}
