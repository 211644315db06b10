// SPDX-License-Identifier: GPL-2.0-only
/*
 * A cache of protected pages for page tables.
 *
 * Setting the pkey of a single page costs a broadcast TLB invalidation, and a split
 * if the direct map is block-mapped. So the cache takes pages from the page
 * allocator in chunks, as large as a block if possible, and sets the pkey of a
 * whole chunk. Pages are handed out and freed one by one.
 *
 * The state of the pages is kept in frames. A frame is a naturally aligned range,
 * as large as the largest chunk, and has four bitmaps:
 *
 *	ours:	the page has the pkey, and belongs to the cache or its user.
 *	used:	it was handed out.
 *	free:	it is in the frame, and the frame is in a list of its node.
 *	roots:	it is the root of a user address space, which a CPU may load.
 *
 * A page with neither used nor free is in a magazine, holds state of the cache, is
 * being given back, is poisoned, or was leaked.
 *
 *	page allocator --refill--> frame --batch--> magazine --hand out--> table
 *	      ^                    |   ^               |  ^                  |
 *	      +----give back-------+   +-----batch-----+  +------free--------+
 *
 * This state is in pages of the cache, and can be changed in a window only. An
 * attacker who can write anywhere else can neither turn a page into a table nor
 * have a table handed out twice. In ordinary memory are the locks, the nearest node
 * with memory, the list of the reserve, the pause after errors, and the event
 * counters.
 *
 * Ownership and locks:
 *
 *  - nodes[].refill serialises refills of a node by chunks, so that a CPU that
 *    waits for one does not allocate another chunk. Allocations under it never
 *    wait for reclaim.
 *  - refill_mutex protects the reserve for the splits of refills, the spare pages
 *    for state, and the parked chunk. Nothing is allocated under it.
 *  - nodes[].lock protects the frames of a node, except for the "used" bits. It is
 *    a leaf lock. No pkey is changed under it.
 *  - A magazine belongs to its CPU, with interrupts disabled.
 *  - A page that was handed out belongs to its user.
 *
 * Lock order: nodes[].refill -> refill_mutex -> nodes[].lock.
 */
#define pr_fmt(fmt) "kpkeys: " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>

#include <linux/bitmap.h>
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/cpuset.h>
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/kpkeys_hardened_pgtables.h>
#include <linux/kpkeys_pgtable_cache.h>
#include <linux/kpkeys_split_reserve.h>
#include <linux/log2.h>
#include <linux/memory.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/oom.h>
#include <linux/page_owner.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/set_memory.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/stop_machine.h>
#include <linux/swap.h>
#include <linux/vmstat.h>
#include <linux/workqueue.h>

#include <asm/kpkeys_hardened_pgtables.h>

#define CREATE_TRACE_POINTS
#include <trace/events/kpkeys.h>

static const unsigned int chunk_orders[] = ARCH_KPKEYS_PGTABLE_CHUNK_ORDERS;
static_assert(ARRAY_SIZE(chunk_orders) <=
	      ARRAY_SIZE(((struct kpkeys_pgtable_cache_stats *)0)->refills));

#define FRAME_ORDER		ARCH_KPKEYS_PGTABLE_FRAME_ORDER
#define FRAME_PAGES		BIT(FRAME_ORDER)

/* A naturally aligned chunk has at most this demand: one table of each level. */
#define CHUNK_MAX_DEMAND	2

/* With fewer free pages on the node, a refill is started in the background. */
#define LOW_MARK		64

/* The shrinker leaves this many on a node, or the next few tables would refill it. */
#define SHRINK_MARK		(2 * LOW_MARK)

/* Pages for boot, until interrupts are enabled and refills are possible. */
#define BOOT_STOCK		256

/* A chunk is at most this fraction of memory, as a power of two. */
#define CHUNK_SHARE		8

/*
 * Callers that may refill leave this many pages on a node for the other callers, which
 * have no other source of pages.
 */
#define EMERGENCY_MARK		16

/* A block is not split to give back fewer pages than this. */
#define SPLIT_YIELD		16

/* The number of pages that move between a node and a magazine at once. */
#define BATCH			16

/* How many single pages a refill takes at once, and how many it keeps aside if it lacks tables. */
#define SINGLES			16

/* How often setting the pkey of a chunk is tried before the chunk is abandoned. */
#define PARK_TRIES		3

/* The pause after a failure. It doubles with each abandoned chunk. */
#define REFILL_BACKOFF		(HZ / 10)
#define MAX_BACKOFF_SHIFT	12

#define FRAME_BUCKETS		(FRAME_ORDER + 2)
#define IDLE_BUCKET		(FRAME_BUCKETS - 1)

#define NO_PFN			ULONG_MAX

/**
 * struct frame - a naturally aligned range of pages, some of which are ours
 * @node:    in a bucket of its node, if it has free pages.
 * @pfn:     the first page.
 * @nr_ours: weight of @ours.
 * @nr_free: weight of @free.
 * @ours:    pages with the pkey of page tables. Changed under the node's lock.
 * @free:    pages that can be taken. Changed under the node's lock.
 * @used:    pages that were handed out. Changed atomically, without the lock.
 * @roots:   pages that may be loaded as a root. Changed by the user of the page.
 *
 * Invariant: @free and @used are disjoint, and subsets of @ours.
 *
 * Invariant: @roots is a subset of @used.
 *
 * Invariant: a page is PageOffline() if and only if it is in @ours and not in @used,
 * and does not hold state of the cache. Memory offlining refuses a range with other
 * unmovable pages before it calls memory_callback(). Hibernation and crash dumps do
 * not save the content of such pages. A new page type would need the same exceptions
 * in memory hotplug.
 *
 * A frame is never freed, so that it can be looked up without a lock.
 */
struct frame {
	struct list_head node;
	unsigned long pfn;
	unsigned int nr_ours;
	unsigned int nr_free;
	DECLARE_BITMAP(ours, FRAME_PAGES);
	DECLARE_BITMAP(free, FRAME_PAGES);
	DECLARE_BITMAP(used, FRAME_PAGES);
	DECLARE_BITMAP(roots, FRAME_PAGES);
};

/*
 * The index finds a frame by its number. It has three levels of pointers: an array
 * that is large enough for all of memory, and two levels of pages. Below them are
 * pages of frames.
 */
#define FRAMES_SHIFT		ilog2(PAGE_SIZE / sizeof(struct frame))
#define PTRS_SHIFT		ilog2(PAGE_SIZE / sizeof(void *))
#define INDEX_LEVELS		3
/* A constant, because MAX_PHYSMEM_BITS may depend on the CPU. */
#define INDEX_PHYS_BITS		52
#define TOP_SHIFT		MAX(INDEX_PHYS_BITS - PAGE_SHIFT - FRAME_ORDER - FRAMES_SHIFT - \
				    (INDEX_LEVELS - 1) * PTRS_SHIFT, 0)
static_assert(MAX_PHYSMEM_BITS <= INDEX_PHYS_BITS);

/**
 * struct node_frames - the frames of a node
 * @bucket:  frames sorted by the logarithm of their number of free pages. The last
 *           bucket has the frames whose pages are all free. Invariant: in a bucket,
 *           frames that are not worth_giving_back() come last.
 * @nr_ours: sum over all frames.
 * @nr_free: sum over all frames. It is also read without the lock.
 * @lowest:  the lowest @nr_free so far.
 *
 * Pages are handed out from the lowest bucket first, so that other frames become
 * free.
 */
struct node_frames {
	struct list_head bucket[FRAME_BUCKETS];
	unsigned long nr_ours;
	unsigned long nr_free;
	unsigned long lowest;
};

/* Free pages of the CPU's node, which are taken without a lock. */
struct magazine {
	unsigned long nr;
	unsigned long pfn[31];
};

/**
 * struct cache - the state that is neither per CPU nor per frame
 * @index:      the top of the index.
 * @nr_spare:   the number of pages in @spare. Refill mutex.
 * @spare:      pages for the index, which already count as state. Refill mutex.
 * @parked:     a chunk whose pkey could not be set. It is tried next, because its
 *              split is probably done. Refill mutex.
 * @frames:     the frames of each node.
 */
struct cache {
	void *index[1 << TOP_SHIFT];
	unsigned int nr_spare;
	unsigned long spare[INDEX_LEVELS];
	struct {
		unsigned long pfn;
		unsigned int order;
		unsigned int tries;	/* zero if there is no such chunk */
	} parked;
	struct node_frames frames[];
};

/* Both are in pages of the cache. */
static struct cache *cache __ro_after_init;
static struct magazine *magazines __ro_after_init;

/* Locks and work items cannot be in read-only memory. */
static struct node_locks {
	raw_spinlock_t lock;		/* the frames of the node, and their lists */
	int home;			/* the nearest node with memory, mostly itself */
	struct mutex refill;		/* refills of the node by chunks */
	struct delayed_work refill_work;
} *nodes __ro_after_init;

static DEFINE_MUTEX(refill_mutex);

/*
 * The number of abandoned chunks, and the end of the pause. Without a pause, all of
 * memory could be abandoned, one chunk after the other. Refill mutex.
 */
static unsigned int nr_given_up;
static unsigned long pause_end;

/*
 * Invariant: a chunk is split off only if the reserve has the page tables for the
 * split, and @cache->spare the pages for the frame. Each refill fills up both with
 * pages of its chunk, and top_up() with free pages if the chunk was too small.
 *
 * Pages in the reserve are in @used.
 */
static struct kpkeys_split_reserve refill_reserve =
	KPKEYS_SPLIT_RESERVE_INIT(refill_reserve);

/* Pages that no bitmap accounts for, and events. */
enum counter {
	META, MOVING, POISONED, LEAKED,		/* ours */
	PARKED, ABANDONED,			/* not ours */
	GIVEN_BACK, SPLITS, EMERGENCY, REFUSED, MISMATCHED,
	REFILLS,
	NR_COUNTERS = REFILLS + ARRAY_SIZE(chunk_orders)
};

static atomic_long_t counters[NR_COUNTERS];

static void count(enum counter counter, long nr)
{
	atomic_long_add(nr, &counters[counter]);
}

static unsigned long counted(enum counter counter)
{
	return atomic_long_read(&counters[counter]);
}

/* The node whose pages are in the magazine of this CPU. */
static __always_inline int home_node(void)
{
	return IS_ENABLED(CONFIG_NUMA) ? READ_ONCE(nodes[numa_mem_id()].home) : 0;
}

static unsigned long nr_free(int nid)
{
	return READ_ONCE(cache->frames[nid].nr_free);
}

/* The caller and the state of a page disagree. Must not be called inside a window. */
static void mismatch(unsigned long pfn, const char *action, const char *state)
{
	count(MISMATCHED, 1);
	pr_err_ratelimited("Refused to %s pfn %#lx, it is %s\n", action, pfn, state);
}

static __always_inline int index_shift(int level)
{
	return level == INDEX_LEVELS - 1 ? TOP_SHIFT : PTRS_SHIFT;
}

/* The slot for a frame in a page of the index, at level @level. */
static __always_inline void **index_slot(void **table, unsigned long pfn, int level)
{
	return &table[(pfn >> (FRAME_ORDER + FRAMES_SHIFT + level * PTRS_SHIFT)) &
		      ((1UL << index_shift(level)) - 1)];
}

static_assert(INDEX_LEVELS == 3);

/*
 * The frame of a page, or NULL if there is none; then the page is not ours. The
 * address dependencies pair with the release in index_add(). This is not a loop,
 * because compilers do not unroll it.
 */
static __always_inline struct frame *frame_of(unsigned long pfn)
{
	void **table = READ_ONCE(*index_slot(cache->index, pfn, 2));

	if (table)
		table = READ_ONCE(*index_slot(table, pfn, 1));
	if (table)
		table = READ_ONCE(*index_slot(table, pfn, 0));
	if (!table)
		return NULL;

	return (struct frame *)table + ((pfn >> FRAME_ORDER) & ((1UL << FRAMES_SHIFT) - 1));
}

static __always_inline unsigned int frame_bit(unsigned long pfn)
{
	return pfn & (FRAME_PAGES - 1);
}

/* A bit of a frame, without the lock of its node. */
static __always_inline bool frame_has(const unsigned long *pages, unsigned int bit)
{
	/* The caller owns the page of this bit. Its neighbours may change. */
	return data_race(test_bit(bit, pages));
}

/* The number of pages that the index needs to add the frame of this page. */
static unsigned int index_demand(unsigned long pfn)
{
	void **table = cache->index;
	int level;

	for (level = INDEX_LEVELS - 1; level >= 0; level--) {
		table = *index_slot(table, pfn, level);
		if (!table)
			return level + 1;
	}

	return 0;
}

/* Add the frame of @pfn to the index. The pages for it are in @cache->spare. */
static void index_add(unsigned long pfn)
{
	void **slot, **table = cache->index;
	int level, i;

	guard(kpkeys_hardened_pgtables)();

	for (level = INDEX_LEVELS - 1; level >= 0; level--, table = *slot) {
		struct frame *frames;
		struct page *page;

		slot = index_slot(table, pfn, level);
		if (*slot)
			continue;

		page = pfn_to_page(cache->spare[--cache->nr_spare]);
		/* From now on, the content of this page must be saved. */
		__ClearPageOffline(page);
		frames = page_address(page);
		clear_page(frames);
		for (i = 0; !level && i < 1 << FRAMES_SHIFT; i++) {
			frames[i].pfn = round_down(pfn, 1UL << (FRAME_ORDER + FRAMES_SHIFT)) +
					i * FRAME_PAGES;
			INIT_LIST_HEAD(&frames[i].node);
		}
		/* Pairs with the lockless look-up in frame_of(). */
		smp_store_release(slot, frames);
	}
}

/* Giving back a part of a frame that is ours as a whole splits its block. */
static bool worth_giving_back(const struct frame *frame)
{
	return frame->nr_free == frame->nr_ours || frame->nr_ours < FRAME_PAGES ||
	       frame->nr_free >= SPLIT_YIELD;
}

/* Move a frame to the right bucket, after one of its numbers has changed. */
static void frame_requeue(int nid, struct frame *frame)
{
	struct node_frames *node = &cache->frames[nid];
	struct list_head *bucket;

	lockdep_assert_held(&nodes[nid].lock);

	list_del_init(&frame->node);
	if (!frame->nr_free)
		return;

	bucket = &node->bucket[frame->nr_free == frame->nr_ours ?
			       IDLE_BUCKET : fls(frame->nr_free)];
	if (worth_giving_back(frame))
		list_add(&frame->node, bucket);
	else
		list_add_tail(&frame->node, bucket);
}

static void node_add_free(int nid, long nr)
{
	struct node_frames *node = &cache->frames[nid];

	lockdep_assert_held(&nodes[nid].lock);

	WRITE_ONCE(node->nr_free, node->nr_free + nr);
	if (nr < 0)
		node->lowest = min(node->lowest, node->nr_free);
	/* Visible in /proc/meminfo, and part of MemAvailable. */
	__mod_node_page_state(NODE_DATA(nid), NR_KERNEL_MISC_RECLAIMABLE, nr);
}

/* Put pages that are in no other place into their frame. */
static void frame_put(int nid, unsigned long pfn, unsigned int nr)
{
	struct frame *frame = frame_of(pfn);

	lockdep_assert_held(&nodes[nid].lock);
	kpkeys_assert_pgtable_write();

	bitmap_set(frame->free, frame_bit(pfn), nr);
	frame->nr_free += nr;
	frame_requeue(nid, frame);
}

/* Take up to @max free pages out of a frame. */
static unsigned int frame_take(struct frame *frame, unsigned long *pfns, unsigned int max)
{
	unsigned int nr = 0, i;

	for (i = 0; i < BITS_TO_LONGS(FRAME_PAGES) && nr < max; i++) {
		unsigned long word = frame->free[i];

		for (; word && nr < max; word &= word - 1)
			pfns[nr++] = frame->pfn + i * BITS_PER_LONG + __ffs(word);
		frame->free[i] = word;
	}
	frame->nr_free -= nr;

	return nr;
}

/*
 * Take up to @max free pages off a node, and leave at least @leave. Frames with the
 * fewest free pages are used first. The pages are in no place afterwards, so the
 * caller must put them somewhere before it enables interrupts. Otherwise a snapshot
 * would miss them.
 */
static unsigned int node_take(int nid, unsigned long *pfns, unsigned int max,
			      unsigned long leave)
{
	struct node_frames *node = &cache->frames[nid];
	unsigned int nr = 0;
	int i;

	lockdep_assert_irqs_disabled();
	kpkeys_assert_pgtable_write();
	guard(raw_spinlock)(&nodes[nid].lock);

	if (node->nr_free <= leave)
		return 0;
	max = min(max, node->nr_free - leave);

	for (i = 0; i < FRAME_BUCKETS && nr < max; i++) {
		while (nr < max && !list_empty(&node->bucket[i])) {
			struct frame *frame = list_first_entry(&node->bucket[i],
							       struct frame, node);
			unsigned int taken = frame_take(frame, pfns + nr, max - nr);

			nr += taken;
			frame_requeue(nid, frame);
			/* Do not loop if a list and a bitmap disagree. */
			if (WARN_ON_ONCE(!taken))
				return nr;
		}
	}
	if (nr)
		node_add_free(nid, -(long)nr);

	return nr;
}

/*
 * Mark a page as used. Only this function decides that a page may be handed out, and
 * it looks at nothing but the frame.
 */
static __always_inline bool mark_used(unsigned long pfn)
{
	struct frame *frame = frame_of(pfn);
	unsigned int bit = frame_bit(pfn);

	return frame && frame_has(frame->ours, bit) && !frame_has(frame->free, bit) &&
	       !test_and_set_bit(bit, frame->used);
}

/* The opposite. The page is in no place afterwards. */
static __always_inline bool mark_unused(struct frame *frame, unsigned int bit)
{
	return test_and_clear_bit(bit, frame->used);
}

/* Hand out a page. Returns NO_PFN if it is poisoned, or if it is not free: then *@bad is set. */
static __always_inline unsigned long hand_out(unsigned long pfn, unsigned long *bad)
{
	struct page *page = pfn_to_page(pfn);

	lockdep_assert_irqs_disabled();

	if (!mark_used(pfn)) {
		*bad = pfn;
		return NO_PFN;
	}
	if (unlikely(PageHWPoison(page))) {
		mark_unused(frame_of(pfn), frame_bit(pfn));
		count(POISONED, 1);
		return NO_PFN;
	}
	__ClearPageOffline(page);

	return pfn;
}

/* Take a page out of this CPU's magazine. If it is empty and @refill is set, refill it first. */
static __always_inline unsigned long magazine_take(int nid, bool refill, unsigned long *bad)
{
	struct magazine *mag;
	unsigned long pfn = NO_PFN;

	guard(irqsave)();

	mag = &magazines[smp_processor_id()];
	/* The last pages of a node are not put into magazines. */
	if (refill && !mag->nr && nid == home_node())
		mag->nr = node_take(nid, mag->pfn, BATCH, EMERGENCY_MARK);
	while (pfn == NO_PFN && mag->nr)
		pfn = hand_out(mag->pfn[--mag->nr], bad);

	return pfn;
}

static void report_bad(unsigned long bad)
{
	if (bad != NO_PFN)
		mismatch(bad, "hand out", "not free");
}

/* Hand out a page of this CPU's magazine, or NULL. The page is cleared in the same window. */
static __always_inline struct page *magazine_alloc(gfp_t gfp, int nid, bool refill)
{
	unsigned long bad = NO_PFN, pfn;

	scoped_guard(kpkeys_hardened_pgtables) {
		pfn = magazine_take(nid, refill, &bad);
		if (likely(pfn != NO_PFN)) {
			struct page *page = pfn_to_page(pfn);

			if (want_init_on_alloc(gfp))
				clear_page(page_address(page));
			if (likely(bad == NO_PFN))
				return page;
		}
	}
	if (bad == NO_PFN)
		return NULL;
	report_bad(bad);

	return pfn == NO_PFN ? NULL : pfn_to_page(pfn);
}

/* Clear a page that does not come from a magazine, if @gfp asks for it. */
static struct page *init_page(struct page *page, gfp_t gfp)
{
	if (page && want_init_on_alloc(gfp)) {
		guard(kpkeys_hardened_pgtables)();
		clear_page(page_address(page));
	}

	return page;
}

/* Hand out a page of a node, if more than @leave are free. */
static struct page *node_alloc(gfp_t gfp, int nid, unsigned long leave)
{
	unsigned long pfn, bad;
	unsigned int taken;

	if (nid == home_node()) {
		struct page *page = magazine_alloc(gfp, nid, true);

		if (page)
			return page;
	}

	do {
		bad = NO_PFN;
		scoped_guard(kpkeys_hardened_pgtables) {
			guard(irqsave)();
			taken = node_take(nid, &pfn, 1, leave);
			if (taken)
				pfn = hand_out(pfn, &bad);
		}
		report_bad(bad);
	} while (taken && pfn == NO_PFN);
	if (!taken)
		return NULL;

	if (nr_free(nid) < EMERGENCY_MARK)
		count(EMERGENCY, 1);

	return init_page(pfn_to_page(pfn), gfp);
}

/* Tests make it fail. With NUMA_NO_NODE, the policy of the caller decides. */
VISIBLE_IF_KUNIT
struct page *kpkeys_pgtable_cache_alloc_pages(gfp_t gfp, unsigned int order, int nid)
{
	KUNIT_STATIC_STUB_REDIRECT(kpkeys_pgtable_cache_alloc_pages, gfp, order, nid);

	return nid == NUMA_NO_NODE ? alloc_pages(gfp, order) :
	       alloc_pages_node(nid, gfp, order);
}

/*
 * Allocate without reclaim and compaction, and not from the emergency reserves. A
 * larger chunk is not worth reclaiming other memory for.
 */
#define GFP_LIGHT	((GFP_KERNEL & ~__GFP_RECLAIM) | __GFP_NOMEMALLOC | \
			 __GFP_NOWARN | __GFP_SKIP_KASAN)

/* Tests make it fail. */
VISIBLE_IF_KUNIT
int kpkeys_pgtable_cache_set_pkey(unsigned long addr, int nr, int pkey,
				  struct kpkeys_split_reserve *reserve)
{
	KUNIT_STATIC_STUB_REDIRECT(kpkeys_pgtable_cache_set_pkey, addr, nr, pkey,
				   reserve);

	return set_memory_pkey_reserve(addr, nr, pkey, reserve);
}

static int set_pkey(unsigned long pfn, unsigned int nr, int pkey,
		    struct kpkeys_split_reserve *reserve)
{
	return kpkeys_pgtable_cache_set_pkey((unsigned long)page_address(pfn_to_page(pfn)),
					     nr, pkey, reserve);
}

static unsigned int split_demand(unsigned long pfn, unsigned int nr)
{
	return arch_kpkeys_split_demand(page_address(pfn_to_page(pfn)), nr);
}

/*
 * To page_owner, a page is allocated until it joins the cache, and while it is handed
 * out. page_owner expects an owner when a page is freed, so set one again before that.
 * Must not allocate.
 */
static void set_owner(unsigned long pfn)
{
	set_page_owner(pfn_to_page(pfn), 0, 0);
}

/* Free pages that do not have the pkey of page tables. */
static void free_range(unsigned long pfn, unsigned int nr)
{
	for (; nr; nr--, pfn++)
		__free_page(pfn_to_page(pfn));
}

/* Put a page that is in no other place into the reserve for refills. */
static void reserve_page(unsigned long pfn)
{
	lockdep_assert_held(&refill_mutex);

	if (WARN_ON_ONCE(!mark_used(pfn)))
		return;
	__ClearPageOffline(pfn_to_page(pfn));
	set_owner(pfn);
	kpkeys_split_reserve_add(&refill_reserve, page_ptdesc(pfn_to_page(pfn)));
}

static void spare_page(unsigned long pfn)
{
	lockdep_assert_held(&refill_mutex);

	cache->spare[cache->nr_spare++] = pfn;
	count(META, 1);
}

/*
 * Add pages that have the pkey to the cache. The first @used of them are in a reserve
 * or page tables already. The others are in no place yet.
 */
static void own(unsigned long pfn, unsigned int nr, unsigned int used)
{
	int nid = pfn_to_nid(pfn);
	struct frame *frame;
	unsigned int i;

	for (i = used; i < nr; i++) {
		/* The task that refills is not the owner of the page. */
		reset_page_owner(pfn_to_page(pfn + i), 0);
		__SetPageOffline(pfn_to_page(pfn + i));
	}
	index_add(pfn);
	frame = frame_of(pfn);

	guard(kpkeys_hardened_pgtables)();
	guard(raw_spinlock_irqsave)(&nodes[nid].lock);
	bitmap_set(frame->ours, frame_bit(pfn), nr);
	bitmap_set(frame->used, frame_bit(pfn), used);
	frame->nr_ours += nr;
	cache->frames[nid].nr_ours += nr;
	frame_requeue(nid, frame);
}

/*
 * Distribute new pages: first to the reserve and the index, so that the next refill
 * is possible, then one to the caller, and the rest to their node.
 */
static void stock(unsigned long pfn, unsigned int nr, unsigned long *one)
{
	int nid = pfn_to_nid(pfn);
	unsigned long bad = NO_PFN;

	lockdep_assert_held(&refill_mutex);

	scoped_guard(kpkeys_hardened_pgtables) {
		for (; refill_reserve.nr < CHUNK_MAX_DEMAND && nr; nr--)
			reserve_page(pfn++);
		for (; cache->nr_spare < INDEX_LEVELS && nr; nr--)
			spare_page(pfn++);

		guard(irqsave)();
		if (one && *one == NO_PFN && nr) {
			*one = hand_out(pfn++, &bad);
			nr--;
		}
		if (nr) {
			guard(raw_spinlock)(&nodes[nid].lock);
			frame_put(nid, pfn, nr);
			node_add_free(nid, nr);
		}
	}
	report_bad(bad);
}

/* Are there enough pages to split a chunk off, and to add its frame? */
static bool covers(unsigned int split, unsigned int index)
{
	return split <= refill_reserve.nr && index <= cache->nr_spare;
}

/* Fill up the reserve and the spare pages with free pages, if refills did not. */
static void top_up(int nid)
{
	while (refill_reserve.nr < CHUNK_MAX_DEMAND || cache->nr_spare < INDEX_LEVELS) {
		unsigned long pfn;

		guard(kpkeys_hardened_pgtables)();
		guard(irqsave)();
		if (!node_take(nid, &pfn, 1, 0))
			return;
		if (refill_reserve.nr < CHUNK_MAX_DEMAND)
			reserve_page(pfn);
		else
			spare_page(pfn);
	}
}

/*
 * Protect a chunk and add it to the cache. Returns -EAGAIN if there are not enough
 * pages for its split, or if the split takes as many as the chunk has. The chunk then
 * still belongs to the caller. After any other error it is parked, or abandoned if
 * @tries are too many.
 */
static int refill_with(unsigned long pfn, unsigned int order, unsigned int tries,
		       unsigned long *one)
{
	unsigned int nr = 1U << order, before = refill_reserve.nr, i = 0;
	unsigned int split = split_demand(pfn, nr), index = index_demand(pfn);
	int ret;

	lockdep_assert_held(&refill_mutex);

	if (!covers(split, index)) {
		top_up(pfn_to_nid(pfn));
		before = refill_reserve.nr;
	}
	/* A single page may yield none, but the next one of its block will. */
	if (!tries && (!covers(split, index) || (order && split + index >= nr)))
		return -EAGAIN;

	ret = set_pkey(pfn, nr, KPKEYS_PKEY_PGTABLES, &refill_reserve);
	trace_kpkeys_pgtable_refill(pfn, nr, before - refill_reserve.nr, ret);
	if (ret) {
		guard(kpkeys_hardened_pgtables)();
		if (tries < PARK_TRIES && !cache->parked.tries) {
			cache->parked.pfn = pfn;
			cache->parked.order = order;
			cache->parked.tries = tries + 1;
			count(PARKED, nr);
		} else {
			count(ABANDONED, nr);
			pause_end = jiffies + (REFILL_BACKOFF << min(nr_given_up++,
								     MAX_BACKOFF_SHIFT));
		}
		return ret;
	}

	while (i < ARRAY_SIZE(chunk_orders) - 1 && order <= chunk_orders[i + 1])
		i++;
	count(REFILLS + i, 1);
	own(pfn, nr, 0);
	stock(pfn, nr, one);

	return 0;
}

/* Retry the parked chunk. Returns false if there is none, or if its split is not covered. */
static bool refill_parked(int *ret)
{
	unsigned long abandoned = counted(ABANDONED), pfn = cache->parked.pfn;
	unsigned int order = cache->parked.order, tries = cache->parked.tries;

	lockdep_assert_held(&refill_mutex);

	if (!tries)
		return false;
	/* Refills by single pages and memory offlining may have used the pages for it. */
	if (!covers(split_demand(pfn, 1U << order), index_demand(pfn)))
		top_up(pfn_to_nid(pfn));
	if (!covers(split_demand(pfn, 1U << order), index_demand(pfn)))
		return false;

	scoped_guard(kpkeys_hardened_pgtables)
		cache->parked.tries = 0;
	count(PARKED, -(1L << order));
	*ret = refill_with(pfn, order, tries, NULL);
	if (counted(ABANDONED) != abandoned)
		pr_warn_once("Failed to protect %u pages: %d, leaking them\n",
			     1U << order, *ret);

	return true;
}

/* Small machines use smaller chunks. */
static unsigned int max_chunk_order(void)
{
	return ilog2(totalram_pages() >> CHUNK_SHARE | 1);
}

/*
 * Refill a node that has no more than @want free pages, with the largest chunk that
 * is available. Only one task does so at a time, and the others then find its pages.
 * Nothing here waits for reclaim, so reclaim may wait for this.
 *
 * Returns -EAGAIN if the node has no chunk, the error of setting the pkey, or -EBUSY
 * during the pause after too many errors.
 */
static int refill_node(int nid, unsigned long want)
{
	int i, ret;

	guard(mutex)(&nodes[nid].refill);

	if (nr_free(nid) > want)
		return 0;
	scoped_guard(mutex, &refill_mutex) {
		if (refill_parked(&ret))
			return ret;
		if (nr_given_up && time_before(jiffies, pause_end))
			return -EBUSY;
	}

	for (i = 0; i < ARRAY_SIZE(chunk_orders) && chunk_orders[i]; i++) {
		unsigned int order = chunk_orders[i];
		struct page *page;

		if (!i)
			order = clamp(max_chunk_order(), chunk_orders[1], order);

		page = kpkeys_pgtable_cache_alloc_pages(GFP_LIGHT | __GFP_THISNODE, order, nid);
		if (!page)
			continue;
		split_page(page, order);
		scoped_guard(mutex, &refill_mutex)
			ret = refill_with(page_to_pfn(page), order, 0, NULL);
		if (ret != -EAGAIN)
			return ret;
		free_range(page_to_pfn(page), 1U << order);
	}

	return -EAGAIN;
}

/*
 * The last resort: take single pages from the page allocator, with the flags of the
 * caller. Take several if possible, because the first page of a block may only yield
 * the table for its split, and the others share this split.
 *
 * Returns a page, and zero in *@ret; or NULL, and -EAGAIN or the error of setting the
 * pkey.
 */
static struct page *refill_singles(gfp_t gfp, int *ret)
{
	unsigned long pfns[SINGLES], aside[SINGLES], one = NO_PFN;
	unsigned int nr, nr_aside = 0, i;

	*ret = -EAGAIN;

	gfp = (gfp & ~(__GFP_ZERO | __GFP_ACCOUNT | __GFP_COMP)) | __GFP_SKIP_KASAN;
	do {
		struct page *page = kpkeys_pgtable_cache_alloc_pages(gfp, 0, NUMA_NO_NODE);

		for (nr = 0; page; ) {
			pfns[nr++] = page_to_pfn(page);
			if (nr == SINGLES)
				break;
			page = kpkeys_pgtable_cache_alloc_pages(GFP_LIGHT, 0, NUMA_NO_NODE);
		}
		scoped_guard(mutex, &refill_mutex) {
			for (i = 0; i < nr && (!*ret || *ret == -EAGAIN); i++) {
				*ret = refill_with(pfns[i], 0, 0, &one);
				if (*ret != -EAGAIN)
					continue;
				if (nr_aside < SINGLES)
					aside[nr_aside++] = pfns[i];
				else
					free_range(pfns[i], 1);
			}
		}
		/* Only one chunk can be parked, so stop after an error. */
		for (; i < nr; i++)
			free_range(pfns[i], 1);
	} while (one == NO_PFN && nr && (!*ret || *ret == -EAGAIN) && nr_aside < SINGLES);

	while (nr_aside)
		free_range(aside[--nr_aside], 1);

	if (one != NO_PFN)
		*ret = 0;
	else if (!*ret)
		*ret = -EAGAIN;

	return one == NO_PFN ? NULL : pfn_to_page(one);
}

/*
 * May this context refill the cache? A refill sleeps, allocates and splits.
 *
 * @gfp is not sufficient: vmalloc() with GFP_ATOMIC allocates its page tables with
 * GFP_KERNEL and preemption disabled. Neither is PF_MEMALLOC, which vmalloc() also
 * sets for callers that may sleep. A refill does not recurse into reclaim, so it is
 * safe with PF_MEMALLOC. Without a preemption counter, though, PF_MEMALLOC is all there
 * is to recognise callers that must not sleep.
 */
static bool may_refill(gfp_t gfp)
{
	bool atomic = IS_ENABLED(CONFIG_PREEMPT_COUNT) ? !preemptible() :
		      in_interrupt() || irqs_disabled() || current->flags & PF_MEMALLOC;

	return gfpflags_allow_blocking(gfp) && !atomic && arch_kpkeys_can_split();
}

static void refill_work_fn(struct work_struct *work)
{
	struct node_locks *node = container_of(to_delayed_work(work), struct node_locks,
					       refill_work);
	int nid = node - nodes, ret = 0;

	while (nr_free(nid) <= LOW_MARK && may_refill(GFP_KERNEL) && !ret)
		ret = refill_node(nid, LOW_MARK);

	/* The last pages are worth reclaim, but reaching a mark is not. */
	if (ret == -EAGAIN && nr_free(nid) <= EMERGENCY_MARK) {
		struct page *page = refill_singles(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN,
						   &ret);

		if (page)
			kpkeys_pgtable_cache_free(page);
	}
	if (ret && nr_free(nid) <= EMERGENCY_MARK)
		queue_delayed_work(system_dfl_wq, &node->refill_work, REFILL_BACKOFF);
}

/* The nodes that the cpuset of this context allows, or NULL for all. */
static nodemask_t *allowed_nodes(void)
{
	return cpusets_enabled() && in_task() ? &cpuset_current_mems_allowed : NULL;
}

/* The node that the page allocator would prefer. */
static __always_inline int preferred_node(void)
{
	int nid = home_node();

#ifdef CONFIG_NUMA
	if (unlikely(cpusets_enabled() || current->mempolicy)) {
		struct zoneref *z;

		nid = mempolicy_slab_node();
		z = first_zones_zonelist(node_zonelist(nid, GFP_KERNEL), gfp_zone(GFP_KERNEL),
					 allowed_nodes());
		if (zonelist_zone(z))
			nid = zonelist_node_idx(z);
	}
#endif

	return nid;
}

/* Hand out a page of another node, the nearest first. */
static struct page *other_node_alloc(gfp_t gfp, int nid, unsigned long leave)
{
	struct zoneref *z;
	struct zone *zone;

	for_each_zone_zonelist_nodemask(zone, z, node_zonelist(nid, GFP_KERNEL),
					gfp_zone(GFP_KERNEL), leave ? allowed_nodes() : NULL) {
		struct page *page = node_alloc(gfp, zone_to_nid(zone), leave);

		if (page)
			return page;
	}

	return NULL;
}

static noinline struct page *alloc_slow(gfp_t gfp, int nid)
{
	unsigned long leave = 0;
	bool may = may_refill(gfp);
	struct page *page;
	int ret = 0;

	if (nr_free(nid) <= LOW_MARK && system_state >= SYSTEM_RUNNING)
		queue_delayed_work(system_dfl_wq, &nodes[nid].refill_work, 0);
	if (may)
		leave = EMERGENCY_MARK;

	/* Others may take the pages of a refill first. */
	do
		page = node_alloc(gfp, nid, leave);
	while (!page && may && !(ret = refill_node(nid, leave)));

	/* As in the page allocator: first the other nodes, then reclaim. */
	if (!page && ret == -EAGAIN)
		page = init_page(refill_singles(GFP_LIGHT, &ret), gfp);
	if (!page)
		page = other_node_alloc(gfp, nid, leave);
	if (!page && ret == -EAGAIN)
		page = init_page(refill_singles(gfp, &ret), gfp);
	if (!page) {
		/* Boot has used all pages that were set aside for it. */
		WARN_ONCE(!arch_kpkeys_can_split(), "kpkeys: No page tables left for boot\n");
		count(REFUSED, 1);
	}

	return page;
}

/**
 * kpkeys_pgtable_cache_alloc() - hand out a protected page
 * @gfp: as for alloc_pages(). It says whether the caller may block, and whether the
 *       page must be zero.
 *
 * Context: Any. May sleep and refill the cache if @gfp and the context allow it.
 * Return: a page of order 0 with a reference, from the node that alloc_pages() would
 *         prefer, or NULL. It belongs to the caller, who frees it with
 *         kpkeys_pgtable_cache_free().
 */
struct page *kpkeys_pgtable_cache_alloc(gfp_t gfp)
{
	int nid = preferred_node();
	struct page *page = NULL;

	if (likely(nid == home_node()))
		page = magazine_alloc(gfp, nid, false);

	return likely(page) ? page : alloc_slow(gfp, nid);
}

/**
 * kpkeys_pgtable_cache_owns() - is this a page of the cache?
 * @page: any page.
 *
 * Context: Any.
 * Return: true if it is, whatever it is used for.
 */
bool kpkeys_pgtable_cache_owns(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);
	struct frame *frame = cache ? frame_of(pfn) : NULL;

	return frame && frame_has(frame->ours, frame_bit(pfn));
}

/**
 * kpkeys_pgtable_cache_in_use() - was this page handed out?
 * @page: any page.
 *
 * Context: Any.
 * Return: true if it is a page of the cache that is, or will be, a page table, but not
 *         the root of an address space.
 */
bool kpkeys_pgtable_cache_in_use(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);
	struct frame *frame = cache ? frame_of(pfn) : NULL;

	return frame && frame_has(frame->used, frame_bit(pfn)) &&
	       !frame_has(frame->roots, frame_bit(pfn));
}

/**
 * kpkeys_pgtable_cache_add_root() - a page becomes the root of an address space
 * @page: a page that the caller got from the cache. No CPU has loaded it yet.
 *
 * Context: Any.
 * Return: false if the page was not handed out by the cache, or is a root already.
 */
bool kpkeys_pgtable_cache_add_root(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);
	struct frame *frame = frame_of(pfn);

	if (!frame || !frame_has(frame->used, frame_bit(pfn)))
		return false;

	guard(kpkeys_hardened_pgtables)();

	return !test_and_set_bit(frame_bit(pfn), frame->roots);
}

/**
 * kpkeys_pgtable_cache_is_root() - is this the root of an address space?
 * @pfn: any number.
 *
 * Context: Any; takes no lock.
 * Return: true if it is the pfn of a root.
 */
bool kpkeys_pgtable_cache_is_root(unsigned long pfn)
{
	struct frame *frame = frame_of(pfn);

	/* Higher bits of a pfn than memory has are ignored by frame_of(). */
	return frame && frame->pfn == round_down(pfn, FRAME_PAGES) &&
	       frame_has(frame->roots, frame_bit(pfn));
}

/**
 * kpkeys_pgtable_cache_del_root() - a page is not the root of an address space any more
 * @page: any page. If it is a root, no CPU loads it any more.
 *
 * Context: Any.
 * Return: false if the page was not a root.
 */
bool kpkeys_pgtable_cache_del_root(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);

	if (!kpkeys_pgtable_cache_is_root(pfn))
		return false;

	guard(kpkeys_hardened_pgtables)();

	return test_and_clear_bit(frame_bit(pfn), frame_of(pfn)->roots);
}

/* Put pages of a magazine back to their node. */
static void magazine_put(struct magazine *mag, unsigned int nr)
{
	unsigned int put;

	lockdep_assert_irqs_disabled();
	kpkeys_assert_pgtable_write();

	for (; nr; nr -= put) {
		int nid = pfn_to_nid(mag->pfn[mag->nr - 1]);
		struct frame *frame = NULL;

		guard(raw_spinlock)(&nodes[nid].lock);
		for (put = 0; put < nr; put++) {
			unsigned long pfn = mag->pfn[mag->nr - 1];

			/* Pages that were freed together often belong to the same frame. */
			if (!frame || frame->pfn != round_down(pfn, FRAME_PAGES)) {
				/* Two nodes only if memory hotplug has changed the home node. */
				if (pfn_to_nid(pfn) != nid)
					break;
				if (frame)
					frame_requeue(nid, frame);
				frame = frame_of(pfn);
			}
			__set_bit(frame_bit(pfn), frame->free);
			frame->nr_free++;
			mag->nr--;
		}
		frame_requeue(nid, frame);
		node_add_free(nid, put);
	}
}

static __always_inline void magazine_free(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);
	int nid = page_to_nid(page);
	struct magazine *mag;

	lockdep_assert_irqs_disabled();

	if (unlikely(nid != home_node())) {
		guard(raw_spinlock)(&nodes[nid].lock);
		frame_put(nid, pfn, 1);
		node_add_free(nid, 1);
		return;
	}

	mag = &magazines[smp_processor_id()];
	if (unlikely(mag->nr == ARRAY_SIZE(mag->pfn)))
		magazine_put(mag, BATCH);
	mag->pfn[mag->nr++] = pfn;
}

/**
 * kpkeys_pgtable_cache_free() - take back a page that was handed out
 * @page: the page, after its destructor. The caller owns it, and keeps it if it does
 *        not belong to the cache.
 *
 * A page that is not in use was freed twice. It is refused and reported, like the
 * root of an address space.
 *
 * Context: Any.
 * Return: true if the page belongs to the cache, false if not.
 */
bool kpkeys_pgtable_cache_free(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);
	struct frame *frame = frame_of(pfn);
	unsigned int bit = frame_bit(pfn);
	bool used;

	if (!frame || !frame_has(frame->ours, bit))
		return false;
	if (unlikely(frame_has(frame->roots, bit))) {
		mismatch(pfn, "free", "the root of an address space");
		return true;
	}

	VM_WARN_ON_ONCE_PAGE(PageTable(page), page);

	scoped_guard(kpkeys_hardened_pgtables) {
		guard(irqsave)();
		used = mark_unused(frame, bit);
		if (likely(used)) {
			/*
			 * As the page allocator does. ptlock_free() leaves a pointer
			 * here, about which the next ptlock_init() would complain.
			 */
			set_page_private(page, 0);
			if (want_init_on_free())
				clear_page(page_address(page));
			__SetPageOffline(page);
			if (unlikely(PageHWPoison(page)))
				count(POISONED, 1);
			else
				magazine_free(page);
		}
	}
	if (unlikely(!used))
		mismatch(pfn, "free", "not in use");

	return true;
}

static void drain_magazine(void *data)
{
	struct magazine *mag;

	guard(irqsave)();
	mag = data ?: &magazines[smp_processor_id()];
	if (mag->nr) {
		guard(kpkeys_hardened_pgtables)();
		magazine_put(mag, mag->nr);
	}
}

static void drain_magazines(void)
{
	on_each_cpu(drain_magazine, NULL, 1);
}

static int drain_dead_cpu(unsigned int cpu)
{
	drain_magazine(&magazines[cpu]);

	return 0;
}

/* Find a frame whose free pages are worth giving back. @leave pages stay on the node. */
static struct frame *find_frame(int nid, unsigned long leave)
{
	struct node_frames *node = &cache->frames[nid];
	int i;

	lockdep_assert_held(&nodes[nid].lock);

	/* Prefer frames that need no split, then those that yield most. See @bucket. */
	for (i = IDLE_BUCKET; i > 0; i--) {
		struct frame *frame = list_first_entry_or_null(&node->bucket[i],
							       struct frame, node);

		if (frame && node->nr_free - frame->nr_free >= leave &&
		    worth_giving_back(frame))
			return frame;
	}

	return NULL;
}

/*
 * Detach the free pages of @frame, or of a suitable frame if @frame is NULL. Returns
 * the frame, or NULL if less than @leave pages would stay on the node.
 */
static struct frame *detach_free(int nid, struct frame *frame, unsigned long leave,
				 unsigned long *pages)
{
	unsigned int nr;

	guard(raw_spinlock_irqsave)(&nodes[nid].lock);

	if (!frame)
		frame = find_frame(nid, leave);
	if (!frame || !frame->nr_free ||
	    cache->frames[nid].nr_free - frame->nr_free < leave)
		return NULL;

	guard(kpkeys_hardened_pgtables)();
	nr = frame->nr_free;
	bitmap_copy(pages, frame->free, FRAME_PAGES);
	bitmap_zero(frame->free, FRAME_PAGES);
	frame->nr_free = 0;
	frame_requeue(nid, frame);
	node_add_free(nid, -(long)nr);
	count(MOVING, nr);

	return frame;
}

/* Use free pages of the frame as the page tables for its split: they are protected. */
static bool take_split_tables(struct frame *frame, unsigned long *pages, unsigned int nr,
			      struct kpkeys_split_reserve *reserve)
{
	guard(kpkeys_hardened_pgtables)();

	while (reserve->nr < nr) {
		unsigned int bit = find_first_bit(pages, FRAME_PAGES);

		/* A snapshot must not see it in two places. */
		guard(irqsave)();
		if (bit == FRAME_PAGES || !mark_used(frame->pfn + bit))
			return false;
		__clear_bit(bit, pages);
		__ClearPageOffline(pfn_to_page(frame->pfn + bit));
		set_owner(frame->pfn + bit);
		kpkeys_split_reserve_add(reserve, page_ptdesc(pfn_to_page(frame->pfn + bit)));
		count(MOVING, -1);
	}

	return true;
}

/* Put detached pages back into their frame. */
static void attach_free(int nid, struct frame *frame, const unsigned long *pages)
{
	unsigned int start, end;

	guard(raw_spinlock_irqsave)(&nodes[nid].lock);
	guard(kpkeys_hardened_pgtables)();

	for_each_set_bitrange(start, end, pages, FRAME_PAGES) {
		frame_put(nid, frame->pfn + start, end - start);
		node_add_free(nid, end - start);
		count(MOVING, -(long)(end - start));
	}
}

/* Make detached pages ordinary memory and free them. Returns their number. */
static unsigned int give_back_run(int nid, struct frame *frame, unsigned int start,
				  unsigned int nr, struct kpkeys_split_reserve *reserve)
{
	unsigned int before = reserve->nr, i;
	unsigned long pfn = frame->pfn + start;
	int ret;

	ret = set_pkey(pfn, nr, KPKEYS_PKEY_DEFAULT, reserve);
	trace_kpkeys_pgtable_give_back(pfn, nr, before - reserve->nr, ret);
	if (before != reserve->nr)
		count(SPLITS, 1);
	if (ret) {
		pr_warn_once("Failed to make %u free pages writable: %d, leaking them\n",
			     nr, ret);
		guard(irqsave)();
		count(LEAKED, nr);
		count(MOVING, -(long)nr);
		return 0;
	}

	scoped_guard(raw_spinlock_irqsave, &nodes[nid].lock) {
		guard(kpkeys_hardened_pgtables)();
		bitmap_clear(frame->ours, start, nr);
		frame->nr_ours -= nr;
		cache->frames[nid].nr_ours -= nr;
		frame_requeue(nid, frame);
		count(MOVING, -(long)nr);
	}
	for (i = 0; i < nr; i++)
		set_owner(pfn + i);
	free_range(pfn, nr);

	return nr;
}

/* Give back the free pages of a frame, see detach_free(). Returns their number. */
static unsigned int give_back(int nid, struct frame *frame, unsigned long leave)
{
	KPKEYS_SPLIT_RESERVE_ONSTACK(reserve);
	DECLARE_BITMAP(pages, FRAME_PAGES);
	unsigned int start, end, nr = 0;

	frame = detach_free(nid, frame, leave, pages);
	if (!frame)
		return 0;

	start = find_first_bit(pages, FRAME_PAGES);
	end = find_next_zero_bit(pages, FRAME_PAGES, start);
	if (!take_split_tables(frame, pages, split_demand(frame->pfn + start, end - start),
			       &reserve)) {
		attach_free(nid, frame, pages);
		return 0;
	}

	for_each_set_bitrange(start, end, pages, FRAME_PAGES)
		nr += give_back_run(nid, frame, start, end - start, &reserve);
	if (nr)
		count(GIVEN_BACK, 1);

	return nr;
}

static unsigned long shrink_node(int nid, unsigned long nr_pages)
{
	unsigned long nr = 0;
	unsigned int got;

	do {
		got = give_back(nid, NULL, SHRINK_MARK);
		nr += got;
	} while (got && nr < nr_pages);

	return nr;
}

/**
 * kpkeys_pgtable_cache_shrink() - give free pages back
 * @nr_pages: give back at least this many pages, if there are enough.
 *
 * A few pages stay on each node, or the next tables would cause a refill. Frames whose
 * pages are all free are given back first. For other frames, a block of the direct map
 * is split, and one of the free pages becomes the table for this split.
 *
 * Context: Process context. Takes no lock under which an allocation waits for
 *          reclaim.
 * Return: the number of pages that were given back.
 */
unsigned long kpkeys_pgtable_cache_shrink(unsigned long nr_pages)
{
	unsigned long nr = 0;
	int nid;

	drain_magazines();
	for_each_node_state(nid, N_MEMORY) {
		if (nr < nr_pages)
			nr += shrink_node(nid, nr_pages - nr);
	}

	return nr;
}

/* The state of all pages, with all other CPUs stopped. */
struct snapshot {
	struct kpkeys_pgtable_cache_stats *stats;
	unsigned long ours, free, used, magazines;
};

static void snapshot_frame(struct snapshot *s, struct frame *frame)
{
	unsigned int ours = bitmap_weight(frame->ours, FRAME_PAGES);
	unsigned int free = bitmap_weight(frame->free, FRAME_PAGES);

	VM_WARN_ON_ONCE(frame->nr_ours != ours || frame->nr_free != free);
	VM_WARN_ON_ONCE(bitmap_intersects(frame->free, frame->used, FRAME_PAGES));
	VM_WARN_ON_ONCE(!bitmap_subset(frame->free, frame->ours, FRAME_PAGES));
	VM_WARN_ON_ONCE(!bitmap_subset(frame->used, frame->ours, FRAME_PAGES));
	VM_WARN_ON_ONCE(!bitmap_subset(frame->roots, frame->used, FRAME_PAGES));
	s->ours += ours;
	s->free += free;
	s->used += bitmap_weight(frame->used, FRAME_PAGES);
}

static void snapshot_index(struct snapshot *s, void **table, int level)
{
	int i;

	for (i = 0; level >= 0 && i < 1 << index_shift(level); i++) {
		if (table[i])
			snapshot_index(s, table[i], level - 1);
	}
	for (i = 0; level < 0 && i < 1 << FRAMES_SHIFT; i++)
		snapshot_frame(s, (struct frame *)table + i);
}

static int take_snapshot(void *data)
{
	struct snapshot *s = data;
	struct kpkeys_pgtable_cache_stats *stats = s->stats;
	unsigned long ours = 0, free = 0;
	int i;

	snapshot_index(s, cache->index, INDEX_LEVELS - 1);
	stats->lowest = ULONG_MAX;
	for_each_online_node(i) {
		ours += cache->frames[i].nr_ours;
		free += cache->frames[i].nr_free;
		stats->lowest = min(stats->lowest, cache->frames[i].lowest);
	}
	VM_WARN_ON_ONCE(s->ours != ours || s->free != free);
	for_each_possible_cpu(i)
		s->magazines += magazines[i].nr;

	stats->cached = s->free + s->magazines;
	stats->reserved = refill_reserve.nr;
	stats->in_use = s->used - refill_reserve.nr;
	stats->meta = counted(META);
	stats->moving = counted(MOVING);
	stats->parked = counted(PARKED);
	stats->poisoned = counted(POISONED);
	stats->leaked = counted(LEAKED) + counted(ABANDONED);
	stats->taken = s->ours + counted(PARKED) + counted(ABANDONED);
	/* Each page is in one place. */
	VM_WARN_ON_ONCE(s->ours != stats->cached + s->used + stats->meta + stats->moving +
			stats->poisoned + counted(LEAKED));

	return 0;
}

/**
 * kpkeys_pgtable_cache_stats() - count the pages in each place
 * @stats: the result.
 *
 * Stops all other CPUs, so that the sums are exact.
 *
 * Context: Process context.
 */
void kpkeys_pgtable_cache_stats(struct kpkeys_pgtable_cache_stats *stats)
{
	struct snapshot s = { .stats = stats };
	int i;

	/* Taken first: bringing up a CPU holds it, and may wait for the mutex to refill. */
	guard(cpus_read_lock)();
	/* The pages of a refill in progress are in no place yet. */
	guard(mutex)(&refill_mutex);
	stop_machine_cpuslocked(take_snapshot, &s, NULL);

	for (i = 0; i < ARRAY_SIZE(stats->refills); i++)
		stats->refills[i] = i < ARRAY_SIZE(chunk_orders) ? counted(REFILLS + i) : 0;
	stats->given_back = counted(GIVEN_BACK);
	stats->splits = counted(SPLITS);
	stats->emergency = counted(EMERGENCY);
	stats->refused = counted(REFUSED);
	stats->mismatched = counted(MISMATCHED);
}

/* The order of the first chunk: small on small machines, but enough for the state. */
static unsigned int __init boot_order(unsigned int nr_state)
{
	unsigned int min = order_base_2(CHUNK_MAX_DEMAND + nr_state + INDEX_LEVELS +
					2 * EMERGENCY_MARK);

	return clamp(max_chunk_order(), min, FRAME_ORDER);
}

/* A CPU of a node without memory uses that of the nearest node, as the page allocator does. */
static void update_home_nodes(void)
{
	int nid;

	for_each_online_node(nid) {
		struct zoneref *z = first_zones_zonelist(node_zonelist(nid, GFP_KERNEL),
							 gfp_zone(GFP_KERNEL), NULL);

		if (zonelist_zone(z))
			WRITE_ONCE(nodes[nid].home, zonelist_node_idx(z));
	}
}

static int __init init_nodes(void)
{
	int nid;

	nodes = kcalloc(nr_node_ids, sizeof(*nodes), GFP_KERNEL);
	if (!nodes)
		return -ENOMEM;
	for (nid = 0; nid < nr_node_ids; nid++) {
		raw_spin_lock_init(&nodes[nid].lock);
		mutex_init(&nodes[nid].refill);
		INIT_DELAYED_WORK(&nodes[nid].refill_work, refill_work_fn);
		nodes[nid].home = nid;
	}
	update_home_nodes();

	/* Tell lockdep that reclaim takes these: their holders must not wait for reclaim. */
	fs_reclaim_acquire(GFP_KERNEL);
	might_lock(&nodes[0].refill);
	might_lock(&refill_mutex);
	fs_reclaim_release(GFP_KERNEL);

	return 0;
}

/*
 * Put the state into @nr pages of a protected chunk, of which the last ones are for the
 * caller of kpkeys_pgtable_cache_init(). Returns the next page.
 */
static unsigned long __init init_state(unsigned long pfn, unsigned int nr)
{
	int nid, i;

	guard(kpkeys_hardened_pgtables)();

	cache = page_address(pfn_to_page(pfn));
	memset(cache, 0, nr * PAGE_SIZE);
	magazines = (void *)cache + PAGE_ALIGN(struct_size(cache, frames, nr_node_ids));
	for (nid = 0; nid < nr_node_ids; nid++) {
		for (i = 0; i < FRAME_BUCKETS; i++)
			INIT_LIST_HEAD(&cache->frames[nid].bucket[i]);
		cache->frames[nid].lowest = ULONG_MAX;
	}
	for (pfn += nr, i = 0; i < INDEX_LEVELS; i++)
		cache->spare[cache->nr_spare++] = pfn++;
	count(META, nr + INDEX_LEVELS);

	return pfn;
}

/**
 * kpkeys_pgtable_cache_init() - stock the cache for the first time
 * @mem: on success, @nr pages of zeroes in protected memory, which the caller keeps.
 * @nr:  how many, at most a quarter of a block. They come from the first chunk, since
 *       an allocation of their own would split another block.
 *
 * There is no reserve yet, and no protected page to fill it with. So the split of
 * the first chunk uses pages of this chunk as page tables. They are protected once
 * the split is done and the pkey of the chunk is set.
 *
 * Context: Boot, on one CPU, with the guard for page tables active.
 * Return: 0; -ENOMEM; or the error of set_memory_pkey_reserve().
 */
int __init kpkeys_pgtable_cache_init(void **mem, unsigned int nr)
{
	unsigned int nr_state = PHYS_PFN(PAGE_ALIGN(struct_size(cache, frames, nr_node_ids)) +
					 PAGE_ALIGN(nr_cpu_ids * sizeof(*magazines))) + nr;
	unsigned int order = boot_order(nr_state), i;
	unsigned long first, pfn;
	struct page *page;
	int nid, ret;

	ret = init_nodes();
	if (ret)
		return ret;
	page = kpkeys_pgtable_cache_alloc_pages(GFP_KERNEL | __GFP_SKIP_KASAN, order,
						NUMA_NO_NODE);
	if (!page)
		return -ENOMEM;
	split_page(page, order);
	nid = page_to_nid(page);
	first = page_to_pfn(page);

	scoped_guard(mutex, &refill_mutex) {
		for (i = 0; i < CHUNK_MAX_DEMAND; i++)
			kpkeys_split_reserve_add(&refill_reserve, page_ptdesc(page + i));
		ret = set_pkey(first, 1U << order, KPKEYS_PKEY_PGTABLES, &refill_reserve);
		if (ret)
			return ret;

		pfn = init_state(first + CHUNK_MAX_DEMAND, nr_state);
		*mem = page_address(page + CHUNK_MAX_DEMAND + nr_state - nr);
		own(first, 1U << order, CHUNK_MAX_DEMAND);
		for (i = 0; i < nr_state; i++)
			__ClearPageOffline(page + CHUNK_MAX_DEMAND + i);
		stock(pfn, first + (1U << order) - pfn, NULL);
		count(REFILLS, 1);
	}

	while (!ret && nr_free(nid) < min(BOOT_STOCK, (1U << order) / 2))
		ret = refill_node(nid, BOOT_STOCK - 1);

	return ret;
}

static unsigned long shrink_count(struct shrinker *shrinker,
				  struct shrink_control *sc)
{
	unsigned long nr = nr_free(sc->nid);

	return nr > SHRINK_MARK ? nr - SHRINK_MARK : SHRINK_EMPTY;
}

static unsigned long shrink_scan(struct shrinker *shrinker,
				 struct shrink_control *sc)
{
	unsigned long nr = shrink_node(sc->nid, sc->nr_to_scan);

	if (!nr)
		return SHRINK_STOP;
	sc->nr_scanned = nr;
	mm_account_reclaimed_pages(nr);

	return nr;
}

/* Before a process is killed, give back what the shrinker may give back. */
static int oom_callback(struct notifier_block *nb, unsigned long unused, void *freed)
{
	*(unsigned long *)freed += kpkeys_pgtable_cache_shrink(ULONG_MAX);

	return NOTIFY_OK;
}

static struct notifier_block oom_nb = { .notifier_call = oom_callback };

/* Free the reserve and the spare pages, so that they can be taken from another node. */
static void release_set_aside(void)
{
	guard(mutex)(&refill_mutex);

	kpkeys_split_reserve_return(&refill_reserve);
	while (cache->nr_spare) {
		guard(kpkeys_hardened_pgtables)();
		guard(irqsave)();
		magazine_free(pfn_to_page(cache->spare[--cache->nr_spare]));
		count(META, -1);
	}
}

static void set_aside(int nid)
{
	guard(mutex)(&refill_mutex);

	top_up(nid);
}

/*
 * Give back free pages in memory that is about to go offline. Page tables, state of
 * the cache and a parked chunk still prevent it.
 */
static int memory_callback(struct notifier_block *nb, unsigned long action,
			   void *arg)
{
	struct memory_notify *mem = arg;
	unsigned long pfn, end = mem->start_pfn + mem->nr_pages;

	if (action == MEM_ONLINE || action == MEM_OFFLINE)
		update_home_nodes();
	if (action != MEM_GOING_OFFLINE)
		return NOTIFY_OK;

	release_set_aside();
	drain_magazines();
	for (pfn = mem->start_pfn; pfn < end; pfn += FRAME_PAGES) {
		struct frame *frame = frame_of(pfn);
		int nid = pfn_to_nid(pfn);

		/*
		 * A frame with a page in use prevents offlining anyway. give_back()
		 * checks again, under the lock.
		 */
		if (!frame || data_race(!frame->nr_free || frame->nr_free != frame->nr_ours))
			continue;
		if (give_back(nid, frame, LOW_MARK))
			continue;
		/* The range is isolated, so a refill takes memory from elsewhere. */
		if (!may_refill(GFP_KERNEL) || refill_node(nid, ULONG_MAX)) {
			/* If the node has no other memory, other nodes provide the tables. */
			if (num_node_state(N_MEMORY) > 1)
				give_back(nid, frame, 0);
			continue;
		}
		give_back(nid, frame, LOW_MARK);
	}
	set_aside(home_node());

	return NOTIFY_OK;
}

static int stats_show(struct seq_file *m, void *v)
{
	struct kpkeys_pgtable_cache_stats stats;
	int i;

	kpkeys_pgtable_cache_stats(&stats);
	seq_printf(m, "taken %lu\ncached %lu\nreserved %lu\nin_use %lu\nmeta %lu\nmoving %lu\nparked %lu\npoisoned %lu\nleaked %lu\n",
		   stats.taken, stats.cached, stats.reserved, stats.in_use, stats.meta,
		   stats.moving, stats.parked, stats.poisoned, stats.leaked);
	seq_printf(m, "lowest %lu\nemergency %lu\nrefused %lu\nmismatched %lu\ngiven_back %lu\nsplits %lu\n",
		   stats.lowest, stats.emergency, stats.refused, stats.mismatched,
		   stats.given_back, stats.splits);
	for (i = 0; i < ARRAY_SIZE(chunk_orders); i++)
		seq_printf(m, "refills_order_%u %lu\n", chunk_orders[i], stats.refills[i]);

	return 0;
}

DEFINE_SHOW_ATTRIBUTE(stats);

static int __init kpkeys_pgtable_cache_late_init(void)
{
	struct shrinker *shrinker;

	if (!cache)
		return 0;

	shrinker = shrinker_alloc(SHRINKER_NUMA_AWARE, "kpkeys-pgtable-cache");
	if (shrinker) {
		shrinker->count_objects = shrink_count;
		shrinker->scan_objects = shrink_scan;
		/* A free page costs nothing to recreate. */
		shrinker->seeks = 0;
		shrinker->batch = FRAME_PAGES;
		shrinker_register(shrinker);
	}
	register_oom_notifier(&oom_nb);
	hotplug_memory_notifier(memory_callback, DEFAULT_CALLBACK_PRI);
	if (cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "mm/kpkeys:dead", NULL,
				      drain_dead_cpu) < 0)
		pr_warn("Free pages of CPUs that go offline are not given back\n");
	debugfs_create_file("kpkeys_pgtable_cache", 0400, NULL, NULL, &stats_fops);

	return 0;
}

late_initcall(kpkeys_pgtable_cache_late_init);
