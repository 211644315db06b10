// SPDX-License-Identifier: GPL-2.0-only
/*
 * For CBMC: each prove_*() starts in any state that satisfies the invariants, to
 * within the bounds of the model, does one thing, in which anything that can fail
 * does or does not, and asserts the invariants of what comes out.
 *
 * Paths are followed one by one (--paths), so that all pointers are constants. What
 * they depend on is any(): where chunks are, how the direct map is split, what fails.
 * The chunks are in the first half of the memory; pages that the cache has already
 * are in the second.
 */
#include "shim.h"

bool nondet_bool(void);

#include "model.c"
#include "cache.h"

#define assert_that(cond, what)	__CPROVER_assert(cond, what)

/* Each of 0 to @max, in a path of its own. */
static unsigned int any(unsigned int max)
{
	unsigned int i;

	for (i = 0; i < max && nondet_bool(); i++)
		;

	return i;
}

#define NR_FREE		(MODEL_NR_PAGES / 2)

/* Allocations fail as often as the proof says. All else does or does not. */
static unsigned int nr_fail_alloc, fill_fails_at;

bool model_fails(enum model_fail what)
{
	if (what == FAIL_ALLOC_PAGES && fill_fails_at)
		return !--fill_fails_at;
	if (what == FAIL_ALLOC_PAGES || what == FAIL_KZALLOC) {
		if (!nr_fail_alloc)
			return false;
		/* Either of the two. */
		if (what == FAIL_KZALLOC && nr_fail_alloc & 1)
			return false;
		nr_fail_alloc--;
		return true;
	}

	return nondet_bool();
}

/* A page of the second half, which somebody has. */
static struct page *take_page_away(unsigned int i)
{
	unsigned long pfn = NR_FREE + i;

	model.buddy[pfn] = false;
	mem_map[pfn].refcount = 1;

	return &mem_map[pfn];
}

static struct page *any_table(unsigned int i)
{
	struct page *page = take_page_away(CHUNK_MAX_DEMAND + i);

	page->table = true;

	return page;
}

/* The tables of the first half: none at all, or that of PMDs and any of those below. */
#define NR_PMDS		(NR_FREE >> MODEL_PMD_ORDER)
#ifndef MAX_TABLES
#define MAX_TABLES	(1U << NR_PMDS)
#endif

static void start(unsigned int tables)
{
	unsigned long i;

	model_reset();
	model.use_cache = true;
	for (i = 0; i < NR_BUCKETS; i++)
		INIT_LIST_HEAD(&cache.bucket[i]);
	INIT_LIST_HEAD(&cache.free_chunks);

	if (tables)
		model.pmd_table[0] = any_table(0);
	for (i = 0; i < NR_PMDS; i++) {
		if (tables && (tables - 1) & (1 << i))
			model.pte_table[i] = any_table(1 + i);
	}
	/* A group with a table in it has lost the hint. */
	model.pmd_cont[0] = tables == 1 && any(1);
	for (i = 0; i < NR_FREE >> MODEL_CONT_ORDER; i++) {
		if (model.pte_table[i >> (MODEL_PMD_ORDER - MODEL_CONT_ORDER)])
			model.pte_cont[i] = any(1);
	}
}

/* The reserve has @nr pages, each from a chunk of its own. */
static void any_reserve(unsigned int nr)
{
	static struct chunk chunks[CHUNK_MAX_DEMAND];
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct page *page = take_page_away(i);

		INIT_LIST_HEAD(&chunks[i].node);
		INIT_LIST_HEAD(&chunks[i].free);
		chunks[i].pfn = page_to_pfn(page);
		rb_add(&chunks[i].rb, &cache.chunks, chunk_less);
		model.nr_objects++;
		model.pkey[page_to_pfn(page)] = KPKEYS_PKEY_PGTABLES;
		kpkeys_split_reserve_add(&refill_reserve, page);
	}
	cache.stats.taken += nr;
}

static void check(void)
{
	check_begin();
	check_end();
	CHECK(!model_ctx.nr_spin && !model_ctx.refill_mutex && !model_ctx.split_lock);
}

/*
 * A refill, whatever fails in it. It nets pages, or says why not; no page is lost,
 * exposed, or in two places; and the next refill is covered.
 */
static void one_refill(void)
{
	int ret = refill(0, GFP_KERNEL);

	if (!ret)
		assert_that(cache.stats.cached > 0, "a refill nets pages");
	assert_that(refill_reserve.nr >= next_demand(), "the reserve covers the next chunk");
	check();
}

/* Where a block of this order may be. */
static unsigned long anywhere(unsigned int order)
{
	return any((NR_FREE >> order) - 1) << order;
}

/* A refill with a new chunk, which may be anywhere. */
void prove_refill(void)
{
	unsigned int fail = any(ARRAY_SIZE(chunk_orders));

	start(any(MAX_TABLES));
	any_reserve(CHUNK_MAX_DEMAND);
	nr_fail_alloc = fail;
	/* The first chunk for which there is memory, if there is one. */
	if (fail < ARRAY_SIZE(chunk_orders))
		model_ctx.hint = anywhere(chunk_orders[fail]);
	one_refill();
}

/* A chunk of any order, anywhere. */
static struct chunk *any_chunk(void)
{
	unsigned int order = chunk_orders[any(ARRAY_SIZE(chunk_orders) - 1)];
	struct chunk *chunk;

	model_ctx.hint = anywhere(order);
	chunk = chunk_alloc_order(GFP_KERNEL, order);
	cache.stats.taken += chunk_pages(chunk);

	return chunk;
}

/* A refill after one that failed, with any reserve that the invariant allows. */
void prove_refill_parked(void)
{
	unsigned int nr = any(CHUNK_MAX_DEMAND), i;

	start(any(MAX_TABLES));
	parked = any_chunk();
	cache.stats.parked = chunk_pages(parked);
	/* Its pkey may have been set in part. */
	for (i = 0; i < chunk_pages(parked); i++)
		model.pkey[parked->pfn + i] = nondet_bool();
	any_reserve(nr);
	if (nr < next_demand() || !parked_nets_pages())
		return;
	/* Another one is allocated in vain, or there is none. */
	model_ctx.hint = parked->pfn ^ (1 << MODEL_PMD_ORDER);
	nr_fail_alloc = nr ? 0 : ARRAY_SIZE(chunk_orders);
	one_refill();
}

/* A chunk that is free is given back, or leaked if that fails. Pages go out and come back. */
void prove_give_back(void)
{
	struct page *page, *other;
	struct chunk *chunk;
	unsigned int i;
	bool change;

	start(any(MAX_TABLES));
	any_reserve(CHUNK_MAX_DEMAND);
	chunk = any_chunk();
	range_demand(chunk->pfn, chunk_pages(chunk), &change);
	if (change)
		return;
	for (i = 0; i < chunk_pages(chunk); i++)
		model.pkey[chunk->pfn + i] = KPKEYS_PKEY_PGTABLES;
	model_mutex_lock(&refill_mutex);
	chunk_stock(chunk, 0);
	model_mutex_unlock(&refill_mutex);
	check();

	page = take_page(0);
	assert_that(page, "there is one");
	other = take_page(0);
	assert_that(page != other, "a page is handed out once");
	check_begin();
	found(page, HELD);
	if (other)
		found(other, HELD);
	check_end();
	assert_that(!detach_free_chunk(0, ULONG_MAX, 0), "it is in use");
	if (other)
		kpkeys_pgtable_cache_free(other);
	assert_that(kpkeys_pgtable_cache_free(page), "it is taken back");
	check();

	chunk = detach_free_chunk(0, ULONG_MAX, 0);
	assert_that(chunk, "a free chunk is found");
	chunk_give_back(chunk);
	check();
}

/* After a fill of n that succeeds, n takes do, and a failed one loses nothing. */
void prove_fill(void)
{
	struct kpkeys_split_reserve reserve = KPKEYS_SPLIT_RESERVE_INIT(reserve);
	unsigned int n = any(4), there = any(2), fail = any(5), i;
	struct page *page;
	int ret;

	start(0);
	model.use_cache = false;
	for (i = 0; i < there; i++)
		kpkeys_split_reserve_add(&reserve, take_page_away(i));
	fill_fails_at = fail;
	ret = kpkeys_split_reserve_fill(&reserve, n);
	assert_that(!ret == (reserve.nr >= n), "fill keeps its promise");
	if (ret)
		assert_that(reserve.nr == there + fail - 1, "a failed fill keeps all");
	for (i = 0; i < n && !ret; i++) {
		page = pagetable_alloc_split(&reserve);
		assert_that(page, "a take after a fill succeeds");
		assert_that(page->refcount == 1, "what was taken is nobody else's");
		page->refcount = 2;
	}
	kpkeys_split_reserve_return(&reserve);
	assert_that(!reserve.nr && list_empty(&reserve.pages), "nothing is left");
	for (i = 0; i < MODEL_NR_PAGES; i++)
		assert_that(model.buddy[i] == !mem_map[i].refcount, "all others are back");
}
