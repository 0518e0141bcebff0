/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Each kind of file that outlives the daemon has the same bytes whatever machine wrote it: what is written here is compared with files
 * that were written on a little-endian one, and what is read from those is written anew and compared again. REGENERATE=1 rewrites them. */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "store/holds.h"
#include "store/journal.h"
#include "store/marks.h"
#include "store/store.h"
#include "vtpm/vtpm_backup.h"
#include "vtpm/vtpm_record.h"

#define FIXTURE_MAX (64 * 1024)
#define ITEMS       8

#define GUEST_TEXT  "6d9ff0d1-0b17-4c0e-8a4e-1f2a35c4f001"
#define MATRIX_TEXT "0fdcd2d6-1a3c-4dc2-8d3c-d7fb0b0ec3ac"
#define TPM_TEXT    "63eb8a44-41ac-4c29-a201-e396ec274c0a"

static const char *fixtures;

/* All of it, in memory. */
typedef struct State {
        Record record;
        size_t n_items;
        JournalItem items[ITEMS];
        Hold hold;
        Mark mark;
        VtpmRecord tpm;
        VtpmRunRecord run;
        VtpmBackup backup;
} State;

static void state_clear(State *s) {
        record_clear(&s->record);
        for (size_t i = 0; i < s->n_items; i++)
                free(s->items[i].text);
        vtpm_record_clear(&s->tpm);
        vtpm_backup_clear(&s->backup);
}

static Uuid uuid_of_text(const char *text) {
        Uuid uuid;

        assert_int_equal(uuid_parse(text, &uuid), 0);
        return uuid;
}

static char *copy(const char *text) {
        char *c = strdup(text);

        assert_non_null(c);
        return c;
}

static void add_member(VtpmBackup *b, const char *name, const void *data, size_t size) {
        uint8_t *own = malloc(size + 1);

        assert_non_null(own);
        memcpy(own, data, size);
        assert_int_equal(vtpm_backup_add(b, name, own, size), 0);
}

/* Numbers whose bytes differ, and masks that are not their own mirror image. */
static void make(State *s) {
        static const uint32_t denied[] = { 0x00000139, 0x20000001 };
        const VtpmSpec spec = { .name = "vault",
                                .guest = "payments-1",
                                .owner = 1000,
                                .encrypted = true,
                                .denied = denied,
                                .n_denied = ELEMENTS(denied) };
        CLEANUP(freep) char *error = NULL;
        ApMask apmask, aqmask;

        s->record = (Record) { .uuid = uuid_of_text(MATRIX_TEXT),
                               .name = copy("payments-1"),
                               .guest = copy("payments-1"),
                               .autostart = true,
                               .uid = 0x01020304 };
        assert_int_equal(ap_mask_parse_list("3,0x12-0x14,254", &s->record.matrix.adapters), 0);
        assert_int_equal(ap_mask_parse_list("0,0x47", &s->record.matrix.domains), 0);
        assert_int_equal(ap_mask_parse_list("0x47,255", &s->record.matrix.control), 0);

        assert_int_equal(ap_mask_parse_list("0-3,9", &apmask), 0);
        assert_int_equal(ap_mask_parse_list("1,200-255", &aqmask), 0);
        s->n_items = 6;
        memcpy(s->items,
               (JournalItem[]) {
                       { .type = JOURNAL_LAST, .op = UINT64_C(0x0102030405060708) },
                       { .type = STORE_INTENT, .op = 0x11223344, .text = copy("start \\ two\nlines") },
                       { .type = STORE_PUT, .op = 0x11223344, .uuid = s->record.uuid },
                       { .type = STORE_DELETE, .uuid = uuid_of_text(GUEST_TEXT) },
                       { .type = STORE_END, .op = UINT32_MAX },
                       { .type = STORE_MASKS, .op = 1, .keep = true, .apmask = apmask, .aqmask = aqmask },
               },
               s->n_items * sizeof *s->items);
        assert_int_equal(record_to_xml(&s->record, &s->items[2].text), 0);

        s->hold = (Hold) { .guest = uuid_of_text(GUEST_TEXT),
                           .name = "payments-1",
                           .phase = HOLD_RUNNING,
                           .matrix = s->record.uuid,
                           .matrix_started = true,
                           .tpm = uuid_of_text(TPM_TEXT),
                           .model = TPM_MODEL_VIRTIO,
                           .tpm_started = true };
        s->mark = (Mark) { .uuid = s->record.uuid, .kind = MARK_LIVE };

        assert_int_equal(vtpm_record_from_spec(&spec, &s->tpm, &error), 0);
        s->tpm.uuid = s->hold.tpm;
        s->tpm.uid = 1900000001;
        s->run = (VtpmRunRecord) { .model = TPM_MODEL_VIRTIO, .group = 0x01020304 };
        add_member(&s->backup, "tpm.json", "{}", 2);
        add_member(&s->backup, "state/tpm2-00.permall", "\0\1\2\3\xff\xfe", 6);
}

/* ---- to and from a directory ---- */

static int dir_at(int dir_fd, const char *name) {
        int fd;

        (void) mkdirat(dir_fd, name, 0755);
        fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(fd >= 0);
        return fd;
}

static void save(int dir_fd, const State *s) {
        CLEANUP(fd_closep)
        int holds_fd = dir_at(dir_fd, "holds"), marks_fd = dir_at(dir_fd, "marks"),
            tpm_fd = dir_at(dir_fd, "tpm");
        CLEANUP(freep) char *xml = NULL, *batch = NULL, *journal = NULL, *json = NULL;
        CLEANUP(freep) uint8_t *backup = NULL;
        size_t size;

        assert_int_equal(record_to_xml(&s->record, &xml), 0);
        assert_int_equal(file_write_synced(dir_fd, "definition.xml", xml, strlen(xml)), 0);

        assert_int_equal(journal_format(s->items, s->n_items, &batch, &size), 0);
        assert_true(asprintf(&journal, JOURNAL_HEADER "%s", batch) > 0);
        assert_int_equal(file_write_synced(dir_fd, "journal", journal, strlen(journal)), 0);

        assert_int_equal(holds_set(holds_fd, &s->hold), 0);
        assert_int_equal(marks_set(marks_fd, s->mark.uuid, s->mark.kind), 0);

        assert_int_equal(vtpm_record_to_json(&s->tpm, &json), 0);
        assert_int_equal(file_write_synced(tpm_fd, "tpm.json", json, strlen(json)), 0);
        assert_int_equal(vtpm_run_record_save(tpm_fd, &s->run), 0);
        assert_int_equal(vtpm_backup_write(&s->backup, &backup, &size), 0);
        assert_int_equal(file_write_synced(tpm_fd, "backup", (const char *) backup, size), 0);
}

static int take_batch(void *userdata, JournalItem *items, size_t n) {
        State *s = userdata;

        assert_true(s->n_items + n <= ITEMS);
        for (size_t i = 0; i < n; i++) {
                s->items[s->n_items] = items[i];
                s->items[s->n_items++].text = TAKE(items[i].text);
        }
        return 0;
}

static char *content(int dir_fd, const char *name, size_t *ret_size) {
        char *data;

        assert_int_equal(file_read_at(dir_fd, name, FIXTURE_MAX, &data, ret_size), 0);
        return data;
}

static void load(int dir_fd, State *s) {
        CLEANUP(fd_closep)
        int holds_fd = dir_at(dir_fd, "holds"), marks_fd = dir_at(dir_fd, "marks"),
            tpm_fd = dir_at(dir_fd, "tpm");
        CLEANUP(freep) char *xml = NULL, *journal = NULL, *backup = NULL, *error = NULL;
        CLEANUP(freep) Hold *holds = NULL;
        CLEANUP(freep) Mark *marks = NULL;
        const char *reason = NULL;
        JournalDamage damage;
        size_t size, n, n_bad;

        xml = content(dir_fd, "definition.xml", &size);
        assert_int_equal(record_from_xml(xml, size, &s->record, &error), 0);

        journal = content(dir_fd, "journal", &size);
        assert_int_equal(journal_parse(journal, size, take_batch, s, &damage), 0);
        assert_int_equal(damage.end, size);
        assert_false(damage.header);

        assert_int_equal(holds_read(holds_fd, &holds, &n, &n_bad), 0);
        assert_int_equal(n, 1);
        assert_int_equal(n_bad, 0);
        s->hold = holds[0];
        assert_int_equal(marks_read(marks_fd, &marks, &n), 0);
        assert_int_equal(n, 1);
        s->mark = marks[0];

        assert_int_equal(vtpm_record_load(tpm_fd, "tpm.json", &s->tpm, &error), 0);
        assert_int_equal(vtpm_run_record_load(tpm_fd, &s->run), 0);
        backup = content(tpm_fd, "backup", &size);
        assert_int_equal(vtpm_backup_read((const uint8_t *) backup, size, &s->backup, &reason), 0);
}

/* ---- the comparison ---- */

static const char *const files[] = { "definition.xml",     "journal",      "holds/" GUEST_TEXT,
                                     "marks/" MATRIX_TEXT, "tpm/tpm.json", "tpm/run.json",
                                     "tpm/backup" };

static void compare(int dir_fd) {
        CLEANUP(fd_closep) int fixtures_fd = open(fixtures, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        assert_true(fixtures_fd >= 0);
        for (size_t i = 0; i < ELEMENTS(files); i++) {
                CLEANUP(freep) char *wanted = NULL, *is = NULL;
                size_t wanted_size, size;

                wanted = content(fixtures_fd, files[i], &wanted_size);
                is = content(dir_fd, files[i], &size);
                if (size != wanted_size || memcmp(is, wanted, size) != 0)
                        fail_msg("%s: expected\n%s\nbut it is\n%s", files[i], wanted, is);
        }
}

static int fresh_dir(void) {
        static char name[] = "/tmp/guestcrypt-state-XXXXXX";
        int fd;

        assert_true(mkdtemp(strcpy(name, "/tmp/guestcrypt-state-XXXXXX")));
        fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(fd >= 0);
        return fd;
}

static void remove_dir(int *dir_fd) {
        char link[64], path[256];
        ssize_t n;

        for (size_t i = 0; i < ELEMENTS(files); i++)
                (void) unlinkat(*dir_fd, files[i], 0);
        (void) unlinkat(*dir_fd, "holds", AT_REMOVEDIR);
        (void) unlinkat(*dir_fd, "marks", AT_REMOVEDIR);
        (void) unlinkat(*dir_fd, "tpm", AT_REMOVEDIR);
        (void) snprintf(link, sizeof link, "/proc/self/fd/%d", *dir_fd);
        n = readlink(link, path, sizeof path - 1);
        if (n > 0) {
                path[n] = '\0';
                (void) rmdir(path);
        }
        fd_closep(dir_fd);
}

static void test_written(void **state) {
        CLEANUP(state_clear) State s = {};
        CLEANUP(remove_dir) int dir_fd = fresh_dir();

        make(&s);
        save(dir_fd, &s);
        compare(dir_fd);
}

static void test_read(void **state) {
        CLEANUP(fd_closep) int fixtures_fd = open(fixtures, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CLEANUP(state_clear) State s = {}, made = {};
        CLEANUP(remove_dir) int dir_fd = fresh_dir();

        load(fixtures_fd, &s);
        make(&made);
        assert_true(ap_mask_equal(&s.record.matrix.adapters, &made.record.matrix.adapters));
        assert_true(ap_mask_equal(&s.items[5].aqmask, &made.items[5].aqmask));
        assert_true(s.items[0].op == made.items[0].op);
        assert_int_equal(s.record.uid, made.record.uid);
        assert_int_equal(s.tpm.denied[1], made.tpm.denied[1]);
        save(dir_fd, &s);
        compare(dir_fd);
}

int main(int argc, char *argv[]) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_written),
                cmocka_unit_test(test_read),
        };

        if (argc != 2)
                return EXIT_FAILURE;

        fixtures = argv[1];
        if (getenv("REGENERATE") && strcmp(getenv("REGENERATE"), "1") == 0) {
                CLEANUP(fd_closep) int fixtures_fd = open(fixtures, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                CLEANUP(state_clear) State s = {};

                make(&s);
                save(fixtures_fd, &s);
        }
        return cmocka_run_group_tests(tests, NULL, NULL);
}
