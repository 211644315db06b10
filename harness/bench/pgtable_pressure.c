// SPDX-License-Identifier: GPL-2.0-only
/*
 * What "make pressure" does inside the kernel: use up memory, and take tables then.
 *
 * "NAME NUMBER" written to /sys/kernel/debug/pgtable_pressure does it, and a read
 * says how it went. The clock is the kernel's, which is virtual time in a machine
 * that counts instructions.
 */
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/pgalloc.h>
#include <linux/random.h>
#include <linux/sched/clock.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#if __has_include(<linux/kpkeys_pgtable_cache.h>)
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/kpkeys_pgtable_cache.h>

static unsigned long shrink(unsigned long nr)
{
	return kpkeys_hardened_pgtables_enabled() ? kpkeys_pgtable_cache_shrink(nr) : 0;
}
#else
static unsigned long shrink(unsigned long nr)
{
	return 0;
}
#endif

static LIST_HEAD(pages);
static struct ptdesc **tables;
static unsigned long nr_tables;
static char result[80];

/* All of memory as single pages, and then every fourth of it free: no two are together. */
static void fragment(unsigned long unused)
{
	unsigned long taken = 0, freed = 0;
	struct page *page, *next;

	for (;;) {
		page = alloc_page(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
		if (!page)
			break;
		list_add(&page->lru, &pages);
		taken++;
	}
	list_for_each_entry_safe(page, next, &pages, lru) {
		if (page_to_pfn(page) % 4)
			continue;
		list_del(&page->lru);
		__free_page(page);
		freed++;
	}
	scnprintf(result, sizeof(result), "taken %lu freed %lu\n", taken, freed);
}

static void take(unsigned long nr)
{
	unsigned long failed = 0, slowest = 0, before = nr_tables;
	u64 start, took;

	while (nr-- && nr_tables < 65536) {
		start = local_clock();
		tables[nr_tables] = pagetable_alloc(GFP_PGTABLE_KERNEL, 0);
		took = local_clock() - start;
		slowest = max(slowest, took);
		if (tables[nr_tables])
			nr_tables++;
		else if (++failed > 1000)
			break;
	}
	scnprintf(result, sizeof(result), "tables %lu failed %lu slowest %lu\n",
		  nr_tables - before, failed, slowest);
}

/* Free all tables but @percent of them, which are spread at random. */
static void keep(unsigned long percent)
{
	unsigned long i, kept = 0;

	for (i = 0; i < nr_tables; i++) {
		if (get_random_u32_below(100) < percent)
			tables[kept++] = tables[i];
		else
			pagetable_free(tables[i]);
	}
	nr_tables = kept;
	scnprintf(result, sizeof(result), "kept %lu\n", kept);
}

static void timed_shrink(unsigned long nr)
{
	u64 start = local_clock();
	unsigned long given = shrink(nr);

	scnprintf(result, sizeof(result), "given_back %lu took %llu\n", given,
		  local_clock() - start);
}

static const struct {
	const char *name;
	void (*run)(unsigned long arg);
} commands[] = {
	{ "fragment", fragment }, { "take", take }, { "keep", keep }, { "shrink", timed_shrink },
};

static ssize_t pressure_write(struct file *file, const char __user *from, size_t size,
			      loff_t *pos)
{
	char text[32] = "", *arg = text;
	const char *name;
	unsigned long n;
	int i;

	if (size >= sizeof(text) || copy_from_user(text, from, size))
		return -EFAULT;
	name = strsep(&arg, " ");
	if (!arg || kstrtoul(strim(arg), 0, &n))
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(name, commands[i].name))
			continue;
		commands[i].run(n);
		return size;
	}

	return -EINVAL;
}

static ssize_t pressure_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	return simple_read_from_buffer(to, size, pos, result, strlen(result));
}

static const struct file_operations pressure_fops = {
	.write	= pressure_write,
	.read	= pressure_read,
};

static int __init pressure_init(void)
{
	tables = kvcalloc(65536, sizeof(*tables), GFP_KERNEL);
	if (!tables)
		return -ENOMEM;
	debugfs_create_file("pgtable_pressure", 0600, NULL, NULL, &pressure_fops);

	return 0;
}
late_initcall(pressure_init);
