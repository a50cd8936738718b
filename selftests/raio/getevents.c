// SPDX-License-Identifier: GPL-2.0
/*
 * Reading events: the errors of io_getevents(2), how long it waits, and that
 * each event comes once, in order and unchanged, whoever reads it.
 */
#include <sys/param.h>

#include "raio_wait.h"

#define TIMEOUT_NS	(30 * MS)

FIXTURE(getevents)
{
	struct fed fed;
};

FIXTURE_VARIANT(getevents)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(getevents, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(getevents, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(getevents)
{
	fed_begin(_metadata, &self->fed, variant->ops);
}

FIXTURE_TEARDOWN(getevents)
{
	fed_end(_metadata, &self->fed);
}

/* The arguments. */

TEST_F(getevents, bad_ctx)
{
	aio_context_t ctx = self->fed.aio.ctx;
	struct __kernel_timespec zero = { };
	struct io_event ev;

	self->fed.aio.ctx = 0;
	EXPECT_EQ(-EINVAL, aio_getevents(&self->fed.aio, 0, 1, &ev, &zero));
	EXPECT_EQ(-EINVAL, aio_getevents(&self->fed.aio, 1, 1, &ev, NULL));
	EXPECT_EQ(-EINVAL, aio_getevents(&self->fed.aio, 0, 0, NULL, NULL));
	self->fed.aio.ctx = ctx;
}

TEST_F(getevents, bad_numbers)
{
	const long numbers[][2] = {
		{ 2, 1 }, { 1, 0 }, { -1, 1 }, { -1, -1 }, { 0, -1 }, { LONG_MIN, 0 },
		{ 0, LONG_MIN }, { LONG_MAX, 1 }, { LONG_MIN, LONG_MAX }, { -2, -1 },
	};
	struct __kernel_timespec zero = { };
	struct iocb io;
	struct io_event ev;
	unsigned int i;

	/* With an event there as well as without. */
	for (i = 0; i < 2 * ARRAY_SIZE(numbers); i++) {
		const long *n = numbers[i % ARRAY_SIZE(numbers)];

		if (i == ARRAY_SIZE(numbers))
			post(_metadata, &self->fed, &io, 1, 5);
		EXPECT_EQ(-EINVAL, aio_getevents(&self->fed.aio, n[0], n[1], &ev, &zero)) {
			TH_LOG("min_nr %ld, nr %ld", n[0], n[1]);
		}
		EXPECT_EQ(-EINVAL, aio_getevents(&self->fed.aio, n[0], n[1], &ev, NULL));
	}
	EXPECT_EQ(1, aio_poll(&self->fed.aio, 1, &ev));
	expect_posted(_metadata, &ev, &io, 1, 5);
}

TEST_F(getevents, nr_zero)
{
	struct io_event ev;
	struct iocb io;

	/* Nothing to wait for, with no timeout. */
	EXPECT_EQ(0, aio_getevents(&self->fed.aio, 0, 0, &ev, NULL));
	EXPECT_EQ(0, aio_getevents(&self->fed.aio, 0, 0, NULL, NULL));
	post(_metadata, &self->fed, &io, 1, 1);
	EXPECT_EQ(0, aio_getevents(&self->fed.aio, 0, 0, NULL, NULL));
	EXPECT_EQ(1, aio_poll(&self->fed.aio, 1, &ev));
}

TEST_F(getevents, min_nr_zero_does_not_wait)
{
	struct io_event ev;

	EXPECT_EQ(0, aio_getevents(&self->fed.aio, 0, 1, &ev, NULL));
	EXPECT_EQ(0, aio_getevents(&self->fed.aio, 0, LONG_MAX, &ev, NULL));
}

TEST_F(getevents, bad_timeout)
{
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	post(_metadata, &self->fed, &io, 1, 7);
	/* No address is a timeout without end. */
	for (i = 1; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(-EFAULT, aio_getevents(&self->fed.aio, 1, 1, &ev, bad_ptr(i))) {
			TH_LOG("timeout at %p", bad_ptr(i));
		}
		/* It comes before everything else. */
		EXPECT_EQ(-EFAULT, aio_getevents(&self->fed.aio, 2, 1, &ev, bad_ptr(i)));
		EXPECT_EQ(-EFAULT, aio_getevents(&self->fed.aio, 0, 0, NULL, bad_ptr(i)));
		EXPECT_EQ(-EFAULT, variant->ops->getevents(self->fed.aio.dev, 0, 0, 1, &ev,
							    bad_ptr(i)));
	}
	EXPECT_EQ(-EFAULT, aio_getevents(&self->fed.aio, 1, 1, &ev, map_before_hole(8)));
	EXPECT_EQ(1, aio_poll(&self->fed.aio, 1, &ev));
	expect_posted(_metadata, &ev, &io, 1, 7);
}

TEST_F(getevents, read_only_timeout)
{
	struct __kernel_timespec zero = { };
	struct io_event ev;

	EXPECT_EQ(0, aio_getevents(&self->fed.aio, 1, 1, &ev, map_read_only(&zero, sizeof(zero))));
}

TEST_F(getevents, bad_events)
{
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	/* With nothing to write the address is not used. */
	for (i = 0; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(0, aio_poll(&self->fed.aio, 1, bad_ptr(i))) {
			TH_LOG("events at %p", bad_ptr(i));
		}
	}
	/* An event that can't be written stays where it is. */
	post(_metadata, &self->fed, &io, 1, 9);
	for (i = 0; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(-EFAULT, aio_poll(&self->fed.aio, 1, bad_ptr(i))) {
			TH_LOG("events at %p", bad_ptr(i));
		}
		EXPECT_EQ(-EFAULT, aio_getevents(&self->fed.aio, 1, 1, bad_ptr(i), NULL));
	}
	EXPECT_EQ(-EFAULT, aio_poll(&self->fed.aio, 1, map_read_only(&ev, sizeof(ev))));
	EXPECT_EQ(-EFAULT, aio_poll(&self->fed.aio, 1, map_before_hole(sizeof(ev) / 2)));
	ASSERT_EQ(1, aio_poll(&self->fed.aio, 1, &ev));
	expect_posted(_metadata, &ev, &io, 1, 9);
}

/* All or none of them: no event is lost when only some could be written. */
TEST_F(getevents, events_over_the_end)
{
	struct io_event *ev = map_before_hole(2 * sizeof(*ev));
	struct io_event all[4];
	struct iocb io[4];

	post(_metadata, &self->fed, io, 4, 20);
	EXPECT_EQ(-EFAULT, aio_poll(&self->fed.aio, 3, ev));
	EXPECT_EQ(-EFAULT, aio_poll(&self->fed.aio, LONG_MAX, ev));
	EXPECT_EQ(4, aio_poll(&self->fed.aio, 4, all));
	expect_posted(_metadata, all, io, 4, 20);

	/* As many as there are may be fewer than were asked for. */
	post(_metadata, &self->fed, io, 2, 30);
	EXPECT_EQ(2, aio_poll(&self->fed.aio, LONG_MAX, ev));
	expect_posted(_metadata, ev, io, 2, 30);
}

/* The same where the ring wraps, and so writes twice. */
TEST_F(getevents, events_over_the_end_at_the_wrap)
{
	const unsigned int nr = aio_ring(self->fed.aio.ctx)->nr;
	struct io_event *ev = map_before_hole(2 * sizeof(*ev));
	struct io_event all[4];
	struct iocb io[4];
	unsigned int i;

	for (i = 0; i < nr - 2; i++) {
		post(_metadata, &self->fed, io, 1, i);
		ASSERT_EQ(1, aio_poll(&self->fed.aio, 1, all));
	}
	ASSERT_EQ(nr - 2, aio_ring(self->fed.aio.ctx)->head);
	post(_metadata, &self->fed, io, 4, 40);
	EXPECT_EQ(-EFAULT, aio_poll(&self->fed.aio, 4, ev));
	EXPECT_EQ(4, aio_poll(&self->fed.aio, 4, all));
	expect_posted(_metadata, all, io, 4, 40);
}

/* How long it waits. */

TEST_F(getevents, timeout_zero)
{
	struct __kernel_timespec zero = { };
	struct io_event ev[2];
	struct iocb io;

	EXPECT_EQ(0, aio_getevents(&self->fed.aio, 1, 1, ev, &zero));
	/* What there is, if it is less than what was asked for. */
	post(_metadata, &self->fed, &io, 1, 3);
	EXPECT_EQ(1, aio_getevents(&self->fed.aio, 2, 2, ev, &zero));
	expect_posted(_metadata, ev, &io, 1, 3);
}

TEST_F(getevents, timeout_not_shorter)
{
	struct __kernel_timespec timeout = { .tv_nsec = TIMEOUT_NS };
	struct io_event ev[2];
	long long begin;
	struct iocb io;
	int i;

	for (i = 0; i < 5; i++) {
		begin = now_ns();
		EXPECT_EQ(0, aio_getevents(&self->fed.aio, 1, 1, ev, &timeout));
		EXPECT_LE(TIMEOUT_NS, now_ns() - begin);
		EXPECT_EQ(TIMEOUT_NS, timeout.tv_nsec);
	}
	/* One of two: it waits for the other, and then gives the one. */
	post(_metadata, &self->fed, &io, 1, 4);
	begin = now_ns();
	EXPECT_EQ(1, aio_getevents(&self->fed.aio, 2, 2, ev, &timeout));
	EXPECT_LE(TIMEOUT_NS, now_ns() - begin);
	expect_posted(_metadata, ev, &io, 1, 4);
}

/* For a 32-bit program the upper half of tv_nsec is padding. */
static long long timespec_ns(const struct __kernel_timespec *ts)
{
	long long nsec = __BITS_PER_LONG == 32 ? (__u32)ts->tv_nsec : ts->tv_nsec;

	return ts->tv_sec * 1000000000LL + nsec;
}

/* To the nanosecond, and never too early. A timespec need not be normal, just positive. */
TEST_F(getevents, timeout_not_shorter_by_a_nanosecond)
{
	struct __kernel_timespec odd[] = {
		{ .tv_sec = -1, .tv_nsec = 1000000000 + TIMEOUT_NS },
		{ .tv_sec = 1, .tv_nsec = TIMEOUT_NS - 1000000000 },
		{ .tv_sec = -3, .tv_nsec = 3000000001 },
		{ .tv_nsec = 1 }, { .tv_nsec = 2 }, { .tv_nsec = 999 }, { .tv_nsec = 1001 },
	};
	uint64_t state = 1;
	unsigned int i;

	for (i = 0; i < 100; i++) {
		struct __kernel_timespec random = { .tv_nsec = next_random(&state) % (2 * MS) };
		struct __kernel_timespec *timeout = i < ARRAY_SIZE(odd) ? &odd[i] : &random;
		long long ns = timespec_ns(timeout);
		long long begin = now_ns();
		struct io_event ev;

		ASSERT_EQ(0, aio_getevents(&self->fed.aio, 1, 1, &ev, timeout));
		EXPECT_LE(ns, now_ns() - begin) {
			TH_LOG("%lld s and %lld ns", timeout->tv_sec, timeout->tv_nsec);
		}
		/* Nor so late that it was taken for something else. */
		EXPECT_GT(ns + 1000000000, now_ns() - begin);
	}
}

TEST_F(getevents, timeout_unused)
{
	struct __kernel_timespec timeout[] = {
		{ .tv_sec = 1000 }, { .tv_sec = LLONG_MAX }, { .tv_sec = LLONG_MAX,
		.tv_nsec = 999999999 }, { .tv_sec = -1 }, { .tv_nsec = -1 },
		{ .tv_sec = LLONG_MIN }, { .tv_nsec = LLONG_MAX },
	};
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(timeout); i++) {
		post(_metadata, &self->fed, &io, 1, i);
		EXPECT_EQ(1, aio_getevents(&self->fed.aio, 1, 1, &ev, &timeout[i])) {
			TH_LOG("timeout %lld.%lld", timeout[i].tv_sec, timeout[i].tv_nsec);
		}
		expect_posted(_metadata, &ev, &io, 1, i);
	}
}

/*
 * A time before now is not one that is over: the sum of it and of now
 * overflows to the end of time, and the wait has none.
 */
TEST_F(getevents, timeout_negative)
{
	struct __kernel_timespec timeout[] = {
		{ .tv_sec = -1 }, { .tv_nsec = -1 }, { .tv_sec = -1000, .tv_nsec = 999999999 },
	};
	unsigned int i;
	struct iocb io;

	for (i = 0; i < ARRAY_SIZE(timeout); i++) {
		struct sleeper s = {
			.aio = &self->fed.aio, .min_nr = 1, .nr = 1, .timeout = &timeout[i],
		};

		sleeper_start(_metadata, &s);
		post(_metadata, &self->fed, &io, 1, i);
		sleeper_end(_metadata, &s, 1);
	}
}

/* Around the ring. */

#define LAPS	4

TEST_F(getevents, many_laps)
{
	const unsigned int nr = aio_ring(self->fed.aio.ctx)->nr;
	unsigned int posted = 0, n;
	struct io_event ev[EVENTS];
	struct iocb io[EVENTS];
	uint64_t state = 3;

	while (posted < LAPS * nr) {
		n = 1 + next_random(&state) % EVENTS;
		post(_metadata, &self->fed, io, n, posted);
		ASSERT_EQ(n, aio_wait(&self->fed.aio, n, ev));
		expect_posted(_metadata, ev, io, n, posted);
		posted += n;
		ASSERT_EQ(posted % nr, aio_ring(self->fed.aio.ctx)->head);
		ASSERT_EQ(posted % nr, aio_ring(self->fed.aio.ctx)->tail);
	}
}

/*
 * Only the program reads the ring, for long: all that the kernel ever learns of
 * free slots it learns from head.
 */
static unsigned long lap_events(void)
{
	return long_run(50) * 100000UL;
}

static struct iocb lap_io[EVENTS];

/* Posts up to @nr events, which are numbered, and returns how many. */
static long lap_post(struct fed *fed, unsigned int nr, unsigned long first)
{
	struct iocb *iop[EVENTS];
	unsigned int i;

	for (i = 0; i < nr; i++) {
		iop[i] = &lap_io[i];
		lap_io[i].aio_nbytes = (first + i) % 8;
		lap_io[i].aio_data = first + i;
	}
	return aio_submit(&fed->aio, nr, iop);
}

/* Reads up to @nr events. Returns how many, or -1 if one isn't the next. */
static long lap_reap(struct fed *fed, unsigned int nr, unsigned long first)
{
	struct io_event ev[EVENTS];
	unsigned int i, n = ring_reap(fed->aio.ctx, nr, ev);

	for (i = 0; i < n; i++) {
		if (ev[i].data != first + i || ev[i].res != (long long)((first + i) % 8) ||
		    ev[i].res2)
			return -1;
	}
	return n;
}

static void lap_begin(struct fed *fed)
{
	unsigned int i;

	for (i = 0; i < EVENTS; i++)
		iocb_prep(&lap_io[i], IOCB_CMD_PREAD, fed->zero, fed->buf, 0, 0);
}

/*
 * Now and then it is filled and emptied. What is taken is then known exactly
 * for raio. Kernel AIO gives slots out in batches, and takes some at least.
 */
TEST_F_TIMEOUT(getevents, many_laps_by_the_program, 1200)
{
	const unsigned int capacity = aio_ring(self->fed.aio.ctx)->nr - 1;
	unsigned long posted = 0, reaped = 0, full = 0, total = lap_events();
	uint64_t state = 4;
	long ret;

	lap_begin(&self->fed);
	while (reaped < total) {
		unsigned int step = next_random(&state) % 8;
		unsigned int n = 1 + next_random(&state) % EVENTS;
		unsigned int room;

		do {
			room = capacity - (posted - reaped);
			ret = lap_post(&self->fed, n, posted);
			if (variant->ops->is_raio) {
				ASSERT_EQ(room ? (long)MIN(room, n) : -EAGAIN, ret) {
					TH_LOG("after %lu, %u slots are free", posted, room);
				}
			} else {
				ASSERT_TRUE(ret > 0 || (ret == -EAGAIN && posted > reaped)) {
					TH_LOG("%ld after %lu", ret, posted);
				}
			}
			posted += ret > 0 ? ret : 0;
			full += ret < 0;
		} while (step == 0 && ret > 0);
		do {
			ret = lap_reap(&self->fed, n, reaped);
			ASSERT_EQ(MIN(n, posted - reaped), ret) {
				TH_LOG("after %lu", reaped);
			}
			reaped += ret;
		} while (step == 1 && ret > 0);
	}
	/* It was filled often, not only once. */
	EXPECT_LT(total / EVENTS / 100, full);
	while (reaped < posted) {
		ret = lap_reap(&self->fed, EVENTS, reaped);
		ASSERT_LT(0, ret);
		reaped += ret;
	}
}

struct lap_poster {
	struct fed *fed;
	unsigned long total;
	long err;
};

static void *lap_poster_thread(void *data)
{
	struct lap_poster *p = data;
	unsigned long posted = 0;
	uint64_t state = 6;

	pin_to_cpu(0);
	while (posted < p->total) {
		unsigned long n = 1 + next_random(&state) % EVENTS;
		long ret = lap_post(p->fed, MIN(n, p->total - posted), posted);

		if (ret < 0 && ret != -EAGAIN) {
			p->err = ret;
			break;
		}
		if (ret < 0)
			sched_yield();
		else
			posted += ret;
	}
	return NULL;
}

/* The same from another processor, as fast as both can. */
TEST_F_TIMEOUT(getevents, many_laps_beside_the_kernel, 1200)
{
	const unsigned int capacity = aio_ring(self->fed.aio.ctx)->nr - 1;
	struct lap_poster p = { .fed = &self->fed, .total = lap_events() };
	long long last = now_ns();
	unsigned long reaped = 0;
	pthread_t thread;
	long ret;

	lap_begin(&self->fed);
	ASSERT_EQ(0, pthread_create(&thread, NULL, lap_poster_thread, &p));
	pin_to_cpu(1);
	while (reaped < p.total) {
		ret = lap_reap(&self->fed, EVENTS, reaped);
		ASSERT_LE(0, ret) {
			TH_LOG("after %lu", reaped);
		}
		reaped += ret;
		if (ret) {
			last = now_ns();
		} else {
			ASSERT_GT(last + WAIT_SECONDS * 1000 * MS, now_ns()) {
				TH_LOG("nothing after %lu", reaped);
			}
			sched_yield();
		}
	}
	pthread_join(thread, NULL);
	EXPECT_EQ(0, p.err);

	/* No slot is lost, and none is there twice. */
	if (variant->ops->is_raio) {
		for (; (ret = lap_post(&self->fed, EVENTS, p.total)) > 0; p.total += ret)
			;
		EXPECT_EQ(-EAGAIN, ret);
		EXPECT_EQ(capacity, p.total - reaped);
		while (reaped < p.total) {
			ret = lap_reap(&self->fed, EVENTS, reaped);
			ASSERT_LT(0, ret);
			reaped += ret;
		}
	}
}

/* Both, with some left over each time. */
TEST_F(getevents, many_laps_mixed)
{
	const unsigned int nr = aio_ring(self->fed.aio.ctx)->nr;
	unsigned int posted = 0, reaped = 0, i, n;
	struct io_event ev[EVENTS];
	struct iocb io[EVENTS];
	uint64_t state = 5;

	while (reaped < LAPS * nr) {
		n = EVENTS - (posted - reaped);
		n = n ? next_random(&state) % (n + 1) : 0;
		/* Slot i of io[] holds request i of all modulo its size. */
		for (i = 0; i < n; i++, posted++)
			post(_metadata, &self->fed, &io[posted % EVENTS], 1,
			     posted);
		n = posted - reaped ? 1 + next_random(&state) % (posted - reaped) : 0;
		if (next_random(&state) & 1) {
			ASSERT_EQ(n, aio_poll(&self->fed.aio, n, ev)) {
				TH_LOG("after %u", reaped);
			}
		} else {
			ASSERT_EQ(n, ring_reap(self->fed.aio.ctx, n, ev)) {
				TH_LOG("after %u", reaped);
			}
		}
		for (i = 0; i < n; i++, reaped++)
			expect_posted(_metadata, &ev[i], &io[reaped % EVENTS], 1, reaped);
	}
	while (reaped < posted) {
		ASSERT_EQ(1, aio_poll(&self->fed.aio, 1, ev));
		expect_posted(_metadata, ev, &io[reaped % EVENTS], 1, reaped);
		reaped++;
	}
}

/* A ring of the smallest size, too. */
TEST_F(getevents, many_laps_of_a_small_ring)
{
	struct fed small = self->fed;
	struct io_event ev;
	unsigned int i;
	struct iocb io;

	small.aio.ctx = 0;
	ASSERT_EQ(0, aio_setup(&small.aio, 1, &small.aio.ctx));
	for (i = 0; i < 600; i++) {
		post(_metadata, &small, &io, 1, i);
		if (i % 2) {
			ASSERT_EQ(1, aio_poll(&small.aio, 1, &ev)) {
				TH_LOG("event %u", i);
			}
		} else {
			ASSERT_EQ(1, ring_reap(small.aio.ctx, 1, &ev)) {
				TH_LOG("event %u", i);
			}
		}
		expect_posted(_metadata, &ev, &io, 1, i);
	}
	EXPECT_EQ(0, aio_destroy(&small.aio, small.aio.ctx));
}

/*
 * The head is the program's own. Whatever it holds, no call does more than
 * return an error or events that once were in this ring: never other memory.
 */
TEST_F(getevents, scribbled_header)
{
	struct raio_ring *ring = aio_ring(self->fed.aio.ctx);
	const unsigned int nr = ring->nr;
	const unsigned int values[] = {
		1, nr - 1, nr, nr + 1, 2 * nr, INT_MAX, 1U << 31, UINT_MAX, UINT_MAX / 32,
	};
	struct io_event ev[EVENTS];
	struct iocb io[4];
	unsigned int i, j;
	long ret;

	post(_metadata, &self->fed, io, 4, 0);
	ASSERT_EQ(4, aio_poll(&self->fed.aio, 4, ev));
	for (i = 0; i < 4 * ARRAY_SIZE(values); i++) {
		unsigned int val = values[i % ARRAY_SIZE(values)];
		unsigned int tail = ring->tail;

		ring->head = val;
		if (i >= ARRAY_SIZE(values))
			ring->nr = values[(i + 3) % ARRAY_SIZE(values)];
		if (i >= 2 * ARRAY_SIZE(values))
			ring->tail = values[(i + 5) % ARRAY_SIZE(values)];
		if (i >= 3 * ARRAY_SIZE(values)) {
			ring->magic = val;
			ring->header_length = val;
		}
		for (j = 0; j < 8; j++) {
			long k;

			memset(ev, 0xff, sizeof(ev));
			ret = aio_poll(&self->fed.aio, EVENTS, ev);
			if (ret < 0) {
				EXPECT_EQ(-EINVAL, ret);
				break;
			}
			ASSERT_GE(EVENTS, ret);
			for (k = 0; k < ret; k++) {
				/* Empty slots are zero, the others hold one of four. */
				EXPECT_TRUE(!ev[k].obj ||
					    (ev[k].obj >= (uintptr_t)&io[0] &&
					     ev[k].obj <= (uintptr_t)&io[3])) {
					TH_LOG("an event for %#llx", ev[k].obj);
				}
				EXPECT_GE(4, ev[k].res);
			}
		}
		/* It can be submitted to or it can not, */
		iocb_prep(&io[0], IOCB_CMD_PREAD, self->fed.zero, self->fed.buf, 1, 0);
		ret = aio_submit_one(&self->fed.aio, &io[0]);
		EXPECT_TRUE(ret == 1 || ret == -EAGAIN || ret == -EINVAL) {
			TH_LOG("submit returned %ld", ret);
		}
		if (i >= 2 * ARRAY_SIZE(values))
			ring->tail = tail;
	}
	/* and destroyed in any case. */
	EXPECT_EQ(0, aio_destroy(&self->fed.aio, self->fed.aio.ctx));
	self->fed.aio.ctx = 0;
}

TEST_HARNESS_MAIN
