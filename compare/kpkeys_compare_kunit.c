// SPDX-License-Identifier: GPL-2.0-only
/*
 * What "make compare" wants to know of a design and no other suite says, because
 * the answers may differ. They are printed, "compare: WHAT = VALUE", and are no
 * verdicts: a case fails only if it does not get an answer.
 *
 * For a direct map of blocks and pages of 4K, in a guest of 12 GB: it uses up
 * memory that is mapped by PUD blocks.
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>

#include <linux/completion.h>
#include <linux/irq_work.h>
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/kpkeys_pgtable_cache.h>
#include <linux/kthread.h>
#include <linux/memblock.h>
#include <linux/mm.h>
#include <linux/sched/debug.h>
#include <linux/sizes.h>
#include <linux/pgalloc.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#include <asm/kpkeys_hardened_pgtables.h>
#include <asm/mmu.h>

#include "kpkeys_refill_test.h"
#include "kpkeys_split_test.h"

#define CHUNK_ORDER	4

#define say(test, fmt, ...)	kunit_info(test, "compare: " fmt "\n", ##__VA_ARGS__)

static const char *outcome(int ret)
{
	return ret ? ret == -ENOMEM ? "-ENOMEM" : "error" : "ok";
}

/* A window in which two adjacent PUD blocks map the same memory. */
static unsigned long window_base;
static phys_addr_t window_phys;

static pud_t *window_pud(int i)
{
	unsigned long addr = window_base + i * PUD_SIZE;

	return pud_offset(p4d_offset(pgd_offset_k(addr), addr), addr);
}

static unsigned int window_tables(void)
{
	unsigned int nr = 0;
	int i, n;

	for (i = 0; i < 2; i++) {
		if (pud_leaf(pudp_get(window_pud(i))))
			continue;
		nr++;
		for (n = 0; n < PTRS_PER_PMD; n++)
			nr += !pmd_leaf(pmdp_get(pmd_offset(window_pud(i), window_base) + n));
	}

	return nr;
}

static int window_map(void)
{
	int i, ret = 0;

	vunmap_range(window_base, window_base + 2 * PUD_SIZE);
	for (i = 0; i < 2 && !ret; i++)
		ret = vmap_page_range(window_base + i * PUD_SIZE,
				      window_base + (i + 1) * PUD_SIZE, window_phys, PAGE_KERNEL);

	return ret;
}

/*
 * Split something in the window that takes this many tables. It has been mapped afresh,
 * which frees the tables of the last split: drain after that.
 */
static int split_demand_of(unsigned int demand)
{
	static const struct {
		unsigned long start, end;
	} range[] = {
		{ 0, PUD_SIZE },
		{ 0, PMD_SIZE },
		{ PAGE_SIZE, 2 * PAGE_SIZE },
		{ PAGE_SIZE, PMD_SIZE + PAGE_SIZE },
		{ PUD_SIZE - PAGE_SIZE, PUD_SIZE + PAGE_SIZE },
	};
	unsigned long start = window_base + range[demand].start;
	unsigned long end = window_base + range[demand].end;

	if (split_kernel_leaf_mapping_demand(start, end) != demand)
		return -EIO;

	return split_kernel_leaf_mapping(start, end);
}

/* What the page allocator has: nothing but one chunk, once. */
static struct page *given;

static struct page *alloc_given(gfp_t gfp, unsigned int order, int nid)
{
	struct page *page = given;

	if (order != CHUNK_ORDER)
		return NULL;
	given = NULL;

	return page;
}

/* Four pages at a time, as on a machine whose memory is in pieces. */
static struct page *alloc_pieces(gfp_t gfp, unsigned int order, int nid)
{
	return order <= 2 ? alloc_pages(gfp, order) : NULL;
}

/* Memory of which a chunk takes @want tables to split off; what is not used is lost. */
static struct page *memory_with_demand(unsigned int want)
{
	struct page *page, *next, *found = NULL;
	LIST_HEAD(others);

	while (!found) {
		unsigned long addr;

		page = alloc_pages(GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY, MAX_PAGE_ORDER);
		if (!page)
			break;
		addr = (unsigned long)page_address(page);
		if (split_kernel_leaf_mapping_demand(addr, addr + (PAGE_SIZE << CHUNK_ORDER)) == want)
			found = page;
		else
			list_add(&page->lru, &others);
	}
	list_for_each_entry_safe(page, next, &others, lru)
		__free_pages(page, MAX_PAGE_ORDER);

	return found;
}

static struct page *kept[4096];
static unsigned int nr_kept;

/* Take all pages that who may not refill can get. */
static void drain(void)
{
	struct page *page;

	kpkeys_pgtable_cache_shrink(ULONG_MAX);
	do {
		preempt_disable();
		page = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		preempt_enable();
		if (page)
			kept[nr_kept++] = page;
	} while (page && nr_kept < ARRAY_SIZE(kept));
}

static void undrain(void)
{
	while (nr_kept)
		kpkeys_pgtable_cache_free(kept[--nr_kept]);
}

static int refill_ret;

static int set_pkey_recorded(unsigned long addr, int nr, int pkey)
{
	refill_ret = refill_test_set_pkey(addr, nr, pkey);

	return refill_ret;
}

/* Let a refill have the @chunk and nothing else; -ENOMEM if it cannot use it. */
static int refill_with_given(struct kunit *test, struct page *chunk,
			     int (*set_pkey)(unsigned long addr, int nr, int pkey))
{
	struct page *page;

	refill_ret = -ENOMEM;
	given = chunk;
	kunit_activate_static_stub(test, kpkeys_pgtable_cache_alloc_pages, alloc_given);
	refill_test_replace(test, set_pkey);
	/* May be none: a chunk is not more than what is left to those who may not refill. */
	page = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_set_pkey);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	if (page)
		kpkeys_pgtable_cache_free(page);

	return refill_ret;
}

/*
 * The cache is empty, but for what it sets aside. Somebody splits; then somebody
 * needs a table, and the only memory for it takes a split itself.
 */
static void compare_split_then_refill(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats s;
	unsigned int demand, need;
	int ret;

	for (demand = 0; demand <= 4; demand++) {
		for (need = 1; need <= 2; need++) {
			struct page *chunk = memory_with_demand(need);

			KUNIT_ASSERT_NOT_NULL(test, chunk);
			KUNIT_ASSERT_EQ(test, window_map(), 0);
			drain();
			ret = split_demand_of(demand);
			drain();
			kpkeys_pgtable_cache_stats(&s);
			refill_with_given(test, chunk, set_pkey_recorded);
			say(test, "split of %u, then a refill that takes %u = split %s, %lu set aside, refill %s",
			    demand, need, outcome(ret), s.reserved, outcome(refill_ret));
			KUNIT_EXPECT_NE(test, ret, -EIO);
			undrain();
		}
	}
}

static unsigned int other_demand;
static int other_ret;
static DECLARE_COMPLETION(other_done);
static struct task_struct *other;

static int other_fn(void *data)
{
	other_ret = split_demand_of(other_demand);
	complete(&other_done);
	while (!kthread_should_stop())
		schedule_timeout_uninterruptible(1);

	return 0;
}

static bool other_waits;

/* A refill, with another task that splits just before the split of its own. */
static int set_pkey_after_other(unsigned long addr, int nr, int pkey)
{
	reinit_completion(&other_done);
	wake_up_process(other);
	other_waits = !wait_for_completion_timeout(&other_done, HZ / 2);
	refill_ret = refill_test_set_pkey(addr, nr, pkey);

	return refill_ret;
}

static void compare_split_during_refill(struct kunit *test)
{
	unsigned int demand, i;

	for (demand = 1; demand <= 4; demand++) {
		struct page *page[2], *chunk = memory_with_demand(2);

		KUNIT_ASSERT_NOT_NULL(test, chunk);
		KUNIT_ASSERT_EQ(test, window_map(), 0);
		/* Before: its stack may take a table, which nobody can have during the refill. */
		other = kthread_create(other_fn, NULL, "kpkeys-other");
		KUNIT_ASSERT_FALSE(test, IS_ERR(other));
		drain();
		other_demand = demand;
		other_ret = -EIO;
		refill_with_given(test, chunk, set_pkey_after_other);
		kthread_stop(other);
		/* Or there was no refill, or no such split in it. */
		KUNIT_EXPECT_NE(test, other_ret, -EIO);
		/* Once more, with as much memory as one likes; and after tables were freed. */
		drain();
		page[0] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		undrain();
		page[1] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		say(test, "split of %u in the middle of a refill that takes 2 = split %s%s, refill %s, next table %s, after a free %s",
		    demand, outcome(other_ret), other_waits ? " (after the refill)" : "", outcome(refill_ret),
		    page[0] ? "ok" : "-ENOMEM", page[1] ? "ok" : "-ENOMEM");
		for (i = 0; i < ARRAY_SIZE(page); i++) {
			if (page[i])
				kpkeys_pgtable_cache_free(page[i]);
		}
	}
}

static unsigned int rivals, rounds;
static bool in_rival;

static void maybe_rival(void)
{
	if (in_rival)
		return;
	rounds++;
	if (!rivals)
		return;
	rivals--;
	in_rival = true;
	if (!window_map()) {
		drain();
		split_demand_of(4);
	}
	in_rival = false;
}

#ifndef KPKEYS_SPLIT_POOL
static struct ptdesc *alloc_with_rival(void)
{
	struct ptdesc *ptdesc = split_test_real_alloc();

	maybe_rival();

	return ptdesc;
}

static void stub_fill(struct kunit *test)
{
	kunit_activate_static_stub(test, split_test_alloc, alloc_with_rival);
}

static void unstub_fill(struct kunit *test)
{
	kunit_deactivate_static_stub(test, split_test_alloc);
}

/* Each round allocates as many pages as the split takes. */
static unsigned int prepared(unsigned int demand)
{
	return DIV_ROUND_UP(rounds, demand);
}

static const char *irq_is_refill(void)
{
	return "not asked";
}
#else
static int prepare_with_rival(void)
{
	static bool preparing;
	int ret;

	/* The split of a refill is a part of it, and holds the mutex of refills. */
	if (preparing)
		return kpkeys_pgtable_cache_prepare_split();
	preparing = true;
	ret = kpkeys_pgtable_cache_prepare_split();
	preparing = false;
	maybe_rival();

	return ret;
}

static void stub_fill(struct kunit *test)
{
	kunit_activate_static_stub(test, kpkeys_prepare_direct_map_split, prepare_with_rival);
}

static void unstub_fill(struct kunit *test)
{
	kunit_deactivate_static_stub(test, kpkeys_prepare_direct_map_split);
}

static unsigned int prepared(unsigned int demand)
{
	return rounds;
}

static const char *irq_is_refill(void)
{
	return kpkeys_ready_for_direct_map_split() ? "yes" : "no";
}
#endif

/*
 * Others split between the time when somebody has made sure of his pages and the
 * time when he has the lock. The cache is empty, and memory comes in pieces.
 */
static void compare_rivals(struct kunit *test)
{
	static const unsigned int nr[] = { 0, 1, 2, 4, 8 };
	unsigned long start, end;
	int i, ret;

	for (i = 0; i < ARRAY_SIZE(nr); i++) {
		drain();
		kunit_activate_static_stub(test, kpkeys_pgtable_cache_alloc_pages, alloc_pieces);
		/* The rivals use the first two blocks of the window. */
		start = window_base + 2 * PUD_SIZE;
		end = start + PUD_SIZE;
		vunmap_range(start, end);
		KUNIT_ASSERT_EQ(test, vmap_page_range(start, end, window_phys, PAGE_KERNEL), 0);
		drain();
		/* Not before, or a rival would come in the middle of a refill. */
		stub_fill(test);
		rivals = nr[i];
		rounds = 0;
		ret = split_kernel_leaf_mapping(start + PAGE_SIZE, start + 2 * PAGE_SIZE);
		kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
		unstub_fill(test);
		say(test, "%u others in between = %s, prepared %u times", nr[i], outcome(ret),
		    prepared(2));
		undrain();
	}
}

/* Nothing is left anywhere. */
static void compare_nothing_left(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats s;
	unsigned int tables;
	int i, ret;

	for (i = 0; i < 2; i++) {
		KUNIT_ASSERT_EQ(test, window_map(), 0);
		drain();
		kunit_activate_static_stub(test, kpkeys_pgtable_cache_alloc_pages, alloc_given);
		given = NULL;
		ret = split_demand_of(4);
		tables = window_tables();
		kpkeys_pgtable_cache_stats(&s);
		kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
		say(test, "no memory, cache empty, split of 4, number %d = %s, %u tables changed, %lu set aside",
		    i + 1, outcome(ret), tables, s.reserved);
		undrain();
	}
}

static struct page *irq_page;
static const char *irq_says;

static void irq_fn(struct irq_work *work)
{
	/* A refill may take more than one chunk: the first finds the cache empty. */
	if (irq_says)
		return;
	irq_page = kpkeys_pgtable_cache_alloc(GFP_ATOMIC);
	irq_says = irq_is_refill();
}

static int set_pkey_after_irq(unsigned long addr, int nr, int pkey)
{
	struct irq_work work = IRQ_WORK_INIT_HARD(irq_fn);

	irq_work_queue(&work);
	irq_work_sync(&work);

	return refill_test_set_pkey(addr, nr, pkey);
}

/* An interrupt that needs a table, in the middle of a refill. */
static void compare_interrupt(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page *page;

	drain();
	kpkeys_pgtable_cache_stats(&before);
	refill_test_replace(test, set_pkey_after_irq);
	page = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_set_pkey);
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_NOT_NULL(test, page);
	say(test, "interrupt in the middle of a refill, cache empty = gets %s, taken for the refill: %s",
	    irq_page ? "a page" : "no page", irq_says);
	if (page)
		kpkeys_pgtable_cache_free(page);
	if (irq_page)
		kpkeys_pgtable_cache_free(irq_page);
	undrain();
}

static struct vm_struct *area;

static int compare_suite_init(struct kunit_suite *suite)
{
	area = __get_vm_area_caller(4 * PUD_SIZE, VM_IOREMAP, VMALLOC_START, VMALLOC_END,
				    __builtin_return_address(0));
	if (!area)
		return -ENOMEM;
	window_base = ALIGN((unsigned long)area->addr, PUD_SIZE);
	window_phys = ALIGN(memblock_start_of_DRAM(), PUD_SIZE);

	return 0;
}

static void compare_suite_exit(struct kunit_suite *suite)
{
	vunmap_range(window_base, window_base + 3 * PUD_SIZE);
	free_vm_area(area);
}

/* A case that hangs is an answer, too: say where, and do not make anybody wait. */
#define HANGS_AFTER	60

static struct task_struct *case_task;

static void case_hangs(struct work_struct *work)
{
	pr_err("INFO: task %s:%d blocked for more than %d seconds.\n", case_task->comm,
	       case_task->pid, HANGS_AFTER);
	sched_show_task(case_task);
	panic("compare: this case hangs\n");
}
static DECLARE_DELAYED_WORK(case_hangs_work, case_hangs);

static void compare_exit(struct kunit *test)
{
	cancel_delayed_work_sync(&case_hangs_work);
}

static int compare_init(struct kunit *test)
{
	if (!kpkeys_hardened_pgtables_enabled() || !arch_kpkeys_must_split())
		kunit_skip(test, "the direct map is not made of blocks, or page tables are not protected");
	if (totalram_pages() < SZ_8G >> PAGE_SHIFT)
		kunit_skip(test, "not enough memory that is mapped by PUD blocks");

	case_task = current;
	schedule_delayed_work(&case_hangs_work, HANGS_AFTER * HZ);

	return window_map();
}

static struct kunit_case compare_cases[] = {
	KUNIT_CASE(compare_split_then_refill),
	KUNIT_CASE(compare_split_during_refill),
	KUNIT_CASE(compare_rivals),
	KUNIT_CASE(compare_nothing_left),
	KUNIT_CASE(compare_interrupt),
	{}
};

static struct kunit_suite compare_suite = {
	.name = "kpkeys_compare",
	.suite_init = compare_suite_init,
	.suite_exit = compare_suite_exit,
	.init = compare_init,
	.exit = compare_exit,
	.test_cases = compare_cases,
};

kunit_test_suite(compare_suite);

MODULE_DESCRIPTION("Facts about the design, for a comparison");
MODULE_LICENSE("GPL");
