#!/usr/bin/env python3
"""The same work done with PyTorch + transformers: requests on standard input, one JSON line each, answers on standard output.

  {"op": "gemm", "m", "n", "k", "dtype"}                         -> {"seconds"} of one product x[m,k] . w[n,k]^T, the faster of two forms
  {"op": "score", "kind", "style", "dtype", "model", "reference", "head", "data", "batch"}
      -> {"seconds", "tokenize_seconds", "tokens", "rewards": [[chosen, rejected], ...], "logprobs"} in the file's order
  {"op": "train", the same fields}                                -> {"seconds", "loss"} of one optimizer step per batch
  {"op": "versions"}                                              -> {"torch", "transformers", "threads"}
  A field "warm": true does one batch untimed first.

style plain: right-padded pair batches in file order and logits at every position, as common trainers do.
style tuned: batches sorted by length and logits at response positions only.
Models stay loaded; a model in another dtype is loaded beside it.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

transformers.logging.set_verbosity_error()
BETA = 0.01
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
models = {}


def load(path, dtype):
    key = (path, dtype)
    if key not in models:
        models[key] = AutoModelForCausalLM.from_pretrained(path, dtype=DTYPES[dtype]).eval()
    return models[key]


def encode(tokenizer, row):
    messages = [{"role": "user", "content": row["prompt"]}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]

    def response(text):
        whole = tokenizer.apply_chat_template(messages + [{"role": "assistant", "content": text}], tokenize=False)
        return ids(whole[len(prompt):])

    return ids(prompt), response(row["chosen"]), response(row["rejected"])


def padded(sequences, pad):
    width = max(len(p) + len(r) for p, r in sequences)
    ids = torch.full((len(sequences), width), pad)
    attention = torch.zeros((len(sequences), width), dtype=torch.long)
    response = torch.zeros((len(sequences), width), dtype=torch.bool)
    for i, (p, r) in enumerate(sequences):
        ids[i, : len(p) + len(r)] = torch.tensor(p + r)
        attention[i, : len(p) + len(r)] = 1
        response[i, len(p) : len(p) + len(r)] = True
    return ids, attention, response


def logprobs(model, ids, attention, response, style):
    if style == "plain":
        logp = model(input_ids=ids, attention_mask=attention).logits[:, :-1].log_softmax(-1)
        logp = logp.gather(2, ids[:, 1:, None])[..., 0]
        return (logp * response[:, 1:]).sum(1)
    hidden = model.base_model(input_ids=ids, attention_mask=attention).last_hidden_state[:, :-1]
    chosen = response[:, 1:]
    logits = model.get_output_embeddings()(hidden[chosen]).float()
    logp = torch.gather(logits, 1, ids[:, 1:][chosen][:, None])[:, 0] - logits.logsumexp(-1)
    return torch.zeros(len(ids)).index_add(0, torch.nonzero(chosen)[:, 0], logp)


def rewards(request, model, reference, head, batch):
    ids, attention, response = batch
    if request["kind"] == "explicit":
        hidden = model.base_model(input_ids=ids, attention_mask=attention).last_hidden_state
        return (hidden @ head)[torch.arange(len(ids)), attention.sum(1) - 1], None
    policy = logprobs(model, ids, attention, response, request["style"])
    with torch.no_grad():
        base = logprobs(reference, ids, attention, response, request["style"])
    return BETA * (policy - base), policy


def prepare(request):
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    rows = [json.loads(line) for line in open(request["data"], encoding="utf-8")]
    start = time.perf_counter()
    pairs = [encode(tokenizer, row) for row in rows]
    tokenize_seconds = time.perf_counter() - start
    order = list(range(len(pairs)))
    if request["style"] == "tuned":
        order.sort(key=lambda i: len(pairs[i][0]) + max(len(pairs[i][1]), len(pairs[i][2])))
    batches = [order[i : i + request["batch"]] for i in range(0, len(order), request["batch"])]

    def tensors(batch):
        sequences = [(pairs[i][0], pairs[i][1]) for i in batch] + [(pairs[i][0], pairs[i][2]) for i in batch]
        return padded(sequences, tokenizer.pad_token_id)

    tokens = sum(2 * len(p) + len(c) + len(r) for p, c, r in pairs)
    return tensors, batches, tokens, tokenize_seconds


def operands(request):
    model = load(request["model"], request["dtype"])
    if request["kind"] == "explicit":
        head = load_file(request["head"])["score.weight"][0].to(DTYPES[request["dtype"]])
        return model, None, head
    return model, load(request["reference"], request["dtype"]), None


def score(request):
    tensors, batches, tokens, tokenize_seconds = prepare(request)
    model, reference, head = operands(request)
    with torch.no_grad():
        if request.get("warm"):
            rewards(request, model, reference, head, tensors(batches[0]))
        start = time.perf_counter()
        results = [rewards(request, model, reference, head, tensors(batch)) for batch in batches]
        seconds = time.perf_counter() - start
    found, policy = {}, {}
    for batch, (reward, logp) in zip(batches, results):
        for k, i in enumerate(batch):
            found[i] = [reward[k].item(), reward[k + len(batch)].item()]
            if logp is not None:
                policy[i] = [logp[k].item(), logp[k + len(batch)].item()]
    ordered = lambda values: [values[i] for i in sorted(values)]
    return dict(seconds=seconds, tokenize_seconds=tokenize_seconds, tokens=tokens, rewards=ordered(found), logprobs=ordered(policy))


optimizers = {}


def train(request):
    """Steps change the model, as they do ours; it is never scored afterwards under the same key."""
    tensors, batches, tokens, _ = prepare(request)
    key = ("train", request["kind"], request["style"])
    if key not in optimizers:
        model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=DTYPES[request["dtype"]]).train()
        _, reference, head = operands(request)
        head = torch.nn.Parameter(head) if head is not None else None
        parameters = list(model.parameters()) + ([head] if head is not None else [])
        optimizers[key] = model, reference, head, torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0)
    model, reference, head, optimizer = optimizers[key]

    def step(batch):
        reward, _ = rewards(request, model, reference, head, tensors(batch))
        loss = -F.logsigmoid(reward[: len(batch)] - reward[len(batch) :]).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    if request.get("warm"):
        step(batches[0])
    start = time.perf_counter()
    losses = [step(batch) for batch in batches]
    return dict(seconds=time.perf_counter() - start, tokens=tokens, losses=losses)


def gemm(request):
    m, n, k = request["m"], request["n"], request["k"]
    dtype = DTYPES[request["dtype"]]
    torch.manual_seed(1)
    x = torch.randn(m, k).to(dtype)
    w = (torch.randn(n, k) * k**-0.5).to(dtype)
    w_t = w.t().contiguous()

    def seconds_of(run):
        run()
        start = time.perf_counter()
        run()
        once = time.perf_counter() - start
        repeats = max(1, int(0.1 / once))
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - start) / repeats

    with torch.no_grad():
        return dict(seconds=min(seconds_of(lambda: F.linear(x, w)), seconds_of(lambda: x @ w_t)))


def versions(_):
    return dict(torch=torch.__version__, transformers=transformers.__version__, threads=torch.get_num_threads())


OPERATIONS = dict(gemm=gemm, score=score, train=train, versions=versions)

for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = OPERATIONS[request["op"]](request)
    except Exception as error:  # the comparison goes on without this case
        answer = dict(error=f"{type(error).__name__}: {error}")
    print(json.dumps(answer), flush=True)
