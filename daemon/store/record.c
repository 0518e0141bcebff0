/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "store/record_internal.h"

void record_clear(Record *r) {
        free(r->name);
        free(r->guest);
        free(r->unknown);
        free(r->mdevctl);
        *r = (Record) {};
}

static int copy_string(const char *s, char **ret) {
        if (!s)
                return 0;

        *ret = strdup(s);
        return *ret ? 0 : -ENOMEM;
}

int record_copy(const Record *r, Record *ret) {
        CLEANUP(record_clear) Record copy = *r;

        copy.name = copy.guest = copy.unknown = copy.mdevctl = NULL;
        if (copy_string(r->name, &copy.name) < 0 || copy_string(r->guest, &copy.guest) < 0 ||
            copy_string(r->unknown, &copy.unknown) < 0 || copy_string(r->mdevctl, &copy.mdevctl) < 0)
                return -ENOMEM;

        *ret = copy;
        copy = (Record) {};
        return 0;
}

static bool is_letter_or_digit(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool record_name_is_valid(const char *name) {
        size_t size = strnlen(name, STORE_NAME_MAX + 1);

        if (size == 0 || size > STORE_NAME_MAX || !is_letter_or_digit(*name))
                return false;

        for (const char *p = name; *p; p++)
                if (!is_letter_or_digit(*p) && !strchr("-_.:+", *p))
                        return false;

        return true;
}

/* How many bytes the UTF-8 character at @p has; 0 if it is none that XML 1.0 can hold on one line. */
static size_t character_size(const unsigned char *p) {
        uint32_t c;
        size_t n;

        if (*p < 0x80)
                return *p >= 0x20 && *p != 0x7f;
        if (*p >= 0xc2 && *p <= 0xdf)
                n = 2, c = *p & 0x1f;
        else if (*p >= 0xe0 && *p <= 0xef)
                n = 3, c = *p & 0x0f;
        else if (*p >= 0xf0 && *p <= 0xf4)
                n = 4, c = *p & 0x07;
        else
                return 0;

        for (size_t i = 1; i < n; i++) {
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (p[i] & 0x3f);
        }

        /* C1 controls, overlong forms, surrogates, the two that XML leaves out */
        if (c < 0xa0 || (n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10ffff)) ||
            (c >= 0xd800 && c <= 0xdfff) || c == 0xfffe || c == 0xffff)
                return 0;
        return n;
}

static bool is_line(const char *text, size_t max) {
        size_t size = strnlen(text, max + 1);

        if (size == 0 || size > max)
                return false;

        for (const char *p = text; *p;) {
                size_t n = character_size((const unsigned char *) p);

                if (n == 0)
                        return false;
                p += n;
        }

        return true;
}

bool record_guest_is_valid(const char *guest) {
        return is_line(guest, STORE_GUEST_MAX);
}

bool record_mdevctl_is_valid(const char *text) {
        return is_line(text, STORE_MDEVCTL_MAX);
}

static void put_escaped(FILE *f, const char *s) {
        for (; *s; s++)
                switch (*s) {
                case '&':
                        fputs("&amp;", f);
                        break;
                case '<':
                        fputs("&lt;", f);
                        break;
                case '>':
                        fputs("&gt;", f);
                        break;
                case '\'':
                        fputs("&apos;", f);
                        break;
                default:
                        fputc(*s, f);
                }
}

/* The pieces of Record.unknown; empty ones if there is none. */
typedef struct Unknown {
        const char *start[_UNKNOWN_MAX];
        int size[_UNKNOWN_MAX];
} Unknown;

static Unknown unknown_split(const char *s) {
        Unknown u;

        for (size_t i = 0; i < _UNKNOWN_MAX; i++) {
                u.start[i] = s ?: "";
                u.size[i] = (int) strcspn(u.start[i], UNKNOWN_SEPARATOR);
                s = u.start[i][u.size[i]] ? u.start[i] + u.size[i] + 1 : NULL;
        }

        return u;
}

static void put_unknown(FILE *f, const Unknown *u, UnknownPlace place) {
        fwrite(u->start[place], 1, (size_t) u->size[place], f);
}

static void put_attributes(FILE *f, const char *name, const ApMask *m, int digits) {
        AP_MASK_FOREACH(id, m)
                fprintf(f, "    <attr name='%s' value='0x%0*x'/>\n", name, digits, id);
}

int record_to_xml(const Record *r, char **ret) {
        CLEANUP(freep) char *text = NULL;
        Unknown u = unknown_split(r->unknown);
        char uuid[UUID_STRING_SIZE];
        size_t size;
        FILE *f;

        if ((r->name && !record_name_is_valid(r->name)) || (r->guest && !record_guest_is_valid(r->guest)) ||
            (r->mdevctl && !record_mdevctl_is_valid(r->mdevctl)))
                return -EINVAL;

        f = open_memstream(&text, &size);
        if (!f)
                return -ENOMEM;

        uuid_format(r->uuid, uuid);
        fputs("<device", f);
        put_unknown(f, &u, UNKNOWN_DEVICE_ATTRIBUTES);
        fputs(">\n", f);
        if (!uuid_is_null(r->uuid)) {
                fputs("  <name>mdev_", f);
                for (const char *p = uuid; *p; p++)
                        fputc(*p == '-' ? '_' : *p, f);
                fputs("_matrix</name>\n", f);
        }
        put_unknown(f, &u, UNKNOWN_BEFORE_PARENT);
        fputs("  <parent>" RECORD_PARENT "</parent>\n", f);
        put_unknown(f, &u, UNKNOWN_AFTER_PARENT);
        fputs("  <capability type='mdev'", f);
        put_unknown(f, &u, UNKNOWN_CAPABILITY_ATTRIBUTES);
        fputs(">\n    <type id='" RECORD_TYPE "'/>\n", f);
        if (!uuid_is_null(r->uuid))
                fprintf(f, "    <uuid>%s</uuid>\n", uuid);
        put_unknown(f, &u, UNKNOWN_CAPABILITY);
        put_attributes(f, "assign_adapter", &r->matrix.adapters, 2);
        put_attributes(f, "assign_domain", &r->matrix.domains, 4);
        put_attributes(f, "assign_control_domain", &r->matrix.control, 4);
        fputs("  </capability>\n  <guestcrypt:matrix xmlns:guestcrypt='" RECORD_NAMESPACE "' version='1'",
              f);
        if (r->name)
                fprintf(f, " name='%s'", r->name);
        if (r->guest) {
                fputs(" guest='", f);
                put_escaped(f, r->guest);
                fputc('\'', f);
                if (!uuid_is_null(r->guest_uuid))
                        fprintf(f, " guest-uuid='%s'", uuid_format(r->guest_uuid, uuid));
        }
        if (r->uid != 0)
                fprintf(f, " uid='%" PRIu32 "'", (uint32_t) r->uid);
        for (size_t i = 0; i < N_RECORD_FLAGS; i++)
                if (*record_flag((Record *) r, i))
                        fprintf(f, " %s='yes'", record_flags[i].name);
        if (r->mdevctl) {
                fputs(" mdevctl='", f);
                put_escaped(f, r->mdevctl);
                fputc('\'', f);
        }
        fputs("/>\n", f);
        put_unknown(f, &u, UNKNOWN_END);
        fputs("</device>\n", f);

        if (fclose(f) != 0)
                return -ENOMEM;
        if (size > RECORD_XML_MAX)
                return -EINVAL;

        *ret = TAKE(text);
        return 0;
}

const RecordFlag record_flags[N_RECORD_FLAGS] = {
        { "autostart", offsetof(Record, autostart) },
        { "alternative", offsetof(Record, alternative) },
        { "from-host", offsetof(Record, from_host) },
};
