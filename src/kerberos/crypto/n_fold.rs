//! `n-fold` of RFC 3961, section 5.1, to 128 bits.

const LEN: usize = 16;

/// Repeats `input`, each time rotated right by 13 bits more, up to a common multiple of both
/// lengths, and adds up all pieces of the output's length with end-around carry.
pub(super) fn n_fold(input: &[u8]) -> [u8; LEN] {
    fold::<LEN>(input)
}

fn fold<const N: usize>(input: &[u8]) -> [u8; N] {
    let bits = input.len() * 8;
    let repeated = least_common_multiple(input.len(), N);
    let mut sum = [0_u32; N];
    for at in 0..repeated {
        let rotated_by = 13 * (at / input.len());
        // The first bit of this byte in the input, which was rotated to the right.
        let bit = (at % input.len() * 8 + bits * 13 - rotated_by % bits) % bits;
        let (high, low) = (input[bit / 8], input[(bit / 8 + 1) % input.len()]);
        let pair = u16::from_be_bytes([high, low]) << (bit % 8);
        sum[at % N] += u32::from(pair >> 8);
    }
    // Carries go to the left, and around.
    while sum.iter().any(|byte| *byte > 0xff) {
        let before = sum;
        for (at, byte) in sum.iter_mut().enumerate() {
            *byte = (before[at] & 0xff) + (before[(at + 1) % N] >> 8);
        }
    }
    sum.map(|byte| byte as u8)
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3961, appendix A.1.
    #[test]
    fn the_examples_of_the_rfc_hold() {
        let expected = [0xbe, 0x07, 0x26, 0x31, 0x27, 0x6b, 0x19, 0x55];
        assert_eq!(fold::<8>(b"012345"), expected);
        let expected = [0x78, 0xa0, 0x7b, 0x6c, 0xaf, 0x85, 0xfa];
        assert_eq!(fold::<7>(b"password"), expected);
        let expected = [0xbb, 0x6e, 0xd3, 0x08, 0x70, 0xb7, 0xf0, 0xe0];
        assert_eq!(fold::<8>(b"Rough Consensus, and Running Code"), expected);
        let expected = *b"kerberos\x7b\x9b\x5b\x2b\x93\x13\x2b\x93";
        assert_eq!(fold::<16>(b"kerberos"), expected);
    }
}
