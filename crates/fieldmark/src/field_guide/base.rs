//! The base model of a world: Qwen2.5-VL with 5.7 million parameters, trained from nothing on what a pre-trained model would
//! know of the world ([`Knowledge`]).

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fieldmark_model::{TrainableParts, WeightType};
use fieldmark_train::{
    optim::{AdamWSettings, LrSchedule, LrShape},
    sft::SftConfig,
    trainer::Interrupt,
};
use fieldmark_world::{Knowledge, Lessons, World, WorldConfig};
use serde::{Deserialize, Serialize};

use super::{
    guide_folder::{GuideFolder, OPTION, Reuse},
    lessons::LessonSource,
};
use crate::{
    Checkpoint,
    error::RunError,
    folder::{RunFolder, write_whole},
    init::{NewModel, Shape},
    recipe::ModelSection,
    run::{Observer, RunEvent, RunSetup, Sft, sft},
};

/// The file in a base model's folder that says which world it knows.
pub const WORLD: &str = "world.toml";
/// The shape of the model.
const SHAPE: &str = include_str!("recipes/shape.toml");
/// What the chat template puts around every question, so that the tokenizer has words for it. Without them, about a
/// quarter of the tokens of a lesson are these words in pieces.
const FRAME: &str = "system\nYou are a helpful assistant.\nuser\nassistant\n";
/// What is in the folder, besides the settings.
const NAMES: [&str; 3] = ["start", "training", "model"];

/// How a base model is trained.
#[derive(Debug, Clone)]
pub struct BaseOptions {
    /// The world that it knows.
    pub world: WorldConfig,
    /// How much it is taught.
    pub lessons: Lessons,
    /// Decides the first weights, the lessons and their order.
    pub seed: u64,
    /// Folder for the training run and the model.
    pub out: PathBuf,
    /// What may happen to a folder that is not empty.
    pub reuse: Reuse,
    /// The device.
    pub device: Device,
    /// A shared flag that stops the training after the current step, with a checkpoint.
    pub interrupt: Interrupt,
}

/// The options that decide the result.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    seed: u64,
    world: WorldConfig,
    lessons: Lessons,
}

/// The settings of the training run.
fn training() -> SftConfig {
    SftConfig {
        epochs: 1,
        batch: 32,
        micro_batch: 16,
        recompute: false,
        query_chunk: 0,
        workers: 2,
        schedule: LrSchedule { lr: 1e-3, shape: LrShape::Cosine, warmup: 100, released: false },
        adamw: AdamWSettings { weight_decay: 0.05, ..AdamWSettings::default() },
        train: TrainableParts::default(),
        ..SftConfig::default()
    }
}

/// Trains a base model. Returns its folder, `model` in `options.out`, or `None` if the training was stopped.
///
/// # Errors
/// Returns an error if there is no such world, if the folder holds something that the options do not allow to replace or to
/// resume, or if something cannot be written.
pub fn base(options: &BaseOptions, observer: &mut dyn Observer) -> Result<Option<PathBuf>, RunError> {
    let world = World::new(options.world)?;
    let knowledge = Knowledge::new(&world, options.lessons, options.seed);
    let &BaseOptions { world: config, lessons, seed, .. } = options;
    let settings = Settings { seed, world: config, lessons };
    let out = GuideFolder::open(&options.out, options.reuse, &settings, &[], |name| NAMES.contains(&name))?;
    let shape = Shape::from_text(SHAPE)?;
    let texts: Vec<String> = knowledge.texts().flat_map(|text| [text, FRAME.to_owned()]).collect();
    let NewModel { model, checkpoint } = shape.make(&texts, options.seed, &options.device)?;
    let start = RunFolder::given_by(OPTION, &out.file("start"))?;
    start.create()?;
    let start = Checkpoint::at(checkpoint.save_in(&model, &start)?)?;

    let mut setup = RunSetup::new(RunFolder::given_by(OPTION, &out.file("training"))?, options.device.clone());
    setup.seed = options.seed;
    setup.interrupt = options.interrupt.clone();
    setup.settings.save_every = 500;
    setup.settings.keep = 1;
    if options.reuse.resume {
        let mut notes = Vec::new();
        setup.begin = setup.folder.newest(&mut |note| notes.push(note))?;
        notes.iter().try_for_each(|note| observer.event(RunEvent::Note(note)))?;
    }
    observer.event(RunEvent::Stage("base"))?;
    let source = LessonSource { knowledge, processor: &start.processor };
    let parts = Sft { checkpoint: &start, source: &source, validation: None, config: training() };
    match sft(parts, &setup, observer)?.checkpoint() {
        Some(trained) => store(&out, trained, options.world).map(Some),
        None => Ok(None),
    }
}

/// Writes the trained model in 16 bits, with the settings of its world beside it.
fn store(out: &GuideFolder, trained: &Path, world: WorldConfig) -> Result<PathBuf, RunError> {
    let section = ModelSection { path: Some(trained.into()), stored: WeightType::Bf16, ..ModelSection::default() };
    let checkpoint = Checkpoint::open(&section)?;
    let model = checkpoint.load(&Device::default())?;
    out.write_folder("model", |folder| {
        checkpoint.fill(&model, folder)?;
        write_whole(&folder.join(WORLD), toml::to_string(&world)?.as_bytes())
    })
}
