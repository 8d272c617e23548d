//! The curves that a run leaves in its folder: `loss.svg` of SFT, `reward.svg` of TAPO.

use fieldmark::{RunError, folder::RunFolder};

use super::{
    curve::{Series, series, svg},
    run::Shown,
};
use crate::tell::tell;

/// Draws the curves of a run that has ended. The run is whole without them, so that a failure is only told.
pub(super) fn draw_curves(shown: &Shown, folder: &RunFolder) {
    if let Err(error) = draw(shown, folder) {
        tell(format_args!("note: the run is whole, but its curve cannot be drawn: {error}"));
    }
}

/// Draws the curves of a run from its metrics.
fn draw(shown: &Shown, folder: &RunFolder) -> Result<(), RunError> {
    let metrics = folder.file("metrics.jsonl");
    let keep = |lines: Vec<Series>, always: usize| -> Vec<Series> {
        let kept = lines.into_iter().enumerate().filter(|(i, line)| *i < always || !line.points.is_empty());
        kept.map(|(_, line)| line).collect()
    };
    match shown {
        Shown::Sft => {
            let lines: [(&str, &[&str]); 2] = [("loss", &["loss"]), ("validation loss", &["val_loss"])];
            let lines = keep(series(&metrics, "step", &lines)?, 1);
            folder.write("loss.svg", svg("SFT", "update", "loss (nats a token)", &lines)?.as_bytes())
        }
        Shown::Tapo(rewards) => {
            let means: [(&str, &[&str]); 3] = [
                ("reward", &["reward"]),
                ("accuracy, anchor", &["accuracy_anchor"]),
                ("accuracy, positive", &["accuracy_positive"]),
            ];
            let parts: Vec<(&str, [&str; 2])> =
                rewards.iter().map(|name| (name.as_str(), ["rewards", name.as_str()])).collect();
            let held_out: [(&str, &[&str]); 2] =
                [("validation reward", &["val_reward"]), ("validation accuracy", &["val_accuracy"])];
            let lines = means.into_iter().chain(parts.iter().map(|(name, keys)| (*name, &keys[..]))).chain(held_out);
            let lines: Vec<_> = lines.collect();
            let lines = keep(series(&metrics, "rollout_step", &lines)?, 3 + rewards.len());
            folder.write("reward.svg", svg("TAPO", "rollout step", "mean", &lines)?.as_bytes())
        }
    }
}
