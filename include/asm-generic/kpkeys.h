/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __ASM_GENERIC_KPKEYS_H
#define __ASM_GENERIC_KPKEYS_H

/*
 * Protection keys of the kernel's own mappings. An architecture may define other
 * values before it includes this file. They are preprocessor constants because
 * assembly code initialises the register, too.
 */

/* All memory without a pkey of its own: every context may read and write it. */
#ifndef KPKEYS_PKEY_DEFAULT
#define KPKEYS_PKEY_DEFAULT	0
#endif

/* Page-table pages: every context may read them, one may write them. */
#ifndef KPKEYS_PKEY_PGTABLES
#define KPKEYS_PKEY_PGTABLES	1
#endif

#ifndef __ASSEMBLER__
#ifndef CONFIG_KPKEYS

#include <linux/types.h>

static __always_inline bool arch_supports_kpkeys(void)
{
	return false;
}

static __always_inline u64 arch_kpkeys_read(void)
{
	return 0;
}

static __always_inline void arch_kpkeys_write(u64 reg)
{
}

static __always_inline u64 arch_kpkeys_context(u64 reg, enum kpkeys_ctx ctx)
{
	return reg;
}

#endif /* !CONFIG_KPKEYS */
#endif /* !__ASSEMBLER__ */

#endif /* __ASM_GENERIC_KPKEYS_H */
