/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <libxml/parser.h>
#include <libxml/relaxng.h>
#include <libxml/tree.h>
#include <libxml/xmlschemastypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/xml.h"
#include "store/record_internal.h"

static const char matrix_rng[] =
#include "matrix.rng.h"
        ;

typedef enum SeenElement {
        SEEN_NAME,
        SEEN_PARENT,
        SEEN_CAPABILITY,
        SEEN_MATRIX,
        SEEN_TYPE,
        SEEN_UUID,
        SEEN_AP_CONFIG,
        SEEN_ASSIGN,
        _SEEN_MAX
} SeenElement;

typedef struct Reader {
        Record record;
        xmlDoc *doc;
        bool seen[_SEEN_MAX];
        bool has_doctype;
        xmlBuffer *unknown[_UNKNOWN_MAX];
        char *error;
} Reader;

static void reader_clear(Reader *rd) {
        record_clear(&rd->record);
        for (size_t i = 0; i < _UNKNOWN_MAX; i++)
                if (rd->unknown[i])
                        xmlBufferFree(rd->unknown[i]);
        if (rd->doc)
                xmlFreeDoc(rd->doc);
        free(rd->error);
}

/* Keeps the text of the first refusal. It may hold pieces of the input: what is left is one line of ASCII,
 * so that it can go anywhere. */
static int refuse(Reader *rd, long line, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int refuse(Reader *rd, long line, const char *format, ...) {
        CLEANUP(freep) char *text = NULL;
        size_t size;
        va_list ap;
        int n;

        if (rd->error)
                return -EBADMSG;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0) {
                text = NULL;
                return -ENOMEM;
        }

        size = strlen(text);
        while (size > 0 && text[size - 1] == '\n')
                text[--size] = '\0';
        for (char *p = text; *p; p++)
                if (*p < 0x20 || *p > 0x7e)
                        *p = '?';

        if (line > 0) {
                if (asprintf(&rd->error, "line %ld: %s", line, text) < 0) {
                        rd->error = NULL;
                        return -ENOMEM;
                }
        } else
                rd->error = TAKE(text);

        return -EBADMSG;
}

static long line_of(const xmlNode *node) {
        return xmlGetLineNo(node);
}

static bool is_named(const xmlNode *node, const char *name) {
        return strcmp((const char *) node->name, name) == 0;
}

static bool is_blank(const char *s) {
        return s[strspn(s, " \t\r\n")] == '\0';
}

/* The children of an attribute or of an element that holds only text. */
static int text_of(Reader *rd, const xmlNode *node, const xmlNode *children, const char **ret) {
        if (!children) {
                *ret = "";
                return 0;
        }
        if (children->type != XML_TEXT_NODE || children->next)
                return refuse(rd, line_of(node), "<%s> holds more than text", node->name);

        *ret = (const char *) children->content;
        return 0;
}

static int refuse_attributes(Reader *rd, const xmlNode *node) {
        if (node->properties)
                return refuse(rd, line_of(node), "unknown attribute '%.40s' of <%s>", node->properties->name,
                              node->name);

        return 0;
}

/* The value of attribute @name, or NULL. */
static int attribute_of(Reader *rd, const xmlNode *node, const char *name, const char **ret) {
        *ret = NULL;

        for (const xmlAttr *a = node->properties; a; a = a->next)
                if (!a->ns && strcmp((const char *) a->name, name) == 0)
                        return text_of(rd, node, a->children, ret);

        return 0;
}

/* The value of attribute @name, which must be the only one or one of two. */
static int only_attributes(Reader *rd, const xmlNode *node, const char *name, const char *other) {
        for (const xmlAttr *a = node->properties; a; a = a->next)
                if (a->ns || (strcmp((const char *) a->name, name) != 0 &&
                              (!other || strcmp((const char *) a->name, other) != 0)))
                        return refuse(rd, line_of(node), "unknown attribute '%.40s' of <%s>", a->name,
                                      node->name);

        return 0;
}

static int no_children(Reader *rd, const xmlNode *node) {
        for (const xmlNode *c = node->children; c; c = c->next)
                if (c->type != XML_COMMENT_NODE &&
                    !(c->type == XML_TEXT_NODE && is_blank((const char *) c->content)))
                        return refuse(rd, line_of(node), "<%s> is not empty", node->name);

        return 0;
}

static int see(Reader *rd, const xmlNode *node, SeenElement what) {
        if (rd->seen[what])
                return refuse(rd, line_of(node), "a second <%s>", node->name);

        rd->seen[what] = true;
        return 0;
}

static int unknown_buffer(Reader *rd, UnknownPlace place, xmlBuffer **ret) {
        if (!rd->unknown[place])
                rd->unknown[place] = xmlBufferCreate();
        if (!rd->unknown[place])
                return -ENOMEM;

        *ret = rd->unknown[place];
        return 0;
}

/* libxml2 writes the names of name spaces as they are, so they must not hold what needs escaping. The depth
 * of a document is limited by the parser. */
static int check_namespaces(Reader *rd, const xmlNode *node) {
        int r;

        for (const xmlNs *ns = node->nsDef; ns; ns = ns->next)
                for (const char *p = (const char *) ns->href ?: ""; *p; p++)
                        if (*p <= ' ' || *p > '~' || strchr("<>&\"'", *p))
                                return refuse(rd, line_of(node),
                                              "the name space of prefix '%.40s' is not a URI",
                                              ns->prefix ? (const char *) ns->prefix : "");

        for (const xmlNode *c = node->children; c; c = c->next)
                if (c->type == XML_ELEMENT_NODE) {
                        r = check_namespaces(rd, c);
                        if (r < 0)
                                return r;
                }

        return 0;
}

static int keep_node(Reader *rd, UnknownPlace place, xmlNode *node) {
        xmlBuffer *b;
        int r;

        r = unknown_buffer(rd, place, &b);
        if (r < 0)
                return r;

        if (xmlBufferCat(b, BAD_CAST(place == UNKNOWN_CAPABILITY ? "    " : "  ")) != 0 ||
            xmlNodeDump(b, rd->doc, node, 0, 0) < 0 || xmlBufferCat(b, BAD_CAST "\n") != 0)
                return -ENOMEM;

        return 0;
}

/* Keeps the name space declarations of @node, which its unknown children may need, and its attributes of
 * other name spaces. */
static int keep_attributes(Reader *rd, UnknownPlace place, const xmlNode *node) {
        xmlBuffer *b;
        int r;

        for (const xmlNs *ns = node->nsDef; ns; ns = ns->next) {
                if (!ns->prefix)
                        continue;
                r = unknown_buffer(rd, place, &b);
                if (r < 0)
                        return r;
                if (xmlBufferCat(b, BAD_CAST " xmlns:") != 0 || xmlBufferCat(b, ns->prefix) != 0 ||
                    xmlBufferCat(b, BAD_CAST "=") != 0)
                        return -ENOMEM;
                xmlBufferWriteQuotedString(b, ns->href);
        }

        for (const xmlAttr *a = node->properties; a; a = a->next) {
                if (!a->ns)
                        continue;
                if (strcmp((const char *) a->ns->href, RECORD_NAMESPACE) == 0)
                        return refuse(rd, line_of(node), "unknown attribute '%.40s' of <%s>", a->name,
                                      node->name);
                r = unknown_buffer(rd, place, &b);
                if (r < 0)
                        return r;
                if (xmlNodeDump(b, rd->doc, (xmlNode *) a, 0, 0) < 0)
                        return -ENOMEM;
        }

        return 0;
}

/* Decimal or 0x. */
static int read_id(Reader *rd, const xmlNode *node, const char *what, const char *s, uint8_t *ret) {
        bool hex = strncmp(s, "0x", 2) == 0;
        const char *digits = hex ? s + 2 : s;
        size_t n = strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789");
        unsigned long value;

        if (n == 0 || digits[n])
                return refuse(rd, line_of(node), "%s '%.40s' is not a number in decimal or with 0x", what,
                              s);
        if (!hex && n > 1 && *digits == '0')
                return refuse(rd, line_of(node), "%s '%.40s' has a leading zero: is it octal?", what, s);

        value = n > 16 ? AP_IDS : strtoul(digits, NULL, hex ? 16 : 10);
        if (value >= AP_IDS)
                return refuse(rd, line_of(node), "%s '%.40s' is above 255", what, s);

        *ret = (uint8_t) value;
        return 0;
}

static int read_ap_config(Reader *rd, const xmlNode *node, const char *value) {
        /* the kernel takes shorter masks, but left-aligned: "0x3" is adapters 6 and 7 to a person, 2 and 3
         * to it */
        if (strlen(value) != AP_MATRIX_STRING_SIZE - 1 || ap_matrix_parse(value, &rd->record.matrix) < 0)
                return refuse(rd, line_of(node),
                              "ap_config is not three masks of 0x and 64 digits with commas between");

        return 0;
}

static int read_attr(Reader *rd, const xmlNode *node) {
        static const struct {
                const char *name, *what;
                size_t mask;
        } assigns[] = {
                { "assign_adapter", "adapter", offsetof(ApMatrix, adapters) },
                { "assign_domain", "domain", offsetof(ApMatrix, domains) },
                { "assign_control_domain", "control domain", offsetof(ApMatrix, control) },
        };
        const char *name, *value;
        int r;

        r = only_attributes(rd, node, "name", "value");
        if (r < 0)
                return r;
        r = attribute_of(rd, node, "name", &name);
        if (r < 0)
                return r;
        r = attribute_of(rd, node, "value", &value);
        if (r < 0)
                return r;
        r = no_children(rd, node);
        if (r < 0)
                return r;
        if (!name || !value)
                return refuse(rd, line_of(node), "<attr> has no %s", name ? "value" : "name");

        if (strcmp(name, "ap_config") == 0) {
                if (rd->seen[SEEN_ASSIGN])
                        return refuse(rd, line_of(node), "ap_config beside single assignments");
                if (rd->seen[SEEN_AP_CONFIG])
                        return refuse(rd, line_of(node), "a second ap_config");
                rd->seen[SEEN_AP_CONFIG] = true;
                return read_ap_config(rd, node, value);
        }

        for (size_t i = 0; i < ELEMENTS(assigns); i++) {
                ApMask *mask = (ApMask *) ((char *) &rd->record.matrix + assigns[i].mask);
                uint8_t id = 0;

                if (strcmp(name, assigns[i].name) != 0)
                        continue;

                if (rd->seen[SEEN_AP_CONFIG])
                        return refuse(rd, line_of(node), "%s beside ap_config", name);
                rd->seen[SEEN_ASSIGN] = true;

                r = read_id(rd, node, assigns[i].what, value, &id);
                if (r < 0)
                        return r;
                if (ap_mask_test(mask, id))
                        return refuse(rd, line_of(node), "%s 0x%02x is there twice", assigns[i].what, id);
                ap_mask_set(mask, id);
                return 0;
        }

        return refuse(rd, line_of(node), "unknown attribute '%.40s' of a matrix device", name);
}

static int read_type(Reader *rd, const xmlNode *node) {
        const char *id;
        int r;

        r = see(rd, node, SEEN_TYPE);
        if (r < 0)
                return r;
        r = only_attributes(rd, node, "id", NULL);
        if (r < 0)
                return r;
        r = attribute_of(rd, node, "id", &id);
        if (r < 0)
                return r;
        if (!id)
                return refuse(rd, line_of(node), "<type> has no id");
        if (strcmp(id, RECORD_TYPE) != 0)
                return refuse(rd, line_of(node), "type '%.60s' is not '" RECORD_TYPE "'", id);

        return no_children(rd, node);
}

/* An element of nothing but text, which may be there once. */
static int read_text(Reader *rd, const xmlNode *node, SeenElement what, const char **ret) {
        int r;

        r = see(rd, node, what);
        if (r < 0)
                return r;
        r = refuse_attributes(rd, node);
        if (r < 0)
                return r;

        return text_of(rd, node, node->children, ret);
}

static int read_uuid(Reader *rd, const xmlNode *node) {
        const char *s = NULL;
        int r;

        r = read_text(rd, node, SEEN_UUID, &s);
        if (r < 0)
                return r;
        if (uuid_parse(s, &rd->record.uuid) < 0)
                return refuse(rd, line_of(node), "'%.40s' is not a UUID of 36 characters", s);
        if (uuid_is_null(rd->record.uuid))
                return refuse(rd, line_of(node), "the UUID is null");

        return 0;
}

static int read_parent(Reader *rd, const xmlNode *node) {
        const char *s = NULL;
        int r;

        r = read_text(rd, node, SEEN_PARENT, &s);
        if (r < 0)
                return r;
        if (strcmp(s, RECORD_PARENT) != 0)
                return refuse(rd, line_of(node), "parent '%.60s' is not '" RECORD_PARENT "'", s);

        return 0;
}

/* libvirt's name of the device: it follows from the UUID and is written anew. */
static int read_name(Reader *rd, const xmlNode *node) {
        const char *s = NULL;

        return read_text(rd, node, SEEN_NAME, &s);
}

/* Elements that mean something, in a place where they mean nothing. */
static int refuse_misplaced(Reader *rd, const xmlNode *node) {
        static const char *const names[] = {
                "device", "name", "parent", "capability", "type", "uuid", "attr"
        };

        for (size_t i = 0; i < ELEMENTS(names); i++)
                if (!node->ns && is_named(node, names[i]))
                        return refuse(rd, line_of(node), "<%s> does not belong into <%s>", names[i],
                                      node->parent->name);
        if (node->ns && strcmp((const char *) node->ns->href, RECORD_NAMESPACE) == 0)
                return refuse(rd, line_of(node), "unknown element <%.40s> of " RECORD_NAMESPACE, node->name);

        return 0;
}

/* What is neither an element nor blank: comments and processing instructions are kept, text is refused. */
static int read_other(Reader *rd, UnknownPlace place, xmlNode *node) {
        switch (node->type) {
        case XML_COMMENT_NODE:
        case XML_PI_NODE:
                return keep_node(rd, place, node);
        case XML_TEXT_NODE:
                if (is_blank((const char *) node->content))
                        return 0;
                /* fall through */
        default:
                return refuse(rd, line_of(node), "unexpected text in <%s>", node->parent->name);
        }
}

static int read_capability(Reader *rd, const xmlNode *node) {
        const char *type;
        int r;

        r = see(rd, node, SEEN_CAPABILITY);
        if (r < 0)
                return r;
        r = attribute_of(rd, node, "type", &type);
        if (r < 0)
                return r;
        if (!type || strcmp(type, "mdev") != 0)
                return refuse(rd, line_of(node), "capability '%.40s' is not 'mdev'", type ?: "");
        for (const xmlAttr *a = node->properties; a; a = a->next)
                if (!a->ns && strcmp((const char *) a->name, "type") != 0)
                        return refuse(rd, line_of(node), "unknown attribute '%.40s' of <capability>",
                                      a->name);
        r = keep_attributes(rd, UNKNOWN_CAPABILITY_ATTRIBUTES, node);
        if (r < 0)
                return r;

        for (xmlNode *c = node->children; c; c = c->next) {
                if (c->type != XML_ELEMENT_NODE)
                        r = read_other(rd, UNKNOWN_CAPABILITY, c);
                else if (!c->ns && is_named(c, "attr"))
                        r = read_attr(rd, c);
                else if (!c->ns && is_named(c, "type"))
                        r = read_type(rd, c);
                else if (!c->ns && is_named(c, "uuid"))
                        r = read_uuid(rd, c);
                else {
                        r = refuse_misplaced(rd, c);
                        if (r >= 0)
                                r = keep_node(rd, UNKNOWN_CAPABILITY, c);
                }
                if (r < 0)
                        return r;
        }

        if (!rd->seen[SEEN_TYPE])
                return refuse(rd, line_of(node), "<capability> has no <type>");
        return 0;
}

static int read_flag(Reader *rd, const xmlNode *node, const char *name, const char *value, bool *ret) {
        if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
                return refuse(rd, line_of(node), "%s='%.40s' is neither yes nor no", name, value);

        *ret = value[0] == 'y';
        return 0;
}

static int read_version(Reader *rd, const xmlNode *node, const char *value) {
        if (strspn(value, "0123456789") != strlen(value) || *value == '0' || !*value)
                return refuse(rd, line_of(node), "version '%.40s' is not a number", value);
        if (strlen(value) > 9 || strtoul(value, NULL, 10) > RECORD_VERSION)
                return refuse(rd, line_of(node), "version %.40s is newer than %d, the newest known here",
                              value, RECORD_VERSION);

        return 0;
}

static int read_uid(Reader *rd, const xmlNode *node, const char *value) {
        unsigned long uid;
        char *end;

        errno = 0;
        uid = strtoul(value, &end, 10);
        if (value[0] < '0' || value[0] > '9' || *end || errno != 0 || uid >= UINT32_MAX)
                return refuse(rd, line_of(node), "uid '%.40s' is not valid", value);

        rd->record.uid = (uid_t) uid;
        return 0;
}

/* Our own element. */
static int read_matrix(Reader *rd, const xmlNode *node) {
        const char *version;
        int r;

        if (rd->seen[SEEN_MATRIX])
                return refuse(rd, line_of(node), "a second <matrix> of " RECORD_NAMESPACE);
        rd->seen[SEEN_MATRIX] = true;

        /* first, since a newer version may have any attributes */
        r = attribute_of(rd, node, "version", &version);
        if (r < 0)
                return r;
        if (version) {
                r = read_version(rd, node, version);
                if (r < 0)
                        return r;
        }

        for (const xmlAttr *a = node->properties; a; a = a->next) {
                const char *name = (const char *) a->name, *value = NULL;
                size_t i;

                r = text_of(rd, node, a->children, &value);
                if (r < 0)
                        return r;

                for (i = 0; i < N_RECORD_FLAGS && strcmp(name, record_flags[i].name) != 0; i++)
                        ;
                if (a->ns)
                        r = refuse(rd, line_of(node), "unknown attribute '%.40s' of <matrix>", name);
                else if (i < N_RECORD_FLAGS)
                        r = read_flag(rd, node, name, value, record_flag(&rd->record, i));
                else if (strcmp(name, "name") == 0) {
                        if (!record_name_is_valid(value))
                                return refuse(rd, line_of(node), "name '%.80s' is not valid", value);
                        rd->record.name = strdup(value);
                        r = rd->record.name ? 0 : -ENOMEM;
                } else if (strcmp(name, "guest") == 0) {
                        if (!record_guest_is_valid(value))
                                return refuse(rd, line_of(node), "guest '%.80s' is not valid", value);
                        rd->record.guest = strdup(value);
                        r = rd->record.guest ? 0 : -ENOMEM;
                } else if (strcmp(name, "guest-uuid") == 0) {
                        if (uuid_parse(value, &rd->record.guest_uuid) < 0)
                                return refuse(rd, line_of(node), "guest-uuid '%.80s' is not valid", value);
                } else if (strcmp(name, "mdevctl") == 0) {
                        if (!record_mdevctl_is_valid(value))
                                return refuse(rd, line_of(node), "what mdevctl had is no line of text");
                        rd->record.mdevctl = strdup(value);
                        r = rd->record.mdevctl ? 0 : -ENOMEM;
                } else if (strcmp(name, "uid") == 0)
                        r = read_uid(rd, node, value);
                else if (strcmp(name, "version") != 0)
                        r = refuse(rd, line_of(node), "unknown attribute '%.40s' of <matrix>", name);
                if (r < 0)
                        return r;
        }
        if (!rd->record.guest)
                rd->record.guest_uuid = (Uuid) {};

        return no_children(rd, node);
}

static int read_device(Reader *rd, const xmlNode *root) {
        int r;

        if (root->ns)
                return refuse(rd, line_of(root), "the root element is of name space '%.60s'",
                              root->ns->href);
        if (!is_named(root, "device"))
                return refuse(rd, line_of(root), "the root element is <%.40s>, not <device>", root->name);
        for (const xmlAttr *a = root->properties; a; a = a->next)
                if (!a->ns)
                        return refuse(rd, line_of(root), "unknown attribute '%.40s' of <device>", a->name);
        r = check_namespaces(rd, root);
        if (r < 0)
                return r;
        r = keep_attributes(rd, UNKNOWN_DEVICE_ATTRIBUTES, root);
        if (r < 0)
                return r;

        for (xmlNode *c = root->children; c; c = c->next) {
                if (c->type != XML_ELEMENT_NODE)
                        r = read_other(rd, UNKNOWN_END, c);
                else if (!c->ns && is_named(c, "name"))
                        r = read_name(rd, c);
                else if (!c->ns && is_named(c, "parent"))
                        r = read_parent(rd, c);
                else if (!c->ns && is_named(c, "capability"))
                        r = read_capability(rd, c);
                else if (c->ns && strcmp((const char *) c->ns->href, RECORD_NAMESPACE) == 0 &&
                         is_named(c, "matrix"))
                        r = read_matrix(rd, c);
                else {
                        r = refuse_misplaced(rd, c);
                        if (r >= 0)
                                r = keep_node(rd,
                                              c->ns ? UNKNOWN_END
                                              : is_named(c, "path") || is_named(c, "devnode")
                                                      ? UNKNOWN_BEFORE_PARENT
                                                      : UNKNOWN_AFTER_PARENT,
                                              c);
                }
                if (r < 0)
                        return r;
        }

        if (!rd->seen[SEEN_PARENT])
                return refuse(rd, line_of(root), "<device> has no <parent>");
        if (!rd->seen[SEEN_CAPABILITY])
                return refuse(rd, line_of(root), "<device> has no <capability>");
        return 0;
}

static int join_unknown(Reader *rd) {
        size_t size = 0;
        char *p;

        for (size_t i = 0; i < _UNKNOWN_MAX; i++)
                if (rd->unknown[i])
                        size += (size_t) xmlBufferLength(rd->unknown[i]);
        if (size == 0)
                return 0;
        if (size > RECORD_UNKNOWN_MAX)
                return refuse(rd, 0, "more than %d bytes of elements that mean nothing here",
                              RECORD_UNKNOWN_MAX);

        p = rd->record.unknown = malloc(size + _UNKNOWN_MAX);
        if (!p)
                return -ENOMEM;
        for (size_t i = 0; i < _UNKNOWN_MAX; i++) {
                if (i > 0)
                        *p++ = *UNKNOWN_SEPARATOR;
                if (rd->unknown[i])
                        p = stpcpy(p, (const char *) xmlBufferContent(rd->unknown[i]));
        }
        *p = '\0';

        return 0;
}

static void on_doctype(void *userdata, const xmlChar *name, const xmlChar *public_id,
                       const xmlChar *system_id) {
        xmlParserCtxt *ctxt = userdata;
        Reader *rd = ctxt->_private;

        /* nothing of it is looked at, so that it can define no entity and name no file */
        rd->has_doctype = true;
        (void) refuse(rd, ctxt->input->line, "a document type declaration is not accepted");
        xmlStopParser(ctxt);
}

static int parse(Reader *rd, const char *xml, size_t size) {
        xmlParserCtxt *ctxt = xmlNewParserCtxt();
        int r = 0;

        if (!ctxt)
                return -ENOMEM;

        ctxt->sax->internalSubset = on_doctype;
        ctxt->_private = rd;
        rd->doc = xmlCtxtReadMemory(ctxt, xml, (int) size, NULL, NULL,
                                    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
                                            XML_PARSE_COMPACT);
        if (rd->has_doctype)
                r = rd->error ? -EBADMSG : -ENOMEM;
        else if (!rd->doc) {
                const xmlError *e = xmlCtxtGetLastError(ctxt);

                if (e && e->code == XML_ERR_NO_MEMORY)
                        r = -ENOMEM;
                else
                        r = refuse(rd, e ? e->line : 0, "not well-formed: %.200s",
                                   e && e->message ? e->message : "empty");
        }

        xmlFreeParserCtxt(ctxt);
        return r;
}

static void on_schema_error(void *userdata, XmlError *e) {
        (void) refuse(userdata, e->line, "not valid: %.200s", e->message ?: "");
}

/* What the reader has found nothing wrong with must still be what the schema says. */
static int validate(Reader *rd) {
        int r = xml_validate(matrix_rng, sizeof matrix_rng - 1, rd->doc, on_schema_error, rd);

        return r > 0 ? refuse(rd, 0, "not valid") : r;
}

/* Whether the input is byte for byte what we write for it: then it is valid, at a tenth of the cost of
 * asking the schema. */
static bool is_as_written(const Record *r, const char *xml, size_t size) {
        CLEANUP(freep) char *text = NULL;

        return record_to_xml(r, &text) >= 0 && strlen(text) == size && memcmp(text, xml, size) == 0;
}

/* libxml2 makes these tables when it first needs them, without looking whether another thread is about to do
 * the same. */
static void init_libxml2(void) {
        xmlInitParser();
        (void) xmlRelaxNGInitTypes();
        xmlSchemaInitTypes();
}

static int read_document(Reader *rd, const char *xml, size_t size) {
        int r;

        if (size > RECORD_XML_MAX)
                return refuse(rd, 0, "%zu bytes are more than %d", size, RECORD_XML_MAX);
        if (size == 0)
                return refuse(rd, 0, "empty");

        r = parse(rd, xml, size);
        if (r < 0)
                return r;

        /* so that what is kept is written the same way whatever the input was encoded in, and whatever libxml2's version:
         * with no encoding at all old ones escape what is not ASCII in attributes, and only there */
        xmlFree((xmlChar *) rd->doc->encoding);
        rd->doc->encoding = xmlStrdup(BAD_CAST "UTF-8");
        if (!rd->doc->encoding)
                return -ENOMEM;

        r = read_device(rd, xmlDocGetRootElement(rd->doc));
        if (r < 0)
                return r;
        r = join_unknown(rd);
        if (r < 0)
                return r;

        if (is_as_written(&rd->record, xml, size))
                return 0;
        return validate(rd);
}

int record_from_xml(const char *xml, size_t size, Record *ret, char **reterr_text) {
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        CLEANUP(reader_clear) Reader rd = {};
        xmlStructuredErrorFunc old_handler;
        void *old_userdata;
        int r;

        (void) pthread_once(&once, init_libxml2);

        /* character set converters report to this thread's handler only, which would write to stderr */
        old_handler = xmlStructuredError;
        old_userdata = xmlStructuredErrorContext;
        xmlSetStructuredErrorFunc(NULL, xml_ignore_error);
        r = read_document(&rd, xml, size);
        xmlSetStructuredErrorFunc(old_userdata, old_handler);
        if (r == -EBADMSG && reterr_text)
                *reterr_text = TAKE(rd.error);
        if (r < 0)
                return r;

        *ret = rd.record;
        rd.record = (Record) {};
        return 0;
}
