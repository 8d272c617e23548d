//! The keys of an adapter's tensors: which module a tensor belongs to, and what it is there.
//!
//! PEFT saves keys without the adapter's name (`lora_A.weight`). Other tools leave it in (`lora_A.default.weight`), and
//! both are read.

/// Before the name of every module in the keys of a `PeftModel`.
pub(super) const PREFIX: &str = "base_model.model.";

/// What a tensor is to its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// `lora_A` of a linear layer or a convolution, `[rank, in]`.
    A,
    /// `lora_B`, `[out, rank]`.
    B,
    /// `lora_embedding_A` of an embedding, `[rank, vocab]`.
    EmbeddingA,
    /// `lora_embedding_B`, `[width, rank]`.
    EmbeddingB,
    /// Bias of `lora_B`, `[out]`.
    Bias,
    /// `lora_magnitude_vector` of DoRA, `[out]`.
    Magnitude,
    /// New rows of an embedding, `[tokens, width]`.
    Tokens,
}

/// The meaning of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// A part of an adapter of this module.
    Part(String, Role),
    /// A whole parameter that replaces the base's. The names that it may have, the likeliest first.
    Whole(Vec<String>),
}

impl Key {
    /// Reads a key.
    pub(super) fn of(key: &str) -> Self {
        let parts: Vec<&str> = key.strip_prefix(PREFIX).unwrap_or(key).split('.').collect();
        // The last marker counts: a module may be called like one.
        let found = (1..parts.len()).rev().find_map(|i| {
            let (module, rest) = (&parts[..i], &parts[i + 1..]);
            let join = |names: &[&str]| names.join(".");
            let part = |role| Some(Self::Part(join(module), role));
            match (parts[i], rest) {
                ("lora_A", ["weight"] | [_, "weight"]) => part(Role::A),
                ("lora_B", ["weight"] | [_, "weight"]) => part(Role::B),
                ("lora_B", ["bias"] | [_, "bias"]) => part(Role::Bias),
                ("lora_embedding_A", [] | [_]) => part(Role::EmbeddingA),
                ("lora_embedding_B", [] | [_]) => part(Role::EmbeddingB),
                ("lora_magnitude_vector", [] | [_] | [_, "weight"]) => part(Role::Magnitude),
                ("token_adapter", ["trainable_tokens_delta"] | ["trainable_tokens_delta", _]) => part(Role::Tokens),
                ("base_layer", [_, ..]) => Some(Self::Whole(vec![join(&[module, rest].concat())])),
                ("modules_to_save", [_]) => Some(Self::Whole(vec![join(&[module, rest].concat())])),
                ("modules_to_save", [_, inner @ ..]) => {
                    Some(Self::Whole(vec![join(&[module, inner].concat()), join(&[module, rest].concat())]))
                }
                _ => None,
            }
        });
        found.unwrap_or_else(|| Self::Whole(vec![parts.join(".")]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_and_without_the_name_of_the_adapter() {
        let q = "model.layers.0.self_attn.q_proj";
        for (end, role) in [
            ("lora_A.weight", Role::A),
            ("lora_A.default.weight", Role::A),
            ("lora_B.other.weight", Role::B),
            ("lora_B.bias", Role::Bias),
            ("lora_embedding_A", Role::EmbeddingA),
            ("lora_embedding_B.default", Role::EmbeddingB),
            ("lora_magnitude_vector", Role::Magnitude),
            ("lora_magnitude_vector.default.weight", Role::Magnitude),
            ("token_adapter.trainable_tokens_delta", Role::Tokens),
        ] {
            let part = Key::Part(q.into(), role);
            assert_eq!(Key::of(&format!("base_model.model.{q}.{end}")), part);
            assert_eq!(Key::of(&format!("{q}.{end}")), part);
        }
        let whole = |key: &str, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(Key::of(&format!("{PREFIX}{key}")), Key::Whole(names));
        };
        whole("lm_head.weight", &["lm_head.weight"]);
        whole("lm_head.modules_to_save.weight", &["lm_head.weight"]);
        whole("lm_head.modules_to_save.default.weight", &["lm_head.weight", "lm_head.default.weight"]);
        whole("visual.merger.modules_to_save.mlp.0.bias", &["visual.merger.0.bias", "visual.merger.mlp.0.bias"]);
        whole("model.embed_tokens.base_layer.weight", &["model.embed_tokens.weight"]);
        // Not of LoRA: the name of no parameter.
        whole("model.layers.0.q_proj.lora_diag.default", &["model.layers.0.q_proj.lora_diag.default"]);
        whole("model.layers.0.q_proj.lora_A.a.b.weight", &["model.layers.0.q_proj.lora_A.a.b.weight"]);
    }
}
