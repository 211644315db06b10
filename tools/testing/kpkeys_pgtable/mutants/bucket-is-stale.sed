# SPDX-License-Identifier: GPL-2.0-only
# unit: a frame stays in its bucket when it has fewer pages
/^static unsigned int give_back_run/,/^}/{/frame_requeue/d}
