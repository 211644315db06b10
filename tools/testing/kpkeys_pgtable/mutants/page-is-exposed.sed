# SPDX-License-Identifier: GPL-2.0-only
# prove_give_back: a chunk is freed whose pkey could not be restored
/^static unsigned int chunk_give_back/,/^}/s/^	if (ret) {/	if (ret == -ENOMEM) {/
