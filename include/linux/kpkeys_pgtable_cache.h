/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_KPKEYS_PGTABLE_CACHE_H
#define _LINUX_KPKEYS_PGTABLE_CACHE_H

#include <linux/types.h>

struct page;

/**
 * struct kpkeys_pgtable_cache_stats - where the pages of the cache are
 * @taken:     taken from the page allocator and not given back.
 * @cached:    free, ready to be handed out.
 * @reserved:  in the reserve for the next refill.
 * @in_use:    handed out, or used for a split by a refill.
 * @parked:    in a chunk whose pkey could not be set.
 * @leaked:    in a chunk whose pkey could not be restored.
 * @lowest:    the lowest @cached so far.
 * @refills:   by chunks of each of the orders that are tried, largest first.
 * @given_back: chunks that went back to the page allocator.
 * @emergency: pages handed out of the last ones, to who could not refill.
 * @refused:   allocations that found the cache empty and could not refill it.
 *
 * Invariant: @taken is the sum of @cached, @reserved, @in_use, @parked and
 * @leaked.
 */
struct kpkeys_pgtable_cache_stats {
	unsigned long taken;
	unsigned long cached;
	unsigned long reserved;
	unsigned long in_use;
	unsigned long parked;
	unsigned long leaked;
	unsigned long lowest;
	unsigned long refills[4];
	unsigned long given_back;
	unsigned long emergency;
	unsigned long refused;
};

int kpkeys_pgtable_cache_init(void);
struct page *kpkeys_pgtable_cache_alloc(gfp_t gfp);
bool kpkeys_pgtable_cache_owns(struct page *page);
bool kpkeys_pgtable_cache_free(struct page *page);
unsigned long kpkeys_pgtable_cache_shrink(unsigned long nr_pages);
void kpkeys_pgtable_cache_stats(struct kpkeys_pgtable_cache_stats *stats);

#if IS_ENABLED(CONFIG_KUNIT)
/* For tests, which make them fail. */
struct kpkeys_split_reserve;
struct page *kpkeys_pgtable_cache_alloc_pages(gfp_t gfp, unsigned int order);
int kpkeys_pgtable_cache_set_pkey(unsigned long addr, int nr, int pkey,
				  struct kpkeys_split_reserve *reserve);
#endif

#endif /* _LINUX_KPKEYS_PGTABLE_CACHE_H */
