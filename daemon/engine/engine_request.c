/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/engine_internal.h"

static int submit(Engine *e, Op *op, Refusal *reterr) {
        int r;

        if (!op)
                return -ENOMEM;

        r = op_admit(e, op, reterr);
        if (r != 0) {
                (void) op_free(op);
                return r;
        }
        op_begin(e, op);
        return 0;
}

static bool is_printable(const char *s) {
        for (; *s; s++)
                if (iscntrl((unsigned char) *s))
                        return false;
        return true;
}

static int check_matrix(const ApMatrix *m, Refusal *reterr) {
        if (ap_mask_is_empty(&m->adapters))
                return refuse(reterr, VERDICT_INVALID, 0, "a matrix needs at least one adapter");
        if (ap_mask_is_empty(&m->domains))
                return refuse(reterr, VERDICT_INVALID, 0, "a matrix needs at least one usage domain");
        return 0;
}

static int check_define(const EngineDefine *d, const char *name, Refusal *reterr) {
        Uuid uuid;

        if (!record_name_is_valid(name))
                return refuse(
                        reterr, VERDICT_INVALID, 0,
                        "'%.80s' is no name: 1 to %d letters, digits and '-_.:+', beginning with a letter or digit",
                        name, STORE_NAME_MAX);
        if (uuid_parse(name, &uuid) >= 0 && !uuid_equal(uuid, d->uuid) && d->name && d->name[0])
                return refuse(reterr, VERDICT_INVALID, 0, "the name is a UUID, but not that of this matrix");
        if (d->guest && d->guest[0] && !record_guest_is_valid(d->guest))
                return refuse(
                        reterr, VERDICT_INVALID, 0,
                        "the guest's name is longer than %d bytes, has control characters, or is not UTF-8",
                        STORE_GUEST_MAX);
        return check_matrix(&d->matrix, reterr);
}

int engine_define(Engine *e, const EngineDefine *d, const EngineCaller *c, engine_done_t done,
                  void *userdata, Refusal *reterr) {
        char text[UUID_STRING_SIZE];
        Uuid uuid = d->uuid;
        const char *name;
        Op *op;
        int r;

        if (uuid_is_null(uuid)) {
                r = uuid_random(&uuid);
                if (r < 0)
                        return r;
        }
        name = d->name && d->name[0] ? d->name : uuid_format(uuid, text);
        r = check_define(d, name, reterr);
        if (r != 0)
                return r;

        op = op_new(INTENT_DEFINE, uuid, c, done, userdata);
        if (!op)
                return -ENOMEM;
        op->has_record = true;
        op->start = d->start;
        op->record = (Record) {
                .uuid = uuid,
                .name = strdup(name),
                .guest = d->guest && d->guest[0] ? strdup(d->guest) : NULL,
                .unknown = d->unknown ? strdup(d->unknown) : NULL,
                .matrix = d->matrix,
                .autostart = d->autostart,
                .alternative = d->alternative,
                .from_host = d->from_host,
                .uid = c->uid,
        };
        if (!op->record.name || (d->guest && d->guest[0] && !op->record.guest) ||
            (d->unknown && !op->record.unknown)) {
                (void) op_free(op);
                return -ENOMEM;
        }
        return submit(e, op, reterr);
}

int engine_define_xml(Engine *e, const char *xml, size_t size, const EngineDefine *options,
                      const EngineCaller *c, engine_done_t done, void *userdata, Refusal *reterr) {
        CLEANUP(record_clear) Record rec = {};
        CLEANUP(freep) char *why = NULL;
        EngineDefine d;
        int r;

        r = record_from_xml(xml, size, &rec, &why);
        if (r == -EBADMSG)
                return refuse(reterr, VERDICT_INVALID, 0, "the XML is refused: %s",
                              why ?: "it cannot be read");
        if (r < 0)
                return r;

        d = (EngineDefine) {
                .name = rec.name,
                .uuid = rec.uuid,
                .matrix = rec.matrix,
                .guest = options->guest ?: rec.guest,
                .autostart = options->autostart || rec.autostart,
                .alternative = options->alternative || rec.alternative,
                .from_host = options->from_host || rec.from_host,
                .start = options->start,
                .unknown = rec.unknown,
        };
        return engine_define(e, &d, c, done, userdata, reterr);
}

int engine_start(Engine *e, Uuid uuid, bool from_host, const EngineCaller *c, engine_done_t done,
                 void *userdata, Refusal *reterr) {
        Op *op = op_new(INTENT_START, uuid, c, done, userdata);

        if (op)
                op->from_host = from_host;
        return submit(e, op, reterr);
}

int engine_stop(Engine *e, Uuid uuid, const EngineCaller *c, engine_done_t done, void *userdata,
                Refusal *reterr) {
        return submit(e, op_new(INTENT_STOP, uuid, c, done, userdata), reterr);
}

int engine_modify(Engine *e, Uuid uuid, const ApMatrix *m, const EngineCaller *c, engine_done_t done,
                  void *userdata, Refusal *reterr) {
        Op *op;
        int r;

        r = check_matrix(m, reterr);
        if (r != 0)
                return r;

        op = op_new(INTENT_MODIFY, uuid, c, done, userdata);
        if (op) {
                op->target = *m;
                op->autostart = -1;
        }
        return submit(e, op, reterr);
}

int engine_set_autostart(Engine *e, Uuid uuid, bool autostart, const EngineCaller *c, engine_done_t done,
                         void *userdata, Refusal *reterr) {
        Op *op = op_new(INTENT_MODIFY, uuid, c, done, userdata);

        if (op) {
                op->keep_matrix = true;
                op->autostart = autostart;
                op->fresh = true; /* nothing about the host is decided */
        }
        return submit(e, op, reterr);
}

int engine_undefine(Engine *e, Uuid uuid, bool stop, const EngineCaller *c, engine_done_t done,
                    void *userdata, Refusal *reterr) {
        Op *op = op_new(INTENT_UNDEFINE, uuid, c, done, userdata);

        if (op)
                op->stop = stop;
        return submit(e, op, reterr);
}

/* What is wrong with it: an attribute is a file in the mdev's own directory, and its value is carried by one write. */
static const char *attr_fault(const EngineAttr *a) {
        if (!a->name[0] || a->name[0] == '.' || strchr(a->name, '/') || !is_printable(a->name) ||
            strlen(a->name) >= PLAN_ATTR_NAME_SIZE)
                return "its name is not that of a file of the device";
        if (strcmp(a->name, "remove") == 0)
                return "'remove' would take the device away again";
        if (!a->value[0])
                return "its value is empty";
        if (strlen(a->value) >= PLAN_ATTR_VALUE_SIZE)
                return "its value is too long";
        if (!is_printable(a->value))
                return "its value has characters that cannot be printed";
        return NULL;
}

int engine_create_mdev(Engine *e, const char *parent, const char *type, Uuid uuid, const EngineAttr *attrs,
                       size_t n_attrs, const EngineCaller *c, engine_done_t done, void *userdata,
                       Refusal *reterr) {
        Op *op;
        int r;

        if (strlen(parent) >= SNAPSHOT_NAME_SIZE || strlen(type) >= SNAPSHOT_NAME_SIZE ||
            !is_printable(parent) || !is_printable(type))
                return refuse(reterr, VERDICT_NO_SUCH_PARENT, 0,
                              "there is no parent '%s' with a type '%s' on this host", parent, type);
        if (n_attrs > PLAN_STEPS_MAX - 1)
                return refuse(reterr, VERDICT_INVALID, 0, "more than %d attributes", PLAN_STEPS_MAX - 1);
        for (size_t i = 0; i < n_attrs; i++) {
                const char *fault = attr_fault(&attrs[i]);

                if (fault)
                        return refuse(reterr, VERDICT_INVALID, 0, "attribute %zu cannot be set: %s", i + 1,
                                      fault);
        }

        if (uuid_is_null(uuid)) {
                r = uuid_random(&uuid);
                if (r < 0)
                        return r;
        }
        op = op_new(INTENT_CREATE, uuid, c, done, userdata);
        if (!op)
                return -ENOMEM;

        (void) snprintf(op->parent, sizeof op->parent, "%s", parent);
        (void) snprintf(op->type, sizeof op->type, "%s", type);
        op->attrs = calloc(n_attrs + 1, sizeof *op->attrs);
        for (size_t i = 0; i < n_attrs && op->attrs; i++) {
                op->n_attrs = i + 1;
                op->attrs[i] =
                        (EngineAttr) { .name = strdup(attrs[i].name), .value = strdup(attrs[i].value) };
                if (!op->attrs[i].name || !op->attrs[i].value)
                        break;
        }
        if (!op->attrs || (n_attrs > 0 && (op->n_attrs < n_attrs || !op->attrs[n_attrs - 1].name ||
                                           !op->attrs[n_attrs - 1].value))) {
                (void) op_free(op);
                return -ENOMEM;
        }
        return submit(e, op, reterr);
}

int engine_remove_mdev(Engine *e, Uuid uuid, const EngineCaller *c, engine_done_t done, void *userdata,
                       Refusal *reterr) {
        return submit(e, op_new(INTENT_REMOVE, uuid, c, done, userdata), reterr);
}

int engine_set_host_masks(Engine *e, const ApMask *adapters, const ApMask *domains, const EngineCaller *c,
                          engine_done_t done, void *userdata, Refusal *reterr) {
        Op *op = op_new(INTENT_MASKS, (Uuid) {}, c, done, userdata);

        if (op) {
                op->apmask = *adapters;
                op->aqmask = *domains;
        }
        return submit(e, op, reterr);
}
