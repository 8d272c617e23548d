//! Training loops that are stopped, saved, and continued by another trainer on a model read from the checkpoint:
//! weights and metrics are to the bit those of a run that never stopped.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use fieldmark::{
    folder::{Best, Checkpoints},
    log::LogEnd,
    model::{Qwen25Vl, TrainableParts},
    processor::SupervisedSequence,
    stream::StreamKey,
    train::{
        TrainError, Trainer,
        optim::{LrSchedule, LrShape},
        sft::{SftConfig, SftSource, SftState, SftTrainer},
        trainer::{Interrupt, Mark},
    },
};
use fieldmark_tests::{
    stopped_runs::{Rows, device, order_of, start, through_a_checkpoint},
    training::{parameters, updates},
};

const PAD: u32 = 0;

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
    let on_update = updates(|row, _| {
        log.push(serde_json::to_string(row).unwrap());
        if row.step >= stop {
            interrupt.ask();
        }
    });
    let model = trainer.train(model, on_update);
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
    let on_update = updates(|row, _| whole.push(serde_json::to_string(row).unwrap()));
    let model = sft_trainer(&start(), &rows, &config).train(start(), on_update);
    let expected = parameters(&model.unwrap());
    assert_eq!(whole.len(), 9);
    for stop in 1..9 {
        let mut log = Vec::new();
        let (model, state, saved) = sft_until(sft_trainer(&start(), &rows, &config), start(), stop, &mut log);
        assert_eq!((log.len(), state.updates.done, LogEnd::from(&state).step), (stop, stop, stop));
        let mut again = sft_trainer(&model, &rows, &config).restore(&state, &saved.moments).unwrap();
        let model = again.train(model, updates(|row, _| log.push(serde_json::to_string(row).unwrap())));
        assert_eq!(log, whole, "stopped after {stop}");
        assert!(parameters(&model.unwrap()) == expected, "stopped after {stop}");
    }
}

/// Rows that set a flag when a sample is made, to be held out.
struct Halting<'a> {
    rows: &'a Rows,
    halt: Option<Interrupt>,
    asked: AtomicUsize,
}

impl SftSource for Halting<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn sample(&self, row: usize, epoch: usize) -> Result<SupervisedSequence, TrainError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.halt.iter().for_each(Interrupt::ask);
        self.rows.sample(row, epoch)
    }
}

#[test]
fn a_validation_that_is_stopped_is_made_by_the_run_that_goes_on() {
    let (rows, config) = (Rows::new(5), SftConfig { eval_every: Some(4), ..sft() });
    let halting = |halt| Halting { rows: &rows, halt, asked: AtomicUsize::new(0) };
    let (source, held) = (halting(None), halting(None));
    let make =
        |model: &Qwen25Vl| SftTrainer::new(model, &source, config.clone(), PAD, StreamKey::new(4), &device()).unwrap();
    let mut whole = Vec::new();
    let on_update = updates(|row, _| whole.push(serde_json::to_string(row).unwrap()));
    let model = make(&start()).with_validation(&held).train(start(), on_update);
    let expected = parameters(&model.unwrap());
    assert_eq!(whole.iter().filter(|row| row.contains("val_loss")).count(), 3);

    // After update 4 in the middle of the run, and after the last update.
    for stop in [4, 9] {
        let (interrupt, folder, mut log) = (Interrupt::new(), tempfile::tempdir().unwrap(), Vec::new());
        let stopping = halting(Some(interrupt.clone()));
        let mut trainer = make(&start()).with_interrupt(interrupt.clone());
        let mut model = start();
        while trainer.done() + 1 < stop {
            let mut on_update = updates(|row, _| log.push(serde_json::to_string(row).unwrap()));
            model = trainer.step(model, &mut on_update).unwrap().0;
        }
        log.clear();
        log.extend_from_slice(&whole[..stop - 1]);
        let mut trainer = trainer.with_validation(&stopping);
        let model = trainer.train(model, updates(|row, _| log.push(serde_json::to_string(row).unwrap()))).unwrap();
        // One batch of two rows, and the update has no row yet.
        assert_eq!(stopping.asked.load(Ordering::SeqCst), 2);
        assert!(!trainer.is_finished() && log.len() == stop - 1);
        assert_eq!(trainer.mark(), Mark { step: stop, updates: 0 });
        let (model, state, moments) = through_a_checkpoint(folder.path(), &model, trainer.updater(), &trainer.state());
        assert_eq!((state.updates.done, LogEnd::from(&state).step), (stop, stop - 1));
        let mut again = make(&model).with_validation(&held).restore(&state, &moments).unwrap();
        let model = again.train(model, updates(|row, _| log.push(serde_json::to_string(row).unwrap())));
        assert_eq!(log, whole, "stopped after {stop}");
        assert!(parameters(&model.unwrap()) == expected && again.is_finished(), "stopped after {stop}");
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
            .train(
                model,
                updates(|row, _| {
                    assert_eq!(row.step, 1 + steps.fetch_add(1, Ordering::SeqCst));
                    if row.step == 9 {
                        interrupt.ask();
                    }
                }),
            )
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
    let error = sft_trainer(&model, &other, &config).restore(&state, &saved.moments).err().unwrap();
    assert!(matches!(error, TrainError::OtherRun { saved: 5, found: 6, .. }), "{error}");
    let longer = SftConfig { epochs: 4, ..config };
    let error = sft_trainer(&model, &rows, &longer).restore(&state, &saved.moments).err().unwrap();
    assert!(matches!(error, TrainError::OtherRun { saved: 9, found: 12, .. }), "{error}");
    std::fs::write(&saved.moments, "no moments").unwrap();
    let error = sft_trainer(&model, &rows, &sft()).restore(&state, &saved.moments).err().unwrap();
    assert!(matches!(&error, TrainError::Optimizer { path, .. } if path.ends_with("optimizer.bpk")), "{error}");
}

#[test]
fn three_bad_sft_updates_in_a_row_stop_before_the_first_of_them() {
    // One row in each of updates 3, 4 and 5 of two rows is poisoned.
    let order = order_of(12, ["sft", "order"], 4);
    let config = SftConfig { epochs: 1, micro_batch: 2, ..sft() };
    let bad = [order[4], order[7], order[8]];
    let (poisoned, healthy) = (Rows::poisoned(12, &bad), Rows::new(12));
    let mut whole = Vec::new();
    let on_update = updates(|row, _| whole.push(serde_json::to_string(row).unwrap()));
    let model = sft_trainer(&start(), &healthy, &config).train(start(), on_update);
    let expected = parameters(&model.unwrap());

    let mut trainer = sft_trainer(&start(), &poisoned, &config);
    let (mut model, mut named, mut log) = (start(), Vec::new(), Vec::new());
    let error = loop {
        assert!(!trainer.is_finished());
        let mut on_update = updates(|row, _| {
            named.push(row.non_finite.clone());
            log.push(serde_json::to_string(row).unwrap());
        });
        let (next, verdict) = trainer.step(model, &mut on_update).unwrap();
        model = next;
        if let Some(fault) = verdict.fault {
            break fault;
        }
    };
    assert_eq!(named[..2], [Vec::<String>::new(), Vec::new()]);
    // The sample alone, not its micro-batch.
    assert_eq!(named[2..], bad.map(|row| vec![format!("row {row}")]));
    let TrainError::Diverged { count: 3, update: 5, samples } = &error else { panic!("{error}") };
    assert!(bad.iter().all(|row| samples.contains(&format!("row {row}"))), "{error}");
    let state = trainer.state();
    assert_eq!((state.updates.done, state.updates.skipped), (2, 0));

    // With the rows mended, the run from there is the one that never met them.
    let folder = tempfile::tempdir().unwrap();
    let (model, state, moments) = through_a_checkpoint(folder.path(), &model, trainer.updater(), &state);
    log.truncate(LogEnd::from(&state).step);
    let mut again = sft_trainer(&model, &healthy, &config).restore(&state, &moments).unwrap();
    let model = again.train(model, updates(|row, _| log.push(serde_json::to_string(row).unwrap())));
    assert_eq!(log, whole);
    assert!(parameters(&model.unwrap()) == expected);
    // train() says so by itself.
    let refused = sft_trainer(&start(), &poisoned, &config).train(start(), |_| Ok(()));
    assert!(matches!(refused, Err(TrainError::Diverged { count: 3, update: 5, .. })));
}

#[test]
fn the_newest_whole_checkpoint_is_found_and_the_newest_few_and_the_best_are_kept() {
    let (rows, folder) = (Rows::new(2), tempfile::tempdir().unwrap());
    let trainer = sft_trainer(&start(), &rows, &sft());
    let checkpoints = Checkpoints::new(folder.path().join("checkpoints"));
    assert!(checkpoints.list().unwrap().is_empty());
    checkpoints.rotate(3, None).unwrap();
    let fill =
        |folder: &Path| std::fs::write(folder.join("config.json"), "{}").map_err(|_| TrainError::EmptySource.into());
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
    assert!(damaged[0].contains(".step-1000001-abc"), "{damaged:?}");
    assert!(damaged[1].contains("step-1000000: ") && damaged[1].contains("config.json"), "{damaged:?}");
    assert!(damaged[2].contains("step-000011-update-2: ") && damaged[2].contains("optimizer.bpk"), "{damaged:?}");
    checkpoints.remove_after(mark(11, 2)).unwrap();
    assert!(!half.exists());
    assert_eq!(checkpoints.list().unwrap(), [mark(2, 0), mark(11, 0), mark(11, 2)]);

    // What cannot be filled is not there, and one of the same mark takes the place of the damaged.
    let refused = checkpoints.save(mark(12, 0), trainer.updater(), &best, |_| Err(TrainError::EmptySource.into()));
    assert!(refused.is_err() && !checkpoints.path(mark(12, 0)).exists());
    checkpoints.save(mark(1_000_000, 0), trainer.updater(), &best, fill).unwrap();
    assert_eq!(newest(), (Some(mark(1_000_000, 0)), Vec::new()));
}
