/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Somebody who moves the pages of a ring, or takes memory away, again and
 * again: in steps, or as a thread on processor 0. What has moved is what has
 * another page frame than before.
 *
 * Two NUMA nodes are needed, each with a part of its memory in ZONE_MOVABLE.
 */
#ifndef RAIO_MOVER_H
#define RAIO_MOVER_H

#include <linux/mempolicy.h>

#include "raio_cgroup.h"
#include "raio_task.h"

#define MAX_PAGES	512
#define MAX_BLOCKS	64
#define HUGE		(2UL << 20)
#define HOLES		(16UL << 20)
#define MEMORY		"/sys/devices/system/memory"
/* What a process in memory pressure may have, and what it reads meanwhile. */
#define CGROUP_MAX	"32M"
#define CACHE_FILE	(64UL << 20)
#define CACHE_STEP	(4UL << 20)

enum way { MOVE_PAGES, MIGRATE_PAGES, COMPACT, OFFLINE, RECLAIM, DROP_CACHES };

/**
 * struct mover - what it does, and how it went
 * @way:	by what
 * @at:		where the ring is; may change at any time
 * @nr:		its pages
 * @moved:	pages that have moved, of
 * @tried:	those that should have; not those that were unmapped before or after
 * @reported:	pages of which move_pages(2) said that it had moved them
 * @unmapped:	pages that were mapped before a step and not after
 * @steps:	how often it went for them
 * @error:	what is wrong with the way itself, 0 if nothing is
 * @stop:	set to end the thread
 */
struct mover {
	enum way way;
	uintptr_t at;
	unsigned int nr;
	unsigned long moved;
	unsigned long tried;
	unsigned long reported;
	unsigned long unmapped;
	unsigned long steps;
	long error;
	bool stop;

	pthread_t thread;
	uint64_t before[MAX_PAGES];
	uint64_t after[MAX_PAGES];
	/* The page frames that count. */
	uint64_t first;
	uint64_t last;
	uint64_t good;
	uint64_t block;
	char dir[64];
	int file;
	off_t pos;
	char *buf;
	char *area[2];
};

#define mover_get(_field) __atomic_load_n(&(_field), __ATOMIC_ACQUIRE)

/* Which page frames are mapped, 0 where none is. */
static inline void page_frames(uintptr_t at, unsigned int nr, uint64_t *pfn)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ssize_t want = nr * sizeof(*pfn);
	unsigned int i;

	if (fd < 0 || pread(fd, pfn, want, at / PAGE * sizeof(*pfn)) != want)
		ksft_exit_fail_msg("/proc/self/pagemap: %s\n", strerror(errno));
	close(fd);
	for (i = 0; i < nr; i++)
		pfn[i] = pfn[i] >> 63 ? pfn[i] & ((1ULL << 55) - 1) : 0;
}

/* Has them mapped. */
static inline void touch_pages(uintptr_t at, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		__atomic_load_n((char *)(at + i * PAGE), __ATOMIC_RELAXED);
}

/* Moves each page from one of nodes 0 and 1 to the other. */
static inline void to_other_node(struct mover *m, uintptr_t at, unsigned int nr)
{
	int node[MAX_PAGES], status[MAX_PAGES];
	void *page[MAX_PAGES];
	unsigned int i;

	for (i = 0; i < nr; i++)
		page[i] = (void *)(at + i * PAGE);
	if (syscall(__NR_move_pages, 0, nr, page, NULL, status, 0))
		m->error = -errno;
	for (i = 0; i < nr; i++) {
		node[i] = !status[i];
		status[i] = -EINPROGRESS;
	}
	if (syscall(__NR_move_pages, 0, nr, page, node, status, MPOL_MF_MOVE) < 0)
		m->error = -errno;
	for (i = 0; i < nr; i++)
		m->reported += status[i] == node[i];
}

static inline void by_migrate_pages(struct mover *m)
{
	unsigned long from, to;
	int node;

	if (syscall(__NR_get_mempolicy, &node, NULL, 0, m->at, MPOL_F_NODE | MPOL_F_ADDR))
		return;
	from = 1UL << node;
	to = 1UL << !node;
	if (syscall(__NR_migrate_pages, 0, 8 * sizeof(from), &from, &to) < 0)
		m->error = -errno;
}

/* Memory is taken away in blocks. */

static inline uint64_t block_frames(void)
{
	char text[32];

	return strtoull(read_text(MEMORY "/block_size_bytes", text, sizeof(text)), NULL, 16) / PAGE;
}

static inline bool block_is_movable(uint64_t block)
{
	char path[64], text[64];

	snprintf(path, sizeof(path), MEMORY "/memory%llu/valid_zones", (unsigned long long)block);
	return !strncmp(read_text(path, text, sizeof(text)), "Movable", 7);
}

static inline int block_set(uint64_t block, const char *state)
{
	char path[64];

	snprintf(path, sizeof(path), MEMORY "/memory%llu/state", (unsigned long long)block);
	return write_str(path, state);
}

/* Takes a block away and gives it back, for pages that can be moved. */
static inline int block_cycle(uint64_t block)
{
	return block_set(block, "offline") ?: block_set(block, "online_movable");
}

static inline void *map_on_node(size_t len, int node)
{
	const unsigned long nodes = 1UL << node;
	void *p = map_pages(len);

	syscall(__NR_mbind, p, len, MPOL_BIND, &nodes, 8 * sizeof(nodes), 0);
	return p;
}

static inline bool block_on_node(uint64_t block, int node)
{
	char path[64];

	snprintf(path, sizeof(path), MEMORY "/memory%llu/node%d", (unsigned long long)block, node);
	return !access(path, F_OK);
}

/* Uses up movable memory of a node, until there is only that of the blocks @good. */
static inline bool node_fill(int node, uint64_t good)
{
	const uint64_t frames = block_frames(), size = 4 * frames * PAGE;
	uint64_t pfn;
	char *p, *end;
	int huge;

	/* In large pages and the remains in small ones. */
	for (huge = 1; huge >= 0; huge--) {
		const size_t step = huge ? HUGE : PAGE;

		p = map_on_node(size, node);
		end = p + size;
		p = (char *)(((uintptr_t)p + HUGE - 1) / HUGE * HUGE);
		madvise(p, end - p, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		for (; p < end; p += step) {
			*p = 1;
			page_frames((uintptr_t)p, 1, &pfn);
			if (good >> pfn / frames & 1)
				break;
		}
		if (p >= end)
			return false;
		/* The one that lies there is not for us. */
		madvise(p, step, MADV_DONTNEED);
	}
	return true;
}

/*
 * Looks for the blocks that can be taken away: in some there is memory which the
 * kernel has used since it came up. Sees to it that what comes to a node that
 * has one comes there. Returns them, or 0.
 */
static inline uint64_t blocks_prepare(void)
{
	uint64_t block, good[2] = { };
	int node;

	for (node = 0; node < 2; node++) {
		for (block = 0; block < MAX_BLOCKS; block++)
			if (block_on_node(block, node) && block_is_movable(block) &&
			    !block_cycle(block))
				good[node] |= 1ULL << block;
		if (good[node] && !node_fill(node, good[node]))
			return 0;
	}
	return good[0] | good[1];
}

/* Has the pages in one of them, of which the page frames count. */
static inline void into_block(struct mover *m, uintptr_t at)
{
	const uint64_t frames = block_frames();
	unsigned int tries;

	for (tries = 0; tries < 3; tries++) {
		page_frames(at, 1, m->before);
		if (m->good >> m->before[0] / frames & 1)
			break;
		to_other_node(m, at, m->nr);
	}
	/* Whichever, if it isn't mapped now. */
	m->block = tries < 3 ? m->before[0] / frames : __builtin_ctzll(m->good);
	m->first = m->block * frames;
	m->last = m->first + frames - 1;
}

/*
 * Reads of a file that is larger than the cgroup may be, each twice, so that it
 * looks used and what else looks so is in the way; and a reclaim.
 */
static inline void by_reclaim(struct mover *m)
{
	int i;

	for (i = 0; i < 2; i++)
		if (pread(m->file, m->buf, CACHE_STEP, m->pos) != CACHE_STEP)
			m->error = -EIO;
	m->pos = (m->pos + CACHE_STEP) % CACHE_FILE;
	/* Less may be there than is asked for. */
	cgroup_write(m->dir, "memory.reclaim", "1M");
}

/*
 * Compaction moves pages up to holes near the end of their zone. So they are
 * put into holes, each a page, of which some are further up.
 */
static inline void into_holes(struct mover *m, uintptr_t at)
{
	int node;
	size_t i;

	for (node = 0; node < 2; node++) {
		char *area = map_on_node(HOLES, node);

		madvise(area, HOLES, MADV_NOHUGEPAGE);
		madvise(area, HOLES, MADV_POPULATE_WRITE);
		for (i = 0; i < HOLES; i += 2 * PAGE)
			madvise(area + i, PAGE, MADV_DONTNEED);
		m->area[node] = area;
	}
	to_other_node(m, at, m->nr);
}

static inline void fill_holes(struct mover *m)
{
	munmap(m->area[0], HOLES);
	munmap(m->area[1], HOLES);
}

static inline void mover_step(struct mover *m)
{
	const uintptr_t at = mover_get(m->at);
	unsigned long moved = 0;
	unsigned int i;

	m->first = 0;
	m->last = UINT64_MAX;
	if (m->way == COMPACT)
		into_holes(m, at);
	if (m->way == OFFLINE)
		into_block(m, at);
	page_frames(at, m->nr, m->before);
	switch (m->way) {
	case MOVE_PAGES:
		to_other_node(m, at, m->nr);
		break;
	case MIGRATE_PAGES:
		by_migrate_pages(m);
		break;
	case COMPACT:
		m->error = m->error ?: write_str("/proc/sys/vm/compact_memory", "1");
		break;
	case OFFLINE:
		m->error = m->error ?: block_cycle(m->block);
		break;
	case RECLAIM:
		by_reclaim(m);
		break;
	case DROP_CACHES:
		m->error = m->error ?: write_str("/proc/sys/vm/drop_caches", "3");
		break;
	}
	page_frames(at, m->nr, m->after);
	if (m->way == COMPACT)
		fill_holes(m);
	for (i = 0; i < m->nr; i++) {
		if (!m->before[i] || m->before[i] < m->first || m->before[i] > m->last)
			continue;
		m->unmapped += !m->after[i];
		m->tried += !!m->after[i];
		moved += m->after[i] && m->after[i] != m->before[i];
	}
	__atomic_store_n(&m->moved, m->moved + moved, __ATOMIC_RELEASE);
	__atomic_store_n(&m->steps, m->steps + 1, __ATOMIC_RELEASE);
}

static inline void *mover_thread(void *data)
{
	struct mover *m = data;

	pin_to_cpu(0);
	while (!mover_get(m->stop))
		mover_step(m);
	return NULL;
}

static inline void mover_start(struct __test_metadata *_metadata, struct mover *m)
{
	ASSERT_EQ(0, pthread_create(&m->thread, NULL, mover_thread, m));
}

static inline void mover_stop(struct mover *m)
{
	__atomic_store_n(&m->stop, true, __ATOMIC_RELEASE);
	pthread_join(m->thread, NULL);
}

/* Memory that a broken test may have left away. */
static inline void all_online(void)
{
	uint64_t block;

	for (block = 0; block < MAX_BLOCKS; block++)
		block_set(block, "online_movable");
}

static inline void mover_begin(struct __test_metadata *_metadata, struct mover *m, enum way way)
{
	*m = (struct mover){ .way = way };
	all_online();
	if (way == OFFLINE) {
		m->good = blocks_prepare();
		ASSERT_NE(0, m->good) {
			TH_LOG("no block of memory can be taken away");
		}
	}
	if (way != RECLAIM)
		return;
	m->file = temp_file(ext4_dir(), O_RDWR);
	ASSERT_LE(0, m->file);
	ASSERT_EQ(0, ftruncate(m->file, CACHE_FILE));
	m->buf = map_pages(CACHE_STEP);
	cgroup_make(_metadata, m->dir, sizeof(m->dir));
	ASSERT_EQ(0, cgroup_write(m->dir, "memory.max", CGROUP_MAX));
	ASSERT_EQ(0, cgroup_take(m->dir, getpid()));
}

static inline void mover_end(struct __test_metadata *_metadata, struct mover *m)
{
	if (m->way != RECLAIM)
		return;
	close(m->file);
	EXPECT_LT(0, cgroup_read(m->dir, "memory.stat", "pgscan"));
	EXPECT_EQ(0, cgroup_take(CGROUPS, getpid()));
	EXPECT_TRUE(wait_for(!rmdir(m->dir)));
}

#endif /* RAIO_MOVER_H */
