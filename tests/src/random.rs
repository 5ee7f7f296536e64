//! Numbers from a seed, so that a test that failed can be asked for again.
//!
//! ```text
//!   KLAMM_TEST_SEED=N, else the clock  -->  Random  -->  N on stderr if the test fails
//! ```
//!
//! The generator is splitmix64 (Steele, Lea, Flood, OOPSLA 2014): one multiplication
//! chain a number, good enough to choose sizes and delays.

use std::ops::Range;
use std::time::SystemTime;

pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// The seed that was asked for, or one that nobody had before.
    pub fn new() -> Random {
        let asked = std::env::var("KLAMM_TEST_SEED").ok();
        let seed = match asked {
            Some(text) => text.parse().expect("KLAMM_TEST_SEED is a number"),
            None => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let now = now.expect("a clock after 1970");
                now.as_secs() * 1_000_000 + u64::from(now.subsec_micros())
            }
        };
        Random::from_seed(seed)
    }

    pub fn from_seed(seed: u64) -> Random {
        Random { seed, state: seed }
    }

    /// For another thread, which then depends on the seed only.
    #[must_use]
    pub fn another(&mut self) -> Random {
        Random {
            seed: self.seed,
            state: self.bits(),
        }
    }

    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of the range, which is not empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.bits() % (range.end - range.start)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.within(0..end as u64)).expect("below a usize")
    }
}

impl Default for Random {
    fn default() -> Self {
        Random::new()
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "the seed was {0}: KLAMM_TEST_SEED={0} asks for it again",
                self.seed
            );
        }
    }
}
