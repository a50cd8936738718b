// SPDX-License-Identifier: GPL-2.0

//! raio: asynchronous I/O through a character device.
//!
//! This file loads the module and takes it down again. What happens to a call is told from top to
//! bottom by [`device`], [`abi`], [`context`], [`ops`], [`request`] and [`ring`]; each knows those
//! behind it only, but [`request`], which knows the context that its requests are of. What requests name by numbers
//! is [`registered`]. What the kernel crate lacks is in [`kernel_ext`].
//!
//! # Locks
//!
//! `ENGINE`, a mutex, for as long as it takes to take a reference.

mod abi;
mod bindings;
mod context;
mod device;
mod kernel_ext;
mod ops;
mod registered;
mod request;
mod ring;
mod stats;

use crate::{
    context::Engine,
    device::RaioFile, //
};
use kernel::{
    miscdevice::{
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*,
    sync::Arc,
};

module! {
    type: Raio,
    name: "raio",
    authors: ["The raio developers"],
    description: "Asynchronous I/O through a character device",
    license: "GPL",
}

kernel::sync::global_lock! {
    // SAFETY: Initialised in the module's `init`, before the device can be opened.
    unsafe(uninit) static ENGINE: Mutex<Option<Arc<Engine>>> = None;
}

/// What all contexts share. `ENODEV` while the module comes or goes.
fn engine() -> Result<Arc<Engine>> {
    ENGINE.lock().clone().ok_or(ENODEV)
}

/// The engine, from load to removal.
struct Running(Arc<Engine>);

impl Running {
    fn start() -> Result<Self> {
        let engine = Arc::new(Engine::new()?, GFP_KERNEL)?;
        *ENGINE.lock() = Some(engine.clone());
        Ok(Self(engine))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *ENGINE.lock() = None;
        self.0.drain();
    }
}

/// The module. Its fields are dropped in this order: no device, no engine.
#[pin_data]
struct Raio {
    #[pin]
    _device: MiscDeviceRegistration<RaioFile>,
    _running: Running,
}

impl kernel::InPlaceModule for Raio {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Called once, and nobody can lock it before.
        unsafe { ENGINE.init() };
        try_pin_init!(Self {
            _running: Running::start()?,
            _device <- MiscDeviceRegistration::register(MiscDeviceOptions { name: c"raio" }),
        })
    }
}
