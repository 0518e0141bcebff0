# SPDX-License-Identifier: LGPL-2.1-or-later
# A small host. Its boot masks leave adapters 00 and 01 to the host; 02 to 05 are for guests.
dialect 7.2
card 0x00 cca serial=93AADFK7
card 0x01 accel
card 0x02 cca serial=93AADFL1
card 0x03 accel
card 0x04 ep11 serial=9312ABC4
card 0x05 ep11 serial=9312ABC5
domains 0x06,0x10,0x1b,0x47
control 0x06,0x10,0x11,0x1b,0x47
max 63 84
apmask 0xc000000000000000000000000000000000000000000000000000000000000000
aqmask 0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
parent mtty mtty
