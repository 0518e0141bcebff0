/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <libxml/SAX2.h>
#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/xml.h"
#include "virt/virt_doc.h"
#include "virt/virt_xml.h"

#define PLACES_MAX (1024 * 1024)
#define TEXT_MAX   300
#define TAG_MAX    65536 /* libxml2 compares each attribute with all before it */

char *doc_line(const char *format, va_list ap) {
        char *text;
        size_t size;

        if (vasprintf(&text, format, ap) < 0)
                return NULL;

        size = strnlen(text, TEXT_MAX);
        text[size] = '\0';
        while (size > 0 && text[size - 1] == '\n')
                text[--size] = '\0';
        for (char *p = text; *p; p++)
                if (*p < 0x20 || *p > 0x7e)
                        *p = '?';
        return text;
}

int doc_refuse(Doc *d, long line, const char *format, ...) {
        CLEANUP(freep) char *text = NULL;
        va_list ap;

        if (d->error < 0)
                return d->error;

        va_start(ap, format);
        text = doc_line(format, ap);
        va_end(ap);
        if (!text)
                return d->error = -ENOMEM;

        if (line <= 0)
                d->text = TAKE(text);
        else if (asprintf(&d->text, "line %ld: %s", line, text) < 0) {
                d->text = NULL;
                return d->error = -ENOMEM;
        }
        return d->error = -EBADMSG;
}

void doc_clear(Doc *d) {
        if (d->tree)
                xmlFreeDoc(d->tree);
        for (size_t i = 0; i < d->n_splices; i++)
                free(d->splices[i].text);
        free(d->splices);
        free(d->places);
        free(d->text);
        *d = (Doc) {};
}

static bool is_space(char c) {
        return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* ---- reading ---- */

/* The parser tells elements in their order but not where they stand, so that this goes through the text beside it, from
 * tag to tag. What the parser has accepted is well-formed: that is all this relies on, and names are compared. */
typedef struct Tag {
        size_t start, end, name, name_end;
        bool closing, empty;
} Tag;

static int skip_to(Doc *d, size_t from, const char *what) {
        const char *p = from < d->size ? memmem(d->xml + from, d->size - from, what, strlen(what)) : NULL;

        if (!p)
                return -EBADMSG;
        d->at = (size_t) (p - d->xml) + strlen(what);
        return 0;
}

static bool at_text(const Doc *d, const char *what) {
        return d->size - d->at >= strlen(what) && memcmp(d->xml + d->at, what, strlen(what)) == 0;
}

static int next_tag(Doc *d, Tag *ret) {
        Tag t = {};
        char quote = 0;
        const char *p;
        int r;

        for (;;) {
                p = d->at < d->size ? memchr(d->xml + d->at, '<', d->size - d->at) : NULL;
                if (!p)
                        return -EBADMSG;
                d->at = (size_t) (p - d->xml);
                if (at_text(d, "<!--"))
                        r = skip_to(d, d->at + 4, "-->");
                else if (at_text(d, "<![CDATA["))
                        r = skip_to(d, d->at + 9, "]]>");
                else if (at_text(d, "<?"))
                        r = skip_to(d, d->at + 2, "?>");
                else
                        break;
                if (r < 0)
                        return r;
        }

        t.start = d->at;
        t.closing = at_text(d, "</");
        t.name = t.name_end = t.start + (t.closing ? 2 : 1);
        while (t.name_end < d->size && !is_space(d->xml[t.name_end]) && d->xml[t.name_end] != '/' &&
               d->xml[t.name_end] != '>')
                t.name_end++;
        for (t.end = t.name_end; t.end < d->size; t.end++) {
                char c = d->xml[t.end];

                if (quote) {
                        if (c == quote)
                                quote = 0;
                } else if (c == '"' || c == '\'')
                        quote = c;
                else if (c == '>')
                        break;
        }
        if (t.end >= d->size)
                return -EBADMSG;
        t.empty = !t.closing && d->xml[t.end - 1] == '/';
        d->at = ++t.end;
        *ret = t;
        return 0;
}

static int check_tags(Doc *d) {
        Tag t = {};

        while (next_tag(d, &t) >= 0)
                if (t.end - t.start > TAG_MAX)
                        break;
        /* one that is not ended, too */
        if (t.end - t.start > TAG_MAX ||
            (d->at < d->size && d->xml[d->at] == '<' && d->size - d->at > TAG_MAX))
                return doc_refuse(d, 0, "a tag of more than %d bytes", TAG_MAX);
        d->at = 0;
        return 0;
}

static bool tag_is(const Doc *d, const Tag *t, const xmlChar *local, const xmlChar *prefix) {
        size_t size = t->name_end - t->name, n_prefix = prefix ? strlen((const char *) prefix) + 1 : 0;
        const char *name = d->xml + t->name;

        if (size != n_prefix + strlen((const char *) local))
                return false;
        if (prefix && (memcmp(name, prefix, n_prefix - 1) != 0 || name[n_prefix - 1] != ':'))
                return false;
        return memcmp(name + n_prefix, local, size - n_prefix) == 0;
}

static bool is_uri(const xmlChar *uri, const char *wanted) {
        return uri && strcmp((const char *) uri, wanted) == 0;
}

static bool is_one_of(const xmlChar *name, const char *const *names) {
        for (; *names; names++)
                if (strcmp((const char *) name, *names) == 0)
                        return true;
        return false;
}

/* Whether an element is looked at by anybody. @parent is; NULL: this is the root. */
static bool is_kept(const xmlNode *parent, const xmlChar *local, const xmlChar *prefix, const xmlChar *uri) {
        static const char *const top[] = { "name",          "uuid", "metadata", "memory",  "currentMemory",
                                           "memoryBacking", "os",   "cpu",      "devices", NULL };
        static const char *const devices[] = { "emulator", "controller", "hostdev", "tpm", NULL };
        const char *name;

        if (!parent)
                return true;
        if (!parent->parent->parent) /* the root's child */
                return is_uri(uri, DOC_QEMU_URI) || (!uri && !prefix && is_one_of(local, top));
        if (parent->parent->parent->parent || parent->ns)
                return true;

        name = (const char *) parent->name;
        if (strcmp(name, "metadata") == 0)
                return is_uri(uri, VIRT_METADATA_URI) && strcmp((const char *) local, "devices") == 0;
        if (strcmp(name, "devices") == 0)
                return !uri && !prefix && is_one_of(local, devices);
        return strcmp(name, "memoryBacking") == 0 || strcmp(name, "os") == 0 || strcmp(name, "cpu") == 0;
}

/* Attributes as the parser gives them: local name, prefix, name space, value, its end. */
static bool sax_number(const xmlChar **attributes, int n, const char *name, unsigned long *ret) {
        for (int i = 0; i < n; i++, attributes += 5) {
                char text[16] = "";

                if (attributes[1] || strcmp((const char *) attributes[0], name) != 0)
                        continue;
                if ((size_t) (attributes[4] - attributes[3]) < sizeof text)
                        memcpy(text, attributes[3], (size_t) (attributes[4] - attributes[3]));
                *ret = strtoul(text, NULL, 0);
                return true;
        }
        return false;
}

static bool sax_is_pci(const xmlChar **attributes, int n) {
        for (int i = 0; i < n; i++, attributes += 5)
                if (!attributes[1] && strcmp((const char *) attributes[0], "type") == 0)
                        return attributes[4] - attributes[3] == 3 && memcmp(attributes[3], "pci", 3) == 0;
        return false;
}

static void note_address(Doc *d, const xmlChar **attributes, int n) {
        unsigned long domain = 0, bus = 0, slot = 0;

        if (!sax_is_pci(attributes, n))
                return;
        (void) sax_number(attributes, n, "domain", &domain);
        (void) sax_number(attributes, n, "bus", &bus);
        if (domain == 0 && bus == 0 && sax_number(attributes, n, "slot", &slot) && slot < 32)
                d->slots |= UINT32_C(1) << slot;
}

static int fail(xmlParserCtxt *ctxt, int r) {
        Doc *d = ctxt->_private;

        if (r < 0 && d->error == 0)
                (void) doc_refuse(d, ctxt->input->line, "cannot be followed");
        if (d->error < 0)
                xmlStopParser(ctxt);
        return d->error;
}

static int add_place(Doc *d, const Tag *t, size_t *ret) {
        if (d->n_places >= PLACES_MAX)
                return doc_refuse(d, 0, "more than %d elements", PLACES_MAX);
        if (d->n_places == d->capacity) {
                size_t capacity = 2 * d->capacity + 64;
                Place *bigger = reallocarray(d->places, capacity, sizeof *bigger);

                if (!bigger)
                        return d->error = -ENOMEM;
                d->places = bigger;
                d->capacity = capacity;
        }

        d->places[d->n_places] =
                (Place) { .start = t->start, .inner = t->end, .outer = t->end, .end = t->end };
        *ret = ++d->n_places;
        return 0;
}

static void on_start(void *userdata, const xmlChar *local, const xmlChar *prefix, const xmlChar *uri,
                     int n_ns, const xmlChar **ns, int n_attributes, int n_defaulted,
                     const xmlChar **attributes) {
        xmlParserCtxt *ctxt = userdata;
        Doc *d = ctxt->_private;
        size_t place = 0;
        Tag t;

        if (d->error < 0)
                return;
        if (next_tag(d, &t) < 0 || t.closing || !tag_is(d, &t, local, prefix)) {
                (void) fail(ctxt, -EBADMSG);
                return;
        }

        if (!ctxt->node && (uri || strcmp((const char *) local, "domain") != 0))
                (void) doc_refuse(d, ctxt->input->line,
                                  "the root element is <%.40s>%s, not libvirt's <domain>", local,
                                  uri ? " of a name space" : "");
        if (!uri && strcmp((const char *) local, "address") == 0)
                note_address(d, attributes, n_attributes);

        d->empty = t.empty;
        if (d->skip > 0 || !is_kept(ctxt->node, local, prefix, uri)) {
                if (is_uri(uri, VIRT_METADATA_URI))
                        d->n_misplaced++;
                if (d->skip++ == 0)
                        d->skip_start = t.start;
                (void) fail(ctxt, 0);
                return;
        }

        if (add_place(d, &t, &place) >= 0) {
                xmlNode *parent = ctxt->node;

                xmlSAX2StartElementNs(ctxt, local, prefix, uri, n_ns, ns, n_attributes, n_defaulted,
                                      attributes);
                if (!ctxt->node || ctxt->node == parent)
                        d->error = d->error ?: -ENOMEM;
                else
                        ctxt->node->_private = (void *) (uintptr_t) place;
        }
        (void) fail(ctxt, 0);
}

static void on_end(void *userdata, const xmlChar *local, const xmlChar *prefix, const xmlChar *uri) {
        xmlParserCtxt *ctxt = userdata;
        Doc *d = ctxt->_private;
        size_t start = d->skip_start;
        xmlNode *parent = ctxt->node;
        Tag t = { .start = d->at, .end = d->at };

        if (d->error < 0)
                return;
        if (!d->empty && (next_tag(d, &t) < 0 || !t.closing || !tag_is(d, &t, local, prefix))) {
                (void) fail(ctxt, -EBADMSG);
                return;
        }
        d->empty = false; /* <x/> is one tag, and two calls */

        if (d->skip > 0) {
                if (--d->skip > 0)
                        return;
        } else {
                Place *p = doc_place(d, ctxt->node);

                p->outer = t.start;
                p->end = t.end;
                start = p->start;
                parent = ctxt->node->parent;
                xmlSAX2EndElementNs(ctxt, local, prefix, uri);
        }
        if (parent && parent->type == XML_ELEMENT_NODE) {
                doc_place(d, parent)->last_start = start;
                doc_place(d, parent)->last_end = t.end;
        }
}

static void on_text(void *userdata, const xmlChar *text, int size) {
        xmlParserCtxt *ctxt = userdata;
        Doc *d = ctxt->_private;

        /* the root's is but white space, and much */
        if (d->error < 0 || d->skip > 0 || !ctxt->node || !ctxt->node->parent->parent)
                return;
        xmlSAX2Characters(ctxt, text, size);
}

static void on_doctype(void *userdata, const xmlChar *name, const xmlChar *public_id,
                       const xmlChar *system_id) {
        xmlParserCtxt *ctxt = userdata;

        /* nothing of it is looked at, so that it can define no entity and name no file */
        (void) doc_refuse(ctxt->_private, ctxt->input->line, "a document type declaration is not accepted");
        xmlStopParser(ctxt);
}

static int parse(Doc *d) {
        xmlParserCtxt *ctxt = xmlNewParserCtxt();

        if (!ctxt)
                return -ENOMEM;

        ctxt->_private = d;
        ctxt->sax->internalSubset = on_doctype;
        ctxt->sax->startElementNs = on_start;
        ctxt->sax->endElementNs = on_end;
        ctxt->sax->characters = ctxt->sax->ignorableWhitespace = ctxt->sax->cdataBlock = on_text;
        ctxt->sax->comment = NULL;
        ctxt->sax->processingInstruction = NULL;
        /* NOENT: there are none but the five and those of numbers, which are to be read as what they stand for */
        d->tree = xmlCtxtReadMemory(ctxt, d->xml, (int) d->size, NULL, "UTF-8",
                                    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
                                            XML_PARSE_NOENT | XML_PARSE_IGNORE_ENC);
        if (!d->tree && d->error == 0) {
                const xmlError *e = xmlCtxtGetLastError(ctxt);

                if (e && e->code == XML_ERR_NO_MEMORY)
                        d->error = -ENOMEM;
                else
                        (void) doc_refuse(d, e ? e->line : 0, "not well-formed: %.200s",
                                          e && e->message ? e->message : "empty");
        }

        xmlFreeParserCtxt(ctxt);
        return d->error;
}

int doc_parse(Doc *d, const char *xml, size_t size) {
        xmlStructuredErrorFunc old_handler;
        void *old_userdata;
        int r;

        *d = (Doc) { .xml = xml, .size = size };
        if (size > VIRT_XML_MAX)
                return doc_refuse(d, 0, "%zu bytes are more than %d", size, VIRT_XML_MAX);
        if (size == 0)
                return doc_refuse(d, 0, "empty");
        if (memchr(xml, '\0', size))
                return doc_refuse(d, 0, "there is a NUL in it");

        r = check_tags(d);
        if (r < 0)
                return r;

        /* what is not reported to the parser's own handler would be written to stderr */
        xmlInitParser();
        old_handler = xmlStructuredError;
        old_userdata = xmlStructuredErrorContext;
        xmlSetStructuredErrorFunc(NULL, xml_ignore_error);
        r = parse(d);
        xmlSetStructuredErrorFunc(old_userdata, old_handler);
        return r;
}

bool doc_is(const xmlNode *node, const char *name, const char *uri) {
        if (node->type != XML_ELEMENT_NODE || strcmp((const char *) node->name, name) != 0)
                return false;
        return uri ? node->ns && is_uri(node->ns->href, uri) : !node->ns;
}

xmlNode *doc_child(const xmlNode *parent, const xmlNode *after, const char *name, const char *uri) {
        for (xmlNode *c = after ? after->next : parent->children; c; c = c->next)
                if (doc_is(c, name, uri))
                        return c;
        return NULL;
}

const char *doc_text(const xmlNode *node) {
        const xmlNode *c = node ? node->children : NULL;

        return c && c->type == XML_TEXT_NODE ? (const char *) c->content : "";
}

const char *doc_attribute(const xmlNode *node, const char *name) {
        for (const xmlAttr *a = node->properties; a; a = a->next)
                if (!a->ns && strcmp((const char *) a->name, name) == 0)
                        return doc_text((const xmlNode *) a);
        return "";
}

/* ---- writing ---- */

/* How a document comes back to what it was: whatever is inserted goes, with its indentation, straight behind a tag, and is
 * taken away with the white space before it. <x/> in which something is inserted becomes <x>...</x >; the space in the
 * last tag says so. Should there be one already where <x> holds nothing, it gets one more. */

static int splice(Doc *d, size_t at, size_t cut, char *text) {
        if (!text)
                return -ENOMEM;
        if (d->n_splices == d->splices_capacity) {
                size_t capacity = 2 * d->splices_capacity + 8;
                Splice *bigger = reallocarray(d->splices, capacity, sizeof *bigger);

                if (!bigger) {
                        free(text);
                        return -ENOMEM;
                }
                d->splices = bigger;
                d->splices_capacity = capacity;
        }
        d->splices[d->n_splices++] = (Splice) { .at = at, .cut = cut, .text = text };
        return 0;
}

static size_t before_space(const Doc *d, size_t at) {
        while (at > 0 && is_space(d->xml[at - 1]))
                at--;
        return at;
}

static bool is_blank(const Doc *d, size_t from, size_t to) {
        return before_space(d, to) <= from;
}

/* The newline before @at and what follows it, if there is but white space; else "". */
static char *indentation(const Doc *d, size_t at, const char *deeper) {
        size_t from = before_space(d, at), line = at;
        char *text;

        while (line > from && d->xml[line - 1] != '\n')
                line--;
        if (line == from)
                return strdup("");
        line--;
        if (line > from && d->xml[line - 1] == '\r')
                line--;
        if (asprintf(&text, "%.*s%s", (int) (at - line), d->xml + line, deeper) < 0)
                return NULL;
        return text;
}

/* @lines with @indent before each. */
static void put_lines(FILE *f, const char *indent, const char *lines) {
        (void) fputs(indent, f);
        for (const char *p = lines; *p; p++) {
                if (*p != '\n') {
                        (void) fputc(*p, f);
                        continue;
                }
                (void) fputs(indent, f);
                if (!*indent)
                        p += strspn(p + 1, " ");
        }
}

static int insert(Doc *d, size_t at, const char *indent, const char *lines) {
        char *text = NULL;
        size_t size;
        FILE *f;

        if (!indent)
                return -ENOMEM;
        f = open_memstream(&text, &size);
        if (!f)
                return -ENOMEM;
        put_lines(f, indent, lines);
        if (fclose(f) != 0) {
                free(text);
                return -ENOMEM;
        }
        return splice(d, at, 0, text);
}

int doc_insert_after(Doc *d, const xmlNode *node, const char *lines) {
        const Place *p = doc_place(d, node);
        CLEANUP(freep) char *indent = indentation(d, p->start, "");

        return insert(d, p->end, indent, lines);
}

/* <x/> */
static int insert_open(Doc *d, const Place *p, const char *lines) {
        CLEANUP(freep) char *indent = indentation(d, p->start, "");
        CLEANUP(freep) char *deeper = indentation(d, p->start, "  ");
        const char *name = d->xml + p->start + 1;
        size_t size, n = 0;
        char *text = NULL;
        FILE *f;

        if (!indent || !deeper)
                return -ENOMEM;
        f = open_memstream(&text, &size);
        if (!f)
                return -ENOMEM;
        (void) fputc('>', f);
        put_lines(f, deeper, lines);
        while (!strchr(" \t\r\n/>", name[n]))
                n++;
        (void) fprintf(f, "%s</%.*s >", indent, (int) n, name);
        if (fclose(f) != 0) {
                free(text);
                return -ENOMEM;
        }
        return splice(d, p->end - 2, 2, text);
}

static bool is_empty_tag(const Place *p) {
        return p->inner == p->end;
}

/* White space at the end of the last tag. */
static size_t tail(const Doc *d, const Place *p) {
        return p->end - 1 - before_space(d, p->end - 1);
}

int doc_insert_into(Doc *d, const xmlNode *parent, const char *lines) {
        const Place *p = doc_place(d, parent);
        CLEANUP(freep) char *indent = NULL;
        int r;

        if (is_empty_tag(p))
                return insert_open(d, p, lines);
        if (p->last_end > 0) {
                indent = indentation(d, p->last_start, "");
                return insert(d, p->last_end, indent, lines);
        }

        indent = indentation(d, p->start, "  ");
        r = insert(d, p->inner, indent, lines);
        if (r >= 0 && tail(d, p) > 0 && is_blank(d, p->inner, p->outer))
                r = splice(d, p->end - 1, 0, strdup(" "));
        return r;
}

int doc_add_attribute(Doc *d, const xmlNode *node, const char *text) {
        const Place *p = doc_place(d, node);

        return splice(d, before_space(d, p->inner - (is_empty_tag(p) ? 2 : 1)), 0, strdup(text));
}

void doc_remove(Doc *d, const xmlNode *node) {
        doc_place(d, node)->removed = true;
}

int doc_settle(Doc *d, const xmlNode *parent, bool created) {
        Place *p = doc_place(d, parent);
        size_t at = p->inner;

        for (const xmlNode *c = parent->children; c; c = c->next) {
                const Place *child = c->type == XML_ELEMENT_NODE ? doc_place(d, c) : NULL;

                if (!child || !child->removed)
                        continue;
                if (!is_blank(d, at, child->start))
                        return 0;
                at = child->end;
        }
        if (!is_blank(d, at, p->outer))
                return 0;

        if (created)
                p->removed = true;
        else if (tail(d, p) == 1)
                p->collapsed = true;
        else if (tail(d, p) > 1)
                return splice(d, p->end - 2, 1, strdup(""));
        return 0;
}

static int splice_removed(Doc *d, const xmlNode *node) {
        const Place *p = doc_place(d, node);
        int r = 0;

        if (p->removed) {
                size_t from = before_space(d, p->start);

                return splice(d, from, p->end - from, strdup(""));
        }
        if (p->collapsed)
                return splice(d, p->inner - 1, p->end - p->inner + 1, strdup("/>"));

        for (const xmlNode *c = node->children; c && r >= 0; c = c->next)
                if (c->type == XML_ELEMENT_NODE)
                        r = splice_removed(d, c);
        return r;
}

bool doc_is_changed(const Doc *d) {
        for (size_t i = 0; i < d->n_places; i++)
                if (d->places[i].removed)
                        return true;
        return d->n_splices > 0;
}

/* Stable, and there are few. */
static void sort_splices(Splice *s, size_t n) {
        for (size_t i = 1; i < n; i++) {
                Splice moved = s[i];
                size_t j = i;

                for (; j > 0 && s[j - 1].at > moved.at; j--)
                        s[j] = s[j - 1];
                s[j] = moved;
        }
}

int doc_write(Doc *d, char **ret) {
        size_t at = 0, size;
        char *text = NULL;
        FILE *f;
        int r;

        r = splice_removed(d, xmlDocGetRootElement(d->tree));
        if (r < 0)
                return r;
        sort_splices(d->splices, d->n_splices);

        f = open_memstream(&text, &size);
        if (!f)
                return -ENOMEM;
        for (size_t i = 0; i < d->n_splices; i++) {
                const Splice *s = d->splices + i;

                (void) fwrite(d->xml + at, 1, s->at - at, f);
                (void) fputs(s->text, f);
                at = s->at + s->cut;
        }
        (void) fwrite(d->xml + at, 1, d->size - at, f);
        if (ferror(f) | fclose(f)) {
                free(text);
                return -ENOMEM;
        }

        *ret = text;
        return 0;
}
