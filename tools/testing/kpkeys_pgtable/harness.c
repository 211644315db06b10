// SPDX-License-Identifier: GPL-2.0-only
/*
 * Turns a sequence of bytes into a sequence of operations on the cache and on the
 * reserve, and checks all pages after each step. The bytes come from a random
 * generator or from a fuzzer.
 */
#define MAX_HELD	4096

static struct {
	struct page *page[MAX_HELD];	/* as tables, from the cache */
	unsigned int nr;
	struct page *foreign[MAX_HELD];	/* from the page allocator, for other users */
	unsigned int nr_foreign;
	struct kpkeys_split_reserve reserve;
	unsigned int nr_interrupts;
} held;

static void check(void)
{
	unsigned int i;

	check_begin();
	for (i = 0; i < held.nr; i++) {
		found(held.page[i], AT_HELD);
		if (model.use_cache) {
			CHECK(kpkeys_pgtable_cache_owns(held.page[i]));
			CHECK(model.pkey[held.page[i] - mem_map] == KPKEYS_PKEY_PGTABLES);
		}
	}
	for (i = 0; i < held.nr_foreign; i++) {
		CHECK(!kpkeys_pgtable_cache_owns(held.foreign[i]));
		found(held.foreign[i], AT_HELD);
	}
	found_reserve(&held.reserve, AT_HELD);
	check_end();
	CHECK(model_idle());
}

static void hold(struct page *page)
{
	CHECK(page->refcount == 1 && !page->table && !page->private && !page->offline);
	CHECK(!model.buddy[page - mem_map]);
	CHECK(!page->owner || !model.use_cache);
	/* As a table, with a lock of its own. */
	page->table = true;
	page->private = 0x1234;
	memset(page_address(page), 0xa5, 64);
	held.page[held.nr++] = page;
}

/* What kpkeys_pgtable_free() does first. */
static void hold_table(struct ptdesc *ptdesc)
{
	ptdesc_page(ptdesc)->owner = false;
	hold(ptdesc_page(ptdesc));
}

static struct page *alloc_one(gfp_t gfp)
{
	struct page *page = kpkeys_pgtable_cache_alloc(gfp);
	const u64 *p = page ? page_address(page) : NULL;

	CHECK(!page || !page->broken);
	if (page && gfp & __GFP_ZERO)
		CHECK(!p[0] && !p[7] && !p[PAGE_SIZE / sizeof(*p) - 1]);

	return page;
}

static bool op_alloc(gfp_t gfp, unsigned int nr)
{
	while (nr-- && held.nr < MAX_HELD) {
		struct page *page = alloc_one(gfp);

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

/* Runs wherever interrupts are enabled, and takes or frees a page. */
static void irq_handler(void)
{
	if (++held.nr_interrupts % 7)
		return;
	if (held.nr_interrupts & 1)
		op_alloc(GFP_ATOMIC, 1);
	else
		op_free(held.nr_interrupts);
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
		hold_table(ptdesc);
}

static void op_fill(unsigned int nr)
{
	unsigned int before = held.reserve.nr, i;

	if (kpkeys_split_reserve_fill(&held.reserve, nr)) {
		/* The reserve keeps its pages. */
		CHECK(held.reserve.nr >= before && held.reserve.nr < nr);
		return;
	}
	CHECK(held.reserve.nr >= nr);
	for (i = 0; i < nr && held.nr < MAX_HELD; i++) {
		struct ptdesc *ptdesc = pagetable_alloc_split(&held.reserve);

		/* fill() has promised this. */
		CHECK(ptdesc);
		hold_table(ptdesc);
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
	page = model_alloc_pages(GFP_ATOMIC, order, NUMA_NO_NODE);
	if (!page)
		return;
	model_split_page(page, order);
	for (i = 0; i < 1 << order; i++) {
		CHECK(model.pkey[page + i - mem_map] == KPKEYS_PKEY_DEFAULT);
		CHECK(!kpkeys_pgtable_cache_owns(page + i));
		CHECK(!kpkeys_pgtable_cache_free(page + i));
		held.foreign[held.nr_foreign++] = page + i;
	}
}

/* Take all free pages of a range, except one of each 2^order. */
static void fragment(unsigned long start, unsigned long nr, unsigned int order)
{
	unsigned long i;

	for (i = start; i < start + nr && held.nr_foreign < MAX_HELD; i++) {
		if (!model.buddy[i] || !(i % (1 << order)))
			continue;
		model.buddy[i] = false;
		mem_map[i].owner = true;
		model.nr_buddy--;
		mem_map[i].refcount = 1;
		held.foreign[held.nr_foreign++] = &mem_map[i];
	}
}

static void op_shrinker(unsigned int nr)
{
	struct shrink_control sc = { .nr_to_scan = nr };
	unsigned long count;

	for (sc.nid = 0; sc.nid < model.nr_nodes; sc.nid++) {
		count = model.shrinker->count_objects(model.shrinker, &sc);
		if (count && count != SHRINK_EMPTY)
			model.shrinker->scan_objects(model.shrinker, &sc);
	}
}

static bool any_left(int nid, unsigned long leave)
{
	guard(raw_spinlock_irqsave)(&nodes[nid].lock);

	return find_frame(nid, leave);
}

static void op_shrink(unsigned long nr)
{
	unsigned long got = kpkeys_pgtable_cache_shrink(nr);
	int nid;

	for (nid = 0; nid < model.nr_nodes && got < nr; nid++)
		CHECK(model.failed || model.no_split || model.irq_handler ||
		      !any_left(nid, SHRINK_MARK));
}

static void op_oom(void)
{
	unsigned long freed = 1;

	CHECK(model.oom_notifier(NULL, 0, &freed) == NOTIFY_OK);
	CHECK(freed);
}

/* Memory is about to go offline. Free pages of the cache must not prevent this. */
static void op_offline(unsigned int arg)
{
	unsigned long first = (unsigned long)arg % MODEL_NR_PUDS << MODEL_PUD_ORDER, i;
	struct memory_notify mem = {
		.start_pfn = model_pfn(first),
		.nr_pages = 1UL << MODEL_PUD_ORDER,
	};
	void (*handler)(void) = model.irq_handler;
	int nid = model_nid(first);

	model.irq_handler = NULL;
	model.isolated_start = first;
	model.isolated_end = first + mem.nr_pages;
	CHECK(model.memory_notifier(NULL, MEM_GOING_OFFLINE, &mem) == NOTIFY_OK);
	/* Frames without a page in use were given back, if other pages can take their place. */
	for (i = 0; i < mem.nr_pages && !model.failed && !model.no_split; i += FRAME_PAGES) {
		struct frame *frame = frame_of(mem.start_pfn + i);

		CHECK(!frame || !frame->nr_free || frame->nr_free != frame->nr_ours ||
		      nr_free(nid) - frame->nr_free < LOW_MARK);
	}
	model.isolated_start = 0;
	model.isolated_end = 0;
	CHECK(model.memory_notifier(NULL, MEM_CANCEL_OFFLINE, &mem) == NOTIFY_OK);
	model.irq_handler = handler;
}

/* The text of the file in debugfs. */
static const char *show(void)
{
	model.nr_shown = 0;
	CHECK(!model.show(NULL, NULL));
	/* A show() function without output leaves the last text. */
	model.shown[model.nr_shown] = 0;

	return model.shown;
}

/* Mark a page as poisoned, whatever its place is. */
static void op_poison(unsigned int arg)
{
	unsigned long i = arg * (MODEL_NR_PAGES / 256);

	if (held.nr && arg & 1)
		i = held.page[arg % held.nr] - mem_map;
	/* Pages of the page allocator are not the concern of this test. */
	if (!model.buddy[i])
		mem_map[i].broken = true;
}

/* A page is freed twice, or by a caller that does not own it. */
static void op_free_wrong(unsigned int arg)
{
	unsigned long mismatched = counted(MISMATCHED), i = arg * (MODEL_NR_PAGES / 256);
	struct page *page = &mem_map[i];
	bool ours = kpkeys_pgtable_cache_owns(page);

	if (ours && test_bit(frame_bit(page_to_pfn(page)), frame_of(page_to_pfn(page))->used))
		return;
	CHECK(kpkeys_pgtable_cache_free(page) == ours);
	CHECK(counted(MISMATCHED) == mismatched + ours);
}

static void step(u8 op, u8 arg)
{
	unsigned int i;

	/* If nothing can be split, the cache may warn that it runs empty. */
	model.quiet = model.no_split;
	model.failed = false;
	switch (op % 26) {
	case 0:
		op_alloc(arg & 1 ? GFP_KERNEL : GFP_PGTABLE_KERNEL, arg % 64 + 1);
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
		op_shrink(arg == 255 ? ULONG_MAX : arg);
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
		model.init_on_free = arg & 0x20;
		model.watermark = arg & 0x40 ? arg : 0;
		model.irq_handler = arg & 0x80 ? irq_handler : NULL;
		break;
	case 14:
		model_run_work();
		break;
	case 15:
		op_offline(arg);
		break;
	case 16:
		remap(arg % MODEL_NR_PUDS);
		break;
	case 17:
		op_foreign(arg);
		break;
	case 18:
		op_shrinker(arg);
		show();
		break;
	case 19:
		/* The owner of a page adds it to a reserve. */
		if (held.nr && held.reserve.nr < 16) {
			struct page *page = held.page[--held.nr];

			page->table = false;
			page->private = 0;
			set_page_owner(page, 0, 0);
			kpkeys_split_reserve_add(&held.reserve, page_ptdesc(page));
		}
		break;
	case 20:
		model_ctx.cpu = arg % MODEL_NR_CPUS;
		break;
	case 21:
		/* Another CPU goes offline. */
		model.dead_cpu((model_ctx.cpu + 1 + arg % (MODEL_NR_CPUS - 1)) % MODEL_NR_CPUS);
		break;
	case 22:
		if (arg < 32)
			op_poison(arg * 8 + arg / 8);
		break;
	case 23:
		op_free_wrong(arg);
		break;
	case 24:
		model_ctx.mempolicy = arg & 4 ? (arg & 1) % model.nr_nodes + 1 : 0;
		model_ctx.mems_allowed = arg & 8 ? (arg & 2) % model.nr_nodes + 1 : 0;
		if (model_ctx.mems_allowed > 1 && model.nr_nodes == 1)
			model_ctx.mems_allowed = 1;
		/* mempolicy_slab_node() is called for both. */
		if (model_ctx.mems_allowed && !model_ctx.mempolicy)
			model_ctx.mempolicy = 1 + numa_mem_id();
		break;
	case 25:
		if (arg & 1)
			op_oom();
		else
			fragment((unsigned long)arg / 2 % MODEL_NR_PUDS << MODEL_PUD_ORDER,
				 1UL << MODEL_PMD_ORDER, 1 + arg / 2 / MODEL_NR_PUDS % 3);
		break;
	}
	check();
}

/* Boot, after cache_reset(). Returns false if there was not enough memory. */
static bool start_again(void)
{
	int ret;

	memset(&held, 0, sizeof(held));
	INIT_LIST_HEAD(&held.reserve.pages);
	model.booting = true;
	ret = kpkeys_pgtable_cache_init(&kept, 1);
	model.booting = false;
	if (ret)
		return false;
	CHECK(kept && !*(long *)kept);
	model.use_cache = true;
	kpkeys_pgtable_cache_late_init();
	check();

	return true;
}

static bool start(int nr_nodes)
{
	cache_reset(nr_nodes);

	return start_again();
}

/* Free all pages that were handed out, so that only the cache has pages. */
static void finish(void)
{
	memset(model.fail_at, 0, sizeof(model.fail_at));
	memset(model.fail_rate, 0, sizeof(model.fail_rate));
	model.reclaim = false;
	model.no_split = false;
	model.watermark = 0;
	model.irq_handler = NULL;
	model_ctx.mempolicy = 0;
	model_ctx.mems_allowed = 0;
	kpkeys_split_reserve_return(&held.reserve);
	while (held.nr)
		op_free(0);
	while (held.nr_foreign)
		model_free_page(held.foreign[--held.nr_foreign]);
	check();
	kpkeys_pgtable_cache_shrink(ULONG_MAX);
	check();
}
