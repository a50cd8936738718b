// SPDX-License-Identifier: GPL-2.0
/*
 * Processes and descriptors that go while contexts are in use: every context
 * goes with them, with all I/O ended, and nothing else does. These are short;
 * what takes minutes to hit is not for here.
 */
#include <sys/socket.h>

#include "raio_task.h"
#include "raio_testdev.h"

#define EVENTS		16
#define DELAY_MS	100

FIXTURE(lifetime)
{
	struct aio aio;
	struct raio_stats before;
};

FIXTURE_VARIANT(lifetime)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(lifetime, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(lifetime, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(lifetime)
{
	memset(&self->before, 0, sizeof(self->before));
	testdev_begin();
	testdev_cmd("b0 mode timer %d", DELAY_MS * 1000000);
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
	if (variant->ops->is_raio) {
		ASSERT_EQ(0, raio_stats(self->aio.dev, &self->before)) {
			TH_LOG("no counters");
		}
	}
}

/* Every request that was taken has got its event, every context is gone. */
FIXTURE_TEARDOWN(lifetime)
{
	struct raio_stats after;
	int dev;

	aio_end(_metadata, &self->aio);
	testdev_reset();
	if (!variant->ops->is_raio)
		return;
	dev = raio_open();
	EXPECT_EQ(0, raio_stats(dev, &after));
	EXPECT_EQ(after.submitted - self->before.submitted,
		  after.completed - self->before.completed);
	EXPECT_EQ(after.setups - self->before.setups + 1, after.frees - self->before.frees);
	close(dev);
}

/* Starts reads that take DELAY_MS. For a process of its own: 0 or an error. */
static int start(struct aio *aio)
{
	char *buf = map_pages(EVENTS * PAGE);
	struct iocb io[EVENTS], *iop[EVENTS];
	int fd = open(testdev_path("b0"), O_RDONLY | O_DIRECT | O_CLOEXEC);
	unsigned int i;

	for (i = 0; i < EVENTS; i++) {
		iocb_prep(&io[i], IOCB_CMD_PREAD, fd, buf + i * PAGE, PAGE, i * PAGE);
		iop[i] = &io[i];
	}
	return aio_submit(aio, EVENTS, iop) != EVENTS;
}

/* In a child: the backend opened and a context made once more. */
static int begin(struct aio *aio)
{
	if (aio->dev >= 0)
		close(aio->dev);
	aio->ctx = 0;
	aio->dev = aio->ops->open();
	return aio->dev < 0 || aio_setup(aio, EVENTS, &aio->ctx);
}

TEST_F(lifetime, exit)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(begin(&self->aio));
	EXPECT_EQ(0, wait_child(pid));
}

/* A process has not ended before its I/O has. */
TEST_F(lifetime, exit_in_flight)
{
	long long begun = now_ns();
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(begin(&self->aio) || start(&self->aio));
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_LE(DELAY_MS * 1000000LL, now_ns() - begun);
}

TEST_F(lifetime, exit_with_events_unread)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		struct raio_ring *ring;

		if (begin(&self->aio) || start(&self->aio))
			_exit(1);
		ring = aio_ring(self->aio.ctx);
		_exit(!wait_for(__atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) == EVENTS));
	}
	EXPECT_EQ(0, wait_child(pid));
}

TEST_F(lifetime, killed_in_flight)
{
	struct line line;
	pid_t pid;
	int status;

	line_open(_metadata, &line);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		line_child(&line);
		if (begin(&self->aio) || start(&self->aio))
			_exit(1);
		line_tell(line.fds[1]);
		pause();
	}
	line_parent(&line);
	EXPECT_TRUE(line_wait_for(line.fds[0], WAIT_SECONDS));
	EXPECT_EQ(0, kill(pid, SIGKILL));
	status = wait_child(pid);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* In a call that has nothing to wait for. */
TEST_F(lifetime, killed_in_getevents)
{
	pid_t pid = fork();
	int status;

	ASSERT_LE(0, pid);
	if (!pid) {
		struct io_event ev;

		if (!begin(&self->aio))
			aio_getevents(&self->aio, 1, 1, &ev, NULL);
		_exit(1);
	}
	EXPECT_TRUE(wait_for(task_sleeps(pid)));
	EXPECT_EQ(0, kill(pid, SIGKILL));
	status = wait_child(pid);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		TH_LOG("status %#x", status);
	}
}

static void *getevents_thread(void *data)
{
	struct aio *aio = data;
	struct io_event ev[EVENTS + 1];

	/* One more than will come. */
	aio_getevents(aio, EVENTS + 1, EVENTS + 1, ev, NULL);
	return NULL;
}

/* Many threads in it, and I/O in flight. */
TEST_F(lifetime, killed_with_threads)
{
	struct line line;
	pid_t pid;
	int status;

	line_open(_metadata, &line);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		pthread_t thread;
		unsigned int i;

		line_child(&line);
		if (begin(&self->aio))
			_exit(1);
		for (i = 0; i < 4; i++)
			if (pthread_create(&thread, NULL, getevents_thread, &self->aio))
				_exit(1);
		if (start(&self->aio))
			_exit(1);
		line_tell(line.fds[1]);
		getevents_thread(&self->aio);
		_exit(1);
	}
	line_parent(&line);
	EXPECT_TRUE(line_wait_for(line.fds[0], WAIT_SECONDS));
	EXPECT_EQ(0, kill(pid, SIGKILL));
	status = wait_child(pid);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		TH_LOG("status %#x", status);
	}
}

/* The thread that made the context ends: it is the process's. */
static void *begin_thread(void *data)
{
	return (void *)(long)begin(data);
}

TEST_F(lifetime, thread_exits)
{
	struct aio aio = self->aio;
	struct io_event ev[EVENTS];
	pthread_t thread;
	void *ret;

	aio.dev = -1;
	ASSERT_EQ(0, pthread_create(&thread, NULL, begin_thread, &aio));
	pthread_join(thread, &ret);
	ASSERT_EQ(NULL, ret);
	EXPECT_EQ(0, start(&aio));
	EXPECT_EQ(EVENTS, aio_wait(&aio, EVENTS, ev));
	EXPECT_EQ(0, aio_destroy(&aio, aio.ctx));
	close(aio.dev);
}

/* The child's end is not the parent's, with I/O in flight of either. */
TEST_F(lifetime, child_exits)
{
	struct io_event ev[EVENTS];
	pid_t pid;

	ASSERT_EQ(0, start(&self->aio));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(begin(&self->aio) || start(&self->aio));
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_EQ(EVENTS, aio_wait(&self->aio, EVENTS, ev));
}

/* A child that does nothing but end, on the parent's descriptor. */
TEST_F(lifetime, child_closes)
{
	struct io_event ev[EVENTS];
	unsigned int i;

	ASSERT_EQ(0, start(&self->aio));
	for (i = 0; i < 5; i++) {
		pid_t pid = fork();

		ASSERT_LE(0, pid);
		if (!pid)
			_exit(close(self->aio.dev));
		EXPECT_EQ(0, wait_child(pid));
	}
	EXPECT_EQ(EVENTS, aio_wait(&self->aio, EVENTS, ev));
}

/*
 * The process that made the context ends, its child goes on and holds the
 * descriptor. The context was of the one's memory and goes with it.
 */
TEST_F(lifetime, parent_exits)
{
	struct io_event ev;
	struct line line;
	pid_t pid;

	line_open(_metadata, &line);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		line_child(&line);
		if (begin(&self->aio) || start(&self->aio))
			_exit(1);
		pid = fork();
		if (pid)
			_exit(pid < 0);
		/* The grandchild, until it is told to end. */
		line_tell(line.fds[1]);
		line_wait_for(line.fds[1], WAIT_SECONDS);
		if (aio_poll(&self->aio, 1, &ev) == -EINVAL)
			line_tell(line.fds[1]);
		_exit(0);
	}
	line_parent(&line);
	EXPECT_TRUE(line_wait_for(line.fds[0], WAIT_SECONDS));
	EXPECT_EQ(0, wait_child(pid));
	if (variant->ops->is_raio) {
		EXPECT_TRUE(wait_for(raio_live() == self->aio.live + 1)) {
			TH_LOG("the context is there as long as the descriptor is");
		}
	}
	EXPECT_TRUE(line_tell(line.fds[0]));
	EXPECT_TRUE(line_wait_for(line.fds[0], WAIT_SECONDS)) {
		TH_LOG("the child could use the context");
	}
	/* The test's own is not touched by all this. */
	EXPECT_EQ(0, aio_poll(&self->aio, 1, &ev));
}

/* Another program in the same process, with the descriptor still open. */
TEST_F(lifetime, exec)
{
	struct line line;
	char fd_arg[16];
	pid_t pid;

	line_open(_metadata, &line);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		line_child(&line);
		if (begin(&self->aio) || start(&self->aio))
			_exit(1);
		fcntl(self->aio.dev, F_SETFD, 0);
		fcntl(line.fds[1], F_SETFD, 0);
		snprintf(fd_arg, sizeof(fd_arg), "%d", line.fds[1]);
		execl("/proc/self/exe", "lifetime", "--hold", fd_arg, NULL);
		_exit(1);
	}
	line_parent(&line);
	EXPECT_TRUE(line_wait_for(line.fds[0], WAIT_SECONDS));
	if (variant->ops->is_raio) {
		EXPECT_TRUE(wait_for(raio_live() == self->aio.live + 1)) {
			TH_LOG("the context has outlived its memory");
		}
	}
	EXPECT_TRUE(line_tell(line.fds[0]));
	EXPECT_EQ(0, wait_child(pid));
}

/* What runs after exec: holds its descriptors until it is told to end. */
static int hold(int fd)
{
	return !(line_tell(fd) && line_wait_for(fd, WAIT_SECONDS));
}

/* Descriptors, of which raio's contexts depend. */

struct closer {
	struct aio *aio;
	int fd;
	bool started;
	unsigned long good;
	unsigned long wrong;
};

static void *submit_until_closed(void *data)
{
	struct closer *c = data;
	struct io_event ev[4];
	struct iocb io;
	char buf[64];
	long ret;

	for (;;) {
		iocb_prep(&io, IOCB_CMD_PREAD, c->fd, buf, sizeof(buf), 0);
		ret = aio_submit_one(c->aio, &io);
		if (ret == -EBADF || ret == -EINVAL)
			break;
		if (ret == 1)
			c->good++;
		else if (ret != -EAGAIN)
			c->wrong++;
		__atomic_store_n(&c->started, true, __ATOMIC_RELEASE);
		ret = aio_poll(c->aio, 4, ev);
		if (ret == -EBADF || ret == -EINVAL)
			break;
		if (ret < 0)
			c->wrong++;
	}
	return NULL;
}

/*
 * The device is closed under a thread that submits. In the kernel's case the
 * file that it reads from is.
 */
TEST_F(lifetime, closed_during_submit)
{
	unsigned int round;

	for (round = 0; round < 20; round++) {
		struct aio aio = self->aio;
		struct closer c = { .aio = &aio };
		pthread_t thread;

		aio.dev = -1;
		ASSERT_EQ(0, begin(&aio));
		c.fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
		ASSERT_LE(0, c.fd);
		ASSERT_EQ(0, pthread_create(&thread, NULL, submit_until_closed, &c));
		EXPECT_TRUE(wait_for(__atomic_load_n(&c.started, __ATOMIC_ACQUIRE)));
		EXPECT_EQ(0, close(variant->ops->is_raio ? aio.dev : c.fd));
		pthread_join(thread, NULL);
		EXPECT_NE(0, c.good);
		EXPECT_EQ(0, c.wrong);
		if (variant->ops->is_raio) {
			close(c.fd);
			continue;
		}
		EXPECT_EQ(0, aio_destroy(&aio, aio.ctx));
		close(aio.dev);
	}
}

/* The file is closed in another thread while requests on it are made and run. */
TEST_F(lifetime, file_closed_during_submit)
{
	unsigned int round;

	for (round = 0; round < 50; round++) {
		struct closer c = { .aio = &self->aio };
		struct io_event ev[4];
		pthread_t thread;
		long ret;

		c.fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
		ASSERT_LE(0, c.fd);
		ASSERT_EQ(0, pthread_create(&thread, NULL, submit_until_closed, &c));
		EXPECT_TRUE(wait_for(__atomic_load_n(&c.started, __ATOMIC_ACQUIRE)));
		EXPECT_EQ(0, close(c.fd));
		pthread_join(thread, NULL);
		EXPECT_EQ(0, c.wrong);
		do {
			ret = aio_poll(&self->aio, 4, ev);
		} while (ret > 0);
		EXPECT_EQ(0, ret);
	}
}

/* What is raio's alone. */
FIXTURE(descriptor)
{
	struct aio aio;
	struct raio_stats before;
};

FIXTURE_SETUP(descriptor)
{
	testdev_begin();
	testdev_cmd("b0 mode timer %d", DELAY_MS * 1000000);
	aio_begin(_metadata, &self->aio, &raio, EVENTS);
	ASSERT_EQ(0, raio_stats(self->aio.dev, &self->before));
}

FIXTURE_TEARDOWN(descriptor)
{
	struct raio_stats after;
	int dev;

	aio_end(_metadata, &self->aio);
	testdev_reset();
	dev = raio_open();
	EXPECT_EQ(0, raio_stats(dev, &after));
	EXPECT_EQ(after.submitted - self->before.submitted,
		  after.completed - self->before.completed);
	EXPECT_EQ(after.setups - self->before.setups + 1, after.frees - self->before.frees);
	close(dev);
}

/* The buffers are the program's again when close() returns. */
TEST_F(descriptor, close_in_flight)
{
	long long begun = now_ns();

	ASSERT_EQ(0, start(&self->aio));
	EXPECT_EQ(0, close(self->aio.dev));
	EXPECT_LE(DELAY_MS * 1000000LL, now_ns() - begun);
	self->aio.dev = -1;
	self->aio.ctx = 0;
}

/* The last of all its descriptors is what counts. */
TEST_F(descriptor, duplicates)
{
	struct io_event ev[EVENTS];
	int fds[8];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = i % 2 ? dup(fds[i - 1]) : fcntl(self->aio.dev, F_DUPFD_CLOEXEC, 100);
		ASSERT_LE(0, fds[i]);
	}
	EXPECT_EQ(0, close(self->aio.dev));
	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		self->aio.dev = fds[i];
		ASSERT_EQ(0, start(&self->aio));
		EXPECT_EQ(EVENTS, aio_wait(&self->aio, EVENTS, ev));
		EXPECT_EQ(self->aio.live + 1, raio_live());
		close(fds[i]);
	}
	self->aio.dev = -1;
	self->aio.ctx = 0;
	EXPECT_TRUE(wait_for(raio_live() == self->aio.live));
}

/* A thread sleeps in a call: the descriptor is closed, the file is not. */
static void *sleeper_thread(void *data)
{
	struct closer *c = data;
	struct io_event ev;

	__atomic_store_n(&c->fd, gettid(), __ATOMIC_RELEASE);
	return (void *)aio_getevents(c->aio, 1, 1, &ev, NULL);
}

/*
 * The thread's call keeps the file. It is woken by an event that is on its
 * way, by another descriptor of the file, and then the file goes.
 */
TEST_F(descriptor, close_during_getevents)
{
	struct aio other = self->aio;
	struct closer c = { .aio = &self->aio };
	struct io_event ev[EVENTS];
	pthread_t thread;
	void *ret;

	other.dev = dup(self->aio.dev);
	ASSERT_LE(0, other.dev);
	ASSERT_EQ(0, pthread_create(&thread, NULL, sleeper_thread, &c));
	ASSERT_TRUE(wait_for(__atomic_load_n(&c.fd, __ATOMIC_ACQUIRE) && task_sleeps(c.fd)));
	EXPECT_EQ(0, close(self->aio.dev));
	EXPECT_EQ(0, start(&other));
	EXPECT_EQ(EVENTS - 1, aio_wait(&other, EVENTS - 1, ev));
	pthread_join(thread, &ret);
	EXPECT_EQ(1, (long)ret);
	self->aio.dev = other.dev;
}

/* A request on the device, and a socket that carries it, do not keep it. */
TEST_F(descriptor, sent_to_itself)
{
	int fds[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_DGRAM, 0, fds));
	ASSERT_EQ(0, send_fds(fds[0], &self->aio.dev, 1));
	EXPECT_EQ(0, close(self->aio.dev));
	/* It is in the socket's queue, and so is its context. */
	EXPECT_EQ(self->aio.live + 1, raio_live());
	close(fds[0]);
	close(fds[1]);
	self->aio.dev = -1;
	self->aio.ctx = 0;
	EXPECT_TRUE(wait_for(raio_live() == self->aio.live));
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--hold"))
		return hold(atoi(argv[2]));
	return test_harness_run(argc, argv);
}
