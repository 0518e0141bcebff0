/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* commands - the TPM commands that are measured: the same bytes in a guest, through the device process, and straight to swtpm. */

#include <stddef.h>
#include <stdint.h>

#define COMMAND_MAX 4096 /* swtpm's limit, both ways */

enum {
        COMMAND_GET_RANDOM,
        COMMAND_PCR_READ,
        COMMAND_HASH_1K,      /* a command of 1024 bytes */
        COMMAND_CONTEXT_SAVE, /* the longest response that swtpm has: an RSA key's context */
        COMMAND_LONG, /* a command of 3968 bytes, which is all that QEMU's tpm-crb has room for: see commands.c */
        COMMAND_LONGEST, /* one of 4096 bytes */
        COMMAND_SIGN_ECC,
        COMMAND_SIGN_RSA,
        COMMANDS,
};

typedef struct Command {
        const char *name; /* without blanks */
        uint32_t code;    /* of the response that is right */
        size_t size;
        uint8_t bytes[COMMAND_MAX];
} Command;

/* Sends a command and takes its response, of at most COMMAND_MAX bytes. Returns the size, or negative errno. */
typedef int (*command_exchange_t)(void *userdata, const uint8_t *command, size_t size, uint8_t *response);

/* Makes two keys in the TPM behind @exchange, and the commands for that TPM. 0, negative errno, or -EPROTO for another response than
 * the right one. */
int commands_make(Command commands[COMMANDS], command_exchange_t exchange, void *userdata);

/* Runs one. Returns the response's size, negative errno, or -EPROTO. */
int command_run(const Command *c, command_exchange_t exchange, void *userdata);

/* Sorts the @n samples; the value that @percent of them stay below. */
double samples_percentile(double *samples, unsigned n, unsigned percent);

/* CLOCK_MONOTONIC */
double now_us(void);
