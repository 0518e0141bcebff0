/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/engine_internal.h"

/* ---- lists of lines ---- */

char **strv_free(char **lines) {
        for (char **l = lines; l && *l; l++)
                free(*l);
        free(lines);
        return NULL;
}

int strv_addf(char ***lines, const char *format, ...) {
        size_t n = 0;
        char **grown, *line;
        va_list ap;
        int r;

        while (*lines && (*lines)[n])
                n++;

        va_start(ap, format);
        r = vasprintf(&line, format, ap);
        va_end(ap);
        if (r < 0)
                return -ENOMEM;

        grown = reallocarray(*lines, n + 2, sizeof *grown);
        if (!grown) {
                free(line);
                return -ENOMEM;
        }
        grown[n] = line;
        grown[n + 1] = NULL;
        *lines = grown;
        return 0;
}

bool strv_equal(char *const *a, char *const *b) {
        if (!a || !b)
                return (!a || !*a) && (!b || !*b);
        for (; *a && *b; a++, b++)
                if (strcmp(*a, *b) != 0)
                        return false;
        return !*a && !*b;
}

/* ---- refusals ---- */

int refuse(Refusal *reterr, Verdict verdict, int error, const char *format, ...) {
        va_list ap;
        char *text;
        int r;

        va_start(ap, format);
        r = vasprintf(&text, format, ap);
        va_end(ap);
        if (r < 0)
                return -ENOMEM;
        for (char *p = text; *p; p++) /* it may quote what a caller sent */
                if (iscntrl((unsigned char) *p))
                        *p = '?';

        free(reterr->text);
        *reterr = (Refusal) { .verdict = verdict, .error = error, .text = text };
        return verdict;
}

int refuse_store(const Engine *e, int error, Refusal *reterr) {
        if (e->store_failed)
                return refuse(reterr, VERDICT_BACKEND, error,
                              "the state directory cannot be written (%s); nothing was changed",
                              strerror(-error));
        return refuse(reterr, VERDICT_BACKEND, error,
                      "the runtime directory cannot be written (%s); nothing was changed; "
                      "if '/%s' can be written again, so will the marks of what is live",
                      strerror(-error), e->run_dir);
}

const char *text_error(int error) {
        switch (-error) {
        case ETIME:
                return "the kernel has not answered in time";
        case EHOSTDOWN:
                return "the process that works on /sys has ended, or too many of them hang in the kernel";
        case EBUSY:
                return "too much is asked of them at once";
        case EAGAIN:
                return "they keep changing while they are read";
        case ENODATA:
                return "what there is now is not shown";
        default:
                return strerror(-error);
        }
}

/* Whose it is, in the words of the bus. What is live by a definition of ours goes by the definition's
 * name. */
const char *text_owner(const Engine *e, const Conflict *c, const char **ret_kind,
                       char buf[static ENGINE_OWNER_SIZE]) {
        const Matrix *m = c->claim && c->layer == CLAIM_LAYER_MDEV ? state_find(e, c->claim->uuid) : NULL;
        char uuid[UUID_STRING_SIZE];

        if (c->verdict == CLAIM_NO_SUCH_ID) {
                *ret_kind = "limit";
                return strcpy(buf, "");
        }
        if (m && !c->claim->operation) {
                *ret_kind = "definition";
                (void) snprintf(buf, ENGINE_OWNER_SIZE, "%s", m->rec.name);
                return buf;
        }

        *ret_kind = conflict_owner_kind(c);
        (void) snprintf(buf, ENGINE_OWNER_SIZE, "%s", conflict_owner(c, uuid));
        return buf;
}

/* Turns them into what the bus gives away; an owner that holds an APQN in two layers is named once. */
EngineConflict *text_conflicts(Engine *e, const Conflict *conflicts, size_t *n) {
        EngineConflict *list = calloc(*n + 1, sizeof *list);
        size_t k = 0;

        for (size_t i = 0; list && i < *n; i++) {
                EngineConflict c = { .adapter = conflicts[i].apqn.adapter,
                                     .domain = conflicts[i].apqn.domain };
                bool again = false;

                (void) text_owner(e, &conflicts[i], &c.kind, c.owner);
                for (size_t j = k;
                     j > 0 && list[j - 1].adapter == c.adapter && list[j - 1].domain == c.domain; j--)
                        again |= strcmp(list[j - 1].kind, c.kind) == 0 &&
                                 strcmp(list[j - 1].owner, c.owner) == 0;
                if (!again)
                        list[k++] = c;
        }
        if (list)
                *n = k;
        return list;
}

static int refuse_above(Engine *e, const ClaimQuery *q, Refusal *reterr) {
        const Snapshot *s = e->snapshot;
        const struct {
                const char *what;
                const ApMask *ids;
                uint8_t max;
        } axes[] = {
                { "adapter", &q->matrix->adapters, s->max_adapter },
                { "domain", &q->matrix->domains, s->max_domain },
                { "control domain", &q->matrix->control, s->max_domain },
        };

        for (size_t i = 0; i < ELEMENTS(axes); i++) {
                unsigned id = ap_mask_next(axes[i].ids, axes[i].max + 1u);

                if (id < AP_IDS)
                        return refuse(reterr, VERDICT_NOT_INSTALLED, 0,
                                      "%s 0x%02x is above this machine's highest, 0x%02x", axes[i].what, id,
                                      axes[i].max);
        }
        return refuse(reterr, VERDICT_NOT_INSTALLED, 0, "an id is above this machine's highest");
}

/* "; free instead: ..." or "". */
static int suggestion(Engine *e, const ClaimQuery *q, char **ret) {
        char adapters[AP_MASK_LIST_SIZE], domains[AP_MASK_LIST_SIZE];
        ApMask a, d;
        int r;

        claim_suggest(e->claims, q, &e->snapshot->host_adapters, &e->snapshot->host_domains, &a, &d);
        ap_mask_format_list(&a, adapters);
        ap_mask_format_list(&d, domains);
        if (!adapters[0] && !domains[0])
                r = asprintf(ret, "; nothing is free on these adapters or with these domains");
        else if (!domains[0])
                r = asprintf(ret, "; free instead: adapters %s with these domains", adapters);
        else if (!adapters[0])
                r = asprintf(ret, "; free instead: domains %s on these adapters", domains);
        else
                r = asprintf(
                        ret,
                        "; free instead: adapters %s with these domains, or domains %s on these adapters",
                        adapters, domains);
        return r < 0 ? -ENOMEM : 0;
}

static size_t count_apqns(const Conflict *conflicts, size_t n) {
        size_t k = 0;

        for (size_t i = 0; i < n; i++)
                k += i == 0 || conflicts[i].apqn.adapter != conflicts[i - 1].apqn.adapter ||
                     conflicts[i].apqn.domain != conflicts[i - 1].apqn.domain;
        return k;
}

int refuse_conflicts(Engine *e, const ClaimQuery *q, Refusal *reterr) {
        CLEANUP(freep) char *instead = NULL;
        CLEANUP(freep) Conflict *conflicts = NULL;
        char apqn[APQN_STRING_SIZE], owner[ENGINE_OWNER_SIZE], more[64] = "";
        ClaimVerdict verdict = claim_check(e->claims, q);
        const Conflict *first = NULL;
        const char *kind;
        size_t n, others;
        int r;

        if (verdict == CLAIM_FREE)
                return 0;
        if (verdict == CLAIM_NO_SUCH_ID)
                return refuse_above(e, q, reterr);

        r = claim_conflicts(e->claims, q, &conflicts, &n);
        if (r < 0)
                return r;
        r = suggestion(e, q, &instead);
        if (r < 0)
                return r;

        for (size_t i = 0; i < n && !first; i++)
                if (conflicts[i].verdict == verdict)
                        first = &conflicts[i];
        if (!first)
                return -ENOTRECOVERABLE; /* claim_check() and claim_conflicts() disagree: a bug of ours */

        others = count_apqns(conflicts, n) - 1;
        if (others > 0)
                (void) snprintf(more, sizeof more, " (and %zu more of these queues %s taken)", others,
                                others == 1 ? "is" : "are");
        apqn_format(first->apqn, apqn);

        if (verdict == CLAIM_HOST_OWNED)
                return refuse(
                        reterr, VERDICT_HOST_OWNED, 0,
                        "%s is left to the host's own drivers%s; give it to guests with the host masks or take it "
                        "with from-host%s",
                        apqn, more, instead);

        (void) text_owner(e, first, &kind, owner);
        return refuse(reterr, VERDICT_OVERLAP, 0, "%s is held by %s '%s'%s%s%s", apqn,
                      strcmp(kind, "mdev") == 0        ? "mediated device"
                      : strcmp(kind, "mdevctl") == 0   ? "mdevctl's definition"
                      : strcmp(kind, "operation") == 0 ? "an operation under way on"
                                                       : kind,
                      owner,
                      first->claim && first->claim->everything
                              ? " (whose matrix this kernel does not show safely)"
                              : "",
                      more, instead);
}

/* ---- what the host answered ---- */

static const char *errno_name(int error) {
        return strerrorname_np(-error) ?: "?";
}

static const char *op_name(Engine *e, const Op *op, char buf[static UUID_STRING_SIZE]) {
        const Matrix *m = state_find(e, op->uuid);

        if (m)
                return m->rec.name;
        if (op->has_record)
                return op->record.name;
        if (op->kind == INTENT_HOST)
                return "what the host has";
        return uuid_is_null(op->uuid) ? "the host masks" : uuid_format(op->uuid, buf);
}

static const char *step_name(const Op *op, size_t step) {
        static const char *const names[] = {
                [PLAN_MASKS] = "setting the host masks",
                [PLAN_OVERRIDE] = "moving a queue between drivers",
                [PLAN_CREATE] = "creating the mediated device",
                [PLAN_ASSIGN] = "assigning the matrix",
                [PLAN_ATTR] = "setting an attribute",
                [PLAN_REMOVE] = "removing the mediated device",
        };

        return step < op->plan.n_steps ? names[op->plan.steps[step].type] : "the change";
}

int refuse_in_use(Engine *e, Uuid uuid, const char *what, const char *name, int error, Refusal *reterr) {
        const char *guest = engine_mdev_guest(e, uuid);

        if (*guest)
                return refuse(reterr, VERDICT_IN_USE, error,
                              "guest '%s' is running with %s '%s'; shut it down or detach it first", guest,
                              what, name);
        return refuse(reterr, VERDICT_IN_USE, error,
                      "a guest is running with %s '%s'; shut it down or detach it first", what, name);
}

static int refuse_plan(Engine *e, const Op *op, const HostOutcome *o, Refusal *reterr) {
        char buf[UUID_STRING_SIZE], apqn[APQN_STRING_SIZE];
        const char *name = op_name(e, op, buf);

        apqn_format(o->apqn, apqn);
        switch (o->plan) {
        case PLAN_IN_USE:
                return refuse_in_use(e, op->uuid, op->kind == INTENT_REMOVE ? "mediated device" : "matrix",
                                     name, -EBUSY, reterr);
        case PLAN_NO_INSTANCES:
                return refuse(reterr, VERDICT_NO_INSTANCES, 0, "the type has no instance left for '%s'",
                              name);
        case PLAN_NO_PARENT:
                return refuse(reterr, VERDICT_NO_SUCH_PARENT, 0, "the parent of '%s', or its type, is gone",
                              name);
        case PLAN_OVERLAP:
                return refuse(reterr, VERDICT_OVERLAP, 0,
                              "%s, wanted for '%s', keeps being taken by somebody else", apqn, name);
        case PLAN_HOST_OWNED:
                return refuse(reterr, VERDICT_HOST_OWNED, 0,
                              "%s, wanted for '%s', keeps going to the host's own drivers", apqn, name);
        default:
                return refuse(
                        reterr, VERDICT_BACKEND, 0,
                        "somebody else keeps changing what '%s' is about; nothing was changed, try again",
                        name);
        }
}

static int refuse_kernel(Engine *e, const Op *op, const HostOutcome *o, Refusal *reterr) {
        char buf[UUID_STRING_SIZE];
        const char *name = op_name(e, op, buf);
        Verdict verdict = VERDICT_KERNEL;
        const char *why = strerror(-o->error);
        const PlanStep *step = o->step < op->plan.n_steps ? &op->plan.steps[o->step] : NULL;
        Uuid mdev;
        Apqn q;

        if (step && step->type == PLAN_MASKS && o->error == -EINVAL)
                return host_refuse_masks(e, reterr);
        if (step && step->type == PLAN_MASKS && o->error == -EBUSY &&
            host_find_blocker(e, step, &q, &mdev)) {
                const Matrix *m = state_find(e, mdev);
                char apqn[APQN_STRING_SIZE], uuid[UUID_STRING_SIZE];

                return refuse(
                        reterr, VERDICT_OVERLAP, o->error,
                        "the kernel gives the host no adapter and no domain of which a mediated device has any queue: %s "
                        "is in use by %s '%s'; stop that first. Nothing was changed",
                        apqn_format(q, apqn), m ? "matrix" : "mediated device",
                        m ? m->rec.name : uuid_format(mdev, uuid));
        }

        switch (-o->error) {
        case EADDRINUSE:
                verdict = VERDICT_OVERLAP;
                why = "another mediated device has one of the queues";
                break;
        case EADDRNOTAVAIL:
                verdict = VERDICT_HOST_OWNED;
                why = "one of the queues is left to the host's own drivers";
                break;
        case EUSERS:
                verdict = VERDICT_NO_INSTANCES;
                why = "the type has no instance left";
                break;
        case EBUSY:
                verdict = VERDICT_IN_USE;
                why = "it is in use";
                break;
        }
        return refuse(reterr, verdict, o->error,
                      "the kernel refused %s for '%s': %s (%s); nothing was changed", step_name(op, o->step),
                      name, why, errno_name(o->error));
}

int refuse_outcome(Engine *e, const Op *op, const HostOutcome *o, Refusal *reterr) {
        char buf[UUID_STRING_SIZE];
        const char *name = op_name(e, op, buf);

        if (op->phase == OP_UNDO)
                return refuse(
                        reterr, VERDICT_BACKEND, op->refusal.error,
                        "the state directory cannot be written (%s), and '%s' could not be undone on the host yet; it is "
                        "finished or undone as soon as one of both can be",
                        strerror(-op->refusal.error), name);

        switch (o->verdict) {
        case HOST_REFUSED:
                return refuse_plan(e, op, o, reterr);
        case HOST_KERNEL:
                return refuse_kernel(e, op, o, reterr);
        case HOST_LOCKED:
                return refuse(
                        reterr, VERDICT_CONFIG_LOCKED, 0,
                        "process %d holds the AP configuration lock; nothing was changed for '%s', try again when it "
                        "has ended",
                        (int) o->holder, name);
        case HOST_BROKEN:
                return refuse(
                        reterr, VERDICT_KERNEL, o->error,
                        "the kernel refused %s for '%s' (%s), and undoing the steps before it failed too; it is undone "
                        "as soon as the kernel lets us",
                        step_name(op, o->step), name, errno_name(o->error));
        default:
                return refuse(
                        reterr, VERDICT_STUCK, -ETIME,
                        "%s for '%s' has not come back from the kernel in time; it is finished or undone as soon as it "
                        "does",
                        step_name(op, o->step), name);
        }
}
