/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* virt_conn - guestcryptd-virt's connection to libvirt, kept up, and what it tells the daemon of the guests there are. One
 * thread: libvirt's default event loop, and calls that block. */

#include <json-c/json.h>
#include <libvirt/libvirt.h>

#include "virt/virt.h"

typedef struct Conn Conn;

/* Opens @uri as soon as the event loop runs, and again whenever it is lost. @fd: where messages are written to. */
int conn_new(const char *uri, int fd, Conn **ret);
Conn *conn_free(Conn *c);

/* NULL while there is none. */
virConnectPtr conn_libvirt(const Conn *c);
const char *conn_uri(const Conn *c);

/* Ends the process if nobody listens any more. */
void conn_send(Conn *c, json_object *message);

/* Reads the guest anew and tells of it, where it was not @asked for only if that changed anything: who asks may believe
 * otherwise by now. false: it could not be read. */
bool conn_refresh(Conn *c, Uuid guest, bool asked);
/* The same of the guest with this name, or uuid's text, if there is one; connects first where that is possible. */
bool conn_find(Conn *c, const char *name);

/* libvirt's last error as one line, with its code; valid until the next call. */
const char *conn_error(Conn *c);
/* Whether libvirt's last error means that the connection is lost. */
bool conn_is_lost(Conn *c);
