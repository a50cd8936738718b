// SPDX-License-Identifier: GPL-2.0
//! Where random numbers come from: one seed, which every process and every
//! thread derives its own from, by who it is and by nothing else.

pub use raio_seed::{parse, Random};

/// What a seed is for. Each has numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The supervisor's own choices.
    Supervisor,
    /// What a process is like.
    Process,
    /// The operations of a thread: its number in the process, and how many
    /// threads of that number there were before it.
    Thread(u32, u32),
    /// The seed of a child process.
    Child(u64),
    /// The order in a round of child processes.
    Round(u64),
}

/// The generator for `role` under `seed`.
pub fn random(seed: u64, role: Role) -> Random {
    let stream = match role {
        Role::Supervisor => 0,
        Role::Process => 1,
        Role::Thread(thread, generation) => {
            (1 << 62) | (u64::from(thread) << 32) | u64::from(generation)
        }
        Role::Child(number) => (1 << 63) | number,
        Role::Round(number) => (3 << 62) | number,
    };
    raio_seed::random(seed, stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngCore;

    #[test]
    fn the_same_of_the_same() {
        let numbers = |role| random(7, role).next_u64();
        assert_eq!(numbers(Role::Child(3)), numbers(Role::Child(3)));
        assert_eq!(numbers(Role::Thread(1, 2)), numbers(Role::Thread(1, 2)));
        // These must stay as they are, or a printed seed is worth nothing.
        assert_eq!(random(1, Role::Child(0)).next_u64(), FIRST);
    }

    const FIRST: u64 = 0xb6aa_6a7f_7ff3_89fe;

    #[test]
    fn another_of_another() {
        let mut seen = std::collections::HashSet::new();
        for seed in [0, 1, u64::MAX] {
            for n in 0..20 {
                let child = random(seed, Role::Child(n)).next_u64();
                assert!(seen.insert(child));
                for thread in 0..4 {
                    let role = Role::Thread(thread, n as u32);
                    assert!(seen.insert(random(seed, role).next_u64()));
                }
            }
            assert!(seen.insert(random(seed, Role::Process).next_u64()));
            assert!(seen.insert(random(seed, Role::Supervisor).next_u64()));
        }
    }
}
