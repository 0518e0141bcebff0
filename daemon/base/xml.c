/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/xml.h"

#include <errno.h>
#include <libxml/relaxng.h>

void xml_ignore_error(void *userdata, XmlError *e) {
}

int xml_validate(const char *schema, size_t size, xmlDoc *doc, xmlStructuredErrorFunc on_error,
                 void *userdata) {
        xmlRelaxNGParserCtxt *parser;
        xmlRelaxNGValidCtxt *valid = NULL;
        xmlRelaxNG *relaxng = NULL;
        int r = -ENOMEM, k;

        parser = xmlRelaxNGNewMemParserCtxt(schema, (int) size);
        if (!parser)
                goto end;
        xmlRelaxNGSetParserStructuredErrors(parser, xml_ignore_error, NULL);
        relaxng = xmlRelaxNGParse(parser);
        if (!relaxng)
                goto end;
        valid = xmlRelaxNGNewValidCtxt(relaxng);
        if (!valid)
                goto end;
        xmlRelaxNGSetValidStructuredErrors(valid, on_error, userdata);

        k = xmlRelaxNGValidateDoc(valid, doc);
        if (k >= 0)
                r = k > 0;
end:
        if (valid)
                xmlRelaxNGFreeValidCtxt(valid);
        if (relaxng)
                xmlRelaxNGFree(relaxng);
        if (parser)
                xmlRelaxNGFreeParserCtxt(parser);
        return r;
}
