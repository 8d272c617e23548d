//! `fieldmark plan`: the memory that a recipe needs, part by part, and the settings that make it fit into a budget.

use anyhow::anyhow;
use fieldmark::{
    Stage,
    data::{DataError, read_conversations},
    model::{Qwen25VlConfig, SiglipTextConfig},
    plan::{Fit, Planned, nearest_fit, published, published_text_encoder},
    recipe::Recipe,
    source,
    train::memory::{MemoryPart, MemoryPlan},
};

use super::{Outcome, count, recipe, say};
use crate::{arguments::PlanArgs, bytes::Bytes};

/// Prints the plan. Returns [`Outcome::Failed`] if the recipe does not fit into the budget.
///
/// # Errors
/// Returns an error if the recipe or the configuration of the model is invalid.
pub fn run(args: &PlanArgs) -> anyhow::Result<Outcome> {
    let recipe = recipe(&args.recipe, "plan", &["model.path=DIR"])?;
    let (stage, tokens) = (args.stage, args.tokens);
    let text_encoder = if stage == Stage::Tapo { text_encoder(&recipe)? } else { None };
    let (config, images) = (model_config(args, &recipe)?, images(&recipe)?);
    let planned = Planned { config, stage, tokens, images, text_encoder };
    let plan = planned.memory(&recipe);
    say(&describe(&planned, &recipe))?;
    say(&table(&plan))?;
    let Some(budget) = args.budget else { return Ok(Outcome::Done) };
    if plan.peak() <= budget.0 {
        say(&format!("\nfits into {}", budget))?;
        return Ok(Outcome::Done);
    }
    let advice = match nearest_fit(&planned, &recipe, budget.0)? {
        Ok(Fit { changes, plan }) => {
            format!("these settings fit, with a peak of {}:\n  {}", Bytes(plan.peak()), flags(&changes))
        }
        Err(Fit { changes, plan }) => {
            let end = format!("the lowest peak that settings alone reach is {}", Bytes(plan.peak()));
            if changes.is_empty() { end } else { format!("{end}, with\n  {}", flags(&changes)) }
        }
    };
    say(&format!("\ndoes not fit into {}; {advice}", budget))?;
    Ok(Outcome::Failed)
}

/// Returns the model configuration: from `--model-config`, from the checkpoint folder, or of the published checkpoint of
/// that name.
fn model_config(args: &PlanArgs, recipe: &Recipe) -> anyhow::Result<Qwen25VlConfig> {
    if let Some(file) = &args.model_config {
        return Ok(Qwen25VlConfig::from_json_file(file)?);
    }
    let folder = recipe.model.path.as_ref().filter(|path| !path.as_os_str().is_empty());
    let folder = folder.ok_or_else(|| {
        anyhow!(
            "`model.path` is not set; give a checkpoint folder with --set model.path=DIR, or its config.json with \
             --model-config FILE"
        )
    })?;
    match published(folder) {
        Some(config) if !folder.exists() => Ok(config),
        _ => Ok(Qwen25VlConfig::from_json_file(&folder.join("config.json"))?),
    }
}

/// Returns the largest number of images in a conversation of the recipe's file, or 1 if the file does not exist yet.
fn images(recipe: &Recipe) -> Result<usize, DataError> {
    let Some(file) = recipe.data.sft.file.as_ref().filter(|file| file.is_file()) else { return Ok(1) };
    Ok(read_conversations(file, None)?.iter().map(|example| example.images.len()).max().unwrap_or(1))
}

/// Returns the configuration of the text encoder, from its folder or of the published checkpoint of that name.
fn text_encoder(recipe: &Recipe) -> anyhow::Result<Option<SiglipTextConfig>> {
    let Some(folder) = source::text_encoder(&recipe.tapo, recipe.model.text_encoder.as_deref())? else {
        return Ok(None);
    };
    match published_text_encoder(folder) {
        Some(config) if !folder.exists() => Ok(Some(config)),
        _ => {
            let config = SiglipTextConfig::from_json_file(&folder.join("config.json"));
            config.map(Some).map_err(|error| anyhow!("`model.text_encoder`: {error}"))
        }
    }
}

fn describe(planned: &Planned, recipe: &Recipe) -> String {
    let work = planned.workload(recipe);
    let (micro, counts) = (work.micro, planned.config.parameter_counts());
    let rollouts = work.rollouts.map_or_else(String::new, |rollouts| {
        format!(
            "; rollouts: {} responses at a time, each {} prompt + {} new tokens",
            rollouts.responses, rollouts.prompt, rollouts.response
        )
    });
    format!(
        "{}: {} parameters; micro-batch: {} sequences of {} tokens with {} images of {} patches{rollouts}\n",
        planned.stage,
        count(counts.total()),
        micro.sequences,
        micro.tokens,
        micro.images,
        micro.grid.patches(),
    )
}

/// Lists what is always in memory, then each phase with its parts, then the peak.
fn table(plan: &MemoryPlan) -> String {
    let mut lines = vec![line("always in memory", plan.standing_bytes(), "")];
    let part = |part: &MemoryPart| line(&format!("  {}", part.name), part.bytes, "");
    lines.extend(plan.standing.iter().map(part));
    let most = plan.phases.iter().map(|phase| phase.bytes()).max();
    for phase in &plan.phases {
        let mark = if Some(phase.bytes()) == most { "  <- peak" } else { "" };
        lines.push(line(phase.name, phase.bytes(), mark));
        lines.extend(phase.parts.iter().filter(|part| part.bytes > 0).map(part));
    }
    lines.push(line("peak", plan.peak(), ""));
    lines.join("\n")
}

fn line(name: &str, bytes: u64, mark: &str) -> String {
    format!("{name:<46}{:>12}{mark}", Bytes(bytes))
}

fn flags(changes: &[String]) -> String {
    changes.iter().map(|change| format!("--set {change}")).collect::<Vec<_>>().join(" ")
}
