//! Floating-point operations of a Qwen2.5-VL network, computed from its sizes: 2mnk for each product of m×k by k×n.
//!
//! Nothing else counts: no padding, no keys that a causal query may not see (some count the full square), no
//! recomputation in a backward pass. This is the numerator of model FLOPs utilisation (MFU; PaLM, arXiv 2204.02311,
//! appendix B).

use std::ops::{Add, AddAssign};

use crate::{
    config::Qwen25VlConfig,
    grid::GridThw,
    model::Qwen25Vl,
    parts::{ModelPart, TrainableParts},
    vision::WindowPlan,
};

/// Operations of one part of a network in a forward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PartFlops {
    /// Products of activations with weights.
    pub linear: f64,
    /// Products of activations with activations: queries with keys, and probabilities with values.
    pub attention: f64,
    /// Products of activations with the factors of adapters.
    pub adapters: f64,
}

/// Operations of a forward pass. Values can be added to count several passes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Flops {
    /// Patch embedding and blocks of the vision encoder.
    pub vision: PartFlops,
    /// The merger.
    pub projector: PartFlops,
    /// Blocks of the decoder and the head.
    pub decoder: PartFlops,
}

impl Flops {
    /// Returns the operations of the forward pass.
    pub fn forward(&self) -> f64 {
        [self.vision, self.projector, self.decoder]
            .iter()
            .map(|part| part.linear + part.attention + part.adapters)
            .sum()
    }

    /// Returns the operations of a forward and a backward pass that trains `parts`, or the adapters in them if there
    /// are any.
    ///
    /// In the backward pass, a product costs its forward operations once for each factor that has a gradient. Weights
    /// have one if their part is trained; activations have one if their part or an earlier part is trained. The
    /// gradient of the pixels counts too, although it is not needed, so a trained part costs 2× forward, as is
    /// customary.
    pub fn training(&self, parts: TrainableParts) -> f64 {
        let stages = [(self.vision, parts.vision), (self.projector, parts.projector), (self.decoder, parts.decoder)];
        let adapted = stages.iter().any(|(part, _)| part.adapters > 0.0);
        let mut before = false;
        let backward = stages.into_iter().map(|(part, trained)| {
            before |= if adapted { part.adapters > 0.0 } else { trained };
            let [weights, activations] = [trained && !adapted, before].map(|has| f64::from(u8::from(has)));
            part.linear * (weights + activations) + 2.0 * part.attention * activations + 2.0 * part.adapters
        });
        self.forward() + backward.sum::<f64>()
    }
}

/// Numbers of parameters of a model's adapters. Each parameter takes part in one product for every patch or token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AdapterSizes {
    /// Parameters in the vision encoder, applied to each patch.
    pub vision: usize,
    /// Parameters in the projector, applied to each token of an image.
    pub projector: usize,
    /// Parameters in the decoder, applied to each token.
    pub decoder: usize,
}

impl AdapterSizes {
    /// Returns the operations of the adapters in encoder and projector for one image of `tokens` tokens.
    pub fn image_flops(&self, grid: GridThw, tokens: usize) -> Flops {
        let [vision, projector] = [self.vision * grid.patches(), self.projector * tokens].map(adapter_products);
        Flops { vision, projector, ..Flops::default() }
    }

    /// Returns the operations of the decoder's adapters for `tokens` tokens.
    pub fn decoder_flops(&self, tokens: usize) -> Flops {
        Flops { decoder: adapter_products(self.decoder * tokens), ..Flops::default() }
    }
}

fn adapter_products(products: usize) -> PartFlops {
    PartFlops { adapters: 2.0 * products as f64, ..PartFlops::default() }
}

impl Qwen25Vl {
    /// Returns the sizes of the model's adapters.
    pub fn adapter_sizes(&self) -> AdapterSizes {
        let mut sizes = AdapterSizes::default();
        for parameter in self.named_parameters().iter().filter(|parameter| parameter.adapter) {
            let size = match ModelPart::of(&parameter.name) {
                ModelPart::Vision => &mut sizes.vision,
                ModelPart::Projector => &mut sizes.projector,
                ModelPart::Decoder => &mut sizes.decoder,
            };
            *size += parameter.shape.iter().product::<usize>();
        }
        sizes
    }
}

impl Qwen25VlConfig {
    /// Returns the operations of vision encoder and projector for one image.
    pub fn image_flops(&self, grid: GridThw) -> Flops {
        let config = &self.vision;
        let (patches, tokens) = (grid.patches() as f64, grid.tokens(config.spatial_merge_size) as f64);
        let (width, inner) = (config.hidden_size as f64, config.intermediate_size as f64);
        // Query, key, value and output projections; gate, up and down.
        let linear = 2.0 * patches * width * (4.0 * width + 3.0 * inner);
        // Scores, and their products with the values: each is quadratic in the length of a window or frame.
        let within = |lengths: f64| 4.0 * width * lengths;
        let frame = patches / grid.t as f64;
        let plan = WindowPlan::new(&[grid], config);
        let windows: usize =
            plan.runs.iter().flat_map(|run| &run.windows).map(|group| group.count * group.len * group.len).sum();
        let (full, all) = (config.fullatt_block_indexes.len() as f64, config.depth as f64);
        let joined = width * config.merge_unit() as f64;
        Flops {
            vision: PartFlops {
                linear: 2.0 * patches * config.patch_len() as f64 * width + all * linear,
                attention: full * within(grid.t as f64 * frame * frame) + (all - full) * within(windows as f64),
                ..PartFlops::default()
            },
            projector: PartFlops {
                linear: 2.0 * tokens * joined * (joined + config.out_hidden_size as f64),
                ..PartFlops::default()
            },
            decoder: PartFlops::default(),
        }
    }

    /// Returns the operations of the decoder's blocks for `new` tokens of one sequence after `past` cached tokens.
    pub fn decoder_flops(&self, past: usize, new: usize) -> Flops {
        let config = &self.text;
        let (width, inner) = (config.hidden_size as f64, config.intermediate_size as f64);
        let shared = (config.num_key_value_heads * config.head_dim()) as f64;
        let (past, new, layers) = (past as f64, new as f64, config.num_hidden_layers as f64);
        let seen = new * past + new * (new + 1.0) / 2.0;
        Flops {
            decoder: PartFlops {
                linear: layers * 2.0 * new * width * (2.0 * width + 2.0 * shared + 3.0 * inner),
                attention: layers * 4.0 * width * seen,
                ..PartFlops::default()
            },
            ..Flops::default()
        }
    }

    /// Returns the operations of the head for `states` hidden states.
    pub fn head_flops(&self, states: usize) -> Flops {
        let linear = 2.0 * states as f64 * self.text.hidden_size as f64 * self.text.vocab_size as f64;
        Flops { decoder: PartFlops { linear, ..PartFlops::default() }, ..Flops::default() }
    }
}

impl Add for PartFlops {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            linear: self.linear + other.linear,
            attention: self.attention + other.attention,
            adapters: self.adapters + other.adapters,
        }
    }
}

impl Add for Flops {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            vision: self.vision + other.vision,
            projector: self.projector + other.projector,
            decoder: self.decoder + other.decoder,
        }
    }
}

impl AddAssign for Flops {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Flops {
    fn sum<I: Iterator<Item = Self>>(passes: I) -> Self {
        passes.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{TextConfig, VisionConfig, VisionTokens},
        lora::LoraSettings,
    };
    use burn::tensor::Device;

    fn config() -> Qwen25VlConfig {
        Qwen25VlConfig {
            // vocabulary, width, inner, layers, heads, key heads (of width 4)
            text: TextConfig::new(50, 16, 24, 3, 4, 2, [1, 1, 0]),
            // depth, width, inner, heads, out, window of 4 patches, one full block
            vision: VisionConfig::new(3, 8, 12, 2, 16, 56, vec![1]),
            vision_tokens: VisionTokens { image: 1, video: 2, start: 3, end: 4 },
            tie_word_embeddings: false,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
        }
    }

    /// Operations of products written down one by one, (m, k, n).
    fn products(list: &[(usize, usize, usize)]) -> f64 {
        list.iter().map(|(m, k, n)| 2.0 * (m * k * n) as f64).sum()
    }

    #[test]
    fn the_decoder_is_the_sum_of_its_products() {
        let config = config();
        for (past, new) in [(0, 5), (7, 1), (3, 4)] {
            let (mut linear, mut attention) = (Vec::new(), Vec::new());
            for _layer in 0..3 {
                // q, k, v, o, gate, up, down
                linear.extend([(new, 16, 16), (new, 16, 8), (new, 16, 8), (new, 16, 16)]);
                linear.extend([(new, 16, 24), (new, 16, 24), (new, 24, 16)]);
                for _head in 0..4 {
                    for query in 0..new {
                        let keys = past + query + 1;
                        attention.extend([(1, 4, keys), (1, keys, 4)]);
                    }
                }
            }
            let found = config.decoder_flops(past, new);
            assert_eq!((found.decoder.linear, found.decoder.attention), (products(&linear), products(&attention)));
            assert_eq!((found.vision, found.projector), Default::default());
        }
        assert_eq!(config.head_flops(6).forward(), products(&[(6, 16, 50)]));
        // A prompt read at once or token by token.
        let steps: Flops = (0..5).map(|past| config.decoder_flops(past, 1)).sum();
        assert_eq!(steps, config.decoder_flops(0, 5));
    }

    #[test]
    fn the_encoder_is_the_sum_of_its_products() {
        let config = config();
        // 6×10 patches in windows of 4×4: two of 16, three edges of 8 (2×4, 4×2, 4×2), a corner of 4. Two frames.
        let grid = GridThw { t: 2, h: 6, w: 10 };
        let patches = 120;
        let mut linear = vec![(patches, 3 * 2 * 14 * 14, 8)];
        let mut attention = Vec::new();
        for block in 0..3 {
            linear.extend([(patches, 8, 24), (patches, 8, 8), (patches, 8, 12), (patches, 8, 12), (patches, 12, 8)]);
            let lengths =
                if block == 1 { vec![60, 60] } else { [vec![16, 16, 8, 8, 8, 4], vec![16, 16, 8, 8, 8, 4]].concat() };
            for length in lengths {
                for _head in 0..2 {
                    attention.extend([(length, 4, length), (length, length, 4)]);
                }
            }
        }
        let found = config.image_flops(grid);
        assert_eq!((found.vision.linear, found.vision.attention), (products(&linear), products(&attention)));
        assert_eq!(found.projector.linear, products(&[(30, 32, 32), (30, 32, 16)]));
        assert_eq!((found.projector.attention, found.decoder), Default::default());
    }

    #[test]
    fn a_backward_pass_costs_a_product_for_every_gradient() {
        let part = |linear, attention| PartFlops { linear, attention, adapters: 0.0 };
        let flops = Flops { vision: part(1.0, 10.0), projector: part(100.0, 0.0), decoder: part(1e3, 1e4) };
        assert_eq!(flops.forward(), 11_111.0);
        for (parts, backward) in [
            ([true, true, true], 22_222.0),
            // SFT: nothing before the decoder has a gradient.
            ([false, false, true], 22_000.0),
            // A frozen decoder hands gradients on; only its weights have none.
            ([false, true, false], 200.0 + 1e3 + 2e4),
            ([true, false, false], 2.0 + 20.0 + 100.0 + 1e3 + 2e4),
            ([false, false, false], 0.0),
        ] {
            let [vision, projector, decoder] = parts;
            let found = flops.training(TrainableParts { vision, projector, decoder });
            assert_eq!(found, 11_111.0 + backward, "{parts:?}");
        }
    }

    #[test]
    fn weights_under_adapters_hand_gradients_on_and_have_none() {
        let part = |linear, attention, adapters| PartFlops { linear, attention, adapters };
        let all = TrainableParts::default();
        let decoder = Flops { vision: part(1.0, 10.0, 0.0), decoder: part(1e3, 1e4, 7.0), ..Flops::default() };
        let forward = 11_018.0;
        assert_eq!(decoder.training(all), forward + 1e3 + 2e4 + 14.0);
        let vision = Flops { vision: part(1.0, 10.0, 3.0), decoder: part(1e3, 1e4, 0.0), ..Flops::default() };
        assert_eq!(vision.training(all), 11_014.0 + 1.0 + 20.0 + 6.0 + 1e3 + 2e4);
    }

    #[test]
    fn adapters_cost_a_product_for_each_factor_and_place() {
        let parts = TrainableParts::default();
        let targets = ["qkv", "mlp.0", "q_proj", "self_attn.k_proj"].map(String::from).to_vec();
        let lora = LoraSettings { rank: 5, targets, ..LoraSettings::default() };
        let model = config().init(&Device::default()).with_lora(&lora, parts).unwrap();
        let sizes = model.adapter_sizes();
        let image = sizes.image_flops(GridThw { t: 2, h: 6, w: 10 }, 30);
        let vision = [(120, 8, 5), (120, 5, 24)].repeat(3);
        assert_eq!(image.vision, PartFlops { adapters: products(&vision), ..PartFlops::default() });
        assert_eq!(image.projector.adapters, products(&[(30, 32, 5), (30, 5, 32)]));
        let decoder = [(4, 16, 5), (4, 5, 16), (4, 16, 5), (4, 5, 8)].repeat(3);
        assert_eq!(sizes.decoder_flops(4).forward(), products(&decoder));
        assert_eq!(config().init(&Device::default()).adapter_sizes(), AdapterSizes::default());
    }

    #[test]
    fn long_sequences_of_a_large_decoder_come_near_six_operations_a_weight_and_token() {
        // Qwen2.5-VL-3B's decoder: 2048 wide, 11008 inside, 36 layers, 16 and 2 heads of 128.
        let text = TextConfig::new(151_936, 2048, 11_008, 36, 16, 2, [16, 24, 24]);
        let config = Qwen25VlConfig { text, ..config() };
        let weights = 36.0 * (2048.0 * 2048.0 * 2.0 + 2048.0 * 512.0 + 3.0 * 2048.0 * 11_008.0);
        let parts = TrainableParts { vision: false, projector: false, decoder: true };
        let ratio = config.decoder_flops(0, 1000).training(parts) / (6.0 * weights * 1000.0);
        assert!(ratio > 1.0 && ratio < 1.03, "{ratio}");
    }
}
