// SPDX-License-Identifier: GPL-2.0-only
/*
 * Scenarios, each of which begins at boot. harness.c checks all pages after each
 * step.
 */
#include <unistd.h>

#include "cache.h"
#include "harness.c"

static struct kpkeys_pgtable_cache_stats stats(void)
{
	struct kpkeys_pgtable_cache_stats s;

	check();
	kpkeys_pgtable_cache_stats(&s);

	return s;
}

/* Hand out all pages without a refill. */
static void drain(void)
{
	unsigned int cpu = model_ctx.cpu;

	model_ctx.atomic = true;
	for (model_ctx.cpu = 0; model_ctx.cpu < MODEL_NR_CPUS; model_ctx.cpu++)
		CHECK(!op_alloc(GFP_ATOMIC, MAX_HELD));
	model_ctx.cpu = cpu;
	model_ctx.atomic = false;
	CHECK(!stats().cached);
}

static void free_all(void)
{
	while (held.nr)
		op_free(0);
}

/* Leave @nr free pages on a node, and none in a magazine. */
static void leave_free(unsigned int nr)
{
	drain();
	CHECK(held.nr >= nr);
	while (nr--)
		op_free(held.nr - 1);
	drain_magazines();
}

static void op_free_drained(void)
{
	op_free(held.nr - 1);
	drain_magazines();
}

static void op_free_of(struct frame *frame)
{
	unsigned int i;

	for (i = 0; i < held.nr && frame_of(page_to_pfn(held.page[i])) != frame; i++)
		;
	CHECK(i < held.nr);
	op_free(i);
	drain_magazines();
}

/* Requests to the page allocator. */
static struct {
	gfp_t gfp;
	unsigned int order;
} asked[64];
static unsigned int nr_asked;

static void record(gfp_t gfp, unsigned int order)
{
	CHECK(nr_asked < ARRAY_SIZE(asked));
	asked[nr_asked].gfp = gfp;
	asked[nr_asked++].order = order;
}

#define LIGHT	((GFP_KERNEL & ~__GFP_RECLAIM) | __GFP_NOMEMALLOC | __GFP_NOWARN | __GFP_SKIP_KASAN)

/* Chunks are requested without reclaim, from the node. */
static void check_asked_for_chunks(unsigned int nr)
{
	unsigned int i;

	CHECK(nr_asked >= nr);
	for (i = 0; i < nr; i++)
		CHECK(asked[i].order && asked[i].gfp == (LIGHT | __GFP_THISNODE));
}

/* After a fill of n, n takes succeed. A failed fill keeps the pages it got. */
static void test_fill(void)
{
	unsigned int nr, fail;

	for (nr = 0; nr < 6; nr++) {
		CHECK(!kpkeys_split_reserve_fill(&held.reserve, nr));
		CHECK(held.reserve.nr == nr);
		op_fill(nr);
		CHECK(!held.reserve.nr);
		for (fail = 1; fail <= nr; fail++) {
			model.use_cache = false;
			model.fail_at[FAIL_ALLOC_PAGES] = fail;
			CHECK(kpkeys_split_reserve_fill(&held.reserve, nr) == -ENOMEM);
			CHECK(held.reserve.nr == fail - 1);
			kpkeys_split_reserve_return(&held.reserve);
			model.use_cache = true;
			check();
		}
	}
}

/* An empty reserve yields no page, and none comes from elsewhere. */
static void test_empty(void)
{
	unsigned long cached = stats().cached;

	op_take();
	CHECK(model.nr_warnings == 1);
	CHECK(stats().cached == cached);
}

/* Two page tables are enough for any chunk, whatever its place and earlier splits. */
static void test_demand(void)
{
	const unsigned int orders[] = MODEL_CHUNK_ORDERS;
	unsigned long pfn, around;
	unsigned int i;

	for (around = 0; around < 300; around++) {
		for (i = 0; i < ARRAY_SIZE(orders); i++) {
			for (pfn = 0; pfn < MODEL_NR_PAGES; pfn += 1 << orders[i])
				CHECK(model_split_demand(page_address(pfn_to_page(pfn)),
							 1 << orders[i]) <= CHUNK_MAX_DEMAND);
		}
		model_set_memory(random() % MODEL_NR_PAGES, 1);
	}
}

/* A chunk whose pkey cannot be set is parked, and tried first. It then needs no table. */
static void test_parked(void)
{
	enum model_fail fail;

	for (fail = FAIL_PKEY_BEFORE; fail <= FAIL_PKEY_PARTLY; fail++) {
		unsigned long taken;

		drain();
		model_ctx.hint = MODEL_NR_PAGES / 2 + (fail << MODEL_PUD_ORDER);
		model.fail_at[fail] = 1;
		CHECK(!op_alloc(GFP_KERNEL, 1));
		CHECK(stats().parked == FRAME_PAGES);
		taken = stats().taken;
		CHECK(op_alloc(GFP_KERNEL, 1));
		CHECK(!stats().parked);
		CHECK(stats().taken == taken);
		finish();
	}
}

/* After some tries, the parked chunk is abandoned, and another one is taken. */
static void test_park_tries(void)
{
	unsigned int i;

	drain();
	model.fail_rate[FAIL_PKEY_BEFORE] = ALWAYS;
	for (i = 0; i < PARK_TRIES; i++) {
		CHECK(!op_alloc(GFP_KERNEL, 1));
		CHECK(stats().parked == FRAME_PAGES && !stats().leaked);
	}
	CHECK(!op_alloc(GFP_KERNEL, 1));
	CHECK(!stats().parked && stats().leaked == FRAME_PAGES);
	model.fail_rate[FAIL_PKEY_BEFORE] = 0;
	CHECK(op_alloc(GFP_KERNEL, 1));
	CHECK(stats().leaked == FRAME_PAGES);
}

/* After a chunk was abandoned, no other chunk is tried for a while. */
static void test_pause(void)
{
	unsigned int i;

	drain();
	model.fail_rate[FAIL_PKEY_BEFORE] = ALWAYS;
	model.frozen = true;
	for (i = 0; i <= PARK_TRIES; i++)
		CHECK(!op_alloc(GFP_KERNEL, 1));
	CHECK(stats().leaked == FRAME_PAGES);
	model.fail_rate[FAIL_PKEY_BEFORE] = 0;
	model.alloc_hook = record;
	nr_asked = 0;
	CHECK(refill_node(0, ULONG_MAX) == -EBUSY);
	CHECK(!nr_asked);
	model.alloc_hook = NULL;
	model.frozen = false;
	CHECK(!refill_node(0, ULONG_MAX));
}

/* The parked chunk waits until there are enough pages for its split. */
static void test_park_uncovered(void)
{
	unsigned int i;

	drain();
	model_ctx.hint = MODEL_NR_PAGES / 2;
	model.fail_at[FAIL_PKEY_BEFORE] = 1;
	CHECK(!op_alloc(GFP_KERNEL, 1));
	CHECK(stats().parked && index_demand(cache->parked.pfn));
	release_set_aside();
	drain();
	model.fail_rate[FAIL_ALLOC_PAGES] = ALWAYS;
	/* Waiting does not count as a try. */
	for (i = 0; i <= PARK_TRIES; i++)
		CHECK(!op_alloc(GFP_KERNEL, 1));
	CHECK(refill_node(0, ULONG_MAX) == -EAGAIN);
	CHECK(cache->parked.tries == 1);
	CHECK(stats().parked == FRAME_PAGES && !refill_reserve.nr && !cache->nr_spare);
	/* Pages that are freed are enough. */
	while (held.nr > 20)
		op_free(0);
	drain_magazines();
	CHECK(!refill_node(0, ULONG_MAX));
	CHECK(!stats().parked && !stats().leaked);
}

/* Pages whose pkey cannot be reset are never used again. */
static void test_leaked(void)
{
	enum model_fail fail;

	for (fail = FAIL_PKEY_BEFORE; fail <= FAIL_PKEY_PARTLY; fail++) {
		unsigned long leaked = stats().leaked;

		CHECK(op_alloc(GFP_KERNEL, 400));
		free_all();
		model.fail_at[fail] = 1;
		kpkeys_pgtable_cache_shrink(1);
		CHECK(stats().leaked > leaked);
		drain();
		finish();
	}
}

/* A caller that must not sleep gets a free page, and never refills. */
static void test_no_refill(void)
{
	unsigned long taken = stats().taken;

	drain();
	model_ctx.atomic = true;
	CHECK(!op_alloc(GFP_KERNEL, 1));
	model_ctx.atomic = false;
	CHECK(!op_alloc(GFP_NOWAIT, 1));
	model.no_split = true;
	model.quiet = true;
	CHECK(!op_alloc(GFP_KERNEL, 1));
	CHECK(model.nr_warnings == 1);
	model.no_split = false;
	model.quiet = false;
	CHECK(stats().taken == taken);
	CHECK(!stats().cached && stats().refused >= 4);
	/* The worker refills. */
	CHECK(model.work[0]);
	model_run_work();
	CHECK(stats().cached);
}

/*
 * The last resort is a single page, with the gfp flags of the caller, except for those
 * that charge, clear or compound it, or that concern KASAN.
 */
static void test_gfp(void)
{
	const gfp_t callers[] = { GFP_KERNEL, GFP_NOFS, GFP_NOIO, GFP_KERNEL | __GFP_NORETRY };
	const unsigned int nr_chunks = ARRAY_SIZE(chunk_orders) - 1;
	unsigned int i;

	drain();
	model.alloc_hook = record;
	CHECK(op_alloc(GFP_KERNEL, 1));
	check_asked_for_chunks(1);
	CHECK(nr_asked == 1);

	model.fail_rate[FAIL_ALLOC_PAGES] = ALWAYS;
	for (i = 0; i < ARRAY_SIZE(callers); i++) {
		model.alloc_hook = NULL;
		drain();
		model.alloc_hook = record;
		nr_asked = 0;
		CHECK(!op_alloc(callers[i] | __GFP_ACCOUNT | __GFP_ZERO | __GFP_COMP, 1));
		check_asked_for_chunks(nr_chunks);
		CHECK(nr_asked == nr_chunks + 2);
		CHECK(asked[nr_chunks].gfp == LIGHT && !asked[nr_chunks].order);
		CHECK(asked[nr_chunks + 1].gfp == (callers[i] | __GFP_SKIP_KASAN));
		CHECK(!asked[nr_chunks + 1].order);
	}
}

/* When the worker is started, and how much it refills. */
static void test_worker(void)
{
	const unsigned int nr_chunks = ARRAY_SIZE(chunk_orders) - 1;
	unsigned long chunks;

	CHECK(op_alloc(GFP_KERNEL, 500));
	/* Enough pages are free. */
	leave_free(LOW_MARK + 1);
	model_run_work();
	CHECK(op_alloc(GFP_KERNEL, 1));
	CHECK(!model.work[0]);

	/* With one page less, the worker adds one chunk. */
	leave_free(LOW_MARK);
	model_run_work();
	leave_free(LOW_MARK);
	chunks = stats().refills[0];
	CHECK(op_alloc(GFP_KERNEL, 1));
	CHECK(stats().refills[0] == chunks);
	CHECK(model.work[0]);
	model_run_work();
	CHECK(stats().refills[0] == chunks + 1 && nr_free(0) > LOW_MARK);
	CHECK(!model.work[0]);

	/* There is no chunk. Above the last pages, the worker does not reclaim. */
	model.fail_rate[FAIL_ALLOC_PAGES] = ALWAYS;
	model.alloc_hook = record;
	leave_free(LOW_MARK);
	CHECK(op_alloc(GFP_ATOMIC, 1));
	CHECK(model.work[0] && nr_free(0) > EMERGENCY_MARK);
	nr_asked = 0;
	model_run_work();
	check_asked_for_chunks(nr_chunks);
	CHECK(nr_asked == nr_chunks && !model.work[0]);

	/* For the last pages it does, without retrying hard, and tries again later. */
	leave_free(EMERGENCY_MARK);
	CHECK(op_alloc(GFP_ATOMIC, 1));
	CHECK(model.work[0]);
	nr_asked = 0;
	model_run_work();
	check_asked_for_chunks(nr_chunks);
	CHECK(nr_asked == nr_chunks + 1);
	CHECK(asked[nr_chunks].gfp ==
	      (GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN | __GFP_SKIP_KASAN));
	CHECK(model.work[0]);
	model.fail_rate[FAIL_ALLOC_PAGES] = 0;
	model_run_work();
	CHECK(nr_free(0) > LOW_MARK && !model.work[0]);
}

/* The count of the shrinker, and how much it gives back. */
static void test_shrinker(void)
{
	struct shrink_control sc = { .nr_to_scan = 1 };
	unsigned long nr, got;

	CHECK(op_alloc(GFP_KERNEL, 1000));
	leave_free(SHRINK_MARK);
	CHECK(model.shrinker->count_objects(model.shrinker, &sc) == SHRINK_EMPTY);
	CHECK(model.shrinker->scan_objects(model.shrinker, &sc) == SHRINK_STOP);
	leave_free(SHRINK_MARK + 1);
	CHECK(model.shrinker->count_objects(model.shrinker, &sc) == 1);

	leave_free(900);
	CHECK(model.shrinker->count_objects(model.shrinker, &sc) == 900 - SHRINK_MARK);
	/* It stops at the requested number. */
	got = model.shrinker->scan_objects(model.shrinker, &sc);
	CHECK(got && got <= FRAME_PAGES && sc.nr_scanned == got);
	/* The table for a split is one of the free pages. */
	nr = nr_free(0);
	CHECK(nr <= 900 - got && nr >= 900 - got - CHUNK_MAX_DEMAND);
	sc.nr_to_scan = ULONG_MAX;
	got = model.shrinker->scan_objects(model.shrinker, &sc);
	CHECK(got && got != SHRINK_STOP && sc.nr_scanned == got);
	CHECK(nr_free(0) <= nr - got && nr_free(0) >= SHRINK_MARK);
	CHECK(model.shrinker->scan_objects(model.shrinker, &sc) == SHRINK_STOP);
}

/* Reclaim may need a page table in order to give memory back. */
static void test_memalloc(void)
{
	drain();
	model_ctx.flags = PF_MEMALLOC;
	CHECK(op_alloc(GFP_KERNEL, 1));
	model_ctx.flags = 0;
}

/* A free page of a frame in this bucket or a higher one. */
static struct page *free_page(unsigned int bucket)
{
	struct frame *frame;

	while (list_empty(&cache->frames[0].bucket[bucket]))
		CHECK(++bucket < FRAME_BUCKETS);
	frame = list_first_entry(&cache->frames[0].bucket[bucket], struct frame, node);

	return pfn_to_page(frame->pfn + find_first_bit(frame->free, FRAME_PAGES));
}

/* The last pages are for callers that must not sleep. */
static void test_emergency(void)
{
	unsigned long emergency;

	model_ctx.atomic = true;
	while (nr_free(0) > EMERGENCY_MARK || magazines[0].nr)
		CHECK(op_alloc(GFP_ATOMIC, 1));
	model_ctx.atomic = false;
	model.fail_rate[FAIL_ALLOC_PAGES] = ALWAYS;
	CHECK(!op_alloc(GFP_KERNEL, 1));
	CHECK(op_alloc(GFP_ATOMIC, 1));
	CHECK(stats().emergency == 1);

	/* Pages above the mark are for all callers. Magazines take no others. */
	leave_free(EMERGENCY_MARK + BATCH + 5);
	emergency = stats().emergency;
	CHECK(op_alloc(GFP_KERNEL, BATCH + 5));
	CHECK(!op_alloc(GFP_KERNEL, 1));
	CHECK(nr_free(0) == EMERGENCY_MARK && !magazines[0].nr);
	CHECK(stats().emergency == emergency);
	/* The last one is poisoned. */
	leave_free(1);
	free_page(0)->broken = true;
	CHECK(!op_alloc(GFP_ATOMIC, 1));
	CHECK(!stats().cached && stats().poisoned == 1);
}

/*
 * Free memory has no two adjacent pages, and all of it is block-mapped. No allocation
 * fails while a page is free.
 */
static void test_fragmented(void)
{
	unsigned int i;

	for (i = 0; i < 2 * (MODEL_PMD_ORDER - 1); i++) {
		unsigned long chunks;

		finish();
		CHECK(start(1));
		drain();
		chunks = stats().refills[0];
		fragment(0, MODEL_NR_PAGES, 1 + i / 2);
		model.scatter = i & 1;
		while (op_alloc(GFP_KERNEL, 1))
			;
		CHECK(!model.nr_buddy);
		CHECK(stats().refills[0] == chunks);
		CHECK(stats().refills[ARRAY_SIZE(chunk_orders) - 1]);
	}
}

static bool in_pud(const struct page *page, unsigned long pud)
{
	return (page - mem_map) >> MODEL_PUD_ORDER == pud;
}

/*
 * All memory of a PUD that the cache has is free, or set aside. A few pages elsewhere
 * are free.
 */
static void use_pud(unsigned long pud, unsigned int elsewhere)
{
	int nid = model_nid(pud << MODEL_PUD_ORDER);
	unsigned int i;

	model_ctx.cpu = nid;
	model_ctx.hint = 0;
	CHECK(op_alloc(GFP_KERNEL, 200));
	drain();
	model_ctx.hint = pud << MODEL_PUD_ORDER;
	CHECK(op_alloc(GFP_KERNEL, 300));
	release_set_aside();
	drain();
	/* A task may be moved to another CPU at any time. */
	model_ctx.cpu = nid + model.nr_nodes;
	for (i = held.nr; i-- > 0; ) {
		if (in_pud(held.page[i], pud))
			op_free(i);
	}
	set_aside(nid);
	CHECK(in_pud(pfn_to_page(cache->spare[0]), pud));
	CHECK(magazines[model_ctx.cpu].nr);
	model_ctx.cpu = nid;
	for (i = held.nr; i-- > 0 && elsewhere; ) {
		if (!in_pud(held.page[i], pud) && page_to_nid(held.page[i]) == nid) {
			op_free(i);
			elsewhere--;
		}
	}
	drain_magazine(NULL);
	CHECK(!elsewhere);
	check();
}

static unsigned long nr_owned(unsigned long pud)
{
	unsigned long i, nr = 0;

	for (i = 0; i < 1UL << MODEL_PUD_ORDER; i++)
		nr += kpkeys_pgtable_cache_owns(&mem_map[(pud << MODEL_PUD_ORDER) + i]);

	return nr;
}

/* Memory that is about to go offline is given back, even if few pages are left. */
static void test_offline(void)
{
	unsigned long pud = MODEL_NR_PUDS - 1, given_back, chunks;

	/* The other pages of the node are enough. */
	use_pud(pud, LOW_MARK + CHUNK_MAX_DEMAND + INDEX_LEVELS);
	chunks = stats().refills[0];
	op_offline(pud);
	CHECK(!nr_owned(pud));
	CHECK(stats().refills[0] == chunks);

	/* They are not, so other memory takes their place. */
	use_pud(--pud, CHUNK_MAX_DEMAND + INDEX_LEVELS);
	chunks = stats().refills[0];
	op_offline(pud);
	CHECK(!nr_owned(pud));
	CHECK(stats().refills[0] == chunks + 1 && nr_free(0) >= LOW_MARK);

	/* There is no other memory. The node keeps some pages. */
	use_pud(--pud, CHUNK_MAX_DEMAND + INDEX_LEVELS);
	model.fail_rate[FAIL_ALLOC_PAGES] = ALWAYS;
	op_offline(pud);
	model.fail_rate[FAIL_ALLOC_PAGES] = 0;
	CHECK(nr_owned(pud) >= LOW_MARK - CHUNK_MAX_DEMAND - INDEX_LEVELS);
	CHECK(nr_free(0) >= LOW_MARK);

	/* There is nothing in this memory, so nothing else is given back. */
	free_all();
	CHECK(model.memory_notifier(NULL, MEM_ONLINE, &(struct memory_notify){ }) == NOTIFY_OK);
	CHECK(model.memory_notifier(NULL, MEM_OFFLINE, &(struct memory_notify){ }) == NOTIFY_OK);
	for (pud = 0; nr_owned(pud); pud++)
		CHECK(pud < MODEL_NR_PUDS - 1);
	given_back = stats().given_back;
	op_offline(pud);
	CHECK(stats().given_back == given_back);
}

/* The last memory of a node goes offline. Another node has some. */
static void test_offline_node(void)
{
	unsigned long pud = MODEL_NR_PUDS - 1;

	use_pud(pud, 0);
	model_ctx.cpu = 0;
	CHECK(op_alloc(GFP_KERNEL, 1));
	CHECK(nr_free(0) > LOW_MARK);
	model.fail_rate[FAIL_ALLOC_PAGES] = ALWAYS;
	op_offline(pud);
	CHECK(!nr_owned(pud));
}

/* Take no more single pages than needed, and give up after a few if none can be used. */
static void test_singles(void)
{
	unsigned long nr_buddy;

	drain();
	fragment(0, MODEL_NR_PAGES, 1);
	CHECK(op_alloc(GFP_KERNEL, 1));
	drain();
	model.alloc_hook = record;
	nr_asked = 0;
	CHECK(op_alloc(GFP_KERNEL, 1));
	CHECK(nr_asked <= ARRAY_SIZE(chunk_orders) - 1 + SINGLES);

	/* There is no table for a split, and each page needs one. */
	model.alloc_hook = NULL;
	drain();
	release_set_aside();
	drain();
	nr_buddy = model.nr_buddy;
	CHECK(nr_buddy > 3 * SINGLES);
	model.alloc_hook = record;
	nr_asked = 0;
	CHECK(!op_alloc(GFP_KERNEL, 1));
	CHECK(nr_asked <= ARRAY_SIZE(chunk_orders) - 1 + 2 * SINGLES);
	CHECK(model.nr_buddy == nr_buddy);
}

/* At each point where interrupts are enabled, each page is in one place. */
static void snapshot_here(void)
{
	struct kpkeys_pgtable_cache_stats s;

	/* kpkeys_pgtable_cache_stats() waits for the end of a refill. */
	if (!MODEL_LOAD(&refill_mutex.owner))
		take_snapshot(&(struct snapshot){ .stats = &s });
}

static void test_snapshot(void)
{
	enum model_fail fail;

	model.irq_handler = snapshot_here;
	CHECK(op_alloc(GFP_KERNEL, 1500));
	while (held.nr > 100)
		op_free(held.nr * 7);
	op_shrink(ULONG_MAX);
	CHECK(stats().splits);
	for (fail = FAIL_PKEY_BEFORE; fail <= FAIL_PKEY_PARTLY; fail++) {
		unsigned long leaked = stats().leaked;

		CHECK(op_alloc(GFP_KERNEL, 400));
		while (held.nr > 100)
			op_free(held.nr * 7);
		model.fail_at[fail] = 1;
		kpkeys_pgtable_cache_shrink(ULONG_MAX);
		CHECK(stats().leaked > leaked);
	}
	op_offline(0);
	model.irq_handler = NULL;
}

static struct frame *partly_moving;

/* Free the pages in use of a frame whose free pages are being given back. */
static void free_meanwhile(void)
{
	unsigned int i;

	if (!counted(MOVING) || !partly_moving)
		return;
	for (i = held.nr; i-- > 0; ) {
		if (frame_of(page_to_pfn(held.page[i])) == partly_moving)
			op_free(i);
	}
	drain_magazine(NULL);
	partly_moving = NULL;
}

/* The pages of a frame that were freed meanwhile are given back without a split. */
static void test_freed_meanwhile(void)
{
	struct frame *frame;

	/* A chunk whose block is split already, so that no page of it becomes a table. */
	model_ctx.hint = MODEL_NR_PAGES / 2;
	drain();
	CHECK(op_alloc(GFP_KERNEL, 1));
	model_ctx.hint += FRAME_PAGES;
	CHECK(!model_set_memory(model_ctx.hint, 1));
	drain();
	CHECK(op_alloc(GFP_KERNEL, 1));
	frame = frame_of(page_to_pfn(held.page[held.nr - 1]));
	CHECK(frame->pfn == model_pfn(model_ctx.hint) && frame->nr_ours == FRAME_PAGES);
	drain();
	while (frame->nr_free < FRAME_PAGES / 2)
		op_free_of(frame);
	check();
	partly_moving = frame;
	model.irq_handler = free_meanwhile;
	CHECK(give_back(0, frame, 0));
	model.irq_handler = NULL;
	CHECK(!partly_moving && frame->nr_free && frame->nr_free == frame->nr_ours);
	check();
}

/* One in a hundred of many tables stays. The others are given back. */
static void test_parts(void)
{
	unsigned int i, nr;

	CHECK(op_alloc(GFP_KERNEL, 1500));
	for (nr = 1500; nr > 0; nr--) {
		if (nr % 100)
			op_free(nr - 1);
	}
	CHECK(held.nr == 15);
	op_shrink(ULONG_MAX);
	CHECK(stats().splits);
	/* The pages that the node keeps, and less than one frame more. */
	CHECK(stats().cached < SHRINK_MARK + FRAME_PAGES);
	/* Giving the same memory back again takes no split. */
	for (i = 0; i < 3; i++) {
		CHECK(op_alloc(GFP_KERNEL, SHRINK_MARK / 2));
		while (held.nr > 15)
			op_free(held.nr - 1);
		check();
	}
}

/* Freeing a page that is not in use is refused and counted, and changes nothing. */
static void test_double_free(void)
{
	struct page *page;
	unsigned long cached;

	CHECK(op_alloc(GFP_KERNEL, 1));
	page = held.page[0];
	op_free(0);
	cached = stats().cached;
	CHECK(kpkeys_pgtable_cache_free(page));
	CHECK(stats().mismatched == 1 && stats().cached == cached);
	/* The same if the page is back in its frame, or if it holds state. */
	kpkeys_pgtable_cache_shrink(0);
	CHECK(kpkeys_pgtable_cache_free(page));
	CHECK(kpkeys_pgtable_cache_free(model_page(cache)));
	CHECK(stats().mismatched == 3 && stats().cached == cached);
	drain();
}

/* A page is a root from add to del. Until then it cannot be freed or used for a split. */
static void test_root(void)
{
	struct page *page, *other;
	unsigned long pfn;

	CHECK(op_alloc(GFP_KERNEL, 2));
	page = held.page[0];
	other = held.page[1];
	pfn = page_to_pfn(page);
	CHECK(kpkeys_pgtable_cache_in_use(page) && !kpkeys_pgtable_cache_is_root(pfn));
	CHECK(!kpkeys_pgtable_cache_del_root(page));
	CHECK(kpkeys_pgtable_cache_add_root(page));
	CHECK(!kpkeys_pgtable_cache_add_root(page));
	CHECK(kpkeys_pgtable_cache_is_root(pfn) && !kpkeys_pgtable_cache_in_use(page));
	CHECK(!kpkeys_pgtable_cache_is_root(page_to_pfn(other)));
	CHECK(kpkeys_pgtable_cache_free(page));
	CHECK(stats().mismatched == 1 && kpkeys_pgtable_cache_is_root(pfn));
	CHECK(kpkeys_pgtable_cache_del_root(page));
	CHECK(!kpkeys_pgtable_cache_is_root(pfn) && kpkeys_pgtable_cache_in_use(page));
	op_free(0);
	/* A free page cannot become a root. */
	CHECK(!kpkeys_pgtable_cache_add_root(page));
	CHECK(!kpkeys_pgtable_cache_in_use(page));
	/* Nor can a page without a frame, or a pfn with bits that the index ignores. */
	page = &mem_map[MODEL_NR_PAGES - 1];
	CHECK(!frame_of(page_to_pfn(page)));
	CHECK(!kpkeys_pgtable_cache_add_root(page) && !kpkeys_pgtable_cache_del_root(page));
	CHECK(!kpkeys_pgtable_cache_in_use(page) && !kpkeys_pgtable_cache_owns(page));
	CHECK(!kpkeys_pgtable_cache_is_root(page_to_pfn(page)));
	CHECK(kpkeys_pgtable_cache_add_root(other));
	pfn = page_to_pfn(other) | 1UL << (INDEX_PHYS_BITS - PAGE_SHIFT + 2);
	CHECK(frame_of(pfn) && !kpkeys_pgtable_cache_is_root(pfn));
	CHECK(kpkeys_pgtable_cache_del_root(other));
}

/* Lists are not trusted: no page is handed out twice. */
static void test_bad_list(void)
{
	struct page *forged[4];
	unsigned int i, nr;

	/* Only a part of the first frame is ours. */
	CHECK(op_alloc(GFP_KERNEL, 300));
	while (held.nr > 1)
		op_free(held.nr - 1);
	kpkeys_pgtable_cache_shrink(ULONG_MAX);
	forged[0] = held.page[0];			/* in use */
	forged[1] = NULL;				/* free, in its frame: see below */
	forged[2] = &mem_map[MODEL_NR_PAGES - 1];	/* has no frame */
	CHECK(!frame_of(page_to_pfn(forged[2])));
	forged[3] = NULL;				/* not ours, in a frame that has others */
	for (i = 0; i < MODEL_NR_PAGES && !forged[3]; i++) {
		struct frame *frame = frame_of(model_pfn(i));

		if (frame && frame->nr_ours && !is_ours(i))
			forged[3] = &mem_map[i];
	}
	CHECK(forged[3]);
	for (i = 0; i < ARRAY_SIZE(forged); i++) {
		unsigned long pfn;

		CHECK(op_alloc(GFP_KERNEL, 1));
		nr = magazines[0].nr;
		CHECK(nr > 1);
		if (i == 1)
			forged[1] = free_page(0);
		pfn = magazines[0].pfn[nr - 1];
		/* As if an attacker had written there. */
		scoped_guard(kpkeys_hardened_pgtables)
			magazines[0].pfn[nr - 1] = page_to_pfn(forged[i]);
		CHECK(op_alloc(GFP_KERNEL, 1));
		CHECK(held.page[held.nr - 1] != forged[i]);
		CHECK(counted(MISMATCHED) == i + 1);
		CHECK(magazines[0].nr < ARRAY_SIZE(magazines[0].pfn));
		scoped_guard(kpkeys_hardened_pgtables)
			magazines[0].pfn[magazines[0].nr++] = pfn;
		check();
	}
}

/* A frame without a free page is in a list. This warns, and ends. */
static void test_bad_frame(void)
{
	DECLARE_BITMAP(pages, FRAME_PAGES);
	struct frame *frame;
	unsigned int nr;

	leave_free(20);
	frame = frame_of(page_to_pfn(free_page(0)));
	nr = frame->nr_free;
	scoped_guard(kpkeys_hardened_pgtables) {
		bitmap_copy(pages, frame->free, FRAME_PAGES);
		bitmap_zero(frame->free, FRAME_PAGES);
	}
	model.quiet = true;
	model_ctx.atomic = true;
	CHECK(!kpkeys_pgtable_cache_alloc(GFP_ATOMIC));
	model_ctx.atomic = false;
	model.quiet = false;
	CHECK(model.nr_warnings && frame->nr_free == nr);
	scoped_guard(kpkeys_hardened_pgtables)
		bitmap_copy(frame->free, pages, FRAME_PAGES);
	check();
}

/* A frame that is not worth a split does not hide one that is split already. */
static void test_not_worth_a_split(void)
{
	struct frame *whole, *split;

	while (held.nr < 2 * FRAME_PAGES)
		CHECK(op_alloc(GFP_KERNEL, 1));
	split = frame_of(page_to_pfn(held.page[0]));
	whole = frame_of(page_to_pfn(held.page[held.nr - 1]));
	drain_magazines();
	CHECK(split != whole && whole->nr_ours == FRAME_PAGES);
	while (split->nr_free < SPLIT_YIELD)
		op_free_of(split);
	CHECK(give_back(0, split, 0));
	CHECK(split->nr_ours < FRAME_PAGES && !split->nr_free);
	while (whole->nr_free) {
		CHECK(op_alloc(GFP_KERNEL, 1));
		drain_magazines();
	}
	op_free_of(split);
	op_free_of(split);
	op_free_of(whole);
	op_free_of(whole);
	CHECK(split->nr_free == 2 && whole->nr_free == 2);
	while (give_back(0, NULL, 0))
		;
	CHECK(!split->nr_free && whole->nr_free == 2);
	check();
}

/* If a page for a split disagrees with its frame, all pages go back. */
static void test_bad_bit(void)
{
	unsigned long cached, *used;
	struct frame *frame;
	unsigned int bit;

	/* The first table is in a frame with many free pages, and stays in use. */
	CHECK(op_alloc(GFP_KERNEL, 500));
	while (held.nr > 400)
		op_free(held.nr - 1);
	drain_magazines();
	frame = frame_of(page_to_pfn(held.page[399]));
	while (frame->nr_free < SPLIT_YIELD)
		op_free_drained();
	CHECK(frame->nr_ours == FRAME_PAGES && frame->nr_free != FRAME_PAGES);
	used = frame->used;
	bit = find_first_bit(frame->free, FRAME_PAGES);
	cached = stats().cached;
	scoped_guard(kpkeys_hardened_pgtables)
		set_bit(bit, used);
	CHECK(!give_back(0, frame, 0));
	scoped_guard(kpkeys_hardened_pgtables)
		clear_bit(bit, used);
	CHECK(stats().cached == cached);
	CHECK(give_back(0, frame, 0));
	check();
}

/* A page that does not belong to the cache is left to the caller. */
static void test_not_ours(void)
{
	struct page *page = model_alloc_pages(GFP_KERNEL, 0, NUMA_NO_NODE);

	CHECK(!kpkeys_pgtable_cache_free(page));
	CHECK(!kpkeys_pgtable_cache_owns(page));
	model_free_page(page);
	/* The same if there is no frame for the page. */
	page = &mem_map[MODEL_NR_PAGES - 1];
	CHECK(!frame_of(page_to_pfn(page)));
	CHECK(!kpkeys_pgtable_cache_free(page));
	CHECK(!stats().mismatched);
}

/* A poisoned page is not handed out, whatever its place was when it was poisoned. */
static void test_poison(void)
{
	struct magazine *mag = &magazines[0];

	CHECK(op_alloc(GFP_KERNEL, 20));
	held.page[3]->broken = true;
	op_free(3);
	CHECK(stats().poisoned == 1);

	CHECK(mag->nr > 1);
	pfn_to_page(mag->pfn[mag->nr - 2])->broken = true;
	drain();
	CHECK(stats().poisoned == 2);

	free_all();
	drain_magazines();
	CHECK(stats().cached > 10 && !mag->nr);
	free_page(0)->broken = true;
	drain();
	CHECK(stats().poisoned == 3);

	/* Poisoned pages that are given back are left to the page allocator. */
	free_all();
	CHECK(op_alloc(GFP_KERNEL, 500));
	free_all();
	drain_magazines();
	free_page(IDLE_BUCKET)->broken = true;
	kpkeys_pgtable_cache_shrink(ULONG_MAX);
	CHECK(stats().poisoned == 3);
}

static void *one_of_the_herd(void *arg)
{
	pthread_barrier_t *all = arg;
	static unsigned int nr;
	struct page *page;

	memset(&model_ctx, 0, sizeof(model_ctx));
	model_ctx.cpu = __atomic_fetch_add(&nr, 1, __ATOMIC_RELAXED) % MODEL_NR_CPUS;
	pthread_barrier_wait(all);
	page = kpkeys_pgtable_cache_alloc(GFP_KERNEL);
	CHECK(page);

	return page;
}

/* Tasks that find the cache empty wait for the refill in progress. */
static void test_herd(void)
{
	pthread_t thread[MODEL_NR_CPUS];
	pthread_barrier_t all;
	unsigned int i, round;

	pthread_barrier_init(&all, NULL, ARRAY_SIZE(thread));
	for (round = 0; round < 5; round++) {
		unsigned long chunks = stats().refills[0];

		drain();
		model.window_hook = NULL;
		model.threads = true;
		for (i = 0; i < ARRAY_SIZE(thread); i++)
			CHECK(!pthread_create(&thread[i], NULL, one_of_the_herd, &all));
		for (i = 0; i < ARRAY_SIZE(thread); i++) {
			void *page;

			pthread_join(thread[i], &page);
			hold(page);
		}
		model.threads = false;
		CHECK(stats().refills[0] == chunks + 1);
		CHECK(stats().taken <= stats().in_use + 2 * FRAME_PAGES);
	}
	pthread_barrier_destroy(&all);
}

/* Other CPUs can use the pages that a CPU has freed. */
static void test_magazines(void)
{
	unsigned int cpu;

	CHECK(op_alloc(GFP_KERNEL, 200));
	for (cpu = 0; cpu < MODEL_NR_CPUS; cpu++) {
		model_ctx.cpu = cpu;
		while (held.nr > 200 - 50 * (cpu + 1))
			op_free(0);
		CHECK(magazines[cpu].nr);
		CHECK(magazines[cpu].nr <= ARRAY_SIZE(magazines[cpu].pfn));
		check();
	}
	model_ctx.cpu = 0;
	model.dead_cpu(3);
	CHECK(!magazines[3].nr && magazines[2].nr);
	kpkeys_pgtable_cache_shrink(0);
	for (cpu = 0; cpu < MODEL_NR_CPUS; cpu++)
		CHECK(!magazines[cpu].nr);
	check();
	drain();
}

/* Use each part of memory in turn, so that each level of the index has several pages. */
static void test_index(void)
{
	unsigned long meta = stats().meta, pud;

	for (pud = 0; pud < MODEL_NR_PUDS; pud++) {
		model_ctx.hint = pud << MODEL_PUD_ORDER;
		drain();
		CHECK(op_alloc(GFP_KERNEL, 1));
		CHECK(frame_of(model_pfn(model_ctx.hint)));
	}
	/* A page of frames for each PUD, and pages of pointers for each two and four. */
	CHECK(stats().meta == meta + MODEL_NR_PUDS + MODEL_NR_PUDS / 2 + MODEL_NR_PUDS / 4 -
	      INDEX_LEVELS);
}

/* Pages come from the node that the page allocator would use, else from any other. */
static void test_nodes(void)
{
	unsigned int i, first;

	for (i = 0; i < MODEL_NR_NODES; i++) {
		model_ctx.cpu = i;
		first = held.nr;
		CHECK(op_alloc(GFP_KERNEL, 200));
		for (; first < held.nr; first++)
			CHECK(page_to_nid(held.page[first]) == i);
		check();
	}
	/* With a memory policy. */
	model_ctx.cpu = 0;
	model_ctx.mempolicy = 2;
	model_ctx.mems_allowed = 3;
	first = held.nr;
	CHECK(op_alloc(GFP_KERNEL, 200));
	for (; first < held.nr; first++)
		CHECK(page_to_nid(held.page[first]) == 1);
	/* The policy applies to refills, but not if no other page is left. */
	model_ctx.mempolicy = 1;
	model_ctx.mems_allowed = 1;
	model.fail_rate[FAIL_ALLOC_PAGES] = ALWAYS;
	while (op_alloc(GFP_KERNEL, 1))
		CHECK(page_to_nid(held.page[held.nr - 1]) == 0);
	CHECK(nr_free(1) > EMERGENCY_MARK);
	CHECK(op_alloc(GFP_ATOMIC, EMERGENCY_MARK + 1));
	CHECK(page_to_nid(held.page[held.nr - 1]) == 1);
	/* Pages return to their own node, whichever CPU frees them. */
	model_ctx.cpu = 1;
	free_all();
	check();
	/* Only the last pages of another node count as those of an emergency. */
	model_ctx.cpu = 0;
	model_ctx.mempolicy = 2;
	model_ctx.mems_allowed = 3;
	i = stats().emergency;
	while (nr_free(1) > EMERGENCY_MARK)
		CHECK(op_alloc(GFP_KERNEL, 1));
	CHECK(nr_free(1) == EMERGENCY_MARK && stats().emergency == i);
	model.fail_rate[FAIL_ALLOC_PAGES] = 0;
	free_all();
	check();
}

/* Before the OOM killer runs, magazines are drained, and free pages go back down to the mark. */
static void test_oom(void)
{
	unsigned long freed = 0;

	CHECK(op_alloc(GFP_KERNEL, 800));
	free_all();
	model.oom_notifier(NULL, 0, &freed);
	CHECK(freed > 400);
	CHECK(stats().cached < SHRINK_MARK + FRAME_PAGES);
}

/* A shrinker takes pages itself, in the middle of a refill. */
static void test_reclaim(void)
{
	unsigned int i;

	model.reclaim = true;
	for (i = 0; i < 20; i++) {
		op_alloc(GFP_KERNEL, 100);
		check();
		while (held.nr > 20 * i)
			op_free(i);
		check();
	}
	/* Memory is fragmented, so refills take single pages, for which reclaim runs. */
	fragment(0, MODEL_NR_PAGES, 2);
	while (op_alloc(GFP_KERNEL, 1))
		;
	check();
}

/* The file in debugfs has a line for each statistic. */
static void test_show(void)
{
#define LINE(name)	{ #name, offsetof(struct kpkeys_pgtable_cache_stats, name) }
	static const struct {
		const char *name;
		size_t offset;
	} lines[] = {
		LINE(taken), LINE(cached), LINE(reserved), LINE(in_use), LINE(meta),
		LINE(moving), LINE(parked), LINE(poisoned), LINE(leaked), LINE(lowest),
		LINE(emergency), LINE(refused), LINE(mismatched), LINE(given_back),
		LINE(splits),
	};
#undef LINE
	struct kpkeys_pgtable_cache_stats s;
	char expected[sizeof(model.shown)];
	size_t nr = 0;
	unsigned int i;

	/* Most of them are not zero, and they differ. */
	CHECK(op_alloc(GFP_KERNEL, 500));
	free_all();
	kpkeys_pgtable_cache_shrink(ULONG_MAX);
	drain();
	fragment(0, MODEL_NR_PAGES, 1);
	CHECK(op_alloc(GFP_KERNEL, 30));
	s = stats();
	for (i = 0; i < ARRAY_SIZE(lines); i++)
		nr += snprintf(expected + nr, sizeof(expected) - nr, "%s %lu\n", lines[i].name,
			       *(unsigned long *)((char *)&s + lines[i].offset));
	for (i = 0; i < ARRAY_SIZE(chunk_orders); i++)
		nr += snprintf(expected + nr, sizeof(expected) - nr, "refills_order_%u %lu\n",
			       chunk_orders[i], s.refills[i]);
	CHECK(!strcmp(show(), expected));
}

#define TEST(name)	{ #name, test_##name }

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	TEST(fill),
	TEST(empty),
	TEST(demand),
	TEST(parked),
	TEST(park_tries),
	TEST(pause),
	TEST(park_uncovered),
	TEST(leaked),
	TEST(no_refill),
	TEST(gfp),
	TEST(worker),
	TEST(shrinker),
	TEST(memalloc),
	TEST(emergency),
	TEST(fragmented),
	TEST(offline),
	TEST(offline_node),
	TEST(singles),
	TEST(snapshot),
	TEST(freed_meanwhile),
	TEST(parts),
	TEST(double_free),
	TEST(root),
	TEST(not_worth_a_split),
	TEST(bad_list),
	TEST(bad_frame),
	TEST(bad_bit),
	TEST(not_ours),
	TEST(poison),
	TEST(herd),
	TEST(magazines),
	TEST(index),
	TEST(nodes),
	TEST(oom),
	TEST(reclaim),
	TEST(show),
};

/*
 * Each call fails once during init, which never warns. It returns an error, unless it was
 * only a larger chunk that was not there. If the caller keeps many pages, the first chunk
 * is not enough.
 */
static void test_init(void)
{
	static const unsigned int keeps[] = { 1, FRAME_PAGES / 2 };
	unsigned int at, fail, i, failed = 0;
	int ret;

	for (i = 0; i < 2 * NR_FAIL; i++) {
		fail = i / 2;
		for (at = 1; at < 40; at++) {
			cache_reset(1);
			model.fail_at[fail] = at;
			model.booting = true;
			ret = kpkeys_pgtable_cache_init(&kept, keeps[i % 2]);
			failed += !!ret;
			if (fail != FAIL_ALLOC_PAGES || at == 1)
				CHECK(!ret == !model.failed);
			if (ret && fail <= FAIL_KZALLOC)
				CHECK(ret == -ENOMEM);
		}
	}
	CHECK(failed > 2 * NR_FAIL);

	/* Before the cache is there, it owns nothing. Without a shrinker, it works. */
	cache_reset(1);
	CHECK(!kpkeys_pgtable_cache_late_init() && !model.shrinker);
	CHECK(!kpkeys_pgtable_cache_owns(mem_map) && !kpkeys_pgtable_cache_in_use(mem_map));
	model.no_shrinker = true;
	CHECK(start_again());
	CHECK(!model.shrinker && model.oom_notifier);
	/* While booting, no worker is started. */
	model.booting = true;
	leave_free(1);
	CHECK(op_alloc(GFP_KERNEL, 1));
	CHECK(!model.work[0]);
	model.booting = false;
	check();
}

int main(int argc, char **argv)
{
	unsigned int i;

	/* A test that hangs has failed. */
	alarm(120);

	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		if (argc > 1 && strcmp(argv[1], tests[i].name))
			continue;
		printf("# %s\n", tests[i].name);
		fflush(stdout);
		CHECK(start(tests[i].run == test_nodes || tests[i].run == test_offline_node ?
			    MODEL_NR_NODES : 1));
		model.window_hook = check_window;
		tests[i].run();
		model.alloc_hook = NULL;
		finish();
		printf("ok %s\n", tests[i].name);
	}
	test_init();
	printf("ok init\n");
	cache_reset(1);

	return 0;
}
