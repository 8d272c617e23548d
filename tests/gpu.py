"""What tests/gpu.sh needs beyond a shell: data, peaks of memory, comparisons and the table. The standard library only."""
import csv
import datetime
import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import time

QUESTION = "What is in this photograph?"
RECIPE = """
[data]
images = "{work}/photos"
labels = "{work}/photos"
question = "{question}"
[data.sft]
file = "{work}/sft.jsonl"
sizes = {{ resize = "once", min_pixels = 12544, max_pixels = 12544 }}
[data.tapo]
prompt = "bare"
sizes = {{ resize = "once", min_pixels = 12544, max_pixels = 12544 }}
[sft]
epochs = 4
batch = 4
micro_batch = 2
schedule = {{ lr = 1e-3 }}
train = {{ vision = true, projector = true }}
"""
# The exit code for a measurement that no bound fits.
NOT_JUDGED = 3
# Losses of SFT: the bound of `fieldmark parity` for the same thing, which is ten times what two versions of transformers differ
# by. Losses of TAPO are a hundred times smaller, so their bound is relative; it holds only if every rollout is the same.
BOUNDS = {"sft": lambda loss: 2e-4, "tapo": lambda loss: 1e-3 * abs(loss) + 1e-6}


# Where Burn looks for a CUDA toolkit, and for NVIDIA's exp, log and the like in it.
TOOLKITS = ("/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr")
LIBDEVICE = "libdevice.10.bc"
IN_TOOLKIT = f"nvvm/libdevice/{LIBDEVICE}"


def libdevice():
    """The file that Burn links into every CUDA kernel with an exp or a log, when it first runs the kernel: of the toolkit that
    CUDA_PATH names, of the archive, of an installed toolkit, or of a Python package (torch brings triton)."""
    named, archive = os.environ.get("CUDA_PATH"), pathlib.Path(__file__).resolve().parent.parent / "lib" / LIBDEVICE
    found = [pathlib.Path(named, IN_TOOLKIT)] if named else []
    found += [archive] + [pathlib.Path(root, IN_TOOLKIT) for root in TOOLKITS]
    for folder in map(pathlib.Path, sys.path):
        found += [folder / "triton/backends/nvidia/lib" / LIBDEVICE, *sorted(folder.glob(f"nvidia/*/{IN_TOOLKIT}"))]
    file = next((file for file in found if file.is_file()), None)
    if file is None:
        print(f"error: {LIBDEVICE} is not on this machine, and Burn needs it to compile for CUDA: set CUDA_PATH to a CUDA "
              f"toolkit that has {IN_TOOLKIT}, or install the Python package triton, and set PYTHON to its Python", file=sys.stderr)
        return 1
    print(file.resolve())
    return 0


def few(labels, each=4):
    """So many training photographs of each of the first four kinds."""
    rows, taken = list(csv.DictReader(open(labels, encoding="utf-8"))), {}
    for row in rows:
        if row["split"] == "train" and (row["class"] in taken or len(taken) < 4):
            taken.setdefault(row["class"], []).append(row)
    return list(rows[0]), [row for kind in taken.values() for row in kind[:int(each)]]


def data(assets, work, each):
    """The photographs, their table, conversations, texts for a tokenizer, and the recipe."""
    assets, work = pathlib.Path(assets).resolve(), pathlib.Path(work)
    names, rows = few(assets / "labels.csv", each)
    photos = work / "photos"
    photos.mkdir()
    (photos / "images").symlink_to(assets / "images")
    with open(photos / "labels.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    texts = []
    with open(work / "sft.jsonl", "w", encoding="utf-8") as file:
        for row in rows:
            answer = f"<think>A kind of {row['super_category']}.</think><answer>{row['class']}</answer>"
            turns = [{"role": "user", "content": f"<image>{QUESTION}"}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns, "images": [row["path"]]}) + "\n")
            texts += [QUESTION, answer]
    (work / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    (work / "recipe.toml").write_text(RECIPE.format(work=work, question=QUESTION), encoding="utf-8")


def shape(work, rehearsal):
    """A model whose weights outweigh the runtime."""
    wide = (512, 1536, 2, 8) if rehearsal else (2048, 8192, 16, 16)
    text = "[text]\nhidden_size = {}\nintermediate_size = {}\nnum_hidden_layers = {}\nnum_attention_heads = {}\n".format(*wide)
    pathlib.Path(work, "wide.toml").write_text(text + "num_key_value_heads = 2\n", encoding="utf-8")


def photographs(work, count):
    photos = pathlib.Path(work, "photos")
    _, rows = few(photos / "labels.csv")
    step = max(1, len(rows) // count)
    print("\n".join(str(photos / row["path"]) for row in rows[::step][:count]))


def device_cells(log, kind):
    for line in pathlib.Path(log).read_text(encoding="utf-8", errors="replace").splitlines():
        cells = [cell.strip() for cell in re.split("[│┆|]", line) if cell.strip()]
        if cells and cells[0] == kind:
            return cells[1:]
    return ["no line for this device in the output of `fieldmark devices`"]


def device(log, kind):
    cells = device_cells(log, kind)
    works = len(cells) == 5
    print(f"matmul {cells[3]}, attention {cells[4]}" if works else cells[0][:200])
    return 0


def supports(log, kind, dtype):
    cells = device_cells(log, kind)
    return 0 if len(cells) == 5 and cells[("f32", "f16", "bf16").index(dtype)] == "yes" and "right" in cells[3] else 1


def parity(log):
    """The closing line of a report, and the tensor that is furthest out if one failed."""
    lines = pathlib.Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    failed = [line for line in lines if re.search(r"  FAIL\b", line)]
    found = lines[-1] if lines else "no output"
    if failed:
        most = max(failed, key=lambda line: float(line.split()[1]) if line.split()[1] != "NaN" else 1e99).split()
        found += f"; furthest out: {most[0]} by {most[1]}"
    print(found[:240])


def jsonl(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


def losses(stage, ours, theirs):
    """Prints what was found and the bound; fails if a loss is outside it or a rollout differs."""
    pairs = [[row["loss"] for row in jsonl(f"{run}/metrics.jsonl") if "loss" in row] for run in (ours, theirs)]
    same = len(pairs[0]) == len(pairs[1]) > 0
    worst, ok = 0.0, same
    for a, b in zip(*pairs):
        worst = max(worst, abs(a - b))
        # A NaN is inside no bound.
        ok = ok and abs(a - b) <= BOUNDS[stage](b)
    found = f"{len(pairs[0])} updates, at most {worst:.1e} apart"
    bound = "flex: at most 2e-4 apart" if stage == "sft" else "flex: at most 1e-3 of the loss + 1e-6 apart, the same rollouts"
    if not same:
        found = f"{len(pairs[0])} updates instead of {len(pairs[1])}"
    if stage == "tapo":
        answers = [[row["response"] for row in jsonl(f"{run}/rollouts.jsonl")] for run in (ours, theirs)]
        others = sum(a != b for a, b in zip(*answers)) + abs(len(answers[0]) - len(answers[1]))
        found += f"; {others} of {len(answers[1])} rollouts differ"
        ok = ok and others == 0 and answers[1]
    print(f"{found}|{bound}")
    return 0 if ok else 1


def on_card():
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return sum(int(line) for line in subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.split()) << 20
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def watch(kind, limit, log, *command):
    """Runs a command into `log` and prints its peak in bytes: on a card what it adds there, otherwise its resident set."""
    card = kind == "cuda"
    before, peak, ended = (on_card() or 0) if card else 0, 0, 0
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        end = time.monotonic() + float(limit)
        while ended == 0:
            if card:
                peak = max(peak, (on_card() or 0) - before)
            if time.monotonic() > end:
                os.killpg(process.pid, signal.SIGKILL)
                end = float("inf")
                file.write(f"stopped after {limit} seconds\n")
            time.sleep(0.1)
            # The system's own account of this one process, which a process too short to be seen has too.
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    print(peak if card else usage.ru_maxrss << 10)
    return 0 if status == 0 else 1


UNITS = {"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def size(count):
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def peak(run, measured, idle, plan, kind):
    """The peak that the device's allocator reports, against the plan and a tenth."""
    found = re.search(r"^peak +([\d.]+) ([kKMGT]?B)", plan, re.MULTILINE)
    if not found:
        print("`fieldmark plan` printed no peak|the plan")
        return 1
    planned, measured, idle = float(found[1]) * UNITS[found[2]], int(measured or 0), int(idle or 0)
    reported = max((row.get("peak_memory") or 0 for row in jsonl(f"{run}/timings.jsonl")), default=0)
    if kind == "flex":
        text = f"{size(reported)} in the process, files and kept pages included; {size(idle)} without a model"
    else:
        where = "on the card" if kind == "cuda" else "in the process"
        text = f"{size(reported)} reserved by the allocator; {size(measured)} {where}, {size(idle)} without a model"
    print(f"{text}|plan: {size(planned)} (a tenth more is allowed)")
    if kind == "flex":
        # The process also holds files and the pages that it keeps when a step frees them: it says nothing about the plan.
        return NOT_JUDGED
    return 0 if 0 < reported <= 1.1 * planned else 1


def times(path):
    lines = pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines() if os.path.exists(path) else []
    rows = [line.split("\t") for line in lines if "\t" in line]
    return {row[0]: row[1:] for row in rows}


def compare(ours, theirs, peak, absent, rehearsal):
    found, other = times(ours), times(theirs)
    if not found:
        print(f"{pathlib.Path(ours).stem}|nothing was timed|-|FAIL")
    for name, (ms, *_) in found.items():
        line = f"{name}|{float(ms):.2f} ms, peak {size(int(peak))}"
        if name in other and not absent:
            their = float(other[name][0])
            used = f", peak {size(int(other[name][1]))}" if len(other[name]) > 1 else ""
            judged = "ran" if rehearsal else f"{their / float(ms):.2f} times as fast"
            print(f"{line}|torch: {their:.2f} ms{used}|{judged}")
        else:
            print(f"{line}|torch: {absent or 'no such work'}|no opponent")


def table(rows, device, rehearsal, version):
    """Prints the table of all parts, and returns 1 if a check failed or there is none."""
    lines = []
    for part in ("parity", "generation", "updates", "memory", "speed-bf16", "speed-f16", "speed-f32"):
        path = pathlib.Path(rows, f"{part}.tsv")
        if path.exists():
            lines += [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    if rehearsal:
        print(f"**A rehearsal on `{device}`. Nothing in this table was measured on a card.**\n")
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        card = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip().replace("\n", "; ")
    except (OSError, subprocess.TimeoutExpired):
        card = ""
    versions = []
    for module in ("torch", "transformers"):
        command = [sys.executable, "-c", f"import {module}; print({module}.__version__)"]
        asked = subprocess.run(command, capture_output=True, text=True)
        versions.append(f"{module} {asked.stdout.strip() or 'absent'}")
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    print(f"{stamp}; device `{device}`; card, driver, memory: {card or 'no nvidia-smi'}; {version}; {', '.join(versions)}; "
          f"Python {platform.python_version()}, {os.cpu_count()} CPU cores\n")
    print("| check | found | bound or opponent | verdict |\n| --- | --- | --- | --- |")
    for line in lines:
        print("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |")
    failed = sum(line[-1] == "FAIL" for line in lines)
    print(f"\n{len(lines)} rows, {failed} failed")
    return 1 if failed or not lines else 0


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "photographs":
        arguments[1] = int(arguments[1])
    if command == "few":
        print("\n".join(row["path"] for row in few(arguments[0])[1]))
        sys.exit()
    known = (libdevice, data, shape, photographs, device, supports, parity, losses, watch, peak, compare, table)
    sys.exit({f.__name__: f for f in known}[command](*arguments) or 0)
