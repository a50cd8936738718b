// SPDX-License-Identifier: GPL-2.0

//! `/dev/raio`: takes an ioctl apart and calls one function for it. No locks.
//!
//! `unsafe` only says what [`misc`] has to know of the file.

use crate::{
    abi::{
        self,
        must_be_zero,
        Call,
        Iocbs, //
    },
    bindings,
    context::{
        Contexts,
        GetEvents,
        User, //
    },
    kernel_ext::{
        misc::{
            self,
            MiscFile, //
        },
        sigmask::{
            self,
            Mask, //
        },
        user,
        wait::PollQueue, //
    },
    stats,
};
use kernel::{
    fs::File,
    miscdevice::{
        MiscDevice,
        MiscDeviceRegistration, //
    },
    prelude::*,
};

/// What an open file of the device has.
pub(crate) struct RaioFile {
    contexts: Contexts,
}

#[vtable]
impl MiscDevice for RaioFile {
    type Ptr = KBox<Self>;

    fn open(file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        let contexts = Contexts::new(crate::engine()?)?;
        // SAFETY: We are called with it, and haven't returned.
        unsafe { misc::enable::<Self>(file) };
        Ok(KBox::new(Self { contexts }, GFP_KERNEL_ACCOUNT)?)
    }

    fn release(this: Self::Ptr, _file: &File) {
        this.contexts.destroy_all();
    }

    fn ioctl(this: &Self, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        this.call(cmd, arg, false)
    }

    #[cfg(CONFIG_COMPAT)]
    fn compat_ioctl(this: &Self, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        this.call(cmd, arg as u32 as usize, true)
    }
}

// SAFETY: That of `contexts`, which are dropped in `release`.
unsafe impl MiscFile for RaioFile {
    fn pollers(&self) -> &PollQueue {
        self.contexts.pollers()
    }

    fn readable(&self) -> bool {
        self.contexts.readable()
    }
}

impl RaioFile {
    fn call(&self, cmd: u32, arg: usize, compat: bool) -> Result<isize> {
        let (call, size) = Call::decode(cmd)?;
        match call {
            Call::Enter => abi::read(arg, size, |args| self.enter(args, compat)),
            Call::Submit => abi::read(arg, size, |args| self.submit(args, compat)),
            Call::GetEvents => abi::read(arg, size, |args| self.getevents(args, compat)),
            Call::Setup => apart(arg, size, |args| self.setup(args, arg, size, compat)),
            Call::Destroy => apart(arg, size, |args| self.destroy(args)),
            Call::Query => apart(arg, size, |args| query(args, arg, size)),
            Call::Stats => apart(arg, size, |args| statistics(args, arg, size)),
            Call::Cancel => apart(arg, size, |args| self.cancel(args)),
            Call::Buffers => apart(arg, size, |args| {
                self.register(args, User::register_buffers)
            }),
            Call::Files => apart(arg, size, |args| self.register(args, User::register_files)),
        }
    }

    fn submit(&self, args: &abi::Submit, compat: bool) -> Result<isize> {
        must_be_zero(&[args.flags.into(), args.resv.into()])?;
        let ctx = self.contexts.lookup(args.ctx)?;
        if args.nr < 0 {
            return Err(EINVAL);
        }
        // No ring has more.
        let nr = u32::try_from(args.nr).unwrap_or(u32::MAX);
        let at = user::address(args.iocbs)?;
        let iocbs = Iocbs::Pointers { at, compat };
        Ok(ctx.submit(nr, iocbs, false)?.0 as isize)
    }

    fn getevents(&self, args: &abi::GetEvents, compat: bool) -> Result<isize> {
        must_be_zero(&[args.flags.into(), args.resv.into(), args.resv2.into()])?;
        let timeout = timeout(args.timeout, compat)?;
        let mask = Mask::read(user::address(args.sigmask)?, args.sigsetsize as usize)?;
        let read = sigmask::under(mask, || {
            self.contexts.lookup(args.ctx)?.getevents(&GetEvents {
                min_nr: args.min_nr,
                nr: args.nr,
                events: user::address(args.events)?,
                timeout,
                min_wait: match args.min_wait {
                    0 => None,
                    wait => Some(wait.try_into().unwrap_or(i64::MAX)),
                },
            })
        })?;
        Ok(read as isize)
    }

    fn enter(&self, args: &abi::Enter, compat: bool) -> Result<isize> {
        let iocbs = args.iocbs()?;
        let timeout = timeout(args.timeout, compat)?;
        let mask = Mask::read(user::address(args.sigmask)?, args.sigsetsize as usize)?;
        let ctx = self.contexts.lookup(args.ctx)?;
        let (taken, posted) = match args.nr {
            0 => (0, 0),
            nr => ctx.submit(nr, iocbs, args.min_nr > 0)?,
        };
        // What was posted just now was there, even if somebody else has read it.
        if args.min_nr > posted && taken == args.nr {
            let waited = sigmask::under(mask, || ctx.wait_for(args.min_nr, timeout));
            if taken == 0 {
                waited?;
            }
        }
        Ok(taken as isize)
    }

    fn setup(&self, args: &abi::Setup, arg: usize, size: usize, compat: bool) -> Result<isize> {
        let outputs = [
            args.ctx,
            args.ring_size,
            args.ring_nr.into(),
            args.id.into(),
            args.sq_offset.into(),
        ];
        must_be_zero(&outputs)?;
        let ctxp = user::address(args.ctxp)?;
        if user::read_word(ctxp, compat)? != 0 {
            return Err(EINVAL);
        }

        let made = self.contexts.setup(args)?;
        let answer = abi::Setup {
            sq_nr: made.sq_nr,
            sq_offset: made.sq_offset,
            ctx: made.handle as u64,
            ring_size: made.ring_size as u64,
            ring_nr: made.ring_nr,
            id: made.id,
            ..*args
        };
        let told = abi::write(arg, size, &answer)
            .and_then(|()| user::write_word(ctxp, made.handle, compat));
        if let Err(e) = told {
            // Nobody knows of it but who guessed. If that one destroyed it, all the better.
            let _ = self.contexts.destroy(made.ctx);
            return Err(e);
        }
        Ok(0)
    }

    fn destroy(&self, args: &abi::Destroy) -> Result<isize> {
        must_be_zero(&[args.flags.into(), args.resv.into()])?;
        self.contexts.destroy(self.contexts.lookup(args.ctx)?)?;
        Ok(0)
    }

    fn register(&self, args: &abi::Register, how: RegisterFn) -> Result<isize> {
        must_be_zero(&[args.flags.into(), args.resv.into()])?;
        let ctx = self.contexts.lookup(args.ctx)?;
        let done = how(&ctx, args.first, args.nr, user::address(args.array)?)?;
        Ok(done as isize)
    }

    fn cancel(&self, args: &abi::Cancel) -> Result<isize> {
        must_be_zero(&[args.resv.into()])?;
        if !args.is_by_data()? {
            abi::Iocb::check_key(user::address(args.iocb)?)?;
        }
        self.contexts
            .lookup(args.ctx)?
            .inflight()
            .cancel(args.iocb)?;
        Ok(0)
    }
}

/// As [`abi::read`], in a frame of its own: so that the calls that are made most, from which much is called, have none
/// of what the others need on the stack.
#[inline(never)]
fn apart<T: abi::Args>(
    addr: usize,
    size: usize,
    f: impl FnOnce(&T) -> Result<isize>,
) -> Result<isize> {
    abi::read(addr, size, f)
}

/// Registers a number of things, from a number on, that an address says.
type RegisterFn = fn(&User, u32, u32, usize) -> Result<u32>;

fn query(args: &abi::Query, arg: usize, size: usize) -> Result<isize> {
    must_be_zero(&[args.flags.into()])?;
    let answer = abi::Query {
        flags: 0,
        abi_version: bindings::RAIO_ABI_VERSION,
        features: abi::FEATURES,
        opcodes: abi::Opcode::ALL,
        iocb_flags: abi::NATIVE_FLAGS.into(),
        rw_flags: bindings::RAIO_RWF_SUPPORTED,
        setup_flags: bindings::RAIO_SETUP_IOPOLL.into(),
        max_events: abi::MAX_EVENTS,
        resv: 0,
    };
    abi::write(arg, size, &answer)?;
    Ok(0)
}

fn statistics(args: &abi::Stats, arg: usize, size: usize) -> Result<isize> {
    must_be_zero(&[args.flags.into(), args.resv.into()])?;
    abi::write(arg, size, &stats::snapshot())?;
    Ok(0)
}

/// A longest time to wait, by the address of where it is said, if it isn't 0.
fn timeout(addr: u64, compat: bool) -> Result<Option<i64>> {
    match user::address(addr)? {
        0 => Ok(None),
        addr => timespec(addr, compat),
    }
}

/// A `struct __kernel_timespec` in nanoseconds. [`None`], for ever, is one that is negative, as
/// kernel AIO has it, or doesn't fit.
fn timespec(addr: usize, compat: bool) -> Result<Option<i64>> {
    let seconds: i64 = user::read(addr)?;
    let mut nanoseconds: i64 = user::read(addr.wrapping_add(8))?;
    if compat {
        // The rest is padding to a program of 32 bits.
        nanoseconds &= i64::from(u32::MAX);
    }
    let timeout = seconds
        .checked_mul(1_000_000_000)
        .and_then(|timeout| timeout.checked_add(nanoseconds));
    Ok(timeout.filter(|timeout| *timeout >= 0))
}
