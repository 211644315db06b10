/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The environment of the cache and of the reserve: a page allocator, a block-mapped
 * direct map, CPUs, nodes, locks that know their holder, and calls that fail on demand.
 *
 * Sizes are small, so that boundaries are hit often. Levels, alignments and the order
 * of checks are as in the kernel, because the code relies on them.
 */
#ifndef _KPKEYS_MODEL_H
#define _KPKEYS_MODEL_H

#include <pthread.h>
#include <stdbool.h>

#include <linux/gfp.h>

#define PAGE_SHIFT		12
#define PAGE_SIZE		(1UL << PAGE_SHIFT)

/* Orders: of the memory that an entry maps, and of all memory. */
#ifndef MODEL_CONT_ORDER
#define MODEL_CONT_ORDER	3
#define MODEL_PMD_ORDER		7
#define MODEL_CONT_PMD_ORDER	8
#define MODEL_PUD_ORDER		9
#define MODEL_ORDER		12
#endif
#ifndef MODEL_CHUNK_ORDERS
#define MODEL_CHUNK_ORDERS	{ MODEL_PMD_ORDER, MODEL_CONT_ORDER, 2, 0 }
#endif
#define MODEL_NR_PAGES		(1UL << MODEL_ORDER)
#define MODEL_NR_PUDS		(MODEL_NR_PAGES >> MODEL_PUD_ORDER)
#define MODEL_NR_NODES		2	/* or one */
#define MODEL_NR_CPUS		4

/*
 * Memory has holes: a PUD maps contiguous memory, but the frames of the next one may be
 * in another page, at any level of the index.
 */
#define MAX_PHYSMEM_BITS	44
#define MODEL_PUD_PFN(pud)	(((pud) & 1UL) << 13 | ((pud) >> 1 & 1UL) << 22 | \
				 ((pud) >> 2) << 31)
#define MODEL_PFN_PUD(pfn)	(((pfn) >> 13 & 1) | ((pfn) >> 22 & 1) << 1 | (pfn) >> 31 << 2)

struct page {
	struct list_head lru;
	unsigned long private;
	int refcount;
	bool table;			/* constructed as a page table */
	bool offline;			/* PageOffline() */
	bool broken;			/* PageHWPoison() */
	bool owner;			/* has a page_owner */
};

/* The cache and the reserve access the same memory by two types. */
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
	bool broken;
	bool owner;
};
#endif
#define page_ptdesc(page)	((struct ptdesc *)(page))
#define ptdesc_page(ptdesc)	((struct page *)(ptdesc))

enum model_lock_kind { LOCK_SPIN = 1, LOCK_NODE_MUTEX, LOCK_MUTEX, LOCK_SPLIT, NR_LOCKS };

/* The context of a task or an interrupt. */
struct model_ctx {
	unsigned int flags;		/* PF_ */
	unsigned int cpu;
	bool atomic;			/* preemption is off */
	bool interrupt;
	unsigned int irqs_off;		/* nesting depth */
	bool cpus_locked;		/* cpus_read_lock() */
	unsigned int window;		/* page tables are writable: nesting depth */
	unsigned int nr_spin;		/* locks that are held */
	bool held[NR_LOCKS];		/* mutexes */
	unsigned long mempolicy;	/* a node, plus one */
	unsigned long mems_allowed;	/* nodes, zero for all */
	unsigned int rnd;		/* for random failures of a thread */
	unsigned long hint;		/* where the page allocator searches first */
};

struct model_lock {
	pthread_mutex_t lock;
	struct model_ctx *owner;
	enum model_lock_kind kind;
};

/* Calls that can fail. */
#define ALWAYS			4096

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
	unsigned int fail_rate[NR_FAIL];	/* out of ALWAYS, for threads */
	unsigned long isolated_start, isolated_end;	/* about to go offline */
	unsigned long nr_buddy;
	unsigned long watermark;	/* pages that callers without reclaim do not get */
	bool scatter;			/* pages come from random places, not in order */
	int nr_nodes;
	long reclaimable[MODEL_NR_NODES];	/* NR_KERNEL_MISC_RECLAIMABLE */
	bool reclaim;			/* allocations enter reclaim */
	bool use_cache;			/* page tables come from the cache */
	bool no_split;			/* CPUs are coming up */
	bool booting;
	bool threads;			/* several threads run */
	bool failed;			/* a call was made to fail, or memory ran out */
	bool quiet;			/* a warning is expected */
	bool init_on_free;
	unsigned long nr_warnings;
	unsigned long jiffies;
	bool frozen;			/* no time passes */
	bool no_shrinker;

	struct work_struct *work[MODEL_NR_NODES];	/* pending */
	struct shrinker *shrinker;
	int (*show)(struct seq_file *m, void *v);
	char shown[2000];
	size_t nr_shown;
	int (*memory_notifier)(struct notifier_block *nb, unsigned long action, void *arg);
	int (*oom_notifier)(struct notifier_block *nb, unsigned long unused, void *freed);
	int (*dead_cpu)(unsigned int cpu);
	/* Hooks for tests: a failure, interrupts being enabled, and each window. */
	bool (*fails)(enum model_fail what);
	void (*irq_handler)(void);
	void (*window_hook)(bool opens);
	/* And each request to the page allocator. */
	void (*alloc_hook)(gfp_t gfp, unsigned int order);
};

extern struct page mem_map[MODEL_NR_PAGES];
extern char model_memory[MODEL_NR_PAGES][PAGE_SIZE];
extern struct model model;
/* The number of splits by the number of page tables they took. Not reset. */
extern unsigned long model_splits[5];
#ifdef __CPROVER__
extern struct model_ctx model_ctx;
#else
extern __thread struct model_ctx model_ctx;
#endif

#ifdef __CPROVER__
#define CHECK(cond)		__CPROVER_assert(cond, #cond)
#define MODEL_LOAD(p)		(*(p))
#define MODEL_STORE(p, v)	(*(p) = (v))
#define MODEL_FETCH_or(v, i)	((v) | (i))
#define MODEL_FETCH_and(v, i)	((v) & (i))
#define MODEL_FETCH_add(v, i)	((v) + (i))
#define MODEL_FETCH(op, p, i)						\
	({								\
		__typeof__(*(p)) __old = *(p);				\
									\
		*(p) = MODEL_FETCH_##op(__old, i);			\
		__old;							\
	})
#else
/* Read without a lock, as in the kernel. */
#define MODEL_LOAD(p)		__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define MODEL_STORE(p, v)	__atomic_store_n(p, v, __ATOMIC_RELEASE)
#define MODEL_FETCH(op, p, i)	__atomic_fetch_##op(p, i, __ATOMIC_SEQ_CST)
void __attribute__((noreturn)) model_bug(const char *what, const char *file, int line);
#define CHECK(cond)		({ if (!(cond)) model_bug(#cond, __FILE__, __LINE__); })
#endif
void model_warn(const char *what, const char *file, int line);
int __attribute__((format(printf, 1, 2))) model_printf(const char *fmt, ...);

void model_lock_init(struct model_lock *l, enum model_lock_kind kind);
void model_spin_lock(struct model_lock *l);
void model_spin_unlock(struct model_lock *l);
void model_mutex_lock(struct model_lock *l);
bool model_mutex_trylock(struct model_lock *l);
void model_mutex_unlock(struct model_lock *l);
void model_assert_held(struct model_lock *l);
void model_might_sleep(void);
void model_irq_save(void);
void model_irq_restore(void);
void model_irq_point(void);
void model_window_open(void);
void model_window_close(void);
bool model_idle(void);
void model_on_each_cpu(void (*fn)(void *data), void *data);
void model_cpus_read_lock(void);
void model_cpus_read_unlock(void);
int model_stop_machine(int (*fn)(void *data), void *data);

/* The number of a page, without the holes. */
static inline unsigned long model_pfn(unsigned long index)
{
	return MODEL_PUD_PFN(index >> MODEL_PUD_ORDER) | (index & ((1UL << MODEL_PUD_ORDER) - 1));
}

static inline unsigned long model_index(unsigned long pfn)
{
	return MODEL_PFN_PUD(pfn) << MODEL_PUD_ORDER | (pfn & ((1UL << MODEL_PUD_ORDER) - 1));
}

static inline int model_nid(unsigned long index)
{
	return index * model.nr_nodes >> MODEL_ORDER;
}

void *model_address(const struct page *page);
struct page *model_page(const void *addr);
void model_clear_page(void *addr);
struct page *model_alloc_pages(gfp_t gfp, unsigned int order, int nid);
void model_split_page(struct page *page, unsigned int order);
void model_free_page(struct page *page);
void *model_kzalloc(size_t size, gfp_t gfp);

unsigned int model_split_demand(const void *addr, unsigned int nr);
int model_set_pkey(unsigned long addr, int nr, int pkey, struct kpkeys_split_reserve *reserve);
int model_set_memory(unsigned long pfn, unsigned int nr);
void model_remap(unsigned long pud);

bool model_queue_work(struct work_struct *work);
void model_run_work(void);
struct shrinker *model_shrinker_alloc(unsigned int flags);
bool model_fails(enum model_fail what);
void model_reset(int nr_nodes);

#endif /* _KPKEYS_MODEL_H */
