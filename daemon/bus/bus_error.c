/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "bus/bus_internal.h"

#define ERROR_NAME(name) BUS_NAME ".Error." name

/* The names are interface: none changes its meaning, none is used again. The first two errnos are the
 * kernel's own for the same refusal. */
static const struct {
        const char *name;
        int errnum;
        const char *text; /* where the engine gives none */
} errors[] = {
        [VERDICT_OK] = { SD_BUS_ERROR_FAILED, EIO, "No reason was given" },
        [VERDICT_OVERLAP] = { ERROR_NAME("Overlap"), EADDRINUSE, "A queue belongs to another matrix" },
        [VERDICT_HOST_OWNED] = { ERROR_NAME("HostOwned"), EADDRNOTAVAIL, "A queue belongs to the host" },
        [VERDICT_NOT_INSTALLED] = { ERROR_NAME("NotInstalled"), ENODEV,
                                    "An id is above the machine's maximum" },
        [VERDICT_LIMIT_HIT] = { ERROR_NAME("LimitHit"), E2BIG, "A limit is reached" },
        [VERDICT_NO_SUCH_MATRIX] = { ERROR_NAME("NoSuchMatrix"), ENOENT, "There is no such matrix" },
        [VERDICT_NO_SUCH_MDEV] = { ERROR_NAME("NoSuchMdev"), ENOENT, "There is no such mediated device" },
        [VERDICT_NO_SUCH_PARENT] = { ERROR_NAME("NoSuchParent"), ENXIO, "There is no such parent or type" },
        [VERDICT_NO_INSTANCES] = { ERROR_NAME("NoInstances"), EUSERS, "The type has no instance left" },
        [VERDICT_EXISTS] = { ERROR_NAME("Exists"), EEXIST, "The name or UUID is taken" },
        [VERDICT_IN_USE] = { ERROR_NAME("InUse"), EBUSY, "A guest runs with it" },
        [VERDICT_BAD_STATE] = { ERROR_NAME("BadState"), EALREADY, "It is not in a state for that" },
        [VERDICT_CONFIG_LOCKED] = { ERROR_NAME("ConfigLocked"), ETIMEDOUT,
                                    "Another program holds the AP lock" },
        [VERDICT_STUCK] = { ERROR_NAME("Stuck"), ETIME, "The kernel has not finished an operation" },
        [VERDICT_NOT_OURS] = { ERROR_NAME("NotOurs"), EPERM,
                               "It was made by somebody else and is left alone" },
        [VERDICT_BAD_RECORD] = { ERROR_NAME("BadRecord"), EBADMSG,
                                 "Its record was set aside as unreadable" },
        [VERDICT_BACKEND] = { ERROR_NAME("BackendUnavailable"), EHOSTDOWN,
                              "The host's AP bus or our disk cannot be used" },
        [VERDICT_KERNEL] = { ERROR_NAME("Kernel"), EIO, "The kernel refused" },
        [VERDICT_NO_SUCH_GUEST] = { ERROR_NAME("NoSuchGuest"), ENOENT, "There is no such guest" },
        [VERDICT_NO_SUCH_TPM] = { ERROR_NAME("NoSuchTpm"), ENOENT, "There is no such TPM" },
        [VERDICT_LIBVIRT] = { ERROR_NAME("Libvirt"), EREMOTEIO, "libvirt refused" },
        [VERDICT_TPM] = { ERROR_NAME("Tpm"), EREMOTEIO, "swtpm refused" },
        [VERDICT_UNSUPPORTED] = { ERROR_NAME("Unsupported"), EOPNOTSUPP, "It is not possible here" },
        [VERDICT_INVALID] = { SD_BUS_ERROR_INVALID_ARGS, EINVAL, "The request makes no sense" },
};
static_assert(ELEMENTS(errors) == _VERDICT_MAX, "every verdict has a name on the bus");

const char *bus_error_name(Verdict verdict) {
        assert(verdict < _VERDICT_MAX);

        return errors[verdict].name;
}

int bus_error_register(void) {
        static sd_bus_error_map map[_VERDICT_MAX];
        static bool done;
        size_t n = 0;
        int r;

        if (done)
                return 0;

        for (Verdict v = VERDICT_OK + 1; v < VERDICT_INVALID; v++)
                map[n++] = (sd_bus_error_map) { .code = errors[v].errnum, .name = errors[v].name };
        map[n] = (sd_bus_error_map) SD_BUS_ERROR_MAP_END;

        r = sd_bus_error_add_map(map);
        if (r < 0)
                return r;

        done = true;
        return 0;
}

int bus_error_set_verdict(sd_bus_error *error, Verdict verdict, const Refusal *refusal) {
        const char *text = refusal && refusal->text ? refusal->text : errors[verdict].text;
        const char *errno_name = NULL;
        CLEANUP(freep) char *clean = NULL;

        assert(verdict < _VERDICT_MAX);

        clean = bus_line(text);
        if (!clean)
                return sd_bus_error_set_errno(error, -ENOMEM);

        /* what the kernel said is the only machine-readable part of its answer */
        if (verdict == VERDICT_KERNEL && refusal && refusal->error < 0)
                errno_name = strerrorname_np(-refusal->error);
        if (errno_name && !strstr(clean, errno_name))
                return sd_bus_error_setf(error, errors[verdict].name, "%s (%s)", clean, errno_name);

        return sd_bus_error_set(error, errors[verdict].name, clean);
}

int bus_error_invalid(sd_bus_error *error, const char *format, ...) {
        CLEANUP(freep) char *text = NULL, *clean = NULL;
        va_list ap;
        int r;

        va_start(ap, format);
        r = vasprintf(&text, format, ap);
        va_end(ap);
        if (r < 0)
                return sd_bus_error_set_errno(error, -ENOMEM);

        clean = bus_line(text);
        if (!clean)
                return sd_bus_error_set_errno(error, -ENOMEM);

        return sd_bus_error_set(error, SD_BUS_ERROR_INVALID_ARGS, clean);
}

int bus_error_broken(sd_bus_message *m, int r, sd_bus_error *error) {
        const char *member = sd_bus_message_get_member(m) ?: "?";

        log_warning("Call '%s' of '%s' failed: %s", member, bus_sender(m), strerror(-r));
        return sd_bus_error_set_errnof(error, r,
                                       "%s failed inside guestcryptd (%s: %s); its log may tell more",
                                       member, strerrorname_np(-r) ?: "?", strerror(-r));
}
