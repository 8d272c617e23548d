//! `fieldmark ask`: one question about photographs, the answer streamed as it is decoded.

use std::io::Write;

use anyhow::bail;
use fieldmark::{
    Checkpoint,
    checkpoint::limited,
    device,
    generate::{GenerationConfig, Generator, Request, Sampling},
    processor::{Content, ContentPart, DecodeOptions, Message, Photo, ProcessOptions, Role, SpecialTokens, TextStream},
    recipe::ModelSection,
    stream::StreamKey,
};

use super::Outcome;
use crate::arguments::AskArgs;

/// Answers.
///
/// # Errors
/// Whatever is wrong with checkpoint, photographs or settings.
pub fn run(args: &AskArgs) -> anyhow::Result<Outcome> {
    if args.question.trim().is_empty() {
        bail!("the question is empty; write it behind the options, in quotes");
    }
    let device = device::open(args.device.name().unwrap_or_else(|| device::default_name()))?;
    let section = ModelSection { path: Some(args.model.clone()), dtype: args.dtype, ..ModelSection::default() };
    let checkpoint = Checkpoint::open(&section)?;
    let processor = limited(&checkpoint.processor, args.min_pixels, args.max_pixels, "ask")?;
    let decode = DecodeOptions::default();
    let photos = args.image.iter().map(|path| Photo::open(path, &decode)).collect::<Result<Vec<_>, _>>()?;
    let mut messages: Vec<Message> = args.system.iter().map(Message::system).collect();
    messages.push(Message { role: Role::User, content: content(&args.question, photos.len()) });
    let prompt = processor.process("the question", &messages, &photos, ProcessOptions::prompt())?;

    let sampling = Sampling {
        temperature: args.temperature,
        top_k: 0,
        top_p: args.top_p,
        repetition_penalty: args.repetition_penalty,
    };
    let generation =
        GenerationConfig { sampling, ..GenerationConfig::greedy(args.max_new_tokens, checkpoint.eos.clone()) };
    generation.validate()?;
    let model = checkpoint.load(&device.device)?;
    let tokenizer = &processor.tokenizer;
    let generator = Generator::new(&model, generation, tokenizer.pad(), &device.device)?;
    let request = Request { prompt, streams: vec![StreamKey::new(args.seed).word("ask").stream()] };

    let mut stream = TextStream::new(SpecialTokens::Skip);
    let mut trouble = None;
    let mut out = std::io::stdout().lock();
    generator.generate_with(&[request], |token| {
        if trouble.is_none() {
            let shown = stream.push(tokenizer, token.id).map_err(anyhow::Error::from);
            let shown = shown.and_then(|text| Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?));
            trouble = shown.err();
        }
    })?;
    if let Some(error) = trouble {
        return Err(error);
    }
    writeln!(out, "{}", stream.finish(tokenizer)?)?;
    Ok(Outcome::Done)
}

/// The photographs where the question has `<image>`, else before it.
fn content(question: &str, photos: usize) -> Content {
    let tagged = Content::from_tagged(question);
    if tagged.images() > 0 {
        return tagged;
    }
    let mut parts = vec![ContentPart::Image; photos];
    parts.push(ContentPart::Text { text: question.into() });
    Content::Parts(parts)
}
