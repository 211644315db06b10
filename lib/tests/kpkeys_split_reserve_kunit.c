// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the split reserve: fill, take and return.
 */
#include <kunit/static_stub.h>
#include <kunit/test.h>

#include <linux/kpkeys_split_reserve.h>
#include <linux/mm.h>
#include <linux/pgalloc.h>
#include <linux/spinlock.h>

static unsigned int nr_listed(struct kpkeys_split_reserve *reserve)
{
	return list_count_nodes(&reserve->pages);
}

/* After n pages were filled, n takes succeed, with n different pages. */
static void kpkeys_split_reserve_test_fill_take(struct kunit *test)
{
	KPKEYS_SPLIT_RESERVE_ONSTACK(reserve);
	struct ptdesc *taken[5];
	int i, j;

	KUNIT_ASSERT_EQ(test, kpkeys_split_reserve_fill(&reserve, ARRAY_SIZE(taken)), 0);
	KUNIT_EXPECT_EQ(test, reserve.nr, ARRAY_SIZE(taken));
	for (i = 0; i < ARRAY_SIZE(taken); i++) {
		taken[i] = pagetable_alloc_split(&reserve);
		KUNIT_ASSERT_NOT_NULL(test, taken[i]);
		KUNIT_EXPECT_EQ(test, page_ref_count(ptdesc_page(taken[i])), 1);
		KUNIT_EXPECT_FALSE(test, PageTable(ptdesc_page(taken[i])));
		for (j = 0; j < i; j++)
			KUNIT_EXPECT_PTR_NE(test, taken[i], taken[j]);
	}
	KUNIT_EXPECT_EQ(test, reserve.nr, 0);
	KUNIT_EXPECT_TRUE(test, list_empty(&reserve.pages));
	for (i = 0; i < ARRAY_SIZE(taken); i++)
		pagetable_free(taken[i]);
}

/* A taken page becomes a table like one from pagetable_alloc(), and is freed like one. */
static void kpkeys_split_reserve_test_construct(struct kunit *test)
{
	KPKEYS_SPLIT_RESERVE_ONSTACK(reserve);
	struct ptdesc *ptdesc;

	KUNIT_ASSERT_EQ(test, kpkeys_split_reserve_fill(&reserve, 1), 0);
	ptdesc = pagetable_alloc_split(&reserve);
	KUNIT_ASSERT_NOT_NULL(test, ptdesc);
	KUNIT_EXPECT_TRUE(test, pagetable_pte_ctor(&init_mm, ptdesc));
	KUNIT_EXPECT_TRUE(test, PageTable(ptdesc_page(ptdesc)));
	pagetable_dtor_free(ptdesc);
}

/* Fill means "at least": pages in the reserve count, and none is lost. */
static void kpkeys_split_reserve_test_fill_again(struct kunit *test)
{
	KPKEYS_SPLIT_RESERVE_ONSTACK(reserve);

	KUNIT_EXPECT_EQ(test, kpkeys_split_reserve_fill(&reserve, 0), 0);
	KUNIT_EXPECT_EQ(test, reserve.nr, 0);
	KUNIT_EXPECT_EQ(test, kpkeys_split_reserve_fill(&reserve, 3), 0);
	KUNIT_EXPECT_EQ(test, kpkeys_split_reserve_fill(&reserve, 2), 0);
	KUNIT_EXPECT_EQ(test, reserve.nr, 3);
	KUNIT_EXPECT_EQ(test, kpkeys_split_reserve_fill(&reserve, 4), 0);
	KUNIT_EXPECT_EQ(test, reserve.nr, 4);
	KUNIT_EXPECT_EQ(test, nr_listed(&reserve), 4);
}

/* Taking from an empty reserve warns, and gets no page from elsewhere. */
static void kpkeys_split_reserve_test_empty(struct kunit *test)
{
	KPKEYS_SPLIT_RESERVE_ONSTACK(reserve);

	kunit_warning_suppress(test) {
		KUNIT_EXPECT_NULL(test, pagetable_alloc_split(&reserve));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	KUNIT_EXPECT_EQ(test, reserve.nr, 0);
}

/* A page can be taken where sleeping is not allowed. */
static void kpkeys_split_reserve_test_take_atomic(struct kunit *test)
{
	KPKEYS_SPLIT_RESERVE_ONSTACK(reserve);
	static DEFINE_SPINLOCK(lock);
	struct ptdesc *ptdesc;
	unsigned long flags;

	KUNIT_ASSERT_EQ(test, kpkeys_split_reserve_fill(&reserve, 1), 0);
	spin_lock_irqsave(&lock, flags);
	ptdesc = pagetable_alloc_split(&reserve);
	spin_unlock_irqrestore(&lock, flags);
	KUNIT_ASSERT_NOT_NULL(test, ptdesc);
	pagetable_free(ptdesc);
}

static unsigned int nr_freed;
static struct ptdesc *last_freed;

static void free_and_count(struct ptdesc *ptdesc)
{
	nr_freed++;
	last_freed = ptdesc;
	pagetable_free(ptdesc);
}

/* Return frees every page. The reserve can be filled again. */
static void kpkeys_split_reserve_test_return(struct kunit *test)
{
	struct kpkeys_split_reserve reserve = KPKEYS_SPLIT_RESERVE_INIT(reserve);

	kunit_activate_static_stub(test, kpkeys_split_reserve_free_one, free_and_count);
	nr_freed = 0;
	KUNIT_ASSERT_EQ(test, kpkeys_split_reserve_fill(&reserve, 2), 0);
	kpkeys_split_reserve_return(&reserve);
	KUNIT_EXPECT_EQ(test, nr_freed, 2);
	KUNIT_EXPECT_EQ(test, reserve.nr, 0);
	KUNIT_EXPECT_TRUE(test, list_empty(&reserve.pages));

	KUNIT_EXPECT_EQ(test, kpkeys_split_reserve_fill(&reserve, 1), 0);
	kpkeys_split_reserve_return(&reserve);
	kpkeys_split_reserve_return(&reserve);
	KUNIT_EXPECT_EQ(test, nr_freed, 3);
}

/* Leftovers go back at the end of the scope. */
static void kpkeys_split_reserve_test_scope(struct kunit *test)
{
	struct ptdesc *ptdesc = pagetable_alloc(GFP_KERNEL, 0);

	KUNIT_ASSERT_NOT_NULL(test, ptdesc);
	kunit_activate_static_stub(test, kpkeys_split_reserve_free_one, free_and_count);
	nr_freed = 0;
	{
		KPKEYS_SPLIT_RESERVE_ONSTACK(reserve);

		kpkeys_split_reserve_add(&reserve, ptdesc);
	}
	KUNIT_EXPECT_EQ(test, nr_freed, 1);
	KUNIT_EXPECT_PTR_EQ(test, last_freed, ptdesc);
}

static unsigned int allocations_left;

static struct ptdesc *alloc_or_fail(void)
{
	if (!allocations_left)
		return NULL;
	allocations_left--;

	return pagetable_alloc(GFP_KERNEL, 0);
}

/* A fill that fails does not warn, and the reserve keeps the pages it got. */
static void kpkeys_split_reserve_test_fill_fails(struct kunit *test)
{
	unsigned int n;

	kunit_activate_static_stub(test, kpkeys_split_reserve_alloc_one, alloc_or_fail);
	for (n = 0; n < 4; n++) {
		KPKEYS_SPLIT_RESERVE_ONSTACK(reserve);

		allocations_left = n;
		KUNIT_EXPECT_EQ(test, kpkeys_split_reserve_fill(&reserve, 4), -ENOMEM);
		KUNIT_EXPECT_EQ(test, reserve.nr, n);
		KUNIT_EXPECT_EQ(test, nr_listed(&reserve), n);
		allocations_left = 4 - n;
		KUNIT_EXPECT_EQ(test, kpkeys_split_reserve_fill(&reserve, 4), 0);
	}
}

/* A reserve has no fixed size. */
static void kpkeys_split_reserve_test_large(struct kunit *test)
{
	KPKEYS_SPLIT_RESERVE_ONSTACK(reserve);
	const unsigned int nr = 600;
	unsigned int n = 0;

	KUNIT_ASSERT_EQ(test, kpkeys_split_reserve_fill(&reserve, nr), 0);
	while (reserve.nr) {
		struct ptdesc *ptdesc = pagetable_alloc_split(&reserve);

		KUNIT_ASSERT_NOT_NULL(test, ptdesc);
		pagetable_free(ptdesc);
		n++;
	}
	KUNIT_EXPECT_EQ(test, n, nr);
}

static struct kunit_case kpkeys_split_reserve_test_cases[] = {
	KUNIT_CASE(kpkeys_split_reserve_test_fill_take),
	KUNIT_CASE(kpkeys_split_reserve_test_construct),
	KUNIT_CASE(kpkeys_split_reserve_test_fill_again),
	KUNIT_CASE(kpkeys_split_reserve_test_empty),
	KUNIT_CASE(kpkeys_split_reserve_test_take_atomic),
	KUNIT_CASE(kpkeys_split_reserve_test_return),
	KUNIT_CASE(kpkeys_split_reserve_test_scope),
	KUNIT_CASE(kpkeys_split_reserve_test_fill_fails),
	KUNIT_CASE(kpkeys_split_reserve_test_large),
	{}
};

static struct kunit_suite kpkeys_split_reserve_test_suite = {
	.name = "kpkeys_split_reserve",
	.test_cases = kpkeys_split_reserve_test_cases,
};

kunit_test_suite(kpkeys_split_reserve_test_suite);

MODULE_DESCRIPTION("KUnit tests of the split reserve");
MODULE_LICENSE("GPL");
