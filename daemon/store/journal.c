/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/journal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define JOURNAL_CRC_DIGITS 8

static const char *const type_names[] = {
        [STORE_INTENT] = "intent", [STORE_PUT] = "put",     [STORE_DELETE] = "delete",
        [STORE_END] = "end",       [STORE_MASKS] = "masks", [JOURNAL_LAST] = "last",
};
static_assert(ELEMENTS(type_names) == _STORE_ENTRY_MAX + 1, "every entry has a name in the journal");

/* CRC-32 of IEEE 802.3, reflected, four bits at a time. */
static uint32_t crc32_add(uint32_t crc, const char *data, size_t size) {
        static const uint32_t table[16] = {
                0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
        };

        crc = ~crc;
        for (size_t i = 0; i < size; i++) {
                crc ^= (uint8_t) data[i];
                crc = table[crc & 15] ^ crc >> 4;
                crc = table[crc & 15] ^ crc >> 4;
        }

        return ~crc;
}

static void put_escaped(FILE *f, const char *s) {
        for (;;) {
                size_t n = strcspn(s, "\n\\");

                fwrite(s, 1, n, f);
                if (!s[n])
                        return;
                fputs(s[n] == '\n' ? "\\n" : "\\\\", f);
                s += n + 1;
        }
}

static int unescape(const char *s, char **ret) {
        char *text = malloc(strlen(s) + 1), *p = text;

        if (!text)
                return -ENOMEM;

        for (; *s; s++) {
                if (*s != '\\') {
                        *p++ = *s;
                        continue;
                }
                s++;
                if (*s != 'n' && *s != '\\') {
                        free(text);
                        return -EBADMSG;
                }
                *p++ = *s == 'n' ? '\n' : '\\';
        }

        *p = '\0';
        *ret = text;
        return 0;
}

static int format_item(const JournalItem *item, char **ret, size_t *ret_size) {
        char uuid[UUID_STRING_SIZE], apmask[AP_MASK_STRING_SIZE], aqmask[AP_MASK_STRING_SIZE];
        FILE *f = open_memstream(ret, ret_size);

        if (!f)
                return -ENOMEM;

        fprintf(f, "%s %" PRIu64, type_names[item->type], item->op);
        switch (item->type) {
        case STORE_INTENT:
                fputc(' ', f);
                put_escaped(f, item->text);
                break;
        case STORE_PUT:
                fprintf(f, " %s ", uuid_format(item->uuid, uuid));
                put_escaped(f, item->text);
                break;
        case STORE_DELETE:
                fprintf(f, " %s", uuid_format(item->uuid, uuid));
                break;
        case STORE_MASKS:
                if (item->keep)
                        fprintf(f, " %s %s", ap_mask_format(&item->apmask, apmask),
                                ap_mask_format(&item->aqmask, aqmask));
                break;
        }

        return fclose(f) == 0 ? 0 : -ENOMEM;
}

int journal_format(const JournalItem *items, size_t n, char **ret, size_t *ret_size) {
        CLEANUP(freep) char *text = NULL;
        uint32_t crc = 0;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        int r = 0;

        if (!f)
                return -ENOMEM;

        for (size_t i = 0; i < n && r >= 0; i++) {
                CLEANUP(freep) char *payload = NULL;
                char frame[64];
                size_t payload_size;
                int k;

                r = format_item(&items[i], &payload, &payload_size);
                if (r < 0)
                        break;

                k = snprintf(frame, sizeof frame, "%zu %zu/%zu ", payload_size, i + 1, n);
                crc = crc32_add(crc, frame, (size_t) k);
                crc = crc32_add(crc, payload, payload_size);
                fprintf(f, "%0*" PRIx32 " %s", JOURNAL_CRC_DIGITS, crc, frame);
                fwrite(payload, 1, payload_size, f);
                fputc('\n', f);
        }

        if (fclose(f) != 0)
                r = -ENOMEM;
        if (r < 0)
                return r;

        *ret = TAKE(text);
        *ret_size = size;
        return 0;
}

/* A number in decimal without sign or leading zero, and the character after it. */
static bool take_number(const char **p, char after, uint64_t *ret) {
        uint64_t value = 0;
        const char *s = *p;

        if (*s == '0' && s[1] != after)
                return false;
        for (; *s >= '0' && *s <= '9'; s++)
                if (__builtin_mul_overflow(value, 10, &value) ||
                    __builtin_add_overflow(value, *s - '0', &value))
                        return false;
        if (s == *p || *s != after)
                return false;

        *p = after ? s + 1 : s;
        *ret = value;
        return true;
}

static bool take_uuid(const char **p, char after, Uuid *ret) {
        char uuid[UUID_STRING_SIZE] = "";

        if (strnlen(*p, sizeof uuid - 1) < sizeof uuid - 1)
                return false;
        memcpy(uuid, *p, sizeof uuid - 1);
        *p += sizeof uuid - 1;
        if (uuid_parse(uuid, ret) < 0 || **p != after)
                return false;
        if (after)
                (*p)++;
        return true;
}

static bool take_mask(const char **p, char after, ApMask *ret) {
        char mask[AP_MASK_STRING_SIZE] = "";

        if (strnlen(*p, sizeof mask - 1) < sizeof mask - 1)
                return false;
        memcpy(mask, *p, sizeof mask - 1);
        *p += sizeof mask - 1;
        if (ap_mask_parse(mask, ret) < 0 || **p != after)
                return false;
        if (after)
                (*p)++;
        return true;
}

/* -EBADMSG: not an entry. */
static int parse_item(const char *p, JournalItem *ret) {
        JournalItem item = {};
        size_t n = strcspn(p, " ");
        char after;
        int r = 0;

        for (item.type = 0; item.type <= JOURNAL_LAST; item.type++)
                if (strlen(type_names[item.type]) == n && strncmp(p, type_names[item.type], n) == 0)
                        break;
        if (item.type > JOURNAL_LAST || !p[n])
                return -EBADMSG;
        p += n + 1;

        after = item.type == STORE_END || item.type == JOURNAL_LAST ||
                                (item.type == STORE_MASKS && !strchr(p, ' '))
                        ? '\0'
                        : ' ';
        if (!take_number(&p, after, &item.op))
                return -EBADMSG;

        switch (item.type) {
        case STORE_INTENT:
                r = unescape(p, &item.text);
                break;
        case STORE_PUT:
                r = take_uuid(&p, ' ', &item.uuid) ? unescape(p, &item.text) : -EBADMSG;
                break;
        case STORE_DELETE:
                r = take_uuid(&p, '\0', &item.uuid) ? 0 : -EBADMSG;
                break;
        case STORE_MASKS:
                item.keep = after == ' ';
                if (item.keep && (!take_mask(&p, ' ', &item.apmask) || !take_mask(&p, '\0', &item.aqmask)))
                        r = -EBADMSG;
                break;
        }
        if (r < 0)
                return r;

        *ret = item;
        return 0;
}

/* One line without its newline, NUL-terminated. @crc and @next are where the batch is; -EBADMSG: the line
 * does not go on from there. */
static int parse_line(const char *line, size_t size, uint32_t *crc, size_t *next, size_t *count,
                      JournalItem *ret) {
        uint64_t payload_size, i, n;
        uint32_t sum = 0;
        const char *p;
        int r;

        if (strlen(line) != size || size < JOURNAL_CRC_DIGITS + 1 || line[JOURNAL_CRC_DIGITS] != ' ')
                return -EBADMSG;
        for (size_t k = 0; k < JOURNAL_CRC_DIGITS; k++) {
                const char *digit = line[k] ? strchr("0123456789abcdef", line[k]) : NULL;

                if (!digit)
                        return -EBADMSG;
                sum = sum << 4 | (uint32_t) (digit - strchr("0123456789abcdef", '0'));
        }

        p = line + JOURNAL_CRC_DIGITS + 1;
        if (crc32_add(*crc, p, size - JOURNAL_CRC_DIGITS - 1) != sum)
                return -EBADMSG;
        if (!take_number(&p, ' ', &payload_size) || !take_number(&p, '/', &i) || !take_number(&p, ' ', &n))
                return -EBADMSG;
        if (strlen(p) != payload_size || i != *next || i > n || (i > 1 && n != *count))
                return -EBADMSG;

        r = parse_item(p, ret);
        if (r < 0)
                return r;

        *crc = sum;
        *next = i + 1;
        *count = n;
        return 0;
}

typedef struct Parser {
        JournalItem *items; /* of the batch that is being read */
        size_t n_items, allocated;
        uint32_t crc;
        size_t next, count;     /* number of the next line in its batch, and how many the batch has */
        size_t bad_line, n_bad; /* since the last valid batch */
        JournalDamage damage;
} Parser;

static void parser_drop_batch(Parser *p) {
        while (p->n_items > 0)
                free(p->items[--p->n_items].text);
        p->crc = 0;
        p->next = 1;
        p->count = 0;
}

static void parser_clear(Parser *p) {
        parser_drop_batch(p);
        free(p->items);
}

static void parser_note_bad(Parser *p, size_t line, size_t n) {
        if (p->n_bad == 0)
                p->bad_line = line;
        p->n_bad += n;
}

static int parser_add_item(Parser *p, JournalItem *item) {
        if (p->n_items == p->allocated) {
                size_t more = p->allocated ? p->allocated * 2 : 16;
                JournalItem *items = reallocarray(p->items, more, sizeof *items);

                if (!items)
                        return -ENOMEM;
                p->items = items;
                p->allocated = more;
        }

        p->items[p->n_items++] = *item;
        *item = (JournalItem) {};
        return 0;
}

/* A line that does not go on with the batch spoils what the batch has so far, and may begin another. */
static int parser_add_line(Parser *p, const char *line, size_t size, size_t number) {
        JournalItem item = {};
        int r;

        r = parse_line(line, size, &p->crc, &p->next, &p->count, &item);
        if (r == -EBADMSG && p->n_items > 0) {
                parser_note_bad(p, number - p->n_items, p->n_items);
                parser_drop_batch(p);
                r = parse_line(line, size, &p->crc, &p->next, &p->count, &item);
        }
        if (r == -EBADMSG) {
                parser_note_bad(p, number, 1);
                return 0;
        }
        if (r < 0)
                return r;

        r = parser_add_item(p, &item);
        free(item.text);
        return r;
}

static int parser_end_batch(Parser *p, size_t number, size_t end, journal_apply_t apply, void *userdata) {
        int r;

        r = apply(userdata, p->items, p->n_items);
        if (r == -EBADMSG) {
                parser_note_bad(p, number + 1 - p->n_items, p->n_items);
                r = 0;
        } else if (r >= 0) {
                if (p->n_bad > 0 && p->damage.n_lines == 0)
                        p->damage.line = p->bad_line;
                p->damage.n_lines += p->n_bad;
                p->damage.end = end;
                p->n_bad = 0;
        }

        parser_drop_batch(p);
        return r;
}

int journal_parse(const char *data, size_t size, journal_apply_t apply, void *userdata, JournalDamage *ret) {
        CLEANUP(parser_clear) Parser p = { .next = 1 };
        size_t at = 0, number = 1;
        int r;

        if (size >= strlen(JOURNAL_HEADER) && memcmp(data, JOURNAL_HEADER, strlen(JOURNAL_HEADER)) == 0)
                at = p.damage.end = strlen(JOURNAL_HEADER);
        else {
                const char *newline = memchr(data, '\n', size);

                p.damage.header = true;
                at = newline ? (size_t) (newline - data) + 1 : size;
        }

        while (at < size) {
                const char *newline = memchr(data + at, '\n', size - at);
                CLEANUP(freep) char *line = NULL;
                size_t length;

                number++;
                if (!newline) /* the tail of an append that was cut */
                        break;

                length = (size_t) (newline - data) - at;
                line = strndup(data + at, length);
                if (!line)
                        return -ENOMEM;
                r = parser_add_line(&p, line, length, number);
                if (r < 0)
                        return r;

                at += length + 1;
                if (p.n_items > 0 && p.next > p.count) {
                        r = parser_end_batch(&p, number, at, apply, userdata);
                        if (r < 0)
                                return r;
                }
        }

        *ret = p.damage;
        return 0;
}
