//! Softmax over rows of logits in ordinary memory, f32, rows shared among all cores.
//!
//! For a row x, a target y and a temperature T, with m = max x and Z = Σ exp((xᵢ − m) / T): the log-probability is
//! (x_y − m) / T − ln Z, the entropy ln Z − Σ (xᵢ − m) / T · exp((xᵢ − m) / T) / Z. Sums are in f32 within a block of
//! 512 tokens and in f64 beyond. A row that holds NaN or +∞ scores NaN, as with Burn's operations.

use fieldmark_model::host::{BLOCK, LANES, exp_of_negative, largest, sum};
use multiversion::multiversion;
use rayon::prelude::*;

/// What is known of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RowScore {
    /// Log-probability of the target.
    pub(super) logp: f64,
    /// Entropy in nats.
    pub(super) entropy: f64,
}

/// Scores rows of `vocabulary` logits. `targets` holds the token of each row.
pub(super) fn score(logits: &[f32], vocabulary: usize, targets: &[usize], temperature: f64) -> Vec<RowScore> {
    let score_row = |(row, &target): (&[f32], &usize)| {
        let max = maximum(row);
        let (mass, weighted) = mass_and_mean(row, max, scale(temperature));
        let log_mass = mass.ln();
        let logp = f64::from(row[target] - max) / temperature - log_mass;
        RowScore { logp, entropy: log_mass - weighted / mass }
    };
    logits.par_chunks(vocabulary).zip(targets).map(score_row).collect()
}

/// Replaces each row of logits by the gradient of `logp · grad` with respect to it,
/// `(1[i is the target] − softmax(x / T)ᵢ) · grad / T`. `grads` has a value for each row.
pub(super) fn differentiate(logits: &mut [f32], vocabulary: usize, targets: &[usize], grads: &[f32], temperature: f64) {
    let rows = logits.par_chunks_mut(vocabulary).zip(targets).zip(grads);
    rows.for_each(|((row, &target), &grad)| {
        let max = maximum(row);
        let mass = exponentiate(row, max, scale(temperature));
        let grad = f64::from(grad) / temperature;
        multiply(row, (-grad / mass) as f32);
        row[target] += grad as f32;
    });
}

fn scale(temperature: f64) -> f32 {
    (1.0 / temperature) as f32
}

/// Returns the largest value of a row; NaN if a value is NaN.
fn maximum(row: &[f32]) -> f32 {
    let (max, finite) = largest(row);
    if finite || !row.iter().any(|x| x.is_nan()) { max } else { f32::NAN }
}

/// Returns Σ e and Σ e · a for a = (x − max) · scale and e = exp(a).
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn mass_and_mean(row: &[f32], max: f32, scale: f32) -> (f64, f64) {
    let (mut total, mut weighted) = (0.0, 0.0);
    for block in row.chunks(BLOCK) {
        let (mut lanes, mut weighted_lanes) = ([0f32; LANES], [0f32; LANES]);
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let a = (chunk[lane] - max) * scale;
                let exp = exp_of_negative(a);
                lanes[lane] += exp;
                weighted_lanes[lane] += exp * a;
            }
        }
        for x in rest {
            let a = (x - max) * scale;
            let exp = exp_of_negative(a);
            total += f64::from(exp);
            weighted += f64::from(exp * a);
        }
        total += sum(&lanes);
        weighted += sum(&weighted_lanes);
    }
    (mass_or_nan(total, max), weighted)
}

/// Replaces each x by exp((x − max) · scale) and returns the sum.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn exponentiate(row: &mut [f32], max: f32, scale: f32) -> f64 {
    let mut total = 0.0;
    for block in row.chunks_mut(BLOCK) {
        block.iter_mut().for_each(|x| *x = exp_of_negative((*x - max) * scale));
        total += sum(block);
    }
    mass_or_nan(total, max)
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn multiply(row: &mut [f32], by: f32) {
    row.iter_mut().for_each(|x| *x *= by);
}

/// [`exp_of_negative`] is 0 for NaN, and differences from ±∞ are infinite or NaN.
fn mass_or_nan(total: f64, max: f32) -> f64 {
    if max.is_finite() { total } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Softmax of a row in f64.
    fn exact(row: &[f32], temperature: f64) -> (Vec<f64>, f64, f64) {
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        let weights: Vec<f64> = row.iter().map(|x| (f64::from(*x - max) / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let entropy: f64 = weights.iter().map(|w| if *w == 0.0 { 0.0 } else { -(w / total) * (w / total).ln() }).sum();
        (weights.iter().map(|w| w / total).collect(), f64::from(max), entropy)
    }

    /// Rows of each kind: wide and narrow spreads, flat, one dominant logit, and logits of ±10⁴.
    fn rows(vocabulary: usize) -> Vec<Vec<f32>> {
        let noise = |i: usize, of: usize| ((i as f64 * 12.9898 + of as f64 * 78.233).sin() * 43_758.545).fract() as f32;
        let mut rows: Vec<Vec<f32>> = [0.01, 1.0, 5.0, 30.0, 1e4]
            .iter()
            .map(|spread| (0..vocabulary).map(|i| noise(i, *spread as usize) * spread).collect())
            .collect();
        rows.push(vec![-7.5; vocabulary]);
        for place in [0, vocabulary / 2, vocabulary - 1] {
            let mut row = rows[1].clone();
            row[place] = 40.0;
            rows.push(row);
        }
        rows.push((0..vocabulary).map(|i| if i % 2 == 0 { 1e4 } else { -1e4 }).collect());
        rows
    }

    #[test]
    fn scores_and_gradients_are_those_of_f64() {
        for vocabulary in [2, LANES + 1, 3 * BLOCK + 77, 8192] {
            for temperature in [1.0, 0.7, 3.0] {
                for (kind, row) in rows(vocabulary).iter().enumerate() {
                    let (p, max, entropy) = exact(row, temperature);
                    for target in [0, vocabulary / 3, vocabulary - 1] {
                        let what = format!("{vocabulary} {temperature} row {kind} token {target}");
                        let total: f64 = row.iter().map(|x| ((f64::from(*x) - max) / temperature).exp()).sum();
                        let logp = (f64::from(row[target]) - max) / temperature - total.ln();
                        let found = score(row, vocabulary, &[target], temperature)[0];
                        assert!(
                            (found.logp - logp).abs() <= 4e-7 * (1.0 + logp.abs()),
                            "{what}: {} {logp}",
                            found.logp
                        );
                        let slack = 2e-6 * (1.0 + entropy);
                        assert!((found.entropy - entropy).abs() <= slack, "{what}: {} {entropy}", found.entropy);

                        let mut gradient = row.clone();
                        differentiate(&mut gradient, vocabulary, &[target], &[-0.3], temperature);
                        for (i, found) in gradient.iter().enumerate() {
                            let own = if i == target { 1.0 } else { 0.0 };
                            let wanted = (own - p[i]) * -0.3 / temperature;
                            // An exponent a is rounded by a · 2⁻²⁴ twice, so exp(a) is wrong by that much of itself.
                            let slack = 0.3 / temperature * (1e-7 * own + p[i] * 2e-5) + 1e-37;
                            assert!((f64::from(*found) - wanted).abs() <= slack, "{what} at {i}: {found} {wanted}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn each_of_thousands_of_rows_has_its_own_target_and_gradient() {
        let (vocabulary, count) = (37, 3000);
        let logits: Vec<f32> = (0..vocabulary * count).map(|i| ((i * 7919) % 1009) as f32 / 100.0).collect();
        let targets: Vec<usize> = (0..count).map(|n| (n * 31) % vocabulary).collect();
        let grads: Vec<f32> = (0..count).map(|n| (n % 13) as f32 - 6.0).collect();
        let scores = score(&logits, vocabulary, &targets, 0.9);
        let mut gradient = logits.clone();
        differentiate(&mut gradient, vocabulary, &targets, &grads, 0.9);
        for (n, row) in logits.chunks(vocabulary).enumerate() {
            let (p, ..) = exact(row, 0.9);
            assert!((scores[n].logp - p[targets[n]].ln()).abs() < 1e-5);
            for (i, p) in p.iter().enumerate() {
                let own = if i == targets[n] { 1.0 } else { 0.0 };
                let wanted = (own - p) * f64::from(grads[n]) / 0.9;
                assert!((f64::from(gradient[n * vocabulary + i]) - wanted).abs() < 2e-6);
            }
        }
    }

    #[test]
    fn a_logit_of_minus_infinity_has_no_share_and_one_that_is_no_number_spoils_its_row() {
        let row = [1.0, f32::NEG_INFINITY, 1.0];
        let found = score(&row, 3, &[0], 1.0)[0].logp;
        assert!((found + 2f64.ln()).abs() < 1e-7);
        assert_eq!(score(&row, 3, &[1], 1.0)[0].logp, f64::NEG_INFINITY);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut rows = [0.0, bad, 1.0, 0.0, 0.5, 1.0];
            let scores = score(&rows, 3, &[0, 0], 1.0);
            assert!(scores[0].logp.is_nan() && scores[0].entropy.is_nan() && scores[1].logp.is_finite());
            differentiate(&mut rows, 3, &[0, 0], &[1.0, 1.0], 1.0);
            assert!(rows[..3].iter().all(|x| x.is_nan()) && rows[3..].iter().all(|x| x.is_finite()));
        }
    }
}
