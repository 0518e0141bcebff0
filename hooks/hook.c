/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "hooks/hook.h"

#define SECOND     UINT64_C(1000000)
#define LINE_SIZE  1000 /* of what we say: libvirt puts it into one line of its own */
#define PATH_SIZE  256
#define FIRST_READ (size_t)(64 * 1024) /* most domain XMLs have less than a tenth of it */

/* What concerns us; "start" and "stopped" tell nothing that the one before and the one after them do not. */
static const HookOperation operations[] = {
        { "prepare", 5 * SECOND, 20 * SECOND }, /* swtpm needs seconds to make a new TPM's keys */
        { "started", 5 * SECOND, 5 * SECOND },
        { "restore", 5 * SECOND, 5 * SECOND },
        { "migrate", 5 * SECOND, 5 * SECOND },
        { "attach", 5 * SECOND, 5 * SECOND },
        { "reconnect", 5 * SECOND, 5 * SECOND, .forgiving = true }, /* refusing would kill the guest */
        { "release", 5 * SECOND, 5 * SECOND, .forgiving = true, .gives_up = true },
};

static const HookOperation *find_operation(const char *name) {
        for (size_t i = 0; i < ELEMENTS(operations); i++)
                if (strcmp(operations[i].name, name) == 0)
                        return &operations[i];

        return NULL;
}

void hook_tell(const Hook *h, const char *format, ...) {
        char line[LINE_SIZE];
        va_list ap;
        size_t n;

        va_start(ap, format);
        (void) vsnprintf(line, sizeof line, format, ap);
        va_end(ap);

        for (char *s = line; *s; s += n) {
                n = utf8_length(s);
                if (n == 0 || iscntrl((unsigned char) *s)) {
                        *s = '?';
                        n = 1;
                }
        }
        (void) fprintf(h->err, "guestcrypt-hook: %s\n", line);
}

int hook_read(int fd, size_t max, char **ret, size_t *ret_size) {
        CLEANUP(freep) char *data = NULL;
        size_t size = 0, room = 0;

        for (;;) {
                ssize_t n;

                if (size == room) {
                        char *larger;

                        room = MAX(2 * room, FIRST_READ);
                        room = MIN(room, max + 1);
                        larger = realloc(data, room + 1);
                        if (!larger)
                                return -ENOMEM;
                        data = larger;
                }

                n = read(fd, data + size, room - size);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;

                size += (size_t) n;
                if (size > max)
                        return -EFBIG;
        }

        data[size] = 0;
        *ret = TAKE(data);
        *ret_size = size;
        return 0;
}

static bool contains(const char *xml, size_t size, const char *sign) {
        return memmem(xml, size, sign, strlen(sign));
}

bool hook_holds(const Hook *h, Uuid guest) {
        char path[PATH_SIZE], id[UUID_STRING_SIZE];
        int n;

        n = snprintf(path, sizeof path, "%s/%s", h->holds_dir, uuid_format(guest, id));
        return n > 0 && (size_t) n < sizeof path && access(path, F_OK) == 0;
}

/* The guest's own UUID is among those that stand there like this; which one it is a parser has to say. */
static bool may_hold(const Hook *h, const char *xml, size_t size) {
        static const char tag[] = "<uuid>";
        const char *end = xml + size, *p = xml;

        while ((p = memmem(p, (size_t) (end - p), tag, sizeof tag - 1))) {
                char text[UUID_STRING_SIZE];
                Uuid id;

                p += sizeof tag - 1;
                (void) snprintf(text, sizeof text, "%.*s", UUID_STRING_SIZE - 1, p);
                if (uuid_parse(text, &id) == 0 && hook_holds(h, id))
                        return true;
        }
        return false;
}

/* Whether there may be anything of ours: libvirt wrote the XML, and escapes none of these. */
static bool may_concern(const Hook *h, const char *xml, size_t size) {
        return contains(xml, size, "vfio-ap") || contains(xml, size, VIRT_METADATA_URI) ||
               contains(xml, size, VIRT_TPM_DIR) || (h->operation->gives_up && may_hold(h, xml, size));
}

static bool is_utf8(const char *s) {
        for (size_t n; *s; s += n) {
                n = utf8_length(s);
                if (n == 0)
                        return false;
        }
        return true;
}

static int run(const Hook *h, int in, hook_next_t next) {
        CLEANUP(freep) char *xml = NULL;
        size_t size;
        int r;

        r = hook_read(in, VIRT_XML_MAX, &xml, &size);
        if (r < 0) {
                hook_tell(h, "the domain XML of guest '%s' cannot be read from standard input: %s", h->guest,
                          r == -EFBIG ? "it is larger than any can be" : strerror(-r));
                return HOOK_REFUSED;
        }
        if (!contains(xml, size, "<domain")) {
                hook_tell(h,
                          "what is on standard input is no domain XML; this program is for libvirt to run");
                return HOOK_REFUSED;
        }
        if (!is_utf8(h->guest) || !is_utf8(h->suboperation) || !is_utf8(h->extra)) {
                hook_tell(h, "an argument is no UTF-8 text: '%s'", h->guest);
                return HOOK_REFUSED;
        }

        return may_concern(h, xml, size) ? next(h, xml, size) : HOOK_OK;
}

/* libvirt may not like a hook that leaves before it has read all. */
static void drain(int in) {
        char buf[4096];
        ssize_t n;

        do
                n = read(in, buf, sizeof buf);
        while (n > 0 || (n < 0 && errno == EINTR));
}

int hook_run(int argc, char *const *argv, int in, FILE *err, const char *holds_dir, hook_next_t next) {
        Hook h = { .argv = argv, .holds_dir = holds_dir, .err = err };
        int r;

        if (argc < 3 || argc > 5) {
                hook_tell(&h, "usage: guestcrypt-hook GUEST OPERATION [SUBOPERATION [EXTRA]] < DOMAIN-XML; "
                              "this program is for libvirt to run");
                return HOOK_USAGE;
        }

        h.guest = argv[1];
        h.operation = find_operation(argv[2]);
        h.suboperation = argc > 3 ? argv[3] : "";
        h.extra = argc > 4 ? argv[4] : "";
        if (!h.operation) { /* also those that libvirt will have one day */
                drain(in);
                return HOOK_OK;
        }

        r = run(&h, in, next);
        return h.operation->forgiving ? HOOK_OK : r;
}
