//! TAPO steps on the fixture models: an update is the gradient of the loss written down plainly, whatever the settings,
//! and only what should move does.

use fieldmark::{
    model::{Qwen25Vl, TrainableParts},
    stream::StreamKey,
    train::{
        TrainError, Trainer,
        gradient::LossNorm,
        optim::{AdamWSettings, LrSchedule},
        params::stable_param_ids,
        reward::RewardRegistry,
        tapo::{
            LossAverage, OpenStep, SavedGroup, TapoConfig, TapoLossConfig, TapoMetrics, TapoParts, TapoTrainer,
            UpdateImage,
            policy::{Importance, PolicyObjective, TermSchedule},
            rollout::{Group, ImageRole, TripletPrompt},
        },
        trainer::TrainEvent,
    },
};
use fieldmark_tests::{
    plain_tapo::{all, check, check_against, step_of},
    prompts::{MODELS, load},
    tapo_runs::{
        Even, FULL_RATE, First, Run, Source, Words, descent, device, ends, every, prompts, registry, run, run_with,
        slow_descent,
    },
    training::{parameters, relative, word_tokenizer},
};

#[test]
fn the_first_update_is_the_plain_gradient_at_ratio_one() {
    for name in MODELS {
        let model = load(name, &device());
        let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
        for update_image in [UpdateImage::Anchor, UpdateImage::Own] {
            let config = TapoConfig { update_image, ..descent() };
            let run = run(&model, &source, &config, 1);
            let update = &run.updates[0];
            assert!((update.parts.ratio - 1.0).abs() < 1e-5);
            let (mut sum, mut tokens) = (0.0, 0.0);
            for rollout in run.steps[0].iter().flat_map(|group| &group.rollouts) {
                sum -= rollout.advantage * rollout.response.ids.len() as f64;
                tokens += rollout.response.ids.len() as f64;
            }
            assert!((update.parts.pg_loss - sum / tokens).abs() < 1e-5);
            assert!(run.steps[0].iter().flat_map(|group| &group.rollouts).any(|rollout| rollout.advantage != 0.0));
            check(&model, &run.after, &all(&run.steps[0]), update, &config);
        }
    }
}

#[test]
fn every_averaging_and_every_term_is_the_plain_gradient() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let loss = TapoLossConfig { gamma: 0.3, eta1: 0.1, eta2: 0.2, ..TapoLossConfig::default() };
    for config in [
        TapoConfig { loss, ..descent() },
        TapoConfig { loss, loss_norm: LossNorm::Micro, ..descent() },
        TapoConfig { loss: TapoLossConfig { loss_average: LossAverage::Sequence, ..loss }, ..descent() },
        TapoConfig { loss: TapoLossConfig { loss_average: LossAverage::Constant, ..loss }, ..descent() },
        TapoConfig { loss: TapoLossConfig { negative_grad: false, ..loss }, ..descent() },
    ] {
        let run = run(&model, &source, &config, 1);
        check(&model, &run.after, &all(&run.steps[0]), &run.updates[0], &config);
    }
}

#[test]
fn micro_batches_chunks_and_workers_change_nothing() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let first = run(&model, &source, &descent(), 1);
    let expected = step_of(&model, &first.after);
    let responses = |run: &Run| -> Vec<Vec<u32>> {
        run.steps[0].iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.response.ids.clone()).collect()
    };
    for config in [
        TapoConfig { micro_batch: 1, ..descent() },
        TapoConfig { micro_batch: 8, ..descent() },
        TapoConfig { workers: 2, ..descent() },
        TapoConfig { workers: 3, micro_batch: 2, logit_chunk: 2, ..descent() },
        TapoConfig { chunk: 1, max_tries: 2, generation_batch: 3, ..descent() },
    ] {
        let found = run(&model, &source, &config, 1);
        // Streams are named by chunk and place in it.
        if config.chunk == 2 {
            assert_eq!(responses(&found), responses(&first));
            assert!(relative(&step_of(&model, &found.after), &expected) < 1e-5);
        }
        check(&model, &found.after, &all(&found.steps[0]), &found.updates[0], &config);
    }
}

#[test]
fn the_released_schedule_counts_rollout_steps() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let released = LrSchedule { released: true, ..slow_descent().schedule };
    let lr = released.lr;
    // Two updates a step.
    for (schedule, expected) in [
        (released, [0.0, 0.0, lr, lr]),
        (LrSchedule { warmup: 2, ..released }, [0.0, 0.0, lr / 2.0, lr / 2.0]),
        (LrSchedule { warmup: 2, released: false, ..released }, [lr / 2.0, lr, lr, lr]),
    ] {
        let run = run(&model, &source, &TapoConfig { batch: 4, schedule, ..slow_descent() }, 2);
        assert_eq!(run.updates.iter().map(|update| update.lr).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn the_negative_images_gradient_counts_only_where_it_is_asked_for() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let step = |loss: TapoLossConfig| {
        let run = run(&model, &source, &TapoConfig { loss, ..descent() }, 1);
        (step_of(&model, &run.after), run.updates[0].parts)
    };
    let printed = TapoLossConfig::default();
    let released = TapoLossConfig { negative_grad: false, ..printed };
    let (with, parts) = step(printed);
    let (without, same) = step(released);
    assert!((parts.loss - same.loss).abs() < 1e-5 && parts.neg_entropy > 0.0);
    assert!(relative(&with, &without) > 1e-2);
    // As released the second entropy has no effect.
    assert!(step(TapoLossConfig { eta2: 5.0, ..released }).0 == without);
    assert!(relative(&step(TapoLossConfig { eta2: 5.0, ..printed }).0, &with) > 1e-1);
}

#[test]
fn equal_rewards_teach_nothing() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &["nothing", "nothing"]));
    let loss = TapoLossConfig { gamma: 0.0, eta1: 0.0, eta2: 0.0, ..TapoLossConfig::default() };
    let config = TapoConfig { loss, ..descent() };
    let equal = registry().with("format", Words);
    let run = run_with(&model, &source, &config, &equal, 1);
    assert!(run.steps[0].iter().flat_map(|group| &group.rollouts).all(|rollout| rollout.advantage == 0.0));
    assert_eq!((run.updates[0].grad_norm, run.updates[0].parts.pg_loss), (0.0, 0.0));
    assert!(parameters(&run.after) == parameters(&model));
}

#[test]
fn a_step_of_several_updates_takes_sequences_in_order_and_keeps_its_old_policy() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    // The first four sequences are the first group.
    let config = TapoConfig { batch: 4, ..slow_descent() };
    let both = run(&model, &source, &config, 1);
    assert_eq!(both.updates.iter().map(|update| update.step).collect::<Vec<_>>(), [1, 2]);
    let alone = run(&model, &source, &TapoConfig { prompts_per_step: 1, ..config.clone() }, 1);
    check(&model, &alone.after, &[&both.steps[0][0]], &both.updates[0], &config);
    check(&alone.after, &both.after, &[&both.steps[0][1]], &both.updates[1], &config);
    assert!((both.updates[1].parts.ratio - 1.0).abs() > 1e-3);
}

#[test]
fn a_ratio_of_whole_responses_is_the_plain_one_whatever_the_settings() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let loss = TapoLossConfig { importance: Importance::Sequence, ..TapoLossConfig::default() };
    // A step so small that responses stay between the wide clips, and cross the narrow ones.
    let schedule = LrSchedule { lr: 3e-3 * FULL_RATE, ..descent().schedule };
    let config = TapoConfig { batch: 4, loss, schedule, ..descent() };
    let narrow = TapoLossConfig { clip_low: 3e-4, clip_high: 4e-4, loss_average: LossAverage::Sequence, ..loss };
    let registry = RewardRegistry::default().with("accuracy", Even).with("format", First);
    let mut ratios = Vec::new();
    for config in [
        config.clone(),
        TapoConfig { packing: false, micro_batch: 2, ..config.clone() },
        TapoConfig { micro_batch: 1, workers: 2, ..config.clone() },
        TapoConfig { loss: narrow, ..config.clone() },
    ] {
        let both = run_with(&model, &source, &config, &registry, 1);
        let alone = TapoConfig { prompts_per_step: 1, ..config.clone() };
        let alone = run_with(&model, &source, &alone, &registry, 1);
        check(&alone.after, &both.after, &[&both.steps[0][1]], &both.updates[1], &config);
        let parts = both.updates[1].parts;
        let clipped = parts.clipped_high + parts.clipped_low;
        assert!(if config.loss == narrow { clipped > 0.2 && clipped < 1.0 } else { clipped == 0.0 }, "{parts:?}");
        assert!(parts.pg_loss.abs() > 1e-3 && (parts.ratio - 1.0).abs() > 1e-3, "{parts:?}");
        ratios.push(parts.ratio);
    }
    assert!(ratios[..3].iter().all(|ratio| (ratio - ratios[0]).abs() < 1e-5), "{ratios:?}");
    let token = TapoConfig { loss: TapoLossConfig { importance: Importance::Token, ..loss }, ..config };
    let token = run_with(&model, &source, &token, &registry, 1).updates[1].parts;
    assert!((token.ratio - ratios[0]).abs() > 1e-4, "{} {ratios:?}", token.ratio);
}

#[test]
fn a_gate_and_a_cap_are_the_plain_ones_whatever_the_settings() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let registry = RewardRegistry::default().with("accuracy", Even).with("format", First);
    let loss = TapoLossConfig::default();
    let schedule = LrSchedule { lr: 0.01 * FULL_RATE, ..descent().schedule };
    let clipped = TapoConfig { batch: 4, schedule, ..descent() };
    let two = |config: &TapoConfig| {
        let both = run_with(&model, &source, config, &registry, 1);
        let alone = TapoConfig { prompts_per_step: 1, ..config.clone() };
        let alone = run_with(&model, &source, &alone, &registry, 1);
        check(&alone.after, &both.after, &[&both.steps[0][1]], &both.updates[1], config);
        [both.updates[0].parts, both.updates[1].parts]
    };
    let plain = two(&clipped);
    let sapo = TapoLossConfig { policy: PolicyObjective::Sapo, sapo_tau_pos: 8.0, sapo_tau_neg: 12.0, ..loss };
    let cispo = TapoLossConfig { policy: PolicyObjective::Cispo, cispo_max: 1.0, ..loss };
    for loss in [sapo, cispo] {
        let mut second = Vec::new();
        for config in [
            TapoConfig { loss, ..clipped.clone() },
            TapoConfig { loss, packing: false, micro_batch: 1, workers: 2, ..clipped.clone() },
            TapoConfig { loss: TapoLossConfig { loss_average: LossAverage::Sequence, ..loss }, ..clipped.clone() },
            TapoConfig { loss: TapoLossConfig { importance: Importance::Sequence, ..loss }, ..clipped.clone() },
            TapoConfig { loss: TapoLossConfig { sampler_cap: Some(1.0), ..loss }, ..clipped.clone() },
        ] {
            let [_, parts] = two(&config);
            assert!((parts.ratio - 1.0).abs() > 1e-3, "{parts:?}");
            second.push(parts);
        }
        let held = second[0].clipped_high + second[0].clipped_low + second[0].clipped_dual;
        assert!(held > 0.0 && held < 1.0, "{:?}", second[0]);
        assert!((second[0].pg_loss - second[1].pg_loss).abs() < 1e-5);
        assert!(second[2..4].iter().all(|parts| (parts.pg_loss - second[0].pg_loss).abs() > 1e-5), "{second:?}");
        assert!((plain[1].pg_loss - second[0].pg_loss).abs() > 1e-4);
    }
}

#[test]
fn the_tokens_that_the_image_decides_are_chosen_once_and_alone_teach_the_policy() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let registry = RewardRegistry::default().with("accuracy", Even).with("format", First);
    let loss = TapoLossConfig { visual_tokens: Some(0.4), visual_alpha: 0.6, ..TapoLossConfig::default() };
    let schedule = LrSchedule { lr: 0.01 * FULL_RATE, ..descent().schedule };
    let config = TapoConfig { batch: 4, loss, schedule, ..descent() };
    let mut first = Vec::new();
    for config in [
        config.clone(),
        TapoConfig { packing: false, micro_batch: 1, workers: 2, logit_chunk: 2, ..config.clone() },
        TapoConfig { loss_norm: LossNorm::Micro, ..config.clone() },
        TapoConfig { update_image: UpdateImage::Own, ..config.clone() },
        TapoConfig { loss: TapoLossConfig { loss_average: LossAverage::Sequence, ..loss }, ..config.clone() },
        TapoConfig { loss: TapoLossConfig { negative_grad: false, ..loss }, ..config.clone() },
        TapoConfig { loss: TapoLossConfig { gamma: 0.0, eta2: 0.0, ..loss }, ..config.clone() },
    ] {
        let both = run_with(&model, &source, &config, &registry, 1);
        let alone = TapoConfig { prompts_per_step: 1, ..config.clone() };
        let alone = run_with(&model, &source, &alone, &registry, 1);
        check(&model, &alone.after, &[&both.steps[0][0]], &both.updates[0], &config);
        // The second update has the choice that was made before the first.
        let negatives = config.loss.negative_grad;
        if negatives {
            check_against(&alone.after, &both.after, &[&both.steps[0][1]], &both.updates[1], &config, &model);
        }
        first.push(both.updates[0].parts.pg_loss);
    }
    assert!((first[0] - first[1]).abs() < 1e-5 && (first[0] - first[6]).abs() < 1e-5, "{first:?}");
    let share = |visual_tokens| {
        let loss = TapoLossConfig { visual_tokens, ..TapoLossConfig::default() };
        let updates = run_with(&model, &source, &TapoConfig { loss, ..config.clone() }, &registry, 1).updates;
        (updates[0].parts, updates[0].grad_norm)
    };
    let ((all, all_norm), (every, every_norm), (some, some_norm)) = (share(None), share(Some(1.0)), share(Some(0.4)));
    assert!((all.pg_loss - every.pg_loss).abs() < 1e-6 && (all_norm - every_norm).abs() < 1e-4 * all_norm);
    assert!((all.pg_loss - some.pg_loss).abs() > 1e-3 && (all_norm - some_norm).abs() > 1e-2 * all_norm);
    assert!((all.entropy - some.entropy).abs() < 1e-6 && (all.kl_neg - some.kl_neg).abs() < 1e-6);
}

/// The step that a run makes of `groups` when it goes on from a state that has them: left over by the last step, or
/// with the step already open and these tokens chosen.
fn go_on(
    model: &Qwen25Vl,
    source: &Source,
    groups: &[Group],
    config: &TapoConfig,
    open: Option<Vec<Vec<bool>>>,
) -> (Qwen25Vl, TapoMetrics) {
    let (tokenizer, folder, registry) = (word_tokenizer(), tempfile::tempdir().unwrap(), registry());
    let trainer = || {
        let streams = StreamKey::new(5);
        TapoTrainer::new(model, source, &tokenizer, ends(), config.clone(), &registry, streams, &device()).unwrap()
    };
    let saved = (0..).zip(groups).map(|(row, group)| SavedGroup {
        row,
        epoch: 0,
        sampled: 0,
        rollouts: group.rollouts.clone(),
    });
    let fresh = trainer();
    let mut state = fresh.state();
    match open {
        Some(chosen) => {
            state.open = Some(OpenStep { groups: saved.collect(), updates: 0, negatives: Vec::new(), chosen });
        }
        None => state.surplus = saved.collect(),
    }
    let moments = folder.path().join("moments");
    fresh.updater().save_optimizer(&moments).unwrap();
    let mut made = Vec::new();
    let after = trainer().restore(&state, &moments).unwrap().train(model.clone(), |event| {
        match event {
            TrainEvent::TapoUpdate(metrics, _) => made.push(metrics.clone()),
            TrainEvent::Rollouts(..) => panic!("a state with its groups draws others"),
            _ => {}
        }
        Ok(())
    });
    assert_eq!(made.len(), 1);
    (after.unwrap(), made.remove(0))
}

#[test]
fn a_step_that_goes_on_keeps_its_choice_of_tokens() {
    let model = stable_param_ids(load(MODELS[0], &device()));
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let loss = TapoLossConfig { visual_tokens: Some(0.4), ..TapoLossConfig::default() };
    let config = TapoConfig { loss, ..descent() };
    let mut groups = run(&model, &source, &config, 1).steps.remove(0);
    groups.sort_by_key(|group| group.prompt.anchor.ids.len());
    let rollouts = groups.iter().flat_map(|group| &group.rollouts);
    let every_token = rollouts.map(|rollout| vec![true; rollout.response.ids.len()]).collect();
    let plain = TapoConfig { loss: TapoLossConfig::default(), ..config.clone() };
    let (after, update) = go_on(&model, &source, &groups, &config, Some(every_token));
    check(&model, &after, &all(&groups), &update, &plain);
    let (after, update) = go_on(&model, &source, &groups, &config, None);
    check(&model, &after, &all(&groups), &update, &config);
}

#[test]
fn what_the_sampler_recorded_corrects_the_update_of_groups_that_waited() {
    let model = stable_param_ids(load(MODELS[0], &device()));
    // An epoch is shuffled: the groups are put back in the order of the rows, whose prompts grow.
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let loss = TapoLossConfig { sampler_cap: Some(2.0), ..TapoLossConfig::default() };
    for update_image in [UpdateImage::Anchor, UpdateImage::Own] {
        let config = TapoConfig { update_image, loss, ..descent() };
        let mut groups = run(&model, &source, &config, 1).steps.remove(0);
        groups.sort_by_key(|group| group.prompt.anchor.ids.len());
        // A sampler that is far off: ratios 1.5, 3 (at the cap), 0.5 and 1 in turn.
        let (mut weights, mut capped, mut turn) = (Vec::new(), 0.0, [1.5f64, 3.0, 0.5, 1.0].into_iter().cycle());
        for rollout in groups.iter_mut().flat_map(|group| &mut group.rollouts) {
            let apart = (update_image, rollout.role) == (UpdateImage::Anchor, ImageRole::Positive);
            for (logp, &old) in rollout.response.logps.iter_mut().zip(&rollout.old_logp) {
                let ratio = turn.next().unwrap();
                *logp = f64::from(old) - ratio.ln();
                weights.push(if apart { 1.0 } else { ratio.min(2.0) });
                capped += f64::from(u8::from(!apart && ratio > 2.0));
            }
        }
        let tokens = weights.len() as f64;
        let mean = weights.iter().sum::<f64>() / tokens;
        for (config, open) in [
            (config.clone(), false),
            (TapoConfig { packing: false, micro_batch: 2, ..config.clone() }, true),
            (TapoConfig { micro_batch: 1, workers: 2, ..config.clone() }, false),
        ] {
            let (after, update) = go_on(&model, &source, &groups, &config, open.then(Vec::new));
            check(&model, &after, &all(&groups), &update, &config);
            let found = update.parts.sampler.unwrap();
            assert!((found.sampler_weight - mean).abs() < 1e-5, "{found:?} {mean}");
            assert!((found.sampler_capped - capped / tokens).abs() < 1e-5 && capped > 0.0, "{found:?}");
            assert!((update.parts.ratio - 1.0).abs() < 1e-5);
        }
        let off = TapoConfig { loss: TapoLossConfig::default(), ..config.clone() };
        let (without, update) = go_on(&model, &source, &groups, &off, None);
        assert!(update.parts.sampler.is_none());
        let (with, _) = go_on(&model, &source, &groups, &config, None);
        assert!(relative(&step_of(&model, &with), &step_of(&model, &without)) > 1e-2);
    }
}

#[test]
fn the_reference_model_is_the_one_that_training_starts_from() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let config = TapoConfig { loss: TapoLossConfig { kl_ref: 0.5, ..TapoLossConfig::default() }, ..slow_descent() };
    let one = run(&model, &source, &config, 1);
    let two = run(&model, &source, &config, 2);
    assert!(two.updates[0].parts.kl_ref.abs() < 1e-6 && two.updates[1].parts.kl_ref > 1e-3);
    check_against(&one.after, &two.after, &all(&two.steps[1]), &two.updates[1], &config, &model);
}

#[test]
fn an_update_that_is_not_finite_is_skipped_and_counted() {
    let model = load(MODELS[0], &device());
    let mut prompts = prompts(model.config(), &[&every(9), &every(8)]);
    let image = &mut prompts[1].negative.as_mut().unwrap().images[0];
    image.pixel_values = image.pixel_values.iter().map(|_| f32::NAN).collect();
    // An update a group: the one with the poisoned image is left out, wherever it stands.
    let config = TapoConfig { batch: 4, ..slow_descent() };
    let run = run(&model, &Source::new(prompts), &config, 2);
    assert_eq!(run.updates.iter().map(|update| update.step).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let finite: Vec<bool> = run.updates.iter().map(|update| update.grad_norm.is_finite()).collect();
    assert!(finite[0] != finite[1] && finite[2] != finite[3], "{finite:?}");
    assert_eq!([run.updates[1].skipped, run.updates[3].skipped], [1, 2]);
    let after = parameters(&run.after);
    assert!(after != parameters(&model) && after.iter().flat_map(|(_, values)| values).all(|x| x.is_finite()));
}

/// Every pixel of every negative is not a number: whoever looks at one finds it in the loss.
fn poison_negatives(prompts: &mut [TripletPrompt]) {
    for image in prompts.iter_mut().flat_map(|prompt| &mut prompt.negative.as_mut().unwrap().images) {
        image.pixel_values = image.pixel_values.iter().map(|_| f32::NAN).collect();
    }
}

#[test]
fn a_negative_that_no_term_looks_at_is_not_encoded() {
    let model = load(MODELS[0], &device());
    let whole = prompts(model.config(), &[&every(9), &every(8)]);
    let (mut poisoned, mut without) = (whole.clone(), whole.clone());
    poison_negatives(&mut poisoned);
    without.iter_mut().for_each(|prompt| prompt.negative = None);
    for negative_grad in [true, false] {
        let loss = TapoLossConfig { gamma: 0.0, eta2: 0.0, negative_grad, ..TapoLossConfig::default() };
        let config = TapoConfig { loss, ..descent() };
        let found = run(&model, &Source::new(whole.clone()), &config, 1);
        // Against the loss with its terms computed and weighted by nothing.
        check(&model, &found.after, &all(&found.steps[0]), &found.updates[0], &config);
        for prompts in [&poisoned, &without] {
            let same = run(&model, &Source::new(prompts.clone()), &config, 1);
            assert!(parameters(&same.after) == parameters(&found.after));
        }
        // One term is enough to look at it.
        let loss = TapoLossConfig { eta2: 0.1, ..loss };
        let found = run(&model, &Source::new(poisoned.clone()), &TapoConfig { loss, ..descent() }, 1);
        assert_eq!(found.updates[0].skipped, 1);
        assert!(found.updates[0].parts.loss.is_nan());
        let (tokenizer, source) = (word_tokenizer(), Source::new(without.clone()));
        let config = TapoConfig { loss, ..descent() };
        let (streams, registry) = (StreamKey::new(5), registry());
        let mut trainer =
            TapoTrainer::new(&model, &source, &tokenizer, ends(), config, &registry, streams, &device()).unwrap();
        let error = trainer.train(model.clone(), |_| Ok(())).unwrap_err();
        let key = "tapo.loss.gamma";
        assert!(matches!(&error, TrainError::Sample { reason, .. } if reason.contains(key)), "{error}");
    }
}

#[test]
fn terms_annealed_to_nothing_leave_the_negative_alone() {
    let model = load(MODELS[0], &device());
    let mut prompts = prompts(model.config(), &[&every(9), &every(8)]);
    poison_negatives(&mut prompts);
    let config = TapoConfig { terms: TermSchedule::Anneal, ..slow_descent() };
    let run = run(&model, &Source::new(prompts), &config, 4);
    let finite: Vec<bool> = run.updates.iter().map(|update| update.grad_norm.is_finite()).collect();
    assert_eq!(finite, [false, false, true, true]);
}

#[test]
fn annealing_scales_the_inter_class_term_and_both_entropies() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let loss = TapoLossConfig { gamma: 0.1, eta1: 0.1, eta2: 0.2, ..TapoLossConfig::default() };
    let schedule = LrSchedule { lr: 0.0, ..descent().schedule };
    let config = TapoConfig { terms: TermSchedule::Anneal, loss, schedule, ..descent() };
    let run = run(&model, &source, &config, 5);
    for (update, factor) in run.updates.iter().zip([1.0, 0.5, 0.0, 0.0, 0.0]) {
        let TapoParts { loss, pg_loss, kl_neg, entropy, neg_entropy, .. } = update.parts;
        if factor == 0.0 {
            assert!(loss == pg_loss && kl_neg.is_nan() && neg_entropy.is_nan(), "{update:?}");
            continue;
        }
        let terms = -0.1 * kl_neg + 0.1 * entropy + 0.2 * neg_entropy;
        assert!(terms.abs() > 0.1 && (loss - pg_loss - factor * terms).abs() < 1e-4, "{update:?}");
    }
    assert!(run.updates.len() == 5 && parameters(&run.after) == parameters(&model));
}

#[test]
fn frozen_parts_stay() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    for workers in [1, 2] {
        let train = TrainableParts { vision: false, projector: true, decoder: false };
        let run = run(&model, &source, &TapoConfig { train, workers, ..descent() }, 1);
        for (path, step) in step_of(&model, &run.after) {
            assert_eq!(step.iter().any(|&x| x != 0.0), path.starts_with("visual.merger"), "{path}");
        }
    }
}

#[test]
fn rewarded_words_are_said_more_often() {
    let model = load(MODELS[0], &device());
    let wanted = every(8);
    let source = Source::new(prompts(model.config(), &[&wanted, &wanted, &wanted, &wanted]));
    let config = TapoConfig {
        prompts_per_step: 4,
        chunk: 4,
        anchor_rollouts: 5,
        positive_rollouts: 5,
        temperature: 1.0,
        top_p: 0.99,
        micro_batch: 20,
        generation_batch: 40,
        schedule: LrSchedule { lr: 1e-3, ..descent().schedule },
        adamw: AdamWSettings::default(),
        max_grad_norm: 1.0,
        // The entropies push every sampled token up and end the search early at this size.
        loss: TapoLossConfig { eta1: 0.0, eta2: 0.0, ..TapoLossConfig::default() },
        ..descent()
    };
    let found = run(&model, &source, &config, 12);
    let rewards: Vec<f64> = found.drawn.iter().map(|drawn| drawn.reward).collect();
    assert!(rewards[9..].iter().all(|&reward| reward > rewards[0] + 0.5), "{rewards:?}");
    let again = run(&model, &source, &config, 2);
    assert_eq!(again.drawn.iter().map(|drawn| drawn.reward).collect::<Vec<_>>(), rewards[..2]);
}
