/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* engine_internal - the engine's state, shared by its parts and by nobody else:
 *
 *   engine.c          life, scans, questions
 *   engine_state.c    matrices, marks, claims; taking over a new snapshot
 *   engine_op.c       how an operation goes: decide, journal, host, journal, answer
 *   engine_disk.c     what is written to the state directory, and when
 *   engine_request.c  what is asked for, read strictly
 *   engine_gather.c   what comes together goes together
 *   engine_mdevctl.c  mdevctl's definitions, and what mdevctl is about to do
 *   engine_hand.c     definitions that go from mdevctl to us, or from us to mdevctl
 *   engine_decide.c   what each kind of operation checks, claims and plans, and what it leaves behind
 *   engine_recover.c  what was in flight, and adoption
 *   engine_boot.c     what starts by itself
 *   engine_heal.c     Reconcile()
 *   engine_host.c     what the host has: queues reserved and released, masks persisted
 *   engine_text.c     sentences for people
 *   engine_guest*.c, engine_attach.c, engine_hold.c, engine_hook.c, engine_tpm.c   see engine_guest_internal.h
 *   intent.c          an operation as a line of the journal
 */

#include "base/worker.h"
#include "core/reconcile.h"
#include "engine/engine.h"
#include "engine/intent.h"
#include "host/mdevctl.h"
#include "store/marks.h"
#include "store/store.h"

#define ENGINE_CALLER_SIZE 32
#define ENGINE_TRIES_MAX   4      /* plans made anew because the host had changed under them */
#define ENGINE_BATCH_MAX   64     /* plans handed to the host at once */
#define ENGINE_COMMIT_MAX  256    /* operations in one commit */
#define ENGINE_BEGUN_MAX   128    /* operations begun by ourselves in one turn of the loop: about 2 ms */
#define MARKS_DIR          "live" /* below the runtime directory */

typedef struct Op Op;
typedef struct Matrix Matrix;
typedef struct Guests Guests;
typedef struct Reservation Reservation;
typedef struct HandOver HandOver;
typedef struct HostRequest HostRequest;
typedef struct RulesJob RulesJob;

struct Matrix {
        Record rec;
        bool visible; /* on disk, so shown; false while being defined */
        MarkKind mark;
        Op *op;                /* in flight, at most one */
        unsigned unresolved;   /* intents whose outcome is not known yet */
        char *autostart_error; /* why the last try failed */
        char **problems;       /* what was last told of it, NULL-terminated */
        uint64_t shown;        /* digest of what the bus shows of its definition */
        uint64_t shown_live;   /* and of what the host has */
};

typedef enum OpPhase {
        OP_FRESH,  /* waits for a scan begun after it came, then decides */
        OP_INTENT, /* its intent is on the way to the disk */
        OP_HOST,   /* its plan is with the host */
        OP_FINAL,  /* its result is on the way to the disk */
        OP_UNDO,   /* its result could not be stored: the host is brought back */
} OpPhase;

struct Op {
        Op *next;
        uint64_t id; /* of its intent; 0: none */
        IntentKind kind;
        OpPhase phase;
        Uuid uuid;
        Record record; /* DEFINE, MODIFY: as it is to become */
        bool has_record;
        bool start, stop, from_host;
        bool pending; /* START: only if it still waits for its autostart */
        bool hand; /* DEFINE, UNDEFINE: it comes from mdevctl, goes to mdevctl; what is live goes with it */
        bool adopts;      /* DEFINE: what is live is ours from now on */
        bool keep_matrix; /* MODIFY: only autostart changes */
        int autostart;    /* MODIFY: -1: as it is */
        bool set_guest;   /* MODIFY: to that of `record` */
        Uuid for_guest;   /* STOP: of what was started for it; it alone may hold it */
        bool fresh;       /* has been decided on a fresh scan */
        bool prepared;    /* INTENT: its plan is with the host, held back */
        unsigned round;   /* in which it began, state_show_begun_soon() */
        bool shown;       /* its matrix has been shown with it */
        Plan plan;
        Plan undo;        /* UNDO: what brings the host back */
        bool claims_live; /* target holds a tentative claim on what is live */
        ApMatrix target;
        bool has_shadow; /* a changed matrix is claimed under this uuid until it is done */
        Uuid shadow;
        char parent[SNAPSHOT_NAME_SIZE], type[SNAPSHOT_NAME_SIZE]; /* CREATE */
        EngineAttr *attrs;                                         /* CREATE: owned */
        size_t n_attrs;
        ApMask apmask, aqmask; /* MASKS */
        HostRequest *host;     /* HOST */
        char caller[ENGINE_CALLER_SIZE];
        uint64_t arrived; /* number of scans begun when it came */
        unsigned tries;
        int r;           /* OP_UNDO: why */
        Refusal refusal; /* OP_UNDO: what to answer */
        engine_done_t done;
        void *userdata;
};

typedef struct OpQueue {
        Op *first, *last;
        size_t n;
} OpQueue;

typedef struct CallerCount {
        char id[ENGINE_CALLER_SIZE];
        unsigned n;
} CallerCount;

/* An intent that was begun, and neither done nor undone as far as we know. */
typedef struct Unresolved {
        uint64_t id;
        Intent intent;
        Uuid shadow; /* its claims */
        bool tried;  /* undoing it has failed on the present host */
        bool busy;   /* being undone right now */
        char *text;  /* what is the matter with it; NULL: not known yet */
} Unresolved;

typedef struct CommitJob CommitJob;

typedef struct Waiter {
        void (*done)(void *userdata, int r);
        void *userdata;
        uint64_t arrived; /* number of scans begun when it came */
        bool detail;
        bool scanned; /* its scan has ended, with this result */
        int result;
        uint64_t
                read; /* scanned: it also waits until so many readings of mdevctl's definitions have ended */
        sd_event_source *timer; /* of engine_refresh() */
        struct Waiter *next;
        Engine *engine;
} Waiter;

typedef struct Healing Healing;
typedef struct Resolving Resolving;

struct Engine {
        sd_event *event;
        EngineConfig config;
        Host *host;
        int root_fd, marks_fd, inotify_fd;
        char *run_dir;
        engine_event_t event_cb;
        void *userdata;

        Matrix **by_uuid, **by_name; /* sorted */
        size_t n_matrices, allocated_matrices;
        Uuid *own_mdevs; /* marked MDEV: sorted */
        size_t n_own_mdevs;
        ClaimTable *claims;
        Snapshot *snapshot;
        int scan_error; /* of the last scan; 0: the snapshot is what there is */
        bool scanned;   /* there has been one */
        MdevctlContent mdevctl;
        int mdevctl_error, mdevctl_watches[3]; /* of inotify; 0: none */
        Reservation *reservations;
        HandOver *hand_overs, *handing; /* those that wait; the one that is under way */

        StoreContent loaded; /* bad records, masks to keep; records and intents are moved out */
        Store *store;
        bool store_failed, marks_failed; /* they take nothing at the moment */
        bool marks_lost;                 /* removed by somebody; not yet all written again */
        uint64_t last_op;

        Worker *worker;
        OpQueue fresh, commit, exec;
        CommitJob *committing;
        StoreEntry *lazy; /* ends of intents that go with the next commit */
        size_t n_lazy, allocated_lazy;
        Mark *lazy_marks;
        size_t n_lazy_marks, allocated_lazy_marks;
        sd_event_source *lazy_timer, *checkpoint_timer, *files_timer;
        bool files_since; /* there has been a commit since the timer was set */
        unsigned files_put_off;
        bool checkpointing; /* step by step, between what is answered */
        size_t files_min;   /* so many in a step, however long they take */
        Op **executing;     /* the batch with the host */
        size_t n_executing;
        bool held;    /* its intents are still on the way to the disk, so that the host writes nothing */
        size_t n_ops; /* in flight */
        HostRequest *host_requests;
        RulesJob *rules_jobs;
        bool rules_run; /* one of them is with the worker */
        Op *host_op;    /* that changes what the host has, at most one */
        Op **busy;      /* operations on mdevs without definition: at most one each */
        size_t n_busy;
        CallerCount *callers;
        size_t n_callers, allocated_callers;

        bool scanning, scan_wanted, detail_wanted, scan_is_detailed;
        bool stirred; /* the host changed while a batch was with it */
        bool mdevctl_reading, mdevctl_wanted;
        uint64_t n_scans, n_scanned; /* begun; of these ended */
        uint64_t n_reads, n_read;    /* of mdevctl's definitions: begun; of these ended */
        Waiter *waiters;
        sd_event_source *gather_idle, *gather_linger, *gather_timer;
        unsigned gathered, gather_usual; /* requests by now, and the last time */
        unsigned gather_alike;           /* so often it was the same number, in a row */
        bool look_wanted;
        sd_event_source *rescan_timer, *stir_timer, *show_timer, *begun_timer, *mdevctl_watch;
        unsigned begun_round; /* of what begins now; begun_timer is that of the rounds before */
        Uuid show_next;       /* the matrix at which showing all goes on */
        bool showing, show_again;

        Unresolved *unresolved;
        size_t n_unresolved;
        bool resting; /* the AP lock is waited for before recovery begins */
        bool unquiet; /* and was not had: a child of the daemon before us may still change the host */
        bool settled, boot_done, closing;
        bool host_differs;   /* since what has failed was last tried again */
        bool start_wanted;   /* what is pending is to be tried again when nothing is being undone */
        bool masks_refused;  /* the kernel refused masks as if there were an override, but there is none */
        bool masks_doubtful; /* which a scan in detail has still to see */
        bool persisting;     /* the rules file is being written */
        bool masks_pending;  /* the masks that we keep are still to be set at this boot */
        unsigned n_autostarting; /* and 1 for whoever has still to begin some */
        sd_event_source *autostart_source;
        Uuid autostart_next; /* the matrix at which beginning them goes on */
        Healing *healing;
        Resolving *resolving; /* what is being undone, at most one batch */
        void (*ready_cb)(void *userdata);
        void *ready_userdata;

        Guests *guests; /* what is known of them; NULL: only while the engine is made */

        char **problems; /* of the whole */
        bool stuck_logged;
};

/* ---- engine.c ---- */

/* A scan for those who wait; for operations only it waits for a batch that is with the host. */
void engine_look(Engine *e);
/* A batch has ended in which the host changed, perhaps by others: a scan, unless the next batch begins soon. */
void engine_stirred(Engine *e);
/* Waits for the AP lock, so that nobody is in the middle of a change, then scans. */
void engine_rest(Engine *e);

/* A scan that begins after this, then @done. */
int engine_wait_scan(Engine *e, void (*done)(void *userdata, int r), void *userdata);
/* Answers those whose scan has ended, and so have the readings of mdevctl's definitions that were due then. */
void engine_wake_waiters(Engine *e);

/* ---- engine_mdevctl.c ---- */

/* Finishes what was interrupted while a definition changed hands, reads them all, watches them. */
int mdevctl_start(Engine *e);
void mdevctl_end_all(Engine *e);
/* Looks for changes since the last time, without waiting for the loop, and reads what there is then. */
void mdevctl_check(Engine *e);
/* They have been read, or a scan has ended: who waits for both goes on. */
void mdevctl_step(Engine *e);
/* Claims of what mdevctl is about to do, or of what changes hands: after its definitions were claimed anew. -ENOMEM. */
int mdevctl_claim_reserved(Engine *e);
/* Of definition @uuid, as it was last read; NULL: there is none. */
const MdevctlDefinition *mdevctl_find(const Engine *e, Uuid uuid);
/* Why its file could not be read; NULL: it could be, or is not there. */
const char *mdevctl_find_bad(const Engine *e, Uuid uuid);
/* BAD_STATE if somebody is at it. */
int mdevctl_need_not_reserved(Engine *e, Uuid uuid, Refusal *reterr);
/* @matrix is claimed as mdevctl's definition until it is released, whatever its files say meanwhile. */
int mdevctl_reserve(Engine *e, Uuid uuid, const ApMatrix *matrix);
/* Once it has been seen what mdevctl has now. */
void mdevctl_release(Engine *e, Uuid uuid);

/* ---- engine_hand.c ---- */

int hand_recover(Engine *e);
/* As mdevctl_step(). */
void hand_step(Engine *e);
void hand_end_all(Engine *e);

/* ---- engine_state.c ---- */

/* The index in by_uuid of the first matrix that does not come before @uuid: where a walk in slices goes on. */
size_t state_place(const Engine *e, Uuid uuid);
/* -ENOENT is NULL. */
Matrix *state_find(const Engine *e, Uuid uuid);
Matrix *state_find_name(const Engine *e, const char *name);
/* Takes @rec over. -ENOMEM, -EEXIST. */
int state_add(Engine *e, Record *rec, Matrix **ret);
void state_remove(Engine *e, Matrix *m);
/* Takes @rec, which has the same uuid, over. */
int state_replace(Engine *e, Matrix *m, Record *rec);
void state_free_all(Engine *e);

bool state_is_own_mdev(const Engine *e, Uuid uuid);
int state_add_own_mdev(Engine *e, Uuid uuid);
void state_drop_own_mdev(Engine *e, Uuid uuid);

/* Where the claims of a definition lie. */
ClaimLayer state_definition_layer(const Record *rec);
/* Sets or renews the claims of a definition, and of what is live under @uuid. -ENOMEM. */
int state_claim_definition(Engine *e, const Matrix *m);
int state_claim_live(Engine *e, Uuid uuid, const Op *op);
void state_unclaim(Engine *e, const Matrix *m);
int state_claim_mdevctl(Engine *e);

/* Makes @s the present state (takes it over, also on error), renews claims, tells the bus. -ENOMEM. */
int state_take_snapshot(Engine *e, Snapshot *s);

/* Tells the host what our mdevs have, where the kernel gives no safe way to read it. -ENOMEM: they stay
 * unknown. */
int state_vouch(Engine *e, bool scan);

Wanted state_wanted(const Matrix *m);
MatrixState state_of(const Engine *e, const Matrix *m);
/* The lines about @m; free with strv_free(). NULL: out of memory. */
char **state_problems(Engine *e, const Matrix *m);
/* Tells the bus about @m if what it shows has changed. */
void state_show(Engine *e, Matrix *m);
/* The same for all, a little later. */
void state_show_all_soon(Engine *e);
/* With @op, once that has lasted a while: what is done by then is shown once, with its result. */
void state_show_begun_soon(Engine *e, Op *op);
void state_emit(Engine *e, const EngineKey *key, EngineChange change);
void state_emit_matrix(Engine *e, const Matrix *m, EngineChange change);
void state_emit_manager(Engine *e);

/* ---- engine_op.c ---- */

/* NULL: out of memory. */
Op *op_new(IntentKind kind, Uuid uuid, const EngineCaller *c, engine_done_t done, void *userdata);
Op *op_free(Op *op);
/* Counts it for its caller. > 0: LIMIT_HIT. */
int op_admit(Engine *e, Op *op, Refusal *reterr);
/* Takes @op over: decides it now, or after a scan, and carries it on. */
void op_begin(Engine *e, Op *op);
/* Those for whom a scan, or a reading of mdevctl's definitions, has ended. */
void op_decide_waiting(Engine *e);
/* What @op waited for is on the disk, or could not be written. */
void op_stored(Engine *e, Op *op, int r);
/* Hands what waits for the host to it, unless it is busy. */
void op_execute(Engine *e);
/* The same for those of @ops whose intents are on the way to the disk, held back: the host is looked at meanwhile. */
void op_prepare(Engine *e, const OpQueue *ops);
/* They could not be written: nothing comes of what is held back. */
void op_unprepare(Engine *e);
/* They are on the disk, and op_stored() was told of all. */
void op_go_on(Engine *e);
/* Releases what it held, answers. @refusal is taken over. */
void op_finish(Engine *e, Op *op, int r, Refusal *refusal);
void op_push(OpQueue *q, Op *op);
Op *op_pop(OpQueue *q);
/* At the end: drops what is under way, writes what is late, ends the file worker. */
void op_drain(Engine *e);

/* ---- engine_disk.c ---- */

/* Writes what waits for the disk, unless that is being done. */
void op_commit(Engine *e);
/* An entry that need not be durable before anything else happens. Takes @entry over. */
void op_commit_lazily(Engine *e, StoreEntry *entry);
/* The same of a mark: on disk before the ends of intents that go with it. */
void op_commit_mark(Engine *e, Uuid uuid, MarkKind kind);
/* Whether somebody has removed the runtime directory: it is made again, and all marks are. */
void op_look_after_marks(Engine *e);
/* Lazily, both: the intent is not open any more; the mark that was set before the first write is as before. */
void op_end_intent(Engine *e, Op *op);
void op_take_back_mark(Engine *e, const Op *op);
/* At the end: writes what is late, ends the file worker. */
void op_commit_drain(Engine *e);

/* ---- engine_gather.c ---- */

/* A scan, or a commit, with all that the loop has at hand. */
void gather_look(Engine *e);
void gather_commit(Engine *e);
void gather_end(Engine *e); /* what is wanted by now was gathered before */

/* ---- engine_decide.c ---- */

/* What a question is about. */
enum {
        REQUEST_DEFINE = 1 << 0,       /* a definition */
        REQUEST_LIVE = 1 << 1,         /* a live mdev; both: a definition that is started at once */
        REQUEST_ALTERNATIVE = 1 << 2,  /* the definition is an alternative */
        REQUEST_FROM_HOST = 1 << 3,    /* queues of the host's drivers may be taken */
        REQUEST_FROM_MDEVCTL = 1 << 4, /* definitions of mdevctl may have them, too, as they had before */
};
ClaimQuery request_query(const ApMatrix *m, Uuid self, unsigned what);
unsigned request_flags(const Record *rec);

/* BACKEND unless the host can be asked about AP queues. */
int request_need_ap(Engine *e, bool vfio_ap, Refusal *reterr);
/* A matrix on which nothing else is going on. */
int request_need_matrix(Engine *e, Uuid uuid, Matrix **ret, Refusal *reterr);

/* Checks @op against what is known, places its claims, makes its plan. 0; > 0 a verdict with *reterr,
 * nothing placed; < 0. */
int request_decide(Engine *e, Op *op, Refusal *reterr);
/* Removes the claims that request_decide() placed. */
void request_release(Engine *e, Op *op);
/* The host is as wanted and the disk, too: makes it so in memory. */
int request_apply(Engine *e, Op *op);
/* Masks that we are to keep follow what is taken from the host for a matrix: whether @p does, then the
 * entry that says so. It goes to the disk together with the end of the intent. */
bool request_keeps_masks(const Engine *e, IntentKind kind, const Plan *p, StoreEntry *ret);

/* ---- engine_host.c ---- */

/* As request_decide() of INTENT_HOST. */
int host_decide(Engine *e, Op *op, Refusal *reterr);
/* Who keeps the kernel from setting the masks that @step wants, for EBUSY; false: nobody is known. */
bool host_find_blocker(const Engine *e, const PlanStep *step, Apqn *ret_apqn, Uuid *ret_mdev);
/* Why it takes no masks at all, for EINVAL. */
int host_refuse_masks(Engine *e, Refusal *reterr);
/* Appends what is wrong with what the host has. */
int host_problems(const Engine *e, char ***lines);
void host_drain(Engine *e); /* at the end */

/* ---- engine_recover.c ---- */

/* Takes over what the journal had open. */
int recover_load(Engine *e);
/* After each new snapshot: resolve, adopt, then boot_step(). */
void recover_step(Engine *e);
/* Also what was tried in vain before. */
void recover_now(Engine *e);
/* What was interrupted is done, undone, or waits for the kernel; or the host cannot be looked at. */
void recover_ready(Engine *e);
/* An operation whose outcome is not known: @text is taken over. */
int recover_add(Engine *e, const Op *op, char *text);
void recover_free(Engine *e);
/* The largest matrix that may be found of an interrupted operation, if that can be read safely. */
bool recover_vouch(const Intent *i, ApMatrix *ret);

/* ---- engine_boot.c ---- */

/* Starts what is to be started on this host, when that has become possible. */
void boot_step(Engine *e);
/* Whether there are host masks that we are to keep, and the host has others. */
bool boot_masks_differ(const Engine *e);
/* The host masks are as we are to keep them. */
void boot_masks_are_set(Engine *e);
void boot_free(Engine *e);

/* ---- engine_heal.c ---- */

void heal_free(Engine *e);

/* ---- engine_guest.c ---- */

int guests_load(Engine *e, int run_fd);
/* The directory of holds is another one: they are written there. */
void hold_again(Engine *e, int run_fd);
void guests_drain(Engine *e);
void guests_free(Engine *e);
/* Something about this matrix or mdev may be different; @names: also whether there is one. */
void guests_matrix_changed(Engine *e, Uuid uuid, bool names);
/* The host is known for the first time, or recovery has ended. */
void guests_settled(Engine *e);
/* Appends what is the matter with @m, or with the whole, because of guests. */
int guests_matrix_problems(Engine *e, const Matrix *m, char ***lines);
int guests_general_problems(Engine *e, char ***lines);
/* Whether a guest but @but has, or is about to have, @uuid: IN_USE. */
int guests_need_not_held(Engine *e, Uuid uuid, Uuid but, const char *what, const char *name,
                         Refusal *reterr);
/* The same for one that would have it when it is started. */
int guests_need_not_named(Engine *e, const Matrix *m, Refusal *reterr);

/* ---- engine_text.c ---- */

/* Fills @reterr; returns @verdict, or -ENOMEM. */
int refuse(Refusal *reterr, Verdict verdict, int error, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
/* The refusal for the conflicts of @q: which, whose, and what is free instead. */
int refuse_conflicts(Engine *e, const ClaimQuery *q, Refusal *reterr);
/* That somebody has mdev @uuid: which guest, if libvirt tells. @error is the kernel's, or 0. */
int refuse_in_use(Engine *e, Uuid uuid, const char *what, const char *name, int error, Refusal *reterr);
/* What to say of a host that did not carry out @op. */
int refuse_outcome(Engine *e, const Op *op, const HostOutcome *outcome, Refusal *reterr);
/* strerror() for people: what our own layers mean by some of them. */
const char *text_error(int error);
/* That a commit has failed: the state directory could not be written, or if that could the marks. */
int refuse_store(const Engine *e, int error, Refusal *reterr);
EngineConflict *text_conflicts(Engine *e, const Conflict *conflicts, size_t *n);
const char *text_owner(const Engine *e, const Conflict *c, const char **ret_kind,
                       char buf[static ENGINE_OWNER_SIZE]);

/* ---- small things ---- */

char **strv_free(char **lines);
/* Appends a formatted line; on -ENOMEM *lines is as before. */
int strv_addf(char ***lines, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool strv_equal(char *const *a, char *const *b);
