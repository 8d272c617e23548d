//! A step of TAPO computed again from its logs: token ids, rewards and fates of groups from `rollouts.jsonl`, the images and
//! the weights that the step began with.

use std::{collections::BTreeMap, fs};

use fieldmark::{
    Checkpoint,
    folder::RunFolder,
    generate::{FinishReason, Response},
    run::{RunSetup, Silent, Tapo, tapo},
    train::{
        reward::{RewardInput, RewardRegistry, RewardScore},
        tapo::{
            TapoConfig, UpdateImage,
            advantage::group_advantages,
            rollout::{Group, GroupFilter, ImageRole, Rollout},
        },
    },
};
use fieldmark_tests::{
    plain_tapo::plainly,
    prompts::values,
    tapo_runs::{Source, device, prompts, slow_descent},
    tiny::checkpoint,
    training::plain_logps,
};
use serde_json::Value;

/// Ids with their runs written out.
fn written_out(ids: &Value) -> Vec<u32> {
    let number = |value: &Value| value.as_u64().unwrap() as u32;
    let entries = ids.as_array().unwrap().iter();
    let runs = entries.map(|entry| match entry.as_array() {
        Some(run) => vec![number(&run[0]); run[1].as_u64().unwrap() as usize],
        None => vec![number(entry)],
    });
    runs.flatten().collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_step_can_be_computed_again_from_its_log() {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(&folder.path().join("model"));
    let start = Checkpoint::at(folder.path().join("model")).unwrap();
    let model = start.load(&device()).unwrap();
    let mut rows = prompts(model.config(), &["a", "b", "c", "d"]);
    for (number, row) in rows.iter_mut().enumerate() {
        row.anchor.name = format!("row {number}");
    }
    let source = Source::new(rows);
    let config = TapoConfig {
        prompts_per_step: 2,
        chunk: 4,
        whole_chunks: true,
        filter: GroupFilter::default(),
        update_image: UpdateImage::Own,
        ..slow_descent()
    };
    let rewards = RewardRegistry::default()
        .with("accuracy", |input: &RewardInput<'_>| f64::from(u8::from(input.response.len().is_multiple_of(2))))
        .with("format", |input: &RewardInput<'_>| input.response.len() as f64 / 100.0);
    let output = folder.path().join("out");
    let mut setup = RunSetup::new(RunFolder::check(Some(&output), false).unwrap(), device());
    setup.settings.tensorboard = false;
    let parts = Tapo {
        checkpoint: &start,
        source: &source,
        validation: None,
        rewards: &rewards,
        config: config.clone(),
        steps: Some(1),
    };
    tapo(parts, &setup, &mut Silent).unwrap();

    let read = |name: &str| lines(&fs::read_to_string(output.join(name)).unwrap());
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let (mut order, mut fates) = (Vec::new(), Vec::new());
    for line in read("rollouts.jsonl") {
        let row = line["row"].as_str().unwrap().to_owned();
        if !found.contains_key(&row) {
            fates.push((line["learned_in"].as_u64(), line["dropped"].as_str().map(str::to_owned)));
            assert_eq!(line["kept"], line["learned_in"].is_u64());
            order.push(row.clone());
        }
        found.entry(row).or_default().push(line);
    }
    let counts = &read("metrics.jsonl")[0];
    let count = |learned: Option<u64>, dropped: Option<&str>| {
        fates.iter().filter(|(step, why)| *step == learned && why.as_deref() == dropped).count()
    };
    let kept = count(Some(1), None) + count(Some(2), None) + count(None, Some("surplus"));
    assert_eq!(kept as u64, counts["kept"].as_u64().unwrap());
    assert_eq!(count(None, Some("all_wrong")) as u64, counts["all_wrong"].as_u64().unwrap());
    assert_eq!(count(None, Some("all_right")) as u64, counts["all_right"].as_u64().unwrap());

    let mut groups = Vec::new();
    for (row, _) in order.iter().zip(&fates).filter(|(_, (learned_in, _))| *learned_in == Some(1)) {
        // The images are in their files, and here in the source.
        let prompt = source.prompts.iter().find(|prompt| prompt.anchor.name == *row).unwrap();
        let mut rollouts = Vec::new();
        for line in &found[row] {
            let role = if line["role"] == "anchor" { ImageRole::Anchor } else { ImageRole::Positive };
            let mut sampled_on = prompt.about(role).unwrap().clone();
            let grid = sampled_on.images[0].grid;
            assert_eq!(line["grids"][line["role"].as_str().unwrap()], serde_json::json!([[grid.h, grid.w]]));
            sampled_on.ids = written_out(&line["prompt_ids"]);
            let ids = written_out(&line["ids"]);
            assert_eq!(line["tokens"], ids.len());
            let old_logp = values(plain_logps(&model, &sampled_on, &ids, config.temperature, &device()));
            let overall = line["reward"].as_f64().unwrap();
            rollouts.push(Rollout {
                role,
                response: Response { ids, logps: Vec::new(), finish: FinishReason::Stop },
                text: String::new(),
                reward: RewardScore { overall, ..RewardScore::default() },
                advantage: 0.0,
                old_logp,
            });
        }
        let rewards: Vec<f64> = rollouts.iter().map(|rollout| rollout.reward.overall).collect();
        for ((rollout, advantage), line) in
            rollouts.iter_mut().zip(group_advantages(&rewards).unwrap()).zip(&found[row])
        {
            assert!((line["advantage"].as_f64().unwrap() - advantage).abs() < 1e-12);
            rollout.advantage = advantage;
        }
        groups.push(Group { prompt: prompt.clone(), rollouts });
    }
    assert!(!groups.is_empty() && groups.len() < 4, "{fates:?}");
    let update = &read("metrics.jsonl")[1];
    let (parts, _) = plainly(&model, &groups.iter().collect::<Vec<_>>(), &config, &model);
    for (key, expected) in [("loss", parts.loss), ("pg_loss", parts.pg_loss), ("kl_neg", parts.kl_neg)] {
        let found = update[key].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{key} {found}, from the log {expected}");
    }
}
