// SPDX-License-Identifier: GPL-2.0
/*
 * The shape of the ABI, call by call and without any I/O: layout of the
 * structures, what query says, how a structure may grow, which flags, numbers
 * and addresses are refused, and what the counters count.
 */
#include <poll.h>

#include "raio_test.h"

#define CHECK_SIZE(_type, _size) \
	static_assert(sizeof(struct _type) == (_size), "size of " #_type)
#define CHECK_OFFSET(_type, _field, _offset) \
	static_assert(offsetof(struct _type, _field) == (_offset), #_type "." #_field)

CHECK_SIZE(raio_ring, 32);
CHECK_OFFSET(raio_ring, id, 0);
CHECK_OFFSET(raio_ring, nr, 4);
CHECK_OFFSET(raio_ring, head, 8);
CHECK_OFFSET(raio_ring, tail, 12);
CHECK_OFFSET(raio_ring, magic, 16);
CHECK_OFFSET(raio_ring, compat_features, 20);
CHECK_OFFSET(raio_ring, incompat_features, 24);
CHECK_OFFSET(raio_ring, header_length, 28);
CHECK_OFFSET(raio_ring, events, 32);

CHECK_SIZE(raio_query, 56);
CHECK_OFFSET(raio_query, flags, 0);
CHECK_OFFSET(raio_query, abi_version, 4);
CHECK_OFFSET(raio_query, features, 8);
CHECK_OFFSET(raio_query, opcodes, 16);
CHECK_OFFSET(raio_query, iocb_flags, 24);
CHECK_OFFSET(raio_query, rw_flags, 32);
CHECK_OFFSET(raio_query, setup_flags, 40);
CHECK_OFFSET(raio_query, max_events, 48);
CHECK_OFFSET(raio_query, resv, 52);

CHECK_SIZE(raio_setup, 56);
CHECK_OFFSET(raio_setup, nr_events, 0);
CHECK_OFFSET(raio_setup, flags, 4);
CHECK_OFFSET(raio_setup, ctxp, 8);
CHECK_OFFSET(raio_setup, ctx, 16);
CHECK_OFFSET(raio_setup, ring_size, 24);
CHECK_OFFSET(raio_setup, ring_nr, 32);
CHECK_OFFSET(raio_setup, id, 36);
CHECK_OFFSET(raio_setup, sq_nr, 40);
CHECK_OFFSET(raio_setup, sq_offset, 44);
CHECK_OFFSET(raio_setup, nr_buffers, 48);
CHECK_OFFSET(raio_setup, nr_files, 52);

CHECK_SIZE(raio_destroy, 16);
CHECK_OFFSET(raio_destroy, ctx, 0);
CHECK_OFFSET(raio_destroy, flags, 8);
CHECK_OFFSET(raio_destroy, resv, 12);

CHECK_SIZE(raio_submit, 32);
CHECK_OFFSET(raio_submit, ctx, 0);
CHECK_OFFSET(raio_submit, nr, 8);
CHECK_OFFSET(raio_submit, iocbs, 16);
CHECK_OFFSET(raio_submit, flags, 24);
CHECK_OFFSET(raio_submit, resv, 28);

CHECK_SIZE(raio_enter, 48);
CHECK_OFFSET(raio_enter, ctx, 0);
CHECK_OFFSET(raio_enter, iocbs, 8);
CHECK_OFFSET(raio_enter, nr, 16);
CHECK_OFFSET(raio_enter, min_nr, 20);
CHECK_OFFSET(raio_enter, flags, 24);
CHECK_OFFSET(raio_enter, sigsetsize, 28);
CHECK_OFFSET(raio_enter, sigmask, 32);
CHECK_OFFSET(raio_enter, timeout, 40);

CHECK_SIZE(raio_buffer, 16);
CHECK_OFFSET(raio_buffer, addr, 0);
CHECK_OFFSET(raio_buffer, len, 8);

CHECK_SIZE(raio_register, 32);
CHECK_OFFSET(raio_register, ctx, 0);
CHECK_OFFSET(raio_register, first, 8);
CHECK_OFFSET(raio_register, nr, 12);
CHECK_OFFSET(raio_register, array, 16);
CHECK_OFFSET(raio_register, flags, 24);
CHECK_OFFSET(raio_register, resv, 28);

CHECK_SIZE(raio_getevents, 72);
CHECK_OFFSET(raio_getevents, ctx, 0);
CHECK_OFFSET(raio_getevents, min_nr, 8);
CHECK_OFFSET(raio_getevents, nr, 16);
CHECK_OFFSET(raio_getevents, events, 24);
CHECK_OFFSET(raio_getevents, timeout, 32);
CHECK_OFFSET(raio_getevents, flags, 40);
CHECK_OFFSET(raio_getevents, resv, 44);
CHECK_OFFSET(raio_getevents, sigmask, 48);
CHECK_OFFSET(raio_getevents, sigsetsize, 56);
CHECK_OFFSET(raio_getevents, resv2, 60);
CHECK_OFFSET(raio_getevents, min_wait, 64);

CHECK_SIZE(raio_cancel, 24);
CHECK_OFFSET(raio_cancel, ctx, 0);
CHECK_OFFSET(raio_cancel, iocb, 8);
CHECK_OFFSET(raio_cancel, flags, 16);
CHECK_OFFSET(raio_cancel, resv, 20);

CHECK_SIZE(raio_stats, 208);
CHECK_OFFSET(raio_stats, flags, 0);
CHECK_OFFSET(raio_stats, resv, 4);
CHECK_OFFSET(raio_stats, setups, 8);
CHECK_OFFSET(raio_stats, frees, 16);
CHECK_OFFSET(raio_stats, submitted, 24);
CHECK_OFFSET(raio_stats, queued, 32);
CHECK_OFFSET(raio_stats, completed, 40);
CHECK_OFFSET(raio_stats, reaped, 48);
CHECK_OFFSET(raio_stats, refused, 56);
CHECK_OFFSET(raio_stats, migrated, 64);
CHECK_OFFSET(raio_stats, cancelled, 72);
CHECK_OFFSET(raio_stats, uncancelled, 80);
CHECK_OFFSET(raio_stats, early, 88);
CHECK_OFFSET(raio_stats, late, 96);
CHECK_OFFSET(raio_stats, dead_lookups, 104);
CHECK_OFFSET(raio_stats, kill_busy, 112);
CHECK_OFFSET(raio_stats, kill_inflight, 120);
CHECK_OFFSET(raio_stats, killed_waits, 128);
CHECK_OFFSET(raio_stats, second_destroys, 136);
CHECK_OFFSET(raio_stats, abandoned, 144);
CHECK_OFFSET(raio_stats, polled_inline, 152);
CHECK_OFFSET(raio_stats, polled_deferred, 160);
CHECK_OFFSET(raio_stats, punted, 168);
CHECK_OFFSET(raio_stats, parked, 176);
CHECK_OFFSET(raio_stats, kicked, 184);
CHECK_OFFSET(raio_stats, direct, 192);
CHECK_OFFSET(raio_stats, iopolled, 200);

/* What is laid out as kernel AIO has it. */
CHECK_SIZE(iocb, 64);
CHECK_SIZE(io_event, 32);

/* Old numbers stay: they are in programs that were built long ago. */
static_assert(RAIO_IOC_QUERY == 0xc038bd00, "RAIO_IOC_QUERY");
static_assert(RAIO_IOC_STATS == 0xc0d0bd01, "RAIO_IOC_STATS");
static_assert(RAIO_IOC_SETUP == 0xc038bd02, "RAIO_IOC_SETUP");
static_assert(RAIO_IOC_DESTROY == 0x4010bd03, "RAIO_IOC_DESTROY");
static_assert(RAIO_IOC_SUBMIT == 0x4020bd04, "RAIO_IOC_SUBMIT");
static_assert(RAIO_IOC_GETEVENTS == 0x4048bd05, "RAIO_IOC_GETEVENTS");
static_assert(RAIO_IOC_CANCEL == 0x4018bd06, "RAIO_IOC_CANCEL");
static_assert(RAIO_IOC_ENTER == 0x4030bd07, "RAIO_IOC_ENTER");
static_assert(RAIO_IOC_BUFFERS == 0x4020bd08, "RAIO_IOC_BUFFERS");
static_assert(RAIO_IOC_FILES == 0x4020bd09, "RAIO_IOC_FILES");

#define MAX_ARG_SIZE	((1U << _IOC_SIZEBITS) - 1)
#define FIRST_FREE_NR	0x0a

FIXTURE(query)
{
	struct aio aio;
	struct raio_query query;
};

FIXTURE_SETUP(query)
{
	aio_open(_metadata, &self->aio, &raio);
	/* What is only written need not be zero before. */
	memset(&self->query, 0xff, sizeof(self->query));
	self->query.flags = 0;
	ASSERT_EQ(0, raio_ioctl(self->aio.dev, RAIO_IOC_QUERY, &self->query));
}

FIXTURE_TEARDOWN(query)
{
	aio_end(_metadata, &self->aio);
}

TEST_F(query, version)
{
	EXPECT_EQ(RAIO_ABI_VERSION, self->query.abi_version);
	EXPECT_EQ(0, self->query.flags);
	EXPECT_EQ(0, self->query.resv);
}

TEST_F(query, opcodes)
{
	EXPECT_NE(0, self->query.opcodes & (1ULL << IOCB_CMD_PREAD));
	EXPECT_NE(0, self->query.opcodes & (1ULL << IOCB_CMD_PWRITE));
	/* Numbers that aio_abi.h does not give out, or only in a comment. */
	EXPECT_EQ(0, self->query.opcodes & (1ULL << 4));
	EXPECT_EQ(0, self->query.opcodes >> (IOCB_CMD_PWRITEV + 1));
}

TEST_F(query, flags)
{
	EXPECT_EQ(RAIO_FEAT_POLL | RAIO_FEAT_SIGMASK | RAIO_FEAT_MIN_WAIT | RAIO_FEAT_CANCEL |
		  RAIO_FEAT_ENTER | RAIO_FEAT_REGISTER, self->query.features);
	EXPECT_EQ(IOCB_FLAG_RESFD | RAIO_IOCB_FIXED_BUF | RAIO_IOCB_FIXED_FILE,
		  self->query.iocb_flags & ~(uint64_t)IOCB_FLAG_IOPRIO);
	EXPECT_EQ(RAIO_SETUP_IOPOLL, self->query.setup_flags);
	EXPECT_LE(1024, self->query.max_events);
}

TEST_F(query, says_the_same_again)
{
	struct raio_query again = { };
	int dev = raio_open();

	ASSERT_LE(0, dev);
	ASSERT_EQ(0, raio_ioctl(dev, RAIO_IOC_QUERY, &again));
	EXPECT_EQ(0, memcmp(&again, &self->query, sizeof(again)));
	close(dev);
}

/* Every flag of a set-up that query does not have is refused, no other. */
TEST_F(query, setup_flags_are_those_that_work)
{
	unsigned int bit;

	for (bit = 0; bit < 32; bit++) {
		aio_context_t ctx = 0;
		struct raio_setup arg = {
			.nr_events = 1,
			.flags = 1U << bit,
			.ctxp = (uintptr_t)&ctx,
		};

		EXPECT_EQ(self->query.setup_flags & (1ULL << bit) ? 0 : -EINVAL,
			  raio_ioctl(self->aio.dev, RAIO_IOC_SETUP, &arg)) {
			TH_LOG("flag %#x", 1U << bit);
		}
		EXPECT_EQ(0, ctx ? raio_destroy(self->aio.dev, ctx) : 0);
	}
}

/**
 * struct call - one call in its smallest form that succeeds
 * @dir:	direction in the ioctl number
 * @nr:		the number itself
 * @aio:	a context
 * @made:	another, that set-up has made or that destroy shall end
 * @zero:	a timeout
 * @pipe:	nothing is ever written to it
 * @io:		a request that waits for that, to be cancelled
 * @arg:	the argument, in the middle of much memory
 */
struct call {
	unsigned int dir;
	unsigned int nr;
	struct aio aio;
	aio_context_t made;
	struct __kernel_timespec zero;
	int pipe[2];
	struct iocb io;
	bool waits;
	char *arg;
};

FIXTURE(call)
{
	struct call call;
};

/*
 * @first is the size of the first version, if there have been others. @flags
 * are offsets of 32-bit words that have to be 0, ended by -1.
 */
FIXTURE_VARIANT(call)
{
	unsigned int dir;
	unsigned int nr;
	unsigned int size;
	unsigned int first;
	int flags[8];
};

FIXTURE_VARIANT_ADD(call, query)
{
	.dir = _IOC_READ | _IOC_WRITE,
	.nr = 0x00,
	.size = 56,
	.flags = { offsetof(struct raio_query, flags), -1 },
};

FIXTURE_VARIANT_ADD(call, stats)
{
	.dir = _IOC_READ | _IOC_WRITE,
	.nr = 0x01,
	.size = 208,
	.first = 72,
	.flags = {
		offsetof(struct raio_stats, flags),
		offsetof(struct raio_stats, resv),
		-1
	},
};

FIXTURE_VARIANT_ADD(call, setup)
{
	.dir = _IOC_READ | _IOC_WRITE,
	.nr = 0x02,
	.size = 56,
	.first = 40,
	.flags = {
		offsetof(struct raio_setup, ctx),
		offsetof(struct raio_setup, ctx) + 4,
		offsetof(struct raio_setup, ring_size),
		offsetof(struct raio_setup, ring_size) + 4,
		offsetof(struct raio_setup, ring_nr),
		offsetof(struct raio_setup, id),
		-1
	},
};

FIXTURE_VARIANT_ADD(call, destroy)
{
	.dir = _IOC_WRITE,
	.nr = 0x03,
	.size = 16,
	.flags = {
		offsetof(struct raio_destroy, flags),
		offsetof(struct raio_destroy, resv),
		-1
	},
};

FIXTURE_VARIANT_ADD(call, submit)
{
	.dir = _IOC_WRITE,
	.nr = 0x04,
	.size = 32,
	.flags = {
		offsetof(struct raio_submit, flags),
		offsetof(struct raio_submit, resv),
		-1
	},
};

FIXTURE_VARIANT_ADD(call, getevents)
{
	.dir = _IOC_WRITE,
	.nr = 0x05,
	.size = 72,
	.first = 48,
	.flags = {
		offsetof(struct raio_getevents, flags),
		offsetof(struct raio_getevents, resv),
		offsetof(struct raio_getevents, resv2),
		-1
	},
};

FIXTURE_VARIANT_ADD(call, cancel)
{
	.dir = _IOC_WRITE,
	.nr = 0x06,
	.size = 24,
	.flags = { offsetof(struct raio_cancel, resv), -1 },
};

FIXTURE_VARIANT_ADD(call, enter)
{
	.dir = _IOC_WRITE,
	.nr = 0x07,
	.size = 48,
	.flags = { -1 },
};

FIXTURE_VARIANT_ADD(call, buffers)
{
	.dir = _IOC_WRITE,
	.nr = 0x08,
	.size = 32,
	.flags = {
		offsetof(struct raio_register, flags),
		offsetof(struct raio_register, resv),
		-1
	},
};

FIXTURE_VARIANT_ADD(call, files)
{
	.dir = _IOC_WRITE,
	.nr = 0x09,
	.size = 32,
	.flags = {
		offsetof(struct raio_register, flags),
		offsetof(struct raio_register, resv),
		-1
	},
};

FIXTURE_SETUP(call)
{
	self->call.dir = variant->dir;
	self->call.nr = variant->nr;
	aio_begin(_metadata, &self->call.aio, &raio, 1);
	self->call.arg = map_pages(MAX_ARG_SIZE + 1);
	self->call.made = 0;
	self->call.waits = false;
	memset(&self->call.zero, 0, sizeof(self->call.zero));
	ASSERT_EQ(0, pipe(self->call.pipe));
}

FIXTURE_TEARDOWN(call)
{
	aio_end(_metadata, &self->call.aio);
}

/* Makes @arg one that would work. Destroy needs a context of its own, cancel a request. */
static void call_fill(struct __test_metadata *_metadata, struct call *call, void *arg)
{
	struct raio_setup *setup = arg;
	struct raio_destroy *destroy = arg;
	struct raio_submit *submit = arg;
	struct raio_getevents *getevents = arg;
	struct raio_cancel *cancel = arg;
	struct raio_enter *enter = arg;
	struct raio_register *registered = arg;

	switch (call->nr) {
	case _IOC_NR(RAIO_IOC_QUERY):
		memset(arg, 0, sizeof(struct raio_query));
		break;
	case _IOC_NR(RAIO_IOC_STATS):
		memset(arg, 0, sizeof(struct raio_stats));
		break;
	case _IOC_NR(RAIO_IOC_SETUP):
		memset(arg, 0, sizeof(*setup));
		setup->nr_events = 1;
		setup->ctxp = (uintptr_t)&call->made;
		call->made = 0;
		break;
	case _IOC_NR(RAIO_IOC_DESTROY):
		memset(arg, 0, sizeof(*destroy));
		if (!call->made) {
			ASSERT_EQ(0, raio_setup(call->aio.dev, 1, &call->made)) {
				TH_LOG("no context to destroy");
			}
		}
		destroy->ctx = call->made;
		break;
	case _IOC_NR(RAIO_IOC_SUBMIT):
		memset(arg, 0, sizeof(*submit));
		submit->ctx = call->aio.ctx;
		break;
	case _IOC_NR(RAIO_IOC_GETEVENTS):
		memset(arg, 0, sizeof(*getevents));
		getevents->ctx = call->aio.ctx;
		getevents->timeout = (uintptr_t)&call->zero;
		break;
	case _IOC_NR(RAIO_IOC_ENTER):
		memset(arg, 0, sizeof(*enter));
		enter->ctx = call->aio.ctx;
		break;
	case _IOC_NR(RAIO_IOC_BUFFERS):
	case _IOC_NR(RAIO_IOC_FILES):
		memset(arg, 0, sizeof(*registered));
		registered->ctx = call->aio.ctx;
		break;
	case _IOC_NR(RAIO_IOC_CANCEL):
		memset(arg, 0, sizeof(*cancel));
		if (!call->waits) {
			memset(&call->io, 0, sizeof(call->io));
			call->io.aio_lio_opcode = IOCB_CMD_POLL;
			call->io.aio_fildes = call->pipe[0];
			call->io.aio_buf = POLLIN;
			ASSERT_EQ(1, aio_submit_one(&call->aio, &call->io));
			call->waits = true;
		}
		cancel->ctx = call->aio.ctx;
		cancel->iocb = (uintptr_t)&call->io;
		break;
	}
}

static long call_do(struct call *call, unsigned int dir, unsigned int size, void *arg)
{
	return raio_ioctl(call->aio.dev, _IOC(dir, RAIO_IOC_MAGIC, call->nr, size), arg);
}

/* After a call that worked. */
static void call_worked(struct __test_metadata *_metadata, struct call *call)
{
	if (call->nr == _IOC_NR(RAIO_IOC_SETUP)) {
		EXPECT_NE(0, call->made);
		EXPECT_EQ(0, raio_destroy(call->aio.dev, call->made));
	}
	if (call->nr == _IOC_NR(RAIO_IOC_DESTROY)) {
		EXPECT_EQ(-EINVAL, raio_destroy(call->aio.dev, call->made)) {
			TH_LOG("not destroyed");
		}
	}
	if (call->nr == _IOC_NR(RAIO_IOC_CANCEL)) {
		struct io_event event;

		EXPECT_EQ(1, aio_poll(&call->aio, 1, &event));
		EXPECT_EQ(-ECANCELED, event.res);
		EXPECT_EQ((uintptr_t)&call->io, event.obj);
		call->waits = false;
	}
	call->made = 0;
}

/* After one that was refused: it has done nothing. */
static void call_failed(struct __test_metadata *_metadata, struct call *call)
{
	if (call->nr == _IOC_NR(RAIO_IOC_SETUP)) {
		EXPECT_EQ(0, call->made) {
			TH_LOG("a handle was stored");
		}
	}
	if (call->nr == _IOC_NR(RAIO_IOC_DESTROY)) {
		EXPECT_EQ(0, raio_destroy(call->aio.dev, call->made)) {
			TH_LOG("destroyed all the same");
		}
	}
	if (call->nr == _IOC_NR(RAIO_IOC_CANCEL)) {
		struct io_event event;

		EXPECT_EQ(0, aio_poll(&call->aio, 1, &event)) {
			TH_LOG("cancelled all the same");
		}
	}
	call->made = 0;
}

TEST_F(call, works)
{
	struct call *call = &self->call;
	int i;

	for (i = 0; i < 3; i++) {
		call_fill(_metadata, call, call->arg);
		EXPECT_EQ(0, call_do(call, call->dir, variant->size, call->arg));
		call_worked(_metadata, call);
	}
}

TEST_F(call, longer_with_zeros_works)
{
	struct call *call = &self->call;
	const unsigned int sizes[] = {
		variant->size + 1, variant->size + 4, variant->size + 8, variant->size + 64,
		PAGE, PAGE + 1, MAX_ARG_SIZE,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		call_fill(_metadata, call, call->arg);
		EXPECT_EQ(0, call_do(call, call->dir, sizes[i], call->arg)) {
			TH_LOG("size %u", sizes[i]);
		}
		call_worked(_metadata, call);
		EXPECT_EQ(-1, filled_check(call->arg + variant->size, sizes[i] - variant->size,
					   0));
	}
}

TEST_F(call, longer_with_anything_else_is_too_big)
{
	struct call *call = &self->call;
	const unsigned int sizes[] = { variant->size + 1, variant->size + 8, PAGE, MAX_ARG_SIZE };
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		const unsigned int places[] = {
			variant->size, (variant->size + sizes[i]) / 2, sizes[i] - 1,
		};

		for (j = 0; j < ARRAY_SIZE(places); j++) {
			call_fill(_metadata, call, call->arg);
			call->arg[places[j]] = 1;
			EXPECT_EQ(-E2BIG, call_do(call, call->dir, sizes[i], call->arg)) {
				TH_LOG("size %u, byte %u", sizes[i], places[j]);
			}
			call->arg[places[j]] = 0;
			call_failed(_metadata, call);
		}
	}
}

TEST_F(call, shorter_is_invalid)
{
	struct call *call = &self->call;
	unsigned int size;

	for (size = 0; size < (variant->first ?: variant->size); size++) {
		call_fill(_metadata, call, call->arg);
		EXPECT_EQ(-EINVAL, call_do(call, call->dir, size, call->arg)) {
			TH_LOG("size %u", size);
		}
	}
	call_failed(_metadata, call);
}

/* Programs that were built with an older header. */
TEST_F(call, older_versions_work)
{
	struct call *call = &self->call;
	unsigned int size;

	for (size = variant->first ?: variant->size; size < variant->size; size += 8) {
		char *arg = map_before_hole(size);
		char *fresh = map_pages(variant->size);

		call_fill(_metadata, call, fresh);
		memcpy(arg, fresh, size);
		EXPECT_EQ(0, call_do(call, call->dir, size, arg)) {
			TH_LOG("size %u", size);
		}
		call_worked(_metadata, call);
	}
}

/* The structure is all that is read and written, to the byte. */
TEST_F(call, ends_where_the_memory_does)
{
	struct call *call = &self->call;
	char *arg = map_before_hole(variant->size);

	call_fill(_metadata, call, arg);
	EXPECT_EQ(0, call_do(call, call->dir, variant->size, arg));
	call_worked(_metadata, call);

	call_fill(_metadata, call, arg);
	EXPECT_EQ(-EFAULT, call_do(call, call->dir, variant->size + 8, arg));
	call_failed(_metadata, call);
}

TEST_F(call, begins_before_the_memory_ends)
{
	struct call *call = &self->call;
	char *arg = map_before_hole(variant->size - 8);

	EXPECT_EQ(-EFAULT, call_do(call, call->dir, variant->size, arg));
}

/* On any byte: user space may have packed it into something. */
TEST_F(call, need_not_be_aligned)
{
	struct call *call = &self->call;

	call_fill(_metadata, call, call->arg);
	memmove(call->arg + 1, call->arg, variant->size);
	EXPECT_EQ(0, call_do(call, call->dir, variant->size, call->arg + 1));
	call_worked(_metadata, call);
}

TEST_F(call, bad_addresses)
{
	struct call *call = &self->call;
	unsigned int i;

	for (i = 0; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(-EFAULT, call_do(call, call->dir, variant->size, bad_ptr(i))) {
			TH_LOG("address %p", bad_ptr(i));
		}
	}
}

TEST_F(call, read_only_memory)
{
	struct call *call = &self->call;
	void *arg;

	call_fill(_metadata, call, call->arg);
	arg = map_read_only(call->arg, variant->size);
	if (variant->dir & _IOC_READ) {
		EXPECT_EQ(-EFAULT, call_do(call, call->dir, variant->size, arg));
		/* If set-up left a handle, there is no context behind it. */
		if (call->made) {
			EXPECT_EQ(-EINVAL, raio_destroy(call->aio.dev, call->made)) {
				TH_LOG("the context is still there");
			}
		}
	} else {
		EXPECT_EQ(0, call_do(call, call->dir, variant->size, arg));
		call_worked(_metadata, call);
	}
}

TEST_F(call, memory_without_access)
{
	struct call *call = &self->call;
	char *arg = map_pages(PAGE);

	mprotect(arg, PAGE, PROT_NONE);
	EXPECT_EQ(-EFAULT, call_do(call, call->dir, variant->size, arg));
}

TEST_F(call, unknown_flags_and_reserved_fields)
{
	struct call *call = &self->call;
	const int *offset;
	unsigned int bit;

	for (offset = variant->flags; *offset >= 0; offset++) {
		for (bit = 0; bit < 32; bit++) {
			uint32_t word = 1U << bit;

			call_fill(_metadata, call, call->arg);
			memcpy(call->arg + *offset, &word, sizeof(word));
			EXPECT_EQ(-EINVAL, call_do(call, call->dir, variant->size, call->arg)) {
				TH_LOG("bit %u at offset %d", bit, *offset);
			}
		}
	}
	call_failed(_metadata, call);
}

TEST_F(call, wrong_direction)
{
	struct call *call = &self->call;
	unsigned int dir;

	for (dir = 0; dir <= (_IOC_READ | _IOC_WRITE); dir++) {
		if (dir == variant->dir)
			continue;
		call_fill(_metadata, call, call->arg);
		EXPECT_EQ(-ENOTTY, call_do(call, dir, variant->size, call->arg)) {
			TH_LOG("direction %u", dir);
		}
	}
	call_failed(_metadata, call);
}

TEST_F(call, wrong_magic)
{
	struct call *call = &self->call;
	const unsigned int magic[] = { 0, 'T', RAIO_IOC_MAGIC - 1, RAIO_IOC_MAGIC + 1, 0xff };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(magic); i++) {
		call_fill(_metadata, call, call->arg);
		EXPECT_EQ(-ENOTTY, raio_ioctl(call->aio.dev,
					      _IOC(variant->dir, magic[i], variant->nr,
						   variant->size), call->arg)) {
			TH_LOG("magic %#x", magic[i]);
		}
	}
	call_failed(_metadata, call);
}

FIXTURE(device)
{
	struct aio aio;
};

FIXTURE_SETUP(device)
{
	aio_open(_metadata, &self->aio, &raio);
}

FIXTURE_TEARDOWN(device)
{
	aio_end(_metadata, &self->aio);
}

/* Unknown numbers are unknown whatever else is wrong with them. */
TEST_F(device, unknown_numbers)
{
	const unsigned int sizes[] = { 0, 8, 64, MAX_ARG_SIZE };
	unsigned int nr, dir, i;

	for (nr = FIRST_FREE_NR; nr <= 0xff; nr++) {
		for (i = 0; i < 4 * ARRAY_SIZE(sizes); i++) {
			dir = i % 4;
			EXPECT_EQ(-ENOTTY, raio_ioctl(self->aio.dev,
						      _IOC(dir, RAIO_IOC_MAGIC, nr, sizes[i / 4]),
						      NULL)) {
				TH_LOG("number %#x, direction %u, size %u", nr, dir, sizes[i / 4]);
			}
		}
	}
}

TEST_F(device, has_no_stream)
{
	char buf[16] = "";

	EXPECT_EQ(-EINVAL, ret_errno(read(self->aio.dev, buf, sizeof(buf))));
	EXPECT_EQ(-EINVAL, ret_errno(write(self->aio.dev, buf, sizeof(buf))));
}

TEST_F(device, is_a_character_device)
{
	struct stat st;

	ASSERT_EQ(0, stat(RAIO_DEV, &st));
	EXPECT_TRUE(S_ISCHR(st.st_mode));
}

/* Many descriptors, none with a context. */
TEST_F(device, opens_often)
{
	int devs[64];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(devs); i++) {
		devs[i] = raio_open();
		ASSERT_LE(0, devs[i]);
	}
	for (i = 0; i < ARRAY_SIZE(devs); i++) {
		EXPECT_EQ(0, close(devs[i])) {
			TH_LOG("descriptor %u", i);
		}
	}
}

/* Each counter moves by what was done, and no other does. */
FIXTURE(stats)
{
	struct aio aio;
	struct raio_stats before;
	int zero;
};

FIXTURE_SETUP(stats)
{
	aio_begin(_metadata, &self->aio, &raio, 64);
	self->zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->zero);
	ASSERT_EQ(0, raio_stats(self->aio.dev, &self->before));
}

FIXTURE_TEARDOWN(stats)
{
	aio_end(_metadata, &self->aio);
}

#define EXPECT_COUNTED(_field, _n) do {					\
	struct raio_stats __now;					\
									\
	EXPECT_EQ(0, raio_stats(self->aio.dev, &__now));		\
	EXPECT_EQ((uint64_t)(_n), __now._field - self->before._field) {	\
		TH_LOG(#_field);					\
	}								\
} while (0)

TEST_F(stats, reserved_are_zero)
{
	EXPECT_EQ(0, self->before.flags);
	EXPECT_EQ(0, self->before.resv);
	EXPECT_LE(self->before.frees, self->before.setups);
	EXPECT_LE(self->before.queued, self->before.submitted);
	EXPECT_LE(self->before.completed, self->before.submitted);
	EXPECT_LE(self->before.reaped, self->before.completed);
}

TEST_F(stats, setups_and_frees)
{
	aio_context_t ctx[10] = { };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ctx); i++) {
		ASSERT_EQ(0, raio_setup(self->aio.dev, 4, &ctx[i])) {
			TH_LOG("context %u", i);
		}
	}
	EXPECT_COUNTED(setups, ARRAY_SIZE(ctx));
	EXPECT_COUNTED(frees, 0);
	for (i = 0; i < ARRAY_SIZE(ctx); i++) {
		EXPECT_EQ(0, raio_destroy(self->aio.dev, ctx[i])) {
			TH_LOG("context %u", i);
		}
	}
	EXPECT_TRUE(wait_for(raio_live() == self->aio.live + 1));
	EXPECT_COUNTED(frees, ARRAY_SIZE(ctx));
	EXPECT_COUNTED(setups, ARRAY_SIZE(ctx));
	EXPECT_COUNTED(submitted, 0);
}

TEST_F(stats, refused_setup_is_none)
{
	aio_context_t ctx = 0;

	EXPECT_EQ(-EINVAL, raio_setup(self->aio.dev, 0, &ctx));
	EXPECT_EQ(-EFAULT, raio_setup(self->aio.dev, 1, NULL));
	EXPECT_COUNTED(setups, 0);
	EXPECT_COUNTED(frees, 0);
}

TEST_F(stats, requests)
{
	struct iocb io[8], *iop[8];
	struct io_event ev[8];
	char buf[8][64];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(io); i++) {
		iocb_prep(&io[i], IOCB_CMD_PREAD, self->zero, buf[i], sizeof(buf[i]), 0);
		iop[i] = &io[i];
	}
	ASSERT_EQ(8, aio_submit(&self->aio, 8, iop));
	EXPECT_COUNTED(submitted, 8);
	EXPECT_COUNTED(completed, 8);
	/* /dev/zero is done when its method returns. */
	EXPECT_COUNTED(queued, 0);
	EXPECT_COUNTED(reaped, 0);
	EXPECT_COUNTED(refused, 0);

	ASSERT_EQ(3, aio_poll(&self->aio, 3, ev));
	EXPECT_COUNTED(reaped, 3);
	ASSERT_EQ(5, ring_reap(self->aio.ctx, 8, ev));
	EXPECT_COUNTED(reaped, 3);
	EXPECT_COUNTED(completed, 8);
}

TEST_F(stats, refused_requests)
{
	struct iocb good, bad, *iop[2] = { &good, &bad };
	struct io_event ev;
	char buf[64];

	iocb_prep(&good, IOCB_CMD_PREAD, self->zero, buf, sizeof(buf), 0);
	iocb_prep(&bad, IOCB_CMD_PREAD, -1, buf, sizeof(buf), 0);
	EXPECT_EQ(-EBADF, aio_submit_one(&self->aio, &bad));
	EXPECT_COUNTED(refused, 1);
	EXPECT_COUNTED(submitted, 0);
	EXPECT_EQ(1, aio_submit(&self->aio, 2, iop));
	EXPECT_COUNTED(refused, 2);
	EXPECT_COUNTED(submitted, 1);
	EXPECT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_COUNTED(completed, 1);
	EXPECT_COUNTED(reaped, 1);
}

TEST_HARNESS_MAIN
