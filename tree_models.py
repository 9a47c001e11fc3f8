# %% [markdown]
"""
# Tree models: what can be learned by asking one question at a time?

A tree asks "is feature j at most t?" until the examples that are left agree. Which questions are
good, when should it stop, and why do many weak trees together beat one good tree?

    n, d, k    number of examples, of features, of classes
    X, y       features (n, d), one example per row; numbers to predict, or labels 0..k-1 (n,)
    t          a node of a tree, `Node`; tL and tR are its children; I(t) is its impurity
    w, W       weight of a row (n,), 1 unless said otherwise; weight of all rows in a node
    α, η, λ    alpha, eta, lambda: the price of a leaf, step size `lr` and penalty `l2`
    F, g, h    what boosting predicts so far, first and second derivative of the loss by it (n,)
"""
# %%
import heapq
import math
from collections import namedtuple
from dataclasses import dataclass, replace

import numpy as np

from utils import (
    accuracy, check_array, check_labels, check_number, check_X, check_Xy, compare, k_fold,
    make_moons, mse, progress, r2_score, read_table, report, roc_auc, run_chapter, save_plot,
    stratified_k_fold, train_test_split,
)  # fmt: skip

ALLOWED = {
    "sums": (1e-10, "the same sums in another order: only rounding differs"),
    "out-of-bag": (0.02, "other random draws move the score of 200 trees by about 0.01"),
    "boosting": (1e-8, "rounding adds up over the trees"),
    "newton boosting": (1e-6, "of the spread of y: the library keeps g and h in float32"),
}

def beside(*lines):
    """Compare and report lines of (row of ALLOWED, what, scratch, library)."""
    return report([compare(what, ours, theirs, *ALLOWED[row]) for row, what, ours, theirs in lines])

# %% [markdown]
"""
## A tree by hand
Before any algorithm grows a tree, we write one. Inner nodes hold questions, leaves hold answers,
and an example walks down from the root:

    left if x[feature] ≤ threshold, else right                                     (1)
Two questions about petals tell three kinds of iris apart: 144 of 150 are right. Trees need no
scaling, as (1) sees only the order of values. At the border, ≤ goes left. Trees can be thousands of
levels deep and Python allows about 1000 nested calls, so all rows walk together, level by level.
"""
# %%
@dataclass(slots=True, eq=False, repr=False)
class Node:
    """A leaf if `left` is None. value is a number, or the share of each class (k,)."""
    value: object
    n: float = 1.0  # the weight of its rows
    impurity: float = 0.0
    feature: int = None
    threshold: float = None
    left: "Node" = None
    right: "Node" = None
    missing_left: bool = False
    d: int = None  # number of features, known at the root

def list_nodes(root):
    """All nodes, level by level. The i-th question's children stand at 2i + 1 and 2i + 2."""
    nodes = [root]
    for node in nodes:  # the list grows while we walk along it
        if node.left is not None:
            nodes += (node.left, node.right)
    return nodes

def tree_values(root, X, missing=False):
    """Equation (1) until every row is in a leaf: its value, a mean (n,) or shares (n, k)."""
    X, nodes = check_array("X", X, ndim=2, allow_nan=missing), list_nodes(root)
    fields = [(t.left is None, t.feature or 0, t.threshold or 0.0, t.missing_left) for t in nodes]
    leaf, feature, threshold, missing_left = map(np.array, zip(*fields))
    d = root.d or max(X.shape[1], feature.max() + 1)
    if X.shape[1] != d:
        raise ValueError(f"X must have {d} feature(s), as the tree has, not {X.shape[1]}")
    asks, left, at = ~leaf, 2 * np.cumsum(~leaf) - 1, np.zeros(len(X), int)
    rows, flat = np.arange(len(X) if asks[0] else 0), X.ravel()
    here = at[rows]  # the node that each of the rows has reached
    while len(rows):
        x = flat.take(rows * d + feature.take(here))
        right = x > threshold.take(here)
        if missing:  # nan > threshold is False: without this line every gap would go left
            right |= np.isnan(x) & ~missing_left.take(here)
        at[rows] = here = left.take(here) + right
        rows, here = rows[asks.take(here)], here[asks.take(here)]
    return np.array([t.value for t in nodes])[at]

def decide(values):
    """Shares of classes (n, k) become the label of the largest; numbers (n,) stay."""
    return values.argmax(axis=1) if values.ndim == 2 else values

def predict_tree(root, X):
    """A label or a number per row: (n,). A level at a time, in twice the library's time."""
    return decide(tree_values(root, X))

def show_tree(root, names=None, depth=10):
    """The tree as text: its first `depth` levels, and below them only counts."""
    lines, todo = [], [(root, 0, "")]
    while todo:
        t, level, text = todo.pop()
        if t.left is None:
            text += f"class {np.argmax(t.value)}" if np.ndim(t.value) else f"{t.value:.4g}"
            text += f"  (n = {t.n:g})"
        elif level == depth:
            text += f"... {len(list_nodes(t)) // 2} more question(s)"
        else:
            text += f"{names[t.feature] if names else f'x[{t.feature}]'} <= {t.threshold:.4g}?"
            margin = "|  " * (level + 1)
            todo += [(t.right, level + 1, margin + "no:  "), (t.left, level + 1, margin + "yes: ")]
        lines.append(text)
    return "\n".join(lines)

def demo_by_hand(plot=False):
    """Two questions about iris petals (real data), beside the tree that the library finds."""
    from sklearn.datasets import load_iris
    X, y = load_iris(return_X_y=True)
    wide = Node([0, 0.5, 0.5], 100, 0.5, 3, 1.75, Node([0, 1, 0], 54), Node([0, 0, 1], 46))
    root = Node([1 / 3] * 3, 150, 2 / 3, 2, 2.45, Node([1, 0, 0], 50), wide)
    labels, library = predict_tree(root, X), sklearn_tree(X, y, max_depth=2).predict(X)
    print("\n== Can two questions tell three kinds of iris apart? ==\n")
    print(show_tree(root, ["sepal length", "sepal width", "petal length", "petal width"]))
    print(f"\n  right: {np.sum(labels == y)} of {len(y)}")
    return beside(("sums", "iris labels", labels, library))
# Try: ask for petal width first. Which flowers change their answer?
# %% [markdown]
"""
## Classification and regression trees
The best question has the least mixed answers. Measures of how mixed a node is, from the share pₖ
of each class, or for numbers from their distance to the node's mean:

    gini   I(t) = Σₖ pₖ (1 - pₖ)              entropy   I(t) = -Σₖ pₖ log₂ pₖ
    variance   I(t) = 1/W Σᵢ wᵢ (yᵢ - mean(t))²                                    (2)
    gain of a split = W I(t) - W_L I(tL) - W_R I(tR)                               (3)
Gini is the variance of a 0/1 column per class, added up. If the deviations of a column from the
node's mean sum to S over the left rows, and so to -S over the right ones, their own means take
S²/W_L and S²/W_R off the two sides' sums of squares (the parent's mean would take off nothing):

    gain = Σ_columns S² W / (W_L W_R)                                              (4)
One running sum over the sorted rows scores every threshold of a feature. So sort each feature
once, keep a level's rows grouped by node and sorted inside it, and score all nodes together. Then
filter: the rows that go left, and those that go right, are still sorted. A level costs d n steps.
The search is greedy. On XOR (label 1 where two signs differ) no first question gains anything,
yet two solve it: so a gain of 0 is allowed. A node is a leaf if it is pure, too deep, too small, or
if its rows agree in every feature. A full tree knows its training rows by heart, and they say
nothing about new ones. A mean never leaves the range of y: no tree extends a trend. Trees are
unstable: drop a few rows, and the first question and all below may change.
"""
# %%
def sort_columns(X):
    """Features as rows (d, n), and the row numbers that sort each, (d, n)."""
    Xt = np.ascontiguousarray(X.T)
    return Xt, np.argsort(Xt, axis=1, kind="stable")

def describe(targets, w, rows, sizes, criterion):
    """Each node's value (c, q), impurity, W, whether it is mixed (q,), and what sums will add up.
    targets (c, n) is y, or a 0/1 row per class. rows are grouped by node, sizes (q,) each."""
    starts, w, here = np.cumsum(sizes) - sizes, w[rows], targets[:, rows]
    terms, W = w * here, np.add.reduceat(w, starts)
    value = np.add.reduceat(terms, starts, axis=1) / W
    mixed = np.minimum.reduceat(here, starts, axis=1) < np.maximum.reduceat(here, starts, axis=1)
    if criterion == "variance":
        terms = w * (here - np.repeat(value, sizes, axis=1))
        impurity = np.add.reduceat((terms**2 / w)[0], starts) / W  # equation (2)
    else:
        impurity = np.sum(value * (1 - value) if criterion == "gini" else -x_log_x(value), axis=0)
        terms = terms[: 1 if criterion == "gini" and len(terms) == 2 else None]  # mirror images
    return value, impurity, W, mixed.any(axis=0), terms

def running_sums(values, starts, node):
    """Sums along each row of values (k, m) that begin anew at every node: (k, m)."""
    sums = np.cumsum(values, axis=1)
    before = sums[:, starts - 1] * (starts > 0)  # nothing stands before the first node
    return sums - before.take(node, axis=1) if len(starts) > 1 else sums

def x_log_x(x):
    """x log2 x, and 0 at 0."""
    return x * np.log2(np.where(x > 0, x, 1))

def gain_of(criterion, sums, W_left, W, p, ends):
    """Equation (4) or, for entropy, (3). sums hold S, or the weight of each class on the left."""
    W_right = np.maximum(W - W_left, 1e-100)  # it is 0 at the end of a node
    if criterion == "entropy":  # W I(t) = W log W - the sum of N log N
        gain = x_log_x(W) - x_log_x(W_left) - x_log_x(W_right)
        for N in sums:
            gain = gain + x_log_x(N) + x_log_x(N[:, ends] - N) - x_log_x(N[:, ends])
        return gain
    if criterion == "gini":
        sums = [N - W_left * share for N, share in zip(sums, p)]
        W = W * (1 + (len(sums) < len(p)))  # a single sum stands for two
    return sum(map(np.square, sums)) * (W / (W_left * W_right))

def best_splits(Xt, order, sizes, columns, value, W, w, criterion, least, max_features, rng):
    """The best question of each node, gain, feature and threshold (q,), for sorted rows (d, m)."""
    node, ends, m = np.repeat(np.arange(len(sizes)), sizes), np.cumsum(sizes) - 1, order.shape[1]
    starts, feature = ends - sizes + 1, np.arange(len(Xt))[:, None]
    if max_features < len(Xt):  # draw as many for each node; those that are constant come last
        constant = Xt[feature, order[:, starts]] == Xt[feature, order[:, ends]]  # (d, q)
        feature = np.argsort(rng.random(constant.shape) + constant, axis=0)[:max_features, node]
        order = order[feature, np.arange(m)]
    n_left, ends = np.arange(m) - starts[node] + 1, ends[node]
    W_left = running_sums(w.take(order), starts, node) if (w != 1).any() else n_left
    sums = [running_sums(column.take(order), starts, node) for column in columns]
    gain = gain_of(criterion, sums, W_left, W[node], value[:, node], ends)
    gain[:, np.minimum(n_left, n_left[ends] - n_left) < least] = -np.inf
    feature, again = np.broadcast_to(feature, gain.shape), True
    while again:
        top = np.maximum.reduceat(gain, starts, axis=1)  # (features, q)
        pick, best = top.argmax(axis=0), top.max(axis=0)
        hits = np.flatnonzero(gain[pick[node], np.arange(m)] == best[node])
        at = hits[np.searchsorted(hits, starts)]  # the first position that reaches the best gain
        low, high = (Xt[feature[pick, at], order[pick, i]] for i in (at, at + 1))
        some = np.flatnonzero(((low == high) & (best > -np.inf))[node])
        if again := len(some) > 0:  # equal values cannot be parted: rule that out in these nodes
            equal = np.diff(Xt[feature[:, some], order[:, some]]) == 0
            gain[:, some[:-1]] = np.where(equal, -np.inf, gain[:, some[:-1]])
    middle = low / 2 + high / 2
    return best, feature[pick, at], np.where(middle < high, middle, low)  # rounding may reach high

def divide(Xt, rows, sizes, asks, feature, threshold, side):
    """Equation (1) for the rows of the nodes that ask: rows and sizes of the next level."""
    side[rows] = 0
    rows, node = rows[np.repeat(asks, sizes)], np.repeat(np.arange(len(feature)), sizes[asks])
    right = Xt[feature[node], rows] > threshold[node]
    side[rows] = 1 + right
    n_right = np.bincount(node[right], minlength=len(feature))
    return np.append(rows[~right], rows[right]), np.append(sizes[asks] - n_right, n_right)

def link(parents, feature, threshold, missing_left, level):
    """Give the parents their questions, and the next level as children: all left ones first."""
    for t, *question, left, right in zip(parents, feature.tolist(), threshold.tolist(),
                                         missing_left.tolist(), level, level[len(parents) :]):
        (t.feature, t.threshold, t.missing_left), t.left, t.right = question, left, right

def grow(Xt, order, targets, criterion, limits, w, max_features=math.inf, rng=None, trees=None):
    """Grow a tree level by level, or several side by side: their nodes, roots first, and for each
    row the index of its leaf (n,). w (n,) are row weights; limits are max_depth, min_samples_leaf,
    min_impurity_decrease; order (d, m) has trees[0] sorted rows of the first tree, and so on."""
    max_depth, min_samples_leaf, least = limits
    side, leaf, rest = np.ones(len(w), np.int8), np.zeros(len(w), int), (max_features, rng)
    sizes = trees = np.array([order.shape[1]] if trees is None else trees)
    rows, asked, nodes = order[0], [np.zeros(0)] * 4, []
    for depth in range(len(w)):
        value, impurity, W, mixed, terms = describe(targets, w, rows, sizes, criterion)
        values = value[0].tolist() if criterion == "variance" else value.T
        level = list(map(Node, values, W.tolist(), impurity.tolist()))
        link(*asked, level)
        leaf[rows] = len(nodes) + np.repeat(np.arange(len(level)), sizes)
        nodes += level
        mixed &= (sizes >= 2 * min_samples_leaf) & (max_depth is None or depth < max_depth)
        if not mixed.any():
            break
        columns = columns if depth else np.zeros((len(terms), len(w)), terms.dtype)
        columns[:, rows] = terms
        side[rows] *= np.repeat(mixed, sizes)
        if depth or not mixed.all():
            went = side.take(order).ravel()  # the rows on the left (1), then on the right (2)
            order = np.hstack([np.compress(went == s, order).reshape(len(Xt), -1) for s in (1, 2)])
        here = sizes[mixed], columns, value[:, mixed], W[mixed], w, criterion, min_samples_leaf
        gain, feature, threshold = best_splits(Xt, order, *here, *rest)
        good = (gain > -np.inf) & (np.maximum(gain, 0) >= (least - 1e-15) * nodes[0].n)
        mixed[mixed], feature, threshold = good, feature[good], threshold[good]
        asked = [t for t, ask in zip(level, mixed) if ask], feature, threshold, feature < 0
        rows, sizes = divide(Xt, rows, sizes, mixed, feature, threshold, side)
    for root in nodes[: len(trees)]:
        root.d = len(Xt)
    return nodes, leaf

def check_fit(X, y, criterion, max_depth, min_samples_leaf, min_impurity_decrease=0.0):
    """X, the targets (c, n): y itself or a 0/1 row per class, and the limits of growth, checked."""
    check_number("max_depth", 1 if max_depth is None else max_depth, least=1, integer=True)
    check_number("min_samples_leaf", min_samples_leaf, least=1, integer=True)
    check_number("min_impurity_decrease", min_impurity_decrease, least=0)
    if criterion not in ("gini", "entropy", "variance"):
        raise ValueError(f"criterion must be gini, entropy or variance, not {criterion!r}")
    X, y = check_Xy(X, y) if criterion == "variance" else check_labels(X, y)
    targets = y[None] if criterion == "variance" else np.arange(y.max() + 1)[:, None] == y
    return X, targets, (max_depth, min_samples_leaf, min_impurity_decrease)

def fit_tree(X, y, criterion="gini", max_depth=None, min_samples_leaf=1, min_impurity_decrease=0.0):
    """CART (Breiman and others, 1984): the root of a tree for labels (gini, entropy) or numbers
    (variance). Each split must take min_impurity_decrease off the mean impurity of all rows. Few
    rows gain less on the library (0.7 times its time for 1,000, 0.3 for 100,000): calls cost."""
    X, Y, limits = check_fit(X, y, criterion, max_depth, min_samples_leaf, min_impurity_decrease)
    return grow(*sort_columns(X), Y, criterion, limits, np.ones(len(X), int))[0][0]

def sklearn_tree(X, y, criterion="gini", max_depth=None, min_samples_leaf=1, seed=0, **options):
    """The library version: variance is `squared_error`, alpha `ccp_alpha`. It keeps X in float32,
    takes values closer than 1e-7 as equal, and picks at random between splits of equal gain."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
    kind = DecisionTreeRegressor if criterion == "variance" else DecisionTreeClassifier
    options |= dict(max_depth=max_depth, min_samples_leaf=min_samples_leaf, random_state=seed)
    return kind(criterion=criterion.replace("variance", "squared_error"), **options).fit(X, y)

def demo_classification_tree(plot=False):
    """Two half moons: the regions that a tree draws, and the library's answers on new moons."""
    (X, y), (new, _) = (make_moons(np.random.default_rng(n), n, noise=0.2) for n in (200, 500))
    grid, root = np.meshgrid(np.linspace(-1.4, 2.4, 58), np.linspace(1.4, -1, 13)), fit_tree(X, y)
    labels = predict_tree(root, np.transpose(grid).reshape(-1, 2)).reshape(58, 13).T
    print("\n== Into which rectangles does a full tree cut two moons? ==\n")
    print("\n".join("  " + "".join(".#"[label] for label in line) for line in labels), end="\n\n")
    print(show_tree(root, depth=2))
    if plot:
        save_plot("tree_models_classification_tree.png", lambda ax: (
            ax.pcolormesh(*grid, labels, alpha=0.3), ax.scatter(*X.T, c=y, s=12),
            ax.set(xlabel="x[0]", ylabel="x[1]", title="A full tree on two moons")))
    return beside(*(("sums", f"shares of classes, {how}", tree_values(
        fit_tree(X, y, how, 2), new), sklearn_tree(X, y, how, 2).predict_proba(new))
        for how in ("gini", "entropy")))

def demo_regression_tree(plot=False):
    """One noisy wave and its staircase. With 10 rows per leaf and continuous y, nothing ties."""
    rng, grid = np.random.default_rng(1), np.linspace(0.1, 5.9, 15)
    X = rng.uniform(0, 6, size=(240, 1)).astype(np.float32).astype(float)
    y = np.sin(X[:, 0]) + 0.2 * rng.normal(size=240)
    root, library = fit_tree(X, y, "variance", None, 10), sklearn_tree(X, y, "variance", None, 10)
    print("\n== How does a staircase follow a wave? ==\n")
    for x, step in zip(grid, predict_tree(root, grid[:, None])):
        print(f"  x = {x:.1f}  {step:5.2f}  " + " " * round(15 + 12 * step) + "#")
    cuts = sorted(t.threshold for t in list_nodes(root) if t.left is not None)
    theirs = np.sort(library.tree_.threshold[library.tree_.children_left >= 0])
    return beside(("sums", f"{len(cuts)} thresholds", cuts, theirs),
                  ("sums", "the stairs", predict_tree(root, X), library.predict(X)))
# Try: predict at x = 20. Before you do: which stair will answer?
# %% [markdown]
"""
## Pruning
When should a tree stop? Early is short-sighted, as XOR shows. Better grow it fully, then cut back
what does not pay. Put a price α on every leaf:

    R(T) = Σ_leaves r(t) + α · (number of leaves)      r(t) = W(t) I(t) / W(root)  (5)
For every α some smallest subtree minimises R, and as α rises, branches only fall off (Breiman and
others, 1984, chapter 3). Seen from a node t, the least cost of the branch below it is a chain of
straight lines in α: the slope is the number of leaves left, and it bends where a branch falls off.
As a leaf, t would cost r(t) + α. Where both are equal, t falls:

    α(t) = (r(t) - cost) / (leaves - 1)                                            (6)
with cost (at α = 0) and leaves of the line that holds there. Go up from the leaves and keep each
branch's bends in a heap. A bend above α(t) never happens, as t falls first: pop it. The smaller
heap is poured into the larger: n log² n steps. Choose α on new rows: old ones never want pruning.
"""
# %%
def collapse_alphas(root):
    """Equation (6) for each of list_nodes(root), and the root's bends: (α, leaves lost)."""
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
    prices, lost = np.array(bends).reshape(-1, 2).T
    new = np.flatnonzero(np.diff(prices, prepend=0) > 1e-12 * root.impurity)  # else it is a tie
    leaves = (len(nodes) + 1) // 2 - np.append(0, np.cumsum(lost)).astype(int)
    return np.append(0, prices[new]), leaves[np.append(new, len(prices))]

def prune_tree(root, alpha):
    """The smallest subtree that minimises equation (5): a copy, root stays as it is."""
    check_number("alpha", alpha, least=0)
    (nodes, falls_at, _), copies = collapse_alphas(root), {}
    for t, price in zip(reversed(nodes), reversed(falls_at)):
        if t.left is None or price <= alpha:
            copies[id(t)] = replace(t, left=None, right=None, feature=None, threshold=None)
        else:
            copies[id(t)] = replace(t, left=copies[id(t.left)], right=copies[id(t.right)])
    return copies[id(root)]

def demo_pruning(plot=False):
    """What a price per leaf does to new rows. (The library's list of prices repeats equal ones.)"""
    (X, y), (new_X, new_y) = (friedman_data(np.random.default_rng(seed), 400) for seed in (3, 4))
    root, model = fit_tree(X, y, "variance", None, 10), sklearn_tree(X, y, "variance", None, 10)
    alphas, leaves = pruning_path(root)
    print("\n== Which leaves are worth their price? (mean squared errors) ==\n\n"
          "   alpha   leaves  training rows  new rows")
    for alpha, count in list(zip(alphas, leaves))[::4]:
        old, new = (predict_tree(prune_tree(root, alpha), A) for A in (X, new_X))
        print(f"  {alpha:7.4f}  {count:5}  {mse(y, old):12.2f}  {mse(new_y, new):9.2f}")
    middle = float(alphas[-9:-7].mean())
    path = np.unique(model.cost_complexity_pruning_path(X, y).ccp_alphas.round(12))
    theirs = sklearn_tree(X, y, "variance", None, 10, ccp_alpha=middle).predict(new_X)
    return beside(("sums", f"{len(alphas)} prices", alphas, path),
                  ("sums", "new rows", predict_tree(prune_tree(root, middle), new_X), theirs))
# Try: grow the tree with min_samples_leaf=1. Where is the best price then?
# %% [markdown]
"""
## Random forest
A full tree is right on average and wrong in detail: another sample gives another tree. Averages
cancel such noise. If B trees have errors of variance σ² and correlation ρ (sigma, rho),

    variance of their average = ρ σ² + (1 - ρ) σ² / B                              (7)
More trees shrink the second term; only trees that differ shrink the first. Two tricks do it.
Bootstrap: each tree sees n rows drawn with replacement. A row drawn three times is not copied: it
gets weight 3 in (2) to (4), and counts as one row in min_samples_leaf. Random features: at every
split (not once per tree) only some may be asked, often √d, so that no feature opens every tree.
A tree leaves out (1 - 1/n)ⁿ ≈ 37% of the rows. Predict each row with just the trees that never
saw it, and you get an honest score without a test set: out of bag.
"""
# %%
Forest = namedtuple("Forest", "trees counts")  # roots; how often each drew each row (trees, n)
def fit_forest(X, y, criterion="gini", trees=100, max_features="sqrt", max_depth=None,
               min_samples_leaf=1, rng=None, counts=None):  # fmt: skip
    """Random forest (Breiman, 2001). max_features is a number, "sqrt" of d, or None for all.
    The bootstrap comes from the generator rng, or is given as counts (trees, n)."""
    X, targets, limits = check_fit(X, y, criterion, max_depth, min_samples_leaf)
    check_number("trees", trees, least=1, integer=True)
    (n, d), rng, grown = X.shape, np.random.default_rng(0) if rng is None else rng, []
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a generator, np.random.default_rng(seed), not {rng!r}")
    few = d if max_features is None else math.isqrt(d) if max_features == "sqrt" else max_features
    check_number("max_features", few, least=1, most=d, integer=True)
    if counts is None:
        counts = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(trees)]
    draws, counts = check_array("counts", counts, ndim=2), np.asarray(counts).astype(int)
    if draws.shape[1] != n or draws.min() < 0 or (draws != counts).any() or 0 in draws.sum(axis=1):
        raise ValueError(f"counts must be (trees, {n}) whole numbers, and no tree without rows")
    (Xt, order), some = sort_columns(X), max(1, 2**20 // X.size)  # so many trees fit the memory,
    for w in (counts[i : i + some] for i in range(0, len(counts), some)):  # each with its own rows
        b, orders = len(w), [order[s[order]].reshape(d, -1) + i * n for i, s in enumerate(w > 0)]
        data = np.tile(Xt, b), np.hstack(orders), np.tile(targets, b), criterion, limits
        grown += grow(*data, w.ravel(), few, rng, (w > 0).sum(axis=1))[0][:b]
    return Forest(grown, counts)

def predict_forest(forest, X):
    """The mean of the trees, or the label with the largest mean share: (n,)."""
    return decide(sum(tree_values(root, X) for root in forest.trees) / len(forest.trees))

def out_of_bag(forest, X):
    """The training rows that some tree left out, and what those trees predict there."""
    X, out = check_X(X, forest.trees[0].d), forest.counts == 0  # (trees, n)
    if len(X) != out.shape[1] or not out.any():
        raise ValueError(f"X must be the {out.shape[1]} training rows, some of them left out")
    total = sum((tree_values(root, X).T * rows).T for root, rows in zip(forest.trees, out))
    rows = np.flatnonzero(out.any(axis=0))
    return rows, decide((total[rows].T / out.sum(axis=0)[rows]).T)

def sklearn_forest(X, y, criterion="gini", trees=100, max_features="sqrt", max_depth=None,
                   min_samples_leaf=1, seed=0):  # fmt: skip
    """The library version, and its counts (trees, n), so that ours can grow from the same draws.
    It draws features until one of them can split; we draw among those that vary in the node."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    kind = RandomForestRegressor if criterion == "variance" else RandomForestClassifier
    options = dict(max_depth=max_depth, min_samples_leaf=min_samples_leaf, random_state=seed)
    options |= dict(criterion=criterion.replace("variance", "squared_error"), oob_score=True)
    model = kind(trees, max_features=max_features, **options).fit(X, y)
    return model, np.array([np.bincount(i, minlength=len(X)) for i in model.estimators_samples_])

def demo_forest(plot=False):
    """Diabetes (442 patients, real data): a tree, a forest, and the out-of-bag score."""
    from sklearn.datasets import load_diabetes
    X, y = load_diabetes(return_X_y=True)
    X, rng = X.astype(np.float32).astype(float), np.random.default_rng(0)
    train, test = train_test_split(rng, len(X))
    data, options = (X[train], y[train], "variance"), (100, "sqrt", None, 3)
    forest, library = fit_forest(*data, *options, rng), sklearn_forest(*data, *options)[0]
    print("\n== What do many trees know that one does not? ==\n\n  trees   R2 on new rows")
    for count in (1, 3, 10, 30, 100):
        score = r2_score(y[test], predict_forest(Forest(forest.trees[:count], None), X[test]))
        print(f"  {count:5}   {score:6.3f}  " + "#" * round(60 * max(score, 0)))
    rows, values = out_of_bag(forest, X[train])
    print(f"\n  out of bag, without test rows: {(score := r2_score(y[train][rows], values)):.3f}")
    model, counts = sklearn_forest(*data, 20, None, None, 10)
    same = predict_forest(fit_forest(*data, 20, None, None, 10, counts=counts), X[test])
    return beside(("out-of-bag", "R2 out of bag", score, library.oob_score_),
                  ("sums", "same bootstrap, new rows", same, model.predict(X[test])))
# Try: max_features=None in the first forest. By equation (7), what do you expect?
# %% [markdown]
"""
## Gradient boosting
A forest averages deep trees that know nothing of each other. Boosting adds up shallow ones, each
grown on what those before it still get wrong. Start with the best constant F, and repeat

    g = ∂loss/∂F        grow a regression tree on -g        F ← F + η · tree       (8)
This is gradient descent with a tree as the step, and a tree also answers for rows it has not
seen. Two losses, with their first two derivatives, where p = 1 / (1 + exp(-F)):

    squared    1/2 (y - F)²                   g = F - y        h = 1               (9)
    log        log(1 + exp(F)) - y F          g = p - y        h = p (1 - p)       (10)
F starts at the mean of y, or the log of its odds; without that start all predictions are off by
it. Each leaf takes a Newton step (for the squared error, the mean of -g again):

    leaf value = -Σ g / Σ h                                                        (11)
A small η needs more trees and does better on new rows. Unlike a forest, boosting overfits with
more trees: watch the error on held-out rows and stop where it is least.
"""
# %%
Boosting = namedtuple("Boosting", "loss start lr trees missing")  # missing: may X hold nan?

def mean_of(loss, F):
    """F itself, or for the log loss p = 1 / (1 + exp(-F)), written so that nothing overflows."""
    return F if loss == "squared" else np.exp(-np.logaddexp(0, -F))

def boost(y, loss, steps, lr, l2, missing, grow_one):
    """Equation (8). grow_one(g, h) returns a tree's nodes, and the index of each row's leaf."""
    if loss not in ("squared", "log"):
        raise ValueError(f"loss must be squared or log, not {loss!r}")
    check_number("steps", steps, least=1, integer=True)
    check_number("lr", lr, above=0)
    if loss == "log":
        check_labels(y[:, None], y, classes=2)
    mean, trees = y.mean(), []
    start = float(mean if loss == "squared" else np.log(mean / (1 - mean)))
    F = np.full(len(y), start)
    for _ in range(steps):
        p = mean_of(loss, F)
        g, h = p - y, np.ones(len(y)) if loss == "squared" else p * (1 - p)  # (9) and (10)
        nodes, leaf = grow_one(g, h)
        G, H = (np.bincount(leaf, v, minlength=len(nodes)) for v in (g, h))
        value = np.divide(-G, H + l2, out=np.zeros(len(G)), where=H > 1e-150)  # (11) and (13)
        F += lr * value[leaf]
        for t, v in zip(nodes, value.tolist()):
            t.value = v
        trees.append(nodes[0])
    return Boosting(loss, start, lr, trees, missing)

def fit_boosting(X, y, loss="squared", steps=100, lr=0.1, max_depth=3, min_samples_leaf=1):
    """Gradient boosting (Friedman, 2001). loss is "squared", or "log" for labels 0 and 1."""
    X, targets, limits = check_fit(X, y, "variance", max_depth, min_samples_leaf)
    columns, w = sort_columns(X), np.ones(len(X), int)  # sorted once for all: only g changes
    return boost(targets[0], loss, steps, lr, 0.0, False,
                 lambda g, h: grow(*columns, -g[None], "variance", limits, w))

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
    return mean_of(model.loss, F)

def sklearn_boosting(X, y, loss="squared", steps=100, lr=0.1, max_depth=3, min_samples_leaf=1):
    """The library version: steps is `n_estimators`. It sorts anew in every node, though X never
    changes; we sort once. (For stumps, a grower of one level alone would take half our time.)"""
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
    kind = GradientBoostingRegressor if loss == "squared" else GradientBoostingClassifier
    options = dict(max_depth=max_depth, min_samples_leaf=min_samples_leaf, random_state=0)
    return kind(n_estimators=steps, learning_rate=lr, **options).fit(X, y)

def friedman_data(rng, n):
    """Friedman's (1991) function of five features, noise of variance 1, and five idle features."""
    X = rng.uniform(size=(n, 10)).astype(np.float32).astype(float)
    y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2
    return X, y + 10 * X[:, 3] + 5 * X[:, 4] + rng.normal(size=n)

def demo_boosting(plot=False):
    """The error on new rows, stage by stage, for stumps and for trees of depth 3."""
    (X, y), (new_X, new_y) = (friedman_data(np.random.default_rng(seed), 1000) for seed in (2, 3))
    print("\n== How does the error fall from tree to tree? (the noise alone is 1) ==\n")
    lines, shown = [], (0, 1, 10, 40, 80)
    print("  trees   " + "".join(f"{s:8}" for s in shown))
    for depth, loss in [(1, "squared"), (3, "squared"), (1, "log"), (3, "log")]:
        target, steps = (y, 80) if loss == "squared" else ((y > 15).astype(int), 20)
        options = (loss, steps, 0.2, depth, 20)
        stages = np.array(list(staged_scores(fit_boosting(X, target, *options), new_X)))
        if loss == "squared":
            print(f"  depth {depth} " + "".join(f"{mse(new_y, stages[s]):8.2f}" for s in shown))
        model = sklearn_boosting(X, target, *options)
        staged = model.staged_predict if loss == "squared" else model.staged_decision_function
        theirs = np.array(list(staged(new_X))).reshape(steps, -1)
        lines.append(("boosting", f"{steps} stages, {loss}, depth {depth}", stages[1:], theirs))
    return beside(*lines)
# Try: lr=1.0. Which of the two depths suffers more, and why?
# %% [markdown]
"""
## Second-order boosting
Gradient boosting grows trees by g alone and mends their leaves. XGBoost (Chen and Guestrin, 2016)
grows them by both derivatives: expand the loss to second order around F, and price leaf values v:

    J(tree) = Σᵢ [ gᵢ v(xᵢ) + 1/2 hᵢ v(xᵢ)² ] + λ/2 Σ_leaves v²                   (12)
A leaf with sums G and H is a parabola in v. Its lowest point, what that takes off J, and so
(twice) the gain of a split, in every node and not at the root alone:

    v = -G / (H + λ)              fall = 1/2 G² / (H + λ)                          (13)
    gain = G_L² / (H_L + λ) - G² / (H + λ) + G_R² / (H_R + λ)                      (14)
Bins: try at most 255 thresholds per feature, at quantiles. A node is summed up by its histogram
of G, H and counts per bin, and only the smaller of two children needs counting: the other is the
parent's minus that one. Missing values have a bin of their own; each split tries them on both sides
and keeps the better one. A feature without gaps in training sends later gaps to the majority. λ
adds to H: with the log loss, sure leaves have a small H and shrink most. XOR defeats it.
"""
# %%
def find_bins(X, bins):
    """Thresholds per feature: between its distinct values, or at quantiles if those are many."""
    thresholds, percent = [], np.linspace(0, 100, bins + 1)[1:-1]
    for x in X.T:
        values = np.unique(x := x[~np.isnan(x)])
        thresholds.append(values[:-1] / 2 + values[1:] / 2 if len(values) <= bins else
                          np.unique(np.percentile(x, percent, method="averaged_inverted_cdf")))
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
    """Equation (14) at every bin: gain, feature, last bin on the left, does nan go left; (q,).
    gaps (d,) tells which features have missing values, in the last bin of sums (3, d, q, B)."""
    total, left, gains = sums.sum(axis=-1, keepdims=True), np.cumsum(sums[..., :-1], axis=-1), []
    for left in [left, (left + sums[..., -1:])[..., ::-1]][: 1 + gaps.any()]:  # nan right, left
        right = total - left
        a, b, c = (G * (G / np.maximum(H + l2, 1e-15)) for G, H, _ in (left, total, right))
        gain, least = a - b + c, np.minimum(left, right)
        gain[(least[1] < min_hessian) | (least[2] < min_samples_leaf)] = -np.inf
        gains.append(gain)
    gains, B = np.concatenate(gains, axis=-1).swapaxes(0, 1), left.shape[-1]  # (q, d, B or 2B)
    best = gains.reshape(len(gains), -1).argmax(axis=1)
    feature, at = np.divmod(best, gains.shape[2])
    gain, nan_left = gains[range(len(gains)), feature, at], at >= B
    return gain, feature, np.where(nan_left, 2 * B - 1 - at, at), nan_left

def grow_newton(binned, thresholds, gaps, bins, g, h, max_depth, l2, min_samples_leaf, min_hessian):
    """Grow a tree on histograms, level by level. Returns its nodes, and each row's leaf (n,)."""
    d, n = binned.shape
    nodes, leaf, rows, node = [Node(0.0, n, d=d)], np.zeros(n, int), np.arange(n), np.zeros(n, int)
    level, sums = nodes[:], histograms(binned, rows, node, 1, bins, g, h)
    for below in reversed(range(max_depth or n)):  # levels that may follow
        gain, feature, cut, nan_left = best_bins(sums, gaps, l2, min_samples_leaf, min_hessian)
        asks = gain > 0
        rows, node = rows[asks[node]], (np.cumsum(asks) - 1)[node[asks[node]]]
        parents = [t for t, ask in zip(level, asks) if ask]
        feature, cut, nan_left, s = feature[asks], cut[asks], nan_left[asks], len(parents)
        at = binned[feature[node], rows]
        child = node + s * np.where(at == bins, ~nan_left[node], at > cut[node])
        sizes = np.bincount(child, minlength=2 * s)
        larger_left = sizes[:s] > sizes[s:]
        level = [Node(0.0, size) for size in sizes.tolist()]
        values = np.array([np.append(thresholds[j], np.inf)[c] for j, c in zip(feature, cut)])
        link(parents, feature, values, np.where(gaps[feature], nan_left, larger_left), level)
        leaf[rows] = len(nodes) + child
        nodes += level
        if s == 0 or below == 0:
            break
        few = np.flatnonzero((child >= s) == larger_left[node])  # the rows of smaller children
        part = histograms(binned, rows[few], node[few], s, bins, g, h)
        pick, pair = larger_left[:, None], (sums[:, :, asks] - part, part)
        sums, node = np.concatenate([np.where(pick, *pair), np.where(pick, *pair[::-1])], 2), child
    return nodes, leaf

def fit_newton_boosting(X, y, loss="squared", steps=100, lr=0.1, max_depth=6, l2=1.0,
                        min_samples_leaf=20, bins=255, min_hessian=1e-3):  # fmt: skip
    """XGBoost's objective on histograms (LightGBM: Ke and others, 2017). X may hold nan.
    Each side of a split keeps min_samples_leaf rows, and a sum of h of min_hessian."""
    check_number("bins", bins, least=2, most=255, integer=True)
    check_number("l2", l2, least=0)
    check_number("min_hessian", min_hessian, least=0)
    X = check_array("X", X, ndim=2, allow_nan=True)
    _, (y,), _ = check_fit(np.nan_to_num(X), y, "variance", max_depth, min_samples_leaf)
    thresholds, gaps = find_bins(X, bins), np.isnan(X).any(axis=0)
    binned = np.array([np.searchsorted(cuts, x) for cuts, x in zip(thresholds, X.T)])
    binned = np.where(np.isnan(X.T), bins, binned).astype(np.uint8)  # (d, n)
    def grow_one(g, h):  # sums of float32 numbers are exact in float64: equal gains stay equal
        return grow_newton(binned, thresholds, gaps, bins, np.float32(g), np.float32(h) if loss
                           == "log" else None, max_depth, l2, min_samples_leaf, min_hessian)
    return boost(y, loss, steps, lr, l2, True, grow_one)

def sklearn_newton_boosting(X, y, loss="squared", steps=100, lr=0.1, max_depth=6, l2=1.0,
                            min_samples_leaf=20, bins=255):  # fmt: skip
    """The library version, without early stopping and its limit on leaves. It keeps g and h in
    float32: equal trees, leaves to 7 digits. Its compiled loops take a third of our time."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    kind = HistGradientBoostingRegressor if loss == "squared" else HistGradientBoostingClassifier
    return kind(max_iter=steps, learning_rate=lr, max_depth=max_depth, l2_regularization=l2,
                min_samples_leaf=min_samples_leaf, max_bins=bins, max_leaf_nodes=None,
                early_stopping=False).fit(X, y)

def demo_newton_boosting(plot=False):
    """Values that are missing for a reason: to which side do the trees send them?"""
    rng, lines = np.random.default_rng(4), []
    X, y = friedman_data(rng, 1200)
    X[X[:, 3] > 0.7, 3] = np.nan  # y grows with x[3], but its largest values are not written down
    train, test = train_test_split(rng, len(X), 0.33)
    print("\n== Where do missing values go, if only large ones are missing? ==\n")
    for loss, target in [("squared", y), ("log", (y > 15).astype(int))]:
        options = (X[train], target[train], loss, 20, 0.1, 4, 2.0)
        ours, model = fit_newton_boosting(*options), sklearn_newton_boosting(*options)
        left = [t.missing_left for root in ours.trees for t in list_nodes(root) if t.feature == 3]
        print(f"  {loss:8} {len(left)} questions on x[3]: a gap goes left in {sum(left)} of them")
        theirs = model.predict(X[test]) if loss == "squared" else model.decision_function(X[test])
        (*_, F), spread = staged_scores(ours, X[test]), np.ptp(theirs)
        lines.append(("newton boosting", f"20 trees, {loss}", F / spread, theirs / spread))
    return beside(*lines)
# Try: let x[3] be missing at random. Where do its gaps go then?
# %% [markdown]
"""
## Categorical features
Trees ask "at most t?", but what is the order of red, green and blue? Three ways to numbers:

- One-hot: a 0/1 column per category. Honest, and too wide for 10,000 categories.
- Ordinal: the position in the alphabet, an order that means nothing. An unknown one becomes -1.
- Target encoding: the mean of y over the n_c rows of category c, pulled towards the mean of all
  as if m more of its rows had an average y. Unknown ones get mean(y).

      code(c) = (n_c mean_c(y) + m mean(y)) / (n_c + m)                            (15)
The leak: in (15) each row's own y is part of its code. With one row and m = 0 the code is y, and
pure noise looks like a good model until new rows come. The cure: code each row by the other folds.
"""
# %%
def check_column(column):
    """A column (n,) of text or of finite numbers."""
    text = np.asarray(column)
    is_text = (text.dtype.kind, text.ndim) == ("U", 1) and len(text)
    return text if is_text else check_array("column", column, ndim=1)

def encode_ordinal(column, categories):
    """The position of each value in the sorted categories (k,), or -1 if it is not there: (n,)."""
    column, categories = check_column(column), check_column(categories)
    at = np.minimum(np.searchsorted(categories, column), len(categories) - 1)
    return np.where(categories[at] == column, at, -1)

def encode_one_hot(column, categories):
    """A 0/1 column per category (n, k); a value that is not there gets a row of zeros."""
    return (encode_ordinal(column, categories)[:, None] == np.arange(len(categories))).astype(float)

def fit_target_encoding(column, y, m=1.0):
    """Equation (15): the categories (k,), their codes (k,), and the code of all others."""
    column = check_column(column)
    _, y = check_Xy(np.zeros((len(column), 1)), y)
    check_number("m", m, least=0)
    categories, at = np.unique(column, return_inverse=True)
    return categories, (np.bincount(at, y) + m * y.mean()) / (np.bincount(at) + m), y.mean()

def encode_target(column, encoding):
    """The code of each value, (n,)."""
    at = encode_ordinal(column, encoding[0])
    return np.where(at < 0, encoding[2], encoding[1][at])

def encode_out_of_fold(column, y, folds, m=1.0):
    """Each row's code from the rows of the other folds, given as pairs (train, test): (n,)."""
    column, codes = check_column(column), np.zeros(np.shape(column))
    try:
        parts = [*map(np.hstack, folds), np.hstack([test for _, test in folds])]
    except (TypeError, ValueError):
        parts = [[]]
    if not all(np.array_equal(np.sort(part), np.arange(len(column))) for part in parts):
        raise ValueError("folds must be pairs (train, test) of all rows, each row in one test")
    for train, test in folds:
        encoding = fit_target_encoding(column[train], np.asarray(y)[train], m)
        codes[test] = encode_target(column[test], encoding)
    return codes

def sklearn_encoders(column, y, folds, m=1.0):
    """The library version, fitted; its out-of-fold codes come from fit_transform, not transform."""
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder
    X, target = column[:, None], TargetEncoder(smooth=m, target_type="continuous", cv=folds)
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(X)
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(X)
    return one_hot, ordinal, target, target.fit_transform(X, y)[:, 0]

def demo_categories(plot=False):
    """Pure noise, 200 categories: how good does a feature look that knows nothing?"""
    rng = np.random.default_rng(5)
    column, y = np.array([f"c{i % 200:03}" for i in rng.permutation(600)]), rng.permutation(600) % 2
    new, new_y, folds = np.append(column[1:], "?"), rng.permutation(600) % 2, k_fold(600, 5, rng)
    encoding, safe = fit_target_encoding(column, y), encode_out_of_fold(column, y, folds)
    (names, _, _), code, X = encoding, encode_target(new, encoding), new[:, None]
    print("\n== How well does a category that means nothing predict a coin? (ROC AUC) ==\n")
    print(f"  coded with each row's own y  {roc_auc(y, encode_target(column, encoding)):.3f}")
    print(f"  coded out of fold            {roc_auc(y, safe):.3f}")
    print(f"  new rows                     {roc_auc(new_y, code):.3f}")
    one_hot, ordinal, target, theirs = sklearn_encoders(column, y, folds)
    return beside(("sums", "one-hot", encode_one_hot(new, names), one_hot.transform(X)),
                  ("sums", "ordinal", encode_ordinal(new, names), ordinal.transform(X)[:, 0]),
                  ("sums", "target", code, target.transform(X)[:, 0]),
                  ("sums", "target, out of fold", safe, theirs))
# Try: give each category 30 rows instead of 3. How large is the leak then?
# %% [markdown]
"""
## Importance
Which features does a model use? A tree can be asked directly: credit the gain (3) of every split
to its feature, and share out 100% per tree. A forest takes the mean over its trees.

    impurity importance(j) = Σ gain of splits on j / Σ gain of all splits          (16)
But training rows flatter: a useless feature of many distinct values offers many thresholds, and
one fits the noise. Better ask any model: how much worse is it if a held-out column is shuffled?

    permutation importance(j) = score - score with column j shuffled               (17)
It tells what this model uses: two equal columns stand in for each other, and may look idle both.
"""
# %%
def impurity_importance(trees):
    """Equation (16), the mean over a list of roots: (d,). A tree without questions has no say."""
    shares = np.zeros(trees[0].d)
    for root in trees:
        gains = np.zeros(root.d)
        for t in (t for t in list_nodes(root) if t.left is not None):
            whole, left, right = (s.n * s.impurity for s in (t, t.left, t.right))
            gains[t.feature] += whole - left - right  # equation (3)
        shares += gains / (gains.sum() or 1)
    return shares / (shares.sum() or 1)

def permutation_importance(predict, X, y, score, permutations):
    """Equation (17) for each of the permutations of the rows (repeats, n): (d, repeats)."""
    (X, y), orders = check_Xy(X, y), check_array("permutations", permutations, ndim=2)
    if not all(np.array_equal(np.sort(order), np.arange(len(X))) for order in orders):
        raise ValueError(f"permutations must be rows, each with the numbers 0 to {len(X) - 1}")
    whole, each, orders = score(y, predict(X)), np.arange(X.shape[1]), orders.astype(int)
    return np.array([[whole - score(y, predict(np.where(each == j, X[order], X)))
                      for order in orders] for j in each])

def sklearn_permutations(n, repeats, seed=0):
    """The library version: its permutations, (repeats, n), seen by shuffling row numbers."""
    from sklearn.inspection import permutation_importance as theirs
    X, y, seen = np.arange(n)[:, None], np.arange(n), []
    theirs(sklearn_tree(X, y, "variance", 1), X, y, n_repeats=repeats, random_state=seed,
           scoring=lambda model, X, y: seen.append(X[:, 0].copy()) or 0.0)
    return np.array(seen[1:])

def demo_importance(plot=False):
    """Friedman's function uses the first five of ten features. Who credits the others?"""
    from sklearn.inspection import permutation_importance as sklearn_importance
    (X, y), new = (friedman_data(np.random.default_rng(seed), 400) for seed in (5, 6))
    root, model = fit_tree(X, y, "variance", None, 10), sklearn_tree(X, y, "variance", None, 10)
    shares, orders = impurity_importance([root]), sklearn_permutations(400, 10)
    drops = permutation_importance(lambda X: predict_tree(root, X), *new, r2_score, orders)
    theirs = sklearn_importance(model, *new, n_repeats=10, random_state=0).importances
    print("\n== Which features matter, and which measure credits the idle ones? ==\n\n"
          "        impurity  permutation, on new rows")
    for j, (share, drop) in enumerate(zip(shares, drops.mean(axis=1))):
        print(f"  x[{j}] {share:9.3f} {drop:12.3f}" + "   idle" * (j > 4))
    return beside(("sums", "impurity", shares, model.feature_importances_),
                  ("sums", "permutation", drops, theirs))
# Try: add a copy of x[3] as a column. What happens to the importance of both?
# %%
def encode_table(columns, targets, train, folds):
    """{name: column (n,)} as X (n, features), texts by their codes for each of the targets (n,)."""
    parts = []
    for column in columns.values():
        if column.dtype.kind == "f":  # if no training row has a number, it says nothing
            parts.append(column if np.isfinite(column[train]).any() else np.zeros(len(column)))
        for y in targets if column.dtype.kind == "U" else []:
            parts.append(encode_target(column, fit_target_encoding(column[train], y[train])))
            parts[-1][train] = encode_out_of_fold(column[train], y[train], folds)
    return np.column_stack(parts)

def evaluate_table(path, target, plot=False):
    """Your own table: `python tree_models.py --csv FILE --target COLUMN` judges three models on a
    quarter of the rows, kept back before anything is learned; scores (4, 2), scratch and library.
    A target of text, or of at most ten different numbers, is a class. Text becomes target codes,
    out of fold on training rows. Gaps stay gaps for boosting; for the others they get the mean."""
    (columns, y, labels), rng = read_table(path, target), np.random.default_rng(0)
    classes = labels is not None
    train, test = stratified_k_fold(y, 4)[0] if classes else train_test_split(rng, len(y))
    how, loss, score = ("gini", "log", accuracy) if classes else ("variance", "squared", r2_score)
    targets = [y == c for c in range(len(labels))] if classes and len(labels) > 2 else [y]
    X = encode_table(columns, targets, train, k_fold(len(train), 5, rng))
    filled, known = np.where(np.isnan(X), np.nanmean(X[train], axis=0), X), y[train]
    data, new = (filled[train], known, how), filled[test]
    progress(f"growing trees on {len(train)} rows and {X.shape[1]} features ...")
    p = [predict_boosting(fit_newton_boosting(X[train], t[train], loss), X[test]) for t in targets]
    boosted = np.argmax(p if len(p) > 1 else [1 - p[0], p[0]], axis=0) if classes else p[0]
    same = np.full(len(test), np.bincount(known).argmax() if classes else known.mean())
    ours = predict_tree(fit_tree(*data, None, 5), new), predict_forest(fit_forest(*data), new)
    theirs = [m.predict(new) for m in (sklearn_tree(*data, None, 5), sklearn_forest(*data)[0])]
    theirs.append(sklearn_newton_boosting(X[train], known, loss).predict(X[test]))
    print(f"{path}: {score.__name__} on {len(test)} of {len(y)} rows\n\n{'':20}scratch  library")
    pairs = zip([same, *ours, boosted], [same, *theirs])
    scores = [[score(y[test], answer) for answer in pair] for pair in pairs]
    for name, pair in zip(["the same for all", "tree", "forest", "boosting"], scores):
        print(f"  {name:16} {pair[0]:8.3f} {pair[1]:8.3f}")
    return scores

# %%
if __name__ == "__main__":
    run_chapter("One question at a time: trees, forests and boosting, and scikit-learn's beside.", [
        demo_by_hand, demo_classification_tree, demo_regression_tree, demo_pruning, demo_forest,
        demo_boosting, demo_newton_boosting, demo_categories, demo_importance], evaluate_table)

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "scikit-learn", "matplotlib"]
# ///
