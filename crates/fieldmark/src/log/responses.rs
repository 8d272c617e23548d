//! `rollouts.jsonl` and `validation.jsonl`: every response of TAPO, one per line, with its images, prompt and rewards.

use fieldmark_data::AnswerReading;
use fieldmark_generate::FinishReason;
use fieldmark_train::tapo::{
    SampleFacts, TapoValidation,
    rollout::{Group, ImageRole, Rollout},
};
use serde_json::{Value, json};

use super::metrics::MetricsWriter;
use crate::error::RunError;

/// Returns what the source says about the sample of a group.
pub(super) type Facts<'a> = dyn Fn(&Group) -> SampleFacts + 'a;

/// The response files of a run.
pub(super) struct Responses<'a> {
    pub(super) rollouts: MetricsWriter,
    /// True if the advantages are not known yet when the rollouts are written.
    pub(super) over_step: bool,
    pub(super) source: Box<Facts<'a>>,
    /// The file of the answers to the validation set, if there is one.
    pub(super) held_out: Option<(MetricsWriter, Box<Facts<'a>>)>,
}

impl Responses<'_> {
    /// Writes the rollouts of step `step`, counted from 1.
    pub(super) fn rollouts(&mut self, step: usize, groups: &[Group]) -> Result<(), RunError> {
        for group in groups {
            let facts = (self.source)(group);
            for rollout in &group.rollouts {
                let mut line = line(&facts, group, rollout);
                line["rollout_step"] = step.into();
                line["advantage"] = (!self.over_step).then_some(rollout.advantage).into();
                self.rollouts.write(&line)?;
            }
        }
        Ok(())
    }

    /// Writes the answers to the validation set.
    pub(super) fn answers(&mut self, answers: &[Group], row: &TapoValidation) -> Result<(), RunError> {
        let Some((file, source)) = &mut self.held_out else { return Ok(()) };
        for answer in answers {
            let facts = source(answer);
            for rollout in &answer.rollouts {
                let mut line = line(&facts, answer, rollout);
                (line["step"], line["rollout_step"]) = (row.step.into(), row.rollout_step.into());
                file.write(&line)?;
            }
        }
        Ok(())
    }

    /// Waits until everything is on disk.
    pub(super) fn sync(&self) -> Result<(), RunError> {
        self.held_out.iter().try_for_each(|(file, _)| file.sync())?;
        self.rollouts.sync()
    }
}

fn line(facts: &SampleFacts, group: &Group, rollout: &Rollout) -> Value {
    let (role, image) = match rollout.role {
        ImageRole::Anchor => ("anchor", &facts.anchor),
        ImageRole::Positive => ("positive", &facts.positive),
    };
    let reading = AnswerReading::of(&rollout.text);
    json!({
        "row": group.prompt.anchor.name,
        "role": role,
        "image": image,
        "negative": facts.negative,
        "prompt": facts.prompt,
        "truth": group.prompt.truth,
        "response": rollout.text,
        "answer": reading.answer(),
        "answers": reading.blocks().len(),
        "tokens": rollout.response.ids.len(),
        "finished": rollout.response.finish == FinishReason::Stop,
        "rewards": rollout.reward.parts,
        "reward": rollout.reward.overall,
    })
}
