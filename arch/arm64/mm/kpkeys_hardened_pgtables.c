// SPDX-License-Identifier: GPL-2.0-only
/*
 * Protected page tables on arm64: whether they are used, and where to find those that
 * are older than the page allocator.
 */
#define pr_fmt(fmt) "kpkeys: " fmt

#include <linux/init.h>
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/mm.h>
#include <linux/set_memory.h>

#include <asm/cpufeature.h>
#include <asm/kpkeys_hardened_pgtables.h>
#include <asm/memory.h>
#include <asm/sections.h>

/**
 * arch_kpkeys_hardened_pgtables() - will page tables be protected?
 *
 * The direct map is created before CPU capabilities are known, and must allow the pkey
 * of a single page to be set. So look at the ID registers of the boot CPU. The answer
 * never changes.
 *
 * Context: Any, once early parameters are parsed.
 * Return: true if page tables are or will be protected.
 */
bool arch_kpkeys_hardened_pgtables(void)
{
	/* Decide once: all users must agree on how the direct map was created. */
	static int answer __ro_after_init = -1;

	if (answer < 0)
		answer = kpkeys_hardened_pgtables_requested() && cpu_supports_kpkeys();

	return answer;
}

/**
 * arch_kpkeys_is_protected() - is this memory protected as page tables are?
 * @addr: any kernel address.
 *
 * Context: Any.
 * Return: true if a leaf maps @addr and has %KPKEYS_PKEY_PGTABLES.
 */
bool arch_kpkeys_is_protected(const void *addr)
{
	unsigned long start = (unsigned long)addr;
	pgd_t *pgdp = pgd_offset_k(start);
	p4d_t *p4dp;
	pud_t *pudp, pud;
	pmd_t *pmdp, pmd;
	pteval_t leaf;

	/* No level above the PUD has leaves. */
	if (pgd_none(pgdp_get(pgdp)))
		return false;
	p4dp = p4d_offset(pgdp, start);
	if (p4d_none(p4dp_get(p4dp)))
		return false;
	pudp = pud_offset(p4dp, start);
	pud = pudp_get(pudp);
	if (pud_none(pud))
		return false;
	if (pud_leaf(pud)) {
		leaf = pud_val(pud);
	} else {
		pmdp = pmd_offset(pudp, start);
		pmd = pmdp_get(pmdp);
		if (pmd_none(pmd))
			return false;
		leaf = pmd_leaf(pmd) ? pmd_val(pmd) :
		       pte_val(__ptep_get(pte_offset_kernel(pmdp, start)));
	}

	return (leaf & PTE_VALID) &&
	       (leaf & KPKEYS_PTE_MASK) == kpkeys_pte_bits(KPKEYS_PKEY_PGTABLES);
}

/*
 * The root that this CPU has loaded was looked up before, and is nearly always the
 * one that is asked for. Others take longer, and so do all of them with software PAN,
 * which has another table loaded while the kernel runs.
 *
 * Invariant: a root is not freed while a CPU has it loaded, as this CPU holds a
 * reference to the mm. That count is ordinary memory; but hardware would walk a root
 * that was freed too early, whatever is looked up here.
 */
bool __kpkeys_is_user_root(const pgd_t *pgd)
{
	unsigned long addr = (unsigned long)pgd;

	if (likely(__is_lm_address(addr) && PAGE_ALIGNED(addr) &&
		   phys_to_ttbr(__lm_to_phys(addr)) ==
		   (read_sysreg(ttbr0_el1) & GENMASK_ULL(47, 1))))
		return true;

	return __kpkeys_is_root(pgd);
}

/*
 * For pgd_offset(). A page of zeroes stands in for a table that is not the root of the
 * half of the address space that @addr is in. It is in .rodata, so that nothing can be
 * added to it.
 */
pgd_t *__kpkeys_walk_root(pgd_t *pgd, unsigned long addr)
{
	if (likely(is_ttbr1_addr(addr) ? pgd == swapper_pg_dir : __kpkeys_is_user_root(pgd)))
		return pgd;

	kpkeys_refuse_root(pgd);

	return lm_alias(reserved_pg_dir);
}
EXPORT_SYMBOL_GPL(__kpkeys_walk_root);

/**
 * arch_kpkeys_kernel_range() - the addresses that init_mm translates
 * @start: set to the first address.
 * @end:   set to the end of the last page that may be mapped.
 */
void __init arch_kpkeys_kernel_range(unsigned long *start, unsigned long *end)
{
	*start = _PAGE_OFFSET(vabits_actual);
	*end = PAGE_MASK;
}

/**
 * arch_kpkeys_protect_image_pgtables() - protect the tables in the kernel image
 *
 * This protects their alias in the image, which map_kernel() maps with pages. Their
 * alias in the direct map is found by walking init_mm.
 *
 * Context: Boot, before the first secondary CPU.
 * Return: 0, or the error of set_memory_pkey().
 */
int __init arch_kpkeys_protect_image_pgtables(void)
{
	unsigned long start = (unsigned long)__pgtbl_start;
	unsigned long end = (unsigned long)__pgtbl_end;

	if (!rodata_enabled)
		pr_warn("rodata=off: the root page tables in the kernel image stay writable\n");

	return set_memory_pkey(start, (end - start) >> PAGE_SHIFT,
			       KPKEYS_PKEY_PGTABLES);
}
