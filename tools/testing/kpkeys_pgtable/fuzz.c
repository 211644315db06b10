// SPDX-License-Identifier: GPL-2.0-only
/*
 * Entry point for libFuzzer. Two bytes are a step, see harness.c.
 */
#include "cache.h"
#include "harness.c"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	size_t i;

	CHECK(start(1 + (size && data[0] & 0x80)));
	for (i = 0; i + 1 < size; i += 2)
		step(data[i], data[i + 1]);
	finish();

	return 0;
}
