//! The stages of the demo, each with its progress bar, its files and its settings.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fieldmark_data::{ImageRoots, PromptTemplate, Split};
use fieldmark_eval::{
    EvalRun, Matching, OptionOrder, QuestionSet, Report, RunName, Scores, closed_questions, open_questions,
    read_predictions,
};
use fieldmark_generate::GenerationConfig;
use fieldmark_model::{Qwen25Vl, SaveOptions, TrainableParts};
use fieldmark_processor::DecodeOptions;
use fieldmark_train::{
    AdamWSettings, LrSchedule, LrShape, MetricsWriter, RewardRegistry, SftConfig, TapoConfig, TapoEvent, TapoTrainer,
    UpdateImage, train_sft,
};

use super::{
    DemoError, DemoOptions,
    sources::{DemoData, DemoTriplets},
};
use crate::progress::Progress;

/// Most new tokens: the longest taught response has about 35.
const MAX_NEW_TOKENS: usize = 48;

/// Micro-batches side by side.
const WORKERS: usize = 2;

pub(super) struct Stages<'a> {
    pub(super) options: &'a DemoOptions,
    pub(super) data: &'a DemoData<'a>,
    pub(super) device: Device,
}

impl Stages<'_> {
    pub(super) fn introduce(&self, parameters: usize) {
        let produce = self.data.produce;
        let count = |split| produce.split.classes(split).count();
        eprintln!(
            "{:.1} M parameters, {} training photographs of {} classes, {} more classes unseen; on {}",
            parameters as f64 / 1e6,
            produce.train.len(),
            count(Split::Seen),
            count(Split::Unseen),
            self.options.device_name,
        );
    }

    fn file(&self, stage: &str, name: &str) -> Result<PathBuf, DemoError> {
        let folder = self.options.out.join(stage);
        std::fs::create_dir_all(&folder).map_err(DemoError::write(&folder))?;
        Ok(folder.join(name))
    }

    /// Checkpoint, processor and generation settings, so that the folder serves `fieldmark ask` and transformers.
    fn save(&self, stage: &str, model: &Qwen25Vl) -> Result<(), DemoError> {
        let folder = self.options.out.join(stage);
        model.save_pretrained(&folder, SaveOptions::default())?;
        self.data.processor.save(&folder)?;
        let tokenizer = &self.data.processor.tokenizer;
        let settings = serde_json::json!({
            "eos_token_id": [tokenizer.eos()],
            "pad_token_id": tokenizer.pad(),
            "do_sample": false,
            "repetition_penalty": 1.0,
        });
        write(&folder.join("generation_config.json"), &format!("{settings:#}\n"))
    }

    pub(super) fn sft(&self, base: Qwen25Vl) -> Result<Qwen25Vl, DemoError> {
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
        let mut metrics = MetricsWriter::create(self.file("sft", "metrics.jsonl")?)?;
        let mut timings = MetricsWriter::create(self.file("sft", "timings.jsonl")?)?;
        let progress = Progress::new("SFT", config.updates(self.data.produce.train.len()));
        let pad = self.data.processor.tokenizer.pad();
        let model = train_sft(base, self.data, &config, pad, &self.data.key, &self.device, |update, timing| {
            progress.step(update.step, format!("loss {:.3}", update.loss));
            metrics.write(update)?;
            timings.write(timing)
        })?;
        progress.finish();
        self.save("sft", &model)?;
        Ok(model)
    }

    pub(super) fn tapo(&self, stage: &str, sft: Qwen25Vl, update_image: UpdateImage) -> Result<Qwen25Vl, DemoError> {
        let config = TapoConfig {
            prompts_per_step: 16,
            chunk: 24,
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
        let triplets = DemoTriplets { data: self.data };
        let tokenizer = &self.data.processor.tokenizer;
        let mut metrics = MetricsWriter::create(self.file(stage, "metrics.jsonl")?)?;
        let mut timings = MetricsWriter::create(self.file(stage, "timings.jsonl")?)?;
        let mut trainer = TapoTrainer::new(
            &sft,
            &triplets,
            tokenizer,
            vec![tokenizer.eos()],
            config.clone(),
            &RewardRegistry::standard(&config),
            self.data.key.clone(),
            &self.device,
        )?
        .with_steps(self.options.tapo_steps);
        let progress = Progress::new("TAPO", trainer.steps());
        let mut reward = 0.0;
        let model = trainer.train(sft, |event| match event {
            TapoEvent::Rollouts(_) | TapoEvent::Validation(..) => Ok(()),
            TapoEvent::Drawn(drawn, timing) => {
                reward = drawn.reward;
                metrics.write(drawn)?;
                timings.write(timing)
            }
            TapoEvent::Update(update, timing) => {
                progress.step(update.rollout_step, format!("reward {reward:.3}, ratio {:.3}", update.parts.ratio));
                metrics.write(update)?;
                timings.write(timing)
            }
        })?;
        progress.finish();
        self.save(stage, &model)?;
        Ok(model)
    }

    /// Scores of a model on seen and unseen classes in both worlds; predictions are written first.
    pub(super) fn evaluate(&self, stage: &str, model: &Qwen25Vl) -> Result<Scores, DemoError> {
        let produce = self.data.produce;
        let order = OptionOrder::Shuffled { seed: self.options.seed };
        let mut questions = Vec::new();
        for split in [Split::Seen, Split::Unseen] {
            let set = produce.test_set(split, &self.data.key)?;
            questions.extend(closed_questions(&set, order, PromptTemplate::Bare)?);
            questions.extend(open_questions(&set, PromptTemplate::Bare));
        }
        let tokenizer = &self.data.processor.tokenizer;
        let device = self.device.clone().without_autodiff();
        let set = QuestionSet::new(questions, ImageRoots::new(&produce.folder.root));
        let run = EvalRun {
            model,
            processor: self.data.processor,
            decode: DecodeOptions::default(),
            generation: GenerationConfig {
                max_batch: 64,
                ..GenerationConfig::greedy(MAX_NEW_TOKENS, vec![tokenizer.eos()])
            },
            seed: self.options.seed,
            name: RunName { model: stage.into(), device: self.options.device_name.clone() },
            device: &device,
        };
        let file = self.file(stage, "predictions.jsonl")?;
        let progress = Progress::new(format!("eval {stage}"), set.questions.len());
        run.predict(&[set], &file, |done, _| progress.step(done, String::new()))?;
        progress.finish();
        Ok(Scores::of(&read_predictions(&file)?, Matching::Strict))
    }

    pub(super) fn write_report(&self, report: &Report) -> Result<(), DemoError> {
        write(&self.options.out.join("report.md"), &report.to_markdown())
    }
}

fn write(path: &Path, text: &str) -> Result<(), DemoError> {
    fieldmark_model::files::write_whole(path, text.as_bytes()).map_err(DemoError::write(path))
}
