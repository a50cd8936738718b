// SPDX-License-Identifier: GPL-2.0
/*
 * The direct path: a transfer between memory, in a registered buffer or not, and a
 * block device that is open for direct I/O, which is sent without asking the file. It
 * is taken when it can be, with all that the file would check, and not otherwise; and
 * its requests end as others do.
 */
#include <linux/loop.h>
#include <stdatomic.h>

#include "raio_native.h"
#include "raio_task.h"
#include "raio_testdev.h"

#define NR_EVENTS	200
#define NR_BUFFERS	2
#define NR_FILES	2
#define NR		64
#define SIZE		(NR * PAGE)

FIXTURE(direct)
{
	struct native native;
	struct raio_buffer buffer;
	char *buf;
	int fd;
	struct raio_stats before;
};

FIXTURE_VARIANT(direct)
{
	unsigned int flags;
};

FIXTURE_VARIANT_ADD(direct, registered)
{
	.flags = RAIO_IOCB_FIXED_FILE | RAIO_IOCB_FIXED_BUF,
};

FIXTURE_VARIANT_ADD(direct, pinned)
{
	.flags = RAIO_IOCB_FIXED_FILE,
};

/* Those of the variant. */
static unsigned int fixed;

FIXTURE_SETUP(direct)
{
	fixed = variant->flags;
	testdev_begin();
	native_begin_sized(_metadata, &self->native, NR_EVENTS, NR, NR_BUFFERS, NR_FILES);
	self->buf = map_pages(SIZE);
	self->buffer.addr = (uintptr_t)self->buf;
	self->buffer.len = SIZE;
	self->fd = testdev_open_direct("b0");
	pattern_fill(self->buf, SIZE, 0, 1);
	ASSERT_EQ(SIZE, pwrite(self->fd, self->buf, SIZE, 0));
	memset(self->buf, 0, SIZE);
	ASSERT_EQ(1, native_buffers(&self->native, 1, 1, &self->buffer));
	ASSERT_EQ(1, native_files(&self->native, 1, 1, &self->fd));
	stats_now(_metadata, &self->before);
}

FIXTURE_TEARDOWN(direct)
{
	testdev_reset();
	native_end(_metadata, &self->native);
	close(self->fd);
}

/* Request number @i, of its own page there and in the buffer, by the registered file. */
static void prep(struct iocb *io, unsigned int i, int opcode, char *buf)
{
	native_prep(io, i, opcode, 1, buf + i * PAGE, PAGE, i * PAGE);
	io->aio_flags = fixed;
	io->aio_reserved2 = fixed & RAIO_IOCB_FIXED_BUF ? 1 : 0;
}

#define RESULT(_io) NATIVE_RESULT(&self->native, (_io))

/* All of them, each once, with that result. */
#define EXPECT_ALL(_nr, _res) do {					\
	ASSERT_EQ(0, native_enter(&self->native, 0, NULL, (_nr)));	\
	EXPECT_EACH(&self->native, (_nr), (_res));			\
} while (0)

static const char *const modes[] = { "now", "sync", "softirq", "timer 100000" };

/* Whatever ends them, and where. */
TEST_F(direct, both_ways)
{
	unsigned int mode, i;

	for (mode = 0; mode < ARRAY_SIZE(modes); mode++) {
		testdev_cmd("b0 mode %s", modes[mode]);
		pattern_fill(self->buf, SIZE, 0, 2 + mode);
		for (i = 0; i < NR; i++)
			prep(&self->native.sq[i], i, IOCB_CMD_PWRITE, self->buf);
		ASSERT_EQ(NR, native_enter_sq(&self->native, NR, 0, NR));
		EXPECT_ALL(NR, PAGE);
		memset(self->buf, 0, SIZE);
		for (i = 0; i < NR; i++)
			prep(&self->native.sq[i], i, IOCB_CMD_PREAD, self->buf);
		ASSERT_EQ(NR, native_enter_sq(&self->native, NR, 0, NR));
		EXPECT_ALL(NR, PAGE);
		EXPECT_EQ(-1, pattern_check(self->buf, SIZE, 0, 2 + mode));
	}
	EXPECT_MOVED(2 * NR * ARRAY_SIZE(modes), &self->before, direct);
	EXPECT_MOVED(2 * NR * ARRAY_SIZE(modes), &self->before, queued);
	EXPECT_MOVED(2 * NR * ARRAY_SIZE(modes), &self->before, completed);
	EXPECT_MOVED(0, &self->before, punted);
}

/* One by one, and by a descriptor. */
TEST_F(direct, alone)
{
	struct iocb io;
	unsigned int i;

	for (i = 0; i < NR; i++) {
		prep(&io, i, IOCB_CMD_PREAD, self->buf);
		if (i % 2) {
			io.aio_fildes = self->fd;
			io.aio_flags &= ~RAIO_IOCB_FIXED_FILE;
		}
		ASSERT_EQ(PAGE, RESULT(&io));
	}
	EXPECT_EQ(-1, pattern_check(self->buf, SIZE, 0, 1));
	EXPECT_MOVED(NR, &self->before, direct);
}

/* What takes the ordinary path, and comes to the same. */
TEST_F(direct, not_for_all)
{
	struct iocb io;
	int fd, i;

	prep(&io, 0, IOCB_CMD_PREAD, self->buf);
	io.aio_rw_flags = RWF_NOWAIT;
	EXPECT_EQ(PAGE, RESULT(&io));
	io.aio_rw_flags = 0;
	io.aio_flags |= IOCB_FLAG_IOPRIO;
	EXPECT_EQ(PAGE, RESULT(&io));
	/* At the end, and beyond. */
	prep(&io, 0, IOCB_CMD_PREAD, self->buf);
	io.aio_nbytes = 4 * PAGE;
	io.aio_offset = TESTDEV_DISK_SIZE - PAGE;
	EXPECT_EQ(PAGE, RESULT(&io));
	io.aio_offset = TESTDEV_DISK_SIZE;
	EXPECT_EQ(0, RESULT(&io));
	io.aio_offset = 1LL << 60;
	EXPECT_EQ(0, RESULT(&io));
	io.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_EQ(-ENOSPC, RESULT(&io));
	io.aio_offset = 1;
	EXPECT_EQ(-EINVAL, RESULT(&io));
	io.aio_offset = 0;
	io.aio_nbytes = 1;
	EXPECT_EQ(-EINVAL, RESULT(&io));
	io.aio_nbytes = 0;
	EXPECT_EQ(0, RESULT(&io));
	/* To last; or at the end, which is nothing to a device. */
	for (i = 0; i < 3; i++) {
		const int flags[] = { O_DSYNC, O_SYNC, O_APPEND };

		fd = testdev_open("b0", O_DIRECT | flags[i]);
		ASSERT_EQ(1, native_files(&self->native, 0, 1, &fd));
		prep(&io, 0, IOCB_CMD_PWRITE, self->buf);
		io.aio_fildes = 0;
		EXPECT_EQ(PAGE, RESULT(&io));
		close(fd);
	}
	/* Not open for that, nor for direct I/O. */
	for (i = 0; i < 3; i++) {
		const int flags[] = { O_RDONLY | O_DIRECT, O_WRONLY | O_DIRECT, O_RDWR };

		fd = open(testdev_path("b0"), flags[i] | O_CLOEXEC);
		ASSERT_LE(0, fd);
		ASSERT_EQ(1, native_files(&self->native, 0, 1, &fd));
		prep(&io, 0, i ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE, self->buf);
		io.aio_fildes = 0;
		EXPECT_EQ(i == 2 ? (long)PAGE : -EBADF, RESULT(&io));
		/* There, it is cached from now on. */
		if (i == 2) {
			io.aio_fildes = 1;
			EXPECT_EQ(PAGE, RESULT(&io));
		}
		close(fd);
	}
	fd = temp_file(ext4_dir(), O_RDWR | O_DIRECT);
	ASSERT_EQ(0, ftruncate(fd, PAGE));
	ASSERT_EQ(1, native_files(&self->native, 0, 1, &fd));
	prep(&io, 0, IOCB_CMD_PREAD, self->buf);
	io.aio_fildes = 0;
	EXPECT_EQ(PAGE, RESULT(&io));
	close(fd);
	EXPECT_MOVED(0, &self->before, direct);
}

/* What is cached is written first, and isn't there after a write. */
TEST_F(direct, cached)
{
	const int fd = testdev_open("b0", 0);
	char *page = map_pages(PAGE);
	struct iocb io;

	memset(page, 5, PAGE);
	ASSERT_EQ(PAGE, pwrite(fd, page, PAGE, 0));
	prep(&io, 0, IOCB_CMD_PREAD, self->buf);
	EXPECT_EQ(PAGE, RESULT(&io));
	EXPECT_EQ(-1, filled_check(self->buf, PAGE, 5));
	memset(self->buf, 6, PAGE);
	io.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_EQ(PAGE, RESULT(&io));
	ASSERT_EQ(PAGE, pread(fd, page, PAGE, 0));
	EXPECT_EQ(-1, filled_check(page, PAGE, 6));
	close(fd);
}

TEST_F(direct, failed)
{
	struct iocb io[2];

	testdev_cmd("b0 mode hang");
	prep(&io[0], 0, IOCB_CMD_PREAD, self->buf);
	prep(&io[1], 1, IOCB_CMD_PWRITE, self->buf);
	ASSERT_EQ(2, native_enter(&self->native, 2, io, 0));
	testdev_cmd("b0 wait held 2");
	testdev_cmd("b0 fail all %d", EIO);
	EXPECT_ALL(2, -EIO);
	EXPECT_MOVED(2, &self->before, direct);
}

/* A device that would have to wait is waited for by a worker. */
TEST_F(direct, would_wait)
{
	unsigned int nr, i;

	for (nr = 1; nr <= NR; nr *= 4) {
		stats_now(_metadata, &self->before);
		memset(self->buf, 0, SIZE);
		testdev_cmd("b0 nowait %u", nr);
		for (i = 0; i < NR; i++)
			prep(&self->native.sq[i], i, IOCB_CMD_PREAD, self->buf);
		ASSERT_EQ(NR, native_enter_sq(&self->native, NR, 0, NR));
		EXPECT_ALL(NR, PAGE);
		EXPECT_EQ(-1, pattern_check(self->buf, SIZE, 0, 1));
		EXPECT_MOVED(NR, &self->before, direct);
		EXPECT_MOVED(nr, &self->before, punted);
		EXPECT_MOVED(NR, &self->before, completed);
	}
}

/* The same when it says so later, in an interrupt. */
TEST_F(direct, would_have_waited)
{
	unsigned int i;

	testdev_cmd("b0 mode hang");
	for (i = 0; i < 4; i++)
		prep(&self->native.sq[i], i, IOCB_CMD_PREAD, self->buf);
	ASSERT_EQ(4, native_enter_sq(&self->native, 4, 0, 0));
	testdev_cmd("b0 wait held 4");
	testdev_cmd("b0 mode softirq");
	testdev_cmd("b0 fail all %d", EAGAIN);
	EXPECT_ALL(4, PAGE);
	EXPECT_EQ(-1, pattern_check(self->buf, 4 * PAGE, 0, 1));
	EXPECT_MOVED(4, &self->before, punted);
}

/* Pages that are pinned, by whomever. */
static long pinned(struct __test_metadata *_metadata)
{
	long acquired = -1, released = -1, n;
	char line[128];
	FILE *file;

	/* What processors have to themselves is counted, too. */
	ASSERT_EQ(0, write_str("/proc/sys/vm/stat_refresh", "1"));
	file = fopen("/proc/vmstat", "r");
	ASSERT_NE(NULL, file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "nr_foll_pin_acquired %ld", &n) == 1)
			acquired = n;
		if (sscanf(line, "nr_foll_pin_released %ld", &n) == 1)
			released = n;
	}
	fclose(file);
	ASSERT_LE(0, acquired);
	ASSERT_LE(0, released);
	return acquired - released;
}

/* What is registered, and the file, may go; they are kept until the end. */
TEST_F(direct, in_flight)
{
	const struct raio_buffer none = { };
	struct raio_cancel cancel = {
		.ctx = self->native.aio.ctx,
		.iocb = 1,
		.flags = RAIO_CANCEL_DATA,
	};
	const int no_fd = -1;
	struct iocb io[3];
	unsigned int i;
	long pins;

	/* Open so that nobody else can have it so before that file has gone. */
	close(self->fd);
	self->fd = testdev_open("b0", O_DIRECT | O_EXCL);
	ASSERT_EQ(1, native_files(&self->native, 1, 1, &self->fd));
	testdev_cmd("b0 mode hang");
	for (i = 0; i < 3; i++)
		prep(&io[i], i, IOCB_CMD_PREAD, self->buf);
	ASSERT_EQ(3, native_enter(&self->native, 3, io, 0));
	testdev_cmd("b0 wait held 3");
	EXPECT_EQ(-EAGAIN, raio_ioctl(self->native.aio.dev, RAIO_IOC_CANCEL, &cancel));
	cancel.iocb = 3;
	EXPECT_EQ(-EINVAL, raio_ioctl(self->native.aio.dev, RAIO_IOC_CANCEL, &cancel));
	pins = pinned(_metadata);
	ASSERT_EQ(1, native_buffers(&self->native, 1, 1, &none));
	ASSERT_EQ(1, native_files(&self->native, 1, 1, &no_fd));
	close(self->fd);
	/* If it went, it would within some grace periods. */
	for (i = 0; i < 2; i++) {
		grace_periods();
		EXPECT_EQ(-EBUSY, ret_errno(open(testdev_path("b0"), O_EXCL | O_CLOEXEC)));
		if (fixed & RAIO_IOCB_FIXED_BUF)
			EXPECT_EQ(pins, pinned(_metadata));
	}
	testdev_cmd("b0 mode softirq");
	testdev_cmd("b0 complete all");
	EXPECT_ALL(3, PAGE);
	EXPECT_EQ(-1, pattern_check(self->buf, 3 * PAGE, 0, 1));
	EXPECT_MOVED(3, &self->before, direct);
	EXPECT_TRUE(wait_for((self->fd = open(testdev_path("b0"), O_EXCL | O_CLOEXEC)) >= 0));
}

static void *destroy(void *data)
{
	struct native *native = data;

	return (void *)raio_destroy(native->aio.dev, native->aio.ctx);
}

/* Destroy waits for them. */
TEST_F(direct, destroyed)
{
	struct raio_stats before;
	struct iocb io[3];
	pthread_t thread;
	unsigned int i;
	void *ret;

	testdev_cmd("b0 mode hang");
	for (i = 0; i < 3; i++)
		prep(&io[i], i, IOCB_CMD_PREAD, self->buf);
	ASSERT_EQ(3, native_enter(&self->native, 3, io, 0));
	testdev_cmd("b0 wait held 3");
	stats_now(_metadata, &before);
	ASSERT_EQ(0, pthread_create(&thread, NULL, destroy, &self->native));
	/* It isn't found any more, but not at its end. */
	ASSERT_TRUE(wait_for(native_enter(&self->native, 0, NULL, 0) == -EINVAL));
	/* If it went, it would within some grace periods. */
	grace_periods();
	ASSERT_EQ(0, MOVED(&before, frees));
	testdev_cmd("b0 complete 2");
	EXPECT_EQ(0, MOVED(&before, frees));
	EXPECT_EQ(EBUSY, pthread_tryjoin_np(thread, &ret));
	testdev_cmd("b0 complete all");
	ASSERT_EQ(0, pthread_join(thread, &ret));
	EXPECT_EQ(NULL, ret);
	EXPECT_EQ(-1, pattern_check(self->buf, 3 * PAGE, 0, 1));
	self->native.aio.ctx = 0;
}

/* The process is killed meanwhile. */
TEST_F(direct, killed)
{
	const long before = pinned(_metadata);
	const pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		struct native native;
		struct iocb io[3];
		unsigned int i;

		native_begin_sized(_metadata, &native, 3, 0, NR_BUFFERS, NR_FILES);
		ASSERT_EQ(1, native_buffers(&native, 1, 1, &self->buffer));
		ASSERT_EQ(1, native_files(&native, 1, 1, &self->fd));
		testdev_cmd("b0 mode hang");
		for (i = 0; i < 3; i++)
			prep(&io[i], i, IOCB_CMD_PREAD, self->buf);
		ASSERT_EQ(3, native_enter(&native, 3, io, 0));
		pause();
	}
	testdev_cmd("b0 wait held 3");
	EXPECT_LT(before, pinned(_metadata));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	testdev_cmd("b0 complete all");
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	/* Nor has it left anything registered. */
	EXPECT_TRUE(wait_for(pinned(_metadata) == before));
}

/* Read-only, for writes. */
TEST_F(direct, read_only)
{
	int on = 1, off = 0;
	struct iocb io;

	prep(&io, 0, IOCB_CMD_PWRITE, self->buf);
	ASSERT_EQ(0, ret_errno(ioctl(self->fd, BLKROSET, &on)));
	EXPECT_EQ(-EPERM, RESULT(&io));
	io.aio_lio_opcode = IOCB_CMD_PREAD;
	EXPECT_EQ(PAGE, RESULT(&io));
	ASSERT_EQ(0, ret_errno(ioctl(self->fd, BLKROSET, &off)));
	EXPECT_MOVED(1, &self->before, direct);
}

/* What protects the data goes with it, where the device wants that. */
TEST_F(direct, protected)
{
	const int fd = testdev_open_direct("b1");
	struct iocb io;
	unsigned int i;

	testdev_cmd("b1 reset");
	ASSERT_EQ(PAGE, pwrite(fd, self->buf, PAGE, 0));
	if (!testdev_stat("b1", "protected")) {
		close(fd);
		SKIP(return, "not by this kernel");
	}
	ASSERT_EQ(1, native_files(&self->native, 0, 1, &fd));
	for (i = 0; i < NR; i++) {
		prep(&io, i, IOCB_CMD_PWRITE, self->buf);
		io.aio_fildes = 0;
		ASSERT_EQ(PAGE, RESULT(&io));
	}
	EXPECT_MOVED(NR, &self->before, direct);
	EXPECT_EQ(NR + 1, testdev_stat("b1", "protected"));
	close(fd);
}

static long io_of(const char *name)
{
	char line[128], format[64];
	FILE *file = fopen("/proc/thread-self/io", "r");
	long n = -1;

	snprintf(format, sizeof(format), "%s: %%ld", name);
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, format, &n) == 1)
			break;
	if (file)
		fclose(file);
	return n;
}

/* What is read and written is that of the task, and of the device. */
TEST_F(direct, accounted)
{
	unsigned long stat[2][7];
	unsigned int i, when;
	long bytes[2][2];
	struct iocb io;

	for (when = 0; when < 2; when++) {
		FILE *file = fopen("/sys/block/raio_testb0/stat", "r");

		ASSERT_NE(NULL, file);
		for (i = 0; i < 7; i++)
			ASSERT_EQ(1, fscanf(file, "%lu", &stat[when][i]));
		fclose(file);
		bytes[when][0] = io_of("read_bytes");
		bytes[when][1] = io_of("write_bytes");
		for (i = 0; i < 8 && !when; i++) {
			prep(&io, i, i % 4 ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE, self->buf);
			ASSERT_EQ(PAGE, RESULT(&io));
		}
	}
	EXPECT_EQ(6 * PAGE, bytes[1][0] - bytes[0][0]);
	EXPECT_EQ(2 * PAGE, bytes[1][1] - bytes[0][1]);
	EXPECT_EQ(6, stat[1][0] - stat[0][0]);
	EXPECT_EQ(6 * PAGE / 512, stat[1][2] - stat[0][2]);
	EXPECT_EQ(2, stat[1][4] - stat[0][4]);
	EXPECT_EQ(2 * PAGE / 512, stat[1][6] - stat[0][6]);
}

/* Read requests that the device got, and those that were merged into others. */
static void reads_of_disk(struct __test_metadata *_metadata, unsigned long *ios,
			  unsigned long *merges)
{
	FILE *file = fopen("/sys/block/raio_testb0/stat", "r");

	ASSERT_NE(NULL, file);
	ASSERT_EQ(2, fscanf(file, "%lu %lu", ios, merges));
	fclose(file);
}

/* What goes on with one before it becomes one with that, as it does for other files. */
TEST_F(direct, merged)
{
	unsigned long ios[2], merges[2];
	struct iocb io[NR];
	unsigned int way, i;

	/* The test device doesn't, unless it is told to. */
	ASSERT_EQ(0, write_str("/sys/block/raio_testb0/queue/nomerges", "0"));
	for (way = 0; way < 3; way++) {
		memset(self->buf, 0, SIZE);
		for (i = 0; i < NR; i++) {
			/* One after another, by the array or not; none beside another. */
			const unsigned int at = way < 2 ? i : i * 2 % NR + i * 2 / NR;

			prep(&io[i], at, IOCB_CMD_PREAD, self->buf);
		}
		memcpy(self->native.sq, io, sizeof(io));
		reads_of_disk(_metadata, &ios[0], &merges[0]);
		ASSERT_EQ(NR, way == 1 ? native_enter(&self->native, NR, io, NR) :
					 native_enter_sq(&self->native, NR, 0, NR));
		EXPECT_ALL(NR, PAGE);
		EXPECT_EQ(-1, pattern_check(self->buf, SIZE, 0, 1));
		reads_of_disk(_metadata, &ios[1], &merges[1]);
		EXPECT_EQ(NR, ios[1] - ios[0] + merges[1] - merges[0]);
		EXPECT_LE(way == 2 ? 0 : NR * 3 / 4, merges[1] - merges[0]);
		EXPECT_GE(way == 2 ? 0 : NR, merges[1] - merges[0]);
	}
	EXPECT_MOVED(3 * NR, &self->before, direct);
	EXPECT_EQ(0, write_str("/sys/block/raio_testb0/queue/nomerges", "2"));
}

/* More than there are places for, which are as many as events; and again. */
TEST_F(direct, many)
{
	const unsigned int capacity = aio_ring(self->native.aio.ctx)->nr - 1;
	struct io_event ev[NR];
	unsigned int i, round, in_flight = 0;
	long n;

	for (i = 0; i < NR; i++)
		prep(&self->native.sq[i], i, IOCB_CMD_PREAD, self->buf);
	for (round = 0; round < 3; round++) {
		testdev_cmd("b0 mode hang");
		while ((n = native_enter_sq(&self->native, NR, 0, 0)) > 0)
			in_flight += n;
		EXPECT_EQ(-EAGAIN, n);
		EXPECT_EQ(capacity, in_flight);
		testdev_cmd("b0 mode softirq");
		testdev_cmd("b0 complete all");
		while (in_flight) {
			ASSERT_EQ(0, native_enter(&self->native, 0, NULL, 1));
			n = ring_reap(self->native.aio.ctx, NR, ev);
			for (i = 0; i < n; i++)
				EXPECT_EQ(PAGE, ev[i].res);
			in_flight -= n;
		}
	}
	EXPECT_MOVED(3 * capacity, &self->before, direct);
}

#define THREADS	3
#define ROUNDS	300

struct reader {
	struct native *native;
	unsigned int id;
	unsigned int errors;
};

static void *read_all(void *data)
{
	struct reader *r = data;
	unsigned int i, round;
	struct iocb io[8];

	for (round = 0; round < ROUNDS * long_run(10); round++) {
		struct io_event ev[8];
		long left = 8, n;

		memcpy(io, r->native->sq + r->id * 8, sizeof(io));
		r->errors += native_enter(r->native, 8, io, 0) != 8;
		while (left > 0) {
			n = raio_getevents(r->native->aio.dev, r->native->aio.ctx, 1, left, ev,
					   NULL);
			for (i = 0; i < n; i++)
				r->errors += ev[i].res != PAGE;
			r->errors += n <= 0;
			left -= n;
		}
	}
	return NULL;
}

/* By several threads on one context, with interrupts. Each gets as many events as it has requests. */
TEST_F_TIMEOUT(direct, threads, 300)
{
	struct reader readers[THREADS];
	pthread_t threads[THREADS];
	unsigned int i, mode;

	for (i = 0; i < NR; i++)
		prep(&self->native.sq[i], i, IOCB_CMD_PREAD, self->buf);
	for (mode = 0; mode < ARRAY_SIZE(modes); mode++) {
		testdev_cmd("b0 mode %s", modes[mode]);
		memset(self->buf, 0, SIZE);
		for (i = 0; i < THREADS; i++) {
			readers[i] = (struct reader){ .native = &self->native, .id = i };
			ASSERT_EQ(0, pthread_create(&threads[i], NULL, read_all, &readers[i]));
		}
		for (i = 0; i < THREADS; i++) {
			ASSERT_EQ(0, pthread_join(threads[i], NULL));
			EXPECT_EQ(0, readers[i].errors);
		}
		EXPECT_EQ(-1, pattern_check(self->buf, THREADS * 8 * PAGE, 0, 1));
	}
}

/* A device that gets smaller. */
TEST_F(direct, resized)
{
	const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	const int file = temp_file(tmpfs_dir(), O_RDWR);
	const int nr = ioctl(control, LOOP_CTL_GET_FREE);
	struct iocb io;
	char name[32];
	int loop;

	ASSERT_LE(0, control);
	ASSERT_LE(0, nr);
	snprintf(name, sizeof(name), "/dev/loop%d", nr);
	loop = open(name, O_RDWR | O_CLOEXEC | O_DIRECT);
	ASSERT_LE(0, loop);
	ASSERT_EQ(0, ftruncate(file, 8 * PAGE));
	ASSERT_EQ(0, ret_errno(ioctl(loop, LOOP_SET_FD, file)));
	ASSERT_EQ(1, native_files(&self->native, 0, 1, &loop));
	prep(&io, 6, IOCB_CMD_PREAD, self->buf);
	io.aio_fildes = 0;
	EXPECT_EQ(PAGE, RESULT(&io));
	ASSERT_EQ(0, ftruncate(file, 4 * PAGE));
	ASSERT_EQ(0, ret_errno(ioctl(loop, LOOP_SET_CAPACITY)));
	EXPECT_EQ(0, RESULT(&io));
	io.aio_offset = 3 * PAGE;
	EXPECT_EQ(PAGE, RESULT(&io));
	EXPECT_MOVED(2, &self->before, direct);
	EXPECT_EQ(0, ret_errno(ioctl(loop, LOOP_CLR_FD)));
	close(loop);
	close(file);
	close(control);
}

struct resizer {
	int loop;
	int file;
	atomic_bool stops;
	long ret;
};

/* The half of it comes and goes. */
static void *resize(void *data)
{
	struct resizer *r = data;
	unsigned int i;

	for (i = 0; !r->stops && !r->ret; i++)
		r->ret = ret_errno(ftruncate(r->file, (i % 2 ? 8 : 4) * PAGE)) ?:
			 ret_errno(ioctl(r->loop, LOOP_SET_CAPACITY));
	return NULL;
}

/* The same while it is read. What is there is read; what isn't there any more may have been begun. */
TEST_F_TIMEOUT(direct, resized_meanwhile, 120)
{
	const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	unsigned int there = 0, gone = 0, i;
	struct resizer resizer = { };
	pthread_t thread;
	char name[32];
	int loop;

	resizer.file = temp_file(tmpfs_dir(), O_RDWR);
	ASSERT_LE(0, control);
	snprintf(name, sizeof(name), "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
	loop = open(name, O_RDWR | O_CLOEXEC | O_DIRECT);
	ASSERT_LE(0, loop);
	pattern_fill(self->buf, 4 * PAGE, 0, 1);
	ASSERT_EQ(4 * PAGE, pwrite(resizer.file, self->buf, 4 * PAGE, 0));
	ASSERT_EQ(0, ftruncate(resizer.file, 8 * PAGE));
	ASSERT_EQ(0, ret_errno(ioctl(loop, LOOP_SET_FD, resizer.file)));
	ASSERT_EQ(1, native_files(&self->native, 0, 1, &loop));
	resizer.loop = loop;
	ASSERT_EQ(0, pthread_create(&thread, NULL, resize, &resizer));
	while (there < 8 || gone < 8) {
		struct io_event ev[8];

		memset(self->buf, 0, 8 * PAGE);
		for (i = 0; i < 8; i++) {
			prep(&self->native.sq[i], i, IOCB_CMD_PREAD, self->buf);
			self->native.sq[i].aio_fildes = 0;
		}
		ASSERT_EQ(8, native_enter_sq(&self->native, 8, 0, 8));
		ASSERT_EQ(0, native_enter(&self->native, 0, NULL, 8));
		ASSERT_EQ(8, ring_reap(self->native.aio.ctx, 8, ev));
		for (i = 0; i < 8; i++) {
			const bool whole = ev[i].res == PAGE;

			if (ev[i].data < 4) {
				EXPECT_TRUE(whole);
				continue;
			}
			EXPECT_TRUE(whole || ev[i].res == 0 || ev[i].res == -EIO) {
				TH_LOG("%lld", (long long)ev[i].res);
			}
			if (whole)
				there++;
			else
				gone++;
		}
		ASSERT_EQ(-1, pattern_check(self->buf, 4 * PAGE, 0, 1));
		ASSERT_EQ(-1, filled_check(self->buf + 4 * PAGE, 4 * PAGE, 0));
	}
	resizer.stops = true;
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, resizer.ret);
	EXPECT_LT(8, MOVED(&self->before, direct));
	EXPECT_EQ(0, ret_errno(ioctl(loop, LOOP_CLR_FD)));
	close(loop);
	close(resizer.file);
	close(control);
}

/* A device that goes with requests in flight, and what they are about, too. */
TEST_F(direct, removed)
{
	const struct raio_buffer none = { };
	const int no_fd = -1;
	struct nullb nb;
	pthread_t thread;
	struct iocb io;
	unsigned int i;
	void *ret;
	int fd;

	ASSERT_EQ(0, nullb_create_as(&nb, NULLB_MB, 20 * MS));
	fd = open(nb.node, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, fd);
	pattern_fill(self->buf, 8 * PAGE, 0, 3);
	ASSERT_EQ(8 * PAGE, pwrite(fd, self->buf, 8 * PAGE, 0));
	memset(self->buf, 0, 8 * PAGE);
	ASSERT_EQ(1, native_files(&self->native, 0, 1, &fd));
	for (i = 0; i < 8; i++) {
		prep(&self->native.sq[i], i, IOCB_CMD_PREAD, self->buf);
		self->native.sq[i].aio_fildes = 0;
	}
	io = self->native.sq[0];
	ASSERT_EQ(8, native_enter_sq(&self->native, 8, 0, 0));
	ASSERT_EQ(0, pthread_create(&thread, NULL, nullb_power_off, &nb));
	ASSERT_EQ(1, native_buffers(&self->native, 1, 1, &none));
	EXPECT_ALL(8, PAGE);
	ASSERT_EQ(0, pthread_join(thread, &ret));
	EXPECT_EQ(NULL, ret);
	EXPECT_EQ(-1, pattern_check(self->buf, 8 * PAGE, 0, 3));
	EXPECT_MOVED(8, &self->before, direct);
	/* At its end there is nothing to read. */
	ASSERT_EQ(1, native_buffers(&self->native, 1, 1, &self->buffer));
	EXPECT_GE(0, RESULT(&io));
	ASSERT_EQ(1, native_files(&self->native, 0, 1, &no_fd));
	close(fd);
	nullb_remove(&nb);
}

/* By a scheduler, which merges what it likes. */
TEST_F(direct, scheduled)
{
	unsigned int way, i;

	ASSERT_EQ(0, write_str("/sys/block/raio_testb0/queue/scheduler", "bfq"));
	ASSERT_EQ(0, write_str("/sys/block/raio_testb0/queue/nomerges", "0"));
	for (way = 0; way < 2; way++) {
		const int opcode = way ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;

		if (way)
			memset(self->buf, 0, SIZE);
		else
			pattern_fill(self->buf, SIZE, 0, 9);
		/* Now one after another, now not. */
		for (i = 0; i < NR; i++)
			prep(&self->native.sq[i], i / 8 % 2 ? i : i / 8 * 8 + 7 - i % 8, opcode,
			     self->buf);
		ASSERT_EQ(NR, native_enter_sq(&self->native, NR, 0, NR));
		EXPECT_ALL(NR, PAGE);
	}
	EXPECT_EQ(-1, pattern_check(self->buf, SIZE, 0, 9));
	EXPECT_MOVED(2 * NR, &self->before, direct);
	EXPECT_EQ(0, write_str("/sys/block/raio_testb0/queue/nomerges", "2"));
	EXPECT_EQ(0, write_str("/sys/block/raio_testb0/queue/scheduler", "none"));
}

FIXTURE(memory)
{
	struct native native;
	char *buf;
	int fd;
	struct raio_stats before;
};

FIXTURE_SETUP(memory)
{
	testdev_begin();
	native_begin(_metadata, &self->native, NR_EVENTS, NR);
	self->buf = map_pages(SIZE);
	self->fd = testdev_open_direct("b0");
	pattern_fill(self->buf, SIZE, 0, 1);
	ASSERT_EQ(SIZE, pwrite(self->fd, self->buf, SIZE, 0));
	memset(self->buf, 0, SIZE);
	stats_now(_metadata, &self->before);
}

FIXTURE_TEARDOWN(memory)
{
	testdev_reset();
	native_end(_metadata, &self->native);
	close(self->fd);
}

/* Also of requests as kernel AIO has them, whose iocbs are told so. */
TEST_F(memory, by_pointers)
{
	const aio_context_t ctx = self->native.aio.ctx;
	struct iocb io[NR], *list[NR];
	struct io_event ev[NR];
	unsigned int i;

	for (i = 0; i < NR; i++) {
		iocb_prep(&io[i], IOCB_CMD_PREAD, self->fd, self->buf + i * PAGE, PAGE, i * PAGE);
		io[i].aio_data = 1000 + i;
		io[i].aio_key = 5;
		list[i] = &io[i];
	}
	ASSERT_EQ(NR, raio_submit(self->native.aio.dev, ctx, NR, list));
	ASSERT_EQ(NR, raio_getevents(self->native.aio.dev, ctx, NR, NR, ev, NULL));
	for (i = 0; i < NR; i++) {
		const struct iocb *iocb = (void *)(uintptr_t)ev[i].obj;

		EXPECT_EQ(1000 + (iocb - io), ev[i].data);
		EXPECT_EQ(PAGE, ev[i].res);
		EXPECT_EQ(0, iocb->aio_key);
	}
	EXPECT_EQ(-1, pattern_check(self->buf, SIZE, 0, 1));
	EXPECT_MOVED(NR, &self->before, direct);
}

/* None is left pinned, whatever comes of a request. */
TEST_F(memory, released)
{
	const long before = pinned(_metadata);
	struct io_event ev;
	struct iocb io;

	native_prep(&io, 1, IOCB_CMD_PREAD, self->fd, self->buf, 3 * PAGE, 0);
	EXPECT_EQ(3 * PAGE, RESULT(&io));
	testdev_cmd("b0 nowait 1");
	EXPECT_EQ(3 * PAGE, RESULT(&io));
	EXPECT_MOVED(1, &self->before, punted);
	/* More than there is. */
	io.aio_buf = (uintptr_t)map_before_hole(2 * PAGE);
	EXPECT_EQ(2 * PAGE, RESULT(&io));
	/* Too many parts. */
	io.aio_buf = (uintptr_t)self->buf;
	io.aio_nbytes = SIZE;
	EXPECT_EQ(SIZE, RESULT(&io));
	testdev_cmd("b0 mode hang");
	ASSERT_EQ(1, native_enter(&self->native, 1, &io, 0));
	testdev_cmd("b0 wait held 1");
	EXPECT_LT(before, pinned(_metadata));
	testdev_cmd("b0 fail all %d", EIO);
	ASSERT_EQ(0, native_enter(&self->native, 0, NULL, 1));
	ASSERT_EQ(1, ring_reap(self->native.aio.ctx, 1, &ev));
	EXPECT_EQ(-EIO, ev.res);
	EXPECT_EQ(before, pinned(_metadata));
}

/* As long as it isn't too many parts, and where the device can. */
TEST_F(memory, of_all_lengths)
{
	const unsigned int most = 33;
	struct iocb io;
	unsigned int n;

	for (n = 1; n <= 40; n++) {
		memset(self->buf, 0, SIZE);
		native_prep(&io, n, IOCB_CMD_PREAD, self->fd, self->buf + 512, n * PAGE - 1024, 512);
		EXPECT_EQ(n * PAGE - 1024, RESULT(&io));
		EXPECT_EQ(-1, pattern_check(self->buf + 512, n * PAGE - 1024, 512, 1));
		EXPECT_EQ(-1, filled_check(self->buf, 512, 0));
		EXPECT_EQ(-1, filled_check(self->buf + n * PAGE - 512, PAGE, 0));
		io.aio_lio_opcode = IOCB_CMD_PWRITE;
		EXPECT_EQ(n * PAGE - 1024, RESULT(&io));
	}
	/* Four pages are four parts at most. */
	EXPECT_LE(8, MOVED(&self->before, direct));
	EXPECT_GE(2 * most, MOVED(&self->before, direct));
	/* What the device takes, the file decides. */
	native_prep(&io, 0, IOCB_CMD_PREAD, self->fd, self->buf + 1, PAGE, 0);
	stats_now(_metadata, &self->before);
	EXPECT_EQ(-EINVAL, RESULT(&io));
	EXPECT_MOVED(0, &self->before, direct);
}

/* What isn't memory, and what may not be written to. */
TEST_F(memory, bad)
{
	struct io_event ev;
	struct iocb io;

	native_prep(&io, 1, IOCB_CMD_PREAD, self->fd, KERNEL_PTR, PAGE, 0);
	/* With 32 bits it is one that a process could have, so that the event says it. */
	EXPECT_EQ(-EFAULT, RESULT(&io));
	native_prep(&io, 1, IOCB_CMD_PREAD, self->fd, map_before_hole(0), PAGE, 0);
	EXPECT_EQ(1, native_enter(&self->native, 1, &io, 1));
	ASSERT_EQ(1, ring_reap(self->native.aio.ctx, 1, &ev));
	EXPECT_EQ(-EFAULT, ev.res);
	ASSERT_EQ(0, mprotect(self->buf, PAGE, PROT_READ));
	native_prep(&io, 1, IOCB_CMD_PREAD, self->fd, self->buf, PAGE, 0);
	EXPECT_EQ(-EFAULT, RESULT(&io));
	EXPECT_MOVED(0, &self->before, direct);
	io.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_EQ(PAGE, RESULT(&io));
	EXPECT_MOVED(1, &self->before, direct);
}

/* It is kept until the end, though the process hasn't it any more. */
TEST_F(memory, unmapped)
{
	struct io_event ev;
	struct iocb io;
	char *page;

	page = map_pages(PAGE);
	memset(page, 7, PAGE);
	testdev_cmd("b0 mode hang");
	native_prep(&io, 1, IOCB_CMD_PWRITE, self->fd, page, PAGE, 0);
	ASSERT_EQ(1, native_enter(&self->native, 1, &io, 0));
	testdev_cmd("b0 wait held 1");
	ASSERT_EQ(0, munmap(page, PAGE));
	testdev_cmd("b0 complete all");
	ASSERT_EQ(0, native_enter(&self->native, 0, NULL, 1));
	ASSERT_EQ(1, ring_reap(self->native.aio.ctx, 1, &ev));
	EXPECT_EQ(PAGE, ev.res);
	testdev_cmd("b0 mode now");
	ASSERT_EQ(PAGE, pread(self->fd, self->buf, PAGE, 0));
	EXPECT_EQ(-1, filled_check(self->buf, PAGE, 7));
}

/*
 * What is read into a page of a file that was written back meanwhile is written, too, and
 * before that there is no event.
 */
TEST_F(memory, written_back)
{
	static const char *const ends[] = { "now", "softirq" };
	const int fd = temp_file(ext4_dir(), O_RDWR);
	struct io_event ev;
	struct iocb io;
	unsigned int i;
	char *page;

	ASSERT_EQ(0, ftruncate(fd, PAGE));
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, page);
	for (i = 0; i < ARRAY_SIZE(ends); i++) {
		memset(page, 1, PAGE);
		testdev_cmd("b0 mode hang");
		native_prep(&io, 1, IOCB_CMD_PREAD, self->fd, page, PAGE, i * PAGE);
		ASSERT_EQ(1, native_enter(&self->native, 1, &io, 0));
		testdev_cmd("b0 wait held 1");
		ASSERT_EQ(0, fsync(fd));
		testdev_cmd("b0 mode %s", ends[i]);
		testdev_cmd("b0 complete all");
		ASSERT_EQ(0, native_enter(&self->native, 0, NULL, 1));
		ASSERT_EQ(1, ring_reap(self->native.aio.ctx, 1, &ev));
		EXPECT_EQ(PAGE, ev.res);
		/* It was dirty when the event came, so that this writes it. */
		ASSERT_EQ(0, fsync(fd));
		ASSERT_EQ(0, madvise(page, PAGE, MADV_DONTNEED));
		ASSERT_EQ(0, posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
		ASSERT_EQ(PAGE, pread(fd, self->buf, PAGE, 0));
		EXPECT_EQ(-1, pattern_check(self->buf, PAGE, i * PAGE, 1));
	}
	EXPECT_MOVED(2, &self->before, direct);
	munmap(page, PAGE);
	close(fd);
}

TEST_HARNESS_MAIN
