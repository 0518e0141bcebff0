/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The verbs about guests and TPMs against a service with our own bus surface above a fake engine, which is a process of
 * its own: what is printed, the exit status, what the service was asked. The transcripts are in fixtures/cli; with
 * REGENERATE=1 they are written anew. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "bus/bus_internal.h"
#include "cli/cli.h"
#include "fake_engine.h"

#define SOCKET "bus.sock"
#define NEW_UUID \
        { \
                { 0xaa, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 } \
        }

/* ---- the service ---- */

static pid_t service;
static int asked_fd = -1; /* what it was asked, a line each */
static int told_fd = -1;  /* that it was asked, a byte each */
static sd_event *event;
static sd_bus *server;
static Bus *bus;

static const char *const vm2_problems[] = { "its TPM 'vm2' does not start: state/ is somebody else's",
                                            NULL };
static const uint32_t denied[] = { 0x126, 0x139 };
static EngineGuest guests[] = {
        { .uuid = { { 0x11, 1 } },
          .name = "vm1",
          .state = "running",
          .persistent = true,
          .active = true,
          .matrix = "payments-1",
          .live_matrix = "payments-1",
          .tpm = "vm1",
          .tpm_model = TPM_MODEL_VIRTIO,
          .live_tpm = "",
          .problems = NULL },
        { .uuid = { { 0x22, 2 } },
          .name = "vm2",
          .state = "shutoff",
          .persistent = true,
          .tpm = "vm2",
          .tpm_model = TPM_MODEL_CRB,
          .problems = vm2_problems },
        { .uuid = { { 0x33, 3 } }, .name = "installing", .state = "paused", .active = true },
};
static VtpmView tpms[4] = {
        { .uuid = { { 0x44, 4 } },
          .spec = { .name = "vm1",
                    .guest = "vm1",
                    .encrypted = true,
                    .pcr_banks = "sha256",
                    .denied = denied,
                    .n_denied = ELEMENTS(denied) },
          .state = VTPM_RUNNING,
          .model = TPM_MODEL_VIRTIO,
          .uid = 1900000001,
          .device_socket = "/run/guestcrypt/tpm/U/device.sock",
          .swtpm_socket = "/run/guestcrypt/tpm/U/swtpm.sock" },
        { .uuid = { { 0x55, 5 } },
          .spec = { .name = "vm2", .guest = "vm2", .ephemeral = true, .pcr_banks = "sha1,sha256" },
          .problems = vm2_problems },
};
static EngineMatrix matrices[] = {
        { .uuid = { { 0x66, 6 } }, .name = "payments-1", .guest = "vm1", .state = MATRIX_STARTED },
        { .uuid = { { 0x77, 7 } }, .name = "audit-1", .guest = "elsewhere" },
};

/* Where the service goes on from: what a test wants of it. */
static void (*prepare)(void);

/* Whatever makes a TPM makes this one. */
static void make_tpm(void) {
        static const Uuid uuid = NEW_UUID;
        size_t i = 0;

        while (i < fake.n_tpms && !uuid_equal(tpms[i].uuid, uuid))
                i++;
        tpms[i] = (VtpmView) { .uuid = uuid };
        tpms[i].spec.name = strdup(fake.spec.name ?: "as-saved");
        tpms[i].spec.guest = strdup(fake.spec.guest ?: "");
        fake.n_tpms = MAX(fake.n_tpms, i + 1);
}

static void on_asked(const char *asked) {
        const char *is_live = fake.flag ? "live" : "not live";

        if (told_fd >= 0)
                (void) dprintf(told_fd, ".");
        if (strstr(asked, "_matrix"))
                (void) dprintf(asked_fd, "> %s: %s\n", asked, is_live);
        else if (strcmp(asked, "undefine_tpm") == 0)
                (void) dprintf(asked_fd, "> %s%s\n", asked, fake.flag ? ": wipe" : "");
        else if (strcmp(asked, "attach_tpm") == 0 || strcmp(asked, "start_tpm") == 0)
                (void) dprintf(asked_fd, "> %s: model '%s'\n", asked, tpm_model_name(fake.model));
        else
                (void) dprintf(asked_fd, "> %s\n", asked);

        if (strcmp(asked, "define_tpm") == 0 || strcmp(asked, "restore_tpm") == 0 ||
            strcmp(asked, "import_tpm") == 0)
                make_tpm();
}

static int on_hello(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return sd_bus_reply_method_return(m, "s", ":1.1");
}

static int on_match(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        return sd_bus_reply_method_return(m, NULL);
}

static const sd_bus_vtable driver_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("Hello", NULL, "s", on_hello, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD("AddMatch", "s", NULL, on_match, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

static void check(int r) {
        if (r < 0) {
                (void) fprintf(stderr, "the service fails: %s\n", strerror(-r));
                _exit(1);
        }
}

static int on_hung_up(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        bus = bus_free(bus);
        server = sd_bus_close_unref(server);
        return 0;
}

/* What "watch" is told once it has asked for all there is; then its connection ends. */
static int on_watched(sd_event_source *s, void *userdata) {
        static const struct {
                EngineObject object;
                EngineChange change;
                const Uuid *uuid;
        } events[] = {
                { ENGINE_GUEST, ENGINE_CHANGED, &guests[0].uuid },
                { ENGINE_TPM, ENGINE_CHANGED, &tpms[1].uuid },
                { ENGINE_GUEST, ENGINE_REMOVED, &guests[2].uuid },
                { ENGINE_TPM, ENGINE_ADDED, &tpms[2].uuid },
        };

        guests[0].state = "paused";
        tpms[1].state = VTPM_RUNNING;
        tpms[1].spec.denied = denied;
        tpms[1].spec.n_denied = 1;
        fake.n_guests = 2;
        tpms[2] = (VtpmView) { .uuid = NEW_UUID, .spec = { .name = "new" } };
        fake.n_tpms = 3;
        for (size_t i = 0; i < ELEMENTS(events); i++)
                bus_on_engine_event(&bus,
                                    &(EngineKey) { .object = events[i].object, .uuid = *events[i].uuid },
                                    events[i].change);
        bus_flush_signals(bus);
        check(sd_bus_flush(server));
        return on_hung_up(NULL, NULL, NULL);
}

static int on_call(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        static bool listed;

        if (sd_bus_message_is_method_call(m, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"))
                listed = true;
        if (listed && sd_bus_message_is_method_call(m, "org.freedesktop.DBus.Properties", "GetAll"))
                check(sd_event_add_defer(event, NULL, on_watched, NULL));
        return 0;
}

static bool is_watched;

static int on_connection(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        sd_id128_t id;
        int peer;

        peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        check(peer < 0 ? -errno : 0);
        (void) on_hung_up(NULL, NULL, NULL);
        check(sd_id128_randomize(&id));
        check(sd_bus_new(&server));
        check(sd_bus_set_fd(server, peer, peer));
        check(sd_bus_set_server(server, 1, id));
        check(sd_bus_set_sender(server, CLI_BUS_NAME));
        check(sd_bus_start(server));
        check(sd_bus_attach_event(server, event, 0));
        check(sd_bus_add_object_vtable(server, NULL, "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                       driver_vtable, NULL));
        check(bus_new(server, NULL, NULL, &bus));
        check(sd_bus_match_signal(server, NULL, NULL, "/org/freedesktop/DBus/Local",
                                  "org.freedesktop.DBus.Local", "Disconnected", on_hung_up, NULL));
        if (is_watched)
                check(sd_bus_add_filter(server, NULL, on_call, NULL));
        return 0;
}

_Noreturn static void serve(int listener) {
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        check(sd_event_new(&event));
        check(sd_event_add_io(event, NULL, listener, EPOLLIN, on_connection, NULL));

        fake = (FakeEngine) { .event = event, .uuid = NEW_UUID, .on_asked = on_asked };
        fake.snapshot = snapshot_new();
        fake.guests = guests;
        fake.n_guests = ELEMENTS(guests);
        fake.tpms = tpms;
        fake.n_tpms = 2;
        fake.matrices = matrices;
        fake.n_matrices = ELEMENTS(matrices);
        if (prepare)
                prepare();
        check(sd_event_loop(event));
        _exit(0);
}

static void start_service(void (*with)(void)) {
        struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET };
        int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(listener >= 0);
        (void) unlink(SOCKET);
        assert_int_equal(bind(listener, (struct sockaddr *) &address, sizeof address), 0);
        assert_int_equal(listen(listener, 5), 0);
        prepare = with;
        service = fork();
        assert_true(service >= 0);
        if (service == 0)
                serve(listener);
        assert_int_equal(close(listener), 0);
}

static void stop_service(void) {
        assert_int_equal(kill(service, SIGKILL), 0);
        assert_int_equal(waitpid(service, NULL, 0), service);
}

/* ---- transcripts ---- */

typedef struct Transcript {
        char *text;
        size_t size;
        FILE *f;
} Transcript;

static void print_asked(FILE *f) {
        char line[4096];
        ssize_t n;

        n = pread(asked_fd, line, sizeof line - 1, 0);
        assert_true(n >= 0);
        line[n] = '\0';
        (void) fputs(line, f);
        assert_int_equal(ftruncate(asked_fd, 0), 0);
        assert_true(lseek(asked_fd, 0, SEEK_SET) == 0);
}

/* The version is not the same for long. */
static void print_output(FILE *f, const char *out) {
        const char *version = strstr(out, GUESTCRYPT_VERSION);

        if (!version)
                (void) fputs(out, f);
        else
                (void) fprintf(f, "%.*sVERSION%s", (int) (version - out), out,
                               version + strlen(GUESTCRYPT_VERSION));
}

/* Runs "guestcryptctl @line", words apart by one space. Returns its exit status. */
static int run(Transcript *t, const char *line) {
        CLEANUP(freep) char *copy = strdup(line), *out = NULL, *err = NULL;
        char *argv[24] = { (char *) "guestcryptctl" }, *save = NULL;
        FILE *f_out, *f_err;
        size_t n_out, n_err;
        int argc = 1, status;

        if (!t->f)
                t->f = open_memstream(&t->text, &t->size);
        for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
                argv[argc++] = word;
        f_out = open_memstream(&out, &n_out);
        f_err = open_memstream(&err, &n_err);
        status = cli_main(argc, argv, f_out, f_err);
        assert_int_equal(fclose(f_out) + fclose(f_err), 0);

        (void) fprintf(t->f, "$ guestcryptctl %s\n", line);
        print_output(t->f, out);
        if (*err)
                (void) fprintf(t->f, "! %s", err);
        if (status != CLI_DONE)
                (void) fprintf(t->f, "exit status %d\n", status);
        print_asked(t->f);
        (void) fputc('\n', t->f);
        return status;
}

static void run_all(Transcript *t, const char *const *lines) {
        for (; *lines; lines++)
                (void) run(t, *lines);
}

static void compare(Transcript *t, const char *name) {
        char path[300], want[65536] = "";
        FILE *f;

        assert_int_equal(fclose(t->f), 0);
        (void) snprintf(path, sizeof path, "%s/%s", FIXTURES, name);
        if (getenv("REGENERATE")) {
                f = fopen(path, "we");
                assert_non_null(f);
                (void) fputs(t->text, f);
                assert_int_equal(fclose(f), 0);
        }
        f = fopen(path, "re");
        if (!f)
                fail_msg("%s is missing", path);
        want[fread(want, 1, sizeof want - 1, f)] = '\0';
        (void) fclose(f);
        assert_string_equal(t->text, want);
        free(t->text);
}

/* ---- what is done ---- */

static void with_notes(void) {
        static const char *const notes[] = { "takes effect at the next start of 'vm1'", NULL };

        fake.notes = notes;
}

static void test_guests(void **state) {
        static const char *const lines[] = { "guest-list",
                                             "--json guest-list",
                                             "guest-show vm1",
                                             "guest-show vm2",
                                             "guest-show installing",
                                             "--json guest-show vm2",
                                             "guest-show nobody",
                                             "--json guest-show nobody",
                                             "guest-attach-matrix vm1 payments-1",
                                             "guest-attach-matrix vm1 payments-1 --no-live",
                                             "guest-attach-matrix vm1 nothing",
                                             "guest-detach-matrix vm1",
                                             "--json guest-detach-matrix vm1 --no-live",
                                             "guest-attach-tpm vm1 --tpm vm2 --model tis",
                                             "guest-attach-tpm vm1",
                                             "guest-attach-tpm vm1 --tpm nothing",
                                             "guest-detach-tpm vm1",
                                             "show payments-1",
                                             "show audit-1",
                                             "status",
                                             NULL };
        Transcript t = {};

        start_service(with_notes);
        run_all(&t, lines);
        stop_service();
        compare(&t, "guests.txt");
}

static void test_tpms(void **state) {
        static const char *const lines[] = {
                "tpm-list",
                "--json tpm-list",
                "tpm-show vm1",
                "--json tpm-show vm1",
                "tpm-show vm2",
                "tpm-show nothing",
                "tpm-define new --guest vm1 --ephemeral --key-file key --pcr-banks sha256 --deny 0x126,313 "
                "--no-certificates",
                "--json tpm-define new --uuid aa010203-0405-0607-0809-0a0b0c0d0e0f",
                "tpm-start vm1",
                "tpm-start vm2 --model crb",
                "tpm-stop vm1",
                "tpm-undefine vm2",
                "--json tpm-undefine vm2 --wipe",
                "tpm-import state imported --guest vm2",
                NULL,
        };
        Transcript t = {};

        start_service(NULL);
        run_all(&t, lines);
        stop_service();
        compare(&t, "tpms.txt");
}

static void test_a_tpm_is_defined_for_the_guest(void **state) {
        Transcript t = {};

        start_service(NULL);
        assert_int_equal(run(&t, "guest-attach-tpm installing"), CLI_DONE);
        assert_int_equal(run(&t, "guest-attach-tpm installing"), CLI_DONE); /* it is there now */
        stop_service();
        compare(&t, "tpm-defined.txt");
}

/* ---- what is refused ---- */

static void refuse_in_use(void) {
        fake.later = VERDICT_IN_USE;
}
static void refuse_unsupported(void) {
        fake.later = VERDICT_UNSUPPORTED;
}
static void refuse_bad_state(void) {
        fake.later = VERDICT_BAD_STATE;
}
static void refuse_attach(void) {
        fake.refuse = "attach_tpm";
        fake.later = VERDICT_UNSUPPORTED;
}
static void refuse_counters(void) {
        fake.refuse = "tpm_counters";
        fake.at_once = VERDICT_STUCK;
}
static void lose_libvirt(void) {
        fake.refuse = "attach_tpm";
        fake.later = VERDICT_BACKEND;
}
static void refuse_name(void) {
        fake.refuse = "define_tpm";
        fake.at_once = VERDICT_INVALID;
}
static void break_attach(void) {
        fake.refuse = "attach_tpm";
        fake.later = -EIO;
}
static void have_nothing(void) {
        fake.n_guests = fake.n_tpms = 0;
        fake.no_vtpm = true;
        fake.libvirt = "none";
}
static void have_no_libvirt(void) {
        fake.libvirt = "disconnected";
        fake.libvirt_problem =
                "Failed to connect socket to '/run/libvirt/libvirt-sock': No such file or directory";
}

static void test_refusals(void **state) {
        static const char *const in_use[] = { "guest-attach-matrix vm1 payments-1", "guest-attach-tpm vm1",
                                              "--json tpm-stop vm1", NULL };
        static const char *const unsupported[] = { "guest-attach-tpm vm1 --model virtio",
                                                   "--json guest-attach-tpm vm1 --model virtio", NULL };
        static const char *const bad_state[] = { "tpm-undefine vm2", "--json tpm-undefine vm2",
                                                 "tpm-undefine vm2 --wipe", "tpm-undefine vm1", NULL };
        static const char *const attach[] = { "guest-attach-tpm installing", NULL };
        static const char *const counters[] = { "tpm-show vm1", "--json tpm-show vm1", NULL };
        static const char *const nothing[] = { "guest-list",     "tpm-list",           "guest-show vm1",
                                               "tpm-show vm1",   "tpm-define x",       "status",
                                               "tpm-backup x f", "tpm-import state x", NULL };
        static const char *const no_libvirt[] = { "guest-show vm1", "guest-show vm9", "status", NULL };
        static const struct {
                void (*prepare)(void);
                const char *const *lines;
        } cases[] = {
                { refuse_in_use, in_use },       { refuse_unsupported, unsupported },
                { refuse_bad_state, bad_state }, { refuse_attach, attach },
                { break_attach, attach }, /* it is not clear whether the guest has it: it is kept */
                { lose_libvirt, attach },        { refuse_name, attach },
                { refuse_counters, counters },   { have_nothing, nothing },
                { have_no_libvirt, no_libvirt },
        };
        Transcript t = {};

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                start_service(cases[i].prepare);
                run_all(&t, cases[i].lines);
                stop_service();
        }
        compare(&t, "guest-refusals.txt");
}

/* ---- files ---- */

static void assert_content(const char *name, const char *want) {
        char is[64] = "";
        FILE *f = fopen(name, "re");

        assert_non_null(f);
        is[fread(is, 1, sizeof is - 1, f)] = '\0';
        assert_int_equal(fclose(f), 0);
        assert_string_equal(is, want);
}

static void write_file(const char *name, const char *text) {
        FILE *f = fopen(name, "we");

        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static unsigned count_files(void) {
        unsigned n = 0;
        DIR *d = opendir(".");

        assert_non_null(d);
        for (struct dirent *e; (e = readdir(d));)
                n += e->d_name[0] != '.' && strcmp(e->d_name, SOCKET) != 0;
        assert_int_equal(closedir(d), 0);
        return n;
}

static void test_backup_and_restore(void **state) {
        Transcript t = {};
        struct stat st;

        start_service(NULL);
        (void) umask(0);
        assert_int_equal(run(&t, "tpm-backup vm2 saved"), CLI_DONE);
        assert_content("saved", "a backup\n");
        assert_int_equal(stat("saved", &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);

        write_file("saved", "of before");
        assert_int_equal(run(&t, "tpm-backup vm2 saved"), CLI_FAILED);
        assert_content("saved", "of before");
        assert_int_equal(run(&t, "--json tpm-backup vm2 saved --force"), CLI_DONE);
        assert_content("saved", "a backup\n");

        assert_int_equal(run(&t, "tpm-restore saved"), CLI_DONE);
        assert_int_equal(run(&t, "tpm-restore saved --name vm9 --guest vm9"), CLI_DONE);
        assert_int_equal(run(&t, "tpm-restore ."), CLI_FAILED);
        assert_int_equal(count_files(), 1);

        /* nothing is left of what fails, and what was there stays */
        stop_service();
        start_service(refuse_bad_state);
        assert_int_equal(run(&t, "tpm-backup vm2 other"), CLI_FAILED);
        assert_int_equal(run(&t, "tpm-backup vm2 saved --force"), CLI_FAILED);
        assert_int_equal(run(&t, "tpm-backup nothing other"), CLI_FAILED);
        assert_content("saved", "a backup\n");
        assert_int_equal(count_files(), 1);
        stop_service();
        assert_int_equal(run(&t, "tpm-backup vm2 other"), CLI_FAILED);
        assert_int_equal(count_files(), 1);
        assert_int_equal(unlink("saved"), 0);
        compare(&t, "tpm-backup.txt");
}

static void hang(void) {
        fake.hang = true;
}

/* Nor of what is interrupted. */
static void test_interrupted_backup(void **state) {
        int told[2], status;
        pid_t pid;
        char dot;

        assert_int_equal(pipe2(told, O_CLOEXEC), 0);
        told_fd = told[1];
        start_service(hang);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                Transcript t = {};

                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                _exit(run(&t, "tpm-backup vm2 saved"));
        }
        assert_int_equal(read(told[0], &dot, 1), 1); /* the service works on it, and will for ever */
        assert_int_equal(count_files(), 1);
        assert_int_equal(kill(pid, SIGTERM), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
        assert_int_equal(count_files(), 0);

        stop_service();
        told_fd = -1;
        assert_int_equal(close(told[0]) + close(told[1]), 0);
        assert_int_equal(ftruncate(asked_fd, 0), 0);
}

/* ---- watching ---- */

static void be_watched(void) {
        is_watched = true;
}

static void test_watch(void **state) {
        Transcript t = {};

        start_service(be_watched);
        assert_int_equal(run(&t, "--json watch"), CLI_FAILED);
        stop_service();
        compare(&t, "guest-watch.txt");
}

static int set_up(void **state) {
        static char directory[] = "/tmp/guestcrypt-cli.XXXXXX";

        if (!mkdtemp(directory) || chdir(directory) < 0)
                return -1;
        asked_fd = memfd_create("asked", MFD_CLOEXEC);
        *state = directory;
        return asked_fd < 0 || setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=" SOCKET, 1) < 0 ? -1 : 0;
}

static int tear_down(void **state) {
        (void) close(asked_fd);
        (void) unlink(SOCKET);
        return rmdir(*state);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_guests),
                cmocka_unit_test(test_tpms),
                cmocka_unit_test(test_a_tpm_is_defined_for_the_guest),
                cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_backup_and_restore),
                cmocka_unit_test(test_interrupted_backup),
                cmocka_unit_test(test_watch),
        };

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
