// SPDX-License-Identifier: GPL-2.0
/*
 * The C library, tools/libraio: all that it can prepare, its array and the ring as
 * they go around, what it says when something is refused, full, late or cancelled.
 */
#include <poll.h>

#include "libraio.h"

#include "raio_testdev.h"

#define EVENTS		64
#define NR_BUFFERS	4
#define NR_FILES	4
#define NR		16
#define SIZE		(NR * PAGE)

FIXTURE(lib)
{
	struct raio_queue q;
	struct raio_setup setup;
	long live;
	unsigned int fds;
	int fd;
	char *buf;
};

FIXTURE_SETUP(lib)
{
	testdev_begin();
	self->live = raio_live();
	self->fds = count_fds();
	self->setup.nr_events = EVENTS;
	self->setup.nr_buffers = NR_BUFFERS;
	self->setup.nr_files = NR_FILES;
	ASSERT_EQ(0, raio_queue_open(&self->q, NULL, &self->setup));
	self->fd = temp_file(ext4_dir(), O_RDWR);
	ASSERT_LE(0, self->fd);
	self->buf = map_pages(SIZE);
}

FIXTURE_TEARDOWN(lib)
{
	testdev_reset();
	EXPECT_EQ(0, raio_queue_ready(&self->q));
	raio_queue_close(&self->q);
	/* Once more does nothing. */
	raio_queue_close(&self->q);
	close(self->fd);
	EXPECT_EQ(self->fds, count_fds());
	EXPECT_TRUE(wait_for(raio_live() <= self->live));
}

#define EXPECT_LIB(_data, _res, _ev) do {				\
	const struct io_event *__ev = (_ev);				\
									\
	ASSERT_NE(NULL, __ev);						\
	EXPECT_EQ((_data), __ev->data);					\
	EXPECT_EQ((_data), __ev->obj);					\
	EXPECT_EQ((_res), __ev->res);					\
} while (0)

/* What comes of the one that is queued, whether the call or its event says it. */
#define RESULT(_data) ({						\
	struct io_event __ev = { };					\
	long __ret = raio_queue_submit_and_wait(&self->q, 1);		\
									\
	if (__ret == 1) {						\
		ASSERT_EQ(1, raio_queue_reap(&self->q, &__ev, 1));	\
		EXPECT_EQ((_data), __ev.data);				\
	} else {							\
		EXPECT_NE(NULL, raio_queue_skip(&self->q));		\
	}								\
	__ret == 1 ? __ev.res : __ret;					\
})

TEST_F(lib, shape)
{
	const struct raio_queue *q = &self->q;
	struct raio_query query;

	EXPECT_EQ(self->setup.sq_nr, q->sq_nr);
	EXPECT_EQ(self->setup.ring_nr, q->ring_nr);
	EXPECT_LE(EVENTS, q->sq_nr);
	EXPECT_EQ(RAIO_RING_MAGIC, q->ring->magic);
	EXPECT_EQ(q->ring_nr, q->ring->nr);
	ASSERT_EQ(0, raio_queue_query(NULL, &query));
	EXPECT_EQ(RAIO_ABI_VERSION, query.abi_version);
	EXPECT_NE(0, query.features & RAIO_FEAT_ENTER);
	EXPECT_EQ(-ENOTTY, raio_queue_query("/dev/null", &query));
	EXPECT_EQ(-ENOENT, raio_queue_query("/dev/no-raio", &query));
}

TEST_F(lib, not_opened)
{
	struct raio_setup setup = { .nr_events = 1, .flags = 1U << 31 };
	struct raio_queue q;

	EXPECT_EQ(-EINVAL, raio_queue_open(&q, NULL, &setup));
	raio_queue_close(&q);
	setup.flags = 0;
	EXPECT_EQ(-ENOENT, raio_queue_open(&q, "/dev/no-raio", &setup));
	raio_queue_close(&q);
	EXPECT_EQ(-ENOTTY, raio_queue_open(&q, "/dev/null", &setup));
	raio_queue_close(&q);
	EXPECT_EQ(0, raio_queue_open(&q, RAIO_DEV, &setup));
	raio_queue_close(&q);
}

/* One after another, each way, on one file. */
TEST_F(lib, each_operation)
{
	struct iovec iov[2] = {
		{ self->buf + 2 * PAGE, PAGE },
		{ self->buf, PAGE },
	};
	int pipes[2];

	pattern_fill(self->buf, 2 * PAGE, 0, 1);
	raio_prep_write(raio_queue_next(&self->q), 1, self->fd, self->buf, 2 * PAGE, 0);
	EXPECT_EQ(2 * PAGE, RESULT(1));
	raio_prep_fsync(raio_queue_next(&self->q), 2, self->fd);
	EXPECT_EQ(0, RESULT(2));
	raio_prep_fdsync(raio_queue_next(&self->q), 3, self->fd);
	EXPECT_EQ(0, RESULT(3));
	memset(self->buf, 0, 2 * PAGE);
	raio_prep_read(raio_queue_next(&self->q), 4, self->fd, self->buf, 2 * PAGE, 0);
	EXPECT_EQ(2 * PAGE, RESULT(4));
	EXPECT_EQ(-1, pattern_check(self->buf, 2 * PAGE, 0, 1));

	/* Writes the third page and the first, in this order, behind them. */
	pattern_fill(self->buf + 2 * PAGE, PAGE, 2 * PAGE, 2);
	pattern_fill(self->buf, PAGE, 3 * PAGE, 2);
	raio_prep_writev(raio_queue_next(&self->q), 5, self->fd, iov, 2, 2 * PAGE);
	EXPECT_EQ(2 * PAGE, RESULT(5));
	memset(self->buf, 0, 3 * PAGE);
	raio_prep_readv(raio_queue_next(&self->q), 6, self->fd, iov, 2, 2 * PAGE);
	EXPECT_EQ(2 * PAGE, RESULT(6));
	EXPECT_EQ(-1, pattern_check(self->buf + 2 * PAGE, PAGE, 2 * PAGE, 2));
	EXPECT_EQ(-1, pattern_check(self->buf, PAGE, 3 * PAGE, 2));
	EXPECT_EQ(-1, filled_check(self->buf + PAGE, PAGE, 0));

	raio_prep_noop(raio_queue_next(&self->q), 7);
	EXPECT_EQ(0, RESULT(7));
	ASSERT_EQ(0, pipe(pipes));
	raio_prep_poll(raio_queue_next(&self->q), 8, pipes[1], POLLOUT);
	EXPECT_EQ(POLLOUT, RESULT(8));
	close(pipes[0]);
	close(pipes[1]);
}

/* Nothing is left in an entry of what it was before. */
TEST_F(lib, prepared_anew)
{
	struct iocb *io = raio_queue_next(&self->q);

	ASSERT_NE(NULL, io);
	memset(io, 0xff, sizeof(*io));
	raio_prep_noop(io, 1);
	EXPECT_EQ(0, RESULT(1));
	io = raio_queue_next(&self->q);
	ASSERT_NE(NULL, io);
	memset(io, 0xff, sizeof(*io));
	raio_prep_read(io, 2, self->fd, self->buf, PAGE, 0);
	EXPECT_EQ(0, RESULT(2));
}

/* By numbers, buffer and file, both or one of them. */
TEST_F(lib, registered)
{
	struct raio_buffer buffers[2] = {
		{ (uintptr_t)self->buf, SIZE / 2 },
		{ (uintptr_t)self->buf + SIZE / 2, SIZE / 2 },
	};
	const int disk = testdev_open_direct("b0"), none = -1;
	struct raio_stats before;
	unsigned int i, write;

	ASSERT_EQ(2, raio_queue_buffers(&self->q, 2, 2, buffers));
	ASSERT_EQ(1, raio_queue_files(&self->q, 3, 1, &disk));
	EXPECT_EQ(-EINVAL, raio_queue_buffers(&self->q, NR_BUFFERS, 1, buffers));
	EXPECT_EQ(-EINVAL, raio_queue_files(&self->q, NR_FILES, 1, &disk));
	stats_now(_metadata, &before);
	for (write = 2; write--;) {
		if (write)
			pattern_fill(self->buf, SIZE, 0, 1);
		else
			memset(self->buf, 0, SIZE);
		for (i = 0; i < NR; i++) {
			struct iocb *io = raio_queue_next(&self->q);
			char *page = self->buf + i * PAGE;

			ASSERT_NE(NULL, io);
			if (write)
				raio_prep_write(io, i, 3, page, PAGE, i * PAGE);
			else
				raio_prep_read(io, i, 3, page, PAGE, i * PAGE);
			raio_set_fixed_file(io);
			raio_set_fixed_buffer(io, i < NR / 2 ? 2 : 3);
		}
		ASSERT_EQ(NR, raio_queue_submit_and_wait(&self->q, NR));
		ASSERT_EQ(NR, raio_queue_ready(&self->q));
		for (i = 0; i < NR; i++)
			EXPECT_EQ(PAGE, raio_queue_event(&self->q, i)->res);
		raio_queue_seen(&self->q, NR);
	}
	EXPECT_EQ(-1, pattern_check(self->buf, SIZE, 0, 1));
	EXPECT_MOVED(2 * NR, &before, direct);

	/* One of them. */
	raio_prep_read(raio_queue_next(&self->q), 1, disk, self->buf, PAGE, 0);
	raio_set_fixed_buffer(self->q.sq + self->q.first, 2);
	EXPECT_EQ(PAGE, RESULT(1));
	raio_prep_read(raio_queue_next(&self->q), 2, 3, self->buf, PAGE, 0);
	raio_set_fixed_file(self->q.sq + self->q.first);
	EXPECT_EQ(PAGE, RESULT(2));
	raio_prep_fsync(raio_queue_next(&self->q), 3, 3);
	raio_set_fixed_file(self->q.sq + self->q.first);
	EXPECT_EQ(0, RESULT(3));

	/* Removed, or in another buffer. */
	raio_prep_read(raio_queue_next(&self->q), 4, disk, self->buf, PAGE, 0);
	raio_set_fixed_buffer(self->q.sq + self->q.first, 3);
	EXPECT_EQ(-EFAULT, RESULT(4));
	ASSERT_EQ(1, raio_queue_files(&self->q, 3, 1, &none));
	raio_prep_read(raio_queue_next(&self->q), 5, 3, self->buf, PAGE, 0);
	raio_set_fixed_file(self->q.sq + self->q.first);
	EXPECT_EQ(-EBADF, RESULT(5));
	close(disk);
}

/* Array and ring go around several times, in steps that don't divide them. */
TEST_F(lib, goes_around)
{
	const unsigned int nr = 7, rounds = 5 * self->q.sq_nr / nr;
	unsigned int i, round;
	uint64_t data = 0;

	for (round = 0; round < rounds; round++) {
		for (i = 0; i < nr; i++) {
			struct iocb *io = raio_queue_next(&self->q);

			ASSERT_EQ(&self->q.sq[(data + i) % self->q.sq_nr], io);
			raio_prep_noop(io, data + i);
		}
		ASSERT_EQ(nr, raio_queue_submit(&self->q));
		ASSERT_EQ(0, raio_queue_submit(&self->q));
		ASSERT_EQ(nr, raio_queue_ready(&self->q));
		/* Some by a look, the others copied. */
		for (i = 0; i < 3; i++)
			EXPECT_LIB(data + i, 0, raio_queue_event(&self->q, i));
		raio_queue_seen(&self->q, 2);
		EXPECT_LIB(data + 2, 0, raio_queue_peek(&self->q));
		raio_queue_seen(&self->q, 1);
		for (; i < nr; i++) {
			struct io_event ev;

			ASSERT_EQ(1, raio_queue_reap(&self->q, &ev, 1));
			EXPECT_LIB(data + i, 0, &ev);
		}
		EXPECT_EQ(NULL, raio_queue_peek(&self->q));
		data += nr;
	}
	EXPECT_LT(self->q.ring_nr, data);
}

/* Data that is written and read back, a batch waiting while another is made. */
TEST_F(lib, both_ways)
{
	const unsigned int passes = 3 * self->q.sq_nr / NR + 1;
	unsigned int i, n, pass;
	struct io_event ev[NR];

	for (pass = 0; pass < passes; pass++) {
		pattern_fill(self->buf, SIZE, 0, pass);
		for (i = 0; i < NR; i++)
			raio_prep_write(raio_queue_next(&self->q), i, self->fd, self->buf + i * PAGE,
					PAGE, i * PAGE);
		ASSERT_EQ(NR, raio_queue_submit_and_wait(&self->q, NR));
		ASSERT_EQ(NR, raio_queue_reap(&self->q, ev, EVENTS));
		for (i = 0; i < NR; i++)
			EXPECT_EQ(PAGE, ev[i].res);
		memset(self->buf, 0, SIZE);
		for (i = 0; i < NR; i++)
			raio_prep_read(raio_queue_next(&self->q), i, self->fd, self->buf + i * PAGE,
				       PAGE, i * PAGE);
		ASSERT_EQ(NR, raio_queue_submit(&self->q));
		for (n = 0; n < NR; n += i) {
			ASSERT_LE(1, raio_queue_wait(&self->q, 1, NULL));
			i = raio_queue_reap(&self->q, ev, 3);
			ASSERT_LT(0, i);
		}
		EXPECT_EQ(-1, pattern_check(self->buf, SIZE, 0, pass));
	}
}

TEST_F(lib, array_is_full)
{
	unsigned int i;

	for (i = 0; i < self->q.sq_nr; i++) {
		struct iocb *io = raio_queue_next(&self->q);

		ASSERT_NE(NULL, io);
		raio_prep_noop(io, i);
	}
	EXPECT_EQ(NULL, raio_queue_next(&self->q));
	EXPECT_LT(0, raio_queue_submit(&self->q));
	EXPECT_NE(NULL, raio_queue_next(&self->q));
	/* That one was not prepared. */
	while (raio_queue_skip(&self->q))
		;
	EXPECT_EQ(NULL, raio_queue_skip(&self->q));
	raio_queue_seen(&self->q, raio_queue_ready(&self->q));
}

/* What doesn't fit into the ring stays queued until events are read. */
TEST_F(lib, ring_is_full)
{
	const unsigned int capacity = self->q.ring_nr - 1, want = 2 * capacity + 3;
	unsigned int made = 0, seen = 0;

	while (seen < want) {
		struct iocb *io;
		int ret;

		while (made < want && (io = raio_queue_next(&self->q)))
			raio_prep_noop(io, made++);
		ret = raio_queue_submit(&self->q);
		ASSERT_LE(0, ret);
		if (!self->q.queued && made < want && raio_queue_ready(&self->q) < capacity)
			continue;
		if (self->q.queued) {
			EXPECT_EQ(capacity, raio_queue_ready(&self->q));
			EXPECT_EQ(-EAGAIN, raio_queue_submit(&self->q));
			/* It can't hold more. */
			EXPECT_EQ(capacity, raio_queue_wait(&self->q, capacity + 1, NULL));
		}
		for (; raio_queue_ready(&self->q); seen++) {
			EXPECT_LIB(seen, 0, raio_queue_peek(&self->q));
			raio_queue_seen(&self->q, 1);
		}
	}
	EXPECT_EQ(want, made);
}

/* The others wait for somebody who leaves it out. */
TEST_F(lib, refused)
{
	unsigned int i;

	for (i = 0; i < 4; i++)
		raio_prep_noop(raio_queue_next(&self->q), i);
	raio_prep_read(&self->q.sq[1], 1, -1, self->buf, PAGE, 0);
	self->q.sq[2].aio_flags = 1U << 29;
	EXPECT_EQ(1, raio_queue_submit_and_wait(&self->q, 4));
	EXPECT_EQ(-EBADF, raio_queue_submit(&self->q));
	EXPECT_EQ(-EBADF, raio_queue_submit_and_wait(&self->q, 1));
	EXPECT_EQ(&self->q.sq[1], raio_queue_skip(&self->q));
	EXPECT_EQ(-EINVAL, raio_queue_submit(&self->q));
	EXPECT_EQ(&self->q.sq[2], raio_queue_skip(&self->q));
	EXPECT_EQ(1, raio_queue_submit(&self->q));
	EXPECT_EQ(NULL, raio_queue_skip(&self->q));
	ASSERT_EQ(2, raio_queue_ready(&self->q));
	EXPECT_LIB(0, 0, raio_queue_event(&self->q, 0));
	EXPECT_LIB(3, 0, raio_queue_event(&self->q, 1));
	raio_queue_seen(&self->q, 2);
}

TEST_F(lib, timeout)
{
	struct __kernel_timespec ts = { .tv_nsec = 10 * MS };
	long long start = now_ns();

	EXPECT_EQ(0, raio_queue_wait(&self->q, 1, &ts));
	EXPECT_LE(10 * MS, now_ns() - start);
	raio_prep_noop(raio_queue_next(&self->q), 1);
	start = now_ns();
	EXPECT_EQ(1, raio_queue_enter(&self->q, 2, &ts));
	EXPECT_LE(10 * MS, now_ns() - start);
	EXPECT_EQ(1, raio_queue_wait(&self->q, 2, &ts));
	/* There is one. */
	EXPECT_EQ(1, raio_queue_wait(&self->q, 1, NULL));
	raio_queue_seen(&self->q, 1);
}

TEST_F(lib, cancelled)
{
	const int held = testdev_hang(self->buf, SIZE, 1);
	struct io_event ev[NR];
	unsigned int i;

	memset(self->buf, 0, SIZE);
	for (i = 0; i < NR; i++) {
		testdev_cmd("c0 cancel %s", i == 3 ? "yes" : "no");
		raio_prep_read(raio_queue_next(&self->q), 100 + i, held, self->buf + i * PAGE, PAGE,
			       i * PAGE);
		ASSERT_EQ(1, raio_queue_submit(&self->q));
	}
	EXPECT_EQ(-EINVAL, raio_queue_cancel(&self->q, 99));
	EXPECT_EQ(0, raio_queue_cancel(&self->q, 103));
	EXPECT_EQ(1, raio_queue_wait(&self->q, 1, NULL));
	EXPECT_LIB(103, -ECANCELED, raio_queue_peek(&self->q));
	raio_queue_seen(&self->q, 1);
	EXPECT_EQ(-EINVAL, raio_queue_cancel(&self->q, 103));
	EXPECT_EQ(-EAGAIN, raio_queue_cancel(&self->q, 104));
	testdev_cmd("c0 complete all");
	ASSERT_EQ(NR - 1, raio_queue_wait(&self->q, NR - 1, NULL));
	ASSERT_EQ(NR - 1, raio_queue_reap(&self->q, ev, NR));
	for (i = 0; i < NR - 1; i++)
		EXPECT_EQ(PAGE, ev[i].res);
	EXPECT_EQ(-1, pattern_check(self->buf, 3 * PAGE, 0, 1));
	EXPECT_EQ(-1, filled_check(self->buf + 3 * PAGE, PAGE, 0));
	EXPECT_EQ(-1, pattern_check(self->buf + 4 * PAGE, SIZE - 4 * PAGE, 4 * PAGE, 1));
	close(held);
}

/* Closing ends what is in flight. */
TEST_F(lib, closed_in_flight)
{
	const int held = testdev_hang(self->buf, PAGE, 1);
	struct raio_setup setup = { .nr_events = 1 };
	struct raio_queue q;

	testdev_cmd("c0 cancel yes");
	ASSERT_EQ(0, raio_queue_open(&q, NULL, &setup));
	raio_prep_read(raio_queue_next(&q), 1, held, self->buf, PAGE, 0);
	ASSERT_EQ(1, raio_queue_submit(&q));
	raio_queue_close(&q);
	EXPECT_EQ(0, testdev_stat("c0", "held"));
	close(held);
}

TEST_HARNESS_MAIN
