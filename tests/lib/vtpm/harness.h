/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* harness - the whole device between a Vmm and a FakeTpm, in one thread: each waiting end runs the other two. */

#include "drivers/virtio-tpm/service.h"
#include "lib/vtpm/fake_tpm.h"
#include "lib/vtpm/vmm.h"

#define HARNESS_MS 20000 /* what should happen does so at once */

typedef struct Harness {
        Service service;
        ServiceOptions options;
        FakeTpm tpm;
        Vmm vmm;
} Harness;

/* With all options default; the Vmm is connected, and has said nothing. */
void harness_init(Harness *h, bool vhost);
void harness_init_with(Harness *h, const ServiceOptions *options);
void harness_done(Harness *h);

/* A few turns of everybody. */
void harness_pump(void *harness);

/* Connects another Vmm; the former one is gone. */
void harness_reconnect(Harness *h);

/* The device's process ends, at once, and another one goes on with what it had stored. */
void harness_restart(Harness *h);
