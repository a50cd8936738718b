/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A memory cgroup of a test's own.
 */
#ifndef RAIO_CGROUP_H
#define RAIO_CGROUP_H

#include "raio_test.h"

#define CGROUPS		"/sys/fs/cgroup"

static inline int cgroup_write(const char *dir, const char *file, const char *str)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return write_str(path, str);
}

/* The number after @key in @file, or the only one if that is NULL. */
static inline unsigned long cgroup_read(const char *dir, const char *file, const char *key)
{
	unsigned long val = 0;
	char path[128], line[128];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f)) {
		if (!key)
			found = sscanf(line, "%lu", &val) == 1;
		else if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ' ')
			found = sscanf(line + strlen(key), "%lu", &val) == 1;
	}
	if (!found)
		ksft_exit_fail_msg("%s has no %s\n", path, key ?: "number");
	fclose(f);
	return val;
}

/* Moves a process into it. */
static inline int cgroup_take(const char *dir, pid_t pid)
{
	char str[16];

	snprintf(str, sizeof(str), "%d", pid);
	return cgroup_write(dir, "cgroup.procs", str);
}

/* A new one, whose name is put into @dir. */
static inline void cgroup_make(struct __test_metadata *_metadata, char *dir, size_t size)
{
	if (access(CGROUPS "/cgroup.controllers", F_OK))
		mount("cgroup2", CGROUPS, "cgroup2", 0, NULL);
	ASSERT_EQ(0, write_str(CGROUPS "/cgroup.subtree_control", "+memory")) {
		TH_LOG("no memory cgroups");
	}
	snprintf(dir, size, CGROUPS "/raio-test-%d", getpid());
	ASSERT_EQ(0, mkdir(dir, 0755));
}

#endif /* RAIO_CGROUP_H */
