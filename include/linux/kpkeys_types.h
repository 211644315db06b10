/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_KPKEYS_TYPES_H
#define _LINUX_KPKEYS_TYPES_H

#include <linux/types.h>

/**
 * struct kpkeys_state - what kpkeys_leave_context() has to undo
 * @restore: the previous value of the register, or 0 if it was not written. No
 *           value of the register is 0.
 *
 * Lives on the stack of its section, or in the task if the section does not end
 * in the function that began it.
 *
 * Invariant: only @restore decides whether leave writes the register. Leave must
 * not check again whether the machine has kpkeys, or whether the feature that
 * opened the window is on. That may have changed inside the section; the window
 * would stay open, or a window would be opened that never was.
 */
struct kpkeys_state {
	u64 restore;
};

#endif /* _LINUX_KPKEYS_TYPES_H */
