// SPDX-License-Identifier: GPL-2.0
/*
 * What others are told of a request: those who watch the file (inotify), and
 * /proc/PID/io. Whatever kernel AIO does is right: it is asked in the same test.
 */
#include <sys/inotify.h>

#include "raio_target.h"
#include "raio_testdev.h"

#define EVENTS	4

static const int opcodes[] = {
	IOCB_CMD_PREAD, IOCB_CMD_PWRITE, IOCB_CMD_PREADV, IOCB_CMD_PWRITEV, IOCB_CMD_FSYNC,
	IOCB_CMD_FDSYNC,
};

FIXTURE(accounting)
{
	struct aio aio[2];
	char *buf;
	struct iovec iov[2];
};

FIXTURE_SETUP(accounting)
{
	self->buf = map_pages(PAGE);
	self->iov[0].iov_base = self->buf;
	self->iov[0].iov_len = BLOCK;
	self->iov[1].iov_base = self->buf + BLOCK;
	self->iov[1].iov_len = PAGE - BLOCK;
	aio_begin(_metadata, &self->aio[0], &kernel_aio, EVENTS);
	aio_begin(_metadata, &self->aio[1], &raio, EVENTS);
}

FIXTURE_TEARDOWN(accounting)
{
	aio_end(_metadata, &self->aio[0]);
	aio_end(_metadata, &self->aio[1]);
}

/* Does one thing to the first page of the file. */
static void run(struct __test_metadata *_metadata, struct aio *aio, int opcode, int fd, char *buf,
		struct iovec *iov)
{
	struct iocb io;

	iocb_prep_page(&io, opcode, fd, buf, iov);
	EXPECT_LE(0, aio_result(_metadata, aio, &io));
}

/* How often each of the IN_* bits was told since the last time. */
static void watched(int in, unsigned int *counts)
{
	struct inotify_event events[64];
	const char *buf = (char *)events;
	ssize_t len, at;
	int bit;

	memset(counts, 0, 32 * sizeof(*counts));
	while ((len = read(in, events, sizeof(events))) > 0) {
		for (at = 0; at < len;) {
			const struct inotify_event *ev = (const void *)(buf + at);

			for (bit = 0; bit < 32; bit++)
				counts[bit] += ev->mask >> bit & 1;
			at += sizeof(*ev) + ev->len;
		}
	}
}

TEST_F(accounting, inotify)
{
	const char *const dirs[] = { tmpfs_dir(), ext4_dir(), xfs_dir() };
	const int flags[] = { 0, O_DIRECT };
	unsigned int i, j, k, n;

	for (i = 0; i < ARRAY_SIZE(dirs); i++) {
		for (k = 0; k < ARRAY_SIZE(flags); k++) {
			char path[64];
			unsigned int told[2][32];
			int fd = temp_file(dirs[i], O_RDWR | flags[k]);
			int in = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

			ASSERT_LE(0, fd);
			ASSERT_EQ(PAGE, pwrite(fd, self->buf, PAGE, 0));
			snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
			ASSERT_LE(0, inotify_add_watch(in, path, IN_ALL_EVENTS));
			for (j = 0; j < ARRAY_SIZE(opcodes); j++) {
				for (n = 0; n < 2; n++) {
					run(_metadata, &self->aio[n], opcodes[j], fd, self->buf,
					    self->iov);
					watched(in, told[n]);
				}
				EXPECT_EQ(0, memcmp(told[0], told[1], sizeof(told[0]))) {
					TH_LOG("%s, opcode %d: read %u and %u, modified %u and %u",
					       dirs[i], opcodes[j], told[0][0], told[1][0],
					       told[0][1], told[1][1]);
				}
			}
			/* It does watch. */
			ASSERT_EQ(PAGE, pread(fd, self->buf, PAGE, 0));
			ASSERT_EQ(PAGE, pwrite(fd, self->buf, PAGE, 0));
			watched(in, told[0]);
			EXPECT_EQ(1, told[0][0]);
			EXPECT_EQ(1, told[0][1]);
			close(in);
			close(fd);
		}
	}
}

/* The numbers of /proc/self/io. */
enum number { RCHAR, WCHAR, SYSCR, SYSCW, READ_BYTES, WRITE_BYTES, CANCELLED, NR_NUMBERS };

static const char *const names[NR_NUMBERS] = {
	"rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes",
};

/* Adds them, times @sign. What reading them counts itself is left out. */
static void add_numbers(struct __test_metadata *_metadata, long long *val, int sign)
{
	char text[512], key[32];
	const char *p;
	int i;

	ASSERT_LT(0, strlen(read_text("/proc/self/io", text, sizeof(text))));
	for (i = 0; i < NR_NUMBERS; i++) {
		snprintf(key, sizeof(key), "%s: ", names[i]);
		p = strstr(text, key);
		/* "write_bytes" is also the end of another. */
		if (p && i == WRITE_BYTES)
			p = strstr(text, "\nwrite_bytes: ") + 1;
		ASSERT_NE(NULL, p);
		val[i] += sign * atoll(p + strlen(key));
	}
	if (sign < 0) {
		val[RCHAR] -= strlen(text);
		val[SYSCR] -= 1;
	}
}

TEST_F(accounting, proc_io)
{
	static const struct {
		const char *name;
		enum where where;
		int flags;
	} kinds[] = {
		{ "tmpfs", TMPFS, 0 }, { "ext4", EXT4, 0 }, { "ext4, direct", EXT4, O_DIRECT },
		{ "xfs, direct", XFS, O_DIRECT }, { "null_blk", NULL_BLK, O_DIRECT },
	};
	unsigned int i, j, n, m;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct target t = { .where = kinds[i].where, .flags = kinds[i].flags };

		target_open(_metadata, &t);
		target_fill(_metadata, &t, PAGE, SEED_OLD);
		ASSERT_EQ(0, fsync(t.fd));
		for (j = 0; j < ARRAY_SIZE(opcodes); j++) {
			long long val[2][NR_NUMBERS] = { };

			/* Either has done it before, and finds all written back. */
			for (n = 0; n < 2; n++)
				run(_metadata, &self->aio[n], opcodes[j], t.fd, self->buf,
				    self->iov);
			for (n = 0; n < 2; n++) {
				ASSERT_EQ(0, fsync(t.fd));
				add_numbers(_metadata, val[n], -1);
				run(_metadata, &self->aio[n], opcodes[j], t.fd, self->buf,
				    self->iov);
				add_numbers(_metadata, val[n], 1);
			}
			for (m = 0; m < NR_NUMBERS; m++) {
				EXPECT_EQ(val[0][m], val[1][m]) {
					TH_LOG("%s, opcode %d: %s", kinds[i].name, opcodes[j],
					       names[m]);
				}
			}
			if (kinds[i].flags && (opcodes[j] == IOCB_CMD_PREAD ||
					       opcodes[j] == IOCB_CMD_PREADV))
				EXPECT_EQ(PAGE, val[1][READ_BYTES]);
			if (kinds[i].flags && (opcodes[j] == IOCB_CMD_PWRITE ||
					       opcodes[j] == IOCB_CMD_PWRITEV))
				EXPECT_LE(PAGE, val[1][WRITE_BYTES]);
		}
		target_close(&t);
	}
}

#define REFUSED	64

/*
 * What workers do is counted when its event is there. What the device had refused at
 * first counts, too.
 */
TEST_F(accounting, by_workers)
{
	const int fd = testdev_open_direct("b0");
	struct iocb io[REFUSED], *iop[REFUSED];
	struct raio_stats before;
	unsigned int round, i, n;
	struct aio aio;

	testdev_begin();
	aio_begin(_metadata, &aio, &raio, REFUSED);
	for (round = 0; round < 20 * long_run(10); round++) {
		const bool writes = round % 2;
		const enum number what = writes ? WRITE_BYTES : READ_BYTES;
		long long start[NR_NUMBERS] = { };

		testdev_cmd("b0 mode %s", round % 4 < 2 ? "softirq" : "now");
		testdev_cmd("b0 nowait %u", REFUSED);
		stats_now(_metadata, &before);
		for (i = 0; i < REFUSED; i++) {
			iocb_prep(&io[i], writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, fd, self->buf,
				  PAGE, i * PAGE);
			iop[i] = &io[i];
		}
		add_numbers(_metadata, start, 1);
		ASSERT_EQ(REFUSED, aio_submit(&aio, REFUSED, iop));
		for (n = 0; n < REFUSED;) {
			long long val[NR_NUMBERS] = { };
			struct io_event ev[REFUSED];
			long got = aio_getevents(&aio, 1, REFUSED, ev, NULL);

			ASSERT_LT(0, got);
			n += got;
			add_numbers(_metadata, val, 1);
			ASSERT_LE(start[what] + (REFUSED + n) * PAGE, val[what]);
		}
		EXPECT_MOVED(REFUSED, &before, punted);
	}
	aio_end(_metadata, &aio);
	testdev_reset();
	close(fd);
}

TEST_HARNESS_MAIN
