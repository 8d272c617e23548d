"""Saves adapters of many kinds with PEFT, and compares what PEFT computes with them on their base with what the checkpoint
computes into which Fieldmark merged them (a run of one step with a learning rate of 0). Adapters that change their base
must be refused.

    pip install torch==2.15.0 transformers==5.24.0 peft==0.21.2
    cargo build -p fieldmark-cli
    target/debug/fieldmark init --corpus README.md --out BASE
    python tests/peft-saves.py target/debug/fieldmark BASE
"""
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Qwen2_5_VLForConditionalGeneration, logging

binary, base = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
warnings.filterwarnings("ignore")
logging.disable_progress_bar()
load = lambda folder: Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
decoder = r".*language_model.*\.(q_proj|down_proj)"
kinds = {
    "names": dict(target_modules=["q_proj", "v_proj"]),
    "everything": dict(target_modules="all-linear", use_rslora=True),
    "expression": dict(target_modules=decoder),
    "look-ahead": dict(target_modules=r"^(?!.*patch_embed).*(?:qkv|proj|mlp\.2).*"),
    "one block": dict(target_modules=["q_proj", "up_proj"], layers_to_transform=[0]),
    "excluded": dict(target_modules=["up_proj", "gate_proj"], exclude_modules=".*visual.*"),
    "patterns": dict(target_modules="all-linear", rank_pattern={r"layers\.0\..*": 2, "qkv": 3, "q_proj": 5},
                     alpha_pattern={"^model.visual.*": 9, "down_proj": 1}),
    "convolution": dict(target_modules=["proj", "o_proj"]),
    "DoRA": dict(target_modules="all-linear", use_dora=True),
    "DoRA of a convolution": dict(target_modules=["proj"], use_dora=True),
    "DoRA of an embedding": dict(target_modules=["embed_tokens", "q_proj"], use_dora=True),
    "bias of B": dict(target_modules=["q_proj", "qkv"], lora_bias=True),
    "all biases": dict(target_modules=["q_proj"], bias="all"),
    "own biases": dict(target_modules=["q_proj", "qkv"], bias="lora_only"),
    "whole modules": dict(target_modules=["q_proj"], modules_to_save=["norm", "visual.merger"]),
    "whole head": dict(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "whole embedding": dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    "embedding": dict(target_modules=["embed_tokens", "v_proj"]),
    "head": dict(target_modules=["lm_head", "v_proj"]),
    "embedding and head": dict(target_modules=["embed_tokens", "lm_head"]),
    "tied embedding": dict(target_modules=["embed_tokens"], ensure_weight_tying=True),
    "tied whole embedding": dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "tokens": dict(target_modules=["q_proj"], trainable_token_indices=[5, 2, 9]),
    "orthogonal": dict(target_modules=["q_proj"], init_lora_weights="orthogonal"),
    "MiCA": dict(target_modules=["q_proj"], init_lora_weights="mica"),
}
refused = {
    "pissa": dict(target_modules=["q_proj"], init_lora_weights="pissa"),
    "pissa_niter": dict(target_modules=["q_proj"], init_lora_weights="pissa_niter_4"),
    "olora": dict(target_modules=["q_proj"], init_lora_weights="olora"),
}


def save(kind, folder):
    """An adapter with random values, far from those that it begins with."""
    torch.manual_seed(3)
    model = get_peft_model(load(base), LoraConfig(**{"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", **kind}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)


def logits(model):
    """Those of a text around an image of 4 x 4 patches."""
    config = model.config
    torch.manual_seed(5)
    text = torch.randint(3, 40, (6,))
    image = [config.vision_start_token_id] + [config.image_token_id] * 4 + [config.vision_end_token_id]
    ids = torch.cat([text, torch.tensor(image), text]).unsqueeze(0)
    vision = config.vision_config
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    types = (ids == config.image_token_id).int()
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=torch.randn(16, width), image_grid_thw=torch.tensor([[1, 4, 4]]),
                     mm_token_type_ids=types).logits


with tempfile.TemporaryDirectory() as place:
    place = Path(place)
    row = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>b</think> <answer>c</answer>"}]
    photograph = next((Path(__file__).resolve().parent.parent / "assets/produce").rglob("*.jpg"))
    row[0]["content"] = "<image>a"
    (place / "sft.json").write_text(json.dumps([{"messages": row, "images": [str(photograph)]}]))

    def run(adapter, output):
        sets = {"model.path": base, "data.sft.file": place / "sft.json", "output": output, "sft.epochs": 1,
                "sft.schedule.lr": 0.0, "data.sft.sizes.resize": "once", "data.sft.sizes.min_pixels": 784,
                "data.sft.sizes.max_pixels": 6272}
        command = [binary, "sft", "--adapter", adapter, *(part for key, value in sets.items()
                                                          for part in ("--set", f"{key}={value}"))]
        return subprocess.run(command, capture_output=True, text=True)

    before = logits(load(base))
    for number, (name, kind) in enumerate(kinds.items()):
        adapter, output = place / f"{number}", place / f"{number}-out"
        save(kind, adapter)
        theirs = logits(PeftModel.from_pretrained(load(base), adapter).eval())
        done = run(adapter, output)
        assert done.returncode == 0, (name, done.stderr)
        ours = logits(load(output / "checkpoint"))
        scale = theirs.abs().max()
        error, change = (theirs - ours).abs().max() / scale, (theirs - before).abs().max() / scale
        print(f"{name}: merged against PEFT {error:.1e}, the adapter's change {change:.1e}")
        assert error < 1e-4 < 0.1 * change, name
    for name, kind in refused.items():
        adapter = place / name
        save(kind, adapter)
        done = run(adapter, place / "none")
        assert done.returncode == 2 and "init_lora_weights" in done.stderr, (name, done.returncode, done.stderr)
        print(f"{name}: refused")
