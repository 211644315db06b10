// SPDX-License-Identifier: GPL-2.0-only
/*
 * Crashes the kernel from a timer interrupt, as soon as that interrupts an open
 * window, or a function. The timer is on the CPU that loads the module. See
 * harness/field/crash-kernel.
 */
#include <linux/hrtimer.h>
#include <linux/kallsyms.h>
#include <linux/module.h>
#include <linux/sysrq.h>

#include <asm/irq_regs.h>

static bool window;
module_param(window, bool, 0444);
MODULE_PARM_DESC(window, "Interrupt an open window.");
static char *function = "";
module_param(function, charp, 0444);
MODULE_PARM_DESC(function, "Interrupt a function with a name that begins so.");

static struct hrtimer timer;

static bool is_wanted(struct pt_regs *regs)
{
	char name[KSYM_SYMBOL_LEN];

	if (user_mode(regs))
		return false;
	if (window)
		return regs->kpkeys;
	sprint_symbol_no_offset(name, regs->pc);
	return strstarts(name, function);
}

static enum hrtimer_restart crash_tick(struct hrtimer *timer)
{
	struct pt_regs *regs = get_irq_regs();

	if (is_wanted(regs)) {
		pr_info("crash: %s is interrupted\n", window ? "an open window" : "a function");
		handle_sysrq('c');
	}
	hrtimer_forward_now(timer, us_to_ktime(100));
	return HRTIMER_RESTART;
}

static int __init crash_init(void)
{
	hrtimer_setup(&timer, crash_tick, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	hrtimer_start(&timer, us_to_ktime(100), HRTIMER_MODE_REL_PINNED_HARD);
	return 0;
}
module_init(crash_init);

static void __exit crash_exit(void)
{
	hrtimer_cancel(&timer);
}
module_exit(crash_exit);

MODULE_DESCRIPTION("Crash from an interrupt");
MODULE_LICENSE("GPL");
