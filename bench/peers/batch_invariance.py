"""
Does a row of a product keep its bits when it is computed with fewer rows? Asked of PyTorch's products, that is of MKL and oneDNN.

    python bench/peers/batch_invariance.py > bench/results/library_invariance.json

For each dtype and weight [n, k], and for each m: how many of the first m rows differ between the product of these m rows and that of 512.
"""
import json
import platform

import torch

SHAPES = [(1024, 384), (2048, 2048), (8960, 1536)]
ROWS = [1, 2, 7, 31, 64, 129, 300]

cases = []
for dtype in (torch.float32, torch.bfloat16):
    for n, k in SHAPES:
        torch.manual_seed(0)
        x = torch.randn(512, k).to(dtype)
        w = (torch.randn(n, k) * k**-0.5).to(dtype)
        whole = torch.nn.functional.linear(x, w)
        for m in ROWS:
            part = torch.nn.functional.linear(x[:m], w)
            differing = int((part != whole[:m]).any(dim=1).sum())
            cases.append(dict(dtype=str(dtype).removeprefix("torch."), n=n, k=k, m=m, differing_rows=differing))

libraries = [line.strip(" -") for line in torch.__config__.show().splitlines() if "Math Kernel Library" in line or "MKL-DNN" in line]
machine = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
print(
    json.dumps(
        dict(
            format="implex-library-invariance-1",
            command="python bench/peers/batch_invariance.py",
            machine=machine,
            threads=torch.get_num_threads(),
            versions=dict(torch=torch.__version__, libraries=libraries),
            cases=cases,
        ),
        indent=1,
    )
)
