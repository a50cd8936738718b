// SPDX-License-Identifier: GPL-2.0
//! Tests `libaio.so.1` as it is shipped: its symbols, and what a C program
//! built for libaio (`client.c`) gets from it.
//!
//! Relies on a C compiler and readelf. In place of the device there is
//! `fake.c`, which needs the host's kernel to have AIO, as the fallback does.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};
use tempfile::TempDir;

/// Name, whether it is what programs get when they are linked, and version.
const SYMBOLS: [&str; 14] = [
    "io_cancel@@LIBAIO_0.4",
    "io_cancel@LIBAIO_0.1",
    "io_destroy@@LIBAIO_0.4",
    "io_getevents@@LIBAIO_0.4",
    "io_getevents@LIBAIO_0.1",
    "io_pgetevents@@LIBAIO_0.5",
    "io_queue_init@@LIBAIO_0.1",
    "io_queue_release@@LIBAIO_0.1",
    "io_queue_run@@LIBAIO_0.1",
    "io_queue_wait@@LIBAIO_0.4",
    "io_queue_wait@LIBAIO_0.1",
    "io_setup@@LIBAIO_0.4",
    "io_submit@@LIBAIO_0.1",
    SYSCALL,
];

/// The one that libaio hasn't.
const SYSCALL: &str = "syscall@@GLIBC_2.2.5";

struct Built {
    library: PathBuf,
    fake: PathBuf,
    client: PathBuf,
    _dir: TempDir,
}

fn manifest() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Debian's library, of 12 or 13.
fn real() -> Option<PathBuf> {
    let dir = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    ["libaio.so.1", "libaio.so.1t64"]
        .map(|name| Path::new(&dir).join(name))
        .into_iter()
        .find(|path| path.exists())
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("it can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

static BUILT: LazyLock<Built> = LazyLock::new(|| {
    succeed(&mut Command::new(manifest().join("link.sh")));
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| manifest().join("../target"), PathBuf::from);
    let library = target.join("release/libaio.so.1").canonicalize().unwrap();

    let dir = tempfile::tempdir().unwrap();
    let (fake, client) = (dir.path().join("fake.so"), dir.path().join("client"));
    let cc = || {
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Werror", "-O1", "-o"]);
        cc
    };
    succeed(
        cc().arg(&fake)
            .args(["-shared", "-fPIC", "-I"])
            .arg(manifest().join("../../include/uapi"))
            .arg(manifest().join("tests/fake.c")),
    );
    succeed(
        cc().arg(&client)
            .arg(manifest().join("tests/client.c"))
            .arg(real().unwrap_or_else(|| library.clone())),
    );
    Built {
        library,
        fake,
        client,
        _dir: dir,
    }
});

fn symbols(library: &Path) -> BTreeSet<String> {
    succeed(
        Command::new("readelf")
            .args(["-W", "--dyn-syms"])
            .arg(library),
    )
    .lines()
    .filter(|line| line.contains(" FUNC ") && !line.contains(" UND "))
    .map(|line| line.split_whitespace().nth(7).unwrap().to_owned())
    .collect()
}

fn client(test: &str, mode: &str) -> Command {
    let mut command = Command::new("timeout");
    command.arg("60").arg(&BUILT.client).args([test, mode]);
    for name in ["RAIO_DEVICE", "RAIO_FALLBACK", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    let library = BUILT.library.display();
    match mode {
        "device" => command
            .env("LD_PRELOAD", format!("{}:{library}", BUILT.fake.display()))
            .env("RAIO_DEVICE", "/dev/null"),
        "kernel" => command
            .env("LD_PRELOAD", format!("{library}"))
            .env("RAIO_DEVICE", "/nonexistent")
            .env("RAIO_FALLBACK", "1"),
        _ => command
            .env("LD_LIBRARY_PATH", BUILT.library.parent().unwrap())
            .env("RAIO_DEVICE", "/nonexistent"),
    };
    command
}

fn has_aio() -> bool {
    let has = fs::exists("/proc/sys/fs/aio-max-nr").unwrap();
    if !has {
        eprintln!("not run: this kernel has no AIO");
    }
    has
}

#[test]
fn symbols_are_libaios() {
    let mut ours = symbols(&BUILT.library);
    assert_eq!(ours, SYMBOLS.map(String::from).into());
    ours.remove(SYSCALL);
    match real() {
        Some(real) => assert_eq!(ours, symbols(&real)),
        None => eprintln!("not compared: Debian's libaio is not installed"),
    }
}

#[test]
fn needs_nothing_but_libc() {
    let dynamic = succeed(Command::new("readelf").arg("-Wd").arg(&BUILT.library));
    assert!(
        dynamic.contains("Library soname: [libaio.so.1]"),
        "{dynamic}"
    );
    for line in dynamic.lines().filter(|line| line.contains("(NEEDED)")) {
        assert!(line.contains("[libc.so") || line.contains("[ld-"), "{line}");
    }
}

#[test]
fn over_the_device() {
    if has_aio() {
        for test in ["rw", "old", "forks", "closes", "direct"] {
            succeed(&mut client(test, "device"));
        }
    }
}

#[test]
fn falls_back_to_kernel_aio() {
    if has_aio() {
        for test in ["rw", "old", "forks", "direct"] {
            assert_eq!(succeed(&mut client(test, "kernel")), "");
        }
    }
}

#[test]
fn without_a_device_it_fails_and_says_so_once() {
    let output = client("fails", "nothing").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "raio: cannot open /nonexistent: No such file or directory (os error 2); \
         load raio.ko (insmod raio.ko or modprobe raio) \
         or set RAIO_FALLBACK=1 to use kernel AIO\n"
    );
}

#[test]
fn another_device_is_refused() {
    let mut client = client("fails", "nothing");
    let output = client.env("RAIO_DEVICE", "/dev/null").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let start = "raio: cannot open /dev/null: not a raio device; load";
    assert!(stderr.starts_with(start), "{stderr}");
}
