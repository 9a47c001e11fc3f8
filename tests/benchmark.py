"""How fast is readable numpy?   python tests/benchmark.py [row ...]

Times scratch against library on the same data, with the same result (checked first): turn
by turn, in process time, on one BLAS thread. Prints the median of each, the median ratio
scratch / library with its quartiles (below 1.0 scratch is faster), and the exponent with
which scratch time grows when n grows tenfold. It never fails a build.

A row is a function of n that returns Pair(scratch, library, tolerance): two functions
without arguments that return the same numbers. Its first docstring line is its title.
"""

import os

for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]:
    os.environ.setdefault(name, "1")  # before numpy loads

import argparse
import inspect
import sys
import time
import warnings
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils import compare, make_regression


class Pair(NamedTuple):
    scratch: Callable
    library: Callable
    tolerance: float  # relative to max(1, max|library|), as everywhere


def seconds(work, at_least=0.02):
    """Process time of one call: repeated until it lasts long enough to be measured."""
    calls, start = 0, time.process_time()
    while (spent := time.process_time() - start) < at_least:
        work()
        calls += 1
    return spent / calls


def measure(row, repeats):
    """One line of the table, as a dict; the result is checked before anything is timed."""
    default = inspect.signature(row).parameters.get("n")
    pair = row()
    same = compare("result", pair.scratch(), pair.library(), pair.tolerance, "the chapter's tests")
    times = np.array([[seconds(pair.scratch), seconds(pair.library)] for _ in range(repeats)])
    low, ratio, high = np.percentile(times[:, 0] / times[:, 1], [25, 50, 75])
    growth = np.nan
    if default is not None:
        small = row(n=default.default // 10)
        short = np.median([seconds(small.scratch) for _ in range(repeats)])
        growth = np.log10(np.median(times[:, 0]) / short)
    scratch, library = 1000 * np.median(times, axis=0)
    return dict(scratch=scratch, library=library, ratio=ratio, low=low, high=high, growth=growth, same=same)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("row", nargs="*", help="rows or chapters whose name contains one of these words")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = [
        (chapter, row)
        for chapter, rows in ROWS.items()
        for row in rows
        if not args.row or any(word in f"{chapter} {row.__name__}" for word in args.row)
    ]
    print(f"{'':44} {'scratch':>10} {'library':>10} {'ratio':>7} {'quartiles':>13} {'growth':>7}")
    ratios, last = [], None
    for chapter, row in chosen:
        if chapter != last:
            print(chapter)
            last = chapter
        m = measure(row, args.repeats)
        title = inspect.getdoc(row).split("\n")[0]
        growth = "" if np.isnan(m["growth"]) else f"{m['growth']:7.2f}"
        print(
            f"  {title:42} {m['scratch']:7.2f} ms {m['library']:7.2f} ms {m['ratio']:7.2f}"
            f" {m['low']:6.2f}-{m['high']:<6.2f} {growth:>7}" + ("" if m["same"].ok else "  RESULTS DIFFER")
        )
        if not m["same"].ok:
            print("   ", str(m["same"]).replace("\n", "\n    "))
        ratios.append(m["ratio"])
    if ratios:
        print(f"geometric mean of {len(ratios)} ratios: {np.exp(np.mean(np.log(ratios))):.2f}")


# --- neural_networks.py ---------------------------------------------------------------
def network_pair(sizes, n, dtype=np.float64, tolerance=1e-10):
    """Loss and every gradient of a ReLU network on n rows; the result is that of the first W."""
    import torch

    import neural_networks as nn

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n, sizes[0])).astype(dtype), rng.integers(sizes[-1], size=n)
    layers = nn.make_mlp(rng, sizes)
    for layer in layers:
        layer.params = [p.astype(dtype) for p in layer.params]
    modules = [torch.nn.Linear(*p) for p in zip(sizes, sizes[1:])]
    for module, layer in zip(modules, layers[::2]):
        module.weight.data = torch.tensor(layer.params[0].T.copy())
        module.bias.data = torch.tensor(layer.params[1])
    bends = [torch.nn.ReLU() for _ in modules]
    net = torch.nn.Sequential(*[m for pair in zip(modules, bends) for m in pair][:-1])
    tX, ty = torch.tensor(X), torch.tensor(y)

    def scratch():
        _, pull = nn.cross_entropy(nn.forward(layers, X, training=True), y)
        nn.backward(layers, pull(1.0), to_input=False)
        return layers[0].grads[0]

    def library():
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(tX), ty).backward()
        return modules[0].weight.grad.T.numpy()

    return Pair(scratch, library, tolerance), layers, X, y


def mlp_float32(n=1280):
    """MLP 784-256-128-10, float32"""
    return network_pair((784, 256, 128, 10), n // 10, np.float32, 1e-5)[0]


def mlp_float64(n=1280):
    """MLP 784-256-128-10, float64"""
    return network_pair((784, 256, 128, 10), n // 10)[0]


def mlp_small():
    """MLP 20-32-16-3 on 32 rows"""
    return network_pair((20, 32, 16, 3), 32)[0]


def autograd_small():
    """the same by the autograd engine"""
    import neural_networks as nn

    pair, layers, X, y = network_pair((20, 32, 16, 3), 32)
    rows = np.arange(len(X))

    def scratch():
        W, b, V, c, U, d = leaves = [nn.Tensor(p) for p in nn.parameters(layers)]
        z = ((X @ W + b).relu() @ V + c).relu() @ U + d
        (z.exp().sum(1).log() - z[rows, y]).mean().backward()
        return leaves[0].grad

    return Pair(scratch, pair.library, pair.tolerance)


def image_pair(f, images, *params, library, **options):
    """One function of images and its gradients, on both sides; the result is that for x."""
    import torch

    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape) for shape in (images, *params)]
    grad = rng.normal(size=f(*inputs, **options)[0].shape)
    order = {1: (0,), 2: (0, 1), 4: (0, 3, 1, 2)}
    first = torch.tensor(inputs[0].transpose(order[inputs[0].ndim]).copy(), requires_grad=True)
    others = [torch.tensor(p.transpose(3, 2, 0, 1).copy() if p.ndim == 4 else p, requires_grad=True) for p in inputs[1:]]
    tgrad = torch.tensor(grad.transpose(order[grad.ndim]).copy())

    def scratch():
        _, *pulls = f(*inputs, **options)
        return [pull(grad) for pull in pulls][0]

    def torchs():
        back = torch.autograd.grad(library(first, *others), (first, *others), tgrad)[0]
        return back.permute(*np.argsort(order[back.ndim]).tolist()).numpy()

    return Pair(scratch, torchs, 1e-10)


def conv_few_channels(n=640):
    """convolution, 1 to 16 channels, 8 x 8"""
    import torch.nn.functional as F

    import neural_networks as nn

    shapes = (n // 10, 8, 8, 1), (3, 3, 1, 16), (16,)
    return image_pair(nn.conv2d, *shapes, padding=1, library=lambda x, K, b: F.conv2d(x, K, b, padding=1))


def conv_many_channels(n=160):
    """convolution, 64 to 64 channels, 14 x 14"""
    import torch.nn.functional as F

    import neural_networks as nn

    shapes = (n // 10, 14, 14, 64), (3, 3, 64, 64), (64,)
    return image_pair(nn.conv2d, *shapes, padding=1, library=lambda x, K, b: F.conv2d(x, K, b, padding=1))


def max_pooling(n=640):
    """max pooling, 16 channels, 16 x 16"""
    import torch.nn.functional as F

    import neural_networks as nn

    return image_pair(nn.max_pool2d, (n // 10, 16, 16, 16), size=2, library=lambda x: F.max_pool2d(x, 2))


def batch_normalisation(n=2560):
    """batch norm, 256 features"""
    import torch.nn.functional as F

    import neural_networks as nn

    running = {"mean": np.zeros(256), "variance": np.ones(256)}
    return image_pair(
        nn.batch_norm, (n // 10, 256), (256,), (256,), training=True, **running,
        library=lambda x, gain, shift: F.batch_norm(x, None, None, gain, shift, True),
    )  # fmt: skip


def digits_epochs():
    """digits, five epochs of the MLP 64-128-64-10"""
    import neural_networks as nn

    (X, y), *_ = nn.load_digits_split()

    def scratch():
        layers = nn.make_mlp(np.random.default_rng(0), (64, 128, 64, 10))
        return nn.fit_network(np.random.default_rng(0), layers, X, y, epochs=5)[:, 0]

    def library():
        layers, rng = nn.make_mlp(np.random.default_rng(0), (64, 128, 64, 10)), np.random.default_rng(0)
        order = [batch for _ in range(5) for batch in nn.batches_of(rng, len(X), 32)]
        losses, _ = nn.torch_train(layers, ((X[i], y[i]) for i in order), nn.cross_entropy, 0.3)
        return np.reshape(losses, (5, -1)).mean(axis=1)

    return Pair(scratch, library, 1e-8)


ROWS = {}  # chapter: its rows, in reading order
ROWS["neural_networks.py"] = [
    mlp_float32, mlp_float64, mlp_small, autograd_small, conv_few_channels, conv_many_channels,
    max_pooling, batch_normalisation, digits_epochs,
]  # fmt: skip

if __name__ == "__main__":
    main()
