/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the selftests of raio share.
 *
 * Most of them are written once and run on two backends: the kernel's own
 * AIO by its system calls, which is the reference, and raio. A test is a
 * TEST_F() of a fixture that has both as variants and calls them by struct
 * aio. Where raio has to differ, the test says why.
 *
 * Nothing is skipped: a file system or device that is missing is a failure.
 * These are looked for, and can be moved by the environment:
 *
 *	RAIO_TMPFS	/tmp		a tmpfs
 *	RAIO_EXT4	/mnt/ext4	an ext4 on a disk
 *	RAIO_XFS	/mnt/xfs	an xfs on a disk
 *	RAIO_NULLB	/dev/nullb0	null_blk, whatever its settings
 *
 * Further null_blk devices are made through configfs. All is run as root,
 * and one program at a time: the counters of the module are compared.
 *
 * All calls return what the system call does, or -errno.
 */
#ifndef RAIO_TEST_H
#define RAIO_TEST_H

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/raio.h>
#include <linux/time_types.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <time.h>

#include "kselftest_harness.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC		0x58465342
#endif

#define RAIO_DEV		"/dev/raio"
#define PAGE			4096UL
#define BLOCK			512UL
/*
 * In the kernel's half of the address space on x86-64 and arm64. What a pointer
 * of 32 bits takes of it is above what a program can map, too.
 */
#define KERNEL_ADDR		0xffff8880fffff000ULL
#define KERNEL_PTR		((void *)(uintptr_t)KERNEL_ADDR)
#define WAIT_SECONDS		10

/*
 * True as soon as @cond is, false if it does not come true for a long time.
 * To wait for an event that has been caused, never for one that may happen.
 */
#define wait_for(cond) ({						\
	unsigned int __tries = WAIT_SECONDS * 1000;			\
	bool __true = cond;						\
									\
	while (!__true && __tries--) {					\
		usleep(1000);						\
		__true = cond;						\
	}								\
	__true;								\
})

static inline long ret_errno(long ret)
{
	return ret < 0 ? -errno : ret;
}

static inline const char *env_or(const char *name, const char *def)
{
	const char *val = getenv(name);

	return val && *val ? val : def;
}

/* RAIO_LONG=1 is for a run that takes its time: @times as much of it. */
static inline unsigned int long_run(unsigned int times)
{
	return *env_or("RAIO_LONG", "") ? times : 1;
}

/* A millisecond of now_ns(). */
#define MS		1000000LL

static inline long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* A sequence of numbers that depends on nothing but its start (splitmix64). */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* The calls of the device. */

static inline int raio_open(void)
{
	return ret_errno(open(RAIO_DEV, O_RDWR | O_CLOEXEC));
}

static inline long raio_ioctl(int dev, unsigned long cmd, void *arg)
{
	return ret_errno(ioctl(dev, cmd, arg));
}

static inline long raio_setup(int dev, unsigned int nr, aio_context_t *ctxp)
{
	struct raio_setup arg = { .nr_events = nr, .ctxp = (uintptr_t)ctxp };

	return raio_ioctl(dev, RAIO_IOC_SETUP, &arg);
}

static inline long raio_destroy(int dev, aio_context_t ctx)
{
	struct raio_destroy arg = { .ctx = ctx };

	return raio_ioctl(dev, RAIO_IOC_DESTROY, &arg);
}

static inline long raio_submit(int dev, aio_context_t ctx, long nr, struct iocb **iocbs)
{
	struct raio_submit arg = { .ctx = ctx, .nr = nr, .iocbs = (uintptr_t)iocbs };

	return raio_ioctl(dev, RAIO_IOC_SUBMIT, &arg);
}

static inline long raio_pgetevents(int dev, aio_context_t ctx, long min_nr, long nr,
				   struct io_event *events, struct __kernel_timespec *timeout,
				   const sigset_t *mask, size_t size)
{
	struct raio_getevents arg = {
		.ctx = ctx,
		.min_nr = min_nr,
		.nr = nr,
		.events = (uintptr_t)events,
		.timeout = (uintptr_t)timeout,
		.sigmask = (uintptr_t)mask,
		.sigsetsize = size,
	};

	return raio_ioctl(dev, RAIO_IOC_GETEVENTS, &arg);
}

static inline long raio_getevents(int dev, aio_context_t ctx, long min_nr, long nr,
				  struct io_event *events, struct __kernel_timespec *timeout)
{
	return raio_pgetevents(dev, ctx, min_nr, nr, events, timeout, NULL, 0);
}

/* 0, or -errno. */
static inline long raio_cancel(int dev, aio_context_t ctx, struct iocb *iocb)
{
	struct raio_cancel arg = { .ctx = ctx, .iocb = (uintptr_t)iocb };

	return raio_ioctl(dev, RAIO_IOC_CANCEL, &arg);
}

static inline long raio_stats(int dev, struct raio_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	return raio_ioctl(dev, RAIO_IOC_STATS, stats);
}

/* How many contexts there are in the whole system, or -errno. */
static inline long raio_live(void)
{
	struct raio_stats stats;
	int dev = raio_open();
	long ret;

	if (dev < 0)
		return dev;
	ret = raio_stats(dev, &stats);
	close(dev);
	return ret ? ret : (long)(stats.setups - stats.frees);
}

/* The counters, by a descriptor of their own. */
static inline void stats_now(struct __test_metadata *_metadata, struct raio_stats *stats)
{
	int dev = raio_open();

	ASSERT_LE(0, dev);
	ASSERT_EQ(0, raio_stats(dev, stats));
	close(dev);
}

/* By how much the counter @name has moved since @before. */
#define MOVED(before, name) ({						\
	struct raio_stats __now;					\
									\
	stats_now(_metadata, &__now);					\
	__now.name - (before)->name;					\
})

#define EXPECT_MOVED(n, before, name) \
	EXPECT_EQ((n), MOVED(before, name))

/* The calls of the kernel. */

/* preadv2(2), pwritev2(2) and the syncs, as their IOCB_CMD_* calls them. */
static inline long kernel_rw(int opcode, int fd, const void *buf, unsigned long len, long long pos,
			     unsigned int flags)
{
	const struct iovec one = { .iov_base = (void *)buf, .iov_len = len };
	const unsigned long low = pos, high = pos >> 32;

	switch (opcode) {
	case IOCB_CMD_PREAD:
		return ret_errno(syscall(__NR_preadv2, fd, &one, 1UL, low, high, flags));
	case IOCB_CMD_PWRITE:
		return ret_errno(syscall(__NR_pwritev2, fd, &one, 1UL, low, high, flags));
	case IOCB_CMD_PREADV:
		return ret_errno(syscall(__NR_preadv2, fd, buf, len, low, high, flags));
	case IOCB_CMD_PWRITEV:
		return ret_errno(syscall(__NR_pwritev2, fd, buf, len, low, high, flags));
	case IOCB_CMD_FSYNC:
		return ret_errno(fsync(fd));
	case IOCB_CMD_FDSYNC:
		return ret_errno(fdatasync(fd));
	}
	return -EINVAL;
}

static inline int kernel_open(void)
{
	/* The descriptor is never used, but it can be closed. */
	return ret_errno(open("/dev/null", O_RDWR | O_CLOEXEC));
}

static inline long kernel_setup(int dev, unsigned int nr, aio_context_t *ctxp)
{
	(void)dev;
	return ret_errno(syscall(__NR_io_setup, nr, ctxp));
}

static inline long kernel_destroy(int dev, aio_context_t ctx)
{
	(void)dev;
	return ret_errno(syscall(__NR_io_destroy, ctx));
}

static inline long kernel_submit(int dev, aio_context_t ctx, long nr, struct iocb **iocbs)
{
	(void)dev;
	return ret_errno(syscall(__NR_io_submit, ctx, nr, iocbs));
}

/*
 * Of the two calls that read events, a 32-bit program has one that takes a
 * struct __kernel_timespec. Without a mask, and if it isn't stopped by a signal
 * that nobody handles, it does what io_getevents(2) does.
 */
#ifdef __NR_io_pgetevents_time64
#define NR_PGETEVENTS	__NR_io_pgetevents_time64
#else
#define NR_PGETEVENTS	__NR_io_pgetevents
#endif

static inline long nr_getevents(const struct __kernel_timespec *timeout)
{
	return __BITS_PER_LONG == 32 && timeout ? NR_PGETEVENTS : __NR_io_getevents;
}

static inline long kernel_getevents(int dev, aio_context_t ctx, long min_nr, long nr,
				    struct io_event *events, struct __kernel_timespec *timeout)
{
	(void)dev;
	return ret_errno(syscall(nr_getevents(timeout), ctx, min_nr, nr, events, timeout, NULL));
}

static inline long kernel_pgetevents(int dev, aio_context_t ctx, long min_nr, long nr,
				     struct io_event *events, struct __kernel_timespec *timeout,
				     const sigset_t *mask, size_t size)
{
	const struct {
		const sigset_t *mask;
		size_t size;
	} arg = { mask, size };

	(void)dev;
	return ret_errno(syscall(NR_PGETEVENTS, ctx, min_nr, nr, events, timeout, &arg));
}

/* Where io_cancel(2) says EINPROGRESS, this says 0, as raio's call. */
static inline long kernel_cancel(int dev, aio_context_t ctx, struct iocb *io)
{
	struct io_event ev;
	long ret = ret_errno(syscall(__NR_io_cancel, ctx, io, &ev));

	(void)dev;
	return ret == -EINPROGRESS ? 0 : ret;
}

/* Either of them. */

struct aio_ops {
	bool is_raio;
	int (*open)(void);
	long (*setup)(int dev, unsigned int nr, aio_context_t *ctxp);
	long (*destroy)(int dev, aio_context_t ctx);
	long (*submit)(int dev, aio_context_t ctx, long nr, struct iocb **iocbs);
	long (*getevents)(int dev, aio_context_t ctx, long min_nr, long nr,
			  struct io_event *events, struct __kernel_timespec *timeout);
	long (*pgetevents)(int dev, aio_context_t ctx, long min_nr, long nr,
			   struct io_event *events, struct __kernel_timespec *timeout,
			   const sigset_t *mask, size_t size);
	long (*cancel)(int dev, aio_context_t ctx, struct iocb *io);
};

static const struct aio_ops kernel_aio __maybe_unused = {
	.open = kernel_open,
	.setup = kernel_setup,
	.destroy = kernel_destroy,
	.submit = kernel_submit,
	.getevents = kernel_getevents,
	.pgetevents = kernel_pgetevents,
	.cancel = kernel_cancel,
};

static const struct aio_ops raio __maybe_unused = {
	.is_raio = true,
	.open = raio_open,
	.setup = raio_setup,
	.destroy = raio_destroy,
	.submit = raio_submit,
	.getevents = raio_getevents,
	.pgetevents = raio_pgetevents,
	.cancel = raio_cancel,
};

/**
 * struct aio - a context of either backend
 * @ops:	the backend
 * @dev:	its descriptor, or -1 when it has been closed
 * @ctx:	the handle, or 0 when it has been destroyed
 * @live:	contexts of raio that there were before, to find a leak
 */
struct aio {
	const struct aio_ops *ops;
	int dev;
	aio_context_t ctx;
	long live;
};

static inline long aio_setup(struct aio *aio, unsigned int nr, aio_context_t *ctxp)
{
	return aio->ops->setup(aio->dev, nr, ctxp);
}

static inline long aio_destroy(struct aio *aio, aio_context_t ctx)
{
	return aio->ops->destroy(aio->dev, ctx);
}

static inline long aio_submit(struct aio *aio, long nr, struct iocb **iocbs)
{
	return aio->ops->submit(aio->dev, aio->ctx, nr, iocbs);
}

static inline long aio_submit_one(struct aio *aio, struct iocb *io)
{
	return aio_submit(aio, 1, &io);
}

static inline long aio_getevents(struct aio *aio, long min_nr, long nr,
				 struct io_event *events, struct __kernel_timespec *timeout)
{
	return aio->ops->getevents(aio->dev, aio->ctx, min_nr, nr, events, timeout);
}

/* The size of a mask as the kernel has it; a sigset_t begins with that. */
#define MASK_SIZE	8

static inline long aio_pgetevents(struct aio *aio, long min_nr, long nr, struct io_event *events,
				  struct __kernel_timespec *timeout, const sigset_t *mask)
{
	return aio->ops->pgetevents(aio->dev, aio->ctx, min_nr, nr, events, timeout, mask,
				    MASK_SIZE);
}

static inline long aio_cancel(struct aio *aio, struct iocb *io)
{
	return aio->ops->cancel(aio->dev, aio->ctx, io);
}

/* What is there now. */
static inline long aio_poll(struct aio *aio, long nr, struct io_event *events)
{
	struct __kernel_timespec zero = { };

	return aio_getevents(aio, 0, nr, events, &zero);
}

/* All @nr, which are known to come: the timeout only ends a broken run. */
static inline long aio_wait(struct aio *aio, long nr, struct io_event *events)
{
	struct __kernel_timespec timeout = { .tv_sec = WAIT_SECONDS };

	return aio_getevents(aio, nr, nr, events, &timeout);
}

/* Opens the backend, without a context. */
static inline void aio_open(struct __test_metadata *_metadata, struct aio *aio,
			    const struct aio_ops *ops)
{
	aio->ops = ops;
	aio->ctx = 0;
	aio->live = 0;
	aio->dev = ops->open();
	ASSERT_LE(0, aio->dev) {
		TH_LOG("%s: %s", ops->is_raio ? RAIO_DEV : "/dev/null", strerror(-aio->dev));
	}
	if (ops->is_raio) {
		aio->live = raio_live();
		ASSERT_LE(0, aio->live);
	}
}

/* The same with a context for @nr requests. */
static inline void aio_begin(struct __test_metadata *_metadata, struct aio *aio,
			     const struct aio_ops *ops, unsigned int nr)
{
	aio_open(_metadata, aio, ops);
	ASSERT_EQ(0, aio_setup(aio, nr, &aio->ctx));
	ASSERT_NE(0, aio->ctx);
}

/* Checks that every context there was is gone again, also at the module. */
static inline void aio_expect_no_leak(struct __test_metadata *_metadata, struct aio *aio)
{
	if (!aio->ops->is_raio)
		return;
	EXPECT_TRUE(wait_for(raio_live() <= aio->live)) {
		TH_LOG("%ld contexts, %ld before the test", raio_live(), aio->live);
	}
}

/* No event may be left that the test has not asked for. */
static inline void aio_end(struct __test_metadata *_metadata, struct aio *aio)
{
	struct io_event ev;

	if (aio->ctx) {
		EXPECT_EQ(0, aio_poll(aio, 1, &ev));
		EXPECT_EQ(0, aio_destroy(aio, aio->ctx));
	}
	if (aio->dev >= 0)
		close(aio->dev);
	aio_expect_no_leak(_metadata, aio);
}

/* Requests. */

static inline void iocb_prep(struct iocb *io, int opcode, int fd, void *buf, size_t len,
			     long long offset)
{
	memset(io, 0, sizeof(*io));
	io->aio_lio_opcode = opcode;
	io->aio_fildes = fd;
	io->aio_buf = (uintptr_t)buf;
	io->aio_nbytes = len;
	io->aio_offset = offset;
	/* Has to come back in the event; never the address itself. */
	io->aio_data = ~(uintptr_t)io;
}

/* For a page at the beginning of @fd what @opcode takes of @buf, and of @iov, two parts of it. */
static inline void iocb_prep_page(struct iocb *io, int opcode, int fd, void *buf,
				  struct iovec *iov)
{
	switch (opcode) {
	case IOCB_CMD_PREADV:
	case IOCB_CMD_PWRITEV:
		iocb_prep(io, opcode, fd, iov, 2, 0);
		break;
	case IOCB_CMD_FSYNC:
	case IOCB_CMD_FDSYNC:
		iocb_prep(io, opcode, fd, NULL, 0, 0);
		break;
	default:
		iocb_prep(io, opcode, fd, buf, PAGE, 0);
	}
}

/* The request that an event is of, which is known to be one of the caller's. */
static inline struct iocb *event_iocb(const struct io_event *ev)
{
	return (struct iocb *)(uintptr_t)ev->obj;
}

#define EXPECT_EVENT(_ev, _io, _res) do {				\
	EXPECT_EQ((uintptr_t)(_io), (_ev)->obj);			\
	EXPECT_EQ((_io)->aio_data, (_ev)->data);			\
	EXPECT_EQ((_res), (_ev)->res);					\
	EXPECT_EQ(0, (_ev)->res2);					\
} while (0)

/*
 * Submits one request. Returns the error with which it was refused, or 0
 * with the result from its event in @res.
 */
static inline long aio_run(struct __test_metadata *_metadata, struct aio *aio, struct iocb *io,
			   long long *res)
{
	struct io_event ev[2];
	long ret = aio_submit_one(aio, io);

	if (ret < 0)
		return ret;
	ASSERT_EQ(1, ret);
	ASSERT_EQ(1, aio_wait(aio, 1, ev));
	EXPECT_EVENT(&ev[0], io, ev[0].res);
	EXPECT_EQ(0, aio_poll(aio, 2, ev + 1));
	*res = ev[0].res;
	return 0;
}

/* What preadv2(2) would return: the error with which it was refused, or its result. */
static inline long long aio_result(struct __test_metadata *_metadata, struct aio *aio,
				   struct iocb *io)
{
	long long res = 0;

	return aio_run(_metadata, aio, io, &res) ?: res;
}

/* One request that has to be refused with @err, */
#define EXPECT_REFUSED(_err, _aio, _io) do {				\
	struct io_event __ev;						\
									\
	EXPECT_EQ((_err), aio_submit_one((_aio), (_io)));		\
	EXPECT_EQ(0, aio_poll((_aio), 1, &__ev));			\
} while (0)

/* and one that has to be taken and give @res. */
#define EXPECT_RESULT(_res, _aio, _io) do {				\
	long long __res = 0x5555;					\
									\
	EXPECT_EQ(0, aio_run(_metadata, (_aio), (_io), &__res));	\
	EXPECT_EQ((_res), __res);					\
} while (0)

/* The ring, as a program reads it. */

static inline struct raio_ring *aio_ring(aio_context_t ctx)
{
	return (struct raio_ring *)ctx;
}

/* Takes up to @nr events from the ring without a call. */
static inline unsigned int ring_reap(aio_context_t ctx, unsigned int nr, struct io_event *events)
{
	struct raio_ring *ring = aio_ring(ctx);
	unsigned int head = ring->head;
	unsigned int n = 0;

	while (n < nr && head != __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE)) {
		events[n++] = ring->events[head];
		head = (head + 1) % ring->nr;
	}
	__atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
	return n;
}

/* Memory. None of it is freed: each test is a process. */

static inline void *map_pages(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));
	return p;
}

/* @len bytes that end where the mapped memory does. */
static inline void *map_before_hole(size_t len)
{
	size_t size = (len + PAGE - 1) / PAGE * PAGE;
	char *p = map_pages(size + PAGE);

	mprotect(p + size, PAGE, PROT_NONE);
	return p + size - len;
}

/* A page that holds a copy of @len bytes and can't be written to. */
static inline void *map_read_only(const void *data, size_t len)
{
	char *p = map_pages(PAGE);

	memcpy(p, data, len);
	mprotect(p, PAGE, PROT_READ);
	return p;
}

/* Addresses at which nobody may read or write. */
#define NR_BAD_PTRS	5

static inline void *bad_ptr(unsigned int i)
{
	switch (i) {
	case 0:
		return NULL;
	case 1:
		return map_before_hole(0);
	case 2:
		return KERNEL_PTR;
	case 3:
		/* Not an address of either half on x86-64, see above. */
		return (void *)(uintptr_t)0x40000000ffffe000ULL;
	default:
		return (void *)-8UL;
	}
}

/*
 * The pattern: each block of a file, aligned to 512 bytes, holds its own
 * offset, a seed, and numbers made from both, so that data from another place
 * or from another write is told from the right one.
 */
static inline void pattern_block(uint64_t *block, uint64_t nr, uint64_t seed)
{
	uint64_t state = nr * 0x2545f4914f6cdd1dULL ^ seed;
	unsigned int i;

	block[0] = nr * BLOCK;
	block[1] = seed;
	for (i = 2; i < BLOCK / sizeof(*block); i++)
		block[i] = next_random(&state);
}

/* Fills @buf with what belongs at @offset of the file. */
static inline void pattern_fill(void *buf, size_t len, uint64_t offset, uint64_t seed)
{
	uint64_t block[BLOCK / sizeof(uint64_t)];
	char *p = buf;

	while (len) {
		size_t in = offset % BLOCK;
		size_t n = BLOCK - in < len ? BLOCK - in : len;

		pattern_block(block, offset / BLOCK, seed);
		memcpy(p, (char *)block + in, n);
		p += n;
		offset += n;
		len -= n;
	}
}

/* Returns -1 if @buf is as pattern_fill() made it, or the first place that is not. */
static inline long pattern_check(const void *buf, size_t len, uint64_t offset, uint64_t seed)
{
	uint64_t block[BLOCK / sizeof(uint64_t)];
	const char *p = buf;
	size_t done = 0;

	while (done < len) {
		size_t in = (offset + done) % BLOCK;
		size_t n = BLOCK - in < len - done ? BLOCK - in : len - done;
		size_t i;

		pattern_block(block, (offset + done) / BLOCK, seed);
		if (memcmp(p + done, (char *)block + in, n)) {
			for (i = 0; p[done + i] == ((char *)block)[in + i]; i++)
				;
			return done + i;
		}
		done += n;
	}
	return -1;
}

/* Returns -1 if all of @buf is @byte, or the first place where it is not. */
static inline long filled_check(const void *buf, size_t len, int byte)
{
	const unsigned char *p = buf;
	size_t i;

	for (i = 0; i < len; i++)
		if (p[i] != byte)
			return i;
	return -1;
}

/* Files. */

static inline const char *tmpfs_dir(void)
{
	return env_or("RAIO_TMPFS", "/tmp");
}

static inline const char *ext4_dir(void)
{
	return env_or("RAIO_EXT4", "/mnt/ext4");
}

static inline const char *xfs_dir(void)
{
	return env_or("RAIO_XFS", "/mnt/xfs");
}

/* A new file in @dir without a name. */
static inline int temp_file(const char *dir, int flags)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/raio-test-XXXXXX", dir);
	fd = ret_errno(mkostemp(path, flags | O_CLOEXEC));
	if (fd >= 0)
		unlink(path);
	return fd;
}

/* The file behind @fd, opened another time. */
static inline int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return ret_errno(open(path, flags | O_CLOEXEC));
}

static inline bool fs_is(const char *dir, unsigned int magic)
{
	struct statfs st;

	return !statfs(dir, &st) && (unsigned int)st.f_type == magic;
}

static inline int write_str(const char *path, const char *str)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	long ret;

	if (fd < 0)
		return -errno;
	ret = ret_errno(write(fd, str, strlen(str)));
	close(fd);
	return ret < 0 ? ret : 0;
}

/* Open descriptors, and three more. */
static inline unsigned int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	if (!dir)
		ksft_exit_fail_msg("/proc/self/fd: %s\n", strerror(errno));
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* A null_blk device with memory behind it. */
struct nullb {
	char dir[64];
	char node[96];
};

#define NULLB_MB	8
#define NULLB_SIZE	(NULLB_MB * 1024 * 1024ULL)

/* xfs_fsop_handlereq, with what of it is used. */
struct handle_request {
	__u32 fd;
	const void *path;
	__u32 oflags;
	const void *ihandle;
	__u32 ihandlen;
	void *ohandle;
	__u32 *ohandlen;
};

#define PATH_TO_HANDLE	_IOWR('X', 105, struct handle_request)
#define OPEN_BY_HANDLE	_IOWR('X', 107, struct handle_request)

/* A descriptor by which no times are noted of a file of XFS that is in @dir. */
static inline int open_without_times(const char *dir, const char *path, int flags)
{
	char handle[64];
	__u32 len = sizeof(handle);
	struct handle_request of = { .path = path, .ohandle = handle, .ohandlen = &len };
	struct handle_request as = { .oflags = flags, .ihandle = handle };
	int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd = -1;

	if (at >= 0 && !ioctl(at, PATH_TO_HANDLE, &of)) {
		as.ihandlen = len;
		fd = ioctl(at, OPEN_BY_HANDLE, &as);
	}
	if (at >= 0)
		close(at);
	return fd;
}

static inline int nullb_set(struct nullb *nb, const char *name, unsigned long long val)
{
	char path[128], str[32];

	snprintf(path, sizeof(path), "%s/%s", nb->dir, name);
	snprintf(str, sizeof(str), "%llu", val);
	return write_str(path, str);
}

/* What a thread does. */
static inline void *nullb_power_off(void *data)
{
	return (void *)(long)nullb_set(data, "power", 0);
}

static inline void nullb_remove(struct nullb *nb)
{
	if (!nb->dir[0])
		return;
	nullb_set(nb, "power", 0);
	rmdir(nb->dir);
	unlink(nb->node);
	nb->dir[0] = 0;
}

/* Of @mb megabytes. What isn't polled for takes @ns, or no time if that is 0. */
static inline int nullb_create_as(struct nullb *nb, unsigned int mb, unsigned int ns)
{
	static const char configfs[] = "/sys/kernel/config";
	static unsigned int made;
	char name[32], path[128], dev[32] = "";
	unsigned int major, minor;
	int fd, err;

	snprintf(name, sizeof(name), "raio%d-%u", getpid(), made++);
	snprintf(nb->dir, sizeof(nb->dir), "%s/nullb/%s", configfs, name);
	if (access("/sys/kernel/config/nullb", F_OK))
		mount("configfs", configfs, "configfs", 0, NULL);
	if (mkdir(nb->dir, 0755)) {
		err = -errno;
		nb->dir[0] = 0;
		return err;
	}
	snprintf(nb->node, sizeof(nb->node), "%s/raio-test-%s", tmpfs_dir(), name);
	err = nullb_set(nb, "size", mb) ?:
	      nullb_set(nb, "blocksize", BLOCK) ?:
	      nullb_set(nb, "memory_backed", 1) ?:
	      nullb_set(nb, "irqmode", ns ? 2 : 1) ?:
	      nullb_set(nb, "completion_nsec", ns) ?:
	      nullb_set(nb, "power", 1);
	if (err)
		goto out;

	/* The node need not be in /dev yet: make one. */
	snprintf(path, sizeof(path), "/sys/block/%s/dev", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (read(fd, dev, sizeof(dev) - 1) < 0)
			dev[0] = 0;
		close(fd);
	}
	err = -ENODEV;
	if (sscanf(dev, "%u:%u", &major, &minor) == 2)
		err = ret_errno(mknod(nb->node, S_IFBLK | 0600, makedev(major, minor)));
out:
	if (err)
		nullb_remove(nb);
	return err;
}

static inline int nullb_create(struct nullb *nb)
{
	return nullb_create_as(nb, NULLB_MB, 0);
}

/* Tasks. */

/* True if the thread @tid sleeps and a signal would wake it. */
static inline bool task_sleeps(pid_t tid)
{
	char path[64], buf[512] = "";
	char *p;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, buf, sizeof(buf) - 1) < 0)
		buf[0] = 0;
	close(fd);
	p = strrchr(buf, ')');
	return p && p[1] == ' ' && p[2] == 'S';
}

static inline void pin_to_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* Waits for @pid to end. Returns its status as waitpid() does, or -1. */
static inline int wait_child(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid ? status : -1;
}

#endif /* RAIO_TEST_H */
