//! Helpers that the tests share: fixture models, random sequences for them, and plain computations to compare training
//! with.

pub mod peft;
pub mod plain_tapo;
pub mod prompts;
pub mod stopped_runs;
pub mod supervised;
pub mod tapo_runs;
pub mod tiny;
pub mod training;
