//! The answer is the truth and nothing else. Deviation from the released rule, inclusion, which also rewards an answer
//! that lists every candidate, and "border collie" for "collie".

use fieldmark_data::{AnswerReading, normal_form};

use super::input::{Reward, RewardInput};

/// 1 if the response is well-formed and its one answer is the truth or an alias of it, else 0.
///
/// Well-formed means one think block and one answer block, no further tag of the two kinds, and nothing around them
/// ([`AnswerReading::is_well_formed`]); or, without `think`, one answer block alone ([`AnswerReading::is_answer_only`]).
/// Answer and truth are compared in the normal form of strict evaluation ([`normal_form`]). A response that opens the
/// answer twice, or lists names, earns nothing.
#[derive(Debug, Clone, Copy)]
pub struct Accuracy {
    /// Whether a well-formed response has a think block. Default: true.
    pub think: bool,
}

impl Default for Accuracy {
    fn default() -> Self {
        Self { think: true }
    }
}

impl Reward for Accuracy {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let reading = AnswerReading::of(input.response);
        let formed = if self.think { reading.is_well_formed() } else { reading.is_answer_only() };
        f64::from(formed && is_truth(&reading, input))
    }
}

/// 1 if the whole response is one answer block, else 0: the counterpart of [`Format`](super::Format) for a model that
/// does not think.
///
/// White space around and within the tags does not count, as in the released reward.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnswerOnly;

impl Reward for AnswerOnly {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        f64::from(AnswerReading::of(input.response).is_answer_only())
    }
}

/// 1 if the one answer is the truth or an alias of it, else 0. Unlike [`Accuracy`], it does not ask for a think block.
///
/// A response with two answer blocks, or none, has no answer ([`AnswerReading::answer`]).
#[derive(Debug, Clone, Copy, Default)]
pub struct Exact;

impl Reward for Exact {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        f64::from(is_truth(&AnswerReading::of(input.response), input))
    }
}

fn is_truth(reading: &AnswerReading<'_>, input: &RewardInput<'_>) -> bool {
    reading.answer().map(normal_form).is_some_and(|answer| {
        let mut names = input.names().map(normal_form);
        !answer.is_empty() && names.any(|name| name == answer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_truth_and_nothing_more() {
        // response, truth, accuracy, exact
        for (response, truth, accuracy, exact) in [
            ("<think>x</think><answer>Collie</answer>", "Collie", 1.0, 1.0),
            ("\n<think>x</think>\n<answer> Collie\n</answer>\n", "Collie", 1.0, 1.0),
            ("<answer>Collie</answer>", "Collie", 0.0, 1.0),
            ("<answer> border_collie\n</answer>", "Border Collie", 0.0, 1.0),
            ("<think>x</think><answer>42 / 72</answer>", "42/72", 1.0, 1.0),
            ("<think>x</think><answer>42/72</answer>", "42 / 72", 1.0, 1.0),
            ("<think>x</think><answer>Collie</answer>", "Collie\n", 1.0, 1.0),
            ("<think>x</think><answer>Collie</answer>", "<answer>Collie</answer>", 1.0, 1.0),
            ("<think>x</think><answer>Jalape\u{f1}o</answer>", "Jalapen\u{303}o", 1.0, 1.0),
            ("<think>x</think><answer>Cook's Petrel</answer>", "Cook\u{2019}s Petrel", 1.0, 1.0),
            ("<think>x</think><answer>Cook\u{2019}s Petrel</answer>", "Cook's Petrel", 1.0, 1.0),
            ("<think>x</think><answer>Border Collie</answer>", "Collie", 0.0, 0.0),
            ("<think>x</think><answer>Collie or Komondor</answer>", "Collie", 0.0, 0.0),
            ("<think>x</think><answer>not a Collie</answer>", "Collie", 0.0, 0.0),
            ("<think><answer>Collie</answer></think>", "Collie", 0.0, 0.0),
            ("<think>x</think><answer>Komondor</answer> <answer>Collie</answer>", "Collie", 0.0, 0.0),
            ("<think>x</think><answer>Collie</answer><answer>Collie</answer>", "Collie", 0.0, 0.0),
            ("<think>x</think><answer><answer>Collie</answer>", "Collie", 0.0, 0.0),
            ("<think>x</think><answer>Collie</answer><answer>Kom", "Collie", 0.0, 0.0),
            ("<think>a <answer>b</answer></think><answer>Collie</answer>", "Collie", 0.0, 1.0),
            ("So: <think>x</think><answer>Collie</answer>", "Collie", 0.0, 1.0),
            ("Collie", "Collie", 0.0, 0.0),
            ("<think>x</think><answer></answer>", "", 0.0, 0.0),
            ("<think>x</think><answer>_</answer>", "_", 0.0, 0.0),
        ] {
            let input = RewardInput::new(response, truth);
            assert_eq!(
                [Accuracy::default().score(&input), Exact.score(&input)],
                [accuracy, exact],
                "{response} for {truth}"
            );
        }
    }

    #[test]
    fn an_alias_is_as_right_as_the_name() {
        let aliases = ["Granny".to_owned(), "Malus 'Granny Smith'".to_owned()];
        for (answer, expected) in
            [("granny", 1.0), ("malus \u{2018}Granny Smith\u{2019}", 1.0), ("Granny Smith", 1.0), ("Gran", 0.0)]
        {
            let response = format!("<think>x</think><answer>{answer}</answer>");
            let input = RewardInput::new(&response, "Granny Smith").with_aliases(&aliases);
            assert_eq!(Accuracy::default().score(&input), expected, "{answer}");
        }
    }

    #[test]
    fn without_a_thought_the_answer_stands_alone() {
        // response, accuracy without `think`, answer_only
        for (response, accuracy, alone) in [
            ("<answer>Collie</answer>", 1.0, 1.0),
            ("\n< answer > border_collie\n</ answer >\u{1c}", 0.0, 1.0),
            ("<answer>Komondor</answer>", 0.0, 1.0),
            ("<answer></answer>", 0.0, 1.0),
            ("<think>x</think><answer>Collie</answer>", 0.0, 0.0),
            ("<think></think><answer>Collie</answer>", 0.0, 0.0),
            ("It is <answer>Collie</answer>", 0.0, 0.0),
            ("<answer>Collie</answer>.", 0.0, 0.0),
            ("<answer>Collie</answer><answer>Collie</answer>", 0.0, 0.0),
            ("<answer><answer>Collie</answer>", 0.0, 0.0),
            ("<answer>Collie", 0.0, 0.0),
            ("</answer>Collie<answer>", 0.0, 0.0),
            ("Collie", 0.0, 0.0),
            ("", 0.0, 0.0),
        ] {
            let input = RewardInput::new(response, "Collie");
            let found = [Accuracy { think: false }.score(&input), AnswerOnly.score(&input)];
            assert_eq!(found, [accuracy, alone], "{response}");
        }
    }
}
