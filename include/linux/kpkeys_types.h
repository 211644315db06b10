/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_KPKEYS_TYPES_H
#define _LINUX_KPKEYS_TYPES_H

#include <linux/types.h>

/**
 * struct kpkeys_state - what kpkeys_leave_context() has to undo
 * @changed: enter has written the register.
 *
 * Lives on the stack of the section that it belongs to.
 *
 * Invariant: @changed alone decides whether leave writes. Whether the machine
 * has kpkeys, or the feature that opened the window is on, must not be looked
 * at again: the answer may have changed inside the section, and the window
 * would then stay open for good, or open where it never was.
 */
struct kpkeys_state {
	bool changed;
};

#endif /* _LINUX_KPKEYS_TYPES_H */
