#!/usr/bin/env bash
# transformers 5.18.0 checks the types of config.json strictly: a soft cap of 50 is refused where 50.0 is read, although JSON has one type of
# number and JavaScript, among others, writes 50.0 as 50. So a tool that reads the config.json of a Gemma-2 checkpoint, changes something else
# and writes it with JSON.stringify makes a checkpoint that transformers no longer opens. implex keeps whole floats as floats.
#
# Seen with transformers 5.18.0, Python 3.11:
#   50.0: read
#   50: StrictDataclassFieldValidationError
# Fails when this changes. Needs Python 3.10 or newer, pip and network access.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.18.0
"$work/venv/bin/python" - "$work" <<'PYTHON'
import json
import os
import sys

from transformers import AutoConfig, Gemma2Config

folder = os.path.join(sys.argv[1], "checkpoint")
Gemma2Config().save_pretrained(folder)
path = os.path.join(folder, "config.json")
seen = {}
for cap in (50.0, 50):
    with open(path) as file:
        config = json.load(file)
    config["attn_logit_softcapping"] = cap
    with open(path, "w") as file:
        json.dump(config, file)
    try:
        AutoConfig.from_pretrained(folder)
        seen[repr(cap)] = "read"
    except Exception as error:
        seen[repr(cap)] = type(error).__name__
for cap, outcome in seen.items():
    print(f"{cap}: {outcome}")
assert seen == {"50.0": "read", "50": "StrictDataclassFieldValidationError"}, "this has changed"
print("as described")
PYTHON
