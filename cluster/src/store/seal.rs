//! What a stored value looks like: behind a checksum, so that a flipped bit is found before it is served, and compressed where that
//! is worth it. Records repeat the same few words: a saga's history becomes a quarter of what it was.

use bytes::Bytes;

use super::StoreError;

/// Bytes of the checksum.
const SUM_LEN: usize = 4;
/// Values of fewer bytes stay as they are.
const COMPRESSED_FROM: usize = 256;

/// A value behind its checksum, which covers the key too: a value under a wrong key is as bad as a wrong value. That of a
/// compressed one is inverted, so no byte is spent on telling which it is, and values of builds that did not compress stay readable.
pub(super) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    if value.len() >= COMPRESSED_FROM {
        let compressed = lz4_flex::block::compress_prepend_size(value);
        // Less than an eighth is not worth a reader's time.
        if compressed.len() <= value.len() - value.len() / 8 {
            return sealed(!checksum(key, &compressed), &compressed);
        }
    }
    sealed(checksum(key, value), value)
}

fn sealed(sum: u32, content: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(content.len() + SUM_LEN);
    sealed.extend_from_slice(&sum.to_be_bytes());
    sealed.extend_from_slice(content);
    sealed
}

/// The value, if it is what was written.
pub(super) fn unseal(key: &[u8], sealed: &[u8]) -> Result<Bytes, StoreError> {
    let (sum, content) = sealed
        .split_first_chunk::<SUM_LEN>()
        .ok_or_else(|| StoreError::damaged(key, &"length"))?;
    let (sum, found) = (u32::from_be_bytes(*sum), checksum(key, content));
    if sum == found {
        Ok(Bytes::copy_from_slice(content))
    } else if sum == !found {
        let value = lz4_flex::block::decompress_size_prepended(content);
        value.map(Bytes::from).map_err(|error| StoreError::damaged(key, &error))
    } else {
        Err(StoreError::damaged(key, &"checksum"))
    }
}

/// The value, or what stands in its place if that is not what was written: for a planted bug.
#[cfg(any(test, feature = "simulation"))]
pub(super) fn unseal_unchecked(key: &[u8], sealed: &[u8]) -> Bytes {
    unseal(key, sealed).unwrap_or_else(|_| Bytes::copy_from_slice(sealed.get(SUM_LEN..).unwrap_or_default()))
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found_and_so_is_a_wrong_key() {
        for value in [b"some value".to_vec(), b"the same words again and again; ".repeat(20)] {
            let sealed = seal(b"key", &value);
            assert_eq!(unseal(b"key", &sealed), Ok(Bytes::from(value)));
            for bit in 0..sealed.len() * 8 {
                let mut damaged = sealed.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(unseal(b"key", &damaged).is_err(), "bit {bit}");
            }
            assert!(unseal(b"kez", &sealed).is_err());
            assert!(unseal(b"key", &sealed[..3]).is_err());
        }
    }

    #[test]
    fn what_repeats_itself_becomes_smaller_and_nothing_becomes_larger() {
        let repeated = b"the same words again and again; ".repeat(20);
        assert!(seal(b"key", &repeated).len() < repeated.len() / 4);
        let random: Vec<u8> = (0..1_000).map(|_| rand::random()).collect();
        for value in [&random[..], &random[..10], b""] {
            let sealed = seal(b"key", value);
            assert_eq!(sealed.len(), value.len() + SUM_LEN);
            assert_eq!(unseal(b"key", &sealed), Ok(Bytes::copy_from_slice(value)));
        }
    }

    #[test]
    fn values_of_builds_that_did_not_compress_are_read() {
        let value = b"the same words again and again; ".repeat(20);
        let of_old = sealed(checksum(b"key", &value), &value);
        assert_eq!(unseal(b"key", &of_old), Ok(Bytes::from(value)));
    }
}
