/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* mdevctl - what mdevctl(8) has defined for vfio_ap: etc/mdevctl.d/matrix/UUID, JSON. It is read, and single
 * definitions change hands. All but the pure functions block: file worker. */

#include <stdbool.h>
#include <stddef.h>

#include "base/uuid.h"
#include "core/ap_matrix.h"

typedef struct MdevctlDefinition {
        Uuid uuid;
        bool autostart;
        ApMatrix matrix;
} MdevctlDefinition;

typedef struct MdevctlBad {
        char *file; /* name below etc/mdevctl.d/matrix */
        char *reason;
} MdevctlBad;

typedef struct MdevctlContent {
        MdevctlDefinition *definitions;
        size_t n_definitions;
        MdevctlBad *bad; /* files that are not what they should be; they stop nothing */
        size_t n_bad;
} MdevctlContent;

void mdevctl_content_clear(MdevctlContent *c);

/* No directory is no definition. Ids are read as the kernel would read them (base 0); assign_*, unassign_*
 * and ap_config attributes are applied in order. 0 or -errno of the directory. */
int mdevctl_read(int root_fd, MdevctlContent *ret);

/* ---- one definition ---- */

typedef struct MdevctlFile {
        MdevctlDefinition d; /* without the uuid, which is its name */
        char *json;          /* on one line */
        char *odd; /* an attribute that does not make the matrix, or NULL: nobody but mdevctl would write it */
} MdevctlFile;

void mdevctl_file_clear(MdevctlFile *f);

/* Pure. What @text says. 0; -EBADMSG: *reterr says what is wrong with it (not to be freed); -ENOMEM. */
int mdevctl_parse(const char *text, size_t size, MdevctlFile *ret, const char **reterr);
/* Pure. The definition as mdevctl reads it, free(). @kept: what it had before (MdevctlFile.json), or NULL: as much of
 * that stays as agrees with @d. -ENOMEM. */
int mdevctl_format(const MdevctlDefinition *d, const char *kept, char **ret);

/* Reads the definition @uuid. -ENOENT; else as mdevctl_parse(), which also refuses what is no file of mdevctl's. */
int mdevctl_load(int root_fd, Uuid uuid, MdevctlFile *ret, const char **reterr);
int mdevctl_load_at(int dir_fd, const char *path, MdevctlFile *ret, const char **reterr);

/* A definition that changes hands lies aside meanwhile, where mdevctl does not see it. Whoever died in the middle is
 * followed by mdevctl_recover(): what we have not stored by then is mdevctl's. All of them leave a state that is on
 * stable storage, or say -errno. */

/* mdevctl's file goes aside, and is read there; what mdevctl_parse() refuses stays where it was. */
int mdevctl_take(int root_fd, Uuid uuid, MdevctlFile *ret, const char **reterr);
/* A new file goes aside. -EEXIST: mdevctl has one already. */
int mdevctl_offer(int root_fd, Uuid uuid, const char *json);
/* What lies aside becomes mdevctl's. -EEXIST: it has another one by now. */
int mdevctl_give(int root_fd, Uuid uuid);
/* What lies aside is no more. */
int mdevctl_drop(int root_fd, Uuid uuid);
/* Each that lies aside is dropped if it @is_ours, else given. 0, or the first error; @told is called for each. */
int mdevctl_recover(int root_fd, bool (*is_ours)(void *userdata, Uuid uuid),
                    void (*told)(void *userdata, Uuid uuid, bool ours, int r), void *userdata);
