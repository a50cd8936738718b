// SPDX-License-Identifier: GPL-2.0
//! What the random tests share: one seed from which everything follows, and
//! its streams of numbers. Relies on ChaCha's numbers being the same everywhere.

use std::io;

use rand::SeedableRng;

/// The generator of all that is random.
pub type Random = rand_chacha::ChaCha8Rng;

/// The numbers of one stream of a seed. Each stream has its own.
pub fn random(seed: u64, stream: u64) -> Random {
    let mut random = Random::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// Reads a seed as it is printed, or in decimal.
///
/// # Errors
///
/// If it is no number of 64 bits.
pub fn parse(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    }
}

/// A seed from the kernel.
///
/// # Errors
///
/// If there is no getrandom(2).
pub fn fresh() -> io::Result<u64> {
    let mut seed = 0u64;
    // SAFETY: `seed` has that many bytes.
    let n = unsafe { libc::getrandom((&raw mut seed).cast(), size_of_val(&seed), 0) };
    if n != size_of_val(&seed) as isize {
        return Err(io::Error::last_os_error());
    }
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        for seed in [0, 0xfeed_0000_0000_0001, u64::MAX] {
            assert_eq!(parse(&format!("{seed:#x}")), Ok(seed));
            assert_eq!(parse(&seed.to_string()), Ok(seed));
        }
        assert!(parse("0xg").is_err() && parse("").is_err());
    }
}
