/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hooks/callout.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"
#include "host/ap_lock.h"
#include "host/host_paths.h"
#include "host/mdevctl.h"

#define INPUT_MAX (size_t)(64 * 1024)
#define READS_MAX 16 /* of ap_config, until two are equal */
#define SYS_MDEVS "sys/bus/mdev/devices/"
#define PATH_SIZE 128

static int tell(const Callout *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int tell(const Callout *c, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        (void) vfprintf(c->err, format, ap);
        va_end(ap);
        (void) fputc('\n', c->err);
        return CALLOUT_REFUSED;
}

/* All of standard input; free(). */
static int read_input(const Callout *c, char **ret) {
        CLEANUP(freep) char *text = malloc(INPUT_MAX + 2);
        size_t n;

        if (!text)
                return -ENOMEM;
        n = fread(text, 1, INPUT_MAX + 1, c->in);
        if (ferror(c->in))
                return -EIO;
        if (n > INPUT_MAX)
                return -EFBIG;
        text[n] = '\0';
        if (strlen(text) != n)
                return -EBADMSG;
        *ret = TAKE(text);
        return 0;
}

/* ---- the device itself ---- */

static char *device_path(const Callout *c, const char *name, char buf[static PATH_SIZE]) {
        char id[UUID_STRING_SIZE];

        (void) snprintf(buf, PATH_SIZE, SYS_MDEVS "%s/%s", uuid_format(c->uuid, id), name);
        return buf;
}

static int config_read(const Callout *c, char buf[static AP_MATRIX_STRING_SIZE + 1]) {
        CLEANUP(fd_closep) int fd = -1;
        char path[PATH_SIZE];
        ssize_t n;

        fd = openat(c->root_fd, device_path(c, "ap_config", path), O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = read(fd, buf, AP_MATRIX_STRING_SIZE);
        if (n < 0)
                return -errno;
        buf[n] = '\0';
        return 0;
}

/* While another process writes it, the kernel may show a mixture of before and after. */
static int config_settled(const Callout *c, ApMatrix *ret) {
        char now[AP_MATRIX_STRING_SIZE + 1], before[AP_MATRIX_STRING_SIZE + 1] = "";

        for (unsigned i = 0; i < READS_MAX; i++) {
                int r = config_read(c, now);

                if (r < 0)
                        return r;
                if (strcmp(now, before) == 0)
                        return ap_matrix_parse(now, ret);
                strcpy(before, now);
        }
        return -EAGAIN;
}

static bool device_is_there(const Callout *c) {
        char path[PATH_SIZE];

        return faccessat(c->root_fd, device_path(c, "", path), F_OK, 0) >= 0;
}

/* The attributes of a live device. Kernels before 6.10 have no ap_config, and reading "matrix" can crash them: there the
 * daemon is asked. No lock is needed for any of that. */
static int get_attributes(const Callout *c) {
        CLEANUP(json_putp) json_object *root = NULL;
        CLEANUP(freep) char *text = NULL, *json = NULL;
        MdevctlDefinition d = {};
        json_object *attrs = NULL;
        int r;

        if (!device_is_there(c)) /* it has gone since it was listed */
                return CALLOUT_OK;
        r = config_settled(c, &d.matrix);
        if (r == -ENOENT)
                r = callout_ask_matrix(c, &d.matrix, &text);
        if (r != 0 && !device_is_there(c))
                return CALLOUT_OK;
        if (r != 0)
                return tell(c, "what the device has cannot be read: %s", text ?: strerror(-r));

        if (mdevctl_format(&d, NULL, &json) < 0)
                return tell(c, "out of memory");
        root = json_tokener_parse(json);
        if (!root || !json_object_object_get_ex(root, "attrs", &attrs))
                (void) fputs("[]", c->out);
        else
                (void) fputs(json_object_to_json_string_ext(attrs, JSON_C_TO_STRING_PLAIN), c->out);
        return fflush(c->out) < 0 ? CALLOUT_REFUSED : CALLOUT_OK;
}

/* ---- what this callout is for ---- */

static const char *const our_actions[] = { "start",  "stop",       "define",       "undefine",
                                           "modify", "attributes", "capabilities", NULL };
static const char *const our_events[] = { "pre", "post", "get", "live", NULL };

/* Those of @ours that mdevctl knows, too. */
static json_object *common(json_object *provides, const char *key, const char *const *ours) {
        json_object *theirs, *both = json_object_new_array();

        if (!json_object_object_get_ex(provides, key, &theirs) ||
            !json_object_is_type(theirs, json_type_array))
                return both;
        for (; *ours; ours++)
                for (size_t i = 0; i < json_object_array_length(theirs); i++) {
                        const char *name = json_object_get_string(json_object_array_get_idx(theirs, i));

                        if (name && strcmp(name, *ours) == 0) {
                                (void) json_object_array_add(both, json_object_new_string(name));
                                break;
                        }
                }
        return both;
}

/* mdevctl of 1.3 and later. A later version than ours may provide more; what we say is what both know. */
static int get_capabilities(const Callout *c) {
        CLEANUP(json_putp) json_object *root = NULL, *answer = json_object_new_object();
        json_object *provides, *version, *supports = json_object_new_object();
        CLEANUP(freep) char *text = NULL;
        int r;

        r = read_input(c, &text);
        root = r < 0 ? NULL : json_tokener_parse(text);
        if (!json_object_is_type(root, json_type_object) ||
            !json_object_object_get_ex(root, "provides", &provides) ||
            !json_object_object_get_ex(provides, "version", &version)) {
                (void) json_object_put(supports);
                return tell(c, "mdevctl does not say what it provides");
        }

        (void) json_object_object_add(supports, "version",
                                      json_object_new_int(
                                              MIN(CALLOUT_VERSION, json_object_get_int(version))));
        (void) json_object_object_add(supports, "actions", common(provides, "actions", our_actions));
        (void) json_object_object_add(supports, "events", common(provides, "events", our_events));
        (void) json_object_object_add(answer, "supports", supports);
        (void) fputs(json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN), c->out);
        return fflush(c->out) < 0 ? CALLOUT_REFUSED : CALLOUT_OK;
}

/* ---- before and after ---- */

static int lock_dir(const Callout *c) {
        return openat(c->root_fd, HOST_PATH_LOCK_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Then whoever has inherited us lives on, and nothing must be claimed or locked in its name. mdevctl may have been gone before
 * we could ask for our parent; but it alone reads what we write. */
static bool mdevctl_is_gone(const Callout *c) {
        struct pollfd p = { .fd = fileno(c->out) };

        return getppid() != c->mdevctl || (poll(&p, 1, 0) > 0 && p.revents & POLLERR);
}

/* In mdevctl's name, so that it is stale the moment mdevctl is gone. */
static int lock(const Callout *c) {
        CLEANUP(fd_closep) int fd = lock_dir(c);
        pid_t holder = 0;
        int r = fd < 0 ? -errno : 1;

        for (unsigned i = 0; r == 1 && i < CALLOUT_LOCK_TRIES; i++) {
                r = ap_lock_try(fd, c->mdevctl, &holder);
                if (r == 1)
                        (void) usleep(AP_LOCK_POLL_US);
        }
        if (r == 1)
                return tell(c, "process %d holds the AP configuration lock", (int) holder);
        return r < 0 ? tell(c, "the AP configuration lock cannot be taken: %s", strerror(-r)) : CALLOUT_OK;
}

static void unlock(const Callout *c) {
        CLEANUP(fd_closep) int fd = lock_dir(c);

        if (fd >= 0)
                (void) ap_lock_release(fd, c->mdevctl);
}

/* A definition without a queue can be in nobody's way. */
static bool needs_no_leave(const char *json) {
        CLEANUP(mdevctl_file_clear) MdevctlFile f = {};
        const char *problem;

        return mdevctl_parse(json, strlen(json), &f, &problem) >= 0 && ap_matrix_n_queues(&f.d.matrix) == 0;
}

/* What makes queues somebody's. Without the daemon it is refused: nobody would know whose they are. What gives them up
 * is not. */
static bool takes(const char *action) {
        return strcmp(action, "stop") != 0 && strcmp(action, "undefine") != 0;
}

static int ask(const Callout *c, const char *action, const char *json, pid_t process, char **ret_daemon) {
        CLEANUP(freep) char *text = NULL;
        int r;

        r = callout_begin(c, action, json, process, ret_daemon, &text);
        if (r == 0)
                return CALLOUT_OK;
        if (r == -EHOSTDOWN && (!takes(action) || needs_no_leave(json)))
                return CALLOUT_OK;
        if (r == -EHOSTDOWN)
                return tell(
                        c,
                        "guestcryptd does not answer, and without it nobody can say whether these queues are free: %s; "
                        "try 'systemctl start guestcryptd'",
                        text ?: "?");
        return tell(c, "%s", text ?: strerror(-r));
}

/* The lock comes after the daemon's leave, since the daemon may be waiting for the lock itself. It begins its work with the
 * lock, too: so if the one that has given leave is still there when we have the lock, either it knows what mdevctl does, or the
 * one after it waits until that is done. */
static int ask_and_lock(const Callout *c, const char *action, const char *json, pid_t process) {
        CLEANUP(freep) char *text = NULL;

        for (unsigned i = 0; i < CALLOUT_ASK_TRIES && !mdevctl_is_gone(c); i++) {
                CLEANUP(freep) char *daemon = NULL;
                int r;

                r = ask(c, action, json, process, &daemon);
                if (r != CALLOUT_OK)
                        return r;
                r = lock(c);
                if (r != CALLOUT_OK) {
                        (void) callout_end(c, process, &text);
                        return r;
                }
                if ((!daemon || callout_confirm(daemon) > 0) && !mdevctl_is_gone(c))
                        return CALLOUT_OK;
                unlock(c);
                (void) callout_end(c, process, &text);
                free(TAKE(text));
        }
        return tell(c, "guestcryptd was started anew while it was asked; try again");
}

static int pre(const Callout *c) {
        CLEANUP(freep) char *json = NULL;
        int r;

        r = read_input(c, &json);
        if (r < 0)
                return tell(c, "what mdevctl is to make cannot be read: %s", strerror(-r));
        return ask_and_lock(c, c->action, json, c->mdevctl);
}

static int post(const Callout *c) {
        CLEANUP(freep) char *text = NULL;

        unlock(c);
        if (takes(c->action))
                (void) callout_end(c, c->mdevctl, &text); /* it sees that mdevctl has ended, too */
        return CALLOUT_OK;
}

static int config_write(const Callout *c, const ApMatrix *m) {
        CLEANUP(fd_closep) int fd = -1;
        char path[PATH_SIZE], text[AP_MATRIX_STRING_SIZE + 1];
        ssize_t n;

        fd = openat(c->root_fd, device_path(c, "ap_config", path), O_WRONLY | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
                return tell(
                        c,
                        device_is_there(c)
                                ? "this kernel cannot change a device while it is started; stop it and start it again"
                                : "the device is not started");
        if (fd < 0)
                return tell(c, "the device cannot be changed: %s", strerror(errno));

        (void) ap_matrix_format(m, text);
        n = write(fd, text, strlen(text));
        if (n == (ssize_t) strlen(text))
                return CALLOUT_OK;
        return tell(c, "the kernel refused the change, the device has what it had: %s",
                    n < 0 ? strerror(errno) : "it took only a part");
}

/* The one event in which the callout does the work. */
static int live_modify(const Callout *c) {
        CLEANUP(mdevctl_file_clear) MdevctlFile f = {};
        CLEANUP(freep) char *json = NULL, *text = NULL;
        const char *problem = NULL;
        int r;

        r = read_input(c, &json);
        if (r >= 0)
                r = mdevctl_parse(json, strlen(json), &f, &problem);
        if (r < 0)
                return tell(c, "what the device is to become cannot be read: %s", problem ?: strerror(-r));
        if (f.odd)
                return tell(
                        c,
                        "attribute '%s' is no part of a matrix, and cannot be changed while the device is started",
                        f.odd);

        r = ask_and_lock(c, "live", json, getpid());
        if (r != CALLOUT_OK)
                return r;
        r = config_write(c, &f.d.matrix);
        unlock(c);
        (void) callout_end(c, getpid(), &text);
        return r;
}

static bool is_one_of(const char *s, const char *const *names) {
        while (*names && strcmp(*names, s) != 0)
                names++;
        return *names;
}

static int dispatch(const Callout *c) {
        static const char *const changes[] = { "start", "stop", "define", "undefine", "modify", NULL };

        if (strcmp(c->event, "get") == 0 && strcmp(c->action, "capabilities") == 0)
                return get_capabilities(c);
        if (strcmp(c->event, "get") == 0 && strcmp(c->action, "attributes") == 0)
                return get_attributes(c);
        if (strcmp(c->event, "pre") == 0 && is_one_of(c->action, changes))
                return pre(c);
        if (strcmp(c->event, "post") == 0 && is_one_of(c->action, changes))
                return post(c);
        if (strcmp(c->event, "live") == 0 && strcmp(c->action, "modify") == 0)
                return live_modify(c);
        if (strcmp(c->event, "notify") == 0)
                return CALLOUT_OK;
        return tell(c, "event '%s' of action '%s' is not known", c->event, c->action);
}

int callout_run(int argc, char *const *argv, const Callout *streams) {
        const char *type = NULL, *parent = NULL, *uuid = NULL, *state = NULL;
        Callout c = *streams;
        const struct {
                char letter;
                const char **value;
        } options[] = { { 't', &type },  { 'e', &c.event }, { 'a', &c.action },
                        { 's', &state }, { 'u', &uuid },    { 'p', &parent } };

        /* later versions may have more options: each has a value */
        for (int i = 1; i + 1 < argc; i += 2)
                for (size_t k = 0; k < ELEMENTS(options); k++)
                        if (argv[i][0] == '-' && argv[i][1] == options[k].letter && !argv[i][2])
                                *options[k].value = argv[i + 1];

        if (!type || !c.event || !c.action || !parent || !uuid)
                return tell(
                        &c,
                        "usage: guestcrypt-callout -t TYPE -e EVENT -a ACTION -s STATE -u UUID -p PARENT; "
                        "this program is for mdevctl to run");
        if (strcmp(type, CALLOUT_TYPE) != 0)
                return CALLOUT_NOT_MINE;
        if (strcmp(parent, CALLOUT_PARENT) != 0)
                return tell(&c, "parent '%s' has no such devices, '" CALLOUT_PARENT "' has", parent);
        if (uuid_parse(uuid, &c.uuid) < 0)
                return tell(&c, "'%s' is no UUID", uuid);
        return dispatch(&c);
}
