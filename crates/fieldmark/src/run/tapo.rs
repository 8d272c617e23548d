//! A run of triplet-augmented policy optimisation (arXiv 2602.07605, section 4.3).

use std::path::Path;

use fieldmark_data::{HeldOutClasses, PromptTemplate, RowImage};
use fieldmark_processor::Processor;
use fieldmark_train::{
    Trainer,
    params::{stable_param_ids, trainable},
    reward::RewardRegistry,
    tapo::{
        TapoConfig, TapoState, TapoTrainer, TripletSource,
        rollout::{Group, NegativeImage},
    },
};

use super::{
    Course, Observer, Outcome, RunEvent, RunSetup,
    drive::Ready,
    inputs::check_photographs,
    recipe::{RecipeRun, in_section},
    saving::{Origin, Saving},
};
use crate::{
    Stage,
    checkpoint::{Checkpoint, sized},
    error::RunError,
    folder::{Begin, Checkpoints, weights_fingerprint},
    log::{LogEnd, RunLog},
    recipe::Recipe,
    source::{
        HeldOut, LabelSettings, Negatives, TripletSettings, Triplets, check_rewards, held_out_classes, held_out_note,
        large_note, reward_registry, text_encoder, too_long, unseen,
    },
};

/// The parts of a TAPO run.
pub struct Tapo<'a, S> {
    /// The checkpoint to start from.
    pub checkpoint: &'a Checkpoint,
    /// The training samples.
    pub source: &'a S,
    /// Held-out samples, answered greedily and scored.
    pub validation: Option<&'a S>,
    /// The rewards that `config.rewards` may name.
    pub rewards: &'a RewardRegistry,
    /// The settings.
    pub config: TapoConfig,
    /// Number of rollout steps. `None` means [`TapoConfig::steps`].
    pub steps: Option<usize>,
}

/// Trains a model and saves it as `checkpoint` in the folder of the run.
///
/// # Errors
/// Returns an error if a setting, the checkpoint or a sample is wrong, or if something cannot be written.
pub fn tapo<'a, S: TripletSource>(
    parts: Tapo<'a, S>,
    setup: &RunSetup,
    observer: &mut dyn Observer,
) -> Result<Outcome, RunError> {
    let Tapo { checkpoint, source, validation, rewards, config, steps } = parts;
    setup.validate()?;
    config.validate().map_err(|error| in_section(Stage::Tapo, error))?;
    let folder = &setup.folder;
    if setup.begin == Begin::Finished {
        return Ok(Outcome::before(folder, source.len()));
    }
    let lock = setup.lock()?;
    let checkpoint = checkpoint.clone().with_lora(&setup.lora);
    let (device, others) = setup.split_devices();
    let model = stable_param_ids(setup.load(&checkpoint, config.train, &device)?);
    let (tokenizer, eos) = (&checkpoint.processor.tokenizer, checkpoint.eos.clone());
    let mut trainer =
        TapoTrainer::new(&model, source, tokenizer, eos, config.clone(), rewards, setup.streams(), &device)
            .map_err(|error| in_section(Stage::Tapo, error))?
            .with_devices(&others, setup.reduction)
            .with_interrupt(setup.interrupt.clone());
    if let Some(steps) = steps {
        trainer = trainer.with_steps(steps);
    }
    if let Some(rows) = validation {
        trainer = trainer.with_validation(rows);
    }
    let needs_start = config.loss.kl_ref != 0.0;
    let weights = (needs_start || setup.lora.is_on()).then(|| weights_fingerprint(&checkpoint.folder)).transpose()?;
    let start = Origin { folder: checkpoint.folder.clone(), weights };
    let mut saving = Saving::new(&checkpoint, folder.checkpoints(), setup.settings, Stage::Tapo, start);
    let mut end: Option<LogEnd> = None;
    if let Begin::Continue { folder, mark } = &setup.begin {
        let state: TapoState = saving.restore(folder, *mark)?;
        trainer = trainer.restore(&state, &Checkpoints::moments(folder))?;
        if needs_start {
            trainer = trainer.with_reference(&setup.load_start(&checkpoint, config.train, &device)?);
        }
        end = Some(LogEnd::from(&state));
    }

    let course = Course::tapo(trainer.total(), config.updates_per_step(), trainer.done());
    let learning = trainable(&model.clone().with_trainable(config.train));
    let over_step = config.estimator.is_over_step();
    let with_logs = |log: RunLog<'a>, end| {
        let held_out = validation.map(|rows| move |group: &Group| rows.facts(&group.prompt));
        log.with_responses(folder, over_step, |group: &Group| source.facts(&group.prompt), held_out, end)
    };
    let example = (setup.begin == Begin::Start).then(|| source.prompt(0, 0)).transpose()?.map(|sample| sample.anchor);
    let rows = source.len();
    let ready = Ready { setup, checkpoint: &checkpoint, saving, course, end, lock, rows, example };
    let outcome = ready.run(&mut trainer, model, &learning, with_logs, observer)?;
    // Without a validation set the best is told by the rewards in training, which is not worth a word.
    Ok(if validation.is_some() { outcome } else { outcome.without_best() })
}

/// Checks that the prompt asks for the form of response that the rewards expect.
fn check_prompt(prompt: PromptTemplate, think: bool) -> Result<(), RunError> {
    let problem = match (prompt.asks_to_think(), think) {
        (Some(true), false) => "asks for a think block, but `tapo.think` is false; use rl_no_think",
        (Some(false), true) => "asks for the answer alone, but `tapo.think` is true; set it to false, or use rl",
        _ => return Ok(()),
    };
    Err(RunError::Setting { key: "data.tapo.prompt".into(), value: prompt.to_string(), problem: problem.into() })
}

/// Runs TAPO as a recipe says.
///
/// # Errors
/// Returns the errors of [`tapo()`]. If the recipe, its data or its checkpoint is wrong, nothing is written.
pub fn tapo_from_recipe(run: RecipeRun, observer: &mut dyn Observer) -> Result<Outcome, RunError> {
    let recipe = &run.recipe;
    let (config, encoder) = (&recipe.tapo, recipe.model.text_encoder.as_deref());
    config
        .validate()
        .and_then(|()| config.check_band())
        .and_then(|()| config.check_form())
        .and_then(|()| check_rewards(config))
        .map_err(|error| in_section(Stage::Tapo, error))?;
    check_prompt(recipe.data.tapo.prompt, config.think)?;
    let mut setup = run.setup(Stage::Tapo, config.adamw, observer)?;
    text_encoder(config, encoder)?;
    if setup.begin == Begin::Finished {
        return Ok(Outcome::before(&setup.folder, 0));
    }
    let device = setup.devices.first().cloned().unwrap_or_default();
    let rewards = reward_registry(config, encoder, &device)?;
    let checkpoint = super::open(&recipe.model, observer)?;
    checkpoint.check_lora(&recipe.lora, config.train, &setup.split_devices().0)?;
    let processor = sized(&checkpoint.processor, recipe.data.tapo.sizes, "data.tapo.sizes")?;
    let held_out = held_out_classes(&recipe.data)?;
    let note = held_out_note(&held_out);
    let (source, validation) = sources(recipe, &processor, checkpoint.context, held_out, &setup)?;
    let images = || std::iter::once(&source).chain(&validation).flat_map(Triplets::images);
    note.iter()
        .chain(source.notes())
        .chain(&large_note(images()))
        .try_for_each(|note| observer.event(RunEvent::Note(note)))?;
    check_photographs(recipe, &mut setup, Stage::Tapo, images().filter_map(RowImage::path))?;
    if recipe.data.check && setup.begin == Begin::Start {
        let sets: Vec<_> = std::iter::once(&source).chain(&validation).collect();
        let rows: Vec<_> = sets.into_iter().flat_map(|set| (0..set.len()).map(move |row| (set, row))).collect();
        super::check(rows.len(), |row| rows[row].0.prompt(rows[row].1, 0).map(drop), observer)?;
    }
    for set in std::iter::once(&source).chain(&validation).filter(|_| setup.begin == Begin::Start) {
        if let Some(note) = too_long(config, set.truths(), &checkpoint.processor.tokenizer)? {
            observer.event(RunEvent::Note(&note))?;
        }
    }
    let parts = Tapo {
        checkpoint: &checkpoint,
        source: &source,
        validation: validation.as_ref(),
        rewards: &rewards,
        config: config.clone(),
        steps: None,
    };
    tapo(parts, &setup, observer)
}

/// The triplets of the recipe and the validation set: a separate file, or rows taken from the triplets.
fn sources(
    recipe: &Recipe,
    processor: &Processor,
    context: usize,
    held_out: HeldOutClasses,
    setup: &RunSetup,
) -> Result<(Triplets, Option<Triplets>), RunError> {
    let data = &recipe.data;
    let settings = TripletSettings {
        decode: data.decode(),
        prompt: data.tapo.prompt,
        // A prompt needs room for one new token.
        max_tokens: data.tapo.max_tokens.min(context.saturating_sub(1)),
        positives: recipe.tapo.positive_rollouts > 0,
        negatives: match recipe.tapo.negative {
            _ if !recipe.tapo.loss.reads_negative() => Negatives::None,
            NegativeImage::Triplet => Negatives::Photographs,
            NegativeImage::Patches => Negatives::Patches(recipe.tapo.patches, setup.streams()),
        },
        aliases: data.read_aliases()?,
        held_out,
    };
    let from_file = |file: &Path, settings| Triplets::from_file(file, &data.roots(file), processor.clone(), settings);
    let mut source = match (&data.tapo.file, &data.labels) {
        (Some(file), _) => from_file(file, settings.clone())?,
        (None, Some(folder)) => {
            let labels = LabelSettings {
                question: data.question.clone(),
                unseen: unseen(data)?,
                reuse_anchor: data.tapo.reuse_anchor,
                seed: recipe.seed,
            };
            Triplets::from_labels(folder, &labels, processor.clone(), settings.clone())?
        }
        (None, None) => {
            return Err(RunError::Missing { what: "triplets", key: "data.tapo.file=FILE or --set data.labels=DIR" });
        }
    };
    let all = format!("the number of triplets, {}", source.len());
    let data = &data.tapo;
    let held = HeldOut::of("data.tapo", data.validation.as_deref(), data.validation_rows, source.len(), &all)?;
    let validation = match held {
        HeldOut::Nowhere => None,
        HeldOut::File(file) => Some(from_file(file, settings.anchors_alone())?),
        HeldOut::Rows(count) => {
            let mut stream = setup.streams().word("tapo").word("validation").stream();
            Some(source.hold_out(count, &mut stream))
        }
    };
    Ok((source, validation))
}
