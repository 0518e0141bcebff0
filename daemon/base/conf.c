/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/conf.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define CONF_FILE_MAX (64 * 1024)
#define USEC_PER_SEC  UINT64_C(1000000)

typedef enum KeyType { KEY_SECONDS, KEY_NUMBER, KEY_LOG_LEVEL, KEY_TEXT } KeyType;

static const struct {
        const char *name;
        KeyType type;
        size_t offset;
        unsigned long min, max; /* TEXT: bytes at most */
} keys[] = {
        { "RescanSec", KEY_SECONDS, offsetof(Conf, rescan_us), 1, 86400 },
        { "LockTimeoutSec", KEY_SECONDS, offsetof(Conf, lock_timeout_us), 1, 3600 },
        { "StepTimeoutSec", KEY_SECONDS, offsetof(Conf, step_timeout_us), 1, 3600 },
        { "ScanTimeoutSec", KEY_SECONDS, offsetof(Conf, scan_timeout_us), 1, 3600 },
        { "MaxMatrices", KEY_NUMBER, offsetof(Conf, max_matrices), 1, 65536 },
        { "MaxMatricesPerUser", KEY_NUMBER, offsetof(Conf, max_matrices_per_user), 0, 65536 },
        { "MaxCallsPerCaller", KEY_NUMBER, offsetof(Conf, max_calls_per_caller), 1, 65536 },
        { "LogLevel", KEY_LOG_LEVEL, offsetof(Conf, log_level), LOG_EMERG, LOG_DEBUG },
        { "LibvirtURI", KEY_TEXT, offsetof(Conf, libvirt_uri), 0, CONF_URI_MAX },
        { "TpmGroup", KEY_TEXT, offsetof(Conf, tpm_group), 0, CONF_GROUP_MAX },
        { "TpmUidBase", KEY_NUMBER, offsetof(Conf, tpm_uid_base), 1000, 4294000000 },
        { "MaxTpms", KEY_NUMBER, offsetof(Conf, max_tpms), 1, 65536 },
};

static const char *const log_levels[] = { "emerg",   "alert",  "crit", "err",
                                          "warning", "notice", "info", "debug" };

typedef struct Parser {
        Conf *conf;
        bool in_section;
        unsigned line;
        conf_warn_t warn;
        void *userdata;
} Parser;

static void warn(Parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void warn(Parser *p, const char *format, ...) {
        char text[256];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(text, sizeof text, format, ap);
        va_end(ap);

        p->warn(p->userdata, p->line, text);
}

static int parse_number(const char *s, unsigned long min, unsigned long max, unsigned long *ret) {
        unsigned long n;
        char *end;

        if (!isdigit((unsigned char) *s))
                return -EINVAL;

        errno = 0;
        n = strtoul(s, &end, 10);
        if (*end || errno != 0 || n < min || n > max)
                return -EINVAL;

        *ret = n;
        return 0;
}

static int parse_value(size_t key, const char *s, unsigned long *ret) {
        if (keys[key].type == KEY_LOG_LEVEL)
                for (size_t i = 0; i < ELEMENTS(log_levels); i++)
                        if (strcmp(log_levels[i], s) == 0) {
                                *ret = i;
                                return 0;
                        }

        return parse_number(s, keys[key].min, keys[key].max, ret);
}

static void set_value(Conf *c, size_t key, const void *value_of_type) {
        static const size_t sizes[] = { [KEY_SECONDS] = sizeof(uint64_t),
                                        [KEY_NUMBER] = sizeof(unsigned),
                                        [KEY_LOG_LEVEL] = sizeof(int) };

        memcpy((char *) c + keys[key].offset, value_of_type,
               keys[key].type == KEY_TEXT ? keys[key].max + 1 : sizes[keys[key].type]);
}

static void assign_text(Parser *p, size_t key, const char *s) {
        char text[CONF_URI_MAX + 1] = "";
        bool ok = strlen(s) <= keys[key].max;

        static_assert(CONF_GROUP_MAX <= CONF_URI_MAX, "all of them fit");
        for (const char *c = s; *c; c++)
                ok &= !iscntrl((unsigned char) *c) && !isspace((unsigned char) *c);
        if (!ok) {
                warn(p, "%s=%s is too long, or has spaces, ignoring", keys[key].name, s);
                return;
        }
        memcpy(text, s, strlen(s));
        set_value(p->conf, key, text);
}

static void assign(Parser *p, size_t key, const char *s) {
        const Conf defaults = CONF_DEFAULT;
        unsigned long n;

        if (!*s) {
                set_value(p->conf, key, (const char *) &defaults + keys[key].offset);
                return;
        }

        if (keys[key].type == KEY_TEXT) {
                assign_text(p, key, s);
                return;
        }
        if (parse_value(key, s, &n) < 0) {
                if (keys[key].type == KEY_LOG_LEVEL)
                        warn(p, "'%s' is no log level, ignoring", s);
                else
                        warn(p, "%s=%s is no number from %lu to %lu, ignoring", keys[key].name, s,
                             keys[key].min, keys[key].max);
                return;
        }

        switch (keys[key].type) {
        case KEY_SECONDS:
                set_value(p->conf, key, &(uint64_t) { n * USEC_PER_SEC });
                break;
        case KEY_NUMBER:
                set_value(p->conf, key, &(unsigned) { (unsigned) n });
                break;
        case KEY_LOG_LEVEL:
                set_value(p->conf, key, &(int) { (int) n });
                break;
        case KEY_TEXT:
                break;
        }
}

static char *strip(char *s) {
        char *end;

        while (isspace((unsigned char) *s))
                s++;
        for (end = s + strlen(s); end > s && isspace((unsigned char) end[-1]);)
                end--;
        *end = '\0';

        return s;
}

static void parse_line(Parser *p, char *line) {
        char *name = strip(line), *equals;

        if (!*name || *name == '#' || *name == ';')
                return;

        if (*name == '[') {
                p->in_section = strcmp(name, "[Manager]") == 0;
                if (!p->in_section)
                        warn(p, "unknown section '%s', ignoring it", name);
                return;
        }

        equals = strchr(name, '=');
        if (!equals) {
                warn(p, "'%s' is no assignment, ignoring", name);
                return;
        }
        *equals = '\0';
        name = strip(name);

        if (!p->in_section) {
                warn(p, "'%s' is not in section [Manager], ignoring", name);
                return;
        }

        for (size_t i = 0; i < ELEMENTS(keys); i++)
                if (strcmp(keys[i].name, name) == 0) {
                        assign(p, i, strip(equals + 1));
                        return;
                }

        warn(p, "unknown key '%s', ignoring", name);
}

void conf_parse(const char *text, Conf *c, conf_warn_t warn_cb, void *userdata) {
        Parser p = { .conf = c, .warn = warn_cb, .userdata = userdata };
        char line[512];

        while (*text) {
                size_t n = strcspn(text, "\n");

                p.line++;
                if (n < sizeof line) {
                        memcpy(line, text, n);
                        line[n] = '\0';
                        parse_line(&p, line);
                } else
                        warn(&p, "a line of more than %zu bytes, ignoring", sizeof line - 1);

                text += n;
                text += *text == '\n';
        }
}

/* ---- files ---- */

static void log_warn(void *userdata, unsigned line, const char *text) {
        log_warning("'%s' line %u: %s", (const char *) userdata, line, text);
}

static int load_file(int dir_fd, const char *name, Conf *c) {
        CLEANUP(freep) char *text = NULL;
        size_t size;
        int r;

        r = file_read_at(dir_fd, name, CONF_FILE_MAX, &text, &size);
        if (r == -ENOMEM)
                return r;
        if (r == -ENOENT || r == -ENOTDIR)
                return 0;
        if (r < 0) {
                log_warning("Cannot read '%s': %s, ignoring", name,
                            r == -EBADMSG || r == -ELOOP ? "it is no regular file" : strerror(-r));
                return 0;
        }
        if (strlen(text) != size)
                log_warning("'%s' has a NUL byte, ignoring what follows it", name);

        conf_parse(text, c, log_warn, (void *) name);
        return 0;
}

static int is_conf(const struct dirent *d) {
        size_t n = strlen(d->d_name);

        return d->d_name[0] != '.' && n > 5 && strcmp(d->d_name + n - 5, ".conf") == 0;
}

static int compare_names(const struct dirent **a, const struct dirent **b) {
        return strcmp((*a)->d_name, (*b)->d_name); /* not by locale */
}

static int load_directory(int root_fd, const char *path, Conf *c) {
        CLEANUP(fd_closep) int fd = -1;
        struct dirent **entries;
        int n, r = 0;

        fd = openat(root_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) {
                if (errno != ENOENT)
                        log_warning("Cannot read '%s': %s, ignoring", path, strerror(errno));
                return 0;
        }

        n = scandirat(fd, ".", &entries, is_conf, compare_names);
        if (n < 0)
                return errno == ENOMEM ? -ENOMEM : 0;

        for (int i = 0; i < n; i++) {
                if (r >= 0)
                        r = load_file(fd, entries[i]->d_name, c);
                free(entries[i]);
        }
        free(entries);

        return r;
}

int conf_load(int root_fd, const char *path, Conf *ret) {
        CLEANUP(freep) char *directory = NULL;
        Conf c = CONF_DEFAULT;
        int r;

        while (*path == '/')
                path++;
        if (asprintf(&directory, "%s.d", path) < 0) {
                directory = NULL;
                return -ENOMEM;
        }

        r = load_file(root_fd, path, &c);
        if (r < 0)
                return r;
        r = load_directory(root_fd, directory, &c);
        if (r < 0)
                return r;

        *ret = c;
        return 0;
}
