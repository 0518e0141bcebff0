/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* guest_world - an engine with its simulated host, a libvirt and TPMs: guests are started and stopped as libvirt does it,
 * with the hook. The engine can crash; guests, TPMs and the host go on. */

#include "engine/engine_guest.h"
#include "engine_env.h"
#include "fake_virt.h"
#include "fake_vtpm.h"

typedef struct World {
        Env *env;
        FakeVirt virt;
        FakeVtpm vtpm;
        bool no_hook; /* libvirt does not know of our hook */
} World;

World *world_new(void);
World *world_free(World *w);
/* An engine on what there is. */
void world_start(World *w);
void world_stop(World *w);
void world_crash(World *w);
/* Until nothing is under way. */
void world_settle(World *w);

/* g00000NN-...; guests are uuid_n(100 + n), TPMs uuid_n(200 + n), named "gN" and "tN", matrices uuid_n(n) and "m00N". */
Uuid guest_n(unsigned n);
Uuid tpm_n(unsigned n);

typedef struct Wires {
        unsigned mdev; /* of uuid_n(); 0: none */
        const char *matrix, *tpm;
        TpmModel wish;
        unsigned tpm_wired; /* of tpm_n() */
        TpmModel model;     /* NONE: virtio */
        Uuid foreign;       /* another mdev */
} Wires;

/* Defines guest @n. */
void world_define(World *w, unsigned n, const Wires *wires);
/* Matrix @n: one adapter of 2..5 and domain 6 for 1..4; defined only. */
void world_matrix(World *w, unsigned n);

/* One hook call, waited for. @wires NULL: as the guest's XML is. */
int world_hook(World *w, unsigned n, const char *operation, Reply *reply);
void world_hook_begin(World *w, unsigned n, const char *operation, Reply *reply);
/* As `virsh start` does: true if it runs; else @reply (or NULL) says why. */
bool world_run(World *w, unsigned n, Reply *reply);
/* Why libvirt or QEMU themselves would not start it; NULL: they do. */
const char *world_refuses(World *w, unsigned n);
/* QEMU runs. */
void world_qemu(World *w, unsigned n);
/* It ends, and the hook is told, and libvirt tells. */
void world_end(World *w, unsigned n);
/* QEMU is killed: nobody is told. */
void world_kill(World *w, unsigned n);

typedef struct Noted {
        bool done;
        Reply reply;
        char notes[512];
} Noted;

/* @what: attach-matrix detach-matrix attach-tpm detach-tpm; @m of uuid_n() or tpm_n(). */
void world_begin(World *w, const char *what, unsigned n, unsigned m, Noted *noted);
void world_do(World *w, const char *what, unsigned n, unsigned m, Noted *noted);
#define world_expect(w, what, n, m, verdict, words) \
        do { \
                Noted noted_; \
                world_do(w, what, n, m, &noted_); \
                assert_reply(&noted_.reply, verdict, words, __FILE__, __LINE__); \
        } while (0)

bool world_is_live(World *w, unsigned matrix);
bool world_guest_has_problem(World *w, unsigned n, const char *word);
/* All of them, a line each. free(). */
char *world_guest_problems(World *w, unsigned n);
/* Whom matrix @n is meant for; "" for nobody. */
const char *world_meant(World *w, unsigned n);
/* The text of the file that says what guest @n holds; NULL: there is none. free(). */
char *world_hold(World *w, unsigned n);
