// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pseudo-NMIs by the cycle counter of each CPU, while the module is loaded: how
 * many there were, how many interrupted an open window, and how many ran with
 * one. See harness/field/17-pseudo-nmi.
 */
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/perf_event.h>

#include <asm/kpkeys.h>

static unsigned long period = 2000000;
module_param(period, ulong, 0444);
MODULE_PARM_DESC(period, "CPU cycles between two of them.");

struct counts {
	unsigned long all;
	unsigned long irqs;		/* interrupts, which are no NMI */
	unsigned long interrupted;
	unsigned long ran_open;
};

static DEFINE_PER_CPU(struct counts, counts);
static DEFINE_PER_CPU(struct perf_event *, events);

static bool window_is_open(void)
{
	return arch_supports_kpkeys() && arch_kpkeys_read() != arch_kpkeys_init();
}

static void count_nmi(struct perf_event *event, struct perf_sample_data *data,
		      struct pt_regs *regs)
{
	struct counts *c = this_cpu_ptr(&counts);

	c->all++;
	c->irqs += !in_nmi();
	c->interrupted += !user_mode(regs) && regs->kpkeys;
	c->ran_open += window_is_open();
}

static void nmis_exit(void)
{
	struct counts sum = {};
	int cpu;

	for_each_possible_cpu(cpu) {
		struct counts *c = per_cpu_ptr(&counts, cpu);

		if (per_cpu(events, cpu))
			perf_event_release_kernel(per_cpu(events, cpu));
		sum.all += c->all;
		sum.irqs += c->irqs;
		sum.interrupted += c->interrupted;
		sum.ran_open += c->ran_open;
	}
	pr_info("nmi: all=%lu irqs=%lu interrupted=%lu ran_open=%lu\n", sum.all, sum.irqs,
		sum.interrupted, sum.ran_open);
}
module_exit(nmis_exit);

static int __init nmis_init(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_CPU_CYCLES,
		.size = sizeof(attr),
		.sample_period = period,
		.pinned = 1,
	};
	int cpu;

	for_each_online_cpu(cpu) {
		struct perf_event *event;

		event = perf_event_create_kernel_counter(&attr, cpu, NULL, count_nmi, NULL);
		if (IS_ERR(event)) {
			nmis_exit();
			return PTR_ERR(event);
		}
		per_cpu(events, cpu) = event;
	}
	return 0;
}
module_init(nmis_init);

MODULE_DESCRIPTION("Pseudo-NMIs over windows");
MODULE_LICENSE("GPL");
