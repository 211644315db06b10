/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A list in the place of the tree of chunks, for CBMC: the algorithm of the tree
 * is not what is looked at, and would be most of what it has to look at.
 */
#ifndef _KPKEYS_RBTREE_LIST_H
#define _KPKEYS_RBTREE_LIST_H

struct rb_node {
	struct rb_node *next;
};

struct rb_root {
	struct rb_node *first;
};

#define RB_ROOT			{ }
#define rb_entry(ptr, type, member)	container_of(ptr, type, member)
#define rb_entry_safe(ptr, type, member)	\
	({ typeof(ptr) __p = (ptr); __p ? rb_entry(__p, type, member) : NULL; })

static inline struct rb_node *rb_first(const struct rb_root *root)
{
	return root->first;
}

static inline struct rb_node *rb_next(const struct rb_node *node)
{
	return node->next;
}

static inline void rb_add(struct rb_node *node, struct rb_root *root,
			  bool (*less)(struct rb_node *a, const struct rb_node *b))
{
	node->next = root->first;
	root->first = node;
}

static inline void rb_erase(struct rb_node *node, struct rb_root *root)
{
	struct rb_node **p = &root->first;

	while (*p != node)
		p = &(*p)->next;
	*p = node->next;
}

static inline struct rb_node *rb_find(const void *key, const struct rb_root *root,
				      int (*cmp)(const void *key, const struct rb_node *node))
{
	struct rb_node *node;

	for (node = root->first; node; node = node->next) {
		if (!cmp(key, node))
			return node;
	}

	return NULL;
}

#endif /* _KPKEYS_RBTREE_LIST_H */
