# SPDX-License-Identifier: GPL-2.0-only
# unit: a chunk is allocated while the mutex is held
/^static int refill_node/,/^}/s/scoped_guard(mutex, &refill_mutex) {/guard(mutex)(\&refill_mutex); {/
