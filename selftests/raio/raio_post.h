/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Events that are there as soon as the call which submits has returned, and
 * that can be told from one another.
 */
#ifndef RAIO_POST_H
#define RAIO_POST_H

#include "raio_test.h"

#define POST_MAX	64
#define POST_KEY	0x0123456789abcdefULL

/*
 * Puts @nr events into the ring: reads of /dev/zero, which are done when
 * submit returns. Their lengths, and so their results, are the numbers from
 * @first on.
 */
static inline long post_to_try(struct aio *aio, int zero, char *buf, struct iocb *io,
			       unsigned int nr, unsigned int first)
{
	struct iocb *iop[POST_MAX];
	unsigned int i;

	for (i = 0; i < nr; i++) {
		iocb_prep(&io[i], IOCB_CMD_PREAD, zero, buf, (first + i) % PAGE, 0);
		io[i].aio_data = POST_KEY * (first + i);
		iop[i] = &io[i];
	}
	return aio_submit(aio, nr, iop);
}

static inline void post_to(struct __test_metadata *_metadata, struct aio *aio, int zero, char *buf,
			   struct iocb *io, unsigned int nr, unsigned int first)
{
	ASSERT_EQ(nr, post_to_try(aio, zero, buf, io, nr, first));
}

static inline void expect_posted(struct __test_metadata *_metadata, const struct io_event *ev,
				 const struct iocb *io, unsigned int nr, unsigned int first)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		EXPECT_EVENT(&ev[i], &io[i], (first + i) % PAGE);
		EXPECT_EQ(POST_KEY * (first + i), ev[i].data);
	}
}

/* The context does all that it should, with nothing in it before or after. */
static inline void expect_works(struct __test_metadata *_metadata, struct aio *aio, int zero,
				char *buf)
{
	struct io_event ev[4];
	struct iocb io[4];

	post_to(_metadata, aio, zero, buf, io, ARRAY_SIZE(io), 100);
	EXPECT_EQ(ARRAY_SIZE(io), aio_wait(aio, ARRAY_SIZE(io), ev));
	expect_posted(_metadata, ev, io, ARRAY_SIZE(io), 100);
	EXPECT_EQ(0, aio_poll(aio, 1, ev));
}

#endif /* RAIO_POST_H */
