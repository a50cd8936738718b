// SPDX-License-Identifier: GPL-2.0
/*
 * RAIO_IOC_ENTER: requests one after another, in memory of the program or in the
 * submission array, and the wait for their events in the same call.
 */
#include <sys/eventfd.h>

#include "raio_native.h"
#include "raio_testdev.h"

#define EVENTS	64
#define NR	16

FIXTURE(enter)
{
	struct native native;
	int fd;
	char *buf;
};

FIXTURE_VARIANT(enter)
{
	bool sq;
};

FIXTURE_VARIANT_ADD(enter, array) { .sq = false };
FIXTURE_VARIANT_ADD(enter, shared) { .sq = true };

FIXTURE_SETUP(enter)
{
	testdev_begin();
	native_begin(_metadata, &self->native, EVENTS, 1);
	self->fd = temp_file(tmpfs_dir(), O_RDWR);
	ASSERT_LE(0, self->fd);
	self->buf = map_pages(NR * PAGE);
	pattern_fill(self->buf, NR * PAGE, 0, 1);
	ASSERT_EQ(NR * PAGE, pwrite(self->fd, self->buf, NR * PAGE, 0));
	memset(self->buf, 0, NR * PAGE);
}

FIXTURE_TEARDOWN(enter)
{
	testdev_reset();
	native_end(_metadata, &self->native);
	close(self->fd);
}

/* Enters with what @io has, by the way of the variant; the array is at its beginning. */
#define ENTER(_nr, _io, _min_nr) ({					\
	struct native *__native = &self->native;			\
									\
	if (variant->sq)						\
		memcpy(__native->sq, (_io), (_nr) * sizeof(*(_io)));	\
	variant->sq ? native_enter_sq(__native, (_nr), 0, (_min_nr)) :	\
		      native_enter(__native, (_nr), (_io), (_min_nr));	\
})

#define REAP(_nr, _ev) ring_reap(self->native.aio.ctx, (_nr), (_ev))

/* Requests in a call of one of several threads, whose calls all fit at once. */
#define EACH		40
#define SHARE_MS	3000

struct sharer {
	struct native *native;
	long refused;
	long wrong;
	long calls;
};

static void *share(void *data)
{
	const long long end = now_ns() + SHARE_MS * MS * long_run(5);
	struct sharer *sharer = data;
	struct io_event ev[EACH];
	struct iocb io[EACH];
	unsigned int i;

	pin_to_cpu(0);
	for (i = 0; i < EACH; i++)
		native_prep(&io[i], i, IOCB_CMD_NOOP, 0, NULL, 0, 0);
	for (; now_ns() < end && !sharer->refused && !sharer->wrong; sharer->calls++) {
		if (native_enter(sharer->native, EACH, io, 0) != EACH)
			sharer->refused++;
		else if (raio_getevents(sharer->native->aio.dev, sharer->native->aio.ctx, EACH,
					EACH, ev, NULL) != EACH)
			sharer->wrong++;
	}
	return NULL;
}

/* Slots of which the events were read are there, whichever thread has found that. */
TEST(none_is_refused_for_slots_that_are_free)
{
	struct sharer sharers[3] = { };
	pthread_t threads[3];
	struct native native;
	unsigned int i;

	native_begin(_metadata, &native, 3 * EACH, 1);
	for (i = 0; i < 3; i++) {
		sharers[i].native = &native;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, share, &sharers[i]));
	}
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
		EXPECT_EQ(0, sharers[i].refused);
		EXPECT_EQ(0, sharers[i].wrong);
		TH_LOG("%ld calls", sharers[i].calls);
	}
	native_end(_metadata, &native);
}

TEST_F(enter, reads)
{
	struct io_event ev[NR];
	struct iocb io[NR], copy[NR];
	unsigned int i, seen = 0;

	for (i = 0; i < NR; i++)
		native_prep(&io[i], 100 + i, IOCB_CMD_PREAD, self->fd, self->buf + i * PAGE, PAGE,
			    i * PAGE);
	memcpy(copy, io, sizeof(io));
	ASSERT_EQ(NR, ENTER(NR, io, NR));
	ASSERT_EQ(NR, REAP(NR, ev));
	for (i = 0; i < NR; i++) {
		EXPECT_NATIVE(ev[i].data, PAGE, &ev[i]);
		ASSERT_LE(100, ev[i].data);
		ASSERT_GT(100 + NR, ev[i].data);
		seen |= 1 << (ev[i].data - 100);
	}
	/* In whatever order. */
	EXPECT_EQ((1 << NR) - 1, seen);
	EXPECT_EQ(-1, pattern_check(self->buf, NR * PAGE, 0, 1));
	/* Nothing is written to them. */
	EXPECT_EQ(0, memcmp(copy, variant->sq ? self->native.sq : io, sizeof(io)));
}

TEST_F(enter, nothing)
{
	struct raio_stats before;
	struct io_event ev[NR];
	struct iocb io[NR];
	uint64_t count = 0;
	unsigned int i;
	int efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	/* Without a file. */
	for (i = 0; i < NR; i++)
		native_prep(&io[i], i, IOCB_CMD_NOOP, -1, NULL, 0, 0);
	io[3].aio_flags = IOCB_FLAG_RESFD;
	io[3].aio_resfd = efd;
	stats_now(_metadata, &before);
	ASSERT_EQ(NR, ENTER(NR, io, NR));
	EXPECT_MOVED(NR, &before, submitted);
	EXPECT_MOVED(NR, &before, completed);
	EXPECT_EQ(sizeof(count), read(efd, &count, sizeof(count)));
	EXPECT_EQ(1, count);
	ASSERT_EQ(NR, REAP(NR, ev));
	for (i = 0; i < NR; i++)
		EXPECT_NATIVE(i, 0, &ev[i]);
	close(efd);
}

/* One that waits, and who wakes it. */
TEST_F(enter, waits)
{
	const int held = open(testdev_path("c0"), O_RDWR | O_CLOEXEC);
	struct io_event ev[2];
	struct iocb io[2];

	ASSERT_LE(0, held);
	testdev_cmd("c0 mode timer %lld", 20 * MS);
	native_prep(&io[0], 1, IOCB_CMD_PREAD, held, self->buf, PAGE, 0);
	native_prep(&io[1], 2, IOCB_CMD_PREAD, held, self->buf + PAGE, PAGE, 0);
	ASSERT_EQ(2, ENTER(2, io, 2));
	ASSERT_EQ(2, REAP(2, ev));
	EXPECT_EQ(PAGE, ev[0].res);
	EXPECT_EQ(3, ev[0].data + ev[1].data);
	/* Nothing is submitted: only the wait is left. */
	ASSERT_EQ(1, ENTER(1, io, 0));
	ASSERT_EQ(0, ENTER(0, io, 1));
	ASSERT_EQ(1, REAP(2, ev));
	EXPECT_NATIVE(1, PAGE, &ev[0]);
	close(held);
}

TEST_F(enter, timeout)
{
	struct __kernel_timespec ts = { .tv_nsec = 10 * MS };
	struct raio_enter arg = {
		.ctx = self->native.aio.ctx,
		.min_nr = 1,
		.timeout = (uintptr_t)&ts,
	};
	struct io_event ev;
	long long start = now_ns();
	struct iocb io;

	EXPECT_EQ(0, raio_ioctl(self->native.aio.dev, RAIO_IOC_ENTER, &arg));
	EXPECT_LE(10 * MS, now_ns() - start);
	/* What was taken is told, not what became of the wait. */
	native_prep(&io, 7, IOCB_CMD_NOOP, -1, NULL, 0, 0);
	arg.nr = 1;
	arg.min_nr = 2;
	arg.iocbs = (uintptr_t)&io;
	start = now_ns();
	EXPECT_EQ(1, raio_ioctl(self->native.aio.dev, RAIO_IOC_ENTER, &arg));
	EXPECT_LE(10 * MS, now_ns() - start);
	ts.tv_nsec = 0;
	EXPECT_EQ(1, raio_ioctl(self->native.aio.dev, RAIO_IOC_ENTER, &arg));
	ASSERT_EQ(1, REAP(1, &ev));
	EXPECT_NATIVE(7, 0, &ev);
	ASSERT_EQ(1, REAP(1, &ev));
}

static void on_signal(int sig)
{
	(void)sig;
}

struct enterer {
	struct native *native;
	struct iocb *io;
	unsigned int nr;
	sigset_t *mask;
	long ret;
	pid_t tid;
};

static void *enter_in_thread(void *data)
{
	struct enterer *e = data;
	struct raio_enter arg = {
		.ctx = e->native->aio.ctx,
		.iocbs = (uintptr_t)e->io,
		.nr = e->nr,
		.min_nr = EVENTS,
		.sigmask = (uintptr_t)e->mask,
		.sigsetsize = e->mask ? MASK_SIZE : 0,
	};

	__atomic_store_n(&e->tid, gettid(), __ATOMIC_RELEASE);
	e->ret = raio_ioctl(e->native->aio.dev, RAIO_IOC_ENTER, &arg);
	return NULL;
}

TEST_F(enter, signal)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct iocb io;
	unsigned int nr;

	ASSERT_EQ(0, sigaction(SIGUSR1, &sa, NULL));
	native_prep(&io, 7, IOCB_CMD_NOOP, -1, NULL, 0, 0);
	for (nr = 0; nr < 2; nr++) {
		struct enterer e = { .native = &self->native, .io = &io, .nr = nr };
		struct io_event ev;
		pthread_t thread;

		ASSERT_EQ(0, pthread_create(&thread, NULL, enter_in_thread, &e));
		ASSERT_TRUE(wait_for(__atomic_load_n(&e.tid, __ATOMIC_ACQUIRE) &&
				     task_sleeps(e.tid)));
		ASSERT_EQ(0, pthread_kill(thread, SIGUSR1));
		ASSERT_EQ(0, pthread_join(thread, NULL));
		EXPECT_EQ(nr ? 1 : -EINTR, e.ret);
		EXPECT_EQ(nr, REAP(1, &ev));
	}
}

/* A mask lets through what is pending. */
TEST_F(enter, mask)
{
	struct sigaction sa = { .sa_handler = on_signal };
	sigset_t mask, old, open_mask;
	struct iocb io;
	struct enterer e = { .native = &self->native, .io = &io, .mask = &open_mask };
	struct io_event ev;

	ASSERT_EQ(0, sigaction(SIGUSR1, &sa, NULL));
	native_prep(&io, 7, IOCB_CMD_NOOP, -1, NULL, 0, 0);
	sigemptyset(&open_mask);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	ASSERT_EQ(0, sigprocmask(SIG_BLOCK, &mask, &old));
	raise(SIGUSR1);
	enter_in_thread(&e);
	EXPECT_EQ(-EINTR, e.ret);
	raise(SIGUSR1);
	e.nr = 1;
	enter_in_thread(&e);
	EXPECT_EQ(1, e.ret);
	EXPECT_EQ(1, REAP(1, &ev));
	ASSERT_EQ(0, sigprocmask(SIG_SETMASK, &old, NULL));
}

/* One that is refused ends the call, and isn't waited after. */
TEST_F(enter, refused)
{
	struct io_event ev[2];
	struct iocb io[3];

	native_prep(&io[0], 1, IOCB_CMD_NOOP, -1, NULL, 0, 0);
	native_prep(&io[1], 2, IOCB_CMD_PREAD, -1, self->buf, PAGE, 0);
	native_prep(&io[2], 3, IOCB_CMD_NOOP, -1, NULL, 0, 0);
	EXPECT_EQ(1, ENTER(3, io, 3));
	EXPECT_EQ(-EBADF, ENTER(2, &io[1], 1));
	io[1].aio_fildes = self->fd;
	io[1].aio_reserved2 = 1;
	EXPECT_EQ(-EINVAL, ENTER(2, &io[1], 1));
	io[1].aio_reserved2 = 0;
	io[1].aio_flags = 1U << 29;
	EXPECT_EQ(-EINVAL, ENTER(2, &io[1], 1));
	io[2].aio_nbytes = 1;
	EXPECT_EQ(-EINVAL, ENTER(1, &io[2], 1));
	io[2].aio_nbytes = 0;
	io[2].aio_flags = IOCB_FLAG_RESFD;
	io[2].aio_resfd = self->fd;
	EXPECT_EQ(-EINVAL, ENTER(1, &io[2], 1));
	ASSERT_EQ(1, REAP(2, ev));
	EXPECT_NATIVE(1, 0, &ev[0]);
}

TEST_F(enter, cancelled_by_data)
{
	const int held = open(testdev_path("c0"), O_RDWR | O_CLOEXEC);
	struct raio_cancel arg = {
		.ctx = self->native.aio.ctx,
		.iocb = 2,
		.flags = RAIO_CANCEL_DATA,
	};
	struct io_event ev[2];
	struct iocb io[2];

	ASSERT_LE(0, held);
	testdev_cmd("c0 mode hang");
	testdev_cmd("c0 cancel yes");
	native_prep(&io[0], 1, IOCB_CMD_PREAD, held, self->buf, PAGE, 0);
	native_prep(&io[1], 2, IOCB_CMD_PREAD, held, self->buf + PAGE, PAGE, 0);
	ASSERT_EQ(2, ENTER(2, io, 0));
	ASSERT_EQ(0, raio_ioctl(self->native.aio.dev, RAIO_IOC_CANCEL, &arg));
	EXPECT_EQ(-EINVAL, raio_ioctl(self->native.aio.dev, RAIO_IOC_CANCEL, &arg));
	ASSERT_EQ(1, REAP(2, ev));
	EXPECT_NATIVE(2, -ECANCELED, &ev[0]);
	arg.iocb = 3;
	EXPECT_EQ(-EINVAL, raio_ioctl(self->native.aio.dev, RAIO_IOC_CANCEL, &arg));
	/* It isn't an address. */
	arg.iocb = 1;
	arg.flags = 0;
	EXPECT_EQ(-EFAULT, raio_ioctl(self->native.aio.dev, RAIO_IOC_CANCEL, &arg));
	arg.flags = 2;
	EXPECT_EQ(-EINVAL, raio_ioctl(self->native.aio.dev, RAIO_IOC_CANCEL, &arg));
	testdev_cmd("c0 complete all");
	ASSERT_EQ(0, ENTER(0, io, 1));
	ASSERT_EQ(1, REAP(2, ev));
	EXPECT_NATIVE(1, PAGE, &ev[0]);
	close(held);
}

/* More than fit into the ring are taken as they fit. */
TEST_F(enter, ring_is_full)
{
	const unsigned int capacity = aio_ring(self->native.aio.ctx)->nr - 1;
	struct io_event ev[NR];
	unsigned int i, left;
	struct iocb io[NR];

	for (i = 0; i < NR; i++)
		native_prep(&io[i], i, IOCB_CMD_NOOP, -1, NULL, 0, 0);
	for (left = capacity; left; left -= i) {
		i = left < NR ? left : NR;
		ASSERT_EQ(i, ENTER(NR, io, 0));
	}
	EXPECT_EQ(-EAGAIN, ENTER(NR, io, 0));
	/* Though it isn't as many as are waited for, there can't be more. */
	EXPECT_EQ(0, ENTER(0, io, capacity + 100));
	for (left = capacity; left; left -= i) {
		i = REAP(NR, ev);
		ASSERT_NE(0, i);
	}
}

FIXTURE(sq)
{
	struct native native;
};

FIXTURE_SETUP(sq)
{
	native_begin(_metadata, &self->native, EVENTS, 65);
}

FIXTURE_TEARDOWN(sq)
{
	native_end(_metadata, &self->native);
}

/* As many as fill its pages; they begin behind the ring. */
TEST_F(sq, shape)
{
	const unsigned int nr = self->native.sq_nr;
	const uintptr_t ring = self->native.aio.ctx;
	struct raio_setup arg = { .nr_events = 1 };
	aio_context_t ctx = 0;

	EXPECT_EQ(128, nr);
	EXPECT_EQ(0, (uintptr_t)self->native.sq % PAGE);
	EXPECT_LE(ring + (aio_ring(ring)->nr + 1) * sizeof(struct io_event),
		  (uintptr_t)self->native.sq);
	EXPECT_EQ(-1, filled_check(self->native.sq, nr * sizeof(struct iocb), 0));

	arg.ctxp = (uintptr_t)&ctx;
	ASSERT_EQ(0, raio_ioctl(self->native.aio.dev, RAIO_IOC_SETUP, &arg));
	EXPECT_EQ(0, arg.sq_nr);
	EXPECT_EQ(0, arg.sq_offset);
	EXPECT_EQ(0, raio_destroy(self->native.aio.dev, ctx));
}

TEST_F(sq, goes_around)
{
	const unsigned int nr = self->native.sq_nr;
	struct io_event ev[NR];
	unsigned int i, first;

	for (i = 0; i < nr; i++)
		native_prep(&self->native.sq[i], i, IOCB_CMD_NOOP, -1, NULL, 0, 0);
	for (first = 0; first < 3 * nr; first += NR - 1) {
		ASSERT_EQ(NR, native_enter_sq(&self->native, NR, first, 0));
		ASSERT_EQ(NR, ring_reap(self->native.aio.ctx, NR, ev));
		for (i = 0; i < NR; i++)
			EXPECT_NATIVE((first + i) % nr, 0, &ev[i]);
	}
	/* Around the end of the numbers, too. */
	ASSERT_EQ(2, native_enter_sq(&self->native, 2, UINT_MAX, 0));
	ASSERT_EQ(2, ring_reap(self->native.aio.ctx, NR, ev));
	EXPECT_NATIVE(UINT_MAX % nr, 0, &ev[0]);
	EXPECT_NATIVE(0, 0, &ev[1]);
}

TEST_F(sq, refused)
{
	struct native without;
	struct raio_enter arg = { .ctx = self->native.aio.ctx, .nr = 1, .flags = RAIO_ENTER_SQ };
	struct raio_setup setup = { .nr_events = 1 };
	aio_context_t ctx = 0;

	native_prep(self->native.sq, 1, IOCB_CMD_NOOP, -1, NULL, 0, 0);
	arg.iocbs = 1ULL << 32;
	EXPECT_EQ(-EINVAL, raio_ioctl(self->native.aio.dev, RAIO_IOC_ENTER, &arg));
	arg.iocbs = 0;
	arg.flags = 2;
	EXPECT_EQ(-EINVAL, raio_ioctl(self->native.aio.dev, RAIO_IOC_ENTER, &arg));
	arg.flags = RAIO_ENTER_SQ;
	arg.timeout = KERNEL_ADDR;
	EXPECT_EQ(-EFAULT, raio_ioctl(self->native.aio.dev, RAIO_IOC_ENTER, &arg));
	arg.timeout = 0;
	arg.sigmask = KERNEL_ADDR;
	EXPECT_EQ(-EINVAL, raio_ioctl(self->native.aio.dev, RAIO_IOC_ENTER, &arg));
	arg.sigsetsize = MASK_SIZE;
	EXPECT_EQ(-EFAULT, raio_ioctl(self->native.aio.dev, RAIO_IOC_ENTER, &arg));
	EXPECT_EQ(-EFAULT, native_enter(&self->native, 1, KERNEL_PTR, 0));

	native_begin(_metadata, &without, 1, 0);
	EXPECT_EQ(-EINVAL, native_enter_sq(&without, 1, 0, 0));
	native_end(_metadata, &without);

	setup.ctxp = (uintptr_t)&ctx;
	setup.sq_nr = (1 << 20) + 1;
	EXPECT_EQ(-EINVAL, raio_ioctl(self->native.aio.dev, RAIO_IOC_SETUP, &setup));
	setup.sq_nr = 0;
	setup.sq_offset = 1;
	EXPECT_EQ(-EINVAL, raio_ioctl(self->native.aio.dev, RAIO_IOC_SETUP, &setup));
}

#define ROUNDS	20000

static void *spoil(void *data)
{
	struct native *native = data;
	struct iocb *io = native->sq;
	uint64_t random = 1;

#define SPOIL(_field, _value)	__atomic_store_n(&io->_field, (_value), __ATOMIC_RELAXED)
	/* Ends with the context. */
	while (__atomic_load_n(&io->aio_data, __ATOMIC_RELAXED) != UINT64_MAX) {
		SPOIL(aio_fildes, next_random(&random) % 4 ? -1 : 0);
		SPOIL(aio_lio_opcode, next_random(&random) % 16);
		SPOIL(aio_nbytes, next_random(&random) % 2 ? 0 : next_random(&random));
		SPOIL(aio_buf, next_random(&random) % 2 ? 0 : next_random(&random));
	}
	return NULL;
}

/* What is changed at the same time is taken for the one or the other. */
TEST_F(sq, changes_meanwhile)
{
	const long long end = now_ns() + WAIT_SECONDS * 1000LL * MS;
	unsigned int i, taken = 0, refused = 0;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, spoil, &self->native));
	/* However long it takes until the other thread has a processor. */
	for (i = 0; i < ROUNDS * long_run(10) || ((!taken || !refused) && now_ns() < end); i++) {
		long ret = native_enter_sq(&self->native, 1, 0, 0);
		struct io_event ev;

		if (ret == 1)
			taken++;
		else
			refused++;
		while (ring_reap(self->native.aio.ctx, 1, &ev))
			;
	}
	__atomic_store_n(&self->native.sq->aio_data, UINT64_MAX, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_NE(0, taken);
	EXPECT_NE(0, refused);
}

TEST_HARNESS_MAIN
