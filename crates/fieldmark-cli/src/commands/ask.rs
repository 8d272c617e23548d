//! `fieldmark ask`: one question about photographs; the answer is printed as it is decoded.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
};

use anyhow::bail;
use fieldmark::{
    Checkpoint,
    checkpoint::limited,
    device,
    generate::{Chat, ChatModel, GenerationConfig, Sampling},
    processor::Photo,
    recipe::ModelSection,
    source::open_named_image,
    stream::StreamKey,
};

use super::Outcome;
use crate::{arguments::AskArgs, tell::tell};

/// Answers.
///
/// # Errors
/// Returns an error if the checkpoint, a photograph or a setting is wrong.
pub fn run(args: &AskArgs) -> anyhow::Result<Outcome> {
    if args.question.trim().is_empty() {
        bail!("the question is empty; write it in quotes, after the options");
    }
    let device = device::open(args.device.name().unwrap_or_else(|| device::default_name()))?.device;
    let (path, adapter) = (Some(args.model.clone()), args.adapter.clone());
    let section = ModelSection { path, adapter, dtype: args.dtype, ..ModelSection::default() };
    let checkpoint = Checkpoint::open(&section)?;
    // How contradictions are resolved changes no answer that a right file would get, so it is said to people only.
    let contradictions = checkpoint.contradictions.iter().filter(|_| std::io::stderr().is_terminal());
    for note in checkpoint.notes.iter().chain(contradictions) {
        tell(format_args!("note: {note}"));
    }
    let processor =
        limited(&checkpoint.processor, args.min_pixels, args.max_pixels, |key| format!("--{}", key.replace('_', "-")))?;
    let chat = chat(args)?;
    // Mistakes in the question are found before the weights are read.
    chat.prompt("the question", &processor)?;
    let generation = generation(args, checkpoint.eos.clone());
    generation.validate()?;
    let model = checkpoint.load(&device)?;
    let mut model = ChatModel::new(model, processor, checkpoint.eos, &device);
    model.generation = generation;

    let mut out = std::io::stdout().lock();
    let mut written = Ok(());
    model.generate_with(&[chat], |_, text| {
        if written.is_ok() {
            written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    })?;
    written?;
    writeln!(out)?;
    Ok(Outcome::Done)
}

fn chat(args: &AskArgs) -> anyhow::Result<Chat> {
    let decode = args.decode.options();
    let open = |image: &PathBuf| open_named_image(image, "--image", &decode);
    let photos = args.image.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    for note in photos.iter().filter_map(Photo::note) {
        tell(format_args!("note: {note}"));
    }
    let chat = Chat::question(&args.question, photos)
        .with_name("the question")
        .with_stream(StreamKey::new(args.seed).word("ask").stream());
    Ok(match &args.system {
        Some(text) => chat.with_system(text),
        None => chat,
    })
}

fn generation(args: &AskArgs, eos: Vec<u32>) -> GenerationConfig {
    let sampling =
        Sampling { repetition_penalty: args.repetition_penalty, ..Sampling::nucleus(args.temperature, args.top_p) };
    GenerationConfig { sampling, ..GenerationConfig::greedy(args.max_new_tokens, eos) }
}
