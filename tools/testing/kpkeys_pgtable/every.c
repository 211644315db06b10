// SPDX-License-Identifier: GPL-2.0-only
/*
 * Try all sequences of a few operations on an empty cache, with all combinations of
 * a few failures of calls that can fail: every STEPS FAILURES
 *
 * A run asks choose() for each operation and each failure. The next one repeats it
 * up to the last choice that has an alternative, and takes that.
 */
#include "cache.h"
#include "harness.c"

#define MAX_CHOICES	512

static unsigned char chosen[MAX_CHOICES], choices[MAX_CHOICES];
static unsigned int nr_chosen, at;

static unsigned int choose(unsigned int nr)
{
	CHECK(at < MAX_CHOICES);
	if (at == nr_chosen) {
		chosen[at] = 0;
		choices[at] = nr;
		nr_chosen++;
	}
	CHECK(choices[at] == nr);

	return chosen[at++];
}

/* Is there another sequence? */
static bool next(void)
{
	while (nr_chosen && chosen[nr_chosen - 1] + 1 == choices[nr_chosen - 1])
		nr_chosen--;
	if (nr_chosen)
		chosen[nr_chosen - 1]++;
	at = 0;

	return nr_chosen;
}

static unsigned int failures;

static bool fails(enum model_fail what)
{
	if (!failures || !choose(2))
		return false;
	failures--;

	return true;
}

/* The state of memory when a sequence begins. */
static void begin(void)
{
	CHECK(start(1));
	/* Fragmented into single free pages, or with large chunks, too. */
	if (choose(2))
		fragment(0, MODEL_NR_PAGES, 3);
	model_ctx.atomic = true;
	model.quiet = true;
	while (op_alloc(GFP_ATOMIC, 1))
		;
	model.quiet = false;
	model_ctx.atomic = false;
	if (choose(2)) {
		while (held.nr > 2)
			op_free(0);
	}
	check();
}

static void one_step(void)
{
	model.failed = false;
	switch (choose(6)) {
	case 0:
		op_alloc(GFP_KERNEL, 1);
		break;
	case 1:
		op_alloc(GFP_PGTABLE_KERNEL, 20);
		break;
	case 2:
		op_free(0);
		break;
	case 3:
		op_shrink(ULONG_MAX);
		break;
	case 4:
		op_fill(4);
		break;
	case 5:
		model_run_work();
		break;
	}
	check();
}

int main(int argc, char **argv)
{
	unsigned int steps = argc > 1 ? atoi(argv[1]) : 2, i;
	unsigned int most = argc > 2 ? atoi(argv[2]) : 2;
	unsigned long runs = 0;

	do {
		begin();
		failures = most;
		model.fails = fails;
		for (i = 0; i < steps; i++)
			one_step();
		model.fails = NULL;
		finish();
		runs++;
	} while (next());
	cache_reset(1);
	printf("ok every sequence of %u steps with up to %u failures: %lu runs\n", steps, most,
	       runs);

	return 0;
}
