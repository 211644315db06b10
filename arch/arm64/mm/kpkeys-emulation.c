// SPDX-License-Identifier: GPL-2.0-only
/*
 * Choice of the kpkeys backend, and stand-ins for FEAT_S1POE where it is
 * missing. Not for merging; see asm/kpkeys-emulation.h.
 */
#define pr_fmt(fmt) "kpkeys: " fmt

#include <linux/cpuhotplug.h>
#include <linux/export.h>
#include <linux/init.h>
#include <linux/kpkeys.h>
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/pgtable.h>
#include <linux/set_memory.h>

#include <asm/cpufeature.h>

DEFINE_PER_CPU(u64, kpkeys_por_granted);
/* For what inline functions assert in modules. */
EXPORT_PER_CPU_SYMBOL_GPL(kpkeys_por_granted);

static bool kpkeys_off __ro_after_init;
static bool kpkeys_check __ro_after_init;

static int __init kpkeys_setup(char *arg)
{
	if (!arg)
		return -EINVAL;

	kpkeys_off = !strcmp(arg, "off");
	kpkeys_check = !strcmp(arg, "check");

	return kpkeys_off || kpkeys_check || !strcmp(arg, "enforce") ? 0 : -EINVAL;
}
early_param("kpkeys", kpkeys_setup);

/* "kpkeys_test_bbml3=boot-cpu": as if the other CPUs had no BBM level 3. */
static bool bbml3_on_boot_cpu_only __ro_after_init;

/* "kpkeys_test_kpkeys=boot-cpu": as if they had no kpkeys. */
static bool kpkeys_on_boot_cpu_only __ro_after_init;

static int __init kpkeys_test_bbml3_setup(char *arg)
{
	bbml3_on_boot_cpu_only = arg && !strcmp(arg, "boot-cpu");

	return bbml3_on_boot_cpu_only ? 0 : -EINVAL;
}
early_param("kpkeys_test_bbml3", kpkeys_test_bbml3_setup);

static int __init kpkeys_test_kpkeys_setup(char *arg)
{
	kpkeys_on_boot_cpu_only = arg && !strcmp(arg, "boot-cpu");

	return kpkeys_on_boot_cpu_only ? 0 : -EINVAL;
}
early_param("kpkeys_test_kpkeys", kpkeys_test_kpkeys_setup);

#ifdef CONFIG_KPKEYS_HARDENED_PGTABLES
/*
 * "kpkeys_test_phases": in each phase of boot, take a page out of the direct map and put
 * it back, unless @change is false, and allocate a table.
 */
static int test_phase(const char *phase, bool change)
{
	struct page *page = alloc_page(GFP_KERNEL);
	struct ptdesc *table = pagetable_alloc(GFP_KERNEL, 0);
	int ret = -EAGAIN;

	if (page && change)
		ret = set_direct_map_invalid_noflush(page);
	if (!ret)
		ret = set_direct_map_default_noflush(page);
	pr_info("test: %s: direct map %d, split %spossible, table %sprotected\n", phase, ret,
		split_kernel_leaf_mapping_possible() ? "" : "im",
		table && arch_kpkeys_is_protected(ptdesc_address(table)) ? "" : "not ");
	if (table)
		pagetable_free(table);
	if (page)
		__free_page(page);

	return 0;
}

#define TEST_PHASE(name)						\
static int __init test_##name(void)					\
{									\
	return test_phases ? test_phase(#name, true) : 0;		\
}									\
name##_initcall(test_##name)

static bool test_phases __ro_after_init;

static int test_secondary(unsigned int cpu)
{
	/* A change would warn, as it does in the base. */
	return test_phase("secondary", false);
}

static int __init kpkeys_test_phases_setup(char *arg)
{
	test_phases = true;

	return 0;
}
early_param("kpkeys_test_phases", kpkeys_test_phases_setup);

TEST_PHASE(console);
TEST_PHASE(early);
TEST_PHASE(pure);
TEST_PHASE(core);
TEST_PHASE(late);

static int __init test_secondary_init(void)
{
	if (!test_phases)
		return 0;

	return min(cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "kpkeys:test",
					     test_secondary, NULL), 0);
}
early_initcall(test_secondary_init);
#endif

bool kpkeys_test_lacks_bbml3(void)
{
	return bbml3_on_boot_cpu_only && smp_processor_id();
}

bool kpkeys_test_lacks_kpkeys(void)
{
	return kpkeys_on_boot_cpu_only && smp_processor_id();
}

enum kpkeys_backend kpkeys_backend(u64 mmfr3)
{
	if (kpkeys_off)
		return KPKEYS_BACKEND_NONE;
	if (kpkeys_check)
		return KPKEYS_BACKEND_CHECKING;
	if (!SYS_FIELD_GET(ID_AA64MMFR3_EL1, S1PIE, mmfr3))
		return KPKEYS_BACKEND_NONE;
	if (SYS_FIELD_GET(ID_AA64MMFR3_EL1, S1POE, mmfr3))
		return KPKEYS_BACKEND_POE;

	return KPKEYS_BACKEND_PIE;
}

static int __init kpkeys_report_backend(void)
{
	const char *name = "POE";

	if (!arch_supports_kpkeys()) {
		pr_info("no backend\n");
		return 0;
	}
	if (kpkeys_checking())
		name = "PIE emulation (checking)";
	else if (kpkeys_emulated())
		name = "PIE emulation (enforcing)";
	pr_info("backend %s\n", name);

	return 0;
}
early_initcall(kpkeys_report_backend);

/* The leaf that maps a kernel address, as an entry of the last level. */
static pteval_t kernel_leaf(unsigned long addr)
{
	pgd_t *pgdp = pgd_offset_k(addr);
	p4d_t *p4dp;
	pud_t *pudp, pud;
	pmd_t *pmdp, pmd;

	if (pgd_none(READ_ONCE(*pgdp)))
		return 0;
	p4dp = p4d_offset(pgdp, addr);
	if (p4d_none(READ_ONCE(*p4dp)))
		return 0;
	pudp = pud_offset(p4dp, addr);
	pud = READ_ONCE(*pudp);
	if (pud_none(pud) || pud_leaf(pud))
		return pud_val(pud);
	pmdp = pmd_offset(pudp, addr);
	pmd = READ_ONCE(*pmdp);
	if (pmd_none(pmd) || pmd_leaf(pmd))
		return pmd_val(pmd);

	return pte_val(__ptep_get(pte_offset_kernel(pmdp, addr)));
}

bool kpkeys_checking_denies_write(const void *addr)
{
	u64 pkey = FIELD_GET(PTE_PO_IDX_MASK, kernel_leaf((unsigned long)addr));

	return !(POR_ELx_PERM_GET(pkey, arch_kpkeys_read()) & POE_W);
}
