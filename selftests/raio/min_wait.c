// SPDX-License-Identifier: GPL-2.0
/*
 * The minimum wait, which kernel AIO hasn't: as many events as were asked for,
 * but after that time one is enough. Never earlier than it says.
 */
#include "raio_wait.h"

#define SHORT	(30 * MS)
#define LONG	(1000000 * MS)

FIXTURE(min_wait)
{
	struct fed fed;
};

FIXTURE_SETUP(min_wait)
{
	fed_begin(_metadata, &self->fed, &raio);
}

FIXTURE_TEARDOWN(min_wait)
{
	fed_end(_metadata, &self->fed);
}

/* One that waits for @_min of at most @_nr events for @_ns at first. */
#define WAITS(_min, _nr, _ns) \
	{ .aio = &self->fed.aio, .min_nr = (_min), .nr = (_nr), .min_wait = (_ns) }

/* A call that has to return @_val, and took at least @_ns. */
#define EXPECT_CALL(_val, _s, _ns) do {					\
	long long __begin = now_ns();					\
									\
	EXPECT_EQ((_val), sleeper_call(_s));				\
	EXPECT_LE((_ns), now_ns() - __begin);				\
	EXPECT_GT((_ns) + 5000 * MS, now_ns() - __begin);		\
} while (0)

/* As many as were asked for end it at once. */
TEST_F(min_wait, enough)
{
	struct sleeper s = WAITS(4, 10, LONG);
	struct iocb io[6];

	post(_metadata, &self->fed, io, 6, 1);
	EXPECT_CALL(6, &s, 0);
	expect_posted(_metadata, s.ev, io, 6, 1);
	s.min_wait = ~0ULL;
	post(_metadata, &self->fed, io, 4, 2);
	EXPECT_CALL(4, &s, 0);
	expect_posted(_metadata, s.ev, io, 4, 2);
}

TEST_F(min_wait, nothing_to_wait_for)
{
	struct sleeper s = WAITS(0, 4, LONG);
	struct iocb io[2];

	EXPECT_CALL(0, &s, 0);
	post(_metadata, &self->fed, io, 2, 1);
	EXPECT_CALL(2, &s, 0);
	s.nr = 0;
	EXPECT_CALL(0, &s, 0);
}

/* Some are there: that is enough when the time has passed, and not before. */
TEST_F(min_wait, some)
{
	const __u64 times[] = { 1, 1000, 999999, 1234567, SHORT };
	unsigned int i, n;
	struct iocb io[3];

	for (i = 0; i < ARRAY_SIZE(times); i++) {
		for (n = 1; n <= 3; n++) {
			struct sleeper s = WAITS(4, 4, times[i]);

			post(_metadata, &self->fed, io, n, i);
			EXPECT_CALL(n, &s, (long long)times[i]);
			expect_posted(_metadata, s.ev, io, n, i);
		}
	}
}

/* One comes in the meantime. It does not end the wait, nor wake who waits. */
TEST_F(min_wait, one_comes)
{
	struct sleeper s = WAITS(4, 4, 300 * MS);
	struct iocb io[2];
	long slept;

	sleeper_start(_metadata, &s);
	slept = task_sleeps_so_far(s.tid);
	post(_metadata, &self->fed, io, 1, 3);
	/* Unless this took so long that the time is over. */
	if (now_ns() < s.begin + 200 * MS) {
		EXPECT_TRUE(sleeper_sleeps(&s));
		EXPECT_EQ(slept, task_sleeps_so_far(s.tid));
	}
	sleeper_end(_metadata, &s, 1);
	EXPECT_LE(300 * MS, s.end - s.begin);
	expect_posted(_metadata, s.ev, io, 1, 3);
}

/* The last comes in the meantime. */
TEST_F(min_wait, all_come)
{
	struct sleeper s = WAITS(4, 4, LONG);
	struct iocb io[4];
	unsigned int i;
	long slept;

	sleeper_start(_metadata, &s);
	slept = task_sleeps_so_far(s.tid);
	for (i = 0; i < 3; i++) {
		post(_metadata, &self->fed, &io[i], 1, i);
		EXPECT_TRUE(sleeper_sleeps(&s));
	}
	EXPECT_EQ(slept, task_sleeps_so_far(s.tid));
	post(_metadata, &self->fed, &io[3], 1, 3);
	sleeper_end(_metadata, &s, 4);
	expect_posted(_metadata, s.ev, io, 4, 0);
}

/* Nothing was there when it had passed: the first event ends it. */
TEST_F(min_wait, none)
{
	struct sleeper s = WAITS(4, 4, SHORT);
	struct iocb io;

	sleeper_start(_metadata, &s);
	ASSERT_TRUE(wait_for(now_ns() > s.begin + 3 * SHORT && sleeper_sleeps(&s)));
	EXPECT_FALSE(sleeper_done(&s));
	post(_metadata, &self->fed, &io, 1, 4);
	sleeper_end(_metadata, &s, 1);
	expect_posted(_metadata, s.ev, &io, 1, 4);
}

/* Without one it is as if there were no such thing. */
TEST_F(min_wait, zero)
{
	struct __kernel_timespec timeout = { .tv_nsec = SHORT };
	struct sleeper s = WAITS(2, 2, 0);
	struct raio_getevents arg = {
		.ctx = self->fed.aio.ctx,
		.min_nr = 2,
		.nr = 2,
		.events = (uintptr_t)s.ev,
		.timeout = (uintptr_t)&timeout,
	};
	long long begin = now_ns();
	struct iocb io;

	post(_metadata, &self->fed, &io, 1, 4);
	EXPECT_EQ(1, raio_ioctl(self->fed.aio.dev, RAIO_IOC_GETEVENTS, &arg));
	EXPECT_LE(SHORT, now_ns() - begin);
}

/* Whichever is shorter ends it. */
TEST_F(min_wait, with_a_timeout)
{
	struct __kernel_timespec zero = { }, some = { .tv_nsec = SHORT };
	struct __kernel_timespec more = { .tv_nsec = 3 * SHORT }, far = { .tv_sec = 1000 };
	struct sleeper s = WAITS(4, 4, LONG);
	struct iocb io[3];

	s.timeout = &zero;
	EXPECT_CALL(0, &s, 0);
	post(_metadata, &self->fed, io, 1, 1);
	EXPECT_CALL(1, &s, 0);

	s.timeout = &some;
	EXPECT_CALL(0, &s, SHORT);
	post(_metadata, &self->fed, io, 2, 1);
	EXPECT_CALL(2, &s, SHORT);
	expect_posted(_metadata, s.ev, io, 2, 1);

	/* Nothing in the minimum nor after it. */
	s.min_wait = SHORT;
	s.timeout = &more;
	EXPECT_CALL(0, &s, 3 * SHORT);
	EXPECT_EQ(3 * SHORT, more.tv_nsec);

	s.timeout = &far;
	post(_metadata, &self->fed, io, 3, 1);
	EXPECT_CALL(3, &s, SHORT);
	expect_posted(_metadata, s.ev, io, 3, 1);

	/* Both at once. */
	s.timeout = &some;
	EXPECT_CALL(0, &s, SHORT);
	post(_metadata, &self->fed, io, 1, 1);
	EXPECT_CALL(1, &s, SHORT);
}

static unsigned int handled;

static void handle(int sig)
{
	(void)sig;
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELEASE);
}

TEST_F(min_wait, with_signals)
{
	struct sigaction sa = { .sa_handler = handle, .sa_flags = SA_RESTART };
	struct iocb io;
	unsigned int i;

	ASSERT_EQ(0, sigaction(SIGUSR1, &sa, NULL));
	/* In the minimum, and after it. */
	for (i = 0; i < 2; i++) {
		struct sleeper s = WAITS(4, 4, i ? SHORT : LONG);

		sleeper_start(_metadata, &s);
		if (i)
			ASSERT_TRUE(wait_for(now_ns() > s.begin + 2 * SHORT && sleeper_sleeps(&s)));
		pthread_kill(s.thread, SIGUSR1);
		sleeper_end(_metadata, &s, -EINTR);
		EXPECT_EQ(i + 1, __atomic_load_n(&handled, __ATOMIC_ACQUIRE));
	}
	/* With an event. */
	for (i = 0; i < 2; i++) {
		struct sleeper s = WAITS(4, 4, LONG);

		if (i)
			post(_metadata, &self->fed, &io, 1, 5);
		sleeper_start(_metadata, &s);
		if (!i)
			post(_metadata, &self->fed, &io, 1, 5);
		pthread_kill(s.thread, SIGUSR1);
		sleeper_end(_metadata, &s, 1);
		expect_posted(_metadata, s.ev, &io, 1, 5);
	}
}

TEST_F(min_wait, with_a_mask)
{
	struct sigaction sa = { .sa_handler = handle };
	sigset_t none, all, usr1, now;
	struct sleeper s = WAITS(4, 4, LONG);
	struct iocb io;

	sigemptyset(&none);
	sigfillset(&all);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	ASSERT_EQ(0, sigaction(SIGUSR1, &sa, NULL));
	ASSERT_EQ(0, pthread_sigmask(SIG_SETMASK, &usr1, NULL));

	/* Pending: it ends before it has begun. */
	s.mask = &none;
	raise(SIGUSR1);
	EXPECT_CALL(-EINTR, &s, 0);
	EXPECT_EQ(1, handled);
	/* Blocked: it does not matter. */
	s.mask = &all;
	s.min_wait = SHORT;
	raise(SIGUSR1);
	post(_metadata, &self->fed, &io, 1, 6);
	EXPECT_CALL(1, &s, SHORT);
	expect_posted(_metadata, s.ev, &io, 1, 6);
	EXPECT_EQ(1, handled);
	/* Handled, but there is an event. */
	s.mask = &none;
	s.min_wait = LONG;
	post(_metadata, &self->fed, &io, 1, 7);
	EXPECT_CALL(1, &s, 0);
	expect_posted(_metadata, s.ev, &io, 1, 7);
	EXPECT_EQ(2, handled);
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	EXPECT_EQ(0, memcmp(&now, &usr1, MASK_SIZE));
}

/* What was refused before is refused now. */
TEST_F(min_wait, bad_arguments)
{
	struct sleeper s = WAITS(2, 1, LONG);
	struct iocb io;

	EXPECT_CALL(-EINVAL, &s, 0);
	s.min_nr = -1;
	EXPECT_CALL(-EINVAL, &s, 0);
	s.min_nr = 1;
	s.timeout = bad_ptr(1);
	EXPECT_CALL(-EFAULT, &s, 0);
	s.timeout = NULL;
	post(_metadata, &self->fed, &io, 1, 6);
	s.events = bad_ptr(1);
	EXPECT_CALL(-EFAULT, &s, 0);
	/* Some, but they can't be stored. */
	s.min_nr = 3;
	s.nr = 3;
	s.min_wait = SHORT;
	EXPECT_CALL(-EFAULT, &s, 0);
	s.events = NULL;
	EXPECT_CALL(1, &s, SHORT);
	expect_posted(_metadata, s.ev, &io, 1, 6);
}

/*
 * Once its minimum has passed it wants one event, and others who wait don't
 * stand in its way.
 */
TEST_F(min_wait, with_others)
{
	struct sleeper s[] = { WAITS(3, 3, LONG), WAITS(3, 3, SHORT), WAITS(2, 2, LONG) };
	struct iocb io[4];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(s); i++)
		sleeper_start(_metadata, &s[i]);
	ASSERT_TRUE(wait_for(now_ns() > s[1].begin + 2 * SHORT && sleeper_sleeps(&s[1])));
	post(_metadata, &self->fed, io, 1, 0);
	sleeper_end(_metadata, &s[1], 1);
	expect_posted(_metadata, s[1].ev, io, 1, 0);
	post(_metadata, &self->fed, io, 2, 1);
	sleeper_end(_metadata, &s[2], 2);
	EXPECT_TRUE(sleeper_sleeps(&s[0]));
	post(_metadata, &self->fed, io, 3, 3);
	sleeper_end(_metadata, &s[0], 3);
}

TEST_F(min_wait, end_of_the_context)
{
	struct sleeper s[] = { WAITS(3, 3, LONG), WAITS(3, 3, SHORT) };

	sleeper_start(_metadata, &s[0]);
	sleeper_start(_metadata, &s[1]);
	ASSERT_TRUE(wait_for(now_ns() > s[1].begin + 2 * SHORT && sleeper_sleeps(&s[1])));
	EXPECT_EQ(0, aio_destroy(&self->fed.aio, self->fed.aio.ctx));
	self->fed.aio.ctx = 0;
	sleeper_end(_metadata, &s[0], -EINVAL);
	sleeper_end(_metadata, &s[1], -EINVAL);
}

TEST_HARNESS_MAIN
