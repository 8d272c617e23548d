//! The settings closest to a recipe that fit into a budget.
//!
//! Cheap changes are tried first, changes that round more last. A change is kept only if it lowers the peak, and dropped
//! at the end if the others suffice.

use fieldmark_model::WeightType;
use fieldmark_train::memory::MemoryPlan;

use super::planned::Planned;
use crate::{
    recipe::{Recipe, RecipeError},
    stage::Stage,
};

/// Changes to a recipe, and the memory it then needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// Overrides for `--set`.
    pub changes: Vec<String>,
    /// The memory that the recipe needs with these overrides.
    pub plan: MemoryPlan,
}

/// Finds changes to `recipe` that bring its peak down to `budget` bytes, none of them superfluous. If nothing fits, the
/// inner `Err` holds the changes with the lowest peak.
///
/// # Errors
/// Returns an error if a change is not a valid override, which does not happen in practice.
pub fn nearest_fit(planned: &Planned, recipe: &Recipe, budget: u64) -> Result<Result<Fit, Fit>, RecipeError> {
    let mut current = Fit { changes: Vec::new(), plan: planned.memory(recipe) };
    for changes in [exact(planned.stage, recipe), rounding(planned.stage, recipe)] {
        // Of two equally large phases, shrinking one lowers the peak only after the other: one round may not do.
        loop {
            let before = current.plan.peak();
            for change in &changes {
                if current.plan.peak() <= budget {
                    break;
                }
                let next = with(planned, recipe, replaced(&current.changes, change))?;
                if next.plan.peak() < current.plan.peak() {
                    current = next;
                }
            }
            if current.plan.peak() == before || current.plan.peak() <= budget {
                break;
            }
        }
    }
    if current.plan.peak() > budget {
        return Ok(Err(current));
    }
    // The costliest change comes last; without it the earlier ones may be enough.
    for at in (0..current.changes.len()).rev() {
        let mut fewer = current.changes.clone();
        fewer.remove(at);
        let fewer = with(planned, recipe, fewer)?;
        if fewer.plan.peak() <= budget {
            current = fewer;
        }
    }
    Ok(Ok(current))
}

fn with(planned: &Planned, recipe: &Recipe, changes: Vec<String>) -> Result<Fit, RecipeError> {
    let changed = changes.iter().try_fold(recipe.clone(), |recipe, change| recipe.with_override(change))?;
    Ok(Fit { plan: planned.memory(&changed), changes })
}

/// `changes` and `change`; a new value replaces an old one of the same key.
fn replaced(changes: &[String], change: &[String]) -> Vec<String> {
    let key = |change: &str| change.split('=').next().unwrap_or_default().to_owned();
    let kept = changes.iter().filter(|old| !change.iter().any(|new| key(old) == key(new)));
    kept.chain(change).cloned().collect()
}

/// Changes that do not affect the results, in the order in which they are tried.
fn exact(stage: Stage, recipe: &Recipe) -> Vec<Vec<String>> {
    let section = stage.section();
    let passes = match stage {
        Stage::Sft => recipe.sft.passes(),
        Stage::Tapo => recipe.tapo.passes(),
    };
    let mut found = Vec::new();
    let mut set = |key: &str, value: &dyn std::fmt::Display| found.push(vec![format!("{section}.{key}={value}")]);
    // These cost almost no time.
    set("packing", &true);
    set("query_chunk", &512);
    set("logit_chunk", &1024);
    if stage == Stage::Tapo {
        halves(recipe.tapo.generation_batch).for_each(|batch| set("generation_batch", &batch));
    }
    halves(passes.workers).for_each(|workers| set("workers", &workers));
    halves(passes.micro_batch).for_each(|micro| set("micro_batch", &micro));
    // This costs a third more operations.
    set("recompute", &true);
    // Small matrix products are slow.
    set("query_chunk", &128);
    set("logit_chunk", &256);
    found
}

/// Changes that round weights or moments more, in the order in which they are tried.
fn rounding(stage: Stage, recipe: &Recipe) -> Vec<Vec<String>> {
    let section = stage.section();
    let half = |kept: &str| format!("{section}.adamw.half={kept}");
    let mut found = Vec::new();
    if recipe.model.dtype == WeightType::F32 {
        let bf16 = || "model.dtype=bf16".to_owned();
        found.extend([vec![bf16(), half("master")], vec![format!("{section}.adamw.moments=bf16")]]);
        found.push(vec![bf16(), half("kahan")]);
    } else {
        found.extend([vec![format!("{section}.adamw.moments=bf16")], vec![half("kahan")]]);
    }
    found
}

fn halves(from: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(from / 2), |half| Some(half / 2)).take_while(|half| *half > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::published::published;

    fn planned(stage: Stage) -> Planned {
        Planned {
            config: published("Qwen2.5-VL-3B-Instruct".as_ref()).unwrap(),
            stage,
            tokens: None,
            images: 1,
            text_encoder: None,
        }
    }

    fn peak(planned: &Planned, changes: &[String]) -> u64 {
        with(planned, &Recipe::default(), changes.to_vec()).unwrap().plan.peak()
    }

    #[test]
    fn what_is_named_fits_and_none_of_it_can_be_left_out() {
        for stage in [Stage::Sft, Stage::Tapo] {
            let planned = planned(stage);
            let all = peak(&planned, &[]);
            let Err(least) = nearest_fit(&planned, &Recipe::default(), 1).unwrap() else { panic!("a byte is enough") };
            assert!(least.plan.peak() < all);
            for share in 0..=8 {
                let budget = least.plan.peak() + (all - least.plan.peak()) * share / 8;
                let fit = nearest_fit(&planned, &Recipe::default(), budget).unwrap().unwrap();
                assert_eq!(fit.plan.peak(), peak(&planned, &fit.changes));
                assert!(fit.plan.peak() <= budget);
                for at in 0..fit.changes.len() {
                    let mut fewer = fit.changes.clone();
                    fewer.remove(at);
                    assert!(peak(&planned, &fewer) > budget, "{budget}: {:?} without {at}", fit.changes);
                }
                assert_eq!(fit.changes.is_empty(), share == 8);
            }
        }
    }

    #[test]
    fn blocks_are_run_again_only_when_smaller_batches_do_not_help() {
        let planned = planned(Stage::Sft);
        let kept = Recipe::default().with_override("sft.recompute=false").unwrap();
        let fit = |budget| nearest_fit(&planned, &kept, budget).unwrap().unwrap().changes;
        let alone = planned.memory(&kept.clone().with_override("sft.micro_batch=1").unwrap()).peak();
        assert_eq!(fit(alone), ["sft.micro_batch=1"]);
        assert!(fit(alone - 1_000_000_000).contains(&"sft.recompute=true".to_owned()));
        // Smaller batches come first and turn out to be needless.
        assert_eq!(fit(peak(&planned, &[])), ["sft.recompute=true"]);
    }

    #[test]
    fn a_phase_that_another_hid_gets_its_turn() {
        let fit = nearest_fit(&planned(Stage::Tapo), &Recipe::default(), 80_000_000_000).unwrap().unwrap();
        assert_eq!(fit.changes, ["tapo.generation_batch=32", "tapo.micro_batch=2"]);
    }

    #[test]
    fn results_are_rounded_more_only_where_nothing_else_is_enough() {
        let planned = planned(Stage::Sft);
        let least =
            peak(&planned, &["sft.micro_batch=1", "sft.query_chunk=128", "sft.logit_chunk=256"].map(str::to_owned));
        let fit = |budget| nearest_fit(&planned, &Recipe::default(), budget).unwrap().unwrap().changes;
        let rounds =
            |changes: &[String]| changes.iter().any(|change| change.contains("adamw") || change.contains("dtype"));
        assert!(!rounds(&fit(least)));
        assert!(rounds(&fit(least - 1_000_000_000)));
    }
}
