/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* mdevctl's definitions: they are read whenever they change, and claimed. And what mdevctl is about to do, as its callout
 * tells: that is decided like a request of ours, and claimed until what came of it has been read and seen. */

#include "engine/engine_mdevctl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "engine/engine_internal.h"

typedef enum ReservationState {
        RESERVATION_ASKED, /* waits for a look */
        RESERVATION_HELD,
        RESERVATION_ENDED, /* waits for a look at what came of it */
} ReservationState;

struct Reservation {
        Engine *engine;
        Reservation *next;
        ReservationState state;
        MdevctlAction action;
        Uuid uuid, claim; /* claim: under which uuid it lies in the table */
        ApMatrix matrix;
        ClaimLayer layer;
        uint64_t arrived; /* number of scans begun when it came, or ended: it waits for a later one */
        int pidfd;
        sd_event_source *watch;
        char caller[ENGINE_CALLER_SIZE];
        engine_done_t done; /* ASKED */
        void *userdata;
};

/* ---- reading ---- */

typedef struct MdevctlJob {
        Work work;
        Engine *engine;
        int root_fd;
        MdevctlContent content;
} MdevctlJob;

static int mdevctl_run(Work *w) {
        MdevctlJob *job = CONTAINER_OF(w, MdevctlJob, work);

        return mdevctl_read(job->root_fd, &job->content);
}

static void mdevctl_taken(Engine *e, int r, MdevctlContent *content) {
        if (r < 0 && e->mdevctl_error >= 0)
                log_warning("Cannot read mdevctl's definitions, keeping what was known: %s", strerror(-r));
        e->mdevctl_error = r;
        if (r >= 0) {
                mdevctl_content_clear(&e->mdevctl);
                e->mdevctl = *content;
                *content = (MdevctlContent) {};
                if (state_claim_mdevctl(e) < 0)
                        log_error("Out of memory while taking over mdevctl's definitions");
        }
}

static void mdevctl_done(Work *w, int r) {
        MdevctlJob *job = CONTAINER_OF(w, MdevctlJob, work);
        Engine *e = job->engine;

        e->mdevctl_reading = false;
        e->n_read++;
        if (!e->closing) {
                mdevctl_taken(e, r, &job->content);
                state_emit_manager(e);
                state_show_all_soon(e);
                mdevctl_check(e);
                mdevctl_step(e);
                hand_step(e);
                op_decide_waiting(e);
                engine_wake_waiters(e);
        }
        mdevctl_content_clear(&job->content);
        free(job);
}

static bool mdevctl_watch_one(Engine *e, size_t i) {
        static const char *const dirs[] = { "etc/mdevctl.d/matrix", "etc/mdevctl.d", "etc" };
        char path[64];
        int wd;

        static_assert(ELEMENTS(dirs) == ELEMENTS(e->mdevctl_watches), "each has its watch");
        (void) snprintf(path, sizeof path, "/proc/self/fd/%d/%s", e->root_fd, dirs[i]);
        wd = inotify_add_watch(e->inotify_fd, path,
                               IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                                       IN_DELETE_SELF | IN_MOVE_SELF | IN_ATTRIB | IN_ONLYDIR);
        e->mdevctl_watches[i] = MAX(wd, 0); /* they are numbered from 1 */
        return wd >= 0;
}

/* The directory, or the one above it while it is not there yet: others write there for reasons of their own. */
static void mdevctl_watch(Engine *e) {
        size_t i = 0;

        while (i < ELEMENTS(e->mdevctl_watches) && !mdevctl_watch_one(e, i))
                i++;
        while (i > 0 && mdevctl_watch_one(e, i - 1)) /* it has come meanwhile */
                i--;
        for (size_t k = i + 1; k < ELEMENTS(e->mdevctl_watches); k++)
                if (e->mdevctl_watches[k] > 0) {
                        (void) inotify_rm_watch(e->inotify_fd, e->mdevctl_watches[k]);
                        e->mdevctl_watches[k] = 0;
                }
}

void mdevctl_check(Engine *e) {
        char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
        MdevctlJob *job;

        while (read(e->inotify_fd, events, sizeof events) > 0)
                e->mdevctl_wanted = true;
        if (!e->mdevctl_wanted || e->mdevctl_reading || e->closing)
                return;

        mdevctl_watch(e);
        job = calloc(1, sizeof *job);
        if (!job)
                return;
        job->work = (Work) { .run = mdevctl_run, .done = mdevctl_done };
        job->engine = e;
        job->root_fd = e->root_fd;
        if (worker_submit(e->worker, &job->work) < 0) {
                free(job);
                return;
        }
        e->mdevctl_wanted = false;
        e->mdevctl_reading = true;
        e->n_reads++;
}

static int on_mdevctl(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        mdevctl_check(userdata);
        return 0;
}

int mdevctl_start(Engine *e) {
        MdevctlContent content = {};
        int r;

        r = hand_recover(e);
        if (r < 0)
                return r;

        e->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (e->inotify_fd < 0)
                return -errno;
        r = sd_event_add_io(e->event, &e->mdevctl_watch, e->inotify_fd, EPOLLIN, on_mdevctl, e);
        if (r < 0)
                return r;
        mdevctl_watch(e);
        mdevctl_taken(e, mdevctl_read(e->root_fd, &content), &content);
        return 0;
}

const MdevctlDefinition *mdevctl_find(const Engine *e, Uuid uuid) {
        size_t low = 0, high = e->mdevctl.n_definitions;

        while (low < high) {
                size_t middle = (low + high) / 2;
                int order = uuid_compare(e->mdevctl.definitions[middle].uuid, uuid);

                if (order == 0)
                        return &e->mdevctl.definitions[middle];
                if (order < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return NULL;
}

const char *mdevctl_find_bad(const Engine *e, Uuid uuid) {
        char text[UUID_STRING_SIZE];

        uuid_format(uuid, text);
        for (size_t i = 0; i < e->mdevctl.n_bad; i++)
                if (strcmp(e->mdevctl.bad[i].file, text) == 0)
                        return e->mdevctl.bad[i].reason;
        return NULL;
}

bool engine_mdevctl_get(const Engine *e, size_t i, EngineMdevctl *ret) {
        const MdevctlContent *c = &e->mdevctl;

        if (i >= c->n_definitions + c->n_bad)
                return false;
        if (i < c->n_definitions)
                *ret = (EngineMdevctl) { .uuid = c->definitions[i].uuid,
                                         .autostart = c->definitions[i].autostart,
                                         .matrix = c->definitions[i].matrix,
                                         .file = "" };
        else
                *ret = (EngineMdevctl) { .problem = c->bad[i - c->n_definitions].reason,
                                         .file = c->bad[i - c->n_definitions].file };
        return true;
}

/* ---- what is reserved ---- */

static Reservation *find_reserved(const Engine *e, Uuid uuid) {
        for (Reservation *v = e->reservations; v; v = v->next)
                if (uuid_equal(v->uuid, uuid) && v->state == RESERVATION_HELD)
                        return v;
        return NULL;
}

int mdevctl_need_not_reserved(Engine *e, Uuid uuid, Refusal *reterr) {
        char text[UUID_STRING_SIZE];

        return find_reserved(e, uuid)
                       ? refuse(reterr, VERDICT_BAD_STATE, 0,
                                "mdevctl, or an import or export, is at work on definition %s right now",
                                uuid_format(uuid, text))
                       : 0;
}

static int reservation_claim(Engine *e, const Reservation *v) {
        char name[UUID_STRING_SIZE];
        Claim c = { .layer = v->layer,
                    .uuid = v->claim,
                    .name = uuid_format(v->uuid, name),
                    .operation = true,
                    .matrix = v->matrix };

        return claim_table_put(e->claims, &c);
}

int mdevctl_claim_reserved(Engine *e) {
        int r = 0;

        for (const Reservation *v = e->reservations; v && r >= 0; v = v->next)
                if (v->state != RESERVATION_ASKED && v->layer == CLAIM_LAYER_MDEVCTL)
                        r = reservation_claim(e, v);
        return r;
}

static void reservation_drop(Engine *e, Reservation *v) {
        Reservation **p = &e->reservations;

        while (*p != v)
                p = &(*p)->next;
        *p = v->next;

        if (v->state != RESERVATION_ASKED && !e->closing) {
                claim_table_drop(e->claims, v->layer, v->claim);
                if (uuid_equal(v->claim, v->uuid)) /* in whose place it was */
                        (void) state_claim_mdevctl(e);
        }
        sd_event_source_disable_unref(v->watch);
        fd_close(v->pidfd);
        free(v);
}

static Reservation *reservation_new(Engine *e, Uuid uuid, ReservationState state) {
        Reservation *v = malloc(sizeof *v), **p = &e->reservations;

        if (!v)
                return NULL;
        *v = (Reservation) { .engine = e,
                             .state = state,
                             .uuid = uuid,
                             .pidfd = -1,
                             .layer = CLAIM_LAYER_MDEVCTL,
                             .arrived = e->n_scans };
        while (*p) /* they are answered in the order in which they came */
                p = &(*p)->next;
        *p = v;
        return v;
}

static void on_looked(void *userdata, int r) {
        mdevctl_step(userdata);
}

static void reservation_end(Engine *e, Reservation *v) {
        v->state = RESERVATION_ENDED;
        v->arrived = e->n_scans;
        v->watch = sd_event_source_disable_unref(v->watch);
        (void) engine_wait_scan(e, on_looked, e); /* else the next one does */
}

int mdevctl_reserve(Engine *e, Uuid uuid, const ApMatrix *matrix) {
        Reservation *v = reservation_new(e, uuid, RESERVATION_HELD);
        int r;

        if (!v)
                return -ENOMEM;
        v->claim = uuid;
        v->matrix = *matrix;
        r = reservation_claim(e, v);
        if (r < 0)
                reservation_drop(e, v);
        return r;
}

void mdevctl_release(Engine *e, Uuid uuid) {
        Reservation *v = find_reserved(e, uuid);

        if (v)
                reservation_end(e, v);
}

/* ---- what mdevctl is about to do ---- */

static int on_process(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        Reservation *v = userdata;

        log_warning("mdevctl has ended without saying so, looking at what it has done");
        reservation_end(v->engine, v);
        return 0;
}

/* What is ours is ours to change, whichever tool is asked. */
static int need_theirs(Engine *e, const Reservation *v, Refusal *reterr) {
        static const char *const instead[] = {
                [MDEVCTL_DEFINE] = "modify", [MDEVCTL_MODIFY] = "modify", [MDEVCTL_LIVE] = "modify",
                [MDEVCTL_START] = "start",   [MDEVCTL_STOP] = "stop",     [MDEVCTL_UNDEFINE] = "undefine",
        };
        const Matrix *m = state_find(e, v->uuid);
        char text[UUID_STRING_SIZE];

        if (m)
                return refuse(
                        reterr, VERDICT_NOT_OURS, 0,
                        "%s is matrix '%s' of guestcrypt; use 'guestcryptctl %s', or give it to mdevctl with "
                        "'guestcryptctl export mdevctl'",
                        uuid_format(v->uuid, text), m->rec.name, instead[v->action]);
        if (engine_is_ours(e, v->uuid))
                return refuse(reterr, VERDICT_NOT_OURS, 0,
                              "%s was made by guestcrypt; use 'guestcryptctl mdev-remove' to be rid of it",
                              uuid_format(v->uuid, text));
        return 0;
}

static bool is_within(const ApMatrix *m, const ApMatrix *of) {
        ApMask a = ap_mask_and_not(&m->adapters, &of->adapters),
               d = ap_mask_and_not(&m->domains, &of->domains);

        return ap_mask_is_empty(&a) && ap_mask_is_empty(&d);
}

/* The same check as that of a request of ours. What a definition or device has already, it may keep. */
static int decide_theirs(Engine *e, const Reservation *v, Refusal *reterr) {
        const MdevctlDefinition *d = mdevctl_find(e, v->uuid);
        const HostMdev *mdev = snapshot_find_mdev(e->snapshot, v->uuid);
        bool live = v->action == MDEVCTL_START || v->action == MDEVCTL_LIVE;
        ClaimQuery q = request_query(&v->matrix, v->uuid, REQUEST_DEFINE | (live ? REQUEST_LIVE : 0));
        int r;

        r = need_theirs(e, v, reterr);
        if (r == 0)
                r = mdevctl_need_not_reserved(e, v->uuid, reterr);
        if (r != 0 || v->action == MDEVCTL_STOP || v->action == MDEVCTL_UNDEFINE)
                return r;

        r = request_need_ap(e, live, reterr);
        if (r != 0)
                return r;
        if (v->action == MDEVCTL_MODIFY && d && is_within(&v->matrix, &d->matrix))
                return 0;
        if (v->action == MDEVCTL_LIVE && mdev && mdev->matrix_known && is_within(&v->matrix, &mdev->matrix))
                return 0;
        if (live && d) /* its definition stands against the others' already */
                q.layers &= ~CLAIM_LAYER_BIT(CLAIM_LAYER_MDEVCTL);
        return claim_check(e->claims, &q) == CLAIM_FREE ? 0 : refuse_conflicts(e, &q, reterr);
}

static int hold(Engine *e, Reservation *v) {
        int r;

        r = uuid_random(&v->claim);
        if (r < 0)
                return r;
        v->layer = v->action == MDEVCTL_START || v->action == MDEVCTL_LIVE ? CLAIM_LAYER_MDEV
                                                                           : CLAIM_LAYER_MDEVCTL;
        r = reservation_claim(e, v);
        if (r < 0)
                return r;
        v->state = RESERVATION_HELD;
        /* at once if it has ended already */
        return sd_event_add_io(e->event, &v->watch, v->pidfd, EPOLLIN, on_process, v);
}

static void answer(Engine *e, Reservation *v) {
        CLEANUP(refusal_clear) Refusal refusal = {};
        engine_done_t done = v->done;
        void *userdata = v->userdata;
        Uuid uuid = v->uuid;
        int r;

        engine_discharge(e, v->caller);
        r = decide_theirs(e, v, &refusal);
        if (r == 0 && v->action != MDEVCTL_STOP && v->action != MDEVCTL_UNDEFINE)
                r = hold(e, v);
        if (v->state == RESERVATION_ASKED || r < 0)
                reservation_drop(e, v);
        done(userdata, r, r > 0 ? &refusal : NULL, uuid);
}

void mdevctl_step(Engine *e) {
        Reservation *v = e->reservations;

        while (v && !e->mdevctl_reading && !e->mdevctl_wanted && !e->closing) {
                if (v->arrived >= e->n_scanned || v->state == RESERVATION_HELD) {
                        v = v->next;
                        continue;
                }
                if (v->state == RESERVATION_ASKED)
                        answer(e, v);
                else
                        reservation_drop(e, v);
                v = e->reservations; /* whoever was answered may have asked again */
        }
}

int engine_mdevctl_begin(Engine *e, MdevctlAction action, Uuid uuid, const char *json, int pidfd,
                         const EngineCaller *c, engine_done_t done, void *userdata, Refusal *reterr) {
        CLEANUP(mdevctl_file_clear) MdevctlFile f = {};
        const char *problem;
        Reservation *v;
        int r;

        if (action != MDEVCTL_STOP && action != MDEVCTL_UNDEFINE) {
                r = mdevctl_parse(json, strlen(json), &f, &problem);
                if (r == -EBADMSG)
                        return refuse(reterr, VERDICT_INVALID, 0,
                                      "what mdevctl is to make cannot be read: %s", problem);
                if (r < 0)
                        return r;
        }

        r = engine_admit(e, c->id, reterr);
        if (r != 0)
                return r;
        v = reservation_new(e, uuid, RESERVATION_ASKED);
        if (!v) {
                engine_discharge(e, c->id);
                return -ENOMEM;
        }
        (void) snprintf(v->caller, sizeof v->caller, "%s", c->id);
        v->action = action;
        v->matrix = f.d.matrix;
        v->done = done;
        v->userdata = userdata;
        v->pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 3);
        r = v->pidfd < 0 ? -errno : engine_wait_scan(e, on_looked, e);
        if (r < 0) {
                engine_discharge(e, c->id);
                reservation_drop(e, v);
        }
        return MIN(r, 0);
}

/* Whom a pidfd is of; 0: a process that is gone, or that we cannot see. */
static int process_of(int pidfd) {
        CLEANUP(fclosep) FILE *f = NULL;
        char line[128];
        int pid = 0;

        (void) snprintf(line, sizeof line, "/proc/self/fdinfo/%d", pidfd);
        f = fopen(line, "re");
        while (f && pid == 0 && fgets(line, sizeof line, f))
                if (strncmp(line, "Pid:", strlen("Pid:")) == 0)
                        pid = atoi(line + strlen("Pid:"));
        return MAX(pid, 0);
}

/* The callout of an mdevctl that was killed lives on for a while, and by then another mdevctl may be at work on the same: what
 * that one has begun is not over. */
void engine_mdevctl_end(Engine *e, Uuid uuid, int pidfd) {
        Reservation *v = find_reserved(e, uuid);
        int process = process_of(pidfd);

        if (!v || !v->watch) /* which those of an import or export do not have */
                return;
        if (process > 0 && process == process_of(v->pidfd))
                reservation_end(e, v);
}

void mdevctl_end_all(Engine *e) {
        while (e->reservations)
                reservation_drop(e, e->reservations);
        hand_end_all(e);
        sd_event_source_disable_unref(e->mdevctl_watch);
        fd_close(e->inotify_fd);
        mdevctl_content_clear(&e->mdevctl);
}
