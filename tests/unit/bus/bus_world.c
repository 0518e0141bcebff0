/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus_world.h"

#include <sys/socket.h>

#define SETTLED_US 5000 /* longer than signals wait */

const Uuid uuid1 = { { 0xc2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xab } };
World w;

/* Names that begin with ":1.u" are a user's, others root's. */
int sender_uid(sd_bus_message *m, uid_t *ret) {
        const char *sender = sd_bus_message_get_sender(m);

        if (sender && strncmp(sender, ":1.x", 4) == 0)
                return -ENXIO; /* gone */

        *ret = sender && strncmp(sender, ":1.u", 4) == 0 ? USER : 0;
        return 0;
}

static int on_polkit(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *kind, *key, *subject, *action, *cancel;

        assert_true(sd_bus_message_enter_container(m, 'r', "sa{sv}") > 0);
        assert_true(sd_bus_message_read(m, "s", &kind) > 0);
        assert_true(sd_bus_message_enter_container(m, 'a', "{sv}") > 0);
        assert_true(sd_bus_message_read(m, "{sv}", &key, "s", &subject) > 0);
        assert_true(sd_bus_message_exit_container(m) > 0);
        assert_true(sd_bus_message_exit_container(m) > 0);
        assert_true(sd_bus_message_read(m, "s", &action) > 0);
        assert_true(sd_bus_message_skip(m, "a{ss}") > 0);
        assert_true(sd_bus_message_read(m, "us", &w.flags, &cancel) > 0);
        assert_string_equal(kind, "system-bus-name");
        w.n_asked++;
        (void) snprintf(w.action, sizeof w.action, "%s", action);
        (void) snprintf(w.subject, sizeof w.subject, "%s", subject);

        if (strcmp(w.polkit, "hang") == 0)
                return 1;
        if (strcmp(w.polkit, "gone") == 0)
                return sd_bus_error_set(error, SD_BUS_ERROR_SERVICE_UNKNOWN, "no polkit");

        return sd_bus_reply_method_return(m, "(bba{ss})", strcmp(w.polkit, "yes") == 0,
                                          strcmp(w.polkit, "challenge") == 0, 0);
}

static const sd_bus_vtable polkit_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("CheckAuthorization", "(sa{sv})sa{ss}us", "(bba{ss})", on_polkit,
                      SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

/* Names as for sender_uid(). */
static int on_who(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *name;

        assert_true(sd_bus_message_read(m, "s", &name) > 0);
        w.n_who++;
        if (w.who_hangs)
                return 1;
        if (strncmp(name, ":1.x", 4) == 0)
                return sd_bus_error_set(error, SD_BUS_ERROR_NAME_HAS_NO_OWNER, "gone");

        return sd_bus_reply_method_return(m, "u", (uint32_t) (strncmp(name, ":1.u", 4) == 0 ? USER : 0));
}

/* The bus daemon, which the client plays too: ":1.g" and what follows has gone. */
static int on_get_owner(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *name;

        assert_true(sd_bus_message_read(m, "s", &name) > 0);
        if (strncmp(name, ":1.g", 4) == 0)
                return sd_bus_error_set(error, SD_BUS_ERROR_NAME_HAS_NO_OWNER, "gone");

        return sd_bus_reply_method_return(m, "s", name);
}

static const sd_bus_vtable driver_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("GetNameOwner", "s", "s", on_get_owner, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD("GetConnectionUnixUser", "s", "u", on_who, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

static int on_signal(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *what = sd_bus_message_get_member(m), *path = sd_bus_message_get_path(m);

        if (sd_bus_message_is_signal(m, NULL, "InterfacesAdded") ||
            sd_bus_message_is_signal(m, NULL, "InterfacesRemoved"))
                assert_true(sd_bus_message_read(m, "o", &path) > 0);
        assert_true(w.n_signals < ELEMENTS(w.signals));
        (void) snprintf(w.signals[w.n_signals++], sizeof w.signals[0], "%s %s", what, path);
        return 0;
}

static int on_reload(void *userdata) {
        w.n_reloads++;
        return w.reload_fails ? -EIO : 0;
}

int set_up_with(const BusConfig *config) {
        sd_id128_t id;
        int fds[2];

        w = (World) { .polkit = POLKIT_YES };
        fake = (FakeEngine) { .uuid = uuid1 };

        assert_true(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
        assert_true(sd_event_new(&w.event) >= 0);
        assert_true(sd_id128_randomize(&id) >= 0);
        assert_true(sd_bus_new(&w.server) >= 0);
        assert_true(sd_bus_set_fd(w.server, fds[0], fds[0]) >= 0);
        assert_true(sd_bus_set_server(w.server, 1, id) >= 0);
        assert_true(sd_bus_start(w.server) >= 0);
        assert_true(sd_bus_attach_event(w.server, w.event, 0) >= 0);
        assert_true(sd_bus_new(&w.client) >= 0);
        assert_true(sd_bus_set_fd(w.client, fds[1], fds[1]) >= 0);
        assert_true(sd_bus_start(w.client) >= 0);
        assert_true(sd_bus_attach_event(w.client, w.event, 0) >= 0);
        assert_true(sd_bus_add_object_vtable(w.client, NULL, "/org/freedesktop/PolicyKit1/Authority",
                                             "org.freedesktop.PolicyKit1.Authority", polkit_vtable,
                                             NULL) >= 0);
        assert_true(sd_bus_add_object_vtable(w.client, NULL, "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                             driver_vtable, NULL) >= 0);
        assert_true(sd_bus_match_signal(w.client, NULL, NULL, NULL, NULL, NULL, on_signal, NULL) >= 0);

        fake.event = w.event;
        fake.snapshot = snapshot_new();
        assert_non_null(fake.snapshot);
        assert_true(bus_new(w.server, NULL, config, &w.bus) >= 0);
        return 0;
}

int set_up(void **state) {
        return set_up_with(&(BusConfig) { .sender_uid = sender_uid, .reload = on_reload });
}

int tear_down(void **state) {
        w.bus = bus_free(w.bus);
        sd_bus_close_unref(w.client);
        sd_bus_close_unref(w.server);
        sd_event_unref(w.event);
        fake.snapshot = snapshot_free(fake.snapshot);
        return 0;
}

/* ---- calls ---- */

int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        *(sd_bus_message **) userdata = sd_bus_message_ref(m);
        return 1;
}

void run_until(sd_bus_message **reply) {
        for (unsigned i = 0; !*reply; i++) {
                assert_true(i < 100000);
                assert_true(sd_event_run(w.event, 2000000) > 0); /* nothing happens for 2 s: it hangs */
        }
}

sd_bus_message *new_call(const char *sender, const char *path, const char *interface, const char *method) {
        sd_bus_message *m;

        assert_true(sd_bus_message_new_method_call(w.client, &m, NULL, path, interface, method) >= 0);
        if (sender)
                assert_true(sd_bus_message_set_sender(m, sender) >= 0);
        return m;
}

/* Consumes @m. */
static sd_bus_message *send_call(sd_bus_message *m) {
        sd_bus_message *reply = NULL;

        assert_true(sd_bus_call_async(w.client, NULL, m, on_reply, &reply, 0) >= 0);
        (void) sd_bus_message_unref(m);
        run_until(&reply);
        return reply;
}

/* Both consume @m; the first gives the reply. */
sd_bus_message *succeeds(sd_bus_message *m) {
        sd_bus_message *reply = send_call(m);

        if (sd_bus_message_is_method_error(reply, NULL))
                fail_msg("%s: %s", sd_bus_message_get_error(reply)->name,
                         sd_bus_message_get_error(reply)->message);
        return reply;
}

void fails(sd_bus_message *m, const char *name, const char *text) {
        sd_bus_message *reply = send_call(m);

        assert_true(sd_bus_message_is_method_error(reply, NULL));
        assert_string_equal(sd_bus_message_get_error(reply)->name, name);
        if (!strstr(sd_bus_message_get_error(reply)->message, text))
                fail_msg("'%s' is not in '%s'", text, sd_bus_message_get_error(reply)->message);
        (void) sd_bus_message_unref(reply);
}

void append_matrix(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "aqaqaqa{sv}", 2, 4, 5, 1, 0x47, 1, 6, 0) >= 0);
}
void append_options(sd_bus_message *m) {
        assert_true(sd_bus_message_append(m, "a{sv}", 0) >= 0);
}
void append_nothing(sd_bus_message *m) {
}

sd_bus_message *call_of(const Method *method, const char *sender) {
        sd_bus_message *m = new_call(sender, method->path, method->interface, method->member);

        method->append(m);
        return m;
}

void add_objects(void) {
        static EngineMatrix matrix;
        static const char *const problems[] = { "bad \xff line", "another", NULL };
        static const uint32_t denied[] = { 0x126, 0x139 };
        static EngineGuest guest;
        static VtpmView tpm;
        HostMdev mdev = { .uuid = uuid1, .ap = true, .matrix_known = true };

        matrix = (EngineMatrix) {
                .uuid = uuid1, .name = "payments-1", .guest = "vm1", .state = MATRIX_STARTED, .uid = USER
        };
        ap_mask_set(&matrix.matrix.adapters, 5);
        ap_mask_set(&matrix.matrix.domains, 0x47);
        fake.matrices = &matrix;
        fake.n_matrices = 1;

        guest = (EngineGuest) { .uuid = uuid1,
                                .name = "vm1",
                                .state = "running",
                                .persistent = true,
                                .active = true,
                                .matrix = "payments-1",
                                .live_matrix = "",
                                .tpm = "vm1",
                                .live_tpm = "old",
                                .tpm_model = TPM_MODEL_VIRTIO,
                                .live_tpm_model = TPM_MODEL_CRB,
                                .problems = problems };
        fake.guests = &guest;
        fake.n_guests = 1;
        tpm = (VtpmView) { .uuid = uuid1,
                           .spec = { .name = "vm1",
                                     .guest = "vm1",
                                     .encrypted = true,
                                     .pcr_banks = "sha256",
                                     .denied = denied,
                                     .n_denied = ELEMENTS(denied),
                                     .owner = USER },
                           .state = VTPM_RUNNING,
                           .model = TPM_MODEL_VIRTIO,
                           .uid = 1900000001,
                           .device_socket = "/run/guestcrypt/tpm/x/device.sock",
                           .swtpm_socket = "/run/guestcrypt/tpm/x/swtpm.sock",
                           .problems = problems };
        fake.tpms = &tpm;
        fake.n_tpms = 1;

        fake.snapshot->parents = calloc(1, sizeof *fake.snapshot->parents);
        fake.snapshot->types = calloc(1, sizeof *fake.snapshot->types);
        fake.snapshot->cards = calloc(1, sizeof *fake.snapshot->cards);
        strcpy(fake.snapshot->parents[0].name, "mtty-é.1");
        strcpy(fake.snapshot->types[0].id, "vfio_ap-passthrough");
        strcpy(fake.snapshot->types[0].name, "bad \xff\xc3 name");
        fake.snapshot->cards[0] = (HostCard) { .id = 5, .mode = CARD_MODE_EP11, .type = "CEX8P" };
        fake.snapshot->n_parents = fake.snapshot->n_types = fake.snapshot->n_cards = 1;
        ap_mask_set(&fake.snapshot->queue_present[5], 0x47);
        ap_mask_set(&fake.snapshot->queue_present[5], 0x48);
        ap_mask_set(&fake.snapshot->queue_vfio[5], 0x47);
        mdev.matrix = matrix.matrix;
        assert_true(snapshot_put_mdev(fake.snapshot, &mdev) >= 0);
}

void settle(void) {
        while (sd_event_run(w.event, SETTLED_US) > 0)
                ;
}

unsigned heard(const char *what) {
        unsigned n = 0;

        for (unsigned i = 0; i < w.n_signals; i++)
                n += strcmp(w.signals[i], what) == 0;
        return n;
}

void returns_path(sd_bus_message *m, const char *want) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = succeeds(m);
        const char *path;

        assert_true(sd_bus_message_read(reply, "o", &path) > 0);
        assert_string_equal(path, want);
}

/* ---- what holds for every method ---- */

void check_methods_reach_the_engine(const Method *methods, size_t n) {
        for (size_t i = 0; i < n; i++) {
                fake.asked = NULL;
                (void) sd_bus_message_unref(succeeds(call_of(&methods[i], NULL)));
                assert_string_equal(fake.asked, methods[i].asked);
                assert_int_equal(fake.uid, 0);
                assert_string_equal(fake.caller, "peer");
        }
        assert_int_equal(w.n_asked, 0); /* root is let through */
}

/* As docs/api.md has them. */
static const int errnos[_VERDICT_MAX] = {
        [VERDICT_OVERLAP] = EADDRINUSE,
        [VERDICT_HOST_OWNED] = EADDRNOTAVAIL,
        [VERDICT_NOT_INSTALLED] = ENODEV,
        [VERDICT_LIMIT_HIT] = E2BIG,
        [VERDICT_NO_SUCH_MATRIX] = ENOENT,
        [VERDICT_NO_SUCH_MDEV] = ENOENT,
        [VERDICT_NO_SUCH_PARENT] = ENXIO,
        [VERDICT_NO_INSTANCES] = EUSERS,
        [VERDICT_EXISTS] = EEXIST,
        [VERDICT_IN_USE] = EBUSY,
        [VERDICT_BAD_STATE] = EALREADY,
        [VERDICT_CONFIG_LOCKED] = ETIMEDOUT,
        [VERDICT_STUCK] = ETIME,
        [VERDICT_NOT_OURS] = EPERM,
        [VERDICT_BAD_RECORD] = EBADMSG,
        [VERDICT_BACKEND] = EHOSTDOWN,
        [VERDICT_KERNEL] = EIO,
        [VERDICT_NO_SUCH_GUEST] = ENOENT,
        [VERDICT_NO_SUCH_TPM] = ENOENT,
        [VERDICT_LIBVIRT] = EREMOTEIO,
        [VERDICT_TPM] = EREMOTEIO,
        [VERDICT_UNSUPPORTED] = EOPNOTSUPP,
        [VERDICT_INVALID] = EINVAL,
};

void check_errors_have_names(const Method *methods, size_t n) {
        for (Verdict v = VERDICT_OK + 1; v < _VERDICT_MAX; v++) {
                for (size_t i = 0; i < n; i++) {
                        fake.at_once = (int) v;
                        fails(call_of(&methods[i], NULL), bus_error_name(v), FAKE_TEXT);
                        fake.at_once = 0;
                        fake.later = (int) v;
                        fails(call_of(&methods[i], NULL), bus_error_name(v), FAKE_TEXT);
                        fake.later = 0;
                }
                assert_int_equal(sd_bus_error_get_errno(
                                         &(sd_bus_error) { .name = bus_error_name(v), .message = "" }),
                                 errnos[v]);
        }
}

void check_broken_is_an_errno(const Method *methods, size_t n) {
        for (size_t i = 0; i < n; i++) {
                fake.at_once = -ENOSPC;
                fails(call_of(&methods[i], NULL), "System.Error.ENOSPC",
                      " failed inside guestcryptd (ENOSPC: ");
                fake.at_once = 0;
                fake.later = -EIO;
                fails(call_of(&methods[i], NULL), SD_BUS_ERROR_IO_ERROR,
                      " failed inside guestcryptd (EIO: ");
                fake.later = 0;
        }
}

void check_polkit_decides(const Method *methods, size_t n) {
        for (size_t i = 0; i < n; i++) {
                fake.asked = NULL;
                w.polkit = "no";
                fails(call_of(&methods[i], ":1.u5"), SD_BUS_ERROR_ACCESS_DENIED, methods[i].action);
                assert_string_equal(w.action, methods[i].action);
                assert_string_equal(w.subject, ":1.u5");
                w.polkit = "challenge";
                fails(call_of(&methods[i], ":1.u5"), SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED,
                      methods[i].action);
                w.polkit = "gone";
                fails(call_of(&methods[i], ":1.u5"), SD_BUS_ERROR_ACCESS_DENIED, "polkit did not answer");
                assert_null(fake.asked); /* nothing was done before the answer */

                w.polkit = "yes";
                (void) sd_bus_message_unref(succeeds(call_of(&methods[i], ":1.u5")));
                assert_string_equal(fake.asked, methods[i].asked);
                assert_int_equal(fake.uid, USER);
                assert_string_equal(fake.caller, ":1.u5");
        }
}
