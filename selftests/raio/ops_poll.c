// SPDX-License-Identifier: GPL-2.0
/*
 * IOCB_CMD_POLL: a request that ends when its file is ready, with what poll(2)
 * would say. Whether it ends where the file is woken or when it is looked at
 * later is counted by the module. (poll(2) on the device itself is in poll.c.)
 *
 * Kernel AIO tells all that the wake-up has said, also what was not asked for,
 * and takes no file with several wait queues.
 */
#include <sys/param.h>
#include <sys/signalfd.h>
#include <termios.h>

#include "raio_race.h"
#include "raio_source.h"
#include "raio_wait.h"

#define ALWAYS	(POLLERR | POLLHUP)

FIXTURE(polls)
{
	struct fed fed;
	struct raio_stats before;
};

FIXTURE_VARIANT(polls)
{
	const struct aio_ops *ops;
};

FIXTURE_VARIANT_ADD(polls, kernel_aio)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(polls, raio)
{
	.ops = &raio,
};

static void polls_begin(struct __test_metadata *_metadata, struct fed *fed,
			const struct aio_ops *ops, struct raio_stats *before)
{
	testdev_begin();
	stats_now(_metadata, before);
	fed_begin(_metadata, fed, ops);
}

/* Nothing is left of any. */
static void polls_end(struct __test_metadata *_metadata, struct fed *fed,
		      struct raio_stats *before)
{
	testdev_reset();
	fed_end(_metadata, fed);
	EXPECT_MOVED(MOVED(before, submitted), before, completed);
	EXPECT_MOVED(MOVED(before, setups), before, frees);
}

FIXTURE_SETUP(polls)
{
	polls_begin(_metadata, &self->fed, variant->ops, &self->before);
}

FIXTURE_TEARDOWN(polls)
{
	polls_end(_metadata, &self->fed, &self->before);
}

static void submit_poll(struct __test_metadata *_metadata, struct aio *aio, struct iocb *io, int fd,
			unsigned int events)
{
	prep_poll(io, fd, events);
	ASSERT_EQ(1, aio_submit_one(aio, io));
}

#define EXPECT_NO_EVENT(aio) do {					\
	struct io_event __ev;						\
									\
	EXPECT_EQ(0, aio_poll((aio), 1, &__ev));			\
} while (0)

/* The next event is that of @io, which was told @want. */
static void expect_ready(struct __test_metadata *_metadata, struct aio *aio, struct iocb *io,
			 int want)
{
	struct io_event ev;
	long long res;

	ASSERT_EQ(1, aio_wait(aio, 1, &ev)) {
		TH_LOG("no event");
	}
	EXPECT_EVENT(&ev, io, ev.res);
	res = ev.res;
	if (!aio->ops->is_raio)
		res &= (long long)io->aio_buf | ALWAYS;
	EXPECT_EQ(want, res) {
		TH_LOG("%#llx", ev.res);
	}
}

/* How many polls have ended where, by the module's counters: raio only. */
#define EXPECT_ENDED(in_wakeup, later) do {				\
	if (variant->ops->is_raio) {					\
		EXPECT_MOVED((in_wakeup), &self->before, polled_inline);	\
		EXPECT_MOVED((later), &self->before, polled_deferred);	\
	}								\
} while (0)

/* Fields. */

TEST_F(polls, bad_fields)
{
	static const __u64 masks[] = { 1 << 16, 1 << 16 | POLLIN, 1ULL << 63, -1ULL };
	struct aio *aio = &self->fed.aio;
	struct iocb io;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(masks); i++) {
		prep_poll(&io, self->fed.zero, 0);
		io.aio_buf = masks[i];
		EXPECT_REFUSED(-EINVAL, aio, &io);
	}
	prep_poll(&io, self->fed.zero, POLLIN);
	io.aio_offset = 1;
	EXPECT_REFUSED(-EINVAL, aio, &io);
	io.aio_offset = -1;
	EXPECT_REFUSED(-EINVAL, aio, &io);
	prep_poll(&io, self->fed.zero, POLLIN);
	io.aio_nbytes = 1;
	EXPECT_REFUSED(-EINVAL, aio, &io);
	prep_poll(&io, self->fed.zero, POLLIN);
	io.aio_rw_flags = RWF_NOWAIT;
	EXPECT_REFUSED(-EINVAL, aio, &io);
	io.aio_rw_flags = 1U << 31;
	EXPECT_REFUSED(-EINVAL, aio, &io);
	/* All that is wrong with these is the descriptor. */
	prep_poll(&io, -1, POLLIN);
	EXPECT_REFUSED(-EBADF, aio, &io);
	prep_poll(&io, open("/dev", O_PATH | O_CLOEXEC), POLLIN);
	EXPECT_REFUSED(-EBADF, aio, &io);
	close(io.aio_fildes);
	/* And all bits that there are may be asked for. */
	prep_poll(&io, self->fed.zero, 0xffff);
	EXPECT_RESULT(polled(self->fed.zero, 0xffff), aio, &io);
	EXPECT_ENDED(0, 0);
}

/* What a poll is, is up to the file: nothing is needed to have it open for. */
TEST_F(polls, open_for_anything)
{
	static const int flags[] = { O_RDONLY, O_WRONLY, O_RDWR };
	struct iocb io;
	unsigned int i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		fd = open(testdev_path("c1"), flags[i] | O_CLOEXEC);
		ASSERT_LE(0, fd);
		prep_poll(&io, fd, POLLIN | POLLOUT);
		EXPECT_RESULT(POLLIN | POLLOUT, &self->fed.aio, &io);
		close(fd);
	}
}

/* Ready at once. */

TEST_F(polls, ready_already)
{
	static const unsigned int masks[] = {
		0, POLLIN, POLLOUT, POLLIN | POLLOUT, POLLPRI, READABLE, POLLRDHUP, 0xffff,
	};
	struct source pipe, full, broken, unread, socket, event, dev, ep;
	const struct {
		const char *name;
		int fd;
	} files[] = {
		{ "/dev/null", open("/dev/null", O_RDWR | O_CLOEXEC) },
		{ "tmpfs", temp_file(tmpfs_dir(), O_RDWR) },
		{ "ext4", temp_file(ext4_dir(), O_RDWR) },
		{ "directory", open(tmpfs_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC) },
		{ "pipe", (source_open(_metadata, &pipe, PIPE), fire_other(&pipe), pipe.fd) },
		{ "its other end", pipe.other },
		{ "pipe without a writer", (source_open(_metadata, &broken, PIPE),
					    close(broken.other), broken.fd) },
		{ "pipe without a reader", (source_open(_metadata, &unread, FULL_PIPE),
					    close(unread.other), unread.fd) },
		{ "full pipe", (source_open(_metadata, &full, FULL_PIPE), full.other) },
		{ "socket", (source_open(_metadata, &socket, SOCKET), fire_other(&socket),
			     socket.fd) },
		{ "its other end", socket.other },
		{ "eventfd", (source_open(_metadata, &event, EVENTFD), fire_eventfd(&event),
			      event.fd) },
		{ "epoll", (source_open(_metadata, &ep, EPOLL), fire_other(&ep), ep.fd) },
		{ "device", (source_open(_metadata, &dev, DEVICE), dev.fd) },
	};
	struct aio *aio = &self->fed.aio;
	unsigned int i, j, done = 0, asked = 0;
	struct io_event ev;
	struct iocb io;
	int want;

	testdev_cmd("c1 ready %d", POLLIN | POLLPRI | POLLRDHUP);
	for (i = 0; i < ARRAY_SIZE(files); i++) {
		ASSERT_LE(0, files[i].fd) {
			TH_LOG("%s", files[i].name);
		}
		for (j = 0; j < ARRAY_SIZE(masks); j++) {
			want = polled(files[i].fd, masks[j]);
			if (!want)
				continue;
			prep_poll(&io, files[i].fd, masks[j]);
			ASSERT_EQ(1, aio_submit_one(aio, &io));
			/* To ask an epoll is to ask others: raio has a worker do it. */
			if (variant->ops->is_raio && files[i].fd == ep.fd) {
				ASSERT_EQ(1, aio_wait(aio, 1, &ev));
				asked++;
			} else {
				/* It is there before the call returns. */
				ASSERT_EQ(1, aio_poll(aio, 1, &ev)) {
					TH_LOG("%s for %#x", files[i].name, masks[j]);
				}
			}
			EXPECT_EVENT(&ev, &io, want);
			done++;
		}
		close(files[i].fd);
	}
	EXPECT_LT(ARRAY_SIZE(files), done);
	EXPECT_ENDED(0, asked);
	if (variant->ops->is_raio)
		EXPECT_MOVED(asked, &self->before, queued);
}

/* Who is never ready and tells nobody is refused. */
TEST_F(polls, never_ready)
{
	struct aio *aio = &self->fed.aio;
	struct source dev;
	struct iocb io;
	int file = temp_file(tmpfs_dir(), O_RDWR);

	prep_poll(&io, file, POLLPRI);
	EXPECT_REFUSED(-EINVAL, aio, &io);
	prep_poll(&io, self->fed.zero, 0);
	EXPECT_REFUSED(-EINVAL, aio, &io);
	source_open(_metadata, &dev, DEVICE);
	testdev_cmd("c1 queues none");
	prep_poll(&io, dev.fd, POLLIN);
	EXPECT_REFUSED(-EINVAL, aio, &io);
	/* It is another matter if it is ready, or tells. */
	testdev_cmd("c1 ready %d", POLLIN);
	EXPECT_RESULT(POLLIN, aio, &io);
	testdev_cmd("c1 ready 0");
	testdev_cmd("c1 queues 0");
	submit_poll(_metadata, aio, &io, dev.fd, POLLIN);
	EXPECT_NO_EVENT(aio);
	testdev_cmd("c1 fire 0 %d", POLLIN);
	expect_ready(_metadata, aio, &io, POLLIN);
	source_close(&dev);
	close(file);
}

/* Ready later. */

TEST_F(polls, becomes_ready)
{
	struct aio *aio = &self->fed.aio;
	unsigned int i, round;
	struct source s;
	struct iocb io;

	for (i = 0; i < NR_SOURCES; i++) {
		source_open(_metadata, &s, i);
		for (round = 0; round < 3; round++) {
			prep_poll(&io, s.fd, s.kind->events);
			if (s.kind->queues > 1 && !variant->ops->is_raio) {
				EXPECT_REFUSED(-EINVAL, aio, &io);
				continue;
			}
			ASSERT_EQ(1, aio_submit_one(aio, &io)) {
				TH_LOG("%s", s.kind->name);
			}
			EXPECT_NO_EVENT(aio);
			ASSERT_EQ(0, s.kind->fire(&s));
			expect_ready(_metadata, aio, &io, s.kind->events);
			EXPECT_EQ(s.kind->events, polled(s.fd, s.kind->events)) {
				TH_LOG("%s", s.kind->name);
			}
			/* It was asked for once. */
			EXPECT_NO_EVENT(aio);
			ASSERT_EQ(0, s.kind->drain(&s));
			EXPECT_EQ(0, polled(s.fd, s.kind->events));
		}
		source_close(&s);
	}
	if (variant->ops->is_raio)
		EXPECT_MOVED(3 * NR_SOURCES, &self->before, queued);
}

/* What nobody has to ask for. */
TEST_F(polls, errors_are_always_told)
{
	struct aio *aio = &self->fed.aio;
	struct source s;
	struct iocb io;

	source_open(_metadata, &s, PIPE);
	submit_poll(_metadata, aio, &io, s.fd, 0);
	fire_other(&s);
	EXPECT_NO_EVENT(aio);
	close(s.other);
	expect_ready(_metadata, aio, &io, POLLHUP);
	close(s.fd);

	source_open(_metadata, &s, FULL_PIPE);
	submit_poll(_metadata, aio, &io, s.fd, 0);
	close(s.other);
	expect_ready(_metadata, aio, &io, POLLERR);
	close(s.fd);

	source_open(_metadata, &s, SOCKET);
	submit_poll(_metadata, aio, &io, s.fd, POLLRDHUP);
	EXPECT_EQ(0, shutdown(s.other, SHUT_WR));
	expect_ready(_metadata, aio, &io, POLLRDHUP);
	submit_poll(_metadata, aio, &io, s.fd, POLLPRI);
	close(s.other);
	expect_ready(_metadata, aio, &io, POLLHUP);
	close(s.fd);
}

/* The wake-up says enough: it ends there. */
TEST_F(polls, in_the_wakeup)
{
	struct aio *aio = &self->fed.aio;
	struct source dev;
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	source_open(_metadata, &dev, DEVICE);
	for (i = 0; i < 10; i++) {
		submit_poll(_metadata, aio, &io, dev.fd, POLLIN | POLLOUT);
		testdev_cmd("c1 fire 0 %d", POLLIN | POLLRDNORM | POLLPRI);
		/* At once, and without another look. */
		ASSERT_EQ(1, aio_poll(aio, 1, &ev));
		EXPECT_EVENT(&ev, &io, ev.res);
		EXPECT_EQ(POLLIN, ev.res & (POLLIN | POLLOUT));
		if (variant->ops->is_raio)
			EXPECT_EQ(POLLIN, ev.res);
		EXPECT_EQ(i + 1, testdev_stat("c1", "polled"));
		testdev_cmd("c1 ready 0");
	}
	EXPECT_ENDED(i, 0);
	/* In interrupts, too. */
	for (; i < 20; i++) {
		submit_poll(_metadata, aio, &io, dev.fd, POLLIN);
		testdev_cmd("c1 %s 1 1000 fire 0 %d", i % 2 ? "soft" : "hard", POLLIN);
		expect_ready(_metadata, aio, &io, POLLIN);
		EXPECT_EQ(i + 1, testdev_stat("c1", "polled"));
		testdev_cmd("c1 ready 0");
	}
	EXPECT_ENDED(i, 0);
	source_close(&dev);
}

/* It doesn't: the file is looked at a little later. */
TEST_F(polls, after_another_look)
{
	struct aio *aio = &self->fed.aio;
	struct source dev;
	struct iocb io;
	unsigned int i;

	source_open(_metadata, &dev, DEVICE);
	for (i = 0; i < 10; i++) {
		submit_poll(_metadata, aio, &io, dev.fd, POLLIN | POLLOUT);
		testdev_cmd("c1 ready %d", POLLOUT | POLLPRI);
		EXPECT_NO_EVENT(aio);
		testdev_cmd(i % 3 ? "c1 wake 0 0" : "c1 hard 1 1000 wake 0 0");
		expect_ready(_metadata, aio, &io, POLLOUT);
		EXPECT_EQ(2 * i + 2, testdev_stat("c1", "polled"));
		testdev_cmd("c1 ready 0");
	}
	EXPECT_ENDED(0, i);
	source_close(&dev);
}

/* Woken for what was not asked for: nobody looks. */
TEST_F(polls, another_key)
{
	struct aio *aio = &self->fed.aio;
	struct source dev;
	struct iocb io;
	unsigned int i;

	source_open(_metadata, &dev, DEVICE);
	submit_poll(_metadata, aio, &io, dev.fd, POLLIN);
	for (i = 0; i < 10; i++)
		testdev_cmd("c1 fire 0 %d", POLLOUT | POLLWRNORM);
	testdev_cmd("c1 soft 10 1000 wake 0 %d", POLLOUT);
	testdev_cmd("c1 hard 10 1000 wake 0 %d", POLLPRI);
	testdev_cmd("c1 wait woken 30");
	EXPECT_NO_EVENT(aio);
	EXPECT_EQ(1, testdev_stat("c1", "polled"));
	testdev_cmd("c1 fire 0 %d", POLLIN | POLLOUT);
	expect_ready(_metadata, aio, &io, POLLIN);
	EXPECT_EQ(1, testdev_stat("c1", "polled"));
	EXPECT_ENDED(1, 0);
	source_close(&dev);
}

/* Woken for nothing: it is looked at, goes on, and hears of the next time. */
TEST_F(polls, spurious)
{
	struct aio *aio = &self->fed.aio;
	struct source dev;
	struct iocb io;
	unsigned int i;

	source_open(_metadata, &dev, DEVICE);
	submit_poll(_metadata, aio, &io, dev.fd, POLLIN);
	for (i = 0; i < 20; i++) {
		testdev_cmd(i % 2 ? "c1 wake 0 0" : "c1 hard 1 1000 wake 0 0");
		testdev_cmd("c1 wait polled %u", i + 2);
		EXPECT_NO_EVENT(aio);
	}
	EXPECT_ENDED(0, 0);
	testdev_cmd("c1 fire 0 %d", POLLIN);
	expect_ready(_metadata, aio, &io, POLLIN);
	EXPECT_NO_EVENT(aio);
	if (variant->ops->is_raio)
		EXPECT_EQ(1, MOVED(&self->before, polled_inline) +
			     MOVED(&self->before, polled_deferred));
	source_close(&dev);
}

/* It becomes ready while it is being looked at for the first time. */
TEST_F(polls, woken_by_its_own_method)
{
	static const char * const how[] = { "fire 0 1", "wake 0 0", "fire 0 4" };
	struct aio *aio = &self->fed.aio;
	struct source dev;
	struct iocb io;
	unsigned int i;

	source_open(_metadata, &dev, DEVICE);
	for (i = 0; i < 30; i++) {
		testdev_cmd("c1 ready 0");
		testdev_cmd("c1 during 1 %s", how[i % 3]);
		submit_poll(_metadata, aio, &io, dev.fd, POLLIN);
		if (i % 3) {
			/* What was said isn't what it waits for. */
			EXPECT_NO_EVENT(aio);
			testdev_cmd("c1 fire 0 %d", POLLIN);
		}
		expect_ready(_metadata, aio, &io, POLLIN);
		EXPECT_NO_EVENT(aio);
	}
	/* Or again and again when it is looked at later. */
	testdev_cmd("c1 ready 0");
	submit_poll(_metadata, aio, &io, dev.fd, POLLIN);
	testdev_cmd("c1 during 10 wake 0 0");
	testdev_cmd("c1 wake 0 0");
	testdev_cmd("c1 wait woken %d", 30 + 20 + 11);
	testdev_cmd("c1 during 1 fire 0 %d", POLLIN);
	testdev_cmd("c1 wake 0 0");
	expect_ready(_metadata, aio, &io, POLLIN);
	source_close(&dev);
}

/* Several wait queues, and one several times. Kernel AIO refuses them. */

TEST_F(polls, several_queues)
{
	static const char * const queues[] = { "01", "10", "00", "0123", "3210", "01230123" };
	struct aio *aio = &self->fed.aio;
	struct source dev;
	struct iocb io;
	unsigned int i, j, queue;
	long looks;

	source_open(_metadata, &dev, DEVICE);
	for (i = 0; i < ARRAY_SIZE(queues); i++) {
		testdev_cmd("c1 queues %s", queues[i]);
		prep_poll(&io, dev.fd, POLLIN);
		if (!variant->ops->is_raio) {
			EXPECT_REFUSED(-EINVAL, aio, &io);
			continue;
		}
		for (j = 0; j < strlen(queues[i]); j++) {
			queue = queues[i][j] - '0';
			ASSERT_EQ(1, aio_submit_one(aio, &io));
			testdev_cmd("c1 wake %u %d", queue, POLLOUT);
			testdev_cmd("c1 wake %u 0", (queue + 1) % 4);
			EXPECT_NO_EVENT(aio);
			testdev_cmd("c1 fire %u %d", queue, POLLIN | POLLOUT);
			expect_ready(_metadata, aio, &io, POLLIN);
			/* It has left all of them. */
			testdev_cmd("c1 ready 0");
			looks = testdev_stat("c1", "polled");
			for (queue = 0; queue < 4; queue++)
				testdev_cmd("c1 wake %u 0", queue);
			EXPECT_EQ(looks, testdev_stat("c1", "polled"));
			EXPECT_NO_EVENT(aio);
		}
		/* Ready already. */
		testdev_cmd("c1 ready %d", POLLIN);
		EXPECT_RESULT(POLLIN, aio, &io);
		testdev_cmd("c1 ready 0");
		/* Or within the method, on the last of them. */
		testdev_cmd("c1 during 1 fire %c %d", queues[i][strlen(queues[i]) - 1], POLLIN);
		ASSERT_EQ(1, aio_submit_one(aio, &io));
		expect_ready(_metadata, aio, &io, POLLIN);
		testdev_cmd("c1 ready 0");
	}
	source_close(&dev);
}

/* All of them woken all the time, from two kinds of interrupts and a thread. */
TEST_F(polls, several_queues_in_a_storm)
{
	struct aio *aio = &self->fed.aio;
	struct source dev;
	struct iocb io;
	unsigned int i, j;

	if (!variant->ops->is_raio)
		return;
	source_open(_metadata, &dev, DEVICE);
	testdev_cmd("c1 queues 01230");
	testdev_cmd("c1 soft 1000000000 200000 wake 1 0");
	testdev_cmd("c1 hard 1000000000 300000 wake 2 %d", POLLIN);
	for (i = 0; i < 300 * long_run(10); i++) {
		submit_poll(_metadata, aio, &io, dev.fd, POLLIN);
		for (j = 0; j < i % 8; j++)
			testdev_cmd("c1 wake 0 0");
		EXPECT_NO_EVENT(aio);
		testdev_cmd("c1 fire %u %d", i % 4, POLLIN);
		expect_ready(_metadata, aio, &io, POLLIN);
		testdev_cmd("c1 ready 0");
	}
	source_close(&dev);
}

/* A queue that goes. (Kernel AIO tells what the last wake-up has said.) */

TEST_F(polls, queue_is_freed)
{
	static const char * const queues[] = { "0", "0", "01", "00", "0123", "3210", "3210" };
	static const char * const which[] = { "0", "0", "1", "0", "0", "1", "0" };
	struct aio *aio = &self->fed.aio;
	struct io_event ev[4];
	struct iocb io[4];
	struct source dev;
	unsigned int i, j;
	int nr;

	source_open(_metadata, &dev, DEVICE);
	for (i = 0; i < ARRAY_SIZE(queues); i++) {
		if (!variant->ops->is_raio && queues[i][1])
			break;
		nr = i ? ARRAY_SIZE(io) : 1;
		testdev_cmd("c1 queues %s", queues[i]);
		for (j = 0; j < nr; j++)
			submit_poll(_metadata, aio, &io[j], dev.fd, j % 2 ? POLLIN : POLLPRI);
		EXPECT_NO_EVENT(aio);
		testdev_cmd("c1 free %s", which[i]);
		ASSERT_EQ(nr, aio_wait(aio, nr, ev));
		for (j = 0; j < nr; j++) {
			EXPECT_EVENT(&ev[j], event_iocb(&ev[j]), ev[j].res);
			if (variant->ops->is_raio)
				EXPECT_EQ(POLLHUP, ev[j].res);
		}
		/* The others are left, too: these may go. */
		for (j = 0; j < 4; j++) {
			testdev_cmd("c1 wake %u 0", j);
			testdev_cmd("c1 free %u", j);
		}
		EXPECT_NO_EVENT(aio);
		/* And the new ones are as good. */
		submit_poll(_metadata, aio, &io[0], dev.fd, POLLIN);
		testdev_cmd("c1 fire 0 %d", POLLIN);
		expect_ready(_metadata, aio, &io[0], POLLIN);
		testdev_cmd("c1 ready 0");
	}
	source_close(&dev);
}

/* While it is being looked at. */
TEST_F(polls, queue_is_freed_while_woken)
{
	struct aio *aio = &self->fed.aio;
	struct source dev;
	struct io_event ev;
	struct iocb io;
	unsigned int i;

	source_open(_metadata, &dev, DEVICE);
	testdev_cmd("c1 hard 1000000000 200000 wake 0 0");
	for (i = 0; i < 200 * long_run(10); i++) {
		if (i % 2 && variant->ops->is_raio)
			testdev_cmd("c1 queues 01");
		submit_poll(_metadata, aio, &io, dev.fd, POLLIN);
		testdev_cmd("c1 free 0");
		ASSERT_EQ(1, aio_wait(aio, 1, &ev));
		EXPECT_EVENT(&ev, &io, ev.res);
		if (variant->ops->is_raio)
			EXPECT_EQ(POLLHUP, ev.res);
		testdev_cmd("c1 queues 0");
	}
	source_close(&dev);
}

/*
 * The queue of a signalfd is that of the process which polls it, and goes with
 * it. A child that shares memory and so the context, but no signals, submits
 * such a poll and is gone.
 */
TEST_F(polls, signalfd_of_who_has_gone)
{
	struct io_event ev;
	struct iocb io;
	unsigned int i;
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	ASSERT_LE(0, fd);
	for (i = 0; i < 20; i++) {
		prep_poll(&io, fd, POLLIN);
		submit_by_child(_metadata, &self->fed.aio, &io);
		ASSERT_EQ(1, aio_wait(&self->fed.aio, 1, &ev));
		EXPECT_EVENT(&ev, &io, ev.res);
		if (variant->ops->is_raio)
			EXPECT_EQ(POLLHUP, ev.res);
	}
	close(fd);
}

/* What is pending already is seen by who submits. */
TEST_F(polls, signalfd)
{
	struct signalfd_siginfo info;
	struct iocb io;
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	ASSERT_EQ(0, sigprocmask(SIG_BLOCK, &set, NULL));
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	ASSERT_LE(0, fd);
	raise(SIGUSR1);
	prep_poll(&io, fd, POLLIN);
	EXPECT_RESULT(POLLIN, &self->fed.aio, &io);
	EXPECT_EQ(sizeof(info), read(fd, &info, sizeof(info)));
	close(fd);
}

/* Many, and lifetimes. */

/* As many as there are slots, on one file: all are told, and no other fits. */
TEST_F(polls, full_ring)
{
	const unsigned int nr = aio_ring(self->fed.aio.ctx)->nr;
	struct io_event *ev = map_pages((nr * sizeof(*ev) + PAGE - 1) / PAGE * PAGE);
	struct iocb *io = map_pages((nr * sizeof(*io) + PAGE - 1) / PAGE * PAGE);
	struct aio *aio = &self->fed.aio;
	unsigned int n, i;
	struct source s;

	pin_to_cpu(0);
	source_open(_metadata, &s, EVENTFD);
	for (n = 0; n < nr; n++) {
		prep_poll(&io[n], s.fd, POLLIN);
		if (aio_submit_one(aio, &io[n]) != 1)
			break;
	}
	ASSERT_GT(nr, n);
	EXPECT_LE(EVENTS, n);
	EXPECT_REFUSED(-EAGAIN, aio, &io[n]);
	EXPECT_EQ(0, fire_eventfd(&s));
	ASSERT_EQ(n, aio_wait(aio, n, ev));
	for (i = 0; i < n; i++) {
		struct iocb *one = event_iocb(&ev[i]);

		EXPECT_EVENT(&ev[i], one, POLLIN);
		ASSERT_NE(0, one->aio_buf);
		one->aio_buf = 0;
	}
	source_close(&s);
}

/* The request has the file until its event is there, and no longer. */
TEST_F(polls, closed_meanwhile)
{
	struct aio *aio = &self->fed.aio;
	struct source s;
	struct iocb io;
	unsigned int i;
	int other;

	signal(SIGPIPE, SIG_IGN);
	for (i = 0; i < 20; i++) {
		source_open(_metadata, &s, PIPE);
		submit_poll(_metadata, aio, &io, s.fd, POLLIN);
		EXPECT_EQ(0, close(s.fd));
		/* The descriptor is another file's now. */
		other = dup2(self->fed.zero, s.fd);
		EXPECT_NO_EVENT(aio);
		EXPECT_EQ(0, one_byte_out(s.other));
		expect_ready(_metadata, aio, &io, POLLIN);
		/* Kernel AIO may let go of it a little later. */
		EXPECT_TRUE(variant->ops->is_raio ? one_byte_out(s.other) == -EPIPE :
						    wait_for(one_byte_out(s.other) == -EPIPE));
		close(other);
		close(s.other);
	}
}

/* The context ends while they wait: they are cancelled. */
TEST_F(polls, end_of_the_context)
{
	struct aio *aio = &self->fed.aio;
	struct iocb io[NR_SOURCES];
	struct source s[NR_SOURCES];
	unsigned int i, n = 0;

	for (i = 0; i < NR_SOURCES; i++) {
		source_open(_metadata, &s[i], i);
		if (s[i].kind->queues > 1 && !variant->ops->is_raio)
			continue;
		submit_poll(_metadata, aio, &io[i], s[i].fd, s[i].kind->events);
		n++;
	}
	EXPECT_EQ(0, aio_destroy(aio, aio->ctx));
	aio->ctx = 0;
	for (i = 0; i < NR_SOURCES; i++) {
		s[i].kind->fire(&s[i]);
		source_close(&s[i]);
	}
	EXPECT_ENDED(0, 0);
	if (variant->ops->is_raio) {
		EXPECT_MOVED(n, &self->before, cancelled);
		EXPECT_MOVED(n, &self->before, completed);
	}
}

/* The same by the end of the process, while all of it is being woken. */
TEST_F_TIMEOUT(polls, end_of_the_process, 120)
{
	unsigned int i, round;
	pid_t pid;

	for (round = 0; round < 30 * long_run(10); round++) {
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			struct aio aio = { .ops = variant->ops };
			struct iocb io[NR_SOURCES];

			aio.dev = aio.ops->open();
			if (aio.dev < 0 || aio_setup(&aio, EVENTS, &aio.ctx))
				_exit(1);
			testdev_try("c1 hard 1000 200000 wake 0 0");
			for (i = 0; i < NR_SOURCES; i++) {
				struct source s = { .kind = &sources[i], .other = -1 };

				if (s.kind->queues > 1 && !aio.ops->is_raio)
					continue;
				if (s.kind->open(&s))
					_exit(2);
				prep_poll(&io[i], s.fd, s.kind->events);
				if (aio_submit_one(&aio, &io[i]) != 1)
					_exit(3);
				if (round % 2)
					s.kind->fire(&s);
			}
			if (round % 3 == 0)
				raise(SIGKILL);
			_exit(0);
		}
		i = wait_child(pid);
		EXPECT_TRUE(round % 3 ? i == 0 : WIFSIGNALED(i)) {
			TH_LOG("status %#x", i);
		}
		testdev_reset();
	}
	EXPECT_TRUE(wait_for(MOVED(&self->before, setups) - MOVED(&self->before, frees) ==
			     variant->ops->is_raio));
}

/*
 * Somebody makes it ready at the moment when it is asked: none is missed, again
 * and again.
 */

#define ROUNDS	2000

FIXTURE(race)
{
	struct fed fed;
	struct raio_stats before;
};

FIXTURE_VARIANT(race)
{
	int kind;
};

FIXTURE_VARIANT_ADD(race, pipe)
{
	.kind = PIPE,
};

FIXTURE_VARIANT_ADD(race, full_pipe)
{
	.kind = FULL_PIPE,
};

FIXTURE_VARIANT_ADD(race, socket)
{
	.kind = SOCKET,
};

FIXTURE_VARIANT_ADD(race, eventfd)
{
	.kind = EVENTFD,
};

FIXTURE_VARIANT_ADD(race, epoll)
{
	.kind = EPOLL,
};

FIXTURE_VARIANT_ADD(race, fifo)
{
	.kind = FIFO,
};

FIXTURE_VARIANT_ADD(race, pty)
{
	.kind = PTY,
};

FIXTURE_VARIANT_ADD(race, timer)
{
	.kind = TIMER,
};

FIXTURE_SETUP(race)
{
	polls_begin(_metadata, &self->fed, &raio, &self->before);
}

FIXTURE_TEARDOWN(race)
{
	polls_end(_metadata, &self->fed, &self->before);
}

struct racing {
	struct fed *fed;
	struct source s;
	struct iocb io;
	int efd;
	bool resfd;
	long ret;
	int fire_ret;
};

static void race_fire(void *data)
{
	struct racing *r = data;

	r->fire_ret = r->s.kind->fire(&r->s);
}

static void race_submit(void *data)
{
	struct racing *r = data;

	prep_poll(&r->io, r->s.fd, r->s.kind->events);
	if (r->resfd) {
		r->io.aio_flags = IOCB_FLAG_RESFD;
		r->io.aio_resfd = r->efd;
	}
	r->ret = aio_submit_one(&r->fed->aio, &r->io);
}

static void none_is_missed(struct __test_metadata *_metadata, struct fed *fed, int kind,
			   struct raio_stats *before)
{
	struct racing r = { .fed = fed };
	unsigned int i, n = ROUNDS * long_run(10);
	struct source count;
	struct rival rival;
	uint64_t counted;

	source_open(_metadata, &r.s, kind);
	source_open(_metadata, &count, EVENTFD);
	r.efd = count.fd;
	rival_begin(_metadata, &rival, race_fire, &r);
	for (i = 0; i < n; i++) {
		r.resfd = i / 16 % 2;
		race(&rival, race_submit, &r);
		ASSERT_EQ(0, r.fire_ret);
		ASSERT_EQ(1, r.ret);
		expect_ready(_metadata, &fed->aio, &r.io, r.s.kind->events);
		EXPECT_NO_EVENT(&fed->aio);
		if (r.resfd) {
			/* The event is there before it is counted. */
			ASSERT_TRUE(wait_for(polled(r.efd, POLLIN)));
			ASSERT_EQ(8, read(r.efd, &counted, 8));
			ASSERT_EQ(1, counted);
		}
		ASSERT_EQ(0, r.s.kind->drain(&r.s));
		ASSERT_EQ(0, polled(r.s.fd, r.s.kind->events));
	}
	rival_end(&rival);
	source_close(&r.s);
	source_close(&count);
	TH_LOG("%llu at once, %llu in the wake-up, %llu later",
	       n - MOVED(before, queued), MOVED(before, polled_inline),
	       MOVED(before, polled_deferred));
	EXPECT_EQ(MOVED(before, queued), MOVED(before, polled_inline) +
						MOVED(before, polled_deferred));
}

TEST_F_TIMEOUT(race, none_is_missed, 300)
{
	none_is_missed(_metadata, &self->fed, variant->kind, &self->before);
}

/* The same of a device that tells in every way. */
FIXTURE(device_race)
{
	struct fed fed;
	struct raio_stats before;
};

FIXTURE_VARIANT(device_race)
{
	int kind;
	const char *queues;
};

FIXTURE_VARIANT_ADD(device_race, device)
{
	.kind = DEVICE, .queues = "0",
};

FIXTURE_VARIANT_ADD(device_race, without_key)
{
	.kind = DEVICE_WITHOUT_KEY, .queues = "0",
};

FIXTURE_VARIANT_ADD(device_race, hard)
{
	.kind = DEVICE_HARD, .queues = "0",
};

FIXTURE_VARIANT_ADD(device_race, soft)
{
	.kind = DEVICE_SOFT, .queues = "0",
};

FIXTURE_VARIANT_ADD(device_race, queues)
{
	.kind = DEVICE, .queues = "1023",
};

FIXTURE_VARIANT_ADD(device_race, queues_without_key)
{
	.kind = DEVICE_WITHOUT_KEY, .queues = "1100",
};

FIXTURE_VARIANT_ADD(device_race, queues_hard)
{
	.kind = DEVICE_HARD, .queues = "100",
};

FIXTURE_SETUP(device_race)
{
	polls_begin(_metadata, &self->fed, &raio, &self->before);
	testdev_cmd("c1 queues %s", variant->queues);
}

FIXTURE_TEARDOWN(device_race)
{
	polls_end(_metadata, &self->fed, &self->before);
}

TEST_F_TIMEOUT(device_race, none_is_missed, 300)
{
	none_is_missed(_metadata, &self->fed, variant->kind, &self->before);
}

/* Woken for nothing just before, so that it is being looked at when it becomes ready. */
TEST_F_TIMEOUT(device_race, none_is_missed_by_who_looks, 300)
{
	struct racing r = { .fed = &self->fed };
	unsigned int i, n = ROUNDS * long_run(10) / 2;
	uint64_t dice = 3;

	source_open(_metadata, &r.s, variant->kind);
	for (i = 0; i < n; i++) {
		race_submit(&r);
		ASSERT_EQ(1, r.ret);
		testdev_cmd("c1 wake 0 0");
		keep_distance(&dice);
		race_fire(&r);
		ASSERT_EQ(0, r.fire_ret);
		expect_ready(_metadata, &self->fed.aio, &r.io, r.s.kind->events);
		EXPECT_NO_EVENT(&self->fed.aio);
		testdev_cmd("c1 ready 0");
	}
	source_close(&r.s);
}

/* The queue goes at that moment. */

static void race_free(void *data)
{
	struct racing *r = data;

	r->ret = testdev_try("c1 free 0");
}

TEST_F_TIMEOUT(device_race, or_the_queue_goes, 300)
{
	struct racing r = { .fed = &self->fed };
	unsigned int i, n = ROUNDS * long_run(10) / 20, gone = 0;
	struct rival rival;
	struct io_event ev;

	source_open(_metadata, &r.s, variant->kind);
	rival_begin(_metadata, &rival, race_fire, &r);
	for (i = 0; i < n; i++) {
		race_submit(&r);
		ASSERT_EQ(1, r.ret);
		race(&rival, race_free, &r);
		ASSERT_EQ(0, r.fire_ret);
		ASSERT_EQ(0, r.ret);
		ASSERT_EQ(1, aio_wait(&self->fed.aio, 1, &ev));
		EXPECT_EVENT(&ev, &r.io, ev.res);
		ASSERT_TRUE(ev.res == READABLE || ev.res == POLLHUP);
		gone += ev.res == POLLHUP;
		EXPECT_NO_EVENT(&self->fed.aio);
		/* What an interrupt is to say has been said. */
		testdev_cmd("c1 wait woken %u", i + 1);
		testdev_cmd("c1 ready 0");
	}
	rival_end(&rival);
	TH_LOG("%u of %u went", gone, n);
	EXPECT_LT(0, gone);
	source_close(&r.s);
}

/*
 * One that writes as it likes, but never far ahead, and one that reads until
 * nothing is left and polls again.
 */

#define BYTES	20000
#define AHEAD	16

struct writer {
	int fd;
	unsigned int bytes;
	unsigned int taken;
};

static void *writer_thread(void *data)
{
	struct writer *w = data;
	uint64_t dice = 4;
	unsigned int done = 0;
	ssize_t n;

	pin_to_cpu(1);
	while (done < w->bytes) {
		n = write(w->fd, "abcd", MIN(1 + done % 4, w->bytes - done));
		if (n > 0)
			done += n;
		while (done > __atomic_load_n(&w->taken, __ATOMIC_ACQUIRE) + AHEAD)
			sched_yield();
		keep_distance(&dice);
	}
	return NULL;
}

TEST_F_TIMEOUT(polls, none_is_missed_in_a_stream, 300)
{
	static const int kinds[] = { PIPE, SOCKET, EPOLL, FIFO, PTY };
	struct aio *aio = &self->fed.aio;
	unsigned int i, polls;
	char buf[64];
	ssize_t n;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct writer w = { .bytes = BYTES * long_run(10) };
		struct source s;
		struct iocb io;
		pthread_t thread;

		source_open(_metadata, &s, kinds[i]);
		if (s.kind->queues > 1 && !variant->ops->is_raio)
			continue;
		w.fd = s.other;
		ASSERT_EQ(0, pthread_create(&thread, NULL, writer_thread, &w));
		pin_to_cpu(0);
		for (polls = 0; w.taken < w.bytes; polls++) {
			submit_poll(_metadata, aio, &io, s.fd, POLLIN);
			expect_ready(_metadata, aio, &io, POLLIN);
			do {
				n = read(kinds[i] == EPOLL ? s.third : s.fd, buf, sizeof(buf));
				if (n > 0)
					__atomic_fetch_add(&w.taken, n, __ATOMIC_RELEASE);
			} while (n > 0);
			ASSERT_EQ(EAGAIN, errno);
		}
		pthread_join(thread, NULL);
		EXPECT_EQ(w.bytes, w.taken);
		EXPECT_LT(w.bytes / sizeof(buf), polls);
		source_close(&s);
	}
}

/*
 * Results that are told to an eventfd which leads back to what is polled: by
 * itself, by others, by epolls that watch it, by the device itself.
 */

#define MOST	8

FIXTURE(recursion)
{
	struct fed fed;
	struct raio_stats before;
	struct source e[MOST];
	struct iocb io[MOST];
	struct iocb trigger;
	int ep[2];
	int dev;
	unsigned int nr;
	/* Polls may have ended before TRIGGER(). */
	bool early;
};

FIXTURE_VARIANT(recursion)
{
	const struct aio_ops *ops;
	/* Of the device whose request is told to the first eventfd; NULL to write to it. */
	const char *mode;
};

FIXTURE_VARIANT_ADD(recursion, kernel_aio_write)
{
	.ops = &kernel_aio,
};

FIXTURE_VARIANT_ADD(recursion, kernel_aio_softirq)
{
	.ops = &kernel_aio, .mode = "softirq",
};

FIXTURE_VARIANT_ADD(recursion, kernel_aio_interrupt)
{
	.ops = &kernel_aio, .mode = "timer 1000",
};

FIXTURE_VARIANT_ADD(recursion, raio_write)
{
	.ops = &raio,
};

FIXTURE_VARIANT_ADD(recursion, raio_now)
{
	.ops = &raio, .mode = "now",
};

FIXTURE_VARIANT_ADD(recursion, raio_sync)
{
	.ops = &raio, .mode = "sync",
};

FIXTURE_VARIANT_ADD(recursion, raio_softirq)
{
	.ops = &raio, .mode = "softirq",
};

FIXTURE_VARIANT_ADD(recursion, raio_interrupt)
{
	.ops = &raio, .mode = "timer 1000",
};

FIXTURE_SETUP(recursion)
{
	unsigned int i;

	polls_begin(_metadata, &self->fed, variant->ops, &self->before);
	for (i = 0; i < MOST; i++)
		source_open(_metadata, &self->e[i], EVENTFD);
	for (i = 0; i < 2; i++) {
		self->ep[i] = epoll_create1(EPOLL_CLOEXEC);
		ASSERT_LE(0, self->ep[i]);
	}
	self->dev = testdev_open("c0", 0);
	self->nr = 0;
}

FIXTURE_TEARDOWN(recursion)
{
	unsigned int i;

	close(self->dev);
	for (i = 0; i < 2; i++)
		close(self->ep[i]);
	for (i = 0; i < MOST; i++)
		source_close(&self->e[i]);
	polls_end(_metadata, &self->fed, &self->before);
}

/* A poll of @fd that is told to the eventfd @efd, or to none. */
#define POLL_FOR(fd, efd) do {							\
	struct iocb *__io = &self->io[self->nr++];				\
										\
	prep_poll(__io, (fd), POLLIN);						\
	if ((efd) >= 0) {							\
		__io->aio_flags = IOCB_FLAG_RESFD;				\
		__io->aio_resfd = (efd);					\
	}									\
	ASSERT_EQ(1, aio_submit_one(&self->fed.aio, __io));			\
} while (0)

#define WATCH(ep, fd, how) do {							\
	struct epoll_event __event = { .events = EPOLLIN | (how) };		\
										\
	ASSERT_EQ(0, epoll_ctl((ep), EPOLL_CTL_ADD, (fd), &__event));		\
} while (0)

/* Has the first eventfd told something, and takes all events. */
#define TRIGGER() do {								\
	struct io_event __ev[MOST + 1];						\
	unsigned int __nr = self->nr, __i;					\
										\
	if (!self->early)							\
		EXPECT_NO_EVENT(&self->fed.aio);				\
	if (variant->mode) {							\
		testdev_cmd("c0 mode %s", variant->mode);			\
		iocb_prep(&self->trigger, IOCB_CMD_PREAD, self->dev, self->fed.buf, BLOCK, 0); \
		self->trigger.aio_flags = IOCB_FLAG_RESFD;			\
		self->trigger.aio_resfd = self->e[0].fd;			\
		ASSERT_EQ(1, aio_submit_one(&self->fed.aio, &self->trigger));	\
		__nr++;								\
	} else {								\
		ASSERT_EQ(0, fire_eventfd(&self->e[0]));			\
	}									\
	/* All are there at once: what is read of the device makes it unreadable. */	\
	ASSERT_TRUE(wait_for(ring_used(self->fed.aio.ctx) >= __nr)) {		\
		TH_LOG("%u of %u events", ring_used(self->fed.aio.ctx), __nr);	\
	}									\
	ASSERT_EQ(__nr, aio_wait(&self->fed.aio, __nr, __ev));			\
	for (__i = 0; __i < __nr; __i++) {					\
		struct iocb *__io = event_iocb(&__ev[__i]);			\
										\
		EXPECT_EVENT(&__ev[__i], __io,					\
			     __io == &self->trigger ? (long long)BLOCK : POLLIN);	\
		ASSERT_NE(IOCB_CMD_NOOP, __io->aio_lio_opcode) {		\
			TH_LOG("two events of one request");			\
		}								\
		__io->aio_lio_opcode = IOCB_CMD_NOOP;				\
	}									\
	EXPECT_NO_EVENT(&self->fed.aio);					\
	self->nr = 0;								\
} while (0)

/* It was counted, which may come a little after the event, so often. */
#define EXPECT_COUNT(n, s) do {							\
	uint64_t __n = 0, __more;						\
										\
	EXPECT_TRUE(wait_for(({							\
		if (read((s)->fd, &__more, 8) == 8)				\
			__n += __more;						\
		__n >= (n);							\
	})));									\
	EXPECT_EQ((n), __n);							\
} while (0)

TEST_F(recursion, of_one)
{
	unsigned int i;

	for (i = 0; i < 50; i++) {
		POLL_FOR(self->e[0].fd, self->e[0].fd);
		TRIGGER();
		EXPECT_COUNT(2, &self->e[0]);
	}
}

TEST_F(recursion, of_many_on_one)
{
	unsigned int i, j;

	for (i = 0; i < 20; i++) {
		for (j = 0; j < MOST; j++)
			POLL_FOR(self->e[0].fd, self->e[0].fd);
		TRIGGER();
		EXPECT_COUNT(1 + MOST, &self->e[0]);
	}
}

/* Each tells the next, the last one the first. */
TEST_F(recursion, of_a_circle)
{
	unsigned int i, n;

	for (n = 2; n <= MOST; n++) {
		for (i = 0; i < n; i++)
			POLL_FOR(self->e[i].fd, self->e[(i + 1) % n].fd);
		TRIGGER();
		EXPECT_COUNT(2, &self->e[0]);
		for (i = 1; i < n; i++)
			EXPECT_COUNT(1, &self->e[i]);
	}
}

/* Both ways: what tells it is told by it. */
TEST_F(recursion, of_two_in_both_ways)
{
	unsigned int i;

	for (i = 0; i < 20; i++) {
		POLL_FOR(self->e[0].fd, self->e[1].fd);
		POLL_FOR(self->e[1].fd, self->e[0].fd);
		POLL_FOR(self->e[1].fd, self->e[1].fd);
		POLL_FOR(self->e[0].fd, self->e[0].fd);
		TRIGGER();
		EXPECT_COUNT(3, &self->e[0]);
		EXPECT_COUNT(2, &self->e[1]);
	}
}

/* An epoll that watches it. */
TEST_F(recursion, by_an_epoll)
{
	static const unsigned int how[] = { 0, EPOLLET, EPOLLONESHOT, EPOLLEXCLUSIVE };
	struct epoll_event event;
	unsigned int i;

	for (i = 0; i < 20; i++) {
		WATCH(self->ep[0], self->e[0].fd, how[i % 4]);
		/* The epoll is polled, the file that it watches, or both. */
		if (i % 3 != 1)
			POLL_FOR(self->ep[0], self->e[0].fd);
		if (i % 3 != 0)
			POLL_FOR(self->e[0].fd, self->e[0].fd);
		TRIGGER();
		EXPECT_EQ(1, epoll_wait(self->ep[0], &event, 1, 0));
		EXPECT_COUNT(i % 3 == 2 ? 3 : 2, &self->e[0]);
		ASSERT_EQ(0, epoll_ctl(self->ep[0], EPOLL_CTL_DEL, self->e[0].fd, NULL));
	}
}

/* Two eventfds, each told by a poll of the other, both watched by what is polled. */
TEST_F(recursion, by_an_epoll_of_both)
{
	unsigned int i;

	for (i = 0; i < 20; i++) {
		WATCH(self->ep[0], self->e[0].fd, i % 2 ? EPOLLET : 0);
		WATCH(self->ep[0], self->e[1].fd, i % 2 ? EPOLLET : 0);
		POLL_FOR(self->ep[0], self->e[1].fd);
		POLL_FOR(self->e[1].fd, self->e[0].fd);
		POLL_FOR(self->ep[0], self->e[0].fd);
		TRIGGER();
		EXPECT_COUNT(3, &self->e[0]);
		EXPECT_COUNT(1, &self->e[1]);
		ASSERT_EQ(0, epoll_ctl(self->ep[0], EPOLL_CTL_DEL, self->e[0].fd, NULL));
		ASSERT_EQ(0, epoll_ctl(self->ep[0], EPOLL_CTL_DEL, self->e[1].fd, NULL));
	}
}

/* An epoll that watches an epoll that watches it. */
TEST_F(recursion, by_an_epoll_of_an_epoll)
{
	unsigned int i;

	WATCH(self->ep[1], self->ep[0], 0);
	for (i = 0; i < 20; i++) {
		WATCH(self->ep[0], self->e[0].fd, i % 2 ? EPOLLET : 0);
		POLL_FOR(self->ep[1], self->e[0].fd);
		POLL_FOR(self->ep[0], self->e[0].fd);
		POLL_FOR(self->e[0].fd, self->e[0].fd);
		TRIGGER();
		EXPECT_COUNT(4, &self->e[0]);
		ASSERT_EQ(0, epoll_ctl(self->ep[0], EPOLL_CTL_DEL, self->e[0].fd, NULL));
	}
}

/* The other context's events are told to what this one polls. */
TEST_F(recursion, of_two_contexts)
{
	struct aio second = self->fed.aio;
	struct iocb io[2];
	struct io_event ev;
	unsigned int i;

	second.ctx = 0;
	ASSERT_EQ(0, aio_setup(&second, 4, &second.ctx));
	for (i = 0; i < 20; i++) {
		prep_poll(&io[0], self->e[0].fd, POLLIN);
		io[0].aio_flags = IOCB_FLAG_RESFD;
		io[0].aio_resfd = self->e[1].fd;
		ASSERT_EQ(1, aio_submit_one(&second, &io[0]));
		POLL_FOR(self->e[1].fd, self->e[0].fd);
		TRIGGER();
		ASSERT_EQ(1, aio_wait(&second, 1, &ev));
		EXPECT_EVENT(&ev, &io[0], POLLIN);
		EXPECT_COUNT(2, &self->e[0]);
		EXPECT_COUNT(1, &self->e[1]);
	}
	EXPECT_EQ(0, aio_destroy(&second, second.ctx));
}

/*
 * The device itself, which can be read when there is an event, is polled, or
 * watched by an epoll that is. The event of that poll makes it readable too.
 */
TEST_F(recursion, by_the_device)
{
	struct aio *aio = &self->fed.aio;
	unsigned int i;

	if (!variant->ops->is_raio)
		return;
	/*
	 * An epoll that is told of the device tells at once who polls it, without
	 * a look: maybe of events of the round before, which were read meanwhile.
	 */
	self->early = true;
	WATCH(self->ep[1], self->ep[0], 0);
	for (i = 0; i < 40; i++) {
		WATCH(self->ep[0], aio->dev, i % 2 ? EPOLLET : 0);
		if (i % 8)
			WATCH(self->ep[0], self->e[0].fd, i % 2 ? EPOLLET : 0);
		POLL_FOR(aio->dev, i % 3 ? self->e[0].fd : -1);
		POLL_FOR(self->ep[0], i % 5 ? self->e[0].fd : -1);
		POLL_FOR(self->ep[1], -1);
		POLL_FOR(self->e[0].fd, -1);
		TRIGGER();
		EXPECT_EQ(0, polled(aio->dev, POLLIN));
		EXPECT_COUNT(1 + !!(i % 3) + !!(i % 5), &self->e[0]);
		ASSERT_EQ(0, epoll_ctl(self->ep[0], EPOLL_CTL_DEL, aio->dev, NULL));
		if (i % 8)
			ASSERT_EQ(0, epoll_ctl(self->ep[0], EPOLL_CTL_DEL, self->e[0].fd, NULL));
	}
}

#define TERMINAL_LOOKS	300

struct typist {
	int fd;
	bool stop;
};

static void *write_on(void *data)
{
	struct typist *w = data;

	/* What doesn't fit is lost. */
	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		if (write(w->fd, "x", 1) < 0 && errno != EAGAIN)
			break;
	}
	return NULL;
}

static void *read_on(void *data)
{
	struct typist *t = data;
	char buf[64];

	while (!__atomic_load_n(&t->stop, __ATOMIC_RELAXED)) {
		if (read(t->fd, buf, sizeof(buf)) < 0 && errno != EAGAIN)
			break;
	}
	return NULL;
}

FIXTURE(terminal)
{
	struct aio aio;
};

FIXTURE_SETUP(terminal)
{
	aio_begin(_metadata, &self->aio, &raio, 1);
}

FIXTURE_TEARDOWN(terminal)
{
	aio_end(_metadata, &self->aio);
}

/*
 * Who looks at a terminal of which another has read everything waits for what is
 * being written to it, which is done by work that may need memory. (The kernel
 * warns of those who can't wait for such.)
 */
TEST_F_TIMEOUT(terminal, is_looked_at_while_it_is_written, 300)
{
	const int flags = O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK;
	struct typist reader = { }, w = { .fd = posix_openpt(flags) };
	struct raio_stats before;
	struct termios raw;
	pthread_t threads[2];
	unsigned int i;
	int fd;

	ASSERT_LE(0, w.fd);
	ASSERT_EQ(0, grantpt(w.fd));
	ASSERT_EQ(0, unlockpt(w.fd));
	fd = ioctl(w.fd, TIOCGPTPEER, flags);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, tcgetattr(fd, &raw));
	cfmakeraw(&raw);
	ASSERT_EQ(0, tcsetattr(fd, TCSANOW, &raw));
	stats_now(_metadata, &before);
	reader.fd = fd;
	ASSERT_EQ(0, pthread_create(&threads[0], NULL, write_on, &w));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, read_on, &reader));
	/* Some find it ready, whom nobody has to look for. */
	while (MOVED(&before, polled_deferred) < TERMINAL_LOOKS * long_run(10)) {
		for (i = 0; i < 50; i++) {
			struct io_event ev;
			struct iocb io;

			prep_poll(&io, fd, POLLIN);
			ASSERT_EQ(1, aio_submit_one(&self->aio, &io));
			ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
			EXPECT_NE(0, ev.res & POLLIN);
		}
	}
	__atomic_store_n(&w.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(threads[0], NULL));
	__atomic_store_n(&reader.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(threads[1], NULL));
	close(fd);
	close(w.fd);
}

TEST_HARNESS_MAIN
