# SPDX-License-Identifier: GPL-2.0-only
# unit: a page that is taken stays in its frame
/^static unsigned int node_take/,/^}/s/__clear_bit(bit, frame->free);//
