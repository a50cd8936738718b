// SPDX-License-Identifier: GPL-2.0
/*
 * Random requests, most of them odd in some way, are made to kernel AIO and to
 * raio, each on a file of its own. What comes back has to be the same, and so
 * have the files and the buffers to be.
 */
#include "raio_target.h"

#define RWF_UNKNOWN	(1U << 30)

#define CASES		120
#define DIFF_BUF	(20 * PAGE)

enum fds { FD_RDWR, FD_RDONLY, FD_WRONLY, FD_APPEND, FD_BAD, NR_FDS };

struct side {
	struct aio aio;
	struct target t;
	int fds[NR_FDS];
	/* DIFF_BUF bytes up to a hole, and the same that can't be written to. */
	char *buf;
	char *ro;
};

FIXTURE(differential)
{
	struct side side[2];
	uint64_t rw_flags;
};

FIXTURE_VARIANT(differential)
{
	enum where where;
	int flags;
	unsigned int seed;
};

FIXTURE_VARIANT_ADD(differential, tmpfs)
{
	.where = TMPFS, .seed = 11,
};

FIXTURE_VARIANT_ADD(differential, ext4)
{
	.where = EXT4, .seed = 22,
};

FIXTURE_VARIANT_ADD(differential, ext4_direct)
{
	.where = EXT4, .flags = O_DIRECT, .seed = 33,
};

FIXTURE_VARIANT_ADD(differential, xfs_direct)
{
	.where = XFS, .flags = O_DIRECT, .seed = 44,
};

static void side_open(struct __test_metadata *_metadata, struct side *s, enum where on, int flags,
		      const struct aio_ops *ops)
{
	aio_begin(_metadata, &s->aio, ops, 4);
	s->t.where = on;
	s->t.flags = flags;
	target_open(_metadata, &s->t);
	target_fill(_metadata, &s->t, FILE_SIZE, SEED_OLD);
	s->fds[FD_RDWR] = reopen(s->t.fd, O_RDWR | flags);
	s->fds[FD_RDONLY] = reopen(s->t.fd, O_RDONLY | flags);
	s->fds[FD_WRONLY] = reopen(s->t.fd, O_WRONLY | flags);
	s->fds[FD_APPEND] = reopen(s->t.fd, O_RDWR | O_APPEND | flags);
	s->fds[FD_BAD] = -1;
	s->buf = map_before_hole(DIFF_BUF);
	s->ro = map_before_hole(DIFF_BUF);
	mprotect(s->ro, DIFF_BUF, PROT_READ);
}

FIXTURE_SETUP(differential)
{
	struct raio_query query = { };

	side_open(_metadata, &self->side[0], variant->where, variant->flags, &kernel_aio);
	side_open(_metadata, &self->side[1], variant->where, variant->flags, &raio);
	ASSERT_EQ(0, raio_ioctl(self->side[1].aio.dev, RAIO_IOC_QUERY, &query));
	self->rw_flags = query.rw_flags;
}

FIXTURE_TEARDOWN(differential)
{
	unsigned int i;

	for (i = 0; i < 2; i++) {
		aio_end(_metadata, &self->side[i].aio);
		target_close(&self->side[i].t);
	}
}

enum bufs { BUF_BEGIN, BUF_END, BUF_OVER_END, BUF_ODD, BUF_RO, BUF_NULL, BUF_KERNEL, NR_BUFS };

/* One of the numbers, and more often one of the first. */
#define PICK(_state, _array)						\
	((_array)[next_random(_state) % (1 + next_random(_state) % ARRAY_SIZE(_array))])

struct diff_case {
	unsigned int opcode;
	enum fds fd;
	enum bufs buf;
	unsigned int odd;
	__u64 len;
	long long offset;
	unsigned int rw_flags;
	unsigned int reserved;
};

static void make_case(struct diff_case *c, uint64_t *state, uint64_t rw_flags)
{
	static const unsigned int opcodes[] = {
		IOCB_CMD_PREAD, IOCB_CMD_PWRITE, IOCB_CMD_PREAD, IOCB_CMD_PWRITE,
		IOCB_CMD_PREAD, IOCB_CMD_PWRITE, 4, 6, 9, 0xffff,
	};
	static const enum fds fds[] = { FD_RDWR, FD_RDWR, FD_RDONLY, FD_WRONLY, FD_APPEND, FD_BAD };
	static const enum bufs bufs[] = {
		BUF_BEGIN, BUF_END, BUF_BEGIN, BUF_OVER_END, BUF_ODD, BUF_RO, BUF_NULL, BUF_KERNEL,
	};
	static const unsigned int odd[] = { 512, 1, 4, 256, 511, 4095 };
	static const __u64 lens[] = {
		4096, 512, 8192, 0, 16 * 4096, 20 * 4096, 513, 1, 511, 4097, 1ULL << 40, LLONG_MAX,
		1ULL << 63, -1ULL,
	};
	static const long long offsets[] = {
		0, 4096, 65536, 512, FILE_SIZE - 512, FILE_SIZE, 1, 511, FILE_SIZE - 1,
		FILE_SIZE + 4096, FILE_SIZE + 1, 1LL << 40, LLONG_MAX - 4095, LLONG_MAX, -1,
		LLONG_MIN,
	};
	static const unsigned int flags[] = {
		0, 0, 0, 0, 0, RWF_HIPRI, RWF_APPEND, RWF_UNKNOWN, RWF_DSYNC, RWF_SYNC,
	};

	c->opcode = PICK(state, opcodes);
	c->fd = PICK(state, fds);
	c->buf = PICK(state, bufs);
	c->odd = PICK(state, odd);
	c->len = PICK(state, lens);
	c->offset = PICK(state, offsets);
	c->rw_flags = PICK(state, flags);
	c->reserved = next_random(state) % 64 == 0;
	/* Whether raio knows it yet is not what this is about. */
	if (c->rw_flags != RWF_UNKNOWN && c->rw_flags & ~rw_flags)
		c->rw_flags = 0;
}

static void *case_buf(const struct side *s, const struct diff_case *c)
{
	unsigned long len = c->len < DIFF_BUF ? c->len : DIFF_BUF;

	switch (c->buf) {
	case BUF_END:
		return s->buf + DIFF_BUF - len;
	case BUF_OVER_END:
		return s->buf + DIFF_BUF - len / 2;
	case BUF_ODD:
		return s->buf + c->odd;
	case BUF_RO:
		return s->ro;
	case BUF_NULL:
		return NULL;
	case BUF_KERNEL:
		return KERNEL_PTR;
	default:
		return s->buf;
	}
}

/* What is left of a case: @ret of the submission, and @res of the event if there is one. */
struct outcome {
	long ret;
	long long res;
	long long res2;
	long more;
};

static void run_case(struct __test_metadata *_metadata, struct side *s, const struct diff_case *c,
		     struct outcome *out)
{
	struct io_event ev;
	struct iocb io;

	memset(out, 0, sizeof(*out));
	iocb_prep(&io, c->opcode, s->fds[c->fd], case_buf(s, c), 0, c->offset);
	io.aio_nbytes = c->len;
	io.aio_rw_flags = c->rw_flags;
	io.aio_reserved2 = c->reserved;
	out->ret = aio_submit_one(&s->aio, &io);
	if (out->ret == 1) {
		ASSERT_EQ(1, aio_wait(&s->aio, 1, &ev));
		EXPECT_EVENT(&ev, &io, ev.res);
		out->res = ev.res;
		out->res2 = ev.res2;
	}
	out->more = aio_poll(&s->aio, 1, &ev);
}

/* Both files hold the same. @a and @b are of FILE_SIZE bytes. */
static void compare_files(struct __test_metadata *_metadata, struct side *side, char *a, char *b)
{
	struct stat st[2];
	long n;

	ASSERT_EQ(0, fstat(side[0].t.fd, &st[0]));
	ASSERT_EQ(0, fstat(side[1].t.fd, &st[1]));
	EXPECT_EQ(st[0].st_size, st[1].st_size);
	n = pread(side[0].t.fd, a, FILE_SIZE, 0);
	EXPECT_EQ(n, pread(side[1].t.fd, b, FILE_SIZE, 0));
	ASSERT_LE(0, n);
	EXPECT_EQ(0, memcmp(a, b, n)) {
		TH_LOG("the files differ");
	}
	/* Do not go on with one of a terabyte. */
	ASSERT_EQ(0, ftruncate(side[0].t.fd, FILE_SIZE));
	ASSERT_EQ(0, ftruncate(side[1].t.fd, FILE_SIZE));
}

TEST_F(differential, same_as_kernel_aio)
{
	char *data = map_pages(2 * DIFF_BUF);
	char *a = map_pages(FILE_SIZE);
	char *b = map_pages(FILE_SIZE);
	unsigned int i, j, taken = 0, good = 0;
	uint64_t state = variant->seed;

	pattern_fill(data, 2 * DIFF_BUF, 0, SEED_NEW);
	for (i = 0; i < CASES; i++) {
		struct outcome out[2];
		struct diff_case c;

		make_case(&c, &state, self->rw_flags);
		for (j = 0; j < 2; j++) {
			memcpy(self->side[j].buf, data + i * 8, DIFF_BUF);
			run_case(_metadata, &self->side[j], &c, &out[j]);
		}
		taken += out[0].ret == 1;
		good += out[0].res > 0;
		EXPECT_EQ(0, memcmp(&out[0], &out[1], sizeof(out[0]))) {
			TH_LOG("kernel AIO: submit %ld, res %lld, res2 %lld, more %ld", out[0].ret,
			       out[0].res, out[0].res2, out[0].more);
			TH_LOG("raio: submit %ld, res %lld, res2 %lld, more %ld", out[1].ret,
			       out[1].res, out[1].res2, out[1].more);
		}
		/* Of a read that failed any part may have been done. */
		if (out[0].res >= 0) {
			EXPECT_EQ(0, memcmp(self->side[0].buf, self->side[1].buf, DIFF_BUF)) {
				TH_LOG("other data in the buffer");
			}
		}
		if (i % 30 == 29 || c.offset > (long long)FILE_SIZE)
			compare_files(_metadata, self->side, a, b);
		ASSERT_EQ(KSFT_PASS, _metadata->exit_code) {
			TH_LOG("case %u: opcode %u, fd %u, buffer %u (%u), %llu bytes at %lld", i,
			       c.opcode, c.fd, c.buf, c.odd, c.len, c.offset);
			TH_LOG("rw_flags %#x, reserved %u", c.rw_flags, c.reserved);
		}
	}
	/* The cases are of all kinds. */
	EXPECT_LT(CASES / 4, taken);
	EXPECT_LT(CASES / 8, good);
	EXPECT_GT(CASES * 9 / 10, taken);
}

TEST_HARNESS_MAIN
