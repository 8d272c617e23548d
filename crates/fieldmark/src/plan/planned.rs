//! The memory that a recipe needs on a device, from its settings and the sizes of its model, before anything is loaded.
//!
//! Planned for is the worst that the recipe allows: every sequence of a micro-batch as long as its limit and every image as
//! large as its own. What a device's runtime takes for itself, and what its allocator loses between tensors, comes on top.

mod published;
mod search;

pub use published::{published, published_text_encoder};
pub use search::{Fit, nearest_fit};

use fieldmark_model::{GridThw, Qwen25VlConfig, SiglipTextConfig};
use fieldmark_train::{
    AdamWSettings, HalfWeights, MemoryPlan, MicroShape, Moments, Part, RolloutShape, SftConfig, TapoConfig,
    TrunkSettings, UpdateImage, Workload,
};

use crate::recipe::{ImageSizes, Recipe, WeightType};

/// A stage of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Supervised fine-tuning.
    Sft,
    /// Policy optimisation.
    Tapo,
}

impl Stage {
    /// Its section in a recipe.
    pub fn section(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Tapo => "tapo",
        }
    }
}

/// What is planned for.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Sizes of the model.
    pub config: Qwen25VlConfig,
    /// The stage.
    pub stage: Stage,
    /// Tokens of the longest sequence, prompt and response together; `None`: as long as the recipe allows.
    pub tokens: Option<usize>,
    /// Images of a conversation, at most. Triplets have one to a prompt.
    pub images: usize,
    /// The text encoder that the rewards of TAPO need; `None` where they need none.
    pub text_encoder: Option<SiglipTextConfig>,
}

impl Planned {
    /// The memory that `recipe` needs.
    pub fn memory(&self, recipe: &Recipe) -> MemoryPlan {
        let mut plan = self.workload(recipe).plan();
        // Its activations are those of one short text.
        let encoder = self.text_encoder.as_ref().filter(|_| self.stage == Stage::Tapo);
        plan.standing.extend(encoder.map(|config| Part { name: "text encoder", bytes: 4 * config.parameter_count() }));
        plan
    }

    /// What the stage computes at its largest.
    pub fn workload(&self, recipe: &Recipe) -> Workload {
        match self.stage {
            Stage::Sft => self.sft(recipe, &recipe.sft),
            Stage::Tapo => self.tapo(recipe, &recipe.tapo),
        }
    }

    fn sft(&self, recipe: &Recipe, sft: &SftConfig) -> Workload {
        let number = number(recipe);
        let tokens = self.tokens.unwrap_or(recipe.data.sft.max_tokens).min(self.context());
        let grid = self.grid(recipe.data.sft.sizes, tokens / self.images.max(1));
        let sequences = at_once(sft.micro_batch, sft.micro_tokens, tokens).min(sft.batch);
        let micro = MicroShape {
            sequences,
            tokens,
            targets: sequences * (tokens - (self.images * self.image_tokens(grid)).min(tokens)),
            images: sequences * self.images,
            grid,
        };
        Workload {
            config: self.config.clone(),
            parts: sft.train,
            lora: recipe.lora.clone(),
            number,
            moments: moments(&sft.adamw),
            beside: beside(&sft.adamw, number),
            micro,
            trunk: TrunkSettings { recompute: sft.recompute, query_chunk: sft.query_chunk },
            packing: sft.packing,
            logit_chunk: sft.logit_chunk,
            workers: sft.workers.clamp(1, sft.batch.div_ceil(sequences.max(1)).max(1)),
            rollouts: None,
            reference: false,
        }
    }

    fn tapo(&self, recipe: &Recipe, tapo: &TapoConfig) -> Workload {
        let number = number(recipe);
        let limit = recipe.data.tapo.max_tokens.saturating_add(tapo.max_new_tokens);
        let tokens = self.tokens.unwrap_or(limit).min(self.context());
        let response = tapo.max_new_tokens.min(tokens.saturating_sub(1));
        let prompt = tokens - response;
        let grid = self.grid(recipe.data.tapo.sizes, prompt);
        // A response is scored on its update's image and, where that has a gradient, on the negative one beside it.
        let scored = if tapo.loss.needs_negative() && tapo.loss.negative_grad { 2 } else { 1 };
        let responses = at_once(tapo.micro_batch, tapo.micro_tokens, scored * tokens).min(tapo.batch);
        let group = (tapo.anchor_rollouts + tapo.positive_rollouts).max(1);
        // Consecutive responses share the images of their group; a micro-batch may begin in the middle of one.
        let whole = tapo.micro_tokens == 0 && group.is_multiple_of(responses.max(1));
        let groups = if whole { 1 } else { responses.min(responses.saturating_sub(1).div_ceil(group) + 1) };
        let own = usize::from(tapo.update_image == UpdateImage::Own);
        let micro = MicroShape {
            sequences: scored * responses,
            tokens,
            targets: scored * responses * response,
            images: groups * (scored + own),
            grid,
        };
        let sampled = tapo.generation_batch.min(tapo.chunk * group).max(1);
        let per_prompt = [tapo.anchor_rollouts, tapo.positive_rollouts].into_iter().filter(|count| *count > 0).min();
        let rollouts = RolloutShape {
            responses: sampled,
            prompts: sampled.div_ceil(per_prompt.unwrap_or(1)).min(2 * tapo.chunk),
            prompt,
            response,
            grid,
        };
        Workload {
            config: self.config.clone(),
            parts: tapo.train,
            lora: recipe.lora.clone(),
            number,
            moments: moments(&tapo.adamw),
            beside: beside(&tapo.adamw, number),
            micro,
            trunk: TrunkSettings { recompute: tapo.recompute, query_chunk: tapo.query_chunk },
            packing: tapo.packing,
            logit_chunk: tapo.logit_chunk,
            workers: tapo.workers.clamp(1, tapo.batch.div_ceil(responses.max(1)).max(1)),
            rollouts: Some(rollouts),
            reference: tapo.loss.kl_ref != 0.0,
        }
    }

    fn context(&self) -> usize {
        self.config.text.max_position_embeddings
    }

    /// The largest image, near a square, that the limits allow and whose tokens leave room in `tokens`.
    fn grid(&self, sizes: ImageSizes, tokens: usize) -> GridThw {
        let vision = &self.config.vision;
        let unit = (vision.patch_size * vision.spatial_merge_size) as f64;
        let side = ((sizes.max_pixels as f64).sqrt() / unit).round().max(1.0) as usize;
        let side = side.min(tokens.isqrt()).max(1) * vision.spatial_merge_size;
        GridThw::image(side, side)
    }

    fn image_tokens(&self, grid: GridThw) -> usize {
        grid.tokens(self.config.vision.spatial_merge_size)
    }
}

/// Sequences of `tokens` tokens in a micro-batch of at most `most`, and of at most `limit` tokens unless that is 0.
fn at_once(most: usize, limit: usize, tokens: usize) -> usize {
    if limit == 0 { most } else { most.min(limit / tokens.max(1)).max(1) }
}

/// Bytes of a weight of the decoder, where nearly all are.
fn number(recipe: &Recipe) -> f64 {
    match recipe.model.parts.decoder.unwrap_or(recipe.model.dtype) {
        WeightType::F32 => 4.0,
        WeightType::F16 | WeightType::Bf16 => 2.0,
    }
}

fn moments(adamw: &AdamWSettings) -> f64 {
    match adamw.moments {
        Moments::F32 => 8.0,
        Moments::Bf16 => 4.0,
    }
}

/// Bytes beside a weight of `number` bytes.
fn beside(adamw: &AdamWSettings, number: f64) -> f64 {
    match adamw.half {
        HalfWeights::Master if number < 4.0 => 4.0,
        HalfWeights::Kahan if number < 4.0 => 2.0,
        _ => 0.0,
    }
}
