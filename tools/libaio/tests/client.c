// SPDX-License-Identifier: GPL-2.0
/*
 * A program built for libaio. The first argument names a test, the second
 * says what answers: "device" (see fake.c), "raio", "kernel" or "nothing".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/aio_abi.h>

/* What libaio.h does for 32-bit programs whose time_t is of 64 bits. */
#if defined(__USE_TIME_BITS64) && __SIZEOF_LONG__ == 4
#define TIME64(name) __asm__(#name "_time64")
#else
#define TIME64(name)
#endif

int io_setup(int nr, aio_context_t *ctxp);
int io_destroy(aio_context_t ctx);
int io_submit(aio_context_t ctx, long nr, struct iocb **iocbs);
int io_cancel(aio_context_t ctx, struct iocb *iocb, struct io_event *event);
int io_getevents(aio_context_t ctx, long min_nr, long nr,
		 struct io_event *events, struct timespec *timeout)
	TIME64(io_getevents);
int io_pgetevents(aio_context_t ctx, long min_nr, long nr,
		  struct io_event *events, struct timespec *timeout,
		  sigset_t *mask) TIME64(io_pgetevents);
int io_queue_init(int nr, aio_context_t *ctxp);
int io_queue_release(aio_context_t ctx);
int io_queue_run(aio_context_t ctx);
int io_queue_wait(aio_context_t ctx, struct timespec *timeout);

/* What should be in errno afterwards is 77, as before. */
#define CHECK(is, should)	CHECK_ERRNO(is, should, 77)

#define CHECK_ERRNO(is, should, error) do {						\
	long is_, should_ = (should);					\
	errno = 77;							\
	is_ = (is);							\
	if (is_ != should_ || errno != (error)) {			\
		fprintf(stderr, "line %d: %s: %ld, not %ld; errno %d\n", \
			__LINE__, #is, is_, should_, errno);		\
		exit(1);						\
	}								\
} while (0)

static const char *mode;
static char buffer[4096];
static int called;

static int signals;

static void handled(int signal)
{
	__atomic_add_fetch(&signals, signal == SIGUSR1, __ATOMIC_RELAXED);
}

static int is(const char *name)
{
	return !strcmp(mode, name);
}

static int temporary(void)
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);

	if (fd < 0)
		exit(2);
	return fd;
}

static struct iocb request(int opcode, int fd, void *data)
{
	return (struct iocb) {
		.aio_data = (unsigned long)data,
		.aio_lio_opcode = opcode,
		.aio_fildes = fd,
		.aio_buf = (unsigned long)buffer,
		.aio_nbytes = sizeof(buffer),
	};
}

/* A request that ends when it is cancelled: nobody writes to the pipe. */
static struct iocb endless(void)
{
	int fds[2];

	if (pipe(fds))
		exit(2);
	return (struct iocb) {
		.aio_lio_opcode = IOCB_CMD_POLL,
		.aio_fildes = fds[0],
		.aio_buf = POLLIN,
	};
}

/* A write and a read of what was written, with what is around them. */
static void rw(void)
{
	struct timespec zero = { 0 }, second = { .tv_sec = 1 };
	struct io_event event = { 0 };
	aio_context_t ctx = 0;
	struct iocb iocb, *iocbs = &iocb;
	int fd = temporary();
	sigset_t mask;

	sigemptyset(&mask);
	CHECK(io_setup(8, &ctx), 0);
	CHECK(io_setup(8, &ctx), -EINVAL); /* no longer 0 */
	CHECK(io_getevents(ctx, 1, 1, &event, &zero), 0);
	CHECK(io_getevents(ctx, 2, 1, &event, NULL), -EINVAL);

	memset(buffer, 'x', sizeof(buffer));
	iocb = request(IOCB_CMD_PWRITE, fd, "w");
	CHECK(io_submit(ctx, 1, &iocbs), 1);
	CHECK(io_getevents(ctx, 1, 1, &event, NULL), 1);
	CHECK(event.res, sizeof(buffer));
	CHECK(event.obj == (unsigned long)&iocb, 1);

	memset(buffer, 0, sizeof(buffer));
	iocb = request(IOCB_CMD_PREAD, fd, "r");
	CHECK(io_submit(ctx, 1, &iocbs), 1);
	CHECK(io_getevents(ctx, 1, 1, (void *)8, NULL), -EFAULT);
	CHECK(io_pgetevents(ctx, 1, 1, &event, &second, NULL), 1);
	CHECK(io_cancel(ctx, &iocb, &event), -EINVAL);
	CHECK(*(char *)(unsigned long)event.data, 'r');
	CHECK(buffer[4095], 'x');
	CHECK(io_pgetevents(ctx, 0, 1, &event, &zero, &mask), 0);
	sigaddset(&mask, SIGUSR1);
	CHECK(sigprocmask(SIG_BLOCK, &mask, NULL), 0);
	CHECK(raise(SIGUSR1), 0);
	CHECK(io_pgetevents(ctx, 1, 1, &event, &zero, &mask), 0);
	signal(SIGUSR1, handled);
	sigemptyset(&mask);
	CHECK(io_pgetevents(ctx, 1, 1, &event, &second, &mask), -EINTR);
	CHECK(__atomic_load_n(&signals, __ATOMIC_RELAXED), 1);

	iocb = endless();
	CHECK(io_submit(ctx, 1, &iocbs), 1);
	CHECK(io_cancel(ctx, &iocb, NULL), -EINPROGRESS);
	CHECK(io_getevents(ctx, 1, 1, &event, NULL), 1);
	CHECK(event.obj == (unsigned long)&iocb, 1);
	CHECK(io_cancel(ctx, &iocb, NULL), -EINVAL);
	CHECK(io_cancel(ctx, (void *)8, NULL), -EFAULT);

	/* An error of the request's file is not taken for one of the device's. */
	iocb = request(IOCB_CMD_PREAD, 999, "r");
	CHECK(io_submit(ctx, 1, &iocbs), -EBADF);
	CHECK(io_submit(ctx, 1, (void *)8), -EFAULT);
	CHECK(io_submit(ctx, -1, &iocbs), -EINVAL);

	CHECK(io_destroy(ctx), 0);
	CHECK(io_destroy(ctx), -EINVAL);
	CHECK(io_submit(ctx, 1, &iocbs), -EINVAL);
	ctx = 0;
	CHECK(io_setup(8, (void *)8), -EFAULT);
	CHECK(io_setup(-1, &ctx), -EINVAL);
	CHECK(io_setup(0, &ctx), -EINVAL);
	CHECK(ctx, 0);
}

static void callback(aio_context_t ctx, struct iocb *iocb, long res, long res2)
{
	called += res == 4096 && iocb->aio_lio_opcode == IOCB_CMD_PWRITE;
}

/* The io_queue functions, and the versions that old programs get. */
static void old(void)
{
	struct timespec ms = { .tv_nsec = 1000000 };
	int (*getevents)(aio_context_t ctx, long nr, struct io_event *events,
			 const struct timespec *timeout) =
		dlvsym(RTLD_DEFAULT, "io_getevents", "LIBAIO_0.1");
	int (*cancel)(aio_context_t ctx, struct iocb *iocb) =
		dlvsym(RTLD_DEFAULT, "io_cancel", "LIBAIO_0.1");
	int (*wait)(aio_context_t ctx, const struct timespec *timeout) =
		dlvsym(RTLD_DEFAULT, "io_queue_wait", "LIBAIO_0.1");
	struct iocb iocb, *iocbs[] = { &iocb, &iocb };
	aio_context_t ctx = 5;
	struct io_event event;

	CHECK(io_queue_init(0, &ctx), -EINVAL);
	CHECK(io_queue_init(4, &ctx), 0);
	iocb = request(IOCB_CMD_PWRITE, temporary(), callback);
	CHECK(io_submit(ctx, 2, iocbs), 2);
	while (called < 2)
		CHECK(io_queue_run(ctx), 0);
	CHECK(io_queue_wait(ctx, &ms), 0);
	CHECK(wait(ctx, &ms), 0);
	CHECK(io_submit(ctx, 1, iocbs), 1);
	CHECK(getevents(ctx, 1, &event, NULL), 1);
	CHECK(getevents(ctx, 1, &event, &ms), 0);
	CHECK(cancel(ctx, &iocb), -EINVAL);
	iocb = endless();
	CHECK(io_submit(ctx, 1, iocbs), 1);
	CHECK(cancel(ctx, &iocb), -EINPROGRESS);
	CHECK(getevents(ctx, 1, &event, NULL), 1);
	CHECK(io_queue_release(ctx), 0);
}

static void *map_second_page(int fd)
{
#ifdef SYS_mmap2
	const long nr = SYS_mmap2, offset = 1;
#else
	const long nr = SYS_mmap, offset = 4096;
#endif

	return (void *)syscall(nr, NULL, 4096, PROT_READ, MAP_SHARED, fd,
			       offset);
}

/* The system calls, made by hand; and others, which are none of libaio's. */
static void direct(void)
{
	struct timespec zero = { 0 }, second = { .tv_sec = 1 };
	struct { sigset_t *mask; size_t size; } sigset = { NULL, 8 };
	struct io_event event = { 0 };
	struct iocb iocb, *iocbs = &iocb;
	aio_context_t ctx = 0;
	int fd = temporary();
	sigset_t mask;
	char *mapped;

	CHECK_ERRNO(syscall(SYS_io_setup, -1, &ctx), -1, EINVAL);
	CHECK_ERRNO(syscall(SYS_io_setup, 8, 8), -1, EFAULT);
	CHECK(syscall(SYS_io_setup, 8, &ctx), 0);
	memset(buffer, 'x', sizeof(buffer));
	iocb = request(IOCB_CMD_PWRITE, fd, "w");
	CHECK(syscall(SYS_io_submit, ctx, 1, &iocbs), 1);
	CHECK(syscall(SYS_io_getevents, ctx, 1, 1, &event, NULL), 1);
	CHECK(event.res, sizeof(buffer));
	CHECK(syscall(SYS_io_getevents, ctx, 1, 1, &event, &zero), 0);
	CHECK_ERRNO(syscall(SYS_io_getevents, 0, 1, 1, &event, &zero), -1,
		    EINVAL);
	CHECK_ERRNO(syscall(SYS_io_submit, ctx, 1, 8), -1, EFAULT);

	iocb = endless();
	CHECK(syscall(SYS_io_submit, ctx, 1, &iocbs), 1);
	CHECK(syscall(SYS_io_pgetevents, ctx, 1, 1, &event, &zero, NULL), 0);
	CHECK(syscall(SYS_io_pgetevents, ctx, 1, 1, &event, &zero, &sigset), 0);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	CHECK(sigprocmask(SIG_BLOCK, &mask, NULL), 0);
	signal(SIGUSR1, handled);
	CHECK(raise(SIGUSR1), 0);
	sigset.mask = &mask;
	CHECK(syscall(SYS_io_pgetevents, ctx, 1, 1, &event, &zero, &sigset), 0);
	sigemptyset(&mask);
	CHECK_ERRNO(syscall(SYS_io_pgetevents, ctx, 1, 1, &event, &second,
			    &sigset), -1, EINTR);
	CHECK(__atomic_load_n(&signals, __ATOMIC_RELAXED), 1);
	sigset.size = 4;
	CHECK_ERRNO(syscall(SYS_io_pgetevents, ctx, 1, 1, &event, &zero,
			    &sigset), -1, EINVAL);
	CHECK_ERRNO(syscall(SYS_io_cancel, ctx, &iocb, &event), -1,
		    EINPROGRESS);
	CHECK(syscall(SYS_io_pgetevents, ctx, 1, 1, &event, NULL, NULL), 1);
	CHECK(event.obj == (unsigned long)&iocb, 1);
	CHECK(syscall(SYS_io_destroy, ctx), 0);
	CHECK_ERRNO(syscall(SYS_io_destroy, ctx), -1, EINVAL);

	/* All six arguments arrive, and a result that is no int comes back. */
	CHECK(pwrite(fd, "y", 1, 4096), 1);
	mapped = map_second_page(fd);
	CHECK(*mapped, 'y');
	CHECK(sizeof(long) > 4 && (long)mapped == (int)(long)mapped, 0);
	CHECK_ERRNO((long)map_second_page(-1), -1, EBADF);
	CHECK(syscall(SYS_getpid), getpid());
	CHECK_ERRNO(syscall(-1), -1, ENOSYS);
}

/* A child has no contexts, and can make its own. */
static void forks(void)
{
	struct timespec ms = { .tv_nsec = 1000000 };
	aio_context_t ctx = 0, mine = 0;
	struct io_event event;
	int status;

	CHECK(io_setup(8, &ctx), 0);
	if (!is("kernel"))
		CHECK(fcntl(100, F_GETFD), FD_CLOEXEC);
	if (fork() == 0) {
		errno = 0;
		if (fcntl(100, F_GETFD) != -1 || errno != EBADF)
			_exit(3);
		CHECK(io_getevents(ctx, 1, 1, &event, &ms), -EINVAL);
		CHECK(io_setup(8, &mine), 0);
		CHECK(io_destroy(mine), 0);
		_exit(0);
	}
	wait(&status);
	CHECK(status, 0);
	CHECK(io_getevents(ctx, 1, 1, &event, &ms), 0);
	CHECK(io_destroy(ctx), 0);
}

/* A program that closes all it doesn't know. */
static void closes(void)
{
	struct iocb iocb, *iocbs = &iocb;
	aio_context_t ctx = 0, ctx2 = 0;
	struct io_event event;
	int status, zero;

	CHECK(io_setup(8, &ctx), 0);
	close_range(3, ~0U, 0);
	iocb = request(IOCB_CMD_PREAD, temporary(), "r");
	CHECK(io_submit(ctx, 1, &iocbs), -EINVAL);
	CHECK(io_getevents(ctx, 1, 1, &event, NULL), -EINVAL);
	CHECK(io_destroy(ctx), -EINVAL);

	/* The number is another file's now, which is left alone. */
	zero = open("/dev/zero", O_RDONLY);
	CHECK(dup2(zero, 100), 100);
	CHECK(io_submit(ctx, 1, &iocbs), -EINVAL);
	if (fork() == 0) {
		CHECK(read(100, buffer, 1), 1);
		_exit(0);
	}
	wait(&status);
	CHECK(status, 0);
	CHECK(io_setup(8, &ctx2), 0);
	CHECK(read(100, buffer, 1), 1);
	CHECK(io_submit(ctx2, 1, &iocbs), 1);
	CHECK(io_getevents(ctx2, 1, 1, &event, NULL), 1);
	CHECK(io_destroy(ctx2), 0);
}

/* There is no device, and nobody to pass on to. */
static void fails(void)
{
	struct timespec zero = { 0 };
	struct io_event event;
	aio_context_t ctx = 0;

	CHECK(io_submit(ctx, 0, NULL), -EINVAL);
	CHECK(io_setup(8, &ctx), -ENOSYS);
	CHECK(io_queue_init(8, &ctx), -ENOSYS);
	CHECK(io_setup(8, &ctx), -ENOSYS);
	CHECK(ctx, 0);
	CHECK(io_getevents(ctx, 0, 1, &event, &zero), -EINVAL);
	CHECK(io_pgetevents(ctx, 0, 1, &event, &zero, NULL), -EINVAL);
	CHECK(io_cancel(ctx, NULL, NULL), -EINVAL);
	CHECK(io_destroy(ctx), -EINVAL);

	CHECK_ERRNO(syscall(SYS_io_setup, 8, &ctx), -1, ENOSYS);
	CHECK_ERRNO(syscall(SYS_io_submit, ctx, 0, NULL), -1, EINVAL);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
		{ "rw", rw }, { "old", old }, { "forks", forks },
		{ "closes", closes }, { "direct", direct }, { "fails", fails },
	};
	const int *fake_calls;

	mode = argv[2];
	for (unsigned int i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		if (!strcmp(tests[i].name, argv[1])) {
			tests[i].run();
			fake_calls = dlsym(RTLD_DEFAULT, "fake_calls");
			if (is("device") && (!fake_calls || !*fake_calls)) {
				fprintf(stderr, "the device was not called\n");
				return 1;
			}
			return 0;
		}
	}
	return 2;
}
