#!/usr/bin/env bash
# All parts of benchmarks.gpu on an H100, in calls that should each take less than ten minutes.
#
#   bash benchmarks/gpu/calls.sh packages    # where there is a network: what such a machine lacks or has too old
#   bash benchmarks/gpu/calls.sh 1           # on the machine, then 2 to 12; rows go to $OUT too
#
# Written for machines with Python 3.12, torch 2.11 and transformers 5.17, which wants huggingface_hub below 2. The
# packages are 85 MB, 50 of them OpenCV's, which the detectors import.
set -euo pipefail
cd "$(dirname "$0")/../.."
packages=build/gpu-packages
names='diffusers|transformers|huggingface-hub|hf-xet|httpx2|httpcore2|truststore|anyio|idna|h11|click|accelerate'
names+='|pydantic|pydantic-core|pydantic-settings|python-dotenv|annotated-types|typing-inspection|importlib-metadata'
names+='|zipp|lazy-importer|requests|urllib3|certifi|charset-normalizer|pillow|opencv-python-headless'

if [ "${1:-}" = packages ]; then
  rm -rf "$packages"
  grep -E "^($names)==" requirements/worker.txt | cut -d' ' -f1 \
    | uv pip install --quiet --no-deps --python-version 3.12 --target "$packages" --requirement -
  tar czf "$packages.tar.gz" -C "$packages" .
  du -h "$packages.tar.gz"
  exit
fi

if [ ! -d "$packages" ] && [ -f "$packages.tar.gz" ]; then
  mkdir -p "$packages"
  tar xzf "$packages.tar.gz" -C "$packages"
fi
export PYTHONPATH="$PWD/$packages${PYTHONPATH:+:$PYTHONPATH}"
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$PWD/build/inductor}"
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
case "${1:-}" in
  1) set -- --runs 7 --sizes 1024 --parts check ours loras ;;
  2) set -- --runs 7 --sizes 1024 --parts ours loras --path compiled ;;
  3) set -- --runs 5 --sizes 512 1536 --parts ours batch ;;
  4) set -- --runs 5 --sizes 1024 --captions 32 200 500 --parts ours ;;
  5) set -- --runs 5 --sizes 1024 --parts diffusers --variants plain 'cuDNN attention' ;;
  6) set -- --runs 5 --sizes 1024 --parts diffusers --variants compiled ;;
  7) set -- --runs 2 --parts tier ;;
  8) set -- --runs 2 --parts tier --quantization int8 ;;
  9) set -- --runs 7 --sizes 1024 --parts ours loras --path compiled --quantization fp8 ;;
  10) set -- --runs 7 --sizes 1024 --parts ours --path 'compiled with SwiGLU' ;;
  11) set -- --runs 7 --sizes 512 1024 --parts ours --path 'compiled with graphs' ;;
  # Without code that another call has left, so that a compiler's seconds are told.
  12) export TORCHINDUCTOR_CACHE_DIR="$PWD/build/inductor-cold"; rm -rf "$TORCHINDUCTOR_CACHE_DIR"
      set -- --runs 5 --sizes 1024 --parts profile rates --path 'compiled with graphs' ;;
  *) echo "calls.sh: packages, or a number from 1 to 12" >&2; exit 2 ;;
esac
exec python3 -m benchmarks.gpu "$@"
