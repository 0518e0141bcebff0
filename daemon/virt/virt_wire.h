/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* virt_wire - what the daemon and guestcryptd-virt say to each other: one JSON object a line, on a stream socket.
 *
 * To the child, one call at a time:
 *   {"call":"edit","id":N,"guest":UUID,"edit":KIND,...,"live":BOOL}   {"call":"refresh","id":N,"guest":UUID}
 * From it:
 *   {"event":"up"}   {"event":"down","why":TEXT}   {"event":"listed"}   {"event":"reboot","uuid":UUID}
 *   {"event":"gone","uuid":UUID}   {"event":"guest",...}
 *   {"event":"begun","id":N}: from here on the outcome is unknown if no "done" follows   {"event":"done","id":N,...} */

#include "base/json.h"
#include "virt/virt.h"

#define WIRE_LINE_MAX (256 * 1024)

typedef struct WireEdit {
        VirtEdit edit; /* its strings are the JSON object's */
        const char *swtpm_socket;
        bool live;
} WireEdit;

/* "" if there is none. */
const char *wire_string(const json_object *o, const char *name);
bool wire_bool(const json_object *o, const char *name);
uint64_t wire_number(const json_object *o, const char *name);
int wire_uuid(const json_object *o, const char *name, Uuid *ret);

/* A message with "event" or "call" set; NULL: no memory. */
json_object *wire_new(const char *key, const char *value);
/* @value NULL: nothing is added. 0 or -ENOMEM. */
int wire_add_string(json_object *o, const char *name, const char *value);
int wire_add_uuid(json_object *o, const char *name, Uuid id);
int wire_add_bool(json_object *o, const char *name, bool value);
int wire_add_number(json_object *o, const char *name, uint64_t value);

/* Into and out of a message. Getting: -EBADMSG if it makes no sense. */
int wire_put_guest(json_object *o, const VirtGuest *g);
int wire_get_guest(const json_object *o, VirtGuest *ret);
void virt_guest_clear(VirtGuest *g);
int wire_put_edit(json_object *o, const VirtEdit *edit, const char *swtpm_socket, bool live);
int wire_get_edit(const json_object *o, WireEdit *ret);
int wire_put_outcome(json_object *o, const VirtOutcome *outcome);
/* `text` is the object's. */
int wire_get_outcome(const json_object *o, VirtOutcome *ret);

/* Bytes on their way in or out. */
typedef struct WireLines {
        char *data;
        size_t size, capacity;
} WireLines;

void wire_lines_clear(WireLines *l);
int wire_lines_add(WireLines *l, const char *data, size_t size);
/* Appends the message and a newline. -EMSGSIZE above WIRE_LINE_MAX. */
int wire_lines_put(WireLines *l, json_object *o);
/* Takes the first line out: 1 with *ret (json_object_put()), 0: there is no whole one; -EBADMSG: it is no JSON object, or
 * longer than WIRE_LINE_MAX. */
int wire_lines_take(WireLines *l, json_object **ret);
/* Takes @n bytes away from the front. */
void wire_lines_drop(WireLines *l, size_t n);
