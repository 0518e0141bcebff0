/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/service.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "drivers/virtio-tpm/notify.h"
#include "drivers/virtio-tpm/report.h"

void service_fds_add(ServiceFds *f, const char *name, int fd) {
        if (f->n >= SERVICE_FDS_MAX || service_fds_has(f, name) || strlen(name) >= sizeof f->fds[0].name) {
                fd_close(fd);
                return;
        }

        (void) snprintf(f->fds[f->n].name, sizeof f->fds[f->n].name, "%s", name);
        f->fds[f->n++].fd = fd;
}

bool service_fds_has(const ServiceFds *f, const char *name) {
        for (unsigned i = 0; i < f->n; i++)
                if (strcmp(f->fds[i].name, name) == 0 && f->fds[i].fd >= 0)
                        return true;
        return false;
}

int service_fds_take(ServiceFds *f, const char *name) {
        for (unsigned i = 0; i < f->n; i++)
                if (strcmp(f->fds[i].name, name) == 0 && f->fds[i].fd >= 0)
                        return TAKE_FD(f->fds[i].fd);
        return -1;
}

static void on_file(void *userdata, unsigned file, int fd) {
        char name[16];

        (void) snprintf(name, sizeof name, "mem-%u", file);
        (void) (fd >= 0 ? notify_store(name, fd) : notify_discard(name));
}

static uint64_t features_offered(const ServiceOptions *options) {
        uint64_t features = UINT64_C(1) << VIRTIO_F_VERSION_1;

        if (options->indirect)
                features |= UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC;
        if (options->front == FRONT_VFIO_USER)
                features |=
                        UINT64_C(1)
                        << VIRTIO_F_ACCESS_PLATFORM; /* addresses are what the VMM's IOMMU makes of them */
        return features;
}

/* Everything that belongs to a VMM's connection, which also ends it. */
static void forget_connection(ServiceFds *fds) {
        for (unsigned i = 0; i < fds->n; i++) {
                const char *name = fds->fds[i].name;

                if (strcmp(name, "listen") == 0 || strcmp(name, "control") == 0 || strcmp(name, "tpm") == 0)
                        continue;
                (void) notify_discard(name);
                fds->fds[i].fd = fd_close(fds->fds[i].fd);
        }
}

/* An earlier process's memory files and the front end's descriptors. */
static void restore_fds(Service *v, ServiceFds *fds) {
        for (unsigned i = 0; i < fds->n; i++) {
                const char *name = fds->fds[i].name;
                int fd = fds->fds[i].fd;
                unsigned file;

                if (fd < 0)
                        continue;
                if (sscanf(name, "mem-%u", &file) == 1) {
                        (void) memory_restore_file(&v->memory, file, fd);
                        fds->fds[i].fd = -1;
                } else if (v->front == FRONT_VFIO_USER ? vfio_user_restore_fd(&v->vfio, name, fd)
                                                       : vhost_user_restore_fd(&v->vhost, name, fd))
                        fds->fds[i].fd = -1;
        }
}

/* Everything as the process before us left it; what it lost is lost for the VMM, too. */
static int resume(Service *v, ServiceFds *fds) {
        int client_fd, tpm_fd, r;

        restore_fds(v, fds);
        r = memory_restore(&v->memory);
        if (r < 0)
                return r;
        device_restore(&v->device);

        client_fd = service_fds_take(fds, "client");
        r = server_resume(&v->server, client_fd, service_fds_take(fds, "machine"));
        if (r < 0)
                return r;
        if (v->state->server.connected && client_fd < 0) {
                report(LOG_WARNING, "the VMM's connection was lost in a restart");
                v->state->server.connected = 0;
                v->server.front->closed(v->server.front->userdata);
        }

        tpm_fd = service_fds_take(fds, "tpm");
        r = tpm_connect(&v->tpm, tpm_fd, service_fds_take(fds, "data"), true);
        if (r < 0)
                return r;

        device_resume(&v->device);
        return 0;
}

static int start(Service *v, ServiceFds *fds) {
        int client_fd, tpm_fd, r;

        tpm_fd = service_fds_take(fds, "tpm");
        if (tpm_fd >= 0) {
                r = tpm_connect(&v->tpm, tpm_fd, service_fds_take(fds, "data"), false);
                if (r < 0)
                        return r;
        }

        client_fd = service_fds_take(fds, "client");
        return client_fd >= 0 ? server_accept(&v->server, client_fd) : 0;
}

static int listen_all(Service *v, ServiceFds *fds) {
        int fd, r;

        fd = service_fds_take(fds, "control");
        if (fd >= 0) {
                r = control_listen(&v->control, fd);
                if (r < 0)
                        return r;
        }

        fd = service_fds_take(fds, "listen");
        return fd >= 0 ? server_listen(&v->server, fd) : 0;
}

int service_init(Service *v, const ServiceOptions *options, ServiceFds *fds) {
        bool resumed = false;
        int r;

        *v = (Service) { .state_fd = -1, .front = options->front };
        v->loop.fd = v->loop.alarm_fd = -1;

        v->state_fd = service_fds_take(fds, "state");
        if (v->state_fd >= 0) {
                r = state_adopt(options->front, v->state_fd, &v->state);
                if (r == -ESTALE)
                        report(LOG_WARNING,
                               "what an earlier process left is of another version, or not complete; its VMM has lost the device");
                else if (r < 0)
                        return r;
                resumed = r >= 0;
        }
        if (!v->state) {
                if (v->state_fd >= 0) {
                        forget_connection(fds);
                        v->state_fd = fd_close(v->state_fd);
                }
                r = state_new(options->front, &v->state, &v->state_fd);
                if (r < 0)
                        return r;
                (void) notify_store("state", v->state_fd);
        }

        r = loop_init(&v->loop);
        if (r < 0) {
                v->state = state_unmap(v->state);
                v->state_fd = fd_close(v->state_fd);
                return r;
        }

        v->tpm.options = options->tpm;
        tpm_init(&v->tpm, &v->state->tpm, &v->loop, &device_tpm_ops, &v->device);

        v->device.memory = &v->memory;
        v->device.tpm = &v->tpm;
        v->device.offered = features_offered(options);
        v->device.n_denied = options->n_denied;
        memcpy(v->device.denied, options->denied, sizeof v->device.denied);
        device_init(&v->device, &v->state->device, &v->loop);

        if (options->front == FRONT_VFIO_USER)
                vfio_user_init(&v->vfio, &v->state->vfio, &v->memory, &v->device, resumed);
        else
                vhost_user_init(&v->vhost, &v->state->vhost, &v->memory, &v->device, &v->loop, resumed);

        v->server.peer_uid = options->peer_uid;
        v->server.once = options->once;
        server_init(&v->server, &v->state->server, &v->loop, &v->device,
                    options->front == FRONT_VFIO_USER ? &v->vfio.front : &v->vhost.front);
        control_init(&v->control, &v->loop, &v->device, &v->server);

        r = memory_init(&v->memory, &v->state->memory, on_file, v);
        if (r >= 0)
                r = resumed ? resume(v, fds) : start(v, fds);
        if (r >= 0)
                r = listen_all(v, fds);
        if (r < 0)
                service_done(v);
        return r;
}

void service_done(Service *v) {
        notify_end();
        control_done(&v->control);
        server_done(&v->server);
        if (v->front == FRONT_VFIO_USER)
                vfio_user_done(&v->vfio);
        else
                vhost_user_done(&v->vhost);
        memory_done(&v->memory);
        tpm_done(&v->tpm);
        loop_done(&v->loop);
        v->state = state_unmap(v->state);
        v->state_fd = fd_close(v->state_fd);
}
