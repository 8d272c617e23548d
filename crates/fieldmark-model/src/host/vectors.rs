//! Pieces of loops over many f32 values, for the widest vectors of the machine.

use multiversion::multiversion;

/// The number of values whose sum is kept in f32: sums of many more are in f64.
pub const BLOCK: usize = 512;

/// The number of partial sums or maxima side by side: a few vectors of any width.
pub const LANES: usize = 32;

/// The exponent bits of an f32: all set in infinities and NaN.
const EXPONENT: u32 = 0x7f80_0000;

/// Returns the largest value of a row, and whether every value is finite.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub fn largest(row: &[f32]) -> (f32, bool) {
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut infinite = [0u32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            max[lane] = if chunk[lane] > max[lane] { chunk[lane] } else { max[lane] };
            infinite[lane] |= u32::from(chunk[lane].to_bits() & EXPONENT == EXPONENT);
        }
    }
    let max = max.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, f32::max);
    (max, infinite.iter().all(|&lane| lane == 0) && rest.iter().all(|x| x.is_finite()))
}

/// Returns the sum of a block, of at most a few thousand values.
#[inline(always)]
pub fn sum(values: &[f32]) -> f64 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    chunks.iter().for_each(|chunk| (0..LANES).for_each(|lane| lanes[lane] += chunk[lane]));
    lanes.iter().chain(rest).map(|&x| f64::from(x)).sum()
}

/// Returns eˣ for x ≤ 0 with a relative error below 2⁻²²; 0 where that is below the smallest normal number, and for NaN.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2: eʳ by the polynomial of the Cephes library (`expf`), 2ⁿ by the exponent bits.
#[inline(always)]
pub fn exp_of_negative(x: f32) -> f32 {
    // Adding and taking away 1.5 × 2²³ rounds to the nearest whole number, and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let inside = x > -87.3;
    let x = if inside { x } else { 0.0 };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let exponent = (rounded.to_bits() & 0x7f_ffff) as i32 - 0x40_0000 + 127;
    let power = f32::from_bits((exponent as u32) << 23);
    if inside { (p * r * r + r + 1.0) * power } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_f64() {
        for i in 0..900_000 {
            let x = -(i as f32) * 1e-4;
            let (found, wanted) = (f64::from(exp_of_negative(x)), f64::from(x).exp());
            let close = if x > -87.3 { (found / wanted - 1.0).abs() < 2f64.powi(-22) } else { found == 0.0 };
            assert!(close, "{x} {found} {wanted}");
        }
        assert_eq!(exp_of_negative(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_of_negative(f32::NAN), 0.0);
    }

    #[test]
    fn a_value_that_is_not_finite_is_seen_wherever_it_stands() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 31, 32, 99] {
                let mut row = vec![1.0; 100];
                row[place] = bad;
                assert!(!largest(&row).1);
            }
        }
    }
}
