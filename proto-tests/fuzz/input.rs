//! What the inputs of an execution are made of.

/// Where one execution takes its choices from: the same seed, the same choices (SplitMix64).
#[derive(Debug)]
pub struct FuzzInput {
    seed: u64,
    state: u64,
}

/// What decoders have stumbled over: lengths and counts at the ends of their ranges.
const ABSURD: [&[u8]; 14] = [
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\x7f\xff",
    b"\x80\x00",
    b"\xff\xff",
    b"\xff\xff\x7f",
    b"\x00\x00\x00\x00",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\x07",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
];

impl FuzzInput {
    /// The choices of that seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// What it was made of.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    /// A number of at most so many bits: small ones as often as large ones.
    pub fn up_to_bits(&mut self, bits: usize) -> usize {
        let bits = self.below(bits + 1);
        self.below(1 << bits)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// An integer of 64 bits, often at the end of a range, or small.
    pub fn integer(&mut self) -> i64 {
        match self.below(4) {
            0 => self.number() as i64,
            1 => self.below(200) as i64 - 100,
            2 => {
                let ends = [
                    i64::MIN,
                    i64::MAX,
                    i64::from(i32::MIN),
                    i64::from(i32::MAX),
                    1 << 31,
                ];
                *self.pick(&ends)
            }
            _ => 1_700_000_000_000 + self.below(1 << 20) as i64,
        }
    }

    /// 16 bytes of noise.
    pub fn number_bytes(&mut self) -> [u8; 16] {
        let number = u128::from(self.number()) << 64 | u128::from(self.number());
        number.to_be_bytes()
    }

    /// Runs, noise, words of a small alphabet and copies of what came before, mixed.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        while out.len() < len {
            let part = 1 + self.up_to_bits(16);
            match self.below(4) {
                0 => {
                    let byte = self.number() as u8;
                    out.resize(out.len() + part, byte);
                }
                1 => out.extend((0..part).map(|_| self.number() as u8)),
                2 => out.extend((0..part).map(|_| b"etaoin shrdlu"[self.below(13)])),
                _ if out.is_empty() => {}
                _ => {
                    let from = self.below(out.len());
                    let to = (from + part).min(out.len());
                    out.extend_from_within(from..to);
                }
            }
        }
        out.truncate(len);
        out
    }

    /// Up to so many characters, of all lengths in UTF-8 and with what JSON and URIs escape.
    pub fn text(&mut self, chars_max: usize) -> String {
        let count = self.below(chars_max + 1);
        let char = |input: &mut Self| match input.below(8) {
            0 => *input.pick(&[
                '"', '\\', '/', '\n', '\u{0}', '\u{1f}', '\u{7f}', '%', '&', '+', '=',
            ]),
            1 => char::from_u32(input.below(0x110000) as u32).unwrap_or('\u{fffd}'),
            2 => *input.pick(&['é', '€', '\u{2028}', '\u{ffff}', '😀', '\u{10ffff}']),
            _ => char::from(b' ' + input.below(95) as u8),
        };
        (0..count).map(|_| char(self)).collect()
    }

    /// Flips, overwrites, removes, repeats or inserts something in a few places.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len() + 1);
            let to = (at + 1 + self.below(8)).min(bytes.len());
            match self.below(7) {
                _ if at == bytes.len() => bytes.extend_from_slice(self.pick::<&[u8]>(&ABSURD)),
                0 => {
                    let bit = self.below(8);
                    bytes[at] ^= 1 << bit;
                }
                1 => bytes[at..to].fill_with(|| self.number() as u8),
                2 => drop(bytes.drain(at..to)),
                3 if self.one_in(3) => bytes.truncate(at),
                3 | 4 => {
                    let part = bytes[at..to].to_vec();
                    bytes.splice(at..at, part);
                }
                inserted_or_over => {
                    let absurd = *self.pick::<&[u8]>(&ABSURD);
                    let end = (at + absurd.len()).min(bytes.len());
                    let over = if inserted_or_over == 5 { at } else { end };
                    bytes.splice(at..over, absurd.iter().copied());
                }
            }
        }
    }

    /// The bytes, cut in up to so many places.
    pub fn cut<'a>(&mut self, bytes: &'a [u8], cuts_max: usize) -> Vec<&'a [u8]> {
        let mut cuts: Vec<_> = (0..self.below(cuts_max + 1))
            .map(|_| self.below(bytes.len() + 1))
            .collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut from = 0;
        let piece = |to| &bytes[std::mem::replace(&mut from, to)..to];
        cuts.into_iter().map(piece).collect()
    }
}

/// Mixes the bits of a number: each number into one other.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
