/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KPKEYS_SPLIT_TEST_H
#define _KPKEYS_SPLIT_TEST_H

/*
 * Where the page tables of a split come from, and how their allocation is made to
 * fail, for the tests of splitting.
 */
#include <linux/kpkeys_split_reserve.h>
#include <linux/mm.h>

/* The function that allocates a page table for a split. A stub makes it fail. */
#define split_test_alloc	kpkeys_split_reserve_alloc_one

/* What it does without a stub. */
static inline struct ptdesc *split_test_real_alloc(void)
{
	return pagetable_alloc(GFP_KERNEL, 0);
}

#endif /* _KPKEYS_SPLIT_TEST_H */
