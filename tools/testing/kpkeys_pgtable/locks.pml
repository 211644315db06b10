/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who waits for whom when page tables are protected: refills, splits, reclaim and
 * the conversion of the direct map under stop_machine(). For spin:
 *
 *	spin -a locks.pml && cc -o pan pan.c && ./pan
 *
 * An invalid end state is a deadlock. -DALLOC_UNDER_MUTEX, -DALLOC_UNDER_SPLIT_LOCK,
 * -DSPLIT_LOCK_FIRST, -DSPLIT_WITH_CPUS_STOPPED and -DNO_TOP_UP are kernels that have
 * one, or in the last case run out of page tables for a split.
 *
 * Tasks that refill: mm/kpkeys_pgtable_cache.c. Tasks that split: set_memory_*(), in
 * arch/arm64/mm/mmu.c. Counts are small: what matters is that pages run out.
 */
#define NR_TASKS	2
#define CHUNK		2	/* pages that a refill brings */
#define DEMAND		1	/* CHUNK_MAX_DEMAND, and that of any split */

/* Mutexes: who waits for one is blocked. */
bool refill_mutex;		/* mm/kpkeys_pgtable_cache.c: refill_mutex */
bool split_lock;		/* arch/arm64/mm/mmu.c: pgtable_split_lock */
bool shrinker_lock;		/* of a shrinker; others allocate tables under it, with GFP_NOFS */
bool stopping;			/* stop_machine(): no task gets any further, whatever it holds */

byte cached = 0;		/* cache.stats.cached */
byte reserve = DEMAND;		/* refill_reserve.nr */
bool parked;			/* a chunk whose split is done */
byte memory = 2;		/* chunks that the page allocator has */

#define lock(l)		atomic { !l -> l = true }
#define unlock(l)	l = false

/*
 * alloc_pages(): when there is no memory, the shrinkers run in this very context.
 * That of the cache takes no mutex. Those of others change the direct map in a
 * PF_MEMALLOC scope, and so take the split lock; and one takes a lock of its own,
 * unless it is told not to.
 */
inline reclaim(nofs)
{
	if
	:: true
	:: true ->
		atomic {	/* kpkeys_pgtable_cache_shrink() */
			if
			:: cached >= CHUNK -> cached = cached - CHUNK; memory++
			:: else
			fi
		}
	:: true ->
		lock(split_lock);	/* its tables are from take_page(0), or it gives up */
		unlock(split_lock)
	:: !nofs ->
		lock(shrinker_lock);
		unlock(shrinker_lock)
	fi
}

/* The split proper: consumes from the reserve that is handed in, nothing else. */
inline split(r)
{
	lock(split_lock);
#ifdef ALLOC_UNDER_SPLIT_LOCK
	reclaim(false);
#endif
	if
	:: true					/* there is a boundary already */
	:: true -> assert(r >= DEMAND); r = r - DEMAND	/* pagetable_alloc_split() */
	fi;
	unlock(split_lock)
}

/* refill(): the chunk first, then the mutex; then look again. */
inline refill(nofs)
{
	have = false;
#ifndef ALLOC_UNDER_MUTEX
	reclaim(nofs);
	atomic {				/* chunk_alloc() */
		if
		:: memory > 0 -> memory--; have = true
		:: true				/* it failed */
		fi
	}
#endif
#ifdef SPLIT_LOCK_FIRST
	lock(split_lock);
	lock(refill_mutex);
	unlock(split_lock);
#else
	lock(refill_mutex);
#endif
#ifdef ALLOC_UNDER_MUTEX
	reclaim(nofs);
	atomic {
		if
		:: memory > 0 -> memory--; have = true
		:: true
		fi
	}
#endif
	if
	:: cached > 0 ->			/* somebody else was faster */
		unlock(refill_mutex);
		if
		:: have -> memory++		/* chunk_free() of what was not used */
		:: else
		fi
	:: cached == 0 && (parked || have) ->
		if
		:: parked ->			/* its boundaries are there: the demand is 0 */
			if
			:: have -> memory++
			:: else
			fi;
			parked = false
		:: else ->
			/* refill_with(): whenever refill_mutex was free, the reserve covered this */
			split(reserve)
		fi;
		if
		:: true ->			/* chunk_stock(): the reserve first */
			atomic {
#ifdef NO_TOP_UP
				cached = cached + CHUNK;
#else
				cached = cached + CHUNK - (DEMAND - reserve);
				reserve = DEMAND;
#endif
			}
		:: true -> parked = true	/* its pkey could not be set */
		fi;
		unlock(refill_mutex)
	:: else -> unlock(refill_mutex)
	fi
}

/* kpkeys_pgtable_cache_alloc() by who may refill. */
inline alloc(got, nofs)
{
	got = false;
	atomic {
		if
		:: cached > 0 -> cached--; got = true
		:: else
		fi
	};
	if
	:: !got ->
		refill(nofs);
		atomic {
			if
			:: cached > 0 -> cached--; got = true
			:: else
			fi
		}
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
	byte mine = 0;

end:	do
	:: alloc(got, false);
		atomic { cached = cached + got; got = false }
	:: lock(shrinker_lock);
		alloc(got, true);
		unlock(shrinker_lock);
		atomic { cached = cached + got; got = false }
	:: alloc(got, false);			/* kpkeys_split_reserve_fill() */
		if
		:: got ->
			mine = 1;
			split(mine);
			/* kpkeys_split_reserve_return(); and the table goes as well, in time */
			atomic { cached++; mine = 0; got = false }
		:: else				/* -ENOMEM: nothing has changed */
		fi
	:: lock(refill_mutex);			/* kpkeys_pgtable_cache_stats() */
		assert(reserve >= DEMAND || parked);
		unlock(refill_mutex)
	od
}

/*
 * linear_map_maybe_split_to_ptes(): all pages first, then all CPUs stop, while tasks
 * hold any mutex; so none may be waited for.
 */
active proctype convert()
{
	/* They are counted and allocated: the page allocator, and reclaim, as anybody. */
	reclaim(false);
	stopping = true;
#ifdef SPLIT_WITH_CPUS_STOPPED
	(!split_lock) -> split_lock = true;
	split_lock = false;
#endif
	stopping = false
}
