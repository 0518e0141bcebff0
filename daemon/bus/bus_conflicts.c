/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Answers to CheckMatrix and Explain: there can be some for each of 65,536 queues. */

#include <errno.h>

#include "bus/bus_internal.h"

#define CONFLICTS_PER_TURN 2048 /* about 2 ms */

typedef struct Conflicts {
        Answer answer;
        sd_bus_message *reply;
        EngineConflict *list;
        size_t n, next;
} Conflicts;

static void conflicts_free(Answer *a) {
        Conflicts *c = CONTAINER_OF(a, Conflicts, answer);

        (void) sd_bus_message_unref(c->reply);
        free(c->list);
        free(c);
}

static int append_conflict(sd_bus_message *m, const EngineConflict *c) {
        int r;

        r = sd_bus_message_open_container(m, 'r', "qqss");
        if (r >= 0)
                r = sd_bus_message_append(m, "qqs", c->adapter, c->domain, c->kind);
        if (r >= 0)
                r = bus_append_text(m, c->owner);
        if (r >= 0)
                r = sd_bus_message_close_container(m);

        return r;
}

static int append_some(Answer *a, sd_bus_error *error) {
        Conflicts *c = CONTAINER_OF(a, Conflicts, answer);
        int r = 0;

        for (unsigned i = 0; r >= 0 && i < CONFLICTS_PER_TURN && c->next < c->n; i++)
                r = append_conflict(c->reply, &c->list[c->next++]);
        if (r < 0 || c->next < c->n)
                return MIN(r, 0);

        r = sd_bus_message_close_container(c->reply);
        if (r >= 0)
                r = sd_bus_send(NULL, c->reply, NULL);

        return r < 0 ? r : 1;
}

int bus_reply_conflicts(Bus *b, sd_bus_message *m, const EngineCheck *check, sd_bus_error *error) {
        Conflicts *c;
        int r;

        c = malloc(sizeof *c);
        if (!c)
                return -ENOMEM;

        *c = (Conflicts) { .answer = { .step = append_some, .free = conflicts_free } };
        r = engine_check(b->engine, check, &c->list, &c->n, NULL, NULL);
        if (r == -EHOSTDOWN)
                r = bus_error_set_verdict(
                        error, VERDICT_BACKEND,
                        &(Refusal) { .text = (char *) "There is no AP bus to ask about; Problems of the "
                                                      "manager says whether it could be read" });
        else if (r < 0)
                r = bus_error_broken(m, r, error);
        else
                r = bus_answer_init(&c->answer, b, m, error);
        if (r < 0) {
                free(c->list);
                free(c);
                return r;
        }

        r = sd_bus_message_new_method_return(m, &c->reply);
        if (r >= 0)
                r = sd_bus_message_open_container(c->reply, 'a', "(qqss)");
        if (r >= 0)
                r = bus_answer_ready(&c->answer);
        if (r < 0) {
                bus_answer_free(&c->answer);
                return r;
        }

        return 0;
}
