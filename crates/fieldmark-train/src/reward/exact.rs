//! Exact match: the answer is the truth and nothing else. Deviation from the released rule, inclusion, which also
//! rewards an answer that lists every candidate, and "border collie" for "collie".

use fieldmark_data::{normal_form, strict_answer};

use super::input::{Reward, RewardInput};

/// 1 if the last answer block outside the think block equals the truth in normal form, else 0.
///
/// Strict evaluation uses the same answer block and normal form ([`strict_answer`], [`normal_form`]), which ignore
/// case, `_` and white space. The score is 0 if there is no answer or the truth is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exact;

impl Reward for Exact {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let truth = normal_form(input.truth);
        let same = strict_answer(input.response).is_some_and(|answer| normal_form(answer) == truth);
        f64::from(same && !truth.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_truth_and_nothing_more() {
        for (response, truth, expected) in [
            ("<think>x</think><answer>Collie</answer>", "Collie", 1.0),
            ("<answer> border_collie\n</answer>", "Border Collie", 1.0),
            ("<answer>42 / 72</answer>", "42/72", 1.0),
            ("<answer>42/72</answer>", "42 / 72", 1.0),
            ("<answer>Border Collie</answer>", "Collie", 0.0),
            ("<answer>Collie or Komondor</answer>", "Collie", 0.0),
            ("<think><answer>Collie</answer></think>", "Collie", 0.0),
            ("<think>x</think><answer>Komondor</answer> <answer>Collie</answer>", "Collie", 1.0),
            ("Collie", "Collie", 0.0),
            ("<answer></answer>", "", 0.0),
            ("<answer>_</answer>", "_", 0.0),
        ] {
            assert_eq!(Exact.score(&RewardInput::new(response, truth)), expected, "{response} for {truth}");
        }
    }
}
