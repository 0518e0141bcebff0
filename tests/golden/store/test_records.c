/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What each of the XML files in a directory reads as: NAME.out beside NAME.xml has the stored form, or
 * "error: " and the text. good-* and foreign-* are accepted, bad-* refused. REGENERATE=1 in the environment
 * rewrites the .out files. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "store/store.h"

#define FILE_MAX (1024 * 1024)

static int outcome_of(const char *xml, size_t size, char **ret, bool *ret_accepted) {
        CLEANUP(record_clear) Record record = {};
        CLEANUP(freep) char *error = NULL;
        int r;

        r = record_from_xml(xml, size, &record, &error);
        if (r == -EBADMSG && strstr(error, "not well-formed:")) /* the rest is libxml2's, of the day */
                strstr(error, "not well-formed:")[strlen("not well-formed")] = '\0';
        if (r == -EBADMSG)
                r = asprintf(ret, "error: %s\n", error) < 0 ? -ENOMEM : 0;
        else if (r >= 0) {
                r = record_to_xml(&record, ret);
                *ret_accepted = true;
        }
        return r;
}

/* What is written is read back, and written the same. */
static bool is_stable(const char *xml) {
        CLEANUP(freep) char *again = NULL;
        bool accepted = false;

        return outcome_of(xml, strlen(xml), &again, &accepted) >= 0 && accepted && strcmp(xml, again) == 0;
}

static bool check(int dir_fd, const char *name, bool regenerate) {
        CLEANUP(freep) char *xml = NULL, *out = NULL, *wanted = NULL, *out_name = NULL;
        bool accepted = false;
        size_t size;

        if (file_read_at(dir_fd, name, FILE_MAX, &xml, &size) < 0 ||
            outcome_of(xml, size, &out, &accepted) < 0 ||
            asprintf(&out_name, "%.*s.out", (int) strlen(name) - 4, name) < 0) {
                fprintf(stderr, "%s: cannot be read\n", name);
                return false;
        }

        if (accepted != (strncmp(name, "bad-", 4) != 0)) {
                fprintf(stderr, "%s: %s\n%s", name, accepted ? "accepted" : "refused", out);
                return false;
        }
        if (accepted && !is_stable(out)) {
                fprintf(stderr, "%s: what is written is not what is read\n%s", name, out);
                return false;
        }
        if (regenerate)
                return file_write_synced(dir_fd, out_name, out, strlen(out)) >= 0;
        if (file_read_at(dir_fd, out_name, FILE_MAX, &wanted, NULL) < 0 || strcmp(wanted, out) != 0) {
                fprintf(stderr, "%s: expected\n%s\nbut it is\n%s", name, wanted ?: "(no file)\n", out);
                return false;
        }
        return true;
}

int main(int argc, char *argv[]) {
        bool regenerate = getenv("REGENERATE") && strcmp(getenv("REGENERATE"), "1") == 0;
        CLEANUP(closedirp) DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
        unsigned n = 0, n_failed = 0;
        struct dirent *entry;

        if (!dir)
                return EXIT_FAILURE;

        while ((entry = readdir(dir))) {
                size_t size = strlen(entry->d_name);

                if (size < 4 || strcmp(entry->d_name + size - 4, ".xml") != 0)
                        continue;
                n++;
                n_failed += !check(dirfd(dir), entry->d_name, regenerate);
        }

        printf("%u files, %u wrong\n", n, n_failed);
        return n > 0 && n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
