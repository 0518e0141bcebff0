/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* sim_profile - what a simulated host is made of. The text form, one statement a line, # comments:
 *
 *      dialect 6.1|6.12|7.2
 *      card ID[-ID] MODE [TYPE] [serial=TEXT]     MODE accel, cca, ep11; TYPE 10..15, default 14 (CEX8)
 *      domains LIST        control LIST           ids as 1,3,0x10-0x13
 *      max ADAPTER DOMAIN                         highest ids of the machine
 *      apmask TEXT         aqmask TEXT            boot parameters, as the kernel parses them
 *      default-domain ID                          boot parameter ap.domain
 *      hole A.D                                   this queue does not exist (hex, as in its name)
 *      parent mtty NAME [PORTS]                   a second mdev parent, like the kernel's sample driver
 *      instances N                                available_instances of vfio_ap
 *      no ap|qci|vfio_ap                          the machine or the boot lacks it
 *      debug                                      a kernel with CONFIG_AP_DEBUG */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/sim_mask.h"

#define SIM_PARENTS_MAX 4  /* non-AP parents */
#define SIM_HOLES_MAX   64 /* in the profile; at run time there is no limit */
#define SIM_SERIAL_SIZE 17

typedef enum SimDialect { SIM_LINUX_6_1, SIM_LINUX_6_12, SIM_LINUX_7_2 } SimDialect;

typedef enum SimMode { SIM_ACCEL, SIM_CCA, SIM_EP11, _SIM_MODE_MAX } SimMode;

typedef struct SimProfileCard {
        uint8_t mode, type;
        char serial[SIM_SERIAL_SIZE];
} SimProfileCard;

typedef struct SimProfile {
        SimDialect dialect;
        SimMask adapters, domains, control;
        SimProfileCard cards[SIM_IDS];
        unsigned max_adapter, max_domain;
        char apmask[256], aqmask[256]; /* boot parameters; empty: not given */
        int default_domain;            /* -1: not given */
        uint16_t holes[SIM_HOLES_MAX]; /* adapter << 8 | domain */
        size_t n_holes;
        struct {
                char name[32];
                unsigned ports;
        } parents[SIM_PARENTS_MAX];
        size_t n_parents;
        unsigned instances;
        bool no_ap, no_qci, no_vfio_ap, debug;
} SimProfile;

/* -EINVAL with *reterr_line set to the first line that is wrong; *ret is then untouched. */
int sim_profile_parse(const char *text, SimProfile *ret, unsigned *reterr_line);

int sim_dialect_parse(const char *s, SimDialect *ret);
const char *sim_dialect_name(SimDialect d);
int sim_mode_parse(const char *s, SimMode *ret);
const char *sim_mode_name(SimMode m);

/* Reads a file: a path if @name has a '/' or '.', else profiles/NAME.profile of the source tree or of the
 * installation. -ENOENT, -EINVAL as above. The only function here that does I/O. */
int sim_profile_load(const char *name, SimProfile *ret, unsigned *reterr_line);
