// SPDX-License-Identifier: GPL-2.0-only
/*
 * The interface of mm/kpkeys_pgtable_cache.c, on top of the allocator of another
 * version of kpkeys. "make compare V6=FILE" puts this in the place of the cache, and
 * FILE, unchanged, beside it as kpkeys_v6.h. The arm64 side is that of the stack
 * gfp-flag.
 *
 * What the series asks of a cache, and such a file does not know, is here: which
 * pages are in use, which are roots, and how many were taken. Taken pages are counted
 * by their changes of pkey, so that nothing rests on what the file counts. This state
 * is in ordinary memory: the glue measures, it does not protect.
 */
#define pr_fmt(fmt) "kpkeys: " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>

#include <linux/bitmap.h>
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/kpkeys.h>
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/kpkeys_pgtable_cache.h>
#include <linux/list.h>
#include <linux/memblock.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/pgalloc.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/set_memory.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include <asm/kpkeys_hardened_pgtables.h>

#define CREATE_TRACE_POINTS
#include <trace/events/kpkeys.h>

static unsigned long *used, *roots, base_pfn;
static atomic_long_t nr_taken, nr_used;
static struct shrinker *v6_shrinker;

VISIBLE_IF_KUNIT
struct page *kpkeys_pgtable_cache_alloc_pages(gfp_t gfp, unsigned int order, int nid)
{
	KUNIT_STATIC_STUB_REDIRECT(kpkeys_pgtable_cache_alloc_pages, gfp, order, nid);

	return alloc_pages(gfp, order);
}

VISIBLE_IF_KUNIT
int kpkeys_pgtable_cache_set_pkey(unsigned long addr, int nr, int pkey)
{
	KUNIT_STATIC_STUB_REDIRECT(kpkeys_pgtable_cache_set_pkey, addr, nr, pkey);

	return set_memory_pkey(addr, nr, pkey);
}

static int counted_set_pkey(unsigned long addr, int nr, int pkey)
{
	int ret = kpkeys_pgtable_cache_set_pkey(addr, nr, pkey);

	if (!ret)
		atomic_long_add(pkey == KPKEYS_PKEY_PGTABLES ? nr : -nr, &nr_taken);

	return ret;
}

static void recorded_shrinker_register(struct shrinker *shrinker)
{
	v6_shrinker = shrinker;
	shrinker_register(shrinker);
}

/* What the file calls: memory, pkeys and its shrinker are seen here. */
#undef alloc_pages
#define alloc_pages(gfp, order)	kpkeys_pgtable_cache_alloc_pages(gfp, order, NUMA_NO_NODE)
#define set_memory_pkey		counted_set_pkey
#define shrinker_register	recorded_shrinker_register

#include "kpkeys_v6_names.h"
#include "kpkeys_v6.h"

static bool has(const unsigned long *pages, unsigned long pfn)
{
	return pages && pfn >= base_pfn && pfn < max_pfn && test_bit(pfn - base_pfn, pages);
}

int __init kpkeys_pgtable_cache_init(void)
{
	size_t size;

	base_pfn = PHYS_PFN(memblock_start_of_DRAM());
	size = BITS_TO_LONGS(max_pfn - base_pfn) * sizeof(long);
	used = alloc_pages_exact(size, GFP_KERNEL | __GFP_ZERO);
	roots = alloc_pages_exact(size, GFP_KERNEL | __GFP_ZERO);
	if (!used || !roots)
		return -ENOMEM;
	V6_INIT();

	return 0;
}

struct page *kpkeys_pgtable_cache_alloc(gfp_t gfp)
{
	struct page *page = V6_ALLOC(gfp);

	if (page) {
		set_bit(page_to_pfn(page) - base_pfn, used);
		atomic_long_inc(&nr_used);
	}

	return page;
}

bool kpkeys_pgtable_cache_in_use(struct page *page)
{
	return has(used, page_to_pfn(page));
}

/* The free pages of the file are not known one by one. */
bool kpkeys_pgtable_cache_owns(struct page *page)
{
	return kpkeys_pgtable_cache_in_use(page);
}

bool kpkeys_pgtable_cache_add_root(struct page *page)
{
	if (kpkeys_pgtable_cache_in_use(page))
		set_bit(page_to_pfn(page) - base_pfn, roots);

	return kpkeys_pgtable_cache_in_use(page);
}

bool kpkeys_pgtable_cache_is_root(unsigned long pfn)
{
	return has(roots, pfn);
}

bool kpkeys_pgtable_cache_del_root(struct page *page)
{
	return has(roots, page_to_pfn(page)) &&
	       test_and_clear_bit(page_to_pfn(page) - base_pfn, roots);
}

bool kpkeys_pgtable_cache_free(struct page *page)
{
	if (!kpkeys_pgtable_cache_in_use(page))
		return false;
	clear_bit(page_to_pfn(page) - base_pfn, used);
	atomic_long_dec(&nr_used);
	V6_FREE(page);

	return true;
}

int kpkeys_pgtable_cache_prepare_split(void)
{
	return V6_PREPARE();
}

bool kpkeys_pgtable_cache_ready_for_split(void)
{
	return V6_READY();
}

unsigned long kpkeys_pgtable_cache_shrink(unsigned long nr_pages)
{
	unsigned long given = 0, nr;

	while (v6_shrinker && given < nr_pages) {
		struct shrink_control sc = {
			.gfp_mask = GFP_KERNEL,
			.nr_to_scan = min(nr_pages - given, 512UL),
		};

		sc.nr_scanned = sc.nr_to_scan;
		nr = v6_shrinker->scan_objects(v6_shrinker, &sc);
		if (!nr || nr == SHRINK_STOP)
			break;
		given += nr;
	}

	return given;
}

void kpkeys_pgtable_cache_stats(struct kpkeys_pgtable_cache_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	stats->taken = atomic_long_read(&nr_taken);
	stats->in_use = atomic_long_read(&nr_used);
	stats->cached = stats->taken - stats->in_use;
}

static int stats_show(struct seq_file *m, void *v)
{
	struct kpkeys_pgtable_cache_stats stats;

	kpkeys_pgtable_cache_stats(&stats);
	seq_printf(m, "taken %lu\ncached %lu\nin_use %lu\n", stats.taken, stats.cached,
		   stats.in_use);

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int __init glue_late_init(void)
{
	debugfs_create_file("kpkeys_pgtable_cache", 0400, NULL, NULL, &stats_fops);

	return 0;
}
late_initcall(glue_late_init);
