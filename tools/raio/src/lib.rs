// SPDX-License-Identifier: GPL-2.0
//! Safe bindings of `/dev/raio`: asynchronous I/O by ioctls.
//!
//! A [`Device`] is the open device, a [`Context`] a queue of requests made
//! with it. A [`Batch`] puts them into memory that the module reads, starts
//! them, and waits, in one call. It takes the memory of each [`Request`], and the
//! [`Completion`] gives it back, so a buffer can't be read, changed or freed
//! while the kernel works on it. Dropping a context cancels the I/O that is
//! still under way, or waits for it, and frees its buffers after that.
//!
//! What is used again and again is made known once: files, of which there is a
//! table ([`Context::set_files`]), and memory ([`Registered`]). A request can be
//! cancelled ([`Context::cancel`], [`CancelOnDrop`]).
//!
//! [`Context::submit`] and [`Context::getevents`] are the calls of libaio, for
//! programs that are made for those.
//!
//! Relies on the module for two things: that an event is posted only when
//! the kernel is done with the buffer, and that a destroyed context has no
//! I/O left.
//!
//! ```no_run
//! use raio::{Buffer, Device, Request};
//! use std::fs::File;
//!
//! fn main() -> std::io::Result<()> {
//!     let device = Device::open()?;
//!     let mut context = device.setup(32)?;
//!     let file = File::open("/etc/services")?;
//!
//!     let mut batch = context.batch();
//!     for block in 0..4 {
//!         let buffer = Buffer::zeroed(4096, 512);
//!         let request = Request::read(&file, buffer, block * 4096, block);
//!         batch.push(request).expect("room for 32");
//!     }
//!     while !batch.is_empty() || batch.in_flight() > 0 {
//!         batch.enter(1, None)?;
//!         while let Some(completion) = batch.pop() {
//!             println!("block {}: {} bytes", completion.user_data, completion.result?);
//!         }
//!     }
//!     Ok(())
//! }
//! ```

mod array;
mod batch;
mod buffer;
mod builder;
mod calls;
mod cancel;
mod context;
mod device;
mod in_flight;
mod link;
mod memory;
pub mod raw;
mod registered;
mod request;
pub mod ring;
pub mod sys;

pub use batch::Batch;
pub use buffer::Buffer;
pub use builder::Builder;
pub use cancel::CancelOnDrop;
pub use context::Context;
pub use device::Device;
pub use in_flight::Name;
pub use memory::{Memory, Mixed, Vectored};
pub use registered::Registered;
pub use request::{Completion, FileNumber, Request, Target};
pub use sys::raio_query as Query;
pub use sys::raio_stats as Stats;

/// Where the device is.
pub const DEVICE_PATH: &std::ffi::CStr = c"/dev/raio";
