/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vtpm_process - the processes of a TPM: what they are called, where their files are, which exit status of a launcher says what. */

#include <stdint.h>
#include <sys/types.h>

/* In RUN/tpm/UUID/. */
#define VTPM_DEVICE_SOCKET    "device.sock"  /* virtio: for the VMM */
#define VTPM_SWTPM_SOCKET     "swtpm.sock"   /* crb, tis: for the VMM */
#define VTPM_CTRL_SOCKET      "ctrl.sock"    /* virtio: swtpm's, for the device */
#define VTPM_CONTROL_SOCKET   "control.sock" /* the device's, for us */
#define VTPM_DEVICE_LOCK_FILE "device.lock"
/* In STATE/tpms/UUID/. */
#define VTPM_LOCK_FILE "lock"

typedef enum VtpmRole { VTPM_ROLE_JOB, VTPM_ROLE_SWTPM, VTPM_ROLE_DEVICE, _VTPM_ROLE_MAX } VtpmRole;

/* "job", "swtpm", "device". */
const char *vtpm_role_name(VtpmRole role);
/* In RUN/tpm/UUID/; not of jobs. */
const char *vtpm_pid_file(VtpmRole role);

/* sysexits.h has the same two, for the same reasons. */
enum {
        VTPM_EXIT_FAILURE = 1,
        VTPM_EXIT_UNAVAILABLE = 69, /* a program, or the key, is not there */
        VTPM_EXIT_IN_USE = 75       /* somebody has the lock */
};

/* When process @pid began, in clock ticks since boot: with its number that is a process for good. -ESRCH. */
int vtpm_process_since(pid_t pid, uint64_t *ret);

/* The process that a pid file in @run_fd names: a pidfd, with *ret_pid. -ESRCH: it has ended. */
int vtpm_process_open(int run_fd, VtpmRole role, pid_t *ret_pid);
