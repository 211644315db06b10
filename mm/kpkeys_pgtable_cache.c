// SPDX-License-Identifier: GPL-2.0-only
/*
 * A cache of protected pages for page tables.
 *
 * Setting the pkey of a single page costs a broadcast TLB invalidation, and a split
 * if the direct map is made of blocks. So pages are taken from the page allocator
 * in chunks, if possible as large as a block, and the pkey is set for a chunk as a
 * whole. Pages are handed out one by one and come back.
 *
 * What is known of a page is kept by frame: a naturally aligned range, as large as
 * the largest chunk, with four bitmaps.
 *
 *	ours:	the page has the pkey and belongs to the cache or to who got it.
 *	used:	it was handed out.
 *	free:	it is in the frame, and the frame is in a list of its node.
 *	roots:	it is the root of a user address space, which a CPU may load.
 *
 * A page that is ours and neither used nor free is in a magazine, holds state of
 * the cache itself, is on its way back, or is not used any more.
 *
 *	page allocator --refill--> frame --batch--> magazine --hand out--> table
 *	      ^                    |   ^               |  ^                  |
 *	      +----give back-------+   +-----batch-----+  +------free--------+
 *
 * All of this state is in pages of the cache, so that it takes an open window to
 * change it: an attacker who can write anywhere else can neither make a page of
 * his choice a table nor have a table handed out twice. Only the locks, and counts
 * of events, are ordinary memory.
 *
 * Who owns what:
 *
 *  - nodes[].refill: serialises refills of a node by chunks, and who waits for it
 *    does not allocate. What is allocated under it never waits for reclaim.
 *  - refill_mutex: the reserve that a refill splits with, the spare pages for state,
 *    and the parked chunk. Nothing is allocated while it is held.
 *  - nodes[].lock: the frames of a node, but for the bits that say who has a page. A
 *    leaf lock; the pkey of memory is never changed under it.
 *  - a magazine belongs to its CPU, with interrupts off.
 *  - a page that was handed out belongs to whoever got it.
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

/* Below this, a refill of the node is started in the background. */
#define LOW_MARK		64

/* What is left on a node, so that the next few tables do not take it back. */
#define SHRINK_MARK		(2 * LOW_MARK)

/* What boot has to get along with until it may refill, which takes interrupts. */
#define BOOT_STOCK		256

/* The part of memory, as a power of two, that a chunk is at most. */
#define CHUNK_SHARE		8

/*
 * Who may refill leaves this many to those who may not: they have no other way
 * to a page.
 */
#define EMERGENCY_MARK		16

/* A frame that is mapped by one entry is not split for fewer pages than these. */
#define SPLIT_YIELD		16

/* Pages that move between a node and a magazine at a time. */
#define BATCH			16

/* How many single pages a refill takes at a time, and sets aside for want of tables. */
#define SINGLES			16

/* How often the pkey of a chunk is tried before it is given up. */
#define PARK_TRIES		3

/* How long nothing is tried after a failure; twice as long after each chunk given up. */
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
 * @ours:    has the pkey of page tables. Changed under the node's lock.
 * @free:    may be taken. Changed under the node's lock.
 * @used:    handed out. Set by who hands out, cleared by who takes back.
 * @roots:   may be loaded as a root. Changed by who has the page.
 *
 * Invariant: @free and @used are disjoint, and subsets of @ours.
 *
 * Invariant: @roots is a subset of @used.
 *
 * Invariant: pages of ours that are not used, and no others, are PageOffline():
 * memory that has any other pages which cannot be moved is refused before
 * memory_callback() is asked to give them back. Nobody saves the content of such
 * pages. A page type of our own would need the same exceptions in memory hotplug.
 *
 * A frame stays once it is there, so that it can be looked up without a lock.
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
 * Frames are found by their number, through arrays of pointers: the top one, which has
 * what it takes for all of memory, two levels of pages, and then pages of frames.
 */
#define FRAMES_SHIFT		ilog2(PAGE_SIZE / sizeof(struct frame))
#define PTRS_SHIFT		ilog2(PAGE_SIZE / sizeof(void *))
#define INDEX_LEVELS		3
#define TOP_SHIFT		MAX(MAX_PHYSMEM_BITS - PAGE_SHIFT - FRAME_ORDER - FRAMES_SHIFT - \
				    (INDEX_LEVELS - 1) * PTRS_SHIFT, 0)
static_assert(TOP_SHIFT <= PTRS_SHIFT + 1);

/**
 * struct node_frames - the frames of a node
 * @bucket:  by the number of their free pages, to within a power of two; the last
 *           one has those all of whose pages are free.
 * @nr_ours: sum over all frames.
 * @nr_free: likewise; also read without the lock, so each store to it is marked.
 * @lowest:  the lowest @nr_free so far.
 *
 * Pages are handed out from the lowest bucket first, so that frames become free.
 */
struct node_frames {
	struct list_head bucket[FRAME_BUCKETS];
	unsigned long nr_ours;
	unsigned long nr_free;
	unsigned long lowest;
};

/* Free pages of the CPU's own node, for which no lock is taken. */
struct magazine {
	unsigned long nr;
	unsigned long pfn[31];
};

/**
 * struct cache - what is not by CPU or by frame
 * @index:      the top of the index.
 * @nr_spare:   how many pages are set aside for the index. Refill mutex.
 * @spare:      these. They count as state already.
 * @parked:     a chunk whose pkey could not be set. It is the next to be tried:
 *              its split is done or, if that was what failed, still covered.
 *              Refill mutex.
 * @frames:     by node.
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

/* All of this is in pages of the cache. */
static struct cache *cache __ro_after_init;
static struct magazine *magazines __ro_after_init;

/* What cannot be in memory that is read-only most of the time. */
static struct node_locks {
	raw_spinlock_t lock;		/* the frames of the node, and their lists */
	struct mutex refill;		/* who refills the node by a chunk */
	struct delayed_work refill_work;
} *nodes __ro_after_init;

static DEFINE_MUTEX(refill_mutex);

/*
 * Chunks that were given up, and until when no other is tried: it might be the next
 * one, and all of memory might follow. Refill mutex.
 */
static unsigned int nr_given_up;
static unsigned long pause_end;

/*
 * Invariant: a chunk is split off only if the reserve has the page tables for that,
 * and @cache->spare the pages for its frame. Both are filled up from the yield
 * of each refill, and from free pages if that was not enough.
 *
 * Pages in the reserve count as used.
 */
static struct kpkeys_split_reserve refill_reserve =
	KPKEYS_SPLIT_RESERVE_INIT(refill_reserve);

/* Where pages are that no frame knows of, and what has happened. */
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

static unsigned long nr_free(int nid)
{
	return READ_ONCE(cache->frames[nid].nr_free);
}

/* Something is not what somebody says it is. Not inside of a window. */
static void mismatch(unsigned long pfn, const char *what)
{
	count(MISMATCHED, 1);
	pr_err_ratelimited("pfn %#lx %s\n", pfn, what);
}

static __always_inline int index_shift(int level)
{
	return level == INDEX_LEVELS - 1 ? TOP_SHIFT : PTRS_SHIFT;
}

/* Where the page of level @level for a frame is found in the one above. */
static __always_inline void **index_slot(void **table, unsigned long pfn, int level)
{
	return &table[(pfn >> (FRAME_ORDER + FRAMES_SHIFT + level * PTRS_SHIFT)) &
		      ((1UL << index_shift(level)) - 1)];
}

static_assert(INDEX_LEVELS == 3);

/*
 * The frame of a page; NULL if there is none, and then the page is not ours. Pairs with
 * index_add(): what is behind a pointer was there before it. Not a loop, which compilers
 * leave as one.
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
	/* That of a page which somebody has does not change; those beside it may. */
	return data_race(test_bit(bit, pages));
}

/* How many pages the index needs for the frame of this page. */
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

/* Make the frame of @pfn, with pages that are ours. */
static void index_add(unsigned long pfn)
{
	void **slot, **table = cache->index;
	int level, i;

	guard(kpkeys_hardened_pgtables)();

	for (level = INDEX_LEVELS - 1; level >= 0; level--, table = *slot) {
		struct frame *frames;

		slot = index_slot(table, pfn, level);
		if (*slot)
			continue;

		frames = page_address(pfn_to_page(cache->spare[--cache->nr_spare]));
		clear_page(frames);
		for (i = 0; !level && i < 1 << FRAMES_SHIFT; i++) {
			frames[i].pfn = round_down(pfn, 1UL << (FRAME_ORDER + FRAMES_SHIFT)) +
					i * FRAME_PAGES;
			INIT_LIST_HEAD(&frames[i].node);
		}
		/* Pairs with frame_of(), which takes no lock. */
		smp_store_release(slot, frames);
	}
}

/* Put a frame where its number of free pages says, after that has changed. */
static void frame_requeue(int nid, struct frame *frame)
{
	struct node_frames *node = &cache->frames[nid];

	lockdep_assert_held(&nodes[nid].lock);

	list_del_init(&frame->node);
	if (frame->nr_free)
		list_add(&frame->node, &node->bucket[frame->nr_free == frame->nr_ours ?
						     IDLE_BUCKET : fls(frame->nr_free)]);
}

static void node_add_free(int nid, long nr)
{
	struct node_frames *node = &cache->frames[nid];

	lockdep_assert_held(&nodes[nid].lock);

	WRITE_ONCE(node->nr_free, node->nr_free + nr);
	if (nr < 0)
		node->lowest = min(node->lowest, node->nr_free);
	/* What an administrator sees, and what MemAvailable is made of. */
	__mod_node_page_state(NODE_DATA(nid), NR_KERNEL_MISC_RECLAIMABLE, nr);
}

/* Pages of a frame that nobody has become free. */
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
 * Take up to @max free pages off a node, if more than @leave are there, from the
 * frames that have the fewest. Nobody has them now: what becomes of them is settled
 * before interrupts are on again, or else a snapshot would miss them.
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
			/* Or this goes on for ever with a frame that has none. */
			if (WARN_ON_ONCE(!taken))
				return nr;
		}
	}
	if (nr)
		node_add_free(nid, -(long)nr);

	return nr;
}

/*
 * A page of ours that nobody has becomes a used one. The one place where that is
 * decided, and by nothing but the frame.
 */
static __always_inline bool mark_used(unsigned long pfn)
{
	struct frame *frame = frame_of(pfn);
	unsigned int bit = frame_bit(pfn);

	return frame && frame_has(frame->ours, bit) && !frame_has(frame->free, bit) &&
	       !test_and_set_bit(bit, frame->used);
}

/* The other way round; nobody has the page now. */
static __always_inline bool mark_unused(struct frame *frame, unsigned int bit)
{
	return test_and_clear_bit(bit, frame->used);
}

/* Hand out one page. Returns NO_PFN if the page is broken, or *@bad if it is not ours to give. */
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

/* Take a page out of this CPU's magazine, and refill that if @leave allows it. */
static __always_inline unsigned long magazine_take(int nid, bool refill, unsigned long *bad)
{
	struct magazine *mag;
	unsigned long pfn = NO_PFN;

	guard(irqsave)();

	mag = &magazines[smp_processor_id()];
	/* The last pages of a node are taken one by one, by who needs them. */
	if (refill && !mag->nr && nid == numa_mem_id())
		mag->nr = node_take(nid, mag->pfn, BATCH, EMERGENCY_MARK);
	while (pfn == NO_PFN && mag->nr)
		pfn = hand_out(mag->pfn[--mag->nr], bad);

	return pfn;
}

static void report_bad(unsigned long bad)
{
	if (bad != NO_PFN)
		mismatch(bad, "is not a free page of page tables, and is not handed out");
}

/* A page of this CPU's magazine, or NULL. One window, also if it is to be cleared. */
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

/* What is handed out by any way but the magazine is made zero here. */
static struct page *init_page(struct page *page, gfp_t gfp)
{
	if (page && want_init_on_alloc(gfp)) {
		guard(kpkeys_hardened_pgtables)();
		clear_page(page_address(page));
	}

	return page;
}

/* A page of any node, if more than @leave are there. */
static struct page *node_alloc(gfp_t gfp, int nid, unsigned long leave)
{
	unsigned long pfn, bad;
	unsigned int taken;

	if (nid == numa_mem_id()) {
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

/* Tests make it fail. @nid may be NUMA_NO_NODE: then the caller's policy decides. */
VISIBLE_IF_KUNIT
struct page *kpkeys_pgtable_cache_alloc_pages(gfp_t gfp, unsigned int order, int nid)
{
	KUNIT_STATIC_STUB_REDIRECT(kpkeys_pgtable_cache_alloc_pages, gfp, order, nid);

	return nid == NUMA_NO_NODE ? alloc_pages(gfp, order) :
	       alloc_pages_node(nid, gfp, order);
}

/*
 * Memory that costs nothing but a look: no reclaim, no compaction, none of the last
 * pages. What is not there at once is not worth making room for.
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

/* Memory that is not protected goes back to where it came from. */
static void free_range(unsigned long pfn, unsigned int nr)
{
	for (; nr; nr--, pfn++)
		__free_page(pfn_to_page(pfn));
}

/* A page of ours that nobody has goes into the reserve for refills. */
static void reserve_page(unsigned long pfn)
{
	lockdep_assert_held(&refill_mutex);

	if (WARN_ON_ONCE(!mark_used(pfn)))
		return;
	__ClearPageOffline(pfn_to_page(pfn));
	kpkeys_split_reserve_add(&refill_reserve, page_ptdesc(pfn_to_page(pfn)));
}

static void spare_page(unsigned long pfn)
{
	lockdep_assert_held(&refill_mutex);

	cache->spare[cache->nr_spare++] = pfn;
	count(META, 1);
}

/* Pages that have the pkey by now are ours. Nobody has them yet. */
static void own(unsigned long pfn, unsigned int nr)
{
	int nid = pfn_to_nid(pfn);
	struct frame *frame;
	unsigned int i;

	index_add(pfn);
	frame = frame_of(pfn);
	for (i = 0; i < nr; i++) {
		/* The refill has allocated it, but that is not who will have it. */
		reset_page_owner(pfn_to_page(pfn + i), 0);
		__SetPageOffline(pfn_to_page(pfn + i));
	}

	guard(kpkeys_hardened_pgtables)();
	guard(raw_spinlock_irqsave)(&nodes[nid].lock);
	bitmap_set(frame->ours, frame_bit(pfn), nr);
	frame->nr_ours += nr;
	cache->frames[nid].nr_ours += nr;
	frame_requeue(nid, frame);
}

/*
 * Distribute pages that are ours: first to the reserve and the index, so that the
 * next refill can be made; one to who asked for this one; and the rest to its node.
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

/* Is there what it takes to split a chunk off, and to make its frame? */
static bool covers(unsigned int split, unsigned int index)
{
	return split <= refill_reserve.nr && index <= cache->nr_spare;
}

/* Fill up from what is free, if a refill did not yield enough. */
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
 * Protect a chunk and stock the cache with it. -EAGAIN if there is not what that
 * takes, or it takes all that the chunk has; then the chunk stays the caller's.
 * After any other failure it is parked, or given up after @tries others.
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
	/* A single page yields none, but the next one of its block will. */
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
	own(pfn, nr);
	stock(pfn, nr, one);

	return 0;
}

/* Returns false if there is no parked chunk that is covered; else *@ret is what became of it. */
static bool refill_parked(int *ret)
{
	unsigned long abandoned = counted(ABANDONED), pfn = cache->parked.pfn;
	unsigned int order = cache->parked.order, tries = cache->parked.tries;

	lockdep_assert_held(&refill_mutex);

	if (!tries)
		return false;
	/* Single pages, or memory that went offline, may have used up what it takes. */
	if (!covers(split_demand(pfn, 1U << order), index_demand(pfn)))
		top_up(pfn_to_nid(pfn));
	if (!covers(split_demand(pfn, 1U << order), index_demand(pfn)))
		return false;

	scoped_guard(kpkeys_hardened_pgtables)
		cache->parked.tries = 0;
	count(PARKED, -(1L << order));
	*ret = refill_with(pfn, order, tries, NULL);
	if (counted(ABANDONED) != abandoned)
		pr_warn_once("cannot make %u pages read-only for page tables: %d; they are not used any more\n",
			     1U << order, *ret);

	return true;
}

/* Others need the memory, too, where there is little of it. */
static unsigned int max_chunk_order(void)
{
	return ilog2(totalram_pages() >> CHUNK_SHARE | 1);
}

/*
 * Stock a node that has no more than @want free pages, by the largest chunk that is
 * there. One at a time: who waits finds what the other has brought. Nobody here
 * waits for reclaim, so that reclaim may wait for us.
 *
 * Returns -EAGAIN if the node has no chunk; the error of its pkey; or -EBUSY if there
 * were too many of these.
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
 * The last resort: single pages, as the caller would get them from the page
 * allocator. Several, if there are: the first of a block may yield no more than the
 * table that its split takes, and the others share that split.
 *
 * Returns a page, with *@ret zero; or NULL, with -EAGAIN or the error of the pkey.
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
		/* Only one can be parked, so no other is tried after a failure. */
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
 * May this context refill the cache? It sleeps, allocates, and splits.
 *
 * What the caller passed as gfp does not tell: vmalloc() with GFP_ATOMIC asks
 * for GFP_KERNEL tables with preemption off. Nor does PF_MEMALLOC, which vmalloc()
 * also sets for callers who may sleep, and in which nothing that is done here
 * recurses into reclaim; but where preemption is not counted it is all that tells.
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

	/* For a mark nobody is to be pushed out of memory, but the last pages are needed. */
	if (ret == -EAGAIN && nr_free(nid) <= EMERGENCY_MARK) {
		struct page *page = refill_singles(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN,
						   &ret);

		if (page)
			kpkeys_pgtable_cache_free(page);
	}
	if (ret && nr_free(nid) <= EMERGENCY_MARK)
		queue_delayed_work(system_dfl_wq, &node->refill_work, REFILL_BACKOFF);
}

/* The nodes on which this context may allocate first; NULL for all. */
static nodemask_t *allowed_nodes(void)
{
	return cpusets_enabled() && in_task() ? &cpuset_current_mems_allowed : NULL;
}

/* Where the page allocator would look first. */
static __always_inline int preferred_node(void)
{
	int nid = numa_mem_id();

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

/* What other nodes have, the nearest first. */
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

	/* Others may be faster to take what a refill has brought. */
	do
		page = node_alloc(gfp, nid, leave);
	while (!page && may && !(ret = refill_node(nid, leave)));

	/* In the order in which the page allocator looks: the other nodes, then reclaim. */
	if (!page && ret == -EAGAIN)
		page = init_page(refill_singles(GFP_LIGHT, &ret), gfp);
	if (!page)
		page = other_node_alloc(gfp, nid, leave);
	if (!page && ret == -EAGAIN)
		page = init_page(refill_singles(gfp, &ret), gfp);
	if (!page) {
		/* What boot set aside for the time when nothing can be split. */
		WARN_ONCE(!arch_kpkeys_can_split(), "kpkeys: the stock of page tables for boot is used up\n");
		count(REFUSED, 1);
	}

	return page;
}

/**
 * kpkeys_pgtable_cache_alloc() - hand out a protected page
 * @gfp: as for alloc_pages(); says whether the caller may block, and whether the
 *       page is to be zero.
 *
 * Context: Any. May sleep and refill the cache if @gfp and the context allow it.
 * Return: a page of order 0 with a reference, from the node that alloc_pages() would
 *         prefer. It belongs to the caller and goes back by
 *         kpkeys_pgtable_cache_free(). NULL if there is none.
 */
struct page *kpkeys_pgtable_cache_alloc(gfp_t gfp)
{
	int nid = preferred_node();
	struct page *page = NULL;

	if (likely(nid == numa_mem_id()))
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
 * kpkeys_pgtable_cache_del_root() - a page is not the root of an address space any more
 * @page: any page. If it is a root, no CPU loads it any more.
 *
 * Context: Any.
 * Return: false if the page was not a root.
 */
bool kpkeys_pgtable_cache_del_root(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);
	struct frame *frame = frame_of(pfn);

	if (!frame || !frame_has(frame->roots, frame_bit(pfn)))
		return false;

	guard(kpkeys_hardened_pgtables)();

	return test_and_clear_bit(frame_bit(pfn), frame->roots);
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

/* Put pages of a magazine back to their node. */
static void magazine_put(struct magazine *mag, unsigned int nr)
{
	int nid = pfn_to_nid(mag->pfn[0]);
	struct frame *frame = NULL;
	unsigned int i;

	lockdep_assert_irqs_disabled();
	kpkeys_assert_pgtable_write();
	guard(raw_spinlock)(&nodes[nid].lock);

	for (i = 0; i < nr; i++) {
		unsigned long pfn = mag->pfn[--mag->nr];

		/* Pages that were freed together are often of one frame. */
		if (!frame || frame->pfn != round_down(pfn, FRAME_PAGES)) {
			if (frame)
				frame_requeue(nid, frame);
			frame = frame_of(pfn);
		}
		__set_bit(frame_bit(pfn), frame->free);
		frame->nr_free++;
	}
	frame_requeue(nid, frame);
	node_add_free(nid, nr);
}

static __always_inline void magazine_free(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);
	int nid = page_to_nid(page);
	struct magazine *mag;

	lockdep_assert_irqs_disabled();

	if (unlikely(nid != numa_mem_id())) {
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
 * @page: the page, destructed if it was a table. The caller owned it, and still
 *        does if it does not come from the cache.
 *
 * A page that is not in use is refused and reported: it was freed twice. So is the
 * root of an address space.
 *
 * Context: Any.
 * Return: true if the page is the cache's; false if it is not one of it.
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
		mismatch(pfn, "is freed, but is the root of page tables; ignored");
		return true;
	}

	VM_WARN_ON_ONCE_PAGE(PageTable(page), page);

	scoped_guard(kpkeys_hardened_pgtables) {
		guard(irqsave)();
		used = mark_unused(frame, bit);
		if (likely(used)) {
			/*
			 * As the page allocator does: the next user expects it, such
			 * as ptlock_init(), which finds the pointer that
			 * ptlock_free() leaves here.
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
		mismatch(pfn, "is freed, but is not in use; ignored");

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

/* A frame whose free pages are worth giving back, with @leave left on the node. */
static struct frame *find_frame(int nid, unsigned long leave)
{
	struct node_frames *node = &cache->frames[nid];
	int i;

	lockdep_assert_held(&nodes[nid].lock);

	/* Those that take no split first, then those that yield most. */
	for (i = IDLE_BUCKET; i > 0; i--) {
		struct frame *frame = list_first_entry_or_null(&node->bucket[i],
							       struct frame, node);

		if (frame && node->nr_free - frame->nr_free >= leave &&
		    (i == IDLE_BUCKET || frame->nr_ours < FRAME_PAGES ||
		     frame->nr_free >= SPLIT_YIELD))
			return frame;
	}

	return NULL;
}

/*
 * Take the free pages of a frame out of the cache, of @frame or, if that is NULL, of
 * the one that is found. Returns the frame, or NULL if @leave would not be left.
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

/* The table for a split of a frame is one of its own free pages: it is protected. */
static bool take_split_tables(struct frame *frame, unsigned long *pages, unsigned int nr,
			      struct kpkeys_split_reserve *reserve)
{
	guard(kpkeys_hardened_pgtables)();

	while (reserve->nr < nr) {
		unsigned int bit = find_first_bit(pages, FRAME_PAGES);

		/* A snapshot is not to see it in two places. */
		guard(irqsave)();
		if (bit == FRAME_PAGES || !mark_used(frame->pfn + bit))
			return false;
		__clear_bit(bit, pages);
		__ClearPageOffline(pfn_to_page(frame->pfn + bit));
		kpkeys_split_reserve_add(reserve, page_ptdesc(pfn_to_page(frame->pfn + bit)));
		count(MOVING, -1);
	}

	return true;
}

/* Detached pages go back to their frame. */
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

/* Detached pages become ordinary memory and are freed. Returns how many. */
static unsigned int give_back_run(int nid, struct frame *frame, unsigned int start,
				  unsigned int nr, struct kpkeys_split_reserve *reserve)
{
	unsigned int before = reserve->nr;
	unsigned long pfn = frame->pfn + start;
	int ret;

	ret = set_pkey(pfn, nr, KPKEYS_PKEY_DEFAULT, reserve);
	trace_kpkeys_pgtable_give_back(pfn, nr, before - reserve->nr, ret);
	if (before != reserve->nr)
		count(SPLITS, 1);
	if (ret) {
		pr_warn_once("cannot make %u free pages of page tables writable again: %d; they are not used any more\n",
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
	free_range(pfn, nr);

	return nr;
}

/* Give the free pages of a frame back, see detach_free(). Returns how many that were. */
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
 * @nr_pages: how many pages to give back at least, if there are that many.
 *
 * A few pages stay on each node, so that the next tables do not take it all back.
 * Whole frames go first. Then the free pages of others do, which splits the direct
 * map; the table for that is one of them.
 *
 * Context: Process context; takes no lock that is held across an allocation which
 *          waits for reclaim.
 * Return: how many pages were given back.
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

/* What the bits say, with all other CPUs standing still. */
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
 * kpkeys_pgtable_cache_stats() - a snapshot of where the pages are
 * @stats: filled in.
 *
 * All other CPUs stand still for it, so that the sums are exact.
 *
 * Context: Process context.
 */
void kpkeys_pgtable_cache_stats(struct kpkeys_pgtable_cache_stats *stats)
{
	struct snapshot s = { .stats = stats };
	int i;

	/* First: who brings a CPU up holds this, and refills. */
	guard(cpus_read_lock)();
	/* A chunk that is being stocked is in no place yet. */
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

/* The size of the first chunk: little where memory is, and enough for our state. */
static unsigned int __init boot_order(unsigned int nr_state)
{
	unsigned int min = order_base_2(CHUNK_MAX_DEMAND + nr_state + INDEX_LEVELS +
					2 * EMERGENCY_MARK);

	return clamp(max_chunk_order(), min, FRAME_ORDER);
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
	}

	/* Reclaim must never wait for who waits for reclaim: tell lockdep. */
	fs_reclaim_acquire(GFP_KERNEL);
	might_lock(&nodes[0].refill);
	might_lock(&refill_mutex);
	fs_reclaim_release(GFP_KERNEL);

	return 0;
}

/* The first pages of a chunk that has the pkey become our state. Returns the next. */
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
	unsigned int nr_state = PHYS_PFN(PAGE_ALIGN(struct_size(cache, frames, nr_node_ids)) +
					 PAGE_ALIGN(nr_cpu_ids * sizeof(*magazines)));
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
		own(first, 1U << order);
		scoped_guard(kpkeys_hardened_pgtables) {
			for (i = 0; i < CHUNK_MAX_DEMAND; i++) {
				mark_used(first + i);
				__ClearPageOffline(page + i);
			}
		}
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

/* Before somebody is killed for want of memory. */
static int oom_callback(struct notifier_block *nb, unsigned long unused, void *freed)
{
	*(unsigned long *)freed += kpkeys_pgtable_cache_shrink(ULONG_MAX);

	return NOTIFY_OK;
}

static struct notifier_block oom_nb = { .notifier_call = oom_callback };

/* What is set aside for the next refill becomes free, to be taken from elsewhere. */
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
 * Free pages of ours would keep memory from going offline. Those that are tables,
 * state of ours, or of a parked chunk do.
 */
static int memory_callback(struct notifier_block *nb, unsigned long action,
			   void *arg)
{
	struct memory_notify *mem = arg;
	unsigned long pfn, end = mem->start_pfn + mem->nr_pages;

	if (action != MEM_GOING_OFFLINE)
		return NOTIFY_OK;

	release_set_aside();
	drain_magazines();
	for (pfn = mem->start_pfn; pfn < end; pfn += FRAME_PAGES) {
		struct frame *frame = frame_of(pfn);
		int nid = pfn_to_nid(pfn);

		/*
		 * A frame with a page in use keeps its memory from going offline anyway.
		 * give_back() looks again, with the lock.
		 */
		if (!frame || data_race(!frame->nr_free || frame->nr_free != frame->nr_ours))
			continue;
		if (give_back(nid, frame, LOW_MARK))
			continue;
		/* The memory is isolated by now: a refill comes from elsewhere. */
		if (!may_refill(GFP_KERNEL) || refill_node(nid, ULONG_MAX)) {
			/* If the node has nothing else, other nodes have to do. */
			if (num_node_state(N_MEMORY) > 1)
				give_back(nid, frame, 0);
			continue;
		}
		give_back(nid, frame, LOW_MARK);
	}
	set_aside(numa_mem_id());

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
		/* Nothing is lost with a free page. */
		shrinker->seeks = 0;
		shrinker->batch = FRAME_PAGES;
		shrinker_register(shrinker);
	}
	register_oom_notifier(&oom_nb);
	hotplug_memory_notifier(memory_callback, DEFAULT_CALLBACK_PRI);
	cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "mm/kpkeys:dead", NULL, drain_dead_cpu);
	debugfs_create_file("kpkeys_pgtable_cache", 0400, NULL, NULL, &stats_fops);

	return 0;
}

late_initcall(kpkeys_pgtable_cache_late_init);
