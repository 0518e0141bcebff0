/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What each of the domain XMLs in a directory says of us, and what becomes of it: NAME.out beside NAME.xml has what is read,
 * the outcome of each edit and the lines that it changes. bad-* are refused; in ours-* something of ours stands
 * already. In all others, whatever is attached and then detached, in any order, leaves the document as it was.
 * REGENERATE=1 in the environment rewrites the .out files; with a second directory, each attached form is written there. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "virt/virt_xml.h"

#define FILE_MAX (1024 * 1024)
#define TPM      VIRT_TPM_DIR "/0d5f1c5e-33f1-4c4e-9b0e-1d7a6f0c2b11/"

static const VirtEdit attachments[] = {
        { .kind = VIRT_ATTACH_MATRIX, .matrix = "payments" },
        { .kind = VIRT_ATTACH_MATRIX },
        { .kind = VIRT_ATTACH_TPM,
          .model = TPM_MODEL_VIRTIO,
          .name = "payments-1",
          .socket = TPM "device.sock" },
        { .kind = VIRT_ATTACH_TPM,
          .model = TPM_MODEL_CRB,
          .name = "payments-1",
          .socket = TPM "swtpm.sock" },
        { .kind = VIRT_ATTACH_TPM,
          .model = TPM_MODEL_TIS,
          .name = "payments-1",
          .socket = TPM "swtpm.sock" },
};
static const char *const names[ELEMENTS(attachments)] = { "matrix payments", "matrix", "tpm virtio",
                                                          "tpm crb", "tpm tis" };
static const char *const files[ELEMENTS(attachments)] = { "matrix-named", "matrix", "virtio", "crb", "tis" };
static const char *const verdicts[_VIRT_EDIT_VERDICT_MAX] = { "done", "same", "other", "cannot" };

static Uuid mdev;

static VirtEdit attachment(size_t i) {
        VirtEdit edit = attachments[i];

        edit.mdev = mdev;
        return edit;
}

static VirtEdit detachment(size_t i) {
        return (VirtEdit) { .kind = attachments[i].kind == VIRT_ATTACH_TPM ? VIRT_DETACH_TPM
                                                                           : VIRT_DETACH_MATRIX,
                            .mdev = mdev };
}

static void print_wiring(FILE *f, const VirtWiring *w) {
        char text[UUID_STRING_SIZE];

        fprintf(f, "name '%s' uuid %s arch '%s' type '%s' machine '%s' emulator '%s'\n", w->name,
                uuid_format(w->uuid, text), w->arch, w->type, w->machine, w->emulator);
        for (size_t i = 0; i < w->n_mdevs; i++)
                fprintf(f, "mdev %s\n", uuid_format(w->mdevs[i], text));
        if (w->matrix)
                fprintf(f, "matrix '%s'\n", w->matrix);
        if (w->tpm)
                fprintf(f, "tpm '%s' wish '%s'\n", w->tpm, tpm_model_name(w->tpm_wish));
        if (w->tpm_model != TPM_MODEL_NONE)
                fprintf(f, "wired %s %s\n", tpm_model_name(w->tpm_model), w->tpm_socket);
        if (w->foreign_tpm)
                fprintf(f, "foreign tpm\n");
        for (char **p = w->problems; p && *p; p++)
                fprintf(f, "problem: %s\n", *p);
}

static size_t line_size(const char *p) {
        const char *newline = strchr(p, '\n');

        return newline ? (size_t) (newline - p) + 1 : strlen(p);
}

static bool same_line(const char *a, const char *b) {
        return line_size(a) == line_size(b) && memcmp(a, b, line_size(a)) == 0;
}

static void print_line(FILE *f, char sign, const char *line) {
        size_t n = line_size(line);
        bool newline = n > 0 && line[n - 1] == '\n';

        n -= newline;
        if (n > 0 && line[n - 1] == '\r')
                fprintf(f, "  %c %.*s\\r\n", sign, (int) n - 1, line);
        else
                fprintf(f, "  %c %.*s\n", sign, (int) n, line);
}

/* Enough of a diff for lines that are put between others. */
static void print_changes(FILE *f, const char *old, const char *new) {
        while (*old || *new) {
                const char *found = new;

                if (*old && *new &&same_line(old, new)) {
                        old += line_size(old);
                        new += line_size(new);
                        continue;
                }
                while (*found && (!*old || !same_line(old, found)))
                        found += line_size(found);
                if (*old && !*found) {
                        print_line(f, '-', old);
                        old += line_size(old);
                        continue;
                }
                for (; new < found; new += line_size(new))
                        print_line(f, '+', new);
        }
}

/* -1: something is wrong; else the VirtEditVerdict. */
static int edit_text(const char *name, const char *xml, size_t size, const VirtEdit *edit, char **ret,
                     char **ret_text) {
        int r;

        r = virt_xml_edit(xml, size, edit, ret, ret_text);
        if (r < 0 || (r == VIRT_EDIT_DONE) != !!*ret ||
            (r == VIRT_EDIT_OTHER || r == VIRT_EDIT_CANNOT) != !!*ret_text) {
                fprintf(stderr, "%s: edit %d gives %d\n", name, (int) edit->kind, r);
                return -1;
        }
        return r;
}

static bool edit_is(const char *name, const char *xml, const VirtEdit *edit, int wanted, char **ret) {
        CLEANUP(freep) char *text = NULL;
        int r;

        r = edit_text(name, xml, strlen(xml), edit, ret, &text);
        if (r != wanted)
                fprintf(stderr, "%s: edit %d gives %d (%s), not %d\n%s\n", name, (int) edit->kind, r,
                        text ?: "", wanted, xml);
        return r == wanted;
}

static bool shows(const char *xml, const VirtEdit *edit) {
        CLEANUP(virt_wiring_clear) VirtWiring w = {};
        CLEANUP(freep) char *text = NULL;

        if (virt_xml_read(xml, strlen(xml), &w, &text) < 0) {
                fprintf(stderr, "%s\n%s\n", text, xml);
                return false;
        }
        if (edit->kind == VIRT_ATTACH_MATRIX)
                return w.n_mdevs == 1 && uuid_equal(w.mdevs[0], edit->mdev) &&
                       (!edit->matrix || (w.matrix && strcmp(w.matrix, edit->matrix) == 0));
        return w.tpm_model == edit->model && w.tpm_socket && strcmp(w.tpm_socket, edit->socket) == 0 &&
               w.tpm && strcmp(w.tpm, edit->name) == 0;
}

static bool came_back(const char *name, const char *what, const char *xml, const char *back) {
        if (strcmp(xml, back) == 0)
                return true;
        fprintf(stderr, "%s: %s does not come back:\n%s\n", name, what, back);
        return false;
}

/* @j is attached beside @i; both are taken away in both orders. */
static bool check_pair(const char *name, const char *xml, const char *attached, size_t i, size_t j) {
        const VirtEdit second = attachment(j), without[] = { detachment(i), detachment(j) };
        CLEANUP(freep) char *both = NULL, *refused = NULL;
        int r;

        if (attachments[i].kind == attachments[j].kind)
                return true;
        r = edit_text(name, attached, strlen(attached), &second, &both, &refused);
        if (r == VIRT_EDIT_CANNOT || r == VIRT_EDIT_OTHER)
                return true;
        if (r < 0)
                return false;
        for (size_t first = 0; first < 2; first++) {
                CLEANUP(freep) char *half = NULL, *back = NULL;

                if (!edit_is(name, both, &without[first], VIRT_EDIT_DONE, &half) ||
                    !edit_is(name, half, &without[!first], VIRT_EDIT_DONE, &back) ||
                    !came_back(name, "with both", xml, back))
                        return false;
        }
        return true;
}

static bool check_attached(const char *name, const char *xml, const char *attached, size_t i, bool ours) {
        const VirtEdit attach = attachment(i), detach = detachment(i);
        CLEANUP(freep) char *same = NULL, *back = NULL, *again = NULL, *nothing = NULL;

        if (!shows(attached, &attach) || !edit_is(name, attached, &attach, VIRT_EDIT_SAME, &same) ||
            !edit_is(name, attached, &detach, VIRT_EDIT_DONE, &back) ||
            !edit_is(name, back, &detach, VIRT_EDIT_SAME, &nothing))
                return false;
        if (ours)
                return true;

        if (!came_back(name, names[i], xml, back) || !edit_is(name, back, &attach, VIRT_EDIT_DONE, &again) ||
            strcmp(attached, again) != 0)
                return false;
        for (size_t j = 0; j < ELEMENTS(attachments); j++)
                if (!check_pair(name, xml, attached, i, j))
                        return false;
        return true;
}

static bool check_edits(FILE *f, const char *name, const char *xml, size_t size, const char *directory) {
        bool ours = strncmp(name, "ours-", 5) == 0;

        for (size_t i = 0; i < ELEMENTS(attachments); i++) {
                CLEANUP(freep) char *attached = NULL, *text = NULL, *path = NULL;
                const VirtEdit edit = attachment(i);
                int r;

                r = edit_text(name, xml, size, &edit, &attached, &text);
                if (r < 0)
                        return false;
                fprintf(f, "%s: %s%s%s\n", names[i], verdicts[r], text ? ": " : "", text ?: "");
                if (r != VIRT_EDIT_DONE)
                        continue;
                print_changes(f, xml, attached);
                if (!check_attached(name, xml, attached, i, ours)) {
                        fprintf(stderr, "%s: %s is wrong\n", name, names[i]);
                        return false;
                }
                if (directory) {
                        if (asprintf(&path, "%s/%.*s-%s.xml", directory, (int) strlen(name) - 4, name,
                                     files[i]) < 0 ||
                            file_write_synced(AT_FDCWD, path, attached, strlen(attached)) < 0)
                                return false;
                }
        }
        for (size_t i = 1; i < 3; i++) {
                const VirtEdit edit = detachment(i);
                CLEANUP(freep) char *detached = NULL, *text = NULL;
                int r;

                r = edit_text(name, xml, size, &edit, &detached, &text);
                if (r < 0)
                        return false;
                fprintf(f, "detach %s: %s\n", i == 1 ? "matrix" : "tpm", verdicts[r]);
                if (r == VIRT_EDIT_DONE)
                        print_changes(f, xml, detached);
                if (!ours && strcmp(name, "live.xml") != 0 && r != VIRT_EDIT_SAME)
                        return false;
        }
        return true;
}

static bool outcome_of(const char *name, const char *xml, size_t size, const char *directory, char **ret) {
        CLEANUP(virt_wiring_clear) VirtWiring w = {}, copy = {};
        CLEANUP(freep) char *error = NULL;
        bool good = true;
        size_t n;
        FILE *f = open_memstream(ret, &n);
        int r;

        if (!f)
                return false;
        r = virt_xml_read(xml, size, &w, &error);
        if (r == -EBADMSG) {
                char *p = strstr(error, "not well-formed:");

                if (p) /* the rest is libxml2's, of the day */
                        p[strlen("not well-formed")] = '\0';
                fprintf(f, "error: %s\n", error);
        } else if (r < 0 || virt_wiring_copy(&w, &copy) < 0)
                good = false;
        else {
                print_wiring(f, &copy);
                good = check_edits(f, name, xml, size, directory);
        }
        if (good && (r < 0) != (strncmp(name, "bad-", 4) == 0)) {
                fprintf(stderr, "%s: %s\n", name, r < 0 ? error : "accepted");
                good = false;
        }
        return fclose(f) == 0 && good;
}

static bool check(int dir_fd, const char *name, bool regenerate, const char *directory) {
        CLEANUP(freep) char *xml = NULL, *out = NULL, *wanted = NULL, *out_name = NULL;
        size_t size;

        if (file_read_at(dir_fd, name, FILE_MAX, &xml, &size) < 0 ||
            asprintf(&out_name, "%.*s.out", (int) strlen(name) - 4, name) < 0) {
                fprintf(stderr, "%s: cannot be read\n", name);
                return false;
        }
        if (!outcome_of(name, xml, size, directory, &out))
                return false;
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
        CLEANUP(closedirp) DIR *dir = argc >= 2 ? opendir(argv[1]) : NULL;
        unsigned n = 0, n_failed = 0;
        struct dirent *entry;

        if (!dir || uuid_parse("669d9b23-fe1b-4ecb-be08-a2fabca99b71", &mdev) < 0)
                return EXIT_FAILURE;

        while ((entry = readdir(dir))) {
                size_t size = strlen(entry->d_name);

                if (size < 4 || strcmp(entry->d_name + size - 4, ".xml") != 0)
                        continue;
                n++;
                n_failed += !check(dirfd(dir), entry->d_name, regenerate, argc > 2 ? argv[2] : NULL);
        }

        printf("%u files, %u wrong\n", n, n_failed);
        return n > 0 && n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
