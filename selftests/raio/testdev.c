// SPDX-License-Identifier: GPL-2.0
/*
 * The test devices themselves: that requests end when and how they are told
 * to, with their data, for other tests rely on that.
 */
#include <linux/loop.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "raio_testdev.h"

#define EVENTS		16
#define LEN		4096UL
#define MANY		1000
#define SEED_A		11
#define SEED_B		12

/* A device on either backend. */

struct dev {
	struct aio aio;
	int fd;
	char *buf;
	struct iocb io[EVENTS];
	struct io_event ev[EVENTS];
};

FIXTURE(dev)
{
	struct dev d;
};

FIXTURE_VARIANT(dev)
{
	const struct aio_ops *ops;
	const char *dev;
	int flags;
};

FIXTURE_VARIANT_ADD(dev, kernel_aio_char)
{
	.ops = &kernel_aio, .dev = "c0",
};

FIXTURE_VARIANT_ADD(dev, raio_char)
{
	.ops = &raio, .dev = "c0",
};

FIXTURE_VARIANT_ADD(dev, kernel_aio_disk)
{
	.ops = &kernel_aio, .dev = "b0", .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(dev, raio_disk)
{
	.ops = &raio, .dev = "b0", .flags = O_DIRECT,
};

FIXTURE_SETUP(dev)
{
	testdev_begin();
	aio_begin(_metadata, &self->d.aio, variant->ops, EVENTS);
	self->d.fd = testdev_open(variant->dev, variant->flags);
	self->d.buf = map_pages(EVENTS * LEN);
	/* Opening a disk may have read of it. */
	testdev_reset();
}

FIXTURE_TEARDOWN(dev)
{
	testdev_reset();
	aio_end(_metadata, &self->d.aio);
	close(self->d.fd);
}

static bool is_char(const char *dev)
{
	return dev[0] == 'c';
}

/* Submits request @i, for block @i of the device and of the buffer. */
static void submit(struct __test_metadata *_metadata, struct dev *d, int i, int opcode)
{
	iocb_prep(&d->io[i], opcode, d->fd, d->buf + i * LEN, LEN, i * LEN);
	ASSERT_EQ(1, aio_submit_one(&d->aio, &d->io[i]));
}

/* Writes what belongs to @seed to blocks 0 to @nr. */
static void fill(struct __test_metadata *_metadata, struct dev *d, int nr, uint64_t seed)
{
	pattern_fill(d->buf, nr * LEN, 0, seed);
	ASSERT_EQ(nr * LEN, pwrite(d->fd, d->buf, nr * LEN, 0));
	memset(d->buf, 0, nr * LEN);
}

/* The next event has to be that of request @i. */
#define EXPECT_NEXT(i, res) do {						\
	ASSERT_EQ(1, aio_wait(&self->d.aio, 1, self->d.ev));			\
	EXPECT_EVENT(&self->d.ev[0], &self->d.io[i], (res));			\
} while (0)

#define EXPECT_NO_EVENT() \
	EXPECT_EQ(0, aio_poll(&self->d.aio, 1, self->d.ev))

/* A write of four blocks and a read of them, in a mode that ends by itself. */
static void run_mode(struct __test_metadata *_metadata, struct dev *d, const char *dev,
		     const char *mode, bool at_once)
{
	int i;

	testdev_cmd("%s mode %s", dev, mode);
	pattern_fill(d->buf, 4 * LEN, 0, SEED_A);
	for (i = 0; i < 4; i++) {
		submit(_metadata, d, i, IOCB_CMD_PWRITE);
		ASSERT_EQ(1, at_once ? aio_poll(&d->aio, 1, d->ev) :
				       aio_wait(&d->aio, 1, d->ev));
		EXPECT_EVENT(&d->ev[0], &d->io[i], LEN);
	}
	memset(d->buf, 0, 4 * LEN);
	for (i = 0; i < 4; i++)
		submit(_metadata, d, i, IOCB_CMD_PREAD);
	ASSERT_EQ(4, aio_wait(&d->aio, 4, d->ev));
	EXPECT_EQ(-1, pattern_check(d->buf, 4 * LEN, 0, SEED_A));

	testdev_cmd("%s wait ended 8", dev);
	EXPECT_EQ(8, testdev_stat(dev, "started"));
	EXPECT_EQ(8, testdev_stat(dev, "ended"));
	EXPECT_EQ(0, testdev_stat(dev, "held"));
}

TEST_F(dev, now)
{
	run_mode(_metadata, &self->d, variant->dev, "now", true);
}

TEST_F(dev, sync)
{
	run_mode(_metadata, &self->d, variant->dev, "sync", true);
}

TEST_F(dev, softirq)
{
	run_mode(_metadata, &self->d, variant->dev, "softirq", false);
}

TEST_F(dev, timer)
{
	run_mode(_metadata, &self->d, variant->dev, "timer 1000000", false);
}

TEST_F(dev, timer_takes_its_time)
{
	long long begin = now_ns();

	testdev_cmd("%s mode timer 50000000", variant->dev);
	submit(_metadata, &self->d, 0, IOCB_CMD_PREAD);
	testdev_cmd("%s mode timer 1000", variant->dev);
	submit(_metadata, &self->d, 1, IOCB_CMD_PREAD);
	EXPECT_NEXT(1, LEN);
	EXPECT_NEXT(0, LEN);
	EXPECT_LE(50000000, now_ns() - begin);
}

/* Oldest first, each once, with the outcome that was ordered. */
TEST_F(dev, hang)
{
	int i;

	fill(_metadata, &self->d, 5, SEED_A);
	testdev_cmd("%s reset", variant->dev);
	testdev_cmd("%s mode hang", variant->dev);
	for (i = 0; i < 5; i++)
		submit(_metadata, &self->d, i, IOCB_CMD_PREAD);
	testdev_cmd("%s wait held 5", variant->dev);
	EXPECT_NO_EVENT();
	EXPECT_EQ(5, testdev_stat(variant->dev, "started"));
	EXPECT_EQ(0, testdev_stat(variant->dev, "ended"));

	testdev_cmd("%s complete 1", variant->dev);
	EXPECT_NEXT(0, LEN);
	EXPECT_EQ(-1, pattern_check(self->d.buf, LEN, 0, SEED_A));
	EXPECT_NO_EVENT();

	testdev_cmd("%s fail 1 %d", variant->dev, EIO);
	EXPECT_NEXT(1, -EIO);
	EXPECT_EQ(-1, filled_check(self->d.buf + LEN, LEN, 0));
	EXPECT_NO_EVENT();
	EXPECT_EQ(3, testdev_stat(variant->dev, "held"));

	testdev_cmd("%s complete 0", variant->dev);
	EXPECT_NO_EVENT();
	testdev_cmd("%s complete all", variant->dev);
	for (i = 2; i < 5; i++)
		EXPECT_NEXT(i, LEN);
	EXPECT_EQ(-1, pattern_check(self->d.buf + 2 * LEN, 3 * LEN, 2 * LEN, SEED_A));
	EXPECT_EQ(0, testdev_stat(variant->dev, "held"));
	EXPECT_EQ(5, testdev_stat(variant->dev, "ended"));
	EXPECT_EQ(1, testdev_stat(variant->dev, "failed"));

	/* More than there are. */
	submit(_metadata, &self->d, 0, IOCB_CMD_PREAD);
	submit(_metadata, &self->d, 1, IOCB_CMD_PREAD);
	testdev_cmd("%s fail all %d", variant->dev, ENOSPC);
	EXPECT_NEXT(0, -ENOSPC);
	EXPECT_NEXT(1, -ENOSPC);
	testdev_cmd("%s complete 7", variant->dev);
	EXPECT_EQ(3, testdev_stat(variant->dev, "failed"));
}

/* The data is moved when the request ends, not before. */
TEST_F(dev, data_moves_at_the_end)
{
	fill(_metadata, &self->d, 1, SEED_A);
	testdev_cmd("%s mode hang", variant->dev);

	submit(_metadata, &self->d, 0, IOCB_CMD_PREAD);
	testdev_cmd("%s wait held 1", variant->dev);
	EXPECT_EQ(-1, filled_check(self->d.buf, LEN, 0));
	memset(self->d.buf, 1, LEN);
	testdev_cmd("%s complete 1", variant->dev);
	EXPECT_NEXT(0, LEN);
	EXPECT_EQ(-1, pattern_check(self->d.buf, LEN, 0, SEED_A));

	submit(_metadata, &self->d, 0, IOCB_CMD_PWRITE);
	testdev_cmd("%s wait held 1", variant->dev);
	pattern_fill(self->d.buf, LEN, 0, SEED_B);
	testdev_cmd("%s complete 1", variant->dev);
	EXPECT_NEXT(0, LEN);
	testdev_cmd("%s mode now", variant->dev);
	memset(self->d.buf, 0, LEN);
	ASSERT_EQ(LEN, pread(self->d.fd, self->d.buf, LEN, 0));
	EXPECT_EQ(-1, pattern_check(self->d.buf, LEN, 0, SEED_B));
}

/* The memory is kept, whatever happens to the mapping. */
TEST_F(dev, unmapped_while_held)
{
	char *buf = map_pages(2 * LEN);

	testdev_cmd("%s mode hang", variant->dev);
	iocb_prep(&self->d.io[0], IOCB_CMD_PREAD, self->d.fd, buf, 2 * LEN, 0);
	ASSERT_EQ(1, aio_submit_one(&self->d.aio, &self->d.io[0]));
	testdev_cmd("%s wait held 1", variant->dev);
	munmap(buf, 2 * LEN);
	testdev_cmd("%s complete all", variant->dev);
	EXPECT_NEXT(0, 2 * LEN);
}

TEST_F(dev, nowait)
{
	int i;

	/* raio asks at first as if it must not wait. */
	submit(_metadata, &self->d, 0, IOCB_CMD_PREAD);
	EXPECT_NEXT(0, LEN);
	testdev_cmd("%s nowait 2", variant->dev);
	for (i = 0; i < 3; i++) {
		iocb_prep(&self->d.io[i], IOCB_CMD_PREAD, self->d.fd, self->d.buf, LEN, 0);
		self->d.io[i].aio_rw_flags = RWF_NOWAIT;
		ASSERT_EQ(1, aio_submit_one(&self->d.aio, &self->d.io[i]));
		EXPECT_NEXT(i, i < 2 ? -EAGAIN : (long)LEN);
	}
	EXPECT_EQ(2, testdev_stat(variant->dev, "refused"));
	EXPECT_EQ(2, testdev_stat(variant->dev, "started"));

	testdev_cmd("%s nowait all", variant->dev);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(1, aio_submit_one(&self->d.aio, &self->d.io[i]));
		EXPECT_NEXT(i, -EAGAIN);
	}
	testdev_cmd("%s nowait 0", variant->dev);
	ASSERT_EQ(1, aio_submit_one(&self->d.aio, &self->d.io[0]));
	EXPECT_NEXT(0, LEN);
	EXPECT_EQ(5, testdev_stat(variant->dev, "refused"));
}

TEST_F(dev, short)
{
	static const size_t want[] = { 100, 100, LEN };
	unsigned int i;

	if (!is_char(variant->dev)) {
		EXPECT_EQ(-EINVAL, testdev_try("%s short 1 512", variant->dev));
		return;
	}
	fill(_metadata, &self->d, 3, SEED_A);
	testdev_cmd("%s mode softirq", variant->dev);
	testdev_cmd("%s short 2 100", variant->dev);
	for (i = 0; i < ARRAY_SIZE(want); i++) {
		submit(_metadata, &self->d, i, IOCB_CMD_PREAD);
		EXPECT_NEXT(i, want[i]);
		EXPECT_EQ(-1, pattern_check(self->d.buf + i * LEN, want[i], i * LEN, SEED_A));
		EXPECT_EQ(-1, filled_check(self->d.buf + i * LEN + want[i], LEN - want[i], 0));
	}
	EXPECT_EQ(2, testdev_stat(variant->dev, "shortened"));

	testdev_cmd("%s short all %lu", variant->dev, LEN);
	submit(_metadata, &self->d, 0, IOCB_CMD_PREAD);
	EXPECT_NEXT(0, LEN);
	EXPECT_EQ(2, testdev_stat(variant->dev, "shortened"));
	testdev_cmd("%s short 1 0", variant->dev);
	submit(_metadata, &self->d, 0, IOCB_CMD_PREAD);
	EXPECT_NEXT(0, 0);
}

TEST_F(dev, reset)
{
	int i;

	testdev_cmd("%s mode hang", variant->dev);
	for (i = 0; i < 3; i++)
		submit(_metadata, &self->d, i, IOCB_CMD_PREAD);
	testdev_cmd("%s mode timer 3600000000000", variant->dev);
	submit(_metadata, &self->d, 3, IOCB_CMD_PREAD);
	testdev_cmd("%s wait held 3", variant->dev);
	testdev_cmd("%s wait started 4", variant->dev);
	EXPECT_NO_EVENT();
	testdev_cmd("%s reset", variant->dev);
	for (i = 0; i < 4; i++)
		EXPECT_NEXT(i, LEN);
	EXPECT_EQ(0, testdev_stat(variant->dev, "started"));
	EXPECT_EQ(0, testdev_stat(variant->dev, "ended"));
	EXPECT_EQ(0, testdev_stat(variant->dev, "held"));
	submit(_metadata, &self->d, 0, IOCB_CMD_PREAD);
	EXPECT_NEXT(0, LEN);
}

/* Waiting: until it has come, or a signal. */

struct waiter {
	const char *cmd;
	pid_t tid;
	long ret;
};

static void *waiter_thread(void *data)
{
	struct waiter *w = data;

	__atomic_store_n(&w->tid, gettid(), __ATOMIC_RELEASE);
	w->ret = testdev_try("%s", w->cmd);
	return NULL;
}

static void no_handler(int sig)
{
	(void)sig;
}

TEST_F(dev, wait)
{
	static const char * const event[] = { "started", "held", "ended" };
	struct sigaction sa = { .sa_handler = no_handler };
	struct waiter w[3] = { };
	pthread_t thread[3];
	char cmd[3][64];
	int i;

	testdev_cmd("%s mode hang", variant->dev);
	for (i = 0; i < 3; i++) {
		snprintf(cmd[i], sizeof(cmd[i]), "%s wait %s 2", variant->dev, event[i]);
		w[i].cmd = cmd[i];
		w[i].ret = 1;
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, waiter_thread, &w[i]));
	}
	submit(_metadata, &self->d, 0, IOCB_CMD_PREAD);
	for (i = 0; i < 3; i++)
		ASSERT_TRUE(wait_for(__atomic_load_n(&w[i].tid, __ATOMIC_ACQUIRE) &&
				     task_sleeps(w[i].tid)));
	submit(_metadata, &self->d, 1, IOCB_CMD_PREAD);
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	EXPECT_EQ(0, w[0].ret);
	EXPECT_EQ(0, w[1].ret);
	ASSERT_TRUE(wait_for(task_sleeps(w[2].tid)));
	testdev_cmd("%s complete all", variant->dev);
	pthread_join(thread[2], NULL);
	EXPECT_EQ(0, w[2].ret);
	EXPECT_EQ(2, aio_wait(&self->d.aio, 2, self->d.ev));

	/* Without SA_RESTART. */
	sigaction(SIGUSR1, &sa, NULL);
	w[0].tid = 0;
	snprintf(cmd[0], sizeof(cmd[0]), "%s wait ended 3", variant->dev);
	ASSERT_EQ(0, pthread_create(&thread[0], NULL, waiter_thread, &w[0]));
	ASSERT_TRUE(wait_for(__atomic_load_n(&w[0].tid, __ATOMIC_ACQUIRE) &&
			     task_sleeps(w[0].tid)));
	pthread_kill(thread[0], SIGUSR1);
	pthread_join(thread[0], NULL);
	EXPECT_EQ(-EINTR, w[0].ret);
}

/* Many of them, ended from interrupts while others come in. */
TEST_F(dev, storm)
{
	static const char * const modes[] = { "timer 200000", "softirq", "hang", "now" };
	int round, i, seen;
	long n;

	for (round = 0; round < 100; round++) {
		for (i = 0; i < EVENTS; i++) {
			testdev_cmd("%s mode %s", variant->dev, modes[(i + round) % 4]);
			submit(_metadata, &self->d, i, i % 3 ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE);
		}
		testdev_cmd("%s complete all", variant->dev);
		for (seen = 0; seen < EVENTS; seen += n) {
			n = aio_wait(&self->d.aio, 1, self->d.ev);
			ASSERT_EQ(1, n);
			EXPECT_EQ(LEN, self->d.ev[0].res);
		}
	}
	testdev_cmd("%s wait ended %d", variant->dev, 100 * EVENTS);
	EXPECT_EQ(100 * EVENTS, testdev_stat(variant->dev, "started"));
	EXPECT_EQ(100 * EVENTS, testdev_stat(variant->dev, "ended"));
}

/* While it is open it can't be removed, held requests or not. */
TEST_F(dev, module_is_kept)
{
	testdev_cmd("%s mode hang", variant->dev);
	submit(_metadata, &self->d, 0, IOCB_CMD_PREAD);
	testdev_cmd("%s wait held 1", variant->dev);
	EXPECT_EQ(-EAGAIN, ret_errno(syscall(__NR_delete_module, "raio_test", O_NONBLOCK)));
	testdev_cmd("%s complete all", variant->dev);
	EXPECT_NEXT(0, LEN);
	EXPECT_EQ(-EAGAIN, ret_errno(syscall(__NR_delete_module, "raio_test", O_NONBLOCK)));
}

/* Cancelling, by what kernel AIO has for it. */

FIXTURE(cancel)
{
	struct dev d;
};

FIXTURE_SETUP(cancel)
{
	testdev_begin();
	aio_begin(_metadata, &self->d.aio, &kernel_aio, 4);
	self->d.fd = testdev_open("c1", 0);
	self->d.buf = map_pages(LEN);
	testdev_cmd("c1 mode hang");
}

FIXTURE_TEARDOWN(cancel)
{
	testdev_reset();
	aio_end(_metadata, &self->d.aio);
	close(self->d.fd);
}

static long cancel_one(struct __test_metadata *_metadata, struct dev *d,
		       const char *how)
{
	testdev_cmd("c1 cancel %s", how);
	iocb_prep(&d->io[0], IOCB_CMD_PREAD, d->fd, d->buf, LEN, 0);
	ASSERT_EQ(1, aio_submit_one(&d->aio, &d->io[0]));
	return aio_cancel(&d->aio, &d->io[0]);
}

TEST_F(cancel, yes)
{
	ASSERT_EQ(0, cancel_one(_metadata, &self->d, "yes"));
	ASSERT_EQ(1, aio_wait(&self->d.aio, 1, self->d.ev));
	EXPECT_EVENT(&self->d.ev[0], &self->d.io[0], -ECANCELED);
	testdev_cmd("c1 wait ended 1");
	EXPECT_EQ(1, testdev_stat("c1", "cancelled"));
	EXPECT_EQ(0, testdev_stat("c1", "held"));
}

TEST_F(cancel, late)
{
	ASSERT_EQ(0, cancel_one(_metadata, &self->d, "late"));
	ASSERT_EQ(1, aio_wait(&self->d.aio, 1, self->d.ev));
	EXPECT_EVENT(&self->d.ev[0], &self->d.io[0], -ECANCELED);
	EXPECT_EQ(1, testdev_stat("c1", "cancelled"));
}

TEST_F(cancel, timed)
{
	testdev_cmd("c1 mode timer 3600000000000");
	ASSERT_EQ(0, cancel_one(_metadata, &self->d, "yes"));
	ASSERT_EQ(1, aio_wait(&self->d.aio, 1, self->d.ev));
	EXPECT_EVENT(&self->d.ev[0], &self->d.io[0], -ECANCELED);
}

TEST_F(cancel, refuse)
{
	ASSERT_EQ(-EBUSY, cancel_one(_metadata, &self->d, "refuse"));
	EXPECT_EQ(0, aio_poll(&self->d.aio, 1, self->d.ev));
	EXPECT_EQ(1, testdev_stat("c1", "held"));
	testdev_cmd("c1 complete 1");
	ASSERT_EQ(1, aio_wait(&self->d.aio, 1, self->d.ev));
	EXPECT_EVENT(&self->d.ev[0], &self->d.io[0], LEN);
	EXPECT_EQ(0, testdev_stat("c1", "cancelled"));
}

TEST_F(cancel, no)
{
	/* There is nothing to call. */
	ASSERT_EQ(-EINVAL, cancel_one(_metadata, &self->d, "no"));
	testdev_cmd("c1 fail 1 %d", EPIPE);
	ASSERT_EQ(1, aio_wait(&self->d.aio, 1, self->d.ev));
	EXPECT_EVENT(&self->d.ev[0], &self->d.io[0], -EPIPE);
}

/* io_destroy(2) cancels what can be, and waits for it. */
TEST_F(cancel, destroy)
{
	testdev_cmd("c1 cancel yes");
	iocb_prep(&self->d.io[0], IOCB_CMD_PREAD, self->d.fd, self->d.buf, LEN, 0);
	ASSERT_EQ(1, aio_submit_one(&self->d.aio, &self->d.io[0]));
	ASSERT_EQ(0, aio_destroy(&self->d.aio, self->d.aio.ctx));
	self->d.aio.ctx = 0;
	testdev_cmd("c1 wait ended 1");
	EXPECT_EQ(1, testdev_stat("c1", "cancelled"));
}

/* Without any backend. */

FIXTURE(plain)
{
	char *buf;
	char *want;
};

FIXTURE_SETUP(plain)
{
	testdev_begin();
	self->buf = map_pages(TESTDEV_CHAR_SIZE + LEN);
	self->want = map_pages(TESTDEV_CHAR_SIZE + LEN);
}

FIXTURE_TEARDOWN(plain)
{
	testdev_reset();
}

TEST_F(plain, char_ends)
{
	size_t size = TESTDEV_CHAR_SIZE;
	int fd = testdev_open("c0", 0);

	pattern_fill(self->want, size, 0, SEED_A);
	ASSERT_EQ(size, pwrite(fd, self->want, size, 0));
	ASSERT_EQ(size, pread(fd, self->buf, size + LEN, 0));
	EXPECT_EQ(0, memcmp(self->want, self->buf, size));
	EXPECT_EQ(0, pread(fd, self->buf, 1, size));
	EXPECT_EQ(0, pread(fd, self->buf, 1, 1LL << 40));
	EXPECT_EQ(7, pread(fd, self->buf, LEN, size - 7));
	EXPECT_EQ(7, pwrite(fd, self->want, LEN, size - 7));
	EXPECT_EQ(-ENOSPC, ret_errno(pwrite(fd, self->want, 1, size)));
	EXPECT_EQ(0, pwrite(fd, self->want, 0, size));
	EXPECT_EQ(-EFAULT, ret_errno(pread(fd, map_before_hole(0), 8, 0)));
	EXPECT_EQ(LEN, pread(fd, map_before_hole(LEN), 2 * LEN, 0));

	/* By the file's own position. */
	EXPECT_EQ(LEN, read(fd, self->buf, LEN));
	EXPECT_EQ(LEN, read(fd, self->buf + LEN, LEN));
	EXPECT_EQ(-1, pattern_check(self->buf, LEN, 0, SEED_A));
	EXPECT_EQ(-1, pattern_check(self->buf + LEN, LEN, LEN, SEED_A));
	testdev_cmd("c0 wait ended 8");
	EXPECT_EQ(testdev_stat("c0", "started"), testdev_stat("c0", "ended"));
	close(fd);
}

/* Memory in several pieces, which on c0 are of any size. */
TEST_F(plain, vectors)
{
	static const char * const devs[] = { "c0", "b0" };
	struct iovec iov[4];
	struct io_event ev;
	struct iocb io;
	struct aio aio;
	unsigned int i, d;

	aio_begin(_metadata, &aio, &kernel_aio, 1);
	pattern_fill(self->want, LEN, 0, SEED_A);
	for (d = 0; d < ARRAY_SIZE(devs); d++) {
		size_t part = d ? 1024 : 701;
		int fd = testdev_open(devs[d], d ? O_DIRECT : 0);

		ASSERT_EQ(LEN, pwrite(fd, self->want, LEN, 0));
		testdev_cmd("%s mode timer 1000", devs[d]);
		memset(self->buf, 0, 8 * LEN);
		for (i = 0; i < 4; i++) {
			iov[i].iov_base = self->buf + (d ? i * 2 * LEN : (i + 1) * LEN - 100);
			iov[i].iov_len = part;
		}
		iocb_prep(&io, IOCB_CMD_PREADV, fd, iov, 4, 0);
		ASSERT_EQ(1, aio_submit_one(&aio, &io));
		ASSERT_EQ(1, aio_wait(&aio, 1, &ev));
		EXPECT_EVENT(&ev, &io, 4 * part);
		for (i = 0; i < 4; i++)
			EXPECT_EQ(-1, pattern_check(iov[i].iov_base, part, i * part, SEED_A));

		memset(self->buf, 0, 8 * LEN);
		EXPECT_EQ(4 * part, preadv(fd, iov, 4, 0));
		for (i = 0; i < 4; i++)
			EXPECT_EQ(-1, pattern_check(iov[i].iov_base, part, i * part, SEED_A));
		close(fd);
	}
	aio_end(_metadata, &aio);
}

/* raio finds out by itself how its requests are cancelled, when their context ends. */
TEST_F(plain, raio_cancels)
{
	static const char * const how[] = { "yes", "late" };
	int fd = testdev_open("c1", 0);
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(how); i++) {
		struct iocb io[4];
		struct aio aio;

		aio_begin(_metadata, &aio, &raio, 4);
		testdev_cmd("c1 reset");
		testdev_cmd("c1 cancel %s", how[i]);
		for (j = 0; j < 4; j++) {
			testdev_cmd("c1 mode %s", j % 2 ? "hang" : "timer 3600000000000");
			iocb_prep(&io[j], IOCB_CMD_PREAD, fd, self->buf, LEN, 0);
			ASSERT_EQ(1, aio_submit_one(&aio, &io[j]));
		}
		EXPECT_EQ(2, testdev_stat("c1", "held"));
		ASSERT_EQ(0, aio_destroy(&aio, aio.ctx));
		aio.ctx = 0;
		testdev_cmd("c1 wait ended 4");
		EXPECT_EQ(4, testdev_stat("c1", "cancelled"));
		aio_end(_metadata, &aio);
	}
	close(fd);
}

/* Those of a context that ends are cancelled in a softirq, but not all of many. */
TEST_F(plain, raio_cancels_many)
{
	static struct iocb io[MANY];
	int fd = testdev_open("c1", 0);
	struct aio aio;
	unsigned int i;

	aio_begin(_metadata, &aio, &raio, MANY);
	testdev_cmd("c1 cancel yes");
	testdev_cmd("c1 mode hang");
	for (i = 0; i < MANY; i++) {
		iocb_prep(&io[i], IOCB_CMD_PREAD, fd, self->buf, LEN, 0);
		ASSERT_EQ(1, aio_submit_one(&aio, &io[i]));
	}
	EXPECT_EQ(MANY, testdev_stat("c1", "held"));
	ASSERT_EQ(0, aio_destroy(&aio, aio.ctx));
	aio.ctx = 0;
	testdev_cmd("c1 wait ended %u", MANY);
	EXPECT_EQ(MANY, testdev_stat("c1", "cancelled"));
	EXPECT_GE(256, testdev_stat("c1", "interrupting"));
	aio_end(_metadata, &aio);
	close(fd);
}

/* A caller that waits, and doesn't when it is killed. */
TEST_F(plain, killed)
{
	int fd = testdev_open("c0", 0);
	pid_t pid[2];
	int i;

	testdev_cmd("c0 mode hang");
	for (i = 0; i < 2; i++) {
		pid[i] = fork();
		if (!pid[i]) {
			if (pread(fd, self->buf, LEN, 0) != LEN)
				_exit(1);
			_exit(0);
		}
		testdev_cmd("c0 wait held %d", i + 1);
	}
	kill(pid[0], SIGKILL);
	EXPECT_TRUE(WIFSIGNALED(wait_child(pid[0])));
	EXPECT_EQ(1, testdev_stat("c0", "held"));
	testdev_cmd("c0 complete 1");
	EXPECT_EQ(0, wait_child(pid[1]));
	testdev_cmd("c0 wait ended 2");
	EXPECT_EQ(1, testdev_stat("c0", "cancelled"));
	close(fd);
}

/* The same while that request is being completed: one of both it is. */
TEST_F(plain, killed_while_completed)
{
	int fd = testdev_open("c0", 0);
	int i, status;
	pid_t pid;

	for (i = 0; i < 100; i++) {
		testdev_cmd("c0 mode %s", i % 2 ? "hang" : "timer 300000");
		pid = fork();
		if (!pid)
			_exit(pread(fd, self->buf, LEN, 0) != LEN);
		testdev_cmd("c0 wait started %d", i + 1);
		if (i % 4 == 1)
			usleep(i);
		kill(pid, SIGKILL);
		testdev_cmd("c0 complete all");
		status = wait_child(pid);
		EXPECT_TRUE(status == 0 || WIFSIGNALED(status));
	}
	testdev_cmd("c0 wait ended 100");
	EXPECT_EQ(100, testdev_stat("c0", "started"));
	EXPECT_EQ(100, testdev_stat("c0", "ended"));
	EXPECT_EQ(0, testdev_stat("c0", "held"));
	close(fd);
}

TEST_F(plain, devices_are_separate)
{
	int c0 = testdev_open("c0", 0), c1 = testdev_open("c1", 0);
	int b0 = testdev_open("b0", O_DIRECT), b1 = testdev_open("b1", O_DIRECT);

	memset(self->want, 1, LEN);
	ASSERT_EQ(LEN, pwrite(c0, self->want, LEN, 0));
	ASSERT_EQ(LEN, pwrite(b0, self->want, LEN, 0));
	memset(self->want, 2, LEN);
	ASSERT_EQ(LEN, pwrite(c1, self->want, LEN, 0));
	ASSERT_EQ(LEN, pwrite(b1, self->want, LEN, 0));
	ASSERT_EQ(LEN, pread(c0, self->buf, LEN, 0));
	EXPECT_EQ(-1, filled_check(self->buf, LEN, 1));
	ASSERT_EQ(LEN, pread(b0, self->buf, LEN, 0));
	EXPECT_EQ(-1, filled_check(self->buf, LEN, 1));
	ASSERT_EQ(LEN, pread(c1, self->buf, LEN, 0));
	EXPECT_EQ(-1, filled_check(self->buf, LEN, 2));
	ASSERT_EQ(LEN, pread(b1, self->buf, LEN, 0));
	EXPECT_EQ(-1, filled_check(self->buf, LEN, 2));
	/* The end of a disk, which nobody has written to. */
	ASSERT_EQ(LEN, pread(b1, self->buf, LEN, TESTDEV_DISK_SIZE - LEN));
	EXPECT_EQ(-1, filled_check(self->buf, LEN, 0));
	EXPECT_EQ(0, pread(b1, self->buf, LEN, TESTDEV_DISK_SIZE));
	close(c0);
	close(c1);
	close(b0);
	close(b1);
}

/* Neighbours that are submitted together don't become one request. */
TEST_F(plain, not_merged)
{
	struct iocb io[8], *iop[8];
	struct io_event ev[8];
	struct aio aio;
	int fd = testdev_open("b1", O_DIRECT);
	int i;

	aio_begin(_metadata, &aio, &kernel_aio, 8);
	testdev_cmd("b1 reset");
	for (i = 0; i < 8; i++) {
		iocb_prep(&io[i], IOCB_CMD_PWRITE, fd, self->buf + i * LEN, LEN, i * LEN);
		iop[i] = &io[i];
	}
	ASSERT_EQ(8, aio_submit(&aio, 8, iop));
	ASSERT_EQ(8, aio_wait(&aio, 8, ev));
	testdev_cmd("b1 wait ended 8");
	EXPECT_EQ(8, testdev_stat("b1", "started"));

	/* Nor is one of 1 MiB cut. */
	iocb_prep(&io[0], IOCB_CMD_PWRITE, fd, self->buf, TESTDEV_CHAR_SIZE, 0);
	ASSERT_EQ(1, aio_submit(&aio, 1, iop));
	ASSERT_EQ(1, aio_wait(&aio, 1, ev));
	EXPECT_EQ(TESTDEV_CHAR_SIZE, ev[0].res);
	testdev_cmd("b1 wait ended 9");
	EXPECT_EQ(9, testdev_stat("b1", "started"));
	aio_end(_metadata, &aio);
	close(fd);
}

#define UNUSED " held=0 started=0 ended=0 cancelled=0 interrupting=0 failed=0" \
	" refused=0 shortened=0 ioprio=0 protected=0 polled=0 woken=0"

TEST_F(plain, bad_commands)
{
	static const char * const bad[] = {
		"", " ", "\n", "c2 reset", "c reset", "c0", "c0 ", "b0 nonsense", "C0 reset",
		"c0 mode", "c0 mode later", "c0 mode timer", "c0 mode timer x", "c0 mode timer -1",
		"c0 mode timer 9223372036854775808", "c0 mode now now", "c0 cancel", "c0 cancel maybe",
		"b0 cancel yes", "b1 short 1 1", "c0 short 1", "c0 short all", "c0 short 1 -1",
		"c0 complete", "c0 complete -1", "c0 complete some", "c0 complete 1 1", "c0 fail 1",
		"c0 fail 1 0", "c0 fail 1 -5", "c0 fail 1 4096", "c0 fail all 5 5", "c0 nowait",
		"c0 nowait x", "c0 wait", "c0 wait held", "c0 wait for 1", "c0 wait held all",
		"c0 wait held 0 0", "c0 reset now", "\xff\xff", "c0 ready", "c0 ready -1",
		"c0 ready 65536", "c0 ready 1 1", "b0 ready 1", "c0 queues", "c0 queues 4",
		"c0 queues x", "c0 queues 012301230", "c0 queues 0 1", "c0 wake", "c0 wake 0",
		"c0 wake 4 1", "c0 wake 0 x", "c0 wake 0 1 1", "b1 wake 0 1", "c0 fire 0",
		"c0 during 1", "c0 during 1 wake 0", "c0 during fire 0 1", "c0 soft 1 fire 0 1",
		"c0 soft 1 1 nothing 0 1", "c0 hard 1 -1 fire 0 1", "c0 hard 1 1 fire 0 1 1",
		"c0 free", "c0 free 4", "c0 free 0 0", "c0 wait polled", "b0 wait polled 0",
	};
	char line[256];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, testdev_try("%s", bad[i])) {
			TH_LOG("\"%s\"", bad[i]);
		}
	}
	EXPECT_EQ(-EINVAL, testdev_try("c0 reset %200s", ""));
	testdev_line(_metadata, "c0", line, sizeof(line));
	EXPECT_STREQ("c0 mode=now" UNUSED, line);

	/* And some that are good. */
	testdev_cmd("c0 mode timer 9223372036854775807\n");
	testdev_cmd("  c0\tmode  hang  ");
	testdev_line(_metadata, "c0", line, sizeof(line));
	EXPECT_STREQ("c0 mode=hang" UNUSED, line);
	testdev_cmd("c0 wait held 0");
	testdev_cmd("c0 complete all");
}

/* Polling and syncing the character devices. */

#define DEFAULT_MASK	(POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM)

/* What poll(2) says within @ms, of everything that it can say. */
static int polled(int fd, int ms)
{
	struct pollfd pfd = { .fd = fd, .events = 0xfff };
	int ret = ret_errno(poll(&pfd, 1, ms));

	return ret < 1 ? ret : pfd.revents;
}

TEST_F(plain, poll_says_what_it_is_told)
{
	static const int masks[] = { 0, POLLIN, POLLOUT, POLLERR | POLLHUP, POLLPRI, 0xf };
	int c0 = testdev_open("c0", 0), c1 = testdev_open("c1", 0);
	unsigned int i;

	EXPECT_EQ(DEFAULT_MASK, polled(c0, 0));
	for (i = 0; i < ARRAY_SIZE(masks); i++) {
		testdev_cmd("c0 ready %d", masks[i]);
		EXPECT_EQ(masks[i], polled(c0, 0));
		EXPECT_EQ(DEFAULT_MASK, polled(c1, 0));
	}
	EXPECT_EQ(1 + i, testdev_stat("c0", "polled"));
	EXPECT_EQ(i, testdev_stat("c1", "polled"));
	EXPECT_EQ(0, testdev_stat("c0", "woken"));
	/* With nothing to wait on it is only the time that ends it. */
	testdev_cmd("c0 ready 0");
	testdev_cmd("c0 queues none");
	EXPECT_EQ(0, polled(c0, 1));
	testdev_cmd("c0 reset");
	EXPECT_EQ(DEFAULT_MASK, polled(c0, 0));
	close(c0);
	close(c1);
}

struct polling {
	int fd;
	pid_t tid;
	int ret;
};

static void *polling_thread(void *data)
{
	struct polling *p = data;

	__atomic_store_n(&p->tid, gettid(), __ATOMIC_RELEASE);
	p->ret = polled(p->fd, WAIT_SECONDS * 1000);
	return NULL;
}

/* From everywhere, whichever queue it is. */
TEST_F(plain, poll_is_woken)
{
	static const char * const how[] = {
		"fire 0 1", "fire 2 4", "soft 1 1000 fire 0 1", "hard 1 1000 fire 2 1",
		"hard 3 100000 fire 3 16", "soft 5 1000 fire 2 8",
	};
	static const int want[] = { POLLIN, POLLOUT, POLLIN, POLLIN, POLLHUP, POLLERR };
	static const int wakes[] = { 1, 1, 1, 1, 3, 5 };
	struct polling p = { .fd = testdev_open("c0", 0) };
	pthread_t thread;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(how); i++) {
		testdev_cmd("c0 reset");
		testdev_cmd("c0 ready 0");
		testdev_cmd("c0 queues 0233");
		p.tid = 0;
		ASSERT_EQ(0, pthread_create(&thread, NULL, polling_thread, &p));
		testdev_cmd("c0 wait polled 1");
		ASSERT_TRUE(wait_for(__atomic_load_n(&p.tid, __ATOMIC_ACQUIRE) &&
				     task_sleeps(p.tid)));
		/* It isn't there, and then it looks and there is nothing. */
		testdev_cmd("c0 wake 1 0");
		testdev_cmd("c0 wake 0 0");
		testdev_cmd("c0 wait polled 2");
		testdev_cmd("c0 %s", how[i]);
		pthread_join(thread, NULL);
		EXPECT_EQ(want[i], p.ret);
		testdev_cmd("c0 wait woken %d", 2 + wakes[i]);
		EXPECT_EQ(2 + wakes[i], testdev_stat("c0", "woken"));
	}
	close(p.fd);
}

/* What becomes ready inside of the method isn't in what it says. */
TEST_F(plain, poll_is_woken_inside)
{
	int fd = testdev_open("c0", 0);
	unsigned int i;

	testdev_cmd("c0 ready 0");
	testdev_cmd("c0 during 2 wake 0 1");
	for (i = 0; i < 4; i++)
		EXPECT_EQ(0, polled(fd, 0));
	EXPECT_EQ(2, testdev_stat("c0", "woken"));
	testdev_cmd("c0 during 1 fire 0 1");
	EXPECT_EQ(0, polled(fd, 0));
	EXPECT_EQ(POLLIN, polled(fd, 0));
	testdev_cmd("c0 ready 0");
	testdev_cmd("c0 during 1 fire 0 1");
	EXPECT_EQ(POLLIN, polled(fd, -1));
	close(fd);
}

/* epoll lets go of a queue that is freed, and so does not hear of the new one. */
TEST_F(plain, queue_is_freed)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
	int fd = testdev_open("c0", 0), ep = epoll_create1(EPOLL_CLOEXEC);
	unsigned int i;

	ASSERT_LE(0, ep);
	for (i = 0; i < 4; i++) {
		testdev_cmd("c0 ready 0");
		testdev_cmd("c0 queues %u", i);
		ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
		testdev_cmd("c0 fire %u 1", i);
		EXPECT_EQ(1, epoll_wait(ep, &ev, 1, 0));
		testdev_cmd("c0 free %u", i);
		/* Told of that, it looks once more. */
		EXPECT_EQ(1, epoll_wait(ep, &ev, 1, 0));
		testdev_cmd("c0 fire %u 1", i);
		EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
		ev.events = EPOLLIN | EPOLLET;
		ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_DEL, fd, &ev));
	}
	close(ep);
	close(fd);
}

struct syncing {
	int fd;
	long ret;
};

static void *syncing_thread(void *data)
{
	struct syncing *s = data;

	s->ret = ret_errno(fsync(s->fd));
	return NULL;
}

TEST_F(plain, fsync)
{
	struct syncing s = { .fd = testdev_open("c0", 0) };
	pthread_t thread;
	pid_t pid;

	EXPECT_EQ(0, fsync(s.fd));
	testdev_cmd("c0 mode softirq");
	EXPECT_EQ(0, fdatasync(s.fd));
	testdev_cmd("c0 mode hang");
	ASSERT_EQ(0, pthread_create(&thread, NULL, syncing_thread, &s));
	testdev_cmd("c0 wait held 1");
	testdev_cmd("c0 complete 1");
	pthread_join(thread, NULL);
	EXPECT_EQ(0, s.ret);
	ASSERT_EQ(0, pthread_create(&thread, NULL, syncing_thread, &s));
	testdev_cmd("c0 wait held 1");
	testdev_cmd("c0 fail 1 %d", EIO);
	pthread_join(thread, NULL);
	EXPECT_EQ(-EIO, s.ret);
	EXPECT_EQ(4, testdev_stat("c0", "ended"));

	pid = fork();
	if (!pid)
		_exit(fsync(s.fd));
	testdev_cmd("c0 wait held 1");
	kill(pid, SIGKILL);
	EXPECT_TRUE(WIFSIGNALED(wait_child(pid)));
	EXPECT_EQ(0, testdev_stat("c0", "held"));
	EXPECT_EQ(1, testdev_stat("c0", "cancelled"));
	close(s.fd);
}

/* ext4 on a loop device on a disk, each part of which can be held. */

#define LOOP_MNT	"/mnt/raio-testdev"

static int loop_over(struct __test_metadata *_metadata, const char *dev, char *node, size_t size)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	struct loop_config config = {
		.fd = testdev_open(dev, 0),
		.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
	};
	int nr, fd;

	ASSERT_LE(0, control);
	nr = ioctl(control, LOOP_CTL_GET_FREE);
	ASSERT_LE(0, nr);
	close(control);
	snprintf(node, size, "/dev/loop%d", nr);
	fd = open(node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd) {
		TH_LOG("%s: %s", node, strerror(errno));
	}
	ASSERT_EQ(0, ioctl(fd, LOOP_CONFIGURE, &config)) {
		TH_LOG("%s over %s: %s", node, testdev_path(dev), strerror(errno));
	}
	close(config.fd);
	return fd;
}

TEST_F(plain, ext4_on_loop)
{
	size_t size = 256 * 1024, i, n = size / LEN / 4;
	struct io_event ev[16];
	struct iocb io[16];
	struct aio aio;
	char node[64], cmd[128];
	int loop, fd;

	ASSERT_EQ(16, n);
	loop = loop_over(_metadata, "b0", node, sizeof(node));
	snprintf(cmd, sizeof(cmd), "mkfs.ext4 -q -F %s 65536", node);
	ASSERT_EQ(0, system(cmd));
	mkdir(LOOP_MNT, 0755);
	ASSERT_EQ(0, mount(node, LOOP_MNT, "ext4", 0, NULL)) {
		TH_LOG("%s: %s", node, strerror(errno));
	}
	close(loop);

	fd = open(LOOP_MNT "/file", O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
	ASSERT_LE(0, fd);
	pattern_fill(self->want, size, 0, SEED_A);
	ASSERT_EQ(size, pwrite(fd, self->want, size, 0));
	ASSERT_EQ(0, fsync(fd));

	/* What is written to blocks that are there waits for nothing but the disk. */
	aio_begin(_metadata, &aio, &raio, 16);
	testdev_cmd("b0 reset");
	pattern_fill(self->want, size, 0, SEED_B);
	testdev_cmd("b0 mode hang");
	for (i = 0; i < n; i++) {
		struct iocb *iop = &io[i];

		iocb_prep(iop, IOCB_CMD_PWRITE, fd, self->want + i * LEN * 4, LEN * 4,
			  i * LEN * 4);
		ASSERT_EQ(1, aio_submit(&aio, 1, &iop));
	}
	testdev_cmd("b0 wait held 1");
	EXPECT_EQ(0, aio_poll(&aio, 16, ev));
	testdev_cmd("b0 mode timer 100000");
	testdev_cmd("b0 complete all");
	ASSERT_EQ(n, aio_wait(&aio, n, ev));
	for (i = 0; i < n; i++)
		EXPECT_EQ(LEN * 4, ev[i].res);
	aio_end(_metadata, &aio);
	ASSERT_EQ(size, pread(fd, self->buf, size, 0));
	EXPECT_EQ(-1, pattern_check(self->buf, size, 0, SEED_B));
	close(fd);

	testdev_cmd("b0 mode softirq");
	ASSERT_EQ(0, umount(LOOP_MNT));
	ASSERT_EQ(0, mount(testdev_path("b0"), LOOP_MNT, "ext4", 0, NULL));
	fd = open(LOOP_MNT "/file", O_RDONLY | O_CLOEXEC);
	ASSERT_EQ(size, read(fd, self->buf, size));
	EXPECT_EQ(-1, pattern_check(self->buf, size, 0, SEED_B));
	close(fd);
	ASSERT_EQ(0, umount(LOOP_MNT));
	rmdir(LOOP_MNT);
}

TEST_HARNESS_MAIN
