//! Work spread over several devices is the work of one: here the same device several times.

use fieldmark::{
    model::TrainableParts,
    processor::SupervisedSequence,
    stream::StreamKey,
    train::{
        Trainer,
        gradient::{LossNorm, Scorer},
        parallel::{Reduction, Replicas},
        sft::sft_gradients,
        tapo::{TapoConfig, TapoTrainer},
        trainer::TrainEvent,
    },
};
use fieldmark_tests::{
    plain_tapo::step_of,
    prompts::{MODELS, Part, load, sequence},
    supervised::{PAD, device, micros, same, samples},
    tapo_runs::{Source, descent, ends, every, prompts, registry},
    training::{gradients, parameters, relative, word_tokenizer},
};

#[test]
fn the_gradients_of_several_devices_are_those_of_one() {
    for name in MODELS {
        let model = load(name, &device());
        let samples = samples(model.config());
        let scorer = Scorer::new(1024, 1.0, PAD).unwrap();
        for split in [&[2, 1, 2][..], &[1, 1, 1, 1, 1], &[5]] {
            let micros = micros(&samples, split);
            let update = |workers: usize, devices: usize| {
                let others = vec![device(); devices - 1];
                let replicas = Replicas::new(workers, &device()).with_devices(&others, Reduction::Gather);
                assert_eq!(replicas.len(), workers * devices);
                let found = sft_gradients(&model, &scorer, &micros, LossNorm::Batch, &replicas).unwrap();
                (found.loss, gradients(&model, &found.grads))
            };
            let one = update(1, 1);
            for devices in [2, 3] {
                let found = update(1, devices);
                same(&found, &one, &format!("{name} {split:?}, {devices} devices"));
                assert!(found == update(1, devices), "{name} {split:?}: another sum each time");
            }
        }
    }
}

#[test]
fn a_device_may_have_no_gradient_of_a_part_or_nothing_to_do() {
    let frozen = TrainableParts { vision: true, projector: false, decoder: false };
    let model = load(MODELS[0], &device()).with_trainable(frozen);
    let text = |length: u32| {
        let sequence = sequence(&[Part::Text((8..8 + length).collect())], model.config());
        SupervisedSequence { sequence, target_mask: (0..length).map(|i| i > 3).collect() }
    };
    let mut samples = samples(model.config());
    samples.splice(..2, [text(9), text(6)]);
    let scorer = Scorer::new(1024, 1.0, PAD).unwrap();
    let micros = micros(&samples, &[2, 1, 2]);
    let update = |devices: usize| {
        let replicas = Replicas::new(1, &device()).with_devices(&vec![device(); devices - 1], Reduction::Gather);
        let found = sft_gradients(&model, &scorer, &micros, LossNorm::Batch, &replicas).unwrap();
        (found.loss, gradients(&model, &found.grads))
    };
    let one = update(1);
    assert!(one.1.iter().any(|(_, values)| values.iter().any(|&x| x != 0.0)));
    for devices in [2, 3, 5] {
        same(&update(devices), &one, &format!("{devices} devices"));
    }
}

#[test]
fn rollouts_are_the_same_on_any_number_of_devices_and_so_is_the_update() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8), &every(7)]));
    let config = TapoConfig { prompts_per_step: 3, chunk: 3, ..descent() };
    let run = |devices: usize| {
        let (tokenizer, streams, registry) = (word_tokenizer(), StreamKey::new(5), registry());
        let trainer =
            TapoTrainer::new(&model, &source, &tokenizer, ends(), config.clone(), &registry, streams, &device())
                .unwrap();
        let mut responses = Vec::new();
        let mut trainer = trainer.with_steps(1).with_devices(&vec![device(); devices - 1], Reduction::Gather);
        let after = trainer.train(model.clone(), |event| {
            if let TrainEvent::Rollouts(groups, _) = event {
                let rollouts = groups.iter().flat_map(|group| &group.rollouts);
                responses.extend(rollouts.map(|rollout| (rollout.response.ids.clone(), rollout.reward.overall)));
            }
            Ok(())
        });
        (responses, after.unwrap())
    };
    let (responses, one) = run(1);
    for devices in [2, 3] {
        let (found, after) = run(devices);
        assert_eq!(found, responses);
        assert!(relative(&step_of(&model, &after), &step_of(&model, &one)) < 1e-5);
        assert!(parameters(&after) == parameters(&run(devices).1));
    }
}
