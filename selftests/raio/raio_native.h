/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The native calls: a context with a submission array, and RAIO_IOC_ENTER.
 */
#ifndef RAIO_NATIVE_H
#define RAIO_NATIVE_H

#include "raio_test.h"

/**
 * struct native - a context of raio with a submission array
 * @aio:	the context
 * @sq:		the array
 * @sq_nr:	its entries
 */
struct native {
	struct aio aio;
	struct iocb *sq;
	unsigned int sq_nr;
};

/* @setup is what is asked for, but for where the handle goes. */
static inline void native_begin_as(struct __test_metadata *_metadata, struct native *native,
				   struct raio_setup setup)
{
	const unsigned int sq_nr = setup.sq_nr;

	setup.ctxp = (uintptr_t)&native->aio.ctx;
	aio_open(_metadata, &native->aio, &raio);
	ASSERT_EQ(0, raio_ioctl(native->aio.dev, RAIO_IOC_SETUP, &setup));
	ASSERT_LE(sq_nr, setup.sq_nr);
	native->sq_nr = setup.sq_nr;
	native->sq = setup.sq_nr ? (void *)(uintptr_t)(setup.ctx + setup.sq_offset) : NULL;
}

static inline void native_begin_sized(struct __test_metadata *_metadata, struct native *native,
				      unsigned int nr, unsigned int sq_nr,
				      unsigned int nr_buffers, unsigned int nr_files)
{
	native_begin_as(_metadata, native, (struct raio_setup) {
		.nr_events = nr,
		.sq_nr = sq_nr,
		.nr_buffers = nr_buffers,
		.nr_files = nr_files,
	});
}

static inline void native_begin(struct __test_metadata *_metadata, struct native *native,
				unsigned int nr, unsigned int sq_nr)
{
	native_begin_sized(_metadata, native, nr, sq_nr, 0, 0);
}

static inline void native_end(struct __test_metadata *_metadata, struct native *native)
{
	aio_end(_metadata, &native->aio);
}

/* Of an array of @nr anywhere. */
static inline long native_enter(struct native *native, unsigned int nr, struct iocb *io,
				unsigned int min_nr)
{
	struct raio_enter arg = {
		.ctx = native->aio.ctx,
		.iocbs = (uintptr_t)io,
		.nr = nr,
		.min_nr = min_nr,
	};

	return raio_ioctl(native->aio.dev, RAIO_IOC_ENTER, &arg);
}

/* Of @nr entries of the submission array, from @first on. */
static inline long native_enter_sq(struct native *native, unsigned int nr, unsigned int first,
				   unsigned int min_nr)
{
	struct raio_enter arg = {
		.ctx = native->aio.ctx,
		.iocbs = first,
		.nr = nr,
		.min_nr = min_nr,
		.flags = RAIO_ENTER_SQ,
	};

	return raio_ioctl(native->aio.dev, RAIO_IOC_ENTER, &arg);
}

/* Registers, from number @first on. */

static inline long native_buffers(struct native *native, unsigned int first, unsigned int nr,
				  const struct raio_buffer *buffers)
{
	struct raio_register arg = {
		.ctx = native->aio.ctx,
		.first = first,
		.nr = nr,
		.array = (uintptr_t)buffers,
	};

	return raio_ioctl(native->aio.dev, RAIO_IOC_BUFFERS, &arg);
}

static inline long native_files(struct native *native, unsigned int first, unsigned int nr,
				const int *fds)
{
	struct raio_register arg = {
		.ctx = native->aio.ctx,
		.first = first,
		.nr = nr,
		.array = (uintptr_t)fds,
	};

	return raio_ioctl(native->aio.dev, RAIO_IOC_FILES, &arg);
}

/* As for iocb_prep(), with a number to come back. */
static inline void native_prep(struct iocb *io, uint64_t data, int opcode, int fd, void *buf,
			       size_t len, long long offset)
{
	iocb_prep(io, opcode, fd, buf, len, offset);
	io->aio_data = data;
}

/* The event is that of the request with that number. */
#define EXPECT_NATIVE(_data, _res, _ev) do {				\
	EXPECT_EQ((_data), (_ev)->data);				\
	EXPECT_EQ((_data), (_ev)->obj);					\
	EXPECT_EQ((_res), (_ev)->res);					\
	EXPECT_EQ(0, (_ev)->res2);					\
} while (0)

/*
 * The events of requests number 0 to @_nr - 1, 64 at most, are in the ring, each once
 * with that result, and no other.
 */
#define EXPECT_EACH(_native, _nr, _res) do {				\
	struct io_event __ev[64];					\
	uint64_t __found = 0;						\
	unsigned int __i;						\
									\
	ASSERT_EQ((_nr), ring_reap((_native)->aio.ctx, 64, __ev));	\
	for (__i = 0; __i < (_nr); __i++) {				\
		EXPECT_NATIVE(__ev[__i].data, (_res), &__ev[__i]);	\
		__found |= 1ULL << __ev[__i].data;			\
	}								\
	EXPECT_EQ((_nr) == 64 ? UINT64_MAX : (1ULL << (_nr)) - 1, __found);	\
} while (0)

/* What comes of one, whether the call or its event says it. */
#define NATIVE_RESULT(_native, _io) ({					\
	struct io_event __ev = { .res = -EINVAL };			\
	long __ret = native_enter((_native), 1, (_io), 1);		\
									\
	if (__ret == 1)							\
		ASSERT_EQ(1, ring_reap((_native)->aio.ctx, 1, &__ev));	\
	__ret == 1 ? __ev.res : __ret;					\
})

#endif
