#!/usr/bin/env python3
"""Merges adapters with peft and compares the tensors with those of implex merge-adapter, bit by bit.

usage: check_adapter.py REQUEST.json       (needs: pip install torch transformers peft)

REQUEST.json is a list of
  base, adapter   folders
  merged          folder that implex merge-adapter wrote
  head            number of labels of a classifier, 0 for a language model
  exact           true: all bits must be equal; false: DoRA, whose norms are sums in another order (1e-6 relative to a row's largest, and
                  one rounding of the base's type); null: tied embeddings, of which peft's merge changes both: no tensors are compared
What the merged folder of an f32 base computes is compared with the model that peft adds the adapter to without merging. (In 16 bits the
merge rounds.)
Prints one line per entry: how many tensors were compared, how many elements differ and by how much, and the largest difference of the
outputs, relative to the largest output. Exits with 1 when they may not.
"""
import json, sys
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

torch.set_num_threads(1)
failed = False
for entry in json.load(open(sys.argv[1], encoding="utf-8")):
    options = dict(num_labels=entry["head"]) if entry["head"] else {}
    cls = AutoModelForSequenceClassification if entry["head"] else AutoModelForCausalLM
    stored = load_file(entry["base"] + "/model.safetensors")
    dtype = max((t.dtype for t in stored.values()), key=lambda d: sum(t.numel() for t in stored.values() if t.dtype == d))
    base = cls.from_pretrained(entry["base"], dtype=dtype, **options)
    model = PeftModel.from_pretrained(base, entry["adapter"]).eval()
    ids = (torch.arange(24)[None] * 7 + 3) % 500
    with torch.no_grad():
        beside = model(input_ids=ids).logits.float()
        together = cls.from_pretrained(entry["merged"], dtype=dtype, **options).eval()(input_ids=ids).logits.float()
    outputs = float((beside - together).abs().max() / beside.abs().max())
    expected = model.merge_and_unload().state_dict() if entry["exact"] is not None else {}
    found = load_file(entry["merged"] + "/model.safetensors")
    missing = sorted(set(expected) - set(found)) if "lm_head.weight" in found or entry["head"] else sorted(set(expected) - set(found) - {"lm_head.weight", "embed_out.weight"})
    differing, worst, count = 0, 0.0, 0
    for name, want in expected.items():
        if name not in found:
            continue
        got = found[name]
        assert got.shape == want.shape, (name, got.shape, want.shape)
        count += 1
        got, want = got.to(want.dtype), want
        if torch.equal(got, want):
            continue
        differing += int((got != want).sum())
        gap = (got.float() - want.float()).abs()
        worst = max(worst, float((gap / want.float().abs().amax(-1, keepdim=True).clamp_min(1e-30)).max()))
    bound = 0.0 if entry["exact"] else max(1e-6, torch.finfo(dtype).eps)
    bad = (dtype == torch.float32 and outputs > 1e-5) or bool(missing) or (differing > 0 if entry["exact"] else worst > bound)
    failed |= bad
    print(f"{entry['merged']}: {count} tensors, {differing} elements differ, largest {worst:.2e}; outputs {outputs:.1e}{'; missing ' + ', '.join(missing) if missing else ''}{' FAILED' if bad else ''}")
sys.exit(failed)
