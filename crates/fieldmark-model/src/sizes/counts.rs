//! Numbers of parameters, computed from a configuration.

use crate::{
    config::Qwen25VlConfig,
    lora::LoraSettings,
    parts::{ModelPart, TrainableParts},
};

/// Numbers of parameters in each part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterCounts {
    /// Parameters of patch embedding and blocks of the vision encoder.
    pub vision: u64,
    /// Parameters of the merger.
    pub projector: u64,
    /// Parameters of embedding, blocks, norm, and head unless it is tied.
    pub decoder: u64,
    /// Parameters of the embedding, the largest matrix of the model.
    pub embedding: u64,
}

impl ParameterCounts {
    /// Returns the number of parameters of the whole model.
    pub fn total(&self) -> u64 {
        self.vision + self.projector + self.decoder
    }
}

impl Qwen25VlConfig {
    /// Returns the numbers of parameters of the model.
    pub fn parameter_counts(&self) -> ParameterCounts {
        let (text, vision) = (&self.text, &self.vision);
        let number = |count: usize| count as u64;
        let linear = |from: usize, to: usize, bias: bool| number(from) * number(to) + if bias { number(to) } else { 0 };
        let mlp = |width, inner, bias| 2 * linear(width, inner, bias) + linear(inner, width, bias);

        let (width, shared) = (text.hidden_size, text.num_key_value_heads * text.head_dim());
        let attention = linear(width, width, true) + 2 * linear(width, shared, true) + linear(width, width, false);
        let block = attention + mlp(width, text.intermediate_size, false) + 2 * number(width);
        let embedding = number(text.vocab_size) * number(width);
        let head = if self.tie_word_embeddings { 0 } else { embedding };

        let patch = vision.hidden_size;
        let attended = linear(patch, 3 * patch, true) + linear(patch, patch, true);
        let encoder = attended + mlp(patch, vision.intermediate_size, true) + 2 * number(patch);
        let joined = patch * vision.merge_unit();
        ParameterCounts {
            vision: linear(vision.patch_len(), patch, false) + number(vision.depth) * encoder,
            projector: number(patch) + linear(joined, joined, true) + linear(joined, vision.out_hidden_size, true),
            decoder: embedding + number(text.num_hidden_layers) * block + number(width) + head,
            embedding,
        }
    }
}

/// Numbers of parameters of adapters and of the weights under them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AdapterCounts {
    /// Parameters of the adapters.
    pub adapters: u64,
    /// Parameters of the weights under the adapters, which may be quantised.
    pub adapted: u64,
}

impl Qwen25VlConfig {
    /// Returns the numbers of parameters with the adapters of `lora` in the trained `parts`.
    pub fn adapter_counts(&self, lora: &LoraSettings, parts: TrainableParts) -> AdapterCounts {
        let (text, vision) = (&self.text, &self.vision);
        let mlp = |width, inner| [("gate_proj", width, inner), ("up_proj", width, inner), ("down_proj", inner, width)];
        let (width, patch) = (text.hidden_size, vision.hidden_size);
        let heads = |count| count * text.head_dim();
        let joined = patch * vision.merge_unit();
        let decoder = [
            ("q_proj", width, heads(text.num_attention_heads)),
            ("k_proj", width, heads(text.num_key_value_heads)),
            ("v_proj", width, heads(text.num_key_value_heads)),
            ("o_proj", width, width),
        ];
        let stacks = [
            (ModelPart::Vision, vision.depth, "attn", &[("qkv", patch, 3 * patch), ("proj", patch, patch)][..]),
            (ModelPart::Vision, vision.depth, "mlp", &mlp(patch, vision.intermediate_size)),
            (ModelPart::Projector, 1, "mlp", &[("0", joined, joined), ("2", joined, vision.out_hidden_size)]),
            (ModelPart::Decoder, text.num_hidden_layers, "self_attn", &decoder),
            (ModelPart::Decoder, text.num_hidden_layers, "mlp", &mlp(width, text.intermediate_size)),
        ];
        let mut counts = AdapterCounts::default();
        for (part, blocks, module, layers) in stacks {
            for (name, from, to) in layers.iter().filter(|_| parts.has(part)) {
                // The end of the name is enough to choose adapters, so block numbers are left out.
                if lora.is_on() && lora.names(&format!("{module}.{name}")) {
                    counts.adapters += (blocks * lora.rank * (from + to)) as u64;
                    counts.adapted += (blocks * from * to) as u64;
                }
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{TextConfig, VisionConfig, VisionTokens},
        vision::VisionEncoder,
    };
    use burn::{module::Module, tensor::Device};

    #[test]
    fn counts_are_those_of_the_network_made() {
        for tied in [false, true] {
            let config = Qwen25VlConfig {
                text: TextConfig::new(50, 24, 20, 3, 3, 1, [2, 1, 1]),
                vision: VisionConfig::new(2, 8, 12, 2, 24, 56, vec![1]),
                vision_tokens: VisionTokens { image: 1, video: 2, start: 3, end: 4 },
                tie_word_embeddings: tied,
                bos_token_id: None,
                eos_token_ids: Vec::new(),
            };
            let model = config.init(&Device::default());
            let counts = config.parameter_counts();
            let of = |encoder: &VisionEncoder| encoder.num_params() as u64;
            assert_eq!(counts.total(), model.num_params() as u64);
            assert_eq!(counts.vision + counts.projector, of(&model.visual));
            assert_eq!(counts.projector, model.visual.merger.num_params() as u64);
            assert_eq!(counts.embedding, model.model.embed_tokens.num_params() as u64);
        }
    }

    #[test]
    fn adapters_are_those_of_the_network_made() {
        let config = Qwen25VlConfig::new(
            TextConfig::new(50, 24, 20, 3, 3, 1, [2, 1, 1]),
            VisionConfig::new(2, 8, 12, 2, 24, 56, vec![1]),
            VisionTokens { image: 1, video: 2, start: 3, end: 4 },
            true,
        );
        let learns = |vision, projector, decoder| TrainableParts { vision, projector, decoder };
        for targets in [&[][..], &["down_proj"], &["mlp.0", "self_attn.q_proj", "qkv"]] {
            let targets: Vec<String> = targets.iter().map(|target| (*target).into()).collect();
            let lora = LoraSettings { rank: 5, targets, ..LoraSettings::default() };
            for parts in [learns(true, true, true), learns(true, true, false), learns(false, false, true)] {
                let base = config.init(&Device::default());
                let Ok(model) = base.clone().with_lora(&lora, parts) else { continue };
                let counts = config.adapter_counts(&lora, parts);
                assert_eq!(counts.adapters, (model.num_params() - base.num_params()) as u64, "{lora:?} {parts:?}");
                assert!(counts.adapted > 0);
            }
        }
        let off = config.adapter_counts(&LoraSettings::default(), learns(true, true, true));
        assert_eq!(off, AdapterCounts::default());
    }

    #[test]
    fn the_published_sizes_are_those_of_their_model_cards() {
        // 3.75 and 8.29 billion, the sizes of the published weight files by their indexes, in bf16.
        let vision = |out| VisionConfig::new(32, 1280, 3420, 16, out, 112, vec![7, 15, 23, 31]);
        let tokens = VisionTokens { image: 151_655, video: 151_656, start: 151_652, end: 151_653 };
        let small = TextConfig::new(151_936, 2048, 11_008, 36, 16, 2, [16, 24, 24]);
        let large = TextConfig::new(152_064, 3584, 18_944, 28, 28, 4, [16, 24, 24]);
        for (text, tied, bytes) in [(small, true, 7_509_245_952), (large, false, 16_584_333_312_u64)] {
            let config = Qwen25VlConfig::new(text.clone(), vision(text.hidden_size), tokens, tied);
            assert_eq!(2 * config.parameter_counts().total(), bytes);
        }
    }
}
