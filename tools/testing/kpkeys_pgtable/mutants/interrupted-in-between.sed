# SPDX-License-Identifier: GPL-2.0-only
# unit: an interrupt sees a page in two places
/^static bool take_split_tables/,/^}/s/guard(irqsave)();//
