// SPDX-License-Identifier: GPL-2.0
/*
 * IOCB_CMD_NOOP, which has a number in the kernel's header and no code: kernel
 * AIO refuses it, and raio does nothing and says so with an event. What is wrong
 * with the request is found first, as for any other.
 */
#include <sys/eventfd.h>

#include "raio_test.h"

#define EVENTS	64

FIXTURE(noop)
{
	struct aio aio;
	int fd;
	struct iocb io;
};

FIXTURE_SETUP(noop)
{
	aio_begin(_metadata, &self->aio, &raio, EVENTS);
	self->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
	iocb_prep(&self->io, IOCB_CMD_NOOP, self->fd, NULL, 0, 0);
}

FIXTURE_TEARDOWN(noop)
{
	aio_end(_metadata, &self->aio);
	close(self->fd);
}

TEST_F(noop, listed)
{
	struct raio_query query = { };

	ASSERT_EQ(0, raio_ioctl(self->aio.dev, RAIO_IOC_QUERY, &query));
	EXPECT_EQ(1, query.opcodes >> IOCB_CMD_NOOP & 1);
}

/* The reason for the difference above: it is EINVAL there. */
TEST_F(noop, kernel_aio_has_none)
{
	struct aio aio;

	aio_begin(_metadata, &aio, &kernel_aio, 1);
	EXPECT_REFUSED(-EINVAL, &aio, &self->io);
	aio_end(_metadata, &aio);
}

/* Of whatever file. */
TEST_F(noop, ends_with_0)
{
	const int fds[] = {
		self->fd, temp_file(tmpfs_dir(), O_RDONLY), temp_file(ext4_dir(), O_WRONLY),
		open(tmpfs_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), eventfd(0, EFD_CLOEXEC),
	};
	struct raio_stats before, after;
	unsigned int i;

	ASSERT_EQ(0, raio_stats(self->aio.dev, &before));
	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		ASSERT_LE(0, fds[i]);
		self->io.aio_fildes = fds[i];
		EXPECT_RESULT(0, &self->aio, &self->io);
	}
	ASSERT_EQ(0, raio_stats(self->aio.dev, &after));
	EXPECT_EQ(before.submitted + ARRAY_SIZE(fds), after.submitted);
	EXPECT_EQ(before.completed + ARRAY_SIZE(fds), after.completed);
	/* No file had anything to do with them. */
	EXPECT_EQ(before.queued, after.queued);
}

/* The events are there when submit returns, in its order. */
TEST_F(noop, many)
{
	struct iocb io[EVENTS], *iop[EVENTS];
	struct io_event ev[EVENTS];
	unsigned int i, round;

	for (i = 0; i < EVENTS; i++) {
		iocb_prep(&io[i], IOCB_CMD_NOOP, self->fd, NULL, 0, 0);
		iop[i] = &io[i];
	}
	/* More than once around the ring. */
	for (round = 0; round < 10; round++) {
		ASSERT_EQ(EVENTS, aio_submit(&self->aio, EVENTS, iop));
		ASSERT_EQ(EVENTS, round % 2 ? ring_reap(self->aio.ctx, EVENTS, ev) :
					      aio_poll(&self->aio, EVENTS, ev));
		for (i = 0; i < EVENTS; i++)
			EXPECT_EVENT(&ev[i], &io[i], 0);
	}
}

TEST_F(noop, with_eventfd)
{
	int efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t count = 0;

	ASSERT_LE(0, efd);
	EXPECT_RESULT(0, &self->aio, &self->io);
	EXPECT_EQ(-1, read(efd, &count, sizeof(count)));
	self->io.aio_flags = IOCB_FLAG_RESFD;
	self->io.aio_resfd = efd;
	EXPECT_RESULT(0, &self->aio, &self->io);
	EXPECT_RESULT(0, &self->aio, &self->io);
	EXPECT_EQ(sizeof(count), read(efd, &count, sizeof(count)));
	EXPECT_EQ(2, count);
}

TEST_F(noop, refused)
{
	struct iocb io = self->io;

	io.aio_fildes = -1;
	EXPECT_REFUSED(-EBADF, &self->aio, &io);
	io.aio_fildes = reopen(self->fd, O_PATH);
	EXPECT_REFUSED(-EBADF, &self->aio, &io);
	io = self->io;
	io.aio_flags = IOCB_FLAG_RESFD;
	io.aio_resfd = -1;
	EXPECT_REFUSED(-EBADF, &self->aio, &io);
	io.aio_resfd = self->fd;
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	io = self->io;
	io.aio_reserved2 = 1;
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	/* There is nothing that these could mean. */
	io = self->io;
	io.aio_buf = 1;
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	io = self->io;
	io.aio_nbytes = 1;
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	io = self->io;
	io.aio_offset = 1;
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	io = self->io;
	io.aio_rw_flags = RWF_NOWAIT;
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	/* The key, as ever, is written before. */
	EXPECT_REFUSED(-EFAULT, &self->aio, map_read_only(&self->io, sizeof(self->io)));
	EXPECT_RESULT(0, &self->aio, &self->io);
}

TEST_HARNESS_MAIN
