/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* contract - what the parts of the contract suite share. */

#include <stdbool.h>

#include "bench.h"

extern bool use_child;
extern const char *dialect;

#define IDS(...) mask_of((const int[]) { __VA_ARGS__, -1 })

Uuid uuid_of(unsigned n);
/* Ids end with a negative one. */
ApMask mask_of(const int *ids);
int setup(void **state);
int teardown(void **state);
void assert_done(const Answer *a);
void run_done(Bench *b, const Plan *p);
void start(Bench *b, unsigned n, const ApMatrix *m, bool from_host);
/* Somebody has the AP lock, since @age_s seconds. */
void lock_put(Bench *b, const char *content, long age_s);
/* Another process that lives, at most as long as this one. */
pid_t somebody(void);
bool same_snapshot(const Snapshot *a, const Snapshot *b);

/* contract_faults.c: every write fails, or hangs, one by one */
void test_faults(void **state);
void test_broken(void **state);
void test_hangs(void **state);
/* Who has the AP lock; 0: nobody. */
pid_t lock_holder(Bench *b);
/* A plan that makes uuid_of(1) an mdev of the second parent. */
void make_mtty(Bench *b, const Snapshot *s, Plan *ret);

/* contract_starts.c: many starts in one batch */
void test_starts(void **state);
void test_starts_refused(void **state);
void test_starts_faults(void **state);
void test_starts_hang(void **state);
void test_starts_hang_all(void **state);

/* contract_prepare.c: what is looked at before it may be carried out */
void test_prepare(void **state);
void test_prepared_stopped(void **state);
void test_prepared_late(void **state);
void test_prepared_left(void **state);

/* contract_notice.c: what others do is noticed, what nobody does is not looked for */
void test_uevents(void **state);
void test_quiet(void **state);
void test_while_locked(void **state);
void test_recent(void **state);

/* contract_leaving.c */
void test_leaving(void **state);
