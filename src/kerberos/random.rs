//! Random bytes of the operating system.

/// As many as are asked for.
///
/// # Panics
/// If the operating system has none, without which nothing here is safe.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    bytes
}

/// Some KDCs and brokers take numbers of 32 bits for signed ones.
pub(crate) fn random_number() -> u32 {
    u32::from_be_bytes(random_bytes()) >> 2
}
