/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host - the machine that a script of the contract suite is played on. One implementation is linked: host_sim.c (the
 * simulated host in this process) or host_files.c (a mounted /sys: the simulated host's through FUSE, or a kernel's).
 *
 * Paths are relative to /sys. Results are the system call's, or -errno. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

#define HOST_SLOTS 16    /* files held open, and accesses that were started: each has a number below this */
#define HOST_TEXT  65536 /* the most that a file holds */

typedef struct HostAnswer {
        ssize_t r;
        bool opened; /* false: @r is open's */
} HostAnswer;

typedef void (*host_event_t)(const char *text);
typedef void (*host_zeroized_t)(unsigned adapter, unsigned domain, unsigned count);
typedef int (*host_name_t)(void *userdata, const char *name);

/* What the command line says behind the script's own options. Returns an exit status, 0 to go on. */
int host_begin(char **arguments, const char *boot);
void host_finish(void);

HostAnswer host_read(const char *path, char *buf, size_t size);
HostAnswer host_write(const char *path, const char *data, size_t n);
int host_user(unsigned uid); /* for what follows */
int host_chown(const char *path, unsigned uid);

int host_lstat(const char *path, struct stat *ret);
ssize_t host_readlink(const char *path, char *buf, size_t size);
int host_readdir(const char *path, host_name_t fn, void *userdata);

int host_hold(unsigned slot, const char *path, int flags);
ssize_t host_hold_read(unsigned slot, char *buf, size_t size, bool rewind);
ssize_t host_hold_write(unsigned slot, const char *data, size_t n);
void host_hold_close(unsigned slot);

/* An access that may not come to an end: true if it has, otherwise *@ret_state is how it waits, D or S. */
bool host_start(unsigned slot, bool write, const char *path, const char *data, size_t n, char *ret_state);
/* Waits for its end. *@ret_n bytes of what was read. */
HostAnswer host_end(unsigned slot, char *buf, size_t size, size_t *ret_n);

int host_model(const char *commands); /* of the modelled hardware, see tests/vm/ap-kernel/README.md */
int host_module(bool load);           /* vfio_ap; modprobe's exit status */
int host_guest(const char *uuid, bool on);
/* Whether the guest was told of a configuration, or asked to let go, since the last time. */
int host_guest_events(const char *uuid, bool *ret_config, bool *ret_request);
int host_zeroized(host_zeroized_t fn);

void host_settle(void); /* until what the last operation has started in the background is done */
void host_events(host_event_t fn);
