//! The cost of an adapter on one linear layer and 512 tokens, forward and backward. Burn's `apply_lora` adds A·B to W at each
//! use; ours multiplies by A and then by B. Full training of the layer is there for comparison.
//!
//! `cargo run --release -p fieldmark-benches --bin lora`. Memory is the peak of a step beyond what is allocated before it.

use std::time::Instant;

use burn::{
    module::{Lora, Module},
    nn::{Linear, LinearConfig},
    optim::GradientsParams,
    tensor::{Device, Distribution, Tensor},
};
use fieldmark::model::{LoraSettings, Projection, Quantize};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const TOKENS: usize = 512;
const RANK: usize = 16;
const TIMES: usize = 15;

fn measure<M: Module>(name: &str, width: usize, layer: &M, forward: impl Fn(Tensor<2>) -> Tensor<2>, device: &Device) {
    let input = Tensor::<2>::random([TOKENS, width], Distribution::Default, device).detach();
    let step = || {
        let x = input.clone().require_grad();
        let y = forward(x.clone());
        let mut grads = (y.clone() * y.detach()).sum().backward();
        let found = GradientsParams::from_module(&mut grads, layer);
        assert!(x.grad(&grads).is_some() && !found.is_empty());
    };
    step();
    let stands = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let mut best = f64::INFINITY;
    for _ in 0..TIMES {
        let start = Instant::now();
        step();
        best = best.min(start.elapsed().as_secs_f64());
    }
    let peak = ALLOCATOR.peak_usage() - stands;
    println!("| {width} | {name} | {:.1} | {:.1} |", 1e3 * best, peak as f64 / 1e6);
}

fn main() {
    let device = Device::flex().autodiff();
    println!("| width | layer | ms a step | MB beside the weights |\n| --- | --- | --- | --- |");
    for width in [1024, 2048] {
        let linear = || -> Linear { LinearConfig::new(width, width).init(&device) };
        let full = linear();
        measure("full training", width, &full, |x| full.forward(x), &device);
        let burns = linear().apply_lora(Lora::new(RANK, 16.0));
        measure("Burn's apply_lora", width, &burns, |x| burns.forward(x), &device);
        for quantize in [Quantize::None, Quantize::Q8, Quantize::Q4] {
            let settings = LoraSettings { rank: RANK, quantize, ..LoraSettings::default() };
            let frozen = Projection::new(width, width, true, &device).set_require_grad(false);
            let ours = frozen.adapted(&settings).expect("the width is a multiple of 4");
            measure(&format!("ours, {quantize:?}").to_lowercase(), width, &ours, |x| ours.forward(x), &device);
        }
    }
}
