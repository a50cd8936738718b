// SPDX-License-Identifier: GPL-2.0
/*
 * Making contexts: the errors of io_setup(2), what is in the ring, many
 * contexts at once, and that a set-up that fails leaves nothing behind. What
 * can be done to the ring's mapping is in mapping.c.
 */
#include <sys/resource.h>

#include "raio_maps.h"

#define MANY	1000
/* Kernel AIO is only the reference, and slow to destroy them. */
#define MANY_KERNEL	200

FIXTURE(setup)
{
	struct aio aio;
};

FIXTURE_VARIANT(setup)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(setup, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(setup, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(setup)
{
	aio_open(_metadata, &self->aio, variant->ops);
}

FIXTURE_TEARDOWN(setup)
{
	aio_end(_metadata, &self->aio);
}

TEST_F(setup, bad_ctxp)
{
	unsigned int i;

	for (i = 0; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(-EFAULT, aio_setup(&self->aio, 1, bad_ptr(i))) {
			TH_LOG("address %p", bad_ptr(i));
		}
	}
}

/* Half of the word is there, half is not. */
TEST_F(setup, ctxp_over_the_end)
{
	char *p = map_before_hole(sizeof(aio_context_t) / 2);

	EXPECT_EQ(-EFAULT, aio_setup(&self->aio, 1, (aio_context_t *)p));
}

/* It can be read, so the error comes when the context has been made. */
TEST_F(setup, read_only_ctxp)
{
	aio_context_t zero = 0;
	aio_context_t *ctxp = map_read_only(&zero, sizeof(zero));
	unsigned int i;

	for (i = 0; i < 10; i++) {
		EXPECT_EQ(-EFAULT, aio_setup(&self->aio, 1, ctxp)) {
			TH_LOG("time %u", i);
		}
	}
}

TEST_F(setup, ctx_not_zero)
{
	const aio_context_t values[] = {
		1, -1UL, 1UL << __BITS_PER_LONG / 2, 1UL << (__BITS_PER_LONG - 1),
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		aio_context_t ctx = values[i];

		EXPECT_EQ(-EINVAL, aio_setup(&self->aio, 1, &ctx));
		EXPECT_EQ(values[i], ctx);
	}
}

/* A handle in use is not overwritten either. */
TEST_F(setup, ctx_of_a_context)
{
	aio_context_t ctx;

	ASSERT_EQ(0, aio_setup(&self->aio, 1, &self->aio.ctx));
	ctx = self->aio.ctx;
	EXPECT_EQ(-EINVAL, aio_setup(&self->aio, 1, &ctx));
	EXPECT_EQ(self->aio.ctx, ctx);
}

TEST_F(setup, no_events)
{
	aio_context_t ctx = 0;

	EXPECT_EQ(-EINVAL, aio_setup(&self->aio, 0, &ctx));
	EXPECT_EQ(0, ctx);
}

/* The address is looked at first. */
TEST_F(setup, no_events_at_no_address)
{
	EXPECT_EQ(-EFAULT, aio_setup(&self->aio, 0, NULL));
}

TEST_F(setup, too_many_events)
{
	const unsigned int nr[] = { UINT_MAX, UINT_MAX - 1, INT_MAX, 0x10000000 };
	aio_context_t ctx = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(nr); i++) {
		EXPECT_EQ(-EINVAL, aio_setup(&self->aio, nr[i], &ctx)) {
			TH_LOG("%u events", nr[i]);
		}
		EXPECT_EQ(0, ctx);
	}
	/*
	 * raio differs: kernel AIO doubles the number, gets 0, and says
	 * EAGAIN for what is as much too large as its neighbours.
	 */
	EXPECT_EQ(variant->ops->is_raio ? -EINVAL : -EAGAIN,
		  aio_setup(&self->aio, 0x80000000, &ctx));
}

TEST_F(setup, sizes)
{
	const unsigned int nr[] = { 1, 2, 63, 64, 125, 126, 127, 128, 129, 1000, 4096, 16384 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(nr); i++) {
		aio_context_t ctx = 0;
		struct raio_ring *ring;

		ASSERT_EQ(0, aio_setup(&self->aio, nr[i], &ctx)) {
			TH_LOG("%u events", nr[i]);
		}
		ring = aio_ring(ctx);
		/* One slot stays free, or head == tail would mean full, too. */
		EXPECT_LE(nr[i] + 1, ring->nr);
		/* All of the slots are mapped. */
		EXPECT_EQ(-1, filled_check(ring->events, ring->nr * sizeof(ring->events[0]), 0));
		EXPECT_EQ(0, aio_destroy(&self->aio, ctx));
	}
}

TEST_F(setup, ring_header)
{
	struct raio_ring *ring;

	ASSERT_EQ(0, aio_setup(&self->aio, 10, &self->aio.ctx));
	EXPECT_EQ(0, self->aio.ctx % PAGE);
	ring = aio_ring(self->aio.ctx);
	EXPECT_EQ(RAIO_RING_MAGIC, ring->magic);
	EXPECT_EQ(RAIO_RING_COMPAT_FEATURES, ring->compat_features);
	EXPECT_EQ(RAIO_RING_INCOMPAT_FEATURES, ring->incompat_features);
	EXPECT_EQ(32, ring->header_length);
	EXPECT_EQ(0, ring->head);
	EXPECT_EQ(0, ring->tail);
	EXPECT_LE(11, ring->nr);
	EXPECT_EQ(0, (sizeof(*ring) + ring->nr * sizeof(ring->events[0])) / PAGE / 64);
}

#define DESTROYERS	50

struct destroyer {
	struct aio *aio;
	aio_context_t *ctx;
	unsigned int nr;
	unsigned int errors;
};

static void *destroy_some(void *data)
{
	struct destroyer *d = data;
	unsigned int i;

	for (i = 0; i < d->nr; i++)
		d->errors += !!aio_destroy(d->aio, d->ctx[i]);
	return NULL;
}

/* By many threads: a destroy waits, most of the time for RCU. */
static unsigned int destroy_all(struct aio *aio, aio_context_t *ctx, unsigned int nr)
{
	struct destroyer d[DESTROYERS];
	pthread_t thread[DESTROYERS];
	unsigned int i, errors = 0;

	for (i = 0; i < DESTROYERS; i++) {
		unsigned int from = nr * i / DESTROYERS;
		unsigned int to = nr * (i + 1) / DESTROYERS;

		d[i] = (struct destroyer){ .aio = aio, .ctx = ctx + from, .nr = to - from };
		if (pthread_create(&thread[i], NULL, destroy_some, &d[i]))
			ksft_exit_fail_msg("no thread\n");
	}
	for (i = 0; i < DESTROYERS; i++) {
		pthread_join(thread[i], NULL);
		errors += d[i].errors;
	}
	return errors;
}

static void shuffle(aio_context_t *ctx, unsigned int nr, uint64_t *state)
{
	while (nr > 1) {
		unsigned int i = next_random(state) % nr--;
		aio_context_t tmp = ctx[i];

		ctx[i] = ctx[nr];
		ctx[nr] = tmp;
	}
}

static int compare_ctx(const void *a, const void *b)
{
	const aio_context_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

TEST_F(setup, many)
{
	static aio_context_t ctx[MANY];
	static bool taken[4 * MANY];
	const unsigned int many = variant->ops->is_raio ? MANY : MANY_KERNEL;
	unsigned int i, id, max = 0;
	uint64_t state = 1;

	for (i = 0; i < many; i++) {
		ASSERT_EQ(0, aio_setup(&self->aio, 1, &ctx[i])) {
			TH_LOG("after %u contexts", i);
		}
		id = aio_ring(ctx[i])->id;
		ASSERT_GT(ARRAY_SIZE(taken), id);
		EXPECT_FALSE(taken[id]) {
			TH_LOG("id %u given twice", id);
		}
		taken[id] = true;
		max = id > max ? id : max;
	}
	if (variant->ops->is_raio) {
		EXPECT_EQ(self->aio.live + many, raio_live()) {
			TH_LOG("the module has another number");
		}
	}

	qsort(ctx, many, sizeof(ctx[0]), compare_ctx);
	for (i = 1; i < many; i++) {
		EXPECT_NE(ctx[i - 1], ctx[i]) {
			TH_LOG("two contexts with one handle");
		}
	}

	/* Some of them again, so that ids are reused. */
	shuffle(ctx, many, &state);
	EXPECT_EQ(0, destroy_all(&self->aio, ctx, many / 10));
	memset(ctx, 0, many / 10 * sizeof(ctx[0]));
	for (i = 0; i < many / 10; i++) {
		ASSERT_EQ(0, aio_setup(&self->aio, 1, &ctx[i])) {
			TH_LOG("context %u", i);
		}
		EXPECT_GE(max, aio_ring(ctx[i])->id) {
			TH_LOG("a new id though %u were free", many / 10 - i);
		}
	}

	shuffle(ctx, many, &state);
	EXPECT_EQ(0, destroy_all(&self->aio, ctx, many));
}

/* The one that has been given up last is the one that is used next. */
TEST_F(setup, id_is_reused)
{
	aio_context_t ctx[3] = { };
	unsigned int i, id;

	for (i = 0; i < ARRAY_SIZE(ctx); i++) {
		ASSERT_EQ(0, aio_setup(&self->aio, 1, &ctx[i])) {
			TH_LOG("context %u", i);
		}
	}
	id = aio_ring(ctx[1])->id;
	for (i = 0; i < 20; i++) {
		EXPECT_EQ(0, aio_destroy(&self->aio, ctx[1]));
		ctx[1] = 0;
		ASSERT_EQ(0, aio_setup(&self->aio, 1, &ctx[1]));
		EXPECT_EQ(id, aio_ring(ctx[1])->id);
	}
	for (i = 0; i < ARRAY_SIZE(ctx); i++) {
		EXPECT_EQ(0, aio_destroy(&self->aio, ctx[i])) {
			TH_LOG("context %u", i);
		}
	}
}

/*
 * No address space for the ring. With too little for even a small one all
 * that the set-up has made before has to go again.
 */
TEST_F(setup, no_room_for_the_ring)
{
	struct rlimit none = { .rlim_cur = PAGE, .rlim_max = RLIM_INFINITY };
	struct rlimit old;
	aio_context_t ctx = 0;
	long ret[10];
	unsigned int i;

	ASSERT_EQ(0, getrlimit(RLIMIT_AS, &old));
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &none));
	for (i = 0; i < ARRAY_SIZE(ret); i++)
		ret[i] = aio_setup(&self->aio, 1, &ctx);
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &old));
	for (i = 0; i < ARRAY_SIZE(ret); i++) {
		EXPECT_EQ(-ENOMEM, ret[i]) {
			TH_LOG("time %u", i);
		}
	}
	EXPECT_EQ(0, ctx);
}

struct racer {
	struct aio *aio;
	unsigned int rounds;
	unsigned int errors;
};

static void *setup_and_destroy(void *data)
{
	struct racer *r = data;
	unsigned int i;

	for (i = 0; i < r->rounds; i++) {
		aio_context_t ctx[3] = { };
		unsigned int n;

		for (n = 0; n < ARRAY_SIZE(ctx); n++)
			r->errors += !!aio_setup(r->aio, 4, &ctx[n]);
		for (n = 0; n < ARRAY_SIZE(ctx); n++)
			r->errors += !!aio_destroy(r->aio, ctx[n]);
	}
	return NULL;
}

TEST_F(setup, from_many_threads)
{
	struct racer racer[4];
	pthread_t thread[ARRAY_SIZE(racer)];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(racer); i++) {
		racer[i] = (struct racer){ .aio = &self->aio, .rounds = 8 };
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, setup_and_destroy, &racer[i]));
	}
	for (i = 0; i < ARRAY_SIZE(racer); i++) {
		pthread_join(thread[i], NULL);
		EXPECT_EQ(0, racer[i].errors);
	}
}

/* What only raio's structure has. */
FIXTURE(raio_setup)
{
	struct aio aio;
	struct raio_query query;
};

FIXTURE_SETUP(raio_setup)
{
	aio_open(_metadata, &self->aio, &raio);
	memset(&self->query, 0, sizeof(self->query));
	ASSERT_EQ(0, raio_ioctl(self->aio.dev, RAIO_IOC_QUERY, &self->query));
}

FIXTURE_TEARDOWN(raio_setup)
{
	aio_end(_metadata, &self->aio);
}

TEST_F(raio_setup, results)
{
	struct raio_setup arg = { .nr_events = 100, .ctxp = (uintptr_t)&self->aio.ctx };
	struct raio_ring *ring;
	struct vm vm;

	ASSERT_EQ(0, raio_ioctl(self->aio.dev, RAIO_IOC_SETUP, &arg));
	ring = aio_ring(self->aio.ctx);
	EXPECT_EQ(self->aio.ctx, arg.ctx);
	EXPECT_EQ(ring->nr, arg.ring_nr);
	EXPECT_EQ(ring->id, arg.id);
	EXPECT_EQ(100, arg.nr_events);
	EXPECT_EQ(0, arg.flags);
	EXPECT_EQ((uintptr_t)&self->aio.ctx, arg.ctxp);
	ASSERT_TRUE(vm_at(self->aio.ctx, &vm));
	EXPECT_EQ(vm.end - self->aio.ctx, arg.ring_size);
}

TEST_F(raio_setup, most_events)
{
	const unsigned int most = self->query.max_events;
	aio_context_t ctx = 0;

	EXPECT_EQ(-EINVAL, raio_setup(self->aio.dev, most + 1, &ctx));
	EXPECT_EQ(0, ctx);
	/* Do not take all the memory of a small machine. */
	if (most <= 65536) {
		EXPECT_EQ(0, raio_setup(self->aio.dev, most, &self->aio.ctx)) {
			TH_LOG("%u events", most);
		}
	}
}

/* The context is complete when its result can't be told. */
TEST_F(raio_setup, unwritable_result)
{
	aio_context_t ctx = 0;
	struct raio_setup arg = { .nr_events = 1, .ctxp = (uintptr_t)&ctx };
	struct raio_setup *ro = map_read_only(&arg, sizeof(arg));
	struct raio_stats before, after;
	unsigned int i;

	ASSERT_EQ(0, raio_stats(self->aio.dev, &before));
	for (i = 0; i < 20; i++) {
		ctx = 0;
		EXPECT_EQ(-EFAULT, raio_ioctl(self->aio.dev, RAIO_IOC_SETUP, ro));
		/* If it was stored, there is nothing behind it any more. */
		if (ctx) {
			EXPECT_EQ(-EINVAL, raio_destroy(self->aio.dev, ctx)) {
				TH_LOG("time %u", i);
			}
		}
	}
	EXPECT_TRUE(wait_for(raio_live() == self->aio.live));
	ASSERT_EQ(0, raio_stats(self->aio.dev, &after));
	EXPECT_EQ(after.setups - before.setups, after.frees - before.frees);
}

TEST_F(raio_setup, unwritable_ctxp)
{
	aio_context_t zero = 0;
	struct raio_setup arg = {
		.nr_events = 1,
		.ctxp = (uintptr_t)map_read_only(&zero, sizeof(zero)),
	};

	EXPECT_EQ(-EFAULT, raio_ioctl(self->aio.dev, RAIO_IOC_SETUP, &arg));
	EXPECT_TRUE(wait_for(raio_live() == self->aio.live));
}

/* No ring stays mapped after a set-up that failed. */
TEST_F(raio_setup, failed_leaves_no_mapping)
{
	aio_context_t ctx = 0;
	struct raio_setup arg = { .nr_events = 1, .ctxp = (uintptr_t)&ctx };
	struct raio_setup *ro = map_read_only(&arg, sizeof(arg));
	unsigned int before = vm_count("");

	EXPECT_EQ(-EFAULT, raio_ioctl(self->aio.dev, RAIO_IOC_SETUP, ro));
	EXPECT_EQ(before, vm_count(""));
}

/* A field that says nothing yet must be 0, as ctxp must on entry. */
TEST_F(raio_setup, ctxp_in_the_structure_itself)
{
	struct raio_setup arg = { .nr_events = 1 };

	/* Allowed, if odd: both hold the handle afterwards. */
	arg.ctxp = (uintptr_t)&arg.ctx;
	ASSERT_EQ(0, raio_ioctl(self->aio.dev, RAIO_IOC_SETUP, &arg));
	EXPECT_NE(0, arg.ctx);
	self->aio.ctx = arg.ctx;
}

TEST_F(raio_setup, ids_are_per_file)
{
	aio_context_t ctx[2] = { };
	int other = raio_open();

	ASSERT_LE(0, other);
	ASSERT_EQ(0, raio_setup(self->aio.dev, 1, &ctx[0]));
	ASSERT_EQ(0, raio_setup(other, 1, &ctx[1]));
	EXPECT_EQ(0, aio_ring(ctx[0])->id);
	EXPECT_EQ(0, aio_ring(ctx[1])->id);
	EXPECT_NE(ctx[0], ctx[1]);
	EXPECT_EQ(0, raio_destroy(self->aio.dev, ctx[0]));
	EXPECT_EQ(0, raio_destroy(other, ctx[1]));
	close(other);
}

TEST_HARNESS_MAIN
