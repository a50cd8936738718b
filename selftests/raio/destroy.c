// SPDX-License-Identifier: GPL-2.0
/*
 * Destroying contexts: which handles are none, that it happens once, that no
 * I/O goes on after it, and that closing the device does the same.
 */
#include "raio_testdev.h"

#define DELAY_MS	100
#define RACE_ROUNDS	10000
#define RACE_NS		1000000000LL

FIXTURE(destroy)
{
	struct aio aio;
};

FIXTURE_VARIANT(destroy)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(destroy, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(destroy, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(destroy)
{
	aio_begin(_metadata, &self->aio, variant->ops, 64);
}

FIXTURE_TEARDOWN(destroy)
{
	aio_end(_metadata, &self->aio);
}

/* No call takes @ctx. */
static void expect_no_context(struct __test_metadata *_metadata, struct aio *aio,
			      aio_context_t ctx)
{
	struct __kernel_timespec zero = { };
	struct io_event ev;

	EXPECT_EQ(-EINVAL, aio->ops->destroy(aio->dev, ctx)) {
		TH_LOG("handle %#lx", ctx);
	}
	EXPECT_EQ(-EINVAL, aio->ops->submit(aio->dev, ctx, 0, NULL));
	EXPECT_EQ(-EINVAL, aio->ops->getevents(aio->dev, ctx, 0, 1, &ev, &zero));
}

TEST_F(destroy, bad_handles)
{
	const aio_context_t ctx = self->aio.ctx;
	const aio_context_t handles[] = {
		1, 8, PAGE, -1UL, -PAGE, ctx + 1, ctx + 4, ctx + sizeof(struct raio_ring),
		ctx + PAGE, ctx - PAGE, ctx ^ 1UL << (__BITS_PER_LONG - 1),
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(handles); i++)
		expect_no_context(_metadata, &self->aio, handles[i]);
	for (i = 0; i < NR_BAD_PTRS; i++)
		expect_no_context(_metadata, &self->aio, (aio_context_t)bad_ptr(i));
}

/* Memory of the program that looks like the ring of a live context. */
TEST_F(destroy, imitated_ring)
{
	char *p = map_pages(PAGE);

	memcpy(p, (void *)self->aio.ctx, PAGE);
	expect_no_context(_metadata, &self->aio, (aio_context_t)p);
}

/* The id in the ring belongs to the program, too. */
TEST_F(destroy, altered_id)
{
	struct raio_ring *ring = aio_ring(self->aio.ctx);
	const unsigned int id = ring->id;
	const unsigned int ids[] = { id + 1, id + 1000, INT_MAX, 1U << 31, UINT_MAX };
	unsigned int i;

	/* Also if it was looked up just now. */
	EXPECT_EQ(0, self->aio.ops->submit(self->aio.dev, self->aio.ctx, 0, NULL));
	for (i = 0; i < ARRAY_SIZE(ids); i++) {
		ring->id = ids[i];
		expect_no_context(_metadata, &self->aio, self->aio.ctx);
	}
	/* aio_end() destroys it: it is still there. */
	ring->id = id;
}

TEST_F(destroy, id_of_another)
{
	aio_context_t other = 0;
	unsigned int id;

	ASSERT_EQ(0, aio_setup(&self->aio, 1, &other));
	id = aio_ring(self->aio.ctx)->id;
	ASSERT_NE(id, aio_ring(other)->id);
	aio_ring(self->aio.ctx)->id = aio_ring(other)->id;
	expect_no_context(_metadata, &self->aio, self->aio.ctx);
	aio_ring(self->aio.ctx)->id = id;
	EXPECT_EQ(0, aio_destroy(&self->aio, other));
}

TEST_F(destroy, twice)
{
	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	expect_no_context(_metadata, &self->aio, self->aio.ctx);
	self->aio.ctx = 0;
}

/* Nor is it found when its memory is that of something else, though it was looked up last. */
TEST_F(destroy, looked_up_last)
{
	struct raio_ring *ring = (void *)self->aio.ctx;
	const unsigned int id = ring->id;
	unsigned int i;

	EXPECT_EQ(0, self->aio.ops->submit(self->aio.dev, self->aio.ctx, 0, NULL));
	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	/* It is freed a grace period later. Each of these, through files of their own, takes one. */
	for (i = 0; i < 5; i++) {
		struct aio other;

		aio_begin(_metadata, &other, variant->ops, 1);
		aio_end(_metadata, &other);
	}
	ASSERT_EQ(ring, mmap(ring, PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
	ring->id = id;
	expect_no_context(_metadata, &self->aio, self->aio.ctx);
	self->aio.ctx = 0;
}

/* The id can still be read when the ring's pages are copied back to their place. */
TEST_F(destroy, twice_with_the_ring_restored)
{
	void *ring = (void *)self->aio.ctx;
	char copy[PAGE];
	void *p;

	memcpy(copy, ring, PAGE);
	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	p = mmap(ring, PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	ASSERT_EQ(ring, p);
	memcpy(p, copy, PAGE);
	expect_no_context(_metadata, &self->aio, self->aio.ctx);
	self->aio.ctx = 0;
}

static void *destroy_in_thread(void *data)
{
	struct aio *aio = data;

	return (void *)aio_destroy(aio, aio->ctx);
}

TEST_F(destroy, by_another_thread)
{
	pthread_t thread;
	void *ret;

	ASSERT_EQ(0, pthread_create(&thread, NULL, destroy_in_thread, &self->aio));
	pthread_join(thread, &ret);
	EXPECT_EQ(0, (long)ret);
	expect_no_context(_metadata, &self->aio, self->aio.ctx);
	self->aio.ctx = 0;
}

TEST_F(destroy, unmaps_the_ring)
{
	struct raio_ring *ring = aio_ring(self->aio.ctx);
	unsigned long size = (sizeof(*ring) + ring->nr * sizeof(ring->events[0]) + PAGE - 1) &
			     ~(PAGE - 1);
	unsigned long i;

	for (i = 0; i < size; i += PAGE) {
		EXPECT_EQ(0, ret_errno(msync((char *)ring + i, PAGE, MS_ASYNC))) {
			TH_LOG("page %lu", i / PAGE);
		}
	}
	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	self->aio.ctx = 0;
	for (i = 0; i < size; i += PAGE) {
		EXPECT_EQ(-ENOMEM, ret_errno(msync((char *)ring + i, PAGE, MS_ASYNC))) {
			TH_LOG("page %lu", i / PAGE);
		}
	}
}

/* Without its ring a context has no handle; it goes when the process does. */
TEST_F(destroy, ring_unmapped_by_the_program)
{
	ASSERT_EQ(0, munmap((void *)self->aio.ctx, PAGE));
	expect_no_context(_metadata, &self->aio, self->aio.ctx);
	self->aio.ctx = 0;
}

TEST_F(destroy, with_events_unread)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	struct iocb io[8], *iop[8];
	char buf[8][16];
	unsigned int i;

	ASSERT_LE(0, fd);
	for (i = 0; i < ARRAY_SIZE(io); i++) {
		iocb_prep(&io[i], IOCB_CMD_PREAD, fd, buf[i], sizeof(buf[i]), 0);
		iop[i] = &io[i];
	}
	ASSERT_EQ(8, aio_submit(&self->aio, 8, iop));
	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	self->aio.ctx = 0;
}

/* Two threads, one context: one of them has done it. */
struct duel {
	struct aio *aio;
	pthread_barrier_t barrier;
	bool over;
	long ret;
};

static void *duel_thread(void *data)
{
	struct duel *d = data;

	for (;;) {
		pthread_barrier_wait(&d->barrier);
		if (d->over)
			return NULL;
		d->ret = aio_destroy(d->aio, d->aio->ctx);
		pthread_barrier_wait(&d->barrier);
	}
}

TEST_F(destroy, race_has_one_winner)
{
	long long end = now_ns() + RACE_NS;
	struct duel d = { .aio = &self->aio };
	unsigned int rounds;
	pthread_t thread;

	pthread_barrier_init(&d.barrier, NULL, 2);
	ASSERT_EQ(0, pthread_create(&thread, NULL, duel_thread, &d));
	for (rounds = 0; rounds < RACE_ROUNDS && now_ns() < end; rounds++) {
		long ret;

		pthread_barrier_wait(&d.barrier);
		ret = aio_destroy(&self->aio, self->aio.ctx);
		pthread_barrier_wait(&d.barrier);
		ASSERT_TRUE((ret == 0 && d.ret == -EINVAL) || (ret == -EINVAL && d.ret == 0)) {
			TH_LOG("round %u: %ld and %ld", rounds, ret, d.ret);
		}
		self->aio.ctx = 0;
		ASSERT_EQ(0, aio_setup(&self->aio, 4, &self->aio.ctx));
	}
	d.over = true;
	pthread_barrier_wait(&d.barrier);
	pthread_join(thread, NULL);
	TH_LOG("%u rounds", rounds);
}

/* Calls that go on while the context goes. */
static bool more_than(unsigned long *counter, unsigned long than)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED) > than;
}

struct users {
	struct aio *aio;
	int fd;
	bool over;
	unsigned long good;
	unsigned long wrong;
};

static void *submit_until_over(void *data)
{
	struct users *u = data;
	struct iocb io;
	char buf[64];

	while (!__atomic_load_n(&u->over, __ATOMIC_ACQUIRE)) {
		long ret;

		iocb_prep(&io, IOCB_CMD_PREAD, u->fd, buf, sizeof(buf), 0);
		ret = aio_submit_one(u->aio, &io);
		if (ret == 1)
			__atomic_fetch_add(&u->good, 1, __ATOMIC_RELAXED);
		else if (ret != -EINVAL && ret != -EAGAIN)
			u->wrong++;
	}
	return NULL;
}

static void *getevents_until_over(void *data)
{
	struct users *u = data;
	struct io_event ev[4];

	while (!__atomic_load_n(&u->over, __ATOMIC_ACQUIRE)) {
		long ret = aio_poll(u->aio, 4, ev);

		if (ret >= 0)
			__atomic_fetch_add(&u->good, 1, __ATOMIC_RELAXED);
		else if (ret != -EINVAL)
			u->wrong++;
	}
	return NULL;
}

TEST_F(destroy, race_with_users)
{
	struct users u[2] = {
		{ .aio = &self->aio, .fd = open("/dev/zero", O_RDONLY | O_CLOEXEC) },
		{ .aio = &self->aio },
	};
	long long end = now_ns() + RACE_NS / 2;
	pthread_t thread[2];
	unsigned int i;

	ASSERT_LE(0, u[0].fd);
	ASSERT_EQ(0, pthread_create(&thread[0], NULL, submit_until_over, &u[0]));
	ASSERT_EQ(0, pthread_create(&thread[1], NULL, getevents_until_over, &u[1]));
	do {
		aio_context_t ctx = self->aio.ctx;
		unsigned long good[2] = { u[0].good, u[1].good };

		/* Each of them has used this one. */
		ASSERT_TRUE(wait_for(more_than(&u[0].good, good[0]) &&
				     more_than(&u[1].good, good[1])));
		EXPECT_EQ(0, aio_destroy(&self->aio, ctx));
		ctx = 0;
		ASSERT_EQ(0, aio_setup(&self->aio, 64, &ctx));
		__atomic_store_n(&self->aio.ctx, ctx, __ATOMIC_RELEASE);
	} while (now_ns() < end);
	for (i = 0; i < 2; i++) {
		__atomic_store_n(&u[i].over, true, __ATOMIC_RELEASE);
		pthread_join(thread[i], NULL);
		EXPECT_EQ(0, u[i].wrong);
	}
	/* Events of the last round are nobody's. */
	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	self->aio.ctx = 0;
}

/* A child has neither the ring nor the right to it. */
TEST_F(destroy, not_in_a_child)
{
	void *ring = (void *)self->aio.ctx;
	struct io_event ev;
	char copy[PAGE];
	pid_t pid;

	memcpy(copy, ring, PAGE);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		void *p;

		/* The ring is not there; nor is it enough to make it again. */
		EXPECT_EQ(-ENOMEM, ret_errno(msync(ring, PAGE, MS_ASYNC)));
		expect_no_context(_metadata, &self->aio, self->aio.ctx);
		p = mmap(ring, PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		EXPECT_EQ(ring, p);
		memcpy(ring, copy, PAGE);
		expect_no_context(_metadata, &self->aio, self->aio.ctx);
		_exit(_metadata->exit_code);
	}
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_EQ(0, aio_poll(&self->aio, 1, &ev));
}

/* I/O of which it is known how long it takes. */
FIXTURE(in_flight)
{
	struct aio aio;
	int fd;
	char *buf;
};

FIXTURE_VARIANT(in_flight)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(in_flight, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(in_flight, raio)
{
	.ops = &raio,
};

#define IN_FLIGHT	16
#define IO_SIZE		PAGE

FIXTURE_SETUP(in_flight)
{
	testdev_begin();
	testdev_cmd("b0 mode timer %d", DELAY_MS * 1000000);
	self->fd = testdev_open("b0", O_DIRECT);
	self->buf = map_pages(IN_FLIGHT * IO_SIZE);
	aio_begin(_metadata, &self->aio, variant->ops, IN_FLIGHT);
}

FIXTURE_TEARDOWN(in_flight)
{
	aio_end(_metadata, &self->aio);
	close(self->fd);
	testdev_reset();
}

static void start(struct __test_metadata *_metadata, struct aio *aio, int fd, char *buf,
		  int opcode, struct iocb *io)
{
	struct iocb *iop[IN_FLIGHT];
	unsigned int i;

	for (i = 0; i < IN_FLIGHT; i++) {
		iocb_prep(&io[i], opcode, fd, buf + i * IO_SIZE, IO_SIZE, i * IO_SIZE);
		iop[i] = &io[i];
	}
	ASSERT_EQ(IN_FLIGHT, aio_submit(aio, IN_FLIGHT, iop));
}

TEST_F(in_flight, submit_does_not_wait)
{
	struct iocb io[IN_FLIGHT];
	struct io_event ev[IN_FLIGHT];
	long long begin = now_ns(), submitted, ended;

	start(_metadata, &self->aio, self->fd, self->buf, IOCB_CMD_PREAD, io);
	submitted = now_ns();
	EXPECT_EQ(IN_FLIGHT, aio_wait(&self->aio, IN_FLIGHT, ev));
	ended = now_ns();
	/* One after the other they would take this long. */
	EXPECT_GT(IN_FLIGHT * DELAY_MS * 1000000LL, submitted - begin);
	EXPECT_LE(DELAY_MS * 1000000LL, ended - begin);
}

TEST_F(in_flight, destroy_waits)
{
	struct iocb io[IN_FLIGHT];
	long long begin = now_ns();

	start(_metadata, &self->aio, self->fd, self->buf, IOCB_CMD_PREAD, io);
	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	EXPECT_LE(DELAY_MS * 1000000LL, now_ns() - begin);
	self->aio.ctx = 0;
	/* The buffers are the program's own again, and may go. */
	EXPECT_EQ(0, munmap(self->buf, IN_FLIGHT * IO_SIZE));
}

TEST_F(in_flight, destroy_waits_for_writes)
{
	struct iocb io[IN_FLIGHT];
	long long begin = now_ns();

	pattern_fill(self->buf, IN_FLIGHT * IO_SIZE, 0, 42);
	start(_metadata, &self->aio, self->fd, self->buf, IOCB_CMD_PWRITE, io);
	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	EXPECT_LE(DELAY_MS * 1000000LL, now_ns() - begin);
	self->aio.ctx = 0;
	memset(self->buf, 0, IN_FLIGHT * IO_SIZE);
	ASSERT_EQ(IN_FLIGHT * IO_SIZE, pread(self->fd, self->buf, IN_FLIGHT * IO_SIZE, 0));
	EXPECT_EQ(-1, pattern_check(self->buf, IN_FLIGHT * IO_SIZE, 0, 42));
}

/* The file is closed, the requests keep it. */
TEST_F(in_flight, destroy_waits_with_the_file_closed)
{
	struct iocb io[IN_FLIGHT];
	long long begin = now_ns();

	start(_metadata, &self->aio, self->fd, self->buf, IOCB_CMD_PREAD, io);
	EXPECT_EQ(0, close(self->fd));
	self->fd = -1;
	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	EXPECT_LE(DELAY_MS * 1000000LL, now_ns() - begin);
	self->aio.ctx = 0;
}

TEST_F(in_flight, two_threads_destroy)
{
	struct iocb io[IN_FLIGHT];
	long long begin = now_ns();
	pthread_t thread;
	void *other;
	long ret;

	start(_metadata, &self->aio, self->fd, self->buf, IOCB_CMD_PREAD, io);
	ASSERT_EQ(0, pthread_create(&thread, NULL, destroy_in_thread, &self->aio));
	ret = aio_destroy(&self->aio, self->aio.ctx);
	pthread_join(thread, &other);
	EXPECT_LE(DELAY_MS * 1000000LL, now_ns() - begin);
	EXPECT_EQ(-EINVAL, ret + (long)other);
	self->aio.ctx = 0;
}

/* I/O on a disk, of which it is not known how long it takes. */
FIXTURE(on_disk)
{
	struct aio aio;
	int fd;
};

FIXTURE_VARIANT(on_disk)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(on_disk, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(on_disk, raio)
{
	.ops = &raio,
};

#define DISK_IOS	32
#define DISK_IO_SIZE	65536UL
#define DISK_ROUNDS	10

FIXTURE_SETUP(on_disk)
{
	ASSERT_TRUE(fs_is(ext4_dir(), EXT4_SUPER_MAGIC)) {
		TH_LOG("no ext4 at %s", ext4_dir());
	}
	/* Reads are with the disk: none has a time to note, which a worker would do. */
	self->fd = temp_file(ext4_dir(), O_RDWR | O_DIRECT | O_NOATIME);
	ASSERT_LE(0, self->fd);
	aio_open(_metadata, &self->aio, variant->ops);
}

FIXTURE_TEARDOWN(on_disk)
{
	aio_end(_metadata, &self->aio);
	close(self->fd);
}

/*
 * What destroy has returned for is not touched any more. To see what a late
 * read would do, the same blocks are read another way, behind it in the queue.
 */
TEST_F(on_disk, no_data_after_destroy)
{
	char *buf = map_pages(DISK_IOS * DISK_IO_SIZE);
	char *check = map_pages(DISK_IOS * DISK_IO_SIZE);
	struct iocb io[DISK_IOS], *iop[DISK_IOS];
	unsigned int i, round;

	pattern_fill(check, DISK_IOS * DISK_IO_SIZE, 0, 7);
	ASSERT_EQ(DISK_IOS * DISK_IO_SIZE, pwrite(self->fd, check, DISK_IOS * DISK_IO_SIZE, 0));

	for (round = 0; round < DISK_ROUNDS; round++) {
		ASSERT_EQ(0, aio_setup(&self->aio, DISK_IOS, &self->aio.ctx));
		for (i = 0; i < DISK_IOS; i++) {
			iocb_prep(&io[i], IOCB_CMD_PREAD, self->fd, buf + i * DISK_IO_SIZE,
				  DISK_IO_SIZE, i * DISK_IO_SIZE);
			iop[i] = &io[i];
		}
		ASSERT_EQ(DISK_IOS, aio_submit(&self->aio, DISK_IOS, iop));
		ASSERT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
		self->aio.ctx = 0;
		/* All of it has been read, and */
		EXPECT_EQ(-1, pattern_check(buf, DISK_IOS * DISK_IO_SIZE, 0, 7));
		/* none of it is read from now on. */
		memset(buf, 0xa5, DISK_IOS * DISK_IO_SIZE);
		memset(check, 0, DISK_IOS * DISK_IO_SIZE);
		ASSERT_EQ(DISK_IOS * DISK_IO_SIZE,
			  pread(self->fd, check, DISK_IOS * DISK_IO_SIZE, 0));
		EXPECT_EQ(-1, pattern_check(check, DISK_IOS * DISK_IO_SIZE, 0, 7));
		EXPECT_EQ(-1, filled_check(buf, DISK_IOS * DISK_IO_SIZE, 0xa5));
	}
}

/* What has to do with the open file, which only raio has. */
FIXTURE(device)
{
	struct aio aio;
};

FIXTURE_SETUP(device)
{
	aio_begin(_metadata, &self->aio, &raio, 64);
}

FIXTURE_TEARDOWN(device)
{
	aio_end(_metadata, &self->aio);
}

TEST_F(device, close_destroys)
{
	unsigned int i;

	for (i = 0; i < 5; i++) {
		aio_context_t ctx = 0;

		ASSERT_EQ(0, raio_setup(self->aio.dev, 16, &ctx));
	}
	EXPECT_EQ(self->aio.live + 6, raio_live());
	EXPECT_EQ(0, close(self->aio.dev));
	self->aio.dev = -1;
	self->aio.ctx = 0;
	EXPECT_TRUE(wait_for(raio_live() == self->aio.live));
}

/* Either it is unmapped or there is nothing behind it; it never is memory of others. */
TEST_F(device, ring_is_gone_after_close)
{
	aio_context_t ctx = self->aio.ctx;
	pid_t pid;
	int status;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct raio_ring *ring;

		/* Of its own, as a ring is not inherited. */
		close(self->aio.dev);
		self->aio.dev = raio_open();
		ctx = 0;
		if (raio_setup(self->aio.dev, 1, &ctx))
			_exit(1);
		ring = aio_ring(ctx);
		close(self->aio.dev);
		/* The pages go when RCU lets the context go. */
		wait_for(__atomic_load_n(&ring->magic, __ATOMIC_RELAXED) != RAIO_RING_MAGIC);
		_exit(2);
	}
	status = wait_child(pid);
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_TRUE(WTERMSIG(status) == SIGBUS || WTERMSIG(status) == SIGSEGV) {
		TH_LOG("status %#x", status);
	}
}

TEST_F(device, close_of_a_duplicate_does_not)
{
	int dup_fd = dup(self->aio.dev);
	struct io_event ev;

	ASSERT_LE(0, dup_fd);
	EXPECT_EQ(0, close(dup_fd));
	EXPECT_EQ(0, aio_poll(&self->aio, 1, &ev));

	dup_fd = dup(self->aio.dev);
	ASSERT_LE(0, dup_fd);
	EXPECT_EQ(0, close(self->aio.dev));
	self->aio.dev = dup_fd;
	EXPECT_EQ(0, aio_poll(&self->aio, 1, &ev));
}

/* A handle goes with the file that made it. */
TEST_F(device, not_by_another_open_file)
{
	struct aio other = self->aio;
	aio_context_t ctx = 0;
	struct io_event ev;

	other.dev = raio_open();
	ASSERT_LE(0, other.dev);
	expect_no_context(_metadata, &other, self->aio.ctx);
	/* Nor if it has one with the same id. */
	ASSERT_EQ(0, raio_setup(other.dev, 64, &ctx));
	EXPECT_EQ(aio_ring(self->aio.ctx)->id, aio_ring(ctx)->id);
	expect_no_context(_metadata, &other, self->aio.ctx);
	expect_no_context(_metadata, &self->aio, ctx);
	EXPECT_EQ(0, close(other.dev));
	EXPECT_EQ(0, aio_poll(&self->aio, 1, &ev));
}

/* The child closes its copy, makes contexts of its own, and ends. */
TEST_F(device, child_leaves_the_parents_alone)
{
	struct io_event ev;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		aio_context_t ctx[4] = { };
		unsigned int i;

		for (i = 0; i < ARRAY_SIZE(ctx); i++) {
			EXPECT_EQ(0, raio_setup(self->aio.dev, 4, &ctx[i])) {
				TH_LOG("context %u", i);
			}
		}
		EXPECT_EQ(0, raio_destroy(self->aio.dev, ctx[0]));
		close(self->aio.dev);
		_exit(_metadata->exit_code);
	}
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_EQ(0, aio_poll(&self->aio, 1, &ev));
	EXPECT_TRUE(wait_for(raio_live() == self->aio.live + 1)) {
		TH_LOG("%ld contexts are left", raio_live() - self->aio.live);
	}
}

TEST_HARNESS_MAIN
