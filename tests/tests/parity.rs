//! Parity with the reference implementation: every tensor of every fixture folder.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fieldmark::parity::{Status, parity};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Everything in the folder is known and passes.
fn check(name: &str, tokenizer: Option<&Path>) {
    let report = parity(&folder(name), tokenizer, &Device::flex()).unwrap();
    assert!(report.passed() && report.count(Status::Unknown) == 0, "{report}");
    assert!(report.count(Status::Pass) > 0);
}

#[test]
fn qwen2_5_vl_with_a_tied_head() {
    check("qwen2_5_vl_tiny", None);
}

#[test]
fn qwen2_5_vl_with_its_own_head_and_both_key_layouts() {
    check("qwen2_5_vl_tiny_untied", None);
}

#[test]
fn tapo_formulas() {
    check("tapo", None);
}

#[test]
fn image_processor() {
    check("image_processor", None);
}
