//! Signs that training goes wrong although its reward rises.

mod accuracy;

pub use self::accuracy::{Accuracies, AccuracyWatch, Parted};
