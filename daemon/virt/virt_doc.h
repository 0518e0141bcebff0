/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* virt_doc - a domain XML with the position of each element that matters, and changes of it as cuts and insertions in
 * the text, so that all else stays byte for byte. What does not matter here is not kept: a tree of 16 MiB of XML
 * would be some hundred MiB. */

#include <libxml/tree.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DOC_QEMU_URI "http://libvirt.org/schemas/domain/qemu/1.0"

typedef struct Place {
        size_t start, inner, outer,
                end; /* <x> from start to inner, </x> from outer to end; <x/>: inner = outer = end */
        size_t last_start, last_end; /* the last element in it, kept or not; 0: none */
        bool removed, collapsed;
} Place;

typedef struct Splice {
        size_t at, cut;
        char *text;
} Splice;

typedef struct Doc {
        const char *xml; /* the caller's */
        size_t size;
        xmlDoc *tree; /* root <domain>; below it what virt_xml looks at */
        Place *places;
        size_t n_places, capacity;
        Splice *splices;
        size_t n_splices, splices_capacity;
        uint32_t slots;     /* taken on PCI bus 0 */
        size_t n_misplaced; /* elements of our name space where they mean nothing */
        size_t at, skip,
                skip_start; /* while parsing: in the text; how deep in what is not kept, since where */
        bool empty;         /* the last tag was <x/> */
        int error;
        char *text; /* the first refusal */
} Doc;

/* One line of ASCII into d->text, unless there is one: -EBADMSG, or -ENOMEM. */
int doc_refuse(Doc *d, long line, const char *format, ...) __attribute__((format(printf, 3, 4)));
char *doc_line(const char *format, va_list ap) __attribute__((format(printf, 1, 0)));

/* @xml must outlive @d. On error, too, @d is to be cleared; -EBADMSG: d->text. */
int doc_parse(Doc *d, const char *xml, size_t size);
void doc_clear(Doc *d);

static inline Place *doc_place(const Doc *d, const xmlNode *node) {
        return d->places + (uintptr_t) node->_private - 1;
}

/* Whether @node is an element of this name and name space (NULL: none). */
bool doc_is(const xmlNode *node, const char *name, const char *uri);
/* The first such child of @parent, or, after @after, the next. */
xmlNode *doc_child(const xmlNode *parent, const xmlNode *after, const char *name, const char *uri);
/* The value of an attribute without name space: "" if it has none. Valid as long as the document. */
const char *doc_attribute(const xmlNode *node, const char *name);
const char *doc_text(const xmlNode *node);

/* Puts @lines behind the last element in @parent, or behind @node. Indentation follows what is there; each newline in @lines
 * stands for it. */
int doc_insert_into(Doc *d, const xmlNode *parent, const char *lines);
int doc_insert_after(Doc *d, const xmlNode *node, const char *lines);
/* @text begins with a space. */
int doc_add_attribute(Doc *d, const xmlNode *node, const char *text);

/* With the white space before it, which is what doc_insert_*() has put there. */
void doc_remove(Doc *d, const xmlNode *node);
/* After removals in @parent: if nothing is left in it, it goes too if @created, or becomes as it was before anything was
 * inserted. */
int doc_settle(Doc *d, const xmlNode *parent, bool created);

bool doc_is_changed(const Doc *d);
/* The document with all changes; free(). */
int doc_write(Doc *d, char **ret);
