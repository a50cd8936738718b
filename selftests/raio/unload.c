// SPDX-License-Identifier: GPL-2.0
/*
 * Removing the module: refused as long as anything of it is in use, done at
 * once when nothing is. Each test loads it again, so this wants to be the last:
 * counters and limits begin anew.
 *
 * The module is in the file that RAIO_MODULE names, or in /raio/raio.ko.
 */
#include <sys/mman.h>

#include "raio_source.h"
#include "raio_task.h"

#define EVENTS		4
#define LEN		PAGE

static long module_remove(void)
{
	return ret_errno(syscall(__NR_delete_module, "raio", O_NONBLOCK));
}

static long module_insert(void)
{
	int fd = open(env_or("RAIO_MODULE", "/raio/raio.ko"), O_RDONLY | O_CLOEXEC);
	long ret;

	if (fd < 0)
		return -errno;
	ret = ret_errno(syscall(__NR_finit_module, fd, "", 0));
	close(fd);
	return ret;
}

static bool module_is_loaded(void)
{
	return !access("/sys/module/raio", F_OK);
}

/* Nothing of it is in use: it goes at once, and can come again. */
#define EXPECT_REMOVABLE() do {						\
	EXPECT_EQ(0, module_remove()) {					\
		TH_LOG("%ld users", read_number("/sys/module/raio/refcnt"));	\
	}								\
	if (!module_is_loaded())					\
		ASSERT_EQ(0, module_insert());				\
} while (0)

/* The same for what goes by itself, a little later. */
#define EXPECT_REMOVABLE_SOON() do {					\
	EXPECT_TRUE(wait_for(module_remove() == 0)) {			\
		TH_LOG("%ld users", read_number("/sys/module/raio/refcnt"));	\
	}								\
	if (!module_is_loaded())					\
		ASSERT_EQ(0, module_insert());				\
} while (0)

#define EXPECT_IN_USE() \
	EXPECT_EQ(-EAGAIN, module_remove())

FIXTURE(unload)
{
	struct aio aio;
	struct line line;
	int fd;
	char *buf;
};

FIXTURE_SETUP(unload)
{
	testdev_begin();
	if (!module_is_loaded())
		ASSERT_EQ(0, module_insert());
	memset(&self->aio, 0, sizeof(self->aio));
	self->aio.ops = &raio;
	self->aio.dev = -1;
	self->fd = testdev_open("c0", 0);
	self->buf = map_pages(EVENTS * LEN);
	line_open(_metadata, &self->line);
}

FIXTURE_TEARDOWN(unload)
{
	testdev_reset();
	if (self->aio.dev >= 0)
		close(self->aio.dev);
	close(self->fd);
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == 0));
	if (!module_is_loaded())
		EXPECT_EQ(0, module_insert());
}

/* For children too: @nr contexts, and requests on the last one if it is asked for. */
static int use(struct aio *aio, unsigned int nr, int fd, char *buf)
{
	static struct iocb io[EVENTS];
	struct iocb *iop[EVENTS];
	unsigned int i;

	aio->dev = raio_open();
	if (aio->dev < 0)
		return 1;
	for (i = 0; i < nr; i++) {
		aio->ctx = 0;
		if (aio_setup(aio, EVENTS, &aio->ctx))
			return 2;
	}
	if (fd < 0)
		return 0;
	for (i = 0; i < EVENTS; i++) {
		iocb_prep(&io[i], IOCB_CMD_PREAD, fd, buf + i * LEN, LEN, i * LEN);
		iop[i] = &io[i];
	}
	return aio_submit(aio, EVENTS, iop) != EVENTS ? 3 : 0;
}

#define FORK_CHILD(pid) do {						\
	(pid) = fork();							\
	ASSERT_LE(0, (pid));						\
	if (!(pid))							\
		line_child(&self->line);				\
} while (0)

static bool was_killed(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

TEST_F(unload, unused)
{
	struct raio_stats stats;
	unsigned int i;
	int dev;

	for (i = 0; i < 10; i++)
		EXPECT_REMOVABLE();
	dev = raio_open();
	ASSERT_LE(0, dev);
	EXPECT_EQ(0, raio_stats(dev, &stats));
	EXPECT_EQ(0, stats.setups);
	close(dev);
}

TEST_F(unload, refused_while_open)
{
	struct io_event ev;
	int other;

	self->aio.dev = raio_open();
	ASSERT_LE(0, self->aio.dev);
	EXPECT_IN_USE();
	ASSERT_EQ(0, aio_setup(&self->aio, EVENTS, &self->aio.ctx));
	EXPECT_IN_USE();
	/* It was not even tried: all goes on. */
	EXPECT_EQ(0, aio_poll(&self->aio, 1, &ev));
	other = dup(self->aio.dev);
	close(self->aio.dev);
	self->aio.dev = other;
	EXPECT_IN_USE();
	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	EXPECT_IN_USE();
	EXPECT_EQ(0, close(other));
	self->aio.dev = -1;
	EXPECT_REMOVABLE();
}

/* Who has it open need not have opened it. */
TEST_F(unload, refused_while_in_a_socket)
{
	int dev = raio_open();

	ASSERT_LE(0, dev);
	ASSERT_EQ(0, send_fds(self->line.fds[0], &dev, 1));
	close(dev);
	EXPECT_IN_USE();
	dev = receive_fd(self->line.fds[1]);
	EXPECT_IN_USE();
	close(dev);
	EXPECT_REMOVABLE();
}

/* With requests in flight: on their way, or held by a device that lets them go. */
static const char * const flights[] = { "hang", "timer 10000000", "timer 100000", "softirq", "now" };

TEST_F(unload, after_close)
{
	unsigned int i;

	for (i = 0; i < 10; i++) {
		testdev_cmd("c0 cancel %s", i & 1 ? "yes" : "late");
		testdev_cmd("c0 mode %s", flights[i % ARRAY_SIZE(flights)]);
		ASSERT_EQ(0, use(&self->aio, 1, self->fd, self->buf));
		EXPECT_EQ(0, close(self->aio.dev));
		EXPECT_REMOVABLE();
	}
	self->aio.dev = -1;
}

TEST_F(unload, after_exit)
{
	unsigned int i;
	pid_t pid;

	for (i = 0; i < 10; i++) {
		testdev_cmd("c0 cancel %s", i & 1 ? "yes" : "late");
		testdev_cmd("c0 mode %s", flights[i % ARRAY_SIZE(flights)]);
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			_exit(use(&self->aio, 1, self->fd, self->buf));
		EXPECT_EQ(0, wait_child(pid));
		EXPECT_REMOVABLE();
	}
}

TEST_F(unload, after_sigkill)
{
	unsigned int i;
	pid_t pid;

	for (i = 0; i < 10; i++) {
		testdev_cmd("c0 cancel %s", i & 1 ? "yes" : "late");
		testdev_cmd("c0 mode %s", flights[i % ARRAY_SIZE(flights)]);
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			struct io_event ev;

			if (!use(&self->aio, 1, self->fd, self->buf) &&
			    line_tell(self->line.fds[1]))
				aio_getevents(&self->aio, 2 * EVENTS, 2 * EVENTS, &ev, NULL);
			_exit(1);
		}
		ASSERT_TRUE(line_wait(self->line.fds[0]));
		kill(pid, SIGKILL);
		EXPECT_TRUE(was_killed(wait_child(pid)));
		EXPECT_REMOVABLE();
	}
}

TEST_F(unload, after_destroy)
{
	unsigned int i;

	for (i = 0; i < 3; i++) {
		testdev_cmd("c0 mode %s", flights[i + 1]);
		ASSERT_EQ(0, use(&self->aio, 1, self->fd, self->buf));
		EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
		EXPECT_EQ(0, close(self->aio.dev));
		EXPECT_REMOVABLE();
	}
	self->aio.dev = -1;
}

/* The context ends with its ring, and close waits for it. */
TEST_F(unload, after_munmap)
{
	unsigned int i;

	for (i = 0; i < 3; i++) {
		testdev_cmd("c0 mode %s", flights[i + 1]);
		ASSERT_EQ(0, use(&self->aio, 1, self->fd, self->buf));
		ASSERT_EQ(0, munmap((void *)self->aio.ctx, PAGE));
		EXPECT_EQ(0, close(self->aio.dev));
		EXPECT_REMOVABLE();
	}
	self->aio.dev = -1;
}

/* Parts of the ring are left mapped, or elsewhere, when the file goes. */
TEST_F(unload, after_the_ring_was_moved)
{
	unsigned int i;

	for (i = 0; i < 3; i++) {
		char *to = map_pages(16 * PAGE);
		struct raio_ring *ring;

		self->aio.dev = raio_open();
		self->aio.ctx = 0;
		ASSERT_EQ(0, aio_setup(&self->aio, 1000, &self->aio.ctx));
		ring = aio_ring(self->aio.ctx);
		if (i == 1)
			ASSERT_EQ(0, munmap((char *)ring + PAGE, PAGE));
		if (i == 2)
			mremap(ring, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
		EXPECT_EQ(0, close(self->aio.dev));
		EXPECT_REMOVABLE_SOON();
		/* Whatever is still there of it does no harm. */
		munmap(ring, 8 * PAGE);
		munmap(to, 16 * PAGE);
	}
	self->aio.dev = -1;
}

TEST_F(unload, after_exec)
{
	pid_t pid;

	testdev_cmd("c0 mode hang");
	testdev_cmd("c0 cancel yes");
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		char arg[16];

		snprintf(arg, sizeof(arg), "%d", self->line.fds[1]);
		fcntl(self->line.fds[1], F_SETFD, 0);
		if (!use(&self->aio, 1, self->fd, self->buf))
			execl("/proc/self/exe", "unload", "--hold", arg, NULL);
		_exit(1);
	}
	/* The process goes on, without the descriptor. */
	ASSERT_TRUE(line_wait(self->line.fds[0]));
	EXPECT_REMOVABLE();
	line_tell(self->line.fds[0]);
	EXPECT_EQ(0, wait_child(pid));
}

/* Many contexts. */

FIXTURE(many)
{
	struct aio aio;
	struct line line;
};

FIXTURE_VARIANT(many)
{
	unsigned int nr;
};

FIXTURE_VARIANT_ADD(many, one)
{
	.nr = 1,
};

FIXTURE_VARIANT_ADD(many, hundred)
{
	.nr = 100,
};

FIXTURE_VARIANT_ADD(many, thousand)
{
	.nr = 1000,
};

FIXTURE_SETUP(many)
{
	memset(&self->aio, 0, sizeof(self->aio));
	self->aio.ops = &raio;
	if (!module_is_loaded())
		ASSERT_EQ(0, module_insert());
	line_open(_metadata, &self->line);
}

FIXTURE_TEARDOWN(many)
{
	if (!module_is_loaded())
		EXPECT_EQ(0, module_insert());
}

TEST_F_TIMEOUT(many, after_close, 120)
{
	ASSERT_EQ(0, use(&self->aio, variant->nr, -1, NULL));
	EXPECT_EQ(variant->nr, raio_nr("nr_contexts"));
	EXPECT_EQ(0, close(self->aio.dev));
	EXPECT_REMOVABLE();
}

TEST_F_TIMEOUT(many, after_exit, 120)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(use(&self->aio, variant->nr, -1, NULL));
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_REMOVABLE();
}

TEST_F_TIMEOUT(many, after_sigkill, 120)
{
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid) {
		if (use(&self->aio, variant->nr, -1, NULL))
			_exit(1);
		line_tell(self->line.fds[1]);
		for (;;)
			pause();
	}
	ASSERT_TRUE(line_wait(self->line.fds[0]));
	kill(pid, SIGKILL);
	EXPECT_TRUE(was_killed(wait_child(pid)));
	EXPECT_REMOVABLE();
}

/* Descriptors that nobody has any more. */

TEST_F(unload, after_a_socket_was_closed)
{
	unsigned int i;

	testdev_cmd("c0 mode hang");
	testdev_cmd("c0 cancel yes");
	for (i = 0; i < 3; i++) {
		int fds[2];

		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds));
		ASSERT_EQ(0, use(&self->aio, 1, self->fd, self->buf));
		ASSERT_EQ(0, send_fds(fds[0], &self->aio.dev, 1));
		close(self->aio.dev);
		EXPECT_IN_USE();
		close(fds[0]);
		close(fds[1]);
		EXPECT_REMOVABLE();
	}
	self->aio.dev = -1;
}

/* The garbage collector runs when somebody closes some other socket. */
static void collect(void)
{
	int fds[2];

	if (!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds)) {
		close(fds[0]);
		close(fds[1]);
	}
}

TEST_F(unload, after_a_cycle_of_sockets_was_collected)
{
	unsigned int i;

	testdev_cmd("c0 mode hang");
	testdev_cmd("c0 cancel yes");
	for (i = 0; i < 3; i++) {
		int fds[2], sent[2];

		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds));
		ASSERT_EQ(0, use(&self->aio, 1, self->fd, self->buf));
		sent[0] = self->aio.dev;
		sent[1] = fds[0];
		ASSERT_EQ(0, send_fds(fds[0], sent, 2));
		sent[1] = fds[1];
		ASSERT_EQ(0, send_fds(fds[1], sent, 2));
		close(self->aio.dev);
		close(fds[0]);
		close(fds[1]);
		EXPECT_IN_USE();
		EXPECT_TRUE(wait_for(({ collect();
					testdev_stat("c0", "ended") == (i + 1) * EVENTS; })));
		/* It wasn't us who closed it: the ring is still mapped. */
		munmap((void *)self->aio.ctx, PAGE);
		EXPECT_REMOVABLE_SOON();
	}
	self->aio.dev = -1;
}

/* The socket that is read from has the device in the queue of its other end. */
TEST_F(unload, after_a_read_of_a_socket_was_killed)
{
	static struct iocb io;
	struct iocb *iop = &io;
	struct io_event ev;
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid) {
		int fds[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) ||
		    use(&self->aio, 1, -1, NULL) || send_fds(fds[0], &self->aio.dev, 1))
			_exit(1);
		iocb_prep(&io, IOCB_CMD_PREAD, fds[0], self->buf, 16, 0);
		if (aio_submit(&self->aio, 1, &iop) == 1)
			aio_getevents(&self->aio, 1, 1, &ev, NULL);
		_exit(2);
	}
	ASSERT_TRUE(wait_for(task_in_call(pid, GETEVENTS, &self->aio)));
	kill(pid, SIGKILL);
	EXPECT_TRUE(was_killed(wait_child(pid)));
	EXPECT_REMOVABLE();
}

/*
 * The file was sent to us, and is closed by us. Its maker, who has the ring
 * mapped, is still there. If that keeps the module, it goes with him.
 */
TEST_F(unload, maker_has_the_ring_mapped)
{
	pid_t pid;
	int dev;

	testdev_cmd("c0 mode hang");
	testdev_cmd("c0 cancel yes");
	FORK_CHILD(pid);
	if (!pid) {
		if (use(&self->aio, 1, self->fd, self->buf) ||
		    send_fds(self->line.fds[1], &self->aio.dev, 1) || close(self->aio.dev) ||
		    !line_wait(self->line.fds[1]))
			_exit(1);
		munmap((void *)self->aio.ctx, PAGE);
		line_tell(self->line.fds[1]);
		line_wait(self->line.fds[1]);
		_exit(0);
	}
	line_parent(&self->line);
	dev = receive_fd(self->line.fds[0]);
	ASSERT_LE(0, dev);
	close(dev);
	testdev_cmd("c0 wait ended %d", EVENTS);
	if (module_remove())
		TH_LOG("the mapping keeps the module");
	line_tell(self->line.fds[0]);
	ASSERT_TRUE(line_wait(self->line.fds[0]));
	if (module_is_loaded())
		EXPECT_REMOVABLE_SOON();
	else
		ASSERT_EQ(0, module_insert());
	line_tell(self->line.fds[0]);
	EXPECT_EQ(0, wait_child(pid));
}

/* A device never ends its requests: what it will call must stay. */
static void stuck(struct __test_metadata *_metadata, struct aio *aio, const char *name, int fd,
		  char *buf, unsigned int nr)
{
	unsigned int i;
	pid_t pid;

	testdev_cmd("%s mode hang", name);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (!use(aio, nr, fd, buf))
			close(aio->dev);
		_exit(1);
	}
	testdev_cmd("%s wait held %d", name, EVENTS);
	ASSERT_TRUE(wait_for(task_in_call(pid, CLOSE, aio)));
	EXPECT_IN_USE();
	kill(pid, SIGKILL);
	EXPECT_TRUE(was_killed(wait_child(pid)));
	/* It is left behind by its process and by its file. */
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == 1));
	for (i = 0; i < EVENTS; i++) {
		EXPECT_IN_USE();
		testdev_cmd("%s complete 1", name);
		testdev_cmd("%s wait ended %d", name, i + 1);
	}
	EXPECT_REMOVABLE_SOON();
}

TEST_F(unload, refused_while_a_device_is_stuck)
{
	unsigned int i;

	for (i = 0; i < 3; i++) {
		stuck(_metadata, &self->aio, "c0", self->fd, self->buf, 1);
		testdev_cmd("c0 reset");
	}
}

TEST_F(unload, refused_while_a_device_is_stuck_with_one_of_many)
{
	stuck(_metadata, &self->aio, "c0", self->fd, self->buf, 20);
}

/* On the direct path. */
TEST_F(unload, refused_while_a_disk_is_stuck)
{
	const int fd = testdev_open_direct("b0");

	stuck(_metadata, &self->aio, "b0", fd, self->buf, 1);
	close(fd);
}

/* By requests of two files: the first to go doesn't let it go. */
TEST_F(unload, refused_while_two_files_are_stuck)
{
	pid_t pid[2];
	unsigned int i;

	testdev_cmd("c0 mode hang");
	for (i = 0; i < 2; i++) {
		pid[i] = fork();
		ASSERT_LE(0, pid[i]);
		if (!pid[i]) {
			if (!use(&self->aio, 2, self->fd, self->buf))
				close(self->aio.dev);
			_exit(1);
		}
		testdev_cmd("c0 wait held %d", (i + 1) * EVENTS);
		ASSERT_TRUE(wait_for(task_in_call(pid[i], CLOSE, &self->aio)));
	}
	for (i = 0; i < 2; i++) {
		kill(pid[i], SIGKILL);
		EXPECT_TRUE(was_killed(wait_child(pid[i])));
	}
	EXPECT_IN_USE();
	testdev_cmd("c0 complete %d", EVENTS);
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == 1));
	EXPECT_IN_USE();
	testdev_cmd("c0 complete all");
	EXPECT_REMOVABLE_SOON();
}

/*
 * A poll has its file: of the device, or of what leads to it, it keeps what it
 * is a request of. It ends with the ring, and the rest then, too.
 */

enum { ITSELF, EACH_OTHER, BY_AN_EPOLL, IN_A_SOCKET, NR_POLLS };

static int poll_itself(struct aio *aio, unsigned int what)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct aio other = { .ops = &raio };
	static struct iocb io[2];
	int ep, fds[2];

	if (use(aio, 1, -1, NULL))
		return 1;
	switch (what) {
	case ITSELF:
		prep_poll(&io[0], aio->dev, POLLIN);
		break;
	case EACH_OTHER:
		if (use(&other, 1, -1, NULL))
			return 2;
		prep_poll(&io[0], other.dev, POLLIN);
		prep_poll(&io[1], aio->dev, POLLIN);
		if (aio_submit_one(&other, &io[1]) != 1)
			return 3;
		break;
	case BY_AN_EPOLL:
		ep = epoll_create1(EPOLL_CLOEXEC);
		if (epoll_ctl(ep, EPOLL_CTL_ADD, aio->dev, &event))
			return 4;
		prep_poll(&io[0], ep, POLLIN);
		break;
	case IN_A_SOCKET:
		if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds) ||
		    send_fds(fds[0], &aio->dev, 1))
			return 5;
		prep_poll(&io[0], fds[1], POLLPRI);
		break;
	}
	return aio_submit_one(aio, &io[0]) != 1;
}

TEST_F(unload, after_polls_of_itself)
{
	unsigned int i;
	pid_t pid;

	for (i = 0; i < 3 * NR_POLLS; i++) {
		FORK_CHILD(pid);
		if (!pid) {
			char arg[16];
			int err = poll_itself(&self->aio, i / 3);

			if (err || i % 3 == 0)
				_exit(err);
			snprintf(arg, sizeof(arg), "%d", self->line.fds[1]);
			fcntl(self->line.fds[1], F_SETFD, 0);
			if (i % 3 == 1)
				execl("/proc/self/exe", "unload", "--hold", arg, NULL);
			line_tell(self->line.fds[1]);
			for (;;)
				pause();
		}
		if (i % 3) {
			ASSERT_TRUE(line_wait(self->line.fds[0]));
			if (i % 3 == 2)
				kill(pid, SIGKILL);
			else
				line_tell(self->line.fds[0]);
		}
		EXPECT_EQ(i % 3 == 2, was_killed(wait_child(pid)));
		EXPECT_REMOVABLE_SOON();
	}
}

TEST_F(unload, polls_of_itself_end_with_the_ring)
{
	unsigned int i;

	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, poll_itself(&self->aio, ITSELF));
		if (i % 2) {
			EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
			EXPECT_EQ(0, close(self->aio.dev));
			EXPECT_REMOVABLE();
			continue;
		}
		EXPECT_EQ(0, close(self->aio.dev));
		EXPECT_IN_USE();
		EXPECT_EQ(1, raio_nr("nr_contexts"));
		munmap((void *)self->aio.ctx, PAGE);
		EXPECT_REMOVABLE_SOON();
	}
	self->aio.dev = -1;
}

/* Opened at any time while it comes and goes. */
struct opener {
	bool over;
	unsigned int opened;
	unsigned int wrong;
};

static void *opener_thread(void *data)
{
	struct opener *o = data;

	while (!__atomic_load_n(&o->over, __ATOMIC_ACQUIRE)) {
		struct aio aio = { .ops = &raio };

		aio.dev = raio_open();
		if (aio.dev < 0) {
			if (aio.dev != -ENOENT && aio.dev != -ENODEV && aio.dev != -ENXIO)
				o->wrong++;
			continue;
		}
		__atomic_fetch_add(&o->opened, 1, __ATOMIC_RELAXED);
		if (aio_setup(&aio, 1, &aio.ctx))
			o->wrong++;
		close(aio.dev);
		/*
		 * Now and then it is closed for a while. On one processor it is open
		 * otherwise whenever this thread sleeps, which is while it closes it.
		 */
		usleep(o->opened % 8 * 50);
	}
	return NULL;
}

TEST_F(unload, opened_meanwhile)
{
	long long end = now_ns() + 2000000000LL;
	struct opener o = { };
	unsigned int removed = 0;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, opener_thread, &o));
	while (now_ns() < end) {
		unsigned int opened = __atomic_load_n(&o.opened, __ATOMIC_RELAXED);

		ASSERT_TRUE(wait_for(module_remove() == 0));
		removed++;
		ASSERT_EQ(0, module_insert());
		/* Until it was opened once. */
		ASSERT_TRUE(wait_for(__atomic_load_n(&o.opened, __ATOMIC_RELAXED) > opened));
	}
	__atomic_store_n(&o.over, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, o.wrong);
	TH_LOG("removed %u times, opened %u times", removed, o.opened);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--hold"))
		return !line_tell(atoi(argv[2])) || !line_wait(atoi(argv[2]));
	return test_harness_run(argc, argv);
}
