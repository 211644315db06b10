/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KPKEYS_REFILL_TEST_H
#define _KPKEYS_REFILL_TEST_H

/*
 * Where a refill gets the page tables for its own split, and how it is made to get
 * none, for the tests of the cache. See kpkeys_split_test.h.
 */
#include <kunit/static_stub.h>

#include <linux/kpkeys_pgtable_cache.h>
#include <linux/kpkeys_split_reserve.h>
#include <linux/set_memory.h>

#include <asm/mmu.h>

/* The number of pages that the cache sets aside for this between refills. */
#define REFILL_TEST_RESERVED	2

/* A stub for the change of the pkey in a refill. It may call the functions below. */
static int (*refill_test_fn)(unsigned long addr, int nr, int pkey);

static struct kpkeys_split_reserve *refill_test_reserve;

/* The change itself. */
static int refill_test_set_pkey(unsigned long addr, int nr, int pkey)
{
	return set_memory_pkey_reserve(addr, nr, pkey, refill_test_reserve);
}

/* The change, as if there were no pages for its split. */
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
