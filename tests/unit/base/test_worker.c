/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "base/cleanup.h"
#include "tests/lib/core/test.h"

enum { MAX = 16 };

/* A job, and what was seen of it. */
typedef struct Job {
        Work work;
        int number, returns;
        pthread_t ran_on;
        bool signals_blocked;
        int done; /* how often */
        int result;
        int gate;            /* waits until this can be read; -1: does not wait */
        Worker *resubmit_to; /* in done() */
} Job;

static int finished[4096]; /* numbers in the order of done(): loop thread */
static size_t n_finished;

static int job_run(Work *w) {
        Job *j = CONTAINER_OF(w, Job, work);
        sigset_t mask;
        char byte;

        if (j->gate >= 0 && read(j->gate, &byte, 1) != 1)
                return -EIO;
        j->ran_on = pthread_self();
        (void) pthread_sigmask(SIG_SETMASK, NULL, &mask);
        j->signals_blocked = sigismember(&mask, SIGTERM) && sigismember(&mask, SIGINT);
        return j->returns;
}

static void job_done(Work *w, int r) {
        Job *j = CONTAINER_OF(w, Job, work);

        j->done++;
        j->result = r;
        finished[n_finished++] = j->number;
        if (j->resubmit_to) {
                Worker *to = TAKE(j->resubmit_to);

                assert_int_equal(worker_submit(to, w), 0);
        }
}

static void job_init(Job *j, int number) {
        *j = (Job) { .work = { .run = job_run, .done = job_done },
                     .number = number,
                     .returns = -number,
                     .gate = -1 };
}

static sd_event *event_new(void) {
        sd_event *e = NULL;

        assert_true(sd_event_new(&e) >= 0);
        n_finished = 0;
        return e;
}

/* Runs the loop until @n jobs are done; the time limit only turns a bug into a failure. */
static void run_until(sd_event *e, size_t n) {
        while (n_finished < n)
                assert_true(sd_event_run(e, 20 * UINT64_C(1000000)) > 0);
}

static void test_order(void **state) {
        enum { ROUNDS = 200 };
        sd_event *e = event_new();
        Job jobs[MAX];
        Worker *w = NULL;

        assert_int_equal(worker_new(e, MAX, &w), 0);
        for (int round = 0; round < ROUNDS; round++) {
                n_finished = 0;
                for (int i = 0; i < MAX; i++) {
                        job_init(&jobs[i], i);
                        assert_int_equal(worker_submit(w, &jobs[i].work), 0);
                        assert_int_equal(jobs[i].done,
                                         0); /* never before it has returned, nor without the loop */
                }
                run_until(e, MAX);
                for (int i = 0; i < MAX; i++) {
                        assert_int_equal(finished[i], i);
                        assert_int_equal(jobs[i].done, 1);
                        assert_int_equal(jobs[i].result, -i);
                        assert_true(jobs[i].signals_blocked);
                        assert_false(pthread_equal(jobs[i].ran_on, pthread_self()));
                        assert_true(pthread_equal(jobs[i].ran_on, jobs[0].ran_on));
                }
        }
        assert_null(worker_free(w));
        sd_event_unref(e);
}

/* Full is full until a job is done, whether it waits or runs. */
static void test_full(void **state) {
        sd_event *e = event_new();
        Job jobs[3], more;
        Worker *w = NULL;
        int gate[2];

        assert_int_equal(pipe(gate), 0);
        assert_int_equal(worker_new(e, 3, &w), 0);
        for (int i = 0; i < 3; i++) {
                job_init(&jobs[i], i);
                jobs[i].gate = gate[0];
                assert_int_equal(worker_submit(w, &jobs[i].work), 0);
        }
        job_init(&more, 9);
        assert_int_equal(worker_submit(w, &more.work), -EBUSY);

        assert_int_equal(write(gate[1], "x", 1), 1);
        run_until(e, 1);
        assert_int_equal(worker_submit(w, &more.work), 0);
        assert_int_equal(worker_submit(w, &more.work), -EBUSY);
        assert_int_equal(write(gate[1], "xx", 2), 2);
        run_until(e, 4);
        assert_int_equal(finished[3], 9);
        assert_int_equal(more.done, 1);

        assert_null(worker_free(w));
        (void) close(gate[0]);
        (void) close(gate[1]);
        sd_event_unref(e);
}

/* done() may submit the job again, also one that is full but for it. */
static void test_resubmit(void **state) {
        sd_event *e = event_new();
        Worker *w = NULL;
        Job j;

        assert_int_equal(worker_new(e, 1, &w), 0);
        job_init(&j, 5);
        for (int i = 0; i < 50; i++) {
                j.resubmit_to = w;
                n_finished = 0;
                assert_int_equal(worker_submit(w, &j.work), 0);
                run_until(e, 2);
        }
        assert_int_equal(j.done, 100);
        assert_null(worker_free(w));
        sd_event_unref(e);
}

/* Freeing waits for what was accepted and hands it back, without the loop. */
static void test_free_waits(void **state) {
        sd_event *e = event_new();
        Worker *w = NULL, *idle = NULL;
        Job jobs[MAX];

        assert_null(worker_free(NULL));
        assert_int_equal(worker_new(e, 1, &idle), 0);
        assert_null(worker_free(idle));

        assert_int_equal(worker_new(e, MAX, &w), 0);
        for (int i = 0; i < MAX; i++) {
                job_init(&jobs[i], i);
                assert_int_equal(worker_submit(w, &jobs[i].work), 0);
        }
        assert_null(worker_free(w));
        assert_int_equal(n_finished, MAX);
        for (int i = 0; i < MAX; i++)
                assert_true(jobs[i].done == 1 && finished[i] == i);
        sd_event_unref(e);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_full),
                cmocka_unit_test(test_resubmit),
                cmocka_unit_test(test_free_waits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
