//! The memory plan of a stage at its worst.
//!
//! The plan assumes every sequence and every image at its maximum size. The runtime of a device and its allocator need
//! some more.

use fieldmark_model::{GridThw, Qwen25VlConfig, SiglipTextConfig, TrainableParts, WeightType};
use fieldmark_train::{
    gradient::Passes,
    memory::MemoryPart,
    memory::{MemoryPlan, MicroShape, RolloutShape, Workload},
    optim::{AdamWSettings, HalfWeights, Moments},
    sft::SftConfig,
    tapo::{TapoConfig, UpdateImage},
};

use crate::{
    recipe::{ImageSizes, Recipe},
    stage::Stage,
};

/// The model and the sizes to plan for.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Configuration of the model.
    pub config: Qwen25VlConfig,
    /// The stage.
    pub stage: Stage,
    /// Tokens of the longest sequence, prompt and response together; `None` takes the recipe's limits.
    pub tokens: Option<usize>,
    /// Maximum number of images in a conversation. A TAPO prompt has one.
    pub images: usize,
    /// The text encoder that the rewards of TAPO need; `None` if they need none.
    pub text_encoder: Option<SiglipTextConfig>,
}

impl Planned {
    /// The memory that `recipe` needs.
    pub fn memory(&self, recipe: &Recipe) -> MemoryPlan {
        let mut plan = self.workload(recipe).plan();
        // Only its weights count: its activations are those of one short text.
        let encoder = self.text_encoder.as_ref().filter(|_| self.stage == Stage::Tapo);
        plan.standing
            .extend(encoder.map(|config| MemoryPart { name: "text encoder", bytes: 4 * config.parameter_count() }));
        plan
    }

    /// The largest work of the stage.
    pub fn workload(&self, recipe: &Recipe) -> Workload {
        match self.stage {
            Stage::Sft => self.sft(recipe, &recipe.sft),
            Stage::Tapo => self.tapo(recipe, &recipe.tapo),
        }
    }

    fn sft(&self, recipe: &Recipe, sft: &SftConfig) -> Workload {
        let passes = sft.passes();
        let tokens = self.tokens.unwrap_or(recipe.data.sft.max_tokens).min(self.context());
        let grid = self.grid(recipe.data.sft.sizes, tokens / self.images.max(1));
        let sequences = at_once(passes, tokens).min(sft.batch);
        let micro = MicroShape {
            sequences,
            tokens,
            prompts: sequences,
            prompt: 0,
            sharing: 1,
            targets: sequences * (tokens - (self.images * self.image_tokens(grid)).min(tokens)),
            images: sequences * self.images,
            grid,
        };
        self.update(recipe, passes, micro, sft.batch.div_ceil(sequences.max(1)), sft.train, &sft.adamw)
    }

    fn tapo(&self, recipe: &Recipe, tapo: &TapoConfig) -> Workload {
        let passes = tapo.passes();
        let limit = recipe.data.tapo.max_tokens.saturating_add(tapo.max_new_tokens);
        let tokens = self.tokens.unwrap_or(limit).min(self.context());
        let response = tapo.max_new_tokens.min(tokens.saturating_sub(1));
        let prompt = tokens - response;
        let grid = self.grid(recipe.data.tapo.sizes, prompt);
        // A response is scored on its update's image, and on the negative image if that has a gradient.
        let scored = if tapo.loss.needs_negative() && tapo.loss.negative_grad { 2 } else { 1 };
        let group = (tapo.anchor_rollouts + tapo.positive_rollouts).max(1);
        let images = scored + usize::from(tapo.update_image == UpdateImage::Own);
        // Consecutive responses share the images and prompts of their group; a micro-batch may begin in the middle of a group.
        let prompts = |responses: usize| {
            let even = |of: usize, by: usize| by > 0 && of.is_multiple_of(by);
            let aligned = passes.micro_tokens == 0 && even(tapo.batch, group);
            let groups = if aligned && even(group, responses) {
                1
            } else if aligned && even(responses, group) {
                responses / group
            } else {
                responses.min(responses.saturating_sub(1).div_ceil(group) + 1)
            };
            groups * images
        };
        let read = |responses: usize| {
            if passes.packing {
                prompts(responses).min(scored * responses) * prompt + scored * responses * response
            } else {
                scored * responses * tokens
            }
        };
        let fits = |responses: &usize| passes.micro_tokens == 0 || read(*responses) <= passes.micro_tokens;
        let responses = (1..=passes.micro_batch).rev().find(fits).unwrap_or(1).min(tapo.batch);
        let micro = MicroShape {
            sequences: scored * responses,
            tokens,
            prompts: prompts(responses).min(scored * responses),
            prompt,
            sharing: responses.min(group),
            targets: scored * responses * response,
            images: prompts(responses),
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
        let micros = tapo.batch.div_ceil(responses.max(1));
        Workload {
            rollouts: Some(rollouts),
            reference: tapo.loss.kl_ref != 0.0,
            ..self.update(recipe, passes, micro, micros, tapo.train, &tapo.adamw)
        }
    }

    /// An update of `micros` micro-batches, without sampling.
    fn update(
        &self,
        recipe: &Recipe,
        passes: Passes,
        micro: MicroShape,
        micros: usize,
        parts: TrainableParts,
        adamw: &AdamWSettings,
    ) -> Workload {
        let number = number(recipe);
        Workload {
            config: self.config.clone(),
            parts,
            lora: recipe.lora.clone(),
            number,
            // Of a device that is not named, the plan must hold everywhere.
            fused: number == 4.0 && recipe.device.as_deref() == Some("flex"),
            moments: moments(adamw),
            beside: beside(adamw, number),
            micro,
            trunk: passes.trunk(),
            packing: passes.packing,
            logit_chunk: passes.logit_chunk,
            workers: passes.workers.clamp(1, micros.max(1)),
            rollouts: None,
            reference: false,
        }
    }

    fn context(&self) -> usize {
        self.config.text.max_position_embeddings
    }

    /// The largest square image that the size limits allow and whose tokens fit into `tokens`.
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

/// Number of sequences of `tokens` tokens in a micro-batch.
fn at_once(passes: Passes, tokens: usize) -> usize {
    let Passes { micro_batch, micro_tokens, .. } = passes;
    if micro_tokens == 0 { micro_batch } else { micro_batch.min(micro_tokens / tokens.max(1)).max(1) }
}

/// Bytes of a weight of the decoder, which has nearly all of them.
fn number(recipe: &Recipe) -> f64 {
    match recipe.model.parts.decoder.unwrap_or(recipe.model.dtype) {
        WeightType::F32 => 4.0,
        WeightType::F16 | WeightType::Bf16 => 2.0,
    }
}

/// Bytes of the optimiser's two moments for each parameter.
fn moments(adamw: &AdamWSettings) -> f64 {
    match adamw.moments {
        Moments::F32 => 8.0,
        Moments::Bf16 => 4.0,
    }
}

/// Bytes of the copy or the compensation kept for a weight of `number` bytes.
fn beside(adamw: &AdamWSettings, number: f64) -> f64 {
    match adamw.half {
        HalfWeights::Master if number < 4.0 => 4.0,
        HalfWeights::Kahan if number < 4.0 => 2.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::published::published;

    /// Sequences, prompts, and responses to a prompt in the largest micro-batch of TAPO on the 3B model.
    fn micro(changes: &[&str]) -> [usize; 3] {
        let recipe = changes.iter().fold(Recipe::default(), |recipe, change| recipe.with_override(change).unwrap());
        let config = published("Qwen2.5-VL-3B-Instruct".as_ref()).unwrap();
        let planned = Planned { config, stage: Stage::Tapo, tokens: None, images: 1, text_encoder: None };
        let MicroShape { sequences, prompts, sharing, .. } = planned.workload(&recipe).micro;
        [sequences, prompts, sharing]
    }

    #[test]
    fn a_micro_batch_has_the_prompts_of_the_groups_that_it_may_touch() {
        let of = |size: &str| micro(&[&format!("tapo.micro_batch={size}")]);
        // Groups of ten, each with the anchor's and the negative's prompt.
        assert_eq!(of("5"), [10, 2, 5]);
        assert_eq!(of("10"), [20, 2, 10]);
        assert_eq!(of("20"), [40, 4, 10]);
        // 4 + 4 + 4: the third begins in the first group and ends in the second.
        assert_eq!(of("4"), [8, 4, 4]);
        assert_eq!(of("1"), [2, 2, 1]);
        // An update that begins in the middle of a group.
        assert_eq!(micro(&["tapo.micro_batch=10", "tapo.batch=25"]), [20, 4, 10]);
        assert_eq!(micro(&["tapo.micro_batch=10", "tapo.update_image=own"]), [20, 3, 10]);
        assert_eq!(micro(&["tapo.micro_batch=10", "tapo.loss.negative_grad=false"]), [10, 1, 10]);
    }

    #[test]
    fn a_shared_prompt_counts_once_against_the_limit_of_tokens() {
        // Prompts of 4,096 tokens and responses of 2,048. A micro-batch may then begin anywhere, so of n responses, two
        // groups' prompts may be there: 4 x 4,096 + 2 x n x 2,048.
        let changes = ["tapo.micro_batch=10", "tapo.micro_tokens=32768"];
        assert_eq!(micro(&changes), [8, 4, 4]);
        // Without packing, each response needs 2 x 6,144.
        assert_eq!(micro(&[changes[0], changes[1], "tapo.packing=false"]), [4, 4, 2]);
    }
}
