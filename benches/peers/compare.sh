#!/usr/bin/env bash
# Runs ours and the reference alternately, twice each, on two threads. Prints the best time of each, the ratio (above 1: ours
# is faster), and the peak memory of each process. Arguments choose work by parts of its name; each part has processes of its
# own.
#   benches/peers/compare.sh [NAME...]
# PYTHON=python3 runs the reference; SPEED=FILE is a binary of ours that is built already.
set -euo pipefail
cd "$(dirname "$0")/../.."
export RAYON_NUM_THREADS=2 OMP_NUM_THREADS=2 PYTHON=${PYTHON:-python3}
if [ -z "${SPEED:-}" ]; then
  cargo build --release -q -p fieldmark-benches --bin speed
  export SPEED=${CARGO_TARGET_DIR:-target}/release/speed
fi
date -u +'%Y-%m-%d, two threads, f32'
grep -m1 'model name' /proc/cpuinfo 2>/dev/null | cut -d: -f2 || true
exec "$PYTHON" - "$@" <<'PY'
import os, subprocess, sys

NAMES = ["vision encode", "prefill 512", "decode step", "10 rollouts of 65 tokens", "geometric lengths", "80 rollouts of 64 tokens",
         "SFT step, 1 x 512", "SFT step, 4 x 512", "TAPO update, 2 x 512", "TAPO update, group of 10"]
SIDES = [[os.environ["SPEED"]], [os.environ["PYTHON"], "benches/peers/reference.py"]]


def run(command, name):
    """Times by name in ms, and the peak memory of the process in GB."""
    process = subprocess.Popen(command + [name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        print(f"{' '.join(command)} {name!r} failed", file=sys.stderr)
    return {key: float(value) for key, value in (line.split("\t") for line in lines)}, usage.ru_maxrss * 1024 / 1e9


print("| work | ours, ms | reference, ms | ratio | ours, peak GB | reference, peak GB |")
print("| --- | --- | --- | --- | --- | --- |")
for name in sys.argv[1:] or NAMES:
    best = [{}, {}]
    peak = [0.0, 0.0]
    for _ in range(2):
        for side, command in enumerate(SIDES):
            times, memory = run(command, name)
            peak[side] = max(peak[side], memory)
            for key, value in times.items():
                best[side][key] = min(best[side].get(key, value), value)
    for key in best[0]:
        if key in best[1]:
            ours, reference = best[0][key], best[1][key]
            print(f"| {key} | {ours:.1f} | {reference:.1f} | {reference / ours:.2f} | {peak[0]:.1f} | {peak[1]:.1f} |", flush=True)
PY
