//! How a node's room for live entities is divided over the shards that it leads. Pure.

/// The parts of `room` for shards that want so much: nobody gets more than it wants while another has less than its equal part, and
/// what nobody wants is divided equally (max-min fairness).
pub(crate) fn divide(room: usize, wanted: &[usize]) -> Vec<usize> {
    let mut parts = vec![0; wanted.len()];
    let mut open: Vec<usize> = (0..wanted.len()).collect();
    open.sort_unstable_by_key(|shard| wanted[*shard]);
    let mut left = room;
    for (place, shard) in open.iter().enumerate() {
        let equal = left / (open.len() - place);
        parts[*shard] = wanted[*shard].min(equal);
        left -= parts[*shard];
    }
    // Room that nobody wants now is there for whoever wants it next.
    let spare = left / wanted.len().max(1);
    for part in &mut parts {
        *part += spare;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_have_what_they_want_and_the_large_share_the_rest() {
        assert_eq!(divide(100, &[10, 200, 200]), [10, 45, 45]);
        assert_eq!(divide(100, &[200, 200]), [50, 50]);
        assert_eq!(divide(100, &[10, 20]), [45, 55]);
        assert_eq!(divide(100, &[]), [0_usize; 0]);
        let parts = divide(1_000, &[5, 900, 0, 300, 77]);
        assert!(parts.iter().sum::<usize>() <= 1_000, "{parts:?}");
    }
}
