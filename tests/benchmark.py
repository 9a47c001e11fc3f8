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

import linear_models as lm
import rag_basics as rag
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


# --- linear_models.py


def least_squares(n=100_000):
    """least squares, 100k x 50"""
    X, y, _, _ = make_regression(np.random.default_rng(0), n, 50)
    return Pair(
        lambda: lm.fit_linear_regression(X, y)[0],
        lambda: lm.sklearn_linear_regression(X, y).coef_,
        1e-10,
    )


def ridge(n=100_000):
    """ridge, 100k x 50"""
    X, y, _, _ = make_regression(np.random.default_rng(0), n, 50)
    return Pair(lambda: lm.fit_ridge(X, y, 1.0)[0], lambda: lm.sklearn_ridge(X, y, 1.0).coef_, 1e-10)


def lasso(l1, n):
    """Ten of 100 correlated columns matter."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 100)) + rng.normal(size=(n, 1))
    y = X[:, :10] @ rng.normal(size=10) + rng.normal(size=n)
    return Pair(lambda: lm.fit_lasso(X, y, l1)[0], lambda: lm.sklearn_lasso(X, y, l1).coef_, 1e-6)


def lasso_01(n=10_000):
    """lasso, l1 = 0.1, 10k x 100"""
    return lasso(0.1, n)


def lasso_001(n=10_000):
    """lasso, l1 = 0.01, 10k x 100"""
    return lasso(0.01, n)


def classes(n, d, k):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d))
    return X, (X @ rng.normal(size=(d, k)) + 3 * rng.gumbel(size=(n, k))).argmax(axis=1)


def logistic(n=20_000):
    """logistic, Newton, 20k x 30 (newton-cholesky)"""
    X, y = classes(n, 30, 2)
    return Pair(lambda: lm.fit_logistic(X, y, 1.0)[0], lambda: lm.sklearn_logistic(X, y, 1.0).coef_[0], 1e-6)


def softmax():
    """softmax, L-BFGS, digits (lbfgs to the same 1e-5)"""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    X, y = load_digits(return_X_y=True)
    X = X / 16
    model = LogisticRegression(C=10.0, tol=1e-8, max_iter=10_000)
    return Pair(
        lambda: lm.predict_softmax(X, *lm.fit_softmax(X, y, 0.1)),
        lambda: model.fit(X, y).predict_proba(X),
        1e-5,
    )


def linear_svm(n=20_000):
    """linear SVM, 20k x 30 (liblinear, dual=False)"""
    X, y = classes(n, 30, 2)
    return Pair(lambda: lm.fit_linear_svm(X, y, 1.0)[0], lambda: lm.sklearn_linear_svm(X, y, 1.0).coef_[0], 1e-5)


def kernel_svm(C, n):
    X, y = classes(n, 10, 2)
    return Pair(
        lambda: lm.predict_kernel_svm(X, lm.fit_kernel_svm(X, y, C, 0.1, tol=1e-3)),
        lambda: lm.sklearn_kernel_svm(X, y, C, 0.1, tol=1e-3).decision_function(X),
        1e-2,  # both stop at tol = 1e-3, the library's default
    )


def kernel_svm_1(n=1000):
    """kernel SVM, RBF, C = 1, 1000 x 10"""
    return kernel_svm(1.0, n)


def kernel_svm_10(n=1000):
    """kernel SVM, RBF, C = 10, 1000 x 10"""
    return kernel_svm(10.0, n)


# --- rag_basics.py


def vector_search(make, name, n, m):
    """One index and faiss's with the same centres, k = 10; the title tells the recall."""

    def row(n=n):
        X, Q = rag.make_vectors(np.random.default_rng(0), n, m, groups=2000)
        index = make(X)
        library, exact = rag.faiss_index(index, X), rag.FlatIndex(X).search(Q, 10)[1]
        found, theirs = (rag.recall(i.search(Q, 10)[1], exact) for i in (index, library))
        row.__doc__ = f"{name}, {m} x 100k: {found:.3f}, {theirs:.3f} found"
        return Pair(lambda: index.search(Q, 10)[0], lambda: library.search(Q, 10)[0], 1e-5)

    row.__name__ = f"{name.replace(' ', '_').lower()}_{m}"
    return row


def flat(X):
    return rag.FlatIndex(X)


def ivf(X):
    return rag.IVFIndex(X, max(1, min(316, len(X) // 30)), 8)


def pq(X):
    return rag.PQIndex(X, 8, 8)


def bm25():
    """BM25, 100 queries, 10k documents (scipy.sparse)"""
    from scipy import sparse

    rng = np.random.default_rng(0)
    chance = 1 / np.arange(100, 20_100)  # as after dropping the stop words
    words = [f"w{i}" for i in range(20_000)]
    draw = rng.choice(20_000, size=(10_100, 60), p=chance / chance.sum())
    texts = [" ".join(words[i] for i in row) for row in draw[:10_000]]
    queries = [" ".join(words[i] for i in rng.choice(row, 5)) for row in draw[10_000:]]
    index = rag.BM25Index(texts, str.split)
    matrix = sparse.csc_matrix((index.weights, index.ids, index.border), (10_000, len(index.column)))

    def library(query):
        columns = [index.column[term] for term in query.split() if term in index.column]
        scores = np.asarray(matrix[:, columns].sum(axis=1))[:, 0]
        return -np.sort(np.partition(-scores, 9)[:10])

    return Pair(
        lambda: np.array([index.search(query, 10)[0] for query in queries]),
        lambda: np.array([library(query) for query in queries]),
        1e-10,
    )


ROWS = {}  # chapter: its rows, in reading order
ROWS["rag_basics"] = [
    bm25, *[vector_search(make, name, 100_000, m) for m in (100, 1)
            for name, make in [("flat", flat), ("IVF, nprobe 8", ivf), ("PQ, 8 bytes", pq)]],
]  # fmt: skip
ROWS["linear_models"] = [
    least_squares, ridge, lasso_01, lasso_001, logistic, softmax, linear_svm, kernel_svm_1, kernel_svm_10,
]  # fmt: skip

if __name__ == "__main__":
    main()
