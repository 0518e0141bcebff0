/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "virt/virt_xml_internal.h"

/* Highest first: libvirt gives out slots from below. 0x1f is the q35 chipset's. */
#define SLOT_FIRST 0x1e
#define SLOT_LAST  0x04

/* What "added" says, bit by bit: words of schemas/guest.rng. */
typedef enum Added {
        ADDED_BACKING,
        ADDED_SOURCE,
        ADDED_ACCESS,
        ADDED_PCI_ROOT,
        ADDED_COMMAND_LINE,
        _ADDED_MAX
} Added;
static const char *const added_words[_ADDED_MAX] = { "memory-backing", "memory-source", "memory-access",
                                                     "pci-root", "command-line" };

typedef struct Editor {
        Doc d;
        xmlNode *root;
        const VirtEdit *edit;
        unsigned added; /* what had to be added beside the TPM itself */
        char *text;
} Editor;

static void editor_clear(Editor *e) {
        doc_clear(&e->d);
        free(e->text);
}

static int verdict(Editor *e, VirtEditVerdict v, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

static int verdict(Editor *e, VirtEditVerdict v, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        e->text = doc_line(format, ap);
        va_end(ap);
        return e->text ? (int) v : -ENOMEM;
}

/* Behind @after; if there is none, behind the last element in @into. */
static int insert_format(Editor *e, const xmlNode *into, const xmlNode *after, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

static int insert_format(Editor *e, const xmlNode *into, const xmlNode *after, const char *format, ...) {
        CLEANUP(freep) char *lines = NULL;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&lines, format, ap);
        va_end(ap);
        if (n < 0) {
                lines = NULL;
                return -ENOMEM;
        }
        return after ? doc_insert_after(&e->d, after, lines) : doc_insert_into(&e->d, into, lines);
}

/* How the names of elements of this one's name space begin there: two strings for "%s%s". */
#define PREFIX(node) \
        (node)->ns->prefix ? (const char *) (node)->ns->prefix : "", (node)->ns->prefix ? ":" : ""

static xmlNode *top(const Editor *e, const char *name) {
        return doc_child(e->root, NULL, name, NULL);
}

static xmlNode *last_of(const xmlNode *root, const char *name, const char *uri) {
        xmlNode *found = NULL;

        for (xmlNode *c = doc_child(root, NULL, name, uri); c; c = doc_child(root, c, name, uri))
                found = c;
        return found;
}

/* ---- metadata ---- */

static int check_metadata(Editor *e) {
        CLEANUP(freep) char *text = NULL;
        xmlNode *ours = xml_metadata(e->root);
        int r;

        if (!ours)
                return 0;
        if (xml_next_in(e->root, ours, "metadata", NULL, "devices", VIRT_METADATA_URI))
                return verdict(
                        e, VIRT_EDIT_CANNOT,
                        "there is more than one <devices> of guestcrypt in <metadata>; take one away");
        r = xml_metadata_check(&e->d, ours, &text);
        if (r == -EBADMSG)
                return verdict(e, VIRT_EDIT_CANNOT, "%s; correct it, or take it away", text);
        return r;
}

static xmlNode *metadata_child(const Editor *e, const char *name) {
        const xmlNode *ours = xml_metadata(e->root);

        return ours ? doc_child(ours, NULL, name, VIRT_METADATA_URI) : NULL;
}

/* <guestcrypt:NAME ATTRIBUTES/> where it belongs. */
static int add_metadata(Editor *e, const char *name, const char *attributes) {
        const xmlNode *ours = xml_metadata(e->root), *metadata = top(e, "metadata"), *after;

        if (ours)
                return insert_format(e, ours, NULL, "<%s%s%s %s/>", PREFIX(ours), name, attributes);
        if (metadata)
                return insert_format(e, metadata, NULL,
                                     "<guestcrypt:devices xmlns:guestcrypt='" VIRT_METADATA_URI "'>\n"
                                     "  <guestcrypt:%s %s/>\n"
                                     "</guestcrypt:devices>",
                                     name, attributes);

        after = top(e, "uuid") ?: top(e, "name");
        return insert_format(e, e->root, after,
                             "<metadata>\n"
                             "  <guestcrypt:devices xmlns:guestcrypt='" VIRT_METADATA_URI
                             "' added='metadata'>\n"
                             "    <guestcrypt:%s %s/>\n"
                             "  </guestcrypt:devices>\n"
                             "</metadata>",
                             name, attributes);
}

/* After removals: see doc_settle(); once for each element @name of the root. */
static int settle(Editor *e, const char *name, const char *uri, bool created) {
        for (xmlNode *c = doc_child(e->root, NULL, name, uri); c; c = doc_child(e->root, c, name, uri)) {
                bool touched = false;
                int r;

                for (const xmlNode *n = c->children; n && !touched; n = n->next)
                        touched = n->type == XML_ELEMENT_NODE && doc_place(&e->d, n)->removed;
                r = touched ? doc_settle(&e->d, c, created) : 0;
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Takes all of @name away, and what then holds nothing. */
static int remove_metadata(Editor *e, const char *name) {
        bool created = false;

        XML_FOREACH_METADATA(e->root, ours) {
                bool found = false;
                int r;

                for (xmlNode *c = doc_child(ours, NULL, name, VIRT_METADATA_URI); c;
                     c = doc_child(ours, c, name, VIRT_METADATA_URI)) {
                        doc_remove(&e->d, c);
                        found = true;
                }
                r = found ? doc_settle(&e->d, ours, true) : 0;
                if (r < 0)
                        return r;
                created |= strcmp(doc_attribute(ours, "added"), "metadata") == 0;
        }
        return settle(e, "metadata", NULL, created);
}

/* ---- matrix ---- */

static int attach_matrix(Editor *e) {
        const xmlNode *wish = metadata_child(e, "matrix"), *devices = last_of(e->root, "devices", NULL);
        const char *arch = xml_arch(e->root);
        char uuid[UUID_STRING_SIZE];
        bool wired = false;
        int r = 0;

        (void) uuid_format(e->edit->mdev, uuid);
        XML_FOREACH_DEVICE(e->root, hostdev, "hostdev") {
                Uuid other;

                if (!xml_is_matrix(hostdev))
                        continue;
                if (wired || uuid_parse(xml_mdev(hostdev), &other) < 0 || !uuid_equal(other, e->edit->mdev))
                        return verdict(e, VIRT_EDIT_OTHER,
                                       "the guest has the mdev %.60s already, and can have only one matrix",
                                       xml_mdev(hostdev));
                wired = true;
        }
        if (wish && e->edit->matrix && strcmp(doc_attribute(wish, "name"), e->edit->matrix) != 0 &&
            strcmp(doc_attribute(wish, "name"), uuid) != 0)
                return verdict(e, VIRT_EDIT_OTHER, "the guest's metadata asks for the matrix '%s'",
                               doc_attribute(wish, "name"));
        if (*arch && strcmp(arch, "s390x") != 0)
                return verdict(e, VIRT_EDIT_CANNOT,
                               "only guests of architecture s390x can have a matrix, this is %.40s", arch);
        if (!devices)
                return verdict(e, VIRT_EDIT_CANNOT, "the guest has no <devices>");

        if (!wired)
                r = insert_format(e, devices, NULL,
                                  "<hostdev mode='subsystem' type='mdev' model='vfio-ap'>\n"
                                  "  <source>\n"
                                  "    <address uuid='%s'/>\n"
                                  "  </source>\n"
                                  "</hostdev>",
                                  uuid);
        if (r >= 0 && e->edit->matrix && !wish) {
                char attributes[VIRT_GUEST_MAX + 16];

                (void) snprintf(attributes, sizeof attributes, "name='%s'", e->edit->matrix);
                r = add_metadata(e, "matrix", attributes);
        }
        return r;
}

static int detach_matrix(Editor *e) {
        bool all = uuid_is_null(e->edit->mdev), left = false;
        int r;

        XML_FOREACH_DEVICE(e->root, hostdev, "hostdev") {
                Uuid id;

                if (!xml_is_matrix(hostdev))
                        continue;
                if (!all && (uuid_parse(xml_mdev(hostdev), &id) < 0 || !uuid_equal(id, e->edit->mdev))) {
                        left = true;
                        continue;
                }
                doc_remove(&e->d, hostdev);
        }
        r = settle(e, "devices", NULL, false);
        if (r >= 0 && !left)
                r = remove_metadata(e, "matrix");
        return r;
}

/* ---- memory that another process can see ---- */

static int check_numa(Editor *e) {
        const xmlNode *cpu = top(e, "cpu"), *numa = cpu ? doc_child(cpu, NULL, "numa", NULL) : NULL;

        for (xmlNode *c = numa ? doc_child(numa, NULL, "cell", NULL) : NULL; c;
             c = doc_child(numa, c, "cell", NULL))
                if (strcmp(doc_attribute(c, "memAccess"), "private") == 0)
                        return verdict(e, VIRT_EDIT_CANNOT,
                                       "a virtio TPM needs memory that is shared, and NUMA cell %.20s has "
                                       "memAccess='private': make it 'shared'",
                                       doc_attribute(c, "id"));
        return 0;
}

static int add_memory(Editor *e) {
        const xmlNode *backing = top(e, "memoryBacking"), *source, *access, *hugepages;
        const char *type;
        int r;

        r = check_numa(e);
        if (r != 0)
                return r;

        if (!backing) {
                e->added |= 1u << ADDED_BACKING;
                return insert_format(e, e->root, top(e, "currentMemory") ?: top(e, "memory"),
                                     "<memoryBacking>\n"
                                     "  <source type='memfd'/>\n"
                                     "  <access mode='shared'/>\n"
                                     "</memoryBacking>");
        }

        source = doc_child(backing, NULL, "source", NULL);
        access = doc_child(backing, NULL, "access", NULL);
        hugepages = doc_child(backing, NULL, "hugepages", NULL);
        type = source ? doc_attribute(source, "type") : "";
        if (source && strcmp(type, "memfd") != 0 && strcmp(type, "file") != 0)
                return verdict(e, VIRT_EDIT_CANNOT,
                               "a virtio TPM needs memory that is shared, and <memoryBacking> has <source "
                               "type='%.20s'/>: make it 'memfd', or 'file'",
                               type);
        if (access && strcmp(doc_attribute(access, "mode"), "shared") != 0)
                return verdict(e, VIRT_EDIT_CANNOT,
                               "a virtio TPM needs memory that is shared, and <memoryBacking> has <access "
                               "mode='%.20s'/>: make it 'shared'",
                               doc_attribute(access, "mode"));

        /* huge pages are files already, and so is what is shared without a source */
        if (!source && !access && !hugepages) {
                e->added |= 1u << ADDED_SOURCE | 1u << ADDED_ACCESS;
                return insert_format(e, backing, NULL, "<source type='memfd'/>\n<access mode='shared'/>");
        }
        if (!access) {
                e->added |= 1u << ADDED_ACCESS;
                return insert_format(e, backing, NULL, "<access mode='shared'/>");
        }
        return 0;
}

static bool was_added(unsigned added, Added what) {
        return added >> what & 1;
}

static int remove_memory(Editor *e, unsigned added) {
        const xmlNode *backing = top(e, "memoryBacking"), *source, *access;

        if (!backing)
                return 0;
        source = doc_child(backing, NULL, "source", NULL);
        access = doc_child(backing, NULL, "access", NULL);
        if (source && (was_added(added, ADDED_BACKING) || was_added(added, ADDED_SOURCE)) &&
            strcmp(doc_attribute(source, "type"), "memfd") == 0)
                doc_remove(&e->d, source);
        if (access && (was_added(added, ADDED_BACKING) || was_added(added, ADDED_ACCESS)) &&
            strcmp(doc_attribute(access, "mode"), "shared") == 0)
                doc_remove(&e->d, access);
        return settle(e, "memoryBacking", NULL, was_added(added, ADDED_BACKING));
}

/* ---- the virtio device ---- */

static bool is_pci_root(const xmlNode *controller) {
        return strcmp(doc_attribute(controller, "type"), "pci") == 0 &&
               strcmp(doc_attribute(controller, "model"), "pci-root") == 0;
}

static int add_pci_root(Editor *e, const xmlNode *devices) {
        XML_FOREACH_DEVICE(e->root, controller, "controller")
                if (strcmp(doc_attribute(controller, "type"), "pci") == 0)
                        return 0;

        e->added |= 1u << ADDED_PCI_ROOT;
        return insert_format(e, devices, NULL, "<controller type='pci' index='0' model='pci-root'/>");
}

/* Should somebody have found a use for it since, libvirt puts it back by itself. */
static void remove_pci_root(Editor *e) {
        XML_FOREACH_DEVICE(e->root, controller, "controller")
                if (is_pci_root(controller)) {
                        doc_remove(&e->d, controller);
                        break;
                }
}

/* Slots that others' arguments take on the root bus: "addr=1d.0", or "addr":"0x1d" in JSON. */
static uint32_t slots_of_arguments(const xmlNode *root) {
        uint32_t slots = 0;

        XML_FOREACH_ARG(root, arg) {
                const char *value = doc_attribute(arg, "value");

                for (const char *p = strstr(value, "addr"); p; p = strstr(p + 1, "addr")) {
                        const char *number = p + strlen("addr");
                        char *end;
                        unsigned long slot;

                        number += strspn(number, "\"'=: ");
                        slot = strtoul(number, &end, 16);
                        if (end != number && slot < 32)
                                slots |= UINT32_C(1) << slot;
                }
        }
        return slots;
}

static int free_slot(const Editor *e) {
        uint32_t taken = e->d.slots | slots_of_arguments(e->root);

        for (int slot = SLOT_FIRST; slot >= SLOT_LAST; slot--)
                if (!(taken >> slot & 1))
                        return slot;
        return -ENOENT;
}

static bool has_prefix(const char *s, const char *prefix) {
        return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Where the device goes, as JSON members; "" where QEMU finds the place by itself. */
static int place_device(Editor *e, char ret[static 64]) {
        const char *arch = xml_arch(e->root), *machine = xml_machine(e->root);
        const char *bus;
        int slot;

        *ret = '\0';
        if (strcmp(arch, "s390x") == 0)
                return 0;
        if (strcmp(arch, "x86_64") != 0)
                return verdict(
                        e, VIRT_EDIT_CANNOT,
                        "guests of architecture %.40s cannot have a virtio TPM, but those of x86_64 and s390x",
                        *arch ? arch : "unknown");
        if (strcmp(machine, "q35") == 0 || has_prefix(machine, "pc-q35-"))
                bus = "pcie.0";
        else if (!*machine || strcmp(machine, "pc") == 0 || has_prefix(machine, "pc-i440fx-"))
                bus = "pci.0"; /* libvirt's and QEMU's default */
        else
                return verdict(
                        e, VIRT_EDIT_CANNOT,
                        "guests with machine '%.40s' cannot have a virtio TPM, but those with q35 and pc",
                        machine);
        slot = free_slot(e);
        if (slot < 0)
                return verdict(e, VIRT_EDIT_CANNOT, "all slots of the guest's PCI bus %s are taken", bus);
        (void) snprintf(ret, 64, "\"bus\":\"%s\",\"addr\":\"0x%x\",", bus, slot);
        return 0;
}

static int add_device(Editor *e, const xmlNode *devices) {
        const char *type = doc_attribute(e->root, "type");
        xmlNode *command_line = last_of(e->root, "commandline", DOC_QEMU_URI);
        char place[64];
        int r;

        if (strcmp(type, "kvm") != 0 && strcmp(type, "qemu") != 0)
                return verdict(e, VIRT_EDIT_CANNOT,
                               "a guest of type '%.40s' cannot have a virtio TPM, but one of kvm or qemu",
                               type);
        r = place_device(e, place);
        if (r != 0)
                return r;
        r = add_memory(e);
        if (r != 0)
                return r;
        if (!*place) {
                r = add_pci_root(e, devices);
                if (r < 0)
                        return r;
        }

        if (command_line)
                return insert_format(e, command_line, NULL,
                                     "<%s%sarg value='-device'/>\n"
                                     "<%s%sarg value='{\"driver\":\"vfio-user-pci\",\"id\":\"" VIRT_DEVICE_ID
                                     "\",%s\"socket\":{\"type\":\"unix\",\"path\":\"%s\"}}'/>",
                                     PREFIX(command_line), PREFIX(command_line), place, e->edit->socket);

        e->added |= 1u << ADDED_COMMAND_LINE;
        return insert_format(e, e->root, NULL,
                             "<qemu:commandline xmlns:qemu='" DOC_QEMU_URI "'>\n"
                             "  <qemu:arg value='-device'/>\n"
                             "  <qemu:arg value='{\"driver\":\"vfio-user-pci\",\"id\":\"" VIRT_DEVICE_ID
                             "\",%s\"socket\":{\"type\":\"unix\",\"path\":\"%s\"}}'/>\n"
                             "</qemu:commandline>",
                             place, e->edit->socket);
}

static int remove_device(Editor *e, unsigned added, bool *ret_found) {
        XML_FOREACH_ARG(e->root, arg) {
                xmlNode *before = arg->prev;

                if (!xml_is_device(arg))
                        continue;
                while (before && before->type != XML_ELEMENT_NODE)
                        before = before->prev;
                if (before && strcmp(doc_attribute(before, "value"), "-device") == 0)
                        doc_remove(&e->d, before);
                doc_remove(&e->d, arg);
                *ret_found = true;
        }
        return settle(e, "commandline", DOC_QEMU_URI, was_added(added, ADDED_COMMAND_LINE));
}

/* ---- TPM ---- */

static int add_emulated(Editor *e, const xmlNode *devices) {
        const char *arch = xml_arch(e->root), *model = tpm_model_name(e->edit->model);
        bool x86 = strcmp(arch, "x86_64") == 0 || strcmp(arch, "i686") == 0;

        if (strcmp(arch, "s390x") == 0)
                return verdict(
                        e, VIRT_EDIT_CANNOT,
                        "QEMU has no %s TPM for guests of architecture s390x, which can have a virtio TPM",
                        model);
        if (!x86 && (e->edit->model != TPM_MODEL_TIS || strcmp(arch, "aarch64") != 0))
                return verdict(e, VIRT_EDIT_CANNOT,
                               "guests of architecture %.40s cannot have a TPM of model %s",
                               *arch ? arch : "unknown", model);
        return insert_format(e, devices, NULL,
                             "<tpm model='tpm-%s'>\n"
                             "  <backend type='external'>\n"
                             "    <source type='unix' mode='connect' path='%s'/>\n"
                             "  </backend>\n"
                             "</tpm>",
                             model, e->edit->socket);
}

/* How our TPMs are wired in now. */
static int find_tpm(Editor *e, TpmModel *ret_model, char **ret_socket) {
        XML_FOREACH_ARG(e->root, arg)
                if (xml_is_device(arg)) {
                        *ret_model = TPM_MODEL_VIRTIO;
                        return xml_device_socket(arg, ret_socket);
                }
        XML_FOREACH_DEVICE(e->root, tpm, "tpm") {
                const char *socket = xml_tpm_socket(tpm);

                if (!socket)
                        return verdict(
                                e, VIRT_EDIT_OTHER,
                                "the guest has a <tpm> already that is not guestcrypt's; take it away first");
                *ret_model =
                        strcmp(doc_attribute(tpm, "model"), "tpm-crb") == 0 ? TPM_MODEL_CRB : TPM_MODEL_TIS;
                *ret_socket = strdup(socket);
                return *ret_socket ? 0 : -ENOMEM;
        }
        *ret_model = TPM_MODEL_NONE;
        return 0;
}

/* The metadata may name the TPM by its UUID, which is that of the socket's directory. */
static bool names_tpm(const VirtEdit *edit, const char *name) {
        const char *uuid = edit->socket + strlen(VIRT_TPM_DIR "/");

        return strcmp(name, edit->name) == 0 ||
               (strlen(name) == UUID_STRING_SIZE - 1 && strncmp(uuid, name, UUID_STRING_SIZE - 1) == 0);
}

/* What was added must be known when it is taken away; it is written once all the rest is decided. */
static int add_tpm_metadata(Editor *e, const xmlNode *wish) {
        char words[128] = "", *end = words, attributes[VIRT_GUEST_MAX + sizeof words + 64];

        for (Added a = 0; a < _ADDED_MAX; a++)
                if (was_added(e->added, a))
                        end = stpcpy(stpcpy(end, end == words ? " added='" : " "), added_words[a]);
        if (end != words)
                (void) stpcpy(end, "'");

        if (!wish) {
                (void) snprintf(attributes, sizeof attributes, "name='%s' model='%s'%s", e->edit->name,
                                tpm_model_name(e->edit->model), words);
                return add_metadata(e, "tpm", attributes);
        }
        /* one that stands there already is from another time: what it says was added is there no more, or would not have
         * been added now */
        if (*words && !*doc_attribute(wish, "added"))
                return doc_add_attribute(&e->d, wish, words);
        return 0;
}

static int attach_tpm(Editor *e) {
        const xmlNode *wish = metadata_child(e, "tpm"), *devices = last_of(e->root, "devices", NULL);
        CLEANUP(freep) char *socket = NULL;
        TpmModel model = TPM_MODEL_NONE;
        int r;

        r = find_tpm(e, &model, &socket);
        if (r != 0)
                return r;
        if (model != TPM_MODEL_NONE &&
            (model != e->edit->model || !socket || strcmp(socket, e->edit->socket) != 0))
                return verdict(e, VIRT_EDIT_OTHER,
                               "the guest has a TPM already, of model %s at %.100s; detach it first",
                               tpm_model_name(model), socket ?: "an unknown socket");
        if (wish && !names_tpm(e->edit, doc_attribute(wish, "name")))
                return verdict(e, VIRT_EDIT_OTHER, "the guest's metadata asks for the TPM '%s'",
                               doc_attribute(wish, "name"));
        if (wish && *doc_attribute(wish, "model") &&
            strcmp(doc_attribute(wish, "model"), tpm_model_name(e->edit->model)) != 0)
                return verdict(e, VIRT_EDIT_OTHER, "the guest's metadata asks for a TPM of model %s",
                               doc_attribute(wish, "model"));
        if (!devices)
                return verdict(e, VIRT_EDIT_CANNOT, "the guest has no <devices>");

        if (model == TPM_MODEL_NONE) {
                r = e->edit->model == TPM_MODEL_VIRTIO ? add_device(e, devices) : add_emulated(e, devices);
                if (r != 0)
                        return r;
        }
        return wish && e->added == 0 ? 0 : add_tpm_metadata(e, wish);
}

static int detach_tpm(Editor *e) {
        const xmlNode *wish = metadata_child(e, "tpm");
        const char *words = wish ? doc_attribute(wish, "added") : "";
        unsigned added = 0;
        bool found = false;
        int r;

        for (Added a = 0; a < _ADDED_MAX; a++)
                if (strstr(words, added_words[a]))
                        added |= 1u << a;

        r = remove_device(e, added, &found);
        if (r < 0)
                return r;
        XML_FOREACH_DEVICE(e->root, tpm, "tpm")
                if (xml_tpm_socket(tpm))
                        doc_remove(&e->d, tpm);
        if (found && was_added(added, ADDED_PCI_ROOT))
                remove_pci_root(e);
        r = settle(e, "devices", NULL, false);
        if (r >= 0 && found)
                r = remove_memory(e, added);
        if (r >= 0)
                r = remove_metadata(e, "tpm");
        return r;
}

/* ---- the call ---- */

static bool is_plain(const char *s, const char *also, size_t max) {
        for (const char *p = s; *p; p++)
                if (!(*p >= '0' && *p <= '9') && !(*p >= 'a' && *p <= 'z') && !(*p >= 'A' && *p <= 'Z') &&
                    !strchr(also, *p))
                        return false;
        return *s && strlen(s) <= max;
}

/* What will stand in the XML as it is. */
static bool edit_is_valid(const VirtEdit *edit) {
        if (edit->kind == VIRT_ATTACH_MATRIX)
                return !uuid_is_null(edit->mdev) && (!edit->matrix || is_plain(edit->matrix, "_.:+-", 64));
        if (edit->kind != VIRT_ATTACH_TPM)
                return true;
        return edit->model > TPM_MODEL_NONE && edit->model < _TPM_MODEL_MAX && edit->name &&
               is_plain(edit->name, "_.:+-", 64) && edit->socket &&
               has_prefix(edit->socket, VIRT_TPM_DIR "/") && is_plain(edit->socket, "/_.:+-", 107);
}

static int edit_document(Editor *e) {
        int r = 0;

        e->root = xmlDocGetRootElement(e->d.tree);
        switch (e->edit->kind) {
        case VIRT_ATTACH_MATRIX:
                r = check_metadata(e);
                return r != 0 ? r : attach_matrix(e);
        case VIRT_DETACH_MATRIX:
                return detach_matrix(e);
        case VIRT_ATTACH_TPM:
                r = check_metadata(e);
                return r != 0 ? r : attach_tpm(e);
        case VIRT_DETACH_TPM:
                return detach_tpm(e);
        case _VIRT_EDIT_MAX:
                break;
        }
        return -EINVAL;
}

int virt_xml_edit(const char *xml, size_t size, const VirtEdit *edit, char **ret_xml, char **reterr_text) {
        CLEANUP(editor_clear) Editor e = { .edit = edit };
        int r;

        if (!edit_is_valid(edit))
                return -EINVAL;
        r = doc_parse(&e.d, xml, size);
        if (r >= 0)
                r = edit_document(&e);
        if (r == -EBADMSG && reterr_text)
                *reterr_text = TAKE(e.d.text);
        if (r < 0)
                return r;
        if (r > 0) {
                if (reterr_text)
                        *reterr_text = TAKE(e.text);
                return r;
        }

        if (!doc_is_changed(&e.d)) {
                *ret_xml = NULL;
                return VIRT_EDIT_SAME;
        }
        r = doc_write(&e.d, ret_xml);
        return r < 0 ? r : VIRT_EDIT_DONE;
}
