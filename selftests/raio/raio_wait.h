/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A context whose ring is filled at will, and threads that wait for its
 * events: where they are, how often they were woken, what they came back with.
 */
#ifndef RAIO_WAIT_H
#define RAIO_WAIT_H

#include "raio_post.h"
#include "raio_task.h"

#define EVENTS		POST_MAX

/**
 * struct fed - a context that gets events when a test wants it to
 * @aio:	the context, for EVENTS requests at least
 * @zero:	/dev/zero
 * @buf:	a page
 */
struct fed {
	struct aio aio;
	int zero;
	char *buf;
};

static inline void fed_begin(struct __test_metadata *_metadata, struct fed *fed,
			     const struct aio_ops *ops)
{
	aio_begin(_metadata, &fed->aio, ops, EVENTS);
	fed->zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fed->zero);
	fed->buf = map_pages(PAGE);
}

static inline void fed_end(struct __test_metadata *_metadata, struct fed *fed)
{
	aio_end(_metadata, &fed->aio);
	close(fed->zero);
}

/* Puts @nr events into its ring, see raio_post.h. */
static inline long post_try(struct fed *fed, struct iocb *io, unsigned int nr, unsigned int first)
{
	return post_to_try(&fed->aio, fed->zero, fed->buf, io, nr, first);
}

static inline void post(struct __test_metadata *_metadata, struct fed *fed, struct iocb *io,
			unsigned int nr, unsigned int first)
{
	ASSERT_EQ(nr, post_try(fed, io, nr, first));
}

/* Events in the ring, as a program sees it. */
static inline unsigned int ring_used(aio_context_t ctx)
{
	struct raio_ring *ring = aio_ring(ctx);
	unsigned int head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
	unsigned int tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);

	return (tail + ring->nr - head) % ring->nr;
}

/**
 * struct sleeper - a call in a thread of its own
 * @aio:	the context
 * @min_nr:	as for the call
 * @nr:		as for the call
 * @timeout:	as for the call
 * @mask:	the signal mask during the call, or NULL for io_getevents(2)
 * @min_wait:	raio only
 * @events:	where they go to; NULL for @ev
 * @thread:	the thread
 * @tid:	its number, once it runs
 * @ret:	what the call has returned, when @done
 * @begin:	when it was called
 * @end:	when it has returned
 * @done:	it has
 * @ev:		the events
 */
struct sleeper {
	struct aio *aio;
	long min_nr;
	long nr;
	struct __kernel_timespec *timeout;
	const sigset_t *mask;
	__u64 min_wait;
	struct io_event *events;
	pthread_t thread;
	pid_t tid;
	long ret;
	long long begin;
	long long end;
	bool done;
	struct io_event ev[EVENTS];
};

static inline long sleeper_call(struct sleeper *s)
{
	struct raio_getevents arg = {
		.ctx = s->aio->ctx,
		.min_nr = s->min_nr,
		.nr = s->nr,
		.events = (uintptr_t)(s->events ?: s->ev),
		.timeout = (uintptr_t)s->timeout,
		.sigmask = (uintptr_t)s->mask,
		.sigsetsize = MASK_SIZE,
		.min_wait = s->min_wait,
	};

	if (s->min_wait)
		return raio_ioctl(s->aio->dev, RAIO_IOC_GETEVENTS, &arg);
	if (s->mask)
		return aio_pgetevents(s->aio, s->min_nr, s->nr, s->events ?: s->ev, s->timeout,
				      s->mask);
	return aio_getevents(s->aio, s->min_nr, s->nr, s->events ?: s->ev, s->timeout);
}

static inline void *sleeper_thread(void *data)
{
	struct sleeper *s = data;

	__atomic_store_n(&s->tid, gettid(), __ATOMIC_RELEASE);
	s->begin = now_ns();
	s->ret = sleeper_call(s);
	s->end = now_ns();
	__atomic_store_n(&s->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static inline bool sleeper_done(struct sleeper *s)
{
	return __atomic_load_n(&s->done, __ATOMIC_ACQUIRE);
}

/* True if it sleeps in the call, and a signal would wake it. */
static inline bool sleeper_sleeps(struct sleeper *s)
{
	pid_t tid = __atomic_load_n(&s->tid, __ATOMIC_ACQUIRE);
	long call = __NR_ioctl;

	if (!s->aio->ops->is_raio)
		call = s->mask ? NR_PGETEVENTS : nr_getevents(s->timeout);
	return tid && task_in(tid, call, RAIO_IOC_GETEVENTS) && task_state(tid) == 'S';
}

/* Starts one, and returns when it sleeps. */
static inline void sleeper_start(struct __test_metadata *_metadata, struct sleeper *s)
{
	ASSERT_EQ(0, pthread_create(&s->thread, NULL, sleeper_thread, s));
	ASSERT_TRUE(wait_for(sleeper_sleeps(s) || sleeper_done(s)));
	ASSERT_FALSE(sleeper_done(s)) {
		TH_LOG("%ld came back at once", s->ret);
	}
}

/* Waits until it has returned, */
static inline void sleeper_join(struct __test_metadata *_metadata, struct sleeper *s)
{
	ASSERT_TRUE(wait_for(sleeper_done(s))) {
		TH_LOG("not woken");
	}
	pthread_join(s->thread, NULL);
}

/* and has returned @val. */
static inline void sleeper_end(struct __test_metadata *_metadata, struct sleeper *s, long val)
{
	sleeper_join(_metadata, s);
	EXPECT_EQ(val, s->ret);
}

/* How often a thread has gone to sleep by itself; it goes up when it is asleep again. */
static inline long task_sleeps_so_far(pid_t tid)
{
	static const char key[] = "\nvoluntary_ctxt_switches:";
	char path[64], text[4096];
	const char *p;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	p = strstr(read_text(path, text, sizeof(text)), key);
	return p ? atol(p + strlen(key)) : -1;
}

#endif /* RAIO_WAIT_H */
