#!/usr/bin/env bash
# Runs docs/your-own-photographs.md as written: its `sh` blocks, one after another, in an empty folder. Then looks for the
# files that the page names.
#   tests/your-own-photographs.sh [BINARY]      default: target/release/fieldmark, built first
set -euo pipefail
cd "$(dirname "$0")/.."
export FIELDMARK=$PWD
if [ $# -eq 0 ]; then
  cargo build --release --locked
fi
binary=$(realpath "${1:-target/release/fieldmark}")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir "$place/bin" "$place/work"
ln -s "$binary" "$place/bin/fieldmark"

# A block in a list is indented: its lines lose the indentation of its fence. Each section is announced.
awk '/^## / { printf "echo \"== %s\"\n", substr($0, 4) }
     inside && /^ *```$/ { inside = 0 }
     inside { print substr($0, indent + 1) }
     /^ *```sh$/ { inside = 1; match($0, /^ */); indent = RLENGTH }' docs/your-own-photographs.md >"$place/page.sh"

cd "$place/work"
PATH=$place/bin:$PATH bash -euo pipefail ../page.sh
for left in photos/labels.csv sft.jsonl base/model.safetensors runs/sft/checkpoint/model.safetensors runs/sft/loss.svg \
  runs/sft-eval/predictions.jsonl runs/sft-eval/report.txt runs/tapo/rollouts.jsonl runs/tapo/reward.svg \
  runs/tapo/checkpoint/model.safetensors runs/tapo-eval/report.txt; do
  if [ ! -s "$left" ]; then
    echo "docs/your-own-photographs.md: its commands leave no $left" >&2
    exit 1
  fi
done
echo "== ok: $SECONDS s"
