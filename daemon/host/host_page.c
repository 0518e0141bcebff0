/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host/host_page.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/clock.h"

#ifndef MFD_NOEXEC_SEAL /* glibc 2.36 has it not yet; vm.memfd_noexec may ask for it */
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define TURN_STOPPED UINT64_MAX
#define LOOKS_MAX    16 /* while the child goes on */

typedef struct PageOutcome {
        _Atomic(uint32_t) verdict; /* written last */
        HostOutcome rest;
} PageOutcome;

typedef struct PageLane {
        _Atomic(uint64_t) turn;
        HostNote notes[2]; /* the one that counts is at `turn` modulo 2 */
} PageLane;

struct HostPage {
        PageLane lanes[HOST_PAGE_LANES];
        PageOutcome outcomes[HOST_PAGE_PLANS_MAX];
};

int host_page_map(int fd, HostPage **ret) {
        HostPage *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        if (p == MAP_FAILED)
                return -errno;

        *ret = p;
        return 0;
}

int host_page_new(HostPage **ret, int *ret_fd) {
        CLEANUP(fd_closep) int fd = -1;
        int r;

        fd = memfd_create("guestcrypt-host", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
        if (fd < 0 && errno == EINVAL) /* before 6.3 */
                fd = memfd_create("guestcrypt-host", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;
        if (ftruncate(fd, sizeof(HostPage)) < 0)
                return -errno;
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
                return -errno;
        r = host_page_map(fd, ret);
        if (r < 0)
                return r;

        *ret_fd = TAKE_FD(fd);
        return 0;
}

HostPage *host_page_free(HostPage *p) {
        if (p)
                (void) munmap(p, sizeof *p);
        return NULL;
}

void host_page_reset(HostPage *p, size_t n_plans) {
        for (size_t i = 0; i < n_plans && i < HOST_PAGE_PLANS_MAX; i++) {
                p->outcomes[i].rest = (HostOutcome) {};
                atomic_store(&p->outcomes[i].verdict, HOST_SKIPPED);
        }
}

int host_page_begin(HostPage *p, unsigned lane, const HostNote *note) {
        PageLane *l = &p->lanes[lane];
        uint64_t turn = atomic_load(&l->turn);
        HostNote *next;

        if (turn == TURN_STOPPED)
                return -ECANCELED;

        next = &l->notes[(turn + 1) % 2];
        next->phase = note->phase;
        next->plan = note->plan;
        next->step = note->step;
        next->since_us = clock_now_us();
        next->allowance_us = note->allowance_us;
        memcpy(next->what, note->what, strnlen(note->what, sizeof note->what - 1) + 1);

        /* before it may have begun */
        if (note->phase == HOST_PHASE_STEP && note->plan < HOST_PAGE_PLANS_MAX) {
                p->outcomes[note->plan].rest.step = note->step;
                atomic_store(&p->outcomes[note->plan].verdict, HOST_STUCK);
        }
        return atomic_compare_exchange_strong(&l->turn, &turn, turn + 1) ? 0 : -ECANCELED;
}

void host_page_ended(HostPage *p, size_t plan, const HostOutcome *o) {
        if (plan >= HOST_PAGE_PLANS_MAX)
                return;

        p->outcomes[plan].rest = *o;
        atomic_store(&p->outcomes[plan].verdict, o->verdict);
}

int host_page_look(const HostPage *p, unsigned lane, HostNote *ret, uint64_t *ret_turn) {
        const PageLane *l = &p->lanes[lane];
        uint64_t turn = atomic_load(&l->turn);
        HostNote note;

        for (unsigned i = 0;; i++) {
                uint64_t before = turn;

                note = l->notes[turn % 2];
                atomic_thread_fence(memory_order_seq_cst);
                turn = atomic_load(&l->turn);
                if (turn == before)
                        break;
                if (i == LOOKS_MAX)
                        return -EAGAIN;
        }
        note.what[sizeof note.what - 1] = '\0';
        if ((unsigned) note.phase >= _HOST_PHASE_MAX)
                return -EBADMSG;

        *ret = note;
        *ret_turn = turn;
        return 0;
}

bool host_page_stop(HostPage *p, unsigned lane, uint64_t turn) {
        if (!atomic_compare_exchange_strong(&p->lanes[lane].turn, &turn, TURN_STOPPED))
                return false;

        host_page_close(p);
        return true;
}

void host_page_close(HostPage *p) {
        for (unsigned i = 0; i < HOST_PAGE_LANES; i++)
                atomic_store(&p->lanes[i].turn, TURN_STOPPED);
}

int host_page_outcome(const HostPage *p, size_t plan, HostOutcome *ret) {
        HostOutcome o;

        if (plan >= HOST_PAGE_PLANS_MAX)
                return -EBADMSG;

        o = p->outcomes[plan].rest;
        o.verdict = (HostVerdict) atomic_load(&p->outcomes[plan].verdict);
        if ((unsigned) o.verdict >= _HOST_VERDICT_MAX || (unsigned) o.plan >= _PLAN_VERDICT_MAX ||
            o.error > 0 || o.error < -4095 || o.holder < 0)
                return -EBADMSG;

        *ret = o;
        return 0;
}
