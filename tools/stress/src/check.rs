// SPDX-License-Identifier: GPL-2.0
//! What may come back: contents of the devices, results of requests.

use crate::ops::{BLOCK, FIRST_DISK};

/// What a buffer is filled with before it is read into.
pub const POISON: u8 = 0x5a;
/// What the buffers of a context are filled with when it is destroyed.
pub const CANARY: u8 = 0xc3;

/// The generation of what is written before anything starts.
pub const FIRST_GENERATION: u64 = 1;

fn word(device: u8, block: u64, generation: u64, index: usize) -> u64 {
    match index {
        0 => (block * BLOCK as u64) | (u64::from(device) << 56),
        1 => generation,
        // Fibonacci hashing: other numbers for other blocks and generations.
        _ => (block ^ (generation << 20) ^ (u64::from(device) << 60))
            .wrapping_add(index as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

/// Fills `bytes`, whole blocks, with what belongs at `block` of a device. It
/// says where it is, and when it was written.
pub fn fill(bytes: &mut [u8], device: u8, block: u64, generation: u64) {
    for (n, bytes) in bytes.chunks_exact_mut(BLOCK).enumerate() {
        for (index, bytes) in bytes.chunks_exact_mut(size_of::<u64>()).enumerate() {
            let word = word(device, block + n as u64, generation, index);
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// Compares `bytes` with what belongs at `block` of a device.
///
/// # Errors
///
/// Says what is there instead.
pub fn verify(bytes: &[u8], device: u8, block: u64, generation: u64) -> Result<(), String> {
    for (n, bytes) in bytes.chunks(BLOCK).enumerate() {
        let block = block + n as u64;
        let mut expected = [0; BLOCK];
        fill(&mut expected, device, block, generation);
        if let Some(at) = differs(bytes, &expected) {
            let found: Vec<_> = bytes
                .chunks_exact(8)
                .take(2)
                .map(|word| u64::from_le_bytes(word.try_into().expect("eight")))
                .collect();
            let (at, n) = (at / 8 * 8, n * BLOCK);
            let end = bytes.len().min(at + 16);
            return Err(format!(
                "wrong data at byte {} of the buffer, which is for block {block} of device \
                 {device}, generation {generation}: it says position and generation {found:x?}, \
                 and has {:x?} where {:x?} belong",
                n + at,
                &bytes[at..end],
                &expected[at..end],
            ));
        }
    }
    Ok(())
}

fn differs(one: &[u8], other: &[u8]) -> Option<usize> {
    // Whole first: it is much faster.
    if one == &other[..one.len()] {
        return None;
    }
    one.iter().zip(other).position(|(one, other)| one != other)
}

/// Makes sure that all of `bytes` is `byte`.
///
/// # Errors
///
/// Says what isn't.
pub fn all(bytes: &[u8], byte: u8) -> Result<(), String> {
    // In large pieces: it is done for whole contexts.
    if bytes
        .chunks(64)
        .all(|chunk| chunk == &[byte; 64][..chunk.len()])
    {
        return Ok(());
    }
    let changed: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != byte).collect();
    let (first, last) = (changed[0], changed[changed.len() - 1]);
    Err(format!(
        "{} bytes from {first} to {last} aren't {byte:#x} any more, the first are {:x?}",
        changed.len(),
        &bytes[first..bytes.len().min(first + 16)],
    ))
}

/// How a request has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// So many bytes were moved, which is all of them or less.
    Moved(usize),
    /// It was cancelled.
    Cancelled,
    /// The device had an error, as it was told to.
    Failed,
    /// The buffer isn't memory.
    Fault,
    /// The file that was polled is ready.
    Ready,
}

/// The errors with which the supervisor lets requests fail.
pub const DEVICE_ERRORS: [i32; 3] = [libc::EIO, libc::ENOSPC, libc::EREMOTEIO];

/// Understands the result of a request of `len` bytes. A device of blocks
/// doesn't do half of it.
///
/// # Errors
///
/// If there is no way how it can have come to that.
pub fn outcome(res: i64, len: usize, device: u8) -> Result<Outcome, String> {
    let unexpected = || {
        Err(format!(
            "a result of {res} for {len} bytes of device {device}"
        ))
    };
    if let Ok(moved) = usize::try_from(res) {
        let short = moved < len && !is_block(device);
        return if moved == len || short {
            Ok(Outcome::Moved(moved))
        } else {
            unexpected()
        };
    }
    let error = -res;
    if error == i64::from(libc::ECANCELED) {
        Ok(Outcome::Cancelled)
    } else if error == i64::from(libc::EFAULT) {
        Ok(Outcome::Fault)
    } else if DEVICE_ERRORS.iter().any(|it| error == i64::from(*it)) {
        Ok(Outcome::Failed)
    } else {
        unexpected()
    }
}

/// Understands the result of a poll.
///
/// # Errors
///
/// As [`outcome`].
pub fn polled(res: i64, events: i16) -> Result<Outcome, String> {
    let told = i64::from(events | libc::POLLERR | libc::POLLHUP);
    if res == -i64::from(libc::ECANCELED) {
        Ok(Outcome::Cancelled)
    } else if res > 0 && res & !told == 0 {
        Ok(Outcome::Ready)
    } else {
        Err(format!("a result of {res:#x} for a poll of {events:#x}"))
    }
}

/// Whether a device is one of blocks.
pub fn is_block(device: u8) -> bool {
    device >= FIRST_DISK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_told_from_other_data() {
        let mut bytes = vec![0; 8 * BLOCK];
        fill(&mut bytes, 1, 7, 3);
        assert_eq!(verify(&bytes, 1, 7, 3), Ok(()));
        assert_eq!(verify(&bytes[..700], 1, 7, 3), Ok(()));
        assert_eq!(verify(&bytes[BLOCK..], 1, 8, 3), Ok(()));
        assert_eq!(verify(&[], 1, 8, 3), Ok(()));
        for (device, block, generation) in [(0, 7, 3), (1, 8, 3), (1, 7, 4)] {
            assert!(verify(&bytes, device, block, generation).is_err());
        }
        for at in [0, 8, 16, 1000, 8 * BLOCK - 1] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            let e = verify(&bytes, 1, 7, 3).unwrap_err();
            assert!(e.contains(&format!("at byte {} ", at / 8 * 8)), "{e}");
        }
    }

    #[test]
    fn a_change_is_found() {
        let mut bytes = vec![CANARY; 4096];
        assert_eq!(all(&bytes, CANARY), Ok(()));
        bytes[4095] = 0;
        let e = all(&bytes, CANARY).unwrap_err();
        assert!(e.contains("1 bytes from 4095 to 4095"), "{e}");
        assert_eq!(all(&[POISON; 100], POISON), Ok(()));
        assert!(all(&[POISON; 100], CANARY).is_err());
    }

    #[test]
    fn results() {
        assert_eq!(outcome(512, 512, 0), Ok(Outcome::Moved(512)));
        assert_eq!(outcome(0, 512, 1), Ok(Outcome::Moved(0)));
        assert!(outcome(511, 512, 2).is_err());
        assert!(outcome(513, 512, 0).is_err());
        let error = |e: i32| outcome(-i64::from(e), 512, 0);
        assert_eq!(error(libc::ECANCELED), Ok(Outcome::Cancelled));
        assert_eq!(error(libc::EIO), Ok(Outcome::Failed));
        assert_eq!(error(libc::EFAULT), Ok(Outcome::Fault));
        assert!(error(libc::EINVAL).is_err());
        assert!(outcome(i64::MIN + 1, 512, 0).is_err());
        let polled = |res: i32| polled(res.into(), libc::POLLIN);
        assert_eq!(polled(1), Ok(Outcome::Ready));
        assert_eq!(polled(libc::POLLHUP.into()), Ok(Outcome::Ready));
        assert_eq!(polled(-libc::ECANCELED), Ok(Outcome::Cancelled));
        assert!(polled(0).is_err() && polled(4).is_err() && polled(5).is_err());
        assert!(polled(-libc::EINVAL).is_err());
    }
}
