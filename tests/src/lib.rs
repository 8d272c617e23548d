//! What the tests share: the fixture models, random sequences for them, and what training does to them.

pub mod prompts;
pub mod training;
