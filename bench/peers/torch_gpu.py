#!/usr/bin/env python3
"""PyTorch + transformers on a GPU (or, to try it, a CPU): requests on standard input, one JSON line each, answers on standard output.

  {"op": "versions"}  -> versions, the device, and which of Liger, Cut Cross-Entropy and flash-attention can be imported
  {"op": "head", "n", "v", "d", "dtype", "what": "forward" | "both", "style", "seconds"}
      -> {"seconds" of one call, "extra_bytes", "error" against float64 where "check"}; styles: HEADS below
  {"op": "score" | "train", "kind", "style", "dtype", "model", "reference", "head", "data", "batch", ["uniform": {"count", "length"}]}
      -> {"seconds", "tokens", "rewards", "logprobs", "losses", "extra_bytes"}
  A field "warm": true does the work once untimed first (compiling included).

Scoring and training pad pairs that were sorted by length, take the quickest attention that transformers has here, compute logits at
response positions only and never checkpoint activations. Style eager; compile: torch.compile of the model; liger: its kernels inside the
model and for the loss's log-probabilities; no_sort: batches in file order. Training: bf16 parameters and a fused AdamW. Implicit training
takes the reference's log-probabilities as known ("known": true) or computes them in the step.
"""
import importlib.util
import json
import os
import sys
import time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

transformers.logging.set_verbosity_error()
BETA = 0.01
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
IMPORTABLE = {name: importlib.util.find_spec(module) is not None
              for name, module in dict(liger="liger_kernel", cce="cut_cross_entropy", flash_attention="flash_attn").items()}


def wait():
    if CUDA:
        torch.cuda.synchronize()


def timed(run):
    """Seconds, and the most memory above what was there before."""
    wait()
    before = torch.cuda.memory_allocated() if CUDA else 0
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    result = run()
    wait()
    seconds = time.perf_counter() - start
    return result, seconds, torch.cuda.max_memory_allocated() - before if CUDA else 0


# ---- heads: ln softmax(x w^T)[y] ----------------------------------------------------------------------------------------------------


def eager(x, w, y):
    return F.linear(x, w).log_softmax(-1).gather(1, y[:, None])[:, 0]


def logsumexp(x, w, y):
    z = F.linear(x, w).float()
    return z.gather(1, y[:, None])[:, 0] - z.logsumexp(-1)


def chunked(x, w, y, rows=1024):
    return torch.cat([logsumexp(a, w, b) for a, b in zip(x.split(rows), y.split(rows))])


def liger(x, w, y):
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    out = LigerFusedLinearCrossEntropyFunction.apply(x, w, y, None, None, -100, 0.0, 0.0, "none")
    return -(out[0] if isinstance(out, tuple) else out)


def cce(x, w, y):
    from cut_cross_entropy import linear_cross_entropy

    return -linear_cross_entropy(x, w, y, reduction="none")


def cce_exact(x, w, y):
    from cut_cross_entropy import linear_cross_entropy

    return -linear_cross_entropy(x, w, y, reduction="none", impl="cce_exact")


def product(x, w, y):
    return F.linear(x, w)


HEADS = dict(eager=eager, logsumexp=logsumexp, chunked=chunked, liger=liger, cce=cce, cce_exact=cce_exact, product=product,
             compile=lambda: torch.compile(logsumexp), compile_chunked=lambda: torch.compile(chunked))
compiled = {}


def head_function(style):
    if not style.startswith("compile"):
        return HEADS[style]
    if style not in compiled:
        compiled[style] = HEADS[style]()
    return compiled[style]


def head(request):
    n, v, d, dtype = request["n"], request["v"], request["d"], DTYPES[request["dtype"]]
    torch.manual_seed(1)
    both = request["what"] == "both"
    x = torch.randn(n, d, device=DEVICE).to(dtype).requires_grad_(both)
    w = (torch.randn(v, d, device=DEVICE) * d**-0.5).to(dtype).requires_grad_(both)
    y = torch.randint(v, (n,), device=DEVICE)
    g = torch.randn(n, device=DEVICE)
    run_head = head_function(request["style"])

    def once():
        if not both:
            with torch.no_grad():
                return run_head(x, w, y)
        x.grad = w.grad = None
        out = run_head(x, w, y)
        (out * g[:, None] if out.dim() == 2 else out * g).sum().backward()
        return out.detach()

    once()
    _, first, extra = timed(once)
    repeats = max(1, int(request.get("seconds", 0.02) / first) + 1)
    start = time.perf_counter()
    for _ in range(repeats):
        out = once()
    wait()
    seconds = (time.perf_counter() - start) / repeats
    answer = dict(seconds=seconds, extra_bytes=extra)
    if request.get("check") and out.dim() == 1:
        rows = torch.linspace(0, n - 1, min(n, 8), device=DEVICE).long()
        with torch.no_grad():
            z = x[rows].double() @ w.double().T
            want = z.gather(1, y[rows, None])[:, 0] - z.logsumexp(-1)
        answer["check"] = ((out[rows].double() - want).norm() / want.norm()).item()
    return answer


# ---- models -------------------------------------------------------------------------------------------------------------------------

models = {}


def load(path, dtype, style):
    attention = "flash_attention_2" if CUDA and IMPORTABLE["flash_attention"] and dtype == "bf16" else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(path, dtype=DTYPES[dtype], attn_implementation=attention)
    if style == "liger":
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        _apply_liger_kernel_to_instance(model=model)
    return model.to(DEVICE)


def kept(path, dtype, style):
    key = (path, dtype, style)
    if key not in models:
        models[key] = load(path, dtype, style).eval()
    return models[key]


def body_of(model, style):
    key = ("body", id(model))
    if style != "compile":
        return model.base_model
    if key not in models:
        models[key] = torch.compile(model.base_model, dynamic=True)
    return models[key]


def encode(tokenizer, row):
    messages = [{"role": "user", "content": row["prompt"]}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]

    def response(text):
        whole = tokenizer.apply_chat_template(messages + [{"role": "assistant", "content": text}], tokenize=False)
        return ids(whole[len(prompt):])

    return ids(prompt), [response(row["chosen"]), response(row["rejected"])]


encoded = {}


def rows_of(request):
    """(prompt, responses) of ids. uniform: stretches of the data's ids, one after the other and around, half prompt and half response."""
    key = (request["model"], request["data"])
    if key not in encoded:
        tokenizer = AutoTokenizer.from_pretrained(request["model"])
        encoded[key] = [encode(tokenizer, json.loads(line)) for line in open(request["data"], encoding="utf-8")]
    rows = encoded[key]
    if "uniform" not in request:
        return rows
    ids = [i for prompt, responses in rows for part in [prompt, *responses] for i in part]
    count, length = request["uniform"]["count"], request["uniform"]["length"]
    take = lambda start, n: [ids[(start + i) % len(ids)] for i in range(n)]
    return [(take(r * length, length // 2), [take(r * length + length // 2, length - length // 2)]) for r in range(count)]


def padded(sequences):
    width = max(len(p) + len(r) for p, r in sequences)
    ids = torch.zeros((len(sequences), width), dtype=torch.long)
    attention = torch.zeros((len(sequences), width), dtype=torch.long)
    response = torch.zeros((len(sequences), width), dtype=torch.bool)
    for i, (p, r) in enumerate(sequences):
        ids[i, : len(p) + len(r)] = torch.tensor(p + r)
        attention[i, : len(p) + len(r)] = 1
        response[i, len(p) : len(p) + len(r)] = True
    return [t.to(DEVICE, non_blocking=True) for t in (ids, attention, response)]


def logprobs(model, style, ids, attention, response):
    hidden = body_of(model, style)(input_ids=ids, attention_mask=attention).last_hidden_state[:, :-1]
    wanted = response[:, 1:]
    x, y, w = hidden[wanted], ids[:, 1:][wanted], model.get_output_embeddings().weight
    logp = (liger if style == "liger" else chunked)(x, w, y).float()
    return torch.zeros(len(ids), device=DEVICE).index_add(0, torch.nonzero(wanted)[:, 0], logp)


def score_batch(request, model, reference, head_weight, tensors, known=None):
    ids, attention, response = tensors
    style = request["style"]
    if request["kind"] == "explicit":
        hidden = body_of(model, style)(input_ids=ids, attention_mask=attention).last_hidden_state
        last = hidden[torch.arange(len(ids), device=DEVICE), attention.sum(1) - 1]
        return last.float() @ head_weight.float(), None
    policy = logprobs(model, style, ids, attention, response)
    if known is None:
        with torch.no_grad():
            known = logprobs(reference, style, ids, attention, response)
    return BETA * (policy - known), policy


def batches_of(request, rows):
    order = list(range(len(rows)))
    if request["style"] != "no_sort":
        order.sort(key=lambda i: len(rows[i][0]) + max(len(r) for r in rows[i][1]))
    batches = [order[i : i + request["batch"]] for i in range(0, len(order), request["batch"])]
    sequences = [[(rows[i][0], r) for i in batch for r in rows[i][1]] for batch in batches]
    return batches, sequences


def operands(request):
    style = request["style"]
    model = kept(request["model"], request["dtype"], style)
    if request["kind"] == "explicit":
        return model, None, load_file(request["head"])["score.weight"][0].to(DEVICE, DTYPES[request["dtype"]])
    return model, kept(request["reference"], request["dtype"], style), None


def tokens_of(rows):
    return sum(len(p) + len(r) for p, responses in rows for r in responses)


def score(request):
    rows = rows_of(request)
    batches, sequences = batches_of(request, rows)
    model, reference, head_weight = operands(request)

    def run():
        with torch.no_grad():
            return [score_batch(request, model, reference, head_weight, padded(s)) for s in sequences]

    if request.get("warm"):
        run()
    results, seconds, extra = timed(run)
    found, policy = {}, {}
    for batch, (reward, logp) in zip(batches, results):
        at = 0
        for i in batch:
            count = len(rows[i][1])
            found[i] = reward[at : at + count].tolist()
            if logp is not None:
                policy[i] = logp[at : at + count].tolist()
            at += count
    ordered = lambda values: [values[i] for i in sorted(values)]
    return dict(seconds=seconds, tokens=tokens_of(rows), rewards=ordered(found), logprobs=ordered(policy), extra_bytes=extra)


trainers = {}


def train(request):
    """Steps change the model, as they do ours; it is another one than is scored."""
    rows = rows_of(request)
    _, sequences = batches_of(request, rows)
    style = request["style"]
    key = (request["kind"], style, request["model"])
    if key not in trainers:
        trainers.clear()  # one optimizer's state at a time
        model = load(request["model"], request["dtype"], style).train()
        _, reference, head_weight = operands(request)
        head_weight = None if head_weight is None else torch.nn.Parameter(head_weight)
        parameters = list(model.parameters()) + ([] if head_weight is None else [head_weight])
        optimizer = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0, fused=True if CUDA else None)
        known = {}
        if request.get("known") and request["kind"] == "implicit":
            with torch.no_grad():
                known = {i: logprobs(reference, style, *padded(s)) for i, s in enumerate(sequences)}
        trainers[key] = model, reference, head_weight, optimizer, known
    model, reference, head_weight, optimizer, known = trainers[key]

    def step():
        """One optimizer step over all pairs, as ours: gradients are added up over the padded batches."""
        losses = []
        for i, s in enumerate(sequences):
            reward, _ = score_batch(request, model, reference, head_weight, padded(s), known.get(i))
            pairs = reward.view(-1, 2)
            loss = -F.logsigmoid(pairs[:, 0] - pairs[:, 1]).sum() / len(rows)
            loss.backward()
            losses.append(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
        return torch.stack(losses).sum().item()

    if request.get("warm"):
        step()
    loss, seconds, extra = timed(step)
    return dict(seconds=seconds, tokens=tokens_of(rows), losses=[loss], extra_bytes=extra)


def versions(_):
    gpu = torch.cuda.get_device_name() if CUDA else "none"
    return dict(torch=torch.__version__, transformers=transformers.__version__, cuda=str(torch.version.cuda), gpu=gpu,
                importable=" ".join(name for name, found in IMPORTABLE.items() if found) or "none")


def release(_):
    """Gives memory back between cases."""
    models.clear()
    trainers.clear()
    if CUDA:
        torch.cuda.empty_cache()
    return {}


OPERATIONS = dict(head=head, score=score, train=train, versions=versions, release=release)

for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = OPERATIONS[request["op"]](request)
    except Exception as error:  # the comparison goes on without this case
        answer = dict(error=f"{type(error).__name__}: {error}"[:500])
        if CUDA:
            torch.cuda.empty_cache()
    print(json.dumps(answer), flush=True)
