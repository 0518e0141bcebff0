/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_step.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "host/host_matrix.h"
#include "host/host_paths.h"
#include "host/host_use.h"

#define QUEUE_RESET_US \
        50000 /* each moved queue is reset and waited for within the write; 25 ms were measured */

/* Tells that an access begins that may hang. */
static int access_begin(StepContext *c, const char *kind, const char *path, uint64_t allowance_us) {
        char what[HOST_PATH_SIZE + 16];
        HostAccess a = { .plan = c->plan, .step = c->step, .what = what, .allowance_us = allowance_us };
        int r;

        if (!c->execution->begin)
                return 0;

        (void) snprintf(what, sizeof what, "%s of %s", kind, path);
        r = c->execution->begin(c->execution->userdata, &a);
        c->stopped = r < 0;
        return r;
}

static int write_text(StepContext *c, const char *path, const char *data, uint64_t allowance_us) {
        int r;

        r = access_begin(c, "write", path, allowance_us);
        if (r < 0)
                return r;

        c->wrote = c->step_wrote = true;
        return c->sysfs->ops->write(c->sysfs, path, data, strlen(data));
}

/* Both masks as they are now. */
static int masks_read(StepContext *c, ApMask *ret_apmask, ApMask *ret_aqmask) {
        static const char *const paths[] = { HOST_PATH_APMASK, HOST_PATH_AQMASK };
        ApMask *masks[] = { ret_apmask, ret_aqmask };

        for (size_t i = 0; i < ELEMENTS(paths); i++) {
                char buf[128];
                ssize_t n = c->sysfs->ops->read(c->sysfs, paths[i], buf, sizeof buf);

                if (n < 0)
                        return (int) n;
                if (ap_mask_parse(buf, masks[i]) < 0)
                        return -EBADMSG;
        }
        return 0;
}

/* One relative write ("-3,-4" or "+3"): the kernel applies it atomically, so that bits which somebody else
 * changes at the same time stay as he wants them. */
static int mask_write(StepContext *c, const char *path, const ApMask *ids, char sign,
                      uint64_t allowance_us) {
        char buf[AP_IDS * 5];
        size_t n = 0;

        if (ap_mask_is_empty(ids))
                return 0;

        AP_MASK_FOREACH(id, ids)
                n += (size_t) snprintf(buf + n, sizeof buf - n, "%s%c%u", n > 0 ? "," : "", sign, id);

        return write_text(c, path, buf, allowance_us);
}

/* The adapter's queues that change sides. */
static ApMask masks_moved(const Snapshot *s, unsigned adapter, const ApMask *apmask, const ApMask *aqmask,
                          const ApMask *to_apmask, const ApMask *to_aqmask) {
        const ApMask none = {};
        const ApMask *before = ap_mask_test(apmask, (uint8_t) adapter) ? aqmask : &none;
        const ApMask *after = ap_mask_test(to_apmask, (uint8_t) adapter) ? to_aqmask : &none;
        ApMask gone = ap_mask_and_not(before, after), come = ap_mask_and_not(after, before);
        ApMask moved = ap_mask_or(&gone, &come);

        return ap_mask_and(&moved, &s->queue_present[adapter]);
}

/* How long moving the queues may take that change sides. */
static uint64_t masks_allowance(const Snapshot *s, const ApMask *apmask, const ApMask *aqmask,
                                const ApMask *to_apmask, const ApMask *to_aqmask) {
        uint64_t n = 0;

        for (unsigned a = 0; a < AP_IDS; a++) {
                ApMask moved = masks_moved(s, a, apmask, aqmask, to_apmask, to_aqmask);

                n += ap_mask_count(&moved);
        }
        return n * QUEUE_RESET_US;
}

/* Changes the bits that differ between *from_* and *to_*. Bits are cleared before others are set: between
 * two writes rather nobody has a queue than the wrong one. */
static int masks_write(StepContext *c, const ApMask *from_apmask, const ApMask *from_aqmask,
                       const ApMask *to_apmask, const ApMask *to_aqmask) {
        ApMask ap_clear = ap_mask_and_not(from_apmask, to_apmask),
               ap_set = ap_mask_and_not(to_apmask, from_apmask);
        ApMask aq_clear = ap_mask_and_not(from_aqmask, to_aqmask),
               aq_set = ap_mask_and_not(to_aqmask, from_aqmask);
        uint64_t allowance = masks_allowance(c->s, from_apmask, from_aqmask, to_apmask, to_aqmask);
        int r;

        r = mask_write(c, HOST_PATH_APMASK, &ap_clear, '-', allowance);
        if (r >= 0)
                r = mask_write(c, HOST_PATH_AQMASK, &aq_clear, '-', allowance);
        if (r >= 0)
                r = mask_write(c, HOST_PATH_APMASK, &ap_set, '+', allowance);
        if (r >= 0)
                r = mask_write(c, HOST_PATH_AQMASK, &aq_set, '+', allowance);
        return r;
}

/* @m with the bits in which @from and @to differ taken from @to. */
static ApMask mask_towards(const ApMask *m, const ApMask *from, const ApMask *to) {
        ApMask clear = ap_mask_and_not(from, to), set = ap_mask_and_not(to, from);
        ApMask t = ap_mask_and_not(m, &clear);

        return ap_mask_or(&t, &set);
}

static void queue_path(Apqn q, const char *name, char *buf, size_t size) {
        char id[APQN_STRING_SIZE];

        (void) snprintf(buf, size, HOST_PATH_AP_DEVICES "/%s/%s", apqn_format(q, id), name);
}

/* The last part of a link, "" if there is no link. */
static int link_name(StepContext *c, const char *path, char *buf, size_t size) {
        char target[HOST_PATH_SIZE];
        const char *slash;
        ssize_t n;

        n = c->sysfs->ops->readlink(c->sysfs, path, target, sizeof target);
        if (n == -ENOENT)
                target[0] = '\0';
        else if (n < 0)
                return (int) n;

        slash = strrchr(target, '/');
        if (strlen(slash ? slash + 1 : target) >= size)
                return -EBADMSG;
        (void) snprintf(buf, size, "%s", slash ? slash + 1 : target);
        return 0;
}

/* Gives a queue without a driver one, if there is one for it. */
static int queue_probe(StepContext *c, Apqn q) {
        char path[HOST_PATH_SIZE], driver[SNAPSHOT_NAME_SIZE], id[APQN_STRING_SIZE];
        int r;

        queue_path(q, "driver", path, sizeof path);
        r = link_name(c, path, driver, sizeof driver);
        if (r < 0 || driver[0])
                return r;
        r = write_text(c, HOST_PATH_AP_PROBE, apqn_format(q, id), QUEUE_RESET_US);
        return c->stopped ? r : 0; /* the queue may have gone, or nobody wants it */
}

/* The kernel does not reliably move a queue that had no driver when its side changed (docs/vfio-ap-behaviour.md). */
static int masks_probe(StepContext *c, const ApMask *from_apmask, const ApMask *from_aqmask,
                       const ApMask *to_apmask, const ApMask *to_aqmask) {
        char bindings[32];
        unsigned bound, all;
        ssize_t n;

        n = c->sysfs->ops->read(c->sysfs, HOST_PATH_BINDINGS, bindings, sizeof bindings);
        if (n < 0 || sscanf(bindings, "%u/%u", &bound, &all) != 2 || bound == all)
                return 0;

        for (unsigned a = 0; a < AP_IDS; a++) {
                ApMask moved = masks_moved(c->s, a, from_apmask, from_aqmask, to_apmask, to_aqmask);

                AP_MASK_FOREACH(d, &moved) {
                        int r = queue_probe(c, (Apqn) { (uint8_t) a, (uint8_t) d });

                        if (r < 0 && c->stopped)
                                return r;
                }
        }
        return 0;
}

/* Brings the bits in which @from and @to differ to @to, from however they are, and looks. */
static int masks_change(StepContext *c, const ApMask *from_apmask, const ApMask *from_aqmask,
                        const ApMask *to_apmask, const ApMask *to_aqmask) {
        ApMask apmask, aqmask, want_apmask, want_aqmask;
        int r;

        r = masks_read(c, &apmask, &aqmask);
        if (r < 0)
                return r;
        want_apmask = mask_towards(&apmask, from_apmask, to_apmask);
        want_aqmask = mask_towards(&aqmask, from_aqmask, to_aqmask);
        r = masks_write(c, &apmask, &aqmask, &want_apmask, &want_aqmask);
        if (r >= 0)
                r = masks_probe(c, &apmask, &aqmask, &want_apmask, &want_aqmask);
        if (r < 0)
                return r;

        r = masks_read(c, &apmask, &aqmask);
        if (r < 0)
                return r;
        want_apmask = mask_towards(&apmask, from_apmask, to_apmask);
        want_aqmask = mask_towards(&aqmask, from_aqmask, to_aqmask);
        return ap_mask_equal(&apmask, &want_apmask) && ap_mask_equal(&aqmask, &want_aqmask) ? 0
                                                                                            : STEP_CHANGED;
}

static int masks_do(StepContext *c, const PlanStep *step) {
        ApMask apmask, aqmask;
        int r;

        r = masks_read(c, &apmask, &aqmask);
        if (r < 0)
                return r;
        if (!ap_mask_equal(&apmask, &step->masks.apmask_before) ||
            !ap_mask_equal(&aqmask, &step->masks.aqmask_before))
                return STEP_CHANGED;

        return masks_change(c, &step->masks.apmask_before, &step->masks.aqmask_before,
                            &step->masks.apmask_after, &step->masks.aqmask_after);
}

typedef enum Override {
        OVERRIDE_NONE,
        OVERRIDE_VFIO, /* to vfio_ap */
        OVERRIDE_HOST, /* to the host's driver: on the way back there, or somebody's wish */
        OVERRIDE_OTHER,
} Override;

/* What the queue is overridden to, and its driver ("" for none). */
static int override_look(StepContext *c, Apqn q, Override *ret, char driver[static SNAPSHOT_NAME_SIZE]) {
        char path[HOST_PATH_SIZE], buf[256];
        ssize_t n;

        queue_path(q, "driver_override", path, sizeof path);
        n = c->sysfs->ops->read(c->sysfs, path, buf, sizeof buf);
        if (n < 0)
                return (int) n;
        buf[strcspn(buf, "\n")] = '\0';
        *ret = !buf[0] || strcmp(buf, "(null)") == 0 ? OVERRIDE_NONE
               : strcmp(buf, HOST_DRIVER_AP) == 0    ? OVERRIDE_VFIO
               : strcmp(buf, HOST_DRIVER_HOST) == 0  ? OVERRIDE_HOST
                                                     : OVERRIDE_OTHER;

        queue_path(q, "driver", path, sizeof path);
        return link_name(c, path, driver, SNAPSHOT_NAME_SIZE);
}

static int override_write(StepContext *c, Apqn q, const char *value) {
        char path[HOST_PATH_SIZE];

        queue_path(q, "driver_override", path, sizeof path);
        return write_text(c, path, value, 0);
}

/* The override alone moves nothing: the queue must leave its driver and be probed again. On its way back to the host the
 * queue has an override until the end, so that a scan sees wherever this was interrupted. */
static int override_change(StepContext *c, Apqn q, bool set) {
        char path[HOST_PATH_SIZE], driver[SNAPSHOT_NAME_SIZE], id[APQN_STRING_SIZE];
        Override now, wanted = set ? OVERRIDE_VFIO : OVERRIDE_HOST;
        bool is_vfio;
        int r;

        r = override_look(c, q, &now, driver);
        if (r < 0)
                return r;
        if (now == OVERRIDE_OTHER)
                return STEP_CHANGED;
        (void) apqn_format(q, id);

        is_vfio = strcmp(driver, HOST_DRIVER_AP) == 0;
        if (driver[0] && is_vfio == set) {
                if (set && now != OVERRIDE_VFIO) {
                        r = override_write(c, q, HOST_DRIVER_AP);
                        if (r < 0)
                                return r;
                }
        } else {
                if (now != wanted) {
                        r = override_write(c, q, set ? HOST_DRIVER_AP : HOST_DRIVER_HOST);
                        if (r < 0)
                                return r;
                        now = wanted;
                }
                if (driver[0]) {
                        (void) snprintf(path, sizeof path, HOST_PATH_AP_DRIVERS "/%s/unbind", driver);
                        r = write_text(c, path, id, QUEUE_RESET_US);
                        if (r < 0)
                                return r;
                }
                r = write_text(c, HOST_PATH_AP_PROBE, id, QUEUE_RESET_US);
                if (r < 0)
                        return r;
        }
        if (!set && now != OVERRIDE_NONE) {
                r = override_write(c, q, "\n");
                if (r < 0)
                        return r;
        }

        r = override_look(c, q, &now, driver);
        if (r < 0)
                return r;
        if (now != (set ? OVERRIDE_VFIO : OVERRIDE_NONE))
                return STEP_CHANGED;
        if (set && !driver[0])
                return -ENODEV; /* there is no vfio_ap to take it */
        return (strcmp(driver, HOST_DRIVER_AP) == 0) == set ? 0 : STEP_CHANGED;
}

static int override_do(StepContext *c, const PlanStep *step) {
        char driver[SNAPSHOT_NAME_SIZE] = "";
        Override now = OVERRIDE_NONE;
        bool half;
        int r;

        r = override_look(c, step->override.apqn, &now, driver);
        half = now == OVERRIDE_VFIO || now == OVERRIDE_HOST || strcmp(driver, HOST_DRIVER_AP) == 0;
        if (r == -ENOENT || r == -ENODEV ||
            (r >= 0 && (step->override.before ? !half : now != OVERRIDE_NONE)))
                return STEP_CHANGED;
        if (r < 0)
                return r;

        return override_change(c, step->override.apqn, step->override.after);
}

/* The directory of the plan's mdev, from the step that makes or removes it or from the host. */
static int mdev_path(StepContext *c, const Plan *p, const char *name, char *buf, size_t size) {
        const HostMdev *m = snapshot_find_mdev(c->s, p->uuid);
        const HostParent *parent = m ? snapshot_parent_of(c->s, m) : NULL;

        for (size_t i = 0; i < p->n_steps && !parent; i++)
                if (p->steps[i].type == PLAN_CREATE)
                        parent = snapshot_find_parent(c->s, p->steps[i].create.parent);
        if (!parent)
                return STEP_CHANGED;

        return host_scan_mdev_path(parent->path, p->uuid, name, buf, size);
}

static int mdev_exists(StepContext *c, const Plan *p) {
        char path[HOST_PATH_SIZE];
        int r;

        r = mdev_path(c, p, NULL, path, sizeof path);
        if (r < 0)
                return r;

        r = c->sysfs->ops->exists(c->sysfs, path);
        return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

static int mdev_make(StepContext *c, const Plan *p, const char *parent_name, const char *type) {
        const HostParent *parent = snapshot_find_parent(c->s, parent_name);
        char path[HOST_PATH_SIZE], id[UUID_STRING_SIZE];
        int r;

        if (!parent)
                return STEP_CHANGED;
        if ((size_t) snprintf(path, sizeof path, "%s/" HOST_DIR_TYPES "/%s/create", parent->path, type) >=
            sizeof path)
                return -ENAMETOOLONG;

        r = write_text(c, path, uuid_format(p->uuid, id), 0);
        if (r < 0)
                return r;
        c->made = true;
        c->removed = false;
        if (c->s->has_ap_config && c->step + 1 < p->n_steps && p->steps[c->step + 1].type == PLAN_ASSIGN)
                return 0; /* which finds out whether it is there */

        r = mdev_exists(c, p);
        return r == 0 ? STEP_CHANGED : r < 0 ? r : 0;
}

/* The write would block until the guest lets go, and would tell it to: never done while there is one. */
static int mdev_remove(StepContext *c, const Plan *p, const ApMatrix *matrix) {
        char path[HOST_PATH_SIZE];
        MdevUse use;
        int r, error;

        r = mdev_path(c, p, NULL, path, sizeof path);
        if (r < 0)
                return r;
        if (matrix) {
                r = access_begin(c, "reading the queue status", path, 0);
                if (r < 0)
                        return r;
                r = host_use_queues(c->sysfs, c->s, matrix, &use);
                if (r < 0)
                        return r;
                if (use == MDEV_USE_GUEST)
                        return STEP_IN_USE;
        }
        r = access_begin(c, "opening the VFIO group", path, 0);
        if (r < 0)
                return r;
        r = host_use_group(c->sysfs, c->execution->root_fd, path, &use);
        if (r < 0)
                return r;
        if (use == MDEV_USE_GUEST)
                return STEP_IN_USE;

        r = mdev_path(c, p, "remove", path, sizeof path);
        if (r < 0)
                return r;
        error = write_text(c, path, "1", 0);
        if (error == SYSFS_NEVER || c->stopped)
                return error;

        r = mdev_exists(c, p); /* whatever the write said: an interrupted one removes all the same, and so
                                  may others */
        if (r == 0) {
                c->removed = error >= 0;
                c->made = false;
                return 0;
        }
        return error < 0 ? error : r < 0 ? r : STEP_CHANGED;
}

/* Writes one id to an attribute of the mdev. */
static int id_write(StepContext *c, const Plan *p, const char *name, unsigned id) {
        char path[HOST_PATH_SIZE], text[8];
        int r;

        r = mdev_path(c, p, name, path, sizeof path);
        if (r < 0)
                return r;

        (void) snprintf(text, sizeof text, "%u", id);
        return write_text(c, path, text, QUEUE_RESET_US);
}

/* One kind of id from *now, which follows, to @to. */
static int ids_change(StepContext *c, const Plan *p, const char *name, ApMask *now, const ApMask *to,
                      bool set) {
        ApMask ids = set ? ap_mask_and_not(to, now) : ap_mask_and_not(now, to);

        AP_MASK_FOREACH(id, &ids) {
                int r = id_write(c, p, name, id);

                if (r < 0)
                        return r;
                if (set)
                        ap_mask_set(now, (uint8_t) id);
                else
                        ap_mask_clear(now, (uint8_t) id);
        }
        return 0;
}

/* For kernels without ap_config. What goes goes first, so that no queue is held that is in neither matrix.
 */
static int assign_by_id(StepContext *c, const Plan *p, const ApMatrix *to) {
        ApMatrix *now = &c->assigned;
        int r;

        r = ids_change(c, p, "unassign_adapter", &now->adapters, &to->adapters, false);
        if (r >= 0)
                r = ids_change(c, p, "unassign_domain", &now->domains, &to->domains, false);
        if (r >= 0)
                r = ids_change(c, p, "unassign_control_domain", &now->control, &to->control, false);
        if (r >= 0)
                r = ids_change(c, p, "assign_adapter", &now->adapters, &to->adapters, true);
        if (r >= 0)
                r = ids_change(c, p, "assign_domain", &now->domains, &to->domains, true);
        if (r >= 0)
                r = ids_change(c, p, "assign_control_domain", &now->control, &to->control, true);
        return r;
}

/* Whether the mdev has @want, as far as this kernel lets it be seen. */
static int assign_look(StepContext *c, const Plan *p, const ApMatrix *want) {
        char path[HOST_PATH_SIZE];
        ApMatrix now;
        int r;

        r = mdev_path(c, p, NULL, path, sizeof path);
        if (r < 0)
                return r;

        if (c->s->has_ap_config) {
                c->looked_us = clock_now_us();
                r = host_matrix_read(c->sysfs, path, want, &now);
        } else if (ap_matrix_n_queues(want) >= HOST_MATRIX_QUEUES_MAX)
                return 0; /* the results of the writes must do */
        else {
                r = access_begin(c, "read", path, 0);
                if (r >= 0)
                        r = host_matrix_read_text(c->sysfs, path, &now);
        }
        if (r == -ENOENT || r == -ENODEV)
                return STEP_CHANGED;
        if (r < 0)
                return r;

        return ap_matrix_equal(&now, want) ? 0 : STEP_CHANGED;
}

static int config_write(StepContext *c, const Plan *p, const ApMatrix *to) {
        char path[HOST_PATH_SIZE], text[AP_MATRIX_STRING_SIZE];
        unsigned n = ap_matrix_n_queues(to);
        int r;

        r = mdev_path(c, p, "ap_config", path, sizeof path);
        if (r < 0)
                return r;

        return write_text(c, path, ap_matrix_format(to, text), (uint64_t) n * QUEUE_RESET_US);
}

static int assign_do(StepContext *c, const Plan *p, const ApMatrix *before, const ApMatrix *after) {
        int r;

        /* one that we have just made has nothing, and ap_config is written as a whole */
        r = c->made && c->s->has_ap_config ? 0 : assign_look(c, p, before);
        if (r < 0)
                return r;

        if (c->s->has_ap_config) {
                r = config_write(c, p, after);
                if (r == -ENOENT || r == -ENODEV)
                        r = STEP_CHANGED;
        } else {
                c->assigned = *before;
                c->assigning = true;
                r = assign_by_id(c, p, after);
        }
        if (r < 0)
                return r;

        return assign_look(c, p, after);
}

/* A refused ap_config write leaves all as it was; what somebody else has written since is not ours to undo.
 */
static int assign_undo(StepContext *c, const Plan *p, const ApMatrix *before, const ApMatrix *after) {
        int r;

        if (!c->s->has_ap_config) {
                if (!c->assigning)
                        return 0;
                r = assign_by_id(c, p, before);
                return r < 0 ? r : assign_look(c, p, before);
        }

        r = assign_look(c, p, before);
        if (r != STEP_CHANGED)
                return r;
        r = assign_look(c, p, after);
        if (r < 0)
                return r;
        r = config_write(c, p, before);
        return r < 0 ? r : assign_look(c, p, before);
}

static int attr_do(StepContext *c, const Plan *p, const PlanStep *step) {
        char path[HOST_PATH_SIZE];
        int r;

        /* an attribute of this mdev and nothing else; some types have groups of them */
        if (!step->attr.name[0] || step->attr.name[0] == '/' || strstr(step->attr.name, ".."))
                return -EINVAL;
        r = mdev_path(c, p, step->attr.name, path, sizeof path);
        if (r < 0)
                return r;

        return write_text(c, path, step->attr.value, 0);
}

/* The plan's own mdev has got what an earlier ASSIGN gave it. */
static const ApMatrix *made_matrix(const StepContext *c, const Plan *p) {
        for (size_t i = p->n_steps; i-- > 0;)
                if (p->steps[i].type == PLAN_ASSIGN)
                        return &p->steps[i].assign.after;
        return NULL;
}

int step_do(StepContext *c, const Plan *p, const PlanStep *step) {
        switch (step->type) {
        case PLAN_MASKS:
                return masks_do(c, step);
        case PLAN_OVERRIDE:
                return override_do(c, step);
        case PLAN_CREATE:
                return mdev_make(c, p, step->create.parent, step->create.type);
        case PLAN_ASSIGN:
                return assign_do(c, p, &step->assign.before, &step->assign.after);
        case PLAN_ATTR:
                return attr_do(c, p, step);
        case PLAN_REMOVE:
                return mdev_remove(c, p, step->remove.ap ? &step->remove.before : NULL);
        case _PLAN_STEP_MAX:
                break;
        }
        return -EINVAL;
}

int step_undo(StepContext *c, const Plan *p, const PlanStep *step) {
        static const ApMatrix nothing = {};
        int r;

        switch (step->type) {
        case PLAN_MASKS:
                return masks_change(c, &step->masks.apmask_after, &step->masks.aqmask_after,
                                    &step->masks.apmask_before, &step->masks.aqmask_before);
        case PLAN_OVERRIDE:
                return override_change(c, step->override.apqn, step->override.before);
        case PLAN_CREATE:
                /* a create that the kernel refused has made nothing: what is there is somebody else's */
                return c->made ? mdev_remove(c, p, made_matrix(c, p)) : 0;
        case PLAN_ASSIGN:
                if (c->made) /* it goes as a whole */
                        return 0;
                return assign_undo(c, p, &step->assign.before, &step->assign.after);
        case PLAN_ATTR:
                return 0;
        case PLAN_REMOVE:
                if (!c->removed)
                        return 0;
                r = mdev_make(c, p, step->remove.parent, step->remove.type);
                return r < 0 || !step->remove.ap ? r : assign_do(c, p, &nothing, &step->remove.before);
        case _PLAN_STEP_MAX:
                break;
        }
        return -EINVAL;
}
