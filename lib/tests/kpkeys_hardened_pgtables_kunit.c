// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of protected page tables. They do not rely on the code under test to
 * know what is protected: they find page tables and their mappings as hardware
 * does, by following descriptors from the roots.
 */
#include <kunit/test.h>

#include <linux/irq_work.h>
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/kpkeys_pgtable_cache.h>
#include <linux/memblock.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/pgalloc.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/stop_machine.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include <asm/fixmap.h>
#include <asm/kernel-pgtable.h>
#include <asm/sections.h>

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");

#define LAST_LEVEL	3
#define NR_LEVELS	(LAST_LEVEL + 2)	/* levels -1 to 3 */

/* Write the present value to a table. Returns 0 if this was possible. */
static int probe(u64 *entry)
{
	u64 val = READ_ONCE(*entry);

	return copy_to_kernel_nofault(entry, &val, sizeof(val));
}

static int root_level(void)
{
	int level = LAST_LEVEL + 1 - CONFIG_PGTABLE_LEVELS;

	if (CONFIG_PGTABLE_LEVELS == 5 && !pgtable_l5_enabled())
		level++;
	if (CONFIG_PGTABLE_LEVELS >= 4 && !pgtable_l4_enabled())
		level++;

	return level;
}

/* A root table in the image may have another size than the tables below it. */
static bool is_real_root(int level)
{
	return level == LAST_LEVEL + 1 - CONFIG_PGTABLE_LEVELS;
}

static unsigned int index_at(unsigned long addr, int level)
{
	unsigned int shift = PAGE_SHIFT +
			     (LAST_LEVEL - level) * PTDESC_TABLE_SHIFT;

	if (is_real_root(level))
		return pgd_index(addr);

	return (addr >> shift) & (PTRS_PER_PTE - 1);
}

static bool desc_is_table(u64 desc, int level)
{
	return level < LAST_LEVEL && (desc & 3) == 3;
}

static u64 *desc_to_table(u64 desc)
{
	return __va(pmd_page_paddr(__pmd(desc)));
}

/*
 * The tables that translate @addr, from the root down; entry[i] is the one used
 * at level i - 1, or NULL.
 */
static void translate(struct mm_struct *mm, unsigned long addr,
		      u64 *entry[NR_LEVELS])
{
	u64 *table = (u64 *)mm->pgd;
	int level;

	memset(entry, 0, NR_LEVELS * sizeof(*entry));
	for (level = root_level(); level <= LAST_LEVEL; level++) {
		u64 *e = &table[index_at(addr, level)];
		u64 desc = READ_ONCE(*e);

		entry[level + 1] = e;
		if (!desc_is_table(desc, level))
			return;
		table = desc_to_table(desc);
	}
}

/* Writes to the tables of @addr must be denied, or all succeed without protection. */
static void check_tables_of(struct kunit *test, struct mm_struct *mm,
			    const void *ptr, const char *what)
{
	int want = kpkeys_hardened_pgtables_enabled() ? -EFAULT : 0;
	u64 *entry[NR_LEVELS];
	int level, nr = 0;

	translate(mm, (unsigned long)ptr, entry);
	for (level = root_level(); level <= LAST_LEVEL; level++) {
		if (!entry[level + 1])
			continue;
		/* The root of the kernel is in .rodata, which becomes read-only later. */
		if (mm == &init_mm && level == root_level()) {
			if (system_state >= SYSTEM_RUNNING)
				KUNIT_EXPECT_EQ_MSG(test, probe(entry[level + 1]),
						    rodata_enabled ? -EFAULT : 0,
						    "%s, root table", what);
			/* With two levels, the root may map the direct map itself. */
			nr += pmd_leaf(__pmd(READ_ONCE(*entry[level + 1])));
			continue;
		}
		KUNIT_EXPECT_EQ_MSG(test, probe(entry[level + 1]), want,
				    "%s, table at level %d", what, level);
		nr++;
	}
	KUNIT_EXPECT_GT_MSG(test, nr, 0, "%s has no tables", what);
}

/* Change a bit that only software uses. Returns 0 if this was possible. */
static int corrupt(struct kunit *test, u64 *entry)
{
	u64 was = READ_ONCE(*entry), wrong = was ^ PTE_DIRTY;
	int ret = copy_to_kernel_nofault(entry, &wrong, sizeof(wrong));

	KUNIT_EXPECT_EQ(test, READ_ONCE(*entry), ret ? was : wrong);
	if (!ret)
		KUNIT_EXPECT_EQ(test, copy_to_kernel_nofault(entry, &was, sizeof(was)), 0);

	return ret;
}

/* Entries that map @ptr can be changed by a write, unless they are protected. */
static void corrupt_tables_of(struct kunit *test, struct mm_struct *mm,
			      const void *ptr, const char *what)
{
	int want = kpkeys_hardened_pgtables_enabled() ? -EFAULT : 0;
	u64 *entry[NR_LEVELS];
	int level;

	translate(mm, (unsigned long)ptr, entry);
	for (level = root_level(); level <= LAST_LEVEL; level++) {
		/* See check_tables_of() */
		if (!entry[level + 1] || (mm == &init_mm && level == root_level()))
			continue;
		KUNIT_EXPECT_EQ_MSG(test, corrupt(test, entry[level + 1]), want,
				    "%s, table at level %d", what, level);
	}
}

static void *user_page(struct kunit *test, int value)
{
	unsigned long addr;

	if (!current->mm)
		KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);
	addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
			     MAP_ANONYMOUS | MAP_PRIVATE, 0);
	KUNIT_ASSERT_NE(test, addr, 0);
	KUNIT_ASSERT_EQ(test, put_user(value, (int __user *)addr), 0);

	return (void *)addr;
}

/* The tables of the running process: PTE, PMD, PUD, PGD. */
static void kpkeys_pgtables_test_write_user(struct kunit *test)
{
	void *addr = user_page(test, 1);

	check_tables_of(test, current->mm, addr, "user memory");
	corrupt_tables_of(test, current->mm, addr, "user memory");
}

/* The purpose of an attack: the address now maps memory that the attacker chose. */
static void kpkeys_pgtables_test_redirect_user(struct kunit *test)
{
	bool protected = kpkeys_hardened_pgtables_enabled();
	void *victim = user_page(test, 1), *other = user_page(test, 2);
	u64 *entry[NR_LEVELS], *e, was, new;
	int value = 0;

	translate(current->mm, (unsigned long)other, entry);
	KUNIT_ASSERT_NOT_NULL(test, entry[LAST_LEVEL + 1]);
	new = READ_ONCE(*entry[LAST_LEVEL + 1]);
	translate(current->mm, (unsigned long)victim, entry);
	e = entry[LAST_LEVEL + 1];
	KUNIT_ASSERT_NOT_NULL(test, e);
	was = READ_ONCE(*e);

	KUNIT_EXPECT_EQ(test, copy_to_kernel_nofault(e, &new, sizeof(new)),
			protected ? -EFAULT : 0);
	flush_tlb_mm(current->mm);
	KUNIT_EXPECT_EQ(test, get_user(value, (int __user *)victim), 0);
	KUNIT_EXPECT_EQ(test, value, protected ? 1 : 2);

	/* Each page is mapped once when the process ends. */
	if (READ_ONCE(*e) != was)
		KUNIT_EXPECT_EQ(test, copy_to_kernel_nofault(e, &was, sizeof(was)), 0);
	flush_tlb_mm(current->mm);
}

static void kpkeys_pgtables_test_write_kernel(struct kunit *test)
{
	void *area = vmalloc(PAGE_SIZE);
	unsigned long page = get_zeroed_page(GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, area);
	KUNIT_ASSERT_NE(test, page, 0);
	check_tables_of(test, &init_mm, area, "vmalloc");
	corrupt_tables_of(test, &init_mm, area, "vmalloc");
	check_tables_of(test, &init_mm, (void *)page, "direct map");
	check_tables_of(test, &init_mm, virt_to_page(page), "vmemmap");
	check_tables_of(test, &init_mm, (void *)fix_to_virt(FIX_PTE), "fixmap");
	check_tables_of(test, &init_mm, &kpkeys_hardened_pgtables_key, "kernel image");
	free_page(page);
	vfree(area);
}

static void kpkeys_pgtables_test_guard(struct kunit *test)
{
	void *addr = user_page(test, 1);
	u64 *entry[NR_LEVELS], *e;

	translate(current->mm, (unsigned long)addr, entry);
	e = entry[LAST_LEVEL + 1];
	KUNIT_ASSERT_NOT_NULL(test, e);

	scoped_guard(kpkeys_hardened_pgtables) {
		KUNIT_EXPECT_EQ(test, probe(e), 0);
		scoped_guard(kpkeys_hardened_pgtables)
			KUNIT_EXPECT_EQ(test, probe(e), 0);
		KUNIT_EXPECT_EQ(test, probe(e), 0);
	}
	KUNIT_EXPECT_EQ(test, probe(e), -EFAULT);
}

struct lazy_irq {
	struct irq_work work;
	bool open;
};

static void lazy_irq(struct irq_work *work)
{
	struct lazy_irq *li = container_of(work, struct lazy_irq, work);
	struct ptdesc *ptdesc;

	li->open = kpkeys_in_context(KPKEYS_CTX_PGTABLES);
	/* Tables are allocated and freed inside the section. */
	ptdesc = pagetable_alloc(GFP_ATOMIC, 0);
	if (ptdesc)
		pagetable_free(ptdesc);
}

#define EXPECT_OPEN(test, open)						\
	KUNIT_EXPECT_EQ(test, kpkeys_in_context(KPKEYS_CTX_PGTABLES), open)

/* One window for the section, even if nested, paused or interrupted. */
static void kpkeys_pgtables_test_lazy_mmu(struct kunit *test)
{
	/* Also with PREEMPT_RT, an interrupt that is not waited for by sleeping. */
	struct lazy_irq li = { .work = IRQ_WORK_INIT_HARD(lazy_irq), .open = true };

	EXPECT_OPEN(test, false);
	lazy_mmu_mode_enable();
	EXPECT_OPEN(test, true);

	lazy_mmu_mode_enable();
	EXPECT_OPEN(test, true);
	lazy_mmu_mode_disable();
	EXPECT_OPEN(test, true);

	lazy_mmu_mode_pause();
	EXPECT_OPEN(test, false);
	lazy_mmu_mode_enable();
	EXPECT_OPEN(test, false);
	lazy_mmu_mode_disable();
	lazy_mmu_mode_resume();
	EXPECT_OPEN(test, true);

	irq_work_queue(&li.work);
	irq_work_sync(&li.work);
	KUNIT_EXPECT_FALSE(test, li.open);
	EXPECT_OPEN(test, true);

	lazy_mmu_mode_disable();
	EXPECT_OPEN(test, false);

	/* A section that sleeps loses its window. */
	lazy_mmu_mode_enable();
	EXPECT_OPEN(test, true);
	schedule_timeout_uninterruptible(1);
	EXPECT_OPEN(test, false);
	lazy_mmu_mode_disable();
	EXPECT_OPEN(test, false);
}

/*
 * Loops that store without a guard in lazy MMU mode hold one themselves if they also
 * run where the mode is not entered.
 */
static void kpkeys_pgtables_test_not_lazy(struct kunit *test)
{
	void *p;

	lazy_mmu_mode_pause();
	p = vmalloc(4 * PAGE_SIZE);
	vfree(p);
	lazy_mmu_mode_resume();
	KUNIT_EXPECT_NOT_NULL(test, p);
	EXPECT_OPEN(test, false);
}

static u64 direct_map_leaf(void *addr)
{
	u64 *entry[NR_LEVELS];
	int i;

	translate(&init_mm, (unsigned long)addr, entry);
	for (i = NR_LEVELS - 1; i >= 0; i--) {
		if (entry[i])
			return READ_ONCE(*entry[i]);
	}

	return 0;
}

static bool has_pkey(u64 leaf, int pkey)
{
	return (leaf & KPKEYS_PTE_MASK) == kpkeys_pte_bits(pkey);
}

/* A table is read-only and zeroed. After it was freed, it is writable or in the cache. */
static void kpkeys_pgtables_test_alloc_free(struct kunit *test)
{
	static const unsigned int orders[] = { 0, 1, 3 };
	int i;

	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		unsigned int order = orders[i];
		struct ptdesc *ptdesc = pagetable_alloc(GFP_KERNEL | __GFP_ZERO, order);
		u64 *table;
		int n;

		KUNIT_ASSERT_NOT_NULL(test, ptdesc);
		table = ptdesc_address(ptdesc);
		/* The cache hands out single pages only. */
		for (n = 0; n < 1 << order; n++)
			KUNIT_EXPECT_EQ(test, !order,
					kpkeys_pgtable_cache_owns(ptdesc_page(ptdesc) + n));
		KUNIT_EXPECT_PTR_EQ(test, memchr_inv(table, 0, PAGE_SIZE << order),
				    NULL);
		for (n = 0; n < 1 << order; n++) {
			u64 *e = table + n * PTRS_PER_PTE;

			KUNIT_EXPECT_EQ(test, probe(e), -EFAULT);
			KUNIT_EXPECT_TRUE(test, has_pkey(direct_map_leaf(e),
							 KPKEYS_PKEY_PGTABLES));
		}
		pagetable_free(ptdesc);
		/* Free pages in the cache remain protected. */
		if (kpkeys_pgtable_cache_owns(virt_to_page(table)))
			continue;
		for (n = 0; n < 1 << order; n++)
			KUNIT_EXPECT_TRUE(test, has_pkey(direct_map_leaf(table + n * PTRS_PER_PTE),
							 KPKEYS_PKEY_DEFAULT));
	}
}

/* Neighbours of a table in the direct map stay writable. */
static void kpkeys_pgtables_test_neighbours(struct kunit *test)
{
	unsigned long block = __get_free_pages(GFP_KERNEL, 2);
	int i;

	KUNIT_ASSERT_NE(test, block, 0);
	KUNIT_EXPECT_EQ(test, kpkeys_protect_pgtable((void *)block + PAGE_SIZE, 0), 0);
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ(test, probe((u64 *)(block + i * PAGE_SIZE)),
				i == 1 ? -EFAULT : 0);
	KUNIT_EXPECT_EQ(test, kpkeys_unprotect_pgtable((void *)block + PAGE_SIZE, 0), 0);
	/* Pages that are writable again are not kept from the page allocator. */
	KUNIT_EXPECT_TRUE(test, kpkeys_check_free_pages(virt_to_page(block), 2));
	free_pages(block, 2);
}

/* A table that is older than the cache, and not one of its pages, is freed like any other. */
static void kpkeys_pgtables_test_free_older(struct kunit *test)
{
	struct page *page = alloc_page(GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_EXPECT_EQ(test, kpkeys_protect_pgtable(page_address(page), 0), 0);
	KUNIT_EXPECT_EQ(test, probe(page_address(page)), -EFAULT);
	get_page(page);
	pagetable_free(page_ptdesc(page));
	KUNIT_EXPECT_EQ(test, page_count(page), 1);
	KUNIT_EXPECT_EQ(test, probe(page_address(page)), 0);
	put_page(page);
}

/* Where nothing is mapped, nothing is protected, whatever the level without an entry is. */
static void kpkeys_pgtables_test_not_mapped(struct kunit *test)
{
	unsigned int shift;

	for (shift = PAGE_SHIFT; shift < VA_BITS_MIN - 1; shift++) {
		const void *addr = (void *)(PAGE_OFFSET + BIT(shift));

		if (!pfn_valid(PHYS_PFN(__pa(addr))))
			KUNIT_EXPECT_FALSE(test, arch_kpkeys_is_protected(addr));
		addr = (void *)(VMALLOC_START + BIT(shift));
		/* The image has page tables. */
		if ((unsigned long)addr < VMALLOC_END &&
		    (addr < (void *)_text || addr >= (void *)_end))
			KUNIT_EXPECT_FALSE(test, arch_kpkeys_is_protected(addr));
	}
}

#ifdef CONFIG_KPKEYS_HARDENED_PGTABLES_DEBUG
/* A page that is still protected is kept from the page allocator. */
static void kpkeys_pgtables_test_free_protected(struct kunit *test)
{
	struct page *page = alloc_page(GFP_KERNEL), *next;

	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_ASSERT_EQ(test, kpkeys_protect_pgtable(page_address(page), 0), 0);
	kunit_warning_suppress(test) {
		__free_page(page);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	/* The page that was freed last would be the next one. */
	next = alloc_page(GFP_KERNEL);
	KUNIT_EXPECT_PTR_NE(test, page, next);
	KUNIT_EXPECT_EQ(test, probe(page_address(page)), -EFAULT);
	if (next && next != page)
		__free_page(next);

	KUNIT_EXPECT_EQ(test, kpkeys_unprotect_pgtable(page_address(page), 0), 0);
	init_page_count(page);
	__free_page(page);
}
#endif

#ifdef CONFIG_MEMCG
/* A table is charged if the allocation says so. KUnit has no cgroup, but userland may. */
static void kpkeys_pgtables_test_charge(struct kunit *test)
{
	struct mem_cgroup *memcg = NULL, *old;
	struct ptdesc *user, *kernel;

	do {
		memcg = mem_cgroup_iter(NULL, memcg, NULL);
	} while (memcg && mem_cgroup_is_root(memcg));
	if (!memcg)
		kunit_skip(test, "there is no memory cgroup");

	old = set_active_memcg(memcg);
	user = pagetable_alloc(GFP_PGTABLE_USER, 0);
	kernel = pagetable_alloc(GFP_PGTABLE_KERNEL, 0);
	set_active_memcg(old);
	KUNIT_EXPECT_TRUE(test, user && folio_memcg_kmem(ptdesc_folio(user)));
	KUNIT_EXPECT_TRUE(test, kernel && !folio_memcg_kmem(ptdesc_folio(kernel)));
	if (user)
		pagetable_free(user);
	if (kernel)
		pagetable_free(kernel);
	mem_cgroup_iter_break(NULL, memcg);
}
#endif

/*
 * Mappings of tables that may be writable. Any other writable mapping makes the
 * walk fail.
 */
struct accepted {
	const char *name;
	const char *why;
	bool (*match)(unsigned long pfn);
	unsigned long nr;
};

static bool in_rodata(unsigned long pfn)
{
	return pfn >= PHYS_PFN(__pa_symbol(__start_rodata)) &&
	       pfn < PHYS_PFN(__pa_symbol(__init_begin));
}

static bool in_rodata_during_boot(unsigned long pfn)
{
	return system_state < SYSTEM_RUNNING && in_rodata(pfn);
}

static bool in_writable_rodata(unsigned long pfn)
{
	return !rodata_enabled && in_rodata(pfn);
}

static struct accepted accepted[] = {
	{ "tables in .rodata during boot", "read-only from mark_rodata_ro() on, which is later",
	  in_rodata_during_boot },
	{ "tables in .rodata with rodata=off", "the command line says so, and a warning repeats it",
	  in_writable_rodata },
};

struct walk {
	unsigned long base_pfn, nr_pfns;
	unsigned long *is_table;		/* bitmap, from base_pfn on */
	unsigned long tables[NR_LEVELS];
	unsigned long mappings;
	unsigned long writable;
	unsigned long first_addr, first_pfn;	/* a writable one */
	unsigned int processes;
	struct mm_struct *mm;
};

static bool is_table(struct walk *w, unsigned long pfn)
{
	return pfn - w->base_pfn < w->nr_pfns &&
	       test_bit(pfn - w->base_pfn, w->is_table);
}

static unsigned int nr_entries(int level)
{
	return is_real_root(level) ? PTRS_PER_PGD : PTRS_PER_PTE;
}

/* Record @table and every table below it. */
static void note_tables(struct walk *w, u64 *table, int level)
{
	unsigned long pfn = virt_to_pfn(table);
	unsigned int i;

	if (pfn - w->base_pfn < w->nr_pfns) {
		if (test_and_set_bit(pfn - w->base_pfn, w->is_table))
			return;
		w->tables[level + 1]++;
	}

	for (i = 0; i < nr_entries(level) && level < LAST_LEVEL; i++) {
		u64 desc = READ_ONCE(table[i]);

		if (desc_is_table(desc, level))
			note_tables(w, desc_to_table(desc), level + 1);
	}
}

static void check_leaf(struct walk *w, u64 desc, int level, unsigned long addr)
{
	unsigned long nr = 1UL << ((LAST_LEVEL - level) * PTDESC_TABLE_SHIFT);
	unsigned long pfn = pte_pfn(__pte(desc));
	/* With both bits set the hardware makes it writable at the first write. */
	bool read_only = (desc & PTE_RDONLY) && !(desc & PTE_WRITE);
	bool writable = !read_only && !has_pkey(desc, KPKEYS_PKEY_PGTABLES);
	unsigned long i;
	int a;

	for (i = 0; i < nr; i++) {
		if (!is_table(w, pfn + i))
			continue;
		w->mappings++;
		if (!writable)
			continue;
		for (a = 0; a < ARRAY_SIZE(accepted); a++) {
			if (accepted[a].match(pfn + i)) {
				accepted[a].nr++;
				break;
			}
		}
		if (a < ARRAY_SIZE(accepted))
			continue;
		if (!w->writable++) {
			w->first_addr = addr + i * PAGE_SIZE;
			w->first_pfn = pfn + i;
		}
	}
}

/* Check every mapping below @table that maps a table. */
static void check_mappings(struct walk *w, u64 *table, int level,
			   unsigned long addr)
{
	unsigned int shift = PAGE_SHIFT +
			     (LAST_LEVEL - level) * PTDESC_TABLE_SHIFT;
	u64 desc = 0, prev;
	unsigned int i;

	for (i = 0; i < nr_entries(level); i++) {
		unsigned long start = addr | (unsigned long)i << shift;

		prev = desc;
		desc = READ_ONCE(table[i]);
		/* A few tables, again and again, map terabytes of KASAN shadow. */
		if (!(desc & PTE_VALID) || desc == prev)
			continue;
		if (desc_is_table(desc, level))
			check_mappings(w, desc_to_table(desc), level + 1, start);
		else
			check_leaf(w, desc, level, start);
	}
}

/*
 * All other CPUs are stopped, so that no table is allocated or freed. A fixmap slot
 * maps a table only while the table is written, so let a slot map one now.
 */
static int do_walk(void *data)
{
	struct task_struct *g, *t;
	struct walk *w = data;

	(void)pgd_set_fixmap(__pa(w->mm->pgd));

	note_tables(w, (u64 *)lm_alias(init_mm.pgd), root_level());
	note_tables(w, (u64 *)lm_alias(idmap_pg_dir), IDMAP_ROOT_LEVEL);
	if (IS_ENABLED(CONFIG_UNMAP_KERNEL_AT_EL0))
		note_tables(w, (u64 *)lm_alias(tramp_pg_dir), root_level());
	for_each_process_thread(g, t) {
		if (!t->mm)
			continue;
		w->processes += t == g;
		note_tables(w, (u64 *)t->mm->pgd, root_level());
	}
	check_mappings(w, (u64 *)init_mm.pgd, root_level(),
		       _PAGE_OFFSET(vabits_actual));
	pgd_clear_fixmap();

	return 0;
}

/*
 * Every table of init_mm, the idmap and the processes, in every mapping that init_mm
 * has of it: direct map, kernel image, fixmap slot, vmalloc.
 */
static void kpkeys_pgtables_test_every_mapping(struct kunit *test)
{
	unsigned long nr_tables = 0;
	struct walk w = { };
	int i;

	user_page(test, 1);
	w.mm = current->mm;
	w.base_pfn = PHYS_PFN(memblock_start_of_DRAM());
	w.nr_pfns = PHYS_PFN(memblock_end_of_DRAM()) - w.base_pfn;
	w.is_table = vzalloc(BITS_TO_LONGS(w.nr_pfns) * sizeof(long));
	KUNIT_ASSERT_NOT_NULL(test, w.is_table);
	for (i = 0; i < ARRAY_SIZE(accepted); i++)
		accepted[i].nr = 0;

	stop_machine(do_walk, &w, NULL);

	for (i = 0; i < NR_LEVELS; i++) {
		nr_tables += w.tables[i];
		if (w.tables[i])
			kunit_info(test, "%lu tables at level %d\n", w.tables[i], i - 1);
	}
	kunit_info(test, "%lu mappings of them in the kernel; %u processes\n",
		   w.mappings, w.processes);
	for (i = 0; i < ARRAY_SIZE(accepted); i++)
		kunit_info(test, "%lu accepted: %s (%s)\n", accepted[i].nr,
			   accepted[i].name, accepted[i].why);

	/* Each table has at least its mapping in the direct map; one has the slot. */
	KUNIT_EXPECT_GT(test, w.tables[LAST_LEVEL + 1], 0);
	KUNIT_EXPECT_GT(test, w.mappings, nr_tables);
	KUNIT_EXPECT_EQ_MSG(test, w.writable, 0, "the first one: pfn %#lx at %#lx",
			    w.first_pfn, w.first_addr);
	vfree(w.is_table);
}

static int kpkeys_pgtables_test_init(struct kunit *test)
{
	if (!kpkeys_hardened_pgtables_enabled())
		kunit_skip(test, "page tables are not protected on this machine");

	return 0;
}

static struct kunit_case kpkeys_pgtables_test_cases[] = {
	KUNIT_CASE(kpkeys_pgtables_test_guard),
	KUNIT_CASE(kpkeys_pgtables_test_lazy_mmu),
	KUNIT_CASE(kpkeys_pgtables_test_not_lazy),
	KUNIT_CASE(kpkeys_pgtables_test_alloc_free),
	KUNIT_CASE(kpkeys_pgtables_test_neighbours),
	KUNIT_CASE(kpkeys_pgtables_test_free_older),
	KUNIT_CASE(kpkeys_pgtables_test_not_mapped),
#ifdef CONFIG_KPKEYS_HARDENED_PGTABLES_DEBUG
	KUNIT_CASE(kpkeys_pgtables_test_free_protected),
#endif
#ifdef CONFIG_MEMCG
	KUNIT_CASE(kpkeys_pgtables_test_charge),
#endif
	KUNIT_CASE(kpkeys_pgtables_test_every_mapping),
	{}
};

static struct kunit_suite kpkeys_pgtables_test_suite = {
	.name = "kpkeys_hardened_pgtables",
	.init = kpkeys_pgtables_test_init,
	.test_cases = kpkeys_pgtables_test_cases,
};

/*
 * The attack: a kernel write to a table. Without protection it must succeed, or
 * the test would prove nothing.
 */
static struct kunit_case kpkeys_pgtables_attack_cases[] = {
	KUNIT_CASE(kpkeys_pgtables_test_write_user),
	KUNIT_CASE(kpkeys_pgtables_test_redirect_user),
	KUNIT_CASE(kpkeys_pgtables_test_write_kernel),
	{}
};

static struct kunit_suite kpkeys_pgtables_attack_suite = {
	.name = "kpkeys_pgtables_attack",
	.test_cases = kpkeys_pgtables_attack_cases,
};

kunit_test_suites(&kpkeys_pgtables_test_suite, &kpkeys_pgtables_attack_suite);

MODULE_DESCRIPTION("KUnit tests of page tables protected by kernel pkeys");
MODULE_LICENSE("GPL");
