//! Who dies when: a row of numbers from a seed.

use std::time::Duration;

/// Deterministic numbers.
pub(crate) struct Dice([u8; 32]);

impl Dice {
    /// Of `SEED` and the test's name, so that a run can be replayed as far as the machine allows.
    pub(crate) fn new() -> Self {
        let seed = std::env::var("SEED").map_or(1, |seed| seed.parse::<u64>().unwrap());
        println!("SEED={seed}");
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        Self(blake3::hash(format!("{seed} {name}").as_bytes()).into())
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = blake3::hash(&self.0).into();
        u64::from_le_bytes(*self.0.first_chunk().unwrap()) % sides
    }

    /// Waits until somewhere in what a process does in so many milliseconds.
    pub(crate) fn moment(&mut self, millis: u64) {
        std::thread::sleep(Duration::from_millis(self.roll(millis)));
    }
    /// Who dies while signatures are collected: a signer (0 to 2) or the collector (3), five times, a moment after the last one; then
    /// nobody.
    pub(crate) fn victims(&mut self) -> impl FnMut() -> usize + '_ {
        let mut left = 6;
        move || {
            left -= 1;
            self.moment(300);
            if left > 0 {
                self.roll(4) as usize
            } else {
                usize::MAX
            }
        }
    }
}
