/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define WIRE_ARRAY_MAX 100000 /* of cards, parents, types or mdevs */

void wire_buffer_clear(WireBuffer *b) {
        free(b->data);
        *b = (WireBuffer) {};
}

typedef struct Writer {
        WireBuffer *buffer;
        size_t start;
        int error;
} Writer;

static void put_bytes(Writer *w, const void *data, size_t size) {
        WireBuffer *b = w->buffer;

        if (w->error < 0)
                return;
        if (size > WIRE_MESSAGE_MAX - (b->size - w->start)) {
                w->error = -EMSGSIZE;
                return;
        }
        if (b->capacity - b->size < size) {
                size_t capacity = MAX(2 * b->capacity, b->size + size + 4096);
                uint8_t *bigger = realloc(b->data, capacity);

                if (!bigger) {
                        w->error = -ENOMEM;
                        return;
                }
                b->data = bigger;
                b->capacity = capacity;
        }

        memcpy(b->data + b->size, data, size);
        b->size += size;
}

static void put_u32(Writer *w, uint32_t v) {
        put_bytes(w, &v, sizeof v);
}

static void put_u64(Writer *w, uint64_t v) {
        put_bytes(w, &v, sizeof v);
}

static void put_bool(Writer *w, bool v) {
        uint8_t byte = v;

        put_bytes(w, &byte, 1);
}

static void put_string(Writer *w, const char *s) {
        uint32_t n = (uint32_t) strlen(s);

        put_u32(w, n);
        put_bytes(w, s, n);
}

static Writer message_begin(WireBuffer *b, WireType type) {
        Writer w = { .buffer = b, .start = b->size };

        put_u32(&w, 0);
        put_u32(&w, type);
        return w;
}

static int message_end(Writer *w) {
        uint32_t size = (uint32_t) (w->buffer->size - w->start);

        if (w->error < 0)
                w->buffer->size = w->start;
        else
                memcpy(w->buffer->data + w->start, &size, sizeof size);
        return w->error;
}

/* After a failure everything reads as 0, and `failed` tells at the end. */
typedef struct Reader {
        const uint8_t *p, *end;
        bool failed;
} Reader;

static void get_bytes(Reader *r, void *ret, size_t size) {
        if (r->failed || (size_t) (r->end - r->p) < size) {
                r->failed = true;
                memset(ret, 0, size);
                return;
        }
        memcpy(ret, r->p, size);
        r->p += size;
}

static uint32_t get_u32(Reader *r) {
        uint32_t v;

        get_bytes(r, &v, sizeof v);
        return v;
}

/* At most @max. */
static uint32_t get_limited(Reader *r, uint32_t max) {
        uint32_t v = get_u32(r);

        if (v <= max)
                return v;
        r->failed = true;
        return 0;
}

static uint64_t get_u64(Reader *r) {
        uint64_t v;

        get_bytes(r, &v, sizeof v);
        return v;
}

static bool get_bool(Reader *r) {
        uint8_t v;

        get_bytes(r, &v, 1);
        r->failed |= v > 1;
        return v == 1;
}

/* How many elements follow, of at least @size bytes each: no more than there are bytes for. */
static size_t get_count(Reader *r, size_t max, size_t size) {
        size_t n = get_u32(r);

        if (n <= max && n <= (size_t) (r->end - r->p) / size)
                return n;
        r->failed = true;
        return 0;
}

static void get_string(Reader *r, char *buf, size_t size) {
        size_t n = get_count(r, size - 1, 1);

        get_bytes(r, buf, n);
        buf[n] = '\0';
        r->failed |= strlen(buf) != n;
}

static void *get_array(Reader *r, size_t n, size_t size, int *error) {
        void *a = calloc(n + 1, size);

        if (!a) {
                *error = -ENOMEM;
                r->failed = true;
        }
        return a;
}

static Reader content(const uint8_t *message, size_t size) {
        if (size < WIRE_HEADER_SIZE)
                return (Reader) { .p = message, .end = message, .failed = true };
        return (Reader) { .p = message + WIRE_HEADER_SIZE, .end = message + size };
}

static int finished(const Reader *r) {
        return r->failed || r->p != r->end ? -EBADMSG : 0;
}

ssize_t wire_peek(const uint8_t *data, size_t size, WireType *ret_type) {
        Reader r = { .p = data, .end = data + size };
        uint32_t total, type;

        if (size < WIRE_HEADER_SIZE)
                return 0;
        total = get_u32(&r);
        type = get_u32(&r);
        if (total < WIRE_HEADER_SIZE || total > WIRE_MESSAGE_MAX || type >= _WIRE_TYPE_MAX)
                return -EBADMSG;
        if (total > size)
                return 0;

        *ret_type = (WireType) type;
        return total;
}

static void put_matrix(Writer *w, const ApMatrix *m) {
        put_bytes(w, &m->adapters, sizeof m->adapters);
        put_bytes(w, &m->domains, sizeof m->domains);
        put_bytes(w, &m->control, sizeof m->control);
}

static void get_matrix(Reader *r, ApMatrix *m) {
        get_bytes(r, &m->adapters, sizeof m->adapters);
        get_bytes(r, &m->domains, sizeof m->domains);
        get_bytes(r, &m->control, sizeof m->control);
}

int wire_put_know(WireBuffer *b, const HostKnown *known, size_t n) {
        Writer w = message_begin(b, WIRE_KNOW);

        put_u32(&w, (uint32_t) n);
        for (size_t i = 0; i < n; i++) {
                put_bytes(&w, &known[i].uuid, sizeof known[i].uuid);
                put_matrix(&w, &known[i].matrix);
        }
        return message_end(&w);
}

int wire_get_know(const uint8_t *message, size_t size, WireKnow *ret) {
        Reader r = content(message, size);
        size_t n = get_count(&r, WIRE_ARRAY_MAX, sizeof(Uuid) + 3 * sizeof(ApMask));
        CLEANUP(freep)
        HostKnown *known = NULL;
        int error = -EBADMSG;

        known = get_array(&r, n, sizeof *known, &error);
        if (!known)
                return error;
        for (size_t i = 0; i < n; i++) {
                get_bytes(&r, &known[i].uuid, sizeof known[i].uuid);
                get_matrix(&r, &known[i].matrix);
                r.failed |=
                        i > 0 && uuid_compare(known[i - 1].uuid, known[i].uuid) >= 0; /* it is searched in */
        }
        if (finished(&r) < 0)
                return -EBADMSG;

        *ret = (WireKnow) { .known = TAKE(known), .n = n };
        return 0;
}

int wire_put_job(WireBuffer *b, const WireJob *job) {
        Writer w = message_begin(b, WIRE_JOB);

        put_bool(&w, job->execute);
        put_bool(&w, job->careful);
        put_bool(&w, job->held);
        put_u32(&w, job->depth);
        put_u64(&w, job->lock_timeout_us);
        put_u32(&w, (uint32_t) job->n_plans);
        for (size_t i = 0; i < job->n_plans && w.error >= 0; i++) {
                CLEANUP(freep)
                char *text = NULL;

                w.error = plan_serialize(&job->plans[i], &text);
                if (w.error >= 0)
                        put_string(&w, text);
        }
        return message_end(&w);
}

void wire_job_clear(WireJob *job) {
        for (size_t i = 0; i < job->n_plans; i++)
                plan_clear(&job->plans[i]);
        free(job->plans);
        *job = (WireJob) {};
}

static int get_plan(Reader *r, Plan *ret) {
        size_t n = get_count(r, WIRE_MESSAGE_MAX, 1);
        CLEANUP(freep)
        char *text = malloc(n + 1);

        if (!text)
                return -ENOMEM;
        get_bytes(r, text, n);
        text[n] = '\0';
        if (r->failed || strlen(text) != n)
                return -EBADMSG;

        return plan_parse(text, ret);
}

int wire_put_go_on(WireBuffer *b) {
        Writer w = message_begin(b, WIRE_GO_ON);

        return message_end(&w);
}

int wire_get_job(const uint8_t *message, size_t size, WireJob *ret) {
        Reader r = content(message, size);
        WireJob job = {};
        int error = -EBADMSG;
        size_t n;

        job.execute = get_bool(&r);
        job.careful = get_bool(&r);
        job.held = get_bool(&r);
        job.depth = (HostScan) get_limited(&r, HOST_SCAN_DETAIL);
        job.lock_timeout_us = get_u64(&r);

        n = get_count(&r, WIRE_PLANS_MAX, sizeof(uint32_t));
        job.plans = get_array(&r, n, sizeof *job.plans, &error);
        for (size_t i = 0; i < n && !r.failed; i++) {
                int e = get_plan(&r, &job.plans[i]);

                if (e < 0) {
                        error = e;
                        r.failed = true;
                } else
                        job.n_plans++;
        }

        if (finished(&r) < 0) {
                wire_job_clear(&job);
                return error;
        }
        *ret = job;
        return 0;
}

static void put_snapshot(Writer *w, const Snapshot *s) {
        const bool flags[] = { s->ap,           s->vfio_ap,           s->has_ap_config,
                               s->has_override, s->bindings_complete, s->detailed,
                               s->detail_stuck };
        const ApMask *const masks[] = { &s->apmask, &s->aqmask, &s->host_adapters, &s->host_domains,
                                        &s->host_control };
        bool aliens = false;

        for (size_t i = 0; i < ELEMENTS(flags); i++)
                put_bool(w, flags[i]);
        put_bytes(w, &s->max_adapter, 1);
        put_bytes(w, &s->max_domain, 1);
        put_bytes(w, &s->default_domain, sizeof s->default_domain);
        for (size_t i = 0; i < ELEMENTS(masks); i++)
                put_bytes(w, masks[i], sizeof *masks[i]);
        put_bytes(w, s->queue_present, sizeof s->queue_present);
        put_bytes(w, s->queue_vfio, sizeof s->queue_vfio);
        put_bytes(w, s->queue_override, sizeof s->queue_override);
        for (unsigned a = 0; a < AP_IDS; a++)
                aliens |= !ap_mask_is_empty(&s->queue_alien[a]);
        put_bool(w, aliens); /* there are hardly ever any */
        if (aliens)
                put_bytes(w, s->queue_alien, sizeof s->queue_alien);

        put_u32(w, (uint32_t) s->n_cards);
        for (size_t i = 0; i < s->n_cards; i++) {
                const HostCard *c = &s->cards[i];

                put_bytes(w, &c->id, 1);
                put_u32(w, c->mode);
                put_u32(w, (uint32_t) c->hwtype);
                put_string(w, c->type);
                put_bool(w, c->online);
                put_bool(w, c->config);
                put_bool(w, c->chkstop);
        }
        put_u32(w, (uint32_t) s->n_parents);
        for (size_t i = 0; i < s->n_parents; i++) {
                put_string(w, s->parents[i].name);
                put_string(w, s->parents[i].path);
        }
        put_u32(w, (uint32_t) s->n_types);
        for (size_t i = 0; i < s->n_types; i++) {
                put_u32(w, s->types[i].parent);
                put_string(w, s->types[i].id);
                put_string(w, s->types[i].name);
                put_string(w, s->types[i].device_api);
                put_u32(w, s->types[i].available);
        }
        put_u32(w, (uint32_t) s->n_mdevs);
        for (size_t i = 0; i < s->n_mdevs; i++) {
                const HostMdev *m = &s->mdevs[i];

                put_bytes(w, &m->uuid, sizeof m->uuid);
                put_u32(w, m->type);
                put_u32(w, m->use);
                put_bool(w, m->leaving);
                put_bool(w, m->ap);
                put_bool(w, m->matrix_known);
                put_bool(w, m->guest_known);
                put_matrix(w, &m->matrix);
                put_bytes(w, &m->guest_adapters, sizeof m->guest_adapters);
                put_bytes(w, &m->guest_domains, sizeof m->guest_domains);
        }
}

static void get_cards(Reader *r, Snapshot *s, int *error) {
        size_t n = get_count(r, AP_IDS, 16);

        s->cards = get_array(r, n, sizeof *s->cards, error);
        for (; s->n_cards < n && !r->failed; s->n_cards++) {
                HostCard *c = &s->cards[s->n_cards];

                get_bytes(r, &c->id, 1);
                c->mode = (CardMode) get_limited(r, _CARD_MODE_MAX - 1);
                c->hwtype = (int) get_limited(r, INT32_MAX);
                get_string(r, c->type, sizeof c->type);
                c->online = get_bool(r);
                c->config = get_bool(r);
                c->chkstop = get_bool(r);
                r->failed |= s->n_cards > 0 && c[-1].id >= c->id;
        }
}

static void get_parents(Reader *r, Snapshot *s, int *error) {
        size_t n = get_count(r, WIRE_ARRAY_MAX, 8);

        s->parents = get_array(r, n, sizeof *s->parents, error);
        for (; s->n_parents < n && !r->failed; s->n_parents++) {
                HostParent *p = &s->parents[s->n_parents];

                get_string(r, p->name, sizeof p->name);
                get_string(r, p->path, sizeof p->path);
                r->failed |= s->n_parents > 0 && strcmp(p[-1].name, p->name) >= 0;
        }
}

static void get_types(Reader *r, Snapshot *s, int *error) {
        size_t n = get_count(r, WIRE_ARRAY_MAX, 20);

        s->types = get_array(r, n, sizeof *s->types, error);
        for (; s->n_types < n && !r->failed; s->n_types++) {
                HostType *t = &s->types[s->n_types];

                t->parent = get_u32(r);
                get_string(r, t->id, sizeof t->id);
                get_string(r, t->name, sizeof t->name);
                get_string(r, t->device_api, sizeof t->device_api);
                t->available = get_u32(r);
                r->failed |= t->parent >= s->n_parents;
                if (s->n_types > 0)
                        r->failed |= t[-1].parent > t->parent ||
                                     (t[-1].parent == t->parent && strcmp(t[-1].id, t->id) >= 0);
        }
}

static void get_mdevs(Reader *r, Snapshot *s, int *error) {
        size_t n = get_count(r, WIRE_ARRAY_MAX, sizeof(Uuid) + 5 * sizeof(ApMask));

        s->mdevs = get_array(r, n, sizeof *s->mdevs, error);
        for (; s->n_mdevs < n && !r->failed; s->n_mdevs++) {
                HostMdev *m = &s->mdevs[s->n_mdevs];

                get_bytes(r, &m->uuid, sizeof m->uuid);
                m->type = get_u32(r);
                m->use = (MdevUse) get_limited(r, MDEV_USE_GUEST);
                m->leaving = get_bool(r);
                m->ap = get_bool(r);
                m->matrix_known = get_bool(r);
                m->guest_known = get_bool(r);
                get_matrix(r, &m->matrix);
                get_bytes(r, &m->guest_adapters, sizeof m->guest_adapters);
                get_bytes(r, &m->guest_domains, sizeof m->guest_domains);
                r->failed |= m->type >= s->n_types;
                r->failed |= s->n_mdevs > 0 && uuid_compare(m[-1].uuid, m->uuid) >= 0;
        }
}

static int get_snapshot(Reader *r, Snapshot **ret) {
        CLEANUP(snapshot_freep)
        Snapshot *s = snapshot_new();
        int error = -EBADMSG;

        if (!s)
                return -ENOMEM;
        {
                bool *const flags[] = { &s->ap,           &s->vfio_ap,           &s->has_ap_config,
                                        &s->has_override, &s->bindings_complete, &s->detailed,
                                        &s->detail_stuck };
                ApMask *const masks[] = { &s->apmask, &s->aqmask, &s->host_adapters, &s->host_domains,
                                          &s->host_control };

                for (size_t i = 0; i < ELEMENTS(flags); i++)
                        *flags[i] = get_bool(r);
                get_bytes(r, &s->max_adapter, 1);
                get_bytes(r, &s->max_domain, 1);
                get_bytes(r, &s->default_domain, sizeof s->default_domain);
                if (s->default_domain < -1 || s->default_domain >= AP_IDS)
                        r->failed = true;
                for (size_t i = 0; i < ELEMENTS(masks); i++)
                        get_bytes(r, masks[i], sizeof *masks[i]);
        }
        get_bytes(r, s->queue_present, sizeof s->queue_present);
        get_bytes(r, s->queue_vfio, sizeof s->queue_vfio);
        get_bytes(r, s->queue_override, sizeof s->queue_override);
        if (get_bool(r))
                get_bytes(r, s->queue_alien, sizeof s->queue_alien);

        if (!r->failed)
                get_cards(r, s, &error);
        if (!r->failed)
                get_parents(r, s, &error);
        if (!r->failed)
                get_types(r, s, &error);
        if (!r->failed)
                get_mdevs(r, s, &error);
        if (r->failed)
                return error;

        *ret = TAKE(s);
        return 0;
}

int wire_put_snapshot(WireBuffer *b, WireType type, int error, const Snapshot *s) {
        Writer w = message_begin(b, type);

        put_u32(&w, (uint32_t) -error);
        put_bool(&w, s);
        if (s)
                put_snapshot(&w, s);
        return message_end(&w);
}

int wire_get_snapshot(const uint8_t *message, size_t size, WireResult *ret) {
        Reader r = content(message, size);
        CLEANUP(snapshot_freep)
        Snapshot *s = NULL;
        int error = -(int) get_limited(&r, 4095);

        if (get_bool(&r)) {
                int e = get_snapshot(&r, &s);

                if (e < 0)
                        return e;
        }
        if (finished(&r) < 0)
                return -EBADMSG;

        *ret = (WireResult) { .error = error, .snapshot = TAKE(s) };
        return 0;
}
