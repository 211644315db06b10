# SPDX-License-Identifier: GPL-2.0-only
# prove_give_back: a page that is handed out stays on the list
/^	list_del(&page->lru);/d
