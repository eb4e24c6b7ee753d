//! Which partition a record goes to.
//!
//! ```text
//! partition given ──────▶ that one
//! key ──────────────────▶ murmur2(key) mod partitions, as Java's default partitioner
//! neither ──────────────▶ the sticky one: changes after batch.size bytes, at the end of
//!                         a batch, to one with a short queue (KIP-794); and at once when
//!                         the partition has lost its leader, or nothing was appended to it
//!                         for the availability timeout
//! ```
//!
//! # Invariants
//! - Records without key wait for no partition while another one of their topic can be
//!   written to. Those that are in a batch stay there: their order and sequences are fixed.

/// Java's default partitioner for a record with a key.
///
/// # Panics
/// If `partitions` is not positive.
#[inline]
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions
}

/// MurmurHash2, 32 bits, with Kafka's seed. Words are little-endian.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;

    let mut h = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for &word in words {
        let mut k = u32::from_le_bytes(word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, &byte) in tail.iter().enumerate() {
            h ^= u32::from(byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition that records without key and partition go to, of one topic.
#[derive(Debug)]
pub(super) struct StickyPartitioner {
    current: Option<i32>,
    /// Appended to the current partition since it was chosen.
    appended_bytes: usize,
    random: u64,
}

impl StickyPartitioner {
    /// `seed` may be any number; topics with different seeds choose differently.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            current: None,
            appended_bytes: 0,
            random: seed,
        }
    }

    /// The current partition. `queue_size` says how many batches of a partition are queued,
    /// `None` if it is not available; it is only asked when a new partition is chosen.
    #[inline]
    pub(super) fn partition(
        &mut self,
        partitions: i32,
        queue_size: impl Fn(i32) -> Option<usize>,
    ) -> i32 {
        match self.current {
            Some(partition) if partition < partitions => partition,
            _ => {
                let chosen = self.choose(partitions, queue_size);
                self.appended_bytes = 0;
                self.current = Some(chosen);
                chosen
            }
        }
    }

    /// Notes what was appended to the current partition. `batch_full`: the partition's open
    /// batch is full, so that switching now costs no half-filled batch.
    #[inline]
    pub(super) fn record_appended(&mut self, bytes: usize, batch_full: bool, batch_size: usize) {
        self.appended_bytes += bytes;
        if (self.appended_bytes >= batch_size && batch_full)
            || self.appended_bytes >= batch_size.saturating_mul(2)
        {
            self.current = None;
        }
    }

    /// Has another partition be chosen, if that one is the current one.
    pub(super) fn leave(&mut self, partition: i32) {
        if self.current == Some(partition) {
            self.current = None;
        }
    }

    /// Partitions with shorter queues are likelier; those that are not available are left out
    /// if others are.
    fn choose(&mut self, partitions: i32, queue_size: impl Fn(i32) -> Option<usize>) -> i32 {
        let longest = (0..partitions).filter_map(&queue_size).max();
        let weight = |partition| match longest {
            None => 1,
            Some(longest) => queue_size(partition).map_or(0, |size| (longest - size) as u64 + 1),
        };
        let total: u64 = (0..partitions).map(weight).sum();
        let mut rest = self.next_random() % total.max(1);
        for partition in 0..partitions {
            match rest.checked_sub(weight(partition)) {
                None => return partition,
                Some(left) => rest = left,
            }
        }
        0
    }

    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_hashes_as_java_does() {
        // From org.apache.kafka.common.utils.UtilsTest.testMurmur2.
        for (data, hash) in [
            (&b"21"[..], -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
        ] {
            assert_eq!(murmur2(data) as i32, hash, "{data:?}");
        }
    }

    #[test]
    fn the_sign_bit_is_cleared_before_the_modulus() {
        assert_eq!(
            partition_for_key(b"21", 7),
            ((-973_932_308i32 as u32 & 0x7fff_ffff) % 7) as i32
        );
        assert!((0..1000u32).all(|i| (0..3).contains(&partition_for_key(&i.to_be_bytes(), 3))));
    }

    #[test]
    fn the_sticky_partition_stays_until_a_batch_is_full_and_then_changes() {
        let mut sticky = StickyPartitioner::new(1);
        let even = |_| Some(0);
        let mut seen = [0; 4];
        for _ in 0..400 {
            let partition = sticky.partition(4, even);
            for _ in 0..9 {
                sticky.record_appended(100, false, 1000);
                assert_eq!(sticky.partition(4, even), partition);
            }
            sticky.record_appended(100, true, 1000);
            seen[partition as usize] += 1;
        }
        assert!(seen.iter().all(|&n| n > 60), "{seen:?}");
    }

    #[test]
    fn the_sticky_partition_changes_after_two_batches_even_if_none_is_full() {
        let mut sticky = StickyPartitioner::new(1);
        sticky.partition(1000, |_| Some(0));
        sticky.record_appended(1999, false, 1000);
        assert!(sticky.current.is_some());
        sticky.record_appended(1, false, 1000);
        assert!(sticky.current.is_none());
    }

    #[test]
    fn long_queues_are_chosen_less_and_leaderless_partitions_never() {
        let mut sticky = StickyPartitioner::new(7);
        let queues = [Some(9), Some(0), None];
        let mut seen = [0; 3];
        for _ in 0..1100 {
            seen[sticky.partition(3, |p| queues[p as usize]) as usize] += 1;
            sticky.record_appended(10, true, 10);
        }
        assert_eq!(seen[2], 0);
        assert!(seen[0] > 50 && seen[0] < 150, "{seen:?}");
    }

    #[test]
    fn without_any_leader_all_partitions_are_chosen() {
        let mut sticky = StickyPartitioner::new(7);
        let mut seen = [0; 3];
        for _ in 0..300 {
            seen[sticky.partition(3, |_| None) as usize] += 1;
            sticky.record_appended(10, true, 10);
        }
        assert!(seen.iter().all(|&n| n > 50), "{seen:?}");
    }

    #[test]
    fn a_partition_that_is_gone_is_replaced() {
        let mut sticky = StickyPartitioner::new(7);
        while sticky.partition(4, |_| Some(0)) != 3 {
            sticky.record_appended(10, true, 10);
        }
        assert!(sticky.partition(2, |_| Some(0)) < 2);
    }
}
