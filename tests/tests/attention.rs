//! Attention without a tape against the tape of its written-out form: values and gradients, for every layout that a batch
//! can have and every number of queries scored at a time.

use std::ops::Range;

use burn::tensor::{DType, Device, Distribution, Tensor};
use fieldmark::model::{
    AttentionLayout, GridThw, VisionConfig,
    attention::{AttentionMask, attend},
    attention_backward,
    vision::WindowPlan,
};

const HEADS: usize = 6;
const KV_HEADS: usize = 2;
const DIM: usize = 8;

fn relative(found: Tensor<4>, expected: Tensor<4>) -> f64 {
    let scale: f64 = expected.clone().abs().max().into_scalar();
    (found - expected).abs().max().into_scalar::<f64>() / scale
}

fn random(shape: [usize; 4]) -> Tensor<4> {
    Tensor::random(shape, Distribution::Default, (&Device::flex(), DType::F64))
}

fn leaf(x: &Tensor<4>) -> Tensor<4> {
    x.clone().autodiff().require_grad()
}

#[test]
fn every_chunk_gives_the_gradient_of_the_tape() {
    let (device, batch, len) = (Device::flex(), 2, 13);
    let random = |heads| random([batch, heads, len, DIM]);
    let [q, k, v, grad] = [random(HEADS), random(KV_HEADS), random(KV_HEADS), random(HEADS)];
    // The last mask leaves four queries of the second row without a key: nothing may come back from them.
    let blind = [1..2, 0..HEADS, 0..4, 0..DIM];
    let grad = grad.clone().slice_assign(blind.clone(), grad.slice(blind).zeros_like());
    let masks = |device: &Device| {
        [
            AttentionMask::none(),
            AttentionMask::causal(len, 0, &[0..len, 0..len], device),
            AttentionMask::causal(len, 0, &[0..len, 0..9], device),
            AttentionMask::causal(len, 0, &[0..len, 4..len], device),
        ]
    };
    for (mask, on_tape) in masks(&device).into_iter().zip(masks(&device.clone().autodiff())) {
        let [lq, lk, lv] = [leaf(&q), leaf(&k), leaf(&v)];
        let out = attend(lq.clone(), lk.clone(), lv.clone(), &on_tape);
        let grads = (out * grad.clone().autodiff()).sum().backward();
        let expected = [lq, lk, lv].map(|leaf| leaf.grad(&grads).unwrap());
        let out = attend(q.clone(), k.clone(), v.clone(), &mask);
        for chunk in [0, 1, 4, 13, 100] {
            let parts = [q.clone(), k.clone(), v.clone()];
            let found = attention_backward(parts, out.clone(), grad.clone(), &mask, chunk);
            for (found, expected) in found.into_iter().zip(expected.clone()) {
                let error = relative(found, expected);
                assert!(error < 1e-12, "chunk {chunk}: {error:e}");
            }
        }
    }
}

#[test]
fn a_long_causal_batch_is_the_same_in_pieces() {
    let (device, len) = (Device::flex(), 1100);
    let random = |heads| random([2, heads, len, DIM]);
    let [q, k, v] = [random(4), random(2), random(2)];
    for rows in [[0..len, 0..len], [0..len, 0..700], [0..len, 300..len]] {
        let [tape_q, tape_k, tape_v] = [leaf(&q), leaf(&k), leaf(&v)];
        let on_tape = AttentionMask::causal(len, 0, &rows, &device.clone().autodiff());
        let expected = attend(tape_q, tape_k, tape_v, &on_tape).inner();
        let found = attend(q.clone(), k.clone(), v.clone(), &AttentionMask::causal(len, 0, &rows, &device));
        for (row, range) in rows.into_iter().enumerate() {
            let cut = |x: &Tensor<4>| x.clone().slice([row..row + 1, 0..4, range.clone(), 0..DIM]);
            assert!(relative(cut(&found), cut(&expected)) < 1e-12);
        }
    }
}

/// Attention over one row of tokens, span by span, on the tape: what the layouts promise. A token's result is that of the
/// first span that has it.
fn by_spans(qkv: &[Tensor<4>; 3], spans: &[Vec<usize>], causal: bool, device: &Device) -> Tensor<4> {
    let (mut outs, mut order) = (Vec::new(), Vec::new());
    let indices = |places: &[usize]| {
        let places: Vec<i64> = places.iter().map(|&place| place as i64).collect();
        Tensor::from_data(places.as_slice(), device)
    };
    for span in spans {
        let cut = |x: &Tensor<4>| x.clone().select(1, indices(span)).swap_dims(1, 2);
        let whole = 0..span.len();
        let mask = if causal {
            AttentionMask::causal(span.len(), 0, std::slice::from_ref(&whole), device)
        } else {
            AttentionMask::none()
        };
        let out = attend(cut(&qkv[0]), cut(&qkv[1]), cut(&qkv[2]), &mask).swap_dims(1, 2);
        let new: Vec<usize> = (0..span.len()).filter(|&place| !order.contains(&span[place])).collect();
        order.extend(new.iter().map(|&place| span[place]));
        outs.push(out.select(1, indices(&new)));
    }
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, &token)| place[token] = i);
    Tensor::cat(outs, 1).select(1, indices(&place))
}

fn check(layout: &AttentionLayout, len: usize, heads: [usize; 2], spans: &[Vec<usize>], causal: bool) {
    let device = Device::flex().autodiff();
    let random = |heads| random([1, len, heads, DIM]);
    let qkv = [random(heads[0]), random(heads[1]), random(heads[1])];
    let grad = random(heads[0]);
    let leaves = qkv.clone().map(|x| leaf(&x));
    let expected = by_spans(&leaves, spans, causal, &device);
    let out = layout.attend(qkv.clone());
    assert!(relative(out.clone(), expected.clone().inner()) < 1e-12);
    let grads = (expected * grad.clone().autodiff()).sum().backward();
    for chunk in [0, 3] {
        let found = layout.backward(qkv.clone(), out.clone(), grad.clone(), chunk);
        for (found, leaf) in found.into_iter().zip(&leaves) {
            let error = relative(found, leaf.grad(&grads).unwrap());
            assert!(error < 1e-12, "chunk {chunk}: {error:e}");
        }
    }
}

#[test]
fn packed_sequences_see_only_themselves() {
    let sequences: [Range<usize>; 5] = [0..7, 7..14, 14..15, 15..25, 25..32];
    let layout = AttentionLayout::packed(&sequences, &[], &Device::flex());
    let spans: Vec<Vec<usize>> = sequences.iter().map(|range| range.clone().collect()).collect();
    check(&layout, 32, [HEADS, KV_HEADS], &spans, true);
}

#[test]
fn a_response_sees_its_prompt_and_itself() {
    // Two prompts of one length, one with responses of several lengths; between them a sequence of the same length that
    // stands alone, and one more behind.
    let sequences = [0..5, 5..8, 8..11, 11..12, 12..17, 17..22, 22..24, 24..26, 26..31];
    let after = [None, Some(0), Some(0), Some(0), None, None, Some(5), Some(5), None];
    let layout = AttentionLayout::packed(&sequences, &after, &Device::flex());
    let span = |i: usize| {
        let before = after[i].map_or(0..0, |before: usize| sequences[before].clone());
        before.chain(sequences[i].clone()).collect()
    };
    let spans: Vec<Vec<usize>> = (0..sequences.len()).map(span).collect();
    check(&layout, 31, [HEADS, KV_HEADS], &spans, true);
}

#[test]
fn patches_see_their_window_or_their_frame() {
    // Windows of 2 by 2 merged patches; images of two sizes, one of two frames, with windows cut at the edges.
    let config = VisionConfig::new(1, HEADS * DIM, 8, HEADS, 8, 56, vec![]);
    let film = GridThw { t: 2, h: 4, w: 6 };
    let grids = [GridThw::image(6, 10), GridThw::image(6, 10), film, GridThw::image(4, 4)];
    let plan = WindowPlan::new(&grids, &config);
    let patches: usize = grids.iter().map(GridThw::patches).sum();
    let (mut windows, mut frames) = (Vec::new(), Vec::new());
    let mut start = 0;
    for run in &plan.runs {
        for _ in 0..run.images {
            for group in &run.windows {
                windows.extend((0..group.count).map(|i| {
                    let first = start + group.start + i * group.len;
                    (first..first + group.len).collect::<Vec<_>>()
                }));
            }
            let frame = run.patches / run.frames;
            frames.extend((0..run.frames).map(|i| (start + i * frame..start + (i + 1) * frame).collect::<Vec<_>>()));
            start += run.patches;
        }
    }
    check(&AttentionLayout::images(&plan.runs, false), patches, [HEADS, HEADS], &windows, false);
    check(&AttentionLayout::images(&plan.runs, true), patches, [HEADS, HEADS], &frames, false);
}
