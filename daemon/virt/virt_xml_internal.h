/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* virt_xml_internal - what reading and editing share: which elements of a domain XML are ours. */

#include "virt/virt_doc.h"
#include "virt/virt_xml.h"

#define VIRT_DEVICE_ID "ua-guestcrypt-tpm" /* libvirt leaves ids of this prefix to its users */

/* A <hostdev> of model vfio-ap. The uuid's text, or "". */
bool xml_is_matrix(const xmlNode *hostdev);
const char *xml_mdev(const xmlNode *hostdev);

/* <tpm>: the socket of its external backend if it lies below VIRT_TPM_DIR, else NULL. */
const char *xml_tpm_socket(const xmlNode *tpm);

/* <qemu:arg>: whether it is the JSON of our device; its socket (free(); NULL if it has none that lies below VIRT_TPM_DIR). */
bool xml_is_device(const xmlNode *arg);
int xml_device_socket(const xmlNode *arg, char **ret);

/* The next @name after @node (NULL: the first) of all in all elements @parent below the root. */
xmlNode *xml_next_in(const xmlNode *root, const xmlNode *node, const char *parent, const char *parent_uri,
                     const char *name, const char *uri);
#define XML_FOREACH_DEVICE(root, node, name) \
        for (xmlNode *node = xml_next_in(root, NULL, "devices", NULL, name, NULL); node; \
             node = xml_next_in(root, node, "devices", NULL, name, NULL))
#define XML_FOREACH_ARG(root, node) \
        for (xmlNode *node = xml_next_in(root, NULL, "commandline", DOC_QEMU_URI, "arg", DOC_QEMU_URI); \
             node; node = xml_next_in(root, node, "commandline", DOC_QEMU_URI, "arg", DOC_QEMU_URI))
#define XML_FOREACH_METADATA(root, node) \
        for (xmlNode *node = xml_next_in(root, NULL, "metadata", NULL, "devices", VIRT_METADATA_URI); node; \
             node = xml_next_in(root, node, "metadata", NULL, "devices", VIRT_METADATA_URI))

/* Our element in <metadata>: the first, or NULL. */
xmlNode *xml_metadata(const xmlNode *root);
/* 0; -EBADMSG: it is not as schemas/guest.rng says, *reterr_text (free()) says how; -ENOMEM. */
int xml_metadata_check(Doc *d, xmlNode *ours, char **reterr_text);

/* "s390x", "x86_64", ...; "" where neither it nor the machine tells. */
const char *xml_arch(const xmlNode *root);
const char *xml_machine(const xmlNode *root);
