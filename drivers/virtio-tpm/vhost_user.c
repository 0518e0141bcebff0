/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/vhost_user.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stddef.h>
#include <string.h>

#include "base/cleanup.h"
#include "drivers/virtio-tpm/notify.h"
#include "drivers/virtio-tpm/report.h"

enum {
        GET_FEATURES = 1,
        SET_FEATURES = 2,
        SET_OWNER = 3,
        RESET_OWNER = 4,
        SET_MEM_TABLE = 5,
        SET_VRING_NUM = 8,
        SET_VRING_ADDR = 9,
        SET_VRING_BASE = 10,
        GET_VRING_BASE = 11,
        SET_VRING_KICK = 12,
        SET_VRING_CALL = 13,
        SET_VRING_ERR = 14,
        GET_PROTOCOL_FEATURES = 15,
        SET_PROTOCOL_FEATURES = 16,
        GET_QUEUE_NUM = 17,
        SET_VRING_ENABLE = 18,
        RESET_DEVICE = 34,
        GET_MAX_MEM_SLOTS = 36,
        ADD_MEM_REG = 37,
        REM_MEM_REG = 38,
        SET_STATUS = 39,
        GET_STATUS = 40,
};

enum { FLAGS_VERSION = 1, FLAGS_VERSION_MASK = 3, FLAGS_REPLY = 4, FLAGS_NEED_REPLY = 8 };

enum {
        PROTOCOL_MQ = 0,
        PROTOCOL_REPLY_ACK = 3,
        PROTOCOL_RESET_DEVICE = 13,
        PROTOCOL_MEM_SLOTS = 15,
        PROTOCOL_STATUS = 16
};

#define F_PROTOCOL_FEATURES 30
#define VRING_NO_FD         0x100 /* in the number that comes with a ring's descriptor */
#define TABLE_REGIONS_MAX   8     /* of SET_MEM_TABLE */

/* Without LOG_SHMFD the front end blocks migration: the TPM's state would not go with it. */
#define PROTOCOL_OFFERED \
        (1U << PROTOCOL_MQ | 1U << PROTOCOL_REPLY_ACK | 1U << PROTOCOL_RESET_DEVICE | \
         1U << PROTOCOL_MEM_SLOTS | 1U << PROTOCOL_STATUS)

typedef struct Header {
        uint32_t request, flags, size;
} Header;

typedef struct Region {
        uint64_t guest, size, user, offset;
} Region;

typedef struct Request {
        const uint8_t *data;
        size_t size;
        Wire *wire;
        bool again;
        uint8_t reply[16];
        size_t reply_size;
} Request;

static int64_t whole_size(const uint8_t *header) {
        Header h;

        memcpy(&h, header, sizeof h);
        return (int64_t) sizeof h + h.size;
}

static int get_u64(const Request *q, uint64_t *ret) {
        if (q->size != sizeof *ret)
                return -EINVAL;

        memcpy(ret, q->data, sizeof *ret);
        return 0;
}

/* A queue's number and a value; there is only queue 0. */
static int get_vring(const Request *q, uint32_t *ret) {
        uint32_t v[2];

        if (q->size != sizeof v)
                return -EINVAL;

        memcpy(v, q->data, sizeof v);
        if (v[0] != VIRTIO_TPM_QUEUE)
                return -EINVAL;

        *ret = v[1];
        return 0;
}

static void put_reply(Request *q, const void *data, size_t size) {
        memcpy(q->reply, data, size);
        q->reply_size = size;
}

static void put_u64(Request *q, uint64_t v) {
        put_reply(q, &v, sizeof v);
}

/* Where an address of the VMM is for the guest. */
static int translate(const VhostUser *v, uint64_t user, uint64_t *ret) {
        for (uint32_t i = 0; i < v->s->n_regions; i++) {
                const VhostUserRegion *g = &v->s->regions[i];

                if (user >= g->user && user - g->user < g->size) {
                        *ret = g->guest + (user - g->user);
                        return 0;
                }
        }
        return -EFAULT;
}

static bool has_protocol(const VhostUser *v, unsigned n) {
        return v->s->protocol >> n & 1;
}

/* Starts the ring if all is there, which the front end may bring in any order; looks into one that runs. */
static void ring_update(VhostUser *v) {
        VhostUserState *s = v->s;
        DeviceState *d = v->device->s;
        bool enabled = s->enabled || !(s->features >> F_PROTOCOL_FEATURES & 1);
        uint16_t used;
        int r;

        if (!enabled || !s->kicked || !s->have_address || !(s->features >> VIRTIO_F_VERSION_1 & 1) ||
            d->broken) {
                d->running = 0;
                return;
        }

        if (translate(v, s->desc, &d->ring.desc) < 0 || translate(v, s->avail, &d->ring.avail) < 0 ||
            translate(v, s->used, &d->ring.used) < 0) {
                d->running = 0; /* until its memory comes (back) */
                return;
        }
        d->ring.size = (uint16_t) (s->size > RING_SIZE_MAX ? 0 : s->size);
        d->features = s->features;

        if (s->rebase) {
                /* the used index is the guest's to tell: it goes on where the last device stopped */
                if (memory_read16(v->memory, d->ring.used + offsetof(struct vring_used, idx), &used) < 0)
                        return;
                d->ring.next_avail = (uint16_t) s->base;
                d->ring.next_used = used;
                s->rebase = 0;
        }
        r = device_start(v->device);
        if (r == -EINVAL)
                report(LOG_WARNING, "the guest's ring has no possible size or place; not started");
}

/* It is not read: each kick is told once, by its edge. So neither is a kick more costly than it has to be, nor keeps a descriptor that
 * is always readable, which an eventfd with a large count in semaphore mode is, too, us busy for ever. */
static void on_kick(void *userdata, uint32_t events) {
        VhostUser *v = userdata;

        if (events & (EPOLLERR | EPOLLHUP)) {
                int fd = v->kick.fd;

                report(LOG_WARNING, "the kick descriptor is none; it is not watched any longer");
                loop_forget(v->loop, &v->kick);
                fd_close(fd);
                return;
        }
        device_kick(v->device);
}

static void close_kick(VhostUser *v) {
        int fd = v->kick.fd;

        if (fd < 0)
                return;
        loop_forget(v->loop, &v->kick);
        fd_close(fd);
        (void) notify_discard("kick");
}

static int watch_kick(VhostUser *v, int fd) {
        int r = loop_watch(v->loop, &v->kick, fd, EPOLLIN | EPOLLET);

        return r == -EPERM ? -EINVAL : r; /* a regular file */
}

static void notify_fd(int fd) {
        static const uint64_t one = 1;

        if (fd >= 0)
                (void) !write(fd, &one, sizeof one); /* fails only if it already counts */
}

static void on_used(void *userdata) {
        VhostUser *v = userdata;

        notify_fd(v->call_fd);
}

static void on_broken(void *userdata) {
        VhostUser *v = userdata;

        notify_fd(v->error_fd);
        notify_fd(v->call_fd);
}

static const DeviceOps vhost_device_ops = { .used = on_used, .broken = on_broken };

/* The number that comes with a ring's descriptor, and the descriptor, or -1. */
static int get_ring_fd(Request *q, int *ret) {
        uint64_t v;
        int r;

        r = get_u64(q, &v);
        if (r < 0)
                return r;
        if ((v & 0xff) != VIRTIO_TPM_QUEUE || (v & ~(uint64_t) (VRING_NO_FD | 0xff)) != 0)
                return -EINVAL;
        if (q->wire->s->rx_fds != q->wire->n_fds)
                return -EIO;
        if (q->wire->n_fds != (v & VRING_NO_FD ? 0 : 1))
                return -EINVAL;

        *ret = wire_take_fd(q->wire, 0);
        return 0;
}

static int do_set_kick(VhostUser *v, Request *q) {
        int fd, r;

        r = get_ring_fd(q, &fd);
        if (r < 0)
                return r;

        close_kick(v);
        v->s->kicked = 0;
        if (fd < 0)
                return -ENOTSUP; /* we do not poll the ring */

        r = watch_kick(v, fd);
        if (r < 0) {
                fd_close(fd);
                return r;
        }
        (void) notify_store("kick", fd);
        v->s->kicked = 1;
        ring_update(v);
        return 0;
}

/* An interrupt to come through @fd must not block us. */
static int do_set_signal(Request *q, int *slot, const char *name) {
        int fd, r;

        r = get_ring_fd(q, &fd);
        if (r < 0)
                return r;

        if (fd >= 0) {
                r = wire_fd_nonblock(fd);
                if (r < 0) {
                        fd_close(fd);
                        return r;
                }
                (void) notify_store(name, fd);
        } else if (*slot >= 0)
                (void) notify_discard(name);
        fd_close(*slot);
        *slot = fd;
        return 0;
}

static int add_region(VhostUser *v, const Region *g, int fd) {
        VhostUserState *s = v->s;
        int r;

        if (s->n_regions >= VHOST_USER_SLOTS) {
                fd_close(fd);
                return -ENOSPC;
        }
        if (fd < 0 || g->size == 0 || g->size - 1 > UINT64_MAX - g->user) {
                fd_close(fd);
                return -EINVAL;
        }
        for (uint32_t i = 0; i < s->n_regions; i++)
                if (g->user <= s->regions[i].user + (s->regions[i].size - 1) &&
                    s->regions[i].user <= g->user + (g->size - 1)) {
                        fd_close(fd);
                        return -EEXIST;
                }

        r = memory_map(v->memory, g->guest, g->size, g->offset, MEMORY_READ | MEMORY_WRITE, fd);
        if (r < 0)
                return r;

        s->regions[s->n_regions++] =
                (VhostUserRegion) { .guest = g->guest, .size = g->size, .user = g->user };
        return 0;
}

static void clear_regions(VhostUser *v) {
        v->s->n_regions = 0;
        memory_clear(v->memory);
}

static int do_set_mem_table(VhostUser *v, Request *q) {
        uint32_t head[2];
        Region g;
        int r;

        if (q->size < sizeof head)
                return -EINVAL;

        memcpy(head, q->data, sizeof head);
        if (head[0] > TABLE_REGIONS_MAX || q->size < sizeof head + head[0] * sizeof g ||
            q->wire->n_fds != head[0])
                return q->wire->s->rx_fds != q->wire->n_fds ? -EIO : -EINVAL;

        clear_regions(v);
        for (uint32_t i = 0; i < head[0]; i++) {
                memcpy(&g, q->data + sizeof head + i * sizeof g, sizeof g);
                r = add_region(v, &g, wire_take_fd(q->wire, i));
                if (r < 0) {
                        clear_regions(v);
                        ring_update(v);
                        return r;
                }
        }
        ring_update(v);
        return 0;
}

static int get_region(const Request *q, Region *ret) {
        if (q->size != sizeof(uint64_t) + sizeof *ret)
                return -EINVAL;

        memcpy(ret, q->data + sizeof(uint64_t), sizeof *ret);
        return 0;
}

/* -ENOENT: there is none. */
static int find_region(const VhostUser *v, const Region *g) {
        for (uint32_t i = 0; i < v->s->n_regions; i++)
                if (v->s->regions[i].guest == g->guest && v->s->regions[i].size == g->size &&
                    v->s->regions[i].user == g->user)
                        return (int) i;
        return -ENOENT;
}

static int remove_region(VhostUser *v, const Region *g) {
        int i = find_region(v, g);

        if (i < 0)
                return i;
        v->s->regions[i] = v->s->regions[--v->s->n_regions];
        return memory_unmap(v->memory, g->guest, g->size);
}

static int do_add_region(VhostUser *v, Request *q) {
        Region g;
        int r;

        r = get_region(q, &g);
        if (r < 0)
                return r;
        if (q->again && memory_has(v->memory, g.guest, g.size) && find_region(v, &g) >= 0) {
                ring_update(v);
                return 0;
        }
        if (q->wire->s->rx_fds != q->wire->n_fds)
                return -EIO;
        if (q->wire->n_fds != 1)
                return -EINVAL;
        if (q->again && remove_region(v, &g) < 0)
                (void) memory_unmap(v->memory, g.guest, g.size); /* as far as it came */

        r = add_region(v, &g, wire_take_fd(q->wire, 0));
        if (r >= 0)
                ring_update(v);
        return r;
}

static int do_remove_region(VhostUser *v, Request *q) {
        Region g;
        int r;

        r = get_region(q, &g);
        if (r < 0)
                return r;

        r = remove_region(v, &g);
        if (r == -ENOENT && q->again) {
                (void) memory_unmap(v->memory, g.guest, g.size);
                r = 0;
        }
        ring_update(v);
        return r;
}

/* Where the ring goes on when it starts again, unless the front end has another wish: not where it once began, which would have
 * requests executed twice. What the TPM works on is not waited for: it is asked for again, or nobody wants it. */
static void ring_rebase(VhostUser *v) {
        if (!v->s->rebase)
                v->s->base = device_stop(v->device);
        v->s->rebase = 1;
}

static int do_set_address(VhostUser *v, Request *q) {
        struct {
                uint32_t queue, flags;
                uint64_t desc, used, avail, log;
        } address;

        if (q->size != sizeof address)
                return -EINVAL;

        memcpy(&address, q->data, sizeof address);
        if (address.queue != VIRTIO_TPM_QUEUE || address.flags != 0)
                return -EINVAL;
        if (v->device->s->running)
                return q->again ? 0 : -EBUSY; /* it was what started the ring */

        v->s->desc = address.desc;
        v->s->avail = address.avail;
        v->s->used = address.used;
        v->s->have_address = 1;
        ring_rebase(v);
        ring_update(v);
        return 0;
}

static void ring_reset(VhostUser *v) {
        VhostUserState *s = v->s;

        device_reset(v->device);
        s->enabled = s->kicked = s->have_address = s->rebase = s->base = s->size = 0;
        close_kick(v);
}

static int do_get_base(VhostUser *v, Request *q) {
        uint32_t reply[2] = { VIRTIO_TPM_QUEUE }, unused;
        int r;

        r = get_vring(q, &unused);
        if (r < 0)
                return r;

        ring_rebase(v);
        reply[1] = v->s->base;
        v->s->kicked = 0;
        close_kick(v);
        put_reply(q, reply, sizeof reply);
        return 0;
}

/* Requests that concern the ring. */
static int dispatch_ring(VhostUser *v, unsigned request, Request *q) {
        VhostUserState *s = v->s;
        uint32_t n;
        int r;

        switch (request) {
        case SET_VRING_ADDR:
                return do_set_address(v, q);
        case SET_VRING_KICK:
                return do_set_kick(v, q);
        case SET_VRING_CALL:
                return do_set_signal(q, &v->call_fd, "call");
        case SET_VRING_ERR:
                return do_set_signal(q, &v->error_fd, "err");
        case GET_VRING_BASE:
                return do_get_base(v, q);
        }

        r = get_vring(q, &n);
        if (r < 0)
                return r;

        switch (request) {
        case SET_VRING_NUM:
                if (v->device->s->running)
                        return -EBUSY;
                s->size = n;
                return 0;
        case SET_VRING_BASE:
                if (v->device->s->running)
                        return -EBUSY;
                s->base = n & 0xffff;
                s->rebase = 1;
                return 0;
        default: /* SET_VRING_ENABLE */
                s->enabled = n != 0;
                ring_update(v);
                return 0;
        }
}

static int dispatch(VhostUser *v, unsigned request, Request *q) {
        VhostUserState *s = v->s;
        uint64_t n;
        int r;

        switch (request) {
        case GET_FEATURES:
                put_u64(q, v->device->offered | UINT64_C(1) << F_PROTOCOL_FEATURES);
                return 0;
        case SET_FEATURES:
                r = get_u64(q, &n);
                if (r < 0)
                        return r;
                if ((n & ~(v->device->offered | UINT64_C(1) << F_PROTOCOL_FEATURES)) != 0)
                        return -EINVAL;
                if (!(n >> VIRTIO_F_VERSION_1 & 1) && n != 0)
                        report(LOG_WARNING,
                               "the driver is too old: without VIRTIO_F_VERSION_1 the device does not start");
                s->features = n;
                return 0;
        case SET_OWNER:
                return 0;
        case RESET_OWNER:
        case RESET_DEVICE:
                ring_reset(v);
                return 0;
        case SET_MEM_TABLE:
                return do_set_mem_table(v, q);
        case GET_PROTOCOL_FEATURES:
                put_u64(q, PROTOCOL_OFFERED);
                return 0;
        case SET_PROTOCOL_FEATURES:
                r = get_u64(q, &n);
                if (r < 0 || (n & ~(uint64_t) PROTOCOL_OFFERED) != 0)
                        return -EINVAL;
                s->protocol = n;
                return 0;
        case GET_QUEUE_NUM:
                put_u64(q, VIRTIO_TPM_QUEUE_NUM);
                return 0;
        case GET_MAX_MEM_SLOTS:
                put_u64(q, VHOST_USER_SLOTS);
                return 0;
        case ADD_MEM_REG:
                return do_add_region(v, q);
        case REM_MEM_REG:
                return do_remove_region(v, q);
        case SET_STATUS:
                r = get_u64(q, &n);
                if (r < 0 || n > UINT8_MAX)
                        return -EINVAL;
                if (n == 0)
                        ring_reset(v);
                else
                        v->device->s->status =
                                (uint32_t) n | (v->device->s->status & VIRTIO_CONFIG_S_NEEDS_RESET);
                return 0;
        case GET_STATUS:
                put_u64(q, v->device->s->status);
                return 0;
        case SET_VRING_NUM ... SET_VRING_ERR:
        case SET_VRING_ENABLE:
                return dispatch_ring(v, request, q);
        default:
                return -ENOTSUP;
        }
}

/* Requests whose sender waits for an answer in any case; there is none that says "no". */
static bool is_query(unsigned request) {
        switch (request) {
        case GET_FEATURES:
        case GET_VRING_BASE:
        case GET_PROTOCOL_FEATURES:
        case GET_QUEUE_NUM:
        case GET_MAX_MEM_SLOTS:
        case GET_STATUS:
                return true;
        default:
                return false;
        }
}

static int handle(void *userdata, Wire *w, bool again) {
        VhostUser *v = userdata;
        Request q = { .data = w->s->rx + sizeof(Header), .wire = w, .again = again };
        Header h;
        int r;

        memcpy(&h, w->s->rx, sizeof h);
        if ((h.flags & FLAGS_VERSION_MASK) != FLAGS_VERSION || (h.flags & FLAGS_REPLY))
                return -EPROTO;

        q.size = h.size;
        r = dispatch(v, h.request, &q);
        if (r < 0) {
                report(LOG_NOTICE, "vhost-user request %u refused: %s", (unsigned) h.request, strerror(-r));
                if (is_query(h.request))
                        return r;
        }
        if (!is_query(h.request)) {
                if (!(h.flags & FLAGS_NEED_REPLY) || !has_protocol(v, PROTOCOL_REPLY_ACK))
                        /* nobody would hear of it; but what it was to set up is not there */
                        return r == -ENOTSUP ? 0 : r;
                put_u64(&q, r < 0);
        }

        h.flags = FLAGS_VERSION | FLAGS_REPLY;
        h.size = (uint32_t) q.reply_size;
        memcpy(w->s->tx, &h, sizeof h);
        memcpy(w->s->tx + sizeof h, q.reply, q.reply_size);
        wire_answer(w, sizeof h + q.reply_size);
        return 0;
}

static void closed(void *userdata) {
        VhostUser *v = userdata;

        ring_reset(v);
        clear_regions(v);
        if (v->call_fd >= 0)
                (void) notify_discard("call");
        if (v->error_fd >= 0)
                (void) notify_discard("err");
        v->call_fd = fd_close(v->call_fd);
        v->error_fd = fd_close(v->error_fd);
        *v->s = (VhostUserState) {};
}

void vhost_user_init(VhostUser *v, VhostUserState *s, Memory *memory, Device *device, Loop *loop,
                     bool resume) {
        v->s = s;
        v->memory = memory;
        v->device = device;
        v->loop = loop;
        v->call_fd = v->error_fd = -1;
        v->kick = (LoopSource) { .fd = -1, .ready = on_kick, .userdata = v };
        v->front = (Front) { .name = "vhost-user",
                             .header_size = sizeof(Header),
                             .whole_size = whole_size,
                             .handle = handle,
                             .closed = closed,
                             .userdata = v };
        if (!resume)
                *s = (VhostUserState) {};
        device_set_front(device, &vhost_device_ops, v);
}

void vhost_user_done(VhostUser *v) {
        int fd = v->kick.fd;

        loop_forget(v->loop, &v->kick);
        fd_close(fd);
        v->call_fd = fd_close(v->call_fd);
        v->error_fd = fd_close(v->error_fd);
}

bool vhost_user_restore_fd(VhostUser *v, const char *name, int fd) {
        if (strcmp(name, "kick") == 0) {
                if (watch_kick(v, fd) < 0)
                        fd_close(fd);
        } else if (strcmp(name, "call") == 0)
                v->call_fd = fd;
        else if (strcmp(name, "err") == 0)
                v->error_fd = fd;
        else
                return false;
        return true;
}
