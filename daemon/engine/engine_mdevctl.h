/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* engine_mdevctl - mdevctl beside us: its definitions, what it is about to do, definitions that change hands. The rules
 * are those of engine.h: requests return 0 (accepted), a Verdict with *reterr, or -errno. */

#include "engine/engine.h"

typedef enum MdevctlAction {
        MDEVCTL_DEFINE, /* a new definition */
        MDEVCTL_MODIFY, /* a definition becomes another */
        MDEVCTL_LIVE,   /* a live mdev becomes another */
        MDEVCTL_START,
        MDEVCTL_STOP,
        MDEVCTL_UNDEFINE,
        _MDEVCTL_ACTION_MAX
} MdevctlAction;

/* mdevctl is about to do this to @uuid, with what @json says it is to be then. The answer comes from a look at the host
 * and at mdevctl's files that began after the question. What is allowed is claimed, until engine_mdevctl_end() or the end
 * of the process behind @pidfd (which stays the caller's), and then until it has been seen what came of it. */
int engine_mdevctl_begin(Engine *e, MdevctlAction action, Uuid uuid, const char *json, int pidfd,
                         const EngineCaller *c, engine_done_t done, void *userdata, Refusal *reterr);
/* It has been done, or has failed. Nothing happens if there is nothing of @uuid that the process behind @pidfd has begun. */
void engine_mdevctl_end(Engine *e, Uuid uuid, int pidfd);

typedef struct EngineMdevctl {
        Uuid uuid;
        bool autostart;
        ApMatrix matrix;
        const char *problem; /* its file (@file) cannot be read, and why; NULL: it can */
        const char *file;
} EngineMdevctl;

/* The n-th of mdevctl's definitions as they were last read; false: there are no more. Valid until the loop runs again. */
bool engine_mdevctl_get(const Engine *e, size_t i, EngineMdevctl *ret);

typedef struct EngineImport {
        const char *name; /* NULL or "": the uuid's text */
        bool alternative, from_host;
        bool dry_run; /* only whether it could be done */
} EngineImport;

/* mdevctl's definition becomes ours, and what is live by it. 0 also if that has happened before. */
int engine_mdevctl_import(Engine *e, Uuid uuid, const EngineImport *import, const EngineCaller *c,
                          engine_done_t done, void *userdata, Refusal *reterr);

/* @json: what mdevctl has now, or would have. */
typedef void (*engine_exported_t)(void *userdata, int r, const Refusal *refusal, Uuid uuid,
                                  const char *json);

/* Our definition becomes mdevctl's; what is live goes on. @force: also what mdevctl has no place for is given up. */
int engine_mdevctl_export(Engine *e, Uuid uuid, bool force, bool dry_run, const EngineCaller *c,
                          engine_exported_t done, void *userdata, Refusal *reterr);
