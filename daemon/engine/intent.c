/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/intent.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

static const char *const kind_names[] = {
        [INTENT_DEFINE] = "define", [INTENT_START] = "start",       [INTENT_STOP] = "stop",
        [INTENT_MODIFY] = "modify", [INTENT_UNDEFINE] = "undefine", [INTENT_CREATE] = "create",
        [INTENT_REMOVE] = "remove", [INTENT_MASKS] = "masks",       [INTENT_HEAL] = "heal",
        [INTENT_HOST] = "host",
};
static_assert(ELEMENTS(kind_names) == _INTENT_KIND_MAX, "every kind has a name");

const char *intent_kind_name(IntentKind kind) {
        return kind_names[kind];
}

void intent_clear(Intent *i) {
        record_clear(&i->record);
        plan_clear(&i->plan);
        *i = (Intent) {};
}

static char *to_hex(const char *s) {
        static const char digits[] = "0123456789abcdef";
        char *hex = malloc(strlen(s) * 2 + 1), *p = hex;

        if (!hex)
                return NULL;

        for (; *s; s++) {
                *p++ = digits[(unsigned char) *s >> 4];
                *p++ = digits[(unsigned char) *s & 15];
        }
        *p = '\0';
        return hex;
}

static int digit(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* -EBADMSG, -ENOMEM. */
static int from_hex(const char *hex, char **ret) {
        size_t size = strlen(hex) / 2;
        char *s;

        s = malloc(size + 1);
        if (!s)
                return -ENOMEM;

        for (size_t i = 0; i < size; i++) {
                int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);

                if (high < 0 || low < 0 || (high | low) == 0) {
                        free(s);
                        return -EBADMSG;
                }
                s[i] = (char) (high << 4 | low);
        }
        s[size] = '\0';
        *ret = s;
        return 0;
}

/* KIND UUID RECORD|- PLAN; the record is its XML in hexadecimal, since a line has no newlines in it. */
int intent_to_line(IntentKind kind, Uuid uuid, const Record *record, const Plan *plan, char **ret) {
        CLEANUP(freep) char *xml = NULL, *hex = NULL, *steps = NULL;
        char text[UUID_STRING_SIZE];
        int r;

        if (record) {
                r = record_to_xml(record, &xml);
                if (r < 0)
                        return r;
                hex = to_hex(xml);
                if (!hex)
                        return -ENOMEM;
        }

        r = plan_serialize(plan, &steps);
        if (r < 0)
                return r;

        r = asprintf(ret, "%s %s %s %s", kind_names[kind], uuid_format(uuid, text), hex ?: "-", steps);
        return r < 0 ? -ENOMEM : 0;
}

static int parse_record(const char *hex, Record *ret) {
        CLEANUP(freep) char *xml = NULL, *why = NULL;
        int r;

        r = from_hex(hex, &xml);
        if (r < 0)
                return r;
        return record_from_xml(xml, strlen(xml), ret, &why);
}

int intent_from_line(const char *line, Intent *ret) {
        CLEANUP(freep) char *copy = strdup(line);
        CLEANUP(intent_clear) Intent i = {};
        char *rest = copy, *kind, *uuid, *record;
        int r;

        if (!copy)
                return -ENOMEM;

        kind = strsep(&rest, " ");
        uuid = strsep(&rest, " ");
        record = strsep(&rest, " ");
        if (!rest || uuid_parse(uuid, &i.uuid) < 0)
                return -EBADMSG;

        while (i.kind < _INTENT_KIND_MAX && strcmp(kind_names[i.kind], kind) != 0)
                i.kind++;
        if (i.kind == _INTENT_KIND_MAX)
                return -EBADMSG;

        i.has_record = strcmp(record, "-") != 0;
        if (i.has_record) {
                r = parse_record(record, &i.record);
                if (r < 0)
                        return r;
        }

        r = plan_parse(rest, &i.plan);
        if (r < 0)
                return r;

        *ret = i;
        i = (Intent) {};
        return 0;
}
