// SPDX-License-Identifier: GPL-2.0
/*
 * A file that is read, written, cut, punched, mapped and synced at random, after
 * the manner of fsx, with a model of it in memory: what is read is what the
 * model says. Requests to different parts of it are in flight together.
 *
 * The operations follow from a seed that each test prints; RAIO_SEED sets it.
 * RAIO_LONG=1 does ten times as many.
 */
#include <sys/mman.h>
#include <sys/uio.h>

#include "raio_target.h"

#define MOST		(256 * 1024UL)
#define LONGEST		(32 * 1024UL)
#define BATCH		8
#define ROUNDS		300
#define PARTS		4
#define CANARY		0x5a

/**
 * struct op - a request, and what has to come of it
 * @io:		the request
 * @iov:	the parts of @buf, if it has a vector
 * @buf:	LONGEST bytes and a page behind them
 * @offset:	where it reads or writes
 * @len:	how much
 * @result:	of its event
 */
struct op {
	struct iocb io;
	struct iovec iov[PARTS];
	char *buf;
	size_t offset;
	size_t len;
	long long result;
};

/**
 * struct scene - the file and its model
 * @aio:	the context
 * @t:		the file
 * @random:	what comes next
 * @model:	what the file has to hold, zeros behind its end
 * @size:	of the file
 * @ops:	the requests that are in flight together
 * @writes:	how many there were so far, which makes their data differ
 * @requests:	how many there were so far
 */
struct scene {
	struct aio aio;
	struct target t;
	uint64_t random;
	char *model;
	size_t size;
	struct op ops[BATCH];
	unsigned long writes;
	unsigned long requests;
};

FIXTURE(fsx)
{
	struct scene scene;
};

FIXTURE_VARIANT(fsx)
{
	const struct aio_ops *ops;
	enum where where;
	int flags;
};

FIXTURE_VARIANT_ADD(fsx, kernel_aio_tmpfs)
{
	.ops = &kernel_aio, .where = TMPFS,
};

FIXTURE_VARIANT_ADD(fsx, raio_tmpfs)
{
	.ops = &raio, .where = TMPFS,
};

FIXTURE_VARIANT_ADD(fsx, kernel_aio_ext4)
{
	.ops = &kernel_aio, .where = EXT4,
};

FIXTURE_VARIANT_ADD(fsx, raio_ext4)
{
	.ops = &raio, .where = EXT4,
};

FIXTURE_VARIANT_ADD(fsx, kernel_aio_ext4_direct)
{
	.ops = &kernel_aio, .where = EXT4, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(fsx, raio_ext4_direct)
{
	.ops = &raio, .where = EXT4, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(fsx, kernel_aio_xfs)
{
	.ops = &kernel_aio, .where = XFS,
};

FIXTURE_VARIANT_ADD(fsx, raio_xfs)
{
	.ops = &raio, .where = XFS,
};

FIXTURE_VARIANT_ADD(fsx, kernel_aio_xfs_direct)
{
	.ops = &kernel_aio, .where = XFS, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(fsx, raio_xfs_direct)
{
	.ops = &raio, .where = XFS, .flags = O_DIRECT,
};

FIXTURE_SETUP(fsx)
{
	struct scene *s = &self->scene;
	unsigned int i;

	s->random = strtoull(env_or("RAIO_SEED", "0"), NULL, 0) ?: (uint64_t)now_ns();
	TH_LOG("RAIO_SEED=%#llx", (unsigned long long)s->random);
	s->t.where = variant->where;
	s->t.flags = variant->flags;
	target_open(_metadata, &s->t);
	s->model = map_pages(MOST);
	for (i = 0; i < BATCH; i++)
		s->ops[i].buf = map_pages(LONGEST + PAGE);
	aio_begin(_metadata, &s->aio, variant->ops, BATCH);
}

FIXTURE_TEARDOWN(fsx)
{
	aio_end(_metadata, &self->scene.aio);
	target_close(&self->scene.t);
}

/* A number below @end. */
static size_t below(struct scene *s, size_t end)
{
	return next_random(&s->random) % end;
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* A place below @end, which may be nothing if that is small. */
static void choose(struct scene *s, size_t end, size_t *offset, size_t *len)
{
	unsigned int align = s->t.align;

	*offset = below(s, end) / align * align;
	*len = min_size(1 + below(s, LONGEST), end - *offset);
	/* A direct request has whole blocks. */
	*len = *len / align * align;
}

/* The model's side of a write, of zeros without @data. */
static void model_write(struct scene *s, const char *data, size_t offset, size_t len)
{
	if (data)
		memcpy(s->model + offset, data, len);
	else
		memset(s->model + offset, 0, len);
}

static void expect_same(struct __test_metadata *_metadata, const char *what, const char *want,
			const char *got, size_t offset, size_t len)
{
	size_t i = 0;

	while (i < len && want[i] == got[i])
		i++;
	ASSERT_EQ(len, i) {
		TH_LOG("%s of %zu bytes at %zu: wrong from %zu", what, len, offset, offset + i);
	}
}

/* A request for a place, which isn't empty. */
static void op_prep(struct scene *s, struct op *op, bool write, size_t offset, size_t len)
{
	unsigned int align = s->t.align, n = 0;
	size_t done = 0;

	op->offset = offset;
	op->len = len;
	if (write) {
		pattern_fill(op->buf, len, offset, ++s->writes);
		op->result = len;
	} else {
		memset(op->buf, CANARY, LONGEST + PAGE);
		op->result = offset < s->size ? min_size(len, s->size - offset) : 0;
	}
	iocb_prep(&op->io, write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, s->t.fd, op->buf, len,
		  offset);
	if (below(s, 2))
		return;

	while (done < len) {
		size_t part = len - done;

		if (n < PARTS - 1)
			part = min_size(part, (1 + below(s, LONGEST / 2)) / align * align);
		op->iov[n++] = (struct iovec){ op->buf + done, part };
		done += part;
	}
	op->io.aio_lio_opcode = write ? IOCB_CMD_PWRITEV : IOCB_CMD_PREADV;
	op->io.aio_buf = (uintptr_t)op->iov;
	op->io.aio_nbytes = n;
}

static void op_prep_sync(struct scene *s, struct op *op)
{
	op->offset = 0;
	op->len = 0;
	op->result = 0;
	iocb_prep(&op->io, below(s, 2) ? IOCB_CMD_FSYNC : IOCB_CMD_FDSYNC, s->t.fd, NULL, 0,
		  0);
}

/* What the file or the buffer must be now that it has ended well. */
static void op_check(struct __test_metadata *_metadata, struct scene *s, struct op *op)
{
	switch (op->io.aio_lio_opcode) {
	case IOCB_CMD_PWRITE:
	case IOCB_CMD_PWRITEV:
		model_write(s, op->buf, op->offset, op->len);
		if (s->size < op->offset + op->len)
			s->size = op->offset + op->len;
		break;
	case IOCB_CMD_PREAD:
	case IOCB_CMD_PREADV:
		expect_same(_metadata, "read", s->model + op->offset, op->buf, op->offset,
			    op->result);
		ASSERT_EQ(-1, filled_check(op->buf + op->len, PAGE, CANARY));
		break;
	}
}

/* The first @n operations, at once. */
static void run(struct __test_metadata *_metadata, struct scene *s, unsigned int n)
{
	struct io_event ev[BATCH];
	struct iocb *iop[BATCH];
	unsigned int i;

	for (i = 0; i < n; i++)
		iop[i] = &s->ops[i].io;
	ASSERT_EQ(n, aio_submit(&s->aio, n, iop));
	ASSERT_EQ(n, aio_wait(&s->aio, n, ev));
	s->requests += n;
	for (i = 0; i < n; i++) {
		struct op *op = (struct op *)(uintptr_t)ev[i].obj;

		ASSERT_GT(n, (size_t)(op - s->ops));
		EXPECT_EVENT(&ev[i], &op->io, op->result);
		ASSERT_EQ(op->result, ev[i].res) {
			TH_LOG("operation %u, %zu bytes at %zu of %zu", op->io.aio_lio_opcode,
			       op->len, op->offset, s->size);
		}
	}
	for (i = 0; i < n; i++)
		op_check(_metadata, s, &s->ops[i]);
}

/* Inside the file, and apart from one another, so that their order is no matter. */
static void many(struct __test_metadata *_metadata, struct scene *s)
{
	unsigned int n = 0, tries, i;
	size_t offset, len;

	for (tries = 0; tries < BATCH && s->size; tries++) {
		if (!below(s, 8)) {
			op_prep_sync(s, &s->ops[n++]);
			continue;
		}
		choose(s, s->size, &offset, &len);
		for (i = 0; i < n; i++)
			if (offset < s->ops[i].offset + s->ops[i].len &&
			    s->ops[i].offset < offset + len)
				break;
		if (i == n && len)
			op_prep(s, &s->ops[n++], below(s, 2), offset, len);
	}
	if (n)
		run(_metadata, s, n);
}

/* Anywhere: a file grows, or has less than was asked for. */
static void one(struct __test_metadata *_metadata, struct scene *s, bool write)
{
	size_t offset, len;

	choose(s, MOST, &offset, &len);
	if (!len)
		return;
	op_prep(s, &s->ops[0], write, offset, len);
	run(_metadata, s, 1);
}

static void cut(struct __test_metadata *_metadata, struct scene *s)
{
	size_t size = below(s, MOST);

	ASSERT_EQ(0, ftruncate(s->t.fd, size));
	if (size < s->size)
		model_write(s, NULL, size, s->size - size);
	s->size = size;
}

static void punch(struct __test_metadata *_metadata, struct scene *s)
{
	size_t offset = below(s, MOST);
	size_t len = 1 + below(s, min_size(LONGEST, MOST - offset));

	ASSERT_EQ(0, fallocate(s->t.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
			       len));
	model_write(s, NULL, offset, len);
}

/* All of it through a mapping, to the end of the last page. */
static void mapped(struct __test_metadata *_metadata, struct scene *s, bool write)
{
	size_t size = (s->size + PAGE - 1) / PAGE * PAGE, offset, len;
	char *map;

	if (!size)
		return;
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, s->t.fd, 0);
	ASSERT_NE(MAP_FAILED, map);
	expect_same(_metadata, "mapping", s->model, map, 0, size);
	if (write) {
		offset = below(s, s->size);
		len = min_size(1 + below(s, LONGEST), s->size - offset);
		pattern_fill(map + offset, len, offset, ++s->writes);
		model_write(s, map + offset, offset, len);
	}
	munmap(map, size);
}

TEST_F_TIMEOUT(fsx, model, 120)
{
	unsigned int rounds = ROUNDS * long_run(10), i;
	struct scene *s = &self->scene;
	struct raio_stats before, after;
	char *all = map_pages(MOST);
	int dev = raio_open();

	ASSERT_LE(0, dev);
	ASSERT_EQ(0, raio_stats(dev, &before));
	for (i = 0; i < rounds; i++) {
		switch (below(s, 12)) {
		case 0:
			cut(_metadata, s);
			break;
		case 1:
			punch(_metadata, s);
			break;
		case 2:
			mapped(_metadata, s, false);
			break;
		case 3:
			mapped(_metadata, s, true);
			break;
		case 4:
		case 5:
			one(_metadata, s, false);
			break;
		case 6:
		case 7:
			one(_metadata, s, true);
			break;
		default:
			many(_metadata, s);
		}
	}
	ASSERT_EQ(s->size, pread(s->t.fd, all, MOST, 0));
	expect_same(_metadata, "file", s->model, all, 0, s->size);
	ASSERT_EQ(0, raio_stats(dev, &after));
	EXPECT_EQ(variant->ops->is_raio ? s->requests : 0, after.submitted - before.submitted);
	close(dev);
}

TEST_HARNESS_MAIN
