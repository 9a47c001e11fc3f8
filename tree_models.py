# %% [markdown]
"""
# Tree models

A tree asks one question at a time, "is feature j at most t?", until few examples are left
that differ. Which questions should it ask, when should it stop, and why do hundreds of
weak trees together beat one good tree?

Read from top to bottom, run `python tree_models.py`, check with `pytest`. Nothing but
numpy is needed until a part called "The library version".

Throughout this file

    n, d, k    number of examples, of features, of classes
    X          features, one example per row                        (n, d)
    y          numbers to predict, or labels 0..k-1                  (n,)
    t          a node of a tree; tL and tR are its two children      `Node`
    w          weight of a row, 1 unless it is said otherwise        (n,)
    W          weight of all rows in a node                          ()
    I(t)       impurity of a node: how mixed its targets are         `impurity`
    α          alpha, the price of a leaf when a tree is pruned      `alpha`
    F          what boosting has predicted so far                    (n,)
    g, h       first and second derivative of the loss by F          (n,)
    η, λ       eta and lambda: step size and penalty                 `lr`, `l2`
"""

# %%
import heapq
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from utils import (
    accuracy, check_array, check_labels, check_number, check_X, check_Xy, compare, k_fold,
    make_moons, mse, progress, r2_score, read_csv, report, roc_auc, run_chapter, save_plot,
    train_test_split,
)  # fmt: skip

ALLOWED = {
    "tree by hand": (0, "labels are equal or not"),
    "classification tree": (1e-10, "both add up the same counts; only rounding differs"),
    "regression tree": (1e-10, "the same sums in another order"),
    "pruning": (1e-10, "sums of impurities in another order"),
    "forest": (1e-10, "the same bootstrap and all features: the same trees, up to rounding"),
    "out-of-bag": (0.02, "other random draws: scores of 200 trees differ by about 0.01"),
    "boosting": (1e-8, "rounding adds up over the trees"),
    "newton boosting": (1e-6, "relative to the spread of y: the library's g and h are float32"),
    "encoders": (0, "codes are equal or not"),
    "target encoding": (1e-10, "the same means, summed in another order"),
    "impurity importance": (1e-10, "sums of the same decreases in another order"),
    "permutation importance": (1e-10, "the same rows, shuffled in the same way"),
}

# %% [markdown]
"""
## A tree by hand

Before any algorithm grows a tree, we write one. An inner node holds a question; an example
goes left if the answer is yes. A leaf holds an answer.

    go left if x[feature] ≤ threshold, else right                              (1)

Iris flowers of three kinds can be told apart by two questions about their petals, found
by looking at a table. That is 5 nodes, 2 of them questions, and 96% of the labels right.

The prediction does not call itself: a tree can be thousands of levels deep, and Python
allows about 1000 nested calls. All rows walk together, one level per step.

People often get (1) wrong at the border: ≤ goes left. And a row is never lost: every
question has exactly two exits.

Trees need no scaling. Only the order of a feature's values matters in (1), so any
increasing function of a feature gives the same tree, with other thresholds.
"""


# %%
@dataclass(slots=True, eq=False, repr=False)
class Node:
    """One node. It is a leaf if `left` is None; then only `value` is used to predict.

    value is a number, or the share of each class (k,). n (a weight) and impurity describe
    the rows it was grown on; d, at the root, is the number of features."""

    value: object
    n: float = 1.0
    impurity: float = 0.0
    feature: int = None
    threshold: float = None
    left: "Node" = None
    right: "Node" = None
    missing_left: bool = False
    d: int = None


def list_nodes(root):
    """All nodes, level by level. The i-th question's children stand at 2i + 1 and 2i + 2."""
    nodes = [root]
    for node in nodes:  # the list grows while we walk along it
        if node.left is not None:
            nodes += (node.left, node.right)
    return nodes


def find_leaves(nodes, X, missing=False):
    """Equation (1) until every row is in a leaf: its index in `nodes`, (n,)."""
    asks = np.array([t.left is not None for t in nodes])
    left = np.where(asks, 2 * np.cumsum(asks) - 1, 0)
    feature = np.array([t.feature if t.left is not None else 0 for t in nodes])
    threshold = np.array([t.threshold if t.left is not None else 0.0 for t in nodes])
    if feature.max() >= X.shape[1]:
        raise ValueError(f"X must have at least {feature.max() + 1} features, not {X.shape[1]}")
    missing_right = ~np.array([t.missing_left for t in nodes])
    at, rows = np.zeros(len(X), int), np.arange(len(X) * asks[0])
    while len(rows):
        here = at[rows]
        x = X[rows, feature[here]]
        right = x > threshold[here]
        if missing:  # nan > threshold is False: without this line it would go left
            right |= np.isnan(x) & missing_right[here]
        at[rows] = here = left[here] + right
        rows = rows[asks[here]]
    return at


def tree_values(root, X, missing=False):
    """The value of each row's leaf: a mean (n,), or the share of each class (n, k)."""
    X = check_array("X", X, ndim=2, allow_nan=True) if missing else check_X(X, root.d)
    if root.d not in (None, X.shape[1]):
        raise ValueError(f"X must have {root.d} feature(s), as in the fit, not {X.shape[1]}")
    nodes = list_nodes(root)
    return np.array([node.value for node in nodes])[find_leaves(nodes, X, missing)]


def decide(values):
    """Shares of classes (n, k) become the largest's label; numbers (n,) stay."""
    return values.argmax(axis=1) if values.ndim == 2 else values


def predict_tree(root, X):
    """A label, or for regression a number, per row: (n,)."""
    return decide(tree_values(root, X))


def show_tree(root, names=None, depth=10):
    """The tree as text: its first `depth` levels, and below them only counts."""
    lines, todo = [], [(root, 0, "")]
    while todo:
        t, level, answer = todo.pop()
        margin = "|  " * level + answer
        if t.left is None:
            best = f"class {np.argmax(t.value)}" if np.ndim(t.value) else f"{t.value:.4g}"
            lines.append(f"{margin}{best}  (n = {t.n:g})")
        elif level == depth:
            below = list_nodes(t)
            leaves = (len(below) + 1) // 2
            lines.append(f"{margin}... {len(below) - leaves} more questions, {leaves} leaves")
        else:
            name = names[t.feature] if names else f"x[{t.feature}]"
            lines.append(f"{margin}{name} <= {t.threshold:.4g}?")
            todo += [(t.right, level + 1, "no:  "), (t.left, level + 1, "yes: ")]
    return "\n".join(lines)


# %%
def demo_by_hand(plot=False):
    """Two questions about iris petals, beside the tree that the library finds."""
    from sklearn.datasets import load_iris

    X, y = load_iris(return_X_y=True)
    wide = Node(value=None, feature=3, threshold=1.75, left=Node([0, 1, 0]), right=Node([0, 0, 1]))
    root = Node(value=None, feature=2, threshold=2.45, left=Node([1, 0, 0]), right=wide)
    for leaf, rows in [(root.left, 50), (wide.left, 54), (wide.right, 46)]:
        leaf.n = rows
    wide.value = root.value = [0, 0, 0]  # never asked for
    print("\n== Can two questions tell three kinds of iris apart? ==\n")
    print(show_tree(root, names=["sepal length", "sepal width", "petal length", "petal width"]))
    labels = predict_tree(root, X)
    print(f"\n  right: {np.sum(labels == y)} of {len(y)}")
    library = sklearn_tree(X, y, max_depth=2).predict(X)
    return report([compare("iris labels", labels, library, *ALLOWED["tree by hand"])])


# %% [markdown]
"""
Try: swap the two questions, so that petal width is asked first. Which flowers change?
"""

# %% [markdown]
"""
## Classification tree

Which question is best? The one whose two answers are least mixed. Two common measures of
how mixed the labels in a node are, from the share pₖ of each class:

    gini      I(t) = Σₖ pₖ (1 - pₖ) = 1 - Σₖ pₖ²                               (2)
    entropy   I(t) = -Σₖ pₖ log₂ pₖ                                            (3)

Both are 0 if all labels agree. The gain of a split is what it takes off the impurity:

    gain = W I(t) - W_L I(tL) - W_R I(tR)                                      (4)

Gini is the variance of a 0/1 column per class, added up. So it shares its algebra with
regression: let S be the sum of w (column - its mean in t) over the left rows. Then

    gain = Σ_columns S² W / (W_L W_R)                                          (5)

One running sum over the sorted rows gives S for every threshold of a feature at once.

**The grower.** Sort each feature once. Keep each level's rows grouped by node and sorted
inside it, score all nodes together, then filter: the rows that go left, then those that go
right, are still sorted. A level costs d n steps, so the whole costs about d n log n.

The search is greedy: it looks one question ahead. On XOR (label 1 where the signs differ)
no first question gains anything, although two questions solve it. So a split with gain 0
is allowed as long as the node is mixed. A node is a leaf if it is pure, too deep, too
small, or if its rows agree in every feature (then nothing can tell them apart).

A fully grown tree reaches 100% on its own training rows. That says nothing about new ones.
"""


# %%
def sort_columns(X):
    """Row numbers that sort each feature, (d, n). Ties keep their order."""
    return np.argsort(np.ascontiguousarray(X.T), axis=1, kind="stable")


def describe(targets, weight, rows, sizes, criterion):
    """Each node of a level: value (c, q), impurity (q,), W (q,), and each row minus its mean.

    targets (c, n) is y, or a 0/1 row per class. rows are grouped by node, sizes (q,) each."""
    starts, w = np.cumsum(sizes) - sizes, weight[rows]
    W = np.add.reduceat(w, starts)
    value = np.add.reduceat(w * targets[:, rows], starts, axis=1) / W
    centred = targets[:, rows] - np.repeat(value, sizes, axis=1)  # (c, m)
    if criterion == "entropy":  # equation (3); 0 log 0 is 0
        impurity = -np.sum(value * np.log2(np.where(value > 0, value, 1)), axis=0)
    else:  # equation (2): the variance of every column, added up
        impurity = np.add.reduceat(w * np.sum(centred**2, axis=0), starts) / W
    return value, impurity, W, w * centred


def running_sums(values, starts, node):
    """Sums from the first row of each node on: (..., m) -> (..., m)."""
    sums = np.cumsum(values, axis=-1)
    if len(starts) > 1:
        before = np.zeros((*sums.shape[:-1], len(starts)))
        before[..., 1:] = sums[..., starts[1:] - 1]
        sums -= before[..., node]
    return sums


def x_log_x(x):
    """x log2 x, and 0 at 0."""
    return x * np.log2(np.where(x > 0, x, 1))


def gain_variance(left_sums, W_left, W_right, ends):
    """Equation (5): the columns hold deviations from the node's mean."""
    squares = left_sums[0] ** 2
    for S in left_sums[1:]:
        squares += S**2
    squares *= (W_left + W_right) / (W_left * W_right)
    return squares


def gain_entropy(left_sums, W_left, W_right, ends):
    """Equation (4) with (3): W I(t) = W log W - sum of N log N over the counts N of classes."""
    gain = x_log_x(W_left + W_right) - x_log_x(W_left) - x_log_x(W_right)
    for N in left_sums:
        gain = gain + x_log_x(N) + x_log_x(N[:, ends] - N) - x_log_x(N[:, ends])
    return gain


def random_features(Xt, order, sizes, node, max_features, rng):
    """max_features random features for every node, as a feature per position (k, m).

    Features that are constant in a node come last: they cannot split it."""
    ends = np.cumsum(sizes) - 1
    each = np.arange(len(Xt))[:, None]
    low, high = (Xt[each, order[:, at]] for at in (ends - sizes + 1, ends))
    priority = rng.random(low.shape) + (low == high)  # (d, q)
    return np.argpartition(priority, max_features - 1, axis=0)[:max_features, node]


def best_splits(Xt, order, sizes, columns, weight, gain_of, min_samples_leaf, max_features, rng):
    """For each node of a level the best gain (q,), its feature (q,) and threshold (q,)."""
    node, ends = np.repeat(np.arange(len(sizes)), sizes), np.cumsum(sizes) - 1
    starts, at = ends - sizes + 1, np.arange(len(node))
    n_left = at - starts[node] + 1
    n_right = sizes[node] - n_left
    closed = np.flatnonzero((n_left < min_samples_leaf) | (n_right < min_samples_leaf))
    feature = np.arange(len(Xt))[:, None]
    if max_features is not None:
        feature = random_features(Xt, order, sizes, node, max_features, rng)
        order = order[feature, at]
    gain = np.empty(order.shape)
    step = max(1, 65536 // len(at))  # features at a time, so that all of it stays in cache
    for a in range(0, len(order), step):
        o = order[a : a + step]
        x = Xt[feature[a : a + step], o]
        W_left, W_right = n_left, np.maximum(n_right, 1)
        if weight is not None:
            W_left = running_sums(weight[o], starts, node)
            W_right = np.where(n_right > 0, W_left[:, ends][:, node] - W_left, 1)
        left_sums = [running_sums(column[o], starts, node) for column in columns]
        part = gain_of(left_sums, W_left, W_right, ends[node])
        part[:, closed] = -np.inf
        part[:, :-1][x[:, 1:] == x[:, :-1]] = -np.inf  # equal values cannot be separated
        gain[a : a + step] = part
    return locate_best(Xt, order, gain, feature, node, starts)


def locate_best(Xt, order, gain, feature, node, starts):
    """The first feature and position that reach the largest gain of each node."""
    top = np.maximum.reduceat(gain, starts, axis=1)  # (k, q)
    pick = top.argmax(axis=0)
    best = top[pick, np.arange(len(starts))]
    hits = np.flatnonzero(gain[pick[node], np.arange(len(node))] == best[node])
    at = hits[np.searchsorted(hits, starts)]
    j = feature[pick, 0 if feature.shape[1] == 1 else at]
    low, high = Xt[j, order[pick, at]], Xt[j, order[pick, np.minimum(at + 1, len(node) - 1)]]
    middle = low / 2 + high / 2
    return best, j, np.where(middle < high, middle, low)


def grow(
    Xt, order, targets, criterion, weight=None, max_depth=None, min_samples_leaf=1,
    min_impurity_decrease=0.0, max_features=None, rng=None,
):  # fmt: skip
    """Grow a tree level by level. Returns its nodes, and for each row the index of its leaf (n,).

    Rows of weight 0 are left out; the other rows count once in min_samples_leaf."""
    w, side = np.ones(Xt.shape[1]) if weight is None else weight, np.ones(Xt.shape[1], np.int8)
    if weight is not None:
        order = order[(weight > 0)[order]].reshape(len(Xt), -1)
    rows, sizes, first, levels = order[0], np.array([order.shape[1]]), 0, []
    columns, leaf = w * targets, np.zeros(Xt.shape[1], int)
    gain_of = gain_entropy if criterion == "entropy" else gain_variance
    while len(sizes):
        q, starts = len(sizes), np.cumsum(sizes) - sizes
        value, impurity, W, centred = describe(targets, w, rows, sizes, criterion)
        leaf[rows] = first + np.repeat(np.arange(q), sizes)
        here = targets[:, rows]
        low, high = (f.reduceat(here, starts, axis=1) for f in (np.minimum, np.maximum))
        mixed = (low < high).any(axis=0) & (sizes >= 2 * min_samples_leaf)
        mixed &= max_depth is None or len(levels) < max_depth
        feature, threshold, split = np.zeros(q, int), np.zeros(q), np.zeros(q, bool)
        if mixed.any():
            if criterion != "entropy":
                columns[:, rows] = centred
            side[rows] *= np.repeat(mixed, sizes)
            if levels:
                order = keep_sorted(order, side)
            gain, feature[mixed], threshold[mixed] = best_splits(
                Xt, order, sizes[mixed], split_columns(columns, criterion), weight, gain_of,
                min_samples_leaf, max_features, rng,
            )  # fmt: skip
            enough = np.maximum(gain, 0) >= min_impurity_decrease * w.sum() - 1e-15
            split[mixed] = enough & (gain > -np.inf)
        left = first + q + np.cumsum(split) - 1
        levels.append((value.T, W, impurity, split, feature, threshold, left, left + split.sum()))
        rows, sizes = divide(Xt, rows, sizes, split, feature, threshold, side)
        first += q
    return link(levels, len(Xt), criterion), leaf


def split_columns(columns, criterion):
    """Two classes mirror each other: one column, times the root of 2, stands for both."""
    return columns[1:] * math.sqrt(2) if criterion == "gini" and len(columns) == 2 else columns


def keep_sorted(order, side):
    """The rows that went left (side 1), then those that went right (side 2), in their order."""
    went = side[order]
    parts = [order[went == s].reshape(len(order), -1) for s in (1, 2)]
    return np.concatenate(parts, axis=1)


def divide(Xt, rows, sizes, split, feature, threshold, side):
    """Equation (1) for one level: rows and sizes of the next one, all left children first."""
    side[rows] = 0
    rows = rows[np.repeat(split, sizes)]
    sizes, feature, threshold = sizes[split], feature[split], threshold[split]
    node = np.repeat(np.arange(len(sizes)), sizes)
    right = Xt[feature[node], rows] > threshold[node]
    side[rows] = 1 + right
    n_right = np.bincount(node[right], minlength=len(sizes))
    rows = np.concatenate([rows[~right], rows[right]])
    return rows, np.concatenate([sizes - n_right, n_right])


def link(levels, d, criterion):
    """Turn the levels' arrays into nodes that point at each other."""
    value, W, impurity, split, feature, threshold, left, right = map(np.concatenate, zip(*levels))
    value = value[:, 0].tolist() if criterion == "variance" else value
    nodes = list(map(Node, value, W.tolist(), impurity.tolist()))
    for i in np.flatnonzero(split).tolist():
        nodes[i].left, nodes[i].right = nodes[left[i]], nodes[right[i]]
        nodes[i].feature, nodes[i].threshold = int(feature[i]), float(threshold[i])
    nodes[0].d = d
    return nodes


def check_targets(X, y, criterion):
    """X, and targets (c, n): y itself, or a 0/1 row per class."""
    if criterion not in ("gini", "entropy", "variance"):
        raise ValueError(f"criterion must be gini, entropy or variance, not {criterion!r}")
    if criterion == "variance":
        X, y = check_Xy(X, y)
        return X, y[None]
    X, y = check_labels(X, y)
    return X, (np.arange(y.max() + 1)[:, None] == y).astype(float)


def check_growth(max_depth, min_samples_leaf, min_impurity_decrease=0.0):
    """The three brakes on growth; max_depth=None is no limit."""
    if max_depth is not None:
        check_number("max_depth", max_depth, least=1, integer=True)
    check_number("min_samples_leaf", min_samples_leaf, least=1, integer=True)
    check_number("min_impurity_decrease", min_impurity_decrease, least=0)


def fit_tree(
    X, y, criterion="gini", max_depth=None, min_samples_leaf=1, min_impurity_decrease=0.0
):  # fmt: skip
    """CART (Breiman, Friedman, Olshen and Stone, 1984): the root of a tree grown on X, y.

    criterion is "gini" or "entropy" for labels, "variance" for numbers. A split must leave
    min_samples_leaf rows on each side and take min_impurity_decrease off the mean impurity."""
    X, targets = check_targets(X, y, criterion)
    check_growth(max_depth, min_samples_leaf, min_impurity_decrease)
    nodes, _ = grow(
        np.ascontiguousarray(X.T), sort_columns(X), targets, criterion, None,
        max_depth, min_samples_leaf, min_impurity_decrease,
    )  # fmt: skip
    return nodes[0]


# %% [markdown]
"""
### The library version

scikit-learn has one class for labels and one for numbers, and calls our variance
`squared_error`. It stores X as float32, and treats values closer than 1e-7 as equal. Where
two splits gain the same it picks at random, so two of its own trees can differ: the honest
test is whether each of its splits is as good as the best that our search finds there.
"""


# %%
def sklearn_tree(
    X, y, criterion="gini", max_depth=None, min_samples_leaf=1, min_impurity_decrease=0.0,
    ccp_alpha=0.0, seed=0,
):  # fmt: skip
    """The same tree, grown by scikit-learn. Returns the fitted estimator."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    options = dict(max_depth=max_depth, min_samples_leaf=min_samples_leaf, ccp_alpha=ccp_alpha)
    options |= dict(min_impurity_decrease=min_impurity_decrease, random_state=seed)
    if criterion == "variance":
        return DecisionTreeRegressor(criterion="squared_error", **options).fit(X, y)
    return DecisionTreeClassifier(criterion=criterion, **options).fit(X, y)


def nodes_from_sklearn(model):
    """The library's tree as our nodes: its root, and the list in the library's numbering."""
    t = model.tree_
    values = t.value[:, 0, 0].tolist() if model.criterion == "squared_error" else t.value[:, 0]
    nodes = list(map(Node, values, t.weighted_n_node_samples.tolist(), t.impurity.tolist()))
    for i in np.flatnonzero(t.children_left >= 0).tolist():
        nodes[i].left, nodes[i].right = nodes[t.children_left[i]], nodes[t.children_right[i]]
        nodes[i].feature, nodes[i].threshold = int(t.feature[i]), float(t.threshold[i])
    nodes[0].d = model.n_features_in_
    return nodes[0], nodes


def gain_at(t):
    """Equation (4) for the split at node t."""
    return t.n * t.impurity - t.left.n * t.left.impurity - t.right.n * t.right.impurity


def library_splits(model, X, y, criterion, min_samples_leaf=1):
    """At every split of the library's tree: its node, and our best node for the same rows."""
    nodes = nodes_from_sklearn(model)[1]
    inside = model.decision_path(X).toarray().astype(bool)  # (n, nodes)
    pairs = []
    for i in [i for i, t in enumerate(nodes) if t.left is not None]:
        part = y[inside[:, i]]
        if criterion != "variance":
            part = np.unique(part, return_inverse=True)[1]  # labels that are left: 0..k-1
        stump = fit_tree(X[inside[:, i]], part, criterion, 1, min_samples_leaf)
        pairs.append((nodes[i], stump))
    return pairs


# %%
def demo_classification_tree(plot=False):
    """Two half moons: the regions a tree draws, and every split of the library's tree."""
    X, y = make_moons(np.random.default_rng(0), n=200, noise=0.2)
    X = X.astype(np.float32).astype(float)
    root = fit_tree(X, y, "gini", max_depth=4)
    across, down = np.meshgrid(np.linspace(-1.5, 2.5, 57), np.linspace(1.5, -1, 15))
    labels = predict_tree(root, np.column_stack([across.ravel(), down.ravel()]))
    print("\n== Which rectangles does a tree of depth 4 cut two moons into? ==\n")
    for line in labels.reshape(across.shape):
        print("  " + "".join(".#"[label] for label in line))
    print(f"\n{show_tree(root, depth=2)}")
    if plot:
        save_plot("tree_models_classification.png", lambda ax: draw_regions(ax, root, X, y))
    comparisons = []
    for criterion in ("gini", "entropy"):
        pairs = library_splits(sklearn_tree(X, y, criterion), X, y, criterion)
        ours, library = ([gain_at(t) for t in nodes] for nodes in list(zip(*pairs))[::-1])
        what = f"gain of {len(pairs)} splits, {criterion}"
        comparisons.append(compare(what, ours, library, *ALLOWED["classification tree"]))
    return report(comparisons)


def draw_regions(ax, root, X, y):
    """The label of every point of the plane, and the examples."""
    across, down = np.meshgrid(np.linspace(-1.5, 2.5, 300), np.linspace(-1.2, 1.7, 300))
    labels = predict_tree(root, np.column_stack([across.ravel(), down.ravel()]))
    ax.contourf(across, down, labels.reshape(across.shape), alpha=0.3, cmap="coolwarm")
    ax.scatter(*X.T, c=y, s=12, cmap="coolwarm")
    ax.set(xlabel="x[0]", ylabel="x[1]", title="A tree of depth 4 on two moons")


# %% [markdown]
"""
Try: set max_depth=None. Which islands appear, and does a new sample of moons have them?
"""

# %% [markdown]
"""
## Regression tree

For numbers, a leaf answers with the mean of its rows, and the impurity is their variance:

    I(t) = 1/W Σᵢ wᵢ (yᵢ - mean(t))²                                           (6)

The grower, the gain (4) and its short form (5) stay as they are. Why (5) is short: the
deviations from the mean sum to S on the left and -S on the right, so putting each side's
own mean in place of the parent's takes S²/W_L + S²/W_R off the sum of squares, and that is
S² W / (W_L W_R). Each side is measured around its own mean; around the parent's mean no
split would gain anything.

The fit is a staircase: constant between thresholds, never outside the range of y. So a
tree cannot extend a trend beyond the data it has seen. And it is unstable: drop a few rows
and the first question may change, and with it every question below. Both are reasons for
the forests that follow.
"""


# %%
def demo_regression_tree(plot=False):
    """One noisy wave: the staircase, and the library's tree node for node."""
    rng = np.random.default_rng(1)
    X = np.sort(rng.uniform(0, 6, size=(240, 1)), axis=0).astype(np.float32).astype(float)
    y = np.sin(X[:, 0]) + 0.2 * rng.normal(size=240)
    root = fit_tree(X, y, "variance", min_samples_leaf=10)
    grid = np.linspace(0.1, 5.9, 30)
    print("\n== How does a staircase follow a wave? ==\n")
    for x, step in list(zip(grid, predict_tree(root, grid[:, None])))[::2]:
        print(f"  x = {x:.1f}  {step:5.2f}  " + " " * round(15 + 12 * step) + "#")
    if plot:
        save_plot("tree_models_staircase.png", lambda ax: draw_staircase(ax, root, X, y))
    library, _ = nodes_from_sklearn(sklearn_tree(X, y, "variance", min_samples_leaf=10))
    comparisons = []
    for what in ("feature", "threshold", "value", "impurity", "n"):
        ours, theirs = ([getattr(t, what) for t in list_nodes(r)] for r in (root, library))
        if what in ("feature", "threshold"):  # of the nodes that ask
            ours, theirs = ([v for v in vs if v is not None] for vs in (ours, theirs))
        comparisons.append(
            compare(f"{what} of {len(ours)} nodes", ours, theirs, *ALLOWED["regression tree"])
        )
    return report(comparisons)


def draw_staircase(ax, root, X, y):
    """The data and the tree's answer."""
    x = np.linspace(0, 6, 1000)
    ax.plot(X[:, 0], y, ".", color="gray", label="data")
    ax.plot(x, predict_tree(root, x[:, None]), label="tree, 10 rows per leaf at least")
    ax.set(xlabel="x", ylabel="y", title="A regression tree is a staircase")
    ax.legend()


# %% [markdown]
"""
Try: ask for the prediction at x = 20. Before you do: which stair will answer?
"""

# %% [markdown]
"""
## Pruning

When should a tree stop? Stopping early is short-sighted: on XOR the first split gains
nothing. Better grow it fully, then cut back what does not pay. Put a price α on each leaf:

    R_α(T) = Σ_leaves (W(t) / W(root)) I(t) + α · (number of leaves)           (7)

For every α there is a smallest subtree that minimises (7), and as α rises these subtrees
are nested: branches only fall off. So one list of prices tells the whole story.

Below a node t, the cheapest subtree's cost, as a function of α, is a chain of straight
lines: the slope is its number of leaves, and it bends where a branch falls off. As a leaf,
t itself costs r(t) + α, with r(t) = W(t) I(t) / W(root). Where the two meet, t falls:

    α(t) = (r(t) - cost) / (leaves - 1)                                        (8)

with cost and leaves of the line that holds there. We go up from the leaves and keep the
bends of each branch in a heap. A bend above α(t) never happens (t has fallen before), so
it is popped. Each node is pushed once and, with the smaller heap always poured into the
larger, the whole takes n log² n steps, even if the tree is a chain.

The price that is best for new data is not known in advance: choose it on data that the
tree was not grown on. The training error says "no pruning" always.
"""


# %%
def collapse_alphas(root):
    """Equation (8) for each node of list_nodes(root), and the bends (α, leaves lost) of the root.

    Weakest-link pruning (Breiman et al., 1984, chapter 3), from the leaves up."""
    nodes, heaps, alphas = list_nodes(root), {}, []
    for t in reversed(nodes):
        if t.left is None:
            heaps[id(t)] = []
            alphas.append(math.inf)
            continue
        few, bends = sorted((heaps.pop(id(t.left)), heaps.pop(id(t.right))), key=len)
        for bend in few:
            heapq.heappush(bends, bend)
        r, left, right = (s.n * s.impurity / root.n for s in (t, t.left, t.right))
        cost, leaves = left + right, 2  # at the highest prices both children are leaves
        alpha = max(r - cost, 0.0)  # rounding may go below 0
        while bends and -bends[0][0] > alpha:  # under that bend the branch is still there
            bend, lost = heapq.heappop(bends)
            leaves, cost = leaves + lost, cost + lost * bend  # bend is -α: it was a max-heap
            alpha = max((r - cost) / (leaves - 1), 0.0)
        heapq.heappush(bends, (-alpha, leaves - 1))
        heaps[id(t)] = bends
        alphas.append(alpha)
    return nodes, alphas[::-1], sorted((-bend, lost) for bend, lost in heaps[id(root)])


def pruning_path(root):
    """The prices at which the pruned tree changes, from 0 up, and its leaves from there on."""
    nodes, _, bends = collapse_alphas(root)
    alphas, leaves = [0.0], [(len(nodes) + 1) // 2]
    for alpha, lost in bends:
        if alpha > alphas[-1] + 1e-12 * max(root.impurity, alpha):  # equal up to rounding: a tie
            alphas.append(alpha)
            leaves.append(leaves[-1])
        leaves[-1] -= lost
    return np.array(alphas), np.array(leaves)


def prune_tree(root, alpha):
    """The smallest subtree that minimises equation (7): a copy, root stays as it is."""
    check_number("alpha", alpha, least=0)
    nodes, alphas, _ = collapse_alphas(root)
    copies = {}
    for t, own in zip(reversed(nodes), reversed(alphas)):
        copies[id(t)] = copy = replace(t)
        if own <= alpha:
            copy.left = copy.right = copy.feature = copy.threshold = None
        elif t.left is not None:
            copy.left, copy.right = copies[id(t.left)], copies[id(t.right)]
    return copies[id(root)]


# %% [markdown]
"""
### The library version

scikit-learn prunes while it fits: `ccp_alpha` is our alpha, and the path of prices is a
method. It removes one branch at a time, so equal prices repeat in its list; ours holds each
once. With ccp_alpha=0 it does nothing, where (7) drops splits that gained nothing.
"""


# %%
def sklearn_pruning_path(X, y, criterion="gini", min_samples_leaf=1, seed=0):
    """The library's prices, each once, from 0 up."""
    model = sklearn_tree(X, y, criterion, min_samples_leaf=min_samples_leaf, seed=seed)
    alphas = np.maximum(model.cost_complexity_pruning_path(X, y).ccp_alphas, 0)
    return alphas[np.append(True, np.diff(alphas) > 1e-12)]


# %%
def demo_pruning(plot=False):
    """Breast cancer (569 rows, real data): what a price per leaf does to the test error."""
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    X = X.astype(np.float32).astype(float)
    train, test = train_test_split(np.random.default_rng(3), len(X), 0.4)
    model = sklearn_tree(X[train], y[train])
    root, _ = nodes_from_sklearn(model)  # start from an equal tree: its ties broke at random
    alphas, leaves = pruning_path(root)
    print("\n== Which leaves are worth their price? ==\n")
    print("   alpha     leaves  right on training rows  right on new rows")
    for alpha, count in zip(alphas, leaves):
        small = prune_tree(root, alpha)
        right = [accuracy(y[rows], predict_tree(small, X[rows])) for rows in (train, test)]
        print(f"  {alpha:.6f}  {count:5}   {right[0]:19.3f}  {right[1]:17.3f}")
    middle = float(alphas[len(alphas) // 2] + alphas[len(alphas) // 2 + 1]) / 2
    pruned = nodes_from_sklearn(sklearn_tree(X[train], y[train], ccp_alpha=middle))[0]
    ours, theirs = ([t.n for t in list_nodes(r)] for r in (prune_tree(root, middle), pruned))
    path = sklearn_pruning_path(X[train], y[train])
    return report(
        [
            compare(f"{len(alphas)} prices", alphas, path, *ALLOWED["pruning"]),
            compare("nodes at a price between", ours, theirs, *ALLOWED["pruning"]),
        ]
    )


# %% [markdown]
"""
Try: grow the tree with min_samples_leaf=5 first. Does pruning still help?
"""

# %% [markdown]
"""
## Random forest

A full tree is right on average and wrong in detail: another sample would give another tree.
Averaging cancels such noise, if the trees err differently. For B trees whose errors have
variance σ² and correlation ρ,

    variance of the average = ρ σ² + (1 - ρ) σ² / B                            (9)

More trees shrink the second term; only trees that differ shrink the first. Two tricks:

- **Bootstrap.** Each tree sees n rows drawn with replacement. A row drawn three times is
  not copied: it gets weight 3 in (2) to (6), and still counts as one row in a leaf.
- **Random features at every split**, not once per tree: often √d of them. A strong feature
  then cannot open every tree.

About (1 - 1/n)ⁿ ≈ 37% of the rows are left out of each tree. Predicting each row only with
the trees that never saw it gives an honest score without a test set: out-of-bag.

The forest answers with the mean of its trees (of class shares, then the largest wins).
More trees never overfit, they only cost time. Judging it on its own training rows proves
nothing: full trees remember them. And like its trees, it cannot extrapolate.
"""


# %%
class Forest(NamedTuple):
    """The trees' roots, and how often each drew each row: (trees, n)."""

    trees: list
    counts: np.ndarray


def draw_bootstrap(rng, trees, n):
    """How often each row is drawn in n draws with replacement, for every tree: (trees, n)."""
    return np.array([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(trees)])


def fit_forest(
    X, y, criterion="gini", trees=100, max_features="sqrt", max_depth=None,
    min_samples_leaf=1, rng=None, counts=None,
):  # fmt: skip
    """Random forest (Breiman, 2001). max_features is a number, "sqrt" of d, or None for all.

    Give either a generator, or the bootstrap itself: counts (trees, n), whole numbers."""
    X, targets = check_targets(X, y, criterion)
    check_growth(max_depth, min_samples_leaf)
    check_number("trees", trees, least=1, integer=True)
    n, d = X.shape
    rng = np.random.default_rng(0) if rng is None else rng
    if max_features is not None:
        max_features = max(1, math.isqrt(d)) if max_features == "sqrt" else max_features
        check_number("max_features", max_features, least=1, most=d, integer=True)
    counts = check_counts(draw_bootstrap(rng, trees, n) if counts is None else counts, n)
    Xt, order = np.ascontiguousarray(X.T), sort_columns(X)
    grown = [
        grow(Xt, order, targets, criterion, weight, max_depth, min_samples_leaf, 0.0,
             max_features, rng)[0][0]
        for weight in counts
    ]  # fmt: skip
    return Forest(grown, counts)


def check_counts(counts, n):
    """counts (trees, n) as floats: not negative, and some row in each tree."""
    counts = check_array("counts", counts, ndim=2)
    if counts.shape[1] != n or counts.min() < 0 or not counts.any(axis=1).all():
        raise ValueError(f"counts must be (trees, {n}), 0 or more, no row all 0: {counts.shape}")
    return counts


def forest_values(forest, X):
    """The trees' mean value: (n,), or the share of each class (n, k)."""
    return sum(tree_values(tree, X) for tree in forest.trees) / len(forest.trees)


def predict_forest(forest, X):
    """A label, or for regression a number, per row: (n,)."""
    return decide(forest_values(forest, X))


def out_of_bag(forest, X):
    """Rows of the training set X that some tree left out, and those trees' mean value there."""
    X = check_X(X, forest.trees[0].d)
    if len(X) != forest.counts.shape[1]:
        raise ValueError(f"X must be the {forest.counts.shape[1]} training rows, not {len(X)}")
    out = forest.counts == 0  # (trees, n)
    rows = np.flatnonzero(out.any(axis=0))
    if len(rows) == 0:
        raise ValueError("every tree has drawn every row: there is nothing out of bag")
    total = np.zeros((len(X), *np.shape(forest.trees[0].value)))
    for tree, left_out in zip(forest.trees, out):
        if left_out.any():
            total[left_out] += tree_values(tree, X[left_out])
    return rows, (total[rows].T / out.sum(axis=0)[rows]).T


# %% [markdown]
"""
### The library version

scikit-learn calls trees `n_estimators`. It keeps drawing features until one of them can
split; we draw among those that vary in the node. Its bootstrap can be read back from the
fitted model, so that both forests can be grown on the same draws.
"""


# %%
def sklearn_forest(
    X, y, criterion="gini", trees=100, max_features="sqrt", max_depth=None,
    min_samples_leaf=1, seed=0,
):  # fmt: skip
    """The same forest in scikit-learn, with its out-of-bag predictions."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    options = dict(n_estimators=trees, max_features=max_features, max_depth=max_depth)
    options |= dict(min_samples_leaf=min_samples_leaf, oob_score=True, random_state=seed)
    if criterion == "variance":
        return RandomForestRegressor(**options).fit(X, y)
    return RandomForestClassifier(criterion=criterion, **options).fit(X, y)


def sklearn_counts(model, n):
    """How often each tree of a fitted library forest drew each row: (trees, n)."""
    return np.array([np.bincount(rows, minlength=n) for rows in model.estimators_samples_])


# %%
def demo_forest(plot=False):
    """Diabetes (442 patients, real data): one tree, a forest, and the out-of-bag score."""
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True)
    rng = np.random.default_rng(0)
    train, test = train_test_split(rng, len(X))
    print("\n== What do many trees know that one does not? ==\n")
    print("  trees   R2 on new rows")
    forest = fit_forest(X[train], y[train], "variance", 100, rng=rng)
    for count in (1, 3, 10, 30, 100):
        first = Forest(forest.trees[:count], forest.counts[:count])
        score = r2_score(y[test], predict_forest(first, X[test]))
        print(f"  {count:5}   {score:6.3f}  " + "#" * max(0, round(60 * score)))
    rows, values = out_of_bag(forest, X[train])
    print(f"\n  R2 out of bag, no test rows needed: {r2_score(y[train][rows], values):.3f}")
    return report(compare_forests(np.random.default_rng(5)))


def compare_forests(rng):
    """The same bootstrap and all features: equal. Random features: as good, out of bag."""
    X = rng.normal(size=(400, 9)).astype(np.float32).astype(float)
    z = X[:, 0] + X[:, 1] * X[:, 2]
    y, labels = z + 0.3 * rng.normal(size=400), (z > 0).astype(int)
    new = rng.normal(size=(200, 9)).astype(np.float32).astype(float)
    model = sklearn_forest(X, y, "variance", 20, None, min_samples_leaf=10)
    counts = sklearn_counts(model, len(X))
    ours = fit_forest(X, y, "variance", 20, None, None, 10, counts=counts)
    rows, values = out_of_bag(fit_forest(X, labels, trees=200, rng=rng), X)
    return [
        compare(
            "forest on new rows", predict_forest(ours, new), model.predict(new), *ALLOWED["forest"]
        ),
        compare(
            "out-of-bag accuracy, sqrt features", accuracy(labels[rows], decide(values)),
            sklearn_forest(X, labels, trees=200).oob_score_, *ALLOWED["out-of-bag"],
        ),
    ]  # fmt: skip


# %% [markdown]
"""
Try: max_features=None in the demo's forest. By (9), what do you expect of the score?
"""

# %% [markdown]
"""
## Gradient boosting

A forest averages deep trees that are grown apart. Boosting adds up shallow ones, each grown
on what those before it still get wrong. Start with the best constant F, then repeat:

    g = ∂loss/∂F       grow a regression tree on -g       F ← F + η · tree       (10)

That is gradient descent, with one tree per step in place of one number per row: a tree can
also answer for rows it has never seen. Two losses, and their derivatives by F:

    squared    1/2 (y - F)²                      g = F - y      h = 1          (11)
    log        log(1 + exp(F)) - y F             g = p - y      h = p (1 - p)  (12)

with p = 1 / (1 + exp(-F)), so F is the log of the odds. The start is the mean of y, or the
log odds of its mean. The tree's regions are good, its means are not the best step for the
log loss. So each leaf takes one Newton step of its own:

    leaf value = -Σ g / Σ h                                                    (13)

For the squared error this is the mean of the residuals again. The start belongs to the
prediction: forget it, and every answer is off by the mean of y.

A small η needs more trees and generalises better. Unlike a forest, boosting does overfit:
watch the error on held-out rows, and stop where it is least.
"""


# %%
class Boosting(NamedTuple):
    """F = start + lr · (sum of the trees). missing says whether nan may be in X."""

    loss: str
    start: float
    lr: float
    trees: list
    missing: bool = False


def sigmoid(z):
    """1 / (1 + exp(-z)); only exp(-|z|) is computed, so nothing overflows."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def derivatives(loss, y, F):
    """g and h of equation (11) or (12), each (n,)."""
    if loss == "squared":
        return F - y, np.ones(len(y))
    p = sigmoid(F)
    return p - y, p * (1 - p)


def boost(y, loss, steps, lr, l2, grow_one):
    """Equation (10). grow_one(g, h) gives a tree's nodes, and the leaf of each row."""
    mean = y.mean()
    start = float(mean if loss == "squared" else np.log(mean / (1 - mean)))
    F, trees = np.full(len(y), start), []
    for _ in range(steps):
        g, h = derivatives(loss, y, F)
        nodes, leaf = grow_one(g, h)
        top, bottom = (np.bincount(leaf, v, minlength=len(nodes)) for v in (g, h))
        bottom += l2
        value = np.divide(-top, bottom, out=np.zeros(len(top)), where=bottom > 1e-150)  # (13), (15)
        F += lr * value[leaf]
        for node, v in zip(nodes, value.tolist()):
            node.value = v
        trees.append(nodes[0])
    return Boosting(loss, start, lr, trees)


def check_boosting(X, y, loss, steps, lr, missing=False):
    """X and y as float arrays; y holds 0 and 1 for the log loss."""
    if loss not in ("squared", "log"):
        raise ValueError(f"loss must be squared or log, not {loss!r}")
    check_number("steps", steps, least=1, integer=True)
    check_number("lr", lr, above=0)
    X = check_array("X", X, ndim=2, allow_nan=missing)
    known = np.nan_to_num(X) if missing else X
    y = check_labels(known, y, classes=2)[1] if loss == "log" else check_Xy(known, y)[1]
    return X, y.astype(float)


def fit_boosting(X, y, loss="squared", steps=100, lr=0.1, max_depth=3, min_samples_leaf=1):
    """Gradient boosting (Friedman, 2001) of regression trees. For the log loss y is 0 or 1."""
    X, y = check_boosting(X, y, loss, steps, lr)
    check_growth(max_depth, min_samples_leaf)
    Xt, order = np.ascontiguousarray(X.T), sort_columns(X)  # sorted once for all the trees

    def grow_one(g, h):
        return grow(Xt, order, -g[None], "variance", None, max_depth, min_samples_leaf)

    return boost(y, loss, steps, lr, 0.0, grow_one)


def staged_scores(model, X):
    """F after 0, 1, 2, ... trees: yields one (n,) each."""
    X = check_array("X", X, ndim=2, allow_nan=model.missing)
    F = np.full(len(X), model.start)
    yield F
    for tree in model.trees:
        F = F + model.lr * tree_values(tree, X, model.missing)
        yield F


def predict_boosting(model, X):
    """A number per row, or for the log loss the probability of class 1: (n,)."""
    for F in staged_scores(model, X):
        pass
    return F if model.loss == "squared" else sigmoid(F)


# %% [markdown]
"""
### The library version

scikit-learn has a class for each kind of y, and calls steps `n_estimators` and lr
`learning_rate`. Its stages start after the first tree. It sorts again in every node of
every tree, which is why ours is faster: the order of X never changes, only y does.
"""


# %%
def sklearn_boosting(
    X, y, loss="squared", steps=100, lr=0.1, max_depth=3, min_samples_leaf=1, seed=0
):
    """The same model, fitted by scikit-learn."""
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    kind = GradientBoostingRegressor if loss == "squared" else GradientBoostingClassifier
    return kind(
        n_estimators=steps, learning_rate=lr, max_depth=max_depth,
        min_samples_leaf=min_samples_leaf, random_state=seed,
    ).fit(X, y)  # fmt: skip


def sklearn_stages(model, X):
    """The library's F after 1, 2, ... trees: (steps, n)."""
    stages = getattr(model, "staged_decision_function", None) or model.staged_predict
    return np.array([F.ravel() for F in stages(X)])


# %%
def friedman_data(rng, n):
    """Friedman's test function of five features, and five features that do nothing."""
    X = rng.uniform(size=(n, 10)).astype(np.float32).astype(float)
    y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2
    return X, y + 10 * X[:, 3] + 5 * X[:, 4] + rng.normal(size=n)


# %%
def demo_boosting(plot=False):
    """Stumps and deeper trees on Friedman's function: the error on new rows, stage by stage."""
    rng = np.random.default_rng(2)
    X, y = friedman_data(rng, 600)
    new_X, new_y = friedman_data(rng, 600)
    comparisons, curves = [], {}
    print("\n== Mean squared error on new rows after so many trees (the noise alone is 1) ==\n")
    print("  trees        " + "".join(f"{s:8}" for s in (0, 1, 10, 40, 80)))
    for depth in (1, 3):
        model = fit_boosting(X, y, steps=80, lr=0.2, max_depth=depth, min_samples_leaf=5)
        stages = np.array(list(staged_scores(model, new_X)))
        curves[depth] = [mse(new_y, F) for F in stages]
        print(f"  depth {depth}      " + "".join(f"{curves[depth][s]:8.2f}" for s in (0, 1, 10, 40, 80)))
        library = sklearn_boosting(X, y, "squared", 80, 0.2, depth, 5)
        what, theirs = f"80 stages, squared, depth {depth}", sklearn_stages(library, new_X)
        comparisons.append(compare(what, stages[1:], theirs, *ALLOWED["boosting"]))
        labels = (y > np.median(y)).astype(int)
        model = fit_boosting(X, labels, "log", 30, 0.2, depth, 5)
        stages = np.array(list(staged_scores(model, new_X)))[1:]
        theirs = sklearn_stages(sklearn_boosting(X, labels, "log", 30, 0.2, depth, 5), new_X)
        what = f"30 stages, log, depth {depth}"
        comparisons.append(compare(what, stages, theirs, *ALLOWED["boosting"]))
    if plot:
        save_plot("tree_models_boosting.png", lambda ax: draw_curves(ax, curves))
    return report(comparisons)


def draw_curves(ax, curves):
    """The error on new rows by number of trees."""
    for depth, curve in curves.items():
        ax.plot(curve, label=f"trees of depth {depth}")
    ax.axhline(1, color="gray", linestyle=":", label="noise")
    ax.set(xlabel="trees", ylabel="mean squared error on new rows", yscale="log")
    ax.legend()


# %% [markdown]
"""
Try: lr=1.0. Which of the two depths suffers more, and why?
"""

# %% [markdown]
"""
## Second-order boosting

Gradient boosting grows each tree by the gradient and corrects its leaves by (13) afterwards.
XGBoost puts both derivatives into the tree's own objective. Expand the loss around F to
second order, and charge for large leaf values v:

    J(tree) = Σᵢ [ gᵢ v(xᵢ) + 1/2 hᵢ v(xᵢ)² ] + λ/2 Σ_leaves v²                (14)

A leaf with sums G = Σ g and H = Σ h is a parabola in v. Its lowest point, and its depth:

    v = -G / (H + λ)            J(leaf) = -1/2 G² / (H + λ)                    (15)

So a split gains (twice, as the factor does not matter)

    gain = G_L² / (H_L + λ) + G_R² / (H_R + λ) - G² / (H + λ)                  (16)

in every node, not only at the root. It is made only if the gain is above 0.

**Bins.** Instead of all thresholds, try at most 255 per feature, at quantiles. A node is then
summed up by a histogram of G, H and counts per bin; the thresholds cost 255 steps however
many rows there are. And the larger child's histogram is its parent's minus the smaller's.

**Missing values** sit in a bin of their own. Each split tries them on both sides and keeps
the better: a default direction, learned. If a feature was never missing in the fit, later
gaps go with the majority.

With λ > 0 and few rows, leaf values are pulled to 0. People often leave the Hessians out
below the root: for the log loss, that is another model.
"""


# %%
def find_bins(X, bins):
    """Thresholds of each feature: between its distinct values, or quantiles if those are many."""
    edges, percent = [], np.linspace(0, 100, bins + 1)[1:-1]
    for x in X.T:
        x = x[~np.isnan(x)]
        values = np.unique(x)
        if len(values) <= bins:
            edges.append(values[:-1] / 2 + values[1:] / 2)
        else:
            edges.append(np.unique(np.percentile(x, percent, method="averaged_inverted_cdf")))
    return edges


def to_bins(X, edges, bins):
    """The bin of each value, (d, n) bytes: how many thresholds lie below it. nan has bin `bins`."""
    binned = np.array([np.searchsorted(cut, x) for cut, x in zip(edges, X.T)])
    return np.where(np.isnan(X.T), bins, binned).astype(np.uint8)


def histograms(binned, rows, node, q, bins, g, h):
    """Sums of g, of h, and counts, over `rows`, per feature, node and bin: (3, d, q, bins + 1)."""
    size = q * (bins + 1)
    sums, g = np.empty((3, len(binned), size)), g[rows]
    h = None if h is None else h[rows]
    first = node * (bins + 1)
    for f, column in enumerate(binned):
        cell = first + column[rows]
        sums[0, f] = np.bincount(cell, g, size)
        sums[2, f] = np.bincount(cell, minlength=size)
        sums[1, f] = sums[2, f] if h is None else np.bincount(cell, h, size)
    return sums.reshape(3, len(binned), q, bins + 1)


def best_bins(sums, gaps, l2, min_samples_leaf, min_hessian):
    """Equation (16), for all nodes at once: gain, feature, bin, and whether nan goes left: (q,).

    gaps (d,) says which features have missing values. Bins 0..b go left at bin b."""
    total = sums.sum(axis=-1, keepdims=True)  # (3, d, q, 1)
    left = np.cumsum(sums[..., :-1], axis=-1)  # nan goes right
    sides = [left] if not gaps.any() else [left, (left + sums[..., -1:])[..., ::-1]]
    gains = []
    for left in sides:
        (G, H, n), (G_all, H_all, n_all) = left, total
        least_n = np.minimum(n, n_all - n) >= min_samples_leaf
        allowed = least_n & (np.minimum(H, H_all - H) >= min_hessian)
        gain = G**2 / (H + l2 + 1e-15) + (G_all - G) ** 2 / np.maximum(H_all - H + l2, 1e-15)
        gains.append(np.where(allowed, gain - G_all**2 / (H_all + l2 + 1e-15), -np.inf))
    if len(gains) == 2:
        gains[1][~gaps] = -np.inf
    gains = np.concatenate(gains, axis=-1).transpose(1, 0, 2)  # (q, d, B or 2B)
    q, B = len(gains), left.shape[-1]
    best = gains.reshape(q, -1).argmax(axis=1)
    feature, at = np.divmod(best, gains.shape[2])
    return gains[np.arange(q), feature, at], feature, np.where(at < B, at, 2 * B - 1 - at), at >= B


def grow_newton(binned, edges, gaps, bins, g, h, max_depth, l2, min_samples_leaf, min_hessian):
    """Grow a tree on histograms, level by level. Returns its nodes and each row's leaf (n,)."""
    d, n = binned.shape
    nodes, leaf = [Node(0.0, n, d=d)], np.zeros(n, int)
    level, rows, node = np.array([0]), np.arange(n), np.zeros(n, int)
    sums = histograms(binned, rows, node, 1, bins, g, h)
    for depth in range(max_depth):
        gain, feature, cut, nan_left = best_bins(sums, gaps, l2, min_samples_leaf, min_hessian)
        split = gain > 0
        rows, node = rows[split[node]], (np.cumsum(split) - 1)[node[split[node]]]
        level, feature, cut, nan_left = (v[split] for v in (level, feature, cut, nan_left))
        at = binned[feature[node], rows]
        child = 2 * node + np.where(at == bins, ~nan_left[node], at > cut[node])
        n_child = np.bincount(child, minlength=2 * len(level))
        nan_left = np.where(gaps[feature], nan_left, n_child[::2] > n_child[1::2])
        children = [Node(0.0, size) for size in n_child.tolist()]
        for i, parent in enumerate(level.tolist()):
            t, j = nodes[parent], int(feature[i])
            t.left, t.right = children[2 * i : 2 * i + 2]
            t.feature, t.missing_left = j, bool(nan_left[i])
            t.threshold = float(edges[j][cut[i]]) if cut[i] < len(edges[j]) else math.inf
        leaf[rows] = len(nodes) + child
        level = len(nodes) + np.arange(len(children))
        nodes += children
        if len(level) == 0 or depth == max_depth - 1:
            return nodes, leaf
        small = np.arange(0, len(level), 2) + (n_child[::2] > n_child[1::2])
        counted = (small[child // 2] == child).nonzero()[0]
        part = histograms(binned, rows[counted], child[counted] // 2, len(small), bins, g, h)
        parents, sums = sums[:, :, split], np.empty((3, d, len(level), bins + 1))
        sums[:, :, small], sums[:, :, small ^ 1] = part, parents - part  # sibling: what is left
        node = child


def fit_newton_boosting(
    X, y, loss="squared", steps=100, lr=0.1, max_depth=6, l2=1.0, min_samples_leaf=20,
    bins=255, min_hessian=1e-3,
):  # fmt: skip
    """The XGBoost objective (Chen and Guestrin, 2016) on histograms (LightGBM, Ke et al., 2017).

    X may hold nan. Each side of a split keeps min_samples_leaf rows, and H >= min_hessian."""
    X, y = check_boosting(X, y, loss, steps, lr, missing=True)
    check_growth(1 if max_depth is None else max_depth, min_samples_leaf)
    check_number("max_depth", max_depth, least=1, integer=True)
    check_number("bins", bins, least=2, most=255, integer=True)
    check_number("l2", l2, least=0)
    check_number("min_hessian", min_hessian, least=0)
    edges, gaps = find_bins(X, bins), np.isnan(X).any(axis=0)
    binned = to_bins(X, edges, bins)

    def grow_one(g, h):
        h = None if loss == "squared" else h  # h = 1: its sum is the count
        return grow_newton(
            binned, edges, gaps, bins, g, h, max_depth, l2, min_samples_leaf, min_hessian
        )

    return boost(y, loss, steps, lr, l2, grow_one)._replace(missing=True)


# %% [markdown]
"""
### The library version

scikit-learn's histogram boosting minimises (14) too: steps is `max_iter`, l2 is
`l2_regularization`. We switch off early stopping and its limit on the number of leaves. Its
g and h are float32, so its trees are equal and its leaves agree to about 7 digits.
"""


# %%
def sklearn_newton_boosting(
    X, y, loss="squared", steps=100, lr=0.1, max_depth=6, l2=1.0, min_samples_leaf=20, bins=255
):  # fmt: skip
    """The same model, fitted by scikit-learn."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    squared = loss == "squared"
    return (HistGradientBoostingRegressor if squared else HistGradientBoostingClassifier)(
        max_iter=steps, learning_rate=lr, max_depth=max_depth, l2_regularization=l2,
        min_samples_leaf=min_samples_leaf, max_bins=bins, max_leaf_nodes=None,
        early_stopping=False,
    ).fit(X, y)  # fmt: skip


# %%
def demo_newton_boosting(plot=False):
    """Values that are missing for a reason: the learned direction against filling in the mean."""
    rng = np.random.default_rng(4)
    X, y = friedman_data(rng, 1200)
    gone = (rng.uniform(size=1200) < 0.2) | (X[:, 3] > 0.8)  # large values of x[3] tend to miss
    X[gone, 3] = np.nan
    X[rng.uniform(size=X.shape) < 0.05] = np.nan
    train, test = train_test_split(rng, len(X), 0.33)
    filled = np.where(np.isnan(X), np.nanmean(X[train], axis=0), X)
    print("\n== Is a missing value better guessed, or left to the tree? ==\n")
    for how, data in [("the mean filled in", filled), ("a learned direction", X)]:
        model = fit_newton_boosting(data[train], y[train], steps=60, max_depth=3)
        print(f"  {how:20} R2 on new rows {r2_score(y[test], predict_boosting(model, data[test])):.3f}")
    comparisons = []
    labels = (y > np.median(y)).astype(int)
    for loss, target in [("squared", y), ("log", labels)]:
        ours = fit_newton_boosting(X[train], target[train], loss, 40, l2=2.0)
        library = sklearn_newton_boosting(X[train], target[train], loss, 40, l2=2.0)
        F = library.predict(X[test]) if loss == "squared" else library.decision_function(X[test])
        *_, mine = staged_scores(ours, X[test])
        spread = np.ptp(F)
        allowed = ALLOWED["newton boosting"]
        comparisons.append(compare(f"40 trees, {loss} / spread", mine / spread, F / spread, *allowed))
    return report(comparisons)


# %% [markdown]
"""
Try: let x[3] be missing purely at random. How much of the advantage is left?
"""
