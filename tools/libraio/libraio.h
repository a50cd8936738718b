/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A small library for C programs that use /dev/raio by its native calls: a context
 * with a submission array, whose ring is read without a call. What is on the way of
 * each request is inline here, the rest is in libraio.c.
 *
 * A struct raio_queue is used by one thread at a time. What fails returns -errno, as
 * Documentation/abi.rst has it for the call. Documentation/libraio.rst has an example.
 */
#ifndef LIBRAIO_H
#define LIBRAIO_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <linux/raio.h>
#include <linux/time_types.h>

/**
 * struct raio_queue - a context with a submission array
 * @dev:	the open device, -1 if there is none
 * @ctx:	the handle
 * @ring:	the ring
 * @ring_nr:	slots in it
 * @sq:		the submission array
 * @sq_nr:	entries in it
 * @first:	number of the first that isn't taken yet
 * @queued:	how many those are
 *
 * All is to be read only.
 */
struct raio_queue {
	int dev;
	aio_context_t ctx;
	struct raio_ring *ring;
	unsigned int ring_nr;
	struct iocb *sq;
	unsigned int sq_nr;
	unsigned int first;
	unsigned int queued;
};

int raio_queue_query(const char *device, struct raio_query *query);
int raio_queue_open(struct raio_queue *q, const char *device, struct raio_setup *setup);
void raio_queue_close(struct raio_queue *q);
int raio_queue_buffers(struct raio_queue *q, unsigned int first, unsigned int nr,
		       const struct raio_buffer *buffers);
int raio_queue_files(struct raio_queue *q, unsigned int first, unsigned int nr, const int *fds);
int raio_queue_cancel(struct raio_queue *q, uint64_t data);

/**
 * raio_queue_next - the next free entry of the submission array
 * @q:	the context
 *
 * It is submitted by the next call that submits, and must be prepared before.
 *
 * Return: the entry, or NULL if all wait to be submitted.
 */
static inline struct iocb *raio_queue_next(struct raio_queue *q)
{
	unsigned int i = q->first + q->queued;

	if (q->queued == q->sq_nr)
		return NULL;
	q->queued++;
	return &q->sq[i < q->sq_nr ? i : i - q->sq_nr];
}

static inline void __raio_queue_taken(struct raio_queue *q, unsigned int nr)
{
	q->queued -= nr;
	q->first += nr;
	if (q->first >= q->sq_nr)
		q->first -= q->sq_nr;
}

/**
 * raio_queue_ready - how many events can be read
 * @q:	the context
 *
 * Return: so many, without a call.
 */
static inline unsigned int raio_queue_ready(const struct raio_queue *q)
{
	unsigned int tail = __atomic_load_n(&q->ring->tail, __ATOMIC_ACQUIRE);
	unsigned int head = q->ring->head;

	return tail >= head ? tail - head : tail + q->ring_nr - head;
}

/**
 * raio_queue_enter - submit what is queued, then wait
 * @q:		the context
 * @min_nr:	wait until so many events are in the ring
 * @timeout:	for so long at most, NULL for as long as it takes
 *
 * What is not taken, since one is refused, stays queued: the next call returns the
 * error of that one, which raio_queue_skip() leaves out. It waits only if all are taken.
 * A signal or the time may end that, which isn't told if any were: raio_queue_ready()
 * says how many events there are.
 *
 * Return: how many were taken.
 */
static inline int raio_queue_enter(struct raio_queue *q, unsigned int min_nr,
				   const struct __kernel_timespec *timeout)
{
	struct raio_enter arg = {
		.ctx = q->ctx,
		.iocbs = q->first,
		.nr = q->queued,
		/* If they are there nobody has to look, or to ask a device that is polled. */
		.min_nr = min_nr > raio_queue_ready(q) ? min_nr : 0,
		.flags = RAIO_ENTER_SQ,
		.timeout = (uintptr_t)timeout,
	};
	int ret = ioctl(q->dev, RAIO_IOC_ENTER, &arg);

	if (ret < 0)
		return -errno;
	__raio_queue_taken(q, ret);
	return ret;
}

/**
 * raio_queue_submit - submit what is queued
 * @q:	the context
 *
 * Return: how many were taken, see raio_queue_enter().
 */
static inline int raio_queue_submit(struct raio_queue *q)
{
	return q->queued ? raio_queue_enter(q, 0, NULL) : 0;
}

/**
 * raio_queue_submit_and_wait - submit what is queued, and wait, by one call
 * @q:		the context
 * @min_nr:	until so many events are in the ring
 *
 * Return: how many were taken, see raio_queue_enter().
 */
static inline int raio_queue_submit_and_wait(struct raio_queue *q, unsigned int min_nr)
{
	return raio_queue_enter(q, min_nr, NULL);
}

/**
 * raio_queue_skip - leave out the first entry that isn't taken
 * @q:	the context
 *
 * Return: that entry, which is free then; NULL if nothing is queued.
 */
static inline struct iocb *raio_queue_skip(struct raio_queue *q)
{
	struct iocb *io = &q->sq[q->first];

	if (!q->queued)
		return NULL;
	__raio_queue_taken(q, 1);
	return io;
}

/**
 * raio_queue_event - look at an event, which stays in the ring
 * @q:	the context
 * @i:	which, from 0 on, less than raio_queue_ready() says
 *
 * Return: the event. It is valid until raio_queue_seen().
 */
static inline const struct io_event *raio_queue_event(const struct raio_queue *q, unsigned int i)
{
	i += q->ring->head;
	return &q->ring->events[i < q->ring_nr ? i : i - q->ring_nr];
}

/**
 * raio_queue_peek - look at the first event, which stays in the ring
 * @q:	the context
 *
 * Return: the event, or NULL if there is none.
 */
static inline const struct io_event *raio_queue_peek(const struct raio_queue *q)
{
	return raio_queue_ready(q) ? raio_queue_event(q, 0) : NULL;
}

/**
 * raio_queue_seen - give slots of the ring back
 * @q:	the context
 * @nr:	so many, of the events that were looked at first
 */
static inline void raio_queue_seen(struct raio_queue *q, unsigned int nr)
{
	nr += q->ring->head;
	if (nr >= q->ring_nr)
		nr -= q->ring_nr;
	__atomic_store_n(&q->ring->head, nr, __ATOMIC_RELEASE);
}

/**
 * raio_queue_reap - read events, without a call
 * @q:		the context
 * @events:	where to
 * @max:	at most so many
 *
 * Return: how many there were.
 */
static inline unsigned int raio_queue_reap(struct raio_queue *q, struct io_event *events,
					   unsigned int max)
{
	unsigned int nr = raio_queue_ready(q);
	unsigned int i;

	if (nr > max)
		nr = max;
	for (i = 0; i < nr; i++)
		events[i] = *raio_queue_event(q, i);
	if (nr)
		raio_queue_seen(q, nr);
	return nr;
}

/**
 * raio_queue_wait - wait for events, without submitting
 * @q:		the context
 * @min_nr:	until so many are in the ring
 * @timeout:	for so long at most, NULL for as long as it takes
 *
 * There is no call if they are there.
 *
 * Return: how many are there, which is less than @min_nr when the time was over.
 */
static inline int raio_queue_wait(struct raio_queue *q, unsigned int min_nr,
				  const struct __kernel_timespec *timeout)
{
	struct raio_enter arg = {
		.ctx = q->ctx,
		.min_nr = min_nr,
		.timeout = (uintptr_t)timeout,
	};

	if (raio_queue_ready(q) < min_nr && ioctl(q->dev, RAIO_IOC_ENTER, &arg) < 0)
		return -errno;
	return raio_queue_ready(q);
}

static inline void __raio_prep(struct iocb *io, uint64_t data, int opcode, int fd, uint64_t buf,
			       uint64_t nbytes, int64_t offset)
{
	struct iocb zero = { };

	*io = zero;
	io->aio_data = data;
	io->aio_lio_opcode = opcode;
	io->aio_fildes = fd;
	io->aio_buf = buf;
	io->aio_nbytes = nbytes;
	io->aio_offset = offset;
}

/**
 * raio_prep_read - make an entry a read
 * @io:		the entry
 * @data:	what its event shall have as data, and by which it is cancelled
 * @fd:		a descriptor, or the number of a registered file
 * @buf:	where to
 * @len:	how many bytes
 * @offset:	from where in the file
 */
static inline void raio_prep_read(struct iocb *io, uint64_t data, int fd, void *buf, size_t len,
				  int64_t offset)
{
	__raio_prep(io, data, IOCB_CMD_PREAD, fd, (uintptr_t)buf, len, offset);
}

/**
 * raio_prep_write - make an entry a write
 * @io:		the entry
 * @data:	what its event shall have as data, and by which it is cancelled
 * @fd:		a descriptor, or the number of a registered file
 * @buf:	where from
 * @len:	how many bytes
 * @offset:	to where in the file
 */
static inline void raio_prep_write(struct iocb *io, uint64_t data, int fd, const void *buf,
				   size_t len, int64_t offset)
{
	__raio_prep(io, data, IOCB_CMD_PWRITE, fd, (uintptr_t)buf, len, offset);
}

/**
 * raio_prep_readv - make an entry a read into several places
 * @io:		the entry
 * @data:	what its event shall have as data, and by which it is cancelled
 * @fd:		a descriptor, or the number of a registered file
 * @iov:	these, needed until it is submitted
 * @nr:		how many
 * @offset:	from where in the file
 */
static inline void raio_prep_readv(struct iocb *io, uint64_t data, int fd, const struct iovec *iov,
				   unsigned int nr, int64_t offset)
{
	__raio_prep(io, data, IOCB_CMD_PREADV, fd, (uintptr_t)iov, nr, offset);
}

/**
 * raio_prep_writev - make an entry a write from several places
 * @io:		the entry
 * @data:	what its event shall have as data, and by which it is cancelled
 * @fd:		a descriptor, or the number of a registered file
 * @iov:	these, needed until it is submitted
 * @nr:		how many
 * @offset:	to where in the file
 */
static inline void raio_prep_writev(struct iocb *io, uint64_t data, int fd, const struct iovec *iov,
				    unsigned int nr, int64_t offset)
{
	__raio_prep(io, data, IOCB_CMD_PWRITEV, fd, (uintptr_t)iov, nr, offset);
}

/**
 * raio_prep_fsync - make an entry an fsync(2)
 * @io:		the entry
 * @data:	what its event shall have as data, and by which it is cancelled
 * @fd:		a descriptor, or the number of a registered file
 */
static inline void raio_prep_fsync(struct iocb *io, uint64_t data, int fd)
{
	__raio_prep(io, data, IOCB_CMD_FSYNC, fd, 0, 0, 0);
}

/**
 * raio_prep_fdsync - make an entry an fdatasync(2)
 * @io:		the entry
 * @data:	what its event shall have as data, and by which it is cancelled
 * @fd:		a descriptor, or the number of a registered file
 */
static inline void raio_prep_fdsync(struct iocb *io, uint64_t data, int fd)
{
	__raio_prep(io, data, IOCB_CMD_FDSYNC, fd, 0, 0, 0);
}

/**
 * raio_prep_poll - make an entry wait until a file is ready
 * @io:		the entry
 * @data:	what its event shall have as data, and by which it is cancelled
 * @fd:		a descriptor, or the number of a registered file
 * @events:	for what, as poll(2) has it
 */
static inline void raio_prep_poll(struct iocb *io, uint64_t data, int fd, unsigned int events)
{
	__raio_prep(io, data, IOCB_CMD_POLL, fd, events, 0, 0);
}

/**
 * raio_prep_noop - make an entry one that does nothing
 * @io:		the entry
 * @data:	what its event shall have as data
 */
static inline void raio_prep_noop(struct iocb *io, uint64_t data)
{
	__raio_prep(io, data, IOCB_CMD_NOOP, 0, 0, 0, 0);
}

/**
 * raio_set_fixed_file - let what was given as @fd be the number of a registered file
 * @io:	the entry, prepared
 */
static inline void raio_set_fixed_file(struct iocb *io)
{
	io->aio_flags |= RAIO_IOCB_FIXED_FILE;
}

/**
 * raio_set_fixed_buffer - say in which registered buffer the memory is
 * @io:		the entry, prepared as a read or a write
 * @index:	the number of the buffer
 */
static inline void raio_set_fixed_buffer(struct iocb *io, unsigned int index)
{
	io->aio_flags |= RAIO_IOCB_FIXED_BUF;
	io->aio_reserved2 = index;
}

#endif /* LIBRAIO_H */
