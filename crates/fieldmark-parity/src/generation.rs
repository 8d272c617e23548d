//! Compares greedy decoding with a KV cache: tokens, lengths, and the raw logits of every new token.

use burn::tensor::Device;
use fieldmark_generate::{GenerationConfig, Generator, Request, Sampling};
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::Sequence;
use fieldmark_stream::RandomStream;

use super::{
    compare::{Report, Tolerance},
    error::ParityError,
    fixture::Fixture,
    rows::Rows,
};

pub(super) fn compare(
    fixture: &mut Fixture,
    report: &mut Report,
    model: &Qwen25Vl,
    device: &Device,
) -> Result<(), ParityError> {
    let rows = Rows::read(fixture, "gen", model.config())?;
    let prompts = rows.sequences(model.config().vision.patch_len());
    let vocab = model.config().text.vocab_size;
    let eos: Vec<u32> = fixture.indices("gen.eos_token_ids", vocab)?.into_iter().map(|id| id as u32).collect();
    let [_, steps, _] = fixture.dims("gen.step_logits")?;
    fixture.expect("gen.step_logits", [prompts.len(), steps, vocab])?;
    let [_, width] = fixture.dims("gen.input_ids")?;

    let config =
        GenerationConfig { allow_vision_tokens: true, output_logits: true, ..GenerationConfig::greedy(steps, eos) };
    let (sequences, lengths, logits) = decode(model, config.clone(), &prompts, width, vocab, device)?;
    let sequences = padded(fixture, "gen.sequences", sequences)?;
    fixture.check_values(report, "gen.sequences", &sequences, Tolerance::Exact);
    fixture.check_values(report, "gen.lengths", &lengths, Tolerance::Exact);
    fixture.check_values(report, "gen.step_logits", &logits, Tolerance::Absolute(5e-4));

    if fixture.has("gen_penalty.sequences") {
        let penalty = fixture.number("gen_penalty.value")?;
        // The reference used a decimal number, which the file stores rounded to f32.
        let repetition_penalty = (penalty * 1e6).round() / 1e6;
        let sampling = Sampling { repetition_penalty, ..Sampling::greedy() };
        let config = GenerationConfig { sampling, ..config };
        let (sequences, ..) = decode(model, config, &prompts, width, vocab, device)?;
        let sequences = padded(fixture, "gen_penalty.sequences", sequences)?;
        fixture.check_values(report, "gen_penalty.sequences", &sequences, Tolerance::Exact);
    }
    Ok(())
}

type Decoded = (Vec<Vec<f64>>, Vec<f64>, Vec<f64>);

/// Returns the left-padded prompts with their new tokens, the numbers of new tokens, and all logits. Logits after the
/// end of a row are 0.
fn decode(
    model: &Qwen25Vl,
    config: GenerationConfig,
    prompts: &[Sequence],
    width: usize,
    vocab: usize,
    device: &Device,
) -> Result<Decoded, ParityError> {
    let steps = config.max_new_tokens;
    let stream = RandomStream::new(0, &["parity"]);
    let requests: Vec<Request> =
        prompts.iter().map(|prompt| Request { prompt: prompt.clone(), streams: vec![stream.clone()] }).collect();
    let mut logits = vec![0.0; prompts.len() * steps * vocab];
    let mut step = vec![0; prompts.len()];
    let responses = Generator::new(model, config, 0, device)?.generate_with(&requests, |token| {
        let start = (token.request * steps + step[token.request]) * vocab;
        let found = token.logits.unwrap_or_default();
        logits[start..start + vocab].iter_mut().zip(found).for_each(|(to, &from)| *to = f64::from(from));
        step[token.request] += 1;
    })?;
    let rows = prompts
        .iter()
        .zip(&responses)
        .map(|(prompt, response)| {
            let padding = std::iter::repeat_n(0, width - prompt.ids.len());
            padding.chain(prompt.ids.iter().copied()).chain(response[0].ids.iter().copied()).map(f64::from).collect()
        })
        .collect();
    Ok((rows, responses.iter().map(|response| response[0].ids.len() as f64).collect(), logits))
}

/// Pads the rows with id 0 to the width of the expected tensor.
fn padded(fixture: &mut Fixture, name: &str, rows: Vec<Vec<f64>>) -> Result<Vec<f64>, ParityError> {
    let [_, width] = fixture.dims(name)?;
    let filled = rows.into_iter().flat_map(|mut row| {
        row.resize(width.max(row.len()), 0.0);
        row
    });
    Ok(filled.collect())
}
