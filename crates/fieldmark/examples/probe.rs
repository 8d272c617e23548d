//! Scratch.
use fieldmark::demo::{DemoOptions, run};
fn main() -> anyhow::Result<()> {
    let arg = |i: usize, d: usize| std::env::args().nth(i).map_or(d, |x| x.parse().unwrap());
    let options = DemoOptions {
        photos: "assets/produce".into(),
        out: "runs/probe".into(),
        seed: arg(3, 0) as u64,
        sft_epochs: arg(1, 30),
        tapo_steps: arg(2, 2),
        ablation: false,
        device: burn::tensor::Device::flex(),
        device_name: "flex".into(),
    };
    let outcome = run(&options)?;
    println!("{}", outcome.report);
    println!("{:?}", outcome.missed);
    Ok(())
}
