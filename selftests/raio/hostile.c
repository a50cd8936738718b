// SPDX-License-Identifier: GPL-2.0
/*
 * A program that writes anything into its ring at any time, from other threads,
 * while events are posted, read and waited for: nothing but its own events
 * suffers. What comes out is what went in, waits end with a signal, another
 * context isn't affected, and the ring works again when the program leaves it
 * alone. And handles that are none.
 *
 * What is written follows from a seed that each test prints; RAIO_SEED sets
 * it. How threads interleave doesn't. RAIO_LONG=1 takes five times as long.
 */
#include <sys/mman.h>
#include <sys/wait.h>

#include "raio_maps.h"
#include "raio_post.h"
#include "raio_task.h"
#include "raio_testdev.h"

#define EVENTS		200
#define ROUNDS		40
#define REQUESTS	512
#define BATCH		8
#define SCRIBBLERS	2
#define LATE_NS		200000
#define PAGES		16
#define SEED		43

/* All that our threads write where events are, and what ours have in their data. */
#define MARK		0x5c5c5c5c5c5c5c5cULL
#define DATA		0x7e57000000000000ULL

/* What is written to. */
#define F_ID		(1U << 0)
#define F_NR		(1U << 1)
#define F_HEAD		(1U << 2)
#define F_TAIL		(1U << 3)
#define F_MAGIC		(1U << 4)
#define F_HEADER	0xffU
#define F_EVENTS	(1U << 8)

/**
 * struct scene - what each test has
 * @aio:	the context whose ring is written to
 * @other:	the one that must not notice
 * @seed:	of all that is random
 * @rounds:	how long it takes
 * @zero:	/dev/zero
 * @c0:		a device that ends requests of @aio late
 * @c1:		one with data for @other
 * @buf:	for that
 */
struct scene {
	struct aio aio;
	struct aio other;
	uint64_t seed;
	unsigned int rounds;
	int zero, c0, c1;
	char *buf;
};

FIXTURE(hostile)
{
	struct scene scene;
};

FIXTURE_VARIANT(hostile)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(hostile, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(hostile, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(hostile)
{
	testdev_begin();
	self->scene.seed = strtoull(env_or("RAIO_SEED", "0"), NULL, 0) ?: (uint64_t)now_ns();
	TH_LOG("RAIO_SEED=%#llx", (unsigned long long)self->scene.seed);
	self->scene.rounds = ROUNDS * long_run(5);
	self->scene.zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->scene.zero);
	self->scene.c0 = testdev_open("c0", 0);
	self->scene.c1 = testdev_open("c1", 0);
	self->scene.buf = map_pages(PAGES * PAGE);
	pattern_fill(self->scene.buf, PAGES * PAGE, 0, SEED);
	ASSERT_EQ(PAGES * PAGE, pwrite(self->scene.c1, self->scene.buf, PAGES * PAGE, 0));
	testdev_cmd("c0 mode timer %d", LATE_NS);
	testdev_cmd("c0 cancel no");
	testdev_cmd("c1 mode softirq");
	aio_begin(_metadata, &self->scene.aio, variant->ops, EVENTS);
	self->scene.other = self->scene.aio;
	self->scene.other.ctx = 0;
	ASSERT_EQ(0, aio_setup(&self->scene.other, BATCH, &self->scene.other.ctx));
}

FIXTURE_TEARDOWN(hostile)
{
	if (self->scene.other.ctx)
		EXPECT_EQ(0, aio_destroy(&self->scene.other, self->scene.other.ctx));
	testdev_reset();
	close(self->scene.c0);
	close(self->scene.c1);
	aio_end(_metadata, &self->scene.aio);
	EXPECT_EQ(0, vm_count(ring_name(variant->ops)));
}

/* The threads. */

/**
 * struct attack - what they share
 * @aio:	the context whose ring is written to
 * @nr:		the true number of its slots
 * @id:		its true id
 * @fields:	what is written to
 * @mem:	/proc/self/mem, for a ring that may go, or -1
 * @seed:	of all that is random
 * @io:		the requests, on 64 KiB of their own
 * @ev:		for those who read events; mapped while the ring is, so not in its place
 * @buf:	where the requests read to
 * @stop:	for those that submit and read
 * @leave:	for those that write
 * @submitted:	requests
 * @reaped:	events that getevents gave
 * @scribbles:	how often something was written
 * @wrong:	calls that returned what they may not
 * @leaked:	words of events that nobody wrote
 * @example:	one of them
 */
struct attack {
	struct aio aio;
	unsigned int nr, id, fields;
	int mem, zero, c0;
	uint64_t seed;
	struct iocb *io;
	struct io_event *ev;
	char *buf;
	bool stop, leave;
	unsigned int submitted, reaped, scribbles, wrong, leaked;
	uint64_t example;
	long ret;
};

static bool told(bool *flag)
{
	return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static void tell(bool *flag)
{
	__atomic_store_n(flag, true, __ATOMIC_RELEASE);
}

static void count(unsigned int *n, unsigned int by)
{
	__atomic_fetch_add(n, by, __ATOMIC_RELAXED);
}

static __u32 odd_value(unsigned int nr, uint64_t *state)
{
	const __u32 values[] = {
		0, 1, 2, nr - 2, nr - 1, nr, nr + 1, 2 * nr, 127, 128, INT_MAX - 1, INT_MAX,
		1U << 31, UINT_MAX / 32, UINT_MAX - 1, UINT_MAX,
	};
	uint64_t r = next_random(state);

	return r & 3 ? values[(r >> 2) % ARRAY_SIZE(values)] : r >> 32;
}

static void scribble(struct attack *a, size_t offset, const void *from, size_t len)
{
	char *to = (char *)a->aio.ctx + offset;

	if (a->mem >= 0) {
		/* It fails when there is no ring any more. */
		if (pwrite(a->mem, from, len, (uintptr_t)to) < 0 && errno != EIO)
			count(&a->wrong, 1);
	} else if (len == sizeof(__u64)) {
		__atomic_store_n((__u64 *)to, *(__u64 *)from, __ATOMIC_RELAXED);
	} else {
		__atomic_store_n((__u32 *)to, *(__u32 *)from, __ATOMIC_RELAXED);
	}
}

static void *scribbler(void *data)
{
	struct attack *a = data;
	uint64_t state = a->seed + 0x1000 * (gettid() % SCRIBBLERS);
	const __u64 mark = MARK;
	unsigned int i;

	while (!told(&a->leave)) {
		for (i = 0; i < 8; i++) {
			__u32 val = odd_value(a->nr, &state);

			if (a->fields & (1U << i))
				scribble(a, i * sizeof(val), &val, sizeof(val));
		}
		for (i = 0; i < 64 && a->fields & F_EVENTS; i++) {
			size_t word = next_random(&state) % (a->nr * 4);

			scribble(a, offsetof(struct raio_ring, events) + word * sizeof(mark), &mark,
				 sizeof(mark));
		}
		count(&a->scribbles, 1);
		/* For a moment the id is right, or no call would find the context. */
		if (a->fields & F_ID && next_random(&state) & 1)
			scribble(a, 0, &a->id, sizeof(a->id));
		if (!(next_random(&state) % 8))
			sched_yield();
	}
	return NULL;
}

/*
 * A word that may come out of the ring: made of bytes of MARK and of what it
 * can be in an event of ours, @val but for the bits in @any. (Bytes, for a word
 * is copied while it is written.)
 */
static void check_word(struct attack *a, __u64 word, __u64 val, __u64 any)
{
	unsigned int i;

	for (i = 0; i < 64; i += 8) {
		unsigned char byte = word >> i;

		if (byte && byte != (unsigned char)MARK &&
		    (byte ^ (unsigned char)(val >> i)) & ~(any >> i) & 0xff) {
			count(&a->leaked, 1);
			a->example = word;
			return;
		}
	}
}

static void check_events(struct attack *a, const struct io_event *ev, long nr)
{
	long i;

	for (i = 0; i < nr; i++) {
		check_word(a, ev[i].data, DATA, 0xffff);
		check_word(a, ev[i].obj, (uintptr_t)a->io, 0xffff);
		check_word(a, ev[i].res, 0, 0xffff);
		check_word(a, ev[i].res2, 0, 0);
	}
}

/* What calls on such a context may return besides a number. */
static bool may_be(struct attack *a, long ret)
{
	return ret >= 0 || ret == -EAGAIN ||
	       (ret == -EINVAL && (a->fields & F_ID || a->mem >= 0));
}

static void *submitter(void *data)
{
	struct attack *a = data;
	uint64_t state = a->seed + 1;
	unsigned int i, n = 0;

	while (!told(&a->stop)) {
		unsigned int nr = 1 + next_random(&state) % BATCH;
		struct iocb *iop[BATCH];
		long ret;

		for (i = 0; i < nr; i++) {
			bool late = next_random(&state) & 1;
			unsigned int len = 1 + next_random(&state) % PAGE;

			iop[i] = &a->io[n++ % REQUESTS];
			iocb_prep(iop[i], IOCB_CMD_PREAD, late ? a->c0 : a->zero, a->buf, len, 0);
			iop[i]->aio_data = DATA | len;
		}
		ret = aio_submit(&a->aio, nr, iop);
		if (ret > 0)
			count(&a->submitted, ret);
		else if (!may_be(a, ret))
			count(&a->wrong, 1);
	}
	return NULL;
}

static void *reaper(void *data)
{
	struct attack *a = data;
	uint64_t state = a->seed + 2;
	struct io_event *ev = a->ev;

	while (!told(&a->stop)) {
		struct __kernel_timespec timeout = { .tv_nsec = next_random(&state) % 1000000 };
		unsigned int nr = 1 + next_random(&state) % (2 * PAGE / sizeof(*ev));
		unsigned int min = next_random(&state) % (nr + 1);
		long ret;

		if (!(next_random(&state) % 4)) {
			/* As a program does that reads the ring itself, with the number it knows. */
			struct raio_ring *ring = aio_ring(a->aio.ctx);

			if (a->mem < 0) {
				ring->head = (ring->head + 1) % a->nr;
				check_events(a, &ring->events[ring->head % a->nr], 1);
			}
			continue;
		}
		if (next_random(&state) & 1)
			min = timeout.tv_nsec = 0;
		memset(ev, MARK & 0xff, nr * sizeof(*ev));
		ret = aio_getevents(&a->aio, min, nr, ev, &timeout);
		if (!may_be(a, ret) || ret > (long)nr)
			count(&a->wrong, 1);
		else if (ret > 0)
			count(&a->reaped, ret);
		/* Behind those that it told of it has written nothing but events either. */
		check_events(a, ev, nr);
	}
	return NULL;
}

static void no_action(int sig)
{
	(void)sig;
}

/* A wait for more than will ever be there, or has just been found there. */
static void *sleeper(void *data)
{
	struct attack *a = data;
	struct io_event *ev = map_pages(16 * PAGE);

	a->ret = aio_getevents(&a->aio, a->nr - 1, 16 * PAGE / sizeof(*ev), ev, NULL);
	check_events(a, ev, a->ret > 0 ? a->ret : 0);
	tell(&a->leave);
	munmap(ev, 16 * PAGE);
	return NULL;
}

/* Reads by the other context: each event once, with the right data. */
static void expect_unaffected(struct __test_metadata *_metadata, struct aio *other, int c1,
			      char *buf, uint64_t *state)
{
	struct io_event ev[BATCH];
	struct iocb io[BATCH], *iop[BATCH];
	unsigned int i, page[BATCH], seen = 0;

	memset(buf, 0, BATCH * PAGE);
	for (i = 0; i < BATCH; i++) {
		page[i] = next_random(state) % PAGES;
		iocb_prep(&io[i], IOCB_CMD_PREAD, c1, buf + i * PAGE, PAGE, page[i] * PAGE);
		iop[i] = &io[i];
	}
	ASSERT_EQ(BATCH, aio_submit(other, BATCH, iop));
	ASSERT_EQ(BATCH, aio_wait(other, BATCH, ev));
	for (i = 0; i < BATCH; i++) {
		unsigned int n = event_iocb(&ev[i]) - io;

		ASSERT_GT(BATCH, n);
		EXPECT_EVENT(&ev[i], &io[n], PAGE);
		EXPECT_EQ(-1, pattern_check(buf + n * PAGE, PAGE, page[n] * PAGE, SEED));
		seen |= 1U << n;
	}
	ASSERT_EQ((1U << BATCH) - 1, seen);
	ASSERT_EQ(0, aio_poll(other, 1, ev));
}

static void attack_begin(struct attack *a, struct scene *scene, unsigned int fields)
{
	char *io = map_pages(2 << 16);
	unsigned int i;

	memset(a, 0, sizeof(*a));
	a->aio = scene->aio;
	a->fields = fields;
	a->mem = -1;
	a->zero = scene->zero;
	a->c0 = scene->c0;
	a->seed = scene->seed;
	a->io = (struct iocb *)(((uintptr_t)io + 0xffff) & ~0xffffUL);
	a->ev = map_pages(2 * PAGE);
	a->buf = map_pages(PAGE);
	a->nr = aio_ring(a->aio.ctx)->nr;
	a->id = aio_ring(a->aio.ctx)->id;
	for (i = 0; i < a->nr * 4; i++)
		((__u64 *)aio_ring(a->aio.ctx)->events)[i] = MARK;
}

static void expect_no_harm(struct __test_metadata *_metadata, struct attack *a)
{
	EXPECT_EQ(0, a->wrong);
	EXPECT_EQ(0, a->leaked) {
		TH_LOG("%#llx came out of the ring", (unsigned long long)a->example);
	}
}

/* The program leaves its ring alone: all of it can be used again. */
static void expect_recovers(struct __test_metadata *_metadata, struct attack *a, int zero,
			    char *buf)
{
	struct raio_ring *ring = aio_ring(a->aio.ctx);
	struct io_event ev[POST_MAX];
	unsigned int n = 0;
	struct iocb io;
	long ret;

	ASSERT_TRUE(wait_for(testdev_stat("c0", "ended") == testdev_stat("c0", "started")));
	ring->id = a->id;
	ring->nr = a->nr;
	/* What seems to be there; no more than once around. */
	while ((ret = aio_poll(&a->aio, POST_MAX, ev)) > 0) {
		check_events(a, ev, ret);
		n += ret;
		ASSERT_GT(2 * a->nr, n);
	}
	ASSERT_EQ(0, ret);
	/* raio differs: it keeps a tail of its own, and kernel AIO reads that of the ring. */
	if (!a->aio.ops->is_raio && a->fields & F_TAIL)
		return;
	expect_works(_metadata, &a->aio, zero, buf);
	for (n = 0; (ret = aio_submit_one(&a->aio, (iocb_prep(&io, IOCB_CMD_PREAD, zero, buf, 1, 0),
						    &io))) == 1; n++)
		ASSERT_GT(a->nr, n);
	EXPECT_EQ(-EAGAIN, ret);
	EXPECT_LE(EVENTS, n);
	while (n && (ret = aio_poll(&a->aio, POST_MAX, ev)) > 0)
		n -= ret;
	EXPECT_EQ(0, n);
}

/* All at once, for some rounds; each of them with a wait that a signal ends. */
static void attack(struct __test_metadata *_metadata, struct scene *scene, unsigned int fields)
{
	static struct attack a, asleep;
	struct sigaction sa = { .sa_handler = no_action };
	pthread_t scribblers[SCRIBBLERS], submits, reaps, sleeps;
	uint64_t state = scene->seed + 3;
	unsigned int i, interrupted = 0;

	ASSERT_EQ(0, sigaction(SIGUSR1, &sa, NULL));
	attack_begin(&a, scene, fields);
	for (i = 0; i < SCRIBBLERS; i++)
		ASSERT_EQ(0, pthread_create(&scribblers[i], NULL, scribbler, &a));
	ASSERT_EQ(0, pthread_create(&submits, NULL, submitter, &a));
	ASSERT_EQ(0, pthread_create(&reaps, NULL, reaper, &a));
	for (i = 0; i < scene->rounds; i++) {
		asleep = a;
		asleep.leave = false;
		asleep.wrong = asleep.leaked = 0;
		ASSERT_EQ(0, pthread_create(&sleeps, NULL, sleeper, &asleep));
		expect_unaffected(_metadata, &scene->other, scene->c1, scene->buf, &state);
		/* It may come before the wait does, so again. */
		ASSERT_TRUE(wait_for(told(&asleep.leave) || (pthread_kill(sleeps, SIGUSR1), false)));
		pthread_join(sleeps, NULL);
		interrupted += asleep.ret == -EINTR;
		EXPECT_TRUE(may_be(&a, asleep.ret) || asleep.ret == -EINTR);
		expect_no_harm(_metadata, &asleep);
	}
	tell(&a.stop);
	pthread_join(submits, NULL);
	pthread_join(reaps, NULL);
	tell(&a.leave);
	for (i = 0; i < SCRIBBLERS; i++)
		pthread_join(scribblers[i], NULL);
	expect_no_harm(_metadata, &a);
	EXPECT_LT(0, a.submitted);
	EXPECT_LT(0, a.reaped);
	EXPECT_LT(scene->rounds, a.scribbles);
	expect_recovers(_metadata, &a, scene->zero, scene->buf);
	TH_LOG("%u requests, %u events, %u times written to, %u waits interrupted", a.submitted,
	       a.reaped, a.scribbles, interrupted);
}

TEST_F_TIMEOUT(hostile, id, 300)
{
	attack(_metadata, &self->scene, F_ID);
}

TEST_F_TIMEOUT(hostile, nr, 300)
{
	attack(_metadata, &self->scene, F_NR);
}

TEST_F_TIMEOUT(hostile, head, 300)
{
	attack(_metadata, &self->scene, F_HEAD);
}

TEST_F_TIMEOUT(hostile, tail, 300)
{
	attack(_metadata, &self->scene, F_TAIL);
}

TEST_F_TIMEOUT(hostile, magic, 300)
{
	attack(_metadata, &self->scene, F_MAGIC);
}

TEST_F_TIMEOUT(hostile, events, 300)
{
	attack(_metadata, &self->scene, F_EVENTS);
}

TEST_F_TIMEOUT(hostile, header, 300)
{
	attack(_metadata, &self->scene, F_HEADER);
}

TEST_F_TIMEOUT(hostile, ring, 300)
{
	attack(_metadata, &self->scene, F_HEADER | F_EVENTS);
}

/* The ring goes under those who write to it. */
TEST_F_TIMEOUT(hostile, destroyed_meanwhile, 300)
{
	const unsigned int rounds = self->scene.rounds / 4;
	uint64_t state = self->scene.seed + 3;
	pthread_t threads[4];
	struct attack a;
	unsigned int i, j;

	EXPECT_EQ(0, aio_destroy(&self->scene.aio, self->scene.aio.ctx));
	for (i = 0; i < rounds; i++) {
		self->scene.aio.ctx = 0;
		ASSERT_EQ(0, aio_setup(&self->scene.aio, EVENTS, &self->scene.aio.ctx));
		attack_begin(&a, &self->scene, F_HEADER | F_EVENTS);
		a.seed += i;
		a.mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, a.mem);
		ASSERT_EQ(0, pthread_create(&threads[0], NULL, scribbler, &a));
		ASSERT_EQ(0, pthread_create(&threads[1], NULL, scribbler, &a));
		ASSERT_EQ(0, pthread_create(&threads[2], NULL, submitter, &a));
		ASSERT_EQ(0, pthread_create(&threads[3], NULL, reaper, &a));
		expect_unaffected(_metadata, &self->scene.other, self->scene.c1, self->scene.buf, &state);
		/* When somebody does write there. */
		ASSERT_TRUE(wait_for(__atomic_load_n(&a.scribbles, __ATOMIC_RELAXED)));
		/* By a handle that they leave alone, when they let us. */
		ASSERT_TRUE(wait_for((scribble(&a, 0, &a.id, sizeof(a.id)),
				      aio_destroy(&self->scene.aio, self->scene.aio.ctx) == 0)));
		tell(&a.stop);
		tell(&a.leave);
		for (j = 0; j < ARRAY_SIZE(threads); j++)
			pthread_join(threads[j], NULL);
		expect_no_harm(_metadata, &a);
		close(a.mem);
	}
	self->scene.aio.ctx = 0;
}

/* Somebody who waits on such a ring is killed, and all goes with him. */
TEST_F(hostile, killed_meanwhile)
{
	unsigned int i;
	struct line line;
	int status;
	pid_t pid;

	line_open(_metadata, &line);
	for (i = 0; i < 3; i++) {
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			static struct attack a;
			pthread_t thread;

			line_child(&line);
			self->scene.aio.dev = variant->ops->open();
			self->scene.aio.ctx = 0;
			if (aio_setup(&self->scene.aio, EVENTS, &self->scene.aio.ctx))
				_exit(1);
			attack_begin(&a, &self->scene, (F_HEADER | F_EVENTS) & ~F_ID);
			pthread_create(&thread, NULL, scribbler, &a);
			pthread_create(&thread, NULL, submitter, &a);
			line_tell(line.fds[1]);
			for (;;)
				sleeper(&a);
		}
		ASSERT_TRUE(line_wait(line.fds[0]));
		kill(pid, SIGKILL);
		ASSERT_TRUE(wait_for(waitpid(pid, &status, WNOHANG) == pid));
		ASSERT_TRUE(WIFSIGNALED(status));
		if (variant->ops->is_raio)
			EXPECT_TRUE(wait_for(raio_live() == self->scene.aio.live + 2));
	}
}

/* One thread, so that it is known what has to come of it. */

static const char * const words[] = {
	"id", "nr", "head", "tail", "magic", "compat_features", "incompat_features", "header_length",
};

/* Of the header only the head and the id are ever read. */
TEST_F(hostile, the_rest_is_written_only)
{
	__u32 *header = (__u32 *)self->scene.aio.ctx;
	const unsigned int nr = header[1];
	uint64_t state = self->scene.seed;
	unsigned int i, round, posted = 0;

	for (i = 1; i < ARRAY_SIZE(words); i++) {
		/* raio differs, see expect_recovers(). */
		if (i == 2 || (i == 3 && !variant->ops->is_raio))
			continue;
		for (round = 0; round < 64; round++) {
			unsigned int n = 1 + round % POST_MAX;
			struct io_event ev[POST_MAX];
			struct iocb io[POST_MAX];

			header[i] = odd_value(nr, &state);
			post_to(_metadata, &self->scene.aio, self->scene.zero, self->scene.buf, io, n,
				posted);
			posted += n;
			/* What was there is overwritten. */
			ASSERT_TRUE(i != 3 || header[3] == posted % nr);
			header[i] = odd_value(nr, &state);
			ASSERT_EQ(n, aio_wait(&self->scene.aio, n, ev)) {
				TH_LOG("%s was %#x", words[i], header[i]);
			}
			expect_posted(_metadata, ev, io, n, posted - n);
			EXPECT_EQ(posted % nr, header[2]);
		}
		header[1] = nr;
		header[3] = posted % nr;
	}
}

/* Handles. */

static void expect_none(struct __test_metadata *_metadata, struct aio *aio, unsigned long handle)
{
	struct iocb *iop[1] = { NULL };
	struct aio by = *aio;
	struct io_event ev;

	by.ctx = handle;
	EXPECT_EQ(-EINVAL, aio_poll(&by, 1, &ev)) {
		TH_LOG("handle %#lx", handle);
	}
	EXPECT_EQ(-EINVAL, aio_submit(&by, 1, iop));
	EXPECT_EQ(-EINVAL, aio_destroy(&by, handle));
}

/* No id but its own, in this ring. */
TEST_F(hostile, ids)
{
	struct raio_ring *ring = aio_ring(self->scene.aio.ctx);
	const __u32 id = ring->id;
	uint64_t state = self->scene.seed;
	unsigned int i;

	ASSERT_NE(id, aio_ring(self->scene.other.ctx)->id);
	ring->id = aio_ring(self->scene.other.ctx)->id;
	expect_none(_metadata, &self->scene.aio, self->scene.aio.ctx);
	for (i = 0; i < 300; i++) {
		/* Each bit; neighbours; what indices are made of; anything. */
		ring->id = i < 32 ? 1U << i : i < 64 ? (1U << (i - 32)) - 1 :
			   odd_value(64, &state);
		if (ring->id != id)
			expect_none(_metadata, &self->scene.aio, self->scene.aio.ctx);
	}
	ring->id = id;
	expect_works(_metadata, &self->scene.aio, self->scene.zero, self->scene.buf);
}

/* No address but its own, whatever is there. */
TEST_F(hostile, addresses)
{
	__u32 *page = map_pages(2 * PAGE);
	unsigned int i;

	for (i = 0; i < 2 * PAGE / sizeof(*page); i++)
		page[i] = aio_ring(i & 1 ? self->scene.aio.ctx : self->scene.other.ctx)->id;
	for (i = 0; i < PAGE; i += 4)
		expect_none(_metadata, &self->scene.aio, (unsigned long)page + i);
	/* Inside of the ring, its other words; not aligned; over the end of what is mapped. */
	for (i = 1; i < 64; i++)
		expect_none(_metadata, &self->scene.aio, self->scene.aio.ctx + i);
	expect_none(_metadata, &self->scene.aio, (unsigned long)map_before_hole(2));
	for (i = 0; i < NR_BAD_PTRS; i++)
		expect_none(_metadata, &self->scene.aio, (unsigned long)bad_ptr(i));
	expect_works(_metadata, &self->scene.aio, self->scene.zero, self->scene.buf);
}

/* Nor one of another file, though it has the same id. What only raio has. */
TEST(contexts_of_another_file)
{
	int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	struct aio one, two;
	char *buf = map_pages(PAGE);

	aio_begin(_metadata, &one, &raio, 1);
	aio_begin(_metadata, &two, &raio, 1);
	EXPECT_EQ(aio_ring(one.ctx)->id, aio_ring(two.ctx)->id);
	expect_none(_metadata, &one, two.ctx);
	expect_none(_metadata, &two, one.ctx);
	expect_works(_metadata, &one, zero, buf);
	expect_works(_metadata, &two, zero, buf);
	aio_end(_metadata, &two);
	aio_end(_metadata, &one);
}

TEST_HARNESS_MAIN
