//! TAPO steps on the fixture models: what is sampled, rewarded, kept and carried over, and which model and image each
//! log-probability comes from.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use burn::tensor::Device;
use fieldmark::{
    generate::{FinishReason, GenerationConfig, Generator, Request},
    model::{GridThw, Qwen25Vl},
    processor::Sequence,
    stream::StreamKey,
    train::{
        TrainError, Trainer,
        reward::{Reward, RewardInput, RewardRegistry},
        tapo::{
            TapoConfig, TapoTrainer, UpdateImage,
            advantage::{Estimator, group_advantages},
            rollout::{Group, GroupFilter, GroupVerdict, ImageRole, Rollout, TripletPrompt},
        },
        trainer::Finding,
    },
};
use fieldmark_tests::{
    plain_tapo::{all, check, scored_on},
    prompts::{MODELS, distance, load, values},
    tapo_runs::{
        Even, First, Run, Source, Words, descent, device, ends, every, prompt, prompts, registry, run, run_with,
        slow_descent,
    },
    training::{VOCABULARY, parameters, plain_logps, word_tokenizer},
};

#[test]
fn a_group_is_n1_anchor_then_n2_positive_rollouts_with_their_rewards_and_advantages() {
    let model = load(MODELS[0], &device());
    let half = every(7);
    let source = Source::new(prompts(model.config(), &[&half, &half, &half]));
    let config = TapoConfig { anchor_rollouts: 3, chunk: 3, prompts_per_step: 3, ..descent() };
    let run = run(&model, &source, &config, 1);
    assert_eq!(run.steps[0].len(), 3);
    let mut differ = 0;
    for group in &run.steps[0] {
        let roles: Vec<ImageRole> = group.rollouts.iter().map(|rollout| rollout.role).collect();
        assert_eq!(
            roles,
            [ImageRole::Anchor, ImageRole::Anchor, ImageRole::Anchor, ImageRole::Positive, ImageRole::Positive]
        );
        let ids: BTreeSet<&[u32]> = group.rollouts.iter().map(|rollout| rollout.response.ids.as_slice()).collect();
        assert!(ids.len() > 2, "every response has a stream of its own");
        for rollout in &group.rollouts {
            let text: Vec<String> = rollout.response.text_ids().iter().map(|id| format!("t{id}")).collect();
            assert_eq!(rollout.text, text.join(" "));
            let input = RewardInput::new(&rollout.text, &half);
            let expected = 0.9 * Words.score(&input) + 0.1 * Even.score(&input);
            assert!((rollout.reward.overall - expected).abs() < 1e-12);
            assert_eq!(rollout.reward.accuracy, Words.score(&input));
            assert_eq!(rollout.reward.parts["format"], Even.score(&input));
        }
        let rewards: Vec<f64> = group.rollouts.iter().map(|rollout| rollout.reward.overall).collect();
        let mean = rewards.iter().sum::<f64>() / 5.0;
        let deviation = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 4.0).sqrt();
        differ += usize::from(deviation > 0.1);
        for (rollout, reward) in group.rollouts.iter().zip(&rewards) {
            let expected = if deviation == 0.0 { 0.0 } else { (reward - mean) / (deviation + 1e-6) };
            assert!((rollout.advantage - expected).abs() < 1e-9);
        }
        assert_eq!(group_advantages(&rewards).unwrap()[0], group.rollouts[0].advantage);
    }
    assert!(differ > 0, "some group must have right and wrong answers");
    let rollouts = || run.steps[0].iter().flat_map(|group| &group.rollouts);
    assert!(rollouts().map(|rollout| rollout.response.ids.len()).collect::<BTreeSet<_>>().len() > 2);
    assert!(rollouts().any(|rollout| rollout.response.finish == FinishReason::Stop));
}

#[test]
fn old_log_probabilities_are_those_of_the_sampling_policy_on_the_updates_image() {
    for name in MODELS {
        let model = load(name, &device());
        let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
        for update_image in [UpdateImage::Anchor, UpdateImage::Own] {
            for temperature in [1.0, 0.7] {
                let config = TapoConfig { update_image, temperature, ..descent() };
                let run = run(&model, &source, &config, 1);
                for group in &run.steps[0] {
                    for rollout in &group.rollouts {
                        let ids = &rollout.response.ids;
                        let on = |prompt: &Sequence| values(plain_logps(&model, prompt, ids, temperature, &device()));
                        let expected = on(scored_on(group, rollout, update_image));
                        assert!(distance(&rollout.old_logp, &expected) < 1e-4);

                        let sampler: Vec<f32> = rollout.response.logps.iter().map(|&logp| logp as f32).collect();
                        let apart = distance(&sampler, &rollout.old_logp);
                        if rollout.role == ImageRole::Anchor || update_image == UpdateImage::Own {
                            assert!(apart < 1e-3, "{apart}");
                        } else {
                            assert!(apart > 1e-3, "sampled on another image: {apart}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn all_from_the_anchor_or_all_from_the_positive() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    for (anchor_rollouts, positive_rollouts) in [(10, 0), (0, 10)] {
        let config = TapoConfig { anchor_rollouts, positive_rollouts, max_new_tokens: 3, ..descent() };
        let run = run(&model, &source, &config, 1);
        let role = if anchor_rollouts == 0 { ImageRole::Positive } else { ImageRole::Anchor };
        for group in &run.steps[0] {
            assert!(group.rollouts.len() == 10 && group.rollouts.iter().all(|rollout| rollout.role == role));
        }
        check(&model, &run.after, &all(&run.steps[0]), &run.updates[0], &config);
    }
}

#[test]
fn without_rollouts_from_it_no_positive_is_needed_and_with_them_its_lack_is_named() {
    let model = load(MODELS[0], &device());
    let full = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let lone = |prompt: &TripletPrompt| TripletPrompt { positive: None, ..prompt.clone() };
    let source = Source::new(full.prompts.iter().map(lone).collect());
    let config = TapoConfig { anchor_rollouts: 4, positive_rollouts: 0, ..descent() };
    let [found, expected] = [&source, &full].map(|source| run(&model, source, &config, 1));
    let responses = |run: &Run| -> Vec<Vec<u32>> {
        run.steps[0].iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.response.ids.clone()).collect()
    };
    assert_eq!(responses(&found), responses(&expected));
    assert!(parameters(&found.after) == parameters(&expected.after));

    let (tokenizer, registry) = (word_tokenizer(), registry());
    let config = TapoConfig { positive_rollouts: 1, ..config };
    let mut trainer =
        TapoTrainer::new(&model, &source, &tokenizer, ends(), config, &registry, StreamKey::new(5), &device()).unwrap();
    let error = trainer.train(model.clone(), |_| Ok(())).map(|_| ()).unwrap_err();
    let key = "tapo.positive_rollouts";
    assert!(matches!(&error, TrainError::Sample { reason, .. } if reason.contains(key)), "{error}");
}

#[test]
fn remax_takes_the_greedy_answer_about_the_rollouts_own_image_as_its_baseline() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &["", ""]));
    let first = RewardRegistry::default().with("accuracy", First);
    let rewards = [("accuracy".into(), 1.0)].into();
    let config = TapoConfig { estimator: Estimator::Remax, rewards, anchor_rollouts: 3, ..descent() };
    let found = run_with(&model, &source, &config, &first, 1);
    let plain = load(MODELS[0], &Device::flex());
    let generation = GenerationConfig::greedy(config.max_new_tokens, ends());
    let greedy = Generator::new(&plain, generation, 0, &Device::flex()).unwrap();
    let mut differ = 0;
    for group in &found.steps[0] {
        let baselines = [ImageRole::Anchor, ImageRole::Positive].map(|role| {
            let prompt = group.prompt.about(role).unwrap();
            let request = Request { prompt: prompt.clone(), streams: vec![StreamKey::new(0).stream()] };
            let response = greedy.generate(&[request]).unwrap()[0][0].clone();
            f64::from(response.text_ids().first().copied().unwrap_or(0)) / f64::from(VOCABULARY)
        });
        assert_eq!(group.rollouts.len(), 5, "the greedy responses are no rollouts");
        for rollout in &group.rollouts {
            let expected = rollout.reward.overall - baselines[rollout.role as usize];
            assert!((rollout.advantage - expected).abs() < 1e-12);
        }
        differ += usize::from(baselines[0] != baselines[1]);
    }
    assert!(differ > 0, "the two images must have baselines of their own");
    check(&model, &found.after, &all(&found.steps[0]), &found.updates[0], &config);
    // The greedy responses take nothing from the rollouts' streams.
    let grpo = TapoConfig { estimator: Estimator::Grpo, ..config };
    let grpo = run_with(&model, &source, &grpo, &first, 1);
    let ids = |run: &Run| -> Vec<Vec<u32>> {
        run.steps[0].iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.response.ids.clone()).collect()
    };
    assert_eq!(ids(&found), ids(&grpo));
}

#[test]
fn reinforce_plus_plus_whitens_over_all_that_the_step_trains_on() {
    let model = load(MODELS[0], &device());
    let half = every(7);
    let source = Source::new(prompts(model.config(), &[&half, "nothing", &half, "nothing"]));
    let filter = GroupFilter::default();
    let config = TapoConfig {
        estimator: Estimator::ReinforcePlusPlus,
        filter: filter.clone(),
        prompts_per_step: 4,
        chunk: 4,
        max_tries: 2,
        ..descent()
    };
    let run = run(&model, &source, &config, 1);
    let keep = |group: &&Group| filter.verdict(group.mean_accuracy()) == GroupVerdict::Keep;
    let mut kept: Vec<Group> = run.steps[0].iter().filter(keep).cloned().collect();
    assert!(kept.len() > 1 && kept.len() < run.steps[0].len());
    // The reward at every token of every kept rollout; dropped groups do not count.
    let tokens: Vec<f64> = kept
        .iter()
        .flat_map(|group| &group.rollouts)
        .flat_map(|rollout| std::iter::repeat_n(rollout.reward.overall, rollout.response.ids.len()))
        .collect();
    let mean = tokens.iter().sum::<f64>() / tokens.len() as f64;
    let variance = tokens.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (tokens.len() as f64 - 1.0);
    for rollout in kept.iter_mut().flat_map(|group| &mut group.rollouts) {
        assert_eq!(rollout.advantage, 0.0);
        rollout.advantage = (rollout.reward.overall - mean) / (variance + 1e-8).sqrt();
    }
    check(&model, &run.after, &all(&kept), &run.updates[0], &config);
}

#[test]
fn rewards_are_normalised_one_by_one_and_then_over_the_step() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(7), &every(5), &every(6)]));
    let registry = RewardRegistry::default().with("accuracy", Even).with("format", First);
    let weights = [("accuracy", 0.5), ("format", 2.0)];
    let rewards = weights.map(|(name, weight)| (name.to_owned(), weight)).into();
    let mrn = TapoConfig { estimator: Estimator::Mrn, rewards, prompts_per_step: 3, chunk: 3, ..descent() };
    let gdpo = TapoConfig { estimator: Estimator::Gdpo, ..mrn.clone() };
    for config in [mrn, gdpo] {
        let run = run_with(&model, &source, &config, &registry, 1);
        let mut groups = run.steps[0].clone();
        let deviation = |values: &[f64], mean: f64| {
            (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt() + 1e-6
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        for group in &mut groups {
            let mut sums = vec![0.0; group.rollouts.len()];
            for (name, weight) in weights {
                let values: Vec<f64> = group.rollouts.iter().map(|rollout| rollout.reward.parts[name]).collect();
                let scale = deviation(&values, mean(&values));
                sums.iter_mut().zip(&values).for_each(|(sum, value)| *sum += weight * (value - mean(&values)) / scale);
            }
            for (rollout, sum) in group.rollouts.iter_mut().zip(sums) {
                assert!((rollout.advantage - sum).abs() < 1e-9);
                rollout.advantage = sum;
            }
        }
        if config.estimator == Estimator::Gdpo {
            let of = |group: &Group| group.rollouts.iter().map(|rollout| rollout.advantage).collect::<Vec<_>>();
            let all: Vec<f64> = groups.iter().flat_map(of).collect();
            let (centre, scale) = (mean(&all), deviation(&all, mean(&all)));
            assert!((scale - 1.0).abs() > 0.1, "{scale}");
            let rollouts = groups.iter_mut().flat_map(|group| &mut group.rollouts);
            rollouts.for_each(|rollout| rollout.advantage = (rollout.advantage - centre) / scale);
        }
        check(&model, &run.after, &all(&groups), &run.updates[0], &config);
    }
}

#[test]
fn sampler_and_trainer_are_compared_on_the_same_image_alone() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    for (update_image, anchor_rollouts) in
        [(UpdateImage::Anchor, 2), (UpdateImage::Own, 2), (UpdateImage::Own, 0), (UpdateImage::Anchor, 0)]
    {
        let run = run(&model, &source, &TapoConfig { update_image, anchor_rollouts, ..descent() }, 1);
        let sampler = run.drawn[0].sampler;
        if update_image == UpdateImage::Anchor && anchor_rollouts == 0 {
            assert!(sampler.sampler_gap.is_nan() && sampler.sampler_gap_max.is_nan() && sampler.sampler_ratio.is_nan());
        } else {
            // One policy, two ways through it: decoding with a cache against whole sequences.
            assert!(sampler.sampler_gap > 0.0 && sampler.sampler_gap <= sampler.sampler_gap_max, "{sampler:?}");
            assert!(sampler.sampler_gap_max < 1e-4 && (sampler.sampler_ratio - 1.0).abs() < 1e-4, "{sampler:?}");
        }
    }
}

#[test]
fn groups_of_all_right_or_all_wrong_are_dropped_and_counted() {
    let model = load(MODELS[0], &device());
    let (half, right) = (every(7), every(1));
    let source = Source::new(prompts(model.config(), &["nothing", &half, &right, &half, &half, "nothing"]));
    let config = TapoConfig {
        filter: GroupFilter::default(),
        prompts_per_step: 20,
        chunk: 3,
        max_tries: 4,
        anchor_rollouts: 3,
        positive_rollouts: 3,
        max_new_tokens: 4,
        workers: 2,
        ..descent()
    };
    let run = run(&model, &source, &config, 1);
    let groups = &run.steps[0];
    let counted =
        |verdict| groups.iter().filter(|group| config.filter.verdict(group.mean_accuracy()) == verdict).count();
    let [keep, right, wrong] = [GroupVerdict::Keep, GroupVerdict::AllRight, GroupVerdict::AllWrong].map(counted);
    let counts = run.drawn[0].groups;
    assert_eq!((counts.tries, counts.offered, counts.short), (4, 12, 20 - keep));
    assert_eq!((counts.kept, counts.all_right, counts.all_wrong), (keep, right, wrong));
    assert!(keep > 0 && right > 0 && wrong > 0, "{counts:?}");
    let right = |group: &&Group| {
        let right = group.rollouts.iter().filter(|rollout| rollout.reward.accuracy == 1.0).count();
        right > 0 && right < 6
    };
    let kept: Vec<&Group> = groups.iter().filter(right).collect();
    check(&model, &run.after, &kept, &run.updates[0], &config);

    // Every row once in each epoch, in another order.
    let asked = source.asked.lock().unwrap();
    let order = |epoch: usize| asked.iter().filter(|asked| asked.1 == epoch).map(|asked| asked.0).collect::<Vec<_>>();
    for epoch in 0..2 {
        let mut rows = order(epoch);
        rows.sort_unstable();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5]);
    }
    assert_ne!(order(0), order(1));
}

#[test]
fn a_step_in_which_nothing_survives_updates_nothing() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &["nothing"]));
    let config = TapoConfig { filter: GroupFilter::default(), max_tries: 2, ..descent() };
    let run = run(&model, &source, &config, 2);
    assert!(run.updates.is_empty() && parameters(&run.after) == parameters(&model));
    for drawn in &run.drawn {
        assert_eq!((drawn.groups.tries, drawn.groups.kept, drawn.groups.short), (2, 0, 2));
    }
    // The same prompt in two steps and two tries: other streams, other responses.
    let all: BTreeSet<Vec<Vec<u32>>> = run
        .steps
        .iter()
        .flatten()
        .map(|group| group.rollouts.iter().map(|rollout| rollout.response.ids.clone()).collect())
        .collect();
    assert_eq!(all.len(), 8);
}

#[test]
fn rewards_see_the_sample_and_the_lengths_and_the_filter_looks_at_its_key() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(1), &every(1)]));
    let seen: Arc<Mutex<Vec<(String, usize, usize)>>> = Arc::default();
    let note = seen.clone();
    let registry = registry().with("short", move |input: &RewardInput<'_>| {
        note.lock().unwrap().push((input.sample.into(), input.response_tokens, input.max_new_tokens));
        f64::from(u8::from(input.response_tokens < 5))
    });
    let config = TapoConfig {
        rewards: [("accuracy".into(), 0.5), ("short".into(), 0.0)].into(),
        filter: GroupFilter { key: Some("short".into()), ..GroupFilter::default() },
        chunk: 2,
        ..descent()
    };
    let run = run_with(&model, &source, &config, &registry, 1);
    let rollouts: Vec<(&Group, &Rollout)> =
        run.steps[0].iter().flat_map(|group| group.rollouts.iter().map(move |rollout| (group, rollout))).collect();
    let expected: Vec<(String, usize, usize)> = rollouts
        .iter()
        .map(|(group, rollout)| (group.prompt.anchor.name.clone(), rollout.response.ids.len(), 5))
        .collect();
    assert_eq!(*seen.lock().unwrap(), expected);
    for (_, rollout) in &rollouts {
        let (short, words) = (rollout.reward.parts["short"], rollout.reward.parts["accuracy"]);
        assert_eq!((rollout.reward.accuracy, rollout.reward.overall), (short, 0.5 * words));
        assert_eq!(words, 1.0, "the default key would drop every group");
    }
    let counts = run.drawn[0].groups;
    let mixed = |group: &&Group| (0.01..0.99).contains(&group.mean_accuracy());
    assert_eq!(counts.kept, run.steps[0].iter().filter(mixed).count());
    assert!(counts.kept > 0, "{counts:?}");
    let mean = |name: &str| {
        rollouts.iter().map(|(_, rollout)| rollout.reward.parts[name]).sum::<f64>() / rollouts.len() as f64
    };
    let names: Vec<&String> = run.drawn[0].rewards.keys().collect();
    assert_eq!(names, ["accuracy", "short"]);
    run.drawn[0].rewards.iter().for_each(|(name, &found)| assert!((found - mean(name)).abs() < 1e-12));
}

#[test]
fn surplus_groups_are_trained_on_next_with_the_log_probabilities_of_their_own_policy() {
    let model = load(MODELS[0], &device());
    let half = every(7);
    let source = Source::new(prompts(model.config(), &[&half, &half, &half]));
    let config = TapoConfig { chunk: 3, whole_chunks: true, ..slow_descent() };
    let one = run(&model, &source, &config, 1);
    let two = run(&model, &source, &config, 2);
    assert_eq!(two.drawn.iter().map(|drawn| drawn.groups.carried_in).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(two.steps.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(two.updates[0].parts, one.updates[0].parts);

    let old = &two.steps[0][2];
    for rollout in &old.rollouts {
        let on = |model: &Qwen25Vl| {
            values(plain_logps(model, &old.prompt.anchor, &rollout.response.ids, config.temperature, &device()))
        };
        assert!(distance(&rollout.old_logp, &on(&model)) < 1e-4);
        assert!(distance(&rollout.old_logp, &on(&one.after)) > 1e-2);
    }
    let update = &two.updates[1];
    assert_eq!((two.drawn[1].rollout_age, update.rollout_age), (0.5, 0.5));
    assert!((update.parts.ratio - 1.0).abs() > 1e-3 && update.parts.clipped_high + update.parts.clipped_low > 0.0);
    check(&one.after, &two.after, &[old, &two.steps[1][0]], update, &config);
}

#[test]
fn a_small_step_samples_its_own_prompts_whatever_the_chunk_is() {
    let model = load(MODELS[0], &device());
    let half = every(7);
    let source = Source::new(prompts(model.config(), &[&half, &half, &half, &half]));
    // Two updates a step.
    let config = TapoConfig { chunk: 128, batch: 4, ..slow_descent() };
    let found = run(&model, &source, &config, 3);
    for drawn in &found.drawn {
        let counts = drawn.groups;
        assert_eq!((counts.tries, counts.offered, counts.carried_in, counts.dropped), (1, 2, 0, 0));
        assert_eq!((drawn.trained_on, drawn.rollout_age, drawn.passes), (2, 0.0, 0.5));
    }
    let ages: Vec<f64> = found.updates.iter().map(|update| update.rollout_age).collect();
    assert_eq!(ages, [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
    // If the recipe asks for whole chunks: 2 groups now, 2 in the next step, and 8 are dropped and counted.
    let whole = TapoConfig { chunk: 12, whole_chunks: true, ..config };
    let found = run(&model, &source, &whole, 3);
    let counts: Vec<_> = found.drawn.iter().map(|drawn| drawn.groups).collect();
    let numbers = counts.iter().map(|counts| (counts.offered, counts.carried_in, counts.dropped));
    assert_eq!(numbers.collect::<Vec<_>>(), [(12, 0, 8), (0, 2, 0), (12, 0, 8)]);
    assert_eq!(found.drawn.iter().map(|drawn| drawn.rollout_age).collect::<Vec<_>>(), [0.0, 2.0, 0.0]);
    let ages: Vec<f64> = found.updates.iter().map(|update| update.rollout_age).collect();
    assert_eq!(ages, [0.0, 1.0, 2.0, 3.0, 0.0, 1.0]);
    assert!(found.findings.contains(&Finding::Passes { step: 1, drawn: 12, rows: 4 }), "{:?}", found.findings);
}

#[test]
fn images_of_the_three_roles_differ_in_size_in_these_tests() {
    let config = load(MODELS[0], &Device::flex()).config().clone();
    let prompt = prompt(&config, 1, "");
    let (positive, negative) = (prompt.positive.unwrap(), prompt.negative.unwrap());
    let grids = [&prompt.anchor, &positive, &negative].map(|sequence| sequence.grids());
    assert_eq!(grids, [[GridThw::image(4, 6)], [GridThw::image(6, 4)], [GridThw::image(2, 8)]]);
}
