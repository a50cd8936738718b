// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation and every copy from or to user space that a call makes
 * fails in turn: the call says so or does without, nothing is left behind, no
 * event is lost, and the device works.
 *
 * A fault is injected by writing N to fail-nth: the kernel lets the Nth thing
 * fail that can, in this thread. Which kind of thing it was is seen from
 * "times" in debugfs, which counts down. It needs a kernel with fault
 * injection; there is nothing to test without.
 */
#include <poll.h>

#include "raio_target.h"
#include "raio_testdev.h"

#define DEBUGFS		"/sys/kernel/debug/"
/* No call has as many things that can fail. */
#define MOST_FAULTS	3000
/* Faults that are repeated. */
#define MOST_AGAIN	16
#define MOST_REQUESTS	8
/* More than there is room for without allocating. */
#define SEGMENTS	16

/* What failed: memory of a slab, pages, a copy, what has a reserve, nothing. */
enum kind { SLAB, PAGES, COPY, OTHER, NONE, NR_KINDS };

#define NR_COUNTED	3

static const char *const kind_name[NR_KINDS] = { "slab", "pages", "copy", "other", "none" };
static const char *const kind_dir[NR_COUNTED] = { "failslab", "fail_page_alloc", "fail_usercopy" };

/* No message for each: their stacks would look like a failure. */
static struct knob {
	const char *name;
	const char *value;
	char saved[32];
} knobs[] = {
	{ .name = "failslab/ignore-gfp-wait", .value = "N" },
	{ .name = "failslab/cache-filter", .value = "N" },
	{ .name = "failslab/verbose", .value = "0" },
	{ .name = "failslab/times", .value = "1000000000" },
	{ .name = "fail_page_alloc/ignore-gfp-wait", .value = "N" },
	{ .name = "fail_page_alloc/ignore-gfp-highmem", .value = "N" },
	{ .name = "fail_page_alloc/min-order", .value = "0" },
	{ .name = "fail_page_alloc/verbose", .value = "0" },
	{ .name = "fail_page_alloc/times", .value = "1000000000" },
	{ .name = "fail_usercopy/verbose", .value = "0" },
	{ .name = "fail_usercopy/times", .value = "1000000000" },
	{ .name = "fail_mempool_alloc/verbose", .value = "0" },
};

static int knob_open(const char *name, int flags)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "%s", name);
	return open(path, flags | O_CLOEXEC);
}

static int knob_write(const struct knob *knob, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "%s", knob->name);
	return write_str(path, value);
}

/* One that this kernel does not have is passed over. */
static void knobs_set(struct __test_metadata *_metadata)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		int fd = knob_open(knobs[i].name, O_RDONLY);

		if (fd < 0 && !strncmp(knobs[i].name, "fail_mempool", 12))
			continue;
		ASSERT_LE(0, fd) {
			TH_LOG("no " DEBUGFS "%s", knobs[i].name);
		}
		memset(knobs[i].saved, 0, sizeof(knobs[i].saved));
		ASSERT_LT(0, read(fd, knobs[i].saved, sizeof(knobs[i].saved) - 1));
		close(fd);
		ASSERT_EQ(0, knob_write(&knobs[i], knobs[i].value)) {
			TH_LOG("%s", knobs[i].name);
		}
	}
}

static void knobs_restore(struct __test_metadata *_metadata)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		if (!knobs[i].saved[0])
			continue;
		EXPECT_EQ(0, knob_write(&knobs[i], knobs[i].saved)) {
			TH_LOG("%s", knobs[i].name);
		}
	}
}

/*
 * What may fail in a pass, besides copies. What slabs have left is not always
 * the same, so by itself each kind is counted more reliably than with others.
 */
static const struct pass {
	bool slab;
	bool pages;
} passes[] = {
	{ },
	{ .slab = true },
	{ .pages = true },
	{ .slab = true, .pages = true },
};

static void pass_begin(struct __test_metadata *_metadata, const struct pass *pass)
{
	const struct knob filter = { .name = "failslab/cache-filter" };
	const struct knob order = { .name = "fail_page_alloc/min-order" };

	/* No cache is marked to pass the filter, and there are no such orders. */
	ASSERT_EQ(0, knob_write(&filter, pass->slab ? "N" : "Y"));
	ASSERT_EQ(0, knob_write(&order, pass->pages ? "0" : "100"));
}

/* What is left of "times" of each kind. */
static void times_read(long *times)
{
	unsigned int i;

	for (i = 0; i < NR_COUNTED; i++) {
		char name[64], buf[32] = "";
		int fd;

		snprintf(name, sizeof(name), "%s/times", kind_dir[i]);
		fd = knob_open(name, O_RDONLY);
		if (fd < 0 || read(fd, buf, sizeof(buf) - 1) <= 0)
			ksft_exit_fail_msg("%s can't be read\n", name);
		close(fd);
		times[i] = strtol(buf, NULL, 10);
	}
}

/*
 * Makes one system call in which the @n th thing fails, and says in @kind
 * what that was. Nothing else may happen before it is known whether the fault
 * is used up.
 */
static long inject(int nth, unsigned int n, long (*call)(void *), void *data, enum kind *kind)
{
	long before[NR_COUNTED], after[NR_COUNTED], ret, len;
	char buf[16];
	bool used;

	times_read(before);
	len = snprintf(buf, sizeof(buf), "%u", n);
	if (pwrite(nth, buf, len, 0) != len)
		ksft_exit_fail_msg("fail-nth can't be written\n");
	ret = call(data);
	len = pread(nth, buf, sizeof(buf) - 1, 0);
	/* If it was left, this copy may have been the one that failed. */
	buf[len > 0 ? len : 0] = 0;
	used = len > 0 && !strtoul(buf, NULL, 10);
	while (pwrite(nth, "0", 1, 0) != 1)
		;
	times_read(after);
	if (!used)
		*kind = NONE;
	else
		for (*kind = SLAB; *kind < NR_COUNTED && before[*kind] == after[*kind]; (*kind)++)
			;
	return ret;
}

/* What must be the same after each call, whatever failed in it. */
struct rest {
	long contexts;
	long requests;
	long ring_bytes;
	unsigned int fds;
	unsigned int rings;
};

static long sysctl_get(const char *name)
{
	char path[128], buf[32] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/fs/raio/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, buf, sizeof(buf) - 1) <= 0)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	close(fd);
	return strtol(buf, NULL, 10);
}

static unsigned int count_rings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned int n = 0;
	char line[512];

	if (!f)
		ksft_exit_fail_msg("/proc/self/maps: %s\n", strerror(errno));
	while (fgets(line, sizeof(line), f))
		n += !!strstr(line, "[raio]");
	fclose(f);
	return n;
}

static struct rest rest_now(void)
{
	return (struct rest){
		.contexts = sysctl_get("nr_contexts"),
		.requests = sysctl_get("nr_requests"),
		.ring_bytes = sysctl_get("nr_ring_bytes"),
		.fds = count_fds(),
		.rings = count_rings(),
	};
}

struct state {
	/* fail-nth of this thread. */
	int nth;
	struct raio_stats before;
	struct rest rest;
	struct target target;
	/* For what the calls need. */
	int dev;
	int zero;
	aio_context_t ctx;
	size_t ring_size;
	unsigned int nr_events;
	/* What is registered, and the submission array if there is one. */
	int file;
	struct iocb *sq;
	struct iocb io[MOST_REQUESTS];
	struct iocb *iop[MOST_REQUESTS];
	struct iovec iov[MOST_REQUESTS][SEGMENTS];
	struct io_event *ev;
	struct __kernel_timespec *timeout;
	char *buf;
	unsigned int nr;
	int opcode;
	/* The result of a request in which nothing fails. */
	long whole;
	uint64_t seed;
	bool handle_refused;
	/* Calls that took some of the requests. */
	unsigned int partly;
};

/* The device does what it is for: data written is read back. */
static void expect_works(struct __test_metadata *_metadata, struct state *self)
{
	struct aio aio = { .ops = &raio, .dev = self->dev };
	char *buf = self->buf + MOST_REQUESTS * PAGE;
	struct iocb io;

	if (self->dev < 0)
		aio.dev = raio_open();
	ASSERT_EQ(0, raio_setup(aio.dev, 4, &aio.ctx));
	pattern_fill(buf, PAGE, 0, SEED_NEW);
	iocb_prep(&io, IOCB_CMD_PWRITE, self->zero, buf, PAGE, 0);
	EXPECT_RESULT(PAGE, &aio, &io);
	memset(buf, 0, PAGE);
	iocb_prep(&io, IOCB_CMD_PREAD, self->zero, buf, PAGE, 0);
	EXPECT_RESULT(PAGE, &aio, &io);
	EXPECT_EQ(-1, pattern_check(buf, PAGE, 0, SEED_NEW));
	EXPECT_EQ(0, raio_destroy(aio.dev, aio.ctx));
	if (self->dev < 0)
		close(aio.dev);
}

static void expect_rest(struct __test_metadata *_metadata, struct state *self)
{
	struct rest now = rest_now();

	EXPECT_EQ(self->rest.contexts, now.contexts);
	EXPECT_EQ(self->rest.requests, now.requests);
	EXPECT_EQ(self->rest.ring_bytes, now.ring_bytes);
	EXPECT_EQ(self->rest.fds, now.fds) {
		TH_LOG("descriptors");
	}
	EXPECT_EQ(self->rest.rings, now.rings) {
		TH_LOG("mappings of a ring");
	}
}

static void state_begin(struct __test_metadata *_metadata, struct state *self)
{
	unsigned int i;

	self->nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->nth);
	self->target.fd = -1;
	self->dev = raio_open();
	ASSERT_LE(0, self->dev);
	/* A read of it ends in submit, for it is in the page cache, and has no time to note. */
	self->zero = temp_file(ext4_dir(), O_RDWR | O_NOATIME);
	ASSERT_LE(0, self->zero);
	self->buf = map_pages((MOST_REQUESTS + 1) * PAGE);
	pattern_fill(self->buf, (MOST_REQUESTS + 1) * PAGE, 0, SEED_OLD);
	self->ev = map_pages(PAGE);
	self->timeout = map_pages(PAGE);
	self->timeout->tv_sec = WAIT_SECONDS;
	ASSERT_TRUE(wait_for(!sysctl_get("nr_contexts")));
	/* What is allocated once and for all is there then. */
	for (i = 0; i < 20; i++)
		expect_works(_metadata, self);
	knobs_set(_metadata);
	ASSERT_EQ(0, raio_stats(self->dev, &self->before));
	self->rest = rest_now();
}

static void state_end(struct __test_metadata *_metadata, struct state *self)
{
	struct raio_stats after;

	knobs_restore(_metadata);
	close(self->nth);
	if (self->dev < 0)
		self->dev = raio_open();
	EXPECT_EQ(0, raio_stats(self->dev, &after));
	EXPECT_EQ(after.setups - self->before.setups, after.frees - self->before.frees);
	EXPECT_EQ(after.submitted - self->before.submitted,
		  after.completed - self->before.completed);
	EXPECT_EQ(after.completed - self->before.completed, after.reaped - self->before.reaped);
	close(self->dev);
	if (self->target.fd >= 0)
		target_close(&self->target);
}

/**
 * struct sweep - one kind of call, made until nothing fails in it any more
 * @name:	for the diagnostics
 * @prepare:	makes what the call needs, or NULL
 * @call:	one system call
 * @check:	is told what it returned and what had failed in it, and undoes it
 * @errors:	errors that there must be at least, by what they are for
 * @faults:	faults that there must be at least, whatever comes of them
 */
struct sweep {
	const char *name;
	void (*prepare)(struct __test_metadata *_metadata, struct state *self);
	long (*call)(void *self);
	void (*check)(struct __test_metadata *_metadata, struct state *self, long ret,
		      enum kind kind);
	unsigned int errors[NR_COUNTED];
	unsigned int faults;
};

struct tally {
	unsigned int faults[NR_KINDS];
	unsigned int errors[NR_KINDS];
	unsigned int all;
};

static void most_of(struct tally *most, const struct tally *other)
{
	unsigned int i;

	for (i = 0; i < NR_KINDS; i++)
		if (other->errors[i] > most->errors[i])
			most->errors[i] = other->errors[i];
	if (other->all > most->all)
		most->all = other->all;
}

static void print_tally(const char *name, const struct tally *tally)
{
	ksft_print_msg("%s: faults (errors): slab %u (%u), pages %u (%u), copies %u (%u), other %u (%u)\n",
		       name, tally->faults[SLAB], tally->errors[SLAB], tally->faults[PAGES],
		       tally->errors[PAGES], tally->faults[COPY], tally->errors[COPY],
		       tally->faults[OTHER], tally->errors[OTHER]);
}

static void expect_enough(struct __test_metadata *_metadata, const struct sweep *sweep,
			  const struct tally *most)
{
	unsigned int i;

	for (i = 0; i < NR_COUNTED; i++) {
		EXPECT_LE(sweep->errors[i], most->errors[i]) {
			TH_LOG("%s: too few errors for %s", sweep->name, kind_name[i]);
		}
	}
	EXPECT_LE(sweep->faults, most->all) {
		TH_LOG("%s: too few faults", sweep->name);
	}
}

/* The @n th fault. Returns its kind. */
static enum kind sweep_one(struct __test_metadata *_metadata, struct state *self,
			   const struct sweep *sweep, unsigned int n, struct tally *tally)
{
	enum kind kind;
	long ret;

	if (sweep->prepare)
		sweep->prepare(_metadata, self);
	ret = inject(self->nth, n, sweep->call, self, &kind);
	sweep->check(_metadata, self, ret, kind);
	expect_works(_metadata, self);
	expect_rest(_metadata, self);
	tally->faults[kind]++;
	tally->errors[kind] += ret < 0;
	tally->all += kind != NONE;
	if (_metadata->exit_code != KSFT_PASS)
		TH_LOG("%s, fault %u (%s), returned %ld", sweep->name, n, kind_name[kind], ret);
	return kind;
}

static void run_sweep(struct __test_metadata *_metadata, struct state *self,
		      const struct sweep *sweep)
{
	struct tally most = { };
	unsigned int i, n;

	for (i = 0; i < ARRAY_SIZE(passes); i++) {
		struct tally tally = { };
		enum kind kind = OTHER;
		unsigned int again = 0;

		pass_begin(_metadata, &passes[i]);
		self->handle_refused = false;
		for (n = 1; kind != NONE && _metadata->exit_code == KSFT_PASS; n++) {
			unsigned int errors = tally.errors[PAGES];

			ASSERT_GE(MOST_FAULTS, n);
			kind = sweep_one(_metadata, self, sweep, n, &tally);
			/*
			 * A slab was made of fewer pages instead, and will be there the
			 * next time: then what would have come next has this number.
			 */
			if (kind == PAGES && tally.errors[PAGES] == errors && again++ < MOST_AGAIN)
				n--;
		}
		print_tally(sweep->name, &tally);
		most_of(&most, &tally);
	}
	expect_enough(_metadata, sweep, &most);
}

/* The only error that what has failed may give, or 0. */
static long error_of(enum kind kind)
{
	switch (kind) {
	case SLAB:
	case PAGES:
		return -ENOMEM;
	case COPY:
		return -EFAULT;
	default:
		return 0;
	}
}

static void expect_error(struct __test_metadata *_metadata, long ret, enum kind kind)
{
	if (ret < 0) {
		EXPECT_EQ(error_of(kind), ret) {
			TH_LOG("when %s failed", kind_name[kind]);
		}
	}
}

/*
 * A call on a context reads its id from the ring. If that can't be read it is
 * no handle: EINVAL, but for this one reason only.
 */
static bool handle_refused(struct __test_metadata *_metadata, struct state *self, long ret,
			   enum kind kind)
{
	if (ret != -EINVAL)
		return false;
	EXPECT_EQ(COPY, kind);
	EXPECT_FALSE(self->handle_refused) {
		TH_LOG("EINVAL twice");
	}
	self->handle_refused = true;
	return true;
}

static void make_context(struct __test_metadata *_metadata, struct state *self)
{
	struct raio_setup arg = { .nr_events = self->nr_events, .ctxp = (uintptr_t)&self->ctx };

	self->ctx = 0;
	ASSERT_EQ(0, raio_ioctl(self->dev, RAIO_IOC_SETUP, &arg));
	self->ring_size = arg.ring_size;
	/* In this process's page table. */
	EXPECT_EQ(RAIO_RING_MAGIC, aio_ring(self->ctx)->magic);
	EXPECT_EQ(0, ring_reap(self->ctx, 1, self->ev));
}

FIXTURE(faults)
{
	struct state state;
};

FIXTURE_SETUP(faults)
{
	state_begin(_metadata, &self->state);
}

FIXTURE_TEARDOWN(faults)
{
	state_end(_metadata, &self->state);
}

/* Opening the device. */

static long call_open(void *data)
{
	(void)data;
	return raio_open();
}

static void check_open(struct __test_metadata *_metadata, struct state *self, long ret, enum kind kind)
{
	(void)self;
	expect_error(_metadata, ret, kind);
	if (ret >= 0)
		close(ret);
}

TEST_F_TIMEOUT(faults, open, 300)
{
	const struct sweep sweep = {
		.name = "open",
		.call = call_open,
		.check = check_open,
		.errors = { [SLAB] = 3, [COPY] = 1 },
	};

	run_sweep(_metadata, &self->state, &sweep);
}

/* RAIO_IOC_SETUP */

static void prepare_setup(struct __test_metadata *_metadata, struct state *self)
{
	(void)_metadata;
	self->ctx = 0;
}

static long call_setup(void *data)
{
	struct state *self = data;

	return raio_setup(self->dev, self->nr_events, &self->ctx);
}

static void check_setup(struct __test_metadata *_metadata, struct state *self, long ret, enum kind kind)
{
	expect_error(_metadata, ret, kind);
	/* An error may have a handle, but there is nothing behind it. */
	if (self->ctx) {
		EXPECT_EQ(ret ? -EINVAL : 0, raio_destroy(self->dev, self->ctx)) {
			TH_LOG("after %ld", ret);
		}
	}
}

TEST_F_TIMEOUT(faults, setup_page, 300)
{
	const struct sweep sweep = {
		.name = "setup, a page",
		.prepare = prepare_setup,
		.call = call_setup,
		.check = check_setup,
		.errors = { [SLAB] = 10, [PAGES] = 1, [COPY] = 4 },
	};

	self->state.nr_events = 1;
	run_sweep(_metadata, &self->state, &sweep);
}

TEST_F_TIMEOUT(faults, setup_pages, 300)
{
	const struct sweep sweep = {
		.name = "setup, ten pages",
		.prepare = prepare_setup,
		.call = call_setup,
		.check = check_setup,
		.errors = { [SLAB] = 10, [PAGES] = 9, [COPY] = 4 },
	};

	self->state.nr_events = 10 * PAGE / sizeof(struct io_event) - 2;
	run_sweep(_metadata, &self->state, &sweep);
}

/* With all that there can be besides. */
static long call_setup_all(void *data)
{
	struct state *self = data;
	struct raio_setup arg = {
		.nr_events = self->nr_events,
		.ctxp = (uintptr_t)&self->ctx,
		.flags = RAIO_SETUP_IOPOLL,
		.sq_nr = 3 * PAGE / sizeof(struct iocb),
		.nr_buffers = 1,
		.nr_files = 1,
	};

	return raio_ioctl(self->dev, RAIO_IOC_SETUP, &arg);
}

TEST_F_TIMEOUT(faults, setup_all, 300)
{
	const struct sweep sweep = {
		.name = "setup, with an array and tables, polled",
		.prepare = prepare_setup,
		.call = call_setup_all,
		.check = check_setup,
		/* Three pages more, and the tables. */
		.errors = { [SLAB] = 12, [PAGES] = 4, [COPY] = 4 },
	};

	self->state.nr_events = 1;
	run_sweep(_metadata, &self->state, &sweep);
}

/* RAIO_IOC_DESTROY, and the other ways in which a context ends */

static long call_destroy(void *data)
{
	struct state *self = data;

	return raio_destroy(self->dev, self->ctx);
}

/* No memory is no reason to keep a context. */
static void check_destroy(struct __test_metadata *_metadata, struct state *self, long ret,
			  enum kind kind)
{
	if (ret && !handle_refused(_metadata, self, ret, kind)) {
		EXPECT_EQ(-EFAULT, ret);
		EXPECT_EQ(COPY, kind);
	}
	EXPECT_EQ(ret ? 0 : -EINVAL, raio_destroy(self->dev, self->ctx));
}

TEST_F_TIMEOUT(faults, destroy, 300)
{
	const struct sweep sweep = {
		.name = "destroy",
		.prepare = make_context,
		.call = call_destroy,
		.check = check_destroy,
		.errors = { [COPY] = 2 },
	};

	self->state.nr_events = 100;
	run_sweep(_metadata, &self->state, &sweep);
}

static long call_close(void *data)
{
	struct state *self = data;

	return ret_errno(close(self->dev));
}

/* The descriptor is gone in any case, and all contexts with it. */
static void check_close(struct __test_metadata *_metadata, struct state *self, long ret, enum kind kind)
{
	struct rest now = rest_now();

	(void)kind;
	EXPECT_EQ(0, ret);
	EXPECT_EQ(self->rest.contexts, now.contexts);
	EXPECT_EQ(self->rest.rings, now.rings);
	self->dev = raio_open();
	ASSERT_LE(0, self->dev);
}

static void make_contexts(struct __test_metadata *_metadata, struct state *self)
{
	make_context(_metadata, self);
	make_context(_metadata, self);
	make_context(_metadata, self);
}

TEST_F_TIMEOUT(faults, close, 300)
{
	const struct sweep sweep = {
		.name = "close",
		.prepare = make_contexts,
		.call = call_close,
		.check = check_close,
	};

	self->state.nr_events = 100;
	run_sweep(_metadata, &self->state, &sweep);
}

static long call_munmap(void *data)
{
	struct state *self = data;

	return ret_errno(munmap((void *)self->ctx, self->ring_size));
}

/* The context ends if the ring is gone, and is whole otherwise. */
static void check_munmap(struct __test_metadata *_metadata, struct state *self, long ret,
			 enum kind kind)
{
	expect_error(_metadata, ret, kind);
	if (ret) {
		EXPECT_EQ(0, raio_destroy(self->dev, self->ctx)) {
			TH_LOG("after %ld", ret);
		}
	}
	EXPECT_TRUE(wait_for(sysctl_get("nr_contexts") == self->rest.contexts));
}

TEST_F_TIMEOUT(faults, munmap, 300)
{
	const struct sweep sweep = {
		.name = "munmap",
		.prepare = make_context,
		.call = call_munmap,
		.check = check_munmap,
	};

	self->state.nr_events = 100;
	run_sweep(_metadata, &self->state, &sweep);
}

/* RAIO_IOC_GETEVENTS */

static void prepare_events(struct __test_metadata *_metadata, struct state *self)
{
	unsigned int i;

	for (i = 0; i < self->nr; i++) {
		iocb_prep(&self->io[i], IOCB_CMD_PREAD, self->zero, self->buf + i * PAGE, PAGE, 0);
		self->iop[i] = &self->io[i];
	}
	ASSERT_EQ(self->nr, raio_submit(self->dev, self->ctx, self->nr, self->iop));
	memset(self->ev, 0xee, PAGE);
}

static long call_getevents(void *data)
{
	struct state *self = data;

	return raio_getevents(self->dev, self->ctx, self->nr, self->nr, self->ev, self->timeout);
}

/* Events that were not copied are there still, in their order. */
static void check_getevents(struct __test_metadata *_metadata, struct state *self, long ret,
			    enum kind kind)
{
	struct aio aio = { .ops = &raio, .dev = self->dev, .ctx = self->ctx };
	long left = self->nr - (ret > 0 ? ret : 0);
	unsigned int i;

	if (!handle_refused(_metadata, self, ret, kind))
		expect_error(_metadata, ret, kind);
	EXPECT_GE(self->nr, ret);
	if (ret >= 0 && ret < self->nr) {
		EXPECT_EQ(COPY, kind) {
			TH_LOG("only %ld of %u events", ret, self->nr);
		}
	}
	EXPECT_EQ(left, aio_poll(&aio, self->nr + 1, self->ev + self->nr - left));
	for (i = 0; i < self->nr; i++)
		EXPECT_EVENT(&self->ev[i], &self->io[i], PAGE);
}

static void begin_getevents(struct __test_metadata *_metadata, struct state *self)
{
	ASSERT_EQ(PAGE, pwrite(self->zero, self->buf, PAGE, 0));
	self->nr_events = 1;
	self->nr = 5;
	make_context(_metadata, self);
	self->rest = rest_now();
}

TEST_F_TIMEOUT(faults, getevents, 300)
{
	const struct sweep sweep = {
		.name = "getevents",
		.prepare = prepare_events,
		.call = call_getevents,
		.check = check_getevents,
		/* The arguments, the time in two halves, the handle, the events. */
		.errors = { [COPY] = 5 },
	};

	begin_getevents(_metadata, &self->state);
	run_sweep(_metadata, &self->state, &sweep);
	EXPECT_EQ(0, raio_destroy(self->state.dev, self->state.ctx));
}

static long call_pgetevents(void *data)
{
	struct state *self = data;
	sigset_t mask;

	sigfillset(&mask);
	return raio_pgetevents(self->dev, self->ctx, self->nr, self->nr, self->ev, self->timeout,
			       &mask, MASK_SIZE);
}

TEST_F_TIMEOUT(faults, pgetevents, 300)
{
	const struct sweep sweep = {
		.name = "getevents with a signal mask",
		.prepare = prepare_events,
		.call = call_pgetevents,
		.check = check_getevents,
		/* The mask besides. */
		.errors = { [COPY] = 6 },
	};

	begin_getevents(_metadata, &self->state);
	run_sweep(_metadata, &self->state, &sweep);
	EXPECT_EQ(0, raio_destroy(self->state.dev, self->state.ctx));
}

/* The events lie around the end of the ring, so that there are two copies. */
static void prepare_lap(struct __test_metadata *_metadata, struct state *self)
{
	const struct raio_ring *ring = aio_ring(self->ctx);
	const unsigned int nr = self->nr;

	while (ring->tail != ring->nr - 2) {
		unsigned int left = (2 * ring->nr - 2 - ring->tail) % ring->nr;

		self->nr = left < MOST_REQUESTS ? left : MOST_REQUESTS;
		prepare_events(_metadata, self);
		ASSERT_EQ(self->nr, raio_getevents(self->dev, self->ctx, 0, self->nr, self->ev,
						   self->timeout));
	}
	self->nr = nr;
	prepare_events(_metadata, self);
}

TEST_F_TIMEOUT(faults, getevents_lap, 300)
{
	const struct sweep sweep = {
		.name = "getevents at the end of the ring",
		.prepare = prepare_lap,
		.call = call_getevents,
		.check = check_getevents,
		.errors = { [COPY] = 6 },
	};

	begin_getevents(_metadata, &self->state);
	run_sweep(_metadata, &self->state, &sweep);
	EXPECT_EQ(0, raio_destroy(self->state.dev, self->state.ctx));
}

/* RAIO_IOC_SUBMIT, of one request and of many, on each way that data goes. */
FIXTURE(submit)
{
	struct state state;
};

FIXTURE_VARIANT(submit)
{
	const char *name;
	enum where where;
	int flags;
	int opcode;
};

FIXTURE_VARIANT_ADD(submit, tmpfs_write)
{
	.name = "tmpfs, write",
	.where = TMPFS,
	.opcode = IOCB_CMD_PWRITE,
};

FIXTURE_VARIANT_ADD(submit, ext4_read)
{
	.name = "ext4, read",
	.where = EXT4,
	.opcode = IOCB_CMD_PREAD,
};

FIXTURE_VARIANT_ADD(submit, ext4_direct_read)
{
	.name = "ext4, direct read",
	.where = EXT4,
	.flags = O_DIRECT,
	.opcode = IOCB_CMD_PREAD,
};

FIXTURE_VARIANT_ADD(submit, ext4_direct_write)
{
	.name = "ext4, direct write",
	.where = EXT4,
	.flags = O_DIRECT,
	.opcode = IOCB_CMD_PWRITE,
};

/* These take the direct path. */
FIXTURE_VARIANT_ADD(submit, disk_read)
{
	.name = "disk, direct read",
	.where = NULL_BLK,
	.flags = O_DIRECT,
	.opcode = IOCB_CMD_PREAD,
};

FIXTURE_VARIANT_ADD(submit, disk_write)
{
	.name = "disk, direct write",
	.where = NULL_BLK,
	.flags = O_DIRECT,
	.opcode = IOCB_CMD_PWRITE,
};

FIXTURE_VARIANT_ADD(submit, tmpfs_vector_write)
{
	.name = "tmpfs, write of a vector",
	.where = TMPFS,
	.opcode = IOCB_CMD_PWRITEV,
};

FIXTURE_VARIANT_ADD(submit, ext4_sync)
{
	.name = "ext4, sync",
	.where = EXT4,
	.opcode = IOCB_CMD_FSYNC,
};

FIXTURE_SETUP(submit)
{
	struct state *s = &self->state;

	state_begin(_metadata, s);
	s->target = (struct target){ .where = variant->where, .flags = variant->flags };
	target_open(_metadata, &s->target);
	target_fill(_metadata, &s->target, MOST_REQUESTS * PAGE, SEED_OLD);
	ASSERT_EQ(0, fsync(s->target.fd));
	s->opcode = variant->opcode;
	s->whole = variant->opcode == IOCB_CMD_FSYNC ? 0 : PAGE;
	s->nr_events = 2 * MOST_REQUESTS;
	make_context(_metadata, s);
	s->rest = rest_now();
}

FIXTURE_TEARDOWN(submit)
{
	EXPECT_EQ(0, raio_destroy(self->state.dev, self->state.ctx));
	state_end(_metadata, &self->state);
}

static void prepare_submit(struct __test_metadata *_metadata, struct state *self)
{
	const int fd = self->target.fd;
	unsigned int i, j;

	if (self->opcode == IOCB_CMD_PWRITE || self->opcode == IOCB_CMD_PWRITEV)
		pattern_fill(self->buf, self->nr * PAGE, 0, ++self->seed);
	else
		memset(self->buf, 0xee, self->nr * PAGE);
	/* Memory for the data is needed again. */
	if (self->target.where == TMPFS) {
		ASSERT_EQ(0, ftruncate(fd, 0));
		ASSERT_EQ(0, ftruncate(fd, FILE_SIZE));
	} else if (!self->target.flags) {
		ASSERT_EQ(0, posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	}
	for (i = 0; i < self->nr; i++) {
		char *buf = self->buf + i * PAGE;

		for (j = 0; j < SEGMENTS; j++) {
			self->iov[i][j].iov_base = buf + j * (PAGE / SEGMENTS);
			self->iov[i][j].iov_len = PAGE / SEGMENTS;
		}
		if (self->opcode == IOCB_CMD_FSYNC)
			iocb_prep(&self->io[i], self->opcode, fd, NULL, 0, 0);
		else if (self->opcode == IOCB_CMD_PWRITEV)
			iocb_prep(&self->io[i], self->opcode, fd, self->iov[i], SEGMENTS, i * PAGE);
		else
			iocb_prep(&self->io[i], self->opcode, fd, buf, PAGE, i * PAGE);
		self->iop[i] = &self->io[i];
	}
}

static long call_submit(void *data)
{
	struct state *self = data;

	return raio_submit(self->dev, self->ctx, self->nr, self->iop);
}

/*
 * The event of a request in which something has failed perhaps. False if it
 * has not read or written all.
 */
static bool event_is_whole(struct __test_metadata *_metadata, struct state *self,
			   const struct io_event *ev, enum kind kind)
{
	const struct iocb *io = event_iocb(ev);

	EXPECT_EQ(io->aio_data, ev->data);
	EXPECT_TRUE(io >= self->io && io < self->io + self->nr);
	if (ev->res == self->whole)
		return true;
	EXPECT_NE(NONE, kind);
	EXPECT_GT(self->whole, ev->res);
	expect_error(_metadata, ev->res, kind);
	return false;
}

/* All events of @nr requests. Returns a mask of those requests that are done. */
static unsigned int reap_submitted(struct __test_metadata *_metadata, struct state *self, long nr,
				   enum kind kind)
{
	struct aio aio = { .ops = &raio, .dev = self->dev, .ctx = self->ctx };
	unsigned int seen = 0, done = 0, i, bit;

	EXPECT_EQ(nr, aio_wait(&aio, nr, self->ev));
	EXPECT_EQ(0, aio_poll(&aio, 1, self->ev + nr));
	for (i = 0; i < nr; i++) {
		bit = 1u << (event_iocb(&self->ev[i]) - self->io);
		EXPECT_EQ(0, seen & bit) {
			TH_LOG("a second event for request %#x", bit);
		}
		seen |= bit;
		if (event_is_whole(_metadata, self, &self->ev[i], kind))
			done |= bit;
	}
	/* Those that were taken are the first ones. */
	EXPECT_EQ((1u << nr) - 1, seen);
	return done;
}

static void check_data(struct __test_metadata *_metadata, struct state *self)
{
	const size_t len = self->nr * PAGE;
	char *buf = self->buf;

	if (self->opcode == IOCB_CMD_FSYNC)
		return;
	if (self->opcode == IOCB_CMD_PREAD) {
		EXPECT_EQ(-1, pattern_check(buf, len, 0, SEED_OLD));
		return;
	}
	memset(buf, 0, len);
	EXPECT_EQ(len, pread(self->target.fd, buf, len, 0));
	EXPECT_EQ(-1, pattern_check(buf, len, 0, self->seed));
}

/* A call that does something to @most has done so to some, as far as nothing had failed. */
static void check_some(struct __test_metadata *_metadata, struct state *self, long ret,
		       unsigned int most, enum kind kind)
{
	if (ret < 0 && !handle_refused(_metadata, self, ret, kind))
		expect_error(_metadata, ret, kind);
	EXPECT_NE(0, ret);
	EXPECT_GE(most, ret);
	if (ret < most) {
		EXPECT_NE(NONE, kind) {
			TH_LOG("%ld of %u, and nothing had failed", ret, most);
		}
	}
	self->partly += ret > 0 && ret < most;
}

/* What was not taken, or failed, is done once more, and then all is there. */
static void check_submit(struct __test_metadata *_metadata, struct state *self, long ret,
			 enum kind kind)
{
	struct aio aio = { .ops = &raio, .dev = self->dev, .ctx = self->ctx };
	unsigned int done, i;

	check_some(_metadata, self, ret, self->nr, kind);
	done = reap_submitted(_metadata, self, ret < 0 ? 0 : ret, kind);
	for (i = 0; i < self->nr; i++) {
		if (!(done & 1u << i))
			EXPECT_RESULT(self->whole, &aio, &self->io[i]);
	}
	check_data(_metadata, self);
}

static void sweep_submit(struct __test_metadata *_metadata, struct state *self, const char *name,
			 unsigned int nr)
{
	const bool vector = self->opcode == IOCB_CMD_PWRITEV;
	/* On the direct path nothing is allocated. */
	const bool request = self->target.where != NULL_BLK;
	const struct sweep sweep = {
		.name = name,
		.prepare = prepare_submit,
		.call = call_submit,
		.check = check_submit,
		/*
		 * The request, the vector; the arguments, the handle, a pointer, the
		 * iocb, its key. (Where a vector is copied nothing is made to fail.)
		 */
		.errors = { [SLAB] = request + vector, [COPY] = 5 },
		.faults = 2 + (3 + request) * nr,
	};

	self->nr = nr;
	ksft_print_msg("submit of %u\n", nr);
	run_sweep(_metadata, self, &sweep);
}

TEST_F_TIMEOUT(submit, one, 300)
{
	sweep_submit(_metadata, &self->state, variant->name, 1);
}

TEST_F_TIMEOUT(submit, many, 300)
{
	sweep_submit(_metadata, &self->state, variant->name, MOST_REQUESTS);
	/* A pointer, an iocb, a key in each pass. */
	EXPECT_LE(ARRAY_SIZE(passes) * 3 * (MOST_REQUESTS - 2), self->state.partly);
}

/* RAIO_IOC_BUFFERS and RAIO_IOC_FILES, and RAIO_IOC_ENTER with what is registered. */

#define REGISTERED	4

FIXTURE(native)
{
	struct state state;
};

FIXTURE_VARIANT(native)
{
	unsigned int flags;
	unsigned int sq_nr;
	/* What is allocated for a request, and copied for each. */
	unsigned int requests;
	unsigned int copies;
};

FIXTURE_VARIANT_ADD(native, memory)
{
	.requests = 1,
	.copies = 1,
};

FIXTURE_VARIANT_ADD(native, array)
{
	.sq_nr = MOST_REQUESTS,
	.requests = 1,
};

/* A disk, on the direct path. */
FIXTURE_VARIANT_ADD(native, polled)
{
	.flags = RAIO_SETUP_IOPOLL,
	.copies = 1,
};

FIXTURE_VARIANT_ADD(native, polled_array)
{
	.flags = RAIO_SETUP_IOPOLL,
	.sq_nr = MOST_REQUESTS,
};

FIXTURE_SETUP(native)
{
	struct state *s = &self->state;
	struct raio_setup arg = {
		.nr_events = 2 * MOST_REQUESTS,
		.ctxp = (uintptr_t)&s->ctx,
		.flags = variant->flags,
		.sq_nr = variant->sq_nr,
		.nr_buffers = REGISTERED,
		.nr_files = REGISTERED,
	};

	state_begin(_metadata, s);
	s->file = s->zero;
	if (variant->flags & RAIO_SETUP_IOPOLL) {
		s->target = (struct target){ .where = NULL_BLK, .flags = O_DIRECT };
		target_open(_metadata, &s->target);
		s->file = s->target.fd;
	}
	s->ctx = 0;
	ASSERT_EQ(0, raio_ioctl(s->dev, RAIO_IOC_SETUP, &arg));
	if (variant->sq_nr)
		s->sq = (void *)(uintptr_t)(arg.ctx + arg.sq_offset);
	s->rest = rest_now();
}

FIXTURE_TEARDOWN(native)
{
	EXPECT_EQ(0, raio_destroy(self->state.dev, self->state.ctx));
	state_end(_metadata, &self->state);
}

/* All of them, or none. */
static long set_buffers(struct state *self, bool there)
{
	struct raio_buffer buffers[REGISTERED] = { };
	struct raio_register arg = {
		.ctx = self->ctx,
		.nr = REGISTERED,
		.array = (uintptr_t)buffers,
	};
	unsigned int i;

	for (i = 0; i < REGISTERED && there; i++) {
		buffers[i].addr = (uintptr_t)self->buf + i * PAGE;
		buffers[i].len = 2 * PAGE;
	}
	return raio_ioctl(self->dev, RAIO_IOC_BUFFERS, &arg);
}

static long set_files(struct state *self, bool there)
{
	int files[REGISTERED];
	struct raio_register arg = {
		.ctx = self->ctx,
		.nr = REGISTERED,
		.array = (uintptr_t)files,
	};
	unsigned int i;

	for (i = 0; i < REGISTERED; i++)
		files[i] = there ? self->file : -1;
	return raio_ioctl(self->dev, RAIO_IOC_FILES, &arg);
}

static long call_buffers(void *data)
{
	return set_buffers(data, true);
}

static long call_files(void *data)
{
	return set_files(data, true);
}

static void check_buffers(struct __test_metadata *_metadata, struct state *self, long ret,
			  enum kind kind)
{
	check_some(_metadata, self, ret, REGISTERED, kind);
	EXPECT_EQ(REGISTERED, set_buffers(self, false));
}

static void check_files(struct __test_metadata *_metadata, struct state *self, long ret,
			enum kind kind)
{
	check_some(_metadata, self, ret, REGISTERED, kind);
	EXPECT_EQ(REGISTERED, set_files(self, false));
}

TEST_F_TIMEOUT(native, buffers, 300)
{
	const struct sweep sweep = {
		.name = "buffers",
		.call = call_buffers,
		.check = check_buffers,
		/* Each: where it is, what it says; and the arguments, the handle. */
		.errors = { [SLAB] = 1, [COPY] = 3 },
		.faults = 2 * REGISTERED,
	};

	run_sweep(_metadata, &self->state, &sweep);
	EXPECT_LT(0, self->state.partly);
}

TEST_F_TIMEOUT(native, files, 300)
{
	const struct sweep sweep = {
		.name = "files",
		.call = call_files,
		.check = check_files,
		.errors = { [COPY] = 3 },
		.faults = REGISTERED,
	};

	run_sweep(_metadata, &self->state, &sweep);
	EXPECT_LT(0, self->state.partly);
}

static void prepare_enter(struct __test_metadata *_metadata, struct state *self)
{
	unsigned int i;

	(void)_metadata;
	memset(self->buf, 0xee, self->nr * PAGE);
	for (i = 0; i < self->nr; i++) {
		struct iocb *io = &self->io[i];

		iocb_prep(io, IOCB_CMD_PREAD, i % REGISTERED, self->buf + i % REGISTERED * PAGE, PAGE, 0);
		io->aio_data = (uintptr_t)io;
		io->aio_flags = RAIO_IOCB_FIXED_FILE | RAIO_IOCB_FIXED_BUF;
		io->aio_reserved2 = i % REGISTERED;
		if (self->sq)
			self->sq[i] = *io;
	}
}

static long call_enter(void *data)
{
	struct state *self = data;
	struct raio_enter arg = {
		.ctx = self->ctx,
		.iocbs = self->sq ? 0 : (uintptr_t)self->io,
		.nr = self->nr,
		.min_nr = self->nr,
		.flags = self->sq ? RAIO_ENTER_SQ : 0,
		.timeout = (uintptr_t)self->timeout,
	};

	return raio_ioctl(self->dev, RAIO_IOC_ENTER, &arg);
}

static void check_enter(struct __test_metadata *_metadata, struct state *self, long ret,
			enum kind kind)
{
	check_some(_metadata, self, ret, self->nr, kind);
	reap_submitted(_metadata, self, ret < 0 ? 0 : ret, kind);
}

TEST_F_TIMEOUT(native, enter, 300)
{
	const struct sweep sweep = {
		.name = "enter",
		.prepare = prepare_enter,
		.call = call_enter,
		.check = check_enter,
		/* The request; the arguments, the time, the handle, an iocb. */
		.errors = { [SLAB] = variant->requests, [COPY] = 3 + variant->copies },
		.faults = 3 + variant->requests + variant->copies * MOST_REQUESTS,
	};
	struct state *s = &self->state;
	struct raio_stats before;

	ASSERT_EQ(REGISTERED, set_buffers(s, true));
	ASSERT_EQ(REGISTERED, set_files(s, true));
	s->nr = MOST_REQUESTS;
	s->whole = PAGE;
	stats_now(_metadata, &before);
	run_sweep(_metadata, s, &sweep);
	if (variant->requests || variant->copies)
		EXPECT_LT(0, s->partly);
	if (variant->flags)
		EXPECT_LT(MOST_REQUESTS, MOVED(&before, iopolled));
}

/* A poll of a device with four wait queues: if it is refused, nobody is left on them. */
FIXTURE(poll)
{
	struct state state;
};

FIXTURE_SETUP(poll)
{
	struct state *s = &self->state;

	testdev_begin();
	state_begin(_metadata, s);
	s->target.fd = testdev_open("c1", 0);
	testdev_cmd("c1 ready 0");
	testdev_cmd("c1 queues 0123");
	s->nr_events = 1;
	make_context(_metadata, s);
	s->rest = rest_now();
}

FIXTURE_TEARDOWN(poll)
{
	EXPECT_EQ(0, raio_destroy(self->state.dev, self->state.ctx));
	state_end(_metadata, &self->state);
	testdev_reset();
}

static void prepare_poll(struct __test_metadata *_metadata, struct state *self)
{
	(void)_metadata;
	iocb_prep(&self->io[0], IOCB_CMD_POLL, self->target.fd, (void *)POLLIN, 0, 0);
	self->iop[0] = &self->io[0];
}

static void check_poll(struct __test_metadata *_metadata, struct state *self, long ret,
		       enum kind kind)
{
	struct aio aio = { .ops = &raio, .dev = self->dev, .ctx = self->ctx };
	unsigned int i;

	if (ret < 0 && !handle_refused(_metadata, self, ret, kind))
		expect_error(_metadata, ret, kind);
	if (ret == 1) {
		testdev_cmd("c1 fire 3 %d", POLLIN);
		EXPECT_EQ(1, aio_wait(&aio, 1, self->ev));
		EXPECT_EVENT(&self->ev[0], &self->io[0], POLLIN);
		testdev_cmd("c1 ready 0");
	}
	for (i = 0; i < 4; i++)
		testdev_cmd("c1 free %u", i);
	EXPECT_EQ(0, aio_poll(&aio, 1, self->ev));
}

TEST_F_TIMEOUT(poll, several_queues, 300)
{
	const struct sweep sweep = {
		.name = "poll",
		.prepare = prepare_poll,
		.call = call_submit,
		.check = check_poll,
		/* The request, three more places; as for other requests. */
		.errors = { [SLAB] = 4, [COPY] = 5 },
		.faults = 9,
	};

	self->state.nr = 1;
	run_sweep(_metadata, &self->state, &sweep);
}

int main(int argc, char **argv)
{
	if (access("/proc/self/fail-nth", F_OK)) {
		printf("TAP version 13\n1..0 # SKIP no fault injection in this kernel\n");
		return KSFT_SKIP;
	}
	return test_harness_run(argc, argv);
}
