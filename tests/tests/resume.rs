//! Training loops that are stopped, saved, and continued by another trainer on a model read from the checkpoint: weights and
//! metrics are to the bit those of a run that never stopped.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use burn::tensor::Device;
use fieldmark::{
    generate::StreamKey,
    model::{LoadOptions, Qwen25Vl, Qwen25VlConfig, SaveOptions, TrainableParts},
    processor::{Sequence, SupervisedSequence, Tokenizer},
    train::{
        Best, Checkpoints, Estimator, GroupFilter, Interrupt, LrSchedule, LrShape, Mark, Reward, RewardInput,
        RewardRegistry, SftConfig, SftSource, SftState, SftTrainer, TapoConfig, TapoEvent, TapoLossConfig, TapoState,
        TapoTrainer, TermSchedule, TrainError, TripletPrompt, TripletSource, stable_param_ids,
    },
};
use fieldmark_tests::{
    prompts::{MODELS, Part, load, sequence},
    training::{Named, VOCABULARY, parameters, word_tokenizer},
};

const PAD: u32 = 0;

fn device() -> Device {
    Device::flex().autodiff()
}

fn start() -> Qwen25Vl {
    stable_param_ids(load(MODELS[0], &device()))
}

/// Text and an image of each row's own.
fn prompt(config: &Qwen25VlConfig, row: u64, image: u64) -> Sequence {
    let text = |seed: u64, count: usize| {
        let mut stream = StreamKey::new(seed).word("text").stream();
        Part::Text((0..count).map(|_| 8 + stream.below(312) as u32).collect())
    };
    let longer = 4 + 2 * (row as usize % 3);
    let mut made =
        sequence(&[text(row, 3), Part::Image { h: 4, w: longer, seed: 10 * row + image }, text(row + 100, 2)], config);
    made.name = format!("row {row}");
    made
}

fn poison(sequence: &mut Sequence) {
    let image = &mut sequence.images[0];
    image.pixel_values = image.pixel_values.iter().map(|_| f32::NAN).collect();
}

/// Rows of which some are made of NaN.
struct Rows {
    config: Qwen25VlConfig,
    rows: usize,
    poisoned: Vec<usize>,
}

impl Rows {
    fn new(rows: usize) -> Self {
        Self { config: load(MODELS[0], &Device::flex()).config().clone(), rows, poisoned: Vec::new() }
    }

    fn poisoned(rows: usize, poisoned: &[usize]) -> Self {
        Self { poisoned: poisoned.to_vec(), ..Self::new(rows) }
    }
}

impl SftSource for Rows {
    fn len(&self) -> usize {
        self.rows
    }

    fn sample(&self, row: usize, epoch: usize) -> Result<SupervisedSequence, TrainError> {
        let mut prompt = prompt(&self.config, row as u64, epoch as u64);
        if self.poisoned.contains(&row) {
            poison(&mut prompt);
        }
        let answer: Vec<u32> = (0..3 + row as u32).map(|i| 20 + 7 * i + row as u32).collect();
        let mut target_mask = vec![false; prompt.ids.len()];
        target_mask.resize(prompt.ids.len() + answer.len(), true);
        Ok(SupervisedSequence { sequence: prompt.with_response(&answer), target_mask })
    }
}

impl TripletSource for Rows {
    fn len(&self) -> usize {
        self.rows
    }

    fn prompt(&self, row: usize, epoch: usize) -> Result<TripletPrompt, TrainError> {
        let make = |image: u64| prompt(&self.config, row as u64, 3 * epoch as u64 + image);
        let mut negative = make(2);
        if self.poisoned.contains(&row) {
            poison(&mut negative);
        }
        let truth = (8..VOCABULARY).step_by(3).map(|id| format!("t{id}")).collect::<Vec<_>>().join(" ");
        Ok(TripletPrompt { anchor: make(0), positive: Some(make(1)), negative: Some(negative), truth })
    }
}

/// Saves what a trainer is and its model, reads the model back, and hands both to whoever goes on.
fn through_a_checkpoint<S: serde::Serialize + serde::de::DeserializeOwned>(
    folder: &Path,
    model: &Qwen25Vl,
    updater: &fieldmark::train::Updater,
    state: &S,
) -> (Qwen25Vl, S, std::path::PathBuf) {
    let checkpoints = Checkpoints::new(folder);
    let mark = Mark { step: 1, updates: 0 };
    let saved = checkpoints.save(mark, updater, state, |folder| -> Result<(), TrainError> {
        model.save_pretrained(folder, SaveOptions::default()).unwrap();
        Ok(())
    });
    let saved = saved.unwrap();
    let model = stable_param_ids(Qwen25Vl::from_pretrained(&saved, LoadOptions::default(), &device()).unwrap());
    let state = Checkpoints::state(&saved).unwrap();
    (model, state, Checkpoints::moments(&saved))
}

fn sft() -> SftConfig {
    SftConfig {
        epochs: 3,
        batch: 2,
        micro_batch: 1,
        schedule: LrSchedule { lr: 1e-3, shape: LrShape::Cosine, warmup: 2, released: false },
        train: TrainableParts::default(),
        ..SftConfig::default()
    }
}

fn sft_trainer<'a>(model: &Qwen25Vl, rows: &'a Rows, config: &SftConfig) -> SftTrainer<'a, Rows> {
    SftTrainer::new(model, rows, config.clone(), PAD, StreamKey::new(4), &device()).unwrap()
}

/// Trains until `stop` updates are made; metrics as they are written.
fn sft_until(
    trainer: SftTrainer<'_, Rows>,
    model: Qwen25Vl,
    stop: usize,
    log: &mut Vec<String>,
) -> (Qwen25Vl, SftState, Saved) {
    let folder = tempfile::tempdir().unwrap();
    let interrupt = Interrupt::new();
    let mut trainer = trainer.with_interrupt(interrupt.clone());
    let model = trainer.train(model, |row, _| {
        log.push(serde_json::to_string(row).unwrap());
        if row.step >= stop {
            interrupt.ask();
        }
        Ok(())
    });
    let (model, state, moments) =
        through_a_checkpoint(folder.path(), &model.unwrap(), trainer.updater(), &trainer.state());
    (model, state, Saved { moments, _folder: folder })
}

struct Saved {
    moments: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

#[test]
fn sft_goes_on_to_the_bit_after_any_update() {
    let (rows, config) = (Rows::new(5), sft());
    let mut whole = Vec::new();
    let model = sft_trainer(&start(), &rows, &config).train(start(), |row, _| {
        whole.push(serde_json::to_string(row).unwrap());
        Ok(())
    });
    let expected = parameters(&model.unwrap());
    assert_eq!(whole.len(), 9);
    for stop in 1..9 {
        let mut log = Vec::new();
        let (model, state, saved) = sft_until(sft_trainer(&start(), &rows, &config), start(), stop, &mut log);
        assert_eq!((log.len(), state.updates.done, state.log_end().step), (stop, stop, stop));
        let mut again = sft_trainer(&model, &rows, &config).restore(&state, &saved.moments).unwrap();
        let model = again.train(model, |row, _| {
            log.push(serde_json::to_string(row).unwrap());
            Ok(())
        });
        assert_eq!(log, whole, "stopped after {stop}");
        assert!(parameters(&model.unwrap()) == expected, "stopped after {stop}");
    }
}

#[test]
fn training_twice_goes_on() {
    let (rows, config) = (Rows::new(5), sft());
    let interrupt = Interrupt::new();
    let mut trainer = sft_trainer(&start(), &rows, &config).with_interrupt(interrupt.clone());
    let steps = AtomicUsize::new(0);
    let mut model = start();
    for _ in 0..2 {
        model = trainer
            .train(model, |row, _| {
                assert_eq!(row.step, 1 + steps.fetch_add(1, Ordering::SeqCst));
                if row.step == 9 {
                    interrupt.ask();
                }
                Ok(())
            })
            .unwrap();
        assert!(trainer.is_finished());
    }
    assert_eq!(steps.into_inner(), 9);
}

#[test]
fn a_saved_run_is_not_continued_on_other_data() {
    let (rows, config) = (Rows::new(5), sft());
    let mut log = Vec::new();
    let (model, state, saved) = sft_until(sft_trainer(&start(), &rows, &config), start(), 1, &mut log);
    let other = Rows::new(6);
    let error = sft_trainer(&model, &other, &config).restore(&state, &saved.moments).err().unwrap().to_string();
    assert!(error.contains("rows 5, this one 6"), "{error}");
    let longer = SftConfig { epochs: 4, ..config };
    let error = sft_trainer(&model, &rows, &longer).restore(&state, &saved.moments).err().unwrap().to_string();
    assert!(error.contains("updates in all 9, this one 12"), "{error}");
    std::fs::write(&saved.moments, "no moments").unwrap();
    let error = sft_trainer(&model, &rows, &sft()).restore(&state, &saved.moments).err().unwrap().to_string();
    assert!(error.contains("optimizer.bpk: optimiser state"), "{error}");
}

/// The order in which the rows of an epoch come.
fn order_of(rows: usize, words: [&str; 2], seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    StreamKey::new(seed).word(words[0]).word(words[1]).number(0).stream().shuffle(&mut order);
    order
}

#[test]
fn three_bad_sft_updates_in_a_row_stop_before_the_first_of_them() {
    // One row in each of updates 3, 4 and 5 of two rows is poisoned.
    let order = order_of(12, ["sft", "order"], 4);
    let config = SftConfig { epochs: 1, micro_batch: 2, ..sft() };
    let bad = [order[4], order[7], order[8]];
    let (poisoned, healthy) = (Rows::poisoned(12, &bad), Rows::new(12));
    let mut whole = Vec::new();
    let model = sft_trainer(&start(), &healthy, &config).train(start(), |row, _| {
        whole.push(serde_json::to_string(row).unwrap());
        Ok(())
    });
    let expected = parameters(&model.unwrap());

    let mut trainer = sft_trainer(&start(), &poisoned, &config);
    let (mut model, mut named, mut log) = (start(), Vec::new(), Vec::new());
    while trainer.fault().is_none() {
        assert!(!trainer.is_finished());
        model = trainer
            .step(model, |row, _| {
                named.push(row.non_finite.clone());
                log.push(serde_json::to_string(row).unwrap());
                Ok(())
            })
            .unwrap();
    }
    assert_eq!(named[..2], [Vec::<String>::new(), Vec::new()]);
    // The sample alone, not its micro-batch.
    assert_eq!(named[2..], bad.map(|row| vec![format!("row {row}")]));
    let error = trainer.fault().unwrap().to_string();
    assert!(
        bad.iter().all(|row| error.contains(&format!("row {row}"))) && error.contains("3 updates in a row"),
        "{error}"
    );
    let state = trainer.state();
    assert_eq!((state.updates.done, state.updates.skipped), (2, 0));

    // With the rows mended, the run from there is the one that never met them.
    let folder = tempfile::tempdir().unwrap();
    let (model, state, moments) = through_a_checkpoint(folder.path(), &model, trainer.updater(), &state);
    log.truncate(state.log_end().step);
    let mut again = sft_trainer(&model, &healthy, &config).restore(&state, &moments).unwrap();
    let model = again.train(model, |row, _| {
        log.push(serde_json::to_string(row).unwrap());
        Ok(())
    });
    assert_eq!(log, whole);
    assert!(parameters(&model.unwrap()) == expected);
    // train() says so by itself.
    let refused = sft_trainer(&start(), &poisoned, &config).train(start(), |_, _| Ok(()));
    assert!(matches!(refused, Err(TrainError::Diverged { count: 3, update: 5, .. })));
}

/// 1 where the response has one of the truth's words.
struct Words;

impl Reward for Words {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        f64::from(u8::from(input.response.split(' ').any(|word| input.truth.split(' ').any(|wanted| wanted == word))))
    }
}

fn tapo() -> TapoConfig {
    TapoConfig {
        prompts_per_step: 2,
        chunk: 3,
        max_tries: 3,
        anchor_rollouts: 2,
        positive_rollouts: 2,
        max_new_tokens: 4,
        generation_batch: 12,
        filter: GroupFilter { enabled: false, ..GroupFilter::default() },
        batch: 4,
        micro_batch: 2,
        schedule: LrSchedule { lr: 1e-3, shape: LrShape::Cosine, warmup: 1, released: false },
        ..TapoConfig::default()
    }
}

fn tapo_trainer<'a>(
    model: &Qwen25Vl,
    rows: &'a Rows,
    tokenizer: &'a Tokenizer,
    config: &TapoConfig,
    steps: usize,
) -> TapoTrainer<'a, Rows> {
    let ends = (2..VOCABULARY).step_by(6).filter(|&id| id == 2 || id > 8).collect();
    let registry = RewardRegistry::default().with("accuracy", Words).with("format", Words);
    TapoTrainer::new(model, rows, tokenizer, ends, config.clone(), &registry, StreamKey::new(4), &device())
        .unwrap()
        .with_steps(steps)
}

/// Every event as it is written down, with the step and the update it belongs to.
fn note(log: &mut Vec<(Mark, String)>, event: TapoEvent<'_>) {
    match event {
        TapoEvent::Validation(..) => {}
        TapoEvent::Rollouts(groups) => {
            let texts: Vec<_> =
                groups.iter().flat_map(|group| &group.rollouts).map(|rollout| format!("{rollout:?}")).collect();
            log.push((Mark { step: 0, updates: 0 }, texts.join(";")));
        }
        TapoEvent::Drawn(row, _) => {
            log.push((Mark { step: row.rollout_step, updates: row.step }, serde_json::to_string(row).unwrap()))
        }
        TapoEvent::Update(row, _) => {
            log.push((Mark { step: row.rollout_step, updates: row.step }, serde_json::to_string(row).unwrap()))
        }
    }
}

fn all(trainer: &mut TapoTrainer<'_, Rows>, model: Qwen25Vl, log: &mut Vec<(Mark, String)>) -> Named {
    let model = trainer.train(model, |event| {
        note(log, event);
        Ok(())
    });
    parameters(&model.unwrap())
}

#[test]
fn tapo_goes_on_to_the_bit_after_any_step_with_its_surplus_and_its_reference() {
    let (rows, tokenizer) = (Rows::new(4), word_tokenizer());
    let loss = TapoLossConfig { kl_ref: 0.5, ..TapoLossConfig::default() };
    for config in [
        tapo(),
        TapoConfig { loss, workers: 2, ..tapo() },
        TapoConfig { loss: TapoLossConfig { negative_grad: false, ..loss }, ..tapo() },
        TapoConfig { estimator: Estimator::ReinforcePlusPlus, terms: TermSchedule::Anneal, ..tapo() },
        TapoConfig { estimator: Estimator::Remax, ..tapo() },
    ] {
        let mut whole = Vec::new();
        let expected = all(&mut tapo_trainer(&start(), &rows, &tokenizer, &config, 4), start(), &mut whole);
        for stop in 1..4 {
            let (folder, interrupt) = (tempfile::tempdir().unwrap(), Interrupt::new());
            let mut trainer = tapo_trainer(&start(), &rows, &tokenizer, &config, 4).with_interrupt(interrupt.clone());
            let mut log = Vec::new();
            let model = trainer.train(start(), |event| {
                if matches!(&event, TapoEvent::Drawn(row, _) if row.rollout_step == stop) {
                    interrupt.ask();
                }
                note(&mut log, event);
                Ok(())
            });
            let state = trainer.state();
            assert_eq!((state.step, state.surplus.len(), state.updates.done), (stop, [1, 2, 0][stop - 1], 2 * stop));
            let (model, state, moments): (_, TapoState, _) =
                through_a_checkpoint(folder.path(), &model.unwrap(), trainer.updater(), &state);
            assert_eq!(state, trainer.state());
            let again = tapo_trainer(&model, &rows, &tokenizer, &config, 4);
            let mut again = again.restore(&state, &moments).unwrap();
            if config.loss.kl_ref != 0.0 {
                let refused = again.train(model.clone(), |_| Ok(()));
                assert!(matches!(refused, Err(TrainError::NoReference)));
                again = again.with_reference(&start());
            }
            let found = all(&mut again, model, &mut log);
            assert_eq!(log, whole, "stopped after {stop}");
            assert!(found == expected, "stopped after {stop}");
        }
    }
}

#[test]
fn three_bad_tapo_updates_in_a_row_stop_before_the_first_of_them_in_the_middle_of_a_step() {
    // Four groups and an update each; all but the first are poisoned.
    let tokenizer = word_tokenizer();
    let order = order_of(4, ["tapo", "order"], 4);
    let config = TapoConfig { prompts_per_step: 4, chunk: 5, estimator: Estimator::ReinforcePlusPlus, ..tapo() };
    let (poisoned, healthy) = (Rows::poisoned(4, &order[1..]), Rows::new(4));
    let mut whole = Vec::new();
    let expected = all(&mut tapo_trainer(&start(), &healthy, &tokenizer, &config, 2), start(), &mut whole);

    let mut trainer = tapo_trainer(&start(), &poisoned, &tokenizer, &config, 2);
    let (mut log, mut named) = (Vec::new(), Vec::new());
    let model = trainer.step(start(), |event| {
        if let TapoEvent::Update(row, _) = &event {
            named.push(row.non_finite.clone());
        }
        note(&mut log, event);
        Ok(())
    });
    assert_eq!(named[1..], [1, 2, 3].map(|place| vec![format!("row {}", order[place])]));
    assert!(named[0].is_empty() && trainer.fault().unwrap().to_string().contains(&format!("row {}", order[3])));
    let state = trainer.state();
    let open = state.open.as_ref().unwrap();
    assert_eq!(
        (state.step, state.updates.done, state.updates.skipped, open.updates, open.groups.len()),
        (0, 1, 0, 1, 4)
    );
    assert_eq!((state.surplus.len(), state.log_end().rollout_step), (1, Some(1)));

    let folder = tempfile::tempdir().unwrap();
    let (model, state, moments) = through_a_checkpoint(folder.path(), &model.unwrap(), trainer.updater(), &state);
    log.retain(|(mark, _)| mark.updates <= 1);
    let mut again = tapo_trainer(&model, &healthy, &tokenizer, &config, 2).restore(&state, &moments).unwrap();
    assert_eq!(again.state(), state);
    let found = all(&mut again, model, &mut log);
    assert_eq!(log, whole);
    assert!(found == expected);

    // As released, log-probabilities on the negative image come from before the step's first update: they are saved.
    let released = TapoConfig { loss: TapoLossConfig { negative_grad: false, ..config.loss }, ..config };
    let mut first = tapo_trainer(&start(), &poisoned, &tokenizer, &released, 2);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let model = first.step(start(), |event| {
        note(&mut before, event);
        Ok(())
    });
    assert!(first.fault().is_some());
    let folder = tempfile::tempdir().unwrap();
    let (model, state, moments): (_, TapoState, _) =
        through_a_checkpoint(folder.path(), &model.unwrap(), first.updater(), &first.state());
    let open = state.open.as_ref().unwrap();
    assert!(open.negatives.len() == 16 && open.negatives[15][0].is_nan() && open.negatives[0][0].is_finite());
    let mut again = tapo_trainer(&model, &poisoned, &tokenizer, &released, 2).restore(&state, &moments).unwrap();
    again
        .step(model, |event| {
            note(&mut after, event);
            Ok(())
        })
        .unwrap();
    assert_eq!(after, before[before.len() - 3..]);
}

#[test]
fn the_newest_whole_checkpoint_is_found_and_the_newest_few_and_the_best_are_kept() {
    let (rows, folder) = (Rows::new(2), tempfile::tempdir().unwrap());
    let trainer = sft_trainer(&start(), &rows, &sft());
    let checkpoints = Checkpoints::new(folder.path().join("checkpoints"));
    assert!(checkpoints.list().unwrap().is_empty());
    checkpoints.rotate(3, None).unwrap();
    let fill = |folder: &Path| std::fs::write(folder.join("config.json"), "{}").map_err(|_| TrainError::EmptySource);
    let mark = |step, updates| Mark { step, updates };
    let best = Best { metric: "reward".into(), value: 0.1 + 0.2, mark: mark(2, 0) };
    for step in [2, 9, 10, 11, 1_000_000] {
        checkpoints.save(mark(step, 0), trainer.updater(), &best, fill).unwrap();
    }
    checkpoints.save(mark(11, 2), trainer.updater(), &best, fill).unwrap();
    assert_eq!(
        checkpoints.list().unwrap(),
        [mark(2, 0), mark(9, 0), mark(10, 0), mark(11, 0), mark(11, 2), mark(1_000_000, 0)]
    );
    checkpoints.rotate(3, Some(best.mark)).unwrap();
    assert_eq!(checkpoints.list().unwrap(), [mark(2, 0), mark(11, 0), mark(11, 2), mark(1_000_000, 0)]);
    assert_eq!(Checkpoints::state::<Best>(&checkpoints.path(mark(2, 0))).unwrap(), best);

    let newest = || {
        let mut damaged = Vec::new();
        let found = checkpoints.newest_whole(|error| damaged.push(error.to_string())).unwrap();
        (found, damaged)
    };
    assert_eq!(newest(), (Some(mark(1_000_000, 0)), Vec::new()));
    std::fs::write(checkpoints.path(mark(1_000_000, 0)).join("config.json"), "[]").unwrap();
    std::fs::remove_file(Checkpoints::moments(&checkpoints.path(mark(11, 2)))).unwrap();
    let half = folder.path().join("checkpoints/.step-1000001-abc");
    std::fs::create_dir(&half).unwrap();
    let (found, damaged) = newest();
    assert_eq!(found, Some(mark(11, 0)));
    assert!(damaged[0].contains(".step-1000001-abc: is unfinished"), "{damaged:?}");
    assert!(damaged[1].contains("step-1000000: config.json has other content"), "{damaged:?}");
    assert!(damaged[2].contains("step-000011-update-2: trainer/optimizer.bpk is missing"), "{damaged:?}");
    checkpoints.remove_after(mark(11, 2)).unwrap();
    assert!(!half.exists());
    assert_eq!(checkpoints.list().unwrap(), [mark(2, 0), mark(11, 0), mark(11, 2)]);

    // What cannot be filled is not there, and one of the same mark takes the place of the damaged.
    let refused = checkpoints.save(mark(12, 0), trainer.updater(), &best, |_| Err(TrainError::EmptySource));
    assert!(refused.is_err() && !checkpoints.path(mark(12, 0)).exists());
    checkpoints.save(mark(1_000_000, 0), trainer.updater(), &best, fill).unwrap();
    assert_eq!(newest(), (Some(mark(1_000_000, 0)), Vec::new()));
}
