//! Who stays, on traces of keys.

use std::collections::HashSet;

use super::*;

/// A run of keys through a cap; counts hits of those that `counts` says.
struct Trace {
    residents: Residents<u64, ()>,
    now_ms: u64,
    hits: usize,
    uses: usize,
}

impl Trace {
    fn new(cap: usize) -> Self {
        Self {
            residents: Residents::new(cap, cap),
            now_ms: 0,
            hits: 0,
            uses: 0,
        }
    }

    fn uses(&mut self, key: u64, counts: bool) {
        self.now_ms += 1;
        let is_hit = self.residents.touch(&key, self.now_ms).is_some();
        if !is_hit {
            let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.residents.insert(key, hash, (), self.now_ms);
            while let Some(leaves) = self.residents.next_to_leave(|()| true) {
                self.residents.remove(&leaves);
            }
        }
        if counts {
            self.uses += 1;
            self.hits += usize::from(is_hit);
        }
    }

    fn rate(&self) -> f64 {
        self.hits as f64 / self.uses as f64
    }
}

/// Hot keys by a generator of our own, most of them small.
fn hot(n: u64) -> u64 {
    let mut x = n.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9;
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 32;
    let part = (x % 10_000) as f64 / 10_000.0;
    (part * part * 800.0) as u64
}

#[test]
fn the_hot_ones_stay_while_a_scan_of_cold_ones_passes_through() {
    let mut quiet = Trace::new(1_000);
    let mut scanned = Trace::new(1_000);
    for n in 0..200_000 {
        quiet.uses(hot(n), n > 50_000);
        scanned.uses(hot(n), n > 50_000);
        // Three cold ones for each hot one, none of them ever again.
        for k in 0..3 {
            scanned.uses(1_000_000 + n * 3 + k, false);
        }
    }
    assert!(
        scanned.rate() > quiet.rate() - 0.07,
        "{} against {}",
        scanned.rate(),
        quiet.rate()
    );
    assert!(quiet.rate() > 0.9, "{}", quiet.rate());
    assert_eq!(scanned.residents.len(), 1_000);
}

#[test]
fn what_becomes_hot_later_finds_its_place() {
    let mut trace = Trace::new(1_000);
    for n in 0..200_000 {
        trace.uses(hot(n), false);
    }
    for n in 0..100_000 {
        trace.uses(5_000 + hot(n), n > 50_000);
    }
    assert!(trace.rate() > 0.85, "{}", trace.rate());
}

#[test]
fn who_is_at_work_is_never_sent_away() {
    let mut residents: Residents<u64, bool> = Residents::new(10, 10);
    for key in 0..100 {
        residents.insert(key, key, key % 10 == 0, key);
        while let Some(leaves) = residents.next_to_leave(|is_busy| !is_busy) {
            assert!(leaves % 10 != 0);
            residents.remove(&leaves);
        }
    }
    assert!((0..100).step_by(10).all(|key| residents.contains(&key)));
    assert!(residents.len() <= 11, "{}", residents.len());
    // All of them: over the cap rather than one of them lost.
    let mut all: Residents<u64, bool> = Residents::new(10, 10);
    for key in 0..100 {
        all.insert(key, key, true, key);
        assert_eq!(all.next_to_leave(|is_busy| !is_busy), None);
    }
    assert_eq!(all.len(), 100);
}

#[test]
fn the_idle_ones_are_found_in_the_order_of_their_last_use() {
    let mut residents: Residents<u64, ()> = Residents::new(100, 100);
    for key in 0..10 {
        residents.insert(key, key, (), key);
    }
    residents.touch(&0, 20);
    residents.touch(&3, 21);
    let mut idle = Vec::new();
    while let Some((key, ())) = residents.idle_since(21) {
        let key = *key;
        idle.push(key);
        residents.remove(&key);
    }
    assert_eq!(idle, [1, 2, 4, 5, 6, 7, 8, 9, 0]);
    assert_eq!(residents.len(), 1);
}

#[test]
fn a_smaller_cap_sends_the_rest_away() {
    let mut trace = Trace::new(1_000);
    (0..1_000).for_each(|key| trace.uses(key, false));
    trace.residents.set_cap(100);
    let mut left = HashSet::new();
    while let Some(key) = trace.residents.next_to_leave(|()| true) {
        trace.residents.remove(&key);
        assert!(left.insert(key));
    }
    assert_eq!((left.len(), trace.residents.len()), (900, 100));
}
