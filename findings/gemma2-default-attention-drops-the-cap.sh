#!/usr/bin/env bash
# Gemma-2 is trained with a soft cap on attention scores (attn_logit_softcapping, 50 in every published checkpoint). transformers 5.18.0
# picks its "sdpa" attention for the model by default, and that attention has no cap: the result is the one of a model without a cap, and no
# warning is printed. With attn_implementation="eager" the cap is there. A reward of a Gemma-2 reward model that was computed
# with the defaults is thus another number than the one that training saw.
#
# Seen with transformers 5.18.0 and torch 2.13.0 (CPU), Python 3.11:
#   attention by default: sdpa
#   default against eager: 1.42
#   default against no cap at all: 1e-06
# Fails when this changes. Needs Python 3.10 or newer, pip and network access.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.18.0 torch==2.13.0
"$work/venv/bin/python" - <<'PYTHON'
import torch
from transformers import AutoModelForCausalLM, Gemma2Config

config = Gemma2Config(
    vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
    intermediate_size=64, query_pre_attn_scalar=8, attn_logit_softcapping=0.5, final_logit_softcapping=None,
)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(config).eval()
for parameter in model.parameters():
    parameter.data.mul_(8)  # scores that a cap of 0.5 bends
tokens = torch.arange(20)[None]


def logits(attention=None):
    if attention:
        model.set_attn_implementation(attention)
    with torch.no_grad():
        return model(input_ids=tokens).logits


chosen = model.config._attn_implementation
default = logits()
eager = logits("eager")
for layer in model.model.layers:
    layer.self_attn.attn_logit_softcapping = None
without = logits("eager")
print("attention by default:", chosen)
print("default against eager: %.2f" % (default - eager).abs().max())
print("default against no cap at all: %.1g" % (default - without).abs().max())
assert chosen == "sdpa", "the default has changed"
assert (default - eager).abs().max() > 0.5, "the default now has the cap"
assert (default - without).abs().max() < 1e-4, "the default is no longer a model without a cap"
print("as described")
PYTHON
