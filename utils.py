"""What the seven chapters share: data, splits, checks, metrics, tables, comparisons, plots.

Plain functions, numpy only. What a chapter teaches stands in that chapter, not here.
Random numbers come from a generator that the caller makes: rng = np.random.default_rng(0).
"""

import argparse
import csv
import math
import numbers
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

LARGEST = 1e100  # larger inputs are refused: their squares would overflow
MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}  # cells of a table that hold no value

class DidNotConverge(UserWarning):
    """An iterative solver ran out of steps. The message says how far it got."""

# --- Data that a reader can check -----------------------------------------------------
def make_regression(rng, n=100, d=3, noise=1.0):
    """X (n, d) standard normal, y = Xw + b + noise, and the true w (d,) and b."""
    X, w, b = rng.normal(size=(n, d)), rng.normal(size=d), rng.normal()
    return X, X @ w + b + noise * rng.normal(size=n), w, b

def make_blobs(rng, n=150, centers=3, d=2, spread=1.0):
    """n points around `centers` random centers: X (n, d), and the blob of each, y (n,)."""
    middle, y = rng.uniform(-6, 6, size=(centers, d)), np.arange(n) % centers
    return middle[y] + spread * rng.normal(size=(n, d)), y

def make_moons(rng, n=200, noise=0.1):
    """Two interleaved half circles, which no straight line separates: X (n, 2), y (n,)."""
    y, t = np.arange(n) % 2, rng.uniform(0, np.pi, size=n)
    upper = np.column_stack([np.cos(t), np.sin(t)])
    lower = np.column_stack([1 - np.cos(t), 0.5 - np.sin(t)])
    return np.where(y[:, None] == 0, upper, lower) + noise * rng.normal(size=(n, 2)), y

def make_series(rng, n=200, period=12, trend=0.02, noise=0.2):
    """A series (n,): a trend per step, a season of `period` steps and height 1, and noise."""
    t = np.arange(n)
    return trend * t + np.sin(2 * np.pi * t / period) + noise * rng.normal(size=n)

# --- Splits ---------------------------------------------------------------------------
def train_test_split(rng, n, test_size=0.25):
    """Shuffle the row numbers 0..n-1 and cut: train, test. test has ceil(test_size * n)."""
    check_number("n", n, least=2, integer=True)
    check_number("test_size", test_size, above=0, below=1)
    cut, order = min(math.ceil(test_size * n), n - 1), rng.permutation(n)
    return order[cut:], order[:cut]

def k_fold(n, k=5, rng=None):
    """k pairs (train, test) of row numbers; each row stands in exactly one test part. Without
    rng the parts are blocks of neighbours; with it the rows are shuffled first."""
    check_number("k", k, least=2, most=n, integer=True)
    rows = np.arange(n)
    if rng is not None:
        rng.shuffle(rows)
    parts = [np.sort(part) for part in np.array_split(rows, k)]
    return [(np.setdiff1d(rows, part), part) for part in parts]

def stratified_k_fold(y, k=5):
    """k pairs (train, test); every test part has nearly the same share of each class: sort the
    rows by class and deal them out like cards, one to each fold in turn."""
    codes = np.unique(y, return_inverse=True)[1]
    check_number("k", k, least=2, most=int(np.bincount(codes).min()), integer=True)
    fold = np.empty(len(codes), dtype=int)
    fold[np.argsort(codes, kind="stable")] = np.arange(len(codes)) % k
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(k)]

# --- Input checks: one line to use, one clear sentence when something is wrong --------
def check_array(name, value, ndim, allow_nan=False):
    """value as a float array of `ndim` dimensions, not empty, every number finite (with allow_nan
    or nan). It may share memory with value: never write to it."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be rectangular: its rows differ in length") from None
    if array.dtype.kind not in "fiub":
        kinds = {"U": "text", "S": "bytes", "c": "complex numbers", "M": "dates"}
        what = kinds.get(array.dtype.kind, type(value).__name__ + " (dtype object)")
        raise TypeError(f"{name} must hold real numbers, not {what}")
    if array.ndim != ndim:
        hint = f" (for one feature: {name}[:, None])" if (ndim, array.ndim) == (2, 1) else ""
        raise ValueError(f"{name} must have {ndim} dimension(s), not shape {array.shape}{hint}")
    if array.size == 0:
        raise ValueError(f"{name} must have a row and a column at least, not shape {array.shape}")
    array = array.astype(float, copy=False)
    with np.errstate(over="ignore"):
        if np.linalg.norm(array) <= LARGEST:  # one fast pass; nan and inf fail it
            return array
    bad = np.abs(array) > LARGEST if allow_nan else ~(np.abs(array) <= LARGEST)
    if bad.any():
        at = tuple(np.argwhere(bad)[0].tolist())
        wanted = f"finite numbers up to {LARGEST:g}"
        raise ValueError(f"{name} must hold {wanted}, not {array[at]} (at index {at})")
    return array

def check_X(X, features=None):
    """X as a float array (n, d). At prediction, features is the d of the fit."""
    X = check_array("X", X, ndim=2)
    if features is not None and X.shape[1] != features:
        raise ValueError(f"X must have {features} feature(s), as in the fit, not {X.shape[1]}")
    return X

def check_Xy(X, y):
    """X as a float array (n, d) and y as a float array (n,). A column y would broadcast."""
    X, shape = check_X(X), np.shape(y)
    if shape and shape != (len(X),):
        raise ValueError(f"y must have shape ({len(X)},), one value per row of X, not {shape}")
    return X, check_array("y", y, ndim=1)

def check_labels(X, y, classes=None):
    """X as a float array (n, d), y as integers 0..k-1, each present: k = classes, or any k > 1."""
    X, y = check_Xy(X, y)
    found = np.unique(y)
    k = classes or max(len(found), 2)
    if not np.array_equal(found, np.arange(k)):
        few = ", ".join(f"{label:g}" for label in found[:4]) + ", ..." * (len(found) > 4)
        hint = "np.unique(y, return_inverse=True)[1] makes such labels"
        raise ValueError(f"y must hold every label from 0 to {k - 1}, not just {few} ({hint})")
    return X, y.astype(int)

def check_number(name, value, least=-np.inf, above=-np.inf, most=np.inf, below=np.inf,
                 integer=False):  # fmt: skip
    """value, if it is a plain finite number within the bounds that are given."""
    kind = numbers.Integral if integer else numbers.Real
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, kind):
        raise TypeError(f"{name} must be a {'whole ' * integer}number, not {value!r}")
    if not (least <= value <= most and above < value < below):  # nan and inf fail too
        bounds = {"at least": least, "above": above, "at most": most, "below": below}
        wanted = " and ".join(f"{word} {b:g}" for word, b in bounds.items() if math.isfinite(b))
        raise ValueError(f"{name} must be {wanted or 'finite'}, not {value}")
    return value

# --- Metrics --------------------------------------------------------------------------
def same_length(a, b):
    """Both as arrays (n,), n >= 1. Every metric starts here: a column would broadcast."""
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise ValueError(f"a metric needs two arrays of shape (n,), not {a.shape} and {b.shape}")
    return a, b

def mse(y, predicted):
    """Mean squared error, the mean of (y - predicted)^2, in squared units of y. 0 is best."""
    y, predicted = same_length(y, predicted)
    return float(np.mean((y - predicted) ** 2))

def r2_score(y, predicted):
    """R2 = 1 - squared error / squared error of always answering mean(y). 1 is perfect, 0 is
    as good as the mean, below 0 is worse. A constant y gives 1 if hit exactly and 0 if not."""
    y, predicted = same_length(y, predicted)
    residual, total = np.sum((y - predicted) ** 2), np.sum((y - y.mean()) ** 2)
    return float(1 - residual / total) if total > 0 else float(residual == 0)

def accuracy(y, predicted):
    """Share of labels that are right, 0 to 1."""
    y, predicted = same_length(y, predicted)
    return float(np.mean(y == predicted))

def log_loss(y, p):
    """Mean of -log(probability given to the true class): y (n,) labels 0..k-1, p (n, k), or
    (n,) for class 1 of two. Clipped at machine epsilon: a sure mistake costs 36, not inf."""
    p = np.asarray(p, dtype=float)
    p = np.column_stack([1 - p, p]) if p.ndim == 1 else p
    y, _ = same_length(y, p[:, 0])
    eps = np.finfo(float).eps
    return float(-np.mean(np.log(np.clip(p[np.arange(len(y)), y.astype(int)], eps, 1 - eps))))

def confusion_matrix(y, predicted):
    """(k, k) counts: row = true class, column = predicted class. The diagonal is right."""
    y, predicted = same_length(y, predicted)
    k = int(max(y.max(), predicted.max())) + 1
    return np.bincount(k * y.astype(int) + predicted.astype(int), minlength=k * k).reshape(k, k)

def roc_auc(y, score):
    """Area under the ROC curve: the chance that a random positive outscores a random negative,
    ties counting half. y (n,) holds 0 and 1. 0.5 is guessing, 1 is perfect."""
    y, score = same_length(y, score)
    if not np.array_equal(np.unique(y), [0, 1]):
        raise ValueError("y must hold both labels, 0 and 1, for a ROC curve")
    _, at, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[at]  # 1 for the lowest score; ties share the mean
    positive = np.count_nonzero(y)
    wins = rank[y == 1].sum() - positive * (positive + 1) / 2  # pairs (positive, negative) won
    return float(wins / (positive * (len(y) - positive)))

# --- Tables ---------------------------------------------------------------------------
def read_csv(path):
    """A CSV file with a header line as {column name: array (n,)}. The separator is the one of
    , ; tab that the header holds most of. Raises OSError, or ValueError with one sentence."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        separator = max(",;\t", key=file.readline().count)
        file.seek(0)
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
        rows = [[cell.strip() for cell in row] for row in reader if row]
    if len(rows) < 2:
        raise ValueError(f"{path} must have a header line and at least one row")
    header, *rows = rows
    if len(set(header)) < len(header):
        raise ValueError(f"{path} has two columns with the same name")
    for i, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(f"{path}: row {i} has {len(row)} cells, the header has {len(header)}")
    return {name: to_column(cells) for name, cells in zip(header, zip(*rows))}

def to_column(cells):
    """Floats (n,), nan where a cell is missing, if all known cells are numbers; otherwise text."""
    cells = ["" if cell.lower() in MISSING else cell for cell in cells]
    try:  # Python reads 1_000 as a number; in a table it is a name
        return np.array([float(cell.replace("_", "x")) if cell else np.nan for cell in cells])
    except ValueError:
        return np.array(cells)

def read_table(path, target):
    """The columns beside `target`, y (n,) and its labels, from the rows that have a target.

    A target of text, or of at most ten different numbers, is a class: y then holds 0..k-1 and
    labels what they stand for. Otherwise labels is None and y holds the numbers."""
    columns = read_csv(path)
    if target not in columns:
        raise ValueError(f"{path} has no column {target!r}; it has {', '.join(columns)}")
    y = columns.pop(target)
    known = y != "" if y.dtype.kind == "U" else ~np.isnan(y)
    columns, y = {name: column[known] for name, column in columns.items()}, y[known]
    if not columns or len(y) < 20:
        raise ValueError(f"{path} must have a second column, and 20 rows with a known {target}")
    labels, codes = np.unique(y, return_inverse=True)
    if y.dtype.kind == "f" and len(labels) > 10:
        return columns, y, None
    if len(labels) < 2 or np.bincount(codes).min() < 8:
        raise ValueError(f"{target} must have two classes or more, each in at least 8 rows")
    return columns, codes, labels

# --- Scratch beside library -----------------------------------------------------------
class Comparison(NamedTuple):
    """A scratch result beside the library's: the two values where they differ most, how much
    that is relative to max(1, max|library|), how much is allowed, and why."""
    what: str
    scratch: object
    library: object
    gap: float
    allowed: float
    why: str
    where: str

    @property
    def ok(self):
        """Whether the gap is within what is allowed."""
        return self.gap <= self.allowed  # false for nan too, so nan fails

    def __str__(self):
        return (f"{self.what} is off by {self.gap:.2g}{self.where}\n    scratch  {self.scratch}\n"
                f"    library  {self.library}\n    allowed  {self.allowed:g}: {self.why}")

def compare(what, scratch, library, allowed, why):
    """max|scratch - library| / max(1, max|library|) against `allowed`; `why` is its reason. Text
    has no difference: the gap is 1 where it is unequal."""
    a, b = np.asarray(scratch), np.asarray(library)
    if a.shape != b.shape or a.size == 0:
        return Comparison(what, a.shape, b.shape, math.inf, allowed, why, ": these are the shapes")
    if a.dtype.kind in "fiub" and b.dtype.kind in "fiub":
        a, b = a.astype(float), b.astype(float)
        gap = np.abs(np.subtract(a, b, out=np.zeros_like(a), where=a != b))  # inf equals inf
        gap /= max(1, np.abs(b).max())
    else:
        gap = (a != b).astype(float)
    worst = np.unravel_index(gap.argmax(), gap.shape)  # the first nan, if there is one
    where = f" at index {', '.join(map(str, worst))}" if worst else ""
    return Comparison(what, a[worst], b[worst], float(gap[worst]), allowed, why, where)

def report(comparisons):
    """Print each comparison as one line of a table. Returns the list."""
    width = max(len(c.what) for c in comparisons)
    print(f"\n  {'':{width}}  {'scratch':>11}  {'library':>11}  largest gap  allowed")
    for c in comparisons:
        a, b = (f"{v:.5g}" if isinstance(v, numbers.Real) else v for v in (c.scratch, c.library))
        gap = "< 1e-12" if c.gap < 1e-12 else f"{c.gap:.0e}"  # smaller ones are rounding
        line = f"  {c.what:{width}}  {a!s:>11}  {b!s:>11}  {gap:>11}  {c.allowed:7.0e}"
        print(line if c.ok else line + "  NOT EQUAL")
    return comparisons

# --- Pictures and the command line ----------------------------------------------------
def save_plot(filename, draw, panels=1, size=(7, 4.5)):
    """Call draw(ax), or draw(ax1, ax2, ...), and save the picture in the current folder."""
    from matplotlib.figure import Figure  # without pyplot: no window and no global state
    figure = Figure(figsize=size, layout="constrained")
    draw(*figure.subplots(1, panels, squeeze=False)[0])
    figure.savefig(filename, dpi=120)
    print(f"saved {filename}")

def progress(text):
    """A plain line on stderr, for work of over two seconds."""
    print(text, file=sys.stderr, flush=True)

def stop(error):
    """One line on stderr and exit code 2: what the reader typed cannot work."""
    progress(f"{Path(sys.argv[0]).name}: {error}")
    sys.exit(2)

def run_demos(demos, plot=False):
    """Run each demo(plot) in order and count what held. Exits with 1 if something did not."""
    try:
        comparisons = [c for demo in demos for c in demo(plot)]
    except ModuleNotFoundError as error:
        stop(f"{error}; pip install -r requirements.txt brings it")
    held = sum(c.ok for c in comparisons)
    print(f"\n{len(comparisons)} comparisons, {held} within tolerance")
    if held < len(comparisons):
        sys.exit(1)

def run_chapter(about, demos, on_csv=None, column="target", argv=None):
    """A chapter's command line: demo names (demo_ridge is `ridge`), --plot, and with
    on_csv(path, column name, plot) also --csv FILE --target COLUMN for the reader's table."""
    names = {demo.__name__.removeprefix("demo_"): demo for demo in demos}
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
    parser.error = stop
    parser.add_argument("demo", nargs="*", help=f"run just these: {', '.join(names)}")
    parser.add_argument("--plot", action="store_true", help="save the pictures as PNG files")
    if on_csv:
        parser.add_argument("--csv", metavar="FILE", help="your own table, header first")
        parser.add_argument(f"--{column}", dest="column", help="its column to predict")
    if argv is None and "ipykernel" in sys.modules:  # a notebook: the arguments are the kernel's
        argv = []
    args = parser.parse_args(argv)
    for name in set(args.demo) - set(names):
        parser.error(f"no demo is named {name!r}; there are {', '.join(names)}")
    if on_csv and (args.csv is None) != (args.column is None):
        parser.error(f"--csv FILE and --{column} COLUMN go together")
    if not on_csv or args.csv is None:
        return run_demos([names[name] for name in args.demo] or demos, args.plot)
    try:
        on_csv(args.csv, args.column, args.plot)
    except (OSError, ValueError, csv.Error, ModuleNotFoundError) as error:
        stop(error)
