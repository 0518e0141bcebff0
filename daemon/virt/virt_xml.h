/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* virt_xml - libvirt's domain XML: what it says of us, and editing it. Pure but for libxml2: no libvirt, no
 * files (the schema of our metadata is compiled in), no logging. Entities, external references and documents of
 * more than VIRT_XML_MAX bytes are refused.
 *
 * What of ours may stand in a guest's XML:
 *   <hostdev mode='subsystem' type='mdev' model='vfio-ap'><source><address uuid='U'/></source></hostdev>
 *   <metadata><guestcrypt:devices xmlns:guestcrypt='urn:guestcrypt:guest:1'>
 *      <guestcrypt:matrix name='NAME or UUID'/> <guestcrypt:tpm name='NAME or UUID' model='virtio|crb|tis'/>
 *   </guestcrypt:devices></metadata>           both optional, at most one each; schemas/guest.rng
 *           Attaching writes added='...' into them: what had to be put elsewhere (memory backing, PCI root, ...) and is to
 *           go with the detachment, also from a document that libvirt has written anew in between.
 *   virtio: <qemu:commandline> with -device vfio-user-pci whose socket lies below VIRT_TPM_DIR, id "ua-guestcrypt-tpm",
 *           <memoryBacking> memfd + shared; on s390x a PCI root
 *   crb, tis: <tpm model='tpm-crb|tpm-tis'> with an external backend whose socket lies below VIRT_TPM_DIR */

#include <stdbool.h>
#include <stddef.h>

#include "base/uuid.h"
#include "core/tpm_model.h"

#define VIRT_XML_MAX      (16 * 1024 * 1024)
#define VIRT_GUEST_MAX    256 /* bytes of a guest's name */
#define VIRT_TPM_DIR      "/run/guestcrypt/tpm"
#define VIRT_METADATA_URI "urn:guestcrypt:guest:1"

/* What one domain XML says. */
typedef struct VirtWiring {
        Uuid uuid;
        char *name;
        char *arch, *type, *machine, *emulator; /* "s390x", "kvm", ...; "" where not said */
        Uuid *mdevs;                            /* hostdevs of model vfio-ap, in order */
        size_t n_mdevs;
        Uuid *others; /* hostdevs of any other model whose source is an mdev, in order */
        size_t n_others;
        char *matrix;       /* our metadata: the matrix it names, or NULL */
        char *tpm;          /* our metadata: the TPM it names, or NULL */
        TpmModel tpm_wish;  /* our metadata's model; NONE: not said */
        TpmModel tpm_model; /* how one of our TPMs is wired in; NONE: it is not */
        char *tpm_socket;   /* where, or NULL */
        bool foreign_tpm;   /* a <tpm> that is not ours */
        char **problems;    /* NULL-terminated lines: duplicates, metadata that is not valid; or NULL */
} VirtWiring;

void virt_wiring_clear(VirtWiring *w);
int virt_wiring_copy(const VirtWiring *w, VirtWiring *ret);

/* -EBADMSG: not a domain XML at all, *reterr_text (free()) says in one line what and where; -ENOMEM. What is wrong
 * only with what concerns us is in `problems`. */
int virt_xml_read(const char *xml, size_t size, VirtWiring *ret, char **reterr_text);

typedef enum VirtEditKind {
        VIRT_ATTACH_MATRIX,
        VIRT_DETACH_MATRIX, /* takes our metadata's matrix away too */
        VIRT_ATTACH_TPM,    /* also writes the metadata's tpm, which the hook relies on */
        VIRT_DETACH_TPM,
        _VIRT_EDIT_MAX
} VirtEditKind;

typedef struct VirtEdit {
        VirtEditKind kind;
        Uuid mdev;          /* matrix; DETACH_MATRIX: null for whichever it is */
        const char *name;   /* ATTACH_TPM: as in the metadata */
        TpmModel model;     /* ATTACH_TPM: which one; not NONE */
        const char *socket; /* ATTACH_TPM: the device's (virtio) or swtpm's (crb, tis) */
        const char *matrix; /* ATTACH_MATRIX: its name for the metadata; NULL: no metadata is written */
} VirtEdit;

typedef enum VirtEditVerdict {
        VIRT_EDIT_DONE,
        VIRT_EDIT_SAME,  /* it is so already: *ret_xml is NULL */
        VIRT_EDIT_OTHER, /* the guest has another matrix or TPM, of ours or not: text */
        VIRT_EDIT_CANNOT, /* not possible for this guest (architecture, memory backing of its own, ...): text */
        _VIRT_EDIT_VERDICT_MAX
} VirtEditVerdict;

/* The new XML (free()); only what has to change differs, byte for byte. Attach then detach gives the document as it was,
 * unless something of ours stood there already: metadata written by hand goes with the detachment, and so does an empty
 * <devices> of ours. A VirtEditVerdict with *reterr_text (free()) if it is OTHER or CANNOT; -EBADMSG as above; -EINVAL: the
 * edit's own values make no sense; -ENOMEM. */
int virt_xml_edit(const char *xml, size_t size, const VirtEdit *edit, char **ret_xml, char **reterr_text);
