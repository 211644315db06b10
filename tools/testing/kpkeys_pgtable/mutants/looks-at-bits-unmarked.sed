# SPDX-License-Identifier: GPL-2.0-only
# threads: bits beside those that change are read as if nothing did
s/return data_race(test_bit(bit, pages));/return test_bit(bit, pages);/
