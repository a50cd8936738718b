// SPDX-License-Identifier: GPL-2.0
/*
 * io_cancel(2): of requests that the test devices hold, of polls, of fsyncs;
 * those that can be cancelled, those that can't, those that end at the same
 * moment. Each has one event, and that says what the call has said.
 */
#include "raio_race.h"
#include "raio_source.h"
#include "raio_task.h"

#define EVENTS		16
#define LEN		PAGE
#define SEED		41
#define CANARY		0xa5

/* A context, and a device that holds requests. */

struct work {
	struct aio aio;
	struct raio_stats before;
	int fd;
	char *buf;
	struct iocb io[EVENTS];
	struct io_event ev[EVENTS];
};

static void work_begin(struct __test_metadata *_metadata, struct work *w, const struct aio_ops *ops)
{
	testdev_begin();
	stats_now(_metadata, &w->before);
	aio_begin(_metadata, &w->aio, ops, EVENTS);
	w->buf = map_pages(EVENTS * LEN);
	w->fd = testdev_hang(w->buf, EVENTS * LEN, SEED);
	memset(w->buf, CANARY, EVENTS * LEN);
}

/* Each request has had its event. */
static void work_end(struct __test_metadata *_metadata, struct work *w)
{
	testdev_reset();
	aio_end(_metadata, &w->aio);
	close(w->fd);
	EXPECT_MOVED(MOVED(&w->before, submitted), &w->before, completed);
}

/* Reads block @i. */
static void submit(struct __test_metadata *_metadata, struct work *w, unsigned int i)
{
	iocb_prep(&w->io[i], IOCB_CMD_PREAD, w->fd, w->buf + i * LEN, LEN, i * LEN);
	ASSERT_EQ(1, aio_submit_one(&w->aio, &w->io[i]));
}

static long cancel(struct work *w, unsigned int i)
{
	return aio_cancel(&w->aio, &w->io[i]);
}

/* The next event is that of request @i, with @res, and the data or no byte of it. */
#define EXPECT_NEXT(w, i, result) do {						\
	ASSERT_EQ(1, aio_wait(&(w)->aio, 1, (w)->ev));				\
	EXPECT_EVENT(&(w)->ev[0], &(w)->io[i], (result));			\
	EXPECT_EQ(-1, (w)->ev[0].res == LEN ?					\
		      pattern_check((w)->buf + (i) * LEN, LEN, (i) * LEN, SEED) :	\
		      filled_check((w)->buf + (i) * LEN, LEN, CANARY));		\
} while (0)

#define EXPECT_NO_EVENT(w) \
	EXPECT_EQ(0, aio_poll(&(w)->aio, 1, (w)->ev))

/* What is refused, and how. */

FIXTURE(refused)
{
	struct work w;
};

FIXTURE_VARIANT(refused)
{
	const struct aio_ops *ops;
	/* What is there and can't be cancelled: the manual page says EAGAIN. */
	long uncancellable;
};

FIXTURE_VARIANT_ADD(refused, kernel_aio)
{
	.ops = &kernel_aio, .uncancellable = -EINVAL,
};

FIXTURE_VARIANT_ADD(refused, raio)
{
	.ops = &raio, .uncancellable = -EAGAIN,
};

FIXTURE_SETUP(refused)
{
	work_begin(_metadata, &self->w, variant->ops);
}

FIXTURE_TEARDOWN(refused)
{
	work_end(_metadata, &self->w);
}

TEST_F(refused, never_submitted)
{
	struct work *w = &self->w;

	memset(w->io, 0, sizeof(w->io));
	EXPECT_EQ(-EINVAL, cancel(w, 0));
	submit(_metadata, w, 1);
	EXPECT_EQ(-EINVAL, cancel(w, 0));
	EXPECT_EQ(-EINVAL, cancel(w, 2));
	/* At an address within another. */
	EXPECT_EQ(-EINVAL, aio_cancel(&w->aio, (struct iocb *)((char *)&w->io[1] + 8)));
	testdev_cmd("c0 complete 1");
	EXPECT_NEXT(w, 1, LEN);
}

/* One that was refused isn't there. */
TEST_F(refused, refused_at_submission)
{
	struct work *w = &self->w;

	iocb_prep(&w->io[0], IOCB_CMD_PREAD, w->fd, w->buf, LEN, -1);
	EXPECT_REFUSED(-EINVAL, &w->aio, &w->io[0]);
	EXPECT_EQ(-EINVAL, cancel(w, 0));
}

TEST_F(refused, ended)
{
	struct work *w = &self->w;

	testdev_cmd("c0 cancel yes");
	submit(_metadata, w, 0);
	testdev_cmd("c0 complete 1");
	testdev_cmd("c0 wait ended 1");
	/* Its event is there, or was read. */
	EXPECT_EQ(-EINVAL, cancel(w, 0));
	EXPECT_NEXT(w, 0, LEN);
	EXPECT_EQ(-EINVAL, cancel(w, 0));
	/* One that has ended before its method has returned. */
	testdev_cmd("c0 mode now");
	submit(_metadata, w, 1);
	EXPECT_EQ(-EINVAL, cancel(w, 1));
	EXPECT_NEXT(w, 1, LEN);
	testdev_cmd("c0 mode sync");
	submit(_metadata, w, 2);
	EXPECT_EQ(-EINVAL, cancel(w, 2));
	EXPECT_NEXT(w, 2, LEN);
}

TEST_F(refused, bad_address)
{
	struct work *w = &self->w;
	struct iocb *readable;

	testdev_cmd("c0 cancel yes");
	submit(_metadata, w, 0);
	EXPECT_EQ(-EFAULT, aio_cancel(&w->aio, NULL));
	EXPECT_EQ(-EFAULT, aio_cancel(&w->aio, KERNEL_PTR));
	EXPECT_EQ(-EFAULT, aio_cancel(&w->aio, (struct iocb *)-1L));
	EXPECT_EQ(-EFAULT, aio_cancel(&w->aio, map_before_hole(0)));
	/* The key is what is read of it, and nothing is written. */
	EXPECT_EQ(-EFAULT, aio_cancel(&w->aio, map_before_hole(offsetof(struct iocb, aio_key))));
	readable = map_read_only(&w->io[0], sizeof(w->io[0]));
	EXPECT_EQ(-EINVAL, aio_cancel(&w->aio, readable));
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	EXPECT_EQ(0, cancel(w, 0));
	EXPECT_NEXT(w, 0, -ECANCELED);
}

TEST_F(refused, bad_key)
{
	struct work *w = &self->w;

	testdev_cmd("c0 cancel yes");
	submit(_metadata, w, 0);
	EXPECT_EQ(0, w->io[0].aio_key);
	w->io[0].aio_key = 1;
	EXPECT_EQ(-EINVAL, cancel(w, 0));
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	/* Of the rest nothing is looked at any more. */
	memset(&w->io[0], 0xff, sizeof(w->io[0]));
	w->io[0].aio_key = 0;
	w->io[0].aio_data = ~(uintptr_t)&w->io[0];
	EXPECT_EQ(0, cancel(w, 0));
	EXPECT_NEXT(w, 0, -ECANCELED);
}

TEST_F(refused, bad_context)
{
	struct work *w = &self->w;
	struct aio bad = w->aio, other = w->aio;

	testdev_cmd("c0 cancel yes");
	submit(_metadata, w, 0);
	other.ctx = 0;
	ASSERT_EQ(0, aio_setup(&other, 1, &other.ctx));
	EXPECT_EQ(-EINVAL, aio_cancel(&other, &w->io[0]));
	EXPECT_EQ(0, aio_destroy(&other, other.ctx));
	EXPECT_EQ(-EINVAL, aio_cancel(&other, &w->io[0]));
	bad.ctx = 0;
	EXPECT_EQ(-EINVAL, aio_cancel(&bad, &w->io[0]));
	bad.ctx = (aio_context_t)w->buf;
	EXPECT_EQ(-EINVAL, aio_cancel(&bad, &w->io[0]));
	bad.ctx = (aio_context_t)KERNEL_ADDR;
	EXPECT_EQ(-EINVAL, aio_cancel(&bad, &w->io[0]));
	/* The address comes first. */
	EXPECT_EQ(-EFAULT, aio_cancel(&bad, NULL));
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	EXPECT_EQ(0, cancel(w, 0));
	EXPECT_NEXT(w, 0, -ECANCELED);
}

/* A child has no part in its parent's context. */
TEST_F(refused, in_another_process)
{
	struct work *w = &self->w;
	pid_t pid;

	testdev_cmd("c0 cancel yes");
	submit(_metadata, w, 0);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(cancel(w, 0) != -EINVAL);
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	EXPECT_EQ(0, cancel(w, 0));
	EXPECT_NEXT(w, 0, -ECANCELED);
}

/* It has no way to be cancelled, so it goes on. */
TEST_F(refused, without_a_way)
{
	struct work *w = &self->w;
	unsigned int i;

	submit(_metadata, w, 0);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(variant->uncancellable, cancel(w, 0));
	EXPECT_NO_EVENT(w);
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	testdev_cmd("c0 complete 1");
	EXPECT_NEXT(w, 0, LEN);
	EXPECT_EQ(-EINVAL, cancel(w, 0));
	EXPECT_EQ(0, testdev_stat("c0", "cancelled"));
	EXPECT_MOVED(0, &w->before, cancelled);
	EXPECT_MOVED(0, &w->before, uncancelled);
}

/*
 * A request of one is nothing to the other, on the same file: what the device
 * offers to both, each takes of its own only. (The device warns if not.)
 */
TEST_F(refused, requests_of_others)
{
	const struct aio_ops *ops = variant->ops->is_raio ? &kernel_aio : &raio;
	struct work *w = &self->w;
	struct io_event ev;
	struct aio other;
	struct iocb io;

	testdev_cmd("c0 cancel yes");
	aio_begin(_metadata, &other, ops, 1);
	iocb_prep(&io, IOCB_CMD_PREAD, w->fd, w->buf + LEN, LEN, LEN);
	ASSERT_EQ(1, aio_submit_one(&other, &io));
	submit(_metadata, w, 0);
	EXPECT_EQ(-EINVAL, aio_cancel(&w->aio, &io));
	EXPECT_EQ(-EINVAL, aio_cancel(&other, &w->io[0]));
	EXPECT_EQ(2, testdev_stat("c0", "held"));
	EXPECT_EQ(0, cancel(w, 0));
	EXPECT_NEXT(w, 0, -ECANCELED);
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	EXPECT_EQ(0, aio_poll(&other, 1, &ev));
	EXPECT_EQ(0, aio_cancel(&other, &io));
	ASSERT_EQ(1, aio_wait(&other, 1, &ev));
	EXPECT_EVENT(&ev, &io, -ECANCELED);
	EXPECT_EQ(2, testdev_stat("c0", "cancelled"));
	aio_end(_metadata, &other);
}

/* What is cancelled. */

FIXTURE(cancel)
{
	struct work w;
};

FIXTURE_SETUP(cancel)
{
	work_begin(_metadata, &self->w, &raio);
	testdev_cmd("c0 cancel yes");
}

FIXTURE_TEARDOWN(cancel)
{
	work_end(_metadata, &self->w);
}

/* At once or a little later, where there is no end in sight. */
TEST_F(cancel, one)
{
	static const char * const how[] = { "yes", "late" };
	static const char * const modes[] = { "hang", "timer 3600000000000" };
	struct work *w = &self->w;
	unsigned int i;

	for (i = 0; i < 4; i++) {
		testdev_cmd("c0 cancel %s", how[i / 2]);
		testdev_cmd("c0 mode %s", modes[i % 2]);
		submit(_metadata, w, i);
		EXPECT_NO_EVENT(w);
		EXPECT_EQ(0, cancel(w, i));
		EXPECT_NEXT(w, i, -ECANCELED);
		EXPECT_NO_EVENT(w);
		EXPECT_EQ(0, testdev_stat("c0", "held"));
	}
	EXPECT_EQ(4, testdev_stat("c0", "cancelled"));
	EXPECT_MOVED(4, &w->before, cancelled);
	EXPECT_MOVED(0, &w->before, uncancelled);
	EXPECT_MOVED(4, &w->before, completed);
}

/* The second time it is gone, whether its event has come or not. */
TEST_F(cancel, twice)
{
	struct work *w = &self->w;

	submit(_metadata, w, 0);
	EXPECT_EQ(0, cancel(w, 0));
	EXPECT_EQ(-EINVAL, cancel(w, 0));
	EXPECT_NEXT(w, 0, -ECANCELED);
	EXPECT_EQ(-EINVAL, cancel(w, 0));
	testdev_cmd("c0 cancel late");
	submit(_metadata, w, 1);
	EXPECT_EQ(0, cancel(w, 1));
	EXPECT_EQ(-EINVAL, cancel(w, 1));
	EXPECT_NEXT(w, 1, -ECANCELED);
	EXPECT_NO_EVENT(w);
	EXPECT_MOVED(2, &w->before, cancelled);
}

/* Its file does not want to. It was asked once, and goes on. */
TEST_F(cancel, refusal)
{
	struct work *w = &self->w;
	unsigned int i;

	testdev_cmd("c0 cancel refuse");
	submit(_metadata, w, 0);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(-EAGAIN, cancel(w, 0));
	/* Not even when it has become willing, nor when the context ends. */
	testdev_cmd("c0 cancel yes");
	EXPECT_EQ(-EAGAIN, cancel(w, 0));
	EXPECT_NO_EVENT(w);
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	testdev_cmd("c0 complete 1");
	EXPECT_NEXT(w, 0, LEN);
	EXPECT_EQ(-EINVAL, cancel(w, 0));
	EXPECT_EQ(0, testdev_stat("c0", "cancelled"));
	EXPECT_MOVED(0, &w->before, cancelled);
	EXPECT_MOVED(1, &w->before, uncancelled);
}

static void destroy_work(void *data)
{
	struct work *w = data;

	aio_destroy(&w->aio, w->aio.ctx);
}

/* One that was asked isn't asked again by the end of its context, which waits for it. */
TEST_F(cancel, refusal_then_the_end)
{
	struct work *w = &self->w;
	struct call destroy = { .kind = DESTROY, .aio = w->aio };

	testdev_cmd("c0 cancel refuse");
	submit(_metadata, w, 0);
	EXPECT_EQ(-EAGAIN, cancel(w, 0));
	testdev_cmd("c0 cancel yes");
	submit(_metadata, w, 1);
	call_start(_metadata, &destroy);
	EXPECT_SLEEPS(&destroy);
	testdev_cmd("c0 wait ended 1");
	EXPECT_EQ(1, testdev_stat("c0", "cancelled"));
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	/* Nobody finds it any more. */
	EXPECT_EQ(-EINVAL, cancel(w, 0));
	testdev_cmd("c0 complete 1");
	EXPECT_RETURNS(0, &destroy);
	w->aio.ctx = 0;
	EXPECT_EQ(-1, pattern_check(w->buf, LEN, 0, SEED));
	EXPECT_EQ(-1, filled_check(w->buf + LEN, LEN, CANARY));
	EXPECT_MOVED(1, &w->before, uncancelled);
}

/* Those around it are left alone, whichever it is. */
TEST_F(cancel, one_of_many)
{
	static const unsigned int order[] = { 7, 0, 15, 8, 6, 1 };
	struct work *w = &self->w;
	bool gone[EVENTS] = { };
	unsigned int i;

	for (i = 0; i < EVENTS; i++)
		submit(_metadata, w, i);
	for (i = 0; i < ARRAY_SIZE(order); i++) {
		EXPECT_EQ(0, cancel(w, order[i]));
		EXPECT_NEXT(w, order[i], -ECANCELED);
		gone[order[i]] = true;
	}
	EXPECT_EQ(EVENTS - i, testdev_stat("c0", "held"));
	EXPECT_NO_EVENT(w);
	testdev_cmd("c0 complete all");
	for (i = 0; i < EVENTS; i++)
		if (!gone[i])
			EXPECT_NEXT(w, i, LEN);
}

/* Two that were submitted at one address: each is cancelled, one after the other. */
TEST_F(cancel, at_the_same_address)
{
	struct work *w = &self->w;
	uint64_t seen = 0;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		iocb_prep(&w->io[0], IOCB_CMD_PREAD, w->fd, w->buf + i * LEN, LEN, i * LEN);
		w->io[0].aio_data = i;
		ASSERT_EQ(1, aio_submit_one(&w->aio, &w->io[0]));
	}
	EXPECT_EQ(3, testdev_stat("c0", "held"));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, cancel(w, 0));
		EXPECT_EQ(2 - i, testdev_stat("c0", "held"));
		ASSERT_EQ(1, aio_wait(&w->aio, 1, w->ev));
		EXPECT_EQ((uintptr_t)&w->io[0], w->ev[0].obj);
		EXPECT_EQ(-ECANCELED, w->ev[0].res);
		ASSERT_GT(3, w->ev[0].data);
		seen |= 1 << w->ev[0].data;
	}
	/* The third is another request's end. */
	testdev_cmd("c0 complete 1");
	ASSERT_EQ(1, aio_wait(&w->aio, 1, w->ev));
	EXPECT_EQ(LEN, w->ev[0].res);
	ASSERT_GT(3, w->ev[0].data);
	seen |= 1 << w->ev[0].data;
	EXPECT_EQ(7, seen);
	EXPECT_EQ(-EINVAL, cancel(w, 0));
	/* And the address is free for one more. */
	submit(_metadata, w, 0);
	EXPECT_EQ(0, cancel(w, 0));
	ASSERT_EQ(1, aio_wait(&w->aio, 1, w->ev));
	EXPECT_EVENT(&w->ev[0], &w->io[0], -ECANCELED);
}

static void *cancel_thread(void *data)
{
	struct work *w = data;

	return (void *)cancel(w, 0);
}

TEST_F(cancel, by_another_thread)
{
	struct work *w = &self->w;
	pthread_t thread;
	void *ret;

	submit(_metadata, w, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, cancel_thread, w));
	pthread_join(thread, &ret);
	EXPECT_EQ(NULL, ret);
	EXPECT_NEXT(w, 0, -ECANCELED);
}

/* Its event is one like others: it wakes who waits, and an eventfd counts it. */
TEST_F(cancel, wakes)
{
	struct work *w = &self->w;
	struct call wait = { .kind = GETEVENTS, .aio = w->aio, .nr = 1 };
	int efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t n;

	ASSERT_LE(0, efd);
	iocb_prep(&w->io[0], IOCB_CMD_PREAD, w->fd, w->buf, LEN, 0);
	w->io[0].aio_flags = IOCB_FLAG_RESFD;
	w->io[0].aio_resfd = efd;
	ASSERT_EQ(1, aio_submit_one(&w->aio, &w->io[0]));
	call_start(_metadata, &wait);
	EXPECT_SLEEPS(&wait);
	EXPECT_EQ(0, cancel(w, 0));
	EXPECT_RETURNS(1, &wait);
	EXPECT_EVENT(&wait.ev[0], &w->io[0], -ECANCELED);
	ASSERT_EQ(sizeof(n), read(efd, &n, sizeof(n)));
	EXPECT_EQ(1, n);
	close(efd);
}

/*
 * Something else at the same moment, on another processor: one event, which says
 * what the call has said.
 */

#define ROUNDS	2000

struct duel {
	struct work *w;
	const char *cmd;
	long cancelled[2];
	long cmd_ret;
};

static void cancel_it(void *data)
{
	struct duel *d = data;

	d->cancelled[0] = cancel(d->w, 0);
}

static void cancel_it_too(void *data)
{
	struct duel *d = data;

	d->cancelled[1] = cancel(d->w, 0);
}

static void command(void *data)
{
	struct duel *d = data;

	d->cmd_ret = testdev_try("%s", d->cmd);
}

/* Takes the one event of the round: how it ended. */
static long long outcome(struct __test_metadata *_metadata, struct work *w)
{
	ASSERT_EQ(1, aio_wait(&w->aio, 1, w->ev));
	EXPECT_EVENT(&w->ev[0], &w->io[0], w->ev[0].res);
	EXPECT_NO_EVENT(w);
	return w->ev[0].res;
}

/* The end of the request, by a command and in interrupts. */
FIXTURE(race)
{
	struct work w;
};

FIXTURE_VARIANT(race)
{
	const char *mode;
	const char *cancel;
	const char *cmd;
};

FIXTURE_VARIANT_ADD(race, complete)
{
	.mode = "hang", .cancel = "yes", .cmd = "c0 complete 1",
};

FIXTURE_VARIANT_ADD(race, complete_late)
{
	.mode = "hang", .cancel = "late", .cmd = "c0 complete 1",
};

FIXTURE_VARIANT_ADD(race, complete_refused)
{
	.mode = "hang", .cancel = "refuse", .cmd = "c0 complete 1",
};

FIXTURE_VARIANT_ADD(race, complete_without_a_way)
{
	.mode = "hang", .cancel = "no", .cmd = "c0 complete 1",
};

/* The command is there to take time only. */
FIXTURE_VARIANT_ADD(race, interrupt)
{
	.mode = "timer 60000", .cancel = "yes", .cmd = "c0 wait started 1",
};

FIXTURE_VARIANT_ADD(race, interrupt_late)
{
	.mode = "timer 60000", .cancel = "late", .cmd = "c0 wait started 1",
};

FIXTURE_SETUP(race)
{
	work_begin(_metadata, &self->w, &raio);
	testdev_cmd("c0 mode %s", variant->mode);
	testdev_cmd("c0 cancel %s", variant->cancel);
}

FIXTURE_TEARDOWN(race)
{
	work_end(_metadata, &self->w);
}

TEST_F_TIMEOUT(race, end, 300)
{
	struct work *w = &self->w;
	struct duel d = { .w = w, .cmd = variant->cmd };
	unsigned int i, n = long_run(10) * ROUNDS, cancelled = 0;
	bool can = variant->cancel[0] == 'y' || variant->cancel[0] == 'l';
	struct rival rival;
	long long res;

	rival_begin(_metadata, &rival, command, &d);
	for (i = 0; i < n; i++) {
		memset(w->buf, CANARY, LEN);
		submit(_metadata, w, 0);
		race(&rival, cancel_it, &d);
		ASSERT_EQ(0, d.cmd_ret);
		res = outcome(_metadata, w);
		if (d.cancelled[0] == 0) {
			cancelled++;
			ASSERT_EQ(-ECANCELED, res);
			ASSERT_EQ(-1, filled_check(w->buf, LEN, CANARY));
		} else {
			ASSERT_TRUE(d.cancelled[0] == -EAGAIN || d.cancelled[0] == -EINVAL);
			ASSERT_EQ(LEN, res);
			ASSERT_EQ(-1, pattern_check(w->buf, LEN, 0, SEED));
		}
	}
	rival_end(&rival);
	TH_LOG("%u of %u were cancelled", cancelled, n);
	if (can) {
		EXPECT_LT(0, cancelled);
		EXPECT_GT(n, cancelled);
	} else {
		EXPECT_EQ(0, cancelled);
	}
	EXPECT_EQ(cancelled, testdev_stat("c0", "cancelled"));
	EXPECT_MOVED(cancelled, &w->before, cancelled);
	EXPECT_EQ(n, testdev_stat("c0", "ended"));
}

/* Two that cancel: one of them does. */
TEST_F_TIMEOUT(cancel, by_two, 300)
{
	struct work *w = &self->w;
	struct duel d = { .w = w };
	unsigned int i, n = long_run(10) * ROUNDS, first = 0;
	struct rival rival;

	rival_begin(_metadata, &rival, cancel_it_too, &d);
	for (i = 0; i < n; i++) {
		submit(_metadata, w, 0);
		race(&rival, cancel_it, &d);
		ASSERT_EQ(-ECANCELED, outcome(_metadata, w));
		ASSERT_TRUE((d.cancelled[0] == 0 && d.cancelled[1] == -EINVAL) ||
			    (d.cancelled[1] == 0 && d.cancelled[0] == -EINVAL));
		first += d.cancelled[0] == 0;
	}
	rival_end(&rival);
	EXPECT_LT(0, first);
	EXPECT_GT(n, first);
	EXPECT_MOVED(n, &w->before, cancelled);
}

/* The end of the context. Who asks the request, asks it alone. */
TEST_F_TIMEOUT(cancel, or_destroy, 300)
{
	static const char * const how[] = { "yes", "late", "refuse" };
	struct work *w = &self->w;
	struct duel d = { .w = w };
	unsigned int i, n = long_run(10) * ROUNDS / 3, cancelled = 0;
	struct rival rival;

	EXPECT_EQ(0, aio_destroy(&w->aio, w->aio.ctx));
	rival_begin(_metadata, &rival, destroy_work, w);
	for (i = 0; i < n; i++) {
		testdev_cmd("c0 cancel %s", how[i % 3]);
		testdev_cmd("c0 mode %s", i % 3 == 2 ? "timer 100000" : "hang");
		memset(w->buf, CANARY, LEN);
		w->aio.ctx = 0;
		ASSERT_EQ(0, aio_setup(&w->aio, 1, &w->aio.ctx));
		submit(_metadata, w, 0);
		race(&rival, cancel_it, &d);
		ASSERT_TRUE(d.cancelled[0] == 0 || d.cancelled[0] == -EINVAL ||
			    d.cancelled[0] == -EAGAIN);
		cancelled += d.cancelled[0] == 0;
		testdev_cmd("c0 wait ended %u", i + 1);
		ASSERT_EQ(-1, i % 3 == 2 ? pattern_check(w->buf, LEN, 0, SEED) :
					   filled_check(w->buf, LEN, CANARY));
	}
	rival_end(&rival);
	w->aio.ctx = 0;
	TH_LOG("%u of %u were cancelled by the call", cancelled, n);
	EXPECT_LT(0, cancelled);
	EXPECT_EQ(n - n / 3, testdev_stat("c0", "cancelled"));
	EXPECT_MOVED(n - n / 3, &w->before, cancelled);
}

/* Polls. */

static void submit_poll(struct __test_metadata *_metadata, struct work *w, unsigned int i,
			const struct source *s)
{
	prep_poll(&w->io[i], s->fd, s->kind->events);
	ASSERT_EQ(1, aio_submit_one(&w->aio, &w->io[i]));
}

/* The next event is that of request @i, which was a poll. */
#define EXPECT_POLLED(w, i, result) do {						\
	ASSERT_EQ(1, aio_wait(&(w)->aio, 1, (w)->ev));				\
	EXPECT_EVENT(&(w)->ev[0], &(w)->io[i], (result));			\
} while (0)

TEST_F(cancel, polls)
{
	struct work *w = &self->w;
	struct source s;
	unsigned int i;

	for (i = 0; i < NR_SOURCES; i++) {
		source_open(_metadata, &s, i);
		submit_poll(_metadata, w, 0, &s);
		submit_poll(_metadata, w, 1, &s);
		EXPECT_EQ(0, cancel(w, 0));
		EXPECT_POLLED(w, 0, -ECANCELED);
		EXPECT_EQ(-EINVAL, cancel(w, 0));
		EXPECT_NO_EVENT(w);
		/* The other one hears of what is to be told. */
		ASSERT_EQ(0, s.kind->fire(&s));
		EXPECT_POLLED(w, 1, s.kind->events);
		EXPECT_EQ(-EINVAL, cancel(w, 1));
		/* Ready already: it has ended, but for one that a worker asks. */
		submit_poll(_metadata, w, 0, &s);
		if (i != EPOLL)
			EXPECT_EQ(-EINVAL, cancel(w, 0));
		EXPECT_POLLED(w, 0, s.kind->events);
		EXPECT_EQ(-EINVAL, cancel(w, 0));
		source_close(&s);
	}
	EXPECT_MOVED(NR_SOURCES, &w->before, cancelled);
	EXPECT_MOVED(0, &w->before, uncancelled);
	/* And the epoll that was ready already. */
	EXPECT_EQ(NR_SOURCES + 1, MOVED(&w->before, polled_inline) +
				  MOVED(&w->before, polled_deferred));
}

/* It has let go of its file and of its queues, and its eventfd has counted it. */
TEST_F(cancel, poll_of_what_was_closed)
{
	struct work *w = &self->w;
	struct source s, count;
	uint64_t n;

	signal(SIGPIPE, SIG_IGN);
	source_open(_metadata, &s, PIPE);
	source_open(_metadata, &count, EVENTFD);
	prep_poll(&w->io[0], s.fd, POLLIN);
	w->io[0].aio_flags = IOCB_FLAG_RESFD;
	w->io[0].aio_resfd = count.fd;
	ASSERT_EQ(1, aio_submit_one(&w->aio, &w->io[0]));
	close(s.fd);
	EXPECT_EQ(0, cancel(w, 0));
	EXPECT_POLLED(w, 0, -ECANCELED);
	EXPECT_EQ(-EPIPE, one_byte_out(s.other));
	EXPECT_TRUE(wait_for(polled(count.fd, POLLIN)));
	EXPECT_EQ(8, read(count.fd, &n, 8));
	EXPECT_EQ(1, n);
	close(s.other);
	close(count.fd);
}

/* While it is woken for nothing all the time, on several queues: it can always be. */
TEST_F(cancel, poll_that_is_looked_at)
{
	struct work *w = &self->w;
	uint64_t dice = 9;
	struct source s;
	unsigned int i;

	source_open(_metadata, &s, DEVICE);
	testdev_cmd("c1 hard 1000000000 200000 wake 0 0");
	testdev_cmd("c1 soft 1000000000 300000 wake 1 %d", READABLE);
	for (i = 0; i < 500 * long_run(10); i++) {
		testdev_cmd("c1 queues %s", i % 2 ? "0" : "01");
		submit_poll(_metadata, w, 0, &s);
		testdev_cmd("c1 wake 0 0");
		keep_distance(&dice);
		ASSERT_EQ(0, cancel(w, 0));
		EXPECT_POLLED(w, 0, -ECANCELED);
	}
	EXPECT_MOVED(i, &w->before, cancelled);
	source_close(&s);
}

/* It is made ready at the same moment, or its queue goes. */
FIXTURE(poll_race)
{
	struct work w;
};

FIXTURE_VARIANT(poll_race)
{
	int kind;
	/* What is done to c1 at that moment, instead of making it ready. */
	const char *cmd;
};

FIXTURE_VARIANT_ADD(poll_race, pipe)
{
	.kind = PIPE,
};

FIXTURE_VARIANT_ADD(poll_race, eventfd)
{
	.kind = EVENTFD,
};

FIXTURE_VARIANT_ADD(poll_race, epoll)
{
	.kind = EPOLL,
};

FIXTURE_VARIANT_ADD(poll_race, fifo)
{
	.kind = FIFO,
};

FIXTURE_VARIANT_ADD(poll_race, timer)
{
	.kind = TIMER,
};

FIXTURE_VARIANT_ADD(poll_race, device)
{
	.kind = DEVICE,
};

FIXTURE_VARIANT_ADD(poll_race, device_without_key)
{
	.kind = DEVICE_WITHOUT_KEY,
};

FIXTURE_VARIANT_ADD(poll_race, device_soft)
{
	.kind = DEVICE_SOFT,
};

FIXTURE_VARIANT_ADD(poll_race, device_hard)
{
	.kind = DEVICE_HARD,
};

FIXTURE_VARIANT_ADD(poll_race, woken_for_nothing)
{
	.kind = DEVICE, .cmd = "c1 wake 0 0",
};

FIXTURE_VARIANT_ADD(poll_race, queue_freed)
{
	.kind = DEVICE, .cmd = "c1 free 0",
};

FIXTURE_SETUP(poll_race)
{
	work_begin(_metadata, &self->w, &raio);
}

FIXTURE_TEARDOWN(poll_race)
{
	work_end(_metadata, &self->w);
}

struct poll_duel {
	struct duel d;
	struct source s;
	int fire_ret;
};

static void fire(void *data)
{
	struct poll_duel *p = data;

	p->fire_ret = p->d.cmd ? (int)testdev_try("%s", p->d.cmd) : p->s.kind->fire(&p->s);
}

TEST_F_TIMEOUT(poll_race, cancelled_or_ready, 300)
{
	struct work *w = &self->w;
	struct poll_duel p = { .d.w = w, .d.cmd = variant->cmd };
	const bool freed = p.d.cmd && strstr(p.d.cmd, "free");
	unsigned int i, n = long_run(10) * ROUNDS, cancelled = 0;
	struct rival rival;
	long long res;

	/* Each waits for RCU. */
	if (freed)
		n /= 20;
	source_open(_metadata, &p.s, variant->kind);
	rival_begin(_metadata, &rival, fire, &p);
	for (i = 0; i < n; i++) {
		submit_poll(_metadata, w, 0, &p.s);
		race(&rival, cancel_it, &p.d);
		ASSERT_EQ(0, p.fire_ret);
		res = outcome(_metadata, w);
		if (p.d.cancelled[0] == 0) {
			cancelled++;
			ASSERT_EQ(-ECANCELED, res);
			/* It may still be on its way. */
			ASSERT_TRUE(variant->cmd ||
				    wait_for(polled(p.s.fd, p.s.kind->events)));
		} else {
			ASSERT_TRUE(p.d.cancelled[0] == -EAGAIN || p.d.cancelled[0] == -EINVAL);
			ASSERT_EQ(freed ? POLLHUP : p.s.kind->events, res);
		}
		ASSERT_EQ(0, p.s.kind->drain(&p.s));
	}
	rival_end(&rival);
	source_close(&p.s);
	TH_LOG("%u of %u were cancelled", cancelled, n);
	EXPECT_LT(0, cancelled);
	if (variant->cmd && !freed) {
		EXPECT_EQ(n, cancelled);
	} else if (variant->kind != TIMER && variant->kind != DEVICE_SOFT &&
		   variant->kind != DEVICE_HARD) {
		EXPECT_GT(n, cancelled);
	}
	EXPECT_MOVED(cancelled, &w->before, cancelled);
}

/* Several that wait for one file, of which each other is cancelled. */
TEST_F_TIMEOUT(poll_race, some_of_many, 300)
{
	struct work *w = &self->w;
	struct poll_duel p = { .d.w = w, .d.cmd = variant->cmd };
	unsigned int i, j, n = long_run(10) * 200;
	long ret[EVENTS];
	struct rival rival;

	source_open(_metadata, &p.s, variant->kind);
	rival_begin(_metadata, &rival, fire, &p);
	for (i = 0; i < n; i++) {
		for (j = 0; j < EVENTS; j++)
			submit_poll(_metadata, w, j, &p.s);
		rival_go(&rival);
		for (j = 0; j < EVENTS; j++)
			ret[j] = j % 2 ? cancel(w, j) : 1;
		rival_wait(&rival);
		ASSERT_EQ(0, p.fire_ret);
		/* Who hears of nothing is cancelled, too. */
		for (j = 0; variant->cmd && j < EVENTS; j += 2)
			ret[j] = cancel(w, j);
		ASSERT_EQ(EVENTS, aio_wait(&w->aio, EVENTS, w->ev));
		for (j = 0; j < EVENTS; j++) {
			struct iocb *io = event_iocb(&w->ev[j]);

			EXPECT_EVENT(&w->ev[j], io, w->ev[j].res);
			ASSERT_EQ(ret[io - w->io] == 0, w->ev[j].res == -ECANCELED);
			/* Each once. */
			ASSERT_NE(2, ret[io - w->io]);
			ret[io - w->io] = 2;
		}
		ASSERT_TRUE(variant->cmd || wait_for(polled(p.s.fd, p.s.kind->events)));
		ASSERT_EQ(0, p.s.kind->drain(&p.s));
	}
	rival_end(&rival);
	source_close(&p.s);
}

/*
 * Fsyncs. A user's workers do so many at once; the others wait for their turn,
 * and can be cancelled until it comes.
 */

#define WORKERS		64
#define SYNCS		(WORKERS + 16)

FIXTURE(fsync)
{
	struct raio_stats before;
	struct aio aio;
	int c0;
	int c1;
	struct iocb io[SYNCS];
	struct io_event ev[SYNCS];
};

FIXTURE_SETUP(fsync)
{
	testdev_begin();
	stats_now(_metadata, &self->before);
	aio_begin(_metadata, &self->aio, &raio, SYNCS);
	self->c0 = testdev_open("c0", 0);
	self->c1 = testdev_open("c1", 0);
	testdev_cmd("c1 mode hang");
}

FIXTURE_TEARDOWN(fsync)
{
	testdev_reset();
	aio_end(_metadata, &self->aio);
	close(self->c0);
	close(self->c1);
	EXPECT_MOVED(MOVED(&self->before, submitted), &self->before, completed);
}

static void submit_sync(struct __test_metadata *_metadata, struct aio *aio, struct iocb *io, int fd)
{
	iocb_prep(io, (uintptr_t)io / sizeof(*io) % 2 ? IOCB_CMD_FSYNC : IOCB_CMD_FDSYNC, fd, NULL,
		  0, 0);
	ASSERT_EQ(1, aio_submit_one(aio, io));
}

/* All workers are busy with c1, and these wait for them. */
static void submit_all(struct __test_metadata *_metadata, struct aio *aio, struct iocb *io, int fd)
{
	unsigned int i;

	for (i = 0; i < SYNCS; i++)
		submit_sync(_metadata, aio, &io[i], fd);
	testdev_cmd("c1 wait held %d", WORKERS);
}

#define EXPECT_SYNCED(i, result) do {						\
	ASSERT_EQ(1, aio_wait(&self->aio, 1, self->ev));			\
	EXPECT_EVENT(&self->ev[0], &self->io[i], (result));			\
} while (0)

TEST_F(fsync, queued)
{
	unsigned int i;

	submit_all(_metadata, &self->aio, self->io, self->c1);
	EXPECT_EQ(0, aio_poll(&self->aio, 1, self->ev));
	/* In any order. */
	for (i = WORKERS; i < SYNCS; i += 2) {
		EXPECT_EQ(0, aio_cancel(&self->aio, &self->io[i]));
		EXPECT_SYNCED(i, -ECANCELED);
		EXPECT_EQ(-EINVAL, aio_cancel(&self->aio, &self->io[i]));
	}
	EXPECT_EQ(0, aio_cancel(&self->aio, &self->io[SYNCS - 1]));
	EXPECT_SYNCED(SYNCS - 1, -ECANCELED);
	/* Those that are being done go on. */
	for (i = 0; i < WORKERS; i++)
		EXPECT_EQ(-EAGAIN, aio_cancel(&self->aio, &self->io[i]));
	EXPECT_EQ(0, aio_poll(&self->aio, 1, self->ev));
	EXPECT_EQ(WORKERS, testdev_stat("c1", "started"));
	/* The next that wasn't has its turn. */
	testdev_cmd("c1 fail 1 %d", EIO);
	ASSERT_EQ(1, aio_wait(&self->aio, 1, self->ev));
	EXPECT_EQ(-EIO, self->ev[0].res);
	testdev_cmd("c1 wait started %d", WORKERS + 1);
	testdev_cmd("c1 wait held %d", WORKERS);
	EXPECT_EQ(-EAGAIN, aio_cancel(&self->aio, &self->io[WORKERS + 1]));
	testdev_cmd("c1 mode now");
	testdev_cmd("c1 complete all");
	ASSERT_EQ(SYNCS - 10, aio_wait(&self->aio, SYNCS - 10, self->ev));
	for (i = 0; i < SYNCS - 10; i++)
		EXPECT_EVENT(&self->ev[i], event_iocb(&self->ev[i]), 0);
	EXPECT_EQ(SYNCS - 9, testdev_stat("c1", "started"));
	EXPECT_MOVED(9, &self->before, cancelled);
}

/*
 * The context ends: those that wait for a worker are cancelled, and the workers
 * that wait for the others give up, as c1 lets who is killed do.
 */
TEST_F(fsync, end_of_the_context)
{
	submit_all(_metadata, &self->aio, self->io, self->c1);
	ASSERT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	self->aio.ctx = 0;
	EXPECT_EQ(0, testdev_stat("c1", "held"));
	EXPECT_EQ(WORKERS, testdev_stat("c1", "started"));
	EXPECT_EQ(WORKERS, testdev_stat("c1", "ended"));
	/* No turn comes meanwhile: those that wait are asked first. */
	EXPECT_MOVED(SYNCS - WORKERS, &self->before, cancelled);
}

/* Its turn comes at the same moment. */

struct sync_duel {
	struct aio *aio;
	struct iocb *io;
	long cancelled;
	long done;
};

static void cancel_sync(void *data)
{
	struct sync_duel *d = data;

	d->cancelled = aio_cancel(d->aio, d->io);
}

static void let_one_go(void *data)
{
	struct sync_duel *d = data;

	d->done = testdev_try("c1 complete 1");
}

TEST_F_TIMEOUT(fsync, or_its_turn, 300)
{
	struct sync_duel d = { .aio = &self->aio, .io = &self->io[WORKERS] };
	unsigned int i, j, n = long_run(10) * ROUNDS / 3, cancelled = 0;
	struct rival rival;
	struct iocb *io;

	for (i = 0; i < WORKERS; i++)
		submit_sync(_metadata, &self->aio, &self->io[i], self->c1);
	rival_begin(_metadata, &rival, let_one_go, &d);
	for (i = 0; i < n; i++) {
		testdev_cmd("c1 wait held %d", WORKERS);
		submit_sync(_metadata, &self->aio, d.io, self->c0);
		race(&rival, cancel_sync, &d);
		ASSERT_EQ(0, d.done);
		ASSERT_EQ(2, aio_wait(&self->aio, 2, self->ev));
		for (j = 0; j < 2; j++) {
			io = event_iocb(&self->ev[j]);
			EXPECT_EVENT(&self->ev[j], io,
				     io == d.io && !d.cancelled ? -ECANCELED : 0);
			if (io != d.io)
				submit_sync(_metadata, &self->aio, io, self->c1);
		}
		ASSERT_NE(self->ev[0].obj, self->ev[1].obj);
		ASSERT_TRUE(d.cancelled == 0 || d.cancelled == -EAGAIN || d.cancelled == -EINVAL);
		cancelled += d.cancelled == 0;
	}
	rival_end(&rival);
	TH_LOG("%u of %u were cancelled", cancelled, n);
	EXPECT_LT(0, cancelled);
	EXPECT_GT(n, cancelled);
	testdev_cmd("c1 complete all");
	ASSERT_EQ(WORKERS, aio_wait(&self->aio, WORKERS, self->ev));
	EXPECT_EQ(n - cancelled, testdev_stat("c0", "ended"));
	EXPECT_MOVED(cancelled, &self->before, cancelled);
}

/* The end of the process, while two of its threads cancel what a third submits. */

static void *cancels_thread(void *data)
{
	struct work *w = data;
	unsigned int i;

	for (i = 0; ; i++)
		cancel(w, i % EVENTS);
	return NULL;
}

/* Reads, and polls of what is never ready but always woken. */
static void child(struct work *w)
{
	struct iocb *io = w->io;
	pthread_t thread;
	unsigned int i;

	w->aio.dev = w->aio.ops->open();
	w->aio.ctx = 0;
	if (w->aio.dev < 0 || aio_setup(&w->aio, EVENTS, &w->aio.ctx))
		_exit(1);
	for (i = 0; i < 2; i++)
		if (pthread_create(&thread, NULL, cancels_thread, w))
			_exit(2);
	for (i = 0; ; i++) {
		if (i % 3)
			iocb_prep(&io[i % EVENTS], IOCB_CMD_PREAD, w->fd, w->buf, LEN, 0);
		else
			prep_poll(&io[i % EVENTS], w->fd, POLLPRI);
		if (aio_submit_one(&w->aio, &io[i % EVENTS]) != 1)
			aio_poll(&w->aio, EVENTS, w->ev);
	}
}

TEST_F_TIMEOUT(cancel, or_exit, 300)
{
	static const char * const how[] = { "yes", "late", "refuse", "no" };
	static const char * const modes[] = { "hang", "hang", "timer 20000", "softirq" };
	struct work *w = &self->w;
	unsigned int i, n = long_run(10) * 100;
	int status;
	pid_t pid;

	for (i = 0; i < n; i++) {
		testdev_cmd("c0 reset");
		testdev_cmd("c0 cancel %s", how[i % 4]);
		testdev_cmd("c0 mode %s", modes[i % 4]);
		testdev_cmd("c0 queues %s", i % 8 < 4 ? "0" : "01");
		testdev_cmd("c0 hard 1000000 300000 wake 0 0");
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			child(w);
		testdev_cmd("c0 wait ended %u", 1 + i % 64);
		EXPECT_EQ(0, kill(pid, SIGKILL));
		status = wait_child(pid);
		ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	testdev_cmd("c0 mode hang");
	testdev_cmd("c0 cancel yes");
	EXPECT_TRUE(wait_for(MOVED(&w->before, setups) == MOVED(&w->before, frees) + 1));
	EXPECT_LT(n / 2, MOVED(&w->before, cancelled));
}

TEST_HARNESS_MAIN
