/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What was typed, read strictly and made fit for a call. */

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/uuid.h"
#include "cli/cli.h"
#include "core/tpm_model.h"

int cli_append_mask(sd_bus_message *m, const ApMask *mask) {
        uint16_t ids[AP_IDS];
        size_t n;

        n = ap_mask_to_ids(mask, ids);
        return sd_bus_message_append_array(m, 'q', ids, n * sizeof *ids);
}

static int option_mask(Cli *c, CliOption option, const char *what, ApMask *ret) {
        const char *s = c->values[option];
        char quoted[CLI_QUOTE_SIZE];
        ApMask mask = {};
        int r = 0;

        if (s && strcmp(s, "none") != 0)
                r = ap_mask_parse_list(s, &mask);
        if (r == -ERANGE)
                return cli_usage(c, "%s has an id above 255 or a range that runs backwards",
                                 cli_quote(s, quoted));
        if (r < 0)
                return cli_usage(c, "%s is no %s", cli_quote(s, quoted), what);

        *ret = mask;
        return CLI_DONE;
}

int cli_option_mask(Cli *c, CliOption option, ApMask *ret) {
        return option_mask(c, option, "list of ids, as in 1,3,0x10-0x13", ret);
}

int cli_option_id(Cli *c, CliOption option, uint16_t *ret) {
        static const char what[] = "single id, as in 5 or 0x05";
        char quoted[CLI_QUOTE_SIZE];
        ApMask mask;
        int r;

        r = option_mask(c, option, what, &mask);
        if (r != CLI_DONE)
                return r;
        if (ap_mask_count(&mask) != 1)
                return cli_usage(c, "%s is no %s", cli_quote(c->values[option], quoted), what);

        *ret = (uint16_t) ap_mask_next(&mask, 0);
        return CLI_DONE;
}

int cli_check_uuid(Cli *c, const char *text) {
        char quoted[CLI_QUOTE_SIZE];
        Uuid uuid;

        if (!text)
                return CLI_DONE;
        if (uuid_parse(text, &uuid) < 0)
                return cli_usage(c, "%s is no UUID of 36 characters", cli_quote(text, quoted));
        if (uuid_is_null(uuid))
                return cli_usage(c, "the null UUID names nothing");

        return CLI_DONE;
}

int cli_check_path(Cli *c, const char *path) {
        char quoted[CLI_QUOTE_SIZE];

        if (c->values[OPT_HOST] && *path != '/')
                return cli_usage(c, "%s must begin with '/', since it is on another host",
                                 cli_quote(path, quoted));

        return CLI_DONE;
}

int cli_absolute(const char *path, char **ret) {
        CLEANUP(freep) char *here = NULL;
        char *absolute;

        if (*path == '/') {
                *ret = strdup(path);
                return *ret ? 0 : -ENOMEM;
        }

        here = get_current_dir_name();
        if (!here)
                return -errno;
        if (asprintf(&absolute, "%s/%s", here, path) < 0)
                return -ENOMEM;

        *ret = absolute;
        return 0;
}

static int append_path(sd_bus_message *m, const char *name, const char *path) {
        CLEANUP(freep) char *absolute = NULL;
        int r;

        r = cli_absolute(path, &absolute);
        return r < 0 ? r : sd_bus_message_append(m, "{sv}", name, "s", absolute);
}

int cli_check_model(Cli *c) {
        const char *text = c->values[OPT_MODEL];
        char quoted[CLI_QUOTE_SIZE];

        if (!text || tpm_model_from_name(text) != _TPM_MODEL_MAX)
                return CLI_DONE;

        return cli_usage(c, "%s is none of virtio, crb and tis", cli_quote(text, quoted));
}

/* "0x139,324": at most CLI_CODES_MAX. 0 or -errno. */
static int parse_codes(const char *text, uint32_t codes[static CLI_CODES_MAX], size_t *ret_n) {
        size_t n = 0;

        for (const char *p = text;; p++) {
                unsigned long code;
                char *end;

                if (n == CLI_CODES_MAX || !isdigit((unsigned char) *p))
                        return -EINVAL;
                if (*p == '0' && isdigit((unsigned char) p[1]))
                        return -EINVAL; /* octal? */

                errno = 0;
                code = strtoul(p, &end, 0);
                if (errno != 0 || code > UINT32_MAX)
                        return -ERANGE;
                codes[n++] = (uint32_t) code;
                p = end;
                if (!*p)
                        break;
                if (*p != ',')
                        return -EINVAL;
        }

        *ret_n = n;
        return 0;
}

int cli_check_codes(Cli *c) {
        const char *text = c->values[OPT_DENY];
        uint32_t codes[CLI_CODES_MAX];
        char quoted[CLI_QUOTE_SIZE];
        size_t n;

        if (!text || parse_codes(text, codes, &n) >= 0)
                return CLI_DONE;

        return cli_usage(c, "%s is no list of at most %d TPM command codes, as in 0x139,0x144",
                         cli_quote(text, quoted), CLI_CODES_MAX);
}

static int append_codes(sd_bus_message *m, const char *name, const char *text) {
        uint32_t codes[CLI_CODES_MAX];
        size_t n;
        int r;

        r = parse_codes(text, codes, &n);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'e', "sv");
        if (r >= 0)
                r = sd_bus_message_append(m, "s", name);
        if (r >= 0)
                r = sd_bus_message_open_container(m, 'v', "au");
        if (r >= 0)
                r = sd_bus_message_append_array(m, 'u', codes, n * sizeof *codes);
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        if (r >= 0)
                r = sd_bus_message_close_container(m);

        return r;
}

static int append_option(sd_bus_message *m, const CliSent *s, const char *value) {
        switch (s->as) {
        case SENT_TRUE:
                return sd_bus_message_append(m, "{sv}", s->name, "b", 1);
        case SENT_FALSE:
                return sd_bus_message_append(m, "{sv}", s->name, "b", 0);
        case SENT_PATH:
                return append_path(m, s->name, value);
        case SENT_CODES:
                return append_codes(m, s->name, value);
        default:
                return sd_bus_message_append(m, "{sv}", s->name, "s", value);
        }
}

int cli_append_options(Cli *c, sd_bus_message *m, const CliSent *sent, size_t n) {
        int r;

        r = sd_bus_message_open_container(m, 'a', "{sv}");
        for (size_t i = 0; r >= 0 && i < n; i++)
                if (c->values[sent[i].option])
                        r = append_option(m, &sent[i], c->values[sent[i].option]);

        return r < 0 ? r : sd_bus_message_close_container(m);
}
