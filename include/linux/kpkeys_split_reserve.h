/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_KPKEYS_SPLIT_RESERVE_H
#define _LINUX_KPKEYS_SPLIT_RESERVE_H

#include <linux/cleanup.h>
#include <linux/list.h>

struct ptdesc;

/**
 * struct kpkeys_split_reserve - page-table pages that are set aside for a split
 * @pages: the pages, linked by ptdesc->pt_list.
 * @nr:    the number of pages.
 *
 * Splitting a block of a live kernel mapping takes page-table pages at a point
 * where nothing can be allocated: a lock is held, or all other CPUs are stopped,
 * and the allocation might need a split itself. So the caller fills a reserve
 * first, and passes it to the split as an argument.
 *
 * Invariant: a reserve has one owner, the one that has the pointer, so it needs no
 * lock. A reserve that is not on the stack is protected by a lock of its owner. A page
 * is in at most one reserve, and nothing else refers to it meanwhile. The pages are as
 * pagetable_alloc() returned them: not constructed, and with undefined content. A
 * reserve on the stack is empty at the end of its scope.
 */
struct kpkeys_split_reserve {
	struct list_head pages;
	unsigned int nr;
};

#define KPKEYS_SPLIT_RESERVE_INIT(name)					\
	{ .pages = LIST_HEAD_INIT((name).pages) }

#ifdef CONFIG_KPKEYS_SPLIT_RESERVE

int __must_check kpkeys_split_reserve_fill(struct kpkeys_split_reserve *reserve,
					   unsigned int nr);
struct ptdesc *pagetable_alloc_split(struct kpkeys_split_reserve *reserve);
void kpkeys_split_reserve_add(struct kpkeys_split_reserve *reserve,
			      struct ptdesc *ptdesc);
void kpkeys_split_reserve_return(struct kpkeys_split_reserve *reserve);

#if IS_ENABLED(CONFIG_KUNIT)
/* Replaced by tests. */
struct ptdesc *kpkeys_split_reserve_alloc_one(void);
void kpkeys_split_reserve_free_one(struct ptdesc *ptdesc);
#endif

/**
 * KPKEYS_SPLIT_RESERVE_ONSTACK() - declare a reserve that returns its leftovers
 * @name: the name of the variable.
 *
 * Declare it before the guard of the lock under which it is used, so that the
 * pages go back after the lock is dropped.
 */
#define KPKEYS_SPLIT_RESERVE_ONSTACK(name)				\
	struct kpkeys_split_reserve name				\
		__cleanup(kpkeys_split_reserve_return) =		\
		KPKEYS_SPLIT_RESERVE_INIT(name)

#endif /* CONFIG_KPKEYS_SPLIT_RESERVE */

#endif /* _LINUX_KPKEYS_SPLIT_RESERVE_H */
