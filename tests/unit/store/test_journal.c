/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "state_dir.h"

/* What is applied, as a text: items apart by blanks, batches by "|". */
typedef struct Log {
        char text[4096];
        uint64_t refuse; /* an operation whose batch means nothing */
} Log;

static int log_batch(void *userdata, JournalItem *items, size_t n) {
        Log *log = userdata;
        size_t size = strlen(log->text);

        for (size_t i = 0; i < n; i++)
                if (log->refuse && items[i].op == log->refuse)
                        return -EBADMSG;
        for (size_t i = 0; i < n; i++)
                size += (size_t) sprintf(log->text + size, "%d:%d:%s ", items[i].type, (int) items[i].op,
                                         items[i].text ?: "");
        strcat(log->text, "|");
        return 0;
}

static char *batch_of(uint64_t first_op, size_t n) {
        JournalItem items[8] = {};
        char *text;
        size_t size;

        for (size_t i = 0; i < n; i++)
                items[i] = (JournalItem) { .type = STORE_END, .op = first_op + i };
        assert_int_equal(journal_format(items, n, &text, &size), 0);
        assert_int_equal(strlen(text), size);
        return text;
}

static void parse(const char *data, size_t size, Log *log, JournalDamage *damage) {
        log->text[0] = '\0';
        assert_int_equal(journal_parse(data, size, log_batch, log, damage), 0);
}

static void test_every_type(void **state) {
        JournalItem items[] = {
                { .type = JOURNAL_LAST, .op = UINT64_MAX },
                { .type = STORE_INTENT, .op = 1, .text = (char *) "a \\n b\nc\\" },
                { .type = STORE_INTENT, .op = 2, .text = (char *) "" },
                { .type = STORE_PUT, .op = 3, .uuid = uuid_of(3), .text = (char *) "<x>\n</x>\n" },
                { .type = STORE_DELETE, .op = 0, .uuid = uuid_of(4) },
                { .type = STORE_END, .op = 5 },
                { .type = STORE_MASKS, .op = 6, .keep = true, .apmask = AP_MASK_ALL },
                { .type = STORE_MASKS, .op = 7 },
        };
        CLEANUP(freep) char *text = NULL, *journal = NULL;
        JournalDamage damage;
        Log log = {};
        size_t size;

        assert_int_equal(journal_format(items, ELEMENTS(items), &text, &size), 0);
        assert_true(asprintf(&journal, JOURNAL_HEADER "%s", text) > 0);
        parse(journal, strlen(journal), &log, &damage);
        assert_string_equal(log.text, "5:-1: 0:1:a \\n b\nc\\ 0:2: 1:3:<x>\n</x>\n 2:0: 3:5: 4:6: 4:7: |");
        assert_int_equal(damage.end, strlen(journal));
        assert_int_equal(damage.n_lines, 0);
        assert_false(damage.header);
}

/* Whatever prefix of an append is there, it is all of the earlier batches and nothing of the last, without a
 * complaint; whether the file ends there, or zeros follow that were written ahead. */
static void test_every_cut(void **state) {
        CLEANUP(freep)
        char *first = batch_of(1, 1), *second = batch_of(2, 3), *journal = NULL, *ahead = NULL;
        size_t header = strlen(JOURNAL_HEADER), one = header + strlen(first), all = one + strlen(second);
        JournalDamage damage;
        Log log = {};

        assert_true(asprintf(&journal, JOURNAL_HEADER "%s%s", first, second) > 0);
        ahead = calloc(1, all + 64);
        assert_non_null(ahead);
        for (size_t size = header; size <= all; size++) {
                memcpy(ahead, journal, size);
                for (unsigned zeros = 0; zeros < 2; zeros++) {
                        parse(zeros ? ahead : journal, zeros ? all + 64 : size, &log, &damage);
                        assert_string_equal(log.text, size < one   ? ""
                                                      : size < all ? "3:1: |"
                                                                   : "3:1: |3:2: 3:3: 3:4: |");
                        assert_int_equal(damage.end, size < one ? header : size < all ? one : all);
                        assert_int_equal(damage.n_lines, 0);
                }
        }
}

/* A hole in the last batch, as a power cut leaves it, is a torn append too. */
static void test_hole(void **state) {
        CLEANUP(freep) char *first = batch_of(1, 1), *second = batch_of(2, 3), *journal = NULL;
        size_t one = strlen(JOURNAL_HEADER) + strlen(first);
        JournalDamage damage;
        Log log = {};
        int size = asprintf(&journal, JOURNAL_HEADER "%s%s", first, second);

        memset(journal + one, 0, 40);
        parse(journal, (size_t) size, &log, &damage);
        assert_string_equal(log.text, "3:1: |");
        assert_int_equal(damage.end, one);
        assert_int_equal(damage.n_lines, 0);
}

/* Any changed byte of a batch in the middle costs this batch as a whole, is reported, and costs nothing
 * else. */
static void test_every_byte(void **state) {
        CLEANUP(freep) char *a = batch_of(1, 2), *b = batch_of(3, 2), *c = batch_of(5, 2), *journal = NULL;
        size_t from = strlen(JOURNAL_HEADER) + strlen(a), to = from + strlen(b);
        JournalDamage damage;
        Log log = {};
        int size = asprintf(&journal, JOURNAL_HEADER "%s%s%s", a, b, c);

        for (size_t i = from; i < to; i++)
                for (unsigned bit = 0; bit < 8; bit++) {
                        journal[i] ^= (char) (1 << bit);
                        parse(journal, (size_t) size, &log, &damage);
                        journal[i] ^= (char) (1 << bit);
                        /* a spoilt last newline takes the next line with it */
                        assert_string_equal(log.text,
                                            i == to - 1 ? "3:1: 3:2: |" : "3:1: 3:2: |3:5: 3:6: |");
                        if (i < to - 1) {
                                assert_int_equal(damage.end, size);
                                assert_int_equal(damage.line, 4);
                                assert_true(damage.n_lines >= 1 && damage.n_lines <= 3);
                        }
                }
}

/* Lines of different batches never make one, though each of them is whole. */
static void test_mixed(void **state) {
        CLEANUP(freep) char *a = batch_of(1, 2), *b = batch_of(3, 2), *journal = NULL;
        char *a_end = strchr(a, '\n') + 1, *b_second = strchr(b, '\n') + 1;
        JournalDamage damage;
        Log log = {};
        int size = asprintf(&journal, JOURNAL_HEADER "%.*s%s%s", (int) (a_end - a), a, b_second, b);

        parse(journal, (size_t) size, &log, &damage);
        assert_string_equal(log.text, "3:3: 3:4: |");
        assert_int_equal(damage.line, 2);
        assert_int_equal(damage.n_lines, 2);
}

/* A batch begins on the line that has spoilt the one before. */
static void test_restart(void **state) {
        CLEANUP(freep) char *a = batch_of(1, 2), *b = batch_of(3, 2), *journal = NULL;
        JournalDamage damage;
        Log log = {};
        int size = asprintf(&journal, JOURNAL_HEADER "%.*s%s", (int) (strchr(a, '\n') + 1 - a), a, b);

        parse(journal, (size_t) size, &log, &damage);
        assert_string_equal(log.text, "3:3: 3:4: |");
        assert_int_equal(damage.line, 2);
        assert_int_equal(damage.n_lines, 1);
}

static void test_refused_batch(void **state) {
        CLEANUP(freep) char *a = batch_of(1, 2), *b = batch_of(3, 2), *c = batch_of(5, 2), *journal = NULL;
        JournalDamage damage;
        Log log = { .refuse = 4 };
        int size = asprintf(&journal, JOURNAL_HEADER "%s%s%s", a, b, c);

        parse(journal, (size_t) size, &log, &damage);
        assert_string_equal(log.text, "3:1: 3:2: |3:5: 3:6: |");
        assert_int_equal(damage.line, 4);
        assert_int_equal(damage.n_lines, 2);
}

/* What does not begin as a journal is said to be damaged; its lines count all the same. */
static void test_header(void **state) {
        static const char *const headers[] = { "\n", "guestcrypt-journal 2\n", "guestcrypt-journal 1 \n" };
        CLEANUP(freep) char *a = batch_of(1, 1);
        JournalDamage damage;
        Log log = {};

        for (size_t i = 0; i < ELEMENTS(headers); i++) {
                CLEANUP(freep) char *journal = NULL;
                int size = asprintf(&journal, "%s%s", headers[i], a);

                parse(journal, (size_t) size, &log, &damage);
                assert_true(damage.header);
                assert_string_equal(log.text, "3:1: |");
        }

        parse("", 0, &log, &damage);
        assert_true(damage.header);
        assert_int_equal(damage.end, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_type),    cmocka_unit_test(test_every_cut),
                cmocka_unit_test(test_hole),          cmocka_unit_test(test_every_byte),
                cmocka_unit_test(test_mixed),         cmocka_unit_test(test_restart),
                cmocka_unit_test(test_refused_batch), cmocka_unit_test(test_header),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
