//! The work that is timed on a card: models of three sizes with random weights, on any device, in f32 or bf16.
//!
//! Every size has the image tokens of the small models, so that one set of prompts serves all. `peers/sized.py` does the same
//! work with the reference, under the same names.

use std::{process::ExitCode, time::Instant};

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Device, Distribution, FloatDType, Tensor},
};
use fieldmark::{
    device,
    model::{Qwen25Vl, Qwen25VlConfig, WeightType},
    plan::published,
    train::gradient::TrunkSettings,
};

use crate::{Trainer, config, decoder, image, prompts, rollouts, samples, sequence, small_config};

/// What is run and where.
struct Sized {
    device: Device,
    config: Qwen25VlConfig,
    dtype: FloatDType,
    /// Parts of the names of the work, or whole names after `=`; none means all.
    wanted: Vec<String>,
    /// How often each piece of work is timed; `None` leaves that to the work.
    times: Option<usize>,
}

/// Times the work that the arguments choose, if they name a device, a size, a number format or a number of layers or runs.
pub fn run(arguments: &[String]) -> Option<ExitCode> {
    arguments.iter().any(|argument| argument.starts_with("--")).then(|| match Sized::read(arguments) {
        Ok(sized) => {
            sized.time_all();
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    })
}

/// The configuration of a size: the two small models, or the published 3B checkpoint.
fn size(name: &str) -> Result<Qwen25VlConfig, String> {
    match name.to_ascii_lowercase().as_str() {
        "30m" => Ok(small_config()),
        "173m" => Ok(config()),
        "3b" => {
            let mut config = published("Qwen2.5-VL-3B".as_ref()).ok_or("the shape of 3B is unknown")?;
            config.vision_tokens = small_config().vision_tokens;
            Ok(config)
        }
        _ => Err(format!("`--size {name}`: the sizes are 30M, 173M and 3B")),
    }
}

/// Cuts decoder and encoder to `layers` blocks; the last of the encoder then sees the whole image.
fn cut(mut config: Qwen25VlConfig, layers: usize) -> Qwen25VlConfig {
    config.text.num_hidden_layers = config.text.num_hidden_layers.min(layers);
    config.vision.depth = config.vision.depth.min(layers);
    let depth = config.vision.depth;
    config.vision.fullatt_block_indexes.retain(|block| *block < depth);
    if config.vision.fullatt_block_indexes.is_empty() {
        config.vision.fullatt_block_indexes.push(depth - 1);
    }
    config
}

fn count(argument: &str, value: &str) -> Result<usize, String> {
    let count = value.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| format!("`{argument} {value}`: must be a whole number above 0"))
}

impl Sized {
    fn read(arguments: &[String]) -> Result<Self, String> {
        let (mut named, mut config, mut dtype) = ("flex", size("173M")?, WeightType::F32);
        let (mut layers, mut times, mut wanted) = (None, None, Vec::new());
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if !argument.starts_with("--") {
                wanted.push(argument.clone());
                continue;
            }
            let value = rest.next().ok_or_else(|| format!("`{argument}` needs a value"))?;
            match argument.as_str() {
                "--device" => named = value,
                "--size" => config = size(value)?,
                "--dtype" => dtype = value.parse().map_err(|error| format!("`--dtype`: {error}"))?,
                "--layers" => layers = Some(count(argument, value)?),
                "--times" => times = Some(count(argument, value)?),
                _ => {
                    let known = "--device, --size, --dtype, --layers and --times";
                    return Err(format!("`{argument}` is unknown; there are {known}"));
                }
            }
        }
        let device = device::open(named).map_err(|error| error.to_string())?.device;
        let dtype = dtype.float_dtype();
        if !device.supports_dtype(dtype) {
            return Err(format!("device `{named}` does not compute in {dtype:?}"));
        }
        let config = layers.map_or(config.clone(), |layers| cut(config, layers));
        Ok(Self { device, config, dtype, wanted, times })
    }

    fn chosen(&self, name: &str) -> bool {
        self.wanted.is_empty()
            || self.wanted.iter().any(|part| match part.strip_prefix('=') {
                Some(whole) => name == whole,
                None => name.contains(part.as_str()),
            })
    }

    fn model(&self, device: &Device) -> Qwen25Vl {
        self.config.init(device).map(&mut RandomWeights(self.dtype))
    }

    fn trainer(&self) -> Trainer {
        let device = self.device.clone().autodiff();
        let trainer = Trainer::training(self.model(&device), device);
        trainer.with_trunk(TrunkSettings { recompute: true, query_chunk: 0 })
    }

    /// Runs `work` once to warm up, then `times` times unless the arguments say how often, and prints the best time. The
    /// clock stops when the device is done.
    fn best(&self, name: &str, times: usize, mut work: impl FnMut()) {
        let mut once = || {
            let start = Instant::now();
            work();
            self.device.sync().expect("the device finishes its work");
            1e3 * start.elapsed().as_secs_f64()
        };
        once();
        let fastest = (0..self.times.unwrap_or(times)).map(|_| once()).fold(f64::INFINITY, f64::min);
        println!("{name}\t{fastest:.2}");
    }

    fn time_all(&self) {
        self.inference();
        let name = "SFT step, 4 x 512, recompute";
        if self.chosen(name) {
            let (mut trainer, samples) = (self.trainer(), samples(4, crate::TOKENS, "image"));
            self.best(name, 3, || assert_finite(trainer.sft_on(samples.clone())));
        }
        let name = "TAPO update, group of 10, prompt 512, responses 64, recompute";
        if self.chosen(name) {
            let mut trainer = self.trainer();
            self.best(name, 3, || assert_finite(trainer.tapo_group(rollouts::GROUP as usize)));
        }
    }

    fn inference(&self) {
        let decoding = [1, 10, 64].map(|batch| (batch, format!("decode step, batch {batch}")));
        let (prefill, group, step) =
            ("prefill 512", "10 rollouts of 65 tokens", "80 rollouts of 64 tokens on 8 prompts");
        let names = [prefill, group, step].into_iter().chain(decoding.iter().map(|(_, name)| name.as_str()));
        if !names.into_iter().any(|name| self.chosen(name)) {
            return;
        }
        let (device, network) = (&self.device, self.model(&self.device));
        if self.chosen(prefill) {
            let (inputs, width) = (prompts(1, device), network.config().text.hidden_size);
            self.best(prefill, 5, || {
                let hidden = network.forward(&inputs).narrow(1, crate::TOKENS - 1, 1).reshape([1, width]);
                drop(network.logits(hidden).into_data());
            });
        }
        for (batch, name) in decoding {
            if self.chosen(&name) {
                let mut next = decoder(&network, &prompts(batch, device), device);
                self.best(&name, 20, &mut next);
            }
        }
        for (name, count, tokens) in [(group, 1, 65), (step, 8, 64)] {
            if self.chosen(name) {
                let prompt = |i: usize| sequence(&format!("prompt {i}"), &image(&format!("image {i}")));
                let prompts: Vec<_> = (0..count).map(prompt).collect();
                self.best(name, 2, || {
                    let settings = rollouts::settings(tokens, Vec::new(), 1.0);
                    let found = rollouts::sample(&network, &prompts, settings, device);
                    assert_eq!(found, count * tokens * rollouts::GROUP as usize);
                });
            }
        }
    }
}

/// A time means nothing if what it computed is not a number.
fn assert_finite(loss: f64) {
    assert!(loss.is_finite(), "the loss is {loss}");
}

/// Draws every parameter on the device itself, one after another: a model of billions is there in seconds.
struct RandomWeights(FloatDType);

impl ModuleMapper for RandomWeights {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (shape, device, id) = (param.lazy_shape(), param.lazy_device(), param.id);
        let tensor = match D {
            // Scales of norms, and biases, which may be as large for all that their speed depends on it.
            1 => Tensor::<D>::ones(shape, &device),
            _ => Tensor::random(shape, Distribution::Normal(0.0, 0.02), &device),
        };
        param.transform_for_load(tensor.cast(self.0), id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Sized, String> {
        Sized::read(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_shape_of_3b_can_be_cut() {
        let whole = read(&["--size", "3b", "prefill"]).unwrap();
        assert_eq!((whole.config.text.num_hidden_layers, whole.config.vision.depth), (36, 32));
        assert!(whole.chosen("prefill 512") && !whole.chosen("decode step, batch 1"));
        let exact = read(&["--size", "30M", "=decode step, batch 1"]).unwrap();
        assert!(exact.chosen("decode step, batch 1") && !exact.chosen("decode step, batch 10"));
        let cut = read(&["--size", "3B", "--layers", "1", "--dtype", "bf16"]).unwrap();
        assert_eq!((cut.config.text.num_hidden_layers, cut.config.vision.depth), (1, 1));
        assert_eq!((cut.config.vision.fullatt_block_indexes.as_slice(), cut.dtype), (&[0][..], FloatDType::BF16));
        cut.config.validate().unwrap();
    }

    #[test]
    fn work_is_timed_as_often_as_asked() {
        for (arguments, expected) in [(&["--size", "30M"][..], 3), (&["--size", "30M", "--times", "1"], 1)] {
            let mut runs = 0;
            read(arguments).unwrap().best("work", 3, || runs += 1);
            assert_eq!(runs, 1 + expected, "{arguments:?}");
        }
    }

    #[test]
    fn arguments_that_are_wrong_are_named() {
        for (arguments, wrong) in [
            (&["--size", "4B"][..], "4B"),
            (&["--layers", "0"], "--layers"),
            (&["--times", "none"], "--times"),
            (&["--dtype", "f8"], "--dtype"),
            (&["--device", "flx"], "flx"),
            (&["--sizes", "3B"], "--sizes"),
            (&["--size"], "--size"),
        ] {
            let Err(problem) = read(arguments) else { panic!("{arguments:?}") };
            assert!(problem.contains(wrong), "{problem}");
        }
    }
}
