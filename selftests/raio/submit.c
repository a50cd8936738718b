// SPDX-License-Identifier: GPL-2.0
/*
 * Submitting requests: every error of io_submit(2) and which of two comes
 * first, how far a call gets that meets one, how many requests a context
 * takes, and that no refused request leaves anything behind.
 *
 * No data is looked at here: that is in rw.c.
 */
#include "raio_test.h"

#define EVENTS	16

#define RWF_UNKNOWN	(1U << 30)
#ifndef RWF_ATOMIC
#define RWF_ATOMIC	0x00000040
#endif

FIXTURE(submit)
{
	struct aio aio;
	struct raio_query query;
	struct iocb io;
	int fd;
	char *buf;
};

FIXTURE_VARIANT(submit)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(submit, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(submit, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(submit)
{
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
	memset(&self->query, 0, sizeof(self->query));
	if (variant->ops->is_raio) {
		ASSERT_EQ(0, raio_ioctl(self->aio.dev, RAIO_IOC_QUERY, &self->query)) {
			TH_LOG("no query");
		}
	}
	/* A read of it ends in submit, for it is in the page cache, and has no time to note. */
	self->fd = temp_file(ext4_dir(), O_RDWR | O_NOATIME);
	ASSERT_LE(0, self->fd);
	self->buf = map_pages(2 * PAGE);
	memset(self->buf, 'x', PAGE);
	ASSERT_EQ(PAGE, write(self->fd, self->buf, PAGE));
	/* A request that works. Each test changes it. */
	iocb_prep(&self->io, IOCB_CMD_PREAD, self->fd, self->buf, PAGE, 0);
}

FIXTURE_TEARDOWN(submit)
{
	aio_end(_metadata, &self->aio);
	close(self->fd);
}

/* The call itself. */

TEST_F(submit, works)
{
	EXPECT_RESULT(PAGE, &self->aio, &self->io);
	self->io.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_RESULT(PAGE, &self->aio, &self->io);
}

TEST_F(submit, nr_negative)
{
	struct iocb *iop = &self->io;

	EXPECT_EQ(-EINVAL, aio_submit(&self->aio, -1, &iop));
	EXPECT_EQ(-EINVAL, aio_submit(&self->aio, LONG_MIN, &iop));
	EXPECT_EQ(-EINVAL, aio_submit(&self->aio, -1, NULL));
}

TEST_F(submit, nr_zero)
{
	unsigned int i;

	for (i = 0; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(0, aio_submit(&self->aio, 0, bad_ptr(i))) {
			TH_LOG("array at %p", bad_ptr(i));
		}
	}
}

TEST_F(submit, bad_ctx)
{
	struct iocb *iop = &self->io;
	aio_context_t ctx = self->aio.ctx;

	self->aio.ctx = 0;
	EXPECT_EQ(-EINVAL, aio_submit(&self->aio, 1, &iop));
	EXPECT_EQ(-EINVAL, aio_submit(&self->aio, 0, &iop));
	EXPECT_EQ(-EINVAL, aio_submit(&self->aio, 0, NULL));
	/* Before the array is looked at. */
	EXPECT_EQ(-EINVAL, aio_submit(&self->aio, 1, NULL));
	self->aio.ctx = ctx;
}

TEST_F(submit, bad_array)
{
	unsigned int i;

	for (i = 0; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(-EFAULT, aio_submit(&self->aio, 1, bad_ptr(i))) {
			TH_LOG("array at %p", bad_ptr(i));
		}
	}
}

TEST_F(submit, bad_iocb)
{
	unsigned int i;

	for (i = 0; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(-EFAULT, aio_submit_one(&self->aio, bad_ptr(i))) {
			TH_LOG("iocb at %p", bad_ptr(i));
		}
	}
}

TEST_F(submit, iocb_over_the_end)
{
	unsigned int len;

	for (len = 8; len < sizeof(struct iocb); len += 8) {
		char *p = map_before_hole(len);

		memcpy(p, &self->io, len);
		EXPECT_EQ(-EFAULT, aio_submit_one(&self->aio, (struct iocb *)p)) {
			TH_LOG("%u bytes of it", len);
		}
	}
}

TEST_F(submit, iocb_up_to_the_end)
{
	struct iocb *io = map_before_hole(sizeof(*io));

	*io = self->io;
	EXPECT_RESULT(PAGE, &self->aio, io);
}

/* An array may end where memory does, and so may the requests before a hole in it. */
TEST_F(submit, array_over_the_end)
{
	struct iocb **iop = map_before_hole(2 * sizeof(*iop));
	struct io_event ev[2];

	iop[0] = &self->io;
	iop[1] = &self->io;
	EXPECT_EQ(2, aio_submit(&self->aio, 2, iop));
	EXPECT_EQ(2, aio_wait(&self->aio, 2, ev));
	EXPECT_EQ(2, aio_submit(&self->aio, 3, iop));
	EXPECT_EQ(2, aio_wait(&self->aio, 2, ev));
	EXPECT_EQ(2, aio_submit(&self->aio, LONG_MAX, iop));
	EXPECT_EQ(2, aio_wait(&self->aio, 2, ev));
}

/* The fields of a request. */

TEST_F(submit, reserved)
{
	self->io.aio_reserved2 = 1;
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	self->io.aio_reserved2 = 1ULL << 63;
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	/* Before the descriptor is looked at. */
	self->io.aio_fildes = -1;
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
}

TEST_F(submit, bytes_beyond_ssize)
{
	self->io.aio_nbytes = 1ULL << 63;
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	self->io.aio_nbytes = -1ULL;
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	self->io.aio_fildes = -1;
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
}

/* Up to SSIZE_MAX it is cut off at what one call may do, as read() does. */
TEST_F(submit, bytes_up_to_ssize)
{
	self->io.aio_nbytes = LLONG_MAX;
	EXPECT_RESULT(PAGE, &self->aio, &self->io);
	self->io.aio_nbytes = 1ULL << 40;
	EXPECT_RESULT(PAGE, &self->aio, &self->io);
	self->io.aio_nbytes = INT_MAX;
	EXPECT_RESULT(PAGE, &self->aio, &self->io);
}

TEST_F(submit, offset_negative)
{
	const long long offsets[] = { -1, -4096, LLONG_MIN };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		self->io.aio_offset = offsets[i];
		self->io.aio_lio_opcode = IOCB_CMD_PREAD;
		EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
		self->io.aio_lio_opcode = IOCB_CMD_PWRITE;
		EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
		/* Whatever the length. */
		self->io.aio_nbytes = 0;
		EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
		self->io.aio_nbytes = PAGE;
	}
}

TEST_F(submit, offset_and_length_overflow)
{
	self->io.aio_offset = LLONG_MAX - PAGE + 2;
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	self->io.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	/* Before that all is possible: a tmpfs has no end of its own. */
	self->io.aio_fildes = temp_file(tmpfs_dir(), O_RDWR);
	ASSERT_LE(0, (int)self->io.aio_fildes);
	self->io.aio_offset = LLONG_MAX - PAGE;
	EXPECT_RESULT(PAGE, &self->aio, &self->io);
	self->io.aio_lio_opcode = IOCB_CMD_PREAD;
	EXPECT_RESULT(PAGE, &self->aio, &self->io);
}

TEST_F(submit, bad_descriptor)
{
	const int fds[] = { -1, -2, INT_MAX, INT_MIN, AT_FDCWD, 1000000 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		self->io.aio_fildes = fds[i];
		EXPECT_REFUSED(-EBADF, &self->aio, &self->io);
	}
}

TEST_F(submit, closed_descriptor)
{
	int fd = dup(self->fd);

	ASSERT_LE(0, fd);
	self->io.aio_fildes = fd;
	EXPECT_RESULT(PAGE, &self->aio, &self->io);
	close(fd);
	EXPECT_REFUSED(-EBADF, &self->aio, &self->io);
}

TEST_F(submit, path_descriptor)
{
	self->io.aio_fildes = reopen(self->fd, O_PATH);
	ASSERT_LE(0, (int)self->io.aio_fildes);
	EXPECT_REFUSED(-EBADF, &self->aio, &self->io);
}

TEST_F(submit, wrong_mode)
{
	int ro = reopen(self->fd, O_RDONLY);
	int wo = reopen(self->fd, O_WRONLY);

	ASSERT_LE(0, ro);
	ASSERT_LE(0, wo);
	self->io.aio_fildes = wo;
	EXPECT_REFUSED(-EBADF, &self->aio, &self->io);
	/* Also if there is nothing to do. */
	self->io.aio_nbytes = 0;
	EXPECT_REFUSED(-EBADF, &self->aio, &self->io);
	/* The mode comes before the buffer and the offset. */
	self->io.aio_buf = KERNEL_ADDR;
	self->io.aio_offset = -1;
	EXPECT_REFUSED(-EBADF, &self->aio, &self->io);

	iocb_prep(&self->io, IOCB_CMD_PWRITE, ro, self->buf, PAGE, 0);
	EXPECT_REFUSED(-EBADF, &self->aio, &self->io);
	self->io.aio_nbytes = 0;
	EXPECT_REFUSED(-EBADF, &self->aio, &self->io);
}

TEST_F(submit, directory)
{
	self->io.aio_fildes = open(tmpfs_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ASSERT_LE(0, (int)self->io.aio_fildes);
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	self->io.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_REFUSED(-EBADF, &self->aio, &self->io);
}

TEST_F(submit, the_device_itself)
{
	/* In the kernel's case this is /dev/null, which can be read. */
	if (variant->ops->is_raio) {
		self->io.aio_fildes = self->aio.dev;
		EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
		self->io.aio_lio_opcode = IOCB_CMD_PWRITE;
		EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	}
}

/* 4 has no code any more; the rest is beyond the list. */
TEST_F(submit, unknown_opcode)
{
	const unsigned int opcodes[] = { 4, 9, 10, 63, 64, 255, 256, 0x7fff, 0xffff };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(opcodes); i++) {
		self->io.aio_lio_opcode = opcodes[i];
		self->io.aio_fildes = self->fd;
		EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
		/* The descriptor comes first. */
		self->io.aio_fildes = -1;
		EXPECT_REFUSED(-EBADF, &self->aio, &self->io);
	}
}

/*
 * raio differs: what it does not do yet, and says so in query, is unknown to
 * it. Kernel AIO does these, so there is nothing to compare.
 */
TEST_F(submit, opcode_not_done)
{
	unsigned int opcode;

	for (opcode = 0; variant->ops->is_raio && opcode < 64; opcode++) {
		if (self->query.opcodes & (1ULL << opcode))
			continue;
		self->io.aio_lio_opcode = opcode;
		EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	}
}

/*
 * raio differs: kernel AIO ignores bits of aio_flags that it does not know, so
 * nobody can ever give them a meaning. raio takes what query lists.
 */
TEST_F(submit, unknown_flags)
{
	unsigned int bit;

	for (bit = 0; bit < 32; bit++) {
		/* These have a meaning to kernel AIO. */
		if ((1U << bit) & (IOCB_FLAG_RESFD | IOCB_FLAG_IOPRIO) &&
		    (!variant->ops->is_raio || self->query.iocb_flags & (1ULL << bit)))
			continue;
		self->io.aio_flags = 1U << bit;
		if (variant->ops->is_raio)
			EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
		else
			EXPECT_RESULT(PAGE, &self->aio, &self->io);
	}
}

/* Without its flag such a field is not looked at: old programs leave garbage there. */
TEST_F(submit, fields_without_their_flag)
{
	self->io.aio_resfd = 12345;
	self->io.aio_reqprio = 0x7fff;
	EXPECT_RESULT(PAGE, &self->aio, &self->io);
}

TEST_F(submit, unknown_rw_flags)
{
	self->io.aio_rw_flags = RWF_UNKNOWN;
	EXPECT_REFUSED(-EOPNOTSUPP, &self->aio, &self->io);
	self->io.aio_rw_flags = 1U << 31;
	EXPECT_REFUSED(-EOPNOTSUPP, &self->aio, &self->io);
	self->io.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_REFUSED(-EOPNOTSUPP, &self->aio, &self->io);
	/* The flags come before the mode, the buffer, and the offset, */
	self->io.aio_fildes = reopen(self->fd, O_RDONLY);
	self->io.aio_buf = KERNEL_ADDR;
	self->io.aio_offset = -1;
	EXPECT_REFUSED(-EOPNOTSUPP, &self->aio, &self->io);
	/* but after the opcode and the descriptor. */
	self->io.aio_lio_opcode = 0xffff;
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	self->io.aio_fildes = -1;
	EXPECT_REFUSED(-EBADF, &self->aio, &self->io);
}

/* Those that query does not list are refused as unknown ones are. */
TEST_F(submit, rw_flags_not_done)
{
	unsigned int bit;

	for (bit = 0; variant->ops->is_raio && bit < 32; bit++) {
		if (self->query.rw_flags & (1ULL << bit))
			continue;
		self->io.aio_rw_flags = 1U << bit;
		EXPECT_REFUSED(-EOPNOTSUPP, &self->aio, &self->io);
	}
}

/* A flag that is known, on a file that can't do it. */
TEST_F(submit, rw_flags_of_another_file)
{
	/* Its method may sleep. */
	self->io.aio_fildes = open("/dev/full", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, (int)self->io.aio_fildes);
	self->io.aio_rw_flags = RWF_NOWAIT;
	EXPECT_REFUSED(-EOPNOTSUPP, &self->aio, &self->io);
	/* tmpfs writes in pages. */
	self->io.aio_fildes = temp_file(tmpfs_dir(), O_RDWR);
	ASSERT_LE(0, (int)self->io.aio_fildes);
	self->io.aio_lio_opcode = IOCB_CMD_PWRITE;
	self->io.aio_rw_flags = RWF_ATOMIC;
	EXPECT_REFUSED(-EOPNOTSUPP, &self->aio, &self->io);
}

/* The kernel writes its key, 0, when it has the file. */
TEST_F(submit, key_is_written)
{
	self->io.aio_key = 0x1234;
	EXPECT_RESULT(PAGE, &self->aio, &self->io);
	EXPECT_EQ(0, self->io.aio_key);

	self->io.aio_key = 0x1234;
	self->io.aio_lio_opcode = 0xffff;
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	EXPECT_EQ(0, self->io.aio_key);

	self->io.aio_key = 0x1234;
	self->io.aio_fildes = -1;
	EXPECT_REFUSED(-EBADF, &self->aio, &self->io);
	EXPECT_EQ(0x1234, self->io.aio_key);
}

TEST_F(submit, nothing_else_is_written)
{
	struct iocb copy = self->io;

	EXPECT_RESULT(PAGE, &self->aio, &self->io);
	EXPECT_EQ(0, memcmp(&copy, &self->io, sizeof(copy)));
}

TEST_F(submit, read_only_iocb)
{
	struct iocb bad = self->io;

	EXPECT_REFUSED(-EFAULT, &self->aio, map_read_only(&self->io, sizeof(self->io)));
	/* The descriptor comes before it, the opcode after. */
	bad.aio_fildes = -1;
	EXPECT_REFUSED(-EBADF, &self->aio, map_read_only(&bad, sizeof(bad)));
	bad = self->io;
	bad.aio_lio_opcode = 0xffff;
	EXPECT_REFUSED(-EFAULT, &self->aio, map_read_only(&bad, sizeof(bad)));
}

/* The array is only read. */
TEST_F(submit, read_only_array)
{
	struct iocb *iop = &self->io;
	struct iocb **ro = map_read_only(&iop, sizeof(iop));
	struct io_event ev;

	EXPECT_EQ(1, aio_submit(&self->aio, 1, ro));
	EXPECT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_EVENT(&ev, &self->io, PAGE);
}

/* An address that no program can have is seen at once, */
TEST_F(submit, impossible_buffer)
{
	const __u64 bufs[] = { KERNEL_ADDR, -8ULL, 1ULL << 62 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bufs); i++) {
		self->io.aio_buf = bufs[i];
		self->io.aio_lio_opcode = IOCB_CMD_PREAD;
		EXPECT_REFUSED(-EFAULT, &self->aio, &self->io);
		self->io.aio_lio_opcode = IOCB_CMD_PWRITE;
		EXPECT_REFUSED(-EFAULT, &self->aio, &self->io);
		/* before the offset is looked at. */
		self->io.aio_offset = -1;
		EXPECT_REFUSED(-EFAULT, &self->aio, &self->io);
		self->io.aio_offset = 0;
	}
}

/* and one that this one does not have when it is used. */
TEST_F(submit, unmapped_buffer)
{
	char *hole = map_before_hole(0);

	self->io.aio_buf = 0;
	EXPECT_RESULT(-EFAULT, &self->aio, &self->io);
	self->io.aio_buf = (uintptr_t)hole;
	EXPECT_RESULT(-EFAULT, &self->aio, &self->io);
	self->io.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_RESULT(-EFAULT, &self->aio, &self->io);
	/* With no bytes it is not used. */
	self->io.aio_nbytes = 0;
	EXPECT_RESULT(0, &self->aio, &self->io);
	/* Nor at the end of the file. */
	iocb_prep(&self->io, IOCB_CMD_PREAD, self->fd, hole, PAGE, PAGE);
	EXPECT_RESULT(0, &self->aio, &self->io);
}

TEST_F(submit, read_only_buffer)
{
	self->io.aio_buf = (uintptr_t)map_read_only("", 1);
	EXPECT_RESULT(-EFAULT, &self->aio, &self->io);
	self->io.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_RESULT(PAGE, &self->aio, &self->io);
}

/* What fits is done. */
TEST_F(submit, buffer_over_the_end)
{
	char *p = map_before_hole(100);

	self->io.aio_buf = (uintptr_t)p;
	self->io.aio_nbytes = 200;
	EXPECT_RESULT(100, &self->aio, &self->io);
	EXPECT_EQ(-1, filled_check(p, 100, 'x'));
}

/* How far a call gets. */

TEST_F(submit, stops_at_the_first_bad)
{
	struct iocb bad[6], *iop[4];
	struct io_event ev[4];
	unsigned int i, n;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = self->io;
	bad[0].aio_fildes = -1;
	bad[1].aio_lio_opcode = 0xffff;
	bad[2].aio_reserved2 = 1;
	bad[3].aio_nbytes = -1ULL;
	bad[4].aio_offset = -1;
	bad[5].aio_buf = KERNEL_ADDR;
	for (i = 0; i <= ARRAY_SIZE(bad); i++) {
		for (n = 1; n < ARRAY_SIZE(iop); n++) {
			iop[0] = &self->io;
			iop[1] = &self->io;
			iop[2] = &self->io;
			iop[3] = &self->io;
			iop[n] = i < ARRAY_SIZE(bad) ? &bad[i] : NULL;
			EXPECT_EQ(n, aio_submit(&self->aio, 4, iop)) {
				TH_LOG("bad request %u at %u", i, n);
			}
			EXPECT_EQ(n, aio_wait(&self->aio, n, ev));
			EXPECT_EQ(0, aio_poll(&self->aio, 4, ev));
		}
	}
}

/* A file that fails is not a request that was refused: the call goes on. */
TEST_F(submit, goes_on_after_a_failed_event)
{
	struct iocb bad = self->io;
	struct iocb *iop[] = { &bad, &self->io, &bad, &self->io };
	struct io_event ev[4];
	unsigned int i;

	bad.aio_buf = 0;
	ASSERT_EQ(4, aio_submit(&self->aio, 4, iop));
	ASSERT_EQ(4, aio_wait(&self->aio, 4, ev));
	for (i = 0; i < 4; i++)
		EXPECT_EVENT(&ev[i], iop[i], i % 2 ? (long)PAGE : -EFAULT);
}

/* One iocb may be in flight more than once. */
TEST_F(submit, same_iocb_twice)
{
	struct iocb *iop[] = { &self->io, &self->io };
	struct io_event ev[2];

	ASSERT_EQ(2, aio_submit(&self->aio, 2, iop));
	ASSERT_EQ(2, aio_wait(&self->aio, 2, ev));
	EXPECT_EVENT(&ev[0], &self->io, PAGE);
	EXPECT_EVENT(&ev[1], &self->io, PAGE);
}

/* It is copied: what it holds after the call does not matter. */
TEST_F(submit, iocb_changed_after_submit)
{
	struct iocb copy = self->io;
	struct io_event ev;

	ASSERT_EQ(1, aio_submit_one(&self->aio, &self->io));
	memset(&self->io, 0xff, sizeof(self->io));
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_EQ((uintptr_t)&self->io, ev.obj);
	EXPECT_EQ(copy.aio_data, ev.data);
	EXPECT_EQ(PAGE, ev.res);
}

/* How many there is room for. */

/* Submits until the context is full, and returns how many were taken. */
static unsigned int fill(struct __test_metadata *_metadata, struct aio *aio, struct iocb *io)
{
	unsigned int nr = aio_ring(aio->ctx)->nr;
	unsigned int n = 0;
	long ret;

	while ((ret = aio_submit_one(aio, io)) == 1) {
		ASSERT_GT(nr, ++n) {
			TH_LOG("more than there are slots");
		}
	}
	EXPECT_EQ(-EAGAIN, ret);
	return n;
}

TEST_F(submit, full)
{
	struct io_event *ev = map_pages(64 * PAGE);
	unsigned int n, round;

	/* Kernel AIO has some of its slots on each CPU. */
	pin_to_cpu(0);
	for (round = 0; round < 5; round++) {
		n = fill(_metadata, &self->aio, &self->io);
		EXPECT_LE(EVENTS, n);
		/* Every one that was taken has an event. */
		EXPECT_EQ(n, aio_poll(&self->aio, 64 * PAGE / sizeof(*ev), ev));
	}
}

/* An array that only partly fits. */
TEST_F(submit, full_in_one_call)
{
	struct io_event *ev = map_pages(64 * PAGE);
	struct iocb *iop[4 * 128];
	unsigned int i;
	long n;

	pin_to_cpu(0);
	for (i = 0; i < ARRAY_SIZE(iop); i++)
		iop[i] = &self->io;
	n = aio_submit(&self->aio, ARRAY_SIZE(iop), iop);
	EXPECT_LE(EVENTS, n);
	EXPECT_GT(aio_ring(self->aio.ctx)->nr, n);
	EXPECT_EQ(-EAGAIN, aio_submit(&self->aio, ARRAY_SIZE(iop), iop));
	EXPECT_EQ(n, aio_poll(&self->aio, 64 * PAGE / sizeof(*ev), ev));
}

/* What is full takes one more for each event that is read. */
TEST_F(submit, full_then_one_by_one)
{
	struct io_event *ev = map_pages(64 * PAGE);
	unsigned int n, i;

	pin_to_cpu(0);
	n = fill(_metadata, &self->aio, &self->io);
	for (i = 0; i < n + 20; i++) {
		EXPECT_EQ(1, aio_poll(&self->aio, 1, ev));
		EXPECT_EQ(1, aio_submit_one(&self->aio, &self->io)) {
			TH_LOG("after %u", i);
		}
	}
	EXPECT_EQ(-EAGAIN, aio_submit_one(&self->aio, &self->io));
	EXPECT_EQ(n, aio_poll(&self->aio, 64 * PAGE / sizeof(*ev), ev));
}

/* The same when the program reads them from the ring and the kernel is not told. */
TEST_F(submit, full_then_drained_by_the_program)
{
	struct io_event *ev = map_pages(64 * PAGE);
	unsigned int n, round;

	pin_to_cpu(0);
	for (round = 0; round < 3; round++) {
		n = fill(_metadata, &self->aio, &self->io);
		EXPECT_LE(EVENTS, n);
		EXPECT_EQ(n, ring_reap(self->aio.ctx, 64 * PAGE / sizeof(*ev), ev));
	}
	for (round = 0; round < 3; round++) {
		n = fill(_metadata, &self->aio, &self->io);
		while (n--) {
			EXPECT_EQ(1, ring_reap(self->aio.ctx, 1, ev));
			EXPECT_EQ(1, aio_submit_one(&self->aio, &self->io));
			EXPECT_EQ(1, ring_reap(self->aio.ctx, 1, ev));
		}
	}
}

/* Requests that were refused do not take room. */
TEST_F(submit, refused_take_no_room)
{
	struct io_event *ev = map_pages(64 * PAGE);
	struct iocb bad[5];
	unsigned int i, n;

	pin_to_cpu(0);
	n = fill(_metadata, &self->aio, &self->io);
	EXPECT_EQ(n, aio_poll(&self->aio, 64 * PAGE / sizeof(*ev), ev));

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = self->io;
	bad[0].aio_fildes = -1;
	bad[1].aio_lio_opcode = 0xffff;
	bad[2].aio_offset = -1;
	bad[3].aio_buf = KERNEL_ADDR;
	bad[4].aio_rw_flags = RWF_UNKNOWN;
	for (i = 0; i < 2 * n; i++) {
		EXPECT_GT(0, aio_submit_one(&self->aio, &bad[i % ARRAY_SIZE(bad)])) {
			TH_LOG("request %u", i);
		}
	}
	EXPECT_EQ(n, fill(_metadata, &self->aio, &self->io));
	EXPECT_EQ(n, aio_poll(&self->aio, 64 * PAGE / sizeof(*ev), ev));
}

/* Room is there before the file is looked at, but after what is wrong with the request. */
TEST_F(submit, order_when_full)
{
	struct io_event *ev = map_pages(64 * PAGE);
	struct iocb bad = self->io;
	unsigned int n;

	pin_to_cpu(0);
	n = fill(_metadata, &self->aio, &self->io);
	bad.aio_fildes = -1;
	EXPECT_EQ(-EAGAIN, aio_submit_one(&self->aio, &bad));
	bad.aio_reserved2 = 1;
	EXPECT_EQ(-EINVAL, aio_submit_one(&self->aio, &bad));
	EXPECT_EQ(-EFAULT, aio_submit_one(&self->aio, NULL));
	EXPECT_EQ(0, aio_submit(&self->aio, 0, NULL));
	EXPECT_EQ(n, aio_poll(&self->aio, 64 * PAGE / sizeof(*ev), ev));
}

/* Nothing stays behind. */

/* The file system can be unmounted, so no file on it is held. */
TEST_F(submit, files_are_let_go)
{
	char dir[PATH_MAX], path[PATH_MAX + 8];
	struct iocb io[6], *iop[1];
	unsigned int i, round;
	long long res;
	int fd, ro;

	snprintf(dir, sizeof(dir), "%s/raio-test-XXXXXX", tmpfs_dir());
	ASSERT_NE(NULL, mkdtemp(dir));
	ASSERT_EQ(0, mount("raio-test", dir, "tmpfs", 0, "size=64k"));
	snprintf(path, sizeof(path), "%s/f", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	EXPECT_LE(0, fd);
	EXPECT_LE(0, ro);

	for (round = 0; round < 10; round++) {
		for (i = 0; i < ARRAY_SIZE(io); i++)
			iocb_prep(&io[i], IOCB_CMD_PWRITE, fd, self->buf, PAGE, 0);
		io[0].aio_lio_opcode = 0xffff;
		io[1].aio_fildes = ro;
		io[2].aio_offset = -1;
		io[3].aio_rw_flags = RWF_UNKNOWN;
		io[4].aio_buf = KERNEL_ADDR;
		for (i = 0; i < 5; i++) {
			EXPECT_GT(0, aio_run(_metadata, &self->aio, &io[i], &res)) {
				TH_LOG("request %u", i);
			}
		}
		EXPECT_RESULT(PAGE, &self->aio, &io[5]);
		/* The key can't be written. */
		iop[0] = map_read_only(&io[5], sizeof(io[5]));
		EXPECT_EQ(-EFAULT, aio_submit(&self->aio, 1, iop));
	}
	close(fd);
	close(ro);
	EXPECT_TRUE(wait_for(!umount(dir))) {
		TH_LOG("%s: %s", dir, strerror(errno));
		umount2(dir, MNT_DETACH);
	}
	rmdir(dir);
}

/* A pipe's end is closed when the descriptor is: no request holds it. */
TEST_F(submit, pipe_is_let_go)
{
	int fds[2];
	char c;

	ASSERT_EQ(0, pipe(fds));
	iocb_prep(&self->io, IOCB_CMD_PWRITE, fds[1], self->buf, 10, 0);
	EXPECT_RESULT(10, &self->aio, &self->io);
	self->io.aio_lio_opcode = 0xffff;
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	EXPECT_EQ(10, read(fds[0], self->buf, PAGE));
	close(fds[1]);
	/* End of file, and not a wait for another writer. */
	EXPECT_EQ(0, fcntl(fds[0], F_SETFL, O_NONBLOCK));
	EXPECT_TRUE(wait_for(read(fds[0], &c, 1) == 0));
}

TEST_HARNESS_MAIN
