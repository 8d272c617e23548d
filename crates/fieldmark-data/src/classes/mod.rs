//! What is built from the classes of labelled photographs: splits, similar classes, options, triplets.

pub mod class_split;
pub mod histogram;
pub mod options;
pub mod similar;
pub mod triplets;
