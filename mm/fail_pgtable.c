// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fault injection for protected page tables: changes of pkeys, and allocations.
 */
#include <linux/debugfs.h>
#include <linux/fail_pgtable.h>
#include <linux/fault-inject.h>
#include <linux/gfp.h>
#include <linux/init.h>

static DECLARE_FAULT_ATTR(fail_set_memory_pkey);
static DECLARE_FAULT_ATTR(fail_pgtable_alloc);

/*
 * setup_fault_attr() cannot be used this early: it seeds a random number
 * generator, which allocates. Probabilities below 100 need this generator.
 */
static int __init setup_early_fault_attr(struct fault_attr *attr, const char *str)
{
	int space, times;

	if (sscanf(str, "%lu,%lu,%d,%d", &attr->interval, &attr->probability,
		   &space, &times) != 4) {
		pr_warn("FAULT_INJECTION: failed to parse '%s'\n", str);
		return -EINVAL;
	}
	atomic_set(&attr->space, space);
	atomic_set(&attr->times, times);

	return 0;
}

static int __init setup_fail_set_memory_pkey(char *str)
{
	return setup_early_fault_attr(&fail_set_memory_pkey, str);
}
early_param("fail_set_memory_pkey", setup_fail_set_memory_pkey);

static int __init setup_fail_pgtable_alloc(char *str)
{
	return setup_early_fault_attr(&fail_pgtable_alloc, str);
}
early_param("fail_pgtable_alloc", setup_fail_pgtable_alloc);

/**
 * should_fail_set_memory_pkey() - should this change of a pkey fail?
 * @size: the size of the memory in bytes.
 *
 * Context: Any.
 * Return: true if it must fail, without changing anything.
 */
bool should_fail_set_memory_pkey(size_t size)
{
	return should_fail(&fail_set_memory_pkey, size);
}

/**
 * should_fail_pgtable_alloc() - should this allocation of a page table fail?
 * @gfp:   as for alloc_pages().
 * @order: as for alloc_pages().
 *
 * Context: Any.
 * Return: true if it must fail.
 */
bool should_fail_pgtable_alloc(gfp_t gfp, unsigned int order)
{
	if (gfp & __GFP_NOFAIL)
		return false;

	/*
	 * Unlike fail_page_alloc, report it despite __GFP_NOWARN: split reserves
	 * are filled with it.
	 */
	return should_fail(&fail_pgtable_alloc, PAGE_SIZE << order);
}

#ifdef CONFIG_FAULT_INJECTION_DEBUG_FS
static int __init fail_pgtable_debugfs(void)
{
	fault_create_debugfs_attr("fail_set_memory_pkey", NULL, &fail_set_memory_pkey);
	fault_create_debugfs_attr("fail_pgtable_alloc", NULL, &fail_pgtable_alloc);

	return 0;
}
late_initcall(fail_pgtable_debugfs);
#endif
