//! Properties of batched, cached decoding: a response depends on its prompt, its settings and its stream, and is what
//! recomputing the whole sequence for every token would give.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicBool, Ordering},
};

use burn::tensor::Device;
use fieldmark::{
    generate::{FinishReason, GenerateError, GenerationConfig, Generator, Request, Response, Sampling},
    model::{KvCache, Padding, Qwen25Vl, RopePosition, rope_positions},
    processor::{Sequence, collate},
    stream::RandomStream,
};
use fieldmark_tests::prompts::{MODELS, TOLERANCE, cases, distance, load, parts, sequence, sequences, text, values};
use proptest::prelude::*;

const PAD: u32 = 0;

static LOADED: LazyLock<[Qwen25Vl; 2]> = LazyLock::new(|| MODELS.map(|name| load(name, &Device::flex())));

/// One token of a response with the logits it was chosen from.
struct Step {
    id: u32,
    logits: Vec<f32>,
}

fn greedy(tokens: usize) -> GenerationConfig {
    GenerationConfig::greedy(tokens, Vec::new())
}

fn sampled(tokens: usize) -> GenerationConfig {
    GenerationConfig { sampling: Sampling::nucleus(1.0, 0.99), ..greedy(tokens) }
}

fn stream(seed: u64) -> RandomStream {
    RandomStream::new(seed, &["rollout"])
}

fn request(prompt: &Sequence, seeds: impl IntoIterator<Item = u64>) -> Request {
    Request { prompt: prompt.clone(), streams: seeds.into_iter().map(stream).collect() }
}

fn generate(model: &Qwen25Vl, config: GenerationConfig, requests: &[Request]) -> Vec<Vec<Response>> {
    Generator::new(model, config, PAD, &Device::flex()).unwrap().generate(requests).unwrap()
}

/// One response to each prompt, and its steps.
fn traced(model: &Qwen25Vl, config: GenerationConfig, prompts: &[Sequence]) -> (Vec<Response>, Vec<Vec<Step>>) {
    let requests: Vec<Request> = prompts.iter().map(|prompt| request(prompt, [0])).collect();
    let config = GenerationConfig { output_logits: true, ..config };
    let generator = Generator::new(model, config, PAD, &Device::flex()).unwrap();
    let mut steps: Vec<Vec<Step>> = prompts.iter().map(|_| Vec::new()).collect();
    let responses = generator
        .generate_with(&requests, |token| {
            steps[token.request].push(Step { id: token.id, logits: token.logits.unwrap().to_vec() });
        })
        .unwrap();
    (responses.into_iter().flatten().collect(), steps)
}

/// Logits after the last token of a sequence alone, without cache or padding.
fn recomputed(model: &Qwen25Vl, sequence: &Sequence) -> Vec<f32> {
    let inputs = collate(std::slice::from_ref(sequence), Padding::Right, PAD, None, model.config(), &Device::flex());
    let hidden = model.forward(&inputs.unwrap());
    let [_, seq, width] = hidden.dims();
    values(model.logits(hidden.narrow(1, seq - 1, 1).reshape([1, width])))
}

/// The best and the second best logit of those that may be chosen.
fn best_two(model: &Qwen25Vl, logits: &[f32]) -> [(usize, f32); 2] {
    let banned = model.config().vision_tokens.all();
    let mut order: Vec<(usize, f32)> =
        logits.iter().copied().enumerate().filter(|(id, _)| !banned.contains(&(*id as u32))).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    [order[0], order[1]]
}

/// Whether rounding cannot change any greedy choice.
fn clear(model: &Qwen25Vl, steps: &[Vec<Step>]) -> bool {
    steps.iter().flatten().all(|step| {
        let [best, second] = best_two(model, &step.logits);
        best.1 - second.1 > 2.0 * TOLERANCE
    })
}

/// The same tokens and endings, and log-probabilities that differ by rounding alone.
fn same(a: &Response, b: &Response) -> bool {
    a.ids == b.ids
        && a.finish == b.finish
        && a.logps.iter().zip(&b.logps).all(|(a, b)| (a - b).abs() < 2.0 * f64::from(TOLERANCE))
}

fn all_same<'a>(a: impl IntoIterator<Item = &'a Response>, b: impl IntoIterator<Item = &'a Response>) -> bool {
    let (a, b): (Vec<_>, Vec<_>) = (a.into_iter().collect(), b.into_iter().collect());
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}

proptest! {
    #![proptest_config(cases(20))]

    #[test]
    fn cached_decoding_is_recomputing_the_whole_sequence(parts in parts(0..3), which in 0..2usize) {
        let model = &LOADED[which];
        let prompt = sequence(&parts, model.config());
        let (responses, steps) = traced(model, greedy(6), std::slice::from_ref(&prompt));
        prop_assert_eq!(steps[0].len(), 6);
        for (k, step) in steps[0].iter().enumerate() {
            let logits = recomputed(model, &prompt.with_response(&responses[0].ids[..k]));
            prop_assert!(distance(&logits, &step.logits) < TOLERANCE);
            let chosen = logits[step.id as usize];
            prop_assert!(best_two(model, &logits)[0].1 - chosen < 2.0 * TOLERANCE);
            let sum: f64 = logits.iter().map(|&x| f64::from(x - chosen).exp()).sum();
            prop_assert!((responses[0].logps[k] + sum.ln()).abs() < 2.0 * f64::from(TOLERANCE));
        }
    }

    #[test]
    fn decoded_positions_are_those_of_the_whole_sequence(
        prompts in prop::collection::vec(parts(0..3), 1..4),
        response in text(1..5),
        which in 0..2usize,
    ) {
        let model = &LOADED[which];
        let (config, device) = (model.config(), Device::flex());
        let prompts = sequences(&prompts, config);
        let inputs = collate(&prompts, Padding::Left, PAD, None, config, &device).unwrap();
        let mut cache = KvCache::new(config.text.num_hidden_layers, 0);
        model.prefill(&inputs, &mut cache);
        for k in 0..response.len() {
            // Every row goes on with other tokens.
            let new = |b: usize, k: usize| response[(k + b) % response.len()];
            let mut positions = Vec::new();
            let mut wholes = Vec::new();
            for (b, prompt) in prompts.iter().enumerate() {
                let ids: Vec<u32> = (0..=k).map(|k| new(b, k)).collect();
                let whole = prompt.with_response(&ids);
                let merge = config.vision.spatial_merge_size;
                let expected = rope_positions(&whole.ids, &whole.grids(), &config.vision_tokens, merge).unwrap();
                let position = inputs.next_position[b] + k;
                for axis in &expected.rows {
                    prop_assert_eq!(axis[prompt.ids.len() + k], position);
                }
                prop_assert_eq!(expected.next, position + 1);
                positions.push(position);
                wholes.push(whole);
            }
            let tokens: Vec<u32> = (0..prompts.len()).map(|b| new(b, k)).collect();
            let rows: Vec<_> = inputs.rows.iter().map(|row| row.start..row.end + k + 1).collect();
            let elsewhere: Vec<RopePosition> = positions.iter().map(|&position| position + 2).collect();
            let decode = |positions: &[RopePosition], cache: &mut KvCache| {
                let hidden = model.decode(&tokens, positions, &rows, cache, &device);
                let width = hidden.dims()[2];
                values(model.logits(hidden.reshape([tokens.len(), width])))
            };
            let moved = decode(&elsewhere, &mut cache.clone());
            let logits = decode(&positions, &mut cache);
            let vocab = config.text.vocab_size;
            for (b, whole) in wholes.iter().enumerate() {
                let row = b * vocab..(b + 1) * vocab;
                let expected = recomputed(model, whole);
                prop_assert!(distance(&logits[row.clone()], &expected) < TOLERANCE);
                // Position matters in these models, so that the line above can fail.
                prop_assert!(distance(&moved[row], &expected) > TOLERANCE);
            }
        }
    }

    #[test]
    fn batched_and_left_padded_is_alone(prompts in prop::collection::vec(parts(0..3), 2..5), which in 0..2usize) {
        let model = &LOADED[which];
        let prompts = sequences(&prompts, model.config());
        let (together, steps) = traced(model, greedy(6), &prompts);
        prop_assume!(clear(model, &steps));
        for (b, prompt) in prompts.iter().enumerate() {
            let (alone, own_steps) = traced(model, greedy(6), std::slice::from_ref(prompt));
            prop_assert!(same(&alone[0], &together[b]));
            for (step, own) in steps[b].iter().zip(&own_steps[0]) {
                prop_assert!(distance(&step.logits, &own.logits) < TOLERANCE);
            }
        }
    }

    #[test]
    fn the_order_of_requests_does_not_matter(
        prompts in prop::collection::vec((parts(0..2), 1..3u64), 4),
        order in Just(vec![0usize, 1, 2, 3]).prop_shuffle(),
        which in 0..2usize,
    ) {
        let model = &LOADED[which];
        let requests: Vec<Request> = prompts
            .iter()
            .enumerate()
            .map(|(i, (parts, count))| {
                request(&sequence(parts, model.config()), (0..*count).map(|j| 10 * i as u64 + j))
            })
            .collect();
        let straight = generate(model, sampled(8), &requests);
        let shuffled: Vec<Request> = order.iter().map(|&i| requests[i].clone()).collect();
        let shuffled = generate(model, sampled(8), &shuffled);
        prop_assert!(all_same(order.iter().flat_map(|&i| &straight[i]), shuffled.iter().flatten()));
    }

    #[test]
    fn responses_that_share_a_prompt_are_those_of_single_requests(
        parts in parts(0..2),
        seeds in prop::collection::vec(0u64..50, 2..6),
        which in 0..2usize,
    ) {
        let model = &LOADED[which];
        let prompt = sequence(&parts, model.config());
        let shared = generate(model, sampled(8), &[request(&prompt, seeds.clone())]);
        prop_assert_eq!(shared[0].len(), seeds.len());
        for (response, &seed) in shared[0].iter().zip(&seeds) {
            prop_assert!(same(response, &generate(model, sampled(8), &[request(&prompt, [seed])])[0][0]));
        }
    }

    #[test]
    fn batches_of_any_size_give_the_same(
        prompts in prop::collection::vec((parts(0..2), 0..6u64), 1..5),
        max_batch in 1..7usize,
        every in 3..40usize,
        which in 0..2usize,
    ) {
        let model = &LOADED[which];
        let requests: Vec<Request> =
            prompts.iter().map(|(parts, count)| request(&sequence(parts, model.config()), 0..*count)).collect();
        // Responses end at different lengths, so that others take their places.
        let eos_token_ids = (0..model.config().text.vocab_size as u32).step_by(every).collect();
        let config = GenerationConfig { eos_token_ids, ..sampled(12) };
        let whole = generate(model, config.clone(), &requests);
        let split = generate(model, GenerationConfig { max_batch, ..config }, &requests);
        let counts = |responses: &[Vec<Response>]| responses.iter().map(Vec::len).collect::<Vec<_>>();
        prop_assert_eq!(counts(&whole), prompts.iter().map(|(_, count)| *count as usize).collect::<Vec<_>>());
        prop_assert_eq!(counts(&split), counts(&whole));
        prop_assert!(all_same(whole.iter().flatten(), split.iter().flatten()));
    }

    #[test]
    fn streams_repeat_and_differ(parts in parts(0..2), which in 0..2usize) {
        let model = &LOADED[which];
        let prompt = sequence(&parts, model.config());
        let responses = generate(model, sampled(12), &[request(&prompt, [1, 2, 3, 1])]).remove(0);
        prop_assert_eq!(&responses[0], &responses[3]);
        let ids: std::collections::BTreeSet<&Vec<u32>> = responses.iter().map(|response| &response.ids).collect();
        prop_assert_eq!(ids.len(), 3);
    }

    #[test]
    fn vision_tokens_and_banned_tokens_are_never_drawn(parts in parts(0..2), which in 0..2usize) {
        let model = &LOADED[which];
        let vision = model.config().vision_tokens.all();
        let prompt = sequence(&parts, model.config());
        // Hot enough that every token has about the same chance.
        let hot = GenerationConfig { sampling: Sampling::nucleus(50.0, 1.0), ..greedy(60) };
        let banned: Vec<u32> = (100..200).collect();
        let drawn = |config: GenerationConfig| -> Vec<u32> {
            let responses = generate(model, config, &[request(&prompt, 0..8)]).remove(0);
            responses.into_iter().flat_map(|response| response.ids).collect()
        };
        let with_ban = drawn(GenerationConfig { banned: banned.clone(), ..hot.clone() });
        prop_assert_eq!(with_ban.len(), 8 * 60);
        prop_assert!(!with_ban.iter().any(|id| vision.contains(id) || banned.contains(id)));
        let without = drawn(GenerationConfig { allow_vision_tokens: true, ..hot });
        prop_assert!(without.iter().any(|id| vision.contains(id)) && without.iter().any(|id| banned.contains(id)));
    }

    #[test]
    fn an_end_token_ends_its_row_and_no_other(
        prompts in prop::collection::vec(parts(0..2), 3..6),
        picks in prop::collection::vec((0..3usize, 0..9usize), 1..4),
        which in 0..2usize,
    ) {
        let model = &LOADED[which];
        let prompts = sequences(&prompts, model.config());
        let (free, steps) = traced(model, greedy(10), &prompts);
        prop_assume!(clear(model, &steps));
        let ends: Vec<u32> = picks.iter().map(|&(row, step)| free[row].ids[step]).collect();
        let config = GenerationConfig { eos_token_ids: ends.clone(), ..greedy(10) };
        let (ended, _) = traced(model, config, &prompts);
        for (free, ended) in free.iter().zip(&ended) {
            let stop = free.ids.iter().position(|id| ends.contains(id));
            prop_assert_eq!(&ended.ids[..], stop.map_or(&free.ids[..], |stop| &free.ids[..=stop]));
            prop_assert_eq!(ended.finish, stop.map_or(FinishReason::Length, |_| FinishReason::Stop));
            prop_assert_eq!(ended.text_ids(), stop.map_or(&free.ids[..], |stop| &free.ids[..stop]));
            prop_assert_eq!(ended.logps.len(), ended.ids.len());
        }
    }
}

#[test]
fn two_images_of_different_sizes_are_read_like_any_prompt() {
    use fieldmark_tests::prompts::Part::{Image, Text};
    for model in &*LOADED {
        let image = |h, w, seed| Image { h, w, seed };
        let parts = [Text(vec![20, 30]), image(4, 10, 1), Text(vec![40]), image(12, 2, 2), Text(vec![50])];
        let swapped = [Text(vec![20, 30]), image(4, 10, 1), Text(vec![40]), image(12, 2, 3), Text(vec![50])];
        let prompt = sequence(&parts, model.config());
        let (responses, steps) = traced(model, greedy(5), std::slice::from_ref(&prompt));
        for (k, step) in steps[0].iter().enumerate() {
            let logits = recomputed(model, &prompt.with_response(&responses[0].ids[..k]));
            assert!(distance(&logits, &step.logits) < TOLERANCE);
        }
        // The second image is seen.
        let (_, other) = traced(model, greedy(1), &[sequence(&swapped, model.config())]);
        assert!(distance(&other[0][0].logits, &steps[0][0].logits) > TOLERANCE);
    }
}

#[test]
fn nothing_is_left_in_a_model_that_has_generated() {
    use fieldmark_tests::prompts::Part::{Image, Text};
    for model in &*LOADED {
        let prompt = |i: u64| {
            let image = Image { h: 2 + 2 * (i as usize % 4), w: 6, seed: i };
            sequence(&[Text(vec![30 + i as u32; 1 + i as usize]), image, Text(vec![9])], model.config())
        };
        let first = generate(model, sampled(10), &[request(&prompt(0), [0, 1])]);
        for i in 1..8 {
            generate(model, greedy(3 + i as usize), &[request(&prompt(i), [0])]);
        }
        let long = sequence(&[Text(vec![9; 512])], model.config());
        let refused = Generator::new(model, greedy(1), PAD, &Device::flex()).unwrap().generate(&[request(&long, [0])]);
        assert!(matches!(refused, Err(GenerateError::Context { tokens: 512, context: 512, .. })));
        assert_eq!(generate(model, sampled(10), &[request(&prompt(0), [0, 1])]), first);
    }
}

#[test]
fn a_prompt_of_one_token_beside_a_long_one_stays_finite_and_the_same() {
    use fieldmark_tests::prompts::Part::{Image, Text};
    for model in &*LOADED {
        let long = [Text((8..308).collect()), Image { h: 12, w: 12, seed: 4 }, Text(vec![8])];
        let prompts = sequences(&[vec![Text(vec![9])], long.to_vec(), vec![Text(vec![77])]], model.config());
        let inputs = collate(&prompts, Padding::Left, PAD, None, model.config(), &Device::flex()).unwrap();
        assert_eq!(inputs.rows[0].len(), 1);
        assert!(values(model.forward(&inputs)).iter().all(|x| x.is_finite()));
        let (together, steps) = traced(model, greedy(5), &prompts);
        assert!(clear(model, &steps));
        for (prompt, together) in prompts.iter().zip(&together) {
            assert!(same(&traced(model, greedy(5), std::slice::from_ref(prompt)).0[0], together));
        }
    }
}

#[test]
fn a_vocabulary_that_is_banned_whole_is_refused() {
    let model = &LOADED[0];
    let most = model.config().text.vocab_size as u32 - 1;
    let made = |banned: Vec<u32>| {
        let config = GenerationConfig { banned, allow_vision_tokens: true, ..sampled(1) };
        Generator::new(model, config, PAD, &Device::flex()).map(drop)
    };
    assert!(matches!(made((0..=most).collect()), Err(GenerateError::Setting { key: "banned", .. })));
    assert!(made((0..most).collect()).is_ok());
}

#[test]
fn the_context_ends_a_response() {
    use fieldmark_tests::prompts::Part::Text;
    let model = &LOADED[0];
    let prompts = sequences(&[vec![Text(vec![9; 508])], vec![Text(vec![9; 3])]], model.config());
    let (responses, _) = traced(model, greedy(7), &prompts);
    assert_eq!(responses.iter().map(|response| response.ids.len()).collect::<Vec<_>>(), [4, 7]);
    assert!(responses.iter().all(|response| response.finish == FinishReason::Length));
}

#[test]
fn a_flag_ends_decoding_before_the_next_token() {
    use fieldmark_tests::prompts::Part::Text;
    let model = &LOADED[0];
    let prompt = sequence(&[Text(vec![9; 3])], model.config());
    let config = GenerationConfig { max_batch: 2, ..sampled(6) };
    let requests = [request(&prompt, [0, 1]), request(&prompt, [2, 3])];
    let whole = generate(model, config.clone(), &requests);
    // Set before the start, in the first batch, at its end, and never.
    for (after, decoded) in [(0, 0), (3, 4), (12, 12), (99, 24)] {
        let stop = Arc::new(AtomicBool::new(after == 0));
        let generator = Generator::new(model, config.clone(), PAD, &Device::flex()).unwrap().with_stop(stop.clone());
        let (mut tokens, mut ended) = (0, 0);
        let responses = generator.generate_with(&requests, |token| {
            tokens += 1;
            ended += usize::from(token.is_last);
            stop.fetch_or(tokens == after, Ordering::SeqCst);
        });
        assert_eq!(tokens, decoded);
        match responses {
            Ok(responses) => assert!(decoded == 24 && ended == 4 && responses == whole),
            Err(error) => assert!(decoded < 24 && matches!(error, GenerateError::Stopped), "{error}"),
        }
    }
}
