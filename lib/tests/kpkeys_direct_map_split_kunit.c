// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of splitting live kernel mappings. A block can be split only once,
 * so most tests use a window of vmalloc space. Two adjacent blocks there map the
 * same memory, and are mapped again for each split. They are as large as the page
 * size allows: PUD blocks with 4K pages, else PMD blocks.
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>

#include <linux/cpu.h>
#include <linux/kthread.h>
#include <linux/memblock.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/pgalloc.h>
#include <linux/random.h>
#include <linux/set_memory.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include <asm/mmu.h>

#include "kpkeys_split_test.h"

#define WINDOW_BLOCKS	2
#define HAMMER_RANGES	100

/* Each takes a few milliseconds in an emulator. */
static unsigned int hammer_ranges = HAMMER_RANGES;
module_param(hammer_ranges, uint, 0644);
MODULE_PARM_DESC(hammer_ranges, "how many ranges the hammer splits, 100 at least");

static struct window {
	struct vm_struct *area;	/* NULL: there is not enough memory */
	unsigned long base;	/* block aligned */
	phys_addr_t phys;	/* block aligned, all of it memory */
} window;

static unsigned long block_size(void)
{
	return pud_sect_supported() ? PUD_SIZE : PMD_SIZE;
}

/* What splitting at a page in the middle of a block takes. */
static unsigned int block_tables(void)
{
	return pud_sect_supported() ? 2 : 1;
}

static pud_t *window_pud(struct window *w, int i)
{
	unsigned long addr = w->base + i * block_size();

	return pud_offset(p4d_offset(pgd_offset_k(addr), addr), addr);
}

static pmd_t *window_pmd(struct window *w, int i)
{
	return pmd_offset(window_pud(w, i), w->base + i * block_size());
}

static bool window_is_block(struct window *w, int i)
{
	return pud_sect_supported() ? pud_leaf(pudp_get(window_pud(w, i))) :
				      pmd_leaf(pmdp_get(window_pmd(w, i)));
}

/* Map the window with the largest blocks that are possible. */
static void window_map(struct kunit *test)
{
	struct window *w = test->priv;
	int i;

	vunmap_range(w->base, w->base + WINDOW_BLOCKS * block_size());
	for (i = 0; i < WINDOW_BLOCKS; i++) {
		unsigned long addr = w->base + i * block_size();

		KUNIT_ASSERT_EQ(test, vmap_page_range(addr, addr + block_size(), w->phys,
						      PAGE_KERNEL), 0);
		KUNIT_ASSERT_TRUE(test, window_is_block(w, i));
	}
}

static unsigned int window_tables(struct kunit *test)
{
	struct window *w = test->priv;
	unsigned int nr = 0;
	int i, n;

	for (i = 0; i < WINDOW_BLOCKS; i++) {
		pmd_t *pmdp;

		if (window_is_block(w, i))
			continue;
		nr++;
		if (!pud_sect_supported())
			continue;
		pmdp = window_pmd(w, i);
		for (n = 0; n < PTRS_PER_PMD; n++)
			nr += !pmd_leaf(pmdp_get(&pmdp[n]));
	}

	return nr;
}

/* Is @addr at a boundary of leaves, and does its PTE, if it has one, map the right page? */
static bool window_is_split_at(struct kunit *test, unsigned long addr)
{
	struct window *w = test->priv;
	pud_t *pudp = pud_offset(p4d_offset(pgd_offset_k(addr), addr), addr);
	pmd_t *pmdp, pmd;
	pte_t pte;

	if (addr >= w->base + WINDOW_BLOCKS * block_size() || IS_ALIGNED(addr, block_size()))
		return true;
	if (pud_leaf(pudp_get(pudp)))
		return false;
	pmdp = pmd_offset(pudp, addr);
	pmd = pmdp_get(pmdp);
	if (pmd_leaf(pmd))
		return IS_ALIGNED(addr, PMD_SIZE) &&
		       (!pmd_cont(pmd) || IS_ALIGNED(addr, CONT_PMD_SIZE));
	pte = __ptep_get(pte_offset_kernel(pmdp, addr));

	return PFN_PHYS(pte_pfn(pte)) == w->phys + (addr & (block_size() - 1)) &&
	       (!pte_cont(pte) || IS_ALIGNED(addr, CONT_PTE_SIZE));
}

/* Split, and check the prediction. @start and @end are offsets from the base. */
static void expect_split(struct kunit *test, unsigned long start,
			 unsigned long end, unsigned int demand)
{
	struct window *w = test->priv;
	unsigned int before = window_tables(test);

	start += w->base;
	end += w->base;
	KUNIT_EXPECT_EQ(test, split_kernel_leaf_mapping_demand(start, end), demand);
	KUNIT_EXPECT_EQ(test, split_kernel_leaf_mapping(start, end), 0);
	KUNIT_EXPECT_EQ(test, window_tables(test) - before, demand);
	KUNIT_EXPECT_TRUE(test, window_is_split_at(test, start));
	KUNIT_EXPECT_TRUE(test, window_is_split_at(test, end));
}

static void kpkeys_split_test_demand(struct kunit *test)
{
	unsigned long block = block_size();
	unsigned int tables = block_tables();

	/* Nothing to split: the boundaries exist. */
	window_map(test);
	expect_split(test, 0, block, 0);
	expect_split(test, 0, 2 * block, 0);

	/* One page, and then its neighbour. */
	window_map(test);
	expect_split(test, PAGE_SIZE, 2 * PAGE_SIZE, tables);
	expect_split(test, 2 * PAGE_SIZE, 3 * PAGE_SIZE, 0);

	/* Both boundaries in one PMD block. */
	window_map(test);
	expect_split(test, PAGE_SIZE, PMD_SIZE - PAGE_SIZE, tables);

	/* In different blocks: the most that a range can take. */
	window_map(test);
	expect_split(test, block - PAGE_SIZE, block + PAGE_SIZE, 2 * tables);

	if (!pud_sect_supported())
		return;

	/* One boundary, between PMDs. */
	window_map(test);
	expect_split(test, 0, PMD_SIZE, 1);
	expect_split(test, 0, PMD_SIZE, 0);

	/* In different PMD blocks of one PUD block. */
	window_map(test);
	expect_split(test, PAGE_SIZE, PMD_SIZE + PAGE_SIZE, 3);

	/* Between PMDs and in the middle of one. */
	window_map(test);
	expect_split(test, PMD_SIZE, 3 * PMD_SIZE + PAGE_SIZE, 2);
}

/* A contiguous hint is cleared by writing entries, which takes no page. */
static void kpkeys_split_test_cont(struct kunit *test)
{
	struct window *w = test->priv;
	unsigned long addr = CONT_PTE_SIZE + PAGE_SIZE;
	pmd_t *pmdp;
	pte_t *ptep;

	window_map(test);
	expect_split(test, 0, CONT_PTE_SIZE, block_tables());
	ptep = pte_offset_kernel(window_pmd(w, 0), w->base + addr);
	KUNIT_ASSERT_TRUE(test, pte_cont(__ptep_get(ptep)));
	expect_split(test, 0, addr, 0);
	KUNIT_EXPECT_FALSE(test, pte_cont(__ptep_get(ptep)));

	if (!pud_sect_supported())
		return;

	window_map(test);
	addr = CONT_PMD_SIZE + PMD_SIZE;
	expect_split(test, 0, PUD_SIZE / 2, 1);
	pmdp = pmd_offset(window_pud(w, 0), w->base + addr);
	KUNIT_ASSERT_TRUE(test, pmd_cont(pmdp_get(pmdp)));
	expect_split(test, 0, addr, 0);
	KUNIT_EXPECT_FALSE(test, pmd_cont(pmdp_get(pmdp)));
}

/*
 * Another CPU has cleared the hint of half of a group. A split in the second half
 * must wait for it, or both would write the same entries.
 */
static void kpkeys_split_test_cont_in_progress(struct kunit *test)
{
	struct window *w = test->priv;
	unsigned long start = w->base + CONT_PTE_SIZE;
	pmd_t *pmdp;
	pte_t *ptep;
	int i;

	window_map(test);
	expect_split(test, 0, CONT_PTE_SIZE, block_tables());
	pmdp = window_pmd(w, 0);
	ptep = pte_offset_kernel(pmdp, start);
	for (i = 0; i < CONT_PTES / 2; i++)
		__set_pte(&ptep[i], pte_mknoncont(__ptep_get(&ptep[i])));
	KUNIT_ASSERT_TRUE(test, pte_cont(__ptep_get(&ptep[CONT_PTES - 1])));
	KUNIT_EXPECT_EQ(test, split_kernel_leaf_mapping(start + (CONT_PTES / 2 - 1) * PAGE_SIZE,
							start + CONT_PTE_SIZE), 0);
	KUNIT_EXPECT_FALSE(test, pte_cont(__ptep_get(&ptep[CONT_PTES - 1])));

	if (!pud_sect_supported())
		return;

	pmdp += CONT_PMDS;
	start = w->base + CONT_PMD_SIZE;
	for (i = 0; i < CONT_PMDS / 2; i++)
		set_pmd(&pmdp[i], pmd_mknoncont(pmdp_get(&pmdp[i])));
	KUNIT_ASSERT_TRUE(test, pmd_cont(pmdp_get(&pmdp[CONT_PMDS - 1])));
	KUNIT_EXPECT_EQ(test, split_kernel_leaf_mapping(start + (CONT_PMDS / 2 - 1) * PMD_SIZE,
							start + CONT_PMD_SIZE), 0);
	KUNIT_EXPECT_FALSE(test, pmd_cont(pmdp_get(&pmdp[CONT_PMDS - 1])));
}

/* Random ranges across the boundary in the middle, where the demand is highest. */
static void kpkeys_split_test_hammer(struct kunit *test)
{
	unsigned int most = 2 * block_tables();
	unsigned long block = block_size();
	unsigned int nr[5] = { };
	unsigned int ranges = max(hammer_ranges, HAMMER_RANGES);
	unsigned int i;

	for (i = 0; i < ranges; i++) {
		unsigned long below = get_random_u32_inclusive(1, block / PAGE_SIZE - 1);
		unsigned long above = get_random_u32_inclusive(1, block / PAGE_SIZE - 1);
		unsigned long start = block - below * PAGE_SIZE;
		unsigned long end = block + above * PAGE_SIZE;
		struct window *w = test->priv;
		unsigned int demand;

		/* Every other time, both are in the lower block. */
		if (i & 1)
			end = start + min(above, below) * PAGE_SIZE;
		window_map(test);
		demand = split_kernel_leaf_mapping_demand(w->base + start,
							  w->base + end);
		KUNIT_ASSERT_LE(test, demand, most);
		nr[demand]++;
		expect_split(test, start, end, demand);
	}
	kunit_info(test, "splits by demand: %u %u %u %u %u\n",
		   nr[0], nr[1], nr[2], nr[3], nr[4]);
	/* About a quarter, and half of them. */
	KUNIT_EXPECT_GT(test, nr[most - 1], ranges / 16);
	KUNIT_EXPECT_GT(test, nr[most], ranges / 4);
}

static unsigned int allocations_left;

static struct ptdesc *alloc_or_fail(void)
{
	if (!allocations_left)
		return NULL;
	allocations_left--;

	return split_test_real_alloc();
}

/* Out of memory at each step: -ENOMEM, and nothing has changed. */
static void kpkeys_split_test_no_memory(struct kunit *test)
{
	struct window *w = test->priv;
	unsigned long start = w->base + block_size() - PAGE_SIZE;
	unsigned long end = w->base + block_size() + PAGE_SIZE;
	unsigned int most = 2 * block_tables();
	unsigned int n;

	window_map(test);
	kunit_activate_static_stub(test, split_test_alloc, alloc_or_fail);
	for (n = 0; n < most; n++) {
		allocations_left = n;
		KUNIT_EXPECT_EQ(test, split_kernel_leaf_mapping(start, end), -ENOMEM);
		KUNIT_EXPECT_EQ(test, window_tables(test), 0);
	}
	allocations_left = most;
	KUNIT_EXPECT_EQ(test, split_kernel_leaf_mapping(start, end), 0);
	KUNIT_EXPECT_EQ(test, window_tables(test), most);

	/* Without demand there is no allocation that could fail. */
	KUNIT_EXPECT_EQ(test, split_kernel_leaf_mapping(start, end), 0);
}

/* A page of the direct map is unmapped and mapped again; its neighbours stay. */
static void kpkeys_split_test_direct_map(struct kunit *test)
{
	struct page *page = alloc_pages(GFP_KERNEL, 2);
	char *addr, byte;
	int i;

	KUNIT_ASSERT_NOT_NULL(test, page);
	addr = page_address(page);
	KUNIT_EXPECT_EQ(test, set_direct_map_invalid_noflush(page + 1), 0);
	flush_tlb_kernel_range((unsigned long)addr, (unsigned long)addr + 4 * PAGE_SIZE);
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ(test, copy_from_kernel_nofault(&byte, addr + i * PAGE_SIZE, 1),
				i == 1 ? -EFAULT : 0);
	KUNIT_EXPECT_EQ(test, set_direct_map_default_noflush(page + 1), 0);
	KUNIT_EXPECT_EQ(test, copy_from_kernel_nofault(&byte, addr + PAGE_SIZE, 1), 0);
	__free_pages(page, 2);
}

#define HAMMER_THREADS	4
#define HAMMER_ROUNDS	40
/* All are kept until the end. Larger ones would use up memory with 64K pages. */
#define HAMMER_ORDER	get_order(SZ_4M)

struct hammer {
	struct kunit *test;
	/* Keep it, or the next one might be in memory that is split already. */
	struct page *page[HAMMER_ROUNDS];
	unsigned int order[HAMMER_ROUNDS];
	unsigned int done;		/* ranges taken out and put back */
	unsigned int no_memory;		/* refused, with nothing changed */
	unsigned int wrong;
};

static atomic_t allocations;

/* Every 8th allocation of a page table fails. */
static struct ptdesc *alloc_or_fail_at_times(void)
{
	if (!(atomic_inc_return(&allocations) % 8))
		return NULL;

	return split_test_real_alloc();
}

/* Are @nr pages from @first on not mapped, and all others of the 2^@order? */
static bool only_these_are_unmapped(struct page *page, unsigned int order,
				    unsigned int first, unsigned int nr)
{
	unsigned int i;
	char byte;

	for (i = 0; i < 1U << order; i++) {
		int want = i >= first && i < first + nr ? -EFAULT : 0;

		if (copy_from_kernel_nofault(&byte, page_address(page + i), 1) != want)
			return false;
	}

	return true;
}

static void hammer_once(struct hammer *h, struct page *page, unsigned int order)
{
	unsigned int first = get_random_u32_below(1U << order);
	unsigned int nr = 1 + get_random_u32_below((1U << order) - first);
	unsigned long addr = (unsigned long)page_address(page + first);
	int ret;

	ret = set_direct_map_valid_noflush(page + first, nr, false);
	flush_tlb_kernel_range(addr, addr + nr * PAGE_SIZE);
	if (ret) {
		if (ret != -ENOMEM || !only_these_are_unmapped(page, order, 0, 0))
			h->wrong++;
		h->no_memory++;
		return;
	}
	if (!only_these_are_unmapped(page, order, first, nr))
		h->wrong++;
	/* The boundaries exist, so this cannot fail. */
	if (set_direct_map_valid_noflush(page + first, nr, true) ||
	    !only_these_are_unmapped(page, order, 0, 0))
		h->wrong++;
	h->done++;
}

static int hammer_fn(void *data)
{
	struct hammer *h = data;
	int i;

	current->kunit_test = h->test;	/* for the stub */
	for (i = 0; i < HAMMER_ROUNDS; i++) {
		h->order[i] = get_random_u32_below(HAMMER_ORDER + 1);
		h->page[i] = alloc_pages(GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY,
					 h->order[i]);
		if (h->page[i])
			hammer_once(h, h->page[i], h->order[i]);
		cond_resched();
	}
	while (i--) {
		if (h->page[i])
			__free_pages(h->page[i], h->order[i]);
	}
	current->kunit_test = NULL;
	while (!kthread_should_stop())
		schedule_timeout_uninterruptible(1);

	return 0;
}

/*
 * Split random ranges of the direct map concurrently, while allocations of page
 * tables fail and CPUs are unplugged.
 */
static void kpkeys_split_test_direct_map_hammer(struct kunit *test)
{
	unsigned int done = 0, no_memory = 0, wrong = 0;
	struct task_struct *t[HAMMER_THREADS];
	struct hammer *h;
	int i, cpu;

	h = kunit_kcalloc(test, HAMMER_THREADS, sizeof(*h), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, h);
	kunit_activate_static_stub(test, split_test_alloc, alloc_or_fail_at_times);
	for (i = 0; i < HAMMER_THREADS; i++) {
		h[i].test = test;
		t[i] = kthread_run(hammer_fn, &h[i], "kpkeys-hammer");
		KUNIT_ASSERT_FALSE(test, IS_ERR(t[i]));
	}
	if (IS_ENABLED(CONFIG_HOTPLUG_CPU)) {
		for_each_present_cpu(cpu) {
			if (cpu > 0 && !remove_cpu(cpu))
				KUNIT_EXPECT_EQ(test, add_cpu(cpu), 0);
		}
	}
	for (i = 0; i < HAMMER_THREADS; i++) {
		kthread_stop(t[i]);
		done += h[i].done;
		no_memory += h[i].no_memory;
		wrong += h[i].wrong;
	}
	kunit_deactivate_static_stub(test, split_test_alloc);
	kunit_info(test, "ranges of the direct map: %u, of which out of memory: %u; page tables: %d\n",
		   done + no_memory, no_memory, atomic_read(&allocations));
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_GT(test, done, HAMMER_ROUNDS);
}

/* Only once for all tests, as KASAN needs a long time to create the shadow of the area. */
static int kpkeys_split_test_suite_init(struct kunit_suite *suite)
{
	unsigned long block = block_size();
	phys_addr_t phys = ALIGN(memblock_start_of_DRAM(), block);

	if (!pfn_is_map_memory(PHYS_PFN(phys)) ||
	    phys + block > memblock_end_of_DRAM())
		return 0;

	window.area = __get_vm_area_caller((WINDOW_BLOCKS + 1) * block, VM_IOREMAP,
					   VMALLOC_START, VMALLOC_END,
					   __builtin_return_address(0));
	if (!window.area)
		return -ENOMEM;
	window.base = ALIGN((unsigned long)window.area->addr, block);
	window.phys = phys;

	return 0;
}

static void kpkeys_split_test_suite_exit(struct kunit_suite *suite)
{
	if (window.area)
		free_vm_area(window.area);
	window.area = NULL;
}

static int kpkeys_split_test_init(struct kunit *test)
{
	if (!window.area)
		kunit_skip(test, "not enough memory for a block");

	test->priv = &window;
	window_map(test);
	if (split_kernel_leaf_mapping(window.base, window.base + PAGE_SIZE) ||
	    !window_tables(test))
		kunit_skip(test, "kernel mappings are not split on this machine");

	return 0;
}

static void kpkeys_split_test_exit(struct kunit *test)
{
	if (window.area)
		vunmap_range(window.base, window.base + WINDOW_BLOCKS * block_size());
}

/* Nothing smaller than a page is split off. */
static void kpkeys_split_test_unaligned(struct kunit *test)
{
	struct window *w = test->priv;

	window_map(test);
	KUNIT_EXPECT_EQ(test, split_kernel_leaf_mapping(w->base + 8, w->base + PAGE_SIZE), -EINVAL);
	KUNIT_EXPECT_EQ(test, split_kernel_leaf_mapping(w->base, w->base + 8), -EINVAL);
	KUNIT_EXPECT_EQ(test, window_tables(test), 0);
}

static struct kunit_case kpkeys_split_test_cases[] = {
	KUNIT_CASE(kpkeys_split_test_demand),
	KUNIT_CASE(kpkeys_split_test_cont),
	KUNIT_CASE(kpkeys_split_test_unaligned),
	KUNIT_CASE(kpkeys_split_test_cont_in_progress),
	KUNIT_CASE_SLOW(kpkeys_split_test_hammer),
	KUNIT_CASE(kpkeys_split_test_no_memory),
	KUNIT_CASE(kpkeys_split_test_direct_map),
	KUNIT_CASE(kpkeys_split_test_direct_map_hammer),
	{}
};

static struct kunit_suite kpkeys_split_test_suite = {
	.name = "kpkeys_direct_map_split",
	.suite_init = kpkeys_split_test_suite_init,
	.suite_exit = kpkeys_split_test_suite_exit,
	.init = kpkeys_split_test_init,
	.exit = kpkeys_split_test_exit,
	.test_cases = kpkeys_split_test_cases,
};

kunit_test_suite(kpkeys_split_test_suite);

MODULE_DESCRIPTION("KUnit tests of splitting kernel mappings");
MODULE_LICENSE("GPL");
