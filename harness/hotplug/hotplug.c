// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that comes and goes: what is behind "mem=" on the command line is added
 * when the module is loaded, and removed when it is unloaded. See
 * harness/userland/hotplug.
 */
#include <linux/memory_hotplug.h>
#include <linux/module.h>

static unsigned long long start;
module_param(start, ullong, 0444);
static unsigned long long size;
module_param(size, ullong, 0444);

static int __init hotplug_init(void)
{
	return add_memory(0, start, size, MHP_NONE);
}
module_init(hotplug_init);

static void __exit hotplug_exit(void)
{
	if (remove_memory(start, size))
		pr_err("hotplug: the memory is still online\n");
}
module_exit(hotplug_exit);

MODULE_DESCRIPTION("Memory hotplug without firmware");
MODULE_LICENSE("GPL");
