/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A model of the locks around protected page tables: refills, splits, reclaim and the
 * conversion of the direct map under stop_machine(). For spin:
 *
 *	spin -a locks.pml && cc -o pan pan.c && ./pan
 *
 * An invalid end state is a deadlock. -DRECLAIM_UNDER_NODE, -DALLOC_UNDER_MUTEX,
 * -DALLOC_UNDER_SPLIT_LOCK, -DMUTEX_FIRST, -DSPLIT_LOCK_FIRST,
 * -DSPLIT_WITH_CPUS_STOPPED and -DNOT_COVERED select kernels that deadlock, or in the
 * last case run out of page tables for a split.
 *
 * Tasks refill as in mm/kpkeys_pgtable_cache.c, and split as set_memory_*() does in
 * arch/arm64/mm/mmu.c. Counts are small, so that pages run out. There is one node. The
 * pages for its frames are left out, because they are filled up in the same way as the
 * reserve.
 */
#define NR_TASKS	2
#define CHUNK		2	/* pages that a refill brings */
#define DEMAND		1	/* CHUNK_MAX_DEMAND, and that of any split */

/* Mutexes, which block tasks that wait for them. In mm/kpkeys_pgtable_cache.c: */
bool node_refill;		/* nodes[].refill */
bool refill_mutex;
/* Elsewhere: */
bool split_lock;		/* arch/arm64/mm/mmu.c: pgtable_split_lock */
bool shrinker_lock;		/* of a shrinker; other tasks allocate tables under it, with GFP_NOFS */
bool stopping;			/* stop_machine(): no task makes progress, whatever it holds */

byte cached = 0;		/* free pages of the node */
byte reserve = DEMAND;		/* refill_reserve.nr */
byte parked = 0;		/* pages of a chunk whose pkey could not be set */
byte memory = 2;		/* pages that the page allocator has */

#define lock(l)		atomic { !l -> l = true }
#define unlock(l)	l = false

/* The split itself takes pages from the given reserve only. */
inline split(r, nr)
{
	lock(split_lock);
#ifdef ALLOC_UNDER_SPLIT_LOCK
	lock(split_lock);			/* of reclaim that changes the direct map */
#endif
	assert(r >= nr);
	r = r - nr;				/* pagetable_alloc_split() */
	unlock(split_lock)
}

/* refill_with(): under the refill mutex, with pages of the caller. */
inline refill_with(nr)
{
	atomic {				/* top_up() */
		if
		:: need = 0			/* the boundary exists already */
		:: need = DEMAND
		fi;
		if
		:: need > reserve && cached > 0 -> cached--; reserve++
		:: else
		fi
	};
	if
#ifndef NOT_COVERED
	:: need > reserve -> memory = memory + nr	/* -EAGAIN */
#endif
	:: else ->
		split(reserve, need);
		if
		:: true ->			/* stock(): the reserve first */
			atomic {
				cached = cached + nr;
				if
				:: reserve < DEMAND -> cached--; reserve++
				:: else
				fi
			}
		:: !parked -> parked = nr
		fi
	fi
}

/* refill_node(): nothing here waits for reclaim. */
inline refill_node()
{
	lock(node_refill);
	if
	:: cached > 0				/* another task was faster */
	:: cached == 0 ->
		lock(refill_mutex);
#ifdef ALLOC_UNDER_MUTEX
		direct_reclaim();
#endif
		if
		:: parked ->			/* refill_parked(): its demand is 0 */
			if
			:: true -> atomic { cached = cached + parked; parked = 0 }
			:: true
			fi;
			unlock(refill_mutex)
		:: else ->
			unlock(refill_mutex);
#ifdef RECLAIM_UNDER_NODE
			direct_reclaim();
#endif
			have = false;
			atomic {		/* GFP_LIGHT */
				if
				:: memory >= CHUNK -> memory = memory - CHUNK; have = true
				:: true
				fi
			};
			if
			:: have ->
#ifdef SPLIT_LOCK_FIRST
				lock(split_lock);
				lock(refill_mutex);
				unlock(split_lock);
#else
				lock(refill_mutex);
#endif
				refill_with(CHUNK);
				unlock(refill_mutex)
			:: else
			fi
		fi
	fi;
	unlock(node_refill)
}

/* refill_singles(), once it has a page, for which the caller may have waited. */
inline refill_single()
{
	have = false;
	atomic {
		if
		:: memory > 0 -> memory--; have = true
		:: true
		fi
	};
	if
	:: have ->
		lock(refill_mutex);
		refill_with(1);
		unlock(refill_mutex)
	:: else
	fi
}

inline take(got)
{
	atomic {
		got = cached > 0;
		cached = cached - got
	}
}

/*
 * For the variants that reclaim where they must not: shrinkers that run in this task
 * wait for any of these locks.
 */
inline direct_reclaim()
{
	if
	:: true
	:: lock(node_refill); unlock(node_refill)
	:: lock(refill_mutex); unlock(refill_mutex)
	:: lock(split_lock); unlock(split_lock)
	fi
}

/*
 * alloc_pages(): without free memory, the shrinkers run in this task. That of the
 * cache takes no mutex but the split lock. Others change the direct map in a
 * PF_MEMALLOC scope: they allocate tables for this, and so refill, but do not reclaim
 * again. One of them takes a lock of its own, unless the gfp flags forbid it.
 */
inline reclaim(nofs)
{
	if
	:: true
	:: true ->				/* give_back() */
		take(got);
		if
		:: got ->
			split(reserve, 0);	/* its table is one of these pages */
			memory++;
			got = false
		:: else
		fi
	:: true ->				/* set_memory_*() */
		take(got);
		if
		:: !got -> refill_node(); refill_single(); take(got)
		:: else
		fi;
		if
		:: got ->
			split(got, DEMAND);
			cached++		/* that table is freed at some time */
		:: else
		fi
	:: !nofs ->
		lock(shrinker_lock);
		unlock(shrinker_lock)
	fi
}

/* kpkeys_pgtable_cache_alloc() by a task that may refill: alloc_slow(). */
inline alloc(nofs)
{
	take(got);
	if
	:: !got ->
		refill_node();
		take(got);
		if
		:: !got ->
			reclaim(nofs);
			refill_single();
			take(got)
		:: else
		fi
	:: else
	fi
}

/*
 * A task allocates and frees page tables, also under a lock that a shrinker takes. It
 * splits with a reserve of its own, which it fills before it takes the split lock, as
 * fill_and_split_range() does.
 */
active [NR_TASKS] proctype task() provided (!stopping)
{
	bool have, got;
	byte need;

end:	do
	:: alloc(false);
		atomic { cached = cached + got; got = false }
	:: lock(shrinker_lock);
		alloc(true);
		unlock(shrinker_lock);
		atomic { cached = cached + got; got = false }
	:: alloc(false);			/* kpkeys_split_reserve_fill() */
		if
		:: got ->
			split(got, DEMAND);
			/* kpkeys_split_reserve_return(); the table is freed at some time */
			cached++
		:: else				/* -ENOMEM: nothing has changed */
		fi
	:: lock(refill_mutex);			/* kpkeys_pgtable_cache_stats() */
#ifdef MUTEX_FIRST
		lock(node_refill);
		unlock(node_refill);
#endif
		assert(reserve <= DEMAND);
		unlock(refill_mutex)
	od
}

/*
 * linear_map_maybe_split_to_ptes(): first it gets all pages, then it stops all CPUs.
 * Tasks may hold any mutex then, so it must not wait for one.
 */
active proctype convert()
{
	/* The tables are allocated beforehand, with no lock held. */
	stopping = true;
#ifdef SPLIT_WITH_CPUS_STOPPED
	(!split_lock) -> split_lock = true;
	split_lock = false;
#endif
	stopping = false
}
