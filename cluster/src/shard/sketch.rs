//! How often each of many things was used of late, in four bytes for each: a count-min sketch of small counters that are halved
//! from time to time, as TinyLFU has it (Einziger, Friedman and Manes, 2017).

/// Counters of one thing; the smallest of them counts.
const ROWS: usize = 4;
/// Counters for each thing that there is room for: enough that few share all of theirs.
const COUNTERS_EACH: usize = 8;
/// The largest count.
const COUNT_MAX: u64 = 15;
/// Counters of four bits in one word.
const WORD_LEN: usize = 16;
/// After so many uses for each thing in the cap all counters are halved: what was used long ago fades.
const USES_EACH: usize = 10;
/// The sketch is never smaller than for so many things, nor larger than for so many.
const THINGS_MIN: usize = 64;
const THINGS_MAX: usize = 1 << 20;

/// Spreads each row's places differently.
const SEEDS: [u64; ROWS] = [
    0xc3a5_c85c_97cb_3127,
    0xb492_b66f_be98_f273,
    0x9ae1_6a3b_2f90_404f,
    0xcbf2_9ce4_8422_2325,
];

/// The sketch.
pub(crate) struct Sketch {
    words: Box<[u64]>,
    uses: usize,
}

impl Sketch {
    /// For so many things.
    pub(crate) fn new(things: usize) -> Self {
        let counters = things.clamp(THINGS_MIN, THINGS_MAX).next_power_of_two() * COUNTERS_EACH;
        Self {
            words: vec![0; counters / WORD_LEN].into(),
            uses: 0,
        }
    }

    fn place(&self, hash: u64, row: usize) -> (usize, u32) {
        let mixed = (hash ^ SEEDS[row]).wrapping_mul(SEEDS[row] | 1);
        let mixed = mixed ^ (mixed >> 32);
        let word = mixed as usize & (self.words.len() - 1);
        (word, (mixed >> 58) as u32 % WORD_LEN as u32 * 4)
    }

    /// Counts a use of the thing with this hash, one of about `things`.
    pub(crate) fn count(&mut self, hash: u64, things: usize) {
        let least = u64::from(self.frequency(hash));
        if least < COUNT_MAX {
            for row in 0..ROWS {
                let (word, shift) = self.place(hash, row);
                // Only the smallest grow: the others count somebody else as well.
                if self.words[word] >> shift & COUNT_MAX == least {
                    self.words[word] += 1 << shift;
                }
            }
        }
        self.uses += 1;
        if self.uses >= things.max(THINGS_MIN) * USES_EACH {
            self.uses /= 2;
            for word in &mut self.words {
                *word = *word >> 1 & 0x7777_7777_7777_7777;
            }
        }
    }

    /// How often the thing was used of late, at most this.
    pub(crate) fn frequency(&self, hash: u64) -> u8 {
        let counts = (0..ROWS).map(|row| {
            let (word, shift) = self.place(hash, row);
            (self.words[word] >> shift & COUNT_MAX) as u8
        });
        counts.min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_often_counts_more_and_fades() {
        let mut sketch = Sketch::new(1_000);
        let hash = |n: u64| crate::journal::keys::fnv(&n.to_be_bytes());
        for n in 0..2_000 {
            sketch.count(hash(n), 1_000);
            sketch.count(hash(7), 1_000);
        }
        assert_eq!(sketch.frequency(hash(7)), 15);
        let cold = (10_000..11_000).filter(|n| sketch.frequency(hash(*n)) > 2).count();
        assert!(cold < 50, "{cold} of a thousand are taken for others");
        for n in 0..100_000 {
            sketch.count(hash(20_000 + n), 1_000);
        }
        assert!(sketch.frequency(hash(7)) < 8);
    }
}
