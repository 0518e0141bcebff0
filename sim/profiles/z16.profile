# SPDX-License-Identifier: LGPL-2.1-or-later
# Like an IBM z16: twelve CEX8 cards, 85 domains. The host keeps adapters 00 and 01.
dialect 7.2
card 0x00-0x02 accel
card 0x03 cca serial=93AADH03
card 0x04 cca serial=93AADH04
card 0x05 cca serial=93AADH05
card 0x06 cca serial=93AADH06
card 0x07 ep11 serial=93120007
card 0x08 ep11 serial=93120008
card 0x09 ep11 serial=93120009
card 0x0a ep11 serial=9312000A
card 0x0b ep11 serial=9312000B
domains 0-84
control 0-84
max 255 84
apmask 0xc000000000000000000000000000000000000000000000000000000000000000
parent mtty mtty
