// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page-table pages that are set aside for splitting kernel mappings.
 *
 *	fill (may sleep) -> take (anywhere), take, ... -> return (anywhere)
 *
 * The architecture computes how many pages a split takes, and the caller decides
 * when it may split. This file only moves pages.
 */
#include <kunit/static_stub.h>
#include <kunit/visibility.h>

#include <linux/kpkeys_split_reserve.h>
#include <linux/mm.h>
#include <linux/pgalloc.h>
#include <linux/sched/mm.h>

/* A split writes every entry of the new table. The caller reports a failure. */
#define GFP_SPLIT_RESERVE	((GFP_PGTABLE_KERNEL & ~__GFP_ZERO) | __GFP_NOWARN)

VISIBLE_IF_KUNIT struct ptdesc *kpkeys_split_reserve_alloc_one(void)
{
	KUNIT_STATIC_STUB_REDIRECT(kpkeys_split_reserve_alloc_one);

	return pagetable_alloc(GFP_SPLIT_RESERVE, 0);
}

VISIBLE_IF_KUNIT void kpkeys_split_reserve_free_one(struct ptdesc *ptdesc)
{
	KUNIT_STATIC_STUB_REDIRECT(kpkeys_split_reserve_free_one, ptdesc);

	pagetable_free(ptdesc);
}

/**
 * kpkeys_split_reserve_fill() - make sure that a reserve has enough pages
 * @reserve: the reserve, owned by the caller.
 * @nr:      the number of pages that it must have at least.
 *
 * Allocates the missing pages. On failure the reserve keeps those it got, and the
 * owner must still return them.
 *
 * Context: May sleep, as pagetable_alloc(). The lock of the split must not be
 *          held.
 * Return: 0, and the next @nr calls of pagetable_alloc_split() succeed; or
 *         -ENOMEM.
 */
int kpkeys_split_reserve_fill(struct kpkeys_split_reserve *reserve,
			      unsigned int nr)
{
	/* Complain about callers that must not sleep, even if nothing is missing. */
	might_alloc(GFP_SPLIT_RESERVE);

	while (reserve->nr < nr) {
		struct ptdesc *ptdesc = kpkeys_split_reserve_alloc_one();

		if (!ptdesc)
			return -ENOMEM;
		kpkeys_split_reserve_add(reserve, ptdesc);
	}

	return 0;
}

/**
 * pagetable_alloc_split() - take a page-table page out of a reserve
 * @reserve: the reserve, which the caller owns or was passed.
 *
 * Takes the place of pagetable_alloc() where nothing can be allocated. There is
 * no fallback if the reserve is empty: a page from elsewhere might need a split
 * to become a page table.
 *
 * Context: Any.
 * Return: a page that belongs to the caller, not constructed, with undefined
 *         content; or NULL if the reserve is empty, which is a bug of the caller
 *         and changes nothing.
 */
struct ptdesc *pagetable_alloc_split(struct kpkeys_split_reserve *reserve)
{
	struct ptdesc *ptdesc;

	ptdesc = list_first_entry_or_null(&reserve->pages, struct ptdesc,
					  pt_list);
	if (WARN_ON_ONCE(!ptdesc))
		return NULL;

	list_del(&ptdesc->pt_list);
	reserve->nr--;

	return ptdesc;
}

/**
 * kpkeys_split_reserve_add() - put a page into a reserve
 * @reserve: the reserve, owned by the caller.
 * @ptdesc:  a page as from pagetable_alloc(), not constructed. The caller passes
 *           its ownership to the reserve.
 *
 * Context: Any.
 */
void kpkeys_split_reserve_add(struct kpkeys_split_reserve *reserve,
			      struct ptdesc *ptdesc)
{
	VM_WARN_ON_ONCE_PAGE(PageTable(ptdesc_page(ptdesc)), ptdesc_page(ptdesc));

	list_add(&ptdesc->pt_list, &reserve->pages);
	reserve->nr++;
}

/**
 * kpkeys_split_reserve_return() - free the pages that are left in a reserve
 * @reserve: the reserve, owned by the caller. It is empty afterwards, and may be
 *           filled again.
 *
 * Context: As pagetable_free().
 */
void kpkeys_split_reserve_return(struct kpkeys_split_reserve *reserve)
{
	struct ptdesc *ptdesc, *next;

	list_for_each_entry_safe(ptdesc, next, &reserve->pages, pt_list) {
		list_del(&ptdesc->pt_list);
		reserve->nr--;
		kpkeys_split_reserve_free_one(ptdesc);
	}

	/* fill relies on the count. */
	VM_WARN_ON_ONCE(reserve->nr);
}
