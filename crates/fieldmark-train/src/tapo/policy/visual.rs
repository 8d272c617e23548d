//! VEPO (arXiv 2606.03937): the policy loss counts only on the tokens that the image decides and that are uncertain. Score of
//! a token: `(1 - (1 - j)^alpha (1 - d)^(1 - alpha)) h`, with the Jensen-Shannon divergence j between the distributions with
//! and without the image, the absolute difference d of their entropies, and the entropy h, each scaled to 0..1 within the
//! response. The best `ceil(share n)` of n tokens count. Reference: `jsd_masking.py` of VEPO, score D, mode `mask`.
//! Deviation: "without the image" is the run's negative image, where VEPO adds noise to the image.

use crate::gradient::TokenContrast;

/// Which tokens count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VisualTokens {
    /// Share of the tokens of a response that count, above 0 and at most 1. VEPO: 0.2.
    pub share: f64,
    /// Weight of the divergence; the rest is that of the difference in entropy. VEPO: 0.7.
    pub alpha: f64,
}

impl VisualTokens {
    /// Chooses the tokens of one response. Of tokens with the same score the earlier one is chosen.
    pub fn choose(&self, tokens: &[TokenContrast]) -> Vec<bool> {
        let scores = self.scores(tokens);
        let count = ((self.share * tokens.len() as f64).ceil() as usize).clamp(1, tokens.len().max(1));
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut chosen = vec![false; tokens.len()];
        order.into_iter().take(count).for_each(|token| chosen[token] = true);
        chosen
    }

    fn scores(&self, tokens: &[TokenContrast]) -> Vec<f64> {
        let divergence = scaled(tokens, |token| token.divergence);
        let change = scaled(tokens, |token| (token.other_entropy - token.entropy).abs());
        let entropy = scaled(tokens, |token| token.entropy);
        let score =
            |((j, d), h): ((f64, f64), f64)| (1.0 - (1.0 - j).powf(self.alpha) * (1.0 - d).powf(1.0 - self.alpha)) * h;
        divergence.into_iter().zip(change).zip(entropy).map(score).collect()
    }
}

/// Maps the values of a response to 0..1, the smallest to 0. All are 0 if they are equal.
fn scaled(tokens: &[TokenContrast], value: impl Fn(&TokenContrast) -> f64) -> Vec<f64> {
    let values: Vec<f64> = tokens.iter().map(value).collect();
    let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(least, most), &v| (least.min(v), most.max(v)));
    let range = (most - least).max(1e-8);
    values.into_iter().map(|value| ((value - least) / range).clamp(0.0, 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(divergence: f64, entropy: f64, other_entropy: f64) -> TokenContrast {
        TokenContrast { divergence, entropy, other_entropy }
    }

    #[test]
    fn scores_by_hand() {
        // Scaled: divergence 0, 1, 0.5, 0.75; change 0, 0.5, 1, 0.25; entropy 0, 0.5, 1, 0.8.
        let tokens = [token(0.1, 1.0, 1.0), token(0.5, 2.0, 1.0), token(0.3, 3.0, 5.0), token(0.4, 2.6, 2.1)];
        let found = VisualTokens { share: 0.5, alpha: 0.5 }.scores(&tokens);
        // With alpha 1/2: 1 - sqrt((1 - j) (1 - d)).
        let expected = [0.0, 0.5, 1.0, 0.8 * (1.0 - (0.25f64 * 0.75).sqrt())];
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-12), "{found:?}");
        // With alpha 1 only the divergence matters, with 0 only the change.
        let found = |alpha| VisualTokens { share: 0.5, alpha }.scores(&tokens);
        assert!(found(1.0).iter().zip([0.0, 0.5, 0.5, 0.6]).all(|(f, e)| (f - e).abs() < 1e-12));
        assert!(found(0.0).iter().zip([0.0, 0.25, 1.0, 0.2]).all(|(f, e)| (f - e).abs() < 1e-12));
    }

    #[test]
    fn the_best_share_of_each_response_counts() {
        let tokens: Vec<TokenContrast> =
            (0..10).map(|i| token(f64::from(i * 3 % 10), 1.0 + f64::from(i), 0.0)).collect();
        let chosen = |share: f64, tokens: &[TokenContrast]| {
            let chosen = VisualTokens { share, alpha: 1.0 }.choose(tokens);
            (0..tokens.len()).filter(|&i| chosen[i]).collect::<Vec<_>>()
        };
        // Divergence 0 3 6 9 2 5 8 1 4 7, times entropy 0..9: 0 3 12 27 8 25 48 7 32 63.
        assert_eq!(chosen(0.2, &tokens), [6, 9]);
        assert_eq!(chosen(0.21, &tokens), [6, 8, 9]);
        assert_eq!(chosen(1.0, &tokens).len(), 10);
        assert_eq!(chosen(0.2, &tokens[..1]), [0]);
        // Without any difference the first ones count.
        assert_eq!(chosen(0.4, &[token(0.3, 2.0, 2.0); 5]), [0, 1]);
        assert!(chosen(0.2, &[]).is_empty());
    }
}
