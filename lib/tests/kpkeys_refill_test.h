/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KPKEYS_REFILL_TEST_H
#define _KPKEYS_REFILL_TEST_H

/*
 * All that tests of the cache know about where a refill gets the page tables from
 * that its own split takes. See kpkeys_split_test.h.
 */
#include <kunit/static_stub.h>

#include <linux/kpkeys_pgtable_cache.h>
#include <linux/kpkeys_split_reserve.h>
#include <linux/set_memory.h>

#include <asm/mmu.h>

/* Pages of the cache that are set aside for it while there is no refill. */
#define REFILL_TEST_RESERVED	2

/* What replaces the change of the pkey in a refill; it may call what follows. */
static int (*refill_test_fn)(unsigned long addr, int nr, int pkey);

static struct kpkeys_split_reserve *refill_test_reserve;

/* The change itself. */
static int refill_test_set_pkey(unsigned long addr, int nr, int pkey)
{
	return set_memory_pkey_reserve(addr, nr, pkey, refill_test_reserve);
}

/* The change if there were no pages for its split. */
static int refill_test_set_pkey_of_none(unsigned long addr, int nr, int pkey)
{
	KPKEYS_SPLIT_RESERVE_ONSTACK(none);

	return set_memory_pkey_reserve(addr, nr, pkey, &none);
}

/* Its split alone. */
static int refill_test_split(unsigned long start, unsigned long end)
{
	return split_kernel_leaf_mapping_reserve(start, end, refill_test_reserve);
}

/* One of the pages that the split may use, or NULL. */
static struct ptdesc *refill_test_take(void)
{
	return refill_test_reserve->nr ? pagetable_alloc_split(refill_test_reserve) : NULL;
}

static int refill_test_stub(unsigned long addr, int nr, int pkey,
			    struct kpkeys_split_reserve *reserve)
{
	refill_test_reserve = reserve;

	return refill_test_fn(addr, nr, pkey);
}

static void refill_test_replace(struct kunit *test,
				int (*fn)(unsigned long addr, int nr, int pkey))
{
	refill_test_fn = fn;
	kunit_activate_static_stub(test, kpkeys_pgtable_cache_set_pkey, refill_test_stub);
}

#endif /* _KPKEYS_REFILL_TEST_H */
