#!/usr/bin/env bash
# FLOP utilisation of both trainings, a kill and a resume of each, seconds a scan of `detect`, and peak memory: one run
# of at most eight minutes on a GPU. Options and what is measured: benchmarks/gpu.py.
#     bash benchmarks/gpu.sh [--device cuda] [--peak-tflops X]        bash benchmarks/gpu.sh --device cpu --toy
set -euo pipefail
# gpu.py keeps its own limit (450 s), ends its processes and prints what it has; this one is for a device that hangs.
exec timeout --kill-after=10 465 python "$(dirname "$0")/gpu.py" "$@"
