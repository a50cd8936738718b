// SPDX-License-Identifier: GPL-2.0
/*
 * Programs of 32 bits and of 64 on the same kernel. This one is built as both.
 * Structures and numbers are the same for either; what is a word of the caller
 * in kernel AIO is one here, and nothing more is read or written; what has 64
 * bits is never cut to 32. Built as 64 bits it also makes the calls of 32.
 */
#include <poll.h>
#include <sys/uio.h>

#include "raio_test.h"

static_assert(RAIO_IOC_QUERY == 0xc038bd00, "number of QUERY");
static_assert(RAIO_IOC_SETUP == 0xc038bd02, "number of SETUP");
static_assert(RAIO_IOC_DESTROY == 0x4010bd03, "number of DESTROY");
static_assert(RAIO_IOC_SUBMIT == 0x4020bd04, "number of SUBMIT");
static_assert(RAIO_IOC_GETEVENTS == 0x4048bd05, "number of GETEVENTS");
static_assert(RAIO_IOC_CANCEL == 0x4018bd06, "number of CANCEL");
static_assert(sizeof(struct raio_stats) % sizeof(__u64) == 0, "padding in STATS");
static_assert(sizeof(struct raio_ring) == 32, "size of the ring's head");
static_assert(sizeof(struct iocb) == 64, "size of an iocb");
static_assert(sizeof(struct io_event) == 32, "size of an event");
static_assert(sizeof(aio_context_t) == sizeof(void *), "a handle is a word");

/* What makes another address of one; only the first is possible with 64 bits. */
static const __u64 high[] = {
	1ULL << 63,
#if __BITS_PER_LONG == 32
	1ULL << 32, 0xffffffffULL << 32,
#endif
};

FIXTURE(compat)
{
	struct aio aio;
	int zero;
	char *buf;
};

FIXTURE_VARIANT(compat)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(compat, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(compat, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(compat)
{
	aio_begin(_metadata, &self->aio, variant->ops, 8);
	self->zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->zero);
	self->buf = map_before_hole(PAGE);
	memset(self->buf, 'x', PAGE);
}

FIXTURE_TEARDOWN(compat)
{
	aio_end(_metadata, &self->aio);
	close(self->zero);
}

/* The handle is stored in a word that is the last of its page, */
TEST_F(compat, handle_is_a_word)
{
	aio_context_t *words = map_before_hole(2 * sizeof(*words));

	words[0] = 5;
	ASSERT_EQ(0, aio_setup(&self->aio, 1, &words[1]));
	EXPECT_EQ(5, words[0]);
	EXPECT_EQ(RAIO_RING_MAGIC, aio_ring(words[1])->magic);
	EXPECT_EQ(0, aio_destroy(&self->aio, words[1]));
}

/* or before one that isn't zero. */
TEST_F(compat, only_a_word)
{
	aio_context_t words[] = { 0, 5 };

	ASSERT_EQ(0, aio_setup(&self->aio, 1, words));
	EXPECT_EQ(5, words[1]);
	EXPECT_EQ(0, aio_destroy(&self->aio, words[0]));
}

TEST_F(compat, iocbs_are_words)
{
	struct iocb **iop = map_before_hole(3 * sizeof(*iop));
	struct io_event ev[4];
	struct iocb io[3];
	unsigned int i;

	for (i = 0; i < 3; i++) {
		iocb_prep(&io[i], IOCB_CMD_PREAD, self->zero, self->buf, i + 1, 0);
		iop[i] = &io[i];
	}
	EXPECT_EQ(3, aio_submit(&self->aio, 3, iop));
	EXPECT_EQ(3, aio_wait(&self->aio, 3, ev));
	for (i = 0; i < 3; i++)
		EXPECT_EVENT(&ev[i], &io[i], i + 1);
	/* The array ends where the memory does. */
	EXPECT_EQ(3, aio_submit(&self->aio, 4, iop));
	EXPECT_EQ(3, aio_wait(&self->aio, 3, ev));
}

TEST_F(compat, vectors_are_of_words)
{
	struct iovec *iov = map_before_hole(2 * sizeof(*iov));
	unsigned int i;
	struct iocb io;

	iov[0] = (struct iovec){ self->buf + 8, 16 };
	iov[1] = (struct iovec){ self->buf + 40, 24 };
	iocb_prep(&io, IOCB_CMD_PREADV, self->zero, iov, 2, 0);
	EXPECT_RESULT(40, &self->aio, &io);
	for (i = 0; i < 72; i++)
		EXPECT_EQ((i >= 8 && i < 24) || (i >= 40 && i < 64) ? 0 : 'x', self->buf[i]);
	/* There is no third. */
	io.aio_nbytes = 3;
	EXPECT_REFUSED(-EFAULT, &self->aio, &io);
}

/* Either at once, or when it is used. */
TEST_F(compat, buffer_is_not_cut)
{
	struct iovec iov = { self->buf, 8 };
	struct iocb io;
	unsigned int i;

	for (i = 0; i < 2 * ARRAY_SIZE(high); i++) {
		long long res = 0x5555;
		long ret;

		if (i % 2)
			iocb_prep(&io, IOCB_CMD_PREADV, self->zero, &iov, 1, 0);
		else
			iocb_prep(&io, IOCB_CMD_PREAD, self->zero, self->buf, 8, 0);
		io.aio_buf |= high[i / 2];
		ret = aio_run(_metadata, &self->aio, &io, &res);
		EXPECT_EQ(-EFAULT, ret ?: res);
	}
	EXPECT_EQ(-1, filled_check(self->buf, PAGE, 'x'));
}

/* More than there can be: it ends where the memory does. */
TEST_F(compat, length_is_not_cut)
{
	struct iocb io;

	iocb_prep(&io, IOCB_CMD_PREAD, self->zero, self->buf, 8, 0);
	io.aio_nbytes |= 1ULL << 32;
	EXPECT_RESULT(PAGE, &self->aio, &io);
	EXPECT_EQ(-1, filled_check(self->buf, PAGE, 0));
}

TEST_F(compat, offset_is_not_cut)
{
	const long long offset = 5LL << 30;
	int fd = temp_file(tmpfs_dir(), O_RDWR);
	struct stat st;
	struct iocb io;

	ASSERT_LE(0, fd);
	iocb_prep(&io, IOCB_CMD_PWRITE, fd, self->buf, 8, offset);
	EXPECT_RESULT(8, &self->aio, &io);
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(offset + 8, st.st_size);
	memset(self->buf, 0, PAGE);
	io.aio_lio_opcode = IOCB_CMD_PREAD;
	EXPECT_RESULT(8, &self->aio, &io);
	EXPECT_EQ(-1, filled_check(self->buf, 8, 'x'));
	/* There is nothing but a hole at the lower half of it. */
	io.aio_offset = (__u32)offset;
	EXPECT_RESULT(8, &self->aio, &io);
	EXPECT_EQ(-1, filled_check(self->buf, 8, 0));
	close(fd);
}

TEST_F(compat, data_is_not_cut)
{
	struct io_event ev;
	struct iocb io;

	iocb_prep(&io, IOCB_CMD_PREAD, self->zero, self->buf, 8, 0);
	io.aio_data = 0xfedcba9876543210ULL;
	ASSERT_EQ(1, aio_submit_one(&self->aio, &io));
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_EVENT(&ev, &io, 8);
	EXPECT_EQ(0xfedcba9876543210ULL, ev.data);
}

#if __BITS_PER_LONG == 32
/* In the upper half of its nanoseconds a program may leave anything. */
TEST_F(compat, padding_of_a_timeout)
{
	struct __kernel_timespec timeout = { .tv_nsec = 0x5a5a5a5aULL << 32 | 1000000 };
	long long begin = now_ns();
	struct io_event ev;

	EXPECT_EQ(0, aio_getevents(&self->aio, 1, 1, &ev, &timeout));
	EXPECT_LE(1000000, now_ns() - begin);
	timeout.tv_nsec = -1ULL << 32;
	EXPECT_EQ(0, aio_getevents(&self->aio, 1, 1, &ev, &timeout));
}
#endif

/* Raio's structures, in which addresses have 64 bits. */
FIXTURE(fields)
{
	struct aio aio;
	int zero;
	char buf[8];
	struct iocb io;
	struct iocb *iop[1];
	struct io_event ev;
	struct __kernel_timespec now;
	sigset_t mask;
};

FIXTURE_SETUP(fields)
{
	aio_begin(_metadata, &self->aio, &raio, 8);
	self->zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->zero);
	iocb_prep(&self->io, IOCB_CMD_PREAD, self->zero, self->buf, sizeof(self->buf), 0);
	self->iop[0] = &self->io;
	sigemptyset(&self->mask);
}

FIXTURE_TEARDOWN(fields)
{
	aio_end(_metadata, &self->aio);
	close(self->zero);
}

TEST_F(fields, ctxp)
{
	aio_context_t ctx = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(high); i++) {
		struct raio_setup arg = { .nr_events = 1, .ctxp = (uintptr_t)&ctx | high[i] };

		EXPECT_EQ(-EFAULT, raio_ioctl(self->aio.dev, RAIO_IOC_SETUP, &arg));
		EXPECT_EQ(0, ctx);
	}
}

TEST_F(fields, submit)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(high); i++) {
		struct raio_submit arg = {
			.ctx = self->aio.ctx | high[i], .nr = 1, .iocbs = (uintptr_t)self->iop,
		};

		EXPECT_EQ(-EINVAL, raio_ioctl(self->aio.dev, RAIO_IOC_SUBMIT, &arg));
		arg.ctx = self->aio.ctx;
		arg.iocbs |= high[i];
		EXPECT_EQ(-EFAULT, raio_ioctl(self->aio.dev, RAIO_IOC_SUBMIT, &arg));
		/* A number of which nothing is left in the lower half, and no array. */
		arg.iocbs = (uintptr_t)map_before_hole(0);
		arg.nr = high[i];
		EXPECT_EQ((__s64)high[i] < 0 ? -EINVAL : -EFAULT,
			  raio_ioctl(self->aio.dev, RAIO_IOC_SUBMIT, &arg));
	}
}

TEST_F(fields, getevents)
{
	unsigned int i;

	ASSERT_EQ(1, aio_submit_one(&self->aio, &self->io));
	for (i = 0; i < ARRAY_SIZE(high); i++) {
		const struct raio_getevents good = {
			.ctx = self->aio.ctx,
			.min_nr = 1,
			.nr = 1,
			.events = (uintptr_t)&self->ev,
			.timeout = (uintptr_t)&self->now,
			.sigmask = (uintptr_t)&self->mask,
			.sigsetsize = MASK_SIZE,
		};
		struct raio_getevents arg = good;

		arg.ctx |= high[i];
		EXPECT_EQ(-EINVAL, raio_ioctl(self->aio.dev, RAIO_IOC_GETEVENTS, &arg));
		arg = good;
		arg.events |= high[i];
		EXPECT_EQ(-EFAULT, raio_ioctl(self->aio.dev, RAIO_IOC_GETEVENTS, &arg));
		arg = good;
		arg.timeout |= high[i];
		EXPECT_EQ(-EFAULT, raio_ioctl(self->aio.dev, RAIO_IOC_GETEVENTS, &arg));
		arg = good;
		arg.sigmask |= high[i];
		EXPECT_EQ(-EFAULT, raio_ioctl(self->aio.dev, RAIO_IOC_GETEVENTS, &arg));
		arg = good;
		arg.min_nr = high[i];
		EXPECT_EQ(-EINVAL, raio_ioctl(self->aio.dev, RAIO_IOC_GETEVENTS, &arg));
	}
	ASSERT_EQ(1, aio_poll(&self->aio, 1, &self->ev));
	EXPECT_EVENT(&self->ev, &self->io, sizeof(self->buf));
}

TEST_F(fields, cancel)
{
	struct raio_cancel arg;
	unsigned int i;
	int fds[2];

	/* Nobody writes to it. */
	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	iocb_prep(&self->io, IOCB_CMD_POLL, fds[0], (void *)POLLIN, 0, 0);
	ASSERT_EQ(1, aio_submit_one(&self->aio, &self->io));
	for (i = 0; i < ARRAY_SIZE(high); i++) {
		arg = (struct raio_cancel){
			.ctx = self->aio.ctx | high[i], .iocb = (uintptr_t)&self->io,
		};
		EXPECT_EQ(-EINVAL, raio_ioctl(self->aio.dev, RAIO_IOC_CANCEL, &arg));
		arg.ctx = self->aio.ctx;
		arg.iocb |= high[i];
		EXPECT_EQ(-EFAULT, raio_ioctl(self->aio.dev, RAIO_IOC_CANCEL, &arg));
	}
	arg.iocb = (uintptr_t)&self->io;
	EXPECT_EQ(0, raio_ioctl(self->aio.dev, RAIO_IOC_CANCEL, &arg));
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &self->ev));
	EXPECT_EVENT(&self->ev, &self->io, -ECANCELED);
	close(fds[0]);
	close(fds[1]);
}

TEST_F(fields, destroy)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(high); i++) {
		struct raio_destroy arg = { .ctx = self->aio.ctx | high[i] };

		EXPECT_EQ(-EINVAL, raio_ioctl(self->aio.dev, RAIO_IOC_DESTROY, &arg));
	}
}

/* The handle is told twice, and is the same. */
TEST_F(fields, handle)
{
	aio_context_t ctx = 0;
	struct raio_setup arg = { .nr_events = 1, .ctxp = (uintptr_t)&ctx };

	ASSERT_EQ(0, raio_ioctl(self->aio.dev, RAIO_IOC_SETUP, &arg));
	EXPECT_EQ(ctx, arg.ctx);
	EXPECT_EQ(0, raio_destroy(self->aio.dev, ctx));
}

#ifdef __x86_64__
/* The calls of 32 bits, made by a program of 64. */

#define IA32_IOCTL	54

/**
 * struct low - what such a call can reach, all of it below 4 GiB
 * @words:	two words of 32 bits
 * @io:		requests
 * @buf:	for what they read
 * @setup:	arguments of calls
 * @submit:	the same
 * @getevents:	the same
 * @destroy:	the same
 * @timeout:	for getevents
 */
struct low {
	__u32 words[2];
	struct iocb io[2];
	char buf[8];
	struct raio_setup setup;
	struct raio_submit submit;
	struct raio_getevents getevents;
	struct raio_destroy destroy;
	struct __kernel_timespec timeout;
};

static long ia32_ioctl(int dev, unsigned long cmd, void *arg)
{
	long ret;

	asm volatile("int $0x80"
		     : "=a" (ret)
		     : "a" (IA32_IOCTL), "b" ((long)dev), "c" (cmd), "d" (arg)
		     : "memory", "r8", "r9", "r10", "r11");
	return ret;
}

FIXTURE(ia32)
{
	struct aio aio;
	int zero;
	struct low *low;
};

FIXTURE_SETUP(ia32)
{
	aio_open(_metadata, &self->aio, &raio);
	self->zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->zero);
	self->low = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	ASSERT_NE(MAP_FAILED, self->low);
	self->low->words[1] = 5;
	self->low->setup = (struct raio_setup){
		.nr_events = 8, .ctxp = (uintptr_t)self->low->words,
	};
	ASSERT_EQ(0, ia32_ioctl(self->aio.dev, RAIO_IOC_SETUP, &self->low->setup));
	self->aio.ctx = self->low->setup.ctx;
}

FIXTURE_TEARDOWN(ia32)
{
	aio_end(_metadata, &self->aio);
	close(self->zero);
}

/* Though there is room above, it fits into the word that is written. */
TEST_F(ia32, handle)
{
	EXPECT_EQ(self->low->words[0], self->low->setup.ctx);
	EXPECT_EQ(5, self->low->words[1]);
}

TEST_F(ia32, iocbs)
{
	struct low *low = self->low;
	struct io_event ev[2];
	unsigned int i;

	for (i = 0; i < 2; i++) {
		iocb_prep(&low->io[i], IOCB_CMD_PREAD, self->zero, low->buf, i + 1, 0);
		low->words[i] = (uintptr_t)&low->io[i];
	}
	low->submit = (struct raio_submit){
		.ctx = self->aio.ctx, .nr = 2, .iocbs = (uintptr_t)low->words,
	};
	EXPECT_EQ(2, ia32_ioctl(self->aio.dev, RAIO_IOC_SUBMIT, &low->submit));
	EXPECT_EQ(2, aio_wait(&self->aio, 2, ev));
	for (i = 0; i < 2; i++)
		EXPECT_EVENT(&ev[i], &low->io[i], i + 1);
}

TEST_F(ia32, padding_of_a_timeout)
{
	struct low *low = self->low;
	long long begin = now_ns();

	low->timeout.tv_nsec = 0x5a5a5a5aULL << 32 | 1000000;
	low->getevents = (struct raio_getevents){
		.ctx = self->aio.ctx,
		.min_nr = 1,
		.nr = 1,
		.events = (uintptr_t)low->io,
		.timeout = (uintptr_t)&low->timeout,
	};
	EXPECT_EQ(0, ia32_ioctl(self->aio.dev, RAIO_IOC_GETEVENTS, &low->getevents));
	EXPECT_LE(1000000, now_ns() - begin);
}

/* A ring may be moved to where no word of 32 bits tells of it; the field does. */
TEST_F(ia32, moved_above)
{
	const size_t size = self->low->setup.ring_size;
	void *to = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, to);
	ASSERT_LT(UINT_MAX, (uintptr_t)to);
	ASSERT_EQ(to, mremap((void *)self->aio.ctx, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
			     to));
	self->low->destroy.ctx = (__u32)(uintptr_t)to;
	EXPECT_EQ(-EINVAL, ia32_ioctl(self->aio.dev, RAIO_IOC_DESTROY, &self->low->destroy));
	self->low->destroy.ctx = (uintptr_t)to;
	EXPECT_EQ(0, ia32_ioctl(self->aio.dev, RAIO_IOC_DESTROY, &self->low->destroy));
	self->aio.ctx = 0;
}
#endif

TEST_HARNESS_MAIN
