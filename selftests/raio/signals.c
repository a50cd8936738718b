// SPDX-License-Identifier: GPL-2.0
/*
 * Signals that come while somebody waits for events, as io_getevents(2) and
 * io_pgetevents(2) have them: which end the wait, which mask is there when, and
 * what becomes of the events.
 */
#include <ucontext.h>

#include "raio_wait.h"

FIXTURE(signals)
{
	struct fed fed;
	sigset_t none;
	const sigset_t *mask;
};

/* With @mask the wait is that of io_pgetevents(2). */
FIXTURE_VARIANT(signals)
{
	const struct aio_ops *ops;
	bool mask;
};

FIXTURE_VARIANT_ADD(signals, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(signals, kernel_aio_mask)
{
	.ops = &kernel_aio, .mask = true,
};

FIXTURE_VARIANT_ADD(signals, raio)
{
	.ops = &raio,
};

FIXTURE_VARIANT_ADD(signals, raio_mask)
{
	.ops = &raio, .mask = true,
};

FIXTURE_SETUP(signals)
{
	fed_begin(_metadata, &self->fed, variant->ops);
	sigemptyset(&self->none);
	self->mask = variant->mask ? &self->none : NULL;
}

FIXTURE_TEARDOWN(signals)
{
	fed_end(_metadata, &self->fed);
}

/* One that waits for @_min of at most @_nr events. */
#define WANTS(_min, _nr) \
	{ .aio = &self->fed.aio, .min_nr = (_min), .nr = (_nr), .mask = self->mask }

static unsigned int handled;

static void handle(int sig)
{
	(void)sig;
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELEASE);
}

static unsigned int handled_now(void)
{
	return __atomic_load_n(&handled, __ATOMIC_ACQUIRE);
}

static void catch(struct __test_metadata *_metadata, int sig, int flags)
{
	struct sigaction sa = { .sa_handler = handle, .sa_flags = flags };

	ASSERT_EQ(0, sigaction(sig, &sa, NULL));
}

/* Never started again, whatever the handler asks for. */
TEST_F(signals, end_the_wait)
{
	const int flags[] = { 0, SA_RESTART };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		struct sleeper s = WANTS(1, 1);

		catch(_metadata, SIGUSR1, flags[i]);
		sleeper_start(_metadata, &s);
		pthread_kill(s.thread, SIGUSR1);
		sleeper_end(_metadata, &s, -EINTR);
		EXPECT_EQ(i + 1, handled_now());
	}
}

/* With a timeout it is no different. */
TEST_F(signals, end_the_wait_before_its_time)
{
	struct __kernel_timespec timeout = { .tv_sec = 1000 };
	struct sleeper s = WANTS(1, 1);

	catch(_metadata, SIGUSR1, SA_RESTART);
	s.timeout = &timeout;
	sleeper_start(_metadata, &s);
	pthread_kill(s.thread, SIGUSR1);
	sleeper_end(_metadata, &s, -EINTR);
	EXPECT_EQ(1000, timeout.tv_sec);
}

/* What had been read by then is not lost. */
TEST_F(signals, leave_the_events)
{
	struct sleeper s = WANTS(4, 5);
	struct iocb io[3];

	catch(_metadata, SIGUSR1, 0);
	post(_metadata, &self->fed, io, 2, 70);
	sleeper_start(_metadata, &s);
	post(_metadata, &self->fed, io + 2, 1, 72);
	pthread_kill(s.thread, SIGUSR1);
	sleeper_end(_metadata, &s, 3);
	expect_posted(_metadata, s.ev, io, 3, 70);
	EXPECT_EQ(1, handled_now());
}

/* An ignored signal is none, and one that is blocked is none yet. */
TEST_F(signals, ignored_or_blocked)
{
	struct sleeper s = WANTS(1, 1);
	struct iocb io;
	sigset_t set;

	signal(SIGUSR1, SIG_IGN);
	catch(_metadata, SIGUSR2, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&self->none, SIGUSR2);
	ASSERT_EQ(0, pthread_sigmask(SIG_BLOCK, &set, NULL));
	sleeper_start(_metadata, &s);
	pthread_kill(s.thread, SIGUSR1);
	pthread_kill(s.thread, SIGUSR2);
	EXPECT_TRUE(sleeper_sleeps(&s));
	post(_metadata, &self->fed, &io, 1, 8);
	sleeper_end(_metadata, &s, 1);
	expect_posted(_metadata, s.ev, &io, 1, 8);
	EXPECT_EQ(0, handled_now());
}

/*
 * A process of its own, to be stopped and killed: one thread waits, the other
 * posts an event when told to.
 */
struct stopped {
	struct sleeper s;
	struct line line;
	struct fed fed;
};

static pid_t stopped_fork(struct __test_metadata *_metadata, const struct aio_ops *ops,
			  const sigset_t *mask, struct stopped **stp)
{
	struct stopped *st = mmap(NULL, sizeof(*st), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	ASSERT_NE(MAP_FAILED, st);
	line_open(_metadata, &st->line);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct iocb io;

		line_child(&st->line);
		fed_begin(_metadata, &st->fed, ops);
		st->s = (struct sleeper){ .aio = &st->fed.aio, .min_nr = 1, .nr = 1, .mask = mask };
		if (pthread_create(&st->s.thread, NULL, sleeper_thread, &st->s))
			_exit(1);
		if (line_wait(st->line.fds[1]))
			post_try(&st->fed, &io, 1, 1);
		pthread_join(st->s.thread, NULL);
		_exit(0);
	}
	line_parent(&st->line);
	*stp = st;
	ASSERT_TRUE(wait_for(__atomic_load_n(&st->s.tid, __ATOMIC_ACQUIRE) &&
			     sleeper_sleeps(&st->s)));
	return pid;
}

/*
 * Nobody handles SIGSTOP and SIGCONT. io_getevents(2) ends all the same,
 * io_pgetevents(2) is started again.
 */
TEST_F(signals, stopped_and_continued)
{
	struct stopped *st;
	pid_t pid = stopped_fork(_metadata, variant->ops, self->mask, &st);
	unsigned int i;
	int status;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, kill(pid, SIGSTOP));
		ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
		ASSERT_TRUE(WIFSTOPPED(status));
		ASSERT_EQ(0, kill(pid, SIGCONT));
		if (!variant->mask)
			break;
		EXPECT_TRUE(wait_for(sleeper_sleeps(&st->s)));
		EXPECT_FALSE(sleeper_done(&st->s));
	}
	if (!variant->mask) {
		EXPECT_TRUE(wait_for(sleeper_done(&st->s)));
		EXPECT_EQ(-EINTR, st->s.ret);
	}
	EXPECT_TRUE(line_tell(st->line.fds[0]));
	EXPECT_EQ(0, wait_child(pid));
	if (variant->mask)
		EXPECT_EQ(1, st->s.ret);
}

/* What no mask can block. */
TEST_F(signals, kill_and_stop)
{
	struct stopped *st;
	sigset_t all;
	int status;
	pid_t pid;

	sigfillset(&all);
	pid = stopped_fork(_metadata, variant->ops, self->mask ? &all : NULL, &st);
	ASSERT_EQ(0, kill(pid, SIGSTOP));
	ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
	EXPECT_TRUE(WIFSTOPPED(status));
	ASSERT_EQ(0, kill(pid, SIGCONT));
	EXPECT_TRUE(wait_for(sleeper_sleeps(&st->s) || sleeper_done(&st->s)));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(SIGKILL, wait_child(pid));
}

/* The mask. */
FIXTURE(mask)
{
	struct fed fed;
	sigset_t none;
	sigset_t all;
	sigset_t usr1;
	sigset_t before;
};

FIXTURE_VARIANT(mask)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(mask, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(mask, raio)
{
	.ops = &raio,
};

/* SIGUSR1 is blocked and has a handler. */
FIXTURE_SETUP(mask)
{
	fed_begin(_metadata, &self->fed, variant->ops);
	sigemptyset(&self->none);
	sigfillset(&self->all);
	sigemptyset(&self->usr1);
	sigaddset(&self->usr1, SIGUSR1);
	ASSERT_EQ(0, pthread_sigmask(SIG_BLOCK, &self->usr1, NULL));
	ASSERT_EQ(0, pthread_sigmask(SIG_BLOCK, NULL, &self->before));
	catch(_metadata, SIGUSR1, SA_RESTART);
}

FIXTURE_TEARDOWN(mask)
{
	fed_end(_metadata, &self->fed);
}

static bool is_blocked(int sig)
{
	sigset_t now;

	pthread_sigmask(SIG_BLOCK, NULL, &now);
	return sigismember(&now, sig);
}

static bool is_pending(int sig)
{
	sigset_t now;

	sigpending(&now);
	return sigismember(&now, sig);
}

#define EXPECT_OLD_MASK() do {						\
	sigset_t __now;							\
									\
	pthread_sigmask(SIG_BLOCK, NULL, &__now);			\
	EXPECT_EQ(0, memcmp(&__now, &self->before, MASK_SIZE));		\
} while (0)

#define PGETEVENTS(_min, _nr, _ev, _timeout, _mask) \
	aio_pgetevents(&self->fed.aio, (_min), (_nr), (_ev), (_timeout), (_mask))

/* One that is pending ends the call, even if that would not wait. */
TEST_F(mask, pending)
{
	struct __kernel_timespec zero = { }, long_time = { .tv_sec = 1000 };
	struct {
		long min_nr;
		long nr;
		struct __kernel_timespec *timeout;
	} calls[] = {
		{ 1, 1, NULL }, { 1, 1, &long_time }, { 1, 1, &zero }, { 0, 1, &zero },
		{ 0, 1, NULL }, { 0, 0, NULL },
	};
	struct io_event ev;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		raise(SIGUSR1);
		ASSERT_EQ(i, handled_now());
		EXPECT_EQ(-EINTR, PGETEVENTS(calls[i].min_nr, calls[i].nr, &ev, calls[i].timeout,
					     &self->none)) {
			TH_LOG("call %u", i);
		}
		EXPECT_EQ(i + 1, handled_now());
		EXPECT_FALSE(is_pending(SIGUSR1));
		EXPECT_OLD_MASK();
	}
}

/* It is handled also when there is something else to return. */
TEST_F(mask, pending_with_a_result)
{
	struct __kernel_timespec zero = { };
	struct io_event ev[3];
	struct iocb io[3];

	post(_metadata, &self->fed, io, 3, 5);
	raise(SIGUSR1);
	EXPECT_EQ(1, PGETEVENTS(1, 1, ev, NULL, &self->none));
	expect_posted(_metadata, ev, io, 1, 5);
	EXPECT_EQ(1, handled_now());
	EXPECT_OLD_MASK();

	raise(SIGUSR1);
	EXPECT_EQ(-EFAULT, PGETEVENTS(1, 1, bad_ptr(1), NULL, &self->none));
	EXPECT_EQ(2, handled_now());
	EXPECT_OLD_MASK();

	raise(SIGUSR1);
	EXPECT_EQ(-EINVAL, PGETEVENTS(2, 1, ev, NULL, &self->none));
	EXPECT_EQ(3, handled_now());
	EXPECT_OLD_MASK();

	raise(SIGUSR1);
	EXPECT_EQ(-EINVAL, variant->ops->pgetevents(self->fed.aio.dev, 0, 0, 1, ev, &zero,
						    &self->none, MASK_SIZE));
	EXPECT_EQ(4, handled_now());
	EXPECT_OLD_MASK();

	/* Fewer than were asked for, and no time to wait. */
	raise(SIGUSR1);
	EXPECT_EQ(2, PGETEVENTS(3, 3, ev, NULL, &self->none));
	expect_posted(_metadata, ev, io + 1, 2, 6);
	EXPECT_EQ(5, handled_now());
	EXPECT_OLD_MASK();
}

/* What the mask blocks too goes on pending. */
TEST_F(mask, pending_and_blocked)
{
	struct __kernel_timespec timeout = { .tv_nsec = MS };
	struct io_event ev;

	raise(SIGUSR1);
	EXPECT_EQ(0, PGETEVENTS(1, 1, &ev, &timeout, &self->usr1));
	EXPECT_EQ(0, PGETEVENTS(1, 1, &ev, &timeout, &self->all));
	EXPECT_EQ(0, PGETEVENTS(1, 1, &ev, &timeout, NULL));
	EXPECT_EQ(0, aio_getevents(&self->fed.aio, 1, 1, &ev, &timeout));
	EXPECT_EQ(0, handled_now());
	EXPECT_TRUE(is_pending(SIGUSR1));
	EXPECT_OLD_MASK();
}

/* Nobody handles it: it is gone, and the call goes on. */
TEST_F(mask, pending_and_ignored)
{
	struct __kernel_timespec zero = { }, timeout = { .tv_nsec = MS };
	struct io_event ev;
	long long begin;

	signal(SIGUSR1, SIG_IGN);
	raise(SIGUSR1);
	ASSERT_TRUE(is_pending(SIGUSR1));
	EXPECT_EQ(0, PGETEVENTS(1, 1, &ev, &zero, &self->none));
	EXPECT_FALSE(is_pending(SIGUSR1));
	EXPECT_OLD_MASK();

	raise(SIGUSR1);
	begin = now_ns();
	EXPECT_EQ(0, PGETEVENTS(1, 1, &ev, &timeout, &self->none));
	EXPECT_LE(MS, now_ns() - begin);
	EXPECT_FALSE(is_pending(SIGUSR1));
	EXPECT_OLD_MASK();
}

/* As long as it waits, and no longer, the mask keeps out what it blocks. */
TEST_F(mask, blocks)
{
	struct sleeper s = { .aio = &self->fed.aio, .min_nr = 1, .nr = 1, .mask = &self->all };
	struct iocb io;

	ASSERT_EQ(0, pthread_sigmask(SIG_UNBLOCK, &self->usr1, NULL));
	sleeper_start(_metadata, &s);
	pthread_kill(s.thread, SIGUSR1);
	EXPECT_TRUE(sleeper_sleeps(&s));
	EXPECT_EQ(0, handled_now());
	post(_metadata, &self->fed, &io, 1, 2);
	sleeper_end(_metadata, &s, 1);
	EXPECT_EQ(1, handled_now());
}

TEST_F(mask, is_put_back)
{
	const sigset_t *const masks[] = { &self->none, &self->all, &self->usr1 };
	struct __kernel_timespec timeout = { .tv_nsec = 1000 };
	aio_context_t ctx = self->fed.aio.ctx;
	struct io_event ev[2];
	struct iocb io;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(masks); i++) {
		EXPECT_EQ(0, PGETEVENTS(1, 1, ev, &timeout, masks[i]));
		EXPECT_OLD_MASK();
		EXPECT_EQ(0, PGETEVENTS(0, 1, ev, NULL, masks[i]));
		EXPECT_OLD_MASK();
		EXPECT_EQ(-EINVAL, PGETEVENTS(1, 0, ev, NULL, masks[i]));
		EXPECT_OLD_MASK();
		EXPECT_EQ(-EFAULT, PGETEVENTS(1, 1, ev, bad_ptr(2), masks[i]));
		EXPECT_OLD_MASK();
		self->fed.aio.ctx = 0;
		EXPECT_EQ(-EINVAL, PGETEVENTS(1, 1, ev, NULL, masks[i]));
		EXPECT_OLD_MASK();
		self->fed.aio.ctx = ctx;
		post(_metadata, &self->fed, &io, 1, i);
		EXPECT_EQ(-EFAULT, PGETEVENTS(1, 1, bad_ptr(1), NULL, masks[i]));
		EXPECT_OLD_MASK();
		EXPECT_EQ(1, PGETEVENTS(1, 2, ev, NULL, masks[i]));
		EXPECT_OLD_MASK();
		expect_posted(_metadata, ev, &io, 1, i);
	}
	EXPECT_TRUE(is_blocked(SIGUSR1));
	EXPECT_FALSE(is_blocked(SIGUSR2));
}

static sigset_t in_handler, after_handler;

static void handle_mask(int sig, siginfo_t *info, void *context)
{
	(void)info;
	pthread_sigmask(SIG_BLOCK, NULL, &in_handler);
	after_handler = ((ucontext_t *)context)->uc_sigmask;
	handle(sig);
}

/* The handler has the mask of the wait, and what its own says; then the old one is back. */
TEST_F(mask, in_the_handler)
{
	struct sigaction sa = { .sa_sigaction = handle_mask, .sa_flags = SA_SIGINFO };
	sigset_t mask = self->none, expected;
	struct io_event ev;

	sigaddset(&sa.sa_mask, SIGALRM);
	sigaddset(&mask, SIGHUP);
	ASSERT_EQ(0, sigaction(SIGUSR1, &sa, NULL));
	raise(SIGUSR1);
	EXPECT_EQ(-EINTR, PGETEVENTS(1, 1, &ev, NULL, &mask));
	EXPECT_EQ(1, handled_now());
	expected = mask;
	sigaddset(&expected, SIGALRM);
	sigaddset(&expected, SIGUSR1);
	EXPECT_EQ(0, memcmp(&expected, &in_handler, MASK_SIZE));
	EXPECT_EQ(0, memcmp(&self->before, &after_handler, MASK_SIZE));
	EXPECT_OLD_MASK();
}

/* Each call takes one of those that wait, for the old mask is back after the first. */
TEST_F(mask, one_at_a_time)
{
	struct __kernel_timespec zero = { };
	struct io_event ev;
	unsigned int i;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	ASSERT_EQ(0, pthread_sigmask(SIG_BLOCK, &set, NULL));
	catch(_metadata, SIGRTMIN, 0);
	for (i = 0; i < 5; i++)
		raise(SIGRTMIN);
	for (i = 0; i < 5; i++) {
		EXPECT_EQ(-EINTR, PGETEVENTS(1, 1, &ev, &zero, &self->none));
		EXPECT_EQ(i + 1, handled_now());
	}
	EXPECT_EQ(0, PGETEVENTS(1, 1, &ev, &zero, &self->none));
}

/*
 * Blocked but for the wait, no signal is missed, whenever it comes: what
 * io_pgetevents(2) is for.
 */
#define SIGNALS	2000

struct catcher {
	struct aio *aio;
	const sigset_t *mask;
	unsigned int caught;
	unsigned int wrong;
};

static void *catcher_thread(void *data)
{
	struct catcher *c = data;
	struct io_event ev;
	unsigned int i;

	pin_to_cpu(1);
	for (i = 0; i < SIGNALS; i++) {
		c->wrong += aio_pgetevents(c->aio, 1, 1, &ev, NULL, c->mask) != -EINTR;
		__atomic_store_n(&c->caught, i + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

TEST_F(mask, none_is_missed)
{
	struct catcher c = { .aio = &self->fed.aio, .mask = &self->none };
	pthread_t thread;
	unsigned int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, catcher_thread, &c));
	pin_to_cpu(0);
	for (i = 0; i < SIGNALS; i++) {
		long long end = now_ns() + WAIT_SECONDS * 1000 * MS / 2;

		ASSERT_EQ(0, pthread_kill(thread, SIGUSR1));
		while (__atomic_load_n(&c.caught, __ATOMIC_ACQUIRE) <= i && now_ns() < end)
			sched_yield();
		ASSERT_LT(i, __atomic_load_n(&c.caught, __ATOMIC_ACQUIRE)) {
			TH_LOG("signal %u was missed", i);
		}
	}
	pthread_join(thread, NULL);
	EXPECT_EQ(0, c.wrong);
	EXPECT_EQ(SIGNALS, handled_now());
}

/* Its arguments. */

TEST_F(mask, bad_size)
{
	const size_t sizes[] = { 0, 1, 4, 7, 9, 12, 16, 128, INT_MAX, UINT_MAX };
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	post(_metadata, &self->fed, &io, 1, 1);
	raise(SIGUSR1);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		EXPECT_EQ(-EINVAL, variant->ops->pgetevents(self->fed.aio.dev, self->fed.aio.ctx,
							    1, 1, &ev, NULL, &self->none,
							    sizes[i])) {
			TH_LOG("size %zu", sizes[i]);
		}
		EXPECT_OLD_MASK();
	}
	EXPECT_EQ(0, handled_now());
	/* Without a mask nobody looks at its size. */
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		EXPECT_EQ(i ? 0 : 1, variant->ops->pgetevents(self->fed.aio.dev,
							      self->fed.aio.ctx, 0, 1, &ev,
							      NULL, NULL, sizes[i])) {
			TH_LOG("size %zu", sizes[i]);
		}
	}
	EXPECT_EQ(0, handled_now());
	expect_posted(_metadata, &ev, &io, 1, 1);
}

TEST_F(mask, bad_address)
{
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	post(_metadata, &self->fed, &io, 1, 1);
	raise(SIGUSR1);
	for (i = 1; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(-EFAULT, PGETEVENTS(1, 1, &ev, NULL, bad_ptr(i))) {
			TH_LOG("mask at %p", bad_ptr(i));
		}
		/* It comes before the context and the numbers, */
		EXPECT_EQ(-EFAULT, PGETEVENTS(2, 1, &ev, NULL, bad_ptr(i)));
		EXPECT_EQ(-EFAULT, variant->ops->pgetevents(self->fed.aio.dev, 0, 1, 1, &ev, NULL,
							    bad_ptr(i), MASK_SIZE));
		/* after its size, */
		EXPECT_EQ(-EINVAL, variant->ops->pgetevents(self->fed.aio.dev, self->fed.aio.ctx,
							    1, 1, &ev, NULL, bad_ptr(i), 4));
		/* which comes after the timeout. */
		EXPECT_EQ(-EFAULT, variant->ops->pgetevents(self->fed.aio.dev, self->fed.aio.ctx,
							    1, 1, &ev, bad_ptr(i), &self->none,
							    4));
		EXPECT_OLD_MASK();
	}
	EXPECT_EQ(-EFAULT, PGETEVENTS(1, 1, &ev, NULL, map_before_hole(MASK_SIZE - 1)));
	EXPECT_OLD_MASK();
	EXPECT_EQ(0, handled_now());
	EXPECT_EQ(1, aio_poll(&self->fed.aio, 1, &ev));
	expect_posted(_metadata, &ev, &io, 1, 1);
}

/* It is only read, and need not be aligned. */
TEST_F(mask, any_address)
{
	char *packed = map_before_hole(MASK_SIZE + 1);
	struct __kernel_timespec zero = { };
	struct io_event ev;

	memcpy(packed, &self->none, MASK_SIZE);
	raise(SIGUSR1);
	EXPECT_EQ(-EINTR, PGETEVENTS(1, 1, &ev, &zero, (sigset_t *)packed));
	packed = map_before_hole(MASK_SIZE);
	memcpy(packed, &self->none, MASK_SIZE);
	raise(SIGUSR1);
	EXPECT_EQ(-EINTR, PGETEVENTS(1, 1, &ev, &zero, (sigset_t *)packed));
	raise(SIGUSR1);
	EXPECT_EQ(-EINTR, PGETEVENTS(1, 1, &ev, &zero, map_read_only(&self->none, MASK_SIZE)));
	EXPECT_EQ(3, handled_now());
	EXPECT_OLD_MASK();
}

TEST_HARNESS_MAIN
