"""The work that `speed --device ... --size ...` times, done by transformers and torch on a card or a CPU.

Prints `name<TAB>milliseconds<TAB>peak bytes` (the peak on CUDA only); NAME selects work by a part of its name, =NAME by its
whole name.
    python benches/peers/reference.py --device cuda --size 3B --dtype bf16 [--layers N] [--times N] [NAME...]
Weights are random and of one format; AdamW keeps its moments in that format. Steps of training recompute blocks.
"""
import argparse
import time

import torch
import torch.nn.functional as F
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

IMAGE, START, END, TOKENS, RESPONSE, GROUP, GROUP_RESPONSE = 31990, 31992, 31993, 512, 212, 10, 64
# Decoder: tokens, width, inner width, blocks, heads, key heads; encoder: width, inner width, blocks, heads, full attention.
SIZES = {
    "30m": ((32000, 384, 1536, 6, 6, 2), (320, 960, 6, 5, [2, 5])),
    "173m": ((32000, 768, 3072, 12, 12, 2), (512, 1536, 12, 8, [5, 11])),
    "3b": ((151936, 2048, 11008, 36, 16, 2), (1280, 3420, 32, 16, [7, 15, 23, 31])),
}


def configuration(size, layers):
    (tokens, width, inner, blocks, heads, key_heads), (vision, vision_inner, depth, vision_heads, full) = SIZES[size]
    blocks, depth = min(blocks, layers or blocks), min(depth, layers or depth)
    half = width // heads // 2
    sections = [half // 4, half * 3 // 8, half * 3 // 8]
    return Qwen2_5_VLConfig(
        text_config=dict(vocab_size=tokens, hidden_size=width, intermediate_size=inner, num_hidden_layers=blocks,
                         num_attention_heads=heads, num_key_value_heads=key_heads, max_position_embeddings=4096,
                         rope_scaling={"type": "mrope", "rope_type": "default", "mrope_section": sections},
                         tie_word_embeddings=True, rms_norm_eps=1e-6),
        vision_config=dict(depth=depth, hidden_size=vision, intermediate_size=vision_inner, num_heads=vision_heads,
                           out_hidden_size=width, patch_size=14, spatial_merge_size=2, temporal_patch_size=2, window_size=112,
                           fullatt_block_indexes=[block for block in full if block < depth] or [depth - 1]),
        image_token_id=IMAGE, video_token_id=31991, vision_start_token_id=START, vision_end_token_id=END,
        tie_word_embeddings=True)


class Work:
    def __init__(self, arguments):
        self.device, self.wanted, self.times = torch.device(arguments.device), arguments.names, arguments.times
        self.dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[arguments.dtype]
        torch.manual_seed(0)
        # f32 means f32: products in TF32 would be another format.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.set_default_dtype(self.dtype)
        with self.device:
            self.model = Qwen2_5_VLForConditionalGeneration(configuration(arguments.size, arguments.layers)).eval()
        torch.set_default_dtype(torch.float32)

    def chosen(self, name):
        return not self.wanted or any(name == part[1:] if part.startswith("=") else part in name for part in self.wanted)

    def done(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def best(self, name, times, work):
        card = self.device.type == "cuda"
        if card:
            torch.cuda.reset_peak_memory_stats()
        fastest = 1e9
        for repetition in range((self.times or times) + 1):
            self.done()
            start = time.perf_counter()
            work()
            self.done()
            # The first one warms up.
            if repetition:
                fastest = min(fastest, time.perf_counter() - start)
        peak = f"\t{torch.cuda.max_memory_allocated()}" if card else ""
        print(f"{name}\t{1e3 * fastest:.2f}{peak}", flush=True)

    def batch(self, rows):
        text = torch.randint(0, 30000, (rows, TOKENS - 258))
        ids = torch.cat([torch.tensor([START] + [IMAGE] * 256 + [END]).repeat(rows, 1), text], 1)
        inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == IMAGE).int(),
                      pixel_values=torch.randn(1024 * rows, 1176).to(self.dtype),
                      image_grid_thw=torch.tensor([[1, 32, 32]]).repeat(rows, 1))
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    @torch.no_grad()
    def inference(self):
        if self.chosen(name := "prefill 512"):
            one = self.batch(1)
            self.best(name, 5, lambda: self.model(**one, logits_to_keep=1))
        for rows in (1, 10, 64):
            if self.chosen(name := f"decode step, batch {rows}"):
                self.best(name, 20, self.decoder(rows))
        for prompts, tokens, name in ((1, 65, "10 rollouts of 65 tokens"), (8, 64, "80 rollouts of 64 tokens on 8 prompts")):
            if self.chosen(name):
                inputs = self.batch(prompts)
                self.best(name, 2, lambda: self.model.generate(
                    **inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True, top_k=0, temperature=1.0,
                    num_return_sequences=GROUP, eos_token_id=None, pad_token_id=0))

    def decoder(self, rows):
        cache = self.model(**self.batch(rows), use_cache=True, logits_to_keep=1).past_key_values
        token = torch.full((rows, 1), 7, device=self.device)
        length = TOKENS

        def step():
            nonlocal length
            length += 1
            mask = torch.ones(rows, length, dtype=torch.long, device=self.device)
            position = torch.full((3, rows, 1), length - 241, device=self.device)
            self.model(input_ids=token, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True)

        return step

    def group(self):
        """Responses of 64 tokens to one prompt with one image; each row has its own copy of both, as trainers batch them."""
        one, answers = self.batch(1), torch.randint(0, 30000, (GROUP, GROUP_RESPONSE)).to(self.device)
        ids = torch.cat([one["input_ids"].repeat(GROUP, 1), answers], 1)
        return dict(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == IMAGE).int(),
                    pixel_values=one["pixel_values"].repeat(GROUP, 1), image_grid_thw=one["image_grid_thw"].repeat(GROUP, 1))

    def response_logp(self, inputs, response):
        hidden = self.model.model(**inputs).last_hidden_state[:, -response - 1:-1]
        logits = self.model.lm_head(hidden).float()
        return F.log_softmax(logits, -1).gather(-1, inputs["input_ids"][:, -response:, None])[..., 0]

    def training(self):
        names = ("SFT step, 4 x 512, recompute", f"TAPO update, group of {GROUP}, prompt 512, responses 64, recompute")
        if not any(map(self.chosen, names)):
            return
        model = self.model.train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)

        def update(loss):
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()

        if self.chosen(names[0]):
            inputs = self.batch(4)
            self.best(names[0], 3, lambda: update(-self.response_logp(inputs, RESPONSE).mean()))
        if self.chosen(names[1]):
            inputs, negative = self.group(), self.group()
            negative["input_ids"] = inputs["input_ids"]

            def tapo():
                logp, neg = self.response_logp(inputs, GROUP_RESPONSE), self.response_logp(negative, GROUP_RESPONSE)
                ratio = (logp - logp.detach()).exp()
                policy = torch.maximum(-ratio, -ratio.clamp(0.8, 1.28))
                u = (neg - logp).clamp(-20, 20)
                kl = (u.exp() - u - 1).clamp(-10, 10)
                update((policy - 0.01 * kl - 0.03 * logp - 0.03 * neg).mean())

            self.best(names[1], 3, tapo)


def main(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="173m", type=str.lower, choices=list(SIZES))
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16", "f16"])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--times", type=int)
    parser.add_argument("names", nargs="*")
    work = Work(parser.parse_args(words))
    work.inference()
    work.training()
