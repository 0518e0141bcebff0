/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who names what: the guests that libvirt's XML, its metadata or a hold gives an mdev or a TPM, in indexes that are made anew once
 * something may be different. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/engine_guest_internal.h"

const VirtWiring *guest_wiring(const Guest *g) {
        return g->persistent || !g->active ? &g->config : &g->live;
}

static bool has_uuid(const Uuid *list, size_t n, Uuid uuid) {
        for (size_t i = 0; i < n; i++)
                if (uuid_equal(list[i], uuid))
                        return true;
        return false;
}

bool guest_wiring_has(const VirtWiring *w, Uuid mdev) {
        return has_uuid(w->mdevs, w->n_mdevs, mdev);
}

Matrix *guest_declared_matrix(Engine *e, const char *name) {
        Matrix *m = state_find_name(e, name);
        Uuid uuid;

        if (!m && uuid_parse(name, &uuid) >= 0)
                m = state_find(e, uuid);
        return m && m->visible ? m : NULL;
}

int guest_declared_tpm(Engine *e, const char *name, Uuid *ret) {
        Vtpm *v = e->guests->vtpm;

        return v ? v->ops->find(v, name, ret) : -ENOENT;
}

int guest_socket_tpm(const char *socket, Uuid *ret) {
        char text[UUID_STRING_SIZE];

        if (!socket || strncmp(socket, VIRT_TPM_DIR "/", strlen(VIRT_TPM_DIR "/")) != 0)
                return -ENOENT;
        socket += strlen(VIRT_TPM_DIR "/");
        if (strnlen(socket, UUID_STRING_SIZE) < UUID_STRING_SIZE || socket[UUID_STRING_SIZE - 1] != '/')
                return -ENOENT;
        memcpy(text, socket, UUID_STRING_SIZE - 1);
        text[UUID_STRING_SIZE - 1] = '\0';
        return uuid_parse(text, ret) < 0 ? -ENOENT : 0;
}

const char *guest_mdev_name(const Engine *e, Uuid mdev, char buf[static UUID_STRING_SIZE]) {
        const Matrix *m = state_find(e, mdev);

        return m ? m->rec.name : uuid_format(mdev, buf);
}

static int refs_add(GuestRefs *refs, Uuid what, Guest *g) {
        if (uuid_is_null(what))
                return 0;
        if (refs->n == refs->allocated) {
                size_t n = refs->allocated * 2 + 64;
                GuestRef *grown = reallocarray(refs->list, n, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                refs->list = grown;
                refs->allocated = n;
        }
        refs->list[refs->n++] = (GuestRef) { .what = what, .guest = g };
        return 0;
}

static int compare_refs(const void *a, const void *b) {
        const GuestRef *x = a, *y = b;
        int r = uuid_compare(x->what, y->what);

        return r != 0 ? r : uuid_compare(x->guest->uuid, y->guest->uuid);
}

/* In order, each once. */
static void refs_sort(GuestRefs *refs) {
        size_t n = 0;

        if (refs->n > 0)
                qsort(refs->list, refs->n, sizeof *refs->list, compare_refs);
        for (size_t i = 0; i < refs->n; i++)
                if (n == 0 || compare_refs(&refs->list[n - 1], &refs->list[i]) != 0)
                        refs->list[n++] = refs->list[i];
        refs->n = n;
}

static int refs_add_wiring(Engine *e, Guest *g, const VirtWiring *w) {
        Guests *gs = e->guests;
        const Matrix *m = w->matrix ? guest_declared_matrix(e, w->matrix) : NULL;
        Uuid tpm;
        int r = 0;

        for (size_t i = 0; i < w->n_mdevs && r >= 0; i++)
                r = refs_add(&gs->mdevs, w->mdevs[i], g);
        for (size_t i = 0; i < w->n_others && r >= 0; i++)
                r = refs_add(&gs->others, w->others[i], g);
        if (r >= 0 && m)
                r = refs_add(&gs->mdevs, m->rec.uuid, g);
        if (r >= 0 && w->tpm_model != TPM_MODEL_NONE && guest_socket_tpm(w->tpm_socket, &tpm) >= 0)
                r = refs_add(&gs->tpms, tpm, g);
        if (r >= 0 && w->tpm && guest_declared_tpm(e, w->tpm, &tpm) >= 0)
                r = refs_add(&gs->tpms, tpm, g);
        return r;
}

static void refs_renew(Engine *e) {
        Guests *gs = e->guests;
        int r = 0;

        gs->mdevs.n = gs->others.n = gs->tpms.n = 0;
        for (size_t i = 0; i < gs->n && r >= 0; i++) {
                Guest *g = gs->by_uuid[i];

                r = refs_add_wiring(e, g, &g->config);
                if (r >= 0)
                        r = refs_add_wiring(e, g, &g->live);
                if (r >= 0)
                        r = refs_add(&gs->mdevs, g->hold.matrix, g);
                if (r >= 0)
                        r = refs_add(&gs->tpms, g->hold.tpm, g);
        }
        refs_sort(&gs->mdevs);
        refs_sort(&gs->others);
        refs_sort(&gs->tpms);
        gs->refs_stale = r < 0;
}

const GuestRef *guests_naming(Engine *e, GuestRefs *refs, Uuid what, size_t *ret_n) {
        size_t low = 0, high, n = 0;

        if (e->guests->refs_stale)
                refs_renew(e);
        high = refs->n;
        while (low < high) {
                size_t middle = (low + high) / 2;

                if (uuid_compare(refs->list[middle].what, what) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        while (low + n < refs->n && uuid_equal(refs->list[low + n].what, what))
                n++;
        *ret_n = n;
        return refs->list + low;
}

const Guest *guests_other_naming(Engine *e, GuestRefs *refs, Uuid what, const Guest *g) {
        size_t n;
        const GuestRef *ref = guests_naming(e, refs, what, &n);

        for (size_t i = 0; i < n; i++)
                if (ref[i].guest != g)
                        return ref[i].guest;
        return NULL;
}

const char *engine_mdev_guest(Engine *e, Uuid uuid) {
        Guests *gs = e->guests;
        GuestRefs *refs[] = { &gs->mdevs, &gs->others };

        for (size_t k = 0; gs->n > 0 && k < ELEMENTS(refs); k++) {
                size_t n;
                const GuestRef *ref = guests_naming(e, refs[k], uuid, &n);

                for (size_t i = 0; i < n; i++) {
                        const Guest *g = ref[i].guest;

                        if (g->active && (guest_wiring_has(&g->live, uuid) ||
                                          has_uuid(g->live.others, g->live.n_others, uuid)))
                                return g->name;
                }
        }
        return "";
}
