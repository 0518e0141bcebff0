/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* service - the parts put together, fresh or on what an earlier process left. */

#include <stdbool.h>

#include "drivers/virtio-tpm/control.h"
#include "drivers/virtio-tpm/state.h"

typedef struct ServiceOptions {
        FrontKind front;
        bool indirect; /* offer descriptors in tables; each costs a s390x guest one more mapping */
        bool once;     /* end with the first VMM */
        uid_t peer_uid;
        TpmOptions tpm;
        uint32_t denied[DEVICE_DENIED_MAX];
        unsigned n_denied;
} ServiceOptions;

/* Descriptors by name: listen, client, control, tpm, data from the parent or socket units; state, machine, mem-N, irqN, kick, call, err
 * from the store as well. */
#define SERVICE_FDS_MAX 128

typedef struct ServiceFds {
        unsigned n;
        struct {
                char name[16];
                int fd;
        } fds[SERVICE_FDS_MAX];
} ServiceFds;

/* Takes @fd; of two with one name the first counts. */
void service_fds_add(ServiceFds *f, const char *name, int fd);
bool service_fds_has(const ServiceFds *f, const char *name);

/* -1 if there is none; the caller's. */
int service_fds_take(ServiceFds *f, const char *name);

typedef struct Service {
        Loop loop;
        State *state;
        int state_fd;
        Memory memory;
        Tpm tpm;
        Device device;
        Server server;
        Control control;
        union {
                VfioUser vfio;
                VhostUser vhost;
        };
        FrontKind front;
} Service;

/* Takes what it needs of @fds. 0 or -errno; then nothing is left of it. */
int service_init(Service *v, const ServiceOptions *options, ServiceFds *fds);

/* The process goes; what it stored stays with the service manager. */
void service_done(Service *v);
