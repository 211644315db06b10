/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who waits for whom when page tables are protected: refills, splits, reclaim and
 * the conversion of the direct map under stop_machine(). For spin:
 *
 *	spin -a locks.pml && cc -o pan pan.c && ./pan
 *
 * An invalid end state is a deadlock. -DRECLAIM_UNDER_NODE, -DALLOC_UNDER_MUTEX,
 * -DALLOC_UNDER_SPLIT_LOCK, -DMUTEX_FIRST, -DSPLIT_LOCK_FIRST,
 * -DSPLIT_WITH_CPUS_STOPPED and -DNOT_COVERED are kernels that have one, or in the
 * last case run out of page tables for a split.
 *
 * Tasks that refill: mm/kpkeys_pgtable_cache.c. Tasks that split: set_memory_*(), in
 * arch/arm64/mm/mmu.c. Counts are small: what matters is that pages run out. There is
 * one node, and the pages for its frames are left out: they are filled up as the
 * reserve is.
 */
#define NR_TASKS	2
#define CHUNK		2	/* pages that a refill brings */
#define DEMAND		1	/* CHUNK_MAX_DEMAND, and that of any split */

/* Mutexes: who waits for one is blocked. In mm/kpkeys_pgtable_cache.c: */
bool node_refill;		/* nodes[].refill */
bool refill_mutex;
/* And elsewhere: */
bool split_lock;		/* arch/arm64/mm/mmu.c: pgtable_split_lock */
bool shrinker_lock;		/* of a shrinker; others allocate tables under it, with GFP_NOFS */
bool stopping;			/* stop_machine(): no task gets any further, whatever it holds */

byte cached = 0;		/* free pages of the node */
byte reserve = DEMAND;		/* refill_reserve.nr */
byte parked = 0;		/* pages of a chunk whose pkey could not be set */
byte memory = 2;		/* pages that the page allocator has */

#define lock(l)		atomic { !l -> l = true }
#define unlock(l)	l = false

/* The split proper: consumes from the reserve that is handed in, nothing else. */
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

/* refill_with(): under the refill mutex, with pages that are the caller's. */
inline refill_with(nr)
{
	atomic {				/* top_up() */
		if
		:: need = 0			/* there is a boundary already */
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

/* refill_node(): nobody here waits for reclaim. */
inline refill_node()
{
	lock(node_refill);
	if
	:: cached > 0				/* somebody else was faster */
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

/* refill_singles(), when the page is there: the caller has waited for it, or not. */
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
 * What others' shrinkers do to this very task, for the variants that reclaim where
 * they must not: they wait for any of these locks.
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
 * alloc_pages(): when there is no memory, the shrinkers run in this very context.
 * That of the cache takes no mutex but the split lock. Those of others change the
 * direct map in a PF_MEMALLOC scope, for which they allocate tables, and so refill,
 * but do not reclaim again; and one takes a lock of its own, unless it is told not to.
 */
inline reclaim(nofs)
{
	if
	:: true
	:: true ->				/* give_back() */
		take(got);
		if
		:: got ->
			split(reserve, 0);	/* its table is of its own pages */
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
			cached++		/* in time, that table is free again */
		:: else
		fi
	:: !nofs ->
		lock(shrinker_lock);
		unlock(shrinker_lock)
	fi
}

/* kpkeys_pgtable_cache_alloc() by who may refill: alloc_slow(). */
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
 * A task allocates and frees page tables, also under a lock that a shrinker takes,
 * and splits with a reserve of its own, which is filled before the split lock is
 * taken: fill_and_split_range().
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
			/* kpkeys_split_reserve_return(); and the table goes as well, in time */
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
 * linear_map_maybe_split_to_ptes(): all pages first, then all CPUs stop, while tasks
 * hold any mutex; so none may be waited for.
 */
active proctype convert()
{
	/* The tables are allocated before, as a task allocates, and with nothing held. */
	stopping = true;
#ifdef SPLIT_WITH_CPUS_STOPPED
	(!split_lock) -> split_lock = true;
	split_lock = false;
#endif
	stopping = false
}
