/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int max_priority = LOG_INFO;

void report_set_max(int priority) {
        max_priority = priority;
}

void report(int priority, const char *format, ...) {
        static unsigned n_lines, n_left_out;
        static time_t since;
        char line[512], text[600];
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

        /* one write, no stdio buffer: there is nothing to flush and nothing to share */
        n = n_left_out > 0 ? snprintf(text, sizeof text, "<%d>%s (%u lines left out before)\n", priority,
                                      line, n_left_out)
                           : snprintf(text, sizeof text, "<%d>%s\n", priority, line);
        if (n > 0 && write(STDERR_FILENO, text, (size_t) n) == n)
                n_left_out = 0;
        errno = saved;
}
