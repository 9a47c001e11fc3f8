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
import tree_models as tm
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


# --- tree_models.py


def tree_data(n, k=0):
    """20 features, float32 as the library stores them; y continuous, or two noisy classes."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 20)).astype(np.float32).astype(float)
    y = X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=n)
    return X, (y > 0).astype(int) if k else y


def trees(n, criterion, depth, leaf=1):
    """Fitted and asked for their training rows. (Full trees of both know these by heart.)"""
    X, y = tree_data(n, criterion != "variance")
    return Pair(
        lambda: tm.fit_tree(X, y, criterion, depth, leaf).impurity,
        lambda: tm.sklearn_tree(X, y, criterion, depth, leaf).tree_.impurity[0],
        1e-10,
    )


def classification_tree_1k(n=1000):
    """classification tree, gini, 1k x 20"""
    return trees(n, "gini", None)


def classification_tree_10k(n=10_000):
    """classification tree, gini, 10k x 20"""
    return trees(n, "gini", None)


def classification_tree_100k(n=100_000):
    """classification tree, gini, 100k x 20"""
    return trees(n, "gini", None)


def regression_tree(n=10_000):
    """regression tree, full depth, 10k x 20"""
    return trees(n, "variance", None)


def regression_tree_8(n=10_000):
    """regression tree, depth 8, 10k x 20"""
    X, y = tree_data(n)
    pair = trees(n, "variance", 8, 10)
    ours, library = tm.fit_tree(X, y, "variance", 8, 10), tm.sklearn_tree(X, y, "variance", 8, 10)
    assert np.allclose(tm.predict_tree(ours, X), library.predict(X), atol=1e-10)
    return pair


def tree_prediction(n=100_000):
    """tree prediction, 100k rows, a tree of 10k"""
    X, y = tree_data(10_000)
    new = tree_data(n + 1)[0][1:]
    root, model = tm.fit_tree(X, y, "variance", None, 10), tm.sklearn_tree(X, y, "variance", None, 10)
    return Pair(lambda: tm.predict_tree(root, new), lambda: model.predict(new), 1e-10)


def forest(n=2000):
    """forest, 50 regression trees, all features, 2k x 20"""
    X, y = tree_data(n)
    counts = tm.sklearn_forest(X, y, "variance", 50, None, None, 10)[1]
    return Pair(
        lambda: tm.predict_forest(tm.fit_forest(X, y, "variance", 50, None, None, 10, counts=counts), X[:9]),
        lambda: tm.sklearn_forest(X, y, "variance", 50, None, None, 10)[0].predict(X[:9]),
        1e-10,
    )


def forest_sqrt(n=2000):
    """forest, 50 classification trees, sqrt features, 2k x 20"""
    X, y = tree_data(n, 2)

    def score():
        ours = tm.fit_forest(X, y, trees=50)
        rows, labels = tm.out_of_bag(ours, X)
        return np.mean(labels == y[rows])

    return Pair(score, lambda: tm.sklearn_forest(X, y, trees=50)[0].oob_score_, 0.03)


def boosting(n, depth):
    X, y = tree_data(n)
    return Pair(
        lambda: tm.predict_boosting(tm.fit_boosting(X, y, "squared", 50, 0.1, depth, 10), X[:9]),
        lambda: tm.sklearn_boosting(X, y, "squared", 50, 0.1, depth, 10).predict(X[:9]),
        1e-8,
    )


def boosting_stumps(n=5000):
    """gradient boosting, 50 stumps, 5k x 20"""
    return boosting(n, 1)


def boosting_depth_3(n=5000):
    """gradient boosting, 50 trees of depth 3, 5k x 20"""
    return boosting(n, 3)


def newton(n, steps=20):
    X, y = tree_data(n)
    options = ("squared", steps, 0.1, 6, 1.0, 20)
    return Pair(
        lambda: tm.predict_boosting(tm.fit_newton_boosting(X, y, *options), X[:99]),
        lambda: tm.sklearn_newton_boosting(X, y, *options).predict(X[:99]),
        1e-6,
    )


def newton_10k(n=10_000):
    """histogram boosting, 20 trees of depth 6, 10k x 20"""
    return newton(n)


def newton_100k(n=100_000):
    """histogram boosting, 20 trees of depth 6, 100k x 20"""
    return newton(n)


ROWS = {}  # chapter: its rows, in reading order
ROWS["tree_models"] = [
    classification_tree_1k, classification_tree_10k, classification_tree_100k, regression_tree,
    regression_tree_8, tree_prediction, forest, forest_sqrt, boosting_stumps, boosting_depth_3,
    newton_10k, newton_100k,
]  # fmt: skip
ROWS["linear_models"] = [
    least_squares, ridge, lasso_01, lasso_001, logistic, softmax, linear_svm, kernel_svm_1, kernel_svm_10,
]  # fmt: skip

if __name__ == "__main__":
    main()
