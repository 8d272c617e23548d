//! Recognises quantised weights by the types and names of their tensors.

use safetensors::Dtype;

use super::checkpoint::Tensors;
use crate::error::ModelError;

/// The endings of names that only quantised weights have, and who writes them.
const ENDINGS: [(&str, &str); 9] = [
    (".qweight", "GPTQ or AWQ"),
    (".qzeros", "GPTQ or AWQ"),
    (".g_idx", "GPTQ"),
    (".absmax", "bitsandbytes"),
    (".quant_map", "bitsandbytes"),
    (".SCB", "bitsandbytes"),
    (".weight_packed", "compressed-tensors"),
    (".weight_scale_inv", "FP8"),
    (".weight_scale", "FP8 or INT8"),
];

/// Refuses the first tensor that shows that the weights are quantised.
///
/// # Errors
/// Returns [`ModelError::Quantised`].
pub(super) fn refuse_quantised(tensors: &Tensors<'_>) -> Result<(), ModelError> {
    let by_name = |name: &str| {
        let bitsandbytes = name.contains(".quant_state.").then_some("bitsandbytes");
        bitsandbytes.or_else(|| ENDINGS.iter().find(|(end, _)| name.ends_with(end)).map(|(_, method)| *method))
    };
    let is_float = |dtype| matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64);
    let mut integers = None;
    for (name, path, view) in tensors.values() {
        let found = |method| ModelError::Quantised {
            path: (*path).into(),
            method,
            name: name.clone(),
            dtype: format!("{:?}", view.dtype()),
        };
        if let Some(method) = by_name(name) {
            return Err(found(method));
        }
        // A tensor that is no weight, such as a list of positions, may hold integers in any checkpoint.
        if !is_float(view.dtype()) && name.ends_with(".weight") && integers.is_none() {
            integers = Some(found(match view.dtype() {
                Dtype::U8 => "bitsandbytes, 4 bits",
                Dtype::I8 => "8 bits",
                Dtype::F8_E4M3 | Dtype::F8_E5M2 => "FP8",
                _ => "packed integers",
            }));
        }
    }
    integers.map_or(Ok(()), Err)
}
