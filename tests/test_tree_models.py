"""What tree_models.py promises, in the order in which it is read."""

import gc
import itertools
import time

import numpy as np
import pytest
from conftest import agree

import tree_models as tm
from utils import accuracy, k_fold, make_blobs, mse, r2_score, roc_auc

HAND = (1e-12, "worked by hand")
NAN, INF = float("nan"), float("inf")


def rng_of(seed):
    return np.random.default_rng(seed)


def float32(X):
    """The library stores X as float32: give both the same numbers."""
    return np.asarray(X).astype(np.float32).astype(float)


def problem(seed, n=200, d=5, k=0):
    """X (n, d) and y: continuous for k = 0, else labels 0..k-1 with noise."""
    rng = rng_of(seed)
    X = float32(rng.normal(size=(n, d)))
    score = X[:, 0] + X[:, 1 % d] * X[:, 2 % d] + 0.5 * rng.normal(size=n)
    return X, np.argsort(np.argsort(score)) * k // n if k else score


def nodes_from_sklearn(model):
    """The library's tree as our nodes, in the library's order: the root is the first."""
    t = model.tree_
    values = t.value[:, 0, 0] if model.criterion == "squared_error" else t.value[:, 0]
    nodes = [tm.Node(v, n, i) for v, n, i in zip(values, t.weighted_n_node_samples, t.impurity)]
    for i in np.flatnonzero(t.children_left >= 0):
        nodes[i].left, nodes[i].right = nodes[t.children_left[i]], nodes[t.children_right[i]]
        nodes[i].feature, nodes[i].threshold = t.feature[i], t.threshold[i]
    nodes[0].d = model.n_features_in_
    return nodes


def agreed_tree(*args, **options):
    """The library's tree as our nodes, or None if its random states break ties differently."""
    roots = [nodes_from_sklearn(tm.sklearn_tree(*args, seed=s, **options))[0] for s in range(3)]
    asked = [[(t.feature, t.threshold) for t in tm.list_nodes(root)] for root in roots]
    return roots[0] if asked[0] == asked[1] == asked[2] else None


def library_prices(model, X, y):
    """Its pruning path, each price once: it removes one branch at a time, so that equal ones repeat."""
    alphas = np.maximum(model.cost_complexity_pruning_path(X, y).ccp_alphas, 0)
    return alphas[np.append(True, np.diff(alphas) > 1e-12 * model.tree_.impurity[0])]


def library_stages(model, X):
    """F after 1, 2, ... trees: (steps, n)."""
    stages = getattr(model, "staged_decision_function", None) or model.staged_predict
    return np.array([np.ravel(F) for F in stages(X)])


def impurity_of(y, criterion):
    """Equations (2) and (5), straight from the text."""
    if criterion == "variance":
        return np.mean((y - y.mean()) ** 2)
    p = np.unique(y, return_counts=True)[1] / len(y)
    return 1 - np.sum(p**2) if criterion == "gini" else -np.sum(p * np.log2(p))


def all_splits(X, y, criterion, min_samples_leaf=1):
    """Equation (3) for every split there is, one at a time: a list of (gain, feature, threshold)."""
    found = []
    for j in range(X.shape[1]):
        values = np.unique(X[:, j])
        for threshold in values[:-1] / 2 + values[1:] / 2:
            left, right = y[X[:, j] <= threshold], y[X[:, j] > threshold]
            if min(len(left), len(right)) >= min_samples_leaf:
                gain = sum(s * len(part) * impurity_of(part, criterion)
                           for s, part in [(1, y), (-1, left), (-1, right)])  # fmt: skip
                found.append((gain, j, threshold))
    return sorted(found, reverse=True)


def gain_at(t):
    """Equation (3) for the split at node t."""
    return t.n * t.impurity - t.left.n * t.left.impurity - t.right.n * t.right.impurity


def same_trees(what, root, library, row):
    """Node for node: questions, values, impurities and weights."""
    ours, theirs = tm.list_nodes(root), tm.list_nodes(library)
    for name in ("feature", "threshold"):
        pair = [[-9 if t.left is None else getattr(t, name) for t in ts] for ts in (ours, theirs)]
        agree(f"{what}: {name}", *pair, *tm.ALLOWED[row])
    for name in ("value", "impurity", "n"):
        pair = [[getattr(t, name) for t in ts] for ts in (ours, theirs)]
        agree(f"{what}: {name}", *pair, *tm.ALLOWED[row])


def chain(length, turned=False):
    """A tree by hand that peels off one integer after the other: x <= 0, x <= 1, ...

    Turned, the long branch is on the left."""
    root = tm.Node(0.0, 1.0, 0.0)
    for i in reversed(range(length)):
        pair = [tm.Node(float(i), 1.0, 0.0), root]
        root = tm.Node(0.0, root.n + 1, 1.0, 0, i + 0.5, *pair[:: -1 if turned else 1])
    return root


# --- A tree by hand -------------------------------------------------------------------
def two_questions():
    right = tm.Node([0.5, 0.5], 4, 0.5, 0, 5.0, tm.Node([0.9, 0.1], 1), tm.Node([0.2, 0.8], 3))
    return tm.Node([0.5, 0.5], 6, 0.5, 1, 1.0, tm.Node([0.3, 0.7], 2), right)


def test_list_nodes_is_level_by_level_with_children_in_pairs():
    root = two_questions()
    nodes = tm.list_nodes(root)
    assert nodes == [root, root.left, root.right, root.right.left, root.right.right]


def test_predict_tree_by_hand_goes_left_at_the_border():
    X = [[0, 1.0], [0, 1.5], [5.0, 2], [5.1, 2], [9, 0.9]]
    agree("labels", tm.predict_tree(two_questions(), X), [1, 0, 0, 1, 1], *HAND)
    shares = [[0.3, 0.7], [0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]
    agree("shares", tm.tree_values(two_questions(), X), shares, *HAND)


def test_predict_tree_of_a_single_leaf_and_of_numbers():
    agree("one leaf", tm.predict_tree(tm.Node(3.5), [[1.0], [2.0]]), [3.5, 3.5], *HAND)
    stump = tm.Node(0.0, 2, 1, 0, 0.0, tm.Node(-1.5), tm.Node(2.5))
    agree("stump", tm.predict_tree(stump, [[-1], [0], [1]]), [-1.5, -1.5, 2.5], *HAND)


def test_predict_tree_needs_the_features_that_the_tree_asks_for():
    with pytest.raises(ValueError, match=r"X must have 2 feature\(s\)"):
        tm.predict_tree(two_questions(), [[1.0]])
    agree("more than a hand-built tree asks", tm.predict_tree(two_questions(), [[0, 1, 7]]), [1], *HAND)


def test_show_tree_by_hand():
    assert tm.show_tree(two_questions(), names=["age", "size"]).split("\n") == [
        "size <= 1?",
        "|  yes: class 1  (n = 2)",
        "|  no:  age <= 5?",
        "|  |  yes: class 0  (n = 1)",
        "|  |  no:  class 1  (n = 3)",
    ]
    assert tm.show_tree(two_questions(), depth=1).split("\n") == [
        "x[1] <= 1?", "|  yes: class 1  (n = 2)", "|  no:  ... 1 more question(s)",
    ]  # fmt: skip
    assert tm.show_tree(tm.Node(2.5, 7)) == "2.5  (n = 7)"


def test_node_by_hand_is_a_pure_leaf_of_one_row_until_told_otherwise():
    t = tm.Node(7.0)
    assert (t.n, t.impurity, t.left, t.right, t.missing_left, t.d) == (1, 0, None, None, False, None)



def test_show_tree_prints_ten_levels_of_a_deep_chain_then_counts():
    lines = tm.show_tree(chain(5000)).split("\n")
    assert len(lines) == 21
    assert lines[-1] == "|  " * 10 + "no:  ... 4990 more question(s)"


# --- Classification tree --------------------------------------------------------------
def test_fit_tree_gini_by_hand():
    """Six rows: x <= 2.5 leaves 0 0 | 1 0 1 1, with gini 0.5 -> 0 and 3/8."""
    root = tm.fit_tree([[1], [2], [3], [4], [5], [6]], [0, 0, 1, 0, 1, 1], max_depth=1)
    assert (root.feature, root.threshold, root.n, root.d) == (0, 2.5, 6, 1)
    assert root.missing_left is False
    assert root.left.left is root.right.left is root.left.feature is None
    agree("impurity", [root.impurity, root.left.impurity, root.right.impurity], [0.5, 0, 3 / 8], *HAND)
    agree("shares", [root.value, root.left.value, root.right.value],
          [[0.5, 0.5], [1, 0], [0.25, 0.75]], *HAND)  # fmt: skip
    agree("gain", gain_at(root), 6 * 0.5 - 4 * 3 / 8, *HAND)


def test_fit_tree_entropy_by_hand():
    root = tm.fit_tree([[1], [2], [3], [4]], [0, 0, 0, 1], "entropy")
    quarter = 0.25 * 2 + 0.75 * np.log2(4 / 3)
    assert root.threshold == 3.5
    agree("entropy", [root.impurity, root.left.impurity], [quarter, 0], *HAND)


@pytest.mark.parametrize("criterion", ["gini", "entropy", "variance"])
@pytest.mark.parametrize("k, n, d, leaf", [(2, 30, 3, 1), (4, 40, 2, 3), (3, 12, 20, 1)])
def test_best_splits_gain_equals_equation_3_for_every_split(criterion, k, n, d, leaf):
    for seed in range(3):
        X, y = problem(seed, n, d, k=0 if criterion == "variance" else k)
        X = X.round(1)  # so that values repeat
        best = all_splits(X, y, criterion, leaf)
        root = tm.fit_tree(X, y, criterion, 1, leaf)
        agree("gain", gain_at(root), best[0][0], 1e-10, "equation (3) by definition")
        if best[0][0] - best[1][0] > 1e-9:
            agree("split", (root.feature, root.threshold), best[0][1:], *HAND)


@pytest.mark.parametrize("criterion", ["gini", "entropy", "variance"])
@pytest.mark.parametrize("n, d, k, depth, leaf", [
    (120, 5, 2, None, 1), (150, 3, 4, None, 4), (40, 20, 3, None, 1), (200, 4, 2, 6, 2),
    (60, 1, 3, None, 1),
])  # fmt: skip
def test_fit_tree_finds_every_split_of_the_library(criterion, n, d, k, depth, leaf):
    """At each node of the library's tree: as good as our best, and the same if that is unique."""
    unique = 0
    for seed in range(1):
        X, y = problem(seed, n, d, 0 if criterion == "variance" else k)
        model = tm.sklearn_tree(X, y, criterion, depth, leaf, seed)
        inside = model.decision_path(X).toarray().astype(bool)
        for node, here in zip(nodes_from_sklearn(model), inside.T):
            if node.left is None:
                continue
            part = y[here] if criterion == "variance" else np.unique(y[here], return_inverse=True)[1]
            ours, row = tm.fit_tree(X[here], part, criterion, 1, leaf), "sums"
            agree("gain of a split", gain_at(ours), gain_at(node), *tm.ALLOWED[row])
            best = all_splits(X[here], part, criterion, leaf) if here.sum() < 25 else []
            if len(best) == 1 or best and best[0][0] - best[1][0] > 1e-9 * max(1, best[0][0]):
                unique += 1
                found = (ours.feature, ours.threshold)
                agree("unique split", found, (node.feature, node.threshold), *tm.ALLOWED[row])
    assert unique > 2


@pytest.mark.parametrize("criterion", ["gini", "entropy"])
@pytest.mark.parametrize("k, depth, leaf", [(2, 3, 20), (3, None, 20), (4, None, 40), (2, None, 60)])
def test_fit_tree_equals_the_library_where_it_agrees_with_itself(criterion, k, depth, leaf):
    checked = 0
    for seed in range(6):
        X, y = problem(seed, 400, 4, k)
        if (library := agreed_tree(X, y, criterion, depth, leaf)) is not None:
            checked += 1
            ours = tm.fit_tree(X, y, criterion, depth, leaf)
            same_trees("tree", ours, library, "sums")
    assert checked >= 2


@pytest.mark.parametrize("criterion", ["gini", "entropy", "variance"])
@pytest.mark.parametrize("decrease", [0.005, 0.02, 0.1])
def test_fit_tree_stops_at_min_impurity_decrease_like_the_library(criterion, decrease):
    checked = 0
    for seed in range(4):
        X, y = problem(seed, 400, 4, 0 if criterion == "variance" else 3)
        least = decrease * np.var(y) if criterion == "variance" else decrease
        library = agreed_tree(X, y, criterion, None, 15, min_impurity_decrease=least)
        if library is not None:
            checked += len(tm.list_nodes(library)) > 1
            same_trees("tree", tm.fit_tree(X, y, criterion, None, 15, least), library, "sums")
    assert checked >= 2


def test_fit_tree_splits_at_exactly_min_impurity_decrease():
    X, y = [[0], [1], [2], [3]], [0, 0, 1, 1]  # the split takes the gini from 0.5 to 0
    assert tm.fit_tree(X, y, min_impurity_decrease=0.5).left is not None
    assert tm.fit_tree(X, y, min_impurity_decrease=0.5001).left is None
    small = np.array(y) / 16  # the split takes the variance from 1 / 1024 to 0
    assert tm.fit_tree(X, small, "variance", min_impurity_decrease=1 / 1024).left is not None
    assert tm.fit_tree(X, small, "variance", min_impurity_decrease=1 / 1000).left is None


def depth_of(root):
    return 0 if root.left is None else 1 + max(depth_of(root.left), depth_of(root.right))


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_fit_tree_keeps_max_depth(depth):
    X, y = problem(0, 400, 3, 2)
    assert depth_of(tm.fit_tree(X, y, max_depth=depth)) == depth
    assert tm.sklearn_tree(X, y, max_depth=depth).get_depth() == depth


@pytest.mark.parametrize("leaf", [1, 2, 7, 30])
def test_fit_tree_keeps_min_samples_leaf(leaf):
    X, y = problem(2, 200, 3)
    sizes = [t.n for t in tm.list_nodes(tm.fit_tree(X, y, "variance", None, leaf)) if t.left is None]
    assert min(sizes) == leaf and sum(sizes) == 200


def test_fit_tree_solves_xor_although_the_first_split_gains_nothing():
    X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    for criterion in ("gini", "entropy", "variance"):
        root = tm.fit_tree(X, y, criterion)
        agree("gain of the root", gain_at(root), 0, *HAND)
        agree(criterion, tm.predict_tree(root, X), y, *HAND)


def test_fit_tree_does_not_split_a_pure_node():
    X = rng_of(0).normal(size=(50, 3))
    y = np.where(X[:, 0] > 0, 1, 0)
    root = tm.fit_tree(X, y)
    assert len(tm.list_nodes(root)) == 3
    shifted = tm.fit_tree(X, np.where(X[:, 0] > 0, 0.1, 0.7), "variance")  # means round: 0.1, 0.7
    assert len(tm.list_nodes(shifted)) == 3
    assert tm.fit_tree(X, np.full(50, 0.1), "variance").left is None


def test_fit_tree_with_equal_rows_of_different_labels_and_constant_features():
    X = [[1, 7], [1, 7], [1, 7], [2, 7]]
    root = tm.fit_tree(X, [0, 1, 0, 1])
    assert (root.feature, root.threshold) == (0, 1.5) and root.left.left is None
    agree("mixed leaf", root.left.value, [2 / 3, 1 / 3], *HAND)
    nothing = tm.fit_tree(np.ones((6, 3)), [0, 1, 0, 1, 0, 1])
    assert nothing.left is None and nothing.n == 6
    agree("tied shares", tm.predict_tree(nothing, np.ones((2, 3))), [0, 0], *HAND)


def test_fit_tree_full_growth_remembers_its_training_rows():
    X, y = problem(5, 300, 4, 3)
    agree("labels", tm.predict_tree(tm.fit_tree(X, y), X), y, *HAND)


def test_fit_tree_depends_on_the_order_of_values_alone():
    X, y = problem(3, 200, 4)
    a, b = tm.fit_tree(X, y, "variance", None, 5), tm.fit_tree(np.exp(X), y, "variance", None, 5)
    agree("features", [t.feature or 0 for t in tm.list_nodes(a)],
          [t.feature or 0 for t in tm.list_nodes(b)], *HAND)  # fmt: skip
    agree("answers", tm.predict_tree(a, X), tm.predict_tree(b, np.exp(X)), *HAND)


@pytest.mark.parametrize("form", [
    lambda X: X.astype(np.float32), lambda X: X.tolist(), np.asfortranarray, lambda X: X[::-1][::-1],
])  # fmt: skip
def test_fit_tree_takes_every_form_of_input_and_changes_none(form):
    X, y = problem(0, 80, 3, 2)
    X = X.round(2)
    X = float32(X)
    before, frozen = tm.fit_tree(X, y), X.copy()
    frozen.flags.writeable = False
    ours = tm.fit_tree(form(frozen), y.tolist())
    same_trees("form", ours, before, "sums")
    agree("X", frozen, X, *HAND)


def test_fit_tree_of_integers_splits_between_them():
    X = np.array([[3, 1], [1, 1], [2, 9], [7, 9]], dtype=np.int32)
    root = tm.fit_tree(X, np.array([1, 0, 0, 1], dtype=np.uint8))
    assert (root.feature, root.threshold) == (0, 2.5)


def test_best_splits_draws_features_among_those_that_vary_in_the_node():
    """Two nodes, rows 0-5 and 6-10: the first varies in feature 2 alone, the second in feature 1."""
    rng, w = rng_of(0), np.ones(11, int)
    X = np.column_stack([np.ones(11), np.r_[np.zeros(6), np.arange(5)], np.r_[np.arange(6), np.ones(5)]])
    Xt, order = tm.sort_columns(X)
    order = np.array([np.r_[o[o < 6], o[o >= 6]] for o in order])
    y = np.arange(11) % 6 > 3
    targets = np.array([~y, y])
    level = tm.describe(targets, w, order[0], np.array([6, 5]), "gini")
    assert level.mixed.all() and level.away.shape == (1, 11)
    for features in (1, 2):
        for _ in range(10):
            gain, feature, threshold = tm.best_splits(Xt, order, level, w, "gini", 1, features, rng)
            assert feature.tolist() == [2, 1] and threshold.tolist() == [3.5, 3.5]
            agree("gain", gain, [6 * 2 * 4 / 6 * 2 / 6, 5 * 2 * 4 / 5 * 1 / 5], *HAND)


def test_describe_by_hand():
    """Rows 2, 0 | 3, 1 with weights 1, 2 | 1, 3: means 2 and 7/4 = (1 + 2 * 3) / 4."""
    y, w = np.array([[3.0, 2, 0, 1]]), np.array([2, 3, 1, 1])
    level = tm.describe(y, w, np.array([2, 0, 3, 1]), np.array([2, 2]), "variance")
    for name, value in dict(
        sizes=[2, 2], starts=[0, 2], node=[0, 0, 1, 1], n_left=[1, 2, 1, 2], W=[3, 4],
        value=[[2, 7 / 4]], impurity=[(2**2 + 2 * 1) / 3, ((3 / 4) ** 2 + 3 / 16) / 4],
        mixed=[True, True], away=[[2, 3 / 4, -2, -3 / 4]],
    ).items():  # fmt: skip
        agree(name, getattr(level, name), value, *HAND)
    pure = tm.describe(np.array([[0, 0, 1, 0]]), w, np.array([3, 1, 0, 2]), np.array([2, 2]), "variance")
    assert pure.mixed.tolist() == [False, True]


# --- Regression tree ------------------------------------------------------------------
def test_gain_after_by_hand_is_the_table_of_the_text():
    """y = 0 0 6 10 in a node, and beside it another one, 1 1 and 4: each has its own sums."""
    y, w, rows = np.array([[0.0, 0, 6, 10, 1, 1, 4]]), np.ones(7, int), np.arange(7)
    level = tm.describe(y, w, rows, np.array([4, 3]), "variance")
    agree("S", tm.running_sums(level.away[0], rows[None], level), [[-4, -8, -6, 0, -1, -2, 0]], *HAND)
    gain = tm.gain_after(rows[None], level, w, "variance")[0]
    agree("gain", gain[[0, 1, 2, 4, 5]], [64 / 3, 64, 48, 3 / 2, 6], *HAND)


def test_fit_tree_variance_by_hand():
    """0 0 6 | 10: the split after 3 rows gains 64 + ... computed by (4): S² W / (W_L W_R)."""
    root = tm.fit_tree([[1], [2], [3], [4]], [0, 0, 6, 10], "variance", 1)
    assert root.threshold == 2.5
    agree("means", [root.value, root.left.value, root.right.value], [4, 0, 8], *HAND)
    agree("variances", [root.impurity, root.left.impurity, root.right.impurity], [18, 0, 4], *HAND)
    agree("gain", gain_at(root), 8**2 * 4 / (2 * 2), *HAND)


@pytest.mark.parametrize("n, d, depth", [(100, 1, None), (300, 5, None), (80, 120, None), (500, 3, 4)])
def test_fit_tree_variance_equals_the_library_node_for_node(n, d, depth):
    for seed in range(4):
        X, y = problem(seed, n, d)
        library = nodes_from_sklearn(tm.sklearn_tree(X, y, "variance", depth, 10))[0]
        same_trees("tree", tm.fit_tree(X, y, "variance", depth, 10), library, "sums")


def test_fit_tree_is_as_exact_beside_a_huge_outlier():
    """Running sums begin anew at every node: one node's 1e12 must not blur its neighbours."""
    rng = rng_of(4)
    X = np.column_stack([np.repeat([0.0, 10.0], 200), rng.normal(size=400)])
    y = np.where(X[:, 1] > 0.3, 1e-3, 0) + 1e-6 * rng.normal(size=400)
    small = tm.fit_tree(X[200:], y[200:], "variance", 3, 5)
    y[:200] += 1e12 + 1e9 * rng.normal(size=200)
    both = tm.fit_tree(X, y, "variance", 4, 5)
    assert (both.feature, both.threshold) == (0, 5.0)
    same_trees("right half", both.right, small, "sums")


def test_fit_tree_threshold_stays_below_the_larger_of_two_neighbours():
    """Between adjacent floats the middle rounds up to the larger: it would send both left."""
    a = np.nextafter(1.0, 2.0)
    b = np.nextafter(a, 2.0)
    root = tm.fit_tree([[a], [b]], [0.0, 1.0], "variance")
    assert root.threshold == a
    agree("both sides", tm.predict_tree(root, [[a], [b]]), [0, 1], *HAND)


def test_predict_tree_never_leaves_the_range_of_y():
    X, y = problem(0, 100, 2)
    far = tm.predict_tree(tm.fit_tree(X, y, "variance"), 100 * rng_of(1).normal(size=(50, 2)))
    assert y.min() <= far.min() and far.max() <= y.max()


# --- Pruning --------------------------------------------------------------------------
def small_tree():
    """Weights and impurities chosen so that r(t) are easy: root 8 rows."""
    leaf = [tm.Node(0.0, 2, i) for i in (0.0, 1.0, 0.0, 2.0)]
    left = tm.Node(0.0, 4, 1.0, 0, 1.0, leaf[0], leaf[1])
    right = tm.Node(0.0, 4, 3.0, 0, 3.0, leaf[2], leaf[3])
    return tm.Node(0.0, 8, 4.0, 0, 2.0, left, right)


def test_pruning_path_by_hand():
    """r = 4 at the root, 1/2 and 3/2 at its children, 0, 1/4, 0, 1/2 at the leaves.
    Left falls at 1/4; right at 1; then the root at 4 - 1/2 - 3/2 = 2."""
    alphas, leaves = tm.pruning_path(small_tree())
    assert leaves.dtype.kind == "i"
    agree("prices", alphas, [0, 0.25, 1, 2], *HAND)
    agree("leaves", leaves, [4, 3, 2, 1], *HAND)


def test_collapse_alphas_by_hand_takes_branches_that_fall_together():
    """With r = 1.25 at the root the branch is not worth its 4 leaves long before its children are."""
    root = small_tree()
    root.impurity = 1.25
    alphas, leaves = tm.pruning_path(root)
    agree("prices", alphas, [0, (1.25 - 0.75) / 3], *HAND)
    agree("leaves", leaves, [4, 1], *HAND)
    root.impurity = 1.65  # after the left child fell: (1.65 - 0.5 - 0.5) / 2
    agree("prices", tm.pruning_path(root)[0], [0, 0.25, 0.325], *HAND)
    agree("leaves", tm.pruning_path(root)[1], [4, 3, 1], *HAND)


def test_collapse_alphas_lets_a_bend_at_the_same_price_stand():
    """Both children fall at 1/4, and so does the root: one price, all leaves at once."""
    root = small_tree()
    root.right = tm.Node(0.0, 4, 1.0, 0, 3.0, tm.Node(0.0, 2, 0.0), tm.Node(0.0, 2, 1.0))
    agree("prices", tm.pruning_path(root)[0], [0, 0.25, 3], *HAND)
    agree("leaves", tm.pruning_path(root)[1], [4, 2, 1], *HAND)


def subtrees(t, total):
    """(cost without α, leaves) of every pruned version of the tree below t."""
    options = [(t.n * t.impurity / total, 1)]
    if t.left is not None:
        pairs = itertools.product(subtrees(t.left, total), subtrees(t.right, total))
        options += [(a + b, m + n) for (a, m), (b, n) in pairs]
    return options


@pytest.mark.parametrize("criterion", ["gini", "entropy", "variance"])
def test_prune_tree_minimises_equation_5_over_all_subtrees(criterion):
    X, y = problem(1, 60, 3, 0 if criterion == "variance" else 3)
    root = tm.fit_tree(X, y, criterion, 4, 2)
    options, leaves = subtrees(root, root.n), len(tm.list_nodes(root))
    for alpha in np.r_[0, rng_of(0).uniform(0, 0.2, size=20) * root.impurity]:
        pruned = [t for t in tm.list_nodes(tm.prune_tree(root, float(alpha))) if t.left is None]
        ours = sum(t.n * t.impurity for t in pruned) / root.n + alpha * len(pruned)
        agree("least cost", ours, min(cost + alpha * n for cost, n in options), *HAND)
        near = [n for cost, n in options if cost + alpha * n < ours + 1e-12]
        assert len(pruned) == min(near), "the smallest of the best subtrees"
    assert len(tm.list_nodes(root)) == leaves, "the tree itself must stay as it is"


@pytest.mark.parametrize("criterion", ["gini", "entropy", "variance"])
@pytest.mark.parametrize("n, k, leaf", [(150, 2, 1), (300, 4, 1), (250, 3, 5)])
def test_pruning_path_and_prune_tree_equal_the_library(criterion, n, k, leaf):
    for seed in range(2):
        X, y = problem(seed, n, 4, 0 if criterion == "variance" else k)
        model = tm.sklearn_tree(X, y, criterion, None, leaf)
        root = nodes_from_sklearn(model)[0]
        alphas, leaves = tm.pruning_path(root)
        agree("prices", alphas, library_prices(model, X, y), *tm.ALLOWED["sums"])
        assert np.all(np.diff(alphas) > 0) and np.all(np.diff(leaves) < 0) and leaves[-1] == 1
        for i in range(1, len(alphas) - 1, max(1, len(alphas) // 5)):
            between = float(alphas[i : i + 2].mean())
            ours = tm.prune_tree(root, between)
            pruned = tm.sklearn_tree(X, y, criterion, None, leaf, ccp_alpha=between)
            same_trees("pruned", ours, nodes_from_sklearn(pruned)[0], "sums")
            assert len(tm.list_nodes(ours)) == 2 * leaves[i] - 1


def test_pruning_path_does_not_depend_on_the_unit_of_y():
    X, y = problem(0, 200, 3)
    alphas, leaves = tm.pruning_path(tm.fit_tree(X, y, "variance", None, 5))
    for scale in (1e-7, 1e7):
        small, same = tm.pruning_path(tm.fit_tree(X, scale * y, "variance", None, 5))
        agree("leaves", same, leaves, *HAND)
        agree("prices", small / scale**2, alphas, *tm.ALLOWED["sums"])


def test_prune_tree_at_zero_drops_splits_that_gained_nothing():
    X, y = [[0], [1], [2], [3]], [0, 1, 0, 1]
    root = tm.Node(0.5, 4, 0.25, 0, 1.5, tm.Node(0.5, 2, 0.25), tm.Node(0.5, 2, 0.25), d=1)
    pruned = tm.prune_tree(root, 0)
    assert pruned.left is None and pruned.right is None and pruned.d == 1
    assert pruned.feature is None and pruned.threshold is None
    agree("leaves", tm.pruning_path(root)[1], [1], *HAND)
    assert tm.prune_tree(tm.fit_tree(X, y), 0.0).left is not None


@pytest.mark.parametrize("turned", [False, True])
def test_pruning_path_takes_no_quadratic_time(turned):
    """Ten times as long a chain, with a stump that is hardly worth it on every step, must take far
    less than a hundred times as long."""
    def seconds(n):
        root = chain(n, turned)
        for t in tm.list_nodes(root):
            t.impurity = t.n if t.left is not None else 0.0
            if t.left is None:
                t.impurity, t.left, t.right = 1e-3, tm.Node(0.0, 0.5), tm.Node(0.0, 0.5)
        gc.collect()
        gc.disable()  # its passes over the objects of all earlier tests are not ours to count
        start = time.process_time()
        tm.pruning_path(root)
        spent = time.process_time() - start
        gc.enable()
        return spent

    assert min(seconds(8000) for _ in range(2)) < 50 * min(seconds(800) for _ in range(3))


@pytest.mark.parametrize("alpha", [-0.1, NAN, INF, "0.1", None, True])
def test_prune_tree_refuses_alpha(alpha):
    with pytest.raises((ValueError, TypeError), match="alpha must be"):
        tm.prune_tree(small_tree(), alpha)


def test_fit_tree_grows_predicts_prunes_and_prints_a_chain_of_5000_splits():
    """0 1 0 1 ... along one feature: the best split always peels off one end."""
    X, y = np.arange(5001)[:, None], np.arange(5001) % 2
    root = tm.fit_tree(X, y)
    depth, level = 0, [root]
    while level := [c for t in level if t.left is not None for c in (t.left, t.right)]:
        depth += 1
    assert depth == 5000 and len(tm.list_nodes(root)) == 10001
    agree("chain", tm.predict_tree(root, X), y, *HAND)
    assert len(tm.list_nodes(tm.prune_tree(root, 0.0))) == 10001
    assert len(tm.list_nodes(tm.prune_tree(root, 1e9))) == 1
    assert tm.show_tree(root).count("... 4990 more question(s)") == 1


# --- Random forest --------------------------------------------------------------------
def test_fit_forest_counts_are_weights_by_hand():
    """Row 0 drawn twice, row 2 never: mean (2*0 + 6) / 3, and variance around it."""
    X, y = [[1], [2], [3]], [0.0, 6.0, 100.0]
    forest = tm.fit_forest(X, y, "variance", max_depth=1, max_features=None, counts=[[2, 1, 0]])
    root = forest.trees[0]
    assert (root.n, root.left.n, root.right.n, root.threshold) == (3, 2, 1, 1.5)
    agree("means", [root.value, root.left.value, root.right.value], [2, 0, 6], *HAND)
    agree("variance", root.impurity, (2 * 2**2 + 4**2) / 3, *HAND)
    agree("row 2 is left out", tm.out_of_bag(forest, X)[0], [2], *HAND)


@pytest.mark.parametrize("criterion", ["gini", "entropy", "variance"])
def test_fit_forest_weights_equal_copied_rows_as_long_as_leaves_are_free(criterion):
    X, y = problem(2, 60, 3, 0 if criterion == "variance" else 3)
    counts = np.array([rng_of(1).integers(0, 4, size=60), rng_of(2).integers(2, 4, size=60)])
    for draws in counts:
        weighted = tm.fit_forest(X, y, criterion, max_features=None, max_depth=2, counts=[draws])
        rows = np.repeat(np.arange(60), draws)
        same_trees("copies", weighted.trees[0], tm.fit_tree(X[rows], y[rows], criterion, 2), "sums")


@pytest.mark.parametrize("criterion", ["gini", "entropy", "variance"])
def test_fit_forest_grows_each_tree_as_if_it_were_alone(criterion):
    """Also where some bootstrap holds one class alone, so that its root is a leaf beside others."""
    X, y = problem(4, 40, 3, 2)
    counts = np.array([y == 0, np.ones(40), rng_of(0).integers(0, 3, 40), y == 1, np.arange(40) % 3])
    forest = tm.fit_forest(X, y, criterion, max_features=None, counts=counts)
    assert [root.left is None for root in forest.trees] == [True, False, False, True, False]
    for root, draws in zip(forest.trees, counts):
        alone = tm.fit_forest(X, y, criterion, max_features=None, counts=[draws]).trees[0]
        same_trees("tree", root, alone, "sums")
        assert root.d == 3


def test_fit_forest_of_more_numbers_than_are_copied_together_grows_tree_by_tree():
    X, y = problem(0, 530, 2000)
    assert X.size > 2**20
    counts = rng_of(0).integers(0, 2, size=(3, 530))
    forest = tm.fit_forest(X, y, "variance", max_features=None, max_depth=1, counts=counts)
    assert len(forest.trees) == 3
    for root, draws in zip(forest.trees, counts):
        same_trees("alone", root, tm.fit_tree(X[draws > 0], y[draws > 0], "variance", 1), "sums")


def test_fit_forest_min_samples_leaf_counts_distinct_rows():
    X, y = np.arange(6.0)[:, None], np.arange(6.0) ** 2
    counts = [[9, 1, 1, 1, 1, 9]]
    root = tm.fit_forest(X, y, "variance", 1, None, None, 3, counts=counts).trees[0]
    assert root.threshold == 2.5 and root.left.left is root.right.left is None
    assert root.left.n == root.right.n == 11


@pytest.mark.parametrize("n, d, depth", [(300, 5, None), (200, 30, None), (400, 3, 4)])
def test_fit_forest_equals_the_library_given_its_bootstrap(n, d, depth):
    for seed in (0, 2):
        X, y = problem(seed, n, d)
        new = float32(rng_of(99).normal(size=(200, d)))
        model, counts = tm.sklearn_forest(X, y, "variance", 30, None, depth, 10, seed)
        ours = tm.fit_forest(X, y, "variance", 30, None, depth, 10, counts=counts)
        agree("new rows", tm.predict_forest(ours, new), model.predict(new), *tm.ALLOWED["sums"])
        rows, values = tm.out_of_bag(ours, X)
        seen = counts[:, rows].min(axis=0) == 0
        assert seen.all() and len(rows) == np.sum(counts.min(axis=0) == 0)
        agree("out of bag", values, model.oob_prediction_[rows], *tm.ALLOWED["sums"])


@pytest.mark.parametrize("criterion", ["gini", "entropy"])
def test_fit_forest_trees_are_as_good_as_the_library_s_on_each_bootstrap(criterion):
    """Labels tie in small nodes, so compare the impurity that each tree leaves behind."""
    X, y = problem(0, 300, 4, 3)
    model, counts = tm.sklearn_forest(X, y, criterion, 25, None, 2, 20)
    ours = tm.fit_forest(X, y, criterion, 25, None, 2, 20, counts=counts)
    left = [[sum(t.n * t.impurity for t in tm.list_nodes(root) if t.left is None) for root in roots]
            for roots in (ours.trees, [nodes_from_sklearn(m)[0] for m in model.estimators_])]  # fmt: skip
    agree("impurity left", *left, *tm.ALLOWED["sums"])


@pytest.mark.parametrize("criterion, max_features", [("gini", "sqrt"), ("entropy", 2), ("variance", 3)])
def test_fit_forest_out_of_bag_score_is_the_library_s_within_its_noise(criterion, max_features):
    """Means over eight seeds may differ by four standard errors of their difference."""
    X, y = tm.friedman_data(rng_of(3), 250) if criterion == "variance" else problem(3, 250, 9, 2)
    score = r2_score if criterion == "variance" else accuracy
    ours, theirs = [], []
    for seed in range(8):
        forest = tm.fit_forest(X, y, criterion, 50, max_features, None, 5, rng_of(seed))
        rows, values = tm.out_of_bag(forest, X)
        ours.append(score(y[rows], values))
        theirs.append(tm.sklearn_forest(X, y, criterion, 50, max_features, None, 5, seed)[0].oob_score_)
    noise = np.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / 8)
    assert 0.001 < noise < 0.01, "otherwise the test would say little"
    allowed = 4 * noise, "four standard errors of the difference of two means of eight scores"
    agree("mean out-of-bag score", np.mean(ours), np.mean(theirs), *allowed)


def test_fit_forest_draws_features_at_every_split_not_once_per_tree():
    X, y = problem(1, 300, 6)
    trees = tm.fit_forest(X, y, "variance", 20, 1, None, 5, rng=rng_of(0)).trees
    assert all(len({t.feature for t in tm.list_nodes(root) if t.left is not None}) > 3 for root in trees)
    assert len({root.feature for root in trees}) == 6


def test_fit_forest_draws_a_bootstrap_and_repeats_with_its_seed():
    X, y = problem(0, 400, 3)
    a, b, c = (tm.fit_forest(X, y, "variance", 10, 2, rng=rng_of(s)) for s in (0, 0, 1))
    agree("n draws each", a.counts.sum(axis=1), np.full(10, 400), *HAND)
    agree("share left out", np.mean(a.counts == 0), np.exp(-1), 0.02, "(1 - 1/n)^n is nearly 1/e")
    agree("same seed", tm.predict_forest(a, X), tm.predict_forest(b, X), *HAND)
    assert np.any(a.counts != c.counts)
    agree("default seed", tm.fit_forest(X, y, "variance", 10, 2).counts, a.counts, *HAND)


def test_predict_forest_averages_shares_by_hand():
    trees = [tm.Node([0.9, 0.1]), tm.Node([0.45, 0.55]), tm.Node([0.45, 0.55])]
    agree("mean share wins, not the vote", tm.predict_forest(tm.Forest(trees, None), [[1.0]]), [0], *HAND)
    numbers = tm.Forest([tm.Node(1.0), tm.Node(4.0)], None)
    agree("mean", tm.predict_forest(numbers, [[1.0]]), [2.5], *HAND)


def test_out_of_bag_by_hand_uses_only_trees_that_left_the_row_out():
    forest = tm.Forest([tm.Node(1.0), tm.Node(2.0), tm.Node(6.0)],
                       np.array([[0, 1, 2, 1], [0, 0, 3, 1], [1, 0, 1, 2]]))  # fmt: skip
    rows, values = tm.out_of_bag(forest, [[0.0]] * 4)
    agree("rows", rows, [0, 1], *HAND)
    agree("values", values, [1.5, 4.0], *HAND)
    labels = tm.Forest([tm.Node(np.array([0.2, 0.8])), tm.Node(np.array([0.9, 0.1]))],
                       np.array([[0, 1], [0, 0]]))  # fmt: skip
    agree("labels", tm.out_of_bag(labels, [[0.0]] * 2)[1], [0, 0], *HAND)
    three = tm.Forest([tm.Node(np.array([0.5, 0.3, 0.2])), tm.Node(np.array([0.0, 0.2, 0.8]))],
                      np.array([[0, 1, 0, 1], [0, 0, 3, 1]]))  # fmt: skip
    rows, values = tm.out_of_bag(three, [[0.0]] * 4)
    agree("of three classes", [rows, values], [[0, 1, 2], [2, 2, 0]], *HAND)


def test_out_of_bag_refuses_other_rows_and_a_forest_that_left_out_none():
    X, y = problem(0, 30, 2)
    forest = tm.fit_forest(X, y, "variance", 3, None)
    with pytest.raises(ValueError, match="X must be the 30 training rows"):
        tm.out_of_bag(forest, X[:29])
    full = tm.fit_forest(X, y, "variance", counts=np.ones((2, 30)), max_features=None)
    with pytest.raises(ValueError, match="left out"):
        tm.out_of_bag(full, X)


@pytest.mark.parametrize("options, message", [
    (dict(trees=0), "trees"), (dict(trees=2.5), "trees"), (dict(max_features=0), "max_features"), (dict(max_features=1.5), "max_features"),
    (dict(max_features=4), "max_features"), (dict(max_features="log"), "max_features"),
    (dict(counts=[[1, 1]]), "counts"), (dict(counts=np.zeros((2, 20))), "counts"),
    (dict(counts=-np.ones((1, 20))), "counts"), (dict(counts=np.ones(20)), "counts"),
    (dict(counts=[[1] * 19 + [-1]]), "counts"), (dict(counts=[[1] * 19 + [0.5]]), "counts"),
    (dict(rng=7), "rng"), (dict(rng=np.random), "rng"), (dict(rng=np.random.RandomState(0)), "rng"),
    (dict(counts=np.vstack([np.ones(20), np.zeros(20)])), "counts"), (dict(criterion="mse"), "criterion"),
])  # fmt: skip
def test_fit_forest_refuses_options(options, message):
    X, y = problem(0, 20, 3, 2)
    with pytest.raises((ValueError, TypeError), match=f"{message} must"):
        tm.fit_forest(X, y, **options)


def test_fit_forest_sqrt_of_one_feature_is_one():
    X, y = problem(0, 40, 1, 2)
    assert tm.fit_forest(X, y, trees=3).trees[0].left is not None


# --- Gradient boosting ----------------------------------------------------------------
def test_fit_boosting_squared_by_hand():
    """y = 0 0 6 6: start 3, the first stump leaves -3 | 3, lr 1/2 takes half of it."""
    model = tm.fit_boosting([[1], [2], [3], [4]], [0, 0, 6, 6], steps=2, lr=0.5, max_depth=1)
    assert (model.start, model.lr, model.loss, len(model.trees)) == (3.0, 0.5, "squared", 2)
    stages = list(tm.staged_scores(model, [[1], [4]]))
    agree("stages", stages, [[3, 3], [1.5, 4.5], [0.75, 5.25]], *HAND)
    agree("prediction", tm.predict_boosting(model, [[1], [4]]), [0.75, 5.25], *HAND)


def test_fit_boosting_log_by_hand():
    """y = 0 0 0 1: start log(1/3), p = 1/4; the right leaf gets (3/4) / (3/16) = 4."""
    model = tm.fit_boosting([[1], [2], [3], [4]], [0, 0, 0, 1], "log", 1, 0.5, 1)
    agree("start", model.start, np.log(1 / 3), *HAND)
    leaves = model.trees[0].left.value, model.trees[0].right.value
    agree("leaf values", leaves, [-0.25 / (3 / 16), 0.75 / (3 / 16)], *HAND)
    F = np.log(1 / 3) + 0.5 * np.array([-4 / 3, 4])
    agree("probabilities", tm.predict_boosting(model, [[1], [4]]), 1 / (1 + np.exp(-F)), *HAND)


def test_fit_boosting_log_takes_a_whole_newton_step_where_h_is_small():
    """One row of 1000 has the label 1: p = 1/1000, and alone in its leaf (11) is (1 - p) / (p (1 - p))."""
    nodes, y = [tm.Node(0.0), tm.Node(0.0), tm.Node(0.0)], np.arange(1000) == 0
    model = tm.boost(y, "log", 1, 0.5, 0.0, False, lambda g, h: (nodes, np.where(y, 1, 2)))
    agree("leaf values", [t.value for t in nodes], [0, 1000, -1000 / 999], *HAND)
    assert model.trees == [nodes[0]] and model.lr == 0.5


def test_mean_of_does_not_overflow():
    agree("sigmoid", tm.mean_of("log", np.array([-1e4, -np.log(3), 0, 1e4])), [0, 0.25, 0.5, 1], *HAND)
    agree("identity", tm.mean_of("squared", np.array([-1e4, 3])), [-1e4, 3], *HAND)


def test_friedman_data_is_its_function_plus_noise_of_variance_1():
    X, y = tm.friedman_data(rng_of(0), 5000)
    a, b, c, d, e = X[:, :5].T
    noise = y - (10 * np.sin(np.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e)
    agree("variance", np.var(noise), 1, 0.06, "5000 draws: three standard errors")
    agree("noise of this seed", noise, rng_with_noise(5000), 1e-12, "the same generator")


def rng_with_noise(n):
    rng = rng_of(0)
    rng.uniform(size=(n, 10))
    return rng.normal(size=n)


@pytest.mark.parametrize("loss, depth, leaf, lr", [
    ("squared", 1, 1, 0.1), ("squared", 3, 5, 0.1), ("squared", 3, 20, 0.5), ("squared", None, 40, 0.3),
    ("log", 1, 1, 0.1), ("log", 1, 5, 1.0), ("log", 3, 20, 0.1), ("log", 3, 50, 0.4),
])  # fmt: skip
def test_fit_boosting_stages_equal_the_library(loss, depth, leaf, lr):
    for seed in (0, 1):
        X, y = tm.friedman_data(rng_of(seed), 800)
        y = (y > 14).astype(int) if loss == "log" else y
        new = tm.friedman_data(rng_of(50), 200)[0]
        ours = list(tm.staged_scores(tm.fit_boosting(X, y, loss, 10, lr, depth, leaf), new))
        theirs = library_stages(tm.sklearn_boosting(X, y, loss, 10, lr, depth, leaf), new)
        agree("stages", ours[1:], theirs, *tm.ALLOWED["boosting"])
        agree("stage 0", ours[0], np.full(200, ours[0][0]), *HAND)


@pytest.mark.parametrize("fit", [tm.fit_boosting, tm.fit_newton_boosting])
@pytest.mark.parametrize("loss", ["squared", "log"])
def test_fit_boosting_lowers_the_training_loss_at_every_stage(fit, loss):
    X, y = tm.friedman_data(rng_of(0), 300)
    y = (y > 14).astype(int) if loss == "log" else y - 100
    losses = [np.mean((y - F) ** 2) if loss == "squared" else np.mean(np.logaddexp(0, F) - y * F)
              for F in tm.staged_scores(fit(X, y, loss, 25), X)]  # fmt: skip
    assert np.all(np.diff(losses) < 0) and losses[-1] < losses[0] / 2


@pytest.mark.parametrize("fit", [tm.fit_boosting, tm.fit_newton_boosting])
def test_predict_boosting_keeps_the_initial_prediction(fit):
    X, y = tm.friedman_data(rng_of(0), 200)
    shifted = tm.predict_boosting(fit(X, y + 1000, steps=3), X)
    agree("shift", shifted - 1000, tm.predict_boosting(fit(X, y, steps=3), X), 1e-6, "y + 1000 rounds")
    p = tm.predict_boosting(fit(X, y > 12, "log", 3), X)
    assert 0 < p.min() and p.max() < 1


def test_fit_boosting_with_labels_long_since_certain_stays_finite():
    X, y = np.arange(20.0)[:, None], (np.arange(20) > 9).astype(int)
    for fit in (tm.fit_boosting, tm.fit_newton_boosting):
        options = dict(l2=0.0, min_samples_leaf=1) if fit is tm.fit_newton_boosting else {}
        *_, F = tm.staged_scores(fit(X, y, "log", 300, 1.0, **options), X)
        assert np.all(np.isfinite(F)) and np.all((F > 0) == y)


# --- Second-order boosting ------------------------------------------------------------
def test_fit_newton_boosting_leaf_values_by_hand():
    """Squared: G = ∓6, H = 2, so v = ±6 / (2 + l2). Log: p = 1/2, G = ∓1, H = 1/2."""
    X = [[1], [2], [3], [4]]
    model = tm.fit_newton_boosting(X, [0, 0, 6, 6], "squared", 1, 0.5, 1, 1.0, 1)
    agree("values", [model.trees[0].left.value, model.trees[0].right.value], [-2, 2], *HAND)
    agree("predictions", tm.predict_boosting(model, X), [2, 2, 4, 4], *HAND)
    model = tm.fit_newton_boosting(X, [0, 0, 1, 1], "log", 1, 0.5, 1, 0.5, 1)
    agree("values", [model.trees[0].left.value, model.trees[0].right.value], [-1, 1], *HAND)


def test_fit_newton_boosting_of_a_tree_that_may_not_split_still_moves_every_row(monkeypatch):
    """After a large first step all rows are nearly sure, and h is too small for any second split."""
    X, y = [[1], [2], [3], [4]], np.array([0, 0, 0, 1])
    monkeypatch.setattr(tm, "MIN_HESSIAN", 0.18)
    model = tm.fit_newton_boosting(X, y, "log", 2, 5.0, 1, 0.5, 1)
    assert model.trees[0].left is not None and model.trees[1].left is None
    _, F, last = tm.staged_scores(model, X)
    agree("step 1", F[[0, 3]], np.log(1 / 3) + 5 * np.array([-0.75 / (9 / 16 + 0.5), 0.75 / (3 / 16 + 0.5)]),
          1e-6, "g and h are float32")  # fmt: skip
    p = 1 / (1 + np.exp(-F))
    step = -np.sum(p - y) / (np.sum(p * (1 - p)) + 0.5)
    assert abs(step) > 0.01
    agree("step 2", last - F, np.full(4, 5 * step), 1e-6, "g and h are float32")
    third = tm.fit_newton_boosting(X, y, "log", 3, 5.0, 1, 0.5, 1).trees[2]
    p = 1 / (1 + np.exp(-last))
    agree("step 3 sees step 2", third.value, -np.sum(p - y) / (np.sum(p * (1 - p)) + 0.5), 1e-6, "as above")


def test_fit_newton_boosting_uses_hessians_below_the_root():
    """Deeper splits must maximise (14) with the h of their own rows, which differ after a step."""
    X, y = tm.friedman_data(rng_of(7), 400)
    y = (y > 17).astype(int)
    first = tm.fit_newton_boosting(X, y, "log", 3, 1.0, 2, 0.5, 10)
    *_, _, F, _ = tm.staged_scores(first, X)
    p = 1 / (1 + np.exp(-F))
    g, h, root = p - y, p * (1 - p), first.trees[2]
    for t, inside in [(root, np.ones(400, bool)), (root.left, X[:, root.feature] <= root.threshold)]:
        best = -1
        for j in range(10):
            for cut in np.quantile(X[inside, j], np.linspace(0.02, 0.98, 80)):
                left = inside & (X[:, j] <= cut)
                if 10 <= left.sum() <= inside.sum() - 10:
                    sides = [(g[m].sum(), h[m].sum()) for m in (left, inside & ~left, inside)]
                    (a, b, c) = (G**2 / (H + 0.5) for G, H in sides)
                    best = max(best, a + b - c)
        left = inside & (X[:, t.feature] <= t.threshold)
        (a, b, c) = (g[m].sum() ** 2 / (h[m].sum() + 0.5) for m in (left, inside & ~left, inside))
        assert a + b - c > best - 1e-5, "some other split gains more"


@pytest.mark.parametrize("loss", ["squared", "log"])
@pytest.mark.parametrize("n, bins, missing, l2, lr, depth, leaf", [
    (300, 255, 0.0, 0.0, 0.1, 4, 20), (300, 255, 0.1, 1.0, 0.3, 3, 5), (800, 255, 0.2, 2.0, 0.1, 5, 20),
    (600, 16, 0.1, 0.5, 0.5, 4, 10), (500, 3, 0.3, 1.0, 0.2, 3, 1), (200, 64, 0.0, 5.0, 1.0, 2, 1),
    (700, 64, 0.0, 1.0, 0.1, 1, 1), (400, 255, 0.0, 1.0, 0.1, 7, 20),
])  # fmt: skip
def test_fit_newton_boosting_equals_the_library(loss, n, bins, missing, l2, lr, depth, leaf):
    for seed in (0, 1):
        X, y = tm.friedman_data(rng_of(seed), n)
        X[:, 6] = X[:, 6].round(1)  # few distinct values
        X[rng_of(seed + 10).uniform(size=X.shape) < missing] = NAN
        X[:, 7] = NAN if missing else 1.0  # nothing at all is known of it, or it never varies
        theirs = np.where(np.arange(10) == 7, 1.0, X)  # a column without values crashes the library
        new = tm.friedman_data(rng_of(50), 300)[0]
        new[rng_of(9).uniform(size=new.shape) < 0.2] = NAN  # also where the fit saw no gaps
        y = (y > 16).astype(int) if loss == "log" else y
        options = (loss, 6, lr, depth, l2, leaf, bins)
        *_, ours = tm.staged_scores(tm.fit_newton_boosting(X, y, *options), np.vstack([X, new]))
        model = tm.sklearn_newton_boosting(theirs, y, *options)
        score = model.predict if loss == "squared" else model.decision_function
        theirs = score(np.vstack([theirs, new]))
        spread = np.ptp(theirs)
        agree("known rows", ours[:n] / spread, theirs[:n] / spread, *tm.ALLOWED["newton boosting"])
        agree("new rows", ours[n:] / spread, theirs[n:] / spread, *tm.ALLOWED["newton boosting"])


def test_fit_newton_boosting_equals_the_library_with_gaps_in_some_features_and_two_bins():
    X, y = tm.friedman_data(rng_of(2), 500)
    X[rng_of(3).uniform(size=500) < 0.3, 3] = NAN
    for bins in (2, 255):
        options = ("squared", 8, 0.3, 4, 1.0, 20, bins)
        ours = tm.predict_boosting(tm.fit_newton_boosting(X, y, *options), X)
        theirs = tm.sklearn_newton_boosting(X, y, *options).predict(X)
        agree("predictions", ours / np.ptp(y), theirs / np.ptp(y), *tm.ALLOWED["newton boosting"])


def test_fit_newton_boosting_learns_where_missing_values_go():
    rng = rng_of(0)
    X = rng.uniform(size=(400, 1))
    for side, missing in [(True, X[:, 0] < 0.3), (False, X[:, 0] > 0.7)]:
        gaps = np.where(missing[:, None], NAN, X)
        root = tm.fit_newton_boosting(gaps, (X[:, 0] > 0.5).astype(float), steps=1, max_depth=1).trees[0]
        assert root.missing_left is side


def test_fit_newton_boosting_can_split_missing_from_known():
    X = np.array([[1.0], [2], [3], [NAN], [NAN], [NAN]])
    model = tm.fit_newton_boosting(X, [0, 0, 0, 1, 1, 1], "squared", 1, 1.0, 1, 0.0, 1)
    assert model.trees[0].threshold == INF and not model.trees[0].missing_left
    agree("values", tm.predict_boosting(model, X), [0, 0, 0, 1, 1, 1], *HAND)
    agree("a large value is known", tm.predict_boosting(model, [[1e9]]), [0], *HAND)


def test_fit_newton_boosting_sends_unforeseen_gaps_with_the_majority():
    X = np.arange(10.0)[:, None]
    for y in (X[:, 0] > 6, X[:, 0] > 2):
        root = tm.fit_newton_boosting(X, y.astype(float), steps=1, max_depth=1, min_samples_leaf=1).trees[0]
        assert root.missing_left == (root.left.n > root.right.n)


@pytest.mark.parametrize("bins", [2, 5, 9, 32, 255])
def test_find_bins_equals_the_library(bins):
    from sklearn.ensemble._hist_gradient_boosting.binning import _BinMapper

    rng = rng_of(0)
    X = np.column_stack([rng.normal(size=500), rng.integers(0, 9, 500), rng.normal(size=500).round(1)])
    X[rng.uniform(size=X.shape) < 0.1] = NAN
    theirs = _BinMapper(n_bins=bins + 1).fit(X).bin_thresholds_
    for ours, cuts in zip(tm.find_bins(X, bins), theirs):
        agree("thresholds", ours, cuts, *HAND)


def test_histogram_by_hand():
    binned = np.array([[0, 1, 1, 2], [2, 2, 0, 1]], dtype=np.uint8)
    g, h = np.array([1.0, 2, 4, 8]), np.array([0.1, 0.2, 0.3, 0.4])
    sums = tm.histogram(binned, np.array([1, 3, 2]), g, h, 2)
    agree("g", sums[0], [[0, 6, 8], [4, 8, 2]], *HAND)
    agree("h", sums[1], [[0, 0.5, 0.4], [0.3, 0.4, 0.2]], *HAND)
    agree("counts", sums[2], [[0, 2, 1], [1, 1, 1]], *HAND)


def test_best_bin_by_hand():
    """G = -3 | 2 | 1 in three bins, H = 2 each, λ = 1: 9/3 - 0 + 9/5 after the first one. The second
    feature has a row less there, which is nan: on the right it costs 1/3, on the left nothing."""
    G, H, n = [[-3, 2, 1, 0], [-2, 2, 1, -1]], [[2, 2, 2, 0], [1, 2, 2, 1]], [[3, 3, 3, 0], [2, 3, 3, 1]]
    sums = np.array([G, H, n], dtype=float)
    assert tm.best_bin(sums[:, :1], 1.0, 1) == (9 / 3 + 9 / 5, 0, 0, False)
    gain, j, cut, nan_left = tm.best_bin(sums[:, 1:], 1.0, 1)
    agree("nan on the left", gain, 9 / 3 + 9 / 5, *HAND)
    assert (j, cut, nan_left) == (0, 0, True)
    assert tm.best_bin(sums, 1.0, 4) == (0, 1, 1, False), "only there each side has 4 rows"
    one_sided = np.array([[[-3.0, 3, 0]], [[1.0, 1, 0]], [[5.0, 5, 0]]])
    small = one_sided * [[[1]], [[0.004]], [[1]]]
    agree("small H", tm.best_bin(small, 0.0, 5)[0], 2 * 9 / 0.004, *HAND)
    assert tm.best_bin(one_sided * [[[1]], [[tm.MIN_HESSIAN]], [[1]]], 0.5, 5)[0] > 0, "just enough H"
    agree("gain", tm.best_bin(one_sided, 0.5, 5)[0], 9 / 1.5 + 9 / 1.5, *HAND)
    assert tm.best_bin(one_sided, 0.5, 6)[0] == -INF


def test_fit_newton_boosting_keeps_min_hessian_and_min_samples_leaf(monkeypatch):
    X, y = tm.friedman_data(rng_of(1), 300)
    y = (y > 20).astype(int)
    p = y.mean()
    model = tm.fit_newton_boosting(X, y, "log", 1, 1.0, 6, 0.0, 17)
    assert min(t.n for t in tm.list_nodes(model.trees[0])) >= 17
    monkeypatch.setattr(tm, "MIN_HESSIAN", 3.0)
    model = tm.fit_newton_boosting(X, y, "log", 1, 1.0, 6, 0.0, 1)
    leaves = [t for t in tm.list_nodes(model.trees[0]) if t.left is None]
    assert min(t.n for t in leaves) * p * (1 - p) >= 3.0 > (min(t.n for t in leaves) - 8) * p * (1 - p)


def test_fit_newton_boosting_does_not_split_without_gain():
    model = tm.fit_newton_boosting([[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], min_samples_leaf=1)
    assert all(root.left is None for root in model.trees)  # XOR: no first split gains
    one = tm.fit_newton_boosting([[1.0], [2]], [5.0, 5.0], steps=2, min_samples_leaf=1)
    agree("constant y", tm.predict_boosting(one, [[1.0], [NAN]]), [5, 5], *HAND)


@pytest.mark.parametrize("fit, options, message", [
    (tm.fit_boosting, dict(loss="hinge"), "loss must be squared or log"),
    (tm.fit_boosting, dict(steps=0), "steps"), (tm.fit_boosting, dict(steps=2.5), "steps"), (tm.fit_boosting, dict(steps="9"), "steps"),
    (tm.fit_boosting, dict(lr=0.0), "lr"), (tm.fit_boosting, dict(lr=NAN), "lr"),
    (tm.fit_boosting, dict(max_depth=0), "max_depth"), (tm.fit_boosting, dict(max_depth=1.5), "max_depth"),
    (tm.fit_boosting, dict(min_samples_leaf=0), "min_samples_leaf"),
    (tm.fit_boosting, dict(loss="log"), "y must hold every label from 0 to 1"),
    (tm.fit_newton_boosting, dict(loss="log"), "y must hold every label from 0 to 1"),
    (tm.fit_newton_boosting, dict(l2=-1.0), "l2"), (tm.fit_newton_boosting, dict(l2=INF), "l2"),
    (tm.fit_newton_boosting, dict(bins=1), "bins"), (tm.fit_newton_boosting, dict(bins=9.5), "bins"), (tm.fit_newton_boosting, dict(bins=256), "bins"),
    (tm.fit_newton_boosting, dict(max_depth=0), "max_depth"),
    (tm.fit_newton_boosting, dict(lr=-0.1), "lr"), (tm.fit_newton_boosting, dict(steps=0), "steps"),
    (tm.fit_newton_boosting, dict(min_samples_leaf=0), "min_samples_leaf"),
])  # fmt: skip
def test_fit_boosting_refuses_options(fit, options, message):
    X, y = problem(0, 20, 3)
    with pytest.raises((ValueError, TypeError), match=message):
        fit(X, y, **options)


# --- Categorical features -------------------------------------------------------------
def test_encode_ordinal_and_one_hot_by_hand():
    column, categories = ["b", "a", "zz", "c", ""], ["a", "b", "c"]
    agree("ordinal", tm.encode_ordinal(column, categories), [1, 0, -1, 2, -1], *HAND)
    agree("one-hot", tm.encode_one_hot(column, categories),
          [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]], *HAND)  # fmt: skip
    agree("numbers", tm.encode_ordinal([7, 3, 5], [3, 7]), [1, 0, -1], *HAND)


def test_encode_target_by_hand():
    """a: y = 1, 3; b: y = 8; mean 4. With m = 1: (4 + 4) / 3 and (8 + 4) / 2."""
    known = ["a", "b", "a"], [1, 8, 3], ["b", "a", "?"]
    agree("codes", tm.encode_target(*known, m=1), [6, 8 / 3, 4], *HAND)
    agree("m = 0", tm.encode_target(*known, m=0), [8, 2, 4], *HAND)


def test_encode_out_of_fold_by_hand():
    """Each half is coded by the other one; c is unknown there, so it gets that half's mean."""
    folds = [([0, 1], [2, 3]), ([2, 3], [0, 1])]
    codes = tm.encode_out_of_fold(["a", "b", "a", "c"], [1, 3, 5, 9], folds, m=0)
    agree("codes", codes, [5, 7, 1, 2], *HAND)


@pytest.mark.parametrize("m", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("kind", ["text", "number"])
def test_encoders_equal_the_library(m, kind):
    for seed in range(3):
        rng = rng_of(seed)
        column = rng.integers(0, 30, size=300) * 1.5
        column = column.astype(str) if kind == "text" else column
        y, folds = rng.normal(size=300) + 3, k_fold(300, 4, rng)
        new = np.append(column[:50], ["unseen"] if kind == "text" else [-7.0])
        one_hot, ordinal, target, out_of_fold = tm.sklearn_encoders(column, y, folds, m)
        X, names, same = new[:, None], np.unique(column), HAND
        agree("one-hot", tm.encode_one_hot(new, names), one_hot.transform(X), *same)
        agree("ordinal", tm.encode_ordinal(new, names), ordinal.transform(X)[:, 0], *same)
        near = tm.ALLOWED["sums"]
        agree("target", tm.encode_target(column, y, new, m), target.transform(X)[:, 0], *near)
        agree("out of fold", tm.encode_out_of_fold(column, y, folds, m), out_of_fold, *near)


def test_encode_target_leaks_on_pure_noise_unless_out_of_fold():
    for seed in range(3):
        rng = rng_of(seed)
        column, y = rng.permutation(900) % 300, rng.permutation(900) % 2
        leaky = tm.encode_target(column, y, column)
        safe = tm.encode_out_of_fold(column, y, k_fold(900, 5, rng))
        assert roc_auc(y, leaky) > 0.75, "three rows per category: the own y is a third of the code"
        assert abs(roc_auc(y, safe) - 0.5) < 0.08


def test_encoders_take_10000_categories_quickly():
    rng = rng_of(0)
    column = np.array([f"name {i}" for i in rng.permutation(20000) // 2])
    start = time.process_time()
    codes = tm.encode_target(column, rng.normal(size=20000), column)
    assert len(np.unique(codes)) == 10000 and codes.shape == (20000,)
    assert time.process_time() - start < 2
    wide = tm.encode_one_hot(column[:50], np.unique(column))
    assert wide.shape == (50, 10000) and wide.sum() == 50


@pytest.mark.parametrize("column", [[], [["a"]], ["a", None], [1.0, NAN], [b"a"], None, "a", [1j]])
def test_encoders_refuse_columns(column):
    with pytest.raises((ValueError, TypeError), match="column must"):
        tm.encode_ordinal(column, ["a"])
    with pytest.raises((ValueError, TypeError), match="column must"):
        tm.encode_target(column, [1.0], ["a"])
    with pytest.raises((ValueError, TypeError), match="column must"):
        tm.encode_target(["a"], [1.0], column)


def test_encode_target_refuses_other_arguments():
    with pytest.raises(ValueError, match="y must have shape"):
        tm.encode_target(["a", "b"], [[1], [2]], ["a"])
    with pytest.raises(ValueError, match="m must be"):
        tm.encode_target(["a", "b"], [1, 2], ["a"], m=-1)


@pytest.mark.parametrize("folds", [
    None, 3, [], [([0, 1], [2])], [([0, 1], [2]), ([2], [0, 0])], [([0, 1], [2]), ([2], [0, 1, 1])],
    [([0, 1], [2]), ([2], [0, 9])], [([0, 1], [2]), ([2], ["a", "b"])], [([0, 1], [2]), [2]],
    [([0, 1], [2]), ([2, 9], [0, 1])], [([0, 1, 2], [2]), ([2], [0, 1])], [([0], [2]), ([2], [0, 1])],
], ids=repr)  # fmt: skip
def test_encode_out_of_fold_refuses_folds_that_do_not_test_each_row_once(folds):
    with pytest.raises(ValueError, match="folds must be pairs"):
        tm.encode_out_of_fold(["a", "b", "a"], [1, 2, 3], folds)


# --- Importance -----------------------------------------------------------------------
def test_impurity_importance_by_hand():
    """XOR-like y = 2 x0 + x1 on the four corners: gains 4 and 2 * 1/2, shares 0.8 and 0.2."""
    X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    root = tm.fit_tree(X, 2 * X[:, 0] + X[:, 1], "variance")
    agree("shares", tm.impurity_importance([root]), [0.8, 0.2], *HAND)
    single = tm.Node(0.0, 4, 1.0, d=2)
    agree("a tree without questions has no say", tm.impurity_importance([root, single]), [0.8, 0.2], *HAND)
    agree("none has", tm.impurity_importance([single]), [0, 0], *HAND)
    stump = tm.fit_tree(X, X[:, 1], "variance")
    agree("mean over trees", tm.impurity_importance([root, stump]), [0.4, 0.6], *HAND)


@pytest.mark.parametrize("criterion", ["gini", "entropy", "variance"])
def test_impurity_importance_equals_the_library(criterion):
    X, y = problem(2, 300, 6, 0 if criterion == "variance" else 3)
    model = tm.sklearn_tree(X, y, criterion)
    shares = tm.impurity_importance([nodes_from_sklearn(model)[0]])
    agree("tree", shares, model.feature_importances_, *tm.ALLOWED["sums"])
    forest, _ = tm.sklearn_forest(X, y, criterion, 30, max_depth=4)
    roots = [nodes_from_sklearn(m)[0] for m in forest.estimators_]
    shares, theirs = tm.impurity_importance(roots), forest.feature_importances_
    agree("forest", shares, theirs, *tm.ALLOWED["sums"])


@pytest.mark.parametrize("permutations", [
    None, 3, [0, 1, 2], [[0, 1]], [[0, 1, 1]], [[0, 1, 2], [0, 2, 3]], [[0, 1, 2, 3]], [["a", "b", "c"]], [[]],
    [[0.5, 1, 2]],
], ids=repr)  # fmt: skip
def test_permutation_importance_refuses_what_is_no_permutation(permutations):
    with pytest.raises((ValueError, TypeError), match="permutations must"):
        tm.permutation_importance(lambda X: X[:, 0], np.eye(3), [1, 2, 3], mse, permutations)


def test_permutation_importance_by_hand():
    X, y = np.array([[1.0, 5], [2, 5], [3, 6]]), np.array([1.0, 2, 3])
    drops = tm.permutation_importance(
        lambda X: X[:, 0], X, y, lambda y, p: -mse(y, p), [[1, 0, 2], [2, 1, 0], [0, 1, 2]]
    )
    agree("drops", drops, [[2 / 3, 8 / 3, 0], [0, 0, 0]], *HAND)
    assert drops.shape == (2, 3)
    agree("X stays as it was", X, [[1, 5], [2, 5], [3, 6]], *HAND)


@pytest.mark.parametrize("seed, repeats", [(0, 1), (3, 7)])
def test_permutation_importance_equals_the_library_given_its_permutations(seed, repeats):
    from sklearn.inspection import permutation_importance

    X, y = problem(seed, 150, 4)
    model = tm.sklearn_tree(X, y, "variance", 4)
    orders = tm.sklearn_permutations(150, repeats, seed)
    ours = tm.permutation_importance(model.predict, X, y, r2_score, orders)
    theirs = permutation_importance(model, X, y, n_repeats=repeats, random_state=seed).importances
    agree("drops", ours, theirs, *tm.ALLOWED["sums"])


# --- Your own table -------------------------------------------------------------------
def test_encode_table_by_hand():
    """Codes come from the train rows: out of fold for these, all of them for row 4, mean(y) if new."""
    train, folds = np.array([0, 1, 2, 3]), [([0, 1], [2, 3]), ([2, 3], [0, 1])]
    columns = {"a": np.array([1.0, NAN, 3, 4, NAN, 6]), "b": np.array(list("xyxyx") + ["new"]),
               "c": np.array([NAN] * 4 + [7, NAN])}  # fmt: skip
    y = np.array([1.0, 3, 5, 9, 100, 100])
    X = tm.encode_table(columns, [y, y + 1], train, folds)
    assert X.shape == (6, 4) and np.isnan(X[:, 0]).tolist() == [False, True, False, False, True, False]
    agree("numbers", X[[0, 2, 3, 5], 0], [1, 3, 4, 6], *HAND)
    codes = [(5 + 7) / 2, (9 + 7) / 2, (1 + 2) / 2, (3 + 2) / 2, (1 + 5 + 4.5) / 3, 4.5]
    agree("codes", X[:, 1], codes, *HAND)
    agree("codes of the second target", X[:, 2], np.array(codes) + 1, *HAND)
    agree("nothing known in training", X[:, 3], np.zeros(6), *HAND)


def table(path, kind, n=240, cities=4):
    """A CSV file with gaps, a text column, a column without values and a target that depends on both."""
    rng, lines = rng_of(0), ["age,city,income,empty,goal"]
    for i in range(n):
        age, city, income = rng.integers(18, 80), rng.integers(cities), rng.normal()
        score = age / 20 + 2 * (city % 2) + 0.2 * rng.normal()
        goal = {"text": "yes" if score > 4 else "no", "01": int(score > 4), "number": f"{score:.3f}",
                "three": int(score > 3) + int(score > 4), "constant": 1}[kind]  # fmt: skip
        income = "" if i % 9 == 0 else f"{income:.3f}"
        lines.append(f"{age if i % 7 else 'NA'},{f'c{city}' if city else ''},{income},,{'' if i == 5 else goal}")
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("kind", ["text", "number", "three"])
def test_evaluate_table_judges_all_models_on_rows_kept_back(kind, tmp_path, capsys):
    path = table(tmp_path / "t.csv", kind)
    scores = tm.evaluate_table(path, "goal")
    out, err = capsys.readouterr()
    assert err.startswith("growing trees on 179 rows"), "longer work shows progress"
    assert f"{'r2_score' if kind == 'number' else 'accuracy'} on 60 of 239 rows" in out
    for name, value in scores.items():
        assert f"  {name:16} {value:8.3f}\n" in out
    columns, y, labels = tm.read_table(path, "goal")
    if labels is None:
        how, loss, (train, test) = "variance", "squared", tm.train_test_split(rng_of(0), len(y))
        same = 1 - np.mean((y[test] - y[train].mean()) ** 2) / np.var(y[test])
    else:
        how, loss, (train, test) = "gini", "log", tm.stratified_k_fold(y, 4)[0]
        same = np.mean(y[test] == np.bincount(y[train]).argmax())
    targets = [y == 1, y == 2] if kind == "three" else [y]
    X = tm.encode_table(columns, targets, train, k_fold(len(train), 5, rng_of(0)))
    agree("the same for all", scores["the same for all"], same, *HAND)
    filled = np.where(np.isnan(X), [np.mean(x[~np.isnan(x)]) for x in X[train].T], X)
    library = {
        "tree": tm.sklearn_tree(filled[train], y[train], how, None, 5).score(filled[test], y[test]),
        "forest": tm.sklearn_forest(filled[train], y[train], how)[0].score(filled[test], y[test]),
        "boosting": tm.sklearn_newton_boosting(X[train], y[train], loss).score(X[test], y[test]),
    }  # fmt: skip
    for name, theirs in library.items():
        assert scores[name] > same + 0.2, f"{name} must beat the same answer for all"
        assert abs(scores[name] - theirs) < 0.07, f"{name} is about as good as the library's"


def test_evaluate_table_takes_thousands_of_categories_and_some_never_seen(tmp_path, capsys):
    path = table(tmp_path / "t.csv", "01", 900, 10000)
    scores = list(tm.evaluate_table(path, "goal").values())
    assert len(scores) == 4 and np.all(np.isfinite(scores)) and "of 899 rows" in capsys.readouterr().out


@pytest.mark.parametrize("kind, n, goal, message", [
    ("constant", 60, "goal", "goal must have two classes"), ("01", 1, "goal", "20 rows"),
    ("01", 60, "nope", "has no column 'nope'"), ("number", 12, "goal", "20 rows"),
])  # fmt: skip
def test_evaluate_table_refuses_tables_in_one_sentence(kind, n, goal, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        tm.evaluate_table(table(tmp_path / "t.csv", kind, n), goal)


# --- Everything that fits or predicts refuses nonsense --------------------------------
FITS = {
    "fit_tree": tm.fit_tree, "fit_tree variance": lambda X, y: tm.fit_tree(X, y, "variance"),
    "fit_forest": lambda X, y: tm.fit_forest(X, y, trees=2),
    "fit_boosting": lambda X, y: tm.fit_boosting(X, y, steps=2),
    "fit_boosting log": lambda X, y: tm.fit_boosting(X, y, "log", steps=2),
    "fit_newton_boosting": lambda X, y: tm.fit_newton_boosting(X, y, steps=2),
    "fit_newton_boosting log": lambda X, y: tm.fit_newton_boosting(X, y, "log", steps=2),
    "permutation_importance": lambda X, y: tm.permutation_importance(
        lambda X: np.zeros(len(X)), X, y, mse, [[0, 1, 2, 3]]),
}  # fmt: skip
GOOD_X, GOOD_Y = [[1.0, 2], [2, 1], [3, 5], [4, 4]], [0, 1, 1, 0]


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("X, y, word", [
    ([[1, INF], [2, 3], [4, 5], [6, 7]], GOOD_Y, "X must"), ([], [], "X must"), (None, GOOD_Y, "X must"),
    ([["a", "b"]] * 4, GOOD_Y, "X must"), ([1, 2, 3, 4], GOOD_Y, "X must"), ([[1, 2], [3]], GOOD_Y, "X must"),
    (np.zeros((4, 0)), GOOD_Y, "X must"), (GOOD_X, [0, 1, 1], "y must"), (GOOD_X, None, "y must"),
    (GOOD_X, [[0], [1], [1], [0]], "y must"), (GOOD_X, [0, 1, NAN, 0], "y must"),
    (GOOD_X, ["a", "b", "b", "a"], "y must"), (GOOD_X, [0, 1, INF, 0], "y must"),
])  # fmt: skip
def test_fit_refuses_bad_data(name, X, y, word):
    with pytest.raises((ValueError, TypeError), match=word):
        FITS[name](X, y)


@pytest.mark.parametrize("name", [n for n in FITS if "newton" not in n])
def test_fit_refuses_missing_values_where_it_cannot_handle_them(name):
    with pytest.raises(ValueError, match="X must hold finite"):
        FITS[name]([[1, NAN], [2, 3], [4, 5], [6, 7]], GOOD_Y)


@pytest.mark.parametrize("options, word", [
    (dict(max_depth=0), "max_depth"), (dict(max_depth="3"), "max_depth"), (dict(max_depth=NAN), "max_depth"),
    (dict(min_samples_leaf=0), "min_samples_leaf"), (dict(min_samples_leaf=1.5), "min_samples_leaf"),
    (dict(min_impurity_decrease=-0.1), "min_impurity_decrease"),
    (dict(min_impurity_decrease=NAN), "min_impurity_decrease"),
    (dict(criterion="squared_error"), "criterion must be gini, entropy or variance"),
])  # fmt: skip
def test_fit_tree_refuses_options(options, word):
    with pytest.raises((ValueError, TypeError), match=word):
        tm.fit_tree(GOOD_X, GOOD_Y, **options)


@pytest.mark.parametrize("y", [[1, 1, 1, 1], [1, 2, 1, 2], [0, 2, 0, 2], [0, 0.5, 1, 0]])
def test_fit_tree_refuses_labels_with_gaps_and_a_single_class(y):
    with pytest.raises(ValueError, match="y must hold every label"):
        tm.fit_tree(GOOD_X, y)


PREDICTS = {
    "predict_tree": lambda X: tm.predict_tree(tm.fit_tree(GOOD_X, GOOD_Y), X),
    "predict_forest": lambda X: tm.predict_forest(tm.fit_forest(GOOD_X, GOOD_Y, trees=2), X),
    "predict_boosting": lambda X: tm.predict_boosting(tm.fit_boosting(GOOD_X, GOOD_Y, steps=2), X),
    "predict_boosting newton": lambda X: tm.predict_boosting(
        tm.fit_newton_boosting(GOOD_X, GOOD_Y, steps=2, min_samples_leaf=1), X),
}  # fmt: skip


@pytest.mark.parametrize("name", PREDICTS)
@pytest.mark.parametrize("X", [
    [[1.0]], [[1, 2, 3]], [1.0, 2.0], [[1, INF]], [["a", "b"]], None, [], [[1, 1e200]],
], ids=repr)  # fmt: skip
def test_predict_refuses_bad_data(name, X):
    with pytest.raises((ValueError, TypeError), match="X must"):
        PREDICTS[name](X)


def test_predict_refuses_missing_values_unless_fitted_for_them():
    for name, predict in PREDICTS.items():
        if "newton" in name:
            assert np.all(np.isfinite(predict([[NAN, 1], [NAN, NAN]])))
        else:
            with pytest.raises(ValueError, match="X must hold finite"):
                predict([[1, NAN]])


@pytest.mark.parametrize("name", ["fit_tree variance", "fit_boosting", "fit_newton_boosting"])
def test_fit_one_row_and_one_feature(name):
    model = FITS[name]([[2.0]], [7.0])
    predict = tm.predict_tree if name.startswith("fit_tree") else tm.predict_boosting
    agree("the only answer", predict(model, [[1.0], [99.0]]), [7, 7], *HAND)
