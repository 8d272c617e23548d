//! Bicubic resizing of RGB bytes, bit for bit as Pillow's `Image.resize(size, Image.BICUBIC)`.
//!
//! Reference: `Resample.c` of Pillow 13 (two passes in an order that depends on the sizes, 22-bit fixed-point weights).
//! This is our own code because `fast_image_resize` follows Pillow-SIMD, whose weights have 16 bits and whose passes
//! have a fixed order.

use super::sizes::Size;

/// Fraction bits of a weight: 32 minus 8 for the value and 2 for sums that overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Reach of the cubic at scale 1, in pixels.
const SUPPORT: f64 = 2.0;

/// The input pixels that make one output pixel along an axis, and their weights.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

/// Resizes `rgb`, `[from.height, from.width, 3]`, to `[to.height, to.width, 3]`. No side may be 0.
pub(super) fn bicubic(rgb: &[u8], from: Size, to: Size) -> Vec<u8> {
    let shrinks_by = |from: usize, to: usize| from as i64 - to as i64;
    let lost_rows = shrinks_by(from.height, to.height);
    let rows_first = lost_rows > 0 && lost_rows > 2 * shrinks_by(from.width, to.width);
    if rows_first {
        let rgb = down(rgb, from.width * 3, &windows(from.height, to.height));
        return match from.width == to.width {
            true => rgb,
            false => across(&rgb, from.width, &windows(from.width, to.width)),
        };
    }
    let wide = (from.width != to.width).then(|| across(rgb, from.width, &windows(from.width, to.width)));
    match from.height == to.height {
        true => wide.unwrap_or_else(|| rgb.to_vec()),
        false => down(wide.as_deref().unwrap_or(rgb), to.width * 3, &windows(from.height, to.height)),
    }
}

/// Keys' cubic with a = −½ (`bicubic_filter`).
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// `precompute_coeffs` and `normalize_coeffs_8bpc`: the order of operations decides the last bit.
fn windows(from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = SUPPORT * stretch;
    let inverse = 1.0 / stretch;
    (0..to)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let start = ((center - support + 0.5) as i64).max(0);
            let end = ((center + support + 0.5) as i64).min(from as i64);
            let raw: Vec<f64> = (start..end).map(|x| cubic((x as f64 - center + 0.5) * inverse)).collect();
            let sum: f64 = raw.iter().sum();
            let weights = raw.iter().map(|w| {
                let fixed = if sum != 0.0 { w / sum } else { *w } * f64::from(1u32 << PRECISION_BITS);
                (fixed + if fixed < 0.0 { -0.5 } else { 0.5 }) as i32
            });
            Window { start: start as usize, weights: weights.collect() }
        })
        .collect()
}

fn across(rgb: &[u8], width: usize, windows: &[Window]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rgb.len() / width * windows.len());
    for row in rgb.chunks_exact(width * 3) {
        for window in windows {
            let mut sums = [1i32 << (PRECISION_BITS - 1); 3];
            for (pixel, weight) in row[window.start * 3..].chunks_exact(3).zip(&window.weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            out.extend(sums.map(level));
        }
    }
    out
}

fn down(rgb: &[u8], row_len: usize, windows: &[Window]) -> Vec<u8> {
    let mut out = Vec::with_capacity(windows.len() * row_len);
    let mut sums = vec![0i32; row_len];
    for window in windows {
        sums.fill(1 << (PRECISION_BITS - 1));
        for (row, weight) in rgb[window.start * row_len..].chunks_exact(row_len).zip(&window.weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| level(sum)));
    }
    out
}

fn level(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_pillows_whichever_pass_goes_first() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/decode/expected.safetensors");
        let bytes = std::fs::read(file).unwrap();
        let expected = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let size = |shape: &[usize]| Size::new(shape[0], shape[1]);
        let source = expected.tensor("resize.source").unwrap();
        let mut compared = 0;
        for (name, resized) in expected.iter().filter(|(name, _)| name.starts_with("resize.")) {
            let ours = bicubic(source.data(), size(source.shape()), size(resized.shape()));
            assert!(ours == resized.data(), "{name}");
            compared += 1;
        }
        assert_eq!(compared, 10);
    }
}
