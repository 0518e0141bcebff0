/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int max_priority = LOG_INFO;

void report_set_max(int priority) {
        max_priority = priority;
}

/* Whether stderr is what systemd has connected to the journal (systemd.exec(5)), which wants the priority; people do not. */
static bool to_journal(void) {
        const char *e = getenv("JOURNAL_STREAM");
        unsigned long long dev, ino;
        struct stat st;

        return e && sscanf(e, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
               st.st_dev == dev && st.st_ino == ino;
}

void report(int priority, const char *format, ...) {
        static unsigned n_lines, n_left_out;
        static time_t since;
        char line[512], text[600], prefix[32], left_out[40] = "";
        int saved = errno, n;
        struct timespec now;
        va_list ap;

        if (priority > max_priority)
                return;

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - since >= REPORT_SECONDS || n_lines == 0) {
                since = now.tv_sec;
                n_lines = 0;
        }
        if (n_lines >= REPORT_BURST) {
                n_left_out++;
                return;
        }
        n_lines++;

        va_start(ap, format);
        (void) vsnprintf(line, sizeof line, format, ap);
        va_end(ap);

        if (to_journal())
                (void) snprintf(prefix, sizeof prefix, "<%d>", priority);
        else
                (void) snprintf(prefix, sizeof prefix, "guestcrypt-tpm[%d]: ", (int) getpid());
        if (n_left_out > 0)
                (void) snprintf(left_out, sizeof left_out, " (%u lines left out before)", n_left_out);

        /* one write, no stdio buffer: there is nothing to flush and nothing to share */
        n = snprintf(text, sizeof text, "%s%s%s\n", prefix, line, left_out);
        if (n > 0 && write(STDERR_FILENO, text, (size_t) n) == n)
                n_left_out = 0;
        errno = saved;
}
