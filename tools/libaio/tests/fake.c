// SPDX-License-Identifier: GPL-2.0
/*
 * A device for hosts that have none: preloaded, it makes /dev/null answer
 * raio's ioctls, by the kernel's own AIO. Relies on libaio.so.1 calling
 * ioctl() of the C library, and asks that itself for its syscall(), for
 * libaio.so.1 has one too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <linux/raio.h>

int fake_calls;

static long (*libc_syscall)(long nr, ...);

__attribute__((constructor)) static void find_syscall(void)
{
	libc_syscall = dlsym(dlopen("libc.so.6", RTLD_LAZY), "syscall");
}

int ioctl(int fd, unsigned long nr, ...)
{
	struct raio_getevents *getevents;
	unsigned long sigset[2];
	struct raio_destroy *destroy;
	struct raio_cancel *cancel;
	struct raio_submit *submit;
	struct raio_setup *setup;
	struct stat st;
	va_list args;
	void *arg;
	int ret;

	va_start(args, nr);
	arg = va_arg(args, void *);
	va_end(args);
	if (fstat(fd, &st))
		return -1;
	if (st.st_rdev != makedev(1, 3)) {
		errno = ENOTTY;
		return -1;
	}
	__atomic_add_fetch(&fake_calls, 1, __ATOMIC_RELAXED);

	switch (nr) {
	case RAIO_IOC_QUERY:
		((struct raio_query *)arg)->abi_version = RAIO_ABI_VERSION;
		return 0;
	case RAIO_IOC_SETUP:
		setup = arg;
		ret = libc_syscall(SYS_io_setup, setup->nr_events, setup->ctxp);
		if (!ret)
			setup->ctx = *(aio_context_t *)setup->ctxp;
		return ret;
	case RAIO_IOC_DESTROY:
		destroy = arg;
		return libc_syscall(SYS_io_destroy, destroy->ctx);
	case RAIO_IOC_SUBMIT:
		submit = arg;
		return libc_syscall(SYS_io_submit, submit->ctx, submit->nr,
				    submit->iocbs);
	case RAIO_IOC_GETEVENTS:
		getevents = arg;
		sigset[0] = getevents->sigmask;
		sigset[1] = getevents->sigsetsize;
		return libc_syscall(SYS_io_pgetevents, getevents->ctx,
				    getevents->min_nr, getevents->nr,
				    getevents->events, getevents->timeout,
				    sigset);
	case RAIO_IOC_CANCEL:
		cancel = arg;
		ret = libc_syscall(SYS_io_cancel, cancel->ctx, cancel->iocb,
				   NULL);
		return ret == -1 && errno == EINPROGRESS ? 0 : ret;
	}
	errno = ENOTTY;
	return -1;
}
