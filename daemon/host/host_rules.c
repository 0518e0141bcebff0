/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_rules.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "host/ap_lock.h"
#include "host/host_paths.h"

#define FILE_MAX  65536
#define FILE_NAME "41-ap.rules"

/* chzdev's lines; "%s" is a mask. */
static const char *const form[] = {
        "ACTION==\"add\", DEVPATH==\"/bus/ap\", ATTR{bindings_complete_count}!=\"0\", GOTO=\"cfg_ap\"",
        ("ACTION==\"change\", SUBSYSTEM==\"ap\", DEVPATH==\"/devices/ap\", ENV{BINDINGS}==\"complete\", "
         "ENV{COMPLETECOUNT}==\"1\", GOTO=\"cfg_ap\""),
        "GOTO=\"end_ap\"",
        "LABEL=\"cfg_ap\"",
        "ATTR{../../bus/ap/apmask}=\"%s\"",
        "ATTR{../../bus/ap/aqmask}=\"%s\"",
        "RUN{builtin}+=\"kmod load vfio_ap\"",
        "LABEL=\"end_ap\"",
};
#define FORM_LABEL  3
#define FORM_APMASK 4
#define FORM_AQMASK 5

void host_rules_clear(HostRules *r) {
        free(r->problem);
        *r = (HostRules) {};
}

/* ---- rules as udev reads them ---- */

/* KEY OPERATOR "VALUE": positions in the text. */
typedef struct Token {
        const char *key, *value;
        size_t n_key, n_value;
        bool assigns; /* =, := or +=; else it is compared */
} Token;

/* Behind the end of the line @p, which goes on behind a backslash. */
static const char *line_end(const char *p) {
        const char *end = p;

        if (p[strspn(p, " \t")] == '#') /* a comment never does */
                return p + strcspn(p, "\n") + (strchr(p, '\n') != NULL);
        do {
                end += strcspn(end, "\n");
                if (!*end)
                        return end;
                end++;
        } while (end - 2 >= p && end[-2] == '\\' && *end);
        return end;
}

static const char *skip_space(const char *p, const char *end) {
        while (p < end && (isspace((unsigned char) *p) || *p == ',' || *p == '\\'))
                p++;
        return p;
}

/* The next one from *p on, which is moved behind it; false: there is none, or what there is cannot be understood. */
static bool token_next(const char **p, const char *end, Token *ret) {
        const char *s = skip_space(*p, end);
        Token t = { .key = s };

        while (s < end && !strchr("=!+:\"\n \t", *s))
                s++;
        t.n_key = (size_t) (s - t.key);
        s = skip_space(s, end);
        if (t.n_key == 0 || s == end)
                return false;

        t.assigns = s[0] == '=' ? s[1] != '=' : s[0] == '+' || s[0] == ':';
        while (s < end && strchr("=!+:", *s))
                s++;
        s = skip_space(s, end);
        if (s + 1 < end && *s == 'e' && s[1] == '"')
                s++;
        if (s == end || *s++ != '"')
                return false;
        t.value = s;
        while (s < end && *s != '"')
                s += s[0] == '\\' && s[1] == '"' ? 2 : 1;
        if (s >= end)
                return false;

        t.n_value = (size_t) (s - t.value);
        *p = s + 1;
        *ret = t;
        return true;
}

static bool token_is(const Token *t, const char *key, const char *value) {
        return t->n_key == strlen(key) && memcmp(t->key, key, t->n_key) == 0 &&
               t->n_value == strlen(value) && memcmp(t->value, value, t->n_value) == 0;
}

/* ATTR{[some path/]NAME} */
static bool token_sets(const Token *t, const char *name) {
        size_t n = strlen(name);

        return t->assigns && t->n_key >= 6 + n && memcmp(t->key, "ATTR{", 5) == 0 &&
               t->key[t->n_key - 1] == '}' && memcmp(t->key + t->n_key - 1 - n, name, n) == 0 &&
               strchr("{/", t->key[t->n_key - 2 - n]);
}

static bool is_comment(const char *line) {
        return line[strspn(line, " \t")] == '#';
}

static bool is_blank(const char *line, const char *end) {
        return skip_space(line, end) == end;
}

static bool is_of_form(const char *line, const char *end) {
        size_t n = (size_t) (end - line);

        if (n > 0 && line[n - 1] == '\n')
                n--;
        for (size_t i = 0; i < ELEMENTS(form); i++) {
                Token t;

                if (i == FORM_APMASK || i == FORM_AQMASK) { /* whatever mask it is */
                        size_t k = strlen(form[i]) - 3;
                        const char *p = line;

                        if (n > k && memcmp(line, form[i], k) == 0 && token_next(&p, end, &t) &&
                            (size_t) (p - line) == n)
                                return true;
                } else if (n == strlen(form[i]) && memcmp(line, form[i], n) == 0)
                        return true;
        }
        return false;
}

static int take_mask(const Token *t, const char *name, bool *ret_has, ApMask *ret, char **ret_problem) {
        char value[AP_MASK_STRING_SIZE];

        *ret_has = false;
        if (t->n_value < sizeof value) {
                memcpy(value, t->value, t->n_value);
                value[t->n_value] = '\0';
                *ret_has = ap_mask_parse(value, ret) >= 0;
        }
        if (*ret_has || *ret_problem)
                return 0;
        return asprintf(ret_problem, "the value for %s is not a mask", name) < 0
                       ? (*ret_problem = NULL, -ENOMEM)
                       : 0;
}

int host_rules_parse(const char *text, HostRules *ret) {
        HostRules r = { .there = true };
        int k = 0;

        for (const char *line = text, *end; *line && k >= 0; line = end) {
                const char *p = line;
                Token t;

                end = line_end(line);
                if (is_blank(line, end))
                        continue;
                r.n_foreign += !is_of_form(line, end);
                while (!is_comment(line) && k >= 0 && token_next(&p, end, &t)) {
                        if (token_sets(&t, "apmask"))
                                k = take_mask(&t, "apmask", &r.has_apmask, &r.apmask, &r.problem);
                        else if (token_sets(&t, "aqmask"))
                                k = take_mask(&t, "aqmask", &r.has_aqmask, &r.aqmask, &r.problem);
                }
        }
        if (k < 0) {
                host_rules_clear(&r);
                return k;
        }

        *ret = r;
        return 0;
}

/* ---- editing ---- */

typedef struct Edit {
        FILE *f;
        const char *from; /* what is before it is written */
        char masks[2][AP_MASK_STRING_SIZE];
} Edit;

static void copy_until(Edit *e, const char *to) {
        (void) fwrite(e->from, 1, (size_t) (to - e->from), e->f);
        e->from = to;
}

static void put_form(Edit *e, size_t i) {
        if (i == FORM_APMASK || i == FORM_AQMASK)
                (void) fprintf(e->f, "%.*s%s\"\n", (int) strlen(form[i]) - 3, form[i],
                               e->masks[i - FORM_APMASK]);
        else
                (void) fprintf(e->f, "%s\n", form[i]);
}

/* Which masks are set, and whether there are labels of the form. */
typedef struct Found {
        bool set[2], label, end;
} Found;

static Found find(const char *text) {
        Found found = {};

        for (const char *line = text, *end; *line; line = end) {
                const char *p = line;
                Token t;

                end = line_end(line);
                while (!is_comment(line) && token_next(&p, end, &t)) {
                        found.set[0] |= token_sets(&t, "apmask");
                        found.set[1] |= token_sets(&t, "aqmask");
                        found.label |= token_is(&t, "LABEL", "cfg_ap");
                        found.end |= token_is(&t, "LABEL", "end_ap");
                }
        }
        return found;
}

/* Each value in its place. A mask that is missing goes behind the label of the form, or to the rule that sets the other
 * one, whose conditions it shares then. */
static void edit_masks(Edit *e, const char *text, const Found *found) {
        static const char *const names[] = { "apmask", "aqmask" };
        bool labelled = false;

        for (const char *line = text, *end; *line; line = end) {
                const char *p = line;
                bool is_label = false;
                Token t;

                end = line_end(line);
                while (!is_comment(line) && token_next(&p, end, &t)) {
                        is_label |= token_is(&t, "LABEL", "cfg_ap");
                        for (size_t i = 0; i < 2; i++) {
                                if (!token_sets(&t, names[i]))
                                        continue;
                                copy_until(e, t.value);
                                (void) fputs(e->masks[i], e->f);
                                e->from = t.value + t.n_value;
                                if (found->label || found->set[!i])
                                        continue;
                                copy_until(e, p);
                                (void) fprintf(e->f, ", %.*s%s}=\"%s\"", (int) t.n_key - 7, t.key, names[!i],
                                               e->masks[!i]);
                        }
                }
                if (!is_label || labelled)
                        continue;
                labelled = true;
                copy_until(e, end);
                if (end[-1] != '\n')
                        (void) fputc('\n', e->f);
                for (size_t i = 0; i < 2; i++)
                        if (!found->set[i])
                                put_form(e, FORM_APMASK + i);
        }
        copy_until(e, text + strlen(text));
}

int host_rules_edit(const char *text, const ApMask *apmask, const ApMask *aqmask, char **ret) {
        Found found = find(text ?: "");
        Edit e = { .from = text };
        char *new = NULL;
        size_t size;
        bool failed;

        if (!found.set[0] && !found.set[1] && !found.label && found.end)
                return -EEXIST;

        e.f = open_memstream(&new, &size);
        if (!e.f)
                return -ENOMEM;
        ap_mask_format(apmask, e.masks[0]);
        ap_mask_format(aqmask, e.masks[1]);

        if (found.set[0] || found.set[1] || found.label)
                edit_masks(&e, text, &found);
        else {
                if (text && *text) {
                        copy_until(&e, text + strlen(text));
                        if (e.from[-1] != '\n')
                                (void) fputc('\n', e.f);
                }
                for (size_t i = 0; i < ELEMENTS(form); i++)
                        put_form(&e, i);
        }

        failed = ferror(e.f);
        if (fclose(e.f) != 0 || failed) {
                free(new);
                return -ENOMEM;
        }
        *ret = new;
        return 0;
}

/* ---- the file ---- */

static const char *reason_of(int r) {
        switch (r) {
        case -ELOOP:
                return "it is a symbolic link";
        case -EBADMSG:
                return "it is no regular file";
        case -EFBIG:
                return "it is larger than 64 KiB";
        default:
                return strerror(-r);
        }
}

int host_rules_read(int root_fd, HostRules *ret, char **ret_text) {
        CLEANUP(freep)
        char *text = NULL;
        CLEANUP(fd_closep)
        int fd = -1;
        HostRules rules = {};
        size_t size = 0;
        int r;

        fd = openat(root_fd, HOST_PATH_RULES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = fd < 0 ? -errno : file_read_at(fd, FILE_NAME, FILE_MAX, &text, &size);
        if (r == -ENOMEM)
                return r;
        if (r < 0 && r != -ENOENT) {
                rules = (HostRules) { .there = true, .problem = strdup(reason_of(r)) };
                if (!rules.problem)
                        return -ENOMEM;
        } else if (r >= 0 && strlen(text) != size) {
                free(TAKE(text));
                rules = (HostRules) { .there = true, .problem = strdup("it has a NUL byte") };
                if (!rules.problem)
                        return -ENOMEM;
        } else if (r >= 0) {
                r = host_rules_parse(text, &rules);
                if (r < 0)
                        return r;
        }

        *ret = rules;
        if (ret_text)
                *ret_text = TAKE(text);
        return 0;
}

/* As the file was that it replaces, or as chzdev makes it. */
static mode_t mode_of(int dir_fd) {
        struct stat st;

        return fstatat(dir_fd, FILE_NAME, &st, AT_SYMLINK_NOFOLLOW) < 0 ? 0644 : st.st_mode & 07777;
}

static int write_new(int dir_fd, const char *name, const char *text) {
        CLEANUP(fd_closep)
        int fd = -1;
        int r;

        (void) unlinkat(dir_fd, name, 0); /* of one that died */
        fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;

        r = file_write_all(fd, text, strlen(text));
        if (r < 0)
                return r;
        if (fchmod(fd, mode_of(dir_fd)) < 0 || fsync(fd) < 0)
                return -errno;
        return ret_errno(close(TAKE_FD(fd)));
}

int host_rules_write(int root_fd, const char *text, HostRules *ret) {
        static const char temporary[] = "." FILE_NAME ".guestcrypt"; /* not *.rules: udev does not read it */
        CLEANUP(freep)
        char *read = NULL;
        CLEANUP(fd_closep)
        int fd = -1;
        HostRules rules = {};
        int r;

        fd = file_open_dir(root_fd, HOST_PATH_RULES);
        if (fd < 0)
                return fd;

        r = write_new(fd, temporary, text);
        if (r >= 0)
                r = ret_errno(renameat(fd, temporary, fd, FILE_NAME));
        if (r < 0) {
                (void) unlinkat(fd, temporary, 0);
                return r;
        }
        if (fsync(fd) < 0)
                return -errno;

        r = host_rules_read(root_fd, &rules, &read);
        if (r < 0)
                return r;
        if (!read || strcmp(read, text) != 0) {
                host_rules_clear(&rules);
                return -ESTALE;
        }
        *ret = rules;
        return 0;
}

static int persist(int root_fd, const ApMask *apmask, const ApMask *aqmask, bool dry_run, HostRules *ret,
                   char **ret_text, bool *ret_changed) {
        CLEANUP(host_rules_clear) HostRules rules = {};
        CLEANUP(freep) char *text = NULL, *new = NULL;
        bool changed;
        int r;

        r = host_rules_read(root_fd, &rules, &text);
        if (r < 0)
                return r;
        if (rules.there && !text) {
                *ret = rules;
                rules = (HostRules) {};
                return HOST_RULES_UNUSABLE;
        }
        r = host_rules_edit(text, apmask, aqmask, &new);
        if (r < 0)
                return r == -EEXIST ? HOST_RULES_FULL : r;

        changed = !text || strcmp(text, new) != 0;
        host_rules_clear(&rules);
        r = changed && !dry_run ? host_rules_write(root_fd, new, &rules) : host_rules_parse(new, &rules);
        if (r < 0)
                return r;

        *ret = rules;
        rules = (HostRules) {};
        *ret_text = TAKE(new);
        *ret_changed = changed;
        return 0;
}

int host_rules_persist(int root_fd, const ApMask *apmask, const ApMask *aqmask, bool dry_run, HostRules *ret,
                       char **ret_text, bool *ret_changed, pid_t *ret_holder) {
        CLEANUP(fd_closep)
        int lock_fd = -1;
        int r, k;

        if (dry_run)
                return persist(root_fd, apmask, aqmask, true, ret, ret_text, ret_changed);

        lock_fd = file_open_dir(root_fd, HOST_PATH_LOCK_DIR);
        if (lock_fd < 0)
                return lock_fd;
        r = ap_lock_try(lock_fd, getpid(), ret_holder);
        if (r != 0)
                return r < 0 ? r : HOST_RULES_LOCKED;
        r = persist(root_fd, apmask, aqmask, false, ret, ret_text, ret_changed);
        k = ap_lock_release(lock_fd, getpid());
        return r < 0 ? r : k < 0 ? k : r;
}
