/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "virt/virt_wire.h"

#define MDEVS_MAX    64
#define PROBLEMS_MAX 64
#define DEPTH_MAX    8

static const char *const edit_kinds[_VIRT_EDIT_MAX] = { "attach-matrix", "detach-matrix", "attach-tpm",
                                                        "detach-tpm" };

/* ---- members ---- */

static json_object *member(const json_object *o, const char *name, json_type type) {
        json_object *v;

        if (!json_object_object_get_ex(o, name, &v) || !json_object_is_type(v, type))
                return NULL;
        return v;
}

/* NULL if there is none. */
static const char *optional(const json_object *o, const char *name) {
        json_object *v = member(o, name, json_type_string);

        if (!v || strlen(json_object_get_string(v)) != (size_t) json_object_get_string_len(v))
                return NULL;
        return json_object_get_string(v);
}

const char *wire_string(const json_object *o, const char *name) {
        return optional(o, name) ?: "";
}

bool wire_bool(const json_object *o, const char *name) {
        json_object *v = member(o, name, json_type_boolean);

        return v && json_object_get_boolean(v);
}

uint64_t wire_number(const json_object *o, const char *name) {
        json_object *v = member(o, name, json_type_int);

        return v && json_object_get_int64(v) > 0 ? (uint64_t) json_object_get_int64(v) : 0;
}

int wire_uuid(const json_object *o, const char *name, Uuid *ret) {
        return uuid_parse(wire_string(o, name), ret) < 0 ? -EBADMSG : 0;
}

static int add(json_object *o, const char *name, json_object *v) {
        if (!v)
                return -ENOMEM;
        if (json_object_object_add(o, name, v) < 0) {
                (void) json_object_put(v);
                return -ENOMEM;
        }
        return 0;
}

int wire_add_string(json_object *o, const char *name, const char *value) {
        return value ? add(o, name, json_object_new_string(value)) : 0;
}

int wire_add_uuid(json_object *o, const char *name, Uuid id) {
        char text[UUID_STRING_SIZE];

        return wire_add_string(o, name, uuid_format(id, text));
}

int wire_add_bool(json_object *o, const char *name, bool value) {
        return value ? add(o, name, json_object_new_boolean(true)) : 0;
}

int wire_add_number(json_object *o, const char *name, uint64_t value) {
        return add(o, name, json_object_new_int64((int64_t) value));
}

json_object *wire_new(const char *key, const char *value) {
        json_object *o = json_object_new_object();

        if (o && wire_add_string(o, key, value) < 0) {
                (void) json_object_put(o);
                return NULL;
        }
        return o;
}

/* Collects the first error of many calls. */
static void also(int *r, int next) {
        if (*r >= 0)
                *r = next;
}

/* ---- guests ---- */

static int add_text(json_object *array, const char *text) {
        json_object *v = json_object_new_string(text);

        if (!v)
                return -ENOMEM;
        if (json_object_array_add(array, v) < 0) {
                (void) json_object_put(v);
                return -ENOMEM;
        }
        return 0;
}

static int put_uuids(json_object *o, const char *name, const Uuid *list, size_t n) {
        json_object *array = json_object_new_array();
        int r = array ? 0 : -ENOMEM;

        for (size_t i = 0; i < n; i++) {
                char text[UUID_STRING_SIZE];

                also(&r, r < 0 ? r : add_text(array, uuid_format(list[i], text)));
        }
        if (r < 0) {
                (void) json_object_put(array);
                return r;
        }
        return add(o, name, array);
}

static int put_wiring(json_object *guest, const char *name, const VirtWiring *w) {
        CLEANUP(json_putp) json_object *o = json_object_new_object();
        json_object *problems = json_object_new_array();
        int r = o ? 0 : -ENOMEM;

        also(&r, wire_add_uuid(o, "uuid", w->uuid));
        also(&r, wire_add_string(o, "name", w->name));
        also(&r, wire_add_string(o, "arch", w->arch));
        also(&r, wire_add_string(o, "type", w->type));
        also(&r, wire_add_string(o, "machine", w->machine));
        also(&r, wire_add_string(o, "emulator", w->emulator));
        also(&r, wire_add_string(o, "matrix", w->matrix));
        also(&r, wire_add_string(o, "tpm", w->tpm));
        also(&r, wire_add_string(o, "wish", tpm_model_name(w->tpm_wish)));
        also(&r, wire_add_string(o, "model", tpm_model_name(w->tpm_model)));
        also(&r, wire_add_string(o, "socket", w->tpm_socket));
        also(&r, wire_add_bool(o, "foreign", w->foreign_tpm));
        for (char **p = w->problems; problems && p && *p; p++)
                also(&r, add_text(problems, *p));
        if (!o) {
                (void) json_object_put(problems);
                return -ENOMEM;
        }
        also(&r, put_uuids(o, "mdevs", w->mdevs, w->n_mdevs));
        also(&r, put_uuids(o, "others", w->others, w->n_others));
        also(&r, add(o, "problems", problems));
        if (r < 0)
                return r;
        return add(guest, name, TAKE(o));
}

static int take_string(const json_object *o, const char *name, bool must, char **ret) {
        const char *s = optional(o, name);

        if (!s)
                return must ? -EBADMSG : 0;
        *ret = strdup(s);
        return *ret ? 0 : -ENOMEM;
}

static int take_model(const json_object *o, const char *name, TpmModel *ret) {
        *ret = tpm_model_from_name(wire_string(o, name));
        return *ret < _TPM_MODEL_MAX ? 0 : -EBADMSG;
}

static int take_uuids(const json_object *o, const char *name, Uuid **ret, size_t *ret_n) {
        json_object *a = member(o, name, json_type_array);
        size_t n = a ? json_object_array_length(a) : 0;

        if (!a || n > MDEVS_MAX)
                return -EBADMSG;
        if (n == 0)
                return 0;
        *ret = reallocarray(NULL, n, sizeof **ret);
        if (!*ret)
                return -ENOMEM;
        for (; *ret_n < n; (*ret_n)++) {
                json_object *v = json_object_array_get_idx(a, *ret_n);

                if (!json_object_is_type(v, json_type_string) ||
                    uuid_parse(json_object_get_string(v), &(*ret)[*ret_n]) < 0)
                        return -EBADMSG;
        }
        return 0;
}

static int take_problems(const json_object *o, VirtWiring *w) {
        json_object *a = member(o, "problems", json_type_array);
        size_t n = a ? json_object_array_length(a) : 0;

        if (!a || n > PROBLEMS_MAX)
                return -EBADMSG;
        if (n == 0)
                return 0;
        w->problems = calloc(n + 1, sizeof *w->problems);
        if (!w->problems)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                json_object *v = json_object_array_get_idx(a, i);

                if (!json_object_is_type(v, json_type_string))
                        return -EBADMSG;
                w->problems[i] = strdup(json_object_get_string(v));
                if (!w->problems[i])
                        return -ENOMEM;
        }
        return 0;
}

static int get_wiring(const json_object *guest, const char *name, VirtWiring *w) {
        const json_object *o = member(guest, name, json_type_object);
        int r;

        if (!o)
                return -EBADMSG;
        r = wire_uuid(o, "uuid", &w->uuid);
        also(&r, r < 0 ? r : take_string(o, "name", true, &w->name));
        also(&r, r < 0 ? r : take_string(o, "arch", true, &w->arch));
        also(&r, r < 0 ? r : take_string(o, "type", true, &w->type));
        also(&r, r < 0 ? r : take_string(o, "machine", true, &w->machine));
        also(&r, r < 0 ? r : take_string(o, "emulator", true, &w->emulator));
        also(&r, r < 0 ? r : take_string(o, "matrix", false, &w->matrix));
        also(&r, r < 0 ? r : take_string(o, "tpm", false, &w->tpm));
        also(&r, r < 0 ? r : take_string(o, "socket", false, &w->tpm_socket));
        also(&r, r < 0 ? r : take_model(o, "wish", &w->tpm_wish));
        also(&r, r < 0 ? r : take_model(o, "model", &w->tpm_model));
        also(&r, r < 0 ? r : take_uuids(o, "mdevs", &w->mdevs, &w->n_mdevs));
        also(&r, r < 0 ? r : take_uuids(o, "others", &w->others, &w->n_others));
        also(&r, r < 0 ? r : take_problems(o, w));
        w->foreign_tpm = wire_bool(o, "foreign");
        return r;
}

void virt_guest_clear(VirtGuest *g) {
        free(g->name);
        free(g->lacks);
        virt_wiring_clear(&g->config);
        virt_wiring_clear(&g->live);
        *g = (VirtGuest) {};
}

int wire_put_guest(json_object *o, const VirtGuest *g) {
        int r;

        r = wire_add_uuid(o, "uuid", g->uuid);
        also(&r, wire_add_string(o, "name", g->name));
        also(&r, wire_add_number(o, "state", g->state));
        also(&r, wire_add_bool(o, "persistent", g->persistent));
        also(&r, wire_add_bool(o, "active", g->active));
        also(&r, wire_add_string(o, "lacks", g->lacks));
        if (g->persistent)
                also(&r, put_wiring(o, "config", &g->config));
        if (g->active)
                also(&r, put_wiring(o, "live", &g->live));
        return r;
}

int wire_get_guest(const json_object *o, VirtGuest *ret) {
        CLEANUP(virt_guest_clear) VirtGuest g = {};
        uint64_t state = wire_number(o, "state");
        int r;

        if (state >= _VIRT_STATE_MAX)
                return -EBADMSG;
        g.state = (VirtState) state;
        g.persistent = wire_bool(o, "persistent");
        g.active = wire_bool(o, "active");
        r = wire_uuid(o, "uuid", &g.uuid);
        if (r >= 0)
                r = take_string(o, "name", true, &g.name);
        if (r >= 0)
                r = take_string(o, "lacks", false, &g.lacks);
        if (r >= 0 && g.persistent)
                r = get_wiring(o, "config", &g.config);
        if (r >= 0 && g.active)
                r = get_wiring(o, "live", &g.live);
        if (r < 0)
                return r;

        *ret = g;
        g = (VirtGuest) {};
        return 0;
}

/* ---- edits ---- */

int wire_put_edit(json_object *o, const VirtEdit *edit, const char *swtpm_socket, bool live) {
        int r;

        r = wire_add_string(o, "edit", edit_kinds[edit->kind]);
        also(&r, wire_add_uuid(o, "mdev", edit->mdev));
        also(&r, wire_add_string(o, "name", edit->name));
        also(&r, wire_add_string(o, "model", tpm_model_name(edit->model)));
        also(&r, wire_add_string(o, "socket", edit->socket));
        also(&r, wire_add_string(o, "matrix", edit->matrix));
        also(&r, wire_add_string(o, "swtpm", swtpm_socket));
        also(&r, wire_add_bool(o, "live", live));
        return r;
}

int wire_get_edit(const json_object *o, WireEdit *ret) {
        const char *kind = wire_string(o, "edit");
        WireEdit e = { .edit = { .name = optional(o, "name"),
                                 .socket = optional(o, "socket"),
                                 .matrix = optional(o, "matrix") },
                       .swtpm_socket = optional(o, "swtpm"),
                       .live = wire_bool(o, "live") };
        int r;

        while (e.edit.kind < _VIRT_EDIT_MAX && strcmp(edit_kinds[e.edit.kind], kind) != 0)
                e.edit.kind++;
        if (e.edit.kind == _VIRT_EDIT_MAX)
                return -EBADMSG;
        r = wire_uuid(o, "mdev", &e.edit.mdev);
        if (r >= 0)
                r = take_model(o, "model", &e.edit.model);
        if (r >= 0)
                *ret = e;
        return r;
}

int wire_put_outcome(json_object *o, const VirtOutcome *outcome) {
        int r;

        r = wire_add_number(o, "verdict", outcome->verdict);
        also(&r, wire_add_bool(o, "config_changed", outcome->config_changed));
        also(&r, wire_add_bool(o, "live_changed", outcome->live_changed));
        also(&r, wire_add_bool(o, "next_start", outcome->next_start));
        also(&r, wire_add_bool(o, "unknown", outcome->unknown));
        also(&r, wire_add_string(o, "text", outcome->text));
        also(&r, wire_add_string(o, "model", tpm_model_name(outcome->model)));
        return r;
}

int wire_get_outcome(const json_object *o, VirtOutcome *ret) {
        uint64_t verdict = wire_number(o, "verdict");
        VirtOutcome outcome = { .verdict = (VirtVerdict) verdict,
                                .config_changed = wire_bool(o, "config_changed"),
                                .live_changed = wire_bool(o, "live_changed"),
                                .next_start = wire_bool(o, "next_start"),
                                .unknown = wire_bool(o, "unknown"),
                                .text = optional(o, "text") };
        int r;

        if (verdict >= _VIRT_VERDICT_MAX)
                return -EBADMSG;
        r = take_model(o, "model", &outcome.model);
        if (r >= 0)
                *ret = outcome;
        return r;
}

/* ---- lines ---- */

void wire_lines_clear(WireLines *l) {
        free(l->data);
        *l = (WireLines) {};
}

int wire_lines_add(WireLines *l, const char *data, size_t size) {
        if (l->capacity - l->size < size) {
                size_t capacity = 2 * l->capacity + size + 1024;
                char *bigger = realloc(l->data, capacity);

                if (!bigger)
                        return -ENOMEM;
                l->data = bigger;
                l->capacity = capacity;
        }
        memcpy(l->data + l->size, data, size);
        l->size += size;
        return 0;
}

int wire_lines_put(WireLines *l, json_object *o) {
        const char *text =
                json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
        int r;

        if (!text)
                return -ENOMEM;
        if (strlen(text) > WIRE_LINE_MAX)
                return -EMSGSIZE;
        r = wire_lines_add(l, text, strlen(text));
        return r < 0 ? r : wire_lines_add(l, "\n", 1);
}

void wire_lines_drop(WireLines *l, size_t n) {
        l->size -= n;
        memmove(l->data, l->data + n, l->size);
        if (l->size == 0 && l->capacity > 64 * 1024)
                wire_lines_clear(l);
}

static int parse_line(const char *line, size_t size, json_object **ret) {
        CLEANUP(json_putp) json_object *o = NULL;
        int r;

        r = json_read(line, size, DEPTH_MAX, &o);
        if (r < 0)
                return r;
        if (!json_object_is_type(o, json_type_object))
                return -EBADMSG;

        *ret = TAKE(o);
        return 1;
}

int wire_lines_take(WireLines *l, json_object **ret) {
        const char *newline = l->size > 0 ? memchr(l->data, '\n', l->size) : NULL;
        size_t size = newline ? (size_t) (newline - l->data) : l->size;
        int r;

        if (size > WIRE_LINE_MAX)
                return -EBADMSG;
        if (!newline)
                return 0;
        r = parse_line(l->data, size, ret);
        wire_lines_drop(l, size + 1);
        return r;
}
