/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __ASM_KPKEYS_H
#define __ASM_KPKEYS_H

#include <asm/sysreg.h>

#include <asm-generic/kpkeys.h>

/* POR_EL1 in KPKEYS_CTX_DEFAULT. Unused pkeys deny all accesses. */
#define POR_EL1_INIT							\
	(POR_ELx_PERM_PREP(KPKEYS_PKEY_DEFAULT, POE_RWX) |		\
	 POR_ELx_PERM_PREP(KPKEYS_PKEY_PGTABLES, POE_R))

#ifndef __ASSEMBLER__

#ifdef CONFIG_KPKEYS

#include <linux/bitfield.h>

#include <asm/barrier.h>
#include <asm/cpufeature.h>
#include <asm/pgtable-hwdef.h>
#include <asm/pgtable-types.h>

static __always_inline bool arch_supports_kpkeys(void)
{
	return system_supports_kpkeys();
}

static __always_inline u64 arch_kpkeys_read(void)
{
	return read_sysreg_s(SYS_POR_EL1);
}

static __always_inline void arch_kpkeys_write(u64 reg)
{
	/* Keep the compiler from moving accesses across the MSR. */
	barrier();
	write_sysreg_s(reg, SYS_POR_EL1);
	isb();
}

static __always_inline u64 arch_kpkeys_context(u64 reg, enum kpkeys_ctx ctx)
{
	switch (ctx) {
	case KPKEYS_CTX_PGTABLES:
		return reg | POR_ELx_PERM_PREP(KPKEYS_PKEY_PGTABLES, POE_W);
	case KPKEYS_CTX_DEFAULT:
	default:
		return POR_EL1_INIT;
	}
}

/* The register of a thread that has not run yet. */
static inline u64 arch_kpkeys_init(void)
{
	return POR_EL1_INIT;
}

/* The bits of a leaf entry that select the pkey, and their value for @pkey. */
#define KPKEYS_PTE_MASK		PTE_PO_IDX_MASK

static inline pteval_t kpkeys_pte_bits(int pkey)
{
	return FIELD_PREP(PTE_PO_IDX_MASK, pkey);
}

#else /* !CONFIG_KPKEYS */

#define KPKEYS_PTE_MASK		0

static inline u64 kpkeys_pte_bits(int pkey)
{
	return 0;
}

#endif /* CONFIG_KPKEYS */
#endif /* !__ASSEMBLER__ */

#endif /* __ASM_KPKEYS_H */
