//! A run of supervised fine-tuning, the first stage of Fine-R1 (arXiv 2602.07605, section 4). The loss is the mean over
//! the tokens of the assistant's turns.

use std::path::Path;

use fieldmark_data::{DataError, HeldOutClasses, RowImage};
use fieldmark_processor::TargetEnd;
use fieldmark_train::{
    Trainer,
    params::{stable_param_ids, trainable},
    sft::{SftConfig, SftSource, SftState, SftTrainer},
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
    log::LogEnd,
    recipe::Recipe,
    source::{ConversationSettings, Conversations, HeldOut, held_out_classes, held_out_note, large_note},
};

/// The parts of an SFT run.
pub struct Sft<'a, S> {
    /// The checkpoint to start from.
    pub checkpoint: &'a Checkpoint,
    /// The training samples.
    pub source: &'a S,
    /// Held-out samples on which the loss is measured.
    pub validation: Option<&'a S>,
    /// The settings.
    pub config: SftConfig,
}

/// Trains a model and saves it as `checkpoint` in the folder of the run.
///
/// # Errors
/// Returns an error if a setting, the checkpoint or a sample is wrong, or if a file cannot be written.
pub fn sft<S: SftSource>(
    parts: Sft<'_, S>,
    setup: &RunSetup,
    observer: &mut dyn Observer,
) -> Result<Outcome, RunError> {
    let Sft { checkpoint, source, validation, config } = parts;
    setup.validate()?;
    config.validate().map_err(|error| in_section(Stage::Sft, error))?;
    let folder = &setup.folder;
    if setup.begin == Begin::Finished {
        return Ok(Outcome::before(folder, source.len()));
    }
    let lock = setup.lock()?;
    let checkpoint = checkpoint.clone().with_lora(&setup.lora);
    let (device, others) = setup.split_devices();
    let model = stable_param_ids(setup.load(&checkpoint, config.train, &device)?);
    let pad = checkpoint.processor.tokenizer.pad();
    let (epochs, train) = (config.epochs, config.train);
    let mut trainer = SftTrainer::new(&model, source, config, pad, setup.streams(), &device)
        .map_err(|error| in_section(Stage::Sft, error))?
        .with_devices(&others, setup.reduction)
        .with_interrupt(setup.interrupt.clone());
    if let Some(rows) = validation {
        trainer = trainer.with_validation(rows);
    }
    let weights = setup.lora.is_on().then(|| weights_fingerprint(&checkpoint.folder)).transpose()?;
    let start = Origin { folder: checkpoint.folder.clone(), weights };
    let mut saving = Saving::new(&checkpoint, folder.checkpoints(), setup.settings, Stage::Sft, start);
    let mut end: Option<LogEnd> = None;
    if let Begin::Continue { folder, mark } = &setup.begin {
        let state: SftState = saving.restore(folder, *mark)?;
        trainer = trainer.restore(&state, &Checkpoints::moments(folder))?;
        end = Some(LogEnd::from(&state));
    }

    let course = Course::sft(epochs, trainer.total(), trainer.done());
    let learning = trainable(&model.clone().with_trainable(train));
    let example = (setup.begin == Begin::Start).then(|| source.sample(0, 0)).transpose()?.map(|sample| sample.sequence);
    let rows = source.len();
    let ready = Ready { setup, checkpoint: &checkpoint, saving, course, end, lock, rows, example };
    ready.run(&mut trainer, model, &learning, |log, _| Ok(log), observer)
}

/// Runs SFT as a recipe says.
///
/// # Errors
/// Returns the errors of [`sft()`]. If the recipe, its data or its checkpoint is wrong, nothing is written.
pub fn sft_from_recipe(run: RecipeRun, observer: &mut dyn Observer) -> Result<Outcome, RunError> {
    let recipe = &run.recipe;
    recipe.sft.validate().map_err(|error| in_section(Stage::Sft, error))?;
    let data = &recipe.data;
    let mut setup = run.setup(Stage::Sft, recipe.sft.adamw, observer)?;
    if setup.begin == Begin::Finished {
        return Ok(Outcome::before(&setup.folder, 0));
    }
    let file = data.sft.file.as_ref();
    let file = file.ok_or(RunError::Missing { what: "conversations", key: "data.sft.file=FILE" })?;
    let checkpoint = super::open(&recipe.model, observer)?;
    checkpoint.check_lora(&recipe.lora, recipe.sft.train, &setup.split_devices().0)?;
    let processor = sized(&checkpoint.processor, data.sft.sizes, "data.sft.sizes")?;
    let settings = ConversationSettings {
        decode: data.decode(),
        end: if data.sft.newline_in_loss { TargetEnd::Newline } else { TargetEnd::ImEnd },
        max_tokens: data.sft.max_tokens.min(checkpoint.context),
        held_out: HeldOutClasses::default(),
        text_teaches: recipe.sft.train.decoder,
    };
    let held_out = held_out_classes(data)?;
    let note = held_out_note(&held_out);
    let open = |file: &Path, held_out: HeldOutClasses| {
        let settings = ConversationSettings { held_out, ..settings.clone() };
        Conversations::open(file, &data.roots(file), processor.clone(), settings)
    };
    let mut source = open(file, held_out)?;
    // Nothing is learned from a validation file, so it may show held-out classes.
    let open = |file: &Path| open(file, HeldOutClasses::default());
    let validation = validation(recipe, &mut source, &setup, open)?;
    check_images(recipe, file, &source)?;
    let images = || std::iter::once(&source).chain(&validation).flat_map(Conversations::images);
    note.iter()
        .chain(source.notes())
        .chain(&large_note(images()))
        .try_for_each(|note| observer.event(RunEvent::Note(note)))?;
    check_photographs(recipe, &mut setup, Stage::Sft, images().filter_map(RowImage::path))?;
    if data.check && setup.begin == Begin::Start {
        let sets: Vec<_> = std::iter::once(&source).chain(&validation).collect();
        let rows: Vec<_> = sets.into_iter().flat_map(|set| (0..set.len()).map(move |row| (set, row))).collect();
        super::check(rows.len(), |row| rows[row].0.sample(rows[row].1, 0).map(drop), observer)?;
    }
    let parts =
        Sft { checkpoint: &checkpoint, source: &source, validation: validation.as_ref(), config: recipe.sft.clone() };
    sft(parts, &setup, observer)
}

/// Refuses a run in which nothing learns, because no row has what the trained parts see.
fn check_images(recipe: &Recipe, file: &Path, source: &Conversations) -> Result<(), RunError> {
    if recipe.sft.train.decoder || source.images().next().is_some() {
        return Ok(());
    }
    let problem = format!(
        "no training row of {} has an image, so neither the vision encoder nor the projector learns; use rows with images, \
         or set sft.train.decoder=true",
        file.display()
    );
    Err(RunError::Setting { key: "sft.train.decoder".into(), value: "false".into(), problem })
}

/// The validation set: a separate file, or rows taken from `source`.
fn validation(
    recipe: &Recipe,
    source: &mut Conversations,
    setup: &RunSetup,
    open: impl Fn(&Path) -> Result<Conversations, DataError>,
) -> Result<Option<Conversations>, RunError> {
    let data = &recipe.data.sft;
    let all = format!("the number of rows in the file, {}", source.len());
    match HeldOut::of("data.sft", data.validation.as_deref(), data.validation_rows, source.len(), &all)? {
        HeldOut::Nowhere => Ok(None),
        HeldOut::File(file) => Ok(Some(open(file)?)),
        HeldOut::Rows(rows) => {
            let mut stream = setup.streams().word("sft").word("validation").stream();
            Ok(Some(source.hold_out(rows, &mut stream)))
        }
    }
}
