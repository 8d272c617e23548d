//! The Field Guide: a world of look-alikes ([`fieldmark_world`]) with a base model that knows it, made to watch the
//! method in.

mod arms;
mod base;
mod demo;
mod guide_folder;
mod lessons;
mod stages;
mod study;
mod world;

pub use base::{BaseOptions, WORLD, base};
pub use demo::{DemoOptions, DemoOutcome, demo};
pub use guide_folder::Reuse;
pub use study::{StudyOptions, StudyOutcome, study};
pub use world::{WorldOptions, world};
