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


# --- sequence_models.py
def recurrent_pair(kind, step, gates, states, n):
    """Forward and backward over n steps, 32 sequences, 64 inputs, width 128: h, dx and dWh."""
    import torch

    import sequence_models as sm

    rng, zero = np.random.default_rng(0), np.zeros((32, 128))
    weights = sm.init_recurrent(rng, 64, 128, gates)
    x, dh = rng.normal(size=(n, 32, 64)), rng.normal(size=(n, 32, 128))
    module, x2, dh2 = sm.torch_recurrent(kind, weights), torch.tensor(x, requires_grad=True), torch.tensor(dh)

    def scratch():
        h, _, back = sm.unroll(step, weights, x, *[zero] * states)
        dx, *_, gradients = back(dh, *[zero] * (states - 1))
        return np.concatenate([h.ravel(), dx.ravel(), gradients.Wh.ravel()])

    def library():
        module.zero_grad()
        x2.grad = None
        h, _ = module(x2)
        h.backward(dh2)
        return torch.cat([h.detach().flatten(), x2.grad.flatten(), module.weight_hh_l0.grad.T.flatten()]).numpy()

    return Pair(scratch, library, 1e-10)


def sequence_rnn(n=50):
    """RNN, forward and backward"""
    import sequence_models as sm

    return recurrent_pair("RNN", sm.rnn_step, 1, 1, n)


def sequence_lstm(n=50):
    """LSTM, forward and backward"""
    import sequence_models as sm

    return recurrent_pair("LSTM", sm.lstm_step, 4, 2, n)


def sequence_gru(n=50):
    """GRU, forward and backward"""
    import sequence_models as sm

    return recurrent_pair("GRU", sm.gru_step, 3, 1, n)


def sequence_attention(n=200):
    """causal attention, forward and backward"""
    import torch

    import sequence_models as sm

    q, k, v, do = np.random.default_rng(0).normal(size=(4, 4, 4, n, 32))
    mask, ours = sm.causal_mask(n), [torch.tensor(a, requires_grad=True) for a in (q, k, v)]
    do2, attend = torch.tensor(do), torch.nn.functional.scaled_dot_product_attention

    def scratch():
        o, _, back = sm.attention(q, k, v, mask)
        return np.stack([o, *back(do)])

    def library():
        for a in ours:
            a.grad = None
        o = attend(*ours, is_causal=True)
        o.backward(do2)
        return torch.stack([o.detach(), *(a.grad for a in ours)]).numpy()

    return Pair(scratch, library, 1e-10)


def sequence_gpt():
    """tiny GPT, 10 steps of AdamW"""
    import sequence_models as sm

    rng = np.random.default_rng(0)
    model, ids = sm.init_gpt(rng, 40, 64, width=64), rng.integers(40, size=(10, 8, 65))
    batches = [(rows[:, :-1], rows[:, 1:]) for rows in ids]
    return Pair(
        lambda: sm.train(model, sm.gpt_gradients, batches)[1], lambda: sm.torch_train_gpt(model, batches), 1e-8
    )


def sequence_autoregression(n=20000):
    """autoregression on 24 values"""
    import sequence_models as sm
    from utils import make_series

    X, y = sm.make_windows(make_series(np.random.default_rng(0), n), 24)
    return Pair(lambda: sm.fit_autoregression(X, y)[0], lambda: sm.sklearn_autoregression(X, y).coef_, 1e-10)


ROWS = {}  # chapter: its rows, in reading order
ROWS["sequence_models"] = [
    sequence_rnn, sequence_lstm, sequence_gru, sequence_attention, sequence_gpt, sequence_autoregression,
]  # fmt: skip

if __name__ == "__main__":
    main()
