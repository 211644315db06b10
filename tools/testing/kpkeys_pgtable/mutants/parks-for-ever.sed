# SPDX-License-Identifier: GPL-2.0-only
# unit: a chunk is never given up
s/tries < PARK_TRIES/tries < 2 * PARK_TRIES/
