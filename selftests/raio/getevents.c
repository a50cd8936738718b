// SPDX-License-Identifier: GPL-2.0
/*
 * Reading events: the errors of io_getevents(2), how long it waits and for
 * what, what wakes it, and that each event comes once, in order and unchanged,
 * whoever reads it.
 */
#include "raio_post.h"
#include "raio_testdev.h"

#define EVENTS		POST_MAX
#define DELAY_MS	50
#define TIMEOUT_NS	30000000LL

FIXTURE(getevents)
{
	struct aio aio;
	int zero;
	char *buf;
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
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
	self->zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->zero);
	self->buf = map_pages(PAGE);
}

FIXTURE_TEARDOWN(getevents)
{
	aio_end(_metadata, &self->aio);
	close(self->zero);
}

/* The arguments. */

TEST_F(getevents, bad_ctx)
{
	aio_context_t ctx = self->aio.ctx;
	struct __kernel_timespec zero = { };
	struct io_event ev;

	self->aio.ctx = 0;
	EXPECT_EQ(-EINVAL, aio_getevents(&self->aio, 0, 1, &ev, &zero));
	EXPECT_EQ(-EINVAL, aio_getevents(&self->aio, 1, 1, &ev, NULL));
	EXPECT_EQ(-EINVAL, aio_getevents(&self->aio, 0, 0, NULL, NULL));
	self->aio.ctx = ctx;
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
			post(_metadata, &self->aio, self->zero, self->buf, &io, 1, 5);
		EXPECT_EQ(-EINVAL, aio_getevents(&self->aio, n[0], n[1], &ev, &zero)) {
			TH_LOG("min_nr %ld, nr %ld", n[0], n[1]);
		}
		EXPECT_EQ(-EINVAL, aio_getevents(&self->aio, n[0], n[1], &ev, NULL));
	}
	EXPECT_EQ(1, aio_poll(&self->aio, 1, &ev));
	expect_posted(_metadata, &ev, &io, 1, 5);
}

TEST_F(getevents, nr_zero)
{
	struct io_event ev;
	struct iocb io;

	/* Nothing to wait for, with no timeout. */
	EXPECT_EQ(0, aio_getevents(&self->aio, 0, 0, &ev, NULL));
	EXPECT_EQ(0, aio_getevents(&self->aio, 0, 0, NULL, NULL));
	post(_metadata, &self->aio, self->zero, self->buf, &io, 1, 1);
	EXPECT_EQ(0, aio_getevents(&self->aio, 0, 0, NULL, NULL));
	EXPECT_EQ(1, aio_poll(&self->aio, 1, &ev));
}

TEST_F(getevents, min_nr_zero_does_not_wait)
{
	struct io_event ev;

	EXPECT_EQ(0, aio_getevents(&self->aio, 0, 1, &ev, NULL));
	EXPECT_EQ(0, aio_getevents(&self->aio, 0, LONG_MAX, &ev, NULL));
}

TEST_F(getevents, bad_timeout)
{
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	post(_metadata, &self->aio, self->zero, self->buf, &io, 1, 7);
	/* No address is a timeout without end. */
	for (i = 1; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(-EFAULT, aio_getevents(&self->aio, 1, 1, &ev, bad_ptr(i))) {
			TH_LOG("timeout at %p", bad_ptr(i));
		}
		/* It comes before everything else. */
		EXPECT_EQ(-EFAULT, aio_getevents(&self->aio, 2, 1, &ev, bad_ptr(i)));
		EXPECT_EQ(-EFAULT, aio_getevents(&self->aio, 0, 0, NULL, bad_ptr(i)));
		EXPECT_EQ(-EFAULT, variant->ops->getevents(self->aio.dev, 0, 0, 1, &ev,
							    bad_ptr(i)));
	}
	EXPECT_EQ(-EFAULT, aio_getevents(&self->aio, 1, 1, &ev, map_before_hole(8)));
	EXPECT_EQ(1, aio_poll(&self->aio, 1, &ev));
	expect_posted(_metadata, &ev, &io, 1, 7);
}

TEST_F(getevents, read_only_timeout)
{
	struct __kernel_timespec zero = { };
	struct io_event ev;

	EXPECT_EQ(0, aio_getevents(&self->aio, 1, 1, &ev, map_read_only(&zero, sizeof(zero))));
}

TEST_F(getevents, bad_events)
{
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	/* With nothing to write the address is not used. */
	for (i = 0; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(0, aio_poll(&self->aio, 1, bad_ptr(i))) {
			TH_LOG("events at %p", bad_ptr(i));
		}
	}
	/* An event that can't be written stays where it is. */
	post(_metadata, &self->aio, self->zero, self->buf, &io, 1, 9);
	for (i = 0; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(-EFAULT, aio_poll(&self->aio, 1, bad_ptr(i))) {
			TH_LOG("events at %p", bad_ptr(i));
		}
		EXPECT_EQ(-EFAULT, aio_getevents(&self->aio, 1, 1, bad_ptr(i), NULL));
	}
	EXPECT_EQ(-EFAULT, aio_poll(&self->aio, 1, map_read_only(&ev, sizeof(ev))));
	EXPECT_EQ(-EFAULT, aio_poll(&self->aio, 1, map_before_hole(sizeof(ev) / 2)));
	ASSERT_EQ(1, aio_poll(&self->aio, 1, &ev));
	expect_posted(_metadata, &ev, &io, 1, 9);
}

/* All or none of them: no event is lost when only some could be written. */
TEST_F(getevents, events_over_the_end)
{
	struct io_event *ev = map_before_hole(2 * sizeof(*ev));
	struct io_event all[4];
	struct iocb io[4];

	post(_metadata, &self->aio, self->zero, self->buf, io, 4, 20);
	EXPECT_EQ(-EFAULT, aio_poll(&self->aio, 3, ev));
	EXPECT_EQ(-EFAULT, aio_poll(&self->aio, LONG_MAX, ev));
	EXPECT_EQ(4, aio_poll(&self->aio, 4, all));
	expect_posted(_metadata, all, io, 4, 20);

	/* As many as there are may be fewer than were asked for. */
	post(_metadata, &self->aio, self->zero, self->buf, io, 2, 30);
	EXPECT_EQ(2, aio_poll(&self->aio, LONG_MAX, ev));
	expect_posted(_metadata, ev, io, 2, 30);
}

/* The same where the ring wraps, and so writes twice. */
TEST_F(getevents, events_over_the_end_at_the_wrap)
{
	const unsigned int nr = aio_ring(self->aio.ctx)->nr;
	struct io_event *ev = map_before_hole(2 * sizeof(*ev));
	struct io_event all[4];
	struct iocb io[4];
	unsigned int i;

	for (i = 0; i < nr - 2; i++) {
		post(_metadata, &self->aio, self->zero, self->buf, io, 1, i);
		ASSERT_EQ(1, aio_poll(&self->aio, 1, all));
	}
	ASSERT_EQ(nr - 2, aio_ring(self->aio.ctx)->head);
	post(_metadata, &self->aio, self->zero, self->buf, io, 4, 40);
	EXPECT_EQ(-EFAULT, aio_poll(&self->aio, 4, ev));
	EXPECT_EQ(4, aio_poll(&self->aio, 4, all));
	expect_posted(_metadata, all, io, 4, 40);
}

/* How long it waits. */

TEST_F(getevents, timeout_zero)
{
	struct __kernel_timespec zero = { };
	struct io_event ev[2];
	struct iocb io;

	EXPECT_EQ(0, aio_getevents(&self->aio, 1, 1, ev, &zero));
	/* What there is, if it is less than what was asked for. */
	post(_metadata, &self->aio, self->zero, self->buf, &io, 1, 3);
	EXPECT_EQ(1, aio_getevents(&self->aio, 2, 2, ev, &zero));
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
		EXPECT_EQ(0, aio_getevents(&self->aio, 1, 1, ev, &timeout));
		EXPECT_LE(TIMEOUT_NS, now_ns() - begin);
		EXPECT_EQ(TIMEOUT_NS, timeout.tv_nsec);
	}
	/* One of two: it waits for the other, and then gives the one. */
	post(_metadata, &self->aio, self->zero, self->buf, &io, 1, 4);
	begin = now_ns();
	EXPECT_EQ(1, aio_getevents(&self->aio, 2, 2, ev, &timeout));
	EXPECT_LE(TIMEOUT_NS, now_ns() - begin);
	expect_posted(_metadata, ev, &io, 1, 4);
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
		post(_metadata, &self->aio, self->zero, self->buf, &io, 1, i);
		EXPECT_EQ(1, aio_getevents(&self->aio, 1, 1, &ev, &timeout[i])) {
			TH_LOG("timeout %lld.%lld", timeout[i].tv_sec, timeout[i].tv_nsec);
		}
		expect_posted(_metadata, &ev, &io, 1, i);
	}
}

/* What wakes it. */

struct sleeper {
	struct aio *aio;
	struct __kernel_timespec *timeout;
	pthread_t thread;
	pid_t tid;
	long min_nr;
	long nr;
	long ret;
	bool done;
	struct io_event ev[EVENTS];
};

static void *sleeper_thread(void *data)
{
	struct sleeper *s = data;

	__atomic_store_n(&s->tid, gettid(), __ATOMIC_RELEASE);
	s->ret = aio_getevents(s->aio, s->min_nr, s->nr, s->ev, s->timeout);
	__atomic_store_n(&s->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static bool sleeper_done(struct sleeper *s)
{
	return __atomic_load_n(&s->done, __ATOMIC_ACQUIRE);
}

static bool sleeper_sleeps(struct sleeper *s)
{
	pid_t tid = __atomic_load_n(&s->tid, __ATOMIC_ACQUIRE);

	return tid && task_sleeps(tid);
}

/* Starts a thread and returns when it sleeps in getevents. */
static void sleeper_start(struct __test_metadata *_metadata, struct sleeper *s, struct aio *aio,
			  long min_nr, long nr)
{
	*s = (struct sleeper){ .aio = aio, .min_nr = min_nr, .nr = nr };
	ASSERT_EQ(0, pthread_create(&s->thread, NULL, sleeper_thread, s));
	ASSERT_TRUE(wait_for(sleeper_sleeps(s)));
	EXPECT_FALSE(sleeper_done(s));
}

static void sleeper_end(struct __test_metadata *_metadata, struct sleeper *s)
{
	ASSERT_TRUE(wait_for(sleeper_done(s))) {
		TH_LOG("not woken");
	}
	pthread_join(s->thread, NULL);
}

TEST_F(getevents, woken_by_an_event)
{
	struct sleeper s;
	struct iocb io;
	unsigned int i;

	for (i = 0; i < 20; i++) {
		sleeper_start(_metadata, &s, &self->aio, 1, 1);
		post(_metadata, &self->aio, self->zero, self->buf, &io, 1, i);
		sleeper_end(_metadata, &s);
		EXPECT_EQ(1, s.ret);
		expect_posted(_metadata, s.ev, &io, 1, i);
	}
}

/* It may look in between, but it comes back with all. */
TEST_F(getevents, woken_by_the_last_event)
{
	struct iocb io[5];
	struct sleeper s;
	unsigned int i;

	sleeper_start(_metadata, &s, &self->aio, 5, 10);
	for (i = 0; i < 4; i++) {
		post(_metadata, &self->aio, self->zero, self->buf, &io[i], 1, 50 + i);
		ASSERT_TRUE(wait_for(sleeper_sleeps(&s)));
		EXPECT_FALSE(sleeper_done(&s));
	}
	post(_metadata, &self->aio, self->zero, self->buf, &io[4], 1, 54);
	sleeper_end(_metadata, &s);
	EXPECT_EQ(5, s.ret);
	expect_posted(_metadata, s.ev, io, 5, 50);
}

TEST_F(getevents, woken_by_one_submit_of_many)
{
	struct iocb io[8];
	struct sleeper s;

	sleeper_start(_metadata, &s, &self->aio, 8, 8);
	post(_metadata, &self->aio, self->zero, self->buf, io, 8, 60);
	sleeper_end(_metadata, &s);
	EXPECT_EQ(8, s.ret);
	expect_posted(_metadata, s.ev, io, 8, 60);
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
			.aio = &self->aio, .min_nr = 1, .nr = 1, .timeout = &timeout[i],
		};

		ASSERT_EQ(0, pthread_create(&s.thread, NULL, sleeper_thread, &s));
		EXPECT_TRUE(wait_for(sleeper_sleeps(&s) || sleeper_done(&s)));
		EXPECT_FALSE(sleeper_done(&s)) {
			TH_LOG("timeout %lld.%lld", timeout[i].tv_sec, timeout[i].tv_nsec);
		}
		post(_metadata, &self->aio, self->zero, self->buf, &io, 1, i);
		sleeper_end(_metadata, &s);
		EXPECT_EQ(1, s.ret);
	}
}

/* More than one sleeps, each for one event; all come back, with one each. */
TEST_F(getevents, many_sleepers)
{
	struct sleeper s[4];
	struct iocb io[ARRAY_SIZE(s)];
	unsigned int i, seen = 0;

	for (i = 0; i < ARRAY_SIZE(s); i++)
		sleeper_start(_metadata, &s[i], &self->aio, 1, 1);
	for (i = 0; i < ARRAY_SIZE(s); i++)
		post(_metadata, &self->aio, self->zero, self->buf, &io[i], 1, i);
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		sleeper_end(_metadata, &s[i]);
		EXPECT_EQ(1, s[i].ret);
		EXPECT_GT(ARRAY_SIZE(s), s[i].ev[0].res);
		seen |= 1U << s[i].ev[0].res;
	}
	EXPECT_EQ(0xf, seen);
}

/* One that asks for more than there is does not keep the others asleep. */
TEST_F(getevents, sleepers_that_want_different_numbers)
{
	struct sleeper many, one;
	struct iocb io[6];

	sleeper_start(_metadata, &many, &self->aio, 5, 5);
	sleeper_start(_metadata, &one, &self->aio, 1, 1);
	post(_metadata, &self->aio, self->zero, self->buf, &io[0], 1, 0);
	/* Whoever gets it, six are enough for both. */
	post(_metadata, &self->aio, self->zero, self->buf, &io[1], 5, 1);
	sleeper_end(_metadata, &one);
	sleeper_end(_metadata, &many);
	EXPECT_EQ(1, one.ret);
	EXPECT_EQ(5, many.ret);
}

TEST_F(getevents, woken_by_destroy)
{
	struct sleeper s[3];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(s); i++)
		sleeper_start(_metadata, &s[i], &self->aio, 1 + i, 4);
	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	self->aio.ctx = 0;
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		sleeper_end(_metadata, &s[i]);
		EXPECT_EQ(-EINVAL, s[i].ret);
	}
}

static void no_action(int sig)
{
	(void)sig;
}

/* Never started again, whatever the handler asks for. */
TEST_F(getevents, interrupted_by_a_signal)
{
	const int flags[] = { 0, SA_RESTART };
	struct sleeper s;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		struct sigaction sa = { .sa_handler = no_action, .sa_flags = flags[i] };

		ASSERT_EQ(0, sigaction(SIGUSR1, &sa, NULL));
		sleeper_start(_metadata, &s, &self->aio, 1, 1);
		pthread_kill(s.thread, SIGUSR1);
		sleeper_end(_metadata, &s);
		EXPECT_EQ(-1, s.ret < 0 ? -1 : 0);
		EXPECT_EQ(-EINTR, s.ret) {
			TH_LOG("flags %#x", flags[i]);
		}
	}
}

/* With a timeout it is no different. */
TEST_F(getevents, interrupted_with_a_timeout)
{
	struct sigaction sa = { .sa_handler = no_action, .sa_flags = SA_RESTART };
	struct __kernel_timespec timeout = { .tv_sec = 1000 };
	struct sleeper s = { .aio = &self->aio, .min_nr = 1, .nr = 1, .timeout = &timeout };

	ASSERT_EQ(0, sigaction(SIGUSR1, &sa, NULL));
	ASSERT_EQ(0, pthread_create(&s.thread, NULL, sleeper_thread, &s));
	ASSERT_TRUE(wait_for(sleeper_sleeps(&s)));
	pthread_kill(s.thread, SIGUSR1);
	sleeper_end(_metadata, &s);
	EXPECT_EQ(-EINTR, s.ret);
	EXPECT_EQ(1000, timeout.tv_sec);
}

/* What had been read by then is not lost. */
TEST_F(getevents, interrupted_with_some_events)
{
	struct sigaction sa = { .sa_handler = no_action };
	struct iocb io[2];
	struct sleeper s;

	ASSERT_EQ(0, sigaction(SIGUSR1, &sa, NULL));
	post(_metadata, &self->aio, self->zero, self->buf, io, 2, 70);
	sleeper_start(_metadata, &s, &self->aio, 3, 3);
	pthread_kill(s.thread, SIGUSR1);
	sleeper_end(_metadata, &s);
	EXPECT_EQ(2, s.ret);
	expect_posted(_metadata, s.ev, io, 2, 70);
}

/* An ignored signal is none. */
TEST_F(getevents, not_interrupted_by_an_ignored_signal)
{
	struct sleeper s;
	struct iocb io;

	signal(SIGUSR1, SIG_IGN);
	sleeper_start(_metadata, &s, &self->aio, 1, 1);
	pthread_kill(s.thread, SIGUSR1);
	post(_metadata, &self->aio, self->zero, self->buf, &io, 1, 8);
	sleeper_end(_metadata, &s);
	EXPECT_EQ(1, s.ret);
	expect_posted(_metadata, s.ev, &io, 1, 8);
}

/* One thread posts, another reads: nobody sleeps forever. */
#define PING_PONGS	300

struct ping {
	struct aio *aio;
	unsigned int nr;
	unsigned int wrong;
	unsigned int token;
};

static void *pong_thread(void *data)
{
	struct ping *p = data;
	struct io_event ev;
	unsigned int i;

	for (i = 0; i < p->nr; i++) {
		if (aio_wait(p->aio, 1, &ev) != 1 || ev.res != i % PAGE)
			p->wrong++;
		__atomic_store_n(&p->token, i + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

TEST_F(getevents, ping_pong)
{
	struct ping p = { .aio = &self->aio, .nr = PING_PONGS };
	pthread_t thread;
	struct iocb io;
	unsigned int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, pong_thread, &p));
	for (i = 0; i < PING_PONGS; i++) {
		long long end = now_ns() + WAIT_SECONDS * 1000000000LL;

		post(_metadata, &self->aio, self->zero, self->buf, &io, 1, i);
		/* No sleep here: the next event comes while the other goes to sleep. */
		while (__atomic_load_n(&p.token, __ATOMIC_ACQUIRE) <= i && now_ns() < end)
			sched_yield();
		ASSERT_LT(i, __atomic_load_n(&p.token, __ATOMIC_ACQUIRE)) {
			TH_LOG("event %u is lost or nobody was woken for it", i);
		}
	}
	pthread_join(thread, NULL);
	EXPECT_EQ(0, p.wrong);
}

/* Around the ring. */

#define LAPS	4

TEST_F(getevents, many_laps)
{
	const unsigned int nr = aio_ring(self->aio.ctx)->nr;
	unsigned int posted = 0, n;
	struct io_event ev[EVENTS];
	struct iocb io[EVENTS];
	uint64_t state = 3;

	while (posted < LAPS * nr) {
		n = 1 + next_random(&state) % EVENTS;
		post(_metadata, &self->aio, self->zero, self->buf, io, n, posted);
		ASSERT_EQ(n, aio_wait(&self->aio, n, ev));
		expect_posted(_metadata, ev, io, n, posted);
		posted += n;
		ASSERT_EQ(posted % nr, aio_ring(self->aio.ctx)->head);
		ASSERT_EQ(posted % nr, aio_ring(self->aio.ctx)->tail);
	}
}

TEST_F(getevents, many_laps_by_the_program)
{
	const unsigned int nr = aio_ring(self->aio.ctx)->nr;
	unsigned int posted = 0, n;
	struct io_event ev[EVENTS];
	struct iocb io[EVENTS];
	uint64_t state = 4;

	while (posted < LAPS * nr) {
		n = 1 + next_random(&state) % EVENTS;
		post(_metadata, &self->aio, self->zero, self->buf, io, n, posted);
		ASSERT_EQ(n, ring_reap(self->aio.ctx, EVENTS, ev));
		expect_posted(_metadata, ev, io, n, posted);
		posted += n;
	}
}

/* Both, with some left over each time. */
TEST_F(getevents, many_laps_mixed)
{
	const unsigned int nr = aio_ring(self->aio.ctx)->nr;
	unsigned int posted = 0, reaped = 0, i, n;
	struct io_event ev[EVENTS];
	struct iocb io[EVENTS];
	uint64_t state = 5;

	while (reaped < LAPS * nr) {
		n = EVENTS - (posted - reaped);
		n = n ? next_random(&state) % (n + 1) : 0;
		/* Slot i of io[] holds request i of all modulo its size. */
		for (i = 0; i < n; i++, posted++)
			post(_metadata, &self->aio, self->zero, self->buf, &io[posted % EVENTS], 1,
			     posted);
		n = posted - reaped ? 1 + next_random(&state) % (posted - reaped) : 0;
		if (next_random(&state) & 1) {
			ASSERT_EQ(n, aio_poll(&self->aio, n, ev)) {
				TH_LOG("after %u", reaped);
			}
		} else {
			ASSERT_EQ(n, ring_reap(self->aio.ctx, n, ev)) {
				TH_LOG("after %u", reaped);
			}
		}
		for (i = 0; i < n; i++, reaped++)
			expect_posted(_metadata, &ev[i], &io[reaped % EVENTS], 1, reaped);
	}
	while (reaped < posted) {
		ASSERT_EQ(1, aio_poll(&self->aio, 1, ev));
		expect_posted(_metadata, ev, &io[reaped % EVENTS], 1, reaped);
		reaped++;
	}
}

/* A ring of the smallest size, too. */
TEST_F(getevents, many_laps_of_a_small_ring)
{
	struct aio small = self->aio;
	struct io_event ev;
	unsigned int i;
	struct iocb io;

	small.ctx = 0;
	ASSERT_EQ(0, aio_setup(&small, 1, &small.ctx));
	for (i = 0; i < 600; i++) {
		post(_metadata, &small, self->zero, self->buf, &io, 1, i);
		if (i % 2) {
			ASSERT_EQ(1, aio_poll(&small, 1, &ev)) {
				TH_LOG("event %u", i);
			}
		} else {
			ASSERT_EQ(1, ring_reap(small.ctx, 1, &ev)) {
				TH_LOG("event %u", i);
			}
		}
		expect_posted(_metadata, &ev, &io, 1, i);
	}
	EXPECT_EQ(0, aio_destroy(&small, small.ctx));
}

/*
 * The head is the program's own. Whatever it holds, no call does more than
 * return an error or events that once were in this ring: never other memory.
 */
TEST_F(getevents, scribbled_header)
{
	struct raio_ring *ring = aio_ring(self->aio.ctx);
	const unsigned int nr = ring->nr;
	const unsigned int values[] = {
		1, nr - 1, nr, nr + 1, 2 * nr, INT_MAX, 1U << 31, UINT_MAX, UINT_MAX / 32,
	};
	struct io_event ev[EVENTS];
	struct iocb io[4];
	unsigned int i, j;
	long ret;

	post(_metadata, &self->aio, self->zero, self->buf, io, 4, 0);
	ASSERT_EQ(4, aio_poll(&self->aio, 4, ev));
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
			ret = aio_poll(&self->aio, EVENTS, ev);
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
		iocb_prep(&io[0], IOCB_CMD_PREAD, self->zero, self->buf, 1, 0);
		ret = aio_submit_one(&self->aio, &io[0]);
		EXPECT_TRUE(ret == 1 || ret == -EAGAIN || ret == -EINVAL) {
			TH_LOG("submit returned %ld", ret);
		}
		if (i >= 2 * ARRAY_SIZE(values))
			ring->tail = tail;
	}
	/* and destroyed in any case. */
	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	self->aio.ctx = 0;
}

/* Events that come from a device and not from the call that submits. */
FIXTURE(from_device)
{
	struct aio aio;
	int fd;
	char *buf;
};

FIXTURE_VARIANT(from_device)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(from_device, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(from_device, raio)
{
	.ops = &raio,
};

#define IN_FLIGHT	16

FIXTURE_SETUP(from_device)
{
	testdev_begin();
	testdev_cmd("b0 mode timer %d", DELAY_MS * 1000000);
	self->fd = testdev_open("b0", O_DIRECT);
	self->buf = map_pages(IN_FLIGHT * PAGE);
	aio_begin(_metadata, &self->aio, variant->ops, IN_FLIGHT);
}

FIXTURE_TEARDOWN(from_device)
{
	aio_end(_metadata, &self->aio);
	close(self->fd);
	testdev_reset();
}

static void start(struct __test_metadata *_metadata, struct aio *aio, int fd, char *buf,
		  struct iocb *io, unsigned int nr)
{
	struct iocb *iop[IN_FLIGHT];
	unsigned int i;

	for (i = 0; i < nr; i++) {
		iocb_prep(&io[i], IOCB_CMD_PREAD, fd, buf + i * PAGE, PAGE, i * PAGE);
		iop[i] = &io[i];
	}
	ASSERT_EQ(nr, aio_submit(aio, nr, iop));
}

/* Each of @nr requests exactly once. */
static void expect_each_once(struct __test_metadata *_metadata, const struct io_event *ev,
			     struct iocb *io, unsigned int nr)
{
	unsigned int i, seen = 0;

	for (i = 0; i < nr; i++) {
		unsigned int n = (struct iocb *)(uintptr_t)ev[i].obj - io;

		ASSERT_GT(nr, n);
		EXPECT_EVENT(&ev[i], &io[n], PAGE);
		EXPECT_EQ(0, seen & (1U << n)) {
			TH_LOG("request %u twice", n);
		}
		seen |= 1U << n;
	}
}

TEST_F(from_device, wakes_a_sleeper)
{
	struct iocb io[IN_FLIGHT];
	struct io_event ev[IN_FLIGHT];
	long long begin = now_ns();

	start(_metadata, &self->aio, self->fd, self->buf, io, IN_FLIGHT);
	ASSERT_EQ(IN_FLIGHT, aio_getevents(&self->aio, IN_FLIGHT, IN_FLIGHT, ev, NULL));
	EXPECT_LE(DELAY_MS * 1000000LL, now_ns() - begin);
	expect_each_once(_metadata, ev, io, IN_FLIGHT);
}

/* More often than the sleeper could have gone to sleep each time. */
TEST_F(from_device, wakes_for_each)
{
	struct iocb io[IN_FLIGHT];
	struct io_event ev[IN_FLIGHT];
	unsigned int i;

	start(_metadata, &self->aio, self->fd, self->buf, io, IN_FLIGHT);
	for (i = 0; i < IN_FLIGHT; i++) {
		ASSERT_EQ(1, aio_getevents(&self->aio, 1, 1, &ev[i], NULL)) {
			TH_LOG("event %u", i);
		}
	}
	expect_each_once(_metadata, ev, io, IN_FLIGHT);
}

TEST_F(from_device, timeout_with_requests_in_flight)
{
	struct __kernel_timespec timeout = { .tv_nsec = 1000000 };
	struct iocb io[IN_FLIGHT];
	struct io_event ev[IN_FLIGHT];
	long long begin = now_ns();
	long ret;

	start(_metadata, &self->aio, self->fd, self->buf, io, IN_FLIGHT);
	do {
		ret = aio_getevents(&self->aio, IN_FLIGHT, IN_FLIGHT, ev, &timeout);
	} while (!ret);
	EXPECT_LE(DELAY_MS * 1000000LL, now_ns() - begin);
	if (ret < IN_FLIGHT) {
		ASSERT_LT(0, ret);
		ASSERT_EQ(IN_FLIGHT - ret, aio_wait(&self->aio, IN_FLIGHT - ret, ev + ret));
	}
	expect_each_once(_metadata, ev, io, IN_FLIGHT);
}

/* The program waits for them itself, without a call. */
TEST_F(from_device, seen_in_the_ring)
{
	struct raio_ring *ring = aio_ring(self->aio.ctx);
	struct iocb io[IN_FLIGHT];
	struct io_event ev[IN_FLIGHT];

	start(_metadata, &self->aio, self->fd, self->buf, io, IN_FLIGHT);
	ASSERT_TRUE(wait_for(__atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) == IN_FLIGHT));
	ASSERT_EQ(IN_FLIGHT, ring_reap(self->aio.ctx, IN_FLIGHT, ev));
	expect_each_once(_metadata, ev, io, IN_FLIGHT);
}

/* What is in flight takes its place in the ring already. */
TEST_F(from_device, full_of_requests_in_flight)
{
	const unsigned int nr = aio_ring(self->aio.ctx)->nr;
	struct io_event *ev = map_pages((nr * sizeof(*ev) + PAGE - 1) / PAGE * PAGE);
	struct iocb io;
	unsigned int n = 0;
	long ret;

	pin_to_cpu(0);
	iocb_prep(&io, IOCB_CMD_PREAD, self->fd, self->buf, PAGE, 0);
	while ((ret = aio_submit_one(&self->aio, &io)) == 1) {
		ASSERT_GT(nr, ++n) {
			TH_LOG("more than there are slots");
		}
	}
	EXPECT_EQ(-EAGAIN, ret);
	EXPECT_LE(IN_FLIGHT, n);
	EXPECT_EQ(n, aio_wait(&self->aio, n, ev));
}

TEST_HARNESS_MAIN
