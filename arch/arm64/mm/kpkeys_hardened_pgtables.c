// SPDX-License-Identifier: GPL-2.0-only
/*
 * Protected page tables on arm64: whether they are used, and where page tables are
 * that existed before the page allocator.
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
 * The direct map is created before CPU capabilities are known, and must allow to
 * set the pkey of a single page. So look at the ID registers of the boot CPU. The
 * answer never changes.
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
 * arch_kpkeys_is_protected() - is this memory protected in the direct map?
 * @addr: direct map address.
 *
 * Context: Any.
 * Return: true if the leaf that maps @addr has %KPKEYS_PKEY_PGTABLES.
 */
bool arch_kpkeys_is_protected(const void *addr)
{
	unsigned long start = (unsigned long)addr;
	pud_t *pudp, pud;
	pmd_t *pmdp, pmd;
	pteval_t leaf;

	/* No level above the PUD has leaves, and free memory is mapped. */
	pudp = pud_offset(p4d_offset(pgd_offset_k(start), start), start);
	pud = pudp_get(pudp);
	if (pud_leaf(pud)) {
		leaf = pud_val(pud);
	} else {
		pmdp = pmd_offset(pudp, start);
		pmd = pmdp_get(pmdp);
		leaf = pmd_leaf(pmd) ? pmd_val(pmd) :
		       pte_val(__ptep_get(pte_offset_kernel(pmdp, start)));
	}

	return (leaf & KPKEYS_PTE_MASK) == kpkeys_pte_bits(KPKEYS_PKEY_PGTABLES);
}

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
