/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/engine.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/timer.h"
#include "engine/engine_internal.h"

#define FILE_JOBS_MAX   7
#define REFRESH_US      (40 * UINT64_C(1000))
#define STIR_US         (50 * UINT64_C(1000))   /* after a batch, if none follows */
#define RETRY_US        (2 * UINT64_C(1000000)) /* after a scan that failed */
#define RESCAN_SLACK_US (5 * UINT64_C(1000000)) /* the slow rescan may be late, to go with other wakeups */

/* ---- scans ---- */

static void scan_now(Engine *e);

/* A scan has ended, for which those have waited who came before it began; whoever wants it in detail, only if it was. */
static void waiters_scanned(Engine *e, int r, bool detailed) {
        for (Waiter *w = e->waiters; w; w = w->next)
                if (!w->scanned && w->arrived < e->n_scanned && (!w->detail || detailed || r < 0)) {
                        w->scanned = true;
                        w->result = r;
                        w->read = e->n_reads + e->mdevctl_wanted;
                }
}

void engine_wake_waiters(Engine *e) {
        Waiter **p = &e->waiters, *due = NULL, **last = &due;

        while (*p) {
                Waiter *w = *p;

                if (!w->scanned || w->read > e->n_read) {
                        p = &w->next;
                        continue;
                }
                *p = TAKE(w->next);
                *last = w;
                last = &w->next;
        }

        while (due) { /* whom we call may wait for another scan */
                Waiter *w = due;

                due = w->next;
                sd_event_source_disable_unref(w->timer);
                w->done(w->userdata, w->result);
                free(w);
        }
}

static void on_scanned(void *userdata, int r, Snapshot *snapshot) {
        Engine *e = userdata;
        bool detailed = e->scan_is_detailed;
        int before = e->scan_error;

        e->scanning = false;
        e->n_scanned = e->n_scans; /* what is woken may begin the next one */
        e->scan_error = r;
        if (r < 0 && before >= 0)
                log_error("Cannot read the host's devices, keeping what was known: %s", text_error(r));
        else if (r >= 0 && before < 0)
                log_notice("The host's devices can be read again");

        if (r < 0) /* soon again: what it was kept from may be over */
                (void) sd_event_source_set_time_relative(e->rescan_timer, RETRY_US);

        if (snapshot && state_take_snapshot(e, snapshot) < 0)
                log_error("Out of memory while taking over the state of the host");
        if (snapshot && detailed && e->masks_doubtful) {
                e->masks_refused &= !snapshot_find_override(e->snapshot, &(Apqn) {});
                e->masks_doubtful = false;
        }
        if (r != before)
                state_emit_manager(e);

        if (r < 0)
                recover_ready(e);
        else
                recover_step(e);
        mdevctl_step(e); /* what has ended counts no more for those that are decided now */
        hand_step(e);
        op_decide_waiting(e);
        waiters_scanned(e, r, detailed);
        engine_wake_waiters(e);
        if (e->scan_wanted || e->detail_wanted)
                scan_now(e);
}

static void scan_now(Engine *e) {
        int r;

        mdevctl_check(e);
        if (e->scanning) {
                e->scan_wanted = true;
                return;
        }

        e->scanning = true;
        e->n_scans++;
        e->scan_is_detailed = e->detail_wanted;
        e->scan_wanted = e->detail_wanted = false;
        (void) state_vouch(e, true); /* else what it would have said is unknown */
        r = e->host->ops->scan(e->host, e->scan_is_detailed ? HOST_SCAN_DETAIL : HOST_SCAN_BASIC, on_scanned,
                               e);
        if (r < 0)
                on_scanned(e, r, NULL);
}

void engine_host_changed(Engine *e) {
        /* what we do ourselves stirs the host most: a batch that is under way, or will be as soon as its intents are
         * on the disk, brings its own view of it at its end */
        if ((e->executing || e->exec.first || e->commit.first || e->committing) && !e->fresh.first) {
                e->stirred = true;
                if (!e->executing)
                        engine_stirred(e);
        } else
                scan_now(e);
}

static int on_stirred(sd_event_source *s, uint64_t usec, void *userdata) {
        Engine *e = userdata;

        e->stir_timer = sd_event_source_disable_unref(e->stir_timer);
        if (e->stirred && !e->executing) {
                e->stirred = false;
                scan_now(e);
        }
        return 0;
}

void engine_stirred(Engine *e) {
        if (e->stirred && !e->stir_timer)
                (void) timer_after(e->event, &e->stir_timer, STIR_US, on_stirred, e);
}

static bool is_scan_awaited(const Engine *e) {
        const Waiter *w = e->waiters;

        while (w && w->scanned)
                w = w->next;
        return w;
}

void engine_look(Engine *e) {
        if (is_scan_awaited(e))
                scan_now(e);
        else
                engine_host_changed(e);
}

/* A child of the daemon before us may still be in the middle of a plan; it stops before its next write, and holds the AP
 * lock until then. What it has left behind is looked at after that. */
static void on_at_rest(void *userdata, int r, const HostOutcome *outcomes, size_t n, Snapshot *after) {
        Engine *e = userdata;

        if (!after && !e->unquiet && e->n_unresolved > 0)
                log_full(
                        LOG_WARNING, LOG_ID_STUCK, NULL,
                        "Somebody else holds the AP configuration lock, leaving interrupted operations open%s%s",
                        r < 0 ? ": " : "", r < 0 ? text_error(r) : "");
        e->unquiet = !after && e->n_unresolved > 0;
        e->resting = false;
        (void) snapshot_free(after);
        scan_now(e);
}

void engine_rest(Engine *e) {
        if (e->resting)
                return;
        if (e->host->ops->execute(e->host, NULL, 0, on_at_rest, e) >= 0)
                e->resting = true;
        else
                scan_now(e);
}

static int on_rescan(sd_event_source *s, uint64_t usec, void *userdata) {
        Engine *e = userdata;
        const char *what = NULL;
        int r;

        e->host_differs = true; /* what could not be started or undone is tried again now and then */
        if (e->host->ops->stuck(e->host, &what) == 0)
                e->stuck_logged = false;
        else if (!e->stuck_logged) {
                e->stuck_logged = true;
                log_full(LOG_WARNING, LOG_ID_STUCK, NULL, "The kernel has not come back from: %s", what);
        }

        op_look_after_marks(e);
        if (e->loaded.n_bad > 0 && store_forget_aside(e->store, &e->loaded))
                state_emit_manager(e);

        e->detail_wanted = true;
        if (e->unquiet)
                engine_rest(e);
        else
                scan_now(e);

        r = sd_event_source_set_time_relative(s, e->config.rescan_us);
        return r < 0 ? r : sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static int add_waiter(Engine *e, bool detail, void (*done)(void *userdata, int r), void *userdata,
                      Waiter **ret) {
        Waiter *w = calloc(1, sizeof *w), **p = &e->waiters;

        if (!w)
                return -ENOMEM;

        *w = (Waiter) {
                .done = done, .userdata = userdata, .engine = e, .arrived = e->n_scans, .detail = detail
        };
        while (*p)
                p = &(*p)->next;
        *p = w;
        e->detail_wanted |= detail;
        *ret = w;
        return 0;
}

int engine_rescan(Engine *e, void (*done)(void *userdata, int r), void *userdata) {
        Waiter *w;
        int r = add_waiter(e, true, done, userdata, &w);

        op_look_after_marks(e);
        if (r >= 0)
                scan_now(e);
        return r;
}

static int on_refresh_late(sd_event_source *s, uint64_t usec, void *userdata) {
        Waiter *w = userdata, **p = &w->engine->waiters;

        while (*p != w)
                p = &(*p)->next;
        *p = w->next;
        sd_event_source_disable_unref(w->timer);
        w->done(w->userdata, -ETIME);
        free(w);
        return 0;
}

int engine_wait_scan(Engine *e, void (*done)(void *userdata, int r), void *userdata) {
        Waiter *w;
        int r;

        r = add_waiter(e, false, done, userdata, &w);
        if (r >= 0)
                gather_look(e);
        return r;
}

int engine_refresh(Engine *e, void (*done)(void *userdata, int r), void *userdata) {
        Waiter *w;
        int r;

        r = add_waiter(e, false, done, userdata, &w);
        if (r < 0)
                return r;
        /* without the timer it waits for the scan, which has an end of its own */
        (void) sd_event_add_time_relative(e->event, &w->timer, CLOCK_MONOTONIC, REFRESH_US, 1,
                                          on_refresh_late, w);
        gather_look(e);
        return 0;
}

/* ---- life ---- */

static int open_dirs(Engine *e, const char *state_dir, const char *run_dir) {
        CLEANUP(fd_closep) int state_fd = -1;
        CLEANUP(fd_closep) int run_fd = -1;
        bool writable = false;
        int r;

        state_fd = file_open_dir(e->root_fd, state_dir);
        if (state_fd < 0)
                return state_fd;
        r = store_open(state_fd, &e->store, &e->loaded, &writable);
        if (r < 0)
                return r;
        r = store_load_aside(e->store, &e->loaded);
        if (r < 0) /* it is for people alone */
                log_warning("Cannot tell what was set aside earlier: %s", strerror(-r));
        e->store_failed = !writable;
        if (!writable)
                log_full(LOG_ERR, LOG_ID_STORE, NULL,
                         "The state directory cannot be written, refusing changes until it can be");

        e->run_dir = strdup(run_dir);
        if (!e->run_dir)
                return -ENOMEM;
        run_fd = file_open_dir(e->root_fd, run_dir);
        if (run_fd < 0)
                return run_fd;
        e->marks_fd = file_open_dir(run_fd, MARKS_DIR);
        if (e->marks_fd < 0)
                return e->marks_fd;
        return guests_load(e, run_fd);
}

static const char *what_of_bad(const StoreBad *bad) {
        return bad->kept ? "known by its UUID" : "set aside";
}

static int load_matrices(Engine *e) {
        for (size_t i = 0; i < e->loaded.n_records; i++) {
                Matrix *m;
                int r;

                r = state_add(e, &e->loaded.records[i], &m);
                if (r < 0)
                        return r;
                m->visible = true;
                r = state_claim_definition(e, m);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < e->loaded.n_bad && !e->loaded.bad[i].earlier; i++)
                log_full(LOG_WARNING, LOG_ID_BAD_RECORD, NULL, "Record '%s' is %s: %s",
                         e->loaded.bad[i].file, what_of_bad(&e->loaded.bad[i]), e->loaded.bad[i].reason);
        e->last_op = e->loaded.last_op;
        return 0;
}

/* Records are set aside under the name of their file, which has the UUID in it. */
static bool is_set_aside(const Engine *e, Uuid uuid) {
        char text[UUID_STRING_SIZE];

        uuid_format(uuid, text);
        for (size_t i = 0; i < e->loaded.n_bad; i++)
                if (!e->loaded.bad[i].kept && strstr(e->loaded.bad[i].file, text))
                        return true;
        return false;
}

static int load_marks(Engine *e) {
        CLEANUP(freep) Mark *marks = NULL;
        size_t n;
        int r;

        r = marks_read(e->marks_fd, &marks, &n);
        for (size_t i = 0; i < n && r >= 0; i++) {
                Matrix *m = state_find(e, marks[i].uuid);

                if (uuid_is_null(marks[i].uuid))
                        e->masks_pending = marks[i].kind == MARK_PENDING;
                else if (m && marks[i].kind != MARK_MDEV)
                        m->mark = marks[i].kind;
                else if (!m && marks[i].kind == MARK_MDEV)
                        r = state_add_own_mdev(e, marks[i].uuid);
                else if (!m && !is_set_aside(e, marks[i].uuid))
                        /* its definition went, and then we were killed: the next of that UUID was never started */
                        op_commit_mark(e, marks[i].uuid, MARK_NONE);
        }
        return r;
}

static int engine_load(Engine *e, const char *state_dir, const char *run_dir) {
        int r;

        e->claims = claim_table_new();
        e->snapshot = snapshot_new();
        if (!e->claims || !e->snapshot)
                return -ENOMEM;

        r = worker_new(e->event, FILE_JOBS_MAX, &e->worker);
        if (r < 0)
                return r;
        r = open_dirs(e, state_dir, run_dir);
        if (r < 0)
                return r;
        r = load_matrices(e);
        if (r < 0)
                return r;
        r = load_marks(e);
        if (r < 0)
                return r;
        r = mdevctl_start(e);
        if (r < 0)
                return r;
        r = recover_load(e);
        if (r < 0)
                return r;

        return sd_event_add_time_relative(e->event, &e->rescan_timer, CLOCK_MONOTONIC, e->config.rescan_us,
                                          RESCAN_SLACK_US, on_rescan, e);
}

int engine_new(sd_event *event, const EngineConfig *config, Host *host, int root_fd, const char *state_dir,
               const char *run_dir, engine_event_t event_cb, void *userdata, Engine **ret) {
        Engine *e;
        int r;

        e = calloc(1, sizeof *e);
        if (!e)
                return -ENOMEM;

        e->event = sd_event_ref(event);
        e->config = *config;
        e->host = host;
        e->marks_fd = e->inotify_fd = -1;
        e->root_fd = fcntl(root_fd, F_DUPFD_CLOEXEC, 3);
        r = e->root_fd < 0 ? -errno : engine_load(e, state_dir, run_dir);
        if (r < 0) {
                (void) engine_free(e);
                return r;
        }

        e->event_cb = event_cb; /* nothing is told about what was just loaded */
        e->userdata = userdata;
        e->detail_wanted = true;
        engine_rest(
                e); /* whoever is in the middle of a change, mdevctl with the leave of a daemon before us included */
        *ret = e;
        return 0;
}

Engine *engine_free(Engine *e) {
        if (!e)
                return NULL;

        e->closing = true;
        sd_event_source_disable_unref(e->rescan_timer);
        sd_event_source_disable_unref(e->show_timer);
        sd_event_source_disable_unref(e->begun_timer);
        sd_event_source_disable_unref(e->stir_timer);
        sd_event_source_disable_unref(e->gather_idle);
        sd_event_source_disable_unref(e->gather_linger);
        sd_event_source_disable_unref(e->gather_timer);
        guests_drain(e);
        op_drain(e);
        host_drain(e);
        heal_free(e);
        boot_free(e);
        recover_free(e);
        guests_free(e);
        while (e->waiters) {
                Waiter *w = e->waiters;

                e->waiters = w->next;
                sd_event_source_disable_unref(w->timer);
                free(w);
        }
        free(e->busy);
        state_free_all(e);
        strv_free(e->problems);
        (void) claim_table_free(e->claims);
        (void) snapshot_free(e->snapshot);
        mdevctl_end_all(e);
        store_content_clear(&e->loaded);
        (void) store_free(e->store);
        fd_close(e->marks_fd);
        fd_close(e->root_fd);
        free(e->run_dir);
        sd_event_unref(e->event);
        free(e);
        return NULL;
}

void engine_set_config(Engine *e, const EngineConfig *config) {
        e->config = *config;
        (void) sd_event_source_set_time_relative(e->rescan_timer, config->rescan_us);
}

bool engine_is_settled(const Engine *e) {
        return e->settled;
}

void engine_when_ready(Engine *e, void (*done)(void *userdata), void *userdata) {
        e->ready_cb = done;
        e->ready_userdata = userdata;
}

/* ---- questions ---- */

int engine_check(Engine *e, const EngineCheck *check, EngineConflict **ret, size_t *ret_n,
                 Verdict *ret_verdict, char **ret_text) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        CLEANUP(freep) Conflict *conflicts = NULL;
        EngineConflict *list;
        ClaimQuery q = request_query(&check->matrix, check->self,
                                     (check->start ? REQUEST_LIVE : REQUEST_DEFINE) |
                                             (check->alternative ? REQUEST_ALTERNATIVE : 0) |
                                             (check->from_host ? REQUEST_FROM_HOST : 0));
        size_t n;
        int r;

        if (!e->snapshot->ap)
                return -EHOSTDOWN;

        r = claim_conflicts(e->claims, &q, &conflicts, &n);
        if (r < 0)
                return r;
        r = ret_verdict || ret_text ? refuse_conflicts(e, &q, &refusal) : 0;
        if (r < 0)
                return r;
        list = text_conflicts(e, conflicts, &n);
        if (!list)
                return -ENOMEM;

        *ret = list;
        *ret_n = n;
        if (ret_verdict)
                *ret_verdict = (Verdict) r;
        if (ret_text)
                *ret_text = TAKE(refusal.text);
        return 0;
}

const char *matrix_state_name(MatrixState s) {
        static const char *const names[] = {
                [MATRIX_UNKNOWN] = "unknown", [MATRIX_DEFINED] = "defined",   [MATRIX_STARTING] = "starting",
                [MATRIX_STARTED] = "started", [MATRIX_CHANGING] = "changing", [MATRIX_STOPPING] = "stopping",
                [MATRIX_LOST] = "lost",       [MATRIX_BROKEN] = "broken",
        };

        return names[s];
}

int engine_get_matrix(Engine *e, Uuid uuid, EngineMatrix *ret) {
        static const char *const none[] = { NULL };
        const Matrix *m = state_find(e, uuid);
        const HostMdev *mdev;

        if (!m || !m->visible)
                return -ENOENT;

        *ret = (EngineMatrix) {
                .uuid = uuid,
                .name = m->rec.name,
                .guest = m->rec.guest ?: "",
                .matrix = m->rec.matrix,
                .state = state_of(e, m),
                .autostart = m->rec.autostart,
                .alternative = m->rec.alternative,
                .from_host = m->rec.from_host,
                .uid = m->rec.uid,
                .problems = m->problems ? (const char *const *) m->problems : none,
        };

        mdev = snapshot_find_mdev(e->snapshot, uuid);
        if (!mdev)
                return 0;
        ret->in_use = mdev->use == MDEV_USE_GUEST;
        if (mdev->guest_known) {
                ret->guest_adapters = mdev->guest_adapters;
                ret->guest_domains = mdev->guest_domains;
        } else if (mdev->matrix_known)
                snapshot_guest_matrix(e->snapshot, &mdev->matrix, &ret->guest_adapters, &ret->guest_domains);
        return 0;
}

int engine_find_matrix(Engine *e, const char *name, Uuid *ret) {
        const Matrix *m = state_find_name(e, name);
        Uuid uuid;

        if (!m && uuid_parse(name, &uuid) >= 0) {
                m = state_find(e, uuid);
                if (!m && is_set_aside(e, uuid))
                        return -EBADMSG;
        }
        if (!m || !m->visible)
                return -ENOENT;
        *ret = m->rec.uuid;
        return 0;
}

int engine_list_matrices(Engine *e, Uuid **ret, size_t *ret_n) {
        Uuid *list = calloc(e->n_matrices + 1, sizeof *list);
        size_t n = 0;

        if (!list)
                return -ENOMEM;
        for (size_t i = 0; i < e->n_matrices; i++)
                if (e->by_name[i]->visible)
                        list[n++] = e->by_name[i]->rec.uuid;
        *ret = list;
        *ret_n = n;
        return 0;
}

int engine_get_xml(Engine *e, Uuid uuid, char **ret) {
        const Matrix *m = state_find(e, uuid);

        return m && m->visible ? record_to_xml(&m->rec, ret) : -ENOENT;
}

const Snapshot *engine_snapshot(const Engine *e) {
        return e->snapshot;
}

bool engine_is_ours(const Engine *e, Uuid uuid) {
        if (state_find(e, uuid) || state_is_own_mdev(e, uuid))
                return true;
        for (size_t i = 0; i < e->n_busy; i++) /* made, and only to be written down */
                if (uuid_equal(e->busy[i]->uuid, uuid) && e->busy[i]->kind == INTENT_CREATE)
                        return e->busy[i]->phase == OP_FINAL || e->busy[i]->phase == OP_UNDO;
        return false;
}

/* Of vfio_ap the kernel says it; of others it says nothing that could be asked at any time. */
bool engine_mdev_in_use(Engine *e, const HostMdev *mdev) {
        return mdev->use == MDEV_USE_GUEST || (!mdev->ap && *engine_mdev_guest(e, mdev->uuid));
}

const char *engine_mdev_state(const Engine *e, Uuid uuid) {
        const HostMdev *mdev = snapshot_find_mdev(e->snapshot, uuid);
        const Matrix *m = state_find(e, uuid);
        bool removing = (mdev && mdev->leaving) ||
                        (m && m->op && (m->op->kind == INTENT_STOP || m->op->kind == INTENT_UNDEFINE));

        for (size_t i = 0; i < e->n_busy; i++)
                removing |= uuid_equal(e->busy[i]->uuid, uuid) && e->busy[i]->kind == INTENT_REMOVE;
        for (size_t i = 0; i < e->n_unresolved; i++)
                removing |= uuid_equal(e->unresolved[i].intent.uuid, uuid) &&
                            intent_wants_finish(e->unresolved[i].intent.kind);
        return removing ? "removing" : "active";
}

void engine_queue_owner(const Engine *e, Apqn apqn, const char **ret_kind,
                        char ret_owner[static ENGINE_OWNER_SIZE]) {
        static const ClaimLayer order[] = {
                CLAIM_LAYER_MDEV,        CLAIM_LAYER_HOST,    CLAIM_LAYER_EXCLUSIVE,
                CLAIM_LAYER_ALTERNATIVE, CLAIM_LAYER_MDEVCTL,
        };

        for (size_t i = 0; i < ELEMENTS(order); i++) {
                Conflict c = { .apqn = apqn, .verdict = CLAIM_OVERLAP, .layer = order[i] };

                if (order[i] == CLAIM_LAYER_HOST) {
                        ApMask host = snapshot_host_owned(e->snapshot, apqn.adapter);

                        if (!ap_mask_test(&host, apqn.domain))
                                continue;
                        *ret_kind = "host";
                        ret_owner[0] = '\0';
                        return;
                }
                c.claim = claim_owner(e->claims, order[i], apqn);
                if (c.claim) {
                        (void) text_owner(e, &c, ret_kind, ret_owner);
                        return;
                }
        }
        *ret_kind = "free";
        ret_owner[0] = '\0';
}

const char *const *engine_problems(Engine *e) {
        static const char *const none[] = { NULL };
        char apmask[AP_MASK_STRING_SIZE], aqmask[AP_MASK_STRING_SIZE];
        char **lines = NULL;
        const char *what;
        unsigned stuck;
        int r = 0;

        for (size_t i = 0; i < e->loaded.n_bad && r >= 0; i++)
                r = strv_addf(&lines, "record '%s' is %s: %s", e->loaded.bad[i].file,
                              what_of_bad(&e->loaded.bad[i]), e->loaded.bad[i].reason);
        for (size_t i = 0; i < e->mdevctl.n_bad && r >= 0; i++)
                r = strv_addf(&lines, "mdevctl's definition '%s' cannot be read: %s", e->mdevctl.bad[i].file,
                              e->mdevctl.bad[i].reason);
        if (r >= 0 && e->mdevctl_error < 0)
                r = strv_addf(&lines, "mdevctl's definitions cannot be read: %s",
                              strerror(-e->mdevctl_error));
        if (r >= 0 && e->scan_error < 0)
                r = strv_addf(&lines, "the host's devices cannot be read: %s", text_error(e->scan_error));
        if (r >= 0 && e->store_failed)
                r = strv_addf(&lines, "the state directory cannot be written: changes are refused");
        if (r >= 0 && e->snapshot->detail_stuck)
                r = strv_addf(&lines,
                              "the kernel hangs on queue status and guest matrices: they are not known");

        stuck = e->host->ops->stuck(e->host, &what);
        if (r >= 0 && stuck > 0)
                r = stuck == 1
                            ? strv_addf(&lines, "a kernel operation hangs: %s", what)
                            : strv_addf(&lines, "%u kernel operations hang, the oldest is: %s", stuck, what);
        if (r >= 0 && e->unquiet && e->n_unresolved > 0)
                r = strv_addf(&lines, "%zu interrupted operation%s for the AP configuration lock",
                              e->n_unresolved, e->n_unresolved == 1 ? " waits" : "s wait");
        for (size_t i = 0; i < e->n_unresolved && r >= 0; i++)
                if (e->unresolved[i].text && !state_find(e, e->unresolved[i].intent.uuid))
                        r = strv_addf(&lines, "%s", e->unresolved[i].text);
        if (r >= 0 && boot_masks_differ(e))
                r = strv_addf(&lines,
                              "the host masks were changed by somebody else; they are to be %s and %s, "
                              "Reconcile sets them",
                              ap_mask_format(&e->loaded.apmask, apmask),
                              ap_mask_format(&e->loaded.aqmask, aqmask));
        if (r >= 0)
                r = host_problems(e, &lines);
        if (r >= 0)
                r = guests_general_problems(e, &lines);

        strv_free(e->problems);
        e->problems = lines;
        return lines ? (const char *const *) lines : none;
}
