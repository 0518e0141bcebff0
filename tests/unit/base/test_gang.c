/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/gang.h"

#define N      4
#define ROUNDS 2000

typedef struct Shared {
        unsigned calls[N + 1]; /* of each member, which alone writes it */
        _Atomic(size_t) here;
        int results[N + 1];
} Shared;

static int count(void *userdata, size_t member) {
        Shared *s = userdata;

        s->calls[member]++;
        return s->results[member];
}

/* What they have written is there for the owner, and what the owner writes between two rounds for them. */
static void test_rounds(void **state) {
        Gang *g = NULL;
        Shared s = {};

        assert_int_equal(gang_new(N, &g), 0);
        assert_int_equal(gang_size(g), N);
        for (unsigned round = 1; round <= ROUNDS; round++) {
                assert_int_equal(gang_work(g, count, &s), 0);
                for (size_t i = 0; i <= N; i++)
                        assert_int_equal(s.calls[i]++, 2 * round - 1);
        }
        g = gang_free(g);
        assert_null(g);
}

/* Returns when all are here: would never end if they came one after the other. */
static int meet(void *userdata, size_t member) {
        Shared *s = userdata;

        atomic_fetch_add(&s->here, 1);
        while (atomic_load(&s->here) < N + 1)
                ;
        return 0;
}

static void test_side_by_side(void **state) {
        Gang *g = NULL;
        Shared s = {};

        assert_int_equal(gang_new(N, &g), 0);
        assert_int_equal(gang_work(g, meet, &s), 0);
        assert_int_equal(s.here, N + 1);
        (void) gang_free(g);
}

static void test_results(void **state) {
        Gang *g = NULL;
        Shared s = {};

        assert_int_equal(gang_new(N, &g), 0);
        s.results[2] = -EIO;
        assert_int_equal(gang_work(g, count, &s), -EIO);
        s.results[0] = -ENOENT;
        assert_int_equal(gang_work(g, count, &s), -ENOENT);
        s.results[0] = s.results[2] = 0;
        s.results[1] = 7;
        assert_int_equal(gang_work(g, count, &s), 0);
        for (size_t i = 0; i <= N; i++)
                assert_int_equal(s.calls[i], 3);
        (void) gang_free(g);
}

static int blocked(void *userdata, size_t member) {
        sigset_t set;

        if (member == 0)
                return 0;
        (void) sigemptyset(&set);
        return pthread_sigmask(SIG_BLOCK, NULL, &set) == 0 && sigismember(&set, SIGTERM) == 1 ? 0 : -EINTR;
}

static void test_signals_are_the_owners(void **state) {
        Gang *g = NULL;

        assert_int_equal(gang_new(1, &g), 0);
        assert_int_equal(gang_work(g, blocked, NULL), 0);
        (void) gang_free(g);
}

static void test_alone(void **state) {
        Gang *g = NULL;
        Shared s = {};

        assert_int_equal(gang_new(0, &g), 0);
        assert_int_equal(gang_work(g, count, &s), 0);
        assert_int_equal(s.calls[0], 1);
        (void) gang_free(g);
        assert_null(gang_free(NULL));
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rounds),  cmocka_unit_test(test_side_by_side),
                cmocka_unit_test(test_results), cmocka_unit_test(test_signals_are_the_owners),
                cmocka_unit_test(test_alone),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
