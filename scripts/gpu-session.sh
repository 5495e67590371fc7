#!/usr/bin/env bash
# One session on a machine with an NVIDIA GPU: build what is missing, test, measure. Works in a checkout (Node, CMake, nvcc) and in a packed
# folder (nothing but a driver and cuBLASLt); see docs/gpu.md.
#   scripts/gpu-session.sh [--seconds N] [--tests-only | --bench-only] [-- OPTION...]     OPTIONs go to the benchmark
# --seconds: for everything (default 1500); a third for the tests, the rest for the benchmark.
#   OUT            folder of results (default gpu-results): test.json, bench.json, doctor.txt, session.txt
#   IMPLEX_PYTHON  a Python with PyTorch: its CUDA libraries are used, and it is the peer (default python3)
#   IMPLEX_DEVICE  cuda; cpu tries this script on a machine without a GPU, with tiny shapes
# Exit status: 0, 1 where a test failed or a result was wrong, 2 where the device cannot be used.
set -uo pipefail
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
cd "$root" || exit 2
seconds=1500 tests=1 bench=1
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --tests-only) bench=0; shift ;;
    --bench-only) tests=0; shift ;;
    --) shift; break ;;
    *) sed -n '4,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
out=${OUT:-gpu-results}
mkdir -p "$out" || exit 2
device=${IMPLEX_DEVICE:-cuda}
start=$SECONDS
left() { echo $((seconds - (SECONDS - start))); }
say() { printf '\n== %s (%d s left)\n' "$*" "$(left)"; }
exec > >(tee "$out/session.txt") 2>&1

# Node: the packed one, else the system's.
[ -x node/bin/node ] && PATH="$root/node/bin:$PATH"
command -v node >/dev/null || { echo 'there is no node: use a packed folder (npm run pack:portable)'; exit 2; }
python=${IMPLEX_PYTHON:-python3}
libraries=$(scripts/portable/cuda-libs)
[ -z "$libraries" ] || export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
if [ -z "${IMPLEX_PEER_PYTHON:-}" ] && "$python" -c 'import torch, transformers, safetensors' 2>/dev/null; then
  IMPLEX_PEER_PYTHON=$(command -v "$python")
  export IMPLEX_PEER_PYTHON
fi

# ---- build what is not there ------------------------------------------------------------------------------------------------------
for folder in /usr/local/cuda/bin "${CUDA_HOME:-/usr/local/cuda}/bin"; do
  command -v nvcc >/dev/null || { [ -x "$folder/nvcc" ] && PATH="$folder:$PATH"; }
done
if [ ! -e build/Release/implex.node ] && [ ! -e build-cmake/Release/implex.node ]; then
  say 'engine'
  node scripts/build-native.mjs default || exit 2
fi
[ -e dist/cli/main.js ] || { say 'TypeScript'; node node_modules/typescript/bin/tsc -p tsconfig.json || exit 2; }
if [ ! -x build-native/implex_parity ] && command -v cmake >/dev/null; then
  say 'native tests'
  node scripts/build-native.mjs tests || exit 2
fi
module=${IMPLEX_CUDA:-build-cmake/Release/implex_cuda.so}
if [ "$device" = cuda ] && [ ! -e "$module" ]; then
  if ! command -v nvcc >/dev/null || ! command -v cmake >/dev/null; then
    echo "there is no $module, and no nvcc and CMake to build it"
    exit 2
  fi
  say 'CUDA module'
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '.')
  [ "$capability" = 90 ] && capability=90a
  # A toolkit without cuBLASLt's header: PyTorch's packages may have one beside their libraries.
  headers=
  for folder in ${libraries//:/ }; do
    [ -e "${folder%/lib}/include/cublasLt.h" ] && headers=${folder%/lib}
  done
  cmake -S . -B build-cuda -DIMPLEX_BUILD_TESTS=OFF ${headers:+-DIMPLEX_CUBLAS_ROOT="$headers"} ${capability:+-DCMAKE_CUDA_ARCHITECTURES=$capability} &&
    cmake --build build-cuda --target implex_cuda --parallel || exit 2
  module=$(find build-cuda build-cmake -name 'implex_cuda.so' 2>/dev/null | head -n 1)
  [ -n "$module" ] || { echo 'the build left no implex_cuda.so: are there CUDA sources?'; exit 2; }
fi
[ "$device" = cpu ] || export IMPLEX_CUDA="$(readlink -f "$module")"

# ---- test and measure -------------------------------------------------------------------------------------------------------------
say 'doctor'
node dist/cli/main.js doctor | tee "$out/doctor.txt"
tiny=()
[ "$device" = cpu ] && tiny=(--tiny)
status=0
if [ "$tests" = 1 ]; then
  say 'tests'
  budget=$(left)
  [ "$bench" = 1 ] && budget=$((budget / 3))
  node dist/test/gpu/run.js --device "$device" --seconds "$budget" --out "$out/test.json" || status=$?
  [ "$status" = 2 ] && exit 2
fi
if [ "$bench" = 1 ]; then
  say 'benchmark'
  node dist/bench/gpu/run.js --device "$device" --seconds "$(left)" --out "$out/bench.json" "${tiny[@]}" "$@" \
    2>"$out/bench.log" || status=1
  [ -s "$out/bench.json" ] || tail -n 5 "$out/bench.log"
fi
say "results in $out"
exit "$status"
