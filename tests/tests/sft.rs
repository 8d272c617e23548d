//! Supervised fine-tuning: frozen parts stay, seeds decide, what is not a number is left out, and the loss goes down.

use std::{collections::BTreeSet, sync::Mutex};

use burn::{
    module::Module,
    tensor::{DType, Device},
};
use fieldmark::{
    model::{LoadOptions, PartTypes, Qwen25Vl, Qwen25VlConfig, TrainableParts, WeightType},
    processor::SupervisedSequence,
    stream::StreamKey,
    train::{
        TrainError, Trainer,
        gradient::{LossNorm, Scorer},
        optim::{AdamWSettings, HalfWeights, LrSchedule, LrShape},
        parallel::Replicas,
        params::initialise,
        sft::{SftConfig, SftMetrics, SftSource, SftTrainer, sft_gradients, train_sft, validate_sft},
        trainer::Interrupt,
    },
};
use fieldmark_tests::{
    prompts::{MODELS, fixture, load},
    supervised::{PAD, SHAPES, device, micros, plainly, samples},
    training::{formats, gradients, parameters, updates},
};

/// Samples of the fixture models, and which were asked for.
struct Source {
    samples: Vec<SupervisedSequence>,
    /// An epoch in which sample 0 is made of NaN.
    poisoned: Option<usize>,
    asked: Mutex<Vec<(usize, usize)>>,
}

impl Source {
    fn new(samples: Vec<SupervisedSequence>) -> Self {
        Self { samples, poisoned: None, asked: Mutex::default() }
    }

    /// Rows in the order in which `epoch` asked for them.
    fn order(&self, epoch: usize) -> Vec<usize> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.1 == epoch).map(|asked| asked.0).collect()
    }
}

impl SftSource for Source {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn sample(&self, row: usize, epoch: usize) -> Result<SupervisedSequence, TrainError> {
        self.asked.lock().unwrap().push((row, epoch));
        let mut sample = self.samples[row].clone();
        if row == 0 && self.poisoned == Some(epoch) {
            let image = &mut sample.sequence.images[0];
            image.pixel_values = image.pixel_values.iter().map(|_| f32::NAN).collect();
        }
        Ok(sample)
    }
}

fn settings() -> SftConfig {
    SftConfig {
        epochs: 2,
        batch: 2,
        micro_batch: 1,
        schedule: LrSchedule { lr: 1e-3, shape: LrShape::Constant, warmup: 0, released: false },
        ..SftConfig::default()
    }
}

fn train(model: &Qwen25Vl, source: &Source, config: &SftConfig, seed: u64) -> (Qwen25Vl, Vec<SftMetrics>) {
    let mut metrics = Vec::new();
    let trained = train_sft(model.clone(), source, config, PAD, &StreamKey::new(seed), &device(), |row, _| {
        metrics.push(row.clone());
        Ok(())
    });
    (trained.unwrap(), metrics)
}

#[test]
fn the_validation_loss_is_that_of_single_sequences_and_changes_nothing() {
    let model = load(MODELS[0], &device());
    let (source, held) = {
        let samples = samples(model.config());
        (Source::new(samples[..3].to_vec()), Source::new(samples[3..].to_vec()))
    };
    let tokens = SHAPES[3].2 + SHAPES[4].2;
    let near = |found: f64, expected: f64, what: &str| {
        assert!((found - expected).abs() < 1e-5 * expected, "{what}: {found} for {expected}");
    };
    let expected = plainly(&model, &held.samples, &[2]).0;
    for (batch, micro_batch, micro_tokens, workers, packing) in
        [(8, 2, 0, 1, true), (1, 2, 0, 1, false), (2, 1, 0, 2, true), (8, 2, 1, 1, true), (8, 2, 0, 1, false)]
    {
        let config = SftConfig { batch, micro_batch, micro_tokens, workers, packing, ..settings() };
        let (scorer, replicas) = (config.scorer(PAD).unwrap(), Replicas::new(workers, &Device::flex()));
        let found = validate_sft(&model.valid(), &scorer, &held, &config, &replicas, &Interrupt::new());
        let found = found.unwrap().unwrap();
        near(found.loss, expected, &format!("{config:?}"));
        assert_eq!(found.tokens, tokens);
    }

    // Batches of 2 and 1 rows in each of two epochs: after updates 3 and 4, of the model as it is then.
    let config = SftConfig { eval_every: Some(3), ..settings() };
    let mut trainer = SftTrainer::new(&model, &source, config.clone(), PAD, StreamKey::new(0), &device())
        .unwrap()
        .with_validation(&held);
    let (mut trained, mut rows) = (model.clone(), Vec::new());
    while !trainer.is_finished() {
        let mut row = None;
        trained = trainer.step(trained, &mut updates(|metrics, _| row = Some(metrics.clone()))).unwrap().0;
        let row = row.unwrap();
        assert_eq!(row.validation.is_some(), row.step >= 3);
        if let Some(found) = row.validation {
            near(found.loss, plainly(&trained, &held.samples, &[2]).0, &format!("after {}", row.step));
            assert!(found.loss != expected && found.tokens == tokens);
        }
        rows.push(SftMetrics { validation: None, ..row });
    }
    let (alone, alone_rows) = train(&model, &source, &config, 0);
    assert!(parameters(&alone) == parameters(&trained) && alone_rows == rows);
    assert_eq!(held.order(0).len(), held.asked.lock().unwrap().len());
}

#[test]
fn text_moves_the_decoder_and_never_the_vision_encoder() {
    let model = load(MODELS[0], &device());
    let text = samples(model.config()).into_iter().map(|mut sample| {
        let image = model.config().vision_tokens.image;
        let keep: Vec<bool> = sample.sequence.ids.iter().map(|id| *id != image).collect();
        let mut kept = keep.iter();
        sample.sequence.ids.retain(|_| *kept.next().unwrap());
        let mut kept = keep.iter();
        sample.target_mask.retain(|_| *kept.next().unwrap());
        sample.sequence.images.clear();
        sample
    });
    let source = Source::new(text.collect());
    let before = parameters(&model);
    for decoder in [true, false] {
        let train_parts = TrainableParts { vision: true, projector: true, decoder };
        let config = SftConfig { train: train_parts, workers: 2, ..settings() };
        let (trained, rows) = train(&model, &source, &config, 0);
        let decays = config.adamw.weight_decay > 0.0;
        assert!(decays && rows.iter().all(|row| row.loss.is_finite() && row.skipped == 0));
        for ((path, old), (_, new)) in before.iter().zip(parameters(&trained)) {
            let moves = decoder && !path.starts_with("visual.");
            assert_eq!(*old != new, moves, "{path}, decoder {decoder}");
        }
    }
}

#[test]
fn frozen_parts_stay_bit_for_bit_and_the_others_move() {
    let part = |path: &str, parts: TrainableParts| match path {
        path if path.starts_with("visual.merger") => parts.projector,
        path if path.starts_with("visual.") => parts.vision,
        _ => parts.decoder,
    };
    for (name, workers) in [(MODELS[0], 1), (MODELS[1], 2)] {
        let model = load(name, &device());
        let source = Source::new(samples(model.config()));
        let before = parameters(&model);
        for [vision, projector, decoder] in
            [[false, false, true], [false, true, false], [true, false, false], [true, false, true], [true, true, true]]
        {
            let parts = TrainableParts { vision, projector, decoder };
            let config = SftConfig { epochs: 1, workers, train: parts, ..settings() };
            let after = parameters(&train(&model, &source, &config, 0).0);
            for ((path, before), (_, after)) in before.iter().zip(&after) {
                assert_eq!(before != after, part(path, parts), "{name} {path} {parts:?}");
            }
        }
    }
}

#[test]
fn the_loss_of_four_samples_goes_down() {
    let model = load(MODELS[0], &device());
    let source = Source::new(samples(model.config())[..4].to_vec());
    let config = SftConfig { epochs: 20, batch: 4, micro_batch: 3, ..settings() };
    let losses: Vec<f64> = train(&model, &source, &config, 0).1.iter().map(|row| row.loss).collect();
    assert_eq!(losses.len(), 20);
    assert!(losses.windows(4).all(|losses| losses[3] < losses[0]), "{losses:?}");
    assert!(losses[19] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn bf16_learns_as_f32_does_and_parts_keep_their_formats() {
    let (f32, bf16) = (Some(WeightType::F32), Some(WeightType::Bf16));
    let run = |dtype, parts, half| {
        let options = LoadOptions { dtype, parts };
        let model = Qwen25Vl::from_pretrained(&fixture(MODELS[0]), options, &device()).unwrap();
        let source = Source::new(samples(model.config())[..4].to_vec());
        let adamw = AdamWSettings { half, ..AdamWSettings::default() };
        let config =
            SftConfig { epochs: 20, batch: 4, micro_batch: 3, train: TrainableParts::default(), adamw, ..settings() };
        let (model, metrics) = train(&model, &source, &config, 0);
        (formats(&model), metrics.into_iter().map(|row| row.loss).collect::<Vec<_>>())
    };
    let (_, expected) = run(f32, PartTypes::default(), HalfWeights::None);
    // In nats, from 9.9 at first to 0.0003 at last.
    let near = |losses: &[f64]| losses.iter().zip(&expected).all(|(loss, expected)| (loss - expected).abs() < 0.15);
    let mixed = PartTypes { vision: f32, projector: bf16, decoder: None };
    let other = PartTypes { vision: bf16, projector: None, decoder: f32 };
    for (dtype, parts, wanted) in [
        (bf16, PartTypes::default(), [DType::BF16; 3]),
        (bf16, mixed, [DType::F32, DType::BF16, DType::BF16]),
        (f32, other, [DType::BF16, DType::F32, DType::F32]),
    ] {
        for half in [HalfWeights::Master, HalfWeights::Kahan] {
            let (formats, losses) = run(dtype, parts, half);
            for (name, format) in formats {
                let part = match name.as_str() {
                    name if name.starts_with("visual.merger") => 1,
                    name if name.starts_with("visual.") => 0,
                    _ => 2,
                };
                assert_eq!(format, wanted[part], "{name}");
            }
            assert!(near(&losses), "{parts:?} {half:?}: {losses:?} {expected:?}");
            assert_ne!(losses, expected);
        }
    }
}

#[test]
fn a_seed_decides_the_order_and_the_weights() {
    let model = load(MODELS[0], &device());
    let run = |seed| {
        let source = Source::new(samples(model.config()));
        let (trained, metrics) = train(&model, &source, &settings(), seed);
        (parameters(&trained), source, metrics)
    };
    let (first, source, metrics) = run(1);
    let (again, ..) = run(1);
    let (other, other_source, _) = run(2);
    assert!(first == again && first != other);
    assert_ne!(source.order(0), other_source.order(0));
    assert_ne!(source.order(0), source.order(1));

    // Batches of 2, 2 and 1 rows in each epoch, every row once.
    let mut steps = metrics.iter();
    for epoch in 0..2 {
        let order = source.order(epoch);
        let mut rows = order.clone();
        rows.sort_unstable();
        assert_eq!(rows, [0, 1, 2, 3, 4]);
        for (i, rows) in order.chunks(2).enumerate() {
            let row = steps.next().unwrap();
            assert_eq!(row.tokens, rows.iter().map(|&row| SHAPES[row].2).sum::<usize>());
            let seen = epoch as f64 + (2.0 * (i + 1) as f64).min(5.0) / 5.0;
            assert!((row.epoch - seen).abs() < 1e-9);
        }
    }
    assert!(steps.next().is_none());
}

#[test]
fn an_update_that_is_not_finite_is_skipped_and_counted() {
    let model = load(MODELS[0], &device());
    let before = parameters(&model);
    let mut source = Source::new(samples(model.config())[..2].to_vec());
    source.poisoned = Some(0);
    let config = SftConfig { epochs: 1, workers: 2, ..settings() };
    let (after, metrics) = train(&model, &source, &config, 0);
    assert!(parameters(&after) == before);
    assert!(metrics.len() == 1 && metrics[0].skipped == 1 && !metrics[0].grad_norm.is_finite());
    assert_eq!(metrics[0].non_finite, [source.samples[0].sequence.name.clone()]);

    // Neither the moments nor the order remember it: only the count does.
    let config = SftConfig { epochs: 3, ..config };
    let (after, metrics) = train(&model, &source, &config, 0);
    assert_eq!(metrics.iter().map(|row| row.skipped).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(metrics.iter().map(|row| row.step).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(metrics[1..].iter().all(|row| row.loss.is_finite() && row.grad_norm.is_finite()));
    let after = parameters(&after);
    assert!(after != before && after.iter().flat_map(|(_, values)| values).all(|x| x.is_finite()));
}

#[test]
fn a_new_model_knows_nothing_and_a_deeper_one_starts_the_same() {
    let config = load(MODELS[1], &Device::flex()).config().clone();
    let make = |config: &Qwen25VlConfig| initialise(config.init(&device()), 0.02, &StreamKey::new(3));
    let model = make(&config);
    let found = parameters(&model);
    for (path, values) in &found {
        match path.rsplit('.').next().unwrap() {
            "gamma" => assert!(values.iter().all(|&x| x == 1.0), "{path}"),
            "bias" => assert!(values.iter().all(|&x| x == 0.0), "{path}"),
            _ => {
                let mean = values.iter().sum::<f32>() / values.len() as f32;
                let spread = (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt();
                assert!(mean.abs() < 2e-3 && (spread - 0.02).abs() < 2e-3, "{path} {mean} {spread}");
            }
        }
    }
    // Every matrix has a stream of its own.
    let drawn = || found.iter().filter(|(_, values)| values[0] != 0.0 && values[0] != 1.0);
    let starts: BTreeSet<u32> = drawn().map(|(_, values)| values[0].to_bits()).collect();
    assert!(starts.len() > 10 && starts.len() == drawn().count());
    let micros = micros(&samples(&config), &[5]);
    let scorer = Scorer::new(64, 1.0, PAD).unwrap();
    let update = sft_gradients(&model, &scorer, &micros, LossNorm::Batch, &Replicas::new(1, &device())).unwrap();
    assert!((update.loss - f64::from(config.text.vocab_size as u32).ln()).abs() < 0.1, "{}", update.loss);
    for (path, grad) in gradients(&model, &update.grads) {
        assert!(grad.iter().any(|&x| x != 0.0), "{path} has no gradient");
    }

    let mut deeper = config.clone();
    deeper.text.num_hidden_layers += 2;
    let deeper = parameters(&make(&deeper));
    assert!(deeper.len() > found.len());
    for one in &found {
        assert!(deeper.contains(one), "{}", one.0);
    }
}

#[test]
fn settings_without_meaning_are_refused_before_any_sample_is_read() {
    let model = load(MODELS[0], &device());
    let source = Source::new(samples(model.config()));
    let refused = |config: SftConfig, source: &Source| {
        let streams = StreamKey::new(0);
        train_sft(model.clone(), source, &config, PAD, &streams, &device(), |_, _| Ok(())).map(|_| ()).unwrap_err()
    };
    let adamw = AdamWSettings { beta1: 1.0, ..AdamWSettings::default() };
    for (config, wanted) in [
        (SftConfig { batch: 0, ..settings() }, "batch"),
        (SftConfig { micro_batch: 0, ..settings() }, "micro_batch"),
        (SftConfig { logit_chunk: 0, ..settings() }, "logit_chunk"),
        (SftConfig { max_grad_norm: 0.0, ..settings() }, "max_grad_norm"),
        (SftConfig { adamw, ..settings() }, "beta1"),
    ] {
        let error = refused(config, &source).to_string();
        assert!(error.contains(&format!("`{wanted}`")) || error.contains(wanted), "{error}");
    }
    refused(settings(), &Source::new(Vec::new()));
    assert!(source.asked.lock().unwrap().is_empty());
}
