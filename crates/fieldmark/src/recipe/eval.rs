//! `[eval]`: questions, prompts and decoding.

use std::path::PathBuf;

use fieldmark_data::PromptTemplate;
use fieldmark_eval::World;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Order of the options in a question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Shuffled by `eval.option_seed`.
    #[default]
    Shuffled,
    /// As in the file. In the released files the correct option always comes first.
    Released,
    /// Every rotation of the shuffled order. The score of a question is its mean over them.
    Rotations,
}

/// Evaluation in the closed and the open world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvalSection {
    /// Files of evaluation rows named `<dataset>_seen.jsonl` or `<dataset>_unseen.jsonl` (also `.gz`), or folders of
    /// such files. If empty, questions are made from the test photographs of `data.labels`.
    pub files: Vec<PathBuf>,
    /// Closed world, open world, or both.
    pub worlds: Vec<World>,
    /// Order of the options.
    pub order: Order,
    /// Seed of the order of the options.
    pub option_seed: u64,
    /// Number of options in a question made from `data.labels`, the correct one included.
    pub options: usize,
    /// Wording of the closed-world prompt.
    pub closed_prompt: PromptTemplate,
    /// Wording of the open-world prompt.
    pub open_prompt: PromptTemplate,
    /// Guess super-categories from image paths, as the released code does ("object" for birds, dogs and pets).
    pub released_super_category: bool,
    /// Smaller images are enlarged to about this many pixels. Default: the checkpoint's limit.
    pub min_pixels: Option<usize>,
    /// Larger images are reduced to about this many pixels. Default: the checkpoint's limit.
    pub max_pixels: Option<usize>,
    /// Sampling temperature; 0 is greedy decoding.
    pub temperature: f64,
    /// Nucleus sampling keeps the most likely tokens up to this total probability; 1 keeps all.
    pub top_p: f64,
    /// Sampling keeps this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Sampling keeps the tokens that are at least this likely beside the most likely one; 0 keeps all.
    pub min_p: f64,
    /// Penalty on tokens that already occur in the prompt or the answer; 1 is none. The released evaluation used 1.05.
    pub repetition_penalty: f64,
    /// Maximum number of tokens in an answer.
    pub max_new_tokens: usize,
    /// Number of questions answered at the same time.
    pub batch: usize,
    /// Number of questions per file and world, spread evenly over the file. Default: all.
    pub limit: Option<usize>,
}

impl Default for EvalSection {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            worlds: World::ALL.to_vec(),
            order: Order::Shuffled,
            option_seed: 42,
            options: 4,
            closed_prompt: PromptTemplate::EvalClosed,
            open_prompt: PromptTemplate::EvalOpen,
            released_super_category: false,
            min_pixels: None,
            max_pixels: None,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_new_tokens: 2048,
            batch: 8,
            limit: None,
        }
    }
}
