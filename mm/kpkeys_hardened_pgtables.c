// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page tables that are read-only outside of a kpkeys context: which pages are
 * protected, and when. Who writes them is the business of the architecture.
 */
#define pr_fmt(fmt) "kpkeys: " fmt

#include <linux/debugfs.h>
#include <linux/fail_pgtable.h>
#include <linux/init.h>
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/kpkeys_pgtable_cache.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/page_owner.h>
#include <linux/pagewalk.h>
#include <linux/set_memory.h>
#include <linux/vmstat.h>

#include <asm/kpkeys_hardened_pgtables.h>

#include <trace/events/kpkeys.h>

DEFINE_STATIC_KEY_FALSE(kpkeys_hardened_pgtables_key);
EXPORT_SYMBOL_GPL(kpkeys_hardened_pgtables_key);

/* Pages that are neither tables nor anybody else's. */
static atomic_long_t nr_leaked = ATOMIC_LONG_INIT(0);

static bool requested __ro_after_init = true;

/* Single pages come from the cache. */
static bool use_cache __ro_after_init;

/* "panic": a write that was stopped stops the machine. */
static bool panic_on_write __ro_after_init;

static int __init parse_hardened_pgtables(char *arg)
{
	panic_on_write = arg && !strcmp(arg, "panic");
	if (panic_on_write)
		return 0;

	return kstrtobool(arg, &requested);
}
early_param("kpkeys_hardened_pgtables", parse_hardened_pgtables);

/**
 * kpkeys_hardened_pgtables_requested() - has nobody switched the feature off?
 *
 * For the architecture, which decides with it how to make the direct map.
 *
 * Context: Any, once early parameters are parsed.
 * Return: true unless the command line says no.
 */
bool kpkeys_hardened_pgtables_requested(void)
{
	return requested;
}

/**
 * kpkeys_protect_pgtable() - make memory read-only that is to become a table
 * @table: direct map address of the memory, which no table entry points to yet.
 * @order: its size, as for the page allocator.
 *
 * pagetable_alloc() does this itself; it is for tables that exist already.
 * Whatever the outcome, the memory belongs to the caller.
 *
 * Context: As set_memory_pkey().
 * Return: 0, also if page tables are not protected; or an error, and then the
 *         memory must not become a table.
 */
int kpkeys_protect_pgtable(void *table, unsigned int order)
{
	int ret;

	if (!kpkeys_hardened_pgtables_enabled())
		return 0;

	ret = set_memory_pkey((unsigned long)table, 1 << order,
			      KPKEYS_PKEY_PGTABLES);
	if (ret)
		pr_warn_ratelimited("cannot protect a page table: %d\n", ret);

	return ret;
}

/* The order of a page can be forged. The pkey of a page of the cache is the cache's affair. */
static bool owns_one_of(void *table, unsigned int order)
{
	unsigned int i;

	for (i = 0; i < 1U << order; i++) {
		if (kpkeys_pgtable_cache_owns(virt_to_page(table + i * PAGE_SIZE)))
			return true;
	}

	return false;
}

/**
 * kpkeys_unprotect_pgtable() - make the memory of a former table ordinary again
 * @table: direct map address; no table entry and no TLB leads to it any more.
 * @order: its size, as for the page allocator.
 *
 * The counterpart of kpkeys_protect_pgtable().
 *
 * Context: As set_memory_pkey().
 * Return: 0; or an error, and then the memory still is read-only and must not be
 *         given to anybody else. It has been counted as leaked and reported.
 */
int kpkeys_unprotect_pgtable(void *table, unsigned int order)
{
	int ret;

	if (!kpkeys_hardened_pgtables_enabled())
		return 0;

	ret = owns_one_of(table, order) ? -EPERM :
	      set_memory_pkey((unsigned long)table, 1 << order, KPKEYS_PKEY_DEFAULT);
	if (ret) {
		atomic_long_add(1 << order, &nr_leaked);
		pr_warn_once("cannot make the memory of a page table writable again: %d; it is not used any more\n",
			     ret);
	}

	return ret;
}

/* What the page allocator would have done for @gfp, for a page of the cache. */
static struct page *alloc_cached(gfp_t gfp)
{
	struct page *page = kpkeys_pgtable_cache_alloc(gfp);

	if (!page)
		return NULL;

	if ((gfp & __GFP_ACCOUNT) && memcg_kmem_charge_page(page, gfp, 0)) {
		kpkeys_pgtable_cache_free(page);
		return NULL;
	}
	set_page_owner(page, 0, gfp);

	return page;
}

/**
 * kpkeys_pgtable_alloc() - allocate protected memory for a page table
 * @gfp:   as for alloc_pages().
 * @order: as for alloc_pages().
 *
 * What pagetable_alloc() does while page tables are protected.
 *
 * Context: As alloc_pages() and set_memory_pkey().
 * Return: pages that belong to the caller and go back by kpkeys_pgtable_free();
 *         or NULL. Pages that cannot be protected are not handed out.
 */
struct page *kpkeys_pgtable_alloc_noprof(gfp_t gfp, unsigned int order)
{
	struct page *page;

	if (should_fail_pgtable_alloc(gfp, order))
		return NULL;
	if (use_cache && !order)
		return alloc_cached(gfp);

	page = alloc_pages_noprof(gfp, order);
	if (!page)
		return NULL;

	if (kpkeys_protect_pgtable(page_address(page), order)) {
		/* It may have been done in part. */
		kpkeys_pgtable_free(page, order);
		return NULL;
	}

	return page;
}
EXPORT_SYMBOL_GPL(kpkeys_pgtable_alloc_noprof);

/**
 * kpkeys_pgtable_free() - free what kpkeys_pgtable_alloc() returned
 * @page:  the first page.
 * @order: its order.
 *
 * What __pagetable_free() does while page tables are protected. A page that
 * cannot be made writable again is leaked: the next user would take a fault on
 * it.
 *
 * Context: As set_memory_pkey().
 */
void kpkeys_pgtable_free(struct page *page, unsigned int order)
{
	if (use_cache && !order) {
		if (folio_memcg_kmem(page_folio(page)))
			memcg_kmem_uncharge_page(page, 0);
		reset_page_owner(page, 0);
		if (kpkeys_pgtable_cache_free(page))
			return;
	}

	if (!kpkeys_unprotect_pgtable(page_address(page), order))
		__free_pages(page, order);
}
EXPORT_SYMBOL_GPL(kpkeys_pgtable_free);

/**
 * kpkeys_may_become_pgtable() - is this a page that was set aside for a table?
 * @ptdesc: what a reserve says.
 *
 * Context: Any.
 * Return: true if it is; false if it must not become a table, which has been
 *         reported.
 */
bool kpkeys_may_become_pgtable(struct ptdesc *ptdesc)
{
	if (!use_cache || kpkeys_pgtable_cache_in_use(ptdesc_page(ptdesc)))
		return true;

	pr_err_ratelimited("pfn %#lx was not set aside for page tables, and does not become one\n",
			   page_to_pfn(ptdesc_page(ptdesc)));

	return false;
}

bool __kpkeys_may_map_pages(struct page **pages, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!arch_kpkeys_is_protected(page_address(pages[i])))
			continue;
		pr_err_ratelimited("pfn %#lx is one of page tables, and is not mapped once more\n",
				   page_to_pfn(pages[i]));
		return false;
	}

	return true;
}

/**
 * kpkeys_stopped_write() - was it a page table that could not be written?
 * @addr: where a write has faulted.
 * @pc:   the instruction.
 *
 * Counts and traces it, whether or not the fault is handled later.
 *
 * Context: Any; for the fault handler of the architecture.
 * Return: true if it was one.
 */
bool kpkeys_stopped_write(unsigned long addr, unsigned long pc)
{
	if (!kpkeys_hardened_pgtables_enabled() ||
	    !arch_kpkeys_is_protected((void *)addr))
		return false;

	count_vm_event(KPKEYS_WRITE_STOPPED);
	trace_kpkeys_write_stopped(addr, pc);

	return true;
}

/**
 * kpkeys_panic_on_stopped_write() - stop the machine, if that is wanted
 * @addr: where the write was, for which there is no fixup.
 *
 * Context: Any.
 */
void kpkeys_panic_on_stopped_write(unsigned long addr)
{
	if (panic_on_write)
		panic("kpkeys: write to a page table outside of a context, at %#lx\n", addr);
}

#ifdef CONFIG_KPKEYS_HARDENED_PGTABLES_DEBUG
/**
 * kpkeys_free_pages_ok() - may these pages go to the page allocator?
 * @page:  the first of them.
 * @order: their order.
 *
 * Context: Any.
 * Return: true if all of them are ordinary memory; false if the direct map has
 *         the pkey of page tables for one. That has been reported, and the pages
 *         must not be used any more.
 */
bool kpkeys_free_pages_ok(struct page *page, unsigned int order)
{
	unsigned int i;

	for (i = 0; i < 1U << order; i++) {
		if (!arch_kpkeys_is_protected(page_address(page + i)))
			continue;
		WARN_ONCE(1, "kpkeys: pfn %#lx is freed with the pkey of page tables\n",
			  page_to_pfn(page + i));
		atomic_long_add(1 << order, &nr_leaked);
		return false;
	}

	return true;
}
#endif

/*
 * The tables that exist already, by the entry of the level above that points to
 * them. The child of a folded level is in the page of its parent. The root is
 * not visited: those of the kernel are in .rodata.
 */
static int protect_early_table(void *child, void *parent, struct mm_walk *walk)
{
	unsigned long table = (unsigned long)child & PAGE_MASK;
	unsigned long *nr = walk->private;
	int ret;

	if (table == ((unsigned long)parent & PAGE_MASK))
		return 0;
	/* Setting what it has already would split the block it is in. */
	if (arch_kpkeys_is_protected((void *)table))
		return 0;

	ret = kpkeys_protect_pgtable((void *)table, 0);
	if (!ret)
		(*nr)++;

	return ret;
}

static int early_pgd_entry(pgd_t *pgdp, unsigned long addr, unsigned long next,
			   struct mm_walk *walk)
{
	return protect_early_table(p4d_offset(pgdp, addr), pgdp, walk);
}

static int early_p4d_entry(p4d_t *p4dp, unsigned long addr, unsigned long next,
			   struct mm_walk *walk)
{
	return protect_early_table(pud_offset(p4dp, addr), p4dp, walk);
}

static int early_pud_entry(pud_t *pudp, unsigned long addr, unsigned long next,
			   struct mm_walk *walk)
{
	if (pud_leaf(pudp_get(pudp)))
		return 0;

	return protect_early_table(pmd_offset(pudp, addr), pudp, walk);
}

static int early_pmd_entry(pmd_t *pmdp, unsigned long addr, unsigned long next,
			   struct mm_walk *walk)
{
	if (pmd_leaf(pmdp_get(pmdp)))
		return 0;

	return protect_early_table(pte_offset_kernel(pmdp, addr), pmdp, walk);
}

static const struct mm_walk_ops early_ops = {
	.pgd_entry	= early_pgd_entry,
	.p4d_entry	= early_p4d_entry,
	.pud_entry	= early_pud_entry,
	.pmd_entry	= early_pmd_entry,
};

/**
 * kpkeys_protect_kernel_pgtables() - protect the tables that exist already
 *
 * All that init_mm leads to and that are not protected: those from before the page
 * allocator, and those of a direct map that was just converted.
 *
 * Context: Boot.
 * Return: the number of tables, or the error of set_memory_pkey().
 */
long __init kpkeys_protect_kernel_pgtables(void)
{
	unsigned long start, end, nr = 0;
	int ret;

	if (!kpkeys_hardened_pgtables_enabled())
		return 0;

	arch_kpkeys_kernel_range(&start, &end);
	ret = walk_kernel_page_table_range_lockless(start, end, &early_ops,
						    NULL, &nr);

	return ret ?: nr;
}

/*
 * The table of where sections are interrupted. Threads are what is interrupted most:
 * it has a place for as many as there can be by default, see set_max_threads().
 */
static int __init init_table_of_windows(void)
{
	unsigned long nr = PFN_PHYS(totalram_pages()) / (THREAD_SIZE * 8);
	unsigned int order = min(get_order(nr * sizeof(long)), MAX_PAGE_ORDER);
	struct page *page = alloc_pages(GFP_KERNEL | __GFP_ZERO | __GFP_SKIP_KASAN, order);
	int ret;

	if (!page)
		return -ENOMEM;
	ret = kpkeys_protect_pgtable(page_address(page), order);
	if (!ret)
		kpkeys_table_init(page_address(page), PAGE_SIZE << order);

	return ret;
}

/**
 * kpkeys_hardened_pgtables_init() - from now on, page tables are read-only
 *
 * Does nothing on a machine without kpkeys. On one that has them a table which
 * cannot be protected stops the boot: nobody would notice it later.
 *
 * Context: Boot, with the page allocator and static keys, before the first
 *          secondary CPU is online.
 */
void __init kpkeys_hardened_pgtables_init(void)
{
	long nr;
	int ret;

	if (!arch_kpkeys_hardened_pgtables())
		return;
	if (!arch_supports_kpkeys())
		panic("kpkeys: the direct map was made for protected page tables, but there are no kpkeys\n");

	/*
	 * Writers first, tables second: in between the windows are opened for
	 * nothing. Tables that are allocated from here on are protected at once,
	 * so that the walk sees all others.
	 */
	static_branch_enable(&kpkeys_hardened_pgtables_key);

	ret = kpkeys_pgtable_cache_init();
	if (ret)
		panic("kpkeys: no memory can be set aside for page tables: %d\n", ret);
	use_cache = true;

	ret = init_table_of_windows();
	if (ret)
		panic("kpkeys: no table of interrupted sections: %d\n", ret);

	nr = kpkeys_protect_kernel_pgtables();
	ret = nr < 0 ? nr : arch_kpkeys_protect_image_pgtables();
	if (ret)
		panic("kpkeys: early page tables cannot be protected: %d\n", ret);

	pr_info("page tables are read-only, %ld from before, direct map of %s\n",
		nr, arch_kpkeys_must_split() ? "blocks" : "pages");
}

static int leaked_get(void *data, u64 *val)
{
	*val = atomic_long_read(&nr_leaked);

	return 0;
}

DEFINE_DEBUGFS_ATTRIBUTE(leaked_fops, leaked_get, NULL, "%llu\n");

static int __init kpkeys_hardened_pgtables_late_init(void)
{
	if (kpkeys_hardened_pgtables_enabled())
		debugfs_create_file_unsafe("kpkeys_pgtable_leaked", 0400, NULL,
					   NULL, &leaked_fops);

	return 0;
}
late_initcall(kpkeys_hardened_pgtables_late_init);
