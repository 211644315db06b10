// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that comes and goes: what is behind "mem=" on the command line is added
 * when the module is loaded, and removed when it is unloaded. See
 * harness/userland/hotplug.
 */
#include <linux/gfp.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/module.h>

static unsigned long long start;
module_param(start, ullong, 0444);
static unsigned long long size;
module_param(size, ullong, 0444);
static bool no_blocks;
module_param(no_blocks, bool, 0444);
MODULE_PARM_DESC(no_blocks, "Leave no free block in other memory, only pages");

/* Of so many blocks, all pages but the first stay free. This is enough for a shell. */
#define BROKEN_BLOCKS	8

/* What no_blocks takes from other memory, until the module is unloaded. The order is in page->private. */
static LIST_HEAD(held);

static void hold_blocks(void)
{
	unsigned int i, nr = 0;
	struct page *page;

	while ((page = alloc_pages(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN, PMD_ORDER))) {
		bool broken = nr++ < BROKEN_BLOCKS;

		if (broken) {
			split_page(page, PMD_ORDER);
			for (i = 1; i < 1U << PMD_ORDER; i++)
				__free_page(page + i);
		}
		set_page_private(page, broken ? 0 : PMD_ORDER);
		list_add(&page->lru, &held);
	}
}

static void release_blocks(void)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, &held, lru) {
		unsigned int order = page_private(page);

		set_page_private(page, 0);
		__free_pages(page, order);
	}
}

static int __init hotplug_init(void)
{
	int ret = add_memory(0, start, size, MHP_NONE);

	/* Not before, as the struct pages of the new memory are in blocks, too. */
	if (!ret && no_blocks)
		hold_blocks();
	return ret;
}
module_init(hotplug_init);

static void __exit hotplug_exit(void)
{
	release_blocks();
	if (remove_memory(start, size))
		pr_err("hotplug: the memory is still online\n");
}
module_exit(hotplug_exit);

MODULE_DESCRIPTION("Memory hotplug without firmware");
MODULE_LICENSE("GPL");
