# SPDX-License-Identifier: GPL-2.0-only
# prove_refill: the chunk is allocated while the mutex is held
s/chunk = chunk_alloc(gfp), \*unused = NULL;/chunk, *unused = NULL;/
/^static int refill(/,/^}/s/scoped_guard(mutex, &refill_mutex) {/&\n		chunk = chunk_alloc(gfp);/
