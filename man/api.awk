# SPDX-License-Identifier: LGPL-2.1-or-later
#
# api.awk - makes org.guestcrypt1(5) from dbus/org.guestcrypt1.xml, which has one tag a line
#
# awk -f api.awk INTRODUCTION INTERFACE.xml: the introduction is printed up to its line ".\" INTERFACES", the rest after them

function attribute(name,    s) {
        if (!match($0, " " name "=\"[^\"]*\""))
                return ""
        s = substr($0, RSTART, RLENGTH)
        sub(/^[^"]*"/, "", s)
        sub(/"$/, "", s)
        gsub(/&quot;/, "\"", s)
        gsub(/&#x27;/, "'", s)
        gsub(/&lt;/, "<", s)
        gsub(/&gt;/, ">", s)
        gsub(/&amp;/, "\\&", s)
        return s
}

function escape(s) {
        gsub(/\\/, "\\e", s)
        gsub(/×/, "\\[mu]", s)
        gsub(/-/, "\\-", s)
        sub(/^[.']/, "\\\\\\&&", s)
        return s
}

function print_method() {
        printf ".TP\n\\fB%s\\fR(%s)%s\n%s\n", member, ins, outs == "" ? "" : " \\(-> " outs, escape(text)
}

FNR == 1 { file++ }

file == 1 && /^\.\\" INTERFACES/ { after = 1; next }
file == 1 && after { rest = rest $0 "\n"; next }
file == 1 { print; next }

/<interface / { printf ".SH \"INTERFACE %s\"\n", escape(attribute("name")); what = "interface" }
/<method / { member = attribute("name"); ins = outs = ""; what = "method" }
/<property / { member = attribute("name"); type = attribute("type"); what = "property" }
/DocString/ {
        text = attribute("value")
        if (what == "interface")
                print escape(text)
        else if (what == "property")
                printf ".TP\n\\fB%s\\fR  %s\n%s\n", member, type, escape(text)
}
/<arg / {
        arg = attribute("type") " \\fI" attribute("name") "\\fR"
        if (attribute("direction") == "in")
                ins = ins (ins == "" ? "" : ", ") arg
        else
                outs = outs (outs == "" ? "" : ", ") arg
}
/<\/method>/ { print_method() }

END { printf "%s", rest }
