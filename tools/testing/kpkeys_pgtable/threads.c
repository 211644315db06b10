// SPDX-License-Identifier: GPL-2.0-only
/*
 * Several threads at once, for ThreadSanitizer: threads SEED ROUNDS
 *
 * All of them stop at times, as for stop_machine(), and the pages are checked.
 */
#include "cache.h"

#define NR_THREADS	4
#define MAX_HELD	200
#define NR_STEPS	2000		/* between two checks */

static struct task {
	struct page *page[MAX_HELD];
	unsigned int nr;
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

static void step(struct task *t)
{
	struct kpkeys_pgtable_cache_stats stats;
	unsigned long pfn = rnd(t) % MODEL_NR_PAGES;

	model_ctx.hint = rnd(t) % MODEL_NR_PAGES;
	switch (rnd(t) % 12) {
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
	}
	CHECK(!model_ctx.nr_spin && !model_ctx.refill_mutex && !model_ctx.split_lock);
}

static void check(void)
{
	unsigned int i, j;

	check_begin();
	for (i = 0; i < NR_THREADS; i++) {
		for (j = 0; j < tasks[i].nr; j++)
			found(tasks[i].page[j], HELD);
		found_reserve(&tasks[i].reserve, HELD);
	}
	check_end();
}

static void *run(void *arg)
{
	struct task *t = arg;
	unsigned long round;
	unsigned int i;

	memset(&model_ctx, 0, sizeof(model_ctx));
	model_ctx.rnd = t->rnd;
	for (round = 0; round < nr_rounds; round++) {
		for (i = 0; i < NR_STEPS; i++)
			step(t);
		if (pthread_barrier_wait(&all) == PTHREAD_BARRIER_SERIAL_THREAD) {
			check();
			for (i = 0; i < MODEL_NR_PAGES >> MODEL_PUD_ORDER; i++)
				model_remap(i);
			check();
		}
		pthread_barrier_wait(&all);
	}

	return NULL;
}

int main(int argc, char **argv)
{
	unsigned int seed = argc > 1 ? atoi(argv[1]) : 1, i;

	nr_rounds = argc > 2 ? atol(argv[2]) : 20;
	cache_reset();
	model.booting = true;
	CHECK(!kpkeys_pgtable_cache_init());
	model.booting = false;
	model.use_cache = true;
	kpkeys_pgtable_cache_late_init();
	model.reclaim = true;
	model.threads = true;
	for (i = 0; i < NR_FAIL; i++)
		model.fail_rate[i] = 2;
	/* A pkey that cannot be restored costs a chunk each time. */
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
	printf("ok threads seed %u: %u threads, %lu steps; splits by page tables:", seed,
	       NR_THREADS, nr_rounds * NR_STEPS * NR_THREADS);
	for (i = 0; i < ARRAY_SIZE(model_splits); i++)
		printf(" %u:%lu", i, model_splits[i]);
	printf("\n");

	return 0;
}
