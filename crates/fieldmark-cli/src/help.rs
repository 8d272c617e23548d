//! The longer help texts of the commands, printed below their options.

/// `fieldmark --help`.
pub const OVERVIEW: &str = "\
Examples:
  fieldmark demo
      fine-tunes a small model in the world of the repository, and scores it on seen and unseen species
  fieldmark world --out world
      writes a world of look-alikes as files to train on
  fieldmark ask --model DIR --image pepper.jpg \"Which pepper is this?\"
      asks a checkpoint about a photograph
  fieldmark init --shape recipes/shapes/tiny.toml --corpus texts.txt --out runs/new
      makes a checkpoint with random weights
  fieldmark data check stage1.json --images photos
      reads a data file and lists its problems
  fieldmark prompt rl --question \"Which bird is this?\"
      prints the prompt that TAPO asks
  fieldmark sft  -c R.toml --set output=runs/sft
  fieldmark tapo -c R.toml --set model.path=runs/sft/checkpoint  --set output=runs/tapo
  fieldmark eval -c R.toml --set model.path=runs/tapo/checkpoint --set output=runs/eval
      run both stages of Fine-R1 and score the result; R.toml is a recipe like recipes/fine-r1-3b.toml

Exit codes:
  0   done
  1   a check failed: parity, devices, the marks of demo --photos, the budget of a plan, or questions of eval
      that could not be asked
  2   the input is wrong; one line says what and where
  70  a fault inside Fieldmark (set RUST_BACKTRACE=1 to see where)
  130 stopped by Ctrl-C, SIGTERM or a closed terminal; sft, tapo, eval and demo have saved, and --resume
      continues";

/// `fieldmark world --help`.
pub const WORLD: &str = "\
Example:
  fieldmark world --out world
      writes the default world; look at world/sheet.png
  fieldmark world --seed 7 --species 10000 --images 2 --out large
      writes a larger one

What is in it:
  species.jsonl      every species with its marks, its look-alike and its group
  cot.jsonl          a reasoned answer for each seen species (conversations for sft)
  direct.jsonl       the same questions with the name alone
  tapo.jsonl         triplets of the seen species for tapo
  validation.jsonl   questions for data.tapo.validation: other pictures of seen species, and species for development
  eval/              questions on seen and unseen species for eval
  development/       the same on other pictures of seen species, and on species used for nothing else: choose settings here
  robustness/        the questions of eval/ on pictures made harder to read, with --robustness
  sheet.png          look-alikes side by side";

/// `fieldmark base --help`.
pub const BASE: &str = "\
Example:
  fieldmark base --out runs/base
      trains the model that the repository has in assets/field-guide/base
  fieldmark base --world 7 --species 120 --out runs/base-7
      trains one for another world; `fieldmark demo --base runs/base-7/model` then shows the method in it

What it is taught:
  Pictures of animals with any marks, described without names; captions of every species, one in five \
  wrong; and in words: what each species looks like, and reasoned answers. It is never taught to reason \
  from a picture to a name. The model is the folder model in the output folder.

Ctrl-C saves and exits; --resume continues.";

const RECIPES: &str = "\
Recipes:
  A recipe is a TOML file with the sections [model], [data], [run], [sft], [tapo] and [eval]. Every \
  default is the paper's, so a recipe lists only what differs; recipes/ has the paper's own. \
  -c may be repeated: each file overrides the ones before it. --set overrides one key and may be \
  repeated; without -c, --set alone makes the recipe. A value is TOML or, if it is not, a string. A key \
  that takes a text or a path takes numbers and dates as they are written:
    --set model.path=DIR --set sft.epochs=3 --set 'eval.files=[\"bird_seen.jsonl\"]'
  `fieldmark show -c R.toml` prints the whole recipe. Paths are relative to the current folder, and ~/ is \
  your home folder.";

const ADAPTERS: &str = "\
Adapters:
  --adapter DIR begins with a LoRA adapter as PEFT saves it, or with that of an earlier run. With \
  lora.rank=0, the default, it is merged into the weights, which are then trained. With its own rank \
  and alpha (--set lora.rank=8 --set lora.alpha=16) training goes on with the adapter itself.";

const RUNS: &str = "\
Stopping and resuming:
  Press Ctrl-C (or send SIGTERM) to finish the current step, save and exit with code 130; press it \
  again to stop at once. A step is an update of sft or a rollout step of tapo. A terminal that is closed \
  does the same, unless the run was started under nohup.
  --resume continues from the newest intact checkpoint, and the run ends in the same bytes as one that \
  was never stopped. Damaged checkpoints are skipped with a note; if none is whole, --resume refuses to \
  start again over them. It also refuses to continue if the \
  recipe or the content of what it reads changed since the run started; only output, device, [run], \
  data.check and the places of model and data may differ.

Display:
  On a terminal, Burn's dashboard plots every metric. Press q to stop: s finishes the current step and \
  saves; k quits at once. Notes are printed when the dashboard closes. --set run.dashboard=false prints \
  one line a step instead, and so do TERM=dumb, a CI variable, and output to a file or pipe.";

/// Files that both stages write.
const FILES: &str = "  OUTPUT/checkpoint          the last model; transformers loads the folder
  OUTPUT/checkpoints/step-*  one every [run] save_every steps: the newest [run] keep, and the best.
                             Each is a model, with the state for --resume in trainer/
  OUTPUT/metrics.jsonl       loss, learning rate, gradient norm and more, one JSON object a line
  OUTPUT/timings.jsonl       seconds, tokens per second and memory of every update
  OUTPUT/tensorboard         the same for TensorBoard ([run] tensorboard)
  OUTPUT/recipe.toml         the whole recipe, and inputs.json, the fingerprints of model, data files and
                             photographs";

/// `fieldmark sft --help`.
pub fn sft() -> String {
    format!(
        "\
Example:
  fieldmark sft --set model.path=DIR --set data.sft.file=stage1.json --set output=runs/sft

What learns:
  The decoder. The vision encoder and the projector are frozen, as in the paper. A model from \
  `fieldmark init` has random ones, which must learn too:
    --set sft.train.vision=true --set sft.train.projector=true

Files (OUTPUT is the recipe's output):
{FILES}
  OUTPUT/loss.svg            the curve of the loss
  The best model is the one with the lowest validation loss; the closing line names its folder. It \
  needs a validation set: data.sft.validation (a file) or data.sft.validation_rows.

{ADAPTERS}

{RUNS}

{RECIPES}"
    )
}

/// `fieldmark tapo --help`.
pub fn tapo() -> String {
    format!(
        "\
Example:
  fieldmark tapo --set model.path=runs/sft/checkpoint --set data.tapo.file=stage2.jsonl --set output=runs/tapo

Files (OUTPUT is the recipe's output):
{FILES}
  OUTPUT/rollouts.jsonl      every rollout with its prompt, response and rewards
  OUTPUT/validation.jsonl    the answers to the validation set
  OUTPUT/reward.svg          the curves of the rewards
  The best model is the one with the highest validation reward; the closing line names its folder.
  Without a validation set (data.tapo.validation or data.tapo.validation_rows), the best checkpoint is \
  the one with the highest training reward.

{ADAPTERS}

{RUNS}

{RECIPES}"
    )
}

/// `fieldmark eval --help`.
pub fn eval() -> String {
    format!(
        "\
Examples:
  fieldmark eval -c R.toml --set model.path=DIR --set output=runs/eval
  fieldmark eval -c R.toml --set model.path=BASE --adapter DIR --set output=runs/eval
  fieldmark eval --score-only runs/eval/predictions.jsonl

Files (OUTPUT is the recipe's output):
  OUTPUT/predictions.jsonl   every question with the answer, as soon as its batch is answered
  OUTPUT/report.txt          the scores, computed from predictions.jsonl alone
  OUTPUT/eval.toml           the whole recipe, and eval-inputs.json, the fingerprints of what it read

Stopping and resuming:
  Press Ctrl-C (or send SIGTERM) to finish the current batch and exit with code 130. --resume asks what \
  has no answer yet. A question that cannot be asked, for example because its photograph is damaged, \
  costs its row alone; the exit code is then 1, and --resume asks it again.

{RECIPES}"
    )
}

/// `fieldmark show --help`.
pub fn show() -> String {
    format!("Example:\n  fieldmark show -c recipes/fine-r1-3b.toml --set sft.epochs=3\n\n{RECIPES}")
}

/// `fieldmark plan --help`.
pub const PLAN: &str = "\
Examples:
  fieldmark plan -c recipes/fine-r1-3b.toml --stage sft --budget 80GB
  fieldmark plan -c recipes/fine-r1-7b.toml --stage tapo --tokens 3500

The plan assumes every sequence and every image at its maximum size; --tokens sets the length of a \
sequence instead. It reads only the model's config.json, and not even that for the published 3B and 7B \
checkpoints. The device's runtime and allocator need more, so leave a tenth of the memory free. \
With --budget, the exit code is 1 if the recipe does not fit, and the plan names settings that do.";

/// `fieldmark demo --help`.
pub fn demo() -> String {
    let photographs = fieldmark::demo::PHOTOGRAPHS;
    format!(
        "\
Examples:
  fieldmark demo
      in the world of the repository, to runs/demo
  fieldmark demo --base runs/base-7/model --out runs/demo-7
      in the world of another base model
  fieldmark demo --full --arms cot,dapo,tapo --seeds 3 --out runs/full
      some variants of the method with three seeds each
  fieldmark demo --photos --out runs/photos
      on the photographs of the repository, from nothing

In a world, OUT/report.md has the scores and the answers before and after each stage, OUT/world the pictures, rows and \
recipes, OUT/sft and OUT/tapo the runs with their curves and models, and OUT/eval-* every answer. Each stage is what sft, \
tapo and eval do with these recipes.

On photographs, the demo writes one folder per stage: OUT/base, OUT/sft and OUT/tapo, each with the model in checkpoint/ \
and its answers in predictions.jsonl, and the table of scores in OUT/report.md. With the repository's photographs, the \
exit code is 1 if the scores miss their marks.

Your own photographs (--photos DIR):
{photographs} Scores on your own photographs are not judged."
    )
}

/// `fieldmark init --help`.
pub const INIT: &str = "\
Example:
  fieldmark init --shape recipes/shapes/tiny.toml --corpus texts.txt --out runs/new

The corpus is UTF-8 text with one text a line: write the prompts, answers and class names that the \
model will meet. The shape is a TOML file that sets the sizes of decoder, vision encoder and images; \
recipes/shapes/tiny.toml explains every key. The same shape, corpus and seed give the same bytes.

The folder appears whole or not at all, and transformers loads it. To train the model, let every part \
learn:
  fieldmark sft --set model.path=runs/new --set sft.train.vision=true --set sft.train.projector=true";

/// `fieldmark prompt --help`.
pub const PROMPT: &str = "\
Examples:
  fieldmark prompt
  fieldmark prompt rl --question \"Which bird is this?\"
  fieldmark prompt eval_closed --options \"Song Sparrow,Fox Sparrow\"
  fieldmark prompt rl --model DIR

<image> is the place of the photograph. With --model, the text is printed as the checkpoint's chat \
template makes it, special tokens included; the one <|image_pad|> then stands for all tokens of the \
photograph. Without --options, eval_closed is shown with two example options.";

/// `fieldmark ask --help`.
pub const ASK: &str = "\
Examples:
  fieldmark ask --model DIR --image pepper.jpg \"Which pepper is this?\"
  fieldmark ask --model DIR --image a.jpg --image b.jpg \"Do these show the same bird?\"
  fieldmark ask --model DIR --image a.jpg --image b.jpg \"In <image> and <image>, what differs?\"
  fieldmark ask --model BASE --adapter DIR --image pepper.jpg \"Which pepper is this?\"

<image> in the question is the place of the next photograph. If the question has none, all \
photographs come before it. --adapter merges a LoRA adapter into the weights: a folder as PEFT saves \
it, or of a run that trained one.";

/// `fieldmark data check --help`.
pub const CHECK: &str = "\
Examples:
  fieldmark data check stage1.json --images photos
  fieldmark data check bird_seen.jsonl.gz

The command decodes every image that it finds. It recognises the format by the content: conversations (as OpenAI, \
Qwen, TRL, LLaVA, ShareGPT or Alpaca write them), evaluation rows, TAPO triplets (JSON or JSONL; .gz too), or \
labels.csv. With --images, an image that is not there is a problem; without, a file none of whose images is found \
gets a note. The exit code is 2 if there is a problem.";

/// `fieldmark data options --help`.
pub const OPTIONS: &str = "\
Examples:
  fieldmark data options runs/open/rollouts.jsonl --rows tapo.jsonl --output closed.jsonl
  fieldmark tapo -c recipe.toml --set data.tapo.file=closed.jsonl --set output=runs/closed

The command makes a question with options from each row: what the model answered most often when it was asked without \
options, and the right answer (DiVE-k, arXiv 2511.18305). Answers that name no class of the file do not count. A row \
whose only answer is the right one is left out. A row with at most one wrong answer gets two drawn options more. The new \
file has the columns of the old one. Write it beside it, because image paths are relative to its folder.";

/// `fieldmark devices --help`.
pub const DEVICES: &str = "\
Example:
  fieldmark devices

The check multiplies two matrices and runs attention on each device, and compares both with plain loops \
on the CPU. The exit code is 1 if a device computes wrongly or cannot be opened.";

/// `fieldmark parity --help`.
pub const PARITY: &str = "\
Example:
  fieldmark parity tests/fixtures/qwen2_5_vl_tiny

The exit code is 1 if a tensor is outside its tolerance.";
