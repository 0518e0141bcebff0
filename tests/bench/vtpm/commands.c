/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/vtpm/commands.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NO_SESSIONS 0x8001
#define SESSIONS    0x8002
#define RC_SIZE     0x95
#define HEADER      10

/* All numbers are big-endian. */
static void put(Command *c, unsigned bytes, uint32_t value) {
        while (bytes-- > 0)
                c->bytes[c->size++] = (uint8_t) (value >> 8 * bytes);
}

static void begin(Command *c, const char *name, unsigned tag, uint32_t code) {
        *c = (Command) { .name = name };
        put(c, 2, tag);
        put(c, 4, 0);
        put(c, 4, code);
}

static void end(Command *c) {
        size_t size = c->size;

        c->size = 2;
        put(c, 4, (uint32_t) size);
        c->size = size;
}

/* A password session with an empty password. */
static void put_password(Command *c) {
        put(c, 4, 9);
        put(c, 4, 0x40000009);
        put(c, 4, 0);
        put(c, 1, 0);
}

static void make_get_random(Command *c) {
        begin(c, "GetRandom(16)", NO_SESSIONS, 0x17b);
        put(c, 2, 16);
        end(c);
}

static void make_pcr_read(Command *c) {
        begin(c, "PCR_Read(8)", NO_SESSIONS, 0x17e);
        put(c, 4, 1);
        put(c, 2, 0x000b); /* of the SHA-256 bank */
        put(c, 1, 3);
        put(c, 3, 0xff0000); /* PCR 0 to 7 */
        end(c);
}

/* TPM2_Hash of @data bytes, SHA-256, in a command of @size bytes. */
static void make_hash(Command *c, const char *name, uint32_t data, size_t size) {
        begin(c, name, NO_SESSIONS, 0x17d);
        put(c, 2, data);
        c->size += data;
        put(c, 2, 0x000b);
        put(c, 4, 0x40000007);
        c->size = size;
        end(c);
}

static void make_context_save(Command *c, uint32_t handle) {
        begin(c, "ContextSave", NO_SESSIONS, 0x162);
        put(c, 4, handle);
        end(c);
}

static void make_sign(Command *c, const char *name, uint32_t handle) {
        begin(c, name, SESSIONS, 0x15d);
        put(c, 4, handle);
        put_password(c);
        put(c, 2, 32); /* a digest */
        c->size += 32;
        put(c, 2, 0x0010); /* the key's scheme */
        put(c, 2, 0x8024); /* the digest is not of a hash sequence */
        put(c, 4, 0x40000007);
        put(c, 2, 0);
        end(c);
}

/* TPM2_CreatePrimary of a key that signs; @type is an algorithm. */
static void make_create_primary(Command *c, unsigned type) {
        bool rsa = type == 0x0001;

        begin(c, "CreatePrimary", SESSIONS, 0x131);
        put(c, 4, 0x40000001); /* the owner's hierarchy */
        put_password(c);
        put(c, 2, 4); /* no password, no data */
        put(c, 4, 0);
        put(c, 2, 24); /* either way */
        put(c, 2, type);
        put(c, 2, 0x000b);
        put(c, 4, 0x00040472); /* fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign */
        put(c, 2, 0);          /* no policy */
        put(c, 2, 0x0010);     /* no symmetric algorithm: it is no parent */
        put(c, 2, rsa ? 0x0014 : 0x0018);
        put(c, 2, 0x000b); /* RSASSA or ECDSA, with SHA-256 */
        if (rsa) {
                put(c, 2, 2048);
                put(c, 4, 0); /* exponent 65537 */
                put(c, 2, 0);
        } else {
                put(c, 2, 0x0003); /* P-256 */
                put(c, 2, 0x0010);
                put(c, 4, 0);
        }
        put(c, 2, 0); /* nothing for the creation data */
        put(c, 4, 0);
        end(c);
}

static uint32_t number(const uint8_t *bytes) {
        return (uint32_t) bytes[0] << 24 | (uint32_t) bytes[1] << 16 | (uint32_t) bytes[2] << 8 | bytes[3];
}

static int run(const Command *c, command_exchange_t exchange, void *userdata, uint8_t *response) {
        int n;

        n = exchange(userdata, c->bytes, c->size, response);
        if (n < 0)
                return n;
        return n >= HEADER && number(response + 2) == (uint32_t) n && number(response + 6) == c->code
                       ? n
                       : -EPROTO;
}

int command_run(const Command *c, command_exchange_t exchange, void *userdata) {
        uint8_t response[COMMAND_MAX];

        return run(c, exchange, userdata, response);
}

static int make_key(unsigned type, command_exchange_t exchange, void *userdata, uint32_t *ret_handle) {
        uint8_t response[COMMAND_MAX];
        Command c;
        int r;

        make_create_primary(&c, type);
        r = run(&c, exchange, userdata, response);
        if (r < 0)
                return r;
        *ret_handle = number(response + HEADER);
        return 0;
}

int commands_make(Command commands[COMMANDS], command_exchange_t exchange, void *userdata) {
        uint32_t rsa, ecc;
        int r;

        r = make_key(0x0001, exchange, userdata, &rsa);
        if (r == 0)
                r = make_key(0x0023, exchange, userdata, &ecc);
        if (r < 0)
                return r;

        make_get_random(&commands[COMMAND_GET_RANDOM]);
        make_pcr_read(&commands[COMMAND_PCR_READ]);
        make_hash(&commands[COMMAND_HASH_1K], "Hash(1KiB)", 1024 - 18, 1024);
        make_context_save(&commands[COMMAND_CONTEXT_SAVE], rsa);
        /* No command of this TPM has so many parameters: after those of TPM2_Hash there are some that do not belong there. The TPM
         * takes all of it in and refuses it, so this is what bytes cost on their way. */
        make_hash(&commands[COMMAND_LONG], "3968-bytes", 1024, COMMAND_MAX - 128);
        make_hash(&commands[COMMAND_LONGEST], "4096-bytes", 1024, COMMAND_MAX);
        commands[COMMAND_LONG].code = commands[COMMAND_LONGEST].code = RC_SIZE;
        make_sign(&commands[COMMAND_SIGN_ECC], "Sign(P-256)", ecc);
        make_sign(&commands[COMMAND_SIGN_RSA], "Sign(RSA-2048)", rsa);
        return 0;
}

double now_us(void) {
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b) {
        double x = *(const double *) a, y = *(const double *) b;

        return x < y ? -1 : x > y;
}

double samples_percentile(double *samples, unsigned n, unsigned percent) {
        qsort(samples, n, sizeof *samples, compare);
        return samples[n * percent / 100];
}
