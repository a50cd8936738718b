// SPDX-License-Identifier: GPL-2.0
/*
 * Files that are none (pipes, sockets, devices, what has no method for this),
 * limits that are not those of a request (RLIMIT_FSIZE, a full file system,
 * seals), and the flags of a single request.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "raio_test.h"

#define EVENTS		64
#define CANARY		0x5a
#define SEED_NEW	2

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND	0x00000020
#endif

FIXTURE(files)
{
	struct aio aio;
	struct raio_query query;
	char *buf;
};

FIXTURE_VARIANT(files)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(files, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(files, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(files)
{
	self->buf = map_pages(16 * PAGE);
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
	memset(&self->query, 0, sizeof(self->query));
	if (variant->ops->is_raio) {
		ASSERT_EQ(0, raio_ioctl(self->aio.dev, RAIO_IOC_QUERY, &self->query)) {
			TH_LOG("no query");
		}
	} else {
		self->query.rw_flags = -1ULL;
	}
}

FIXTURE_TEARDOWN(files)
{
	aio_end(_metadata, &self->aio);
}

TEST_F(files, dev_null_and_zero)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	struct iocb io;

	iocb_prep(&io, IOCB_CMD_PREAD, null, self->buf, PAGE, 0);
	EXPECT_RESULT(0, &self->aio, &io);
	iocb_prep(&io, IOCB_CMD_PWRITE, null, self->buf, PAGE, 0);
	EXPECT_RESULT(PAGE, &self->aio, &io);
	/* It does not look at what it is given. */
	io.aio_buf = (uintptr_t)map_before_hole(0);
	EXPECT_RESULT(PAGE, &self->aio, &io);
	io.aio_buf = 0;
	EXPECT_RESULT(PAGE, &self->aio, &io);

	memset(self->buf, CANARY, 2 * PAGE);
	iocb_prep(&io, IOCB_CMD_PREAD, zero, self->buf, PAGE, 123);
	EXPECT_RESULT(PAGE, &self->aio, &io);
	EXPECT_EQ(-1, filled_check(self->buf, PAGE, 0));
	EXPECT_EQ(-1, filled_check(self->buf + PAGE, PAGE, CANARY));
}

/* No more at once than read() and write() do. */
TEST_F(files, longest_request)
{
	struct iocb io;

	iocb_prep(&io, IOCB_CMD_PWRITE, open("/dev/null", O_RDWR | O_CLOEXEC), self->buf,
		  0, 0);
	io.aio_nbytes = 1ULL << 40;
	EXPECT_RESULT(INT_MAX & ~(PAGE - 1), &self->aio, &io);
	io.aio_nbytes = INT_MAX & ~(PAGE - 1);
	EXPECT_RESULT(INT_MAX & ~(PAGE - 1), &self->aio, &io);
}

/* It can be written to, but not by this. */
TEST_F(files, dev_full)
{
	int full = open("/dev/full", O_RDWR | O_CLOEXEC);
	struct iocb io;

	iocb_prep(&io, IOCB_CMD_PWRITE, full, self->buf, PAGE, 0);
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	iocb_prep(&io, IOCB_CMD_PREAD, full, self->buf, PAGE, 0);
	EXPECT_RESULT(PAGE, &self->aio, &io);
}

TEST_F(files, pipe)
{
	struct iocb io;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	pattern_fill(self->buf, 1000, 0, SEED_NEW);
	ASSERT_EQ(1000, write(fds[1], self->buf, 1000));
	memset(self->buf, CANARY, PAGE);
	iocb_prep(&io, IOCB_CMD_PREAD, fds[0], self->buf, 600, 0);
	EXPECT_RESULT(600, &self->aio, &io);
	/* What is there, though more was asked for. */
	iocb_prep(&io, IOCB_CMD_PREAD, fds[0], self->buf + 600, 600, 0);
	EXPECT_RESULT(400, &self->aio, &io);
	EXPECT_EQ(-1, pattern_check(self->buf, 1000, 0, SEED_NEW));

	iocb_prep(&io, IOCB_CMD_PWRITE, fds[1], self->buf, 1000, 0);
	EXPECT_RESULT(1000, &self->aio, &io);
	memset(self->buf, CANARY, PAGE);
	ASSERT_EQ(1000, read(fds[0], self->buf, PAGE));
	EXPECT_EQ(-1, pattern_check(self->buf, 1000, 0, SEED_NEW));

	close(fds[1]);
	iocb_prep(&io, IOCB_CMD_PREAD, fds[0], self->buf, 600, 0);
	EXPECT_RESULT(0, &self->aio, &io);
}

TEST_F(files, pipe_that_would_block)
{
	struct iocb io;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_NONBLOCK));
	iocb_prep(&io, IOCB_CMD_PREAD, fds[0], self->buf, 1, 0);
	EXPECT_RESULT(-EAGAIN, &self->aio, &io);
	iocb_prep(&io, IOCB_CMD_PWRITE, fds[1], self->buf, 16 * PAGE, 0);
	EXPECT_RESULT(16 * PAGE, &self->aio, &io);
	EXPECT_RESULT(-EAGAIN, &self->aio, &io);
}

TEST_F(files, pipe_without_a_reader)
{
	struct iocb io;
	int fds[2];

	signal(SIGPIPE, SIG_IGN);
	ASSERT_EQ(0, pipe(fds));
	close(fds[0]);
	iocb_prep(&io, IOCB_CMD_PWRITE, fds[1], self->buf, 1, 0);
	EXPECT_RESULT(-EPIPE, &self->aio, &io);
}

TEST_F(files, socket)
{
	struct iocb io;
	int fds[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	pattern_fill(self->buf, 1000, 0, SEED_NEW);
	iocb_prep(&io, IOCB_CMD_PWRITE, fds[0], self->buf, 1000, 0);
	EXPECT_RESULT(1000, &self->aio, &io);
	memset(self->buf, CANARY, PAGE);
	iocb_prep(&io, IOCB_CMD_PREAD, fds[1], self->buf, PAGE, 0);
	EXPECT_RESULT(1000, &self->aio, &io);
	EXPECT_EQ(-1, pattern_check(self->buf, 1000, 0, SEED_NEW));
	/* A socket has no offset to read at. */
	io.aio_offset = 1;
	EXPECT_RESULT(-ESPIPE, &self->aio, &io);
}

TEST_F(files, eventfd)
{
	uint64_t val = 0;
	struct iocb io;
	int fd = eventfd(42, EFD_CLOEXEC | EFD_NONBLOCK);

	ASSERT_LE(0, fd);
	iocb_prep(&io, IOCB_CMD_PREAD, fd, &val, sizeof(val), 0);
	EXPECT_RESULT(sizeof(val), &self->aio, &io);
	EXPECT_EQ(42, val);
	EXPECT_RESULT(-EAGAIN, &self->aio, &io);
	/* It can be written to, but not by this. */
	io.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
}

TEST_F(files, timerfd)
{
	struct itimerspec at = { .it_value.tv_nsec = 1 };
	struct pollfd pfd;
	uint64_t val = 0;
	struct iocb io;

	pfd.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	pfd.events = POLLIN;
	ASSERT_LE(0, pfd.fd);
	ASSERT_EQ(0, timerfd_settime(pfd.fd, 0, &at, NULL));
	ASSERT_EQ(1, poll(&pfd, 1, WAIT_SECONDS * 1000));
	iocb_prep(&io, IOCB_CMD_PREAD, pfd.fd, &val, sizeof(val), 0);
	EXPECT_RESULT(sizeof(val), &self->aio, &io);
	EXPECT_EQ(1, val);
}

/* These have no method for it. */
TEST_F(files, not_readable)
{
	const int fds[] = { epoll_create1(EPOLL_CLOEXEC), inotify_init1(IN_CLOEXEC) };
	struct iocb io;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		ASSERT_LE(0, fds[i]);
		iocb_prep(&io, IOCB_CMD_PREAD, fds[i], self->buf, PAGE, 0);
		EXPECT_REFUSED(-EINVAL, &self->aio, &io);
		/* Which is found out before the buffer is looked at. */
		io.aio_buf = KERNEL_ADDR;
		EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	}
}

TEST_F(files, proc)
{
	char want[512] = "";
	struct iocb io;
	long len;
	int fd = open("/proc/version", O_RDONLY | O_CLOEXEC);

	ASSERT_LE(0, fd);
	len = pread(fd, want, sizeof(want), 0);
	ASSERT_LT(0, len);
	iocb_prep(&io, IOCB_CMD_PREAD, fd, self->buf, PAGE, 0);
	EXPECT_RESULT(len, &self->aio, &io);
	EXPECT_EQ(0, memcmp(want, self->buf, len));
	io.aio_offset = 6;
	EXPECT_RESULT(len - 6, &self->aio, &io);
	EXPECT_EQ(0, memcmp(want + 6, self->buf, len - 6));
}

TEST_F(files, sealed)
{
	int fd = memfd_create("raio-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct iocb io;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, PAGE));
	ASSERT_EQ(0, fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
	iocb_prep(&io, IOCB_CMD_PWRITE, fd, self->buf, PAGE, 0);
	EXPECT_RESULT(PAGE, &self->aio, &io);
	io.aio_offset = PAGE;
	EXPECT_RESULT(-EPERM, &self->aio, &io);
	ASSERT_EQ(0, fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	io.aio_offset = 0;
	EXPECT_RESULT(-EPERM, &self->aio, &io);
}

TEST_F(files, file_size_limit)
{
	struct rlimit limit = { .rlim_cur = PAGE, .rlim_max = RLIM_INFINITY };
	int fd = temp_file(tmpfs_dir(), O_RDWR);
	struct iocb io;

	ASSERT_LE(0, fd);
	signal(SIGXFSZ, SIG_IGN);
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &limit));
	/* Up to the limit, */
	iocb_prep(&io, IOCB_CMD_PWRITE, fd, self->buf, 2 * PAGE, 512);
	EXPECT_RESULT(PAGE - 512, &self->aio, &io);
	/* from it on, */
	io.aio_offset = PAGE;
	EXPECT_RESULT(-EFBIG, &self->aio, &io);
	/* and beyond. */
	io.aio_offset = 10 * PAGE;
	EXPECT_RESULT(-EFBIG, &self->aio, &io);
}

/* It comes to the thread that submits, or to its process if a worker was told. */
static unsigned int sigxfsz;

static void count_sigxfsz(int sig)
{
	(void)sig;
	__atomic_fetch_add(&sigxfsz, 1, __ATOMIC_RELAXED);
}

TEST_F(files, file_size_limit_signal)
{
	struct rlimit limit = { .rlim_cur = PAGE, .rlim_max = RLIM_INFINITY };
	struct sigaction sa = { .sa_handler = count_sigxfsz };
	int fd = temp_file(tmpfs_dir(), O_RDWR);
	struct io_event ev;
	struct iocb io;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, sigaction(SIGXFSZ, &sa, NULL));
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &limit));
	iocb_prep(&io, IOCB_CMD_PWRITE, fd, self->buf, PAGE, PAGE);
	EXPECT_EQ(1, aio_submit_one(&self->aio, &io));
	if (variant->ops->is_raio)
		EXPECT_TRUE(wait_for(__atomic_load_n(&sigxfsz, __ATOMIC_RELAXED) == 1));
	EXPECT_EQ(1, sigxfsz);
	EXPECT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_EVENT(&ev, &io, -EFBIG);
	EXPECT_EQ(1, sigxfsz);
}

TEST_F(files, no_space)
{
	char dir[PATH_MAX], path[PATH_MAX + 8];
	struct iocb io;
	int fd;

	snprintf(dir, sizeof(dir), "%s/raio-test-XXXXXX", tmpfs_dir());
	ASSERT_NE(NULL, mkdtemp(dir));
	ASSERT_EQ(0, mount("raio-test", dir, "tmpfs", 0, "size=16k"));
	snprintf(path, sizeof(path), "%s/f", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	EXPECT_LE(0, fd);
	umount2(dir, MNT_DETACH);
	rmdir(dir);

	/* As much as there is room for, and then none. */
	iocb_prep(&io, IOCB_CMD_PWRITE, fd, self->buf, 16 * PAGE, 0);
	EXPECT_RESULT(4 * PAGE, &self->aio, &io);
	io.aio_offset = 4 * PAGE;
	EXPECT_RESULT(-ENOSPC, &self->aio, &io);
	/* Nothing new is needed for this. */
	io.aio_offset = 0;
	io.aio_nbytes = 4 * PAGE;
	EXPECT_RESULT(4 * PAGE, &self->aio, &io);
}

/* What query does not list is refused; submit.c sees to that. */
TEST_F(files, rw_flag_append)
{
	int fd = temp_file(tmpfs_dir(), O_RDWR);
	struct stat st;
	struct iocb io;

	ASSERT_LE(0, fd);
	ASSERT_EQ(PAGE, write(fd, self->buf, PAGE));
	iocb_prep(&io, IOCB_CMD_PWRITE, fd, self->buf, 100, 0);
	io.aio_rw_flags = RWF_APPEND;
	if (!(self->query.rw_flags & RWF_APPEND))
		return;
	EXPECT_RESULT(100, &self->aio, &io);
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(PAGE + 100, st.st_size);
	if (!(self->query.rw_flags & RWF_NOAPPEND))
		return;
	io.aio_rw_flags = RWF_APPEND | RWF_NOAPPEND;
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	io.aio_fildes = reopen(fd, O_RDWR | O_APPEND);
	io.aio_rw_flags = RWF_NOAPPEND;
	EXPECT_RESULT(100, &self->aio, &io);
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(PAGE + 100, st.st_size);
}

TEST_F(files, rw_flag_nowait)
{
	struct iocb io;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	iocb_prep(&io, IOCB_CMD_PREAD, fds[0], self->buf, 1, 0);
	io.aio_rw_flags = RWF_NOWAIT;
	if (!(self->query.rw_flags & RWF_NOWAIT))
		return;
	EXPECT_RESULT(-EAGAIN, &self->aio, &io);
	ASSERT_EQ(1, write(fds[1], "x", 1));
	EXPECT_RESULT(1, &self->aio, &io);
}

TEST_F(files, rw_flags_that_change_nothing)
{
	const unsigned int flags[] = { RWF_HIPRI, RWF_DSYNC, RWF_SYNC };
	int fd = temp_file(ext4_dir(), O_RDWR);
	struct iocb io;
	unsigned int i;

	ASSERT_LE(0, fd);
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		if (!(self->query.rw_flags & flags[i]))
			continue;
		pattern_fill(self->buf, PAGE, 0, i);
		iocb_prep(&io, IOCB_CMD_PWRITE, fd, self->buf, PAGE, 0);
		io.aio_rw_flags = flags[i];
		EXPECT_RESULT(PAGE, &self->aio, &io);
		memset(self->buf, CANARY, PAGE);
		io.aio_lio_opcode = IOCB_CMD_PREAD;
		EXPECT_RESULT(PAGE, &self->aio, &io);
		EXPECT_EQ(-1, pattern_check(self->buf, PAGE, 0, i));
	}
}

/* Without memory behind it there is no data to look at, only what is returned. */
TEST_F(files, null_blk)
{
	const char *node = env_or("RAIO_NULLB", "/dev/nullb0");
	struct io_event ev[EVENTS];
	struct iocb io[EVENTS], *iop[EVENTS];
	unsigned int i, op;
	int fd;

	fd = ret_errno(open(node, O_RDWR | O_DIRECT | O_CLOEXEC));
	ASSERT_LE(0, fd) {
		TH_LOG("%s: %s", node, strerror(-fd));
	}
	for (op = 0; op < 2; op++) {
		for (i = 0; i < EVENTS; i++) {
			iocb_prep(&io[i], op ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, fd, self->buf, PAGE,
				  i * PAGE);
			iop[i] = &io[i];
		}
		ASSERT_EQ(EVENTS, aio_submit(&self->aio, EVENTS, iop));
		ASSERT_EQ(EVENTS, aio_wait(&self->aio, EVENTS, ev));
		for (i = 0; i < EVENTS; i++)
			EXPECT_EVENT(&ev[i], event_iocb(&ev[i]), PAGE);
	}
}

TEST_HARNESS_MAIN
