# SPDX-License-Identifier: GPL-2.0-only
# prove_refill: a chunk is taken that costs as much as it yields
s/chunk_pages(chunk)) <$/chunk_pages(chunk)) <=/
