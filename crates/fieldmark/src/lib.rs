//! Fine-R1 in Rust: a vision-language model that learns to tell look-alikes apart by reasoning.
