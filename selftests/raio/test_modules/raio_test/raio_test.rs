// SPDX-License-Identifier: GPL-2.0

//! raio_test: devices for the selftests, whose requests end when and how a test says.
//!
//! Two character devices ([`chardev`]), two disks ([`disk`]), and one to say it by ([`control`]).
//! What they have in common, the requests that wait for their end, is in [`queue`]; who polls the
//! character devices is in [`pollers`]. This file loads the module and takes it down again.
//!
//! # Locks
//!
//! `DEVICES`, a mutex, for as long as it takes to take a reference. Nothing else is taken inside.

mod chardev;
mod control;
mod disk;
mod helpers;
mod pollers;
mod queue;
mod timer;

use crate::{
    chardev::{
        CharFile,
        CharQueue, //
    },
    control::ControlFile,
    disk::{
        Disk,
        DiskQueue, //
    }, //
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
    type: RaioTest,
    name: "raio_test",
    authors: ["The raio developers"],
    description: "Devices whose requests end when a test says so",
    license: "GPL",
}

/// What there is.
pub(crate) struct Devices {
    /// `/dev/raio_test0` and 1.
    pub(crate) chars: [Arc<CharQueue>; 2],
    /// `/dev/raio_testb0` and 1.
    pub(crate) disks: [Arc<DiskQueue>; 2],
}

kernel::sync::global_lock! {
    // SAFETY: Initialised in the module's `init`, before a device can be opened.
    unsafe(uninit) static DEVICES: Mutex<Option<Arc<Devices>>> = None;
}

/// The devices. `ENODEV` while the module comes or goes.
pub(crate) fn devices() -> Result<Arc<Devices>> {
    DEVICES.lock().clone().ok_or(ENODEV)
}

/// The devices, from load to removal.
struct Published;

impl Published {
    fn new() -> Result<Self> {
        let devices = Arc::new(
            Devices {
                chars: [chardev::new_queue()?, chardev::new_queue()?],
                disks: [disk::new_queue()?, disk::new_queue()?],
            },
            GFP_KERNEL,
        )?;
        *DEVICES.lock() = Some(devices);
        Ok(Self)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // The last reference: whoever else had one also had a device open.
        let devices = DEVICES.lock().take();
        drop(devices);
    }
}

fn new_disks() -> Result<[Disk; 2]> {
    let devices = devices()?;
    let [disk0, disk1] = &devices.disks;
    Ok([
        Disk::new(c"raio_testb0", disk0.clone(), false)?,
        Disk::new(c"raio_testb1", disk1.clone(), true)?,
    ])
}

/// The module. Its fields are dropped in this order: when the queues go, nobody can have a request.
#[pin_data]
struct RaioTest {
    #[pin]
    _control: MiscDeviceRegistration<ControlFile>,
    #[pin]
    _char0: MiscDeviceRegistration<CharFile<0>>,
    #[pin]
    _char1: MiscDeviceRegistration<CharFile<1>>,
    _disks: [Disk; 2],
    _published: Published,
}

impl kernel::InPlaceModule for RaioTest {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Called once, and nobody can lock it before.
        unsafe { DEVICES.init() };
        try_pin_init!(Self {
            _published: Published::new()?,
            _char0 <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"raio_test0",
            }),
            _char1 <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"raio_test1",
            }),
            _control <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"raio_test_ctl",
            }),
            _disks: new_disks()?,
        })
    }
}
