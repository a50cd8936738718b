// SPDX-License-Identifier: GPL-2.0
/*
 * What a program can do to the mapping of its ring: rights, mremap(2), unmapping
 * parts, mapping over it, madvise(2), children, I/O into the ring itself. Each
 * is an error or harmless: no event is lost that can still be seen, another
 * context goes on working, and nothing is left.
 */
#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "raio_maps.h"
#include "raio_post.h"
#include "raio_task.h"
#include "raio_testdev.h"

/* Younger than Debian 12's headers. */
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#define MADV_GUARD_REMOVE	103
#endif

/* Some pages, of raio's ring three. */
#define EVENTS		300
#define HELD		4
#define SEED		41

FIXTURE(mapping)
{
	struct aio aio;
	struct aio other;
	unsigned long size;
	char *ring;
	char *buf;
	char *late;
	int zero;
	int fd;
};

FIXTURE_VARIANT(mapping)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(mapping, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(mapping, raio)
{
	.ops = &raio,
};

FIXTURE_SETUP(mapping)
{
	struct vm vm;

	testdev_begin();
	self->fd = testdev_open("c0", 0);
	self->zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->zero);
	self->buf = map_pages(PAGE);
	self->late = map_pages(HELD * PAGE);
	pattern_fill(self->late, HELD * PAGE, 0, SEED);
	ASSERT_EQ(HELD * PAGE, pwrite(self->fd, self->late, HELD * PAGE, 0));
	memset(self->late, 0, HELD * PAGE);
	testdev_cmd("c0 mode hang");
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
	ASSERT_TRUE(vm_at(self->aio.ctx, &vm));
	self->size = vm.end - self->aio.ctx;
	ASSERT_LE(3 * PAGE, self->size);
	self->ring = (char *)self->aio.ctx;
	self->other = self->aio;
	self->other.ctx = 0;
	ASSERT_EQ(0, aio_setup(&self->other, 1, &self->other.ctx));
}

/* A test after which there is no handle any more has set it to 0. */
FIXTURE_TEARDOWN(mapping)
{
	testdev_reset();
	if (self->other.ctx) {
		expect_works(_metadata, &self->other, self->zero, self->buf);
		EXPECT_EQ(0, aio_destroy(&self->other, self->other.ctx));
	}
	close(self->fd);
	aio_end(_metadata, &self->aio);
	EXPECT_EQ(0, vm_count(ring_name(variant->ops)));
}

/* Reads that c0 holds, into the pages of @buf. */
static void hold(struct __test_metadata *_metadata, struct aio *aio, int fd, char *buf,
		 struct iocb *io)
{
	struct iocb *iop[HELD];
	unsigned int i;

	for (i = 0; i < HELD; i++) {
		iocb_prep(&io[i], IOCB_CMD_PREAD, fd, buf + i * PAGE, PAGE, i * PAGE);
		iop[i] = &io[i];
	}
	ASSERT_EQ(HELD, aio_submit(aio, HELD, iop));
}

static void expect_held(struct __test_metadata *_metadata, struct aio *aio, struct iocb *io)
{
	struct io_event ev[HELD];
	unsigned int i;

	ASSERT_EQ(HELD, aio_wait(aio, HELD, ev));
	for (i = 0; i < HELD; i++)
		EXPECT_EVENT(&ev[i], &io[i], PAGE);
}

/* To give a context up whose ring can't be reached, or is in parts. */
static void drop(struct __test_metadata *_metadata, struct aio *aio, char *ring, unsigned long size)
{
	EXPECT_EQ(0, munmap(ring, size));
	aio->ctx = 0;
	/*
	 * raio differs: its contexts end with their rings, kernel AIO's with
	 * their process.
	 */
	if (aio->ops->is_raio)
		EXPECT_TRUE(wait_for(raio_live() == aio->live + 1));
}

/* Nothing can be done by that handle. */
static void expect_no_handle(struct __test_metadata *_metadata, struct aio *aio, void *handle)
{
	aio_context_t ctx = aio->ctx;
	struct io_event ev;
	struct iocb *iop[1] = { NULL };

	aio->ctx = (aio_context_t)handle;
	EXPECT_EQ(-EINVAL, aio_poll(aio, 1, &ev));
	EXPECT_EQ(-EINVAL, aio_submit(aio, 1, iop));
	EXPECT_EQ(-EINVAL, aio_destroy(aio, aio->ctx));
	aio->ctx = ctx;
}

static long move(void *from, unsigned long size, void *to)
{
	return ret_errno(syscall(__NR_mremap, from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) ==
			 (long)to ? 0 : -1);
}

/* Rights. */

TEST_F(mapping, flags)
{
	struct raio_ring *ring = aio_ring(self->aio.ctx);
	struct vm vm;

	ASSERT_TRUE(vm_at(self->aio.ctx, &vm));
	EXPECT_STREQ("rw-s", vm.perms);
	EXPECT_NE(NULL, strstr(vm.flags, " dc "));
	EXPECT_NE(NULL, strstr(vm.flags, " de "));
	EXPECT_EQ(NULL, strstr(vm.flags, " ex "));
	EXPECT_EQ(NULL, strstr(vm.flags, " me ")) {
		TH_LOG("may be made executable: %s", vm.flags);
	}
	EXPECT_LE((unsigned long)&ring->events[ring->nr], vm.end);
}

TEST_F(mapping, never_executable)
{
	const int prots[] = { PROT_EXEC, PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE | PROT_EXEC };
	unsigned int i;
	struct vm vm;

	for (i = 0; i < ARRAY_SIZE(prots); i++) {
		EXPECT_EQ(-EACCES, ret_errno(mprotect(self->ring, self->size, prots[i])));
		EXPECT_EQ(-EACCES, ret_errno(mprotect(self->ring, PAGE, prots[i])));
		EXPECT_EQ(-EACCES, ret_errno(mprotect(self->ring + PAGE, PAGE, prots[i])));
	}
	ASSERT_TRUE(vm_at(self->aio.ctx, &vm));
	EXPECT_STREQ("rw-s", vm.perms);
	EXPECT_EQ(self->aio.ctx + self->size, vm.end);
}

/* Nor for a process that wants all it can read to be executable. */
TEST_F(mapping, not_executable_for_old_programs)
{
	aio_context_t ctx = 0;
	struct vm vm;

	ASSERT_LE(0, personality(READ_IMPLIES_EXEC));
	ASSERT_EQ(0, aio_setup(&self->aio, 1, &ctx));
	ASSERT_TRUE(vm_at(ctx, &vm));
	EXPECT_STREQ("rw-s", vm.perms);
	EXPECT_EQ(NULL, strstr(vm.flags, " ex "));
	EXPECT_EQ(0, mprotect((void *)ctx, PAGE, PROT_READ));
	ASSERT_TRUE(vm_at(ctx, &vm));
	EXPECT_EQ('-', vm.perms[2]);
	EXPECT_EQ(0, aio_destroy(&self->aio, ctx));
}

/* The kernel writes through a mapping of its own. */
TEST_F(mapping, events_come_whatever_the_rights)
{
	const struct {
		unsigned int page, pages;
		int prot;
	} parts[] = {
		{ 0, 0, PROT_NONE }, { 0, 0, PROT_READ }, { 0, 1, PROT_NONE }, { 0, 1, PROT_READ },
		{ 1, 1, PROT_NONE }, { 1, 1, PROT_READ }, { 2, 1, PROT_NONE }, { 2, 1, PROT_WRITE },
	};
	struct iocb io[HELD];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		size_t len = parts[i].pages ? parts[i].pages * PAGE : self->size;

		hold(_metadata, &self->aio, self->fd, self->late, io);
		ASSERT_EQ(0, mprotect(self->ring + parts[i].page * PAGE, len, parts[i].prot));
		testdev_cmd("c0 complete all");
		/* The id is read where the handle says. */
		if (!parts[i].page && parts[i].prot == PROT_NONE)
			expect_no_handle(_metadata, &self->aio, self->ring);
		else
			expect_works(_metadata, &self->other, self->zero, self->buf);
		ASSERT_EQ(0, mprotect(self->ring, self->size, PROT_READ | PROT_WRITE));
		expect_held(_metadata, &self->aio, io);
	}
	EXPECT_EQ(-1, pattern_check(self->late, HELD * PAGE, 0, SEED));
}

/* mremap(2). */

TEST_F(mapping, does_not_grow)
{
	EXPECT_EQ(MAP_FAILED, mremap(self->ring, self->size, self->size + PAGE, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(MAP_FAILED, mremap(self->ring, self->size, self->size + PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	expect_works(_metadata, &self->aio, self->zero, self->buf);
}

/* Neither is there a second mapping: by an old size of 0, or with the first left there. */
TEST_F(mapping, is_not_mapped_twice)
{
	void *to = map_pages(self->size);

	EXPECT_EQ(MAP_FAILED, mremap(self->ring, 0, self->size, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(MAP_FAILED, mremap(self->ring, 0, self->size, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(MAP_FAILED, mremap(self->ring, self->size, self->size,
				     MREMAP_MAYMOVE | MREMAP_DONTUNMAP));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(MAP_FAILED, mremap(self->ring, self->size, self->size,
				     MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(2, vm_count(ring_name(variant->ops)));
	expect_works(_metadata, &self->aio, self->zero, self->buf);
}

/* The handle is the ring's address, also when that has been changed. */
TEST_F(mapping, moves)
{
	char *to = map_pages(2 * self->size);
	struct iocb io[8], late[HELD];
	struct io_event ev[8];

	/* Over memory of several kinds; with events there and on their way. */
	ASSERT_EQ(to + PAGE, mmap(to + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, self->zero, 0));
	ASSERT_EQ(0, munmap(to + 2 * PAGE, PAGE));
	post_to(_metadata, &self->aio, self->zero, self->buf, io, 8, 0);
	hold(_metadata, &self->aio, self->fd, self->late, late);
	ASSERT_EQ(0, move(self->ring, self->size, to));

	/* Where it was there is no handle, even with the same id there. */
	expect_no_handle(_metadata, &self->aio, self->ring);
	ASSERT_EQ(self->ring, mmap(self->ring, PAGE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	memcpy(self->ring, to, PAGE);
	expect_no_handle(_metadata, &self->aio, self->ring);
	memset(self->ring, 0xa5, PAGE);

	self->aio.ctx = (aio_context_t)to;
	EXPECT_EQ(RAIO_RING_MAGIC, aio_ring(self->aio.ctx)->magic);
	EXPECT_EQ(5, aio_poll(&self->aio, 5, ev));
	EXPECT_EQ(3, ring_reap(self->aio.ctx, 8, ev + 5));
	expect_posted(_metadata, ev, io, 8, 0);
	testdev_cmd("c0 complete all");
	expect_held(_metadata, &self->aio, late);
	expect_works(_metadata, &self->aio, self->zero, self->buf);

	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	self->aio.ctx = 0;
	/* It is unmapped where it was last, and only there. */
	EXPECT_EQ(-ENOMEM, ret_errno(msync(to, PAGE, MS_ASYNC)));
	EXPECT_EQ(-1, filled_check(self->ring, PAGE, 0xa5));
	EXPECT_EQ(-1, filled_check(to + self->size, self->size, 0));
}

/* Who sleeps goes on doing so, and is woken by what comes after. */
TEST_F(mapping, moves_below_a_sleeper)
{
	struct call call = { .kind = GETEVENTS, .aio = self->aio, .nr = HELD };
	char *to = map_pages(self->size);
	struct iocb io[HELD];
	unsigned int i;

	hold(_metadata, &self->aio, self->fd, self->late, io);
	call_start(_metadata, &call);
	EXPECT_SLEEPS(&call);
	ASSERT_EQ(0, move(self->ring, self->size, to));
	self->aio.ctx = (aio_context_t)to;
	testdev_cmd("c0 complete all");
	EXPECT_RETURNS(HELD, &call);
	for (i = 0; i < HELD; i++)
		EXPECT_EVENT(&call.ev[i], &io[i], PAGE);
}

/* The other one loses its ring. */
TEST_F(mapping, moves_over_another_ring)
{
	char *to = map_pages(self->size);
	aio_context_t victim;

	ASSERT_EQ(0, move((void *)self->other.ctx, PAGE, to));
	victim = (aio_context_t)to;
	self->other.ctx = 0;
	ASSERT_EQ(0, aio_setup(&self->other, 1, &self->other.ctx));
	ASSERT_EQ(0, move(self->ring, self->size, to));
	self->aio.ctx = victim;
	/* The handle is of the one that came. */
	EXPECT_LE(EVENTS + 1, aio_ring(self->aio.ctx)->nr);
	expect_works(_metadata, &self->aio, self->zero, self->buf);
	/* raio differs: a context ends with its ring. */
	if (variant->ops->is_raio)
		EXPECT_TRUE(wait_for(raio_live() == self->aio.live + 2));
}

/* A part can't be moved, and stays. */
TEST_F(mapping, no_part_moves)
{
	char *to = map_pages(self->size);
	unsigned int i;

	for (i = 0; i < self->size / PAGE; i++)
		EXPECT_EQ(-EINVAL, move(self->ring + i * PAGE, PAGE, to));
	EXPECT_EQ(-EINVAL, move(self->ring, self->size - PAGE, to));
	EXPECT_EQ(-EINVAL, move(self->ring + PAGE, self->size - PAGE, to));
	/* With two mappings the whole is made of parts, too. */
	ASSERT_EQ(0, mprotect(self->ring + PAGE, PAGE, PROT_READ));
	EXPECT_EQ(-EINVAL, move(self->ring, self->size, to));
	ASSERT_EQ(0, mprotect(self->ring + PAGE, PAGE, PROT_READ | PROT_WRITE));
	/* Onto itself neither. */
	EXPECT_EQ(-EINVAL, move(self->ring, self->size, self->ring + PAGE));
	EXPECT_EQ(-EINVAL, move(self->ring, self->size, self->ring));
	expect_works(_metadata, &self->aio, self->zero, self->buf);
}

/* What is left of one that was made smaller doesn't move. */
TEST_F(mapping, shrinks_and_does_not_move)
{
	char *to = map_pages(self->size);

	ASSERT_EQ(self->ring, mremap(self->ring, self->size, self->size - PAGE, MREMAP_MAYMOVE));
	EXPECT_EQ(-EINVAL, move(self->ring, self->size - PAGE, to));
	EXPECT_EQ(MAP_FAILED, mremap(self->ring, self->size - PAGE, self->size, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	expect_works(_metadata, &self->aio, self->zero, self->buf);
}

TEST_F(mapping, does_not_move_when_it_is_gone)
{
	char *to = map_pages(self->size);

	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	self->aio.ctx = 0;
	EXPECT_EQ(-EFAULT, move(self->ring, self->size, to));
	expect_no_handle(_metadata, &self->aio, self->ring);
	expect_no_handle(_metadata, &self->aio, to);
}

/* Races. */

struct mover {
	char *from, *to;
	unsigned long size;
	bool ready, go;
	unsigned int delay;
	long ret;
};

static void *move_once(void *data)
{
	struct mover *m = data;
	unsigned int i;

	__atomic_store_n(&m->ready, true, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&m->go, __ATOMIC_ACQUIRE))
		;
	for (i = 0; i < m->delay; i++)
		__asm__ volatile("" ::: "memory");
	m->ret = move(m->from, m->size, m->to);
	return NULL;
}

/* After a destroy the ring is mapped nowhere, whoever moved it meanwhile. */
TEST_F_TIMEOUT(mapping, moves_while_destroyed, 120)
{
	/* Kernel AIO is only the reference, and slow to destroy. */
	const unsigned int rounds = variant->ops->is_raio ? 300 : 30;
	unsigned int i, moved = 0;
	uint64_t state = 1;

	EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
	for (i = 0; i < rounds; i++) {
		aio_context_t ctx = 0;
		unsigned int j, delay = next_random(&state) % 2000;
		struct mover m = {
			.size = self->size, .to = map_pages(self->size),
			.delay = next_random(&state) % 2000,
		};
		pthread_t thread;
		long ret;

		ASSERT_EQ(0, aio_setup(&self->aio, EVENTS, &ctx));
		m.from = (char *)ctx;
		ASSERT_EQ(0, pthread_create(&thread, NULL, move_once, &m));
		while (!__atomic_load_n(&m.ready, __ATOMIC_ACQUIRE))
			sched_yield();
		__atomic_store_n(&m.go, true, __ATOMIC_RELEASE);
		for (j = 0; j < delay; j++)
			__asm__ volatile("" ::: "memory");
		ret = aio_destroy(&self->aio, ctx);
		pthread_join(thread, NULL);
		if (ret) {
			/* It was no longer where the handle says. */
			ASSERT_EQ(-EINVAL, ret);
			ASSERT_EQ(0, m.ret);
			ASSERT_EQ(0, aio_destroy(&self->aio, (aio_context_t)m.to));
		}
		moved += !m.ret;
		ASSERT_EQ(1, vm_count(ring_name(variant->ops))) {
			TH_LOG("round %u: destroy %ld, mremap %ld", i, ret, m.ret);
		}
		/* One that failed may have unmapped it. */
		munmap(m.to, self->size);
	}
	TH_LOG("moved %u times of %u", moved, rounds);
	self->aio.ctx = 0;
}

/* One thread moves the ring to and fro, others use it. */
struct shared {
	struct aio aio;
	int zero;
	char *buf;
	aio_context_t ctx;
	unsigned int submitted, reaped, missed, wrong;
	bool stop;
};

#define ROUNDS	1000

static struct aio current_aio(struct shared *s)
{
	struct aio aio = s->aio;

	aio.ctx = __atomic_load_n(&s->ctx, __ATOMIC_ACQUIRE);
	return aio;
}

static void *submit_to_it(void *data)
{
	struct shared *s = data;
	static struct iocb io[PAGE];

	while (s->submitted < ROUNDS) {
		struct aio aio = current_aio(s);
		struct iocb *iop = &io[s->submitted];
		long ret;

		iocb_prep(iop, IOCB_CMD_PREAD, s->zero, s->buf, s->submitted, 0);
		iop->aio_data = POST_KEY * s->submitted;
		ret = aio_submit(&aio, 1, &iop);
		if (ret == 1)
			s->submitted++;
		else if (ret == -EINVAL)
			s->missed++;
		else if (ret != -EAGAIN)
			s->wrong++;
	}
	return NULL;
}

static void *reap_from_it(void *data)
{
	struct shared *s = data;
	struct io_event ev[8];

	while (s->reaped < ROUNDS && !s->wrong) {
		struct __kernel_timespec timeout = { .tv_nsec = 1000000 };
		struct aio aio = current_aio(s);
		long i, ret = aio_getevents(&aio, 1, 8, ev, &timeout);

		if (ret == -EINVAL)
			s->missed++;
		else if (ret < 0)
			s->wrong++;
		/* In order, each once. */
		for (i = 0; i < ret; i++, s->reaped++)
			s->wrong += ev[i].res != s->reaped || ev[i].data != POST_KEY * s->reaped;
	}
	__atomic_store_n(&s->stop, true, __ATOMIC_RELEASE);
	return NULL;
}

TEST_F_TIMEOUT(mapping, moves_while_used, 120)
{
	static struct shared s;
	char *place[2] = { self->ring, map_pages(self->size) };
	pthread_t submitter, reaper;
	unsigned int moves = 0;

	s.aio = self->aio;
	s.zero = self->zero;
	s.buf = self->buf;
	s.ctx = self->aio.ctx;
	ASSERT_EQ(0, pthread_create(&submitter, NULL, submit_to_it, &s));
	ASSERT_EQ(0, pthread_create(&reaper, NULL, reap_from_it, &s));
	while (!__atomic_load_n(&s.stop, __ATOMIC_ACQUIRE)) {
		ASSERT_EQ(0, move(place[moves % 2], self->size, place[(moves + 1) % 2]));
		moves++;
		/* The first isn't told of before somebody has met it. */
		while (!__atomic_load_n(&s.missed, __ATOMIC_RELAXED) &&
		       !__atomic_load_n(&s.stop, __ATOMIC_ACQUIRE))
			sched_yield();
		__atomic_store_n(&s.ctx, (aio_context_t)place[moves % 2], __ATOMIC_RELEASE);
		sched_yield();
	}
	pthread_join(submitter, NULL);
	pthread_join(reaper, NULL);
	self->aio.ctx = s.ctx;
	EXPECT_EQ(0, s.wrong);
	EXPECT_EQ(ROUNDS, s.reaped);
	EXPECT_LT(0, s.missed) {
		TH_LOG("nobody met a move, of %u", moves);
	}
}

/* Children. */

static void expect_child(struct __test_metadata *_metadata, pid_t pid)
{
	int status;

	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status)) {
		TH_LOG("step %d of the child", WEXITSTATUS(status));
	}
}

static bool nothing_by(struct aio *aio, void *handle)
{
	struct aio by = *aio;
	struct iocb *iop[1] = { NULL };
	struct io_event ev;

	by.ctx = (aio_context_t)handle;
	return aio_poll(&by, 1, &ev) == -EINVAL && aio_submit(&by, 1, iop) == -EINVAL &&
	       aio_destroy(&by, by.ctx) == -EINVAL;
}

/*
 * It has no ring, and can't make one: not by moving what isn't there, not by
 * other memory with the right id at the right address.
 */
static int child_without_ring(struct aio *aio, char *ring, unsigned long size, const char *copy,
			      char *to)
{
	if (vm_count(ring_name(aio->ops)))
		return 1;
	if (move(ring, size, to) != -EFAULT)
		return 2;
	if (!nothing_by(aio, ring))
		return 3;
	if (mmap(ring, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
	    ring)
		return 4;
	memcpy(ring, copy, PAGE);
	if (!nothing_by(aio, ring))
		return 5;
	if (move(ring, size, to))
		return 6;
	return nothing_by(aio, to) ? 0 : 7;
}

TEST_F(mapping, not_in_a_child)
{
	struct io_event ev[4];
	char *copy = map_pages(PAGE), *to = map_pages(self->size);
	struct iocb io[4];
	pid_t pid;

	post_to(_metadata, &self->aio, self->zero, self->buf, io, 4, 0);
	/* No advice brings it there. */
	EXPECT_EQ(-EINVAL, ret_errno(madvise(self->ring, self->size, MADV_DOFORK)));
	EXPECT_EQ(0, madvise(self->ring, self->size, MADV_DONTFORK));
	EXPECT_EQ(-EINVAL, ret_errno(madvise(self->ring, PAGE, MADV_DOFORK)));
	memcpy(copy, self->ring, PAGE);
	pid = fork();
	if (!pid)
		_exit(child_without_ring(&self->aio, self->ring, self->size, copy, to));
	expect_child(_metadata, pid);
	EXPECT_EQ(4, aio_wait(&self->aio, 4, ev));
	expect_posted(_metadata, ev, io, 4, 0);
}

struct vm_child {
	struct aio *aio;
	char *from, *to;
	unsigned long size;
};

static int child_with_ring(void *data)
{
	struct vm_child *c = data;
	struct io_event ev;

	if (move(c->from, c->size, c->to))
		return 1;
	c->aio->ctx = (aio_context_t)c->to;
	return aio_poll(c->aio, 1, &ev) == 1 ? 0 : 2;
}

/* One that shares the memory shares the contexts, as a thread does. */
TEST_F(mapping, in_a_child_with_the_same_memory)
{
	struct vm_child c = {
		.aio = &self->aio, .from = self->ring, .to = map_pages(self->size), .size = self->size,
	};
	char *stack = map_pages(16 * PAGE);
	struct iocb io;

	post_to(_metadata, &self->aio, self->zero, self->buf, &io, 1, 0);
	expect_child(_metadata, clone(child_with_ring, stack + 16 * PAGE,
				      CLONE_VM | CLONE_VFORK | SIGCHLD, &c));
	EXPECT_EQ(c.to, (char *)self->aio.ctx);
	expect_no_handle(_metadata, &self->aio, self->ring);
	expect_works(_metadata, &self->aio, self->zero, self->buf);
}

/* Parts. */

/* All comes that the kernel has put there, for as long as the handle is mapped. */
TEST_F(mapping, parts_are_unmapped)
{
	const unsigned int pages[][2] = { { 2, 1 }, { 1, 1 }, { 1, 2 }, { 0, 1 }, { 0, 2 } };
	char *ring = self->ring;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		const bool head = !pages[i][0];
		struct iocb io[POST_MAX], late[HELD];
		const __u32 id = aio_ring(self->aio.ctx)->id;
		struct io_event ev[POST_MAX];
		unsigned int lap;

		/* Through all the pages, and once around. */
		for (lap = 0; lap < 8; lap++) {
			post_to(_metadata, &self->aio, self->zero, self->buf, io, POST_MAX, lap);
			if (lap == 1) {
				hold(_metadata, &self->aio, self->fd, self->late, late);
				ASSERT_EQ(0, munmap(ring + pages[i][0] * PAGE, pages[i][1] * PAGE));
				testdev_cmd("c0 complete all");
			}
			if (lap == 1 && head) {
				expect_no_handle(_metadata, &self->aio, ring);
				/* Any memory with the right id is a handle there. */
				ASSERT_EQ(ring, mmap(ring, PAGE, PROT_READ | PROT_WRITE,
						     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
				*(__u32 *)ring = id + 1;
				expect_no_handle(_metadata, &self->aio, ring);
				*(__u32 *)ring = id;
			}
			ASSERT_EQ(POST_MAX, aio_wait(&self->aio, POST_MAX, ev));
			expect_posted(_metadata, ev, io, POST_MAX, lap);
			if (lap == 1)
				expect_held(_metadata, &self->aio, late);
		}
		if (i % 2) {
			/* What the handle is for, whatever is mapped there now. */
			EXPECT_EQ(0, aio_destroy(&self->aio, self->aio.ctx));
			EXPECT_EQ(-ENOMEM, ret_errno(msync(ring, PAGE, MS_ASYNC)));
		} else {
			drop(_metadata, &self->aio, ring, self->size);
		}
		self->aio.ctx = 0;
		ASSERT_EQ(1, vm_count(ring_name(variant->ops)));
		ASSERT_EQ(0, aio_setup(&self->aio, EVENTS, &self->aio.ctx));
		ring = (char *)self->aio.ctx;
	}
}

/* The same with other memory in their places, that nobody writes to. */
TEST_F(mapping, parts_are_mapped_over)
{
	struct io_event ev[POST_MAX];
	struct iocb io[POST_MAX];
	unsigned int lap;

	ASSERT_EQ(self->ring + PAGE, mmap(self->ring + PAGE, PAGE, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	memset(self->ring + PAGE, 0xa5, PAGE);
	for (lap = 0; lap < 8; lap++) {
		post_to(_metadata, &self->aio, self->zero, self->buf, io, POST_MAX, lap);
		ASSERT_EQ(POST_MAX, aio_wait(&self->aio, POST_MAX, ev));
		expect_posted(_metadata, ev, io, POST_MAX, lap);
	}
	EXPECT_EQ(-1, filled_check(self->ring + PAGE, PAGE, 0xa5));
}

TEST_F(mapping, all_is_mapped_over)
{
	ASSERT_EQ(self->ring, mmap(self->ring, self->size, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	drop(_metadata, &self->aio, self->ring, self->size);
}

/*
 * Another of its pages, or one past its end. raio differs: its ring is mapped
 * once, when it is made, and stays as it is.
 */
TEST_F(mapping, pages_are_not_remapped)
{
	const unsigned long offsets[] = { 0, 1, 2, 3, 1000, ULONG_MAX >> 13 };
	const long pages = self->size / PAGE;
	unsigned int i;
	long n;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		/* Kernel AIO's header would be another page, or none. */
		for (n = 1; n < pages + variant->ops->is_raio; n++) {
			EXPECT_EQ(variant->ops->is_raio ? -ENODEV : 0,
				  ret_errno(syscall(__NR_remap_file_pages,
						    self->ring + (pages - n) * PAGE, n * PAGE, 0,
						    offsets[i], 0)));
			expect_works(_metadata, &self->aio, self->zero, self->buf);
		}
	}
}

/* Advice. */

TEST_F(mapping, advice)
{
	/* All but those that fake broken memory; what the ring doesn't take. */
	const struct {
		int advice;
		long err;
	} advices[] = {
		{ MADV_NORMAL, 0 }, { MADV_RANDOM, 0 }, { MADV_SEQUENTIAL, 0 },
		{ MADV_WILLNEED, 0 }, { MADV_DONTNEED, 0 }, { MADV_FREE, -EINVAL },
		{ MADV_REMOVE, -ENODEV }, { MADV_DONTFORK, 0 }, { MADV_DOFORK, -EINVAL },
		{ MADV_MERGEABLE, -EINVAL }, { MADV_UNMERGEABLE, -EINVAL },
		{ MADV_HUGEPAGE, 0 }, { MADV_NOHUGEPAGE, 0 }, { MADV_DONTDUMP, 0 },
		{ MADV_DODUMP, -EINVAL }, { MADV_WIPEONFORK, -EINVAL }, { MADV_KEEPONFORK, 0 },
		{ MADV_COLD, 0 }, { MADV_PAGEOUT, 0 }, { MADV_POPULATE_READ, 0 },
		{ MADV_POPULATE_WRITE, 0 }, { MADV_DONTNEED_LOCKED, 0 },
		{ MADV_COLLAPSE, -EINVAL }, { MADV_GUARD_INSTALL, -EINVAL },
		{ MADV_GUARD_REMOVE, -EINVAL },
	};
	struct io_event ev[POST_MAX];
	struct iocb io[POST_MAX], late[HELD];
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(advices); i++) {
		post_to(_metadata, &self->aio, self->zero, self->buf, io, POST_MAX, i);
		hold(_metadata, &self->aio, self->fd, self->late, late);
		for (j = 0; j < self->size / PAGE; j++) {
			EXPECT_EQ(advices[i].err, ret_errno(madvise(self->ring + j * PAGE, PAGE,
								    advices[i].advice))) {
				TH_LOG("advice %d, page %u", advices[i].advice, j);
			}
		}
		EXPECT_EQ(advices[i].err, ret_errno(madvise(self->ring, self->size,
							    advices[i].advice)));
		testdev_cmd("c0 complete all");
		ASSERT_EQ(POST_MAX, aio_wait(&self->aio, POST_MAX, ev));
		expect_posted(_metadata, ev, io, POST_MAX, i);
		expect_held(_metadata, &self->aio, late);
	}
}

TEST_F(mapping, locked_in_memory)
{
	char *to = map_pages(self->size);

	ASSERT_EQ(0, mlock(self->ring, self->size));
	expect_works(_metadata, &self->aio, self->zero, self->buf);
	ASSERT_EQ(0, munlock(self->ring, self->size));
	ASSERT_EQ(0, mlockall(MCL_CURRENT));
	expect_works(_metadata, &self->aio, self->zero, self->buf);
	EXPECT_EQ(-EINVAL, ret_errno(msync(self->ring, self->size, MS_SYNC)));
	EXPECT_EQ(0, msync(self->ring, self->size, MS_ASYNC));
	ASSERT_EQ(0, move(self->ring, self->size, to));
	self->aio.ctx = (aio_context_t)to;
	expect_works(_metadata, &self->aio, self->zero, self->buf);
}

/* New memory has to be locked, and there may not be so much. */
TEST_F(mapping, more_than_may_be_locked)
{
	struct rlimit limit = { .rlim_cur = PAGE, .rlim_max = RLIM_INFINITY };
	aio_context_t ctx = 0;
	long ret;

	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
	ASSERT_EQ(0, mlockall(MCL_FUTURE));
	/* Without the right to lock more. */
	ASSERT_EQ(0, seteuid(65534));
	ret = aio_setup(&self->aio, EVENTS, &ctx);
	ASSERT_EQ(0, seteuid(0));
	ASSERT_EQ(0, munlockall());
	/* raio differs: it says what mmap(2) says. */
	EXPECT_EQ(variant->ops->is_raio ? -EAGAIN : -ENOMEM, ret);
	EXPECT_EQ(0, ctx);
}

/* A limit that is reached keeps nothing from being moved and unmapped. */
TEST_F(mapping, no_more_address_space)
{
	struct rlimit none = { .rlim_cur = PAGE, .rlim_max = RLIM_INFINITY };
	char *to = map_pages(self->size);
	struct rlimit old;
	long ret;

	ASSERT_EQ(0, getrlimit(RLIMIT_AS, &old));
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &none));
	ret = move(self->ring, self->size, to);
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &old));
	ASSERT_EQ(0, ret);
	self->aio.ctx = (aio_context_t)to;
	expect_works(_metadata, &self->aio, self->zero, self->buf);
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &none));
	ret = aio_destroy(&self->aio, self->aio.ctx);
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &old));
	EXPECT_EQ(0, ret);
	self->aio.ctx = 0;
}

/* Who touches it can't be held by the program. */
TEST_F(mapping, no_userfaultfd)
{
	const int modes[] = {
		UFFDIO_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_WP, UFFDIO_REGISTER_MODE_MINOR,
	};
	const int uffd = uffd_open();
	unsigned int i;

	ASSERT_LE(0, uffd);
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		struct uffdio_register reg = {
			.range = { .start = self->aio.ctx, .len = self->size },
			.mode = modes[i],
		};

		EXPECT_EQ(-EINVAL, ret_errno(ioctl(uffd, UFFDIO_REGISTER, &reg))) {
			TH_LOG("mode %d", modes[i]);
		}
	}
	close(uffd);
	expect_works(_metadata, &self->aio, self->zero, self->buf);
}

/* Its file can't be had. */
TEST_F(mapping, has_no_descriptor)
{
	const unsigned long end = self->aio.ctx + self->size;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)self->aio.ctx, end);
	EXPECT_EQ(-ENXIO, ret_errno(open(path, O_RDWR)));
	EXPECT_EQ(-ENXIO, ret_errno(open(path, O_RDONLY)));
	EXPECT_NE(0, truncate(path, 0));
	EXPECT_NE(0, truncate(path, 2 * self->size));
	expect_works(_metadata, &self->aio, self->zero, self->buf);
}

TEST_F(mapping, by_proc_mem)
{
	const unsigned int nr = aio_ring(self->aio.ctx)->nr;
	const off_t last = self->aio.ctx + offsetof(struct raio_ring, events[nr - 1]);
	struct io_event ev, mark = { .data = 1, .obj = 2, .res = 3, .res2 = 4 };
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	struct raio_ring head;
	struct iocb io;

	ASSERT_LE(0, mem);
	post_to(_metadata, &self->aio, self->zero, self->buf, &io, 1, 9);
	ASSERT_EQ(sizeof(head), pread(mem, &head, sizeof(head), self->aio.ctx));
	EXPECT_EQ(RAIO_RING_MAGIC, head.magic);
	EXPECT_EQ(1, head.tail);
	ASSERT_EQ(sizeof(mark), pwrite(mem, &mark, sizeof(mark), last));
	EXPECT_EQ(0, memcmp(&mark, &aio_ring(self->aio.ctx)->events[nr - 1], sizeof(mark)));
	EXPECT_EQ(1, aio_poll(&self->aio, 1, &ev));
	expect_posted(_metadata, &ev, &io, 1, 9);
	expect_works(_metadata, &self->aio, self->zero, self->buf);
	/* What isn't mapped isn't there. */
	EXPECT_EQ(-1, pwrite(mem, &mark, sizeof(mark), (off_t)KERNEL_ADDR));
	close(mem);
}

/* The ring as a buffer. */

/* Its last page, which these few events don't come to. */
TEST_F(mapping, read_into_the_ring)
{
	char *page = self->ring + self->size - PAGE;
	struct iocb io[2];
	struct io_event ev[2];

	iocb_prep(&io[0], IOCB_CMD_PREAD, self->fd, page, PAGE, PAGE);
	iocb_prep(&io[1], IOCB_CMD_PWRITE, self->fd, page, PAGE, 0);
	ASSERT_EQ(1, aio_submit_one(&self->aio, &io[0]));
	testdev_cmd("c0 complete 1");
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev[0]));
	EXPECT_EVENT(&ev[0], &io[0], PAGE);
	EXPECT_EQ(-1, pattern_check(page, PAGE, PAGE, SEED));
	ASSERT_EQ(1, aio_submit_one(&self->aio, &io[1]));
	testdev_cmd("c0 complete 1");
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev[1]));
	EXPECT_EVENT(&ev[1], &io[1], PAGE);
	testdev_cmd("c0 mode now");
	ASSERT_EQ(PAGE, pread(self->fd, self->buf, PAGE, 0));
	EXPECT_EQ(-1, pattern_check(self->buf, PAGE, PAGE, SEED));
}

/* The device has pages of a ring that is gone. */
TEST_F(mapping, destroyed_while_it_is_a_buffer)
{
	struct call call = { .kind = DESTROY, .aio = self->aio };
	struct iocb own, others;
	struct io_event ev;

	/* By its own request: that is waited for. By another's: it is not. */
	iocb_prep(&own, IOCB_CMD_PREAD, self->fd, self->ring, PAGE, 0);
	iocb_prep(&others, IOCB_CMD_PREAD, self->fd, self->ring + PAGE, self->size - PAGE, 0);
	ASSERT_EQ(1, aio_submit_one(&self->aio, &own));
	ASSERT_EQ(1, aio_submit_one(&self->other, &others));
	testdev_cmd("c0 wait held 2");
	call_start(_metadata, &call);
	EXPECT_SLEEPS(&call);
	testdev_cmd("c0 complete 1");
	EXPECT_RETURNS(0, &call);
	self->aio.ctx = 0;
	EXPECT_EQ(1, vm_count(ring_name(variant->ops)));
	if (variant->ops->is_raio)
		EXPECT_TRUE(wait_for(raio_live() == self->aio.live + 1));
	testdev_cmd("c0 complete all");
	ASSERT_EQ(1, aio_wait(&self->other, 1, &ev));
	EXPECT_EVENT(&ev, &others, self->size - PAGE);
}

/* What only raio does: the context ends with its ring. */

/* If it could be mapped again, that would be no ring to move. */
TEST(moved_when_it_was_mapped_again)
{
	char *to = map_pages(PAGE);
	struct aio aio;

	aio_begin(_metadata, &aio, &raio, 1);
	EXPECT_EQ(-ENODEV, ret_errno(syscall(__NR_remap_file_pages, aio.ctx, PAGE, 0, 0, 0))) {
		wait_for(raio_live() == aio.live);
	}
	EXPECT_EQ(0, move((char *)aio.ctx, PAGE, to));
	aio.ctx = (aio_context_t)to;
	aio_end(_metadata, &aio);
}

/* And the file may be closed by somebody else. */
TEST(moved_after_another_has_closed_the_file)
{
	char *ring, *to = map_pages(PAGE);
	struct line line;
	struct aio aio;
	pid_t pid;

	aio_begin(_metadata, &aio, &raio, 1);
	ring = (char *)aio.ctx;
	line_open(_metadata, &line);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		line_child(&line);
		_exit(line_wait(line.fds[1]) ? 0 : 1);
	}
	line_parent(&line);
	close(aio.dev);
	ASSERT_TRUE(line_tell(line.fds[0]));
	expect_child(_metadata, pid);
	/* The context has ended, but not what the ring takes. */
	ASSERT_EQ(0, move(ring, PAGE, to));
	EXPECT_EQ(RAIO_RING_MAGIC, aio_ring((aio_context_t)to)->magic);
	EXPECT_EQ(aio.live + 1, raio_live());
	ASSERT_EQ(0, munmap(to, PAGE));
	aio_expect_no_leak(_metadata, &aio);
	EXPECT_EQ(0, vm_count(ring_name(&raio)));
}

TEST_HARNESS_MAIN
