// SPDX-License-Identifier: GPL-2.0
//! What an instruction of x86-64 is, by its first bytes; no more than is counted.

/// A mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Begin,
    End,
}

/// `nopl N(%rax,%rax,1)` where N is one of two numbers, without it.
const NOP: [u8; 4] = [0x0f, 0x1f, 0x84, 0x00];
/// Those numbers. `raio-bench` has the same.
const BEGIN: u32 = 0x7261_696f;
const END: u32 = 0x7261_6970;

/// Is it a mark, and which?
pub(crate) fn mark(bytes: &[u8]) -> Option<Mark> {
    let number = bytes.strip_prefix(&NOP)?;
    match u32::from_le_bytes(number.try_into().ok()?) {
        BEGIN => Some(Mark::Begin),
        END => Some(Mark::End),
        _ => None,
    }
}

/// Does it lock the bus: with the prefix for that, or as an exchange with memory?
pub(crate) fn is_locked(bytes: &[u8]) -> bool {
    let is_prefix = |byte: u8| {
        matches!(
            byte,
            0xf0 | 0xf2 | 0xf3 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64..=0x67
        )
    };
    let prefixes = bytes.iter().take_while(|byte| is_prefix(**byte)).count();
    let (prefixes, rest) = bytes.split_at(prefixes);
    if prefixes.contains(&0xf0) {
        return true;
    }
    // REX comes right before the opcode.
    let rest = match rest {
        [0x40..=0x4f, rest @ ..] => rest,
        rest => rest,
    };
    matches!(rest, [0x86 | 0x87, modrm, ..] if *modrm < 0xc0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        assert_eq!(
            mark(&[0x0f, 0x1f, 0x84, 0x00, 0x6f, 0x69, 0x61, 0x72]),
            Some(Mark::Begin)
        );
        assert_eq!(
            mark(&[0x0f, 0x1f, 0x84, 0x00, 0x70, 0x69, 0x61, 0x72]),
            Some(Mark::End)
        );
        assert_eq!(mark(&[0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0]), None);
        assert_eq!(mark(&[0x0f, 0x1f, 0x84]), None);
    }

    #[test]
    fn locked_ones() {
        // lock cmpxchg %rcx,(%rdx); the same for %gs; xchg %eax,(%rdi); xchg %rax,(%rdi)
        assert!(is_locked(&[0xf0, 0x48, 0x0f, 0xb1, 0x0a]));
        assert!(is_locked(&[0x65, 0xf0, 0x0f, 0xb1, 0x0a]));
        assert!(is_locked(&[0x87, 0x07]));
        assert!(is_locked(&[0x48, 0x87, 0x07]));
        // cmpxchg %rcx,%gs:(%rdx); xchg %rax,%rdi; xchg %ax,%ax; mov
        assert!(!is_locked(&[0x65, 0x48, 0x0f, 0xb1, 0x0a]));
        assert!(!is_locked(&[0x48, 0x87, 0xc7]));
        assert!(!is_locked(&[0x66, 0x90]));
        assert!(!is_locked(&[0x89, 0x07]));
        assert!(!is_locked(&[]));
    }
}
