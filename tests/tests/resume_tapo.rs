//! TAPO stopped, saved, and continued by another trainer on a model read from the checkpoint: to the bit as if never stopped.

use fieldmark::{
    log::LogEnd,
    model::Qwen25Vl,
    processor::Tokenizer,
    stream::StreamKey,
    train::{
        TrainError, Trainer,
        optim::{LrSchedule, LrShape},
        reward::{Reward, RewardInput, RewardRegistry},
        tapo::{
            TapoConfig, TapoLossConfig, TapoState, TapoTrainer,
            advantage::Estimator,
            policy::{Importance, PolicyObjective, TermSchedule},
            rollout::GroupFilter,
        },
        trainer::{Decoding, Interrupt, Mark, TrainEvent},
    },
};
use fieldmark_tests::{
    stopped_runs::{Rows, device, order_of, start, through_a_checkpoint},
    training::{Named, VOCABULARY, parameters, word_tokenizer},
};

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
        whole_chunks: true,
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
fn note(log: &mut Vec<(Mark, String)>, event: TrainEvent<'_>) {
    match event {
        TrainEvent::Validation(..) | TrainEvent::SftUpdate(..) | TrainEvent::Sampling(_) => {}
        TrainEvent::Finding(found) => log.push((Mark { step: 0, updates: 0 }, found.to_string())),
        TrainEvent::Rollouts(groups, _) => {
            let texts: Vec<_> =
                groups.iter().flat_map(|group| &group.rollouts).map(|rollout| format!("{rollout:?}")).collect();
            log.push((Mark { step: 0, updates: 0 }, texts.join(";")));
        }
        TrainEvent::Drawn(row, _) => {
            log.push((Mark { step: row.rollout_step, updates: row.step }, serde_json::to_string(row).unwrap()))
        }
        TrainEvent::TapoUpdate(row, _) => {
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
    // A cap that rounding meets, so that a log-probability of the sampler that is lost shows.
    let sampler =
        TapoLossConfig { importance: Importance::Sequence, sampler_cap: Some(1.0), ..TapoLossConfig::default() };
    let chosen =
        TapoLossConfig { policy: PolicyObjective::Sapo, visual_tokens: Some(0.3), ..TapoLossConfig::default() };
    for config in [
        tapo(),
        TapoConfig { loss, workers: 2, ..tapo() },
        TapoConfig { loss: TapoLossConfig { negative_grad: false, ..loss }, ..tapo() },
        TapoConfig { estimator: Estimator::ReinforcePlusPlus, terms: TermSchedule::Anneal, loss: sampler, ..tapo() },
        TapoConfig { estimator: Estimator::Remax, ..tapo() },
        TapoConfig { estimator: Estimator::Gdpo, loss: chosen, ..tapo() },
    ] {
        let mut whole = Vec::new();
        let expected = all(&mut tapo_trainer(&start(), &rows, &tokenizer, &config, 4), start(), &mut whole);
        for stop in 1..4 {
            let (folder, interrupt) = (tempfile::tempdir().unwrap(), Interrupt::new());
            let mut trainer = tapo_trainer(&start(), &rows, &tokenizer, &config, 4).with_interrupt(interrupt.clone());
            let mut log = Vec::new();
            let model = trainer.train(start(), |event| {
                if matches!(&event, TrainEvent::Drawn(row, _) if row.rollout_step == stop) {
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
    let (model, verdict) = trainer
        .step(start(), &mut |event| {
            if let TrainEvent::TapoUpdate(row, _) = &event {
                named.push(row.non_finite.clone());
            }
            note(&mut log, event);
            Ok(())
        })
        .unwrap();
    assert_eq!(named[1..], [1, 2, 3].map(|place| vec![format!("row {}", order[place])]));
    assert!(named[0].is_empty() && verdict.fault.unwrap().to_string().contains(&format!("row {}", order[3])));
    let state = trainer.state();
    let open = state.open.as_ref().unwrap();
    assert_eq!(
        (state.step, state.updates.done, state.updates.skipped, open.updates, open.groups.len()),
        (0, 1, 0, 1, 4)
    );
    assert_eq!((state.surplus.len(), LogEnd::from(&state).rollout_step), (1, Some(1)));

    let folder = tempfile::tempdir().unwrap();
    let (model, state, moments) = through_a_checkpoint(folder.path(), &model, trainer.updater(), &state);
    log.retain(|(mark, _)| mark.updates <= 1);
    let mut again = tapo_trainer(&model, &healthy, &tokenizer, &config, 2).restore(&state, &moments).unwrap();
    assert_eq!(again.state(), state);
    let found = all(&mut again, model, &mut log);
    assert_eq!(log, whole);
    assert!(found == expected);

    // As released, log-probabilities on the negative image come from before the step's first update: they are saved.
    let loss = TapoLossConfig { negative_grad: false, visual_tokens: Some(0.3), ..config.loss };
    let released = TapoConfig { loss, ..config };
    let mut first = tapo_trainer(&start(), &poisoned, &tokenizer, &released, 2);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let (model, verdict) = first
        .step(start(), &mut |event| {
            note(&mut before, event);
            Ok(())
        })
        .unwrap();
    assert!(verdict.fault.is_some());
    let folder = tempfile::tempdir().unwrap();
    let (model, state, moments): (_, TapoState, _) =
        through_a_checkpoint(folder.path(), &model, first.updater(), &first.state());
    let open = state.open.as_ref().unwrap();
    assert!(open.negatives.len() == 16 && open.negatives[15][0].is_nan() && open.negatives[0][0].is_finite());
    let lengths = open.groups.iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.response.ids.len());
    assert!(open.chosen.iter().map(Vec::len).eq(lengths));
    let mut again = tapo_trainer(&model, &poisoned, &tokenizer, &released, 2).restore(&state, &moments).unwrap();
    again
        .step(model, &mut |event| {
            note(&mut after, event);
            Ok(())
        })
        .unwrap();
    assert_eq!(after, before[before.len() - 3..]);
}

/// The rows of a run, as they are written down.
fn rows_of(log: &mut Vec<String>, event: &TrainEvent<'_>) {
    match event {
        TrainEvent::Drawn(row, _) => log.push(serde_json::to_string(row).unwrap()),
        TrainEvent::TapoUpdate(row, _) => log.push(serde_json::to_string(row).unwrap()),
        TrainEvent::Validation(answers, row, _) => {
            log.push(serde_json::to_string(row).unwrap());
            log.extend(answers.iter().map(|answer| format!("{:?}", answer.rollouts)));
        }
        TrainEvent::Finding(found) => log.push(found.to_string()),
        _ => {}
    }
}

#[test]
fn a_stop_while_responses_are_sampled_is_obeyed_at_once_and_changes_nothing() {
    let (rows, held, tokenizer) = (Rows::new(4), Rows::new(5), word_tokenizer());
    for workers in [1, 2] {
        let config = TapoConfig { eval_every: Some(1), generation_batch: 2, workers, ..tapo() };
        let trainer = |model: &Qwen25Vl| tapo_trainer(model, &rows, &tokenizer, &config, 2).with_validation(&held);
        let mut whole = Vec::new();
        let model = trainer(&start()).train(start(), |event| {
            rows_of(&mut whole, &event);
            Ok(())
        });
        let expected = parameters(&model.unwrap());
        let stops = [
            (Decoding::Validation, 0),
            (Decoding::Rollouts, 1),
            (Decoding::Validation, 1),
            (Decoding::Rollouts, 2),
            (Decoding::Validation, 2),
        ];
        // Two workers report through a channel, and are asked at two of these places.
        for (part, place) in stops.into_iter().skip(workers - 1).step_by(workers) {
            let (folder, interrupt) = (tempfile::tempdir().unwrap(), Interrupt::new());
            let mut first = trainer(&start()).with_interrupt(interrupt.clone());
            let (mut log, mut last) = (Vec::new(), None);
            let model = first.train(start(), |event| {
                if let TrainEvent::Sampling(at) = event {
                    last = Some(*at);
                    if (at.part, at.rollout_step) == (part, place) && at.responses > 0 {
                        interrupt.ask();
                    }
                }
                rows_of(&mut log, &event);
                Ok(())
            });
            let last = last.unwrap();
            assert!((last.part, last.rollout_step) == (part, place) && last.responses < last.asked, "{last:?}");
            let state = first.state();
            let validating = part == Decoding::Validation;
            assert_eq!((state.step, state.unscored), (if validating { place } else { place - 1 }, validating));
            assert!(!first.is_finished());

            let (model, state, moments): (_, TapoState, _) =
                through_a_checkpoint(folder.path(), &model.unwrap(), first.updater(), &state);
            let mut again = trainer(&model).restore(&state, &moments).unwrap();
            let model = again.train(model, |event| {
                rows_of(&mut log, &event);
                Ok(())
            });
            assert_eq!(log, whole, "stopped in {part:?} {place}");
            assert!(parameters(&model.unwrap()) == expected && again.is_finished(), "stopped in {part:?} {place}");
        }
    }
}
