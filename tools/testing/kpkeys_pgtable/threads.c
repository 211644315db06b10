// SPDX-License-Identifier: GPL-2.0-only
/*
 * Several threads at once, for ThreadSanitizer: threads SEED ROUNDS
 *
 * From time to time all threads stop, as in stop_machine(), and all pages are checked.
 */
#include "cache.h"

#define NR_THREADS	MODEL_NR_CPUS	/* each has its own */
#define MAX_HELD	200
#define MAX_FOREIGN	700
#define NR_STEPS	500		/* between two checks */

static struct task {
	struct page *page[MAX_HELD];
	unsigned int nr;
	struct page *foreign[MAX_FOREIGN];
	unsigned int nr_foreign;
	struct kpkeys_split_reserve reserve;
	unsigned int rnd;
	pthread_t thread;
} tasks[NR_THREADS];

static pthread_barrier_t all;
static unsigned long nr_rounds;

static unsigned int rnd(struct task *t)
{
	t->rnd = t->rnd * 1664525 + 1013904223;

	return t->rnd >> 12;
}

static void take(struct task *t, gfp_t gfp)
{
	unsigned int nr = rnd(t) % 16;

	while (nr-- && t->nr < MAX_HELD) {
		struct page *page = kpkeys_pgtable_cache_alloc(gfp);

		if (!page)
			return;
		CHECK(page->refcount == 1 && !page->table && !page->private);
		page->table = true;
		page->private = 1;
		t->page[t->nr++] = page;
	}
}

static void put(struct task *t)
{
	unsigned int nr = rnd(t) % 32;

	while (nr-- && t->nr) {
		unsigned int i = rnd(t) % t->nr;
		struct page *page = t->page[i];

		t->page[i] = t->page[--t->nr];
		page->table = false;
		CHECK(kpkeys_pgtable_cache_free(page));
	}
}

/* Other users take memory, so that blocks are hard to find. */
static void foreign(struct task *t)
{
	struct page *page;

	if (t->nr_foreign == MAX_FOREIGN || rnd(t) % 64 == 0) {
		while (t->nr_foreign)
			model_free_page(t->foreign[--t->nr_foreign]);
		return;
	}
	while (t->nr_foreign < MAX_FOREIGN && rnd(t) % 32) {
		model_ctx.hint = rnd(t) % MODEL_NR_PAGES;
		page = model_alloc_pages(GFP_NOWAIT, 0, NUMA_NO_NODE);
		if (!page)
			break;
		t->foreign[t->nr_foreign++] = page;
	}
}

static void step(struct task *t)
{
	struct memory_notify mem = { .nr_pages = 1UL << MODEL_PUD_ORDER };
	struct kpkeys_pgtable_cache_stats stats;
	unsigned long pfn = rnd(t) % MODEL_NR_PAGES;

	model_ctx.hint = rnd(t) % MODEL_NR_PAGES;
	switch (rnd(t) % 14) {
	case 0:
	case 1:
		take(t, GFP_KERNEL);
		break;
	case 2:
		model_ctx.atomic = true;
		take(t, GFP_KERNEL);
		model_ctx.atomic = false;
		break;
	case 3:
		model_ctx.flags |= PF_MEMALLOC;
		take(t, GFP_KERNEL);
		model_ctx.flags &= ~PF_MEMALLOC;
		break;
	case 4:
	case 5:
	case 6:
		put(t);
		break;
	case 7:
		model_set_memory(pfn, 1 + rnd(t) % (MODEL_NR_PAGES - pfn));
		break;
	case 8:
		if (!kpkeys_split_reserve_fill(&t->reserve, rnd(t) % 6))
			kpkeys_split_reserve_return(&t->reserve);
		break;
	case 9:
		kpkeys_pgtable_cache_shrink(rnd(t) % 4 ? 1 : ULONG_MAX);
		break;
	case 10:
		model_run_work();
		break;
	case 11:
		kpkeys_pgtable_cache_stats(&stats);
		CHECK(stats.cached <= stats.taken);
		break;
	case 12:
		/* Take the rest of memory by single pages, or free all of it. */
		foreign(t);
		break;
	case 13:
		mem.start_pfn = model_pfn(round_down(pfn, 1UL << MODEL_PUD_ORDER));
		model.memory_notifier(NULL, MEM_GOING_OFFLINE, &mem);
		break;
	}
	CHECK(model_idle());
}

static void check(void)
{
	unsigned int i, j;

	check_begin();
	for (i = 0; i < NR_THREADS; i++) {
		for (j = 0; j < tasks[i].nr; j++)
			found(tasks[i].page[j], AT_HELD);
		for (j = 0; j < tasks[i].nr_foreign; j++)
			found(tasks[i].foreign[j], AT_HELD);
		found_reserve(&tasks[i].reserve, AT_HELD);
	}
	check_end();
}

/* Give back all free pages. Free memory is block-mapped again after that. */
static void start_over(void)
{
	unsigned int i;

	for (i = 0; i < NR_THREADS; i++) {
		while (tasks[i].nr_foreign)
			model_free_page(tasks[i].foreign[--tasks[i].nr_foreign]);
		while (tasks[i].nr) {
			struct page *page = tasks[i].page[--tasks[i].nr];

			page->table = false;
			CHECK(kpkeys_pgtable_cache_free(page));
		}
	}
	kpkeys_pgtable_cache_shrink(ULONG_MAX);
	for (i = 0; i < MODEL_NR_PUDS; i++)
		remap(i);
}

static void *run(void *arg)
{
	struct task *t = arg;
	unsigned long round;
	unsigned int i;

	memset(&model_ctx, 0, sizeof(model_ctx));
	model_ctx.rnd = t->rnd;
	model_ctx.cpu = t - tasks;
	for (round = 0; round < nr_rounds; round++) {
		for (i = 0; i < NR_STEPS; i++)
			step(t);
		if (pthread_barrier_wait(&all) == PTHREAD_BARRIER_SERIAL_THREAD) {
			check();
			start_over();
			check();
		}
		pthread_barrier_wait(&all);
	}

	return NULL;
}

int main(int argc, char **argv)
{
	unsigned int seed = argc > 1 ? atoi(argv[1]) : 1, i;
	struct kpkeys_pgtable_cache_stats stats;

	nr_rounds = argc > 2 ? atol(argv[2]) : 20;
	cache_reset(MODEL_NR_NODES);
	model.booting = true;
	CHECK(!kpkeys_pgtable_cache_init());
	model.booting = false;
	model.use_cache = true;
	kpkeys_pgtable_cache_late_init();
	model.reclaim = true;
	model.threads = true;
	for (i = 0; i < NR_FAIL; i++)
		model.fail_rate[i] = ALWAYS / 128;
	/* Each failure to reset a pkey costs memory. */
	model.fail_rate[FAIL_PKEY_BEFORE] = 1;
	model.fail_rate[FAIL_PKEY_SPLIT] = 1;
	model.fail_rate[FAIL_PKEY_PARTLY] = 1;

	pthread_barrier_init(&all, NULL, NR_THREADS);
	for (i = 0; i < NR_THREADS; i++) {
		INIT_LIST_HEAD(&tasks[i].reserve.pages);
		tasks[i].rnd = seed * 100 + i;
		CHECK(!pthread_create(&tasks[i].thread, NULL, run, &tasks[i]));
	}
	for (i = 0; i < NR_THREADS; i++)
		pthread_join(tasks[i].thread, NULL);
	check();
	kpkeys_pgtable_cache_stats(&stats);
	printf("ok threads seed %u: %u threads, %lu steps; splits by page tables:", seed,
	       NR_THREADS, nr_rounds * NR_STEPS * NR_THREADS);
	for (i = 0; i < ARRAY_SIZE(model_splits); i++)
		printf(" %u:%lu", i, model_splits[i]);
	printf("; %lu of %lu pages were lost to failures\n", stats.leaked, MODEL_NR_PAGES);

	return 0;
}
