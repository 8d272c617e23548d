//! Sums and scaling of whole tensors on all cores. The order of a sum does not depend on the number of cores.

use multiversion::multiversion;
use rayon::prelude::*;

use super::{BLOCK, LANES, sum};

/// Number of values that a core works on at a time.
const PIECE: usize = 64 * BLOCK;

/// Returns Σ x², in f32 within a block and in f64 beyond.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    // Collected, because a sum in the order of the cores would differ from run to run.
    let parts: Vec<f64> = values.par_chunks(PIECE).map(squares).collect();
    parts.iter().sum()
}

/// Multiplies each value by `factor`.
pub fn scale(values: &mut [f32], factor: f32) {
    values.par_chunks_mut(PIECE).for_each(|values| values.iter_mut().for_each(|x| *x *= factor));
}

/// Adds the values of `other`, as many, to `values`.
pub fn add(values: &mut [f32], other: &[f32]) {
    let pieces = values.par_chunks_mut(PIECE).zip(other.par_chunks(PIECE));
    pieces.for_each(|(values, other)| values.iter_mut().zip(other).for_each(|(x, y)| *x += y));
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn squares(values: &[f32]) -> f64 {
    let square_sum = |block: &[f32]| {
        let mut lanes = [0f32; LANES];
        let (chunks, rest) = block.as_chunks::<LANES>();
        chunks.iter().for_each(|chunk| (0..LANES).for_each(|lane| lanes[lane] += chunk[lane] * chunk[lane]));
        sum(&lanes) + rest.iter().map(|x| f64::from(x * x)).sum::<f64>()
    };
    values.chunks(BLOCK).map(square_sum).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_scaling_are_those_of_a_plain_loop() {
        for count in [0, 1, LANES + 1, PIECE + 3 * BLOCK + 5] {
            let values: Vec<f32> = (0..count).map(|i| ((i * 7919) % 1009) as f32 / 100.0 - 4.0).collect();
            let wanted: f64 = values.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            assert!((sum_of_squares(&values) - wanted).abs() <= 1e-6 * wanted, "{count}");
            let mut found = values.clone();
            scale(&mut found, 0.3);
            assert!(found.iter().zip(&values).all(|(found, x)| *found == x * 0.3));
            add(&mut found, &values);
            assert!(found.iter().zip(&values).all(|(found, x)| *found == x * 0.3 + x));
        }
    }
}
