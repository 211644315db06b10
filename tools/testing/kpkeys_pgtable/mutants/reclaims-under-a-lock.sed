# SPDX-License-Identifier: GPL-2.0-only
# unit: what is allocated for a node waits for reclaim
s/GFP_LIGHT | __GFP_THISNODE/GFP_KERNEL | __GFP_THISNODE/
