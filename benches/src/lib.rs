//! The work that the benchmarks time, with the 173 M parameter configuration of the reference script.
//!
//! Weights are random, since speed does not depend on them. Images are 448×448; prompts have 512 tokens, 256 of them image.

pub mod counting;
pub mod log_probabilities;
pub mod rollouts;
pub mod sized;

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use fieldmark::{
    model::{
        GridThw, ImageInputs, KvCache, ModelInputs, Padding, Qwen25Vl, Qwen25VlConfig, TextConfig, VisionConfig,
        VisionTokens,
    },
    processor::{PatchedImage, Sequence, SupervisedSequence, collate},
    stream::{RandomStream, StreamKey},
    train::{
        gradient::{
            BatchSize, GradientSum, LossNorm, ResponseRows, Scorer, TokenPacking, TrunkSettings, token_logprobs,
        },
        optim::{AdamWSettings, LrSchedule, LrShape},
        parallel::Replicas,
        params::initialise,
        sft::sft_gradients,
        tapo::{TapoInputs, TapoLossConfig, tapo_loss},
        trainer::Updater,
    },
};

/// Tokens of a prompt or training sequence.
pub const TOKENS: usize = 512;
/// Tokens of the response in a training sequence.
pub const RESPONSE: usize = 212;
/// Tokens of each response of a group.
pub const GROUP_RESPONSE: usize = 64;

/// The 173 M parameter configuration: a decoder of 12 blocks, 768 wide, and an encoder of 12 blocks, 512 wide.
pub fn config() -> Qwen25VlConfig {
    let text = TextConfig::new(32_000, 768, 3072, 12, 12, 2, [8, 12, 12]).with_max_position_embeddings(4096);
    let vision = VisionConfig::new(12, 512, 1536, 8, 768, 112, vec![5, 11]);
    Qwen25VlConfig::new(text, vision, VisionTokens::new(31_990, 31_991, 31_992, 31_993), true)
}

/// A configuration of 30 M parameters with the same vocabulary: a decoder of 6 blocks, 384 wide, and an encoder of 6
/// blocks, 320 wide.
pub fn small_config() -> Qwen25VlConfig {
    let text = TextConfig::new(32_000, 384, 1536, 6, 6, 2, [8, 12, 12]).with_max_position_embeddings(4096);
    let vision = VisionConfig::new(6, 320, 960, 5, 384, 112, vec![2, 5]);
    Qwen25VlConfig::new(text, vision, VisionTokens::new(31_990, 31_991, 31_992, 31_993), true)
}

/// A model of [`config`] with random weights.
pub fn model(device: &Device) -> Qwen25Vl {
    initialise(config().init(device), 0.02, &StreamKey::new(0))
}

/// Uniform random numbers in −1.7..1.7, which have a standard deviation of 1.
fn noise(count: usize, name: &str) -> Vec<f32> {
    let mut stream = RandomStream::new(0, &["bench", name]);
    (0..count).map(|_| stream.uniform_in(-1.732, 1.732) as f32).collect()
}

/// One 448×448 image as patches.
pub fn image(name: &str) -> PatchedImage {
    PatchedImage { pixel_values: noise(1024 * 1176, name).into(), grid: GridThw::image(32, 32) }
}

/// A sequence of [`TOKENS`] tokens that starts with `image`; `name` seeds its text.
pub fn sequence(name: &str, image: &PatchedImage) -> Sequence {
    sequence_of(name, image, TOKENS)
}

fn sequence_of(name: &str, image: &PatchedImage, length: usize) -> Sequence {
    let tokens = config().vision_tokens;
    let mut stream = RandomStream::new(0, &["bench", "text", name]);
    let mut ids = vec![tokens.start];
    ids.extend(std::iter::repeat_n(tokens.image, 256));
    ids.push(tokens.end);
    while ids.len() < length {
        ids.push(stream.below(30_000) as u32);
    }
    Sequence { name: name.into(), ids, images: vec![image.clone()] }
}

/// The input of the encoder for one image.
pub fn vision_input(device: &Device) -> ImageInputs {
    let image = image("image");
    let data = burn::tensor::TensorData::new(image.pixel_values.to_vec(), [1024, 1176]);
    ImageInputs { pixel_values: Tensor::from_data(data, device), grids: vec![image.grid] }
}

/// A batch of `batch` different prompts, each with its own copy of an image.
pub fn prompts(batch: usize, device: &Device) -> ModelInputs {
    let sequences: Vec<Sequence> =
        (0..batch).map(|i| sequence(&format!("prompt {i}"), &image(&format!("image {i}")))).collect();
    collate(&sequences, Padding::Left, 0, None, &config(), device).expect("the sequences fit the configuration")
}

/// Prefills `inputs`; each call of the returned closure is one decoding step.
pub fn decoder<'a>(model: &'a Qwen25Vl, inputs: &ModelInputs, device: &'a Device) -> impl FnMut() + 'a {
    let mut cache = KvCache::new(model.config().text.num_hidden_layers, 0);
    model.prefill(inputs, &mut cache);
    let (batch, width) = (inputs.dims()[0], model.config().text.hidden_size);
    let (mut positions, mut rows) = (inputs.next_position.clone(), inputs.rows.clone());
    move || {
        rows.iter_mut().for_each(|row| row.end += 1);
        let hidden = model.decode(&vec![7; batch], &positions, &rows, &mut cache, device);
        positions.iter_mut().for_each(|position| *position += 1);
        let logits = model.logits(hidden.reshape([batch, width]));
        std::hint::black_box(logits.into_data());
    }
}

/// `batch` training sequences of `length` tokens, of which the last [`RESPONSE`] are in the loss.
pub fn samples(batch: usize, length: usize, picture: &str) -> Vec<SupervisedSequence> {
    (0..batch)
        .map(|i| {
            let sequence = sequence_of(&format!("sample {i}"), &image(&format!("{picture} {i}")), length);
            let target_mask = (0..length).map(|t| t >= length - RESPONSE).collect();
            SupervisedSequence { sequence, target_mask }
        })
        .collect()
}

/// `batch` responses of [`TOKENS`] tokens in all, then the same with other images.
fn pairs(batch: usize) -> Vec<SupervisedSequence> {
    [samples(batch, TOKENS, "image"), samples(batch, TOKENS, "negative")].concat()
}

/// A group of `responses` of [`GROUP_RESPONSE`] tokens to one prompt of [`TOKENS`], then the same with the negative's image.
fn group(responses: usize) -> Vec<SupervisedSequence> {
    let answered = |picture: &str| -> Vec<SupervisedSequence> {
        let prompt = sequence("prompt", &image(picture));
        let answers = (0..responses).map(|i| {
            let mut stream = RandomStream::new(0, &["bench", "response", &i.to_string()]);
            let ids: Vec<u32> = (0..GROUP_RESPONSE).map(|_| stream.below(30_000) as u32).collect();
            let target_mask = (0..TOKENS + GROUP_RESPONSE).map(|t| t >= TOKENS).collect();
            SupervisedSequence { sequence: prompt.with_response(&ids), target_mask }
        });
        answers.collect()
    };
    [answered("image"), answered("negative")].concat()
}

/// A model in training.
pub struct Trainer {
    model: Option<Qwen25Vl>,
    updater: Updater,
    scorer: Scorer,
    device: Device,
}

impl Trainer {
    /// All parts trainable, AdamW, gradient norm clipped at 1.
    pub fn new(device: &Device) -> Self {
        Self::of(config(), device)
    }

    /// A trainer of a model with this configuration.
    pub fn of(config: Qwen25VlConfig, device: &Device) -> Self {
        let device = device.clone().autodiff();
        Self::training(initialise(config.init(&device), 0.02, &StreamKey::new(0)), device)
    }

    /// A trainer of `model`, whose device has autodiff.
    fn training(model: Qwen25Vl, device: Device) -> Self {
        let schedule = LrSchedule { lr: 1e-5, shape: LrShape::Constant, warmup: 0, released: false };
        Self {
            updater: Updater::new(&model, AdamWSettings::default(), schedule, 1.0, 1000).expect("valid settings"),
            scorer: Scorer::new(1024, 1.0, 0).expect("valid settings"),
            model: Some(model),
            device,
        }
    }

    /// Sets the learning rate.
    pub fn with_rate(mut self, lr: f64) -> Self {
        let schedule = LrSchedule { lr, shape: LrShape::Constant, warmup: 0, released: false };
        let model = self.model.as_ref().expect("a model");
        self.updater = Updater::new(model, AdamWSettings::default(), schedule, 1.0, 1000).expect("valid settings");
        self
    }

    /// Sets how much memory is traded for time.
    pub fn with_trunk(mut self, trunk: TrunkSettings) -> Self {
        self.scorer = self.scorer.with_trunk(trunk);
        self
    }

    /// One SFT update of `batch` sequences in one micro-batch. Returns the loss.
    pub fn sft(&mut self, batch: usize) -> f64 {
        self.sft_of(batch, TOKENS)
    }

    /// One SFT update of `batch` sequences of `length` tokens in one micro-batch. Returns the loss.
    pub fn sft_of(&mut self, batch: usize, length: usize) -> f64 {
        self.sft_on(samples(batch, length, "image"))
    }

    /// One SFT update of `samples` in one micro-batch. Returns the loss.
    fn sft_on(&mut self, samples: Vec<SupervisedSequence>) -> f64 {
        let model = self.model.take().expect("a model");
        let micro = [self.scorer.micro_batch(samples).expect("targets")];
        let found = sft_gradients(&model, &self.scorer, &micro, LossNorm::Batch, &Replicas::new(1, &self.device))
            .expect("the batch fits");
        self.model = Some(self.updater.step(model, found.loss, found.grads).0);
        found.loss
    }

    /// One SFT update with the whole network on one tape, as Burn's autodiff alone would run it.
    pub fn sft_on_one_tape(&mut self, batch: usize, length: usize) -> f64 {
        let model = self.model.take().expect("a model");
        let samples = samples(batch, length, "image");
        let sequences: Vec<Sequence> = samples.iter().map(|sample| sample.sequence.clone()).collect();
        let inputs = collate(&sequences, Padding::Right, 0, None, model.config(), &self.device).expect("it fits");
        let ids: Vec<Vec<u32>> = sequences.iter().map(|sequence| sequence.ids.clone()).collect();
        let masks: Vec<Vec<bool>> = samples.into_iter().map(|sample| sample.target_mask).collect();
        let packing = TokenPacking::new(&ids, &masks).expect("targets");
        let (states, targets) = (packing.gather(model.forward(&inputs)), packing.targets(&self.device));
        let loss = token_logprobs(model.logits(states), targets, 1.0).mean().neg();
        let value = loss.clone().into_scalar();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        self.model = Some(self.updater.step(model, value, grads).0);
        value
    }

    /// One TAPO update of `batch` responses in one micro-batch, with a gradient through the negative image. Each response
    /// has a prompt of its own.
    pub fn tapo(&mut self, batch: usize) -> f64 {
        self.tapo_on(pairs(batch), RESPONSE)
    }

    /// One TAPO update of a group in one packed micro-batch: `responses` of [`GROUP_RESPONSE`] tokens to one prompt, with a
    /// gradient through the negative image.
    pub fn tapo_group(&mut self, responses: usize) -> f64 {
        let scorer = self.scorer;
        self.scorer = scorer.with_packing(true);
        let loss = self.tapo_on(group(responses), GROUP_RESPONSE);
        self.scorer = scorer;
        loss
    }

    /// One TAPO update of responses of `response` tokens, followed by the same with their negative images, in one
    /// micro-batch.
    fn tapo_on(&mut self, both: Vec<SupervisedSequence>, response: usize) -> f64 {
        let model = self.model.take().expect("a model");
        let batch = both.len() / 2;
        let micro = self.scorer.micro_batch(both).expect("targets");
        let scored = self.scorer.forward(&model, &micro, &self.device).expect("the batch fits");
        let rows = ResponseRows::new(std::iter::repeat_n(response, batch));
        let logp_n = scored.logp_n.clone().inner().autodiff().require_grad();
        let logp_bt = rows.unpack(logp_n.clone().narrow(0, 0, rows.tokens()));
        let size = BatchSize { tokens: batch * response, sequences: batch };
        let loss = tapo_loss(
            TapoInputs {
                old_logp_bt: logp_bt.clone().detach(),
                logp_bt,
                sampler_logp_bt: None,
                neg_logp_bt: Some(rows.unpack(logp_n.clone().narrow(0, rows.tokens(), rows.tokens()))),
                ref_logp_bt: None,
                advantages_bt: Tensor::ones([batch, response], &self.device),
                mask_bt: rows.mask(&self.device),
                policy_tokens: None,
            },
            &TapoLossConfig::default(),
            &LossNorm::Batch.normaliser(size, size, 1),
        );
        let grads = loss.total.backward();
        let mut sum = GradientSum::new();
        self.scorer.backward(&model, scored, logp_n.grad(&grads).expect("a gradient"), &mut sum);
        self.model = Some(self.updater.step(model, loss.parts.loss, sum.into_grads()).0);
        loss.parts.loss
    }

    /// The model for generation.
    pub fn valid(&self) -> Qwen25Vl {
        self.model.as_ref().expect("a model").valid()
    }
}
