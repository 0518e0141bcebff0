/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The command line: verbs, options, help. */

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <locale.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"

#define COLUMNS_DEFAULT 80
#define COLUMNS_MIN     20

#define OPTS_GLOBAL \
        (OPT_BIT(OPT_JSON) | OPT_BIT(OPT_HOST) | OPT_BIT(OPT_NO_ASK_PASSWORD) | OPT_BIT(OPT_HELP) | \
         OPT_BIT(OPT_VERSION))
#define OPTS_SETS (OPT_BIT(OPT_ADAPTERS) | OPT_BIT(OPT_DOMAINS) | OPT_BIT(OPT_CONTROL))
#define OPTS_HOST \
        (OPT_BIT(OPT_ADAPTERS) | OPT_BIT(OPT_DOMAINS) | OPT_BIT(OPT_BY) | OPT_BIT(OPT_TAKE_OTHERS) | \
         OPT_BIT(OPT_FORCE) | OPT_BIT(OPT_DRY_RUN))
#define OPTS_DEFINE \
        (OPT_BIT(OPT_GUEST) | OPT_BIT(OPT_AUTOSTART) | OPT_BIT(OPT_START) | OPT_BIT(OPT_ALTERNATIVE) | \
         OPT_BIT(OPT_FROM_HOST))

#define OPTS_TPM \
        (OPT_BIT(OPT_UUID) | OPT_BIT(OPT_GUEST) | OPT_BIT(OPT_KEY_FILE) | OPT_BIT(OPT_PLATFORM_KEEP) | \
         OPT_BIT(OPT_DENY))
#define OPTS_TPM_NEW \
        (OPT_BIT(OPT_EPHEMERAL) | OPT_BIT(OPT_ENCRYPTED) | OPT_BIT(OPT_PCR_BANKS) | OPT_BIT(OPT_PROFILE) | \
         OPT_BIT(OPT_CA_CONFIG) | OPT_BIT(OPT_NO_CERTIFICATES))

static const CliVerb verbs[] = {
        { "status", "", "the daemon, the host, and what is wrong", 0, 0, 0, verb_status },
        { "adapters", "", "crypto adapters of the host", 0, 0, 0, verb_adapters },
        { "queues", "[--adapter N] [--domain N] [--free] [--owner NAME]", "queues and who has them", 0, 0,
          OPT_BIT(OPT_ADAPTER) | OPT_BIT(OPT_DOMAIN) | OPT_BIT(OPT_FREE) | OPT_BIT(OPT_OWNER), verb_queues },
        { "matrix", "", "the grid of adapters and domains with who has what", 0, 0, 0, verb_matrix },
        { "masks", "[--adapters LIST --domains LIST]", "what the host's own drivers have; or set it", 0, 0,
          OPT_BIT(OPT_ADAPTERS) | OPT_BIT(OPT_DOMAINS), verb_masks },
        { "host-show", "",
          "what the host has of the queues, what keeps it so, and what is in force at the next boot", 0, 0,
          0, verb_host_show },
        { "host-reserve",
          "--adapters LIST --domains LIST [--by masks|overrides] [--take-others] [--force] [--dry-run]",
          "take queues from the host for guests, with the smallest change", 0, 0, OPTS_HOST,
          verb_host_reserve },
        { "host-release",
          "--adapters LIST --domains LIST|--all [--by masks|overrides] [--take-others] [--force] [--dry-run]",
          "give queues back to the host", 0, 0, OPTS_HOST | OPT_BIT(OPT_ALL), verb_host_release },
        { "host-persist", "[--dry-run]", "keep the masks as they are, in chzdev's udev rules", 0, 0,
          OPT_BIT(OPT_DRY_RUN), verb_host_persist },
        { "list", "", "matrices", 0, 0, 0, verb_list },
        { "show", "NAME", "all about one matrix", 1, 1, 0, verb_show },
        { "check",
          "--adapters LIST --domains LIST [--control LIST] [--start] [--alternative] [--from-host]"
          " [--self NAME]",
          "whether a matrix could be defined, or else who is in its way", 0, 0,
          OPTS_SETS | OPT_BIT(OPT_ALTERNATIVE) | OPT_BIT(OPT_START) | OPT_BIT(OPT_FROM_HOST) |
                  OPT_BIT(OPT_SELF),
          verb_check },
        { "define",
          "NAME --adapters LIST --domains LIST [--control LIST] [--uuid U] [--guest GUEST] [--autostart]"
          " [--start] [--alternative] [--from-host]",
          "define a matrix", 1, 1, OPTS_SETS | OPTS_DEFINE | OPT_BIT(OPT_UUID), verb_define },
        { "define-xml", "FILE [--guest GUEST] [--autostart] [--start] [--alternative] [--from-host]",
          "define a matrix from libvirt's node device XML ('-': standard input)", 1, 1, OPTS_DEFINE,
          verb_define_xml },
        { "dumpxml", "NAME", "a matrix as libvirt's node device XML", 1, 1, 0, verb_dumpxml },
        { "modify", "NAME [--adapters LIST] [--domains LIST] [--control LIST] [--autostart|--no-autostart]",
          "change a matrix, also while it is started", 1, 1,
          OPTS_SETS | OPT_BIT(OPT_AUTOSTART) | OPT_BIT(OPT_NO_AUTOSTART), verb_modify },
        { "start", "NAME [--from-host]", "make the matrix' mediated device", 1, 1, OPT_BIT(OPT_FROM_HOST),
          verb_start },
        { "stop", "NAME", "remove the matrix' mediated device", 1, 1, 0, verb_stop },
        { "undefine", "NAME [--stop]", "forget a matrix", 1, 1, OPT_BIT(OPT_STOP), verb_undefine },
        { "explain", "NAME", "what stands in the way of starting a matrix", 1, 1, 0, verb_explain },
        { "import", "mdevctl {--all|UUID...} [--name NAME] [--alternative] [--from-host] [--dry-run]",
          "take definitions over from mdevctl", 1, INT_MAX,
          OPT_BIT(OPT_ALL) | OPT_BIT(OPT_NAME) | OPT_BIT(OPT_ALTERNATIVE) | OPT_BIT(OPT_FROM_HOST) |
                  OPT_BIT(OPT_DRY_RUN),
          verb_import },
        { "export", "mdevctl NAME... [--force] [--dry-run]", "give matrices to mdevctl", 2, INT_MAX,
          OPT_BIT(OPT_FORCE) | OPT_BIT(OPT_DRY_RUN), verb_export },
        { "reconcile", "", "heal what is ours and is not as it should be", 0, 0, 0, verb_reconcile },
        { "reload", "", "read the configuration and the host again", 0, 0, 0, verb_reload },
        { "watch", "", "print changes as they happen, until interrupted", 0, 0, 0, verb_watch },
        { "mdev-types", "", "types of mediated devices that the host can make", 0, 0, 0, verb_mdev_types },
        { "mdev-create", "PARENT TYPE [--uuid U] [--attr NAME=VALUE]...", "make a mediated device", 2, 2,
          OPT_BIT(OPT_UUID) | OPT_BIT(OPT_ATTR), verb_mdev_create },
        { "mdev-remove", "UUID", "remove a mediated device that mdev-create made", 1, 1, 0,
          verb_mdev_remove },
        { "mdev-list", "", "mediated devices, ours and others'", 0, 0, 0, verb_mdev_list },
        { "guest-list", "", "libvirt's guests with their matrices and TPMs", 0, 0, 0, verb_guest_list },
        { "guest-show", "GUEST", "all about one guest", 1, 1, 0, verb_guest_show },
        { "guest-attach-matrix", "GUEST MATRIX [--no-live]", "give a guest a matrix, at once if it runs", 2,
          2, OPT_BIT(OPT_NO_LIVE), verb_guest_attach_matrix },
        { "guest-detach-matrix", "GUEST [--no-live]", "take a guest's matrix away", 1, 1,
          OPT_BIT(OPT_NO_LIVE), verb_guest_detach_matrix },
        { "guest-attach-tpm", "GUEST [--tpm NAME] [--model virtio|crb|tis]",
          "give a guest a TPM; without --tpm one with the guest's name, defined if need be", 1, 1,
          OPT_BIT(OPT_TPM) | OPT_BIT(OPT_MODEL), verb_guest_attach_tpm },
        { "guest-detach-tpm", "GUEST", "take a guest's TPM away; its state is kept", 1, 1, 0,
          verb_guest_detach_tpm },
        { "tpm-define",
          "NAME [--uuid U] [--guest GUEST] [--ephemeral] [--encrypted] [--key-file FILE] [--pcr-banks LIST]"
          " [--profile PROFILE] [--ca-config FILE] [--no-certificates] [--platform-keep] [--deny CODES]",
          "make a TPM", 1, 1, OPTS_TPM | OPTS_TPM_NEW, verb_tpm_define },
        { "tpm-start", "NAME [--model virtio|crb|tis]", "start a TPM by hand", 1, 1, OPT_BIT(OPT_MODEL),
          verb_tpm_start },
        { "tpm-stop", "NAME", "stop a TPM that no guest runs with", 1, 1, 0, verb_tpm_stop },
        { "tpm-undefine", "NAME [--wipe]", "forget a TPM; --wipe destroys its state", 1, 1,
          OPT_BIT(OPT_WIPE), verb_tpm_undefine },
        { "tpm-list", "", "TPMs", 0, 0, 0, verb_tpm_list },
        { "tpm-show", "NAME", "all about one TPM, with what its device has counted", 1, 1, 0,
          verb_tpm_show },
        { "tpm-backup", "NAME FILE [--force]", "save a TPM that does not run, state and all", 2, 2,
          OPT_BIT(OPT_FORCE), verb_tpm_backup },
        { "tpm-restore", "FILE [--name NAME] [--uuid U] [--guest GUEST]", "make a TPM from a backup", 1, 1,
          OPT_BIT(OPT_NAME) | OPT_BIT(OPT_UUID) | OPT_BIT(OPT_GUEST), verb_tpm_restore },
        { "tpm-import",
          "DIRECTORY NAME [--uuid U] [--guest GUEST] [--key-file FILE] [--platform-keep] [--deny CODES]",
          "make a TPM from a copy of a state that libvirt made", 2, 2, OPTS_TPM, verb_tpm_import },
        {},
};

static const struct option options[] = {
        { "json", no_argument, NULL, OPT_JSON },
        { "host", required_argument, NULL, OPT_HOST },
        { "no-ask-password", no_argument, NULL, OPT_NO_ASK_PASSWORD },
        { "help", no_argument, NULL, OPT_HELP },
        { "version", no_argument, NULL, OPT_VERSION },
        { "adapters", required_argument, NULL, OPT_ADAPTERS },
        { "domains", required_argument, NULL, OPT_DOMAINS },
        { "control", required_argument, NULL, OPT_CONTROL },
        { "uuid", required_argument, NULL, OPT_UUID },
        { "guest", required_argument, NULL, OPT_GUEST },
        { "autostart", no_argument, NULL, OPT_AUTOSTART },
        { "no-autostart", no_argument, NULL, OPT_NO_AUTOSTART },
        { "start", no_argument, NULL, OPT_START },
        { "alternative", no_argument, NULL, OPT_ALTERNATIVE },
        { "from-host", no_argument, NULL, OPT_FROM_HOST },
        { "stop", no_argument, NULL, OPT_STOP },
        { "self", required_argument, NULL, OPT_SELF },
        { "attr", required_argument, NULL, OPT_ATTR },
        { "adapter", required_argument, NULL, OPT_ADAPTER },
        { "domain", required_argument, NULL, OPT_DOMAIN },
        { "free", no_argument, NULL, OPT_FREE },
        { "owner", required_argument, NULL, OPT_OWNER },
        { "no-live", no_argument, NULL, OPT_NO_LIVE },
        { "tpm", required_argument, NULL, OPT_TPM },
        { "model", required_argument, NULL, OPT_MODEL },
        { "ephemeral", no_argument, NULL, OPT_EPHEMERAL },
        { "encrypted", no_argument, NULL, OPT_ENCRYPTED },
        { "key-file", required_argument, NULL, OPT_KEY_FILE },
        { "pcr-banks", required_argument, NULL, OPT_PCR_BANKS },
        { "profile", required_argument, NULL, OPT_PROFILE },
        { "ca-config", required_argument, NULL, OPT_CA_CONFIG },
        { "no-certificates", no_argument, NULL, OPT_NO_CERTIFICATES },
        { "platform-keep", no_argument, NULL, OPT_PLATFORM_KEEP },
        { "deny", required_argument, NULL, OPT_DENY },
        { "wipe", no_argument, NULL, OPT_WIPE },
        { "name", required_argument, NULL, OPT_NAME },
        { "force", no_argument, NULL, OPT_FORCE },
        { "all", no_argument, NULL, OPT_ALL },
        { "dry-run", no_argument, NULL, OPT_DRY_RUN },
        { "take-others", no_argument, NULL, OPT_TAKE_OTHERS },
        { "by", required_argument, NULL, OPT_BY },
        {},
};

static void print_help(FILE *f) {
        (void) fputs("guestcryptctl [--json] [--host=[USER@]HOST] [--no-ask-password] VERB\n\n"
                     "Gives guests crypto queues and TPMs of their own, and keeps them apart.\n\n",
                     f);
        for (const CliVerb *v = verbs; v->name; v++)
                (void) fprintf(f, "  %s%s%s\n        %s\n", v->name, *v->args ? " " : "", v->args, v->help);
        (void) fputs("\nLIST: numbers in decimal or with 0x, and ranges: 1,3,0x10-0x13.\n"
                     "NAME, MATRIX, GUEST: a name or UUID. CODES: TPM command codes: 0x139,0x144.\n"
                     "Exit status: 0 done, 1 failed, 2 usage, 3 refused because of a conflict.\n"
                     "See guestcryptctl(1).\n",
                     f);
}

static const char *option_name(int option) {
        for (const struct option *o = options; o->name; o++)
                if (o->val == option)
                        return o->name;

        return "?";
}

static int take_option(Cli *c, int option, const char *value, uint64_t *given) {
        if (option == OPT_ATTR) {
                if (c->n_attrs == CLI_ATTRS_MAX)
                        return cli_usage(c, "more than %d attributes were given", CLI_ATTRS_MAX);
                c->attrs[c->n_attrs++] = value;
        } else if (c->values[option] && value)
                return cli_usage(c, "--%s was given twice", option_name(option));
        if (value && !*value)
                return cli_usage(c, "--%s needs a value, not ''", option_name(option));

        c->values[option] = value ?: "";
        *given |= OPT_BIT(option);
        return CLI_DONE;
}

/* What is known before the rest is parsed, so that all errors come in the wanted form. */
static void look_ahead(Cli *c, int argc, char **argv) {
        for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
                if (strcmp(argv[i], "--json") == 0)
                        c->json = true;
}

static int parse(Cli *c, int argc, char **argv, uint64_t *given) {
        char quoted[CLI_QUOTE_SIZE], letter[] = "-?";
        int option, r;

        opterr = 0;
        optind = 0; /* glibc: start anew, for tests that call this often */
        while ((option = getopt_long(argc, argv, ":h", options, NULL)) >= 0) {
                switch (option) {
                case ':':
                        return cli_usage(c, "%s needs a value", argv[optind - 1]);
                case '?':
                        /* a letter may be one of several in an argument that is not over yet */
                        letter[1] = (char) optopt;
                        return cli_usage(c, "unknown option %s; see 'guestcryptctl --help'",
                                         cli_quote(isgraph(optopt) ? letter : argv[optind - 1], quoted));
                case 'h':
                        option = OPT_HELP;
                        break;
                }

                r = take_option(c, option, optarg, given);
                if (r != CLI_DONE)
                        return r;
        }

        return CLI_DONE;
}

static const CliVerb *find_verb(const char *name) {
        for (const CliVerb *v = verbs; v->name; v++)
                if (strcmp(v->name, name) == 0)
                        return v;

        return NULL;
}

static int check_verb(Cli *c, const CliVerb *v, char **args, int n_args, uint64_t given) {
        uint64_t wrong = given & ~(v->options | OPTS_GLOBAL);

        if (wrong)
                return cli_usage(c, "'%s' has no option --%s: guestcryptctl %s %s", v->name,
                                 option_name(__builtin_ctzll(wrong)), v->name, v->args);
        if (n_args < v->min_args || n_args > v->max_args)
                return cli_usage(c, "%s argument: guestcryptctl %s %s",
                                 n_args < v->min_args ? "missing" : "superfluous", v->name, v->args);
        for (int i = 0; i < n_args; i++)
                if (!*args[i])
                        return cli_usage(c, "empty argument: guestcryptctl %s %s", v->name, v->args);

        return CLI_DONE;
}

static unsigned terminal_columns(FILE *f) {
        const char *e = getenv("COLUMNS");
        struct winsize w = {};
        long n = 0;

        if (e)
                n = strtol(e, NULL, 10);
        if (n <= 0 && isatty(fileno(f)) && ioctl(fileno(f), TIOCGWINSZ, &w) == 0)
                n = w.ws_col;
        if (n <= 0 || n > 10000)
                n = COLUMNS_DEFAULT;

        return MAX((unsigned) n, (unsigned) COLUMNS_MIN);
}

static void look_around(Cli *c) {
        const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");
        int out = fileno(c->out), err = fileno(c->err);

        c->colour = !c->json && out >= 0 && isatty(out) && !(no_colour && *no_colour) &&
                    !(term && strcmp(term, "dumb") == 0);
        c->progress = !c->json && err >= 0 && isatty(err);
        c->columns = terminal_columns(c->out);
}

static int run(Cli *c, int argc, char **argv) {
        char quoted[CLI_QUOTE_SIZE];
        const CliVerb *v;
        uint64_t given = 0;
        int r;

        look_ahead(c, argc, argv);
        look_around(c);

        r = parse(c, argc, argv, &given);
        if (r != CLI_DONE)
                return r;
        c->json = c->values[OPT_JSON]; /* "--js", and "--guest --json" */
        if (c->values[OPT_HELP]) {
                print_help(c->out);
                return CLI_DONE;
        }
        if (c->values[OPT_VERSION]) {
                (void) fputs("guestcryptctl " GUESTCRYPT_VERSION "\n", c->out);
                return CLI_DONE;
        }

        if (optind >= argc)
                return cli_usage(c, "a verb is needed; see 'guestcryptctl --help'");
        v = find_verb(argv[optind]);
        if (!v)
                return cli_usage(c, "unknown verb %s; see 'guestcryptctl --help'",
                                 cli_quote(argv[optind], quoted));

        r = check_verb(c, v, argv + optind + 1, argc - optind - 1, given);
        if (r != CLI_DONE)
                return r;

        return v->run(c, argv + optind + 1);
}

/* A full disk or a closed pipe is a failure of what was asked for, and what it was asked for may be done. */
static int finish_output(Cli *c, int r) {
        errno = 0;
        if (fflush(c->out) == 0 && !ferror(c->out))
                return r;

        (void) fprintf(c->err, "guestcryptctl: not all output could be written%s%s\n", errno ? ": " : "",
                       errno ? strerror(errno) : "");
        return r == CLI_DONE ? CLI_FAILED : r;
}

int cli_main(int argc, char **argv, FILE *out, FILE *err) {
        Cli c = { .out = out, .err = err };
        int r;

        (void) setlocale(LC_CTYPE, "");
        r = run(&c, argc, argv);
        (void) sd_bus_flush_close_unref(c.bus);

        return finish_output(&c, r);
}
