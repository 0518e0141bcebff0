/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vmm - a VMM and a guest's driver in one, without either: speaks both protocols and drives a real virtqueue in real shared memory.
 * Does what a test says, also what no sane VMM would. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The guest's memory, by bus address; the VMM has it elsewhere (VMM_USER, the addresses that vhost-user rings are named by). */
#define VMM_BASE     UINT64_C(0x40000000)
#define VMM_SIZE     UINT64_C(0x100000)
#define VMM_END      (VMM_BASE + VMM_SIZE)
#define VMM_USER     UINT64_C(0x7f0000000000)
#define VMM_RING     (VMM_BASE + 0x1000)
#define VMM_AVAIL    (VMM_BASE + 0x6000)
#define VMM_USED     (VMM_BASE + 0x8000)
#define VMM_COMMAND  (VMM_BASE + 0x10000)
#define VMM_RESPONSE (VMM_BASE + 0x20000)
#define VMM_TABLE    (VMM_BASE + 0x30000)
#define VMM_QUEUE    64

#define VMM_MESSAGE_MAX 20000
#define VMM_PATIENCE_MS 60000 /* a machine may be busy; what takes longer has been lost */

typedef struct VmmDesc {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
} VmmDesc;

typedef struct Vmm {
        bool vhost;
        int fd, memory_fd, kick_fd, call_fd, error_fd; /* error: config interrupts of the PCI function */
        uint8_t *memory;
        uint16_t queue_size, next_avail, next_used, id;
        uint64_t features;
        uint64_t not_features;        /* offered ones that are not to be taken */
        bool posted;                  /* doorbells want no reply, as QEMU's */
        bool killed;                  /* the device is, so that it may send an answer twice */
        void (*pump)(void *userdata); /* runs the other side while we wait; NULL: it runs by itself */
        bool patient;                 /* it does both: an answer takes as long as it takes */
        void *userdata;
} Vmm;

/* Makes memory (sealed as QEMU's) and eventfds; @fd is the connection, taken. Aborts on errors: they are the test's. */
void vmm_init(Vmm *v, bool vhost, int fd, void (*pump)(void *userdata), void *userdata);
void vmm_done(Vmm *v);

/* Everything up to a running ring. 0, or the first error that the device answered (negative errno). */
int vmm_start(Vmm *v);

/* The parts of it. */
int vmm_negotiate(Vmm *v);
int vmm_share_memory(Vmm *v);
int vmm_start_ring(Vmm *v);

/* The driver's reset (vhost-user: what QEMU makes of one). */
int vmm_reset(Vmm *v);

/* Guest memory by bus address. */
void *vmm_at(Vmm *v, uint64_t address);

/* Writes a descriptor into a table. */
void vmm_desc(Vmm *v, uint64_t table, unsigned i, VmmDesc d);
void vmm_offer(Vmm *v, uint16_t head);      /* into the available ring */
void vmm_set_avail(Vmm *v, uint16_t index); /* only its index */
int vmm_kick(Vmm *v);

/* 1: the next used element; 0: there is none. */
int vmm_used(Vmm *v, uint32_t *ret_head, uint32_t *ret_length);

/* The same, waiting at most @ms. 1, or 0 after that time. */
int vmm_wait_used(Vmm *v, int ms, uint32_t *ret_head, uint32_t *ret_length);

/* What there is to be known of a wait that was in vain, on stderr. */
void vmm_tell(Vmm *v);

/* How often the device interrupted since the last call. */
uint64_t vmm_interrupts(Vmm *v);
uint64_t vmm_errors(Vmm *v);

/* A command through descriptors 0 and 1; the length of the response, or -ETIMEDOUT after @ms. */
int vmm_command(Vmm *v, const void *command, size_t size, void *response, size_t room, int ms);
void vmm_submit(Vmm *v, const void *command, size_t size, size_t room);

/* Raw messages. The payload of the answer goes to @reply; its size, or -errno as answered, -EPIPE if the connection ended. */
int vmm_vfio(Vmm *v, unsigned command, const void *payload, size_t size, const int *fds, unsigned n_fds,
             void *reply, size_t reply_max);
int vmm_vhost(Vmm *v, unsigned request, const void *payload, size_t size, const int *fds, unsigned n_fds,
              void *reply, size_t reply_max);
int vmm_send(Vmm *v, const void *data, size_t size, const int *fds, unsigned n_fds);
int vmm_receive(Vmm *v, void *data, size_t size);

/* Registers of the PCI function. */
int vmm_read(Vmm *v, uint32_t region, uint64_t offset, void *to, uint32_t size);
int vmm_write(Vmm *v, uint32_t region, uint64_t offset, const void *from, uint32_t size);
uint32_t vmm_get(Vmm *v, uint32_t region, uint64_t offset, unsigned size);
int vmm_put(Vmm *v, uint32_t region, uint64_t offset, uint64_t value, unsigned size);

/* An interrupt or ring descriptor in vhost-user messages 12 to 14. */
int vmm_vhost_ring_fd(Vmm *v, unsigned request, int fd);
int vmm_vhost_ring_number(Vmm *v, unsigned request, uint32_t n);
