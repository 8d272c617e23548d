//! Names, shapes and order of values in checkpoints.
//!
//! Published checkpoints have the names `visual.*`, `model.*` and `lm_head.weight`. Newer tools write `model.visual.*`
//! and `model.language_model.*`.

/// Returns the name of a parameter in the newer layout, given its published name.
pub fn new_layout(published: &str) -> String {
    match published.split_once('.') {
        Some(("visual", _)) => format!("model.{published}"),
        Some(("model", rest)) => format!("model.language_model.{rest}"),
        _ => published.into(),
    }
}

/// Returns the published name of a parameter, given its name in either layout.
pub fn published_layout(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("model.language_model.") {
        format!("model.{rest}")
    } else if let Some(rest) = name.strip_prefix("model.visual.") {
        format!("visual.{rest}")
    } else {
        name.into()
    }
}

/// Returns the shape in checkpoints of a parameter whose shape in the model is `shape`.
pub(crate) fn stored_shape(published: &str, linear: bool, shape: &[usize], patch: [usize; 4]) -> Vec<usize> {
    match shape {
        [_, out] if published == "visual.patch_embed.proj.weight" => [&[*out], patch.as_slice()].concat(),
        [from, to] if linear => vec![*to, *from],
        _ => shape.to_vec(),
    }
}

/// Transposes a row-major `[rows, columns]`, in blocks that stay in the CPU cache.
pub(crate) fn transpose<T: Copy + Default>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    const BLOCK: usize = 32;
    let mut out = vec![T::default(); values.len()];
    for top in (0..rows).step_by(BLOCK) {
        for left in (0..columns).step_by(BLOCK) {
            for r in top..(top + BLOCK).min(rows) {
                for c in left..(left + BLOCK).min(columns) {
                    out[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_map_to_each_other() {
        for (old, new) in [
            ("visual.merger.mlp.0.weight", "model.visual.merger.mlp.0.weight"),
            ("model.layers.1.mlp.up_proj.weight", "model.language_model.layers.1.mlp.up_proj.weight"),
            ("lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(new_layout(old), new);
            assert_eq!(published_layout(new), old);
            assert_eq!(published_layout(old), old);
        }
    }
}
