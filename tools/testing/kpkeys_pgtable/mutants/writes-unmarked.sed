# SPDX-License-Identifier: GPL-2.0-only
# threads: a count is written as if nobody read it without the lock
s/WRITE_ONCE(node->nr_free, node->nr_free + nr);/node->nr_free += nr;/
