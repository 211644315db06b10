/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kpkeys

#if !defined(_TRACE_KPKEYS_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KPKEYS_H

#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(kpkeys_pgtable_pages,

	TP_PROTO(unsigned long pfn, unsigned int nr, unsigned int tables, int ret),

	TP_ARGS(pfn, nr, tables, ret),

	TP_STRUCT__entry(
		__field(unsigned long, pfn)
		__field(unsigned int, nr)
		__field(unsigned int, tables)
		__field(int, ret)
	),

	TP_fast_assign(
		__entry->pfn = pfn;
		__entry->nr = nr;
		__entry->tables = tables;
		__entry->ret = ret;
	),

	TP_printk("pfn=0x%lx nr=%u tables=%u ret=%d",
		  __entry->pfn, __entry->nr, __entry->tables, __entry->ret)
);

/**
 * kpkeys_pgtable_refill - the cache of page-table pages got a chunk
 * @pfn:    the first page of the chunk.
 * @nr:     the number of pages.
 * @tables: the number of page tables that were used to split it off the direct map.
 * @ret:    0; or the error of setting the pkey, and the chunk is parked or leaked.
 */
DEFINE_EVENT(kpkeys_pgtable_pages, kpkeys_pgtable_refill,
	TP_PROTO(unsigned long pfn, unsigned int nr, unsigned int tables, int ret),
	TP_ARGS(pfn, nr, tables, ret)
);

/**
 * kpkeys_pgtable_give_back - free pages go back to the page allocator
 * @pfn:    the first page.
 * @nr:     the number of pages.
 * @tables: the number of page tables that were used to split them off the direct map.
 * @ret:    0; or the error of resetting the pkey, and the pages are leaked.
 */
DEFINE_EVENT(kpkeys_pgtable_pages, kpkeys_pgtable_give_back,
	TP_PROTO(unsigned long pfn, unsigned int nr, unsigned int tables, int ret),
	TP_ARGS(pfn, nr, tables, ret)
);

/**
 * kpkeys_write_stopped - a write to a page table outside of a context
 * @addr: the address of the write.
 * @pc:   the instruction.
 */
TRACE_EVENT(kpkeys_write_stopped,

	TP_PROTO(unsigned long addr, unsigned long pc),

	TP_ARGS(addr, pc),

	TP_STRUCT__entry(
		__field(unsigned long, addr)
		__field(unsigned long, pc)
	),

	TP_fast_assign(
		__entry->addr = addr;
		__entry->pc = pc;
	),

	TP_printk("addr=0x%lx pc=%pS", __entry->addr, (void *)__entry->pc)
);

#endif /* _TRACE_KPKEYS_H */

#include <trace/define_trace.h>
