/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <libvirt/virterror.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "virt/virt_conn.h"
#include "virt/virt_cpu.h"
#include "virt/virt_socket.h"
#include "virt/virt_wire.h"

#define RETRY_FIRST_MS  200
#define RETRY_MAX_MS    30000  /* where nothing tells that libvirt is back */
#define RETRY_IDLE_MS   300000 /* where the directory of its socket is watched */
#define KEEPALIVE_S     30     /* each is a wakeup; a call that hangs has a deadline of its own */
#define KEEPALIVE_COUNT 1
#define LATE_MS         1000 /* after the event of a device */

/* libvirt casts to another type with arguments, of which newer compilers warn. */
#define CALLBACK(f) ((virConnectDomainEventGenericCallback) (void (*)(void))(f))

/* One that the daemon has been told of. */
typedef struct Known {
        Uuid uuid;
        char *told; /* the message */
        bool seen;
} Known;

typedef struct UuidList {
        Uuid *list;
        size_t n, capacity;
} UuidList;

struct Conn {
        char *uri;
        int fd;
        virConnectPtr libvirt;
        bool lost; /* noticed, to be closed by the timer */
        int timer; /* connects */
        int retry_ms;
        int inotify_fd, inotify_handle;
        int callbacks[5];
        Known *known;
        size_t n_known, capacity;
        UuidList dirty, late; /* to be read when the loop comes round, or once more after that */
        int dirty_timer, late_timer;
        char error[400];
};

virConnectPtr conn_libvirt(const Conn *c) {
        return c->lost ? NULL : c->libvirt;
}

const char *conn_uri(const Conn *c) {
        return c->uri;
}

const char *conn_error(Conn *c) {
        virErrorPtr e = virGetLastError();
        char *p;

        (void) snprintf(c->error, sizeof c->error, "%s (libvirt's error %d)",
                        e && e->message ? e->message : "unknown error", e ? e->code : 0);
        /* a hook's or QEMU's output can be many lines */
        for (p = c->error; *p; p++)
                if ((unsigned char) *p < ' ' || *p == 0x7f)
                        *p = ' ';
        return c->error;
}

bool conn_is_lost(Conn *c) {
        return !c->libvirt || c->lost || virConnectIsAlive(c->libvirt) != 1;
}

void conn_send(Conn *c, json_object *message) {
        CLEANUP(wire_lines_clear) WireLines l = {};
        int r;

        r = message ? wire_lines_put(&l, message) : -ENOMEM;
        if (r >= 0)
                r = file_write_all(c->fd, l.data, l.size);
        if (r < 0 && r != -EMSGSIZE)
                _exit(1); /* the daemon starts another */
}

static void say(Conn *c, const char *event, const char *name, const char *value) {
        CLEANUP(json_putp) json_object *o = wire_new("event", event);

        if (o && name && wire_add_string(o, name, value) < 0)
                _exit(1);
        conn_send(c, o);
}

static void say_uuid(Conn *c, const char *event, Uuid id) {
        char text[UUID_STRING_SIZE];

        say(c, event, "uuid", uuid_format(id, text));
}

/* ---- guests ---- */

static Known *known_find(const Conn *c, Uuid id) {
        for (size_t i = 0; i < c->n_known; i++)
                if (uuid_equal(c->known[i].uuid, id))
                        return c->known + i;
        return NULL;
}

static void known_remove(Conn *c, Known *k) {
        say_uuid(c, "gone", k->uuid);
        free(k->told);
        *k = c->known[--c->n_known];
}

static Known *known_add(Conn *c, Uuid id) {
        if (c->n_known == c->capacity) {
                size_t capacity = 2 * c->capacity + 64;
                Known *bigger = reallocarray(c->known, capacity, sizeof *bigger);

                if (!bigger)
                        return NULL;
                c->known = bigger;
                c->capacity = capacity;
        }
        c->known[c->n_known] = (Known) { .uuid = id };
        return c->known + c->n_known++;
}

/* Tells of it unless the same was told before. */
static int tell(Conn *c, const VirtGuest *g) {
        CLEANUP(json_putp) json_object *o = wire_new("event", "guest");
        Known *k = known_find(c, g->uuid);
        const char *text;
        int r;

        r = o ? wire_put_guest(o, g) : -ENOMEM;
        if (r < 0)
                return r;
        text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
        if (!text)
                return -ENOMEM;
        if (!k)
                k = known_add(c, g->uuid);
        if (!k)
                return -ENOMEM;
        k->seen = true;
        if (k->told && strcmp(k->told, text) == 0)
                return 0;

        free(k->told);
        k->told = strdup(text);
        conn_send(c, o);
        return 0;
}

static VirtState state_of(int state) {
        switch (state) {
        case VIR_DOMAIN_RUNNING:
                return VIRT_STATE_RUNNING;
        case VIR_DOMAIN_BLOCKED:
        case VIR_DOMAIN_PAUSED:
        case VIR_DOMAIN_PMSUSPENDED:
                return VIRT_STATE_PAUSED;
        case VIR_DOMAIN_SHUTDOWN:
                return VIRT_STATE_SHUTDOWN;
        case VIR_DOMAIN_SHUTOFF:
                return VIRT_STATE_SHUTOFF;
        case VIR_DOMAIN_CRASHED:
                return VIRT_STATE_CRASHED;
        default:
                return VIRT_STATE_UNKNOWN;
        }
}

/* 1: libvirt said no. What cannot be read as XML is shown as a guest with a problem, not left out. */
static int read_wiring(virDomainPtr d, unsigned flags, const VirtGuest *g, VirtWiring *ret, char **ret_xml) {
        CLEANUP(freep) char *xml = virDomainGetXMLDesc(d, flags), *text = NULL;
        int r;

        if (!xml)
                return 1;
        r = virt_xml_read(xml, strlen(xml), ret, &text);
        if (r == -EBADMSG) {
                VirtWiring w = { .uuid = g->uuid,
                                 .name = strdup(g->name),
                                 .arch = strdup(""),
                                 .type = strdup(""),
                                 .machine = strdup(""),
                                 .emulator = strdup(""),
                                 .problems = calloc(2, sizeof(char *)) };

                if (w.problems)
                        w.problems[0] = TAKE(text);
                *ret = w;
                r = w.name && w.arch && w.type && w.machine && w.emulator && w.problems ? 0 : -ENOMEM;
        }
        if (r >= 0 && ret_xml)
                *ret_xml = TAKE(xml);
        return r;
}

static bool has_matrix(const VirtWiring *w) {
        return w->n_mdevs > 0 || w->matrix;
}

static int read_guest(Conn *c, virDomainPtr d, VirtGuest *g) {
        CLEANUP(freep) char *config = NULL, *live = NULL;
        int state = 0, r = 0;

        if (virDomainGetUUID(d, g->uuid.b) < 0)
                return 1;
        g->name = strdup(virDomainGetName(d) ?: "");
        if (!g->name)
                return -ENOMEM;
        r = virDomainIsPersistent(d);
        if (r < 0)
                return 1;
        g->persistent = r > 0;
        r = virDomainIsActive(d);
        if (r < 0 || virDomainGetState(d, &state, NULL, 0) < 0)
                return 1;
        g->active = r > 0;
        g->state = state_of(state);

        r = 0;
        if (g->persistent)
                r = read_wiring(d, VIR_DOMAIN_XML_INACTIVE, g, &g->config, &config);
        if (r == 0 && g->active)
                r = read_wiring(d, 0, g, &g->live, &live);
        if (r != 0)
                return r;

        if (g->persistent ? has_matrix(&g->config) : has_matrix(&g->live))
                r = virt_cpu_lacks(c->libvirt, g->persistent ? &g->config : &g->live, config ?: live,
                                   &g->lacks);
        return r;
}

static bool look(Conn *c, virDomainPtr d) {
        CLEANUP(virt_guest_clear) VirtGuest g = {};
        int r;

        r = read_guest(c, d, &g);
        if (r == 0)
                r = tell(c, &g);
        if (r < 0)
                _exit(1); /* no memory: the daemon starts another */
        return r == 0;
}

bool conn_refresh(Conn *c, Uuid guest, bool asked) {
        Known *k = known_find(c, guest);
        virDomainPtr d;
        bool done;

        if (!conn_libvirt(c))
                return false;
        if (k && asked)
                free(TAKE(k->told));
        d = virDomainLookupByUUID(c->libvirt, guest.b);
        if (!d) {
                done = virGetLastErrorCode() == VIR_ERR_NO_DOMAIN;
                if (k && done)
                        known_remove(c, k);
                return done;
        }

        done = look(c, d);
        (void) virDomainFree(d);
        return done;
}

/* All of them; those that are not there any more are gone. */
static int list(Conn *c) {
        virDomainPtr *all;
        int n;

        n = virConnectListAllDomains(c->libvirt, &all, 0);
        if (n < 0)
                return -EHOSTDOWN;

        for (size_t i = 0; i < c->n_known; i++)
                c->known[i].seen = false;
        for (int i = 0; i < n; i++) {
                Uuid id;
                Known *k;

                (void) look(c, all[i]);
                /* one that could not be read now is there all the same */
                if (virDomainGetUUID(all[i], id.b) == 0 && (k = known_find(c, id)))
                        k->seen = true;
                (void) virDomainFree(all[i]);
        }
        free(all);
        if (conn_is_lost(c))
                return -EHOSTDOWN;

        for (size_t i = 0; i < c->n_known;)
                if (!c->known[i].seen)
                        known_remove(c, c->known + i);
                else
                        i++;
        say(c, "listed", NULL, NULL);
        return 0;
}

/* ---- events: hints, after which a guest is read anew, from the loop and not from within a callback ---- */

static void uuid_list_add(UuidList *l, Uuid id) {
        for (size_t i = 0; i < l->n; i++)
                if (uuid_equal(l->list[i], id))
                        return;
        if (l->n == l->capacity) {
                size_t capacity = 2 * l->capacity + 16;
                Uuid *bigger = reallocarray(l->list, capacity, sizeof *bigger);

                if (!bigger)
                        _exit(1);
                l->list = bigger;
                l->capacity = capacity;
        }
        l->list[l->n++] = id;
}

static void mark_dirty(Conn *c, virDomainPtr d) {
        Uuid id;

        if (virDomainGetUUID(d, id.b) < 0)
                return;
        uuid_list_add(&c->dirty, id);
        virEventUpdateTimeout(c->dirty_timer, 0);
}

static void on_dirty(int timer, void *userdata) {
        Conn *c = userdata;

        if (c->dirty.n == 0 || !conn_libvirt(c)) {
                c->dirty.n = 0;
                virEventUpdateTimeout(timer, -1);
                return;
        }
        /* one a turn, so that the daemon's calls come between */
        (void) conn_refresh(c, c->dirty.list[--c->dirty.n], false);
}

static void on_late(int timer, void *userdata) {
        Conn *c = userdata;

        virEventUpdateTimeout(timer, -1);
        while (c->late.n > 0)
                uuid_list_add(&c->dirty, c->late.list[--c->late.n]);
        virEventUpdateTimeout(c->dirty_timer, 0);
}

static int on_lifecycle(virConnectPtr l, virDomainPtr d, int event, int detail, void *userdata) {
        mark_dirty(userdata, d);
        return 0;
}

static void on_reboot(virConnectPtr l, virDomainPtr d, void *userdata) {
        Uuid id;

        if (virDomainGetUUID(d, id.b) == 0)
                say_uuid(userdata, "reboot", id);
}

static void on_metadata(virConnectPtr l, virDomainPtr d, int type, const char *uri, void *userdata) {
        mark_dirty(userdata, d);
}

/* What is changed in the definition by the same call is changed after this event, and without one of its own. */
static void on_device(virConnectPtr l, virDomainPtr d, const char *alias, void *userdata) {
        Conn *c = userdata;
        Uuid id;

        mark_dirty(c, d);
        if (virDomainGetUUID(d, id.b) < 0)
                return;
        uuid_list_add(&c->late, id);
        virEventUpdateTimeout(c->late_timer, LATE_MS);
}

/* ---- the connection ---- */

static void on_close(virConnectPtr l, int reason, void *userdata) {
        static const char *const reasons[] = { "an error", "libvirtd has ended", "libvirtd does not answer",
                                               "closed" };
        Conn *c = userdata;

        if (c->lost)
                return;
        c->lost = true;
        c->retry_ms = RETRY_FIRST_MS;
        say(c, "down", "why", reason >= 0 && reason < (int) ELEMENTS(reasons) ? reasons[reason] : "lost");
        virEventUpdateTimeout(c->timer, 0);
}

static void disconnect(Conn *c) {
        if (!c->libvirt)
                return;
        for (size_t i = 0; i < ELEMENTS(c->callbacks); i++)
                if (c->callbacks[i] >= 0)
                        (void) virConnectDomainEventDeregisterAny(c->libvirt, c->callbacks[i]);
        (void) virConnectUnregisterCloseCallback(c->libvirt, on_close);
        (void) virConnectClose(c->libvirt);
        c->libvirt = NULL;
        c->lost = false;
}

static int subscribe(Conn *c) {
        const struct {
                int id;
                virConnectDomainEventGenericCallback f;
        } wanted[ELEMENTS(c->callbacks)] = {
                { VIR_DOMAIN_EVENT_ID_LIFECYCLE, CALLBACK(on_lifecycle) },
                { VIR_DOMAIN_EVENT_ID_REBOOT, CALLBACK(on_reboot) },
                { VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, CALLBACK(on_metadata) },
                { VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, CALLBACK(on_device) },
                { VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, CALLBACK(on_device) },
        };

        for (size_t i = 0; i < ELEMENTS(wanted); i++)
                c->callbacks[i] = virConnectDomainEventRegisterAny(c->libvirt, NULL, wanted[i].id,
                                                                   wanted[i].f, c, NULL);
        /* without the first nothing can be relied on */
        return c->callbacks[0] < 0 ? -EOPNOTSUPP : 0;
}

static void retry_later(Conn *c) {
        int most = c->inotify_handle >= 0 ? RETRY_IDLE_MS : RETRY_MAX_MS;

        virEventUpdateTimeout(c->timer, c->retry_ms);
        c->retry_ms = MIN(2 * c->retry_ms, most);
}

static void connect_now(Conn *c) {
        virEventUpdateTimeout(c->timer, -1);
        disconnect(c);
        c->libvirt = virConnectOpen(c->uri);
        if (!c->libvirt) {
                say(c, "down", "why", conn_error(c));
                if (virt_socket_is_missing(c->uri))
                        exit(0); /* guestcryptd sees it come, too, and needs less for that */
                retry_later(c);
                return;
        }

        /* neither is there for connections within the process, as to libvirt's test driver */
        (void) virConnectRegisterCloseCallback(c->libvirt, on_close, c, NULL);
        (void) virConnectSetKeepAlive(c->libvirt, KEEPALIVE_S, KEEPALIVE_COUNT);
        /* events first, so that nothing is missed between the list and them */
        if (subscribe(c) < 0) {
                say(c, "down", "why", conn_error(c));
                disconnect(c);
                retry_later(c);
                return;
        }
        say(c, "up", NULL, NULL);
        if (list(c) < 0) {
                say(c, "down", "why", conn_error(c));
                disconnect(c);
                retry_later(c);
                return;
        }
        c->retry_ms = RETRY_FIRST_MS;
}

static void on_connect(int timer, void *userdata) {
        connect_now(userdata);
}

bool conn_find(Conn *c, const char *name) {
        virDomainPtr d;
        Uuid uuid;
        bool done;

        /* libvirt may be there already, and the event that tells us still to come */
        if (!conn_libvirt(c) && !virt_socket_is_missing(c->uri))
                connect_now(c);
        if (!conn_libvirt(c))
                return false;
        d = virDomainLookupByName(c->libvirt, name);
        if (!d) {
                done = virGetLastErrorCode() == VIR_ERR_NO_DOMAIN;
                return done && uuid_parse(name, &uuid) >= 0 ? conn_refresh(c, uuid, true) : done;
        }

        done = virDomainGetUUID(d, uuid.b) == 0 && conn_refresh(c, uuid, true);
        (void) virDomainFree(d);
        return done;
}

/* Something appeared where libvirt's sockets are. */
static void on_inotify(int handle, int fd, int events, void *userdata) {
        char buffer[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
        Conn *c = userdata;

        while (read(fd, buffer, sizeof buffer) > 0)
                ;
        (void) inotify_add_watch(fd, VIRT_SOCKET_DIR, IN_CREATE | IN_MOVED_TO);
        if (!c->libvirt) {
                c->retry_ms = RETRY_FIRST_MS;
                virEventUpdateTimeout(c->timer, 0);
        }
}

static bool is_local(const char *uri) {
        const char *p = strstr(uri, "://");

        return p && p[3] == '/' && !memchr(uri, '+', (size_t) (p - uri)) && strncmp(uri, "test:", 5) != 0;
}

static void watch_sockets(Conn *c) {
        if (!is_local(c->uri))
                return;
        c->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (c->inotify_fd < 0)
                return;
        /* its directory may not be there yet: then in the one above */
        if (inotify_add_watch(c->inotify_fd, VIRT_SOCKET_DIR, IN_CREATE | IN_MOVED_TO) < 0 &&
            inotify_add_watch(c->inotify_fd, "/run", IN_CREATE | IN_MOVED_TO) < 0)
                return;
        c->inotify_handle = virEventAddHandle(c->inotify_fd, VIR_EVENT_HANDLE_READABLE, on_inotify, c, NULL);
}

Conn *conn_free(Conn *c) {
        if (!c)
                return NULL;
        disconnect(c);
        for (size_t i = 0; i < c->n_known; i++)
                free(c->known[i].told);
        free(c->known);
        free(c->dirty.list);
        free(c->late.list);
        (void) fd_close(c->inotify_fd);
        free(c->uri);
        free(c);
        return NULL;
}

int conn_new(const char *uri, int fd, Conn **ret) {
        Conn *c = calloc(1, sizeof *c);

        if (!c)
                return -ENOMEM;
        c->fd = fd;
        c->inotify_fd = c->inotify_handle = -1;
        c->retry_ms = RETRY_FIRST_MS;
        c->uri = strdup(uri);
        c->timer = virEventAddTimeout(0, on_connect, c, NULL);
        c->dirty_timer = virEventAddTimeout(-1, on_dirty, c, NULL);
        c->late_timer = virEventAddTimeout(-1, on_late, c, NULL);
        if (!c->uri || c->timer < 0 || c->dirty_timer < 0 || c->late_timer < 0) {
                (void) conn_free(c);
                return -ENOMEM;
        }
        watch_sockets(c);

        *ret = c;
        return 0;
}
