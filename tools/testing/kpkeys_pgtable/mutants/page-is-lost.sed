# SPDX-License-Identifier: GPL-2.0-only
# unit: a chunk whose pkey could not be set is forgotten
/cache->parked.tries = tries + 1;/d
