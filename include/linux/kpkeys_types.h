/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_KPKEYS_TYPES_H
#define _LINUX_KPKEYS_TYPES_H

#include <linux/types.h>

/*
 * For functions that open a window for their caller. They are inlined, so that the
 * image has no function that can be called to get an open window.
 */
#ifdef CONFIG_KPKEYS
#define __kpkeys_inline		__always_inline
#else
#define __kpkeys_inline		inline
#endif

/**
 * struct kpkeys_state - what kpkeys_leave_context() has to undo
 * @changed: enter has written the register.
 *
 * Lives on the stack of its section.
 *
 * Invariant: leave writes the register only if @changed is set. Leave must not
 * check again whether the machine has kpkeys, or whether the feature that opened
 * the window is on: that may have changed inside the section, and the window would
 * stay open.
 */
struct kpkeys_state {
	bool changed;
};

#endif /* _LINUX_KPKEYS_TYPES_H */
