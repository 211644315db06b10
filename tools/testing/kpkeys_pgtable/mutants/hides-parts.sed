# SPDX-License-Identifier: GPL-2.0-only
# unit: a frame that is not worth a split hides those behind it
/^static void frame_requeue/,/^}/s/list_add_tail(/list_add(/
