// SPDX-License-Identifier: GPL-2.0
/*
 * Polled completion: a context whose devices are asked for what has ended. The
 * device is a null_blk, which tells nobody of what it was given to be polled for: what
 * isn't asked for doesn't end, and an event is there only because somebody has
 * asked.
 */
#include <linux/blkpg.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

#include "raio_native.h"
#include "raio_task.h"

#define NR_EVENTS	512
#define NR		64
#define SIZE		(NR * PAGE)
/* What a file system takes. */
#define DISK_MB		320
#define MKFS_EXT4	"mkfs.ext4 -q -F -b 4096 -E lazy_itable_init=0"

/**
 * struct polled - a context, and a file on a device, which may have a file system
 * @native:	the context
 * @nb:		the device
 * @depth:	tags of each of its queues, or 0 for more than are needed
 * @type:	of the file system, or NULL
 * @dir:	where that is mounted
 * @flags:	aio_flags of requests: what is registered
 * @buf:	memory
 * @fd:		the file
 * @before:	counters at the beginning
 */
struct polled {
	struct native native;
	struct nullb nb;
	unsigned int depth;
	const char *type;
	char dir[64];
	unsigned int flags;
	char *buf;
	int fd;
	struct raio_stats before;
};

static const struct raio_setup setup = {
	.nr_events = NR_EVENTS,
	.sq_nr = NR,
	.nr_buffers = 1,
	.nr_files = 1,
	.flags = RAIO_SETUP_IOPOLL,
};

/* A context with the file and the buffer. */
static void begin(struct __test_metadata *_metadata, struct native *native, int fd, char *buf)
{
	const struct raio_buffer buffer = { .addr = (uintptr_t)buf, .len = SIZE };

	native_begin_as(_metadata, native, setup);
	ASSERT_EQ(1, native_buffers(native, 0, 1, &buffer));
	ASSERT_EQ(1, native_files(native, 0, 1, &fd));
}

/* The disk, with so many tags in each of its queues. */
static void make_anew(struct __test_metadata *_metadata, struct nullb *nb, unsigned int depth)
{
	char path[160];

	ASSERT_EQ(0, nullb_set(nb, "power", 0));
	ASSERT_EQ(0, nullb_set(nb, "hw_queue_depth", depth));
	ASSERT_EQ(0, nullb_set(nb, "power", 1));
	/* What nobody asks for isn't to end by itself, which it would after 5 s. */
	snprintf(path, sizeof(path), "/sys/block/%s/queue/io_timeout", strrchr(nb->dir, '/') + 1);
	ASSERT_EQ(0, write_str(path, "20000"));
}

static void polled_begin_slow(struct __test_metadata *_metadata, struct polled *p,
			      const char *type, const char *mkfs, unsigned int flags,
			      unsigned int ns)
{
	char path[160];

	p->type = type;
	p->flags = flags;
	ASSERT_EQ(0, nullb_create_as(&p->nb, DISK_MB, ns));
	/* More than needed: who looks for those that take too long keeps some a little longer. */
	make_anew(_metadata, &p->nb, p->depth ?: 2 * NR);
	snprintf(path, sizeof(path), "%s", p->nb.node);
	if (type) {
		snprintf(p->dir, sizeof(p->dir), "%s/raio-test-mount", tmpfs_dir());
		snprintf(path, sizeof(path), "%s %s", mkfs, p->nb.node);
		ASSERT_EQ(0, system(path));
		mkdir(p->dir, 0700);
		ASSERT_EQ(0, mount(p->nb.node, p->dir, type, MS_NOATIME, NULL)) {
			TH_LOG("%s", strerror(errno));
		}
		first_transfer(_metadata, p->dir);
		snprintf(path, sizeof(path), "%s/file", p->dir);
	}
	p->buf = map_pages(SIZE);
	/* The device so that nobody else can have it so before that file has gone. */
	p->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC | (type ? O_CREAT : O_EXCL), 0600);
	ASSERT_LE(0, p->fd);
	pattern_fill(p->buf, SIZE, 0, 1);
	ASSERT_EQ(SIZE, pwrite(p->fd, p->buf, SIZE, 0));
	/* What is written later changes nothing but data. */
	ASSERT_EQ(0, fsync(p->fd));
	memset(p->buf, 0, SIZE);
	begin(_metadata, &p->native, p->fd, p->buf);
	stats_now(_metadata, &p->before);
}

static void polled_begin(struct __test_metadata *_metadata, struct polled *p, const char *type,
			 const char *mkfs, unsigned int flags)
{
	polled_begin_slow(_metadata, p, type, mkfs, flags, 0);
}

static void polled_end(struct __test_metadata *_metadata, struct polled *p)
{
	native_end(_metadata, &p->native);
	if (p->fd >= 0)
		close(p->fd);
	if (p->type) {
		/* Who had its file may let go of it a little later. */
		EXPECT_TRUE(wait_for(!umount(p->dir)));
		rmdir(p->dir);
	}
	nullb_remove(&p->nb);
}

#define REGISTERED	(RAIO_IOCB_FIXED_FILE | RAIO_IOCB_FIXED_BUF)

/* The device itself. */
FIXTURE(disk)
{
	struct polled p;
};

FIXTURE_VARIANT(disk)
{
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(disk, registered)
{
	.flags = REGISTERED,
};

FIXTURE_VARIANT_ADD(disk, pinned)
{
	.flags = 0,
};

FIXTURE_SETUP(disk)
{
	polled_begin(_metadata, &self->p, NULL, NULL, variant->flags);
}

FIXTURE_TEARDOWN(disk)
{
	polled_end(_metadata, &self->p);
}

/* The same, and with a file system, where it may be another. */
FIXTURE(iopoll)
{
	struct polled p;
};

FIXTURE_VARIANT(iopoll)
{
	const char *type;
	const char *mkfs;
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(iopoll, registered)
{
	.flags = REGISTERED,
};

FIXTURE_VARIANT_ADD(iopoll, pinned)
{
	.flags = 0,
};

FIXTURE_VARIANT_ADD(iopoll, ext4)
{
	.type = "ext4",
	.mkfs = MKFS_EXT4,
	.flags = REGISTERED,
};

FIXTURE_VARIANT_ADD(iopoll, xfs)
{
	.type = "xfs",
	.mkfs = "mkfs.xfs -q -f",
	.flags = 0,
};

FIXTURE_SETUP(iopoll)
{
	polled_begin(_metadata, &self->p, variant->type, variant->mkfs, variant->flags);
}

FIXTURE_TEARDOWN(iopoll)
{
	polled_end(_metadata, &self->p);
}

/* Request number @i, of its own page there and in the buffer. */
static void prep_as(struct iocb *io, unsigned int i, int opcode, int fd, char *buf,
		    unsigned int flags)
{
	native_prep(io, i, opcode, flags & RAIO_IOCB_FIXED_FILE ? 0 : fd, buf + i % NR * PAGE,
		    PAGE, i % NR * PAGE);
	io->aio_flags = flags;
}

#define PREP(_io, _i, _opcode) \
	prep_as((_io), (_i), (_opcode), self->p.fd, self->p.buf, self->p.flags)

/* All in the submission array; the call waits for so many. */
#define ENTER(_nr, _opcode, _min) do {					\
	unsigned int __i;						\
									\
	for (__i = 0; __i < (_nr); __i++)				\
		PREP(&self->p.native.sq[__i], __i, (_opcode));		\
	ASSERT_EQ((_nr), native_enter_sq(&self->p.native, (_nr), 0, (_min)));	\
} while (0)

#define EXPECT_REAP(_nr, _res)	EXPECT_EACH(&self->p.native, (_nr), (_res))

static long enter_for(struct native *native, unsigned int min_nr, long long ns)
{
	struct __kernel_timespec timeout = { .tv_nsec = ns };
	struct raio_enter arg = {
		.ctx = native->aio.ctx,
		.min_nr = min_nr,
		.timeout = (uintptr_t)&timeout,
	};

	return raio_ioctl(native->aio.dev, RAIO_IOC_ENTER, &arg);
}

/*
 * Registers a descriptor of the file by which no times are noted, if its file system has
 * such: for which a write that comes later would go to a worker.
 */
static void without_times(struct __test_metadata *_metadata, struct polled *p)
{
	char path[80];
	int fd;

	if (!p->type || strcmp(p->type, "xfs"))
		return;
	snprintf(path, sizeof(path), "%s/file", p->dir);
	fd = open_without_times(p->dir, path, O_RDWR | O_DIRECT);
	ASSERT_LE(0, fd);
	ASSERT_EQ(1, native_files(&p->native, 0, 1, &fd));
	close(p->fd);
	p->fd = fd;
}

/* With one call each, and what was written is read. */
TEST_F(iopoll, both_ways)
{
	/* All others wait to note when it was written; a worker does that. */
	const bool notes = self->p.type && strcmp(self->p.type, "xfs");
	unsigned int round;

	without_times(_metadata, &self->p);
	for (round = 0; round < 4; round++) {
		pattern_fill(self->p.buf, SIZE, 0, 2 + round);
		ENTER(NR, IOCB_CMD_PWRITE, NR);
		EXPECT_REAP(NR, PAGE);
		memset(self->p.buf, 0, SIZE);
		ENTER(NR, IOCB_CMD_PREAD, NR);
		EXPECT_REAP(NR, PAGE);
		EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 2 + round));
	}
	EXPECT_EQ(8 * NR, MOVED(&self->p.before, iopolled) + MOVED(&self->p.before, punted));
	EXPECT_MOVED(self->p.type ? 0 : 8 * NR, &self->p.before, direct);
	EXPECT_MOVED(8 * NR, &self->p.before, queued);
	EXPECT_MOVED(8 * NR, &self->p.before, completed);
	EXPECT_LE(notes ? 4 * NR : 8 * NR, MOVED(&self->p.before, iopolled));
}

/* Nobody else ends them. */
TEST_F(iopoll, asked_for)
{
	struct io_event ev[NR];
	unsigned int got = 0;
	long ret;

	ENTER(NR, IOCB_CMD_PREAD, 0);
	EXPECT_MOVED(NR, &self->p.before, iopolled);
	EXPECT_MOVED(0, &self->p.before, completed);
	EXPECT_EQ(0, ring_reap(self->p.native.aio.ctx, NR, ev));
	/* Who waits for none doesn't ask. */
	EXPECT_EQ(0, native_enter(&self->p.native, 0, NULL, 0));
	EXPECT_MOVED(0, &self->p.before, completed);
	while (got < NR) {
		struct __kernel_timespec now = { };

		ret = raio_getevents(self->p.native.aio.dev, self->p.native.aio.ctx, 0, NR, ev, &now);
		ASSERT_LE(0, ret);
		got += ret;
	}
	EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 1));

	ENTER(NR, IOCB_CMD_PREAD, 0);
	for (got = 0; got < NR; got += ret) {
		ASSERT_EQ(0, enter_for(&self->p.native, 1, 0));
		ret = ring_reap(self->p.native.aio.ctx, NR, ev);
	}
	EXPECT_EQ(NR, got);
}

/* In the manner of libaio, one by one and many, with vectors too. */
TEST_F(iopoll, calls_of_aio)
{
	struct iocb io[NR], *iocbs[NR];
	struct iovec vec[2];
	struct io_event ev[NR];
	unsigned int i;

	for (i = 0; i < NR; i++) {
		iocbs[i] = &io[i];
		prep_as(&io[i], i, IOCB_CMD_PREAD, self->p.fd, self->p.buf, 0);
		ASSERT_EQ(1, raio_submit(self->p.native.aio.dev, self->p.native.aio.ctx, 1, iocbs + i));
		ASSERT_EQ(1, raio_getevents(self->p.native.aio.dev, self->p.native.aio.ctx, 1, NR, ev,
					    NULL));
		EXPECT_EVENT(ev, &io[i], PAGE);
	}
	EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 1));
	memset(self->p.buf, 0, SIZE);
	ASSERT_EQ(NR, raio_submit(self->p.native.aio.dev, self->p.native.aio.ctx, NR, iocbs));
	EXPECT_EQ(NR, raio_getevents(self->p.native.aio.dev, self->p.native.aio.ctx, NR, NR, ev, NULL));
	EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 1));
	memset(self->p.buf, 0, SIZE);
	vec[0] = (struct iovec) { self->p.buf, 3 * PAGE };
	vec[1] = (struct iovec) { self->p.buf + 3 * PAGE, PAGE };
	iocb_prep(&io[0], IOCB_CMD_PREADV, self->p.fd, vec, 2, 0);
	ASSERT_EQ(1, raio_submit(self->p.native.aio.dev, self->p.native.aio.ctx, 1, iocbs));
	ASSERT_EQ(1, raio_getevents(self->p.native.aio.dev, self->p.native.aio.ctx, 1, NR, ev, NULL));
	EXPECT_EVENT(ev, &io[0], 4 * PAGE);
	EXPECT_EQ(-1, pattern_check(self->p.buf, 4 * PAGE, 0, 1));
	EXPECT_MOVED(2 * NR + 1, &self->p.before, iopolled);
}

/* Who waits for more than there will be stops when the time is over. */
TEST_F(disk, time_is_over)
{
	const long long from = now_ns();

	ENTER(2, IOCB_CMD_PREAD, 0);
	EXPECT_EQ(0, enter_for(&self->p.native, 3, 20 * MS));
	EXPECT_LE(20 * MS, now_ns() - from);
	EXPECT_REAP(2, PAGE);
}

static void nothing(int sig)
{
	(void)sig;
}

/* Or when there is a signal, while nothing and while something is asked for. */
TEST_F(disk, signalled)
{
	const struct itimerspec soon = { .it_value.tv_nsec = 20 * MS };
	struct sigaction act = { .sa_handler = nothing };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	timer_t timer;

	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	ASSERT_EQ(0, timer_create(CLOCK_MONOTONIC, &event, &timer));
	ASSERT_EQ(0, timer_settime(timer, 0, &soon, NULL));
	EXPECT_EQ(-EINTR, native_enter(&self->p.native, 0, NULL, 1));
	ENTER(2, IOCB_CMD_PREAD, 0);
	ASSERT_EQ(0, timer_settime(timer, 0, &soon, NULL));
	EXPECT_EQ(-EINTR, native_enter(&self->p.native, 0, NULL, 3));
	EXPECT_REAP(2, PAGE);
	timer_delete(timer);
}

struct waiter {
	struct native *native;
	unsigned int nr;
	atomic_int tid;
	long ret;
};

static void *wait_for_some(void *data)
{
	struct waiter *waiter = data;

	waiter->tid = gettid();
	waiter->ret = native_enter(waiter->native, 0, NULL, waiter->nr);
	return NULL;
}

/* Who sleeps since there was nothing to ask for does so when there is. */
TEST_F(disk, sleeper_asks)
{
	struct waiter waiter = { .native = &self->p.native, .nr = 1 };
	pthread_t thread;
	unsigned int i;

	for (i = 0; i < 20 * long_run(5); i++) {
		waiter.tid = 0;
		ASSERT_EQ(0, pthread_create(&thread, NULL, wait_for_some, &waiter));
		if (i % 2)
			ASSERT_TRUE(wait_for(waiter.tid && task_sleeps(waiter.tid)));
		ENTER(1, IOCB_CMD_PREAD, 0);
		ASSERT_EQ(0, pthread_join(thread, NULL));
		EXPECT_EQ(0, waiter.ret);
		EXPECT_REAP(1, PAGE);
	}
}

/* Who submits, waits and leaves has the one who sleeps ask for what is left. */
TEST_F(disk, sleeper_asks_for_the_rest)
{
	struct waiter waiter = { .native = &self->p.native, .nr = 2 };
	struct nullb other;
	struct iocb io[2];
	pthread_t thread;
	unsigned int i;
	int fd;

	/* To ask a device ends all that it has. */
	ASSERT_EQ(0, nullb_create_as(&other, DISK_MB, 0));
	fd = open(other.node, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, fd);
	for (i = 0; i < 20 * long_run(5); i++) {
		waiter.tid = 0;
		ASSERT_EQ(0, pthread_create(&thread, NULL, wait_for_some, &waiter));
		ASSERT_TRUE(wait_for(waiter.tid && task_sleeps(waiter.tid)));
		PREP(&io[0], 0, IOCB_CMD_PREAD);
		prep_as(&io[1], 1, IOCB_CMD_PREAD, fd, self->p.buf, 0);
		ASSERT_EQ(2, native_enter(&self->p.native, 2, io, 1));
		ASSERT_EQ(0, pthread_join(thread, NULL));
		EXPECT_EQ(0, waiter.ret);
		EXPECT_REAP(2, PAGE);
	}
	close(fd);
	nullb_remove(&other);
}

/* What isn't polled for is waited for beside it, or after it. */
TEST_F(disk, others)
{
	struct io_event ev[4];
	struct iocb io[4];
	int pipes[2], fd;
	char c = 'x';
	long ret;

	ASSERT_EQ(0, pipe2(pipes, O_CLOEXEC));
	fd = temp_file(ext4_dir(), O_RDWR);
	ASSERT_EQ(PAGE, pwrite(fd, self->p.buf, PAGE, 0));
	PREP(&io[0], 0, IOCB_CMD_PREAD);
	native_prep(&io[1], 1, IOCB_CMD_POLL, pipes[0], (void *)POLLIN, 0, 0);
	native_prep(&io[2], 2, IOCB_CMD_PREAD, fd, self->p.buf, PAGE, 0);
	native_prep(&io[3], 3, IOCB_CMD_FSYNC, fd, NULL, 0, 0);
	ASSERT_EQ(4, native_enter(&self->p.native, 4, io, 3));
	EXPECT_EQ(3, ring_reap(self->p.native.aio.ctx, 4, ev));
	ASSERT_EQ(1, write(pipes[1], &c, 1));
	ASSERT_EQ(0, native_enter(&self->p.native, 0, NULL, 1));
	ret = ring_reap(self->p.native.aio.ctx, 4, ev);
	ASSERT_EQ(1, ret);
	EXPECT_NATIVE(1, POLLIN, &ev[0]);
	EXPECT_MOVED(1, &self->p.before, iopolled);
	close(fd);
	close(pipes[0]);
	close(pipes[1]);
}

/* Who waits for an eventfd doesn't ask, so such a request isn't polled for. */
TEST_F(disk, eventfd)
{
	int efd = eventfd(0, EFD_CLOEXEC);
	struct iocb io;
	uint64_t n;

	PREP(&io, 0, IOCB_CMD_PREAD);
	io.aio_flags |= IOCB_FLAG_RESFD;
	io.aio_resfd = efd;
	ASSERT_EQ(1, native_enter(&self->p.native, 1, &io, 0));
	ASSERT_EQ(8, read(efd, &n, 8));
	EXPECT_EQ(1, n);
	EXPECT_REAP(1, PAGE);
	EXPECT_MOVED(0, &self->p.before, iopolled);
	close(efd);
}

/* One that goes on with one that is polled for, which ends by itself all the same. */
static void neighbours(struct __test_metadata *_metadata, struct polled *p, unsigned int polled,
		       unsigned int other)
{
	const unsigned int pages[] = { polled, other };
	struct iovec iov[2];
	struct io_event ev;
	struct pollfd counted = { .fd = eventfd(0, EFD_CLOEXEC), .events = POLLIN };
	struct iocb io[3];
	unsigned int i;

	/* As vectors, so not on the direct path. */
	for (i = 0; i < 2; i++) {
		iov[i] = (struct iovec) { p->buf + pages[i] * PAGE, PAGE };
		native_prep(&io[i], pages[i], IOCB_CMD_PREADV, p->fd, &iov[i], 1, pages[i] * PAGE);
	}
	io[1].aio_flags |= IOCB_FLAG_RESFD;
	io[1].aio_resfd = counted.fd;
	native_prep(&io[2], 2, IOCB_CMD_NOOP, 0, NULL, 0, 0);
	ASSERT_EQ(3, native_enter(&p->native, 3, io, 0));
	EXPECT_EQ(1, poll(&counted, 1, 10000));
	ASSERT_EQ(0, native_enter(&p->native, 0, NULL, 3));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(1, ring_reap(p->native.aio.ctx, 1, &ev));
		EXPECT_EQ(ev.data == 2 ? 0 : PAGE, ev.res);
	}
	EXPECT_EQ(-1, pattern_check(p->buf, 2 * PAGE, 0, 1));
	EXPECT_MOVED(1, &p->before, iopolled);
	close(counted.fd);
}

TEST_F(disk, others_behind)
{
	neighbours(_metadata, &self->p, 0, 1);
}

TEST_F(disk, others_before)
{
	neighbours(_metadata, &self->p, 1, 0);
}

/* More than a bio has room for, if the pages don't lie one behind the other. */
#define MANY_PAGES	640

/* One that takes its time if it isn't polled for. */
FIXTURE(slow)
{
	struct polled p;
};

FIXTURE_SETUP(slow)
{
	polled_begin_slow(_metadata, &self->p, "ext4", MKFS_EXT4, 0, MS);
}

FIXTURE_TEARDOWN(slow)
{
	polled_end(_metadata, &self->p);
}

/* A file system doesn't leave one of several bios to be polled for. Nobody asks. */
TEST_F(slow, several_bios)
{
	struct io_event ev;
	struct iocb io;
	unsigned int i;
	char *buf;

	buf = mmap(NULL, MANY_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, buf);
	madvise(buf, MANY_PAGES * PAGE, MADV_NOHUGEPAGE);
	/* Their neighbours are others' then. */
	for (i = 0; i < MANY_PAGES; i += 2)
		buf[i * PAGE] = 1;
	pattern_fill(buf, MANY_PAGES * PAGE, 0, 3);
	ASSERT_EQ(MANY_PAGES * PAGE, pwrite(self->p.fd, buf, MANY_PAGES * PAGE, 0));
	memset(buf, 0, MANY_PAGES * PAGE);
	native_prep(&io, 7, IOCB_CMD_PREAD, self->p.fd, buf, MANY_PAGES * PAGE, 0);
	ASSERT_EQ(1, native_enter(&self->p.native, 1, &io, 0));
	ASSERT_TRUE(wait_for(ring_reap(self->p.native.aio.ctx, 1, &ev) == 1));
	EXPECT_NATIVE(7, MANY_PAGES * PAGE, &ev);
	EXPECT_EQ(-1, pattern_check(buf, MANY_PAGES * PAGE, 0, 3));
	EXPECT_MOVED(0, &self->p.before, iopolled);
	munmap(buf, MANY_PAGES * PAGE);
}

/*
 * One that has place for few requests: so few that each test with many finds none, or more
 * than a large one needs, so many that they are taken together.
 */
FIXTURE(scarce)
{
	struct polled p;
};

FIXTURE_VARIANT(scarce)
{
	const char *type;
	const char *mkfs;
	unsigned int places;
};

FIXTURE_VARIANT_ADD(scarce, ext4)
{
	.type = "ext4",
	.mkfs = MKFS_EXT4,
	.places = 2,
};

FIXTURE_VARIANT_ADD(scarce, xfs)
{
	.type = "xfs",
	.mkfs = "mkfs.xfs -q -f",
	.places = 2,
};

FIXTURE_VARIANT_ADD(scarce, more)
{
	.type = "xfs",
	.mkfs = "mkfs.xfs -q -f",
	.places = 2 * NR,
};

FIXTURE_SETUP(scarce)
{
	self->p.depth = variant->places;
	polled_begin(_metadata, &self->p, variant->type, variant->mkfs, REGISTERED);
}

FIXTURE_TEARDOWN(scarce)
{
	polled_end(_metadata, &self->p);
}

/* Writes until all places of what is polled for are taken; returns how often. */
#define TAKE_ALL() ({								\
	unsigned int __n, __i;							\
										\
	for (__n = 0; __n <= variant->places; __n += NR) {			\
		for (__i = 0; __i < NR; __i++)					\
			PREP(&self->p.native.sq[__i], __i * 9 % NR, IOCB_CMD_PWRITE); \
		ASSERT_EQ(NR, native_enter_sq(&self->p.native, NR, 0, 0));	\
	}									\
	__n;									\
})

/* What would have to wait for a place a worker carries out, and nobody has to ask. */
TEST_F(scarce, would_wait)
{
	unsigned int polled, i;

	/* None beside the one before, to be merged with it. */
	for (i = 0; i < NR; i++)
		PREP(&self->p.native.sq[i], i * 9 % NR, IOCB_CMD_PREAD);
	ASSERT_EQ(NR, native_enter_sq(&self->p.native, NR, 0, 0));
	polled = MOVED(&self->p.before, iopolled);
	EXPECT_LT(0, polled);
	EXPECT_GE(variant->places, polled);
	EXPECT_TRUE(wait_for(MOVED(&self->p.before, completed) == NR - polled));
	EXPECT_MOVED(NR - polled, &self->p.before, punted);
	ASSERT_EQ(0, native_enter(&self->p.native, 0, NULL, NR));
	EXPECT_REAP(NR, PAGE);
	EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 1));
}

/* What is left of the places of one that isn't polled for is none for those that are. */
TEST_F(scarce, after_a_large_one)
{
	struct iocb *sq = self->p.native.sq;
	struct io_event ev[NR_EVENTS];
	unsigned int nr, i;

	without_times(_metadata, &self->p);
	nr = TAKE_ALL();
	/* Nobody asks for those; there are no others. */
	i = nr - MOVED(&self->p.before, iopolled);
	EXPECT_TRUE(wait_for(MOVED(&self->p.before, completed) == i));
	for (i = 0; i < NR / 2; i++)
		PREP(&sq[i], i * 9 % NR, IOCB_CMD_PWRITE);
	PREP(&sq[0], 0, IOCB_CMD_PWRITE);
	sq[0].aio_nbytes = SIZE;
	sq[0].aio_data = NR;
	ASSERT_EQ(NR / 2, native_enter_sq(&self->p.native, NR / 2, 0, 0));
	nr += NR / 2;
	ASSERT_EQ(0, native_enter(&self->p.native, 0, NULL, nr));
	ASSERT_EQ(nr, ring_reap(self->p.native.aio.ctx, nr, ev));
	for (i = 0; i < nr; i++)
		EXPECT_EQ(ev[i].data == NR ? SIZE : PAGE, ev[i].res);
}

/* Who sleeps during a call has no places any more: others have taken them. */
TEST_F(scarce, slept_meanwhile)
{
	struct call call = { .kind = SUBMIT, .aio = self->p.native.aio, .nr = 4 };
	struct iocb **rest = map_pages(PAGE), io[4];
	char *array = map_pages(2 * PAGE);
	const int uffd = uffd_open();
	struct io_event ev[NR_EVENTS];
	unsigned int nr, i;

	ASSERT_LE(0, uffd);
	ASSERT_EQ(0, uffd_missing(uffd, array + PAGE, PAGE));
	without_times(_metadata, &self->p);
	call.iocbs = (struct iocb **)(array + PAGE) - 2;
	for (i = 0; i < 4; i++) {
		iocb_prep(&io[i], IOCB_CMD_PWRITE, self->p.fd, self->p.buf, PAGE, i * 9 * PAGE);
		*(i < 2 ? &call.iocbs[i] : &rest[i - 2]) = &io[i];
	}
	call_start(_metadata, &call);
	ASSERT_TRUE(uffd_wait(uffd));
	EXPECT_SLEEPS(&call);
	nr = TAKE_ALL() + 4;
	ASSERT_EQ(0, uffd_fill(uffd, array + PAGE, rest));
	EXPECT_RETURNS(4, &call);
	ASSERT_EQ(0, native_enter(&self->p.native, 0, NULL, nr));
	ASSERT_EQ(nr, ring_reap(self->p.native.aio.ctx, nr, ev));
	for (i = 0; i < nr; i++)
		EXPECT_EQ(PAGE, ev[i].res);
	close(uffd);
}

/* And what is with workers then is cancelled by the context's end. */
TEST_F(scarce, destroyed)
{
	unsigned int i, k;

	for (i = 0; i < 8 * long_run(5); i++) {
		for (k = 0; k < NR; k++)
			PREP(&self->p.native.sq[k], k * 9 % NR, IOCB_CMD_PREAD);
		ASSERT_EQ(NR, native_enter_sq(&self->p.native, NR, 0, 0));
		EXPECT_EQ(0, raio_destroy(self->p.native.aio.dev, self->p.native.aio.ctx));
		self->p.native.aio.ctx = 0;
		native_end(_metadata, &self->p.native);
		begin(_metadata, &self->p.native, self->p.fd, self->p.buf);
	}
	if (variant->places < NR)
		EXPECT_LT(0, MOVED(&self->p.before, punted));
}

/*
 * What a device takes in several requests doesn't get one that is polled for, and ends by itself,
 * among others or alone.
 */
TEST_F(iopoll, large)
{
	struct iocb *sq = self->p.native.sq;
	struct io_event ev[4];
	unsigned int nr, i;

	for (nr = 4; nr; nr--) {
		memset(self->p.buf, 0, SIZE);
		for (i = 0; i < nr; i++)
			PREP(&sq[i], 2 * i, IOCB_CMD_PREAD);
		PREP(&sq[nr - 1], 0, IOCB_CMD_PREAD);
		sq[nr - 1].aio_nbytes = SIZE;
		sq[nr - 1].aio_data = NR;
		ASSERT_EQ(nr, native_enter_sq(&self->p.native, nr, 0, nr));
		ASSERT_EQ(0, native_enter(&self->p.native, 0, NULL, nr));
		ASSERT_EQ(nr, ring_reap(self->p.native.aio.ctx, nr, ev));
		for (i = 0; i < nr; i++)
			EXPECT_EQ(ev[i].data == NR ? SIZE : PAGE, ev[i].res);
		EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 1));
	}
	/* On the direct path it is, but not as several: then a worker carries it out. */
	EXPECT_MOVED(3 + 2 + 1 + (variant->type || !variant->flags ? 0 : 4), &self->p.before, iopolled);
}

/* Errors are the same. */
TEST_F(disk, wrong)
{
	struct iocb io;

	PREP(&io, 0, IOCB_CMD_PREAD);
	io.aio_offset = 1;
	EXPECT_EQ(-EINVAL, NATIVE_RESULT(&self->p.native, &io));
	PREP(&io, 0, IOCB_CMD_PREAD);
	io.aio_offset = 1LL << 40;
	EXPECT_EQ(0, NATIVE_RESULT(&self->p.native, &io));
	PREP(&io, 0, IOCB_CMD_PREAD);
	io.aio_rw_flags = RWF_NOWAIT;
	EXPECT_EQ(PAGE, NATIVE_RESULT(&self->p.native, &io));
	io.aio_rw_flags = RWF_HIPRI;
	EXPECT_EQ(PAGE, NATIVE_RESULT(&self->p.native, &io));
	PREP(&io, 0, IOCB_CMD_PREAD);
	io.aio_buf = KERNEL_ADDR;
	io.aio_flags &= ~RAIO_IOCB_FIXED_BUF;
	EXPECT_EQ(-EFAULT, NATIVE_RESULT(&self->p.native, &io));
}

/* A worker does what would have had to wait, and nobody asks for that. */
TEST_F(disk, would_wait)
{
	close(self->p.fd);
	native_end(_metadata, &self->p.native);
	make_anew(_metadata, &self->p.nb, 2);
	self->p.fd = open(self->p.nb.node, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, self->p.fd);
	begin(_metadata, &self->p.native, self->p.fd, self->p.buf);
	stats_now(_metadata, &self->p.before);
	pattern_fill(self->p.buf, SIZE, 0, 7);
	ENTER(NR, IOCB_CMD_PWRITE, NR);
	EXPECT_REAP(NR, PAGE);
	memset(self->p.buf, 0, SIZE);
	ENTER(NR, IOCB_CMD_PREAD, NR);
	EXPECT_REAP(NR, PAGE);
	EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 7));
	EXPECT_LT(0, MOVED(&self->p.before, punted));
	EXPECT_LT(0, MOVED(&self->p.before, iopolled));
}

/* What is registered, and the file, may go meanwhile. */
TEST_F(iopoll, in_flight)
{
	const struct raio_buffer none = { };
	const int no_fd = -1;
	unsigned int i;

	ENTER(NR, IOCB_CMD_PREAD, 0);
	ASSERT_EQ(1, native_buffers(&self->p.native, 0, 1, &none));
	ASSERT_EQ(1, native_files(&self->p.native, 0, 1, &no_fd));
	close(self->p.fd);
	self->p.fd = -1;
	/* If it went, it would within some grace periods. */
	for (i = 0; i < 2; i++) {
		grace_periods();
		EXPECT_EQ(-EBUSY, ret_errno(self->p.type ? umount(self->p.dir) :
					    open(self->p.nb.node, O_EXCL | O_CLOEXEC)));
	}
	ASSERT_EQ(0, native_enter(&self->p.native, 0, NULL, NR));
	EXPECT_REAP(NR, PAGE);
	EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 1));
}

/* None can be cancelled, and each is found as long as it hasn't ended. */
TEST_F(iopoll, cancelled)
{
	struct raio_cancel cancel = {
		.ctx = self->p.native.aio.ctx,
		.flags = RAIO_CANCEL_DATA,
	};

	ENTER(NR, IOCB_CMD_PREAD, 0);
	for (cancel.iocb = 0; cancel.iocb < NR; cancel.iocb++)
		EXPECT_EQ(-EAGAIN, raio_ioctl(self->p.native.aio.dev, RAIO_IOC_CANCEL, &cancel));
	EXPECT_EQ(-EINVAL, raio_ioctl(self->p.native.aio.dev, RAIO_IOC_CANCEL, &cancel));
	ASSERT_EQ(0, native_enter(&self->p.native, 0, NULL, NR));
	cancel.iocb = 0;
	EXPECT_EQ(-EINVAL, raio_ioctl(self->p.native.aio.dev, RAIO_IOC_CANCEL, &cancel));
	EXPECT_REAP(NR, PAGE);
}

/* Nobody asks any more, but destroy waits until they have ended. */
TEST_F(iopoll, destroyed)
{
	ENTER(NR, IOCB_CMD_PREAD, 0);
	EXPECT_EQ(0, raio_destroy(self->p.native.aio.dev, self->p.native.aio.ctx));
	self->p.native.aio.ctx = 0;
	EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 1));
	EXPECT_MOVED(NR, &self->p.before, completed);
}

/* Where there are many others, a worker cancels those before it asks. */
TEST_F(iopoll, destroyed_among_many)
{
	struct iocb io[NR_EVENTS - NR];
	int fd = eventfd(0, EFD_CLOEXEC);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(io); i++)
		native_prep(&io[i], i, IOCB_CMD_POLL, fd, (void *)POLLIN, 0, 0);
	ASSERT_EQ(ARRAY_SIZE(io), native_enter(&self->p.native, ARRAY_SIZE(io), io, 0));
	ENTER(NR, IOCB_CMD_PREAD, 0);
	EXPECT_EQ(0, raio_destroy(self->p.native.aio.dev, self->p.native.aio.ctx));
	self->p.native.aio.ctx = 0;
	EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 1));
	EXPECT_MOVED(ARRAY_SIZE(io), &self->p.before, cancelled);
	EXPECT_MOVED(NR_EVENTS, &self->p.before, completed);
	close(fd);
}

/* While another asks. */
TEST_F(disk, destroyed_under_a_waiter)
{
	struct waiter waiter;
	pthread_t thread;
	unsigned int i;

	for (i = 0; i < 8 * long_run(5); i++) {
		waiter = (struct waiter) { .native = &self->p.native, .nr = 1 };
		ENTER(NR / 2, IOCB_CMD_PREAD, NR / 2);
		EXPECT_REAP(NR / 2, PAGE);
		ENTER(NR / 2, IOCB_CMD_PREAD, 0);
		ASSERT_EQ(0, pthread_create(&thread, NULL, wait_for_some, &waiter));
		if (i % 2)
			ASSERT_TRUE(wait_for(waiter.tid));
		EXPECT_EQ(0, raio_destroy(self->p.native.aio.dev, self->p.native.aio.ctx));
		self->p.native.aio.ctx = 0;
		ASSERT_EQ(0, pthread_join(thread, NULL));
		EXPECT_TRUE(!waiter.ret || waiter.ret == -EINVAL) {
			TH_LOG("%ld", waiter.ret);
		}
		EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE / 2, 0, 1));
		native_end(_metadata, &self->p.native);
		begin(_metadata, &self->p.native, self->p.fd, self->p.buf);
	}
}

/* The process is killed, or ends. */
TEST_F(iopoll, gone)
{
	unsigned int i;

	for (i = 0; i < 4 * long_run(5); i++) {
		struct raio_stats before;
		pid_t pid;

		stats_now(_metadata, &before);
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			struct native native;
			struct iocb io[NR];
			unsigned int j;

			begin(_metadata, &native, self->p.fd, self->p.buf);
			for (j = 0; j < NR; j++)
				prep_as(&io[j], j, IOCB_CMD_PREAD, self->p.fd, self->p.buf,
					self->p.flags);
			if (native_enter(&native, NR, io, 0) != NR)
				_exit(1);
			if (i % 2)
				_exit(0);
			kill(getpid(), SIGKILL);
		}
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		EXPECT_TRUE(wait_for(MOVED(&before, frees) == 1));
		EXPECT_MOVED(NR, &before, iopolled);
		EXPECT_MOVED(NR, &before, completed);
	}
}

/* The device goes with requests in flight. */
TEST_F(disk, removed)
{
	pthread_t thread;
	struct iocb io;
	void *ret;

	ENTER(NR, IOCB_CMD_PREAD, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, nullb_power_off, &self->p.nb));
	ASSERT_EQ(0, native_enter(&self->p.native, 0, NULL, NR));
	ASSERT_EQ(0, pthread_join(thread, &ret));
	EXPECT_EQ(NULL, ret);
	EXPECT_REAP(NR, PAGE);
	EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 1));
	/* At its end there is nothing to read. */
	PREP(&io, 0, IOCB_CMD_PREAD);
	EXPECT_GE(0, NATIVE_RESULT(&self->p.native, &io));
}

/* Makes the partition so long, or as long as it is from now on. */
static long partition(int fd, int op, unsigned int pages)
{
	struct blkpg_partition part = { .pno = 1, .length = pages * PAGE };
	struct blkpg_ioctl_arg arg = { .op = op, .datalen = sizeof(part), .data = &part };

	return ret_errno(ioctl(fd, BLKPG, &arg));
}

/* Half of a partition goes with requests in flight: no null_blk changes its size itself. */
TEST_F(disk, resized)
{
	const int whole = self->p.fd;
	struct io_event ev[NR];
	char path[80];
	unsigned int i;

	ASSERT_EQ(0, partition(whole, BLKPG_ADD_PARTITION, NR));
	snprintf(path, sizeof(path), "/dev/%sp1", strrchr(self->p.nb.dir, '/') + 1);
	self->p.fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, self->p.fd);
	ASSERT_EQ(1, native_files(&self->p.native, 0, 1, &self->p.fd));
	ENTER(NR, IOCB_CMD_PREAD, 0);
	EXPECT_MOVED(NR, &self->p.before, iopolled);
	ASSERT_EQ(0, partition(whole, BLKPG_RESIZE_PARTITION, NR / 2));
	EXPECT_MOVED(0, &self->p.before, completed);
	ASSERT_EQ(0, native_enter(&self->p.native, 0, NULL, NR));
	EXPECT_REAP(NR, PAGE);
	EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 1));
	ENTER(NR, IOCB_CMD_PREAD, 0);
	ASSERT_EQ(0, native_enter(&self->p.native, 0, NULL, NR));
	ASSERT_EQ(NR, ring_reap(self->p.native.aio.ctx, NR, ev));
	for (i = 0; i < NR; i++)
		EXPECT_EQ(ev[i].data < NR / 2 ? (long)PAGE : 0, ev[i].res);
	EXPECT_MOVED(NR + NR / 2, &self->p.before, direct);
	ASSERT_EQ(0, partition(whole, BLKPG_RESIZE_PARTITION, NR));
	ENTER(NR, IOCB_CMD_PREAD, NR);
	EXPECT_REAP(NR, PAGE);
	EXPECT_MOVED(2 * NR + NR / 2, &self->p.before, direct);
	close(whole);
}

/* What another has ended is told of, though the device is gone, which can't be asked any more. */
TEST_F(disk, removed_after_its_end)
{
	struct native other = { };
	struct io_event ev[NR];
	struct iocb io;

	begin(_metadata, &other, self->p.fd, self->p.buf);
	PREP(&io, 1, IOCB_CMD_PREAD);
	ENTER(1, IOCB_CMD_PREAD, 0);
	ASSERT_EQ(1, native_enter(&other, 1, &io, 1));
	EXPECT_EQ(1, ring_reap(other.aio.ctx, NR, ev));
	native_end(_metadata, &other);
	ASSERT_EQ(0, nullb_set(&self->p.nb, "power", 0));
	EXPECT_EQ(0, enter_for(&self->p.native, 1, 999999999));
	EXPECT_EQ(1, ring_reap(self->p.native.aio.ctx, NR, ev));
	EXPECT_EQ(PAGE, ev[0].res);
}

/* A device that can't be polled, or can't any more. */
TEST_F(disk, cannot)
{
	ENTER(1, IOCB_CMD_PREAD, 1);
	EXPECT_REAP(1, PAGE);
	ASSERT_EQ(0, nullb_set(&self->p.nb, "poll_queues", 0));
	stats_now(_metadata, &self->p.before);
	ENTER(NR, IOCB_CMD_PREAD, NR);
	EXPECT_REAP(NR, PAGE);
	EXPECT_EQ(-1, pattern_check(self->p.buf, SIZE, 0, 1));
	EXPECT_MOVED(0, &self->p.before, iopolled);
	ASSERT_EQ(0, nullb_set(&self->p.nb, "poll_queues", 1));
	ENTER(NR, IOCB_CMD_PREAD, NR);
	EXPECT_REAP(NR, PAGE);
	EXPECT_MOVED(NR, &self->p.before, iopolled);
}

struct asker {
	struct native *native;
	int cpu;
	int fd;
	char *buf;
	unsigned int flags;
	atomic_bool *over;
	atomic_uint rounds;
	long ret;
};

/* Reads a page, and asks until it is there, again and again. */
static void *ask_again(void *data)
{
	struct asker *asker = data;
	struct io_event ev;
	struct iocb io;

	pin_to_cpu(asker->cpu);
	while (!*asker->over) {
		prep_as(&io, asker->cpu, IOCB_CMD_PREAD, asker->fd, asker->buf, asker->flags);
		asker->ret = native_enter(asker->native, 1, &io, 1);
		if (asker->ret != 1)
			return NULL;
		asker->ret = raio_getevents(asker->native->aio.dev, asker->native->aio.ctx, 1, 1,
					    &ev, NULL);
		if (asker->ret != 1)
			return NULL;
		asker->ret = ev.res;
		if (asker->ret != PAGE)
			return NULL;
		asker->rounds++;
	}
	return NULL;
}

/*
 * While two ask for what is in it, the queue that is polled gets another number, and nothing
 * has the old one. Who has been told of a request by the other doesn't ask there any more.
 */
TEST_F(disk, fewer_queues)
{
	const unsigned int most = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 2 : 1;
	atomic_bool over = false;
	struct native other = { };
	struct asker askers[2];
	pthread_t threads[2];
	unsigned int i;

	begin(_metadata, &other, self->p.fd, self->p.buf);
	for (i = 0; i < ARRAY_SIZE(askers); i++) {
		askers[i] = (struct asker) {
			.native = i ? &other : &self->p.native,
			.cpu = i,
			.fd = self->p.fd,
			.buf = self->p.buf,
			.flags = self->p.flags,
			.over = &over,
		};
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, ask_again, &askers[i]));
	}
	for (i = 0; i < 20 * long_run(5); i++) {
		const unsigned int rounds[] = { askers[0].rounds, askers[1].rounds };

		EXPECT_EQ(0, nullb_set(&self->p.nb, "submit_queues", i % 2 ? 1 : most));
		EXPECT_TRUE(wait_for(askers[0].rounds - rounds[0] > 1 &&
				     askers[1].rounds - rounds[1] > 1));
	}
	over = true;
	for (i = 0; i < ARRAY_SIZE(askers); i++) {
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
		EXPECT_EQ(PAGE, askers[i].ret);
		EXPECT_EQ(-1, pattern_check(self->p.buf + i * PAGE, PAGE, i * PAGE, 1));
	}
	native_end(_metadata, &other);
}

#define ROUNDS 100

struct party {
	struct native *native;
	int fd;
	char *buf;
	unsigned int flags;
	unsigned int first;
	atomic_uint *told;
	long ret;
};

/* Submits, and reads whatever has ended, its own or not. */
static void *take_part(void *data)
{
	struct party *party = data;
	uint64_t seed = party->first;
	unsigned int round;

	for (round = 0; round < ROUNDS * long_run(5); round++) {
		const unsigned int nr = 1 + next_random(&seed) % 16;
		struct io_event ev[NR];
		struct iocb io[16];
		unsigned int i;
		long ret;

		for (i = 0; i < nr; i++)
			prep_as(&io[i], party->first + i, IOCB_CMD_PREAD, party->fd, party->buf,
				party->flags);
		party->ret = native_enter(party->native, nr, io, 0);
		if (party->ret != (long)nr)
			return NULL;
		/* Its own have come when all of them are told of. */
		for (;;) {
			unsigned int missing = 0;

			ret = raio_getevents(party->native->aio.dev, party->native->aio.ctx, 0, NR,
					     ev, &(struct __kernel_timespec) { });
			if (ret < 0) {
				party->ret = ret;
				return NULL;
			}
			for (i = 0; i < ret; i++)
				if (ev[i].res == PAGE)
					atomic_fetch_add(&party->told[ev[i].data], 1);
			for (i = 0; i < nr; i++)
				missing += !party->told[party->first + i];
			if (!missing)
				break;
		}
		for (i = 0; i < nr; i++)
			atomic_fetch_sub(&party->told[party->first + i], 1);
	}
	party->ret = 0;
	return NULL;
}

/* Two ask at the same time, and each ends what the other has submitted. */
TEST_F(iopoll, together)
{
	static atomic_uint told[NR];
	struct party party[3];
	pthread_t threads[3];
	unsigned int i;

	memset(told, 0, sizeof(told));
	for (i = 0; i < ARRAY_SIZE(party); i++) {
		party[i] = (struct party) {
			.native = &self->p.native,
			.fd = self->p.fd,
			.buf = self->p.buf,
			.flags = self->p.flags,
			.first = 16 * i,
			.told = told,
		};
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, take_part, &party[i]));
	}
	for (i = 0; i < ARRAY_SIZE(party); i++) {
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
		EXPECT_EQ(0, party[i].ret);
	}
	for (i = 0; i < NR; i++)
		EXPECT_EQ(0, told[i]);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(-1, pattern_check(self->p.buf + 16 * i * PAGE, PAGE, 16 * i * PAGE, 1));
}

TEST_HARNESS_MAIN
