// SPDX-License-Identifier: GPL-2.0-only
/*
 * A sequence of bytes becomes a sequence of what users of the cache and of the
 * reserve do, with a check of all pages after each step. The bytes come from a
 * random generator or from a fuzzer.
 */
#define MAX_HELD	1024

static struct {
	struct page *page[MAX_HELD];	/* as tables, from the cache */
	unsigned int nr;
	struct page *foreign[MAX_HELD];	/* from the page allocator, for something else */
	unsigned int nr_foreign;
	struct kpkeys_split_reserve reserve;
} held;

static void check(void)
{
	unsigned int i;

	check_begin();
	for (i = 0; i < held.nr; i++) {
		found(held.page[i], HELD);
		if (model.use_cache) {
			CHECK(kpkeys_pgtable_cache_owns(held.page[i]));
			CHECK(model.pkey[page_to_pfn(held.page[i])] == KPKEYS_PKEY_PGTABLES);
		}
	}
	for (i = 0; i < held.nr_foreign; i++)
		found(held.foreign[i], HELD);
	found_reserve(&held.reserve, HELD);
	check_end();
	CHECK(!model_ctx.nr_spin && !model_ctx.refill_mutex && !model_ctx.split_lock);
}

static void hold(struct page *page)
{
	CHECK(page->refcount == 1 && !page->table && !page->private && !page->offline);
	CHECK(!model.buddy[page_to_pfn(page)]);
	/* As a table, with a lock of its own. */
	page->table = true;
	page->private = 0x1234;
	held.page[held.nr++] = page;
}

static bool op_alloc(gfp_t gfp, unsigned int nr)
{
	while (nr-- && held.nr < MAX_HELD) {
		struct page *page = kpkeys_pgtable_cache_alloc(gfp);

		if (!page)
			return false;
		hold(page);
	}

	return true;
}

static void op_free(unsigned int which)
{
	struct page *page;

	if (!held.nr)
		return;
	which %= held.nr;
	page = held.page[which];
	held.page[which] = held.page[--held.nr];
	page->table = false;
	CHECK(kpkeys_pgtable_cache_free(page));
}

static void op_take(void)
{
	bool empty = !held.reserve.nr;
	struct ptdesc *ptdesc;

	if (held.nr == MAX_HELD)
		return;
	if (empty)
		model.quiet = true;
	ptdesc = pagetable_alloc_split(&held.reserve);
	CHECK(!ptdesc == empty);
	model.quiet = model.no_split;
	if (ptdesc)
		hold(ptdesc_page(ptdesc));
}

static void op_fill(unsigned int nr)
{
	unsigned int before = held.reserve.nr, i;

	if (kpkeys_split_reserve_fill(&held.reserve, nr)) {
		/* What there is stays. */
		CHECK(held.reserve.nr >= before && held.reserve.nr < nr);
		return;
	}
	CHECK(held.reserve.nr >= nr);
	for (i = 0; i < nr && held.nr < MAX_HELD; i++) {
		struct ptdesc *ptdesc = pagetable_alloc_split(&held.reserve);

		/* The promise. */
		CHECK(ptdesc);
		hold(ptdesc_page(ptdesc));
	}
}

static void op_foreign(unsigned int arg)
{
	unsigned int order = arg % 4, i;
	struct page *page;

	if (arg & 0x80) {
		while (held.nr_foreign && arg--)
			model_free_page(held.foreign[--held.nr_foreign]);
		return;
	}
	if (held.nr_foreign + (1 << order) > MAX_HELD)
		return;
	page = model_alloc_pages(GFP_ATOMIC, order);
	if (!page)
		return;
	model_split_page(page, order);
	for (i = 0; i < 1 << order; i++) {
		CHECK(model.pkey[page_to_pfn(page + i)] == KPKEYS_PKEY_DEFAULT);
		CHECK(!kpkeys_pgtable_cache_free(page + i));
		held.foreign[held.nr_foreign++] = page + i;
	}
}

static void op_shrinker(unsigned int nr)
{
	struct shrink_control sc = { .nr_to_scan = nr };
	unsigned long count;

	count = model.shrinker->count_objects(model.shrinker, &sc);
	if (count && count != SHRINK_EMPTY)
		model.shrinker->scan_objects(model.shrinker, &sc);
}

/* Memory is to go offline: free pages of the cache must not keep it from that. */
static void op_offline(unsigned int arg)
{
	struct memory_notify mem = {
		.start_pfn = arg % 4 * (MODEL_NR_PAGES / 4),
		.nr_pages = MODEL_NR_PAGES / 4,
	};
	struct notifier_block nb = { };
	struct rb_node *node;

	model.isolated_start = mem.start_pfn;
	model.isolated_end = mem.start_pfn + mem.nr_pages;
	CHECK(model.memory_notifier(&nb, MEM_GOING_OFFLINE, &mem) == NOTIFY_OK);
	/* A refill that brings others in their place has to be possible. */
	for (node = rb_first(&cache.chunks); node && !model.failed && !model.no_split;
	     node = rb_next(node)) {
		struct chunk *chunk = rb_entry(node, struct chunk, rb);

		CHECK(list_empty(&chunk->node) || chunk->nr_free != chunk_pages(chunk) ||
		      chunk->pfn < model.isolated_start || chunk->pfn >= model.isolated_end);
	}
	model.isolated_start = 0;
	model.isolated_end = 0;
	CHECK(model.memory_notifier(&nb, MEM_CANCEL_OFFLINE, &mem) == NOTIFY_OK);
}

static void step(u8 op, u8 arg)
{
	unsigned int i;

	/* Then it warns of a stock that was too small. */
	model.quiet = model.no_split;
	model.failed = false;
	switch (op % 20) {
	case 0:
		op_alloc(GFP_KERNEL, arg % 64 + 1);
		break;
	case 1:
		model_ctx.atomic = true;
		op_alloc(arg & 1 ? GFP_KERNEL : GFP_ATOMIC, arg % 32 + 1);
		model_ctx.atomic = false;
		break;
	case 2:
		model_ctx.flags |= PF_MEMALLOC;
		op_alloc(arg & 1 ? GFP_KERNEL : GFP_NOWAIT, arg % 32 + 1);
		model_ctx.flags &= ~PF_MEMALLOC;
		break;
	case 3:
		op_free(arg);
		break;
	case 4:
		for (i = 0; i < arg; i++)
			op_free(arg * 7 + i * 3);
		break;
	case 5:
		kpkeys_pgtable_cache_shrink(arg == 255 ? ULONG_MAX : arg);
		break;
	case 6:
		model_set_memory((model_ctx.hint + arg * 5) % MODEL_NR_PAGES, 1);
		break;
	case 7:
		i = (model_ctx.hint + arg * 5) % MODEL_NR_PAGES;
		model_set_memory(i, min(arg * 2 + 1UL, MODEL_NR_PAGES - i));
		break;
	case 8:
		op_fill(arg % 9);
		break;
	case 9:
		op_take();
		break;
	case 10:
		kpkeys_split_reserve_return(&held.reserve);
		CHECK(!held.reserve.nr);
		break;
	case 11:
		model.fail_at[arg % NR_FAIL] = arg / NR_FAIL % 8 + 1;
		break;
	case 12:
		model_ctx.hint = arg * (MODEL_NR_PAGES / 256);
		break;
	case 13:
		model.reclaim = arg & 1;
		model.no_split = (arg & 0x1e) == 0x1e;
		break;
	case 14:
		model_run_work();
		break;
	case 15:
		op_offline(arg);
		break;
	case 16:
		model_remap(arg % (MODEL_NR_PAGES >> MODEL_PUD_ORDER));
		break;
	case 17:
		op_foreign(arg);
		break;
	case 18:
		op_shrinker(arg);
		model.show(NULL, NULL);
		break;
	case 19:
		/* Somebody who has a page already adds it to his reserve. */
		if (held.nr && held.reserve.nr < 16) {
			struct page *page = held.page[--held.nr];

			page->table = false;
			page->private = 0;
			kpkeys_split_reserve_add(&held.reserve, page_ptdesc(page));
		}
		break;
	}
	check();
}

/* Boot; false if there was not enough memory for it. */
static bool start(void)
{
	int ret;

	cache_reset();
	memset(&held, 0, sizeof(held));
	INIT_LIST_HEAD(&held.reserve.pages);
	model.booting = true;
	ret = kpkeys_pgtable_cache_init();
	model.booting = false;
	if (ret)
		return false;
	model.use_cache = true;
	kpkeys_pgtable_cache_late_init();
	check();

	return true;
}

/* All that was handed out goes back; what is left is what the cache keeps. */
static void finish(void)
{
	memset(model.fail_at, 0, sizeof(model.fail_at));
	model.reclaim = false;
	model.no_split = false;
	kpkeys_split_reserve_return(&held.reserve);
	while (held.nr)
		op_free(0);
	op_foreign(0x80 | 127);
	while (held.nr_foreign)
		op_foreign(0xff);
	check();
	kpkeys_pgtable_cache_shrink(ULONG_MAX);
	check();
}
