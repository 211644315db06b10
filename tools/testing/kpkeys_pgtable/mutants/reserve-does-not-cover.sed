# SPDX-License-Identifier: GPL-2.0-only
# unit: a chunk is split off without what that takes
s/return split <= refill_reserve.nr && index <= cache->nr_spare;/return true;/
