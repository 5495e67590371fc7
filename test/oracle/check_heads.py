#!/usr/bin/env python3
"""Computes published kinds of reward heads in PyTorch and compares them with the rewards of implex.

usage: check_heads.py REQUEST.json       (needs: pip install torch transformers safetensors)

REQUEST.json is a list of
  model      folder with a Llama-like body, its tokenizer and a head
  head       "process": two layers with ReLU, softmax over two labels at each step token; "gated": a linear layer of several labels at the
             last token, weighed by a gate that is read where the last turn before the answer ends; "steps": p(good) of good and bad
             tokens after each step token
  step       "process", "steps": the token that ends a step
  good, bad  "steps": the two tokens
  rows[i].prompt, rows[i].response    texts
  rows[i].rewards                     by implex: a list of step rewards, or of one reward
Everything is in double precision, from the weights on. Prints one line per entry: the largest difference, relative to the largest reward.
Exits with 1 when one is beyond 1e-4.
"""
import json, sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn.functional import linear, relu
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

torch.set_num_threads(2)


def last_pattern(ids, pattern):
    """Where the pattern begins for the last time."""
    starts = [i for i in range(len(ids) - len(pattern) + 1) if ids[i:i + len(pattern)] == pattern]
    return starts[-1]


def stack(tensors, name, hidden):
    """Layers NAME.0, NAME.1, ... that are there, with ReLU between them."""
    indices = sorted(int(key.split(".")[-2]) for key in tensors if key.startswith(f"{name}.") and key.endswith(".weight"))
    for i in indices:
        hidden = linear(hidden, tensors[f"{name}.{i}.weight"], tensors.get(f"{name}.{i}.bias"))
        if i != indices[-1]:
            hidden = relu(hidden)
    return hidden


def rewards(entry, row, model, tokenizer, tensors, config):
    turns = [{"role": "user", "content": row["prompt"]}]
    text = tokenizer.apply_chat_template(turns + [{"role": "assistant", "content": row["response"]}], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    out = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    hidden = out.hidden_states[-1][0]
    if entry["head"] == "gated":
        closed = tokenizer.apply_chat_template(turns, tokenize=False)
        opened = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        end = tokenizer(closed, add_special_tokens=False)["input_ids"][-1]
        pattern = [end] + tokenizer(opened[len(closed):], add_special_tokens=False)["input_ids"]
        logits = stack(tensors, "gating.layers", hidden[last_pattern(ids, pattern)])
        shares = (logits / config["gating_temperature"]).softmax(-1) * tensors["gating.logit_scale"][0]
        labels = linear(hidden[-1], tensors["regression_layer.weight"]) @ tensors["reward_transform_matrix"]
        return [(shares * labels).sum().item()]
    step = tokenizer.convert_tokens_to_ids(entry["step"])
    at = [i for i, token in enumerate(ids) if token == step]
    if entry["head"] == "process":
        return [stack(tensors, "score", hidden[i]).softmax(-1)[1].item() for i in at]
    pair = [tokenizer.convert_tokens_to_ids(entry[name]) for name in ("good", "bad")]
    return [out.logits[0, i, pair].softmax(-1)[0].item() for i in at]


def check(entry):
    folder = Path(entry["model"])
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    tensors = {name: value.double() for name, value in load_file(folder / "model.safetensors").items()}
    config = json.loads((folder / "config.json").read_text())
    error, size = 0.0, 0.0
    for row in entry["rows"]:
        want = rewards(entry, row, model, tokenizer, tensors, config)
        assert len(want) == len(row["rewards"]), f"{len(row['rewards'])} rewards, want {len(want)}"
        error = max([error] + [abs(a - b) for a, b in zip(want, row["rewards"])])
        size = max([size] + [abs(a) for a in want])
    return error / size


@torch.no_grad()
def main():
    bad = 0
    for entry in json.loads(Path(sys.argv[1]).read_text()):
        difference = check(entry)
        print(f"{entry['head']} {difference:.2e}")
        bad += not difference <= 1e-4
    sys.exit(bad > 0)


main()
