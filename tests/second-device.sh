#!/usr/bin/env bash
# A second device: parity with the reference on a GPU API, and the demo's checkpoint answering there as on the CPU.
# Builds with the feature `wgpu` (some minutes, unoptimised dependencies) and runs on whatever adapter Vulkan finds;
# without a GPU that is Mesa's software adapter (Debian: apt-get install mesa-vulkan-drivers).
#   tests/second-device.sh [CHECKPOINT]      default: runs/demo/tapo, skipped if it is not there
set -euo pipefail
cd "$(dirname "$0")/.."
device=${DEVICE:-wgpu}
checkpoint=${1:-runs/demo/tapo}

cargo build --profile quick -p fieldmark --bin fieldmark --features "${device%%:*}"
fieldmark=target/quick/fieldmark
"$fieldmark" devices

for case in qwen2_5_vl_tiny qwen2_5_vl_tiny_untied; do
  echo "== parity of $case on $device"
  "$fieldmark" parity --device "$device" "tests/fixtures/$case"
done

if [ ! -e "$checkpoint/model.safetensors" ]; then
  echo "no checkpoint in $checkpoint: run the demo first to compare its answers"
  exit 0
fi
different=0 asked=0
while IFS=, read -r path _; do
  [ "$path" = path ] && continue
  ours=$("$fieldmark" ask --device flex --model "$checkpoint" --image "assets/produce/$path" "Which produce is this?")
  theirs=$("$fieldmark" ask --device "$device" --model "$checkpoint" --image "assets/produce/$path" "Which produce is this?")
  asked=$((asked + 1))
  if [ "$ours" != "$theirs" ]; then
    different=$((different + 1))
    printf 'different: %s\n  flex: %s\n  %s: %s\n' "$path" "$ours" "$device" "$theirs"
  fi
done < <(awk -F, 'NR == 1 || NR % 44 == 2' assets/produce/labels.csv)
echo "$asked photographs asked on both devices, $different answers differ"
[ "$different" -eq 0 ]
