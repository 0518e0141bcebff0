/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Each request and each refusal: what is answered, what the host and the definitions look like afterwards. */

#include <errno.h>

#include "engine_env.h"

#define FOREIGN   "f0000000-0000-4000-8000-00000000000f"
#define MDEVCTL   "e0000000-0000-4000-8000-00000000000e"
#define ALL_MASKS "0x00-0xff"

static int setup(void **state) {
        Env *env = env_new("7.2", NULL);

        env_start(env);
        *state = env;
        return 0;
}

static int setup_61(void **state) {
        Env *env = env_new("6.1", NULL);

        env_start(env);
        *state = env;
        return 0;
}

static int setup_612(void **state) {
        Env *env = env_new("6.12", NULL);

        env_start(env);
        *state = env;
        return 0;
}

static int teardown(void **state) {
        *state = env_free(*state);
        return 0;
}

static void assert_host_has(Env *env, Uuid uuid, const ApMatrix *want) {
        char id[UUID_STRING_SIZE], config[AP_MATRIX_STRING_SIZE], path[128], buf[SIM_PAGE_SIZE];
        ssize_t n;

        (void) snprintf(path, sizeof path, "bus/mdev/devices/%s/ap_config", uuid_format(uuid, id));
        n = sim_read(env->sim, path, buf, sizeof buf - 1);
        assert_true(n > 0);
        buf[n - 1] = '\0';
        assert_string_equal(buf, ap_matrix_format(want, config));
}

static void test_life(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("2,3", "6", "0x11"), other = matrix_of("2,4", "6,0x10", "");
        CLEANUP(freep) char *empty = env_host_text(env), *after = NULL;

        env_do(env, "define", uuid_n(1), &m);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_DEFINED);
        env_do(env, "start", uuid_n(1), NULL);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_STARTED);
        assert_host_has(env, uuid_n(1), &m);
        env_do(env, "modify", uuid_n(1), &other);
        assert_host_has(env, uuid_n(1), &other);
        env_do(env, "modify", uuid_n(1), &other);
        env_do(env, "stop", uuid_n(1), NULL);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_DEFINED);
        env_do(env, "modify", uuid_n(1), &m);
        env_do(env, "autostart", uuid_n(1), NULL);
        env_do(env, "undefine", uuid_n(1), NULL);
        assert_int_equal(env_state_of(env, uuid_n(1)), _MATRIX_STATE_MAX);

        after = env_host_text(env);
        assert_string_equal(after, empty);
}

static void test_by_id(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("2,3", "6", "0x11"), other = matrix_of("2,4", "6,0x10", "");
        CLEANUP(freep) char *empty = env_host_text(env), *started = NULL, *changed = NULL, *after = NULL;

        env_do(env, "define-start", uuid_n(1), &m);
        started = env_host_text(env);
        assert_non_null(strstr(started, "02.0006\n03.0006\n0011\n"));
        env_do(env, "modify", uuid_n(1), &other);
        changed = env_host_text(env);
        assert_non_null(strstr(changed, "02.0006\n02.0010\n04.0006\n04.0010\n"));
        env_do(env, "undefine-stop", uuid_n(1), NULL);
        after = env_host_text(env);
        assert_string_equal(after, empty);
        assert_int_equal(sim_overruns(env->sim), 0);
}

typedef struct Case {
        const char *name;
        const char *what;
        unsigned n; /* uuid */
        const char *adapters, *domains, *control;
        int verdict;
        const char *words;
} Case;

/* The host they are asked on: m001 started with 02,03 x 06; m002 defined 04 x 06; alternatives m003 and m004, defined and overlapping,
 * 05 x 06; a foreign mdev with 02 x 10; mdevctl defines 03 x 10. */
static void furnish(Env *env) {
        ApMatrix a = matrix_of("2,3", "6", ""), b = matrix_of("4", "6", ""), c = matrix_of("5", "6", "");

        env_put_file(
                env, "etc/mdevctl.d/matrix/" MDEVCTL,
                "{\"mdev_type\":\"vfio_ap-passthrough\",\"start\":\"manual\",\"attrs\":[{\"assign_adapter\":\"3\"},"
                "{\"assign_domain\":\"0x10\"}]}");
        env_foreign(env, FOREIGN, "2", "0x10");
        env_do(env, "define-start", uuid_n(1), &a);
        env_do(env, "define", uuid_n(2), &b);
        env_do(env, "define-alternative", uuid_n(3), &c);
        env_do(env, "define-alternative", uuid_n(4), &c);
        env_do(env, "create", uuid_n(8), NULL);
        env_settle(env);
}

static const Case cases[] = {
        { "overlaps a started one", "define", 9, "3", "6", "", VERDICT_OVERLAP,
          "03.0006|m001|free instead" },
        { "overlaps a definition", "define", 9, "4", "6,0x1b", "", VERDICT_OVERLAP, "04.0006|m002" },
        { "overlaps an alternative", "define", 9, "5", "6", "", VERDICT_OVERLAP, "05.0006|m00" },
        { "alternative over exclusive", "define-alternative", 9, "4", "6", "", VERDICT_OVERLAP,
          "04.0006|m002" },
        { "overlaps a foreign mdev", "define", 9, "2", "0x10", "", VERDICT_OVERLAP, "02.0010|" FOREIGN },
        { "alternative over a foreign mdev", "define-alternative", 9, "2", "0x10", "", VERDICT_OVERLAP,
          "02.0010|" FOREIGN },
        { "overlaps mdevctl's", "define", 9, "3", "0x10", "", VERDICT_OVERLAP, "03.0010|mdevctl|" MDEVCTL },
        { "is the host's", "define", 9, "1", "6", "", VERDICT_HOST_OWNED, "01.0006|host" },
        { "is the host's, start", "define-start", 9, "1", "6", "", VERDICT_HOST_OWNED, "01.0006|host" },
        { "adapter above the maximum", "define", 9, "64", "6", "", VERDICT_NOT_INSTALLED, "0x40|0x3f" },
        { "domain above the maximum", "define", 9, "4", "85", "", VERDICT_NOT_INSTALLED, "0x55|0x54" },
        { "control above the maximum", "define", 9, "4", "0x1b", "85", VERDICT_NOT_INSTALLED,
          "control|0x55|0x54" },
        { "no adapter", "define", 9, "", "6", "", VERDICT_INVALID, "adapter" },
        { "no domain", "define", 9, "4", "", "", VERDICT_INVALID, "domain" },
        { "uuid taken", "define", 1, "4", "0x1b", "", VERDICT_EXISTS, "m001" },
        { "uuid of the own mdev", "define", 8, "4", "0x1b", "", VERDICT_EXISTS, "000000000008" },
        { "modify into a definition", "modify", 1, "2,4", "6", "", VERDICT_OVERLAP, "04.0006|m002" },
        { "modify into a foreign mdev", "modify", 1, "2", "6,0x10", "", VERDICT_OVERLAP,
          "02.0010|" FOREIGN },
        { "modify into the host's", "modify", 1, "0", "6", "", VERDICT_HOST_OWNED, "00.0006|host" },
        { "modify a definition into a started one", "modify", 2, "3", "6", "", VERDICT_OVERLAP,
          "03.0006|m001" },
        { "modify to nothing", "modify", 1, "", "6", "", VERDICT_INVALID, "adapter" },
        { "modify above the maximum", "modify", 2, "4", "200", "", VERDICT_NOT_INSTALLED, "0xc8|0x54" },
        { "modify unknown", "modify", 9, "4", "0x1b", "", VERDICT_NO_SUCH_MATRIX, "000000000009" },
        { "start started", "start", 1, NULL, NULL, NULL, VERDICT_BAD_STATE, "m001|started" },
        { "start unknown", "start", 9, NULL, NULL, NULL, VERDICT_NO_SUCH_MATRIX, "000000000009" },
        { "start an own mdev", "start", 8, NULL, NULL, NULL, VERDICT_NO_SUCH_MATRIX, "000000000008" },
        { "stop stopped", "stop", 2, NULL, NULL, NULL, VERDICT_BAD_STATE, "m002|not started" },
        { "stop unknown", "stop", 9, NULL, NULL, NULL, VERDICT_NO_SUCH_MATRIX, "000000000009" },
        { "undefine started", "undefine", 1, NULL, NULL, NULL, VERDICT_BAD_STATE, "m001|started" },
        { "undefine unknown", "undefine", 9, NULL, NULL, NULL, VERDICT_NO_SUCH_MATRIX, "000000000009" },
        { "autostart unknown", "autostart", 9, NULL, NULL, NULL, VERDICT_NO_SUCH_MATRIX, "000000000009" },
        { "remove unknown", "remove", 9, NULL, NULL, NULL, VERDICT_NO_SUCH_MDEV, "000000000009" },
        { "remove a matrix", "remove", 1, NULL, NULL, NULL, VERDICT_BAD_STATE, "m001" },
        { "remove a foreign one", "remove", 0, NULL, NULL, NULL, VERDICT_NOT_OURS, FOREIGN },
        { "create on a taken uuid", "create", 1, NULL, NULL, NULL, VERDICT_EXISTS, "000000000001" },
        { "create overlapping", "create", 9, "3", "6", "", VERDICT_OVERLAP, "03.0006|m001" },
        { "create on the host's", "create", 9, "0", "6", "", VERDICT_HOST_OWNED, "00.0006|host" },
        { "masks that take a started one", "masks", 0, "0-3", ALL_MASKS, NULL, VERDICT_OVERLAP,
          "02.0006|m001" },
        { "masks that take a foreign one", "masks", 0, "0-2", "0x10", NULL, VERDICT_OVERLAP,
          "02.0010|" FOREIGN },
};

static void test_refusals(void **state) {
        Env *env = *state;

        furnish(env);
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                const Case *c = &cases[i];
                ApMatrix m = matrix_of(c->adapters ?: "", c->domains ?: "", c->control ?: "");

                print_message("%s\n", c->name);
                env_expect(env, c->what, c->n ? uuid_n(c->n) : uuid_of(FOREIGN), c->adapters ? &m : NULL,
                           c->verdict, c->words);
        }
}

/* An old kernel does not show safely what a foreign mdev has: it may have everything. */
static void test_unknown_matrix(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("4", "6", "");

        env_foreign(env, FOREIGN, "2", "0x10");
        env_expect(env, "define", uuid_n(1), &m, VERDICT_OVERLAP, "04.0006|" FOREIGN "|does not show");
        env_write(env, "bus/mdev/devices/" FOREIGN "/remove", "1");
        env_do(env, "define", uuid_n(1), &m);
        assert_int_equal(sim_overruns(env->sim), 0);
}

/* Ours is removed by somebody, who then makes his own with the same uuid. */
static void test_uuid_taken_over(void **state) {
        Env *env = *state;
        char id[UUID_STRING_SIZE], path[128];

        env_do(env, "create", uuid_n(8), NULL);
        assert_true(engine_is_ours(env->engine, uuid_n(8)));
        (void) snprintf(path, sizeof path, "bus/mdev/devices/%s/remove", uuid_format(uuid_n(8), id));
        env_write(env, path, "1");
        env_rescan(env);
        env_foreign(env, id, "2", "0x10");
        env_rescan(env);
        assert_false(engine_is_ours(env->engine, uuid_n(8)));
        env_expect(env, "remove", uuid_n(8), NULL, VERDICT_NOT_OURS, id);

        env_stop(env);
        env_launch(env);
        env_settle(env);
        assert_false(engine_is_ours(env->engine, uuid_n(8)));
        env_expect(env, "remove", uuid_n(8), NULL, VERDICT_NOT_OURS, id);
}

static void test_names(void **state) {
        static const char *const bad[] = {
                "a/b", "-a",       ".a", "a b",
                "a\n", "\xc3\xa4", "",   "0123456789012345678901234567890123456789012345678901234567890123x"
        };
        static const struct {
                const char *guest;
                int verdict;
        } guests[] = {
                { "payments", 0 },
                { "a b/c", 0 },
                { "a\nb", VERDICT_INVALID },
                { "a\x7f", VERDICT_INVALID },
                { "a\xc2\x85z", VERDICT_INVALID },
                { "\xff\xfe", VERDICT_INVALID },
        };
        Env *env = *state;
        CLEANUP(freep) char *long_guest = calloc(1, 10240);
        EngineDefine d = { .uuid = uuid_n(1), .matrix = matrix_of("2", "6", "") };
        Reply reply;

        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                if (!bad[i][0]) /* the uuid's text then */
                        continue;
                d.name = bad[i];
                env_define(env, &d, &reply);
                assert_reply(&reply, VERDICT_INVALID, "name", __FILE__, __LINE__);
        }

        memset(long_guest, 'g', 10239);
        d.name = "a";
        d.guest = long_guest;
        env_define(env, &d, &reply);
        assert_reply(&reply, VERDICT_INVALID, "guest", __FILE__, __LINE__);
        for (size_t i = 0; i < ELEMENTS(guests); i++) {
                d.guest = guests[i].guest;
                env_define(env, &d, &reply);
                print_message("guest %zu\n", i);
                assert_reply(&reply, guests[i].verdict, guests[i].verdict ? "guest" : "", __FILE__,
                             __LINE__);
                assert_false(env_has_general_problem(env, "state directory"));
                if (reply.r == 0)
                        env_do(env, "undefine", uuid_n(1), NULL);
        }

        d.guest = NULL;
        d.name = NULL;
        env_define(env, &d, &reply);
        assert_reply(&reply, 0, NULL, __FILE__, __LINE__);
        d.uuid = uuid_n(2);
        d.matrix = matrix_of("3", "6", "");
        d.name = "00000000-0000-4000-8000-000000000001"; /* of another */
        env_define(env, &d, &reply);
        assert_reply(&reply, VERDICT_INVALID, "UUID", __FILE__, __LINE__);
}

static void test_alternatives(void **state) {
        Env *env = *state;
        ApMatrix a = matrix_of("2", "6", ""), b = matrix_of("2,3", "6", "");
        Reply first, second;

        env_do(env, "define-alternative-start", uuid_n(1), &a);
        env_do(env, "define-alternative", uuid_n(2), &b);
        env_expect(env, "start", uuid_n(2), NULL, VERDICT_OVERLAP, "02.0006|m001");
        env_expect(env, "define-alternative-start", uuid_n(3), &b, VERDICT_OVERLAP, "02.0006|m001");
        env_do(env, "stop", uuid_n(1), NULL);

        /* both at once */
        env_begin(env, "start", uuid_n(1), NULL, &first);
        env_begin(env, "start", uuid_n(2), NULL, &second);
        env_wait(env, &first.done);
        env_wait(env, &second.done);
        assert_reply(&first, 0, NULL, __FILE__, __LINE__);
        assert_reply(&second, VERDICT_OVERLAP, "02.0006|m001", __FILE__, __LINE__);
        env_assert_no_overlap(env);
        env_do(env, "stop", uuid_n(1), NULL);
        env_do(env, "start", uuid_n(2), NULL);
}

static void test_from_host(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("1,2", "6", "");
        CLEANUP(freep) char *text = NULL;

        env_do(env, "define-fromhost", uuid_n(1), &m);
        env_do(env, "start", uuid_n(1), NULL);
        text = env_host_text(env);
        assert_non_null(strstr(text, "apmask 0x80000000"));
        env_do(env, "stop", uuid_n(1), NULL);
        env_do(env, "undefine", uuid_n(1), NULL);
}

/* Somebody gives the masks back and removes the mdev: healing takes the queues from the host again. */
static void test_from_host_heals(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("1,2", "6", "");

        env_do(env, "define-fromhost-start", uuid_n(1), &m);
        env_write(env, "bus/mdev/devices/00000000-0000-4000-8000-000000000001/remove", "1");
        env_write(env, "bus/ap/apmask", "+1");
        env_settle(env);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_LOST);
        env_do(env, "reconcile", (Uuid) {}, NULL);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_STARTED);
        assert_host_has(env, uuid_n(1), &m);
}

static void test_masks(void **state) {
        Env *env = *state;
        ApMatrix masks = matrix_of("0,1,5", ALL_MASKS, "");
        CLEANUP(freep) char *text = NULL;
        Reply reply;

        env_do(env, "masks", (Uuid) {}, &masks);
        text = env_host_text(env);
        assert_non_null(strstr(text, "apmask 0xc4000000"));
        env_do(env, "masks", (Uuid) {}, &masks);
        env_write(env, "bus/ap/apmask", "-5");
        env_settle(env);
        assert_true(env_has_general_problem(env, "host masks"));
        env_request(env, "reconcile", (Uuid) {}, NULL, &reply);
        assert_reply(&reply, 0, "host masks healed", __FILE__, __LINE__);
        env_settle(env);
        assert_false(env_has_general_problem(env, "host masks"));
}

/* One that somebody else has set makes the kernel refuse masks; it goes without a uevent. */
static void test_masks_after_override(void **state) {
        static const char override[] = "bus/ap/devices/02.001b/driver_override";
        Env *env = *state;
        ApMatrix all = matrix_of("0-255", ALL_MASKS, ""), one = matrix_of("0", ALL_MASKS, "");

        env_do(env, "masks", (Uuid) {}, &all);
        env_write(env, override, "cex4queue");
        for (unsigned i = 0; i < 2; i++)
                env_expect(env, "masks", (Uuid) {}, &one, VERDICT_BAD_STATE,
                           "02.001b has a driver override");
        env_rest(env);
        env_write(env, override, "\n");
        env_do(env, "masks", (Uuid) {}, &one);
}

/* What a guest gets is read in detail only, which an adapter that goes brings about. */
static void test_guest_matrix_follows_the_machine(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("2,4", "6", ""), left = matrix_of("4", "6", "");
        EngineMatrix shown;

        env_do(env, "define-start", uuid_n(1), &m);
        env_rescan(env);
        assert_int_equal(engine_get_matrix(env->engine, uuid_n(1), &shown), 0);
        assert_true(ap_mask_equal(&shown.guest_adapters, &m.adapters));

        env_ctl(env, "card del 0x02");
        env_ctl(env, "scan");
        env_settle(env);
        assert_int_equal(engine_get_matrix(env->engine, uuid_n(1), &shown), 0);
        assert_true(ap_mask_equal(&shown.guest_adapters, &left.adapters));
}

static void test_in_use(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("2", "6", "");
        EngineMatrix view;

        env_do(env, "define-start", uuid_n(1), &m);
        env_ctl(env, "guest 00000000-0000-4000-8000-000000000001 on");
        env_expect(env, "stop", uuid_n(1), NULL, VERDICT_IN_USE, "m001|guest");
        env_settle(env); /* the refusal has looked, the property says so too */
        assert_int_equal(engine_get_matrix(env->engine, uuid_n(1), &view), 0);
        assert_true(view.in_use);
        env_expect(env, "undefine-stop", uuid_n(1), NULL, VERDICT_IN_USE, "m001|guest");
        env_rescan(env);
        env_expect(env, "stop", uuid_n(1), NULL, VERDICT_IN_USE, "m001|guest");
        env_ctl(env, "guest 00000000-0000-4000-8000-000000000001 off");
        env_do(env, "stop", uuid_n(1), NULL);
}

static void test_create(void **state) {
        static const struct {
                const char *name, *parent, *type, *attr, *value;
                int verdict;
                const char *words;
        } table[] = {
                { "no parent", "nothing", "mtty-1", NULL, NULL, VERDICT_NO_SUCH_PARENT, "nothing" },
                { "no type", "mtty", "mtty-9", NULL, NULL, VERDICT_NO_SUCH_PARENT, "mtty-9" },
                { "parent with slash", "../x", "mtty-1", NULL, NULL, VERDICT_NO_SUCH_PARENT, "../x" },
                { "banana", "matrix", "vfio_ap-passthrough", "assign_adapter", "banana", VERDICT_INVALID,
                  "banana" },
                { "4000", "matrix", "vfio_ap-passthrough", "assign_adapter", "4000", VERDICT_INVALID,
                  "4000" },
                { "40,41", "matrix", "vfio_ap-passthrough", "assign_adapter", "40,41", VERDICT_INVALID,
                  "40,41" },
                { "-1", "matrix", "vfio_ap-passthrough", "assign_domain", "-1", VERDICT_INVALID, "-1" },
                { "octal", "matrix", "vfio_ap-passthrough", "assign_domain", "010", VERDICT_INVALID, "010" },
                { "unknown attribute", "matrix", "vfio_ap-passthrough", "assign_all", "1", VERDICT_INVALID,
                  "assign_all" },
                { "remove", "mtty", "mtty-1", "remove", "1", VERDICT_INVALID,
                  "attribute 1|take the device away" },
                { "climbing", "mtty", "mtty-1", "..", "1", VERDICT_INVALID, "its name" },
                { "slash", "mtty", "mtty-1", "a/b", "1", VERDICT_INVALID, "its name" },
                { "control character", "mtty", "mtty-1", "a", "1\n", VERDICT_INVALID, "cannot be printed" },
                { "empty value", "mtty", "mtty-1", "a", "", VERDICT_INVALID, "its value is empty" },
                { "no such attribute", "mtty", "mtty-1", "absent", "1", VERDICT_KERNEL, "ENOENT" },
        };
        Env *env = *state;
        CLEANUP(freep) char *before = env_host_text(env);

        for (size_t i = 0; i < ELEMENTS(table); i++) {
                EngineAttr attr = { table[i].attr, table[i].value };
                CLEANUP(freep) char *after = NULL;
                Refusal refusal = {};
                Reply reply = {};
                int r;

                print_message("%s\n", table[i].name);
                r = engine_create_mdev(env->engine, table[i].parent, table[i].type, uuid_n(1), &attr,
                                       attr.name ? 1 : 0, &root_caller, on_reply, &reply, &refusal);
                if (r != 0)
                        on_reply(&reply, r, &refusal, (Uuid) {});
                refusal_clear(&refusal);
                env_wait(env, &reply.done);
                assert_reply(&reply, table[i].verdict, table[i].words, __FILE__, __LINE__);
                after = env_host_text(env);
                assert_string_equal(after, before);
                assert_false(engine_is_ours(env->engine, uuid_n(1)));
        }

        for (unsigned i = 1; i <= 4; i++)
                env_do(env, "create", uuid_n(i), NULL);
        env_expect(env, "create", uuid_n(5), NULL, VERDICT_NO_INSTANCES, "mtty-1");
        assert_true(engine_is_ours(env->engine, uuid_n(4)));
        for (unsigned i = 1; i <= 4; i++)
                env_do(env, "remove", uuid_n(i), NULL);
        env_expect(env, "remove", uuid_n(1), NULL, VERDICT_NO_SUCH_MDEV, "000000000001");
}

/* Whoever looks at a new mdev sees at once that it is ours. */
static void test_created_is_ours_from_the_start(void **state) {
        Env *env = *state;
        Reply reply;

        env_begin(env, "create", uuid_n(1), NULL, &reply);
        while (!snapshot_find_mdev(engine_snapshot(env->engine), uuid_n(1))) {
                assert_false(engine_is_ours(env->engine, uuid_n(1)));
                assert_true(env_turn(env, 1000000));
        }
        assert_false(reply.done); /* it is still to be written down */
        assert_true(engine_is_ours(env->engine, uuid_n(1)));
        env_wait(env, &reply.done);
        assert_int_equal(reply.r, 0);
        assert_true(engine_is_ours(env->engine, uuid_n(1)));
}

/* mdevctl's definitions are followed from before there is a directory for them; what others do beside it wakes nobody
 * once there is. */
static void test_mdevctl_is_watched(void **state) {
        static const char text[] = "{\"mdev_type\":\"vfio_ap-passthrough\",\"start\":\"manual\",\"attrs\":"
                                   "[{\"assign_adapter\":\"3\"},{\"assign_domain\":\"0x10\"}]}";
        Env *env = *state;
        ApMatrix m = matrix_of("3", "0x10", ""), other = matrix_of("3", "6", "");

        env_put_file(env, "etc/other.conf", "x");
        env_rest(env);
        env_put_file(env, "etc/mdevctl.d/matrix/" MDEVCTL, text);
        env_expect(env, "define", uuid_n(1), &m, VERDICT_OVERLAP, MDEVCTL);
        env_rest(env);
        while (env_turn(env, 50000))
                ;

        env_put_file(env, "etc/other.conf", "y");
        env_put_file(env, "etc/mdevctl.d/other.conf", "y");
        assert_false(env_turn(env, 50000));

        env_put_file(env, "etc/mdevctl.d/matrix/" MDEVCTL, "{}");
        assert_true(env_turn(env, 1000000));
        env_settle(env);
        env_do(env, "define", uuid_n(2), &other);
        assert_true(env_has_general_problem(env, MDEVCTL));
}

static void test_quotas(void **state) {
        Env *env = *state;
        EngineCaller user = { .uid = 1000, .id = ":1.7" };
        Reply replies[4] = {};
        Refusal refusal = {};

        env->config.max_matrices_per_uid = 2;
        env->config.max_calls = 3;
        engine_set_config(env->engine, &env->config);

        for (unsigned i = 0; i < 4; i++) {
                EngineDefine d = {
                        .uuid = uuid_n(i + 1),
                        .matrix = matrix_of("2", (const char *[]) { "6", "0x10", "0x1b", "0x47" }[i], "")
                };
                int r = engine_define(env->engine, &d, &user, on_reply, &replies[i], &refusal);

                if (i == 3) { /* the fourth in flight */
                        assert_int_equal(r, VERDICT_LIMIT_HIT);
                        assert_non_null(strstr(refusal.text, "of one client that wait for an answer, 3"));
                        refusal_clear(&refusal);
                        /* a question counts as well; others are not concerned */
                        assert_int_equal(engine_admit(env->engine, user.id, &refusal), VERDICT_LIMIT_HIT);
                        refusal_clear(&refusal);
                        assert_int_equal(engine_admit(env->engine, ":1.8", &refusal), 0);
                        engine_discharge(env->engine, ":1.8");
                } else
                        assert_int_equal(r, 0);
        }
        for (unsigned i = 0; i < 3; i++)
                env_wait(env, &replies[i].done);
        assert_int_equal(replies[0].r, 0);
        assert_int_equal(replies[1].r, 0);
        assert_reply(&replies[2], VERDICT_LIMIT_HIT, "user 1000|2", __FILE__, __LINE__);

        for (unsigned i = 0; i < 3; i++) /* all that had been counted is over */
                assert_int_equal(engine_admit(env->engine, user.id, &refusal), 0);
        assert_int_equal(engine_admit(env->engine, user.id, &refusal), VERDICT_LIMIT_HIT);
        refusal_clear(&refusal);
        for (unsigned i = 0; i < 3; i++)
                engine_discharge(env->engine, user.id);
}

static void test_matrices_limit(void **state) {
        Env *env = *state;
        ApMatrix a = matrix_of("2", "6", ""), b = matrix_of("3", "6", "");

        env->config.max_matrices = 1;
        engine_set_config(env->engine, &env->config);
        env_do(env, "define", uuid_n(1), &a);
        env_expect(env, "define", uuid_n(2), &b, VERDICT_LIMIT_HIT, "MaxMatrices");
}

typedef struct Pair {
        const char *name;
        const char *first;
        unsigned n;
        const char *a, *second;
        unsigned n2;
        const char *b;
        int verdict; /* of the second */
        const char *words;
} Pair;

/* Two calls in one turn of the loop. m001 is started with 2 x 6, m002 is defined with 3 x 6. */
static const Pair pairs[] = {
        { "the same queues", "define", 5, "4", "define-start", 6, "4", VERDICT_OVERLAP, "04.0006|m005" },
        { "the same queues, started", "define-start", 5, "4", "define-start", 6, "4,5", VERDICT_OVERLAP,
          "04.0006|m005" },
        { "the same uuid", "define-start", 5, "4", "define", 5, "5", VERDICT_EXISTS, "m005" },
        { "stop and start", "stop", 1, NULL, "start", 1, NULL, VERDICT_BAD_STATE, "m001" },
        { "start twice", "start", 2, NULL, "start", 2, NULL, VERDICT_BAD_STATE, "m002" },
        { "stop twice", "stop", 1, NULL, "stop", 1, NULL, VERDICT_BAD_STATE, "m001" },
        { "modify into what is being defined", "define-start", 5, "4", "modify", 1, "2,4", VERDICT_OVERLAP,
          "04.0006|m005" },
        { "define what is being modified to", "modify", 1, "2,4", "define", 5, "4", VERDICT_OVERLAP,
          "04.0006|m001" },
        { "define what is being modified away", "modify", 1, "4", "define", 5, "2", VERDICT_OVERLAP,
          "02.0006|m001" },
        { "define what is being stopped", "undefine-stop", 1, NULL, "define", 5, "2", VERDICT_OVERLAP,
          "02.0006|m001" },
        { "create what is being defined", "define-start", 5, "4", "create", 5, NULL, VERDICT_EXISTS,
          "000000000005" },
        { "define what is being created", "create", 5, NULL, "define", 5, "4", VERDICT_EXISTS,
          "000000000005" },
        { "create the queues of what is being started", "start", 2, NULL, "create", 5, "3", VERDICT_OVERLAP,
          "03.0006|m002" },
        { "define the queues of what is being created", "create", 5, "4", "define", 6, "4", VERDICT_OVERLAP,
          "04.0006|000000000005" },
        { "create twice", "create", 5, NULL, "create", 5, NULL, VERDICT_BAD_STATE, "000000000005" },
        { "start and undefine", "start", 2, NULL, "undefine", 2, NULL, VERDICT_BAD_STATE, "m002" },
        { "start and modify", "start", 2, NULL, "modify", 2, "4", VERDICT_BAD_STATE, "m002" },
};

static void test_pairs(void **state) {
        for (size_t i = 0; i < ELEMENTS(pairs); i++) {
                const Pair *p = &pairs[i];
                Env *env = env_new("7.2", NULL);
                ApMatrix a = matrix_of("2", "6", ""), b = matrix_of("3", "6", "");
                ApMatrix first_m = matrix_of(p->a ?: "", "6", ""), second_m = matrix_of(p->b ?: "", "6", "");
                Reply first, second;

                print_message("%s\n", p->name);
                env_start(env);
                env_do(env, "define-start", uuid_n(1), &a);
                env_do(env, "define", uuid_n(2), &b);
                env_settle(env);
                env_begin(env, p->first, uuid_n(p->n), p->a ? &first_m : NULL, &first);
                env_begin(env, p->second, uuid_n(p->n2), p->b ? &second_m : NULL, &second);
                env_wait(env, &first.done);
                env_wait(env, &second.done);
                env_settle(env);
                /* what needs a fresh look at the host first may be overtaken */
                if (first.r != 0) {
                        assert_int_equal(second.r, 0);
                        assert_true(first.r == VERDICT_OVERLAP || first.r == VERDICT_BAD_STATE);
                        assert_non_null(strstr(first.text, "m00"));
                } else if (second.r != 0)
                        assert_reply(&second, p->verdict, p->words, __FILE__, __LINE__);
                else if (p->verdict == VERDICT_OVERLAP && strcmp(p->first, "modify") != 0 &&
                         strcmp(p->first, "undefine-stop") != 0)
                        fail_msg("both were granted");
                env_assert_no_overlap(env);
                assert_int_equal(env_has_general_problem(env, ""), false);
                (void) env_free(env);
        }
}

/* What engine_check() says is what a definition is answered. */
static void test_check(void **state) {
        Env *env = *state;

        furnish(env);
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                const Case *c = &cases[i];
                EngineCheck check = { .alternative = strstr(c->what, "alternative") };
                CLEANUP(freep) EngineConflict *conflicts = NULL;
                CLEANUP(freep) char *text = NULL;
                Verdict verdict;
                size_t n;

                if (strncmp(c->what, "define", 6) != 0 || c->verdict == VERDICT_INVALID ||
                    c->verdict == VERDICT_EXISTS)
                        continue;
                print_message("%s\n", c->name);
                check.matrix = matrix_of(c->adapters, c->domains, c->control);
                assert_int_equal(engine_check(env->engine, &check, &conflicts, &n, &verdict, &text), 0);
                assert_int_equal(verdict, c->verdict);
                assert_true(n > 0);
                assert_non_null(text);
                if (c->verdict == VERDICT_OVERLAP)
                        assert_true(strstr(c->words, conflicts[0].owner) ||
                                    strncmp(conflicts[0].owner, "m00", 3) == 0);
                if (c->verdict == VERDICT_HOST_OWNED)
                        assert_string_equal(conflicts[0].kind, "host");
        }
}

/* Somebody takes the queue between our look and our write. */
static void steal(Env *env, const char *path, const char *data) {
        if (!strstr(path, "ap_config") && !strstr(path, "assign_"))
                return;
        env->before_write = NULL;
        env_foreign(env, FOREIGN, "4", "6");
}

static void test_race_for_a_queue(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("3,4", "6", "");
        CLEANUP(freep) char *text = NULL;
        Reply reply;

        env->before_write = steal;
        env_request(env, "define-start", uuid_n(1), &m, &reply);
        assert_reply(&reply, VERDICT_OVERLAP, "04.0006|" FOREIGN, __FILE__, __LINE__);
        text = env_host_text(env);
        assert_null(strstr(text, "000000000001"));
        assert_non_null(strstr(text, FOREIGN));
        assert_int_equal(env_state_of(env, uuid_n(1)), _MATRIX_STATE_MAX);
        env_settle(env);
}

static void give_to_host(Env *env, const char *path, const char *data) {
        if (!strstr(path, "ap_config") && !strstr(path, "assign_"))
                return;
        env->before_write = NULL;
        env_write(env, "bus/ap/apmask", "+4");
}

static void test_race_with_masks(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("3,4", "6", "");
        Reply reply;

        env->before_write = give_to_host;
        env_request(env, "define-start", uuid_n(1), &m, &reply);
        assert_reply(&reply, VERDICT_HOST_OWNED, "04.0006|host", __FILE__, __LINE__);
        env_assert_no_overlap(env);
}

static void take_uuid(Env *env, const char *path, const char *data) {
        if (!strstr(path, "/create"))
                return;
        env->before_write = NULL;
        env_foreign(env, "00000000-0000-4000-8000-000000000001", "5", "6");
}

static void test_race_for_a_uuid(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("3,4", "6", "");
        CLEANUP(freep) char *text = NULL;
        Reply reply;

        env->before_write = take_uuid;
        env_request(env, "define-start", uuid_n(1), &m, &reply);
        assert_true(reply.r > 0);
        text = env_host_text(env);
        assert_non_null(strstr(text, "mdev 00000000-0000-4000-8000-000000000001\n0x0400")); /* left alone */
        assert_int_equal(env_state_of(env, uuid_n(1)), _MATRIX_STATE_MAX);
        assert_false(engine_is_ours(env->engine, uuid_n(1)));
}

/* What a matrix has now cannot be read: the refusal says what to do instead. */
static void test_modify_of_what_cannot_be_read(void **state) {
        Env *env = *state;
        ApMatrix a = matrix_of("2", "6", ""), b = matrix_of("3", "6", "");

        env_do(env, "define-start", uuid_n(1), &a);
        env_ctl(env, "fault read ap_config EIO");
        env_rescan(env);
        env_expect(env, "modify", uuid_n(1), &b, VERDICT_BAD_STATE, "does not show|'m001'|stop it");
        env_do(env, "stop", uuid_n(1), NULL);
        env_ctl(env, "clear");
        env_do(env, "modify", uuid_n(1), &b);
        env_do(env, "start", uuid_n(1), NULL);
        env_assert_no_overlap(env);
}

/* The host's devices cannot be read: nothing is decided on what is not known. */
static void test_unreadable(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("2", "6", "");
        Reply reply;

        env_do(env, "define-start", uuid_n(1), &m);
        env_settle(env);
        env_crash(env);
        env_ctl(env, "fault read bus/ap/apmask EIO");
        env_start(env);
        env_request(env, "undefine", uuid_n(1), NULL, &reply);
        assert_reply(&reply, VERDICT_BACKEND, "cannot be read", __FILE__, __LINE__);
        env_request(env, "stop", uuid_n(1), NULL, &reply);
        assert_reply(&reply, VERDICT_BACKEND, "cannot be read", __FILE__, __LINE__);
        env_ctl(env, "clear");
        env_rescan(env);
        env_do(env, "undefine-stop", uuid_n(1), NULL);
}

static void test_no_vfio_ap(void **state) {
        Env *env = *state;
        ApMatrix m = matrix_of("2", "6", "");

        env_ctl(env, "rmmod");
        env_settle(env);
        env_do(env, "define", uuid_n(1), &m);
        env_expect(env, "start", uuid_n(1), NULL, VERDICT_BACKEND, "vfio_ap");
        env_ctl(env, "modprobe");
        env_settle(env);
        env_do(env, "start", uuid_n(1), NULL);
}

/* More than 512 queues, which an old kernel must not be asked for. */
static void big(const char *dialect) {
        static const char profile[] =
                "card 0x00-0x0f cca\ndomains 0-84\ncontrol 0-84\nmax 63 84\n"
                "apmask 0x0000000000000000000000000000000000000000000000000000000000000000\n";
        Env *env = env_new(dialect, profile);
        ApMatrix m = matrix_of("0-9", "0-84", "0-84"), less = matrix_of("0-8", "0-84", ""),
                 other = matrix_of("9", "84", "");

        print_message("%s\n", dialect);
        env_start(env);
        env_do(env, "define-start", uuid_n(1), &m);
        env_expect(env, "define", uuid_n(2), &other, VERDICT_OVERLAP, "09.0054|m001");
        env_do(env, "modify", uuid_n(1), &less);
        env_do(env, "define-start", uuid_n(2), &other);
        env_crash(env);
        env_start(env);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_STARTED);
        assert_false(env_has_problem(env, uuid_n(1), ""));
        env_expect(env, "modify", uuid_n(1), &m, VERDICT_OVERLAP, "09.0054|m002");
        env_do(env, "stop", uuid_n(2), NULL);
        env_do(env, "undefine", uuid_n(2), NULL);
        env_do(env, "modify", uuid_n(1), &m);
        assert_int_equal(strcmp(dialect, "6.1") == 0 ? 0 : sim_overruns(env->sim), 0);
        env_do(env, "undefine-stop", uuid_n(1), NULL);
        (void) env_free(env);
}

static void test_big(void **state) {
        big("7.2");
        big("6.12");
}

static void test_big_61(void **state) {
        big("6.1");
}

static void test_xml(void **state) {
        static const char *const bad[] = {
                "", "<device", "<!DOCTYPE x [<!ENTITY a 'b'>]><device>&a;</device>", "<device/>",
                ("<device><parent>ap_matrix</parent><capability type='mdev'><type id='vfio_ap-passthrough'/>"
                 "<attr name='assign_adapter' value='banana'/></capability></device>")
        };
        static const char good[] =
                "<device><parent>ap_matrix</parent><capability type='mdev'><type id='vfio_ap-passthrough'/>"
                "<uuid>00000000-0000-4000-8000-000000000001</uuid><attr name='assign_adapter' value='0x02'/>"
                "<attr name='assign_domain' value='0x0006'/></capability></device>";
        Env *env = *state;
        EngineDefine options = { .start = true };
        CLEANUP(freep) char *xml = NULL;
        Refusal refusal = {};
        Reply reply = {};

        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                int r = engine_define_xml(env->engine, bad[i], strlen(bad[i]), &options, &root_caller,
                                          on_reply, &reply, &refusal);

                print_message("%s\n", refusal.text ?: "-");
                assert_int_equal(r, VERDICT_INVALID);
                refusal_clear(&refusal);
        }
        assert_int_equal(engine_define_xml(env->engine, good, strlen(good), &options, &root_caller, on_reply,
                                           &reply, &refusal),
                         0);
        env_wait(env, &reply.done);
        assert_reply(&reply, 0, NULL, __FILE__, __LINE__);
        assert_int_equal(env_state_of(env, uuid_n(1)), MATRIX_STARTED);
        assert_int_equal(engine_get_xml(env->engine, uuid_n(1), &xml), 0);
        assert_non_null(strstr(xml, "00000000-0000-4000-8000-000000000001"));
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_life),
                TEST(test_refusals),
                TEST(test_names),
                TEST(test_alternatives),
                TEST(test_from_host),
                TEST(test_from_host_heals),
                TEST(test_masks),
                TEST(test_masks_after_override),
                TEST(test_guest_matrix_follows_the_machine),
                TEST(test_in_use),
                TEST(test_create),
                TEST(test_modify_of_what_cannot_be_read),
                TEST(test_created_is_ours_from_the_start),
                TEST(test_mdevctl_is_watched),
                TEST(test_quotas),
                TEST(test_matrices_limit),
                TEST(test_check),
                TEST(test_race_for_a_queue),
                TEST(test_race_with_masks),
                TEST(test_race_for_a_uuid),
                TEST(test_unreadable),
                TEST(test_no_vfio_ap),
                TEST(test_xml),
                cmocka_unit_test_setup_teardown(test_by_id, setup_61, teardown),
                cmocka_unit_test_setup_teardown(test_life, setup_612, teardown),
                cmocka_unit_test_setup_teardown(test_unknown_matrix, setup_61, teardown),
                cmocka_unit_test_setup_teardown(test_refusals, setup_612, teardown),
                cmocka_unit_test_setup_teardown(test_race_for_a_queue, setup_612, teardown),
                cmocka_unit_test_setup_teardown(test_uuid_taken_over, setup_612, teardown),
                cmocka_unit_test(test_pairs),
                cmocka_unit_test(test_big),
                cmocka_unit_test(test_big_61),
        };

        return cmocka_run_group_tests_name("requests", tests, NULL, NULL);
}
