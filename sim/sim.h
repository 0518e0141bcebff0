/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* sim - a simulated Linux host with crypto adapters: AP bus, vfio_ap, mdev core and a second, non-AP mdev
 * parent.
 *
 * Plain C over libc, no I/O, no clock, no threads: the whole of /sys that matters is a function of the calls
 * made here. Paths are relative to /sys ("bus/ap/apmask"). Results are 0 or more, or -errno as the kernel
 * gives it. What the model answers was compared with recordings of the real drivers
 * (tests/fixtures/sim/recordings).
 *
 * Some accesses never return on a real host. Here they return SIM_NEVER, which is no errno: the operation
 * stays pending in the model, under the number that sim_pending() tells, until the model lets it end; then
 * the function set with sim_set_done() is called. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sim/sim_profile.h"

#define SIM_NEVER     (-100000)
#define SIM_PAGE_SIZE 4096
#define SIM_CTL_SIZE  65536 /* the most that reading .sim/ctl gives; every attribute fits in SIM_PAGE_SIZE */

typedef struct Sim Sim;
typedef struct SimFile SimFile;

typedef struct SimStat {
        mode_t mode;     /* S_IFDIR, S_IFREG or S_IFLNK with the permissions */
        uint64_t serial; /* differs between an object and a later one of the same name */
        bool fixed;      /* is there as long as its directory is */
} SimStat;

/* @env: @size bytes of NUL-terminated KEY=value strings, SUBSYSTEM first, without ACTION and DEVPATH. */
typedef void (*sim_uevent_t)(void *userdata, const char *action, const char *devpath, const char *env,
                             size_t size);

/* A pending operation has ended with @result; for a read @data are the bytes. */
typedef void (*sim_done_t)(void *userdata, uint64_t id, ssize_t result, const char *data);

/* Nonzero ends the listing and is returned. */
typedef int (*sim_entry_t)(void *userdata, const char *name, mode_t type);

/* A host as @profile (copied) describes it, just booted. */
int sim_new(const SimProfile *profile, Sim **ret);
Sim *sim_free(Sim *s); /* accepts NULL, returns NULL */

static inline void sim_freep(Sim **s) {
        (void) sim_free(*s);
}

int sim_lstat(Sim *s, const char *path, SimStat *ret);
int sim_stat(Sim *s, const char *path, SimStat *ret);

/* Whole target, NUL-terminated; returns its length. -EINVAL: no link. -ENAMETOOLONG: @size is too small. */
ssize_t sim_readlink(Sim *s, const char *path, char *buf, size_t size);

/* All entries but "." and "..", in no order. @fn must not change the host. */
int sim_readdir(Sim *s, const char *path, sim_entry_t fn, void *userdata);

/* @flags as for open(2); @uid 0 too needs the file's permission bits. A file that outlives its object
 * answers -ENODEV, also when the object has been made again. */
int sim_open(Sim *s, const char *path, int flags, uid_t uid, SimFile **ret);
SimFile *sim_close(SimFile *f);

/* Whether its object is still there: if not, every access gives -ENODEV, also a read behind the end. */
bool sim_file_alive(const SimFile *f);

/* The whole content, made anew, not NUL-terminated; -EOVERFLOW: @size is too small for it. */
ssize_t sim_file_read(SimFile *f, char *buf, size_t size);

/* One store. Returns @size, or what the kernel says instead. */
ssize_t sim_file_write(SimFile *f, const char *data, size_t size);

/* Open as root, one access, close. */
ssize_t sim_read(Sim *s, const char *path, char *buf, size_t size);
ssize_t sim_write(Sim *s, const char *path, const char *data, size_t size);

/* Commands for hardware, guests and faults, separated by newlines or ';', as written to .sim/ctl (see
 * sim/README.md). Stops at the first that fails. -EINVAL: not a command. */
int sim_ctl(Sim *s, const char *commands);

/* What .sim/ctl shows. Returns the length. */
size_t sim_state(Sim *s, char *buf, size_t size);

void sim_set_uevent(Sim *s, sim_uevent_t fn, void *userdata);
void sim_set_done(Sim *s, sim_done_t fn, void *userdata);

/* The number of the operation that returned SIM_NEVER last. */
uint64_t sim_pending(const Sim *s);
size_t sim_pending_count(const Sim *s);

/* How a process waits for it: 'S' or 'D', as ps(1) has it. */
char sim_waits(const Sim *s, uint64_t id);

/* A signal for who waits: ends the operation with -EINTR if the kernel would. Returns whether. */
bool sim_interrupt(Sim *s, uint64_t id);

/* Microseconds that the last access should have taken because of a fault rule; reading resets it. */
uint64_t sim_take_delay(Sim *s);

/* Stores so far, those of .sim/ctl excepted: a test fails write number i with "fault write * EIO 1
 * skip=i-1". */
uint64_t sim_writes(const Sim *s);

/* Reads that made an old kernel write past its page: what must never happen. */
uint64_t sim_overruns(const Sim *s);

/* How often the guest using @uuid was told of a new configuration, or asked to release. -ENOENT: no such
 * mdev. */
int sim_guest_events(Sim *s, const char *uuid, unsigned *ret_config, unsigned *ret_request);

/* How often the queue has been zeroized since boot. */
unsigned sim_zeroized(const Sim *s, uint8_t adapter, uint8_t domain);
