// SPDX-License-Identifier: GPL-2.0
/*
 * What users may have of contexts, requests and ring memory: the counters and
 * limits in /proc/sys/fs/raio, who is charged, that everything is returned,
 * and that memory is charged to the memory cgroup.
 */
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "raio_cgroup.h"

#define SYSCTLS		"/proc/sys/fs/raio/"
/* Any two that are nobody else's, and a range for user namespaces. */
#define USER_A		1000
#define USER_B		1001
#define USER_RANGE	200000

enum resource { CONTEXTS, REQUESTS, RING_BYTES, NR_RESOURCES };

static const char *const resource_name[NR_RESOURCES] = { "contexts", "requests", "ring_bytes" };

struct amounts {
	unsigned long long v[NR_RESOURCES];
};

/* The two kinds of limits: for all users together, and for each. */
enum whose { ALL, EACH, NR_WHOSE };

static const char *const limit_prefix[NR_WHOSE] = { "max", "max_user" };

static void sysctl_path(char *path, size_t size, const char *prefix, enum resource which)
{
	snprintf(path, size, SYSCTLS "%s_%s", prefix, resource_name[which]);
}

static unsigned long long sysctl_get(const char *prefix, enum resource which)
{
	char path[128], buf[32] = "";
	int fd;

	sysctl_path(path, sizeof(path), prefix, which);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, buf, sizeof(buf) - 1) <= 0)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	close(fd);
	return strtoull(buf, NULL, 10);
}

static int sysctl_write(const char *prefix, enum resource which, const char *str)
{
	char path[128];

	sysctl_path(path, sizeof(path), prefix, which);
	return write_str(path, str);
}

static void limit_set(enum whose whose, enum resource which, unsigned long long to)
{
	char str[32];

	snprintf(str, sizeof(str), "%llu", to);
	if (sysctl_write(limit_prefix[whose], which, str))
		ksft_exit_fail_msg("%s_%s can't be written\n", limit_prefix[whose],
				   resource_name[which]);
}

static unsigned long long used(enum resource which)
{
	return sysctl_get("nr", which);
}

static bool nothing_used(void)
{
	return !used(CONTEXTS) && !used(REQUESTS) && !used(RING_BYTES);
}

/* Makes a context, and says what it costs. */
static long make(int dev, unsigned int nr, struct raio_setup *made)
{
	aio_context_t ctx = 0;

	*made = (struct raio_setup){ .nr_events = nr, .ctxp = (uintptr_t)&ctx };
	return raio_ioctl(dev, RAIO_IOC_SETUP, made);
}

static struct amounts cost_of(const struct raio_setup *made)
{
	return (struct amounts){ { 1, made->ring_nr - 1, made->ring_size } };
}

static void amounts_add(struct amounts *to, const struct raio_setup *made, int times)
{
	struct amounts cost = cost_of(made);
	unsigned int i;

	for (i = 0; i < NR_RESOURCES; i++)
		to->v[i] += times * cost.v[i];
}

#define EXPECT_USED(_amounts) do {					\
	const struct amounts __a = (_amounts);				\
	unsigned int __i;						\
									\
	for (__i = 0; __i < NR_RESOURCES; __i++) {			\
		EXPECT_EQ(__a.v[__i], used(__i)) {			\
			TH_LOG("nr_%s", resource_name[__i]);		\
		}							\
	}								\
} while (0)

/*
 * Another process, that does what it is told, one order at a time, and
 * answers with what the call returned. It ends when its socket does.
 */
struct peer {
	pid_t pid;
	int sock;
};

enum order {
	OPEN, CLOSE, MAKE, DESTROY, UNMAP, EXEC, EXIT, SET_UID, SET_REAL_UID, NEW_USER_NS,
	OPEN_LIMIT,
};

struct message {
	enum order order;
	long arg;
};

#define PEER_CONTEXTS	256

static struct {
	int sock;
	int dev;
	unsigned int nr;
	struct raio_setup made[PEER_CONTEXTS];
} served = { .dev = -1 };

static long serve_exec(void)
{
	char sock[16];

	fcntl(served.sock, F_SETFD, 0);
	fcntl(served.dev, F_SETFD, 0);
	snprintf(sock, sizeof(sock), "%d", served.sock);
	execl("/proc/self/exe", "limits", "--serve", sock, NULL);
	return -errno;
}

static long serve_make(unsigned int nr)
{
	long ret;

	if (served.nr == PEER_CONTEXTS)
		return -EOVERFLOW;
	ret = make(served.dev, nr, &served.made[served.nr]);
	if (!ret)
		served.nr++;
	return ret;
}

/* Context number @index is none any more, the others move up. */
static long serve_remove(unsigned int index, bool unmap)
{
	struct raio_setup made;

	if (index >= served.nr)
		return -ENOENT;
	made = served.made[index];
	served.nr--;
	memmove(&served.made[index], &served.made[index + 1],
		(served.nr - index) * sizeof(made));
	if (unmap)
		return ret_errno(munmap((void *)(uintptr_t)made.ctx, made.ring_size));
	return raio_destroy(served.dev, made.ctx);
}

static long serve_one(const struct message *m)
{
	switch (m->order) {
	case OPEN:
		served.dev = raio_open();
		return served.dev < 0 ? served.dev : 0;
	case CLOSE:
		return ret_errno(close(served.dev));
	case MAKE:
		return serve_make(m->arg);
	case DESTROY:
		return serve_remove(m->arg, false);
	case UNMAP:
		return serve_remove(m->arg, true);
	case EXEC:
		return serve_exec();
	case EXIT:
		_exit(0);
	case SET_UID:
		return ret_errno(setresuid(m->arg, m->arg, m->arg));
	case SET_REAL_UID:
		return ret_errno(setresuid(m->arg, -1, -1));
	case NEW_USER_NS:
		return ret_errno(unshare(CLONE_NEWUSER));
	case OPEN_LIMIT:
		return ret_errno(open(SYSCTLS "max_contexts", m->arg | O_CLOEXEC));
	}
	return -ENOSYS;
}

static int serve(int sock, bool greet)
{
	struct message m;
	long ret = 0;

	served.sock = sock;
	if (greet)
		send(sock, &ret, sizeof(ret), MSG_NOSIGNAL);
	while (recv(sock, &m, sizeof(m), 0) == sizeof(m)) {
		ret = serve_one(&m);
		send(sock, &ret, sizeof(ret), MSG_NOSIGNAL);
	}
	return 0;
}

/* For what has ended without an answer. */
#define NO_ANSWER	(-ECHILD)

static long tell(struct peer *peer, enum order order, long arg)
{
	struct message m = { order, arg };
	long ret;

	if (send(peer->sock, &m, sizeof(m), MSG_NOSIGNAL) != sizeof(m) ||
	    recv(peer->sock, &ret, sizeof(ret), 0) != sizeof(ret))
		return NO_ANSWER;
	return ret;
}

static void peer_start(struct __test_metadata *_metadata, struct peer *peer)
{
	int fds[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds));
	peer->pid = fork();
	ASSERT_LE(0, peer->pid);
	if (!peer->pid) {
		close(fds[0]);
		_exit(serve(fds[1], false));
	}
	close(fds[1]);
	peer->sock = fds[0];
}

/* One that is @uid and has opened the device. */
static void peer_start_as(struct __test_metadata *_metadata, struct peer *peer, uid_t uid)
{
	peer_start(_metadata, peer);
	ASSERT_EQ(0, tell(peer, SET_UID, uid));
	ASSERT_EQ(0, tell(peer, OPEN, 0)) {
		TH_LOG("user %u can't open " RAIO_DEV, uid);
	}
}

static int peer_end(struct peer *peer)
{
	/* Peers that were started later have the socket, too. */
	tell(peer, EXIT, 0);
	close(peer->sock);
	return wait_child(peer->pid);
}

/* The limits as they were, an open device, and nothing in use. */
struct base {
	int dev;
	unsigned long long saved[NR_WHOSE][NR_RESOURCES];
	struct amounts cost;
};

#define EVENTS		100

static void base_begin(struct __test_metadata *_metadata, struct base *base)
{
	struct raio_setup made;
	unsigned int i;

	for (i = 0; i < NR_RESOURCES; i++) {
		base->saved[ALL][i] = sysctl_get("max", i);
		base->saved[EACH][i] = sysctl_get("max_user", i);
	}
	base->dev = raio_open();
	ASSERT_LE(0, base->dev);
	ASSERT_TRUE(wait_for(nothing_used())) {
		TH_LOG("somebody else has %llu contexts", used(CONTEXTS));
	}
	ASSERT_EQ(0, make(base->dev, EVENTS, &made));
	base->cost = cost_of(&made);
	EXPECT_USED(base->cost);
	ASSERT_EQ(0, raio_destroy(base->dev, made.ctx));
	EXPECT_TRUE(nothing_used());
}

static void base_end(struct __test_metadata *_metadata, struct base *base)
{
	unsigned int i;

	if (base->dev >= 0)
		close(base->dev);
	for (i = 0; i < NR_RESOURCES; i++) {
		limit_set(ALL, i, base->saved[ALL][i]);
		limit_set(EACH, i, base->saved[EACH][i]);
	}
	EXPECT_TRUE(wait_for(nothing_used())) {
		TH_LOG("left: %llu contexts, %llu requests, %llu bytes", used(CONTEXTS),
		       used(REQUESTS), used(RING_BYTES));
	}
	EXPECT_TRUE(wait_for(!raio_live()));
}

/* Room for that many contexts of EVENTS events each. */
static void limit_to(struct base *base, enum whose whose, enum resource which, unsigned int nr)
{
	limit_set(whose, which, nr * base->cost.v[which]);
}

FIXTURE(counters)
{
	struct base base;
};

FIXTURE_SETUP(counters)
{
	base_begin(_metadata, &self->base);
}

FIXTURE_TEARDOWN(counters)
{
	base_end(_metadata, &self->base);
}

TEST_F(counters, exact)
{
	const unsigned int nr[] = { 1, 126, 127, 1000, 5000 };
	struct raio_setup made[ARRAY_SIZE(nr)];
	struct amounts sum = { };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(nr); i++) {
		ASSERT_EQ(0, make(self->base.dev, nr[i], &made[i]));
		amounts_add(&sum, &made[i], 1);
		EXPECT_USED(sum);
	}
	/* Not in the order in which they came. */
	for (i = 0; i < ARRAY_SIZE(nr); i++) {
		unsigned int which = (i + 2) % ARRAY_SIZE(nr);

		ASSERT_EQ(0, raio_destroy(self->base.dev, made[which].ctx));
		amounts_add(&sum, &made[which], -1);
		EXPECT_USED(sum);
	}
	EXPECT_TRUE(nothing_used());
}

/* Returned when close() returns, and not before the last descriptor goes. */
TEST_F(counters, close_returns_all)
{
	struct raio_setup made;
	struct amounts sum = { };
	unsigned int i;
	int other;

	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, make(self->base.dev, 1 + 100 * i, &made));
		amounts_add(&sum, &made, 1);
	}
	other = dup(self->base.dev);
	EXPECT_EQ(0, close(self->base.dev));
	EXPECT_USED(sum);
	EXPECT_EQ(0, close(other));
	EXPECT_TRUE(nothing_used());
	self->base.dev = -1;
}

/* A second destroy takes nothing more away. */
TEST_F(counters, destroyed_twice)
{
	struct raio_setup made, other;
	unsigned int i;

	ASSERT_EQ(0, make(self->base.dev, EVENTS, &made));
	ASSERT_EQ(0, make(self->base.dev, EVENTS, &other));
	EXPECT_EQ(0, raio_destroy(self->base.dev, made.ctx));
	for (i = 0; i < 5; i++)
		EXPECT_EQ(-EINVAL, raio_destroy(self->base.dev, made.ctx));
	EXPECT_USED(self->base.cost);
	EXPECT_EQ(0, raio_destroy(self->base.dev, other.ctx));
}

#define FAILURES	10

static void expect_refused(struct __test_metadata *_metadata, int dev, long err,
			   const struct raio_setup *arg, const char *why)
{
	unsigned int i;

	for (i = 0; i < FAILURES; i++) {
		struct raio_setup copy = *arg;

		EXPECT_EQ(err, raio_ioctl(dev, RAIO_IOC_SETUP, &copy)) {
			TH_LOG("%s, time %u", why, i);
		}
		EXPECT_TRUE(nothing_used()) {
			TH_LOG("%s, time %u", why, i);
		}
	}
}

TEST_F(counters, failed_setup)
{
	aio_context_t zero = 0, one = 1;
	const struct {
		long err;
		struct raio_setup arg;
		const char *why;
	} cases[] = {
		{ -EINVAL, { .nr_events = 0, .ctxp = (uintptr_t)&zero }, "no events" },
		{ -EINVAL, { .nr_events = UINT_MAX, .ctxp = (uintptr_t)&zero }, "too many" },
		{ -EINVAL, { .nr_events = 1, .ctxp = (uintptr_t)&one }, "*ctxp not 0" },
		{ -EINVAL, { .nr_events = 1, .ctxp = (uintptr_t)&zero, .flags = 2 }, "flags" },
		{ -EINVAL, { .nr_events = 1, .ctxp = (uintptr_t)&zero, .id = 1 }, "id" },
		{ -EFAULT, { .nr_events = 1, .ctxp = 0 }, "no ctxp" },
		{ -EFAULT, { .nr_events = 1, .ctxp = KERNEL_ADDR }, "kernel" },
		{
			-EFAULT,
			{ .nr_events = 1, .ctxp = (uintptr_t)map_read_only(&zero, sizeof(zero)) },
			"read-only ctxp",
		},
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++)
		expect_refused(_metadata, self->base.dev, cases[i].err, &cases[i].arg,
			       cases[i].why);
}

/* The context is complete when its result can't be told. */
TEST_F(counters, failed_answer)
{
	aio_context_t ctx = 0;
	struct raio_setup arg = { .nr_events = EVENTS, .ctxp = (uintptr_t)&ctx };
	struct raio_setup *ro = map_read_only(&arg, sizeof(arg));
	unsigned int i;

	for (i = 0; i < FAILURES; i++) {
		ctx = 0;
		EXPECT_EQ(-EFAULT, raio_ioctl(self->base.dev, RAIO_IOC_SETUP, ro));
		EXPECT_TRUE(nothing_used()) {
			TH_LOG("time %u", i);
		}
	}
}

TEST_F(counters, failed_mapping)
{
	struct rlimit none = { .rlim_cur = PAGE, .rlim_max = RLIM_INFINITY };
	struct raio_setup made;
	struct rlimit old;
	long ret[FAILURES];
	unsigned int i;

	ASSERT_EQ(0, getrlimit(RLIMIT_AS, &old));
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &none));
	for (i = 0; i < FAILURES; i++)
		ret[i] = make(self->base.dev, EVENTS, &made);
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &old));
	for (i = 0; i < FAILURES; i++)
		EXPECT_EQ(-ENOMEM, ret[i]);
	EXPECT_TRUE(nothing_used());
}

/* A ring is paid for while anybody has it, though its device is closed. */
TEST_F(counters, mapping_is_all_that_is_left)
{
	struct raio_setup made;
	pid_t pid;

	ASSERT_EQ(0, make(self->base.dev, EVENTS, &made));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		pause();
		_exit(0);
	}
	EXPECT_EQ(0, close(self->base.dev));
	self->base.dev = -1;
	EXPECT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(SIGKILL, WTERMSIG(wait_child(pid)));
	EXPECT_USED(self->base.cost);
	EXPECT_EQ(0, munmap((void *)(uintptr_t)made.ctx, made.ring_size));
	EXPECT_TRUE(wait_for(nothing_used()));
}

/* All contexts of another process go in one way, once it is told to. */
FIXTURE(ends)
{
	struct base base;
	struct peer peer;
	struct amounts sum;
};

FIXTURE_SETUP(ends)
{
	struct raio_setup made;
	unsigned int i;

	base_begin(_metadata, &self->base);
	peer_start_as(_metadata, &self->peer, 0);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, tell(&self->peer, MAKE, EVENTS)) {
			TH_LOG("context %u", i);
		}
	}
	ASSERT_EQ(0, make(self->base.dev, EVENTS, &made));
	self->sum = (struct amounts){ };
	amounts_add(&self->sum, &made, 4);
	EXPECT_USED(self->sum);
}

/* The test's own is there still, whatever has become of the others. */
FIXTURE_TEARDOWN(ends)
{
	EXPECT_USED(self->base.cost);
	close(self->peer.sock);
	/* It has the descriptor too. (Some tests have waited already.) */
	waitpid(self->peer.pid, NULL, 0);
	base_end(_metadata, &self->base);
}

TEST_F(ends, destroy)
{
	unsigned int i;

	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, tell(&self->peer, DESTROY, 0));
}

TEST_F(ends, close)
{
	EXPECT_EQ(0, tell(&self->peer, CLOSE, 0));
}

TEST_F(ends, exit)
{
	EXPECT_EQ(NO_ANSWER, tell(&self->peer, EXIT, 0));
	EXPECT_EQ(0, wait_child(self->peer.pid));
}

/* Who is killed does not wait. */
TEST_F(ends, sigkill)
{
	EXPECT_EQ(0, kill(self->peer.pid, SIGKILL));
	EXPECT_EQ(SIGKILL, WTERMSIG(wait_child(self->peer.pid)));
	EXPECT_TRUE(wait_for(used(CONTEXTS) == 1));
}

/* The descriptor is open in the new program. */
TEST_F(ends, exec)
{
	EXPECT_EQ(0, tell(&self->peer, EXEC, 0));
	EXPECT_TRUE(wait_for(used(CONTEXTS) == 1));
}

TEST_F(ends, munmap)
{
	unsigned int i;

	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, tell(&self->peer, UNMAP, 0));
	EXPECT_TRUE(wait_for(used(CONTEXTS) == 1));
}

/* Each limit by itself, met exactly and missed by one. */
FIXTURE(limit)
{
	struct base base;
};

FIXTURE_VARIANT(limit)
{
	enum whose whose;
	enum resource which;
};

FIXTURE_VARIANT_ADD(limit, max_contexts)
{
	.whose = ALL,
	.which = CONTEXTS,
};

FIXTURE_VARIANT_ADD(limit, max_requests)
{
	.whose = ALL,
	.which = REQUESTS,
};

FIXTURE_VARIANT_ADD(limit, max_ring_bytes)
{
	.whose = ALL,
	.which = RING_BYTES,
};

FIXTURE_VARIANT_ADD(limit, max_user_contexts)
{
	.whose = EACH,
	.which = CONTEXTS,
};

FIXTURE_VARIANT_ADD(limit, max_user_requests)
{
	.whose = EACH,
	.which = REQUESTS,
};

FIXTURE_VARIANT_ADD(limit, max_user_ring_bytes)
{
	.whose = EACH,
	.which = RING_BYTES,
};

FIXTURE_SETUP(limit)
{
	base_begin(_metadata, &self->base);
}

FIXTURE_TEARDOWN(limit)
{
	base_end(_metadata, &self->base);
}

TEST_F(limit, exact)
{
	struct raio_setup made[4], more;
	struct amounts sum = { };
	unsigned int i;

	limit_to(&self->base, variant->whose, variant->which, ARRAY_SIZE(made));
	for (i = 0; i < ARRAY_SIZE(made); i++) {
		ASSERT_EQ(0, make(self->base.dev, EVENTS, &made[i])) {
			TH_LOG("context %u", i);
		}
		amounts_add(&sum, &made[i], 1);
	}
	EXPECT_EQ(-EAGAIN, make(self->base.dev, EVENTS, &more));
	EXPECT_EQ(-EAGAIN, make(self->base.dev, 1, &more));
	EXPECT_USED(sum);
	/* What was returned can be had again. */
	for (i = 0; i < ARRAY_SIZE(made); i++) {
		EXPECT_EQ(0, raio_destroy(self->base.dev, made[i].ctx));
		EXPECT_EQ(0, make(self->base.dev, EVENTS, &made[i]));
		EXPECT_EQ(-EAGAIN, make(self->base.dev, EVENTS, &more));
	}
	EXPECT_USED(sum);
}

TEST_F(limit, one_less)
{
	const unsigned long long cost = self->base.cost.v[variant->which];
	struct amounts sum = { };
	struct raio_setup made;
	unsigned int i;

	limit_set(variant->whose, variant->which, 3 * cost - 1);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, make(self->base.dev, EVENTS, &made));
		amounts_add(&sum, &made, 1);
	}
	for (i = 0; i < FAILURES; i++)
		EXPECT_EQ(-EAGAIN, make(self->base.dev, EVENTS, &made));
	EXPECT_USED(sum);
	limit_set(variant->whose, variant->which, 3 * cost);
	EXPECT_EQ(0, make(self->base.dev, EVENTS, &made));
}

TEST_F(limit, zero)
{
	struct raio_setup made;
	unsigned int i;

	limit_set(variant->whose, variant->which, 0);
	for (i = 0; i < FAILURES; i++)
		EXPECT_EQ(-EAGAIN, make(self->base.dev, 1, &made));
	EXPECT_TRUE(nothing_used());
}

/* No sum overflows: the largest limit is none. */
TEST_F(limit, largest)
{
	struct raio_setup made;

	limit_set(variant->whose, variant->which, ULLONG_MAX);
	EXPECT_EQ(ULLONG_MAX, sysctl_get(limit_prefix[variant->whose], variant->which));
	EXPECT_EQ(0, make(self->base.dev, EVENTS, &made));
}

/* What was wrong with the arguments is said first. */
TEST_F(limit, errors_come_first)
{
	struct raio_setup made;

	limit_set(variant->whose, variant->which, 0);
	EXPECT_EQ(-EINVAL, make(self->base.dev, 0, &made));
	EXPECT_EQ(-EINVAL, make(self->base.dev, UINT_MAX, &made));
	EXPECT_EQ(-EFAULT, raio_setup(self->base.dev, 1, NULL));
}

static void expect_io(struct __test_metadata *_metadata, int dev, aio_context_t ctx)
{
	struct aio aio = { .ops = &raio, .dev = dev, .ctx = ctx };
	struct iocb io;
	char buf[64];
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	memset(buf, 1, sizeof(buf));
	iocb_prep(&io, IOCB_CMD_PREAD, fd, buf, sizeof(buf), 0);
	EXPECT_RESULT(sizeof(buf), &aio, &io);
	EXPECT_EQ(-1, filled_check(buf, sizeof(buf), 0));
	close(fd);
}

/* Lowered below what is in use it takes nothing away, but refuses. */
TEST_F(limit, lowered)
{
	struct raio_setup made[3], more;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(made); i++) {
		ASSERT_EQ(0, make(self->base.dev, EVENTS, &made[i])) {
			TH_LOG("context %u", i);
		}
	}
	limit_to(&self->base, variant->whose, variant->which, 1);
	for (i = 0; i < ARRAY_SIZE(made); i++)
		expect_io(_metadata, self->base.dev, made[i].ctx);
	for (i = 0; i < ARRAY_SIZE(made); i++) {
		EXPECT_EQ(-EAGAIN, make(self->base.dev, EVENTS, &more)) {
			TH_LOG("with %zu contexts of 1", ARRAY_SIZE(made) - i);
		}
		EXPECT_EQ(0, raio_destroy(self->base.dev, made[i].ctx));
	}
	EXPECT_EQ(0, make(self->base.dev, EVENTS, &more));
}

TEST_F(limit, raised)
{
	struct raio_setup made;
	unsigned int i;

	for (i = 0; i < 5; i++) {
		limit_to(&self->base, variant->whose, variant->which, i);
		EXPECT_EQ(-EAGAIN, make(self->base.dev, EVENTS, &made));
		limit_to(&self->base, variant->whose, variant->which, i + 1);
		ASSERT_EQ(0, make(self->base.dev, EVENTS, &made)) {
			TH_LOG("with %u contexts of %u", i, i + 1);
		}
	}
}

/* Threads around the limit, and what the counter was meanwhile. */
#define RACERS		8
#define RACE_LIMIT	5
#define RACE_GOAL	150

struct race {
	int dev;
	bool done;
	unsigned int held;
	unsigned int most_held;
	unsigned int made;
	unsigned int refused;
	unsigned int wrong;
	unsigned long long most_used;
};

static void note_held(struct race *race)
{
	unsigned int held = __atomic_add_fetch(&race->held, 1, __ATOMIC_SEQ_CST);
	unsigned int most = __atomic_load_n(&race->most_held, __ATOMIC_RELAXED);

	while (held > most && !__atomic_compare_exchange_n(&race->most_held, &most, held, false,
							   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

static void count(unsigned int *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
}

static void race_once(struct race *race)
{
	struct raio_setup made;
	long ret = make(race->dev, EVENTS, &made);

	if (ret) {
		count(ret == -EAGAIN ? &race->refused : &race->wrong);
		sched_yield();
		return;
	}
	note_held(race);
	count(&race->made);
	/* It is in use for longer than it is held. */
	__atomic_sub_fetch(&race->held, 1, __ATOMIC_SEQ_CST);
	if (raio_destroy(race->dev, made.ctx))
		count(&race->wrong);
}

static void *race_thread(void *data)
{
	struct race *race = data;

	while (__atomic_load_n(&race->made, __ATOMIC_RELAXED) < RACE_GOAL &&
	       !__atomic_load_n(&race->wrong, __ATOMIC_RELAXED))
		race_once(race);
	return NULL;
}

static void *sample_thread(void *data)
{
	struct race *race = data;

	while (!__atomic_load_n(&race->done, __ATOMIC_ACQUIRE)) {
		unsigned long long now = used(CONTEXTS);

		if (now > race->most_used)
			race->most_used = now;
	}
	return NULL;
}

TEST_F_TIMEOUT(limit, threads, 120)
{
	struct race race = { .dev = self->base.dev };
	pthread_t racer[RACERS], sampler;
	unsigned int i;

	limit_to(&self->base, variant->whose, variant->which, RACE_LIMIT);
	ASSERT_EQ(0, pthread_create(&sampler, NULL, sample_thread, &race));
	for (i = 0; i < RACERS; i++) {
		ASSERT_EQ(0, pthread_create(&racer[i], NULL, race_thread, &race)) {
			TH_LOG("thread %u", i);
		}
	}
	for (i = 0; i < RACERS; i++)
		pthread_join(racer[i], NULL);
	EXPECT_TRUE(nothing_used());
	__atomic_store_n(&race.done, true, __ATOMIC_RELEASE);
	pthread_join(sampler, NULL);
	EXPECT_EQ(0, race.wrong);
	EXPECT_GE(RACE_LIMIT, race.most_held);
	EXPECT_GE(RACE_LIMIT, race.most_used);
	EXPECT_LE(1, race.most_used);
	EXPECT_LE(RACE_GOAL, race.made);
	EXPECT_NE(0, race.refused) {
		TH_LOG("the limit was never met");
	}
}

/* Processes that are killed wherever they are just then. */
#define KILL_ROUNDS	10
#define KILL_OWNERS	4

TEST_F_TIMEOUT(limit, owners_killed, 120)
{
	struct race *race = mmap(NULL, sizeof(*race), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned int round, i, enough;
	pid_t pid[KILL_OWNERS];

	limit_to(&self->base, variant->whose, variant->which, KILL_OWNERS - 1);
	for (round = 0; round < KILL_ROUNDS; round++) {
		enough = race->made + 1 + round;
		for (i = 0; i < KILL_OWNERS; i++) {
			pid[i] = fork();
			ASSERT_LE(0, pid[i]);
			if (pid[i])
				continue;
			race->dev = raio_open();
			for (;;)
				race_once(race);
		}
		EXPECT_TRUE(wait_for(used(CONTEXTS) >= KILL_OWNERS ||
				     __atomic_load_n(&race->made, __ATOMIC_RELAXED) >= enough));
		EXPECT_GE(KILL_OWNERS - 1, used(CONTEXTS));
		for (i = 0; i < KILL_OWNERS; i++)
			kill(pid[i], SIGKILL);
		for (i = 0; i < KILL_OWNERS; i++)
			EXPECT_EQ(SIGKILL, WTERMSIG(wait_child(pid[i])));
	}
	EXPECT_EQ(0, race->wrong);
	EXPECT_TRUE(wait_for(nothing_used()));
}

/* Users, who need a device that they may open. */
FIXTURE(users)
{
	struct base base;
	struct stat node;
	struct peer a, b;
};

FIXTURE_VARIANT(users)
{
	enum resource which;
};

FIXTURE_VARIANT_ADD(users, contexts)
{
	.which = CONTEXTS,
};

FIXTURE_VARIANT_ADD(users, requests)
{
	.which = REQUESTS,
};

FIXTURE_VARIANT_ADD(users, ring_bytes)
{
	.which = RING_BYTES,
};

FIXTURE_SETUP(users)
{
	ASSERT_EQ(0, stat(RAIO_DEV, &self->node));
	ASSERT_EQ(0, chmod(RAIO_DEV, 0666));
	base_begin(_metadata, &self->base);
	peer_start_as(_metadata, &self->a, USER_A);
	peer_start_as(_metadata, &self->b, USER_B);
}

FIXTURE_TEARDOWN(users)
{
	peer_end(&self->a);
	peer_end(&self->b);
	base_end(_metadata, &self->base);
	EXPECT_EQ(0, chmod(RAIO_DEV, self->node.st_mode & 07777));
}

/* @peer may have @nr contexts more, and that's it. */
static void expect_room(struct __test_metadata *_metadata, struct peer *peer, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		EXPECT_EQ(0, tell(peer, MAKE, EVENTS)) {
			TH_LOG("context %u of %u", i, nr);
		}
	}
	EXPECT_EQ(-EAGAIN, tell(peer, MAKE, EVENTS));
}

/* One at its limit keeps no other from having as much. */
TEST_F(users, each_limit)
{
	struct raio_setup made;

	limit_to(&self->base, EACH, variant->which, 2);
	expect_room(_metadata, &self->a, 2);
	expect_room(_metadata, &self->b, 2);
	EXPECT_EQ(0, make(self->base.dev, EVENTS, &made));
	EXPECT_EQ(0, make(self->base.dev, EVENTS, &made));
	EXPECT_EQ(-EAGAIN, make(self->base.dev, EVENTS, &made)) {
		TH_LOG("root has a limit like everybody");
	}
	/* What one returns is that one's. */
	EXPECT_EQ(0, tell(&self->a, DESTROY, 0));
	expect_room(_metadata, &self->b, 0);
	expect_room(_metadata, &self->a, 1);
}

/* Two processes of one user share its limit. */
TEST_F(users, two_processes)
{
	struct peer other;

	limit_to(&self->base, EACH, variant->which, 3);
	peer_start_as(_metadata, &other, USER_A);
	EXPECT_EQ(0, tell(&other, MAKE, EVENTS));
	expect_room(_metadata, &self->a, 2);
	expect_room(_metadata, &other, 0);
	EXPECT_EQ(0, peer_end(&other));
	expect_room(_metadata, &self->a, 1);
}

TEST_F(users, system_limit)
{
	limit_to(&self->base, ALL, variant->which, 3);
	EXPECT_EQ(0, tell(&self->a, MAKE, EVENTS));
	EXPECT_EQ(0, tell(&self->a, MAKE, EVENTS));
	expect_room(_metadata, &self->b, 1);
	expect_room(_metadata, &self->a, 0);
	EXPECT_EQ(0, tell(&self->a, DESTROY, 1));
	expect_room(_metadata, &self->b, 1);
}

/* The real user is charged. */
TEST_F(users, real_uid)
{
	struct peer setuid;

	limit_to(&self->base, EACH, variant->which, 1);
	peer_start(_metadata, &setuid);
	ASSERT_EQ(0, tell(&setuid, SET_REAL_UID, USER_A));
	ASSERT_EQ(0, tell(&setuid, OPEN, 0));
	expect_room(_metadata, &setuid, 1);
	expect_room(_metadata, &self->a, 0);
	expect_room(_metadata, &self->b, 1);
	EXPECT_EQ(0, peer_end(&setuid));
	expect_room(_metadata, &self->a, 1);
}

/* It is returned to who was charged, whoever the process is by now. */
TEST_F(users, uid_changed)
{
	struct raio_setup made;
	struct peer changer;

	limit_to(&self->base, EACH, variant->which, 1);
	peer_start_as(_metadata, &changer, 0);
	expect_room(_metadata, &changer, 1);
	ASSERT_EQ(0, tell(&changer, SET_UID, USER_A));
	expect_room(_metadata, &changer, 1);
	EXPECT_EQ(-EAGAIN, make(self->base.dev, EVENTS, &made));
	EXPECT_EQ(0, tell(&changer, DESTROY, 0));
	expect_room(_metadata, &changer, 0);
	expect_room(_metadata, &self->a, 0);
	EXPECT_EQ(0, make(self->base.dev, EVENTS, &made));
	EXPECT_EQ(0, peer_end(&changer));
	expect_room(_metadata, &self->a, 1);
}

/* Root gives a namespace its users, and the one group that they are all in. */
static void ns_map(struct __test_metadata *_metadata, struct peer *peer, const char *users)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/uid_map", peer->pid);
	ASSERT_EQ(0, write_str(path, users)) {
		TH_LOG("%s can't be written", path);
	}
	snprintf(path, sizeof(path), "/proc/%d/gid_map", peer->pid);
	ASSERT_EQ(0, write_str(path, "0 0 1")) {
		TH_LOG("%s can't be written", path);
	}
}

/* Who has made a user namespace is no other user in it, */
TEST_F(users, own_namespace)
{
	struct peer inside;

	limit_to(&self->base, EACH, variant->which, 1);
	expect_room(_metadata, &self->a, 1);
	peer_start_as(_metadata, &inside, USER_A);
	ASSERT_EQ(0, tell(&inside, NEW_USER_NS, 0));
	expect_room(_metadata, &inside, 0);
	ns_map(_metadata, &inside, "0 1000 1");
	expect_room(_metadata, &inside, 0);
	/* Another inside of that, with nobody in it. */
	ASSERT_EQ(0, tell(&inside, NEW_USER_NS, 0));
	expect_room(_metadata, &inside, 0);
	EXPECT_EQ(0, tell(&self->a, DESTROY, 0));
	expect_room(_metadata, &inside, 1);
	expect_room(_metadata, &self->a, 0);
	expect_room(_metadata, &self->b, 1);
	EXPECT_EQ(0, peer_end(&inside));
	expect_room(_metadata, &self->a, 1);
}

/* and neither as another user whom root has lent to it. */
TEST_F(users, own_namespace_with_many_users)
{
	struct peer inside;

	limit_to(&self->base, EACH, variant->which, 1);
	peer_start_as(_metadata, &inside, USER_A);
	ASSERT_EQ(0, tell(&inside, NEW_USER_NS, 0));
	ns_map(_metadata, &inside, "0 1000 1\n1 200000 65536\n");
	expect_room(_metadata, &self->a, 1);
	expect_room(_metadata, &inside, 0);
	ASSERT_EQ(0, tell(&inside, SET_UID, 5));
	expect_room(_metadata, &inside, 0);
	/* Nested, of one of those users. */
	ASSERT_EQ(0, tell(&inside, NEW_USER_NS, 0));
	expect_room(_metadata, &inside, 0);
	EXPECT_EQ(0, tell(&self->a, DESTROY, 0));
	expect_room(_metadata, &inside, 1);
	expect_room(_metadata, &self->a, 0);
	EXPECT_EQ(0, peer_end(&inside));
	expect_room(_metadata, &self->a, 1);
}

/* What root has made, a container, has users of its own. */
TEST_F(users, namespace_of_root)
{
	struct raio_setup made;
	struct peer inside;

	limit_to(&self->base, EACH, variant->which, 1);
	peer_start_as(_metadata, &inside, 0);
	ASSERT_EQ(0, tell(&inside, NEW_USER_NS, 0));
	ns_map(_metadata, &inside, "0 200000 65536\n");
	ASSERT_EQ(0, tell(&inside, SET_UID, 1));
	EXPECT_EQ(0, make(self->base.dev, EVENTS, &made));
	expect_room(_metadata, &inside, 1);
	ASSERT_EQ(0, tell(&inside, NEW_USER_NS, 0));
	expect_room(_metadata, &inside, 0);
	EXPECT_EQ(-EAGAIN, make(self->base.dev, EVENTS, &made));
	EXPECT_EQ(0, peer_end(&inside));
}

/* The files themselves. */
FIXTURE(files)
{
	struct base base;
};

FIXTURE_SETUP(files)
{
	base_begin(_metadata, &self->base);
}

FIXTURE_TEARDOWN(files)
{
	base_end(_metadata, &self->base);
}

static void expect_mode(struct __test_metadata *_metadata, const char *prefix,
			enum resource which, mode_t mode)
{
	char path[128];
	struct stat st;

	sysctl_path(path, sizeof(path), prefix, which);
	ASSERT_EQ(0, stat(path, &st));
	EXPECT_EQ(S_IFREG | mode, st.st_mode) {
		TH_LOG("%s", path);
	}
	EXPECT_EQ(0, st.st_uid);
}

TEST_F(files, modes)
{
	unsigned int i;

	for (i = 0; i < NR_RESOURCES; i++) {
		expect_mode(_metadata, "nr", i, 0444);
		expect_mode(_metadata, "max", i, 0644);
		expect_mode(_metadata, "max_user", i, 0644);
		EXPECT_EQ(-EACCES, sysctl_write("nr", i, "0"));
	}
}

/* Everybody reads; nobody else writes, neither as root of an own namespace. */
TEST_F(files, of_root)
{
	struct peer user;

	peer_start(_metadata, &user);
	ASSERT_EQ(0, tell(&user, SET_UID, USER_A));
	EXPECT_LE(0, tell(&user, OPEN_LIMIT, O_RDONLY));
	EXPECT_EQ(-EACCES, tell(&user, OPEN_LIMIT, O_WRONLY));
	EXPECT_EQ(-EACCES, tell(&user, OPEN_LIMIT, O_RDWR));
	ASSERT_EQ(0, tell(&user, NEW_USER_NS, 0));
	ns_map(_metadata, &user, "0 1000 1");
	EXPECT_LE(0, tell(&user, OPEN_LIMIT, O_RDONLY));
	EXPECT_EQ(-EACCES, tell(&user, OPEN_LIMIT, O_WRONLY));
	EXPECT_EQ(0, peer_end(&user));
}

TEST_F(files, garbage)
{
	static const char *const strs[] = {
		"x", "12x", "0x", "-", "+1", "1.5", "18446744073709551616",
		"99999999999999999999999999",
	};
	unsigned int i, whose, n;

	for (whose = 0; whose < NR_WHOSE; whose++) {
		for (i = 0; i < NR_RESOURCES; i++) {
			limit_set(whose, i, 4321);
			for (n = 0; n < ARRAY_SIZE(strs); n++) {
				EXPECT_EQ(-EINVAL, sysctl_write(limit_prefix[whose], i, strs[n])) {
					TH_LOG("\"%s\" into %s_%s", strs[n], limit_prefix[whose],
					       resource_name[i]);
				}
				EXPECT_EQ(4321, sysctl_get(limit_prefix[whose], i)) {
					TH_LOG("after \"%s\"", strs[n]);
				}
			}
			/* Negative numbers are ignored, as the kernel does for all like it. */
			sysctl_write(limit_prefix[whose], i, "-1");
			EXPECT_EQ(4321, sysctl_get(limit_prefix[whose], i));
		}
	}
}

TEST_F(files, written_and_read)
{
	static const unsigned long long numbers[] = {
		0, 1, 65536, 1ULL << 40, ULLONG_MAX,
	};
	unsigned int i, whose, n;

	for (whose = 0; whose < NR_WHOSE; whose++) {
		for (i = 0; i < NR_RESOURCES; i++) {
			for (n = 0; n < ARRAY_SIZE(numbers); n++) {
				limit_set(whose, i, numbers[n]);
				EXPECT_EQ(numbers[n], sysctl_get(limit_prefix[whose], i));
			}
			/* The others are as they were. */
			limit_set(whose, i, self->base.saved[whose][i]);
			EXPECT_EQ(self->base.saved[!whose][i],
				  sysctl_get(limit_prefix[!whose], i));
		}
	}
}

/* Memory. The peer is the only one in a cgroup of its own. */
#define BIG_RING	65536

FIXTURE(memory)
{
	struct base base;
	struct peer peer;
	char dir[64];
};

FIXTURE_SETUP(memory)
{
	base_begin(_metadata, &self->base);
	cgroup_make(_metadata, self->dir, sizeof(self->dir));
	peer_start(_metadata, &self->peer);
	ASSERT_EQ(0, cgroup_take(self->dir, self->peer.pid));
	ASSERT_EQ(0, tell(&self->peer, OPEN, 0));
}

FIXTURE_TEARDOWN(memory)
{
	peer_end(&self->peer);
	EXPECT_TRUE(wait_for(!rmdir(self->dir)));
	base_end(_metadata, &self->base);
}

/* The ring, by the page. */
TEST_F(memory, ring_is_charged)
{
	unsigned long before, file, size;

	file = cgroup_read(self->dir, "memory.stat", "file");
	ASSERT_EQ(0, tell(&self->peer, MAKE, 1));
	ASSERT_EQ(0, tell(&self->peer, DESTROY, 0));
	/* The first ring goes a moment after its context. */
	ASSERT_TRUE(wait_for(cgroup_read(self->dir, "memory.stat", "file") <= file));
	before = cgroup_read(self->dir, "memory.current", NULL);
	ASSERT_EQ(0, tell(&self->peer, MAKE, BIG_RING));
	size = used(RING_BYTES);
	ASSERT_LE(BIG_RING * sizeof(struct io_event), size);
	/* A few pages of what has been freed before are in @before. */
	EXPECT_LE(before + size - size / 8, cgroup_read(self->dir, "memory.current", NULL));
	EXPECT_TRUE(wait_for(cgroup_read(self->dir, "memory.stat", "file") >= file + size)) {
		TH_LOG("file: %lu before, %lu after a ring of %lu", file,
		       cgroup_read(self->dir, "memory.stat", "file"), size);
	}

	ASSERT_EQ(0, tell(&self->peer, DESTROY, 0));
	EXPECT_TRUE(wait_for(cgroup_read(self->dir, "memory.stat", "file") <= file));
	EXPECT_TRUE(wait_for(cgroup_read(self->dir, "memory.current", NULL) < before + size / 2)) {
		TH_LOG("current: %lu before, %lu after", before,
		       cgroup_read(self->dir, "memory.current", NULL));
	}
}

/* Size of the objects of a slab cache. */
static unsigned long object_size(const char *cache)
{
	FILE *f = fopen("/proc/slabinfo", "re");
	unsigned long size = 0;
	char line[256], name[64];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%63s %*u %*u %lu", name, &size) == 2 && !strcmp(name, cache))
			break;
	if (!f || feof(f))
		ksft_exit_fail_msg("no cache %s\n", cache);
	fclose(f);
	return size;
}

/* What else a context has: itself, and its counts for each processor. */
TEST_F(memory, contexts_are_charged)
{
	unsigned long slab, percpu, i;

	ASSERT_EQ(0, tell(&self->peer, MAKE, 1));
	slab = cgroup_read(self->dir, "memory.stat", "slab");
	percpu = cgroup_read(self->dir, "memory.stat", "percpu");
	for (i = 0; i < PEER_CONTEXTS - 1; i++) {
		ASSERT_EQ(0, tell(&self->peer, MAKE, 1)) {
			TH_LOG("context %lu", i);
		}
	}
	slab += i * object_size("raio_kioctx");
	percpu += i * 2 * sizeof(long);
	EXPECT_TRUE(wait_for(cgroup_read(self->dir, "memory.stat", "slab") >= slab)) {
		TH_LOG("slab is %lu, not %lu", cgroup_read(self->dir, "memory.stat", "slab"), slab);
	}
	EXPECT_TRUE(wait_for(cgroup_read(self->dir, "memory.stat", "percpu") >= percpu)) {
		TH_LOG("percpu is %lu, not %lu", cgroup_read(self->dir, "memory.stat", "percpu"),
		       percpu);
	}
	ASSERT_EQ(0, tell(&self->peer, CLOSE, 0));
	EXPECT_TRUE(wait_for(cgroup_read(self->dir, "memory.stat", "slab") < slab));
	EXPECT_TRUE(wait_for(cgroup_read(self->dir, "memory.stat", "percpu") < percpu));
}

/*
 * A ring larger than the cgroup may have is refused, and nobody is killed for
 * it. It is tried often enough for a page left charged each time to be noticed.
 */
TEST_F(memory, too_large)
{
	const unsigned int nr = 2 * BIG_RING;
	unsigned int i;

	ASSERT_EQ(0, tell(&self->peer, MAKE, 1));
	ASSERT_EQ(0, tell(&self->peer, DESTROY, 0));
	ASSERT_EQ(0, cgroup_write(self->dir, "memory.max", "2M"));
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(-ENOMEM, tell(&self->peer, MAKE, nr)) {
			TH_LOG("time %u", i);
		}
		EXPECT_TRUE(nothing_used());
	}
	EXPECT_EQ(0, cgroup_read(self->dir, "memory.events", "oom_kill"));
	EXPECT_EQ(0, tell(&self->peer, MAKE, EVENTS));
	EXPECT_EQ(0, tell(&self->peer, DESTROY, 0));
	ASSERT_EQ(0, cgroup_write(self->dir, "memory.max", "max"));
	EXPECT_EQ(0, tell(&self->peer, MAKE, nr));
	EXPECT_EQ(0, tell(&self->peer, DESTROY, 0));
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--serve"))
		return serve(atoi(argv[2]), true);
	return test_harness_run(argc, argv);
}
