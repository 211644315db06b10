// SPDX-License-Identifier: GPL-2.0-only
/*
 * Does each CPU see at once that a static key was switched? One CPU switches it,
 * the others execute its branch in a loop, and all are asked after each time.
 * QEMU, with a thread for each CPU, may go on with the instruction that was
 * replaced. See harness/field/07-text-and-code.
 */
#include <linux/cpu.h>
#include <linux/jump_label.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/smp.h>

static unsigned int rounds = 1000;
module_param(rounds, uint, 0444);

static DEFINE_STATIC_KEY_FALSE(key);
static DEFINE_PER_CPU(struct task_struct *, threads);
static atomic_t stale;

static noinline bool branch(void)
{
	return static_branch_unlikely(&key);
}

static void check(void *on)
{
	if (branch() != !!on)
		atomic_inc(&stale);
}

static int execute(void *unused)
{
	while (!kthread_should_stop()) {
		branch();
		cond_resched();
	}
	return 0;
}

static int __init toggle_init(void)
{
	unsigned int n;
	int cpu;

	for_each_online_cpu(cpu)
		if (cpu)
			per_cpu(threads, cpu) = kthread_run_on_cpu(execute, NULL, cpu, "toggle/%u");
	for (n = 0; n < rounds; n++) {
		if (n & 1)
			static_branch_disable(&key);
		else
			static_branch_enable(&key);
		on_each_cpu(check, n & 1 ? NULL : &key, true);
	}
	for_each_online_cpu(cpu)
		if (!IS_ERR_OR_NULL(per_cpu(threads, cpu)))
			kthread_stop(per_cpu(threads, cpu));
	pr_info("toggle: rounds=%u stale=%d\n", rounds, atomic_read(&stale));
	return 0;
}
module_init(toggle_init);

MODULE_DESCRIPTION("A static key that is switched");
MODULE_LICENSE("GPL");
