// SPDX-License-Identifier: GPL-2.0
/*
 * Requests with IOCB_FLAG_RESFD: each adds one to its eventfd when its event is
 * in the ring, wherever it ends, and one that is refused adds nothing.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "raio_testdev.h"
#include "raio_wait.h"

#define IN_FLIGHT	16

FIXTURE(eventfd)
{
	struct fed fed;
	int efd;
	int id;
};

FIXTURE_VARIANT(eventfd)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(eventfd, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(eventfd, raio)
{
	.ops = &raio,
};

/* The number of an eventfd. The kernel gives the lowest out again when one is freed. */
static int eventfd_id(int fd)
{
	char path[64], text[512];
	const char *p;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	p = strstr(read_text(path, text, sizeof(text)), "eventfd-id:");
	return p ? atoi(p + strlen("eventfd-id:")) : -1;
}

static int eventfd_make(int flags)
{
	return ret_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | flags));
}

FIXTURE_SETUP(eventfd)
{
	testdev_begin();
	fed_begin(_metadata, &self->fed, variant->ops);
	self->efd = eventfd_make(0);
	ASSERT_LE(0, self->efd);
	self->id = eventfd_id(self->efd);
	ASSERT_LE(0, self->id);
}

/* Nobody has the eventfd any more: the next one gets its number. */
FIXTURE_TEARDOWN(eventfd)
{
	int fd;

	if (self->efd >= 0)
		close(self->efd);
	fed_end(_metadata, &self->fed);
	testdev_reset();
	/* The last reference of kernel AIO may go a little after the event. */
	EXPECT_TRUE(wait_for(({
		fd = eventfd_make(0);
		int id = eventfd_id(fd);

		close(fd);
		id == self->id;
	}))) {
		TH_LOG("eventfd %d is still used", self->id);
	}
}

/* What read(2) gives, or -errno. */
static long long count(int efd)
{
	uint64_t n;
	long ret = ret_errno(read(efd, &n, sizeof(n)));

	return ret < 0 ? ret : (long long)n;
}

/* A read of @fd that is told to @efd. */
static void prep(struct fed *fed, struct iocb *io, int fd, int efd)
{
	iocb_prep(io, IOCB_CMD_PREAD, fd, fed->buf, BLOCK, 0);
	io->aio_flags = IOCB_FLAG_RESFD;
	io->aio_resfd = efd;
}

static void submit(struct __test_metadata *_metadata, struct fed *fed, struct iocb *io,
		   unsigned int nr, int fd, int efd)
{
	struct iocb *iop[IN_FLIGHT];
	unsigned int i;

	for (i = 0; i < nr; i++) {
		prep(fed, &io[i], fd, efd);
		iop[i] = &io[i];
	}
	ASSERT_EQ(nr, aio_submit(&fed->aio, nr, iop));
}

TEST_F(eventfd, counts)
{
	struct io_event ev[IN_FLIGHT];
	struct iocb io[IN_FLIGHT];
	unsigned int n;

	EXPECT_EQ(-EAGAIN, count(self->efd));
	for (n = 1; n <= IN_FLIGHT; n++) {
		submit(_metadata, &self->fed, io, n, self->fed.zero, self->efd);
		EXPECT_EQ(n, count(self->efd));
		EXPECT_EQ(-EAGAIN, count(self->efd));
		EXPECT_EQ(n, aio_poll(&self->fed.aio, IN_FLIGHT, ev));
		/* Reading events is nothing to it. */
		EXPECT_EQ(-EAGAIN, count(self->efd));
	}
}

TEST_F(eventfd, semaphore)
{
	int sem = eventfd_make(EFD_SEMAPHORE);
	struct io_event ev[5];
	struct iocb io[5];
	unsigned int i;

	ASSERT_LE(0, sem);
	submit(_metadata, &self->fed, io, 5, self->fed.zero, sem);
	for (i = 0; i < 5; i++)
		EXPECT_EQ(1, count(sem));
	EXPECT_EQ(-EAGAIN, count(sem));
	EXPECT_EQ(5, aio_poll(&self->fed.aio, 5, ev));
	close(sem);
}

/* Each request has its own, or none. */
TEST_F(eventfd, one_for_each)
{
	int other = eventfd_make(0);
	struct io_event ev[9];
	struct iocb io[9], *iop[9];
	unsigned int i;

	ASSERT_LE(0, other);
	for (i = 0; i < 9; i++) {
		prep(&self->fed, &io[i], self->fed.zero, i < 4 ? self->efd : other);
		/* What is there without the flag is not looked at. */
		if (i > 6) {
			io[i].aio_flags = 0;
			io[i].aio_resfd = i == 7 ? self->efd : -1;
		}
		iop[i] = &io[i];
	}
	ASSERT_EQ(9, aio_submit(&self->fed.aio, 9, iop));
	EXPECT_EQ(4, count(self->efd));
	EXPECT_EQ(3, count(other));
	EXPECT_EQ(9, aio_poll(&self->fed.aio, 9, ev));
	close(other);
}

/* At its limit it stays there, whatever ends. */
TEST_F(eventfd, full)
{
	struct pollfd pfd = { .fd = self->efd, .events = POLLIN | POLLOUT };
	uint64_t most = ULLONG_MAX - 1;
	struct io_event ev[4];
	struct iocb io[4];

	ASSERT_EQ(sizeof(most), write(self->efd, &most, sizeof(most)));
	submit(_metadata, &self->fed, io, 4, self->fed.zero, self->efd);
	EXPECT_EQ(4, aio_poll(&self->fed.aio, 4, ev));
	EXPECT_EQ(1, poll(&pfd, 1, 0));
	EXPECT_EQ(POLLIN | POLLERR, pfd.revents);
	EXPECT_EQ(-1, count(self->efd)) {
		TH_LOG("not ULLONG_MAX");
	}
	EXPECT_EQ(-EAGAIN, count(self->efd));
}

/* Refused. */

TEST_F(eventfd, bad_descriptor)
{
	int closed = dup(self->efd), ep = epoll_create1(EPOLL_CLOEXEC);
	const int bad[] = { -1, closed, INT_MAX, INT_MIN };
	const int others[] = { self->fed.zero, ep, self->fed.aio.dev };
	struct iocb io;
	unsigned int i;

	ASSERT_LE(0, ep);
	ASSERT_EQ(0, close(closed));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		prep(&self->fed, &io, self->fed.zero, bad[i]);
		EXPECT_REFUSED(-EBADF, &self->fed.aio, &io);
	}
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		prep(&self->fed, &io, self->fed.zero, others[i]);
		EXPECT_REFUSED(-EINVAL, &self->fed.aio, &io);
	}
	/* One opened as a path is none. */
	prep(&self->fed, &io, self->fed.zero, open("/dev", O_PATH | O_CLOEXEC));
	EXPECT_REFUSED(-EBADF, &self->fed.aio, &io);
	close(io.aio_resfd);
	close(ep);
}

/* Of several mistakes the one is told that io_submit(2) tells. */
TEST_F(eventfd, order_of_errors)
{
	struct iocb io, *hard;

	/* The file's descriptor comes first, */
	prep(&self->fed, &io, -1, self->fed.zero);
	EXPECT_REFUSED(-EBADF, &self->fed.aio, &io);
	prep(&self->fed, &io, self->fed.zero, self->fed.zero);
	hard = map_read_only(&io, sizeof(io));
	/* the eventfd is before the key, */
	EXPECT_REFUSED(-EINVAL, &self->fed.aio, hard);
	prep(&self->fed, &io, self->fed.zero, -1);
	hard = map_read_only(&io, sizeof(io));
	EXPECT_REFUSED(-EBADF, &self->fed.aio, hard);
	prep(&self->fed, &io, self->fed.zero, self->efd);
	hard = map_read_only(&io, sizeof(io));
	EXPECT_REFUSED(-EFAULT, &self->fed.aio, hard);
	/* the operation and what it wants come after it, */
	prep(&self->fed, &io, self->fed.zero, -1);
	io.aio_lio_opcode = 0xffff;
	EXPECT_REFUSED(-EBADF, &self->fed.aio, &io);
	prep(&self->fed, &io, self->fed.zero, -1);
	io.aio_buf = KERNEL_ADDR;
	EXPECT_REFUSED(-EBADF, &self->fed.aio, &io);
	prep(&self->fed, &io, self->fed.zero, -1);
	io.aio_rw_flags = 1U << 31;
	EXPECT_REFUSED(-EBADF, &self->fed.aio, &io);
	/* what is wrong with the iocb itself before. */
	prep(&self->fed, &io, self->fed.zero, -1);
	io.aio_reserved2 = 1;
	EXPECT_REFUSED(-EINVAL, &self->fed.aio, &io);
	prep(&self->fed, &io, self->fed.zero, -1);
	io.aio_nbytes = -1;
	EXPECT_REFUSED(-EINVAL, &self->fed.aio, &io);
	EXPECT_EQ(-EAGAIN, count(self->efd));
}

/* The teardown sees that no reference is left. */
TEST_F(eventfd, not_told_of_what_is_refused)
{
	struct iocb io, good, *iop[2] = { &good, &io };
	struct io_event ev;
	unsigned int i;

	for (i = 0; i < 200; i++) {
		prep(&self->fed, &io, self->fed.zero, self->efd);
		if (i % 5 == 0)
			io.aio_lio_opcode = 0xffff;
		if (i % 5 == 1)
			io.aio_buf = KERNEL_ADDR;
		if (i % 5 == 2)
			io.aio_rw_flags = 1U << 31;
		if (i % 5 == 3)
			io.aio_offset = -1;
		if (i % 5 == 4)
			io.aio_fildes = -1;
		EXPECT_GT(0, aio_submit_one(&self->fed.aio, &io)) {
			TH_LOG("request %u", i);
		}
		EXPECT_EQ(-EAGAIN, count(self->efd));
		prep(&self->fed, &good, self->fed.zero, self->efd);
		EXPECT_EQ(1, aio_submit(&self->fed.aio, 2, iop));
		EXPECT_EQ(1, count(self->efd));
		EXPECT_EQ(1, aio_poll(&self->fed.aio, 1, &ev));
	}
}

/* A full ring refuses it before it is looked at. */
TEST_F(eventfd, not_told_when_the_ring_is_full)
{
	const unsigned int nr = aio_ring(self->fed.aio.ctx)->nr;
	struct io_event *ev = map_pages((nr * sizeof(*ev) + PAGE - 1) / PAGE * PAGE);
	unsigned int n = 0;
	struct iocb io;

	pin_to_cpu(0);
	prep(&self->fed, &io, self->fed.zero, self->efd);
	while (aio_submit_one(&self->fed.aio, &io) == 1) {
		ASSERT_GT(nr, ++n) {
			TH_LOG("more than there are slots");
		}
	}
	EXPECT_EQ(n, count(self->efd));
	prep(&self->fed, &io, self->fed.zero, -1);
	EXPECT_EQ(-EAGAIN, aio_submit_one(&self->fed.aio, &io));
	EXPECT_EQ(-EAGAIN, count(self->efd));
	EXPECT_EQ(n, aio_poll(&self->fed.aio, nr, ev));
}

/* Where a request ends. */

static const char *const modes[] = { "now", "sync", "softirq", "timer 100000", "hang" };

static void end_held(struct __test_metadata *_metadata, const char *dev, unsigned int mode)
{
	if (!strcmp(modes[mode], "hang"))
		testdev_cmd("%s complete all", dev);
}

/* The count is exact, and what was counted is in the ring already. */
TEST_F(eventfd, wherever_it_ends)
{
	int fd = testdev_open("c0", 0);
	struct io_event ev[IN_FLIGHT];
	struct iocb io[IN_FLIGHT];
	unsigned int i, mode;

	for (i = 0; i < 50 * ARRAY_SIZE(modes); i++) {
		struct pollfd pfd = { .fd = self->efd, .events = POLLIN };
		unsigned int got = 0, n = 1 + i % IN_FLIGHT;

		mode = i % ARRAY_SIZE(modes);
		testdev_cmd("c0 mode %s", modes[mode]);
		submit(_metadata, &self->fed, io, n, fd, self->efd);
		end_held(_metadata, "c0", mode);
		while (got < n) {
			long long more;

			ASSERT_EQ(1, poll(&pfd, 1, WAIT_SECONDS * 1000)) {
				TH_LOG("mode %s: %u of %u", modes[mode], got, n);
			}
			more = count(self->efd);
			ASSERT_LT(0, more);
			got += more;
			ASSERT_GE(n, got);
			/* By the program and by the kernel. */
			EXPECT_EQ(more, i % 2 ? ring_reap(self->fed.aio.ctx, more, ev) :
						aio_poll(&self->fed.aio, more, ev)) {
				TH_LOG("mode %s: counted, but not there", modes[mode]);
			}
		}
		EXPECT_EQ(-EAGAIN, count(self->efd));
	}
	close(fd);
}

/* Who looks all the time, from another processor, doesn't see it too early. */
#define LOOKS	20000

struct lookout {
	struct fed *fed;
	int efd;
	unsigned int counted;
	unsigned int wrong;
	bool stop;
};

static void *lookout_thread(void *data)
{
	struct lookout *me = data;
	struct io_event ev[EVENTS];

	pin_to_cpu(1);
	while (me->counted < LOOKS && !__atomic_load_n(&me->stop, __ATOMIC_ACQUIRE)) {
		long long n = count(me->efd);

		if (n <= 0) {
			sched_yield();
			continue;
		}
		me->wrong += ring_reap(me->fed->aio.ctx, n, ev) != n;
		me->counted += n;
	}
	return NULL;
}

TEST_F(eventfd, counted_when_it_is_there)
{
	struct lookout out = { .fed = &self->fed, .efd = self->efd };
	struct io_event ev[EVENTS];
	pthread_t thread;
	unsigned int i;
	struct iocb io;
	long ret;

	ASSERT_EQ(0, pthread_create(&thread, NULL, lookout_thread, &out));
	pin_to_cpu(0);
	prep(&self->fed, &io, self->fed.zero, self->efd);
	for (i = 0; i < LOOKS; i += ret == 1) {
		ret = aio_submit_one(&self->fed.aio, &io);
		ASSERT_TRUE(ret == 1 || ret == -EAGAIN);
		if (ret < 0)
			sched_yield();
	}
	EXPECT_TRUE(wait_for(__atomic_load_n(&out.counted, __ATOMIC_ACQUIRE) == LOOKS));
	__atomic_store_n(&out.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, out.wrong);
	/* What it did not find in time. */
	while (ring_reap(self->fed.aio.ctx, EVENTS, ev))
		;
}

/* Disks too, which may end on another processor. */
TEST_F(eventfd, from_a_disk)
{
	int fd = testdev_open("b0", O_DIRECT);
	struct io_event ev[IN_FLIGHT];
	struct iocb io[IN_FLIGHT];
	unsigned int mode, got;

	for (mode = 2; mode < ARRAY_SIZE(modes); mode++) {
		testdev_cmd("b0 mode %s", modes[mode]);
		submit(_metadata, &self->fed, io, IN_FLIGHT, fd, self->efd);
		if (!strcmp(modes[mode], "hang"))
			testdev_cmd("b0 wait held 1");
		EXPECT_TRUE(wait_for(({
			end_held(_metadata, "b0", mode);
			ring_used(self->fed.aio.ctx) == IN_FLIGHT;
		})));
		got = 0;
		EXPECT_TRUE(wait_for(({
			long long more = count(self->efd);

			got += more > 0 ? more : 0;
			got >= IN_FLIGHT;
		})));
		EXPECT_EQ(IN_FLIGHT, got);
		EXPECT_EQ(IN_FLIGHT, aio_poll(&self->fed.aio, IN_FLIGHT, ev));
	}
	close(fd);
}

struct reader {
	int efd;
	int ep;
	pthread_t thread;
	pid_t tid;
	long long count;
	bool done;
};

/* Blocks in read(2), or in epoll. */
static void *reader_thread(void *data)
{
	struct reader *r = data;
	struct epoll_event event;

	__atomic_store_n(&r->tid, gettid(), __ATOMIC_RELEASE);
	if (r->ep >= 0 && epoll_wait(r->ep, &event, 1, -1) != 1)
		r->count = -EIO;
	else
		r->count = count(r->efd);
	__atomic_store_n(&r->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static bool reader_sleeps(struct reader *r)
{
	pid_t tid = __atomic_load_n(&r->tid, __ATOMIC_ACQUIRE);

	return tid && task_in(tid, r->ep < 0 ? __NR_read : __NR_epoll_wait, 0);
}

TEST_F(eventfd, wakes)
{
	int fd = testdev_open("c0", 0), ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	ASSERT_LE(0, ep);
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->efd, &event));
	for (i = 0; i < 4 * ARRAY_SIZE(modes); i++) {
		unsigned int mode = i % ARRAY_SIZE(modes);
		struct reader r = { .efd = self->efd, .ep = i % 2 ? ep : -1 };

		ASSERT_EQ(0, fcntl(self->efd, F_SETFL, i % 2 ? O_NONBLOCK : 0));
		ASSERT_EQ(0, pthread_create(&r.thread, NULL, reader_thread, &r));
		ASSERT_TRUE(wait_for(reader_sleeps(&r)));
		testdev_cmd("c0 mode %s", modes[mode]);
		submit(_metadata, &self->fed, &io, 1, fd, self->efd);
		end_held(_metadata, "c0", mode);
		ASSERT_TRUE(wait_for(__atomic_load_n(&r.done, __ATOMIC_ACQUIRE))) {
			TH_LOG("not woken in mode %s", modes[mode]);
		}
		pthread_join(r.thread, NULL);
		EXPECT_EQ(1, r.count);
		EXPECT_EQ(1, aio_poll(&self->fed.aio, 1, &ev));
		EXPECT_EVENT(&ev, &io, (long long)BLOCK);
		if (!(i % 2)) {
			/* What the read took is an edge that epoll saw, too. */
			ASSERT_GE(1, epoll_wait(ep, &event, 1, 0));
		}
	}
	close(ep);
	close(fd);
}

/* Whether it succeeded is nothing to it. */
TEST_F(eventfd, of_errors)
{
	int fd = testdev_open("c0", 0);
	struct io_event ev[2];
	struct iocb io[2];

	testdev_cmd("c0 mode hang");
	submit(_metadata, &self->fed, io, 2, fd, self->efd);
	EXPECT_EQ(-EAGAIN, count(self->efd));
	testdev_cmd("c0 fail 1 %d", EIO);
	EXPECT_TRUE(wait_for(ring_used(self->fed.aio.ctx) == 1));
	EXPECT_TRUE(wait_for(count(self->efd) == 1));
	testdev_cmd("c0 complete 1");
	EXPECT_TRUE(wait_for(count(self->efd) == 1));
	EXPECT_EQ(2, aio_poll(&self->fed.aio, 2, ev));
	EXPECT_EVENT(&ev[0], &io[0], -EIO);
	EXPECT_EVENT(&ev[1], &io[1], (long long)BLOCK);
	close(fd);
}

/* Its lifetime. */

/* Closed while requests are under way: the number is taken until they have ended. */
TEST_F(eventfd, closed_meanwhile)
{
	int fd = testdev_open("c0", 0), other, copy;
	struct io_event ev[3];
	struct iocb io[3];

	testdev_cmd("c0 mode hang");
	submit(_metadata, &self->fed, io, 3, fd, self->efd);
	EXPECT_EQ(0, close(self->efd));
	other = eventfd_make(0);
	ASSERT_LE(0, other);
	EXPECT_NE(self->id, eventfd_id(other));
	/* The descriptor is another one's now. */
	copy = dup2(other, self->efd);
	testdev_cmd("c0 complete all");
	EXPECT_EQ(3, aio_wait(&self->fed.aio, 3, ev));
	EXPECT_EQ(-EAGAIN, count(other));
	EXPECT_EQ(-EAGAIN, count(copy));
	close(other);
	close(fd);
}

/* One that was copied goes on counting. */
TEST_F(eventfd, closed_but_copied)
{
	int fd = testdev_open("c0", 0), copy = dup(self->efd);
	struct io_event ev[3];
	struct iocb io[3];

	ASSERT_LE(0, copy);
	testdev_cmd("c0 mode hang");
	submit(_metadata, &self->fed, io, 3, fd, self->efd);
	EXPECT_EQ(0, close(self->efd));
	self->efd = copy;
	testdev_cmd("c0 complete all");
	EXPECT_EQ(3, aio_wait(&self->fed.aio, 3, ev));
	EXPECT_TRUE(wait_for(count(copy) == 3));
	close(fd);
}

/* With the end of its context a request ends, and is counted. */
TEST_F(eventfd, end_of_the_context)
{
	int fd = testdev_open("c0", 0);
	struct iocb io[IN_FLIGHT];

	testdev_cmd("c0 mode timer 20000000");
	submit(_metadata, &self->fed, io, IN_FLIGHT, fd, self->efd);
	EXPECT_EQ(0, aio_destroy(&self->fed.aio, self->fed.aio.ctx));
	self->fed.aio.ctx = 0;
	EXPECT_EQ(IN_FLIGHT, count(self->efd));
	close(fd);
}

/* The same of those that are cancelled. (Kernel AIO can't cancel them.) */
TEST_F(eventfd, cancelled)
{
	int fd = testdev_open("c0", 0);
	struct iocb io[IN_FLIGHT];

	testdev_cmd("c0 mode hang");
	testdev_cmd("c0 cancel yes");
	submit(_metadata, &self->fed, io, IN_FLIGHT, fd, self->efd);
	if (!variant->ops->is_raio)
		testdev_cmd("c0 complete all");
	EXPECT_EQ(0, aio_destroy(&self->fed.aio, self->fed.aio.ctx));
	self->fed.aio.ctx = 0;
	EXPECT_EQ(IN_FLIGHT, count(self->efd));
	if (variant->ops->is_raio)
		EXPECT_EQ(IN_FLIGHT, testdev_stat("c0", "cancelled"));
	close(fd);
}

/* Closed by one thread while another submits. */
struct closer {
	int efd;
	bool stop;
};

static void *closer_thread(void *data)
{
	struct closer *c = data;

	pin_to_cpu(1);
	while (!__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE)) {
		int fd = eventfd_make(0);

		dup2(fd, c->efd);
		close(fd);
		/* Who submits has a turn in both states, also on the same processor. */
		sched_yield();
		close(c->efd);
		sched_yield();
	}
	return NULL;
}

TEST_F(eventfd, closed_while_it_is_submitted)
{
	struct closer c = { .efd = 1000 };
	unsigned int taken = 0, refused = 0;
	struct io_event ev[2];
	long long end = now_ns() + WAIT_SECONDS * 1000 * MS;
	struct iocb io;
	pthread_t thread;
	long ret;

	ASSERT_EQ(0, pthread_create(&thread, NULL, closer_thread, &c));
	pin_to_cpu(0);
	while (taken < 1000 || refused < 1000) {
		ASSERT_GT(end, now_ns()) {
			TH_LOG("%u taken, %u refused", taken, refused);
		}
		prep(&self->fed, &io, self->fed.zero, c.efd);
		ret = aio_submit_one(&self->fed.aio, &io);
		ASSERT_TRUE(ret == 1 || ret == -EBADF);
		ASSERT_EQ(ret == 1, aio_poll(&self->fed.aio, 2, ev));
		taken += ret == 1;
		refused += ret != 1;
	}
	__atomic_store_n(&c.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
}

TEST_HARNESS_MAIN
