/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Random batches against a naive model, with everything in between that may happen to a state directory. A
 * failure prints its seed. */

#include "state_dir.h"

#define N_MATRICES 12
#define N_OPS      8
#define N_SEEDS    80
#define N_STEPS    60
#define BATCH_MAX  6

typedef struct Model {
        unsigned version[N_MATRICES]; /* 0: none */
        uint64_t open[N_OPS];         /* open intents in order, 0-terminated unless full */
        uint64_t next_op, last_op;
        bool keep;
        uint8_t mask;
} Model;

static uint64_t random_state;

static unsigned rnd(unsigned n) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return (unsigned) (random_state >> 33) % n;
}

static size_t n_open(const Model *m) {
        size_t n = 0;

        while (n < N_OPS && m->open[n])
                n++;
        return n;
}

static void model_end(Model *m, uint64_t op) {
        uint64_t left[N_OPS] = {};
        size_t n = 0;

        for (size_t i = 0; i < N_OPS; i++)
                if (m->open[i] != op && m->open[i])
                        left[n++] = m->open[i];
        memcpy(m->open, left, sizeof left);
}

/* An operation that ends with an entry: none, an open one, or one that never was. */
static uint64_t some_op(const Model *m) {
        size_t n = n_open(m);

        switch (rnd(3)) {
        case 0:
                return n > 0 ? m->open[rnd((unsigned) n)] : 0;
        case 1:
                return rnd(5) == 0 ? m->last_op + 1 : 0;
        default:
                return 0;
        }
}

static StoreEntry random_entry(Model *m) {
        StoreEntry e = {};
        unsigned n = rnd(N_MATRICES);
        char text[64];

        switch (rnd(8)) {
        case 0:
        case 1:
                if (n_open(m) == N_OPS)
                        break;
                e.op = ++m->next_op;
                snprintf(text, sizeof text, "plan \\ of\n%u", (unsigned) e.op);
                e = intent_of(e.op, text);
                m->open[n_open(m)] = e.op;
                m->last_op = MAX(m->last_op, e.op);
                return e;
        case 2:
                e = delete_of(n, some_op(m));
                m->version[n] = 0;
                break;
        case 3:
                e = (StoreEntry) { .type = STORE_MASKS, .op = some_op(m), .keep = rnd(2) };
                m->keep = e.keep;
                m->mask = (uint8_t) rnd(256);
                ap_mask_set(&e.apmask, m->mask);
                break;
        case 4:
                e.op = some_op(m);
                break;
        default:
                m->version[n] = 1 + rnd(1000);
                e = put_of(n, m->version[n], some_op(m));
                break;
        }
        if (e.type == STORE_INTENT) /* nothing was chosen */
                e.type = STORE_END;

        m->last_op = MAX(m->last_op, e.op);
        m->next_op = MAX(m->next_op, m->last_op);
        model_end(m, e.op);
        return e;
}

static void compare(const Model *m, const StoreContent *c) {
        size_t n = 0;

        assert_int_equal(c->n_bad, 0);
        assert_int_equal(c->last_op, m->last_op);
        assert_int_equal(c->keep_masks, m->keep);
        if (m->keep)
                assert_true(ap_mask_count(&c->apmask) == 1 && ap_mask_test(&c->apmask, m->mask));

        for (unsigned i = 0; i < N_MATRICES; i++) {
                CLEANUP(record_clear) Record wanted = record_of(i, m->version[i]);

                if (m->version[i] == 0)
                        continue;
                assert_true(n < c->n_records);
                assert_true(uuid_equal(c->records[n].uuid, wanted.uuid));
                assert_string_equal(c->records[n].name, wanted.name);
                assert_true(ap_matrix_equal(&c->records[n].matrix, &wanted.matrix));
                assert_int_equal(c->records[n].autostart, wanted.autostart);
                n++;
        }
        assert_int_equal(c->n_records, n);

        assert_int_equal(c->n_intents, n_open(m));
        for (size_t i = 0; i < c->n_intents; i++) {
                char text[64];

                assert_int_equal(c->intents[i].op, m->open[i]);
                snprintf(text, sizeof text, "plan \\ of\n%u", (unsigned) m->open[i]);
                assert_string_equal(c->intents[i].text, text);
        }
}

static void append(const StateDir *d, const char *text) {
        CLEANUP(fd_closep) int fd = openat(d->fd, "journal", O_WRONLY | O_APPEND | O_CLOEXEC);

        assert_int_equal(file_write_all(fd, text, strlen(text)), 0);
}

static void damage_files(const StateDir *d, const Store *s) {
        /* whatever is pending may be on the disk in any state after a power cut */
        for (size_t i = 0; i < s->n_pending; i++) {
                char name[STORE_FILE_SIZE], path[STORE_FILE_SIZE + 16];

                snprintf(path, sizeof path, "matrices/%s", store_file_name(s->pending[i].uuid, name));
                if (rnd(3) == 0)
                        (void) unlinkat(d->fd, path, 0);
                else if (rnd(2) == 0)
                        write_file(d->fd, path, rnd(2) ? "" : "<device>");
        }
}

static void run_seed(const StateDir *d, unsigned seed) {
        CLEANUP(store_content_clear) StoreContent c = {};
        CLEANUP(store_freep_test) Store *s = NULL;
        bool writable = false;
        Model m = {};

        print_message("seed %u\n", seed);
        random_state = UINT64_C(0x9e3779b97f4a7c15) * (seed + 1);
        assert_int_equal(store_open(d->fd, &s, &c, &writable), 0);

        for (unsigned step = 0; step < N_STEPS; step++) {
                StoreEntry batch[BATCH_MAX + 1];
                size_t n = 1 + rnd(BATCH_MAX);
                Model before = m;

                for (size_t i = 0; i < n; i++)
                        batch[i] = random_entry(&m);
                if (rnd(6) == 0) { /* one that cannot be stored spoils all */
                        batch[n++] = (StoreEntry) { .type = STORE_PUT };
                        assert_int_equal(store_commit(s, batch, n), -EINVAL);
                        m = before;
                } else
                        assert_int_equal(store_commit(s, batch, n), 0);
                for (size_t i = 0; i < n; i++)
                        store_entry_clear(&batch[i]);
                if (rnd(2) == 0)
                        assert_true(store_write_files(s, 1 + rnd(BATCH_MAX)) >= 0);

                switch (rnd(8)) {
                case 0:
                        assert_int_equal(store_checkpoint(s), 0);
                        assert_false(store_is_dirty(s));
                        break;
                case 1:
                        assert_int_equal(store_reopen(s), 0);
                        break;
                case 2:
                        damage_files(d, s);
                        if (rnd(2))
                                append(d, "00000000 1 1/1 torn");
                        /* fall through */
                case 3:
                        s = store_free(s);
                        store_content_clear(&c);
                        assert_int_equal(store_open(d->fd, &s, &c, &writable), 0);
                        assert_true(writable);
                        compare(&m, &c);
                        break;
                }
        }
}

static void test_model(void **state) {
        for (unsigned seed = 0; seed < N_SEEDS; seed++) {
                void *d = NULL;

                assert_int_equal(state_dir_setup(&d), 0);
                run_seed(d, seed);
                assert_int_equal(state_dir_teardown(&d), 0);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_model) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
