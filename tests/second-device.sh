#!/usr/bin/env bash
# Checks a second device: compares it with the reference fixtures, compares TAPO on it (alone, and together with the CPU) with
# TAPO on the CPU alone, and compares the answers of a checkpoint of demo --photos on both devices.
# Builds with the feature `wgpu` (some minutes, unoptimised dependencies) and uses the adapter that Vulkan finds.
# Without a GPU that is Mesa's software adapter (Debian: apt-get install mesa-vulkan-drivers).
#   tests/second-device.sh [CHECKPOINT]      default: runs/photos/tapo/checkpoint, skipped if it is not there
set -euo pipefail
cd "$(dirname "$0")/.."
device=${DEVICE:-wgpu}
checkpoint=${1:-runs/photos/tapo/checkpoint}

cargo build --profile quick -p fieldmark-cli --features "${device%%:*}"
fieldmark=target/quick/fieldmark
"$fieldmark" devices

for case in qwen2_5_vl_tiny qwen2_5_vl_tiny_untied; do
  echo "== parity of $case on $device"
  "$fieldmark" parity --device "$device" "tests/fixtures/$case"
done

if [ ! -e "$checkpoint/model.safetensors" ]; then
  echo "no checkpoint in $checkpoint: run demo --photos --out runs/photos first to compare its answers"
  exit 0
fi
# Two photographs of each of four kinds; two rollout steps of two updates.
few=$(mktemp -d)
trap 'rm -rf "$few"' EXIT
ln -s "$PWD/assets/produce/images" "$few/images"
awk -F, 'NR == 1 { print } $5 == "train" && !($2 in kind) && kinds < 4 { kind[$2]; kinds++ }
         $5 == "train" && $2 in kind && seen[$2]++ < 2' assets/produce/labels.csv >"$few/labels.csv"
cat >"$few/recipe.toml" <<'END'
[data.tapo.sizes]
resize = "once"
min_pixels = 3136
max_pixels = 6272
END
for devices in flex "$device" "flex,$device"; do
  echo "== TAPO on $devices"
  "$fieldmark" tapo -c tests/few-rollouts.toml -c "$few/recipe.toml" --device "$devices" --set "output=$few/$devices" \
    --set "model.path=$checkpoint" --set "data.labels=$few"
done
losses() { grep -o '"loss":[-0-9.e]*' "$few/$1/metrics.jsonl" | cut -d: -f2; }
answers() { grep -o '"response":"[^"]*"' "$few/$1/rollouts.jsonl"; }
for devices in "$device" "flex,$device"; do
  paste <(losses flex) <(losses "$devices") |
    awk -v of="$devices" '{ d = $1 - $2; if (d < 0) d = -d; a = $1 < 0 ? -$1 : $1; if (d > 1e-3 * a + 1e-6) bad = 1; if (d > most) most = d }
         END { print of ": " NR " updates, losses differ by " most " at most"; exit bad || NR == 0 }'
  cmp <(answers flex) <(answers "$devices")
done

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
