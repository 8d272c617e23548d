//! Chooses the next token from the logits of one position, in f64 on the CPU.
//!
//! Order and meaning are those of transformers' logits processors: repetition penalty, banned tokens, temperature,
//! top-k, top-p (`TopPLogitsWarper`: drops tokens from the least likely upwards while their total probability is at
//! most 1 − p).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use fieldmark_stream::RandomStream;

use crate::error::GenerateError;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Divides the logits; 0 always takes the most likely token.
    pub temperature: f64,
    /// Keeps this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most likely tokens that together have this probability; 1 keeps all.
    pub top_p: f64,
    /// Divides the positive and multiplies the negative logits of tokens already in prompt or response; 1 is no
    /// penalty.
    pub repetition_penalty: f64,
}

impl Sampling {
    /// Always takes the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0 }
    }

    /// Draws at `temperature` from the most likely tokens that together have probability `top_p`.
    pub fn nucleus(temperature: f64, top_p: f64) -> Self {
        Self { temperature, top_k: 0, top_p, repetition_penalty: 1.0 }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// Returns [`GenerateError::Setting`] for the first invalid value.
    pub fn validate(&self) -> Result<(), GenerateError> {
        let refuse = |key, reason: &str| Err(GenerateError::Setting { key, reason: reason.into() });
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return refuse("temperature", "must be 0 (greedy) or a positive number");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", "must be above 0 and at most 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return refuse("repetition_penalty", "must be a positive number; 1 is no penalty");
        }
        Ok(())
    }

    /// Returns the probability of each token, `[vocab]`, given the logits, `[vocab]`, and the tokens already in the
    /// sequence. Greedy sampling gives one token probability 1.
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
            let least = sorted[self.top_k - 1];
            scores.iter_mut().filter(|score| **score < least).for_each(|score| *score = f64::NEG_INFINITY);
        }
        let mut probabilities = softmax(&scores);
        if self.top_p < 1.0 {
            // Tokens below (1 − p) / vocabulary are dropped without sorting: together they have less than 1 − p.
            let cut = 1.0 - self.top_p;
            let small = cut / scores.len() as f64;
            let (mut order, tail): (Vec<usize>, Vec<usize>) =
                (0..scores.len()).partition(|&token| probabilities[token] >= small);
            order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            let mut sum = 0.0;
            for token in tail {
                sum += probabilities[token];
                scores[token] = f64::NEG_INFINITY;
            }
            let keep_last = order.len() - 1;
            for &token in &order[..keep_last] {
                sum += probabilities[token];
                if sum > cut {
                    break;
                }
                scores[token] = f64::NEG_INFINITY;
            }
            probabilities = softmax(&scores);
        }
        probabilities
    }

    /// Returns the next token and its log-probability at this temperature (1 for greedy) over the whole vocabulary,
    /// without penalty, bans and dropped tokens: the value that a trainer recomputes.
    pub fn next(&self, logits: &[f32], seen: &BTreeSet<u32>, banned: &[u32], stream: &mut RandomStream) -> (u32, f64) {
        let token = if self.temperature == 0.0 {
            argmax(&self.scores(logits, seen, banned))
        } else {
            let probabilities = self.probabilities(logits, seen, banned);
            let mut left = stream.uniform();
            let drawn = probabilities.iter().position(|p| {
                left -= p;
                left < 0.0
            });
            // Rounding can leave the sum slightly below the draw, which then belongs to the last token with any
            // probability.
            drawn.unwrap_or_else(|| probabilities.iter().rposition(|&p| p > 0.0).unwrap_or(0))
        };
        let temperature = if self.temperature == 0.0 { 1.0 } else { self.temperature };
        let scaled = |x: f32| f64::from(x) / temperature;
        let max = logits.iter().fold(f64::NEG_INFINITY, |max, &x| max.max(scaled(x)));
        let sum: f64 = logits.iter().map(|&x| (scaled(x) - max).exp()).sum();
        (token as u32, scaled(logits[token]) - max - sum.ln())
    }

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
    fn draws_follow_the_probabilities() {
        let logits = [1.0f32, 0.0, -1.0, 2.0];
        let sampling = Sampling::nucleus(0.8, 1.0);
        let p = sampling.probabilities(&logits, &BTreeSet::new(), &[]);
        let mut stream = RandomStream::new(11, &["draws"]);
        let mut counts = [0usize; 4];
        for _ in 0..20_000 {
            counts[sampling.next(&logits, &BTreeSet::new(), &[], &mut stream).0 as usize] += 1;
        }
        for (count, p) in counts.iter().zip(&p) {
            let sigma = (p * (1.0 - p) / 20_000.0).sqrt();
            assert!((*count as f64 / 20_000.0 - p).abs() < 4.5 * sigma, "{counts:?} {p}");
        }
    }

    #[test]
    fn the_log_probability_is_of_the_whole_distribution() {
        let logits = [1.0f32, 0.0, 3.0];
        let sampling = Sampling { top_k: 1, ..Sampling::nucleus(0.5, 1.0) };
        let (token, logp) = sampling.next(&logits, &BTreeSet::new(), &[], &mut RandomStream::new(0, &[]));
        let sum: f64 = logits.iter().map(|&x| (2.0 * f64::from(x)).exp()).sum();
        assert_eq!(token, 2);
        assert!((logp - (6.0 - sum.ln())).abs() < 1e-12);
    }

    #[test]
    fn the_penalty_lowers_what_is_there_whatever_its_sign() {
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::greedy() };
        let scores = sampling.scores(&[4.0, -1.0, 1.0], &BTreeSet::from([0, 1]), &[]);
        assert_eq!(scores, [2.0, -2.0, 1.0]);
    }

    #[test]
    fn settings_without_meaning_are_refused() {
        for (sampling, key) in [
            (Sampling { temperature: -1.0, ..Sampling::greedy() }, "temperature"),
            (Sampling { top_p: 0.0, ..Sampling::greedy() }, "top_p"),
            (Sampling { repetition_penalty: f64::NAN, ..Sampling::greedy() }, "repetition_penalty"),
        ] {
            assert!(matches!(sampling.validate(), Err(GenerateError::Setting { key: found, .. }) if found == key));
        }
    }
}
