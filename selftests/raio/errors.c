// SPDX-License-Identifier: GPL-2.0
/*
 * The errors of the manual pages, line by line. Most have a test elsewhere:
 *
 * io_setup(2)
 *   EAGAIN  more events than the system has left	here; limits (limit, users)
 *   EFAULT  nobody can write to the handle's address	setup (bad_ctxp,
 *							ctxp_over_the_end,
 *							read_only_ctxp)
 *   EINVAL  the handle isn't 0			setup (ctx_not_zero,
 *							ctx_of_a_context)
 *   EINVAL  more events than there can be		setup (too_many_events)
 *   EINVAL  no events				setup (no_events)
 *   ENOMEM  no memory				setup (no_room_for_the_ring),
 *							faults (setup_page, setup_pages)
 *
 * io_destroy(2)
 *   EFAULT  the handle leads nowhere			here: it is EINVAL
 *   EINVAL  no such context				destroy (bad_handles, twice)
 *
 * io_submit(2)
 *   EAGAIN  no room for the first			submit (full, order_when_full)
 *   EBADF   the first's descriptor isn't open	submit (bad_descriptor,
 *							closed_descriptor)
 *   EFAULT  the array or the first iocb is nowhere	submit (bad_array, bad_iocb),
 *							vectors (bad_array)
 *   EINVAL  no such context				submit (bad_ctx)
 *   EINVAL  a negative number			submit (nr_negative)
 *   EINVAL  the first iocb isn't as it should be	submit (reserved, unknown_opcode,
 *							bytes_beyond_ssize), sync
 *							(fields_that_must_be_zero)
 *   EINVAL  the file can't do that			files (not_readable), matrix,
 *							sync (files)
 *   EINVAL  a priority that there isn't		flags (ioprio.invalid)
 *   EPERM   a priority that isn't for everyone	flags (ioprio.not_permitted)
 *   any of the others, not of the first		submit (stops_at_the_first_bad)
 *
 * io_getevents(2)
 *   EFAULT  nobody can write to the events' address	getevents (bad_events)
 *   EFAULT  nobody can read the timeout		getevents (bad_timeout)
 *   EINTR   a signal was handled			signals (end_the_wait)
 *   EINVAL  no such context				getevents (bad_ctx)
 *   EINVAL  the numbers are negative or crossed	getevents (bad_numbers)
 *
 * io_cancel(2)
 *   EAGAIN  it was not cancelled			cancel (without_a_way, refusal)
 *   EFAULT  the iocb is nowhere			cancel (bad_address)
 *   EINVAL  no such context				cancel (bad_context)
 *
 * all
 *   ENOSYS  there is no such call			raio: no device (ENOENT), or
 *							no such ioctl (ENOTTY), abi
 */
#include "raio_task.h"

FIXTURE(errors)
{
	struct aio aio;
};

FIXTURE_VARIANT(errors)
{
	const struct aio_ops *ops;
	const char *limit;
	const char *used;
};

FIXTURE_VARIANT_ADD(errors, kernel_aio)
{
	.ops = &kernel_aio,
	.limit = "/proc/sys/fs/aio-max-nr",
	.used = "/proc/sys/fs/aio-nr",
};

FIXTURE_VARIANT_ADD(errors, raio)
{
	.ops = &raio,
	.limit = "/proc/sys/fs/raio/max_requests",
	.used = "/proc/sys/fs/raio/nr_requests",
};

FIXTURE_SETUP(errors)
{
	aio_begin(_metadata, &self->aio, variant->ops, 8);
}

FIXTURE_TEARDOWN(errors)
{
	aio_end(_metadata, &self->aio);
}

/* No more than all together may have; the limit is the last thing that is looked at. */
TEST_F(errors, setup_beyond_the_limit)
{
	const long limit = read_number(variant->limit);
	char text[32];
	aio_context_t ctx = 0, other = 1;

	ASSERT_LT(0, limit);
	snprintf(text, sizeof(text), "%ld", read_number(variant->used));
	ASSERT_EQ(0, write_str(variant->limit, text));
	EXPECT_EQ(-EAGAIN, aio_setup(&self->aio, 1, &ctx));
	EXPECT_EQ(0, ctx);
	EXPECT_EQ(-EINVAL, aio_setup(&self->aio, 1, &other));
	EXPECT_EQ(-EFAULT, aio_setup(&self->aio, 1, NULL));
	snprintf(text, sizeof(text), "%ld", limit);
	ASSERT_EQ(0, write_str(variant->limit, text));
	EXPECT_EQ(0, aio_setup(&self->aio, 1, &ctx));
	EXPECT_EQ(0, aio_destroy(&self->aio, ctx));
}

/* The page says EFAULT; what leads nowhere is no context, and that is EINVAL. */
TEST_F(errors, handle_that_leads_nowhere)
{
	unsigned int i;

	for (i = 0; i < NR_BAD_PTRS; i++) {
		EXPECT_EQ(-EINVAL, aio_destroy(&self->aio, (uintptr_t)bad_ptr(i))) {
			TH_LOG("handle %p", bad_ptr(i));
		}
	}
}

TEST_HARNESS_MAIN
