// SPDX-License-Identifier: GPL-2.0
/*
 * A machine that is suspended: workers begin nothing meanwhile, and before it
 * have done what they write, or it isn't suspended at all. The machine goes no
 * further than to freeze its tasks, and thaws them some seconds later.
 */
#include <sys/timerfd.h>

#include "raio_task.h"
#include "raio_testdev.h"

#define EVENTS		4
#define POWER		"/sys/power/"
#define DELAY		"/sys/module/suspend/parameters/pm_test_delay"
#define FROZEN_SECONDS	5
#define SECOND		1000000000ULL

FIXTURE(suspend)
{
	struct aio aio;
	int fd;
};

FIXTURE_SETUP(suspend)
{
	if (access(POWER "pm_test", W_OK))
		SKIP(return, "the kernel has no CONFIG_PM_DEBUG");
	testdev_begin();
	aio_begin(_metadata, &self->aio, &raio, EVENTS);
	self->fd = testdev_open("c0", O_RDWR);
	/* What is to be written then isn't what takes its time. */
	sync();
	ASSERT_EQ(0, write_str(POWER "pm_test", "freezer"));
	ASSERT_EQ(0, write_str(DELAY, "5"));
}

FIXTURE_TEARDOWN(suspend)
{
	testdev_reset();
	close(self->fd);
	EXPECT_EQ(0, write_str(POWER "pm_test", "none"));
	aio_end(_metadata, &self->aio);
}

/* The timer runs out while all is frozen. How often it has is what is read. */
TEST_F_TIMEOUT(suspend, begins_nothing, 60)
{
	const struct itimerspec timer = {
		.it_value = { .tv_sec = 3 },
		.it_interval = { .tv_nsec = SECOND / 10 },
	};
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t times = 0;
	struct iocb io, *iop = &io;
	struct io_event ev;

	ASSERT_LE(0, fd);
	iocb_prep(&io, IOCB_CMD_PREAD, fd, &times, sizeof(times), 0);
	ASSERT_EQ(0, timerfd_settime(fd, 0, &timer, NULL));
	ASSERT_EQ(1, aio_submit(&self->aio, 1, &iop));
	ASSERT_EQ(0, write_str(POWER "state", "freeze"));
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_EQ(sizeof(times), ev.res);
	EXPECT_LE(10, times);
	close(fd);
}

/* A worker that makes something last is waited for. */
TEST_F_TIMEOUT(suspend, waits_for_writes, 60)
{
	const unsigned int seconds = FROZEN_SECONDS + 3;
	struct iocb io, *iop = &io;
	struct io_event ev;
	long long begun;

	testdev_cmd("c0 mode timer %llu", seconds * SECOND);
	iocb_prep(&io, IOCB_CMD_FSYNC, self->fd, NULL, 0, 0);
	begun = now_ns();
	ASSERT_EQ(1, aio_submit(&self->aio, 1, &iop));
	testdev_cmd("c0 wait started 1");
	ASSERT_EQ(0, write_str(POWER "state", "freeze"));
	EXPECT_LE((seconds + FROZEN_SECONDS) * SECOND, now_ns() - begun);
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_EQ(0, ev.res);
}

/* But not for ever. What has come meanwhile is gone on with. */
TEST_F_TIMEOUT(suspend, fails_if_they_do_not_end, 90)
{
	struct iocb io[2], *iop[] = { &io[0], &io[1] };
	int file = temp_file(tmpfs_dir(), O_RDWR);
	struct io_event ev;

	testdev_cmd("c0 mode hang");
	iocb_prep(&io[0], IOCB_CMD_FSYNC, self->fd, NULL, 0, 0);
	iocb_prep(&io[1], IOCB_CMD_FSYNC, file, NULL, 0, 0);
	ASSERT_EQ(1, aio_submit(&self->aio, 1, iop));
	testdev_cmd("c0 wait held 1");
	EXPECT_EQ(-EBUSY, write_str(POWER "state", "freeze"));
	ASSERT_EQ(1, aio_submit(&self->aio, 1, iop + 1));
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_EQ((uintptr_t)&io[1], ev.obj);
	testdev_cmd("c0 complete all");
	ASSERT_EQ(1, aio_wait(&self->aio, 1, &ev));
	EXPECT_EQ((uintptr_t)&io[0], ev.obj);
	EXPECT_EQ(0, ev.res);
	close(file);
}

TEST_HARNESS_MAIN
