/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/vtpm/harness.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define TURNS 4

void harness_pump(void *harness) {
        Harness *h = harness;

        for (unsigned i = 0; i < TURNS; i++) {
                (void) loop_once(&h->service.loop, 0);
                fake_tpm_step(&h->tpm);
        }
}

static int connect_vmm(Harness *h) {
        int pair[2];

        assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        vmm_init(&h->vmm, h->options.front == FRONT_VHOST_USER, pair[0], harness_pump, h);
        return pair[1];
}

void harness_init_with(Harness *h, const ServiceOptions *options) {
        ServiceFds fds = {};

        memset(h, 0, sizeof *h);
        h->options = *options;
        service_fds_add(&fds, "tpm", fake_tpm_init(&h->tpm));
        service_fds_add(&fds, "client", connect_vmm(h));
        assert(service_init(&h->service, options, &fds) == 0);
}

void harness_init(Harness *h, bool vhost) {
        const ServiceOptions options = { .front = vhost ? FRONT_VHOST_USER : FRONT_VFIO_USER,
                                         .indirect = true,
                                         .peer_uid = (uid_t) -1,
                                         .tpm.deadline_ns = UINT64_C(60000000000) };

        harness_init_with(h, &options);
}

void harness_done(Harness *h) {
        service_done(&h->service);
        vmm_done(&h->vmm);
        fake_tpm_done(&h->tpm);
}

void harness_reconnect(Harness *h) {
        vmm_done(&h->vmm);
        h->vmm.fd = -1;
        harness_pump(h);
        assert(server_accept(&h->service.server, connect_vmm(h)) == 0);
}

static void keep(ServiceFds *fds, const char *name, int fd) {
        if (fd >= 0)
                service_fds_add(fds, name, fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

/* What the store would have: the descriptors by the names that the parts give them. */
void harness_restart(Harness *h) {
        Service *v = &h->service;
        ServiceFds fds = {};
        char name[16];

        keep(&fds, "state", v->state_fd);
        keep(&fds, "client", v->server.client_fd);
        keep(&fds, "machine", v->server.machine_fd);
        keep(&fds, "tpm", v->tpm.ctrl_fd);
        keep(&fds, "data", v->tpm.data_fd);
        for (unsigned i = 0; i < MEMORY_FILES_MAX; i++) {
                (void) snprintf(name, sizeof name, "mem-%u", i);
                keep(&fds, name, v->memory.files[i].fd);
        }
        if (h->options.front == FRONT_VFIO_USER) {
                keep(&fds, "irq0", v->vfio.pci.vector_fds[0]);
                keep(&fds, "irq1", v->vfio.pci.vector_fds[1]);
        } else {
                keep(&fds, "kick", v->vhost.kick.fd);
                keep(&fds, "call", v->vhost.call_fd);
                keep(&fds, "err", v->vhost.error_fd);
        }
        service_done(v);
        assert(service_init(v, &h->options, &fds) == 0);
}
