"""Makes the updates of `losses` with the reference, from the same weights on the same batch.

    cargo run --release -p fieldmark-benches --bin losses DIR >ours
    python benches/peers/losses.py DIR ours        # one `step<TAB>reference<TAB>ours` per line, then the largest difference; exit code 1 above 1e-4
"""
import pathlib
import sys

import numpy
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

torch.set_num_threads(2)
RESPONSE = 212
folder = pathlib.Path(sys.argv[1])
ours = [float(line.split("\t")[1]) for line in pathlib.Path(sys.argv[2]).read_text().splitlines()]
model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
ids = torch.tensor([[int(word) for word in line.split()] for line in (folder / "ids.txt").read_text().splitlines()])
pixels = torch.from_numpy(numpy.fromfile(folder / "pixels.f32", dtype="<f4").reshape(-1, 1176))
grid = torch.tensor([[1, 32, 32]]).repeat(len(ids), 1)
labels = ids.clone()
labels[:, :-RESPONSE] = -100
decayed = [p for p in model.parameters() if p.dim() > 1]
others = [p for p in model.parameters() if p.dim() == 1]
optimizer = torch.optim.AdamW([dict(params=decayed, weight_decay=0.01), dict(params=others, weight_decay=0.0)], lr=1e-4)
worst = 0.0
for step, own in enumerate(ours, 1):
    loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, pixel_values=pixels,
                 image_grid_thw=grid, mm_token_type_ids=(ids == model.config.image_token_id).int()).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    worst = max(worst, abs(loss.item() - own))
    print(f"{step}\t{loss.item():.7f}\t{own:.7f}", flush=True)
print(f"largest difference {worst:.2e}")
sys.exit(worst > 1e-4)
