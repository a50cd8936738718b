/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Files that become ready when a test says so, for IOCB_CMD_POLL.
 */
#ifndef RAIO_SOURCE_H
#define RAIO_SOURCE_H

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <termios.h>

#include "raio_testdev.h"

#define READABLE	(POLLIN | POLLRDNORM)

/**
 * struct source - such a file
 * @kind:	what it is
 * @fd:		the file, which is not ready
 * @other:	by which it becomes so
 * @third:	one more descriptor of some
 */
struct source {
	const struct source_kind *kind;
	int fd;
	int other;
	int third;
};

/**
 * struct source_kind - a kind of them
 * @name:	for messages
 * @events:	what to poll for
 * @queues:	on how many wait queues its poll method puts a caller
 * @open:	makes one, not ready: 0 or -errno
 * @fire:	makes it ready, for itself or a little later: 0 or -errno
 * @drain:	makes it not ready again
 */
struct source_kind {
	const char *name;
	short events;
	unsigned int queues;
	int (*open)(struct source *s);
	int (*fire)(struct source *s);
	int (*drain)(struct source *s);
};

static inline int one_byte_out(int fd)
{
	return write(fd, "x", 1) == 1 ? 0 : -errno;
}

static inline int all_bytes_in(int fd)
{
	char buf[4096];
	ssize_t n;

	do {
		n = read(fd, buf, sizeof(buf));
	} while (n > 0);
	return n == 0 || errno == EAGAIN ? 0 : -errno;
}

static inline int fire_other(struct source *s)
{
	return one_byte_out(s->other);
}

static inline int drain_fd(struct source *s)
{
	return all_bytes_in(s->fd);
}

static inline int open_pipe(struct source *s)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	s->fd = fds[0];
	s->other = fds[1];
	return 0;
}

static inline int fill_pipe(int fd)
{
	char buf[4096] = "";

	while (write(fd, buf, sizeof(buf)) > 0)
		;
	return errno == EAGAIN ? 0 : -errno;
}

/* The end that is written to, which is full. */
static inline int open_full_pipe(struct source *s)
{
	int err = open_pipe(s);
	int fd = s->fd;

	s->fd = s->other;
	s->other = fd;
	return err ?: fill_pipe(s->fd);
}

static inline int fire_full_pipe(struct source *s)
{
	return all_bytes_in(s->other);
}

static inline int drain_full_pipe(struct source *s)
{
	return fill_pipe(s->fd);
}

/* Open for both: who polls waits for both sides. */
static inline int open_fifo(struct source *s)
{
	int err = open_pipe(s);
	int fd = err ?: reopen(s->fd, O_RDWR | O_NONBLOCK);

	if (fd < 0)
		return fd;
	close(s->fd);
	s->fd = fd;
	return 0;
}

static inline int open_socket(struct source *s)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
		return -errno;
	s->fd = fds[0];
	s->other = fds[1];
	return 0;
}

static inline int open_dgram(struct source *s)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
		return -errno;
	s->fd = fds[0];
	s->other = fds[1];
	return 0;
}

static inline int open_eventfd(struct source *s)
{
	s->fd = ret_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	return s->fd < 0 ? s->fd : 0;
}

static inline int fire_eventfd(struct source *s)
{
	uint64_t one = 1;

	return write(s->fd, &one, sizeof(one)) == sizeof(one) ? 0 : -errno;
}

static inline int open_timer(struct source *s)
{
	s->fd = ret_errno(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
	return s->fd < 0 ? s->fd : 0;
}

/* In an interrupt. */
static inline int fire_timer(struct source *s)
{
	struct itimerspec in = { .it_value.tv_nsec = 50000 };

	return ret_errno(timerfd_settime(s->fd, 0, &in, NULL));
}

static inline int open_inotify(struct source *s)
{
	s->other = temp_file(tmpfs_dir(), O_RDWR);
	s->fd = ret_errno(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
	if (s->fd >= 0) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/self/fd/%d", s->other);
		if (inotify_add_watch(s->fd, path, IN_MODIFY) < 0)
			return -errno;
	}
	return s->fd < 0 ? s->fd : 0;
}

/* An epoll that watches the read end of a pipe. */
static inline int open_epoll(struct source *s)
{
	struct epoll_event ev = { .events = EPOLLIN };
	struct source pipe = { };
	int err = open_pipe(&pipe);

	if (err)
		return err;
	s->other = pipe.other;
	s->third = pipe.fd;
	s->fd = ret_errno(epoll_create1(EPOLL_CLOEXEC));
	if (s->fd < 0)
		return s->fd;
	return ret_errno(epoll_ctl(s->fd, EPOLL_CTL_ADD, s->third, &ev));
}

static inline int drain_epoll(struct source *s)
{
	return all_bytes_in(s->third);
}

/* The master's side of a terminal, which hands bytes on as they are. */
static inline int open_pty(struct source *s)
{
	struct termios raw;
	int unlock = 0;

	s->fd = ret_errno(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
	if (s->fd < 0)
		return s->fd;
	if (ioctl(s->fd, TIOCSPTLCK, &unlock))
		return -errno;
	s->other = ret_errno(ioctl(s->fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
	if (s->other < 0)
		return s->other;
	if (tcgetattr(s->other, &raw))
		return -errno;
	cfmakeraw(&raw);
	return ret_errno(tcsetattr(s->other, TCSANOW, &raw));
}

/* A test device, c1. Its wait queues are as it has been told. */
static inline int open_device(struct source *s)
{
	s->fd = ret_errno(open(testdev_path("c1"), O_RDWR | O_CLOEXEC));
	return s->fd < 0 ? s->fd : testdev_try("c1 ready 0");
}

static inline int fire_device(struct source *s)
{
	(void)s;
	return testdev_try("c1 fire 0 %d", READABLE);
}

static inline int fire_device_without_key(struct source *s)
{
	(void)s;
	return testdev_try("c1 ready %d", READABLE) ?: (int)testdev_try("c1 wake 0 0");
}

static inline int fire_device_soft(struct source *s)
{
	(void)s;
	return testdev_try("c1 soft 1 20000 fire 0 %d", READABLE);
}

static inline int fire_device_hard(struct source *s)
{
	(void)s;
	return testdev_try("c1 hard 1 20000 fire 0 %d", READABLE);
}

static inline int drain_device(struct source *s)
{
	(void)s;
	return testdev_try("c1 ready 0");
}

enum {
	PIPE, FULL_PIPE, SOCKET, DGRAM, EVENTFD, TIMER, INOTIFY, EPOLL, FIFO, PTY, DEVICE,
	DEVICE_WITHOUT_KEY, DEVICE_SOFT, DEVICE_HARD, NR_SOURCES,
};

static const struct source_kind sources[NR_SOURCES] __maybe_unused = {
	[PIPE] = { "pipe", POLLIN, 1, open_pipe, fire_other, drain_fd },
	[FULL_PIPE] = { "full pipe", POLLOUT, 1, open_full_pipe, fire_full_pipe, drain_full_pipe },
	[SOCKET] = { "socket", POLLIN, 1, open_socket, fire_other, drain_fd },
	[DGRAM] = { "datagram socket", POLLIN, 1, open_dgram, fire_other, drain_fd },
	[EVENTFD] = { "eventfd", POLLIN, 1, open_eventfd, fire_eventfd, drain_fd },
	[TIMER] = { "timerfd", POLLIN, 1, open_timer, fire_timer, drain_fd },
	[INOTIFY] = { "inotify", POLLIN, 1, open_inotify, fire_other, drain_fd },
	[EPOLL] = { "epoll", POLLIN, 1, open_epoll, fire_other, drain_epoll },
	[FIFO] = { "FIFO for both", POLLIN, 2, open_fifo, fire_other, drain_fd },
	[PTY] = { "terminal", POLLIN, 2, open_pty, fire_other, drain_fd },
	[DEVICE] = { "device", READABLE, 1, open_device, fire_device, drain_device },
	[DEVICE_WITHOUT_KEY] = { "device without a key", READABLE, 1, open_device,
				 fire_device_without_key, drain_device },
	[DEVICE_SOFT] = { "device in softirq", READABLE, 1, open_device, fire_device_soft,
			  drain_device },
	[DEVICE_HARD] = { "device in an interrupt", READABLE, 1, open_device, fire_device_hard,
			  drain_device },
};

static inline void source_open(struct __test_metadata *_metadata, struct source *s, int kind)
{
	int err;

	*s = (struct source){ .kind = &sources[kind], .fd = -1, .other = -1, .third = -1 };
	err = s->kind->open(s);
	ASSERT_EQ(0, err) {
		TH_LOG("%s: %s", s->kind->name, strerror(-err));
	}
}

static inline void source_close(struct source *s)
{
	close(s->fd);
	if (s->other >= 0)
		close(s->other);
	if (s->third >= 0)
		close(s->third);
}

/* What poll(2) says at this moment. */
static inline int polled(int fd, int events)
{
	struct pollfd pfd = { .fd = fd, .events = events };
	int ret = ret_errno(poll(&pfd, 1, 0));

	return ret < 1 ? ret : (unsigned short)pfd.revents;
}

static inline void prep_poll(struct iocb *io, int fd, unsigned int events)
{
	iocb_prep(io, IOCB_CMD_POLL, fd, (void *)(uintptr_t)events, 0, 0);
}

#endif /* RAIO_SOURCE_H */
