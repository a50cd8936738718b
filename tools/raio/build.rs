// SPDX-License-Identifier: GPL-2.0
//! Generates the ABI's types and constants from `include/uapi/linux/raio.h`.
//!
//! Relies on libclang, and on the kernel's other headers being installed.

use std::{env, fs, path::PathBuf};

/// The prefix of the constants that stand for macros which bindgen can't
/// evaluate itself.
const PREFIX: &str = "value_of_";

#[derive(Debug)]
struct StripPrefix;

impl bindgen::callbacks::ParseCallbacks for StripPrefix {
    fn item_name(&self, item: bindgen::callbacks::ItemInfo<'_>) -> Option<String> {
        item.name.strip_prefix(PREFIX).map(str::to_owned)
    }
}

fn main() {
    let include = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../../include/uapi");
    let header = include.join("linux/raio.h");
    println!("cargo::rerun-if-changed={}", header.display());
    let text = fs::read_to_string(&header).unwrap_or_else(|e| panic!("{}: {e}", header.display()));

    // The numbers made with _IOWR() and the like are read off constants.
    let mut wrapper = "#include <linux/raio.h>\n\
                       #include <linux/time_types.h>\n\
                       #include <asm/unistd.h>\n"
        .to_owned();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some("#define"), Some(name), Some(value)) =
            (words.next(), words.next(), words.next())
        {
            if value.starts_with("_IO") {
                wrapper += &format!("static const unsigned long {PREFIX}{name} = {name};\n");
            }
        }
    }

    bindgen::Builder::default()
        .header_contents("wrapper.h", &wrapper)
        .clang_arg(format!("-I{}", include.display()))
        .parse_callbacks(Box::new(StripPrefix))
        .allowlist_item("raio_.*|RAIO_.*|value_of_RAIO_.*")
        .allowlist_item("iocb|io_event|aio_context_t|IOCB_.*|__kernel_(old_)?timespec|__NR_io_.*")
        .derive_default(true)
        .use_core()
        .wrap_unsafe_ops(true)
        .generate()
        .expect("bindgen reads the header")
        .write_to_file(PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("sys.rs"))
        .expect("OUT_DIR can be written");
}
