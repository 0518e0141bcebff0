# SPDX-License-Identifier: LGPL-2.1-or-later
# text to lines of a C string literal
s/["\\]/\\&/g
s/^/"/
s/$/\\n"/
