# SPDX-License-Identifier: GPL-2.0-only
# prove_refill: the reserve is not filled up from the yield
s/refill_reserve.nr < CHUNK_MAX_DEMAND &&/refill_reserve.nr < 1 \&\&/
/^	VM_WARN_ON_ONCE(chunk->order/d
