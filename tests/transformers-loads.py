"""Loads a checkpoint with transformers, checks that no key is missing or left over, and prints its answer to a question.
The answer must equal the one of `fieldmark ask --model DIR --image FILE QUESTION`.

    pip install torch==2.15.0 transformers==5.23.0 pillow torchvision
    python tests/transformers-loads.py DIR FILE "Which produce is this?"
"""
import sys

from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

folder, image, question = sys.argv[1:]
model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
wrong = {key: value for key, value in info.items() if value}
assert not wrong, wrong
processor = AutoProcessor.from_pretrained(folder)
messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
inputs = processor(text=[text], images=[Image.open(image)], return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=256, do_sample=False, repetition_penalty=1.0)
print(processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
