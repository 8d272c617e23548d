//! The arms of a study: what is trained from the base model, and how.

/// The first stage of an arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// None: the base model itself.
    None,
    /// SFT on reasoned answers.
    Reasoned,
    /// SFT on the same questions with the name alone.
    Direct,
}

impl First {
    /// The folder of the stage, and the file of the world that it trains on.
    pub(super) fn stage(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::None => None,
            Self::Reasoned => Some(("cot", "cot.jsonl")),
            Self::Direct => Some(("direct", "direct.jsonl")),
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arm {
    /// The name of its folders.
    pub(super) name: &'static str,
    /// The row's heading.
    pub(super) title: &'static str,
    pub(super) first: First,
    /// Settings laid over the recipe of TAPO; `None` without a second stage.
    pub(super) second: Option<&'static [&'static str]>,
}

const fn arm(name: &'static str, title: &'static str, first: First, second: Option<&'static [&'static str]>) -> Arm {
    Arm { name, title, first, second }
}

/// `recipes/ablations/dapo.toml`.
const DAPO: &[&str] = &[
    "tapo.anchor_rollouts=10",
    "tapo.positive_rollouts=0",
    "tapo.loss.gamma=0.0",
    "tapo.loss.eta1=0.0",
    "tapo.loss.eta2=0.0",
];
/// `recipes/ablations/intra.toml`.
const INTRA: &[&str] = &["tapo.loss.gamma=0.0", "tapo.loss.eta1=0.0", "tapo.loss.eta2=0.0"];
/// `recipes/ablations/inter.toml`; also n₁:n₂ = 10:0.
const INTER: &[&str] = &["tapo.anchor_rollouts=10", "tapo.positive_rollouts=0"];
const EIGHT_TO_TWO: &[&str] = &["tapo.anchor_rollouts=8", "tapo.positive_rollouts=2"];
const TWO_TO_EIGHT: &[&str] = &["tapo.anchor_rollouts=2", "tapo.positive_rollouts=8"];
const NONE_TO_TEN: &[&str] = &["tapo.anchor_rollouts=0", "tapo.positive_rollouts=10"];
/// `recipes/ablations/own-image.toml`.
const OWN_IMAGE: &[&str] = &["tapo.update_image=own"];
/// The reward of `recipes/ablations/released.toml`.
const INCLUSION: &[&str] = &["tapo.rewards.accuracy=0.0", "tapo.rewards.inclusion=0.9", "tapo.filter.key=inclusion"];

/// `recipes/ablations/sapo.toml`.
const SAPO: &[&str] = &[
    "tapo.anchor_rollouts=10",
    "tapo.positive_rollouts=0",
    "tapo.filter.enabled=false",
    "tapo.loss.policy=sapo",
    "tapo.loss.gamma=0.0",
    "tapo.loss.eta1=0.0",
    "tapo.loss.eta2=0.0",
    "tapo.loss.loss_average=sequence",
];
/// `recipes/ablations/cispo.toml`.
const CISPO: &[&str] = &[
    "tapo.anchor_rollouts=10",
    "tapo.positive_rollouts=0",
    "tapo.loss.policy=cispo",
    "tapo.loss.gamma=0.0",
    "tapo.loss.eta1=0.0",
    "tapo.loss.eta2=0.0",
];
/// `recipes/ablations/vepo.toml`.
const VEPO: &[&str] = &[
    "tapo.anchor_rollouts=10",
    "tapo.positive_rollouts=0",
    "tapo.negative=patches",
    "tapo.filter.enabled=false",
    "tapo.loss.clip_low=0.2",
    "tapo.loss.clip_high=0.2",
    "tapo.loss.clip_dual=inf",
    "tapo.loss.visual_tokens=0.2",
    "tapo.loss.gamma=0.0",
    "tapo.loss.eta1=0.0",
    "tapo.loss.eta2=0.0",
];
/// `recipes/ablations/mrn.toml`.
const MRN: &[&str] = &["tapo.estimator=mrn", "tapo.rewards.accuracy=1.0", "tapo.rewards.format=1.0"];
/// The training settings of `recipes/no-think.toml`; the prompt stays the world's, which has no instructions.
const NO_THINK: &[&str] = &["tapo.think=false", "tapo.rewards.format=0.0", "tapo.rewards.answer_only=0.1"];

/// A run that only samples: how DiVE-k finds out what a model confuses.
pub(super) const SAMPLING: &[&str] = &[
    "tapo.epochs=1",
    "tapo.schedule.lr=0.0",
    "tapo.anchor_rollouts=20",
    "tapo.positive_rollouts=0",
    "tapo.filter.enabled=false",
    "tapo.loss.gamma=0.0",
    "tapo.loss.eta1=0.0",
    "tapo.loss.eta2=0.0",
];

/// The arm that the others are compared with.
pub(super) const TAPO: &str = "tapo";
/// The arm that asks questions with options: what the model itself answered after SFT.
pub(super) const DIVE_K: &str = "dive-k";

/// All arms, in the order of the table.
pub(super) const ARMS: [Arm; 19] = [
    arm("base", "base", First::None, None),
    arm("direct", "direct-answer SFT", First::Direct, None),
    arm("cot", "CoT SFT", First::Reasoned, None),
    arm("rl", "TAPO without SFT", First::None, Some(&[])),
    arm("dapo", "CoT SFT + DAPO", First::Reasoned, Some(DAPO)),
    arm("intra", "CoT SFT + intra", First::Reasoned, Some(INTRA)),
    arm("inter", "CoT SFT + inter (n₁:n₂ = 10:0)", First::Reasoned, Some(INTER)),
    arm(TAPO, "CoT SFT + TAPO (5:5)", First::Reasoned, Some(&[])),
    arm("8-2", "TAPO, n₁:n₂ = 8:2", First::Reasoned, Some(EIGHT_TO_TWO)),
    arm("2-8", "TAPO, n₁:n₂ = 2:8", First::Reasoned, Some(TWO_TO_EIGHT)),
    arm("0-10", "TAPO, n₁:n₂ = 0:10", First::Reasoned, Some(NONE_TO_TEN)),
    arm("own-image", "TAPO, update_image = own", First::Reasoned, Some(OWN_IMAGE)),
    arm("inclusion", "TAPO, the released inclusion reward", First::Reasoned, Some(INCLUSION)),
    arm("no-think", "direct-answer SFT + TAPO, no think block", First::Direct, Some(NO_THINK)),
    arm("mrn", "TAPO, rewards normalised one by one", First::Reasoned, Some(MRN)),
    arm("sapo", "CoT SFT + SAPO", First::Reasoned, Some(SAPO)),
    arm("cispo", "CoT SFT + CISPO", First::Reasoned, Some(CISPO)),
    arm("vepo", "CoT SFT + VEPO", First::Reasoned, Some(VEPO)),
    arm(DIVE_K, "CoT SFT + DiVE-k (DAPO on its own confusions)", First::Reasoned, Some(DAPO)),
];

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::recipe::Recipe;

    #[test]
    fn the_arms_are_the_recipes_that_they_name() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../recipes/ablations");
        for (name, settings) in [
            ("dapo", DAPO),
            ("intra", INTRA),
            ("inter", INTER),
            ("own-image", OWN_IMAGE),
            ("sapo", SAPO),
            ("cispo", CISPO),
            ("vepo", VEPO),
            ("mrn", MRN),
        ] {
            let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
            let file = Recipe::read(&[folder.join(format!("{name}.toml"))], &[]).unwrap();
            assert_eq!(Recipe::read(&[], &settings).unwrap(), file, "{name}");
        }
    }
}
