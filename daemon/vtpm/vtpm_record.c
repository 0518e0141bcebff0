/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vtpm/vtpm_record.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"
#include "store/store.h"

#define VERSION         1
#define DEPTH_MAX       8
#define PROFILE_MAX     4096
#define PATH_LENGTH_MAX 4000
#define BANKS_DEFAULT   "sha256"

static const char *const state_names[_VTPM_STATE_MAX] = {
        [VTPM_CREATING] = "creating", [VTPM_DEFINED] = "defined",   [VTPM_STARTING] = "starting",
        [VTPM_RUNNING] = "running",   [VTPM_STOPPING] = "stopping", [VTPM_DEGRADED] = "degraded",
        [VTPM_FAILED] = "failed",
};

static const char *const verdict_names[_VTPM_VERDICT_MAX] = {
        [VTPM_DONE] = "done",
        [VTPM_NO_SUCH] = "no-such",
        [VTPM_EXISTS] = "exists",
        [VTPM_BAD_STATE] = "bad-state",
        [VTPM_IN_USE] = "in-use",
        [VTPM_INVALID] = "invalid",
        [VTPM_LIMIT] = "limit",
        [VTPM_TOOL] = "tool",
        [VTPM_UNAVAILABLE] = "unavailable",
        [VTPM_BAD_RECORD] = "bad-record",
        [VTPM_TIMEOUT] = "timeout",
};

static const char *const key_names[_VTPM_KEY_MAX] = {
        [VTPM_KEY_NONE] = "none",
        [VTPM_KEY_OWN] = "own",
        [VTPM_KEY_FILE] = "file",
        [VTPM_KEY_CREDENTIAL] = "credential",
};

static const char *const job_names[_VTPM_JOB_MAX] = {
        [VTPM_JOB_DEFINE] = "define", [VTPM_JOB_RESTORE] = "restore", [VTPM_JOB_IMPORT] = "import",
        [VTPM_JOB_BACKUP] = "backup", [VTPM_JOB_REMOVE] = "remove",   [VTPM_JOB_RENEW] = "renew",
        [VTPM_JOB_DROP] = "drop",     [VTPM_JOB_CLEAN] = "clean",
};

/* The banks that swtpm knows. */
static const char *const banks[] = { "sha1", "sha256", "sha384", "sha512" };

const char *vtpm_state_name(VtpmState s) {
        return state_names[s];
}

const char *vtpm_verdict_name(VtpmVerdict v) {
        return verdict_names[v];
}

static int name_index(const char *const *names, size_t n, const char *name) {
        for (size_t i = 0; i < n; i++)
                if (strcmp(names[i], name) == 0)
                        return (int) i;
        return -EBADMSG;
}

void vtpm_record_clear(VtpmRecord *r) {
        free(r->name);
        free(r->guest);
        free(r->key_file);
        free(r->pcr_banks);
        free(r->profile);
        free(r->ca_config);
        free(r->denied);
        *r = (VtpmRecord) {};
}

static int copy_string(const char *s, char **ret) {
        *ret = s ? strdup(s) : NULL;
        return s && !*ret ? -ENOMEM : 0;
}

static int copy_denied(const uint32_t *denied, size_t n, VtpmRecord *to) {
        if (n == 0)
                return 0;

        to->denied = malloc(n * sizeof *denied);
        if (!to->denied)
                return -ENOMEM;

        memcpy(to->denied, denied, n * sizeof *denied);
        to->n_denied = n;
        return 0;
}

int vtpm_record_copy(const VtpmRecord *r, VtpmRecord *ret) {
        CLEANUP(vtpm_record_clear) VtpmRecord copy = *r;

        copy.name = copy.guest = copy.key_file = copy.pcr_banks = copy.profile = copy.ca_config = NULL;
        copy.denied = NULL;
        copy.n_denied = 0;
        if (copy_string(r->name, &copy.name) < 0 || copy_string(r->guest, &copy.guest) < 0 ||
            copy_string(r->key_file, &copy.key_file) < 0 || copy_string(r->pcr_banks, &copy.pcr_banks) < 0 ||
            copy_string(r->profile, &copy.profile) < 0 || copy_string(r->ca_config, &copy.ca_config) < 0 ||
            copy_denied(r->denied, r->n_denied, &copy) < 0)
                return -ENOMEM;

        *ret = copy;
        copy = (VtpmRecord) {};
        return 0;
}

/* "sha1,sha256": each one that swtpm knows, none twice, at least one. */
static bool banks_are_valid(const char *text) {
        unsigned seen = 0;

        for (;;) {
                size_t n = strcspn(text, ","), i;

                for (i = 0; i < ELEMENTS(banks); i++)
                        if (strlen(banks[i]) == n && strncmp(text, banks[i], n) == 0)
                                break;
                if (i == ELEMENTS(banks) || (seen & 1U << i))
                        return false;
                seen |= 1U << i;
                if (text[n] == '\0')
                        return true;
                text += n + 1;
        }
}

/* A name of swtpm's, or a whole profile as JSON. */
static bool profile_is_valid(const char *text) {
        size_t n = strnlen(text, PROFILE_MAX + 1);

        if (n == 0 || n > PROFILE_MAX)
                return false;
        if (*text == '{')
                return true;
        for (; *text; text++)
                if (!isalnum((unsigned char) *text) && !strchr("-_.:", *text))
                        return false;
        return true;
}

static bool path_is_valid(const char *path) {
        return path[0] == '/' && strnlen(path, PATH_LENGTH_MAX) < PATH_LENGTH_MAX && !strchr(path, '\n');
}

/* What is wrong in @r, NULL: nothing. */
static const char *fault(const VtpmRecord *r) {
        if (!r->name || !record_name_is_valid(r->name))
                return "its name has to be 1 to 64 of letters, digits and -_.:+, the first a letter or digit";
        if (r->guest && !record_guest_is_valid(r->guest))
                return "that is no name of a guest";
        if (!r->pcr_banks || !banks_are_valid(r->pcr_banks))
                return "PCR banks are sha1, sha256, sha384 and sha512, separated by commas";
        if (r->profile && !profile_is_valid(r->profile))
                return "that is no name of a profile";
        if (r->key_file && !path_is_valid(r->key_file))
                return "the key file has to be an absolute path";
        if (r->ca_config && !path_is_valid(r->ca_config))
                return "the configuration of the certificate authority has to be an absolute path";
        if (r->ephemeral && r->key != VTPM_KEY_NONE)
                return "an ephemeral TPM has no state on disk that could be encrypted";
        if (r->no_certificates && r->ca_config)
                return "a certificate authority makes no sense without certificates";
        if (r->n_denied > VTPM_DENIED_MAX)
                return "at most 64 commands can be denied";
        return NULL;
}

int vtpm_record_from_spec(const VtpmSpec *spec, VtpmRecord *ret, char **reterr_text) {
        VtpmRecord r = {
                .uuid = spec->uuid,
                .name = (char *) spec->name,
                .guest = (char *) spec->guest,
                .guest_uuid = spec->guest_uuid,
                .key_file = (char *) spec->key_file,
                .pcr_banks = (char *) (spec->pcr_banks ? spec->pcr_banks : BANKS_DEFAULT),
                .profile = (char *) spec->profile,
                .ca_config = (char *) spec->ca_config,
                .key = spec->key_file    ? VTPM_KEY_FILE
                       : spec->encrypted ? VTPM_KEY_OWN
                                         : VTPM_KEY_NONE,
                .ephemeral = spec->ephemeral,
                .no_certificates = spec->no_certificates,
                .platform_keep = spec->platform_keep,
                .denied = (uint32_t *) spec->denied,
                .n_denied = spec->n_denied,
                .owner = spec->owner,
        };
        const char *wrong = fault(&r);

        if (wrong) {
                *reterr_text = strdup(wrong);
                return *reterr_text ? VTPM_INVALID : -ENOMEM;
        }
        return vtpm_record_copy(&r, ret);
}

void vtpm_record_to_spec(const VtpmRecord *r, VtpmSpec *ret) {
        *ret = (VtpmSpec) {
                .name = r->name,
                .uuid = r->uuid,
                .guest = r->guest,
                .guest_uuid = r->guest_uuid,
                .ephemeral = r->ephemeral,
                .encrypted = r->key != VTPM_KEY_NONE,
                .key_file = r->key_file,
                .pcr_banks = r->pcr_banks,
                .profile = r->profile,
                .ca_config = r->ca_config,
                .no_certificates = r->no_certificates,
                .platform_keep = r->platform_keep,
                .denied = r->denied,
                .n_denied = r->n_denied,
                .owner = r->owner,
        };
}

/* ---- JSON ---- */

static bool put(json_object *o, const char *key, json_object *value) {
        if (value && json_object_object_add(o, key, value) == 0)
                return true;
        json_object_put(value);
        return false;
}

static bool put_string(json_object *o, const char *key, const char *s) {
        return !s || put(o, key, json_object_new_string(s));
}

static int print(json_object *o, char **ret) {
        const char *text =
                json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
                                                          JSON_C_TO_STRING_NOSLASHESCAPE);

        return !text || asprintf(ret, "%s\n", text) < 0 ? -ENOMEM : 0;
}

static json_object *record_object(const VtpmRecord *r) {
        CLEANUP(json_putp) json_object *o = json_object_new_object();
        char uuid[UUID_STRING_SIZE], guest[UUID_STRING_SIZE];
        json_object *denied;

        if (!o)
                return NULL;

        uuid_format(r->uuid, uuid);
        if (!put(o, "version", json_object_new_int(VERSION)) || !put_string(o, "uuid", uuid) ||
            !put_string(o, "name", r->name) || !put_string(o, "guest", r->guest) ||
            (r->guest && !uuid_is_null(r->guest_uuid) &&
             !put_string(o, "guest-uuid", uuid_format(r->guest_uuid, guest))) ||
            !put(o, "uid", json_object_new_int64(r->uid)) ||
            !put(o, "owner", json_object_new_int64(r->owner)) ||
            !put(o, "ephemeral", json_object_new_boolean(r->ephemeral)) ||
            !put_string(o, "encryption", key_names[r->key]) || !put_string(o, "key-file", r->key_file) ||
            !put_string(o, "pcr-banks", r->pcr_banks) || !put_string(o, "profile", r->profile) ||
            !put_string(o, "ca-config", r->ca_config) ||
            !put(o, "certificates", json_object_new_boolean(!r->no_certificates)) ||
            !put(o, "platform-keep", json_object_new_boolean(r->platform_keep)))
                return NULL;

        denied = json_object_new_array();
        if (!put(o, "denied", denied))
                return NULL;
        for (size_t i = 0; i < r->n_denied; i++)
                if (json_object_array_add(denied, json_object_new_int64(r->denied[i])) < 0)
                        return NULL;
        return TAKE(o);
}

int vtpm_record_to_json(const VtpmRecord *r, char **ret) {
        CLEANUP(json_putp) json_object *o = record_object(r);

        return o ? print(o, ret) : -ENOMEM;
}

/* A whole document, an object. NULL: it is none. */
static json_object *parse(const char *text) {
        CLEANUP(json_putp) json_object *o = NULL;
        size_t n = strlen(text);

        if (n > VTPM_RECORD_MAX || json_read(text, n, DEPTH_MAX, &o) < 0)
                return NULL;
        return o && json_object_is_type(o, json_type_object) ? TAKE(o) : NULL;
}

/* Each get: false, and *ok, if it is not of that kind; what is not there keeps its value. */
static void get_string(json_object *o, const char *key, const char **ret, bool *ok) {
        json_object *v;

        if (!json_object_object_get_ex(o, key, &v))
                return;
        if (json_object_is_type(v, json_type_string) &&
            strlen(json_object_get_string(v)) == (size_t) json_object_get_string_len(v))
                *ret = json_object_get_string(v);
        else
                *ok = false;
}

static void get_bool(json_object *o, const char *key, bool *ret, bool *ok) {
        json_object *v;

        if (!json_object_object_get_ex(o, key, &v))
                return;
        *ok = *ok && json_object_is_type(v, json_type_boolean);
        *ret = json_object_get_boolean(v);
}

static bool number(json_object *v, uint32_t max, uint32_t *ret) {
        int64_t n;

        if (!json_object_is_type(v, json_type_int))
                return false;
        n = json_object_get_int64(v);
        if (n < 0 || n > max)
                return false;
        *ret = (uint32_t) n;
        return true;
}

static void get_number(json_object *o, const char *key, uint32_t max, uint32_t *ret, bool *ok) {
        json_object *v;

        if (!json_object_object_get_ex(o, key, &v) || !number(v, max, ret))
                *ok = false;
}

static int get_denied(json_object *o, uint32_t denied[static VTPM_DENIED_MAX], size_t *ret_n) {
        json_object *v;
        size_t n;

        if (!json_object_object_get_ex(o, "denied", &v))
                return 0;
        if (!json_object_is_type(v, json_type_array) || json_object_array_length(v) > VTPM_DENIED_MAX)
                return -EBADMSG;

        n = json_object_array_length(v);
        for (size_t i = 0; i < n; i++)
                if (!number(json_object_array_get_idx(v, i), UINT32_MAX, &denied[i]))
                        return -EBADMSG;
        *ret_n = n;
        return 0;
}

static int complain(const char *what, char **reterr_text) {
        *reterr_text = strdup(what);
        return *reterr_text ? -EBADMSG : -ENOMEM;
}

static int record_from_object(json_object *o, VtpmRecord *ret, char **reterr_text) {
        const char *uuid = "", *key = key_names[VTPM_KEY_NONE], *wrong;
        const char *name = NULL, *guest = NULL, *guest_uuid = NULL, *key_file = NULL, *banks_text = NULL,
                   *profile = NULL, *ca = NULL;
        uint32_t denied[VTPM_DENIED_MAX], version = 0, uid = 0, owner = 0;
        bool certificates = true, ok = true;
        VtpmRecord r = {};
        int k;

        get_number(o, "version", UINT32_MAX, &version, &ok);
        if (!ok || version != VERSION)
                return complain("is of another version", reterr_text);

        get_string(o, "uuid", &uuid, &ok);
        get_string(o, "name", &name, &ok);
        get_string(o, "guest", &guest, &ok);
        get_string(o, "guest-uuid", &guest_uuid, &ok);
        get_number(o, "uid", UINT32_MAX - 1, &uid, &ok);
        get_number(o, "owner", UINT32_MAX - 1, &owner, &ok);
        get_bool(o, "ephemeral", &r.ephemeral, &ok);
        get_string(o, "encryption", &key, &ok);
        get_string(o, "key-file", &key_file, &ok);
        get_string(o, "pcr-banks", &banks_text, &ok);
        get_string(o, "profile", &profile, &ok);
        get_string(o, "ca-config", &ca, &ok);
        get_bool(o, "certificates", &certificates, &ok);
        get_bool(o, "platform-keep", &r.platform_keep, &ok);
        k = name_index(key_names, _VTPM_KEY_MAX, key);
        if (!ok || k < 0 || uuid_parse(uuid, &r.uuid) < 0 ||
            (guest_uuid && uuid_parse(guest_uuid, &r.guest_uuid) < 0) ||
            get_denied(o, denied, &r.n_denied) < 0)
                return complain("has a member that is missing or of the wrong type", reterr_text);

        r.name = (char *) name;
        r.guest = (char *) guest;
        if (!guest)
                r.guest_uuid = (Uuid) {};
        r.key_file = (char *) key_file;
        r.pcr_banks = (char *) banks_text;
        r.profile = (char *) profile;
        r.ca_config = (char *) ca;
        r.denied = denied;
        r.uid = uid;
        r.owner = owner;
        r.key = (VtpmKey) k;
        r.no_certificates = !certificates;
        wrong = fault(&r);
        if (!wrong && (r.key == VTPM_KEY_FILE) != !!r.key_file)
                wrong = "a key file is named, or is not, against what is said of the encryption";
        if (!wrong && r.uid == 0)
                wrong = "a TPM never is the superuser's";
        return wrong ? complain(wrong, reterr_text) : vtpm_record_copy(&r, ret);
}

int vtpm_record_from_json(const char *text, VtpmRecord *ret, char **reterr_text) {
        CLEANUP(json_putp) json_object *o = parse(text);

        return o ? record_from_object(o, ret, reterr_text) : complain("is no JSON object", reterr_text);
}

int vtpm_record_load(int dir_fd, const char *name, VtpmRecord *ret, char **reterr_text) {
        CLEANUP(freep) char *text = NULL;
        size_t size;
        int r;

        *reterr_text = NULL;
        r = file_read_at(dir_fd, name, VTPM_RECORD_MAX, &text, &size);
        if (r < 0)
                return r;
        return strlen(text) == size ? vtpm_record_from_json(text, ret, reterr_text)
                                    : complain("is no text", reterr_text);
}

/* ---- small ones ---- */

static int save(int dir_fd, const char *name, json_object *o) {
        CLEANUP(freep) char *text = NULL;
        int r;

        r = print(o, &text);
        return r < 0 ? r : file_replace(dir_fd, name, text, strlen(text));
}

static int load(int dir_fd, const char *name, json_object **ret) {
        CLEANUP(freep) char *text = NULL;
        json_object *o;
        int r;

        r = file_read_at(dir_fd, name, VTPM_RECORD_MAX, &text, NULL);
        if (r < 0)
                return r;
        o = parse(text);
        if (!o)
                return -EBADMSG;

        *ret = o;
        return 0;
}

int vtpm_run_record_save(int dir_fd, const VtpmRunRecord *r) {
        CLEANUP(json_putp) json_object *o = json_object_new_object();

        if (!o || !put_string(o, "model", tpm_model_name(r->model)) ||
            !put(o, "group", json_object_new_int64(r->group)))
                return -ENOMEM;
        return save(dir_fd, "run.json", o);
}

int vtpm_run_record_load(int dir_fd, VtpmRunRecord *ret) {
        CLEANUP(json_putp) json_object *o = NULL;
        const char *model = "";
        uint32_t group = 0;
        bool ok = true;
        TpmModel m;
        int r;

        r = load(dir_fd, "run.json", &o);
        if (r < 0)
                return r;
        get_string(o, "model", &model, &ok);
        get_number(o, "group", UINT32_MAX - 1, &group, &ok);
        m = tpm_model_from_name(model);
        if (!ok || m == TPM_MODEL_NONE || m == _TPM_MODEL_MAX)
                return -EBADMSG;

        *ret = (VtpmRunRecord) { .model = m, .group = group };
        return 0;
}

void vtpm_job_request_clear(VtpmJobRequest *q) {
        vtpm_record_clear(&q->record);
        free(q->directory);
        *q = (VtpmJobRequest) {};
}

int vtpm_job_request_save(int dir_fd, const VtpmJobRequest *q) {
        CLEANUP(json_putp) json_object *o = json_object_new_object();

        if (!o || !put_string(o, "job", job_names[q->kind]) || !put_string(o, "directory", q->directory) ||
            !put(o, "uid-base", json_object_new_int64(q->uid_base)) ||
            (q->record.name && !put(o, "tpm", record_object(&q->record))))
                return -ENOMEM;
        return save(dir_fd, "request.json", o);
}

int vtpm_job_request_load(int dir_fd, VtpmJobRequest *ret) {
        CLEANUP(vtpm_job_request_clear) VtpmJobRequest q = {};
        CLEANUP(json_putp) json_object *o = NULL;
        const char *job = "", *directory = NULL;
        CLEANUP(freep) char *text = NULL;
        json_object *record;
        bool ok = true;
        int k, r;

        r = load(dir_fd, "request.json", &o);
        if (r < 0)
                return r;
        get_string(o, "job", &job, &ok);
        get_string(o, "directory", &directory, &ok);
        get_number(o, "uid-base", UINT32_MAX - 1, &q.uid_base, &ok);
        k = name_index(job_names, _VTPM_JOB_MAX, job);
        if (!ok || k < 0)
                return -EBADMSG;
        if (json_object_object_get_ex(o, "tpm", &record)) {
                r = record_from_object(record, &q.record, &text);
                if (r < 0)
                        return r;
        } else if (k != VTPM_JOB_CLEAN)
                return -EBADMSG;
        r = copy_string(directory, &q.directory);
        if (r < 0)
                return r;

        q.kind = (VtpmJobKind) k;
        *ret = q;
        q = (VtpmJobRequest) {};
        return 0;
}

int vtpm_job_result_save(int dir_fd, VtpmVerdict verdict, const char *text) {
        CLEANUP(json_putp) json_object *o = json_object_new_object();

        if (!o || !put_string(o, "verdict", verdict_names[verdict]) || !put_string(o, "text", text))
                return -ENOMEM;
        return save(dir_fd, "result.json", o);
}

int vtpm_job_result_load(int dir_fd, VtpmVerdict *ret, char **ret_text) {
        CLEANUP(json_putp) json_object *o = NULL;
        const char *verdict = "", *text = "";
        bool ok = true;
        char *copy;
        int v, r;

        r = load(dir_fd, "result.json", &o);
        if (r < 0)
                return r;
        get_string(o, "verdict", &verdict, &ok);
        get_string(o, "text", &text, &ok);
        v = name_index(verdict_names, _VTPM_VERDICT_MAX, verdict);
        if (!ok || v < 0)
                return -EBADMSG;
        r = copy_string(text, &copy);
        if (r < 0)
                return r;

        *ret = (VtpmVerdict) v;
        *ret_text = copy;
        return 0;
}
