/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_execute.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/host_paths.h"
#include "host/host_step.h"

#define CREW_PLANS_MIN 4 /* for fewer it is not worth the threads */

static bool is_fatal(const StepContext *c, int r) {
        return r == SYSFS_NEVER || c->stopped;
}

/* The only queue that @step adds to its mdev. */
static bool only_queue(const PlanStep *step, Apqn *ret) {
        const ApMatrix *before = &step->assign.before, *after = &step->assign.after;
        unsigned n = 0;

        if (step->type != PLAN_ASSIGN)
                return false;

        AP_MASK_FOREACH(a, &after->adapters) {
                AP_MASK_FOREACH(d, &after->domains) {
                        Apqn q = { (uint8_t) a, (uint8_t) d };

                        if (ap_matrix_has(before, q))
                                continue;
                        if (++n > 1)
                                return false;
                        *ret = q;
                }
        }
        return n == 1;
}

/* Undoes what was done of the first @n steps, in reverse. All of it is tried: what cannot be undone because
 * something else could not, the kernel refuses. */
static int plan_roll_back(StepContext *c, const Plan *p, size_t n) {
        int result = 0;

        for (size_t i = n; i-- > 0;) {
                int r;

                c->step = i;
                r = step_undo(c, p, &p->steps[i]);
                if (is_fatal(c, r))
                        return r;
                if (r < 0 && result == 0)
                        result = r;
        }
        return result;
}

/* Of one that was checked. */
static int plan_carry_out(StepContext *c, const Plan *p, HostOutcome *o) {
        int error = 0, r;
        size_t i;

        o->verdict = HOST_STUCK;
        for (i = 0; i < p->n_steps; i++) {
                c->step = o->step = i;
                c->step_wrote = false;
                error = step_do(c, p, &p->steps[i]);
                if (is_fatal(c, error))
                        return error;
                if (error < 0)
                        break;
        }
        if (error >= 0) {
                *o = (HostOutcome) { .verdict = HOST_DONE };
                return 0;
        }

        if (!c->wrote) {
                /* found out at the last moment, by looking */
                if (error == STEP_CHANGED || error == STEP_IN_USE) {
                        HostMdev *m = error == STEP_IN_USE ? snapshot_find_mdev(c->s, p->uuid) : NULL;

                        if (m)
                                m->use = MDEV_USE_GUEST; /* until a scan finds that it is not */
                        *o = (HostOutcome) { .verdict = HOST_REFUSED,
                                             .plan = error == STEP_IN_USE ? PLAN_IN_USE : PLAN_CHANGED };
                        c->changed = error == STEP_CHANGED;
                        return 0;
                }
        }

        c->changed = true;
        r = plan_roll_back(c, p, c->step_wrote ? i + 1 : i);
        if (is_fatal(c, r))
                return r;

        *o = (HostOutcome) { .verdict = r < 0 ? HOST_BROKEN : HOST_KERNEL,
                             .step = i,
                             .error = error == STEP_IN_USE ? -EBUSY : error };
        o->has_apqn = only_queue(&p->steps[i], &o->apqn);
        return 0;
}

static int plan_run(StepContext *c, const Plan *p, HostOutcome *o) {
        PlanVerdict verdict;
        Apqn apqn = {};

        verdict = plan_check(p, c->s, &apqn);
        if (verdict != PLAN_OK) {
                *o = (HostOutcome) { .verdict = HOST_REFUSED,
                                     .plan = verdict,
                                     .apqn = apqn,
                                     .has_apqn = verdict == PLAN_OVERLAP || verdict == PLAN_HOST_OWNED };
                return 0;
        }
        return plan_carry_out(c, p, o);
}

/* Reads the host again; what is known of it helps. */
static int rescan(const HostScanner *first, Snapshot **s) {
        HostScanner scanner = *first;
        Snapshot *now;
        int r;

        if (*s)
                scanner.previous = *s;
        r = host_scan(&scanner, HOST_SCAN_BASIC, &now);
        if (r < 0)
                return r;

        (void) snapshot_free(*s);
        *s = now;
        return 0;
}

/* Brings the snapshot up to date after a plan that was carried out and verified: its own effects are known,
 * the wider ones of masks and of types that share their instances are read. */
static int follow(StepContext *c, const Plan *p) {
        bool queues = false;
        HostMdev *m;
        int r;

        r = plan_apply(p, c->s);
        if (r < 0)
                return r;
        m = snapshot_find_mdev(c->s, p->uuid);
        if (m)
                m->read_us = c->looked_us;

        for (size_t i = 0; i < p->n_steps; i++) {
                const PlanStep *step = &p->steps[i];
                const char *name = step->type == PLAN_CREATE   ? step->create.parent
                                   : step->type == PLAN_REMOVE ? step->remove.parent
                                                               : NULL;
                const HostParent *parent =
                        name && strcmp(name, HOST_PARENT_AP) != 0 ? snapshot_find_parent(c->s, name) : NULL;

                queues |= step->type == PLAN_MASKS || step->type == PLAN_OVERRIDE;
                if (parent) {
                        r = host_scan_available(c->sysfs, c->s, (uint32_t) (parent - c->s->parents));
                        if (r < 0)
                                return r;
                }
        }

        return queues ? host_scan_queues(c->sysfs, c->s) : 0;
}

/* Starts that follow each other in a batch take nothing from each other: each was checked on what the host is like after those before
 * it. So several threads carry them out, each the next one that is left. What one of them needs of the snapshot (parents, types, queues)
 * none of them changes. */
typedef struct Crew {
        const HostExecution *execution;
        const Plan *plans;
        HostOutcome *outcomes;
        StepContext *contexts; /* of all plans */
        Snapshot *s;
        size_t end;
        _Atomic(size_t) next;
        _Atomic(bool) stop; /* one of them must not go on, so none does */
} Crew;

static int crew_carry_out(Crew *w, const HostExecution *x) {
        size_t i;

        while (!atomic_load(&w->stop) && (i = atomic_fetch_add(&w->next, 1)) < w->end) {
                StepContext *c = &w->contexts[i];
                int r;

                *c = (StepContext) { .execution = x, .sysfs = x->scanner.sysfs, .s = w->s, .plan = i };
                r = plan_carry_out(c, &w->plans[i], &w->outcomes[i]);
                if (r >= 0 && x->ended)
                        r = x->ended(x->userdata, i, &w->outcomes[i]);
                if (r < 0) {
                        atomic_store(&w->stop, true);
                        return r;
                }
        }
        return 0;
}

static int crew_member(void *userdata, size_t member) {
        Crew *w = userdata;
        HostExecution x = *w->execution; /* with what is its own */

        if (member == 0) {
                int r = crew_carry_out(w, &x), waited = x.waits(x.userdata, true);

                return r < 0 ? r : waited;
        }

        x.scanner.sysfs = x.helpers[member - 1].sysfs;
        x.userdata = x.helpers[member - 1].userdata;
        return x.scanner.sysfs ? crew_carry_out(w, &x) : 0;
}

/* An AP mdev made anew. */
static bool is_start(const Plan *p, const Snapshot *s) {
        if (!s->has_ap_config || p->n_steps == 0 || p->steps[0].type != PLAN_CREATE ||
            strcmp(p->steps[0].create.parent, HOST_PARENT_AP) != 0)
                return false;

        for (size_t i = 1; i < p->n_steps; i++)
                if (p->steps[i].type != PLAN_ASSIGN)
                        return false;
        return true;
}

/* How many plans from @at on can go together. */
static size_t starts_from(const Plan *plans, size_t n, size_t at, const Snapshot *s) {
        size_t end = at;

        while (end < n && is_start(&plans[end], s))
                end++;
        return end - at;
}

/* Lets helpers carry out the plans from *at on that can go together, and moves *at to the first that was not tried. *changed: the host is
 * not as @s says. */
static int crew_run(const HostExecution *x, const Plan *plans, size_t n, Snapshot *s, HostOutcome *outcomes,
                    size_t *at, bool *changed) {
        CLEANUP(freep)
        StepContext *contexts = NULL;
        size_t first = *at, end = first + starts_from(plans, n, first, s);
        Crew w = { .execution = x, .plans = plans, .outcomes = outcomes, .s = s, .next = first };
        int r;

        if (!x->gang || end - first < CREW_PLANS_MIN)
                return 0;
        contexts = calloc(n, sizeof *contexts);
        if (!contexts)
                return 0;

        for (size_t i = first; i < end; i++) {
                Apqn apqn;

                if (plan_check(&plans[i], s, &apqn) != PLAN_OK || plan_apply(&plans[i], s) < 0)
                        end = i;
        }
        if (end == first)
                return 0;
        w.contexts = contexts;
        w.end = end;
        *at = end;
        r = gang_work(x->gang, crew_member, &w);
        if (r >= 0)
                r = x->waits(x->userdata, false);

        for (size_t i = first; i < end && r >= 0; i++) {
                HostMdev *m = snapshot_find_mdev(s, plans[i].uuid);
                char path[HOST_PATH_SIZE];

                if (outcomes[i].verdict != HOST_DONE || !m) {
                        *changed = true;
                        continue;
                }
                m->read_us = contexts[i].looked_us;
                if (contexts[i].sysfs != x->scanner.sysfs && x->scanner.sysfs->ops->take &&
                    host_scan_mdev_path(snapshot_parent_of(s, m)->path, m->uuid, "ap_config", path,
                                        sizeof path) >= 0)
                        x->scanner.sysfs->ops->take(x->scanner.sysfs, contexts[i].sysfs, path);
        }
        return r;
}

int host_execute(const HostExecution *x, const Plan *plans, size_t n, HostOutcome *outcomes,
                 Snapshot **ret_after) {
        CLEANUP(snapshot_freep)
        Snapshot *s = NULL;
        HostScanner scanner = x->scanner;
        bool changed = false;
        int r;

        for (size_t i = 0; i < n; i++)
                outcomes[i] = (HostOutcome) { .verdict = HOST_SKIPPED };

        r = rescan(&scanner, &s);
        if (r >= 0 && x->looked)
                r = x->looked(x->userdata);
        if (r < 0)
                return r;
        if (r > 0)
                n = 0;
        /* what we do ourselves moves both, and what has to be looked at again is not what was read before */
        scanner.quiet = scanner.quiet_mdevs = false;
        scanner.recent_us = 0;

        for (size_t i = 0; i < n; i++) {
                StepContext c = { .execution = x, .sysfs = scanner.sysfs, .s = s, .plan = i };

                if (!changed) {
                        r = crew_run(x, plans, n, s, outcomes, &i, &changed);
                        if (r < 0)
                                return r;
                        if (i == n)
                                break;
                        c.plan = i;
                }
                if (changed) { /* not as the snapshot says any more */
                        r = rescan(&scanner, &s);
                        if (r == SYSFS_NEVER)
                                return r;
                        if (r < 0) {
                                outcomes[i] =
                                        (HostOutcome) { .verdict = HOST_REFUSED, .plan = PLAN_CHANGED };
                                if (x->ended && (r = x->ended(x->userdata, i, &outcomes[i])) < 0)
                                        return r;
                                continue;
                        }
                        c.s = s;
                        changed = false;
                }

                r = plan_run(&c, &plans[i], &outcomes[i]);
                if (r < 0)
                        return r;
                if (outcomes[i].verdict == HOST_DONE && c.wrote)
                        r = follow(&c, &plans[i]);
                if (r == SYSFS_NEVER)
                        return r;
                changed = c.changed || r < 0;
                for (size_t k = 0; k < plans[i].n_steps; k++) /* may be where none was before */
                        scanner.overrides |= changed && plans[i].steps[k].type == PLAN_OVERRIDE;

                r = x->ended ? x->ended(x->userdata, i, &outcomes[i]) : 0;
                if (r < 0)
                        return r;
        }

        if (changed) {
                r = rescan(&scanner, &s);
                if (r == SYSFS_NEVER)
                        return r;
                if (r < 0)
                        s = snapshot_free(s);
        }

        *ret_after = TAKE(s);
        return 0;
}
