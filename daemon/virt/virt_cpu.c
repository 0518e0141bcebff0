/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "virt/virt_cpu.h"
#include "virt/virt_doc.h"

#define N_FEATURES 4
#define ALL        ((1u << N_FEATURES) - 1)
#define CACHE_MAX  32

static const char *const features[N_FEATURES] = { "ap", "apft", "apqci", "apqi" };

/* What a CPU model has, as libvirt has found out by starting a QEMU. */
typedef struct Model {
        char *key;
        unsigned has;
} Model;

static Model cache[CACHE_MAX];
static size_t n_cached;

static unsigned feature_bit(const char *name) {
        for (size_t i = 0; i < N_FEATURES; i++)
                if (strcmp(features[i], name) == 0)
                        return 1u << i;
        return 0;
}

/* Names of features by @path in XML that libvirt has made. -ENODATA: it says nothing. */
static int features_in(const char *xml, const char *known, const char *path, unsigned *ret) {
        xmlDoc *doc = xmlReadMemory(xml, (int) strlen(xml), NULL, NULL,
                                    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
        xmlXPathContext *context = doc ? xmlXPathNewContext(doc) : NULL;
        xmlXPathObject *is = context ? xmlXPathEvalExpression(BAD_CAST known, context) : NULL;
        xmlXPathObject *found = context ? xmlXPathEvalExpression(BAD_CAST path, context) : NULL;
        int r = -ENODATA;

        if (is && found && xmlXPathCastToBoolean(is)) {
                unsigned has = 0;

                for (int i = 0; found->nodesetval && i < found->nodesetval->nodeNr; i++)
                        has |= feature_bit(doc_text(found->nodesetval->nodeTab[i]));
                *ret = has;
                r = 0;
        }
        xmlXPathFreeObject(found);
        xmlXPathFreeObject(is);
        if (context)
                xmlXPathFreeContext(context);
        if (doc)
                xmlFreeDoc(doc);
        return r;
}

static const char *or_null(const char *s) {
        return s && *s ? s : NULL;
}

static int host_features(virConnectPtr libvirt, const VirtWiring *w, unsigned *ret) {
        CLEANUP(freep)
        char *xml = virConnectGetDomainCapabilities(libvirt, or_null(w->emulator), or_null(w->arch),
                                                    or_null(w->machine), or_null(w->type), 0);

        if (!xml)
                return -ENODATA;
        return features_in(
                xml, "/domainCapabilities/cpu/mode[@name='host-model' and @supported='yes']",
                "/domainCapabilities/cpu/mode[@name='host-model']/feature[@policy='require']/@name", ret);
}

static int model_features(virConnectPtr libvirt, const VirtWiring *w, const char *model, unsigned *ret) {
        CLEANUP(freep) char *key = NULL, *cpu = NULL, *xml = NULL;
        const char *one;
        int r;

        if (asprintf(&key, "%s %s %s %s", w->emulator, w->type, w->machine, model) < 0) {
                key = NULL;
                return -ENOMEM;
        }
        for (size_t i = 0; i < n_cached; i++)
                if (strcmp(cache[i].key, key) == 0) {
                        *ret = cache[i].has;
                        return 0;
                }
        if (strpbrk(model, "<>&'\""))
                return -ENODATA;
        if (asprintf(&cpu, "<cpu mode='custom' match='exact'><model fallback='forbid'>%s</model></cpu>",
                     model) < 0) {
                cpu = NULL;
                return -ENOMEM;
        }

        one = cpu;
        xml = virConnectBaselineHypervisorCPU(libvirt, or_null(w->emulator), or_null(w->arch),
                                              or_null(w->machine), or_null(w->type), &one, 1,
                                              VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES);
        if (!xml)
                return -ENODATA;
        r = features_in(xml, "/cpu", "/cpu/feature[not(@policy) or @policy='require']/@name", ret);
        if (r >= 0 && n_cached < CACHE_MAX)
                cache[n_cached++] = (Model) { .key = TAKE(key), .has = *ret };
        return r;
}

/* 0, -ENODATA: it cannot be told. */
static int cpu_features(virConnectPtr libvirt, const VirtWiring *w, const xmlNode *cpu, unsigned *ret) {
        const xmlNode *model = cpu ? doc_child(cpu, NULL, "model", NULL) : NULL;
        unsigned set = 0, cleared = 0, has = 0;
        int r;

        for (const xmlNode *f = cpu ? doc_child(cpu, NULL, "feature", NULL) : NULL; f;
             f = doc_child(cpu, f, "feature", NULL)) {
                const char *policy = doc_attribute(f, "policy");

                if (strcmp(policy, "disable") == 0 || strcmp(policy, "forbid") == 0)
                        cleared |= feature_bit(doc_attribute(f, "name"));
                else
                        set |= feature_bit(doc_attribute(f, "name"));
        }

        if (strcmp(w->type, "qemu") == 0) {
                *ret = set & ~cleared; /* QEMU itself has none, whatever the model */
                return 0;
        }
        if (strcmp(w->type, "kvm") != 0)
                return -ENODATA;
        if ((set | cleared) != ALL) {
                /* without a <cpu>, QEMU on this machine takes the host's */
                r = model ? model_features(libvirt, w, doc_text(model), &has)
                          : host_features(libvirt, w, &has);
                if (r < 0)
                        return r;
        }
        *ret = (has | set) & ~cleared;
        return 0;
}

int virt_cpu_lacks(virConnectPtr libvirt, const VirtWiring *w, const char *xml, char **ret) {
        CLEANUP(doc_clear) Doc d = {};
        char text[64] = "", *end = text;
        unsigned has;
        int r;

        *ret = NULL;
        if (strcmp(w->arch, "s390x") != 0 || !xml)
                return 0;
        r = doc_parse(&d, xml, strlen(xml));
        if (r >= 0)
                r = cpu_features(libvirt, w, doc_child(xmlDocGetRootElement(d.tree), NULL, "cpu", NULL),
                                 &has);
        if (r < 0)
                return r == -ENOMEM ? r : 0;

        for (size_t i = 0; i < N_FEATURES; i++)
                if (!(has >> i & 1))
                        end = stpcpy(stpcpy(end, end == text ? "" : ", "), features[i]);
        if (end == text)
                return 0;
        *ret = strdup(text);
        return *ret ? 0 : -ENOMEM;
}
