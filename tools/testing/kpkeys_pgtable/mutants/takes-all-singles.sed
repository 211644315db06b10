# SPDX-License-Identifier: GPL-2.0-only
# unit: single pages are taken until none is left
s/} while (one == NO_PFN \&\& nr/} while (nr/
