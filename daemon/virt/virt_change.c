/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <libvirt/virterror.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "virt/virt_change.h"
#include "virt/virt_emulator.h"

#define TRIES             3
#define VERSION_VFIO_USER 10001000 /* QEMU 10.1.0 as libvirt counts */
#define VERSION_EXTERNAL  9000000  /* libvirt's <backend type='external'> */
/* what is read is what is written back, so with its passwords */
#define XML_CONFIG (VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE)

typedef struct Change {
        Conn *conn;
        virDomainPtr domain;
        VirtEdit edit; /* with model and socket chosen */
        const char *swtpm_socket;
        bool live;
        void (*begun)(void *userdata);
        void *userdata;
        bool has_begun, persistent, active;
        char *before, *after; /* the persistent XML, if it was changed */
        VirtOutcome out;
} Change;

static int answer(Change *c, VirtVerdict verdict, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* Ends the change with this verdict, so 1. */
static int answer(Change *c, VirtVerdict verdict, const char *format, ...) {
        char *text = NULL;
        va_list ap;

        va_start(ap, format);
        if (vasprintf(&text, format, ap) < 0)
                text = NULL;
        va_end(ap);
        free((char *) c->out.text);
        c->out.text = text;
        c->out.verdict = verdict;
        return 1;
}

/* libvirt has refused, or is gone. */
static int answer_libvirt(Change *c) {
        const char *text = conn_error(c->conn);

        if (virGetLastErrorCode() == VIR_ERR_NO_DOMAIN)
                return answer(c, VIRT_NO_SUCH_GUEST, "%s", text);
        if (conn_is_lost(c->conn)) {
                c->out.unknown = c->has_begun;
                return answer(c, VIRT_UNAVAILABLE, "the connection to libvirt was lost: %s", text);
        }
        return answer(c, VIRT_LIBVIRT, "%s", text);
}

static int answer_errno(Change *c, int error) {
        return answer(c, VIRT_LIBVIRT, "the guest's XML cannot be used: %s", strerror(-error));
}

static void begin(Change *c) {
        if (!c->has_begun)
                c->begun(c->userdata);
        c->has_begun = true;
}

static bool is_attach(const Change *c) {
        return c->edit.kind == VIRT_ATTACH_MATRIX || c->edit.kind == VIRT_ATTACH_TPM;
}

static bool is_matrix(const Change *c) {
        return c->edit.kind == VIRT_ATTACH_MATRIX || c->edit.kind == VIRT_DETACH_MATRIX;
}

static int read_wiring(Change *c, const char *xml, VirtWiring *ret) {
        CLEANUP(freep) char *text = NULL;
        int r;

        r = virt_xml_read(xml, strlen(xml), ret, &text);
        if (r == -EBADMSG)
                return answer(c, VIRT_LIBVIRT, "the guest's XML cannot be read: %s", text ?: "");
        return r < 0 ? answer_errno(c, r) : 0;
}

/* ---- which model ---- */

/* Whether the guest's emulator has such devices; where it cannot be asked, its version stands for it. */
static void emulator_of(Change *c, const VirtWiring *w, Emulator *ret) {
        bool local = strstr(conn_uri(c->conn), ":///");
        unsigned long version = 0;

        if (local && emulator_ask(w->emulator, ret) >= 0)
                return;
        (void) virConnectGetVersion(conn_libvirt(c->conn), &version);
        *ret = (Emulator) { .vfio_user = version >= VERSION_VFIO_USER, .crb = true, .tis = true };
        (void) snprintf(ret->version, sizeof ret->version, "%lu.%lu.%lu", version / 1000000,
                        version / 1000 % 1000, version % 1000);
}

static bool has_external_backend(Change *c) {
        unsigned long version = 0;

        return virConnectGetLibVersion(conn_libvirt(c->conn), &version) == 0 && version >= VERSION_EXTERNAL;
}

static bool is_x86(const VirtWiring *w) {
        return strcmp(w->arch, "x86_64") == 0 || strcmp(w->arch, "i686") == 0;
}

/* Whether virtio is possible at all for this guest is virt_xml_edit()'s to say. */
static bool takes_virtio(const VirtWiring *w) {
        return strcmp(w->arch, "s390x") == 0 || strcmp(w->arch, "x86_64") == 0;
}

static int choose_model(Change *c, const VirtWiring *w) {
        TpmModel wish = c->edit.model;
        Emulator e;

        if (wish == TPM_MODEL_NONE)
                wish = w->tpm_model != TPM_MODEL_NONE ? w->tpm_model : w->tpm_wish;
        if (w->tpm_model == TPM_MODEL_NONE && (wish == TPM_MODEL_NONE || wish == TPM_MODEL_VIRTIO) &&
            takes_virtio(w)) {
                emulator_of(c, w, &e);
                if (e.vfio_user)
                        wish = TPM_MODEL_VIRTIO;
                else if (wish == TPM_MODEL_VIRTIO || !is_x86(w))
                        return answer(
                                c, VIRT_UNSUPPORTED,
                                "QEMU %s (%s) has no device vfio-user-pci, which a virtio TPM needs: it comes "
                                "with QEMU 10.1; %s",
                                *e.version ? e.version : "of unknown version", w->emulator,
                                is_x86(w) ? "the models crb and tis would work"
                                          : "there is no other TPM for this architecture");
                else
                        wish = e.crb ? TPM_MODEL_CRB : TPM_MODEL_TIS;
        }
        if (wish == TPM_MODEL_NONE)
                wish = strcmp(w->arch, "aarch64") == 0 ? TPM_MODEL_TIS : TPM_MODEL_CRB;
        if (wish != TPM_MODEL_VIRTIO && !has_external_backend(c))
                return answer(
                        c, VIRT_UNSUPPORTED,
                        "this libvirt cannot use a TPM of somebody else's: models crb and tis need libvirt 9.0");

        c->edit.model = c->out.model = wish;
        if (wish != TPM_MODEL_VIRTIO)
                c->edit.socket = c->swtpm_socket;
        return 0;
}

/* ---- the persistent XML ---- */

/* 0 with *ret NULL: it is so already. */
static int edit_xml(Change *c, const char *xml, char **ret) {
        CLEANUP(freep) char *text = NULL;
        int r;

        r = virt_xml_edit(xml, strlen(xml), &c->edit, ret, &text);
        switch (r) {
        case VIRT_EDIT_DONE:
        case VIRT_EDIT_SAME:
                return 0;
        case VIRT_EDIT_OTHER:
                return answer(c, VIRT_REFUSED, "%s", text);
        case VIRT_EDIT_CANNOT:
                return answer(c, VIRT_UNSUPPORTED, "%s", text);
        case -EBADMSG:
                return answer(c, VIRT_LIBVIRT, "the guest's XML cannot be read: %s", text ?: "");
        default:
                return answer_errno(c, r);
        }
}

static int define(Change *c, const char *xml) {
        virDomainPtr d = virDomainDefineXMLFlags(conn_libvirt(c->conn), xml, VIR_DOMAIN_DEFINE_VALIDATE);

        if (!d)
                return -EREMOTEIO;
        (void) virDomainFree(d);
        return 0;
}

/* libvirt has accepted what it may not have understood. */
static int check_written(Change *c) {
        CLEANUP(virt_wiring_clear) VirtWiring w = {};
        bool there;
        int r;

        r = read_wiring(c, c->after, &w);
        if (r != 0)
                return r;
        there = is_matrix(c) ? w.n_mdevs > 0 : w.tpm_model != TPM_MODEL_NONE;
        if (there == is_attach(c) || (c->edit.kind == VIRT_DETACH_MATRIX && !uuid_is_null(c->edit.mdev)))
                return 0;
        return answer(c, VIRT_LIBVIRT,
                      "libvirt has taken the new XML, but did not keep what was put into it");
}

static int change_config(Change *c) {
        for (int i = 0; i < TRIES; i++) {
                CLEANUP(freep)
                char *before = virDomainGetXMLDesc(c->domain, XML_CONFIG), *new = NULL, *again = NULL;
                int r;

                if (!before)
                        return answer_libvirt(c);
                r = edit_xml(c, before, &new);
                if (r != 0 || !new)
                        return r;

                again = virDomainGetXMLDesc(c->domain, XML_CONFIG);
                if (!again)
                        return answer_libvirt(c);
                if (strcmp(before, again) != 0)
                        continue;
                begin(c);
                if (define(c, new) < 0)
                        return answer_libvirt(c);

                c->before = TAKE(before);
                c->out.config_changed = true;
                c->after = virDomainGetXMLDesc(c->domain, XML_CONFIG);
                return c->after ? check_written(c) : answer_libvirt(c);
        }
        return answer(c, VIRT_CHANGED,
                      "somebody else changes this guest's definition again and again; nothing was changed");
}

/* If it is still what we have made it. */
static void undo_config(Change *c) {
        CLEANUP(freep) char *now = NULL;

        if (!c->after)
                return;
        now = virDomainGetXMLDesc(c->domain, XML_CONFIG);
        if (now && strcmp(now, c->after) == 0 && define(c, c->before) >= 0)
                c->out.config_changed = false;
}

/* ---- the running guest ---- */

static int device_xml(Uuid mdev, char **ret) {
        char text[UUID_STRING_SIZE];

        if (asprintf(
                    ret,
                    "<hostdev mode='subsystem' type='mdev' model='vfio-ap'><source><address uuid='%s'/></source></hostdev>",
                    uuid_format(mdev, text)) < 0) {
                *ret = NULL;
                return -ENOMEM;
        }
        return 0;
}

static int live_wiring(Change *c, VirtWiring *ret) {
        CLEANUP(freep) char *xml = virDomainGetXMLDesc(c->domain, 0);

        return xml ? read_wiring(c, xml, ret) : answer_libvirt(c);
}

static bool has_mdev(const VirtWiring *w, Uuid id) {
        for (size_t i = 0; i < w->n_mdevs; i++)
                if (uuid_equal(w->mdevs[i], id))
                        return true;
        return false;
}

static int plug_in(Change *c, const VirtWiring *w) {
        CLEANUP(freep) char *xml = NULL;
        char text[UUID_STRING_SIZE];

        if (has_mdev(w, c->edit.mdev))
                return 0;
        if (w->n_mdevs > 0)
                return answer(c, VIRT_REFUSED,
                              "the running guest has the mdev %s, and can have only one matrix",
                              uuid_format(w->mdevs[0], text));
        if (device_xml(c->edit.mdev, &xml) < 0)
                return answer_errno(c, -ENOMEM);
        begin(c);
        if (virDomainAttachDeviceFlags(c->domain, xml, VIR_DOMAIN_AFFECT_LIVE) < 0)
                return answer_libvirt(c);
        c->out.live_changed = true;
        return 0;
}

/* What the running guest's own metadata wish for, too: nothing else would take that away before its end. Without the
 * "added" of a TPM, which counts in the definition only. */
static int forget_live_wish(Change *c, const VirtWiring *w) {
        CLEANUP(freep) char *left = NULL;

        if (!w->matrix || (w->tpm && strpbrk(w->tpm, "<>&'\"")))
                return 0;
        if (w->tpm && asprintf(&left, "<devices><tpm name='%s'%s%s%s/></devices>", w->tpm,
                               w->tpm_wish != TPM_MODEL_NONE ? " model='" : "",
                               w->tpm_wish != TPM_MODEL_NONE ? tpm_model_name(w->tpm_wish) : "",
                               w->tpm_wish != TPM_MODEL_NONE ? "'" : "") < 0) {
                left = NULL;
                return answer_errno(c, -ENOMEM);
        }
        begin(c);
        if (virDomainSetMetadata(c->domain, VIR_DOMAIN_METADATA_ELEMENT, left, left ? "guestcrypt" : NULL,
                                 VIRT_METADATA_URI, VIR_DOMAIN_AFFECT_LIVE) < 0)
                return answer_libvirt(c);
        c->out.live_changed = true;
        return 0;
}

static int plug_out(Change *c, const VirtWiring *w) {
        CLEANUP(virt_wiring_clear) VirtWiring left = {};
        CLEANUP(freep) char *xml = NULL;
        Uuid id = c->edit.mdev;
        int r;

        if (uuid_is_null(id) && w->n_mdevs > 0)
                id = w->mdevs[0];
        r = forget_live_wish(c, w);
        if (r != 0 || !has_mdev(w, id))
                return r;
        if (device_xml(id, &xml) < 0)
                return answer_errno(c, -ENOMEM);
        begin(c);
        if (virDomainDetachDeviceFlags(c->domain, xml, VIR_DOMAIN_AFFECT_LIVE) < 0)
                return answer_libvirt(c);

        /* the guest is asked; libvirt waits for some seconds at most */
        r = live_wiring(c, &left);
        if (r != 0)
                return r;
        c->out.live_changed = !has_mdev(&left, id);
        c->out.next_start = !c->out.live_changed;
        return 0;
}

static int change_live(Change *c) {
        CLEANUP(virt_wiring_clear) VirtWiring w = {};
        int r;

        r = live_wiring(c, &w);
        if (r == 0)
                r = c->edit.kind == VIRT_ATTACH_MATRIX ? plug_in(c, &w) : plug_out(c, &w);
        return r;
}

/* Whether the running guest differs from what its definition says now. */
static int compare_live(Change *c) {
        CLEANUP(virt_wiring_clear) VirtWiring w = {};
        bool there;
        int r;

        r = live_wiring(c, &w);
        if (r != 0)
                return r;
        if (!is_matrix(c))
                there = w.tpm_model != TPM_MODEL_NONE;
        else
                there = uuid_is_null(c->edit.mdev) ? w.n_mdevs > 0 : has_mdev(&w, c->edit.mdev);
        c->out.next_start = there != is_attach(c);
        return 0;
}

/* ---- all of it ---- */

static int prepare(Change *c) {
        CLEANUP(virt_wiring_clear) VirtWiring w = {};
        CLEANUP(freep) char *xml = NULL;
        int r;

        c->persistent = virDomainIsPersistent(c->domain) > 0;
        r = virDomainIsActive(c->domain);
        if (r < 0)
                return answer_libvirt(c);
        c->active = r > 0;

        if (!c->persistent && !is_matrix(c))
                return answer(
                        c, VIRT_UNSUPPORTED,
                        "the guest has no persistent definition, and a TPM cannot be plugged into a running guest");
        if (!c->persistent && !c->live)
                return answer(
                        c, VIRT_UNSUPPORTED,
                        "the guest has no persistent definition: its matrix can only be changed while it runs");
        if (c->edit.kind != VIRT_ATTACH_TPM)
                return 0;

        xml = virDomainGetXMLDesc(c->domain, XML_CONFIG);
        if (!xml)
                return answer_libvirt(c);
        r = read_wiring(c, xml, &w);
        return r != 0 ? r : choose_model(c, &w);
}

static int change(Change *c) {
        bool known = false;
        int r;

        r = prepare(c);
        if (r == 0 && c->persistent)
                r = change_config(c);
        if (r == 0 && c->active) {
                r = is_matrix(c) && c->live ? change_live(c) : compare_live(c);
                known = r != 0 && !c->out.unknown;
        } else
                known = r != 0 && c->out.verdict == VIRT_LIBVIRT;
        if (known)
                undo_config(c);
        return r;
}

void virt_change(Conn *conn, Uuid guest, const WireEdit *call, void (*begun)(void *userdata), void *userdata,
                 VirtOutcome *ret) {
        Change c = { .conn = conn,
                     .edit = call->edit,
                     .swtpm_socket = call->swtpm_socket,
                     .live = call->live,
                     .begun = begun,
                     .userdata = userdata };

        if (!conn_libvirt(conn))
                (void) answer(&c, VIRT_UNAVAILABLE, "there is no connection to libvirt");
        else {
                c.domain = virDomainLookupByUUID(conn_libvirt(conn), guest.b);
                if (c.domain)
                        (void) change(&c);
                else
                        (void) answer_libvirt(&c);
        }
        if (c.domain)
                (void) virDomainFree(c.domain);
        free(c.before);
        free(c.after);
        *ret = c.out;
}
