/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "host/host_wire.h"
#include "tests/lib/core/test.h"

#define MDEVS 4000

/* Everything filled, with as much as there can be. */
static Snapshot *make_snapshot(size_t n_mdevs) {
        Snapshot *s = snapshot_new();

        s->ap = s->vfio_ap = s->has_ap_config = s->bindings_complete = true;
        s->max_adapter = s->max_domain = 255;
        s->apmask = AP_MASK_ALL;
        ap_mask_set(&s->aqmask, 7);
        for (unsigned a = 0; a < AP_IDS; a++)
                s->queue_present[a] = AP_MASK_ALL;
        ap_mask_set(&s->queue_vfio[255], 255);
        s->cards = calloc(2, sizeof *s->cards);
        s->n_cards = 2;
        s->cards[0] = (HostCard) {
                .id = 3, .mode = CARD_MODE_EP11, .hwtype = 14, .type = "CEX8P", .online = true
        };
        s->cards[1] = (HostCard) { .id = 4, .config = true };
        s->parents = calloc(2, sizeof *s->parents);
        s->n_parents = 2;
        s->parents[0] = (HostParent) { "matrix", "devices/vfio_ap/matrix" };
        s->parents[1] = (HostParent) { "mtty", "devices/virtual/mtty/mtty" };
        s->types = calloc(2, sizeof *s->types);
        s->n_types = 2;
        s->types[0] =
                (HostType) { 0, "vfio_ap-passthrough", "VFIO AP Passthrough Device", "vfio-ap", 65536 };
        s->types[1] = (HostType) { 1, "mtty-1", "", "vfio-pci", 24 };
        s->mdevs = calloc(n_mdevs + 1, sizeof *s->mdevs);
        for (; s->n_mdevs < n_mdevs; s->n_mdevs++) {
                HostMdev *m = &s->mdevs[s->n_mdevs];

                m->uuid.b[14] = (uint8_t) (s->n_mdevs >> 8);
                m->uuid.b[15] = (uint8_t) s->n_mdevs;
                m->type = s->n_mdevs % 2;
                m->use = MDEV_USE_FREE;
                m->ap = m->matrix_known = !m->type;
                ap_mask_set(&m->matrix.adapters, (uint8_t) s->n_mdevs);
                ap_mask_set(&m->matrix.control, 9);
        }
        return s;
}

static void assert_same(const Snapshot *a, const Snapshot *b) {
        WireBuffer x = {}, y = {};

        assert_int_equal(wire_put_snapshot(&x, WIRE_RESULT, 0, a), 0);
        assert_int_equal(wire_put_snapshot(&y, WIRE_RESULT, 0, b), 0);
        assert_int_equal(x.size, y.size);
        assert_memory_equal(x.data, y.data, x.size);
        wire_buffer_clear(&x);
        wire_buffer_clear(&y);
}

static void test_snapshot(void **state) {
        Snapshot *s = make_snapshot(MDEVS);
        WireBuffer b = {};
        WireResult result;
        WireType type;

        assert_int_equal(wire_put_snapshot(&b, WIRE_RESULT, 0, s), 0);
        assert_int_equal(wire_peek(b.data, b.size, &type), b.size);
        assert_int_equal(type, WIRE_RESULT);
        assert_int_equal(wire_get_snapshot(b.data, b.size, &result), 0);
        assert_int_equal(result.error, 0);
        assert_same(s, result.snapshot);
        assert_int_equal(result.snapshot->n_mdevs, MDEVS);
        assert_non_null(snapshot_find_mdev(result.snapshot, s->mdevs[MDEVS - 1].uuid));
        assert_true(ap_mask_test(&result.snapshot->queue_vfio[255], 255));
        assert_string_equal(result.snapshot->types[0].name, "VFIO AP Passthrough Device");

        (void) snapshot_free(result.snapshot);
        b.size = 0;
        assert_int_equal(wire_put_snapshot(&b, WIRE_RESULT, -EBADMSG, NULL), 0);
        assert_int_equal(wire_get_snapshot(b.data, b.size, &result), 0);
        assert_int_equal(result.error, -EBADMSG);
        assert_null(result.snapshot);
        wire_buffer_clear(&b);
        (void) snapshot_free(s);
}

static void test_know(void **state) {
        HostKnown known[3] = { { .uuid = { { 1 } } }, { .uuid = { { 2 } } }, { .uuid = { { 3 } } } };
        WireBuffer b = {};
        WireKnow know;

        assert_int_equal(wire_put_know(&b, known, 3), 0);
        assert_int_equal(wire_get_know(b.data, b.size, &know), 0);
        assert_int_equal(know.n, 3);
        free(know.known);
        known[1].uuid.b[0] = 9; /* not in order: could not be searched in */
        b.size = 0;
        assert_int_equal(wire_put_know(&b, known, 3), 0);
        assert_int_equal(wire_get_know(b.data, b.size, &know), -EBADMSG);
        wire_buffer_clear(&b);
}

static void test_job(void **state) {
        PlanStep create = { .type = PLAN_CREATE, .create = { "matrix", "vfio_ap-passthrough" } };
        Plan plans[2] = { { .uuid = { { 1 } } }, { .uuid = { { 2 } } } };
        WireJob job = { .execute = true,
                        .careful = true,
                        .lock_timeout_us = 5,
                        .plans = plans,
                        .n_plans = 2 },
                again;
        WireBuffer b = {};

        assert_int_equal(plan_append(&plans[0], &create), 0);
        assert_int_equal(plan_append(&plans[1], &create), 0);
        assert_int_equal(wire_put_job(&b, &job), 0);
        assert_int_equal(wire_get_job(b.data, b.size, &again), 0);
        assert_true(again.execute && again.careful);
        assert_int_equal(again.n_plans, 2);
        assert_int_equal(again.plans[1].uuid.b[0], 2);
        assert_string_equal(again.plans[1].steps[0].create.type, "vfio_ap-passthrough");
        wire_job_clear(&again);

        for (size_t n = 0; n < b.size; n++)
                assert_int_equal(wire_get_job(b.data, n, &again), -EBADMSG);
        plan_clear(&plans[0]);
        plan_clear(&plans[1]);
        wire_buffer_clear(&b);
}

/* Cut anywhere, or with any byte changed: refused, or something that can be used safely. */
static void test_garbage(void **state) {
        Snapshot *s = make_snapshot(3);
        WireBuffer b = {};
        WireResult result;
        WireType type;
        size_t rows = 3 * sizeof s->queue_present; /* any bits are right there */

        assert_int_equal(wire_put_snapshot(&b, WIRE_RESULT, 0, s), 0);
        for (size_t n = 0; n<b.size; n += n> 400 && n < rows ? 997 : 1)
                assert_int_equal(wire_get_snapshot(b.data, n, &result), -EBADMSG);

        for (size_t i = WIRE_HEADER_SIZE; i<b.size; i += i> 400 && i < rows ? 997 : 1) {
                static const uint8_t masks[] = { 0xff, 0x01, 0x80 };

                for (size_t j = 0; j < ELEMENTS(masks); j++) {
                        int r;

                        b.data[i] ^= masks[j];
                        r = wire_get_snapshot(b.data, b.size, &result);
                        assert_true(r == 0 || r == -EBADMSG);
                        if (r == 0) {
                                for (size_t k = 0; result.snapshot && k < result.snapshot->n_mdevs; k++)
                                        (void) snapshot_parent_of(result.snapshot,
                                                                  &result.snapshot->mdevs[k])
                                                ->name[0];
                                (void) snapshot_free(result.snapshot);
                        }
                        b.data[i] ^= masks[j];
                }
        }

        assert_int_equal(wire_peek(b.data, 7, &type), 0);
        assert_int_equal(wire_peek(b.data, b.size - 1, &type), 0);
        memset(b.data, 0xff, 4);
        assert_int_equal(wire_peek(b.data, b.size, &type), -EBADMSG);
        memset(b.data, 0, 4);
        assert_int_equal(wire_peek(b.data, b.size, &type), -EBADMSG);
        wire_buffer_clear(&b);
        (void) snapshot_free(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_snapshot),
                cmocka_unit_test(test_know),
                cmocka_unit_test(test_job),
                cmocka_unit_test(test_garbage),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
