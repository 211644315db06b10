// SPDX-License-Identifier: GPL-2.0-only
/*
 * For CBMC: each prove_*() starts in any state that satisfies the invariants, to
 * within the bounds of the model, does one thing, in which anything that can fail
 * does or does not, and asserts the invariants of what comes out.
 *
 * What pointers depend on is enumerated, by FOR_ANY(), so that they are constants:
 * where chunks are, and which tables the direct map has. All else is left open.
 * The chunks are in the first half of the memory; pages that the cache has already
 * are in the second.
 */
#include "shim.h"

bool nondet_bool(void);
unsigned int nondet_uint(void);

#include "model.c"
#include "cache.h"

#define assume(cond)	__CPROVER_assume(cond)
#define assert_that(cond, what)	__CPROVER_assert(cond, what)

/* A branch for each value. It ends by done(), and never meets the others again. */
#define FOR_ANY(i, max)	for ((i) = 0; (i) <= (max); (i)++) if (nondet_bool())
#define done()		assume(false)

#define NR_FREE		(MODEL_NR_PAGES / 2)

/* Everything that can fail, fails, but for what is enumerated. */
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
#define NR_PMDS		(1U << (MODEL_PUD_ORDER - MODEL_PMD_ORDER))
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
	model.pmd_cont[0] = tables < 2 && nondet_bool();
	for (i = 0; i < ARRAY_SIZE(model.pte_cont); i++)
		model.pte_cont[i] = nondet_bool();
}

/* The reserve has @nr pages, from a chunk that is long gone. */
static void any_reserve(unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		kpkeys_split_reserve_add(&refill_reserve, take_page_away(i));
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

/* A refill with a new chunk, which may be anywhere. */
void prove_refill(void)
{
	unsigned int tables, fail;
	unsigned long where;

	FOR_ANY(tables, MAX_TABLES) FOR_ANY(where, NR_FREE - 1)
	FOR_ANY(fail, ARRAY_SIZE(chunk_orders)) {
		/* Where the first chunk can be for which there is memory. */
		if (where & ((1 << (fail < ARRAY_SIZE(chunk_orders) ? chunk_orders[fail] :
				    MODEL_PUD_ORDER)) - 1))
			done();
		start(tables);
		any_reserve(CHUNK_MAX_DEMAND);
		model_ctx.hint = where;
		nr_fail_alloc = fail;
		one_refill();
		done();
	}
}

/* A chunk anywhere, of one of the orders. */
static struct chunk *any_chunk(unsigned int order, unsigned long where)
{
	struct chunk *chunk;

	model_ctx.hint = where;
	chunk = chunk_alloc_order(GFP_KERNEL, chunk_orders[order]);
	cache.stats.taken += chunk_pages(chunk);

	return chunk;
}

/* A refill after one that failed: any reserve that covers the chunk that is parked. */
void prove_refill_parked(void)
{
	unsigned int tables, order, nr;
	unsigned long where;

	FOR_ANY(tables, MAX_TABLES) FOR_ANY(order, ARRAY_SIZE(chunk_orders) - 1)
	FOR_ANY(where, NR_FREE - 1) FOR_ANY(nr, CHUNK_MAX_DEMAND) {
		unsigned int i;

		if (where & ((1 << chunk_orders[order]) - 1))
			done();
		start(tables);
		parked = any_chunk(order, where);
		cache.stats.parked = chunk_pages(parked);
		/* Its pkey may have been set in part. */
		for (i = 0; i < chunk_pages(parked); i++)
			model.pkey[where + i] = nondet_bool();
		if (nr < next_demand())
			done();
		any_reserve(nr);
		/* Another one is allocated in vain, or there is none. */
		model_ctx.hint = where ^ (1 << MODEL_PMD_ORDER);
		nr_fail_alloc = nr ? 0 : ARRAY_SIZE(chunk_orders);
		one_refill();
		done();
	}
}

/* A chunk that is free is given back, or leaked if that fails. Pages go out and come back. */
void prove_give_back(void)
{
	struct page *page, *other;
	struct chunk *chunk;
	unsigned int order;
	unsigned long where;

	FOR_ANY(order, ARRAY_SIZE(chunk_orders) - 1) FOR_ANY(where, NR_FREE - 1) {
		unsigned int i;
		bool change;

		if (where & ((1 << chunk_orders[order]) - 1))
			done();
		start(MAX_TABLES);
		any_reserve(CHUNK_MAX_DEMAND);
		chunk = any_chunk(order, where);
		range_demand(where, chunk_pages(chunk), &change);
		assume(!change);
		for (i = 0; i < chunk_pages(chunk); i++)
			model.pkey[where + i] = KPKEYS_PKEY_PGTABLES;
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
		done();
	}
}

/* After a fill of n that succeeds, n takes do, and a failed one loses nothing. */
void prove_fill(void)
{
	unsigned int n, there, fail, i;

	FOR_ANY(n, 4) FOR_ANY(there, 2) FOR_ANY(fail, 5) {
		struct kpkeys_split_reserve reserve = KPKEYS_SPLIT_RESERVE_INIT(reserve);
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
		done();
	}
}
