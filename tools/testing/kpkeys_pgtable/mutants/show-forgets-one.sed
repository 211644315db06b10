# SPDX-License-Identifier: GPL-2.0-only
# unit: the file in debugfs lacks a line
/^static int stats_show/,/^}/s/for (i = 0;/for (i = 1;/
