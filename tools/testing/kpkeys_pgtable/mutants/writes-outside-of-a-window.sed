# SPDX-License-Identifier: GPL-2.0-only
# unit: state of the cache is changed without a window
/^static bool refill_parked/,/^}/s/scoped_guard(kpkeys_hardened_pgtables)/if (tries)/
