// SPDX-License-Identifier: GPL-2.0
/*
 * Reading and writing: the data, on each kind of file and device, compared
 * with what pread(2) and pwrite(2) see and do; the ends of files; and many
 * requests and threads at once.
 */
#include "raio_target.h"

#define EVENTS		64
#define CANARY		0x5a

FIXTURE(rw)
{
	struct aio aio;
	struct target t;
	char *buf;
};

FIXTURE_VARIANT(rw)
{
	const struct aio_ops *ops;
	enum where where;
	int flags;
};

FIXTURE_VARIANT_ADD(rw, kernel_aio_tmpfs)
{
	.ops = &kernel_aio, .where = TMPFS,
};

FIXTURE_VARIANT_ADD(rw, raio_tmpfs)
{
	.ops = &raio, .where = TMPFS,
};

FIXTURE_VARIANT_ADD(rw, kernel_aio_ext4)
{
	.ops = &kernel_aio, .where = EXT4,
};

FIXTURE_VARIANT_ADD(rw, raio_ext4)
{
	.ops = &raio, .where = EXT4,
};

FIXTURE_VARIANT_ADD(rw, kernel_aio_ext4_direct)
{
	.ops = &kernel_aio, .where = EXT4, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(rw, raio_ext4_direct)
{
	.ops = &raio, .where = EXT4, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(rw, kernel_aio_xfs_direct)
{
	.ops = &kernel_aio, .where = XFS, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(rw, raio_xfs_direct)
{
	.ops = &raio, .where = XFS, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(rw, kernel_aio_null_blk)
{
	.ops = &kernel_aio, .where = NULL_BLK, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(rw, raio_null_blk)
{
	.ops = &raio, .where = NULL_BLK, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(rw, kernel_aio_loop)
{
	.ops = &kernel_aio, .where = LOOP, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(rw, raio_loop)
{
	.ops = &raio, .where = LOOP, .flags = O_DIRECT,
};

FIXTURE_SETUP(rw)
{
	self->t.where = variant->where;
	self->t.flags = variant->flags;
	target_open(_metadata, &self->t);
	target_fill(_metadata, &self->t, 65536, SEED_OLD);
	self->buf = map_pages(FILE_SIZE);
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
}

FIXTURE_TEARDOWN(rw)
{
	aio_end(_metadata, &self->aio);
	target_close(&self->t);
}

struct extent {
	unsigned long offset;
	unsigned long len;
};

static const struct extent extents[] = {
	{ 0, 0 }, { 0, 512 }, { 4096, 4096 }, { 3 * 512, 7 * 512 }, { 65536, 65536 },
	{ 512, 1UL << 20 }, { 123 * 4096, 0 }, { FILE_SIZE - 512, 512 },
	/* Not for O_DIRECT. */
	{ 0, 1 }, { 1, 511 }, { 4095, 2 }, { 511, 514 }, { 12345, 67890 },
};

/*
 * Written by a request, read by pread(). What is around the place that was
 * written is as it was.
 */
TEST_F(rw, write)
{
	char *all = map_pages(FILE_SIZE);
	unsigned int i;
	struct iocb io;

	target_fill(_metadata, &self->t, FILE_SIZE, SEED_OLD);
	for (i = 0; i < ARRAY_SIZE(extents); i++) {
		const unsigned long from = extents[i].offset, len = extents[i].len;
		const unsigned long to = from + len;
		/* Whole pages, and one on either side if there is one. */
		const unsigned long begin = from < PAGE ? 0 : (from - PAGE) & ~(PAGE - 1);
		const unsigned long last = (to + 2 * PAGE - 1) & ~(PAGE - 1);
		const unsigned long end = last < FILE_SIZE ? last : FILE_SIZE;

		if (from % self->t.align || len % self->t.align)
			continue;
		pattern_fill(self->buf, len, from, SEED_NEW);
		iocb_prep(&io, IOCB_CMD_PWRITE, self->t.fd, self->buf, len, from);
		EXPECT_RESULT(len, &self->aio, &io);
		EXPECT_EQ(-1, pattern_check(self->buf, len, from, SEED_NEW));
		ASSERT_EQ(end - begin, pread(self->t.fd, all, end - begin, begin));
		EXPECT_EQ(-1, pattern_check(all, from - begin, begin, SEED_OLD));
		EXPECT_EQ(-1, pattern_check(all + from - begin, len, from, SEED_NEW)) {
			TH_LOG("%lu bytes at %lu", len, from);
		}
		EXPECT_EQ(-1, pattern_check(all + to - begin, end - to, to, SEED_OLD));
		/* As it was, for the next. */
		pattern_fill(self->buf, len, from, SEED_OLD);
		ASSERT_EQ(len, pwrite(self->t.fd, self->buf, len, from));
	}
	ASSERT_EQ(FILE_SIZE, pread(self->t.fd, all, FILE_SIZE, 0));
	EXPECT_EQ(-1, pattern_check(all, FILE_SIZE, 0, SEED_OLD));
}

/* Written by pwrite(), read by a request, into its buffer and nothing else. */
TEST_F(rw, read)
{
	char *mem = map_pages(FILE_SIZE + 2 * PAGE);
	char *buf = mem + PAGE;
	unsigned int i;
	struct iocb io;

	target_fill(_metadata, &self->t, FILE_SIZE, SEED_OLD);
	for (i = 0; i < ARRAY_SIZE(extents); i++) {
		const unsigned long from = extents[i].offset, len = extents[i].len;

		if (from % self->t.align || len % self->t.align)
			continue;
		memset(mem, CANARY, len + 2 * PAGE);
		iocb_prep(&io, IOCB_CMD_PREAD, self->t.fd, buf, len, from);
		EXPECT_RESULT(len, &self->aio, &io);
		EXPECT_EQ(-1, pattern_check(buf, len, from, SEED_OLD)) {
			TH_LOG("%lu bytes at %lu", len, from);
		}
		EXPECT_EQ(-1, filled_check(mem, PAGE, CANARY));
		EXPECT_EQ(-1, filled_check(buf + len, PAGE, CANARY));
	}
}

/* Does not move the file's position, nor care for it. */
TEST_F(rw, position_is_left_alone)
{
	struct iocb io;

	ASSERT_EQ(4096, lseek(self->t.fd, 4096, SEEK_SET));
	iocb_prep(&io, IOCB_CMD_PREAD, self->t.fd, self->buf, 512, 8192);
	EXPECT_RESULT(512, &self->aio, &io);
	EXPECT_EQ(-1, pattern_check(self->buf, 512, 8192, SEED_OLD));
	io.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_RESULT(512, &self->aio, &io);
	EXPECT_EQ(4096, lseek(self->t.fd, 0, SEEK_CUR));
}

/* Many at once, anywhere. */
TEST_F(rw, many)
{
	const unsigned int each = FILE_SIZE / EVENTS;
	struct io_event ev[EVENTS];
	struct iocb io[EVENTS], *iop[EVENTS];
	uint64_t state = variant->where;
	unsigned int i, op;

	pattern_fill(self->buf, FILE_SIZE, 0, SEED_NEW);
	for (op = 0; op < 2; op++) {
		uint64_t seen = 0;

		for (i = 0; i < EVENTS; i++) {
			iocb_prep(&io[i], op ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE, self->t.fd,
				  self->buf + i * each, each, i * each);
			iop[i] = &io[i];
		}
		for (i = EVENTS - 1; i; i--) {
			unsigned int j = next_random(&state) % (i + 1);
			struct iocb *tmp = iop[i];

			iop[i] = iop[j];
			iop[j] = tmp;
		}
		ASSERT_EQ(EVENTS, aio_submit(&self->aio, EVENTS, iop));
		ASSERT_EQ(EVENTS, aio_wait(&self->aio, EVENTS, ev));
		for (i = 0; i < EVENTS; i++) {
			unsigned int n = event_iocb(&ev[i]) - io;

			ASSERT_GT(EVENTS, n);
			EXPECT_EVENT(&ev[i], &io[n], each);
			seen |= 1ULL << n;
		}
		EXPECT_EQ(-1ULL, seen);
		if (!op)
			memset(self->buf, CANARY, FILE_SIZE);
	}
	EXPECT_EQ(-1, pattern_check(self->buf, FILE_SIZE, 0, SEED_NEW));
}

TEST_F(rw, end_of_file)
{
	unsigned long end = FILE_SIZE;
	struct iocb io;

	if (target_is_file(&self->t)) {
		/* Not at a block's end, though O_DIRECT reads blocks. */
		end = 10 * 512 + 100;
		ASSERT_EQ(0, ftruncate(self->t.fd, end));
	} else {
		end = lseek(self->t.fd, 0, SEEK_END);
		ASSERT_LE(FILE_SIZE, end);
		pattern_fill(self->buf, 1024, end - 1024, SEED_OLD);
		ASSERT_EQ(1024, pwrite(self->t.fd, self->buf, 1024, end - 1024));
	}

	/* All that is left, */
	memset(self->buf, CANARY, PAGE);
	iocb_prep(&io, IOCB_CMD_PREAD, self->t.fd, self->buf, PAGE, (end - 512) / 512 * 512);
	EXPECT_RESULT(end - (end - 512) / 512 * 512, &self->aio, &io);
	EXPECT_EQ(-1, pattern_check(self->buf, end - io.aio_offset, io.aio_offset, SEED_OLD));
	/* nothing at the end, */
	iocb_prep(&io, IOCB_CMD_PREAD, self->t.fd, self->buf, PAGE, (end + 511) / 512 * 512);
	EXPECT_RESULT(0, &self->aio, &io);
	/* nor beyond it. */
	io.aio_offset += 1UL << 30;
	EXPECT_RESULT(0, &self->aio, &io);
}

/* Beyond the end a file grows, with zeros in between; a device does not. */
TEST_F(rw, growth)
{
	struct stat st;
	struct iocb io;

	if (!target_is_file(&self->t)) {
		/* A device has a size: nothing is written beyond it. */
		unsigned long end = lseek(self->t.fd, 0, SEEK_END);

		iocb_prep(&io, IOCB_CMD_PWRITE, self->t.fd, self->buf, PAGE, end);
		EXPECT_RESULT(-ENOSPC, &self->aio, &io);
		io.aio_offset = end - 512;
		EXPECT_RESULT(512, &self->aio, &io);
		return;
	}
	ASSERT_EQ(0, ftruncate(self->t.fd, 0));
	pattern_fill(self->buf, PAGE, 3 * PAGE, SEED_NEW);
	iocb_prep(&io, IOCB_CMD_PWRITE, self->t.fd, self->buf, PAGE, 3 * PAGE);
	EXPECT_RESULT(PAGE, &self->aio, &io);
	ASSERT_EQ(0, fstat(self->t.fd, &st));
	EXPECT_EQ(4 * PAGE, st.st_size);
	memset(self->buf, CANARY, 4 * PAGE);
	iocb_prep(&io, IOCB_CMD_PREAD, self->t.fd, self->buf, 8 * PAGE, 0);
	EXPECT_RESULT(4 * PAGE, &self->aio, &io);
	EXPECT_EQ(-1, filled_check(self->buf, 3 * PAGE, 0));
	EXPECT_EQ(-1, pattern_check(self->buf + 3 * PAGE, PAGE, 3 * PAGE, SEED_NEW));
}

/* At the end, whatever the offset. */
TEST_F(rw, append)
{
	struct iocb io;
	struct stat st;
	int fd;

	if (!target_is_file(&self->t))
		return;
	fd = reopen(self->t.fd, O_RDWR | O_APPEND | self->t.flags);
	ASSERT_LE(0, fd);
	pattern_fill(self->buf, PAGE, FILE_SIZE, SEED_NEW);
	iocb_prep(&io, IOCB_CMD_PWRITE, fd, self->buf, PAGE, 0);
	EXPECT_RESULT(PAGE, &self->aio, &io);
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(FILE_SIZE + PAGE, st.st_size);
	ASSERT_EQ(PAGE, pread(self->t.fd, self->buf, PAGE, 0));
	EXPECT_EQ(-1, pattern_check(self->buf, PAGE, 0, SEED_OLD));
	ASSERT_EQ(PAGE, pread(self->t.fd, self->buf, PAGE, FILE_SIZE));
	EXPECT_EQ(-1, pattern_check(self->buf, PAGE, FILE_SIZE, SEED_NEW));
	close(fd);
}

/* What pread() and pwrite() refuse is refused, with the same error. */
TEST_F(rw, not_aligned)
{
	const struct {
		unsigned int buf;
		unsigned int len;
		unsigned int offset;
	} odd[] = {
		{ 0, 511, 0 }, { 0, 1, 0 }, { 0, 513, 512 }, { 0, 512, 1 }, { 0, 4096, 511 },
		{ 1, 512, 0 }, { 2, 4096, 4096 }, { 3, 513, 7 }, { 4, 512, 0 }, { 8, 512, 0 },
		{ 256, 512, 512 }, { 512, 512, 512 }, { 1, 0, 0 }, { 0, 0, 1 },
	};
	struct iocb io;
	unsigned int i;
	long want, got;

	for (i = 0; i < ARRAY_SIZE(odd); i++) {
		char *buf = self->buf + odd[i].buf;

		memset(buf, CANARY, 2 * PAGE);
		want = ret_errno(pread(self->t.fd, buf, odd[i].len, odd[i].offset));
		memset(buf, CANARY, 2 * PAGE);
		iocb_prep(&io, IOCB_CMD_PREAD, self->t.fd, buf, odd[i].len, odd[i].offset);
		got = aio_result(_metadata, &self->aio, &io);
		EXPECT_EQ(want, got) {
			TH_LOG("read case %u", i);
		}
		if (want > 0) {
			EXPECT_EQ(-1, pattern_check(buf, want, odd[i].offset, SEED_OLD)) {
				TH_LOG("read case %u", i);
			}
		}

		pattern_fill(buf, odd[i].len, odd[i].offset, SEED_OLD);
		want = ret_errno(pwrite(self->t.fd, buf, odd[i].len, odd[i].offset));
		io.aio_lio_opcode = IOCB_CMD_PWRITE;
		got = aio_result(_metadata, &self->aio, &io);
		EXPECT_EQ(want, got) {
			TH_LOG("write case %u", i);
		}
	}
	ASSERT_EQ(2 * PAGE, pread(self->t.fd, self->buf, 2 * PAGE, 0));
	EXPECT_EQ(-1, pattern_check(self->buf, 2 * PAGE, 0, SEED_OLD));
}

/* One context, many threads: each gets events of all. */
#define WORKERS		4
#define WORKER_IOS	8
#define WORKER_ROUNDS	3
#define WORKER_SIZE	8192UL

struct worker {
	struct aio *aio;
	int fd;
	unsigned int nr;
	unsigned int errors;
	struct iocb io[WORKER_IOS];
	/* Results, and set last, that they are there. */
	long long res[WORKER_IOS];
	bool done[WORKER_IOS];
};

static struct worker workers[WORKERS];

/* Gives an event to whom it belongs. */
static void worker_event(const struct io_event *ev, unsigned int *errors)
{
	unsigned long at = ev->obj - (uintptr_t)workers;
	struct worker *w = &workers[at / sizeof(*w)];
	unsigned long n = (at % sizeof(*w) - offsetof(struct worker, io)) / sizeof(struct iocb);

	if (at / sizeof(*w) >= WORKERS || n >= WORKER_IOS || ev->obj != (uintptr_t)&w->io[n] ||
	    ev->data != w->io[n].aio_data || __atomic_load_n(&w->done[n], __ATOMIC_ACQUIRE)) {
		(*errors)++;
		return;
	}
	w->res[n] = ev->res;
	__atomic_store_n(&w->done[n], true, __ATOMIC_RELEASE);
}

static bool worker_done(struct worker *w)
{
	unsigned int i;

	for (i = 0; i < WORKER_IOS; i++)
		if (!__atomic_load_n(&w->done[i], __ATOMIC_ACQUIRE))
			return false;
	return true;
}

static void worker_run(struct worker *w, int opcode, char *buf)
{
	struct __kernel_timespec timeout = { .tv_nsec = 1000000 };
	long long end = now_ns() + WAIT_SECONDS * 1000000000LL;
	struct iocb *iop[WORKER_IOS];
	struct io_event ev[4];
	unsigned int i;
	long ret, j;

	for (i = 0; i < WORKER_IOS; i++) {
		/* The regions of the workers alternate. */
		iocb_prep(&w->io[i], opcode, w->fd, buf + i * WORKER_SIZE, WORKER_SIZE,
			  (i * WORKERS + w->nr) * WORKER_SIZE);
		iop[i] = &w->io[i];
		w->done[i] = false;
	}
	ret = aio_submit(w->aio, WORKER_IOS, iop);
	if (ret != WORKER_IOS) {
		w->errors++;
		return;
	}
	while (!worker_done(w) && now_ns() < end) {
		/* The timeout is there as another may have taken ours. */
		ret = aio_getevents(w->aio, 1, 4, ev, &timeout);
		if (ret < 0) {
			w->errors++;
			return;
		}
		for (j = 0; j < ret; j++)
			worker_event(&ev[j], &w->errors);
	}
	for (i = 0; i < WORKER_IOS; i++)
		if (!w->done[i] || w->res[i] != WORKER_SIZE)
			w->errors++;
}

static void *worker_thread(void *data)
{
	struct worker *w = data;
	char *buf = map_pages(WORKER_IOS * WORKER_SIZE);
	unsigned int i, round;

	for (round = 0; round < WORKER_ROUNDS && !w->errors; round++) {
		uint64_t seed = round * WORKERS + w->nr;

		for (i = 0; i < WORKER_IOS; i++)
			pattern_fill(buf + i * WORKER_SIZE, WORKER_SIZE,
				     (i * WORKERS + w->nr) * WORKER_SIZE, seed);
		worker_run(w, IOCB_CMD_PWRITE, buf);
		memset(buf, CANARY, WORKER_IOS * WORKER_SIZE);
		worker_run(w, IOCB_CMD_PREAD, buf);
		for (i = 0; i < WORKER_IOS; i++)
			if (pattern_check(buf + i * WORKER_SIZE, WORKER_SIZE,
					  (i * WORKERS + w->nr) * WORKER_SIZE, seed) >= 0)
				w->errors++;
	}
	return NULL;
}

TEST_F(rw, threads)
{
	pthread_t thread[WORKERS];
	unsigned int i;

	for (i = 0; i < WORKERS; i++) {
		workers[i].aio = &self->aio;
		workers[i].fd = self->t.fd;
		workers[i].nr = i;
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, worker_thread, &workers[i]));
	}
	for (i = 0; i < WORKERS; i++) {
		pthread_join(thread[i], NULL);
		EXPECT_EQ(0, workers[i].errors) {
			TH_LOG("thread %u", i);
		}
	}
}

TEST_HARNESS_MAIN
