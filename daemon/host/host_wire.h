/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_wire - the messages between daemon and disposable child over a stream socket: a length and a type,
 * then the content, in the machine's byte order, since both ends are one binary. Decoding trusts nothing. */

#include "core/plan.h"
#include "core/snapshot.h"
#include "host/host.h"

#define WIRE_MESSAGE_MAX (64u << 20)
#define WIRE_HEADER_SIZE 8
#define WIRE_WHAT_SIZE   600
#define WIRE_PLANS_MAX   4096

typedef enum WireType {
        WIRE_KNOW,    /* to the child: HostKnown, replaces what it has */
        WIRE_JOB,     /* to the child */
        WIRE_BEGIN,   /* from the child: something begins that may hang */
        WIRE_ENDED,   /* a plan has ended */
        WIRE_PARTIAL, /* what is known before reading what may hang */
        WIRE_RESULT,  /* the job has ended */
        _WIRE_TYPE_MAX
} WireType;

typedef struct WireJob {
        bool execute; /* else scan */
        bool careful;
        HostScan depth;
        uint64_t lock_timeout_us;
        Plan *plans;
        size_t n_plans;
} WireJob;

typedef enum WirePhase { WIRE_PHASE_LOCK, WIRE_PHASE_SCAN, WIRE_PHASE_STEP, _WIRE_PHASE_MAX } WirePhase;

typedef struct WireBegin {
        WirePhase phase;
        uint32_t plan, step;   /* STEP */
        uint64_t allowance_us; /* STEP */
        char what[WIRE_WHAT_SIZE];
} WireBegin;

typedef struct WireEnded {
        uint32_t plan;
        HostOutcome outcome;
} WireEnded;

typedef struct WireResult {
        int error;          /* 0 or -errno */
        Snapshot *snapshot; /* may be NULL */
} WireResult;

typedef struct WireKnow {
        HostKnown *known;
        size_t n;
} WireKnow;

/* Bytes to be sent, appended to. */
typedef struct WireBuffer {
        uint8_t *data;
        size_t size, capacity;
} WireBuffer;

void wire_buffer_clear(WireBuffer *b);

/* Append one message. 0, -ENOMEM or -EMSGSIZE; then nothing is appended. */
int wire_put_know(WireBuffer *b, const HostKnown *known, size_t n);
int wire_put_job(WireBuffer *b, const WireJob *job);
int wire_put_begin(WireBuffer *b, const WireBegin *begin);
int wire_put_ended(WireBuffer *b, uint32_t plan, const HostOutcome *outcome);
int wire_put_snapshot(WireBuffer *b, WireType partial_or_result, int error, const Snapshot *s);

/* Looks at the first @size bytes received. 0: more are needed; else the size of the whole message; -EBADMSG:
 * not one. */
ssize_t wire_peek(const uint8_t *data, size_t size, WireType *ret_type);

/* Decode the content of one whole message. 0, -EBADMSG or -ENOMEM; then *ret is untouched. */
int wire_get_know(const uint8_t *message, size_t size, WireKnow *ret);
int wire_get_job(const uint8_t *message, size_t size, WireJob *ret);
int wire_get_begin(const uint8_t *message, size_t size, WireBegin *ret);
int wire_get_ended(const uint8_t *message, size_t size, WireEnded *ret);
int wire_get_snapshot(const uint8_t *message, size_t size, WireResult *ret); /* PARTIAL and RESULT */

void wire_job_clear(WireJob *job);
