//! The validation set of TAPO: greedy answers about the anchors, when they are due, and nothing else changed by them.

use burn::{module::Module, tensor::Device};
use fieldmark::{
    generate::{GenerationConfig, Generator, Request},
    model::Qwen25Vl,
    stream::StreamKey,
    train::{
        Trainer,
        tapo::{
            TapoConfig, TapoTrainer, TapoValidation,
            rollout::{Group, TripletPrompt},
        },
        trainer::TrainEvent,
    },
};
use fieldmark_tests::{
    prompts::{MODELS, load},
    tapo_runs::{Source, device, ends, every, prompts, registry, slow_descent},
    training::{parameters, word_tokenizer},
};

type Scored = Vec<(TapoValidation, Vec<Group>)>;

/// Three steps on two samples, and what the validation set said.
fn run(model: &Qwen25Vl, held: Option<&Source>, config: TapoConfig) -> (Qwen25Vl, Scored) {
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let (tokenizer, registry, streams) = (word_tokenizer(), registry(), StreamKey::new(5));
    let trainer = TapoTrainer::new(model, &source, &tokenizer, ends(), config, &registry, streams, &device());
    let mut trainer = trainer.unwrap().with_steps(3);
    if let Some(held) = held {
        trainer = trainer.with_validation(held);
    }
    let mut scored = Vec::new();
    let after = trainer.train(model.clone(), |event| {
        if let TrainEvent::Validation(answers, found, timing) = event {
            let tokens: usize = answers.iter().map(|group| group.rollouts[0].response.ids.len()).sum();
            assert_eq!((timing.step, timing.rollout_step, timing.tokens), (found.step, found.rollout_step, tokens));
            scored.push((found.clone(), answers.to_vec()));
        }
        Ok(())
    });
    (after.unwrap(), scored)
}

fn held_out(model: &Qwen25Vl) -> Source {
    let lone = |prompt: TripletPrompt| TripletPrompt { positive: None, negative: None, ..prompt };
    let five = [every(2), every(3), every(5), every(7), every(11)];
    let five: Vec<&str> = five.iter().map(String::as_str).collect();
    Source::new(prompts(model.config(), &five).into_iter().map(lone).collect())
}

#[test]
fn it_is_scored_at_first_every_so_often_and_at_last_and_changes_nothing() {
    let model = load(MODELS[0], &device());
    let held = held_out(&model);
    let (alone, none) = run(&model, None, slow_descent());
    assert!(none.is_empty());
    for (eval_every, expected) in [(Some(2), &[0, 2, 3][..]), (Some(0), &[0, 3]), (None, &[0, 1, 2, 3])] {
        let config = TapoConfig { eval_every, ..slow_descent() };
        let (after, scored) = run(&model, Some(&held), config);
        assert_eq!(scored.iter().map(|(found, _)| found.rollout_step).collect::<Vec<_>>(), expected);
        // One update a step.
        assert!(scored.iter().all(|(found, _)| found.step == found.rollout_step && found.answers == 5));
        assert!(parameters(&after) == parameters(&alone), "{eval_every:?}");
    }
    assert!(held.asked.lock().unwrap().iter().all(|asked| asked.1 == 0), "as in epoch 0, always");
}

#[test]
fn its_answers_are_greedy_and_its_figures_their_means() {
    let model = load(MODELS[0], &device());
    let held = held_out(&model);
    let config = TapoConfig { eval_every: Some(0), workers: 2, chunk: 3, ..slow_descent() };
    let (after, scored) = run(&model, Some(&held), config.clone());
    for (model, (found, groups)) in [&model, &after].into_iter().zip(&scored) {
        let model = model.valid();
        let generation = GenerationConfig::greedy(config.max_new_tokens, ends());
        let greedy = Generator::new(&model, generation, 0, &Device::flex()).unwrap();
        let (mut accuracy, mut reward) = (0.0, 0.0);
        assert_eq!(groups.len(), 5);
        for (group, prompt) in groups.iter().zip(&held.prompts) {
            let request = Request { prompt: prompt.anchor.clone(), streams: vec![StreamKey::new(0).stream()] };
            let [answer] = &group.rollouts[..] else { panic!("{} answers", group.rollouts.len()) };
            assert_eq!(answer.response.ids, greedy.generate(&[request]).unwrap()[0][0].ids);
            accuracy += answer.reward.parts["accuracy"] / 5.0;
            reward += (0.9 * answer.reward.parts["accuracy"] + 0.1 * answer.reward.parts["format"]) / 5.0;
        }
        assert!((found.accuracy - accuracy).abs() < 1e-12 && (found.reward - reward).abs() < 1e-12, "{found:?}");
        assert!((found.rewards["accuracy"] - accuracy).abs() < 1e-12);
    }
    assert_ne!(scored[0].1[0].rollouts[0].response.ids.len(), 0);
}
