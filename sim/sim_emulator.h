/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* sim_emulator - what the simulated host puts in front of qemu-system-s390x: devices of type vfio-ap, which need a mainframe
 * under QEMU. A guest of the real QEMU has such a device on the simulated host, and everybody who talks to QEMU is told so;
 * all else is QEMU's. What is done and said here is what QEMU does and says on a machine with AP, and no more. */

#include <json-c/json.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#define EMULATOR_REAL "/usr/bin/qemu-system-s390x.real"
#define EMULATOR_CTL  "/sys/.sim/ctl"

/* A guest's AP bus, which takes one device. */
typedef struct EmulatorBus {
        bool exists; /* its CPU has AP */
        char *mdev;  /* UUID; NULL: nothing is plugged in */
        char *id;    /* the device's, or NULL */
} EmulatorBus;

/* Whether these are the options of such a device. */
bool emulator_is_vfio_ap(json_object *options);
/* NULL: there is no such string. Valid as long as @o. */
const char *emulator_string(json_object *o, const char *name);
/* 0, or -1 with *reterr (free()) what QEMU says then. The device is in use from here on. */
int emulator_plug(EmulatorBus *bus, json_object *options, char **reterr);
/* And here it ends. Nothing, if there is none. */
void emulator_unplug(EmulatorBus *bus);

/* Stands between the clients that connect to @listen_fd (-1: none) and the monitor of QEMU at @qemu, until @gone_fd, QEMU's
 * process, has ended. */
void emulator_monitor(EmulatorBus *bus, int gone_fd, int listen_fd, const struct sockaddr_un *qemu,
                      socklen_t qemu_size);
