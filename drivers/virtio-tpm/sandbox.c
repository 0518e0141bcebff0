/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/virtio-tpm/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

#define DATA_MAX  (16 * 1024 * 1024) /* our own memory; the guest's is shared and does not count */
#define FILES_MAX 256
#define RSEQ_SIZE 32 /* as registered by any C library so far */

int sandbox_user(const char *name) {
        const struct passwd *p;
        uid_t uid;
        gid_t gid;

        if (!name)
                return 0;

        /* A number is nobody's name; to ask for it could take any time, as what is asked may be far away. */
        if (*name && strspn(name, "0123456789") == strlen(name)) {
                unsigned long number = strtoul(name, NULL, 10);

                if (number >= (uid_t) -1) /* which would mean: stay who you are */
                        return -ERANGE;
                uid = (uid_t) number;
                gid = uid;
        } else {
                p = getpwnam(name);
                if (!p)
                        return -ENOENT;
                uid = p->pw_uid;
                gid = p->pw_gid;
        }
        if (uid == getuid() && uid == geteuid())
                return 0;

        if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
                return -errno;
        return 0;
}

static int drop_capabilities(void) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct none[2] = {};

        for (unsigned long c = 0; prctl(PR_CAPBSET_READ, c, 0, 0, 0) >= 0; c++)
                if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 && errno != EPERM)
                        return -errno;

        (void) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        return ret_errno((int) syscall(SYS_capset, &header, none));
}

static int limit(int resource, rlim_t max) {
        struct rlimit l = { .rlim_cur = max, .rlim_max = max }, old;

        if (getrlimit((__rlimit_resource_t) resource, &old) < 0)
                return -errno;
        if (old.rlim_max < max)
                return 0;
        return ret_errno(setrlimit((__rlimit_resource_t) resource, &l));
}

/* For restartable sequences, which the C library asks for and nothing here uses, the kernel writes to our memory each time that we have been
 * asleep. Where they are not registered, or are in a way that is unknown here, nothing changes. */
static void drop_rseq(void) {
        if (__rseq_size > 0)
                (void) syscall(SYS_rseq, (char *) __builtin_thread_pointer() + __rseq_offset, RSEQ_SIZE,
                               RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
}

static int filter(void) {
        static const int calls[] = {
                /* the loop */
                SCMP_SYS(epoll_wait),
                SCMP_SYS(epoll_pwait),
                SCMP_SYS(epoll_ctl),
                SCMP_SYS(poll),
                SCMP_SYS(ppoll),
                SCMP_SYS(clock_gettime),
                SCMP_SYS(timerfd_settime),
                SCMP_SYS(restart_syscall),
                /* sockets that are open */
                SCMP_SYS(recvmsg),
                SCMP_SYS(recvfrom),
                SCMP_SYS(recv),
                SCMP_SYS(sendmsg),
                SCMP_SYS(sendto),
                SCMP_SYS(send),
                SCMP_SYS(accept4),
                SCMP_SYS(getsockopt),
                SCMP_SYS(read),
                SCMP_SYS(pread64),
                SCMP_SYS(write),
                SCMP_SYS(close),
                /* whose machine it is */
                SCMP_SYS(pidfd_open),
                /* the guest's memory, and a little of our own */
                SCMP_SYS(fstat),
                SCMP_SYS(munmap),
                SCMP_SYS(mremap),
                SCMP_SYS(madvise),
                SCMP_SYS(brk),
                SCMP_SYS(getrandom),
                SCMP_SYS(rt_sigreturn),
                SCMP_SYS(sigreturn),
                SCMP_SYS(rt_sigprocmask),
                /* the end */
                SCMP_SYS(exit_group),
                SCMP_SYS(exit),
                SCMP_SYS(rt_sigaction),
                SCMP_SYS(getpid),
                SCMP_SYS(gettid),
                SCMP_SYS(tgkill),
        };
        scmp_filter_ctx f;
        int r = 0;

        f = seccomp_init(SCMP_ACT_KILL_PROCESS);
        if (!f)
                return -ENOMEM;

        for (size_t i = 0; r >= 0 && i < ELEMENTS(calls); i++)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 0);

        /* how the C library says fstat(); no path gets to a file */
        if (r >= 0)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1,
                                     SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH));
        /* of ourselves alone */
        if (r >= 0)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(sched_getattr), 1, SCMP_A0(SCMP_CMP_EQ, 0));
        if (r >= 0)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(sched_setattr), 1, SCMP_A0(SCMP_CMP_EQ, 0));
        if (r >= 0)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 1,
                                     SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
        for (size_t i = 0; r >= 0 && i < 4; i++)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
                                     SCMP_A1(SCMP_CMP_EQ,
                                             (const scmp_datum_t[]) { F_GETFL, F_SETFL, F_GET_SEALS,
                                                                      F_DUPFD_CLOEXEC }[i]));
#ifdef __s390x__
        /* its arguments are in memory, where a filter cannot look */
        if (r >= 0)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 0);
#else
        if (r >= 0)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                                     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
#endif
        if (r >= 0)
                r = seccomp_load(f);

        seccomp_release(f);
        return r;
}

int sandbox_enter(void) {
        int r;

        r = drop_capabilities();
        if (r < 0)
                return r;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return -errno;

        drop_rseq();
        r = limit(RLIMIT_DATA, DATA_MAX);
        if (r >= 0)
                r = limit(RLIMIT_NOFILE, FILES_MAX);
        if (r >= 0)
                r = limit(RLIMIT_NPROC, 0);
        if (r >= 0)
                r = limit(RLIMIT_CORE, 0); /* the guest's secrets pass through here */
        return r < 0 ? r : filter();
}
