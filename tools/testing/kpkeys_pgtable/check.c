// SPDX-License-Identifier: GPL-2.0-only
/*
 * Finds the place of every page from the state of the cache. Only this file depends
 * on the internals of the cache. It is included after them.
 */

enum place {
	NOWHERE,
	AT_BUDDY,
	AT_FRAME,		/* free, in its frame */
	AT_MAGAZINE,
	AT_RESERVE,
	AT_STATE,		/* state of the cache */
	AT_SPARE,		/* set aside for state, without content */
	AT_PARKED,
	AT_TABLE,		/* of the direct map */
	AT_HELD,		/* handed out, or not from the cache */
	/* Pages that are in no list: */
	AT_POISON,		/* poisoned, and ours */
	AT_LEAK,		/* ours, but its pkey could not be reset */
	AT_ABANDONED,		/* its pkey could not be set */
	AT_BIN,			/* poisoned, and freed to the page allocator */
	NR_PLACES
};

static u8 place[MODEL_NR_PAGES];
static struct frame *frames[MODEL_NR_PAGES >> FRAME_ORDER];

/* The bits of a page. */
static bool is_ours(unsigned long i)
{
	return frames[i >> FRAME_ORDER] &&
	       test_bit(i & (FRAME_PAGES - 1), frames[i >> FRAME_ORDER]->ours);
}

static bool is_used(unsigned long i)
{
	return frames[i >> FRAME_ORDER] &&
	       test_bit(i & (FRAME_PAGES - 1), frames[i >> FRAME_ORDER]->used);
}

/* Each page is in one place. */
static void found(struct page *page, enum place where)
{
	unsigned long i = page - mem_map;

	CHECK(i < MODEL_NR_PAGES);
	CHECK(place[i] == NOWHERE);
	place[i] = where;
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

/* The pages with the state of the cache. */
static void each_state_page(void **table, int level, void (*fn)(struct page *page))
{
	unsigned int i;

	if (table != cache->index)
		fn(model_page(table));
	for (i = 0; level >= 0 && i < 1U << index_shift(level); i++) {
		if (table[i])
			each_state_page(table[i], level - 1, fn);
	}
}

static void each_state(void (*fn)(struct page *page))
{
	char *p, *end = (char *)(magazines + nr_cpu_ids);

	for (p = (char *)cache; p < end; p += PAGE_SIZE)
		fn(model_page(p));
	each_state_page(cache->index, INDEX_LEVELS - 1, fn);
}

static void found_state(struct page *page)
{
	found(page, AT_STATE);
}

static void check_frame(unsigned long first)
{
	struct frame *frame = frames[first >> FRAME_ORDER];
	unsigned int i, ours = 0, free = 0;

	CHECK(frame->pfn == model_pfn(first));
	for (i = 0; i < FRAME_PAGES; i++) {
		struct page *page = &mem_map[first + i];

		ours += test_bit(i, frame->ours);
		if (test_bit(i, frame->used))
			CHECK(test_bit(i, frame->ours) && !test_bit(i, frame->free));
		if (!test_bit(i, frame->free))
			continue;
		CHECK(test_bit(i, frame->ours));
		CHECK(page->refcount == 1 && !page->table && !page->private);
		found(page, AT_FRAME);
		free++;
	}
	CHECK(frame->nr_ours == ours);
	CHECK(frame->nr_free == free);
	CHECK(list_empty(&frame->node) == !free);
}

/* A frame with free pages is in the right bucket. */
static void check_node(int nid)
{
	struct node_frames *node = &cache->frames[nid];
	unsigned long ours = 0, free = 0, listed = 0, nr = 0, i;
	struct frame *frame;

	for (i = 0; i < FRAME_BUCKETS; i++) {
		list_for_each_entry(frame, &node->bucket[i], node) {
			CHECK(frame == frames[model_index(frame->pfn) >> FRAME_ORDER]);
			CHECK(pfn_to_nid(frame->pfn) == nid);
			CHECK(frame->nr_free);
			CHECK(i == (frame->nr_free == frame->nr_ours ? IDLE_BUCKET :
				    fls(frame->nr_free)));
			listed++;
		}
	}
	for (i = 0; i < ARRAY_SIZE(frames); i++) {
		frame = frames[i];
		if (!frame || model_nid(i << FRAME_ORDER) != nid)
			continue;
		ours += frame->nr_ours;
		free += frame->nr_free;
		nr += !!frame->nr_free;
	}
	CHECK(listed == nr);
	CHECK(node->nr_ours == ours);
	CHECK(node->nr_free == free);
	CHECK(node->lowest <= free || node->lowest == ULONG_MAX);
	CHECK(model.reclaimable[nid] == free);
}

static void check_magazine(unsigned int cpu)
{
	struct magazine *mag = &magazines[cpu];
	unsigned long i, index;

	CHECK(mag->nr <= ARRAY_SIZE(mag->pfn));
	for (i = 0; i < mag->nr; i++) {
		index = model_index(mag->pfn[i]);
		found(&mem_map[index], AT_MAGAZINE);
		CHECK(is_ours(index) && !is_used(index));
		CHECK(model_nid(index) == cpu % model.nr_nodes);
		CHECK(mem_map[index].refcount == 1 && !mem_map[index].table);
	}
}

static void found_tables(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(model.pmd_table); i++) {
		if (model.pmd_table[i])
			found(model.pmd_table[i], AT_TABLE);
	}
	for (i = 0; i < ARRAY_SIZE(model.pte_table); i++) {
		if (model.pte_table[i])
			found(model.pte_table[i], AT_TABLE);
	}
}

/* The bits, the pkey and the flag of a page match its place. */
static void check_page(unsigned long i)
{
	bool ours = is_ours(i), used = is_used(i);
	struct page *page = &mem_map[i];

	if (model.buddy[i])
		found(page, AT_BUDDY);
	/* Pages that are neither tables nor in any known place. */
	if (place[i] == NOWHERE && ours)
		place[i] = page->broken && model.pkey[i] == KPKEYS_PKEY_PGTABLES ?
			   AT_POISON : AT_LEAK;
	if (place[i] == NOWHERE)
		place[i] = page->broken && !page->refcount ? AT_BIN : AT_ABANDONED;

	switch (place[i]) {
	case AT_BUDDY:
	case AT_BIN:
		CHECK(!ours && model.pkey[i] == KPKEYS_PKEY_DEFAULT);
		break;
	case AT_FRAME:
	case AT_MAGAZINE:
	case AT_STATE:
	case AT_SPARE:
	case AT_POISON:
		CHECK(ours && !used && model.pkey[i] == KPKEYS_PKEY_PGTABLES);
		break;
	case AT_RESERVE:
		CHECK(used && model.pkey[i] == KPKEYS_PKEY_PGTABLES);
		break;
	case AT_PARKED:
	case AT_ABANDONED:
		CHECK(!ours && page->refcount == 1);
		break;
	case AT_TABLE:
	case AT_HELD:
		/* Tables that are older than the cache do not belong to it. */
		CHECK(used == ours);
		CHECK(model.pkey[i] == (ours ? KPKEYS_PKEY_PGTABLES : KPKEYS_PKEY_DEFAULT));
		break;
	case AT_LEAK:
		CHECK(!used);
		break;
	}
	/* The content of PageOffline() pages is not saved. */
	CHECK(page->offline == (ours && !used && place[i] != AT_STATE));
}

/*
 * Check the places of all pages. No other thread runs. The caller has called found()
 * for the pages that it holds, after check_begin().
 */
static void check_begin(void)
{
	memset(place, NOWHERE, sizeof(place));
}

static void check_end(void)
{
	struct kpkeys_pgtable_cache_stats stats;
	unsigned long nr[NR_PLACES] = { };
	unsigned long in_use = 0, i;

	memset(frames, 0, sizeof(frames));
	if (model.use_cache) {
		each_state(found_state);
		for (i = 0; i < cache->nr_spare; i++)
			found(pfn_to_page(cache->spare[i]), AT_SPARE);
		for (i = 0; i < MODEL_NR_PAGES; i += FRAME_PAGES)
			frames[i >> FRAME_ORDER] = frame_of(model_pfn(i));
		for (i = 0; i < MODEL_NR_PAGES; i += FRAME_PAGES) {
			if (frames[i >> FRAME_ORDER])
				check_frame(i);
		}
		for (i = 0; i < model.nr_nodes; i++)
			check_node(i);
		for (i = 0; i < MODEL_NR_CPUS; i++)
			check_magazine(i);
		for (i = 0; cache->parked.tries && i < 1U << cache->parked.order; i++)
			found(pfn_to_page(cache->parked.pfn + i), AT_PARKED);
	}
	found_reserve(&refill_reserve, AT_RESERVE);
	found_tables();
	for (i = 0; i < MODEL_NR_PAGES; i++) {
		check_page(i);
		nr[place[i]]++;
		in_use += is_used(i);
	}
	CHECK(nr[AT_BUDDY] == model.nr_buddy);
	if (!model.use_cache)
		return;

	kpkeys_pgtable_cache_stats(&stats);
	CHECK(stats.cached == nr[AT_FRAME] + nr[AT_MAGAZINE]);
	CHECK(stats.reserved == nr[AT_RESERVE]);
	CHECK(stats.in_use == in_use - nr[AT_RESERVE]);
	CHECK(stats.meta == nr[AT_STATE] + nr[AT_SPARE]);
	CHECK(!stats.moving);
	CHECK(stats.parked == nr[AT_PARKED]);
	/* A leaked page may also be poisoned. */
	CHECK(stats.poisoned + stats.leaked ==
	      nr[AT_POISON] + nr[AT_LEAK] + nr[AT_ABANDONED]);
	CHECK(counted(ABANDONED) == nr[AT_ABANDONED]);
	CHECK(stats.poisoned <= nr[AT_POISON]);
	CHECK(stats.taken == stats.cached + stats.reserved + stats.in_use + stats.meta +
			     stats.parked + stats.poisoned + stats.leaked);
	CHECK(refill_reserve.nr <= CHUNK_MAX_DEMAND && cache->nr_spare <= INDEX_LEVELS);
}

/* Map memory by blocks again, except where the parked chunk was split off. */
static void remap(unsigned long pud)
{
	if (!cache->parked.tries || model_index(cache->parked.pfn) >> MODEL_PUD_ORDER != pud)
		model_remap(pud);
}

/*
 * The state of the cache changes inside windows only: when a window opens, the state
 * is what it was when the previous one closed.
 */
static u64 state_hash, hash;
static bool state_known;

static void hash_page(struct page *page)
{
	const u64 *p = page_address(page);
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / sizeof(*p); i++)
		hash = (hash ^ p[i]) * 0x9e3779b97f4a7c15;
}

static void check_window(bool opens)
{
	if (!cache)
		return;
	if (opens && !state_known)
		return;
	hash = 0;
	each_state(hash_page);
	if (opens)
		CHECK(hash == state_hash);
	state_hash = hash;
	state_known = true;
}

/* As at boot, before kpkeys_pgtable_cache_init(). */
static void cache_reset(int nr_nodes)
{
	free(nodes);
	nodes = NULL;
	cache = NULL;
	magazines = NULL;
	memset(counters, 0, sizeof(counters));
	INIT_LIST_HEAD(&refill_reserve.pages);
	refill_reserve.nr = 0;
	nr_given_up = 0;
	state_known = false;
	model_reset(nr_nodes);
}
