// SPDX-License-Identifier: GPL-2.0
/*
 * The flags of a single request: what each RWF_* bit returns on each kind of
 * file, compared with preadv2(2) and pwritev2(2), and what it does, as far as that
 * can be seen; and IOCB_FLAG_IOPRIO, which the test devices see.
 *
 * Unknown bits of aio_flags are in submit.c.
 */
#include <linux/ioprio.h>
#include <sys/eventfd.h>

#include "raio_target.h"
#include "raio_testdev.h"

#define EVENTS		16
#define CANARY		0x5a
#define NOBODY		1000

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND	0x00000020
#endif
#ifndef RWF_ATOMIC
#define RWF_ATOMIC	0x00000040
#endif
#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE	0x00000080
#endif
#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL	0x00000100
#endif
#define RWF_ALL		0x000001ffU
#define RWF_UNKNOWN	(1U << 30)

FIXTURE(flags)
{
	struct aio aio;
	char *buf;
};

FIXTURE_VARIANT(flags)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(flags, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(flags, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(flags)
{
	testdev_begin();
	self->buf = map_pages(16 * PAGE);
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
}

FIXTURE_TEARDOWN(flags)
{
	testdev_reset();
	aio_end(_metadata, &self->aio);
}

/* All of them are known: by this a kernel with a new one is noticed. */
TEST_F(flags, listed)
{
	struct raio_query query = { };

	if (!variant->ops->is_raio)
		return;
	ASSERT_EQ(0, raio_ioctl(self->aio.dev, RAIO_IOC_QUERY, &query));
	EXPECT_EQ(RWF_ALL, query.rw_flags);
	EXPECT_EQ(IOCB_FLAG_RESFD | IOCB_FLAG_IOPRIO | RAIO_IOCB_FIXED_BUF |
		  RAIO_IOCB_FIXED_FILE, query.iocb_flags);
}

static const int transfers[] = {
	IOCB_CMD_PREAD, IOCB_CMD_PWRITE, IOCB_CMD_PREADV, IOCB_CMD_PWRITEV,
};

static bool is_write(int opcode)
{
	return opcode == IOCB_CMD_PWRITE || opcode == IOCB_CMD_PWRITEV;
}

static const unsigned int sets[] = {
	0, RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT, RWF_APPEND, RWF_NOAPPEND, RWF_ATOMIC,
	RWF_DONTCACHE, RWF_NOSIGNAL, RWF_DSYNC | RWF_SYNC, RWF_HIPRI | RWF_DSYNC | RWF_APPEND,
	RWF_APPEND | RWF_NOAPPEND, RWF_NOWAIT | RWF_DONTCACHE, RWF_ATOMIC | RWF_DSYNC, RWF_ALL,
	RWF_ALL & ~RWF_APPEND, RWF_UNKNOWN, RWF_UNKNOWN | RWF_DSYNC,
};

/* Streams have no position: what is read is gone. */
enum kind { STREAM_PIPE, STREAM_SOCKET, STREAM_EVENTFD };

/* A new one, with something to read and room to write; @other has to be closed too. */
static int stream_open(struct __test_metadata *_metadata, enum kind kind, int opcode, char *buf,
		       int *other)
{
	int fds[2];

	*other = -1;
	switch (kind) {
	case STREAM_EVENTFD:
		return eventfd(42, EFD_CLOEXEC);
	case STREAM_PIPE:
		ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
		break;
	case STREAM_SOCKET:
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
		break;
	}
	if (is_write(opcode)) {
		*other = fds[0];
		return fds[1];
	}
	ASSERT_EQ(PAGE, write(fds[1], buf, PAGE));
	*other = fds[1];
	return fds[0];
}

/* The same as from the system calls, on streams. */
TEST_F(flags, streams)
{
	static const char *const name[] = { "pipe", "socket", "eventfd" };
	unsigned int kind, i, j;

	for (kind = STREAM_PIPE; kind <= STREAM_EVENTFD; kind++) {
		for (i = 0; i < ARRAY_SIZE(transfers); i++) {
			/* No request can write to an eventfd. */
			if (kind == STREAM_EVENTFD && is_write(transfers[i]))
				continue;
			for (j = 0; j < ARRAY_SIZE(sets); j++) {
				struct iovec iov = { self->buf, PAGE };
				const bool vector = transfers[i] >= IOCB_CMD_PREADV;
				void *buf = vector ? (void *)&iov : self->buf;
				const size_t len = vector ? 1 : PAGE;
				long long want, got;
				struct iocb io;
				int fd, other;

				fd = stream_open(_metadata, kind, transfers[i], self->buf, &other);
				/* -1 is for no position. */
				want = kernel_rw(transfers[i], fd, buf, len, -1, sets[j]);
				close(fd);
				close(other);
				fd = stream_open(_metadata, kind, transfers[i], self->buf, &other);
				iocb_prep(&io, transfers[i], fd, buf, len, 0);
				io.aio_rw_flags = sets[j];
				got = aio_result(_metadata, &self->aio, &io);
				close(fd);
				close(other);
				EXPECT_EQ(want, got) {
					TH_LOG("%s, opcode %d, flags %#x", name[kind], transfers[i],
					       sets[j]);
				}
			}
		}
	}
}

/* The same as from the system calls, on what has a position. */

FIXTURE(files)
{
	struct aio aio;
	char *buf;
};

FIXTURE_VARIANT(files)
{
	const struct aio_ops *ops;
	const char *name;
	enum where where;
	int flags;
};

FIXTURE_VARIANT_ADD(files, kernel_aio_tmpfs)
{
	.ops = &kernel_aio, .where = TMPFS,
};

FIXTURE_VARIANT_ADD(files, raio_tmpfs)
{
	.ops = &raio, .where = TMPFS,
};

FIXTURE_VARIANT_ADD(files, kernel_aio_ext4)
{
	.ops = &kernel_aio, .where = EXT4,
};

FIXTURE_VARIANT_ADD(files, raio_ext4)
{
	.ops = &raio, .where = EXT4,
};

FIXTURE_VARIANT_ADD(files, kernel_aio_ext4_direct)
{
	.ops = &kernel_aio, .where = EXT4, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(files, raio_ext4_direct)
{
	.ops = &raio, .where = EXT4, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(files, kernel_aio_xfs)
{
	.ops = &kernel_aio, .where = XFS,
};

FIXTURE_VARIANT_ADD(files, raio_xfs)
{
	.ops = &raio, .where = XFS,
};

FIXTURE_VARIANT_ADD(files, kernel_aio_xfs_direct)
{
	.ops = &kernel_aio, .where = XFS, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(files, raio_xfs_direct)
{
	.ops = &raio, .where = XFS, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(files, kernel_aio_null_blk)
{
	.ops = &kernel_aio, .where = NULL_BLK, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(files, raio_null_blk)
{
	.ops = &raio, .where = NULL_BLK, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(files, kernel_aio_loop)
{
	.ops = &kernel_aio, .where = LOOP, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(files, raio_loop)
{
	.ops = &raio, .where = LOOP, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(files, kernel_aio_dev_null)
{
	.ops = &kernel_aio, .name = "/dev/null",
};

FIXTURE_VARIANT_ADD(files, raio_dev_null)
{
	.ops = &raio, .name = "/dev/null",
};

FIXTURE_VARIANT_ADD(files, kernel_aio_dev_zero)
{
	.ops = &kernel_aio, .name = "/dev/zero",
};

FIXTURE_VARIANT_ADD(files, raio_dev_zero)
{
	.ops = &raio, .name = "/dev/zero",
};

FIXTURE_VARIANT_ADD(files, kernel_aio_test_device)
{
	.ops = &kernel_aio, .name = "/dev/raio_test0",
};

FIXTURE_VARIANT_ADD(files, raio_test_device)
{
	.ops = &raio, .name = "/dev/raio_test0",
};

FIXTURE_SETUP(files)
{
	testdev_begin();
	self->buf = map_pages(16 * PAGE);
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
}

FIXTURE_TEARDOWN(files)
{
	testdev_reset();
	aio_end(_metadata, &self->aio);
}

static long long size_of(struct __test_metadata *_metadata, int fd)
{
	struct stat st;

	ASSERT_EQ(0, fstat(fd, &st));
	return st.st_size;
}

/* Each of the sets on a file, opened as it is, by the system call and by a request. */
static void compare_sets(struct __test_metadata *_metadata, struct aio *aio, int fd, char *buf)
{
	struct stat st;
	unsigned int i, j;

	ASSERT_EQ(0, fstat(fd, &st));
	for (i = 0; i < ARRAY_SIZE(transfers); i++) {
		for (j = 0; j < ARRAY_SIZE(sets); j++) {
			struct iovec iov = { buf, PAGE };
			const bool vector = transfers[i] >= IOCB_CMD_PREADV;
			void *arg = vector ? (void *)&iov : buf;
			const size_t len = vector ? 1 : PAGE;
			long long want, got, before, between;
			struct iocb io;

			before = size_of(_metadata, fd);
			want = kernel_rw(transfers[i], fd, arg, len, PAGE, sets[j]);
			between = size_of(_metadata, fd);
			iocb_prep(&io, transfers[i], fd, arg, len, PAGE);
			io.aio_rw_flags = sets[j];
			got = aio_result(_metadata, aio, &io);
			/* A lock may be taken just then, or it may be time to note the time. */
			if (S_ISREG(st.st_mode) && sets[j] & RWF_NOWAIT &&
			    (want == -EAGAIN || got == -EAGAIN) &&
			    (want == PAGE || got == PAGE))
				continue;
			EXPECT_EQ(want, got) {
				TH_LOG("opcode %d, flags %#x", transfers[i], sets[j]);
			}
			EXPECT_EQ(between - before, size_of(_metadata, fd) - between) {
				TH_LOG("opcode %d, flags %#x", transfers[i], sets[j]);
			}
		}
	}
}

TEST_F(files, as_the_system_calls_say)
{
	struct target t = { .where = variant->where, .flags = variant->flags };
	int fd;

	if (variant->name) {
		fd = ret_errno(open(variant->name, O_RDWR | O_CLOEXEC));
		ASSERT_LE(0, fd);
		compare_sets(_metadata, &self->aio, fd, self->buf);
		return;
	}
	target_open(_metadata, &t);
	target_fill(_metadata, &t, 4 * PAGE, SEED_OLD);
	compare_sets(_metadata, &self->aio, t.fd, self->buf);
	if (target_is_file(&t)) {
		fd = reopen(t.fd, O_RDWR | O_APPEND | t.flags);
		ASSERT_LE(0, fd);
		compare_sets(_metadata, &self->aio, fd, self->buf);
	}
	target_close(&t);
}

/* Each that nobody knows, alone and with those that all know. */
TEST_F(files, unknown_bits)
{
	struct target t = { .where = variant->where, .flags = variant->flags };
	unsigned int i, bit;
	struct iocb io;

	if (variant->name)
		t.fd = open(variant->name, O_RDWR | O_CLOEXEC);
	else
		target_open(_metadata, &t);
	ASSERT_LE(0, t.fd);
	for (i = 0; i < ARRAY_SIZE(transfers); i++) {
		for (bit = 0; bit < 32; bit++) {
			if (1U << bit & RWF_ALL)
				continue;
			iocb_prep(&io, transfers[i], t.fd, bad_ptr(2), 1, -1);
			io.aio_rw_flags = 1U << bit;
			EXPECT_REFUSED(-EOPNOTSUPP, &self->aio, &io);
			io.aio_rw_flags = 1U << bit | RWF_DSYNC | RWF_APPEND | RWF_NOAPPEND;
			EXPECT_REFUSED(-EOPNOTSUPP, &self->aio, &io);
		}
	}
	if (variant->name)
		close(t.fd);
	else
		target_close(&t);
}

/* At the end, whatever the offset, of a vector too. */
TEST_F(files, append)
{
	struct target t = { .where = variant->where, .flags = variant->flags };
	struct iovec iov[] = { { self->buf, BLOCK }, { self->buf + BLOCK, BLOCK } };
	struct iocb io;

	if (variant->name)
		return;
	target_open(_metadata, &t);
	target_fill(_metadata, &t, FILE_SIZE, SEED_OLD);
	if (target_is_file(&t)) {
		pattern_fill(self->buf, 2 * BLOCK, FILE_SIZE, SEED_NEW);
		iocb_prep(&io, IOCB_CMD_PWRITE, t.fd, self->buf, 2 * BLOCK, 0);
		io.aio_rw_flags = RWF_APPEND;
		EXPECT_RESULT(2 * BLOCK, &self->aio, &io);
		pattern_fill(self->buf, 2 * BLOCK, FILE_SIZE + 2 * BLOCK, SEED_NEW);
		iocb_prep(&io, IOCB_CMD_PWRITEV, t.fd, iov, 2, BLOCK);
		io.aio_rw_flags = RWF_APPEND | RWF_DSYNC;
		EXPECT_RESULT(2 * BLOCK, &self->aio, &io);
		EXPECT_EQ(FILE_SIZE + 4 * BLOCK, size_of(_metadata, t.fd));
		ASSERT_EQ(4 * BLOCK, pread(t.fd, self->buf, PAGE, FILE_SIZE));
		EXPECT_EQ(-1, pattern_check(self->buf, 4 * BLOCK, FILE_SIZE, SEED_NEW));
		ASSERT_EQ(PAGE, pread(t.fd, self->buf, PAGE, 0));
		EXPECT_EQ(-1, pattern_check(self->buf, PAGE, 0, SEED_OLD));

		/* And the other way round. */
		io.aio_fildes = reopen(t.fd, O_RDWR | O_APPEND | t.flags);
		pattern_fill(self->buf, 2 * BLOCK, BLOCK, SEED_NEW);
		io.aio_rw_flags = RWF_NOAPPEND;
		EXPECT_RESULT(2 * BLOCK, &self->aio, &io);
		EXPECT_EQ(FILE_SIZE + 4 * BLOCK, size_of(_metadata, t.fd));
		ASSERT_EQ(PAGE, pread(t.fd, self->buf, PAGE, 0));
		EXPECT_EQ(-1, pattern_check(self->buf, BLOCK, 0, SEED_OLD));
		EXPECT_EQ(-1, pattern_check(self->buf + BLOCK, 2 * BLOCK, BLOCK, SEED_NEW));
		close(io.aio_fildes);
	}
	target_close(&t);
}

/* A file that can only grow is one whatever a request says. */
TEST_F(flags, noappend_on_a_file_that_only_grows)
{
	int attr = FS_APPEND_FL, none = 0;
	int fd = temp_file(ext4_dir(), O_RDWR), append;
	struct iocb io;

	append = reopen(fd, O_RDWR | O_APPEND);
	ASSERT_LE(0, append);
	ASSERT_EQ(0, ioctl(fd, FS_IOC_SETFLAGS, &attr));
	iocb_prep(&io, IOCB_CMD_PWRITE, append, self->buf, PAGE, 0);
	io.aio_rw_flags = RWF_NOAPPEND;
	EXPECT_REFUSED(-EPERM, &self->aio, &io);
	io.aio_rw_flags = 0;
	EXPECT_RESULT(PAGE, &self->aio, &io);
	ASSERT_EQ(0, ioctl(fd, FS_IOC_SETFLAGS, &none));
}

/* What would wait says so instead. (raio asks the same at first: parked.c.) */
TEST_F(flags, nowait)
{
	const char *const devs[] = { "c0", "b0" };
	unsigned int i, j;
	struct iocb io;
	int fd;

	for (i = 0; i < ARRAY_SIZE(devs); i++) {
		fd = testdev_open_direct(devs[i]);
		for (j = 0; j < ARRAY_SIZE(transfers); j++) {
			struct iovec iov = { self->buf, PAGE };
			const bool vector = transfers[j] >= IOCB_CMD_PREADV;

			iocb_prep(&io, transfers[j], fd, vector ? (void *)&iov : self->buf,
				  vector ? 1 : PAGE, 0);
			testdev_cmd("%s nowait 0", devs[i]);
			EXPECT_RESULT(PAGE, &self->aio, &io);
			EXPECT_EQ(j, testdev_stat(devs[i], "refused"));
			testdev_cmd("%s nowait all", devs[i]);
			io.aio_rw_flags = RWF_NOWAIT;
			EXPECT_RESULT(-EAGAIN, &self->aio, &io);
			EXPECT_EQ(j + 1, testdev_stat(devs[i], "refused"));
			EXPECT_EQ(j + 1, testdev_stat(devs[i], "started"));
		}
		close(fd);
	}
}

/* Not read yet: only the device could say. */
TEST_F(flags, nowait_and_not_in_the_cache)
{
	int fd = testdev_open("b0", 0);
	struct iocb io;

	ASSERT_EQ(0, posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	testdev_cmd("b0 mode hang");
	iocb_prep(&io, IOCB_CMD_PREAD, fd, self->buf, PAGE, 1UL << 20);
	io.aio_rw_flags = RWF_NOWAIT;
	EXPECT_RESULT(-EAGAIN, &self->aio, &io);
	testdev_cmd("b0 mode now");
	testdev_cmd("b0 complete all");
	io.aio_rw_flags = 0;
	EXPECT_RESULT(PAGE, &self->aio, &io);
	io.aio_rw_flags = RWF_NOWAIT;
	EXPECT_RESULT(PAGE, &self->aio, &io);
	close(fd);
}

/* The disk is told to keep what was written, by the time it is written. */
TEST_F(files, sync)
{
	static const unsigned int flags[] = { RWF_DSYNC, RWF_SYNC, RWF_DSYNC | RWF_SYNC };
	struct target t = { .where = variant->where, .flags = variant->flags };
	struct iovec iov = { self->buf, PAGE };
	unsigned long flushes;
	struct iocb io;
	unsigned int i;

	if (variant->name || variant->where == TMPFS || variant->where == LOOP)
		return;
	target_open(_metadata, &t);
	target_must_flush(_metadata, &t);
	target_fill(_metadata, &t, 4 * PAGE, SEED_OLD);
	ASSERT_EQ(0, fsync(t.fd));
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		flushes = disk_counter(_metadata, t.fd, DISK_FLUSHES);
		pattern_fill(self->buf, PAGE, 0, SEED_NEW + i);
		iocb_prep(&io, IOCB_CMD_PWRITE, t.fd, self->buf, PAGE, 0);
		/* File systems flush for reasons of their own. */
		if (!target_is_file(&t)) {
			EXPECT_RESULT(PAGE, &self->aio, &io);
			EXPECT_EQ(flushes, disk_counter(_metadata, t.fd, DISK_FLUSHES));
		}
		io.aio_rw_flags = flags[i];
		EXPECT_RESULT(PAGE, &self->aio, &io);
		EXPECT_LT(flushes, disk_counter(_metadata, t.fd, DISK_FLUSHES)) {
			TH_LOG("flags %#x", flags[i]);
		}
		flushes = disk_counter(_metadata, t.fd, DISK_FLUSHES);
		iocb_prep(&io, IOCB_CMD_PWRITEV, t.fd, &iov, 1, 0);
		io.aio_rw_flags = flags[i];
		EXPECT_RESULT(PAGE, &self->aio, &io);
		EXPECT_LT(flushes, disk_counter(_metadata, t.fd, DISK_FLUSHES)) {
			TH_LOG("flags %#x, of a vector", flags[i]);
		}
	}
	target_close(&t);
}

/* What is read so doesn't stay. */
TEST_F(files, dontcache)
{
	struct target t = { .where = variant->where, .flags = variant->flags };
	unsigned char in[4];
	unsigned int round;
	struct iocb io;
	void *map;

	if (variant->name || variant->flags || variant->where == TMPFS)
		return;
	target_open(_metadata, &t);
	target_fill(_metadata, &t, 4 * PAGE, SEED_OLD);
	map = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, t.fd, 0);
	ASSERT_NE(MAP_FAILED, map);
	for (round = 0; round < 2; round++) {
		ASSERT_EQ(0, fsync(t.fd));
		ASSERT_EQ(0, posix_fadvise(t.fd, 0, 0, POSIX_FADV_DONTNEED));
		ASSERT_EQ(0, mincore(map, 4 * PAGE, in));
		EXPECT_EQ(0, in[0] & 1);
		memset(self->buf, CANARY, PAGE);
		iocb_prep(&io, IOCB_CMD_PREAD, t.fd, self->buf, PAGE, 0);
		io.aio_rw_flags = round ? RWF_DONTCACHE : 0;
		EXPECT_RESULT(PAGE, &self->aio, &io);
		EXPECT_EQ(-1, pattern_check(self->buf, PAGE, 0, SEED_OLD));
		ASSERT_EQ(0, mincore(map, 4 * PAGE, in));
		EXPECT_EQ(!round, in[0] & 1);
	}
	target_close(&t);
}

static unsigned int sigpipe;

static void count_sigpipe(int sig)
{
	(void)sig;
	__atomic_fetch_add(&sigpipe, 1, __ATOMIC_RELAXED);
}

/* A pipe and a socket that nobody reads: with a signal, and without. */
TEST_F(flags, nosignal)
{
	struct sigaction sa = { .sa_handler = count_sigpipe };
	unsigned int i, had;
	struct iocb io;
	int fds[2];

	ASSERT_EQ(0, sigaction(SIGPIPE, &sa, NULL));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, i ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) :
				 pipe2(fds, O_CLOEXEC));
		close(fds[0]);
		/* By the system call, */
		had = sigpipe;
		EXPECT_EQ(-EPIPE, kernel_rw(IOCB_CMD_PWRITE, fds[1], self->buf, 1, -1, 0));
		EXPECT_EQ(had + 1, sigpipe);
		EXPECT_EQ(-EPIPE, kernel_rw(IOCB_CMD_PWRITE, fds[1], self->buf, 1, -1, RWF_NOSIGNAL));
		EXPECT_EQ(had + 1, sigpipe);
		/* and by a request. */
		iocb_prep(&io, IOCB_CMD_PWRITE, fds[1], self->buf, 1, 0);
		EXPECT_RESULT(-EPIPE, &self->aio, &io);
		EXPECT_EQ(had + 2, sigpipe);
		io.aio_rw_flags = RWF_NOSIGNAL;
		EXPECT_RESULT(-EPIPE, &self->aio, &io);
		EXPECT_EQ(had + 2, sigpipe);
		close(fds[1]);
	}
}

/* I/O priorities. */

FIXTURE(ioprio)
{
	struct aio aio;
	int fd;
	char *buf;
	struct iocb io;
};

FIXTURE_VARIANT(ioprio)
{
	const struct aio_ops *ops;
	const char *dev;
};

FIXTURE_VARIANT_ADD(ioprio, kernel_aio_char)
{
	.ops = &kernel_aio, .dev = "c0",
};

FIXTURE_VARIANT_ADD(ioprio, raio_char)
{
	.ops = &raio, .dev = "c0",
};

FIXTURE_VARIANT_ADD(ioprio, kernel_aio_disk)
{
	.ops = &kernel_aio, .dev = "b0",
};

FIXTURE_VARIANT_ADD(ioprio, raio_disk)
{
	.ops = &raio, .dev = "b0",
};

FIXTURE_SETUP(ioprio)
{
	testdev_begin();
	self->fd = testdev_open_direct(variant->dev);
	self->buf = map_pages(PAGE);
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
	iocb_prep(&self->io, IOCB_CMD_PREAD, self->fd, self->buf, PAGE, 0);
	self->io.aio_flags = IOCB_FLAG_IOPRIO;
}

FIXTURE_TEARDOWN(ioprio)
{
	testdev_reset();
	aio_end(_metadata, &self->aio);
	close(self->fd);
}

#define EXPECT_PRIO(_want) do {						\
	EXPECT_RESULT(PAGE, &self->aio, &self->io);			\
	EXPECT_EQ((_want), testdev_stat(variant->dev, "ioprio"));	\
} while (0)

/* What the request says is what the device sees. */
TEST_F(ioprio, of_the_request)
{
	struct iovec iov = { self->buf, PAGE };
	unsigned int level;

	for (level = 0; level < 8; level++) {
		self->io.aio_reqprio = IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, level);
		EXPECT_PRIO(self->io.aio_reqprio);
		self->io.aio_reqprio = IOPRIO_PRIO_VALUE(IOPRIO_CLASS_RT, level);
		EXPECT_PRIO(self->io.aio_reqprio);
		self->io.aio_reqprio = IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, level);
		EXPECT_PRIO(self->io.aio_reqprio);
	}
	self->io.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_PRIO(self->io.aio_reqprio);
	self->io.aio_reqprio = IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 6);
	self->io.aio_lio_opcode = IOCB_CMD_PREADV;
	self->io.aio_buf = (uintptr_t)&iov;
	self->io.aio_nbytes = 1;
	EXPECT_PRIO(self->io.aio_reqprio);
	self->io.aio_lio_opcode = IOCB_CMD_PWRITEV;
	EXPECT_PRIO(self->io.aio_reqprio);
}

/* Without the flag it is that of the thread, whatever the field says. */
TEST_F(ioprio, of_the_thread)
{
	const int prio = IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7);

	ASSERT_EQ(0, syscall(__NR_ioprio_set, 1, 0, prio));
	self->io.aio_flags = 0;
	EXPECT_PRIO(prio);
	self->io.aio_reqprio = 0x7fff;
	EXPECT_PRIO(prio);
	self->io.aio_flags = IOCB_FLAG_IOPRIO;
	self->io.aio_reqprio = IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 2);
	EXPECT_PRIO(self->io.aio_reqprio);
	/* None: a disk takes the thread's then. */
	self->io.aio_reqprio = 0;
	EXPECT_PRIO(strcmp(variant->dev, "c0") ? prio : 0);
}

TEST_F(ioprio, invalid)
{
	struct iocb io;
	int class, level;

	for (class = 4; class < 8; class++) {
		for (level = 0; level < 8; level++) {
			io = self->io;
			io.aio_reqprio = IOPRIO_PRIO_VALUE(class, level);
			EXPECT_REFUSED(-EINVAL, &self->aio, &io);
			/* Before the flags, the mode and the buffer, */
			io.aio_rw_flags = RWF_UNKNOWN;
			io.aio_buf = KERNEL_ADDR;
			EXPECT_REFUSED(-EINVAL, &self->aio, &io);
			/* but after the descriptor. */
			io.aio_fildes = -1;
			EXPECT_REFUSED(-EBADF, &self->aio, &io);
		}
	}
	/* None has no levels. */
	for (level = 1; level < 8; level++) {
		self->io.aio_reqprio = IOPRIO_PRIO_VALUE(IOPRIO_CLASS_NONE, level);
		EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	}
	self->io.aio_reqprio = -1;
	EXPECT_REFUSED(-EINVAL, &self->aio, &self->io);
	EXPECT_EQ(0, testdev_stat(variant->dev, "started"));
}

/* That of real time is not for everyone, the others are. */
TEST_F(ioprio, not_permitted)
{
	long long res[4] = { };
	long ret[4];
	int class;

	for (class = IOPRIO_CLASS_NONE; class <= IOPRIO_CLASS_IDLE; class++) {
		self->io.aio_reqprio = IOPRIO_PRIO_VALUE(class, 0);
		ASSERT_EQ(0, become(NOBODY, NOBODY));
		ret[class] = aio_run(_metadata, &self->aio, &self->io, &res[class]);
		ASSERT_EQ(0, become(0, 0));
		EXPECT_EQ(class == IOPRIO_CLASS_RT ? -EPERM : 0, ret[class]);
		EXPECT_EQ(class == IOPRIO_CLASS_RT ? 0 : PAGE, res[class]);
	}
	EXPECT_EQ(3, testdev_stat(variant->dev, "started"));
}

/* Only transfers have one: a sync doesn't look. */
TEST_F(ioprio, sync_has_none)
{
	struct iocb io;

	iocb_prep(&io, IOCB_CMD_FSYNC, temp_file(ext4_dir(), O_RDWR), NULL, 0, 0);
	io.aio_flags = IOCB_FLAG_IOPRIO;
	io.aio_reqprio = -1;
	EXPECT_RESULT(0, &self->aio, &io);
	io.aio_lio_opcode = IOCB_CMD_FDSYNC;
	EXPECT_RESULT(0, &self->aio, &io);
}

TEST_HARNESS_MAIN
