/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What mm/kpkeys_split_reserve.c and mm/kpkeys_pgtable_cache.c use of the kernel.
 * Every header that they name, and that tools/include/ does not have, is this
 * one: see the Makefile. Behaviour that matters is in model.h.
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
/* It is particular about the types of pointers. */
#undef LIST_POISON1
#undef LIST_POISON2
#define LIST_POISON1		((void *)0x100)
#define LIST_POISON2		((void *)0x122)
#endif
#include <linux/list.h>
#include <linux/bitops.h>
#include <linux/build_bug.h>

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

#include "model.h"

#ifdef __CPROVER__
#include "rbtree-list.h"
#else
#include "../../include/linux/rbtree.h"
#endif

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
#define data_race(expr)		(expr)
#define fallthrough		__attribute__((__fallthrough__))

#ifdef __SANITIZE_THREAD__
/* As KCSAN with CONFIG_KCSAN_STRICT: both sides of a race are to be marked. */
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
#define pr_warn_once(...)	do { } while (0)
#define pr_warn_ratelimited(...)	do { } while (0)

/* Locks */
typedef struct model_lock spinlock_t;
#define mutex			model_lock
#define __SPIN_LOCK_UNLOCKED(name)	MODEL_LOCK_INIT
#define DEFINE_SPINLOCK(name)	spinlock_t name = MODEL_LOCK_INIT
#define DEFINE_MUTEX(name)	struct mutex name = MODEL_LOCK_INIT
#define __MUTEX_INITIALIZER(name)	MODEL_LOCK_INIT
#define spin_lock(l)		model_spin_lock(l)
#define spin_unlock(l)		model_spin_unlock(l)
#define spin_lock_irq(l)	model_spin_lock(l)
#define spin_unlock_irq(l)	model_spin_unlock(l)
#define spin_lock_irqsave(l, flags)	({ (flags) = 0; model_spin_lock(l); })
#define spin_unlock_irqrestore(l, flags)	({ (void)(flags); model_spin_unlock(l); })
#define mutex_lock(l)		model_mutex_lock(l)
#define mutex_trylock(l)	model_mutex_trylock(l)
#define mutex_unlock(l)		model_mutex_unlock(l)
#define lockdep_assert_held(l)	model_assert_held(l)
#define lockdep_assert_not_held(l)	model_assert_not_held(l)
#define assert_spin_locked(l)	model_assert_held(l)
#define fs_reclaim_acquire(gfp)	((void)(gfp))
#define fs_reclaim_release(gfp)	((void)(gfp))
#define might_lock(l)		((void)(l))
#define might_sleep()		model_might_sleep()
#define might_alloc(gfp)	model_might_sleep()
#define might_sleep_if(cond)	({ if (cond) model_might_sleep(); })
#define cond_resched()		model_might_sleep()

/* CBMC gets code without guards, see unguard.py. */
#ifndef __CPROVER__
#include "../../../include/linux/cleanup.h"

DEFINE_GUARD(mutex, struct mutex *, mutex_lock(_T), mutex_unlock(_T))
DEFINE_GUARD_COND(mutex, _try, mutex_trylock(_T), _RET)
DEFINE_LOCK_GUARD_1(spinlock, spinlock_t, spin_lock(_T->lock), spin_unlock(_T->lock))
DEFINE_LOCK_GUARD_1(spinlock_irq, spinlock_t, spin_lock(_T->lock), spin_unlock(_T->lock))
DEFINE_LOCK_GUARD_1(spinlock_irqsave, spinlock_t, spin_lock(_T->lock), spin_unlock(_T->lock))

#endif

/* Contexts */
#define current			(&model_ctx)
#define PF_MEMALLOC		1
#define preemptible()		(!model_ctx.atomic && !model_ctx.nr_spin)
#define in_interrupt()		(model_ctx.atomic)
#define in_atomic()		(!preemptible())
#define irqs_disabled()		(model_ctx.nr_spin > 0)
enum system_states { SYSTEM_BOOTING, SYSTEM_SCHEDULING, SYSTEM_RUNNING };
#define system_state		(model.booting ? SYSTEM_BOOTING : SYSTEM_RUNNING)
#define kpkeys_hardened_pgtables_enabled()	true

/* Pages */
#define MAX_PAGE_ORDER		10
#define PAGE_ALLOC_COSTLY_ORDER	3
#define GFP_PGTABLE_KERNEL	(GFP_KERNEL | __GFP_ZERO)
#define page_to_pfn(page)	((unsigned long)((page) - mem_map))
#define pfn_to_page(pfn)	(&mem_map[pfn])
#define page_address(page)	model_address(page)
#define virt_to_page(addr)	model_page(addr)
#define page_private(page)	((page)->private)
#define set_page_private(page, v)	((page)->private = (v))
#define page_ref_count(page)	((page)->refcount)
#define PageTable(page)		((page)->table)
#define __SetPageOffline(page)	((page)->offline = true)
#define __ClearPageOffline(page)	((page)->offline = false)
#define page_to_nid(page)	0
#define numa_node_id()		0
#define numa_mem_id()		0
#define NUMA_NO_NODE		(-1)
#define alloc_pages(gfp, order)	model_alloc_pages(gfp, order)
#define alloc_pages_node(nid, gfp, order)	model_alloc_pages(gfp, order)
#define alloc_page(gfp)		model_alloc_pages(gfp, 0)
#define split_page(page, order)	model_split_page(page, order)
#define __free_page(page)	model_free_page(page)
#define __free_pages(page, order)	model_free_pages(page, order)
#define kzalloc_obj(obj, gfp)	((typeof(obj) *)model_kzalloc(sizeof(obj), gfp))
#define kmalloc_obj(obj, gfp)	kzalloc_obj(obj, gfp)
#define kzalloc(size, gfp)	model_kzalloc(size, gfp)
#define kfree(p)		model_kfree(p)

/* pkeys and splits */
#define KPKEYS_PKEY_DEFAULT	0
#define KPKEYS_PKEY_PGTABLES	1
#define ARCH_KPKEYS_PGTABLE_CHUNK_ORDERS	MODEL_CHUNK_ORDERS
#define arch_kpkeys_can_split()	(!READ_ONCE(model.no_split))
#define arch_kpkeys_must_split()	true
#define arch_kpkeys_split_demand(addr, nr)	model_split_demand(addr, nr)
#define set_memory_pkey_reserve(addr, nr, pkey, reserve)	\
	model_set_pkey(addr, nr, pkey, reserve)

/* What is registered at boot */
struct work_struct { void (*func)(struct work_struct *work); };
struct delayed_work { struct work_struct work; };
#define __WORK_INITIALIZER(name, fn)	{ .func = (fn) }
#define DECLARE_WORK(name, fn)	struct work_struct name = __WORK_INITIALIZER(name, fn)
#define INIT_WORK(w, fn)	((w)->func = (fn))
#define system_dfl_wq		NULL
#define system_unbound_wq	NULL
#define system_wq		NULL
#define queue_work(wq, w)	({ (void)(wq); model_queue_work((w)->func, w); })
#define schedule_work(w)	model_queue_work((w)->func, w)

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
#define DEFAULT_SEEKS		2
#define shrinker_alloc(flags, ...)	model_shrinker_alloc(flags)
#define shrinker_register(s)	((void)(s))

struct notifier_block { int (*fn)(struct notifier_block *nb, unsigned long action, void *arg); };
enum { MEM_ONLINE = 1, MEM_GOING_OFFLINE = 2, MEM_OFFLINE = 4, MEM_CANCEL_OFFLINE = 16 };
#define NOTIFY_OK		1
#define DEFAULT_CALLBACK_PRI	0
struct memory_notify { unsigned long start_pfn, nr_pages; };
#define hotplug_memory_notifier(f, pri)	model_memory_notifier(f)

struct seq_file;
#define seq_printf(m, ...)	((void)(m), model_printf(__VA_ARGS__))
#define seq_puts(m, s)		((void)(m), model_printf("%s", s))
#define seq_putc(m, c)		((void)(m), model_printf("%c", c))
#define DEFINE_SHOW_ATTRIBUTE(name)					\
	static int (*const name##_fops)(struct seq_file *, void *) = name##_show
#define debugfs_create_file(name, mode, parent, data, fops)	(model.show = *(fops))

/* Their arguments are evaluated, at least. */
#define model_trace(args...)	((void)(unsigned long []){ args })
#include "shim-trace.h"

#include "../../../include/linux/kpkeys_split_reserve.h"
#include "../../../include/linux/kpkeys_pgtable_cache.h"

/* mm/kpkeys_hardened_pgtables.c: page tables are pages of the cache, if there is one. */
struct ptdesc *pagetable_alloc(gfp_t gfp, unsigned int order);
void pagetable_free(struct ptdesc *ptdesc);

#endif /* _KPKEYS_SHIM_H */
