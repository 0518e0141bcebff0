#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# verbs.sh - help, manual page and completion know the same verbs and options
set -euo pipefail
top=$(cd "${0%/*}/../../.." && pwd)
ctl=(${MESON_EXE_WRAPPER-} "${1:?PROGRAM}") # meson names an emulator if the program is for another machine
failed=0
complain() {
        echo "$*"
        failed=1
}

. "$top/cli/guestcryptctl.bash"
guestcryptctl() { # what the completion asks
        case $1 in
        list) printf 'NAME  STATE\npayments-1  started\naudit-1  defined\n' ;;
        guest-list) printf 'NAME  STATE\nvm1  running\nvm2  shutoff\n' ;;
        tpm-list) printf 'NAME  STATE\nvm1  running\nspare  defined\n' ;;
        mdev-types) printf 'PARENT  TYPE\nmatrix  vfio_ap-passthrough\nmtty  mtty-1\nmtty  mtty-2\n' ;;
        esac
}
# complete WORD...: what is offered for the last of them
complete_words() {
        COMP_WORDS=(guestcryptctl "$@")
        COMP_CWORD=$#
        COMPREPLY=()
        _guestcryptctl
        echo "${COMPREPLY[*]}"
}

page=$(sed 's/\\-/-/g' "$top/man/guestcryptctl.1")
mapfile -t verbs < <("${ctl[@]}" --help | sed -n 's/^  \([a-z][a-z-]*\).*/\1/p')
[ ${#verbs[@]} -gt 20 ] || complain "only ${#verbs[@]} verbs in the help"

for verb in "${verbs[@]}"; do
        [ "$(complete_words "$verb")" = "$verb" ] || [[ " $(complete_words "$verb") " == *" $verb "* ]] ||
                complain "$verb is not completed"
        grep -qE "^\.(B|BI|BR)( .*)?[\" ]$verb([\" ]|$)" <<< "$page" || complain "$verb is not in the manual page"
        for option in $("${ctl[@]}" --help | grep -E "^  $verb( |\$)" | grep -oE -- '--[a-z-]+' | sort -u); do
                [[ " $(complete_words "$verb" --) " == *" $option "* ]] || complain "$verb $option is not completed"
                grep -qE "^\.(B|BI|BR)( .*)?[\" ]$verb[\" ].*$option\b" <<< "$page" || complain "$verb $option is not in the manual page"
        done
done

[ "$(complete_words start p)" = payments-1 ] || complain "names of matrices are not completed"
[ "$(complete_words --json undefine a)" = audit-1 ] || complain "names after an option are not completed"
[ "$(complete_words mdev-create mtty '')" = 'mtty-1 mtty-2' ] || complain "types of a parent are not completed"
[[ "$(complete_words -- 2>&1)" == "--json "*"--version" ]] || complain "options before a verb are not completed"
[ -z "$(complete_words define x --adapters '')" ] || complain "something is offered for a list"
[ "$(complete_words guest-attach-matrix '')" = 'vm1 vm2' ] || complain "guests are not completed"
[ "$(complete_words guest-attach-matrix vm1 p)" = payments-1 ] || complain "matrices for a guest are not completed"
[ "$(complete_words guest-attach-tpm vm1 --tpm s)" = spare ] || complain "TPMs for a guest are not completed"
[ "$(complete_words define x --guest '')" = 'vm1 vm2' ] || complain "guests of an option are not completed"
[ "$(complete_words host-reserve --by '')" = 'masks overrides' ] || complain "means are not completed"
[ "$(complete_words tpm-start --model '')" = 'virtio crb tis' ] || complain "models are not completed"
[ "$(complete_words tpm-start --model crb s)" = spare ] || complain "TPMs after an option are not completed"
[ "$(cd "$top" && complete_words tpm-restore meson.b)" = meson.build ] || complain "files are not completed"
[ "$(cd "$top" && complete_words tpm-define x --key-file meson.b)" = meson.build ] || complain "files of an option are not completed"
[ "$(cd "$top" && complete_words tpm-backup vm1 meson.b)" = meson.build ] || complain "a file to write is not completed"
[ "$(cd "$top" && complete_words tpm-import dbu)" = dbus ] || complain "directories are not completed"
exit $failed
