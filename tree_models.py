# %% [markdown]
"""
# Tree models: what can be learned by asking one question at a time?

A tree asks "is feature j at most 2.45?" until the examples that are left agree. Which questions
are good, when should it stop, and why do many weak trees together beat one good tree?

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
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from utils import (accuracy, check_array, check_labels, check_number, check_X, check_Xy, compare,
                   k_fold, log_loss, mse, progress, r2_score, read_table, report, roc_auc,
                   run_chapter, save_plot, stratified_k_fold, train_test_split)  # fmt: skip

ALLOWED = {
    "sums": (1e-10, "the same sums in another order: only rounding differs"),
    "out-of-bag": (0.02, "other random draws move the score of 100 trees by about 0.01"),
    "boosting": (1e-8, "rounding adds up over the trees"),
    "newton boosting": (1e-6, "of the spread of F: the library keeps g and h in float32"),
}

def beside(*lines):
    """Compare and report lines of (row of ALLOWED, what, scratch, library)."""
    return report([compare(what, ours, theirs, *ALLOWED[row]) for row, what, ours, theirs in lines])
# %% [markdown]
"""
## A tree by hand: what does a tree do with an example?
Before any algorithm grows a tree, we write one. Inner nodes hold questions, leaves hold answers,
and an example walks down from the root:

    go left if x[feature] ≤ threshold, else right                                  (1)

Two questions about petals tell three kinds of iris apart: 144 of 150 are right. Trees need no
scaling, as (1) sees only the order of values. No function here calls itself, as trees may be deeper
than the 1000 nested calls that Python allows. All rows walk down together.
"""
# %%
@dataclass(slots=True, eq=False, repr=False)
class Node:
    """A leaf if `left` is None. value is a number, or the share of each class (k,)."""
    value: object
    n: float = 1.0  # W(t), the weight of its rows: a count if all weigh 1
    impurity: float = 0.0
    feature: int = None
    threshold: float = None
    left: "Node" = None
    right: "Node" = None
    missing_left: bool = False
    d: int = None  # the number of features, if it is known

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
    fields = [(t.left is not None, t.feature or 0, t.threshold or 0, t.missing_left) for t in nodes]
    asks, feature, threshold, missing_left = map(np.array, zip(*fields))
    d = root.d or max(X.shape[1], feature.max() + 1)
    if X.shape[1] != d:
        raise ValueError(f"X must have {d} feature(s), as the tree has, not {X.shape[1]}")
    left = 2 * np.cumsum(asks) - 1  # where the left child of a question stands
    at, rows = np.zeros(len(X), int), np.arange(len(X))
    while len(rows := rows[asks[at[rows]]]):  # keep those that are not in a leaf, until none is
        here = at[rows]  # below, a.take(i) is a[i], and faster
        x = X.ravel().take(rows * d + feature.take(here))  # X[rows, feature[here]]
        right = x > threshold.take(here)
        if missing:  # nan > threshold is False: without this line every gap would go left
            right |= np.isnan(x) & ~missing_left.take(here)
        at[rows] = left.take(here) + right
    return np.array([t.value for t in nodes])[at]

def decide(values):
    """Shares of classes (n, k) become the label of the largest; numbers (n,) stay."""
    return values.argmax(axis=1) if values.ndim == 2 else values

def predict_tree(root, X):
    """A label or a number per row: (n,). By levels, in two to three times the library's time."""
    return decide(tree_values(root, X))

def show_tree(root, names=None, depth=10):
    """The tree as text: its first `depth` levels, and below them only counts."""
    lines, todo = [], [(root, 0, "")]
    while todo:
        t, level, text = todo.pop()
        if t.left is None:
            answer = f"class {np.argmax(t.value)}" if np.ndim(t.value) else f"{t.value:.4g}"
            lines.append(f"{text}{answer}  (n = {t.n:g})")
        elif level == depth:
            lines.append(f"{text}... {len(list_nodes(t)) // 2} more question(s)")
        else:
            name, below = names[t.feature] if names else f"x[{t.feature}]", "|  " * (level + 1)
            lines.append(f"{text}{name} <= {t.threshold:.4g}?")
            todo += [(t.right, level + 1, below + "no:  "), (t.left, level + 1, below + "yes: ")]
    return "\n".join(lines)

def demo_by_hand(plot=False):
    """Two questions about iris petals (real data), beside the tree that the library finds."""
    from sklearn.datasets import load_iris
    X, y = load_iris(return_X_y=True)
    setosa, versicolor, virginica = Node([1, 0, 0], 50), Node([0, 1, 0], 54), Node([0, 0, 1], 46)
    wide = Node([0, 0.5, 0.5], 100, feature=3, threshold=1.75, left=versicolor, right=virginica)
    root = Node([1 / 3] * 3, 150, feature=2, threshold=2.45, left=setosa, right=wide)
    labels, library = predict_tree(root, X), sklearn_tree(X, y, max_depth=2)
    print("\n== Can two questions tell three kinds of iris apart? ==\n")
    print(show_tree(root, ["sepal length", "sepal width", "petal length", "petal width"]))
    print(f"\n  right: {np.sum(labels == y)} of {len(y)}")
    return beside(("sums", "iris labels", labels, library.predict(X)))
# Try: ask for petal width first. Which flowers change their answer?

# %% [markdown]
"""
## Classification and regression trees: which question is the best?
The one whose sides are least mixed. How mixed a node is, its impurity, from the share pₖ of each
class, or for numbers from their distance to the node's mean:

    gini   I(t) = Σₖ pₖ (1 - pₖ)              entropy   I(t) = -Σₖ pₖ log₂ pₖ
    variance   I(t) = 1/W Σᵢ wᵢ (yᵢ - mean(t))²                                    (2)
    gain of a question = W I(t) - W_L I(tL) - W_R I(tR)                            (3)

Gini is a variance too: that of a 0/1 column per class, added up. And the gain in variance has a
short form. Let S be the sum of w (y - mean(t)) over the left rows, and so -S over the
right ones. Their own means take S²/W_L and S²/W_R off the two sides' sums of squares:

    gain = S²/W_L + S²/W_R = S² W / (W_L W_R)          added up over the columns   (4)

    y, x rising    0     0     6    10        mean 4
    y - mean      -4    -4     2     6
    S             -4    -8    -6     0
    gain        21.3    64    48              the best question parts 0 0 from 6 10

One running sum over the sorted rows scores all thresholds. As calls cost time, `grow` takes a level
at once: sort each feature once, keep a level's rows node by node, sorted inside each, and begin the
running sums anew at every node. Then divide: the rows that go left, and those that go right, are
still sorted. A leaf is pure (has one y), too deep, too small, or no question parts its rows.

**When it fails.** The search is greedy. On XOR (label 1 where two signs differ) no first question
gains anything, yet two levels do: so a gain of 0 is allowed. A full tree knows its training rows by
heart: that score says nothing of new rows. A mean never leaves the range of y: no tree extends a
trend. Trees are unstable: drop a few rows, and the first question and all below may change.
"""
# %%
def sort_columns(X):
    """Features as rows (d, n), and the row numbers that sort each, (d, n)."""
    Xt = np.ascontiguousarray(X.T)
    return Xt, np.argsort(Xt, axis=1, kind="stable")

def x_log_x(x):
    """x log2 x, and 0 at 0."""
    return x * np.log2(np.where(x > 0, x, 1))

Level = namedtuple("Level", "sizes starts node n_left W value impurity mixed away")
def describe(targets, w, rows, sizes, criterion):
    """What is known of a level: q nodes and their m rows, which stand node by node. Equation (2).
    targets (c, n) is y itself, or a 0/1 row per class; sizes (q,) is the number of rows of each."""
    starts = np.cumsum(sizes) - sizes  # the position of each node's first row (q,)
    node = np.repeat(np.arange(len(sizes)), sizes)  # the node at each position (m,)
    n_left = np.arange(len(rows)) - starts[node] + 1  # how many of its rows stand up to there (m,)
    here, weight = targets[:, rows], w[rows]  # (c, m) and (m,)
    W = np.add.reduceat(weight, starts)  # sums from each start to the next (q,)
    value = np.add.reduceat(weight * here, starts, axis=1) / W  # mean, or shares of classes (c, q)
    distance = here - value[:, node]  # (c, m)
    if criterion == "entropy":
        impurity = -x_log_x(value).sum(axis=0)  # (q,)
    else:
        impurity = np.add.reduceat(weight * distance**2, starts, axis=1).sum(axis=0) / W
    least = np.minimum.reduceat(here, starts, axis=1)
    mixed = (least < np.maximum.reduceat(here, starts, axis=1)).any(axis=0)
    if criterion == "gini" and len(targets) == 2:  # mirror images: keep one, with twice its S²
        distance = math.sqrt(2) * distance[:1]
    away = np.zeros((len(distance), len(w)))  # w (y - mean), which sum to S; by row: (c, n)
    away[:, rows] = weight * distance
    return Level(sizes, starts, node, n_left, W, value, impurity, mixed, away)

def running_sums(terms, order, level):
    """Sums of terms (n,) along each row of order (d, m) that begin anew at every node: (d, m)."""
    sums = np.cumsum(terms.take(order), axis=1)
    before = sums[:, level.starts - 1] * (level.starts > 0)  # nothing precedes the first node
    return sums - before.take(level.node, axis=1)

def gain_after(order, level, w, criterion):
    """(4) after each of the sorted rows (d, m), or (3) with entropy, W I = W log W - Σ N log N."""
    W = level.W[level.node]
    W_left = running_sums(w, order, level) if w.max() > 1 else level.n_left
    W_right = np.maximum(W - W_left, 1e-100)  # it is 0 at the end of a node
    gain = 0.0
    for away, share in zip(level.away, level.value):
        S = running_sums(away, order, level)
        if criterion == "entropy":
            N_left = S + W_left * share[level.node]  # the weight of this class on the left
            gain = gain + x_log_x(N_left) + x_log_x(W * share[level.node] - N_left)
        else:
            gain = gain + S**2
    if criterion == "entropy":
        return gain - x_log_x(W_left) - x_log_x(W_right) + W * level.impurity[level.node]
    return gain * (W / (W_left * W_right))

def best_splits(Xt, order, level, w, criterion, min_samples_leaf, max_features, rng):
    """The best question of each node: its gain, feature and threshold, (q,) each."""
    n, m, feature = Xt.shape[1], order.shape[1], np.arange(len(Xt))[:, None]
    if max_features < len(Xt):  # draw so many for each node, those that vary in it first
        ends = level.starts + level.sizes - 1
        constant = Xt[feature, order[:, level.starts]] == Xt[feature, order[:, ends]]  # (d, q)
        drawn = np.argsort(rng.random(constant.shape) + constant, axis=0)[:max_features]
        feature = drawn[:, level.node]  # (max_features, m)
        order = order[feature, np.arange(m)]
    x = Xt.ravel().take(feature * n + order)  # Xt[feature, order], sorted inside every node
    gain = gain_after(order, level, w, criterion)
    n_right = level.sizes[level.node] - level.n_left
    gain[:, np.minimum(level.n_left, n_right) < min_samples_leaf] = -np.inf
    np.copyto(gain[:, :-1], -np.inf, where=x[:, :-1] == x[:, 1:])  # equal values stay together
    top = gain.max(axis=0)  # (d, m) -> (m,)
    best = np.maximum.reduceat(top, level.starts)  # (q,)
    hits = np.flatnonzero(top == best[level.node])
    at = hits[np.searchsorted(hits, level.starts)]  # where each node first has its best gain
    row = gain[:, at].argmax(axis=0)
    low, high = x[row, at], x[row, np.minimum(at + 1, m - 1)]
    middle = low / 2 + high / 2
    threshold = np.where(middle < high, middle, low)  # rounding may reach high
    return best, np.broadcast_to(feature, x.shape)[row, at], threshold

def divide(Xt, order, level, asks, feature, threshold):
    """Equation (1) for the rows of a level: the sorted rows of the next one, and its sizes."""
    rows, node = order[0], level.node
    right = Xt[feature[node], rows] > threshold[node]
    side = np.zeros(Xt.shape[1], np.int8)  # 1 for left, 2 for right, 0 for rows in a leaf
    side[rows] = np.where(asks[node], 1 + right, 0)
    went = side.take(order).ravel()
    parts = [np.compress(went == s, order).reshape(len(order), -1) for s in (1, 2)]
    n_right = np.bincount(node[right], minlength=len(asks))
    return np.hstack(parts), np.append((level.sizes - n_right)[asks], n_right[asks])

def grow(Xt, order, targets, criterion, limits, weights, max_features=math.inf, rng=None):
    """Grow a tree for each row of weights (b, n), all together: their nodes, the b roots first, and
    the index of each row's leaf (b n,). Each tree has a copy of the rows, the second from n on."""
    (max_depth, min_samples_leaf, decrease), (b, n) = limits, weights.shape
    drawn = [order if w.all() else order[w[order] > 0].reshape(len(Xt), -1) for w in weights]
    order = np.hstack([rows + i * n for i, rows in enumerate(drawn)])
    Xt, targets, w = np.tile(Xt, b), np.tile(targets, b), weights.ravel()
    sizes = np.count_nonzero(weights, axis=1)
    nodes, leaf, questions = [], np.zeros(b * n, int), []
    for depth in range(n):
        level = describe(targets, w, order[0], sizes, criterion)
        values = level.value[0].tolist() if criterion == "variance" else level.value.T
        new = [Node(*t, d=len(Xt)) for t in zip(values, level.W.tolist(), level.impurity.tolist())]
        for (t, j, border), left, right in zip(questions, new, new[len(questions) :]):
            t.feature, t.threshold, t.left, t.right = j, border, left, right
        leaf[order[0]] = len(nodes) + level.node
        nodes += new
        if depth == max_depth or not level.mixed.any():
            break
        gain, feature, threshold = best_splits(
            Xt, order, level, w, criterion, min_samples_leaf, max_features, rng)
        worth = np.maximum(gain, 0) >= (decrease - 1e-15) * nodes[0].n  # rounding may go below 0
        asks = level.mixed & (gain > -np.inf) & worth
        questions = [(new[i], int(feature[i]), float(threshold[i])) for i in np.flatnonzero(asks)]
        sorted_rows = order[:1] if depth + 1 == max_depth else order  # leaves need none
        order, sizes = divide(Xt, sorted_rows, level, asks, feature, threshold)
    return nodes, leaf

def check_fit(X, y, criterion, max_depth, min_samples_leaf, min_impurity_decrease=0.0):
    """X, the targets (c, n) of `describe`, and the limits of growth, all of them checked."""
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
    (variance). Each split must take min_impurity_decrease off the mean impurity of all rows."""
    X, Y, limits = check_fit(X, y, criterion, max_depth, min_samples_leaf, min_impurity_decrease)
    return grow(*sort_columns(X), Y, criterion, limits, np.ones((1, len(X)), int))[0][0]

def sklearn_tree(X, y, criterion="gini", max_depth=None, min_samples_leaf=1, seed=0, **options):
    """The library version: variance is `squared_error`, alpha `ccp_alpha`. It keeps X in float32,
    takes values closer than 1e-7 as equal, and picks at random between splits of equal gain."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
    kind = DecisionTreeRegressor if criterion == "variance" else DecisionTreeClassifier
    options |= dict(max_depth=max_depth, min_samples_leaf=min_samples_leaf, random_state=seed)
    return kind(criterion=criterion.replace("variance", "squared_error"), **options).fit(X, y)

def demo_trees(plot=False):
    """A noisy wave and its staircase, with 10 rows per leaf; and where is the wave above 0.5?"""
    rng = np.random.default_rng(1)
    X = rng.uniform(0, 6, size=(240, 1)).astype(np.float32).astype(float)
    y = np.sin(X[:, 0]) + 0.2 * rng.normal(size=240)
    root, library = fit_tree(X, y, "variance", None, 10), sklearn_tree(X, y, "variance", None, 10)
    stairs = predict_tree(root, X)
    print("\n== How does a staircase follow a wave? ==\n")
    for i in np.argsort(X[:, 0])[::16]:
        print(f"  x = {X[i, 0]:.1f}  {stairs[i]:5.2f}  " + " " * round(15 + 12 * stairs[i]) + "#")
    if plot:
        save_plot("tree_models_trees.png", lambda ax: (
            ax.plot(X, y, ".", X, stairs, "_"), ax.set(xlabel="x", ylabel="y, and the stairs")))
    cuts = sorted(t.threshold for t in list_nodes(root) if t.left is not None)
    theirs = np.sort(library.tree_.threshold[library.tree_.children_left >= 0])
    lines = [("sums", f"{len(cuts)} thresholds", cuts, theirs),
             ("sums", "the stairs", stairs, library.predict(X))]
    for how in ["gini", "entropy"]:
        root, library = fit_tree(X, y > 0.5, how, 2), sklearn_tree(X, y > 0.5, how, 2)
        lines.append(("sums", f"shares, {how}", tree_values(root, X), library.predict_proba(X)))
    print("\n  Where is y above 0.5? (by entropy)\n\n" + show_tree(root))
    return beside(*lines)
# Try: predict at x = 20. Before you do: which stair will answer?

# %% [markdown]
"""
## Pruning: when should a tree stop?
Early is short-sighted (XOR). Let it grow too large, then cut back what is not worth α a leaf:

    R(T) = Σ_leaves r(t) + α · (number of leaves)      r(t) = W(t) I(t) / W(root)  (5)

As α rises, the smallest subtree that minimises R only loses branches (Breiman and others, 1984,
chapter 3). As a function of α, the least R of the branch below t is a chain of straight lines cost
+ α · leaves, which bends where a part falls. A leaf t costs r(t) + α. Where both agree, t falls:

    α(t) = (r(t) - cost) / (leaves - 1)                                            (6)

with the cost and leaves of the line that holds there. Go up from the leaves and keep each branch's
bends in a heap. A bend above α(t) never happens, as t falls first: pop it.

**When it fails.** The error on the training rows always chooses α = 0: choose α on new rows.
"""
# %%
def collapse_alphas(root):
    """Equation (6) for each of list_nodes(root), and the root's bends: (α, leaves lost)."""
    nodes, heaps, alphas = list_nodes(root), {}, []
    for t in reversed(nodes):
        bends, alpha = [], math.inf
        if t.left is not None:
            few, bends = sorted([heaps.pop(id(t.left)), heaps.pop(id(t.right))], key=len)
            for bend in few:  # the smaller heap into the larger: n log² n steps
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

def friedman_data(rng, n):
    """Friedman's (1991) function of five features, noise of variance 1, and five idle features."""
    X = rng.uniform(size=(n, 10)).astype(np.float32).astype(float)
    y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2
    return X, y + 10 * X[:, 3] + 5 * X[:, 4] + rng.normal(size=n)

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
    path, middle = model.cost_complexity_pruning_path(X, y).ccp_alphas, float(alphas[-9:-7].mean())
    ours = predict_tree(prune_tree(root, middle), new_X)
    theirs = sklearn_tree(X, y, "variance", None, 10, ccp_alpha=middle).predict(new_X)
    return beside(("sums", f"{len(alphas)} prices", alphas, np.unique(path.round(12))),
                  ("sums", "new rows", ours, theirs))
# Try: min_samples_leaf=1, for each of the three 10s. Where is the best price then?

# %% [markdown]
"""
## Random forest: how do many trees know more than one?
A full tree is right on average and wrong in detail: another sample gives another tree. Averages
cancel such noise. If B trees have errors of variance σ² and correlation ρ (sigma, rho),

    variance of their average = ρ σ² + (1 - ρ) σ² / B                              (7)

More trees shrink the second term; only trees that differ shrink the first. Two tricks do it.
Bootstrap: each tree sees n rows drawn with replacement. A row drawn three times is not copied: it
gets weight 3 in (2) to (4), and counts as one row in min_samples_leaf. Random features: at every
split (not once per tree) only some may be asked, often √d, so that no feature opens every tree.

A tree leaves out (1 - 1/n)ⁿ ≈ 37% of the rows. Predict each row with just the trees that never saw
it, and you get an honest score without a test set: out of bag.
**When it fails.** What all trees get wrong stays wrong: an average extends no trend either.
"""
# %%
Forest = namedtuple("Forest", "trees counts")  # roots; how often each drew each row (trees, n)
def fit_forest(X, y, criterion="gini", trees=100, max_features="sqrt", max_depth=None,
               min_samples_leaf=1, rng=None, counts=None):  # fmt: skip
    """Random forest (Breiman, 2001). max_features is a number, "sqrt" of d, or None for all; rng
    draws the bootstrap, or counts (trees, n) gives it. "sqrt" takes 1.6 of the library's time."""
    X, targets, limits = check_fit(X, y, criterion, max_depth, min_samples_leaf)
    (n, d), rng = X.shape, np.random.default_rng(0) if rng is None else rng
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a generator, np.random.default_rng(seed), not {rng!r}")
    few = math.isqrt(d) if max_features == "sqrt" else max_features
    few = d if few is None else check_number("max_features", few, least=1, most=d, integer=True)
    check_number("trees", trees, least=1, integer=True)
    if counts is None:
        counts = [np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(trees)]
    draws = check_array("counts", counts, ndim=2)
    if draws.shape[1] != n or draws.min() < 0 or np.any(draws % 1) or 0 in draws.sum(axis=1):
        raise ValueError(f"counts must be (trees, {n}) whole numbers, and no tree without rows")
    columns, counts = sort_columns(X), draws.astype(int)
    roots, b = [], max(1, 2**20 // X.size)  # so many trees grow together: each copies the rows
    for some in (counts[i : i + b] for i in range(0, len(counts), b)):
        roots += grow(*columns, targets, criterion, limits, some, few, rng)[0][: len(some)]
    return Forest(roots, counts)

def predict_forest(forest, X):
    """The mean of the trees, or the label with the largest mean share: (n,)."""
    return decide(sum(tree_values(root, X) for root in forest.trees) / len(forest.trees))

def out_of_bag(forest, X):
    """The training rows that some tree left out, and what those trees predict there."""
    X, out = check_X(X, forest.trees[0].d), forest.counts == 0  # (trees, n)
    if len(X) != out.shape[1] or not out.any():
        raise ValueError(f"X must be the {out.shape[1]} training rows, some of them left out")
    rows = np.flatnonzero(out.any(axis=0))
    total = sum(tree_values(root, X).T * left_out for root, left_out in zip(forest.trees, out))
    return rows, decide((total / np.maximum(out.sum(axis=0), 1)).T[rows])  # .T: (k, n) or (n,)

def sklearn_forest(X, y, criterion="gini", trees=100, max_features="sqrt", max_depth=None,
                   min_samples_leaf=1, seed=0):  # fmt: skip
    """The library version, and its counts (trees, n), so that ours can grow from the same draws."""
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
    forest, (library, _) = fit_forest(*data, *options, rng), sklearn_forest(*data, *options)
    print("\n== What do many trees know that one does not? ==\n\n  trees   R2 on new rows")
    for count in [1, 3, 10, 30, 100]:
        score = r2_score(y[test], predict_forest(Forest(forest.trees[:count], None), X[test]))
        print(f"  {count:5}   {score:6.3f}  " + "#" * round(60 * max(score, 0)))
    rows, values = out_of_bag(forest, X[train])
    score = r2_score(y[train][rows], values)
    print(f"\n  out of bag, without test rows: {score:.3f}")
    model, counts = sklearn_forest(*data, 20, None, None, 10)
    same = predict_forest(fit_forest(*data, 20, None, None, 10, counts=counts), X[test])
    return beside(("out-of-bag", "R2 out of bag", score, library.oob_score_),
                  ("sums", "same bootstrap, new rows", same, model.predict(X[test])))
# Try: 300 trees in options and in the loop. By equation (7), how much can they still add?

# %% [markdown]
"""
## Gradient boosting: what does the next tree learn from the ones before?
A forest averages deep trees that know nothing of each other. Boosting adds up shallow ones, each
grown on what those before it still get wrong. Start with the best constant F, and repeat

    g = ∂loss/∂F        grow a regression tree on -g        F ← F + η · tree       (8)

This is gradient descent with a tree as the step, which also answers for rows it has not seen. Two
losses, with their first two derivatives, where p = 1 / (1 + exp(-F)):

    squared    1/2 (y - F)²                   g = F - y        h = 1               (9)
    log        log(1 + exp(F)) - y F          g = p - y        h = p (1 - p)       (10)

F starts at the mean of y, or the log of its odds, mean / (1 - mean), and predictions start there
too. Each leaf takes a Newton step (for the squared error, the mean of -g again):

    leaf value = -Σ g / Σ h                                                        (11)

**When it fails.** Unlike a forest, boosting overfits with more trees: watch the error on held-out
rows and stop where it is least. A small η needs more trees and does better on new rows.
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
        G, H = np.bincount(leaf, g, len(nodes)), np.bincount(leaf, h, len(nodes))
        H[H < 1e-150] = np.inf  # no leaf, or one that is sure: its value is 0
        value = -G / (H + l2)  # (11) and (13)
        F += lr * value[leaf]  # (8)
        for t, v in zip(nodes, value.tolist()):
            t.value = v
        trees.append(nodes[0])
    return Boosting(loss, start, lr, trees, missing)

def fit_boosting(X, y, loss="squared", steps=100, lr=0.1, max_depth=3, min_samples_leaf=1):
    """Gradient boosting (Friedman, 2001). loss is "squared", or "log" for labels 0 and 1."""
    X, targets, limits = check_fit(X, y, "variance", max_depth, min_samples_leaf)
    columns, w = sort_columns(X), np.ones((1, len(X)), int)  # sorted once: only g changes
    def grow_one(g, h):
        return grow(*columns, -g[None], "variance", limits, w)
    return boost(targets[0], loss, steps, lr, 0.0, False, grow_one)

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
    """The library version; steps: `n_estimators`. It sorts in every node: four times our time."""
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
    kind = GradientBoostingRegressor if loss == "squared" else GradientBoostingClassifier
    options = dict(max_depth=max_depth, min_samples_leaf=min_samples_leaf, random_state=0)
    return kind(n_estimators=steps, learning_rate=lr, **options).fit(X, y)

def demo_boosting(plot=False):
    """The error on new rows, stage by stage, for trees of depth 1 and of depth 3."""
    (X, y), (new_X, new_y) = (friedman_data(np.random.default_rng(seed), 1000) for seed in (2, 3))
    print("\n== How does the error fall from tree to tree? (squared: the noise alone is 1) ==\n")
    lines, shown = [], [0, 1, 10, 40, 80]
    print("  trees            " + "".join(f"{s:8}" for s in shown))
    for loss, depth in [("squared", 1), ("squared", 3), ("log", 1), ("log", 3)]:
        old, new, error = (y, new_y, mse) if loss == "squared" else (y > 15, new_y > 15, log_loss)
        options = (loss, 80, 0.2, depth, 20)
        stages = np.array(list(staged_scores(fit_boosting(X, old, *options), new_X)))
        errors = [error(new, mean_of(loss, stages[s])) for s in shown]
        print(f"  {loss:7} depth {depth}  " + "".join(f"{e:8.2f}" for e in errors))
        model = sklearn_boosting(X, old, *options)
        staged = model.staged_predict if loss == "squared" else model.staged_decision_function
        theirs = np.array(list(staged(new_X))).reshape(80, -1)
        lines.append(("boosting", f"80 stages, {loss}, depth {depth}", stages[1:], theirs))
    return beside(*lines)
# Try: lr=1.0 (the 0.2 in options). Which lines rise again before tree 80, and why?

# %% [markdown]
"""
## Second-order boosting: what do XGBoost and LightGBM add?
Gradient boosting grows trees by g alone and mends their leaves. XGBoost (Chen and Guestrin, 2016)
grows them by both derivatives: expand the loss to second order around F, and price leaf values v:

    J(tree) = Σᵢ [ gᵢ v(xᵢ) + 1/2 hᵢ v(xᵢ)² ] + λ/2 Σ_leaves v²                   (12)

In a leaf with sums G and H, J is a parabola in v. Its lowest point, what that takes off J, and
twice what a split of any node takes off:

    v = -G / (H + λ)              fall = 1/2 G² / (H + λ)                          (13)
    gain = G_L² / (H_L + λ) - G² / (H + λ) + G_R² / (H_R + λ)                      (14)

Bins: sort values into at most 255 bins, cut at quantiles. A node is summed up by its histogram of
G, H and counts per bin, and only the smaller of two children is counted: the other is the parent's
minus that one. Missing values have a bin of their own; each split tries them on both sides and
keeps the better one. A feature without gaps in training sends later gaps to the majority.
**When it fails.** Every split must gain, so exact XOR defeats it. A large λ mutes small leaves.
"""
# %%
MIN_HESSIAN = 1e-3  # each side of a split keeps at least this sum of h, as in the library
def find_bins(X, bins):
    """Thresholds per feature: between its distinct values, or at quantiles if those are many."""
    thresholds, percent = [], np.linspace(0, 100, bins + 1)[1:-1]
    for x in [x[~np.isnan(x)] for x in X.T]:
        cuts = (np.unique(x)[:-1] + np.unique(x)[1:]) / 2
        if len(cuts) >= bins:
            cuts = np.unique(np.percentile(x, percent, method="averaged_inverted_cdf"))
        thresholds.append(cuts)
    return thresholds

def histogram(binned, rows, g, h, bins):
    """Sums of g, of h, and counts over the rows, per feature and bin: (3, d, bins + 1)."""
    sums, g, h = np.empty((3, len(binned), bins + 1)), g[rows], h[rows]
    for j, column in enumerate(binned):
        at = column[rows]
        sums[:, j] = [np.bincount(at, weights, bins + 1) for weights in (g, h, None)]
    return sums

def best_bin(sums, l2, min_samples_leaf):
    """Equation (14) at every bin: gain, feature, last bin on the left, does nan go left?"""
    total, bins = sums.sum(axis=2, keepdims=True), sums.shape[2] - 1  # the last one is for nan
    left = np.cumsum(sums[:, :, :-1], axis=2)  # (3, d, bins): nan goes right
    if sums[2, :, -1].any():  # behind that, from the last bin to the first: nan goes left
        left = np.concatenate([left, (left + sums[:, :, -1:])[:, :, ::-1]], axis=2)
    right = total - left
    def fall(G, H, n):  # twice that of equation (13)
        return G * (G / np.maximum(H + l2, 1e-15))
    gain = fall(*left) - fall(*total) + fall(*right)  # (d, bins) or (d, 2 bins)
    _, H, n = np.minimum(left, right)
    gain[(H < MIN_HESSIAN) | (n < min_samples_leaf)] = -np.inf
    j, at = divmod(int(gain.argmax()), gain.shape[1])
    return gain[j, at], j, at if at < bins else 2 * bins - 1 - at, at >= bins

def grow_newton(binned, thresholds, gaps, g, h, bins, max_depth, l2, min_samples_leaf):
    """Grow a tree on histograms, node by node. Returns its nodes, and each row's leaf (n,)."""
    d, n = binned.shape
    nodes, leaf, rows = [Node(0.0, n, d=d)], np.zeros(n, int), np.arange(n)
    todo = [(nodes[0], 1, rows, histogram(binned, rows, g, h, bins))]
    while todo:
        t, depth, rows, sums = todo.pop()
        gain, j, cut, nan_left = best_bin(sums, l2, min_samples_leaf)
        if gain <= 0:
            continue
        at = binned[j, rows]
        goes_left = np.where(at == bins, nan_left, at <= cut)
        left, right = rows[goes_left], rows[~goes_left]
        t.feature, t.threshold = j, float(np.append(thresholds[j], np.inf)[cut])
        t.missing_left = nan_left if gaps[j] else len(left) > len(right)
        t.left, t.right = Node(0.0, len(left)), Node(0.0, len(right))
        leaf[left], leaf[right] = len(nodes), len(nodes) + 1
        nodes += [t.left, t.right]
        if depth != max_depth:
            small = histogram(binned, min(left, right, key=len), g, h, bins)
            both = (small, sums - small) if len(left) <= len(right) else (sums - small, small)
            todo += [(t.left, depth + 1, left, both[0]), (t.right, depth + 1, right, both[1])]
    return nodes, leaf

def fit_newton_boosting(X, y, loss="squared", steps=100, lr=0.1, max_depth=6, l2=1.0,
                        min_samples_leaf=20, bins=255):  # fmt: skip
    """XGBoost's objective on histograms (LightGBM: Ke and others, 2017). X may hold nan."""
    check_number("bins", bins, least=2, most=255, integer=True)
    check_number("l2", l2, least=0)
    X = check_array("X", X, ndim=2, allow_nan=True)
    _, (y,), _ = check_fit(np.nan_to_num(X), y, "variance", max_depth, min_samples_leaf)
    thresholds, gaps = find_bins(X, bins), np.isnan(X).any(axis=0)
    binned = np.array([np.searchsorted(cuts, x) for cuts, x in zip(thresholds, X.T)])
    binned = np.where(np.isnan(X.T), bins, binned).astype(np.uint8)  # (d, n)
    def grow_one(g, h):  # sums of float32 numbers hardly round in float64: ties stay ties
        return grow_newton(binned, thresholds, gaps, np.float32(g), np.float32(h), bins,
                           max_depth, l2, min_samples_leaf)
    return boost(y, loss, steps, lr, l2, True, grow_one)

def sklearn_newton_boosting(X, y, loss="squared", steps=100, lr=0.1, max_depth=6, l2=1.0,
                            min_samples_leaf=20, bins=255):  # fmt: skip
    """The library version: g and h in float32, and compiled loops that take a third of our time."""
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
    for loss, target in [("squared", y), ("log", y > 15)]:
        options = (X[train], target[train], loss, 20, 0.1, 4, 2.0)
        ours, model = fit_newton_boosting(*options), sklearn_newton_boosting(*options)
        left = [t.missing_left for root in ours.trees for t in list_nodes(root) if t.feature == 3]
        print(f"  {loss:7} {len(left)} questions on x[3]: a gap goes left in {sum(left)} of them")
        theirs = model.predict(X[test]) if loss == "squared" else model.decision_function(X[test])
        (*_, F), spread = staged_scores(ours, X[test]), np.ptp(theirs)
        lines.append(("newton boosting", f"20 trees, {loss}", F / spread, theirs / spread))
    return beside(*lines)
# Try: let x[3] be missing at random. Where do its gaps go then?

# %% [markdown]
"""
## Categorical features: what is the order of red, green and blue?
Trees ask "at most 2.45?", and need numbers. Three ways to them:

- One-hot: a 0/1 column per category. Honest, and too wide for 10,000 categories.
- Ordinal: the position in the alphabet, an order that means nothing. An unknown one becomes -1.
- Target encoding: the mean of y over the n_c rows of category c, pulled towards the mean of all
  as if m more of its rows had an average y. Unknown ones get mean(y).

      code(c) = (n_c mean_c(y) + m mean(y)) / (n_c + m)                            (15)

**What people get wrong.** They leak the answers: (15) puts a row's own y into its code. If n_c = 1
and m = 0, the code is y: noise looks good until new rows come. Code each fold by the others.
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

def encode_target(column, y, new, m=1.0):
    """Equation (15), learned from the rows of column and y, for the values of new, (n,) each."""
    column = check_column(column)
    _, y = check_Xy(np.zeros((len(column), 1)), y)
    check_number("m", m, least=0)
    categories, at = np.unique(column, return_inverse=True)
    codes = (np.bincount(at, y) + m * y.mean()) / (np.bincount(at) + m)
    at = encode_ordinal(new, categories)
    return np.where(at < 0, y.mean(), codes[at])

def encode_out_of_fold(column, y, folds, m=1.0):
    """Each row's code from the rows of the other folds, given as pairs (train, test): (n,)."""
    column, codes, parts = check_column(column), np.zeros(np.shape(column)), [[]]
    with suppress(TypeError, ValueError):  # folds that are not even pairs
        parts = [*map(np.hstack, folds), np.hstack([test for _, test in folds])]
    if not all(np.array_equal(np.sort(part), np.arange(len(column))) for part in parts):
        raise ValueError("folds must be pairs (train, test) of all rows, each row in one test")
    for train, test in folds:
        codes[test] = encode_target(column[train], np.asarray(y)[train], column[test], m)
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
    column = np.array([f"c{i % 200:03}" for i in rng.permutation(600)])
    y, new_y = rng.permutation(600) % 2, rng.permutation(600) % 2
    new, folds = np.append(column[1:], "?"), k_fold(600, 5, rng)
    code, safe = encode_target(column, y, new), encode_out_of_fold(column, y, folds)
    print("\n== How well does a category that means nothing predict a coin? (ROC AUC) ==\n")
    print(f"  coded with each row's own y  {roc_auc(y, encode_target(column, y, column)):.3f}")
    print(f"  coded out of fold            {roc_auc(y, safe):.3f}")
    print(f"  new rows                     {roc_auc(new_y, code):.3f}")
    names, X = np.unique(column), new[:, None]
    one_hot, ordinal, target, theirs = sklearn_encoders(column, y, folds)
    return beside(("sums", "one-hot", encode_one_hot(new, names), one_hot.transform(X)),
                  ("sums", "ordinal", encode_ordinal(new, names), ordinal.transform(X)[:, 0]),
                  ("sums", "target", code, target.transform(X)[:, 0]),
                  ("sums", "target, out of fold", safe, theirs))
# Try: 20 categories of 30 rows, by i % 20. How large is the leak then?

# %% [markdown]
"""
## Importance: which features does a model use?
Ask the tree: credit the gain (3) of every split to its feature. For a forest, take the mean.

    impurity importance(j) = Σ gain of splits on j / Σ gain of all splits          (16)

But training rows flatter: a useless feature of many distinct values offers many thresholds, and
one fits the noise. Better ask any model: how much worse is it if a held-out column is shuffled?

    permutation importance(j) = score - score with column j shuffled               (17)

**When it fails.** Two equal columns stand in for each other, and both may look idle.
"""
# %%
def impurity_importance(trees):
    """Equation (16), the mean over a list of roots: (d,). A tree without questions has no say."""
    shares = np.zeros(trees[0].d)
    for root in trees:
        gains = np.zeros(root.d)
        for t in [t for t in list_nodes(root) if t.left is not None]:
            children = t.left.n * t.left.impurity + t.right.n * t.right.impurity
            gains[t.feature] += t.n * t.impurity - children  # equation (3)
        shares += gains / (gains.sum() or 1)
    return shares / (shares.sum() or 1)

def permutation_importance(predict, X, y, score, permutations):
    """Equation (17) for each of the permutations of the rows (repeats, n): (d, repeats)."""
    (X, y), orders = check_Xy(X, y), check_array("permutations", permutations, ndim=2)
    if not all(np.array_equal(np.sort(order), np.arange(len(X))) for order in orders):
        raise ValueError(f"permutations must be rows, each with the numbers 0 to {len(X) - 1}")
    drops = np.full((X.shape[1], len(orders)), score(y, predict(X)))
    for j, i in np.ndindex(drops.shape):
        shuffled = np.where(np.arange(X.shape[1]) == j, X[orders[i].astype(int)], X)
        drops[j, i] -= score(y, predict(shuffled))
    return drops

def sklearn_permutations(n, repeats, seed=0):
    """The library version: its permutations (repeats, n). Each shuffles the one before again."""
    rng, index = np.random.RandomState(np.random.RandomState(seed).randint(2**31)), np.arange(n)
    orders = [np.arange(n)]
    for _ in range(repeats):
        rng.shuffle(index)
        orders.append(orders[-1][index])
    return np.array(orders[1:])

def demo_importance(plot=False):
    """Friedman's function uses the first five of ten features. Who credits the others?"""
    from sklearn.inspection import permutation_importance as sklearn_importance
    (X, y), new = (friedman_data(np.random.default_rng(seed), 400) for seed in (5, 6))
    root, model = fit_tree(X, y, "variance", None, 10), sklearn_tree(X, y, "variance", None, 10)
    shares, orders = impurity_importance([root]), sklearn_permutations(400, 10)
    drops = permutation_importance(lambda X: predict_tree(root, X), *new, r2_score, orders)
    print("\n== Which features matter, and which measure credits the idle ones? ==\n")
    print("        impurity  permutation, on new rows")
    for j, (share, drop) in enumerate(zip(shares, drops.mean(axis=1))):
        print(f"  x[{j}] {share:9.3f} {drop:12.3f}" + ("   idle" if j > 4 else ""))
    theirs = sklearn_importance(model, *new, n_repeats=10, random_state=0).importances
    return beside(("sums", "impurity", shares, model.feature_importances_),
                  ("sums", "permutation", drops, theirs))
# Try: put new = X, y before drops. What does shuffling training rows say of the idle ones?

def encode_table(columns, targets, train, folds):
    """{name: column (n,)} as X (n, features), texts by their codes for each of the targets (n,)."""
    parts = []
    for column in columns.values():
        if column.dtype.kind == "f":  # if no training row has a number, it says nothing
            parts.append(column if np.isfinite(column[train]).any() else np.zeros(len(column)))
        for y in targets if column.dtype.kind == "U" else []:
            parts.append(encode_target(column[train], y[train], column))
            parts[-1][train] = encode_out_of_fold(column[train], y[train], folds)
    return np.column_stack(parts)

def evaluate_table(path, target, plot=False):
    """Your own table: `--csv FILE --target COLUMN` judges models on a quarter of the rows, kept
    back before anything is learned. Text becomes out-of-fold codes. Boosting alone sees gaps."""
    columns, y, labels = read_table(path, target)
    rng, classes = np.random.default_rng(0), labels is not None
    how, loss, score = ("gini", "log", accuracy) if classes else ("variance", "squared", r2_score)
    train, test = stratified_k_fold(y, 4)[0] if classes else train_test_split(rng, len(y))
    targets = [y == c for c in range(1, len(labels))] if classes else [y]  # class 0 is the rest
    X = encode_table(columns, targets, train, k_fold(len(train), 5, rng))
    filled = np.where(np.isnan(X), np.nanmean(X[train], axis=0), X)
    progress(f"growing trees on {len(train)} rows and {X.shape[1]} features ...")
    p = [predict_boosting(fit_newton_boosting(X[train], t[train], loss), X[test]) for t in targets]
    common = np.bincount(y[train]).argmax() if classes else y[train].mean()
    data, new = (filled[train], y[train], how), filled[test]
    answers = {"the same for all": np.full(len(test), common),
               "tree": predict_tree(fit_tree(*data, None, 5), new),
               "forest": predict_forest(fit_forest(*data), new),
               "boosting": np.argmax([1 - sum(p), *p], axis=0) if classes else p[0]}
    print(f"{path}: {score.__name__} on {len(test)} of {len(y)} rows\n")
    scores = {name: score(y[test], answer) for name, answer in answers.items()}
    print("\n".join(f"  {name:16} {value:8.3f}" for name, value in scores.items()))
    return scores

# %%
if __name__ == "__main__":
    run_chapter("One question at a time: trees, forests, boosting.", [
        demo_by_hand, demo_trees, demo_pruning, demo_forest, demo_boosting, demo_newton_boosting,
        demo_categories, demo_importance], evaluate_table)

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "scikit-learn", "matplotlib"]
# ///
