// SPDX-License-Identifier: GPL-2.0
/*
 * Each operation on each kind of file: kernel AIO and raio are asked the same
 * in the same test, and have to say the same and to have moved the same data.
 * The one operation that only raio has, NOOP, is in noop.c.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>

#include "raio_target.h"

#define EVENTS		4
#define CANARY		0x5a

static const struct aio_ops *const backends[2] = { &kernel_aio, &raio };

FIXTURE(matrix)
{
	struct aio aio[2];
	char *buf;
};

FIXTURE_SETUP(matrix)
{
	unsigned int n;

	for (n = 0; n < 2; n++)
		aio_begin(_metadata, &self->aio[n], backends[n], EVENTS);
	self->buf = map_pages(4 * PAGE);
}

FIXTURE_TEARDOWN(matrix)
{
	unsigned int n;

	for (n = 0; n < 2; n++)
		aio_end(_metadata, &self->aio[n]);
}

/* Those that nobody knows are among them. */
static const int opcodes[] = {
	IOCB_CMD_PREAD, IOCB_CMD_PWRITE, IOCB_CMD_PREADV, IOCB_CMD_PWRITEV, IOCB_CMD_FSYNC,
	IOCB_CMD_FDSYNC, IOCB_CMD_POLL, 4, 9,
};

/* What an operation says, and what is in memory then. */
struct outcome {
	long long res;
	char data[PAGE];
};

static void run(struct __test_metadata *_metadata, struct aio *aio, int opcode, int fd, char *buf,
		struct outcome *out)
{
	/* In two pieces, the second first. */
	struct iovec iov[] = { { buf + 2048, 2048 }, { buf, 2048 } };
	struct iocb io;

	if (opcode == IOCB_CMD_POLL)
		iocb_prep(&io, opcode, fd, (void *)(POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM), 0,
			  0);
	else
		iocb_prep_page(&io, opcode, fd, buf, iov);
	memset(buf, CANARY, PAGE);
	if (opcode == IOCB_CMD_PWRITE || opcode == IOCB_CMD_PWRITEV)
		pattern_fill(buf, PAGE, 0, SEED_NEW);
	out->res = aio_result(_metadata, aio, &io);
	memcpy(out->data, buf, PAGE);
}

static void compare(struct __test_metadata *_metadata, const char *name, int opcode,
		    const struct outcome *out)
{
	EXPECT_EQ(out[0].res, out[1].res) {
		TH_LOG("%s, opcode %d", name, opcode);
	}
	EXPECT_EQ(0, memcmp(out[0].data, out[1].data, PAGE)) {
		TH_LOG("%s, opcode %d: other data", name, opcode);
	}
}

/* What holds data at a position: the same file for both. */
TEST_F(matrix, what_has_a_position)
{
	static const struct {
		const char *name;
		enum where where;
		int flags;
	} kinds[] = {
		{ "tmpfs", TMPFS, 0 },
		{ "ext4", EXT4, 0 },
		{ "ext4, direct", EXT4, O_DIRECT },
		{ "xfs", XFS, 0 },
		{ "xfs, direct", XFS, O_DIRECT },
		{ "a disk", NULL_BLK, 0 },
		{ "a disk, direct", NULL_BLK, O_DIRECT },
		{ "loop", LOOP, 0 },
		{ "loop, direct", LOOP, O_DIRECT },
	};
	struct outcome *out = map_pages(2 * sizeof(*out));
	unsigned int i, j, n;
	char *seen = map_pages(PAGE);

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct target t = { .where = kinds[i].where, .flags = kinds[i].flags };

		target_open(_metadata, &t);
		for (j = 0; j < ARRAY_SIZE(opcodes); j++) {
			for (n = 0; n < 2; n++) {
				target_fill(_metadata, &t, 2 * PAGE, SEED_OLD);
				run(_metadata, &self->aio[n], opcodes[j], t.fd, self->buf, &out[n]);
				/* What is in the file belongs to it too. */
				ASSERT_EQ(PAGE, pread(t.fd, seen, PAGE, 0));
				if (opcodes[j] == IOCB_CMD_PWRITEV) {
					EXPECT_EQ(0, memcmp(seen, self->buf + 2048, 2048));
					EXPECT_EQ(0, memcmp(seen + 2048, self->buf, 2048));
				} else {
					EXPECT_EQ(-1, pattern_check(seen, PAGE, 0,
								    opcodes[j] == IOCB_CMD_PWRITE ?
								    SEED_NEW : SEED_OLD));
				}
			}
			compare(_metadata, kinds[i].name, opcodes[j], out);
		}
		target_close(&t);
	}
}

/* All else: a new one for each. */
enum kind {
	PIPE_READ, PIPE_WRITE, SOCKET, DATAGRAM, EVENTFD, TIMERFD, DEV_NULL, DEV_ZERO, DEV_FULL,
	PROC, DIRECTORY, MEMFD, EPOLL, INOTIFY, PATH, NR_KINDS,
};

static const char *const kind_names[NR_KINDS] = {
	"a pipe, to be read", "a pipe, to be written to", "a socket", "a datagram socket",
	"an eventfd", "a timerfd", "/dev/null", "/dev/zero", "/dev/full", "/proc", "a directory",
	"memfd", "an epoll", "inotify", "O_PATH",
};

/* Readable and writable at once, so that nothing waits. @other is its other end or -1. */
static int kind_open(struct __test_metadata *_metadata, enum kind kind, char *buf, int *other)
{
	struct itimerspec at = { .it_value.tv_nsec = 1 };
	struct pollfd pfd = { .events = POLLIN };
	int fds[2];
	int fd;

	pattern_fill(buf, PAGE, 0, SEED_OLD);
	*other = -1;
	switch (kind) {
	case PIPE_READ:
	case PIPE_WRITE:
		ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
		if (kind == PIPE_READ)
			ASSERT_EQ(PAGE, write(fds[1], buf, PAGE));
		*other = fds[kind == PIPE_READ];
		return fds[kind == PIPE_WRITE];
	case SOCKET:
	case DATAGRAM:
		ASSERT_EQ(0, socketpair(AF_UNIX, (kind == SOCKET ? SOCK_STREAM : SOCK_DGRAM) |
					SOCK_CLOEXEC, 0, fds));
		ASSERT_EQ(PAGE, write(fds[1], buf, PAGE));
		*other = fds[1];
		return fds[0];
	case EVENTFD:
		return eventfd(42, EFD_CLOEXEC);
	case TIMERFD:
		pfd.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
		ASSERT_EQ(0, timerfd_settime(pfd.fd, 0, &at, NULL));
		ASSERT_EQ(1, poll(&pfd, 1, WAIT_SECONDS * 1000));
		return pfd.fd;
	case DEV_NULL:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	case DEV_ZERO:
		return open("/dev/zero", O_RDWR | O_CLOEXEC);
	case DEV_FULL:
		return open("/dev/full", O_RDWR | O_CLOEXEC);
	case PROC:
		return open("/proc/version", O_RDONLY | O_CLOEXEC);
	case DIRECTORY:
		return open(ext4_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	case MEMFD:
		fd = memfd_create("raio-test", MFD_CLOEXEC);
		ASSERT_EQ(PAGE, write(fd, buf, PAGE));
		return fd;
	case EPOLL:
		/* A file that is always ready. */
		fd = epoll_create1(EPOLL_CLOEXEC);
		*other = eventfd(1, EFD_CLOEXEC);
		ASSERT_EQ(0, epoll_ctl(fd, EPOLL_CTL_ADD, *other,
				       &(struct epoll_event){ .events = EPOLLIN }));
		return fd;
	case INOTIFY:
		fd = inotify_init1(IN_CLOEXEC);
		ASSERT_LE(0, inotify_add_watch(fd, "/dev/null", IN_OPEN));
		close(open("/dev/null", O_RDONLY | O_CLOEXEC));
		return fd;
	case PATH:
		return open("/dev/null", O_PATH | O_CLOEXEC);
	default:
		return -1;
	}
}

TEST_F(matrix, what_has_none)
{
	struct outcome *out = map_pages(2 * sizeof(*out));
	unsigned int kind, j, n, good = 0, bad = 0;

	for (kind = 0; kind < NR_KINDS; kind++) {
		for (j = 0; j < ARRAY_SIZE(opcodes); j++) {
			for (n = 0; n < 2; n++) {
				int other;
				int fd = kind_open(_metadata, kind, self->buf, &other);

				ASSERT_LE(0, fd) {
					TH_LOG("%s", kind_names[kind]);
				}
				run(_metadata, &self->aio[n], opcodes[j], fd, self->buf, &out[n]);
				close(fd);
				close(other);
			}
			compare(_metadata, kind_names[kind], opcodes[j], out);
			good += out[0].res >= 0;
			bad += out[0].res < 0;
		}
	}
	/* They are of all kinds. */
	EXPECT_LT(NR_KINDS * 2, good);
	EXPECT_LT(NR_KINDS * 2, bad);
}

TEST_HARNESS_MAIN
