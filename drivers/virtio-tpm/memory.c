/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/memory.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"

#define NO_FILE UINT32_MAX

/* A descriptor whose bytes lie in more ranges than this is taken for malformed: looking at it must not take long. */
#define RANGES_PER_CHECK 64

#define BARRIER() __asm__ volatile("" ::: "memory")

/* A shrunk file, or a huge page that is not to be had, shows as SIGBUS at the access. */
static sigjmp_buf guard_env;
static volatile sig_atomic_t guarded;

static void on_bus_error(int sig) {
        if (guarded)
                siglongjmp(guard_env, 1);

        /* our own fault: die of it */
        (void) signal(sig, SIG_DFL);
        (void) raise(sig);
}

static int guarded_copy(void *to, const void *from, size_t size) {
        if (sigsetjmp(guard_env, 0)) {
                guarded = 0;
                return -EFAULT;
        }

        guarded = 1;
        BARRIER();
        if (size == sizeof(uint16_t))
                __builtin_memcpy(to, from, sizeof(uint16_t)); /* ring indexes: one access */
        else
                memcpy(to, from, size);
        BARRIER();
        guarded = 0;
        return 0;
}

/* Ranges that overlap are equal: those in the tree never do, so that a range finds whatever it touches. */
static int range_compare(const void *l, const void *r) {
        const MemoryRange *a = l, *b = r;

        if (a->start + (a->size - 1) < b->start)
                return -1;
        return b->start + (b->size - 1) < a->start ? 1 : 0;
}

static MemoryRange *range_find(const Memory *m, uint64_t start, uint64_t size) {
        const MemoryRange key = { .start = start, .size = size };
        MemoryRange **node = tfind(&key, &m->tree, range_compare);

        return node ? *node : NULL;
}

int memory_init(Memory *m, MemoryTable *table, memory_file_t on_file, void *userdata) {
        static const struct sigaction action = { .sa_handler = on_bus_error, .sa_flags = SA_NODEFER };

        *m = (Memory) { .table = table, .on_file = on_file, .userdata = userdata };
        for (size_t i = 0; i < MEMORY_FILES_MAX; i++)
                m->files[i].fd = -1;

        m->free_slots = malloc(MEMORY_RANGES_MAX * sizeof *m->free_slots);
        if (!m->free_slots)
                return -ENOMEM;

        return ret_errno(sigaction(SIGBUS, &action, NULL));
}

static void file_close(MemoryFile *f) {
        if (f->base)
                (void) munmap(f->base, f->size);
        *f = (MemoryFile) { .fd = fd_close(f->fd) };
}

static void keep(void *range) {
        /* the tree's nodes point into the table */
}

static void index_clear(Memory *m) {
        tdestroy(m->tree, keep);
        m->tree = NULL;
        m->n_free = m->n_ranges = 0;
}

void memory_done(Memory *m) {
        index_clear(m);
        for (size_t i = 0; i < MEMORY_FILES_MAX; i++)
                file_close(&m->files[i]);
        free(TAKE(m->free_slots));
}

/* Maps @f as large as its file now is. */
static int file_grow(MemoryFile *f, uint64_t size) {
        int prot = PROT_READ | (f->writable ? PROT_WRITE : 0);
        void *base;

        base = f->base ? mremap(f->base, f->size, size, MREMAP_MAYMOVE)
                       : mmap(NULL, size, prot, MAP_SHARED | MAP_NORESERVE, f->fd, 0);
        if (base == MAP_FAILED)
                return -errno;

        f->base = base;
        f->size = size;
        return 0;
}

/* Makes @fd (taken) file number @i, or, with @i of NO_FILE, finds it among the files or a place for it. The number or -errno. */
static int file_add(Memory *m, uint32_t i, int fd, uint64_t end) {
        CLEANUP(fd_closep) int taken = fd;
        uint32_t unused = NO_FILE;
        MemoryFile *f;
        struct stat st;
        int flags, r;

        flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (st.st_size <= 0 || end > (uint64_t) st.st_size)
                return -EINVAL;
        if ((flags & O_ACCMODE) == O_WRONLY)
                return -EACCES;

        if (i == NO_FILE)
                for (uint32_t k = 0; k < MEMORY_FILES_MAX; k++) {
                        f = &m->files[k];
                        if (f->fd < 0)
                                unused = MIN(unused, k);
                        else if (f->device == st.st_dev && f->inode == st.st_ino &&
                                 f->writable == ((flags & O_ACCMODE) == O_RDWR))
                                i = k;
                }
        if (i == NO_FILE && unused == NO_FILE)
                return -ENOSPC;

        f = &m->files[i == NO_FILE ? unused : i];
        if (f->fd >= 0) {
                if (end > f->size) {
                        r = file_grow(f, (uint64_t) st.st_size);
                        if (r < 0)
                                return r;
                }
                return (int) (f - m->files);
        }

        *f = (MemoryFile) {
                .device = st.st_dev, .inode = st.st_ino, .fd = fd, .writable = (flags & O_ACCMODE) == O_RDWR
        };
        r = file_grow(f, (uint64_t) st.st_size);
        if (r < 0) {
                *f = (MemoryFile) { .fd = -1 };
                return r;
        }
        TAKE_FD(taken);
        return (int) (f - m->files);
}

int memory_restore_file(Memory *m, unsigned file, int fd) {
        int r;

        if (file >= MEMORY_FILES_MAX || m->files[file].fd >= 0) {
                fd_close(fd);
                return -EINVAL;
        }

        r = file_add(m, file, fd, 0);
        return MIN(r, 0);
}

/* Whether the range can be used with the files that are there. */
static bool range_usable(const Memory *m, const MemoryRange *range) {
        const MemoryFile *f;

        if (range->file >= MEMORY_FILES_MAX)
                return false;

        f = &m->files[range->file];
        return f->base && range->offset <= f->size && range->size <= f->size - range->offset &&
               (!(range->access & MEMORY_WRITE) || f->writable);
}

static int range_index(Memory *m, MemoryRange *range) {
        if (!tsearch(range, &m->tree, range_compare))
                return -ENOMEM;

        if (range->file != NO_FILE)
                m->files[range->file].refs++;
        m->n_ranges++;
        return 0;
}

static void file_unref(Memory *m, uint32_t i) {
        if (i == NO_FILE || --m->files[i].refs > 0)
                return;

        file_close(&m->files[i]);
        if (m->on_file)
                m->on_file(m->userdata, i, -1);
}

int memory_restore(Memory *m) {
        MemoryTable *t = m->table;
        int r;

        if (t->n_slots > MEMORY_RANGES_MAX)
                return -EBADMSG;

        index_clear(m);
        for (uint32_t i = 0; i < t->n_slots; i++) {
                MemoryRange *range = &t->slots[i];

                if (range->size == 0) {
                        m->free_slots[m->n_free++] = (uint16_t) i;
                        continue;
                }
                if (range->size - 1 > UINT64_MAX - range->start || range_find(m, range->start, range->size))
                        return -EBADMSG;
                if (!range_usable(m, range))
                        range->file = NO_FILE;
                r = range_index(m, range);
                if (r < 0)
                        return r;
        }

        for (uint32_t i = 0; i < MEMORY_FILES_MAX; i++)
                if (m->files[i].fd >= 0 && m->files[i].refs == 0) {
                        m->files[i].refs = 1;
                        file_unref(m, i);
                }
        return 0;
}

int memory_map(Memory *m, uint64_t start, uint64_t size, uint64_t offset, unsigned access, int fd) {
        CLEANUP(fd_closep) int taken = fd;
        uint32_t file = NO_FILE;
        MemoryRange *range;
        bool new_file;
        struct stat st;
        int r;

        if (size == 0 || size - 1 > UINT64_MAX - start || offset > UINT64_MAX - size)
                return -EINVAL;
        if (range_find(m, start, size))
                return -EEXIST;
        if (m->n_free == 0 && m->table->n_slots >= MEMORY_RANGES_MAX)
                return -ENOSPC;

        if (taken >= 0 && fstat(taken, &st) < 0)
                return -errno;
        if (taken >= 0 && S_ISREG(st.st_mode)) {
                r = file_add(m, NO_FILE, TAKE_FD(taken), offset + size);
                if (r < 0)
                        return r;
                file = (uint32_t) r;
        }

        new_file = file != NO_FILE && m->files[file].refs == 0;
        range = &m->table->slots[m->n_free > 0 ? m->free_slots[m->n_free - 1] : m->table->n_slots];
        *range = (MemoryRange) {
                .start = start, .size = size, .offset = offset, .file = file, .access = access
        };
        r = file != NO_FILE && !range_usable(m, range) ? -EACCES : range_index(m, range);
        if (r < 0) {
                *range = (MemoryRange) {};
                if (new_file)
                        file_close(&m->files[file]);
                return r;
        }

        if (m->n_free > 0)
                m->n_free--;
        else
                m->table->n_slots++;
        if (new_file && m->on_file)
                m->on_file(m->userdata, file, m->files[file].fd);
        return 0;
}

bool memory_has(const Memory *m, uint64_t start, uint64_t size) {
        const MemoryRange *range = size > 0 ? range_find(m, start, size) : NULL;

        return range && range->start == start && range->size == size && range->file != NO_FILE;
}

static void range_remove(Memory *m, MemoryRange *range) {
        uint32_t file = range->file;

        (void) tdelete(range, &m->tree, range_compare);
        *range = (MemoryRange) {};
        m->free_slots[m->n_free++] = (uint16_t) (range - m->table->slots);
        m->n_ranges--;
        file_unref(m, file);
}

int memory_unmap(Memory *m, uint64_t start, uint64_t size) {
        MemoryRange *range;

        if (size == 0 || size - 1 > UINT64_MAX - start)
                return -EINVAL;

        range = range_find(m, start, size);
        if (!range || range->start != start || range->size != size)
                return -ENOENT;

        range_remove(m, range);
        return 0;
}

int memory_unmap_within(Memory *m, uint64_t start, uint64_t size) {
        const MemoryRange *first, *last;
        MemoryRange *range;

        if (size == 0 || size - 1 > UINT64_MAX - start)
                return -EINVAL;

        first = range_find(m, start, 1);
        last = range_find(m, start + (size - 1), 1);
        if ((first && first->start != start) ||
            (last && last->start + (last->size - 1) != start + (size - 1)))
                return -EINVAL;

        while ((range = range_find(m, start, size)))
                range_remove(m, range);
        return 0;
}

void memory_clear(Memory *m) {
        for (uint32_t i = 0; i < m->table->n_slots; i++)
                if (m->table->slots[i].size > 0)
                        (void) memory_unmap(m, m->table->slots[i].start, m->table->slots[i].size);
        m->table->n_slots = 0;
        m->n_free = 0;
}

/* The piece of [@address, @address + @size) that begins it and lies in one range; NULL if it may not be accessed. */
static uint8_t *piece(const Memory *m, uint64_t address, uint64_t size, unsigned access,
                      uint64_t *ret_size) {
        const MemoryRange *range = range_find(m, address, 1);
        uint64_t skip;

        if (!range || range->file == NO_FILE || (range->access & access) != access)
                return NULL;

        skip = address - range->start;
        *ret_size = MIN(size, range->size - skip);
        return m->files[range->file].base + range->offset + skip;
}

int memory_check(const Memory *m, uint64_t address, uint64_t size, unsigned access) {
        uint64_t n;

        if (size > 0 && size - 1 > UINT64_MAX - address)
                return -EFAULT;

        for (unsigned i = 0; size > 0; i++, address += n, size -= n)
                if (i >= RANGES_PER_CHECK || !piece(m, address, size, access, &n))
                        return -EFAULT;
        return 0;
}

int memory_read(const Memory *m, uint64_t address, void *to, size_t size) {
        const uint8_t *from;
        uint64_t n;
        int r;

        if (size > 0 && size - 1 > UINT64_MAX - address)
                return -EFAULT;

        for (uint8_t *p = to; size > 0; p += n, address += n, size -= n) {
                from = piece(m, address, size, MEMORY_READ, &n);
                if (!from)
                        return -EFAULT;
                r = guarded_copy(p, from, n);
                if (r < 0)
                        return r;
        }
        return 0;
}

int memory_write(const Memory *m, uint64_t address, const void *from, size_t size) {
        uint64_t n;
        uint8_t *to;
        int r;

        if (size > 0 && size - 1 > UINT64_MAX - address)
                return -EFAULT;

        for (const uint8_t *p = from; size > 0; p += n, address += n, size -= n) {
                to = piece(m, address, size, MEMORY_WRITE, &n);
                if (!to)
                        return -EFAULT;
                r = guarded_copy(to, p, n);
                if (r < 0)
                        return r;
        }
        return 0;
}

int memory_read16(const Memory *m, uint64_t address, uint16_t *ret) {
        const uint8_t *from;
        uint64_t n;
        uint16_t v;
        int r;

        from = piece(m, address, sizeof v, MEMORY_READ, &n);
        if (!from || n < sizeof v)
                return -EFAULT;

        r = guarded_copy(&v, from, sizeof v);
        if (r < 0)
                return r;

        *ret = le16toh(v);
        return 0;
}

int memory_write16(const Memory *m, uint64_t address, uint16_t v) {
        uint64_t n;
        uint8_t *to;

        v = htole16(v);
        to = piece(m, address, sizeof v, MEMORY_WRITE, &n);
        if (!to || n < sizeof v)
                return -EFAULT;

        return guarded_copy(to, &v, sizeof v);
}
