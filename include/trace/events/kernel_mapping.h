/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kernel_mapping

#if !defined(_TRACE_KERNEL_MAPPING_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KERNEL_MAPPING_H

#include <linux/tracepoint.h>

/**
 * kernel_mapping_split - a block of a kernel mapping was split
 * @pfn:  the first page that the block maps.
 * @size: the size of the block in bytes.
 */
TRACE_EVENT(kernel_mapping_split,

	TP_PROTO(unsigned long pfn, unsigned long size),

	TP_ARGS(pfn, size),

	TP_STRUCT__entry(
		__field(unsigned long, pfn)
		__field(unsigned long, size)
	),

	TP_fast_assign(
		__entry->pfn = pfn;
		__entry->size = size;
	),

	TP_printk("pfn=0x%lx size=0x%lx", __entry->pfn, __entry->size)
);

#endif /* _TRACE_KERNEL_MAPPING_H */

#include <trace/define_trace.h>
