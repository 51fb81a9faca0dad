//! Many records in one log entry, each behind its length.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Packs records into one entry.
pub(crate) fn pack<'a>(records: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let size = records.clone().map(|record| record.len() + 4).sum();
    let mut entry = BytesMut::with_capacity(size);
    for record in records {
        entry.put_u32(u32::try_from(record.len()).expect("a record is far below 4 GiB: values are limited"));
        entry.put_slice(record);
    }
    entry.freeze()
}

/// The records of an entry; `None` for one that was cut short.
pub(crate) fn unpack(mut entry: Bytes) -> impl Iterator<Item = Option<Bytes>> {
    std::iter::from_fn(move || {
        if entry.is_empty() {
            return None;
        }
        if entry.len() < 4 {
            entry.clear();
            return Some(None);
        }
        let len = entry.get_u32() as usize;
        if entry.len() < len {
            entry.clear();
            return Some(None);
        }
        Some(Some(entry.split_to(len)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_as_they_went_in() {
        let records = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")];
        let entry = pack(records.iter());
        assert_eq!(unpack(entry).collect::<Option<Vec<_>>>(), Some(records.to_vec()));
    }

    #[test]
    fn a_cut_entry_is_noticed() {
        let entry = pack([Bytes::from_static(b"record")].iter());
        assert_eq!(unpack(entry.slice(..7)).collect::<Vec<_>>(), [None]);
        assert_eq!(unpack(entry.slice(..3)).collect::<Vec<_>>(), [None]);
    }
}
