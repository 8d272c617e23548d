//! Fine-R1 as library calls: SFT, TAPO with a custom reward, and an evaluation.
//!
//! `cargo run --release -p finetune -- CHECKPOINT stage1.json triplets.jsonl birds_seen.jsonl OUT`

use std::{error::Error, path::Path};

use fieldmark::{
    Checkpoint, RunError,
    data::ImageRoots,
    device,
    folder::RunFolder,
    recipe::{DataSection, EvalSection},
    run::{self, Eval, RunEvent, RunSetup, Sft, Tapo},
    source::{ConversationSettings, Conversations, TripletSettings, Triplets, question_sets},
    train::{
        TrainEvent,
        reward::{RewardInput, RewardRegistry},
        sft::SftConfig,
        tapo::TapoConfig,
    },
};

/// The custom reward: 1 if the response names a field mark before it answers, else 0.
fn mark(input: &RewardInput<'_>) -> f64 {
    let thought = input.response.split("</think>").next().unwrap_or_default();
    f64::from(u8::from(["bill", "crest", "wing", "tail"].iter().any(|mark| thought.contains(mark))))
}

/// Prints the loss of each SFT update and the reward of each TAPO step.
fn show(event: RunEvent<'_>) -> Result<(), RunError> {
    match event {
        RunEvent::Train(TrainEvent::SftUpdate(row, _)) => println!("update {}: loss {:.4}", row.step, row.loss),
        RunEvent::Train(TrainEvent::Drawn(row, _)) => println!("step {}: reward {:.4}", row.rollout_step, row.reward),
        _ => {}
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: finetune CHECKPOINT CONVERSATIONS TRIPLETS QUESTIONS OUT";
    let [start, conversations, triplets, questions, out] = &args[..] else { return Err(usage.into()) };
    let (conversations, triplets, out) = (Path::new(conversations), Path::new(triplets), Path::new(out));
    let device = device::open(device::default_name())?.device;
    let setup = |stage| -> Result<RunSetup, RunError> {
        Ok(RunSetup::new(RunFolder::check(Some(&out.join(stage)), false)?, device.clone()))
    };

    // Stage 1: chain-of-thought SFT. `Conversations` reads a file; any other `SftSource` works too.
    let base = Checkpoint::at(start)?;
    let settings = ConversationSettings { max_tokens: base.context, ..ConversationSettings::default() };
    let roots = ImageRoots::beside(conversations);
    let source = Conversations::open(conversations, &roots, base.processor.clone(), settings)?;
    let config = SftConfig { epochs: 1, batch: 2, ..SftConfig::default() };
    let parts = Sft { checkpoint: &base, source: &source, validation: None, config };
    let tuned = run::sft(parts, &setup("sft")?, &mut show)?;
    let tuned = Checkpoint::at(tuned.checkpoint().ok_or("stopped")?)?;

    // Stage 2: TAPO, with one of the paper's rewards and the custom one.
    let mut config = TapoConfig { prompts_per_step: 2, chunk: 2, max_new_tokens: 8, ..TapoConfig::default() };
    (config.length_cache, config.rewards) = (4, [("format".into(), 0.5), ("mark".into(), 0.5)].into());
    (config.filter.key, config.filter.enabled) = (Some("mark".into()), false);
    let rewards = RewardRegistry::standard(&config).with("mark", mark);
    let settings = TripletSettings { max_tokens: tuned.context, ..TripletSettings::default() };
    let source = Triplets::from_file(triplets, &ImageRoots::beside(triplets), tuned.processor.clone(), settings)?;
    let parts =
        Tapo { checkpoint: &tuned, source: &source, validation: None, rewards: &rewards, config, steps: Some(1) };
    let reasoned = run::tapo(parts, &setup("tapo")?, &mut show)?;
    let reasoned = Checkpoint::at(reasoned.checkpoint().ok_or("stopped")?)?;

    // Evaluation in the closed and the open world.
    let eval = EvalSection { files: vec![questions.into()], ..EvalSection::default() };
    let sets = question_sets(&eval, &DataSection::default())?;
    let model = reasoned.load(&device)?;
    let folder = RunFolder::check(Some(&out.join("eval")), false)?;
    let evaluated = run::eval(Eval::greedy(&reasoned, &model, &device, &sets, 8), &folder, &mut show)?;
    println!("{}", run::score(&evaluated.predictions)?);
    Ok(())
}
