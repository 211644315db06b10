// SPDX-License-Identifier: GPL-2.0-only
/*
 * A cache of protected pages for page tables, for a direct map of blocks.
 *
 * Setting the pkey of a single page splits the block that maps it. So pages are
 * taken from the page allocator in chunks, if possible as large as a block, and
 * the pkey is set for a chunk as a whole. Pages of chunks are handed out and come
 * back; a chunk all of whose pages are free is given back.
 *
 * Who owns what:
 *
 *  - refill_mutex: the reserve that a refill splits with, and the parked chunk.
 *    Nothing is allocated while it is held: a chunk is allocated before, and
 *    given back untouched if it is not wanted any more.
 *  - cache.lock: the free pages and their counts. A leaf lock; the pkey of memory
 *    is never changed under it.
 *  - a page that was handed out belongs to whoever got it.
 */
#define pr_fmt(fmt) "kpkeys: " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>

#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/kpkeys_pgtable_cache.h>
#include <linux/kpkeys_split_reserve.h>
#include <linux/memory.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rbtree.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/set_memory.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include <asm/kpkeys_hardened_pgtables.h>

#define CREATE_TRACE_POINTS
#include <trace/events/kpkeys.h>

/* A naturally aligned chunk has at most this demand: one table of each level. */
#define CHUNK_MAX_DEMAND	2

/* Below this, a refill is started in the background. */
#define LOW_MARK		64

/* What a shrinker leaves, so that the next few tables do not take it back. */
#define SHRINK_MARK		(2 * LOW_MARK)

/* What boot has to get along with until it may refill, which takes interrupts. */
#define BOOT_STOCK		256

/*
 * Who may refill leaves this many to those who may not: they have no other way
 * to a page.
 */
#define EMERGENCY_MARK		16

static const unsigned int chunk_orders[] = ARCH_KPKEYS_PGTABLE_CHUNK_ORDERS;
static_assert(ARRAY_SIZE(chunk_orders) <=
	      ARRAY_SIZE(((struct kpkeys_pgtable_cache_stats *)0)->refills));

/* A chunk that is not all free has at most 2^order - 1 free pages. */
#define NR_BUCKETS		(MAX_PAGE_ORDER + 1)

/**
 * struct chunk - pages whose pkey was set together
 * @rb:      in the tree of all chunks.
 * @node:    in a bucket or among the free chunks, if it has free pages.
 * @free:    free pages, linked by page->lru.
 * @nr_free: how many.
 * @pfn:     the first page.
 * @order:   how many pages, as a power of two.
 *
 * Invariant: the pages on @free, and no others, are PageOffline(): memory that has
 * any other pages which cannot be moved is refused before memory_callback() is
 * asked to give them back. Nobody saves the content of such pages. The page
 * allocator takes the mark off those that are given back.
 */
struct chunk {
	struct rb_node rb;
	struct list_head node;
	struct list_head free;
	unsigned int nr_free;
	unsigned int order;
	unsigned long pfn;
};

/*
 * Invariant: a chunk with free pages is in the bucket for their number, to within
 * a power of two; one all of whose pages are free is among the free chunks. Pages
 * are handed out from the lowest bucket first and from a free chunk last, so that
 * chunks become free.
 *
 * Whoever decides whether to refill or to shrink reads stats.cached and
 * free_chunk_pages without the lock, so each store to them is marked.
 */
static struct {
	spinlock_t lock;		/* all of this, and the free pages */
	struct rb_root chunks;		/* all of them, by address */
	struct list_head bucket[NR_BUCKETS];
	struct list_head free_chunks;
	unsigned long free_chunk_pages;	/* the pages of these */
	struct kpkeys_pgtable_cache_stats stats;
} cache = {
	.lock = __SPIN_LOCK_UNLOCKED(cache.lock),
	.chunks = RB_ROOT,
	.free_chunks = LIST_HEAD_INIT(cache.free_chunks),
};

static DEFINE_MUTEX(refill_mutex);

/*
 * Invariant: whenever refill_mutex is not held, the reserve covers the demand of
 * the next chunk to be tried: that of any new one, as it is filled up from the
 * yield of the last; or that of @parked, which is zero because its split is done
 * or, if that was what failed, still covered. What the reserve has lost since is in
 * the tables of that split, fewer than the pages of @parked: so these fill it up,
 * and leave some for the cache.
 */
static struct kpkeys_split_reserve refill_reserve =
	KPKEYS_SPLIT_RESERVE_INIT(refill_reserve);
static struct chunk *parked;

static void *chunk_address(struct chunk *chunk)
{
	return page_address(pfn_to_page(chunk->pfn));
}

static unsigned int chunk_pages(struct chunk *chunk)
{
	return 1U << chunk->order;
}

static int chunk_cmp(const void *key, const struct rb_node *node)
{
	struct chunk *chunk = rb_entry(node, struct chunk, rb);
	unsigned long pfn = *(const unsigned long *)key;

	if (pfn < chunk->pfn)
		return -1;

	return pfn >= chunk->pfn + chunk_pages(chunk);
}

static bool chunk_less(struct rb_node *a, const struct rb_node *b)
{
	return rb_entry(a, struct chunk, rb)->pfn < rb_entry(b, struct chunk, rb)->pfn;
}

static struct chunk *chunk_of(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);

	lockdep_assert_held(&cache.lock);

	return rb_entry_safe(rb_find(&pfn, &cache.chunks, chunk_cmp),
			     struct chunk, rb);
}

/* The number of free pages is about to change. */
static void chunk_dequeue(struct chunk *chunk)
{
	lockdep_assert_held(&cache.lock);

	list_del_init(&chunk->node);
	if (chunk->nr_free == chunk_pages(chunk))
		WRITE_ONCE(cache.free_chunk_pages, cache.free_chunk_pages - chunk->nr_free);
}

/* Put the chunk where its number of free pages says. */
static void chunk_queue(struct chunk *chunk)
{
	lockdep_assert_held(&cache.lock);

	if (chunk->nr_free == chunk_pages(chunk)) {
		WRITE_ONCE(cache.free_chunk_pages, cache.free_chunk_pages + chunk->nr_free);
		list_add(&chunk->node, &cache.free_chunks);
	} else if (chunk->nr_free) {
		list_add(&chunk->node, &cache.bucket[fls(chunk->nr_free)]);
	}
}

static void chunk_put_page(struct chunk *chunk, struct page *page)
{
	lockdep_assert_held(&cache.lock);
	/* More free pages than there are: one of them was freed twice. */
	VM_WARN_ON_ONCE(chunk->nr_free >= chunk_pages(chunk));

	__SetPageOffline(page);
	list_add(&page->lru, &chunk->free);
	chunk->nr_free++;
	WRITE_ONCE(cache.stats.cached, cache.stats.cached + 1);
}

/* A free page, if more than @leave are there. */
static struct page *take_page(unsigned long leave)
{
	struct chunk *chunk = NULL;
	struct page *page;
	int i;

	guard(spinlock_irqsave)(&cache.lock);

	if (cache.stats.cached <= leave)
		return NULL;
	if (cache.stats.cached <= EMERGENCY_MARK)
		cache.stats.emergency++;

	for (i = 0; i < NR_BUCKETS && !chunk; i++)
		chunk = list_first_entry_or_null(&cache.bucket[i], struct chunk, node);
	if (!chunk)
		chunk = list_first_entry_or_null(&cache.free_chunks, struct chunk, node);
	if (WARN_ON_ONCE(!chunk))
		return NULL;

	page = list_first_entry(&chunk->free, struct page, lru);
	list_del(&page->lru);
	__ClearPageOffline(page);
	chunk_dequeue(chunk);
	chunk->nr_free--;
	chunk_queue(chunk);
	WRITE_ONCE(cache.stats.cached, cache.stats.cached - 1);
	cache.stats.in_use++;
	cache.stats.lowest = min(cache.stats.lowest, cache.stats.cached);

	return page;
}

static unsigned long nr_cached(void)
{
	return READ_ONCE(cache.stats.cached);
}

/* Memory that is not protected, and its chunk, back to where they came from. */
static void chunk_free(struct chunk *chunk)
{
	unsigned int i;

	scoped_guard(spinlock_irqsave, &cache.lock)
		rb_erase(&chunk->rb, &cache.chunks);
	for (i = 0; i < chunk_pages(chunk); i++)
		__free_page(pfn_to_page(chunk->pfn + i));
	kfree(chunk);
}

/* Tests make it fail. */
VISIBLE_IF_KUNIT
struct page *kpkeys_pgtable_cache_alloc_pages(gfp_t gfp, unsigned int order)
{
	KUNIT_STATIC_STUB_REDIRECT(kpkeys_pgtable_cache_alloc_pages, gfp, order);

	return alloc_pages(gfp, order);
}

static struct chunk *chunk_alloc_order(gfp_t gfp, unsigned int order)
{
	struct chunk *chunk;
	struct page *page;

	chunk = kzalloc_obj(*chunk, gfp);
	if (!chunk)
		return NULL;

	page = kpkeys_pgtable_cache_alloc_pages(gfp, order);
	if (!page) {
		kfree(chunk);
		return NULL;
	}
	split_page(page, order);

	INIT_LIST_HEAD(&chunk->node);
	INIT_LIST_HEAD(&chunk->free);
	chunk->pfn = page_to_pfn(page);
	chunk->order = order;
	scoped_guard(spinlock_irqsave, &cache.lock)
		rb_add(&chunk->rb, &cache.chunks, chunk_less);

	return chunk;
}

/*
 * The largest chunk that there is, if it yields more than it takes. In reclaim it
 * may only go where the caller's @gfp lets it, whose locks a shrinker might want.
 */
static struct chunk *chunk_alloc(gfp_t gfp)
{
	int i;

	gfp = (gfp & GFP_KERNEL) | __GFP_SKIP_KASAN | __GFP_NOWARN;
	for (i = 0; i < ARRAY_SIZE(chunk_orders); i++) {
		unsigned int order = chunk_orders[i];
		struct chunk *chunk;

		/* Not worth making room for a large one: a smaller one will do. */
		chunk = chunk_alloc_order(order > PAGE_ALLOC_COSTLY_ORDER ?
					  gfp | __GFP_NORETRY : gfp, order);
		if (!chunk)
			continue;
		if (arch_kpkeys_split_demand(chunk_address(chunk), chunk_pages(chunk)) <
		    chunk_pages(chunk))
			return chunk;
		chunk_free(chunk);
	}

	return NULL;
}

/* Tests make it fail. */
VISIBLE_IF_KUNIT
int kpkeys_pgtable_cache_set_pkey(unsigned long addr, int nr, int pkey,
				  struct kpkeys_split_reserve *reserve)
{
	KUNIT_STATIC_STUB_REDIRECT(kpkeys_pgtable_cache_set_pkey, addr, nr, pkey,
				   reserve);

	return set_memory_pkey_reserve(addr, nr, pkey, reserve);
}

static int chunk_set_pkey(struct chunk *chunk, int pkey,
			  struct kpkeys_split_reserve *reserve)
{
	return kpkeys_pgtable_cache_set_pkey((unsigned long)chunk_address(chunk),
					     chunk_pages(chunk), pkey, reserve);
}

/*
 * Make the chunk's pages available, the first of them for the next refill. @from
 * of them are in the reserve already.
 */
static void chunk_stock(struct chunk *chunk, unsigned int from)
{
	unsigned int i = from;

	lockdep_assert_held(&refill_mutex);

	for (; refill_reserve.nr < CHUNK_MAX_DEMAND && i < chunk_pages(chunk); i++)
		kpkeys_split_reserve_add(&refill_reserve,
					 page_ptdesc(pfn_to_page(chunk->pfn + i)));

	/* Or the next chunk could not be split off. */
	VM_WARN_ON_ONCE(chunk->order && refill_reserve.nr < CHUNK_MAX_DEMAND);

	guard(spinlock_irqsave)(&cache.lock);
	chunk_dequeue(chunk);
	for (; i < chunk_pages(chunk); i++)
		chunk_put_page(chunk, pfn_to_page(chunk->pfn + i));
	chunk_queue(chunk);
}

/* Protect a chunk and stock the cache with it. */
static int refill_with(struct chunk *chunk)
{
	unsigned int nr, before = refill_reserve.nr;
	int i = 0, ret;

	lockdep_assert_held(&refill_mutex);

	ret = chunk_set_pkey(chunk, KPKEYS_PKEY_PGTABLES, &refill_reserve);
	nr = before - refill_reserve.nr;
	trace_kpkeys_pgtable_refill(chunk->pfn, chunk->order, nr, ret);

	scoped_guard(spinlock_irqsave, &cache.lock) {
		/* A split that was done stays done, whatever came after it. */
		cache.stats.in_use += nr;
		if (ret) {
			cache.stats.parked += chunk_pages(chunk);
		} else {
			while (chunk_orders[i] != chunk->order)
				i++;
			cache.stats.refills[i]++;
		}
	}
	if (ret) {
		parked = chunk;
		return ret;
	}

	chunk_stock(chunk, 0);

	return 0;
}

static void count_taken(struct chunk *chunk)
{
	guard(spinlock_irqsave)(&cache.lock);
	cache.stats.taken += chunk_pages(chunk);
}

/* Stock the cache, unless somebody else has done it by now. */
static int refill(unsigned long want, gfp_t gfp)
{
	struct chunk *chunk = chunk_alloc(gfp), *unused = NULL;
	int ret = -ENOMEM;

	scoped_guard(mutex, &refill_mutex) {
		if (nr_cached() > want) {
			unused = chunk;
			ret = 0;
		} else if (parked) {
			/* Its demand is met, which is more than is known of another. */
			unused = chunk;
			chunk = parked;
			parked = NULL;
			scoped_guard(spinlock_irqsave, &cache.lock)
				cache.stats.parked -= chunk_pages(chunk);
			ret = refill_with(chunk);
		} else if (chunk) {
			count_taken(chunk);
			ret = refill_with(chunk);
		}
	}
	if (unused)
		chunk_free(unused);

	return ret;
}

/*
 * May this context refill the cache? It sleeps, allocates, and splits.
 *
 * What the caller passed as gfp does not tell: vmalloc() with GFP_ATOMIC asks
 * for GFP_KERNEL tables with preemption off, in a PF_MEMALLOC scope.
 */
static bool may_refill(gfp_t gfp)
{
	/* Without a preemption count the scope is all that tells. */
	bool atomic = IS_ENABLED(CONFIG_PREEMPT_COUNT) ? !preemptible() :
		      in_interrupt() || irqs_disabled();

	return gfpflags_allow_blocking(gfp) && !(current->flags & PF_MEMALLOC) &&
	       !atomic && arch_kpkeys_can_split();
}

static void refill_work_fn(struct work_struct *work)
{
	while (nr_cached() <= LOW_MARK && may_refill(GFP_KERNEL)) {
		if (refill(LOW_MARK, GFP_KERNEL))
			break;
	}
}

static DECLARE_WORK(refill_work, refill_work_fn);

/**
 * kpkeys_pgtable_cache_alloc() - hand out a protected page
 * @gfp: as for alloc_pages(); says whether the caller may block.
 *
 * Context: Any. May sleep and refill the cache if @gfp and the context allow it.
 * Return: a page of order 0 with a reference, with undefined content, which
 *         belongs to the caller and goes back by kpkeys_pgtable_cache_free(); NULL
 *         if there is none.
 */
struct page *kpkeys_pgtable_cache_alloc(gfp_t gfp)
{
	bool may = may_refill(gfp);
	struct page *page;

	if (nr_cached() <= LOW_MARK && system_state >= SYSTEM_RUNNING)
		queue_work(system_dfl_wq, &refill_work);

	/* Others may be faster to take what a refill has brought. */
	do
		page = take_page(may ? EMERGENCY_MARK : 0);
	while (!page && may && !refill(EMERGENCY_MARK, gfp));

	if (!page) {
		/* What boot set aside for the time when nothing can be split. */
		WARN_ONCE(!arch_kpkeys_can_split(), "kpkeys: the stock of page tables for boot is used up\n");
		guard(spinlock_irqsave)(&cache.lock);
		cache.stats.refused++;
	}

	return page;
}

/**
 * kpkeys_pgtable_cache_owns() - is this a page of the cache?
 * @page: a page that the caller owns, so that its chunk stays.
 *
 * Context: Any.
 * Return: true if it is, whether free or handed out.
 */
bool kpkeys_pgtable_cache_owns(struct page *page)
{
	guard(spinlock_irqsave)(&cache.lock);

	return chunk_of(page);
}

/**
 * kpkeys_pgtable_cache_free() - take back a page that was handed out
 * @page: the page, destructed if it was a table. The caller owned it, and still
 *        does if it does not come from the cache.
 *
 * Context: Any.
 * Return: true if the page was taken back; false if it is not one of the cache.
 */
bool kpkeys_pgtable_cache_free(struct page *page)
{
	struct chunk *chunk;

	VM_WARN_ON_ONCE_PAGE(PageTable(page), page);

	guard(spinlock_irqsave)(&cache.lock);
	chunk = chunk_of(page);
	if (!chunk)
		return false;

	/*
	 * As the page allocator does: the next user expects it, such as
	 * ptlock_init(), which finds the pointer that ptlock_free() leaves here.
	 */
	set_page_private(page, 0);
	chunk_dequeue(chunk);
	chunk_put_page(chunk, page);
	chunk_queue(chunk);
	cache.stats.in_use--;

	return true;
}

/*
 * A chunk all of whose pages are free, with some of them in [@start, @end), if
 * @leave pages stay in the cache without it.
 */
static struct chunk *find_free_chunk(unsigned long start, unsigned long end,
				     unsigned long leave)
{
	struct chunk *chunk;

	lockdep_assert_held(&cache.lock);

	list_for_each_entry(chunk, &cache.free_chunks, node) {
		if (chunk->pfn < end && chunk->pfn + chunk_pages(chunk) > start &&
		    cache.stats.cached - chunk->nr_free >= leave)
			return chunk;
	}

	return NULL;
}

static bool has_free_chunk(unsigned long start, unsigned long end)
{
	guard(spinlock_irqsave)(&cache.lock);

	return find_free_chunk(start, end, 0);
}

/* Take such a chunk out of the cache. */
static struct chunk *detach_free_chunk(unsigned long start, unsigned long end,
				       unsigned long leave)
{
	struct chunk *chunk;

	guard(spinlock_irqsave)(&cache.lock);

	chunk = find_free_chunk(start, end, leave);
	if (chunk) {
		chunk_dequeue(chunk);
		WRITE_ONCE(cache.stats.cached, cache.stats.cached - chunk->nr_free);
		cache.stats.taken -= chunk->nr_free;
		cache.stats.given_back++;
	}

	return chunk;
}

/*
 * Make a detached chunk ordinary memory and free it; returns the number of pages,
 * zero if that was not possible.
 */
static unsigned int chunk_give_back(struct chunk *chunk)
{
	KPKEYS_SPLIT_RESERVE_ONSTACK(none);
	unsigned int nr = chunk_pages(chunk);
	int ret;

	/* Its boundaries are there from when its pkey was set: nothing is split. */
	ret = chunk_set_pkey(chunk, KPKEYS_PKEY_DEFAULT, &none);
	trace_kpkeys_pgtable_give_back(chunk->pfn, chunk->order, 0, ret);
	if (ret) {
		pr_warn_once("cannot make %u free pages of page tables writable again: %d; they are not used any more\n",
			     nr, ret);
		guard(spinlock_irqsave)(&cache.lock);
		cache.stats.taken += nr;
		cache.stats.leaked += nr;
		cache.stats.given_back--;
		return 0;
	}
	chunk_free(chunk);

	return nr;
}

/**
 * kpkeys_pgtable_cache_shrink() - give whole free chunks back
 * @nr_pages: how many pages to give back, if there are that many.
 *
 * A few pages stay, so that the next tables do not take it all back.
 *
 * Context: Process context; takes no lock that is held across an allocation.
 * Return: how many pages were given back.
 */
unsigned long kpkeys_pgtable_cache_shrink(unsigned long nr_pages)
{
	unsigned long nr = 0;

	while (nr < nr_pages) {
		struct chunk *chunk = detach_free_chunk(0, ULONG_MAX, SHRINK_MARK);

		if (!chunk)
			break;
		nr += chunk_give_back(chunk);
	}

	return nr;
}

/**
 * kpkeys_pgtable_cache_stats() - a snapshot of where the pages are
 * @stats: filled in.
 *
 * Context: Process context.
 */
void kpkeys_pgtable_cache_stats(struct kpkeys_pgtable_cache_stats *stats)
{
	guard(mutex)(&refill_mutex);
	guard(spinlock_irqsave)(&cache.lock);

	*stats = cache.stats;
	stats->reserved = refill_reserve.nr;
	VM_WARN_ON_ONCE(stats->taken != stats->cached + stats->reserved +
			stats->in_use + stats->parked + stats->leaked);
}

/**
 * kpkeys_pgtable_cache_init() - stock the cache for the first time
 *
 * There is no reserve yet, and nothing that is protected could be allocated for
 * it. So the tables for the split that the first chunk needs are pages of that
 * very chunk; they are protected when the split is done and its pkey is set.
 *
 * Context: Boot, on one CPU, with the table-write guard active.
 * Return: 0; -ENOMEM; or the error of set_memory_pkey_reserve().
 */
int __init kpkeys_pgtable_cache_init(void)
{
	struct chunk *chunk;
	int i, ret;

	/* Reclaim must never wait for who allocates under the mutex: tell lockdep. */
	fs_reclaim_acquire(GFP_KERNEL);
	might_lock(&refill_mutex);
	fs_reclaim_release(GFP_KERNEL);

	for (i = 0; i < NR_BUCKETS; i++)
		INIT_LIST_HEAD(&cache.bucket[i]);
	cache.stats.lowest = ULONG_MAX;

	chunk = chunk_alloc_order(GFP_KERNEL | __GFP_SKIP_KASAN, chunk_orders[0]);
	if (!chunk)
		return -ENOMEM;
	count_taken(chunk);

	scoped_guard(mutex, &refill_mutex) {
		for (i = 0; i < CHUNK_MAX_DEMAND; i++)
			kpkeys_split_reserve_add(&refill_reserve,
						 page_ptdesc(pfn_to_page(chunk->pfn + i)));
		ret = chunk_set_pkey(chunk, KPKEYS_PKEY_PGTABLES, &refill_reserve);
		if (ret)
			return ret;
		cache.stats.refills[0]++;
		cache.stats.in_use += CHUNK_MAX_DEMAND - refill_reserve.nr;
		chunk_stock(chunk, CHUNK_MAX_DEMAND);
	}

	while (!ret && nr_cached() < BOOT_STOCK)
		ret = refill(BOOT_STOCK - 1, GFP_KERNEL);

	return ret;
}

static unsigned long shrink_count(struct shrinker *shrinker,
				  struct shrink_control *sc)
{
	unsigned long nr = READ_ONCE(cache.free_chunk_pages);

	return nr && nr_cached() > SHRINK_MARK ? nr : SHRINK_EMPTY;
}

static unsigned long shrink_scan(struct shrinker *shrinker,
				 struct shrink_control *sc)
{
	return kpkeys_pgtable_cache_shrink(sc->nr_to_scan) ?: SHRINK_STOP;
}

/*
 * Free pages of ours would keep memory from going offline. Those that are tables,
 * those in the reserve, and those of a parked chunk do.
 */
static int memory_callback(struct notifier_block *nb, unsigned long action,
			   void *arg)
{
	struct memory_notify *mem = arg;
	unsigned long start = mem->start_pfn, end = start + mem->nr_pages;

	if (action != MEM_GOING_OFFLINE)
		return NOTIFY_OK;

	do {
		struct chunk *chunk;

		while ((chunk = detach_free_chunk(start, end, LOW_MARK)))
			chunk_give_back(chunk);
		/* The memory is isolated by now: a refill comes from elsewhere. */
	} while (has_free_chunk(start, end) && may_refill(GFP_KERNEL) &&
		 !refill(ULONG_MAX, GFP_KERNEL));

	return NOTIFY_OK;
}

static int stats_show(struct seq_file *m, void *v)
{
	struct kpkeys_pgtable_cache_stats stats;
	int i;

	kpkeys_pgtable_cache_stats(&stats);
	seq_printf(m, "taken %lu\ncached %lu\nreserved %lu\nin_use %lu\nparked %lu\nleaked %lu\n",
		   stats.taken, stats.cached, stats.reserved, stats.in_use,
		   stats.parked, stats.leaked);
	seq_printf(m, "lowest %lu\nemergency %lu\nrefused %lu\ngiven_back %lu\n",
		   stats.lowest, stats.emergency, stats.refused, stats.given_back);
	for (i = 0; i < ARRAY_SIZE(chunk_orders); i++)
		seq_printf(m, "refills_order_%u %lu\n", chunk_orders[i], stats.refills[i]);

	return 0;
}

DEFINE_SHOW_ATTRIBUTE(stats);

static int __init kpkeys_pgtable_cache_late_init(void)
{
	struct shrinker *shrinker;

	if (!kpkeys_hardened_pgtables_enabled() || !cache.stats.taken)
		return 0;

	shrinker = shrinker_alloc(0, "kpkeys-pgtable-cache");
	if (shrinker) {
		shrinker->count_objects = shrink_count;
		shrinker->scan_objects = shrink_scan;
		shrinker_register(shrinker);
	}
	hotplug_memory_notifier(memory_callback, DEFAULT_CALLBACK_PRI);
	debugfs_create_file("kpkeys_pgtable_cache", 0400, NULL, NULL, &stats_fops);

	return 0;
}

late_initcall(kpkeys_pgtable_cache_late_init);
