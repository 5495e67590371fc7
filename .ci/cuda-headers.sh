#!/usr/bin/env bash
# Prints a folder whose include/ has cublasLt.h: the one that IMPLEX_CUBLAS_ROOT names, the CUDA toolkit's (an empty line), or one installed
# into FOLDER with ../shared/oracle/venv.sh. Fails with a reason where there is none.
#   .ci/cuda-headers.sh FOLDER
set -euo pipefail
folder=${1:?usage: cuda-headers.sh FOLDER}
cd "$(dirname "$0")/.."
if [ -n "${IMPLEX_CUBLAS_ROOT:-}" ]; then
  echo "$IMPLEX_CUBLAS_ROOT"
  exit 0
fi
toolkit=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
if [ -f "$toolkit/include/cublasLt.h" ] || compgen -G "$toolkit/targets/*/include/cublasLt.h" >/dev/null; then
  echo
  exit 0
fi
venv=${IMPLEX_SHARED:-../shared}/oracle/venv.sh
if [ ! -f "$venv" ]; then
  echo 'cublasLt.h was found neither in the CUDA toolkit nor through IMPLEX_CUBLAS_ROOT, and ../shared is absent' >&2
  exit 1
fi
if ! bash "$venv" "$folder/venv" nvidia-cublas >"$folder/log" 2>&1; then
  echo "installing nvidia-cublas failed: $(tail -n 1 "$folder/log")" >&2
  exit 1
fi
header=$(find "$folder/venv" -name cublasLt.h | head -n 1)
if [ -z "$header" ]; then
  echo 'the package nvidia-cublas has no cublasLt.h' >&2
  exit 1
fi
dirname "$(dirname "$header")"
