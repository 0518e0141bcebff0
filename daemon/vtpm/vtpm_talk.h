/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vtpm_talk - one question to the device's control socket, or to swtpm's, without waiting for it. */

#include <systemd/sd-event.h>

typedef struct VtpmTalk VtpmTalk;

/* @r: 0 with the answer; > 0: refused, in the words of the answer; < 0: -errno, -ETIME. Once, never before the call has returned. */
typedef void (*vtpm_talk_done_t)(void *userdata, int r, const char *answer);

/* Sends a line to the device's control socket @name in @run_fd; @fd goes with it, and is taken in any case; -1: none. */
int vtpm_talk_device(sd_event *event, int run_fd, const char *request, int fd, vtpm_talk_done_t done,
                     void *userdata, VtpmTalk **ret);

/* To swtpm, which serves one after the other: whoever comes later waits. */
typedef enum VtpmTalkCommand {
        VTPM_TALK_INIT = 2,     /* switch the TPM on: refused if the state is not one, or for another key */
        VTPM_TALK_SHUTDOWN = 3, /* end itself */
        VTPM_TALK_STOP = 14,    /* switch it off */
} VtpmTalkCommand;

/* Tells it to the swtpm behind socket @name; @answer says nothing. */
int vtpm_talk_swtpm(sd_event *event, int run_fd, const char *name, VtpmTalkCommand command,
                    vtpm_talk_done_t done, void *userdata, VtpmTalk **ret);

/* Before it is done: it will not be. After done() it is gone by itself. Accepts NULL, returns NULL. */
VtpmTalk *vtpm_talk_cancel(VtpmTalk *t);

/* A connection to socket @name in @run_fd. A descriptor or -errno. */
int vtpm_talk_connect(int run_fd, const char *name);
