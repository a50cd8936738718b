// SPDX-License-Identifier: GPL-2.0
/*
 * Many files read and written by many threads, each with many requests in
 * flight, in the stages that aio-stress has: written and read in order, then
 * at random. What is read is verified. Each write of a file is followed by
 * an fsync. RAIO_LONG=1 has larger files.
 */
#include "raio_target.h"

#define THREADS		3
#define FILES		4
#define RECORD		8192UL
#define RECORDS		48
#define DEPTH		32
#define SUBMIT		8

enum stage { WRITE, READ, RANDOM_WRITE, RANDOM_READ, STAGES };

/**
 * struct slot - one of the requests of a thread
 * @io:		the request
 * @buf:	its record
 * @file:	which it belongs to
 */
struct slot {
	struct iocb io;
	char *buf;
	unsigned int file;
};

/**
 * struct worker - a thread with a context and files of its own
 * @aio:	the context
 * @fds:	the files
 * @records:	of each of them
 * @seed:	of their data, the same for the first write of each file
 * @slots:	all requests
 * @free:	those that are not in flight
 * @nr_free:	how many these are
 * @submitted:	how many requests there were
 * @error:	what went wrong first, or NULL
 */
struct worker {
	struct aio aio;
	int fds[FILES];
	unsigned int records;
	uint64_t seed;
	struct slot slots[DEPTH];
	struct slot *free[DEPTH];
	unsigned int nr_free;
	unsigned long submitted;
	const char *error;
};

FIXTURE(aio_stress)
{
	struct worker workers[THREADS];
};

FIXTURE_VARIANT(aio_stress)
{
	const struct aio_ops *ops;
	const char *(*dir)(void);
	int flags;
};

FIXTURE_VARIANT_ADD(aio_stress, kernel_aio_ext4_direct)
{
	.ops = &kernel_aio, .dir = ext4_dir, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(aio_stress, raio_ext4_direct)
{
	.ops = &raio, .dir = ext4_dir, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(aio_stress, raio_ext4)
{
	.ops = &raio, .dir = ext4_dir,
};

FIXTURE_VARIANT_ADD(aio_stress, raio_xfs_direct)
{
	.ops = &raio, .dir = xfs_dir, .flags = O_DIRECT,
};

FIXTURE_VARIANT_ADD(aio_stress, raio_tmpfs)
{
	.ops = &raio, .dir = tmpfs_dir,
};

FIXTURE_SETUP(aio_stress)
{
	unsigned int i, n;

	for (i = 0; i < THREADS; i++) {
		struct worker *w = &self->workers[i];

		aio_begin(_metadata, &w->aio, variant->ops, DEPTH);
		w->records = RECORDS * long_run(10);
		w->seed = i * STAGES * FILES;
		for (n = 0; n < FILES; n++) {
			w->fds[n] = temp_file(variant->dir(), O_RDWR | variant->flags);
			ASSERT_LE(0, w->fds[n]);
		}
		for (n = 0; n < DEPTH; n++) {
			w->slots[n].buf = map_pages(RECORD);
			w->free[w->nr_free++] = &w->slots[n];
		}
	}
}

FIXTURE_TEARDOWN(aio_stress)
{
	unsigned int i, n;

	/* Contexts are counted one by one as they go. */
	for (i = THREADS; i--;) {
		aio_end(_metadata, &self->workers[i].aio);
		for (n = 0; n < FILES; n++)
			close(self->workers[i].fds[n]);
	}
}

static bool is_write(const struct slot *slot)
{
	return slot->io.aio_lio_opcode == IOCB_CMD_PWRITE;
}

static uint64_t seed_of(const struct worker *w, unsigned int file, enum stage written)
{
	return w->seed + written * FILES + file;
}

/* Takes back at least @min requests. False if one has gone wrong. */
static bool reap(struct worker *w, unsigned int min, enum stage written)
{
	struct __kernel_timespec timeout = { .tv_sec = WAIT_SECONDS };
	struct io_event ev[DEPTH];
	long n = aio_getevents(&w->aio, min, DEPTH, ev, &timeout);
	long i;

	if (n < (long)min) {
		w->error = "events are missing";
		return false;
	}
	for (i = 0; i < n; i++) {
		struct slot *slot = (struct slot *)(uintptr_t)ev[i].obj;

		w->free[w->nr_free++] = slot;
		if (ev[i].data != slot->io.aio_data || ev[i].res2)
			w->error = "an event is of another request";
		else if (ev[i].res != (long long)slot->io.aio_nbytes)
			w->error = "a result is wrong";
		else if (slot->io.aio_lio_opcode == IOCB_CMD_PREAD &&
			 pattern_check(slot->buf, RECORD, slot->io.aio_offset,
				       seed_of(w, slot->file, written)) != -1)
			w->error = "data is wrong";
	}
	return !w->error;
}

/* Submits, SUBMIT at a time. */
static bool push(struct worker *w, struct iocb **batch, unsigned int *nr)
{
	long ret = aio_submit(&w->aio, *nr, batch);

	if (ret != *nr) {
		w->error = "a submission failed";
		return false;
	}
	w->submitted += *nr;
	*nr = 0;
	return true;
}

static struct slot *take(struct worker *w, int opcode, unsigned int file, unsigned int record)
{
	struct slot *slot = w->free[--w->nr_free];
	bool sync = opcode == IOCB_CMD_FSYNC;

	iocb_prep(&slot->io, opcode, w->fds[file], sync ? NULL : slot->buf, sync ? 0 : RECORD,
		  record * RECORD);
	slot->file = file;
	return slot;
}

/* One stage over all files, which take turns. */
static bool run_stage(struct worker *w, enum stage stage)
{
	bool write = stage == WRITE || stage == RANDOM_WRITE;
	enum stage written = stage < RANDOM_WRITE ? WRITE : RANDOM_WRITE;
	/* Behind all records of a file comes its fsync. */
	unsigned int records = w->records + write, all = records * FILES, i, nr = 0;
	struct iocb *batch[SUBMIT];

	for (i = 0; i < all; i++) {
		unsigned int file = i % FILES, record = i / FILES;
		struct slot *slot;

		if (!w->nr_free && !reap(w, 1, written))
			return false;
		if (record == w->records) {
			slot = take(w, IOCB_CMD_FSYNC, file, 0);
		} else {
			/* 37 has no divisor in common with RECORDS. */
			if (stage >= RANDOM_WRITE)
				record = record * 37 % w->records;
			slot = take(w, write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, file, record);
		}
		if (is_write(slot))
			pattern_fill(slot->buf, RECORD, slot->io.aio_offset,
				     seed_of(w, file, written));
		batch[nr++] = &slot->io;
		if ((nr == SUBMIT || !w->nr_free || i == all - 1) && !push(w, batch, &nr))
			return false;
	}
	return reap(w, DEPTH - w->nr_free, written);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	enum stage stage;

	for (stage = WRITE; stage < STAGES && run_stage(w, stage); stage++)
		;
	return NULL;
}

TEST_F_TIMEOUT(aio_stress, stages, 120)
{
	struct raio_stats before, after;
	pthread_t threads[THREADS];
	unsigned long submitted = 0;
	int dev = raio_open();
	unsigned int i;

	ASSERT_LE(0, dev);
	ASSERT_EQ(0, raio_stats(dev, &before));
	for (i = 0; i < THREADS; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, work, &self->workers[i]));
	for (i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		EXPECT_EQ(NULL, self->workers[i].error) {
			TH_LOG("%s", self->workers[i].error);
		}
		submitted += self->workers[i].submitted;
	}
	EXPECT_EQ(THREADS * FILES * (4 * self->workers[0].records + 2), submitted);
	ASSERT_EQ(0, raio_stats(dev, &after));
	EXPECT_EQ(variant->ops->is_raio ? submitted : 0, after.submitted - before.submitted);
	EXPECT_EQ(variant->ops->is_raio ? submitted : 0, after.completed - before.completed);
	close(dev);
}

TEST_HARNESS_MAIN
