//! Partial credit for answers that are close to the truth, in spelling or in the embedding of a text encoder.

use fieldmark_data::{normal_form, strict_answer};
use fieldmark_processor::{TextEmbedder, cosine};

use super::input::{Reward, RewardInput};

/// `1 - d/n`, where d is the Levenshtein distance of answer and truth and n the number of characters of the longer one.
/// Of several names of the truth, the closest counts. 0 without an answer.
///
/// It compares spelling, not meaning: "Boeing 737-200" is very close to "Boeing 737-300", and a synonym scores low.
/// Answer and truth are compared in normal form, as in [`Exact`](super::Exact).
#[derive(Debug, Clone, Copy, Default)]
pub struct TextSimilarity;

impl Reward for TextSimilarity {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let answer = strict_answer(input.response).map(normal_form).unwrap_or_default();
        if answer.is_empty() {
            return 0.0;
        }
        let names = input.names().map(normal_form).filter(|name| !name.is_empty());
        names.map(|name| strsim::normalized_levenshtein(&answer, &name)).fold(0.0, f64::max)
    }
}

/// Name in recipes of the [`EmbeddingSimilarity`] that uses the encoder in `model.text_encoder`.
pub const SEMANTIC: &str = "semantic";

/// Cosine of the embeddings of answer and truth, or 0 if it is negative or there is no answer. Of several names of the
/// truth, the closest counts.
///
/// With a `fieldmark_processor::SiglipEmbedder` it is the reward [`SEMANTIC`] of recipes. That encoder was not trained
/// to separate unlike texts: the names of two classes have cosines far above 0, so only differences within a group are
/// meaningful.
#[derive(Debug, Clone)]
pub struct EmbeddingSimilarity<E> {
    embedder: E,
}

impl<E: TextEmbedder> EmbeddingSimilarity<E> {
    /// Makes a reward that uses `embedder`. Answer and truth are embedded unchanged.
    pub fn new(embedder: E) -> Self {
        Self { embedder }
    }
}

impl<E: TextEmbedder> Reward for EmbeddingSimilarity<E> {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let Some(answer) = strict_answer(input.response) else { return 0.0 };
        let answer = self.embedder.embed(answer);
        let cosines = input.names().map(|name| cosine(&answer, &self.embedder.embed(name)));
        // `max` would hide a vector that is not finite, which must be reported.
        cosines.fold(0.0, |best, cosine| if best.is_nan() || cosine <= best { best } else { cosine })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_is_the_share_of_characters_that_stay() {
        for (answer, truth, expected) in [
            ("Boeing 737-200", "boeing_737-300", 13.0 / 14.0),
            ("kitten", "sitting", 1.0 - 3.0 / 7.0),
            ("Lime", "Lime", 1.0),
            ("abc", "xyz", 0.0),
            ("", "Lime", 0.0),
        ] {
            let response = format!("<answer>{answer}</answer>");
            let found = TextSimilarity.score(&RewardInput::new(&response, truth));
            assert!((found - expected).abs() < 1e-12, "{answer} {truth} {found}");
        }
        assert_eq!(TextSimilarity.score(&RewardInput::new("Lime", "Lime")), 0.0);
        assert_eq!(TextSimilarity.score(&RewardInput::new("<answer>_</answer>", "")), 0.0);
    }

    /// How often a text has an a, a b and a c; c counts downwards.
    struct Letters;

    impl TextEmbedder for Letters {
        fn embed(&self, text: &str) -> Vec<f32> {
            let count = |letter| text.matches(letter).count() as f32;
            vec![count('a'), count('b'), -count('c')]
        }
    }

    #[test]
    fn embeddings_are_compared_by_their_angle() {
        let reward = EmbeddingSimilarity::new(Letters);
        let score = |response: &str, truth: &str| reward.score(&RewardInput::new(response, truth));
        // (3, 4, 0) and (1, 0, 0): 3/5.
        assert!((score("<answer>aaabbbb</answer>", "a") - 0.6).abs() < 1e-12);
        assert!((score("<answer>ab</answer>", "aabb") - 1.0).abs() < 1e-12);
        assert_eq!((score("<answer>b</answer>", "a"), score("a", "a")), (0.0, 0.0));
        assert!(score("<answer>x</answer>", "a").is_nan(), "no direction is no number");
        let aliases = ["ab".to_owned(), "b".to_owned()];
        let input = RewardInput::new("<answer>aaabbbb</answer>", "a").with_aliases(&aliases);
        assert!((reward.score(&input) - 7.0 / (5.0 * 2.0_f64.sqrt())).abs() < 1e-7);
        assert_eq!(TextSimilarity.score(&RewardInput::new("<answer>AB</answer>", "xy").with_aliases(&aliases)), 1.0);
    }
}
