/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "core/plan.h"

#include <errno.h>

#include "base/cleanup.h"
#include "tests/lib/core/oracle.h"

static const Uuid own = { { 0xaa } }, other = { { 0xbb } };

static ApMatrix matrix(const char *adapters, const char *domains) {
        ApMatrix m = {};

        assert_int_equal(ap_mask_parse_list(adapters, &m.adapters), 0);
        assert_int_equal(ap_mask_parse_list(domains, &m.domains), 0);
        return m;
}

/* 8 x 8 queues; adapters 4..7 are not the host's. */
static Snapshot *host(void) {
        Snapshot *s = snapshot_new();

        s->ap = s->vfio_ap = s->has_ap_config = true;
        s->max_adapter = s->max_domain = 7;
        s->host_adapters = s->host_domains = ap_mask_up_to(7);
        s->apmask = ap_mask_up_to(3);
        s->aqmask = AP_MASK_ALL;
        for (unsigned a = 0; a < 8; a++) {
                s->queue_present[a] = ap_mask_up_to(7);
                if (a >= 4)
                        s->queue_vfio[a] = ap_mask_up_to(7);
        }

        s->n_parents = s->n_types = 2;
        s->parents = calloc(2, sizeof *s->parents);
        s->types = calloc(2, sizeof *s->types);
        strcpy(s->parents[0].name, "matrix");
        strcpy(s->types[0].id, "vfio_ap-passthrough");
        strcpy(s->types[0].device_api, "vfio-ap");
        s->types[0].available = 100;
        strcpy(s->parents[1].name, "mtty");
        strcpy(s->types[1].id, "mtty-1");
        s->types[1].parent = 1;
        s->types[1].available = 1;
        return s;
}

static void add_mdev(Snapshot *s, Uuid uuid, const ApMatrix *m) {
        HostMdev mdev = {
                .uuid = uuid, .ap = true, .matrix_known = true, .use = MDEV_USE_FREE, .matrix = *m
        };

        assert_int_equal(snapshot_put_mdev(s, &mdev), 0);
        s->types[0].available--;
}

static void use_overrides(Snapshot *s) {
        s->has_override = true;
        s->apmask = s->aqmask = AP_MASK_ALL;
        for (unsigned a = 4; a < 8; a++)
                s->queue_override[a] = ap_mask_up_to(7);
}

static void test_start(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = host();
        CLEANUP(plan_clear) Plan p = {};
        ApMatrix m = matrix("5", "1-2"), taken = matrix("4-5", "2");
        Apqn q = { 9, 9 };

        assert_int_equal(plan_start(s, own, &m, false, &p), 0);
        assert_int_equal(p.n_steps, 2);
        assert_int_equal(p.steps[0].type, PLAN_CREATE);
        assert_string_equal(p.steps[0].create.parent, "matrix");
        assert_string_equal(p.steps[0].create.type, "vfio_ap-passthrough");
        assert_int_equal(p.steps[1].type, PLAN_ASSIGN);
        assert_true(ap_matrix_equal(&p.steps[1].assign.after, &m));
        assert_int_equal(plan_check(&p, s, &q), PLAN_OK);
        assert_int_equal(q.adapter, 9);

        add_mdev(s, other, &taken);
        assert_int_equal(plan_check(&p, s, &q), PLAN_OVERLAP);
        assert_true(q.adapter == 5 && q.domain == 2);

        snapshot_find_mdev(s, other)->matrix_known = false;
        assert_int_equal(plan_check(&p, s, &q), PLAN_OK);
        s->types[0].available = 0;
        assert_int_equal(plan_check(&p, s, &q), PLAN_NO_INSTANCES);
        s->types[0].available = 1;
        add_mdev(s, own, &(ApMatrix) {});
        assert_int_equal(plan_check(&p, s, &q), PLAN_CHANGED);
        snapshot_drop_mdev(s, own);
        s->n_types = 0;
        assert_int_equal(plan_check(&p, s, &q), PLAN_NO_PARENT);
}

static void test_start_from_host_by_masks(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = host();
        CLEANUP(plan_clear) Plan p = {}, not_from_host = {};
        ApMatrix m = matrix("2,5", "1-2");
        ApMask without = s->apmask;
        Apqn q = {};

        assert_int_equal(plan_start(s, own, &m, false, &not_from_host), 0);
        assert_int_equal(plan_check(&not_from_host, s, &q), PLAN_HOST_OWNED);
        assert_true(q.adapter == 2 && q.domain == 1);

        ap_mask_clear(&without, 2);
        assert_int_equal(plan_start(s, own, &m, true, &p), 0);
        assert_int_equal(p.n_steps, 3);
        assert_int_equal(p.steps[0].type, PLAN_MASKS);
        assert_true(ap_mask_equal(&p.steps[0].masks.apmask_before, &s->apmask));
        assert_true(ap_mask_equal(&p.steps[0].masks.apmask_after, &without));
        assert_true(ap_mask_equal(&p.steps[0].masks.aqmask_after, &s->aqmask));
        assert_int_equal(plan_check(&p, s, &q), PLAN_OK);

        assert_int_equal(plan_apply(&p, s), 0);
        assert_true(ap_mask_test(&s->queue_vfio[2], 7));
        assert_false(ap_mask_test(&s->queue_vfio[1], 7));
        assert_int_equal(s->types[0].available, 99);
        assert_true(ap_matrix_equal(&snapshot_find_mdev(s, own)->matrix, &m));
        assert_int_equal(plan_check(&p, s, &q), PLAN_CHANGED);
}

static void test_start_from_host_by_overrides(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = host();
        CLEANUP(plan_clear) Plan p = {};
        ApMatrix m = matrix("3-4", "1-2");
        Apqn q = {};

        use_overrides(s);
        assert_int_equal(plan_start(s, own, &m, true, &p), 0);
        assert_int_equal(p.n_steps, 4);
        for (size_t i = 0; i < 2; i++) {
                assert_int_equal(p.steps[i].type, PLAN_OVERRIDE);
                assert_int_equal(p.steps[i].override.apqn.adapter, 3);
                assert_int_equal(p.steps[i].override.apqn.domain, i + 1);
                assert_true(!p.steps[i].override.before && p.steps[i].override.after);
        }
        assert_int_equal(plan_check(&p, s, &q), PLAN_OK);

        /* a queue that is not there cannot be given away */
        ap_mask_clear(&s->queue_present[3], 2);
        assert_int_equal(plan_check(&p, s, &q), PLAN_HOST_OWNED);
        assert_true(q.adapter == 3 && q.domain == 2);
        ap_mask_set(&s->queue_present[3], 2);

        ap_mask_set(&s->queue_override[3], 1); /* somebody's */
        assert_int_equal(plan_check(&p, s, &q), PLAN_CHANGED);
        ap_mask_clear(&s->queue_override[3], 1);
        ap_mask_clear(&s->apmask, 9); /* the kernel takes no override now */
        assert_int_equal(plan_check(&p, s, &q), PLAN_CHANGED);
}

static void test_too_many_steps(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = host();
        ApMatrix m = matrix("0-20", "0-20");
        Plan untouched = { .n_steps = 77 };

        use_overrides(s);
        assert_int_equal(plan_start(s, own, &m, true, &untouched), -E2BIG);
        assert_int_equal(untouched.n_steps, 77);
}

static void test_modify(void **state) {
        CLEANUP(snapshot_freep) Snapshot *changed = NULL;
        CLEANUP(snapshot_freep) Snapshot *s = host();
        CLEANUP(plan_clear) Plan p = {}, same = {};
        ApMatrix before = matrix("5", "1-2"), after = matrix("5-6", "2");
        Plan untouched = { .n_steps = 77 };
        Apqn q = {};

        assert_int_equal(plan_modify(s, own, &after, false, &untouched), -ENOENT);
        add_mdev(s, own, &before);
        assert_int_equal(plan_modify(s, own, &after, true, &p), 0);
        assert_int_equal(p.n_steps, 1);
        assert_int_equal(p.steps[0].type, PLAN_ASSIGN);
        assert_true(ap_matrix_equal(&p.steps[0].assign.before, &before));
        assert_int_equal(plan_check(&p, s, &q), PLAN_OK);

        assert_int_equal(plan_modify(s, own, &before, true, &same), 0);
        assert_int_equal(same.n_steps, 0);

        /* what the kernel said of the guest's share is not true any more */
        changed = snapshot_copy(s);
        snapshot_find_mdev(changed, own)->guest_known = true;
        assert_int_equal(plan_apply(&p, changed), 0);
        assert_false(snapshot_find_mdev(changed, own)->guest_known);
        assert_true(ap_matrix_equal(&snapshot_find_mdev(changed, own)->matrix, &after));

        snapshot_find_mdev(s, own)->matrix_known = false;
        assert_int_equal(plan_check(&p, s, &q), PLAN_CHANGED);
        assert_int_equal(plan_modify(s, own, &after, false, &untouched), -ENODATA);
        assert_int_equal(untouched.n_steps, 77);
}

static void test_stop(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = host();
        CLEANUP(plan_clear) Plan p = {};
        Plan untouched = { .n_steps = 77 };
        ApMatrix m = matrix("5", "1-2");
        HostMdev *mdev;
        Apqn q = {};

        assert_int_equal(plan_stop(s, own, &untouched), -ENOENT);
        assert_int_equal(untouched.n_steps, 77);
        add_mdev(s, own, &m);
        mdev = snapshot_find_mdev(s, own);
        assert_int_equal(plan_stop(s, own, &p), 0);
        assert_int_equal(p.n_steps, 1);
        assert_string_equal(p.steps[0].remove.parent, "matrix");
        assert_string_equal(p.steps[0].remove.type, "vfio_ap-passthrough");
        assert_true(p.steps[0].remove.ap && ap_matrix_equal(&p.steps[0].remove.before, &m));
        assert_int_equal(plan_check(&p, s, &q), PLAN_OK);

        mdev->use = MDEV_USE_GUEST;
        assert_int_equal(plan_check(&p, s, &q), PLAN_IN_USE);
        mdev->use = MDEV_USE_UNKNOWN;
        assert_int_equal(plan_check(&p, s, &q), PLAN_OK);
        mdev->matrix_known = false;
        assert_int_equal(plan_check(&p, s, &q), PLAN_OK);
        mdev->matrix_known = true;
        ap_mask_set(&mdev->matrix.domains, 7);
        assert_int_equal(plan_check(&p, s, &q), PLAN_CHANGED);

        assert_int_equal(plan_apply(&p, s), 0);
        assert_null(snapshot_find_mdev(s, own));
        assert_int_equal(s->types[0].available, 100);
        assert_int_equal(plan_check(&p, s, &q), PLAN_CHANGED);
}

static void test_masks(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = host();
        CLEANUP(plan_clear) Plan p = {}, same = {};
        ApMatrix m = matrix("5", "1-2");
        ApMask more = ap_mask_up_to(5);
        Apqn q = {};

        assert_int_equal(plan_masks(s, &s->apmask, &s->aqmask, &same), 0);
        assert_int_equal(same.n_steps, 0);
        assert_int_equal(plan_check(&same, s, &q), PLAN_OK);

        assert_int_equal(plan_masks(s, &more, &s->aqmask, &p), 0);
        assert_int_equal(plan_check(&p, s, &q), PLAN_OK);
        add_mdev(s, other, &m); /* its queues would go to the host's drivers */
        assert_int_equal(plan_check(&p, s, &q), PLAN_OVERLAP);
        assert_true(q.adapter == 5 && q.domain == 1);
        ap_mask_clear(&s->apmask, 0);
        assert_int_equal(plan_check(&p, s, &q), PLAN_CHANGED);
}

/* Back to the host goes no queue that is assigned, not even to the plan's own mdev. */
static void test_give_back(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = host();
        CLEANUP(plan_clear) Plan p = { .uuid = own };
        PlanStep step = { .type = PLAN_OVERRIDE, .override = { { 5, 1 }, true, false } };
        ApMatrix m = matrix("5", "1-2");
        Apqn q = {};

        use_overrides(s);
        assert_int_equal(plan_append(&p, &step), 0);
        assert_int_equal(plan_check(&p, s, &q), PLAN_OK);
        add_mdev(s, own, &m);
        assert_int_equal(plan_check(&p, s, &q), PLAN_OVERLAP);
        assert_true(q.adapter == 5 && q.domain == 1);
}

/* Mdevs in general. */
static void test_other_types(void **state) {
        CLEANUP(snapshot_freep) Snapshot *s = host();
        CLEANUP(plan_clear) Plan p = { .uuid = own }, stop = {};
        PlanStep create = { .type = PLAN_CREATE, .create = { "mtty", "mtty-1" } };
        PlanStep attr = { .type = PLAN_ATTR, .attr = { "speed", "9600" } };
        PlanStep assign = { .type = PLAN_ASSIGN };
        Apqn q = {};

        assert_int_equal(plan_append(&p, &attr), 0);
        assert_int_equal(plan_check(&p, s, &q), PLAN_CHANGED);
        plan_clear(&p);
        p.uuid = own;
        assert_int_equal(plan_append(&p, &create), 0);
        assert_int_equal(plan_append(&p, &attr), 0);
        assert_int_equal(plan_check(&p, s, &q), PLAN_OK);
        assert_int_equal(plan_apply(&p, s), 0);
        assert_false(snapshot_find_mdev(s, own)->ap);
        assert_int_equal(s->types[1].available, 0);

        assert_int_equal(plan_append(&p, &assign), 0); /* no matrix to assign */
        p.uuid = other;
        s->types[1].available = 1;
        assert_int_equal(plan_check(&p, s, &q), PLAN_CHANGED);
        s->types[1].available = 0;

        assert_int_equal(plan_stop(s, own, &stop), 0);
        assert_false(stop.steps[0].remove.ap);
        assert_int_equal(plan_check(&stop, s, &q), PLAN_OK);

        /* the last instance, made anew by the plan that has removed it */
        assert_int_equal(plan_append(&stop, &create), 0);
        assert_int_equal(plan_check(&stop, s, &q), PLAN_OK);
        assert_int_equal(plan_apply(&stop, s), 0);
        assert_int_equal(s->types[1].available, 0);
        create.create.parent[0] = 'x';
        stop.steps[1] = create;
        assert_int_equal(plan_check(&stop, s, &q), PLAN_NO_PARENT);
}

static void random_string(Rng *rng, char *s, size_t size) {
        size_t n = rng_one_in(rng, 4) ? size - 1 : rng_below(rng, (unsigned) size);

        for (size_t i = 0; i < n; i++)
                s[i] = (char) (1 + rng_below(rng, 255));
        s[n] = '\0';
}

static void random_step(Rng *rng, PlanStep *s) {
        *s = (PlanStep) { .type = rng_below(rng, _PLAN_STEP_MAX) };

        switch (s->type) {
        case PLAN_MASKS:
                s->masks.apmask_before = random_mask(rng, 256, 2);
                s->masks.apmask_after = random_mask(rng, 256, 2);
                s->masks.aqmask_before = random_mask(rng, 256, 2);
                s->masks.aqmask_after = random_mask(rng, 256, 2);
                break;
        case PLAN_OVERRIDE:
                s->override.apqn = (Apqn) { (uint8_t) rng_next(rng), (uint8_t) rng_next(rng) };
                s->override.before = rng_one_in(rng, 2);
                s->override.after = rng_one_in(rng, 2);
                break;
        case PLAN_CREATE:
                random_string(rng, s->create.parent, sizeof s->create.parent);
                random_string(rng, s->create.type, sizeof s->create.type);
                break;
        case PLAN_ASSIGN:
                s->assign.before = random_matrix(rng, 256, 3);
                s->assign.after = random_matrix(rng, 256, 3);
                break;
        case PLAN_ATTR:
                random_string(rng, s->attr.name, sizeof s->attr.name);
                random_string(rng, s->attr.value, sizeof s->attr.value);
                break;
        default:
                random_string(rng, s->remove.parent, sizeof s->remove.parent);
                random_string(rng, s->remove.type, sizeof s->remove.type);
                s->remove.ap = rng_one_in(rng, 2);
                s->remove.before = random_matrix(rng, 256, 3);
                break;
        }
}

static bool plans_equal(const Plan *a, const Plan *b) {
        if (!uuid_equal(a->uuid, b->uuid) || a->n_steps != b->n_steps)
                return false;

        for (size_t i = 0; i < a->n_steps; i++) {
                const PlanStep *s = &a->steps[i], *t = &b->steps[i];

                if (s->type != t->type)
                        return false;
                switch (s->type) {
                case PLAN_MASKS:
                        if (memcmp(&s->masks, &t->masks, sizeof s->masks) != 0)
                                return false;
                        break;
                case PLAN_OVERRIDE:
                        if (memcmp(&s->override, &t->override, sizeof s->override) != 0)
                                return false;
                        break;
                case PLAN_CREATE:
                        if (strcmp(s->create.parent, t->create.parent) != 0 ||
                            strcmp(s->create.type, t->create.type) != 0)
                                return false;
                        break;
                case PLAN_ASSIGN:
                        if (memcmp(&s->assign, &t->assign, sizeof s->assign) != 0)
                                return false;
                        break;
                case PLAN_ATTR:
                        if (strcmp(s->attr.name, t->attr.name) != 0 ||
                            strcmp(s->attr.value, t->attr.value) != 0)
                                return false;
                        break;
                default:
                        if (strcmp(s->remove.parent, t->remove.parent) != 0 ||
                            strcmp(s->remove.type, t->remove.type) != 0 || s->remove.ap != t->remove.ap ||
                            memcmp(&s->remove.before, &t->remove.before, sizeof s->remove.before) != 0)
                                return false;
                        break;
                }
        }

        return true;
}

static void test_round_trip(void **state) {
        Rng rng = rng_new();

        for (int round = 0; round < 300; round++) {
                CLEANUP(plan_clear) Plan p = { .uuid = random_uuid(&rng, 200) }, back = {}, copy = {};
                CLEANUP(freep) char *text = NULL, *again = NULL;

                for (unsigned n = round < 2 ? PLAN_STEPS_MAX * (unsigned) round : rng_below(&rng, 9); n > 0;
                     n--) {
                        PlanStep step;

                        random_step(&rng, &step);
                        assert_int_equal(plan_append(&p, &step), 0);
                }

                assert_int_equal(plan_serialize(&p, &text), 0);
                assert_null(strpbrk(text, "\n\r"));
                assert_int_equal(strspn(text, "0123456789abcdef "), strlen(text));
                assert_int_equal(plan_parse(text, &back), 0);
                assert_true(plans_equal(&p, &back));
                assert_int_equal(plan_serialize(&back, &again), 0);
                assert_string_equal(text, again);
                assert_int_equal(plan_copy(&p, &copy), 0);
                assert_true(plans_equal(&p, &copy));

                /* each byte counts: no other text means the same, and none is a crash */
                for (int i = 0; i < 20; i++) {
                        CLEANUP(plan_clear) Plan bad = {};
                        CLEANUP(freep) char *bad_text = strdup(text), *text_of_bad = NULL;
                        size_t at = rng_below(&rng, (unsigned) strlen(text));

                        if (rng_one_in(&rng, 3))
                                bad_text[at] = '\0';
                        else
                                bad_text[at] = " 0123456789abcdefABCDEF\n-"[rng_below(&rng, 25)];
                        if (strcmp(bad_text, text) == 0 || plan_parse(bad_text, &bad) < 0)
                                continue;
                        assert_int_equal(plan_serialize(&bad, &text_of_bad), 0);
                        assert_string_equal(bad_text, text_of_bad);
                }
        }
}

#define U32 " 00112233445566778899aabbccddeeff"

static void test_parse_refuses(void **state) {
        static const struct {
                const char *name, *text;
                int r;
        } cases[] = {
                { "no steps", "01" U32 " 0000", 0 },
                { "override", "01" U32 " 0001 01 05 47 00 01", 0 },
                { "create", "01" U32 " 0001 02 0161 00", 0 },
                { "nothing", "", -EBADMSG },
                { "newer version", "02" U32 " 0000", -EBADMSG },
                { "no version", U32 " 0000", -EBADMSG },
                { "short uuid", "01 00112233445566778899aabbccddee 0000", -EBADMSG },
                { "upper case", "01 00112233445566778899AABBCCDDEEFF 0000", -EBADMSG },
                { "no count", "01" U32, -EBADMSG },
                { "blank at the end", "01" U32 " 0000 ", -EBADMSG },
                { "newline at the end", "01" U32 " 0000\n", -EBADMSG },
                { "two blanks", "01 " U32 " 0000", -EBADMSG },
                { "blank at the start", " 01" U32 " 0000", -EBADMSG },
                { "step missing", "01" U32 " 0001", -EBADMSG },
                { "step too many", "01" U32 " 0000 01 05 47 00 01", -EBADMSG },
                { "unknown step", "01" U32 " 0001 06 05 47 00 01", -EBADMSG },
                { "not a bool", "01" U32 " 0001 01 05 47 00 02", -EBADMSG },
                { "half a byte", "01" U32 " 0001 01 05 4 00 01", -EBADMSG },
                { "more steps than a plan has", "01" U32 " 012d", -EBADMSG },
                { "string longer than its field",
                  "01" U32 " 0001 02 40"
                  "6161616161616161616161616161616161616161616161616161616161616161"
                  "6161616161616161616161616161616161616161616161616161616161616161"
                  " 00",
                  -EBADMSG },
                { "string shorter than it says", "01" U32 " 0001 02 0261 00", -EBADMSG },
                { "NUL in a string",
                  "01" U32 " 0001 02 0200"
                  "61 00",
                  -EBADMSG },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                PlanStep none;
                Plan p = { .uuid = own, .steps = &none, .n_steps = 77 };
                int r = plan_parse(cases[i].text, &p);

                assert_case(cases[i].name, r == cases[i].r);
                if (r < 0)
                        assert_case(cases[i].name,
                                    uuid_equal(p.uuid, own) && p.steps == &none && p.n_steps == 77);
                else
                        plan_clear(&p);
        }
}

static void test_append(void **state) {
        CLEANUP(plan_clear) Plan p = {};
        PlanStep step = { .type = PLAN_ATTR };

        for (int i = 0; i < PLAN_STEPS_MAX; i++)
                assert_int_equal(plan_append(&p, &step), 0);
        assert_int_equal(plan_append(&p, &step), -E2BIG);
        assert_int_equal(p.n_steps, PLAN_STEPS_MAX);
        plan_clear(&p);
        assert_true(!p.steps && p.n_steps == 0);
        plan_clear(&p);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_start),
                cmocka_unit_test(test_start_from_host_by_masks),
                cmocka_unit_test(test_start_from_host_by_overrides),
                cmocka_unit_test(test_too_many_steps),
                cmocka_unit_test(test_modify),
                cmocka_unit_test(test_stop),
                cmocka_unit_test(test_masks),
                cmocka_unit_test(test_give_back),
                cmocka_unit_test(test_other_types),
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_parse_refuses),
                cmocka_unit_test(test_append),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
