/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* memory - the parts of a guest's memory that the front end shares with us: ranges of bus addresses in files that are mapped here.
 *
 * Nobody outside holds a pointer into guest memory: each access names an address, is looked up again and is guarded, so that a range
 * may go away, and a file may shrink, at any time; the access then fails with -EFAULT. One Memory per process (the guard is a signal
 * handler). The table lives in the caller's memory and outlives the process; the rest is built from it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEMORY_RANGES_MAX \
        65535 /* what is announced to a vfio-user client; a table of 512 overflowed on s390x */
#define MEMORY_FILES_MAX 64

enum { MEMORY_READ = 1, MEMORY_WRITE = 2 };

typedef struct MemoryRange {
        uint64_t start, size, offset; /* size 0: a free slot */
        uint32_t file, access;
} MemoryRange;

typedef struct MemoryTable {
        uint32_t n_slots, reserved; /* slots from here on were never used */
        MemoryRange slots[MEMORY_RANGES_MAX];
} MemoryTable;

typedef struct MemoryFile {
        uint64_t device, inode, size;
        uint8_t *base; /* the whole file, however many ranges lie in it */
        unsigned refs;
        int fd;
        bool writable;
} MemoryFile;

/* Told when a file is needed for the first time (@fd stays the Memory's) and when it is not needed any longer (@fd is -1). */
typedef void (*memory_file_t)(void *userdata, unsigned file, int fd);

typedef struct Memory {
        MemoryTable *table;
        void *tree;           /* the used slots, by address */
        uint16_t *free_slots; /* a stack */
        size_t n_free, n_ranges;
        MemoryFile files[MEMORY_FILES_MAX];
        memory_file_t on_file;
        void *userdata;
} Memory;

/* Installs the guard; *@table is empty or what an earlier process left. 0 or -errno. */
int memory_init(Memory *m, MemoryTable *table, memory_file_t on_file, void *userdata);

/* Gives back a file that an earlier process was told of; takes @fd. 0 or -errno. */
int memory_restore_file(Memory *m, unsigned file, int fd);

/* After all files are back: indexes the table's ranges; those whose file is missing stay, unusable. 0 or -errno. */
int memory_restore(Memory *m);

/* Unmaps and closes everything; the table keeps its content. */
void memory_done(Memory *m);

/* Adds a range; takes @fd in any case. Without a file that can be mapped (@fd -1 or no regular file) the range is known but unusable.
 * -EEXIST: overlaps; -EINVAL: wraps, or is not within the file; -EACCES: the descriptor does not allow @access; -ENOSPC: too many. */
int memory_map(Memory *m, uint64_t start, uint64_t size, uint64_t offset, unsigned access, int fd);

/* Whether exactly this range is there, with its file. */
bool memory_has(const Memory *m, uint64_t start, uint64_t size);

/* Removes exactly this range. -ENOENT. */
int memory_unmap(Memory *m, uint64_t start, uint64_t size);

/* Removes every range within this one, which may be none, as Linux' VFIO does; -EINVAL: a range lies across its border. */
int memory_unmap_within(Memory *m, uint64_t start, uint64_t size);

/* Removes all ranges. */
void memory_clear(Memory *m);

/* 0 if all of it may be accessed; -EFAULT. Reads nothing. */
int memory_check(const Memory *m, uint64_t address, uint64_t size, unsigned access);

/* Copies, also across ranges that lie side by side. -EFAULT; then @to may hold a part. */
int memory_read(const Memory *m, uint64_t address, void *to, size_t size);
int memory_write(const Memory *m, uint64_t address, const void *from, size_t size);

/* A little-endian number in one access. -EFAULT also if it crosses two ranges. */
int memory_read16(const Memory *m, uint64_t address, uint16_t *ret);
int memory_write16(const Memory *m, uint64_t address, uint16_t v);
