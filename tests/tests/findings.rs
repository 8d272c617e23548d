//! What a run says about itself: a model that does not look, parts without gradient, steps without a group; and an observer
//! that fails at the end.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::Tensor,
};
use fieldmark::{
    Checkpoint, RunError,
    folder::RunFolder,
    model::{ModelPart, Qwen25Vl, TrainableParts},
    processor::{PatchedImage, Sequence, SupervisedSequence},
    run::{RunEvent, RunSetup, Tapo, tapo},
    stream::StreamKey,
    train::{
        TrainError, Trainer,
        sft::{SftConfig, SftTrainer},
        tapo::{TapoConfig, TapoTrainer, rollout::GroupFilter},
        trainer::{Finding, TrainEvent},
    },
};
use fieldmark_tests::{
    prompts::{MODELS, load, values},
    tapo_runs::{Source, descent, device, ends, every, prompts, registry, run, slow_descent},
    tiny::checkpoint,
    training::{Rows, plain_logps, word_tokenizer},
};

/// Sets the last layer of the projector to 0, so that every image looks the same.
struct Blinder(Vec<String>);

impl ModuleMapper for Blinder {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.0.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.0.join(".").starts_with("visual.merger.fc2") {
            return param;
        }
        param.map(|tensor| tensor.zeros_like().detach().require_grad())
    }
}

fn blind() -> Qwen25Vl {
    load(MODELS[0], &device()).map(&mut Blinder(Vec::new()))
}

#[test]
fn a_step_measures_how_much_the_image_matters() {
    let model = load(MODELS[0], &device());
    let half = every(7);
    let source = Source::new(prompts(model.config(), &[&half, &half]));
    let found = run(&model, &source, &TapoConfig { eval_every: Some(2), ..slow_descent() }, 3);
    let measured: Vec<bool> = found.drawn.iter().map(|drawn| drawn.image_gap.is_some()).collect();
    assert_eq!(measured, [true, false, true]);
    // The first response to each prompt, after the prompt and after the same prompt with images of zeros.
    let mut gaps = Vec::new();
    for group in &found.steps[0] {
        let ids = &group.rollouts[0].response.ids;
        let blank =
            |image: &PatchedImage| PatchedImage { pixel_values: vec![0.0; image.pixel_values.len()].into(), ..*image };
        let anchor = &group.prompt.anchor;
        let without = Sequence { images: anchor.images.iter().map(blank).collect(), ..anchor.clone() };
        let logps = |prompt: &Sequence| values(plain_logps(&model, prompt, ids, slow_descent().temperature, &device()));
        gaps.extend(logps(anchor).into_iter().zip(logps(&without)).map(|(a, b)| f64::from((a - b).abs())));
    }
    let expected = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let gap = found.drawn[0].image_gap.unwrap();
    assert!((gap - expected).abs() < 1e-4 && gap > 1e-2, "{gap}, plainly {expected}");
    assert!(!found.findings.iter().any(|found| matches!(found, Finding::Blind { .. })), "{:?}", found.findings);
}

#[test]
fn a_model_that_does_not_look_and_a_part_without_gradient_are_told() {
    let half = every(7);
    let model = blind();
    let source = Source::new(prompts(model.config(), &[&half, &half]));
    let found = run(&model, &source, &slow_descent(), 1);
    assert_eq!(found.drawn[0].image_gap, Some(0.0));
    assert_eq!(found.updates[0].idle, ["vision"]);
    let told = |finding: &Finding| found.findings.contains(finding);
    assert!(told(&Finding::Blind { step: 1, gap: 0.0 }), "{:?}", found.findings);
    assert!(told(&Finding::Idle { update: 1, part: ModelPart::Vision }), "{:?}", found.findings);
    // The first update moves the projector, and with it the encoder has a gradient. A frozen part is no finding.
    let frozen = TrainableParts { vision: false, ..TrainableParts::default() };
    let later = run(&model, &source, &slow_descent(), 2);
    assert!(later.updates[1].idle.is_empty());
    let frozen = run(&model, &source, &TapoConfig { train: frozen, ..slow_descent() }, 1);
    assert!(frozen.updates[0].idle.is_empty());
}

#[test]
fn sft_tells_a_part_without_gradient_too() {
    let model = blind();
    let prompt = prompts(model.config(), &["t9"]).remove(0).anchor;
    let mut target_mask = vec![false; prompt.ids.len()];
    target_mask.extend([true; 3]);
    let rows = Rows(vec![SupervisedSequence { sequence: prompt.with_response(&[9, 10, 2]), target_mask }]);
    let train = TrainableParts::default();
    let config = SftConfig { epochs: 2, batch: 1, micro_batch: 1, train, ..SftConfig::default() };
    let mut trainer = SftTrainer::new(&model, &rows, config, 0, StreamKey::new(1), &device()).unwrap();
    let (mut idle, mut findings) = (Vec::new(), Vec::new());
    trainer
        .train(model, |event| {
            match event {
                TrainEvent::SftUpdate(row, _) => idle.push(row.idle.clone()),
                TrainEvent::Finding(found) => findings.push(found.clone()),
                _ => {}
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(idle, [vec!["vision".to_owned()], vec![]]);
    assert_eq!(findings, [Finding::Idle { update: 1, part: ModelPart::Vision }]);
}

#[test]
fn three_steps_without_a_group_end_the_run() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &["nothing"]));
    let (tokenizer, registry, streams) = (word_tokenizer(), registry(), StreamKey::new(5));
    let config = TapoConfig { filter: GroupFilter::default(), max_tries: 1, ..descent() };
    let trainer = TapoTrainer::new(&model, &source, &tokenizer, ends(), config, &registry, streams, &device());
    let mut told = Vec::new();
    let ended = trainer.unwrap().with_steps(9).train(model.clone(), |event| {
        if let TrainEvent::Finding(found @ Finding::NoGroup { .. }) = event {
            told.push(found.clone());
        }
        Ok(())
    });
    assert!(matches!(ended, Err(TrainError::NoGroups { steps: 3 })));
    let expected = |step| Finding::NoGroup { step, drawn: 2, all_right: 0, all_wrong: 2 };
    assert_eq!(told, [1, 2, 3].map(expected));
}

#[test]
fn groups_whose_rewards_are_alike_are_told_though_they_are_kept() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &["nothing", "nothing"]));
    let config = TapoConfig { rewards: [("accuracy".into(), 1.0)].into(), ..slow_descent() };
    let found = run(&model, &source, &config, 1);
    assert_eq!((found.drawn[0].trained_on, found.drawn[0].teaching), (2, 0));
    assert!(found.findings.contains(&Finding::NoAdvantage { step: 1, groups: 2 }), "{:?}", found.findings);
    let outlook = Finding::Outlook { accuracy: 0.0, share: 0.0, group: 4, counted: Some(2) };
    assert!(found.findings.contains(&outlook), "{:?}", found.findings);
}

#[test]
fn an_observer_that_fails_at_the_end_costs_no_model() {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(&folder.path().join("model"));
    let start = Checkpoint::at(folder.path().join("model")).unwrap();
    let source = Source::new(prompts(start.load(&device()).unwrap().config(), &["a", "b"]));
    let config = TapoConfig { prompts_per_step: 2, ..slow_descent() };
    let rewards = registry();
    let output = folder.path().join("out");
    let mut setup = RunSetup::new(RunFolder::check(Some(&output), false).unwrap(), device());
    setup.settings.tensorboard = false;
    let parts =
        Tapo { checkpoint: &start, source: &source, validation: None, rewards: &rewards, config, steps: Some(1) };
    let ended = tapo(parts, &setup, &mut |event: RunEvent<'_>| match event {
        RunEvent::Trained(_) => Err(RunError::observer(std::io::Error::other("no picture"))),
        _ => Ok(()),
    });
    assert!(ended.unwrap_err().to_string().contains("no picture"));
    assert!(Checkpoint::at(output.join("checkpoint")).unwrap().load(&device()).is_ok());
}
