/* SPDX-License-Identifier: GPL-2.0-only */
/* The two files, unchanged or as a mutant. */
#ifndef RESERVE_C
#define RESERVE_C	"../../../mm/kpkeys_split_reserve.c"
#endif
#ifndef CACHE_C
#define CACHE_C		"../../../mm/kpkeys_pgtable_cache.c"
#endif

#include "shim.h"
#include RESERVE_C
#include CACHE_C
#include "check.c"
