/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_FAIL_PGTABLE_H
#define _LINUX_FAIL_PGTABLE_H

#include <linux/types.h>

#ifdef CONFIG_FAIL_PGTABLE
bool should_fail_set_memory_pkey(size_t size);
bool should_fail_pgtable_alloc(gfp_t gfp, unsigned int order);
#else
static inline bool should_fail_set_memory_pkey(size_t size)
{
	return false;
}

static inline bool should_fail_pgtable_alloc(gfp_t gfp, unsigned int order)
{
	return false;
}
#endif

#endif /* _LINUX_FAIL_PGTABLE_H */
