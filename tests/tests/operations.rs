//! The operations that a run reports for its updates are those of what the updates score: which sequences, which images, how
//! many states meet the head, and what is trained. The counts of single passes are tested where they are made.

use burn::tensor::Device;
use fieldmark::{
    model::{Flops, LoraSettings, Qwen25VlConfig, TrainableParts},
    processor::{Sequence, SupervisedSequence},
    stream::StreamKey,
    train::{
        Trainer,
        reward::RewardRegistry,
        sft::{SftConfig, train_sft},
        tapo::{
            TapoConfig, TapoLossConfig, TapoTrainer,
            rollout::{GroupFilter, TripletPrompt},
        },
        trainer::TrainEvent,
    },
};
use fieldmark_tests::{
    prompts::{MODELS, Part, load, sequence},
    training::{Rows, word_tokenizer},
};

/// Operations of sequences alone, each with images of its own, `targets` states at the head.
fn alone(config: &Qwen25VlConfig, sequences: &[&Sequence], targets: usize) -> Flops {
    let pass = |sequence: &Sequence| {
        let images: Flops = sequence.images.iter().map(|image| config.image_flops(image.grid)).sum();
        config.decoder_flops(0, sequence.ids.len()) + images
    };
    sequences.iter().map(|sequence| pass(sequence)).sum::<Flops>() + config.head_flops(targets)
}

fn about(config: &Qwen25VlConfig, side: usize, text: usize, seed: u64) -> Sequence {
    sequence(&[Part::Image { h: 4, w: side, seed }, Part::Text((9..9 + text as u32).collect())], config)
}

#[test]
fn sft_counts_what_it_scores_without_padding_or_what_is_run_again() {
    let device = Device::flex().autodiff();
    let model = load(MODELS[1], &device);
    let config = model.config().clone();
    let sample = |side, text, targets| {
        let sequence = about(&config, side, text, side as u64);
        let target_mask = (0..sequence.ids.len()).map(|token| token + targets >= sequence.ids.len()).collect();
        SupervisedSequence { sequence, target_mask }
    };
    let samples = Rows(vec![sample(4, 9, 3), sample(6, 20, 7), sample(8, 5, 2)]);
    let sequences: Vec<&Sequence> = samples.0.iter().map(|sample| &sample.sequence).collect();
    let needed = alone(&config, &sequences, 12);
    for (packing, recompute) in [(false, false), (true, true)] {
        let sft = SftConfig { epochs: 1, micro_batch: 2, packing, recompute, ..SftConfig::default() };
        let mut found = Vec::new();
        train_sft(model.clone(), &samples, &sft, 0, &StreamKey::new(1), &device, |_, timing| {
            found.push((timing.tokens, timing.flops));
            Ok(())
        })
        .unwrap();
        let tokens = sequences.iter().map(|sequence| sequence.ids.len()).sum();
        assert_eq!(found, [(tokens, needed.training(sft.train))]);
    }

    // Of two adapters in each block of the decoder, which alone learns.
    let lora = LoraSettings { rank: 2, targets: vec!["up_proj".into(), "down_proj".into()], ..LoraSettings::default() };
    let sft = SftConfig { epochs: 1, ..SftConfig::default() };
    let adapted = model.with_lora(&lora, sft.train).unwrap();
    let text = &config.text;
    let tokens: usize = sequences.iter().map(|sequence| sequence.ids.len()).sum();
    let factors = text.num_hidden_layers * 2 * 2 * (text.hidden_size + text.intermediate_size);
    let forward = 2.0 * (tokens * factors) as f64;
    let decoder = TrainableParts { vision: false, projector: false, decoder: true };
    let weights = needed.decoder.linear;
    let mut found = Vec::new();
    train_sft(adapted, &samples, &sft, 0, &StreamKey::new(1), &device, |_, timing| {
        found.push(timing.flops);
        Ok(())
    })
    .unwrap();
    assert!((found[0] / (needed.training(decoder) - weights + 3.0 * forward) - 1.0).abs() < 1e-12);
}

#[test]
fn tapo_counts_the_negatives_that_it_scores_with_a_gradient() {
    let device = Device::flex().autodiff();
    let model = load(MODELS[0], &device);
    let config = model.config().clone();
    let prompt = TripletPrompt {
        anchor: about(&config, 4, 6, 0),
        positive: Some(about(&config, 6, 6, 1)),
        negative: Some(about(&config, 8, 6, 2)),
        truth: "t9".into(),
        aliases: Vec::new(),
    };
    let negative = prompt.negative.clone().unwrap();
    let source = Rows(vec![prompt.clone()]);
    let tokenizer = word_tokenizer();
    let train = TrainableParts { vision: true, projector: false, decoder: true };
    for (negative_grad, gamma) in [(true, 0.01), (false, 0.01), (true, 0.0)] {
        let loss = TapoLossConfig { negative_grad, gamma, eta2: gamma, ..TapoLossConfig::default() };
        let tapo = TapoConfig {
            prompts_per_step: 1,
            chunk: 1,
            max_tries: 1,
            anchor_rollouts: 2,
            positive_rollouts: 1,
            max_new_tokens: 5,
            filter: GroupFilter { low: -1.0, high: 2.0, ..GroupFilter::default() },
            train,
            loss,
            ..TapoConfig::default()
        };
        let (rewards, streams) = (RewardRegistry::standard(&tapo), StreamKey::new(3));
        let trainer = TapoTrainer::new(&model, &source, &tokenizer, vec![2], tapo, &rewards, streams, &device);
        let (mut answers, mut found) = (Vec::new(), Vec::new());
        trainer
            .unwrap()
            .with_steps(1)
            .train(model.clone(), |event| {
                match event {
                    TrainEvent::Rollouts(groups, _) => {
                        answers.extend(groups[0].rollouts.iter().map(|rollout| rollout.response.ids.clone()));
                    }
                    TrainEvent::TapoUpdate(_, timing) => found.push(timing.flops),
                    _ => {}
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(answers.len(), 3);
        let scored = if negative_grad && gamma > 0.0 { vec![&prompt.anchor, &negative] } else { vec![&prompt.anchor] };
        let mut needed = Flops::default();
        for image in scored {
            // The three share a prompt, which is read once with its image.
            needed += alone(&config, &[image], answers.iter().map(Vec::len).sum());
            answers.iter().for_each(|ids| needed += config.decoder_flops(image.ids.len(), ids.len()));
        }
        let expected = needed.training(train);
        assert_eq!(found.len(), 1);
        assert!((found[0] / expected - 1.0).abs() < 1e-12, "{negative_grad} {gamma}: {} for {expected}", found[0]);
    }
}
