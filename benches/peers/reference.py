"""The same work as `speed`, done by the reference: transformers and torch on the CPU, two threads, f32.

Prints `name<TAB>milliseconds` for the best of a few runs; arguments select the work whose name contains them.
    pip install torch==2.15.0 transformers==5.23.0 pillow torchvision
    python benches/peers/reference.py [NAME...]
With --device, --size, --dtype or --layers it does the work of `speed` with these arguments: see sized.py.
"""
import sys
import time

import torch
import torch.nn.functional as F
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

torch.set_num_threads(2)
torch.manual_seed(0)
IMAGE, START, END, TOKENS, RESPONSE = 31990, 31992, 31993, 512, 212
CONFIG = Qwen2_5_VLConfig(
    text_config=dict(vocab_size=32000, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                     num_attention_heads=12, num_key_value_heads=2, max_position_embeddings=4096,
                     rope_scaling={"type": "mrope", "rope_type": "default", "mrope_section": [8, 12, 12]},
                     tie_word_embeddings=True, rms_norm_eps=1e-6),
    vision_config=dict(depth=12, hidden_size=512, intermediate_size=1536, num_heads=8, out_hidden_size=768,
                       patch_size=14, spatial_merge_size=2, temporal_patch_size=2, window_size=112,
                       fullatt_block_indexes=[5, 11]),
    image_token_id=IMAGE, video_token_id=31991, vision_start_token_id=START, vision_end_token_id=END,
    tie_word_embeddings=True)
GRID = torch.tensor([[1, 32, 32]])


def best(name, work, times):
    work()
    fastest = 1e9
    for _ in range(times):
        start = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - start)
    print(f"{name}\t{1e3 * fastest:.2f}", flush=True)


def batch(rows):
    text = torch.randint(0, 30000, (rows, TOKENS - 258))
    head = torch.tensor([START] + [IMAGE] * 256 + [END]).repeat(rows, 1)
    ids = torch.cat([head, text], 1)
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == IMAGE).int(),
                pixel_values=torch.randn(1024 * rows, 1176), image_grid_thw=GRID.repeat(rows, 1))


def rollouts(model):
    model.generate(**batch(1), max_new_tokens=65, min_new_tokens=65, do_sample=True, top_k=0, temperature=1.0,
                   num_return_sequences=10, eos_token_id=None, pad_token_id=0)


def geometric(model):
    """Milliseconds a token of ten responses to each of eight prompts, lengths geometric with mean 100, at most 256."""
    inputs = batch(8)
    start = time.perf_counter()
    found = model.generate(**inputs, max_new_tokens=256, do_sample=True, top_k=0, temperature=1.0, num_return_sequences=10,
                           eos_token_id=list(range(0, 32000, 100)), pad_token_id=31999)
    new = found[:, TOKENS:]
    ends = (new % 100 == 0) & (new != 31999)
    lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, torch.tensor(new.shape[1]))
    return 1e3 * (time.perf_counter() - start) / int(lengths.sum())


def vocabulary_model():
    text = dict(CONFIG.text_config.to_dict(), vocab_size=151936, hidden_size=256, intermediate_size=768, num_hidden_layers=2,
                num_attention_heads=4)
    text.pop("layer_types", None)
    vision = dict(CONFIG.vision_config.to_dict(), depth=2, hidden_size=256, intermediate_size=768, num_heads=4,
                  out_hidden_size=256, fullatt_block_indexes=[1])
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=151655, video_token_id=151656,
                              vision_start_token_id=151652, vision_end_token_id=151653, tie_word_embeddings=True)
    return Qwen2_5_VLForConditionalGeneration(config).float().eval()


def vocabulary(model):
    ids = torch.randint(0, 150000, (8, 64))
    model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, min_new_tokens=64, do_sample=True,
                   top_k=0, top_p=0.99, temperature=1.0, num_return_sequences=10, eos_token_id=None, pad_token_id=0)


def response_logp(model, inputs, response=RESPONSE):
    hidden = model.model(**inputs).last_hidden_state[:, -response - 1:-1]
    logits = model.lm_head(hidden)
    return F.log_softmax(logits, -1).gather(-1, inputs["input_ids"][:, -response:, None])[..., 0]


def group(rows, responses):
    """`rows` responses of `responses` tokens to one prompt with one image, each row with its own copy, as trainers batch them."""
    one, answers = batch(1), torch.randint(0, 30000, (rows, responses))
    ids = torch.cat([one["input_ids"].repeat(rows, 1), answers], 1)
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == IMAGE).int(),
                pixel_values=one["pixel_values"].repeat(rows, 1), image_grid_thw=GRID.repeat(rows, 1))


def log_probabilities(count, width):
    """Forward and backward of the log-probabilities of given tokens, 1024 states at a time, each chunk computed again in
    the backward pass, as in `speed`."""
    hidden, head = torch.randn(count, width), torch.nn.Parameter(torch.randn(151936, width) * 0.02)
    targets = torch.arange(count) * 7919 % 151936
    chunks = list(zip(hidden.split(1024), targets.split(1024)))
    logp = lambda states, ids: F.log_softmax(states @ head.T, -1).gather(-1, ids[:, None])[:, 0]

    def forward():
        with torch.no_grad():
            torch.cat([logp(states, ids) for states, ids in chunks])

    def backward():
        head.grad = None
        for states, ids in chunks:
            (logp(states.detach().requires_grad_(), ids).sum() / count).backward()

    return forward, backward


def main():
    wanted = sys.argv[1:]
    if any(argument.startswith("--") for argument in wanted):
        import sized
        return sized.main(wanted)
    chosen = lambda name: not wanted or any(part in name for part in wanted)
    model = Qwen2_5_VLForConditionalGeneration(CONFIG).float().eval()
    with torch.no_grad():
        if chosen(name := "vision encode 448x448"):
            pixels = torch.randn(1024, 1176)
            best(name, lambda: model.model.visual(pixels, grid_thw=GRID), 5)
        if chosen(name := "prefill 512"):
            one = batch(1)
            best(name, lambda: model(**one, logits_to_keep=1), 3)
        for rows in (1, 10):
            if chosen(name := f"decode step, batch {rows}"):
                inputs = batch(rows)
                cache = model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
                token = torch.full((rows, 1), 7)
                state = {"n": TOKENS}

                def step():
                    state["n"] += 1
                    mask = torch.ones(rows, state["n"], dtype=torch.long)
                    position = torch.full((3, rows, 1), state["n"] - 241)
                    model(input_ids=token, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True)

                best(name, step, 40)
        if chosen(name := "10 rollouts of 65 tokens"):
            best(name, lambda: rollouts(model), 2)
        if chosen(name := "80 rollouts on 8 prompts, geometric lengths"):
            print(f"{name}, a token\t{geometric(model):.3f}", flush=True)
        if chosen(name := "80 rollouts of 64 tokens, vocabulary 151936"):
            small = vocabulary_model()
            best(name, lambda: vocabulary(small), 2)
    for count, width in ((1000, 256), (4000, 256), (1000, 2048), (4000, 2048)):
        name = f"log-probabilities, vocabulary 151936, {count} x {width}"
        if chosen(f"{name}, forward") or chosen(f"{name}, backward"):
            for part, work in zip(("forward", "backward"), log_probabilities(count, width)):
                if chosen(f"{name}, {part}"):
                    best(f"{name}, {part}", work, 2)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def advance():
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    def update(loss):
        loss.backward()
        advance()

    for rows in (1, 4):
        if chosen(name := f"SFT step, {rows} x 512"):
            inputs = batch(rows)
            best(name, lambda: update(-response_logp(model, inputs).mean()), 2)
    def tapo(inputs, negative, response):
        logp, neg = response_logp(model, inputs, response), response_logp(model, negative, response)
        ratio = (logp - logp.detach()).exp()
        policy = torch.maximum(-ratio, -ratio.clamp(0.8, 1.28))
        u = (neg - logp).clamp(-20, 20)
        kl = (u.exp() - u - 1).clamp(-10, 10)
        return (policy - 0.01 * kl - 0.03 * logp - 0.03 * neg).mean()

    if chosen(name := "TAPO update, 2 x 512"):
        inputs, negative = batch(2), batch(2)
        negative["input_ids"] = inputs["input_ids"]
        best(name, lambda: update(tapo(inputs, negative, RESPONSE)), 2)
    if chosen(name := "TAPO update, group of 10, prompt 512, responses 64"):
        # Two responses at a time, gradients added up: the memory for all twenty sequences at once is several times that.
        micros = [(group(2, 64), group(2, 64)) for _ in range(5)]
        for inputs, negative in micros:
            negative["input_ids"] = inputs["input_ids"]

        def accumulated():
            for inputs, negative in micros:
                (tapo(inputs, negative, 64) / 5).backward()
            advance()

        best(name, accumulated, 1)


if __name__ == "__main__":
    main()
