/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kpkeys

#if !defined(_TRACE_KPKEYS_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KPKEYS_H

#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(kpkeys_pgtable_chunk,

	TP_PROTO(unsigned long pfn, unsigned int order, unsigned int tables, int ret),

	TP_ARGS(pfn, order, tables, ret),

	TP_STRUCT__entry(
		__field(unsigned long, pfn)
		__field(unsigned int, order)
		__field(unsigned int, tables)
		__field(int, ret)
	),

	TP_fast_assign(
		__entry->pfn = pfn;
		__entry->order = order;
		__entry->tables = tables;
		__entry->ret = ret;
	),

	TP_printk("pfn=0x%lx order=%u tables=%u ret=%d",
		  __entry->pfn, __entry->order, __entry->tables, __entry->ret)
);

/**
 * kpkeys_pgtable_refill - the cache of page-table pages got a chunk
 * @pfn:    its first page.
 * @order:  its order.
 * @tables: how many page tables it took to split it off the direct map.
 * @ret:    0, or why its pkey could not be set, and it is parked.
 */
DEFINE_EVENT(kpkeys_pgtable_chunk, kpkeys_pgtable_refill,
	TP_PROTO(unsigned long pfn, unsigned int order, unsigned int tables, int ret),
	TP_ARGS(pfn, order, tables, ret)
);

/**
 * kpkeys_pgtable_give_back - a free chunk goes back to the page allocator
 * @pfn:    its first page.
 * @order:  its order.
 * @tables: 0; the boundaries of a whole chunk are there.
 * @ret:    0, or why its pkey could not be reset, and it is leaked.
 */
DEFINE_EVENT(kpkeys_pgtable_chunk, kpkeys_pgtable_give_back,
	TP_PROTO(unsigned long pfn, unsigned int order, unsigned int tables, int ret),
	TP_ARGS(pfn, order, tables, ret)
);

#endif /* _TRACE_KPKEYS_H */

#include <trace/define_trace.h>
