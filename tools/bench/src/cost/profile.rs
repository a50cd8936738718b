// SPDX-License-Identifier: GPL-2.0
//! Where the instructions are that `raio-count` has counted with `profile=FILE`: by
//! functions of the guest's kernel, those of modules too.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

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

/// Prints the functions, those first in which there are most.
pub(crate) fn profile(args: &ProfileArgs) -> io::Result<bool> {
    let mut functions = BTreeMap::new();
    for line in lines(&args.symbols)? {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        if let (Some(at), Some("t" | "T" | "w" | "W"), Some(name)) =
            (words.next(), words.next(), words.next())
        {
            functions.insert(number(at, 16)?, name.to_owned());
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
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let each = |n: u64| n as f64 / args.requests as f64;
    let all = counts.iter().map(|(_, n)| n).sum();
    println!("{:>10.1} in all", each(all));
    for (name, n) in counts {
        println!("{:>10.1} {name}", each(n));
    }
    Ok(true)
}

/// That in which an address is.
fn function(functions: &BTreeMap<u64, String>, at: u64) -> &str {
    const KERNEL: u64 = 1 << 63;
    match functions.range(..=at).next_back() {
        Some((_, name)) if at >= KERNEL => name,
        _ => "(the program)",
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
        assert_eq!(function(&functions, at(1)), "(the program)");
        assert_eq!(function(&functions, 4096), "(the program)");
    }
}
