/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The world around the cache and the reserve: a page allocator, a direct map of
 * blocks, locks that know who holds what, and calls that fail on demand.
 *
 * Sizes are small, so that boundaries are met often. What is kept is what the code
 * relies on: levels, alignments, the order of the checks.
 */
#ifndef _KPKEYS_MODEL_H
#define _KPKEYS_MODEL_H

#include <pthread.h>
#include <stdbool.h>

#include <linux/gfp.h>

#define PAGE_SHIFT		12
#define PAGE_SIZE		(1UL << PAGE_SHIFT)
#define MODEL_BASE		0xffff000000000000UL

/* Pages, as a power of two, that are mapped by one entry, and that there are. */
#ifndef MODEL_CONT_ORDER
#define MODEL_CONT_ORDER	2
#define MODEL_PMD_ORDER		5
#define MODEL_CONT_PMD_ORDER	6
#define MODEL_PUD_ORDER		8
#define MODEL_ORDER		11
#endif
#ifndef MODEL_CHUNK_ORDERS
#define MODEL_CHUNK_ORDERS	{ MODEL_PMD_ORDER, MODEL_CONT_ORDER, 1, 0 }
#endif
#define MODEL_NR_PAGES		(1UL << MODEL_ORDER)

struct page {
	struct list_head lru;
	unsigned long private;
	int refcount;
	bool table;			/* constructed: somebody's page table */
	bool offline;			/* given back if its memory is to go */
};

/* The cache and the reserve look at the same memory as two types. */
#ifdef __CPROVER__
#define ptdesc	page
#define pt_list	lru
#else
struct ptdesc {
	struct list_head pt_list;
	unsigned long private;
	int refcount;
	bool table;
	bool offline;
};
#endif
#define page_ptdesc(page)	((struct ptdesc *)(page))
#define ptdesc_page(ptdesc)	((struct page *)(ptdesc))

/* What one task or interrupt is doing. */
struct model_ctx {
	unsigned int flags;		/* PF_ */
	bool atomic;			/* preemption is off */
	unsigned int nr_spin;		/* locks that are held, by kind */
	bool refill_mutex;
	bool split_lock;
	unsigned int rnd;		/* for failures, if threads race for them */
	unsigned long hint;		/* where the page allocator looks first */
};

struct model_lock {
	pthread_mutex_t lock;
	struct model_ctx *owner;
};

#define MODEL_LOCK_INIT		{ .lock = PTHREAD_MUTEX_INITIALIZER }

/* What can fail. */
enum model_fail {
	FAIL_ALLOC_PAGES,
	FAIL_KZALLOC,
	FAIL_PKEY_BEFORE,		/* nothing was changed */
	FAIL_PKEY_SPLIT,		/* the split was done */
	FAIL_PKEY_PARTLY,		/* the pkey of a part was changed */
	NR_FAIL
};

struct kpkeys_split_reserve;
struct work_struct;
struct shrinker;
struct seq_file;
struct notifier_block;

struct model {
	bool buddy[MODEL_NR_PAGES];	/* owned by the page allocator */
	u8 pkey[MODEL_NR_PAGES];
	/* The table an entry points to; NULL if it maps memory itself. */
	struct page *pmd_table[MODEL_NR_PAGES >> MODEL_PUD_ORDER];
	struct page *pte_table[MODEL_NR_PAGES >> MODEL_PMD_ORDER];
	bool pmd_cont[MODEL_NR_PAGES >> MODEL_CONT_PMD_ORDER];
	bool pte_cont[MODEL_NR_PAGES >> MODEL_CONT_ORDER];

	unsigned int fail_at[NR_FAIL];	/* 1: the next call fails; 0: none */
	unsigned int fail_rate[NR_FAIL];	/* out of 256, for threads */
	unsigned long isolated_start, isolated_end;	/* about to go offline */
	bool reclaim;			/* allocations enter reclaim */
	bool use_cache;			/* page tables come from the cache */
	bool no_split;			/* CPUs are coming up */
	bool booting;
	bool threads;			/* there are several */
	bool failed;			/* something did */
	bool quiet;			/* a warning is expected */
	unsigned long nr_warnings;
	long nr_objects;		/* of kzalloc() */

	void (*work_fn)(struct work_struct *work);
	struct work_struct *work;
	bool work_pending;
	struct shrinker *shrinker;
	int (*show)(struct seq_file *m, void *v);
	int (*memory_notifier)(struct notifier_block *nb, unsigned long action, void *arg);
};

extern struct page mem_map[MODEL_NR_PAGES];
extern struct model model;
/* Splits so far by how many page tables they took, not reset. */
extern unsigned long model_splits[5];
#ifdef __CPROVER__
extern struct model_ctx model_ctx;
#else
extern __thread struct model_ctx model_ctx;
#endif

#ifdef __CPROVER__
#define CHECK(cond)		__CPROVER_assert(cond, #cond)
#else
void __attribute__((noreturn)) model_bug(const char *what, const char *file, int line);
#define CHECK(cond)		({ if (!(cond)) model_bug(#cond, __FILE__, __LINE__); })
#endif
void model_warn(const char *what, const char *file, int line);
int __attribute__((format(printf, 1, 2))) model_printf(const char *fmt, ...);

void model_spin_lock(struct model_lock *l);
void model_spin_unlock(struct model_lock *l);
void model_mutex_lock(struct model_lock *l);
bool model_mutex_trylock(struct model_lock *l);
void model_mutex_unlock(struct model_lock *l);
void model_assert_held(struct model_lock *l);
void model_assert_not_held(struct model_lock *l);
void model_might_sleep(void);

void *model_address(const struct page *page);
struct page *model_page(const void *addr);
struct page *model_alloc_pages(gfp_t gfp, unsigned int order);
void model_split_page(struct page *page, unsigned int order);
void model_free_page(struct page *page);
void model_free_pages(struct page *page, unsigned int order);
void *model_kzalloc(size_t size, gfp_t gfp);
void model_kfree(void *p);

unsigned int model_split_demand(const void *addr, unsigned int nr);
int model_set_pkey(unsigned long addr, int nr, int pkey, struct kpkeys_split_reserve *reserve);
int model_set_memory(unsigned long pfn, unsigned int nr);
bool model_remap(unsigned long pud);

bool model_queue_work(void (*fn)(struct work_struct *work), struct work_struct *work);
void model_run_work(void);
struct shrinker *model_shrinker_alloc(unsigned int flags);
int model_memory_notifier(int (*fn)(struct notifier_block *nb, unsigned long action, void *arg));
bool model_fails(enum model_fail what);
void model_reset(void);

#endif /* _KPKEYS_MODEL_H */
