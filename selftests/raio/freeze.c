// SPDX-License-Identifier: GPL-2.0
/*
 * A file system that is frozen, under writes of every kind: they wait for its end,
 * it waits for theirs, and meanwhile nothing is written to the disk. The disk is
 * a test device, which counts.
 */
#include <linux/fs.h>

#include "raio_task.h"
#include "raio_testdev.h"

#define EVENTS		16
#define SEED		1
#define SLOTS		16
#define LEN		PAGE
#define ROUNDS		10

FIXTURE(freeze)
{
	struct aio aio;
	char dir[64];
	bool mounted;
	/* The same file, as it is and O_DIRECT; it has SLOTS times LEN bytes. */
	int cached;
	int direct;
	char *buf;
	struct iovec iov[2];
};

FIXTURE_VARIANT(freeze)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(freeze, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(freeze, raio)
{
	.ops = &raio,
};

static long freeze(int fd)
{
	return ret_errno(ioctl(fd, FIFREEZE, 0));
}

static long thaw(int fd)
{
	return ret_errno(ioctl(fd, FITHAW, 0));
}

FIXTURE_SETUP(freeze)
{
	char cmd[PATH_MAX];

	self->mounted = false;
	self->cached = -1;
	self->direct = -1;
	testdev_begin();
	/* Nothing of it is left for the kernel to do later. */
	snprintf(cmd, sizeof(cmd),
		 "mkfs.ext4 -q -F -N 64 -E lazy_itable_init=0,lazy_journal_init=0 %s 32m",
		 testdev_path("b0"));
	ASSERT_EQ(0, system(cmd));
	snprintf(self->dir, sizeof(self->dir), "%s/raio-test-mount", tmpfs_dir());
	mkdir(self->dir, 0700);
	ASSERT_EQ(0, mount(testdev_path("b0"), self->dir, "ext4", MS_NOATIME, NULL)) {
		TH_LOG("%s", strerror(errno));
	}
	self->mounted = true;
	self->cached = temp_file(self->dir, O_RDWR);
	ASSERT_LE(0, self->cached);
	self->direct = reopen(self->cached, O_RDWR | O_DIRECT);
	ASSERT_LE(0, self->direct);
	self->buf = map_pages(SLOTS * LEN);
	pattern_fill(self->buf, SLOTS * LEN, 0, SEED);
	ASSERT_EQ(SLOTS * LEN, pwrite(self->cached, self->buf, SLOTS * LEN, 0));
	ASSERT_EQ(0, ret_errno(syncfs(self->cached)));
	aio_begin(_metadata, &self->aio, variant->ops, EVENTS);
}

FIXTURE_TEARDOWN(freeze)
{
	/* Whoever waits for it goes on. */
	if (self->cached >= 0)
		thaw(self->cached);
	testdev_reset();
	aio_end(_metadata, &self->aio);
	if (self->direct >= 0)
		close(self->direct);
	if (self->cached >= 0)
		close(self->cached);
	if (self->mounted)
		EXPECT_EQ(0, ret_errno(umount(self->dir)));
	rmdir(self->dir);
}

static const struct kind {
	const char *name;
	bool direct;
	int opcode;
	unsigned int rw_flags;
} kinds[] = {
	{ "cached", false, IOCB_CMD_PWRITE, 0 },
	{ "cached, a vector", false, IOCB_CMD_PWRITEV, 0 },
	{ "cached and synced", false, IOCB_CMD_PWRITE, RWF_DSYNC },
	{ "at the end", false, IOCB_CMD_PWRITEV, RWF_APPEND },
	{ "direct", true, IOCB_CMD_PWRITE, 0 },
	{ "direct, a vector", true, IOCB_CMD_PWRITEV, 0 },
	{ "direct and synced", true, IOCB_CMD_PWRITEV, RWF_SYNC },
	{ "direct, at the end", true, IOCB_CMD_PWRITE, RWF_APPEND },
};

/* A write of that kind of the whole of @buf to the slot. Returns where it will be. */
static long long write_prep(struct iocb *io, const struct kind *kind, int cached, int direct,
			    char *buf, struct iovec *iov, unsigned int slot)
{
	const int fd = kind->direct ? direct : cached;

	iov[0].iov_base = buf;
	iov[0].iov_len = LEN / 2;
	iov[1].iov_base = buf + LEN / 2;
	iov[1].iov_len = LEN / 2;
	if (kind->opcode == IOCB_CMD_PWRITEV)
		iocb_prep(io, kind->opcode, fd, iov, 2, slot * LEN);
	else
		iocb_prep(io, kind->opcode, fd, buf, LEN, slot * LEN);
	io->aio_rw_flags = kind->rw_flags;
	return kind->rw_flags & RWF_APPEND ? lseek(cached, 0, SEEK_END) : (long)(slot * LEN);
}

TEST_F(freeze, writes_wait)
{
	char *seen = map_pages(LEN);
	struct io_event ev;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct iocb io, *iop = &io;
		struct call call = {
			.kind = SUBMIT, .aio = self->aio, .nr = 1, .iocbs = &iop,
		};
		long long at;
		long before;

		at = write_prep(&io, &kinds[i], self->cached, self->direct, self->buf, self->iov, i);
		pattern_fill(self->buf, LEN, at, SEED + 1 + i);
		ASSERT_EQ(0, freeze(self->cached));
		before = testdev_stat("b0", "started");
		call_start(_metadata, &call);
		/* With raio it is a worker that waits. */
		if (variant->ops->is_raio)
			EXPECT_RETURNS(1, &call);
		if (!variant->ops->is_raio)
			EXPECT_SLEEPS(&call);
		grace_periods();
		EXPECT_EQ(before, testdev_stat("b0", "started")) {
			TH_LOG("written while frozen: %s", kinds[i].name);
		}
		EXPECT_EQ(variant->ops->is_raio, call_over(&call));
		EXPECT_EQ(0, aio_poll(&self->aio, 1, &ev));
		ASSERT_EQ(0, thaw(self->cached));
		if (!variant->ops->is_raio)
			EXPECT_RETURNS(1, &call);
		ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
		EXPECT_EVENT(&ev, &io, LEN);
		ASSERT_EQ(LEN, pread(self->cached, seen, LEN, at));
		EXPECT_EQ(-1, pattern_check(seen, LEN, at, SEED + 1 + i)) {
			TH_LOG("%s", kinds[i].name);
		}
	}
}

/* Workers of one user that are busy at the same time. */
#define WORKERS		64

/* More than there are workers for: none makes submit wait, and who has no worker yet can be cancelled. */
TEST_F(freeze, many_writes_wait)
{
	const unsigned int nr = WORKERS + 8;
	struct iocb *io = calloc(nr, sizeof(*io));
	struct io_event *ev = calloc(nr, sizeof(*ev));
	struct aio aio;
	unsigned int i, left = nr;
	long ret;

	if (!variant->ops->is_raio)
		return;
	aio_begin(_metadata, &aio, variant->ops, nr);
	ASSERT_EQ(0, freeze(self->cached));
	for (i = 0; i < nr; i++) {
		iocb_prep(&io[i], IOCB_CMD_PWRITE, self->cached, self->buf, LEN, i % SLOTS * LEN);
		ASSERT_EQ(1, aio_submit_one(&aio, &io[i]));
	}
	EXPECT_EQ(0, aio_poll(&aio, 1, ev));
	/* One that has a worker goes on; it isn't known when that has begun. */
	for (i = nr - 4; i < nr; i++) {
		ret = aio_cancel(&aio, &io[i]);
		EXPECT_EQ(0, ret);
		left -= !ret;
		ASSERT_EQ(1, aio_wait(&aio, 1, ev));
		EXPECT_EVENT(&ev[0], &io[i], -ECANCELED);
	}
	EXPECT_EQ(0, aio_poll(&aio, 1, ev));
	ASSERT_EQ(0, thaw(self->cached));
	ASSERT_EQ(left, aio_wait(&aio, left, ev));
	for (i = 0; i < left; i++)
		EXPECT_EQ(LEN, ev[i].res);
	aio_end(_metadata, &aio);
}

/* What writes nothing goes on. */
TEST_F(freeze, reads_go_on)
{
	struct iocb io;

	ASSERT_EQ(0, freeze(self->cached));
	iocb_prep(&io, IOCB_CMD_PREAD, self->direct, self->buf, LEN, LEN);
	EXPECT_RESULT(LEN, &self->aio, &io);
	EXPECT_EQ(-1, pattern_check(self->buf, LEN, LEN, SEED));
	iocb_prep(&io, IOCB_CMD_PREAD, self->cached, self->buf, LEN, 2 * LEN);
	EXPECT_RESULT(LEN, &self->aio, &io);
	EXPECT_EQ(-1, pattern_check(self->buf, LEN, 2 * LEN, SEED));
	/* There is nothing to be synced. */
	iocb_prep(&io, IOCB_CMD_FSYNC, self->cached, NULL, 0, 0);
	EXPECT_RESULT(0, &self->aio, &io);
	io.aio_lio_opcode = IOCB_CMD_FDSYNC;
	EXPECT_RESULT(0, &self->aio, &io);
	ASSERT_EQ(0, thaw(self->cached));
}

/* Who freezes in a thread of its own. */
struct freezer {
	int fd;
	pthread_t thread;
	pid_t tid;
	long ret;
	bool over;
};

static void *freezer_thread(void *data)
{
	struct freezer *f = data;

	__atomic_store_n(&f->tid, gettid(), __ATOMIC_RELEASE);
	f->ret = freeze(f->fd);
	__atomic_store_n(&f->over, true, __ATOMIC_RELEASE);
	return NULL;
}

static bool freezer_over(struct freezer *f)
{
	return __atomic_load_n(&f->over, __ATOMIC_ACQUIRE);
}

static bool freezer_sleeps(struct freezer *f)
{
	pid_t tid = __atomic_load_n(&f->tid, __ATOMIC_ACQUIRE);

	return tid && task_in(tid, __NR_ioctl, FIFREEZE);
}

/* A write that was begun is over before the file system is frozen. */
TEST_F(freeze, waits_for_writes)
{
	struct iocb io[3], *iop[3];
	struct io_event ev[3];
	struct freezer freezer = { .fd = self->cached };
	unsigned int i;
	long before;

	testdev_cmd("b0 mode hang");
	pattern_fill(self->buf, 3 * LEN, 0, SEED + 1);
	for (i = 0; i < ARRAY_SIZE(io); i++) {
		iocb_prep(&io[i], IOCB_CMD_PWRITE, self->direct, self->buf + i * LEN, LEN, i * LEN);
		iop[i] = &io[i];
	}
	ASSERT_EQ(3, aio_submit(&self->aio, 3, iop));
	testdev_cmd("b0 wait held 3");
	/* The disk takes everything but these. */
	testdev_cmd("b0 mode now");
	before = testdev_stat("b0", "started");
	ASSERT_EQ(0, pthread_create(&freezer.thread, NULL, freezer_thread, &freezer));
	ASSERT_TRUE(wait_for(freezer_sleeps(&freezer) || freezer_over(&freezer)));
	for (i = 0; i < ARRAY_SIZE(io); i++) {
		grace_periods();
		EXPECT_FALSE(freezer_over(&freezer)) {
			TH_LOG("frozen with %u writes in flight", 3 - i);
		}
		/* It has not yet begun with what it writes itself. */
		EXPECT_EQ(before, testdev_stat("b0", "started"));
		testdev_cmd("b0 complete 1");
		ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev[i]));
		EXPECT_EQ(LEN, ev[i].res);
	}
	ASSERT_TRUE(wait_for(freezer_over(&freezer)));
	pthread_join(freezer.thread, NULL);
	EXPECT_EQ(0, freezer.ret);
	ASSERT_EQ(0, thaw(self->cached));
	ASSERT_EQ(3 * LEN, pread(self->cached, self->buf, 3 * LEN, 0));
	EXPECT_EQ(-1, pattern_check(self->buf, 3 * LEN, 0, SEED + 1));
}

/* One who submits when a time was noted that is still the present one. */
struct at_once {
	struct call call;
	int fd;
	char *buf;
};

static void *at_once_thread(void *data)
{
	struct at_once *a = data;
	struct timespec before, now;

	clock_gettime(CLOCK_REALTIME_COARSE, &before);
	do {
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
	} while (now.tv_nsec == before.tv_nsec);
	if (pwrite(a->fd, a->buf, LEN, 2 * LEN) != LEN || testdev_try("b0 mode hang"))
		ksft_exit_fail_msg("no write before the one that hangs\n");
	return call_thread(&a->call);
}

/*
 * One that has ended is over for who freezes, though its call goes on; and one behind it that
 * is not to wait doesn't wait for the thaw. The first is a worker's if there is a time to note,
 * and not always is the thread quick enough.
 */
TEST_F(freeze, not_waiting_behind_one_that_ended)
{
	struct iocb io[2], *iop[2], *there;
	char *page = map_pages(PAGE);
	int uffd = uffd_open();
	struct io_event ev[2];
	unsigned int i, round;

	/* Kernel AIO waits. */
	if (!variant->ops->is_raio)
		return;
	ASSERT_LE(0, uffd);
	for (i = 0; i < 2; i++)
		iocb_prep(&io[i], IOCB_CMD_PWRITE, self->direct, self->buf + i * LEN, LEN, i * LEN);
	io[1].aio_rw_flags = RWF_NOWAIT;
	memcpy(page, &io[1], sizeof(io[1]));
	there = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, there);
	ASSERT_EQ(0, uffd_missing(uffd, there, PAGE));
	iop[0] = &io[0];
	iop[1] = there;

	for (round = 0; round < 20; round++) {
		struct freezer freezer = { .fd = self->cached };
		struct at_once at_once = {
			.call = { .kind = SUBMIT, .aio = self->aio, .nr = 2, .iocbs = iop },
			.fd = self->direct,
			.buf = self->buf,
		};
		struct call *call = &at_once.call;

		ASSERT_EQ(0, pthread_create(&call->thread, NULL, at_once_thread, &at_once));
		ASSERT_TRUE(uffd_wait(uffd));
		testdev_cmd("b0 wait held 1");
		testdev_cmd("b0 mode now");
		ASSERT_EQ(0, pthread_create(&freezer.thread, NULL, freezer_thread, &freezer));
		ASSERT_TRUE(wait_for(freezer_sleeps(&freezer) || freezer_over(&freezer)));
		EXPECT_FALSE(freezer_over(&freezer));
		testdev_cmd("b0 complete 1");
		EXPECT_TRUE(wait_for(freezer_over(&freezer)));
		EXPECT_FALSE(call_over(call));
		ASSERT_EQ(0, uffd_fill(uffd, there, page));
		EXPECT_RETURNS(2, call);
		ASSERT_EQ(2, aio_wait(&self->aio, 2, ev));
		i = event_iocb(&ev[0]) != &io[0];
		EXPECT_EVENT(&ev[i], &io[0], LEN);
		EXPECT_EVENT(&ev[!i], there, -EAGAIN);
		pthread_join(freezer.thread, NULL);
		EXPECT_EQ(0, freezer.ret);
		ASSERT_EQ(0, thaw(self->cached));
		ASSERT_EQ(0, madvise(there, PAGE, MADV_DONTNEED));
	}
	close(uffd);
}

/* Refused ones keep nobody from it. */
TEST_F(freeze, refused_writes_let_go)
{
	struct iocb io;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		write_prep(&io, &kinds[i], self->cached, self->direct, self->buf, self->iov, 0);
		io.aio_offset = -1;
		EXPECT_REFUSED(-EINVAL, &self->aio, &io);
		io.aio_offset = 0;
		io.aio_buf = -8ULL;
		EXPECT_REFUSED(-EFAULT, &self->aio, &io);
		/* Begun, and failed. */
		self->iov[0].iov_base = NULL;
		io.aio_buf = kinds[i].opcode == IOCB_CMD_PWRITEV ? (uintptr_t)self->iov : 0;
		EXPECT_RESULT(-EFAULT, &self->aio, &io);
		ASSERT_EQ(0, freeze(self->cached));
		ASSERT_EQ(0, thaw(self->cached));
	}
}

/* Sleeps where who has submitted a write to a frozen file system does. */
static enum call_kind waits_in(const struct aio *aio)
{
	return aio->ops->is_raio ? GETEVENTS : SUBMIT;
}

/* One who writes, of every kind, until told to stop. */
struct writer {
	struct aio *aio;
	int cached;
	int direct;
	char *buf;
	struct iovec iov[2];
	pthread_t thread;
	pid_t tid;
	bool stop;
	unsigned int nr;
	unsigned int errors;
	/* The seed of what was last written to each slot. */
	uint64_t seeds[SLOTS];
};

static void *writer_thread(void *data)
{
	struct writer *w = data;
	struct iocb io, *iop = &io;
	struct io_event ev;

	__atomic_store_n(&w->tid, gettid(), __ATOMIC_RELEASE);
	while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE) && !w->errors) {
		const unsigned int slot = w->nr % SLOTS;
		const struct kind *kind = &kinds[w->nr % ARRAY_SIZE(kinds)];
		const uint64_t seed = SEED + 1 + w->nr;

		pattern_fill(w->buf, LEN, slot * LEN, seed);
		write_prep(&io, kind, w->cached, w->direct, w->buf, w->iov, slot);
		/* The file need not grow without end. */
		io.aio_rw_flags &= ~RWF_APPEND;
		if (aio_submit(w->aio, 1, &iop) != 1 || aio_wait(w->aio, 1, &ev) != 1 ||
		    ev.obj != (uintptr_t)&io || ev.res != LEN)
			w->errors++;
		w->seeds[slot] = seed;
		w->nr++;
	}
	return NULL;
}

TEST_F(freeze, in_a_loop)
{
	struct writer w = {
		.aio = &self->aio, .cached = self->cached, .direct = self->direct,
		.buf = map_pages(LEN),
	};
	unsigned int round, slot, nr, wrote = 0;

	for (slot = 0; slot < SLOTS; slot++)
		w.seeds[slot] = SEED;
	/* They end in a softirq, when whoever has submitted them is elsewhere. */
	testdev_cmd("b0 mode softirq");
	ASSERT_EQ(0, pthread_create(&w.thread, NULL, writer_thread, &w));
	ASSERT_TRUE(wait_for(__atomic_load_n(&w.tid, __ATOMIC_ACQUIRE)));
	for (round = 0; round < ROUNDS * long_run(10) && !w.errors; round++) {
		long before;

		ASSERT_EQ(0, freeze(self->cached));
		/* Sooner or later it comes to its next write, and no further. */
		EXPECT_TRUE(wait_for(({
			nr = __atomic_load_n(&w.nr, __ATOMIC_ACQUIRE);
			grace_periods();
			nr == __atomic_load_n(&w.nr, __ATOMIC_ACQUIRE) &&
				task_in_call(w.tid, waits_in(&self->aio), &self->aio);
		}) || w.errors));
		before = testdev_stat("b0", "started");
		nr = __atomic_load_n(&w.nr, __ATOMIC_ACQUIRE);
		grace_periods();
		EXPECT_EQ(before, testdev_stat("b0", "started")) {
			TH_LOG("written while frozen, round %u", round);
		}
		EXPECT_EQ(nr, __atomic_load_n(&w.nr, __ATOMIC_ACQUIRE));
		ASSERT_EQ(0, thaw(self->cached));
		/* And gets on with it. */
		EXPECT_TRUE(wait_for(__atomic_load_n(&w.nr, __ATOMIC_ACQUIRE) > nr + round % 8));
		wrote += w.nr > nr;
	}
	__atomic_store_n(&w.stop, true, __ATOMIC_RELEASE);
	pthread_join(w.thread, NULL);
	EXPECT_EQ(0, w.errors);
	EXPECT_EQ(round, wrote);
	for (slot = 0; slot < SLOTS; slot++) {
		ASSERT_EQ(LEN, pread(self->direct, self->buf, LEN, slot * LEN));
		EXPECT_EQ(-1, pattern_check(self->buf, LEN, slot * LEN, w.seeds[slot])) {
			TH_LOG("slot %u", slot);
		}
	}
}

/* The end of contexts. */

/* With a read in flight, which keeps nobody from freezing. */
TEST_F(freeze, destroyed_while_frozen)
{
	struct call destroy = { .kind = DESTROY, .aio = self->aio };
	struct iocb io;

	testdev_cmd("b0 mode hang");
	iocb_prep(&io, IOCB_CMD_PREAD, self->direct, self->buf, LEN, LEN);
	ASSERT_EQ(1, aio_submit_one(&self->aio, &io));
	testdev_cmd("b0 wait held 1");
	testdev_cmd("b0 mode now");
	ASSERT_EQ(0, freeze(self->cached));
	call_start(_metadata, &destroy);
	EXPECT_SLEEPS(&destroy);
	testdev_cmd("b0 complete all");
	EXPECT_RETURNS(0, &destroy);
	self->aio.ctx = 0;
	EXPECT_EQ(-1, pattern_check(self->buf, LEN, LEN, SEED));
	ASSERT_EQ(0, thaw(self->cached));
}

/* With one who waits in submit, or a worker that does, and who is waited for. */
TEST_F(freeze, destroyed_during_submit)
{
	struct iocb io, *iop = &io;
	struct call submit = { .kind = SUBMIT, .aio = self->aio, .nr = 1, .iocbs = &iop };
	struct call destroy = { .kind = DESTROY, .aio = self->aio };

	pattern_fill(self->buf, LEN, LEN, SEED + 1);
	iocb_prep(&io, IOCB_CMD_PWRITE, self->cached, self->buf, LEN, LEN);
	ASSERT_EQ(0, freeze(self->cached));
	call_start(_metadata, &submit);
	if (variant->ops->is_raio)
		EXPECT_RETURNS(1, &submit);
	if (!variant->ops->is_raio)
		EXPECT_SLEEPS(&submit);
	call_start(_metadata, &destroy);
	EXPECT_SLEEPS(&destroy);
	EXPECT_EQ(variant->ops->is_raio, call_over(&submit));
	ASSERT_EQ(0, thaw(self->cached));
	if (!variant->ops->is_raio)
		EXPECT_RETURNS(1, &submit);
	EXPECT_RETURNS(0, &destroy);
	self->aio.ctx = 0;
	ASSERT_EQ(LEN, pread(self->cached, self->buf, LEN, LEN));
	/* A worker may have been told in time. */
	if (pattern_check(self->buf, LEN, LEN, SEED) != -1 || !variant->ops->is_raio)
		EXPECT_EQ(-1, pattern_check(self->buf, LEN, LEN, SEED + 1));
}

/* Who is killed dies when it is over. */
TEST_F(freeze, killed_during_submit)
{
	struct iocb io, *iop = &io;
	pid_t pid;
	int status;

	pattern_fill(self->buf, LEN, LEN, SEED + 1);
	iocb_prep(&io, IOCB_CMD_PWRITE, self->direct, self->buf, LEN, LEN);
	ASSERT_EQ(0, freeze(self->cached));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct aio aio = { .ops = variant->ops, .dev = variant->ops->open() };

		if (aio_setup(&aio, 1, &aio.ctx))
			_exit(1);
		aio_submit(&aio, 1, &iop);
		/* It is killed on its way out, */
		if (aio.ops->is_raio) {
			struct io_event ev;

			/* or here. */
			aio_getevents(&aio, 1, 1, &ev, NULL);
		}
		_exit(2);
	}
	ASSERT_TRUE(wait_for(task_in_call(pid, waits_in(&self->aio), &self->aio)));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	grace_periods();
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	ASSERT_EQ(0, thaw(self->cached));
	status = wait_child(pid);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	aio_end(_metadata, &self->aio);
	self->aio.ctx = 0;
	self->aio.dev = -1;
}

TEST_HARNESS_MAIN
