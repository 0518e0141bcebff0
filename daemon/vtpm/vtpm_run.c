/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What runs: swtpm, for virtio with the device before it. Each request is a chain of steps, each begun when the one before is done. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/timer.h"
#include "vtpm/vtpm_internal.h"
#include "vtpm/vtpm_tree.h"

#define START_US     (30 * UINT64_C(1000000))
#define MOMENT_US    (50 * UINT64_C(1000)) /* between two looks at what nothing tells of */
#define LOCK_TRIES   10
#define SETTLE_TRIES 100
#define COUNTERS_MAX 64

static void begin_stop(Op *op);
static void stop_device(Op *op);

static int runner_start(Op *op, VtpmRole role, vtpm_runner_done_t done) {
        return op->m->runner->ops->start(op->m->runner, role, op->t->record.uuid, START_US, done, op);
}

static int runner_stop(Op *op, VtpmRole role, vtpm_runner_done_t done) {
        return op->m->runner->ops->stop(op->m->runner, role, op->t->record.uuid, done, op);
}

static bool is_up(const Tpm *t) {
        return t->state == VTPM_RUNNING || t->state == VTPM_DEGRADED;
}

/* A value of a device's status. */
static bool status_is(const char *status, const char *name, const char *value) {
        size_t n = strlen(name), size = strlen(value);

        for (const char *p = status; p; p = strchr(p, '\n')) {
                p += *p == '\n';
                if (strncmp(p, name, n) == 0 && p[n] == '=' && strncmp(p + n + 1, value, size) == 0 &&
                    (p[n + 1 + size] == '\n' || p[n + 1 + size] == '\0'))
                        return true;
        }
        return false;
}

/* Asks the device; the answer comes to @done, and if there is none, so. */
static void ask(Op *op, const char *question, int fd, vtpm_talk_done_t done) {
        CLEANUP(fd_closep) int sockets_fd = vtpm_open_sockets(op->t, false);
        int r;

        r = sockets_fd;
        if (r >= 0)
                r = vtpm_talk_device(op->m->event, sockets_fd, question, fd, done, op, &op->talk);
        else
                fd_close(fd);
        if (r < 0)
                done(op, r, "");
}

static void wait_a_moment(Op *op, sd_event_time_handler_t then) {
        int r;

        op->timer = sd_event_source_disable_unref(op->timer);
        r = timer_after(op->m->event, &op->timer, MOMENT_US, then, op);
        if (r < 0)
                vtpm_op_fail(op, r);
}

/* ---- stop ---- */

/* All processes are gone, or cannot be ended. */
static void stop_ended(Op *op) {
        char uuid[UUID_STRING_SIZE], text[VTPM_TEXT_MAX];
        Tpm *t = op->t;

        if (t->swtpm_up || t->device_up) {
                vtpm_set_state(t, VTPM_FAILED, "its processes do not end, not even by SIGKILL");
                vtpm_op_finish(op, VTPM_TIMEOUT, "the processes of TPM '%s' do not end", t->record.name);
                return;
        }

        (void) vtpm_tree_remove(t->m->sockets_fd, uuid_format(t->record.uuid, uuid));
        memcpy(text, op->why, sizeof text);
        vtpm_set_state(t, op->after, op->after == VTPM_FAILED ? text : NULL);
        vtpm_op_finish(op, op->kind == OP_STOP ? VTPM_DONE : op->why_verdict, "%s",
                       op->kind == OP_STOP ? "" : text);
}

static void drop_state(Op *op) {
        if (op->t->record.ephemeral && !op->t->swtpm_up && !op->t->device_up)
                vtpm_op_run_job(op, VTPM_JOB_DROP, stop_ended); /* its files are not ours */
        else
                stop_ended(op);
}

static void on_swtpm_stopped(void *userdata, int r, const char *text) {
        Op *op = userdata;

        if (r == 0)
                op->t->swtpm_up = false;
        drop_state(op);
}

static void stop_swtpm(Op *op) {
        int r;

        r = runner_stop(op, VTPM_ROLE_SWTPM, on_swtpm_stopped);
        if (r < 0)
                on_swtpm_stopped(op, r, "");
}

static void on_shut_down(void *userdata, int r, const char *answer) {
        Op *op = userdata;

        op->talk = NULL;
        stop_swtpm(op); /* it may be gone by now; else there are signals */
}

/* swtpm is asked before it is told: a signal that it takes in the wrong moment has left it spinning. */
static void shut_down(Op *op) {
        CLEANUP(fd_closep) int sockets_fd = vtpm_open_sockets(op->t, false);
        int r = sockets_fd;

        if (r >= 0 && op->t->swtpm_up)
                r = vtpm_talk_swtpm(op->m->event, sockets_fd,
                                    op->t->model == TPM_MODEL_VIRTIO ? VTPM_CTRL_SOCKET : VTPM_SWTPM_SOCKET,
                                    VTPM_TALK_SHUTDOWN, on_shut_down, op, &op->talk);
        if (r < 0 || !op->t->swtpm_up)
                stop_swtpm(op);
}

static void on_device_stopped(void *userdata, int r, const char *text) {
        Op *op = userdata;

        if (r == 0)
                op->t->device_up = op->t->device_kept = false;
        shut_down(op);
}

static void stop_device(Op *op) {
        int r;

        r = runner_stop(op, VTPM_ROLE_DEVICE, on_device_stopped);
        if (r < 0)
                on_device_stopped(op, r, "");
}

/* Whatever there is of it ends. */
static void begin_stop(Op *op) {
        CLEANUP(fd_closep) int sockets_fd = vtpm_open_sockets(op->t, false);

        /* from here on a daemon after us does not take it for one that is to run */
        if (sockets_fd >= 0)
                (void) unlinkat(sockets_fd, "run.json", 0);
        vtpm_set_state(op->t, VTPM_STOPPING, NULL);
        stop_device(op);
}

/* ---- start ---- */

/* It came to nothing: what there is of it is ended first. */
__attribute__((format(printf, 3, 4))) static void start_failed(Op *op, VtpmVerdict verdict,
                                                               const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(op->why, sizeof op->why, format, ap);
        va_end(ap);
        op->why_verdict = verdict;
        op->after = VTPM_FAILED;
        log_warning("TPM '%s'%s: %s", op->t->record.name,
                    op->kind == OP_START ? " could not be started" : "", op->why);
        begin_stop(op);
}

static bool may_restart(Tpm *t) {
        uint64_t now = 0;

        (void) sd_event_now(t->m->event, CLOCK_MONOTONIC, &now);
        if (now - t->restarts_since > VTPM_RESTARTS_US) {
                t->restarts_since = now;
                t->restarts = 0;
        }
        return t->restarts++ < VTPM_RESTARTS_MAX;
}

static void recover_step(Op *op);

static void restart(Op *op) {
        if (may_restart(op->t))
                recover_step(op);
        else
                start_failed(op, VTPM_TOOL, "its processes end again and again; it is not started any more");
}

/* A launcher's words. One that is being recovered may have died again. */
static void launch_failed(Op *op, VtpmRole role, int r, const char *text) {
        if (op->kind == OP_RECOVER && r > 128) {
                restart(op);
                return;
        }
        if (r == -ETIME)
                start_failed(op, VTPM_TIMEOUT, "%s was not ready in time", vtpm_role_name(role));
        else if (r < 0)
                start_failed(op, VTPM_UNAVAILABLE, "%s could not be started: %s", vtpm_role_name(role),
                             strerror(-r));
        else
                start_failed(op,
                             r == VTPM_EXIT_IN_USE        ? VTPM_IN_USE
                             : r == VTPM_EXIT_UNAVAILABLE ? VTPM_UNAVAILABLE
                                                          : VTPM_TOOL,
                             "%s", text);
}

static void on_first_status(void *userdata, int r, const char *answer) {
        Op *op = userdata;

        op->talk = NULL;
        if (r < 0)
                start_failed(op, r == -ETIME ? VTPM_TIMEOUT : VTPM_TOOL, "the device does not answer: %s",
                             strerror(-r));
        else if (r > 0 || status_is(answer, "tpm", "failed"))
                start_failed(op, VTPM_TOOL, "the device has lost swtpm");
        else {
                vtpm_set_state(op->t, VTPM_RUNNING, NULL);
                vtpm_op_finish(op, VTPM_DONE, "%s", "");
        }
}

/* A launcher that found the lock taken: perhaps by one that a daemon before us had begun, which then has done this start's work. */
static int adopt_other(Op *op, VtpmRole role, sd_event_time_handler_t again) {
        VtpmRunner *runner = op->m->runner;

        if (runner->ops->adopt(runner, role, op->t->record.uuid) > 0)
                return 1;
        if (op->tries++ >= LOCK_TRIES)
                return 0;
        wait_a_moment(op, again);
        return -EINPROGRESS;
}

static int on_device_timer(sd_event_source *s, uint64_t usec, void *userdata);
static int on_swtpm_timer(sd_event_source *s, uint64_t usec, void *userdata);

static void on_device_started(void *userdata, int r, const char *text) {
        Op *op = userdata;

        if (r == VTPM_EXIT_IN_USE) {
                int adopted = adopt_other(op, VTPM_ROLE_DEVICE, on_device_timer);

                if (adopted < 0)
                        return;
                r = adopted > 0 ? 0 : r;
        }
        if (r != 0) {
                launch_failed(op, VTPM_ROLE_DEVICE, r, text);
                return;
        }
        op->t->device_up = true;
        /* it is switched on when the VMM connects, and its platform hierarchy closed before the first command */
        ask(op, "status", -1, on_first_status);
}

static int on_device_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        on_device_started(userdata, VTPM_EXIT_IN_USE, "somebody runs its device already");
        return 0;
}

static void try_command(Op *op, VtpmTalkCommand command, vtpm_talk_done_t done) {
        CLEANUP(fd_closep) int sockets_fd = vtpm_open_sockets(op->t, false);
        int r = sockets_fd;

        if (r >= 0)
                r = vtpm_talk_swtpm(op->m->event, sockets_fd, VTPM_SWTPM_SOCKET, command, done, op,
                                    &op->talk);
        if (r < 0)
                done(op, r, "");
}

static void on_tried_off(void *userdata, int r, const char *answer) {
        Op *op = userdata;

        op->talk = NULL;
        if (r == -ETIME)
                start_failed(op, VTPM_TIMEOUT, "swtpm was not ready in time");
        else if (r > 0)
                start_failed(op, VTPM_TOOL,
                             "swtpm cannot use its state: it is damaged, or its key is another one");
        else if (r == -EPIPE || r == -ECONNRESET || r == -ECONNREFUSED)
                start_failed(op, VTPM_TOOL, "swtpm ended as soon as it was started");
        else if (r < 0)
                start_failed(op, VTPM_TOOL, "swtpm does not answer: %s", strerror(-r));
        else {
                vtpm_set_state(op->t, VTPM_RUNNING, NULL);
                vtpm_op_finish(op, VTPM_DONE, "%s", "");
        }
}

static void on_tried(void *userdata, int r, const char *answer) {
        Op *op = userdata;

        op->talk = NULL;
        if (r == 0)
                try_command(op, VTPM_TALK_STOP, on_tried_off);
        else
                on_tried_off(op, r, answer);
}

static void on_swtpm_started(void *userdata, int r, const char *text) {
        Op *op = userdata;
        bool ours = r == 0;

        if (r == VTPM_EXIT_IN_USE) {
                int adopted = adopt_other(op, VTPM_ROLE_SWTPM, on_swtpm_timer);

                if (adopted < 0)
                        return;
                if (adopted == 0) { /* what is in its directory is somebody else's */
                        vtpm_set_state(op->t, VTPM_FAILED, text);
                        vtpm_op_finish(op, VTPM_IN_USE, "%s", text);
                        return;
                }
                r = 0;
        }
        if (r != 0) {
                launch_failed(op, VTPM_ROLE_SWTPM, r, text);
                return;
        }
        op->t->swtpm_up = true;
        if (op->t->model == TPM_MODEL_VIRTIO) {
                r = runner_start(op, VTPM_ROLE_DEVICE, on_device_started);
                if (r < 0)
                        launch_failed(op, VTPM_ROLE_DEVICE, r, "");
        } else if (ours)
                /* Only switching it on reads its state: it runs before it has done so, and would only tell QEMU. */
                try_command(op, VTPM_TALK_INIT, on_tried);
        else /* that other daemon may have told its guest to go on, which must not find its TPM reset */
                on_tried_off(op, 0, "");
}

static int on_swtpm_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        on_swtpm_started(userdata, VTPM_EXIT_IN_USE, "somebody else runs this TPM");
        return 0;
}

static void start_swtpm(Op *op) {
        int r;

        r = runner_start(op, VTPM_ROLE_SWTPM, on_swtpm_started);
        if (r < 0)
                launch_failed(op, VTPM_ROLE_SWTPM, r, "");
}

static void on_renewed(Op *op) {
        if (op->verdict == VTPM_DONE)
                start_swtpm(op);
        else
                start_failed(op, op->verdict, "%s", op->text);
}

/* Nobody else runs it? The launcher takes the lock for good; this is so that nothing of theirs is touched before. */
static int check_lock(Tpm *t) {
        char path[VTPM_PATH_SIZE], uuid[UUID_STRING_SIZE];
        CLEANUP(fd_closep) int fd = -1;

        (void) snprintf(path, sizeof path, "%s/" VTPM_LOCK_FILE, uuid_format(t->record.uuid, uuid));
        fd = vtpm_lock(t->m->tpms_fd, path);
        return fd < 0 ? fd : 0;
}

static void start_fresh(Op *op);

static int on_lock_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        start_fresh(userdata);
        return 0;
}

static void start_fresh(Op *op) {
        CLEANUP(fd_closep) int sockets_fd = -1;
        Tpm *t = op->t;
        int r;

        r = check_lock(t);
        if (r == -EBUSY &&
            op->tries++ < LOCK_TRIES) { /* a launcher that sees that it is too late ends by itself */
                wait_a_moment(op, on_lock_timer);
                return;
        }
        if (r == -EBUSY) {
                vtpm_op_finish(op, VTPM_IN_USE, "somebody else runs TPM '%s'", t->record.name);
                return;
        }
        if (r >= 0)
                r = sockets_fd = vtpm_open_sockets(t, true);
        if (r >= 0)
                r = vtpm_run_record_save(sockets_fd,
                                         &(VtpmRunRecord) { .model = op->model, .group = t->m->group });
        if (r < 0) {
                vtpm_op_finish(op, VTPM_UNAVAILABLE, "TPM '%s' cannot be started: %s", t->record.name,
                               strerror(-r));
                return;
        }

        t->model = op->model;
        t->restarts = 0;
        t->failed = t->lost = false;
        vtpm_set_state(t, VTPM_STARTING, NULL);
        if (t->record.ephemeral)
                vtpm_op_renew(op, on_renewed);
        else
                start_swtpm(op);
}

/* A guest starts with a TPM that had lost its last guest: the device switches it on anew for the next one. */
static void on_status_again(void *userdata, int r, const char *answer) {
        Op *op = userdata;

        op->talk = NULL;
        if (r == 0 && (status_is(answer, "connected", "no") || status_is(answer, "tpm", "ready")))
                vtpm_set_state(op->t, VTPM_RUNNING, NULL);
        vtpm_op_finish(op, VTPM_DONE, "%s", "");
}

static void begin_start(Op *op) {
        Tpm *t = op->t;

        if (is_up(t) && t->model != op->model)
                vtpm_op_finish(op, VTPM_BAD_STATE, "TPM '%s' runs already, as %s", t->record.name,
                               tpm_model_name(t->model));
        else if (t->state == VTPM_RUNNING || (t->state == VTPM_DEGRADED && t->model != TPM_MODEL_VIRTIO))
                vtpm_op_finish(op, VTPM_DONE, "%s", "");
        else if (t->state == VTPM_DEGRADED)
                ask(op, "status", -1, on_status_again);
        else if (t->state == VTPM_DEFINED || (t->state == VTPM_FAILED && !t->swtpm_up && !t->device_up))
                start_fresh(op);
        else
                vtpm_op_finish(op, VTPM_BAD_STATE, "TPM '%s' is %s", t->record.name,
                               vtpm_state_name(t->state));
}

/* ---- recovery ---- */

#define LOST_TEXT \
        "the device has lost swtpm while the guest ran; the guest has a TPM again after its next reboot or start"

static void degrade(Tpm *t, const char *why) {
        if (t->state == VTPM_DEGRADED && t->problem && strcmp(t->problem, why) == 0)
                return;
        log_warning("TPM '%s': %s", t->record.name, why);
        vtpm_set_state(t, VTPM_DEGRADED, why);
}

static int on_recover_timer(sd_event_source *s, uint64_t usec, void *userdata);

static void on_recovered(void *userdata, int r, const char *answer) {
        Op *op = userdata;

        op->talk = NULL;
        /* one that a daemon before us has started may not listen yet */
        if (r != 0 && r != -ETIME && op->t->device_up && op->tries++ < SETTLE_TRIES) {
                wait_a_moment(op, on_recover_timer);
                return;
        }
        if (r == -ETIME)
                degrade(op->t, "the device does not answer");
        else if (r != 0)
                log_debug("TPM '%s': the device has hung up, and so ended",
                          op->t->record.name); /* we will be told */
        else if (status_is(answer, "tpm", "failed") &&
                 (op->t->lost || !status_is(answer, "connected", "no")))
                degrade(op->t, LOST_TEXT);
        else if (op->device_new)
                degrade(op->t,
                        "the device had ended while the guest ran; the guest has a TPM again after its next start");
        else
                vtpm_set_state(op->t, VTPM_RUNNING, NULL);
        vtpm_op_finish(op, VTPM_DONE, "%s", "");
}

static int on_recover_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        Op *op = userdata;

        ask(op, "status", -1, on_recovered);
        return 0;
}

static int on_hand_over_timer(sd_event_source *s, uint64_t usec, void *userdata);

/* The guest is without a TPM until it is done. */
static void on_handed_over(void *userdata, int r, const char *answer) {
        Op *op = userdata;

        op->talk = NULL;
        if (r != 0 && (!op->t->swtpm_up || !op->t->device_up)) { /* one has ended again */
                restart(op);
                return;
        }
        if (r != 0 && r != -ETIME && op->tries++ < SETTLE_TRIES) { /* others may talk to the device, too */
                wait_a_moment(op, on_hand_over_timer);
                return;
        }
        if (r != 0)
                log_warning("TPM '%s': the device did not take the new swtpm: %s", op->t->record.name,
                            r < 0 ? strerror(-r) : answer);
        else
                op->t->lost = false;
        ask(op, "status", -1, on_recovered);
}

/* A new swtpm for a device that lives. */
static void hand_over(Op *op) {
        CLEANUP(fd_closep) int sockets_fd = vtpm_open_sockets(op->t, false);
        int fd = sockets_fd < 0 ? sockets_fd : vtpm_talk_connect(sockets_fd, VTPM_CTRL_SOCKET);

        if (fd < 0)
                on_handed_over(op, fd, strerror(-fd));
        else
                ask(op, "tpm", fd, on_handed_over);
}

static int on_hand_over_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        hand_over(userdata);
        return 0;
}

static void on_device_again(void *userdata, int r, const char *text) {
        Op *op = userdata;

        if (r != 0) {
                launch_failed(op, VTPM_ROLE_DEVICE, r, text);
                return;
        }
        op->t->device_up = true;
        if (op->device_new)
                op->t->lost = false; /* it has connected to swtpm itself */
        if (op->swtpm_new && !op->device_new)
                hand_over(op);
        else
                ask(op, "status", -1, on_recovered);
}

static void on_swtpm_again(void *userdata, int r, const char *text) {
        Op *op = userdata;

        if (r != 0) {
                launch_failed(op, VTPM_ROLE_SWTPM, r, text);
                return;
        }
        op->t->swtpm_up = op->swtpm_new = true;
        recover_step(op);
}

static void recover_step(Op *op) {
        Tpm *t = op->t;
        int r;

        if (!t->swtpm_up) {
                r = runner_start(op, VTPM_ROLE_SWTPM, on_swtpm_again);
                if (r < 0)
                        launch_failed(op, VTPM_ROLE_SWTPM, r, "");
        } else if (!t->device_up) {
                op->device_new = !t->device_kept && t->state != VTPM_STARTING;
                t->device_kept = false;
                r = runner_start(op, VTPM_ROLE_DEVICE, on_device_again);
                if (r < 0)
                        launch_failed(op, VTPM_ROLE_DEVICE, r, "");
        } else if (op->swtpm_new)
                hand_over(op);
        else
                ask(op, "status", -1, on_recovered);
}

static void begin_recover(Op *op) {
        Tpm *t = op->t;

        if (t->state != VTPM_RUNNING && t->state != VTPM_DEGRADED && t->state != VTPM_STARTING) {
                vtpm_op_finish(op, VTPM_DONE, "%s", ""); /* it was stopped meanwhile */
                return;
        }
        if (t->model != TPM_MODEL_VIRTIO) {
                if (t->swtpm_up) {
                        vtpm_set_state(t, VTPM_RUNNING, NULL);
                        vtpm_op_finish(op, VTPM_DONE, "%s", "");
                } else /* QEMU does not connect to another one */
                        start_failed(
                                op, VTPM_TOOL,
                                "swtpm ended while the guest ran; the guest has a TPM again after its next start");
        } else if (!t->swtpm_up || !t->device_up)
                restart(op);
        else {
                op->swtpm_new = t->lost;
                recover_step(op);
        }
}

static void recover(Tpm *t) {
        Op *op;

        for (op = t->first; op; op = op->next_of_tpm)
                if (op->kind == OP_RECOVER && op != t->first)
                        return; /* one that has not begun sees all */
        op = vtpm_op_new(t->m, OP_RECOVER, NULL, NULL);
        if (op)
                (void) vtpm_op_submit(op, t);
}

void vtpm_seen(Tpm *t, const char *tpm, bool connected) {
        const bool failed = strcmp(tpm, "failed") == 0, was_failed = t->failed;

        if (!is_up(t))
                return;
        t->failed = failed;
        if (strcmp(tpm, "ready") == 0)
                t->lost = false;
        if (failed && !was_failed) { /* with swtpm, or without */
                t->lost = true;
                recover(t);
        } else if (t->lost)
                return; /* that is under way */
        else if (failed && connected)
                degrade(t, LOST_TEXT);
        else if (strcmp(tpm, "degraded") == 0)
                degrade(t, "a command of the guest takes longer than its deadline");
        else if (t->state == VTPM_DEGRADED && strcmp(tpm, connected ? "ready" : "failed") == 0) {
                log_info("TPM '%s': %s", t->record.name,
                         connected ? "the guest has it again" : "is there for the next guest");
                vtpm_set_state(t, VTPM_RUNNING, NULL);
        }
}

static void on_ended(void *userdata, VtpmRole role, Uuid uuid, const char *text, bool fds_kept) {
        Tpm *t = vtpm_find_uuid(userdata, uuid);

        if (!t || role == VTPM_ROLE_JOB)
                return;
        if (role == VTPM_ROLE_SWTPM)
                t->swtpm_up = false;
        else {
                t->device_up = false;
                t->device_kept = fds_kept;
        }
        if (!is_up(t))
                return;
        log_warning("TPM '%s': %s", t->record.name, text);
        recover(t);
}

static void on_restarted(void *userdata, VtpmRole role, Uuid uuid) {
        Tpm *t = vtpm_find_uuid(userdata, uuid);

        if (t && is_up(t)) {
                log_warning("TPM '%s': %s was restarted", t->record.name, vtpm_role_name(role));
                recover(t);
        }
}

const VtpmRunnerEvents vtpm_runner_events = { .ended = on_ended, .restarted = on_restarted };

int vtpm_adopt(Tpm *t) {
        CLEANUP(fd_closep) int sockets_fd = vtpm_open_sockets(t, false);
        VtpmRunner *runner = t->m->runner;
        VtpmRunRecord run = {};
        int record, swtpm, device;
        Op *op;

        if (sockets_fd < 0)
                return sockets_fd == -ENOENT ? 0 : sockets_fd;

        record = vtpm_run_record_load(sockets_fd, &run);
        swtpm = runner->ops->adopt(runner, VTPM_ROLE_SWTPM, t->record.uuid);
        device = runner->ops->adopt(runner, VTPM_ROLE_DEVICE, t->record.uuid);
        if (swtpm < 0 || device < 0)
                return swtpm < 0 ? swtpm : device;
        t->swtpm_up = swtpm > 0;
        t->device_up = device > 0;

        if (record < 0 || (!t->swtpm_up &&
                           !t->device_up)) { /* being stopped when we died; or it ended while we were away */
                op = vtpm_op_new(t->m, OP_STOP, NULL, NULL);
                if (!op)
                        return -ENOMEM;
                if (record >= 0) {
                        op->after = VTPM_FAILED;
                        (void) snprintf(op->why, sizeof op->why, "it ended while guestcryptd did not run");
                }
                t->state = VTPM_STOPPING;
                return vtpm_op_submit(op, t);
        }

        t->model = run.model;
        /* a device that was never started is not one that was lost */
        t->state = t->device_up || faccessat(sockets_fd, vtpm_pid_file(VTPM_ROLE_DEVICE), F_OK, 0) == 0
                           ? VTPM_RUNNING
                           : VTPM_STARTING;
        recover(t);
        return 0;
}

/* ---- reset and counters ---- */

static void on_settled(void *userdata, int r, const char *answer);

static int on_settle_timer(sd_event_source *s, uint64_t usec, void *userdata) {
        Op *op = userdata;

        ask(op, "status", -1, on_settled);
        return 0;
}

static void on_settled(void *userdata, int r, const char *answer) {
        Op *op = userdata;

        op->talk = NULL;
        if (r == 0 && status_is(answer, "tpm", "starting") && op->tries++ < SETTLE_TRIES) {
                wait_a_moment(op, on_settle_timer);
                return;
        }
        if (r == 0 && status_is(answer, "tpm", "ready") && status_is(answer, "connected", "yes"))
                vtpm_set_state(op->t, VTPM_RUNNING, NULL);
        vtpm_op_finish(op, VTPM_DONE, "%s", "");
}

static void on_reset(void *userdata, int r, const char *answer) {
        Op *op = userdata;

        op->talk = NULL;
        if (r != 0)
                vtpm_op_finish(op, r == -ETIME ? VTPM_TIMEOUT : VTPM_TOOL, "the device: %s",
                               r < 0 ? strerror(-r) : answer);
        else if (op->t->state == VTPM_DEGRADED)
                ask(op, "status", -1, on_settled);
        else
                vtpm_op_finish(op, VTPM_DONE, "%s", "");
}

/* The status' lines that are counters, from "commands" on. */
static int read_counters(Op *op, const char *answer) {
        const char *p = strstr(answer, "\ncommands=");

        op->counters = calloc(COUNTERS_MAX, sizeof *op->counters);
        if (!op->counters)
                return -ENOMEM;
        for (; p && op->n_counters < COUNTERS_MAX; p = strchr(p, '\n')) {
                VtpmCounter *c = &op->counters[op->n_counters];

                p++;
                if (sscanf(p, "%31[a-z0-9-]=%" SCNu64, c->name, &c->value) == 2)
                        op->n_counters++;
        }
        return 0;
}

static void on_counters(void *userdata, int r, const char *answer) {
        Op *op = userdata;

        op->talk = NULL;
        if (r != 0) {
                vtpm_op_finish(op, r == -ETIME ? VTPM_TIMEOUT : VTPM_TOOL, "the device: %s",
                               r < 0 ? strerror(-r) : answer);
                return;
        }
        r = read_counters(op, answer);
        if (r < 0)
                vtpm_op_fail(op, r);
        else
                vtpm_op_finish(op, VTPM_DONE, "%s", "");
}

void vtpm_op_begin_run(Op *op) {
        Tpm *t = op->t;

        switch (op->kind) {
        case OP_START:
                begin_start(op);
                break;
        case OP_STOP:
                if (t->state == VTPM_DEFINED)
                        vtpm_op_finish(op, VTPM_DONE, "%s", "");
                else
                        begin_stop(op);
                break;
        case OP_RECOVER:
                begin_recover(op);
                break;
        default: /* reset, counters */
                if (t->model != TPM_MODEL_VIRTIO || !is_up(t))
                        vtpm_op_finish(op, VTPM_BAD_STATE, "TPM '%s' does not run as virtio",
                                       t->record.name);
                else if (op->kind == OP_RESET)
                        ask(op, "reset", -1, on_reset);
                else
                        ask(op, "status", -1, on_counters);
        }
}

static int submit(Vtpm *v, Uuid uuid, OpKind kind, TpmModel model, vtpm_done_t done,
                  vtpm_counters_t counters_done, void *userdata) {
        Tpm *t = vtpm_find_uuid(MANAGER(v), uuid);
        Op *op = vtpm_op_new(MANAGER(v), kind, done, userdata);

        if (!op)
                return -ENOMEM;
        op->uuid = uuid;
        op->model = model;
        op->counters_done = counters_done;
        return t ? vtpm_op_submit(op, t) : vtpm_op_refuse(op, VTPM_NO_SUCH, "there is no such TPM");
}

int vtpm_start(Vtpm *v, Uuid uuid, TpmModel model, vtpm_done_t done, void *userdata) {
        if (model == TPM_MODEL_NONE || model >= _TPM_MODEL_MAX)
                return -EINVAL;
        return submit(v, uuid, OP_START, model, done, NULL, userdata);
}

int vtpm_stop(Vtpm *v, Uuid uuid, vtpm_done_t done, void *userdata) {
        return submit(v, uuid, OP_STOP, TPM_MODEL_NONE, done, NULL, userdata);
}

int vtpm_reset(Vtpm *v, Uuid uuid, vtpm_done_t done, void *userdata) {
        return submit(v, uuid, OP_RESET, TPM_MODEL_NONE, done, NULL, userdata);
}

int vtpm_counters(Vtpm *v, Uuid uuid, vtpm_counters_t done, void *userdata) {
        return submit(v, uuid, OP_COUNTERS, TPM_MODEL_NONE, NULL, done, userdata);
}
