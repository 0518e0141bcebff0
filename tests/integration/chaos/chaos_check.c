/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "chaos_check.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define TEXT_MAX    65536
#define HOLDERS_MAX 4096
#define READS       8 /* of each of two that seem to have the same */

typedef enum Kind { KIND_MDEV, KIND_RECORD, KIND_HOST } Kind;

typedef struct Holder {
        Kind kind;
        char path[512];
        char name[OWNER_SIZE];
        bool alternative;
        int fds[2]; /* what is read; -1: not open */
        Ids adapters, domains;
} Holder;

bool ids_any(const Ids *a) {
        return memchr(a->has, true, sizeof a->has);
}

bool matrix_overlaps(const Ids *adapters, const Ids *domains, const Ids *other_adapters,
                     const Ids *other_domains, unsigned *ret_adapter, unsigned *ret_domain) {
        unsigned a = 0, d = 0;

        while (a < IDS && !(adapters->has[a] && other_adapters->has[a]))
                a++;
        while (d < IDS && !(domains->has[d] && other_domains->has[d]))
                d++;
        if (a == IDS || d == IDS)
                return false;

        *ret_adapter = a;
        *ret_domain = d;
        return true;
}

bool ids_parse_mask(const char *text, Ids *ret) {
        if (strncmp(text, "0x", 2) != 0 || strspn(text + 2, "0123456789abcdef") != IDS / 4)
                return false;

        for (unsigned i = 0; i < IDS; i++) {
                char digit[] = { text[2 + i / 4], 0 };

                ret->has[i] = strtoul(digit, NULL, 16) >> (3 - i % 4) & 1;
        }
        return true;
}

static void holder_close(Holder *h) {
        for (unsigned i = 0; i < 2; i++)
                h->fds[i] = fd_close(h->fds[i]);
}

static bool holder_open(Holder *h) {
        static const char *const names[][2] = {
                [KIND_MDEV] = { "/ap_config", NULL },
                [KIND_RECORD] = { "", NULL },
                [KIND_HOST] = { "/apmask", "/aqmask" },
        };
        char path[600];

        for (unsigned i = 0; i < 2; i++) {
                if (!names[h->kind][i])
                        continue;
                (void) snprintf(path, sizeof path, "%s%s", h->path, names[h->kind][i]);
                h->fds[i] = open(path, O_RDONLY | O_CLOEXEC);
                if (h->fds[i] < 0) {
                        holder_close(h);
                        return false;
                }
        }
        return true;
}

/* A record is replaced as a whole, by another file of the same name. */
static bool is_in_place(const Holder *h) {
        struct stat now, then;

        return h->kind != KIND_RECORD || (stat(h->path, &now) == 0 && fstat(h->fds[0], &then) == 0 &&
                                          now.st_dev == then.st_dev && now.st_ino == then.st_ino);
}

static bool slurp(int fd, char text[static TEXT_MAX]) {
        ssize_t n = pread(fd, text, TEXT_MAX - 1, 0);

        if (n < 0)
                return false;
        text[n] = 0;
        return true;
}

/* "MASK,MASK,MASK" */
static bool read_mdev(Holder *h) {
        char text[TEXT_MAX];
        const char *comma;

        if (!slurp(h->fds[0], text))
                return false;
        comma = strchr(text, ',');
        return comma && ids_parse_mask(text, &h->adapters) && ids_parse_mask(comma + 1, &h->domains);
}

static void read_attributes(const char *xml, const char *name, Ids *ret) {
        char start[64];

        *ret = (Ids) {};
        (void) snprintf(start, sizeof start, "<attr name='%s' value='", name);
        for (const char *p = xml; (p = strstr(p, start));) {
                unsigned long id;

                p += strlen(start);
                id = strtoul(p, NULL, 0);
                if (id < IDS)
                        ret->has[id] = true;
        }
}

static bool read_record(Holder *h) {
        char text[TEXT_MAX], *name;

        if (!slurp(h->fds[0], text))
                return false;
        name = strstr(text, " name='");
        name = strstr(text, "<guestcrypt:matrix") ? strstr(strstr(text, "<guestcrypt:matrix"), " name='")
                                                  : name;
        if (name)
                (void) snprintf(h->name, sizeof h->name, "%.*s", (int) strcspn(name + 7, "'"), name + 7);
        h->alternative = strstr(text, " alternative='yes'");
        read_attributes(text, "assign_adapter", &h->adapters);
        read_attributes(text, "assign_domain", &h->domains);
        return true;
}

static bool read_host(Holder *h) {
        char text[TEXT_MAX];

        return slurp(h->fds[0], text) && ids_parse_mask(text, &h->adapters) && slurp(h->fds[1], text) &&
               ids_parse_mask(text, &h->domains);
}

static bool read_holder(Holder *h) {
        switch (h->kind) {
        case KIND_MDEV:
                return read_mdev(h);
        case KIND_RECORD:
                return read_record(h);
        default:
                return read_host(h);
        }
}

static void add(Holder *holders, size_t *n, Kind kind, const char *dir, const char *entry) {
        Holder *h = &holders[*n];

        *h = (Holder) { .kind = kind, .fds = { -1, -1 } };
        (void) snprintf(h->path, sizeof h->path, "%s/%s", dir, entry);
        (void) snprintf(h->name, sizeof h->name, "%s", kind == KIND_HOST ? "the host" : entry);
        if (*n + 1 < HOLDERS_MAX && holder_open(h) && read_holder(h)) /* one that has gone holds nothing */
                ++*n;
        holder_close(h);
}

static void add_all(Holder *holders, size_t *n, Kind kind, const char *path, const char *suffix) {
        CLEANUP(closedirp) DIR *dir = opendir(path);

        for (struct dirent *e; dir && (e = readdir(dir));) {
                size_t k = strlen(e->d_name), s = strlen(suffix);

                if (e->d_name[0] != '.' && k > s && strcmp(e->d_name + k - s, suffix) == 0)
                        add(holders, n, kind, path, e->d_name);
        }
}

/* Whether both may not have the same queue. */
static bool are_rivals(const Holder *a, const Holder *b) {
        if (a->kind == KIND_RECORD || b->kind == KIND_RECORD)
                return a->kind == b->kind && !a->alternative && !b->alternative;
        return true;
}

static bool overlap(const Holder *a, const Holder *b, unsigned *ret_adapter, unsigned *ret_domain) {
        return are_rivals(a, b) && matrix_overlaps(&a->adapters, &a->domains, &b->adapters, &b->domains,
                                                   ret_adapter, ret_domain);
}

/* What is read is this one device and this one file: when they are replaced meanwhile, by others of the same name, the descriptors
 * tell. Between two of its reads @a has the queue, and there @b is read. */
static bool overlap_lasts(Holder *a, Holder *b, unsigned *ret_adapter, unsigned *ret_domain) {
        unsigned i = 0;

        while (i < READS && read_holder(a) && read_holder(b) && is_in_place(b) && is_in_place(a) &&
               overlap(a, b, ret_adapter, ret_domain))
                i++;
        return i == READS;
}

static void compare(Checker *c, Holder *a, Holder *b) {
        unsigned adapter, domain;
        bool lasts;

        if (!overlap(a, b, &adapter, &domain))
                return;
        lasts = holder_open(a) && holder_open(b) && overlap_lasts(a, b, &adapter, &domain);
        holder_close(a);
        holder_close(b);
        if (!lasts)
                return;

        if (c->n_overlaps++ == 0)
                (void) snprintf(c->first, sizeof c->first, "%02x.%04x is in '%s' and in '%s'", adapter,
                                domain, a->name, b->name);
}

void checker_look(Checker *c) {
        CLEANUP(freep) Holder *holders = malloc(HOLDERS_MAX * sizeof *holders);
        char path[512];
        size_t n = 0, first_record;

        if (!holders)
                abort();

        (void) snprintf(path, sizeof path, "%s/bus/mdev/devices", c->sys);
        add_all(holders, &n, KIND_MDEV, path, "");
        c->mdevs += n;
        (void) snprintf(path, sizeof path, "%s/bus", c->sys);
        add(holders, &n, KIND_HOST, path, "ap");
        first_record = n;
        add_all(holders, &n, KIND_RECORD, c->definitions, ".xml");
        c->records += n - first_record;

        for (size_t i = 0; i < n; i++)
                for (size_t j = i + 1; j < n; j++)
                        compare(c, &holders[i], &holders[j]);
        c->looks++;
}
