// SPDX-License-Identifier: GPL-2.0
/*
 * An external I/O engine for fio: raio by the native calls of /dev/raio, of which
 * tools/libraio has the details. Documentation/fio.rst says how to use it,
 * scripts/fio-engine builds it. It shares fio's structures, so it must be built
 * against the source of the fio that loads it; that one compares FIO_IOOPS_VERSION.
 *
 * Each job, process or thread, has a device and a context of its own. queue() makes
 * an entry of the submission array, commit() submits all that were made by one call,
 * and getevents() reads events by a call or, with userspace_reap, from the ring. Then
 * commit() leaves what it can to getevents(), which submits and waits by one call.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/*
 * fio would include libaio.h, which has a struct iocb too. The members of
 * struct io_u that are used here come before what depends on this.
 */
#undef CONFIG_LIBAIO
#include "fio.h"
#include "optgroup.h"

#include "libraio.h"

struct raio_data {
	struct raio_queue q;
	/* What the last getevents() has found. */
	struct io_event *events;
	/* Submitted, the event not yet read. */
	unsigned int in_flight;
	/* Registered under the index of each io_u. */
	struct raio_buffer *buffers;
	unsigned int nr_buffers;
	/* Descriptors that are registered under the number of each file, -1 for none. */
	int *files;
	int nr_files;
};

struct raio_options {
	/* An option can't be at offset 0. */
	void *pad;
	char *device;
	unsigned int userspace_reap;
	unsigned int nowait;
	unsigned int fixedbufs;
	unsigned int registerfiles;
	unsigned int hipri;
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
		.name	= "fixedbufs",
		.lname	= "raio registered buffers",
		.type	= FIO_OPT_STR_SET,
		.off1	= offsetof(struct raio_options, fixedbufs),
		.help	= "Register the memory that is read to and written from",
		.category = FIO_OPT_C_ENGINE,
		.group	= FIO_OPT_G_INVALID,
	},
	{
		.name	= "registerfiles",
		.lname	= "raio registered files",
		.type	= FIO_OPT_STR_SET,
		.off1	= offsetof(struct raio_options, registerfiles),
		.help	= "Register each file while it is open",
		.category = FIO_OPT_C_ENGINE,
		.group	= FIO_OPT_G_INVALID,
	},
	{
		.name	= "hipri",
		.lname	= "raio polled completion",
		.type	= FIO_OPT_STR_SET,
		.off1	= offsetof(struct raio_options, hipri),
		.help	= "Look for completions at the device, without interrupts",
		.category = FIO_OPT_C_ENGINE,
		.group	= FIO_OPT_G_INVALID,
	},
	{
		.name	= NULL,
	},
};

/* Is all of that in the buffer that is registered for this io_u? */
static bool is_registered(const struct raio_data *rd, const struct io_u *io_u)
{
	const uint64_t addr = (uintptr_t)io_u->xfer_buf;
	const struct raio_buffer *buffer = &rd->buffers[io_u->index];

	return io_u->index < rd->nr_buffers && addr >= buffer->addr &&
	       addr + io_u->xfer_buflen <= buffer->addr + buffer->len;
}

static void raio_fill(struct thread_data *td, struct iocb *iocb, struct io_u *io_u)
{
	struct raio_data *rd = td->io_ops_data;
	struct raio_options *o = td->eo;
	const struct fio_file *f = io_u->file;
	const bool fixed = f->fileno < rd->nr_files && rd->files[f->fileno] == f->fd;
	const int fd = fixed ? f->fileno : f->fd;
	const uint64_t data = (uintptr_t)io_u;

	switch (io_u->ddir) {
	case DDIR_SYNC:
		raio_prep_fsync(iocb, data, fd);
		break;
	case DDIR_DATASYNC:
		raio_prep_fdsync(iocb, data, fd);
		break;
	case DDIR_READ:
		raio_prep_read(iocb, data, fd, io_u->xfer_buf, io_u->xfer_buflen, io_u->offset);
		break;
	default:
		/* A write: raio_queue() lets nothing else in. */
		raio_prep_write(iocb, data, fd, io_u->xfer_buf, io_u->xfer_buflen, io_u->offset);
		break;
	}
	if (fixed)
		raio_set_fixed_file(iocb);
	if (!ddir_rw(io_u->ddir))
		return;
	if (is_registered(rd, io_u))
		raio_set_fixed_buffer(iocb, io_u->index);
	if (o->nowait)
		iocb->aio_rw_flags = RWF_NOWAIT;
}

static enum fio_q_status raio_queue(struct thread_data *td, struct io_u *io_u)
{
	struct raio_data *rd = td->io_ops_data;
	struct iocb *iocb;

	fio_ro_check(td, io_u);

	/* What raio can't do, or a later fio has besides. */
	if (io_u->ddir != DDIR_READ && io_u->ddir != DDIR_WRITE && io_u->ddir != DDIR_SYNC &&
	    io_u->ddir != DDIR_DATASYNC) {
		/* Not before what was queued earlier. */
		if (rd->q.queued)
			return FIO_Q_BUSY;

		if (io_u->ddir == DDIR_TRIM) {
			do_io_u_trim(td, io_u);
			io_u_mark_submit(td, 1);
			io_u_mark_complete(td, 1);
		} else {
			if (fio_fill_issue_time(td))
				fio_gettime(&io_u->issue_time, NULL);
			do_io_u_sync(td, io_u);
		}
		return FIO_Q_COMPLETED;
	}

	iocb = raio_queue_next(&rd->q);
	if (!iocb)
		return FIO_Q_BUSY;
	raio_fill(td, iocb, io_u);
	return FIO_Q_QUEUED;
}

/* Tells fio that @nr entries, from number @first on, were issued @at that time. */
static void raio_issued(struct thread_data *td, unsigned int first, unsigned int nr,
			const struct timespec *at)
{
	struct raio_data *rd = td->io_ops_data;
	unsigned int i;

	io_u_mark_submit(td, nr);
	if (!fio_fill_issue_time(td))
		return;

	for (i = 0; i < nr; i++) {
		struct iocb *iocb = &rd->q.sq[(first + i) % rd->q.sq_nr];
		struct io_u *io_u = (struct io_u *)(uintptr_t)iocb->aio_data;

		io_u->issue_time = *at;
		io_u_queued(td, io_u);
	}

	if (td->o.read_iolog_file)
		td->last_issue = *at;
}

/*
 * Submits what is queued, by one call, which waits for @min events if all is taken. 0 if
 * fio has to come again, with what is left, when it has got events.
 */
static int raio_submit(struct thread_data *td, unsigned int min)
{
	struct raio_data *rd = td->io_ops_data;
	const unsigned int first = rd->q.first;
	struct timespec now = { };
	int ret;

	/* The time that the wait takes is the device's. */
	if (min && fio_fill_issue_time(td))
		fio_gettime(&now, NULL);
	ret = raio_queue_enter(&rd->q, min, NULL);
	if (ret < 0) {
		if ((ret == -EAGAIN || ret == -ENOMEM) && rd->in_flight)
			return 0;
		return ret;
	}
	if (!min && fio_fill_issue_time(td))
		fio_gettime(&now, NULL);

	raio_issued(td, first, ret, &now);
	rd->in_flight += ret;
	return ret;
}

static int raio_commit(struct thread_data *td)
{
	struct raio_data *rd = td->io_ops_data;
	struct raio_options *o = td->eo;
	int ret = 1;

	/* When there are no more of them fio will get events at once. */
	if (o->userspace_reap && rd->in_flight + rd->q.queued >= td->o.iodepth)
		return 0;

	/* What is left then, or refused, is tried again by who gets events. */
	while (rd->q.queued && ret > 0)
		ret = raio_submit(td, 0);
	return 0;
}

/* Up to @max events, @min of which are waited for. */
static int raio_read(struct thread_data *td, struct io_event *events, unsigned int min,
		     unsigned int max, const struct timespec *t)
{
	struct raio_data *rd = td->io_ops_data;
	struct raio_options *o = td->eo;
	struct raio_getevents get = {
		.ctx = rd->q.ctx,
		.min_nr = min,
		.nr = max,
		.events = (uintptr_t)events,
	};
	struct __kernel_timespec timeout;
	int ret;

	if (t) {
		timeout.tv_sec = t->tv_sec;
		timeout.tv_nsec = t->tv_nsec;
		get.timeout = (uintptr_t)&timeout;
	}
	if (!o->userspace_reap) {
		ret = ioctl(rd->q.dev, RAIO_IOC_GETEVENTS, &get);
		return ret < 0 ? -errno : ret;
	}
	/* Nobody else looks for completions then. */
	if (o->hipri && rd->in_flight && !min)
		min = 1;
	if (min) {
		ret = raio_queue_wait(&rd->q, min, t ? &timeout : NULL);
		if (ret < 0)
			return ret;
	}
	return raio_queue_reap(&rd->q, events, max);
}

static int raio_getevents(struct thread_data *td, unsigned int min, unsigned int max,
			  const struct timespec *t)
{
	struct raio_data *rd = td->io_ops_data;
	struct raio_options *o = td->eo;
	unsigned int nr = 0;
	int ret;

	do {
		/* Without a minimum for a batch fio wants this to poll. */
		unsigned int wait = td->o.iodepth_batch_complete_min ? min - nr : 0;

		ret = 0;
		if (rd->q.queued)
			ret = raio_submit(td, o->userspace_reap ? wait : 0);
		if (ret < 0) {
			/* The first of those that are left is refused: so it ends. */
			rd->events[nr++] = (struct io_event){
				.data = raio_queue_skip(&rd->q)->aio_data,
				.res = ret,
			};
			continue;
		}

		ret = raio_read(td, rd->events + nr, min(wait, rd->in_flight), max - nr, t);
		if (ret > 0) {
			nr += ret;
			rd->in_flight -= ret;
		} else if (ret < 0 && ret != -EINTR) {
			break;
		}
	} while (nr < min);

	return nr ? (int)nr : ret == -EINTR ? 0 : ret;
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

	raio_queue_cancel(&rd->q, (uintptr_t)io_u);

	/* 0 would mean that no event comes, but each request has its event. */
	return 1;
}
#endif

/* fio also does so to learn a size, before there is a context. */
static int raio_open_file(struct thread_data *td, struct fio_file *f)
{
	struct raio_data *rd = td->io_ops_data;
	int ret = generic_open_file(td, f);

	if (ret || !rd || f->fileno >= rd->nr_files)
		return ret;

	ret = raio_queue_files(&rd->q, f->fileno, 1, &f->fd);
	if (ret < 0) {
		td_verror(td, -ret, "RAIO_IOC_FILES");
		return generic_close_file(td, f) ?: 1;
	}
	rd->files[f->fileno] = f->fd;
	return 0;
}

static int raio_close_file(struct thread_data *td, struct fio_file *f)
{
	struct raio_data *rd = td->io_ops_data;

	if (rd && f->fileno < rd->nr_files && rd->files[f->fileno] == f->fd) {
		rd->files[f->fileno] = -1;
		raio_queue_files(&rd->q, f->fileno, 1, &rd->files[f->fileno]);
	}
	return generic_close_file(td, f);
}

static void raio_cleanup(struct thread_data *td)
{
	struct raio_data *rd = td->io_ops_data;

	if (!rd)
		return;

	td->io_ops_data = NULL;
	raio_queue_close(&rd->q);
	free(rd->files);
	free(rd->buffers);
	free(rd->events);
	free(rd);
}

/* What has been made when one fails is undone by raio_cleanup(). */
static int raio_init(struct thread_data *td)
{
	struct raio_options *o = td->eo;
	struct raio_setup setup = { .nr_events = td->o.iodepth };
	struct raio_query query;
	struct raio_data *rd;
	unsigned int i;
	int ret;

	rd = calloc(1, sizeof(*rd));
	if (!rd)
		goto no_memory;
	rd->q.dev = -1;
	td->io_ops_data = rd;

	rd->events = calloc(td->o.iodepth, sizeof(*rd->events));
	if (!rd->events)
		goto no_memory;
	if (o->fixedbufs) {
		setup.nr_buffers = td->o.iodepth;
		rd->buffers = calloc(td->o.iodepth, sizeof(*rd->buffers));
		if (!rd->buffers)
			goto no_memory;
	}
	if (o->registerfiles) {
		setup.nr_files = td->files_index;
		rd->files = calloc(td->files_index, sizeof(*rd->files));
		if (!rd->files)
			goto no_memory;
		for (i = 0; i < td->files_index; i++)
			rd->files[i] = -1;
	}
	if (o->hipri) {
		/* Only RAIO_IOC_ENTER is sure to look for completions. */
		o->userspace_reap = 1;
		setup.flags |= RAIO_SETUP_IOPOLL;
		ret = raio_queue_query(o->device, &query);
		if (ret) {
			td_verror(td, -ret, o->device);
			return 1;
		}
		if (!(query.setup_flags & RAIO_SETUP_IOPOLL)) {
			log_err("raio: hipri: the module that is loaded can't poll for completions\n");
			td_verror(td, EOPNOTSUPP, "hipri");
			return 1;
		}
	}

	ret = raio_queue_open(&rd->q, o->device, &setup);
	if (ret) {
		td_verror(td, -ret, o->device);
		return 1;
	}
	rd->nr_files = setup.nr_files;

	return 0;

no_memory:
	td_verror(td, ENOMEM, "calloc");
	return 1;
}

/* fio has its memory now. A thread of io_submit_mode=offload has none of its own. */
static int raio_post_init(struct thread_data *td)
{
	struct raio_data *rd = td->io_ops_data;
	struct io_u *io_u;
	int i, ret;

	if (!rd->buffers)
		return 0;

	io_u_qiter(&td->io_u_all, io_u, i) {
		struct raio_buffer *buffer = &rd->buffers[io_u->index];

		if (!io_u->buf)
			continue;
		buffer->addr = (uintptr_t)io_u->buf;
		buffer->len = td_max_bs(td);
		ret = raio_queue_buffers(&rd->q, io_u->index, 1, buffer);
		if (ret < 0) {
			td_verror(td, -ret, "RAIO_IOC_BUFFERS");
			return 1;
		}
	}
	rd->nr_buffers = i;

	return 0;
}

/* fio finds it by its name. */
struct ioengine_ops ioengine = {
	.name			= "raio",
	.version		= FIO_IOOPS_VERSION,
	.flags			= FIO_ASYNCIO_SYNC_TRIM | FIO_ASYNCIO_SETS_ISSUE_TIME,
	.init			= raio_init,
	.post_init		= raio_post_init,
	.queue			= raio_queue,
	.commit			= raio_commit,
	.getevents		= raio_getevents,
	.event			= raio_event,
#ifdef HAVE_FIO_CANCEL
	.cancel			= raio_cancel,
#endif
	.cleanup		= raio_cleanup,
	.open_file		= raio_open_file,
	.close_file		= raio_close_file,
	.get_file_size		= generic_get_file_size,
	.options		= options,
	.option_struct_size	= sizeof(struct raio_options),
};
