/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_scan_internal - between host_scan.c (mdevs, and the whole), host_scan_ap.c (the AP bus) and host_scan_value.c
 * (attributes, read strictly). */

#include "host/host_scan.h"

#define SCAN_VALUE_SIZE 256
#define SCAN_TRIES_MAX  10 /* things come and go in the middle of a scan */

/* Something that was just listed is gone: begin again. Never leaves the scan. */
#define SCAN_AGAIN (-ERESTART)

/* SCAN_AGAIN for what says that it is not there. */
int scan_gone_is_again(int r);

/* One line without its newline. Cut to @size: for texts that only people read. */
int scan_value_read(Sysfs *s, const char *path, char *buf, size_t size);
/* A decimal number and nothing else, else -EBADMSG. */
int scan_number_read(Sysfs *s, const char *path, unsigned long max, unsigned long *ret);
int scan_mask_read(Sysfs *s, const char *path, ApMask *ret);

/* "A/B[/C]". -ENAMETOOLONG. */
int scan_path_join(char *buf, size_t size, const char *a, const char *b, const char *c);

/* Room for one more in an array that grows by doubling. */
int scan_array_reserve(void **array, size_t n, size_t size);

/* All of the AP bus but what mdevs have. */
int scan_ap(const HostScanner *c, Snapshot *s);
