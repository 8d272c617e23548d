//! Builds splits, similar classes, options and triplets from the classes of labelled photographs.

pub mod class_split;
pub mod held_out;
pub mod histogram;
pub mod names;
pub mod options;
pub mod similar;
pub mod triplets;
