//! Cuts the sequences of an update into micro-batches, limited in sequences and in tokens. With
//! [`LossNorm::Batch`](super::LossNorm::Batch) the gradient does not depend on the cut.

use std::ops::Range;

/// Cuts `count` entries into consecutive ranges of at most `sequences` entries and, unless `tokens` is 0, at most `tokens`
/// tokens. `size` returns the number of tokens of a range; it grows with the range. An entry that is larger than the limit
/// is alone in its range.
pub(crate) fn micro_batches(
    count: usize,
    sequences: usize,
    tokens: usize,
    size: impl Fn(Range<usize>) -> usize,
) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for i in 0..count {
        match ranges.last_mut() {
            Some(range) if range.len() < sequences && (tokens == 0 || size(range.start..i + 1) <= tokens) => {
                range.end = i + 1;
            }
            _ => ranges.push(i..i + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(lengths: &[usize], sequences: usize, tokens: usize) -> Vec<Range<usize>> {
        micro_batches(lengths.len(), sequences, tokens, |range| lengths[range].iter().sum())
    }

    #[test]
    fn both_limits_hold_and_a_long_sequence_stands_alone() {
        assert_eq!(cut(&[5; 7], 3, 0), [0..3, 3..6, 6..7]);
        assert_eq!(cut(&[4, 4, 9, 1, 1, 1], 3, 8), [0..2, 2..3, 3..6]);
        assert!(cut(&[], 3, 8).is_empty());
    }

    proptest! {
        #[test]
        fn every_sequence_is_in_one_batch_and_no_batch_could_take_the_next(
            lengths in prop::collection::vec(1usize..50, 0..40), sequences in 1usize..6, tokens in 0usize..80,
        ) {
            let found = cut(&lengths, sequences, tokens);
            prop_assert_eq!(found.iter().cloned().flatten().collect::<Vec<_>>(), (0..lengths.len()).collect::<Vec<_>>());
            let total = |range: &Range<usize>| lengths[range.clone()].iter().sum::<usize>();
            for pair in found.windows(2) {
                let next = lengths[pair[1].start];
                prop_assert!(pair[0].len() == sequences || (tokens > 0 && total(&pair[0]) + next > tokens));
            }
            for range in &found {
                prop_assert!(range.len() <= sequences && (tokens == 0 || range.len() == 1 || total(range) <= tokens));
            }
        }
    }
}
