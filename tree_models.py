# %% [markdown]
"""
# Tree models: what can be learned by asking one question at a time?

A tree asks "is feature j at most t?" until the examples that are left agree. Which questions
should it ask, when should it stop, and why do many weak trees together beat one good tree?

Read from top to bottom, run `python tree_models.py` or a part of it (`python tree_models.py
forest`), check with `pytest`. Only the parts called "The library version" need scikit-learn.

    n, d, k    number of examples, of features, of classes
    X, y       features (n, d), one example per row; numbers to predict, or labels 0..k-1 (n,)
    t          a node of a tree, `Node`; tL and tR are its children
    w, W       weight of a row (n,), 1 unless said otherwise; weight of all rows in a node
    I(t)       impurity of a node: how mixed its targets are, `impurity`
    α          alpha, the price of a leaf when a tree is pruned
    F          what boosting has predicted so far (n,)
    g, h       first and second derivative of the loss by F, each (n,); G, H their sums in a node
    η, λ       eta and lambda: step size `lr` and penalty `l2`
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
    "out-of-bag": (0.02, "other random draws move the score of 200 trees by about 0.01"),
    "boosting": (1e-8, "rounding adds up over the trees"),
    "newton boosting": (1e-6, "of the spread of y: the library keeps g and h in float32"),
    "encoders": (0, "codes are equal or not"),
    "target encoding": (1e-10, "the same means, summed in another order"),
    "impurity importance": (1e-10, "sums of the same decreases in another order"),
    "permutation importance": (1e-10, "the same rows, shuffled in the same way"),
}

# %% [markdown]
"""
## A tree by hand

Before any algorithm grows a tree, we write one. An inner node holds a question, a leaf an
answer. An example walks down from the root:

    left if x[feature] ≤ threshold, else right                                     (1)

Three kinds of iris can be told apart by two questions about their petals, found by looking
at a table: 5 nodes, and 144 of 150 labels right. Trees need no scaling. (1) sees only the order
of a feature's values, so any increasing function of a feature gives the same tree.

The code below never calls itself: a tree can be thousands of levels deep, and Python allows
about 1000 nested calls. All rows walk together, one level per step. What people get wrong is
the border (≤ goes left), and equality: `x == threshold` is no question about an order.

Try: ask for petal width first. Which flowers change their answer?
"""


# %%
@dataclass(slots=True, eq=False, repr=False)
class Node:
    """One node; a leaf if `left` is None. value is a number, or the share of each class (k,).

    n (a weight) and impurity tell of the rows it was grown on; the root knows d."""

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
    left = 2 * np.cumsum(asks) - 1
    feature, threshold, missing_left = (
        np.array(v) for v in zip(*[(t.feature or 0, t.threshold or 0, t.missing_left) for t in nodes])
    )
    if feature.max() >= X.shape[1]:
        raise ValueError(f"X must have {feature.max() + 1} feature(s) at least, not {X.shape[1]}")
    at, rows = np.zeros(len(X), int), np.arange(len(X) if asks[0] else 0)
    while len(rows):
        here = at[rows]
        x = X[rows, feature[here]]
        right = x > threshold[here]
        if missing:  # nan > threshold is False: without this line every gap would go left
            right |= np.isnan(x) & ~missing_left[here]
        at[rows] = here = left[here] + right
        rows = rows[asks[here]]
    return at


def tree_values(root, X, missing=False):
    """The value of each row's leaf: a mean (n,), or the share of each class (n, k)."""
    X = check_array("X", X, ndim=2, allow_nan=missing)
    check_X(X[:1] if not missing else np.zeros((1, X.shape[1])), root.d)  # as many as in the fit
    nodes = list_nodes(root)
    return np.array([t.value for t in nodes])[find_leaves(nodes, X, missing)]


def decide(values):
    """Shares of classes (n, k) become the label of the largest; numbers (n,) stay."""
    return values.argmax(axis=1) if values.ndim == 2 else values


def predict_tree(root, X):
    """A label, or for regression a number, per row: (n,)."""
    return decide(tree_values(root, X))


def show_tree(root, names=None, depth=10):
    """The tree as text: its first `depth` levels, and below them only counts."""
    lines, todo = [], [(root, 0, "")]
    while todo:
        t, level, start = todo.pop()
        if t.left is None:
            answer = f"class {np.argmax(t.value)}" if np.ndim(t.value) else f"{t.value:.4g}"
            lines.append(f"{start}{answer}  (n = {t.n:g})")
        elif level == depth:
            leaves = (len(list_nodes(t)) + 1) // 2
            lines.append(f"{start}... {leaves - 1} more questions, {leaves} leaves")
        else:
            name = names[t.feature] if names else f"x[{t.feature}]"
            lines.append(f"{start}{name} <= {t.threshold:.4g}?")
            margin = "|  " * (level + 1)
            todo += [(t.right, level + 1, margin + "no:  "), (t.left, level + 1, margin + "yes: ")]
    return "\n".join(lines)


def demo_by_hand(plot=False):
    """Two questions about iris petals, beside the tree that the library finds."""
    from sklearn.datasets import load_iris

    X, y = load_iris(return_X_y=True)
    wide = Node([0, 0.5, 0.5], 100, 0.5, 3, 1.75, Node([0, 1, 0], 54), Node([0, 0, 1], 46))
    root = Node([1 / 3] * 3, 150, 2 / 3, 2, 2.45, Node([1, 0, 0], 50), wide)
    print("\n== Can two questions tell three kinds of iris apart? ==\n")
    print(show_tree(root, ["sepal length", "sepal width", "petal length", "petal width"]))
    labels = predict_tree(root, X)
    print(f"\n  right: {np.sum(labels == y)} of {len(y)}")
    library = sklearn_tree(X, y, max_depth=2).predict(X)
    return report([compare("iris labels", labels, library, *ALLOWED["tree by hand"])])


# %% [markdown]
"""
## Classification tree

The best question is the one whose two answers are least mixed. Two measures of how mixed the
labels in a node are, from the share pₖ of each class, and the gain of a split:

    gini      I(t) = Σₖ pₖ (1 - pₖ) = 1 - Σₖ pₖ²                                   (2)
    entropy   I(t) = -Σₖ pₖ log₂ pₖ                                                (3)
    gain = W I(t) - W_L I(tL) - W_R I(tR)                                          (4)

Gini is the variance of a 0/1 column per class, added up. For a column whose deviations from
the node's mean sum to S over the left rows (so to -S over the right ones), (4) becomes

    gain = Σ_columns S² W / (W_L W_R)                                              (5)

so one running sum over the sorted rows scores every threshold of a feature at once.

**The grower.** Sort each feature once. Keep the rows of a level grouped by node and sorted
inside it, score all nodes together, then filter: the rows that go left, and then those that
go right, are still sorted. A level costs d n steps, a tree about d n log n.

The search is greedy. On XOR (label 1 where two signs differ) no first question gains anything,
yet two questions solve it: so a gain of 0 is allowed. A node is a leaf if it is pure, too deep
or too small, or if its rows agree in every feature. A full tree is 100% right on its own
training rows. That says nothing about new ones.
"""


# %%
def sort_columns(X):
    """Features as rows (d, n), and the row numbers that sort each; ties keep their order."""
    Xt = np.ascontiguousarray(X.T)
    return Xt, np.argsort(Xt, axis=1, kind="stable")


def describe(targets, w, rows, sizes, criterion):
    """Of each node of a level: value (c, q), impurity, W, is it mixed (q,); and w (row - value).

    targets (c, n) is y, or a 0/1 row per class. rows are grouped by node, sizes (q,)."""
    starts, w, here = np.cumsum(sizes) - sizes, w[rows], targets[:, rows]
    W = np.add.reduceat(w, starts)
    value = np.add.reduceat(w * here, starts, axis=1) / W
    mixed = np.minimum.reduceat(here, starts, axis=1) < np.maximum.reduceat(here, starts, axis=1)
    away = here - np.repeat(value, sizes, axis=1)
    if criterion == "entropy":  # equation (3)
        impurity = -np.sum(x_log_x(value), axis=0)
    else:  # equations (2) and (6): the variance of every column, added up
        impurity = np.add.reduceat(w * np.sum(away**2, axis=0), starts) / W
    return value, impurity, W, mixed.any(axis=0), w * away


def running_sums(values, starts, node):
    """Sums along each row of values (k, m) that begin anew at every node: (k, m)."""
    sums = np.cumsum(values, axis=1)
    before = np.column_stack([np.zeros(len(sums)), sums[:, starts[1:] - 1]])
    return sums - before[:, node] if len(starts) > 1 else sums


def x_log_x(x):
    """x log2 x, and 0 at 0."""
    return x * np.log2(np.where(x > 0, x, 1))


def gain_of(criterion, sums, W_left, W_right, ends):
    """Equation (5), where sums hold S; for entropy (4), where they hold counts per class."""
    if criterion != "entropy":
        gain = sums[0] ** 2
        for S in sums[1:]:
            gain += S**2
        return gain * ((W_left + W_right) / (W_left * W_right))
    gain = x_log_x(W_left + W_right) - x_log_x(W_left) - x_log_x(W_right)
    for N in sums:  # W I(t) = W log W - the sum of N log N
        gain = gain + x_log_x(N) + x_log_x(N[:, ends] - N) - x_log_x(N[:, ends])
    return gain


def random_features(Xt, order, starts, ends, max_features, rng):
    """max_features random features for each node, (max_features, q): constant ones come last."""
    each = np.arange(len(Xt))[:, None]
    constant = Xt[each, order[:, starts]] == Xt[each, order[:, ends]]  # (d, q)
    return np.argsort(rng.random(constant.shape) + constant, axis=0)[:max_features]


def best_splits(Xt, order, sizes, columns, w, criterion, min_samples_leaf, max_features, rng):
    """The best question for each node of a level: gain, feature and threshold, each (q,).

    order (d, m) holds the level's rows, grouped by node and sorted inside it."""
    node, ends, at = np.repeat(np.arange(len(sizes)), sizes), np.cumsum(sizes) - 1, np.arange(order.shape[1])
    starts = ends - sizes + 1
    n_left = at - starts[node] + 1
    n_right = sizes[node] - n_left
    closed = np.flatnonzero((n_left < min_samples_leaf) | (n_right < min_samples_leaf))
    feature = np.arange(len(Xt))[:, None]
    if max_features is not None:
        feature = random_features(Xt, order, starts, ends, max_features, rng)[:, node]
        order = order[feature, at]
    gain = np.empty(order.shape)
    step = max(1, 65536 // len(at))  # so many features at a time stay in the cache
    for block in (slice(a, a + step) for a in range(0, len(order), step)):
        rows = order[block]
        x = Xt[feature[block], rows]
        W_left, W_right = n_left, np.maximum(n_right, 1)
        if w is not None:
            W_left = running_sums(w[rows], starts, node)
            W_right = np.where(n_right > 0, W_left[:, ends[node]] - W_left, 1)
        sums = [running_sums(column[rows], starts, node) for column in columns]
        gain[block] = gain_of(criterion, sums, W_left, W_right, ends[node])
        gain[block, :-1][x[:, 1:] == x[:, :-1]] = -np.inf  # equal values cannot be parted
    gain[:, closed] = -np.inf
    top = np.maximum.reduceat(gain, starts, axis=1)  # (features, q)
    pick = top.argmax(axis=0)
    best = top[pick, np.arange(len(sizes))]
    hits = np.flatnonzero(gain[pick[node], at] == best[node])
    at = hits[np.searchsorted(hits, starts)]  # the first position that reaches the best gain
    feature = np.broadcast_to(feature, order.shape)[pick, at]
    low, high = (Xt[feature, order[pick, i]] for i in (at, np.minimum(at + 1, ends[-1])))
    middle = low / 2 + high / 2
    return best, feature, np.where(middle < high, middle, low)  # rounding may reach high


def grow(
    Xt, order, targets, criterion, max_depth=None, min_samples_leaf=1, min_impurity_decrease=0.0,
    w=None, max_features=None, rng=None,
):  # fmt: skip
    """Grow a tree level by level. Returns its nodes, and for each row the index of its leaf (n,).

    Rows of weight w = 0 are left out; every other row counts once in min_samples_leaf."""
    n, weight = Xt.shape[1], w
    if w is None:
        w = np.ones(n)
    else:
        order = order[(w > 0)[order]].reshape(len(Xt), -1)
    columns, side, leaf = w * targets, np.ones(n, np.int8), np.zeros(n, int)
    rows, sizes, parents, nodes, depth = order[0], np.array([order.shape[1]]), [], [], 0
    while len(sizes):
        value, impurity, W, mixed, away = describe(targets, w, rows, sizes, criterion)
        value = value[0].tolist() if criterion == "variance" else value.T
        level = list(map(Node, value, W.tolist(), impurity.tolist()))
        leaf[rows] = len(nodes) + np.repeat(np.arange(len(sizes)), sizes)
        nodes += level
        for t, left, right in zip(parents, level, level[len(parents) :]):
            t.left, t.right = left, right
        mixed &= (sizes >= 2 * min_samples_leaf) & (max_depth is None or depth < max_depth)
        if not mixed.any():
            break
        if criterion != "entropy":
            columns[:, rows] = away
        side[rows] *= np.repeat(mixed, sizes)
        if depth:  # the rows that went left, then those that went right, each still sorted
            went = side[order]
            order = np.hstack([order[went == s].reshape(len(Xt), -1) for s in (1, 2)])
        two = criterion == "gini" and len(columns) == 2  # mirror images: one, times √2, does
        gain, feature, threshold = best_splits(
            Xt, order, sizes[mixed], columns[1:] * math.sqrt(2) if two else columns, weight,
            criterion, min_samples_leaf, max_features, rng,
        )  # fmt: skip
        good = gain > -np.inf
        good &= np.maximum(gain, 0) >= (min_impurity_decrease - 1e-15) * w.sum()
        asks = np.flatnonzero(mixed)[good]
        feature, threshold, side[rows] = feature[good], threshold[good], 0
        rows = rows[np.repeat(np.isin(np.arange(len(sizes)), asks), sizes)]
        node = np.repeat(np.arange(len(asks)), sizes[asks])
        right = Xt[feature[node], rows] > threshold[node]  # equation (1)
        side[rows] = 1 + right
        n_right = np.bincount(node[right], minlength=len(asks))
        rows, sizes = np.append(rows[~right], rows[right]), np.append(sizes[asks] - n_right, n_right)
        parents, depth = [level[i] for i in asks.tolist()], depth + 1
        for t, t.feature, t.threshold in zip(parents, feature.tolist(), threshold.tolist()):
            pass
    nodes[0].d = len(Xt)
    return nodes, leaf


def check_fit(X, y, criterion, max_depth, min_samples_leaf, min_impurity_decrease=0.0):
    """X as floats, and targets (c, n): y itself, or a 0/1 row per class. Checks the brakes too."""
    if max_depth is not None:
        check_number("max_depth", max_depth, least=1, integer=True)
    check_number("min_samples_leaf", min_samples_leaf, least=1, integer=True)
    check_number("min_impurity_decrease", min_impurity_decrease, least=0)
    if criterion == "variance":
        X, y = check_Xy(X, y)
        return X, y[None]
    if criterion not in ("gini", "entropy"):
        raise ValueError(f"criterion must be gini, entropy or variance, not {criterion!r}")
    X, y = check_labels(X, y)
    return X, (np.arange(y.max() + 1)[:, None] == y).astype(float)


def fit_tree(X, y, criterion="gini", max_depth=None, min_samples_leaf=1, min_impurity_decrease=0.0):
    """CART (Breiman, Friedman, Olshen and Stone, 1984). Returns the root of the tree.

    criterion is "gini" or "entropy" for labels, "variance" for numbers. A split must leave
    min_samples_leaf rows on each side and lower the mean impurity by min_impurity_decrease."""
    brakes = max_depth, min_samples_leaf, min_impurity_decrease
    X, targets = check_fit(X, y, criterion, *brakes)
    return grow(*sort_columns(X), targets, criterion, *brakes)[0][0]


# %% [markdown]
"""
### The library version

scikit-learn has a class for labels and one for numbers, and calls variance `squared_error`. It
stores X as float32 and takes values closer than 1e-7 as equal. Where two splits gain the same
it picks at random: two of its own trees can differ. So the honest test walks its tree, and
asks at every node whether its split is as good as the best that our search finds there.

Try: draw the moons with max_depth=None. Would another sample have the same islands?
"""


# %%
def sklearn_tree(
    X, y, criterion="gini", max_depth=None, min_samples_leaf=1, min_impurity_decrease=0.0,
    alpha=0.0, seed=0,
):  # fmt: skip
    """The same tree, grown by scikit-learn. Returns the fitted estimator."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    kind = DecisionTreeRegressor if criterion == "variance" else DecisionTreeClassifier
    return kind(
        criterion=criterion.replace("variance", "squared_error"), max_depth=max_depth,
        min_samples_leaf=min_samples_leaf, min_impurity_decrease=min_impurity_decrease,
        ccp_alpha=alpha, random_state=seed,
    ).fit(X, y)  # fmt: skip


def nodes_from_sklearn(model):
    """The library's tree as our nodes, in the library's order; the root comes first."""
    t = model.tree_
    values = t.value[:, 0, 0].tolist() if model.criterion == "squared_error" else t.value[:, 0]
    nodes = list(map(Node, values, t.weighted_n_node_samples.tolist(), t.impurity.tolist()))
    for i in np.flatnonzero(t.children_left >= 0).tolist():
        nodes[i].left, nodes[i].right = nodes[t.children_left[i]], nodes[t.children_right[i]]
        nodes[i].feature, nodes[i].threshold = int(t.feature[i]), float(t.threshold[i])
    nodes[0].d = model.n_features_in_
    return nodes


def gain_at(t):
    """Equation (4) for the split at node t."""
    return t.n * t.impurity - t.left.n * t.left.impurity - t.right.n * t.right.impurity


def library_splits(model, X, y, criterion, min_samples_leaf=1):
    """At every split of the library's tree: our best split of the same rows, and its own."""
    inside = model.decision_path(X).toarray().astype(bool)  # (n, nodes): who passes where
    pairs = []
    for node, here in zip(nodes_from_sklearn(model), inside.T):
        if node.left is not None:
            some = y[here] if criterion == "variance" else np.unique(y[here], return_inverse=True)[1]
            pairs.append((fit_tree(X[here], some, criterion, 1, min_samples_leaf), node))
    return pairs


def demo_classification_tree(plot=False):
    """Two half moons: the regions a tree draws, and every split of the library's tree."""
    X, y = make_moons(np.random.default_rng(0), n=200, noise=0.2)
    X = X.astype(np.float32).astype(float)
    root = fit_tree(X, y, max_depth=4)
    print("\n== Into which rectangles does a tree of depth 4 cut two moons? ==\n")
    for height in np.linspace(1.4, -1, 13):
        points = np.column_stack([np.linspace(-1.4, 2.4, 58), np.full(58, height)])
        print("  " + "".join(".#"[label] for label in predict_tree(root, points)))
    print("\n" + show_tree(root, depth=2))
    if plot:
        save_plot("tree_models_classification_tree.png", lambda ax: draw_regions(ax, root, X, y))
    comparisons = []
    for criterion in ("gini", "entropy"):
        pairs = library_splits(sklearn_tree(X, y, criterion), X, y, criterion)
        gains = np.array([[gain_at(t) for t in pair] for pair in pairs]).T
        what = f"gain of {len(pairs)} splits, {criterion}"
        comparisons.append(compare(what, *gains, *ALLOWED["classification tree"]))
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
## Regression tree

For numbers a leaf answers with the mean of its rows, and impurity is their variance:

    I(t) = 1/W Σᵢ wᵢ (yᵢ - mean(t))²                                               (6)

The grower, the gain (4) and its short form (5) stay as they are. Where (5) comes from: with
their own means in place of the parent's, the two sides' sums of squares fall by S²/W_L and
S²/W_R, and 1/W_L + 1/W_R = W / (W_L W_R). People sometimes measure the children around the
parent's mean. Then no split gains anything, whatever it is.

The fit is a staircase, constant between thresholds. It never leaves the range of y, so a tree
cannot extend a trend. It is unstable too: drop a few rows, and the first question may change,
and with it all those below. Both are reasons for what follows.

The library version is `sklearn_tree` with criterion="variance". For continuous y and leaves of
10 rows no two splits tie, and the trees are equal node for node.

Try: predict at x = 20. Before you do: which stair will answer?
"""


# %%
def demo_regression_tree(plot=False):
    """One noisy wave: the staircase, and the library's tree node for node."""
    rng = np.random.default_rng(1)
    X = rng.uniform(0, 6, size=(240, 1)).astype(np.float32).astype(float)
    y = np.sin(X[:, 0]) + 0.2 * rng.normal(size=240)
    root = fit_tree(X, y, "variance", min_samples_leaf=10)
    grid = np.linspace(0.1, 5.9, 15)
    print("\n== How does a staircase follow a wave? ==\n")
    for x, step in zip(grid, predict_tree(root, grid[:, None])):
        print(f"  x = {x:.1f}  {step:5.2f}  " + " " * round(15 + 12 * step) + "#")
    library = nodes_from_sklearn(sklearn_tree(X, y, "variance", min_samples_leaf=10))[0]
    comparisons = []
    for what in ("feature", "threshold", "value", "impurity", "n"):
        asks = [[t for t in list_nodes(r) if t.feature is not None or what in "value impurity n"]
                for r in (root, library)]  # fmt: skip
        ours, theirs = ([getattr(t, what) for t in nodes] for nodes in asks)
        allowed = ALLOWED["regression tree"]
        comparisons.append(compare(f"{what} of {len(ours)} nodes", ours, theirs, *allowed))
    return report(comparisons)


# %% [markdown]
"""
## Pruning

When should a tree stop? Stopping early is short-sighted: on XOR the first split gains nothing.
Better grow it fully, then cut back what does not pay. Put a price α on every leaf:

    R(T) = Σ_leaves r(t) + α · (number of leaves)        r(t) = W(t) I(t) / W(root)   (7)

For every α some smallest subtree minimises R. As α rises these subtrees are nested: branches
only fall off (Breiman and others, 1984, chapter 3). So one list of prices tells everything.

Seen from a node t, the least cost of the branch below it, as a function of α, is a chain of
straight lines. The slope is the number of leaves left, and it bends where a branch falls off.
As a leaf, t would cost r(t) + α. Where both are equal, t falls:

    α(t) = (r(t) - cost) / (leaves - 1)                                            (8)

with cost (at α = 0) and leaves of the line that holds there. Go up from the leaves and keep the
bends of every branch in a heap. A bend above α(t) never happens, as t falls before it: pop it.
Each node is pushed once, the smaller heap is poured into the larger: n log² n steps at most,
even for a tree that is one long chain.

Which α is best for new data is not known: choose it on rows that the tree has not seen. By the
training rows, not pruning is always best.
"""

# %%
def collapse_alphas(root):
    """Equation (8) for each of list_nodes(root), and the root's bends: (α, leaves lost)."""
    nodes, heaps, alphas = list_nodes(root), {}, []
    for t in reversed(nodes):
        bends, alpha = [], math.inf
        if t.left is not None:
            few, bends = sorted((heaps.pop(id(s)) for s in (t.left, t.right)), key=len)
            for bend in few:
                heapq.heappush(bends, bend)
            r, left, right = (s.n * s.impurity / root.n for s in (t, t.left, t.right))
            cost, leaves = left + right, 2  # at high prices both children are leaves
            alpha = max(r - cost, 0.0)  # rounding may go below 0
            while bends and -bends[0][0] > alpha:  # under that price a branch is still there
                price, lost = heapq.heappop(bends)  # the heap holds -α: the largest comes first
                cost, leaves = cost + lost * price, leaves + lost
                alpha = max((r - cost) / (leaves - 1), 0.0)
            heapq.heappush(bends, (-alpha, leaves - 1))
        heaps[id(t)] = bends
        alphas.append(alpha)
    return nodes, alphas[::-1], sorted((-price, lost) for price, lost in heaps[id(root)])


def pruning_path(root):
    """The prices at which the pruned tree changes, from 0 up, and its leaves from there on."""
    nodes, _, bends = collapse_alphas(root)
    alphas, leaves = [0.0], [(len(nodes) + 1) // 2]
    for alpha, lost in bends:
        if alpha - alphas[-1] > 1e-12 * root.impurity:  # closer ones are ties, up to rounding
            alphas.append(alpha)
            leaves.append(leaves[-1])
        leaves[-1] -= lost
    return np.array(alphas), np.array(leaves)


def prune_tree(root, alpha):
    """The smallest subtree that minimises equation (7): a copy, root stays as it is."""
    check_number("alpha", alpha, least=0)
    nodes, falls_at, _ = collapse_alphas(root)
    copies = {}
    for t, price in zip(reversed(nodes), reversed(falls_at)):
        if t.left is None or price <= alpha:
            copies[id(t)] = replace(t, left=None, right=None, feature=None, threshold=None)
        else:
            copies[id(t)] = replace(t, left=copies[id(t.left)], right=copies[id(t.right)])
    return copies[id(root)]


# %% [markdown]
"""
### The library version

scikit-learn prunes while it fits; our alpha is its `ccp_alpha`. It removes one branch at a time,
so equal prices repeat in its list, where ours holds each once. With ccp_alpha = 0 it does
nothing, where (7) already drops splits that gained nothing.

Try: grow the tree with min_samples_leaf=5 first. Does pruning still help?
"""

# %%
def sklearn_pruning_path(model, X, y):
    """The prices of a fitted library tree, each once, from 0 up."""
    alphas = np.maximum(model.cost_complexity_pruning_path(X, y).ccp_alphas, 0)
    return alphas[np.append(True, np.diff(alphas) > 1e-12 * model.tree_.impurity[0])]


def demo_pruning(plot=False):
    """What a price per leaf does to the error on new rows, and the library's list of prices."""
    rng = np.random.default_rng(3)
    X, y = friedman_data(rng, 400)
    new_X, new_y = friedman_data(rng, 400)
    root = fit_tree(X, y, "variance", min_samples_leaf=10)
    alphas, leaves = pruning_path(root)
    print("\n== Which leaves are worth their price? (mean squared errors) ==\n")
    print("   alpha   leaves  training rows  new rows")
    for alpha, count in list(zip(alphas, leaves))[::4]:
        small = prune_tree(root, alpha)
        errors = [mse(t, predict_tree(small, A)) for A, t in [(X, y), (new_X, new_y)]]
        print(f"  {alpha:7.4f}  {count:5}  {errors[0]:12.2f}  {errors[1]:9.2f}")
    model, middle = sklearn_tree(X, y, "variance", None, 10), float(alphas[-9:-7].mean())
    pruned = sklearn_tree(X, y, "variance", None, 10, alpha=middle)
    return report([
        compare(f"{len(alphas)} prices", alphas, sklearn_pruning_path(model, X, y),
                *ALLOWED["pruning"]),
        compare("pruned tree on new rows", predict_tree(prune_tree(root, middle), new_X),
                pruned.predict(new_X), *ALLOWED["pruning"]),
    ])  # fmt: skip


# %% [markdown]
"""
## Random forest

A full tree is right on average and wrong in detail: another sample gives another tree. Averages
cancel such noise if the trees err differently. For B trees with errors of variance σ² (sigma
squared) and correlation ρ (rho),

    variance of their average = ρ σ² + (1 - ρ) σ² / B                              (9)

More trees shrink the second term; only trees that differ shrink the first. Two tricks do it:

- Bootstrap: each tree sees n rows drawn with replacement. A row drawn three times is not
  copied. It gets weight 3 in (2) to (6), and counts as one row in min_samples_leaf.
- Random features at every split (not once per tree), often √d: no feature opens every tree.

A tree leaves out (1 - 1/n)ⁿ ≈ 37% of the rows. Predict each row with just the trees that never
saw it, and you get an honest score without a test set: the out-of-bag score.

The forest answers with the mean of its trees: numbers, or shares of classes of which the
largest wins. More trees only cost time, they do not overfit. Scores on the training rows prove
nothing, as full trees remember them. And like its trees, a forest cannot extend a trend.
"""

# %%
class Forest(NamedTuple):
    """The roots of the trees, and how often each drew each training row: (trees, n)."""

    trees: list
    counts: np.ndarray


def fit_forest(
    X, y, criterion="gini", trees=100, max_features="sqrt", max_depth=None, min_samples_leaf=1,
    rng=None, counts=None,
):  # fmt: skip
    """Random forest (Breiman, 2001). max_features is a number, "sqrt" of d, or None for all.

    The bootstrap comes from the generator rng, or is given as counts (trees, n)."""
    X, targets = check_fit(X, y, criterion, max_depth, min_samples_leaf)
    check_number("trees", trees, least=1, integer=True)
    n, d = X.shape
    rng = rng or np.random.default_rng(0)
    if max_features is not None:
        max_features = math.isqrt(d) if max_features == "sqrt" else max_features
        check_number("max_features", max_features, least=1, most=d, integer=True)
    if counts is None:
        counts = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(trees)]
    counts = check_array("counts", counts, ndim=2)
    if counts.shape[1] != n or counts.min() < 0 or not counts.any(axis=1).all():
        raise ValueError(f"counts must be (trees, {n}), each 0 or more, and no tree without rows")
    columns, options = sort_columns(X), (max_depth, min_samples_leaf, 0.0)
    grown = [grow(*columns, targets, criterion, *options, w, max_features, rng) for w in counts]
    return Forest([nodes[0] for nodes, _ in grown], counts)


def forest_values(forest, X):
    """The mean value of the trees: (n,), or the share of each class (n, k)."""
    return sum(tree_values(root, X) for root in forest.trees) / len(forest.trees)


def predict_forest(forest, X):
    """A label, or for regression a number, per row: (n,)."""
    return decide(forest_values(forest, X))


def out_of_bag(forest, X):
    """The training rows that some tree left out, and the mean value of those trees there."""
    X, out = check_X(X, forest.trees[0].d), forest.counts == 0  # (trees, n)
    if len(X) != out.shape[1]:
        raise ValueError(f"X must be the {out.shape[1]} training rows, not {len(X)} others")
    if not out.any():
        raise ValueError("forest must leave out some rows, but every tree has drawn them all")
    total = np.zeros((len(X), *np.shape(forest.trees[0].value)))
    for root, rows in zip(forest.trees, out):
        if rows.any():
            total[rows] += tree_values(root, X[rows])
    rows = np.flatnonzero(out.any(axis=0))
    return rows, (total[rows].T / out.sum(axis=0)[rows]).T


# %% [markdown]
"""
### The library version

scikit-learn calls trees `n_estimators`. At a split it keeps drawing features until one of them
can be split; we draw among those that vary in the node. Its bootstrap can be read back from the
fitted model, so that both forests can be grown from the same draws.

Try: max_features=None in the demo's forest. By (9), what do you expect?
"""

# %%
def sklearn_forest(
    X, y, criterion="gini", trees=100, max_features="sqrt", max_depth=None, min_samples_leaf=1,
    seed=0,
):  # fmt: skip
    """The same forest in scikit-learn, and how often each tree drew each row: (trees, n)."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestRegressor if criterion == "variance" else RandomForestClassifier
    model = kind(
        trees, criterion=criterion.replace("variance", "squared_error"), max_depth=max_depth,
        min_samples_leaf=min_samples_leaf, max_features=max_features, oob_score=True,
        random_state=seed,
    ).fit(X, y)  # fmt: skip
    counts = [np.bincount(rows, minlength=len(X)) for rows in model.estimators_samples_]
    return model, np.array(counts)


def demo_forest(plot=False):
    """Diabetes (442 patients, real data): a tree, a forest, and the out-of-bag score."""
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True)
    X, rng = X.astype(np.float32).astype(float), np.random.default_rng(0)
    train, test = train_test_split(rng, len(X))
    forest = fit_forest(X[train], y[train], "variance", 100, "sqrt", None, 3, rng)
    print("\n== What do many trees know that one does not? ==\n\n  trees   R2 on new rows")
    for count in (1, 3, 10, 30, 100):
        values = forest_values(Forest(forest.trees[:count], forest.counts[:count]), X[test])
        score = r2_score(y[test], values)
        print(f"  {count:5}   {score:6.3f}  " + "#" * round(60 * max(score, 0)))
    rows, values = out_of_bag(forest, X[train])
    score = r2_score(y[train][rows], values)
    print(f"\n  out of bag, without any test rows: {score:.3f}")
    library, _ = sklearn_forest(X[train], y[train], "variance", 100, "sqrt", None, 3)
    model, counts = sklearn_forest(X[train], y[train], "variance", 20, None, None, 10)
    ours = fit_forest(X[train], y[train], "variance", 20, None, None, 10, counts=counts)
    ours, theirs = predict_forest(ours, X[test]), model.predict(X[test])
    return report([
        compare("R2 out of bag", score, library.oob_score_, *ALLOWED["out-of-bag"]),
        compare("same bootstrap, new rows", ours, theirs, *ALLOWED["forest"]),
    ])  # fmt: skip


# %% [markdown]
"""
## Gradient boosting

A forest averages deep trees that know nothing of each other. Boosting adds up shallow ones, each
grown on what those before it still get wrong. Start with the best constant F, then repeat:

    g = ∂loss/∂F        grow a regression tree on -g        F ← F + η · tree       (10)

This is gradient descent with a tree in place of one step per row; and a tree can also answer for
rows it has not seen. Two losses, with their first two derivatives:

    squared    1/2 (y - F)²                   g = F - y        h = 1               (11)
    log        log(1 + exp(F)) - y F          g = p - y        h = p (1 - p)       (12)

where p = 1 / (1 + exp(-F)), so F is the log of the odds. F starts at the mean of y, or at its
log odds. The start is part of every prediction: forget it, and all are off by the mean.

A tree's regions are good, but for the log loss the mean of -g is not the best step in them. So
each leaf takes a Newton step instead (for the squared error that is the mean again):

    leaf value = -Σ g / Σ h                                                        (13)

A small η needs more trees and does better on new rows. And unlike a forest, boosting overfits
with more trees: watch the error on held-out rows and stop where it is least.
"""

# %%
class Boosting(NamedTuple):
    """F = start + lr · (sum of the trees). missing tells whether X may hold nan."""

    loss: str
    start: float
    lr: float
    trees: list
    missing: bool = False


def sigmoid(z):
    """1 / (1 + exp(-z)). Only exp(-|z|) is computed, so nothing overflows."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def derivatives(loss, y, F):
    """g and h of equations (11) and (12), each (n,)."""
    p = F if loss == "squared" else sigmoid(F)
    return p - y, np.ones(len(y)) if loss == "squared" else p * (1 - p)


def boost(X, y, loss, steps, lr, l2, missing, grow_one):
    """Equation (10). grow_one(g, h) returns a tree's nodes, and the index of each row's leaf."""
    mean = y.mean()
    start = float(mean if loss == "squared" else np.log(mean / (1 - mean)))
    F, trees = np.full(len(y), start), []
    for _ in range(steps):
        g, h = derivatives(loss, y, F)
        nodes, leaf = grow_one(g, h)
        G, H = (np.bincount(leaf, v, minlength=len(nodes)) for v in (g, h))
        value = np.divide(-G, H + l2, out=np.zeros(len(G)), where=H > 1e-150)  # (13) and (15)
        F += lr * value[leaf]
        for node, node.value in zip(nodes, value.tolist()):
            node.d = X.shape[1]
        trees.append(nodes[0])
    return Boosting(loss, start, lr, trees, missing)


def check_boosting(X, y, loss, steps, lr, max_depth, min_samples_leaf, missing):
    """X and y as floats. For the log loss y must hold 0 and 1."""
    if loss not in ("squared", "log"):
        raise ValueError(f"loss must be squared or log, not {loss!r}")
    check_number("steps", steps, least=1, integer=True)
    check_number("lr", lr, above=0)
    X = check_array("X", X, ndim=2, allow_nan=missing)
    known = np.nan_to_num(X) if missing else X
    _, targets = check_fit(known, y, "variance", max_depth, min_samples_leaf)
    if loss == "log":
        check_labels(known, y, classes=2)
    return X, targets[0]


def fit_boosting(X, y, loss="squared", steps=100, lr=0.1, max_depth=3, min_samples_leaf=1):
    """Gradient boosting (Friedman, 2001). loss is "squared", or "log" for labels 0 and 1."""
    X, y = check_boosting(X, y, loss, steps, lr, max_depth, min_samples_leaf, missing=False)
    columns = sort_columns(X)  # once for all trees: only the targets change

    def grow_one(g, h):
        return grow(*columns, -g[None], "variance", max_depth, min_samples_leaf)

    return boost(X, y, loss, steps, lr, 0.0, False, grow_one)


def staged_scores(model, X):
    """F after 0, 1, 2, ... trees: yields (n,) each time."""
    F = np.full(len(check_array("X", X, ndim=2, allow_nan=model.missing)), model.start)
    yield F
    for root in model.trees:
        F = F + model.lr * tree_values(root, X, model.missing)
        yield F


def predict_boosting(model, X):
    """A number per row, or for the log loss the probability of class 1: (n,)."""
    *_, F = staged_scores(model, X)
    return F if model.loss == "squared" else sigmoid(F)


# %% [markdown]
"""
### The library version

scikit-learn has a class for numbers and one for labels, calls steps `n_estimators` and lr
`learning_rate`, and counts its stages from the first tree on. It sorts again in each node of
each tree. The order of X never changes, so sorting once makes the scratch version faster.

Try: lr=1.0. Which of the two depths suffers more, and why?
"""

# %%
def sklearn_boosting(X, y, loss="squared", steps=100, lr=0.1, max_depth=3, min_samples_leaf=1):
    """The same model, fitted by scikit-learn."""
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    kind = GradientBoostingRegressor if loss == "squared" else GradientBoostingClassifier
    return kind(
        n_estimators=steps, learning_rate=lr, max_depth=max_depth,
        min_samples_leaf=min_samples_leaf, random_state=0,
    ).fit(X, y)  # fmt: skip


def sklearn_stages(model, X):
    """The library's F after 1, 2, ... trees: (steps, n)."""
    stages = getattr(model, "staged_decision_function", None) or model.staged_predict
    return np.array([np.ravel(F) for F in stages(X)])


def friedman_data(rng, n):
    """Friedman's (1991) function of five features, noise of variance 1, and five idle features."""
    X = rng.uniform(size=(n, 10)).astype(np.float32).astype(float)
    y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2
    return X, y + 10 * X[:, 3] + 5 * X[:, 4] + rng.normal(size=n)


def demo_boosting(plot=False):
    """The error on new rows, stage by stage, for stumps and for trees of depth 3."""
    rng = np.random.default_rng(2)
    (X, y), (new_X, new_y), comparisons = friedman_data(rng, 600), friedman_data(rng, 600), []
    print("\n== How does the error fall from tree to tree? (the noise alone is 1) ==\n")
    print("  trees   " + "".join(f"{s:8}" for s in (0, 1, 10, 40, 80)))
    for depth in (1, 3):
        for loss, target in [("squared", y), ("log", (y > 15).astype(int))]:
            options = (loss, 80, 0.2, depth, 5)
            stages = np.array(list(staged_scores(fit_boosting(X, target, *options), new_X)))
            if loss == "squared":
                errors = [mse(new_y, stages[s]) for s in (0, 1, 10, 40, 80)]
                print(f"  depth {depth} " + "".join(f"{error:8.2f}" for error in errors))
            theirs = sklearn_stages(sklearn_boosting(X, target, *options), new_X)
            what = f"80 stages, {loss}, depth {depth}"
            comparisons.append(compare(what, stages[1:], theirs, *ALLOWED["boosting"]))
    return report(comparisons)


# %% [markdown]
"""
## Second-order boosting

Gradient boosting grows a tree by g alone, and mends its leaves afterwards. XGBoost (Chen and
Guestrin, 2016) grows it by both derivatives. Expand the loss to second order around F, and put
a price on large leaf values v:

    J(tree) = Σᵢ [ gᵢ v(xᵢ) + 1/2 hᵢ v(xᵢ)² ] + λ/2 Σ_leaves v²                    (14)

A leaf with sums G and H is a parabola in v. Its lowest point, and what that takes off J:

    v = -G / (H + λ)              fall = 1/2 G² / (H + λ)                          (15)

So a split, in every node and not at the root alone, gains (twice, as 1/2 does not matter)

    gain = G_L² / (H_L + λ) - G² / (H + λ) + G_R² / (H_R + λ)                      (16)

**Bins.** Try 255 thresholds per feature at most, at quantiles. Then a node is summed up by the
histogram of G, H and counts per bin, and only the smaller of two children needs counting: the
other is the parent's histogram minus that one.

**Missing values** have a bin of their own. Each split tries them on both sides, and keeps the
better: a learned direction. A feature without gaps in training sends later gaps to the majority.

People often drop H below the root; for the log loss that is another model. And λ adds to H, not
to the number of rows: with the log loss, sure leaves have a small H and shrink the most.
"""

# %%
def find_bins(X, bins):
    """Thresholds per feature: between its distinct values, or at quantiles if those are many."""
    thresholds, percent = [], np.linspace(0, 100, bins + 1)[1:-1]
    for x in X.T:
        x = x[~np.isnan(x)]
        values = np.unique(x)
        cuts = values[:-1] / 2 + values[1:] / 2
        if len(values) > bins:
            cuts = np.unique(np.percentile(x, percent, method="averaged_inverted_cdf"))
        thresholds.append(cuts)
    return thresholds


def histograms(binned, rows, node, q, bins, g, h):
    """Sums of g, of h, and counts over rows, per feature, node and bin: (3, d, q, bins + 1)."""
    size, sums = q * (bins + 1), np.empty((3, len(binned), q * (bins + 1)))
    first, g, h = node * (bins + 1), g[rows], None if h is None else h[rows]
    for column, (G, H, n) in zip(binned, sums.swapaxes(0, 1)):
        cell = first + column[rows]
        G[:], n[:] = np.bincount(cell, g, size), np.bincount(cell, minlength=size)
        H[:] = n if h is None else np.bincount(cell, h, size)
    return sums.reshape(3, len(binned), q, bins + 1)


def best_bins(sums, gaps, l2, min_samples_leaf, min_hessian):
    """Equation (16) at every bin: gain, feature, last bin on the left, does nan go left; (q,).

    gaps (d,) tells which features have missing values, in the last bin of sums (3, d, q, B)."""
    def fall(G, H):
        return G * (G / np.maximum(H + l2 + 1e-15, 1e-15))  # equation (15), twice

    total, left = sums.sum(axis=-1, keepdims=True), np.cumsum(sums[..., :-1], axis=-1)
    gains = []
    for left in [left, (left + sums[..., -1:])[..., ::-1]][: 1 + gaps.any()]:
        right = total - left
        gain = fall(*left[:2]) - fall(*total[:2]) + fall(*right[:2])
        least = np.minimum(left, right)
        gain[(least[1] < min_hessian) | (least[2] < min_samples_leaf)] = -np.inf
        gains.append(gain)
    if gaps.any():
        gains[1][~gaps] = -np.inf
    gains = np.concatenate(gains, axis=-1).swapaxes(0, 1)  # (q, d, B - 1, or twice that)
    q, _, width = gains.shape
    best, B = gains.reshape(q, -1).argmax(axis=1), left.shape[-1]
    feature, at = np.divmod(best, width)
    return gains[range(q), feature, at], feature, np.where(at < B, at, 2 * B - 1 - at), at >= B


def grow_newton(binned, thresholds, gaps, bins, g, h, max_depth, l2, min_samples_leaf, min_hessian):
    """Grow a tree on histograms, level by level. Returns its nodes, and each row's leaf (n,)."""
    d, n = binned.shape
    nodes, leaf, rows, node = [Node(0.0, n)], np.zeros(n, int), np.arange(n), np.zeros(n, int)
    level, sums = nodes[:], histograms(binned, rows, node, 1, bins, g, h)
    for depth in range(max_depth):
        gain, feature, cut, nan_left = best_bins(sums, gaps, l2, min_samples_leaf, min_hessian)
        asks = gain > 0
        rows, node = rows[asks[node]], (np.cumsum(asks) - 1)[node[asks[node]]]
        parents = [t for t, ask in zip(level, asks) if ask]
        feature, cut, nan_left = feature[asks], cut[asks], nan_left[asks]
        at = binned[feature[node], rows]
        child = 2 * node + np.where(at == bins, ~nan_left[node], at > cut[node])
        sizes = np.bincount(child, minlength=2 * len(parents))
        nan_left = np.where(gaps[feature], nan_left, sizes[::2] > sizes[1::2])
        level = [Node(0.0, size) for size in sizes.tolist()]
        for i, t in enumerate(parents):
            t.left, t.right, t.feature = level[2 * i], level[2 * i + 1], int(feature[i])
            t.threshold = float(np.append(thresholds[t.feature], np.inf)[cut[i]])
            t.missing_left = bool(nan_left[i])
        leaf[rows] = len(nodes) + child
        nodes += level
        if not level or depth == max_depth - 1:
            break
        small = np.arange(0, len(level), 2) + (sizes[::2] > sizes[1::2])
        few = np.flatnonzero(small[child // 2] == child)
        part = histograms(binned, rows[few], child[few] // 2, len(small), bins, g, h)
        parent, sums = sums[:, :, asks], np.empty((3, d, len(level), bins + 1))
        sums[:, :, small], sums[:, :, small ^ 1] = part, parent - part
        node = child
    return nodes, leaf


def fit_newton_boosting(
    X, y, loss="squared", steps=100, lr=0.1, max_depth=6, l2=1.0, min_samples_leaf=20, bins=255,
    min_hessian=1e-3,
):  # fmt: skip
    """XGBoost's objective on histograms (LightGBM: Ke and others, 2017). X may hold nan.

    Each side of a split keeps min_samples_leaf rows, and a sum of h of min_hessian."""
    check_number("max_depth", max_depth, least=1, integer=True)
    check_number("bins", bins, least=2, most=255, integer=True)
    check_number("l2", l2, least=0)
    check_number("min_hessian", min_hessian, least=0)
    X, y = check_boosting(X, y, loss, steps, lr, max_depth, min_samples_leaf, missing=True)
    thresholds, gaps = find_bins(X, bins), np.isnan(X).any(axis=0)
    binned = np.array([np.searchsorted(cuts, x) for cuts, x in zip(thresholds, X.T)])
    binned = np.where(np.isnan(X.T), bins, binned).astype(np.uint8)  # (d, n)

    def grow_one(g, h):  # sums of float32 numbers are exact in float64: equal gains stay equal
        g, h = np.float32(g), None if loss == "squared" else np.float32(h)
        limits = max_depth, l2, min_samples_leaf, min_hessian
        return grow_newton(binned, thresholds, gaps, bins, g, h, *limits)

    return boost(X, y, loss, steps, lr, l2, True, grow_one)


# %% [markdown]
"""
### The library version

scikit-learn's histogram boosting minimises (14) too. steps is its `max_iter`, l2 its
`l2_regularization`; early stopping and its limit on leaves must be switched off. It keeps g and h
in float32, so both grow the same trees, and leaf values agree in about 7 digits.

Try: let x[3] be missing at random instead. How much of the advantage is left?
"""

# %%
def sklearn_newton_boosting(
    X, y, loss="squared", steps=100, lr=0.1, max_depth=6, l2=1.0, min_samples_leaf=20, bins=255
):  # fmt: skip
    """The same model, fitted by scikit-learn."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if loss == "squared" else HistGradientBoostingClassifier
    return kind(
        max_iter=steps, learning_rate=lr, max_depth=max_depth, l2_regularization=l2,
        min_samples_leaf=min_samples_leaf, max_bins=bins, max_leaf_nodes=None,
        early_stopping=False,
    ).fit(X, y)  # fmt: skip


def demo_newton_boosting(plot=False):
    """Values that are missing for a reason: a learned direction, or the mean filled in."""
    rng = np.random.default_rng(4)
    X, y = friedman_data(rng, 1200)
    X[rng.uniform(size=X.shape) < 0.05] = np.nan
    X[X[:, 3] > 0.7, 3] = np.nan  # the largest values of x[3] are never written down
    train, test = train_test_split(rng, len(X), 0.33)
    filled, comparisons = np.where(np.isnan(X), np.nanmean(X[train], axis=0), X), []
    print("\n== Is a missing value better guessed, or left to the tree? (R2 on new rows) ==\n")
    for how, data in [("the mean filled in", filled), ("a learned direction", X)]:
        model = fit_newton_boosting(data[train], y[train], steps=60, max_depth=3)
        print(f"  {how:20} {r2_score(y[test], predict_boosting(model, data[test])):.3f}")
    for loss, target in [("squared", y), ("log", (y > 15).astype(int))]:
        options = (X[train], target[train], loss, 40, 0.1, 4, 2.0)
        *_, ours = staged_scores(fit_newton_boosting(*options), X[test])
        model = sklearn_newton_boosting(*options)
        theirs = model.predict(X[test]) if loss == "squared" else model.decision_function(X[test])
        ours, theirs, allowed = ours / np.ptp(theirs), theirs / np.ptp(theirs), ALLOWED["newton boosting"]
        comparisons.append(compare(f"40 trees, {loss}", ours, theirs, *allowed))
    return report(comparisons)


# %% [markdown]
"""
## Categorical features

Trees ask "at most t?", but what is the order of red, green and blue? Three ways to numbers:

- **One-hot**: a 0/1 column per category. Honest; with 10,000 categories, too wide to be useful.
- **Ordinal**: the position in the alphabet. One column, and a tree needs many questions to pick
  categories out of an order that means nothing. Unknown categories become -1.
- **Target encoding**: the mean of y in the category, pulled towards the mean of all:

      code(c) = (n_c mean_c(y) + m mean(y)) / (n_c + m)                            (17)

  with n_c rows in category c, and m as if that many more rows had an average y. Sorting
  categories by mean y is even optimal for a regression tree: its best split of them in two is
  always a cut in this order (Fisher, 1958). Unknown categories get mean(y).

**The leak.** In (17) each row's own y is part of its code. A category with one row has y itself
for a code (if m is 0), and a tree reads off the answers. On pure noise this looks like a good
model, until new rows come. The cure is to encode every row by means of other folds: out-of-fold.
"""

# %%
def check_column(column):
    """A column of text or numbers, (n,)."""
    array = np.asarray(column)
    if array.dtype.kind == "U" and array.ndim == 1 and array.size:
        return array
    return check_array("column", column, ndim=1)


def encode_ordinal(column, categories):
    """The position of each value in the sorted categories (k,), or -1 if it is not there: (n,)."""
    column, categories = check_column(column), check_column(categories)
    at = np.minimum(np.searchsorted(categories, column), len(categories) - 1)
    return np.where(categories[at] == column, at, -1)


def encode_one_hot(column, categories):
    """A 0/1 column per category (n, k); a value that is not there gets a row of zeros."""
    at = encode_ordinal(column, categories)
    return (at[:, None] == np.arange(len(categories))).astype(float)


def fit_target_encoding(column, y, m=1.0):
    """Equation (17): the categories (k,), their codes (k,), and the mean of y for the others."""
    column, y = check_column(column), check_array("y", y, ndim=1)
    check_Xy(np.zeros((len(column), 1)), y)
    check_number("m", m, least=0)
    categories, at = np.unique(column, return_inverse=True)
    sums, counts = np.bincount(at, y), np.bincount(at)
    return categories, (sums + m * y.mean()) / (counts + m), y.mean()


def encode_target(column, encoding):
    """The code of each value (n,)."""
    categories, codes, mean = encoding
    at = encode_ordinal(column, categories)
    return np.where(at < 0, mean, codes[at])


def encode_out_of_fold(column, y, folds, m=1.0):
    """Each row's code from the rows of the other folds, given as pairs (train, test): (n,)."""
    column, codes = check_column(column), np.full(len(column), np.nan)
    for train, test in folds:
        encoding = fit_target_encoding(column[train], np.asarray(y)[train], m)
        codes[test] = encode_target(column[test], encoding)
    return check_array("codes", codes, ndim=1)  # nan: a row that stands in no test part


# %% [markdown]
"""
### The library version

`OneHotEncoder`, `OrdinalEncoder` and `TargetEncoder` take tables of columns. The last one is out
of fold in `fit_transform`, and is not in `fit(...).transform(...)`: the same object, two meanings.

Try: give each category 30 rows instead of 3. How large is the leak then?
"""

# %%
def sklearn_encoders(column, y, folds, m=1.0):
    """Fitted one-hot, ordinal and target encoders, and the out-of-fold codes (n,)."""
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

    column = np.asarray(column)[:, None]
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(column)
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(column)
    target = TargetEncoder(smooth=m, target_type="continuous", cv=folds)
    out_of_fold = target.fit_transform(column, y)[:, 0]
    return one_hot, ordinal, target, out_of_fold


def demo_categories(plot=False):
    """Pure noise, 200 categories: how good does a feature look that knows nothing?"""
    rng = np.random.default_rng(6)
    column, y = np.array([f"c{i:03}" for i in rng.permutation(600) % 200]), rng.permutation(600) % 2
    new, new_y = np.append(column[:599], "unseen"), rng.permutation(600) % 2
    encoding, folds = fit_target_encoding(column, y), k_fold(600, 5, rng)
    codes = encode_target(column, encoding), encode_out_of_fold(column, y, folds)
    print("\n== How well does a category that means nothing predict a coin? (ROC AUC) ==\n")
    for how, truth, code in [
        ("coded with the row's own y", y, codes[0]), ("out of fold", y, codes[1]),
        ("new rows", new_y, encode_target(new, encoding)),
    ]:  # fmt: skip
        print(f"  {how:28} {roc_auc(truth, code):.3f}")
    one_hot, ordinal, target, out_of_fold = sklearn_encoders(column, y, folds)
    new_column, same, close = new[:, None], ALLOWED["encoders"], ALLOWED["target encoding"]
    return report([
        compare("one-hot", encode_one_hot(new, encoding[0]), one_hot.transform(new_column), *same),
        compare("ordinal", encode_ordinal(new, encoding[0]), ordinal.transform(new_column)[:, 0], *same),
        compare("target", encode_target(new, encoding), target.transform(new_column)[:, 0], *close),
        compare("target, out of fold", codes[1], out_of_fold, *close),
    ])  # fmt: skip


# %% [markdown]
"""
## Importance

Which features does a model use? A tree can be asked directly. Credit the gain (4) of every
split to its feature, and share out 100% per tree:

    impurity importance(j) = Σ gain of splits on j / Σ gain of all splits          (18)

A forest takes the mean over its trees. It costs nothing, but it is measured on training rows. A
useless feature with many distinct values offers many thresholds, one fits the noise by chance,
and it gets credit. A better question, to any model: how much worse does it do on held-out rows if
this column is shuffled, so that it has the same values but no meaning?

    permutation importance(j) = score - score with column j shuffled               (19)

What people get wrong: it tells what this model uses, not what the world depends on. Two equal
columns stand in for each other, and both may look unimportant. Nor is it a causal effect.
"""

# %%
def impurity_importance(trees):
    """Equation (18), the mean over a list of roots: (d,). A tree without questions has no say."""
    shares = np.zeros(trees[0].d)
    for root in trees:
        asks = [t for t in list_nodes(root) if t.left is not None]
        if asks:
            gains = np.bincount([t.feature for t in asks], [gain_at(t) for t in asks], root.d)
            shares += gains / (gains.sum() or 1)
    return shares / (shares.sum() or 1)


def permutation_importance(predict, X, y, score, permutations):
    """Equation (19) for each of the permutations of the rows (repeats, n): (d, repeats)."""
    X, y = check_Xy(X, y)
    permutations = check_array("permutations", permutations, ndim=2).astype(int)
    if not np.array_equal(np.sort(permutations), np.tile(np.arange(len(X)), (len(permutations), 1))):
        raise ValueError(f"permutations must hold each row number 0 to {len(X) - 1} once per line")
    whole, drops = score(y, predict(X)), np.empty((X.shape[1], len(permutations)))
    for j in range(X.shape[1]):
        for i, order in enumerate(permutations):
            shuffled = X.copy()
            shuffled[:, j] = X[order, j]
            drops[j, i] = whole - score(y, predict(shuffled))
    return drops


# %% [markdown]
"""
### The library version

`feature_importances_` is (18). `permutation_importance` shuffles by a random state: every column
starts from the same one, and each repeat shuffles the last order again, so we can do as it does.

Try: make the random feature 0/1 instead. Does (18) still credit it?
"""

# %%
def sklearn_permutations(n, repeats, seed=0):
    """The permutations that the library draws for every column: (repeats, n)."""
    rng = np.random.RandomState(np.random.RandomState(seed).randint(np.iinfo(np.int32).max + 1))
    order, orders = np.arange(n), []
    for _ in range(repeats):
        rng.shuffle(order)
        orders.append(order.copy())
    return np.array(orders)


def demo_importance(plot=False):
    """Breast cancer (569 rows, real data), three features and one of random numbers."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.inspection import permutation_importance as sklearn_importance

    data, rng = load_breast_cancer(), np.random.default_rng(8)
    X = np.column_stack([data.data[:, [20, 21, 27]], rng.normal(size=569)])
    X, y = X.astype(np.float32).astype(float), data.target
    train, test = train_test_split(rng, len(X), 0.4)
    model = sklearn_tree(X[train], y[train], min_samples_leaf=2)
    root = nodes_from_sklearn(model)[0]  # the library's tree, so that ties make no difference
    shares, orders = impurity_importance([root]), sklearn_permutations(len(test), 10)
    drops = permutation_importance(
        lambda X: predict_tree(root, X), X[test], y[test], accuracy, orders
    )
    print("\n== Which features matter, and who is fooled by random numbers? ==\n")
    print("                          impurity  permutation, on new rows")
    for name, share, drop in zip([*data.feature_names[[20, 21, 27]], "random"], shares, drops):
        print(f"  {name:22} {share:9.3f} {drop.mean():12.3f}")
    theirs = sklearn_importance(model, X[test], y[test], n_repeats=10, random_state=0).importances
    return report([
        compare("impurity", shares, model.feature_importances_, *ALLOWED["impurity importance"]),
        compare("permutation", drops, theirs, *ALLOWED["permutation importance"]),
    ])  # fmt: skip


# %% [markdown]
"""
## Your own table

`--csv FILE --target COLUMN` puts it together. Text, or whole numbers with ten values at most, is
a class; other numbers are a quantity. Text features with few values become one-hot; with many,
target codes (out of fold on training rows). Gaps stay nan for boosting, and become the training
mean for tree and forest. A quarter of the rows is held out before anything is learned.

Try: your table with its target shuffled. Each score below should fall to the baseline's.
"""

# %%
def encode_table(table, y, train, rng):
    """Every column of {name: array} as numbers, fitted on the training rows: (n, columns)."""
    parts = []
    for column in table.values():
        if column.dtype.kind == "f":
            parts.append(column)
        elif len(categories := np.unique(column[train])) <= 10:
            parts.append(encode_one_hot(column, categories))
        else:
            codes = encode_target(column, fit_target_encoding(column[train], y[train]))
            folds = k_fold(len(train), min(5, len(train)), rng)
            codes[train] = encode_out_of_fold(column[train], y[train], folds)
            parts.append(codes)
    return np.column_stack(parts)


def try_table(path, target, plot=False):
    """Train and judge a tree, a forest and boosting on the reader's own table."""
    table = read_csv(path)
    if target not in table:
        raise ValueError(f"{path} has no column {target!r}; it has {', '.join(table)}")
    known = table[target] != "" if table[target].dtype.kind == "U" else ~np.isnan(table[target])
    table = {name: column[known] for name, column in table.items()}
    y, rng = table.pop(target), np.random.default_rng(0)
    if not table or len(y) < 20:
        raise ValueError(f"{path} needs another column and 20 rows with a target, it has {len(y)}")
    names, labels = np.unique(y, return_inverse=True)
    classes = y.dtype.kind == "U" or (len(names) <= 10 and np.array_equal(names, names.round()))
    train, test = train_test_split(rng, len(y))
    if classes:
        y = labels
        if not np.array_equal(np.unique(y[train]), np.arange(max(len(names), 2))):
            raise ValueError(f"{target} must have two classes or more, each with several rows")
    X = encode_table(table, y.astype(float), train, rng)
    middle = np.nan_to_num(np.nanmean(np.where(np.isnan(X[train]).all(axis=0), 0, X[train]), axis=0))
    filled = np.where(np.isnan(X), middle, X)
    how, score = ("gini", accuracy) if classes else ("variance", r2_score)
    progress(f"training on {len(train)} rows and {X.shape[1]} columns ...")
    tree = fit_tree(filled[train], y[train], how, min_samples_leaf=5)
    forest = fit_forest(filled[train], y[train], how, rng=rng)
    if classes:  # one model per class, the surest wins
        models = [fit_newton_boosting(X[train], y[train] == c, "log") for c in range(len(names))]
        boosted = np.argmax([predict_boosting(model, X[test]) for model in models], axis=0)
    else:
        boosted = predict_boosting(fit_newton_boosting(X[train], y[train]), X[test])
    constant = np.full(len(test), np.bincount(y[train]).argmax() if classes else y[train].mean())
    print(f"{'accuracy' if classes else 'R2'} on {len(test)} rows that were held out:")
    for name, answer in [
        ("always the same", constant), ("tree", predict_tree(tree, filled[test])),
        ("forest", predict_forest(forest, filled[test])), ("boosting", boosted),
    ]:  # fmt: skip
        print(f"  {name:16} {score(y[test], answer):.3f}")


# %%
if __name__ == "__main__":
    run_chapter(
        "One question at a time: trees, forests and boosting, from scratch and in scikit-learn.",
        [
            demo_by_hand, demo_classification_tree, demo_regression_tree, demo_pruning, demo_forest,
            demo_boosting, demo_newton_boosting, demo_categories, demo_importance,
        ],
        on_csv=try_table,
    )  # fmt: skip

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "scikit-learn", "matplotlib"]
# ///
