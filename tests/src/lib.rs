//! What the tests share: the fixture models, random sequences for them, and what training does to them.

pub mod plain_tapo;
pub mod prompts;
pub mod stopped_runs;
pub mod supervised;
pub mod tapo_runs;
pub mod tiny;
pub mod training;
