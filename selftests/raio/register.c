// SPDX-License-Identifier: GPL-2.0
/*
 * Buffers and files that are registered with a context, and requests that name
 * them by their numbers: what is checked, who is charged, and that each goes when
 * nobody uses it any more, and no sooner.
 */
#include <sys/resource.h>

#include "raio_native.h"
#include "raio_task.h"
#include "raio_testdev.h"

#define NR_EVENTS	64
#define NR_BUFFERS	8
#define NR_FILES	8
#define SIZE		(16 * PAGE)

FIXTURE(registered)
{
	struct native native;
	char *buf;
};

FIXTURE_SETUP(registered)
{
	testdev_begin();
	native_begin_sized(_metadata, &self->native, NR_EVENTS, 0, NR_BUFFERS, NR_FILES);
	self->buf = map_pages(SIZE);
}

FIXTURE_TEARDOWN(registered)
{
	testdev_reset();
	native_end(_metadata, &self->native);
}

/* Kilobytes that are pinned of this process. */
static long pinned_kb(void)
{
	char line[128];
	FILE *file = fopen("/proc/self/status", "r");
	long kb = -1;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "VmPin: %ld", &kb) == 1)
			break;
	if (file)
		fclose(file);
	return kb;
}

static void fixed(struct iocb *io, int file, int buffer)
{
	if (file >= 0) {
		io->aio_fildes = file;
		io->aio_flags |= RAIO_IOCB_FIXED_FILE;
	}
	if (buffer >= 0) {
		io->aio_reserved2 = buffer;
		io->aio_flags |= RAIO_IOCB_FIXED_BUF;
	}
}

#define RESULT(_io) NATIVE_RESULT(&self->native, (_io))

FIXTURE(fixed_io)
{
	struct native native;
	char *buf;
	int fd;
};

FIXTURE_VARIANT(fixed_io)
{
	const char *(*dir)(void);
	int flags;
	bool disk;
};

FIXTURE_VARIANT_ADD(fixed_io, tmpfs) { .dir = tmpfs_dir };
FIXTURE_VARIANT_ADD(fixed_io, ext4) { .dir = ext4_dir };
FIXTURE_VARIANT_ADD(fixed_io, ext4_direct) { .dir = ext4_dir, .flags = O_DIRECT };
FIXTURE_VARIANT_ADD(fixed_io, xfs_direct) { .dir = xfs_dir, .flags = O_DIRECT };
FIXTURE_VARIANT_ADD(fixed_io, disk) { .disk = true };
FIXTURE_VARIANT_ADD(fixed_io, disk_direct) { .disk = true, .flags = O_DIRECT };

FIXTURE_SETUP(fixed_io)
{
	testdev_begin();
	native_begin_sized(_metadata, &self->native, NR_EVENTS, 0, NR_BUFFERS, NR_FILES);
	self->buf = map_pages(SIZE);
	self->fd = variant->disk ? open(testdev_path("b0"), O_RDWR | O_CLOEXEC | variant->flags) :
				   temp_file(variant->dir(), O_RDWR | variant->flags);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(fixed_io)
{
	close(self->fd);
	testdev_reset();
	native_end(_metadata, &self->native);
}

/* Writes and reads back parts of buffers of which none begins where its memory does. */
TEST_F(fixed_io, both_ways)
{
	struct raio_buffer buffers[2] = {
		{ (uintptr_t)self->buf + BLOCK, 6 * PAGE },
		{ (uintptr_t)self->buf + 8 * PAGE, 8 * PAGE },
	};
	struct iocb io;
	unsigned int i;

	ASSERT_EQ(2, native_buffers(&self->native, 2, 2, buffers));
	ASSERT_EQ(1, native_files(&self->native, 5, 1, &self->fd));
	pattern_fill(self->buf, 8 * PAGE, 0, 3);
	for (i = 0; i < 3; i++) {
		const size_t len = PAGE + i * PAGE, from = i * BLOCK + BLOCK;

		native_prep(&io, i, IOCB_CMD_PWRITE, 0, self->buf + from, len, 0);
		fixed(&io, 5, 2);
		EXPECT_EQ(len, RESULT(&io));
		memset(self->buf + 8 * PAGE, 0, 8 * PAGE);
		native_prep(&io, i, IOCB_CMD_PREAD, 0, self->buf + 9 * PAGE + i * BLOCK, len, 0);
		fixed(&io, 5, 3);
		EXPECT_EQ(len, RESULT(&io));
		EXPECT_EQ(0, memcmp(self->buf + from, self->buf + 9 * PAGE + i * BLOCK, len));
		EXPECT_EQ(-1, filled_check(self->buf + 8 * PAGE, PAGE + i * BLOCK, 0));
		EXPECT_EQ(-1, filled_check(self->buf + 9 * PAGE + i * BLOCK + len,
					   SIZE - 9 * PAGE - i * BLOCK - len, 0));
	}
}

/* At the end of the file, or of the disk, as read(2). */
TEST_F(fixed_io, at_the_end)
{
	struct raio_buffer buffer = { (uintptr_t)self->buf, SIZE };
	const off_t size = variant->disk ? TESTDEV_DISK_SIZE : 2 * PAGE;
	struct iocb io;

	if (!variant->disk)
		ASSERT_EQ(0, ftruncate(self->fd, size));
	ASSERT_EQ(1, native_buffers(&self->native, 0, 1, &buffer));
	ASSERT_EQ(1, native_files(&self->native, 0, 1, &self->fd));
	native_prep(&io, 1, IOCB_CMD_PREAD, 0, self->buf, 4 * PAGE, size - PAGE);
	fixed(&io, 0, 0);
	EXPECT_EQ(kernel_rw(IOCB_CMD_PREAD, self->fd, self->buf, 4 * PAGE, size - PAGE, 0),
		  RESULT(&io));
	io.aio_offset = size;
	EXPECT_EQ(0, RESULT(&io));
	io.aio_offset = -1;
	EXPECT_EQ(-EINVAL, RESULT(&io));
	/* Which direct I/O may refuse. */
	io.aio_offset = 1;
	EXPECT_EQ(kernel_rw(IOCB_CMD_PREAD, self->fd, self->buf, 4 * PAGE, 1, 0), RESULT(&io));
	io.aio_offset = 0;
	io.aio_nbytes = 1;
	EXPECT_EQ(kernel_rw(IOCB_CMD_PREAD, self->fd, self->buf, 1, 0, 0), RESULT(&io));
	io.aio_offset = 0;
	io.aio_nbytes = 0;
	EXPECT_EQ(0, RESULT(&io));
	if (variant->disk) {
		io.aio_lio_opcode = IOCB_CMD_PWRITE;
		io.aio_offset = size;
		io.aio_nbytes = PAGE;
		EXPECT_EQ(-ENOSPC, RESULT(&io));
	}
}

TEST_F(registered, listed)
{
	struct raio_query query = { };

	ASSERT_EQ(0, raio_ioctl(self->native.aio.dev, RAIO_IOC_QUERY, &query));
	EXPECT_NE(0, query.features & RAIO_FEAT_REGISTER);
	EXPECT_NE(0, query.iocb_flags & RAIO_IOCB_FIXED_BUF);
	EXPECT_NE(0, query.iocb_flags & RAIO_IOCB_FIXED_FILE);
}

/* What isn't registered, or not all of it. */
TEST_F(registered, refused)
{
	struct raio_buffer buffer = { (uintptr_t)self->buf + PAGE, 4 * PAGE };
	const int fd = temp_file(tmpfs_dir(), O_RDWR);
	struct iocb io, *iop = &io;

	ASSERT_EQ(1, native_buffers(&self->native, 1, 1, &buffer));
	ASSERT_EQ(1, native_files(&self->native, 1, 1, &fd));
#define TRY(_file, _buffer, _at, _len) ({				\
	native_prep(&io, 1, IOCB_CMD_PREAD, fd, self->buf + (_at), (_len), 0);	\
	fixed(&io, (_file), (_buffer));					\
	RESULT(&io);							\
})
	EXPECT_EQ(0, TRY(1, 1, PAGE, 4 * PAGE));
	EXPECT_EQ(-EBADF, TRY(0, 1, PAGE, PAGE));
	EXPECT_EQ(-EBADF, TRY(NR_FILES, 1, PAGE, PAGE));
	EXPECT_EQ(-EBADF, TRY(INT_MAX, 1, PAGE, PAGE));
	EXPECT_EQ(-EFAULT, TRY(1, 0, PAGE, PAGE));
	EXPECT_EQ(-EFAULT, TRY(1, NR_BUFFERS, PAGE, PAGE));
	EXPECT_EQ(-EFAULT, TRY(1, INT_MAX, PAGE, PAGE));
	EXPECT_EQ(-EFAULT, TRY(1, 1, PAGE - 1, PAGE));
	EXPECT_EQ(-EFAULT, TRY(1, 1, 5 * PAGE, 0));
	EXPECT_EQ(-EFAULT, TRY(1, 1, PAGE, 4 * PAGE + 1));
	EXPECT_EQ(-EFAULT, TRY(1, 1, 4 * PAGE, PAGE + 1));
	EXPECT_EQ(-EFAULT, TRY(1, 1, PAGE, LONG_MAX));
	io.aio_reserved2 = 1ULL << 32 | 1;
	io.aio_nbytes = PAGE;
	EXPECT_EQ(-EINVAL, RESULT(&io));
	io.aio_reserved2 = 1;
	io.aio_lio_opcode = IOCB_CMD_PREADV;
	EXPECT_EQ(-EINVAL, RESULT(&io));
	native_prep(&io, 1, IOCB_CMD_FSYNC, 0, NULL, 0, 0);
	fixed(&io, 1, 1);
	EXPECT_EQ(-EINVAL, RESULT(&io));
	native_prep(&io, 1, IOCB_CMD_NOOP, 0, NULL, 0, 0);
	fixed(&io, -1, 1);
	EXPECT_EQ(-EINVAL, RESULT(&io));
	fixed(&io, 1, -1);
	io.aio_flags = RAIO_IOCB_FIXED_FILE;
	io.aio_reserved2 = 0;
	EXPECT_EQ(0, RESULT(&io));
	/* Kernel AIO's requests can't. */
	native_prep(&io, 1, IOCB_CMD_PREAD, 1, self->buf + PAGE, PAGE, 0);
	io.aio_flags = RAIO_IOCB_FIXED_FILE;
	EXPECT_EQ(-EINVAL, aio_submit(&self->native.aio, 1, &iop));
	io.aio_fildes = fd;
	io.aio_flags = RAIO_IOCB_FIXED_BUF;
	EXPECT_EQ(-EINVAL, aio_submit(&self->native.aio, 1, &iop));
	io.aio_reserved2 = 1;
	EXPECT_EQ(-EINVAL, aio_submit(&self->native.aio, 1, &iop));
	close(fd);
}

/* What is wrong with a list, and where: what comes before it is done. */
TEST_F(registered, lists)
{
	struct raio_register arg = {
		.ctx = self->native.aio.ctx,
		.nr = 1,
		.array = KERNEL_ADDR,
	};
	struct raio_buffer buffers[3] = {
		{ (uintptr_t)self->buf, PAGE }, { 0, 0 }, { KERNEL_ADDR, PAGE },
	};
	char *read_only = map_read_only(self->buf, PAGE);
	int fds[3] = { 0, -1, 1000 };

	EXPECT_EQ(2, native_buffers(&self->native, 0, 3, buffers));
	EXPECT_EQ(4, pinned_kb());
	EXPECT_EQ(-EFAULT, native_buffers(&self->native, 0, 1, &buffers[2]));
	buffers[0].len = 0;
	EXPECT_EQ(-EINVAL, native_buffers(&self->native, 0, 1, &buffers[0]));
	buffers[0].len = (1UL << 30) + 1;
	EXPECT_EQ(-EINVAL, native_buffers(&self->native, 0, 1, &buffers[0]));
	buffers[0].addr = (uintptr_t)read_only;
	buffers[0].len = PAGE;
	EXPECT_EQ(-EFAULT, native_buffers(&self->native, 0, 1, &buffers[0]));
	buffers[0].addr = (uintptr_t)-PAGE;
	buffers[0].len = 2 * PAGE;
	EXPECT_EQ(-EFAULT, native_buffers(&self->native, 0, 1, &buffers[0]));
	/* What was there has stayed. */
	EXPECT_EQ(4, pinned_kb());

	EXPECT_EQ(2, native_files(&self->native, 0, 3, fds));
	EXPECT_EQ(-EBADF, native_files(&self->native, 0, 1, &fds[2]));
	fds[0] = -2;
	EXPECT_EQ(-EBADF, native_files(&self->native, 0, 1, fds));

	EXPECT_EQ(0, native_files(&self->native, NR_FILES, 0, fds));
	EXPECT_EQ(-EINVAL, native_files(&self->native, NR_FILES, 1, fds));
	EXPECT_EQ(-EINVAL, native_files(&self->native, UINT_MAX, 2, fds));
	EXPECT_EQ(-EINVAL, native_buffers(&self->native, NR_BUFFERS - 1, 2, buffers));
	EXPECT_EQ(-EFAULT, raio_ioctl(self->native.aio.dev, RAIO_IOC_BUFFERS, &arg));
	EXPECT_EQ(-EFAULT, raio_ioctl(self->native.aio.dev, RAIO_IOC_FILES, &arg));
}

TEST_F(registered, setup_refused)
{
	const struct rlimit files = { RAIO_MAX_FILES, RAIO_MAX_FILES };
	const struct rlimit fewer = { RAIO_MAX_FILES - 1, RAIO_MAX_FILES };
	struct raio_setup arg = { .nr_events = 1 };
	const long bytes = raio_nr("nr_ring_bytes");
	aio_context_t ctx = 0;

	arg.ctxp = (uintptr_t)&ctx;
	arg.nr_buffers = RAIO_MAX_BUFFERS + 1;
	EXPECT_EQ(-EINVAL, raio_ioctl(self->native.aio.dev, RAIO_IOC_SETUP, &arg));
	arg.nr_buffers = RAIO_MAX_BUFFERS;
	arg.nr_files = RAIO_MAX_FILES + 1;
	EXPECT_EQ(-EINVAL, raio_ioctl(self->native.aio.dev, RAIO_IOC_SETUP, &arg));
	/* No more than can be open. */
	arg.nr_files = RAIO_MAX_FILES;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &fewer));
	EXPECT_EQ(-EMFILE, raio_ioctl(self->native.aio.dev, RAIO_IOC_SETUP, &arg));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &files));
	ASSERT_EQ(0, raio_ioctl(self->native.aio.dev, RAIO_IOC_SETUP, &arg));
	/* What the tables can take is charged for. */
	EXPECT_LT(bytes + 100 * (RAIO_MAX_BUFFERS + RAIO_MAX_FILES), raio_nr("nr_ring_bytes"));
	EXPECT_EQ(0, raio_destroy(self->native.aio.dev, ctx));
	EXPECT_EQ(bytes, raio_nr("nr_ring_bytes"));
}

/* A request keeps what it uses; what isn't used any more goes. */
TEST_F(registered, in_flight)
{
	struct raio_buffer buffer = { (uintptr_t)self->buf, SIZE }, none = { };
	int fd = open(testdev_path("c0"), O_RDWR | O_CLOEXEC), no_fd = -1;
	struct io_event ev;
	struct iocb io;

	ASSERT_LE(0, fd);
	testdev_cmd("c0 mode hang");
	ASSERT_EQ(1, native_buffers(&self->native, 0, 1, &buffer));
	ASSERT_EQ(1, native_files(&self->native, 0, 1, &fd));
	native_prep(&io, 1, IOCB_CMD_PREAD, 0, self->buf, PAGE, 0);
	fixed(&io, 0, 0);
	ASSERT_EQ(1, native_enter(&self->native, 1, &io, 0));
	testdev_cmd("c0 wait held 1");
	close(fd);
	ASSERT_EQ(1, native_files(&self->native, 0, 1, &no_fd));
	ASSERT_EQ(1, native_buffers(&self->native, 0, 1, &none));
	EXPECT_EQ(-EBADF, RESULT(&io));
	EXPECT_EQ(SIZE / 1024, pinned_kb());
	/* What is registered in its place goes at once. */
	ASSERT_EQ(1, native_buffers(&self->native, 0, 1, &buffer));
	EXPECT_EQ(2 * SIZE / 1024, pinned_kb());
	ASSERT_EQ(1, native_buffers(&self->native, 0, 1, &none));
	EXPECT_TRUE(wait_for(pinned_kb() == SIZE / 1024));
	testdev_cmd("c0 complete all");
	ASSERT_EQ(0, native_enter(&self->native, 0, NULL, 1));
	ASSERT_EQ(1, ring_reap(self->native.aio.ctx, 1, &ev));
	EXPECT_NATIVE(1, PAGE, &ev);
	EXPECT_TRUE(wait_for(pinned_kb() == 0));
}

/* Destroy returns when all of it is released. */
TEST_F(registered, destroyed)
{
	struct raio_buffer buffer = { (uintptr_t)self->buf, SIZE };
	int pipes[2];
	char c;

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(1, native_buffers(&self->native, 0, 1, &buffer));
	ASSERT_EQ(1, native_files(&self->native, 0, 1, &pipes[1]));
	close(pipes[1]);
	EXPECT_EQ(SIZE / 1024, pinned_kb());
	ASSERT_EQ(0, raio_destroy(self->native.aio.dev, self->native.aio.ctx));
	self->native.aio.ctx = 0;
	EXPECT_EQ(0, pinned_kb());
	/* Nobody has the other end any more. */
	EXPECT_EQ(0, read(pipes[0], &c, 1));
	close(pipes[0]);
}

/* The same when the process has gone, or its file. */
TEST_F(registered, closed)
{
	int pipes[2], way;
	char c;

	for (way = 0; way < 3; way++) {
		pid_t pid;

		ASSERT_EQ(0, pipe(pipes));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			struct raio_buffer buffer = { (uintptr_t)self->buf, SIZE };
			struct native native;

			native_begin_sized(_metadata, &native, 1, 0, 1, 1);
			ASSERT_EQ(1, native_buffers(&native, 0, 1, &buffer));
			ASSERT_EQ(1, native_files(&native, 0, 1, &pipes[1]));
			close(pipes[1]);
			if (way == 0)
				_exit(0);
			if (way == 1)
				close(native.aio.dev);
			if (way == 2)
				munmap((void *)native.aio.ctx, PAGE);
			_exit(!wait_for(pinned_kb() == 0));
		}
		close(pipes[1]);
		EXPECT_EQ(0, wait_child(pid));
		EXPECT_EQ(0, read(pipes[0], &c, 1));
		close(pipes[0]);
	}
}

/* What a user locks counts, whoever of his processes does it, and is given back. */
TEST_F(registered, memlock)
{
	const pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		const struct rlimit limit = { 8 * PAGE, 8 * PAGE };
		struct raio_buffer buffer = { (uintptr_t)self->buf, 6 * PAGE }, none = { };
		struct native *native = &self->native, own;
		unsigned int i;

		native_begin_sized(_metadata, &own, 1, 0, NR_BUFFERS, 1);
		native = &own;
		ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
		ASSERT_EQ(0, setresuid(4242, 4242, 4242));
		for (i = 0; i < 20; i++) {
			buffer.len = 6 * PAGE;
			ASSERT_EQ(1, native_buffers(native, 0, 1, &buffer));
			EXPECT_EQ(24, pinned_kb());
			EXPECT_EQ(-ENOMEM, native_buffers(native, 1, 1, &buffer));
			buffer.len = 2 * PAGE;
			ASSERT_EQ(1, native_buffers(native, 1, 1, &buffer));
			buffer.len = 1;
			EXPECT_EQ(-ENOMEM, native_buffers(native, 2, 1, &buffer));
			EXPECT_EQ(32, pinned_kb());
			ASSERT_EQ(1, native_buffers(native, 1, 1, &none));
			ASSERT_EQ(1, native_buffers(native, 0, 1, &none));
			ASSERT_TRUE(wait_for(pinned_kb() == 0));
		}
		_exit(0);
	}
	EXPECT_EQ(0, wait_child(pid));
}

#define HUGE	(2UL << 20)

/* A huge page, and what lies beside it in others. */
TEST_F(registered, huge_pages)
{
	char *map = mmap(NULL, 4 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	char *huge = (char *)(((uintptr_t)map + HUGE - 1) & ~(HUGE - 1));
	struct raio_buffer buffer = { (uintptr_t)huge + PAGE, 2 * HUGE + PAGE };
	const int fd = temp_file(ext4_dir(), O_RDWR | O_DIRECT);
	unsigned int i;

	ASSERT_NE(MAP_FAILED, map);
	madvise(huge, 2 * HUGE, MADV_HUGEPAGE);
	memset(huge, 1, 3 * HUGE - PAGE);
	ASSERT_EQ(1, native_buffers(&self->native, 0, 1, &buffer));
	for (i = 0; i < 8; i++) {
		const size_t at = PAGE + i * (HUGE / 4), len = HUGE / 4 + PAGE;
		struct iocb io;

		pattern_fill(huge + at, len, 0, i);
		native_prep(&io, i, IOCB_CMD_PWRITE, fd, huge + at, len, 0);
		fixed(&io, -1, 0);
		ASSERT_EQ(len, RESULT(&io));
		memset(huge + at, 0, len);
		io.aio_lio_opcode = IOCB_CMD_PREAD;
		ASSERT_EQ(len, RESULT(&io));
		ASSERT_EQ(-1, pattern_check(huge + at, len, 0, i));
	}
	close(fd);
}

/*
 * Of a huge page all is charged for, once for all buffers in it, whatever is the
 * first to go.
 */
TEST_F(registered, memlock_of_huge_pages)
{
	char *map = mmap(NULL, 4 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	char *huge = (char *)(((uintptr_t)map + HUGE - 1) & ~(HUGE - 1));
	const struct rlimit limit = { 2 * HUGE, 2 * HUGE };
	struct raio_buffer part[] = {
		{ (uintptr_t)huge, PAGE },
		{ (uintptr_t)huge + 7 * PAGE, PAGE },
		{ (uintptr_t)huge + HUGE - PAGE, 2 * PAGE },
	};
	struct raio_buffer third = { (uintptr_t)huge + 2 * HUGE, 1 }, none = { };
	pid_t pid;

	ASSERT_NE(MAP_FAILED, map);
	madvise(huge, 3 * HUGE, MADV_HUGEPAGE);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct native *native = &self->native, own;

		memset(huge, 1, 3 * HUGE);
		native_begin_sized(_metadata, &own, 1, 0, NR_BUFFERS, 1);
		native = &own;
		ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
		ASSERT_EQ(0, setresuid(4242, 4242, 4242));
		ASSERT_EQ(2, native_buffers(native, 0, 2, part));
		EXPECT_EQ(HUGE / 1024, pinned_kb());
		ASSERT_EQ(1, native_buffers(native, 2, 1, &part[2]));
		EXPECT_EQ(2 * HUGE / 1024, pinned_kb());
		EXPECT_EQ(-ENOMEM, native_buffers(native, 3, 1, &third));
		/* The first huge page has one buffer left. */
		ASSERT_EQ(1, native_buffers(native, 2, 1, &none));
		ASSERT_EQ(1, native_buffers(native, 0, 1, &none));
		ASSERT_TRUE(wait_for(pinned_kb() == HUGE / 1024));
		ASSERT_EQ(1, native_buffers(native, 3, 1, &third));
		EXPECT_EQ(2 * HUGE / 1024, pinned_kb());
		ASSERT_EQ(1, native_buffers(native, 1, 1, &none));
		ASSERT_EQ(1, native_buffers(native, 3, 1, &none));
		ASSERT_TRUE(wait_for(pinned_kb() == 0));
		_exit(0);
	}
	EXPECT_EQ(0, wait_child(pid));
	munmap(map, 4 * HUGE);
}

#define ROUNDS	2000

struct replacer {
	struct native *native;
	struct raio_buffer buffer;
	int fd;
	bool stop;
	unsigned int errors;
};

static void *replace(void *data)
{
	struct replacer *r = data;
	const struct raio_buffer none = { };
	const int no_fd = -1;
	unsigned int i;

	for (i = 0; !__atomic_load_n(&r->stop, __ATOMIC_RELAXED); i++) {
		r->errors += native_buffers(r->native, 0, 1, i % 4 ? &r->buffer : &none) != 1;
		r->errors += native_files(r->native, 0, 1, i % 4 ? &r->fd : &no_fd) != 1;
	}
	return NULL;
}

/* Replaced by one thread while another uses them. */
TEST_F(registered, replaced_meanwhile)
{
	struct replacer r = {
		.native = &self->native,
		.buffer = { (uintptr_t)self->buf, SIZE },
		.fd = temp_file(tmpfs_dir(), O_RDWR),
	};
	unsigned int i, done = 0, none = 0;
	pthread_t thread;
	struct iocb io;

	ASSERT_EQ(0, ftruncate(r.fd, PAGE));
	ASSERT_EQ(0, pthread_create(&thread, NULL, replace, &r));
	native_prep(&io, 1, IOCB_CMD_PREAD, 0, self->buf, PAGE, 0);
	fixed(&io, 0, 0);
	for (i = 0; i < ROUNDS * long_run(10) || !done || !none; i++) {
		const long ret = RESULT(&io);

		if (ret == PAGE)
			done++;
		else if (ret == -EBADF || ret == -EFAULT)
			none++;
		else
			ASSERT_EQ(PAGE, ret);
	}
	__atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, r.errors);
	close(r.fd);
}

TEST_HARNESS_MAIN
