//! Rule reward of TAPO: `r = 0.9 accuracy + 0.1 format`, as the released `cls_thinking.py` computes it.
//! White space around `<`, `>` and `/` is removed first, from the response only. Accuracy: the lower-cased truth is
//! contained in the first answer block. Format: the whole response is one think block, then one answer block.
//! White space is Python's (`\s` and `str.strip`): Unicode's White_Space and the separators U+001C to U+001F.

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Scores one response against the truth.
pub trait Reward: Send + Sync {
    /// Short name, used as the key in metrics.
    fn name(&self) -> &str;

    /// Score of `response` (text decoded without special tokens up to the end token), usually in 0..=1.
    fn score(&self, response: &str, truth: &str) -> f64;
}

fn pattern(source: &str) -> Regex {
    Regex::new(source).expect("a constant pattern, covered by tests")
}

static TIGHTEN: LazyLock<Regex> = LazyLock::new(|| pattern(r"[\s\x1c-\x1f]*([<>/])[\s\x1c-\x1f]*"));
static WELL_FORMED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?s)\A<think>.*?</think>[\s\x1c-\x1f]*<answer>.*?</answer>\z"));
static ANSWER: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)<answer>(.*?)</answer>"));

fn tighten(response: &str) -> Cow<'_, str> {
    TIGHTEN.replace_all(response, "$1")
}

fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// 1 if the lower-cased truth is a substring of the first `<answer>` block (stripped, lower-cased), else 0.
///
/// An empty truth is contained in every closed block. A truth with white space around `/` never matches, since that
/// white space is removed from the response alone. Reference: `accuracy_reward` of the released reward.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accuracy;

impl Reward for Accuracy {
    fn name(&self) -> &str {
        "accuracy"
    }

    fn score(&self, response: &str, truth: &str) -> f64 {
        let text = tighten(response);
        let found = ANSWER
            .captures(&text)
            .is_some_and(|block| block[1].trim_matches(is_python_space).to_lowercase().contains(&truth.to_lowercase()));
        f64::from(found)
    }
}

/// 1 if the whole response is a think block, optional white space, and an answer block, else 0.
///
/// Surrounding white space does not count; tags are case-sensitive. Reference: `format_reward` of the released reward.
#[derive(Debug, Clone, Copy, Default)]
pub struct Format;

impl Reward for Format {
    fn name(&self) -> &str {
        "format"
    }

    fn score(&self, response: &str, _truth: &str) -> f64 {
        f64::from(WELL_FORMED.is_match(&tighten(response)))
    }
}

/// A reward and the two parts it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RewardScore {
    /// The part the group filter looks at.
    pub accuracy: f64,
    /// The part for the response's form.
    pub format: f64,
    /// The weighted sum, from which advantages are made.
    pub overall: f64,
}

/// The weighted sum of an accuracy and a format reward.
///
/// Either part can be any [`Reward`]; the default is the released one, 0.9 [`Accuracy`] + 0.1 [`Format`].
pub struct WeightedReward {
    accuracy: (f64, Box<dyn Reward>),
    format: (f64, Box<dyn Reward>),
}

impl Default for WeightedReward {
    fn default() -> Self {
        Self { accuracy: (0.9, Box::new(Accuracy)), format: (0.1, Box::new(Format)) }
    }
}

impl WeightedReward {
    /// Weighted sum of two rewards.
    ///
    /// # Errors
    /// A weight that is negative or not finite.
    pub fn new(accuracy: (f64, Box<dyn Reward>), format: (f64, Box<dyn Reward>)) -> Result<Self, TrainError> {
        for (key, weight) in [("accuracy_weight", accuracy.0), ("format_weight", format.0)] {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(TrainError::Setting { key, value: weight.to_string(), expected: "a number of at least 0" });
            }
        }
        Ok(Self { accuracy, format })
    }

    /// Both parts and their weighted sum.
    pub fn parts(&self, response: &str, truth: &str) -> RewardScore {
        let accuracy = self.accuracy.1.score(response, truth);
        let format = self.format.1.score(response, truth);
        RewardScore { accuracy, format, overall: self.accuracy.0 * accuracy + self.format.0 * format }
    }
}

impl Reward for WeightedReward {
    fn name(&self) -> &str {
        "overall"
    }

    fn score(&self, response: &str, truth: &str) -> f64 {
        self.parts(response, truth).overall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        response: String,
        ground_truth: String,
        #[serde(flatten)]
        expected: RewardScore,
    }

    #[test]
    fn every_reference_case_has_its_reward() {
        let text = include_str!("../../../tests/fixtures/tapo/rewards.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert_eq!(cases.len(), 24);
        for case in cases {
            let score = WeightedReward::default().parts(&case.response, &case.ground_truth);
            assert_eq!(score, case.expected, "{:?} / {:?}", case.response, case.ground_truth);
        }
    }

    // The expected values are those of the reference's Python expressions, run on these strings.
    #[test]
    fn white_space_and_case_are_pythons() {
        for space in ["\u{1c}", "\u{1f}", "\u{85}", "\u{a0}", "\u{2007}", "\u{3000}", "\x0b"] {
            let response = format!("{space}<think>a</think>{space}<answer>{space}Ash{space}</answer>");
            assert_eq!(Format.score(&response, "ash"), 1.0, "{space:?}");
            assert_eq!(Accuracy.score(&response, "ash"), 1.0, "{space:?}");
        }
        for other in ["\u{200b}", "\u{180e}", "\u{feff}", "\u{1b}", "\u{2060}"] {
            let response = format!("<think>a</think>{other}<answer>Ash</answer>");
            assert_eq!(Format.score(&response, "ash"), 0.0, "{other:?}");
        }
        let answer = |text: &str| format!("<answer>{text}</answer>");
        assert_eq!(Accuracy.score(&answer("ΟΔΟΣ"), "οδος"), 1.0);
        assert_eq!(Accuracy.score(&answer("ΟΔΟΣ"), "οδοσ"), 0.0);
        assert_eq!(Accuracy.score(&answer("STRASSE"), "straße"), 0.0);
        assert_eq!(Accuracy.score(&answer("border collie"), "Collie"), 1.0);
        assert_eq!(Accuracy.score(&answer("anything"), ""), 1.0);
    }

    #[test]
    fn parts_can_be_replaced_and_weights_are_checked() {
        struct Length;
        impl Reward for Length {
            fn name(&self) -> &str {
                "length"
            }
            fn score(&self, response: &str, _: &str) -> f64 {
                response.len() as f64
            }
        }
        let mixed = WeightedReward::new((2.0, Box::new(Accuracy)), (0.25, Box::new(Length))).unwrap();
        assert_eq!(mixed.score("<answer>oak</answer>", "oak"), 2.0 + 0.25 * 20.0);
        let refused = WeightedReward::new((0.9, Box::new(Accuracy)), (-0.1, Box::new(Format)));
        assert!(matches!(refused.err(), Some(TrainError::Setting { key: "format_weight", .. })));
    }
}
