// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page tables that are read-only outside of a kpkeys context: which pages are
 * protected, and when. The architecture writes page tables.
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

/* Pages that could not be made writable again, and are not used any more. */
static atomic_long_t nr_leaked = ATOMIC_LONG_INIT(0);

static bool requested __ro_after_init = true;

/* Single pages come from the cache. */
static bool use_cache __ro_after_init;

/* Panic if a write to a page table was stopped, or a root refused. */
static bool panic_on_write __ro_after_init;

static int __init parse_hardened_pgtables(char *arg)
{
	panic_on_write = arg && !strcmp(arg, "panic");
	if (panic_on_write) {
		requested = true;
		return 0;
	}

	return kstrtobool(arg, &requested);
}
early_param("kpkeys_hardened_pgtables", parse_hardened_pgtables);

/**
 * kpkeys_hardened_pgtables_requested() - is the feature wanted?
 *
 * For the architecture, which then decides how to create the direct map.
 *
 * Context: Any, once early parameters are parsed.
 * Return: false if the feature is switched off on the command line.
 */
bool kpkeys_hardened_pgtables_requested(void)
{
	return requested;
}

/**
 * kpkeys_protect_pgtable() - make the memory of a page table read-only
 * @table: direct map address of the memory.
 * @order: its order.
 *
 * pagetable_alloc() does this itself. This function is for page tables from
 * elsewhere. The memory belongs to the caller, before and after.
 *
 * Context: As set_memory_pkey().
 * Return: 0, also if page tables are not protected; or an error, and the memory
 *         must not become a page table.
 */
int kpkeys_protect_pgtable(void *table, unsigned int order)
{
	int ret;

	if (!kpkeys_hardened_pgtables_enabled())
		return 0;

	ret = set_memory_pkey((unsigned long)table, 1 << order,
			      KPKEYS_PKEY_PGTABLES);
	if (ret)
		pr_warn_ratelimited("Failed to protect a page table: %d\n", ret);

	return ret;
}

/* The order of a page can be forged. Only the cache changes the pkey of its pages. */
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
 * kpkeys_unprotect_pgtable() - make the memory of a former page table writable
 * @table: direct map address. No entry and no TLB refers to the table any more.
 * @order: its order.
 *
 * The counterpart of kpkeys_protect_pgtable().
 *
 * Context: As set_memory_pkey().
 * Return: 0; or an error, and the memory is still read-only and must not be freed.
 *         It has been reported, and counted as leaked.
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
		pr_warn_once("Failed to make a former page table writable: %d, leaking it\n",
			     ret);
	}

	return ret;
}

/* Charge a page of the cache, and record its owner, as the page allocator does. */
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
 * pagetable_alloc() calls this while page tables are protected.
 *
 * Context: As alloc_pages() and set_memory_pkey().
 * Return: pages that the caller frees with kpkeys_pgtable_free(); or NULL, also if
 *         pages could not be protected.
 */
struct page *kpkeys_pgtable_alloc_noprof(gfp_t gfp, unsigned int order)
{
	struct page *page;

	if (should_fail_pgtable_alloc(gfp, order))
		return NULL;
	if (use_cache && !order)
		return alloc_cached(gfp);
	/* Protecting a page may split a block, and so allocate another page. */
	if (!order && WARN_ON_ONCE(arch_kpkeys_must_split()))
		return NULL;

	page = alloc_pages_noprof(gfp, order);
	if (!page)
		return NULL;

	if (kpkeys_protect_pgtable(page_address(page), order)) {
		/* Some of the pages may be protected. */
		kpkeys_pgtable_free(page, order);
		return NULL;
	}

	return page;
}
EXPORT_SYMBOL_GPL(kpkeys_pgtable_alloc_noprof);

/**
 * kpkeys_pgtable_free() - free pages of kpkeys_pgtable_alloc()
 * @page:  the first page.
 * @order: the order of the pages.
 *
 * __pagetable_free() calls this while page tables are protected. A page that
 * cannot be made writable again is leaked, since its next owner would fault.
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
		/* Freeing it resets the owner once more. */
		set_page_owner(page, 0, 0);
	}

	if (!kpkeys_unprotect_pgtable(page_address(page), order))
		__free_pages(page, order);
}
EXPORT_SYMBOL_GPL(kpkeys_pgtable_free);

/**
 * kpkeys_may_become_pgtable() - was this page set aside for a page table?
 * @ptdesc: the page, from a split reserve.
 *
 * Context: Any.
 * Return: true if it was; otherwise false, and this has been reported.
 */
bool kpkeys_may_become_pgtable(struct ptdesc *ptdesc)
{
	if (!use_cache || kpkeys_pgtable_cache_in_use(ptdesc_page(ptdesc)))
		return true;

	pr_err_ratelimited("Refused pfn %#lx for a split, it was not set aside for page tables\n",
			   page_to_pfn(ptdesc_page(ptdesc)));

	return false;
}

bool __kpkeys_may_map_pages(struct page **pages, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!arch_kpkeys_is_protected(page_address(pages[i])))
			continue;
		pr_err_ratelimited("Refused to map pfn %#lx once more, it is a page table\n",
				   page_to_pfn(pages[i]));
		return false;
	}

	return true;
}

/**
 * kpkeys_stopped_write() - did a write to a page table fault?
 * @addr: the address of a write that faulted.
 * @pc:   the instruction.
 *
 * For the fault handler of the architecture. Counts and traces such a write, whether
 * or not the fault is handled later.
 *
 * Context: Any.
 * Return: true if @addr is in a page table.
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
 * kpkeys_panic_on_stopped_write() - panic, if the command line asks for it
 * @addr: the address of a write that was stopped and has no fixup.
 *
 * Context: Any.
 */
void kpkeys_panic_on_stopped_write(unsigned long addr)
{
	if (panic_on_write)
		panic("kpkeys: write to a page table outside of a context, at %#lx\n", addr);
}

/**
 * kpkeys_add_root() - a table becomes the root of a user address space
 * @table: a page of pagetable_alloc().
 *
 * Context: Any.
 * Return: true if kpkeys_is_root() is true from now on.
 */
bool kpkeys_add_root(void *table)
{
	return !kpkeys_hardened_pgtables_enabled() ||
	       kpkeys_pgtable_cache_add_root(virt_to_page(table));
}

/**
 * kpkeys_del_root() - a table is about to be freed, and was a root
 * @table: what mm->pgd says. It may be forged.
 *
 * Context: Any.
 * Return: true if it may be freed; false if it is not a root. This has been reported.
 */
bool kpkeys_del_root(void *table)
{
	if (!kpkeys_hardened_pgtables_enabled() ||
	    (PAGE_ALIGNED(table) && kpkeys_pgtable_cache_del_root(virt_to_page(table))))
		return true;

	kpkeys_refuse_root(table);

	return false;
}

bool __kpkeys_is_root(const void *table)
{
	return PAGE_ALIGNED(table) && kpkeys_pgtable_cache_is_root(PHYS_PFN(__pa(table)));
}

/**
 * kpkeys_refuse_root() - report that a table is not a root
 * @table: what mm->pgd says.
 *
 * Context: Any, but not inside a window, and not with a lock of the scheduler.
 */
void kpkeys_refuse_root(const void *table)
{
	struct page *page = phys_to_page(__pa(table));
	const char *what = "it is a page table of another level";

	if (!kpkeys_pgtable_cache_owns(page))
		what = "it is not a page table";
	else if (!kpkeys_pgtable_cache_in_use(page))
		what = "it is not in use";

	count_vm_event(KPKEYS_ROOT_REFUSED);
	pr_err_ratelimited("Refused %#llx as the root of the page tables of %s[%d], %s\n",
			   (u64)__pa(table), current->comm, task_pid_nr(current), what);
	if (panic_on_write)
		panic("kpkeys: forged root of page tables\n");
}

#ifdef CONFIG_KPKEYS_HARDENED_PGTABLES_DEBUG
/**
 * kpkeys_free_pages_ok() - may these pages go to the page allocator?
 * @page:  the first page.
 * @order: the order of the pages.
 *
 * Context: Any.
 * Return: true if all pages are writable; false if one has the pkey of page
 *         tables. This has been reported, and the pages must be leaked.
 */
bool kpkeys_free_pages_ok(struct page *page, unsigned int order)
{
	unsigned int i;

	for (i = 0; i < 1U << order; i++) {
		if (!arch_kpkeys_is_protected(page_address(page + i)))
			continue;
		WARN_ONCE(1, "kpkeys: pfn %#lx freed while still protected\n",
			  page_to_pfn(page + i));
		atomic_long_add(1 << order, &nr_leaked);
		return false;
	}

	return true;
}
#endif

/*
 * Protect an existing page table, which an entry of @parent points to. The child
 * of a folded level is in the page of its parent. The root is not visited: root
 * tables of the kernel are in .rodata.
 */
static int protect_early_table(void *child, void *parent, struct mm_walk *walk)
{
	unsigned long table = (unsigned long)child & PAGE_MASK;
	unsigned long *nr = walk->private;
	int ret;

	if (table == ((unsigned long)parent & PAGE_MASK))
		return 0;
	/* Setting the same pkey again would split the block of the table. */
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
 * kpkeys_protect_kernel_pgtables() - protect existing page tables of init_mm
 *
 * For page tables from memblock, and for those of a direct map that was just
 * converted. Those that are protected already are left alone.
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
 * Stock the cache, and set up the table of interrupted sections. The table has a word
 * for each thread, up to the default maximum: see set_max_threads(). A larger machine
 * has as many as the page allocator can allocate at once.
 */
static int __init init_cache(void)
{
	unsigned long nr = PFN_PHYS(totalram_pages()) / (THREAD_SIZE * 8);
	unsigned int order = min(get_order(nr * sizeof(long)), MAX_PAGE_ORDER);
	bool small = order < ARCH_KPKEYS_PGTABLE_FRAME_ORDER - 1;
	void *table;
	int ret;

	ret = kpkeys_pgtable_cache_init(&table, small ? 1U << order : 0);
	if (ret)
		return ret;
	/* Protecting a large table splits a block, with page tables of the cache. */
	use_cache = true;

	if (!small) {
		struct page *page = alloc_pages(GFP_KERNEL | __GFP_ZERO | __GFP_SKIP_KASAN,
						order);

		if (!page)
			return -ENOMEM;
		table = page_address(page);
		ret = kpkeys_protect_pgtable(table, order);
		if (ret)
			return ret;
	}
	kpkeys_table_init(table, PAGE_SIZE << order);

	return 0;
}

/**
 * kpkeys_hardened_pgtables_init() - make page tables read-only
 *
 * On a machine without kpkeys, this only prints a line. Panics if a page table cannot
 * be protected, as nobody would notice this later.
 *
 * Context: Boot, when the page allocator and static keys work, before the first
 *          secondary CPU is online.
 */
void __init kpkeys_hardened_pgtables_init(void)
{
	long nr;
	int ret;

	if (!arch_kpkeys_hardened_pgtables()) {
		pr_info("page tables are not protected: %s\n",
			requested ? "no hardware support" : "switched off on the command line");
		return;
	}
	if (!arch_supports_kpkeys())
		panic("kpkeys: CPU feature disappeared after the linear map was created\n");

	/*
	 * Open windows before the first page table is read-only. Until then, they
	 * have no effect. Page tables that are allocated from here on are
	 * protected at once, and the walk below finds all others.
	 */
	static_branch_enable(&kpkeys_hardened_pgtables_key);

	ret = init_cache();
	if (ret)
		panic("kpkeys: Failed to stock the cache of page-table pages: %d\n", ret);

	nr = kpkeys_protect_kernel_pgtables();
	ret = nr < 0 ? nr : arch_kpkeys_protect_image_pgtables();
	if (ret)
		panic("kpkeys: Failed to protect early page tables: %d\n", ret);

	pr_info("page tables are read-only: %ld early tables protected, %s-mapped linear map\n",
		nr, arch_kpkeys_must_split() ? "block" : "PTE");
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
