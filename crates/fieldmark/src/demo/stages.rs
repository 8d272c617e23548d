//! The stages of the demo as runs of the library, each with its settings and its folder.

use std::path::PathBuf;

use burn::tensor::Device;
use fieldmark_data::{ImageRoots, PromptTemplate, Split};
use fieldmark_eval::{
    EvalRun, Matching, OptionOrder, QuestionSet, Report, RunName, Scores, closed_questions, open_questions,
    read_predictions,
};
use fieldmark_generate::GenerationConfig;
use fieldmark_model::{Qwen25Vl, TrainableParts};
use fieldmark_train::{
    optim::{AdamWSettings, LrSchedule, LrShape},
    reward::RewardRegistry,
    sft::SftConfig,
    tapo::{TapoConfig, UpdateImage},
};

use super::{
    folder::OPTION,
    options::DemoOptions,
    sources::{DemoData, DemoTriplets},
};
use crate::{
    Checkpoint,
    error::RunError,
    folder::RunFolder,
    run::{Eval, Observer, Outcome, RunEvent, RunSetup, Sft, Tapo, eval, sft, tapo},
};

/// Largest number of new tokens. The longest response of the training set has about 35.
const MAX_NEW_TOKENS: usize = 48;

/// Number of micro-batches computed in parallel.
const WORKERS: usize = 2;

pub(super) struct Stages<'a> {
    pub(super) options: &'a DemoOptions,
    pub(super) data: &'a DemoData<'a>,
    pub(super) device: Device,
    pub(super) observer: &'a mut dyn Observer,
}

impl Stages<'_> {
    pub(super) fn introduce(&mut self, parameters: usize) -> Result<(), RunError> {
        let produce = self.data.produce;
        let count = |split| produce.split.classes(split).count();
        let text = format!(
            "{:.1} M parameters, {} training photographs of {} classes, {} more classes unseen; on {}",
            parameters as f64 / 1e6,
            produce.train.len(),
            count(Split::Seen),
            count(Split::Unseen),
            self.options.device_name,
        );
        self.observer.event(RunEvent::Note(&text))
    }

    fn folder(&self, stage: &str) -> Result<RunFolder, RunError> {
        RunFolder::given_by(OPTION, &self.options.out.join(stage))
    }

    /// Saves the model that SFT starts from.
    pub(super) fn base(&self, model: &Qwen25Vl) -> Result<Checkpoint, RunError> {
        let folder = self.folder("base")?;
        folder.create()?;
        let made = Checkpoint::made(self.data.processor.clone(), model.config());
        Checkpoint::at(made.save_in(model, &folder)?)
    }

    fn setup(&mut self, stage: &str) -> Result<RunSetup, RunError> {
        let mut setup = RunSetup::new(self.folder(stage)?, self.device.clone());
        setup.seed = self.options.seed;
        setup.interrupt = self.options.interrupt.clone();
        // A stage takes minutes, so it is saved only at its end and when it is stopped.
        setup.settings.save_every = 0;
        if self.options.resume {
            let mut notes = Vec::new();
            setup.begin = setup.folder.newest(&mut |note| notes.push(note))?;
            notes.iter().try_for_each(|note| self.observer.event(RunEvent::Note(note)))?;
        }
        Ok(setup)
    }

    /// Trains SFT. Returns `None` if the stage was stopped.
    pub(super) fn sft(&mut self, base: &Checkpoint) -> Result<Option<Checkpoint>, RunError> {
        let config = SftConfig {
            epochs: self.options.sft_epochs,
            batch: 32,
            micro_batch: 16,
            recompute: false,
            query_chunk: 0,
            workers: WORKERS,
            schedule: LrSchedule { lr: 1e-3, shape: LrShape::Cosine, warmup: 20, released: false },
            adamw: AdamWSettings { weight_decay: 0.05, ..AdamWSettings::default() },
            train: TrainableParts::default(),
            ..SftConfig::default()
        };
        self.observer.event(RunEvent::Stage("SFT"))?;
        let setup = self.setup("sft")?;
        let parts = Sft { checkpoint: base, source: self.data, validation: None, config };
        trained(sft(parts, &setup, self.observer)?)
    }

    /// Trains TAPO. Returns `None` if the stage was stopped.
    pub(super) fn tapo(
        &mut self,
        stage: &str,
        start: &Checkpoint,
        update_image: UpdateImage,
    ) -> Result<Option<Checkpoint>, RunError> {
        let config = TapoConfig {
            prompts_per_step: 16,
            chunk: 24,
            whole_chunks: true,
            max_tries: 3,
            anchor_rollouts: 4,
            positive_rollouts: 4,
            max_new_tokens: MAX_NEW_TOKENS,
            generation_batch: 192,
            batch: 64,
            micro_batch: 32,
            recompute: false,
            query_chunk: 0,
            workers: WORKERS,
            update_image,
            schedule: LrSchedule { lr: 5e-5, shape: LrShape::Constant, warmup: 0, released: false },
            ..TapoConfig::default()
        };
        self.observer.event(RunEvent::Stage("TAPO"))?;
        let setup = self.setup(stage)?;
        let source = DemoTriplets::new(self.data);
        let parts = Tapo {
            checkpoint: start,
            source: &source,
            validation: None,
            rewards: &RewardRegistry::standard(&config),
            config,
            steps: Some(self.options.tapo_steps),
        };
        trained(tapo(parts, &setup, self.observer)?)
    }

    /// Scores a model on seen and unseen classes in both worlds. Writes the predictions first. Returns `None` if the
    /// demo was stopped.
    pub(super) fn evaluate(&mut self, stage: &str, checkpoint: &Checkpoint) -> Result<Option<Scores>, RunError> {
        let produce = self.data.produce;
        let order = OptionOrder::Shuffled { seed: self.options.seed };
        let mut questions = Vec::new();
        for split in [Split::Seen, Split::Unseen] {
            let set = produce.test_set(split, &self.data.key)?;
            questions.extend(closed_questions(&set, order, PromptTemplate::Bare)?);
            questions.extend(open_questions(&set, PromptTemplate::Bare));
        }
        let sets = [QuestionSet::new(questions, ImageRoots::new(&produce.folder.root))];
        let run = EvalRun {
            model: &checkpoint.load(&self.device)?,
            processor: self.data.processor,
            decode: self.options.decode,
            generation: GenerationConfig {
                max_batch: 64,
                ..GenerationConfig::greedy(MAX_NEW_TOKENS, checkpoint.eos.clone())
            },
            seed: self.options.seed,
            name: RunName { model: stage.into(), device: self.options.device_name.clone() },
            device: &self.device,
        };
        self.observer.event(RunEvent::Stage(&format!("eval {stage}")))?;
        let interrupt = self.options.interrupt.clone();
        let evaluated = eval(Eval { run, sets: &sets, interrupt }, &self.folder(stage)?, self.observer)?;
        if !evaluated.answered.is_finished() {
            return Ok(None);
        }
        Ok(Some(Scores::of(&read_predictions(&evaluated.predictions)?.rows, Matching::Strict)))
    }

    pub(super) fn write_report(&self, report: &Report) -> Result<PathBuf, RunError> {
        let folder = RunFolder::given_by(OPTION, &self.options.out)?;
        folder.write("report.md", report.to_markdown().as_bytes())?;
        Ok(folder.file("report.md"))
    }
}

fn trained(outcome: Outcome) -> Result<Option<Checkpoint>, RunError> {
    outcome.checkpoint().map(Checkpoint::at).transpose()
}
