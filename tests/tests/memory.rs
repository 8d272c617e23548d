//! What `fieldmark plan` says against every byte that training allocates on the CPU. One test in a process of its own: the
//! allocator counts for all threads.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Device, FloatDType, Tensor},
};
use fieldmark::{
    model::{
        GridThw, LoraSettings, Quantize, Qwen25Vl, Qwen25VlConfig, TextConfig, TrainableParts, VisionConfig,
        VisionTokens, WeightType,
    },
    plan::{Planned, Stage},
    processor::{Sequence, SupervisedSequence},
    recipe::Recipe,
    stream::StreamKey,
    train::{
        Trainer,
        optim::{HalfWeights, Moments},
        params::{initialise, initialise_adapters},
        reward::RewardRegistry,
        sft::{SftConfig, train_sft},
        tapo::{
            TapoConfig, TapoTrainer,
            rollout::{GroupFilter, TripletPrompt},
        },
    },
};
use fieldmark_tests::{
    prompts::{Part, sequence},
    training::{Rows, word_tokenizer},
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Patches of an image's side, and tokens of a prompt.
const SIDE: usize = 16;
const PROMPT: usize = 96;

fn config() -> Qwen25VlConfig {
    let text = TextConfig::new(3000, 128, 384, 6, 4, 2, [4, 6, 6]).with_max_position_embeddings(1024);
    let vision = VisionConfig::new(4, 64, 128, 4, 128, 112, vec![1, 3]);
    Qwen25VlConfig::new(text, vision, VisionTokens::new(4, 5, 6, 7), true)
}

/// A sequence of `tokens` tokens that begins with `images` images.
fn about_images(images: usize, tokens: usize, seed: u64) -> Sequence {
    let image = GridThw::image(SIDE, SIDE).tokens(2) + 2;
    let text = Part::Text((0..tokens - images * image).map(|i| 8 + i as u32 % 300).collect());
    let images = (0..images as u64).map(|i| Part::Image { h: SIDE, w: SIDE, seed: 100 * i + seed });
    sequence(&images.chain([text]).collect::<Vec<_>>(), &config())
}

/// The most bytes that `work` has alive beside those there before.
fn peak_of(work: impl FnOnce(&Device)) -> f64 {
    let device = Device::flex().autodiff();
    let before = PeakAlloc.current_usage();
    PeakAlloc.reset_peak_usage();
    work(&device);
    (PeakAlloc.peak_usage() - before) as f64
}

/// A model of the recipe's number format.
fn fresh(recipe: &Recipe, device: &Device) -> Qwen25Vl {
    initialise(config().init(device), 0.02, &StreamKey::new(0)).map(&mut Cast(recipe.model.dtype.float_dtype()))
}

struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0).detach())
    }
}

fn sft(recipe: &Recipe, images: usize) -> f64 {
    let tokens = recipe.data.sft.max_tokens;
    let image = GridThw::image(SIDE, SIDE).tokens(2) + 2;
    let sample = |seed| SupervisedSequence {
        sequence: about_images(images, tokens, seed),
        target_mask: (0..tokens).map(|token| token >= images * image).collect(),
    };
    let samples = Rows((0..recipe.sft.batch as u64).map(sample).collect());
    peak_of(|device| {
        let model = fresh(recipe, device);
        let model = model.with_lora(&recipe.lora, recipe.sft.train).unwrap();
        let model = initialise_adapters(model, &StreamKey::new(0));
        train_sft(model, &samples, &recipe.sft, 0, &StreamKey::new(0), device, |_, _| Ok(())).unwrap();
    })
}

fn tapo(recipe: &Recipe) -> f64 {
    let rows = (0..recipe.tapo.prompts_per_step as u64).map(|row| {
        let image = |i| about_images(1, PROMPT, 3 * row + i);
        let (positive, negative) = (Some(image(1)), Some(image(2)));
        TripletPrompt { anchor: image(0), positive, negative, truth: "t9".into(), aliases: Vec::new() }
    });
    let triplets = Rows(rows.collect());
    let tokenizer = word_tokenizer();
    let rewards = RewardRegistry::standard(&recipe.tapo);
    peak_of(|device| {
        let model = fresh(recipe, device);
        let trainer = TapoTrainer::new(
            &model,
            &triplets,
            &tokenizer,
            vec![2],
            recipe.tapo.clone(),
            &rewards,
            StreamKey::new(0),
            device,
        );
        trainer.unwrap().with_steps(2).train(model, |_| Ok(())).unwrap();
    })
}

fn recipe() -> Recipe {
    let mut recipe = Recipe { device: Some("flex".into()), ..Recipe::default() };
    recipe.data.sft.max_tokens = 256;
    recipe.data.tapo.max_tokens = PROMPT;
    for sizes in [&mut recipe.data.sft.sizes, &mut recipe.data.tapo.sizes] {
        sizes.max_pixels = (SIDE * 14) * (SIDE * 14);
    }
    recipe.sft =
        SftConfig { epochs: 2, batch: 4, micro_batch: 2, query_chunk: 64, logit_chunk: 64, ..SftConfig::default() };
    recipe.tapo = TapoConfig {
        prompts_per_step: 2,
        chunk: 2,
        max_tries: 1,
        anchor_rollouts: 2,
        positive_rollouts: 2,
        max_new_tokens: 64,
        generation_batch: 8,
        filter: GroupFilter { low: -1.0, high: 2.0, ..GroupFilter::default() },
        batch: 4,
        micro_batch: 2,
        query_chunk: 64,
        logit_chunk: 64,
        ..TapoConfig::default()
    };
    recipe
}

#[test]
fn plans_are_what_runs_take() {
    let keeping = |recompute, packing| {
        let mut recipe = recipe();
        (recipe.sft.recompute, recipe.tapo.recompute) = (recompute, recompute);
        (recipe.sft.packing, recipe.tapo.packing) = (packing, packing);
        recipe
    };
    let mut long = keeping(true, true);
    (long.data.sft.max_tokens, long.sft.query_chunk) = (512, 0);
    long.sft.train = TrainableParts { vision: true, projector: true, decoder: true };
    let lora = |quantize| {
        let mut recipe = keeping(true, true);
        recipe.lora = LoraSettings { rank: 8, quantize, ..LoraSettings::default() };
        recipe
    };
    let mut kept = lora(Quantize::None);
    kept.sft.recompute = false;
    let half = |half, moments, recompute| {
        let mut recipe = keeping(recompute, true);
        recipe.model.dtype = WeightType::Bf16;
        (recipe.sft.adamw.half, recipe.tapo.adamw.half) = (half, half);
        (recipe.sft.adamw.moments, recipe.tapo.adamw.moments) = (moments, moments);
        recipe
    };
    let mut short = half(HalfWeights::Master, Moments::F32, true);
    (short.data.sft.max_tokens, short.sft.micro_batch, short.sft.logit_chunk) = (72, 1, 8);
    let mut several = keeping(true, true);
    several.sft.train = TrainableParts { vision: true, projector: true, decoder: true };
    let whole = |recompute| {
        let mut recipe = keeping(recompute, true);
        // Two micro-batches an update: the sum of gradients is whole from the second on.
        (recipe.tapo.micro_batch, recipe.tapo.batch) = (4, 8);
        recipe
    };
    let cases = [
        ("SFT in bf16 of short sequences, where the optimiser takes most", short, Stage::Sft, 1),
        ("SFT in bf16 with exact weights", half(HalfWeights::Master, Moments::F32, true), Stage::Sft, 1),
        (
            "SFT in bf16 with exact weights, every tape kept",
            half(HalfWeights::Master, Moments::F32, false),
            Stage::Sft,
            1,
        ),
        ("SFT in bf16 with Kahan's sum", half(HalfWeights::Kahan, Moments::Bf16, true), Stage::Sft, 1),
        ("TAPO in bf16 with Kahan's sum", half(HalfWeights::Kahan, Moments::Bf16, true), Stage::Tapo, 1),
        (
            "TAPO in bf16 with Kahan's sum, every tape kept",
            half(HalfWeights::Kahan, Moments::Bf16, false),
            Stage::Tapo,
            1,
        ),
        ("SFT of adapters", lora(Quantize::None), Stage::Sft, 1),
        ("SFT of adapters, every tape kept", kept, Stage::Sft, 1),
        ("SFT of adapters on quantised weights", lora(Quantize::Q8), Stage::Sft, 1),
        ("SFT of the decoder, every tape kept, padded", keeping(false, false), Stage::Sft, 1),
        ("SFT of all parts, blocks run again, all scores at once", long, Stage::Sft, 1),
        ("SFT of three images a conversation", several, Stage::Sft, 3),
        ("TAPO, every tape kept, packed", keeping(false, true), Stage::Tapo, 1),
        ("TAPO of whole groups, every tape kept, packed", whole(false), Stage::Tapo, 1),
        ("TAPO of whole groups, blocks run again", whole(true), Stage::Tapo, 1),
    ];
    // What a first run leaves behind for ever, such as the threads' own buffers, is not the second one's.
    sft(&recipe(), 1);
    for (name, recipe, stage, images) in cases {
        let measured = match stage {
            Stage::Sft => sft(&recipe, images),
            Stage::Tapo => tapo(&recipe),
        };
        let plan = Planned { config: config(), stage, tokens: None, images, text_encoder: None }.memory(&recipe);
        let ratio = plan.peak() as f64 / measured;
        println!("{name}: planned {:.2} MB, measured {:.2} MB, {ratio:.3}", plan.peak() as f64 / 1e6, measured / 1e6);
        // A plan may be 15 percent off; here it is closer, and a tensor that is forgotten shows.
        let allowed = if recipe.lora.is_on() { 0.12 } else { 0.08 };
        assert!((ratio - 1.0).abs() < allowed, "{name}: {ratio} of {measured} bytes; {plan:?}");
    }
}
