//! Data that tells where it belongs: every block names its volume, its generation and its place, and carries a checksum.
//!
//! So a comparison that fails says what was found instead: nothing, an older generation, another volume's data, a block
//! of another place, or garbage.

use std::io::{self, Read, Write};

/// The size of a block: that of a page, so a torn write shows.
pub(super) const BLOCK: usize = 4096;

const MAGIC: [u8; 8] = *b"fuxi-try";

/// Magic, seed, generation, place.
const HEADER: usize = 32;

/// The checksum, at the end of the block.
const FOOTER: usize = 8;

/// What is written to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Whose data it is: a number of its own for every volume of every run.
    pub(super) seed: u64,
    /// Which version of it.
    pub(super) generation: u64,
}

impl Pattern {
    /// Writes the blocks of these places.
    pub(super) fn write(self, to: &mut impl Write, places: std::ops::Range<u64>) -> io::Result<()> {
        places.into_iter().try_for_each(|place| to.write_all(&self.block(place)))
    }

    /// Reads the blocks of these places and says what is wrong with the first wrong one.
    pub(super) fn verify(self, from: &mut impl Read, places: std::ops::Range<u64>) -> io::Result<()> {
        let mut found = [0; BLOCK];
        for place in places {
            from.read_exact(&mut found).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    io::Error::new(error.kind(), format!("the data ends before block {place}"))
                }
                _ => error,
            })?;
            if found != self.block(place) {
                let what = self.describe(&found, place);
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("block {place} holds {what}")));
            }
        }
        Ok(())
    }

    fn block(self, place: u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut state = self.seed ^ self.generation.rotate_left(32) ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let header = [u64::from_le_bytes(MAGIC), self.seed, self.generation, place];
        for (number, word) in block.chunks_exact_mut(8).enumerate() {
            let value = header.get(number).copied().unwrap_or_else(|| next(&mut state));
            word.copy_from_slice(&value.to_le_bytes());
        }
        let sum = checksum(block.get(..BLOCK - FOOTER).unwrap_or_default());
        if let Some(footer) = block.last_chunk_mut::<FOOTER>() {
            *footer = sum.to_le_bytes();
        }
        block
    }

    fn describe(self, found: &[u8; BLOCK], place: u64) -> String {
        if found.iter().all(|byte| *byte == 0) {
            return "zeros".to_owned();
        }
        let words = found.get(..HEADER).unwrap_or_default().chunks_exact(8);
        let mut words = words.map(|word| word.try_into().map(u64::from_le_bytes).unwrap_or_default());
        let mut word = || words.next().unwrap_or_default();
        let (magic, seed, generation, at) = (word(), word(), word(), word());
        if magic != u64::from_le_bytes(MAGIC) {
            return "something that was never written".to_owned();
        }
        let sum = found.last_chunk::<FOOTER>().copied().map(u64::from_le_bytes).unwrap_or_default();
        if sum != checksum(found.get(..BLOCK - FOOTER).unwrap_or_default()) {
            return "a damaged block: its checksum is wrong".to_owned();
        }
        if seed != self.seed {
            return format!("data of another volume (seed {seed:016x} instead of {:016x})", self.seed);
        }
        if at != place {
            return format!("the block of place {at}");
        }
        format!("version {generation} of the data instead of version {}", self.generation)
    }
}

/// One step of xorshift64*.
fn next(state: &mut u64) -> u64 {
    if *state == 0 {
        *state = 0x2545_f491_4f6c_dd1d;
    }
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Pattern};
    use proptest::prelude::{any, proptest};

    const PATTERN: Pattern = Pattern { seed: 7, generation: 2 };

    fn written(pattern: Pattern, places: std::ops::Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        pattern.write(&mut bytes, places).unwrap();
        bytes
    }

    fn complaint(bytes: &[u8]) -> String {
        PATTERN.verify(&mut &*bytes, 0..4).unwrap_err().to_string()
    }

    #[test]
    fn what_was_written_is_recognised() {
        let bytes = written(PATTERN, 0..4);
        assert_eq!(bytes.len(), 4 * BLOCK);
        PATTERN.verify(&mut bytes.as_slice(), 0..4).unwrap();
    }

    #[test]
    fn a_wrong_block_is_described() {
        let good = written(PATTERN, 0..4);
        let with = |block: &[u8]| [&good[..BLOCK], block, &good[2 * BLOCK..]].concat();
        assert!(complaint(&with(&[0; BLOCK])).contains("block 1 holds zeros"));
        assert!(complaint(&with(&[1; BLOCK])).contains("never written"));
        assert!(complaint(&with(&written(Pattern { seed: 8, ..PATTERN }, 1..2))).contains("another volume"));
        assert!(complaint(&with(&written(Pattern { generation: 1, ..PATTERN }, 1..2))).contains("version 1"));
        assert!(complaint(&with(&written(PATTERN, 2..3))).contains("place 2"));
        assert!(complaint(&good[..3 * BLOCK]).contains("ends before block 3"));
    }

    proptest! {
        #[test]
        fn one_flipped_bit_is_found(at in 0..4 * BLOCK, bit in 0_u8..8, seed in any::<u64>(), generation in any::<u64>()) {
            let pattern = Pattern { seed, generation };
            let mut bytes = written(pattern, 0..4);
            bytes[at] ^= 1 << bit;
            assert!(pattern.verify(&mut bytes.as_slice(), 0..4).is_err());
        }
    }
}
