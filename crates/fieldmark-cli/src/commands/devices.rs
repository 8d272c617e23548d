//! `fieldmark devices`: the devices of this build, their number formats, and whether they compute correctly.
//!
//! The check multiplies two matrices, runs attention over a short sequence, and compares both with plain loops in f64.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use comfy_table::{Table, presets};
use fieldmark::{
    device::{self, DeviceKind, OpenDevice, attempt},
    model::attention::{AttentionMask, attend},
    stream::RandomStream,
};

use super::{Outcome, say};

/// Largest difference that counts as correct, for f32 values around 1.
const TOLERANCE: f64 = 1e-3;

/// Lists and tries every device of this build.
///
/// # Errors
/// Returns an error if standard output is closed.
pub fn run() -> anyhow::Result<Outcome> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["device", "f32", "f16", "bf16", "matmul", "attention"]);
    let mut correct = true;
    for kind in DeviceKind::ALL {
        if !kind.is_compiled() {
            let hint = format!("not in this build; to add it: cargo build --release --features {}", kind.name());
            table.add_row([kind.name(), &hint]);
            continue;
        }
        match device::open(kind.name()) {
            Err(error) => {
                correct = false;
                table.add_row([kind.name().to_owned(), error.to_string()]);
            }
            Ok(OpenDevice { name, device, .. }) => {
                let supports = |dtype| if device.supports_dtype(dtype) { "yes" } else { "no" };
                let formats = [FloatDType::F32, FloatDType::F16, FloatDType::BF16].map(supports);
                let checks = [verdict(&device, matmul_error), verdict(&device, attention_error)];
                correct &= checks.iter().all(|(ok, _)| *ok);
                let checks = checks.map(|(_, text)| text);
                table.add_row([name].into_iter().chain(formats.map(str::to_owned)).chain(checks));
            }
        }
    }
    say(&format!(
        "{}\nmatmul, attention: largest difference between f32 on the device and plain loops on the CPU",
        table.trim_fmt()
    ))?;
    Ok(if correct { Outcome::Done } else { Outcome::Failed })
}

fn verdict(device: &Device, check: fn(&Device) -> f64) -> (bool, String) {
    let device = device.clone();
    match attempt(move || check(&device)) {
        Ok(error) if error <= TOLERANCE => (true, format!("right ({error:.0e})")),
        Ok(error) => (false, format!("WRONG ({error:.0e})")),
        Err(reason) => (false, format!("FAILED ({reason})")),
    }
}

fn numbers(name: &str, count: usize) -> Vec<f32> {
    let mut stream = RandomStream::new(0, &["devices", name]);
    (0..count).map(|_| stream.uniform_in(-1.0, 1.0) as f32).collect()
}

fn largest_difference(found: &[f32], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let differences = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    // `max` would hide a NaN.
    differences.fold(0.0, |largest, d| if d.is_nan() { f64::INFINITY } else { d.max(largest) })
}

/// The error of a product whose sizes are not multiples of a tile.
fn matmul_error(device: &Device) -> f64 {
    let (rows, inner, columns) = (37, 53, 29);
    let (a, b) = (numbers("a", rows * inner), numbers("b", inner * columns));
    let on_device =
        |values: &[f32], shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), device);
    let product = on_device(&a, [rows, inner]).matmul(on_device(&b, [inner, columns]));
    let found: Vec<f32> = product.into_data().iter::<f32>().collect();
    let mut expected = vec![0.0; rows * columns];
    for r in 0..rows {
        for c in 0..columns {
            expected[r * columns + c] =
                (0..inner).map(|i| f64::from(a[r * inner + i]) * f64::from(b[i * columns + c])).sum();
        }
    }
    largest_difference(&found, &expected)
}

/// The error of causal attention with two query heads for each key head.
fn attention_error(device: &Device) -> f64 {
    let (heads, kv_heads, seq, dim) = (4, 2, 19, 16);
    let [q, k, v] = [("q", heads), ("k", kv_heads), ("v", kv_heads)].map(|(name, h)| numbers(name, h * seq * dim));
    let on_device = |values: &[f32], heads: usize| {
        Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, heads, seq, dim]), device)
    };
    let rows: [std::ops::Range<usize>; 1] = std::array::from_fn(|_| 0..seq);
    let mask = AttentionMask::causal(seq, 0, &rows, device);
    let out = attend(on_device(&q, heads), on_device(&k, kv_heads), on_device(&v, kv_heads), &mask);
    let found: Vec<f32> = out.into_data().iter::<f32>().collect();
    let mut expected = vec![0.0; heads * seq * dim];
    for head in 0..heads {
        let kv = head / (heads / kv_heads);
        let at = |values: &[f32], head: usize, t: usize, d: usize| f64::from(values[(head * seq + t) * dim + d]);
        for t in 0..seq {
            let score = |s: usize| (0..dim).map(|d| at(&q, head, t, d) * at(&k, kv, s, d)).sum::<f64>();
            let weights: Vec<f64> = (0..=t).map(|s| (score(s) / (dim as f64).sqrt()).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..dim {
                expected[(head * seq + t) * dim + d] =
                    weights.iter().enumerate().map(|(s, w)| w * at(&v, kv, s, d)).sum::<f64>() / total;
            }
        }
    }
    largest_difference(&found, &expected)
}
