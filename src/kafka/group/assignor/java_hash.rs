//! The iteration order of Java's `HashMap`.
//!
//! Java's assignors iterate over hash tables, and what they decide depends on the order. A
//! table's order is fixed by the keys' hashes, the number of buckets and, within a bucket,
//! the order of insertion:
//!
//! ```text
//! bucket = (h ^ h >>> 16) & (buckets - 1)      16 buckets, doubled when 3/4 full
//! ```
//!
//! Buckets that Java turns into trees (8 colliding keys) keep their insertion order here;
//! there Java's order may differ, and our assignment from Java's with it.

use std::cmp::Ordering;

use crate::TopicPartition;

/// Hashes as Java does.
pub(super) trait JavaHash {
    /// Java's `hashCode()`.
    fn java_hash(&self) -> i32;
}

impl JavaHash for str {
    fn java_hash(&self) -> i32 {
        self.encode_utf16().fold(0, |h, unit| {
            h.wrapping_mul(31).wrapping_add(i32::from(unit))
        })
    }
}

impl JavaHash for TopicPartition {
    fn java_hash(&self) -> i32 {
        31i32
            .wrapping_add(self.partition)
            .wrapping_mul(31)
            .wrapping_add(self.topic.java_hash())
    }
}

/// Java's `String.compareTo`: by UTF-16 unit.
pub(super) fn java_cmp(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() {
        a.cmp(b)
    } else {
        a.encode_utf16().cmp(b.encode_utf16())
    }
}

/// A set with the iteration order of Java's `HashSet` (or a `HashMap`'s keys).
#[derive(Debug)]
pub(super) struct JavaSet<T> {
    buckets: Vec<Vec<(u32, T)>>,
    len: usize,
}

impl<T: PartialEq> JavaSet<T> {
    pub(super) fn new() -> Self {
        Self {
            buckets: (0..16).map(|_| Vec::new()).collect(),
            len: 0,
        }
    }

    /// Adds `item` whose `hashCode` is `hash`; false when it was there.
    pub(super) fn insert(&mut self, hash: i32, item: T) -> bool {
        let spread = spread(hash);
        let bucket = self.bucket(spread);
        if self.buckets[bucket].iter().any(|(_, known)| *known == item) {
            return false;
        }
        self.buckets[bucket].push((spread, item));
        self.len += 1;
        if self.len > self.buckets.len() / 4 * 3 {
            self.grow();
        }
        true
    }

    /// Takes `item` out; the table never shrinks, as in Java.
    pub(super) fn remove(&mut self, hash: i32, item: &T) {
        let bucket = self.bucket(spread(hash));
        let before = self.buckets[bucket].len();
        self.buckets[bucket].retain(|(_, known)| known != item);
        self.len -= before - self.buckets[bucket].len();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.buckets.iter().flatten().map(|(_, item)| item)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn bucket(&self, spread: u32) -> usize {
        spread as usize & (self.buckets.len() - 1)
    }

    fn grow(&mut self) {
        let doubled = self.buckets.len() * 2;
        let old = std::mem::replace(
            &mut self.buckets,
            (0..doubled).map(|_| Vec::new()).collect(),
        );
        for (spread, item) in old.into_iter().flatten() {
            self.buckets[spread as usize & (doubled - 1)].push((spread, item));
        }
    }
}

fn spread(hash: i32) -> u32 {
    let hash = hash as u32;
    hash ^ (hash >> 16)
}

/// The indexes of `keys` in the iteration order of a `HashMap` that is filled from front to back.
pub(super) fn java_map_order<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let mut set = JavaSet::new();
    for (index, key) in keys.enumerate() {
        set.insert(key.java_hash(), index);
    }
    set.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_hash_as_in_java() {
        assert_eq!("".java_hash(), 0);
        assert_eq!("orders".java_hash(), -1_008_770_331);
        assert_eq!("ünï-".java_hash(), 7_620_496);
    }

    #[test]
    fn partitions_hash_as_in_java() {
        // java: new TopicPartition("orders", 3).hashCode()
        assert_eq!(TopicPartition::new("orders", 3).java_hash(), -1_008_769_277);
    }

    #[test]
    fn a_table_keeps_its_size_when_it_is_emptied() {
        let mut set = JavaSet::new();
        for i in 0..13 {
            assert!(set.insert(i, i));
        }
        assert!(!set.insert(5, 5));
        for i in 0..12 {
            set.remove(i, &i);
        }
        set.insert(16, 16);
        assert_eq!(set.iter().copied().collect::<Vec<_>>(), [12, 16]);
        set.remove(12, &12);
        set.remove(16, &16);
        assert!(set.is_empty());
    }

    #[test]
    fn strings_compare_by_utf16_units() {
        assert_eq!(java_cmp("a", "b"), Ordering::Less);
        assert_eq!(java_cmp("\u{10000}", "\u{ffff}"), Ordering::Less);
        assert_eq!("\u{10000}".cmp("\u{ffff}"), Ordering::Greater);
    }
}
