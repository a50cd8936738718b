/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The test devices of raio_test.ko, whose requests end when and how a test
 * says: the character devices c0 and c1, the disks b0 and b1. The commands
 * are described in test_modules/raio_test/control.rs.
 *
 *	testdev_cmd("c0 mode hang");
 *	... submit three requests ...
 *	testdev_cmd("c0 wait held 3");
 *	testdev_cmd("c0 fail 1 %d", EIO);
 *	testdev_cmd("c0 complete all");
 *	ASSERT_EQ(1, testdev_stat("c0", "failed"));
 *
 * All but testdev_try() and testdev_path() are for a test, or a function that
 * has its _metadata, and end the test with a message if something is wrong.
 * (They look first: in the teardown of a test that has failed, an ASSERT_*()
 * always fails.)
 *
 * A test begins with testdev_begin() and ends with testdev_reset(), so that
 * nothing is left held.
 */
#ifndef RAIO_TESTDEV_H
#define RAIO_TESTDEV_H

#include <stdarg.h>

#include "raio_test.h"

#define TESTDEV_CTL		"/dev/raio_test_ctl"
#define TESTDEV_CHAR_SIZE	(1UL << 20)
#define TESTDEV_DISK_SIZE	(256UL << 20)

/* The node of a device. */
static inline const char *testdev_path(const char *dev)
{
	if (!strcmp(dev, "c0"))
		return "/dev/raio_test0";
	if (!strcmp(dev, "c1"))
		return "/dev/raio_test1";
	if (!strcmp(dev, "b0"))
		return "/dev/raio_testb0";
	if (!strcmp(dev, "b1"))
		return "/dev/raio_testb1";
	return "(no test device)";
}

static inline long testdev_vtry(const char *fmt, va_list args)
{
	char cmd[256];
	int fd, len;
	long ret;

	len = vsnprintf(cmd, sizeof(cmd), fmt, args);
	fd = open(TESTDEV_CTL, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = ret_errno(write(fd, cmd, len));
	close(fd);
	if (ret < 0)
		return ret;
	return ret == len ? 0 : -EIO;
}

/* A command. Returns 0 or -errno; for threads, children, and errors. */
static inline __printf(1, 2) long testdev_try(const char *fmt, ...)
{
	va_list args;
	long ret;

	va_start(args, fmt);
	ret = testdev_vtry(fmt, args);
	va_end(args);
	return ret;
}

static inline __printf(2, 3) void __testdev_cmd(struct __test_metadata *_metadata, const char *fmt, ...)
{
	char cmd[256];
	va_list args;
	long ret;

	va_start(args, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, args);
	va_end(args);
	ret = testdev_try("%s", cmd);
	if (ret) {
		ASSERT_EQ(0, ret) {
			TH_LOG("%s, \"%s\": %s", TESTDEV_CTL, cmd, strerror(-ret));
		}
	}
}

/* A command, which has to succeed. */
#define testdev_cmd(...) __testdev_cmd(_metadata, __VA_ARGS__)

/* The line that tells the state of a device. */
static inline void testdev_line(struct __test_metadata *_metadata, const char *dev, char *line,
				size_t size)
{
	char text[1024] = "";
	char *begin, *end;
	long ret = -1;
	int fd;

	fd = open(TESTDEV_CTL, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ret = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	if (ret < 0) {
		ASSERT_LE(0, ret) {
			TH_LOG("%s: %s", TESTDEV_CTL, strerror(errno));
		}
	}
	for (begin = text; *begin; begin = end + 1) {
		end = strchrnul(begin, '\n');
		if (!strncmp(begin, dev, strlen(dev)) && begin[strlen(dev)] == ' ') {
			snprintf(line, size, "%.*s", (int)(end - begin), begin);
			return;
		}
		if (!*end)
			break;
	}
	ASSERT_TRUE(false) {
		TH_LOG("%s: nothing of %s in \"%s\"", TESTDEV_CTL, dev, text);
	}
}

static inline long __testdev_stat(struct __test_metadata *_metadata, const char *dev,
				  const char *name)
{
	char line[256], key[32];
	char *val;

	testdev_line(_metadata, dev, line, sizeof(line));
	snprintf(key, sizeof(key), " %s=", name);
	val = strstr(line, key);
	if (!val) {
		ASSERT_NE(NULL, val) {
			TH_LOG("no \"%s\" in \"%s\"", name, line);
		}
	}
	return atol(val + strlen(key));
}

/*
 * One of the numbers: held, started, ended, cancelled, interrupting (those of
 * them that were so in an interrupt or a softirq), failed, refused, shortened,
 * polled, woken.
 */
#define testdev_stat(dev, name) __testdev_stat(_metadata, (dev), (name))

/* Ends all that waits; all devices are as in the beginning, but for their data. */
static inline void __testdev_reset(struct __test_metadata *_metadata)
{
	testdev_cmd("c0 reset");
	testdev_cmd("c1 reset");
	testdev_cmd("b0 reset");
	testdev_cmd("b1 reset");
}

#define testdev_reset() __testdev_reset(_metadata)

/* Whatever the test before has left. */
static inline void __testdev_begin(struct __test_metadata *_metadata)
{
	ASSERT_EQ(0, access(TESTDEV_CTL, R_OK | W_OK)) {
		TH_LOG("%s: %s: is raio_test.ko loaded?", TESTDEV_CTL, strerror(errno));
	}
	testdev_reset();
}

#define testdev_begin() __testdev_begin(_metadata)

static inline int __testdev_open(struct __test_metadata *_metadata, const char *dev, int flags)
{
	int fd = ret_errno(open(testdev_path(dev), O_RDWR | O_CLOEXEC | flags));

	ASSERT_LE(0, fd) {
		TH_LOG("%s: %s", testdev_path(dev), strerror(-fd));
	}
	return fd;
}

/* A device, opened for reading and writing. Disks want O_DIRECT, or they are cached. */
#define testdev_open(dev, flags) __testdev_open(_metadata, (dev), (flags))

/* The same without a cache, of either kind. */
#define testdev_open_direct(dev) testdev_open((dev), (dev)[0] == 'b' ? O_DIRECT : 0)

static inline int __testdev_hang(struct __test_metadata *_metadata, char *buf, size_t len,
				 unsigned int seed)
{
	int fd = testdev_open("c0", 0);

	pattern_fill(buf, len, 0, seed);
	ASSERT_EQ(len, pwrite(fd, buf, len, 0));
	testdev_cmd("c0 reset");
	testdev_cmd("c0 mode hang");
	return fd;
}

/* c0, which holds what comes and has @len bytes that were filled with @seed, by way of @buf. */
#define testdev_hang(buf, len, seed) __testdev_hang(_metadata, (buf), (len), (seed))

#endif /* RAIO_TESTDEV_H */
