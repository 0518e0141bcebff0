/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Definitions that go from mdevctl to us, or from us to mdevctl. Never are there two owners, and never none:
 *
 *   import: mdevctl's file aside -> our definition on the disk -> no file
 *   export: new file aside -> our definition gone from the disk -> mdevctl's file
 *
 * Whatever was interrupted is decided by our store: what it has is ours, what it has not is mdevctl's. One at a time. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "engine/engine_internal.h"
#include "engine/engine_mdevctl.h"

typedef enum HandStep { HAND_LOAD, HAND_TAKE, HAND_OFFER, HAND_GIVE, HAND_DROP } HandStep;

struct HandOver {
        Engine *engine;
        HandOver *next;
        bool import, dry_run, force, alternative, from_host;
        bool again; /* imported before, but mdevctl still, or again, has it */
        Uuid uuid;
        char *name;
        uid_t uid;
        char caller[ENGINE_CALLER_SIZE];
        engine_done_t imported;
        engine_exported_t exported;
        void *userdata;

        uint64_t arrived;
        bool working, reserved;
        Work work;
        HandStep step;
        int root_fd;
        MdevctlFile file;    /* import */
        const char *problem; /* with it */
        char *json;          /* export */
        int r;               /* what to answer when it is where it belongs */
        Refusal refusal;
};

static HandOver *hand_free(HandOver *h) {
        mdevctl_file_clear(&h->file);
        refusal_clear(&h->refusal);
        free(h->name);
        free(h->json);
        free(h);
        return NULL;
}

/* ---- on the file worker ---- */

static int hand_run(Work *w) {
        HandOver *h = CONTAINER_OF(w, HandOver, work);

        switch (h->step) {
        case HAND_LOAD:
                return mdevctl_load(h->root_fd, h->uuid, &h->file, &h->problem);
        case HAND_TAKE:
                return mdevctl_take(h->root_fd, h->uuid, &h->file, &h->problem);
        case HAND_OFFER:
                return mdevctl_offer(h->root_fd, h->uuid, h->json);
        case HAND_GIVE:
                return mdevctl_give(h->root_fd, h->uuid);
        default:
                return mdevctl_drop(h->root_fd, h->uuid);
        }
}

static void hand_done(Work *w, int r);

static void hand_begin(HandOver *h, HandStep step) {
        h->step = step;
        h->work = (Work) { .run = hand_run, .done = hand_done };
        h->working = true;
        if (worker_submit(h->engine->worker, &h->work) < 0) { /* cannot be: there is room for one of ours */
                h->working = false;
                hand_done(&h->work, -EBUSY);
        }
}

/* ---- the end ---- */

static void hand_finish(HandOver *h) {
        Engine *e = h->engine;
        const Refusal *refusal = h->r > 0 ? &h->refusal : NULL;

        e->handing = NULL;
        if (h->reserved)
                mdevctl_release(e, h->uuid);
        engine_discharge(e, h->caller);
        if (h->import)
                h->imported(h->userdata, h->r, refusal, h->uuid);
        else
                h->exported(h->userdata, h->r, refusal, h->uuid, h->json);
        (void) hand_free(h);
        hand_step(e);
}

static void hand_refuse(HandOver *h, int r) {
        h->r = r;
        hand_finish(h);
}

/* The definition is where it belongs, but the file is still where it was aside. */
static void hand_stranded(HandOver *h, int error) {
        char text[UUID_STRING_SIZE];

        log_error(
                "Definition %s lies aside in etc/mdevctl.d, the next start of the daemon puts it in its place: %s",
                uuid_format(h->uuid, text), strerror(-error));
        if (h->r == 0 && !h->import)
                h->r = refuse(
                        &h->refusal, VERDICT_BACKEND, error,
                        "%s is not guestcrypt's any more, but could not be put in its place for mdevctl (%s); "
                        "the next start of guestcryptd does it",
                        uuid_format(h->uuid, text), strerror(-error));
}

/* ---- our definition ---- */

/* What op_finish() tells. */
static void on_operated(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        HandOver *h = userdata;

        h->r = r;
        if (r > 0) {
                h->refusal = (Refusal) { .verdict = refusal->verdict, .error = refusal->error };
                h->refusal.text = refusal->text ? strdup(refusal->text) : NULL;
        }
        if (h->engine->closing)
                return;
        hand_begin(h, h->import == (r == 0) ? HAND_DROP : HAND_GIVE);
}

static void no_answer(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
}

/* The operation that makes it ours; NULL: out of memory. */
static Op *import_op(HandOver *h, engine_done_t done) {
        CLEANUP(freep) char *plain = NULL;
        char text[UUID_STRING_SIZE];
        const char *name = h->name ?: uuid_format(h->uuid, text);
        MdevctlFile canonical = {};
        const char *problem;
        Op *op = op_new(INTENT_DEFINE, h->uuid, NULL, done, h);

        if (!op)
                return NULL;
        op->hand = op->has_record = true;
        op->record = (Record) {
                .uuid = h->uuid,
                .name = strdup(name),
                .matrix = h->file.d.matrix,
                .autostart = h->file.d.autostart,
                .alternative = h->alternative,
                .from_host = h->from_host,
                .uid = h->uid,
        };
        /* what we would write anyway need not be kept */
        if (!op->record.name || mdevctl_format(&h->file.d, NULL, &plain) < 0 ||
            mdevctl_parse(plain, strlen(plain), &canonical, &problem) < 0)
                return op_free(op);
        if (strcmp(canonical.json, h->file.json) != 0) {
                op->record.mdevctl = strdup(h->file.json);
                if (!op->record.mdevctl)
                        op = op_free(op);
        }
        mdevctl_file_clear(&canonical);
        return op;
}

static int refuse_import(HandOver *h, const char *why) {
        char text[UUID_STRING_SIZE];

        return refuse(&h->refusal, VERDICT_UNSUPPORTED, 0,
                      "mdevctl's definition %s cannot be taken over: %s; nothing was changed",
                      uuid_format(h->uuid, text), why);
}

/* What of it we could not keep, or not do. */
static int check_file(HandOver *h) {
        CLEANUP(freep) char *why = NULL, *xml = NULL;
        Op *op;
        int r;

        if (h->file.odd) {
                if (asprintf(&why, "it writes '%s', which is no part of a matrix", h->file.odd) < 0)
                        return -ENOMEM;
                return refuse_import(h, why);
        }
        if (ap_mask_is_empty(&h->file.d.matrix.adapters))
                return refuse_import(h, "it has no adapter, and here a matrix needs one");
        if (ap_mask_is_empty(&h->file.d.matrix.domains))
                return refuse_import(h, "it has no usage domain, and here a matrix needs one");

        op = import_op(h, no_answer);
        if (!op)
                return -ENOMEM;
        r = record_to_xml(&op->record, &xml);
        if (r == -EINVAL)
                r = refuse_import(h, !record_name_is_valid(op->record.name)
                                             ? "the name that was given is none"
                                             : "it is too long, or has characters that XML cannot hold");
        (void) op_free(op);
        return r;
}

static bool is_same(const Matrix *m, const MdevctlDefinition *d) {
        return ap_matrix_equal(&d->matrix, &m->rec.matrix) && d->autostart == m->rec.autostart;
}

static int refuse_other(HandOver *h, const Matrix *m) {
        char text[UUID_STRING_SIZE];

        return refuse(
                &h->refusal, VERDICT_EXISTS, 0,
                "%s is matrix '%s' already, and mdevctl's definition of that UUID is another one; undefine "
                "one of them",
                uuid_format(h->uuid, text), m->rec.name);
}

static void import_taken(HandOver *h) {
        const Matrix *m = h->again ? state_find(h->engine, h->uuid) : NULL;
        Op *op;
        int r;

        if (m && is_same(m, &h->file.d))
                return hand_begin(h, HAND_DROP);
        if (m) {
                h->r = refuse_other(h, m);
                return hand_begin(h, HAND_GIVE);
        }
        r = check_file(h);
        if (r == 0) {
                op = import_op(h, on_operated);
                if (op)
                        return op_begin(h->engine, op);
                r = -ENOMEM;
        }
        h->r = r;
        hand_begin(h, HAND_GIVE);
}

/* Whether it could be done now. */
static void import_tried(HandOver *h) {
        Engine *e = h->engine;
        Op *op = NULL;
        int r;

        r = check_file(h);
        if (r == 0) {
                op = import_op(h, no_answer);
                r = op ? request_decide(e, op, &h->refusal) : -ENOMEM;
                if (r == 0)
                        request_release(e, op);
        }
        if (op)
                (void) op_free(op);
        hand_refuse(h, r);
}

static void hand_done(Work *w, int r) {
        HandOver *h = CONTAINER_OF(w, HandOver, work);
        Engine *e = h->engine;
        char text[UUID_STRING_SIZE];

        h->working = false;
        if (e->closing)
                return;

        uuid_format(h->uuid, text);
        if (r < 0 && (h->step == HAND_GIVE || h->step == HAND_DROP)) {
                hand_stranded(h, r);
                return hand_finish(h);
        }
        if (r == -EBADMSG)
                return hand_refuse(h, refuse_import(h, h->problem));
        if (r == -ENOENT && h->import)
                return hand_refuse(h, refuse(&h->refusal, VERDICT_NO_SUCH_MATRIX, 0,
                                             "mdevctl has no definition %s any more", text));
        if (r == -EEXIST && h->step == HAND_OFFER)
                return hand_refuse(h, refuse(&h->refusal, VERDICT_EXISTS, 0,
                                             "mdevctl has a definition %s already", text));
        if (r < 0 && r != -ENOMEM)
                return hand_refuse(h,
                                   refuse(&h->refusal, VERDICT_BACKEND, r,
                                          "mdevctl's directory cannot be changed: %s; nothing was changed",
                                          strerror(-r)));
        if (r < 0)
                return hand_refuse(h, r);

        switch (h->step) {
        case HAND_LOAD:
                return import_tried(h);
        case HAND_TAKE:
                return import_taken(h);
        case HAND_OFFER: {
                Op *op = op_new(INTENT_UNDEFINE, h->uuid, NULL, on_operated, h);

                if (op) {
                        op->hand = true;
                        return op_begin(e, op);
                }
                h->r = -ENOMEM;
                return hand_begin(h, HAND_DROP);
        }
        default:
                return hand_finish(h);
        }
}

/* ---- the beginning ---- */

static void import_begin(HandOver *h) {
        Engine *e = h->engine;
        const MdevctlDefinition *d = mdevctl_find(e, h->uuid);
        const char *bad = mdevctl_find_bad(e, h->uuid);
        const Matrix *m = state_find(e, h->uuid);
        char text[UUID_STRING_SIZE];
        int r;

        if (m && d && !is_same(m, d))
                return hand_refuse(h, refuse_other(h, m));
        if (m && m->visible && !d && !bad) /* it has been imported */
                return hand_finish(h);
        h->again = m;
        if (bad)
                return hand_refuse(h, refuse_import(h, bad));
        if (!d)
                return hand_refuse(h, refuse(&h->refusal, VERDICT_NO_SUCH_MATRIX, 0,
                                             "mdevctl has no definition %s of an AP matrix",
                                             uuid_format(h->uuid, text)));
        if (h->dry_run && h->again)
                return hand_finish(h);
        if (h->dry_run)
                return hand_begin(h, HAND_LOAD);

        r = mdevctl_reserve(e, h->uuid, &d->matrix);
        if (r < 0)
                return hand_refuse(h, r);
        h->reserved = true;
        hand_begin(h, HAND_TAKE);
}

/* What mdevctl has no place for, as words; "" if nothing. */
static int left_behind(const Matrix *m, char **ret) {
        char text[UUID_STRING_SIZE];

        return asprintf(ret, "%s%s%s%s%s%s%s%s",
                        strcmp(m->rec.name, uuid_format(m->rec.uuid, text)) != 0 ? ", its name" : "",
                        m->rec.guest ? ", that it is meant for guest '" : "", m->rec.guest ?: "",
                        m->rec.guest ? "'" : "", m->rec.alternative ? ", that it is an alternative" : "",
                        m->rec.from_host ? ", that it takes queues from the host" : "",
                        m->rec.uid != 0 ? ", whose user's it is" : "",
                        m->rec.unknown ? ", what others put into its XML" : "") < 0
                       ? -ENOMEM
                       : 0;
}

static int export_check(HandOver *h) {
        CLEANUP(freep) char *lost = NULL;
        MdevctlDefinition d;
        Matrix *m;
        int r;

        r = request_need_matrix(h->engine, h->uuid, &m, &h->refusal);
        if (r == 0)
                r = guests_need_not_named(h->engine, m, &h->refusal);
        if (r == 0)
                r = left_behind(m, &lost);
        if (r != 0)
                return r;
        if (*lost && !h->force)
                return refuse(&h->refusal, VERDICT_UNSUPPORTED, 0,
                              "matrix '%s' has what mdevctl has no place for: %s; --force gives that up",
                              m->rec.name, lost + 2);

        d = (MdevctlDefinition) { .autostart = m->rec.autostart, .matrix = m->rec.matrix };
        r = mdevctl_format(&d, m->rec.mdevctl, &h->json);
        if (r < 0 || h->dry_run)
                return r;
        r = mdevctl_reserve(h->engine, h->uuid, &m->rec.matrix);
        h->reserved = r >= 0;
        return r;
}

static void export_begin(HandOver *h) {
        int r = export_check(h);

        if (r != 0 || h->dry_run)
                return hand_refuse(h, r);
        hand_begin(h, HAND_OFFER);
}

static void on_looked(void *userdata, int r) {
        hand_step(userdata);
}

/* The next that waits, once the host and mdevctl's files have been looked at. */
void hand_step(Engine *e) {
        HandOver *h = e->hand_overs;
        int r;

        if (!h || e->handing || e->mdevctl_reading || e->mdevctl_wanted || e->closing ||
            h->arrived >= e->n_scanned)
                return;

        e->hand_overs = h->next;
        e->handing = h;
        r = mdevctl_need_not_reserved(e, h->uuid, &h->refusal);
        if (r != 0)
                hand_refuse(h, r);
        else if (h->import)
                import_begin(h);
        else
                export_begin(h);
}

static int submit(Engine *e, HandOver *h, const EngineCaller *c, Refusal *reterr) {
        HandOver **p = &e->hand_overs;
        int r;

        r = engine_admit(e, c->id, reterr);
        if (r != 0) {
                (void) hand_free(h);
                return r;
        }
        (void) snprintf(h->caller, sizeof h->caller, "%s", c->id);
        h->engine = e;
        h->uid = c->uid;
        h->root_fd = e->root_fd;
        h->arrived = e->n_scans;

        r = engine_wait_scan(e, on_looked, e);
        if (r < 0) {
                engine_discharge(e, h->caller);
                (void) hand_free(h);
                return r;
        }
        while (*p)
                p = &(*p)->next;
        *p = h;
        return 0;
}

int engine_mdevctl_import(Engine *e, Uuid uuid, const EngineImport *import, const EngineCaller *c,
                          engine_done_t done, void *userdata, Refusal *reterr) {
        bool named = import->name && *import->name;
        HandOver *h = calloc(1, sizeof *h);

        if (!h)
                return -ENOMEM;
        *h = (HandOver) {
                .import = true,
                .dry_run = import->dry_run,
                .alternative = import->alternative,
                .from_host = import->from_host,
                .uuid = uuid,
                .name = named ? strdup(import->name) : NULL,
                .imported = done,
                .userdata = userdata,
        };
        if (named && !h->name) {
                (void) hand_free(h);
                return -ENOMEM;
        }
        return submit(e, h, c, reterr);
}

int engine_mdevctl_export(Engine *e, Uuid uuid, bool force, bool dry_run, const EngineCaller *c,
                          engine_exported_t done, void *userdata, Refusal *reterr) {
        HandOver *h = calloc(1, sizeof *h);

        if (!h)
                return -ENOMEM;
        *h = (HandOver) {
                .dry_run = dry_run, .force = force, .uuid = uuid, .exported = done, .userdata = userdata
        };
        return submit(e, h, c, reterr);
}

/* ---- the daemon's beginning and end ---- */

static bool is_ours(void *userdata, Uuid uuid) {
        return state_find(userdata, uuid);
}

static void told(void *userdata, Uuid uuid, bool ours, int r) {
        char text[UUID_STRING_SIZE];

        uuid_format(uuid, text);
        if (r < 0)
                log_error("Definition %s lies aside in etc/mdevctl.d and cannot be put in its place: %s",
                          text, strerror(-r));
        else
                log_notice("Definition %s changed hands when the daemon was interrupted, it is %s", text,
                           ours ? "ours" : "mdevctl's");
}

int hand_recover(Engine *e) {
        int r = mdevctl_recover(e->root_fd, is_ours, told, e);

        return r == -ENOMEM ? r : 0; /* what cannot be put in its place keeps nothing else from working */
}

/* After the worker's end. */
void hand_end_all(Engine *e) {
        while (e->hand_overs) {
                HandOver *h = e->hand_overs;

                e->hand_overs = h->next;
                (void) hand_free(h);
        }
        if (e->handing)
                e->handing = hand_free(e->handing);
}
