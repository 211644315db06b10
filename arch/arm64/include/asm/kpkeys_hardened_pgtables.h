/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __ASM_KPKEYS_HARDENED_PGTABLES_H
#define __ASM_KPKEYS_HARDENED_PGTABLES_H

#include <linux/kpkeys_hardened_pgtables.h>

#include <asm/kpkeys.h>
#include <asm/mmu.h>
#include <asm/pgtable-types.h>

#ifdef CONFIG_KPKEYS_HARDENED_PGTABLES

bool arch_kpkeys_hardened_pgtables(void);
bool arch_kpkeys_is_protected(const void *addr);
void arch_kpkeys_kernel_range(unsigned long *start, unsigned long *end);
int __must_check arch_kpkeys_protect_image_pgtables(void);
bool __kpkeys_is_user_root(const pgd_t *pgd);
pgd_t *__kpkeys_walk_root(pgd_t *pgd, unsigned long addr);

/*
 * The cache keeps its memory in frames of this order, and takes it in chunks of these
 * orders: a PMD block, if this is not too much to set aside; a contiguous group of
 * pages; the smallest chunk with more pages than its split takes; and a single page as
 * a last resort.
 */
#ifdef CONFIG_ARM64_4K_PAGES
#define ARCH_KPKEYS_PGTABLE_FRAME_ORDER	(PMD_SHIFT - PAGE_SHIFT)
#define ARCH_KPKEYS_PGTABLE_CHUNK_ORDERS				\
	{ ARCH_KPKEYS_PGTABLE_FRAME_ORDER, CONT_PTE_SHIFT - PAGE_SHIFT, 2, 0 }
#else
#define ARCH_KPKEYS_PGTABLE_FRAME_ORDER	(CONT_PTE_SHIFT - PAGE_SHIFT)
#define ARCH_KPKEYS_PGTABLE_CHUNK_ORDERS				\
	{ ARCH_KPKEYS_PGTABLE_FRAME_ORDER, 1, 0 }
#endif

/* Is the direct map block-mapped? */
static inline bool arch_kpkeys_must_split(void)
{
	return split_kernel_leaf_mapping_needed();
}

/* Can it be split now? Not while CPUs come up that may lack BBM level 3. */
static inline bool arch_kpkeys_can_split(void)
{
	return split_kernel_leaf_mapping_possible();
}

/* How many page tables does it take to change @nr pages at @addr? */
static inline unsigned int arch_kpkeys_split_demand(const void *addr, unsigned int nr)
{
	return split_kernel_leaf_mapping_demand((unsigned long)addr,
						(unsigned long)addr + nr * PAGE_SIZE);
}

/* Where to start a walk to @addr: at @pgd, or at an empty table if @pgd is forged. */
static __always_inline pgd_t *kpkeys_walk_root(pgd_t *pgd, unsigned long addr)
{
	return kpkeys_hardened_pgtables_enabled() ? __kpkeys_walk_root(pgd, addr) : pgd;
}

/* kpkeys_is_root() with a fast path for the root that this CPU has loaded. */
static __always_inline bool kpkeys_is_user_root(const pgd_t *pgd)
{
	return !kpkeys_hardened_pgtables_enabled() || __kpkeys_is_user_root(pgd);
}

/* @prot, changed for a mapping of a page table. */
static inline pgprot_t kpkeys_pgprot_pgtable(pgprot_t prot)
{
	if (!kpkeys_hardened_pgtables_enabled())
		return prot;

	return __pgprot((pgprot_val(prot) & ~KPKEYS_PTE_MASK) |
			kpkeys_pte_bits(KPKEYS_PKEY_PGTABLES));
}

/*
 * One window for a whole section in lazy MMU mode. No state says whether leave has
 * to close it, because a section does not begin inside a window. If the section
 * sleeps, its window is gone, and each store opens one of its own: what relies on the
 * window of the section is called with a page table lock held, see pgtable_store().
 */
static __always_inline void kpkeys_enter_lazy_mmu_mode(void)
{
	if (!kpkeys_hardened_pgtables_enabled())
		return;

	kpkeys_assert_context(KPKEYS_CTX_DEFAULT);
	arch_kpkeys_write(arch_kpkeys_context(arch_kpkeys_read(), KPKEYS_CTX_PGTABLES));
}

static __always_inline void kpkeys_leave_lazy_mmu_mode(void)
{
	if (kpkeys_hardened_pgtables_enabled())
		arch_kpkeys_write(arch_kpkeys_init());
}

#else /* !CONFIG_KPKEYS_HARDENED_PGTABLES */

static inline bool arch_kpkeys_hardened_pgtables(void)
{
	return false;
}

static inline bool arch_kpkeys_is_protected(const void *addr)
{
	return false;
}

static __always_inline pgd_t *kpkeys_walk_root(pgd_t *pgd, unsigned long addr)
{
	return pgd;
}

static __always_inline bool kpkeys_is_user_root(const pgd_t *pgd)
{
	return true;
}

static inline pgprot_t kpkeys_pgprot_pgtable(pgprot_t prot)
{
	return prot;
}

static __always_inline void kpkeys_enter_lazy_mmu_mode(void)
{
}

static __always_inline void kpkeys_leave_lazy_mmu_mode(void)
{
}

#endif /* CONFIG_KPKEYS_HARDENED_PGTABLES */

#endif /* __ASM_KPKEYS_HARDENED_PGTABLES_H */
