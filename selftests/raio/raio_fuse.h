/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A file of a FUSE file system whose server is the test: it is told of each
 * read, write, fsync and poll, by whom and of what kind, and answers when and as
 * it likes. A test begins with fuse_begin() and ends with fuse_end(), which gives
 * up what was not answered; so the end of its contexts, which waits for that,
 * comes after it.
 */
#ifndef RAIO_FUSE_H
#define RAIO_FUSE_H

#include <linux/fuse.h>

#include "raio_task.h"

#define FUSE_FILE_NODE	2
#define FUSE_CALLS	256
#define FUSE_BUFFER	(256 * 1024)

/**
 * struct fuse_call - a FUSE_READ, FUSE_WRITE, FUSE_FSYNC or FUSE_POLL that came
 * @unique:	by what it is answered
 * @opcode:	which of them
 * @uid:	of whom
 * @gid:	of whom
 * @datasync:	fdatasync, not fsync
 * @poll_handle: what a poll is told of by
 */
struct fuse_call {
	uint64_t unique;
	uint32_t opcode;
	uint32_t uid;
	uint32_t gid;
	bool datasync;
	uint64_t poll_handle;
};

/**
 * struct fuse - a file system with one file
 * @dev:	/dev/fuse
 * @dir:	where it is mounted
 * @fd:		the file
 * @hold:	leave each to fuse_answer(); otherwise it succeeds at once
 * @nr_calls:	how many came
 * @calls:	these
 */
struct fuse {
	int dev;
	char dir[PATH_MAX];
	int fd;
	bool hold;
	pthread_t thread;
	unsigned int nr_calls;
	struct fuse_call calls[FUSE_CALLS];
};

static inline void fuse_reply(struct fuse *fuse, uint64_t unique, int error, const void *data,
			      size_t len)
{
	struct fuse_out_header head = { .len = sizeof(head) + len, .error = error, .unique = unique };
	struct iovec iov[] = { { &head, sizeof(head) }, { (void *)data, len } };

	/* ENOENT: whoever asked is gone. */
	if (writev(fuse->dev, iov, 2) < 0 && errno != ENOENT)
		perror("/dev/fuse");
}

static inline void fuse_attr(struct fuse_attr *attr, uint64_t node)
{
	memset(attr, 0, sizeof(*attr));
	attr->ino = node;
	attr->mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0666;
	attr->nlink = 1;
	attr->size = node == FUSE_ROOT_ID ? 0 : PAGE;
	attr->blksize = PAGE;
}

/* Lets a call succeed: what is read is 0. */
static inline void fuse_succeed(struct fuse *fuse, const struct fuse_in_header *in)
{
	static const char zeroes[16 * PAGE];
	const void *arg = in + 1;
	struct fuse_write_out out = { };

	switch (in->opcode) {
	case FUSE_READ:
		fuse_reply(fuse, in->unique, 0, zeroes, ((const struct fuse_read_in *)arg)->size);
		break;
	case FUSE_WRITE:
		out.size = ((const struct fuse_write_in *)arg)->size;
		fuse_reply(fuse, in->unique, 0, &out, sizeof(out));
		break;
	default:
		fuse_reply(fuse, in->unique, 0, NULL, 0);
	}
}

static inline void fuse_call(struct fuse *fuse, const struct fuse_in_header *in)
{
	const void *arg = in + 1;
	unsigned int n = fuse->nr_calls;
	bool hold;

	if (n == FUSE_CALLS) {
		fuse_reply(fuse, in->unique, -ENOBUFS, NULL, 0);
		return;
	}
	fuse->calls[n].unique = in->unique;
	fuse->calls[n].opcode = in->opcode;
	fuse->calls[n].uid = in->uid;
	fuse->calls[n].gid = in->gid;
	fuse->calls[n].datasync = in->opcode == FUSE_FSYNC &&
		((const struct fuse_fsync_in *)arg)->fsync_flags & 1;
	if (in->opcode == FUSE_POLL)
		fuse->calls[n].poll_handle = ((const struct fuse_poll_in *)arg)->kh;
	/* Who is told that it has ended finds it counted. */
	hold = __atomic_load_n(&fuse->hold, __ATOMIC_ACQUIRE);
	__atomic_store_n(&fuse->nr_calls, n + 1, __ATOMIC_RELEASE);
	if (!hold)
		fuse_succeed(fuse, in);
}

static inline void fuse_serve(struct fuse *fuse, const struct fuse_in_header *in)
{
	union {
		struct fuse_init_out init;
		struct fuse_entry_out entry;
		struct fuse_attr_out attr;
		struct fuse_open_out open;
	} out;

	memset(&out, 0, sizeof(out));
	switch (in->opcode) {
	case FUSE_INIT:
		out.init.major = FUSE_KERNEL_VERSION;
		out.init.minor = FUSE_KERNEL_MINOR_VERSION;
		out.init.max_write = 16 * PAGE;
		fuse_reply(fuse, in->unique, 0, &out.init, sizeof(out.init));
		break;
	case FUSE_LOOKUP:
		out.entry.nodeid = FUSE_FILE_NODE;
		fuse_attr(&out.entry.attr, FUSE_FILE_NODE);
		fuse_reply(fuse, in->unique, 0, &out.entry, sizeof(out.entry));
		break;
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		fuse_attr(&out.attr.attr, in->nodeid);
		fuse_reply(fuse, in->unique, 0, &out.attr, sizeof(out.attr));
		break;
	case FUSE_OPEN:
		/* Each read and write comes here. */
		out.open.open_flags = FOPEN_DIRECT_IO;
		fuse_reply(fuse, in->unique, 0, &out.open, sizeof(out.open));
		break;
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_FSYNC:
	case FUSE_POLL:
		fuse_call(fuse, in);
		break;
	case FUSE_FLUSH:
	case FUSE_RELEASE:
		fuse_reply(fuse, in->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		/* These have no answer. */
		break;
	default:
		fuse_reply(fuse, in->unique, -ENOSYS, NULL, 0);
	}
}

static inline void *fuse_thread(void *data)
{
	struct fuse *fuse = data;
	char *buf = map_pages(FUSE_BUFFER);
	ssize_t n;

	/* ENODEV when it is unmounted, ENOENT for what was given up meanwhile. */
	while ((n = read(fuse->dev, buf, FUSE_BUFFER)) > 0 || errno == ENOENT || errno == EINTR)
		if (n > 0)
			fuse_serve(fuse, (void *)buf);
	return NULL;
}

/* How many have come. */
static inline unsigned int fuse_nr_calls(struct fuse *fuse)
{
	return __atomic_load_n(&fuse->nr_calls, __ATOMIC_ACQUIRE);
}

static inline void fuse_hold(struct fuse *fuse, bool hold)
{
	__atomic_store_n(&fuse->hold, hold, __ATOMIC_RELEASE);
}

/* Ends the @n-th, counted from 0, which was held. */
static inline void fuse_answer(struct fuse *fuse, unsigned int n, int error)
{
	fuse_reply(fuse, fuse->calls[n].unique, error, NULL, 0);
}

/* The same of a poll: the file is ready for @mask. */
static inline void fuse_answer_poll(struct fuse *fuse, unsigned int n, short mask)
{
	struct fuse_poll_out out = { .revents = mask };

	fuse_reply(fuse, fuse->calls[n].unique, 0, &out, sizeof(out));
}

/* Tells who polls the file, as the @n-th did, to look again. */
static inline void fuse_notify_poll(struct fuse *fuse, unsigned int n)
{
	struct fuse_notify_poll_wakeup_out out = { .kh = fuse->calls[n].poll_handle };

	fuse_reply(fuse, 0, FUSE_NOTIFY_POLL, &out, sizeof(out));
}

static inline void fuse_begin(struct __test_metadata *_metadata, struct fuse *fuse)
{
	char opts[128], path[PATH_MAX + 8];

	memset(fuse, 0, sizeof(*fuse));
	fuse->dev = ret_errno(open("/dev/fuse", O_RDWR | O_CLOEXEC));
	ASSERT_LE(0, fuse->dev) {
		TH_LOG("/dev/fuse: %s", strerror(-fuse->dev));
	}
	snprintf(fuse->dir, sizeof(fuse->dir), "%s/raio-test-XXXXXX", tmpfs_dir());
	ASSERT_NE(NULL, mkdtemp(fuse->dir));
	snprintf(opts, sizeof(opts), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other",
		 fuse->dev);
	ASSERT_EQ(0, mount("raio-test", fuse->dir, "fuse", MS_NOSUID | MS_NODEV, opts)) {
		TH_LOG("mount: %s", strerror(errno));
	}
	ASSERT_EQ(0, pthread_create(&fuse->thread, NULL, fuse_thread, fuse));
	snprintf(path, sizeof(path), "%s/file", fuse->dir);
	fuse->fd = ret_errno(open(path, O_RDWR | O_CLOEXEC));
	ASSERT_LE(0, fuse->fd) {
		TH_LOG("%s: %s", path, strerror(-fuse->fd));
	}
}

static inline void fuse_end(struct fuse *fuse)
{
	/* Fails while the file is open, but by then has ended all requests. */
	umount2(fuse->dir, MNT_FORCE);
	if (fuse->fd > 0)
		close(fuse->fd);
	umount2(fuse->dir, MNT_DETACH);
	if (fuse->thread)
		pthread_join(fuse->thread, NULL);
	close(fuse->dev);
	rmdir(fuse->dir);
}

#endif /* RAIO_FUSE_H */
