/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Two threads that do something at the same moment, again and again, each on a
 * processor of its own, with every distance between them: a rival, and the
 * test. In some rounds one of both is surely first, so that each outcome
 * occurs also where the two take turns on one processor.
 */
#ifndef RAIO_RACE_H
#define RAIO_RACE_H

#include "raio_test.h"

/**
 * struct rival - the other thread
 * @act:	what it does in each round
 * @arg:	for that
 * @thread:	the thread
 * @round:	the round that it is let into
 * @done:	the last one that it has finished
 * @stop:	there will be none
 * @dice:	for the test's distances
 */
struct rival {
	void (*act)(void *arg);
	void *arg;
	pthread_t thread;
	unsigned int round;
	unsigned int done;
	bool stop;
	uint64_t dice;
};

/* From nothing to some hundred microseconds, the short ones as often as the long ones. */
static inline void keep_distance(uint64_t *dice)
{
	uint64_t n = next_random(dice);
	unsigned int i;

	for (i = n % (1U << ((n >> 32) % 16)); i; i--)
		__asm__ volatile("" ::: "memory");
}

/* Spins until *@word is @value, but lets others run who may have to. */
static inline void spin_until(const unsigned int *word, unsigned int value)
{
	unsigned int i;

	for (i = 1; __atomic_load_n(word, __ATOMIC_ACQUIRE) != value; i++)
		if (i % 1024 == 0)
			sched_yield();
}

static inline void *rival_thread(void *data)
{
	struct rival *r = data;
	uint64_t dice = 7;
	unsigned int round;

	pin_to_cpu(1);
	for (round = 1; ; round++) {
		spin_until(&r->round, round);
		if (__atomic_load_n(&r->stop, __ATOMIC_RELAXED))
			return NULL;
		keep_distance(&dice);
		r->act(r->arg);
		__atomic_store_n(&r->done, round, __ATOMIC_RELEASE);
	}
}

static inline void rival_begin(struct __test_metadata *_metadata, struct rival *r,
			       void (*act)(void *arg), void *arg)
{
	*r = (struct rival){ .act = act, .arg = arg, .dice = 8 };
	ASSERT_EQ(0, pthread_create(&r->thread, NULL, rival_thread, r));
	pin_to_cpu(0);
}

/* Lets it in, */
static inline void rival_go(struct rival *r)
{
	__atomic_store_n(&r->round, r->round + 1, __ATOMIC_RELEASE);
}

/* and waits until it is through. */
static inline void rival_wait(struct rival *r)
{
	spin_until(&r->done, r->round);
}

/* A round in which the test does @act. */
static inline void race(struct rival *r, void (*act)(void *arg), void *arg)
{
	switch (r->round % 16) {
	case 0:
		act(arg);
		rival_go(r);
		break;
	case 1:
		rival_go(r);
		rival_wait(r);
		act(arg);
		break;
	default:
		rival_go(r);
		keep_distance(&r->dice);
		act(arg);
	}
	rival_wait(r);
}

static inline void rival_end(struct rival *r)
{
	__atomic_store_n(&r->stop, true, __ATOMIC_RELAXED);
	rival_go(r);
	pthread_join(r->thread, NULL);
}

#endif /* RAIO_RACE_H */
