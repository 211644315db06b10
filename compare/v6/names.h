/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How the file that "make compare V6=" is given calls its entry points. These are the
 * names of version 6. If those of the file differ, this is all that has to be changed:
 * the file itself is compiled unchanged.
 */
#ifndef _COMPARE_V6_NAMES_H
#define _COMPARE_V6_NAMES_H

/* What the file defines and the series defines, too. */
#define kpkeys_hardened_pgtables_key		v6_key
#define kpkeys_hardened_pgtables_init		v6_init
#define kpkeys_pgtable_alloc			v6_alloc
#define kpkeys_pgtable_free			v6_free
#define kpkeys_prepare_direct_map_split		v6_prepare
#define kpkeys_ready_for_direct_map_split	v6_ready

/* How the glue calls them. */
#define V6_INIT()	v6_init()
#define V6_ALLOC(gfp)	v6_alloc(gfp)
#define V6_FREE(page)	v6_free(page)
#define V6_PREPARE()	v6_prepare()
#define V6_READY()	v6_ready()

#endif /* _COMPARE_V6_NAMES_H */
