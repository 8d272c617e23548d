//! Rotary position embedding, shared by the encoder and the decoder.
//!
//! Reference: `apply_rotary_pos_emb_vision` and `apply_multimodal_rotary_pos_emb`. Both rotate the pair
//! `(x[i], x[i + half])`, so only half of each row of cosines and sines is kept.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// Cosines and sines for a batch of positions, `[batch, 1, seq, head_dim / 2]` each, in f32 until [`Self::cast`].
#[derive(Debug, Clone)]
pub struct Rotary {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotary {
    /// Computes cosines and sines of angles in radians, a flattened `[batch, seq, half]`.
    pub fn from_angles(angles: &[f32], [batch, seq, half]: [usize; 3], device: &Device) -> Self {
        let tensor = |f: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().map(|&angle| f(angle)).collect();
            Tensor::from_data(TensorData::new(values, [batch, 1, seq, half]), device)
        };
        Self { cos: tensor(f32::cos), sin: tensor(f32::sin) }
    }

    /// Casts to the type of the activations, as the reference does in the decoder.
    pub fn cast(self, dtype: DType) -> Self {
        Self { cos: self.cos.cast(dtype), sin: self.sin.cast(dtype) }
    }

    /// Rotates `x`, `[batch, heads, seq, head_dim]`.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        let rotated_first = first.clone() * self.cos.clone() - second.clone() * self.sin.clone();
        let rotated_second = second * self.cos.clone() + first * self.sin.clone();
        Tensor::cat(vec![rotated_first, rotated_second], 3)
    }
}

/// Returns the frequencies theta^(-2i/dim) for i in 0..dim/2, computed in f32 like the reference.
pub fn inverse_frequencies(dim: usize, theta: f64) -> Vec<f32> {
    (0..dim / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / dim as f32)).collect()
}
