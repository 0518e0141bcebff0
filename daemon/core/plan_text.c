/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/plan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* The line is a list of fields with one space between, every one of them lower-case hex of known length, so
 * that each plan has exactly one text: version, uuid, number of steps (2 bytes), then each step: its type
 * and its members in order. A string is its length (1 byte) and its bytes. */
#define PLAN_TEXT_VERSION 1

/* The longest step is an attribute: type, two lengths, both strings; or the masks: type and four masks; each
 * field takes one more character. */
#define STEP_TEXT_MAX (2 * (1 + 1 + PLAN_ATTR_NAME_SIZE + 1 + PLAN_ATTR_VALUE_SIZE + 4 * sizeof(ApMask)) + 8)
#define HEAD_TEXT_MAX (2 * (1 + sizeof(Uuid) + 2) + 3)

static_assert(PLAN_ATTR_VALUE_SIZE <= 256 && SNAPSHOT_NAME_SIZE <= 256,
              "lengths of strings fit into a byte");
static_assert(PLAN_STEPS_MAX <= UINT16_MAX, "the number of steps fits into two bytes");

static char *put_byte(char *p, unsigned byte) {
        static const char digits[] = "0123456789abcdef";

        *p++ = digits[byte >> 4 & 15];
        *p++ = digits[byte & 15];
        return p;
}

static char *put_field(char *p, const void *bytes, size_t n) {
        *p++ = ' ';
        for (size_t i = 0; i < n; i++)
                p = put_byte(p, ((const uint8_t *) bytes)[i]);
        return p;
}

static char *put_number(char *p, unsigned n) {
        *p++ = ' ';
        return put_byte(p, n);
}

static char *put_mask(char *p, const ApMask *m) {
        char text[AP_MASK_STRING_SIZE];

        *p++ = ' ';
        memcpy(p, ap_mask_format(m, text) + 2, 2 * sizeof *m);
        return p + 2 * sizeof *m;
}

static char *put_matrix(char *p, const ApMatrix *m) {
        return put_mask(put_mask(put_mask(p, &m->adapters), &m->domains), &m->control);
}

static char *put_string(char *p, const char *s, size_t size) {
        size_t n = strnlen(s, size - 1);

        *p++ = ' ';
        p = put_byte(p, (unsigned) n);
        for (size_t i = 0; i < n; i++)
                p = put_byte(p, (uint8_t) s[i]);
        return p;
}

static char *put_step(char *p, const PlanStep *s) {
        p = put_number(p, s->type);

        switch (s->type) {
        case PLAN_MASKS:
                p = put_mask(put_mask(p, &s->masks.apmask_before), &s->masks.aqmask_before);
                return put_mask(put_mask(p, &s->masks.apmask_after), &s->masks.aqmask_after);
        case PLAN_OVERRIDE:
                p = put_number(put_number(p, s->override.apqn.adapter), s->override.apqn.domain);
                return put_number(put_number(p, s->override.before), s->override.after);
        case PLAN_CREATE:
                p = put_string(p, s->create.parent, sizeof s->create.parent);
                return put_string(p, s->create.type, sizeof s->create.type);
        case PLAN_ASSIGN:
                return put_matrix(put_matrix(p, &s->assign.before), &s->assign.after);
        case PLAN_ATTR:
                p = put_string(p, s->attr.name, sizeof s->attr.name);
                return put_string(p, s->attr.value, sizeof s->attr.value);
        case PLAN_REMOVE:
                p = put_string(p, s->remove.parent, sizeof s->remove.parent);
                p = put_string(p, s->remove.type, sizeof s->remove.type);
                return put_matrix(put_number(p, s->remove.ap), &s->remove.before);
        default:
                abort(); /* no such step */
        }
}

int plan_serialize(const Plan *p, char **ret) {
        char *buf, *end;
        uint8_t n[2] = { (uint8_t) (p->n_steps >> 8), (uint8_t) p->n_steps };

        assert(p->n_steps <= PLAN_STEPS_MAX);

        buf = malloc(HEAD_TEXT_MAX + p->n_steps * STEP_TEXT_MAX + 1);
        if (!buf)
                return -ENOMEM;

        end = put_byte(buf, PLAN_TEXT_VERSION);
        end = put_field(end, p->uuid.b, sizeof p->uuid.b);
        end = put_field(end, n, sizeof n);
        for (size_t i = 0; i < p->n_steps; i++)
                end = put_step(end, &p->steps[i]);
        *end = '\0';

        *ret = buf;
        return 0;
}

/* What has not been read yet; NULL after the first error, which all later calls keep. */
typedef struct Reader {
        const char *p;
} Reader;

static int digit(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        return -1;
}

static unsigned get_byte(Reader *r) {
        int high, low;

        if (!r->p)
                return 0;

        high = digit(r->p[0]);
        low = high < 0 ? -1 : digit(r->p[1]);
        r->p = low < 0 ? NULL : r->p + 2;
        return low < 0 ? 0 : (unsigned) (high << 4 | low);
}

static void get_space(Reader *r) {
        if (r->p)
                r->p = *r->p == ' ' ? r->p + 1 : NULL;
}

static void get_field(Reader *r, uint8_t *bytes, size_t n) {
        get_space(r);
        for (size_t i = 0; i < n; i++)
                bytes[i] = (uint8_t) get_byte(r);
}

static uint8_t get_number(Reader *r) {
        uint8_t n;

        get_field(r, &n, 1);
        return n;
}

static bool get_bool(Reader *r) {
        uint8_t n = get_number(r);

        if (n > 1)
                r->p = NULL;
        return n == 1;
}

static void get_mask(Reader *r, ApMask *ret) {
        uint8_t bytes[sizeof *ret];

        get_field(r, bytes, sizeof bytes);
        *ret = (ApMask) {};
        for (size_t i = 0; i < sizeof bytes; i++)
                ret->w[i / 8] |= (uint64_t) bytes[i] << (56 - 8 * (i % 8));
}

static void get_matrix(Reader *r, ApMatrix *ret) {
        get_mask(r, &ret->adapters);
        get_mask(r, &ret->domains);
        get_mask(r, &ret->control);
}

static void get_string(Reader *r, char *ret, size_t size) {
        size_t n = get_number(r);

        if (n >= size) {
                r->p = NULL;
                n = 0;
        }
        for (size_t i = 0; i < n; i++) {
                ret[i] = (char) get_byte(r);
                if (ret[i] == '\0')
                        r->p = NULL;
        }
        ret[n] = '\0';
}

static void get_step(Reader *r, PlanStep *ret) {
        uint8_t type = get_number(r);

        *ret = (PlanStep) { .type = (PlanStepType) type };

        switch (type) {
        case PLAN_MASKS:
                get_mask(r, &ret->masks.apmask_before);
                get_mask(r, &ret->masks.aqmask_before);
                get_mask(r, &ret->masks.apmask_after);
                get_mask(r, &ret->masks.aqmask_after);
                break;
        case PLAN_OVERRIDE:
                ret->override.apqn.adapter = get_number(r);
                ret->override.apqn.domain = get_number(r);
                ret->override.before = get_bool(r);
                ret->override.after = get_bool(r);
                break;
        case PLAN_CREATE:
                get_string(r, ret->create.parent, sizeof ret->create.parent);
                get_string(r, ret->create.type, sizeof ret->create.type);
                break;
        case PLAN_ASSIGN:
                get_matrix(r, &ret->assign.before);
                get_matrix(r, &ret->assign.after);
                break;
        case PLAN_ATTR:
                get_string(r, ret->attr.name, sizeof ret->attr.name);
                get_string(r, ret->attr.value, sizeof ret->attr.value);
                break;
        case PLAN_REMOVE:
                get_string(r, ret->remove.parent, sizeof ret->remove.parent);
                get_string(r, ret->remove.type, sizeof ret->remove.type);
                ret->remove.ap = get_bool(r);
                get_matrix(r, &ret->remove.before);
                break;
        default:
                r->p = NULL;
        }
}

int plan_parse(const char *s, Plan *ret) {
        CLEANUP(plan_clear) Plan p = {};
        Reader reader = { s };
        uint8_t count[2] = {};
        size_t n;
        int r;

        if (get_byte(&reader) != PLAN_TEXT_VERSION)
                return -EBADMSG;
        get_field(&reader, p.uuid.b, sizeof p.uuid.b);
        get_field(&reader, count, sizeof count);

        n = (size_t) count[0] << 8 | count[1];
        if (n > PLAN_STEPS_MAX)
                return -EBADMSG;

        for (size_t i = 0; i < n && reader.p; i++) {
                PlanStep step;

                get_step(&reader, &step);
                r = plan_append(&p, &step);
                if (r < 0)
                        return r;
        }
        if (!reader.p || *reader.p != '\0')
                return -EBADMSG;

        *ret = p;
        p = (Plan) {};
        return 0;
}
