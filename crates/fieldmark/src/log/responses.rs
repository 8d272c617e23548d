//! `rollouts.jsonl` and `validation.jsonl`: every response of TAPO, one per line, with its images, prompt, token ids and
//! rewards, and what became of its group. With the images and the weights of the step, the step can be computed again:
//! texts alone are not enough, because some are tokenised differently when they are read back.

use fieldmark_data::AnswerReading;
use fieldmark_generate::FinishReason;
use fieldmark_processor::Sequence;
use fieldmark_train::tapo::{
    SampleFacts, TapoValidation,
    rollout::{Group, GroupFate, ImageRole, Rollout},
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
    /// Writes the rollouts of step `step`, counted from 1, with the fates of their groups.
    pub(super) fn rollouts(&mut self, step: usize, groups: &[Group], fates: &[GroupFate]) -> Result<(), RunError> {
        for (group, &fate) in groups.iter().zip(fates) {
            let facts = (self.source)(group);
            let (learned_in, dropped) = match fate {
                GroupFate::Now => (Some(step), None),
                GroupFate::Next => (Some(step + 1), None),
                GroupFate::Surplus => (None, Some("surplus")),
                GroupFate::AllWrong => (None, Some("all_wrong")),
                GroupFate::AllRight => (None, Some("all_right")),
            };
            for rollout in &group.rollouts {
                let mut line = line(&facts, group, rollout);
                line["rollout_step"] = step.into();
                line["kept"] = learned_in.is_some().into();
                line["learned_in"] = learned_in.into();
                line["dropped"] = dropped.into();
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
    let prompt = &group.prompt;
    let sampled_on = prompt.about(rollout.role).unwrap_or(&prompt.anchor);
    let grid = |sequence: Option<&Sequence>| {
        sequence.map(|sequence| sequence.grids().iter().map(|grid| [grid.h, grid.w]).collect::<Vec<_>>())
    };
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
        "ids": rollout.response.ids,
        "prompt_ids": runs(&sampled_on.ids),
        "grids": {
            "anchor": grid(Some(&prompt.anchor)),
            "positive": grid(prompt.positive.as_ref()),
            "negative": grid(prompt.negative.as_ref()),
        },
        "finished": rollout.response.finish == FinishReason::Stop,
        "rewards": rollout.reward.parts,
        "reward": rollout.reward.overall,
    })
}

/// Shortest run of equal ids that is written as one entry.
const RUN: usize = 4;

/// Ids with runs of equal ones, such as the tokens of an image, written as `[id, count]`.
fn runs(ids: &[u32]) -> Vec<Value> {
    let mut found = Vec::new();
    for run in ids.chunk_by(|a, b| a == b) {
        match run.len() {
            RUN.. => found.push(json!([run[0], run.len()])),
            _ => found.extend(run.iter().map(|&id| Value::from(id))),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_ids_are_short() {
        let ids = [5, 9, 9, 9, 9, 9, 3, 3, 7, 7, 7, 7];
        assert_eq!(Value::from(runs(&ids)), json!([5, [9, 5], 3, 3, [7, 4]]));
        assert!(runs(&[]).is_empty());
    }
}
