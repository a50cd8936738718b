/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Other threads and processes: where they are, calls that they are in, what
 * they send to one another; and a thread held in the middle of a copy from or
 * to user space.
 */
#ifndef RAIO_TASK_H
#define RAIO_TASK_H

#include <linux/membarrier.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "raio_test.h"

/* The text of a small file, or an empty one. */
static inline const char *read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	text[n < 0 ? 0 : n] = 0;
	if (fd >= 0)
		close(fd);
	return text;
}

static inline long read_number(const char *path)
{
	char text[32];

	return strtol(read_text(path, text, sizeof(text)), NULL, 10);
}

/* What is there of the whole system's, at the module: nr_contexts, nr_requests. */
static inline long raio_nr(const char *what)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/sys/fs/raio/%s", what);
	return read_number(path);
}

/* Where a task is. */

/* As the kernel shows it: 'D' is a sleep that only SIGKILL ends, if anything. */
static inline char task_state(pid_t tid)
{
	char path[64], text[512];
	const char *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	p = strrchr(read_text(path, text, sizeof(text)), ')');
	return p && p[1] == ' ' ? p[2] : 0;
}

/* True if it sleeps in the system call @nr; with ioctl(2), in @cmd. */
static inline bool task_in(pid_t tid, long nr, unsigned long cmd)
{
	unsigned long fd, arg;
	char path[64], text[512];
	char state;
	long seen;
	int n;

	snprintf(path, sizeof(path), "/proc/%d/syscall", tid);
	n = sscanf(read_text(path, text, sizeof(text)), "%ld %lx %lx", &seen, &fd, &arg);
	if (n != 3 || seen != nr || (nr == __NR_ioctl && arg != cmd))
		return false;
	state = task_state(tid);
	return state == 'S' || state == 'D';
}

/* Another user, for this thread only; what is saved stays root's, so there is a way back. */
static inline long become(uid_t uid, gid_t gid)
{
	return ret_errno(syscall(__NR_setresuid, -1, 0, -1)) ?:
	       ret_errno(syscall(__NR_setresgid, -1, gid, -1)) ?:
	       ret_errno(syscall(__NR_setresuid, -1, uid, -1));
}

/* Calls on contexts, each in a thread of its own. */

enum call_kind { DESTROY, GETEVENTS, SUBMIT, CLOSE };

#define CALL_EVENTS	16

/**
 * struct call - a call
 * @kind:	which
 * @aio:	the backend, and its context
 * @nr:		how many iocbs or events
 * @iocbs:	for SUBMIT
 * @timeout:	for GETEVENTS
 * @events:	where they go to; NULL for @ev
 * @at_return:	called in the thread when the call has returned
 * @arg:	for that
 * @ret:	what the call returned, when it is @over
 * @ev:		the events
 */
struct call {
	enum call_kind kind;
	struct aio aio;
	long nr;
	struct iocb **iocbs;
	struct __kernel_timespec *timeout;
	struct io_event *events;
	void (*at_return)(void *arg);
	void *arg;
	long ret;
	struct io_event ev[CALL_EVENTS];
	pthread_t thread;
	pid_t tid;
	bool over;
};

static inline long call_now(struct call *call)
{
	switch (call->kind) {
	case DESTROY:
		return aio_destroy(&call->aio, call->aio.ctx);
	case GETEVENTS:
		return aio_getevents(&call->aio, call->nr, call->nr, call->events ?: call->ev,
				     call->timeout);
	case SUBMIT:
		return aio_submit(&call->aio, call->nr, call->iocbs);
	case CLOSE:
		return ret_errno(close(call->aio.dev));
	}
	return -ENOSYS;
}

static inline void *call_thread(void *data)
{
	struct call *call = data;

	__atomic_store_n(&call->tid, gettid(), __ATOMIC_RELEASE);
	call->ret = call_now(call);
	if (call->at_return)
		call->at_return(call->arg);
	__atomic_store_n(&call->over, true, __ATOMIC_RELEASE);
	return NULL;
}

static inline bool call_over(struct call *call)
{
	return __atomic_load_n(&call->over, __ATOMIC_ACQUIRE);
}

/* True if @tid sleeps in such a call. */
static inline bool task_in_call(pid_t tid, enum call_kind kind, const struct aio *aio)
{
	static const long kernel[] = {
		[DESTROY] = __NR_io_destroy,
		[GETEVENTS] = __NR_io_getevents,
		[SUBMIT] = __NR_io_submit,
	};
	static const unsigned long cmd[] = {
		[DESTROY] = RAIO_IOC_DESTROY,
		[GETEVENTS] = RAIO_IOC_GETEVENTS,
		[SUBMIT] = RAIO_IOC_SUBMIT,
	};

	if (kind == CLOSE)
		return task_in(tid, __NR_close, 0);
	if (aio->ops->is_raio)
		return task_in(tid, __NR_ioctl, cmd[kind]);
	if (kind == GETEVENTS && task_in(tid, NR_PGETEVENTS, 0))
		return true;
	return task_in(tid, kernel[kind], 0);
}

static inline bool call_sleeps(struct call *call)
{
	pid_t tid = __atomic_load_n(&call->tid, __ATOMIC_ACQUIRE);

	return tid && task_in_call(tid, call->kind, &call->aio) && !call_over(call);
}

static inline void call_start(struct __test_metadata *_metadata, struct call *call)
{
	call->ret = -ENODATA;
	ASSERT_EQ(0, pthread_create(&call->thread, NULL, call_thread, call));
}

/* The call has to come to sleep, and then isn't over. */
#define EXPECT_SLEEPS(_call) \
	ASSERT_TRUE(wait_for(call_sleeps(_call) || call_over(_call)) && !call_over(_call))

/* The call has to return @val. */
#define EXPECT_RETURNS(_val, _call) do {				\
	ASSERT_TRUE(wait_for(call_over(_call)));			\
	pthread_join((_call)->thread, NULL);				\
	EXPECT_EQ((_val), (_call)->ret);				\
} while (0)

/* What waited for RCU when this was called has come further when it returns. */
static inline void grace_periods(void)
{
	unsigned int i;

	for (i = 0; i < 4; i++)
		syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}

/* Who submits for submit_by_child(). */
struct gone_child {
	struct aio *aio;
	struct iocb *io;
	long ret;
};

static inline int gone_child(void *data)
{
	struct gone_child *c = data;

	c->ret = aio_submit_one(c->aio, c->io);
	return 0;
}

/* A child that shares memory, and so contexts, but no signals, submits @io, and is gone then. */
static inline void submit_by_child(struct __test_metadata *_metadata, struct aio *aio,
				   struct iocb *io)
{
	struct gone_child c = { .aio = aio, .io = io };
	const size_t size = 65536;
	char *stack = map_pages(size);
	/* The parent sleeps until the child has ended. */
	pid_t pid = clone(gone_child, stack + size,
			  CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, &c);

	ASSERT_LE(0, pid);
	ASSERT_EQ(1, c.ret);
	EXPECT_EQ(0, wait_child(pid));
	munmap(stack, size);
}

/* A child tells by a byte, and waits for one. */
struct line {
	int fds[2];
};

static inline void line_open(struct __test_metadata *_metadata, struct line *line)
{
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line->fds));
}

static inline void line_child(struct line *line)
{
	close(line->fds[0]);
}

static inline void line_parent(struct line *line)
{
	close(line->fds[1]);
}

static inline bool line_tell(int fd)
{
	return send(fd, "x", 1, MSG_NOSIGNAL) == 1;
}

static inline bool line_wait_for(int fd, unsigned int seconds)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	char c;

	return poll(&pfd, 1, seconds * 1000) == 1 && read(fd, &c, 1) == 1;
}

/* Long enough for who waits for a stuck device. */
static inline bool line_wait(int fd)
{
	return line_wait_for(fd, 3 * WAIT_SECONDS);
}

/* A message of one byte with @nr descriptors. */
static inline int send_fds(int sock, const int *fds, unsigned int nr)
{
	union {
		char buf[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} control = { };
	struct iovec iov = { .iov_base = "x", .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = CMSG_SPACE(nr * sizeof(int)),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(nr * sizeof(int));
	memcpy(CMSG_DATA(cmsg), fds, nr * sizeof(int));
	return sendmsg(sock, &msg, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

/* The descriptor that comes with a message of one byte, or -1. */
static inline int receive_fd(int sock)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { };
	char c;
	struct iovec iov = { .iov_base = &c, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&msg))
		return -1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}

/* The first direct transfer of a mount, which would go to a worker: kernel AIO makes it. */
static inline void first_transfer(struct __test_metadata *_metadata, const char *dir)
{
	char *buf = map_pages(PAGE), path[80];
	struct io_event ev;
	struct iocb io;
	struct aio aio;
	int fd;

	/* It stays: to delete it would be written later. */
	snprintf(path, sizeof(path), "%s/first", dir);
	fd = open(path, O_RDWR | O_DIRECT | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_LE(0, fd);
	EXPECT_EQ(PAGE, pwrite(fd, buf, PAGE, 0));
	EXPECT_EQ(0, fsync(fd));
	aio_begin(_metadata, &aio, &kernel_aio, 1);
	iocb_prep(&io, IOCB_CMD_PREAD, fd, buf, PAGE, 0);
	EXPECT_EQ(1, aio_submit_one(&aio, &io));
	EXPECT_EQ(1, aio_wait(&aio, 1, &ev));
	EXPECT_EVENT(&ev, &io, PAGE);
	aio_end(_metadata, &aio);
	close(fd);
	munmap(buf, PAGE);
}

/* Memory at which whoever touches it is held. */

/* Pages that are not there: held until uffd_fill(), or the end of the uffd. */
static inline int uffd_missing(int uffd, void *addr, size_t len)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)addr, .len = len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return ret_errno(ioctl(uffd, UFFDIO_REGISTER, &reg));
}

/* Pages that can be read: who writes is held until uffd_allow(), or as above. */
static inline int uffd_protect(int uffd, void *addr, size_t len)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)addr, .len = len },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)addr, .len = len },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	return ret_errno(ioctl(uffd, UFFDIO_REGISTER, &reg)) ?:
	       ret_errno(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
}

static inline int uffd_open(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	int fd = ret_errno(syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK));
	int err;

	if (fd < 0)
		return fd;
	err = ret_errno(ioctl(fd, UFFDIO_API, &api));
	if (!err)
		return fd;
	close(fd);
	return err;
}

/* Waits until somebody is held. */
static inline bool uffd_wait(int uffd)
{
	struct pollfd pfd = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;

	return poll(&pfd, 1, WAIT_SECONDS * 1000) == 1 &&
	       read(uffd, &msg, sizeof(msg)) == sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT;
}

/* Puts a page there and lets go of who waits for it. */
static inline int uffd_fill(int uffd, void *addr, const void *page)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)addr,
		.src = (uintptr_t)page,
		.len = PAGE,
	};

	return ret_errno(ioctl(uffd, UFFDIO_COPY, &copy));
}

static inline int uffd_allow(int uffd, void *addr)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)addr, .len = PAGE },
	};

	return ret_errno(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
}

#endif /* RAIO_TASK_H */
