/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>

#define LOG_LINE_MAX 2048

static int max_priority = LOG_INFO;

void log_set_max(int priority) {
        max_priority = priority;
}

/* Whether stderr is the stream that systemd connected to the journal ($JOURNAL_STREAM, systemd.exec(5)). */
static bool to_journal(void) {
        static int known = -1;
        unsigned long long dev, ino;
        const char *e;
        struct stat st;

        if (known < 0) {
                e = getenv("JOURNAL_STREAM");
                known = e && sscanf(e, "%llu:%llu", &dev, &ino) == 2 && fstat(2, &st) == 0 &&
                        st.st_dev == dev && st.st_ino == ino;
        }

        return known;
}

void log_full(int priority, const char *id, const char *matrix, const char *format, ...) {
        char line[LOG_LINE_MAX];
        int saved = errno;
        va_list ap;

        if (priority > max_priority)
                return;

        va_start(ap, format);
        (void) vsnprintf(line, sizeof line, format, ap);
        va_end(ap);

        if (to_journal())
                (void) sd_journal_send("MESSAGE=%s", line, "PRIORITY=%d", priority, "SYSLOG_IDENTIFIER=%s",
                                       program_invocation_short_name,
                                       id ? "MESSAGE_ID=%s" : "GUESTCRYPT_ID=%s", id ? id : "none",
                                       "MATRIX=%s", matrix ? matrix : "", NULL);
        else
                (void) fprintf(stderr, "%s: %s\n", program_invocation_short_name, line);

        errno = saved;
}
