/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/state.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"

#define STATE_MAGIC 0x7674706d /* "vtpm" */

static State *map(int fd) {
        void *p;

        p = mmap(NULL, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        return p == MAP_FAILED ? NULL : p;
}

int state_new(FrontKind front, State **ret, int *ret_fd) {
        CLEANUP(fd_closep) int fd = -1;
        State *s;

        fd = memfd_create("guestcrypt-tpm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;
        if (ftruncate(fd, sizeof(State)) < 0)
                return -errno;
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
                return -errno;

        s = map(fd);
        if (!s)
                return -errno;

        s->magic = STATE_MAGIC;
        s->version = STATE_VERSION;
        s->size = sizeof *s;
        s->front = front;
        *ret = s;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

int state_adopt(FrontKind front, int fd, State **ret) {
        struct stat st;
        State *s;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_size != sizeof *s)
                return -ESTALE;

        s = map(fd);
        if (!s)
                return -errno;

        if (s->magic != STATE_MAGIC || s->version != STATE_VERSION || s->size != sizeof *s ||
            s->front != front || s->unsaid || s->tpm.step >= _TPM_STEP_MAX ||
            s->server.wire.rx_size > WIRE_MESSAGE_MAX || s->server.wire.tx_size > WIRE_MESSAGE_MAX) {
                state_unmap(s);
                return -ESTALE;
        }

        *ret = s;
        return 0;
}

State *state_unmap(State *s) {
        if (s)
                (void) munmap(s, sizeof *s);
        return NULL;
}
