/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The part of fake_engine that stands in for guests and TPMs. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fake_engine.h"

static const char *keep_text(size_t i, const char *s) {
        if (!s)
                return NULL;

        (void) snprintf(fake.texts[i], sizeof fake.texts[i], "%s", s);
        return fake.texts[i];
}

/* ---- guests ---- */

const char *engine_libvirt(Engine *e) {
        return fake.libvirt ?: "connected";
}

const char *engine_libvirt_problem(Engine *e) {
        return fake.libvirt_problem;
}

int engine_get_guest(Engine *e, Uuid uuid, EngineGuest *ret) {
        for (size_t i = 0; i < fake.n_guests; i++)
                if (uuid_equal(fake.guests[i].uuid, uuid)) {
                        *ret = fake.guests[i];
                        return 0;
                }

        return -ENOENT;
}

int engine_find_guest(Engine *e, const char *name, Uuid *ret) {
        for (size_t i = 0; i < fake.n_guests; i++)
                if (strcmp(fake.guests[i].name, name) == 0) {
                        *ret = fake.guests[i].uuid;
                        return 0;
                }

        return -ENOENT;
}

int engine_list_guests(Engine *e, Uuid **ret, size_t *ret_n) {
        *ret = calloc(fake.n_guests + 1, sizeof **ret);
        for (size_t i = 0; i < fake.n_guests; i++)
                (*ret)[i] = fake.guests[i].uuid;
        *ret_n = fake.n_guests;
        return 0;
}

static int wire(const char *asked, Uuid guest, Uuid other, bool live, TpmModel model, const EngineCaller *c,
                engine_noted_t done, void *u, Refusal *reterr) {
        fake.asked_uuid = guest;
        fake.asked_other = other;
        fake.flag = live;
        fake.model = model;
        return fake_begin(asked, c, (FakeLater) { .noted = done, .userdata = u }, reterr);
}

int engine_attach_matrix(Engine *e, Uuid guest, Uuid matrix, bool live, const EngineCaller *c,
                         engine_noted_t done, void *u, Refusal *reterr) {
        return wire("attach_matrix", guest, matrix, live, TPM_MODEL_NONE, c, done, u, reterr);
}

int engine_detach_matrix(Engine *e, Uuid guest, bool live, const EngineCaller *c, engine_noted_t done,
                         void *u, Refusal *reterr) {
        return wire("detach_matrix", guest, (Uuid) {}, live, TPM_MODEL_NONE, c, done, u, reterr);
}

int engine_attach_tpm(Engine *e, Uuid guest, Uuid tpm, TpmModel model, const EngineCaller *c,
                      engine_noted_t done, void *u, Refusal *reterr) {
        return wire("attach_tpm", guest, tpm, false, model, c, done, u, reterr);
}

int engine_detach_tpm(Engine *e, Uuid guest, const EngineCaller *c, engine_noted_t done, void *u,
                      Refusal *reterr) {
        return wire("detach_tpm", guest, (Uuid) {}, false, TPM_MODEL_NONE, c, done, u, reterr);
}

int engine_hook(Engine *e, const EngineHook *h, const EngineCaller *c, engine_done_t done, void *u,
                Refusal *reterr) {
        fake.hook = *h;
        fake.hook.operation = keep_text(0, h->operation);
        fake.hook.suboperation = keep_text(1, h->suboperation);
        fake.hook.extra = keep_text(2, h->extra);
        fake.hook.name = keep_text(3, h->name);
        fake.hook.matrix = keep_text(4, h->matrix);
        fake.hook.tpm = keep_text(5, h->tpm);
        fake.hook.tpm_socket = keep_text(6, h->tpm_socket);
        memcpy(fake.mdevs, h->mdevs, MIN(h->n_mdevs, ELEMENTS(fake.mdevs)) * sizeof *h->mdevs);
        fake.hook.mdevs = fake.mdevs;
        return fake_begin("hook", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

/* ---- mdevctl ---- */

bool engine_mdevctl_get(const Engine *e, size_t i, EngineMdevctl *ret) {
        if (i < fake.n_mdevctl)
                *ret = fake.mdevctl[i];
        return i < fake.n_mdevctl;
}

int engine_mdevctl_begin(Engine *e, MdevctlAction action, Uuid uuid, const char *json, int pidfd,
                         const EngineCaller *c, engine_done_t done, void *u, Refusal *reterr) {
        fake.action = action;
        fake.asked_uuid = uuid;
        (void) keep_text(0, json);
        fake.flag = fcntl(pidfd, F_GETFD) >= 0;
        return fake_begin("mdevctl_begin", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

void engine_mdevctl_end(Engine *e, Uuid uuid, int pidfd) {
        fake.flag = fcntl(pidfd, F_GETFD) >= 0;
        fake.asked = "mdevctl_end";
        fake.asked_uuid = uuid;
}

int engine_mdevctl_import(Engine *e, Uuid uuid, const EngineImport *import, const EngineCaller *c,
                          engine_done_t done, void *u, Refusal *reterr) {
        fake.asked_uuid = uuid;
        fake.import = *import;
        fake.import.name = keep_text(0, import->name);
        return fake_begin("mdevctl_import", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_mdevctl_export(Engine *e, Uuid uuid, bool force, bool dry_run, const EngineCaller *c,
                          engine_exported_t done, void *u, Refusal *reterr) {
        fake.asked_uuid = uuid;
        fake.flag = force;
        fake.import.dry_run = dry_run;
        return fake_begin("mdevctl_export", c, (FakeLater) { .exported = done, .userdata = u }, reterr);
}

/* ---- TPMs ---- */

const char *vtpm_state_name(VtpmState s) {
        return s == VTPM_RUNNING ? "running" : "defined";
}

static int get_tpm(Vtpm *v, Uuid uuid, VtpmView *ret) {
        for (size_t i = 0; i < fake.n_tpms; i++)
                if (uuid_equal(fake.tpms[i].uuid, uuid)) {
                        *ret = fake.tpms[i];
                        return 0;
                }

        return -ENOENT;
}

static int find_tpm(Vtpm *v, const char *name, Uuid *ret) {
        for (size_t i = 0; i < fake.n_tpms; i++)
                if (strcmp(fake.tpms[i].spec.name, name) == 0) {
                        *ret = fake.tpms[i].uuid;
                        return 0;
                }

        return -ENOENT;
}

static int list_tpms(Vtpm *v, Uuid **ret, size_t *ret_n) {
        *ret = calloc(fake.n_tpms + 1, sizeof **ret);
        for (size_t i = 0; i < fake.n_tpms; i++)
                (*ret)[i] = fake.tpms[i].uuid;
        *ret_n = fake.n_tpms;
        return 0;
}

Vtpm *engine_vtpm(Engine *e) {
        static const VtpmOps ops = { .get = get_tpm, .find = find_tpm, .list = list_tpms };
        static Vtpm vtpm = { .ops = &ops };

        return fake.no_vtpm ? NULL : &vtpm;
}

Verdict engine_verdict_of_vtpm(VtpmVerdict v) {
        return (Verdict) v;
}

static void keep_spec(const VtpmSpec *s) {
        fake.spec = *s;
        fake.spec.name = keep_text(0, s->name);
        fake.spec.guest = keep_text(1, s->guest);
        fake.spec.key_file = keep_text(2, s->key_file);
        fake.spec.pcr_banks = keep_text(3, s->pcr_banks);
        fake.spec.profile = keep_text(4, s->profile);
        fake.spec.ca_config = keep_text(5, s->ca_config);
        if (s->n_denied > 0)
                memcpy(fake.denied, s->denied, MIN(s->n_denied, ELEMENTS(fake.denied)) * sizeof *s->denied);
        fake.spec.denied = fake.denied;
        fake.asked_uuid = s->uuid;
}

int engine_define_tpm(Engine *e, const VtpmSpec *s, const EngineCaller *c, engine_done_t done, void *u,
                      Refusal *reterr) {
        keep_spec(s);
        return fake_begin("define_tpm", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_start_tpm(Engine *e, Uuid uuid, TpmModel model, const EngineCaller *c, engine_done_t done,
                     void *u, Refusal *reterr) {
        fake.asked_uuid = uuid;
        fake.model = model;
        return fake_begin("start_tpm", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_stop_tpm(Engine *e, Uuid uuid, const EngineCaller *c, engine_done_t done, void *u,
                    Refusal *reterr) {
        fake.asked_uuid = uuid;
        return fake_begin("stop_tpm", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_undefine_tpm(Engine *e, Uuid uuid, bool wipe, const EngineCaller *c, engine_done_t done, void *u,
                        Refusal *reterr) {
        fake.asked_uuid = uuid;
        fake.flag = wipe;
        return fake_begin("undefine_tpm", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_backup_tpm(Engine *e, Uuid uuid, int fd, const EngineCaller *c, engine_done_t done, void *u,
                      Refusal *reterr) {
        static const char backup[] = "a backup\n";

        fake.asked_uuid = uuid;
        if (fake.at_once == 0 && write(fd, backup, strlen(backup)) != (ssize_t) strlen(backup))
                return -EIO;
        return fake_begin("backup_tpm", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_restore_tpm(Engine *e, int fd, const VtpmSpec *s, const EngineCaller *c, engine_done_t done,
                       void *u, Refusal *reterr) {
        ssize_t n;

        keep_spec(s);
        n = pread(fd, fake.bytes, sizeof fake.bytes - 1, 0);
        fake.bytes[MAX(n, 0)] = '\0';
        return fake_begin("restore_tpm", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_import_tpm(Engine *e, const char *directory, const VtpmSpec *s, const EngineCaller *c,
                      engine_done_t done, void *u, Refusal *reterr) {
        keep_spec(s);
        (void) keep_text(7, directory);
        return fake_begin("import_tpm", c, (FakeLater) { .done = done, .userdata = u }, reterr);
}

int engine_tpm_counters(Engine *e, Uuid uuid, const EngineCaller *c, vtpm_counters_t done, void *u,
                        Refusal *reterr) {
        fake.asked_uuid = uuid;
        return fake_begin("tpm_counters", c, (FakeLater) { .counters = done, .userdata = u }, reterr);
}
