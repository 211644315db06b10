# SPDX-License-Identifier: GPL-2.0-only
# unit: memory that goes offline is kept if the node has few other free pages
s/if (!may_refill(GFP_KERNEL) || refill_node(nid, ULONG_MAX))/if (true)/
