/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/device.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "base/cleanup.h"
#include "drivers/virtio-tpm/codec.h"
#include "drivers/virtio-tpm/report.h"
#include "drivers/virtio-tpm/turn.h"

/* What stands above is in the record before what stands below, at whatever instruction the process ends. */
#define RECORD() __asm__ volatile("" ::: "memory")

static bool bit(uint64_t features, unsigned n) {
        return features >> n & 1;
}

static void count_latency(DeviceCounters *c, uint64_t ns) {
        uint64_t us = ns / 1000;
        unsigned i = 0;

        c->latency_sum_ns += ns;
        c->latency_max_ns = MAX(c->latency_max_ns, ns);
        while (i < DEVICE_LATENCY_BUCKETS - 1 && us > UINT64_C(1) << i)
                i++;
        c->latency[i]++;
}

/* Nothing in the ring can be trusted any longer. */
static void set_broken(Device *d) {
        DeviceState *s = d->s;

        report(LOG_WARNING, "the guest's ring makes no sense; the device needs a reset");
        s->broken = 1;
        s->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        s->counters.broken_rings++;
        s->attached = 0;
        d->ops->broken(d->userdata);
}

static void set_idle(Device *d) {
        d->s->phase = DEVICE_IDLE;
        RECORD();
        d->s->attached = d->s->resumable = d->s->answering = 0;
        if (d->idle)
                d->idle(d->idle_userdata);
}

/* Gives the response, or none if the room is too small for any, to the chain that waits, if the ring can be had now. */
static void answer(Device *d) {
        const uint8_t *response;
        uint8_t failure[VIRTIO_TPM_HEADER_SIZE];
        DeviceState *s = d->s;
        uint32_t size = s->response_size;

        response = s->response;
        if (size > s->chain.room) {
                /* of a response that does not fit nothing is written: half of one could be taken for a whole */
                codec_put_error(failure, VIRTIO_TPM_RC_FAILURE);
                response = failure;
                size = s->chain.room >= sizeof failure ? sizeof failure : 0;
                s->counters.too_large++;
        }
        if (ring_put(d->memory, &s->chain, response, size) < 0)
                size = 0;

        s->used_at = s->ring.next_used;
        RECORD();
        s->answering = 1;
        RECORD();
        if (ring_complete(&s->ring, d->memory, s->chain.head, size) < 0) {
                s->counters.dropped++;
                return;
        }

        s->counters.bytes_out += size;
        if (ring_wants_interrupt(&s->ring, d->memory))
                d->ops->used(d->userdata);
}

/* The request in flight is over: answered if somebody waits for it now, kept if somebody may yet ask. */
static void finish(Device *d) {
        DeviceState *s = d->s;

        if (s->phase != DEVICE_DONE)
                return;

        if (!s->attached) {
                if (!s->resumable)
                        set_idle(d);
                return;
        }
        if (!s->running || s->broken)
                return; /* when it runs again */

        answer(d);
        set_idle(d);
}

static void respond(Device *d, const uint8_t *response, size_t size) {
        DeviceState *s = d->s;

        memcpy(s->response, response, size);
        s->response_size = (uint32_t) size;
        RECORD();
        s->phase = DEVICE_DONE;
        RECORD();
        finish(d);
}

static void respond_error(Device *d, uint32_t code) {
        uint8_t response[VIRTIO_TPM_HEADER_SIZE];

        codec_put_error(response, code);
        respond(d, response, sizeof response);
}

/* Hands the request to the TPM, if it can take one. */
static void submit(Device *d) {
        DeviceState *s = d->s;

        if (s->phase != DEVICE_QUEUED)
                return;

        if (tpm_failed(d->tpm)) {
                s->counters.failed++;
                respond_error(d, VIRTIO_TPM_RC_FAILURE);
                return;
        }
        if (!tpm_ready(d->tpm))
                return;

        d->tpm->s->sent = s->unsure = 0;
        RECORD();
        s->phase = DEVICE_SENDING;
        s->since = loop_now();
        s->counters.commands++;
        s->counters.bytes_in += s->chain.command_size;
        if (tpm_send(d->tpm, s->chain.command, s->chain.command_size) < 0) {
                s->counters.failed++;
                respond_error(d, VIRTIO_TPM_RC_FAILURE);
        } else
                s->phase = DEVICE_SENT;
}

static uint32_t check(const Device *d, const RingChain *chain) {
        uint32_t code;

        code = chain->malformed ? VIRTIO_TPM_RC_COMMAND_SIZE
                                : codec_check_command(chain->command, chain->command_size);
        if (code != 0)
                return code;

        for (unsigned i = 0; i < d->n_denied; i++)
                if (codec_code(chain->command) == d->denied[i])
                        return VIRTIO_TPM_RC_COMMAND_CODE;
        return 0;
}

static void chain_copy(RingChain *to, const RingChain *from) {
        memcpy(to, from, offsetof(RingChain, command) + from->command_size);
        memcpy(to->segments, from->segments, from->n_segments * sizeof *from->segments);
}

/* Whether @chain asks again for what a stopped ring has left in flight: then it is not run again, its answer is waited for. */
static bool asks_again(const DeviceState *s, const RingChain *chain) {
        return s->resumable && !chain->malformed && chain->index == s->chain.index &&
               chain->head == s->chain.head && chain->command_size == s->chain.command_size &&
               memcmp(chain->command, s->chain.command, chain->command_size) == 0;
}

/* One request from the ring. 1: there may be more; 0: not now; negative: the ring is broken or gone. */
static int step(Device *d) {
        DeviceState *s = d->s;
        uint32_t code;
        int r;

        if (!s->running || s->broken || s->attached)
                return 0;
        if (d->draining && s->phase == DEVICE_IDLE)
                return 0;

        r = ring_peek(&s->ring, d->memory, bit(s->features, VIRTIO_RING_F_INDIRECT_DESC), &d->scratch);
        if (r <= 0)
                return r;

        if (s->phase != DEVICE_IDLE && asks_again(s, &d->scratch)) {
                chain_copy(&s->chain, &d->scratch);
                s->attached = 1;
                s->resumable = 0;
                ring_take(&s->ring, &d->scratch);
                finish(d);
                return 1;
        }
        s->resumable = 0;
        if (s->phase == DEVICE_DONE)
                set_idle(d); /* nobody will ask for it */
        if (s->phase != DEVICE_IDLE || d->draining)
                return 0; /* the TPM still works for a driver that is gone */

        code = check(d, &d->scratch);
        chain_copy(&s->chain, &d->scratch);
        if (code != 0) {
                if (code == VIRTIO_TPM_RC_COMMAND_CODE)
                        s->counters.denied++;
                else
                        s->counters.malformed++;
                codec_put_error(s->response, code);
                s->response_size = s->chain.room >= VIRTIO_TPM_HEADER_SIZE ? VIRTIO_TPM_HEADER_SIZE : 0;
        }

        s->attached = 1;
        RECORD();
        s->phase = code != 0 ? DEVICE_DONE : DEVICE_QUEUED;
        RECORD();
        ring_take(&s->ring, &s->chain);
        finish(d);
        submit(d);
        return 1;
}

void device_kick(Device *d) {
        int r = 1;

        for (unsigned i = 0; i < RING_SIZE_MAX && r > 0; i++)
                r = step(d);

        if (r == -EPROTO)
                set_broken(d);
        else if (r > 0)
                d->more.at = loop_now(); /* after the others had their turn */
}

static void on_more(void *userdata) {
        device_kick(userdata);
}

static void on_response(void *userdata, const uint8_t *response, size_t size) {
        Device *d = userdata;
        uint64_t took;

        if (d->s->phase != DEVICE_SENT)
                return;

        took = loop_now() - d->s->since;
        count_latency(&d->s->counters, took);
        respond(d, response, size);
        device_kick(d);
        turn_over(took);
}

static void on_ready(void *userdata) {
        Device *d = userdata;

        submit(d);
        device_kick(d);
}

static void on_late(void *userdata) {
        Device *d = userdata;

        d->s->counters.late++;
        if (d->s->phase == DEVICE_SENT) {
                respond_error(d, VIRTIO_TPM_RC_FAILURE);
                device_kick(d);
        }
}

static void on_failed(void *userdata) {
        Device *d = userdata;

        if (d->s->phase == DEVICE_SENT || d->s->phase == DEVICE_SENDING) {
                d->s->counters.failed++;
                respond_error(d, VIRTIO_TPM_RC_FAILURE);
        } else
                submit(d);
        device_kick(d);
}

const TpmOps device_tpm_ops = {
        .response = on_response, .ready = on_ready, .late = on_late, .failed = on_failed
};

static void nobody(void *userdata) {
        /* no front end */
}

void device_init(Device *d, DeviceState *s, Loop *loop) {
        static const DeviceOps none = { .used = nobody, .broken = nobody };

        d->s = s;
        d->ops = &none;
        d->more = (LoopTimer) { .elapsed = on_more, .userdata = d };
        loop_add_timer(loop, &d->more);
}

void device_set_front(Device *d, const DeviceOps *ops, void *userdata) {
        d->ops = ops;
        d->userdata = userdata;
}

void device_restore(Device *d) {
        DeviceState *s = d->s;

        s->counters.restarts++;
        if (s->phase > DEVICE_DONE || s->chain.n_segments > RING_SEGMENTS_MAX ||
            s->chain.command_size > VIRTIO_TPM_MESSAGE_MAX || s->response_size > VIRTIO_TPM_MESSAGE_MAX)
                s->phase = DEVICE_IDLE;
        if (s->phase == DEVICE_IDLE)
                s->attached = s->resumable = s->answering = 0;
        if (!s->attached)
                return;

        ring_take(&s->ring, &s->chain);
        if (s->answering) {
                bool counted = s->ring.next_used == (uint16_t) (s->used_at + 1);

                s->answering = 0;
                if (counted || ring_completed(&s->ring, d->memory)) {
                        s->ring.next_used = (uint16_t) (s->used_at + 1);
                        set_idle(d);
                }
        }
}

void device_resume(Device *d) {
        DeviceState *s = d->s;

        if (s->phase == DEVICE_SENDING) {
                /* sent, most likely; if not there will be no response, and its deadline ends it. It is not sent again. */
                s->unsure = d->tpm->s->sent;
                s->phase = s->unsure ? DEVICE_SENT : DEVICE_QUEUED;
        }
        if (s->phase == DEVICE_SENT && !d->tpm->s->busy)
                respond_error(d, VIRTIO_TPM_RC_FAILURE); /* nothing will come */

        if (s->running)
                d->ops->used(d->userdata); /* once too often does no harm */
        finish(d);
        submit(d);
        device_kick(d);
}

void device_reset(Device *d) {
        DeviceState *s = d->s;

        s->counters.driver_resets++;
        s->features = 0;
        s->status = s->running = s->broken = s->attached = 0;
        s->ring = (Ring) {};
        if (s->phase == DEVICE_QUEUED || (s->phase == DEVICE_DONE && !s->resumable))
                set_idle(d);
}

void device_machine_reset(Device *d) {
        DeviceState *s = d->s;

        s->counters.machine_resets++;
        s->resumable = 0;
        if (s->phase == DEVICE_DONE && !s->attached)
                set_idle(d);
        tpm_power_cycle(d->tpm);
}

int device_start(Device *d) {
        DeviceState *s = d->s;
        int r;

        if (s->broken)
                return -EINVAL;

        r = ring_check(&s->ring, d->memory);
        if (r < 0) {
                s->running = 0;
                return r;
        }

        s->running = 1;
        finish(d);
        device_kick(d);
        return 0;
}

void device_hold(Device *d) {
        d->s->running = 0;
        RECORD();
}

uint16_t device_stop(Device *d) {
        DeviceState *s = d->s;

        s->running = 0;
        if (!s->attached)
                return s->ring.next_avail;

        /* the ring takes its request back; should it come again it is not run twice */
        s->attached = 0;
        s->ring.next_avail = s->chain.index;
        if (s->phase == DEVICE_QUEUED)
                set_idle(d);
        else
                s->resumable = 1;
        return s->ring.next_avail;
}

void device_set_draining(Device *d, bool draining) {
        d->draining = draining;
        if (!draining)
                device_kick(d);
}

bool device_is_idle(const Device *d) {
        return d->s->phase == DEVICE_IDLE || (d->s->phase == DEVICE_DONE && !d->s->attached);
}
