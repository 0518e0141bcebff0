/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* play - plays a script of the contract suite on a host and prints what the host answered.
 *
 * usage: contract-HOST [--boots | --part=N] [--expect=FILE] SCRIPT HOST'S ARGUMENT...
 *
 * --boots    only prints, one a line, with which arguments the kernel has to be booted for each part of the script
 * --part=N   plays only the part that belongs to boot N
 * --expect=FILE  prints the first answers that FILE has otherwise, instead of all; exit status 1 if there are some
 *
 * README.md tells what a script consists of. Each operation comes out as it stands in the script, then, each on a line
 * of its own behind a tab, what it led to and the uevents that it caused. */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"
#include "play.h"

#define LINE_SIZE  16384
#define WORDS_MAX  24
#define DIFFER_MAX 5 /* lines shown of what is otherwise */

static FILE *out;
static enum { EVENTS_OFF, EVENTS_FULL, EVENTS_DIGEST } events = EVENTS_FULL;
static unsigned n_events;
static uint32_t digest;
static unsigned operations;

static const struct {
        const char *name, *text;
} variables[] = {
        { "ap", "bus/ap" },
        { "dev", "devices/vfio_ap/matrix" },
        { "type", "devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough" },
        { "u1", "11111111-1111-4111-8111-111111111111" },
        { "u2", "22222222-2222-4222-8222-222222222222" },
        { "u3", "33333333-3333-4333-8333-333333333333" },
        { "u4", "44444444-4444-4444-8444-444444444444" },
        { "m1", "devices/vfio_ap/matrix/11111111-1111-4111-8111-111111111111" },
        { "m2", "devices/vfio_ap/matrix/22222222-2222-4222-8222-222222222222" },
        { "m3", "devices/vfio_ap/matrix/33333333-3333-4333-8333-333333333333" },
        { "m4", "devices/vfio_ap/matrix/44444444-4444-4444-8444-444444444444" },
        { "full", "0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff" },
        { "none", "0x0000000000000000000000000000000000000000000000000000000000000000" },
};

_Noreturn void play_wrong(const char *what, const char *text) {
        (void) fprintf(stderr, "%s: '%s'\n", what, text);
        exit(2);
}

/* "$name" becomes what it stands for. */
static void expand(const char *s, char *d, size_t size) {
        size_t n = 0;

        while (*s) {
                bool found = false;

                if (n + 1 >= size)
                        play_wrong("too long", s);
                if (*s != '$') {
                        d[n++] = *s++;
                        continue;
                }
                for (size_t i = 0; i < sizeof variables / sizeof *variables && !found; i++) {
                        size_t k = strlen(variables[i].name), length = strlen(variables[i].text);

                        if (strncmp(s + 1, variables[i].name, k) != 0)
                                continue;
                        if (n + length + 1 >= size)
                                play_wrong("too long", s);
                        memcpy(d + n, variables[i].text, length);
                        n += length;
                        s += 1 + k;
                        found = true;
                }
                if (!found)
                        play_wrong("there is no such variable", s);
        }
        d[n] = 0;
}

/* \n \t \s (a blank) \\ \0 \xHH; '' is nothing. */
static size_t unescape(const char *s, char *d) {
        size_t n = 0;

        if (strcmp(s, "''") == 0)
                return 0;
        while (*s) {
                if (*s != '\\' || !s[1]) {
                        d[n++] = *s++;
                        continue;
                }
                s++;
                if (*s == 'x' && s[1] && s[2]) {
                        d[n++] = (char) strtol((char[]) { s[1], s[2], 0 }, NULL, 16);
                        s += 3;
                        continue;
                }
                d[n++] = *s == 'n' ? '\n' : *s == 't' ? '\t' : *s == 's' ? ' ' : *s == '0' ? 0 : *s;
                s++;
        }
        return n;
}

static void put_escaped(const char *s, size_t n) {
        for (size_t i = 0; i < n; i++) {
                unsigned char c = (unsigned char) s[i];

                if (c == '\n')
                        (void) fputs("\\n", out);
                else if (c == '\t')
                        (void) fputs("\\t", out);
                else if (c == '\\')
                        (void) fputs("\\\\", out);
                else if (c == 0)
                        (void) fputs("\\0", out);
                else if (c < 32 || c > 126)
                        (void) fprintf(out, "\\x%02x", c);
                else
                        (void) putc(c, out);
        }
}

static const char *error_name(ssize_t r) {
        const char *name = r < 0 && r > -4096 ? strerrorname_np((int) -r) : NULL;

        return name ? name : "never";
}

static void put_result(const HostAnswer *a) {
        if (a->r >= 0)
                (void) fprintf(out, "%zd", a->r);
        else
                (void) fprintf(out, "%s%s", a->opened ? "" : "open ", error_name(a->r));
}

static void put_error(int r) {
        (void) fprintf(out, "\t%s\n", r < 0 ? error_name(r) : "ok");
}

static void show_read(const char *before, const char *path) {
        static char buf[HOST_TEXT];
        HostAnswer a = host_read(path, buf, sizeof buf);

        (void) fputs(before, out);
        put_result(&a);
        if (a.r > 0) {
                (void) putc(' ', out);
                put_escaped(buf, (size_t) a.r);
        }
        (void) putc('\n', out);
}

/* names */

typedef struct Names {
        char name[1024][64];
        size_t n;
} Names;

static int add_name(void *userdata, const char *name) {
        Names *names = userdata;

        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
                return 0;
        if (names->n == sizeof names->name / sizeof *names->name || strlen(name) >= sizeof *names->name)
                play_wrong("too many entries, or too long a name", name);
        (void) snprintf(names->name[names->n++], sizeof *names->name, "%s", name);
        return 0;
}

static int by_name(const void *a, const void *b) {
        return strcmp(a, b);
}

static Names *names_of(const char *path) {
        Names *names = calloc(1, sizeof *names);

        if (!names)
                abort();
        if (host_readdir(path, add_name, names) < 0)
                names->n = 0;
        qsort(names->name, names->n, sizeof *names->name, by_name);
        return names;
}

static void op_list(const char *path, int depth, const char *shown) {
        Names *names = names_of(path);

        for (size_t i = 0; i < names->n; i++) {
                char sub[1024], below[1024], target[1024];
                struct stat st;
                ssize_t k;

                (void) snprintf(sub, sizeof sub, "%s/%s", path, names->name[i]);
                (void) snprintf(below, sizeof below, "%s%s%s", shown, *shown ? "/" : "", names->name[i]);
                if (host_lstat(sub, &st) < 0)
                        continue;
                (void) fprintf(out, "\t%s ", below);
                if (S_ISLNK(st.st_mode)) {
                        k = host_readlink(sub, target, sizeof target);
                        (void) fprintf(out, "-> %.*s\n", (int) (k < 0 ? 0 : k), target);
                        continue;
                }
                (void) fprintf(out, "%04o %u:%u", st.st_mode & 07777, st.st_uid, st.st_gid);
                if (S_ISDIR(st.st_mode)) {
                        (void) fputs(" directory\n", out);
                        if (depth > 1)
                                op_list(sub, depth - 1, below);
                } else if (!(st.st_mode & 0444) || strcmp(names->name[i], "request_count") == 0 ||
                           strcmp(names->name[i], "scans") == 0)
                        (void) putc('\n', out); /* what the host does by itself is counted, too */
                else
                        show_read(" ", sub);
        }
        free(names);
}

/* "cex4queue" or "-", and what the file status says. */
static void queue_of(const char *name, char driver[static 64], char status[static 64]) {
        char path[128], text[HOST_TEXT];
        const char *slash;
        ssize_t n;

        (void) snprintf(path, sizeof path, "bus/ap/devices/%s/driver", name);
        n = host_readlink(path, text, sizeof text - 1);
        if (n > 0)
                text[n] = 0;
        slash = n > 0 ? strrchr(text, '/') : NULL;
        (void) snprintf(driver, 64, "%.60s", slash ? slash + 1 : "-");
        (void) snprintf(path, sizeof path, "bus/ap/devices/%s/status", name);
        n = host_read(path, text, sizeof text).r;
        (void) snprintf(status, 64, "%.*s", n > 0 && n < 60 ? (int) n - 1 : 1, n > 0 ? text : "-");
}

static void op_queues(const char *prefix) {
        Names *names = names_of("bus/ap/devices");
        char driver[64], status[64];

        for (size_t i = 0; i < names->n; i++)
                if (strchr(names->name[i], '.') && strncmp(names->name[i], prefix, strlen(prefix)) == 0) {
                        queue_of(names->name[i], driver, status);
                        (void) fprintf(out, "\t%s %s %s\n", names->name[i], driver, status);
                }
        free(names);
}

static void op_mdevs(void) {
        Names *names = names_of("devices/vfio_ap/matrix");

        for (size_t i = 0; i < names->n; i++)
                if (strlen(names->name[i]) == 36)
                        (void) fprintf(out, "\t%s\n", names->name[i]);
        free(names);
}

static void op_state(const char *path) {
        static const char *const files[] = { "ap_config", "matrix", "guest_matrix", "control_domains" };
        char sub[256];

        for (size_t i = 0; i < 4; i++) {
                (void) snprintf(sub, sizeof sub, "%s/%s", path, files[i]);
                (void) fprintf(out, "\t%s:", files[i]);
                show_read(" ", sub);
        }
}

/* A mask without what it ends in; lines with commas between them. */
static void put_short(const char *path) {
        char text[HOST_TEXT];
        HostAnswer a = host_read(path, text, sizeof text);
        size_t n = a.r < 0 ? 0 : (size_t) a.r;

        if (a.r < 0) {
                (void) fputs(error_name(a.r), out);
                return;
        }
        if (n > 0 && text[n - 1] == '\n')
                n--;
        for (size_t i = 0; i < n;) {
                size_t same = 1;

                while (i + same < n && text[i + same] == text[i])
                        same++;
                if (same > 4)
                        (void) fprintf(out, "%c*%zu", text[i], same);
                else
                        for (size_t k = 0; k < same; k++)
                                (void) putc(text[i] == '\n' ? ' ' : text[i], out);
                i += same;
        }
}

static void put_files(const char *dir, const char *const *files) {
        char path[256];

        for (; *files; files++) {
                (void) snprintf(path, sizeof path, "%s/%s", dir, *files);
                (void) fprintf(out, " %s=", *files);
                put_short(path);
        }
        (void) putc('\n', out);
}

/* Everything, in few lines. */
static void op_observe(void) {
        static const char *const
                bus[] = { "apmask",    "aqmask", "ap_adapter_mask", "ap_usage_domain_mask", "bindings",
                          "ap_domain", NULL },
                *const card[] = { "type", "online", "config", "chkstop", NULL },
                *const mdev[] = { "ap_config", "matrix", "guest_matrix", "control_domains", NULL };
        Names *names = names_of("bus/ap/devices");
        char path[256], driver[64], status[64];

        (void) fputs("\tbus", out);
        put_files("bus/ap", bus);
        for (size_t i = 0; i < names->n; i++) {
                const char *name = names->name[i];

                if (!strchr(name, '.')) {
                        (void) snprintf(path, sizeof path, "devices/ap/%s", name);
                        (void) fprintf(out, "\t%s", name);
                        put_files(path, card);
                }
        }
        for (size_t i = 0; i < names->n; i++) {
                const char *name = names->name[i];

                if (!strchr(name, '.'))
                        continue;
                queue_of(name, driver, status);
                (void) snprintf(path, sizeof path, "bus/ap/devices/%s/driver_override", name);
                (void) fprintf(out, "\t%s %s %s ", name, driver, status);
                put_short(path);
                (void) putc('\n', out);
        }
        free(names);
        names = names_of("devices/vfio_ap/matrix");
        for (size_t i = 0; i < names->n; i++)
                if (strlen(names->name[i]) == 36) {
                        (void) snprintf(path, sizeof path, "devices/vfio_ap/matrix/%s", names->name[i]);
                        (void) fprintf(out, "\t%.8s", names->name[i]);
                        put_files(path, mdev);
                }
        free(names);
}

static void show_zeroized(unsigned adapter, unsigned domain, unsigned count) {
        (void) fprintf(out, "\t%02x.%04x %u\n", adapter, domain, count);
}

static void show_event(const char *text) {
        n_events++;
        if (events == EVENTS_FULL)
                (void) fprintf(out, "\tuevent %s\n", text);
        else if (events == EVENTS_DIGEST)
                for (const char *p = text;; p++) {
                        digest = (digest ^ (unsigned char) *p) * 16777619u;
                        if (!*p)
                                break;
                }
}

static void show_events(void) {
        n_events = 0;
        digest = 2166136261u;
        host_settle();
        host_events(show_event);
        if (events == EVENTS_DIGEST && n_events > 0)
                (void) fprintf(out, "\tuevents %u %08x\n", n_events, digest);
}

/* operations; a word that is not there is "" */

typedef struct Op {
        char *word[WORDS_MAX + 1];
        size_t n;
        const char *rest; /* all behind the first word */
} Op;

static void op_write(const Op *o) {
        char data[LINE_SIZE];
        size_t n = unescape(o->word[2], data);
        HostAnswer a = host_write(o->word[1], data, n);

        (void) putc('\t', out);
        put_result(&a);
        (void) putc('\n', out);
}

static unsigned slot_of(const Op *o) {
        unsigned slot = (unsigned) atoi(o->word[1]);

        if (slot >= HOST_SLOTS)
                play_wrong("there is no slot", o->word[1]);
        return slot;
}

static void op_held(const Op *o) {
        char data[LINE_SIZE], buf[HOST_TEXT];
        unsigned slot = slot_of(o);
        HostAnswer a = { .opened = true };

        if (strcmp(o->word[0], "open") == 0) {
                int flags = strcmp(o->word[3], "rw") == 0  ? O_RDWR
                            : strcmp(o->word[3], "w") == 0 ? O_WRONLY
                                                           : O_RDONLY;

                put_error(host_hold(slot, o->word[2], flags));
                return;
        }
        if (strcmp(o->word[0], "close") == 0) {
                host_hold_close(slot);
                return;
        }
        if (strcmp(o->word[0], "put") == 0)
                a.r = host_hold_write(slot, data, unescape(o->word[2], data));
        else
                a.r = host_hold_read(slot, buf, sizeof buf, strcmp(o->word[2], "again") == 0);
        (void) putc('\t', out);
        put_result(&a);
        if (strcmp(o->word[0], "get") == 0 && a.r > 0) {
                (void) putc(' ', out);
                put_escaped(buf, (size_t) a.r);
        }
        (void) putc('\n', out);
}

static void show_end(unsigned slot) {
        char buf[HOST_TEXT];
        size_t n;
        HostAnswer a = host_end(slot, buf, sizeof buf, &n);

        (void) putc('\t', out);
        put_result(&a);
        if (n > 0) {
                (void) putc(' ', out);
                put_escaped(buf, n);
        }
        (void) putc('\n', out);
}

static void op_start(const Op *o) {
        bool write = strcmp(o->word[2], "write") == 0;
        char data[LINE_SIZE], state;
        size_t n = write ? unescape(o->word[4], data) : 0;

        if (host_start(slot_of(o), write, o->word[3], data, n, &state))
                show_end(slot_of(o));
        else
                (void) fprintf(out, "\tblocked %c\n", state);
}

static void op_guest(const Op *o) {
        bool config = false, request = false;
        int r;

        if (strcmp(o->word[2], "events") == 0) {
                r = host_guest_events(o->word[1], &config, &request);
                if (r < 0)
                        put_error(r);
                else
                        (void) fprintf(out, "\t%s%s%s%s\n", config ? "config" : "",
                                       config && request ? " " : "", request ? "request" : "",
                                       config || request ? "" : "nothing");
                return;
        }
        put_error(host_guest(o->word[1], strcmp(o->word[2], "on") == 0));
}

static bool access_op(const Op *o) {
        const char *name = o->word[0];

        if (strcmp(name, "write") == 0)
                op_write(o);
        else if (strcmp(name, "read") == 0)
                for (size_t i = 1; i < o->n; i++)
                        show_read("\t", o->word[i]);
        else if (strcmp(name, "list") == 0)
                op_list(o->word[1], o->n > 2 ? atoi(o->word[2]) : 1, "");
        else if (strcmp(name, "queues") == 0)
                op_queues(o->word[1]);
        else if (strcmp(name, "mdevs") == 0)
                op_mdevs();
        else if (strcmp(name, "state") == 0)
                op_state(o->word[1]);
        else if (strcmp(name, "observe") == 0)
                op_observe();
        else if (strcmp(name, "zeroized") == 0)
                (void) host_zeroized(show_zeroized);
        else
                return false;
        return true;
}

static void perform(const Op *o) {
        const char *name = o->word[0];

        if (access_op(o))
                return;
        if (strcmp(name, "model") == 0)
                put_error(host_model(o->rest));
        else if (strcmp(name, "module") == 0)
                (void) fprintf(out, "\t%d\n", host_module(strcmp(o->word[1], "load") == 0));
        else if (strcmp(name, "guest") == 0)
                op_guest(o);
        else if (strcmp(name, "user") == 0)
                put_error(host_user((unsigned) atoi(o->word[1])));
        else if (strcmp(name, "chown") == 0)
                put_error(host_chown(o->word[1], (unsigned) atoi(o->word[2])));
        else if (strcmp(name, "open") == 0 || strcmp(name, "get") == 0 || strcmp(name, "put") == 0 ||
                 strcmp(name, "close") == 0)
                op_held(o);
        else if (strcmp(name, "start") == 0)
                op_start(o);
        else if (strcmp(name, "end") == 0)
                show_end(slot_of(o));
        else if (strcmp(name, "reset") == 0)
                play_reset();
        else
                play_wrong("there is no operation", name);
}

static void play_line(const char *line) {
        static char empty[1], text[LINE_SIZE];
        char *save = NULL;
        Op o = {};

        (void) fprintf(out, "%s\n", line);
        if (strncmp(line, "section", 7) == 0)
                return;
        expand(line, text, sizeof text);
        o.rest = text + strcspn(text, " ");
        o.rest += *o.rest == ' ';
        o.rest = strdup(o.rest);
        if (!o.rest)
                abort();
        for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
                if (o.n == WORDS_MAX)
                        play_wrong("too many words", line);
                o.word[o.n++] = w;
        }
        for (size_t i = o.n; i <= WORDS_MAX; i++)
                o.word[i] = empty;
        if (strcmp(o.word[0], "uevents") == 0)
                events = strcmp(o.word[1], "off") == 0      ? EVENTS_OFF
                         : strcmp(o.word[1], "digest") == 0 ? EVENTS_DIGEST
                                                            : EVENTS_FULL;
        else {
                operations++;
                perform(&o);
                show_events();
        }
        free((char *) o.rest);
}

static bool boot_line(const char *line, const char **ret_boot) {
        if (strcmp(line, "boot") != 0 && strncmp(line, "boot ", 5) != 0)
                return false;
        *ret_boot = line[4] ? line + 5 : "";
        return true;
}

/* The lines between two boots; all that are before the first one are comments. */
static int play_parts(char *script, int part, bool only_boots, char **arguments) {
        const char *boot;
        int at = -1, r = 0;

        for (char *line = script, *next; *line && r == 0; line = next) {
                next = line + strcspn(line, "\n");
                if (*next)
                        *next++ = 0;
                if (!*line || *line == '#')
                        continue;
                if (boot_line(line, &boot)) {
                        at++;
                        if (only_boots) {
                                (void) fprintf(out, "%s\n", boot);
                                continue;
                        }
                        if (part >= 0 && at != part)
                                continue;
                        if (part < 0 && at > 0)
                                host_finish();
                        (void) fprintf(out, "%s\n", line);
                        r = host_begin(arguments, boot);
                        events = EVENTS_FULL;
                } else if (at < 0)
                        play_wrong("a script begins with 'boot', not with", line);
                else if (!only_boots && (part < 0 || at == part))
                        play_line(line);
        }
        if (!only_boots && at >= 0)
                host_finish();
        return r;
}

static char *load(const char *name) {
        FILE *f = strcmp(name, "-") == 0 ? stdin : fopen(name, "re");
        char *text = NULL;
        size_t n = 0, size = 0;

        if (!f)
                play_wrong("cannot be opened", name);
        do {
                size = size ? size * 2 : 65536;
                text = realloc(text, size);
                if (!text)
                        abort();
                n += fread(text + n, 1, size - n - 1, f);
        } while (n == size - 1);
        text[n] = 0;
        (void) fclose(f);
        return text;
}

/* Both texts line by line; the operation that an answer belongs to is shown with it. */
static unsigned compare(const char *name, const char *got) {
        char *expected = load(name);
        const char *e = expected, *g = got, *operation = "";
        unsigned line = 0, differences = 0;

        while ((*e || *g) && differences < DIFFER_MAX) {
                size_t k = strcspn(e, "\n"), n = strcspn(g, "\n");

                line++;
                if (*g && *g != '\t')
                        operation = g;
                if (k != n || memcmp(e, g, n) != 0) {
                        differences++;
                        (void) printf("%s:%u: %.*s\n  expected %.*s\n  got      %.*s\n", name, line,
                                      (int) strcspn(operation, "\n"), operation, (int) k, e, (int) n, g);
                }
                e += k + (e[k] == '\n');
                g += n + (g[n] == '\n');
        }
        free(expected);
        return differences;
}

int main(int argc, char **argv) {
        const char *expect = NULL;
        bool only_boots = false;
        int part = -1, i = 1, r;
        char *script, *text = NULL;
        size_t size = 0;

        for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
                if (strcmp(argv[i], "--boots") == 0)
                        only_boots = true;
                else if (strncmp(argv[i], "--part=", 7) == 0)
                        part = atoi(argv[i] + 7);
                else if (strncmp(argv[i], "--expect=", 9) == 0)
                        expect = argv[i] + 9;
                else
                        play_wrong("there is no option", argv[i]);
        }
        if (i == argc)
                play_wrong("no script", argv[0]);
        script = load(argv[i]);
        if (expect && !argv[i + 1])
                play_wrong("no host", argv[i]);
        out = expect ? open_memstream(&text, &size) : stdout;
        if (!out)
                abort();
        r = play_parts(script, part, only_boots, argv + i + 1);
        (void) fflush(out);
        if (r == 0 && expect) {
                unsigned differences = compare(expect, text);

                (void) printf("contract %s: %u operations, 0 sequences, %u differences\n", argv[i + 1],
                              operations, differences);
                r = differences > 0;
        }
        free(script);
        return r;
}
