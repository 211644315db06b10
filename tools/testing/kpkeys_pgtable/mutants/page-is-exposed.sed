# SPDX-License-Identifier: GPL-2.0-only
# unit: pages are freed whose pkey could not be restored
/^static unsigned int give_back_run/,/^}/s/^	if (ret) {/	if (ret == -ENOMEM) {/
