//! The responses of a step with everything that is the same in all updates of the step: the prompts they are scored on,
//! their advantages, and the log-probabilities without gradient.

use burn::{module::Module, tensor::Device};
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::{Sequence, SupervisedSequence};

use super::{
    config::{TapoConfig, UpdateImage},
    loss_config::TapoLossConfig,
    state::{DrawnGroup, OpenStep, SavedGroup},
};
use crate::{
    TrainError,
    gradient::{BatchSize, Scorer},
    tapo::{
        policy::VisualTokens,
        rollout::{Group, ImageRole, Rollout},
    },
};

/// One response with everything the loss needs.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) update: SupervisedSequence,
    pub(super) negative: Option<SupervisedSequence>,
    pub(super) advantage: f64,
    pub(super) old_logp: Vec<f32>,
    /// Number of updates made when the response was sampled.
    pub(super) sampled: usize,
    /// log π as the sampler recorded it, or `old_logp` if the response was sampled from another image. Set only if
    /// `sampler_cap` is.
    pub(super) sampler_logp: Option<Vec<f32>>,
    /// log π on the negative image. Set only if no gradient flows through it (`negative_grad = false`).
    pub(super) neg_logp: Option<Vec<f32>>,
    /// log π of the reference model on the update's image, if there is a reference model.
    pub(super) ref_logp: Option<Vec<f32>>,
    /// The tokens whose policy loss counts. Set only if `visual_tokens` is.
    pub(super) chosen: Option<Vec<bool>>,
}

impl Item {
    /// Number of tokens in the sequences that the update runs for this response.
    pub(super) fn tokens(&self, loss: &TapoLossConfig) -> usize {
        scored(std::slice::from_ref(self), loss).map(|sample| sample.sequence.ids.len()).sum()
    }
}

/// The sequences that the update runs for `items`: all with the update's images, then, if the negative image has a gradient,
/// all with the negative images.
pub(super) fn scored<'a>(items: &'a [Item], loss: &TapoLossConfig) -> impl Iterator<Item = &'a SupervisedSequence> {
    let negative = loss.negative_grad && loss.needs_negative();
    let negatives = items.iter().filter(move |_| negative).filter_map(|item| item.negative.as_ref());
    items.iter().map(|item| &item.update).chain(negatives)
}

/// A step after its rollouts were drawn.
pub(super) struct Step {
    pub(super) groups: Vec<DrawnGroup>,
    pub(super) items: Vec<Item>,
    /// Number of updates made.
    pub(super) updates: usize,
}

impl Step {
    pub(super) fn saved(&self) -> OpenStep {
        OpenStep {
            groups: self.groups.iter().map(SavedGroup::of).collect(),
            updates: self.updates,
            negatives: self.items.iter().filter_map(|item| item.neg_logp.clone()).collect(),
            chosen: self.items.iter().filter_map(|item| item.chosen.clone()).collect(),
        }
    }
}

/// Makes the items of a step.
pub(super) struct Items<'a> {
    pub(super) config: &'a TapoConfig,
    pub(super) loss: &'a TapoLossConfig,
    pub(super) scorer: &'a Scorer,
}

impl Items<'_> {
    /// Computes everything that is the same in all updates of a step. `open` is the saved state of a step that had
    /// begun.
    pub(super) fn prepare(
        &self,
        model: &Qwen25Vl,
        reference: Option<&Qwen25Vl>,
        groups: Vec<DrawnGroup>,
        open: Option<OpenStep>,
        device: &Device,
    ) -> Result<Step, TrainError> {
        let (loss, micro_batch) = (self.loss, self.config.micro_batch);
        let mut items: Vec<Item> = groups.iter().flat_map(|drawn| self.of_group(&drawn.group, drawn.sampled)).collect();
        let without = groups.iter().map(|drawn| &drawn.group.prompt).find(|prompt| prompt.negative.is_none());
        if let Some(prompt) = without.filter(|_| loss.reads_negative()) {
            let reason =
                "has no negative image, which tapo.loss.gamma, eta2 and visual_tokens need; set both weights to 0 \
                          and leave out visual_tokens to train without it"
                    .into();
            return Err(TrainError::Sample { row: prompt.anchor.name.clone(), reason });
        }
        let updates = open.as_ref().map_or(0, |open| open.updates);
        // Both are computed once, before the first update of the step, so that a step that goes on has saved them.
        let (saved_logps, saved_choice) = open.map(|open| (open.negatives, open.chosen)).unzip();
        if loss.needs_negative() && !loss.negative_grad {
            let negatives = items.iter().filter_map(|item| item.negative.as_ref());
            let found = match saved_logps {
                Some(saved) => saved,
                None => score(self.scorer, micro_batch, &model.valid(), negatives, device)?,
            };
            items.iter_mut().zip(found).for_each(|(item, found)| item.neg_logp = Some(found));
        }
        if let Some(visual) = loss.visual() {
            let found = match saved_choice {
                Some(saved) => saved,
                None => choose(self.scorer, micro_batch, &model.valid(), &items, visual, device)?,
            };
            items.iter_mut().zip(found).for_each(|(item, found)| item.chosen = Some(found));
        }
        if let Some(reference) = reference {
            let found = score(self.scorer, micro_batch, reference, items.iter().map(|item| &item.update), device)?;
            items.iter_mut().zip(found).for_each(|(item, found)| item.ref_logp = Some(found));
        }
        Ok(Step { groups, items, updates })
    }

    fn of_group(&self, group: &Group, sampled: usize) -> impl Iterator<Item = Item> {
        let updates = update_sequences(self.config.update_image, group);
        updates.into_iter().zip(&group.rollouts).map(move |(update, rollout)| {
            let negative = group.prompt.negative.as_ref();
            Item {
                update,
                negative: negative.map(|negative| attach(negative, &rollout.response.ids)),
                advantage: rollout.advantage,
                old_logp: rollout.old_logp.clone(),
                sampled,
                sampler_logp: self.loss.sampler_cap.map(|_| self.sampler_logp(rollout)),
                neg_logp: None,
                ref_logp: None,
                chosen: None,
            }
        })
    }

    fn sampler_logp(&self, rollout: &Rollout) -> Vec<f32> {
        match self.config.update_image.is_own_of(rollout.role) {
            true => rollout.response.logps.iter().map(|&logp| logp as f32).collect(),
            false => rollout.old_logp.clone(),
        }
    }
}

/// The responses of a group, each after the prompt that the update scores it on.
pub(super) fn update_sequences(image: UpdateImage, group: &Group) -> Vec<SupervisedSequence> {
    let prompt = &group.prompt;
    let scored = group.rollouts.iter().map(|rollout| {
        let prompt = match (image, rollout.role, &prompt.positive) {
            (UpdateImage::Own, ImageRole::Positive, Some(positive)) => positive,
            _ => &prompt.anchor,
        };
        attach(prompt, &rollout.response.ids)
    });
    scored.collect()
}

/// Appends a response to `prompt`. The tokens of the response are in the loss.
pub(super) fn attach(prompt: &Sequence, ids: &[u32]) -> SupervisedSequence {
    let mut target_mask = vec![false; prompt.ids.len()];
    target_mask.resize(prompt.ids.len() + ids.len(), true);
    SupervisedSequence { sequence: prompt.with_response(ids), target_mask }
}

/// Computes log π of the responses' tokens without gradient, `micro_batch` samples at a time. Returns one row per
/// sample.
pub(super) fn score<'a>(
    scorer: &Scorer,
    micro_batch: usize,
    model: &Qwen25Vl,
    samples: impl Iterator<Item = &'a SupervisedSequence>,
    device: &Device,
) -> Result<Vec<Vec<f32>>, TrainError> {
    let samples: Vec<SupervisedSequence> = samples.cloned().collect();
    let mut rows = Vec::with_capacity(samples.len());
    for samples in samples.chunks(micro_batch) {
        let micro = scorer.micro_batch(samples.to_vec())?;
        let scored = scorer.forward(model, &micro, device)?;
        let values: Vec<f32> = scored.logp_n.into_data().iter::<f32>().collect();
        let mut rest = values.as_slice();
        for &count in micro.packing().counts() {
            let (row, later) = rest.split_at(count);
            rest = later;
            rows.push(row.to_vec());
        }
    }
    Ok(rows)
}

/// Chooses the tokens of each response whose policy loss counts, `micro_batch` responses at a time.
fn choose(
    scorer: &Scorer,
    micro_batch: usize,
    model: &Qwen25Vl,
    items: &[Item],
    visual: VisualTokens,
    device: &Device,
) -> Result<Vec<Vec<bool>>, TrainError> {
    let mut chosen = Vec::with_capacity(items.len());
    for items in items.chunks(micro_batch) {
        let negatives = items.iter().filter_map(|item| item.negative.as_ref());
        let pairs = items.iter().map(|item| &item.update).chain(negatives).cloned();
        let found = scorer.contrast(model, &scorer.micro_batch(pairs.collect())?, device)?;
        let mut rest = found.as_slice();
        for item in items {
            let (tokens, later) = rest.split_at(item.old_logp.len());
            rest = later;
            chosen.push(visual.choose(tokens));
        }
    }
    Ok(chosen)
}

/// Number of response tokens and of sequences whose policy loss counts.
pub(super) fn chosen_size(items: &[Item]) -> BatchSize {
    let of = |item: &Item| match &item.chosen {
        Some(chosen) => chosen.iter().filter(|chosen| **chosen).count(),
        None => item.old_logp.len(),
    };
    BatchSize { tokens: items.iter().map(of).sum(), sequences: items.len() }
}

/// Number of response tokens and of sequences.
pub(super) fn size(items: &[Item]) -> BatchSize {
    BatchSize { tokens: items.iter().map(|item| item.old_logp.len()).sum(), sequences: items.len() }
}
