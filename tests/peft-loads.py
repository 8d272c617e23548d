"""Loads an adapter with PEFT onto the checkpoint that it was trained on. Checks that no key is missing or left over,
and that its logits equal those of the merged checkpoint.

    pip install torch==2.15.0 transformers==5.23.0 peft==0.21.2
    python tests/peft-loads.py BASE OUTPUT/checkpoint
"""
import sys
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

base, merged = sys.argv[1:]
adapter = Path(merged) / "adapter"
load = lambda folder: Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
warnings.filterwarnings("error", message=".*missing adapter keys.*")
model = PeftModel.from_pretrained(load(base), adapter)
factors = {name for name, _ in model.named_parameters() if "lora_" in name}
stored = {name.replace(".weight", ".default.weight") for name in load_file(adapter / "adapter_model.safetensors")}
assert factors == stored, factors ^ stored
ids = torch.arange(8, 72).unsqueeze(0) % model.config.get_text_config().vocab_size
with torch.no_grad():
    ours, base_logits = load(merged)(input_ids=ids).logits, load(base)(input_ids=ids).logits
    theirs = model(input_ids=ids).logits
scale = theirs.abs().max()
print(f"largest logit {scale:.4f}, PEFT against merged {(theirs - ours).abs().max() / scale:.2e}, "
      f"against the base {(theirs - base_logits).abs().max() / scale:.2e}")
assert (theirs - ours).abs().max() < 1e-4 * scale < (theirs - base_logits).abs().max()
