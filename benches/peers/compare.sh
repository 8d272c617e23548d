#!/usr/bin/env bash
# Runs ours and the reference alternately, twice each, on two threads, and prints the best time of each and the ratio
# (above 1: ours is faster). Arguments select work by parts of its name.
#   benches/peers/compare.sh [NAME...]
set -euo pipefail
cd "$(dirname "$0")/../.."
export RAYON_NUM_THREADS=2 OMP_NUM_THREADS=2
cargo build --release -q -p fieldmark-benches --bin speed
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for _ in 1 2; do
  ./target/release/speed "$@" >>"$out/ours"
  python3 benches/peers/reference.py "$@" 2>/dev/null >>"$out/reference"
done
date -u +'%Y-%m-%d, two threads, f32'
grep -m1 'model name' /proc/cpuinfo 2>/dev/null | cut -d: -f2 || true
python3 - "$out" <<'PY'
import sys, pathlib
def read(name):
    best = {}
    for line in pathlib.Path(sys.argv[1], name).read_text().splitlines():
        key, value = line.split("\t")
        best[key] = min(best.get(key, 1e12), float(value))
    return best
ours, reference = read("ours"), read("reference")
print("| work | ours, ms | reference, ms | ratio |\n| --- | --- | --- | --- |")
for name in ours:
    if name in reference:
        print(f"| {name} | {ours[name]:.1f} | {reference[name]:.1f} | {reference[name] / ours[name]:.2f} |")
PY
