/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* host_wire - the messages between daemon and disposable child over a stream socket: a length and a type,
 * then the content, in the machine's byte order, since both ends are one binary. Decoding trusts nothing.
 * What is under way is in the page that both share (host_page.h). */

#include "core/plan.h"
#include "core/snapshot.h"
#include "host/host_page.h"

#define WIRE_MESSAGE_MAX (64u << 20)
#define WIRE_HEADER_SIZE 8
#define WIRE_PLANS_MAX   HOST_PAGE_PLANS_MAX

typedef enum WireType {
        WIRE_KNOW,    /* to the child: HostKnown, replaces what it has */
        WIRE_JOB,     /* to the child */
        WIRE_GO_ON,   /* to the child: the job that is held may write */
        WIRE_PARTIAL, /* from the child: what is known before reading what may hang */
        WIRE_RESULT,  /* the job has ended; the outcomes are in the page */
        _WIRE_TYPE_MAX
} WireType;

typedef struct WireJob {
        bool execute; /* else scan */
        bool careful;
        bool held; /* nothing is written before WIRE_GO_ON */
        HostScan depth;
        uint64_t lock_timeout_us;
        Plan *plans;
        size_t n_plans;
} WireJob;

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
int wire_put_go_on(WireBuffer *b);
int wire_put_snapshot(WireBuffer *b, WireType partial_or_result, int error, const Snapshot *s);

/* Looks at the first @size bytes received. 0: more are needed; else the size of the whole message; -EBADMSG:
 * not one. */
ssize_t wire_peek(const uint8_t *data, size_t size, WireType *ret_type);

/* Decode the content of one whole message. 0, -EBADMSG or -ENOMEM; then *ret is untouched. */
int wire_get_know(const uint8_t *message, size_t size, WireKnow *ret);
int wire_get_job(const uint8_t *message, size_t size, WireJob *ret);
int wire_get_snapshot(const uint8_t *message, size_t size, WireResult *ret); /* PARTIAL and RESULT */

void wire_job_clear(WireJob *job);
