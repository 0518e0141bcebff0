/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "bus/bus_internal.h"

Call *bus_call_new(Bus *b, sd_bus_message *m, uid_t uid, CallReply reply) {
        Call *c = malloc(sizeof *c);

        if (!c)
                return NULL;

        *c = (Call) { .bus = b,
                      .message = sd_bus_message_ref(m),
                      .caller = { .uid = uid, .id = bus_sender(m) },
                      .object = bus_path_uuid_of(sd_bus_message_get_path(m)),
                      .reply = reply,
                      .next = b->calls,
                      .link = &b->calls };
        if (c->next)
                c->next->link = &c->next;
        b->calls = c;
        return c;
}

Call *bus_call_free(Call *c) {
        if (!c)
                return NULL;

        *c->link = c->next;
        if (c->next)
                c->next->link = c->link;
        if (c->counted)
                engine_discharge(c->bus->engine, bus_sender(c->message));
        (void) sd_bus_message_unref(c->message);
        free(c);
        return NULL;
}

int bus_call_abandon(Call *c, int r) {
        (void) bus_call_free(c);
        return r;
}

int bus_call_begin(Bus *b, sd_bus_message *m, const char *action, sd_bus_message_handler_t handler,
                   CallReply reply, Call **ret, sd_bus_error *error) {
        uid_t uid;
        int r;

        r = authz_check(b, m, action, handler, &uid, error);
        if (r <= 0)
                return r;

        *ret = bus_call_new(b, m, uid, reply);
        return *ret ? 1 : -ENOMEM;
}

int bus_call_count(Call *c, sd_bus_error *error) {
        int r;

        r = bus_admit(c->bus, c->message, error);
        c->counted = r >= 0;
        return r;
}

int bus_call_submitted(Call *c, int r, sd_bus_error *error) {
        if (r == 0)
                return 1; /* the reply comes when it is done */

        if (r > 0)
                r = bus_error_set_verdict(error, (Verdict) r, &c->refusal);
        else
                r = bus_error_broken(c->message, r, error);

        refusal_clear(&c->refusal);
        return bus_call_abandon(c, r);
}

static int reply_path(Call *c, const char *kind, Uuid uuid) {
        char path[BUS_PATH_SIZE];

        return sd_bus_reply_method_return(c->message, "o", bus_path_uuid(kind, uuid, path));
}

static int reply_healed(Call *c, const EngineHealed *healed, size_t n) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_message_new_method_return(c->message, &reply);
        if (r < 0)
                return r;

        r = sd_bus_message_open_container(reply, 'a', "(ss)");
        for (const EngineHealed *h = healed; r >= 0 && h < healed + n; h++) {
                r = sd_bus_message_open_container(reply, 'r', "ss");
                if (r >= 0)
                        r = bus_append_text(reply, h->name);
                if (r >= 0)
                        r = bus_append_text(reply, h->what);
                if (r >= 0)
                        r = sd_bus_message_close_container(reply);
        }
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r >= 0)
                r = sd_bus_send(NULL, reply, NULL);

        return r;
}

static int reply_failure(Call *c, int r, const Refusal *refusal) {
        CLEANUP(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

        if (r < 0)
                (void) bus_error_broken(c->message, r, &error);
        else
                (void) bus_error_set_verdict(&error, (Verdict) r, refusal);
        return sd_bus_reply_method_error(c->message, &error);
}

static int reply_notes(Call *c, const char *const *notes) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_message_new_method_return(c->message, &reply);
        if (r >= 0)
                r = bus_append_texts(reply, notes);
        if (r >= 0)
                r = sd_bus_send(NULL, reply, NULL);

        return r;
}

static int reply_counters(Call *c, const VtpmCounter *counters, size_t n) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_message_new_method_return(c->message, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "{st}");
        for (size_t i = 0; r >= 0 && i < n; i++) {
                r = sd_bus_message_open_container(reply, 'e', "st");
                if (r >= 0)
                        r = bus_append_text(reply, counters[i].name);
                if (r >= 0)
                        r = sd_bus_message_append_basic(reply, 't', &counters[i].value);
                if (r >= 0)
                        r = sd_bus_message_close_container(reply);
        }
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r >= 0)
                r = sd_bus_send(NULL, reply, NULL);

        return r;
}

/* A reply that cannot be sent is lost with the connection or the memory: nothing is left to tell the
 * caller with. */
static void finish(Call *c, int r) {
        if (r < 0)
                (void) bus_error_broken(c->message, r, NULL);
        (void) bus_call_free(c);
}

void bus_call_done(void *userdata, int r, const Refusal *refusal, Uuid uuid) {
        Call *c = userdata;

        bus_signal_flush_uuid(c->bus, uuid);

        if (r != 0)
                return finish(c, reply_failure(c, r, refusal));
        if (c->reply == CALL_REPLY_MATRIX)
                return finish(c, reply_path(c, "matrix", uuid));
        if (c->reply == CALL_REPLY_MDEV)
                return finish(c, reply_path(c, "mdev", uuid));
        if (c->reply == CALL_REPLY_TPM)
                return finish(c, reply_path(c, "tpm", uuid));

        finish(c, sd_bus_reply_method_return(c->message, NULL));
}

void bus_call_reconciled(void *userdata, int r, const Refusal *refusal, const EngineHealed *healed,
                         size_t n) {
        Call *c = userdata;

        if (r != 0)
                return finish(c, reply_failure(c, r, refusal));

        finish(c, reply_healed(c, healed, n));
}

void bus_call_noted(void *userdata, int r, const Refusal *refusal, const char *const *notes) {
        Call *c = userdata;

        bus_signal_flush_uuid(c->bus, c->object);
        finish(c, r != 0 ? reply_failure(c, r, refusal) : reply_notes(c, notes));
}

void bus_call_counters(void *userdata, int r, VtpmVerdict verdict, const char *text,
                       const VtpmCounter *counters, size_t n) {
        Call *c = userdata;

        if (r == 0 && verdict == VTPM_DONE)
                return finish(c, reply_counters(c, counters, n));
        if (r == 0)
                r = (int) engine_verdict_of_vtpm(verdict);

        finish(c, reply_failure(c, r, &(Refusal) { .verdict = (Verdict) MAX(r, 0), .text = (char *) text }));
}

void bus_call_exported(void *userdata, int r, const Refusal *refusal, Uuid uuid, const char *json) {
        Call *c = userdata;

        bus_signal_flush_uuid(c->bus, uuid);
        finish(c, r != 0 ? reply_failure(c, r, refusal) : sd_bus_reply_method_return(c->message, "s", json));
}

void bus_call_rescanned(void *userdata, int r) {
        Call *c = userdata;

        if (r < 0)
                return finish(c, reply_failure(c, VERDICT_BACKEND,
                                               &(Refusal) {
                                                       .verdict = VERDICT_BACKEND,
                                                       .error = r,
                                                       .text = (char *) "The host could not be scanned" }));

        finish(c, sd_bus_reply_method_return(c->message, NULL));
}

/* ---- questions that wait for a scan ---- */

typedef struct Question {
        Answer answer;
        sd_bus_message_handler_t handler;
} Question;

static void question_free(Answer *a) {
        free(CONTAINER_OF(a, Question, answer));
}

static int question_answer(Answer *a, sd_bus_error *error) {
        const Question *q = CONTAINER_OF(a, Question, answer);
        int r;

        bus_answer_discharge(a); /* what the handler has still to do counts itself */
        r = sd_bus_message_rewind(a->call, 1);
        if (r >= 0)
                r = q->handler(a->call, &a->bus->object, error);

        return r < 0 ? r : 1;
}

/* A scan that failed or is late is no reason to say nothing: the answer is from what is known then. */
static void on_refreshed(void *userdata, int r) {
        Question *q = userdata;

        if (bus_answer_ready(&q->answer) < 0)
                bus_answer_free(&q->answer);
}

/* @name NULL: a question about the host, else about this guest. */
static int ask(Bus *b, sd_bus_message *m, const char *name, sd_bus_message_handler_t answer,
               sd_bus_error *error) {
        Question *q;
        int r;

        q = malloc(sizeof *q);
        if (!q)
                return -ENOMEM;

        *q = (Question) { .answer = { .step = question_answer, .free = question_free }, .handler = answer };
        r = bus_answer_init(&q->answer, b, m, error);
        if (r < 0) {
                free(q);
                return r;
        }

        r = name ? engine_ask_guest(b->engine, name, on_refreshed, q)
                 : engine_refresh(b->engine, on_refreshed, q);
        if (r == -EHOSTDOWN || r == -EBUSY) { /* what is known has to do */
                bus_answer_free(&q->answer);
                return answer(m, &b->object, error);
        }
        if (r < 0) {
                bus_answer_free(&q->answer);
                return bus_error_broken(m, r, error);
        }

        return 1;
}

int bus_call_refresh(Bus *b, sd_bus_message *m, sd_bus_message_handler_t answer, sd_bus_error *error) {
        return ask(b, m, NULL, answer, error);
}

int bus_call_ask_guest(Bus *b, sd_bus_message *m, const char *name, sd_bus_message_handler_t answer,
                       sd_bus_error *error) {
        return ask(b, m, name, answer, error);
}
