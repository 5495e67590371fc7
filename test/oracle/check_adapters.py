#!/usr/bin/env python3
"""Loads saved LoRA adapters in peft and compares their rewards with those of implex.

usage: check_adapters.py REQUEST.json       (needs: pip install torch transformers peft)

REQUEST.json is a list of
  base       folder of the base model
  adapter    folder saved by implex train --lora-rank
  kind       "explicit": AutoModelForSequenceClassification, the logit; "implicit": beta (ln pi - ln pi with the adapter off)
  pad        explicit: the padding token that the model card names
  beta       implicit
  rows[i].prompt|chosen|rejected   texts
  rows[i].rewards                  [chosen, rejected] by implex
Prints one line per entry: the largest difference, relative to the largest reward, or "no classifier" for a family that transformers has
none of. Exits with 1 when one is beyond 1e-4, or when a tensor of the adapter's file is not in the model that peft makes of it.
"""
import json, os, sys
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
from check_saved import logprob, padded, tokenize


def loaded(entry):
    explicit = entry["kind"] == "explicit"
    auto = AutoModelForSequenceClassification if explicit else AutoModelForCausalLM
    extra = dict(num_labels=1, pad_token_id=entry["pad"]) if explicit else {}
    base = auto.from_pretrained(entry["base"], dtype=torch.float32, attn_implementation="eager", **extra)
    file = load_file(os.path.join(entry["adapter"], "adapter_model.safetensors"))
    tables = [tensor for name, tensor in file.items() if "embed" in name]
    if tables:
        base.resize_token_embeddings(tables[0].shape[0], mean_resizing=False)
    model = PeftModel.from_pretrained(base, entry["adapter"]).eval()
    state = model.state_dict()
    for name, tensor in file.items():
        stem, end = name.rsplit(".", 1)
        places = [name, f"{stem}.default.{end}", f"{stem}.modules_to_save.default.{end}"]
        assert any(place in state and torch.equal(state[place], tensor) for place in places), f"{name} is not in the model"
    assert sum("lora_" in name for name in state) == sum("lora_" in name for name in file), "peft adapts other modules"
    return model


def explicit(entry, sequences):
    model = loaded(entry)
    ids, mask = padded([prompt + response for pair in sequences for prompt, response in pair], entry["pad"])
    return model(input_ids=ids, attention_mask=mask).logits[:, 0].double().tolist()


def implicit(entry, sequences):
    model = loaded(entry)
    out = []
    for pair in sequences:
        for prompt, response in pair:
            on = logprob(model, prompt, response)
            with model.disable_adapter():
                off = logprob(model, prompt, response)
            out.append(entry["beta"] * (on - off))
    return out


def main():
    failed = False
    with open(sys.argv[1]) as file:
        request = json.load(file)
    for entry in request:
        kind = AutoConfig.from_pretrained(entry["base"]).model_type
        if entry["kind"] == "explicit" and kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
            print(f"{kind}, explicit: no classifier")
            continue
        tokenizer = PreTrainedTokenizerFast.from_pretrained(entry["adapter"])
        sequences = [tokenize(tokenizer, row) for row in entry["rows"]]
        with torch.no_grad():
            rewards = (explicit if entry["kind"] == "explicit" else implicit)(entry, sequences)
        expected = [reward for row in entry["rows"] for reward in row["rewards"]]
        scale = max(map(abs, expected))
        worst = max(abs(a - b) for a, b in zip(rewards, expected)) / scale
        failed |= not worst < 1e-4
        print(f"{kind}, {entry['kind']}: {len(expected)} rewards, largest relative difference {worst:.1e}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
