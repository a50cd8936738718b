// SPDX-License-Identifier: GPL-2.0
/*
 * Vectored reads and writes: how many segments there may be and how long, what
 * comes of bad ones, where the data goes, and that the array of segments is the
 * caller's again when submit returns. What readv(2) and writev(2) return is
 * compared with, and so is the largest of everything that a request can ask for,
 * in one buffer too.
 */
#include <sys/resource.h>

#include "raio_target.h"
#include "raio_testdev.h"

#define EVENTS		16
#define CANARY		0x5a
/* The kernel's limits: segments, those it has room for without allocating, bytes. */
#define SEGS_MAX	1024
#define SEGS_FAST	8
#define BYTES_MAX	(INT_MAX & ~(PAGE - 1))
/* Whether a pointer can be one that no program can have: not if it has 32 bits. */
#define FAR_POINTERS	(sizeof(void *) > 4)

static const unsigned int counts[] = {
	0, 1, 2, SEGS_FAST - 1, SEGS_FAST, SEGS_FAST + 1, 100, SEGS_MAX - 1, SEGS_MAX,
};

FIXTURE(vectors)
{
	struct aio aio;
	struct target t;
	/* FILE_SIZE bytes twice, so that there is room between segments. */
	char *buf;
	struct iovec iov[SEGS_MAX + 1];
};

FIXTURE_VARIANT(vectors)
{
	const struct aio_ops *ops;
	enum where where;
	int flags;
};

FIXTURE_VARIANT_ADD(vectors, kernel_aio_tmpfs)
{
	.ops = &kernel_aio, .where = TMPFS,
};

FIXTURE_VARIANT_ADD(vectors, raio_tmpfs)
{
	.ops = &raio, .where = TMPFS,
};

FIXTURE_VARIANT_ADD(vectors, kernel_aio_ext4_direct)
{
	.ops = &kernel_aio, .where = EXT4, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(vectors, raio_ext4_direct)
{
	.ops = &raio, .where = EXT4, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(vectors, kernel_aio_xfs)
{
	.ops = &kernel_aio, .where = XFS,
};

FIXTURE_VARIANT_ADD(vectors, raio_xfs)
{
	.ops = &raio, .where = XFS,
};

FIXTURE_VARIANT_ADD(vectors, kernel_aio_null_blk)
{
	.ops = &kernel_aio, .where = NULL_BLK, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(vectors, raio_null_blk)
{
	.ops = &raio, .where = NULL_BLK, .flags = O_DIRECT,
};

FIXTURE_SETUP(vectors)
{
	self->t.where = variant->where;
	self->t.flags = variant->flags;
	target_open(_metadata, &self->t);
	target_fill(_metadata, &self->t, FILE_SIZE, SEED_OLD);
	self->buf = map_pages(2 * FILE_SIZE);
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
}

FIXTURE_TEARDOWN(vectors)
{
	aio_end(_metadata, &self->aio);
	target_close(&self->t);
}

/* @nr segments of a block each, the last where memory begins, with room between. */
static void backwards(struct iovec *iov, char *buf, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		iov[i].iov_base = buf + (nr - 1 - i) * 2 * BLOCK;
		iov[i].iov_len = BLOCK;
	}
}

/* What the segments of backwards() hold, and what is between them. */
static void expect_backwards(struct __test_metadata *_metadata, const struct iovec *iov,
			     unsigned int nr, uint64_t offset, uint64_t seed)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		const char *p = iov[i].iov_base;

		EXPECT_EQ(-1, pattern_check(p, BLOCK, offset + i * BLOCK, seed)) {
			TH_LOG("segment %u of %u", i, nr);
		}
		EXPECT_EQ(-1, filled_check(p + BLOCK, BLOCK, CANARY)) {
			TH_LOG("behind segment %u of %u", i, nr);
		}
	}
}

TEST_F(vectors, write)
{
	char *seen = self->buf + FILE_SIZE;
	unsigned int i, j;
	struct iocb io;

	for (i = 0; i < ARRAY_SIZE(counts); i++) {
		const size_t len = counts[i] * BLOCK;

		backwards(self->iov, self->buf, counts[i]);
		for (j = 0; j < counts[i]; j++)
			pattern_fill(self->iov[j].iov_base, BLOCK, PAGE + j * BLOCK, SEED_NEW + i);
		iocb_prep(&io, IOCB_CMD_PWRITEV, self->t.fd, self->iov, counts[i], PAGE);
		EXPECT_RESULT(len, &self->aio, &io);
		ASSERT_EQ(len + 2 * PAGE, pread(self->t.fd, seen, len + 2 * PAGE, 0));
		EXPECT_EQ(-1, pattern_check(seen, PAGE, 0, SEED_OLD));
		EXPECT_EQ(-1, pattern_check(seen + PAGE, len, PAGE, SEED_NEW + i)) {
			TH_LOG("%u segments", counts[i]);
		}
		EXPECT_EQ(-1, pattern_check(seen + PAGE + len, PAGE, PAGE + len, SEED_OLD));
		/* As it was, for the next. */
		pattern_fill(seen, len, PAGE, SEED_OLD);
		ASSERT_EQ(len, pwrite(self->t.fd, seen, len, PAGE));
	}
}

TEST_F(vectors, read)
{
	unsigned int i;
	struct iocb io;

	for (i = 0; i < ARRAY_SIZE(counts); i++) {
		memset(self->buf, CANARY, 2 * counts[i] * BLOCK);
		backwards(self->iov, self->buf, counts[i]);
		iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, self->iov, counts[i], PAGE);
		EXPECT_RESULT(counts[i] * BLOCK, &self->aio, &io);
		expect_backwards(_metadata, self->iov, counts[i], PAGE, SEED_OLD);
	}
}

/* Many at once, each of them with an array of its own. */
TEST_F(vectors, many)
{
	struct iovec iov[EVENTS][SEGS_FAST + 1];
	struct iocb io[EVENTS], *iop[EVENTS];
	struct io_event ev[EVENTS];
	unsigned int i;

	memset(self->buf, CANARY, FILE_SIZE);
	for (i = 0; i < EVENTS; i++) {
		/* Half of them have more than there is room for without allocating. */
		const unsigned int nr = SEGS_FAST + i % 2;

		backwards(iov[i], self->buf + i * 8 * PAGE, nr);
		iocb_prep(&io[i], IOCB_CMD_PREADV, self->t.fd, iov[i], nr, i * 8 * PAGE);
		iop[i] = &io[i];
	}
	ASSERT_EQ(EVENTS, aio_submit(&self->aio, EVENTS, iop));
	memset(iov, 0xff, sizeof(iov));
	ASSERT_EQ(EVENTS, aio_wait(&self->aio, EVENTS, ev));
	for (i = 0; i < EVENTS; i++) {
		const unsigned int n = event_iocb(&ev[i]) - io;

		ASSERT_GT(EVENTS, n);
		EXPECT_EVENT(&ev[i], &io[n], (SEGS_FAST + n % 2) * BLOCK);
		backwards(iov[n], self->buf + n * 8 * PAGE, SEGS_FAST + n % 2);
		expect_backwards(_metadata, iov[n], SEGS_FAST + n % 2, n * 8 * PAGE, SEED_OLD);
	}
}

TEST_F(vectors, too_many)
{
	const unsigned long long nrs[] = {
		SEGS_MAX + 1, 2 * SEGS_MAX, INT_MAX, UINT_MAX, LLONG_MAX,
	};
	struct iocb io;
	unsigned int i;

	backwards(self->iov, self->buf, SEGS_MAX + 1);
	for (i = 0; i < ARRAY_SIZE(nrs); i++) {
		iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, self->iov, 0, 0);
		io.aio_nbytes = nrs[i];
		EXPECT_REFUSED(-EINVAL, &self->aio, &io);
		/* The array is not looked at. */
		io.aio_buf = KERNEL_ADDR;
		EXPECT_REFUSED(-EINVAL, &self->aio, &io);
		io.aio_lio_opcode = IOCB_CMD_PWRITEV;
		EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	}
	/* More than that is no length of anything. */
	io.aio_nbytes = 1ULL << 63;
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
}

/*
 * raio differs: of the number kernel AIO, as readv(2), only looks at the lower
 * half.
 */
TEST_F(vectors, too_many_by_far)
{
	struct iocb io;

	backwards(self->iov, self->buf, 1);
	iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, self->iov, 0, 0);
	io.aio_nbytes = (1ULL << 32) + 1;
	if (variant->ops->is_raio)
		EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	else
		EXPECT_RESULT(BLOCK, &self->aio, &io);
	io.aio_nbytes = 1ULL << 32;
	if (variant->ops->is_raio)
		EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	else
		EXPECT_RESULT(0, &self->aio, &io);
}

TEST_F(vectors, none)
{
	struct iocb io;
	unsigned int i;

	for (i = 0; i < NR_BAD_PTRS; i++) {
		iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, bad_ptr(i), 0, 0);
		EXPECT_RESULT(0, &self->aio, &io);
		io.aio_lio_opcode = IOCB_CMD_PWRITEV;
		EXPECT_RESULT(0, &self->aio, &io);
	}
}

/* An array that can't be read: the request is refused. */
TEST_F(vectors, bad_array)
{
	struct iocb io;
	unsigned int i, j;

	for (i = 0; i < NR_BAD_PTRS; i++) {
		for (j = 1; j < ARRAY_SIZE(counts); j++) {
			iocb_prep(&io, j % 2 ? IOCB_CMD_PREADV : IOCB_CMD_PWRITEV, self->t.fd,
				  bad_ptr(i), counts[j], 0);
			EXPECT_REFUSED(-EFAULT, &self->aio, &io);
		}
	}
	/* One that ends where memory does, and one that goes on. */
	for (j = 1; j < ARRAY_SIZE(counts); j++) {
		const unsigned int nr = counts[j];
		struct iovec *end = map_before_hole(nr * sizeof(*end));

		backwards(end, self->buf, nr);
		iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, end, nr, 0);
		EXPECT_RESULT(nr * BLOCK, &self->aio, &io);
		io.aio_nbytes = nr + 1;
		EXPECT_REFUSED(nr < SEGS_MAX ? -EFAULT : -EINVAL, &self->aio, &io);
		io.aio_nbytes = nr;
		io.aio_buf += 8;
		EXPECT_REFUSED(-EFAULT, &self->aio, &io);
	}
}

/* It is only read. */
TEST_F(vectors, read_only_array)
{
	struct iocb io;

	memset(self->buf, CANARY, PAGE);
	backwards(self->iov, self->buf, 2);
	iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, map_read_only(self->iov, 2 * sizeof(*self->iov)),
		  2, 0);
	EXPECT_RESULT(2 * BLOCK, &self->aio, &io);
	expect_backwards(_metadata, self->iov, 2, 0, SEED_OLD);
}

TEST_F(vectors, empty_segments)
{
	struct iovec iov[] = {
		{ NULL, 0 }, { self->buf, BLOCK }, { self->buf, 0 },
		{ map_before_hole(0), 0 }, { self->buf + BLOCK, BLOCK }, { NULL, 0 },
	};
	struct iocb io;

	memset(self->buf, CANARY, PAGE);
	iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, iov, ARRAY_SIZE(iov), 0);
	EXPECT_RESULT(2 * BLOCK, &self->aio, &io);
	EXPECT_EQ(-1, pattern_check(self->buf, 2 * BLOCK, 0, SEED_OLD));
	EXPECT_EQ(-1, filled_check(self->buf + 2 * BLOCK, PAGE - 2 * BLOCK, CANARY));
	pattern_fill(self->buf, 2 * BLOCK, 0, SEED_NEW);
	io.aio_lio_opcode = IOCB_CMD_PWRITEV;
	EXPECT_RESULT(2 * BLOCK, &self->aio, &io);
	ASSERT_EQ(PAGE, pread(self->t.fd, self->buf, PAGE, 0));
	EXPECT_EQ(-1, pattern_check(self->buf, 2 * BLOCK, 0, SEED_NEW));
	EXPECT_EQ(-1, pattern_check(self->buf + 2 * BLOCK, PAGE - 2 * BLOCK, 2 * BLOCK, SEED_OLD));

	/* Nothing but empty ones, */
	iov[1].iov_len = 0;
	iov[4].iov_len = 0;
	EXPECT_RESULT(0, &self->aio, &io);
	io.aio_lio_opcode = IOCB_CMD_PREADV;
	EXPECT_RESULT(0, &self->aio, &io);
	/* and one of them. */
	io.aio_nbytes = 1;
	EXPECT_RESULT(0, &self->aio, &io);
	if (!FAR_POINTERS)
		return;
	/* An address that nobody can have is one also when it is not used. */
	iov[5].iov_base = bad_ptr(2);
	io.aio_nbytes = ARRAY_SIZE(iov);
	EXPECT_REFUSED(-EFAULT, &self->aio, &io);
}

/* A length below zero is seen before any address is. */
TEST_F(vectors, negative_length)
{
	const size_t lens[] = { LONG_MAX + 1UL, -1UL, -4096UL };
	struct iocb io;
	unsigned int i, nr;

	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		for (nr = 1; nr <= SEGS_FAST + 1; nr++) {
			backwards(self->iov, self->buf, nr);
			self->iov[0].iov_base = bad_ptr(2);
			self->iov[nr - 1].iov_len = lens[i];
			iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, self->iov, nr, 0);
			EXPECT_REFUSED(-EINVAL, &self->aio, &io);
			io.aio_lio_opcode = IOCB_CMD_PWRITEV;
			EXPECT_REFUSED(-EINVAL, &self->aio, &io);
		}
	}
}

/* An impossible address anywhere: refused, and nothing was moved. */
TEST_F(vectors, impossible_segment)
{
	struct iocb io;
	unsigned int i;

	if (!FAR_POINTERS)
		return;
	memset(self->buf, CANARY, FILE_SIZE);
	for (i = 0; i <= SEGS_FAST; i++) {
		backwards(self->iov, self->buf, SEGS_FAST + 1);
		self->iov[i].iov_base = bad_ptr(2);
		iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, self->iov, SEGS_FAST + 1, 0);
		EXPECT_REFUSED(-EFAULT, &self->aio, &io);
		io.aio_lio_opcode = IOCB_CMD_PWRITEV;
		EXPECT_REFUSED(-EFAULT, &self->aio, &io);
	}
	EXPECT_EQ(-1, filled_check(self->buf, FILE_SIZE, CANARY));
	ASSERT_EQ(2 * PAGE, pread(self->t.fd, self->buf, 2 * PAGE, 0));
	EXPECT_EQ(-1, pattern_check(self->buf, 2 * PAGE, 0, SEED_OLD));
}

/* A segment that isn't mapped: as much is moved as readv(2) and writev(2) move. */
TEST_F(vectors, unmapped_segment)
{
	const size_t lens[] = { BLOCK, PAGE, 3 * PAGE };
	unsigned int i, at, nr;

	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		const size_t len = lens[i];

		for (nr = 2; nr <= SEGS_FAST + 1; nr += SEGS_FAST - 1) {
			for (at = 0; at < nr; at++) {
				char *seen = self->buf + FILE_SIZE;
				long long want, got;
				struct iocb io;
				unsigned int j;

				for (j = 0; j < nr; j++) {
					self->iov[j].iov_base = self->buf + j * len;
					self->iov[j].iov_len = len;
				}
				self->iov[at].iov_base = map_before_hole(0);

				want = kernel_rw(IOCB_CMD_PREADV, self->t.fd, self->iov, nr, 0, 0);
				memset(self->buf, CANARY, nr * len);
				iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, self->iov, nr, 0);
				got = aio_result(_metadata, &self->aio, &io);
				EXPECT_EQ(want, got) {
					TH_LOG("read, %u of %u, %zu bytes each", at, nr, len);
				}
				if (want > 0) {
					EXPECT_GE(at * len, want);
					EXPECT_EQ(-1, pattern_check(self->buf, want, 0, SEED_OLD));
				}

				pattern_fill(self->buf, nr * len, 0, SEED_NEW);
				want = kernel_rw(IOCB_CMD_PWRITEV, self->t.fd, self->iov, nr, 0, 0);
				pattern_fill(seen, nr * len, 0, SEED_OLD);
				ASSERT_EQ(nr * len, pwrite(self->t.fd, seen, nr * len, 0));
				io.aio_lio_opcode = IOCB_CMD_PWRITEV;
				got = aio_result(_metadata, &self->aio, &io);
				EXPECT_EQ(want, got) {
					TH_LOG("write, %u of %u, %zu bytes each", at, nr, len);
				}
				if (want > 0) {
					ASSERT_EQ(want, pread(self->t.fd, seen, want, 0));
					EXPECT_EQ(-1, pattern_check(seen, want, 0, SEED_NEW));
				}
				pattern_fill(seen, nr * len, 0, SEED_OLD);
				ASSERT_EQ(nr * len, pwrite(self->t.fd, seen, nr * len, 0));
			}
		}
	}
}

/* The same memory more than once. To a device it is written in any order. */
TEST_F(vectors, overlapping_segments)
{
	struct iovec iov[] = {
		{ self->buf, 2 * BLOCK }, { self->buf + BLOCK, 2 * BLOCK }, { self->buf, BLOCK },
	};
	char *seen = self->buf + PAGE;
	struct iocb io;

	pattern_fill(self->buf, 3 * BLOCK, 0, SEED_NEW);
	iocb_prep(&io, IOCB_CMD_PWRITEV, self->t.fd, iov, ARRAY_SIZE(iov), 0);
	EXPECT_RESULT(5 * BLOCK, &self->aio, &io);
	ASSERT_EQ(5 * BLOCK, pread(self->t.fd, seen, 5 * BLOCK, 0));
	EXPECT_EQ(0, memcmp(seen, self->buf, 2 * BLOCK));
	EXPECT_EQ(0, memcmp(seen + 2 * BLOCK, self->buf + BLOCK, 2 * BLOCK));
	EXPECT_EQ(0, memcmp(seen + 4 * BLOCK, self->buf, BLOCK));

	target_fill(_metadata, &self->t, PAGE, SEED_OLD);
	io.aio_lio_opcode = IOCB_CMD_PREADV;
	EXPECT_RESULT(5 * BLOCK, &self->aio, &io);
	EXPECT_EQ(-1, pattern_check(self->buf + 2 * BLOCK, BLOCK, 3 * BLOCK, SEED_OLD));
	if (!variant->flags) {
		EXPECT_EQ(-1, pattern_check(self->buf, BLOCK, 4 * BLOCK, SEED_OLD));
		EXPECT_EQ(-1, pattern_check(self->buf + BLOCK, BLOCK, 2 * BLOCK, SEED_OLD));
	}
}

/* A read that overwrites its own array. */
TEST_F(vectors, array_is_a_segment)
{
	struct iovec *iov = map_pages(PAGE);
	struct iocb io;

	iov[0].iov_base = iov;
	iov[0].iov_len = PAGE;
	iov[1].iov_base = self->buf;
	iov[1].iov_len = PAGE;
	iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, iov, 2, 0);
	EXPECT_RESULT(2 * PAGE, &self->aio, &io);
	EXPECT_EQ(-1, pattern_check(iov, PAGE, 0, SEED_OLD));
	EXPECT_EQ(-1, pattern_check(self->buf, PAGE, PAGE, SEED_OLD));
}

/* What lies beyond the end is left alone. */
TEST_F(vectors, end_of_file)
{
	struct iocb io;

	/* Without a cache whole blocks are read. */
	if (variant->flags)
		return;
	ASSERT_EQ(0, ftruncate(self->t.fd, 3 * BLOCK + 100));
	memset(self->buf, CANARY, PAGE);
	backwards(self->iov, self->buf, 4);
	iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, self->iov, 4, BLOCK);
	EXPECT_RESULT(2 * BLOCK + 100, &self->aio, &io);
	expect_backwards(_metadata, self->iov, 2, BLOCK, SEED_OLD);
	EXPECT_EQ(-1, pattern_check(self->iov[2].iov_base, 100, 3 * BLOCK, SEED_OLD));
	EXPECT_EQ(-1, filled_check(self->iov[3].iov_base, BLOCK, CANARY));
}

TEST_F(vectors, file_size_limit)
{
	struct rlimit limit = { .rlim_cur = 4 * BLOCK, .rlim_max = RLIM_INFINITY };
	struct iocb io;

	if (!target_is_file(&self->t))
		return;
	ASSERT_EQ(0, ftruncate(self->t.fd, 0));
	signal(SIGXFSZ, SIG_IGN);
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &limit));
	backwards(self->iov, self->buf, SEGS_FAST + 1);
	/* Up to the limit, and from it on. */
	iocb_prep(&io, IOCB_CMD_PWRITEV, self->t.fd, self->iov, SEGS_FAST + 1, BLOCK);
	EXPECT_RESULT(3 * BLOCK, &self->aio, &io);
	io.aio_offset = 4 * BLOCK;
	EXPECT_RESULT(-EFBIG, &self->aio, &io);
}

/* The mode, the flags and the method come before the array, the position after. */
TEST_F(vectors, order_of_errors)
{
	struct iocb io;

	iocb_prep(&io, IOCB_CMD_PREADV, reopen(self->t.fd, O_WRONLY), bad_ptr(2), 1, -1);
	EXPECT_REFUSED(-EBADF, &self->aio, &io);
	io.aio_rw_flags = 1U << 30;
	EXPECT_REFUSED(-EOPNOTSUPP, &self->aio, &io);
	iocb_prep(&io, IOCB_CMD_PWRITEV, reopen(self->t.fd, O_RDONLY), bad_ptr(2), 1, -1);
	EXPECT_REFUSED(-EBADF, &self->aio, &io);
	iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, bad_ptr(2), 1, -1);
	EXPECT_REFUSED(-EFAULT, &self->aio, &io);
	io.aio_nbytes = SEGS_MAX + 1;
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	backwards(self->iov, self->buf, 2);
	iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, self->iov, 2, -1);
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	io.aio_lio_opcode = IOCB_CMD_PWRITEV;
	EXPECT_REFUSED(-EINVAL, &self->aio, &io);
	iocb_prep(&io, IOCB_CMD_PREADV, -1, bad_ptr(2), SEGS_MAX + 1, -1);
	EXPECT_REFUSED(-EBADF, &self->aio, &io);
}

/*
 * Sizes and places at and over every limit (CVE-2012-6701, CVE-2015-8830): what
 * is too long is cut, and cut before the end is looked at, so that nothing gets
 * past the check of the sum.
 */
TEST_F(vectors, sizes_at_the_limits)
{
	const size_t lens[] = {
		0, BLOCK, BYTES_MAX - 1, BYTES_MAX, BYTES_MAX + 1, 1UL << 31, LONG_MAX,
		LONG_MAX + 1UL, -1UL,
#if __SIZEOF_LONG__ == 8
		1UL << 32, 1UL << 46,
#endif
	};
	/* There is no data at any of these. */
	const long long places[] = {
		lseek(self->t.fd, 0, SEEK_END), 1LL << 62, LLONG_MAX - BYTES_MAX - 1,
		LLONG_MAX - BYTES_MAX, LLONG_MAX - BYTES_MAX + 1, LLONG_MAX - BLOCK, LLONG_MAX, -1,
		LLONG_MIN,
	};
	/* Where a length that is not cut still ends in the lower half. */
	char *low = (char *)PAGE;
	unsigned int i, j, k, good = 0, bad = 0;
	struct iocb io;

	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		for (j = 0; j < ARRAY_SIZE(places); j++) {
			const struct iovec iov[] = {
				{ low, lens[i] }, { low, lens[i] }, { low, lens[i] },
			};

			/* In one buffer, and in one, two and three segments. */
			for (k = 0; k <= ARRAY_SIZE(iov); k++) {
				long long want, got;
				size_t len = k ?: lens[i];

				if (k)
					iocb_prep(&io, IOCB_CMD_PREADV, self->t.fd, (void *)iov, k,
						  places[j]);
				else
					iocb_prep(&io, IOCB_CMD_PREAD, self->t.fd, low, lens[i],
						  places[j]);
				/* A segment of 32 bits is refused where a buffer is cut. */
				if (!FAR_POINTERS && !k && len > LONG_MAX)
					len = LONG_MAX;
				/* The system call looks at the place first, a request last. */
				if (places[j] >= 0)
					want = kernel_rw(io.aio_lio_opcode, self->t.fd,
							 (void *)(uintptr_t)io.aio_buf, len,
							 places[j], 0);
				else if (FAR_POINTERS && k > 1 && lens[i] == LONG_MAX)
					want = -EFAULT;
				else
					want = -EINVAL;
				got = aio_result(_metadata, &self->aio, &io);
				EXPECT_EQ(want, got) {
					TH_LOG("%u segments of %#zx bytes at %#llx", k, lens[i],
					       places[j]);
				}
				good += got == 0;
				bad += got < 0;
			}
		}
	}
	EXPECT_LT(100, good);
	EXPECT_LT(100, bad);
}

/* Together no more than one call may move. */
TEST_F(vectors, bytes_are_cut)
{
	struct iovec iov[SEGS_MAX];
	struct iocb io;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(iov); i++) {
		iov[i].iov_base = (void *)PAGE;
		iov[i].iov_len = INT_MAX;
	}
	iocb_prep(&io, IOCB_CMD_PWRITEV, open("/dev/null", O_RDWR | O_CLOEXEC), iov, 1, 0);
	EXPECT_RESULT(BYTES_MAX, &self->aio, &io);
	io.aio_nbytes = SEGS_MAX;
	EXPECT_RESULT(BYTES_MAX, &self->aio, &io);
	iov[0].iov_len = 1UL << 30;
	iov[1].iov_len = 1UL << 30;
	io.aio_nbytes = 2;
	EXPECT_RESULT(BYTES_MAX, &self->aio, &io);
	iov[1].iov_len = (1UL << 30) - PAGE;
	EXPECT_RESULT(BYTES_MAX, &self->aio, &io);
	iov[1].iov_len -= 1;
	EXPECT_RESULT(BYTES_MAX - 1, &self->aio, &io);
	/* No address is so far from any other. */
	iov[1].iov_len = LONG_MAX;
	if (FAR_POINTERS)
		EXPECT_REFUSED(-EFAULT, &self->aio, &io);
	else
		EXPECT_RESULT(BYTES_MAX, &self->aio, &io);
}

/* Held by a device, when the caller does what it likes with the array. */

FIXTURE(held)
{
	struct aio aio;
	int fd;
	char *buf;
	/* Where nothing may appear. */
	char *other;
	struct iovec *iov;
};

FIXTURE_VARIANT(held)
{
	const struct aio_ops *ops;
	const char *dev;
};

FIXTURE_VARIANT_ADD(held, kernel_aio_char)
{
	.ops = &kernel_aio, .dev = "c0",
};

FIXTURE_VARIANT_ADD(held, raio_char)
{
	.ops = &raio, .dev = "c0",
};

FIXTURE_VARIANT_ADD(held, kernel_aio_disk)
{
	.ops = &kernel_aio, .dev = "b0",
};

FIXTURE_VARIANT_ADD(held, raio_disk)
{
	.ops = &raio, .dev = "b0",
};

#define HELD_SIZE	(2 * SEGS_MAX * BLOCK)

FIXTURE_SETUP(held)
{
	testdev_begin();
	self->fd = testdev_open_direct(variant->dev);
	self->buf = map_pages(HELD_SIZE);
	self->other = map_pages(HELD_SIZE);
	self->iov = map_pages(SEGS_MAX * sizeof(*self->iov));
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
}

FIXTURE_TEARDOWN(held)
{
	testdev_reset();
	aio_end(_metadata, &self->aio);
	close(self->fd);
}

/* Changed, and gone. */
static void take_array(struct iovec *iov, char *other)
{
	backwards(iov, other, SEGS_MAX);
	munmap(iov, SEGS_MAX * sizeof(*iov));
}

TEST_F(held, array_is_let_go)
{
	struct raio_stats before = { }, after = { };
	unsigned int i, j, more, ios = 0;
	struct io_event ev;
	struct iocb io;

	if (variant->ops->is_raio)
		ASSERT_EQ(0, raio_stats(self->aio.dev, &before));
	for (i = 1; i < ARRAY_SIZE(counts); i++) {
		const unsigned int nr = counts[i];
		const size_t len = nr * BLOCK;

		for (more = 0; more < 2; more++) {
			const int opcode = more ? IOCB_CMD_PREADV : IOCB_CMD_PWRITEV;

			testdev_cmd("%s mode hang", variant->dev);
			memset(self->buf, CANARY, HELD_SIZE);
			memset(self->other, CANARY, HELD_SIZE);
			backwards(self->iov, self->buf, nr);
			for (j = 0; opcode == IOCB_CMD_PWRITEV && j < nr; j++)
				pattern_fill(self->iov[j].iov_base, BLOCK, j * BLOCK, SEED_NEW + i);
			iocb_prep(&io, opcode, self->fd, self->iov, nr, 0);
			ASSERT_EQ(1, aio_submit_one(&self->aio, &io));
			ios++;
			take_array(self->iov, self->other);
			EXPECT_EQ(0, aio_poll(&self->aio, 1, &ev));
			/* A disk gets it in parts. */
			testdev_cmd("%s wait held 1", variant->dev);
			testdev_cmd("%s mode now", variant->dev);
			testdev_cmd("%s complete all", variant->dev);
			ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
			EXPECT_EVENT(&ev, &io, len);
			EXPECT_EQ(-1, filled_check(self->other, HELD_SIZE, CANARY));

			self->iov = map_pages(SEGS_MAX * sizeof(*self->iov));
			backwards(self->iov, self->buf, nr);
			expect_backwards(_metadata, self->iov, nr, 0, SEED_NEW + i);
			if (opcode == IOCB_CMD_PWRITEV) {
				ASSERT_EQ(len, pread(self->fd, self->other, len, 0));
				EXPECT_EQ(-1, pattern_check(self->other, len, 0, SEED_NEW + i));
			}
		}
	}
	if (variant->ops->is_raio) {
		/* They were in flight when submit returned. */
		ASSERT_EQ(0, raio_stats(self->aio.dev, &after));
		EXPECT_EQ(before.submitted + ios, after.submitted);
		EXPECT_EQ(before.late + ios, after.late);
	}
}

/* One that moves less ends within a segment. */
TEST_F(held, short_transfer)
{
	struct io_event ev;
	struct iocb io;

	if (strcmp(variant->dev, "c0"))
		return;
	pattern_fill(self->buf, PAGE, 0, SEED_NEW);
	ASSERT_EQ(PAGE, pwrite(self->fd, self->buf, PAGE, 0));
	memset(self->buf, CANARY, PAGE);
	backwards(self->iov, self->buf, 4);
	iocb_prep(&io, IOCB_CMD_PREADV, self->fd, self->iov, 4, 0);
	testdev_cmd("c0 mode hang");
	testdev_cmd("c0 short 1 %lu", BLOCK + 100);
	ASSERT_EQ(1, aio_submit_one(&self->aio, &io));
	take_array(self->iov, self->other);
	testdev_cmd("c0 complete all");
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_EVENT(&ev, &io, BLOCK + 100);
	EXPECT_EQ(1, testdev_stat("c0", "shortened"));
	EXPECT_EQ(-1, pattern_check(self->buf + 6 * BLOCK, BLOCK, 0, SEED_NEW));
	EXPECT_EQ(-1, pattern_check(self->buf + 4 * BLOCK, 100, BLOCK, SEED_NEW));
	EXPECT_EQ(-1, filled_check(self->buf + 4 * BLOCK + 100, BLOCK - 100, CANARY));
	EXPECT_EQ(-1, filled_check(self->buf, 4 * BLOCK, CANARY));
}

/* Cut to what is left of the device, which only the last of them reaches. */
TEST_F(held, end_of_device)
{
	const size_t size = strcmp(variant->dev, "c0") ? TESTDEV_DISK_SIZE : TESTDEV_CHAR_SIZE;
	struct iocb io;

	backwards(self->iov, self->buf, SEGS_FAST + 1);
	iocb_prep(&io, IOCB_CMD_PWRITEV, self->fd, self->iov, SEGS_FAST + 1, size - 2 * BLOCK);
	EXPECT_RESULT(2 * BLOCK, &self->aio, &io);
	io.aio_offset = size;
	EXPECT_RESULT(-ENOSPC, &self->aio, &io);
	io.aio_lio_opcode = IOCB_CMD_PREADV;
	EXPECT_RESULT(0, &self->aio, &io);
}

TEST_HARNESS_MAIN
