# SPDX-License-Identifier: GPL-2.0-only
# threads: pages are counted outside of the lock
/^static void count_taken/,/^}/s/^	guard.*//
