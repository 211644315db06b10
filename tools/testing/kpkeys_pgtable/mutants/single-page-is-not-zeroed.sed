# SPDX-License-Identifier: GPL-2.0-only
# every: a single page goes to its user as it is
s/init_page(refill_singles(gfp, &ret), gfp)/refill_singles(gfp, \&ret)/
