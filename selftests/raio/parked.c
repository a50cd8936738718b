// SPDX-License-Identifier: GPL-2.0
/*
 * Requests that would have to wait: submit takes them and returns, though the
 * device, the pipe or the file system lets go of nothing; they end when that
 * does, as if they had waited; and they can be cancelled until then. The test
 * devices hold what is waited for, so a submit that waits is seen by the test's
 * own time running out.
 */
#include <linux/falloc.h>
#include <sys/eventfd.h>
#include <sys/param.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include "raio_cgroup.h"
#include "raio_fuse.h"
#include "raio_loopfs.h"
#include "raio_race.h"
#include "raio_task.h"
#include "raio_testdev.h"

#define EVENTS		128
#define SEED		7
#define CANARY		0xa5
/* Workers of one user that are busy at the same time. */
#define WORKERS		64
/* Requests of one user that are cancelled while they wait for pages. */
#define CANCELLED	1024

/* A thorough run takes its time. */
static unsigned int scaled(unsigned int n)
{
	return n * long_run(10);
}

/* A context. */

struct scene {
	struct aio aio;
	struct raio_stats before;
	char *buf;
	struct iocb io[EVENTS];
	struct io_event ev[EVENTS];
};

static void scene_begin(struct __test_metadata *_metadata, struct scene *s)
{
	testdev_begin();
	stats_now(_metadata, &s->before);
	s->buf = map_pages(EVENTS * PAGE);
	memset(s->buf, CANARY, EVENTS * PAGE);
	aio_begin(_metadata, &s->aio, &raio, EVENTS);
}

/* Each request has had its event. */
static void scene_end(struct __test_metadata *_metadata, struct scene *s)
{
	testdev_reset();
	aio_end(_metadata, &s->aio);
	EXPECT_MOVED(MOVED(&s->before, submitted), &s->before, completed);
}

static char *buf_of(struct scene *s, unsigned int i)
{
	return s->buf + i * PAGE;
}

static void submit(struct __test_metadata *_metadata, struct scene *s, unsigned int i, int opcode,
		   int fd, size_t len, long long pos)
{
	iocb_prep(&s->io[i], opcode, fd, buf_of(s, i), len, pos);
	ASSERT_EQ(1, aio_submit_one(&s->aio, &s->io[i]));
}

#define EXPECT_NEXT(s, i, result) do {					\
	ASSERT_EQ(1, aio_wait(&(s)->aio, 1, (s)->ev));			\
	EXPECT_EVENT(&(s)->ev[0], &(s)->io[i], (result));		\
} while (0)

#define EXPECT_NO_EVENT(s) \
	EXPECT_EQ(0, aio_poll(&(s)->aio, 1, (s)->ev))

/* Parked @n times since the beginning; it is a worker that does. */
#define EXPECT_PARKED(n, s) \
	EXPECT_TRUE(wait_for(MOVED(&(s)->before, parked) == (n)))

/* Pages of a disk that holds what is read. */

FIXTURE(page)
{
	struct scene s;
	int fd;
};

FIXTURE_SETUP(page)
{
	struct scene *s = &self->s;
	int fd;

	scene_begin(_metadata, s);
	fd = testdev_open("b0", O_DIRECT);
	pattern_fill(s->buf, EVENTS * PAGE, 0, SEED);
	ASSERT_EQ(EVENTS * PAGE, pwrite(fd, s->buf, EVENTS * PAGE, 0));
	close(fd);
	memset(s->buf, CANARY, EVENTS * PAGE);
	self->fd = testdev_open("b0", 0);
	/* Nothing but what is asked for. */
	ASSERT_EQ(0, posix_fadvise(self->fd, 0, 0, POSIX_FADV_RANDOM));
	ASSERT_EQ(0, posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED));
	testdev_cmd("b0 mode hang");
}

FIXTURE_TEARDOWN(page)
{
	testdev_reset();
	close(self->fd);
	scene_end(_metadata, &self->s);
}

#define EXPECT_DATA(s, i, pos, len) \
	EXPECT_EQ(-1, pattern_check(buf_of((s), (i)), (len), (pos), SEED))

static void *zero_thread(void *data)
{
	uint64_t range[2] = { 8 * PAGE, PAGE };
	const int *fd = data;

	return (void *)ret_errno(ioctl(*fd, BLKZEROOUT, range));
}

/* A read of what is there waits as long as something else of the device is zeroed: a worker does. */
TEST_F(page, is_there_while_others_are_zeroed)
{
	struct scene *s = &self->s;
	struct iocb *iop = &s->io[1];
	struct call call = { .kind = SUBMIT, .aio = s->aio, .iocbs = &iop, .nr = 1 };
	pthread_t thread;
	void *ret;

	testdev_cmd("b0 mode softirq");
	submit(_metadata, s, 0, IOCB_CMD_PREAD, self->fd, PAGE, 3 * PAGE);
	EXPECT_NEXT(s, 0, PAGE);
	testdev_cmd("b0 mode hang");
	ASSERT_EQ(0, pthread_create(&thread, NULL, zero_thread, &self->fd));
	testdev_cmd("b0 wait held 1");
	iocb_prep(iop, IOCB_CMD_PREAD, self->fd, buf_of(s, 1), PAGE, 3 * PAGE);
	call_start(_metadata, &call);
	EXPECT_RETURNS(1, &call);
	EXPECT_NO_EVENT(s);
	testdev_cmd("b0 mode softirq");
	testdev_cmd("b0 complete all");
	EXPECT_NEXT(s, 1, PAGE);
	EXPECT_DATA(s, 1, 3 * PAGE, PAGE);
	pthread_join(thread, &ret);
	EXPECT_EQ(NULL, ret);
}

/* Which processors workers may have. */
#define WORKQUEUE_CPUS	"/sys/devices/virtual/workqueue/cpumask"

/* A read of what isn't there yet. */
TEST_F(page, is_waited_for)
{
	struct scene *s = &self->s;

	submit(_metadata, s, 0, IOCB_CMD_PREAD, self->fd, PAGE, 3 * PAGE);
	testdev_cmd("b0 wait held 1");
	EXPECT_PARKED(1, s);
	EXPECT_NO_EVENT(s);
	testdev_cmd("b0 complete all");
	EXPECT_NEXT(s, 0, PAGE);
	EXPECT_DATA(s, 0, 3 * PAGE, PAGE);
	EXPECT_MOVED(1, &s->before, kicked);
}

/* Many, with few workers: none of them waits. */
TEST_F(page, many)
{
	struct scene *s = &self->s;
	unsigned int i;

	/* Every second, so that none is read with another. */
	for (i = 0; i < EVENTS / 2; i++)
		submit(_metadata, s, i, IOCB_CMD_PREAD, self->fd, PAGE, 2 * i * PAGE);
	testdev_cmd("b0 wait held %u", EVENTS / 2);
	EXPECT_PARKED(EVENTS / 2, s);
	EXPECT_NO_EVENT(s);
	testdev_cmd("b0 complete all");
	ASSERT_EQ(EVENTS / 2, aio_wait(&s->aio, EVENTS / 2, s->ev));
	for (i = 0; i < EVENTS / 2; i++) {
		EXPECT_EQ(PAGE, s->ev[i].res);
		EXPECT_DATA(s, i, 2 * i * PAGE, PAGE);
	}
}

/* All of one page, which kicks them at once. */
TEST_F(page, is_the_same_for_all)
{
	struct scene *s = &self->s;
	unsigned int i;

	for (i = 0; i < EVENTS / 2; i++)
		submit(_metadata, s, i, IOCB_CMD_PREAD, self->fd, PAGE - i, 5 * PAGE);
	EXPECT_PARKED(EVENTS / 2, s);
	EXPECT_EQ(1, testdev_stat("b0", "held"));
	testdev_cmd("b0 complete all");
	ASSERT_EQ(EVENTS / 2, aio_wait(&s->aio, EVENTS / 2, s->ev));
	for (i = 0; i < EVENTS / 2; i++) {
		const unsigned int n = event_iocb(&s->ev[i]) - s->io;

		ASSERT_GT(EVENTS / 2, n);
		EXPECT_EQ(PAGE - n, s->ev[i].res);
		EXPECT_DATA(s, n, 5 * PAGE, PAGE - n);
	}
}

/* What is read in parts is one read. */
TEST_F(page, comes_after_page)
{
	struct scene *s = &self->s;
	unsigned int i;

	for (i = 0; i < 4; i++) {
		testdev_cmd("b0 mode now");
		ASSERT_EQ(PAGE, pread(self->fd, buf_of(s, 100), PAGE, 2 * i * PAGE));
		testdev_cmd("b0 mode hang");
	}
	/* Of eight pages, each second is there. */
	submit(_metadata, s, 0, IOCB_CMD_PREAD, self->fd, 8 * PAGE, 0);
	for (i = 0; i < 4; i++) {
		/* One after another, or several at once. */
		ASSERT_TRUE(wait_for(testdev_stat("b0", "held") || MOVED(&s->before, completed)));
		if (!testdev_stat("b0", "held"))
			break;
		EXPECT_NO_EVENT(s);
		testdev_cmd("b0 complete all");
	}
	EXPECT_NEXT(s, 0, 8 * PAGE);
	EXPECT_DATA(s, 0, 0, 8 * PAGE);
	/* A worker that parks it counts that afterwards. */
	EXPECT_TRUE(wait_for(MOVED(&s->before, parked)));
}

/* The disk ends before the read does. */
TEST_F(page, is_the_last)
{
	struct scene *s = &self->s;

	submit(_metadata, s, 0, IOCB_CMD_PREAD, self->fd, 4 * PAGE, TESTDEV_DISK_SIZE - PAGE);
	testdev_cmd("b0 wait held 1");
	EXPECT_NO_EVENT(s);
	testdev_cmd("b0 complete all");
	EXPECT_NEXT(s, 0, PAGE);
	EXPECT_EQ(-1, filled_check(buf_of(s, 1), 3 * PAGE, CANARY));
}

/* An error is the reader's. */
TEST_F(page, cannot_be_read)
{
	struct scene *s = &self->s;

	submit(_metadata, s, 0, IOCB_CMD_PREAD, self->fd, PAGE, 0);
	testdev_cmd("b0 wait held 1");
	EXPECT_PARKED(1, s);
	testdev_cmd("b0 mode now");
	testdev_cmd("b0 fail all %d", EIO);
	ASSERT_EQ(1, aio_wait(&s->aio, 1, s->ev));
	/* It is tried once more, as read(2) does when a page was read ahead. */
	if (s->ev[0].res != -EIO) {
		EXPECT_EVENT(&s->ev[0], &s->io[0], PAGE);
		EXPECT_DATA(s, 0, 0, PAGE);
	}
}

/* Vectors are the request's own as soon as it is submitted. */
TEST_F(page, of_a_vector)
{
	struct scene *s = &self->s;
	struct iovec iov[16];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(iov); i++) {
		iov[i].iov_base = buf_of(s, 2 * i);
		iov[i].iov_len = 256;
	}
	iocb_prep(&s->io[0], IOCB_CMD_PREADV, self->fd, iov, ARRAY_SIZE(iov), 0);
	ASSERT_EQ(1, aio_submit_one(&s->aio, &s->io[0]));
	memset(iov, 0xff, sizeof(iov));
	testdev_cmd("b0 wait held 1");
	testdev_cmd("b0 complete all");
	EXPECT_NEXT(s, 0, PAGE);
	for (i = 0; i < ARRAY_SIZE(iov); i++)
		EXPECT_DATA(s, 2 * i, 256 * i, 256);
}

/* Memory that isn't there, or is held, is waited for by nobody else. */
TEST_F(page, into_memory_that_is_not_there)
{
	const unsigned int nr = 16;
	char *there = map_pages(2 * PAGE);
	struct scene *s = &self->s;
	int uffd = uffd_open();
	unsigned int i;

	ASSERT_LE(0, uffd);
	ASSERT_EQ(0, uffd_missing(uffd, there, PAGE));
	for (i = 0; i < 2; i++) {
		iocb_prep(&s->io[i], IOCB_CMD_PREAD, self->fd, there + i * PAGE, PAGE,
			  2 * i * PAGE);
		ASSERT_EQ(1, aio_submit_one(&s->aio, &s->io[i]));
	}
	for (; i < nr; i++)
		submit(_metadata, s, i, IOCB_CMD_PREAD, self->fd, PAGE, 2 * i * PAGE);
	testdev_cmd("b0 wait held %u", nr);
	EXPECT_PARKED(nr, s);
	testdev_cmd("b0 complete all");
	ASSERT_EQ(nr - 1, aio_wait(&s->aio, nr - 1, s->ev));
	for (i = 0; i < nr - 1; i++) {
		EXPECT_EVENT(&s->ev[i], event_iocb(&s->ev[i]), PAGE);
		EXPECT_NE(&s->io[0], event_iocb(&s->ev[i]));
	}
	EXPECT_EQ(-1, pattern_check(there + PAGE, PAGE, 2 * PAGE, SEED));
	ASSERT_TRUE(uffd_wait(uffd));
	EXPECT_NO_EVENT(s);
	ASSERT_EQ(0, uffd_fill(uffd, there, s->buf));
	EXPECT_NEXT(s, 0, PAGE);
	EXPECT_EQ(-1, pattern_check(there, PAGE, 0, SEED));
	for (i = 2; i < nr; i++)
		EXPECT_DATA(s, i, 2 * i * PAGE, PAGE);
	close(uffd);
}

/* The page may come when it likes, or never. */
TEST_F(page, is_waited_for_no_more)
{
	struct scene *s = &self->s;

	submit(_metadata, s, 0, IOCB_CMD_PREAD, self->fd, PAGE, 0);
	submit(_metadata, s, 1, IOCB_CMD_PREAD, self->fd, PAGE, 2 * PAGE);
	testdev_cmd("b0 wait held 2");
	EXPECT_PARKED(2, s);
	ASSERT_EQ(0, aio_cancel(&s->aio, &s->io[0]));
	EXPECT_NEXT(s, 0, -ECANCELED);
	EXPECT_EQ(-EINVAL, aio_cancel(&s->aio, &s->io[0]));
	EXPECT_NO_EVENT(s);
	testdev_cmd("b0 complete all");
	EXPECT_NEXT(s, 1, PAGE);
	EXPECT_DATA(s, 1, 2 * PAGE, PAGE);
	EXPECT_EQ(-1, filled_check(buf_of(s, 0), PAGE, CANARY));
	EXPECT_NO_EVENT(s);
}

/* A context ends while its requests wait for pages that don't come. */
TEST_F(page, is_not_waited_for_by_destroy)
{
	struct scene *s = &self->s;
	unsigned int i;

	for (i = 0; i < EVENTS / 2; i++)
		submit(_metadata, s, i, IOCB_CMD_PREAD, self->fd, PAGE, 2 * i * PAGE);
	EXPECT_PARKED(EVENTS / 2, s);
	ASSERT_EQ(0, aio_destroy(&s->aio, s->aio.ctx));
	s->aio.ctx = 0;
	EXPECT_EQ(EVENTS / 2, testdev_stat("b0", "held"));
	EXPECT_EQ(-1, filled_check(s->buf, EVENTS / 2 * PAGE, CANARY));
	aio_expect_no_leak(_metadata, &s->aio);
	testdev_cmd("b0 complete all");
	EXPECT_EQ(-1, filled_check(s->buf, EVENTS / 2 * PAGE, CANARY));
}

/* The same of a process. */
TEST_F(page, is_not_waited_for_by_exit)
{
	struct scene *s = &self->s;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		struct iocb *iop = &s->io[0];
		aio_context_t ctx = 0;
		int dev = raio_open();

		iocb_prep(iop, IOCB_CMD_PREAD, self->fd, s->buf, PAGE, 0);
		_exit(raio_setup(dev, 1, &ctx) || raio_submit(dev, ctx, 1, &iop) != 1 ||
		      testdev_try("b0 wait held 1") ||
		      !wait_for(MOVED(&s->before, parked) == 1));
	}
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_EQ(1, testdev_stat("b0", "held"));
}

/* The descriptor is gone, the file isn't. */
TEST_F(page, of_a_file_that_was_closed)
{
	struct scene *s = &self->s;
	int fd = dup(self->fd);

	ASSERT_LE(0, fd);
	submit(_metadata, s, 0, IOCB_CMD_PREAD, fd, PAGE, 0);
	close(fd);
	testdev_cmd("b0 wait held 1");
	testdev_cmd("b0 complete all");
	EXPECT_NEXT(s, 0, PAGE);
	EXPECT_DATA(s, 0, 0, PAGE);
}

/* Pages that come while it is decided whether to wait for them, from another processor. */
TEST_F_TIMEOUT(page, storm, 240)
{
	const unsigned int rounds = scaled(300), nr = 16;
	struct scene *s = &self->s;
	struct iocb *iop[16];
	unsigned int round, i;
	uint64_t dice = SEED;

	pin_to_cpu(1);
	for (round = 0; round < rounds; round++) {
		testdev_cmd(round % 2 ? "b0 mode softirq" : "b0 mode timer %u",
			    1000 + (unsigned int)(next_random(&dice) % 20000));
		ASSERT_EQ(0, posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED));
		for (i = 0; i < nr; i++) {
			/* Some of the same page, and some of several. */
			const unsigned int page = next_random(&dice) % 24;
			const unsigned int len = 1 + next_random(&dice) % PAGE;

			iocb_prep(&s->io[i], IOCB_CMD_PREAD, self->fd, buf_of(s, 2 * i), len,
				  page * PAGE + PAGE / 2);
			iop[i] = &s->io[i];
		}
		ASSERT_EQ(nr, aio_submit(&s->aio, nr, iop));
		ASSERT_EQ(nr, aio_wait(&s->aio, nr, s->ev));
		for (i = 0; i < nr; i++) {
			const struct iocb *io = event_iocb(&s->ev[i]);

			EXPECT_EQ(io->aio_nbytes, s->ev[i].res);
			EXPECT_EQ(-1, pattern_check((void *)(uintptr_t)io->aio_buf, s->ev[i].res,
						    io->aio_offset, SEED));
		}
	}
	TH_LOG("%llu parked, %llu kicked", (unsigned long long)MOVED(&s->before, parked),
	       (unsigned long long)MOVED(&s->before, kicked));
	EXPECT_LT(rounds, MOVED(&s->before, parked));
}

/* Who doesn't want to wait isn't made to. */
TEST_F(page, is_not_waited_for_with_nowait)
{
	struct scene *s = &self->s;

	iocb_prep(&s->io[0], IOCB_CMD_PREAD, self->fd, s->buf, PAGE, 0);
	s->io[0].aio_rw_flags = RWF_NOWAIT;
	EXPECT_RESULT(-EAGAIN, &s->aio, &s->io[0]);
	EXPECT_MOVED(0, &s->before, punted);
}

/*
 * With kernel AIO the event is there when submit returns. Who knows that, and
 * asks for no event but gives it time, gets it: libaio's own tests do.
 */
TEST_F(page, is_waited_for_in_getevents)
{
	struct __kernel_timespec none = { }, soon = { .tv_nsec = MS }, late = { .tv_sec = 600 };
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	struct scene *s = &self->s;
	long long begin;

	submit(_metadata, s, 0, IOCB_CMD_PREAD, self->fd, PAGE, 0);
	EXPECT_EQ(0, aio_getevents(&s->aio, 0, 1, s->ev, &none));
	EXPECT_EQ(0, aio_getevents(&s->aio, 0, 1, s->ev, NULL));
	EXPECT_EQ(0, aio_getevents(&s->aio, 0, 0, s->ev, &late));
	begin = now_ns();
	EXPECT_EQ(0, aio_getevents(&s->aio, 0, 1, s->ev, &soon));
	EXPECT_LE(MS, now_ns() - begin);
	testdev_cmd("b0 wait held 1");
	testdev_cmd("b0 mode timer %lld", 20 * MS);
	submit(_metadata, s, 1, IOCB_CMD_PREAD, self->fd, PAGE, 2 * PAGE);
	ASSERT_EQ(1, aio_getevents(&s->aio, 0, 2, s->ev, &late));
	EXPECT_EVENT(&s->ev[0], &s->io[1], PAGE);
	EXPECT_DATA(s, 1, 2 * PAGE, PAGE);
	/* An event is there, so it isn't waited for the other. */
	submit(_metadata, s, 2, IOCB_CMD_PREAD, zero, PAGE, 0);
	ASSERT_EQ(1, aio_getevents(&s->aio, 0, 2, s->ev, &late));
	EXPECT_EVENT(&s->ev[0], &s->io[2], PAGE);
	testdev_cmd("b0 complete all");
	EXPECT_NEXT(s, 0, PAGE);
	EXPECT_EQ(0, aio_getevents(&s->aio, 0, 1, s->ev, &late));
	close(zero);
}

/* What kernel AIO doesn't wait for in submit, either, isn't. */
TEST_F(page, of_others_is_not_waited_for_in_getevents)
{
	struct __kernel_timespec late = { .tv_sec = 600 };
	int fd = testdev_open_direct("b0"), c1 = testdev_open("c1", 0), idle[2];
	struct scene *s = &self->s;

	ASSERT_EQ(0, pipe2(idle, O_CLOEXEC));
	testdev_cmd("c1 mode hang");
	submit(_metadata, s, 0, IOCB_CMD_PREAD, fd, PAGE, 0);
	iocb_prep(&s->io[1], IOCB_CMD_FSYNC, c1, NULL, 0, 0);
	ASSERT_EQ(1, aio_submit_one(&s->aio, &s->io[1]));
	iocb_prep(&s->io[2], IOCB_CMD_POLL, idle[0], (void *)POLLIN, 0, 0);
	ASSERT_EQ(1, aio_submit_one(&s->aio, &s->io[2]));
	testdev_cmd("b0 wait held 1");
	testdev_cmd("c1 wait held 1");
	EXPECT_EQ(0, aio_getevents(&s->aio, 0, 3, s->ev, &late));
	close(idle[1]);
	EXPECT_NEXT(s, 2, POLLHUP);
	testdev_cmd("b0 complete all");
	EXPECT_NEXT(s, 0, PAGE);
	testdev_cmd("c1 complete all");
	EXPECT_NEXT(s, 1, 0);
	close(idle[0]);
	close(c1);
	close(fd);
}

/* Whenever it is asked, while a worker is at it or just has been. */
TEST_F_TIMEOUT(page, or_its_end_is_waited_for_in_getevents, 120)
{
	struct __kernel_timespec late = { .tv_sec = 600 };
	int fd = temp_file(ext4_dir(), O_RDWR);
	const unsigned int rounds = scaled(3000);
	struct scene *s = &self->s;
	unsigned int round, wait = 0, there = 0, step, i;
	struct raio_ring *ring;
	uint64_t dice = SEED;
	char all[16];

	ASSERT_LE(0, fd);
	ring = aio_ring(s->aio.ctx);
	/* Here, and the worker elsewhere. */
	pin_to_cpu(0);
	snprintf(all, sizeof(all), "%x", (1 << sysconf(_SC_NPROCESSORS_ONLN)) - 1);
	ASSERT_EQ(0, write_str(WORKQUEUE_CPUS, strcmp(all, "1") ? "2" : "1"));
	for (round = 0; round < rounds; round++) {
		submit(_metadata, s, 0, IOCB_CMD_PWRITE, fd, 4, 4 * (round % 1000));
		for (i = 0; i < wait; i++)
			__asm__ volatile("" ::: "memory");
		/* About as long as it takes. */
		step = next_random(&dice) % 256;
		if (__atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) != ring->head) {
			wait -= MIN(wait, step);
			there++;
		} else {
			wait += step;
		}
		if (aio_getevents(&s->aio, 0, 1, s->ev, &late) != 1)
			break;
		EXPECT_EVENT(&s->ev[0], &s->io[0], 4);
	}
	EXPECT_EQ(rounds, round);
	TH_LOG("%u of %u were there", there, rounds);
	EXPECT_EQ(0, write_str(WORKQUEUE_CPUS, all));
	close(fd);
}

/* Direct transfers, of which the disk says that they would have to wait. */

FIXTURE(direct)
{
	struct scene s;
};

FIXTURE_VARIANT(direct)
{
	const char *dev;
	/* Until it is waited for. */
	unsigned int refusals;
};

/* It says that it is ready each time. */
FIXTURE_VARIANT_ADD(direct, c0)
{
	.dev = "c0", .refusals = 16,
};

FIXTURE_VARIANT_ADD(direct, b0)
{
	.dev = "b0", .refusals = 1,
};

FIXTURE_SETUP(direct)
{
	scene_begin(_metadata, &self->s);
	testdev_cmd("c0 ready %d", POLLIN | POLLOUT);
}

FIXTURE_TEARDOWN(direct)
{
	scene_end(_metadata, &self->s);
}

TEST_F(direct, waits)
{
	struct scene *s = &self->s;
	int fd = testdev_open_direct(variant->dev);
	unsigned int i;

	testdev_cmd("%s nowait all", variant->dev);
	for (i = 0; i < EVENTS / 2; i++) {
		pattern_fill(buf_of(s, i), PAGE, i * PAGE, SEED);
		submit(_metadata, s, i, IOCB_CMD_PWRITE, fd, PAGE, i * PAGE);
	}
	ASSERT_EQ(EVENTS / 2, aio_wait(&s->aio, EVENTS / 2, s->ev));
	for (i = 0; i < EVENTS / 2; i++)
		EXPECT_EQ(PAGE, s->ev[i].res);
	EXPECT_EQ(EVENTS / 2 * variant->refusals, testdev_stat(variant->dev, "refused"));
	EXPECT_MOVED(EVENTS / 2 * variant->refusals, &s->before, punted);
	memset(s->buf, CANARY, EVENTS * PAGE);
	for (i = 0; i < EVENTS / 2; i++)
		submit(_metadata, s, i, IOCB_CMD_PREAD, fd, PAGE, i * PAGE);
	ASSERT_EQ(EVENTS / 2, aio_wait(&s->aio, EVENTS / 2, s->ev));
	for (i = 0; i < EVENTS / 2; i++)
		EXPECT_EQ(PAGE, s->ev[i].res);
	EXPECT_EQ(-1, pattern_check(s->buf, EVENTS / 2 * PAGE, 0, SEED));
	EXPECT_EQ(EVENTS * variant->refusals, testdev_stat(variant->dev, "refused"));
	close(fd);
}

/* It is the file's then, and cancelled as the file says. */
TEST_F(direct, is_cancelled_by_its_file)
{
	struct scene *s = &self->s;
	int fd = testdev_open_direct(variant->dev);

	testdev_cmd("%s nowait all", variant->dev);
	testdev_cmd("%s mode hang", variant->dev);
	testdev_cmd("c0 cancel yes");
	submit(_metadata, s, 0, IOCB_CMD_PREAD, fd, PAGE, 0);
	testdev_cmd("%s wait held 1", variant->dev);
	if (*variant->dev == 'c') {
		ASSERT_TRUE(wait_for(aio_cancel(&s->aio, &s->io[0]) == 0));
		EXPECT_NEXT(s, 0, -ECANCELED);
		EXPECT_EQ(1, testdev_stat(variant->dev, "cancelled"));
	} else {
		EXPECT_EQ(-EAGAIN, aio_cancel(&s->aio, &s->io[0]));
		EXPECT_NO_EVENT(s);
		testdev_cmd("%s complete all", variant->dev);
		EXPECT_NEXT(s, 0, PAGE);
	}
	close(fd);
}

/* A file system on a disk that has place for few requests, and holds them. */

#define PLACES		4
#define QUEUE		"/sys/block/raio_testb0/queue/"

FIXTURE(crowded)
{
	struct scene s;
	char dir[64];
	char places[16];
	int fd;
};

FIXTURE_VARIANT(crowded)
{
	unsigned int block;
	const char *scheduler;
};

FIXTURE_VARIANT_ADD(crowded, blocks)
{
	.block = PAGE, .scheduler = "none",
};

/* Of which a page is several. */
FIXTURE_VARIANT_ADD(crowded, small_blocks)
{
	.block = 1024, .scheduler = "none",
};

/* Which lets nobody have all places. */
FIXTURE_VARIANT_ADD(crowded, scheduled)
{
	.block = PAGE, .scheduler = "bfq",
};

FIXTURE_SETUP(crowded)
{
	char cmd[160], path[80];

	scene_begin(_metadata, &self->s);
	read_text(QUEUE "nr_requests", self->places, sizeof(self->places));
	snprintf(cmd, sizeof(cmd), "mkfs.ext4 -q -F -E lazy_itable_init=0 -b %u %s",
		 variant->block, testdev_path("b0"));
	ASSERT_EQ(0, system(cmd));
	snprintf(self->dir, sizeof(self->dir), "%s/raio-crowded", tmpfs_dir());
	mkdir(self->dir, 0700);
	ASSERT_EQ(0, mount(testdev_path("b0"), self->dir, "ext4", MS_NOATIME, NULL));
	snprintf(path, sizeof(path), "%s/file", self->dir);
	self->fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
	ASSERT_LE(0, self->fd);
	pattern_fill(self->s.buf, EVENTS * PAGE, 0, SEED);
	ASSERT_EQ(EVENTS * PAGE, pwrite(self->fd, self->s.buf, EVENTS * PAGE, 0));
	/* What is written later changes nothing but data. */
	ASSERT_EQ(0, fsync(self->fd));
	ASSERT_EQ(0, write_str(QUEUE "scheduler", variant->scheduler));
	ASSERT_EQ(0, write_str(QUEUE "nr_requests", "4"));
	stats_now(_metadata, &self->s.before);
}

FIXTURE_TEARDOWN(crowded)
{
	testdev_cmd("b0 mode softirq");
	testdev_cmd("b0 complete all");
	close(self->fd);
	/* First: to choose a scheduler sets the number, but not how many there are. */
	EXPECT_EQ(0, write_str(QUEUE "nr_requests", self->places));
	EXPECT_EQ(0, write_str(QUEUE "scheduler", "none"));
	scene_end(_metadata, &self->s);
	EXPECT_TRUE(wait_for(!umount(self->dir)));
	rmdir(self->dir);
}

/* Reads, or writes, so many in a call. */
static void crowd(struct __test_metadata *_metadata, struct scene *s, int fd, int opcode,
		  unsigned int nr)
{
	struct iocb *list[EVENTS];
	unsigned int i;

	stats_now(_metadata, &s->before);
	testdev_cmd("b0 mode hang");
	for (i = 0; i < EVENTS; i++) {
		/* None beside the one before. */
		const unsigned int at = i * 9 % EVENTS;

		iocb_prep(&s->io[i], opcode, fd, buf_of(s, at), PAGE, at * PAGE);
		list[i] = &s->io[i];
	}
	for (i = 0; i < EVENTS; i += nr)
		ASSERT_EQ(nr, aio_submit(&s->aio, nr, &list[i]));
	EXPECT_LE(EVENTS - PLACES, MOVED(&s->before, punted));
	testdev_cmd("b0 mode softirq");
	testdev_cmd("b0 complete all");
	ASSERT_EQ(EVENTS, aio_wait(&s->aio, EVENTS, s->ev));
	for (i = 0; i < EVENTS; i++)
		EXPECT_EQ(PAGE, s->ev[i].res);
}

TEST_F(crowded, submit_goes_on)
{
	struct scene *s = &self->s;
	unsigned int nr;

	for (nr = 1; nr <= EVENTS; nr *= EVENTS) {
		memset(s->buf, CANARY, EVENTS * PAGE);
		crowd(_metadata, s, self->fd, IOCB_CMD_PREAD, nr);
		EXPECT_EQ(-1, pattern_check(s->buf, EVENTS * PAGE, 0, SEED));
		pattern_fill(s->buf, EVENTS * PAGE, 0, SEED + nr);
		crowd(_metadata, s, self->fd, IOCB_CMD_PWRITE, nr);
		memset(s->buf, CANARY, EVENTS * PAGE);
		ASSERT_EQ(EVENTS * PAGE, pread(self->fd, s->buf, EVENTS * PAGE, 0));
		EXPECT_EQ(-1, pattern_check(s->buf, EVENTS * PAGE, 0, SEED + nr));
		pattern_fill(s->buf, EVENTS * PAGE, 0, SEED);
		ASSERT_EQ(EVENTS * PAGE, pwrite(self->fd, s->buf, EVENTS * PAGE, 0));
	}
}

/* Who has said that he won't wait is told so. */
TEST_F(crowded, nowait)
{
	struct scene *s = &self->s;
	unsigned int i;

	testdev_cmd("b0 mode hang");
	for (i = 0; i < 2 * PLACES; i++)
		submit(_metadata, s, i, IOCB_CMD_PREAD, self->fd, PAGE, i * 9 * PAGE);
	testdev_cmd("b0 wait held %d", PLACES);
	iocb_prep(&s->io[i], IOCB_CMD_PWRITE, self->fd, buf_of(s, i), PAGE, i * 9 * PAGE);
	s->io[i].aio_rw_flags = RWF_NOWAIT;
	ASSERT_EQ(1, aio_submit_one(&s->aio, &s->io[i]));
	EXPECT_NEXT(s, i, -EAGAIN);
	testdev_cmd("b0 mode softirq");
	testdev_cmd("b0 complete all");
	ASSERT_EQ(2 * PLACES, aio_wait(&s->aio, 2 * PLACES, s->ev));
	for (i = 0; i < 2 * PLACES; i++)
		EXPECT_EQ(PAGE, s->ev[i].res);
}

/*
 * With the first of a mount its file system makes a queue for what comes after direct
 * transfers, which takes a thread, for which somebody has to sleep.
 */
TEST_F(crowded, first_sleeps_elsewhere)
{
	struct scene *s = &self->s;
	struct rusage before, after;
	unsigned int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, getrusage(RUSAGE_THREAD, &before));
		submit(_metadata, s, i, IOCB_CMD_PREAD, self->fd, variant->block, 0);
		ASSERT_EQ(0, getrusage(RUSAGE_THREAD, &after));
		EXPECT_EQ(before.ru_nvcsw, after.ru_nvcsw);
		EXPECT_NEXT(s, i, variant->block);
		EXPECT_MOVED(1, &s->before, punted);
	}
}

/*
 * Who sleeps during a call has no places any more: others have taken them. Most of those that
 * come later go to a worker to have their time noted; for the others see iopoll (scarce).
 */
TEST_F(crowded, slept_meanwhile)
{
	struct scene *s = &self->s;
	struct call call = { .kind = SUBMIT, .aio = s->aio, .nr = PLACES };
	struct iocb **rest = map_pages(PAGE);
	char *array = map_pages(2 * PAGE);
	const int uffd = uffd_open();
	unsigned int i;

	ASSERT_LE(0, uffd);
	ASSERT_EQ(0, uffd_missing(uffd, array + PAGE, PAGE));
	first_transfer(_metadata, self->dir);
	for (i = 0; i < 3 * PLACES; i++)
		iocb_prep(&s->io[i], IOCB_CMD_PWRITE, self->fd, buf_of(s, i), PAGE, i * 9 * PAGE);
	call.iocbs = (struct iocb **)(array + PAGE) - PLACES / 2;
	for (i = 0; i < PLACES / 2; i++) {
		call.iocbs[i] = &s->io[i];
		rest[i] = &s->io[PLACES / 2 + i];
	}
	testdev_cmd("b0 mode hang");
	call_start(_metadata, &call);
	ASSERT_TRUE(uffd_wait(uffd));
	EXPECT_SLEEPS(&call);
	for (i = PLACES; i < 3 * PLACES; i++)
		ASSERT_EQ(1, aio_submit_one(&s->aio, &s->io[i]));
	ASSERT_EQ(0, uffd_fill(uffd, array + PAGE, rest));
	EXPECT_RETURNS(PLACES, &call);
	testdev_cmd("b0 mode softirq");
	testdev_cmd("b0 complete all");
	ASSERT_EQ(3 * PLACES, aio_wait(&s->aio, 3 * PLACES, s->ev));
	for (i = 0; i < 3 * PLACES; i++)
		EXPECT_EQ(PAGE, s->ev[i].res);
	close(uffd);
}

/* Pages of a regular file, of which the file system may want something else meanwhile. */

FIXTURE(file)
{
	struct scene s;
	struct loopfs fs;
	int fd;
};

#define FILE_PAGES	8

FIXTURE_SETUP(file)
{
	struct scene *s = &self->s;

	self->fd = -1;
	scene_begin(_metadata, s);
	loopfs_begin(_metadata, &self->fs);
	self->fd = temp_file(self->fs.dir, O_RDWR);
	ASSERT_LE(0, self->fd);
	pattern_fill(s->buf, FILE_PAGES * PAGE, 0, SEED);
	ASSERT_EQ(FILE_PAGES * PAGE, pwrite(self->fd, s->buf, FILE_PAGES * PAGE, 0));
	ASSERT_EQ(0, fsync(self->fd));
	memset(s->buf, CANARY, EVENTS * PAGE);
	ASSERT_EQ(0, posix_fadvise(self->fd, 0, 0, POSIX_FADV_RANDOM));
	ASSERT_EQ(0, posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED));
	testdev_cmd("b0 reset");
	testdev_cmd("b0 mode hang");
	submit(_metadata, s, 0, IOCB_CMD_PREAD, self->fd, PAGE, 3 * PAGE);
	testdev_cmd("b0 wait held 1");
	EXPECT_PARKED(1, s);
}

FIXTURE_TEARDOWN(file)
{
	testdev_reset();
	if (self->fd >= 0)
		close(self->fd);
	loopfs_end(_metadata, &self->fs);
	scene_end(_metadata, &self->s);
}

static bool is_a_hole(const char *page)
{
	return !*page && !memcmp(page, page + 1, PAGE - 1);
}

static void *truncate_thread(void *data)
{
	const int *fd = data;

	return (void *)ret_errno(ftruncate(*fd, PAGE));
}

static void *punch_thread(void *data)
{
	const int *fd = data;

	return (void *)ret_errno(fallocate(*fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					   2 * PAGE, 4 * PAGE));
}

/* Truncates or punches, which waits for the page as the read does, and lets both go on. */
static void meanwhile(struct __test_metadata *_metadata, struct scene *s, int *fd,
		      void *(*f)(void *data))
{
	pthread_t thread;
	void *ret;

	ASSERT_EQ(0, pthread_create(&thread, NULL, f, fd));
	/* Whether it has come so far or not. */
	sched_yield();
	EXPECT_NO_EVENT(s);
	testdev_cmd("b0 mode now");
	testdev_cmd("b0 complete all");
	pthread_join(thread, &ret);
	EXPECT_EQ(NULL, ret);
	ASSERT_EQ(1, aio_wait(&s->aio, 1, s->ev));
}

/* Who is cancelled leaves memory where it waits: so many of a user may, until the page comes. */
TEST_F(file, cancelled_is_bounded)
{
	struct scene *s = &self->s;
	unsigned int i;

	for (i = 0; i <= CANCELLED; i++) {
		submit(_metadata, s, 1, IOCB_CMD_PREAD, self->fd, PAGE, 3 * PAGE);
		EXPECT_PARKED(i + 2, s);
		if (i == CANCELLED)
			break;
		ASSERT_EQ(0, aio_cancel(&s->aio, &s->io[1]));
		EXPECT_NEXT(s, 1, -ECANCELED);
	}
	EXPECT_EQ(-EAGAIN, aio_cancel(&s->aio, &s->io[1]));
	testdev_cmd("b0 complete all");
	ASSERT_EQ(2, aio_wait(&s->aio, 2, s->ev));
	EXPECT_EQ(PAGE, s->ev[0].res);
	EXPECT_EQ(PAGE, s->ev[1].res);

	/* It has come. */
	submit(_metadata, s, 1, IOCB_CMD_PREAD, self->fd, PAGE, 5 * PAGE);
	EXPECT_PARKED(i + 3, s);
	EXPECT_EQ(0, aio_cancel(&s->aio, &s->io[1]));
	EXPECT_NEXT(s, 1, -ECANCELED);
}

TEST_F(file, truncated)
{
	struct scene *s = &self->s;

	meanwhile(_metadata, s, &self->fd, truncate_thread);
	EXPECT_TRUE(s->ev[0].res == 0 || s->ev[0].res == PAGE);
	if (s->ev[0].res)
		EXPECT_DATA(s, 0, 3 * PAGE, PAGE);
	submit(_metadata, s, 1, IOCB_CMD_PREAD, self->fd, PAGE, 3 * PAGE);
	EXPECT_NEXT(s, 1, 0);
}

TEST_F(file, punched)
{
	struct scene *s = &self->s;

	meanwhile(_metadata, s, &self->fd, punch_thread);
	EXPECT_EQ(PAGE, s->ev[0].res);
	EXPECT_TRUE(is_a_hole(buf_of(s, 0)) ||
		    pattern_check(buf_of(s, 0), PAGE, 3 * PAGE, SEED) == -1);
	submit(_metadata, s, 1, IOCB_CMD_PREAD, self->fd, PAGE, 3 * PAGE);
	EXPECT_NEXT(s, 1, PAGE);
	EXPECT_TRUE(is_a_hole(buf_of(s, 1)));
}

/* It is the last who has it open. */
TEST_F(file, closed)
{
	struct scene *s = &self->s;

	close(self->fd);
	self->fd = -1;
	EXPECT_NO_EVENT(s);
	testdev_cmd("b0 mode now");
	testdev_cmd("b0 complete all");
	EXPECT_NEXT(s, 0, PAGE);
	EXPECT_DATA(s, 0, 3 * PAGE, PAGE);
}

/* A file system that asks its server, which keeps those waiting who ask. */

FIXTURE(fuse)
{
	struct scene s;
	struct fuse fuse;
};

FIXTURE_SETUP(fuse)
{
	scene_begin(_metadata, &self->s);
	fuse_begin(_metadata, &self->fuse);
}

FIXTURE_TEARDOWN(fuse)
{
	become(0, 0);
	fuse_end(&self->fuse);
	scene_end(_metadata, &self->s);
}

#define SUBMITTER	1000
#define LATER		2000

/* It is read and written as the submitter was when it submitted. */
TEST_F(fuse, credentials_of_the_submitter)
{
	const uid_t uids[] = { 0, SUBMITTER, 0, LATER, SUBMITTER, 0 };
	struct scene *s = &self->s;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(uids); i++) {
		int opcode = i % 2 ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;

		ASSERT_EQ(0, become(uids[i], uids[i]));
		submit(_metadata, s, i, opcode, self->fuse.fd, PAGE, 0);
		ASSERT_EQ(0, become(0, 0));
		EXPECT_NEXT(s, i, PAGE);
		ASSERT_EQ(i + 1, fuse_nr_calls(&self->fuse));
		EXPECT_EQ(i % 2 ? FUSE_WRITE : FUSE_READ, self->fuse.calls[i].opcode);
		EXPECT_EQ(uids[i], self->fuse.calls[i].uid);
		EXPECT_EQ(uids[i], self->fuse.calls[i].gid);
	}
	EXPECT_LE(ARRAY_SIZE(uids), MOVED(&s->before, punted));
}

static void submit_poll(struct __test_metadata *_metadata, struct scene *s, unsigned int i, int fd)
{
	struct iocb *iop = &s->io[i];

	iocb_prep(iop, IOCB_CMD_POLL, fd, (void *)POLLIN, 0, 0);
	ASSERT_EQ(1, aio_submit(&s->aio, 1, &iop));
}

/* To poll it is to ask the server, too: that isn't waited for, and is done as the submitter. */
TEST_F(fuse, polls_of_the_submitter)
{
	struct scene *s = &self->s;
	unsigned int n;

	fuse_hold(&self->fuse, true);
	ASSERT_EQ(0, become(SUBMITTER, SUBMITTER));
	submit_poll(_metadata, s, 0, self->fuse.fd);
	ASSERT_EQ(0, become(0, 0));
	ASSERT_TRUE(wait_for(fuse_nr_calls(&self->fuse) == 1));
	for (n = 0; n < 8; n++) {
		fuse_answer_poll(&self->fuse, n, 0);
		/* Now who has asked will look again by itself, or won't. */
		grace_periods();
		/* It is told of when it is being watched, and not before. */
		ASSERT_TRUE(wait_for(({
			fuse_notify_poll(&self->fuse, n);
			fuse_nr_calls(&self->fuse) == n + 2;
		})));
	}
	fuse_answer_poll(&self->fuse, n, POLLIN);
	EXPECT_NEXT(s, 0, POLLIN);
	EXPECT_EQ(n + 1, fuse_nr_calls(&self->fuse));
	for (n = 0; n < fuse_nr_calls(&self->fuse); n++) {
		EXPECT_EQ(FUSE_POLL, self->fuse.calls[n].opcode);
		EXPECT_EQ(SUBMITTER, self->fuse.calls[n].uid);
	}
}

/* It is cancelled while the server is asked, and while it waits for that. */
TEST_F(fuse, polls_are_cancelled)
{
	struct scene *s = &self->s;
	unsigned int i;

	fuse_hold(&self->fuse, true);
	submit_poll(_metadata, s, 0, self->fuse.fd);
	ASSERT_TRUE(wait_for(fuse_nr_calls(&self->fuse) == 1));
	EXPECT_EQ(0, aio_cancel(&s->aio, &s->io[0]));
	EXPECT_NO_EVENT(s);
	fuse_answer_poll(&self->fuse, 0, POLLIN);
	EXPECT_NEXT(s, 0, -ECANCELED);

	for (i = 0; i < WORKERS; i++)
		submit(_metadata, s, i, IOCB_CMD_PREAD, self->fuse.fd, PAGE, 0);
	ASSERT_TRUE(wait_for(fuse_nr_calls(&self->fuse) == 1 + WORKERS));
	submit_poll(_metadata, s, i, self->fuse.fd);
	EXPECT_EQ(0, aio_cancel(&s->aio, &s->io[i]));
	EXPECT_NEXT(s, i, -ECANCELED);
	for (i = 0; i < WORKERS; i++)
		fuse_answer(&self->fuse, 1 + i, -EIO);
	ASSERT_EQ(WORKERS, aio_wait(&s->aio, WORKERS, s->ev));
	EXPECT_EQ(1 + WORKERS, fuse_nr_calls(&self->fuse));
}

/* All workers wait; what comes then waits for them, and can be cancelled until it has one. */
TEST_F(fuse, workers_are_bounded)
{
	struct scene *s = &self->s;
	unsigned int i, n;

	fuse_hold(&self->fuse, true);
	for (i = 0; i < EVENTS; i++)
		submit(_metadata, s, i, IOCB_CMD_PREAD, self->fuse.fd, PAGE, 0);
	/* Each that is answered makes room for one more, and for no other. */
	for (n = 0; n < 8; n++) {
		ASSERT_TRUE(wait_for(fuse_nr_calls(&self->fuse) >= WORKERS + n));
		EXPECT_EQ(WORKERS + n, fuse_nr_calls(&self->fuse));
		fuse_answer(&self->fuse, n, -EIO);
		ASSERT_EQ(1, aio_wait(&s->aio, 1, s->ev));
		EXPECT_EQ(-EIO, s->ev[0].res);
	}
	ASSERT_TRUE(wait_for(fuse_nr_calls(&self->fuse) == WORKERS + n));
	for (i = WORKERS + n; i < EVENTS; i++) {
		EXPECT_EQ(0, aio_cancel(&s->aio, &s->io[i]));
		EXPECT_NEXT(s, i, -ECANCELED);
	}
	for (i = n; i < WORKERS + n; i++)
		fuse_answer(&self->fuse, i, -EIO);
	ASSERT_EQ(WORKERS, aio_wait(&s->aio, WORKERS, s->ev));
	EXPECT_EQ(WORKERS + n, fuse_nr_calls(&self->fuse));
}

/*
 * Buffered writes of one file, each of which the file system would do with the
 * inode's lock, have one worker: the others are there for who else needs them.
 */
TEST_F(fuse, writes_of_a_file_take_turns)
{
	struct scene *s = &self->s;
	unsigned int i;

	fuse_hold(&self->fuse, true);
	for (i = 0; i < WORKERS; i++)
		submit(_metadata, s, i, IOCB_CMD_PWRITE, self->fuse.fd, PAGE, i * PAGE);
	ASSERT_TRUE(wait_for(fuse_nr_calls(&self->fuse) == 1));
	submit(_metadata, s, i, IOCB_CMD_PREAD, self->fuse.fd, PAGE, 0);
	ASSERT_TRUE(wait_for(fuse_nr_calls(&self->fuse) == 2));
	EXPECT_EQ(FUSE_READ, self->fuse.calls[1].opcode);
	fuse_answer(&self->fuse, 1, -EIO);
	EXPECT_NEXT(s, i, -EIO);
	/* One that waits behind another. */
	EXPECT_EQ(0, aio_cancel(&s->aio, &s->io[WORKERS - 1]));
	EXPECT_NEXT(s, WORKERS - 1, -ECANCELED);
	for (i = 0; i < WORKERS - 1; i++) {
		fuse_answer(&self->fuse, i ? i + 1 : 0, -EIO);
		EXPECT_NEXT(s, i, -EIO);
		if (i < WORKERS - 2)
			ASSERT_TRUE(wait_for(fuse_nr_calls(&self->fuse) == i + 3));
	}
}

/* Streams: pipes and sockets. */

FIXTURE(stream)
{
	struct scene s;
	/* To be read from, to be written to. */
	int fds[2];
	size_t room;
};

FIXTURE_VARIANT(stream)
{
	bool socket;
};

FIXTURE_VARIANT_ADD(stream, pipe)
{
	.socket = false,
};

FIXTURE_VARIANT_ADD(stream, socket)
{
	.socket = true,
};

FIXTURE_SETUP(stream)
{
	scene_begin(_metadata, &self->s);
	if (variant->socket)
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, self->fds));
	if (!variant->socket)
		ASSERT_EQ(0, pipe2(self->fds, O_CLOEXEC));
}

FIXTURE_TEARDOWN(stream)
{
	scene_end(_metadata, &self->s);
	close(self->fds[0]);
	close(self->fds[1]);
}

TEST_F(stream, read_waits_for_data)
{
	struct scene *s = &self->s;

	submit(_metadata, s, 0, IOCB_CMD_PREAD, self->fds[0], PAGE, 0);
	EXPECT_MOVED(1, &s->before, parked);
	EXPECT_NO_EVENT(s);
	ASSERT_EQ(5, write(self->fds[1], "hello", 5));
	EXPECT_NEXT(s, 0, 5);
	EXPECT_EQ(0, memcmp(s->buf, "hello", 5));
}

TEST_F(stream, read_waits_for_the_end)
{
	struct scene *s = &self->s;

	submit(_metadata, s, 0, IOCB_CMD_PREAD, self->fds[0], PAGE, 0);
	EXPECT_NO_EVENT(s);
	close(self->fds[1]);
	self->fds[1] = -1;
	EXPECT_NEXT(s, 0, 0);
}

/* Each gets something of its own, and nothing is lost. */
TEST_F(stream, many_reads)
{
	struct scene *s = &self->s;
	unsigned int i;

	for (i = 0; i < EVENTS; i++)
		submit(_metadata, s, i, IOCB_CMD_PREAD, self->fds[0], sizeof(i), 0);
	EXPECT_NO_EVENT(s);
	for (i = 0; i < EVENTS; i++)
		ASSERT_EQ(sizeof(i), write(self->fds[1], &i, sizeof(i)));
	ASSERT_EQ(EVENTS, aio_wait(&s->aio, EVENTS, s->ev));
	for (i = 0; i < EVENTS; i++) {
		unsigned int *seen = (unsigned int *)buf_of(s, i);

		EXPECT_EQ(sizeof(i), s->ev[i].res);
		ASSERT_GT(EVENTS, *seen);
		/* Found once. */
		EXPECT_EQ(0, s->io[*seen].aio_reserved2);
		s->io[*seen].aio_reserved2 = 1;
	}
}

/* All of it, as write(2) does. */
TEST_F(stream, write_waits_for_room)
{
	struct scene *s = &self->s;
	const size_t len = EVENTS * PAGE;
	char *seen = map_pages(len);
	size_t got;
	ssize_t n;

	pattern_fill(s->buf, len, 0, SEED);
	iocb_prep(&s->io[0], IOCB_CMD_PWRITE, self->fds[1], s->buf, len, 0);
	ASSERT_EQ(1, aio_submit_one(&s->aio, &s->io[0]));
	EXPECT_NO_EVENT(s);
	for (got = 0; got < len; got += n) {
		n = read(self->fds[0], seen + got, len - got);
		ASSERT_LT(0, n);
	}
	EXPECT_NEXT(s, 0, len);
	EXPECT_EQ(-1, pattern_check(seen, len, 0, SEED));
	EXPECT_LE(1, MOVED(&s->before, kicked));
}

TEST_F(stream, is_cancelled)
{
	struct scene *s = &self->s;
	unsigned int i;

	for (i = 0; i < 3; i++)
		submit(_metadata, s, i, IOCB_CMD_PREAD, self->fds[0], PAGE, 0);
	ASSERT_EQ(0, aio_cancel(&s->aio, &s->io[1]));
	EXPECT_NEXT(s, 1, -ECANCELED);
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	ASSERT_EQ(1, aio_wait(&s->aio, 1, s->ev));
	i = event_iocb(&s->ev[0]) - s->io;
	EXPECT_TRUE(i == 0 || i == 2);
	EXPECT_EQ(1, s->ev[0].res);
	ASSERT_TRUE(wait_for(aio_cancel(&s->aio, &s->io[2 - i]) == 0));
	EXPECT_NEXT(s, 2 - i, -ECANCELED);
}

TEST_F(stream, is_not_waited_for_by_destroy)
{
	struct scene *s = &self->s;
	unsigned int i;

	for (i = 0; i < EVENTS; i++)
		submit(_metadata, s, i, IOCB_CMD_PREAD, self->fds[0], PAGE, 0);
	ASSERT_EQ(0, aio_destroy(&s->aio, s->aio.ctx));
	s->aio.ctx = 0;
	/* Nobody is there who would take it. */
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	ASSERT_EQ(1, read(self->fds[0], s->buf, 1));
}

TEST_F(stream, nowait)
{
	struct scene *s = &self->s;

	iocb_prep(&s->io[0], IOCB_CMD_PREAD, self->fds[0], s->buf, PAGE, 0);
	s->io[0].aio_rw_flags = RWF_NOWAIT;
	EXPECT_RESULT(-EAGAIN, &s->aio, &s->io[0]);
	s->io[0].aio_rw_flags = 0;
	ASSERT_EQ(0, fcntl(self->fds[0], F_SETFL, O_NONBLOCK));
	EXPECT_RESULT(-EAGAIN, &s->aio, &s->io[0]);
	EXPECT_MOVED(0, &s->before, parked);
}

static unsigned int nr_sigpipes;

static void on_sigpipe(int sig)
{
	(void)sig;
	nr_sigpipes++;
}

/* Nobody will read any more: the writer is told as it would be by write(2). */
TEST_F(stream, write_without_a_reader)
{
	struct scene *s = &self->s;
	const size_t len = EVENTS * PAGE;
	long ret;

	signal(SIGPIPE, on_sigpipe);
	iocb_prep(&s->io[0], IOCB_CMD_PWRITE, self->fds[1], s->buf, len, 0);
	ASSERT_EQ(1, aio_submit_one(&s->aio, &s->io[0]));
	EXPECT_NO_EVENT(s);
	close(self->fds[0]);
	self->fds[0] = -1;
	/* The signal may come first. */
	do {
		ret = aio_wait(&s->aio, 1, s->ev);
	} while (ret == -EINTR);
	ASSERT_EQ(1, ret);
	/* What there was room for was written. */
	EXPECT_LT(0, s->ev[0].res);
	EXPECT_GT(len, s->ev[0].res);
	EXPECT_TRUE(wait_for(__atomic_load_n(&nr_sigpipes, __ATOMIC_RELAXED) == 1));
}

/* Wake-ups without end, from two processors, beside the retries. */
TEST_F_TIMEOUT(stream, storm, 120)
{
	const unsigned int rounds = scaled(20000);
	struct scene *s = &self->s;
	unsigned int i, left = 0, taken = 0, given = 0;
	bool busy[16] = { };
	long ret;

	pin_to_cpu(1);
	while (taken < rounds) {
		for (i = 0; i < ARRAY_SIZE(busy); i++) {
			if (busy[i])
				continue;
			submit(_metadata, s, i, IOCB_CMD_PREAD, self->fds[0], 1, 0);
			busy[i] = true;
			left++;
		}
		ret = write(self->fds[1], s->buf, 1 + given % ARRAY_SIZE(busy));
		ASSERT_LT(0, ret);
		given += ret;
		ret = aio_wait(&s->aio, 1, s->ev);
		ASSERT_EQ(1, ret);
		ret += aio_poll(&s->aio, EVENTS - 1, s->ev + 1);
		while (ret--) {
			i = event_iocb(&s->ev[ret]) - s->io;
			ASSERT_GT(ARRAY_SIZE(busy), i);
			ASSERT_TRUE(busy[i]);
			ASSERT_EQ(1, s->ev[ret].res);
			busy[i] = false;
			taken++;
			left--;
		}
	}
	/* What was given and not taken is there. */
	while (left && taken < given) {
		ASSERT_EQ(1, aio_wait(&s->aio, 1, s->ev));
		taken++;
		left--;
	}
	TH_LOG("%u bytes, %llu parked, %llu kicked", taken,
	       (unsigned long long)MOVED(&s->before, parked),
	       (unsigned long long)MOVED(&s->before, kicked));
	EXPECT_LT(0, MOVED(&s->before, kicked));
	ASSERT_EQ(0, aio_destroy(&s->aio, s->aio.ctx));
	s->aio.ctx = 0;
}

/* Files of other kinds. */

FIXTURE(other)
{
	struct scene s;
};

FIXTURE_SETUP(other)
{
	scene_begin(_metadata, &self->s);
}

FIXTURE_TEARDOWN(other)
{
	scene_end(_metadata, &self->s);
}

struct held_writer {
	int fd;
	char *from;
};

static void *held_writer(void *data)
{
	struct held_writer *writer = data;

	return (void *)ret_errno(write(writer->fd, writer->from, 2 * PAGE));
}

/* Who writes to it has it locked, and waits for memory that doesn't come. */
TEST_F(other, of_a_pipe_that_is_locked)
{
	struct scene *s = &self->s;
	struct held_writer writer;
	int uffd = uffd_open(), pipes[2];
	pthread_t thread;
	void *ret;

	ASSERT_LE(0, uffd);
	ASSERT_EQ(0, pipe2(pipes, O_CLOEXEC));
	writer = (struct held_writer){ pipes[1], map_pages(2 * PAGE) };
	ASSERT_EQ(0, uffd_missing(uffd, writer.from + PAGE, PAGE));
	pattern_fill(writer.from, PAGE, 0, SEED);
	ASSERT_EQ(0, pthread_create(&thread, NULL, held_writer, &writer));
	ASSERT_TRUE(uffd_wait(uffd));
	submit(_metadata, s, 0, IOCB_CMD_PREAD, pipes[0], PAGE, 0);
	EXPECT_NO_EVENT(s);
	ASSERT_EQ(0, uffd_fill(uffd, writer.from + PAGE, s->buf + PAGE));
	EXPECT_NEXT(s, 0, PAGE);
	EXPECT_EQ(-1, pattern_check(buf_of(s, 0), PAGE, 0, SEED));
	ASSERT_EQ(0, pthread_join(thread, &ret));
	EXPECT_EQ(2 * PAGE, (long)ret);
	close(pipes[0]);
	close(pipes[1]);
	close(uffd);
}

/* Who waits is told of an event before its worker goes on with what may sleep. */
TEST_F(other, than_who_sleeps_for_memory)
{
	int fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
	struct scene *s = &self->s;
	unsigned int i;
	uint64_t two = 2;

	for (i = 0; i < scaled(32); i++) {
		struct call call = { .kind = GETEVENTS, .aio = s->aio, .nr = 1 };
		char *there = map_pages(PAGE);
		int uffd = uffd_open();

		ASSERT_LE(0, uffd);
		ASSERT_EQ(0, uffd_missing(uffd, there, PAGE));
		/* The last is woken first. */
		iocb_prep(&s->io[1], IOCB_CMD_PREAD, fd, there, sizeof(two), 0);
		ASSERT_EQ(1, aio_submit_one(&s->aio, &s->io[1]));
		submit(_metadata, s, 0, IOCB_CMD_PREAD, fd, sizeof(two), 0);
		call_start(_metadata, &call);
		EXPECT_SLEEPS(&call);
		ASSERT_EQ(sizeof(two), write(fd, &two, sizeof(two)));
		ASSERT_TRUE(uffd_wait(uffd));
		EXPECT_RETURNS(1, &call);
		EXPECT_EVENT(&call.ev[0], &s->io[0], sizeof(two));
		ASSERT_EQ(0, uffd_fill(uffd, there, s->buf));
		EXPECT_NEXT(s, 1, sizeof(two));
		close(uffd);
		munmap(there, PAGE);
	}
	close(fd);
}

/* Until it is read later than it was written, by the clock of the file system. */
#define READ_TILL_NOTED(_s, _fd)					\
	ASSERT_TRUE(wait_for(({						\
		struct stat __stat;					\
									\
		submit(_metadata, (_s), 0, IOCB_CMD_PREAD, (_fd), PAGE, 0); \
		EXPECT_NEXT((_s), 0, PAGE);				\
		fstat((_fd), &__stat);					\
		__stat.st_atim.tv_sec > __stat.st_ctim.tv_sec ||	\
			(__stat.st_atim.tv_sec == __stat.st_ctim.tv_sec && \
			 __stat.st_atim.tv_nsec > __stat.st_ctim.tv_nsec); \
	})))

/* A first read after a write notes its time in the journal, which a worker does; the others don't. */
TEST_F(other, that_notes_its_time)
{
	const char *const dirs[] = { ext4_dir(), xfs_dir() };
	struct scene *s = &self->s;
	unsigned int i, punted;

	for (i = 0; i < ARRAY_SIZE(dirs); i++) {
		int fd = temp_file(dirs[i], O_RDWR);
		struct timespec times[2] = { { .tv_sec = 1 }, { .tv_nsec = UTIME_NOW } };

		ASSERT_LE(0, fd);
		ASSERT_EQ(PAGE, pwrite(fd, s->buf, PAGE, 0));
		ASSERT_EQ(0, futimens(fd, times));
		punted = MOVED(&s->before, punted);
		submit(_metadata, s, 0, IOCB_CMD_PREAD, fd, PAGE, 0);
		EXPECT_NEXT(s, 0, PAGE);
		EXPECT_EQ(punted + 1, MOVED(&s->before, punted));
		READ_TILL_NOTED(s, fd);
		punted = MOVED(&s->before, punted);
		submit(_metadata, s, 0, IOCB_CMD_PREAD, fd, PAGE, 0);
		EXPECT_NEXT(s, 0, PAGE);
		EXPECT_EQ(punted, MOVED(&s->before, punted));
		close(fd);
	}
}

/* Nor is it noted in submit if it is due since the call began, which has gone on for a while. */
TEST_F(other, that_notes_its_time_by_now)
{
	struct call call = { .kind = SUBMIT, .aio = self->s.aio, .nr = 3 };
	const struct timespec written[2] = { { .tv_sec = 1 }, { .tv_nsec = UTIME_NOW } };
	struct iocb **rest = map_pages(PAGE);
	char *array = map_pages(2 * PAGE);
	struct scene *s = &self->s;
	int fd = temp_file(ext4_dir(), O_RDWR);
	const int uffd = uffd_open();
	struct timespec tick;
	unsigned int i;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, uffd);
	ASSERT_EQ(0, uffd_missing(uffd, array + PAGE, PAGE));
	ASSERT_EQ(PAGE, pwrite(fd, s->buf, PAGE, 0));
	READ_TILL_NOTED(s, fd);
	call.iocbs = (struct iocb **)(array + PAGE) - 2;
	for (i = 0; i < 3; i++) {
		iocb_prep(&s->io[i], IOCB_CMD_PREAD, fd, buf_of(s, i), PAGE, 0);
		*(i < 2 ? &call.iocbs[i] : &rest[0]) = &s->io[i];
	}
	stats_now(_metadata, &s->before);
	call_start(_metadata, &call);
	ASSERT_TRUE(uffd_wait(uffd));
	EXPECT_SLEEPS(&call);
	EXPECT_MOVED(0, &s->before, punted);
	clock_gettime(CLOCK_MONOTONIC_COARSE, &tick);
	ASSERT_TRUE(wait_for(({
		struct timespec now;

		clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
		now.tv_sec != tick.tv_sec || now.tv_nsec != tick.tv_nsec;
	})));
	ASSERT_EQ(0, futimens(fd, written));
	ASSERT_EQ(0, uffd_fill(uffd, array + PAGE, rest));
	EXPECT_RETURNS(3, &call);
	ASSERT_EQ(3, aio_wait(&s->aio, 3, s->ev));
	/* One: for another, in the next tick, the worker could have noted it. */
	EXPECT_MOVED(1, &s->before, punted);
	close(uffd);
	close(fd);
}

/* Through a mount that is only read, which doesn't note it, it isn't due for ever. */
TEST_F(other, that_may_not_note_its_time)
{
	const struct timespec times[2] = { { .tv_sec = 1 }, { .tv_nsec = UTIME_NOW } };
	struct scene *s = &self->s;
	char path[80], dir[80], there[120];
	int fd;

	snprintf(path, sizeof(path), "%s/raio-test-%d", ext4_dir(), getpid());
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_LE(0, fd);
	EXPECT_EQ(PAGE, pwrite(fd, s->buf, PAGE, 0));
	EXPECT_EQ(0, futimens(fd, times));
	close(fd);
	snprintf(dir, sizeof(dir), "%s/raio-test-%d", tmpfs_dir(), getpid());
	ASSERT_EQ(0, mkdir(dir, 0700));
	ASSERT_EQ(0, mount(ext4_dir(), dir, NULL, MS_BIND, NULL));
	EXPECT_EQ(0, mount(NULL, dir, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
	snprintf(there, sizeof(there), "%s/raio-test-%d", dir, getpid());
	fd = open(there, O_RDONLY | O_CLOEXEC);
	EXPECT_LE(0, fd);
	unlink(path);
	submit(_metadata, s, 0, IOCB_CMD_PREAD, fd, PAGE, 0);
	EXPECT_NEXT(s, 0, PAGE);
	EXPECT_MOVED(0, &s->before, punted);
	close(fd);
	EXPECT_TRUE(wait_for(!umount(dir)));
	rmdir(dir);
}

/* What is to last, by the file's flag, a worker writes to the cache and makes last. */
TEST_F(other, that_is_to_last)
{
	struct scene *s = &self->s;
	unsigned int i, punted;
	char path[80];

	snprintf(path, sizeof(path), "%s/raio-test-%d", xfs_dir(), getpid());
	for (i = 0; i < 2; i++) {
		int flags = i ? FS_SYNC_FL : 0;
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

		ASSERT_LE(0, fd);
		EXPECT_EQ(PAGE, pwrite(fd, s->buf, PAGE, 0));
		EXPECT_EQ(0, fsync(fd));
		EXPECT_EQ(0, ioctl(fd, FS_IOC_SETFLAGS, &flags));
		close(fd);
		/* It would be one who notes its time besides. */
		fd = open_without_times(xfs_dir(), path, O_RDWR);
		EXPECT_LE(0, fd);
		punted = MOVED(&s->before, punted);
		submit(_metadata, s, 0, IOCB_CMD_PWRITE, fd, PAGE, 0);
		EXPECT_NEXT(s, 0, PAGE);
		EXPECT_EQ(punted + i, MOVED(&s->before, punted));
		close(fd);
	}
	unlink(path);
}

/* A write that has to wait, here for a page to go, takes those behind it along only if they have to, too. */
TEST_F(other, behind_one_that_waits)
{
	struct scene *s = &self->s;
	unsigned int i, punted;
	struct iocb *iops[4];
	char path[80];
	int fd, cached;

	snprintf(path, sizeof(path), "%s/raio-test-%d", xfs_dir(), getpid());
	fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
	ASSERT_LE(0, fd);
	EXPECT_EQ(4 * PAGE, pwrite(fd, s->buf, 4 * PAGE, 0));
	close(fd);
	cached = open(path, O_RDONLY | O_NOATIME | O_CLOEXEC);
	ASSERT_LE(0, cached);
	EXPECT_EQ(0, posix_fadvise(cached, 0, 0, POSIX_FADV_RANDOM));
	EXPECT_EQ(PAGE, pread(cached, s->buf, PAGE, 0));
	fd = open_without_times(xfs_dir(), path, O_RDWR | O_DIRECT);
	ASSERT_LE(0, fd);
	/* From here on the mount has what it needs for those, and the file no privileges to lose. */
	submit(_metadata, s, 0, IOCB_CMD_PWRITE, fd, PAGE, PAGE);
	EXPECT_NEXT(s, 0, PAGE);
	punted = MOVED(&s->before, punted);
	for (i = 0; i < ARRAY_SIZE(iops); i++) {
		pattern_fill(buf_of(s, i), PAGE, i * PAGE, SEED);
		iops[i] = &s->io[i];
		iocb_prep(iops[i], IOCB_CMD_PWRITE, fd, buf_of(s, i), PAGE, i * PAGE);
	}
	ASSERT_EQ(4, aio_submit(&s->aio, 4, iops));
	ASSERT_EQ(4, aio_wait(&s->aio, 4, s->ev));
	for (i = 0; i < ARRAY_SIZE(iops); i++)
		EXPECT_EQ(PAGE, s->ev[i].res);
	EXPECT_EQ(punted + 1, MOVED(&s->before, punted));
	memset(s->buf, CANARY, 4 * PAGE);
	EXPECT_EQ(4 * PAGE, pread(cached, s->buf, 4 * PAGE, 0));
	EXPECT_EQ(-1, pattern_check(s->buf, 4 * PAGE, 0, SEED));
	close(cached);
	close(fd);
	unlink(path);
}

/* One that looks at who reads it, here at what number a process has there, is read by who has submitted that. */
TEST_F(other, of_a_namespace)
{
	struct scene *s = &self->s;
	char dir[64], path[80];
	pid_t pid;
	int fd;

	cgroup_make(_metadata, dir, sizeof(dir));
	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	fd = open(path, O_RDONLY);
	ASSERT_LE(0, fd);
	pid = syscall(__NR_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
	ASSERT_LE(0, pid);
	if (!pid) {
		struct iocb *iop = &s->io[0];
		aio_context_t ctx = 0;
		int dev = raio_open();

		iocb_prep(iop, IOCB_CMD_PREAD, fd, s->buf, PAGE, 0);
		_exit(cgroup_take(dir, 0) || raio_setup(dev, 1, &ctx) ||
		      raio_submit(dev, ctx, 1, &iop) != 1 ||
		      raio_getevents(dev, ctx, 1, 1, s->ev, NULL) != 1 || s->ev[0].res != 2 ||
		      memcmp(s->buf, "1\n", 2));
	}
	EXPECT_EQ(0, wait_child(pid));
	close(fd);
	EXPECT_EQ(0, rmdir(dir));
}

/*
 * Signals of somebody who shares memory, but not signals, and has gone: a worker waits for
 * what doesn't come, and doesn't ask again and again.
 */
TEST_F(other, signals_of_who_has_gone)
{
	struct scene *s = &self->s;
	unsigned long punted;
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	ASSERT_LE(0, fd);
	iocb_prep(&s->io[0], IOCB_CMD_PREAD, fd, buf_of(s, 0), sizeof(struct signalfd_siginfo), 0);
	submit_by_child(_metadata, &s->aio, &s->io[0]);
	grace_periods();
	punted = MOVED(&s->before, punted);
	grace_periods();
	EXPECT_EQ(punted, MOVED(&s->before, punted));
	EXPECT_NO_EVENT(s);
	close(fd);
}

#define VECTORS	1024
#define MIB	(1UL << 20)

/* Who is killed doesn't go on with what may go on for very long. */
TEST_F(other, goes_on_until_killed)
{
	struct scene *s = &self->s;
	struct line line;
	pid_t pid;
	int fd = open("/dev/zero", O_RDONLY);

	ASSERT_LE(0, fd);
	line_open(_metadata, &line);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		char *buf = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				 -1, 0);
		struct iocb *iop[EVENTS];
		struct iovec iov[VECTORS];
		aio_context_t ctx = 0;
		int dev = raio_open();
		unsigned int i;

		line_child(&line);
		for (i = 0; i < VECTORS; i++)
			iov[i] = (struct iovec){ .iov_base = buf, .iov_len = MIB };
		for (i = 0; i < EVENTS; i++) {
			iop[i] = &s->io[i];
			iocb_prep(iop[i], IOCB_CMD_PREADV, fd, iov, VECTORS, 0);
		}
		if (raio_setup(dev, EVENTS, &ctx) || !line_tell(line.fds[1]))
			_exit(1);
		_exit(raio_submit(dev, ctx, EVENTS, iop) != EVENTS);
	}
	line_parent(&line);
	ASSERT_TRUE(line_wait(line.fds[0]));
	/* It is about to submit, or does. */
	grace_periods();
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(SIGKILL, wait_child(pid));
	close(fd);
}

/* Writes of more than fits in a FIFO, that a worker carries out until somebody reads that. */

struct fifo {
	char path[64];
	int fd;
};

static void fifo_begin(struct __test_metadata *_metadata, struct fifo *fifo, const char *name)
{
	snprintf(fifo->path, sizeof(fifo->path), "%s/raio-test-%s", tmpfs_dir(), name);
	ASSERT_EQ(0, mkfifo(fifo->path, 0600));
	fifo->fd = open(fifo->path, O_RDONLY | O_NONBLOCK);
	ASSERT_LE(0, fifo->fd);
}

static void fifo_end(struct fifo *fifo)
{
	close(fifo->fd);
	unlink(fifo->path);
}

/* True if the write waits: something came, and there is more. */
static bool fifo_write_from(const struct fifo *fifo, int dev, aio_context_t *ctx, void *buf)
{
	struct pollfd pfd = { .fd = fifo->fd, .events = POLLIN };
	struct iocb io, *iop = &io;

	iocb_prep(iop, IOCB_CMD_PWRITE, open(fifo->path, O_WRONLY), buf, MIB, 0);
	return !raio_setup(dev, 1, ctx) && raio_submit(dev, *ctx, 1, &iop) == 1 &&
	       poll(&pfd, 1, WAIT_SECONDS * 1000) == 1;
}

static bool fifo_write(const struct fifo *fifo, int dev, aio_context_t *ctx)
{
	return fifo_write_from(fifo, dev, ctx, map_pages(MIB));
}

/* Reads what is written; true if that is all of it. */
static bool fifo_read(const struct fifo *fifo)
{
	struct pollfd pfd = { .fd = fifo->fd, .events = POLLIN };
	static char buf[PAGE];
	size_t left = MIB;
	ssize_t n;

	while (left) {
		if (poll(&pfd, 1, WAIT_SECONDS * 1000) != 1)
			return false;
		n = read(fifo->fd, buf, MIN(left, PAGE));
		if (n <= 0)
			return false;
		left -= n;
	}
	return true;
}

/* True if the context's one request has written all. */
static bool has_written(int dev, aio_context_t ctx)
{
	struct io_event ev;

	return raio_getevents(dev, ctx, 1, 1, &ev, NULL) == 1 && ev.res == MIB;
}

/* What the submitter may access by its protection keys a worker may, too. */
TEST_F(other, of_protected_memory)
{
	struct fifo fifo;
	aio_context_t ctx = 0;
	int dev = raio_open(), key = pkey_alloc(0, 0);
	char *buf = map_pages(MIB);

	if (key < 0 && errno == ENOSPC)
		SKIP(return, "the processor has no protection keys");
	ASSERT_LE(0, dev);
	ASSERT_LT(0, key);
	fifo_begin(_metadata, &fifo, "protected");
	ASSERT_EQ(0, pkey_mprotect(buf, MIB, PROT_READ | PROT_WRITE, key));
	ASSERT_TRUE(fifo_write_from(&fifo, dev, &ctx, buf));
	EXPECT_TRUE(fifo_read(&fifo));
	EXPECT_TRUE(has_written(dev, ctx));
	EXPECT_EQ(0, raio_destroy(dev, ctx));
	ASSERT_EQ(0, munmap(buf, MIB));
	ASSERT_EQ(0, pkey_free(key));
	fifo_end(&fifo);
	close(dev);
}

/* The file of a process that ends, or runs another program. */
FIXTURE(orphans)
{
	struct scene s;
	struct fifo fifo;
	int dev;
};

FIXTURE_VARIANT(orphans)
{
	unsigned int clone;	/* What the process shares. */
	bool closes, executes;
};

/* Others have it, too. */
FIXTURE_VARIANT_ADD(orphans, inherited) { };
FIXTURE_VARIANT_ADD(orphans, closed) { .closes = true };
FIXTURE_VARIANT_ADD(orphans, of_shared_descriptors) { .clone = CLONE_FILES };
FIXTURE_VARIANT_ADD(orphans, executing) { .executes = true };

FIXTURE_SETUP(orphans)
{
	scene_begin(_metadata, &self->s);
	fifo_begin(_metadata, &self->fifo, "orphans");
	self->dev = raio_open();
	ASSERT_LE(0, self->dev);
	ASSERT_EQ(0, fcntl(self->dev, F_SETFD, 0));
}

FIXTURE_TEARDOWN(orphans)
{
	close(self->dev);
	fifo_end(&self->fifo);
	scene_end(_metadata, &self->s);
}

/* A worker that waits doesn't keep their contexts. */
TEST_F(orphans, end_while_a_worker_waits)
{
	struct scene *s = &self->s;
	pid_t pid = syscall(__NR_clone, variant->clone | SIGCHLD, 0, 0, 0, 0);

	ASSERT_LE(0, pid);
	if (!pid) {
		aio_context_t ctx = 0;

		if (!fifo_write(&self->fifo, self->dev, &ctx))
			_exit(1);
		if (variant->closes)
			close(self->dev);
		if (variant->executes)
			execlp("sleep", "sleep", "1000", NULL);
		_exit(variant->executes);
	}
	if (!variant->executes)
		EXPECT_EQ(0, wait_child(pid));
	EXPECT_TRUE(wait_for(MOVED(&s->before, frees) == 1));
	if (variant->executes) {
		EXPECT_EQ(0, kill(pid, SIGKILL));
		EXPECT_EQ(SIGKILL, wait_child(pid));
	}
}

struct sharer {
	const struct fifo *fifo;
	int dev;
	aio_context_t ctx;
	struct line line;
};

static int sharing_child(void *data)
{
	struct sharer *sharer = data;

	return !fifo_write(sharer->fifo, sharer->dev, &sharer->ctx);
}

/* Returns only with the process. */
static void *second_thread(void *data)
{
	struct sharer *sharer = data;

	_exit(!wait_for(task_state(getpid()) == 'Z') ||
	      !fifo_write(sharer->fifo, sharer->dev, &sharer->ctx) ||
	      !line_tell(sharer->line.fds[1]) || !line_wait(sharer->line.fds[1]) ||
	      !has_written(sharer->dev, sharer->ctx));
	return NULL;
}

/*
 * Who has made a context has gone, but another has the same memory: a process,
 * or a thread after the process's first. They go on, when others were found
 * that don't.
 */
TEST_F(other, than_what_has_ended)
{
	struct scene *s = &self->s;
	struct fifo fifos[3];
	int dev = raio_open();
	struct sharer process = { .fifo = &fifos[0], .dev = dev };
	struct sharer thread = { .fifo = &fifos[1], .dev = dev };
	char *stack = map_pages(16 * PAGE);
	pid_t pid, orphan;

	ASSERT_LE(0, dev);
	fifo_begin(_metadata, &fifos[0], "of-a-process");
	fifo_begin(_metadata, &fifos[1], "of-a-thread");
	fifo_begin(_metadata, &fifos[2], "of-nobody");
	line_open(_metadata, &thread.line);

	EXPECT_EQ(0, wait_child(clone(sharing_child, stack + 16 * PAGE, CLONE_VM | SIGCHLD,
				      &process)));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		pthread_t second;

		line_child(&thread.line);
		if (pthread_create(&second, NULL, second_thread, &thread))
			_exit(1);
		syscall(__NR_exit, 0);
	}
	line_parent(&thread.line);
	ASSERT_TRUE(line_wait(thread.line.fds[0]));
	orphan = fork();
	ASSERT_LE(0, orphan);
	if (!orphan) {
		aio_context_t ctx = 0;

		_exit(!fifo_write(&fifos[2], dev, &ctx));
	}
	EXPECT_EQ(0, wait_child(orphan));
	EXPECT_TRUE(wait_for(MOVED(&s->before, frees) == 1));

	EXPECT_TRUE(fifo_read(&fifos[0]));
	EXPECT_TRUE(has_written(dev, process.ctx));
	EXPECT_TRUE(fifo_read(&fifos[1]));
	EXPECT_TRUE(line_tell(thread.line.fds[0]));
	EXPECT_EQ(0, wait_child(pid));
	EXPECT_EQ(0, raio_destroy(dev, process.ctx));
	close(dev);
	for (unsigned int i = 0; i < 3; i++)
		fifo_end(&fifos[i]);
	munmap(stack, 16 * PAGE);
}

static void *thread_with_its_own_files(void *data)
{
	pid_t *tid = data;

	__atomic_store_n(tid, gettid(), __ATOMIC_RELEASE);
	return (void *)ret_errno(unshare(CLONE_FILES));
}

/* The same of a thread that closes the file as it ends: it is its process that has the context. */
TEST_F(other, of_a_thread_that_has_ended)
{
	struct scene *s = &self->s;
	int fd = open("/dev/zero", O_RDONLY);
	pthread_t thread;
	char path[64];
	pid_t tid = 0;
	void *ret;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pthread_create(&thread, NULL, thread_with_its_own_files, &tid));
	ASSERT_EQ(0, pthread_join(thread, &ret));
	ASSERT_EQ(NULL, ret);
	/* It is joined before it is gone. */
	snprintf(path, sizeof(path), "/proc/self/task/%d", tid);
	ASSERT_TRUE(wait_for(access(path, F_OK)));
	submit(_metadata, s, 0, IOCB_CMD_PREAD, fd, PAGE, 0);
	EXPECT_NEXT(s, 0, PAGE);
	close(fd);
}

TEST_HARNESS_MAIN
