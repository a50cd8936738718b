// SPDX-License-Identifier: GPL-2.0
/*
 * An external I/O engine for fio: raio by the ioctls of /dev/raio, without
 * libaio. Documentation/fio.rst says how to use it, scripts/fio-engine builds
 * it. It shares fio's structures, so it must be built against the source of
 * the fio that loads it; that one compares FIO_IOOPS_VERSION.
 *
 * Each job, process or thread, has a device and a context of its own. queue()
 * collects, commit() submits all that was collected by one call, and
 * getevents() reads events by a call or, with userspace_reap, from the ring.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/*
 * fio would include libaio.h, which has a struct iocb too. The members of
 * struct io_u that are used here come before what depends on this.
 */
#undef CONFIG_LIBAIO
#include "fio.h"
#include "optgroup.h"

#include <linux/raio.h>
#include <linux/time_types.h>

struct raio_data {
	int dev;
	aio_context_t ctx;
	/* One for each io_u, by its index. */
	struct iocb *iocbs;
	/* What the last getevents() has found. */
	struct io_event *events;
	/* To be submitted, in this order. */
	struct iocb **queue;
	unsigned int queued;
	/* Submitted, the event not yet read. */
	unsigned int in_flight;
};

struct raio_options {
	/* An option can't be at offset 0. */
	void *pad;
	char *device;
	unsigned int userspace_reap;
	unsigned int nowait;
};

static struct fio_option options[] = {
	{
		.name	= "device",
		.lname	= "raio device",
		.type	= FIO_OPT_STR_STORE,
		.off1	= offsetof(struct raio_options, device),
		.def	= "/dev/raio",
		.help	= "Device node of the raio module",
		.category = FIO_OPT_C_ENGINE,
		.group	= FIO_OPT_G_INVALID,
	},
	{
		.name	= "userspace_reap",
		.lname	= "raio userspace reaping",
		.type	= FIO_OPT_STR_SET,
		.off1	= offsetof(struct raio_options, userspace_reap),
		.help	= "Read events from the ring, call only to wait for more",
		.category = FIO_OPT_C_ENGINE,
		.group	= FIO_OPT_G_INVALID,
	},
	{
		.name	= "nowait",
		.lname	= "RWF_NOWAIT",
		.type	= FIO_OPT_BOOL,
		.off1	= offsetof(struct raio_options, nowait),
		.def	= "0",
		.help	= "Set RWF_NOWAIT for reads and writes",
		.category = FIO_OPT_C_ENGINE,
		.group	= FIO_OPT_G_INVALID,
	},
	{
		.name	= NULL,
	},
};

static int raio_prep(struct thread_data *td, struct io_u *io_u)
{
	struct raio_data *rd = td->io_ops_data;
	struct raio_options *o = td->eo;
	struct iocb *iocb = &rd->iocbs[io_u->index];

	memset(iocb, 0, sizeof(*iocb));
	iocb->aio_data = (uintptr_t)io_u;
	iocb->aio_fildes = io_u->file->fd;

	switch (io_u->ddir) {
	case DDIR_READ:
	case DDIR_WRITE:
		iocb->aio_lio_opcode = io_u->ddir == DDIR_READ ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
		iocb->aio_buf = (uintptr_t)io_u->xfer_buf;
		iocb->aio_nbytes = io_u->xfer_buflen;
		iocb->aio_offset = io_u->offset;
		if (o->nowait)
			iocb->aio_rw_flags = RWF_NOWAIT;
		break;
	case DDIR_SYNC:
		iocb->aio_lio_opcode = IOCB_CMD_FSYNC;
		break;
	case DDIR_DATASYNC:
		iocb->aio_lio_opcode = IOCB_CMD_FDSYNC;
		break;
	default:
		/* For these there is no operation, see raio_queue(). */
		break;
	}

	return 0;
}

static enum fio_q_status raio_queue(struct thread_data *td, struct io_u *io_u)
{
	struct raio_data *rd = td->io_ops_data;

	fio_ro_check(td, io_u);

	if (rd->queued == td->o.iodepth)
		return FIO_Q_BUSY;

	if (io_u->ddir == DDIR_TRIM || io_u->ddir == DDIR_SYNC_FILE_RANGE) {
		/* Not before what was queued earlier. */
		if (rd->queued)
			return FIO_Q_BUSY;

		if (io_u->ddir == DDIR_TRIM) {
			do_io_u_trim(td, io_u);
			io_u_mark_submit(td, 1);
			io_u_mark_complete(td, 1);
		} else {
			do_io_u_sync(td, io_u);
		}
		return FIO_Q_COMPLETED;
	}

	rd->queue[rd->queued++] = &rd->iocbs[io_u->index];
	return FIO_Q_QUEUED;
}

/* Tells fio when the first @nr of the queue were issued. */
static void raio_issued(struct thread_data *td, unsigned int nr)
{
	struct raio_data *rd = td->io_ops_data;
	struct timespec now;
	unsigned int i;

	io_u_mark_submit(td, nr);
	if (!fio_fill_issue_time(td))
		return;

	fio_gettime(&now, NULL);
	for (i = 0; i < nr; i++) {
		struct io_u *io_u = (struct io_u *)(uintptr_t)rd->queue[i]->aio_data;

		io_u->issue_time = now;
		io_u_queued(td, io_u);
	}

	if (td->o.read_iolog_file)
		td->last_issue = now;
}

static int raio_commit(struct thread_data *td)
{
	struct raio_data *rd = td->io_ops_data;

	while (rd->queued) {
		struct raio_submit submit = {
			.ctx = rd->ctx,
			.nr = rd->queued,
			.iocbs = (uintptr_t)rd->queue,
		};
		int ret = ioctl(rd->dev, RAIO_IOC_SUBMIT, &submit);

		if (ret < 0) {
			/* fio comes again when it has got events. */
			if ((errno == EAGAIN || errno == ENOMEM) && rd->in_flight)
				return 0;
			return -errno;
		}

		raio_issued(td, ret);
		rd->in_flight += ret;
		rd->queued -= ret;
		memmove(rd->queue, rd->queue + ret, rd->queued * sizeof(*rd->queue));
	}

	return 0;
}

/* Takes up to @max events from the ring, without a call. */
static unsigned int raio_reap(struct raio_data *rd, struct io_event *events, unsigned int max)
{
	struct raio_ring *ring = (struct raio_ring *)rd->ctx;
	unsigned int tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
	unsigned int head = ring->head;
	unsigned int nr = 0;

	while (nr < max && head != tail) {
		events[nr++] = ring->events[head];
		head = (head + 1) % ring->nr;
	}
	if (nr)
		__atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);

	return nr;
}

static int raio_getevents(struct thread_data *td, unsigned int min, unsigned int max,
			  const struct timespec *t)
{
	struct raio_data *rd = td->io_ops_data;
	struct raio_options *o = td->eo;
	/* Without a minimum for a batch fio wants this to poll. */
	const unsigned int wait = td->o.iodepth_batch_complete_min ? min : 0;
	struct __kernel_timespec timeout;
	unsigned int nr = 0;
	int ret;

	if (t) {
		timeout.tv_sec = t->tv_sec;
		timeout.tv_nsec = t->tv_nsec;
	}

	do {
		ret = o->userspace_reap ? raio_reap(rd, rd->events + nr, max - nr) : 0;
		if (!ret && (wait || !o->userspace_reap)) {
			struct raio_getevents get = {
				.ctx = rd->ctx,
				.min_nr = wait ? wait - nr : 0,
				.nr = max - nr,
				.events = (uintptr_t)(rd->events + nr),
				.timeout = t ? (uintptr_t)&timeout : 0,
			};

			ret = ioctl(rd->dev, RAIO_IOC_GETEVENTS, &get);
		}

		if (ret > 0) {
			nr += ret;
			rd->in_flight -= ret;
		} else if (!ret) {
			/* What could not be submitted before may be now. */
			ret = min ? raio_commit(td) : 0;
			if (ret)
				break;
		} else if (errno != EINTR) {
			ret = -errno;
			break;
		}
	} while (nr < min);

	return nr ? (int)nr : ret;
}

static struct io_u *raio_event(struct thread_data *td, int event)
{
	struct raio_data *rd = td->io_ops_data;
	struct io_event *ev = &rd->events[event];
	struct io_u *io_u = (struct io_u *)(uintptr_t)ev->data;

	if (ev->res < 0) {
		io_u->error = -ev->res;
		/* Some versions of fio don't look at the error of a sync. */
		if (ddir_sync(io_u->ddir))
			td_verror(td, io_u->error, "raio sync");
	} else if (ddir_rw(io_u->ddir)) {
		io_u->resid = io_u->xfer_buflen - ev->res;
	}

	return io_u;
}

#ifdef HAVE_FIO_CANCEL
static int raio_cancel(struct thread_data *td, struct io_u *io_u)
{
	struct raio_data *rd = td->io_ops_data;
	struct raio_cancel cancel = {
		.ctx = rd->ctx,
		.iocb = (uintptr_t)&rd->iocbs[io_u->index],
	};

	ioctl(rd->dev, RAIO_IOC_CANCEL, &cancel);

	/* 0 would mean that no event comes, but each request has its event. */
	return 1;
}
#endif

static void raio_cleanup(struct thread_data *td)
{
	struct raio_data *rd = td->io_ops_data;
	struct raio_destroy destroy = { };

	if (!rd)
		return;

	if (rd->ctx) {
		destroy.ctx = rd->ctx;
		ioctl(rd->dev, RAIO_IOC_DESTROY, &destroy);
	}
	if (rd->dev >= 0)
		close(rd->dev);
	free(rd->queue);
	free(rd->events);
	free(rd->iocbs);
	free(rd);
}

/* What has been made when one fails is undone by raio_cleanup(). */
static int raio_init(struct thread_data *td)
{
	struct raio_options *o = td->eo;
	struct raio_setup setup = { };
	struct raio_data *rd;

	rd = calloc(1, sizeof(*rd));
	if (!rd)
		goto no_memory;
	rd->dev = -1;
	td->io_ops_data = rd;

	rd->iocbs = calloc(td->o.iodepth, sizeof(*rd->iocbs));
	rd->events = calloc(td->o.iodepth, sizeof(*rd->events));
	rd->queue = calloc(td->o.iodepth, sizeof(*rd->queue));
	if (!rd->iocbs || !rd->events || !rd->queue)
		goto no_memory;

	rd->dev = open(o->device, O_RDWR | O_CLOEXEC);
	if (rd->dev < 0) {
		td_verror(td, errno, o->device);
		return 1;
	}

	setup.nr_events = td->o.iodepth;
	setup.ctxp = (uintptr_t)&rd->ctx;
	if (ioctl(rd->dev, RAIO_IOC_SETUP, &setup)) {
		td_verror(td, errno, "RAIO_IOC_SETUP");
		return 1;
	}

	return 0;

no_memory:
	td_verror(td, ENOMEM, "calloc");
	return 1;
}

/* fio finds it by its name. */
struct ioengine_ops ioengine = {
	.name			= "raio",
	.version		= FIO_IOOPS_VERSION,
	.flags			= FIO_ASYNCIO_SYNC_TRIM | FIO_ASYNCIO_SETS_ISSUE_TIME,
	.init			= raio_init,
	.prep			= raio_prep,
	.queue			= raio_queue,
	.commit			= raio_commit,
	.getevents		= raio_getevents,
	.event			= raio_event,
#ifdef HAVE_FIO_CANCEL
	.cancel			= raio_cancel,
#endif
	.cleanup		= raio_cleanup,
	.open_file		= generic_open_file,
	.close_file		= generic_close_file,
	.get_file_size		= generic_get_file_size,
	.options		= options,
	.option_struct_size	= sizeof(struct raio_options),
};
