#!/usr/bin/env python3
"""Loads saved models in transformers and compares their rewards with those of implex.

usage: check_saved.py REQUEST.json       (needs: pip install torch transformers)

REQUEST.json is a list of
  model      folder saved by implex train
  kind       "explicit": AutoModelForSequenceClassification, the logit; "implicit": AutoModelForCausalLM, beta (ln pi - ln pi_ref)
  reference  implicit: folder of the reference, or null for none; with fewer rows than the model, it is resized with their mean
  beta       implicit
  rows[i].prompt|chosen|rejected   texts
  rows[i].rewards                  [chosen, rejected] by implex
Prints one line per entry: the largest difference, relative to the largest reward, or null. Exits with 1 when one is beyond 1e-4.
"""
import json, os, sys
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

torch.set_num_threads(2)


def tokenize(tokenizer, row):
    """Prompt and response ids: rendered by the saved template, tokenized apart."""
    prompt = [{"role": "user", "content": row["prompt"]}]
    before = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    out = []
    for side in ("chosen", "rejected"):
        whole = tokenizer.apply_chat_template(prompt + [{"role": "assistant", "content": row[side]}], tokenize=False)
        assert whole.startswith(before), "the template does not begin a conversation with its prompt"
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, whole[len(before):])]
        out.append(ids)
    return out


def padded(sequences, pad):
    length = max(map(len, sequences))
    ids = torch.full((len(sequences), length), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, sequence in enumerate(sequences):
        ids[i, :len(sequence)] = torch.tensor(sequence)
        mask[i, :len(sequence)] = 1
    return ids, mask


def loaded(kind, path):
    """Every tensor of the file has a place, and every place a tensor."""
    # The other implementations of attention leave Gemma 2's soft cap out.
    model, info = kind.from_pretrained(path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    wrong = {key: value for key, value in info.items() if value}
    assert not wrong, f"{path}: {wrong}"
    return model.eval()


def headless(entry, sequences):
    """transformers has no classifier of this family: the body's last hidden state times the saved head."""
    body = AutoModel.from_pretrained(entry["model"], dtype=torch.float32).eval()
    head = load_file(os.path.join(entry["model"], "model.safetensors"))["score.weight"][0].double()
    return [(body(input_ids=torch.tensor([prompt + response])).last_hidden_state[0, -1].double() @ head).item()
            for pair in sequences for prompt, response in pair]


def explicit(entry, tokenizer, sequences):
    if AutoConfig.from_pretrained(entry["model"]).model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        return headless(entry, sequences)
    model = loaded(AutoModelForSequenceClassification, entry["model"])
    assert model.config.num_labels == 1, f"num_labels is {model.config.num_labels}"
    assert model.config.pad_token_id is not None, "pad_token_id is not set"
    # In one padded batch: the padding token must not hide the token that the reward is read from.
    ids, mask = padded([prompt + response for pair in sequences for prompt, response in pair], model.config.pad_token_id)
    return model(input_ids=ids, attention_mask=mask).logits[:, 0].double().tolist()


def logprob(model, prompt, response):
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0].double()
    logp = logits[len(prompt) - 1:-1].log_softmax(-1)
    return logp.gather(1, torch.tensor(response)[:, None]).sum().item()


def implicit(entry, tokenizer, sequences):
    model = loaded(AutoModelForCausalLM, entry["model"])
    reference = None
    if entry["reference"] is not None:
        reference = loaded(AutoModelForCausalLM, entry["reference"])
        rows, old = model.config.vocab_size, reference.config.vocab_size
        if rows > old:
            reference.resize_token_embeddings(rows, mean_resizing=False)
            for table in (reference.get_input_embeddings(), reference.get_output_embeddings()):
                table.weight.data[old:] = table.weight.data[:old].mean(0)
    out = []
    for pair in sequences:
        for prompt, response in pair:
            value = logprob(model, prompt, response)
            out.append(entry["beta"] * (value - (logprob(reference, prompt, response) if reference else 0)))
    return out


def main():
    failed = False
    with open(sys.argv[1]) as file:
        request = json.load(file)
    for entry in request:
        architecture, = AutoConfig.from_pretrained(entry["model"]).architectures
        # tokenizer.json is the truth; AutoTokenizer rebuilds some from the model's type.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(entry["model"])
        sequences = [tokenize(tokenizer, row) for row in entry["rows"]]
        with torch.no_grad():
            rewards = (explicit if entry["kind"] == "explicit" else implicit)(entry, tokenizer, sequences)
        expected = [reward for row in entry["rows"] for reward in row["rewards"]]
        scale = max(map(abs, expected))
        worst = max(abs(a - b) for a, b in zip(rewards, expected)) / scale
        failed |= not worst < 1e-4
        print(f"{architecture}: {len(expected)} rewards, largest relative difference {worst:.1e}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
