/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* virt_drive PROGRAM URI DEADLINE-MS - virt_child for shell scripts: takes calls from standard input, a line each, and prints
 * what comes, a line each.
 *   attach-matrix GUEST MDEV NAME|- live|config    detach-matrix GUEST MDEV|- live|config
 *   attach-tpm GUEST NAME MODEL|- TPM-UUID         detach-tpm GUEST
 *   refresh GUEST     ping
 * GUEST is a UUID. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "virt/virt.h"

static const char *const verdicts[_VIRT_VERDICT_MAX] = { "done",        "no-such-guest", "refused",
                                                         "unsupported", "changed",       "libvirt",
                                                         "unavailable" };
static const char *const states[_VIRT_STATE_MAX] = { "unknown", "shutoff",  "running",
                                                     "paused",  "shutdown", "crashed" };
static Virt *virt;
static size_t calls;

static void print_wiring(const char *which, const VirtWiring *w) {
        char text[UUID_STRING_SIZE];

        printf(" %s[", which);
        for (size_t i = 0; i < w->n_mdevs; i++)
                printf(" mdev=%s", uuid_format(w->mdevs[i], text));
        if (w->matrix)
                printf(" matrix=%s", w->matrix);
        if (w->tpm)
                printf(" tpm=%s", w->tpm);
        if (w->tpm_model != TPM_MODEL_NONE)
                printf(" model=%s", tpm_model_name(w->tpm_model));
        for (char **p = w->problems; p && *p; p++)
                printf(" problem='%s'", *p);
        printf(" ]");
}

static void on_connection(void *userdata, bool up, const char *why) {
        printf("%s%s%s\n", up ? "up" : "down", why ? " " : "", why ?: "");
}

static void on_guest(void *userdata, const VirtGuest *g) {
        char text[UUID_STRING_SIZE];

        printf("guest %s %s %s", uuid_format(g->uuid, text), g->name, states[g->state]);
        if (g->persistent)
                print_wiring("config", &g->config);
        if (g->active)
                print_wiring("live", &g->live);
        if (g->lacks)
                printf(" lacks='%s'", g->lacks);
        printf("\n");
}

static void on_gone(void *userdata, Uuid id) {
        char text[UUID_STRING_SIZE];

        printf("gone %s\n", uuid_format(id, text));
}

static void on_listed(void *userdata) {
        printf("listed\n");
}

static void on_reboot(void *userdata, Uuid id) {
        char text[UUID_STRING_SIZE];

        printf("reboot %s\n", uuid_format(id, text));
}

static const VirtEvents events = { .connection = on_connection,
                                   .guest = on_guest,
                                   .gone = on_gone,
                                   .listed = on_listed,
                                   .reboot = on_reboot };

static void on_done(void *userdata, int r, const VirtOutcome *o) {
        printf("outcome %s%s%s%s%s%s%s: %s\n", verdicts[o->verdict], o->config_changed ? " config" : "",
               o->live_changed ? " live" : "", o->next_start ? " next-start" : "",
               o->unknown ? " unknown" : "", o->model != TPM_MODEL_NONE ? " " : "", tpm_model_name(o->model),
               o->text ?: "");
        calls--;
}

static int call(char *words[], size_t n) {
        VirtEdit edit = {};
        char device[160] = "", swtpm[160] = "";
        Uuid guest;

        if (n < 2 || uuid_parse(words[1], &guest) < 0)
                return -EINVAL;
        if (strcmp(words[0], "refresh") == 0)
                return virt->ops->refresh(virt, guest, on_done, NULL);
        if (strcmp(words[0], "attach-matrix") == 0 && n == 5 && uuid_parse(words[2], &edit.mdev) >= 0) {
                edit.matrix = strcmp(words[3], "-") == 0 ? NULL : words[3];
                edit.kind = VIRT_ATTACH_MATRIX;
        } else if (strcmp(words[0], "detach-matrix") == 0 && n == 4) {
                (void) uuid_parse(words[2], &edit.mdev);
                edit.kind = VIRT_DETACH_MATRIX;
        } else if (strcmp(words[0], "attach-tpm") == 0 && n == 5) {
                edit.kind = VIRT_ATTACH_TPM;
                edit.name = words[2];
                edit.model = strcmp(words[3], "-") == 0 ? TPM_MODEL_NONE : tpm_model_from_name(words[3]);
                (void) snprintf(device, sizeof device, VIRT_TPM_DIR "/%.40s/device.sock", words[4]);
                (void) snprintf(swtpm, sizeof swtpm, VIRT_TPM_DIR "/%.40s/swtpm.sock", words[4]);
                edit.socket =
                        edit.model == TPM_MODEL_NONE || edit.model == TPM_MODEL_VIRTIO ? device : swtpm;
        } else if (strcmp(words[0], "detach-tpm") == 0 && n == 2)
                edit.kind = VIRT_DETACH_TPM;
        else
                return -EINVAL;
        return virt->ops->edit(virt, guest, &edit, *swtpm ? swtpm : NULL, strcmp(words[n - 1], "live") == 0,
                               on_done, NULL);
}

static int on_stdin(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        static char buffer[4096];
        static size_t size;
        char *newline;
        ssize_t n;

        n = read(fd, buffer + size, sizeof buffer - size);
        if (n <= 0)
                return sd_event_exit(sd_event_source_get_event(source), 0);
        size += (size_t) n;
        while ((newline = memchr(buffer, '\n', size))) {
                size_t length = (size_t) (newline - buffer) + 1, n_words = 0;
                char *words[8], *state = NULL;
                int r;

                *newline = '\0';
                for (char *w = strtok_r(buffer, " ", &state); w && n_words < ELEMENTS(words);
                     w = strtok_r(NULL, " ", &state))
                        words[n_words++] = w;
                if (n_words == 1 && strcmp(words[0], "ping") == 0)
                        printf("pong\n");
                else {
                        r = call(words, n_words);
                        if (r < 0)
                                printf("error %s\n", strerror(-r));
                        else
                                calls++;
                }
                size -= length;
                memmove(buffer, newline + 1, size);
        }
        return 0;
}

int main(int argc, char *argv[]) {
        sd_event *event = NULL;
        int r;

        if (argc != 4)
                return EXIT_FAILURE;
        (void) setvbuf(stdout, NULL, _IOLBF, 0);
        r = sd_event_default(&event);
        if (r >= 0)
                r = sd_event_add_io(event, NULL, STDIN_FILENO, EPOLLIN, on_stdin, NULL);
        if (r >= 0)
                r = virt_child_new(event,
                                   &(VirtConfig) { .uri = argv[2],
                                                   .deadline_us = strtoull(argv[3], NULL, 10) * 1000 },
                                   argv[1], &events, NULL, &virt);
        if (r >= 0)
                r = sd_event_loop(event);
        virt = virt_free(virt);
        sd_event_unref(event);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
