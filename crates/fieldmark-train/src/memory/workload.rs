//! The sizes and settings of a training stage that decide its memory, with the longest sequences to expect.

use fieldmark_generate::cache_columns;
use fieldmark_model::{GridThw, LoraSettings, Qwen25VlConfig, TrainableParts};

use super::blocks::Tokens;
use crate::gradient::TrunkSettings;

/// Everything that decides the memory of a training stage.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Configuration of the model.
    pub config: Qwen25VlConfig,
    /// Parts that are trained.
    pub parts: TrainableParts,
    /// Adapters that are trained instead of the weights of these parts.
    pub lora: LoraSettings,
    /// Bytes per weight and per activation.
    pub number: f64,
    /// Whether norms, gates, log-probabilities and the optimiser's step are one pass each, as in f32 on the CPU.
    pub fused: bool,
    /// Bytes of the optimiser's moments per trainable parameter.
    pub moments: f64,
    /// Bytes that the optimiser keeps per trainable 16-bit weight: an f32 copy or the rounding error.
    pub beside: f64,
    /// The largest micro-batch.
    pub micro: MicroShape,
    /// How the training pass trades time for memory.
    pub trunk: TrunkSettings,
    /// Whether the sequences of a micro-batch are packed into one row instead of padded.
    pub packing: bool,
    /// Number of positions whose logits are computed at a time.
    pub logit_chunk: usize,
    /// Number of micro-batches computed in parallel.
    pub workers: usize,
    /// Rollouts between the updates, if there are any.
    pub rollouts: Option<RolloutShape>,
    /// Whether a reference model is loaded too.
    pub reference: bool,
}

/// The largest micro-batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroShape {
    /// Number of sequences.
    pub sequences: usize,
    /// Number of tokens in each sequence.
    pub tokens: usize,
    /// Number of different prompts. If it is smaller than the number of sequences, the sequences are responses to them, and
    /// a packed row has each prompt once.
    pub prompts: usize,
    /// Number of tokens in a prompt, if sequences share prompts.
    pub prompt: usize,
    /// Largest number of sequences that share a prompt.
    pub sharing: usize,
    /// Number of tokens in the loss, in all sequences together.
    pub targets: usize,
    /// Number of different images.
    pub images: usize,
    /// Size of each image.
    pub grid: GridThw,
}

/// Responses that are sampled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolloutShape {
    /// Number of responses.
    pub responses: usize,
    /// Number of different prompts.
    pub prompts: usize,
    /// Number of tokens in a prompt.
    pub prompt: usize,
    /// Number of new tokens in a response.
    pub response: usize,
    /// Size of each prompt's image.
    pub grid: GridThw,
}

impl MicroShape {
    pub(super) fn text_tokens(&self, packing: bool) -> Tokens {
        let (items, longest) = (self.sequences as f64, self.tokens as f64);
        if !packing || self.prompts >= self.sequences {
            let joined = packing && self.sequences > 1;
            return Tokens { joined, ..Tokens::causal(items, longest) };
        }
        let (prompts, prompt) = (self.prompts as f64, self.prompt as f64);
        let response = longest - prompt;
        Tokens {
            count: prompts * prompt + items * response,
            items: self.sharing as f64,
            longest,
            queries: response,
            prompt,
            joined: true,
            causal: true,
        }
    }

    pub(super) fn vision_tokens(&self) -> Tokens {
        Tokens::frames(self.images as f64, self.grid.patches() as f64)
    }
}

impl RolloutShape {
    /// Tokens of the prompts, which are read together.
    pub(super) fn prompt_tokens(&self) -> Tokens {
        Tokens::causal(self.prompts as f64, self.prompt as f64)
    }

    /// Patches of the prompts' images.
    pub(super) fn patches(&self) -> Tokens {
        Tokens::frames(self.prompts as f64, self.grid.patches() as f64)
    }

    /// Number of tokens of a response that the cache has room for at the end; it doubles when it is full.
    pub(super) fn capacity(&self) -> usize {
        // The last token is sampled and never read.
        let needed = self.prompt + self.response.saturating_sub(1);
        let mut capacity = cache_columns(self.prompt, self.response).max(1);
        while capacity < needed {
            capacity *= 2;
        }
        capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor};
    use fieldmark_model::{KvCache, ModelInputs, Padding, Row, TextConfig, VisionConfig, VisionTokens};

    #[test]
    fn the_cache_has_the_room_that_it_takes_in_fact() {
        let text = TextConfig::new(20, 8, 8, 1, 1, 1, [2, 1, 1]);
        let vision = VisionConfig::new(1, 8, 8, 1, 8, 56, vec![0]);
        let config = Qwen25VlConfig::new(text, vision, VisionTokens::new(1, 2, 3, 4), true);
        let device = Device::default();
        let model = config.init(&device);
        for (prompt, response) in [(3, 1), (3, 2), (3, 5), (4, 256), (4, 257), (4, 258), (3, 700)] {
            let ids = vec![7; prompt];
            let row = Row::new(&ids, &[]);
            let inputs = ModelInputs::new(&[row], &[], Vec::new(), Padding::Left, 0, &config, &device).unwrap();
            let mut read = KvCache::new(1, 0);
            model.prefill(&inputs, &mut read);
            let mut cache = KvCache::with_rows(1, 1, cache_columns(prompt, response));
            cache.admit(&read, Tensor::from_ints([0], &device));
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
