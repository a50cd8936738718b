// SPDX-License-Identifier: GPL-2.0
/*
 * poll(2) and epoll on the descriptor of the device: it is readable when a
 * context of the open file has an event that nobody has read, whoever reads
 * and whoever polls, and nobody who waits for that is missed.
 */
#include <sys/epoll.h>
#include <sys/param.h>

#include "raio_testdev.h"
#include "raio_wait.h"

#define READABLE	(POLLIN | POLLRDNORM)
/* All that can be asked for. POLLERR and POLLHUP need not be. */
#define EVERYTHING	(POLLIN | POLLPRI | POLLOUT | POLLRDNORM | POLLRDBAND | POLLWRNORM | \
			 POLLWRBAND | POLLRDHUP)

FIXTURE(poll)
{
	struct fed fed;
	int dev;
};

FIXTURE_SETUP(poll)
{
	testdev_begin();
	fed_begin(_metadata, &self->fed, &raio);
	self->dev = self->fed.aio.dev;
}

FIXTURE_TEARDOWN(poll)
{
	fed_end(_metadata, &self->fed);
	testdev_reset();
}

/* What poll(2) says now. */
static int polled(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = EVERYTHING };
	int ret = ret_errno(poll(&pfd, 1, 0));

	return ret < 0 ? ret : pfd.revents;
}

/* Another context of the same file. */
static void another(struct __test_metadata *_metadata, const struct fed *fed, struct fed *other)
{
	*other = *fed;
	other->aio.ctx = 0;
	ASSERT_EQ(0, aio_setup(&other->aio, EVENTS, &other->aio.ctx));
}

/* poll(2). */

TEST_F(poll, nothing)
{
	int dev = raio_open();

	ASSERT_LE(0, dev);
	EXPECT_EQ(0, polled(dev));
	close(dev);
	EXPECT_EQ(0, polled(self->dev));
}

TEST_F(poll, until_it_is_read)
{
	struct io_event ev[4];
	struct iocb io[4];
	unsigned int round;

	/* By a call, and by the program from the ring. */
	for (round = 0; round < 2 * EVENTS; round++) {
		post(_metadata, &self->fed, io, 4, round);
		EXPECT_EQ(READABLE, polled(self->dev));
		EXPECT_EQ(READABLE, polled(self->dev));
		EXPECT_EQ(3, round % 2 ? aio_poll(&self->fed.aio, 3, ev) :
					 ring_reap(self->fed.aio.ctx, 3, ev));
		EXPECT_EQ(READABLE, polled(self->dev));
		EXPECT_EQ(1, round % 4 < 2 ? aio_poll(&self->fed.aio, 1, ev + 3) :
					     ring_reap(self->fed.aio.ctx, 1, ev + 3));
		ASSERT_EQ(0, polled(self->dev)) {
			TH_LOG("after %u rounds", round);
		}
		expect_posted(_metadata, ev, io, 4, round);
	}
}

TEST_F(poll, unless_it_could_not_be_stored)
{
	struct io_event ev;
	struct iocb io;

	post(_metadata, &self->fed, &io, 1, 3);
	EXPECT_EQ(-EFAULT, aio_poll(&self->fed.aio, 1, bad_ptr(1)));
	EXPECT_EQ(READABLE, polled(self->dev));
	EXPECT_EQ(1, aio_poll(&self->fed.aio, 1, &ev));
	EXPECT_EQ(0, polled(self->dev));
}

/* A full ring, too, which is where head and tail are next to one another. */
TEST_F(poll, full)
{
	const unsigned int nr = aio_ring(self->fed.aio.ctx)->nr;
	struct io_event ev;
	unsigned int i, lap;
	struct iocb io;

	for (lap = 0; lap < 2; lap++) {
		for (i = 0; post_try(&self->fed, &io, 1, i) == 1; i++) {
			ASSERT_GT(nr, i);
			EXPECT_EQ(READABLE, polled(self->dev));
		}
		while (ring_reap(self->fed.aio.ctx, 1, &ev))
			EXPECT_EQ(--i ? READABLE : 0, polled(self->dev));
		EXPECT_EQ(0, i);
	}
}

TEST_F(poll, not_what_is_in_flight)
{
	int fd = testdev_open("c0", 0);
	struct io_event ev;
	struct iocb io;

	testdev_cmd("c0 mode hang");
	iocb_prep(&io, IOCB_CMD_PREAD, fd, self->fed.buf, BLOCK, 0);
	ASSERT_EQ(1, aio_submit_one(&self->fed.aio, &io));
	EXPECT_EQ(0, polled(self->dev));
	testdev_cmd("c0 complete all");
	EXPECT_TRUE(wait_for(polled(self->dev) == READABLE));
	EXPECT_EQ(1, aio_poll(&self->fed.aio, 1, &ev));
	EXPECT_EQ(0, polled(self->dev));
	close(fd);
}

/* What a program writes there is its own affair. */
TEST_F(poll, scribbled_header)
{
	struct raio_ring *ring = aio_ring(self->fed.aio.ctx);
	const unsigned int nr = ring->nr;
	const unsigned int values[] = {
		0, 1, nr - 1, nr, nr + 1, INT_MAX, 1U << 31, UINT_MAX, UINT_MAX / 32,
	};
	struct io_event ev;
	unsigned int i;
	struct iocb io;
	int revents;

	post(_metadata, &self->fed, &io, 1, 1);
	ASSERT_EQ(1, ring_reap(self->fed.aio.ctx, 1, &ev));
	for (i = 0; i < 3 * ARRAY_SIZE(values); i++) {
		ring->head = values[i % ARRAY_SIZE(values)];
		if (i >= ARRAY_SIZE(values))
			ring->nr = values[(i + 3) % ARRAY_SIZE(values)];
		if (i >= 2 * ARRAY_SIZE(values))
			ring->tail = values[(i + 5) % ARRAY_SIZE(values)];
		revents = polled(self->dev);
		EXPECT_TRUE(revents == 0 || revents == READABLE);
		EXPECT_LE(0, aio_poll(&self->fed.aio, 1, &ev));
	}
	EXPECT_EQ(0, aio_destroy(&self->fed.aio, self->fed.aio.ctx));
	self->fed.aio.ctx = 0;
	EXPECT_EQ(0, polled(self->dev));
}

/* Contexts and files. */

TEST_F(poll, any_context)
{
	struct fed all[5] = { self->fed };
	struct io_event ev;
	struct iocb io[ARRAY_SIZE(all)];
	unsigned int i;

	for (i = 1; i < ARRAY_SIZE(all); i++)
		another(_metadata, &self->fed, &all[i]);
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		post(_metadata, &all[i], &io[i], 1, i);
		EXPECT_EQ(READABLE, polled(self->dev)) {
			TH_LOG("context %u", i);
		}
		ASSERT_EQ(1, ring_reap(all[i].aio.ctx, 1, &ev));
		EXPECT_EQ(0, polled(self->dev));
	}
	/* As long as one has any. */
	for (i = 0; i < ARRAY_SIZE(all); i++)
		post(_metadata, &all[i], &io[i], 1, i);
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		EXPECT_EQ(READABLE, polled(self->dev));
		ASSERT_EQ(1, aio_poll(&all[i].aio, 1, &ev));
	}
	EXPECT_EQ(0, polled(self->dev));
	for (i = 1; i < ARRAY_SIZE(all); i++)
		EXPECT_EQ(0, aio_destroy(&all[i].aio, all[i].aio.ctx));
	EXPECT_EQ(0, polled(self->dev));
}

/* With the context the events go. */
TEST_F(poll, end_of_a_context)
{
	struct fed two, three;
	struct io_event ev;
	struct iocb io;

	another(_metadata, &self->fed, &two);
	another(_metadata, &self->fed, &three);
	post(_metadata, &self->fed, &io, 1, 1);
	post(_metadata, &two, &io, 1, 1);
	post(_metadata, &three, &io, 1, 1);
	EXPECT_EQ(0, aio_destroy(&two.aio, two.aio.ctx));
	EXPECT_EQ(READABLE, polled(self->dev));
	ASSERT_EQ(1, ring_reap(self->fed.aio.ctx, 1, &ev));
	EXPECT_EQ(READABLE, polled(self->dev));
	/* The ring is its handle. */
	EXPECT_EQ(0, munmap((void *)three.aio.ctx, aio_ring(three.aio.ctx)->nr *
			    sizeof(struct io_event) + sizeof(struct raio_ring)));
	EXPECT_TRUE(wait_for(polled(self->dev) == 0));
}

TEST_F(poll, other_files)
{
	struct aio other;
	struct fed fed;
	struct io_event ev;
	struct iocb io;

	aio_begin(_metadata, &other, &raio, EVENTS);
	fed = self->fed;
	fed.aio = other;
	post(_metadata, &fed, &io, 1, 1);
	EXPECT_EQ(0, polled(self->dev));
	EXPECT_EQ(READABLE, polled(other.dev));
	post(_metadata, &self->fed, &io, 1, 1);
	ASSERT_EQ(1, ring_reap(other.ctx, 1, &ev));
	EXPECT_EQ(0, polled(other.dev));
	EXPECT_EQ(READABLE, polled(self->dev));
	ASSERT_EQ(1, ring_reap(self->fed.aio.ctx, 1, &ev));
	EXPECT_EQ(0, aio_destroy(&other, other.ctx));
	close(other.dev);
}

/* Sleeping in poll(2). */

struct poller {
	int fd;
	pthread_t thread;
	pid_t tid;
	int ret;
	int revents;
	bool done;
};

static void *poller_thread(void *data)
{
	struct poller *p = data;
	struct pollfd pfd = { .fd = p->fd, .events = EVERYTHING };

	__atomic_store_n(&p->tid, gettid(), __ATOMIC_RELEASE);
	p->ret = ret_errno(poll(&pfd, 1, -1));
	p->revents = pfd.revents;
	__atomic_store_n(&p->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static bool poller_done(struct poller *p)
{
	return __atomic_load_n(&p->done, __ATOMIC_ACQUIRE);
}

static bool poller_sleeps(struct poller *p)
{
	pid_t tid = __atomic_load_n(&p->tid, __ATOMIC_ACQUIRE);

	return tid && task_in(tid, __NR_poll, 0);
}

static void poller_start(struct __test_metadata *_metadata, struct poller *p, int fd)
{
	*p = (struct poller){ .fd = fd };
	ASSERT_EQ(0, pthread_create(&p->thread, NULL, poller_thread, p));
	ASSERT_TRUE(wait_for(poller_sleeps(p) || poller_done(p)));
	ASSERT_FALSE(poller_done(p));
}

static void poller_end(struct __test_metadata *_metadata, struct poller *p, int revents)
{
	ASSERT_TRUE(wait_for(poller_done(p))) {
		TH_LOG("not woken");
	}
	pthread_join(p->thread, NULL);
	EXPECT_EQ(1, p->ret);
	EXPECT_EQ(revents, p->revents);
}

/* All who poll, and those who wait otherwise; but only by events of the file. */
TEST_F(poll, wakes)
{
	struct poller p[3];
	struct aio other;
	struct fed two, fed;
	struct io_event ev;
	struct iocb io[2];
	unsigned int i, j;
	long slept[3];

	another(_metadata, &self->fed, &two);
	aio_begin(_metadata, &other, &raio, EVENTS);
	fed = self->fed;
	fed.aio = other;
	for (i = 0; i < 20; i++) {
		struct fed *from = i % 2 ? &self->fed : &two;
		struct sleeper s = { .aio = &from->aio, .min_nr = 1, .nr = 1 };

		for (j = 0; j < ARRAY_SIZE(p); j++) {
			poller_start(_metadata, &p[j], self->dev);
			slept[j] = task_sleeps_so_far(p[j].tid);
		}
		post(_metadata, &fed, io, 1, i);
		for (j = 0; j < ARRAY_SIZE(p); j++) {
			EXPECT_TRUE(poller_sleeps(&p[j]));
			EXPECT_EQ(slept[j], task_sleeps_so_far(p[j].tid));
		}
		ASSERT_EQ(1, ring_reap(other.ctx, 1, &ev));
		sleeper_start(_metadata, &s);
		post(_metadata, from, io, 2, i);
		for (j = 0; j < ARRAY_SIZE(p); j++)
			poller_end(_metadata, &p[j], READABLE);
		sleeper_end(_metadata, &s, 1);
		expect_posted(_metadata, s.ev, io, 1, i);
		ASSERT_EQ(1, ring_reap(from->aio.ctx, 1, &ev));
	}
	EXPECT_EQ(0, aio_destroy(&other, other.ctx));
	EXPECT_EQ(0, aio_destroy(&two.aio, two.aio.ctx));
	close(other.dev);
}

/* From where a device ends a request. */
TEST_F(poll, wakes_from_interrupts)
{
	const char *const modes[] = { "softirq", "timer 1000000", "sync", "hang" };
	int fd = testdev_open("c0", 0);
	struct io_event ev;
	struct poller p;
	struct iocb io;
	unsigned int i;

	for (i = 0; i < 5 * ARRAY_SIZE(modes); i++) {
		testdev_cmd("c0 mode %s", modes[i % ARRAY_SIZE(modes)]);
		poller_start(_metadata, &p, self->dev);
		iocb_prep(&io, IOCB_CMD_PREAD, fd, self->fed.buf, BLOCK, 0);
		ASSERT_EQ(1, aio_submit_one(&self->fed.aio, &io));
		if (i % ARRAY_SIZE(modes) == 3) {
			EXPECT_TRUE(poller_sleeps(&p));
			testdev_cmd("c0 complete 1");
		}
		poller_end(_metadata, &p, READABLE);
		EXPECT_EQ(1, aio_poll(&self->fed.aio, 1, &ev));
		EXPECT_EVENT(&ev, &io, (long long)BLOCK);
	}
	close(fd);
}

/* Descriptors. */

/* Whoever has the open file may poll it. */
TEST_F(poll, other_processes)
{
	struct line line;
	struct io_event ev;
	struct iocb io;
	int copy = dup(self->dev);
	pid_t pid;

	line_open(_metadata, &line);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct pollfd pfd = { .fd = copy, .events = EVERYTHING };
		int got, ok;

		line_child(&line);
		ok = polled(copy) == 0 && line_tell(line.fds[1]);
		ok = ok && poll(&pfd, 1, WAIT_SECONDS * 1000) == 1 && pfd.revents == READABLE;
		got = receive_fd(line.fds[1]);
		ok = ok && got >= 0 && polled(got) == READABLE && line_tell(line.fds[1]);
		ok = ok && line_wait(line.fds[1]) && polled(got) == 0 && polled(copy) == 0;
		_exit(!ok);
	}
	line_parent(&line);
	EXPECT_TRUE(line_wait(line.fds[0]));
	post(_metadata, &self->fed, &io, 1, 1);
	EXPECT_EQ(0, send_fds(line.fds[0], &copy, 1));
	EXPECT_TRUE(line_wait(line.fds[0]));
	EXPECT_EQ(1, ring_reap(self->fed.aio.ctx, 1, &ev));
	EXPECT_TRUE(line_tell(line.fds[0]));
	EXPECT_EQ(0, wait_child(pid));
	close(copy);
}

/* The last descriptor is closed while somebody polls: the poll has the file. */
TEST_F(poll, closed_meanwhile)
{
	int fd = testdev_open("c0", 0);
	/* A number that no other file gets. */
	int dev = dup2(self->dev, 1000);
	struct poller p;
	struct iocb io;

	ASSERT_EQ(1000, dev);
	EXPECT_EQ(0, close(self->dev));
	testdev_cmd("c0 mode hang");
	iocb_prep(&io, IOCB_CMD_PREAD, fd, self->fed.buf, BLOCK, 0);
	self->fed.aio.dev = dev;
	ASSERT_EQ(1, aio_submit_one(&self->fed.aio, &io));
	poller_start(_metadata, &p, dev);
	EXPECT_EQ(0, close(dev));
	EXPECT_TRUE(poller_sleeps(&p));
	testdev_cmd("c0 complete all");
	/* Woken it looks for the descriptor again. With that the file and its contexts go. */
	poller_end(_metadata, &p, POLLNVAL);
	self->fed.aio.dev = -1;
	self->fed.aio.ctx = 0;
	close(fd);
}

/* epoll. */
FIXTURE(epoll)
{
	struct fed fed;
	int dev;
	int ep;
};

FIXTURE_SETUP(epoll)
{
	testdev_begin();
	fed_begin(_metadata, &self->fed, &raio);
	self->dev = self->fed.aio.dev;
	self->ep = epoll_create1(EPOLL_CLOEXEC);
	ASSERT_LE(0, self->ep);
}

FIXTURE_TEARDOWN(epoll)
{
	close(self->ep);
	fed_end(_metadata, &self->fed);
	testdev_reset();
}

static int watch(int ep, int op, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.u64 = ~(uint64_t)fd };

	return ret_errno(epoll_ctl(ep, op, fd, &event));
}

/* What epoll tells of @fd within @ms. It must not tell of anything else. */
static int epolled(int ep, int fd, int ms)
{
	struct epoll_event event[2];
	int ret = ret_errno(epoll_wait(ep, event, 2, ms));

	if (ret < 1)
		return ret;
	return ret == 1 && event[0].data.u64 == ~(uint64_t)fd ? (int)event[0].events : -EIO;
}

TEST_F(epoll, level)
{
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_ADD, self->dev, EVERYTHING));
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(0, epolled(self->ep, self->dev, 0));
		post(_metadata, &self->fed, &io, 1, 1);
		EXPECT_EQ(READABLE, epolled(self->ep, self->dev, 0));
		EXPECT_EQ(READABLE, epolled(self->ep, self->dev, -1));
		ASSERT_EQ(1, i % 2 ? ring_reap(self->fed.aio.ctx, 1, &ev) :
				     aio_poll(&self->fed.aio, 1, &ev));
	}
	EXPECT_EQ(0, epolled(self->ep, self->dev, 0));
	/* What is there when it is added, too. */
	post(_metadata, &self->fed, &io, 1, 1);
	EXPECT_EQ(0, watch(self->ep, EPOLL_CTL_DEL, self->dev, 0));
	EXPECT_EQ(0, epolled(self->ep, self->dev, 0));
	ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_ADD, self->dev, EPOLLIN));
	EXPECT_EQ(EPOLLIN, epolled(self->ep, self->dev, 0));
	ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_MOD, self->dev, EPOLLRDNORM));
	EXPECT_EQ(EPOLLRDNORM, epolled(self->ep, self->dev, 0));
	ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_MOD, self->dev, EPOLLOUT));
	EXPECT_EQ(0, epolled(self->ep, self->dev, 0));
	ASSERT_EQ(1, ring_reap(self->fed.aio.ctx, 1, &ev));
}

/*
 * Each event is an edge, whatever is there already, for the kernel does not
 * learn at once what the program has read.
 */
TEST_F(epoll, edge)
{
	struct io_event ev[EVENTS];
	struct fed two;
	struct iocb io;
	unsigned int i;

	another(_metadata, &self->fed, &two);
	ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_ADD, self->dev, EPOLLIN | EPOLLET));
	for (i = 0; i < 4 * EVENTS; i++) {
		post(_metadata, i % 3 ? &self->fed : &two, &io, 1, 1);
		EXPECT_EQ(EPOLLIN, epolled(self->ep, self->dev, 0)) {
			TH_LOG("event %u", i);
		}
		EXPECT_EQ(0, epolled(self->ep, self->dev, 0));
		if (i % 8 < 5)
			ring_reap(self->fed.aio.ctx, EVENTS, ev);
		if (i % 16 < 9)
			ASSERT_LE(0, aio_poll(&two.aio, EVENTS, ev));
		/* What is read is none. */
		EXPECT_EQ(0, epolled(self->ep, self->dev, 0));
	}
	/* It is asked again when it is changed. */
	post(_metadata, &self->fed, &io, 1, 1);
	EXPECT_EQ(EPOLLIN, epolled(self->ep, self->dev, 0));
	ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_MOD, self->dev, EPOLLIN | EPOLLET));
	EXPECT_EQ(EPOLLIN, epolled(self->ep, self->dev, 0));
	EXPECT_EQ(0, epolled(self->ep, self->dev, 0));
	ring_reap(self->fed.aio.ctx, EVENTS, ev);
	EXPECT_EQ(0, aio_destroy(&two.aio, two.aio.ctx));
}

TEST_F(epoll, once)
{
	struct io_event ev[4];
	struct iocb io;
	unsigned int i;

	ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_ADD, self->dev, EPOLLIN | EPOLLONESHOT));
	for (i = 0; i < 10; i++) {
		post(_metadata, &self->fed, &io, 1, 1);
		EXPECT_EQ(EPOLLIN, epolled(self->ep, self->dev, 0));
		post(_metadata, &self->fed, &io, 1, 1);
		EXPECT_EQ(0, epolled(self->ep, self->dev, 0));
		/* Armed again, with something there or not. */
		if (i % 2)
			ASSERT_EQ(2, ring_reap(self->fed.aio.ctx, 4, ev));
		ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_MOD, self->dev, EPOLLIN | EPOLLONESHOT));
		if (i % 2)
			continue;
		EXPECT_EQ(EPOLLIN, epolled(self->ep, self->dev, 0));
		EXPECT_EQ(0, epolled(self->ep, self->dev, 0));
		ASSERT_EQ(2, ring_reap(self->fed.aio.ctx, 4, ev));
		ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_MOD, self->dev, EPOLLIN | EPOLLONESHOT));
	}
}

struct epoller {
	int ep;
	int fd;
	pthread_t thread;
	pid_t tid;
	int ret;
	bool done;
};

static void *epoller_thread(void *data)
{
	struct epoller *e = data;

	__atomic_store_n(&e->tid, gettid(), __ATOMIC_RELEASE);
	e->ret = epolled(e->ep, e->fd, -1);
	__atomic_store_n(&e->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static bool epoller_done(struct epoller *e)
{
	return __atomic_load_n(&e->done, __ATOMIC_ACQUIRE);
}

static bool epoller_sleeps(struct epoller *e)
{
	pid_t tid = __atomic_load_n(&e->tid, __ATOMIC_ACQUIRE);

	return tid && task_in(tid, __NR_epoll_wait, 0);
}

static void epoller_start(struct __test_metadata *_metadata, struct epoller *e, int ep, int fd)
{
	*e = (struct epoller){ .ep = ep, .fd = fd };
	ASSERT_EQ(0, pthread_create(&e->thread, NULL, epoller_thread, e));
	ASSERT_TRUE(wait_for(epoller_sleeps(e) || epoller_done(e)));
	ASSERT_FALSE(epoller_done(e));
}

static void epoller_end(struct __test_metadata *_metadata, struct epoller *e, int val)
{
	ASSERT_TRUE(wait_for(epoller_done(e))) {
		TH_LOG("not woken");
	}
	pthread_join(e->thread, NULL);
	EXPECT_EQ(val, e->ret);
}

/* One of those who share is enough, and somebody who doesn't is woken besides. */
TEST_F(epoll, exclusive)
{
	struct epoller e[3];
	struct poller p;
	struct io_event ev;
	struct iocb io;
	unsigned int i, n, round;
	int eps[ARRAY_SIZE(e)];

	for (i = 0; i < ARRAY_SIZE(e); i++) {
		eps[i] = epoll_create1(EPOLL_CLOEXEC);
		ASSERT_LE(0, eps[i]);
		ASSERT_EQ(0, watch(eps[i], EPOLL_CTL_ADD, self->dev, EPOLLIN | EPOLLEXCLUSIVE));
	}
	for (round = 0; round < 10; round++) {
		for (i = 0; i < ARRAY_SIZE(e); i++)
			epoller_start(_metadata, &e[i], eps[i], self->dev);
		poller_start(_metadata, &p, self->dev);
		post(_metadata, &self->fed, &io, 1, 1);
		poller_end(_metadata, &p, READABLE);
		EXPECT_TRUE(wait_for(epoller_done(&e[0]) || epoller_done(&e[1]) ||
				     epoller_done(&e[2])));
		for (i = 0, n = 0; i < ARRAY_SIZE(e); i++)
			n += !epoller_done(&e[i]);
		EXPECT_LT(0, n) {
			TH_LOG("all were woken for one event");
		}
		/* Each event one more, as long as nobody reads. */
		for (i = 1; i < ARRAY_SIZE(e); i++)
			post(_metadata, &self->fed, &io, 1, 1);
		for (i = 0; i < ARRAY_SIZE(e); i++)
			epoller_end(_metadata, &e[i], EPOLLIN);
		while (ring_reap(self->fed.aio.ctx, 1, &ev))
			;
	}
	for (i = 0; i < ARRAY_SIZE(e); i++)
		close(eps[i]);
}

TEST_F(epoll, nested)
{
	int outer = epoll_create1(EPOLL_CLOEXEC);
	struct epoller e;
	struct io_event ev;
	struct iocb io;

	ASSERT_LE(0, outer);
	ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_ADD, self->dev, EPOLLIN));
	ASSERT_EQ(0, watch(outer, EPOLL_CTL_ADD, self->ep, EPOLLIN));
	EXPECT_EQ(0, epolled(outer, self->ep, 0));
	epoller_start(_metadata, &e, outer, self->ep);
	post(_metadata, &self->fed, &io, 1, 1);
	epoller_end(_metadata, &e, EPOLLIN);
	EXPECT_EQ(EPOLLIN, epolled(outer, self->ep, 0));
	EXPECT_EQ(EPOLLIN, epolled(self->ep, self->dev, 0));
	ASSERT_EQ(1, ring_reap(self->fed.aio.ctx, 1, &ev));
	EXPECT_EQ(0, epolled(outer, self->ep, 0));
	close(outer);
}

/* epoll knows descriptor and open file: it goes on as long as the file is open. */
TEST_F(epoll, copied)
{
	int copy = dup(self->dev);
	struct io_event ev;
	struct epoller e;
	struct iocb io;

	ASSERT_LE(0, copy);
	ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_ADD, self->dev, EPOLLIN));
	EXPECT_EQ(-EEXIST, watch(self->ep, EPOLL_CTL_ADD, self->dev, EPOLLIN));
	epoller_start(_metadata, &e, self->ep, self->dev);
	EXPECT_EQ(0, close(self->dev));
	self->fed.aio.dev = copy;
	post(_metadata, &self->fed, &io, 1, 1);
	epoller_end(_metadata, &e, EPOLLIN);
	ASSERT_EQ(1, ring_reap(self->fed.aio.ctx, 1, &ev));
	EXPECT_EQ(0, epolled(self->ep, self->dev, 0));
}

/* The last descriptor is closed: nothing is left to watch, whatever comes. */
TEST_F(epoll, closed)
{
	int fd = testdev_open("c0", 0);
	struct io_event ev[2];
	struct iocb io[2];
	unsigned int i;

	testdev_cmd("c0 mode timer 5000000");
	for (i = 0; i < 20; i++) {
		struct aio aio;
		struct epoller e;

		aio_begin(_metadata, &aio, &raio, 4);
		ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_ADD, aio.dev, EPOLLIN));
		iocb_prep(&io[0], IOCB_CMD_PREAD, fd, self->fed.buf, BLOCK, 0);
		ASSERT_EQ(1, aio_submit_one(&aio, &io[0]));
		/* Waits for the request, which nobody hears of. */
		EXPECT_EQ(0, close(aio.dev));
		EXPECT_EQ(0, epolled(self->ep, aio.dev, 0));
		ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_ADD, self->dev, EPOLLIN));
		epoller_start(_metadata, &e, self->ep, self->dev);
		post(_metadata, &self->fed, &io[1], 1, 1);
		epoller_end(_metadata, &e, EPOLLIN);
		ASSERT_EQ(1, ring_reap(self->fed.aio.ctx, 1, ev));
		ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_DEL, self->dev, 0));
	}
	close(fd);
}

/*
 * A poster on another processor. Who waits by epoll and reads until nothing is
 * left misses none, and does not sleep while something is there.
 */
#define STORM	8000

struct storm {
	struct fed feds[3];
	unsigned int posted;
	unsigned int taken;
	bool in_step;
	long err;
};

static void *storm_thread(void *data)
{
	struct storm *storm = data;
	uint64_t state = 5;

	pin_to_cpu(0);
	while (storm->posted < STORM && !storm->err) {
		uint64_t dice = next_random(&state);
		struct fed *fed = &storm->feds[dice % ARRAY_SIZE(storm->feds)];
		unsigned int n = 1 + (dice >> 8) % 4;
		struct iocb io[4];
		long ret = post_try(fed, io, MIN(n, STORM - storm->posted), storm->posted);

		if (ret > 0)
			storm->posted += ret;
		else if (ret == -EAGAIN)
			sched_yield();
		else
			storm->err = ret;
		/* The next only when these were read: the other goes to sleep each time. */
		while (storm->in_step &&
		       __atomic_load_n(&storm->taken, __ATOMIC_ACQUIRE) < storm->posted &&
		       __atomic_load_n(&storm->err, __ATOMIC_ACQUIRE) == 0)
			sched_yield();
	}
	return NULL;
}

FIXTURE(storm)
{
	struct fed fed;
};

FIXTURE_VARIANT(storm)
{
	uint32_t events;
	bool in_step;
};

FIXTURE_VARIANT_ADD(storm, level)
{
	.events = EPOLLIN,
};

FIXTURE_VARIANT_ADD(storm, edge)
{
	.events = EPOLLIN | EPOLLET,
};

FIXTURE_VARIANT_ADD(storm, once)
{
	.events = EPOLLIN | EPOLLONESHOT,
};

FIXTURE_VARIANT_ADD(storm, edge_in_step)
{
	.events = EPOLLIN | EPOLLET, .in_step = true,
};

FIXTURE_VARIANT_ADD(storm, level_in_step)
{
	.events = EPOLLIN, .in_step = true,
};

FIXTURE_SETUP(storm)
{
	fed_begin(_metadata, &self->fed, &raio);
}

FIXTURE_TEARDOWN(storm)
{
	fed_end(_metadata, &self->fed);
}

TEST_F_TIMEOUT(storm, none_is_missed, 120)
{
	struct storm storm = { .feds = { self->fed }, .in_step = variant->in_step };
	int ep = epoll_create1(EPOLL_CLOEXEC), dev = self->fed.aio.dev;
	unsigned int i, n, waits = 0, taken = 0;
	struct io_event ev[EVENTS];
	pthread_t thread;
	int ret;

	ASSERT_LE(0, ep);
	for (i = 1; i < ARRAY_SIZE(storm.feds); i++)
		another(_metadata, &self->fed, &storm.feds[i]);
	ASSERT_EQ(0, watch(ep, EPOLL_CTL_ADD, dev, variant->events));
	ASSERT_EQ(0, pthread_create(&thread, NULL, storm_thread, &storm));
	pin_to_cpu(1);
	while (taken < STORM) {
		ret = epolled(ep, dev, WAIT_SECONDS * 1000);
		if (ret != EPOLLIN) {
			__atomic_store_n(&storm.err, -ETIME, __ATOMIC_RELEASE);
			ASSERT_EQ(EPOLLIN, ret) {
				TH_LOG("not woken after %u events", taken);
			}
		}
		waits++;
		do {
			for (i = 0, n = 0; i < ARRAY_SIZE(storm.feds); i++)
				n += waits % 2 ? ring_reap(storm.feds[i].aio.ctx, EVENTS, ev) :
						 aio_poll(&storm.feds[i].aio, EVENTS, ev);
			taken += n;
			__atomic_store_n(&storm.taken, taken, __ATOMIC_RELEASE);
		} while (n);
		if (variant->events & EPOLLONESHOT)
			ASSERT_EQ(0, watch(ep, EPOLL_CTL_MOD, dev, variant->events));
	}
	pthread_join(thread, NULL);
	EXPECT_EQ(0, storm.err);
	EXPECT_EQ(STORM, taken);
	EXPECT_LT(10, waits);
	for (i = 1; i < ARRAY_SIZE(storm.feds); i++)
		EXPECT_EQ(0, aio_destroy(&storm.feds[i].aio, storm.feds[i].aio.ctx));
	close(ep);
}

/*
 * Contexts and watches come and go under a poster in interrupts: nothing of
 * what has gone is touched.
 */
TEST_F_TIMEOUT(epoll, come_and_go, 120)
{
	int fd = testdev_open("c0", 0);
	struct poller p;
	struct iocb io[4];
	unsigned int i, j;

	testdev_cmd("c0 mode timer 30000");
	for (i = 0; i < 300; i++) {
		struct aio aio;

		aio_begin(_metadata, &aio, &raio, 4);
		for (j = 0; j < ARRAY_SIZE(io); j++)
			iocb_prep(&io[j], IOCB_CMD_PREAD, fd, self->fed.buf, BLOCK, 0);
		ASSERT_EQ(0, watch(self->ep, EPOLL_CTL_ADD, aio.dev, EPOLLIN | EPOLLET));
		p = (struct poller){ .fd = aio.dev };
		ASSERT_EQ(0, pthread_create(&p.thread, NULL, poller_thread, &p));
		for (j = 0; j < ARRAY_SIZE(io); j++)
			ASSERT_EQ(1, aio_submit_one(&aio, &io[j]));
		if (i % 3 == 0)
			EXPECT_LE(0, epolled(self->ep, aio.dev, 0));
		if (i % 3 == 1)
			EXPECT_EQ(0, watch(self->ep, EPOLL_CTL_DEL, aio.dev, 0));
		/* An event makes the poll return, so that the file can go. */
		EXPECT_TRUE(wait_for(poller_done(&p)));
		if (i % 2)
			EXPECT_EQ(0, aio_destroy(&aio, aio.ctx));
		EXPECT_EQ(0, close(aio.dev));
		pthread_join(p.thread, NULL);
	}
	close(fd);
}

TEST_HARNESS_MAIN
