//! What a run should say aloud: a number that shows that training does not do what was meant. Each finding is one line
//! that says what was seen and what to do.

use std::fmt;

use fieldmark_model::ModelPart;

use crate::tapo::Parted;

/// Something that training noticed and the user should know. Its text is one line.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// How many groups are expected to teach something, before the first update.
    Outlook {
        /// Mean accuracy that was measured, from 0 to 1.
        accuracy: f64,
        /// Expected or measured share of groups with right and wrong responses, from 0 to 1.
        share: f64,
        /// Number of responses in a group.
        group: usize,
        /// Number of sampled groups that the share was counted over; `None` if it is expected from the accuracy.
        counted: Option<usize>,
    },
    /// A step draws more prompts than there are rows.
    Passes {
        /// Number of the rollout step, from 1.
        step: usize,
        /// Number of prompts drawn.
        drawn: usize,
        /// Number of rows.
        rows: usize,
    },
    /// No group of a step passed the filter, so the step makes no update.
    NoGroup {
        /// Number of the rollout step, from 1.
        step: usize,
        /// Number of groups drawn.
        drawn: usize,
        /// Number of groups in which every response was right.
        all_right: usize,
        /// Number of groups in which every response was wrong.
        all_wrong: usize,
    },
    /// Every advantage of a step is 0, so its rewards teach nothing.
    NoAdvantage {
        /// Number of the rollout step, from 1.
        step: usize,
        /// Number of groups that the step trains on.
        groups: usize,
    },
    /// Responses are much shorter than in the first step.
    ShortResponses {
        /// Number of the rollout step, from 1.
        step: usize,
        /// Mean number of tokens now.
        tokens: f64,
        /// Mean number of tokens in the first step.
        first: f64,
    },
    /// Log-probabilities do not change if the image is blanked.
    Blind {
        /// Number of the rollout step, from 1.
        step: usize,
        /// Mean absolute difference of a token's log-probability, in nats.
        gap: f64,
    },
    /// A part that is trained has had no gradient since the first update, while others have.
    Idle {
        /// Number of the update, from 1.
        update: usize,
        /// The part.
        part: ModelPart,
    },
    /// Answers contain the right name more often, but are the right name no more often.
    Parted(Parted),
}

/// What to say about parts without gradient after update `update`: at updates 1, 2, 4, 8 and so on, so that a long run
/// does not say it in every line, and a resumed run says the same.
pub(crate) fn idle_findings(update: usize, idle: &[String]) -> Vec<Finding> {
    let named = ModelPart::ALL.into_iter().filter(|part| idle.iter().any(|name| name == part.name()));
    named.filter(|_| update.is_power_of_two()).map(|part| Finding::Idle { update, part }).collect()
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outlook { accuracy, share, group, counted } => {
                let (percent, ten) = (100.0 * accuracy, 10.0 * share);
                write!(f, "measured accuracy {percent:.0} %: ")?;
                match counted {
                    Some(counted) => write!(f, "{ten:.1} groups of ten teach something (of {counted} sampled")?,
                    None => write!(f, "about {ten:.1} groups of ten are expected to teach something (")?,
                }
                let comma = if counted.is_some() { "; " } else { "" };
                write!(f, "{comma}a group of {group} teaches if some of its responses are right and some wrong)")
            }
            Self::Passes { step, drawn, rows } => {
                let passes = *drawn as f64 / *rows as f64;
                write!(
                    f,
                    "step {step} passes over the data {passes:.1} times: it draws {drawn} prompts from {rows} rows; use more \
                     rows or a lower tapo.prompts_per_step"
                )
            }
            Self::NoGroup { step, drawn, all_right, all_wrong } => write!(
                f,
                "step {step} makes no update: none of {drawn} groups passes the filter ({all_right} all right, {all_wrong} \
                 all wrong)"
            ),
            Self::NoAdvantage { step, groups } => write!(
                f,
                "step {step} learns nothing from its rewards: all responses of each of its {groups} groups have the same \
                 reward, so every advantage is 0"
            ),
            Self::ShortResponses { step, tokens, first } => write!(
                f,
                "the responses become short: {tokens:.1} tokens on average in step {step}, {first:.1} in the first step; \
                 look at them in rollouts.jsonl"
            ),
            Self::Blind { step, gap } => write!(
                f,
                "the model does not look at the image: in step {step}, log-probabilities change by {gap:.1e} on average \
                 when it is blanked; check the images, the vision encoder and the projector"
            ),
            Self::Idle { update, part } => write!(
                f,
                "{} is trained, but its gradient has been 0 since the first update (now update {update}); if that is \
                 not meant, check the model, and otherwise freeze the part",
                part.name()
            ),
            Self::Parted(parted) => parted.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_its_numbers() {
        let outlook = |counted| Finding::Outlook { accuracy: 0.25, share: 0.68, group: 4, counted };
        for (finding, numbers) in [
            (outlook(None), &["25 %", "6.8"][..]),
            (outlook(Some(7)), &["25 %", "6.8", "of 7"]),
            (Finding::Passes { step: 3, drawn: 48, rows: 16 }, &["step 3", "3.0 times", "48", "16"]),
            (Finding::NoGroup { step: 2, drawn: 9, all_right: 4, all_wrong: 5 }, &["step 2", "9", "4 all", "5 all"]),
            (Finding::NoAdvantage { step: 2, groups: 8 }, &["step 2", "8 groups"]),
            (Finding::ShortResponses { step: 9, tokens: 3.5, first: 31.0 }, &["3.5", "step 9", "31.0"]),
            (Finding::Blind { step: 1, gap: 2e-5 }, &["step 1", "2.0e-5"]),
            (Finding::Idle { update: 2, part: ModelPart::Vision }, &["vision", "update 2"]),
        ] {
            let text = finding.to_string();
            assert!(numbers.iter().all(|number| text.contains(number)), "{text}");
            assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        }
    }
}
