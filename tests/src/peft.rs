//! Adapters in PEFT's format, written by hand, and what they make of a matrix in plain loops.

use std::{fs, path::Path};

use fieldmark::stream::StreamKey;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;

/// A tensor of an adapter: key, shape and values.
pub type Entry = (String, Vec<usize>, Vec<f32>);

/// Returns numbers between -1 and 1, the same for the same seed.
pub fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut stream = StreamKey::new(seed).word("peft").stream();
    (0..count).map(|_| (stream.uniform() * 2.0 - 1.0) as f32).collect()
}

/// Returns a tensor with numbers that depend on its key.
pub fn entry(key: &str, shape: &[usize]) -> Entry {
    let seed = key.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    (format!("base_model.model.{key}"), shape.to_vec(), numbers(seed, shape.iter().product()))
}

/// Returns the names of the layers that have factors among the tensors.
pub fn layers(entries: &[Entry]) -> Vec<String> {
    let keys = entries.iter().map(|(key, ..)| key.trim_start_matches("base_model.model."));
    let mut names: Vec<String> =
        keys.filter_map(|key| key.split_once(".lora_")).map(|(name, _)| name.to_owned()).collect();
    names.dedup();
    names
}

/// Writes `adapter_config.json` and `adapter_model.safetensors` in f32.
pub fn write(folder: &Path, config: &Value, entries: &[Entry]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    let bytes: Vec<Vec<u8>> =
        entries.iter().map(|(_, _, values)| values.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = entries
        .iter()
        .zip(&bytes)
        .map(|((key, shape, _), bytes)| (key.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    fs::write(folder.join("adapter_model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Returns W + scale·B·A, `[out, in]`, added up in f64. B is `[out, rank]`, A is `[rank, in]`.
pub fn merged(w: &[f32], b: &[f32], a: &[f32], rank: usize, scale: f64) -> Vec<f32> {
    let (rows, columns) = (b.len() / rank, a.len() / rank);
    assert_eq!(w.len(), rows * columns);
    let mut out = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            let mut sum = 0.0;
            for k in 0..rank {
                sum += f64::from(b[row * rank + k]) * f64::from(a[k * columns + column]);
            }
            out.push((f64::from(w[row * columns + column]) + scale * sum) as f32);
        }
    }
    out
}
