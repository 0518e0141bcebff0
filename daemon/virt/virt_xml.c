/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/xml.h"
#include "virt/virt_xml_internal.h"

#define PROBLEMS_MAX 16
#define MDEVS_MAX    64
#define METADATA_MAX (64 * 1024) /* ours */

static const char guest_rng[] =
#include "guest.rng.h"
        ;

static int copy(const char *s, char **ret) {
        *ret = s ? strdup(s) : NULL;
        return s && !*ret ? -ENOMEM : 0;
}

static int add_problem(VirtWiring *w, const char *text) {
        size_t n = 0;
        char **bigger;

        while (w->problems && w->problems[n])
                n++;
        if (n >= PROBLEMS_MAX)
                return 0;
        bigger = reallocarray(w->problems, n + 2, sizeof *bigger);
        if (!bigger)
                return -ENOMEM;
        w->problems = bigger;
        bigger[n + 1] = NULL;
        return copy(text, &bigger[n]);
}

/* ---- which elements are ours ---- */

xmlNode *xml_next_in(const xmlNode *root, const xmlNode *node, const char *parent, const char *parent_uri,
                     const char *name, const char *uri) {
        const xmlNode *p = node ? node->parent : doc_child(root, NULL, parent, parent_uri);

        for (; p; p = doc_child(root, p, parent, parent_uri), node = NULL) {
                xmlNode *found = doc_child(p, node, name, uri);

                if (found)
                        return found;
        }
        return NULL;
}

static const char *child_attribute(const xmlNode *node, const char *child, const char *attribute) {
        const xmlNode *c = node ? doc_child(node, NULL, child, NULL) : NULL;

        return c ? doc_attribute(c, attribute) : "";
}

bool xml_is_matrix(const xmlNode *hostdev) {
        return strcmp(doc_attribute(hostdev, "type"), "mdev") == 0 &&
               strcmp(doc_attribute(hostdev, "model"), "vfio-ap") == 0;
}

const char *xml_mdev(const xmlNode *hostdev) {
        return child_attribute(doc_child(hostdev, NULL, "source", NULL), "address", "uuid");
}

static bool is_below_ours(const char *path) {
        return strncmp(path, VIRT_TPM_DIR "/", strlen(VIRT_TPM_DIR "/")) == 0;
}

const char *xml_tpm_socket(const xmlNode *tpm) {
        const xmlNode *backend = doc_child(tpm, NULL, "backend", NULL);
        const char *path = child_attribute(backend, "source", "path");

        if (!backend || strcmp(doc_attribute(backend, "type"), "external") != 0)
                return NULL;
        return is_below_ours(path) ? path : NULL;
}

/* The string that member @name of a JSON object has as its value, wherever in it; its length, or -1. Enough for what we
 * write ourselves and what somebody may have made of it with an editor; nothing in it is escaped. */
static int json_member(const char *json, const char *name, const char **ret) {
        CLEANUP(freep) char *quoted = NULL;

        if (asprintf(&quoted, "\"%s\"", name) < 0) {
                quoted = NULL;
                return -1;
        }
        for (const char *p = strstr(json, quoted); p; p = strstr(p + 1, quoted)) {
                const char *v = p + strlen(quoted);

                v += strspn(v, " \t\r\n");
                if (*v != ':')
                        continue;
                v++;
                v += strspn(v, " \t\r\n");
                if (*v != '"' || !strchr(v + 1, '"'))
                        continue;
                *ret = v + 1;
                return (int) strcspn(v + 1, "\"");
        }
        return -1;
}

bool xml_is_device(const xmlNode *arg) {
        const char *id = NULL;
        int n = json_member(doc_attribute(arg, "value"), "id", &id);

        return n == (int) strlen(VIRT_DEVICE_ID) && strncmp(id, VIRT_DEVICE_ID, (size_t) n) == 0;
}

int xml_device_socket(const xmlNode *arg, char **ret) {
        const char *path = NULL;
        int n = json_member(doc_attribute(arg, "value"), "path", &path);

        *ret = NULL;
        if (n < 0 || !is_below_ours(path) || memchr(path, '\\', (size_t) n))
                return 0;
        *ret = strndup(path, (size_t) n);
        return *ret ? 0 : -ENOMEM;
}

xmlNode *xml_metadata(const xmlNode *root) {
        XML_FOREACH_METADATA(root, ours)
                return ours;
        return NULL;
}

const char *xml_machine(const xmlNode *root) {
        return child_attribute(doc_child(root, NULL, "os", NULL), "type", "machine");
}

const char *xml_arch(const xmlNode *root) {
        const char *arch = child_attribute(doc_child(root, NULL, "os", NULL), "type", "arch");
        const char *machine = xml_machine(root);

        if (*arch)
                return arch;
        if (strncmp(machine, "s390-ccw-virtio", strlen("s390-ccw-virtio")) == 0)
                return "s390x";
        if (strcmp(machine, "q35") == 0 || strncmp(machine, "pc-", 3) == 0 || strcmp(machine, "pc") == 0)
                return "x86_64";
        return "";
}

/* ---- our metadata against the schema ---- */

static void on_schema_error(void *userdata, XmlError *e) {
        (void) doc_refuse(userdata, e->line, "%.200s", e->message ?: "");
}

static int validate(Doc *errors, xmlDoc *doc) {
        int r = xml_validate(guest_rng, sizeof guest_rng - 1, doc, on_schema_error, errors);

        return r > 0 ? doc_refuse(errors, 0, "not valid") : r;
}

int xml_metadata_check(Doc *d, xmlNode *ours, char **reterr_text) {
        const Place *place = doc_place(d, ours);
        Doc errors = {};
        xmlDoc *doc = xmlNewDoc(BAD_CAST "1.0");
        xmlNode *root = NULL;
        int r = -ENOMEM;

        if (place->end - place->start > METADATA_MAX)
                r = doc_refuse(&errors, 0, "it has more than %d bytes", METADATA_MAX);
        else if (doc)
                root = xmlDocCopyNode(ours, doc, 1);
        if (root) {
                xmlDocSetRootElement(doc, root);
                r = validate(&errors, doc);
        }
        if (doc)
                xmlFreeDoc(doc);
        if (r == -EBADMSG &&
            asprintf(reterr_text, "the metadata of guestcrypt is not valid: %s", errors.text) < 0)
                r = -ENOMEM;
        doc_clear(&errors);
        return r;
}

/* ---- reading ---- */

static int read_metadata(Doc *d, const xmlNode *root, VirtWiring *w) {
        CLEANUP(freep) char *text = NULL;
        xmlNode *ours = xml_metadata(root), *matrix, *tpm;
        int r;

        if (d->n_misplaced > 0) {
                r = add_problem(w,
                                "an element of guestcrypt is not where it has a meaning, which is <devices> "
                                "directly below <metadata>");
                if (r < 0)
                        return r;
        }
        if (!ours)
                return 0;
        if (xml_next_in(root, ours, "metadata", NULL, "devices", VIRT_METADATA_URI)) {
                r = add_problem(
                        w,
                        "there is more than one <devices> of guestcrypt in <metadata>: none of them counts");
                return r;
        }
        r = xml_metadata_check(d, ours, &text);
        if (r == -EBADMSG)
                return add_problem(w, text);
        if (r < 0)
                return r;

        matrix = doc_child(ours, NULL, "matrix", VIRT_METADATA_URI);
        tpm = doc_child(ours, NULL, "tpm", VIRT_METADATA_URI);
        if (matrix && copy(doc_attribute(matrix, "name"), &w->matrix) < 0)
                return -ENOMEM;
        if (tpm) {
                if (copy(doc_attribute(tpm, "name"), &w->tpm) < 0)
                        return -ENOMEM;
                w->tpm_wish = tpm_model_from_name(doc_attribute(tpm, "model"));
        }
        return 0;
}

static int add_mdev(Uuid **list, size_t *n, Uuid id) {
        Uuid *bigger;

        if (*n >= MDEVS_MAX)
                return 0;
        bigger = reallocarray(*list, *n + 1, sizeof *bigger);
        if (!bigger)
                return -ENOMEM;
        *list = bigger;
        bigger[(*n)++] = id;
        return 0;
}

static int read_mdevs(const xmlNode *root, VirtWiring *w) {
        XML_FOREACH_DEVICE(root, hostdev, "hostdev") {
                bool matrix = xml_is_matrix(hostdev);
                Uuid id;
                int r = 0;

                if (strcmp(doc_attribute(hostdev, "type"), "mdev") != 0)
                        continue;
                if (uuid_parse(xml_mdev(hostdev), &id) >= 0)
                        r = matrix ? add_mdev(&w->mdevs, &w->n_mdevs, id)
                                   : add_mdev(&w->others, &w->n_others, id);
                else if (matrix)
                        r = add_problem(w, "a <hostdev> of model vfio-ap names no mdev by its UUID");
                if (r < 0)
                        return r;
        }
        if (w->n_mdevs > 1)
                return add_problem(
                        w, "there is more than one <hostdev> of model vfio-ap, with which a guest does "
                           "not start");
        return 0;
}

static int wired(VirtWiring *w, TpmModel model, const char *socket) {
        if (w->tpm_model != TPM_MODEL_NONE)
                return add_problem(w, "more than one of guestcrypt's TPMs is wired in");
        w->tpm_model = model;
        return copy(socket, &w->tpm_socket);
}

static int read_tpms(const xmlNode *root, VirtWiring *w) {
        int r;

        XML_FOREACH_ARG(root, arg) {
                CLEANUP(freep) char *socket = NULL;

                if (!xml_is_device(arg))
                        continue;
                r = xml_device_socket(arg, &socket);
                if (r < 0)
                        return r;
                r = socket ? wired(w, TPM_MODEL_VIRTIO, socket)
                           : add_problem(w, "the device " VIRT_DEVICE_ID
                                            " in <qemu:commandline> has no socket below " VIRT_TPM_DIR);
                if (r < 0)
                        return r;
        }
        XML_FOREACH_DEVICE(root, tpm, "tpm") {
                const char *socket = xml_tpm_socket(tpm);

                if (!socket)
                        w->foreign_tpm = true;
                else {
                        r = wired(w,
                                  strcmp(doc_attribute(tpm, "model"), "tpm-crb") == 0 ? TPM_MODEL_CRB
                                                                                      : TPM_MODEL_TIS,
                                  socket);
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}

static int read_domain(Doc *d, VirtWiring *w) {
        const xmlNode *root = xmlDocGetRootElement(d->tree), *emulator;
        const char *name = doc_text(doc_child(root, NULL, "name", NULL));
        const xmlNode *uuid = doc_child(root, NULL, "uuid", NULL);
        int r;

        if (!*name)
                return doc_refuse(d, 0, "the guest has no <name>");
        if (strlen(name) > VIRT_GUEST_MAX)
                return doc_refuse(d, 0, "the guest's name is longer than %d bytes", VIRT_GUEST_MAX);
        if (uuid && uuid_parse(doc_text(uuid), &w->uuid) < 0)
                return doc_refuse(d, xmlGetLineNo(uuid), "'%.60s' is not a UUID", doc_text(uuid));

        emulator = xml_next_in(root, NULL, "devices", NULL, "emulator", NULL);
        if (copy(name, &w->name) < 0 || copy(xml_arch(root), &w->arch) < 0 ||
            copy(doc_attribute(root, "type"), &w->type) < 0 || copy(xml_machine(root), &w->machine) < 0 ||
            copy(doc_text(emulator), &w->emulator) < 0)
                return -ENOMEM;

        r = read_metadata(d, root, w);
        if (r >= 0)
                r = read_mdevs(root, w);
        if (r >= 0)
                r = read_tpms(root, w);
        return r;
}

int virt_xml_read(const char *xml, size_t size, VirtWiring *ret, char **reterr_text) {
        CLEANUP(virt_wiring_clear) VirtWiring w = {};
        CLEANUP(doc_clear) Doc d = {};
        int r;

        r = doc_parse(&d, xml, size);
        if (r >= 0)
                r = read_domain(&d, &w);
        if (r == -EBADMSG && reterr_text)
                *reterr_text = TAKE(d.text);
        if (r < 0)
                return r;

        *ret = w;
        w = (VirtWiring) {};
        return 0;
}
