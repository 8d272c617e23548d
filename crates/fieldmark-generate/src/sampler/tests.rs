//! Both samplers against the definition in f64: the kept sets, the probabilities, the log-probabilities.

use std::collections::BTreeSet;

use burn::tensor::{Device, Tensor, TensorData};
use fieldmark_stream::{RandomStream, StreamKey};

use super::{device::DeviceSampler, host::HostSampler, *};

/// A row of logits, and what the tests need to know of it.
struct Row {
    logits: Vec<f32>,
    seen: BTreeSet<u32>,
}

/// Rows as models give them and as they should not: wide and narrow, flat, with ties, with one dominant token.
fn rows(count: usize, vocab: usize, stream: &mut RandomStream) -> Vec<Row> {
    let row = |kind: usize| -> Row {
        let mut logits: Vec<f32> = (0..vocab).map(|_| (stream.uniform_in(-6.0, 6.0)) as f32).collect();
        match kind % 5 {
            0 => logits.iter_mut().for_each(|x| *x = x.round()),
            1 => logits.fill(1.5),
            2 => logits[kind % vocab] = 40.0,
            3 => logits.iter_mut().for_each(|x| *x *= 0.05),
            _ => {}
        }
        let seen = (0..4).map(|_| stream.below(vocab) as u32).collect();
        Row { logits, seen }
    };
    (0..count).map(row).collect()
}

fn settings() -> Vec<Sampling> {
    let plain = Sampling::nucleus(1.0, 1.0);
    vec![
        Sampling::greedy(),
        plain.clone(),
        Sampling::nucleus(0.7, 0.99),
        Sampling::nucleus(1.3, 0.5),
        Sampling { top_k: 5, ..plain.clone() },
        Sampling { top_k: 20, ..Sampling::nucleus(1.0, 0.8) },
        Sampling { min_p: 0.1, ..plain.clone() },
        Sampling { repetition_penalty: 1.4, min_p: 0.02, ..Sampling::nucleus(0.9, 0.9) },
        Sampling { top_k: 1, ..plain },
    ]
}

fn both(sampling: &Sampling, banned: &[u32], vocab: usize, device: &Device) -> [(&'static str, Sampler); 2] {
    [
        ("host", Sampler::Host(HostSampler { sampling: sampling.clone(), banned: banned.to_vec() })),
        ("device", Sampler::Device(Box::new(DeviceSampler::new(sampling.clone(), banned, vocab, device)))),
    ]
}

/// Draws once for each row.
fn draw(sampler: &Sampler, rows: &[&Row], streams: &mut [RandomStream], device: &Device) -> Vec<Choice> {
    let values: Vec<f32> = rows.iter().flat_map(|row| row.logits.clone()).collect();
    let shape = [rows.len(), rows[0].logits.len()];
    let mut states: Vec<RowState<'_>> =
        rows.iter().zip(streams).map(|(row, stream)| RowState { seen: &row.seen, stream }).collect();
    sampler.next(Tensor::from_data(TensorData::new(values, shape), device), &mut states)
}

fn streams(count: usize, name: &str) -> Vec<RandomStream> {
    (0..count).map(|i| StreamKey::new(7).word(name).number(i as u64).stream()).collect()
}

/// The tokens whose place in the kept set hangs on less than f32 can tell.
fn undecided(sampling: &Sampling, row: &Row, banned: &[u32]) -> BTreeSet<usize> {
    let around = |by: f64| {
        let moved = Sampling {
            top_p: (sampling.top_p + by).min(1.0),
            min_p: if sampling.min_p > 0.0 { sampling.min_p - by } else { 0.0 },
            ..sampling.clone()
        };
        moved.probabilities(&row.logits, &row.seen, banned)
    };
    let (less, more) = (around(-2e-6), around(2e-6));
    (0..less.len()).filter(|&i| (less[i] > 0.0) != (more[i] > 0.0)).collect()
}

#[test]
fn only_kept_tokens_are_drawn_and_their_log_probability_is_of_the_whole_distribution() {
    let device = Device::flex();
    let mut source = RandomStream::new(3, &["rows"]);
    for vocab in [7, 96, 1300] {
        let rows = rows(60, vocab, &mut source);
        let refs: Vec<&Row> = rows.iter().collect();
        // The best token of the third row is the dominant one.
        let banned = [2u32, vocab as u32 - 1, 4_000_000];
        for sampling in settings() {
            for (name, sampler) in both(&sampling, &banned, vocab, &device) {
                let mut streams = streams(rows.len(), "draw");
                for _ in 0..12 {
                    for (row, choice) in rows.iter().zip(draw(&sampler, &refs, &mut streams, &device)) {
                        let token = choice.token as usize;
                        let p = sampling.probabilities(&row.logits, &row.seen, &banned);
                        let at = format!("{name} {vocab} {sampling:?} {token}");
                        assert!(p[token] > 0.0 || undecided(&sampling, row, &banned).contains(&token), "{at}");
                        let whole = Sampling::nucleus(sampling.logp_temperature(), 1.0);
                        let logp = whole.probabilities(&row.logits, &BTreeSet::new(), &[])[token].ln();
                        assert!(
                            (choice.logp - logp).abs() < 2e-6 * logp.abs().max(1.0),
                            "{at}: {} {logp}",
                            choice.logp
                        );
                    }
                }
            }
        }
    }
}

/// Draws many tokens from one row and compares their counts with the probabilities: χ² over the tokens that are expected
/// at least ten times, and every kept one of them is drawn.
#[test]
fn draws_follow_the_probabilities() {
    let device = Device::flex();
    let (batch, repeats) = (200, 20);
    let mut source = RandomStream::new(5, &["rows"]);
    for row in rows(5, 40, &mut source) {
        let batch_rows: Vec<&Row> = vec![&row; batch];
        for sampling in settings().into_iter().skip(1) {
            let p = sampling.probabilities(&row.logits, &row.seen, &[3]);
            for (name, sampler) in both(&sampling, &[3], 40, &device) {
                let mut streams = streams(batch, "chi");
                let mut counts = vec![0usize; 40];
                for _ in 0..repeats {
                    for choice in draw(&sampler, &batch_rows, &mut streams, &device) {
                        counts[choice.token as usize] += 1;
                    }
                }
                let draws = (batch * repeats) as f64;
                let common: Vec<usize> = (0..40).filter(|&i| p[i] * draws >= 10.0).collect();
                let chi: f64 = common.iter().map(|&i| (counts[i] as f64 - p[i] * draws).powi(2) / (p[i] * draws)).sum();
                // Mean and standard deviation of χ² with k degrees of freedom are k and √(2k).
                let k = common.len() as f64;
                assert!(chi < k + 5.0 * (2.0 * k).sqrt(), "{name} {sampling:?}: χ² {chi} of {k}: {counts:?} {p:?}");
            }
        }
    }
}

#[test]
fn a_row_draws_the_same_whatever_is_beside_it() {
    let device = Device::flex();
    let rows = rows(9, 600, &mut RandomStream::new(8, &["rows"]));
    let refs: Vec<&Row> = rows.iter().collect();
    let sampling = Sampling::nucleus(1.0, 0.6);
    for (name, sampler) in both(&sampling, &[], 600, &device) {
        let together = draw(&sampler, &refs, &mut streams(9, "alone"), &device);
        for (i, row) in refs.iter().enumerate() {
            let alone = draw(&sampler, &[row], &mut streams(9, "alone")[i..=i], &device);
            assert_eq!(alone[0].token, together[i].token, "{name} {i}");
        }
    }
}

#[test]
fn logits_that_are_not_finite_give_no_log_probability() {
    let device = Device::flex();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let row = Row { logits: vec![0.5, bad, 1.0], seen: BTreeSet::new() };
        for sampling in settings() {
            for (name, sampler) in both(&sampling, &[], 3, &device) {
                let choice = draw(&sampler, &[&row], &mut streams(1, "bad"), &device)[0];
                assert!(!choice.logp.is_finite(), "{name} {bad} {sampling:?}");
            }
        }
    }
}

#[test]
fn settings_without_meaning_are_refused() {
    for (sampling, key) in [
        (Sampling { temperature: -1.0, ..Sampling::greedy() }, "temperature"),
        (Sampling { top_p: 0.0, ..Sampling::greedy() }, "top_p"),
        (Sampling { min_p: 1.5, ..Sampling::greedy() }, "min_p"),
        (Sampling { repetition_penalty: f64::NAN, ..Sampling::greedy() }, "repetition_penalty"),
    ] {
        assert!(matches!(sampling.validate(), Err(GenerateError::Setting { key: found, .. }) if found == key));
    }
}
