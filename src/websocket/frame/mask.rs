//! Masking: every payload byte from a client is XORed with four bytes in turn.

/// Unmasks `part`, which begins `offset` bytes into its frame's payload.
///
/// Eight bytes at a time, in a form that the compiler makes wider where the CPU allows.
pub(super) fn unmask(part: &mut [u8], key: [u8; 4], offset: usize) {
    let mut turned = key;
    turned.rotate_left(offset % 4);
    let [a, b, c, d] = turned;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = part.chunks_exact_mut(8);
    for word in &mut words {
        let bytes: [u8; 8] = (&*word).try_into().expect("chunks are eight bytes");
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(turned.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn unmasking_in_any_parts_is_the_plain_xor(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            key: [u8; 4],
            cuts in proptest::collection::vec(0usize..200, 0..4),
        ) {
            let expected: Vec<u8> =
                payload.iter().enumerate().map(|(i, b)| b ^ key[i % 4]).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(payload.len())).collect();
            cuts.push(payload.len());
            cuts.sort_unstable();
            let mut actual = payload;
            let mut from = 0;
            for cut in cuts {
                unmask(&mut actual[from..cut], key, from);
                from = cut;
            }
            prop_assert_eq!(actual, expected);
        }
    }
}
