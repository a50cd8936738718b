/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The files and devices on which data is read and written.
 */
#ifndef RAIO_TARGET_H
#define RAIO_TARGET_H

#include <linux/loop.h>

#include "raio_task.h"

#define FILE_SIZE	((1UL << 20) + 65536)
#define SEED_OLD	1
#define SEED_NEW	2

enum where { TMPFS, EXT4, XFS, NULL_BLK, LOOP };

/**
 * struct target - a file or device that holds FILE_SIZE bytes
 * @where:	on what
 * @flags:	O_DIRECT or 0
 * @fd:		opened for reading and writing
 * @align:	offsets, lengths and addresses have to be a multiple of it
 * @nb:		the device, if it is one
 * @node:	the node of a loop device
 */
struct target {
	enum where where;
	int flags;
	int fd;
	unsigned int align;
	struct nullb nb;
	char node[PATH_MAX];
};

/* A loop device over a new file on ext4. It goes when its last user does. */
static inline int loop_open(struct target *t)
{
	int backing = temp_file(ext4_dir(), O_RDWR);
	struct loop_config config = {
		.fd = backing,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR,
	};
	int control, fd = -EBUSY, tries;

	if (backing < 0)
		return backing;
	if (ftruncate(backing, FILE_SIZE))
		return -errno;
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return -errno;
	/* Another process may be quicker to take the one that was free. */
	for (tries = 0; fd == -EBUSY && tries < 10; tries++) {
		int nr = ioctl(control, LOOP_CTL_GET_FREE);

		if (nr < 0)
			return -errno;
		snprintf(t->node, sizeof(t->node), "%s/raio-test-loop-%d", tmpfs_dir(), getpid());
		unlink(t->node);
		if (mknod(t->node, S_IFBLK | 0600, makedev(7, nr)))
			return -errno;
		fd = ret_errno(open(t->node, O_RDWR | O_CLOEXEC | t->flags));
		unlink(t->node);
		if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config)) {
			int err = -errno;

			close(fd);
			fd = err;
		}
	}
	close(control);
	close(backing);
	return fd;
}

static inline void target_open(struct __test_metadata *_metadata, struct target *t)
{
	int err;

	t->nb.dir[0] = 0;
	t->align = t->flags & O_DIRECT ? BLOCK : 1;
	switch (t->where) {
	case TMPFS:
		ASSERT_TRUE(fs_is(tmpfs_dir(), TMPFS_MAGIC)) {
			TH_LOG("no tmpfs at %s", tmpfs_dir());
		}
		t->fd = temp_file(tmpfs_dir(), O_RDWR | t->flags);
		break;
	case EXT4:
		ASSERT_TRUE(fs_is(ext4_dir(), EXT4_SUPER_MAGIC)) {
			TH_LOG("no ext4 at %s", ext4_dir());
		}
		t->fd = temp_file(ext4_dir(), O_RDWR | t->flags);
		break;
	case XFS:
		ASSERT_TRUE(fs_is(xfs_dir(), XFS_SUPER_MAGIC)) {
			TH_LOG("no xfs at %s", xfs_dir());
		}
		t->fd = temp_file(xfs_dir(), O_RDWR | t->flags);
		break;
	case NULL_BLK:
		err = nullb_create(&t->nb);
		ASSERT_EQ(0, err) {
			TH_LOG("null_blk by configfs: %s", strerror(-err));
		}
		t->fd = ret_errno(open(t->nb.node, O_RDWR | O_CLOEXEC | t->flags));
		break;
	case LOOP:
		t->fd = loop_open(t);
		break;
	}
	ASSERT_LE(0, t->fd) {
		TH_LOG("%s", strerror(-t->fd));
	}
}

static inline void target_close(struct target *t)
{
	close(t->fd);
	nullb_remove(&t->nb);
}

/* null_blk has no cache of its own, and nothing to flush, unless it is told to have one. */
static inline void target_must_flush(struct __test_metadata *_metadata, struct target *t)
{
	if (t->where != NULL_BLK)
		return;
	close(t->fd);
	ASSERT_EQ(0, nullb_set(&t->nb, "power", 0));
	ASSERT_EQ(0, nullb_set(&t->nb, "cache_size", NULLB_MB));
	/* Or a write that goes through its cache does instead of a flush. */
	ASSERT_EQ(0, nullb_set(&t->nb, "fua", 0));
	ASSERT_EQ(0, nullb_set(&t->nb, "power", 1));
	t->fd = ret_errno(open(t->nb.node, O_RDWR | O_CLOEXEC | t->flags));
	ASSERT_LE(0, t->fd);
}

static inline bool target_is_file(const struct target *t)
{
	return t->where == TMPFS || t->where == EXT4 || t->where == XFS;
}

/* Fills the first @len bytes with the pattern of @seed; a file gets all its size. */
static inline void target_fill(struct __test_metadata *_metadata, struct target *t, size_t len,
			       uint64_t seed)
{
	char *buf = map_pages(len);

	pattern_fill(buf, len, 0, seed);
	ASSERT_EQ(len, pwrite(t->fd, buf, len, 0));
	munmap(buf, len);
	if (target_is_file(t)) {
		ASSERT_EQ(0, ftruncate(t->fd, FILE_SIZE)) {
			TH_LOG("%s", strerror(errno));
		}
	}
}

/* Counters of the disk that @fd is or is on, as Documentation/block/stat.rst has them. */
enum disk_counter { DISK_READS, DISK_WRITES = 4, DISK_FLUSHES = 15 };

static inline unsigned long disk_counter(struct __test_metadata *_metadata, int fd,
					 enum disk_counter which)
{
	char path[64], text[512], *p = text;
	unsigned long val = 0;
	struct stat st;
	dev_t dev;
	int i;

	ASSERT_EQ(0, fstat(fd, &st));
	dev = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/stat", major(dev), minor(dev));
	ASSERT_LT(0, strlen(read_text(path, text, sizeof(text)))) {
		TH_LOG("nothing in %s", path);
	}
	for (i = 0; i <= (int)which; i++)
		val = strtoul(p, &p, 10);
	return val;
}

#endif /* RAIO_TARGET_H */
