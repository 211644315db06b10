/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_KPKEYS_PGTABLE_CACHE_H
#define _LINUX_KPKEYS_PGTABLE_CACHE_H

#include <linux/types.h>

struct page;

/**
 * struct kpkeys_pgtable_cache_stats - where the pages of the cache are
 * @taken:      taken from the page allocator and not given back.
 * @cached:     free, ready to be handed out, including those in magazines.
 * @reserved:   in the reserve for the next refill.
 * @in_use:     handed out, or used for a split by a refill.
 * @meta:       used for the state of the cache.
 * @moving:     on their way back to the page allocator.
 * @parked:     in a chunk whose pkey could not be set.
 * @poisoned:   marked by memory_failure(), not used any more.
 * @leaked:     their pkey could not be set or reset; not used any more.
 * @lowest:     the lowest number of free pages on a node so far.
 * @refills:    chunks taken from the page allocator, by order, largest first.
 * @given_back: how often pages went back to the page allocator.
 * @splits:     how often the direct map was split for that.
 * @emergency:  pages handed out when a node had only a few left.
 * @refused:    allocations that found the cache empty and could not refill it.
 * @mismatched: pages that were freed twice, or in a list but not free.
 *
 * Invariant: @taken is the sum of @cached, @reserved, @in_use, @meta, @moving,
 * @parked, @poisoned and @leaked.
 */
struct kpkeys_pgtable_cache_stats {
	unsigned long taken;
	unsigned long cached;
	unsigned long reserved;
	unsigned long in_use;
	unsigned long meta;
	unsigned long moving;
	unsigned long parked;
	unsigned long poisoned;
	unsigned long leaked;
	unsigned long lowest;
	unsigned long refills[4];
	unsigned long given_back;
	unsigned long splits;
	unsigned long emergency;
	unsigned long refused;
	unsigned long mismatched;
};

int kpkeys_pgtable_cache_init(void);
struct page *kpkeys_pgtable_cache_alloc(gfp_t gfp);
bool kpkeys_pgtable_cache_owns(struct page *page);
bool kpkeys_pgtable_cache_in_use(struct page *page);
bool kpkeys_pgtable_cache_add_root(struct page *page);
bool kpkeys_pgtable_cache_del_root(struct page *page);
bool kpkeys_pgtable_cache_is_root(unsigned long pfn);
bool kpkeys_pgtable_cache_free(struct page *page);
unsigned long kpkeys_pgtable_cache_shrink(unsigned long nr_pages);
void kpkeys_pgtable_cache_stats(struct kpkeys_pgtable_cache_stats *stats);

#if IS_ENABLED(CONFIG_KUNIT)
/* Replaced by tests. */
struct kpkeys_split_reserve;
struct page *kpkeys_pgtable_cache_alloc_pages(gfp_t gfp, unsigned int order, int nid);
int kpkeys_pgtable_cache_set_pkey(unsigned long addr, int nr, int pkey,
				  struct kpkeys_split_reserve *reserve);
#endif

#endif /* _LINUX_KPKEYS_PGTABLE_CACHE_H */
