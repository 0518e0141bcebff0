/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Root, and whoever the daemon runs as, may do everything. For all others polkit is asked. Who calls is asked of the
 * bus, once for each connection. Both are asynchronous: when the answer has come, the handler runs again from its start,
 * finds it here, and goes on. */

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "bus/bus_internal.h"

#define POLKIT_NAME        "org.freedesktop.PolicyKit1"
#define POLKIT_PATH        "/org/freedesktop/PolicyKit1/Authority"
#define POLKIT_INTERFACE   "org.freedesktop.PolicyKit1.Authority"
#define POLKIT_INTERACTIVE 1u

#define WAITING_MAX 1024 /* calls of one sender, until the bus has said who that is */

#define PASSWORD_TIMEOUT_US (120 * UINT64_C(1000000)) /* somebody is typing */

typedef enum AskState {
        ASK_WHO,
        ASK_KNOWN,
        ASK_GONE,
        ASK_WAITING,
        ASK_YES,
        ASK_NO,
        ASK_CHALLENGE,
        ASK_FAILED
} AskState;

struct Ask {
        Bus *bus;
        sd_bus_message *message;
        sd_bus_slot *slot;
        uid_t uid;
        const char *action;
        sd_bus_message_handler_t handler;
        AskState state;
        Ask *next, **link;
};

static Ask *ask_free(Ask *a) {
        if (!a)
                return NULL;

        *a->link = a->next;
        if (a->next)
                a->next->link = a->link;
        else
                a->bus->asks_tail = a->link;

        (void) sd_bus_slot_unref(a->slot);
        (void) sd_bus_message_unref(a->message);
        free(a);
        return NULL;
}

static int gone(sd_bus_error *error) {
        return sd_bus_error_set(error, SD_BUS_ERROR_ACCESS_DENIED, "The caller is gone");
}

static Ask *ask_new(Bus *b, sd_bus_message *m, AskState state, sd_bus_message_handler_t handler) {
        Ask *a = malloc(sizeof *a);

        if (!a)
                return NULL;

        if (!b->asks)
                b->asks_tail = &b->asks;
        *a = (Ask) { .bus = b,
                     .message = sd_bus_message_ref(m),
                     .state = state,
                     .handler = handler,
                     .link = b->asks_tail };
        *b->asks_tail = a;
        b->asks_tail = &a->next;
        return a;
}

/* It has been answered. */
static void ask_go_on(Ask *a) {
        CLEANUP(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        int r;

        r = sd_bus_message_rewind(a->message, 1);
        if (r >= 0)
                r = a->handler(a->message, &a->bus->object, &error);
        if (r < 0)
                (void) sd_bus_reply_method_errno(a->message, r, &error);

        (void) ask_free(a);
}

/* ---- who calls ---- */

static bool find_uid(const Bus *b, const char *sender, uid_t *ret) {
        for (unsigned i = 0; i < BUS_UID_CACHE; i++)
                if (strcmp(b->uids[i].name, sender) == 0) {
                        *ret = b->uids[i].uid;
                        return true;
                }
        return false;
}

static void keep_uid(Bus *b, const char *sender, uid_t uid) {
        if (strlen(sender) >= sizeof b->uids[0].name)
                return;
        strcpy(b->uids[b->next_uid].name, sender);
        b->uids[b->next_uid].uid = uid;
        b->next_uid = (b->next_uid + 1) % BUS_UID_CACHE;
}

/* Waits for the bus if it has to be asked. */
static int sender_uid(Bus *b, sd_bus_message *m, uid_t *ret) {
        CLEANUP(sd_bus_creds_unrefp) sd_bus_creds *creds = NULL;
        const char *sender = sd_bus_message_get_sender(m);
        uid_t uid;
        int r;

        if (sender && find_uid(b, sender, ret))
                return 0;

        if (b->config.sender_uid)
                r = b->config.sender_uid(m, &uid);
        else {
                r = sd_bus_query_sender_creds(m, SD_BUS_CREDS_EUID, &creds);
                if (r >= 0)
                        r = sd_bus_creds_get_euid(creds, &uid);
        }
        if (r < 0)
                return r;

        if (sender)
                keep_uid(b, sender, uid);

        *ret = uid;
        return 0;
}

static int on_who(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        Ask *asked = userdata, *next;
        Bus *b = asked->bus;
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *first = sd_bus_message_ref(asked->message);
        const char *sender = sd_bus_message_get_sender(first);
        AskState state = ASK_GONE;
        uint32_t uid = 0;

        if (!sd_bus_message_is_method_error(reply, NULL) && sd_bus_message_read(reply, "u", &uid) > 0) {
                keep_uid(b, sender, uid);
                state = ASK_KNOWN;
        }

        for (Ask *a = b->asks; a; a = next) {
                next = a->next;
                if (a->state != ASK_WHO || strcmp(sd_bus_message_get_sender(a->message), sender) != 0)
                        continue;
                a->state = state;
                a->uid = uid;
                ask_go_on(a);
        }
        return 0;
}

static int ask_who(Bus *b, sd_bus_message *m, sd_bus_message_handler_t handler, sd_bus_error *error) {
        const char *sender = sd_bus_message_get_sender(m);
        unsigned n = 0;
        Ask *a;
        int r;

        for (a = b->asks; a; a = a->next)
                n += a->state == ASK_WHO && strcmp(sd_bus_message_get_sender(a->message), sender) == 0;
        if (n >= WAITING_MAX)
                return bus_error_set_verdict(
                        error, VERDICT_LIMIT_HIT,
                        &(Refusal) { .text = (char *) "Too many calls before it is known who calls" });

        a = ask_new(b, m, ASK_WHO, handler);
        if (!a)
                return -ENOMEM;
        if (n > 0)
                return 0; /* goes on with the first */

        r = sd_bus_call_method_async(b->bus, &a->slot, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                     "org.freedesktop.DBus", "GetConnectionUnixUser", on_who, a, "s",
                                     sender);
        if (r < 0) {
                (void) ask_free(a);
                return gone(error);
        }
        return 0;
}

/* ---- what polkit says ---- */

static AskState read_answer(sd_bus_message *reply) {
        int authorized, challenge;

        if (sd_bus_message_is_method_error(reply, NULL)) {
                log_debug("polkit gave no answer: %s", sd_bus_message_get_error(reply)->message);
                return ASK_FAILED;
        }

        if (sd_bus_message_enter_container(reply, 'r', "bba{ss}") < 0 ||
            sd_bus_message_read(reply, "bb", &authorized, &challenge) < 0)
                return ASK_FAILED;

        return authorized ? ASK_YES : challenge ? ASK_CHALLENGE : ASK_NO;
}

static int on_answer(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        Ask *a = userdata;

        a->state = read_answer(reply);
        ask_go_on(a);
        return 0;
}

static int send_question(Ask *a) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *q = NULL;
        bool interactive = sd_bus_message_get_allow_interactive_authorization(a->message) > 0;
        uint64_t timeout = a->bus->config.authz_timeout_us;
        int r;

        r = sd_bus_message_new_method_call(a->bus->bus, &q, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                                           "CheckAuthorization");
        if (r < 0)
                return r;

        r = sd_bus_message_append(q, "(sa{sv})sa{ss}us", "system-bus-name", 1, "name", "s",
                                  sd_bus_message_get_sender(a->message), a->action, 0,
                                  interactive ? POLKIT_INTERACTIVE : 0, "");
        if (r < 0)
                return r;

        if (interactive)
                timeout = MAX(timeout, PASSWORD_TIMEOUT_US);

        return sd_bus_call_async(a->bus->bus, &a->slot, q, on_answer, a, timeout);
}

static int denied(const char *action, sd_bus_error *error) {
        return sd_bus_error_setf(error, SD_BUS_ERROR_ACCESS_DENIED,
                                 "polkit action '%s' is not allowed to the caller", action);
}

static int ask(Bus *b, sd_bus_message *m, const char *action, sd_bus_message_handler_t handler, uid_t uid,
               sd_bus_error *error) {
        unsigned n = 0;
        Ask *a;
        int r;

        for (a = b->asks; a; a = a->next)
                n += a->state >= ASK_WAITING && a->uid == uid;
        if (n >= b->config.max_asks_per_uid)
                return bus_error_set_verdict(
                        error, VERDICT_LIMIT_HIT,
                        &(Refusal) { .text = (char *) "Too many calls of this user wait for polkit" });

        a = ask_new(b, m, ASK_WAITING, handler);
        if (!a)
                return -ENOMEM;
        a->uid = uid;
        a->action = action;

        r = send_question(a);
        if (r < 0) {
                log_debug("polkit cannot be asked: %s", strerror(-r));
                (void) ask_free(a);
                return denied(action, error);
        }

        return 0;
}

static int answer(const Ask *a, const char *action, sd_bus_error *error) {
        switch (a->state) {
        case ASK_GONE:
                return gone(error);
        case ASK_YES:
                return 1;
        case ASK_CHALLENGE:
                return sd_bus_error_setf(error, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED,
                                         "polkit action '%s' needs authentication", action);
        case ASK_FAILED:
                return sd_bus_error_setf(error, SD_BUS_ERROR_ACCESS_DENIED,
                                         "polkit did not answer, so that only root may do '%s'", action);
        default:
                return denied(action, error);
        }
}

/* Whether @uid may do everything. */
static bool is_root(uid_t uid) {
        return uid == 0 || uid == geteuid();
}

int authz_check_root(Bus *b, sd_bus_message *m, uid_t *ret_uid, sd_bus_error *error) {
        uid_t uid;
        int r;

        r = sender_uid(b, m, &uid);
        if (r < 0)
                return gone(error);
        if (!is_root(uid))
                return sd_bus_error_setf(error, SD_BUS_ERROR_ACCESS_DENIED, "Only root may call '%s'",
                                         sd_bus_message_get_member(m));

        *ret_uid = uid;
        return 0;
}

int authz_check(Bus *b, sd_bus_message *m, const char *action, sd_bus_message_handler_t handler,
                uid_t *ret_uid, sd_bus_error *error) {
        const char *sender = sd_bus_message_get_sender(m);
        uid_t uid;
        Ask *a;

        for (a = b->asks; a && a->message != m;)
                a = a->next;
        if (a && a->state != ASK_KNOWN) {
                *ret_uid = a->uid;
                return answer(a, action, error);
        }

        if (a)
                uid = a->uid;
        else if (sender && !b->config.sender_uid) {
                if (!find_uid(b, sender, &uid))
                        return ask_who(b, m, handler, error);
        } else if (sender_uid(b, m, &uid) < 0)
                return gone(error);

        if (!is_root(uid)) {
                if (!sd_bus_message_get_sender(m))
                        return denied(action, error); /* no name that polkit could look at */
                return ask(b, m, action, handler, uid, error);
        }

        *ret_uid = uid;
        return 1;
}

void authz_free(Bus *b) {
        while (b->asks)
                (void) ask_free(b->asks);
}
