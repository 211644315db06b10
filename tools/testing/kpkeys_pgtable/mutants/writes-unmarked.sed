# SPDX-License-Identifier: GPL-2.0-only
# threads: a count is written as if nobody read it without the lock
s/WRITE_ONCE(cache.stats.cached, cache.stats.cached - 1);/cache.stats.cached--;/
