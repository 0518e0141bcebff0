# SPDX-License-Identifier: LGPL-2.1-or-later
# As much as the architecture can name: 256 x 256 queues. The host keeps adapter 00.
dialect 7.2
card 0x00-0x54 cca
card 0x55-0xa9 ep11
card 0xaa-0xff accel
domains 0-255
control 0-255
max 255 255
apmask 0x8000000000000000000000000000000000000000000000000000000000000000
parent mtty mtty
