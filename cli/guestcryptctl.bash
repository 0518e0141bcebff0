# SPDX-License-Identifier: LGPL-2.1-or-later
#
# bash completion for guestcryptctl: verbs, options, and what the daemon has. bash-completion is not needed.

_guestcryptctl_names() { # [VERB]: the first column of its table, where names may have a space
        guestcryptctl "${1:-list}" 2> /dev/null | sed -n '1!s/  .*//p'
}

_guestcryptctl_column() { # VERB COLUMN [COLUMN WANTED]: words of a column of a table
        guestcryptctl "$1" 2> /dev/null | awk -v c="$2" -v k="${3:-0}" -v v="${4-}" 'NR > 1 && (!k || $k == v) { print $c }' | sort -u
}

_guestcryptctl_mdevctl() { # what mdevctl has defined
        ls /etc/mdevctl.d/matrix 2> /dev/null
}

_guestcryptctl() {
        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' words='' files='' i n=0 args=()
        local global='--json --host= --no-ask-password --help --version'
        local change='--adapters --domains --by --take-others --force --dry-run'
        local sets='--adapters --domains --control'
        local define='--guest --autostart --start --alternative --from-host'
        local tpm='--uuid --guest --key-file --platform-keep --deny'
        local -A options=(
                [status]='' [adapters]='' [matrix]='' [list]='' [show]='' [dumpxml]='' [stop]='' [explain]='' [reconcile]=''
                [reload]='' [watch]='' [mdev-types]='' [mdev-remove]='' [mdev-list]=''
                [queues]='--adapter --domain --free --owner' [masks]='--adapters --domains'
                [host-show]='' [host-reserve]="$change" [host-release]="$change --all" [host-persist]='--dry-run'
                [check]="$sets --start --alternative --from-host --self" [define]="$sets $define --uuid" [define-xml]="$define"
                [modify]="$sets --autostart --no-autostart" [start]='--from-host' [undefine]='--stop'
                [mdev-create]='--uuid --attr'
                [import]='--all --name --alternative --from-host --dry-run' [export]='--force --dry-run'
                [guest-list]='' [guest-show]='' [guest-attach-matrix]='--no-live' [guest-detach-matrix]='--no-live'
                [guest-attach-tpm]='--tpm --model' [guest-detach-tpm]=''
                [tpm-define]="$tpm --ephemeral --encrypted --pcr-banks --profile --ca-config --no-certificates"
                [tpm-start]='--model' [tpm-stop]='' [tpm-undefine]='--wipe' [tpm-list]='' [tpm-show]=''
                [tpm-backup]='--force' [tpm-restore]='--name --uuid --guest' [tpm-import]="$tpm"
        )

        for ((i = 1; i < COMP_CWORD; i++)); do
                case ${COMP_WORDS[i]} in
                --adapters | --domains | --control | --uuid | --guest | --self | --attr | --adapter | --domain | --owner | --host) ((i++)) ;;
                --by | --tpm | --model | --key-file | --pcr-banks | --profile | --ca-config | --deny | --name) ((i++)) ;;
                -*) ;;
                *) [ -n "$verb" ] && args+=("${COMP_WORDS[i]}") || verb=${COMP_WORDS[i]} ;;
                esac
        done
        n=${#args[@]}

        case $prev in
        --self | --owner) words=$(_guestcryptctl_names) ;;
        --guest) words=$(_guestcryptctl_names guest-list) ;;
        --tpm) words=$(_guestcryptctl_names tpm-list) ;;
        --by) words='masks overrides' ;;
        --model) words='virtio crb tis' ;;
        --pcr-banks) words='sha1 sha256 sha384 sha512' ;;
        --key-file | --ca-config) files=-f ;;
        --adapters | --domains | --control | --uuid | --attr | --adapter | --domain | --host | --profile | --deny | --name) return ;;
        *)
                if [[ $cur == -* ]]; then
                        words="$global${verb:+ ${options[$verb]-}}"
                elif [ -z "$verb" ]; then
                        words=${!options[*]}
                else
                        case $verb,$n in
                        show,0 | dumpxml,0 | modify,0 | start,0 | stop,0 | undefine,0 | explain,0) words=$(_guestcryptctl_names) ;;
                        import,0 | export,0) words=mdevctl ;;
                        import,*) words=$(_guestcryptctl_mdevctl) ;;
                        export,*) words=$(_guestcryptctl_names) ;;
                        mdev-remove,0) words=$(_guestcryptctl_column mdev-list 1 5 yes) ;;
                        mdev-create,0) words=$(_guestcryptctl_column mdev-types 1) ;;
                        mdev-create,1) words=$(_guestcryptctl_column mdev-types 2 1 "${args[0]}") ;;
                        guest-show,0 | guest-attach-*,0 | guest-detach-*,0) words=$(_guestcryptctl_names guest-list) ;;
                        guest-attach-matrix,1) words=$(_guestcryptctl_names) ;;
                        tpm-start,0 | tpm-stop,0 | tpm-undefine,0 | tpm-show,0 | tpm-backup,0) words=$(_guestcryptctl_names tpm-list) ;;
                        define-xml,0 | tpm-backup,1 | tpm-restore,0) files=-f ;;
                        tpm-import,0) files=-d ;;
                        esac
                fi
                ;;
        esac

        mapfile -t COMPREPLY < <(compgen ${files:-} -W "$words" -- "$cur")
}

complete -F _guestcryptctl guestcryptctl
