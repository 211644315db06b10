# SPDX-License-Identifier: GPL-2.0-only
# unit: a CPU that goes takes its magazine along
s/^	drain_magazine(&magazines\[cpu\]);//
