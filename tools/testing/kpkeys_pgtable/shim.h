/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Provides what mm/kpkeys_split_reserve.c and mm/kpkeys_pgtable_cache.c use of the
 * kernel. It takes the place of all headers that they include and that tools/include/
 * does not have, see the Makefile. The behaviour that matters is in model.h.
 */
#ifndef _KPKEYS_SHIM_H
#define _KPKEYS_SHIM_H

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/types.h>
#include <linux/kconfig.h>
#include <linux/kernel.h>
#include <linux/poison.h>
#ifdef __CPROVER__
/* CBMC checks the types of pointers. */
#undef LIST_POISON1
#undef LIST_POISON2
#define LIST_POISON1		((void *)0x100)
#define LIST_POISON2		((void *)0x122)
#endif
#include <linux/list.h>
#include <linux/bitops.h>
#include <linux/build_bug.h>
#include <linux/log2.h>
/* CBMC cannot parse this, and is not given code that uses bitmaps. */
#ifndef __CPROVER__
#include <linux/bitmap.h>
#endif

#undef static_assert
#define static_assert(expr, ...)	_Static_assert(expr, #expr)
#define __cleanup(fn)		__attribute__((__cleanup__(fn)))
#define __nonnull_args(x...)	__attribute__((__nonnull__(x)))
#ifndef __UNIQUE_ID
#define __UNIQUE_ID(prefix)	__UNIQUE_ID_(prefix, __COUNTER__)
#define __UNIQUE_ID_(prefix, n)	__UNIQUE_ID__(prefix, n)
#define __UNIQUE_ID__(prefix, n)	prefix##_##n
#endif

#define CONFIG_KPKEYS_SPLIT_RESERVE		1
#define CONFIG_KPKEYS_HARDENED_PGTABLES		1
#define CONFIG_PREEMPT_COUNT			1

#define CONFIG_NUMA				1
/* Otherwise __GFP_SKIP_KASAN would be zero. */
#define CONFIG_KASAN_HW_TAGS			1

#include "model.h"

/* As in the kernel, for values of several types. */
#undef min
#undef max
#undef clamp
#define MAX(a, b)		((a) > (b) ? (a) : (b))
#define min(a, b)							\
	({								\
		__typeof__((a) + (b)) __a = (a), __b = (b);		\
									\
		__a < __b ? __a : __b;					\
	})
#define max(a, b)							\
	({								\
		__typeof__((a) + (b)) __a = (a), __b = (b);		\
									\
		__a > __b ? __a : __b;					\
	})
#define clamp(v, lo, hi)	min(max(v, lo), hi)
#define order_base_2(n)		((n) > 1 ? ilog2((n) - 1) + 1 : 0)
#undef round_down
#define round_down(x, y)	((x) & ~((__typeof__(x))(y) - 1))
#undef struct_size
#define struct_size(p, member, n)	(sizeof(*(p)) + sizeof((p)->member[0]) * (n))
#ifndef U64_MAX
#define U64_MAX			(~0ULL)
#endif

/* Atomic bit operations: some in tools/include are not atomic. */
#undef test_bit
#undef set_bit
#undef clear_bit
#undef test_and_set_bit
#undef test_and_clear_bit
#define test_bit(nr, map)	model_test_bit(nr, map)
#define set_bit(nr, map)	((void)model_test_and_set_bit(nr, map))
#define clear_bit(nr, map)	((void)model_test_and_clear_bit(nr, map))
#define test_and_set_bit(nr, map)	model_test_and_set_bit(nr, map)
#define test_and_clear_bit(nr, map)	model_test_and_clear_bit(nr, map)

static inline bool model_test_bit(unsigned int nr, const unsigned long *map)
{
	return MODEL_LOAD(&map[nr / BITS_PER_LONG]) >> nr % BITS_PER_LONG & 1;
}

static inline bool model_test_and_set_bit(unsigned int nr, unsigned long *map)
{
	unsigned long bit = 1UL << nr % BITS_PER_LONG;

	return MODEL_FETCH(or, &map[nr / BITS_PER_LONG], bit) & bit;
}

static inline bool model_test_and_clear_bit(unsigned int nr, unsigned long *map)
{
	unsigned long bit = 1UL << nr % BITS_PER_LONG;

	return MODEL_FETCH(and, &map[nr / BITS_PER_LONG], ~bit) & bit;
}

#ifndef for_each_set_bitrange
#define for_each_set_bitrange(b, e, addr, size)				\
	for ((b) = 0;							\
	     (b) = find_next_bit((addr), (size), (b)),			\
	     (e) = find_next_zero_bit((addr), (size), (b) + 1),		\
	     (b) < (size);						\
	     (b) = (e) + 1)
#endif

typedef struct { long counter; } model_atomic_long_t;
#define atomic_long_t		model_atomic_long_t
#define atomic_long_read(v)	MODEL_LOAD(&(v)->counter)
#define atomic_long_add(i, v)	(model_irq_point(), (void)MODEL_FETCH(add, &(v)->counter, i))
#undef smp_load_acquire
#undef smp_store_release
#define smp_load_acquire(p)	MODEL_LOAD(p)
#define smp_store_release(p, v)	MODEL_STORE(p, v)

/* Annotations */
#define __init
#define __ro_after_init
#define __read_mostly
#define __cold
#define EXPORT_SYMBOL(sym)
#define EXPORT_SYMBOL_GPL(sym)
#define VISIBLE_IF_KUNIT
#define EXPORT_SYMBOL_IF_KUNIT(sym)
#define KUNIT_STATIC_STUB_REDIRECT(fn, args...)	do { } while (0)
#define late_initcall(fn)						\
	int __initcall_##fn(void);					\
	int __initcall_##fn(void) { return fn(); }
#define subsys_initcall(fn)	late_initcall(fn)
#define fallthrough		__attribute__((__fallthrough__))

#ifdef __SANITIZE_THREAD__
/* data_race() marks one side of a race. */
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
#define data_race(expr)							\
	({								\
		__auto_type __v = (AnnotateIgnoreReadsBegin(__FILE__, __LINE__), (expr)); \
									\
		AnnotateIgnoreReadsEnd(__FILE__, __LINE__);		\
		__v;							\
	})
/* As KCSAN with CONFIG_KCSAN_STRICT: both sides of a race must be marked. */
#undef READ_ONCE
#undef WRITE_ONCE
#define READ_ONCE(x)							\
	({								\
		__unqual_scalar_typeof(x) __v;				\
									\
		__atomic_load(&(x), &__v, __ATOMIC_RELAXED);		\
		__v;							\
	})
#define WRITE_ONCE(x, val)						\
	do {								\
		__unqual_scalar_typeof(x) __v = (val);			\
									\
		__atomic_store(&(x), &__v, __ATOMIC_RELAXED);		\
	} while (0)
#else
#define data_race(expr)		(expr)
#endif

/* A warning is a failed test, unless the test expects it. */
#undef WARN_ON
#undef WARN_ON_ONCE
#undef WARN_ONCE
#define WARN_ON(cond)							\
	({								\
		bool __w = !!(cond);					\
									\
		if (__w)						\
			model_warn(#cond, __FILE__, __LINE__);		\
		__w;							\
	})
#define WARN_ON_ONCE(cond)	WARN_ON(cond)
#define WARN_ONCE(cond, ...)	WARN_ON(cond)
#define WARN(cond, ...)		WARN_ON(cond)
#define VM_WARN_ON(cond)	WARN_ON(cond)
#define VM_WARN_ON_ONCE(cond)	WARN_ON(cond)
#define VM_WARN_ONCE(cond, ...)	WARN_ON(cond)
#define VM_WARN_ON_ONCE_PAGE(cond, page)	WARN_ON(cond)
#define VM_BUG_ON(cond)		WARN_ON(cond)
#define pr_info(...)		do { } while (0)
#define pr_debug(...)		do { } while (0)
#define pr_warn(...)		do { } while (0)
#define pr_err(...)		do { } while (0)
#define pr_info_once(...)	do { } while (0)
#define pr_warn_once(...)	CHECK(!model_ctx.window)
#define pr_warn_ratelimited(...)	do { } while (0)
/* Nothing may be printed while page tables are writable. */
#define pr_err_ratelimited(...)	CHECK(!model_ctx.window)

/* Locks */
typedef struct model_lock spinlock_t;
typedef struct model_lock raw_spinlock_t;
#define mutex			model_lock
#define DEFINE_MUTEX(name)						\
	struct mutex name = { .lock = PTHREAD_MUTEX_INITIALIZER, .kind = LOCK_MUTEX }
#define raw_spin_lock_init(l)	model_lock_init(l, LOCK_SPIN)
#define mutex_init(l)		model_lock_init(l, LOCK_NODE_MUTEX)
#define raw_spin_lock(l)	model_spin_lock(l)
#define raw_spin_unlock(l)	model_spin_unlock(l)
#define raw_spin_lock_irqsave(l)	({ model_irq_save(); model_spin_lock(l); })
#define raw_spin_unlock_irqrestore(l)	({ model_spin_unlock(l); model_irq_restore(); })
#define mutex_lock(l)		model_mutex_lock(l)
#define mutex_trylock(l)	model_mutex_trylock(l)
#define mutex_unlock(l)		model_mutex_unlock(l)
#define lockdep_assert_held(l)	model_assert_held(l)
#define lockdep_assert_irqs_disabled()	CHECK(model_ctx.irqs_off)
#define fs_reclaim_acquire(gfp)	((void)(gfp))
#define fs_reclaim_release(gfp)	((void)(gfp))
#define might_lock(l)		((void)(l))
#define might_sleep()		model_might_sleep()
#define might_alloc(gfp)	model_might_sleep()

/* CBMC does not know the attribute "cleanup". */
#ifndef __CPROVER__
#include "../../../include/linux/cleanup.h"

DEFINE_GUARD(mutex, struct mutex *, mutex_lock(_T), mutex_unlock(_T))
DEFINE_LOCK_GUARD_1(raw_spinlock, raw_spinlock_t, raw_spin_lock(_T->lock),
		    raw_spin_unlock(_T->lock))
DEFINE_LOCK_GUARD_1(raw_spinlock_irqsave, raw_spinlock_t, raw_spin_lock_irqsave(_T->lock),
		    raw_spin_unlock_irqrestore(_T->lock))
DEFINE_LOCK_GUARD_0(cpus_read_lock, model_cpus_read_lock(), model_cpus_read_unlock())
DEFINE_LOCK_GUARD_0(irqsave, model_irq_save(), model_irq_restore())
DEFINE_LOCK_GUARD_0(kpkeys_hardened_pgtables, model_window_open(), model_window_close())
#endif

/* Contexts */
#define current			(&model_ctx)
#define PF_MEMALLOC		1
#define preemptible()		(!model_ctx.atomic && !model_ctx.nr_spin && !model_ctx.irqs_off)
#define in_interrupt()		(model_ctx.interrupt)
#define in_task()		(!model_ctx.interrupt)
#define irqs_disabled()		(model_ctx.irqs_off > 0)
#define kpkeys_assert_pgtable_write()	CHECK(model_ctx.window)
enum system_states { SYSTEM_BOOTING, SYSTEM_SCHEDULING, SYSTEM_RUNNING };
#define system_state		(model.booting ? SYSTEM_BOOTING : SYSTEM_RUNNING)
#define kpkeys_hardened_pgtables_enabled()	true

/* Pages */
#define MAX_PAGE_ORDER		10
#define PAGE_ALLOC_COSTLY_ORDER	3
#define GFP_PGTABLE_KERNEL	(GFP_KERNEL | __GFP_ZERO)
#define page_to_pfn(page)	model_pfn((page) - mem_map)
#define pfn_to_page(pfn)	(&mem_map[model_index(pfn)])
#define PHYS_PFN(x)		((unsigned long)(x) >> PAGE_SHIFT)
#define PAGE_ALIGN(x)		(((x) + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1))
#define page_address(page)	model_address(page)
#define clear_page(addr)	model_clear_page(addr)
#define set_page_private(page, v)	((page)->private = (v))
#define PageTable(page)		((page)->table)
#define PageHWPoison(page)	MODEL_LOAD(&(page)->broken)
#define __SetPageOffline(page)	((page)->offline = true)
#define __ClearPageOffline(page)	((page)->offline = false)
#define set_page_owner(page, order, gfp)				\
	(CHECK(!(page)->owner), CHECK(!(gfp)), (page)->owner = true)
#define reset_page_owner(page, order)	(CHECK((page)->owner), (page)->owner = false)
#define want_init_on_alloc(gfp)	(!!((gfp) & __GFP_ZERO))
#define want_init_on_free()	(model.init_on_free)
#define totalram_pages()	(model.booting ? MODEL_NR_PAGES : MODEL_NR_PAGES << 8)
#define alloc_pages(gfp, order)	model_alloc_pages(gfp, order, NUMA_NO_NODE)
#define alloc_pages_node(nid, gfp, order)	model_alloc_pages(gfp, order, nid)
#define split_page(page, order)	model_split_page(page, order)
#define __free_page(page)	model_free_page(page)
#define kcalloc(n, size, gfp)	model_kzalloc((n) * (size), gfp)

/* Nodes and CPUs: each node has a zone. */
#define NUMA_NO_NODE		(-1)
#define N_MEMORY		0
#define nr_node_ids		(model.nr_nodes)
#define num_node_state(state)	(model.nr_nodes)
#define for_each_online_node(nid)	for ((nid) = 0; (nid) < nr_node_ids; (nid)++)
#define for_each_node_state(nid, state)	for_each_online_node(nid)
#define pfn_to_nid(pfn)		model_nid(model_index(pfn))
#define page_to_nid(page)	model_nid((page) - mem_map)
#define numa_mem_id()		((int)model_ctx.cpu % nr_node_ids)
#define nr_cpu_ids		MODEL_NR_CPUS
#define for_each_possible_cpu(cpu)	for ((cpu) = 0; (cpu) < MODEL_NR_CPUS; (cpu)++)
#define smp_processor_id()	({ CHECK(!preemptible()); (int)model_ctx.cpu; })
#define on_each_cpu(fn, data, wait)	model_on_each_cpu(fn, data)
#define stop_machine_cpuslocked(fn, data, cpus)	model_stop_machine(fn, data)
#define NR_KERNEL_MISC_RECLAIMABLE	0
#define NODE_DATA(nid)		(&model.reclaimable[nid])
#define __mod_node_page_state(pgdat, item, nr)	((void)MODEL_FETCH(add, pgdat, nr))
typedef struct { unsigned long bits; } nodemask_t;
struct zone { int node; };
struct zoneref { struct zone *zone; };
#define cpusets_enabled()	(model_ctx.mems_allowed)
#define cpuset_current_mems_allowed	(*(nodemask_t *)&model_ctx.mems_allowed)
#define mempolicy_slab_node()	((int)model_ctx.mempolicy - 1)
#define gfp_zone(gfp)		0
#define node_zonelist(nid, gfp)	model_zonelist(nid)
#define zonelist_zone(z)	((z)->zone)
#define zonelist_node_idx(z)	((z)->zone->node)
#define zone_to_nid(z)		((z)->node)
#define first_zones_zonelist(list, zone, mask)	model_next_zone(list, mask)
#define for_each_zone_zonelist_nodemask(z, ref, list, idx, mask)	\
	for ((ref) = model_next_zone(list, mask), (z) = (ref)->zone; (z);	\
	     (ref) = model_next_zone((ref) + 1, mask), (z) = (ref)->zone)
struct zoneref *model_zonelist(int nid);
struct zoneref *model_next_zone(struct zoneref *z, const nodemask_t *mask);

/* pkeys and splits */
#define KPKEYS_PKEY_DEFAULT	0
#define KPKEYS_PKEY_PGTABLES	1
#define ARCH_KPKEYS_PGTABLE_CHUNK_ORDERS	MODEL_CHUNK_ORDERS
#define ARCH_KPKEYS_PGTABLE_FRAME_ORDER	MODEL_PMD_ORDER
#define arch_kpkeys_can_split()	(!READ_ONCE(model.no_split))
#define arch_kpkeys_split_demand(addr, nr)	model_split_demand(addr, nr)
#define set_memory_pkey_reserve(addr, nr, pkey, reserve)	\
	model_set_pkey(addr, nr, pkey, reserve)

/* Work, and what is registered at boot */
struct work_struct { void (*func)(struct work_struct *work); };
struct delayed_work { struct work_struct work; };
#define HZ			1000
/* Time passes quickly, so that each pause is over. */
#define jiffies			(model.jiffies += model.frozen ? 0 : HZ << 12)
#define time_before(a, b)	((long)((a) - (b)) < 0)
#define system_dfl_wq		NULL
#define INIT_DELAYED_WORK(w, fn)	((w)->work.func = (fn))
#define to_delayed_work(w)	container_of(w, struct delayed_work, work)
#define queue_delayed_work(wq, w, delay)	({ (void)(wq); model_queue_work(&(w)->work); })

struct shrink_control { unsigned long nr_to_scan, nr_scanned; int nid; gfp_t gfp_mask; };
struct shrinker {
	unsigned long (*count_objects)(struct shrinker *s, struct shrink_control *sc);
	unsigned long (*scan_objects)(struct shrinker *s, struct shrink_control *sc);
	long batch;
	int seeks;
	unsigned int flags;
	void *private_data;
};
#define SHRINK_STOP		(~0UL)
#define SHRINK_EMPTY		(~0UL - 1)
#define SHRINKER_NUMA_AWARE	1
#define mm_account_reclaimed_pages(nr)	((void)(nr))
#define shrinker_alloc(flags, ...)	model_shrinker_alloc(flags)
#define shrinker_register(s)	((void)(s))

struct notifier_block {
	int (*notifier_call)(struct notifier_block *nb, unsigned long action, void *arg);
};
enum { MEM_ONLINE = 1, MEM_GOING_OFFLINE = 2, MEM_OFFLINE = 4, MEM_CANCEL_OFFLINE = 16 };
#define NOTIFY_OK		1
#define DEFAULT_CALLBACK_PRI	0
struct memory_notify { unsigned long start_pfn, nr_pages; };
#define hotplug_memory_notifier(f, pri)	(model.memory_notifier = (f))
#define register_oom_notifier(nb)	(model.oom_notifier = (nb)->notifier_call)
#define CPUHP_BP_PREPARE_DYN	0
#define cpuhp_setup_state_nocalls(state, name, up, down)	(model.dead_cpu = (down), 0)

struct seq_file;
#define seq_printf(m, ...)	((void)(m), model_printf(__VA_ARGS__))
#define seq_puts(m, s)		((void)(m), model_printf("%s", s))
#define seq_putc(m, c)		((void)(m), model_printf("%c", c))
#define DEFINE_SHOW_ATTRIBUTE(name)					\
	static int (*const name##_fops)(struct seq_file *, void *) = name##_show
#define debugfs_create_file(name, mode, parent, data, fops)	(model.show = *(fops))

/* Evaluate the arguments. */
#define model_trace(args...)	((void)(unsigned long []){ args })
#include "shim-trace.h"

#include "../../../include/linux/kpkeys_split_reserve.h"
#include "../../../include/linux/kpkeys_pgtable_cache.h"

/* mm/kpkeys_hardened_pgtables.c: page tables are pages of the cache, if there is one. */
struct ptdesc *pagetable_alloc(gfp_t gfp, unsigned int order);
void pagetable_free(struct ptdesc *ptdesc);

#endif /* _KPKEYS_SHIM_H */
