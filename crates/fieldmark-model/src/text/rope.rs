//! M-RoPE: each rotary frequency of the decoder follows the position in time, height or width.
//!
//! Reference: `Qwen2_5_VLRotaryEmbedding` and `apply_multimodal_rotary_pos_emb`. The first `mrope_section[0]`
//! frequencies (the fastest) use the time row of the positions, the next the height row, the last the width row.

use burn::tensor::{DType, Device, Int, Tensor};

use crate::{
    attention::rotary::{Rotary, inverse_frequencies},
    config::TextConfig,
};

/// Returns the rotary embedding of `position_ids`, `[3, batch, seq]`, computed in f32 and cast to `dtype`.
pub fn text_rotary(position_ids: Tensor<3, Int>, config: &TextConfig, dtype: DType, device: &Device) -> Rotary {
    let [_, batch, seq] = position_ids.dims();
    let positions: Vec<i64> = position_ids.into_data().iter::<i64>().collect();
    let frequencies = inverse_frequencies(config.head_dim(), config.rope_theta);
    let axes: Vec<usize> =
        config.mrope_section.iter().enumerate().flat_map(|(axis, &count)| std::iter::repeat_n(axis, count)).collect();
    let mut angles = Vec::with_capacity(batch * seq * frequencies.len());
    for place in 0..batch * seq {
        angles.extend(
            axes.iter()
                .zip(&frequencies)
                .map(|(axis, frequency)| positions[axis * batch * seq + place] as f32 * frequency),
        );
    }
    Rotary::from_angles(&angles, [batch, seq, frequencies.len()], device).cast(dtype)
}
