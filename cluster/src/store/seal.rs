//! The checksum in front of every stored value: a flipped bit is found before it is served.

use bytes::Bytes;

use super::StoreError;

/// Bytes of the checksum.
const SUM_LEN: usize = 4;

/// A value behind its checksum, which covers the key too: a value under a wrong key is as bad as a wrong value.
pub(super) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(value.len() + SUM_LEN);
    sealed.extend_from_slice(&checksum(key, value).to_be_bytes());
    sealed.extend_from_slice(value);
    sealed
}

/// The value, if it is what was written.
pub(super) fn unseal(key: &[u8], sealed: &[u8]) -> Result<Bytes, StoreError> {
    match sealed.split_first_chunk::<SUM_LEN>() {
        Some((sum, value)) if u32::from_be_bytes(*sum) == checksum(key, value) => Ok(Bytes::copy_from_slice(value)),
        _ => Err(StoreError::damaged(key, &"checksum")),
    }
}

/// Where the value begins, whether or not it is what was written: for a planted bug.
#[cfg(any(test, feature = "simulation"))]
pub(super) fn unseal_unchecked(sealed: &[u8]) -> Bytes {
    Bytes::copy_from_slice(sealed.get(SUM_LEN..).unwrap_or_default())
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
        let sealed = seal(b"key", b"some value");
        assert_eq!(unseal(b"key", &sealed), Ok(Bytes::from_static(b"some value")));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(b"key", &damaged).is_err(), "bit {bit}");
        }
        assert!(unseal(b"kez", &sealed).is_err());
        assert!(unseal(b"key", &sealed[..3]).is_err());
    }
}
