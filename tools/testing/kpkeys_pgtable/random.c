// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random sequences: random SEED STEPS
 */
#include "cache.h"
#include "harness.c"

int main(int argc, char **argv)
{
	unsigned int seed = argc > 1 ? atoi(argv[1]) : 1;
	unsigned long steps = argc > 2 ? atol(argv[2]) : 100000, i;

	srandom(seed);
	for (i = 0; i < steps; i++) {
		if (i % 1000 == 0) {
			if (i)
				finish();
			CHECK(start(1 + random() % MODEL_NR_NODES));
			/* This takes most of the time. */
			if (i % 20000 == 0)
				model.window_hook = check_window;
		}
		step(random() >> 8, random() >> 8);
	}
	finish();
	cache_reset(1);
	printf("ok random seed %u: %lu steps; splits by page tables:", seed, steps);
	for (i = 0; i < ARRAY_SIZE(model_splits); i++)
		printf(" %lu:%lu", i, model_splits[i]);
	printf("\n");

	return 0;
}
