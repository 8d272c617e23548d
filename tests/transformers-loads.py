"""Checks with the real library that a checkpoint goes both ways: what Fieldmark saved, transformers loads, and what
transformers saves again, Fieldmark loads. Prints the answer to a question, which all of them must give.

    pip install torch==2.15.0 transformers==5.24.0 pillow torchvision
    python tests/transformers-loads.py target/release/fieldmark DIR FILE "Which produce is this?"

1. transformers finds no key missing or left over in DIR, and its answer is that of `fieldmark ask --model DIR`.
2. DIR has every file that `save_pretrained` of model and processor write.
3. What they write is answered alike by `fieldmark ask`: as it is, without generation settings, and with the template in
   tokenizer_config.json alone.
4. Chat templates see the same special tokens, and render the same prompt.
5. A head that is stored and differs from the embedding counts in both, although config.json says that it is tied.
"""
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

fieldmark, folder, image, question = sys.argv[1:]
work = Path(tempfile.mkdtemp())
LENGTH = 256


def ours(path):
    command = [fieldmark, "ask", "--model", path, "--image", image, "--max-new-tokens", str(LENGTH), question]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def load(path):
    model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(path, output_loading_info=True)
    wrong = {key: value for key, value in info.items() if value}
    assert not wrong, wrong
    return model, AutoProcessor.from_pretrained(path)


def prompt(processor):
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def theirs(model, processor):
    inputs = processor(text=[prompt(processor)], images=[Image.open(image)], return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False, repetition_penalty=1.0)
    text = processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text.rstrip("\n")


def copy(name, source):
    return Path(shutil.copytree(source, work / name))


# 1
model, processor = load(folder)
answer = theirs(model, processor)
assert ours(folder) == answer, (ours(folder), answer)

# 2
saved = work / "saved"
model.save_pretrained(saved)
processor.save_pretrained(saved)
missing = {path.name for path in saved.iterdir()} - {path.name for path in Path(folder).iterdir()}
assert not missing, f"{folder} lacks {missing}"

# 3
assert ours(saved) == answer, "what transformers saved is answered otherwise"
bare = copy("bare", saved)
(bare / "generation_config.json").unlink()
assert ours(bare) == answer, "the end token of config.json is not used"
alone = copy("alone", saved)
config = json.loads((alone / "tokenizer_config.json").read_text())
config["chat_template"] = (alone / "chat_template.jinja").read_text()
(alone / "tokenizer_config.json").write_text(json.dumps(config))
(alone / "chat_template.jinja").unlink()
assert ours(alone) == answer, "the template in tokenizer_config.json is not used"

# 4: a prompt that holds every special token, then the usual one
tokens = copy("tokens", saved)
template = (tokens / "chat_template.jinja").read_text()
names = ["eos_token", "bos_token", "pad_token", "unk_token", "image_token"]
shown = "".join(f"{{{{ {name} | default('none') }}}}|" for name in names)
marked = shown + "{%- generation -%} {{ tools }} {%- endgeneration -%}\n" + template
(tokens / "chat_template.jinja").write_text(marked)
text = prompt(AutoProcessor.from_pretrained(tokens))
literal = copy("literal", saved)
(literal / "chat_template.jinja").write_text(text[: text.index(prompt(processor))] + template)
assert ours(tokens) == ours(literal), "special tokens differ in a template"

# 5
other = copy("other", folder)
path = next(other.glob("model*.safetensors"))
if json.loads((other / "config.json").read_text())["tie_word_embeddings"] and path.name == "model.safetensors":
    tensors = load_file(path)
    names = [name for name in tensors if name.endswith("embed_tokens.weight")]
    tensors["lm_head.weight"] = torch.flip(tensors[names[0]], [0]).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})
    assert ours(other) == theirs(*load(other)), "a stored head is used by one side only"

shutil.rmtree(work)
print(answer)
