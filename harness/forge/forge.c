// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an attacker does who can write to one address of the kernel: let the
 * address of one user page lead to another page. For the end of "make demo".
 */
#define pr_fmt(fmt) "forge: " fmt

#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/pgtable.h>
#include <linux/uaccess.h>

#include <asm/tlbflush.h>

static u64 *entry_of(unsigned long addr)
{
	pud_t *pudp = pud_offset(p4d_offset(pgd_offset(current->mm, addr), addr), addr);

	return (u64 *)pte_offset_kernel(pmd_offset(pudp, addr), addr);
}

static int __init forge_init(void)
{
	static const char mine[] = "my own page", other[] = "a page that is not mine";
	unsigned long addr = vm_mmap(NULL, 0, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, 0);
	char text[sizeof(other)];
	u64 *entry, was;

	if (IS_ERR_VALUE(addr) ||
	    copy_to_user((void __user *)addr, mine, sizeof(mine)) ||
	    copy_to_user((void __user *)(addr + PAGE_SIZE), other, sizeof(other)))
		return -ENOMEM;

	entry = entry_of(addr);
	was = READ_ONCE(*entry);
	pr_info("writing to the page table at %px\n", entry);
	WRITE_ONCE(*entry, READ_ONCE(*entry_of(addr + PAGE_SIZE)));
	flush_tlb_mm(current->mm);

	if (copy_from_user(text, (void __user *)addr, sizeof(text)))
		return -EFAULT;
	if (strcmp(text, other))
		pr_info("it had no effect\n");
	else
		pr_info("it worked: what was '%s' is '%s' now\n", mine, text);

	/* Each page is mapped once when the process ends. */
	WRITE_ONCE(*entry, was);
	flush_tlb_mm(current->mm);
	return -EAGAIN;		/* not to stay loaded */
}
module_init(forge_init);

MODULE_DESCRIPTION("A forged write to a page table");
MODULE_LICENSE("GPL");
