# SPDX-License-Identifier: GPL-2.0-only
# unit: a page that is taken stays in its frame
/^static unsigned int frame_take/,/^}/s/frame->free\[i\] = word;//
