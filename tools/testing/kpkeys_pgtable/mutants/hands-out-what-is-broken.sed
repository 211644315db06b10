# SPDX-License-Identifier: GPL-2.0-only
# unit: nobody looks whether a page is broken
/hand_out(unsigned long pfn, unsigned long \*bad)/,/^}/s/if (unlikely(PageHWPoison(page))) {/if (0) {/
