/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/mdevctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"
#include "host/host_paths.h"

#define FILE_MAX  65536
#define DEPTH_MAX 16
#define TYPE_AP   "vfio_ap-passthrough"

void mdevctl_content_clear(MdevctlContent *c) {
        for (size_t i = 0; i < c->n_bad; i++) {
                free(c->bad[i].file);
                free(c->bad[i].reason);
        }
        free(c->bad);
        free(c->definitions);
        *c = (MdevctlContent) {};
}

/* As kstrtoul(s, 0) in the kernel: an optional plus, 0x for hex, 0 for octal, one newline at the end. False:
 * refused, or above what an id can be. */
static bool id_parse(const char *s, uint8_t *ret) {
        unsigned long v = 0, base = 10;
        const char *first;

        if (*s == '+')
                s++;
        if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
                base = 16;
                s += 2;
        } else if (s[0] == '0')
                base = 8;

        for (first = s; *s && *s != '\n'; s++) {
                unsigned long d = *s >= '0' && *s <= '9'   ? (unsigned long) (*s - '0')
                                  : *s >= 'a' && *s <= 'f' ? (unsigned long) (*s - 'a') + 10
                                  : *s >= 'A' && *s <= 'F' ? (unsigned long) (*s - 'A') + 10
                                                           : 16;

                if (d >= base)
                        return false;
                v = v * base + d;
                if (v >= AP_IDS)
                        return false;
        }
        if (s == first || (*s == '\n' && s[1]))
                return false;

        *ret = (uint8_t) v;
        return true;
}

/* One mask of ap_config: as the kernel's, with the field's end at a comma. */
static bool config_parse(const char *s, ApMatrix *ret) {
        ApMask masks[3] = {};

        for (unsigned i = 0; i < 3; i++) {
                size_t n = strcspn(s, ",\n");
                char field[AP_MASK_STRING_SIZE];

                if (n >= sizeof field)
                        return false;
                memcpy(field, s, n);
                field[n] = '\0';
                if (n > 0 && ap_mask_parse(field, &masks[i]) < 0)
                        return false;
                s += n;
                if (i < 2 && *s != ',') /* a newline after two fields leaves the third empty */
                        return i == 1 && *s == '\n'
                                       ? (*ret = (ApMatrix) { masks[0], masks[1], masks[2] }, true)
                                       : false;
                if (*s)
                        s++;
        }

        *ret = (ApMatrix) { masks[0], masks[1], masks[2] };
        return true;
}

/* What writing @value to attribute @name makes of @m. NULL, or what is wrong. Attributes that do not change
 * the matrix are odd. */
static const char *attribute_apply(ApMatrix *m, const char *name, const char *value, bool *ret_odd) {
        const struct {
                const char *name;
                ApMask *mask;
                bool set;
        } attributes[] = {
                { "assign_adapter", &m->adapters, true },
                { "assign_domain", &m->domains, true },
                { "assign_control_domain", &m->control, true },
                { "unassign_adapter", &m->adapters, false },
                { "unassign_domain", &m->domains, false },
                { "unassign_control_domain", &m->control, false },
        };
        uint8_t id;

        if (strcmp(name, "ap_config") == 0)
                return config_parse(value, m) ? NULL : "ap_config is not three masks";

        for (size_t i = 0; i < ELEMENTS(attributes); i++) {
                if (strcmp(name, attributes[i].name) != 0)
                        continue;
                if (!id_parse(value, &id))
                        return "an id is not a number from 0 to 255";
                if (attributes[i].set)
                        ap_mask_set(attributes[i].mask, id);
                else
                        ap_mask_clear(attributes[i].mask, id);
                return NULL;
        }
        *ret_odd = true;
        return NULL;
}

static const char *string_of(json_object *o) {
        /* a NUL in the text would hide the rest of it */
        if (!json_object_is_type(o, json_type_string) ||
            strlen(json_object_get_string(o)) != (size_t) json_object_get_string_len(o))
                return NULL;
        return json_object_get_string(o);
}

/* What the attributes of @root make. NULL, or what is wrong. *ret_odd: the first that makes nothing of a matrix. */
static const char *attrs_apply(json_object *root, ApMatrix *m, const char **ret_odd) {
        json_object *attrs;

        if (!json_object_object_get_ex(root, "attrs", &attrs) || !attrs)
                return NULL;
        if (!json_object_is_type(attrs, json_type_array))
                return "attrs is not an array";
        for (size_t i = 0; i < json_object_array_length(attrs); i++) {
                json_object *element = json_object_array_get_idx(attrs, i);

                if (!json_object_is_type(element, json_type_object) ||
                    json_object_object_length(element) != 1)
                        return "an attribute is not one name with one value";
                json_object_object_foreach(element, name, value) {
                        const char *problem, *string = string_of(value);
                        bool odd = false;

                        if (!string)
                                return "an attribute's value is not a string";
                        problem = attribute_apply(m, name, string, &odd);
                        if (problem)
                                return problem;
                        if (odd && !*ret_odd)
                                *ret_odd = name;
                }
        }
        return NULL;
}

/* NULL, or what is wrong with the text. */
static const char *object_parse(const char *text, size_t size, json_object **ret) {
        CLEANUP(json_putp)
        json_object *root = NULL;
        int r;

        if (strlen(text) != size)
                return "not JSON";
        if (size == 0)
                return "the file is empty";
        r = json_read(text, size, DEPTH_MAX, &root);
        if (r < 0)
                return r == -ENOMEM ? "out of memory" : "not JSON";
        if (!json_object_is_type(root, json_type_object))
                return "not a JSON object";

        *ret = TAKE(root);
        return NULL;
}

static const char *definition_read(json_object *root, MdevctlDefinition *ret, const char **ret_odd) {
        json_object *type, *start;
        const char *type_name, *start_name;

        if (!json_object_object_get_ex(root, "mdev_type", &type) || !(type_name = string_of(type)))
                return "no mdev_type";
        if (!json_object_object_get_ex(root, "start", &start) || !(start_name = string_of(start)))
                return "no start";
        if (strcmp(type_name, TYPE_AP) != 0)
                return "mdev_type is not " TYPE_AP;

        ret->autostart = strcmp(start_name, "auto") == 0;
        ret->matrix = (ApMatrix) {};
        return attrs_apply(root, &ret->matrix, ret_odd);
}

/* NULL, or what is wrong with the file's content. */
static const char *definition_parse(const char *text, size_t size, MdevctlDefinition *ret) {
        CLEANUP(json_putp)
        json_object *root = NULL;
        const char *problem = object_parse(text, size, &root), *odd = NULL;

        return problem ?: definition_read(root, ret, &odd);
}

void mdevctl_file_clear(MdevctlFile *f) {
        free(f->json);
        free(f->odd);
        *f = (MdevctlFile) {};
}

int mdevctl_parse(const char *text, size_t size, MdevctlFile *ret, const char **reterr) {
        CLEANUP(mdevctl_file_clear) MdevctlFile f = {};
        CLEANUP(json_putp)
        json_object *root = NULL;
        const char *problem, *odd = NULL;

        problem = object_parse(text, size, &root);
        if (!problem)
                problem = definition_read(root, &f.d, &odd);
        if (problem) {
                *reterr = problem;
                return -EBADMSG;
        }

        f.json = strdup(
                json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
                        ?: "");
        f.odd = odd ? strdup(odd) : NULL;
        if (!f.json || !*f.json || (odd && !f.odd))
                return -ENOMEM;
        *ret = f;
        f = (MdevctlFile) {};
        return 0;
}

static int attrs_add(json_object *attrs, const char *name, const ApMask *ids) {
        AP_MASK_FOREACH(id, ids) {
                json_object *element = json_object_new_object();
                char value[8];

                if (!element)
                        return -ENOMEM;
                (void) snprintf(value, sizeof value, "%u", (unsigned) id);
                if (json_object_object_add(element, name, json_object_new_string(value)) < 0 ||
                    json_object_array_add(attrs, element) < 0) {
                        (void) json_object_put(element);
                        return -ENOMEM;
                }
        }
        return 0;
}

static int attrs_new(const ApMatrix *m, json_object **ret) {
        CLEANUP(json_putp)
        json_object *attrs = json_object_new_array();

        if (!attrs || attrs_add(attrs, "assign_adapter", &m->adapters) < 0 ||
            attrs_add(attrs, "assign_domain", &m->domains) < 0 ||
            attrs_add(attrs, "assign_control_domain", &m->control) < 0)
                return -ENOMEM;
        *ret = TAKE(attrs);
        return 0;
}

int mdevctl_format(const MdevctlDefinition *d, const char *kept, char **ret) {
        CLEANUP(json_putp)
        json_object *root = NULL, *attrs = NULL;
        MdevctlDefinition was = {};
        const char *odd = NULL, *text;

        if (!kept || object_parse(kept, strlen(kept), &root) || definition_read(root, &was, &odd)) {
                json_putp(&root);
                root = json_object_new_object();
                if (!root ||
                    json_object_object_add(root, "mdev_type", json_object_new_string(TYPE_AP)) < 0 ||
                    json_object_object_add(root, "start", json_object_new_string("manual")) < 0)
                        return -ENOMEM;
        }
        if (was.autostart != d->autostart &&
            json_object_object_add(root, "start", json_object_new_string(d->autostart ? "auto" : "manual")) <
                    0)
                return -ENOMEM;
        if (!ap_matrix_equal(&was.matrix, &d->matrix)) {
                if (attrs_new(&d->matrix, &attrs) < 0 || json_object_object_add(root, "attrs", attrs) < 0)
                        return -ENOMEM;
                attrs = NULL;
        }

        text = json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
                                                            JSON_C_TO_STRING_NOSLASHESCAPE);
        *ret = text ? strdup(text) : NULL;
        return *ret ? 0 : -ENOMEM;
}

static int bad_add(MdevctlContent *c, const char *file, const char *reason) {
        MdevctlBad *bigger = reallocarray(c->bad, c->n_bad + 1, sizeof *bigger);
        MdevctlBad bad;

        if (!bigger)
                return -ENOMEM;
        c->bad = bigger;
        bad = (MdevctlBad) { .file = strdup(file), .reason = strdup(reason) };
        if (!bad.file || !bad.reason) {
                free(bad.file);
                free(bad.reason);
                return -ENOMEM;
        }

        c->bad[c->n_bad++] = bad;
        return 0;
}

static int definition_add(MdevctlContent *c, const MdevctlDefinition *d) {
        if ((c->n_definitions & (c->n_definitions - 1)) == 0) { /* doubles at each power of two */
                size_t n = c->n_definitions == 0 ? 1 : 2 * c->n_definitions;
                MdevctlDefinition *bigger = reallocarray(c->definitions, n, sizeof *bigger);

                if (!bigger)
                        return -ENOMEM;
                c->definitions = bigger;
        }

        c->definitions[c->n_definitions++] = *d;
        return 0;
}

static const char *reason_of(int r) {
        switch (r) {
        case -ELOOP:
                return "a symbolic link";
        case -EBADMSG:
                return "not a regular file";
        case -EFBIG:
                return "larger than 64 KiB";
        default:
                return strerror(-r);
        }
}

int mdevctl_load(int root_fd, Uuid uuid, MdevctlFile *ret, const char **reterr) {
        char path[sizeof HOST_PATH_MDEVCTL + UUID_STRING_SIZE], id[UUID_STRING_SIZE];

        (void) snprintf(path, sizeof path, HOST_PATH_MDEVCTL "/%s", uuid_format(uuid, id));
        return mdevctl_load_at(root_fd, path, ret, reterr);
}

int mdevctl_load_at(int dir_fd, const char *path, MdevctlFile *ret, const char **reterr) {
        CLEANUP(freep) char *text = NULL;
        size_t size;
        int r;

        r = file_read_at(dir_fd, path, FILE_MAX, &text, &size);
        if (r == -ELOOP || r == -EBADMSG || r == -EFBIG) {
                *reterr = reason_of(r);
                return -EBADMSG;
        }
        return r < 0 ? r : mdevctl_parse(text, size, ret, reterr);
}

static int file_add(int dir_fd, const char *name, MdevctlContent *c) {
        CLEANUP(freep)
        char *text = NULL;
        MdevctlDefinition d = {};
        const char *problem;
        size_t size;
        int r;

        if (uuid_parse(name, &d.uuid) < 0)
                return bad_add(c, name, "its name is not a UUID");
        r = file_read_at(dir_fd, name, FILE_MAX, &text, &size);
        if (r == -ENOENT) /* undefined since it was listed */
                return 0;
        if (r == -ENOMEM)
                return r;
        if (r < 0)
                return bad_add(c, name, reason_of(r));

        problem = definition_parse(text, size, &d);
        return problem ? bad_add(c, name, problem) : definition_add(c, &d);
}

static int definition_compare(const void *a, const void *b) {
        return uuid_compare(((const MdevctlDefinition *) a)->uuid, ((const MdevctlDefinition *) b)->uuid);
}

static int bad_compare(const void *a, const void *b) {
        return strcmp(((const MdevctlBad *) a)->file, ((const MdevctlBad *) b)->file);
}

int mdevctl_read(int root_fd, MdevctlContent *ret) {
        CLEANUP(closedirp)
        DIR *dir = NULL;
        MdevctlContent c = {};
        int fd, r = 0;

        fd = openat(root_fd, HOST_PATH_MDEVCTL, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 && errno != ENOENT)
                return -errno;
        if (fd < 0) {
                *ret = c;
                return 0;
        }
        dir = fdopendir(fd);
        if (!dir) {
                r = -errno;
                (void) fd_close(fd);
                return r;
        }

        while (r >= 0) {
                struct dirent *e;

                errno = 0;
                e = readdir(dir);
                if (!e) {
                        r = -errno;
                        break;
                }
                if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
                        r = file_add(fd, e->d_name, &c);
        }
        if (r < 0) {
                mdevctl_content_clear(&c);
                return r;
        }

        if (c.n_definitions > 0)
                qsort(c.definitions, c.n_definitions, sizeof *c.definitions, definition_compare);
        if (c.n_bad > 0)
                qsort(c.bad, c.n_bad, sizeof *c.bad, bad_compare);
        *ret = c;
        return 0;
}
