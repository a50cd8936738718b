/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An ext4 on a loop device over the test device b0, which holds what it is told
 * to. A test begins with loopfs_begin() and ends with loopfs_end(), when b0 answers
 * and no file is open.
 */
#ifndef RAIO_LOOPFS_H
#define RAIO_LOOPFS_H

#include <linux/loop.h>

#include "raio_task.h"
#include "raio_testdev.h"

/**
 * struct loopfs - a file system
 * @node:	the loop device
 * @loop:	it, opened
 * @dir:	where it is mounted
 * @mounted:	that it is
 */
struct loopfs {
	char node[32];
	int loop;
	char dir[64];
	bool mounted;
};

static inline void loopfs_begin(struct __test_metadata *_metadata, struct loopfs *fs)
{
	struct loop_config config = { .info.lo_flags = LO_FLAGS_DIRECT_IO };
	char cmd[128];
	int control, nr;

	fs->mounted = false;
	fs->loop = -1;
	config.fd = testdev_open("b0", 0);
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	nr = ioctl(control, LOOP_CTL_GET_FREE);
	ASSERT_LE(0, nr);
	close(control);
	snprintf(fs->node, sizeof(fs->node), "/dev/loop%d", nr);
	fs->loop = open(fs->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fs->loop);
	ASSERT_EQ(0, ioctl(fs->loop, LOOP_CONFIGURE, &config)) {
		TH_LOG("%s: %s", fs->node, strerror(errno));
	}
	close(config.fd);

	/* Nothing is written to it later by itself. */
	snprintf(cmd, sizeof(cmd), "mkfs.ext4 -q -F -E lazy_itable_init=0 %s 64m", fs->node);
	ASSERT_EQ(0, system(cmd));
	snprintf(fs->dir, sizeof(fs->dir), "%s/raio-test-mount", tmpfs_dir());
	mkdir(fs->dir, 0700);
	ASSERT_EQ(0, mount(fs->node, fs->dir, "ext4", MS_NOATIME, NULL)) {
		TH_LOG("%s", strerror(errno));
	}
	fs->mounted = true;
	first_transfer(_metadata, fs->dir);
}

static inline void loopfs_end(struct __test_metadata *_metadata, struct loopfs *fs)
{
	if (fs->mounted) {
		/* Who had a file of it open may let go of it a little later. */
		EXPECT_TRUE(wait_for(!umount(fs->dir)));
	}
	rmdir(fs->dir);
	if (fs->loop >= 0) {
		EXPECT_EQ(0, ret_errno(ioctl(fs->loop, LOOP_CLR_FD)));
		close(fs->loop);
	}
}

#endif /* RAIO_LOOPFS_H */
