// SPDX-License-Identifier: GPL-2.0
/*
 * What isn't on the way of a request, see libraio.h.
 */
#include <fcntl.h>
#include <unistd.h>

#include "libraio.h"

static int open_device(const char *device)
{
	int dev = open(device ? device : "/dev/raio", O_RDWR | O_CLOEXEC);

	return dev < 0 ? -errno : dev;
}

static int call(int dev, unsigned long cmd, void *arg)
{
	int ret = ioctl(dev, cmd, arg);

	return ret < 0 ? -errno : ret;
}

/**
 * raio_queue_query - ask what the module can do
 * @device:	the device, NULL for /dev/raio
 * @query:	what it says
 *
 * Return: 0, or -errno.
 */
int raio_queue_query(const char *device, struct raio_query *query)
{
	int dev = open_device(device);
	int ret;

	if (dev < 0)
		return dev;
	*query = (struct raio_query){ };
	ret = call(dev, RAIO_IOC_QUERY, query);
	close(dev);
	return ret;
}

/**
 * raio_queue_open - open the device and make a context
 * @q:		where it is kept
 * @device:	the device, NULL for /dev/raio
 * @setup:	in: nr_events, flags, sq_nr, nr_buffers and nr_files, the rest 0; an sq_nr
 *		of 0 is as many as nr_events. out: what RAIO_IOC_SETUP has filled in
 *
 * Return: 0, or -errno. Then there is nothing to close.
 */
int raio_queue_open(struct raio_queue *q, const char *device, struct raio_setup *setup)
{
	int dev = open_device(device);
	int ret;

	*q = (struct raio_queue){ .dev = -1 };
	if (dev < 0)
		return dev;
	setup->ctxp = (uintptr_t)&q->ctx;
	if (!setup->sq_nr)
		setup->sq_nr = setup->nr_events;
	ret = call(dev, RAIO_IOC_SETUP, setup);
	if (ret < 0) {
		close(dev);
		return ret;
	}
	q->dev = dev;
	q->ring = (struct raio_ring *)(uintptr_t)setup->ctx;
	q->ring_nr = setup->ring_nr;
	q->sq = (struct iocb *)(uintptr_t)(setup->ctx + setup->sq_offset);
	q->sq_nr = setup->sq_nr;
	return 0;
}

/**
 * raio_queue_close - destroy the context and close the device
 * @q:	the context; nothing is done if that is closed
 *
 * Returns when all I/O on the program's buffers has ended.
 */
void raio_queue_close(struct raio_queue *q)
{
	struct raio_destroy arg = { .ctx = q->ctx };

	if (q->dev < 0)
		return;
	call(q->dev, RAIO_IOC_DESTROY, &arg);
	close(q->dev);
	q->dev = -1;
}

static int replace(struct raio_queue *q, unsigned long cmd, unsigned int first, unsigned int nr,
		   const void *array)
{
	struct raio_register arg = {
		.ctx = q->ctx,
		.first = first,
		.nr = nr,
		.array = (uintptr_t)array,
	};

	return call(q->dev, cmd, &arg);
}

/**
 * raio_queue_buffers - register buffers, or replace them
 * @q:		the context
 * @first:	number of the first
 * @nr:		how many
 * @buffers:	these; an address and length of 0 is for none
 *
 * Return: how many were replaced, or -errno of the first.
 */
int raio_queue_buffers(struct raio_queue *q, unsigned int first, unsigned int nr,
		       const struct raio_buffer *buffers)
{
	return replace(q, RAIO_IOC_BUFFERS, first, nr, buffers);
}

/**
 * raio_queue_files - register files, or replace them
 * @q:		the context
 * @first:	number of the first
 * @nr:		how many
 * @fds:	their descriptors, -1 is for none
 *
 * Return: how many were replaced, or -errno of the first.
 */
int raio_queue_files(struct raio_queue *q, unsigned int first, unsigned int nr, const int *fds)
{
	return replace(q, RAIO_IOC_FILES, first, nr, fds);
}

/**
 * raio_queue_cancel - cancel a request
 * @q:		the context
 * @data:	what it was prepared with
 *
 * It has its event all the same, with -ECANCELED.
 *
 * Return: 0 if it is cancelled, -EAGAIN if it goes on, -EINVAL if there is no such
 * request in flight.
 */
int raio_queue_cancel(struct raio_queue *q, uint64_t data)
{
	struct raio_cancel arg = {
		.ctx = q->ctx,
		.iocb = data,
		.flags = RAIO_CANCEL_DATA,
	};

	return call(q->dev, RAIO_IOC_CANCEL, &arg);
}
