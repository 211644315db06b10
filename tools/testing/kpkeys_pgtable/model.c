// SPDX-License-Identifier: GPL-2.0-only
/*
 * The environment of the cache and of the reserve, see model.h.
 *
 * The direct map follows arch/arm64/mm/mmu.c: demand_at() is split_demand(),
 * split_at() is split_kernel_leaf_mapping_locked(), set_range() the rest of
 * set_memory_pkey_reserve().
 */
#include <stdarg.h>

#include "shim.h"

struct page mem_map[MODEL_NR_PAGES];
char model_memory[MODEL_NR_PAGES][PAGE_SIZE] __attribute__((__aligned__(PAGE_SIZE)));
struct model model;
unsigned long model_splits[5];

#ifdef __CPROVER__
struct model_ctx model_ctx;
#else
__thread struct model_ctx model_ctx;

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
	int ret;

	va_start(args, fmt);
	ret = vsnprintf(model.shown + model.nr_shown, sizeof(model.shown) - model.nr_shown,
			fmt, args);
	va_end(args);
	CHECK(ret >= 0 && model.nr_shown + ret < sizeof(model.shown));
	model.nr_shown += ret;

	return ret;
#endif
}

/*
 * Locks. The order is that of enum model_lock_kind: refill mutex of a node, refill
 * mutex, split lock. The spinlocks are leaves, and taken with interrupts off.
 */
static struct model_lock pgtable_split_lock = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.kind = LOCK_SPLIT,
};

void model_lock_init(struct model_lock *l, enum model_lock_kind kind)
{
	*l = (struct model_lock){ .lock = PTHREAD_MUTEX_INITIALIZER, .kind = kind };
}

static void acquired(struct model_lock *l)
{
	MODEL_STORE(&l->owner, &model_ctx);
}

static void releasing(struct model_lock *l)
{
	CHECK(MODEL_LOAD(&l->owner) == &model_ctx);
	MODEL_STORE(&l->owner, (struct model_ctx *)NULL);
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
	CHECK(!model_ctx.held[LOCK_SPLIT]);
	CHECK(model_ctx.irqs_off);
	CHECK(l->kind == LOCK_SPIN);
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

void model_mutex_lock(struct model_lock *l)
{
	int kind;

	model_might_sleep();
	CHECK(l->kind);
	for (kind = l->kind; kind < NR_LOCKS; kind++)
		CHECK(!model_ctx.held[kind]);
	LOCK(l);
	acquired(l);
	model_ctx.held[l->kind] = true;
}

bool model_mutex_trylock(struct model_lock *l)
{
	CHECK(!model_ctx.nr_spin);
	CHECK(MODEL_LOAD(&l->owner) != &model_ctx);
	if (!TRYLOCK(l))
		return false;
	acquired(l);
	model_ctx.held[l->kind] = true;

	return true;
}

void model_mutex_unlock(struct model_lock *l)
{
	model_ctx.held[l->kind] = false;
	releasing(l);
	UNLOCK(l);
}

void model_assert_held(struct model_lock *l)
{
	CHECK(MODEL_LOAD(&l->owner) == &model_ctx);
}

void model_might_sleep(void)
{
	CHECK(!model_ctx.nr_spin);
	CHECK(!model_ctx.irqs_off);
	CHECK(!model_ctx.atomic);
	CHECK(!model_ctx.interrupt);
}

/* Check the idle state: no lock is held. */
bool model_idle(void)
{
	int kind;

	for (kind = 0; kind < NR_LOCKS; kind++) {
		if (model_ctx.held[kind])
			return false;
	}

	return !model_ctx.nr_spin && !model_ctx.irqs_off && !model_ctx.window;
}

/*
 * CPUs. While interrupts are off on a CPU, no other thread runs there.
 */
static struct model_lock cpus[MODEL_NR_CPUS] = {
	[0 ... MODEL_NR_CPUS - 1] = { .lock = PTHREAD_MUTEX_INITIALIZER },
};

void model_irq_save(void)
{
	if (!model_ctx.irqs_off)
		LOCK(&cpus[model_ctx.cpu]);
	model_ctx.irqs_off++;
}

static void interrupt(void)
{
	struct model_ctx ctx = model_ctx;

	if (!model.irq_handler || model_ctx.interrupt)
		return;
	/* An interrupt runs with the window closed. */
	if (model_ctx.window && model.window_hook)
		model.window_hook(false);
	model_ctx.window = 0;
	model_ctx.interrupt = true;
	model.irq_handler();
	CHECK(!model_ctx.irqs_off && !model_ctx.window && !model_ctx.nr_spin);
	model_ctx.window = ctx.window;
	model_ctx.interrupt = false;
}

void model_irq_restore(void)
{
	CHECK(model_ctx.irqs_off);
	if (--model_ctx.irqs_off)
		return;
	CHECK(!model_ctx.nr_spin);
	UNLOCK(&cpus[model_ctx.cpu]);
	interrupt();
}

/* An interrupt may come here, if interrupts are enabled. */
void model_irq_point(void)
{
	if (!model_ctx.irqs_off)
		interrupt();
}

void model_on_each_cpu(void (*fn)(void *data), void *data)
{
	struct model_ctx ctx = model_ctx;

	CHECK(!model_ctx.irqs_off && !model_ctx.nr_spin);
	for (model_ctx.cpu = 0; model_ctx.cpu < MODEL_NR_CPUS; model_ctx.cpu++) {
		LOCK(&cpus[model_ctx.cpu]);
		model_ctx.window = 0;
		model_ctx.interrupt = true;
		model_ctx.irqs_off = 1;
		fn(data);
		CHECK(!model_ctx.window && !model_ctx.nr_spin);
		UNLOCK(&cpus[model_ctx.cpu]);
	}
	model_ctx.cpu = ctx.cpu;
	model_ctx.window = ctx.window;
	model_ctx.interrupt = ctx.interrupt;
	model_ctx.irqs_off = 0;
}

/* A CPU that comes up allocates under this lock, so it is taken before our mutexes. */
void model_cpus_read_lock(void)
{
	int kind;

	model_might_sleep();
	for (kind = 0; kind < NR_LOCKS; kind++)
		CHECK(!model_ctx.held[kind]);
	CHECK(!model_ctx.cpus_locked);
	model_ctx.cpus_locked = true;
}

void model_cpus_read_unlock(void)
{
	CHECK(model_ctx.cpus_locked);
	model_ctx.cpus_locked = false;
}

int model_stop_machine(int (*fn)(void *data), void *data)
{
	int i, ret;

	model_might_sleep();
	CHECK(model_ctx.cpus_locked);
	for (i = 0; i < MODEL_NR_CPUS; i++)
		LOCK(&cpus[i]);
	model_ctx.irqs_off = 1;
	ret = fn(data);
	model_ctx.irqs_off = 0;
	while (i)
		UNLOCK(&cpus[--i]);

	return ret;
}

/* The window in which page tables and the state of the cache are writable. */
void model_window_open(void)
{
	if (!model_ctx.window && model.window_hook)
		model.window_hook(true);
	model_ctx.window++;
}

void model_window_close(void)
{
	CHECK(model_ctx.window);
	if (!--model_ctx.window && model.window_hook)
		model.window_hook(false);
}

/* Nodes. Each of the two is the neighbour of the other. */
struct zoneref *model_zonelist(int nid)
{
	static struct zone zones[MODEL_NR_NODES] = { { 0 }, { 1 } };
	static struct zoneref lists[][MODEL_NR_NODES + 1] = {
		{ { &zones[0] }, { &zones[1] } },
		{ { &zones[1] }, { &zones[0] } },
	};
	static struct zoneref one[] = { { &zones[0] }, { } };

	return model.nr_nodes > 1 ? lists[nid] : one;
}

struct zoneref *model_next_zone(struct zoneref *z, const nodemask_t *mask)
{
	while (z->zone && mask && !(mask->bits & 1UL << z->zone->node))
		z++;

	return z;
}

/* Failures of the n-th call, or at random. */
#ifndef __CPROVER__
bool model_fails(enum model_fail what)
{
	if (model.fail_rate[what]) {
		model_ctx.rnd = model_ctx.rnd * 1103515245 + 12345;
		return (model_ctx.rnd >> 16) % ALWAYS < model.fail_rate[what];
	}
	if (model.fails ? !model.fails(what) : !model.fail_at[what] || --model.fail_at[what])
		return false;
	model.failed = true;

	return true;
}
#endif

/* The page allocator. Its lock is not part of the model. */
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
	return model_memory[page - mem_map];
}

struct page *model_page(const void *addr)
{
	return &mem_map[((char *)addr - model_memory[0]) >> PAGE_SHIFT];
}

/* Faults if the page is protected and no window is open. */
void model_clear_page(void *addr)
{
	struct page *page = model_page(addr);

	CHECK(model_ctx.window || MODEL_LOAD(&model.pkey[page - mem_map]) == KPKEYS_PKEY_DEFAULT);
	memset(addr, 0, PAGE_SIZE);
}

/*
 * Memory may be allocated under the refill lock of a node, but under no other lock, and
 * not if the allocation may wait for reclaim or is made where sleeping is forbidden.
 */
static void check_may_alloc(gfp_t gfp)
{
	CHECK(!model_ctx.nr_spin && !model_ctx.irqs_off && !model_ctx.window);
	CHECK(!model_ctx.held[LOCK_MUTEX]);
	CHECK(!model_ctx.held[LOCK_SPLIT]);
	if (gfpflags_allow_blocking(gfp)) {
		CHECK(!model_ctx.held[LOCK_NODE_MUTEX]);
		model_might_sleep();
	}
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
	int nid;

	if (!model.reclaim || flags & PF_MEMALLOC)
		return;
	model_ctx.flags |= PF_MEMALLOC;
	for (nid = 0; nid < model.nr_nodes && model.shrinker; nid++) {
		unsigned long nr;

		sc.nid = nid;
		nr = model.shrinker->count_objects(model.shrinker, &sc);

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

static bool find_free(unsigned long nr, int nid, bool this_node, unsigned long *index)
{
	unsigned long n, first;
	int others;

	if (model.scatter)
		model_ctx.hint = (model_ctx.hint * 1103515245 + 12345) / 8 % MODEL_NR_PAGES;
	first = model_ctx.hint & ~(nr - 1);

#ifdef __CPROVER__
	/* The caller chooses the place. */
	*index = first;
	if (model.use_cache)
		return is_free(*index, nr);
#endif

	for (others = 0; others <= !this_node; others++) {
		for (n = 0; n < MODEL_NR_PAGES; n += nr) {
			*index = (first + n) % MODEL_NR_PAGES;
			if ((model_nid(*index) == nid) != others && is_free(*index, nr))
				return true;
		}
	}

	return false;
}

/*
 * Return free memory. Nothing is reclaimed or compacted. Callers that cannot wait for
 * reclaim do not get the last pages.
 */
struct page *model_alloc_pages(gfp_t gfp, unsigned int order, int nid)
{
	unsigned long nr = 1UL << order, i, at = 0;
	bool found, light = !gfpflags_allow_blocking(gfp);

	check_may_alloc(gfp);
	if (model.alloc_hook)
		model.alloc_hook(gfp, order);
	if (!light)
		reclaim();
	if (model_fails(FAIL_ALLOC_PAGES))
		return NULL;

	if (nid == NUMA_NO_NODE)
		nid = numa_mem_id();
	buddy_lock();
	found = (!light || model.nr_buddy >= nr + model.watermark) &&
		find_free(nr, nid, gfp & __GFP_THISNODE, &at);
	for (i = 0; i < nr && found; i++) {
		model.buddy[at + i] = false;
		/* Left by the last user. */
		mem_map[at + i].lru.next = NULL;
		mem_map[at + i].lru.prev = NULL;
		mem_map[at + i].owner = true;
	}
	if (found) {
		mem_map[at].refcount = 1;
		model.nr_buddy -= nr;
	} else if (!light) {
		MODEL_STORE(&model.failed, true);
	}
	buddy_unlock();

	return found ? &mem_map[at] : NULL;
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
	unsigned long index = page - mem_map;

	CHECK(!model_ctx.nr_spin && !model_ctx.window);
	CHECK(!model_ctx.held[LOCK_SPLIT]);
	CHECK(page->refcount == 1);
	CHECK(!page->table);
	CHECK(page->owner);
	buddy_lock();
	CHECK(!model.buddy[index]);
	CHECK(MODEL_LOAD(&model.pkey[index]) == KPKEYS_PKEY_DEFAULT);
	page->refcount = 0;
	page->private = 0;
	page->offline = false;
	page->owner = false;
	/* A poisoned page is not used again. */
	if (!PageHWPoison(page)) {
		model.buddy[index] = true;
		model.nr_buddy++;
	}
	buddy_unlock();
}

void *model_kzalloc(size_t size, gfp_t gfp)
{
	check_may_alloc(gfp);
	if (model_fails(FAIL_KZALLOC))
		return NULL;

	return calloc(1, size);
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
	if (!MODEL_LOAD(&model.pmd_table[pfn >> MODEL_PUD_ORDER])) {
		demand.change = true;
		demand.pmd_table = true;
		demand.pte_table = !aligned(pfn, MODEL_PMD_ORDER);
		return demand;
	}
	if (aligned(pfn, MODEL_CONT_PMD_ORDER))
		return demand;
	if (!MODEL_LOAD(&model.pte_table[pfn >> MODEL_PMD_ORDER])) {
		demand.pte_table = !aligned(pfn, MODEL_PMD_ORDER);
		demand.change = demand.pte_table ||
				MODEL_LOAD(&model.pmd_cont[pfn >> MODEL_CONT_PMD_ORDER]);
		return demand;
	}
	if (aligned(pfn, MODEL_CONT_ORDER))
		return demand;
	demand.change = MODEL_LOAD(&model.pte_cont[pfn >> MODEL_CONT_ORDER]);

	return demand;
}

/* See page_boundary() of arm64: a single page is split off at its least aligned end. */
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
			MODEL_STORE(&model.pmd_cont[pud * nr + i], true);
		MODEL_STORE(&model.pmd_table[pud], table);
	}
	if (aligned(pfn, MODEL_CONT_PMD_ORDER))
		return;
	if (!model.pte_table[pmd]) {
		MODEL_STORE(&model.pmd_cont[pfn >> MODEL_CONT_PMD_ORDER], false);
		if (aligned(pfn, MODEL_PMD_ORDER))
			return;
		table = new_table(reserve);
		nr = 1UL << (MODEL_PMD_ORDER - MODEL_CONT_ORDER);
		for (i = 0; i < nr; i++)
			MODEL_STORE(&model.pte_cont[pmd * nr + i], true);
		MODEL_STORE(&model.pte_table[pmd], table);
	}
	if (!aligned(pfn, MODEL_CONT_ORDER))
		MODEL_STORE(&model.pte_cont[pfn >> MODEL_CONT_ORDER], false);
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
	/* Exact, unless another thread has split here since then. */
	CHECK(before - reserve->nr <= demand);
	CHECK(before - reserve->nr == demand || !exact);
	__atomic_fetch_add(&model_splits[before - reserve->nr], 1, __ATOMIC_RELAXED);
}

/* The order of the leaf that maps this page. */
static unsigned int leaf_order(unsigned long pfn)
{
	if (!MODEL_LOAD(&model.pmd_table[pfn >> MODEL_PUD_ORDER]))
		return MODEL_PUD_ORDER;
	if (!MODEL_LOAD(&model.pte_table[pfn >> MODEL_PMD_ORDER]))
		return MODEL_LOAD(&model.pmd_cont[pfn >> MODEL_CONT_PMD_ORDER]) ?
		       MODEL_CONT_PMD_ORDER : MODEL_PMD_ORDER;

	return MODEL_LOAD(&model.pte_cont[pfn >> MODEL_CONT_ORDER]) ? MODEL_CONT_ORDER : 0;
}

static void set_range(unsigned long pfn, unsigned int nr, int pkey)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		unsigned int order = leaf_order(pfn + i);
		unsigned long first = (pfn + i) >> order << order;

		/* The leaf must not map pages outside of the range. */
		CHECK(first >= pfn && first + (1UL << order) <= pfn + nr);
		MODEL_STORE(&model.pkey[pfn + i], pkey);
	}
}

unsigned int model_split_demand(const void *addr, unsigned int nr)
{
	bool change;

	return range_demand(model_page(addr) - mem_map, nr, &change);
}

/* set_memory_pkey_reserve() */
int model_set_pkey(unsigned long addr, int nr, int pkey, struct kpkeys_split_reserve *reserve)
{
	unsigned long pfn = model_page((void *)addr) - mem_map, i;
	unsigned int demand;
	bool change;

	model_might_sleep();
	CHECK(!model_ctx.window);
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

/* Another user of the direct map changes it, with a reserve of its own. */
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

/* The pkey of all these pages, or -1. */
static int common_pkey(unsigned long index, unsigned long nr)
{
	unsigned long i;

	for (i = 1; i < nr; i++) {
		if (model.pkey[index + i] != model.pkey[index])
			return -1;
	}

	return model.pkey[index];
}

/*
 * Map the memory of a PUD by blocks again, where possible, as if it had been offline
 * in between. Otherwise all memory is soon mapped by pages, and nothing is split any
 * more. The caller ensures that no other thread splits this memory or needs its splits.
 */
void model_remap(unsigned long pud)
{
	unsigned long pmds = 1UL << (MODEL_PUD_ORDER - MODEL_PMD_ORDER), i;
	bool tables = false;

	for (i = pud * pmds; i < (pud + 1) * pmds; i++) {
		if (common_pkey(i << MODEL_PMD_ORDER, 1UL << MODEL_PMD_ORDER) >= 0)
			free_table(&model.pte_table[i]);
		tables |= !!model.pte_table[i];
	}
	/* Protected pages were split off as blocks of PMDs. */
	if (!tables && common_pkey(pud << MODEL_PUD_ORDER, 1UL << MODEL_PUD_ORDER) ==
		       KPKEYS_PKEY_DEFAULT)
		free_table(&model.pmd_table[pud]);
}

/* pagetable_alloc() with mm/kpkeys_hardened_pgtables.c */
#ifdef __CPROVER__
struct ptdesc *pagetable_alloc(gfp_t gfp, unsigned int order)
{
	return page_ptdesc(model_alloc_pages(gfp, 0, NUMA_NO_NODE));
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
	CHECK(model_idle());
	if (model.use_cache) {
		page = kpkeys_pgtable_cache_alloc(gfp);
		if (page)
			set_page_owner(page, 0, 0);
	} else {
		page = model_alloc_pages(gfp, 0, NUMA_NO_NODE);
	}

	return page ? page_ptdesc(page) : NULL;
}

void pagetable_free(struct ptdesc *ptdesc)
{
	struct page *page = ptdesc_page(ptdesc);

	if (model.use_cache) {
		reset_page_owner(page, 0);
		if (kpkeys_pgtable_cache_free(page))
			return;
		set_page_owner(page, 0, 0);
	}
	model_free_page(page);
}
#endif

/* Callbacks that are registered at boot */
bool model_queue_work(struct work_struct *work)
{
	int i;

	for (i = 0; i < MODEL_NR_NODES; i++) {
		struct work_struct *none = NULL;

		if (MODEL_LOAD(&model.work[i]) == work)
			return false;
#ifdef __CPROVER__
		if (!model.work[i]) {
			model.work[i] = work;
			return true;
		}
#else
		if (__atomic_compare_exchange_n(&model.work[i], &none, work, false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return true;
#endif
	}
	/* The same page twice may be the result of a race. */
	CHECK(model.threads);

	return false;
}

void model_run_work(void)
{
	int i;

	for (i = 0; i < MODEL_NR_NODES; i++) {
#ifdef __CPROVER__
		struct work_struct *work = model.work[i];

		model.work[i] = NULL;
#else
		struct work_struct *work = __atomic_exchange_n(&model.work[i], NULL,
							       __ATOMIC_SEQ_CST);
#endif
		if (work)
			work->func(work);
	}
}

struct shrinker *model_shrinker_alloc(unsigned int flags)
{
	static struct shrinker shrinker;

	CHECK(flags & SHRINKER_NUMA_AWARE);
	if (model.no_shrinker)
		return NULL;
	model.shrinker = &shrinker;

	return &shrinker;
}

void model_reset(int nr_nodes)
{
	unsigned long i;

#ifndef __CPROVER__
	memset(mem_map, 0, sizeof(mem_map));
	memset(&model, 0, sizeof(model));
	memset(&model_ctx, 0, sizeof(model_ctx));
#endif
	model.nr_nodes = nr_nodes;
	model.nr_buddy = MODEL_NR_PAGES;
	for (i = 0; i < MODEL_NR_PAGES; i++)
		model.buddy[i] = true;
}
