/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* bus_world - the bus's surface over a socket pair, with a client that also plays polkit, and fake_engine below. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "bus/bus.h"
#include "bus/bus_internal.h"
#include "fake_engine.h"

#define USER       1000
#define POLKIT_YES "yes"
#define UUID1_TEXT "c2010203-0405-0607-0809-0a0b0c0d0eab"
#define UUID1_PATH "c2010203_0405_0607_0809_0a0b0c0d0eab"
#define MATRIX1    BUS_ROOT "/matrix/" UUID1_PATH
#define MDEV1      BUS_ROOT "/mdev/" UUID1_PATH
#define GUEST1     BUS_ROOT "/guest/" UUID1_PATH
#define TPM1       BUS_ROOT "/tpm/" UUID1_PATH

extern const Uuid uuid1;

typedef struct World {
        sd_event *event;
        sd_bus *server, *client;
        Bus *bus;
        /* polkit, which the client plays */
        const char *polkit; /* "yes", "no", "challenge", "gone", "hang" */
        unsigned n_asked;
        char action[64], subject[64];
        uint32_t flags;
        /* the bus daemon, which the client plays too */
        bool who_hangs;
        unsigned n_who;
        /* what was heard */
        char signals[64][160];
        unsigned n_signals;
        bool reload_fails;
        unsigned n_reloads;
} World;

extern World w;

/* cmocka's; the second also says how the bus is to be. */
int set_up(void **state);
int set_up_with(const BusConfig *config);
int tear_down(void **state);

/* Names that begin with ":1.u" are a user's, with ":1.x" of who has gone, others root's. */
int sender_uid(sd_bus_message *m, uid_t *ret);

/* ---- calls ---- */

int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *error);
void run_until(sd_bus_message **reply);
sd_bus_message *new_call(const char *sender, const char *path, const char *interface, const char *method);
/* Both consume @m; the first gives the reply. */
sd_bus_message *succeeds(sd_bus_message *m);
void fails(sd_bus_message *m, const char *name, const char *text);

typedef struct Method {
        const char *name, *path, *interface, *member, *action, *asked;
        void (*append)(sd_bus_message *m);
} Method;

#define MANAGER BUS_ROOT, BUS_INTERFACE("Manager")
#define HOST    BUS_ROOT, BUS_INTERFACE("Host")

sd_bus_message *call_of(const Method *method, const char *sender);
void append_matrix(sd_bus_message *m);
void append_options(sd_bus_message *m);
void append_nothing(sd_bus_message *m);

/* Consumes @m, whose reply is to be this path. */
void returns_path(sd_bus_message *m, const char *want);

/* ---- what holds for every method; the objects are there ---- */

void check_methods_reach_the_engine(const Method *methods, size_t n);
/* Each verdict under its name, at once and later. */
void check_errors_have_names(const Method *methods, size_t n);
void check_broken_is_an_errno(const Method *methods, size_t n);
void check_polkit_decides(const Method *methods, size_t n);

/* One of each kind. */
void add_objects(void);

/* ---- signals ---- */

void settle(void);
/* How often one was heard: "MEMBER PATH". */
unsigned heard(const char *what);
