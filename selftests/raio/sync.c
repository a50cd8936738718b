// SPDX-License-Identifier: GPL-2.0
/*
 * IOCB_CMD_FSYNC and IOCB_CMD_FDSYNC: on which files they work, that what was
 * written is on the device when they end, whose credentials they are done with,
 * errors, and descriptors that are closed meanwhile. fsync(2) and fdatasync(2)
 * are compared with.
 *
 * Relies on the disk of the guest and on null_blk with a cache: both count flushes.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>

#include "raio_fuse.h"
#include "raio_target.h"
#include "raio_testdev.h"

#define EVENTS		64

static const int opcodes[] = { IOCB_CMD_FSYNC, IOCB_CMD_FDSYNC };

static void sync_prep(struct iocb *io, int opcode, int fd)
{
	iocb_prep(io, opcode, fd, NULL, 0, 0);
}

FIXTURE(sync)
{
	struct aio aio;
	char *buf;
};

FIXTURE_VARIANT(sync)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(sync, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(sync, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(sync)
{
	self->buf = map_pages(16 * PAGE);
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
}

FIXTURE_TEARDOWN(sync)
{
	aio_end(_metadata, &self->aio);
}

/* Files of every kind: as the system calls say. */
TEST_F(sync, files)
{
	struct {
		const char *name;
		int fd;
	} files[] = {
		{ "tmpfs", temp_file(tmpfs_dir(), O_RDWR) },
		{ "ext4", temp_file(ext4_dir(), O_RDWR) },
		{ "xfs", temp_file(xfs_dir(), O_RDWR) },
		{ "a directory of tmpfs", open(tmpfs_dir(), O_RDONLY | O_CLOEXEC) },
		{ "a directory of ext4", open(ext4_dir(), O_RDONLY | O_CLOEXEC) },
		{ "a directory of xfs", open(xfs_dir(), O_RDONLY | O_CLOEXEC) },
		{ "null_blk", open(env_or("RAIO_NULLB", "/dev/nullb0"), O_RDWR | O_CLOEXEC) },
		{ "/dev/null", open("/dev/null", O_RDWR | O_CLOEXEC) },
		{ "/dev/zero", open("/dev/zero", O_RDWR | O_CLOEXEC) },
		{ "/proc", open("/proc/version", O_RDONLY | O_CLOEXEC) },
		{ "memfd", memfd_create("raio-test", MFD_CLOEXEC) },
		{ "an eventfd", eventfd(0, EFD_CLOEXEC) },
		{ "a timerfd", timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC) },
		{ "an epoll", epoll_create1(EPOLL_CLOEXEC) },
		{ "an inotify", inotify_init1(IN_CLOEXEC) },
		{ "a socket", socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) },
		{ "a pipe", -1 },
		{ "the test device", open(testdev_path("c0"), O_RDWR | O_CLOEXEC) },
		{ "the test disk", open(testdev_path("b0"), O_RDWR | O_CLOEXEC) },
		{ "raio", open(RAIO_DEV, O_RDWR | O_CLOEXEC) },
	};
	unsigned int i, j, good = 0, bad = 0;
	struct iocb io;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	for (i = 0; i < ARRAY_SIZE(files); i++) {
		if (!strcmp(files[i].name, "a pipe"))
			files[i].fd = fds[1];
		ASSERT_LE(0, files[i].fd) {
			TH_LOG("%s", files[i].name);
		}
		for (j = 0; j < ARRAY_SIZE(opcodes); j++) {
			const long want = kernel_rw(opcodes[j], files[i].fd, NULL, 0, 0, 0);

			ASSERT_TRUE(want == 0 || want == -EINVAL) {
				TH_LOG("%s: %ld", files[i].name, want);
			}
			sync_prep(&io, opcodes[j], files[i].fd);
			if (want)
				EXPECT_REFUSED(want, &self->aio, &io);
			else
				EXPECT_RESULT(0, &self->aio, &io);
			EXPECT_EQ(KSFT_PASS, _metadata->exit_code) {
				TH_LOG("%s, opcode %d", files[i].name, opcodes[j]);
			}
			good += !want;
			bad += !!want;
		}
	}
	EXPECT_LE(16, good);
	EXPECT_LE(8, bad);
}

/* It need not be open for writing. */
TEST_F(sync, read_only)
{
	struct iocb io;
	unsigned int i;
	int fd = temp_file(ext4_dir(), O_RDWR);
	int ro = reopen(fd, O_RDONLY);

	ASSERT_LE(0, ro);
	for (i = 0; i < ARRAY_SIZE(opcodes); i++) {
		sync_prep(&io, opcodes[i], ro);
		EXPECT_RESULT(0, &self->aio, &io);
		sync_prep(&io, opcodes[i], reopen(fd, O_PATH));
		EXPECT_REFUSED(-EBADF, &self->aio, &io);
		sync_prep(&io, opcodes[i], -1);
		EXPECT_REFUSED(-EBADF, &self->aio, &io);
	}
}

/* There is no such thing as a part of a file. */
TEST_F(sync, fields_that_must_be_zero)
{
	int fd = temp_file(tmpfs_dir(), O_RDWR);
	unsigned int i, j;
	int fds[2];

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe(fds));
	for (i = 0; i < ARRAY_SIZE(opcodes); i++) {
		struct iocb io[5];

		for (j = 0; j < ARRAY_SIZE(io); j++)
			sync_prep(&io[j], opcodes[i], fd);
		io[0].aio_buf = (uintptr_t)self->buf;
		io[1].aio_nbytes = 1;
		io[2].aio_offset = 1;
		io[3].aio_offset = -1;
		io[4].aio_rw_flags = RWF_DSYNC;
		for (j = 0; j < ARRAY_SIZE(io); j++) {
			EXPECT_REFUSED(-EINVAL, &self->aio, &io[j]);
			/* Not one of the flags that a write has, known or not. */
			io[j].aio_rw_flags = 1U << 30;
			EXPECT_REFUSED(-EINVAL, &self->aio, &io[j]);
			io[j].aio_fildes = -1;
			EXPECT_REFUSED(-EBADF, &self->aio, &io[j]);
		}
		/* The priority is that of a transfer: it says nothing without its flag. */
		sync_prep(&io[0], opcodes[i], fd);
		io[0].aio_reqprio = 0x7fff;
		EXPECT_RESULT(0, &self->aio, &io[0]);
	}
}

TEST_F(sync, with_eventfd)
{
	int fd = temp_file(ext4_dir(), O_RDWR);
	uint64_t count = 0;
	struct iocb io;
	unsigned int i;
	int efd = eventfd(0, EFD_CLOEXEC);

	for (i = 0; i < ARRAY_SIZE(opcodes); i++) {
		sync_prep(&io, opcodes[i], fd);
		io.aio_flags = IOCB_FLAG_RESFD;
		io.aio_resfd = efd;
		EXPECT_RESULT(0, &self->aio, &io);
		/* The event comes first, then this. */
		EXPECT_EQ(sizeof(count), read(efd, &count, sizeof(count)));
		EXPECT_EQ(1, count);
	}
}

/* One event each, also of those that have nothing left to do. */
TEST_F(sync, many)
{
	struct io_event ev[EVENTS];
	struct iocb io[EVENTS], *iop[EVENTS];
	int fds[3] = { temp_file(ext4_dir(), O_RDWR), temp_file(xfs_dir(), O_RDWR),
		       temp_file(tmpfs_dir(), O_RDWR) };
	struct raio_stats before = { }, after = { };
	uint64_t seen = 0;
	unsigned int i;

	for (i = 0; i < EVENTS; i++) {
		pattern_fill(self->buf, PAGE, i * PAGE, SEED_NEW);
		ASSERT_EQ(PAGE, pwrite(fds[i % 3], self->buf, PAGE, i * PAGE));
		sync_prep(&io[i], opcodes[i % 2], fds[i % 3]);
		iop[i] = &io[i];
	}
	if (variant->ops->is_raio)
		ASSERT_EQ(0, raio_stats(self->aio.dev, &before));
	ASSERT_EQ(EVENTS, aio_submit(&self->aio, EVENTS, iop));
	ASSERT_EQ(EVENTS, aio_wait(&self->aio, EVENTS, ev));
	for (i = 0; i < EVENTS; i++) {
		const unsigned int n = event_iocb(&ev[i]) - io;

		ASSERT_GT(EVENTS, n);
		EXPECT_EVENT(&ev[i], &io[n], 0);
		seen |= 1ULL << n;
	}
	EXPECT_EQ(-1ULL, seen);
	if (variant->ops->is_raio) {
		ASSERT_EQ(0, raio_stats(self->aio.dev, &after));
		EXPECT_EQ(before.submitted + EVENTS, after.submitted);
		EXPECT_EQ(before.completed + EVENTS, after.completed);
	}
}

/* What was written before is on the disk, and the disk has been told to keep it. */

FIXTURE(flush)
{
	struct aio aio;
	struct target t;
	char *buf;
};

FIXTURE_VARIANT(flush)
{
	const struct aio_ops *ops;
	enum where where;
};

FIXTURE_VARIANT_ADD(flush, kernel_aio_ext4)
{
	.ops = &kernel_aio, .where = EXT4,
};

FIXTURE_VARIANT_ADD(flush, raio_ext4)
{
	.ops = &raio, .where = EXT4,
};

FIXTURE_VARIANT_ADD(flush, kernel_aio_xfs)
{
	.ops = &kernel_aio, .where = XFS,
};

FIXTURE_VARIANT_ADD(flush, raio_xfs)
{
	.ops = &raio, .where = XFS,
};

FIXTURE_VARIANT_ADD(flush, kernel_aio_null_blk)
{
	.ops = &kernel_aio, .where = NULL_BLK,
};

FIXTURE_VARIANT_ADD(flush, raio_null_blk)
{
	.ops = &raio, .where = NULL_BLK,
};

FIXTURE_SETUP(flush)
{
	self->t.where = variant->where;
	self->t.flags = 0;
	target_open(_metadata, &self->t);
	target_must_flush(_metadata, &self->t);
	self->buf = map_pages(16 * PAGE);
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
}

FIXTURE_TEARDOWN(flush)
{
	aio_end(_metadata, &self->aio);
	target_close(&self->t);
}

TEST_F(flush, reaches_the_disk)
{
	unsigned int i;
	struct iocb io;

	for (i = 0; i < ARRAY_SIZE(opcodes); i++) {
		unsigned long writes, flushes;

		pattern_fill(self->buf, 16 * PAGE, 0, SEED_NEW + i);
		ASSERT_EQ(16 * PAGE, pwrite(self->t.fd, self->buf, 16 * PAGE, 0));
		writes = disk_counter(_metadata, self->t.fd, DISK_WRITES);
		flushes = disk_counter(_metadata, self->t.fd, DISK_FLUSHES);
		sync_prep(&io, opcodes[i], self->t.fd);
		EXPECT_RESULT(0, &self->aio, &io);
		EXPECT_LT(writes, disk_counter(_metadata, self->t.fd, DISK_WRITES)) {
			TH_LOG("opcode %d", opcodes[i]);
		}
		EXPECT_LT(flushes, disk_counter(_metadata, self->t.fd, DISK_FLUSHES)) {
			TH_LOG("opcode %d", opcodes[i]);
		}
	}
}

/* Held by the disk under it. */

FIXTURE(held)
{
	struct aio aio;
	int fd;
	char *buf;
};

FIXTURE_VARIANT(held)
{
	const struct aio_ops *ops;
	int opcode;
};

FIXTURE_VARIANT_ADD(held, kernel_aio_fsync)
{
	.ops = &kernel_aio, .opcode = IOCB_CMD_FSYNC,
};

FIXTURE_VARIANT_ADD(held, raio_fsync)
{
	.ops = &raio, .opcode = IOCB_CMD_FSYNC,
};

FIXTURE_VARIANT_ADD(held, kernel_aio_fdsync)
{
	.ops = &kernel_aio, .opcode = IOCB_CMD_FDSYNC,
};

FIXTURE_VARIANT_ADD(held, raio_fdsync)
{
	.ops = &raio, .opcode = IOCB_CMD_FDSYNC,
};

FIXTURE_SETUP(held)
{
	testdev_begin();
	/* In the page cache, until it is synced. */
	self->fd = testdev_open("b0", 0);
	self->buf = map_pages(PAGE);
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
}

FIXTURE_TEARDOWN(held)
{
	testdev_reset();
	aio_end(_metadata, &self->aio);
	close(self->fd);
}

/* Submits one, which the disk holds, with new data in the cache. */
static void hold_sync(struct __test_metadata *_metadata, struct aio *aio, struct iocb *io,
		      int opcode, int fd, char *buf)
{
	struct io_event ev;

	pattern_fill(buf, PAGE, 0, SEED_NEW);
	ASSERT_EQ(PAGE, pwrite(fd, buf, PAGE, 0));
	testdev_cmd("b0 mode hang");
	sync_prep(io, opcode, fd);
	ASSERT_EQ(1, aio_submit_one(aio, io));
	testdev_cmd("b0 wait held 1");
	EXPECT_EQ(0, aio_poll(aio, 1, &ev));
}

TEST_F(held, ends_when_the_disk_has_it)
{
	int direct = testdev_open("b0", O_DIRECT);
	struct io_event ev;
	struct iocb io;

	hold_sync(_metadata, &self->aio, &io, variant->opcode, self->fd, self->buf);
	testdev_cmd("b0 mode now");
	testdev_cmd("b0 complete all");
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_EVENT(&ev, &io, 0);
	memset(self->buf, 0, PAGE);
	ASSERT_EQ(PAGE, pread(direct, self->buf, PAGE, 0));
	EXPECT_EQ(-1, pattern_check(self->buf, PAGE, 0, SEED_NEW));
	close(direct);
}

/* Told once, as it is by fsync(2). */
TEST_F(held, error)
{
	struct io_event ev;
	struct iocb io;

	hold_sync(_metadata, &self->aio, &io, variant->opcode, self->fd, self->buf);
	testdev_cmd("b0 mode now");
	testdev_cmd("b0 fail all %d", EIO);
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_EVENT(&ev, &io, -EIO);
	EXPECT_RESULT(0, &self->aio, &io);
}

/* The file stays open for as long as it takes. */
TEST_F(held, closed_meanwhile)
{
	struct io_event ev;
	struct iocb io;
	int fd = testdev_open("b0", 0);

	hold_sync(_metadata, &self->aio, &io, variant->opcode, fd, self->buf);
	close(fd);
	testdev_cmd("b0 complete all");
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_EVENT(&ev, &io, 0);
	EXPECT_REFUSED(-EBADF, &self->aio, &io);
}

/* On a file system of our own, which sees who asks for what. */

FIXTURE(fuse)
{
	struct aio aio;
	struct fuse fuse;
};

FIXTURE_VARIANT(fuse)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(fuse, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(fuse, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(fuse)
{
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
	fuse_begin(_metadata, &self->fuse);
}

FIXTURE_TEARDOWN(fuse)
{
	become(0, 0);
	fuse_end(&self->fuse);
	aio_end(_metadata, &self->aio);
}

TEST_F(fuse, all_or_only_the_data)
{
	struct iocb io;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(opcodes); i++) {
		sync_prep(&io, opcodes[i], self->fuse.fd);
		EXPECT_RESULT(0, &self->aio, &io);
		ASSERT_EQ(i + 1, fuse_nr_calls(&self->fuse));
		EXPECT_EQ(opcodes[i] == IOCB_CMD_FDSYNC, self->fuse.calls[i].datasync);
	}
}

/* What the file system says is the result. */
TEST_F(fuse, errors)
{
	const int errors[] = { EIO, ENOSPC, EDQUOT, EROFS, EINTR, EAGAIN };
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	fuse_hold(&self->fuse, true);
	for (i = 0; i < ARRAY_SIZE(errors); i++) {
		sync_prep(&io, opcodes[i % 2], self->fuse.fd);
		ASSERT_EQ(1, aio_submit_one(&self->aio, &io));
		ASSERT_TRUE(wait_for(fuse_nr_calls(&self->fuse) == i + 1));
		EXPECT_EQ(0, aio_poll(&self->aio, 1, &ev));
		fuse_answer(&self->fuse, i, -errors[i]);
		ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
		EXPECT_EVENT(&ev, &io, -errors[i]);
	}
}

#define SUBMITTER	1000
#define LATER		2000

static void *sync_thread(void *data)
{
	const struct fuse *fuse = data;

	return (void *)ret_errno(fsync(fuse->fd));
}

/*
 * It is done as the submitter was when it submitted: not as root, whom the
 * kernel's workers are, and not as whoever it has become since. Another
 * fsync(2), which has the inode's lock, sees to it that the request doesn't get
 * to the file system before that.
 */
TEST_F(fuse, credentials_of_the_submitter)
{
	unsigned int i, nr = 0;
	pthread_t thread;
	struct io_event ev;
	struct iocb io;
	void *ret;

	fuse_hold(&self->fuse, true);
	for (i = 0; i < ARRAY_SIZE(opcodes); i++) {
		ASSERT_EQ(0, pthread_create(&thread, NULL, sync_thread, &self->fuse));
		ASSERT_TRUE(wait_for(fuse_nr_calls(&self->fuse) == nr + 1));

		sync_prep(&io, opcodes[i], self->fuse.fd);
		ASSERT_EQ(0, become(SUBMITTER, SUBMITTER));
		ASSERT_EQ(1, aio_submit_one(&self->aio, &io));
		ASSERT_EQ(0, become(LATER, LATER));

		fuse_answer(&self->fuse, nr++, 0);
		pthread_join(thread, &ret);
		EXPECT_EQ(NULL, ret);
		ASSERT_TRUE(wait_for(fuse_nr_calls(&self->fuse) == nr + 1));
		EXPECT_EQ(SUBMITTER, self->fuse.calls[nr].uid);
		EXPECT_EQ(SUBMITTER, self->fuse.calls[nr].gid);
		EXPECT_EQ(0, self->fuse.calls[nr - 1].uid);
		fuse_answer(&self->fuse, nr++, 0);
		ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
		EXPECT_EVENT(&ev, &io, 0);
		ASSERT_EQ(0, become(0, 0));
	}
}

/* No worker keeps what it had for a request: the next one has its own. */
TEST_F(fuse, credentials_of_each)
{
	const uid_t uids[] = { 0, SUBMITTER, 0, LATER, SUBMITTER, 0 };
	struct iocb io;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(uids); i++) {
		ASSERT_EQ(0, become(uids[i], 0));
		sync_prep(&io, opcodes[i % 2], self->fuse.fd);
		EXPECT_RESULT(0, &self->aio, &io);
		ASSERT_EQ(i + 1, fuse_nr_calls(&self->fuse));
		EXPECT_EQ(uids[i], self->fuse.calls[i].uid);
	}
	ASSERT_EQ(0, become(0, 0));
}

TEST_HARNESS_MAIN
