//! Which numbers of a run the dashboard plots, in which order and in which format. They have the names of `metrics.jsonl` and
//! `timings.jsonl`.

use fieldmark::{RunError, log::numbers};
use serde::Serialize;

/// The subject of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// An update.
    Update,
    /// The rollouts of a step.
    Rollouts,
    /// The answers to a validation set.
    Validation,
}

/// A number to plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Whether it was measured on the validation set.
    pub held_out: bool,
    /// The value to plot.
    pub value: f64,
    /// The value as text.
    pub text: String,
}

/// The metrics that are listed first, before any value is known: the screen seldom has room for all.
pub fn first(stage: &str) -> &'static [&'static str] {
    match stage {
        "sft" => &["loss", "grad_norm", "lr", "tokens_per_second", PEAK_MEMORY],
        _ => &[
            "reward",
            "loss",
            "accuracy_anchor",
            "accuracy_positive",
            "all_right",
            "all_wrong",
            "kl_neg",
            "entropy",
            "neg_entropy",
            "clipped_high",
            "clipped_low",
            "grad_norm",
            "response_tokens",
            "sampler_gap",
            "tokens_per_second",
            PEAK_MEMORY,
            "lr",
        ],
    }
}

/// Returns the numbers of a row and of its timing.
///
/// # Errors
/// Returns an error if they cannot be written as JSON.
pub fn metrics(part: Part, row: &impl Serialize, timing: &impl Serialize) -> Result<Vec<Metric>, RunError> {
    let timed = numbers(timing)?.into_iter().map(|(name, value)| match part {
        Part::Update => (name, value),
        Part::Rollouts => (format!("rollouts/{name}"), value),
        Part::Validation => (format!("validation/{name}"), value),
    });
    // The first update of a step has the same age as its rollouts.
    let is_own = |name: &str| part != Part::Rollouts || name != "rollout_age";
    let all = numbers(row)?.into_iter().filter(|(name, _)| is_own(name)).chain(timed);
    Ok(all.filter(|(name, _)| !is_left_out(name)).map(|(name, value)| metric(name, value)).collect())
}

const PEAK_MEMORY: &str = "peak_memory";

/// Returns true for counts that only grow or are the same at every update.
fn is_left_out(name: &str) -> bool {
    let name = name.strip_prefix("rollouts/").or(name.strip_prefix("validation/")).unwrap_or(name);
    ["epoch", "rollout_step", "tokens", "val_tokens", "val_answers", "flops"].contains(&name)
}

fn metric(name: String, value: f64) -> Metric {
    // Plotted next to the metric to compare with; the greedy answers are about anchors.
    if let Some(name) = name.strip_prefix("val_") {
        let name = if name == "accuracy" { "accuracy_anchor" } else { name };
        return Metric { name: name.into(), held_out: true, value, text: read(value) };
    }
    match name.as_str() {
        PEAK_MEMORY => {
            let gigabytes = value / 1e9;
            Metric { name, held_out: false, value: gigabytes, text: format!("{gigabytes:.2} GB") }
        }
        _ => Metric { name, held_out: false, value, text: read(value) },
    }
}

/// Formats a number with four decimals or four significant digits.
fn read(value: f64) -> String {
    match value.abs() {
        whole if whole.fract() == 0.0 && whole < 1e15 => format!("{value}"),
        small if small < 1e-3 => format!("{value:.3e}"),
        large if large >= 1e3 => format!("{value:.1}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use fieldmark::train::{
        sft::{SftMetrics, Validation},
        tapo::{
            Accuracies, RolloutMetrics, TapoMetrics, TapoParts, TapoValidation,
            rollout::{FilterCounts, SamplerGap},
        },
        trainer::{Decoding, DecodingTiming, UpdateTiming},
    };

    use super::*;

    fn shown(part: Part, row: &impl Serialize, timing: &impl Serialize) -> Vec<(String, f64, String)> {
        let found = metrics(part, row, timing).unwrap();
        assert!(found.iter().all(|metric| !metric.held_out || metric.name == "loss"));
        found.into_iter().map(|metric| (metric.name, metric.value, metric.text)).collect()
    }

    #[test]
    fn an_update_of_sft_is_drawn_with_its_validation_and_its_timing() {
        let row = SftMetrics {
            step: 3,
            epoch: 0.5,
            loss: 1.25,
            lr: 5e-6,
            grad_norm: 0.75,
            tokens: 64,
            skipped: 0,
            idle: Vec::new(),
            non_finite: Vec::new(),
            validation: Some(Validation { loss: 1.5, tokens: 9 }),
        };
        let timing = UpdateTiming {
            peak_memory: Some(12_345_000_000),
            ..UpdateTiming::new(3, None, 9000, 1e12, Duration::from_secs(4))
        };
        let expected = [
            ("loss", 1.25, "1.2500"),
            ("lr", 5e-6, "5.000e-6"),
            ("grad_norm", 0.75, "0.7500"),
            ("skipped", 0.0, "0"),
            ("loss", 1.5, "1.5000"),
            ("seconds", 4.0, "4"),
            ("tokens_per_second", 2250.0, "2250"),
            ("peak_memory", 12.345, "12.35 GB"),
        ];
        let expected = expected.map(|(name, value, text)| (name.to_owned(), value, text.to_owned()));
        assert_eq!(shown(Part::Update, &row, &timing), expected);
        let held_out: Vec<bool> =
            metrics(Part::Update, &row, &timing).unwrap().iter().map(|metric| metric.held_out).collect();
        assert_eq!(held_out, [false, false, false, false, true, false, false, false]);
    }

    #[test]
    fn greedy_answers_are_drawn_beside_the_rollouts() {
        let row = TapoValidation {
            step: 4,
            rollout_step: 2,
            reward: 0.5,
            accuracy: 0.25,
            rewards: BTreeMap::from([("format".into(), 1.0)]),
            strict: 0.25,
            inclusion: 0.75,
            response_tokens: 20.5,
            truncated: 0.0,
            answers: 8,
        };
        let found = metrics(
            Part::Validation,
            &row,
            &DecodingTiming::new(Decoding::Validation, 4, 2, 60, Duration::from_secs(3)),
        )
        .unwrap();
        let names: Vec<(&str, bool)> = found.iter().map(|metric| (metric.name.as_str(), metric.held_out)).collect();
        let expected = [
            ("reward", true),
            ("accuracy_anchor", true),
            ("rewards/format", true),
            ("strict", true),
            ("inclusion", true),
            ("response_tokens", true),
            ("truncated", true),
            ("validation/seconds", false),
            ("validation/tokens_per_second", false),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn what_stands_first_is_what_the_rows_bring() {
        let rollouts = RolloutMetrics {
            step: 0,
            rollout_step: 1,
            reward: 0.5,
            accuracy_anchor: 0.25,
            accuracy_positive: 0.75,
            rewards: BTreeMap::from([("format".into(), 1.0)]),
            right: Accuracies { strict: 0.25, inclusion: 0.75 },
            response_tokens: 20.5,
            truncated: 0.0,
            sampler: SamplerGap { sampler_gap: 1e-5, sampler_gap_max: 2e-5, sampler_ratio: 1.0 },
            groups: FilterCounts::default(),
            trained_on: 4,
            teaching: 3,
            rollout_age: 0.0,
            passes: 0.5,
            image_gap: Some(0.25),
        };
        let drawn = shown(
            Part::Rollouts,
            &rollouts,
            &DecodingTiming::new(Decoding::Rollouts, 0, 1, 1000, Duration::from_secs(3)),
        );
        let update = TapoMetrics {
            step: 1,
            rollout_step: 1,
            parts: TapoParts { neg_entropy: f64::NAN, ..TapoParts::default() },
            lr: 1e-6,
            grad_norm: 1.0,
            tokens: 10,
            skipped: 0,
            rollout_age: 0.0,
            idle: Vec::new(),
            non_finite: Vec::new(),
        };
        let timing =
            UpdateTiming { peak_memory: Some(1), ..UpdateTiming::new(1, Some(1), 9, 1e12, Duration::from_secs(4)) };
        let learned = shown(Part::Update, &update, &timing);
        let names: Vec<&str> = drawn.iter().chain(&learned).map(|(name, ..)| name.as_str()).collect();
        for name in first("tapo") {
            // A mean over nothing is not drawn.
            assert_eq!(
                names.iter().filter(|found| *found == name).count(),
                usize::from(*name != "neg_entropy"),
                "{name}"
            );
        }
        assert_eq!(names.iter().filter(|name| **name == "rollout_age").count(), 1);
        assert!(names.contains(&"rewards/format") && names.contains(&"rollouts/tokens_per_second"), "{names:?}");
        assert!(!names.iter().any(|name| name.ends_with("/tokens") || name.ends_with("rollout_step")), "{names:?}");
        let gap = drawn.iter().find(|(name, ..)| name == "sampler_gap").unwrap();
        assert_eq!(gap.2, "1.000e-5");
    }
}
