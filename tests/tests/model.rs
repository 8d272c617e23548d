//! Properties of the model that hold for any input: padding, shared images, windows, checkpoints, frozen parts.

use std::{collections::HashMap, path::Path};

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    tensor::{Device, Gradients, Tensor},
};
use fieldmark::{
    model::{
        GridThw, LoadOptions, ModelInputs, Padding, Qwen25Vl, Qwen25VlConfig, SaveOptions, TextConfig, TrainableParts,
        VisionConfig, VisionTokens, WeightType,
        vision::{WindowPlan, patch_positions},
    },
    processor::{PatchedImage, Sequence, collate},
};
use fieldmark_tests::prompts::{MODELS, Part, TOLERANCE, cases, distance, load, parts, sequence, sequences, values};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::SafeTensors;

const PAD: u32 = 0;

fn batch(model: &Qwen25Vl, sequences: &[Sequence], padding: Padding, device: &Device) -> ModelInputs {
    collate(sequences, padding, PAD, None, model.config(), device).unwrap()
}

/// The hidden states of the real tokens of row `b`.
fn row(hidden: &Tensor<3>, inputs: &ModelInputs, b: usize) -> Vec<f32> {
    let place = inputs.rows[b].clone();
    values(hidden.clone().narrow(0, b, 1).narrow(1, place.start, place.len()))
}

/// Sees every parameter with its id.
struct Each<F>(F);

impl<F: FnMut(ParamId, Vec<f32>)> ModuleVisitor for Each<F> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        (self.0)(param.id, values(param.val()));
    }
}

/// The values of every parameter, by published name.
fn parameters(model: &Qwen25Vl) -> HashMap<String, Vec<f32>> {
    let mut found = HashMap::new();
    model.visit(&mut Each(|id, values| {
        found.insert(id, values);
    }));
    model
        .named_parameters()
        .into_iter()
        .map(|parameter| (parameter.name, found.remove(&parameter.id).unwrap()))
        .collect()
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn padded_on_either_side_is_alone(prompts in prop::collection::vec(parts(0..3), 2..5), which in 0..2usize) {
        let device = Device::flex();
        let model = load(MODELS[which], &device);
        let prompts = sequences(&prompts, model.config());
        for padding in [Padding::Right, Padding::Left] {
            let inputs = batch(&model, &prompts, padding, &device);
            let hidden = model.forward(&inputs);
            prop_assert!(values(hidden.clone()).iter().all(|x| x.is_finite()));
            for (b, prompt) in prompts.iter().enumerate() {
                let alone = batch(&model, std::slice::from_ref(prompt), padding, &device);
                prop_assert!(!alone.is_padded());
                let expected = values(model.forward(&alone));
                prop_assert!(distance(&row(&hidden, &inputs, b), &expected) < TOLERANCE);
            }
        }
    }

    #[test]
    fn an_image_that_rows_share_is_encoded_once_and_is_the_same(
        prompts in prop::collection::vec(parts(0..3), 1..3),
        copies in 2..4usize,
        which in 0..2usize,
    ) {
        let device = Device::flex();
        let model = load(MODELS[which], &device);
        let prompts = sequences(&prompts, model.config());
        let shared: Vec<Sequence> = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.clone(), copies)).collect();
        let mut copied = shared.clone();
        for image in copied.iter_mut().flat_map(|sequence| &mut sequence.images) {
            *image = PatchedImage { pixel_values: image.pixel_values.to_vec().into(), grid: image.grid };
        }
        let count = |inputs: &ModelInputs| inputs.images.as_ref().map_or(0, |images| images.grids.len());
        let images: usize = prompts.iter().map(|prompt| prompt.images.len()).sum();
        let (shared, copied) =
            (batch(&model, &shared, Padding::Right, &device), batch(&model, &copied, Padding::Right, &device));
        prop_assert_eq!((count(&shared), count(&copied)), (images, copies * images));
        let (shared, copied) = (values(model.forward(&shared)), values(model.forward(&copied)));
        prop_assert!(distance(&shared, &copied) < TOLERANCE);
    }

    #[test]
    fn a_patch_reaches_its_window_then_its_image_and_no_other(
        sizes in prop::collection::vec((1usize..=6, 1usize..=6), 1..4),
        at in any::<prop::sample::Index>(),
        which in 0..2usize,
    ) {
        let device = Device::flex();
        let model = load(MODELS[which], &device);
        let vision = &model.config().vision;
        prop_assert_eq!(&vision.fullatt_block_indexes, &[1, 3]);
        let image = |&(h, w): &(usize, usize)| Part::Image { h: 2 * h, w: 2 * w, seed: 5 };
        let text = sequence(&sizes.iter().map(image).collect::<Vec<_>>(), model.config());
        let places = places(&text.grids(), vision);
        let changed = at.index(places.len());
        let mut other = text.clone();
        let first: Vec<usize> = text.images.iter().scan(0, |sum, image| {
            let start = *sum;
            *sum += image.grid.patches();
            Some(start)
        }).collect();
        let owner = places[changed].image;
        let mut pixels = text.images[owner].pixel_values.to_vec();
        let own = changed - first[owner];
        pixels[own * vision.patch_len()..(own + 1) * vision.patch_len()].iter_mut().for_each(|x| *x = 1.5 - *x);
        other.images[owner].pixel_values = pixels.into();

        let trace = |sequence: &Sequence| {
            model.trace(&batch(&model, std::slice::from_ref(sequence), Padding::Right, &device)).vision.unwrap()
        };
        let (before, after) = (trace(&text), trace(&other));
        let order = window_order(&places);
        let differs = |block: usize| -> Vec<bool> {
            let (before, after) = (values(before.blocks[block].clone()), values(after.blocks[block].clone()));
            let rows = before.chunks(vision.hidden_size).zip(after.chunks(vision.hidden_size));
            rows.map(|(before, after)| distance(before, after) > 1e-6).collect()
        };
        let expect = |reached: &dyn Fn(&Place) -> bool| -> Vec<bool> {
            order.iter().map(|&patch| reached(&places[patch])).collect()
        };
        prop_assert_eq!(differs(0), expect(&|place| place.window() == places[changed].window()));
        prop_assert_eq!(differs(1), expect(&|place| place.image == owner));
        prop_assert_eq!(differs(3), expect(&|place| place.image == owner));
    }
}

/// Where a patch lies, found from its number alone.
#[derive(Debug, Clone, Copy)]
struct Place {
    image: usize,
    frame: usize,
    y: usize,
    x: usize,
    /// Side of a window in patches.
    side: usize,
}

impl Place {
    fn window(&self) -> (usize, usize, usize, usize) {
        (self.image, self.frame, self.y / self.side, self.x / self.side)
    }
}

/// The places of all patches, in the order in which they lie in `pixel_values`.
fn places(grids: &[GridThw], config: &VisionConfig) -> Vec<Place> {
    let merge = config.spatial_merge_size;
    let side = config.window_size / config.patch_size / merge * merge;
    let mut places = Vec::new();
    for (image, grid) in grids.iter().enumerate() {
        for i in 0..grid.patches() {
            let (group, inner) = (i / (merge * merge), i % (merge * merge));
            let columns = grid.w / merge;
            let line = group / columns;
            let (frame, line) = (line / (grid.h / merge), line % (grid.h / merge));
            let (y, x) = (line * merge + inner / merge, group % columns * merge + inner % merge);
            places.push(Place { image, frame, y, x, side });
        }
    }
    places
}

/// The patches window by window, each window's in image order.
fn window_order(places: &[Place]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|&patch| (places[patch].window(), patch));
    order
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn the_plan_groups_patches_as_their_coordinates_do(
        sizes in prop::collection::vec((1usize..=2, 1usize..=7, 1usize..=7), 1..4),
        merge in 1usize..=3,
        window in 1usize..=5,
        rest in 0usize..14,
    ) {
        let config = VisionConfig::new(1, 8, 8, 1, 8, window * merge * 14 + rest, vec![]).with_spatial_merge_size(merge);
        let grids: Vec<GridThw> = sizes.iter().map(|&(t, h, w)| GridThw { t, h: h * merge, w: w * merge }).collect();
        let plan = WindowPlan::new(&grids, &config);
        let places = places(&grids, &config);
        let unit = merge * merge;
        prop_assert_eq!(patch_positions(&grids, merge), places.iter().map(|p| [p.y, p.x]).collect::<Vec<_>>());

        // Window of every place, as the encoder cuts them, and its image.
        let mut cut = Vec::new();
        let mut windows = 0;
        for run in &plan.runs {
            for _ in 0..run.images {
                let first = cut.len();
                for group in &run.windows {
                    prop_assert_eq!(cut.len() - first, group.start);
                    for _ in 0..group.count {
                        cut.extend(std::iter::repeat_n(windows, group.len));
                        windows += 1;
                    }
                }
                prop_assert_eq!(cut.len() - first, run.patches);
            }
        }
        prop_assert_eq!(cut.len(), places.len());
        let place_of = |patch: usize| plan.inverse[patch / unit] * unit + patch % unit;
        for a in 0..places.len() {
            for b in 0..places.len() {
                let together = cut[place_of(a)] == cut[place_of(b)];
                prop_assert_eq!(together, places[a].window() == places[b].window());
            }
        }
        let order: Vec<usize> = window_order(&places).iter().step_by(unit).map(|patch| patch / unit).collect();
        for (place, &token) in plan.order.iter().enumerate() {
            prop_assert_eq!(plan.inverse[token], place);
            prop_assert_eq!(order[plan.reference_place[place]], token);
        }
        // Full attention takes frames as equal stretches of an image's places.
        let mut start = 0;
        for run in &plan.runs {
            for (i, frame) in (0..run.images * run.patches).map(|i| (start + i, i % run.patches / (run.patches / run.frames))) {
                let patch = plan.order[i / unit] * unit + i % unit;
                prop_assert_eq!(places[patch].frame, frame);
            }
            start += run.images * run.patches;
        }
    }
}

prop_compose! {
    /// Small configurations of every kind: heads, sections, sizes, tied or not.
    fn configs()(
        sections in [1usize..4, 1..4, 1..4],
        (key_heads, group, layers, depth) in (1usize..3, 1usize..4, 1usize..3, 1usize..3),
        (vision_heads, vision_quarter, window) in (1usize..3, 1usize..3, 1usize..4),
        (patch, merge, channels) in (2usize..5, 1usize..3, 1usize..4),
        // As checkpoints have them: a decimal of seventeen digits may be read one unit in the last place off.
        (tied, theta, eps) in (any::<bool>(), prop::sample::select(vec![1e4, 5e5, 1e6]), prop::sample::select(vec![1e-6, 1e-5])),
        (bos, eos) in (prop::option::of(0u32..20), prop::collection::vec(0u32..20, 0..3)),
    ) -> Qwen25VlConfig {
        let hidden = 2 * sections.iter().sum::<usize>() * key_heads * group;
        let text = TextConfig::new(40, hidden, 24, layers, key_heads * group, key_heads, sections)
            .with_rope_theta(theta)
            .with_rms_norm_eps(eps);
        let wide = 4 * vision_quarter * vision_heads;
        let vision = VisionConfig::new(depth, wide, 20, vision_heads, hidden, window * patch * merge, vec![depth - 1])
            .with_patch_size(patch)
            .with_spatial_merge_size(merge)
            .with_in_channels(channels);
        let tokens = VisionTokens { image: 6, video: 7, start: 3, end: 4 };
        Qwen25VlConfig::new(text, vision, tokens, tied).with_bos_token_id(bos).with_eos_token_ids(eos)
    }
}

/// Names of the weight files in a folder, sorted.
fn weight_files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn a_checkpoint_comes_back_as_it_was_written(config in configs(), shard in 1usize..60_000) {
        let device = Device::flex();
        config.validate().unwrap();
        let model = config.init(&device);
        let written = parameters(&model);
        let read = |folder: &Path| Qwen25Vl::from_pretrained(folder, LoadOptions::default(), &device).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (stored, rounded) in [
            (WeightType::F32, None),
            (WeightType::Bf16, Some((|x| bf16::from_f32(x).to_f32()) as fn(f32) -> f32)),
            (WeightType::F16, Some((|x| f16::from_f32(x).to_f32()) as fn(f32) -> f32)),
        ] {
            // In shards first, then in one file over them: nothing of the first may stay.
            for max_shard_bytes in [shard, usize::MAX] {
                model.save_pretrained(folder.path(), SaveOptions { stored, max_shard_bytes }).unwrap();
                let again = read(folder.path());
                prop_assert_eq!(again.config(), &config);
                let found = parameters(&again);
                prop_assert_eq!(found.len(), written.len());
                for (name, values) in &written {
                    let expected = values.iter().map(|&x| rounded.map_or(x, |rounded| rounded(x)).to_bits());
                    prop_assert!(found[name].iter().map(|x| x.to_bits()).eq(expected), "{}", name);
                }
                let files = weight_files(folder.path());
                let indexed = folder.path().join("model.safetensors.index.json").exists();
                prop_assert_eq!(indexed, files.len() > 1);
                if max_shard_bytes == usize::MAX {
                    prop_assert_eq!(&files, &["model.safetensors"]);
                }
                let mut tensors = 0;
                for file in files {
                    let bytes = std::fs::read(folder.path().join(file)).unwrap();
                    let shard = SafeTensors::deserialize(&bytes).unwrap();
                    let size: usize = shard.tensors().iter().map(|(_, tensor)| tensor.data().len()).sum();
                    prop_assert!(shard.len() == 1 || size <= max_shard_bytes);
                    tensors += shard.len();
                }
                prop_assert_eq!(tensors, written.len());
            }
        }
    }
}

#[test]
fn a_checkpoint_read_back_answers_the_same_bit_for_bit() {
    let device = Device::flex();
    for name in MODELS {
        let model = load(name, &device);
        let parts = [Part::Text(vec![20, 30]), Part::Image { h: 4, w: 6, seed: 1 }, Part::Text(vec![50])];
        let inputs = batch(&model, &[sequence(&parts, model.config())], Padding::Right, &device);
        let expected = values(model.forward(&inputs));
        let folder = tempfile::tempdir().unwrap();
        let options = SaveOptions { max_shard_bytes: 50_000, ..Default::default() };
        model.save_pretrained(folder.path(), options).unwrap();
        assert!(weight_files(folder.path()).len() > 3);
        let again = Qwen25Vl::from_pretrained(folder.path(), LoadOptions::default(), &device).unwrap();
        assert_eq!(values(again.forward(&inputs)), expected);
    }
}

/// Which parameters got a gradient: `None`, or the largest magnitude in it.
struct Graded<'a> {
    gradients: &'a Gradients,
    found: HashMap<ParamId, Option<f32>>,
}

impl ModuleVisitor for Graded<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let largest = param.val().grad(self.gradients).map(|gradient| {
            let gradient = values(gradient);
            distance(&gradient, &vec![0.0; gradient.len()])
        });
        self.found.insert(param.id, largest);
    }
}

#[test]
fn frozen_parts_get_no_gradient_and_all_others_one() {
    let device = Device::flex().autodiff();
    for (name, bits) in MODELS.into_iter().flat_map(|name| (1..8).map(move |bits| (name, bits))) {
        let parts = TrainableParts { vision: bits & 1 != 0, projector: bits & 2 != 0, decoder: bits & 4 != 0 };
        let model = load(name, &device).with_trainable(parts);
        // Left padding in a batch in training: hidden rows are finite forth and back.
        let long = [Part::Text((20..30).collect()), Part::Image { h: 6, w: 8, seed: 1 }, Part::Text(vec![50])];
        let rows = sequences(&[long.to_vec(), vec![Part::Text(vec![9])]], model.config());
        let hidden = model.forward(&batch(&model, &rows, Padding::Left, &device));
        let [rows, seq, width] = hidden.dims();
        let loss = model.logits(hidden.reshape([rows * seq, width])).powi_scalar(2).mean();
        let gradients = loss.backward();
        let mut graded = Graded { gradients: &gradients, found: HashMap::new() };
        model.visit(&mut graded);
        for parameter in model.named_parameters() {
            let trained = match parameter.name.as_str() {
                name if name.starts_with("visual.merger.") => parts.projector,
                name if name.starts_with("visual.") => parts.vision,
                _ => parts.decoder,
            };
            assert_eq!(parameter.trainable, trained, "{} {parts:?}", parameter.name);
            match graded.found[&parameter.id] {
                None => assert!(!trained, "{} {parts:?}: no gradient", parameter.name),
                Some(largest) => {
                    assert!(trained, "{} {parts:?}: a gradient", parameter.name);
                    assert!(largest > 0.0 && largest.is_finite(), "{} {parts:?}: {largest}", parameter.name);
                }
            }
        }
    }
}
