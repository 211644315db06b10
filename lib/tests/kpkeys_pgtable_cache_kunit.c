// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the cache of protected pages: where its pages are at any time,
 * and what happens when it cannot get more.
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>

#include <linux/completion.h>
#include <linux/irq_work.h>
#include <linux/kasan.h>
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/kpkeys_pgtable_cache.h>
#include <linux/kthread.h>
#include <linux/memblock.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/set_memory.h>
#include <linux/stop_machine.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include <asm/kpkeys_hardened_pgtables.h>

#include "kpkeys_refill_test.h"

#define NR_MANY		1500

/* Pages that a test made permanently unusable. */
static unsigned long leaked_on_purpose;

/* All tests run on the CPUs of one node. */
static const struct cpumask *node_cpus(void)
{
	return cpumask_of_node(first_memory_node);
}

static int probe(void *addr)
{
	u64 val;

	/* With debug_pagealloc, a free page is not mapped, and need not be writable. */
	if (copy_from_kernel_nofault(&val, addr, sizeof(val)))
		return 0;

	return copy_to_kernel_nofault(addr, &val, sizeof(val));
}

/* Every page that was taken from the page allocator is in one place. */
static void expect_conserved(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats s;

	kpkeys_pgtable_cache_stats(&s);
	KUNIT_EXPECT_EQ(test, s.taken,
			s.cached + s.reserved + s.in_use + s.meta + s.moving + s.parked +
			s.poisoned + s.leaked);
	KUNIT_EXPECT_EQ(test, s.leaked, leaked_on_purpose);
}

/*
 * On a running system, a worker refills a cache that runs low, and other tasks take
 * and free pages.
 */
static void skip_if_running(struct kunit *test)
{
	if (system_state >= SYSTEM_RUNNING)
		kunit_skip(test, "after boot others use and refill the cache meanwhile");
}

static void free_all(struct page **pages, unsigned int nr)
{
	while (nr--) {
		if (pages[nr])
			kpkeys_pgtable_cache_free(pages[nr]);
	}
}

/*
 * Take all cached pages, and NR_MANY more, which need a refill: this is more than two
 * chunks of which no other task has a page. *@nr is set to the number of pages.
 */
static struct page **alloc_many(struct kunit *test, unsigned int *nr)
{
	struct kpkeys_pgtable_cache_stats s;
	struct page **pages;
	unsigned int i;

	kpkeys_pgtable_cache_stats(&s);
	*nr = s.cached + NR_MANY;
	pages = kunit_kcalloc(test, *nr, sizeof(*pages), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);
	for (i = 0; i < *nr; i++) {
		pages[i] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		if (!pages[i])
			break;
	}
	KUNIT_EXPECT_EQ(test, i, *nr);

	return pages;
}

/* The cache is refilled as needed. Each page is protected, and returns to the cache. */
static void kpkeys_pgtable_cache_test_many(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, during, after;
	struct page **pages;
	unsigned int i, nr;

	kpkeys_pgtable_cache_stats(&before);
	pages = alloc_many(test, &nr);
	kpkeys_pgtable_cache_stats(&during);
	expect_conserved(test);
	KUNIT_EXPECT_GT(test, during.taken, before.taken);
	for (i = 0; i < nr && pages[i]; i++) {
		KUNIT_EXPECT_TRUE(test, kpkeys_pgtable_cache_owns(pages[i]));
		KUNIT_EXPECT_EQ(test, page_ref_count(pages[i]), 1);
		KUNIT_EXPECT_EQ(test, probe(page_address(pages[i])), -EFAULT);
	}
	free_all(pages, nr);
	kpkeys_pgtable_cache_stats(&after);
	expect_conserved(test);
	KUNIT_EXPECT_LE(test, after.in_use, before.in_use + 8);
}

/* The reserve covers the next refill at all times. */
static void kpkeys_pgtable_cache_test_reserve(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats s;
	unsigned int nr;
	struct page **pages = alloc_many(test, &nr);

	kpkeys_pgtable_cache_stats(&s);
	KUNIT_EXPECT_EQ(test, s.reserved, REFILL_TEST_RESERVED);
	free_all(pages, nr);
}

struct given_back {
	struct page **pages;
	unsigned int nr;
};

/*
 * Return the index of a page that cannot be written, or @nr. All other CPUs are
 * stopped, as a page that was given back may have another owner by now.
 */
static int find_read_only(void *data)
{
	struct given_back *g = data;
	int i;

	/* The pages are free, so KASAN would report the writes. */
	kasan_disable_current();
	for (i = 0; i < g->nr; i++) {
		if (g->pages[i] && probe(page_address(g->pages[i])))
			break;
	}
	kasan_enable_current();

	return i;
}

/* Pages that are given back are writable. The others keep their pkey. */
static void kpkeys_pgtable_cache_test_shrink(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct given_back g;
	unsigned long nr;
	int i;

	g.pages = alloc_many(test, &g.nr);
	free_all(g.pages, g.nr);
	kpkeys_pgtable_cache_stats(&before);
	nr = kpkeys_pgtable_cache_shrink(ULONG_MAX);
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_GT(test, nr, 0);
	KUNIT_EXPECT_EQ(test, before.taken - after.taken, nr);
	expect_conserved(test);
	for (i = 0; i < g.nr; i++) {
		if (kpkeys_pgtable_cache_owns(g.pages[i]))
			g.pages[i] = NULL;
	}
	i = stop_machine(find_read_only, &g, NULL);
	/* A refill may have taken it again. */
	KUNIT_EXPECT_TRUE_MSG(test, i == g.nr || kpkeys_pgtable_cache_owns(g.pages[i]),
			      "a page was given back read-only");
}

/* Pages are handed out from the frame with the fewest free pages. */
static void kpkeys_pgtable_cache_test_fullest_first(struct kunit *test)
{
	struct page *one, *got, **pages;
	unsigned int i, nr;

	skip_if_running(test);
	pages = alloc_many(test, &nr);
	/* One page of the first frame, many of the last ones. */
	one = pages[0];
	for (i = nr - 1; i > nr - 500; i--) {
		kpkeys_pgtable_cache_free(pages[i]);
		pages[i] = NULL;
	}
	kpkeys_pgtable_cache_free(one);
	pages[0] = NULL;
	/* Bypass the magazine, which has the pages that were freed last. */
	kpkeys_pgtable_cache_shrink(0);
	for (i = 0; i < 64; i++) {
		got = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		pages[nr - 1 - i] = got;
		if (got == one)
			break;
	}
	KUNIT_EXPECT_PTR_EQ(test, got, one);
	free_all(pages, nr);
}

/* Allocate without sleeping. PREEMPT_RT allows no allocation with preemption off. */
static struct page *alloc_atomic(void)
{
	struct page *page;

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		return kpkeys_pgtable_cache_alloc(GFP_NOWAIT);

	preempt_disable();
	page = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	preempt_enable();

	return page;
}

/* Take page by page without the right to refill, until no page is left. */
static unsigned int drain(struct page **pages, unsigned int max)
{
	unsigned int nr;

	for (nr = 0; nr < max; nr++) {
		pages[nr] = alloc_atomic();
		if (!pages[nr])
			break;
	}

	return nr;
}

/* An empty cache that must not be refilled returns NULL, and no page from elsewhere. */
static void kpkeys_pgtable_cache_test_empty(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page **pages;
	unsigned int nr, max;

	skip_if_running(test);
	kpkeys_pgtable_cache_shrink(0);
	kpkeys_pgtable_cache_stats(&before);
	max = before.cached + 100;
	pages = kunit_kcalloc(test, max, sizeof(*pages), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);
	/* The magazines of other CPUs are out of reach, so stay on one CPU. */
	migrate_disable();
	kpkeys_pgtable_cache_shrink(0);
	kpkeys_pgtable_cache_stats(&before);
	nr = drain(pages, max);
	kpkeys_pgtable_cache_stats(&after);
	migrate_enable();
	free_all(pages, nr);
	KUNIT_EXPECT_EQ(test, nr, before.cached);
	KUNIT_EXPECT_EQ(test, after.cached, 0);
	KUNIT_EXPECT_EQ(test, after.lowest, 0);
	KUNIT_EXPECT_EQ(test, after.taken, before.taken);
	KUNIT_EXPECT_EQ(test, after.refused, before.refused + 1);
	expect_conserved(test);
}

/* Take all pages without a refill. *@nr is set to their number. There is room for one more. */
static struct page **drain_all(struct kunit *test, unsigned int *nr)
{
	struct kpkeys_pgtable_cache_stats s;
	struct page **pages;

	kpkeys_pgtable_cache_shrink(ULONG_MAX);
	kpkeys_pgtable_cache_stats(&s);
	pages = kunit_kcalloc(test, s.cached + 1, sizeof(*pages), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);
	*nr = drain(pages, s.cached);

	return pages;
}

static unsigned int fail_after;
static bool split_first;

static int set_pkey_or_fail(unsigned long addr, int nr, int pkey)
{
	if (fail_after) {
		fail_after--;
		if (split_first && refill_test_split(addr, addr + nr * PAGE_SIZE))
			return -ENOMEM;
		return -EINVAL;
	}

	return refill_test_set_pkey(addr, nr, pkey);
}

/* A chunk whose pkey cannot be set is parked, and is tried first by the next refill. */
static void test_refill_fails(struct kunit *test, bool after_split)
{
	struct kpkeys_pgtable_cache_stats failed, after;
	struct page **pages;
	unsigned int nr;

	skip_if_running(test);
	pages = drain_all(test, &nr);

	refill_test_replace(test, set_pkey_or_fail);
	split_first = after_split;
	fail_after = 1;
	KUNIT_EXPECT_NULL(test, kpkeys_pgtable_cache_alloc(GFP_KERNEL));
	kpkeys_pgtable_cache_stats(&failed);
	KUNIT_EXPECT_GT(test, failed.parked, 0);
	expect_conserved(test);

	/* The chunk that failed is tried now. */
	pages[nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	KUNIT_EXPECT_NOT_NULL(test, pages[nr]);
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_EQ(test, after.parked, 0);
	KUNIT_EXPECT_EQ(test, after.taken, failed.taken);
	KUNIT_EXPECT_EQ(test, after.reserved, REFILL_TEST_RESERVED);
	if (pages[nr])
		KUNIT_EXPECT_EQ(test, probe(page_address(pages[nr])), -EFAULT);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_set_pkey);
	free_all(pages, pages[nr] ? nr + 1 : nr);
	expect_conserved(test);
}

static void kpkeys_pgtable_cache_test_refill_fails(struct kunit *test)
{
	test_refill_fails(test, false);
}

static void kpkeys_pgtable_cache_test_refill_fails_after_split(struct kunit *test)
{
	test_refill_fails(test, true);
}

/* The last pages are for callers that must not sleep. */
static void kpkeys_pgtable_cache_test_emergency(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page **pages;
	unsigned int nr;

	skip_if_running(test);
	kpkeys_pgtable_cache_shrink(ULONG_MAX);
	kpkeys_pgtable_cache_stats(&before);
	pages = kunit_kcalloc(test, before.cached + 1, sizeof(*pages), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);

	refill_test_replace(test, set_pkey_or_fail);
	split_first = false;
	fail_after = UINT_MAX;
	for (nr = 0; nr < before.cached; nr++) {
		pages[nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		if (!pages[nr])
			break;
	}
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_GT(test, after.cached, 0);
	KUNIT_EXPECT_EQ(test, after.emergency, before.emergency);

	pages[nr] = kpkeys_pgtable_cache_alloc(GFP_ATOMIC);
	KUNIT_EXPECT_NOT_NULL(test, pages[nr]);
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_EQ(test, after.emergency, before.emergency + 1);

	fail_after = 0;
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_set_pkey);
	free_all(pages, nr + 1);
	/* Other nodes had enough pages until a chunk was abandoned. */
	if (num_node_state(N_MEMORY) > 1)
		leaked_on_purpose += after.leaked - before.leaked;
	expect_conserved(test);
}

/* Little memory is lost, however often the pkey of new chunks cannot be set. */
static void kpkeys_pgtable_cache_test_gives_up(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page *page, **pages;
	unsigned int nr, i;

	skip_if_running(test);
	pages = drain_all(test, &nr);
	kpkeys_pgtable_cache_stats(&before);
	refill_test_replace(test, set_pkey_or_fail);
	split_first = false;
	fail_after = UINT_MAX;
	for (i = 0; i < 50; i++)
		KUNIT_EXPECT_NULL(test, kpkeys_pgtable_cache_alloc(GFP_KERNEL));
	fail_after = 0;
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_GT(test, after.leaked, before.leaked);
	KUNIT_EXPECT_LE(test, after.leaked + after.parked,
			before.leaked + 2 * BIT(ARCH_KPKEYS_PGTABLE_FRAME_ORDER));
	leaked_on_purpose += after.leaked - before.leaked;

	/* After the pause, chunks are tried again. */
	for (i = 0, page = NULL; i < 100 && !page; i++) {
		schedule_timeout_uninterruptible(HZ / 10);
		page = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	}
	KUNIT_EXPECT_NOT_NULL(test, page);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_set_pkey);
	free_all(&page, 1);
	free_all(pages, nr);
	expect_conserved(test);
}

static unsigned int max_order;
static bool no_pages;
static struct page *only;

/* The page allocator has no larger chunk than this, or no pages but these. */
static struct page *alloc_pages_up_to(gfp_t gfp, unsigned int order, int nid)
{
	struct page *page = only;

	if (no_pages || order > max_order)
		return NULL;
	if (!page)
		return alloc_pages_node(nid, gfp, order);
	only = NULL;
	no_pages = true;

	return page;
}

#define BLOCK_ORDER	9

/* Get single pages of a block that is not split. free_block() frees them. */
static struct page *alloc_block(struct kunit *test)
{
	struct page *block, *next;
	unsigned long addr;
	LIST_HEAD(split);

	if (!arch_kpkeys_must_split())
		kunit_skip(test, "the direct map is made of pages");
	/* Other tests leave much of the direct map split. */
	while ((block = alloc_pages(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN, BLOCK_ORDER))) {
		addr = (unsigned long)page_address(block + 1);
		if (split_kernel_leaf_mapping_demand(addr, addr + PAGE_SIZE))
			break;
		list_add(&block->lru, &split);
	}
	if (block)
		split_page(block, BLOCK_ORDER);
	for (; !list_empty(&split); __free_pages(next, BLOCK_ORDER)) {
		next = list_first_entry(&split, struct page, lru);
		list_del(&next->lru);
	}
	if (!block)
		kunit_skip(test, "the direct map has no block any more");

	return block;
}

/* Free all pages of the block but @nr from @first on, which have another owner. */
static void free_block(struct page *block, unsigned int first, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < 1 << BLOCK_ORDER; i++) {
		if (i < first || i >= first + nr)
			__free_page(block + i);
	}
}

/*
 * Allocate with the right to refill, but without memory for that. The last pages are
 * left to callers that may not refill. There is room for @more.
 */
static struct page **drain_to_mark(struct kunit *test, unsigned int *nr, unsigned int more)
{
	struct kpkeys_pgtable_cache_stats s;
	struct page **pages;

	kpkeys_pgtable_cache_shrink(ULONG_MAX);
	kpkeys_pgtable_cache_stats(&s);
	pages = kunit_kcalloc(test, s.cached + s.parked + more, sizeof(*pages), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);
	kunit_activate_static_stub(test, kpkeys_pgtable_cache_alloc_pages, alloc_pages_up_to);
	no_pages = true;
	for (*nr = 0; *nr < s.cached + s.parked; ++*nr) {
		pages[*nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		if (!pages[*nr])
			break;
	}
	no_pages = false;

	return pages;
}

/* A caller that must not sleep gets the last pages, and never refills. */
static void kpkeys_pgtable_cache_test_atomic(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page *page[3], **pages;
	unsigned int noreclaim, nr, tries = 10;
	int i;

	skip_if_running(test);
	do {
		pages = drain_to_mark(test, &nr, 0);
		kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
		kpkeys_pgtable_cache_stats(&before);
		page[0] = kpkeys_pgtable_cache_alloc(GFP_ATOMIC);
		page[1] = alloc_atomic();
		noreclaim = memalloc_noreclaim_save();
		page[2] = alloc_atomic();
		memalloc_noreclaim_restore(noreclaim);
		kpkeys_pgtable_cache_stats(&after);
		free_all(page, ARRAY_SIZE(page));
		free_all(pages, nr);
		/* The worker may refill the cache in the meantime, but not each time. */
	} while (after.taken != before.taken && --tries);

	KUNIT_EXPECT_EQ(test, after.taken, before.taken);
	KUNIT_EXPECT_EQ(test, after.emergency, before.emergency + ARRAY_SIZE(page));
	for (i = 0; i < ARRAY_SIZE(page); i++)
		KUNIT_EXPECT_NOT_NULL(test, page[i]);
}

static gfp_t seen_gfp[64];
static unsigned int seen_order[64];
static unsigned int nr_seen;

/* Stands in for the page allocator: has no memory, and records the gfp flags. */
static struct page *record_and_fail(gfp_t gfp, unsigned int order, int nid)
{
	if (nr_seen < ARRAY_SIZE(seen_gfp)) {
		seen_gfp[nr_seen] = gfp;
		seen_order[nr_seen++] = order;
	}

	return NULL;
}

/*
 * Chunks are allocated without reclaim, and not from the emergency reserves. The last
 * resort is a single page, with the gfp flags of the caller.
 */
static void kpkeys_pgtable_cache_test_gfp(struct kunit *test)
{
	static const gfp_t callers[] = { GFP_KERNEL, GFP_NOFS, GFP_NOIO,
					 GFP_KERNEL | __GFP_NORETRY,
					 GFP_KERNEL | __GFP_RETRY_MAYFAIL };
	const gfp_t kept = __GFP_RECLAIM | __GFP_IO | __GFP_FS | __GFP_NORETRY |
			   __GFP_RETRY_MAYFAIL | __GFP_NOFAIL | __GFP_NOMEMALLOC;
	struct page **pages;
	unsigned int i, j, nr;

	skip_if_running(test);
	pages = drain_to_mark(test, &nr, 0);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	kunit_activate_static_stub(test, kpkeys_pgtable_cache_alloc_pages, record_and_fail);
	for (i = 0; i < ARRAY_SIZE(callers); i++) {
		nr_seen = 0;
		KUNIT_EXPECT_NULL(test, kpkeys_pgtable_cache_alloc(callers[i] | __GFP_ACCOUNT));
		KUNIT_ASSERT_GT(test, nr_seen, 1);
		for (j = 0; j < nr_seen; j++) {
			KUNIT_EXPECT_FALSE(test, seen_gfp[j] & __GFP_ACCOUNT);
			if (j == nr_seen - 1)
				continue;
			KUNIT_EXPECT_FALSE(test, seen_gfp[j] & __GFP_RECLAIM);
			KUNIT_EXPECT_TRUE(test, seen_gfp[j] & __GFP_NOMEMALLOC);
			KUNIT_EXPECT_TRUE(test, seen_gfp[j] & __GFP_NOWARN);
			if (seen_order[j])
				KUNIT_EXPECT_TRUE(test, seen_gfp[j] & __GFP_THISNODE);
		}
		KUNIT_EXPECT_EQ(test, seen_order[j - 1], 0);
		KUNIT_EXPECT_EQ(test, (__force unsigned int)(seen_gfp[j - 1] & kept),
				(__force unsigned int)callers[i]);
	}
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	free_all(pages, nr);
	expect_conserved(test);
}

/* vmalloc() sets PF_MEMALLOC also for callers that may sleep. They get their tables. */
static void kpkeys_pgtable_cache_test_memalloc(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	unsigned int noreclaim, nr;
	struct page *page, **pages;

	skip_if_running(test);
	if (!IS_ENABLED(CONFIG_PREEMPT_COUNT))
		kunit_skip(test, "PF_MEMALLOC is all that tells whether this may sleep");
	pages = drain_to_mark(test, &nr, 0);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	kpkeys_pgtable_cache_stats(&before);
	noreclaim = memalloc_noreclaim_save();
	page = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	memalloc_noreclaim_restore(noreclaim);
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_NOT_NULL(test, page);
	KUNIT_EXPECT_GT(test, after.taken, before.taken);
	KUNIT_EXPECT_EQ(test, after.emergency, before.emergency);
	free_all(&page, 1);
	free_all(pages, nr);
	expect_conserved(test);
}

/* Without any memory, NULL is returned and nothing changes. Later it works again. */
static void kpkeys_pgtable_cache_test_no_memory(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page **pages;
	unsigned int nr;

	skip_if_running(test);
	pages = drain_to_mark(test, &nr, 1);
	no_pages = true;
	kpkeys_pgtable_cache_stats(&before);
	KUNIT_EXPECT_NULL(test, kpkeys_pgtable_cache_alloc(GFP_KERNEL));
	kpkeys_pgtable_cache_stats(&after);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	KUNIT_EXPECT_EQ(test, after.taken, before.taken);
	KUNIT_EXPECT_EQ(test, after.cached, before.cached);
	KUNIT_EXPECT_EQ(test, after.reserved, before.reserved);
	KUNIT_EXPECT_EQ(test, after.parked, 0);
	KUNIT_EXPECT_EQ(test, after.refused, before.refused + 1);

	pages[nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	KUNIT_EXPECT_NOT_NULL(test, pages[nr]);
	free_all(pages, nr + 1);
	expect_conserved(test);
}

/* Without large chunks, smaller ones are used if they yield more than their split takes. */
static void kpkeys_pgtable_cache_test_fragmented(struct kunit *test)
{
	const unsigned int orders[] = { CONT_PTE_SHIFT - PAGE_SHIFT,
					IS_ENABLED(CONFIG_ARM64_4K_PAGES) ? 2 : 1 };
	struct kpkeys_pgtable_cache_stats before, after;
	struct page **pages;
	unsigned int i, nr;

	skip_if_running(test);
	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		pages = drain_to_mark(test, &nr, 1);
		max_order = orders[i];
		kpkeys_pgtable_cache_stats(&before);
		pages[nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		kpkeys_pgtable_cache_stats(&after);
		kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
		KUNIT_EXPECT_NOT_NULL(test, pages[nr]);
		KUNIT_EXPECT_EQ(test, after.taken, before.taken + (1 << max_order));
		KUNIT_EXPECT_EQ(test, after.reserved, before.reserved);
		if (pages[nr])
			KUNIT_EXPECT_EQ(test, probe(page_address(pages[nr])), -EFAULT);
		free_all(pages, nr + 1);
	}
	expect_conserved(test);
}

static struct page *next_single;
static unsigned int nr_singles;

/* The page allocator only has single pages of one block. */
static struct page *alloc_singles(gfp_t gfp, unsigned int order, int nid)
{
	if (order || !nr_singles)
		return NULL;
	nr_singles--;

	return next_single++;
}

/*
 * Memory is fragmented into single pages of a block that is not split. The first page
 * becomes the table for the split, and each other one a page table.
 */
static void kpkeys_pgtable_cache_test_singles(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page *block, **pages;
	unsigned int demand, nr, i;
	unsigned long addr;

	skip_if_running(test);
	block = alloc_block(test);
	pages = drain_to_mark(test, &nr, 200);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	kunit_activate_static_stub(test, kpkeys_pgtable_cache_alloc_pages, alloc_singles);
	next_single = block;
	nr_singles = 200;
	addr = (unsigned long)page_address(block);
	demand = split_kernel_leaf_mapping_demand(addr, addr + PAGE_SIZE);
	KUNIT_EXPECT_GT(test, demand, 0);
	kpkeys_pgtable_cache_stats(&before);
	for (i = 0; i < 200; i++) {
		pages[nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		if (!pages[nr])
			break;
		KUNIT_EXPECT_TRUE(test, kpkeys_pgtable_cache_owns(pages[nr]));
		KUNIT_EXPECT_EQ(test, probe(page_address(pages[nr])), -EFAULT);
		nr++;
	}
	kpkeys_pgtable_cache_stats(&after);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	KUNIT_EXPECT_EQ(test, nr_singles, 0);
	KUNIT_EXPECT_EQ(test, after.taken, before.taken + 200);
	/* All pages but those for the split and for the cache itself were handed out. */
	KUNIT_EXPECT_EQ(test, i, 200 - demand - (after.meta - before.meta) -
			(after.cached - before.cached));
	KUNIT_EXPECT_EQ(test, after.reserved, before.reserved);
	free_all(pages, nr);
	free_block(block, 0, 200);
	expect_conserved(test);
}

/* The page allocator only has single pages, with the data of their last user. */
static struct page *alloc_dirty_singles(gfp_t gfp, unsigned int order, int nid)
{
	struct page *page = order ? NULL : alloc_page(gfp);

	if (page)
		memset(page_address(page), 0xff, PAGE_SIZE);

	return page;
}

/* A single page that is handed out at once is zeroed like any other. */
static void kpkeys_pgtable_cache_test_single_is_zero(struct kunit *test)
{
	struct page **pages;
	unsigned int nr, i;

	skip_if_running(test);
	pages = drain_to_mark(test, &nr, 4);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	kunit_activate_static_stub(test, kpkeys_pgtable_cache_alloc_pages, alloc_dirty_singles);
	for (i = 0; i < 4; i++) {
		pages[nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL | __GFP_ZERO);
		KUNIT_EXPECT_NOT_NULL(test, pages[nr]);
		if (!pages[nr])
			break;
		KUNIT_EXPECT_NULL(test, memchr_inv(page_address(pages[nr]), 0, PAGE_SIZE));
		nr++;
	}
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	free_all(pages, nr);
	expect_conserved(test);
}

/* If the pkey of single pages cannot be set, one of them is parked, and none is lost. */
static void kpkeys_pgtable_cache_test_single_fails(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page **pages;
	unsigned int nr;

	skip_if_running(test);
	pages = drain_to_mark(test, &nr, 1);
	max_order = 0;
	refill_test_replace(test, set_pkey_or_fail);
	split_first = false;
	fail_after = UINT_MAX;
	kpkeys_pgtable_cache_stats(&before);
	KUNIT_EXPECT_NULL(test, kpkeys_pgtable_cache_alloc(GFP_KERNEL));
	fail_after = 0;
	kpkeys_pgtable_cache_stats(&after);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_set_pkey);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	KUNIT_EXPECT_EQ(test, after.parked, 1);
	KUNIT_EXPECT_EQ(test, after.taken, before.taken + 1);
	KUNIT_EXPECT_EQ(test, after.leaked, before.leaked);

	pages[nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	KUNIT_EXPECT_NOT_NULL(test, pages[nr]);
	free_all(pages, nr + 1);
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_EQ(test, after.parked, 0);
	expect_conserved(test);
}

/* Empty the cache. The next refill gets the second group of contiguous pages of @block. */
static struct page **drain_to_group(struct kunit *test, struct page *block, unsigned int *nr)
{
	struct page **pages = drain_to_mark(test, nr, 1);
	unsigned int i;

	max_order = CONT_PTE_SHIFT - PAGE_SHIFT;
	only = block + (1 << max_order);
	/* As alloc_pages() would return them. */
	for (i = 1; i < 1 << max_order; i++)
		set_page_count(only + i, 0);

	return pages;
}

static unsigned long refused_addr;
static unsigned int refused_demand;

static int set_pkey_with_nothing(unsigned long addr, int nr, int pkey)
{
	refused_addr = addr;
	refused_demand = split_kernel_leaf_mapping_demand(addr, addr + nr * PAGE_SIZE);

	return refill_test_set_pkey_of_none(addr, nr, pkey);
}

/* If the reserve is too small, -ENOMEM is returned, and nothing has changed. */
static void kpkeys_pgtable_cache_test_reserve_too_small(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page *block, **pages;
	unsigned int nr;

	skip_if_running(test);
	block = alloc_block(test);
	pages = drain_to_group(test, block, &nr);
	kpkeys_pgtable_cache_stats(&before);
	refill_test_replace(test, set_pkey_with_nothing);
	pages[nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_set_pkey);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_NULL(test, pages[nr]);
	KUNIT_EXPECT_GT(test, refused_demand, 0);
	KUNIT_EXPECT_EQ(test, after.in_use, before.in_use);
	KUNIT_EXPECT_EQ(test, after.reserved, before.reserved);
	KUNIT_EXPECT_EQ(test, after.parked, 1 << max_order);
	KUNIT_EXPECT_EQ(test, probe((void *)refused_addr), 0);
	KUNIT_EXPECT_EQ(test, refused_demand,
			split_kernel_leaf_mapping_demand(refused_addr,
							 refused_addr + (PAGE_SIZE << max_order)));
	expect_conserved(test);

	/* The chunk that was refused is tried next. */
	pages[nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	KUNIT_EXPECT_NOT_NULL(test, pages[nr]);
	KUNIT_EXPECT_EQ(test, probe((void *)refused_addr), -EFAULT);
	free_all(pages, pages[nr] ? nr + 1 : nr);
	free_block(block, 1 << max_order, 1 << max_order);
	expect_conserved(test);
}

/* The change of the pkey of a chunk refuses the same arguments as set_memory_pkey(). */
static void kpkeys_pgtable_cache_test_arguments(struct kunit *test)
{
	unsigned long addr = get_zeroed_page(GFP_KERNEL);

	KUNIT_ASSERT_NE(test, addr, 0);
	KUNIT_EXPECT_EQ(test, refill_test_set_pkey(addr + 8, 1, KPKEYS_PKEY_PGTABLES), -EINVAL);
	KUNIT_EXPECT_EQ(test, refill_test_set_pkey(addr, 0, KPKEYS_PKEY_PGTABLES), -EINVAL);
	KUNIT_EXPECT_EQ(test, refill_test_set_pkey(addr, -1, KPKEYS_PKEY_PGTABLES), -EINVAL);
	KUNIT_EXPECT_EQ(test, refill_test_set_pkey(addr, 1, -1), -EINVAL);
	KUNIT_EXPECT_EQ(test, refill_test_set_pkey(addr, 1, 8), -EINVAL);
	KUNIT_EXPECT_EQ(test, probe((void *)addr), 0);
	free_page(addr);
}

/* A page next to one of the cache stays as it is. */
static void kpkeys_pgtable_cache_test_neighbour(struct kunit *test)
{
	struct page *block, **pages;
	unsigned int nr;
	void *table;

	skip_if_running(test);
	block = alloc_block(test);
	table = page_address(block);
	pages = drain_to_mark(test, &nr, 1);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	kunit_activate_static_stub(test, kpkeys_pgtable_cache_alloc_pages, alloc_singles);
	next_single = block + 1;
	nr_singles = 1;
	pages[nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	KUNIT_EXPECT_TRUE(test, kpkeys_pgtable_cache_owns(block + 1));
	KUNIT_EXPECT_FALSE(test, kpkeys_pgtable_cache_owns(block));
	KUNIT_EXPECT_EQ(test, kpkeys_protect_pgtable(table, 0), 0);
	KUNIT_EXPECT_EQ(test, probe(table), -EFAULT);
	KUNIT_EXPECT_EQ(test, kpkeys_unprotect_pgtable(table, 0), 0);
	KUNIT_EXPECT_EQ(test, probe(table), 0);
	free_all(pages, pages[nr] ? nr + 1 : nr);
	free_block(block, 1, 1);
	expect_conserved(test);
}

static struct ptdesc *spared[REFILL_TEST_RESERVED];
static unsigned int nr_spared, exact_demand;

/* Leave as many pages in the reserve as the split takes. */
static int set_pkey_with_exactly(unsigned long addr, int nr, int pkey)
{
	exact_demand = split_kernel_leaf_mapping_demand(addr, addr + nr * PAGE_SIZE);
	while (exact_demand && nr_spared < REFILL_TEST_RESERVED - exact_demand)
		spared[nr_spared++] = refill_test_take();

	return refill_test_set_pkey(addr, nr, pkey);
}

/* The reserve has exactly as many pages as the split takes. */
static void kpkeys_pgtable_cache_test_reserve_just_enough(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats after;
	struct page *block, **pages;
	unsigned int nr;

	skip_if_running(test);
	if (REFILL_TEST_RESERVED > 2)
		kunit_skip(test, "this design needs all pages that it sets aside");
	block = alloc_block(test);
	pages = drain_to_group(test, block, &nr);
	refill_test_replace(test, set_pkey_with_exactly);
	pages[nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_set_pkey);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_GT(test, exact_demand, 0);
	KUNIT_EXPECT_NOT_NULL(test, pages[nr]);
	KUNIT_EXPECT_EQ(test, after.parked, 0);
	KUNIT_EXPECT_EQ(test, after.reserved, REFILL_TEST_RESERVED);
	for (; nr_spared; nr_spared--) {
		if (spared[nr_spared - 1])
			pagetable_free(spared[nr_spared - 1]);
	}
	free_all(pages, pages[nr] ? nr + 1 : nr);
	free_block(block, 1 << max_order, 1 << max_order);
	expect_conserved(test);
}

/* The writer on another CPU, before and after the chunk gets its pkey. */
static struct {
	struct task_struct *task;
	unsigned long *addr;
	bool ready, go, done;
	int ret;
} warm;

/* Must neither sleep nor be interrupted meanwhile, which might empty the TLB. */
static int write_warm(void *data)
{
	u64 end = ktime_get_mono_fast_ns() + 5ULL * NSEC_PER_SEC;
	unsigned long flags, val = 2;

	while (!READ_ONCE(warm.addr) && !kthread_should_stop())
		schedule_timeout_uninterruptible(1);
	if (warm.addr) {
		local_irq_save(flags);
		WRITE_ONCE(*warm.addr, 1);
		WRITE_ONCE(warm.ready, true);
		/* A flush that comes before the change does not help: write meanwhile. */
		while (!READ_ONCE(warm.go) && ktime_get_mono_fast_ns() < end)
			copy_to_kernel_nofault(warm.addr, &val, sizeof(val));
		warm.ret = copy_to_kernel_nofault(warm.addr, &val, sizeof(val));
		local_irq_restore(flags);
		WRITE_ONCE(warm.done, true);
	}
	while (!kthread_should_stop())
		schedule_timeout_uninterruptible(1);

	return 0;
}

static int set_pkey_when_warm(unsigned long addr, int nr, int pkey)
{
	u64 end = ktime_get_mono_fast_ns() + 10ULL * NSEC_PER_SEC;
	int ret;

	if (warm.addr)
		return refill_test_set_pkey(addr, nr, pkey);
	WRITE_ONCE(warm.addr, (unsigned long *)addr);
	while (!READ_ONCE(warm.ready) && ktime_get_mono_fast_ns() < end)
		cpu_relax();
	ret = refill_test_set_pkey(addr, nr, pkey);
	WRITE_ONCE(warm.go, true);
	while (!READ_ONCE(warm.done) && ktime_get_mono_fast_ns() < end)
		cpu_relax();

	return ret;
}

/* Once a chunk has its pkey, no CPU can write to it through a stale TLB entry. */
static void kpkeys_pgtable_cache_test_warm_tlb(struct kunit *test)
{
	struct page **pages;
	unsigned int nr, cpu;

	skip_if_running(test);
	migrate_disable();
	cpu = cpumask_any_but(cpu_online_mask, smp_processor_id());
	memset(&warm, 0, sizeof(warm));
	warm.task = cpu < nr_cpu_ids ? kthread_create(write_warm, NULL, "kpkeys-warm") :
		    ERR_PTR(-ENODEV);
	/* Drain last, or the worker refills the cache in the meantime. */
	pages = drain_all(test, &nr);
	if (!IS_ERR(warm.task)) {
		kthread_bind(warm.task, cpu);
		wake_up_process(warm.task);
		refill_test_replace(test, set_pkey_when_warm);
		pages[nr] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_set_pkey);
		kthread_stop(warm.task);
	}
	migrate_enable();
	free_all(pages, nr + 1);
	if (IS_ERR(warm.task))
		kunit_skip(test, "needs a second CPU");
	KUNIT_EXPECT_TRUE(test, warm.done);
	KUNIT_EXPECT_EQ(test, warm.ret, -EFAULT);
	expect_conserved(test);
}

/* A chunk whose pkey cannot be reset is neither used nor given back any more. */
static void kpkeys_pgtable_cache_test_give_back_fails(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page **pages;
	unsigned int nr;

	skip_if_running(test);
	pages = alloc_many(test, &nr);
	free_all(pages, nr);
	kpkeys_pgtable_cache_stats(&before);
	refill_test_replace(test, set_pkey_or_fail);
	split_first = false;
	fail_after = 1;
	kpkeys_pgtable_cache_shrink(1);
	fail_after = 0;
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_set_pkey);
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_GT(test, after.leaked, before.leaked);
	leaked_on_purpose += after.leaked - before.leaked;
	KUNIT_EXPECT_LT(test, after.cached, before.cached);
	expect_conserved(test);
}

static struct ptdesc *consumed[2];

/* As if splitting the chunk off took two tables, which is the maximum. */
static int set_pkey_and_consume(unsigned long addr, int nr, int pkey)
{
	int i, ret = refill_test_set_pkey(addr, nr, pkey);

	for (i = 0; i < ARRAY_SIZE(consumed); i++)
		consumed[i] = refill_test_take();

	return ret;
}

/* A refill replaces the pages that it takes out of the reserve. */
static void kpkeys_pgtable_cache_test_top_up(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats s;
	struct page **pages;
	unsigned int nr;
	int i;

	skip_if_running(test);
	pages = drain_all(test, &nr);

	refill_test_replace(test, set_pkey_and_consume);
	pages[nr++] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_set_pkey);
	kpkeys_pgtable_cache_stats(&s);
	KUNIT_EXPECT_EQ(test, s.reserved, REFILL_TEST_RESERVED);
	expect_conserved(test);

	for (i = 0; i < ARRAY_SIZE(consumed); i++) {
		KUNIT_EXPECT_NOT_NULL(test, consumed[i]);
		if (consumed[i])
			kpkeys_pgtable_cache_free(ptdesc_page(consumed[i]));
	}
	free_all(pages, nr);
	expect_conserved(test);
}

/* A page that is used again has no trace of its last use. */
static void kpkeys_pgtable_cache_test_recycled(struct kunit *test)
{
	struct ptdesc *ptdesc, *again;
	void *table;

	skip_if_running(test);
	ptdesc = pagetable_alloc(GFP_KERNEL, 0);
	KUNIT_ASSERT_NOT_NULL(test, ptdesc);
	KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);
	table = ptdesc_address(ptdesc);
	KUNIT_EXPECT_TRUE(test, pagetable_pte_ctor(current->mm, ptdesc));
	scoped_guard(kpkeys_hardened_pgtables)
		memset(table, 0xff, PAGE_SIZE);
	pagetable_dtor(ptdesc);
	/* The pointer to a lock that is too large for the page descriptor. */
	set_page_private(ptdesc_page(ptdesc), 1);
	pagetable_free(ptdesc);

	again = pagetable_alloc(GFP_KERNEL | __GFP_ZERO, 0);
	KUNIT_ASSERT_NOT_NULL(test, again);
	KUNIT_EXPECT_PTR_EQ(test, again, ptdesc);
	KUNIT_EXPECT_NULL(test, memchr_inv(ptdesc_address(again), 0, PAGE_SIZE));
	KUNIT_EXPECT_FALSE(test, PageTable(ptdesc_page(again)));
	KUNIT_ASSERT_EQ(test, page_private(ptdesc_page(again)), 0);
	KUNIT_EXPECT_TRUE(test, pagetable_pte_ctor(current->mm, again));
	pagetable_dtor_free(again);
}

#define NR_DIRTY	40

static void free_dirty(struct page **pages, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		scoped_guard(kpkeys_hardened_pgtables)
			memset(page_address(pages[i]), 0xff, PAGE_SIZE);
	}
	free_all(pages, nr);
}

/* Of the pages that are in use, or of those that are not. */
static unsigned int nr_not_zero(struct page **pages, unsigned int nr, bool used)
{
	unsigned int i, n = 0;

	for (i = 0; i < nr; i++) {
		if (kpkeys_pgtable_cache_in_use(pages[i]) == used)
			n += !!memchr_inv(page_address(pages[i]), 0, PAGE_SIZE);
	}

	return n;
}

/* init_on_alloc and init_on_free also apply to pages of the cache. */
static void kpkeys_pgtable_cache_test_init_on(struct kunit *test)
{
	bool on_alloc = want_init_on_alloc(GFP_KERNEL), on_free = want_init_on_free();
	struct page *pages[NR_DIRTY], **rest;
	unsigned int i, nr;

	skip_if_running(test);
	for (i = 0; i < NR_DIRTY; i++) {
		pages[i] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, pages[i]);
	}
	/* They stay free here, unless another task takes them. */
	migrate_disable();
	static_branch_enable(&init_on_free);
	free_dirty(pages, NR_DIRTY);
	KUNIT_EXPECT_EQ(test, nr_not_zero(pages, NR_DIRTY, false), 0);
	if (!on_free)
		static_branch_disable(&init_on_free);

	for (i = 0; i < NR_DIRTY; i++)
		pages[i] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	free_dirty(pages, NR_DIRTY);
	static_branch_enable(&init_on_alloc);
	for (i = 0; i < NR_DIRTY; i++)
		pages[i] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	KUNIT_EXPECT_EQ(test, nr_not_zero(pages, NR_DIRTY, true), 0);

	/* The last pages do not come from a magazine. */
	rest = drain_all(test, &nr);
	free_dirty(pages, 8);
	kpkeys_pgtable_cache_shrink(0);
	KUNIT_EXPECT_EQ(test, drain(pages, 8), 8);
	KUNIT_EXPECT_EQ(test, nr_not_zero(pages, 8, true), 0);
	if (!on_alloc)
		static_branch_disable(&init_on_alloc);
	migrate_enable();
	free_all(rest, nr);
	free_all(pages, NR_DIRTY);
	expect_conserved(test);
}

/* A page can be freed in any context. */
struct late_free {
	struct page *page;
	struct rcu_head rcu;
	struct irq_work irq_work;
	bool in_softirq;
};

static void free_by_rcu(struct rcu_head *rcu)
{
	struct late_free *f = container_of(rcu, struct late_free, rcu);

	f->in_softirq = in_serving_softirq();
	pagetable_free(page_ptdesc(f->page));
}

static void free_by_irq_work(struct irq_work *work)
{
	pagetable_free(page_ptdesc(container_of(work, struct late_free, irq_work)->page));
}

static void kpkeys_pgtable_cache_test_free_anywhere(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct late_free *f = kunit_kcalloc(test, 2, sizeof(*f), GFP_KERNEL);
	struct page *page[4];
	int i;

	KUNIT_ASSERT_NOT_NULL(test, f);
	kpkeys_pgtable_cache_stats(&before);
	for (i = 0; i < ARRAY_SIZE(page); i++) {
		struct ptdesc *ptdesc = pagetable_alloc(GFP_KERNEL, 0);

		KUNIT_ASSERT_NOT_NULL(test, ptdesc);
		page[i] = ptdesc_page(ptdesc);
	}

	if (IS_ENABLED(CONFIG_PREEMPT_RT)) {
		/* With PREEMPT_RT, the page allocator needs preemption and interrupts on. */
		pagetable_free(page_ptdesc(page[0]));
		pagetable_free(page_ptdesc(page[1]));
	} else {
		preempt_disable();
		pagetable_free(page_ptdesc(page[0]));
		preempt_enable();

		local_irq_disable();
		pagetable_free(page_ptdesc(page[1]));
		local_irq_enable();
	}

	f[0].page = page[2];
	call_rcu(&f[0].rcu, free_by_rcu);
	f[1].page = page[3];
	init_irq_work(&f[1].irq_work, free_by_irq_work);
	irq_work_queue(&f[1].irq_work);
	irq_work_sync(&f[1].irq_work);
	rcu_barrier();

	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_TRUE(test, f[0].in_softirq || IS_ENABLED(CONFIG_PREEMPT_RT));
	KUNIT_EXPECT_LE(test, after.in_use, before.in_use + 2);
	expect_conserved(test);
}

/* A shrinker that maps memory refills the cache, and lockdep does not complain. */
static void kpkeys_pgtable_cache_test_vmalloc_in_reclaim(struct kunit *test)
{
	unsigned int noreclaim, nofs, nr;
	struct page **pages;
	void *area[5];
	int i;

	skip_if_running(test);
	pages = drain_to_mark(test, &nr, 0);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	/* As __perform_reclaim(). */
	fs_reclaim_acquire(GFP_KERNEL);
	noreclaim = memalloc_noreclaim_save();
	nofs = memalloc_nofs_save();
	for (i = 0; i < ARRAY_SIZE(area); i++)
		area[i] = __vmalloc(600 * PAGE_SIZE, GFP_NOFS | __GFP_NOWARN);
	for (i = 0; i < ARRAY_SIZE(area); i++) {
		KUNIT_EXPECT_NOT_NULL(test, area[i]);
		vfree(area[i]);
	}
	memalloc_nofs_restore(nofs);
	memalloc_noreclaim_restore(noreclaim);
	fs_reclaim_release(GFP_KERNEL);
	free_all(pages, nr);
	expect_conserved(test);
}

#define FRAME_PAGES	BIT(ARCH_KPKEYS_PGTABLE_FRAME_ORDER)
#define NR_TABLES	(8 * FRAME_PAGES)

/* One page in a hundred stays in use. Nearly all others are given back. */
static void kpkeys_pgtable_cache_test_parts(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	unsigned int i, in_blocks = 0;
	struct page **pages;

	skip_if_running(test);
	pages = kunit_kcalloc(test, NR_TABLES, sizeof(*pages), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);
	for (i = 0; i < NR_TABLES; i++)
		pages[i] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	for (i = 0; i < NR_TABLES; i++) {
		unsigned long addr = pages[i] ? (unsigned long)page_address(pages[i]) : 0;

		if (i % 100 == 7) {
			if (addr && split_kernel_leaf_mapping_demand(addr, addr + PAGE_SIZE))
				in_blocks++;
		} else if (pages[i]) {
			kpkeys_pgtable_cache_free(pages[i]);
			pages[i] = NULL;
		}
	}
	kpkeys_pgtable_cache_stats(&before);
	/* 128 pages stay on each node, and less than one frame more. */
	KUNIT_EXPECT_GT(test, kpkeys_pgtable_cache_shrink(ULONG_MAX), (NR_TABLES - 128) / 2);
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_LE(test, after.cached, (FRAME_PAGES + 128) * num_node_state(N_MEMORY));
	KUNIT_EXPECT_LE(test, after.in_use, before.in_use + NR_TABLES / FRAME_PAGES + 1);
	KUNIT_EXPECT_EQ(test, after.moving, 0);
	/* Frames that are mapped by blocks were split for this. */
	if (in_blocks > 2 * FRAME_PAGES / 100)
		KUNIT_EXPECT_GT(test, after.splits, before.splits);
	for (i = 7; i < NR_TABLES; i += 100) {
		KUNIT_EXPECT_NOT_NULL(test, pages[i]);
		if (pages[i])
			KUNIT_EXPECT_EQ(test, probe(page_address(pages[i])), -EFAULT);
	}
	free_all(pages, NR_TABLES);
	expect_conserved(test);
}

/* A page that is freed twice is refused the second time, and is in the cache once. */
static void kpkeys_pgtable_cache_test_double_free(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page *page, *other;

	skip_if_running(test);
	page = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, page);
	kpkeys_pgtable_cache_stats(&before);
	KUNIT_EXPECT_TRUE(test, kpkeys_pgtable_cache_free(page));
	KUNIT_EXPECT_TRUE(test, kpkeys_pgtable_cache_free(page));
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_EQ(test, after.cached, before.cached + 1);
	KUNIT_EXPECT_EQ(test, after.mismatched, before.mismatched + 1);
	page = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	other = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	KUNIT_EXPECT_PTR_NE(test, page, other);
	free_all(&page, 1);
	free_all(&other, 1);
	expect_conserved(test);
}

/* A page that does not belong to the cache is left to the caller. */
static void kpkeys_pgtable_cache_test_not_ours(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page *page = alloc_page(GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, page);
	kpkeys_pgtable_cache_stats(&before);
	KUNIT_EXPECT_FALSE(test, kpkeys_pgtable_cache_owns(page));
	KUNIT_EXPECT_FALSE(test, kpkeys_pgtable_cache_free(page));
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_EQ(test, after.taken, before.taken);
	__free_page(page);
}

/* A poisoned page is not handed out any more, whether it was in use or free. */
static void kpkeys_pgtable_cache_test_poisoned(struct kunit *test)
{
#ifdef CONFIG_MEMORY_FAILURE
	struct kpkeys_pgtable_cache_stats before, after;
	struct page *broken[2], **pages;
	unsigned int i, nr, max;

	skip_if_running(test);
	kpkeys_pgtable_cache_stats(&before);
	max = before.cached + 100;
	pages = kunit_kcalloc(test, max, sizeof(*pages), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);
	for (i = 0; i < ARRAY_SIZE(broken); i++) {
		broken[i] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, broken[i]);
	}
	/* As after a memory error. The kernel can only mark the page. */
	memory_failure(page_to_pfn(broken[0]), MF_SW_SIMULATED);
	free_all(broken, ARRAY_SIZE(broken));
	memory_failure(page_to_pfn(broken[1]), MF_SW_SIMULATED);
	/* All pages, also those in the magazines of other CPUs. */
	migrate_disable();
	kpkeys_pgtable_cache_shrink(0);
	nr = drain(pages, max);
	migrate_enable();
	for (i = 0; i < nr; i++) {
		KUNIT_EXPECT_PTR_NE(test, pages[i], broken[0]);
		KUNIT_EXPECT_PTR_NE(test, pages[i], broken[1]);
	}
	free_all(pages, nr);
	kpkeys_pgtable_cache_stats(&after);
	KUNIT_EXPECT_EQ(test, after.poisoned, before.poisoned + 2);
	/* They still belong to the cache, which never uses them again. */
	for (i = 0; i < ARRAY_SIZE(broken); i++) {
		KUNIT_EXPECT_TRUE(test, PageHWPoison(broken[i]));
		KUNIT_EXPECT_TRUE(test, kpkeys_pgtable_cache_owns(broken[i]));
	}
	expect_conserved(test);
#else
	kunit_skip(test, "needs CONFIG_MEMORY_FAILURE");
#endif
}

/* Hibernation does not save PageOffline() pages, so state must not be in one. */
static void kpkeys_pgtable_cache_test_state_is_saved(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats s;
	unsigned long pfn, nr = 0;

	kpkeys_pgtable_cache_stats(&s);
	for (pfn = PHYS_PFN(memblock_start_of_DRAM());
	     pfn < PHYS_PFN(memblock_end_of_DRAM()); pfn++) {
		struct page *page = pfn_to_online_page(pfn);

		if (page && kpkeys_pgtable_cache_owns(page) && !PageTable(page) &&
		    !PageOffline(page))
			nr++;
	}
	/* Spare pages for the three levels of the index have no content yet. */
	KUNIT_EXPECT_GT(test, s.meta, 3);
	KUNIT_EXPECT_GE(test, nr, s.meta - 3);
}

#define NR_OF_NODE	100
#define NR_ORDERS	ARRAY_SIZE(((unsigned int [])ARCH_KPKEYS_PGTABLE_CHUNK_ORDERS))

/* The node from which the page allocator takes memory on this CPU. */
static int node_of_page_allocator(struct kunit *test)
{
	struct page *page = alloc_page(GFP_KERNEL);
	int nid;

	KUNIT_ASSERT_NOT_NULL(test, page);
	nid = page_to_nid(page);
	__free_page(page);

	return nid;
}

/*
 * Each CPU gets pages of its node, or of the nearest one with memory. They return to
 * that node, whichever CPU frees them.
 */
static void kpkeys_pgtable_cache_test_node(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct page **pages;
	int cpu, nid, i, n = 0;

	if (num_node_state(N_MEMORY) == 1)
		kunit_skip(test, "there is one node");
	pages = kunit_kcalloc(test, nr_cpu_ids * NR_OF_NODE, sizeof(*pages), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);
	for_each_online_cpu(cpu) {
		set_cpus_allowed_ptr(current, cpumask_of(cpu));
		nid = node_of_page_allocator(test);
		kpkeys_pgtable_cache_stats(&before);
		for (i = 0; i < NR_OF_NODE; i++, n++) {
			pages[n] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
			KUNIT_EXPECT_NOT_NULL(test, pages[n]);
			if (pages[n])
				KUNIT_EXPECT_EQ(test, page_to_nid(pages[n]), nid);
		}
		kpkeys_pgtable_cache_stats(&after);
		/* By chunks, and not page by page. */
		KUNIT_EXPECT_EQ(test, after.refills[NR_ORDERS - 1], before.refills[NR_ORDERS - 1]);
	}
	/* The last CPU frees all. Then each CPU gets pages of its own node again. */
	free_all(pages, n);
	for_each_online_cpu(cpu) {
		set_cpus_allowed_ptr(current, cpumask_of(cpu));
		nid = node_of_page_allocator(test);
		for (i = 0; i < NR_OF_NODE; i++) {
			pages[i] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
			if (pages[i])
				KUNIT_EXPECT_EQ(test, page_to_nid(pages[i]), nid);
		}
		free_all(pages, NR_OF_NODE);
	}
	expect_conserved(test);
}

#define NR_HERD		16

static DECLARE_COMPLETION(herd_start);
static atomic_t nr_chunks_taken;

struct herd {
	struct kunit *test;
	struct page *page;
	bool done;
};

static int herd(void *data)
{
	struct herd *h = data;

	/* The stubs of the test apply here, too. */
	current->kunit_test = h->test;
	/* A thread that starts gets the default affinity of kthreads. */
	set_cpus_allowed_ptr(current, node_cpus());
	wait_for_completion(&herd_start);
	h->page = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	current->kunit_test = NULL;
	WRITE_ONCE(h->done, true);
	while (!kthread_should_stop())
		schedule_timeout_uninterruptible(1);

	return 0;
}

/* Slow enough for all other tasks to find the cache empty, too. */
static struct page *alloc_slowly(gfp_t gfp, unsigned int order, int nid)
{
	struct page *page;

	schedule_timeout_uninterruptible(HZ / 20);
	page = alloc_pages_node(nid, gfp, order);
	if (page && order)
		atomic_inc(&nr_chunks_taken);

	return page;
}

/*
 * Many tasks find the cache empty at once. One takes a chunk, and the others wait. With
 * pages of 64kB, one chunk is not enough for the 16 pages that each CPU takes at once.
 */
static void kpkeys_pgtable_cache_test_herd(struct kunit *test)
{
	struct kpkeys_pgtable_cache_stats before, after;
	struct task_struct *t[NR_HERD];
	struct herd *h;
	struct page **pages;
	unsigned int nr, i, max;

	skip_if_running(test);
	/* The split of a chunk takes two of its pages at most. */
	max = DIV_ROUND_UP(16 * cpumask_weight_and(node_cpus(), cpu_online_mask),
			   FRAME_PAGES - 2);
	h = kunit_kcalloc(test, NR_HERD, sizeof(*h), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, h);
	reinit_completion(&herd_start);
	atomic_set(&nr_chunks_taken, 0);
	for (i = 0; i < NR_HERD; i++) {
		h[i].test = test;
		t[i] = kthread_create(herd, &h[i], "kpkeys-herd");
		KUNIT_ASSERT_FALSE(test, IS_ERR(t[i]));
		wake_up_process(t[i]);
	}
	pages = drain_to_mark(test, &nr, 0);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	kunit_activate_static_stub(test, kpkeys_pgtable_cache_alloc_pages, alloc_slowly);
	kpkeys_pgtable_cache_stats(&before);
	complete_all(&herd_start);
	for (i = 0; i < NR_HERD; i++) {
		while (!READ_ONCE(h[i].done))
			schedule_timeout_uninterruptible(1);
	}
	kpkeys_pgtable_cache_stats(&after);
	kunit_deactivate_static_stub(test, kpkeys_pgtable_cache_alloc_pages);
	KUNIT_EXPECT_GE(test, atomic_read(&nr_chunks_taken), 1);
	KUNIT_EXPECT_LE(test, atomic_read(&nr_chunks_taken), max);
	if (max == 1)
		KUNIT_EXPECT_EQ(test, after.refills[0], before.refills[0] + 1);
	for (i = 0; i < NR_HERD; i++) {
		kthread_stop(t[i]);
		KUNIT_EXPECT_NOT_NULL(test, h[i].page);
		free_all(&h[i].page, 1);
	}
	free_all(pages, nr);
	expect_conserved(test);
}

#define NR_THREADS	4

static int racer(void *data)
{
	struct page **pages = data;
	int round, i;

	for (round = 0; round < 20; round++) {
		void *area;

		for (i = 0; i < 200; i++)
			pages[i] = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
		area = vmalloc(PAGE_SIZE * 4);
		if (area && round & 1)
			set_memory_ro((unsigned long)area, 4);
		kpkeys_pgtable_cache_shrink(512);
		free_all(pages, 200);
		/* vfree() would leave the direct map alias of the pages read-only. */
		if (area)
			set_memory_rw((unsigned long)area, 4);
		vfree(area);
	}
	while (!kthread_should_stop())
		schedule_timeout_uninterruptible(1);

	return 0;
}

/* Refills, splits, frees and the shrinker race. */
static void kpkeys_pgtable_cache_test_race(struct kunit *test)
{
	struct task_struct *t[NR_THREADS];
	int i;

	for (i = 0; i < NR_THREADS; i++) {
		struct page **pages = kunit_kcalloc(test, 200, sizeof(*pages), GFP_KERNEL);

		KUNIT_ASSERT_NOT_NULL(test, pages);
		t[i] = kthread_run(racer, pages, "kpkeys-racer");
		KUNIT_ASSERT_FALSE(test, IS_ERR(t[i]));
	}
	for (i = 0; i < NR_THREADS; i++)
		kthread_stop(t[i]);
	expect_conserved(test);
}

static int kpkeys_pgtable_cache_test_init(struct kunit *test)
{
	if (!kpkeys_hardened_pgtables_enabled())
		kunit_skip(test, "page tables are not protected on this machine");
	/* Stay on one CPU: pages in the magazines of others would serve an empty cache. */
	set_cpus_allowed_ptr(current,
			     cpumask_of(cpumask_any_and(node_cpus(), cpu_online_mask)));

	return 0;
}

static struct kunit_case kpkeys_pgtable_cache_test_cases[] = {
	KUNIT_CASE(kpkeys_pgtable_cache_test_many),
	KUNIT_CASE(kpkeys_pgtable_cache_test_reserve),
	KUNIT_CASE(kpkeys_pgtable_cache_test_shrink),
	KUNIT_CASE(kpkeys_pgtable_cache_test_fullest_first),
	KUNIT_CASE(kpkeys_pgtable_cache_test_atomic),
	KUNIT_CASE(kpkeys_pgtable_cache_test_empty),
	KUNIT_CASE(kpkeys_pgtable_cache_test_memalloc),
	KUNIT_CASE(kpkeys_pgtable_cache_test_gfp),
	KUNIT_CASE(kpkeys_pgtable_cache_test_refill_fails),
	KUNIT_CASE(kpkeys_pgtable_cache_test_refill_fails_after_split),
	KUNIT_CASE(kpkeys_pgtable_cache_test_emergency),
	KUNIT_CASE(kpkeys_pgtable_cache_test_gives_up),
	KUNIT_CASE(kpkeys_pgtable_cache_test_no_memory),
	KUNIT_CASE(kpkeys_pgtable_cache_test_fragmented),
	KUNIT_CASE(kpkeys_pgtable_cache_test_singles),
	KUNIT_CASE(kpkeys_pgtable_cache_test_single_is_zero),
	KUNIT_CASE(kpkeys_pgtable_cache_test_single_fails),
	KUNIT_CASE(kpkeys_pgtable_cache_test_reserve_too_small),
	KUNIT_CASE(kpkeys_pgtable_cache_test_arguments),
	KUNIT_CASE(kpkeys_pgtable_cache_test_neighbour),
	KUNIT_CASE(kpkeys_pgtable_cache_test_reserve_just_enough),
	KUNIT_CASE(kpkeys_pgtable_cache_test_warm_tlb),
	KUNIT_CASE(kpkeys_pgtable_cache_test_give_back_fails),
	KUNIT_CASE(kpkeys_pgtable_cache_test_top_up),
	KUNIT_CASE(kpkeys_pgtable_cache_test_recycled),
	KUNIT_CASE(kpkeys_pgtable_cache_test_init_on),
	KUNIT_CASE(kpkeys_pgtable_cache_test_free_anywhere),
	KUNIT_CASE(kpkeys_pgtable_cache_test_vmalloc_in_reclaim),
	KUNIT_CASE(kpkeys_pgtable_cache_test_parts),
	KUNIT_CASE(kpkeys_pgtable_cache_test_double_free),
	KUNIT_CASE(kpkeys_pgtable_cache_test_not_ours),
	KUNIT_CASE(kpkeys_pgtable_cache_test_poisoned),
	KUNIT_CASE(kpkeys_pgtable_cache_test_state_is_saved),
	KUNIT_CASE(kpkeys_pgtable_cache_test_node),
	KUNIT_CASE(kpkeys_pgtable_cache_test_herd),
	KUNIT_CASE(kpkeys_pgtable_cache_test_race),
	{}
};

static struct kunit_suite kpkeys_pgtable_cache_test_suite = {
	.name = "kpkeys_pgtable_cache",
	.init = kpkeys_pgtable_cache_test_init,
	.test_cases = kpkeys_pgtable_cache_test_cases,
};

kunit_test_suite(kpkeys_pgtable_cache_test_suite);

MODULE_DESCRIPTION("KUnit tests of the cache of protected page-table pages");
MODULE_LICENSE("GPL");
