# SPDX-License-Identifier: GPL-2.0-only
# unit: only whole frames are given back
/^static struct frame \*find_frame/,/^}/s/i > 0; i--/i == IDLE_BUCKET; i--/
