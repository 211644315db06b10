// SPDX-License-Identifier: GPL-2.0-only
/*
 * What "make bench" measures inside the kernel. Built into kernels that have the
 * series, parts of it, or nothing of it, so it only uses what all of them have.
 *
 * "NAME" written to /sys/kernel/debug/pgtable_bench runs it; what is between the
 * marks is counted by harness/bench/counter.c, a read says how many operations
 * that were. /sys/kernel/debug/direct_map says how much memory is mapped by which
 * kind of leaf.
 */
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/kthread.h>
#include <linux/memblock.h>
#include <linux/mm.h>
#include <linux/pgalloc.h>
#include <linux/rcupdate.h>
#include <linux/seq_file.h>
#include <linux/set_memory.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#ifdef CONFIG_KPKEYS_SPLIT_RESERVE
#include <linux/kpkeys_split_reserve.h>

static int bench_reserve(int nr)
{
	int i, ret = 0;

	for (i = 0; i < nr && !ret; i++) {
		KPKEYS_SPLIT_RESERVE_ONSTACK(reserve);

		ret = kpkeys_split_reserve_fill(&reserve, 2);
	}
	return ret ?: nr;
}
#else
static int bench_reserve(int nr)
{
	return -EOPNOTSUPP;
}
#endif

#if __has_include(<linux/kpkeys_pgtable_cache.h>)
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/kpkeys_pgtable_cache.h>

/* So that it has to be refilled. */
static void bench_cache_shrink(void)
{
	if (kpkeys_hardened_pgtables_enabled())
		kpkeys_pgtable_cache_shrink(ULONG_MAX);
}
#else
static void bench_cache_shrink(void)
{
}
#endif

#define mark_begin()	asm volatile("hint #112" : : : "memory")
#define mark_end()	asm volatile("hint #113" : : : "memory")

#define NR_TABLES	2048
#define NR_BLOCKS	32

static struct ptdesc *tables[NR_TABLES];
static unsigned long nr_operations;

static int table_pair(int nr)
{
	struct ptdesc *ptdesc;
	int i;

	for (i = 0; i < nr; i++) {
		ptdesc = pagetable_alloc(GFP_PGTABLE_KERNEL, 0);
		if (!ptdesc)
			return -ENOMEM;
		pagetable_free(ptdesc);
	}
	return nr;
}

static int many_tables(int nr)
{
	int i, n;

	for (n = 0; n < nr; n++) {
		tables[n] = pagetable_alloc(GFP_PGTABLE_KERNEL, 0);
		if (!tables[n])
			break;
	}
	for (i = 0; i < n; i++)
		pagetable_free(tables[i]);
	return n == nr ? nr : -ENOMEM;
}

#define BURST	20

static atomic_t nr_at_work, nr_done;

static int burst(void *data)
{
	struct ptdesc *mine[BURST] = {};
	int i, n;

	/* All at once. */
	while (atomic_read(&nr_at_work) < num_online_cpus())
		cpu_relax();
	for (n = 0; n < *(int *)data; n += BURST) {
		for (i = 0; i < BURST; i++)
			mine[i] = pagetable_alloc(GFP_PGTABLE_KERNEL, 0);
		for (i = 0; i < BURST; i++) {
			if (mine[i])
				pagetable_free(mine[i]);
		}
	}
	atomic_inc(&nr_done);
	while (!kthread_should_stop())
		schedule_timeout_uninterruptible(1);

	return 0;
}

/* Tables of all CPUs at once, a few at a time, so that some of them go through locks. */
static int contended(int nr)
{
	struct task_struct *t[NR_CPUS] = {};
	int cpu, ret = nr * num_online_cpus();

	atomic_set(&nr_at_work, 0);
	atomic_set(&nr_done, 0);
	for_each_online_cpu(cpu) {
		t[cpu] = kthread_create_on_cpu(burst, &nr, cpu, "bench/%u");
		if (IS_ERR(t[cpu]))
			return PTR_ERR(t[cpu]);
		atomic_inc(&nr_at_work);
		wake_up_process(t[cpu]);
	}
	while (atomic_read(&nr_done) < num_online_cpus())
		schedule_timeout_uninterruptible(1);
	for_each_online_cpu(cpu)
		kthread_stop(t[cpu]);

	return ret;
}

static int vmalloc_pages(int pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		void *p = vmalloc(pages * PAGE_SIZE);

		if (!p)
			return -ENOMEM;
		vfree(p);
	}
	return nr;
}

/* Addresses of ranges that are gone are used again only after all of them were flushed. */
static int map_ram(int nr)
{
	struct page *page = alloc_page(GFP_KERNEL);
	int i;

	if (!page)
		return -ENOMEM;
	for (i = 0; i < nr; i++) {
		void *p = vm_map_ram(&page, 1, NUMA_NO_NODE);

		if (!p)
			break;
		vm_unmap_ram(p, 1);
	}
	__free_page(page);
	return i == nr ? nr : -ENOMEM;
}

static struct page *block[NR_BLOCKS];

static int set_valid_split(int nr)
{
	int i, ret = 0;

	for (i = 0; i < nr && !ret; i++)
		ret = set_direct_map_valid_noflush(block[0], 1, i & 1);
	return ret ?: nr;
}

static int set_valid_block(int nr)
{
	int i, ret = 0;

	for (i = 0; i < nr && !ret; i++)
		ret = set_direct_map_valid_noflush(block[i] + 7, 1, false);
	return ret ?: nr;
}

static int blocks_alloc(void)
{
	int i;

	for (i = 0; i < NR_BLOCKS; i++) {
		block[i] = alloc_pages(GFP_KERNEL, PMD_SHIFT - PAGE_SHIFT);
		if (!block[i])
			return -ENOMEM;
	}
	return 0;
}

static void blocks_free(void)
{
	int i;

	for (i = 0; i < NR_BLOCKS && block[i]; i++) {
		set_direct_map_valid_noflush(block[i], 8, true);
		__free_pages(block[i], PMD_SHIFT - PAGE_SHIFT);
		block[i] = NULL;
	}
}

#define MEASURE(expr) ({ long __n; mark_begin(); __n = (expr); mark_end(); __n; })

static long run(const char *name)
{
	long n = -EINVAL;

	/* Or tables of processes that have ended are freed while something is measured. */
	rcu_barrier();
	if (!strcmp(name, "settle"))
		return 1;
	if (!strcmp(name, "table-alloc-free")) {
		table_pair(100);
		return MEASURE(table_pair(1000));
	}
	if (!strcmp(name, "tables-2048")) {
		/* What the page allocator then has at hand is the same for all. */
		many_tables(NR_TABLES);
		bench_cache_shrink();
		return MEASURE(many_tables(NR_TABLES));
	}
	if (!strcmp(name, "contended"))
		return MEASURE(contended(20000));
	if (sscanf(name, "vmalloc-%ld", &n) == 1) {
		vmalloc_pages(n, 200);
		/* As many areas are purged in each kernel. */
		vm_unmap_aliases();
		return MEASURE(vmalloc_pages(n, 200));
	}
	if (!strcmp(name, "vm-map-ram-1")) {
		map_ram(1000);
		return MEASURE(map_ram(1000));
	}
	if (!strcmp(name, "set-memory-split") || !strcmp(name, "set-memory-block")) {
		n = blocks_alloc();
		if (!n && !strcmp(name, "set-memory-block")) {
			n = MEASURE(set_valid_block(NR_BLOCKS));
		} else if (!n) {
			set_valid_split(2);
			n = MEASURE(set_valid_split(1000));
		}
		blocks_free();
		return n;
	}
	if (!strcmp(name, "reserve-fill-return")) {
		bench_reserve(100);
		return MEASURE(bench_reserve(1000));
	}
	return n;
}

static ssize_t bench_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	char name[32] = "";
	long n;

	if (size >= sizeof(name) || copy_from_user(name, from, size))
		return -EFAULT;
	n = run(strim(name));
	if (n < 0)
		return n;
	nr_operations = n;
	return size;
}

static ssize_t bench_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	char text[24];

	return simple_read_from_buffer(to, size, pos, text,
				       scnprintf(text, sizeof(text), "%lu\n", nr_operations));
}

static const struct file_operations bench_fops = {
	.write	= bench_write,
	.read	= bench_read,
};

static int direct_map_show(struct seq_file *m, void *v)
{
	unsigned long addr = (unsigned long)__va(memblock_start_of_DRAM());
	unsigned long end = (unsigned long)__va(memblock_end_of_DRAM() - 1) + 1;
	unsigned long by_pud = 0, by_contpmd = 0, by_pmd = 0, by_contpte = 0, by_pte = 0;

	while (addr < end) {
		pud_t *pudp = pud_offset(p4d_offset(pgd_offset_k(addr), addr), addr);
		pmd_t *pmdp;
		pte_t pte;

		if (pud_leaf(pudp_get(pudp))) {
			by_pud += PUD_SIZE;
			addr += PUD_SIZE;
			continue;
		}
		pmdp = pmd_offset(pudp, addr);
		if (pmd_leaf(pmdp_get(pmdp))) {
			*(pmd_cont(pmdp_get(pmdp)) ? &by_contpmd : &by_pmd) += PMD_SIZE;
			addr += PMD_SIZE;
			continue;
		}
		pte = __ptep_get(pte_offset_kernel(pmdp, addr));
		*(pte_cont(pte) ? &by_contpte : &by_pte) += PAGE_SIZE;
		addr += PAGE_SIZE;
	}
	seq_printf(m, "MapPUD: %lu kB\nMapContPMD: %lu kB\nMapPMD: %lu kB\nMapContPTE: %lu kB\nMapPTE: %lu kB\n",
		   by_pud >> 10, by_contpmd >> 10, by_pmd >> 10, by_contpte >> 10, by_pte >> 10);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(direct_map);

static int __init bench_init(void)
{
	debugfs_create_file("direct_map", 0400, NULL, NULL, &direct_map_fops);
	debugfs_create_file("pgtable_bench", 0600, NULL, NULL, &bench_fops);
	return 0;
}
late_initcall(bench_init);
