/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "hooks/hook.h"

#define GUEST "c2010203-0405-0607-0809-0a0b0c0d0eab"
#define MDEV  "11111111-2222-3333-4444-555555555555"
#define OTHER "99999999-2222-3333-4444-555555555555"

#define DOMAIN(inside) \
        "<domain type='kvm' id='7'>\n  <name>g</name>\n  <uuid>" GUEST "</uuid>\n" \
        "  <memory unit='KiB'>1024</memory>\n  <os><type arch='s390x' machine='s390-ccw-virtio'>hvm</type>" \
        "</os>\n" inside "</domain>\n"
#define METADATA(inside) \
        "<metadata><guestcrypt:devices xmlns:guestcrypt='urn:guestcrypt:guest:1'>" inside \
        "</guestcrypt:devices></metadata>\n"
#define HOSTDEV(uuid) \
        "<devices><hostdev mode='subsystem' type='mdev' managed='no' model='vfio-ap'><source>" \
        "<address uuid='" uuid "'/></source><alias name='hostdev0'/></hostdev></devices>\n"
#define CRB \
        "<devices><tpm model='tpm-crb'><backend type='external'><source type='unix' mode='connect' " \
        "path='" VIRT_TPM_DIR "/" OTHER "/swtpm.sock'/></backend></tpm></devices>\n"

typedef struct World {
        char dir[32];
        unsigned n_read, n_sent; /* how often the other program was needed; how often it had to ask */
        char sent[512];          /* what the last event was */
        int answer;
        const char *text;
        char *said;
        size_t said_size;
        int status;
} World;

static World *world; /* hook_send_t has no userdata: a hook is one process for one event */

static int send_event(const Hook *h, const VirtWiring *w, char **reterr_text) {
        char id[UUID_STRING_SIZE];
        int n;

        world->n_sent++;
        n = snprintf(world->sent, sizeof world->sent, "%s/%s/%s %s %s", h->operation->name, h->suboperation,
                     h->extra, h->guest, uuid_format(w->uuid, id));
        for (size_t i = 0; i < w->n_mdevs; i++)
                n += snprintf(world->sent + n, sizeof world->sent - (size_t) n, " mdev=%s",
                              uuid_format(w->mdevs[i], id));
        (void) snprintf(world->sent + n, sizeof world->sent - (size_t) n,
                        " matrix=%s tpm=%s wish=%s model=%s", w->matrix ? w->matrix : "",
                        w->tpm ? w->tpm : "", tpm_model_name(w->tpm_wish), tpm_model_name(w->tpm_model));
        if (world->text)
                *reterr_text = strdup(world->text);
        return world->answer;
}

static int on_xml(const Hook *h, const char *xml, size_t size) {
        world->n_read++;
        return hook_event(h, xml, size, send_event);
}

static int input(const char *data, size_t size) {
        int fd = memfd_create("xml", MFD_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(file_write_all(fd, data, size), 0);
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        return fd;
}

static void run_fd(World *w, const char *const *args, int in) {
        char *argv[8] = { (char *) "guestcrypt-hook" };
        FILE *err;
        int argc = 1;

        while (args[argc - 1]) {
                argv[argc] = (char *) args[argc - 1];
                argc++;
        }

        free(w->said);
        w->said = NULL;
        w->n_read = w->n_sent = 0;
        w->sent[0] = 0;
        err = open_memstream(&w->said, &w->said_size);
        assert_non_null(err);
        w->status = hook_run(argc, argv, in, err, w->dir, on_xml);
        (void) fclose(err);
}

#define ARGS(...) \
        (const char *const[]) { \
                __VA_ARGS__, NULL \
        }

static void run(World *w, const char *operation, const char *xml) {
        CLEANUP(fd_closep)
        int in = input(xml, strlen(xml));

        run_fd(w, ARGS("g", operation, "begin", "-"), in);
}

static int setup(void **state) {
        World *w = calloc(1, sizeof *w);

        (void) snprintf(w->dir, sizeof w->dir, "/tmp/test-hook.XXXXXX");
        assert_non_null(mkdtemp(w->dir));
        *state = world = w;
        return 0;
}

static int teardown(void **state) {
        World *w = *state;
        char path[128];

        (void) snprintf(path, sizeof path, "%s/" GUEST, w->dir);
        (void) unlink(path);
        assert_int_equal(rmdir(w->dir), 0);
        free(w->said);
        free(w);
        return 0;
}

static const char *const operations[] = { "prepare", "started",   "restore", "migrate",
                                          "attach",  "reconnect", "release" };

static bool is_forgiving(const char *operation) {
        return strcmp(operation, "reconnect") == 0 || strcmp(operation, "release") == 0;
}

/* Exactly one line, of printable text. */
static void assert_one_line(const World *w) {
        assert_true(w->said_size > 0);
        assert_ptr_equal(strchr(w->said, '\n'), w->said + w->said_size - 1);
        for (const char *s = w->said; *s != '\n'; s++)
                assert_false((unsigned char) *s < 0x20 || *s == 0x7f);
}

static void nothing_declared(void **state) {
        static const struct {
                const char *name, *xml;
                bool may; /* the other program has to look closer */
        } cases[] = {
                { "nothing at all", DOMAIN("") },
                { "another mdev",
                  DOMAIN("<devices><hostdev mode='subsystem' type='mdev' model='vfio-ccw'><source>"
                         "<address uuid='" MDEV "'/></source></hostdev></devices>") },
                { "a word in a description", DOMAIN("<description>has no vfio-ap device</description>"),
                  true },
                { "a path in a comment", DOMAIN("<!-- " VIRT_TPM_DIR " -->"), true },
                { "metadata of others", DOMAIN("<metadata><x:y xmlns:x='urn:x'/></metadata>") },
                { "empty metadata of ours", DOMAIN(METADATA("")), true },
        };
        World *w = *state;

        w->answer = HOOK_REFUSED;
        for (size_t i = 0; i < ELEMENTS(cases); i++)
                for (size_t o = 0; o < ELEMENTS(operations); o++) {
                        print_message("%s, %s\n", cases[i].name, operations[o]);
                        run(w, operations[o], cases[i].xml);
                        assert_int_equal(w->n_read, cases[i].may);
                        assert_int_equal(w->n_sent, 0);
                        assert_int_equal(w->status, HOOK_OK);
                        assert_int_equal(w->said_size, 0);
                }
}

static void what_is_sent(void **state) {
        static const struct {
                const char *xml, *sent;
        } cases[] = {
                { DOMAIN(HOSTDEV(MDEV)), " mdev=" MDEV " matrix= tpm= wish= model=" },
                { DOMAIN(METADATA("<guestcrypt:matrix name='m-1'/>")), " matrix=m-1 tpm= wish= model=" },
                { DOMAIN(METADATA("<guestcrypt:matrix name='m1'/><guestcrypt:tpm name='t1' model='virtio'/>")
                                 HOSTDEV(MDEV)),
                  " mdev=" MDEV " matrix=m1 tpm=t1 wish=virtio model=" },
                { DOMAIN(METADATA("<guestcrypt:tpm name='t1'/>") CRB), " matrix= tpm=t1 wish= model=crb" },
                { DOMAIN(CRB), " matrix= tpm= wish= model=crb" },
        };
        World *w = *state;
        char expected[512];

        for (size_t i = 0; i < ELEMENTS(cases); i++)
                for (size_t o = 0; o < ELEMENTS(operations); o++) {
                        print_message("%zu, %s\n", i, operations[o]);
                        run(w, operations[o], cases[i].xml);
                        (void) snprintf(expected, sizeof expected, "%s/begin/- g " GUEST "%s", operations[o],
                                        cases[i].sent);
                        assert_int_equal(w->n_sent, 1);
                        assert_string_equal(w->sent, expected);
                        assert_int_equal(w->status, HOOK_OK);
                        assert_int_equal(w->said_size, 0);
                }
}

/* Whatever the daemon says, it is one line, and ends only what can still be refused. */
static void refused(void **state) {
        World *w = *state;

        for (size_t o = 0; o < ELEMENTS(operations); o++) {
                w->answer = HOOK_REFUSED;
                w->text = "05.0047 belongs to guest 'b'\nand\x1b[31m more \xff";
                run(w, operations[o], DOMAIN(HOSTDEV(MDEV)));
                assert_int_equal(w->n_sent, 1);
                assert_int_equal(w->status, is_forgiving(operations[o]) ? HOOK_OK : HOOK_REFUSED);
                assert_one_line(w);
                assert_string_equal(w->said,
                                    "guestcrypt-hook: 05.0047 belongs to guest 'b'?and?[31m more ?\n");

                w->answer = -ENOMEM;
                w->text = NULL;
                run(w, operations[o], DOMAIN(HOSTDEV(MDEV)));
                assert_int_equal(w->status, is_forgiving(operations[o]) ? HOOK_OK : HOOK_REFUSED);
                assert_one_line(w);
        }
}

static void touch(const char *path) {
        int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        (void) close(fd);
}

/* What a guest holds is given up also when its XML does not tell of it any more. */
static void held(void **state) {
        World *w = *state;
        char path[128], other[128];

        (void) snprintf(path, sizeof path, "%s/" GUEST, w->dir);
        (void) snprintf(other, sizeof other, "%s/" OTHER, w->dir);
        touch(path);
        for (size_t o = 0; o < ELEMENTS(operations); o++) {
                run(w, operations[o], DOMAIN(""));
                assert_int_equal(w->n_sent, strcmp(operations[o], "release") == 0);
                assert_int_equal(w->status, HOOK_OK);
        }
        run(w, "release", DOMAIN("<!-- -->"));
        assert_int_equal(w->n_sent, 1);
        assert_int_equal(unlink(path), 0);

        /* what others hold costs a guest that holds nothing no more than looking */
        touch(other);
        run(w, "release", DOMAIN(""));
        assert_int_equal(w->n_read, 0);
        run(w, "release", DOMAIN("<description>&lt;uuid>" OTHER "</description><uuid>"));
        assert_int_equal(w->n_read, 0);
        /* and where its XML shows somebody else's, it is read whose it is */
        run(w, "release", DOMAIN("<metadata><x:y xmlns:x='urn:x'><uuid>" OTHER "</uuid></x:y></metadata>"));
        assert_int_equal(w->n_read, 1);
        assert_int_equal(w->n_sent, 0);
        assert_int_equal(unlink(other), 0);
}

static void problems(void **state) {
        static const char *const xmls[] = {
                DOMAIN(METADATA("<guestcrypt:matrix name='a'/><guestcrypt:matrix name='b'/>")),
                DOMAIN(METADATA("<guestcrypt:tpm name='a' model='floppy'/>")),
                DOMAIN(METADATA("<guestcrypt:matrix/>")),
        };
        World *w = *state;

        for (size_t i = 0; i < ELEMENTS(xmls); i++)
                for (size_t o = 0; o < ELEMENTS(operations); o++) {
                        print_message("%zu, %s\n", i, operations[o]);
                        run(w, operations[o], xmls[i]);
                        if (is_forgiving(operations[o])) {
                                assert_int_equal(w->n_sent, 1);
                                assert_int_equal(w->status, HOOK_OK);
                        } else {
                                assert_int_equal(w->n_sent, 0);
                                assert_int_equal(w->status, HOOK_REFUSED);
                                assert_one_line(w);
                        }
                }
}

static void rubbish(void **state) {
        static const char binary[] = "\x7f"
                                     "ELF\0\0<domain\0vfio-ap\xff\xfe";
        static const struct {
                const char *name, *data;
                size_t size;
        } cases[] = {
                { "nothing", "", 0 },
                { "text", "hello\n", 6 },
                { "another document", "<network><name>vfio-ap</name></network>", 39 },
                { "other root", "<domains><domain>vfio-ap</domain></domains>", 43 },
                { "cut off", "<domain><name>vfio-ap</na", 25 },
                { "binary", binary, sizeof binary },
                { "entities", "<!DOCTYPE d [<!ENTITY a 'vfio-ap'>]><domain><name>&a;</name></domain>", 69 },
        };
        World *w = *state;

        for (size_t i = 0; i < ELEMENTS(cases); i++)
                for (size_t o = 0; o < ELEMENTS(operations); o++) {
                        CLEANUP(fd_closep)
                        int in = input(cases[i].data, cases[i].size);

                        print_message("%s, %s\n", cases[i].name, operations[o]);
                        run_fd(w, ARGS("g", operations[o], "begin", "-"), in);
                        assert_int_equal(w->n_sent, 0);
                        assert_int_equal(w->status, is_forgiving(operations[o]) ? HOOK_OK : HOOK_REFUSED);
                        assert_one_line(w);
                }

        run_fd(w, ARGS("g", "prepare", "begin", "-"), -1);
        assert_int_equal(w->status, HOOK_REFUSED);
        assert_one_line(w);
        run_fd(w, ARGS("g", "reconnect", "begin", "-"), -1);
        assert_int_equal(w->status, HOOK_OK);
}

static void arguments(void **state) {
        static const char *const others[] = { "start", "stopped", "levitate", "" };
        static const char xml[] = DOMAIN(HOSTDEV(MDEV));
        CLEANUP(fd_closep)
        int in = input(xml, strlen(xml));
        World *w = *state;

        run_fd(w, ARGS(NULL), in);
        assert_int_equal(w->status, HOOK_USAGE);
        assert_one_line(w);
        run_fd(w, ARGS("g"), in);
        assert_int_equal(w->status, HOOK_USAGE);
        run_fd(w, ARGS("g", "prepare", "begin", "-", "more"), in);
        assert_int_equal(w->status, HOOK_USAGE);
        assert_int_equal(w->n_sent, 0);

        /* what tells us nothing, and operations of a later libvirt; all of the input is read */
        for (size_t i = 0; i < ELEMENTS(others); i++) {
                assert_int_equal(lseek(in, 0, SEEK_SET), 0);
                run_fd(w, ARGS("g", others[i], "begin", "-"), in);
                assert_int_equal(w->status, HOOK_OK);
                assert_int_equal(w->said_size, 0);
                assert_int_equal(w->n_sent, 0);
                assert_int_equal(lseek(in, 0, SEEK_CUR), strlen(xml));
        }

        /* any reason in the last one */
        (void) lseek(in, 0, SEEK_SET);
        run_fd(w, ARGS("g", "release", "end", "from snapshot"), in);
        assert_string_equal(w->sent,
                            "release/end/from snapshot g " GUEST " mdev=" MDEV " matrix= tpm= wish= model=");
        (void) lseek(in, 0, SEEK_SET);
        run_fd(w, ARGS("g", "prepare"), in);
        assert_int_equal(w->n_sent, 1);

        (void) lseek(in, 0, SEEK_SET);
        run_fd(w, ARGS("g\xff", "prepare", "begin", "-"), in);
        assert_int_equal(w->n_sent, 0);
        assert_int_equal(w->status, HOOK_REFUSED);
        assert_one_line(w);
}

/* Any size that a pipe may deliver in pieces, up to the limit and no further. */
static void reading(void **state) {
        static const size_t sizes[] = { 0, 1, 65535, 65536, 65537, 200000 };

        for (size_t i = 0; i < ELEMENTS(sizes); i++) {
                CLEANUP(freep) char *data = malloc(sizes[i] + 1), *copy = NULL;
                CLEANUP(fd_closep)
                int in = -1;
                size_t size = 7;

                for (size_t n = 0; n < sizes[i]; n++)
                        data[n] = (char) (n * 31 + n / 256);
                in = input(data, sizes[i]);
                assert_int_equal(hook_read(in, sizes[i], &copy, &size), 0);
                assert_int_equal(size, sizes[i]);
                assert_memory_equal(copy, data, size);
                assert_int_equal(copy[size], 0);
                if (size == 0)
                        continue;

                freep(&copy);
                copy = NULL;
                size = 7;
                assert_int_equal(lseek(in, 0, SEEK_SET), 0);
                assert_int_equal(hook_read(in, sizes[i] - 1, &copy, &size), -EFBIG);
                assert_null(copy);
                assert_int_equal(size, 7);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(nothing_declared, setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_sent, setup, teardown),
                cmocka_unit_test_setup_teardown(refused, setup, teardown),
                cmocka_unit_test_setup_teardown(held, setup, teardown),
                cmocka_unit_test_setup_teardown(problems, setup, teardown),
                cmocka_unit_test_setup_teardown(rubbish, setup, teardown),
                cmocka_unit_test_setup_teardown(arguments, setup, teardown),
                cmocka_unit_test(reading),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
