//! Builds splits, similar classes, options and triplets from the classes of labelled photographs.

pub mod class_split;
pub mod histogram;
pub mod options;
pub mod similar;
pub mod triplets;
