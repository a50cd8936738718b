/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a process has mapped, as /proc tells: above all its rings.
 */
#ifndef RAIO_MAPS_H
#define RAIO_MAPS_H

#include "raio_test.h"

/* A line of maps, and the flags in smaps, each between blanks. */
struct vm {
	unsigned long end;
	char perms[8];
	char flags[512];
};

/* The mapping that begins at @addr. False if none does. */
static inline bool vm_at(unsigned long addr, struct vm *vm)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	bool found = false, in_it = false;
	unsigned long from, to;
	char line[512], p[8];

	memset(vm, 0, sizeof(*vm));
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %7s", &from, &to, p) == 3) {
			in_it = from == addr;
			if (in_it) {
				memcpy(vm->perms, p, sizeof(p));
				vm->end = to;
			}
		} else if (in_it && !strncmp(line, "VmFlags:", 8)) {
			line[strcspn(line, "\n")] = 0;
			snprintf(vm->flags, sizeof(vm->flags), "%s ", line + 8);
			found = true;
		}
	}
	fclose(f);
	return found;
}

/* How many mappings have @name in their line; all for "". */
static inline unsigned int vm_count(const char *name)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned int n = 0;
	char line[512];

	if (!f)
		return UINT_MAX;
	while (fgets(line, sizeof(line), f))
		n += !!strstr(line, name);
	fclose(f);
	return n;
}

/* What a ring is called there. */
static inline const char *ring_name(const struct aio_ops *ops)
{
	return ops->is_raio ? "[raio]" : "[aio]";
}

#endif /* RAIO_MAPS_H */
