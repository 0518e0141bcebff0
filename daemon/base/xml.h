/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* xml - what both readers of XML need of libxml2. */

#include <libxml/tree.h>
#include <libxml/xmlerror.h>

/* What handlers of errors get: const since libxml2 2.12. */
#if LIBXML_VERSION >= 21200
typedef const xmlError XmlError;
#else
typedef xmlError XmlError;
#endif

/* An xmlStructuredErrorFunc for those that are not to be written to stderr. */
void xml_ignore_error(void *userdata, XmlError *e);

/* Whether @doc is as the RELAX NG schema of @size bytes at @schema says. 0: it is; 1: it is not, and @on_error was told why; -ENOMEM. */
int xml_validate(const char *schema, size_t size, xmlDoc *doc, xmlStructuredErrorFunc on_error,
                 void *userdata);
