//! An RSA public key as PKCS #1 has it in DER (RFC 8017, appendix A.1.1): what a key of a provider,
//! two numbers, is read from.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// `RSAPublicKey`; both are big-endian without sign.
pub(crate) fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::with_capacity(modulus.len() + exponent.len() + 16);
    put_unsigned(&mut numbers, modulus);
    put_unsigned(&mut numbers, exponent);
    let mut der = Vec::with_capacity(numbers.len() + 4);
    put_head(&mut der, SEQUENCE, numbers.len());
    der.extend_from_slice(&numbers);
    der
}

/// As few bytes as there can be, the first of which is not negative.
fn put_unsigned(der: &mut Vec<u8>, number: &[u8]) {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    let needs_zero = number.first().is_none_or(|first| *first >= 0x80);
    put_head(der, INTEGER, number.len() + usize::from(needs_zero));
    if needs_zero {
        der.push(0);
    }
    der.extend_from_slice(number);
}

fn put_head(der: &mut Vec<u8>, tag: u8, length: usize) {
    der.push(tag);
    let bytes = length.to_be_bytes();
    match length {
        0..0x80 => der.push(bytes[bytes.len() - 1]),
        _ => {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let bytes = &bytes[zeros..];
            // Of a length there are at most 8.
            der.push(0x80 | bytes.len() as u8);
            der.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_short_as_can_be_and_positive() {
        assert_eq!(
            rsa_public_key(&[0, 0, 0x81], &[1, 0, 1]),
            [0x30, 9, 2, 2, 0, 0x81, 2, 3, 1, 0, 1]
        );
        assert_eq!(rsa_public_key(&[], &[0]), [0x30, 6, 2, 1, 0, 2, 1, 0]);
        let long = rsa_public_key(&[0x7f; 256], &[3]);
        assert_eq!(long[..8], [0x30, 0x82, 1, 7, 2, 0x82, 1, 0]);
        let short = rsa_public_key(&[0x80; 128], &[3]);
        assert_eq!(short[..7], [0x30, 0x81, 135, 2, 0x81, 129, 0]);
    }
}
