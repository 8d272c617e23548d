//! A training stage as its memory sees it: sizes, settings, and the longest sequences that are to be expected.

use fieldmark_model::{GridThw, LoraSettings, Qwen25VlConfig, TrainableParts};

use super::blocks::Tokens;
use crate::gradient::TrunkSettings;

/// What decides the memory of a stage.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The network.
    pub config: Qwen25VlConfig,
    /// What learns.
    pub parts: TrainableParts,
    /// Adapters that learn in place of the parts' weights.
    pub lora: LoraSettings,
    /// Bytes of a weight and of an activation.
    pub number: f64,
    /// Bytes that the optimiser's moments take for each parameter that learns.
    pub moments: f64,
    /// Bytes beside each 16-bit weight that learns: its master or its compensation.
    pub beside: f64,
    /// What is computed at once.
    pub micro: MicroShape,
    /// How it is computed.
    pub trunk: TrunkSettings,
    /// Sequences of a micro-batch one after another instead of padded.
    pub packing: bool,
    /// States that meet the vocabulary at once.
    pub logit_chunk: usize,
    /// Micro-batches computed side by side.
    pub workers: usize,
    /// Sampling between the updates.
    pub rollouts: Option<RolloutShape>,
    /// A second model beside the one that learns.
    pub reference: bool,
}

/// A micro-batch at its largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroShape {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// States in the loss, of all sequences together.
    pub targets: usize,
    /// Different images.
    pub images: usize,
    /// Size of each.
    pub grid: GridThw,
}

/// Responses sampled at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolloutShape {
    /// Responses side by side.
    pub responses: usize,
    /// Different prompts that they answer.
    pub prompts: usize,
    /// Tokens of a prompt.
    pub prompt: usize,
    /// New tokens of a response.
    pub response: usize,
    /// Size of each prompt's image.
    pub grid: GridThw,
}

impl MicroShape {
    pub(super) fn text_tokens(&self, packing: bool) -> Tokens {
        let (items, longest) = (self.sequences as f64, self.tokens as f64);
        Tokens { count: items * longest, items, longest, joined: packing && self.sequences > 1, causal: true }
    }

    pub(super) fn vision_tokens(&self) -> Tokens {
        let (items, longest) = (self.images as f64, self.grid.patches() as f64);
        Tokens { count: items * longest, items, longest, joined: true, causal: false }
    }
}

impl RolloutShape {
    /// The prompts read at once.
    pub(super) fn prompt_tokens(&self) -> Tokens {
        let (items, longest) = (self.prompts as f64, self.prompt as f64);
        Tokens { count: items * longest, items, longest, joined: false, causal: true }
    }

    /// Their images.
    pub(super) fn patches(&self) -> Tokens {
        let (items, longest) = (self.prompts as f64, self.grid.patches() as f64);
        Tokens { count: items * longest, items, longest, joined: true, causal: false }
    }

    /// Tokens that the cache has room for in the end: it doubles from the prompt's length.
    pub(super) fn capacity(&self) -> usize {
        let needed = self.prompt + self.response.saturating_sub(1);
        let mut capacity = self.prompt.max(1);
        while capacity < needed {
            capacity *= 2;
        }
        capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use fieldmark_model::{KvCache, ModelInputs, Padding, Row, TextConfig, VisionConfig, VisionTokens};

    #[test]
    fn the_cache_has_the_room_that_it_takes_in_fact() {
        let text = TextConfig::new(20, 8, 8, 1, 1, 1, [2, 1, 1]);
        let vision = VisionConfig::new(1, 8, 8, 1, 8, 56, vec![0]);
        let config = Qwen25VlConfig::new(text, vision, VisionTokens::new(1, 2, 3, 4), true);
        let device = Device::default();
        let model = config.init(&device);
        for (prompt, response) in [(3, 1), (3, 2), (3, 4), (3, 5), (4, 14)] {
            let ids = vec![7; prompt];
            let row = Row { ids: &ids, images: &[] };
            let inputs = ModelInputs::new(&[row], &[], Vec::new(), Padding::Left, 0, &config, &device).unwrap();
            let mut cache = KvCache::new(1, 0);
            model.prefill(&inputs, &mut cache);
            // The last token is sampled and never read.
            for token in 1..response {
                let seen = 0..prompt + token;
                model.decode(&[7], &inputs.next_position, std::slice::from_ref(&seen), &mut cache, &device);
            }
            let shape = RolloutShape { responses: 1, prompts: 1, prompt, response, grid: GridThw::image(2, 2) };
            assert_eq!(shape.capacity(), cache.capacity(), "{prompt} {response}");
        }
    }
}
