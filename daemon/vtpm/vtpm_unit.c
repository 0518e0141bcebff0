/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Processes of TPMs as units of systemd: guestcrypt-tpm-job@UUID, guestcrypt-swtpm@UUID, guestcrypt-tpm@UUID. systemd keeps the device's
 * descriptors, and starts it again itself: what it has kept would be gone with a unit that has stopped. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/timer.h"
#include "vtpm/vtpm_runner.h"

#define SYSTEMD_NAME    "org.freedesktop.systemd1"
#define SYSTEMD_PATH    "/org/freedesktop/systemd1"
#define SYSTEMD_MANAGER SYSTEMD_NAME ".Manager"
#define UNIT_PREFIX     SYSTEMD_PATH "/unit"
#define NAME_SIZE       80
#define GONE_US         UINT64_C(1000000)
#define STOP_US         (30 * UINT64_C(1000000)) /* longer than the units' own TimeoutStopSec= */

typedef struct UnitRunner UnitRunner;

typedef struct Unit {
        UnitRunner *runner;
        struct Unit *next;
        VtpmRole role;
        Uuid uuid;
        char name[NAME_SIZE];
        bool up;   /* it was active when last heard of */
        bool down; /* it was up, and systemd is starting it again */
        vtpm_runner_done_t start_done, stop_done;
        void *start_userdata, *stop_userdata;
        char *start_job, *stop_job; /* systemd's, once it has told */
        sd_event_source *timer;
        sd_bus_slot *call;
        char *result; /* of the job, while its unit is asked for more */
} Unit;

struct UnitRunner {
        VtpmRunner runner;
        sd_event *event;
        sd_bus *bus;
        sd_bus_slot *jobs, *properties;
        const VtpmRunnerEvents *events;
        void *userdata;
        Unit *units;
};

#define UNIT_RUNNER(r) CONTAINER_OF(r, UnitRunner, runner)

static const char *const templates[_VTPM_ROLE_MAX] = {
        [VTPM_ROLE_JOB] = "guestcrypt-tpm-job@",
        [VTPM_ROLE_SWTPM] = "guestcrypt-swtpm@",
        [VTPM_ROLE_DEVICE] = "guestcrypt-tpm@",
};

static Unit *unit_find_name(UnitRunner *r, const char *name) {
        for (Unit *u = r->units; u; u = u->next)
                if (strcmp(u->name, name) == 0)
                        return u;
        return NULL;
}

static Unit *unit_get(UnitRunner *r, VtpmRole role, Uuid uuid) {
        char name[NAME_SIZE], text[UUID_STRING_SIZE];
        Unit *u;

        (void) snprintf(name, sizeof name, "%s%s.service", templates[role], uuid_format(uuid, text));
        u = unit_find_name(r, name);
        if (u)
                return u;
        u = calloc(1, sizeof *u);
        if (!u)
                return NULL;

        *u = (Unit) { .runner = r, .next = r->units, .role = role, .uuid = uuid };
        memcpy(u->name, name, sizeof name);
        r->units = u;
        return u;
}

static void unit_free(Unit *u) {
        for (Unit **p = &u->runner->units; *p; p = &(*p)->next)
                if (*p == u) {
                        *p = u->next;
                        break;
                }
        sd_event_source_disable_unref(u->timer);
        sd_bus_slot_unref(u->call);
        free(u->start_job);
        free(u->stop_job);
        free(u->result);
        free(u);
}

/* One that neither runs nor is to. */
static void unit_forget(Unit *u) {
        if (!u->up && !u->down && !u->start_done && !u->stop_done)
                unit_free(u);
}

static void clear_timer(Unit *u) {
        sd_event_source_disable_unref(TAKE(u->timer));
}

/* A failed unit is kept in systemd's memory, with why it failed, and counts against the next start. */
static void reset_failed(Unit *u) {
        (void) sd_bus_call_method_async(u->runner->bus, NULL, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                        "ResetFailedUnit", NULL, NULL, "s", u->name);
}

static void answer_start(Unit *u, int r, const char *text) {
        vtpm_runner_done_t done = TAKE(u->start_done);
        void *userdata = u->start_userdata;

        clear_timer(u);
        free(TAKE(u->start_job));
        if (r != 0)
                reset_failed(u);
        u->up = r == 0 && u->role != VTPM_ROLE_JOB;
        u->down = false;
        unit_forget(u);
        done(userdata, r, text);
}

static void answer_stop(Unit *u, int r, const char *text) {
        vtpm_runner_done_t done = TAKE(u->stop_done), start_done = TAKE(u->start_done);
        void *userdata = u->stop_userdata, *start_userdata = u->start_userdata;

        clear_timer(u);
        free(TAKE(u->stop_job));
        free(TAKE(u->start_job));
        reset_failed(u);
        u->up = u->down = false;
        unit_forget(u);
        if (start_done)
                start_done(start_userdata, -ECANCELED, "it was stopped");
        done(userdata, r, text);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        Unit *u = userdata;

        if (u->stop_done)
                answer_stop(u, -ETIME, "systemd does not end it in time");
        else
                answer_start(u, -ETIME, "systemd does not start it in time");
        return 0;
}

static int set_timer(Unit *u, uint64_t us) {
        clear_timer(u);
        return timer_after(u->runner->event, &u->timer, us, on_timer, u);
}

/* ---- why it failed ---- */

/* Properties of a service that failed to start: what its launcher has said, and its exit status. */
static int on_properties_of_failed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *name, *status = "", *result = "";
        char text[512];
        Unit *u = userdata;
        int32_t code = 0;
        int r;

        u->call = sd_bus_slot_unref(u->call);
        if (!u->start_done)
                return 1;
        r = sd_bus_message_is_method_error(m, NULL) ? -EIO : sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = sd_bus_message_read(m, "s", &name);
                if (r >= 0 && strcmp(name, "StatusText") == 0)
                        r = sd_bus_message_read(m, "v", "s", &status);
                else if (r >= 0 && strcmp(name, "Result") == 0)
                        r = sd_bus_message_read(m, "v", "s", &result);
                else if (r >= 0 && strcmp(name, "ExecMainStatus") == 0)
                        r = sd_bus_message_read(m, "v", "i", &code);
                else if (r >= 0)
                        r = sd_bus_message_skip(m, "v");
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }

        if (strcmp(result, "timeout") == 0 || strcmp(u->result, "timeout") == 0)
                answer_start(u, -ETIME, "it was not ready in time");
        else {
                if (*status)
                        (void) snprintf(text, sizeof text, "%s", status);
                else /* what is said of one that is being started again is of the next attempt */
                        (void) snprintf(text, sizeof text, "%s has not started; see journalctl -u %s",
                                        u->name, u->name);
                answer_start(u, strcmp(result, "exit-code") == 0 && code > 0 ? code : VTPM_EXIT_FAILURE,
                             text);
        }
        return 1;
}

static void ask_why(Unit *u, const char *result) {
        CLEANUP(freep) char *path = NULL;
        int r;

        free(u->result);
        u->result = strdup(result);
        r = u->result ? sd_bus_path_encode(UNIT_PREFIX, u->name, &path) : -ENOMEM;
        if (r >= 0)
                r = sd_bus_call_method_async(u->runner->bus, &u->call, SYSTEMD_NAME, path,
                                             "org.freedesktop.DBus.Properties", "GetAll",
                                             on_properties_of_failed, u, "s", SYSTEMD_NAME ".Service");
        if (r < 0)
                answer_start(u, VTPM_EXIT_FAILURE, result);
}

/* ---- signals ---- */

static int on_job_removed(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *job, *name, *result;
        UnitRunner *r = userdata;
        Unit *u;

        if (sd_bus_message_read(m, "uoss", NULL, &job, &name, &result) < 0)
                return 0;
        u = unit_find_name(r, name);
        if (!u)
                return 0;

        if (u->stop_done && u->stop_job && strcmp(job, u->stop_job) == 0)
                answer_stop(u, 0, "");
        else if (u->start_done && u->start_job && strcmp(job, u->start_job) == 0) {
                if (strcmp(result, "done") == 0)
                        answer_start(u, 0, "");
                else
                        ask_why(u, result);
        }
        return 0;
}

static void unit_ended(Unit *u, const char *state) {
        UnitRunner *r = u->runner;
        VtpmRole role = u->role;
        Uuid uuid = u->uuid;
        char text[NAME_SIZE + 32];

        (void) snprintf(text, sizeof text, "%s is %s", u->name, state);
        reset_failed(u);
        unit_free(u);
        r->events->ended(r->userdata, role, uuid, text, false);
}

static int on_gone(sd_event_source *s, uint64_t usec, void *userdata) {
        unit_ended(userdata, "not started again");
        return 0;
}

static void unit_changed(Unit *u, const char *state) {
        UnitRunner *r = u->runner;

        if (u->start_done || u->stop_done || (!u->up && !u->down))
                return; /* the job will tell */
        clear_timer(u);
        if (strcmp(state, "active") == 0) {
                if (!u->down)
                        return;
                u->down = false;
                u->up = true;
                r->events->restarted(r->userdata, u->role, u->uuid);
                return;
        }

        u->down = true;
        u->up = false;
        if (strcmp(state, "failed") != 0 && strcmp(state, "inactive") != 0)
                return;
        /* a unit that is started again by systemd is seen so on its way */
        if (u->role != VTPM_ROLE_DEVICE || timer_after(r->event, &u->timer, GONE_US, on_gone, u) < 0)
                unit_ended(u, state);
}

/* PropertiesChanged of any unit: systemd's signals can be had for one or for all, and one match for each TPM is more than a bus grants. */
static int on_properties(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *interface, *name, *state = NULL;
        CLEANUP(freep) char *unit = NULL;
        UnitRunner *runner = userdata;
        Unit *u;
        int r;

        if (sd_bus_path_decode(sd_bus_message_get_path(m), UNIT_PREFIX, &unit) <= 0)
                return 0;
        u = unit_find_name(runner, unit);
        if (!u)
                return 0;

        r = sd_bus_message_read(m, "s", &interface);
        if (r >= 0)
                r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && !state && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = sd_bus_message_read(m, "s", &name);
                if (r >= 0 && strcmp(name, "ActiveState") == 0)
                        r = sd_bus_message_read(m, "v", "s", &state);
                else if (r >= 0)
                        r = sd_bus_message_skip(m, "v");
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        if (r >= 0 && state)
                unit_changed(u, state);
        return 0;
}

/* ---- calls ---- */

static int on_start_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const sd_bus_error *e = sd_bus_message_get_error(m);
        Unit *u = userdata;
        const char *job;

        u->call = sd_bus_slot_unref(u->call);
        if (e)
                answer_start(u, VTPM_EXIT_FAILURE, e->message ? e->message : e->name);
        else if (sd_bus_message_read(m, "o", &job) < 0 || !(u->start_job = strdup(job)))
                answer_start(u, VTPM_EXIT_FAILURE, "systemd's answer makes no sense");
        return 1;
}

static int on_stop_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const sd_bus_error *e = sd_bus_message_get_error(m);
        Unit *u = userdata;
        const char *job;

        u->call = sd_bus_slot_unref(u->call);
        if (e) /* there is no such unit, so it does not run */
                answer_stop(u, sd_bus_error_has_name(e, SYSTEMD_NAME ".NoSuchUnit") ? 0 : -EIO,
                            e->message ? e->message : e->name);
        else if (sd_bus_message_read(m, "o", &job) < 0 || !(u->stop_job = strdup(job)))
                answer_stop(u, -EIO, "systemd's answer makes no sense");
        return 1;
}

static int call(Unit *u, const char *method, uint64_t timeout_us, sd_bus_message_handler_t reply) {
        int r;

        u->call = sd_bus_slot_unref(u->call);
        r = set_timer(u, timeout_us);
        if (r >= 0)
                r = sd_bus_call_method_async(u->runner->bus, &u->call, SYSTEMD_NAME, SYSTEMD_PATH,
                                             SYSTEMD_MANAGER, method, reply, u, "ss", u->name, "replace");
        return r;
}

static int unit_start(VtpmRunner *runner, VtpmRole role, Uuid uuid, uint64_t timeout_us,
                      vtpm_runner_done_t done, void *userdata) {
        Unit *u = unit_get(UNIT_RUNNER(runner), role, uuid);
        int r;

        if (!u)
                return -ENOMEM;
        if (u->start_done || u->stop_done)
                return -EALREADY;
        r = call(u, "StartUnit", timeout_us, on_start_reply);
        if (r < 0) {
                clear_timer(u);
                unit_forget(u);
                return r;
        }

        u->start_done = done;
        u->start_userdata = userdata;
        return 0;
}

static int unit_stop(VtpmRunner *runner, VtpmRole role, Uuid uuid, vtpm_runner_done_t done, void *userdata) {
        Unit *u = unit_get(UNIT_RUNNER(runner), role, uuid);
        int r;

        if (!u)
                return -ENOMEM;
        if (u->stop_done)
                return -EALREADY;
        r = call(u, "StopUnit", STOP_US, on_stop_reply);
        if (r < 0) {
                clear_timer(u);
                unit_forget(u);
                return r;
        }

        u->stop_done = done;
        u->stop_userdata = userdata;
        return 0;
}

/* A unit that is being started again by systemd runs as far as we are concerned. */
static int unit_adopt(VtpmRunner *runner, VtpmRole role, Uuid uuid) {
        UnitRunner *r = UNIT_RUNNER(runner);
        CLEANUP(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        CLEANUP(freep) char *path = NULL, *state = NULL;
        Unit *u = unit_get(r, role, uuid);
        int ret;

        if (!u)
                return -ENOMEM;
        ret = sd_bus_path_encode(UNIT_PREFIX, u->name, &path);
        if (ret >= 0)
                ret = sd_bus_get_property_string(r->bus, SYSTEMD_NAME, path, SYSTEMD_NAME ".Unit",
                                                 "ActiveState", &error, &state);
        if (ret < 0) {
                unit_forget(u);
                return sd_bus_error_has_name(&error, SYSTEMD_NAME ".NoSuchUnit") ? 0 : ret;
        }

        u->up = strcmp(state, "active") == 0;
        u->down = strcmp(state, "activating") == 0 || strcmp(state, "deactivating") == 0;
        ret = u->up || u->down;
        unit_forget(u);
        return ret;
}

static void unit_runner_free(VtpmRunner *runner) {
        UnitRunner *r = UNIT_RUNNER(runner);

        while (r->units)
                unit_free(r->units);
        sd_bus_slot_unref(r->jobs);
        sd_bus_slot_unref(r->properties);
        sd_bus_unref(r->bus);
        free(r);
}

static const VtpmRunnerOps unit_ops = {
        .start = unit_start,
        .stop = unit_stop,
        .adopt = unit_adopt,
        .free = unit_runner_free,
};

int vtpm_unit_new(sd_event *event, void *bus, const VtpmRunnerEvents *events, void *userdata,
                  VtpmRunner **ret) {
        static const char properties[] =
                "type='signal',sender='" SYSTEMD_NAME "',path_namespace='" UNIT_PREFIX
                "',interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',"
                "arg0='" SYSTEMD_NAME ".Unit'";
        UnitRunner *r = calloc(1, sizeof *r);
        int ret_code;

        if (!r)
                return -ENOMEM;
        *r = (UnitRunner) {
                .runner.ops = &unit_ops,
                .event = event,
                .bus = sd_bus_ref(bus),
                .events = events,
                .userdata = userdata,
        };
        ret_code = sd_bus_match_signal_async(r->bus, &r->jobs, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_MANAGER,
                                             "JobRemoved", on_job_removed, NULL, r);
        if (ret_code >= 0)
                ret_code =
                        sd_bus_add_match_async(r->bus, &r->properties, properties, on_properties, NULL, r);
        if (ret_code >= 0) /* without, systemd sends no signals */
                ret_code = sd_bus_call_method_async(r->bus, NULL, SYSTEMD_NAME, SYSTEMD_PATH,
                                                    SYSTEMD_MANAGER, "Subscribe", NULL, NULL, "");
        if (ret_code < 0) {
                unit_runner_free(&r->runner);
                return ret_code;
        }

        *ret = &r->runner;
        return 0;
}
