/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _KPKEYS_SPLIT_TEST_H
#define _KPKEYS_SPLIT_TEST_H

/*
 * All that tests of splitting know about where the page tables of a split come
 * from. What they expect to happen does not depend on it.
 */
#include <linux/kpkeys_split_reserve.h>
#include <linux/mm.h>

/* Where a page table is allocated for a split; a stub of it lets that fail. */
#define split_test_alloc	kpkeys_split_reserve_alloc_one

/* What it does if there is no stub. */
static inline struct ptdesc *split_test_real_alloc(void)
{
	return pagetable_alloc(GFP_KERNEL, 0);
}

#endif /* _KPKEYS_SPLIT_TEST_H */
