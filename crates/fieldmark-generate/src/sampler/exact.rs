//! The distribution that the samplers draw from, in f64 and with sorted tokens: what [`super::host`] and
//! [`super::device`] are compared with. The order is that of transformers' logits processors: repetition penalty, banned
//! tokens, temperature, top-k, top-p, min-p.

use std::collections::BTreeSet;

use super::Sampling;

impl Sampling {
    /// Returns the probability of each token, `[vocab]`, given the logits, `[vocab]`, and the tokens already in the
    /// sequence. Greedy sampling gives one token probability 1.
    ///
    /// A token that ties with the last one kept by top-k is kept too. Of tokens that tie at the bound of top-p, those
    /// with a lower id are dropped first.
    pub fn probabilities(&self, logits: &[f32], seen: &BTreeSet<u32>, banned: &[u32]) -> Vec<f64> {
        let mut scores = self.scores(logits, seen, banned);
        if self.temperature == 0.0 {
            let best = argmax(&scores);
            return (0..scores.len()).map(|i| f64::from(u8::from(i == best))).collect();
        }
        scores.iter_mut().for_each(|score| *score /= self.temperature);
        if self.top_k > 0 && self.top_k < scores.len() {
            let mut sorted = scores.clone();
            sorted.sort_unstable_by(|a, b| b.total_cmp(a));
            drop_below(&mut scores, sorted[self.top_k - 1]);
        }
        if self.top_p < 1.0 {
            let probabilities = softmax(&scores);
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            order.pop();
            let mut sum = 0.0;
            for token in order {
                sum += probabilities[token];
                if sum > 1.0 - self.top_p {
                    break;
                }
                scores[token] = f64::NEG_INFINITY;
            }
        }
        if self.min_p > 0.0 {
            let best = scores[argmax(&scores)];
            drop_below(&mut scores, best + self.min_p.ln());
        }
        softmax(&scores)
    }

    /// Returns the logits with repetition penalty and bans.
    fn scores(&self, logits: &[f32], seen: &BTreeSet<u32>, banned: &[u32]) -> Vec<f64> {
        let mut scores: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
        if self.repetition_penalty != 1.0 {
            for &token in seen {
                if let Some(score) = scores.get_mut(token as usize) {
                    *score =
                        if *score < 0.0 { *score * self.repetition_penalty } else { *score / self.repetition_penalty };
                }
            }
        }
        for &token in banned {
            if let Some(score) = scores.get_mut(token as usize) {
                *score = f64::NEG_INFINITY;
            }
        }
        scores
    }
}

fn drop_below(scores: &mut [f64], least: f64) {
    scores.iter_mut().filter(|score| **score < least).for_each(|score| *score = f64::NEG_INFINITY);
}

/// Returns the first index of the largest score.
fn argmax(scores: &[f64]) -> usize {
    let mut best = 0;
    for (i, &score) in scores.iter().enumerate() {
        if score > scores[best] {
            best = i;
        }
    }
    best
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().fold(f64::NEG_INFINITY, |max, &x| max.max(x));
    let exp: Vec<f64> = scores.iter().map(|&x| (x - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|x| x / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_token_has_no_probability_even_where_it_is_the_best() {
        for sampling in [Sampling::greedy(), Sampling::nucleus(1.0, 0.9)] {
            let p = sampling.probabilities(&[9.0, 1.0, 0.5], &BTreeSet::new(), &[0]);
            assert_eq!(p[0], 0.0);
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn the_penalty_lowers_what_is_there_whatever_its_sign() {
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::greedy() };
        let scores = sampling.scores(&[4.0, -1.0, 1.0], &BTreeSet::from([0, 1]), &[]);
        assert_eq!(scores, [2.0, -2.0, 1.0]);
    }

    #[test]
    fn min_p_keeps_what_is_likely_beside_the_best() {
        // Probabilities 8 : 4 : 2 : 1; a fourth of the best is kept, less is not.
        let logits = [8f32, 4.0, 2.0, 1.0].map(f32::ln);
        let sampling = Sampling { min_p: 0.2, ..Sampling::nucleus(1.0, 1.0) };
        let p = sampling.probabilities(&logits, &BTreeSet::new(), &[]);
        for (found, wanted) in p.iter().zip([8.0 / 14.0, 4.0 / 14.0, 2.0 / 14.0, 0.0]) {
            assert!((found - wanted).abs() < 1e-6, "{p:?}");
        }
    }
}
