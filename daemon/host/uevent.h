/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* uevent - the kernel's own uevents about AP devices and mdevs, heard without udev. A hint to scan, never
 * data. */

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#include "base/uuid.h"

#define UEVENT_COALESCE_US 20000
#define UEVENT_PERIOD_US   200000 /* a host that is always busy is not looked at all the time */

typedef struct Uevent Uevent;
typedef void (*uevent_changed_t)(void *userdata);

/* @changed is called from the loop, once for all that happens within UEVENT_COALESCE_US of the first event.
 * Events that were lost count as a change. 0 or -errno. */
int uevent_new(sd_event *event, uevent_changed_t changed, void *userdata, Uevent **ret);

/* Accepts NULL; returns NULL. */
Uevent *uevent_free(Uevent *u);

/* A socket that hears them, for who has no loop. A descriptor, or -errno. */
int uevent_open(void);

typedef struct UeventNews {
        bool ap;    /* the AP bus has sent something */
        bool mdevs; /* parents or mdevs have come or gone */
} UeventNews;

/* Whether the caller has itself made (@added) or removed @uuid, and this is the only event of that. */
typedef bool (*uevent_own_t)(void *userdata, Uuid uuid, bool added);

/* Takes what has come on @fd and sets in @news what it was about, both if any was lost. @own may be NULL. */
void uevent_take(int fd, uevent_own_t own, void *userdata, UeventNews *news);

/* The same for one message. */
void uevent_read(const char *message, size_t size, uevent_own_t own, void *userdata, UeventNews *news);

/* Whether a message ("add@/devices/...", then KEY=value, each with NUL) is about what we look at. */
bool uevent_matters(const char *message, size_t size);
