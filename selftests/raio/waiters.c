// SPDX-License-Identifier: GPL-2.0
/*
 * Who waits for events, and who is woken by which: from a call and from
 * interrupts, one waiter and many, those that go without their share, and
 * storms of all that. Kernel AIO wakes all who could use what there is; raio
 * wakes one for each event, who has waited for longest first.
 */
#include <sys/param.h>

#include "raio_testdev.h"
#include "raio_wait.h"

#define DELAY_MS	50

FIXTURE(waiters)
{
	struct fed fed;
};

FIXTURE_VARIANT(waiters)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(waiters, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(waiters, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(waiters)
{
	fed_begin(_metadata, &self->fed, variant->ops);
}

FIXTURE_TEARDOWN(waiters)
{
	fed_end(_metadata, &self->fed);
}

/* One that waits for @_min of at most @_nr events. */
#define WANTS(_min, _nr) { .aio = &self->fed.aio, .min_nr = (_min), .nr = (_nr) }

/* One waiter. */

TEST_F(waiters, an_event)
{
	struct iocb io;
	unsigned int i;

	for (i = 0; i < 20; i++) {
		struct sleeper s = WANTS(1, 1);

		sleeper_start(_metadata, &s);
		post(_metadata, &self->fed, &io, 1, i);
		sleeper_end(_metadata, &s, 1);
		expect_posted(_metadata, s.ev, &io, 1, i);
	}
}

/* It is left asleep until there are enough, and comes back with all. */
TEST_F(waiters, the_last_event)
{
	struct sleeper s = WANTS(40, 50);
	struct iocb io[40];
	unsigned int i;
	long slept;

	sleeper_start(_metadata, &s);
	slept = task_sleeps_so_far(s.tid);
	for (i = 0; i < 39; i++) {
		post(_metadata, &self->fed, &io[i], 1, 50 + i);
		EXPECT_TRUE(sleeper_sleeps(&s)) {
			TH_LOG("woken by event %u", i);
		}
	}
	EXPECT_EQ(slept, task_sleeps_so_far(s.tid));
	post(_metadata, &self->fed, &io[39], 1, 89);
	sleeper_end(_metadata, &s, 40);
	expect_posted(_metadata, s.ev, io, 40, 50);
}

TEST_F(waiters, one_submit_of_many)
{
	struct sleeper s = WANTS(8, 8);
	struct iocb io[8];

	sleeper_start(_metadata, &s);
	post(_metadata, &self->fed, io, 8, 60);
	sleeper_end(_metadata, &s, 8);
	expect_posted(_metadata, s.ev, io, 8, 60);
}

/* What is there already counts, and so does what there is more than was waited for. */
TEST_F(waiters, the_rest)
{
	struct sleeper s = WANTS(5, 7);
	struct io_event ev;
	struct iocb io[9];
	long slept;

	post(_metadata, &self->fed, io, 3, 0);
	sleeper_start(_metadata, &s);
	slept = task_sleeps_so_far(s.tid);
	post(_metadata, &self->fed, io + 3, 1, 3);
	EXPECT_TRUE(sleeper_sleeps(&s));
	EXPECT_EQ(slept, task_sleeps_so_far(s.tid));
	post(_metadata, &self->fed, io + 4, 1, 4);
	sleeper_end(_metadata, &s, 5);
	expect_posted(_metadata, s.ev, io, 5, 0);

	post(_metadata, &self->fed, io, 8, 10);
	s.done = false;
	s.ret = sleeper_call(&s);
	EXPECT_EQ(7, s.ret);
	expect_posted(_metadata, s.ev, io, 7, 10);
	EXPECT_EQ(1, aio_poll(&self->fed.aio, 1, &ev));
	expect_posted(_metadata, &ev, io + 7, 1, 17);
}

/* Events that the program takes from the ring don't count. */
TEST_F(waiters, without_what_the_program_took)
{
	struct sleeper s = WANTS(3, 3);
	struct io_event ev;
	struct iocb io[3];
	unsigned int i;
	long slept;

	sleeper_start(_metadata, &s);
	slept = task_sleeps_so_far(s.tid);
	for (i = 0; i < 10; i++) {
		post(_metadata, &self->fed, io, 1, i);
		ASSERT_EQ(1, ring_reap(self->fed.aio.ctx, 1, &ev));
		expect_posted(_metadata, &ev, io, 1, i);
	}
	post(_metadata, &self->fed, io, 2, 20);
	EXPECT_TRUE(sleeper_sleeps(&s));
	EXPECT_EQ(slept, task_sleeps_so_far(s.tid));
	post(_metadata, &self->fed, io + 2, 1, 22);
	sleeper_end(_metadata, &s, 3);
	expect_posted(_metadata, s.ev, io, 3, 20);
}

/* One thread posts, another reads: nobody sleeps forever. */
#define PING_PONGS	1000

struct ping {
	struct aio *aio;
	unsigned int wrong;
	unsigned int token;
};

static void *pong_thread(void *data)
{
	struct ping *p = data;
	struct io_event ev;
	unsigned int i;

	pin_to_cpu(1);
	for (i = 0; i < PING_PONGS; i++) {
		if (aio_wait(p->aio, 1, &ev) != 1 || ev.res != i % PAGE)
			p->wrong++;
		__atomic_store_n(&p->token, i + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

TEST_F(waiters, ping_pong)
{
	struct ping p = { .aio = &self->fed.aio };
	pthread_t thread;
	struct iocb io;
	unsigned int i;

	pin_to_cpu(0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, pong_thread, &p));
	for (i = 0; i < PING_PONGS; i++) {
		long long end = now_ns() + WAIT_SECONDS * 1000 * MS / 2;

		post(_metadata, &self->fed, &io, 1, i);
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

/* Many waiters. */

/* Each for one event; all come back, with one each. */
TEST_F(waiters, one_each)
{
	struct sleeper s[4] = { WANTS(1, 1), WANTS(1, 1), WANTS(1, 1), WANTS(1, 1) };
	struct iocb io[ARRAY_SIZE(s)];
	unsigned int i, seen = 0;

	for (i = 0; i < ARRAY_SIZE(s); i++)
		sleeper_start(_metadata, &s[i]);
	for (i = 0; i < ARRAY_SIZE(s); i++)
		post(_metadata, &self->fed, &io[i], 1, i);
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		sleeper_end(_metadata, &s[i], 1);
		EXPECT_GT(ARRAY_SIZE(s), s[i].ev[0].res);
		seen |= 1U << s[i].ev[0].res;
	}
	EXPECT_EQ(0xf, seen);
}

/* The same by one call, with different shares. */
TEST_F(waiters, shares)
{
	struct sleeper s[] = { WANTS(2, 2), WANTS(1, 1), WANTS(4, 4), WANTS(3, 3), WANTS(1, 1) };
	unsigned int i, j, seen = 0;
	struct iocb io[11];

	for (i = 0; i < ARRAY_SIZE(s); i++)
		sleeper_start(_metadata, &s[i]);
	post(_metadata, &self->fed, io, ARRAY_SIZE(io), 0);
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		sleeper_end(_metadata, &s[i], s[i].nr);
		for (j = 0; j < s[i].nr; j++)
			seen |= 1U << s[i].ev[j].res;
	}
	EXPECT_EQ(0x7ff, seen);
}

/* Who asks for more than there is does not keep the others asleep. */
TEST_F(waiters, few_before_many)
{
	struct sleeper many = WANTS(5, 5), one = WANTS(1, 1), two = WANTS(2, 2);
	struct iocb io[8];
	long slept;

	sleeper_start(_metadata, &many);
	slept = task_sleeps_so_far(many.tid);
	sleeper_start(_metadata, &two);
	sleeper_start(_metadata, &one);
	post(_metadata, &self->fed, io, 1, 0);
	sleeper_end(_metadata, &one, 1);
	expect_posted(_metadata, one.ev, io, 1, 0);
	EXPECT_TRUE(sleeper_sleeps(&two));
	post(_metadata, &self->fed, io, 2, 1);
	sleeper_end(_metadata, &two, 2);
	expect_posted(_metadata, two.ev, io, 2, 1);
	EXPECT_TRUE(sleeper_sleeps(&many));
	EXPECT_EQ(slept, task_sleeps_so_far(many.tid));
	post(_metadata, &self->fed, io, 5, 3);
	sleeper_end(_metadata, &many, 5);
	expect_posted(_metadata, many.ev, io, 5, 3);
}

TEST_F(waiters, end_of_the_context)
{
	struct sleeper s[] = { WANTS(1, 4), WANTS(2, 4), WANTS(1, 1) };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(s); i++)
		sleeper_start(_metadata, &s[i]);
	EXPECT_EQ(0, aio_destroy(&self->fed.aio, self->fed.aio.ctx));
	self->fed.aio.ctx = 0;
	for (i = 0; i < ARRAY_SIZE(s); i++)
		sleeper_end(_metadata, &s[i], -EINVAL);
}

/*
 * First in, first out, and only the one that an event is for is woken. (The
 * waiters of kernel AIO are all woken for each event; who is quickest has it.)
 */
TEST_F(waiters, one_wakes_one)
{
	struct sleeper s[8];
	struct iocb io;
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(s); i++) {
		s[i] = (struct sleeper)WANTS(1, variant->ops->is_raio ? 1 + i % 3 : 1);
		sleeper_start(_metadata, &s[i]);
	}
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		long slept[ARRAY_SIZE(s)];

		for (j = i + 1; j < ARRAY_SIZE(s); j++)
			slept[j] = task_sleeps_so_far(s[j].tid);
		post(_metadata, &self->fed, &io, 1, i);
		if (!variant->ops->is_raio)
			continue;
		sleeper_end(_metadata, &s[i], 1);
		expect_posted(_metadata, s[i].ev, &io, 1, i);
		for (j = i + 1; j < ARRAY_SIZE(s); j++) {
			EXPECT_TRUE(sleeper_sleeps(&s[j]));
			EXPECT_EQ(slept[j], task_sleeps_so_far(s[j].tid)) {
				TH_LOG("waiter %u was woken by event %u", j, i);
			}
		}
	}
	for (i = 0; !variant->ops->is_raio && i < ARRAY_SIZE(s); i++)
		sleeper_end(_metadata, &s[i], 1);
}

/* The order is that of those that an event is enough for. */
TEST_F(waiters, first_of_those_that_can)
{
	struct sleeper s[] = { WANTS(3, 3), WANTS(2, 2), WANTS(3, 3), WANTS(2, 2) };
	static const unsigned int order[] = { 1, 3, 0, 2 };
	unsigned int i, n = 0;
	struct iocb io;

	for (i = 0; i < ARRAY_SIZE(s); i++)
		sleeper_start(_metadata, &s[i]);
	for (i = 0; i < ARRAY_SIZE(order); i++) {
		struct sleeper *first = &s[order[i]];
		unsigned int j;

		for (j = 0; j < first->nr; j++)
			post(_metadata, &self->fed, &io, 1, n++);
		if (!variant->ops->is_raio)
			continue;
		sleeper_end(_metadata, first, first->nr);
	}
	for (i = 0; !variant->ops->is_raio && i < ARRAY_SIZE(s); i++)
		sleeper_end(_metadata, &s[i], s[i].nr);
}

/*
 * Who goes without its share. In these the waiters are on the processor of the
 * test and can't run while the test holds it: they have been woken, and don't
 * know what has happened meanwhile.
 */

/* Only what sleeps for itself can let others run. */
static void hold_processor(struct __test_metadata *_metadata)
{
	struct sched_param param = { .sched_priority = 1 };

	ASSERT_EQ(0, sched_setscheduler(0, SCHED_FIFO, &param));
}

static void let_processor(struct __test_metadata *_metadata)
{
	struct sched_param param = { };

	ASSERT_EQ(0, sched_setscheduler(0, SCHED_OTHER, &param));
}

static void no_action(int sig)
{
	(void)sig;
}

static void catch_signals(struct __test_metadata *_metadata)
{
	struct sigaction sa = { .sa_handler = no_action };

	ASSERT_EQ(0, sigaction(SIGUSR1, &sa, NULL));
}

/* How many events have arrived at @s though it hasn't returned. */
static unsigned int sleeper_got(struct sleeper *s)
{
	unsigned int n = 0;

	while (n < s->nr && __atomic_load_n(&s->ev[n].obj, __ATOMIC_RELAXED))
		n++;
	return n;
}

/* It sleeps though it could go on. */
static bool sleeper_stuck(struct sleeper *s)
{
	return sleeper_sleeps(s) && sleeper_got(s) + ring_used(s->aio->ctx) >= s->min_nr;
}

/* Every one of @_nr waiters has returned, or sleeps for what isn't there. */
#define EXPECT_NONE_STUCK(_s, _nr) do {					\
	unsigned int __i;						\
									\
	for (__i = 0; __i < (_nr); __i++) {				\
		EXPECT_TRUE(wait_for(sleeper_done(&(_s)[__i]) ||	\
				     (sleeper_sleeps(&(_s)[__i]) &&	\
				      !sleeper_stuck(&(_s)[__i])))) {	\
			TH_LOG("waiter %u sleeps, %u events are there",	\
			       __i, ring_used((_s)[__i].aio->ctx));	\
		}							\
	}								\
} while (0)

/* Events for which somebody was woken, who hasn't come to it yet, wake nobody else. */
TEST_F(waiters, a_burst_wakes_as_many)
{
	struct sleeper s[8];
	struct iocb io[4];
	unsigned int i, j, asleep;

	pin_to_cpu(0);
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		s[i] = (struct sleeper)WANTS(1, 1);
		sleeper_start(_metadata, &s[i]);
	}
	hold_processor(_metadata);
	for (i = 0; i < ARRAY_SIZE(io); i++) {
		post(_metadata, &self->fed, &io[i], 1, i);
		for (j = 0, asleep = 0; j < ARRAY_SIZE(s); j++)
			asleep += sleeper_sleeps(&s[j]);
		if (variant->ops->is_raio) {
			EXPECT_EQ(ARRAY_SIZE(s) - i - 1, asleep) {
				TH_LOG("asleep after %u events", i + 1);
			}
		}
	}
	let_processor(_metadata);
	post(_metadata, &self->fed, io, 4, 4);
	for (i = 0; i < ARRAY_SIZE(s); i++)
		sleeper_end(_metadata, &s[i], 1);
}

/* Whom the test was quicker than sleeps again, and is woken again. */
TEST_F(waiters, share_is_stolen)
{
	struct sleeper s[] = { WANTS(1, 1), WANTS(1, 1) };
	struct io_event ev;
	struct iocb io;
	unsigned int i, round;

	pin_to_cpu(0);
	for (i = 0; i < ARRAY_SIZE(s); i++)
		sleeper_start(_metadata, &s[i]);
	for (round = 0; round < 4; round++) {
		hold_processor(_metadata);
		post(_metadata, &self->fed, &io, 1, round);
		EXPECT_FALSE(sleeper_sleeps(&s[0]) && sleeper_sleeps(&s[1])) {
			TH_LOG("nobody was woken");
		}
		EXPECT_EQ(1, round % 2 ? aio_poll(&self->fed.aio, 1, &ev) :
					 ring_reap(self->fed.aio.ctx, 1, &ev));
		let_processor(_metadata);
		expect_posted(_metadata, &ev, &io, 1, round);
		for (i = 0; i < ARRAY_SIZE(s); i++) {
			EXPECT_TRUE(wait_for(sleeper_sleeps(&s[i])));
			EXPECT_FALSE(sleeper_done(&s[i]));
		}
	}
	post(_metadata, &self->fed, &io, 1, 7);
	EXPECT_NONE_STUCK(s, 2);
	EXPECT_TRUE(wait_for(sleeper_done(&s[0]) + sleeper_done(&s[1]) == 1));
	post(_metadata, &self->fed, &io, 1, 8);
	for (i = 0; i < ARRAY_SIZE(s); i++)
		sleeper_end(_metadata, &s[i], 1);
	EXPECT_EQ(15, s[0].ev[0].res + s[1].ev[0].res);
}

/* A part of it is stolen: the rest counts, and it sleeps for what is missing. */
TEST_F(waiters, part_of_a_share_is_stolen)
{
	struct sleeper s[] = { WANTS(2, 2), WANTS(2, 2) };
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	pin_to_cpu(0);
	sleeper_start(_metadata, &s[0]);
	sleeper_start(_metadata, &s[1]);
	post(_metadata, &self->fed, &io, 1, 0);
	hold_processor(_metadata);
	post(_metadata, &self->fed, &io, 1, 1);
	ASSERT_EQ(1, ring_reap(self->fed.aio.ctx, 1, &ev));
	let_processor(_metadata);
	EXPECT_NONE_STUCK(s, 2);
	EXPECT_FALSE(sleeper_done(&s[0]) || sleeper_done(&s[1]));
	for (i = 2; i < 5; i++) {
		post(_metadata, &self->fed, &io, 1, i);
		EXPECT_NONE_STUCK(s, 2);
	}
	sleeper_end(_metadata, &s[0], 2);
	sleeper_end(_metadata, &s[1], 2);
}

/* What is left of one is enough for who wants less. In kernel AIO who comes first takes it. */
TEST_F(waiters, rest_of_a_stolen_share)
{
	struct sleeper s[] = { WANTS(2, 2), WANTS(1, 1) };
	struct io_event ev;
	struct iocb io[2];

	if (!variant->ops->is_raio)
		return;
	pin_to_cpu(0);
	sleeper_start(_metadata, &s[0]);
	sleeper_start(_metadata, &s[1]);
	hold_processor(_metadata);
	post(_metadata, &self->fed, io, 2, 0);
	ASSERT_EQ(1, ring_reap(self->fed.aio.ctx, 1, &ev));
	let_processor(_metadata);
	EXPECT_NONE_STUCK(s, 2);
	sleeper_end(_metadata, &s[1], 1);
	EXPECT_TRUE(sleeper_sleeps(&s[0]));
	post(_metadata, &self->fed, io, 2, 2);
	sleeper_end(_metadata, &s[0], 2);
}

/* A signal or the end of the time finds it woken for an event: it has it. */
TEST_F(waiters, share_and_a_signal)
{
	struct sleeper s[] = { WANTS(1, 1), WANTS(1, 1) };
	struct iocb io;

	catch_signals(_metadata);
	pin_to_cpu(0);
	sleeper_start(_metadata, &s[0]);
	sleeper_start(_metadata, &s[1]);
	hold_processor(_metadata);
	post(_metadata, &self->fed, &io, 1, 1);
	pthread_kill(s[0].thread, SIGUSR1);
	let_processor(_metadata);
	if (variant->ops->is_raio) {
		sleeper_end(_metadata, &s[0], 1);
		expect_posted(_metadata, s[0].ev, &io, 1, 1);
	} else {
		sleeper_join(_metadata, &s[0]);
		EXPECT_TRUE(s[0].ret == 1 || s[0].ret == -EINTR);
	}
	EXPECT_NONE_STUCK(s + 1, 1);
	if (s[0].ret == 1)
		post(_metadata, &self->fed, &io, 1, 2);
	sleeper_end(_metadata, &s[1], 1);
}

TEST_F(waiters, share_and_the_end_of_time)
{
	struct __kernel_timespec timeout = { .tv_nsec = 400 * MS };
	struct sleeper s[] = { WANTS(1, 1), WANTS(1, 1) };
	struct iocb io;

	pin_to_cpu(0);
	s[0].timeout = &timeout;
	sleeper_start(_metadata, &s[0]);
	sleeper_start(_metadata, &s[1]);
	hold_processor(_metadata);
	post(_metadata, &self->fed, &io, 1, 1);
	while (now_ns() < s[0].begin + timeout.tv_nsec + MS)
		;
	let_processor(_metadata);
	sleeper_join(_metadata, &s[0]);
	/* If it was not asleep in time, the event is for the other. */
	EXPECT_NONE_STUCK(s + 1, 1);
	if (s[0].ret)
		post(_metadata, &self->fed, &io, 1, 2);
	sleeper_end(_metadata, &s[1], 1);
	EXPECT_LE(0, s[0].ret);
}

/* The event was stolen, then a signal ends the wait: another is for the next. */
TEST_F(waiters, share_is_stolen_and_a_signal)
{
	struct sleeper s[] = { WANTS(1, 1), WANTS(1, 1) };
	struct io_event ev;
	struct iocb io;

	catch_signals(_metadata);
	pin_to_cpu(0);
	sleeper_start(_metadata, &s[0]);
	sleeper_start(_metadata, &s[1]);
	hold_processor(_metadata);
	post(_metadata, &self->fed, &io, 1, 1);
	ASSERT_EQ(1, aio_poll(&self->fed.aio, 1, &ev));
	pthread_kill(s[0].thread, SIGUSR1);
	post(_metadata, &self->fed, &io, 1, 2);
	let_processor(_metadata);
	sleeper_join(_metadata, &s[0]);
	EXPECT_TRUE(s[0].ret == 1 || s[0].ret == -EINTR);
	EXPECT_NONE_STUCK(s + 1, 1);
	if (s[0].ret == 1)
		post(_metadata, &self->fed, &io, 1, 3);
	sleeper_end(_metadata, &s[1], 1);
}

/* Who can't store its events leaves them to the next. */
TEST_F(waiters, share_can_not_be_stored)
{
	struct iocb io[2];
	unsigned int i;

	for (i = 1; i < NR_BAD_PTRS; i++) {
		struct sleeper s[] = { WANTS(1, 1), WANTS(2, 2), WANTS(1, 2), WANTS(1, 1) };

		s[0].events = bad_ptr(i);
		s[2].events = map_before_hole(sizeof(struct io_event) / 2);
		sleeper_start(_metadata, &s[0]);
		sleeper_start(_metadata, &s[1]);
		sleeper_start(_metadata, &s[2]);
		sleeper_start(_metadata, &s[3]);
		post(_metadata, &self->fed, io, 1, i);
		sleeper_end(_metadata, &s[3], 1);
		expect_posted(_metadata, s[3].ev, io, 1, i);
		/* In kernel AIO it was perhaps the first to try. */
		if (!variant->ops->is_raio)
			post(_metadata, &self->fed, io, 1, i);
		sleeper_end(_metadata, &s[0], -EFAULT);
		sleeper_end(_metadata, &s[2], -EFAULT);
		EXPECT_TRUE(sleeper_sleeps(&s[1]));
		post(_metadata, &self->fed, io, variant->ops->is_raio ? 2 : 1, i);
		sleeper_end(_metadata, &s[1], 2);
	}
}

/* The context goes while one has been woken, and others have not. */
TEST_F(waiters, share_and_the_end_of_the_context)
{
	struct sleeper s[] = { WANTS(1, 1), WANTS(1, 1), WANTS(2, 2) };
	unsigned int i, got = 0;
	struct iocb io;

	pin_to_cpu(0);
	for (i = 0; i < ARRAY_SIZE(s); i++)
		sleeper_start(_metadata, &s[i]);
	hold_processor(_metadata);
	post(_metadata, &self->fed, &io, 1, 1);
	EXPECT_EQ(0, aio_destroy(&self->fed.aio, self->fed.aio.ctx));
	let_processor(_metadata);
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		sleeper_join(_metadata, &s[i]);
		EXPECT_TRUE(s[i].ret == 1 || s[i].ret == -EINVAL) {
			TH_LOG("waiter %u: %ld", i, s[i].ret);
		}
		got += s[i].ret == 1;
	}
	EXPECT_GE(1, got);
	self->fed.aio.ctx = 0;
}

/*
 * A waiter that can be killed without the test: a process with the memory and
 * the descriptors of this one. Its errno is ours, so only a call that succeeds
 * may return in it.
 */
static int sleeper_process(void *data)
{
	struct sleeper *s = data;

	s->ret = sleeper_call(s);
	__atomic_store_n(&s->done, true, __ATOMIC_RELEASE);
	return 0;
}

static pid_t sleeper_fork(struct __test_metadata *_metadata, struct sleeper *s)
{
	char *stack = map_pages(16 * PAGE);
	pid_t pid = clone(sleeper_process, stack + 16 * PAGE, CLONE_VM | CLONE_FILES | SIGCHLD, s);

	ASSERT_LT(0, pid);
	__atomic_store_n(&s->tid, pid, __ATOMIC_RELEASE);
	ASSERT_TRUE(wait_for(sleeper_sleeps(s)));
	return pid;
}

TEST_F(waiters, killed)
{
	struct sleeper s[] = { WANTS(1, 1), WANTS(1, 1) };
	struct iocb io;
	pid_t pid;

	pid = sleeper_fork(_metadata, &s[0]);
	sleeper_start(_metadata, &s[1]);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(SIGKILL, wait_child(pid));
	EXPECT_TRUE(sleeper_sleeps(&s[1]));
	post(_metadata, &self->fed, &io, 1, 3);
	sleeper_end(_metadata, &s[1], 1);
	expect_posted(_metadata, s[1].ev, &io, 1, 3);
	EXPECT_EQ(0, sleeper_got(&s[0]));
}

/* It may still read the event; if it doesn't, that is for the other. */
TEST_F(waiters, killed_with_its_share)
{
	unsigned int round;
	struct iocb io;
	pid_t pid;

	pin_to_cpu(0);
	for (round = 0; round < 10; round++) {
		struct sleeper s[] = { WANTS(1, 1), WANTS(1, 1) };

		pid = sleeper_fork(_metadata, &s[0]);
		sleeper_start(_metadata, &s[1]);
		hold_processor(_metadata);
		if (round % 2)
			post(_metadata, &self->fed, &io, 1, 3);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		if (!(round % 2))
			post(_metadata, &self->fed, &io, 1, 3);
		let_processor(_metadata);
		EXPECT_EQ(SIGKILL, wait_child(pid));
		EXPECT_NONE_STUCK(s + 1, 1);
		if (sleeper_got(&s[0])) {
			EXPECT_FALSE(sleeper_done(&s[1]));
			post(_metadata, &self->fed, &io, 1, 4);
		}
		sleeper_end(_metadata, &s[1], 1);
	}
}

/*
 * It has been woken and waits for a reader whom a page fault holds, and is
 * killed there. (In kernel AIO it has to wait for the reader first.)
 */
TEST_F(waiters, killed_behind_a_reader)
{
	struct sleeper s[] = { WANTS(2, 2), WANTS(2, 2) };
	struct sleeper reader = WANTS(1, 1);
	char *held = map_pages(PAGE);
	struct io_event page[PAGE / sizeof(struct io_event)] = { };
	struct io_event ev;
	int uffd = uffd_open();
	struct iocb io[4];
	pid_t pid;

	ASSERT_LE(0, uffd);
	ASSERT_EQ(0, uffd_missing(uffd, held, PAGE));
	pid = sleeper_fork(_metadata, &s[0]);
	sleeper_start(_metadata, &s[1]);
	post(_metadata, &self->fed, io, 1, 0);
	reader.events = (void *)held;
	ASSERT_EQ(0, pthread_create(&reader.thread, NULL, sleeper_thread, &reader));
	ASSERT_TRUE(uffd_wait(uffd));
	post(_metadata, &self->fed, io + 1, 1, 1);
	EXPECT_TRUE(wait_for(task_state(pid) == 'D'));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	if (variant->ops->is_raio)
		EXPECT_EQ(SIGKILL, wait_child(pid));
	EXPECT_EQ(0, uffd_fill(uffd, held, page));
	if (!variant->ops->is_raio)
		EXPECT_EQ(SIGKILL, wait_child(pid));
	sleeper_end(_metadata, &reader, 1);
	expect_posted(_metadata, (void *)held, io, 1, 0);

	EXPECT_NONE_STUCK(s + 1, 1);
	post(_metadata, &self->fed, io + 2, 1, 2);
	EXPECT_NONE_STUCK(s + 1, 1);
	if (sleeper_got(&s[0])) {
		EXPECT_FALSE(sleeper_done(&s[1]));
		post(_metadata, &self->fed, io + 3, 1, 3);
	}
	sleeper_end(_metadata, &s[1], 2);
	EXPECT_EQ(0, aio_poll(&self->fed.aio, 1, &ev));
	close(uffd);
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
		unsigned int n = event_iocb(&ev[i]) - io;

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

/*
 * Storms: waiters with random wishes, times and signals against a poster. In
 * the end each event has come once, and nobody sleeps who could go on.
 */
FIXTURE(storm)
{
	struct fed fed;
};

/* @dev is the test device from which the events come, or NULL. */
FIXTURE_VARIANT(storm)
{
	const struct aio_ops *ops;
	const char *dev;
	const char *mode;
	unsigned int total;
};

FIXTURE_VARIANT_ADD(storm, kernel_aio)
{
	.ops = &kernel_aio, .total = 10000,
};

FIXTURE_VARIANT_ADD(storm, raio)
{
	.ops = &raio, .total = 10000,
};

FIXTURE_VARIANT_ADD(storm, kernel_aio_timer)
{
	.ops = &kernel_aio, .dev = "c0", .mode = "timer 20000", .total = 5000,
};

FIXTURE_VARIANT_ADD(storm, raio_timer)
{
	.ops = &raio, .dev = "c0", .mode = "timer 20000", .total = 5000,
};

FIXTURE_VARIANT_ADD(storm, raio_softirq)
{
	.ops = &raio, .dev = "c0", .mode = "softirq", .total = 5000,
};

FIXTURE_SETUP(storm)
{
	testdev_begin();
	fed_begin(_metadata, &self->fed, variant->ops);
	if (variant->dev) {
		testdev_cmd("%s mode %s", variant->dev, variant->mode);
		close(self->fed.zero);
		self->fed.zero = testdev_open(variant->dev, 0);
	}
}

FIXTURE_TEARDOWN(storm)
{
	fed_end(_metadata, &self->fed);
	testdev_reset();
}

#define STORMERS	8
#define MOST_WANTED	8

/**
 * struct storm - what its threads share
 * @aio:	the context
 * @seen:	how often each event has come
 * @taken:	how many have
 * @wrong:	errors that should not have been
 * @calm:	no more timeouts or signals
 */
struct storm {
	struct aio aio;
	unsigned char *seen;
	unsigned int total;
	unsigned int taken;
	unsigned int wrong;
	bool calm;
};

struct stormer {
	struct sleeper s;
	struct storm *storm;
	pthread_t thread;
	uint64_t state;
	bool for_ever;
	bool gone;
};

static void storm_take(struct storm *storm, const struct io_event *ev, long nr)
{
	long i;

	for (i = 0; i < nr; i++) {
		if (ev[i].data < storm->total)
			__atomic_add_fetch(&storm->seen[ev[i].data], 1, __ATOMIC_RELAXED);
		else
			__atomic_add_fetch(&storm->wrong, 1, __ATOMIC_RELAXED);
	}
	__atomic_add_fetch(&storm->taken, nr, __ATOMIC_RELAXED);
}

static void *stormer_thread(void *data)
{
	struct stormer *me = data;
	struct storm *storm = me->storm;
	struct sleeper *s = &me->s;
	struct __kernel_timespec timeout = { };
	sigset_t none, usr1;
	int err = 0;

	sigemptyset(&none);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	if (me->state & 1)
		pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	if (me->state & 2)
		pin_to_cpu(1);
	s->aio = &storm->aio;
	__atomic_store_n(&s->tid, gettid(), __ATOMIC_RELEASE);
	while (err != -EINVAL) {
		bool calm = __atomic_load_n(&storm->calm, __ATOMIC_ACQUIRE);
		uint64_t dice = next_random(&me->state);

		s->min_nr = dice % 5;
		s->nr = s->min_nr + (dice >> 8) % 4;
		s->mask = dice & (1 << 16) ? &none : NULL;
		s->timeout = NULL;
		s->events = NULL;
		s->min_wait = 0;
		if (calm) {
			s->min_nr += !s->min_nr;
			s->nr = s->min_nr;
		} else {
			if ((dice >> 24) % 4)
				s->timeout = &timeout;
			timeout.tv_nsec = (dice >> 26) % 4 * ((dice >> 32) % MS);
			if (!((dice >> 52) % 16))
				s->events = KERNEL_PTR;
			if (s->aio->ops->is_raio && !((dice >> 56) % 4))
				s->min_wait = 1 + (dice >> 40) % MS;
		}
		memset(s->ev, 0, MOST_WANTED * sizeof(*s->ev));
		__atomic_store_n(&me->for_ever, !s->timeout, __ATOMIC_RELEASE);
		err = sleeper_call(s);
		__atomic_store_n(&me->for_ever, false, __ATOMIC_RELEASE);
		if (err > 0)
			storm_take(storm, s->ev, err);
		else if (err != 0 && err != -EINTR && err != -EINVAL &&
			 !(err == -EFAULT && s->events))
			__atomic_add_fetch(&storm->wrong, 1, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&me->gone, true, __ATOMIC_RELEASE);
	return NULL;
}

/* It sleeps, and for good unless something is posted. */
static bool stormer_rests(struct stormer *me)
{
	long need = me->s.min_wait ? 1 : me->s.min_nr;

	return __atomic_load_n(&me->for_ever, __ATOMIC_ACQUIRE) && sleeper_sleeps(&me->s) &&
	       sleeper_got(&me->s) + ring_used(me->s.aio->ctx) < need;
}

struct signaller {
	struct stormer *to;
	bool stop;
};

static void *signaller_thread(void *data)
{
	struct signaller *me = data;
	uint64_t state = 11;

	while (!__atomic_load_n(&me->stop, __ATOMIC_ACQUIRE)) {
		pthread_kill(me->to[next_random(&state) % STORMERS].thread, SIGUSR1);
		usleep(next_random(&state) % 500);
	}
	return NULL;
}

TEST_F_TIMEOUT(storm, of_everything, 120)
{
	struct storm storm = { .aio = self->fed.aio, .total = variant->total };
	struct stormer stormers[STORMERS] = { };
	struct signaller signaller = { .to = stormers };
	struct raio_ring *ring = aio_ring(self->fed.aio.ctx);
	struct io_event left[EVENTS];
	struct iocb io[MOST_WANTED], *iop[MOST_WANTED];
	unsigned int i, posted = 0;
	uint64_t state = 9;
	pthread_t thread;
	long long last;
	long ret;

	catch_signals(_metadata);
	storm.seen = calloc(variant->total, 1);
	ASSERT_NE(NULL, storm.seen);
	for (i = 0; i < STORMERS; i++) {
		stormers[i].storm = &storm;
		stormers[i].state = i;
		ASSERT_EQ(0, pthread_create(&stormers[i].thread, NULL, stormer_thread,
					    &stormers[i]));
	}
	ASSERT_EQ(0, pthread_create(&thread, NULL, signaller_thread, &signaller));
	pin_to_cpu(0);
	last = now_ns();
	while (posted < variant->total) {
		uint64_t dice = next_random(&state);
		unsigned int n = 1 + dice % MOST_WANTED;

		n = MIN(n, variant->total - posted);
		for (i = 0; i < n; i++) {
			iocb_prep(&io[i], IOCB_CMD_PREAD, self->fed.zero, self->fed.buf, 8, 0);
			io[i].aio_data = posted + i;
			iop[i] = &io[i];
		}
		ret = aio_submit(&self->fed.aio, n, iop);
		ASSERT_TRUE(ret > 0 || ret == -EAGAIN);
		if (ret > 0) {
			posted += ret;
			last = now_ns();
		} else {
			ASSERT_GT(last + WAIT_SECONDS * 1000 * MS, now_ns()) {
				TH_LOG("the ring is full and nobody reads it");
			}
			sched_yield();
		}
		/* Sometimes all have the time to go to sleep. */
		if (!((dice >> 8) % 64))
			usleep((dice >> 16) % 2000);
	}
	ASSERT_TRUE(wait_for(__atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) ==
			     variant->total % ring->nr));
	__atomic_store_n(&signaller.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	__atomic_store_n(&storm.calm, true, __ATOMIC_RELEASE);

	for (i = 0; i < STORMERS; i++) {
		EXPECT_TRUE(wait_for(stormer_rests(&stormers[i]))) {
			TH_LOG("waiter %u: min_nr %ld, got %u, in the ring %u, state %c", i,
			       stormers[i].s.min_nr, sleeper_got(&stormers[i].s),
			       ring_used(storm.aio.ctx), task_state(stormers[i].s.tid));
		}
	}
	ret = aio_poll(&self->fed.aio, EVENTS, left);
	ASSERT_LE(0, ret);
	storm_take(&storm, left, ret);
	EXPECT_EQ(0, aio_destroy(&self->fed.aio, self->fed.aio.ctx));
	self->fed.aio.ctx = 0;
	for (i = 0; i < STORMERS; i++) {
		ASSERT_TRUE(wait_for(__atomic_load_n(&stormers[i].gone, __ATOMIC_ACQUIRE)));
		pthread_join(stormers[i].thread, NULL);
	}
	EXPECT_EQ(0, storm.wrong);
	EXPECT_EQ(variant->total, storm.taken);
	for (i = 0; i < variant->total; i++) {
		EXPECT_EQ(1, storm.seen[i]) {
			TH_LOG("event %u", i);
		}
	}
}

TEST_HARNESS_MAIN
