#!/usr/bin/env bash
# Checks and times a card on a machine that has Python but no Rust, with binaries that tests/pack-gpu.sh built elsewhere.
# torch and transformers are the opponents in `speed`; without them it prints our times alone.
#   tests/gpu.sh [DEVICE] [PART...]     DEVICE: cuda (default), cuda:1, wgpu, flex; anything but cuda is a rehearsal
# Parts, all by default and each callable alone; every command of a part is stopped after LIMIT seconds (540):
#   parity       every reference folder of tests/fixtures that has tensors for `fieldmark parity`, in f32 and bf16
#   generation   greedy answers are those of flex, and a seed repeats its samples
#   updates      the losses of an SFT and a TAPO run are those of flex
#   memory       the peak of SFT and TAPO steps against `fieldmark plan`
#   speed        benches/README.md at 3B's shape beside torch: SIZE=3B|173M|30M LAYERS=N DTYPES="bf16 f32" NAMES="prefill;SFT"
#                and TIMES=N runs after the first, of which the fastest counts (as many as suit the work)
# PHOTOS=N takes N photographs of each of four kinds, 2 to 4 (4), for all parts but parity and speed. For an adapter that is
# software: PHOTOS=2 TIMES=1 LIMIT=1800 tests/gpu.sh wgpu
# Rows and logs stay in RESULTS/DEVICE (RESULTS: target/gpu). The table of all rows there is printed at the end, and goes to
# $OUT too if that is set. The exit code is 1 if a check failed.
set -uo pipefail
cd "$(dirname "$0")/.."
all="parity generation updates memory speed"
device=cuda parts=
for argument in "$@"; do
  case " $all " in
    *" $argument "*) parts="$parts $argument" ;;
    *) case $argument in
         flex | cuda | cuda:* | wgpu | wgpu:* | vulkan | vulkan:* | metal | metal:* | rocm | rocm:*) device=$argument ;;
         *) echo "error: \`$argument\` is neither a device nor one of the parts: $all" >&2; exit 2 ;;
       esac ;;
  esac
done
kind=${device%%:*}
if [ -d bin ]; then bin=$PWD/bin; else bin=${BIN:-$PWD/target/release}; fi
for needed in "$bin/fieldmark" "$bin/speed"; do
  [ -x "$needed" ] || { echo "error: $needed is missing; build it with tests/pack-gpu.sh, or set BIN" >&2; exit 2; }
done
# Libraries that an ordinary machine may lack come with the archive; only our binaries may see them.
library=(env)
if [ -d lib ]; then library+=("LD_LIBRARY_PATH=$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"); fi
python=${PYTHON:-python3} limit=${LIMIT:-540} photos=${PHOTOS:-4}
# A positive is another photograph of the same kind, so TAPO needs two of each.
case $photos in [2-4]) ;; *) echo "error: PHOTOS=$photos: must be 2, 3 or 4" >&2; exit 2 ;; esac
# Rows of one device never stand in the table of another.
results=${RESULTS:-target/gpu}/${device/:/-}
mkdir -p "$results"/{rows,logs,work}
results=$(realpath "$results") work=$results/work helper=$PWD/tests/gpu.py
if [ "$kind" = cuda ]; then
  # A driver alone lacks one file of the toolkit. The folder has the toolkit's form and nothing else in it.
  libdevice=$("$python" "$helper" libdevice) || exit 2
  mkdir -p "$results/cuda/nvvm/libdevice"
  ln -sf "$libdevice" "$results/cuda/nvvm/libdevice/"
  library+=("CUDA_PATH=$results/cuda")
elif [ -z "${XDG_RUNTIME_DIR:-}" ]; then
  # Mesa asks a desktop for its card and prints an error where no desktop is.
  library+=("XDG_RUNTIME_DIR=$results")
fi
recipe=(-c tests/few-rollouts.toml -c "$work/recipe.toml")
if [ "$kind" = cuda ]; then rehearsal=; size=${SIZE:-3B}; else rehearsal=yes; size=${SIZE:-30M}; fi
layers=${LAYERS:-${rehearsal:+1}}

# A run that is asked to stop first finishes its step, which may take longer than the machine is lent for.
fieldmark() { timeout -k 20 "$limit" "${library[@]}" "$bin/fieldmark" "$@"; }
# row FILE CHECK FOUND AGAINST VERDICT
row() {
  printf '%s\t%s\t%s\t%s\n' "$2" "$3" "$4" "$5" >>"$results/rows/$1.tsv"
  printf '%s: %s (%s): %s\n' "$2" "$3" "$4" "$5"
}
verdict() { case $1 in 0) echo ok ;; 3) echo "not judged" ;; *) echo FAIL ;; esac; }
last() { tail -n 1 "$1" | cut -c 1-200; }
# why CODE LOG: what a command that failed says.
why() { case $1 in 124 | 137) echo "stopped after $limit seconds" ;; *) last "$2" ;; esac; }
supports() { "$python" "$helper" supports "$results/logs/devices.log" "$kind" "$1"; }

parity() {
  local code=0 folder name dtype log
  supports f32 || code=1
  row parity "device $device" "$("$python" "$helper" device "$results/logs/devices.log" "$kind")" \
    "plain loops in f64" "$(verdict $code)"
  for folder in qwen2_5_vl_tiny qwen2_5_vl_tiny_untied tapo image_processor chat_template; do
    for dtype in f32 bf16; do
      # The other folders have no model, so a number format of weights changes nothing in them.
      case $dtype-$folder in bf16-qwen*) ;; bf16-*) continue ;; esac
      name="parity $folder, $dtype"
      if [ "$dtype" = bf16 ] && ! supports bf16; then
        row parity "$name" '`fieldmark devices` lists no bf16' - skipped
        continue
      fi
      log=$results/logs/parity-$folder-$dtype.log
      fieldmark parity --device "$device" --dtype "$dtype" --tokenizer tests/fixtures/tokenizer/tokenizer.json.gz \
        "tests/fixtures/$folder" >"$log" 2>&1
      code=$?
      row parity "$name" "$("$python" "$helper" parity "$log")" "the reference in f32" "$(verdict $code)"
    done
  done
}

# A few photographs, a tiny checkpoint, and the runs on flex that the device is compared with.
prepare() {
  [ "$(cat "$work/ready" 2>/dev/null)" = "$photos" ] && return
  rm -rf "$work" && mkdir -p "$work"
  "$python" "$helper" data assets/produce "$work" "$photos" &&
    fieldmark init --corpus "$work/texts.txt" --out "$work/base" >"$results/logs/prepare.log" 2>&1 &&
    train sft flex "$work/base" "$work/sft-flex" >>"$results/logs/prepare.log" 2>&1 &&
    echo "$photos" >"$work/ready"
}

# train STAGE DEVICE CHECKPOINT OUTPUT [MORE...]
train() {
  fieldmark "$1" "${recipe[@]}" --device "$2" --set "model.path=$3" --set "output=$4" --overwrite "${@:5}"
}

generation() {
  local photo found= ours theirs asked=0 different=0 code=0
  if ! prepare; then row generation "a checkpoint for the answers" "$(last "$results/logs/prepare.log")" flex FAIL; return; fi
  ask() { fieldmark ask --model "$work/sft-flex/checkpoint" --max-new-tokens 32 "$@" "What is in this photograph?"; }
  : >"$results/logs/generation.log"
  while read -r photo; do
    ours=$(ask --device "$device" --image "$photo" 2>>"$results/logs/generation.log") || code=1
    theirs=$(ask --device flex --image "$photo" 2>>"$results/logs/generation.log") || code=1
    asked=$((asked + 1))
    if [ "$ours" != "$theirs" ]; then different=$((different + 1)); code=1; fi
    printf '%s\n  %s: %s\n  flex: %s\n' "$photo" "$device" "$ours" "$theirs" >>"$results/logs/generation.log"
  done < <("$python" "$helper" photographs "$work" 4)
  if [ $code != 0 ]; then found=$(grep -m 1 '^error' "$results/logs/generation.log" | cut -c 1-200); fi
  row generation "greedy answers, f32" "${found:-$different of $asked differ}" "flex: none" "$(verdict $code)"
  code=0
  photo=$("$python" "$helper" photographs "$work" 1)
  sample() { ask --device "$device" --image "$photo" --temperature 1 --seed "$1" 2>>"$results/logs/generation.log"; }
  ours=$(sample 3) && theirs=$(sample 3) && [ "$ours" = "$theirs" ] && [ "$ours" != "$(sample 4)" ] || code=1
  row generation "samples of a seed" "$([ $code = 0 ] && echo repeat || echo "do not repeat, or are those of another seed")" \
    "twice the same seed, once another" "$(verdict $code)"
}

updates() {
  local stage start log code found
  if ! prepare; then row updates "a checkpoint to train" "$(last "$results/logs/prepare.log")" flex FAIL; return; fi
  for stage in sft tapo; do
    if [ $stage = sft ]; then start=$work/base; else start=$work/sft-flex/checkpoint; fi
    log=$results/logs/updates-$stage.log
    train $stage "$device" "$start" "$work/$stage-device" >"$log" 2>&1
    code=$?
    if [ $code -eq 0 ] && [ ! -e "$work/$stage-flex/checkpoint" ]; then
      train $stage flex "$start" "$work/$stage-flex" >>"$log" 2>&1 || code=$?
    fi
    if [ $code -ne 0 ]; then row updates "$stage updates" "$(why $code "$log")" flex FAIL; continue; fi
    found=$("$python" "$helper" losses $stage "$work/$stage-device" "$work/$stage-flex")
    code=$?
    row updates "$stage updates, losses" "${found%%|*}" "${found#*|}" "$(verdict $code)"
  done
}

memory() {
  local stage start log code found planned idle
  # The weights must outweigh the runtime: 1.0 billion parameters on a card, 8 million elsewhere.
  if ! prepare || ! "$python" "$helper" shape "$work" "${rehearsal:-}" ||
    { [ ! -e "$work/wide/model.safetensors" ] && ! fieldmark init --shape "$work/wide.toml" --corpus "$work/texts.txt" \
      --max-parameters 2000000000 --out "$work/wide" >"$results/logs/memory.log" 2>&1; }; then
    row memory "a checkpoint of some size" "$(last "$results/logs/memory.log")" - FAIL
    return
  fi
  idle=$("$python" "$helper" watch "$kind" "$limit" "$results/logs/idle.log" "${library[@]}" "$bin/fieldmark" devices)
  for stage in sft tapo; do
    log=$results/logs/memory-$stage.log
    rm -rf "$work/wide-$stage"
    planned=$(fieldmark plan "${recipe[@]}" --stage $stage --tokens 128 --set "model.path=$work/wide" 2>"$log")
    found=$("$python" "$helper" watch "$kind" "$limit" "$log" "${library[@]}" "$bin/fieldmark" $stage "${recipe[@]}" \
      --device "$device" --set "model.path=$work/wide" --set "output=$work/wide-$stage" --overwrite \
      --set $stage.epochs=1)
    code=$?
    if [ $code -ne 0 ]; then row memory "$stage, peak memory" "$(last "$log")" "the plan" FAIL; continue; fi
    found=$("$python" "$helper" peak "$work/wide-$stage" "$found" "$idle" "$planned" "$kind")
    code=$?
    row memory "$stage, peak memory" "${found%%|*}" "${found#*|}" "$(verdict $code)"
  done
  rm -rf "$work"/wide-sft "$work"/wide-tapo
}

speed() {
  local dtype name names log code ours theirs torch=cpu arguments
  local work="prefill 512;decode step, batch 1;decode step, batch 10;decode step, batch 64;10 rollouts of 65 tokens"
  work="$work;80 rollouts of 64 tokens on 8 prompts;SFT step, 4 x 512, recompute"
  work="$work;TAPO update, group of 10, prompt 512, responses 64, recompute"
  if [ "$kind" = cuda ]; then torch=$device; fi
  IFS=';' read -ra names <<<"${NAMES:-$work}"
  for dtype in ${DTYPES:-bf16 f32}; do
    : >"$results/rows/speed-$dtype.tsv"
    if ! supports "$dtype"; then
      row "speed-$dtype" "$size, $dtype" "\`fieldmark devices\` lists no $dtype" - skipped
      continue
    fi
    for name in "${names[@]}"; do
      log=$results/logs/speed-$dtype-${name//[^A-Za-z0-9]/-}
      # The sign keeps "batch 1" from choosing "batch 10" too.
      arguments=(--size "$size" --dtype "$dtype" ${layers:+--layers "$layers"} ${TIMES:+--times "$TIMES"} "=$name")
      ours=$("$python" "$helper" watch "$kind" "$limit" "$log.log" "${library[@]}" "$bin/speed" --device "$device" \
        "${arguments[@]}")
      code=$?
      if [ $code -ne 0 ]; then row "speed-$dtype" "$size, $dtype: $name" "$(last "$log.log")" - FAIL; continue; fi
      theirs=
      if "$python" -c 'import torch, transformers' 2>/dev/null; then
        timeout "$limit" "$python" benches/peers/reference.py --device "$torch" "${arguments[@]}" \
          >"$log.torch" 2>"$log.torch.log" ||
          theirs=failed
      else
        theirs=absent
      fi
      "$python" "$helper" compare "$log.log" "$log.torch" "$ours" "$theirs" "${rehearsal:-}" |
        while IFS='|' read -r check found against judged; do
          row "speed-$dtype" "$size${layers:+, layers $layers}, $dtype: $check" "$found" "$against" "$judged"
        done
    done
  done
}

fieldmark devices >"$results/logs/devices.log" 2>&1
for part in ${parts:-$all}; do
  echo "== $part on $device"
  rm -f "$results/rows/$part.tsv"
  $part
done
{
  "$python" "$helper" table "$results/rows" "$device" "${rehearsal:-}" "$(fieldmark --version)"
} | tee "$results/table.md"
failed=$?
if [ -n "${OUT:-}" ]; then cp -r "$results/table.md" "$results/rows" "$results/logs" "$OUT/"; fi
exit $failed
