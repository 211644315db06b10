// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of functions that write many entries of a page table at once: for groups
 * of contiguous entries, huge pages, khugepaged, and the copy of the linear map for
 * kexec and hibernation. All entries are compared, also those next to the group. The
 * results do not depend on whether page tables are protected.
 */
#include <kunit/test.h>

#include <linux/fault-inject.h>
#include <linux/hugetlb.h>
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/pgalloc.h>
#include <linux/sched/mm.h>
#include <linux/shmem_fs.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/uaccess.h>
#include <linux/userfaultfd_k.h>

#include <asm/tlb.h>
#include <asm/trans_pgd.h>

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");

/* -- Groups of contiguous entries ----------------------------------------- */

/* Three groups in a table of user space. The tests change the second one. */
struct groups {
	struct vm_area_struct *vma;
	unsigned long addr;
	pte_t *ptep;
	spinlock_t *ptl;	/* of the table */
	unsigned long pfn;
};

static void free_group(void *page)
{
	__free_pages(page, CONT_PTE_SHIFT - PAGE_SHIFT);
}

/*
 * In memory of a process, or of @file if it is not NULL. The caller has the lock of the
 * table until unlock_groups().
 */
static struct groups lock_groups(struct kunit *test, struct file *file)
{
	struct page *page = alloc_pages(GFP_KERNEL | __GFP_COMP, CONT_PTE_SHIFT - PAGE_SHIFT);
	struct groups g = { };
	unsigned long area;

	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, free_group, page));
	g.pfn = page_to_pfn(page);
	KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);
	/* With pages of 64kB, this may be more than there is memory. */
	area = kunit_vm_mmap(test, file, 0, 2 * PMD_SIZE, PROT_READ | PROT_WRITE,
			     MAP_NORESERVE | (file ? MAP_SHARED : MAP_ANONYMOUS | MAP_PRIVATE), 0);
	KUNIT_ASSERT_NE(test, area, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(area));
	g.addr = ALIGN(area, PMD_SIZE) + CONT_PTE_SIZE;

	mmap_read_lock(current->mm);
	g.vma = find_vma(current->mm, g.addr);
	g.ptep = get_locked_pte(current->mm, g.addr, &g.ptl);
	if (!g.ptep)
		mmap_read_unlock(current->mm);
	KUNIT_ASSERT_NOT_NULL(test, g.ptep);

	return g;
}

static void unlock_groups(struct groups *g)
{
	pte_unmap_unlock(g->ptep, g->ptl);
	mmap_read_unlock(current->mm);
	flush_tlb_mm(current->mm);
}

/* How many entries of a group map their page, and have these bits of @mask? */
static unsigned int nr_with(struct groups *g, pte_t *ptep, pteval_t mask, pteval_t val)
{
	unsigned int i, nr = 0;

	for (i = 0; i < CONT_PTES; i++) {
		pte_t pte = __ptep_get(ptep + i);

		nr += pte_pfn(pte) == g->pfn + i && pte_valid(pte) &&
		      (pte_val(pte) & mask) == val;
	}

	return nr;
}

static unsigned int nr_none(pte_t *ptep)
{
	unsigned int i, nr = 0;

	for (i = 0; i < CONT_PTES; i++)
		nr += pte_none(__ptep_get(ptep + i));

	return nr;
}

#define EXPECT_GROUP(test, g, mask, val)				\
	KUNIT_EXPECT_EQ(test, nr_with(g, (g)->ptep, mask, val), CONT_PTES)

/* The groups before and after it. */
#define EXPECT_NEIGHBOURS_NONE(test, g)					\
do {									\
	KUNIT_EXPECT_EQ(test, nr_none((g)->ptep - CONT_PTES), CONT_PTES);	\
	KUNIT_EXPECT_EQ(test, nr_none((g)->ptep + CONT_PTES), CONT_PTES);	\
} while (0)

static pte_t group_pte(struct groups *g)
{
	/* Not PAGE_SHARED, which has other bits with addresses of 52 bits (LPA2). */
	pgprot_t prot = vm_get_page_prot(VM_READ | VM_WRITE | VM_SHARED);

	return pte_mkold(pte_mkclean(pfn_pte(g->pfn, prot)));
}

static void user_pgtables_test_contpte(struct kunit *test)
{
	struct mm_struct *mm;
	struct groups g;
	pte_t pte;

	if (!IS_ENABLED(CONFIG_ARM64_CONTPTE))
		kunit_skip(test, "set_ptes() makes no groups without ARM64_CONTPTE");
	g = lock_groups(test, NULL);
	mm = current->mm;
	pte = group_pte(&g);

	set_ptes(mm, g.addr, g.ptep, pte, CONT_PTES);
	EXPECT_GROUP(test, &g, PTE_CONT | PTE_AF | PTE_DIRTY | PTE_RDONLY, PTE_CONT | PTE_RDONLY);
	EXPECT_NEIGHBOURS_NONE(test, &g);

	/* The flags of one entry are those of the group. */
	pte = pte_mkdirty(pte_mkyoung(ptep_get(g.ptep + 3)));
	KUNIT_EXPECT_EQ(test, 1, ptep_set_access_flags(g.vma, g.addr + 3 * PAGE_SIZE,
						       g.ptep + 3, pte, 1));
	EXPECT_GROUP(test, &g, PTE_CONT | PTE_AF | PTE_DIRTY | PTE_RDONLY,
		     PTE_CONT | PTE_AF | PTE_DIRTY);
	EXPECT_NEIGHBOURS_NONE(test, &g);
	/* They only become more permissive. */
	pte = pte_mkold(pte_mkclean(pte));
	ptep_set_access_flags(g.vma, g.addr, g.ptep, pte, 1);
	EXPECT_GROUP(test, &g, PTE_CONT | PTE_AF | PTE_DIRTY | PTE_RDONLY,
		     PTE_CONT | PTE_AF | PTE_DIRTY);

	KUNIT_EXPECT_TRUE(test, ptep_test_and_clear_young(g.vma, g.addr + 5 * PAGE_SIZE,
							  g.ptep + 5));
	KUNIT_EXPECT_FALSE(test, ptep_test_and_clear_young(g.vma, g.addr, g.ptep));
	EXPECT_GROUP(test, &g, PTE_CONT | PTE_AF, PTE_CONT);
	EXPECT_NEIGHBOURS_NONE(test, &g);

	lazy_mmu_mode_enable();
	wrprotect_ptes(mm, g.addr, g.ptep, CONT_PTES);
	lazy_mmu_mode_disable();
	EXPECT_GROUP(test, &g, PTE_CONT | PTE_WRITE | PTE_RDONLY, PTE_CONT | PTE_RDONLY);
	EXPECT_NEIGHBOURS_NONE(test, &g);

	lazy_mmu_mode_enable();
	pte = get_and_clear_full_ptes(mm, g.addr, g.ptep, CONT_PTES, 0);
	lazy_mmu_mode_disable();
	KUNIT_EXPECT_TRUE(test, pte_dirty(pte));
	KUNIT_EXPECT_EQ(test, nr_none(g.ptep), CONT_PTES);
	unlock_groups(&g);
}

/*
 * An entry by itself, outside of lazy MMU mode: each change takes a window of its own.
 * pte_clear() would not do here, as page_table_check does not see what it clears.
 */
static void user_pgtables_test_entry(struct kunit *test)
{
	struct groups g = lock_groups(test, NULL);
	struct mm_struct *mm = current->mm;
	pte_t pte = pte_mkdirty(pte_mkyoung(group_pte(&g)));
	const pteval_t mask = PTE_CONT | PTE_AF | PTE_DIRTY | PTE_RDONLY;

	set_pte_at(mm, g.addr, g.ptep, pte);
	KUNIT_EXPECT_EQ(test, pte_val(__ptep_get(g.ptep)) & mask, PTE_AF | PTE_DIRTY);
	clear_young_dirty_ptes(g.vma, g.addr, g.ptep, 1, CYDP_CLEAR_YOUNG);
	KUNIT_EXPECT_EQ(test, pte_val(__ptep_get(g.ptep)) & mask, PTE_DIRTY);
	clear_young_dirty_ptes(g.vma, g.addr, g.ptep, 1, CYDP_CLEAR_DIRTY);
	KUNIT_EXPECT_EQ(test, pte_val(__ptep_get(g.ptep)) & mask, PTE_RDONLY);

	ptep_get_and_clear(mm, g.addr, g.ptep);
	set_pte_at(mm, g.addr, g.ptep, pte);
	clear_young_dirty_ptes(g.vma, g.addr, g.ptep, 1, CYDP_CLEAR_YOUNG | CYDP_CLEAR_DIRTY);
	KUNIT_EXPECT_EQ(test, pte_val(__ptep_get(g.ptep)) & mask, PTE_RDONLY);

	ptep_get_and_clear(mm, g.addr, g.ptep);
	set_pte_at(mm, g.addr, g.ptep, pte);
	__ptep_set_wrprotect(mm, g.addr, g.ptep);
	KUNIT_EXPECT_FALSE(test, pte_write(__ptep_get(g.ptep)));
	KUNIT_EXPECT_TRUE(test, pte_dirty(__ptep_get(g.ptep)));

	ptep_get_and_clear(mm, g.addr, g.ptep);
	KUNIT_EXPECT_EQ(test, nr_none(g.ptep), CONT_PTES);
	EXPECT_NEIGHBOURS_NONE(test, &g);
	unlock_groups(&g);
}

/* A group that is written one entry after the other, and changed in part. */
static void user_pgtables_test_contpte_fold(struct kunit *test)
{
	struct groups g = lock_groups(test, NULL);
	struct mm_struct *mm = current->mm;
	pte_t pte = pte_mkyoung(group_pte(&g));
	int i;

	for (i = 0; i < CONT_PTES; i++) {
		set_pte_at(mm, g.addr + i * PAGE_SIZE, g.ptep + i, pte);
		pte = pte_advance_pfn(pte, 1);
	}
	KUNIT_EXPECT_EQ(test, nr_with(&g, g.ptep, PTE_AF, PTE_AF), CONT_PTES);
	EXPECT_NEIGHBOURS_NONE(test, &g);

	lazy_mmu_mode_enable();
	wrprotect_ptes(mm, g.addr, g.ptep, 2);
	lazy_mmu_mode_disable();
	KUNIT_EXPECT_EQ(test, nr_with(&g, g.ptep, PTE_CONT | PTE_WRITE, 0), 2);
	KUNIT_EXPECT_EQ(test, nr_with(&g, g.ptep, PTE_CONT | PTE_WRITE, PTE_WRITE), CONT_PTES - 2);

	lazy_mmu_mode_enable();
	clear_full_ptes(mm, g.addr, g.ptep, CONT_PTES, 0);
	lazy_mmu_mode_disable();
	KUNIT_EXPECT_EQ(test, nr_none(g.ptep), CONT_PTES);
	unlock_groups(&g);
}

#ifdef CONFIG_HUGETLB_PAGE
static void user_pgtables_test_huge(struct kunit *test)
{
	struct groups g = lock_groups(test, NULL);
	struct mm_struct *mm = current->mm;
	pte_t pte = arch_make_huge_pte(group_pte(&g), CONT_PTE_SHIFT, 0);
	unsigned long next = g.addr + CONT_PTE_SIZE;
	pte_t *next_ptep = g.ptep + CONT_PTES;

	set_huge_pte_at(mm, g.addr, g.ptep, pte_mkyoung(pte), CONT_PTE_SIZE);
	EXPECT_GROUP(test, &g, PTE_CONT | PTE_AF, PTE_CONT | PTE_AF);
	EXPECT_NEIGHBOURS_NONE(test, &g);

	/*
	 * Valid entries are cleared first. If one is not, DEBUG_VM warns, because the new
	 * entry is old. Those of the next group stay.
	 */
	set_huge_pte_at(mm, next, next_ptep, pte_mkyoung(pte), CONT_PTE_SIZE);
	set_huge_pte_at(mm, g.addr, g.ptep, pte_mkdirty(pte), CONT_PTE_SIZE);
	EXPECT_GROUP(test, &g, PTE_CONT | PTE_AF | PTE_DIRTY, PTE_CONT | PTE_DIRTY);
	KUNIT_EXPECT_EQ(test, nr_with(&g, next_ptep, PTE_CONT | PTE_AF, PTE_CONT | PTE_AF),
			CONT_PTES);
	KUNIT_EXPECT_EQ(test, nr_none(g.ptep - CONT_PTES), CONT_PTES);

	huge_ptep_set_wrprotect(mm, g.addr, g.ptep);
	EXPECT_GROUP(test, &g, PTE_CONT | PTE_WRITE, PTE_CONT);
	KUNIT_EXPECT_EQ(test, nr_with(&g, next_ptep, PTE_CONT | PTE_WRITE, PTE_CONT | PTE_WRITE),
			CONT_PTES);

	pte = huge_ptep_get_and_clear(mm, g.addr, g.ptep, CONT_PTE_SIZE);
	KUNIT_EXPECT_TRUE(test, pte_dirty(pte));
	KUNIT_EXPECT_EQ(test, nr_none(g.ptep), CONT_PTES);
	KUNIT_EXPECT_EQ(test, nr_with(&g, next_ptep, PTE_CONT, PTE_CONT), CONT_PTES);
	huge_ptep_get_and_clear(mm, next, next_ptep, CONT_PTE_SIZE);
	KUNIT_EXPECT_EQ(test, nr_none(next_ptep), CONT_PTES);

	/* Entries that are not present, and no group. */
	pte = make_pte_marker(PTE_MARKER_POISONED);
	set_huge_pte_at(mm, g.addr, g.ptep, pte, CONT_PTE_SIZE);
	KUNIT_EXPECT_EQ(test, pte_val(__ptep_get(g.ptep)), pte_val(pte));
	KUNIT_EXPECT_EQ(test, pte_val(__ptep_get(g.ptep + CONT_PTES - 1)), pte_val(pte));
	KUNIT_EXPECT_EQ(test, nr_none(g.ptep), 0);
	EXPECT_NEIGHBOURS_NONE(test, &g);
	set_huge_pte_at(mm, next, next_ptep, pte, CONT_PTE_SIZE);
	huge_pte_clear(mm, g.addr, g.ptep, CONT_PTE_SIZE);
	KUNIT_EXPECT_EQ(test, nr_none(g.ptep), CONT_PTES);
	KUNIT_EXPECT_EQ(test, nr_none(next_ptep), 0);
	huge_pte_clear(mm, next, next_ptep, CONT_PTE_SIZE);
	KUNIT_EXPECT_EQ(test, nr_none(next_ptep), CONT_PTES);
	unlock_groups(&g);
}
#endif

/* -- khugepaged ----------------------------------------------------------- */

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
/* Map and write pages @from to @to of the area. Each has a value of its own. */
static void map_pages(struct kunit *test, unsigned long addr, unsigned int from,
		      unsigned int to)
{
	unsigned long start = addr + from * PAGE_SIZE;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, start, vm_mmap(NULL, start, (to - from) * PAGE_SIZE,
					     PROT_READ | PROT_WRITE,
					     MAP_ANONYMOUS | MAP_PRIVATE | MAP_FIXED, 0));
	for (i = from; i < to; i++)
		KUNIT_ASSERT_EQ(test, 0, put_user(i + 1, (unsigned int __user *)
						  (addr + i * PAGE_SIZE)));
}

/* How many pages have their value? */
static unsigned int nr_right(unsigned long addr, unsigned int from)
{
	unsigned int i, nr = 0;

	for (i = from; i < PTRS_PER_PTE; i++) {
		unsigned int val = 0;

		nr += !get_user(val, (unsigned int __user *)(addr + i * PAGE_SIZE)) && val == i + 1;
	}

	return nr;
}

static void user_pgtables_test_collapse(struct kunit *test)
{
	struct vm_area_struct *vma;
	unsigned long area, addr;
	bool dropped = false;
	int ret;

	if (totalram_pages() < 16 * PTRS_PER_PTE)
		kunit_skip(test, "a huge page takes too much of the memory");
	KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);
	area = kunit_vm_mmap(test, NULL, 0, 2 * PMD_SIZE, PROT_NONE,
			     MAP_ANONYMOUS | MAP_PRIVATE | MAP_NORESERVE, 0);
	KUNIT_ASSERT_NE(test, area, 0);
	addr = ALIGN(area, PMD_SIZE);

	/*
	 * The first page is faulted in while there is no room for a huge page, so that all
	 * are small, unless khugepaged is faster.
	 */
	map_pages(test, addr, 0, 1);
	map_pages(test, addr, 1, PTRS_PER_PTE);

	mmap_read_lock(current->mm);
	vma = find_vma(current->mm, addr);
	ret = vma->vm_end >= addr + PMD_SIZE ?
	      madvise_collapse(vma, addr, addr + PMD_SIZE, &dropped) : -EINVAL;
	mmap_read_unlock(current->mm);
	if (ret == -ENOMEM)
		kunit_skip(test, "there is no huge page");
	KUNIT_ASSERT_EQ(test, ret, 0);
	KUNIT_EXPECT_TRUE(test, pmd_leaf(pmdp_get(pmd_off(current->mm, addr))));
	KUNIT_EXPECT_EQ(test, nr_right(addr, 0), PTRS_PER_PTE);

	/* The table of the small pages comes back, and must be empty: DEBUG_VM looks. */
	KUNIT_EXPECT_EQ(test, vm_munmap(addr, PAGE_SIZE), 0);
	KUNIT_EXPECT_FALSE(test, pmd_leaf(pmdp_get(pmd_off(current->mm, addr))));
	KUNIT_EXPECT_EQ(test, nr_right(addr, 1), PTRS_PER_PTE - 1);
}
#endif

/* -- Protection and reclaim ----------------------------------------------- */

#if defined(CONFIG_USERFAULTFD) && defined(CONFIG_SHMEM)
/* Protect a group against writes, as userfaultfd does, or stop to. */
static long change_group(struct groups *g, unsigned long cp_flags)
{
	struct mmu_gather tlb;
	long nr;

	mmap_write_lock(current->mm);
	tlb_gather_mmu(&tlb, current->mm);
	nr = change_protection(&tlb, g->vma, g->addr, g->addr + CONT_PTE_SIZE, cp_flags);
	tlb_finish_mmu(&tlb);
	mmap_write_unlock(current->mm);

	return nr;
}

/* How many entries of a group have this value? */
static unsigned int nr_equal(struct groups *g, pte_t pte)
{
	unsigned int i, nr = 0;

	for (i = 0; i < CONT_PTES; i++)
		nr += pte_same(__ptep_get(g->ptep + i), pte);

	return nr;
}

/* Entries of memory that is swapped out. There is no such swap area. */
static void user_pgtables_test_protect_swap(struct kunit *test)
{
	struct groups g = lock_groups(test, NULL);
	pte_t pte = swp_entry_to_pte(swp_entry(0, 1));
	int i;

	for (i = 0; i < CONT_PTES; i++)
		set_pte_at(current->mm, g.addr + i * PAGE_SIZE, g.ptep + i, pte);
	unlock_groups(&g);

	KUNIT_EXPECT_EQ(test, change_group(&g, MM_CP_UFFD_WP), CONT_PTES);
	KUNIT_EXPECT_EQ(test, nr_equal(&g, pte_swp_mkuffd(pte)), CONT_PTES);
	KUNIT_EXPECT_EQ(test, change_group(&g, MM_CP_UFFD_WP_RESOLVE), CONT_PTES);
	KUNIT_EXPECT_EQ(test, nr_equal(&g, pte), CONT_PTES);
	EXPECT_NEIGHBOURS_NONE(test, &g);

	for (i = 0; i < CONT_PTES; i++)
		pte_clear(current->mm, g.addr + i * PAGE_SIZE, g.ptep + i);
}

/* Entries of a file that map nothing yet become markers. */
static void user_pgtables_test_protect_none(struct kunit *test)
{
	struct file *file = shmem_kernel_file_setup("kunit", 2 * PMD_SIZE,
						    mk_vma_flags(VMA_NORESERVE_BIT));
	struct groups g;

	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	g = lock_groups(test, file);
	unlock_groups(&g);
	fput(file);

	mmap_write_lock(current->mm);
	vm_flags_set(g.vma, VM_UFFD_WP);
	mmap_write_unlock(current->mm);
	KUNIT_EXPECT_EQ(test, change_group(&g, MM_CP_UFFD_WP), CONT_PTES);
	KUNIT_EXPECT_EQ(test, nr_equal(&g, make_pte_marker(PTE_MARKER_UFFD_WP)), CONT_PTES);
	EXPECT_NEIGHBOURS_NONE(test, &g);
	KUNIT_EXPECT_EQ(test, change_group(&g, MM_CP_UFFD_WP_RESOLVE), CONT_PTES);
	KUNIT_EXPECT_EQ(test, nr_none(g.ptep), CONT_PTES);
	mmap_write_lock(current->mm);
	vm_flags_clear(g.vma, VM_UFFD_WP);
	mmap_write_unlock(current->mm);
}
#endif

#ifdef CONFIG_ADVISE_SYSCALLS
/* Reclaim takes pages that nobody needs any more out of their table. */
static void user_pgtables_test_reclaim(struct kunit *test)
{
	struct groups g = lock_groups(test, NULL);
	unsigned int i, nr = 0, val;

	unlock_groups(&g);
	for (i = 0; i < CONT_PTES; i++)
		nr += !put_user(i + 1, (unsigned int __user *)(g.addr + i * PAGE_SIZE));
	KUNIT_ASSERT_EQ(test, nr, CONT_PTES);
	KUNIT_EXPECT_EQ(test, nr_none(g.ptep), 0);

	/* Pages in a batch of another CPU are passed over. */
	lru_add_drain_all();
	KUNIT_EXPECT_EQ(test, do_madvise(current->mm, g.addr, CONT_PTE_SIZE, MADV_FREE), 0);
	lru_add_drain_all();
	KUNIT_EXPECT_EQ(test, do_madvise(current->mm, g.addr, CONT_PTE_SIZE, MADV_PAGEOUT), 0);
	KUNIT_EXPECT_EQ(test, nr_none(g.ptep), CONT_PTES);
	for (i = 0, nr = 0; i < CONT_PTES; i++)
		nr += !get_user(val, (unsigned int __user *)(g.addr + i * PAGE_SIZE)) && !val;
	KUNIT_EXPECT_EQ(test, nr, CONT_PTES);
}
#endif

/* -- The copy of the linear map ------------------------------------------- */

#if defined(CONFIG_KEXEC_CORE) || defined(CONFIG_HIBERNATION)
struct copy {
	unsigned long pages[8];
	unsigned int nr;
};

static void *copy_alloc(void *arg)
{
	struct copy *copy = arg;

	if (copy->nr == ARRAY_SIZE(copy->pages))
		return NULL;
	copy->pages[copy->nr] = get_zeroed_page(GFP_KERNEL);

	return (void *)copy->pages[copy->nr++];
}

/* The entry that maps @addr, below @pgdp. */
static u64 leaf_of(pgd_t *pgdp, unsigned long addr)
{
	p4d_t *p4dp = p4d_offset(pgdp, addr);
	pud_t *pudp;
	pmd_t *pmdp;

	if (pgd_none(pgdp_get(pgdp)) || p4d_none(p4dp_get(p4dp)))
		return 0;
	pudp = pud_offset(p4dp, addr);
	if (pud_none(pudp_get(pudp)) || pud_leaf(pudp_get(pudp)))
		return pud_val(pudp_get(pudp));
	pmdp = pmd_offset(pudp, addr);
	if (pmd_none(pmdp_get(pmdp)) || pmd_leaf(pmdp_get(pmdp)))
		return pmd_val(pmdp_get(pmdp));

	return pte_val(__ptep_get(pte_offset_kernel(pmdp, addr)));
}

static bool has_pkey(u64 leaf, int pkey)
{
	return (leaf & KPKEYS_PTE_MASK) == kpkeys_pte_bits(pkey);
}

/*
 * Copy the entries of the PMD that maps @addr. In the copy, all memory is writable and
 * has no pkey. Returns the number of entries that have a pkey in the linear map.
 */
static unsigned long check_copy(struct kunit *test, unsigned long addr)
{
	struct copy copy = { };
	struct trans_pgd_info info = { copy_alloc, &copy };
	unsigned long start = ALIGN_DOWN(addr, PMD_SIZE), nr = 0, bad = 0, had_pkey = 0;
	pgd_t *pgd;
	int ret;

	ret = trans_pgd_create_copy(&info, &pgd, start, start + PMD_SIZE);
	for (addr = start; !ret && addr < start + PMD_SIZE; addr += PAGE_SIZE) {
		u64 was = leaf_of(pgd_offset_k(addr), addr);
		u64 is = leaf_of(pgd_offset_pgd(pgd, addr), addr);

		nr += is != 0;
		had_pkey += has_pkey(was, KPKEYS_PKEY_PGTABLES);
		if (was)
			bad += pte_pfn(__pte(was)) != pte_pfn(__pte(is)) ||
			       !has_pkey(is, KPKEYS_PKEY_DEFAULT) ||
			       (is & (PTE_VALID | PTE_WRITE | PTE_RDONLY)) !=
			       (PTE_VALID | PTE_WRITE);
		else
			bad += is != 0;
	}
	while (copy.nr)
		free_page(copy.pages[--copy.nr]);

	KUNIT_EXPECT_EQ(test, ret, 0);
	KUNIT_EXPECT_GT(test, nr, 0);
	KUNIT_EXPECT_EQ(test, bad, 0);

	return had_pkey;
}

static void user_pgtables_test_copy(struct kunit *test)
{
	struct ptdesc *ptdesc = pagetable_alloc(GFP_KERNEL, 0);
	unsigned long had_pkey;

	KUNIT_ASSERT_NOT_NULL(test, ptdesc);
	had_pkey = check_copy(test, (unsigned long)ptdesc_address(ptdesc));
	pagetable_free(ptdesc);
	KUNIT_EXPECT_EQ(test, had_pkey > 0, kpkeys_hardened_pgtables_enabled());
}

static bool is_block(unsigned long addr)
{
	return (leaf_of(pgd_offset_k(addr), addr) & PMD_TYPE_MASK) == PMD_TYPE_SECT;
}

/* All of a block is protected, and one entry maps it. */
static void user_pgtables_test_copy_block(struct kunit *test)
{
	const unsigned int order = PMD_SHIFT - PAGE_SHIFT;
	unsigned long blocks[32], had_pkey = 0;
	unsigned int nr = 0;
	bool found = false;

	/* Other tests leave much of the linear map split. */
	while (order <= MAX_PAGE_ORDER && nr < ARRAY_SIZE(blocks) && !found) {
		blocks[nr] = __get_free_pages(GFP_KERNEL | __GFP_NOWARN, order);
		if (!blocks[nr])
			break;
		found = is_block(blocks[nr++]);
	}
	if (found) {
		void *block = (void *)blocks[nr - 1];

		KUNIT_EXPECT_EQ(test, kpkeys_protect_pgtable(block, order), 0);
		KUNIT_EXPECT_TRUE(test, is_block(blocks[nr - 1]));
		had_pkey = check_copy(test, blocks[nr - 1]);
		KUNIT_EXPECT_EQ(test, kpkeys_unprotect_pgtable(block, order), 0);
	}
	while (nr)
		free_pages(blocks[--nr], order);
	if (!found)
		kunit_skip(test, "the linear map has no block, or none is free");
	KUNIT_EXPECT_EQ(test, had_pkey, kpkeys_hardened_pgtables_enabled() ? PTRS_PER_PTE : 0);
}
#endif

/* -- Allocations that fail ------------------------------------------------ */

#ifdef CONFIG_FAIL_PGTABLE
/* Let each allocation fail that a new address space takes, one after the other. */
static void user_pgtables_test_no_memory(struct kunit *test)
{
	unsigned int n, nr_failed = 0, left = 0;
	struct mm_struct *mm;

	for (n = 1; n < 100 && !left; n++) {
		WRITE_ONCE(current->fail_nth, n);
		mm = mm_alloc();
		left = READ_ONCE(current->fail_nth);
		WRITE_ONCE(current->fail_nth, 0);
		nr_failed += !mm;
		if (mm)
			mmput(mm);
	}
	KUNIT_EXPECT_GT(test, left, 0);
	/* Other allocations that may reclaim are spared, see fail_page_alloc. */
	KUNIT_EXPECT_EQ(test, nr_failed > 0, kpkeys_hardened_pgtables_enabled());
}

/* The same for two pages, which do not come from the cache. Protecting them may fail, too. */
static void user_pgtables_test_no_pkey(struct kunit *test)
{
	unsigned int n, nr_failed = 0, left = 0;
	struct ptdesc *ptdesc;

	for (n = 1; n < 100 && !left; n++) {
		WRITE_ONCE(current->fail_nth, n);
		ptdesc = pagetable_alloc(GFP_KERNEL, 1);
		left = READ_ONCE(current->fail_nth);
		WRITE_ONCE(current->fail_nth, 0);
		nr_failed += !ptdesc;
		if (ptdesc)
			pagetable_free(ptdesc);
	}
	KUNIT_EXPECT_GT(test, left, 0);
	/* The allocation, and the change of the pkey. */
	KUNIT_EXPECT_GE(test, nr_failed, kpkeys_hardened_pgtables_enabled() ? 2 : 0);
}
#endif

static struct kunit_case user_pgtables_test_cases[] = {
	KUNIT_CASE(user_pgtables_test_contpte),
	KUNIT_CASE(user_pgtables_test_contpte_fold),
	KUNIT_CASE(user_pgtables_test_entry),
#ifdef CONFIG_HUGETLB_PAGE
	KUNIT_CASE(user_pgtables_test_huge),
#endif
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	KUNIT_CASE(user_pgtables_test_collapse),
#endif
#if defined(CONFIG_USERFAULTFD) && defined(CONFIG_SHMEM)
	KUNIT_CASE(user_pgtables_test_protect_swap),
	KUNIT_CASE(user_pgtables_test_protect_none),
#endif
#ifdef CONFIG_ADVISE_SYSCALLS
	KUNIT_CASE(user_pgtables_test_reclaim),
#endif
#if defined(CONFIG_KEXEC_CORE) || defined(CONFIG_HIBERNATION)
	KUNIT_CASE(user_pgtables_test_copy),
	KUNIT_CASE(user_pgtables_test_copy_block),
#endif
#ifdef CONFIG_FAIL_PGTABLE
	KUNIT_CASE(user_pgtables_test_no_memory),
	KUNIT_CASE(user_pgtables_test_no_pkey),
#endif
	{}
};

static struct kunit_suite user_pgtables_test_suite = {
	.name = "kpkeys_user_pgtables",
	.test_cases = user_pgtables_test_cases,
};

kunit_test_suite(user_pgtables_test_suite);

MODULE_DESCRIPTION("KUnit tests of functions that write many page-table entries at once");
MODULE_LICENSE("GPL");
