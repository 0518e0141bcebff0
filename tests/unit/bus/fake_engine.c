/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake_engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

FakeEngine fake;

static int on_turn(sd_event_source *s, void *userdata) {
        CLEANUP(freep) FakeLater *l = userdata;
        Refusal refusal = { .verdict = (Verdict) MAX(l->result, 0),
                            .error = fake.kernel_errno,
                            .text = (char *) FAKE_TEXT };
        const VtpmCounter counters[] = { { "commands", 17 }, { "errors", UINT64_MAX } };
        const EngineHealed healed[] = { { .name = "payments-1", .what = "started again" } };

        sd_event_source_unref(s);
        if (l->done)
                l->done(l->userdata, l->result, l->result > 0 ? &refusal : NULL, fake.uuid);
        if (l->reconciled)
                l->reconciled(l->userdata, l->result, l->result > 0 ? &refusal : NULL, healed,
                              l->result == 0);
        if (l->changed) {
                char *notes[] = { (char *) "until the next boot", NULL };
                EngineHostReport report = { .apmask = AP_MASK_ALL, .aqmask = AP_MASK_ALL, .notes = notes };

                report.change =
                        (HostChange) { .means = HOST_MEANS_OVERRIDES, .n_moved = 1, .apmask = AP_MASK_ALL };
                ap_mask_set(&report.change.moved[5], 0x47);
                ap_mask_set(&report.change.others[6], 7);
                if (fake.host_wish.dry_run)
                        report.refusal =
                                (Refusal) { .verdict = VERDICT_OVERLAP, .text = (char *) FAKE_TEXT };
                l->changed(l->userdata, l->result, l->result > 0 ? &refusal : NULL,
                           l->result == 0 ? &report : NULL);
        }
        if (l->viewed) {
                EngineHostView view = { .changed = true, .text = (char *) "rules\n", .has_last = true };

                view.rules = (HostRules) {
                        .there = true, .has_aqmask = true, .aqmask = AP_MASK_ALL, .n_foreign = 3
                };
                view.last = (Apqn) { 5, 0x47 };
                l->viewed(l->userdata, l->result, l->result > 0 ? &refusal : NULL,
                          l->result == 0 ? &view : NULL);
        }
        if (l->noted)
                l->noted(l->userdata, l->result, l->result > 0 ? &refusal : NULL,
                         l->result == 0 ? fake.notes : NULL);
        if (l->exported)
                l->exported(l->userdata, l->result, l->result > 0 ? &refusal : NULL, fake.uuid,
                            l->result == 0 ? "{}" : NULL);
        if (l->counters) /* the verdicts are taken as they are, see engine_verdict_of_vtpm() */
                l->counters(l->userdata, MIN(l->result, 0), (VtpmVerdict) MAX(l->result, 0),
                            l->result > 0 ? FAKE_TEXT : NULL, counters, ELEMENTS(counters));
        if (l->plain)
                l->plain(l->userdata, l->result);
        return 0;
}

int fake_begin(const char *asked, const EngineCaller *c, FakeLater l, Refusal *reterr) {
        bool spared = fake.refuse && strcmp(fake.refuse, asked) != 0;
        int at_once = spared ? 0 : fake.at_once;
        sd_event_source *s;
        FakeLater *copy;

        fake.asked = asked;
        fake.n_asked++;
        if (c) {
                fake.uid = c->uid;
                (void) snprintf(fake.caller, sizeof fake.caller, "%s", c->id);
        }
        if (fake.on_asked)
                fake.on_asked(asked);

        if (at_once > 0)
                *reterr = (Refusal) { .verdict = (Verdict) at_once,
                                      .error = fake.kernel_errno,
                                      .text = strdup(FAKE_TEXT) };
        if (at_once != 0)
                return at_once;
        if (fake.hang)
                return 0;

        copy = malloc(sizeof *copy);
        *copy = l;
        copy->result = spared ? 0 : fake.later;
        return sd_event_add_defer(fake.event, &s, on_turn, copy);
}

static void keep(const EngineDefine *d) {
        fake.define = *d;
        (void) snprintf(fake.name, sizeof fake.name, "%s", d->name ?: "");
        (void) snprintf(fake.guest, sizeof fake.guest, "%s", d->guest ?: "");
        fake.matrix = d->matrix;
        fake.asked_uuid = d->uuid;
}

int engine_define(Engine *e, const EngineDefine *d, const EngineCaller *c, engine_done_t done, void *u,
                  Refusal *reterr) {
        keep(d);
        return fake_begin("define", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_define_xml(Engine *e, const char *xml, size_t size, const EngineDefine *d, const EngineCaller *c,
                      engine_done_t done, void *u, Refusal *reterr) {
        keep(d);
        fake.xml_size = size;
        return fake_begin("define_xml", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_start(Engine *e, Uuid uuid, bool from_host, const EngineCaller *c, engine_done_t done, void *u,
                 Refusal *reterr) {
        fake.asked_uuid = uuid;
        fake.flag = from_host;
        return fake_begin("start", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_stop(Engine *e, Uuid uuid, const EngineCaller *c, engine_done_t done, void *u, Refusal *reterr) {
        fake.asked_uuid = uuid;
        return fake_begin("stop", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_modify(Engine *e, Uuid uuid, const ApMatrix *m, const EngineCaller *c, engine_done_t done,
                  void *u, Refusal *reterr) {
        fake.asked_uuid = uuid;
        fake.matrix = *m;
        return fake_begin("modify", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_undefine(Engine *e, Uuid uuid, bool stop, const EngineCaller *c, engine_done_t done, void *u,
                    Refusal *reterr) {
        fake.asked_uuid = uuid;
        fake.flag = stop;
        return fake_begin("undefine", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_set_autostart(Engine *e, Uuid uuid, bool autostart, const EngineCaller *c, engine_done_t done,
                         void *u, Refusal *reterr) {
        fake.asked_uuid = uuid;
        fake.flag = autostart;
        return fake_begin("set_autostart", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_create_mdev(Engine *e, const char *parent, const char *type, Uuid uuid, const EngineAttr *attrs,
                       size_t n_attrs, const EngineCaller *c, engine_done_t done, void *u, Refusal *reterr) {
        fake.asked_uuid = uuid;
        fake.n_attrs = n_attrs;
        (void) snprintf(fake.name, sizeof fake.name, "%s/%s", parent, type);
        return fake_begin("create_mdev", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_remove_mdev(Engine *e, Uuid uuid, const EngineCaller *c, engine_done_t done, void *u,
                       Refusal *reterr) {
        fake.asked_uuid = uuid;
        return fake_begin("remove_mdev", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_set_host_masks(Engine *e, const ApMask *adapters, const ApMask *domains, const EngineCaller *c,
                          engine_done_t done, void *u, Refusal *reterr) {
        fake.matrix = (ApMatrix) { .adapters = *adapters, .domains = *domains };
        return fake_begin("set_host_masks", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_change_host(Engine *e, const EngineHostWish *w, const EngineCaller *c, engine_host_changed_t done,
                       void *u, Refusal *reterr) {
        fake.matrix = w->wish.matrix;
        fake.host_wish = *w;
        return fake_begin(w->wish.release ? "release" : "reserve", c,
                          (FakeLater) { .changed = done, .userdata = u }, reterr);
}

int engine_persist_host(Engine *e, bool dry_run, const EngineCaller *c, engine_host_viewed_t done, void *u,
                        Refusal *reterr) {
        return fake_begin("persist", c, (FakeLater) { .viewed = done, .userdata = u }, reterr);
}

int engine_view_host(Engine *e, engine_host_viewed_t done, void *u) {
        Refusal refusal = {};

        return fake_begin("view", NULL, (FakeLater) { .viewed = done, .userdata = u }, &refusal);
}

int engine_reconcile(Engine *e, const EngineCaller *c, engine_reconciled_t done, void *u, Refusal *reterr) {
        return fake_begin("reconcile", c, (FakeLater) { .reconciled = done, .userdata = u }, reterr);
}

int engine_admit(Engine *e, const char *caller, Refusal *reterr) {
        if (fake.max_calls > 0 && fake.n_admitted == fake.max_calls) {
                *reterr = (Refusal) { .verdict = VERDICT_LIMIT_HIT, .text = strdup(FAKE_TEXT) };
                return VERDICT_LIMIT_HIT;
        }

        fake.n_admitted++;
        return 0;
}

void engine_discharge(Engine *e, const char *caller) {
        fake.n_admitted--;
}

int engine_rescan(Engine *e, void (*done)(void *, int), void *u) {
        Refusal unused = {};

        return fake_begin("rescan", NULL, (FakeLater) { .plain = done, .userdata = u }, &unused);
}

int engine_refresh(Engine *e, void (*done)(void *, int), void *u) {
        sd_event_source *s;
        FakeLater *copy = malloc(sizeof *copy);

        fake.n_refreshed++;
        if (fake.hang) {
                free(copy);
                return 0;
        }
        *copy = (FakeLater) { .plain = done, .userdata = u, .result = fake.later };
        return sd_event_add_defer(fake.event, &s, on_turn, copy);
}

int engine_ask_guest(Engine *e, const char *name, void (*done)(void *, int), void *u) {
        if (fake.libvirt)
                return -EHOSTDOWN;
        fake.n_asked_guests++;
        if (fake.late_guests) {
                fake.n_guests = fake.late_guests;
                fake.late_guests = 0;
        }
        return engine_refresh(e, done, u);
}

int engine_check(Engine *e, const EngineCheck *check, EngineConflict **ret, size_t *ret_n,
                 Verdict *ret_verdict, char **ret_text) {
        fake.asked = "check";
        fake.n_asked++;
        fake.check = *check;
        if (fake.no_ap)
                return -EHOSTDOWN;
        *ret = calloc(fake.n_conflicts + 1, sizeof **ret);
        if (fake.n_conflicts > 0)
                memcpy(*ret, fake.conflicts, fake.n_conflicts * sizeof **ret);
        *ret_n = fake.n_conflicts;
        return 0;
}

const char *matrix_state_name(MatrixState s) {
        return s == MATRIX_STARTED ? "started" : "defined";
}

int engine_get_matrix(Engine *e, Uuid uuid, EngineMatrix *ret) {
        for (size_t i = 0; i < fake.n_matrices; i++)
                if (uuid_equal(fake.matrices[i].uuid, uuid)) {
                        *ret = fake.matrices[i];
                        if (fake.on_get)
                                fake.on_get(i);
                        return 0;
                }

        return -ENOENT;
}

int engine_find_matrix(Engine *e, const char *name, Uuid *ret) {
        for (size_t i = 0; i < fake.n_matrices; i++)
                if (strcmp(fake.matrices[i].name, name) == 0) {
                        *ret = fake.matrices[i].uuid;
                        return 0;
                }

        return -ENOENT;
}

int engine_list_matrices(Engine *e, Uuid **ret, size_t *ret_n) {
        *ret = calloc(fake.n_matrices + 1, sizeof **ret);
        for (size_t i = 0; i < fake.n_matrices; i++)
                (*ret)[i] = fake.matrices[i].uuid;
        *ret_n = fake.n_matrices;
        return 0;
}

int engine_get_xml(Engine *e, Uuid uuid, char **ret) {
        *ret = strdup("<device/>\n");
        return 0;
}

const Snapshot *engine_snapshot(const Engine *e) {
        return fake.snapshot;
}

bool engine_is_ours(const Engine *e, Uuid uuid) {
        return true;
}

const char *engine_mdev_guest(Engine *e, Uuid uuid) {
        return "talker";
}

bool engine_mdev_in_use(Engine *e, const HostMdev *mdev) {
        return true;
}

const char *engine_mdev_state(const Engine *e, Uuid uuid) {
        return "active";
}

void engine_queue_owner(const Engine *e, Apqn q, const char **ret_kind,
                        char ret_owner[static ENGINE_OWNER_SIZE]) {
        *ret_kind = q.domain == 0x47 ? "definition" : "free";
        (void) snprintf(ret_owner, ENGINE_OWNER_SIZE, "%s", q.domain == 0x47 ? "payments-1" : "");
}

const char *const *engine_problems(Engine *e) {
        return fake.problems;
}

bool engine_is_settled(const Engine *e) {
        return true;
}
