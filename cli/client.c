/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "cli/cli.h"

/* Longer than an operation's own deadlines, the wait for a password and a failing bus activation (25 s)
 * together. */
#define CALL_TIMEOUT_US (180 * UINT64_C(1000000))
#define PROGRESS_US     UINT64_C(1000000)

#define ERROR_PREFIX CLI_BUS_NAME ".Error."

/* ---- errors ---- */

/* One line of UTF-8, whatever was typed or came from elsewhere: a terminal does not obey it, and JSON can hold it. */
static void make_line(char *s) {
        for (size_t n; *s; s += n) {
                n = utf8_length(s);
                if (n == 0 || iscntrl((unsigned char) *s)) {
                        *s = '?';
                        n = 1;
                }
        }
}

const char *cli_quote(const char *arg, char buf[static CLI_QUOTE_SIZE]) {
        size_t size = strlen(arg);

        (void) snprintf(buf, CLI_QUOTE_SIZE, "'%.*s%s'", CLI_QUOTE_MAX, arg,
                        size > CLI_QUOTE_MAX ? "..." : "");
        return buf;
}

static void tell(Cli *c, const char *name, const char *text) {
        CLEANUP(json_putp) json_object *doc = NULL;
        json_object *error;

        if (!c->json) {
                (void) fprintf(c->err, "guestcryptctl: %s\n", text);
                return;
        }

        doc = json_object_new_object();
        error = json_object_new_object();
        (void) json_object_object_add(error, "name", json_object_new_string(name));
        (void) json_object_object_add(error, "message", json_object_new_string(text));
        (void) json_object_object_add(doc, "error", error);
        (void) cli_print_json(c, doc);
}

static void vtell(Cli *c, const char *name, const char *format, va_list ap)
        __attribute__((format(printf, 3, 0)));
static void vtell(Cli *c, const char *name, const char *format, va_list ap) {
        CLEANUP(freep) char *text = NULL;

        if (vasprintf(&text, format, ap) < 0) {
                text = NULL;
                tell(c, name, "out of memory");
                return;
        }

        make_line(text);
        tell(c, name, text);
}

int cli_usage(Cli *c, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        vtell(c, "Usage", format, ap);
        va_end(ap);

        return CLI_USAGE;
}

int cli_status(const char *name) {
        static const char *const conflicts[] = { "Overlap", "HostOwned", "InUse" };

        if (strncmp(name, ERROR_PREFIX, strlen(ERROR_PREFIX)) != 0)
                return CLI_FAILED;

        for (size_t i = 0; i < ELEMENTS(conflicts); i++)
                if (strcmp(name + strlen(ERROR_PREFIX), conflicts[i]) == 0)
                        return CLI_CONFLICT;

        return CLI_FAILED;
}

int cli_error(Cli *c, const char *name, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        vtell(c, name ?: "Failed", format, ap);
        va_end(ap);

        return cli_status(name ?: "");
}

int cli_errno(Cli *c, int r, const char *doing) {
        return cli_error(c, NULL, "%s failed: %s", doing, strerror(-r));
}

int cli_broken(Cli *c, int r) {
        return cli_errno(c, r, "reading the daemon's answer");
}

int cli_unsendable(Cli *c, int r) {
        if (r == -EINVAL)
                return cli_usage(c, "an argument is no UTF-8 text");

        return cli_errno(c, r, "preparing a call");
}

/* What the user can do about errors that do not come from the daemon itself. */
static int tell_bus_error(Cli *c, const sd_bus_error *e, const char *doing) {
        static const struct {
                const char *name, *hint;
        } hints[] = {
                { SD_BUS_ERROR_SERVICE_UNKNOWN,
                  "guestcryptd does not run; try 'systemctl start guestcryptd'" },
                { SD_BUS_ERROR_NAME_HAS_NO_OWNER,
                  "guestcryptd does not run; try 'systemctl start guestcryptd'" },
                { "org.freedesktop.systemd1.",
                  "guestcryptd cannot be started; see 'systemctl status guestcryptd'" },
                { "org.freedesktop.DBus.Error.Spawn",
                  "guestcryptd cannot be started; see 'systemctl status guestcryptd'" },
                { SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED,
                  "this needs authentication; try as root" },
                { SD_BUS_ERROR_ACCESS_DENIED, "try as root" },
                /* of a connection that has gone, here or there, as of time that is over */
                { SD_BUS_ERROR_NO_REPLY, "guestcryptd gave no answer; see 'guestcryptctl status'" },
                { SD_BUS_ERROR_TIMEOUT, "guestcryptd did not answer in time; see 'guestcryptctl status'" },
                { SD_BUS_ERROR_UNKNOWN_OBJECT, "there is no such object (any more)" },
        };
        const char *text = e->message && *e->message ? e->message : e->name;

        for (size_t i = 0; i < ELEMENTS(hints); i++)
                if (strncmp(e->name, hints[i].name, strlen(hints[i].name)) == 0)
                        return cli_error(c, e->name, "%s failed: %s (%s)", doing, hints[i].hint, text);

        return cli_error(c, e->name, "%s", text);
}

int cli_refused(Cli *c, sd_bus_message *reply, const char *doing) {
        return tell_bus_error(c, sd_bus_message_get_error(reply), doing);
}

/* ---- connection and calls ---- */

int cli_connect(Cli *c) {
        int r;

        if (c->values[OPT_HOST])
                r = sd_bus_open_system_remote(&c->bus, c->values[OPT_HOST]);
        else
                r = sd_bus_open_system(&c->bus);
        if (r < 0)
                return cli_error(c, NULL, "cannot connect to the system bus%s%s: %s",
                                 c->values[OPT_HOST] ? " of " : "", c->values[OPT_HOST] ?: "", strerror(-r));

        (void) sd_bus_set_allow_interactive_authorization(c->bus, !c->values[OPT_NO_ASK_PASSWORD]);
        return CLI_DONE;
}

int cli_call_new(Cli *c, const char *path, const char *interface, const char *method, sd_bus_message **ret) {
        int r;

        r = sd_bus_message_new_method_call(c->bus, ret, CLI_BUS_NAME, path, interface, method);
        return r < 0 ? cli_unsendable(c, r) : CLI_DONE;
}

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        *(sd_bus_message **) userdata = sd_bus_message_ref(m);
        return 1;
}

static unsigned seconds_since(uint64_t us) {
        return (unsigned) ((clock_now_us() - us) / 1000000);
}

/* Waits for *reply, telling a person what for. 0 or -errno. */
static int wait_reply(Cli *c, sd_bus_message **reply, const char *doing) {
        uint64_t begun_us = clock_now_us();
        bool told = false;
        int r;

        for (;;) {
                r = sd_bus_process(c->bus, NULL);
                if (r < 0 || *reply)
                        break;
                if (r > 0)
                        continue;

                r = sd_bus_wait(c->bus, c->progress ? PROGRESS_US : UINT64_MAX);
                if (r < 0 && r != -EINTR)
                        break;
                if (c->progress && seconds_since(begun_us) > 0) {
                        (void) fprintf(c->err, "\r\033[K%s, %u s ...", doing, seconds_since(begun_us));
                        (void) fflush(c->err);
                        told = true;
                }
        }

        if (told)
                (void) fputs("\r\033[K", c->err);

        return *reply ? 0 : r;
}

int cli_exchange(Cli *c, sd_bus_message *m, const char *doing, sd_bus_message **ret) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        CLEANUP(sd_bus_slot_unrefp) sd_bus_slot *slot = NULL;
        int r;

        r = sd_bus_call_async(c->bus, &slot, m, on_reply, &reply, CALL_TIMEOUT_US);
        if (r >= 0)
                r = wait_reply(c, &reply, doing);
        if (r < 0)
                return cli_error(c, NULL, "%s failed: the connection to the bus is lost: %s", doing,
                                 strerror(-r));

        *ret = TAKE(reply);
        return CLI_DONE;
}

int cli_call(Cli *c, sd_bus_message *m, const char *doing, sd_bus_message **ret) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        int r;

        r = cli_exchange(c, m, doing, &reply);
        if (r != CLI_DONE)
                return r;
        if (sd_bus_message_is_method_error(reply, NULL))
                return cli_refused(c, reply, doing);

        if (ret)
                *ret = TAKE(reply);
        return CLI_DONE;
}

int cli_ask(Cli *c, const char *path, const char *interface, const char *method, const char *doing,
            json_object **ret) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        int r;

        r = cli_call_new(c, path, interface, method, &m);
        if (r == CLI_DONE)
                r = cli_call(c, m, doing, &reply);
        if (r != CLI_DONE)
                return r;

        r = json_from_message(reply, ret);
        return r < 0 ? cli_broken(c, r) : CLI_DONE;
}

int cli_lookup(Cli *c, const char *method, const char *name, sd_bus_message **ret) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r;

        r = cli_call_new(c, CLI_BUS_ROOT, CLI_INTERFACE("Manager"), method, &m);
        if (r != CLI_DONE)
                return r;

        r = sd_bus_message_append(m, "s", name);
        if (r < 0)
                return cli_unsendable(c, r);

        return cli_exchange(c, m, "looking it up", ret);
}

int cli_find(Cli *c, const char *method, const char *name, char **ret) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        int r;

        r = cli_connect(c);
        if (r == CLI_DONE)
                r = cli_lookup(c, method, name, &reply);
        if (r != CLI_DONE)
                return r;
        if (sd_bus_message_is_method_error(reply, NULL))
                return cli_refused(c, reply, "looking it up");

        return cli_read_path(c, reply, ret);
}

int cli_read_path(Cli *c, sd_bus_message *reply, char **ret) {
        const char *path;
        int r;

        r = sd_bus_message_read(reply, "o", &path);
        if (r < 0)
                return cli_broken(c, r);

        *ret = strdup(path);
        return *ret ? CLI_DONE : cli_broken(c, -ENOMEM);
}

/* ---- objects ---- */

static json_object *with_our_keys(json_object *properties) {
        json_object *o = json_object_new_object();
        char key[64];

        json_object_object_foreach(properties, name, value)(void)
                json_object_object_add(o, json_key(name, key), json_object_get(value));

        return o;
}

int cli_properties(Cli *c, const char *path, const char *interface, json_object **ret) {
        CLEANUP(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
        CLEANUP(json_putp) json_object *properties = NULL;
        int r;

        r = cli_call_new(c, path, "org.freedesktop.DBus.Properties", "GetAll", &m);
        if (r != CLI_DONE)
                return r;
        r = sd_bus_message_append(m, "s", interface);
        if (r < 0)
                return cli_unsendable(c, r);
        r = cli_call(c, m, "reading properties", &reply);
        if (r != CLI_DONE)
                return r;

        r = json_from_message(reply, &properties);
        if (r < 0)
                return cli_broken(c, r);
        if (!json_object_is_type(properties, json_type_object))
                return cli_broken(c, -EBADMSG);

        *ret = with_our_keys(properties);
        return CLI_DONE;
}

int cli_object(Cli *c, const char *path, const char *interface, json_object **ret) {
        int r;

        r = cli_properties(c, path, interface, ret);
        if (r == CLI_DONE)
                (void) json_object_object_add(*ret, "path", json_object_new_string(path));
        return r;
}

int cli_tell(Cli *c, const char *path, const char *interface, const char *kind, const char *what) {
        CLEANUP(json_putp) json_object *o = NULL;
        int r;

        r = cli_object(c, path, interface, &o); /* its name may have stood in XML */
        if (r == CLI_DONE && !cli_print_json(c, o))
                (void) fprintf(c->out, "%s %s is %s.\n", kind, json_text(o, "name"), what);
        return r;
}

int cli_tell_made(Cli *c, sd_bus_message *reply, const char *interface, const char *kind, const char *what) {
        const char *path;
        int r;

        r = sd_bus_message_read(reply, "o", &path);
        return r < 0 ? cli_broken(c, r) : cli_tell(c, path, interface, kind, what);
}

void cli_print_problems(Cli *c, json_object *o) {
        json_object *problems = json_object_object_get(o, "problems");

        for (size_t i = 0; problems && i < json_object_array_length(problems); i++)
                (void) fprintf(c->out, "%-18s %s\n", i == 0 ? "problems" : "",
                               json_object_get_string(json_object_array_get_idx(problems, i)));
}

static int compare(const void *pa, const void *pb, void *key) {
        json_object *a = json_object_object_get(*(json_object *const *) pa, key);
        json_object *b = json_object_object_get(*(json_object *const *) pb, key);

        if (json_object_is_type(a, json_type_int))
                return json_object_get_int(a) - json_object_get_int(b);

        return strcmp(json_object_get_string(a) ?: "", json_object_get_string(b) ?: "");
}

int cli_objects(Cli *c, const char *interface, const char *sort_key, json_object **ret) {
        CLEANUP(json_putp) json_object *all = NULL, *array = NULL;
        CLEANUP(freep) json_object **list = NULL;
        size_t n = 0;
        int r;

        r = cli_ask(c, CLI_BUS_ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects",
                    "listing objects", &all);
        if (r != CLI_DONE)
                return r;
        if (!json_object_is_type(all, json_type_object))
                return cli_broken(c, -EBADMSG);

        list = calloc((size_t) json_object_object_length(all) + 1, sizeof *list);
        array = json_object_new_array();
        if (!list || !array)
                return cli_broken(c, -ENOMEM);

        json_object_object_foreach(all, path, interfaces) {
                json_object *properties = json_object_object_get(interfaces, interface);

                if (!properties)
                        continue;
                list[n] = with_our_keys(properties);
                (void) json_object_object_add(list[n++], "path", json_object_new_string(path));
        }

        qsort_r(list, n, sizeof *list, compare, (void *) sort_key);
        for (size_t i = 0; i < n; i++)
                (void) json_object_array_add(array, list[i]);

        *ret = TAKE(array);
        return CLI_DONE;
}
