//! Passes over one row of a vocabulary, in f32 with the widest vectors of the machine. Sums are kept per block of tokens,
//! so that a draw finds its block first and its token then.

use fieldmark_model::host::{BLOCK, exp_of_negative, sum};
use multiversion::multiversion;

/// Writes exp((x − max) / temperature) of each value of a row and the sum of each block; returns the whole sum.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(super) fn exponentials(row: &[f32], max: f32, temperature: f32, exps: &mut Vec<f32>, sums: &mut Vec<f64>) -> f64 {
    exps.resize(row.len(), 0.0);
    sums.clear();
    let scale = 1.0 / temperature;
    for (row, exps) in row.chunks(BLOCK).zip(exps.chunks_mut(BLOCK)) {
        row.iter().zip(exps.iter_mut()).for_each(|(&x, exp)| *exp = exp_of_negative((x - max) * scale));
        sums.push(sum(exps));
    }
    sums.iter().sum()
}

/// Computes the values of `changed` tokens anew, and the sums of their blocks; returns the whole sum.
pub(super) fn refresh(
    row: &[f32],
    max: f32,
    temperature: f32,
    changed: impl Iterator<Item = usize>,
    exps: &mut [f32],
    sums: &mut [f64],
) -> f64 {
    for token in changed {
        exps[token] = exp_of_negative((row[token] - max) * (1.0 / temperature));
        let first = token - token % BLOCK;
        let end = exps.len().min(first + BLOCK);
        sums[token / BLOCK] = sum(&exps[first..end]);
    }
    sums.iter().sum()
}

/// Sets to 0 what is not above the token `pivot` (larger, or as large with a higher id), updates the sums, and returns the
/// whole sum.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(super) fn keep_above(row: &[f32], pivot: usize, exps: &mut [f32], sums: &mut [f64]) -> f64 {
    let value = row[pivot];
    for (block, (row, exps)) in row.chunks(BLOCK).zip(exps.chunks_mut(BLOCK)).enumerate() {
        if sums[block] == 0.0 {
            continue;
        }
        let first = block * BLOCK;
        if first > pivot {
            keep(row, exps, |x| x >= value);
        } else if first + row.len() <= pivot {
            keep(row, exps, |x| x > value);
        } else {
            let after = pivot - first + 1;
            keep(&row[..after], &mut exps[..after], |x| x > value);
            keep(&row[after..], &mut exps[after..], |x| x >= value);
        }
        sums[block] = sum(exps);
    }
    sums.iter().sum()
}

/// Sets to 0 what is below `least`, updates the sums, and returns the whole sum.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(super) fn keep_from(row: &[f32], least: f32, exps: &mut [f32], sums: &mut [f64]) -> f64 {
    for ((row, exps), total) in row.chunks(BLOCK).zip(exps.chunks_mut(BLOCK)).zip(sums.iter_mut()) {
        keep(row, exps, |x| x >= least);
        *total = sum(exps);
    }
    sums.iter().sum()
}

/// Returns the token that holds the point `at` of the line that the values make end to end. Rounding can put the point
/// past the last token with any weight, which then holds it.
pub(super) fn token_at(at: f64, exps: &[f32], sums: &[f64]) -> usize {
    let (mut end, mut last, mut left) = (0.0, 0, at);
    for (block, &sum) in sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
        (last, left) = (block, at - end);
        end += sum;
        if at < end {
            break;
        }
    }
    let first = last * BLOCK;
    let block = &exps[first..exps.len().min(first + BLOCK)];
    let mut token = 0;
    for (place, &exp) in block.iter().enumerate().filter(|(_, exp)| **exp > 0.0) {
        token = place;
        left -= f64::from(exp);
        if left < 0.0 {
            break;
        }
    }
    first + token
}

/// Returns the value of rank `count` from the top, ties counted; `buffer` is scratch space.
pub(super) fn kth_largest(row: &[f32], count: usize, buffer: &mut Vec<f32>) -> f32 {
    buffer.clear();
    let mut least = f32::NEG_INFINITY;
    for &x in row {
        if x > least {
            buffer.push(x);
            if buffer.len() == 2 * count + BLOCK {
                least = raise(count, buffer);
            }
        }
    }
    if buffer.len() < count { f32::NEG_INFINITY } else { raise(count, buffer) }
}

/// Keeps the `count` largest values; returns the smallest of them.
fn raise(count: usize, buffer: &mut Vec<f32>) -> f32 {
    let least = *buffer.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1;
    buffer.truncate(count);
    least
}

#[inline(always)]
fn keep(row: &[f32], exps: &mut [f32], wanted: impl Fn(f32) -> bool) {
    row.iter().zip(exps).for_each(|(&x, exp)| *exp = if wanted(x) { *exp } else { 0.0 });
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldmark_model::host::{LANES, largest};

    #[test]
    fn sums_cover_every_token_of_a_row_of_any_length() {
        for len in [1, LANES - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77] {
            let row: Vec<f32> = (0..len).map(|i| ((i * 37) % 101) as f32 / 10.0).collect();
            let (max, finite) = largest(&row);
            assert_eq!((max, finite), (row.iter().copied().fold(f32::MIN, f32::max), true));
            let (mut exps, mut sums) = (Vec::new(), Vec::new());
            let total = exponentials(&row, max, 2.0, &mut exps, &mut sums);
            let wanted: f64 = row.iter().map(|x| (f64::from(x - max) / 2.0).exp()).sum();
            assert!((total / wanted - 1.0).abs() < 1e-6);
            let above = keep_above(&row, len / 2, &mut exps, &mut sums);
            let wanted: f64 = (0..len)
                .filter(|&i| row[i] > row[len / 2] || (row[i] == row[len / 2] && i > len / 2))
                .map(|i| (f64::from(row[i] - max) / 2.0).exp())
                .sum();
            assert!((above - wanted).abs() <= 1e-6 * wanted, "{len} {above} {wanted}");
        }
    }

    #[test]
    fn the_rank_counts_ties() {
        let row = [3.0, 1.0, 3.0, 2.0, 2.0, 0.0];
        let kth = |count| kth_largest(&row, count, &mut Vec::new());
        assert_eq!([1, 2, 3, 4, 5, 6].map(kth), [3.0, 3.0, 2.0, 2.0, 1.0, 0.0]);
        let long: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5003) as f32).collect();
        let mut sorted = long.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        assert_eq!(kth_largest(&long, 50, &mut Vec::new()), sorted[49]);
    }

    #[test]
    fn a_point_past_the_end_belongs_to_the_last_token_with_any_weight() {
        let exps = [0.5, 0.0, 0.25, 0.0];
        let find = |at| token_at(at, &exps, &[0.75]);
        assert_eq!([0.0, 0.49, 0.5, 0.74, 0.75, 9.0].map(find), [0, 0, 2, 2, 2, 2]);
    }
}
