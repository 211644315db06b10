// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where every page is, by what the cache itself knows. All that depends on its
 * insides is in this file, which is included after them.
 */

enum place { NOWHERE, BUDDY, CACHED, RESERVED, PARKED, LEAKED, TABLE, HELD };

static u8 place[MODEL_NR_PAGES];
static bool in_chunk[MODEL_NR_PAGES];
static unsigned long nr_free_chunk_pages;

/* A page is in one place. */
static void found(struct page *page, enum place where)
{
	unsigned long pfn = page_to_pfn(page);

	CHECK(pfn < MODEL_NR_PAGES);
	CHECK(place[pfn] == NOWHERE);
	place[pfn] = where;
}

static void found_reserve(struct kpkeys_split_reserve *reserve, enum place where)
{
	struct ptdesc *ptdesc;
	unsigned int nr = 0;

	list_for_each_entry(ptdesc, &reserve->pages, pt_list) {
		CHECK(!ptdesc_page(ptdesc)->table);
		found(ptdesc_page(ptdesc), where);
		nr++;
	}
	CHECK(reserve->nr == nr);
}

static void found_chunk(struct chunk *chunk)
{
	unsigned int i, nr = chunk_pages(chunk);
	struct page *page;

	CHECK(!(chunk->pfn & (nr - 1)));
	for (i = 0; i < nr; i++) {
		CHECK(!in_chunk[chunk->pfn + i]);
		in_chunk[chunk->pfn + i] = true;
	}
	if (chunk == parked || (chunk->nr_free == nr && list_empty(&chunk->node))) {
		for (i = 0; i < nr; i++)
			found(pfn_to_page(chunk->pfn + i), chunk == parked ? PARKED : LEAKED);
		return;
	}

	i = 0;
	list_for_each_entry(page, &chunk->free, lru) {
		CHECK(page_to_pfn(page) - chunk->pfn < nr);
		CHECK(page->refcount == 1 && !page->table && !page->private && page->offline);
		found(page, CACHED);
		i++;
	}
	CHECK(chunk->nr_free == i);
	CHECK(list_empty(&chunk->node) == !i);
	nr_free_chunk_pages += i == nr ? i : 0;
	for (i = 0; i < nr; i++)
		CHECK(model.pkey[chunk->pfn + i] == KPKEYS_PKEY_PGTABLES);
}

/* A chunk with free pages is where it is looked for. */
static void check_queues(void)
{
	unsigned long nr = 0;
	struct chunk *chunk;
	unsigned int i;

	for (i = 0; i < NR_BUCKETS; i++) {
		list_for_each_entry(chunk, &cache.bucket[i], node) {
			CHECK(fls(chunk->nr_free) == i);
			CHECK(chunk->nr_free < chunk_pages(chunk));
		}
	}
	list_for_each_entry(chunk, &cache.free_chunks, node) {
		CHECK(chunk->nr_free == chunk_pages(chunk));
		nr += chunk->nr_free;
	}
	CHECK(cache.free_chunk_pages == nr && nr == nr_free_chunk_pages);
}

static void found_tables(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(model.pmd_table); i++) {
		if (model.pmd_table[i])
			found(model.pmd_table[i], TABLE);
	}
	for (i = 0; i < ARRAY_SIZE(model.pte_table); i++) {
		if (model.pte_table[i])
			found(model.pte_table[i], TABLE);
	}
}

/* The demand of the next chunk that a refill will try. */
static unsigned int next_demand(void)
{
	if (parked)
		return model_split_demand(chunk_address(parked), chunk_pages(parked));

	return CHUNK_MAX_DEMAND;
}

/* See the invariant of refill_reserve: a full reserve will come of it, and more than that. */
static bool parked_nets_pages(void)
{
	return refill_reserve.nr - next_demand() + chunk_pages(parked) > CHUNK_MAX_DEMAND;
}

/*
 * Check where all pages are. Nobody else runs; the caller has found() what it
 * holds after check_begin().
 */
static void check_begin(void)
{
	memset(place, NOWHERE, sizeof(place));
	memset(in_chunk, 0, sizeof(in_chunk));
	nr_free_chunk_pages = 0;
}

static void check_end(void)
{
	struct kpkeys_pgtable_cache_stats stats;
	unsigned long nr[HELD + 1] = { };
	unsigned long in_use = 0, pfn;
	struct rb_node *node;
	long nr_chunks = 0;

	for (node = rb_first(&cache.chunks); node; node = rb_next(node)) {
		found_chunk(rb_entry(node, struct chunk, rb));
		nr_chunks++;
	}
	if (model.use_cache)
		check_queues();
	found_reserve(&refill_reserve, RESERVED);
	found_tables();
	for (pfn = 0; pfn < MODEL_NR_PAGES; pfn++) {
		if (model.buddy[pfn]) {
			found(pfn_to_page(pfn), BUDDY);
			CHECK(model.pkey[pfn] == KPKEYS_PKEY_DEFAULT);
			CHECK(!in_chunk[pfn]);
		} else if (place[pfn] == TABLE || place[pfn] == HELD) {
			/* Tables from before there was a cache are not its own. */
			in_use += in_chunk[pfn];
		}
		CHECK(place[pfn] != NOWHERE);
		nr[place[pfn]]++;
	}
	CHECK(model.nr_objects == nr_chunks);

	if (!model.use_cache)
		return;
	kpkeys_pgtable_cache_stats(&stats);
	CHECK(stats.cached == nr[CACHED]);
	CHECK(stats.reserved == nr[RESERVED]);
	CHECK(stats.parked == nr[PARKED]);
	CHECK(stats.leaked == nr[LEAKED]);
	CHECK(stats.in_use == in_use);
	CHECK(stats.taken == stats.cached + stats.reserved + stats.in_use + stats.parked +
			     stats.leaked);
	CHECK(refill_reserve.nr >= next_demand());
	CHECK(!parked || parked_nets_pages());
}

/* As at boot, before kpkeys_pgtable_cache_init(). */
static void cache_reset(void)
{
	struct rb_node *node;

	while ((node = rb_first(&cache.chunks))) {
		struct chunk *chunk = rb_entry(node, struct chunk, rb);

		rb_erase(node, &cache.chunks);
		kfree(chunk);
	}
	memset(&cache, 0, sizeof(cache));
	INIT_LIST_HEAD(&cache.free_chunks);
	INIT_LIST_HEAD(&refill_reserve.pages);
	refill_reserve.nr = 0;
	parked = NULL;
	model_reset();
}
