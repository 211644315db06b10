// SPDX-License-Identifier: GPL-2.0-only
/*
 * One scenario after the other, each from boot on. The checks of all pages after
 * each step are those of harness.c.
 */
#include "cache.h"
#include "harness.c"

static struct kpkeys_pgtable_cache_stats stats(void)
{
	struct kpkeys_pgtable_cache_stats s;

	check();
	kpkeys_pgtable_cache_stats(&s);

	return s;
}

/* Hand out all that there is without a refill. */
static void drain(void)
{
	model_ctx.atomic = true;
	CHECK(!op_alloc(GFP_ATOMIC, MAX_HELD));
	model_ctx.atomic = false;
}

/* After a fill of n, n takes succeed; and what a failed fill got is kept. */
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

/* An empty reserve gives nothing, and nothing comes from elsewhere. */
static void test_empty(void)
{
	unsigned long cached = stats().cached;

	op_take();
	CHECK(model.nr_warnings == 1);
	CHECK(stats().cached == cached);
}

/* Two page tables are enough for any chunk, wherever it is and whatever was split before. */
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

/* A pkey that cannot be set: parked, tried again first, and nothing is needed then. */
static void test_parked(void)
{
	enum model_fail fail;

	for (fail = FAIL_PKEY_BEFORE; fail <= FAIL_PKEY_PARTLY; fail++) {
		unsigned long taken;

		drain();
		model_ctx.hint = MODEL_NR_PAGES / 2 + (fail << MODEL_PUD_ORDER);
		model.fail_at[fail] = 1;
		CHECK(!op_alloc(GFP_KERNEL, 1));
		CHECK(stats().parked);
		taken = stats().taken;
		CHECK(op_alloc(GFP_KERNEL, 1));
		CHECK(!stats().parked);
		CHECK(stats().taken == taken);
		finish();
	}
}

/* A pkey that cannot be restored: the pages are never used again. */
static void test_leaked(void)
{
	enum model_fail fail;

	for (fail = FAIL_PKEY_BEFORE; fail <= FAIL_PKEY_PARTLY; fail++) {
		unsigned long leaked = stats().leaked;

		CHECK(op_alloc(GFP_KERNEL, 400));
		while (held.nr)
			op_free(0);
		model.fail_at[fail] = 1;
		kpkeys_pgtable_cache_shrink(1);
		CHECK(stats().leaked > leaked);
		drain();
		finish();
	}
}

/* Who cannot wait gets what is there, and never a refill. */
static void test_no_refill(void)
{
	unsigned long taken = stats().taken;

	model_ctx.atomic = true;
	CHECK(!op_alloc(GFP_KERNEL, MAX_HELD));
	model_ctx.atomic = false;
	model_ctx.flags = PF_MEMALLOC;
	CHECK(!op_alloc(GFP_KERNEL, 1));
	model_ctx.flags = 0;
	CHECK(!op_alloc(GFP_NOWAIT, 1));
	model.no_split = true;
	model.quiet = true;
	CHECK(!op_alloc(GFP_KERNEL, 1));
	CHECK(model.nr_warnings == 1);
	model.no_split = false;
	model.quiet = false;
	CHECK(stats().taken == taken);
	CHECK(!stats().cached && stats().refused >= 4);
	/* A worker helps them. */
	CHECK(model.work_pending);
	model_run_work();
	CHECK(stats().cached);
}

/* The last pages are for those who cannot wait. */
static void test_emergency(void)
{
	while (stats().cached > EMERGENCY_MARK) {
		model_ctx.atomic = true;
		op_alloc(GFP_ATOMIC, 1);
		model_ctx.atomic = false;
	}
	model.fail_rate[FAIL_ALLOC_PAGES] = 256;
	CHECK(!op_alloc(GFP_KERNEL, 1));
	CHECK(op_alloc(GFP_ATOMIC, 1));
	CHECK(stats().emergency == 1);
}

/* Smaller chunks, if there are no large ones; single pages, if they cost nothing. */
static void test_fragmented(void)
{
	unsigned long i;

	CHECK(!model_set_memory(MODEL_NR_PAGES / 2 + 1, 1));
	drain();
	/* Only every second page is free, and in one place it is mapped as a page. */
	for (i = 0; i < MODEL_NR_PAGES; i++) {
		if (!model.buddy[i] || !(i % 2))
			continue;
		model.buddy[i] = false;
		mem_map[i].refcount = 1;
		CHECK(held.nr_foreign < MAX_HELD);
		held.foreign[held.nr_foreign++] = &mem_map[i];
	}
	CHECK(!op_alloc(GFP_KERNEL, 1));
	model_ctx.hint = MODEL_NR_PAGES / 2;
	op_alloc(GFP_KERNEL, 1);
	CHECK(stats().refills[ARRAY_SIZE(chunk_orders) - 1]);
}

/* Memory that is to go offline is given back, also if little stays. */
static void test_offline(void)
{
	/* All that there is in one place. */
	model_ctx.hint = 0;
	CHECK(op_alloc(GFP_KERNEL, 500));
	while (held.nr)
		op_free(0);
	check();
	op_offline(0);
	CHECK(stats().given_back);
}

/* A shrinker that takes pages itself, in the middle of a refill. */
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
}

/* The file in debugfs */
static void test_show(void)
{
	CHECK(!model.show(NULL, NULL));
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
	TEST(leaked),
	TEST(no_refill),
	TEST(emergency),
	TEST(fragmented),
	TEST(offline),
	TEST(reclaim),
	TEST(show),
};

/* Each call fails once while the cache is made: an error, and never a splat. */
static void test_init(void)
{
	unsigned int at, fail, failed = 0;

	for (fail = 0; fail < NR_FAIL; fail++) {
		for (at = 1; at < 40; at++) {
			cache_reset();
			model.fail_at[fail] = at;
			model.booting = true;
			failed += !!kpkeys_pgtable_cache_init();
		}
	}
	CHECK(failed >= NR_FAIL);
}

int main(int argc, char **argv)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		if (argc > 1 && strcmp(argv[1], tests[i].name))
			continue;
		printf("# %s\n", tests[i].name);
		fflush(stdout);
		CHECK(start());
		tests[i].run();
		finish();
		printf("ok %s\n", tests[i].name);
	}
	test_init();
	printf("ok init\n");
	cache_reset();

	return 0;
}
