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


ROWS = {}  # chapter: its rows, in reading order

if __name__ == "__main__":
    main()
