// SPDX-License-Identifier: GPL-2.0
//! Where the instructions are that `raio-count` has counted with `profile=FILE`: by
//! parts of the guest's kernel, and by functions, those of modules too.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

/// Where it isn't in the kernel.
const CLIENT: &str = "(the program)";

/// Parts, by how the names of their functions begin; the first that fits. What is raio's is told
/// from others before.
const PARTS: [(&str, &[&str]); 5] = [
    ("client", &[CLIENT]),
    (
        "system call and descriptor",
        &[
            "entry_",
            "do_syscall",
            "syscall_",
            "__x64_sys_ioctl",
            "do_vfs_ioctl",
            "fdget",
            "__fget",
            "fget",
            "fput",
        ],
    ),
    (
        "io_uring or kernel AIO",
        &[
            "io_",
            "__io_",
            "aio_",
            "__do_sys_io_",
            "__x64_sys_io_",
            "read_events",
            "do_io_",
            "lookup_ioctx",
            "put_reqs_available",
            "__get_reqs_available",
            "kiocb_done",
        ],
    ),
    (
        "block layer and driver",
        &[
            "blk_",
            "__blk_",
            "bio_",
            "__bio_",
            "submit_bio",
            "__submit_bio",
            "null_",
            "__null_",
            "sbitmap_",
            "__sbitmap_",
            "radix_tree_",
            "__radix_tree_",
            "update_io_ticks",
            "bdev_",
        ],
    ),
    (
        "file, file system, memory",
        &[
            "ext4_",
            "__ext4_",
            "xfs_",
            "__xfs_",
            "xlog_",
            "iomap_",
            "__iomap_",
            "jbd2_",
            "__jbd2_",
            "blkdev_",
            "file_",
            "filemap_",
            "touch_atime",
            "atime_",
            "inode_",
            "current_time",
            "ktime_get_coarse",
            "make_vfs",
            "kiocb_",
            "iov_iter_",
            "import_",
            "rw_verify_area",
            "generic_",
            "__check_block",
            "gup_",
            "pin_user",
            "unpin_",
            "try_grab",
            "is_valid_gup",
            "__pte_",
            "mod_node_page",
            "percpu_counter",
            "down_",
            "up_",
            "dio_",
            "wake_up_var",
        ],
    ),
];

/// What is in none of them: locks, allocation, the clock.
const REST: &str = "the rest";

/// What was counted, and where.
#[derive(clap::Args)]
pub(crate) struct ProfileArgs {
    /// What the plugin has written
    blocks: PathBuf,
    /// The guest's /proc/kallsyms
    symbols: PathBuf,
    /// Requests that it was for
    requests: u64,
}

/// Prints the parts, and the functions, those first in which there are most.
pub(crate) fn profile(args: &ProfileArgs) -> io::Result<bool> {
    let mut functions = BTreeMap::new();
    for line in lines(&args.symbols)? {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        if let (Some(at), Some("t" | "T" | "w" | "W"), Some(name)) =
            (words.next(), words.next(), words.next())
        {
            let name = match words.next() {
                Some(module) => format!("{name} {module}"),
                None => name.to_owned(),
            };
            functions.insert(number(at, 16)?, name);
        }
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for line in lines(&args.blocks)? {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        let mut next = |radix| number(words.next().unwrap_or(""), radix);
        let (at, n) = (next(16)?, next(10)?);
        *counts.entry(function(&functions, at)).or_default() += n;
    }
    let mut parts: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, n) in &counts {
        *parts.entry(part(name)).or_default() += n;
    }
    let each = |n: u64| n as f64 / args.requests as f64;
    println!("{:>10.1} in all", each(counts.values().sum()));
    for counts in [parts, counts] {
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        println!();
        for (name, n) in counts {
            println!("{:>10.1} {name}", each(n));
        }
    }
    Ok(true)
}

/// That to which a function belongs.
fn part(name: &str) -> &'static str {
    // Nobody else uses the kernel crate.
    if name.ends_with(" [raio]") || name.starts_with("rust_helper_") || name.starts_with("_R") {
        return "raio";
    }
    let fits = |(_, begins): &&(_, &[&str])| begins.iter().any(|begin| name.starts_with(begin));
    PARTS.iter().find(fits).map_or(REST, |(part, _)| part)
}

/// That in which an address is.
fn function(functions: &BTreeMap<u64, String>, at: u64) -> &str {
    const KERNEL: u64 = 1 << 63;
    match functions.range(..=at).next_back() {
        Some((_, name)) if at >= KERNEL => name,
        _ => CLIENT,
    }
}

fn lines(path: &Path) -> io::Result<impl Iterator<Item = io::Result<String>>> {
    let file = File::open(path)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    Ok(BufReader::new(file).lines())
}

fn number(word: &str, radix: u32) -> io::Result<u64> {
    u64::from_str_radix(word, radix).map_err(|e| io::Error::other(format!("{word:?}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found() {
        let at = |n: u64| (1 << 63) + n;
        let functions = BTreeMap::from([(at(16), "a".to_owned()), (at(32), "b".to_owned())]);
        assert_eq!(function(&functions, at(16)), "a");
        assert_eq!(function(&functions, at(31)), "a");
        assert_eq!(function(&functions, at(99)), "b");
        assert_eq!(function(&functions, at(1)), CLIENT);
        assert_eq!(function(&functions, 4096), CLIENT);
    }

    #[test]
    fn parts_are_found() {
        assert_eq!(part(CLIENT), "client");
        assert_eq!(part("io_submit_one"), "io_uring or kernel AIO");
        assert_eq!(part("iomap_dio_rw"), "file, file system, memory");
        assert_eq!(part("blk_mq_submit_bio"), "block layer and driver");
        assert_eq!(part("raio_ioctl [raio]"), "raio");
        assert_eq!(part("rust_helper_atomic_xchg"), "raio");
        assert_eq!(part("_raw_spin_lock"), REST);
    }
}
