#!/usr/bin/env bash
# Builds the command and the benchmarks for a card and packs them with all that tests/gpu.sh needs. The archive runs on an
# x86-64 Linux with this machine's glibc or a later one, Python, and a driver for the card; it needs no Rust there.
#   tests/pack-gpu.sh [ARCHIVE]      default: target/fieldmark-gpu.tar.xz; refused above 60 MiB
# DEVICES="cuda wgpu" chooses what is built beside flex; CARGO_TARGET_DIR as usual. BIN=DIR packs what is built there already.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target} limit=$((60 << 20))
archive=${1:-$target/fieldmark-gpu.tar.xz}
features=fieldmark-cli/flex
for device in ${DEVICES:-cuda wgpu}; do
  features=$features,fieldmark-cli/$device,fieldmark-benches/$device
done
if [ -z "${BIN:-}" ]; then
  # Without the dashboard: nobody watches a terminal there.
  cargo build --release --locked --no-default-features -p fieldmark-cli -p fieldmark-benches --features "$features" \
    --bin fieldmark --bin speed
fi
binaries=${BIN:-$target/release}

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
pack=$place/fieldmark-gpu
mkdir -p "$pack"/{bin,lib,tests/fixtures,benches/peers,assets/produce}
for binary in fieldmark speed; do
  strip -o "$pack/bin/$binary" "$binaries/$binary"
done
# What every Linux with a driver has stays out: packing glibc would break it, and torch needs the compiler's libraries anyway.
ldd "$pack"/bin/* | awk '/=> not found/ { print "error: " $1 " is missing here" > "/dev/stderr"; bad = 1 }
  $2 == "=>" && $3 ~ "^/" { print $3 } END { exit bad }' | sort -u |
  { grep -Ev '/(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+)\.so' || true; } |
  while read -r library; do
    echo "packs $library"
    cp -L "$library" "$pack/lib/"
  done
case $features in *cuda*)
  if libdevice=$("${PYTHON:-python3}" tests/gpu.py libdevice); then
    echo "packs $libdevice"
    cp -L "$libdevice" "$pack/lib/"
  else
    echo "warning: the archive lacks libdevice.10.bc, so the machine with the card must have it" >&2
  fi ;;
esac
for folder in qwen2_5_vl_tiny qwen2_5_vl_tiny_untied tapo image_processor chat_template tokenizer; do
  cp -r "tests/fixtures/$folder" "$pack/tests/fixtures/"
done
cp tests/gpu.sh tests/gpu.py tests/few-rollouts.toml "$pack/tests/"
cp benches/peers/reference.py benches/peers/sized.py "$pack/benches/peers/"
cp assets/produce/LICENSE assets/produce/labels.csv "$pack/assets/produce/"
python3 tests/gpu.py few assets/produce/labels.csv | while read -r photograph; do
  mkdir -p "$pack/assets/produce/${photograph%/*}"
  cp "assets/produce/$photograph" "$pack/assets/produce/$photograph"
done
rmdir "$pack/lib" 2>/dev/null || true
# Both binaries link the same libraries; a dictionary longer than one of them packs the second almost for nothing.
tar -C "$place" -cf - fieldmark-gpu | xz -T1 --lzma2=preset=6,dict=256MiB >"$archive.part"
bytes=$(stat -c %s "$archive.part")
if [ "$bytes" -gt $limit ]; then
  rm "$archive.part"
  echo "error: the archive has $bytes bytes, more than $limit; build for fewer devices, as in DEVICES=cuda" >&2
  exit 1
fi
mv "$archive.part" "$archive"
echo "$archive: $bytes bytes, $((bytes >> 20)) MiB"
echo "there: tar xJf ${archive##*/} && cd fieldmark-gpu && tests/gpu.sh"
