//! Adds two rewards to those of the paper: `cargo run -p reward`.
//!
//! `comparison` checks that the reasoning names at least two candidates, the answer among them. The settings give it a
//! weight, as `[tapo.rewards]` does in a recipe. To train with it, pass the registry as `rewards` of
//! `fieldmark::run::Tapo`; the example `finetune` does that.

use fieldmark::train::{
    reward::{Reward, RewardInput, RewardRegistry},
    tapo::{TapoConfig, advantage::GroupRewards},
};

/// 1 if the reasoning names at least two candidates, the answer among them; else 0.
struct Comparison {
    candidates: Vec<String>,
}

impl Reward for Comparison {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let Some((thought, answer)) = input.response.split_once("</think>") else { return 0.0 };
        let named = |text: &str, name: &str| text.to_lowercase().contains(&name.to_lowercase());
        let compared: Vec<&String> = self.candidates.iter().filter(|name| named(thought, name)).collect();
        f64::from(u8::from(compared.len() >= 2 && compared.iter().any(|name| named(answer, name))))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = TapoConfig::default();
    config.rewards.insert("comparison".into(), 0.2);
    // A reward without state can be a closure. With weight 0 it is only measured.
    config.rewards.insert("brief".into(), 0.0);
    let candidates = ["Lime", "Lemon", "Granny Smith"].map(str::to_owned).into();
    let registry = RewardRegistry::standard(&config)
        .with("comparison", Comparison { candidates })
        .with("brief", |input: &RewardInput<'_>| f64::from(u8::from(input.response_tokens < 20)));
    let rewards = registry.choose(&config)?;

    let responses = [
        ("<think>Green and small: a lime or a lemon?</think><answer>Lime</answer>", 21),
        ("<think>Green.</think><answer>Lime</answer>", 12),
        ("<think>Green and round: Granny Smith, no lime.</think><answer>Granny Smith</answer>", 24),
        ("Lime", 2),
    ];
    let mut overall = Vec::new();
    for (response, tokens) in responses {
        let score = rewards.parts(&RewardInput::new(response, "Lime").with_tokens(tokens, config.max_new_tokens));
        println!("{:.2}  {}\n      {:?}", score.overall, response, score.parts);
        overall.push(score.overall);
    }
    let advantages = config.estimator.within_group(&GroupRewards { overall, ..GroupRewards::default() })?;
    println!("as a group: {}", advantages.iter().map(|a| format!("{a:+.2}")).collect::<Vec<_>>().join("  "));
    Ok(())
}
