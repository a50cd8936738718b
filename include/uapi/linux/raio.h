/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The ABI of /dev/raio. This header is the only definition of it: the
 * module, the Rust crate and the C programs all take it from here.
 *
 * Every structure has the same layout for 32-bit and 64-bit callers:
 * user addresses are __u64. A structure may grow at its end. The size that
 * the caller knows travels in the ioctl number (_IOC_SIZE): a shorter one
 * is taken as if the rest were zero, a longer one is refused with E2BIG
 * unless the rest is zero, and one shorter than the first version with
 * EINVAL. Unknown flags and non-zero reserved fields are refused with
 * EINVAL, an unknown ioctl number with ENOTTY.
 *
 * Documentation/abi.rst has it call by call.
 */
#ifndef _UAPI_LINUX_RAIO_H
#define _UAPI_LINUX_RAIO_H

#include <linux/aio_abi.h>
#include <linux/ioctl.h>
#include <linux/types.h>

#define RAIO_ABI_VERSION	1

/**
 * struct raio_ring - head of a completion ring, as user space maps it
 * @id:			index of the context in the table of its file
 * @nr:			number of slots in @events
 * @head:		next slot to read; written by whoever reaps
 * @tail:		next slot to be filled; written by the kernel only
 * @magic:		RAIO_RING_MAGIC
 * @compat_features:	RAIO_RING_COMPAT_FEATURES
 * @incompat_features:	RAIO_RING_INCOMPAT_FEATURES
 * @header_length:	size of this header
 * @events:		the slots
 *
 * This is what programs written for kernel AIO expect to find. The ring is
 * empty when @head equals @tail. Read @tail with acquire order before the
 * events up to it, and store @head with release order after them.
 */
struct raio_ring {
	__u32		id;
	__u32		nr;
	__u32		head;
	__u32		tail;
	__u32		magic;
	__u32		compat_features;
	__u32		incompat_features;
	__u32		header_length;
	struct io_event	events[];
};

#define RAIO_RING_MAGIC			0xa10a10a1
#define RAIO_RING_COMPAT_FEATURES	1
#define RAIO_RING_INCOMPAT_FEATURES	0

/* raio_query.features */
#define RAIO_FEAT_POLL		(1ULL << 0)	/* poll(2) tells of events */
#define RAIO_FEAT_SIGMASK	(1ULL << 1)	/* raio_getevents.sigmask */
#define RAIO_FEAT_MIN_WAIT	(1ULL << 2)	/* raio_getevents.min_wait */
#define RAIO_FEAT_CANCEL	(1ULL << 3)	/* RAIO_IOC_CANCEL */
#define RAIO_FEAT_ENTER		(1ULL << 4)	/* RAIO_IOC_ENTER */
#define RAIO_FEAT_REGISTER	(1ULL << 5)	/* RAIO_IOC_BUFFERS, RAIO_IOC_FILES */

/* iocb.aio_flags, for RAIO_IOC_ENTER only */
#define RAIO_IOCB_FIXED_BUF	(1U << 30)	/* aio_buf is in buffer aio_reserved2 */
#define RAIO_IOCB_FIXED_FILE	(1U << 31)	/* aio_fildes is a number of RAIO_IOC_FILES */

/**
 * struct raio_query - what this module can do
 * @flags:		in: must be 0
 * @abi_version:	out: RAIO_ABI_VERSION of the module
 * @features:		out: RAIO_FEAT_* bits
 * @opcodes:		out: bit N set if IOCB_CMD number N is done
 * @iocb_flags:		out: bits of aio_flags that are accepted
 * @rw_flags:		out: bits of aio_rw_flags that are accepted; a file may
 *			still refuse one
 * @setup_flags:	out: bits of raio_setup.flags that are accepted
 * @max_events:		out: largest raio_setup.nr_events
 * @resv:		out: 0
 */
struct raio_query {
	__u32	flags;
	__u32	abi_version;
	__u64	features;
	__u64	opcodes;
	__u64	iocb_flags;
	__u64	rw_flags;
	__u64	setup_flags;
	__u32	max_events;
	__u32	resv;
};

/* raio_setup.flags */
#define RAIO_SETUP_IOPOLL	(1U << 0)	/* ask devices for what has ended */

/**
 * struct raio_setup - make a context, as io_setup(2)
 * @nr_events:	in: requests that must be able to be in flight at once
 * @flags:	in: RAIO_SETUP_* bits
 * @ctxp:	in: address of an aio_context_t (a word of the caller) that
 *		holds 0; the handle is stored there
 * @ctx:	in: 0; out: the handle, which is the address of the ring
 * @ring_size:	in: 0; out: bytes that are mapped at the ring's address
 * @ring_nr:	in: 0; out: slots in the ring
 * @id:		in: 0; out: index of the context in the table of its file
 * @sq_nr:	in: entries of a submission array, 0 for none; out: how many it has,
 *		which is as many as fill its pages
 * @sq_offset:	in: 0; out: where in what is mapped it begins, 0 if there is none
 * @nr_buffers:	in: how many can be registered, RAIO_MAX_BUFFERS at most
 * @nr_files:	in: the same for files, RAIO_MAX_FILES
 *
 * With RAIO_SETUP_IOPOLL, direct reads and writes that have no eventfd, of files and
 * devices that can be polled, don't end by an interrupt: who waits for events asks
 * the device again and again. Unless somebody waits, they needn't end.
 */
struct raio_setup {
	__u32	nr_events;
	__u32	flags;
	__u64	ctxp;
	__u64	ctx;
	__u64	ring_size;
	__u32	ring_nr;
	__u32	id;
	__u32	sq_nr;
	__u32	sq_offset;
	__u32	nr_buffers;
	__u32	nr_files;
};

#define RAIO_MAX_BUFFERS	(1U << 14)
#define RAIO_MAX_FILES		(1U << 15)

/**
 * struct raio_destroy - destroy a context, as io_destroy(2)
 * @ctx:	the handle
 * @flags:	must be 0
 * @resv:	must be 0
 *
 * Returns when all I/O on the caller's buffers has ended.
 */
struct raio_destroy {
	__u64	ctx;
	__u32	flags;
	__u32	resv;
};

/**
 * struct raio_submit - start requests, as io_submit(2)
 * @ctx:	the handle
 * @nr:		length of the array
 * @iocbs:	address of an array of pointers (words of the caller) to iocbs
 * @flags:	must be 0
 * @resv:	must be 0
 *
 * The ioctl returns how many were taken, or an error if the first was not.
 */
struct raio_submit {
	__u64	ctx;
	__s64	nr;
	__u64	iocbs;
	__u32	flags;
	__u32	resv;
};

/* raio_enter.flags */
#define RAIO_ENTER_SQ		(1U << 0)	/* the iocbs are in the submission array */

/**
 * struct raio_enter - start requests and wait for events
 * @ctx:	the handle
 * @iocbs:	address of an array of @nr iocbs, one after another; with
 *		RAIO_ENTER_SQ number of the first in the submission array, which is
 *		gone around
 * @nr:		length of the array
 * @min_nr:	wait until so many events are in the ring, unless the call itself has
 *		posted so many while it submitted
 * @flags:	RAIO_ENTER_* bits
 * @sigsetsize:	size of the mask, 8
 * @sigmask:	address of the signal mask during the wait, 0 for none
 * @timeout:	address of a struct __kernel_timespec with the longest time to
 *		wait, relative; 0 to wait for as long as it takes
 *
 * The ioctl returns how many requests were taken, or an error if there is a first
 * that was not. It waits only if all were; that the wait ended early is an error
 * only with an @nr of 0, where a timeout is none. Events are left in the ring.
 *
 * In @obj an event has the same as in @data, by which a request is cancelled. Nothing is
 * written to an iocb. Those that were taken may be used again at once. A request
 * that does nothing (IOCB_CMD_NOOP) needs no file.
 */
struct raio_enter {
	__u64	ctx;
	__u64	iocbs;
	__u32	nr;
	__u32	min_nr;
	__u32	flags;
	__u32	sigsetsize;
	__u64	sigmask;
	__u64	timeout;
};

/**
 * struct raio_getevents - read events, as io_getevents(2) and io_pgetevents(2)
 * @ctx:	the handle
 * @min_nr:	wait for so many
 * @nr:		read at most so many
 * @events:	address of an array of @nr io_events
 * @timeout:	address of a struct __kernel_timespec with the longest time to
 *		wait, relative; 0 to wait for as long as it takes
 * @flags:	must be 0
 * @resv:	must be 0
 * @sigmask:	address of the signal mask during the wait, 0 for none
 * @sigsetsize:	its size, 8
 * @resv2:	must be 0
 * @min_wait:	nanoseconds after which one event is enough; 0 for none
 *
 * The ioctl returns how many were read. With @min_wait, it waits for @min_nr
 * until so much time has passed; then it returns what is there, or waits for
 * the first event. @timeout still ends it. With a @min_nr of 0 and a @timeout
 * that isn't, it waits for the first event only if some read or write isn't done
 * because submit doesn't wait.
 */
struct raio_getevents {
	__u64	ctx;
	__s64	min_nr;
	__s64	nr;
	__u64	events;
	__u64	timeout;
	__u32	flags;
	__u32	resv;
	__u64	sigmask;
	__u32	sigsetsize;
	__u32	resv2;
	__u64	min_wait;
};

/**
 * struct raio_buffer - memory to register
 * @addr:	where it is; it must be writable, and stays mapped as it is
 * @len:	how many bytes, 1 GiB at most; 0, with an @addr of 0, for none
 */
struct raio_buffer {
	__u64	addr;
	__u64	len;
};

/**
 * struct raio_register - register buffers or files, or replace them
 * @ctx:	the handle
 * @first:	number of the first
 * @nr:		how many
 * @array:	address of an array of @nr struct raio_buffer, or descriptors of 32
 *		bits, of which -1 is for none
 * @flags:	must be 0
 * @resv:	must be 0
 *
 * The ioctl returns how many were replaced, or an error if the first was not. What was
 * registered before goes when no request uses it any more.
 */
struct raio_register {
	__u64	ctx;
	__u32	first;
	__u32	nr;
	__u64	array;
	__u32	flags;
	__u32	resv;
};

/* raio_cancel.flags */
#define RAIO_CANCEL_DATA	(1U << 0)	/* by aio_data, one of RAIO_IOC_ENTER */

/**
 * struct raio_cancel - cancel a request, as io_cancel(2)
 * @ctx:	the handle
 * @iocb:	address of the iocb that was submitted, or its aio_data
 * @flags:	RAIO_CANCEL_* bits
 * @resv:	must be 0
 *
 * The ioctl returns 0 if the request is cancelled: its one event comes through
 * the ring as every other, with -ECANCELED, if it hasn't come already. It fails
 * with EAGAIN if the request is in flight and goes on, since it can't be
 * cancelled, and with EINVAL if no such request is in flight.
 */
struct raio_cancel {
	__u64	ctx;
	__u64	iocb;
	__u32	flags;
	__u32	resv;
};

/**
 * struct raio_stats - counters of the module since it was loaded
 * @flags:	in: must be 0
 * @resv:	in: must be 0
 * @setups:	out: contexts made
 * @frees:	out: contexts at their end; @setups less this is how many there are
 * @submitted:	out: requests taken
 * @queued:	out: those of @submitted that the file went on with by itself
 * @completed:	out: events put into a ring
 * @reaped:	out: those of @completed that were read through an ioctl, not by
 *		user space from the ring
 * @refused:	out: requests that got an error instead
 * @migrated:	out: ring pages moved to another page
 * @cancelled:	out: requests that were cancelled
 * @uncancelled: out: requests that were asked to be cancelled and went on
 * @early:	out: those of @queued that ended before the call that submitted
 *		them was done with them
 * @late:	out: those of @queued that did not
 * @dead_lookups: out: calls that found a context which was being destroyed
 * @kill_busy:	out: submissions during which their context was destroyed
 * @kill_inflight: out: contexts destroyed with requests in flight, other than
 *		on the direct path without polling
 * @killed_waits: out: waits for events that ended for that reason
 * @second_destroys: out: calls to destroy a context that was being destroyed
 * @abandoned:	out: waits for the end of a context that ended because the
 *		caller was killed
 * @polled_inline: out: polls that ended where their file was woken
 * @polled_deferred: out: polls that ended when their file was looked at after
 *		it was woken
 * @punted:	out: times that a request was given to a worker since it would
 *		have had to wait
 * @parked:	out: times that a request waited for a page, or for its file to
 *		be ready, without anybody who does
 * @kicked:	out: times that such a wait ended by what was waited for
 * @direct:	out: those of @queued that were sent to a block device without asking
 *		its file
 * @iopolled:	out: those of @queued whose end the device was asked for
 */
struct raio_stats {
	__u32	flags;
	__u32	resv;
	__u64	setups;
	__u64	frees;
	__u64	submitted;
	__u64	queued;
	__u64	completed;
	__u64	reaped;
	__u64	refused;
	__u64	migrated;
	__u64	cancelled;
	__u64	uncancelled;
	__u64	early;
	__u64	late;
	__u64	dead_lookups;
	__u64	kill_busy;
	__u64	kill_inflight;
	__u64	killed_waits;
	__u64	second_destroys;
	__u64	abandoned;
	__u64	polled_inline;
	__u64	polled_deferred;
	__u64	punted;
	__u64	parked;
	__u64	kicked;
	__u64	direct;
	__u64	iopolled;
};

#define RAIO_IOC_MAGIC		0xBD
#define RAIO_IOC_QUERY		_IOWR(RAIO_IOC_MAGIC, 0x00, struct raio_query)
#define RAIO_IOC_STATS		_IOWR(RAIO_IOC_MAGIC, 0x01, struct raio_stats)
#define RAIO_IOC_SETUP		_IOWR(RAIO_IOC_MAGIC, 0x02, struct raio_setup)
#define RAIO_IOC_DESTROY	_IOW(RAIO_IOC_MAGIC, 0x03, struct raio_destroy)
#define RAIO_IOC_SUBMIT		_IOW(RAIO_IOC_MAGIC, 0x04, struct raio_submit)
#define RAIO_IOC_GETEVENTS	_IOW(RAIO_IOC_MAGIC, 0x05, struct raio_getevents)
#define RAIO_IOC_CANCEL		_IOW(RAIO_IOC_MAGIC, 0x06, struct raio_cancel)
#define RAIO_IOC_ENTER		_IOW(RAIO_IOC_MAGIC, 0x07, struct raio_enter)
#define RAIO_IOC_BUFFERS	_IOW(RAIO_IOC_MAGIC, 0x08, struct raio_register)
#define RAIO_IOC_FILES		_IOW(RAIO_IOC_MAGIC, 0x09, struct raio_register)

#endif /* _UAPI_LINUX_RAIO_H */
