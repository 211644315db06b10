# SPDX-License-Identifier: GPL-2.0-only
# prove_fill: a take after a fill finds nothing
s/while (reserve->nr < nr)/while (reserve->nr + 1 < nr)/
