# SPDX-License-Identifier: GPL-2.0-only
# unit: a page is handed out because a magazine says so
s/	if (!mark_used(pfn)) {/	if (!mark_used(pfn) \&\& !pfn) {/
