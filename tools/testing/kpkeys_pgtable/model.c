// SPDX-License-Identifier: GPL-2.0-only
/*
 * The world around the cache and the reserve, see model.h.
 *
 * The direct map follows arch/arm64/mm/mmu.c: demand_at() is split_demand(),
 * split_at() is split_kernel_leaf_mapping_locked(), set_range() the rest of
 * set_memory_pkey_reserve().
 */
#include <stdarg.h>

#include "shim.h"

struct page mem_map[MODEL_NR_PAGES];
struct model model;
unsigned long model_splits[5];

#ifdef __CPROVER__
struct model_ctx model_ctx;
#define ATOMIC_LOAD(p)		(*(p))
#define ATOMIC_STORE(p, v)	(*(p) = (v))
#else
__thread struct model_ctx model_ctx;
/* Read without a lock, as in the kernel. */
#define ATOMIC_LOAD(p)		__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define ATOMIC_STORE(p, v)	__atomic_store_n(p, v, __ATOMIC_RELEASE)

void model_bug(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
	abort();
}
#endif

void model_warn(const char *what, const char *file, int line)
{
	if (model.quiet) {
		model.nr_warnings++;
		return;
	}
#ifdef __CPROVER__
	__CPROVER_assert(0, "no warning");
#else
	fprintf(stderr, "%s:%d: warning: %s\n", file, line, what);
	abort();
#endif
}

int model_printf(const char *fmt, ...)
{
#ifdef __CPROVER__
	return 0;
#else
	va_list args;
	char line[200];
	int ret;

	va_start(args, fmt);
	ret = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);

	return ret;
#endif
}

/*
 * Locks. The order is refill mutex, split lock; the lock of the cache is a leaf,
 * and not held together with the split lock.
 */
static DEFINE_MUTEX(pgtable_split_lock);

static void acquired(struct model_lock *l)
{
	ATOMIC_STORE(&l->owner, &model_ctx);
}

static void releasing(struct model_lock *l)
{
	CHECK(ATOMIC_LOAD(&l->owner) == &model_ctx);
	ATOMIC_STORE(&l->owner, (struct model_ctx *)NULL);
}

#ifdef __CPROVER__
#define LOCK(l)		do { } while (0)
#define UNLOCK(l)	do { } while (0)
#define TRYLOCK(l)	true
#else
#define LOCK(l)		pthread_mutex_lock(&(l)->lock)
#define UNLOCK(l)	pthread_mutex_unlock(&(l)->lock)
#define TRYLOCK(l)	(!pthread_mutex_trylock(&(l)->lock))
#endif

void model_spin_lock(struct model_lock *l)
{
	CHECK(!model_ctx.nr_spin);
	CHECK(!model_ctx.split_lock);
	LOCK(l);
	acquired(l);
	model_ctx.nr_spin++;
}

void model_spin_unlock(struct model_lock *l)
{
	model_ctx.nr_spin--;
	releasing(l);
	UNLOCK(l);
}

static void mutex_acquired(struct model_lock *l)
{
	acquired(l);
	if (l == &pgtable_split_lock)
		model_ctx.split_lock = true;
	else
		model_ctx.refill_mutex = true;
}

void model_mutex_lock(struct model_lock *l)
{
	model_might_sleep();
	CHECK(!model_ctx.split_lock);
	CHECK(!model_ctx.refill_mutex || l == &pgtable_split_lock);
	LOCK(l);
	mutex_acquired(l);
}

bool model_mutex_trylock(struct model_lock *l)
{
	CHECK(!model_ctx.nr_spin);
	CHECK(ATOMIC_LOAD(&l->owner) != &model_ctx);
	if (!TRYLOCK(l))
		return false;
	mutex_acquired(l);

	return true;
}

void model_mutex_unlock(struct model_lock *l)
{
	if (l == &pgtable_split_lock)
		model_ctx.split_lock = false;
	else
		model_ctx.refill_mutex = false;
	releasing(l);
	UNLOCK(l);
}

void model_assert_held(struct model_lock *l)
{
	CHECK(ATOMIC_LOAD(&l->owner) == &model_ctx);
}

void model_assert_not_held(struct model_lock *l)
{
	CHECK(ATOMIC_LOAD(&l->owner) != &model_ctx);
}

void model_might_sleep(void)
{
	CHECK(!model_ctx.nr_spin);
	CHECK(!model_ctx.atomic);
}

/* Failures: the n-th call, or now and then. */
#ifndef __CPROVER__
bool model_fails(enum model_fail what)
{
	if (model.fail_rate[what]) {
		model_ctx.rnd = model_ctx.rnd * 1103515245 + 12345;
		return (model_ctx.rnd >> 16) % 256 < model.fail_rate[what];
	}
	if (!model.fail_at[what] || --model.fail_at[what])
		return false;
	model.failed = true;

	return true;
}
#endif

/* The page allocator, with a lock of its own that nobody sees. */
static pthread_mutex_t buddy_lock = PTHREAD_MUTEX_INITIALIZER;

#ifdef __CPROVER__
#define buddy_lock()	do { } while (0)
#define buddy_unlock()	do { } while (0)
#else
#define buddy_lock()	pthread_mutex_lock(&buddy_lock)
#define buddy_unlock()	pthread_mutex_unlock(&buddy_lock)
#endif

void *model_address(const struct page *page)
{
	return (void *)(MODEL_BASE + ((unsigned long)(page - mem_map) << PAGE_SHIFT));
}

struct page *model_page(const void *addr)
{
	return &mem_map[((unsigned long)addr - MODEL_BASE) >> PAGE_SHIFT];
}

/* Nothing is allocated under a lock, and nobody sleeps who must not. */
static void check_may_alloc(gfp_t gfp)
{
	CHECK(!model_ctx.nr_spin);
	CHECK(!model_ctx.refill_mutex);
	CHECK(!model_ctx.split_lock);
	if (gfpflags_allow_blocking(gfp))
		model_might_sleep();
}

#ifdef __CPROVER__
static void reclaim(void)
{
}
#else
/* Direct reclaim: the shrinker, and one that changes the direct map. */
static void reclaim(void)
{
	struct shrink_control sc = { .nr_to_scan = 128 };
	unsigned int flags = model_ctx.flags;

	if (!model.reclaim || flags & PF_MEMALLOC)
		return;
	model_ctx.flags |= PF_MEMALLOC;
	if (model.shrinker) {
		unsigned long nr = model.shrinker->count_objects(model.shrinker, &sc);

		if (nr && nr != SHRINK_EMPTY)
			model.shrinker->scan_objects(model.shrinker, &sc);
	}
	(void)model_set_memory((model_ctx.hint + 3) % MODEL_NR_PAGES, 1);
	model_ctx.flags = flags;
}
#endif

static bool is_free(unsigned long pfn, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++) {
		if (!model.buddy[pfn + i] ||
		    (pfn + i >= model.isolated_start && pfn + i < model.isolated_end))
			return false;
	}

	return true;
}

static bool find_free(unsigned long nr, unsigned long *pfn)
{
	unsigned long n;

#ifdef __CPROVER__
	/* The caller says where. */
	*pfn = model_ctx.hint & ~(nr - 1);
	if (model.use_cache)
		return is_free(*pfn, nr);
#endif

	for (n = 0; n < MODEL_NR_PAGES; n += nr) {
		*pfn = ((model_ctx.hint & ~(nr - 1)) + n) % MODEL_NR_PAGES;
		if (is_free(*pfn, nr))
			return true;
	}

	return false;
}

struct page *model_alloc_pages(gfp_t gfp, unsigned int order)
{
	unsigned long nr = 1UL << order, i, pfn = 0;
	bool found;

	check_may_alloc(gfp);
	if (gfpflags_allow_blocking(gfp))
		reclaim();
	if (model_fails(FAIL_ALLOC_PAGES))
		return NULL;

	buddy_lock();
	found = find_free(nr, &pfn);
	for (i = 0; i < nr && found; i++) {
		model.buddy[pfn + i] = false;
		/* What the last user left behind. */
		mem_map[pfn + i].lru.next = NULL;
		mem_map[pfn + i].lru.prev = NULL;
	}
	if (found)
		mem_map[pfn].refcount = 1;
	else
		ATOMIC_STORE(&model.failed, true);
	buddy_unlock();

	return found ? &mem_map[pfn] : NULL;
}

void model_split_page(struct page *page, unsigned int order)
{
	unsigned int i;

	CHECK(page->refcount == 1);
	for (i = 1; i < 1U << order; i++) {
		CHECK(!page[i].refcount);
		page[i].refcount = 1;
	}
}

void model_free_page(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);

	CHECK(!model_ctx.split_lock);
	CHECK(page->refcount == 1);
	CHECK(!page->table);
	buddy_lock();
	CHECK(!model.buddy[pfn]);
	CHECK(ATOMIC_LOAD(&model.pkey[pfn]) == KPKEYS_PKEY_DEFAULT);
	page->refcount = 0;
	page->private = 0;
	page->offline = false;
	model.buddy[pfn] = true;
	buddy_unlock();
}

void model_free_pages(struct page *page, unsigned int order)
{
	unsigned int i;

	for (i = 1; i < 1U << order; i++) {
		CHECK(!page[i].refcount);
		page[i].refcount = 1;
	}
	for (i = 0; i < 1U << order; i++)
		model_free_page(page + i);
}

void *model_kzalloc(size_t size, gfp_t gfp)
{
	check_may_alloc(gfp);
	if (gfpflags_allow_blocking(gfp))
		reclaim();
	if (model_fails(FAIL_KZALLOC))
		return NULL;
	__atomic_fetch_add(&model.nr_objects, 1, __ATOMIC_RELAXED);

	return calloc(1, size);
}

void model_kfree(void *p)
{
	if (p)
		__atomic_fetch_sub(&model.nr_objects, 1, __ATOMIC_RELAXED);
#ifndef __CPROVER__
	/* CBMC's own free() would be two paths, each time. */
	free(p);
#endif
}

/* The direct map */
struct split {
	bool pmd_table;
	bool pte_table;
	bool change;
};

static bool aligned(unsigned long pfn, unsigned int order)
{
	return !(pfn & ((1UL << order) - 1));
}

static struct split demand_at(unsigned long pfn)
{
	struct split demand = { };

	if (aligned(pfn, MODEL_PUD_ORDER))
		return demand;
	if (!ATOMIC_LOAD(&model.pmd_table[pfn >> MODEL_PUD_ORDER])) {
		demand.change = true;
		demand.pmd_table = true;
		demand.pte_table = !aligned(pfn, MODEL_PMD_ORDER);
		return demand;
	}
	if (aligned(pfn, MODEL_CONT_PMD_ORDER))
		return demand;
	if (!ATOMIC_LOAD(&model.pte_table[pfn >> MODEL_PMD_ORDER])) {
		demand.pte_table = !aligned(pfn, MODEL_PMD_ORDER);
		demand.change = demand.pte_table ||
				ATOMIC_LOAD(&model.pmd_cont[pfn >> MODEL_CONT_PMD_ORDER]);
		return demand;
	}
	if (aligned(pfn, MODEL_CONT_ORDER))
		return demand;
	demand.change = ATOMIC_LOAD(&model.pte_cont[pfn >> MODEL_CONT_ORDER]);

	return demand;
}

/* See split_boundaries(): a single page is split off at its least aligned end. */
static int boundaries(unsigned long pfn, unsigned int nr, unsigned long boundary[2])
{
	boundary[0] = pfn;
	boundary[1] = pfn + nr;
	if (nr == 1) {
		if (!(pfn & 1))
			boundary[0] = pfn + 1;
		return 1;
	}

	return 2;
}

static unsigned int range_demand(unsigned long pfn, unsigned int nr, bool *change)
{
	struct split first, second = { };
	unsigned long b[2];
	unsigned int demand;

	if (boundaries(pfn, nr, b) == 2)
		second = demand_at(b[1]);
	first = demand_at(b[0]);
	*change = first.change || second.change;
	demand = first.pmd_table + first.pte_table + second.pmd_table + second.pte_table;
	if (first.pmd_table && second.pmd_table &&
	    b[0] >> MODEL_PUD_ORDER == b[1] >> MODEL_PUD_ORDER)
		demand--;
	if (first.pte_table && second.pte_table &&
	    b[0] >> MODEL_PMD_ORDER == b[1] >> MODEL_PMD_ORDER)
		demand--;

	return demand;
}

static struct page *new_table(struct kpkeys_split_reserve *reserve)
{
	struct page *page = ptdesc_page(pagetable_alloc_split(reserve));

	/* The demand was covered before the lock was taken. */
	CHECK(page);
	CHECK(!page->table && !page->offline);
	CHECK(page->refcount == 1);
	page->table = true;

	return page;
}

static void split_at(unsigned long pfn, struct kpkeys_split_reserve *reserve)
{
	unsigned long pud = pfn >> MODEL_PUD_ORDER, pmd = pfn >> MODEL_PMD_ORDER;
	unsigned long i, nr;
	struct page *table;

	model_assert_held(&pgtable_split_lock);

	if (aligned(pfn, MODEL_PUD_ORDER))
		return;
	if (!model.pmd_table[pud]) {
		table = new_table(reserve);
		nr = 1UL << (MODEL_PUD_ORDER - MODEL_CONT_PMD_ORDER);
		for (i = 0; i < nr; i++)
			ATOMIC_STORE(&model.pmd_cont[pud * nr + i], true);
		ATOMIC_STORE(&model.pmd_table[pud], table);
	}
	if (aligned(pfn, MODEL_CONT_PMD_ORDER))
		return;
	if (!model.pte_table[pmd]) {
		ATOMIC_STORE(&model.pmd_cont[pfn >> MODEL_CONT_PMD_ORDER], false);
		if (aligned(pfn, MODEL_PMD_ORDER))
			return;
		table = new_table(reserve);
		nr = 1UL << (MODEL_PMD_ORDER - MODEL_CONT_ORDER);
		for (i = 0; i < nr; i++)
			ATOMIC_STORE(&model.pte_cont[pmd * nr + i], true);
		ATOMIC_STORE(&model.pte_table[pmd], table);
	}
	if (!aligned(pfn, MODEL_CONT_ORDER))
		ATOMIC_STORE(&model.pte_cont[pfn >> MODEL_CONT_ORDER], false);
}

static void split_range(unsigned long pfn, unsigned int nr, unsigned int demand, bool exact,
			struct kpkeys_split_reserve *reserve)
{
	unsigned int before = reserve->nr;
	unsigned long b[2];
	int i, n;

	model_mutex_lock(&pgtable_split_lock);
	n = boundaries(pfn, nr, b);
	for (i = 0; i < n; i++)
		split_at(b[i], reserve);
	model_mutex_unlock(&pgtable_split_lock);
	/* Exact, unless others have split here since it was asked for. */
	CHECK(before - reserve->nr <= demand);
	CHECK(before - reserve->nr == demand || !exact);
	__atomic_fetch_add(&model_splits[before - reserve->nr], 1, __ATOMIC_RELAXED);
}

/* The number of pages that are mapped together with this one, as a power of two. */
static unsigned int leaf_order(unsigned long pfn)
{
	if (!ATOMIC_LOAD(&model.pmd_table[pfn >> MODEL_PUD_ORDER]))
		return MODEL_PUD_ORDER;
	if (!ATOMIC_LOAD(&model.pte_table[pfn >> MODEL_PMD_ORDER]))
		return ATOMIC_LOAD(&model.pmd_cont[pfn >> MODEL_CONT_PMD_ORDER]) ?
		       MODEL_CONT_PMD_ORDER : MODEL_PMD_ORDER;

	return ATOMIC_LOAD(&model.pte_cont[pfn >> MODEL_CONT_ORDER]) ? MODEL_CONT_ORDER : 0;
}

static void set_range(unsigned long pfn, unsigned int nr, int pkey)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		unsigned int order = leaf_order(pfn + i);
		unsigned long first = (pfn + i) >> order << order;

		/* A leaf that is changed maps nothing else. */
		CHECK(first >= pfn && first + (1UL << order) <= pfn + nr);
		ATOMIC_STORE(&model.pkey[pfn + i], pkey);
	}
}

unsigned int model_split_demand(const void *addr, unsigned int nr)
{
	bool change;

	return range_demand(page_to_pfn(model_page(addr)), nr, &change);
}

/* set_memory_pkey_reserve() */
int model_set_pkey(unsigned long addr, int nr, int pkey, struct kpkeys_split_reserve *reserve)
{
	unsigned long pfn = page_to_pfn(model_page((void *)addr)), i;
	unsigned int demand;
	bool change;

	model_might_sleep();
	CHECK(nr > 0 && pfn + nr <= MODEL_NR_PAGES);
	for (i = 0; i < nr; i++)
		CHECK(!model.buddy[pfn + i]);
	if (model_fails(FAIL_PKEY_BEFORE))
		return -EINVAL;
	demand = range_demand(pfn, nr, &change);
	if (change) {
		if (!arch_kpkeys_can_split())
			return -EBUSY;
		if (reserve->nr < demand)
			return -ENOMEM;
		split_range(pfn, nr, demand, !model.threads, reserve);
	}
	if (model_fails(FAIL_PKEY_SPLIT))
		return -EINVAL;
	if (model_fails(FAIL_PKEY_PARTLY)) {
		set_range(pfn, 1U << leaf_order(pfn), pkey);
		return -EINVAL;
	}
	set_range(pfn, nr, pkey);

	return 0;
}

/* Somebody else changes the direct map, and brings the page tables for it. */
int model_set_memory(unsigned long pfn, unsigned int nr)
{
	struct kpkeys_split_reserve reserve = KPKEYS_SPLIT_RESERVE_INIT(reserve);
	unsigned int demand;
	bool change;
	int ret;

	demand = range_demand(pfn, nr, &change);
	if (!change)
		return 0;
	if (!arch_kpkeys_can_split())
		return -EBUSY;
	ret = kpkeys_split_reserve_fill(&reserve, demand);
	if (!ret)
		split_range(pfn, nr, demand, false, &reserve);
	kpkeys_split_reserve_return(&reserve);
	CHECK(list_empty(&reserve.pages));

	return ret;
}

static void free_table(struct page **table)
{
	struct page *page = *table;

	if (!page)
		return;
	*table = NULL;
	page->table = false;
	pagetable_free(page_ptdesc(page));
}

/*
 * Memory of a PUD goes offline and comes back, mapped as a block: without that,
 * all of it is mapped by pages soon, and nothing is split any more. The caller
 * sees to it that nobody else splits.
 */
bool model_remap(unsigned long pud)
{
	unsigned long pmds = 1UL << (MODEL_PUD_ORDER - MODEL_PMD_ORDER);
	unsigned long nr = 1UL << MODEL_PUD_ORDER, i;

	for (i = 0; i < nr; i++) {
		if (!model.buddy[pud * nr + i])
			return false;
	}
	if (!model.pmd_table[pud])
		return false;
	for (i = 0; i < pmds; i++)
		free_table(&model.pte_table[pud * pmds + i]);
	free_table(&model.pmd_table[pud]);

	return true;
}

/* What mm/kpkeys_hardened_pgtables.c makes of pagetable_alloc() */
#ifdef __CPROVER__
struct ptdesc *pagetable_alloc(gfp_t gfp, unsigned int order)
{
	return page_ptdesc(model_alloc_pages(gfp, 0));
}

void pagetable_free(struct ptdesc *ptdesc)
{
	model_free_page(ptdesc_page(ptdesc));
}
#else
struct ptdesc *pagetable_alloc(gfp_t gfp, unsigned int order)
{
	struct page *page;

	CHECK(!order);
	CHECK(!model_ctx.refill_mutex && !model_ctx.split_lock && !model_ctx.nr_spin);
	page = model.use_cache ? kpkeys_pgtable_cache_alloc(gfp) : model_alloc_pages(gfp, 0);

	return page ? page_ptdesc(page) : NULL;
}

void pagetable_free(struct ptdesc *ptdesc)
{
	struct page *page = ptdesc_page(ptdesc);

	if (model.use_cache && kpkeys_pgtable_cache_free(page))
		return;
	model_free_page(page);
}
#endif

/* What is registered at boot */
bool model_queue_work(void (*fn)(struct work_struct *work), struct work_struct *work)
{
	ATOMIC_STORE(&model.work_fn, fn);
	ATOMIC_STORE(&model.work, work);
	ATOMIC_STORE(&model.work_pending, true);

	return true;
}

void model_run_work(void)
{
	if (!ATOMIC_LOAD(&model.work_pending))
		return;
	ATOMIC_STORE(&model.work_pending, false);
	ATOMIC_LOAD(&model.work_fn)(ATOMIC_LOAD(&model.work));
}

struct shrinker *model_shrinker_alloc(unsigned int flags)
{
	static struct shrinker shrinker;

	(void)flags;
	model.shrinker = &shrinker;

	return &shrinker;
}

int model_memory_notifier(int (*fn)(struct notifier_block *nb, unsigned long action, void *arg))
{
	model.memory_notifier = fn;

	return 0;
}

void model_reset(void)
{
	unsigned long i;

#ifndef __CPROVER__
	memset(mem_map, 0, sizeof(mem_map));
	memset(&model, 0, sizeof(model));
	memset(&model_ctx, 0, sizeof(model_ctx));
#endif
	for (i = 0; i < MODEL_NR_PAGES; i++)
		model.buddy[i] = true;
}
