# SPDX-License-Identifier: GPL-2.0-only
# threads: a count is read without the lock as if that were held
s/return READ_ONCE(cache->frames\[nid\].nr_free);/return cache->frames[nid].nr_free;/
