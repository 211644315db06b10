// SPDX-License-Identifier: GPL-2.0-only
/*
 * For CBMC. prove_fill() starts with any reserve within the bounds of the model, fills
 * it while any of the calls that can fail may fail, and asserts what its kernel-doc
 * promises.
 *
 * CBMC follows paths one by one (--paths), so that all pointers are constants. Paths
 * begin at any().
 *
 * Nothing is proved about the cache. Its state is in pages that are found through
 * other pages, which are arrays of bytes to CBMC. The other programs test it.
 */
#include "shim.h"

bool nondet_bool(void);

#include "model.c"
#include RESERVE_C

#define assert_that(cond, what)	__CPROVER_assert(cond, what)

/* Return each of 0 to @max, on a path of its own. */
static unsigned int any(unsigned int max)
{
	unsigned int i;

	for (i = 0; i < max && nondet_bool(); i++)
		;

	return i;
}

#define NR_FREE		(MODEL_NR_PAGES / 2)

/* The allocation that fails, if not zero. */
static unsigned int fill_fails_at;

bool model_fails(enum model_fail what)
{
	return what == FAIL_ALLOC_PAGES && fill_fails_at && !--fill_fails_at;
}

/* A page of the second half, which is in use. */
static struct page *take_page_away(unsigned int i)
{
	struct page *page = &mem_map[NR_FREE + i];

	model.buddy[NR_FREE + i] = false;
	page->refcount = 1;
	page->owner = true;

	return page;
}

/* After a successful fill of n, n takes succeed. A failed fill loses no page. */
void prove_fill(void)
{
	struct kpkeys_split_reserve reserve = KPKEYS_SPLIT_RESERVE_INIT(reserve);
	unsigned int n = any(4), there = any(2), fail = any(5), i;
	struct page *page;
	int ret;

	model_reset(1);
	for (i = 0; i < there; i++)
		kpkeys_split_reserve_add(&reserve, take_page_away(i));
	fill_fails_at = fail;
	ret = kpkeys_split_reserve_fill(&reserve, n);
	assert_that(!ret == (reserve.nr >= n), "fill keeps its promise");
	if (ret)
		assert_that(reserve.nr == there + fail - 1, "a failed fill keeps all");
	for (i = 0; i < n && !ret; i++) {
		page = pagetable_alloc_split(&reserve);
		assert_that(page, "a take after a fill succeeds");
		assert_that(page->refcount == 1, "what was taken is nobody else's");
		page->refcount = 2;
	}
	kpkeys_split_reserve_return(&reserve);
	assert_that(!reserve.nr && list_empty(&reserve.pages), "nothing is left");
	for (i = 0; i < MODEL_NR_PAGES; i++)
		assert_that(model.buddy[i] == !mem_map[i].refcount, "all others are back");
}
