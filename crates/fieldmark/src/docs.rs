//! The pages in `docs/` and the README of this crate: their examples compile.

#[doc = include_str!("../../../docs/embedding.md")]
struct Embedding;

#[doc = include_str!("../README.md")]
struct ReadMe;
