// SPDX-License-Identifier: GPL-2.0
/*
 * The end of contexts with requests in flight, on devices whose requests end
 * when a test says so: what is waited for and what is cancelled, owners that
 * vanish, waits that are killed, files that are closed meanwhile. What has to
 * do with the module itself going is in unload.c.
 */
#include <sys/wait.h>

#include "raio_loopfs.h"
#include "raio_task.h"
#include "raio_testdev.h"

#define EVENTS		8
#define LEN		PAGE
#define SEED		31
#define CANARY		0xa5
#define HOUR_NS		3600000000000LL
/* After so long who waits for a device is told of in the log: STUCK_SECONDS of the module. */
#define STUCK_SECONDS	10
/* What a call that is killed has to be quicker than. */
#define PROMPT_NS	(STUCK_SECONDS * 1000000000LL * 7 / 10)

/* A context with requests on c0, the owner of which is the test. */

/**
 * struct work - what most tests begin with
 * @aio:	the backend, with a context
 * @before:	counters of the module then
 * @contexts:	that there were in the system
 * @requests:	for which room was taken in the system
 * @fd:		c0, or -1
 * @buf:	for EVENTS requests
 * @io:		the requests
 * @iop:	pointers to them
 */
struct work {
	struct aio aio;
	struct raio_stats before;
	long contexts;
	long requests;
	int fd;
	char *buf;
	struct iocb io[EVENTS];
	struct iocb *iop[EVENTS];
};

static void prepare(struct work *w, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		iocb_prep(&w->io[i], IOCB_CMD_PREAD, w->fd, w->buf + i * LEN, LEN, i * LEN);
		w->iop[i] = &w->io[i];
	}
}

/* Reads of the first @nr blocks. */
static long start(struct work *w, int nr)
{
	prepare(w, nr);
	return aio_submit(&w->aio, nr, w->iop);
}

/* For children: the backend is opened and a context made once more. */
static long own_context(struct work *w)
{
	long err;

	w->aio.dev = w->aio.ops->open();
	if (w->aio.dev < 0)
		return w->aio.dev;
	w->aio.ctx = 0;
	err = aio_setup(&w->aio, EVENTS, &w->aio.ctx);
	return err;
}

static void work_begin(struct __test_metadata *_metadata, struct work *w, const struct aio_ops *ops)
{
	testdev_begin();
	memset(w, 0, sizeof(*w));
	w->aio.ops = ops;
	w->aio.dev = -1;
	w->buf = map_pages(EVENTS * LEN);
	w->fd = testdev_hang(w->buf, EVENTS * LEN, SEED);
	memset(w->buf, CANARY, EVENTS * LEN);
	w->contexts = raio_nr("nr_contexts");
	w->requests = raio_nr("nr_requests");
	stats_now(_metadata, &w->before);
}

/* Nothing is left: contexts, requests, events that never came. */
static void work_end(struct __test_metadata *_metadata, struct work *w)
{
	testdev_reset();
	if (w->aio.ctx)
		EXPECT_EQ(0, aio_destroy(&w->aio, w->aio.ctx));
	if (w->aio.dev >= 0)
		close(w->aio.dev);
	if (w->fd >= 0)
		close(w->fd);
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts)) {
		TH_LOG("%ld contexts, %ld before", raio_nr("nr_contexts"), w->contexts);
	}
	EXPECT_TRUE(wait_for(raio_nr("nr_requests") == w->requests));
	/* What they took of the system may be returned before they are freed. */
	EXPECT_TRUE(wait_for(MOVED(&w->before, setups) == MOVED(&w->before, frees)));
	EXPECT_MOVED(MOVED(&w->before, submitted), &w->before, completed);
}

FIXTURE(held)
{
	struct work w;
	int uffd;
};

FIXTURE_VARIANT(held)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(held, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(held, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(held)
{
	work_begin(_metadata, &self->w, variant->ops);
	ASSERT_EQ(0, own_context(&self->w));
	self->uffd = uffd_open();
	ASSERT_LE(0, self->uffd) {
		TH_LOG("userfaultfd: %s", strerror(-self->uffd));
	}
}

FIXTURE_TEARDOWN(held)
{
	/* Lets go of who is still held after a failure. */
	close(self->uffd);
	work_end(_metadata, &self->w);
}

/* What the buffer of a thread held when its call returned; it is overwritten. */
struct snapshot {
	char *buf;
	size_t len;
	long wrong;
};

static void take_snapshot(void *data)
{
	struct snapshot *s = data;

	s->wrong = pattern_check(s->buf, s->len, 0, SEED);
	memset(s->buf, CANARY, s->len);
}

/* Destroy returns after the last I/O on the buffers has ended, and not before. */
TEST_F(held, destroy_waits_for_the_last)
{
	struct work *w = &self->w;
	struct snapshot snapshot = { .buf = w->buf, .len = 2 * LEN };
	struct call destroy = {
		.kind = DESTROY, .aio = w->aio, .at_return = take_snapshot, .arg = &snapshot,
	};
	struct io_event ev;

	ASSERT_EQ(2, start(w, 2));
	testdev_cmd("c0 wait held 2");
	call_start(_metadata, &destroy);
	EXPECT_SLEEPS(&destroy);

	/* Nobody else can use it, or has to wait. */
	EXPECT_EQ(-EINVAL, aio_destroy(&w->aio, w->aio.ctx));
	EXPECT_EQ(-EINVAL, aio_poll(&w->aio, 1, &ev));
	EXPECT_EQ(-EINVAL, start(w, 1));
	EXPECT_EQ(2, testdev_stat("c0", "held"));
	/* It has come to the point at which it waits for them. */
	if (variant->ops->is_raio)
		EXPECT_TRUE(wait_for(MOVED(&w->before, kill_inflight) == 1));

	testdev_cmd("c0 complete 1");
	testdev_cmd("c0 wait ended 1");
	EXPECT_EQ(-1, pattern_check(w->buf, LEN, 0, SEED));
	EXPECT_EQ(-1, filled_check(w->buf + LEN, LEN, CANARY));
	EXPECT_SLEEPS(&destroy);
	EXPECT_EQ(1, testdev_stat("c0", "held"));

	testdev_cmd("c0 complete 1");
	EXPECT_RETURNS(0, &destroy);
	EXPECT_EQ(-1, snapshot.wrong);
	EXPECT_EQ(-EINVAL, aio_destroy(&w->aio, w->aio.ctx));
	w->aio.ctx = 0;
	testdev_cmd("c0 reset");
	EXPECT_EQ(-1, filled_check(w->buf, 2 * LEN, CANARY));
	if (variant->ops->is_raio) {
		EXPECT_MOVED(0, &w->before, cancelled);
		EXPECT_MOVED(0, &w->before, uncancelled);
		EXPECT_MOVED(0, &w->before, abandoned);
	}
}

/* A write takes what is in the buffer as long as destroy has not returned. */
TEST_F(held, destroy_waits_for_a_write)
{
	struct work *w = &self->w;
	struct call destroy = { .kind = DESTROY, .aio = w->aio };

	iocb_prep(&w->io[0], IOCB_CMD_PWRITE, w->fd, w->buf, LEN, 16 * LEN);
	ASSERT_EQ(1, aio_submit_one(&w->aio, &w->io[0]));
	testdev_cmd("c0 wait held 1");
	call_start(_metadata, &destroy);
	EXPECT_SLEEPS(&destroy);
	pattern_fill(w->buf, LEN, 16 * LEN, SEED + 1);
	testdev_cmd("c0 complete 1");
	EXPECT_RETURNS(0, &destroy);
	w->aio.ctx = 0;
	memset(w->buf, 0, LEN);
	testdev_cmd("c0 reset");
	ASSERT_EQ(LEN, pread(w->fd, w->buf, LEN, 16 * LEN));
	EXPECT_EQ(-1, pattern_check(w->buf, LEN, 16 * LEN, SEED + 1));
}

/* Who waits for events is woken at once, not when the requests end. */
TEST_F(held, sleepers_are_woken)
{
	struct work *w = &self->w;
	struct __kernel_timespec hour = { .tv_sec = 3600 };
	struct call destroy = { .kind = DESTROY, .aio = w->aio };
	struct call partly = { .kind = GETEVENTS, .aio = w->aio, .nr = 2 };
	struct call sleeper[3] = {
		{ .kind = GETEVENTS, .aio = w->aio, .nr = 1 },
		{ .kind = GETEVENTS, .aio = w->aio, .nr = EVENTS },
		{ .kind = GETEVENTS, .aio = w->aio, .nr = 1, .timeout = &hour },
	};
	unsigned int i;

	ASSERT_EQ(3, start(w, 3));
	testdev_cmd("c0 complete 1");
	testdev_cmd("c0 wait ended 1");
	/* This one has got what it returns already. */
	call_start(_metadata, &partly);
	EXPECT_SLEEPS(&partly);
	for (i = 0; i < ARRAY_SIZE(sleeper); i++) {
		call_start(_metadata, &sleeper[i]);
		EXPECT_SLEEPS(&sleeper[i]);
	}
	call_start(_metadata, &destroy);
	for (i = 0; i < ARRAY_SIZE(sleeper); i++)
		EXPECT_RETURNS(-EINVAL, &sleeper[i]);
	EXPECT_RETURNS(1, &partly);
	EXPECT_EVENT(&partly.ev[0], &w->io[0], LEN);
	EXPECT_SLEEPS(&destroy);
	EXPECT_EQ(2, testdev_stat("c0", "held"));
	testdev_cmd("c0 complete all");
	EXPECT_RETURNS(0, &destroy);
	w->aio.ctx = 0;
	if (variant->ops->is_raio) {
		EXPECT_MOVED(3 + 1, &w->before, killed_waits);
		EXPECT_MOVED(1, &w->before, reaped);
	}
}

/*
 * A submitter is inside when the context ends. It goes on, what it has started
 * is waited for, and nothing is cancelled before it has left: else what it adds
 * later would not be.
 */

/* An array of two pointers, the second one on a page that isn't there. */
static struct iocb **split_array(struct __test_metadata *_metadata, int uffd, char **page)
{
	char *p = map_pages(2 * PAGE);

	ASSERT_EQ(0, uffd_missing(uffd, p + PAGE, PAGE)) {
		TH_LOG("%s", strerror(errno));
	}
	*page = p + PAGE;
	return (struct iocb **)(p + PAGE) - 1;
}

static void submitter_inside(struct __test_metadata *_metadata, struct work *w, int uffd,
			     struct iocb *second, long taken)
{
	struct call submit = { .kind = SUBMIT, .aio = w->aio, .nr = 2 };
	struct call destroy = { .kind = DESTROY, .aio = w->aio };
	struct iocb **page = map_pages(PAGE);
	char *missing;

	prepare(w, 2);
	submit.iocbs = split_array(_metadata, uffd, &missing);
	submit.iocbs[0] = w->iop[0];
	page[0] = second;

	call_start(_metadata, &submit);
	ASSERT_TRUE(uffd_wait(uffd));
	testdev_cmd("c0 wait held 1");
	call_start(_metadata, &destroy);
	EXPECT_SLEEPS(&destroy);
	/* It is dead, however. */
	EXPECT_EQ(-EINVAL, start(w, 1));
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	EXPECT_EQ(0, testdev_stat("c0", "cancelled"));

	ASSERT_EQ(0, uffd_fill(uffd, missing, page));
	EXPECT_RETURNS(taken, &submit);
	EXPECT_RETURNS(0, &destroy);
	w->aio.ctx = 0;
	testdev_cmd("c0 wait ended %ld", taken);
	EXPECT_EQ(taken, testdev_stat("c0", "started"));
	EXPECT_EQ(taken, testdev_stat("c0", "cancelled"));
	/* No data: they were cancelled, all of them. */
	EXPECT_EQ(-1, filled_check(w->buf, 2 * LEN, CANARY));
	if (w->aio.ops->is_raio) {
		EXPECT_MOVED(taken, &w->before, submitted);
		EXPECT_MOVED(taken, &w->before, cancelled);
		EXPECT_MOVED(1, &w->before, kill_busy);
	}
}

TEST_F(held, submitter_goes_on)
{
	testdev_cmd("c0 cancel yes");
	submitter_inside(_metadata, &self->w, self->uffd, &self->w.io[1], 2);
}

TEST_F(held, submitter_fails)
{
	testdev_cmd("c0 cancel yes");
	submitter_inside(_metadata, &self->w, self->uffd, KERNEL_PTR, 1);
}

/* There is no request yet, only who is about to make one. */
TEST_F(held, submitter_begins)
{
	struct work *w = &self->w;
	struct iocb **array = map_pages(PAGE), **page = map_pages(PAGE);
	struct call submit = { .kind = SUBMIT, .aio = w->aio, .nr = 1, .iocbs = array };
	struct call destroy = { .kind = DESTROY, .aio = w->aio };

	testdev_cmd("c0 cancel yes");
	prepare(w, 1);
	page[0] = w->iop[0];
	ASSERT_EQ(0, uffd_missing(self->uffd, array, PAGE));
	call_start(_metadata, &submit);
	ASSERT_TRUE(uffd_wait(self->uffd));
	call_start(_metadata, &destroy);
	EXPECT_SLEEPS(&destroy);
	ASSERT_EQ(0, uffd_fill(self->uffd, array, page));
	EXPECT_RETURNS(1, &submit);
	EXPECT_RETURNS(0, &destroy);
	w->aio.ctx = 0;
	testdev_cmd("c0 wait ended 1");
	EXPECT_EQ(1, testdev_stat("c0", "cancelled"));
	EXPECT_EQ(-1, filled_check(w->buf, LEN, CANARY));
}

/* It is inside of the file's method: held by the buffer. */
static void submitter_in_method(struct __test_metadata *_metadata, struct work *w, int uffd,
				bool cancelled)
{
	struct call submit = { .kind = SUBMIT, .aio = w->aio, .nr = 1, .iocbs = w->iop };
	struct call destroy = { .kind = DESTROY, .aio = w->aio };
	char *missing = map_pages(PAGE);

	ASSERT_EQ(0, uffd_missing(uffd, missing, PAGE));
	prepare(w, 1);
	w->io[0].aio_buf = (uintptr_t)missing;
	call_start(_metadata, &submit);
	ASSERT_TRUE(uffd_wait(uffd));
	call_start(_metadata, &destroy);
	EXPECT_SLEEPS(&destroy);
	EXPECT_EQ(1, testdev_stat("c0", "started"));
	EXPECT_EQ(0, testdev_stat("c0", "ended"));
	ASSERT_EQ(0, uffd_fill(uffd, missing, w->buf));
	EXPECT_RETURNS(1, &submit);
	EXPECT_RETURNS(0, &destroy);
	w->aio.ctx = 0;
	EXPECT_EQ(-1, cancelled ? filled_check(missing, LEN, CANARY) :
				  pattern_check(missing, LEN, 0, SEED));
	testdev_cmd("c0 wait ended 1");
	EXPECT_EQ(cancelled, testdev_stat("c0", "cancelled"));
}

TEST_F(held, submitter_in_a_method)
{
	testdev_cmd("c0 cancel yes");
	submitter_in_method(_metadata, &self->w, self->uffd, true);
}

TEST_F(held, submitter_in_a_method_that_ends_it_later)
{
	testdev_cmd("c0 mode timer 20000000");
	submitter_in_method(_metadata, &self->w, self->uffd, false);
}

TEST_F(held, submitter_in_a_method_that_ends_it_now)
{
	testdev_cmd("c0 mode now");
	submitter_in_method(_metadata, &self->w, self->uffd, false);
}

TEST_F(held, submitter_in_a_method_that_returns_it)
{
	testdev_cmd("c0 mode sync");
	submitter_in_method(_metadata, &self->w, self->uffd, false);
}

/* Who reads events is inside, too. */
TEST_F(held, reader_inside)
{
	struct work *w = &self->w;
	struct io_event *missing = map_pages(PAGE);
	struct call reader = { .kind = GETEVENTS, .aio = w->aio, .nr = 1, .events = missing };
	struct call destroy = { .kind = DESTROY, .aio = w->aio };

	testdev_cmd("c0 mode now");
	ASSERT_EQ(1, start(w, 1));
	ASSERT_EQ(0, uffd_missing(self->uffd, missing, PAGE));
	call_start(_metadata, &reader);
	ASSERT_TRUE(uffd_wait(self->uffd));
	call_start(_metadata, &destroy);
	EXPECT_SLEEPS(&destroy);
	/* Also when the grace period is over in which it sleeps at first. */
	grace_periods();
	EXPECT_SLEEPS(&destroy);
	ASSERT_EQ(0, uffd_fill(self->uffd, missing, map_pages(PAGE)));
	EXPECT_RETURNS(1, &reader);
	EXPECT_EVENT(missing, &w->io[0], LEN);
	EXPECT_RETURNS(0, &destroy);
	w->aio.ctx = 0;
}

/* Cancelling. */

/*
 * Which are asked is up to the device; those that can't be cancelled go on as
 * if nothing had been asked of them: with all their data.
 */
TEST_F(held, only_what_can_be_is_cancelled)
{
	struct work *w = &self->w;
	static const char * const how[EVENTS] = {
		"no", "yes", "refuse", "yes", "late", "no", "refuse", "yes",
	};
	struct call sleeper = { .kind = GETEVENTS, .aio = w->aio, .nr = 1 };
	struct call destroy = { .kind = DESTROY, .aio = w->aio };
	int i;

	prepare(w, EVENTS);
	for (i = 0; i < EVENTS; i++) {
		testdev_cmd("c0 cancel %s", how[i]);
		ASSERT_EQ(1, aio_submit_one(&w->aio, &w->io[i]));
	}
	testdev_cmd("c0 wait held %d", EVENTS);
	call_start(_metadata, &sleeper);
	EXPECT_SLEEPS(&sleeper);
	call_start(_metadata, &destroy);
	/* Cancelled or not, nobody is told of any: it is too late. */
	EXPECT_RETURNS(-EINVAL, &sleeper);
	testdev_cmd("c0 wait ended 4");
	EXPECT_SLEEPS(&destroy);
	EXPECT_EQ(4, testdev_stat("c0", "held"));
	EXPECT_EQ(4, testdev_stat("c0", "cancelled"));
	EXPECT_EQ(-1, filled_check(w->buf, EVENTS * LEN, CANARY));
	if (variant->ops->is_raio) {
		EXPECT_MOVED(4, &w->before, cancelled);
		EXPECT_MOVED(2, &w->before, uncancelled);
	}

	testdev_cmd("c0 complete all");
	EXPECT_RETURNS(0, &destroy);
	w->aio.ctx = 0;
	for (i = 0; i < EVENTS; i++) {
		const bool asked = strcmp(how[i], "no") && strcmp(how[i], "refuse");
		char *buf = w->buf + i * LEN;

		EXPECT_EQ(-1, asked ? filled_check(buf, LEN, CANARY) :
				      pattern_check(buf, LEN, i * LEN, SEED));
	}
	if (variant->ops->is_raio) {
		EXPECT_MOVED(4, &w->before, cancelled);
		EXPECT_MOVED(2, &w->before, uncancelled);
		EXPECT_MOVED(0, &w->before, reaped);
		EXPECT_MOVED(EVENTS, &w->before, completed);
	}
}

/* What is said to be cancelled has not ended yet: the device ends it later. */
TEST_F(held, cancelled_later)
{
	struct work *w = &self->w;

	testdev_cmd("c0 cancel late");
	ASSERT_EQ(EVENTS, start(w, EVENTS));
	EXPECT_EQ(0, aio_destroy(&w->aio, w->aio.ctx));
	w->aio.ctx = 0;
	memset(w->buf, 0, EVENTS * LEN);
	/* By now all have ended. */
	if (variant->ops->is_raio)
		EXPECT_MOVED(EVENTS, &w->before, completed);
	testdev_cmd("c0 wait ended %d", EVENTS);
	EXPECT_EQ(EVENTS, testdev_stat("c0", "cancelled"));
	EXPECT_EQ(-1, filled_check(w->buf, EVENTS * LEN, 0));
}

/* A request that has ended isn't asked. */
TEST_F(held, ended_requests_are_not_cancelled)
{
	struct work *w = &self->w;

	testdev_cmd("c0 cancel yes");
	ASSERT_EQ(2, start(w, 2));
	testdev_cmd("c0 complete 1");
	testdev_cmd("c0 wait ended 1");
	EXPECT_EQ(0, aio_destroy(&w->aio, w->aio.ctx));
	w->aio.ctx = 0;
	testdev_cmd("c0 wait ended 2");
	EXPECT_EQ(1, testdev_stat("c0", "cancelled"));
	EXPECT_EQ(-1, pattern_check(w->buf, LEN, 0, SEED));
	if (variant->ops->is_raio)
		EXPECT_MOVED(1, &w->before, cancelled);
}

/* Cancelled at the moment at which they end: each ends once. */

#define RACE_NS		2000000000LL
#define MIN_ROUNDS	10	/* also where a round takes long */

struct racer {
	const struct aio_ops *ops;
	int cpu;
	bool timed;
	long long until;
	unsigned int rounds;
	unsigned int wrong;
	/* How long a round takes by now, in microseconds. */
	unsigned int round_us;
	bool over;
};

/* Requests that take about as long as it takes until they are cancelled. */
static long race_start(struct work *w, struct racer *r, uint64_t *random)
{
	unsigned int base = next_random(random) % (r->round_us * 3 / 2 + 1);
	int i;

	if (!r->timed)
		return start(w, EVENTS);
	prepare(w, EVENTS);
	for (i = 0; i < EVENTS; i++) {
		unsigned int us = base + next_random(random) % 50;

		if (testdev_try("c0 mode timer %u", 1000 * us + 1000) ||
		    aio_submit_one(&w->aio, &w->io[i]) != 1)
			return i;
	}
	return i;
}

static void *race_thread(void *data)
{
	struct racer *r = data;
	struct work w = { .aio.ops = r->ops };
	uint64_t state = r->cpu;

	pin_to_cpu(r->cpu);
	w.fd = open(testdev_path("c0"), O_RDONLY | O_CLOEXEC);
	w.buf = map_pages(EVENTS * LEN);
	w.aio.dev = r->ops->open();
	while (r->rounds <= MIN_ROUNDS || (r->rounds < 1000 && now_ns() < r->until)) {
		long long begin = now_ns();

		w.aio.ctx = 0;
		if (aio_setup(&w.aio, EVENTS, &w.aio.ctx) || race_start(&w, r, &state) != EVENTS)
			r->wrong++;
		if (aio_destroy(&w.aio, w.aio.ctx))
			r->wrong++;
		memset(w.buf, CANARY, EVENTS * LEN);
		r->rounds++;
		__atomic_store_n(&r->round_us, (now_ns() - begin) / 1000, __ATOMIC_RELAXED);
		if (filled_check(w.buf, EVENTS * LEN, CANARY) != -1)
			r->wrong++;
	}
	close(w.aio.dev);
	close(w.fd);
	__atomic_store_n(&r->over, true, __ATOMIC_RELEASE);
	return NULL;
}

static void race(struct __test_metadata *_metadata, struct work *w, bool timed)
{
	struct racer racer[2] = {
		{ .cpu = 0, .round_us = 10000 },
		{ .cpu = 1, .round_us = 10000 },
	};
	struct raio_stats after;
	unsigned int i, rounds;
	pthread_t thread[2];
	uint64_t random = 9;

	testdev_cmd("c0 cancel yes");
	for (i = 0; i < 2; i++) {
		racer[i].ops = w->aio.ops;
		racer[i].timed = timed;
		racer[i].until = now_ns() + RACE_NS;
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, race_thread, &racer[i]));
	}
	/* If no timer does, we end them, at any time. */
	while (!timed && !(__atomic_load_n(&racer[0].over, __ATOMIC_ACQUIRE) &&
			   __atomic_load_n(&racer[1].over, __ATOMIC_ACQUIRE))) {
		usleep(next_random(&random) %
		       (__atomic_load_n(&racer[0].round_us, __ATOMIC_RELAXED) / EVENTS + 1));
		testdev_cmd("c0 complete 1");
	}
	for (i = 0; i < 2; i++) {
		pthread_join(thread[i], NULL);
		EXPECT_EQ(0, racer[i].wrong);
	}
	rounds = racer[0].rounds + racer[1].rounds;
	testdev_cmd("c0 wait ended %u", rounds * EVENTS);
	EXPECT_EQ(rounds * EVENTS, testdev_stat("c0", "started"));
	EXPECT_EQ(rounds * EVENTS, testdev_stat("c0", "ended"));
	EXPECT_EQ(0, testdev_stat("c0", "held"));
	TH_LOG("%u rounds, %ld of %u cancelled", rounds, testdev_stat("c0", "cancelled"),
	       rounds * EVENTS);
	if (!w->aio.ops->is_raio)
		return;
	/* The device and the module agree on what was cancelled. */
	EXPECT_MOVED(testdev_stat("c0", "cancelled"), &w->before, cancelled);
	EXPECT_MOVED(rounds * EVENTS, &w->before, completed);
	stats_now(_metadata, &after);
	EXPECT_GE(rounds * EVENTS, after.cancelled - w->before.cancelled +
					  after.uncancelled - w->before.uncancelled);
}

TEST_F(held, race_of_cancel_and_timer)
{
	race(_metadata, &self->w, true);
}

TEST_F(held, race_of_cancel_and_command)
{
	race(_metadata, &self->w, false);
}

/* Requests that end at once, from several threads, read by another. */

FIXTURE(instant)
{
	struct work w;
};

FIXTURE_VARIANT(instant)
{
	const struct aio_ops *ops;
	const char *dev;
	const char *mode;
	int flags;
};

FIXTURE_VARIANT_ADD(instant, kernel_aio_now)
{
	.ops = &kernel_aio, .dev = "c0", .mode = "now",
};

FIXTURE_VARIANT_ADD(instant, kernel_aio_sync)
{
	.ops = &kernel_aio, .dev = "c0", .mode = "sync",
};

FIXTURE_VARIANT_ADD(instant, raio_now)
{
	.ops = &raio, .dev = "c0", .mode = "now",
};

FIXTURE_VARIANT_ADD(instant, raio_sync)
{
	.ops = &raio, .dev = "c0", .mode = "sync",
};

FIXTURE_VARIANT_ADD(instant, raio_disk)
{
	.ops = &raio, .dev = "b0", .mode = "now", .flags = O_DIRECT,
};

#define INSTANT_SLOTS	16
#define INSTANT_LEN	512UL
#define INSTANT_EACH	1000

FIXTURE_SETUP(instant)
{
	char *buf = map_pages(64 * INSTANT_LEN);
	struct work *w = &self->w;
	int fd;

	work_begin(_metadata, w, variant->ops);
	testdev_cmd("c0 mode now");
	w->aio.dev = variant->ops->open();
	ASSERT_LE(0, w->aio.dev);
	ASSERT_EQ(0, aio_setup(&w->aio, 2 * INSTANT_SLOTS, &w->aio.ctx));
	fd = testdev_open(variant->dev, variant->flags);
	pattern_fill(buf, 64 * INSTANT_LEN, 0, SEED);
	ASSERT_EQ(64 * INSTANT_LEN, pwrite(fd, buf, 64 * INSTANT_LEN, 0));
	close(w->fd);
	w->fd = fd;
	testdev_reset();
	testdev_cmd("%s mode %s", variant->dev, variant->mode);
}

FIXTURE_TEARDOWN(instant)
{
	work_end(_metadata, &self->w);
}

struct slot {
	struct iocb io;
	char *buf;
	bool used;
};

struct submitter {
	struct work *w;
	struct slot slot[INSTANT_SLOTS];
	unsigned int taken;
	unsigned int wrong;
};

static void *instant_thread(void *data)
{
	struct submitter *s = data;
	unsigned int i;

	for (i = 0; i < INSTANT_EACH; i++) {
		struct slot *slot = &s->slot[i % INSTANT_SLOTS];
		struct iocb *io = &slot->io;
		long ret;

		if (!wait_for(!__atomic_load_n(&slot->used, __ATOMIC_ACQUIRE)))
			break;
		slot->used = true;
		memset(slot->buf, CANARY, INSTANT_LEN);
		iocb_prep(io, IOCB_CMD_PREAD, s->w->fd, slot->buf, INSTANT_LEN,
			  i % 64 * INSTANT_LEN);
		io->aio_data = (uintptr_t)slot;
		/* Its room in the ring may be free a little later than its slot. */
		do {
			ret = aio_submit_one(&s->w->aio, io);
		} while (ret == -EAGAIN);
		if (ret != 1) {
			s->wrong++;
			break;
		}
		s->taken++;
	}
	return NULL;
}

TEST_F(instant, each_once)
{
	struct submitter s[2] = { { .w = &self->w }, { .w = &self->w } };
	unsigned int i, j, seen = 0;
	pthread_t thread[2];

	for (i = 0; i < 2; i++) {
		char *bufs = map_pages(INSTANT_SLOTS * INSTANT_LEN);

		for (j = 0; j < INSTANT_SLOTS; j++)
			s[i].slot[j].buf = bufs + j * INSTANT_LEN;
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, instant_thread, &s[i]));
	}
	while (seen < 2 * INSTANT_EACH) {
		struct __kernel_timespec timeout = { .tv_sec = WAIT_SECONDS };
		struct io_event ev[8];
		long n = aio_getevents(&self->w.aio, 1, 8, ev, &timeout);

		ASSERT_LT(0, n) {
			TH_LOG("after %u", seen);
		}
		for (i = 0; i < n; i++, seen++) {
			struct slot *slot = (struct slot *)(uintptr_t)ev[i].data;

			ASSERT_TRUE(slot->used);
			EXPECT_EVENT(&ev[i], &slot->io, INSTANT_LEN);
			ASSERT_EQ(-1, pattern_check(slot->buf, INSTANT_LEN, slot->io.aio_offset,
						    SEED));
			__atomic_store_n(&slot->used, false, __ATOMIC_RELEASE);
		}
	}
	for (i = 0; i < 2; i++) {
		pthread_join(thread[i], NULL);
		EXPECT_EQ(INSTANT_EACH, s[i].taken);
		EXPECT_EQ(0, s[i].wrong);
	}
	testdev_cmd("%s wait ended %u", variant->dev, 2 * INSTANT_EACH);
	EXPECT_EQ(2 * INSTANT_EACH, testdev_stat(variant->dev, "started"));
}

/* Many contexts of one owner: their ends overlap. */

#define MANY		64
#define MANY_DELAY_MS	300

enum how { BY_DESTROY, BY_CLOSE, BY_EXIT, BY_KILL };

FIXTURE(many)
{
	struct work w;
};

FIXTURE_VARIANT(many)
{
	const struct aio_ops *ops;
	enum how by;
};

FIXTURE_VARIANT_ADD(many, kernel_aio_exit)
{
	.ops = &kernel_aio, .by = BY_EXIT,
};

FIXTURE_VARIANT_ADD(many, kernel_aio_destroy)
{
	.ops = &kernel_aio, .by = BY_DESTROY,
};

FIXTURE_VARIANT_ADD(many, exit)
{
	.ops = &raio, .by = BY_EXIT,
};

FIXTURE_VARIANT_ADD(many, close)
{
	.ops = &raio, .by = BY_CLOSE,
};

FIXTURE_VARIANT_ADD(many, kill)
{
	.ops = &raio, .by = BY_KILL,
};

FIXTURE_VARIANT_ADD(many, destroy)
{
	.ops = &raio, .by = BY_DESTROY,
};

FIXTURE_SETUP(many)
{
	work_begin(_metadata, &self->w, variant->ops);
}

FIXTURE_TEARDOWN(many)
{
	work_end(_metadata, &self->w);
}

/* In a child: one request on each of MANY contexts, and the end. */
static int many_child(struct work *w, enum how by, int fd)
{
	static aio_context_t ctx[MANY];
	static struct call call[MANY];
	int i;

	w->aio.dev = w->aio.ops->open();
	for (i = 0; i < MANY; i++)
		if (aio_setup(&w->aio, 1, &ctx[i]))
			return 1;
	line_tell(fd);
	line_wait(fd);
	for (i = 0; i < MANY; i++) {
		w->aio.ctx = ctx[i];
		if (start(w, 1) != 1)
			return 2;
	}
	line_tell(fd);
	switch (by) {
	case BY_CLOSE:
		return !!close(w->aio.dev);
	case BY_KILL:
		pause();
		return 3;
	case BY_DESTROY:
		for (i = 0; i < MANY; i++) {
			call[i].kind = DESTROY;
			call[i].aio = w->aio;
			call[i].aio.ctx = ctx[i];
			if (pthread_create(&call[i].thread, NULL, call_thread, &call[i]))
				return 4;
		}
		for (i = 0; i < MANY; i++) {
			pthread_join(call[i].thread, NULL);
			if (call[i].ret)
				return 5;
		}
		return 0;
	default:
		return 0;
	}
}

static pid_t many_start(struct __test_metadata *_metadata, struct work *w, enum how by,
			struct line *line)
{
	pid_t pid;

	line_open(_metadata, line);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		line_child(line);
		_exit(many_child(w, by, line->fds[1]));
	}
	line_parent(line);
	/* The contexts are there. */
	ASSERT_TRUE(line_wait(line->fds[0]));
	return pid;
}

static void expect_ended(struct __test_metadata *_metadata, pid_t pid, enum how by)
{
	int status = wait_child(pid);

	EXPECT_TRUE(by == BY_KILL ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL :
				     !status) {
		TH_LOG("status %#x", status);
	}
}

/* About one delay and not one after the other. */
TEST_F(many, take_one_delay)
{
	struct line line;
	long long begin;
	pid_t pid;

	testdev_cmd("c0 mode timer %lld", MANY_DELAY_MS * 1000000LL);
	pid = many_start(_metadata, &self->w, variant->by, &line);
	begin = now_ns();
	line_tell(line.fds[0]);
	ASSERT_TRUE(line_wait(line.fds[0]));
	if (variant->by == BY_KILL)
		kill(pid, SIGKILL);
	expect_ended(_metadata, pid, variant->by);
	/* A busy host has to be as slow as that to be taken for it. */
	EXPECT_GT(MANY / 2 * MANY_DELAY_MS * 1000000LL, now_ns() - begin);
	EXPECT_LE(MANY_DELAY_MS * 1000000LL, now_ns() - begin);
	testdev_cmd("c0 wait ended %d", MANY);
	EXPECT_EQ(MANY, testdev_stat("c0", "ended"));
}

/* Each comes to the point at which it asks for the end of its request. */
TEST_F(many, all_are_asked_while_all_are_held)
{
	struct line line;
	pid_t pid;

	if (!variant->ops->is_raio)
		return;
	testdev_cmd("c0 cancel refuse");
	pid = many_start(_metadata, &self->w, variant->by, &line);
	line_tell(line.fds[0]);
	ASSERT_TRUE(line_wait(line.fds[0]));
	testdev_cmd("c0 wait held %d", MANY);
	if (variant->by == BY_KILL)
		kill(pid, SIGKILL);
	EXPECT_TRUE(wait_for(MOVED(&self->w.before, uncancelled) == MANY)) {
		TH_LOG("%lld were asked", MOVED(&self->w.before, uncancelled));
	}
	EXPECT_EQ(MANY, testdev_stat("c0", "held"));
	/* All but one: it still waits. */
	testdev_cmd("c0 complete %d", MANY - 1);
	testdev_cmd("c0 wait ended %d", MANY - 1);
	EXPECT_TRUE(wait_for(task_state(pid) == 'D' || variant->by == BY_DESTROY));
	EXPECT_EQ(0, waitpid(pid, NULL, WNOHANG));
	testdev_cmd("c0 complete 1");
	expect_ended(_metadata, pid, variant->by);
	EXPECT_MOVED(0, &self->w.before, cancelled);
	EXPECT_MOVED(MANY, &self->w.before, kill_inflight);
}

TEST_F(many, all_are_cancelled)
{
	struct line line;
	pid_t pid;

	testdev_cmd("c0 cancel yes");
	pid = many_start(_metadata, &self->w, variant->by, &line);
	line_tell(line.fds[0]);
	ASSERT_TRUE(line_wait(line.fds[0]));
	if (variant->by == BY_KILL)
		kill(pid, SIGKILL);
	expect_ended(_metadata, pid, variant->by);
	testdev_cmd("c0 wait ended %d", MANY);
	EXPECT_EQ(MANY, testdev_stat("c0", "cancelled"));
	if (variant->ops->is_raio)
		EXPECT_MOVED(MANY, &self->w.before, cancelled);
}

/* Owners that vanish: what they had goes, with its requests, and nothing else. */

FIXTURE(owner)
{
	struct work w;
	struct line line;
	int ended;
};

FIXTURE_VARIANT(owner)
{
	const char *mode;
	const char *cancel;
};

FIXTURE_VARIANT_ADD(owner, cancelled)
{
	.mode = "hang", .cancel = "yes",
};

FIXTURE_VARIANT_ADD(owner, timer)
{
	.mode = "timer 30000000", .cancel = "no",
};

FIXTURE_VARIANT_ADD(owner, softirq)
{
	.mode = "softirq", .cancel = "yes",
};

#define OWNED	4

FIXTURE_SETUP(owner)
{
	self->ended = OWNED;
	work_begin(_metadata, &self->w, &raio);
	testdev_cmd("c0 mode %s", variant->mode);
	testdev_cmd("c0 cancel %s", variant->cancel);
	line_open(_metadata, &self->line);
}

FIXTURE_TEARDOWN(owner)
{
	bool hang = !strcmp(variant->mode, "hang");

	testdev_cmd("c0 wait ended %d", self->ended);
	EXPECT_EQ(self->ended, testdev_stat("c0", "started"));
	EXPECT_EQ(hang ? self->ended : 0, testdev_stat("c0", "cancelled"));
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == self->w.contexts));
	EXPECT_MOVED(hang ? self->ended : 0, &self->w.before, cancelled);
	EXPECT_MOVED(0, &self->w.before, abandoned);
	work_end(_metadata, &self->w);
}

/* In a child: 0 or an error. */
static int own_requests(struct work *w)
{
	return own_context(w) || start(w, OWNED) != OWNED;
}

/* Tells the test, and goes on when it is told to. */
static int report(int fd)
{
	return !line_tell(fd) || !line_wait(fd);
}

#define FORK_CHILD(pid) do {						\
	(pid) = fork();							\
	ASSERT_LE(0, (pid));						\
	if (!(pid))							\
		line_child(&self->line);				\
} while (0)

/* The child, which is there and has a descriptor, has lost its contexts. */
static void expect_lost(struct __test_metadata *_metadata, struct work *w, struct line *line,
			pid_t pid)
{
	line_parent(line);
	ASSERT_TRUE(line_wait(line->fds[0]));
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts)) {
		TH_LOG("%ld contexts, %ld before", raio_nr("nr_contexts"), w->contexts);
	}
	testdev_cmd("c0 wait ended %d", OWNED);
	EXPECT_TRUE(line_tell(line->fds[0]));
	EXPECT_EQ(0, wait_child(pid));
}

TEST_F(owner, destroys)
{
	ASSERT_EQ(0, own_requests(&self->w));
	EXPECT_EQ(0, aio_destroy(&self->w.aio, self->w.aio.ctx));
	self->w.aio.ctx = 0;
}

TEST_F(owner, closes)
{
	ASSERT_EQ(0, own_requests(&self->w));
	EXPECT_EQ(0, close(self->w.aio.dev));
	self->w.aio.dev = -1;
	self->w.aio.ctx = 0;
	/* Nothing is left when that returns. */
	EXPECT_MOVED(OWNED, &self->w.before, completed);
}

TEST_F(owner, exits)
{
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid)
		_exit(own_requests(&self->w));
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_MOVED(OWNED, &self->w.before, completed);
}

TEST_F(owner, is_killed)
{
	int status;
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid) {
		if (own_requests(&self->w))
			_exit(1);
		line_tell(self->line.fds[1]);
		for (;;)
			pause();
	}
	ASSERT_TRUE(line_wait(self->line.fds[0]));
	kill(pid, SIGKILL);
	status = wait_child(pid);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		TH_LOG("status %#x", status);
	}
	EXPECT_MOVED(OWNED, &self->w.before, completed);
}

static int exec_hold(int fd)
{
	char arg[16];

	fcntl(fd, F_SETFD, 0);
	snprintf(arg, sizeof(arg), "%d", fd);
	execl("/proc/self/exe", "teardown", "--hold", arg, NULL);
	return 1;
}

/* Another program goes on in the process, with the descriptor. */
TEST_F(owner, runs_another_program)
{
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid) {
		if (own_requests(&self->w))
			_exit(1);
		fcntl(self->w.aio.dev, F_SETFD, 0);
		_exit(exec_hold(self->line.fds[1]));
	}
	expect_lost(_metadata, &self->w, &self->line, pid);
}

TEST_F(owner, runs_another_program_close_on_exec)
{
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid)
		_exit(own_requests(&self->w) || exec_hold(self->line.fds[1]));
	expect_lost(_metadata, &self->w, &self->line, pid);
}

/* From another thread than the first. */
static void *exec_thread(void *data)
{
	exec_hold(*(int *)data);
	_exit(1);
}

TEST_F(owner, runs_another_program_by_thread)
{
	pthread_t thread;
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid) {
		if (own_requests(&self->w) ||
		    pthread_create(&thread, NULL, exec_thread, &self->line.fds[1]))
			_exit(1);
		for (;;)
			pause();
	}
	expect_lost(_metadata, &self->w, &self->line, pid);
}

static void *own_requests_thread(void *data)
{
	return (void *)(long)own_requests(data);
}

/* The thread that made it isn't the owner: its process is. */
TEST_F(owner, was_a_thread_that_ended)
{
	struct work *w = &self->w;
	struct io_event ev[OWNED];
	pthread_t thread;
	void *ret;

	ASSERT_EQ(0, pthread_create(&thread, NULL, own_requests_thread, w));
	pthread_join(thread, &ret);
	ASSERT_EQ(NULL, ret);
	EXPECT_EQ(w->contexts + 1, raio_nr("nr_contexts"));
	if (!strcmp(variant->mode, "hang")) {
		EXPECT_EQ(OWNED, testdev_stat("c0", "held"));
	} else {
		EXPECT_EQ(OWNED, aio_wait(&w->aio, OWNED, ev));
		EXPECT_EQ(-1, pattern_check(w->buf, OWNED * LEN, 0, SEED));
	}
	EXPECT_EQ(0, aio_destroy(&w->aio, w->aio.ctx));
	w->aio.ctx = 0;
}

/* The first thread ends, another goes on. */
static void *outlive_thread(void *data)
{
	struct work *w = data;

	/* The first one is a zombie as long as there are others. */
	if (!wait_for(task_state(getpid()) == 'Z'))
		_exit(2);
	_exit(raio_nr("nr_contexts") != w->contexts + 1 || aio_destroy(&w->aio, w->aio.ctx));
}

TEST_F(owner, first_thread_ends)
{
	pthread_t thread;
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid) {
		if (own_requests(&self->w) ||
		    pthread_create(&thread, NULL, outlive_thread, &self->w))
			_exit(1);
		pthread_exit(NULL);
	}
	EXPECT_EQ(0, wait_child(pid));
}

TEST_F(owner, closes_all_duplicates)
{
	struct work *w = &self->w;
	int other;

	ASSERT_EQ(0, own_requests(w));
	other = dup(w->aio.dev);
	ASSERT_LE(0, other);
	EXPECT_EQ(0, close(w->aio.dev));
	EXPECT_EQ(w->contexts + 1, raio_nr("nr_contexts"));
	if (!strcmp(variant->mode, "hang"))
		EXPECT_EQ(OWNED, testdev_stat("c0", "held"));
	EXPECT_EQ(0, close(other));
	w->aio.dev = -1;
	w->aio.ctx = 0;
	EXPECT_MOVED(OWNED, &w->before, completed);
}

/* The end of a child that has the descriptor changes nothing, */
TEST_F(owner, has_a_child_that_exits)
{
	struct work *w = &self->w;
	pid_t pid;

	ASSERT_EQ(0, own_requests(w));
	FORK_CHILD(pid);
	if (!pid)
		_exit(0);
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_EQ(w->contexts + 1, raio_nr("nr_contexts"));
	if (!strcmp(variant->mode, "hang"))
		EXPECT_EQ(OWNED, testdev_stat("c0", "held"));
	EXPECT_EQ(0, close(w->aio.dev));
	w->aio.dev = -1;
	w->aio.ctx = 0;
}

/* nor does the child keep anything when the owner ends. */
TEST_F(owner, exits_before_its_child)
{
	struct io_event ev;
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid) {
		if (own_requests(&self->w))
			_exit(1);
		pid = fork();
		if (pid)
			_exit(pid < 0);
		/* Of the test, for the test is who waits for it. */
		if (report(self->line.fds[1]))
			_exit(1);
		if (aio_poll(&self->w.aio, 1, &ev) == -EINVAL)
			line_tell(self->line.fds[1]);
		_exit(0);
	}
	ASSERT_TRUE(line_wait(self->line.fds[0]));
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == self->w.contexts));
	testdev_cmd("c0 wait ended %d", OWNED);
	EXPECT_TRUE(line_tell(self->line.fds[0]));
	EXPECT_TRUE(line_wait(self->line.fds[0]));
}

/* It has sent the descriptor to another process before it ended, */
TEST_F(owner, exits_with_the_descriptor_sent)
{
	struct work *w = &self->w;
	int dev;
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid)
		_exit(own_requests(w) || send_fds(self->line.fds[1], &w->aio.dev, 1));
	EXPECT_EQ(0, wait_child(pid));
	/* which need not even have received it. */
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts));
	testdev_cmd("c0 wait ended %d", OWNED);
	dev = receive_fd(self->line.fds[0]);
	ASSERT_LE(0, dev);
	/* It is as good as new. */
	w->aio.dev = dev;
	ASSERT_EQ(0, aio_setup(&w->aio, EVENTS, &w->aio.ctx));
	ASSERT_EQ(OWNED, start(w, OWNED));
	EXPECT_EQ(0, close(dev));
	w->aio.dev = -1;
	w->aio.ctx = 0;
	self->ended = 2 * OWNED;
}

/*
 * The other process is the last to have it: its close ends the sender's contexts.
 * The sender's ring stays where it is. It may count as long as it is mapped.
 */
TEST_F(owner, has_given_the_descriptor_away)
{
	struct work *w = &self->w;
	pid_t pid;
	int dev;

	FORK_CHILD(pid);
	if (!pid) {
		if (own_requests(w) || send_fds(self->line.fds[1], &w->aio.dev, 1) ||
		    close(w->aio.dev) || report(self->line.fds[1]))
			_exit(1);
		munmap(aio_ring(w->aio.ctx), PAGE);
		_exit(report(self->line.fds[1]));
	}
	dev = receive_fd(self->line.fds[0]);
	ASSERT_LE(0, dev);
	ASSERT_TRUE(line_wait(self->line.fds[0]));
	EXPECT_EQ(w->contexts + 1, raio_nr("nr_contexts"));
	EXPECT_EQ(0, close(dev));
	EXPECT_MOVED(OWNED, &w->before, completed);
	EXPECT_TRUE(line_tell(self->line.fds[0]));
	ASSERT_TRUE(line_wait(self->line.fds[0]));
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts));
	line_tell(self->line.fds[0]);
	EXPECT_EQ(0, wait_child(pid));
}

/* The descriptor was on its way, and nobody will ever receive it. */
TEST_F(owner, closes_the_socket_that_it_is_in)
{
	struct work *w = &self->w;
	int fds[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds));
	ASSERT_EQ(0, own_requests(w));
	ASSERT_EQ(0, send_fds(fds[0], &w->aio.dev, 1));
	EXPECT_EQ(0, close(w->aio.dev));
	EXPECT_EQ(w->contexts + 1, raio_nr("nr_contexts"));
	w->aio.dev = -1;
	w->aio.ctx = 0;
	close(fds[0]);
	close(fds[1]);
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts));
}

/*
 * Into two sockets that are in each other: the kernel's garbage collector finds
 * them. It runs when somebody closes some other socket.
 */
static int send_to_nobody(int dev)
{
	int sent[2] = { dev };
	int fds[2], err;

	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds))
		return -errno;
	sent[1] = fds[0];
	err = send_fds(fds[0], sent, 2);
	sent[1] = fds[1];
	err = err ?: send_fds(fds[1], sent, 2);
	close(fds[0]);
	close(fds[1]);
	return err;
}

static void collect(void)
{
	int fds[2];

	if (!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds)) {
		close(fds[0]);
		close(fds[1]);
	}
}

#define COLLECTED(condition) ({						\
	collect();							\
	condition;							\
})

TEST_F(owner, leaves_it_to_the_garbage_collector)
{
	struct work *w = &self->w;

	ASSERT_EQ(0, own_requests(w));
	ASSERT_EQ(0, send_to_nobody(w->aio.dev));
	EXPECT_EQ(w->contexts + 1, raio_nr("nr_contexts"));
	EXPECT_EQ(0, close(w->aio.dev));
	w->aio.dev = -1;
	EXPECT_TRUE(wait_for(COLLECTED(MOVED(&w->before, completed) == OWNED)));
	/* It wasn't us who closed it: the ring is still mapped. */
	munmap(aio_ring(w->aio.ctx), PAGE);
	w->aio.ctx = 0;
	EXPECT_TRUE(wait_for(COLLECTED(raio_nr("nr_contexts") == w->contexts)));
}

/* The ring is what makes the handle. */
TEST_F(owner, unmaps_the_ring)
{
	struct work *w = &self->w;
	struct raio_ring *ring;
	struct io_event ev;

	ASSERT_EQ(0, own_requests(w));
	ring = aio_ring(w->aio.ctx);
	ASSERT_EQ(0, munmap(ring, PAGE));
	EXPECT_EQ(-EINVAL, aio_poll(&w->aio, 1, &ev));
	w->aio.ctx = 0;
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts));
}

/* What runs after exec: holds its descriptors until it is told to end. */
static int hold(int fd)
{
	return report(fd);
}

/* Each open file of the test devices is a user of their module. */
static long test_users(void)
{
	return read_number("/sys/module/raio_test/refcnt");
}

/* A device that never ends its request: who waits for it can be killed. */

FIXTURE(stuck)
{
	struct work w;
	struct line line;
	int uffd;
};

FIXTURE_SETUP(stuck)
{
	work_begin(_metadata, &self->w, &raio);
	self->uffd = -1;
	line_open(_metadata, &self->line);
}

FIXTURE_TEARDOWN(stuck)
{
	work_end(_metadata, &self->w);
}

/*
 * The process is at the place where it waits, with a request held. It is gone
 * at once. Its context is left behind, and goes when the device lets go.
 */
static void expect_killed(struct __test_metadata *_metadata, struct work *w, pid_t pid,
			  int abandoned)
{
	long long begin = now_ns();
	int status;

	EXPECT_EQ(0, waitpid(pid, NULL, WNOHANG));
	EXPECT_EQ(0, kill(pid, SIGKILL));
	status = wait_child(pid);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		TH_LOG("status %#x", status);
	}
	EXPECT_GT(PROMPT_NS, now_ns() - begin) {
		TH_LOG("it took %lld ms", (now_ns() - begin) / 1000000);
	}
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts + 1)) {
		TH_LOG("%ld contexts, %ld before", raio_nr("nr_contexts"), w->contexts);
	}
	if (abandoned >= 0)
		EXPECT_MOVED(abandoned, &w->before, abandoned);
	testdev_cmd("c0 complete all");
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts));
	testdev_cmd("c0 wait ended 1");
}

/* The test has the file too: only the call itself is to wait. */
#define SHARED_FILE() do {						\
	self->w.aio.dev = raio_open();					\
	ASSERT_LE(0, self->w.aio.dev);					\
} while (0)

/* In the child: a context and a request, on that file. */
static int on_shared_file(struct work *w)
{
	return aio_setup(&w->aio, EVENTS, &w->aio.ctx) || start(w, 1) != 1;
}

TEST_F(stuck, killed_in_destroy)
{
	pid_t pid;

	SHARED_FILE();
	FORK_CHILD(pid);
	if (!pid) {
		if (!on_shared_file(&self->w))
			aio_destroy(&self->w.aio, self->w.aio.ctx);
		_exit(1);
	}
	ASSERT_TRUE(wait_for(task_in_call(pid, DESTROY, &self->w.aio)));
	expect_killed(_metadata, &self->w, pid, 1);
}

TEST_F(stuck, killed_in_close)
{
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid) {
		if (!own_context(&self->w) && start(&self->w, 1) == 1)
			close(self->w.aio.dev);
		_exit(1);
	}
	ASSERT_TRUE(wait_for(task_in_call(pid, CLOSE, &self->w.aio)));
	expect_killed(_metadata, &self->w, pid, 1);
}

/* By closing the one that the file was on its way in. */
TEST_F(stuck, killed_in_close_of_a_socket)
{
	struct work *w = &self->w;
	int fds[2];
	pid_t pid;

	/* Its own: if we had the sockets too, the last to close them might be us. */
	FORK_CHILD(pid);
	if (!pid) {
		if (!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds) &&
		    !own_context(w) && start(w, 1) == 1 &&
		    !send_fds(fds[0], &w->aio.dev, 1) && !close(w->aio.dev)) {
			close(fds[1]);
			close(fds[0]);
		}
		_exit(1);
	}
	ASSERT_TRUE(wait_for(task_in_call(pid, CLOSE, &w->aio)));
	expect_killed(_metadata, w, pid, 1);
}

/* On the way into another program, which has not begun yet. */
TEST_F(stuck, killed_in_exec)
{
	char path[64], text[512];
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid) {
		if (own_context(&self->w) || start(&self->w, 1) != 1)
			_exit(1);
		_exit(exec_hold(self->line.fds[1]));
	}
	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	ASSERT_TRUE(wait_for(task_state(pid) == 'D' &&
			     !strcmp(read_text(path, text, sizeof(text)), "teardown") &&
			     !strcmp(text + strlen(text) + 1, "--hold")));
	expect_killed(_metadata, &self->w, pid, 1);
}

TEST_F(stuck, killed_in_getevents)
{
	struct io_event ev;
	pid_t pid;

	SHARED_FILE();
	FORK_CHILD(pid);
	if (!pid) {
		if (!on_shared_file(&self->w))
			aio_getevents(&self->w.aio, 1, 1, &ev, NULL);
		_exit(1);
	}
	ASSERT_TRUE(wait_for(task_in_call(pid, GETEVENTS, &self->w.aio)));
	expect_killed(_metadata, &self->w, pid, 0);
}

TEST_F(stuck, killed_in_submit)
{
	pid_t pid;

	SHARED_FILE();
	FORK_CHILD(pid);
	if (!pid) {
		struct iocb **missing = map_pages(PAGE);

		if (!on_shared_file(&self->w) && !uffd_missing(uffd_open(), missing, PAGE))
			aio_submit(&self->w.aio, 1, missing);
		_exit(1);
	}
	ASSERT_TRUE(wait_for(task_in_call(pid, SUBMIT, &self->w.aio)));
	expect_killed(_metadata, &self->w, pid, 0);
}

/* In the file's method, which finds out that its memory will not come. */
TEST_F(stuck, killed_in_a_method)
{
	struct work *w = &self->w;
	pid_t pid;

	SHARED_FILE();
	FORK_CHILD(pid);
	if (!pid) {
		char *missing = map_pages(PAGE);

		if (!on_shared_file(w) && !uffd_missing(uffd_open(), missing, PAGE)) {
			w->io[0].aio_buf = (uintptr_t)missing;
			aio_submit_one(&w->aio, &w->io[0]);
		}
		_exit(1);
	}
	ASSERT_TRUE(wait_for(task_in_call(pid, SUBMIT, &w->aio)));
	testdev_cmd("c0 wait started 2");
	expect_killed(_metadata, w, pid, 0);
}

/* Set-up of another context, before there is one, */
TEST_F(stuck, killed_in_setup)
{
	pid_t pid;

	SHARED_FILE();
	FORK_CHILD(pid);
	if (!pid) {
		aio_context_t *missing = map_pages(PAGE);

		if (!on_shared_file(&self->w) && !uffd_missing(uffd_open(), missing, PAGE))
			aio_setup(&self->w.aio, 1, missing);
		_exit(1);
	}
	ASSERT_TRUE(wait_for(task_in(pid, __NR_ioctl, RAIO_IOC_SETUP)));
	EXPECT_EQ(self->w.contexts + 1, raio_nr("nr_contexts"));
	expect_killed(_metadata, &self->w, pid, 0);
}

/* and when there is one and its handle is told. */
TEST_F(stuck, killed_at_the_end_of_setup)
{
	pid_t pid;

	SHARED_FILE();
	FORK_CHILD(pid);
	if (!pid) {
		aio_context_t *handle = map_pages(PAGE);

		*handle = 0;
		if (!on_shared_file(&self->w) && !uffd_protect(uffd_open(), handle, PAGE))
			aio_setup(&self->w.aio, 1, handle);
		_exit(1);
	}
	ASSERT_TRUE(wait_for(task_in(pid, __NR_ioctl, RAIO_IOC_SETUP)));
	EXPECT_EQ(self->w.contexts + 2, raio_nr("nr_contexts"));
	/* It is destroyed at once: whether that is waited for is its own business. */
	expect_killed(_metadata, &self->w, pid, -1);
}

/* A wait that was killed is over; other waits for the same are not. */
TEST_F(stuck, killed_one_of_two)
{
	struct work *w = &self->w;
	struct call close_call = { .kind = CLOSE };
	pid_t pid;

	SHARED_FILE();
	FORK_CHILD(pid);
	if (!pid) {
		if (!on_shared_file(w))
			aio_destroy(&w->aio, w->aio.ctx);
		_exit(1);
	}
	ASSERT_TRUE(wait_for(task_in_call(pid, DESTROY, &w->aio)));
	kill(pid, SIGKILL);
	wait_child(pid);
	/* Not its memory, but the file is the last one that has to do with it. */
	close_call.aio = w->aio;
	call_start(_metadata, &close_call);
	EXPECT_SLEEPS(&close_call);
	w->aio.dev = -1;
	testdev_cmd("c0 complete all");
	EXPECT_RETURNS(0, &close_call);
	EXPECT_MOVED(1, &w->before, completed);
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts));
}

/* The kernel's log, from where it was opened on. */

static int log_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

struct log {
	char text[65536];
	size_t len;
};

static const char *log_read(int fd, struct log *log)
{
	ssize_t n;

	while (log->len + 2048 < sizeof(log->text)) {
		n = read(fd, log->text + log->len, sizeof(log->text) - log->len - 1);
		if (n <= 0 && errno != EPIPE)
			break;
		if (n > 0)
			log->len += n;
	}
	log->text[log->len] = 0;
	return log->text;
}

/* The line in the log that @pid waits @seconds for @what. */
static bool log_tells(int fd, struct log *log, pid_t pid, unsigned int seconds, const char *what,
		      const char *where)
{
	char begin[64], line[512];
	const char *p;

	snprintf(begin, sizeof(begin), "[%d] waits %u s for ", pid, seconds);
	p = strstr(log_read(fd, log), begin);
	if (!p)
		return false;
	snprintf(line, sizeof(line), "%.*s", (int)strcspn(p, "\n"), p);
	return strstr(line, what) && strstr(line, where);
}

#define wait_long(cond) (wait_for(cond) || wait_for(cond))

/*
 * Those who can't be killed any more: processes that are at their end. All at
 * once, for it takes as long as it takes until the module says what it waits for.
 */
TEST_F_TIMEOUT(stuck, told_of, 90)
{
	static struct log log;
	struct work *w = &self->w;
	long long begin, took;
	pid_t killed, exiting, inside;
	int fd = log_open();
	int status;

	ASSERT_LE(0, fd);
	FORK_CHILD(killed);
	if (!killed) {
		if (own_context(w) || start(w, 2) != 2)
			_exit(1);
		line_tell(self->line.fds[1]);
		for (;;)
			pause();
	}
	ASSERT_TRUE(line_wait(self->line.fds[0]));
	FORK_CHILD(exiting);
	if (!exiting)
		_exit(own_context(w) || start(w, 1) != 1);
	/* A call that doesn't return, and a destroy that waits for it. */
	FORK_CHILD(inside);
	if (!inside) {
		struct iocb **missing = map_pages(PAGE);
		struct call submit = { .kind = SUBMIT, .nr = 1, .iocbs = missing };
		int uffd = uffd_open();

		if (own_context(w) || uffd_missing(uffd, missing, PAGE))
			_exit(1);
		submit.aio = w->aio;
		if (pthread_create(&submit.thread, NULL, call_thread, &submit) || !uffd_wait(uffd))
			_exit(2);
		aio_destroy(&w->aio, w->aio.ctx);
		_exit(3);
	}
	ASSERT_TRUE(wait_for(task_in_call(inside, DESTROY, &w->aio)));
	testdev_cmd("c0 wait held 3");
	begin = now_ns();
	kill(killed, SIGKILL);

	/* The one that was killed is over when it was told of, */
	status = wait_child(killed);
	took = now_ns() - begin;
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	EXPECT_LE((STUCK_SECONDS - 1) * 1000000000LL, took);
	EXPECT_GE(2 * STUCK_SECONDS * 1000000000LL, took) {
		TH_LOG("%lld ms", took / 1000000);
	}
	EXPECT_TRUE(wait_for(log_tells(fd, &log, killed, STUCK_SECONDS, "for 2 requests to end",
				       "raio_test0"))) {
		TH_LOG("the log has: %s", log.text);
	}
	EXPECT_MOVED(1, &w->before, abandoned);
	EXPECT_EQ(3, testdev_stat("c0", "held"));

	EXPECT_TRUE(wait_for(log_tells(fd, &log, exiting, STUCK_SECONDS, "for 1 requests to end",
				       "raio_test0"))) {
		TH_LOG("the log has: %s", log.text);
	}
	EXPECT_TRUE(wait_for(log_tells(fd, &log, inside, STUCK_SECONDS, "for calls", "return"))) {
		TH_LOG("the log has: %s", log.text);
	}
	/* the call goes when it is killed, */
	EXPECT_EQ(0, kill(inside, SIGKILL));
	status = wait_child(inside);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

	/* and the one that ends in peace can't be killed any more, but is told of again. */
	EXPECT_EQ(0, kill(exiting, SIGKILL));
	EXPECT_TRUE(wait_long(log_tells(fd, &log, exiting, 2 * STUCK_SECONDS,
					"for 1 requests to end", "raio_test0"))) {
		TH_LOG("the log has: %s", log.text);
	}
	EXPECT_EQ(0, waitpid(exiting, NULL, WNOHANG));
	EXPECT_EQ(w->contexts + 2, raio_nr("nr_contexts"));
	testdev_cmd("c0 complete all");
	status = wait_child(exiting);
	EXPECT_TRUE(WIFEXITED(status) && !WEXITSTATUS(status)) {
		TH_LOG("status %#x", status);
	}
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts));
	close(fd);
}

/*
 * The last to have the file is the kernel itself, in a thread that releases
 * the files of everybody. Those of others must not wait for our device.
 */
TEST_F_TIMEOUT(stuck, left_to_the_kernel, 60)
{
	struct work *w = &self->w;
	struct io_event ev;
	long users;
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid) {
		if (own_context(w) || start(w, 1) != 1 || send_to_nobody(w->aio.dev) ||
		    close(w->aio.dev) || close(w->fd))
			_exit(1);
		/* Its memory stays: the context ends with its file. */
		_exit(report(self->line.fds[1]));
	}
	ASSERT_TRUE(line_wait(self->line.fds[0]));
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	/* Its release was called. */
	EXPECT_TRUE(wait_for(COLLECTED(MOVED(&w->before, kill_inflight) == 1)));

	/* A file whose last user is a request that ends in an interrupt. */
	close(w->fd);
	users = test_users();
	testdev_cmd("c1 mode timer 20000000");
	ASSERT_EQ(0, own_context(w));
	w->fd = testdev_open("c1", 0);
	ASSERT_EQ(1, start(w, 1));
	EXPECT_EQ(0, close(w->fd));
	w->fd = -1;
	ASSERT_EQ(1, aio_wait(&w->aio, 1, &ev));
	EXPECT_TRUE(wait_for(test_users() == users)) {
		TH_LOG("%ld files of the devices are open, %ld before", test_users(), users);
	}
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	testdev_cmd("c0 complete all");
	line_tell(self->line.fds[0]);
	EXPECT_EQ(0, wait_child(pid));
}

/* Requests on descriptors that lead back to the device. */

FIXTURE(device_fd)
{
	struct work w;
	struct line line;
};

FIXTURE_SETUP(device_fd)
{
	work_begin(_metadata, &self->w, &raio);
	line_open(_metadata, &self->line);
}

FIXTURE_TEARDOWN(device_fd)
{
	work_end(_metadata, &self->w);
}

/* Its own file, and another one that is open. */
TEST_F(device_fd, itself)
{
	static const int opcodes[] = { IOCB_CMD_PREAD, IOCB_CMD_PWRITE };
	struct work *w = &self->w;
	int other = raio_open();
	unsigned int i;

	ASSERT_LE(0, other);
	ASSERT_EQ(0, own_context(w));
	for (i = 0; i < 4; i++) {
		iocb_prep(&w->io[0], opcodes[i % 2], i < 2 ? w->aio.dev : other, w->buf, LEN, 0);
		EXPECT_REFUSED(-EINVAL, &w->aio, &w->io[0]);
	}
	close(other);
	EXPECT_EQ(0, close(w->aio.dev));
	w->aio.dev = -1;
	w->aio.ctx = 0;
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts));
}

/* The socket's queue has the device; reading takes it out. */
TEST_F(device_fd, read_from_a_socket)
{
	struct work *w = &self->w;
	long long res = 0;
	int fds[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
	ASSERT_EQ(0, own_context(w));
	ASSERT_EQ(0, send_fds(fds[0], &w->aio.dev, 1));
	iocb_prep(&w->io[0], IOCB_CMD_PREAD, fds[1], w->buf, 16, 0);
	EXPECT_EQ(0, aio_run(_metadata, &w->aio, &w->io[0], &res));
	EXPECT_EQ(1, res);
	close(fds[0]);
	close(fds[1]);
	EXPECT_EQ(0, close(w->aio.dev));
	w->aio.dev = -1;
	w->aio.ctx = 0;
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts));
}

/*
 * A read that waits, on a socket whose other end has the device in its queue:
 * nobody can end it, for nobody else has them.
 */
TEST_F(device_fd, blocked_on_a_socket)
{
	struct work *w = &self->w;
	struct io_event ev;
	long long begin;
	int status;
	pid_t pid;

	FORK_CHILD(pid);
	if (!pid) {
		int fds[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) || own_context(w) ||
		    send_fds(fds[0], &w->aio.dev, 1))
			_exit(1);
		iocb_prep(&w->io[0], IOCB_CMD_PREAD, fds[0], w->buf, 16, 0);
		if (aio_submit_one(&w->aio, &w->io[0]) != 1)
			_exit(2);
		aio_getevents(&w->aio, 1, 1, &ev, NULL);
		_exit(3);
	}
	ASSERT_TRUE(wait_for(task_in_call(pid, GETEVENTS, &w->aio)));
	EXPECT_EQ(w->contexts + 1, raio_nr("nr_contexts"));
	begin = now_ns();
	EXPECT_EQ(0, kill(pid, SIGKILL));
	status = wait_child(pid);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	EXPECT_GT(PROMPT_NS, now_ns() - begin);
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts));
}

/* The file that a request is for is closed meanwhile. */

FIXTURE(file)
{
	struct work w;
	int uffd;
	long users;
};

FIXTURE_VARIANT(file)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(file, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(file, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(file)
{
	work_begin(_metadata, &self->w, variant->ops);
	ASSERT_EQ(0, own_context(&self->w));
	self->uffd = uffd_open();
	ASSERT_LE(0, self->uffd);
	close(self->w.fd);
	self->w.fd = -1;
	self->users = test_users();
}

FIXTURE_TEARDOWN(file)
{
	close(self->uffd);
	EXPECT_TRUE(wait_for(test_users() == self->users)) {
		TH_LOG("%ld users of the device, %ld before", test_users(), self->users);
	}
	work_end(_metadata, &self->w);
}

static void closed_while_held(struct __test_metadata *_metadata, struct work *w, long users)
{
	struct io_event ev[EVENTS];
	int i;

	w->fd = testdev_open("c0", 0);
	ASSERT_EQ(EVENTS, start(w, EVENTS));
	EXPECT_EQ(0, close(w->fd));
	w->fd = -1;
	if (testdev_stat("c0", "held")) {
		EXPECT_EQ(users + 1, test_users());
		testdev_cmd("c0 complete all");
	}
	ASSERT_EQ(EVENTS, aio_wait(&w->aio, EVENTS, ev));
	for (i = 0; i < EVENTS; i++)
		EXPECT_EQ(LEN, ev[i].res);
	EXPECT_EQ(-1, pattern_check(w->buf, EVENTS * LEN, 0, SEED));
	EXPECT_TRUE(wait_for(test_users() == users));
}

TEST_F(file, closed_while_held)
{
	closed_while_held(_metadata, &self->w, self->users);
}

TEST_F(file, closed_before_a_softirq)
{
	testdev_cmd("c0 mode softirq");
	closed_while_held(_metadata, &self->w, self->users);
}

TEST_F(file, closed_before_an_interrupt)
{
	testdev_cmd("c0 mode timer 20000000");
	closed_while_held(_metadata, &self->w, self->users);
}

/* Between the look at the descriptor and the method's return. */
TEST_F(file, closed_in_its_method)
{
	struct work *w = &self->w;
	struct call submit = { .kind = SUBMIT, .aio = w->aio, .nr = 1, .iocbs = w->iop };
	char *missing = map_pages(PAGE);
	struct io_event ev;

	testdev_cmd("c0 mode softirq");
	ASSERT_EQ(0, uffd_missing(self->uffd, missing, PAGE));
	w->fd = testdev_open("c0", 0);
	prepare(w, 1);
	w->io[0].aio_buf = (uintptr_t)missing;
	call_start(_metadata, &submit);
	ASSERT_TRUE(uffd_wait(self->uffd));
	EXPECT_EQ(0, close(w->fd));
	w->fd = -1;
	EXPECT_EQ(self->users + 1, test_users());
	ASSERT_EQ(0, uffd_fill(self->uffd, missing, w->buf));
	EXPECT_RETURNS(1, &submit);
	ASSERT_EQ(1, aio_wait(&w->aio, 1, &ev));
	EXPECT_EVENT(&ev, &w->io[0], LEN);
	EXPECT_EQ(-1, pattern_check(missing, LEN, 0, SEED));
}

/* Before the look at it. */
TEST_F(file, closed_before_its_iocb_is_read)
{
	struct work *w = &self->w;
	struct iocb *missing = map_pages(PAGE), *page = map_pages(PAGE);
	struct call submit = { .kind = SUBMIT, .aio = w->aio, .nr = 1, .iocbs = &missing };
	struct io_event ev;

	ASSERT_EQ(0, uffd_missing(self->uffd, missing, PAGE));
	w->fd = testdev_open("c0", 0);
	prepare(w, 1);
	*page = w->io[0];
	call_start(_metadata, &submit);
	ASSERT_TRUE(uffd_wait(self->uffd));
	EXPECT_EQ(0, close(w->fd));
	w->fd = -1;
	ASSERT_EQ(0, uffd_fill(self->uffd, missing, page));
	EXPECT_RETURNS(-EBADF, &submit);
	EXPECT_EQ(0, aio_poll(&w->aio, 1, &ev));
	EXPECT_EQ(0, testdev_stat("c0", "started"));
}

/* At any time: either there is an event with the data, or EBADF. */
struct closer {
	int fd;
	pthread_barrier_t barrier;
	bool over;
};

static void *closer_thread(void *data)
{
	struct closer *c = data;
	uint64_t state = 1;

	pin_to_cpu(1);
	for (;;) {
		unsigned int delay;

		pthread_barrier_wait(&c->barrier);
		if (c->over)
			return NULL;
		delay = next_random(&state) % 2000;
		while (delay--)
			__atomic_signal_fence(__ATOMIC_SEQ_CST);
		close(c->fd);
		pthread_barrier_wait(&c->barrier);
	}
}

static void race_with_close(struct __test_metadata *_metadata, struct work *w, unsigned int rounds)
{
	struct closer c = { };
	pthread_t thread;
	unsigned int taken = 0, i;

	pthread_barrier_init(&c.barrier, NULL, 2);
	ASSERT_EQ(0, pthread_create(&thread, NULL, closer_thread, &c));
	pin_to_cpu(0);
	for (i = 0; i < rounds; i++) {
		struct io_event ev;
		long ret;

		c.fd = testdev_open("c0", 0);
		w->fd = c.fd;
		prepare(w, 1);
		memset(w->buf, CANARY, LEN);
		pthread_barrier_wait(&c.barrier);
		ret = aio_submit_one(&w->aio, &w->io[0]);
		pthread_barrier_wait(&c.barrier);
		w->fd = -1;
		if (ret == -EBADF)
			continue;
		ASSERT_EQ(1, ret);
		taken++;
		ASSERT_EQ(1, aio_wait(&w->aio, 1, &ev));
		EXPECT_EVENT(&ev, &w->io[0], LEN);
		ASSERT_EQ(-1, pattern_check(w->buf, LEN, 0, SEED));
	}
	c.over = true;
	pthread_barrier_wait(&c.barrier);
	pthread_join(thread, NULL);
	TH_LOG("%u of %u were taken", taken, rounds);
	EXPECT_EQ(taken, testdev_stat("c0", "started"));
}

TEST_F(file, race_of_close_and_submit_softirq)
{
	testdev_cmd("c0 mode softirq");
	race_with_close(_metadata, &self->w, 200);
}

TEST_F(file, race_of_close_and_submit_timer)
{
	testdev_cmd("c0 mode timer 50000");
	race_with_close(_metadata, &self->w, 200);
}

TEST_F(file, race_of_close_and_submit_now)
{
	testdev_cmd("c0 mode now");
	race_with_close(_metadata, &self->w, 200);
}

/* A file on ext4 on a loop device over a disk that does not answer. */

FIXTURE(loop)
{
	struct work w;
	struct line line;
	struct loopfs fs;
};

FIXTURE_VARIANT(loop)
{
	int opcode;
};

FIXTURE_VARIANT_ADD(loop, reads)
{
	.opcode = IOCB_CMD_PREAD,
};

FIXTURE_VARIANT_ADD(loop, writes)
{
	.opcode = IOCB_CMD_PWRITE,
};

#define LOOP_REQUESTS	4
#define LOOP_STRIDE	(16 * LEN)

FIXTURE_SETUP(loop)
{
	int i;

	work_begin(_metadata, &self->w, &raio);
	line_open(_metadata, &self->line);
	close(self->w.fd);
	self->w.fd = -1;
	loopfs_begin(_metadata, &self->fs);
	self->w.fd = temp_file(self->fs.dir, O_RDWR | O_DIRECT);
	ASSERT_LE(0, self->w.fd);
	for (i = 0; i < LOOP_REQUESTS; i++) {
		pattern_fill(self->w.buf, LEN, i * LOOP_STRIDE, SEED);
		ASSERT_EQ(LEN, pwrite(self->w.fd, self->w.buf, LEN, i * LOOP_STRIDE));
	}
	ASSERT_EQ(0, fsync(self->w.fd));
	memset(self->w.buf, CANARY, EVENTS * LEN);
	testdev_cmd("b0 reset");
}

FIXTURE_TEARDOWN(loop)
{
	testdev_reset();
	if (self->w.fd >= 0)
		close(self->w.fd);
	self->w.fd = -1;
	loopfs_end(_metadata, &self->fs);
	work_end(_metadata, &self->w);
}

static int loop_start(struct work *w, int opcode)
{
	int i;

	for (i = 0; i < LOOP_REQUESTS; i++) {
		if (opcode == IOCB_CMD_PWRITE)
			pattern_fill(w->buf + i * LEN, LEN, i * LOOP_STRIDE, SEED + 1);
		iocb_prep(&w->io[i], opcode, w->fd, w->buf + i * LEN, LEN, i * LOOP_STRIDE);
		w->iop[i] = &w->io[i];
	}
	return aio_submit(&w->aio, LOOP_REQUESTS, w->iop) != LOOP_REQUESTS;
}

static void loop_check(struct __test_metadata *_metadata, struct work *w, int opcode)
{
	int i;

	for (i = 0; i < LOOP_REQUESTS; i++) {
		ASSERT_EQ(LEN, pread(w->fd, w->buf, LEN, i * LOOP_STRIDE));
		EXPECT_EQ(-1, pattern_check(w->buf, LEN, i * LOOP_STRIDE,
					    opcode == IOCB_CMD_PWRITE ? SEED + 1 : SEED));
	}
}

/* Nobody is left of who made the requests, not even an open file, when they end. */
TEST_F(loop, owner_is_killed)
{
	struct work *w = &self->w;
	pid_t pid;

	testdev_cmd("b0 mode hang");
	FORK_CHILD(pid);
	if (!pid) {
		/* Not before the disk has them, or they may not begin. */
		if (own_context(w) || loop_start(w, variant->opcode) ||
		    testdev_try("b0 wait held %d", LOOP_REQUESTS))
			_exit(1);
		close(w->fd);
		close(w->aio.dev);
		_exit(2);
	}
	ASSERT_TRUE(wait_for(task_in_call(pid, CLOSE, &w->aio)));
	kill(pid, SIGKILL);
	wait_child(pid);
	EXPECT_EQ(w->contexts + 1, raio_nr("nr_contexts"));
	EXPECT_MOVED(0, &w->before, completed);
	testdev_cmd("b0 mode now");
	testdev_cmd("b0 complete all");
	EXPECT_TRUE(wait_for(raio_nr("nr_contexts") == w->contexts));
	EXPECT_MOVED(LOOP_REQUESTS, &w->before, completed);
	loop_check(_metadata, w, variant->opcode);
}

TEST_F(loop, destroy_waits)
{
	struct work *w = &self->w;
	struct call destroy = { .kind = DESTROY };

	ASSERT_EQ(0, own_context(w));
	testdev_cmd("b0 mode hang");
	ASSERT_EQ(0, loop_start(w, variant->opcode));
	testdev_cmd("b0 wait held %d", LOOP_REQUESTS);
	destroy.aio = w->aio;
	call_start(_metadata, &destroy);
	EXPECT_SLEEPS(&destroy);
	testdev_cmd("b0 mode softirq");
	testdev_cmd("b0 complete all");
	EXPECT_RETURNS(0, &destroy);
	w->aio.ctx = 0;
	loop_check(_metadata, w, variant->opcode);
}

/* The disk fails them instead: as good an end as any. */
TEST_F(loop, destroy_waits_for_errors)
{
	struct work *w = &self->w;
	struct call destroy = { .kind = DESTROY };

	if (variant->opcode == IOCB_CMD_PWRITE)
		return;
	ASSERT_EQ(0, own_context(w));
	testdev_cmd("b0 mode hang");
	ASSERT_EQ(0, loop_start(w, variant->opcode));
	testdev_cmd("b0 wait held %d", LOOP_REQUESTS);
	destroy.aio = w->aio;
	call_start(_metadata, &destroy);
	EXPECT_SLEEPS(&destroy);
	testdev_cmd("b0 mode now");
	testdev_cmd("b0 fail all %d", EIO);
	EXPECT_RETURNS(0, &destroy);
	w->aio.ctx = 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--hold"))
		return hold(atoi(argv[2]));
	return test_harness_run(argc, argv);
}
