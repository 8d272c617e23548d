//! What the tests share: the fixture models, and random sequences for them.

pub mod prompts;
