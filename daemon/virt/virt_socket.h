/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* virt_socket - whether there is a libvirt to connect to on this host, without its library: the sockets that the library would look for. */

#include <stdbool.h>

#define VIRT_SOCKET_DIR "/run/libvirt"

/* Whether @uri is of a system daemon on this host, and no socket of one is there. */
bool virt_socket_is_missing(const char *uri);

/* An inotify descriptor that becomes readable when one may have come. To be asked for before looking; -errno. */
int virt_socket_watch(void);
