//! A checkpoint from nothing: random weights of a given [`Shape`] and a tokenizer trained on texts.
//!
//! ```no_run
//! use fieldmark::{device, init::{self, Shape}};
//!
//! let shape = Shape::read("recipes/shapes/tiny.toml".as_ref())?;
//! let texts = init::read_corpus("texts.txt".as_ref())?;
//! let made = shape.make(&texts, 0, &device::open("flex")?.device)?;
//! made.write("runs/new".as_ref())?;
//! # Ok::<(), fieldmark::RunError>(())
//! ```

mod corpus;
mod made;
mod shape;

pub use self::{
    corpus::read_corpus,
    made::NewModel,
    shape::{ImageShape, Shape, TextShape, VisionShape},
};
