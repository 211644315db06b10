# SPDX-License-Identifier: GPL-2.0-only
# prove_refill: a chunk whose pkey could not be set is forgotten
/^		parked = chunk;/d
