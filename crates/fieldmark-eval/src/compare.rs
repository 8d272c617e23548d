//! Compares two models on the same questions: McNemar's exact test on the questions that only one model answers right.

use std::collections::BTreeMap;

use crate::predictions::Prediction;
use crate::score::Matching;

/// Counts of right answers to the questions that both models were asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedComparison {
    /// Questions that both models answer right.
    pub both: usize,
    /// Questions that only the first model answers right.
    pub only_first: usize,
    /// Questions that only the second model answers right.
    pub only_second: usize,
    /// Questions that neither model answers right.
    pub neither: usize,
    /// The two-sided probability that equally good models differ at least this much.
    pub p_value: f64,
}

impl PairedComparison {
    /// Compares predictions with the same data set, split, world, file, row and option order; ignores all others.
    pub fn of(first: &[Prediction], second: &[Prediction], matching: Matching) -> Self {
        let judged = |predictions: &[Prediction]| -> BTreeMap<_, bool> {
            let rows = predictions.iter();
            rows.map(|prediction| {
                let question = &prediction.question;
                let name = (question.dataset.clone(), question.split, question.world);
                let key = (name, question.file.clone(), question.row, question.option_order);
                (key, matching.is_right(prediction))
            })
            .collect()
        };
        let (first, second) = (judged(first), judged(second));
        let mut counts = [[0; 2]; 2];
        for (key, right) in &first {
            if let Some(other) = second.get(key) {
                counts[usize::from(*right)][usize::from(*other)] += 1;
            }
        }
        let [[neither, only_second], [only_first, both]] = counts;
        Self { both, only_first, only_second, neither, p_value: two_sided_sign_test(only_first, only_second) }
    }
}

/// Returns twice the smaller tail of the binomial distribution with probability ½, at most 1.
fn two_sided_sign_test(a: usize, b: usize) -> f64 {
    let n = a + b;
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for k in 1..=a.min(b) {
        log_term += ((n - k + 1) as f64).ln() - (k as f64).ln();
        tail += log_term.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use fieldmark_data::Split;

    use super::*;
    use crate::predictions::tests::prediction;
    use crate::question::World;

    #[test]
    fn tails_are_the_binomials() {
        // 2 · (1 + 10 + 45) / 2¹⁰, and 2 / 2⁵.
        assert!((two_sided_sign_test(2, 8) - 0.109_375).abs() < 1e-12);
        assert!((two_sided_sign_test(0, 5) - 0.0625).abs() < 1e-12);
        assert_eq!(two_sided_sign_test(0, 0), 1.0);
        assert_eq!(two_sided_sign_test(4, 4), 1.0);
        // Far out, the normal approximation: 2 · (1 − Φ(z)) at z = 200 / sqrt(2200) with continuity correction.
        let far = two_sided_sign_test(1000, 1200);
        assert!((far / 2.205e-5 - 1.0).abs() < 0.02, "{far:e}");
    }

    #[test]
    fn only_common_questions_count() {
        let ask = |row, right| {
            let output = if right { "<answer>A</answer>" } else { "<answer>B</answer>" };
            prediction("bird", Split::Seen, World::Closed, row, "A", output)
        };
        let first = [ask(1, true), ask(2, true), ask(3, false), ask(4, true), ask(5, false)];
        let second = [ask(4, true), ask(3, true), ask(2, false), ask(1, false), ask(9, true)];
        let found = PairedComparison::of(&first, &second, Matching::Strict);
        let expected = PairedComparison { both: 1, only_first: 2, only_second: 1, neither: 0, p_value: 1.0 };
        assert_eq!(found, expected);
    }
}
