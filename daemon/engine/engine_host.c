/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the host has of the machine's queues: some are reserved for guests, released again, and the masks persisted. What
 * is the smallest change core/host_change knows; here it becomes an operation, or a refusal that says who is in the way. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/timer.h"
#include "engine/engine_internal.h"

#define LOCK_TIMEOUT_US (10 * UINT64_C(1000000))
#define NAMED_MAX       8 /* definitions named in one refusal or note */

struct HostRequest {
        HostRequest *next, **link;
        Engine *engine;
        EngineHostWish wish;
        EngineHostReport report;
        char caller[ENGINE_CALLER_SIZE];
        uid_t uid;
        engine_host_changed_t done;
        void *userdata;
};

static void report_clear(EngineHostReport *r) {
        refusal_clear(&r->refusal);
        r->notes = strv_free(r->notes);
}

static void request_free(HostRequest *h) {
        *h->link = h->next;
        if (h->next)
                h->next->link = h->link;
        report_clear(&h->report);
        free(h);
}

static void request_answer(HostRequest *h, int r, const Refusal *refusal) {
        h->done(h->userdata, r, refusal, r == 0 ? &h->report : NULL);
        request_free(h);
}

/* ---- why not ---- */

int host_refuse_masks(Engine *e, Refusal *reterr) {
        char apqn[APQN_STRING_SIZE];
        Apqn q;

        if (!snapshot_find_override(e->snapshot, &q))
                return refuse(
                        reterr, VERDICT_BAD_STATE, -EINVAL,
                        "the kernel takes no masks although no queue has a driver override: an adapter was unplugged while "
                        "one of its queues had one, which the kernel counts until the next boot; driver overrides still "
                        "work");
        apqn_format(q, apqn);
        if (ap_mask_test(&e->snapshot->queue_alien[q.adapter], q.domain))
                return refuse(
                        reterr, VERDICT_BAD_STATE, -EINVAL,
                        "%s has a driver override that is not vfio_ap's, and the kernel takes no masks while there is "
                        "any; whoever has set it must clear it (an empty line to its driver_override)",
                        apqn);
        return refuse(
                reterr, VERDICT_BAD_STATE, -EINVAL,
                "%s is given to guests by driver override, and the kernel takes no masks while there is any; give such "
                "queues back first (guestcryptctl host-release)",
                apqn);
}

bool host_find_blocker(const Engine *e, const PlanStep *step, Apqn *ret_apqn, Uuid *ret_mdev) {
        ApMask adapters = ap_mask_and_not(&step->masks.apmask_after, &step->masks.apmask_before),
               domains = ap_mask_and_not(&step->masks.aqmask_after, &step->masks.aqmask_before);

        for (size_t i = 0; i < e->snapshot->n_mdevs; i++) {
                const HostMdev *m = &e->snapshot->mdevs[i];
                ApMask a = ap_mask_and(&m->matrix.adapters, &adapters),
                       d = ap_mask_and(&m->matrix.domains, &domains);

                if (!m->ap || !m->matrix_known || ap_matrix_n_queues(&m->matrix) == 0 ||
                    (ap_mask_is_empty(&a) && ap_mask_is_empty(&d)))
                        continue;
                if (ap_mask_is_empty(&a))
                        a = m->matrix.adapters;
                if (ap_mask_is_empty(&d))
                        d = m->matrix.domains;
                *ret_apqn = (Apqn) { (uint8_t) ap_mask_next(&a, 0), (uint8_t) ap_mask_next(&d, 0) };
                *ret_mdev = m->uuid;
                return true;
        }
        return false;
}

static int refuse_change(Engine *e, const EngineHostWish *w, HostChangeVerdict verdict, const HostChange *c,
                         Apqn q, Refusal *reterr) {
        char apqn[APQN_STRING_SIZE], adapters[AP_MASK_LIST_SIZE], domains[AP_MASK_LIST_SIZE], more[64] = "";
        const bool release = w->wish.release;
        ApMask a, d;

        apqn_format(q, apqn);
        switch (verdict) {
        case HOST_CHANGE_BLOCKED:
                return host_refuse_masks(e, reterr);
        case HOST_CHANGE_ALIEN:
                return refuse(
                        reterr, VERDICT_NOT_OURS, 0,
                        "%s has a driver override that is not vfio_ap's: somebody wants it where it is; whoever has set it "
                        "must clear it (an empty line to its driver_override)",
                        apqn);
        case HOST_CHANGE_NOT_FULL:
                a = AP_MASK_ALL;
                a = ap_mask_and_not(&a, &e->snapshot->apmask);
                d = AP_MASK_ALL;
                d = ap_mask_and_not(&d, &e->snapshot->aqmask);
                return refuse(
                        reterr, VERDICT_BAD_STATE, 0,
                        "the kernel takes driver overrides only while both masks are full, but adapters %s and domains "
                        "%s are masked away from the host; release them first, or use masks",
                        ap_mask_is_empty(&a) ? "none" : ap_mask_format_list(&a, adapters),
                        ap_mask_is_empty(&d) ? "none" : ap_mask_format_list(&d, domains));
        case HOST_CHANGE_NO_MEANS:
                return refuse(
                        reterr, VERDICT_UNSUPPORTED, 0,
                        "this kernel has no driver overrides of single queues (Linux 6.19 has); use masks");
        case HOST_CHANGE_ABSENT:
                return refuse(
                        reterr, VERDICT_UNSUPPORTED, 0,
                        "%s is not there now, and a driver override can only give away a queue that is; leave it out, or "
                        "use masks",
                        apqn);
        case HOST_CHANGE_OTHERS:
                if (c->n_others > 1)
                        (void) snprintf(more, sizeof more, " and %u more queues", c->n_others - 1);
                a = ap_mask_and_not(&c->apmask, &e->snapshot->apmask);
                d = ap_mask_and_not(&c->aqmask, &e->snapshot->aqmask);
                if (!release) {
                        a = ap_mask_and_not(&e->snapshot->apmask, &c->apmask);
                        d = ap_mask_and_not(&e->snapshot->aqmask, &c->aqmask);
                }
                return refuse(
                        reterr, VERDICT_HOST_OWNED, 0,
                        "masks move whole adapters or domains only: the smallest change (%s%s%s%s%s) would also %s "
                        "%s%s the host; ask for those too, or allow others (--take-others)",
                        ap_mask_is_empty(&a) ? "" : "adapters ",
                        ap_mask_is_empty(&a) ? "" : ap_mask_format_list(&a, adapters),
                        ap_mask_is_empty(&a) || ap_mask_is_empty(&d) ? "" : ", ",
                        ap_mask_is_empty(&d) ? "" : "domains ",
                        ap_mask_is_empty(&d) ? "" : ap_mask_format_list(&d, domains),
                        release ? "give" : "take", apqn,
                        release ? (*more ? strcat(more, " to") : " to")
                                : (*more ? strcat(more, " from") : " from"));
        case HOST_CHANGE_LAST:
                return refuse(
                        reterr, VERDICT_HOST_OWNED, 0,
                        "%s is the last queue with which the host's default domain 0x%02x can be used, and stays with the "
                        "host; --force takes it all the same",
                        apqn, q.domain);
        default:
                return 0;
        }
}

/* ---- who needs what goes back ---- */

typedef struct Needs {
        char text[NAMED_MAX * (ENGINE_OWNER_SIZE + 16) + 32];
        Apqn first;
        unsigned n;
        Uuid seen[NAMED_MAX];
} Needs;

static void needs_add(Needs *n, const Engine *e, const Conflict *c) {
        char owner[ENGINE_OWNER_SIZE];
        const char *kind;
        size_t used;

        for (unsigned i = 0; i < MIN(n->n, (unsigned) NAMED_MAX); i++)
                if (uuid_equal(n->seen[i], c->claim->uuid))
                        return;
        if (n->n == 0)
                n->first = c->apqn;
        if (n->n < NAMED_MAX) {
                (void) text_owner(e, c, &kind, owner);
                used = strlen(n->text);
                (void) snprintf(n->text + used, sizeof n->text - used, "%s%s '%s'", used > 0 ? ", " : "",
                                strcmp(kind, "mdevctl") == 0 ? "mdevctl's definition" : kind, owner);
                n->seen[n->n] = c->claim->uuid;
        } else if (n->n == NAMED_MAX)
                (void) strcat(n->text, " and others");
        n->n++;
}

/* Definitions that count on queues which the host would get; those that take theirs from the host at each start do not
 * mind, and are told apart. */
static int find_needs(Engine *e, const HostChange *c, Needs *ret, Needs *ret_from_host) {
        for (unsigned a = 0; a < AP_IDS; a++) {
                ApMatrix row = { .domains = ap_mask_or(&c->moved[a], &c->others[a]) };
                CLEANUP(freep) Conflict *conflicts = NULL;
                ClaimQuery q = { .matrix = &row,
                                 .layers = CLAIM_LAYER_BIT(CLAIM_LAYER_EXCLUSIVE) |
                                           CLAIM_LAYER_BIT(CLAIM_LAYER_ALTERNATIVE) |
                                           CLAIM_LAYER_BIT(CLAIM_LAYER_MDEVCTL) };
                size_t n;
                int r;

                row.domains = ap_mask_or(&row.domains, &c->absent[a]);
                if (ap_mask_is_empty(&row.domains))
                        continue;
                ap_mask_set(&row.adapters, (uint8_t) a);
                r = claim_conflicts(e->claims, &q, &conflicts, &n);
                if (r < 0)
                        return r;
                for (size_t i = 0; i < n; i++) {
                        const Matrix *m =
                                conflicts[i].claim ? state_find(e, conflicts[i].claim->uuid) : NULL;

                        if (conflicts[i].claim)
                                needs_add(m && m->rec.from_host ? ret_from_host : ret, e, &conflicts[i]);
                }
        }
        return 0;
}

static int note_release(Engine *e, const EngineHostWish *w, const HostChange *c, char ***notes,
                        Refusal *reterr) {
        Needs needs = {}, from_host = {};
        char apqn[APQN_STRING_SIZE];
        int r;

        r = find_needs(e, c, &needs, &from_host);
        if (r >= 0 && needs.n > 0 && !w->wish.force)
                return refuse(
                        reterr, VERDICT_OVERLAP, 0,
                        "%s is needed by %s, which could not be started then; undefine or modify that first, or --force",
                        apqn_format(needs.first, apqn), needs.text);
        if (r >= 0 && needs.n > 0)
                r = strv_addf(notes, "cannot be started any more, since %s goes to the host: %s",
                              apqn_format(needs.first, apqn), needs.text);
        if (r >= 0 && from_host.n > 0)
                r = strv_addf(notes, "takes it from the host again when it is started: %s", from_host.text);
        return r;
}

/* ---- deciding ---- */

static int note_change(const Engine *e, const EngineHostWish *w, const HostChange *c, char ***notes) {
        const Snapshot *s = e->snapshot;
        int r = 0;

        if (c->means == HOST_MEANS_ANY)
                return strv_addf(notes, w->wish.release ? "the host has all of these queues already"
                                                        : "the host has none of these queues");
        if (c->n_absent > 0 && !w->wish.release)
                r = strv_addf(notes, "%u of these queues %s not there now", c->n_absent,
                              c->n_absent == 1 ? "is" : "are");
        if (r >= 0 && c->means == HOST_MEANS_MASKS && e->loaded.keep_masks)
                r = strv_addf(notes, "guestcryptd sets the new masks at each boot, as it did the old ones");
        else if (r >= 0 && c->means == HOST_MEANS_MASKS)
                r = strv_addf(notes, "until the next boot; 'guestcryptctl host-persist' keeps the masks");
        else if (r >= 0)
                r = strv_addf(
                        notes,
                        "driver overrides last until the next boot, or until their adapter is unplugged");
        if (r >= 0 && c->means == HOST_MEANS_OVERRIDES && !w->wish.release)
                r = strv_addf(notes, "while there is an override the kernel takes no masks");
        if (r >= 0 && !s->vfio_ap && !w->wish.release)
                r = strv_addf(notes, "vfio_ap is not loaded: until it is, no driver has these queues");
        return r;
}

/* Of a release: the mdev that has one of the queues which the host would get. */
static int refuse_assigned(Engine *e, const Plan *p, Refusal *reterr) {
        char apqn[APQN_STRING_SIZE], owner[ENGINE_OWNER_SIZE];
        const char *kind;
        Conflict c;
        Apqn q;

        if (plan_check(p, e->snapshot, &q) != PLAN_OVERLAP)
                return 0;
        c = (Conflict) { .apqn = q, .verdict = CLAIM_OVERLAP, .layer = CLAIM_LAYER_MDEV };
        c.claim = claim_owner(e->claims, CLAIM_LAYER_MDEV, q);
        if (!c.claim)
                return refuse(reterr, VERDICT_OVERLAP, 0, "%s is in a mediated device; stop that first",
                              apqn_format(q, apqn));
        (void) text_owner(e, &c, &kind, owner);
        return refuse(reterr, VERDICT_OVERLAP, 0,
                      "%s would go to the host's drivers, but is in use by %s '%s'; stop that first",
                      apqn_format(q, apqn), strcmp(kind, "definition") == 0 ? "matrix" : "mediated device",
                      owner);
}

static int need_host(Engine *e, const EngineHostWish *w, Refusal *reterr) {
        const Snapshot *s = e->snapshot;
        unsigned adapter = ap_mask_next(&w->wish.matrix.adapters, s->max_adapter + 1u),
                 domain = ap_mask_next(&w->wish.matrix.domains, s->max_domain + 1u);

        if (e->scan_error < 0)
                return refuse(reterr, VERDICT_BACKEND, e->scan_error,
                              "the host's devices cannot be read: %s; nothing was changed",
                              text_error(e->scan_error));
        if (!s->ap)
                return refuse(reterr, VERDICT_BACKEND, 0, "this machine has no AP bus; nothing was changed");
        /* what is given back may be more than there is: all of it */
        if (!w->wish.release && adapter < AP_IDS)
                return refuse(reterr, VERDICT_NOT_INSTALLED, 0,
                              "adapter 0x%02x is above this machine's highest, 0x%02x", adapter,
                              s->max_adapter);
        if (!w->wish.release && domain < AP_IDS)
                return refuse(reterr, VERDICT_NOT_INSTALLED, 0,
                              "domain 0x%02x is above this machine's highest, 0x%02x", domain,
                              s->max_domain);
        return 0;
}

/* Fills the report and the plan. */
static int change_decide(Engine *e, HostRequest *h, Plan *plan, Refusal *reterr) {
        HostWish wish = h->wish.wish;
        EngineHostReport *report = &h->report;
        HostChangeVerdict verdict;
        bool has_apqn;
        Apqn q = {};
        int r;

        report_clear(report);
        *report = (EngineHostReport) { .apmask = e->snapshot->apmask, .aqmask = e->snapshot->aqmask };
        report->change = (HostChange) { .apmask = report->apmask, .aqmask = report->aqmask };
        r = need_host(e, &h->wish, reterr);
        if (r != 0)
                return r;

        wish.no_masks = e->masks_refused && wish.means != HOST_MEANS_MASKS; /* who insists may try */
        verdict = host_change(e->snapshot, &wish, &report->change, &q, &has_apqn);
        r = refuse_change(e, &h->wish, verdict, &report->change, q, reterr);
        if (r != 0)
                return r;

        r = host_change_plan(e->snapshot, &wish, &report->change, plan);
        if (r >= 0 && wish.release)
                r = refuse_assigned(e, plan, reterr);
        if (r == 0 && wish.release)
                r = note_release(e, &h->wish, &report->change, &report->notes, reterr);
        if (r == 0)
                r = note_change(e, &h->wish, &report->change, &report->notes);
        return r;
}

int host_decide(Engine *e, Op *op, Refusal *reterr) {
        int r;

        if (e->host_op && e->host_op != op)
                return refuse(
                        reterr, VERDICT_BAD_STATE, 0,
                        "another change of what the host has is under way; try again when it has ended");

        r = change_decide(e, op->host, &op->plan, reterr);
        if (r == 0)
                e->host_op = op;
        return r;
}

static void on_changed(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        request_answer(userdata, r, refusal);
}

static void dry_run(HostRequest *h) {
        CLEANUP(plan_clear) Plan plan = {};
        Refusal refusal = {};
        int r;

        r = change_decide(h->engine, h, &plan, &refusal);
        if (r == -E2BIG)
                r = refuse(&refusal, VERDICT_LIMIT_HIT, 0,
                           "more than %d queues would have to be moved one by one", PLAN_STEPS_MAX);
        h->report.refusal = refusal;
        request_answer(h, MIN(r, 0), NULL);
}

/* Only a scan in detail sees all overrides. */
static void on_scanned(void *userdata, int error) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        HostRequest *h = userdata;
        Engine *e = h->engine;
        EngineCaller caller = { .uid = h->uid, .id = h->caller };
        Op *op;
        int r;

        if (h->wish.dry_run)
                return dry_run(h);

        op = op_new(INTENT_HOST, (Uuid) {}, &caller, on_changed, h);
        if (!op)
                return request_answer(h, -ENOMEM, NULL);
        op->host = h;
        r = op_admit(e, op, &refusal);
        if (r != 0) {
                (void) op_free(op);
                return request_answer(h, r, &refusal);
        }
        op->fresh = true;
        op_begin(e, op);
}

int engine_change_host(Engine *e, const EngineHostWish *w, const EngineCaller *c, engine_host_changed_t done,
                       void *userdata, Refusal *reterr) {
        HostRequest *h;
        int r;

        if (ap_mask_is_empty(&w->wish.matrix.adapters) || ap_mask_is_empty(&w->wish.matrix.domains))
                return refuse(reterr, VERDICT_INVALID, 0,
                              "at least one adapter and one domain must be named");

        h = calloc(1, sizeof *h);
        if (!h)
                return -ENOMEM;
        h->engine = e;
        h->wish = *w;
        h->uid = c->uid;
        (void) snprintf(h->caller, sizeof h->caller, "%s", c->id ?: "");
        h->done = done;
        h->userdata = userdata;
        h->next = e->host_requests;
        h->link = &e->host_requests;
        if (h->next)
                h->next->link = &h->next;
        e->host_requests = h;
        r = engine_rescan(e, on_scanned, h);
        if (r < 0)
                request_free(h);
        return MIN(r, 0);
}

int host_problems(const Engine *e, char ***lines) {
        char apqn[APQN_STRING_SIZE];
        Apqn q;

        for (unsigned a = 0; a < AP_IDS; a++)
                if (!ap_mask_is_empty(&e->snapshot->queue_alien[a])) {
                        q = (Apqn) { (uint8_t) a, (uint8_t) ap_mask_next(&e->snapshot->queue_alien[a], 0) };
                        return strv_addf(
                                lines,
                                "%s has a driver override that is not vfio_ap's: the kernel takes no masks "
                                "while there is one",
                                apqn_format(q, apqn));
                }
        if (e->masks_refused && !snapshot_find_override(e->snapshot, &q))
                return strv_addf(
                        lines,
                        "the kernel takes no masks until the next boot: an adapter was unplugged while one of "
                        "its queues had a driver override");
        return 0;
}

/* ---- what is kept ---- */

struct RulesJob {
        RulesJob *next, **link;
        Work work;
        Engine *engine;
        bool persist, dry_run;
        bool waits; /* for another one's to have run */
        int root_fd;
        ApMask apmask, aqmask;
        EngineHostView view;
        pid_t holder; /* of the AP lock, if we did not get it */
        uint64_t deadline_us;
        sd_event_source *timer;
        engine_host_viewed_t done;
        void *userdata;
};

static void rules_job_free(RulesJob *job) {
        *job->link = job->next;
        if (job->next)
                job->next->link = job->link;
        sd_event_source_disable_unref(job->timer);
        host_rules_clear(&job->view.rules);
        free(job->view.text);
        strv_free(job->view.notes);
        free(job);
}

static void rules_answer(RulesJob *job, int r, const Refusal *refusal) {
        if (job->persist && !job->dry_run)
                job->engine->persisting = false;
        job->done(job->userdata, r, refusal, r == 0 ? &job->view : NULL);
        rules_job_free(job);
}

static int rules_run(Work *w) {
        RulesJob *job = CONTAINER_OF(w, RulesJob, work);

        if (!job->persist)
                return host_rules_read(job->root_fd, &job->view.rules, &job->view.text);
        return host_rules_persist(job->root_fd, &job->apmask, &job->aqmask, job->dry_run, &job->view.rules,
                                  &job->view.text, &job->view.changed, &job->holder);
}

static int note_rules(RulesJob *job) {
        const Engine *e = job->engine;
        const Snapshot *s = e->snapshot;
        EngineHostView *v = &job->view;
        unsigned given = 0;
        int r = 0;

        for (unsigned a = 0; a < AP_IDS; a++) {
                ApMask by_override = ap_mask_and(&s->queue_override[a], &s->queue_vfio[a]);

                given += ap_mask_count(&by_override);
        }
        if (v->rules.problem)
                r = strv_addf(&v->notes, "%s: %s", HOST_RULES_PATH, v->rules.problem);
        else if (!job->persist && v->rules.there &&
                 ((v->rules.has_apmask && !ap_mask_equal(&v->rules.apmask, &s->apmask)) ||
                  (v->rules.has_aqmask && !ap_mask_equal(&v->rules.aqmask, &s->aqmask))))
                r = strv_addf(&v->notes, "the masks are not those of %s, which are set at the next boot",
                              HOST_RULES_PATH);
        if (r >= 0 && v->kept &&
            (!ap_mask_equal(&v->kept_apmask, &s->apmask) || !ap_mask_equal(&v->kept_aqmask, &s->aqmask)))
                r = strv_addf(
                        &v->notes,
                        "guestcryptd sets other masks at each boot, after that file: adapters and domains of "
                        "SetHostMasks ('guestcryptctl masks')");
        if (r >= 0 && given > 0)
                r = strv_addf(
                        &v->notes,
                        "%u queue%s given to guests by driver override, which the file cannot keep: after a boot "
                        "the host has %s again",
                        given, given == 1 ? " is" : "s are", given == 1 ? "it" : "them");
        if (r >= 0)
                r = host_problems(e, &v->notes);
        return r;
}

static void view_host(RulesJob *job) {
        const Engine *e = job->engine;
        const Snapshot *s = e->snapshot;
        EngineHostView *v = &job->view;
        ApMask usable = {};
        Apqn q;

        v->kept = e->loaded.keep_masks;
        v->kept_apmask = e->loaded.apmask;
        v->kept_aqmask = e->loaded.aqmask;
        v->masks_refused = e->masks_refused && !snapshot_find_override(s, &q);
        if (s->default_domain >= 0)
                usable = host_usable(s, (uint8_t) s->default_domain);
        v->has_last = ap_mask_count(&usable) == 1;
        if (v->has_last)
                v->last = (Apqn) { (uint8_t) ap_mask_next(&usable, 0), (uint8_t) s->default_domain };
}

static int on_lock_again(sd_event_source *s, uint64_t usec, void *userdata);
static void rules_ran(Work *w, int r);
static void rules_done(RulesJob *job, int r);

/* One at a time: the worker has no room for as many as may be asked for, and others need it. */
static void rules_submit(RulesJob *job) {
        Engine *e = job->engine;

        job->waits = e->rules_run;
        if (job->waits)
                return;

        job->work = (Work) { .run = rules_run, .done = rules_ran };
        if (worker_submit(e->worker, &job->work) < 0)
                rules_done(job, -EBUSY);
        else
                e->rules_run = true;
}

static void rules_next(Engine *e) {
        while (!e->rules_run) {
                RulesJob *oldest = NULL;

                for (RulesJob *job = e->rules_jobs; job; job = job->next)
                        if (job->waits)
                                oldest = job;
                if (!oldest)
                        return;
                rules_submit(oldest);
        }
}

static void rules_ran(Work *w, int r) {
        RulesJob *job = CONTAINER_OF(w, RulesJob, work);
        Engine *e = job->engine;

        e->rules_run = false;
        if (e->closing)
                return;
        rules_done(job, r);
        rules_next(e);
}

static void rules_done(RulesJob *job, int r) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        Engine *e = job->engine;
        uint64_t now = 0;

        (void) sd_event_now(e->event, CLOCK_MONOTONIC, &now);
        if (r == HOST_RULES_LOCKED && now < job->deadline_us &&
            timer_after(e->event, &job->timer, HOST_RULES_RETRY_US, on_lock_again, job) >= 0)
                return;
        if (r == HOST_RULES_LOCKED)
                r = refuse(
                        &refusal, VERDICT_CONFIG_LOCKED, 0,
                        "process %d holds the AP configuration lock; %s was not changed, try again when it has ended",
                        (int) job->holder, HOST_RULES_PATH);
        else if (r < 0 && job->persist)
                r = refuse(&refusal, VERDICT_BACKEND, r, "%s cannot be written: %s", HOST_RULES_PATH,
                           strerror(-r));
        else if (r < 0)
                r = 0; /* shown as far as it is known */
        else if (r == HOST_RULES_UNUSABLE)
                r = refuse(&refusal, VERDICT_NOT_OURS, 0, "%s is left alone: %s", HOST_RULES_PATH,
                           job->view.rules.problem);
        else if (r == HOST_RULES_FULL)
                r = refuse(
                        &refusal, VERDICT_NOT_OURS, 0,
                        "%s is left alone: somebody's rules in it have the label 'end_ap', so that ours cannot be added",
                        HOST_RULES_PATH);

        if (r == 0) {
                view_host(job);
                r = note_rules(job);
        }
        rules_answer(job, r, &refusal);
}

static int on_lock_again(sd_event_source *s, uint64_t usec, void *userdata) {
        RulesJob *job = userdata;

        job->timer = sd_event_source_disable_unref(job->timer);
        rules_submit(job);
        return 0;
}

static void on_viewed(void *userdata, int error) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        RulesJob *job = userdata;
        Engine *e = job->engine;
        uint64_t now = 0;

        if (job->persist && (e->scan_error < 0 || !e->snapshot->ap))
                return rules_answer(
                        job,
                        e->scan_error < 0
                                ? refuse(&refusal, VERDICT_BACKEND, e->scan_error,
                                         "the host's devices cannot be read: %s; nothing was changed",
                                         text_error(e->scan_error))
                                : refuse(&refusal, VERDICT_BACKEND, 0,
                                         "this machine has no AP bus; nothing was changed"),
                        &refusal);

        (void) sd_event_now(e->event, CLOCK_MONOTONIC, &now);
        job->deadline_us = now + LOCK_TIMEOUT_US;
        job->apmask = e->snapshot->apmask;
        job->aqmask = e->snapshot->aqmask;
        rules_submit(job);
}

static int rules_begin(Engine *e, bool persist, bool dry_run, engine_host_viewed_t done, void *userdata) {
        RulesJob *job = calloc(1, sizeof *job);
        int r;

        if (!job)
                return -ENOMEM;
        job->engine = e;
        job->root_fd = e->root_fd;
        job->persist = persist;
        job->dry_run = dry_run;
        job->done = done;
        job->userdata = userdata;
        job->next = e->rules_jobs;
        job->link = &e->rules_jobs;
        if (job->next)
                job->next->link = &job->next;
        e->rules_jobs = job;
        r = engine_rescan(e, on_viewed, job);
        if (r < 0)
                rules_job_free(job);
        else if (persist && !dry_run)
                e->persisting = true;
        return MIN(r, 0);
}

int engine_view_host(Engine *e, engine_host_viewed_t done, void *userdata) {
        return rules_begin(e, false, false, done, userdata);
}

int engine_persist_host(Engine *e, bool dry_run, const EngineCaller *c, engine_host_viewed_t done,
                        void *userdata, Refusal *reterr) {
        if (e->persisting && !dry_run)
                return refuse(reterr, VERDICT_BAD_STATE, 0, "the masks are being persisted already");
        return rules_begin(e, true, dry_run, done, userdata);
}

void host_drain(Engine *e) {
        while (e->host_requests)
                request_free(e->host_requests);
        while (e->rules_jobs)
                rules_job_free(e->rules_jobs);
}
