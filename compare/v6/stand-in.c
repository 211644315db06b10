// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not the allocator of version 6, and not derived from it: a stand-in of our own with
 * the same entry points, to try "make compare V6=compare/v6/stand-in.c" without the
 * real file. It takes memory by blocks, has one list, and gives nothing back. Its
 * figures say nothing about any design.
 */
#include <linux/init.h>
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/set_memory.h>
#include <linux/spinlock.h>

#define ORDER	9
#define SPARE	4

static LIST_HEAD(pages);
static unsigned int nr_pages;
static DEFINE_SPINLOCK(pages_lock);
static DEFINE_MUTEX(refill_lock);
static struct task_struct *refiller;

static void put_page_back(struct page *page)
{
	guard(spinlock_irqsave)(&pages_lock);
	list_add(&page->lru, &pages);
	nr_pages++;
}

static struct page *take(unsigned int leave)
{
	struct page *page = NULL;

	guard(spinlock_irqsave)(&pages_lock);
	if (nr_pages > leave) {
		page = list_first_entry(&pages, struct page, lru);
		list_del(&page->lru);
		nr_pages--;
	}

	return page;
}

/* The split of a chunk may use pages of this chunk, which get the pkey after it. */
static int refill(void)
{
	struct page *page;
	int i, ret = 0;

	guard(mutex)(&refill_lock);
	if (READ_ONCE(nr_pages) > 2 * SPARE)
		return 0;
	page = alloc_pages(GFP_KERNEL, ORDER);
	if (!page)
		return -ENOMEM;
	split_page(page, ORDER);
	refiller = current;
	for (i = 0; i < SPARE; i++)
		put_page_back(page + i);
	ret = set_memory_pkey((unsigned long)page_address(page), 1 << ORDER, KPKEYS_PKEY_PGTABLES);
	refiller = NULL;
	for (i = SPARE; !ret && i < 1 << ORDER; i++)
		put_page_back(page + i);

	return ret;
}

struct page *kpkeys_pgtable_alloc(gfp_t gfp)
{
	bool split = gfp & __GFP_PGTABLE_SPLIT;
	struct page *page = take(split ? 0 : SPARE);

	if (!page && !split && refiller != current && gfpflags_allow_blocking(gfp) &&
	    !in_atomic() && !irqs_disabled() && !refill())
		page = take(SPARE);
	if (!page)
		return NULL;
	if (gfp & __GFP_ZERO) {
		guard(kpkeys_hardened_pgtables)();
		clear_page(page_address(page));
	}

	return page;
}

void kpkeys_pgtable_free(struct page *page)
{
	put_page_back(page);
}

int kpkeys_prepare_direct_map_split(void)
{
	return refiller == current || READ_ONCE(nr_pages) >= SPARE ? 0 : refill();
}

bool kpkeys_ready_for_direct_map_split(void)
{
	return refiller == current || READ_ONCE(nr_pages) >= SPARE;
}

void __init kpkeys_hardened_pgtables_init(void)
{
	if (refill())
		panic("stand-in: no memory\n");
}
