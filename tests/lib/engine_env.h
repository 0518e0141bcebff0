/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* engine_env - an engine in this process: its own loop and directories, host_direct over the simulator. It can crash, be started anew
 * and see its machine reboot. What is checked is read from the simulator itself, not from what the engine believes. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "engine/engine.h"
#include "host/sysfs.h"
#include "sim/sim.h"

#define ENV_STATE "var/lib/guestcrypt"
#define ENV_RUN   "run/guestcrypt"

typedef struct Env {
        char root[96];
        int root_fd;
        sd_event *event;
        Sim *sim;
        Sysfs sysfs; /* in front of the simulator's */
        Sysfs *inner;
        Host *host;
        Engine *engine;
        EngineConfig config;
        uint64_t step_timeout_us;
        bool changed; /* there were uevents */
        bool ready;
        void (*before_write)(struct Env *env, const char *path,
                             const char *data); /* somebody else acts just before our write */
        unsigned n_events, n_matrix_events;     /* from the engine */
} Env;

typedef struct Reply {
        bool done;
        int r; /* 0, a Verdict, -errno */
        int error;
        char text[1024];
        Uuid uuid;
} Reply;

/* The small host of sim/profiles in @dialect ("7.2"); @extra: more lines of profile, or NULL. Not started yet. */
Env *env_new(const char *dialect, const char *extra);
Env *env_free(Env *env);

/* A new host and engine on what is there; env_start() also waits until it is ready, env_settle() until all is quiet. */
/* A test of every point may look at each such one only: an emulator of another machine makes them slow. */
unsigned env_step(void);

void env_launch(Env *env);
void env_start(Env *env);
void env_stop(Env *env);
/* The engine dies where it is: nothing that it would still have written or done happens. The next one finds what a killed process leaves. */
void env_crash(Env *env);
/* Crash, and the machine comes up anew. */
void env_reboot(Env *env, const char *sim_command);

/* One turn of the loop; false if nothing happened within @timeout_us. */
bool env_turn(Env *env, uint64_t timeout_us);
void env_wait(Env *env, const bool *flag);
/* So many turns in which something happens, however long that takes; fewer when all is quiet after @done. */
void env_turns(Env *env, unsigned n, const bool *done);
/* Until nothing is under way. */
void env_settle(Env *env);
/* The same, also of what is late on purpose: ends and marks on disk, problems. */
void env_rest(Env *env);
void env_rescan(Env *env);
/* What comes now has to wait for the disk, until env_busy_end(). */
typedef struct EnvBusy EnvBusy;
EnvBusy *env_busy(Env *env);
void env_busy_end(EnvBusy *b);

void env_ctl(Env *env, const char *command);
void env_write(Env *env, const char *path, const char *data);
/* Written by somebody else; returns the kernel's answer. */
int env_try_write(Env *env, const char *path, const char *data);
void env_put_file(Env *env, const char *path, const char *text);

/* A foreign mdev with its matrix. */
void env_foreign(Env *env, const char *uuid, const char *adapters, const char *domains);

ApMatrix matrix_of(const char *adapters, const char *domains, const char *control);
Uuid uuid_of(const char *text);
/* 00000000-0000-4000-8000-0000000000NN */
Uuid uuid_n(unsigned n);

/* What others see: masks, and each mdev with what it has. free(). */
char *env_host_text(Env *env);
/* What the engine shows of its matrices. free(). */
char *env_matrix_text(Env *env);
/* No queue is in two mdevs, nor in one and the host's. */
void env_assert_no_overlap(Env *env);

extern const EngineCaller root_caller;
/* The engine's timers are so many times as fast, and so many times as slow. How long a hook or libvirt may take is divided by
 * env_hurry only, which is 1 but where a test waits for just that to pass: how fast this machine is decides no test. */
extern unsigned env_speed, env_slowness, env_hurry;

void reply_clear(Reply *reply);
/* What a request returned at once, or the reply that came for it. */
void env_define(Env *env, const EngineDefine *d, Reply *reply);
void env_request(Env *env, const char *what, Uuid uuid, const ApMatrix *m, Reply *reply);
void on_reply(void *userdata, int r, const Refusal *refusal, Uuid uuid);
/* Begins it; the reply comes while the loop runs. @what: define define-start start start-from-host stop modify undefine undefine-stop
 * autostart no-autostart create remove masks (apmask and aqmask from @m) reconcile */
void env_begin(Env *env, const char *what, Uuid uuid, const ApMatrix *m, Reply *reply);

/* Both: the request, and its reply must be as said; @words: words apart by "|" that must be in the refusal's text. */
#define env_do(env, what, uuid, m) env_expect_at(env, what, uuid, m, 0, NULL, __FILE__, __LINE__)
#define env_expect(env, what, uuid, m, verdict, words) \
        env_expect_at(env, what, uuid, m, verdict, words, __FILE__, __LINE__)
void env_expect_at(Env *env, const char *what, Uuid uuid, const ApMatrix *m, int verdict, const char *words,
                   const char *file, int line);
void assert_reply(const Reply *reply, int verdict, const char *words, const char *file, int line);
MatrixState env_state_of(Env *env, Uuid uuid);
bool env_has_problem(Env *env, Uuid uuid, const char *word);
bool env_has_general_problem(Env *env, const char *word);
