"""What embeddings.py promises, in the order it is read: `pytest -x` names the first equation
that is wrong. Rewrite a function and run `pytest -k its_name -x`."""

import itertools
import json
import math
import shutil
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import agree

import embeddings as em
from utils import DidNotConverge, confusion_matrix, make_blobs

EXACT = 1e-12, "worked by hand"
SEEDS = [0, 1, 2]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def slopes(f, x, h=1e-6):
    """Central differences: how much f changes when one entry of x is nudged, for every entry."""
    out = np.zeros(x.shape)
    for i in np.ndindex(*x.shape):
        nudge = np.zeros(x.shape)
        nudge[i] = h
        out[i] = (f(x + nudge) - f(x - nudge)) / (2 * h)
    return out


def refuses(match, function, *args, error=ValueError, **options):
    with pytest.raises(error, match=match):
        function(*args, **options)


# --- Similarity -----------------------------------------------------------------------
def test_unit_rows_by_hand():
    agree("unit_rows", em.unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]], *EXACT)


def test_squared_distances_by_hand():
    D = em.squared_distances(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]]))
    agree("squared distances", D, [[25, 1, 4], [0, 20, 13]], *EXACT)


def test_squared_distances_keep_their_digits_far_from_the_origin():
    X = normal(0, 20, 3)
    near, far = em.squared_distances(X, X), em.squared_distances(X + 2.0**20, X + 2.0**20)
    agree("distances after a move", far, near, 1e-8, "X + 2^20 itself has lost 20 of 52 bits")
    assert (near >= 0).all() and (far >= 0).all()


@pytest.mark.parametrize("metric, expected", [("dot", 24), ("cosine", 24 / 25), ("euclidean", math.sqrt(2))])
def test_similarity_by_hand(metric, expected):
    agree(metric, em.similarity([[3, 4]], [[4, 3]], metric), [[expected]], *EXACT)


def test_similarity_of_a_zero_vector_is_zero():
    agree("cosine of zeros", em.similarity([[0, 0], [1, 1]], [[1, 0], [0, 0]])[[0, 0, 1], [0, 1, 1]], [0, 0, 0], *EXACT)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (30, 20, 50)])
@pytest.mark.parametrize("metric", ["dot", "cosine", "euclidean"])
def test_similarity_equals_scikit_learn(metric, shape):
    from sklearn.metrics import pairwise

    n, m, d = shape
    names = {"dot": "linear_kernel", "cosine": "cosine_similarity", "euclidean": "euclidean_distances"}
    A, B = normal(0, n, d), normal(1, m, d)
    agree(metric, em.similarity(A, B, metric), getattr(pairwise, names[metric])(A, B), *em.ALLOWED["similarity"])


def test_similarity_refuses_what_cannot_be_compared():
    A = np.ones((2, 3))
    refuses("as many columns each, not .2, 3. and .2, 2.", em.similarity, A, np.ones((2, 2)))
    refuses("metric must be .*not 'cos'", em.similarity, A, A, "cos")
    refuses("A must have 2 dim", em.similarity, A[0], A)
    refuses("B must have 2 dim", em.similarity, A, A[0])
    refuses("finite", em.similarity, A * np.nan, A)
    refuses("finite", em.similarity, A, A * np.inf)
    refuses("real numbers", em.similarity, [["a"]], A, error=TypeError)


@pytest.mark.parametrize("metric, rows, values", [
    ("dot", [1, 0, 2], [24, 6, 2]),
    ("cosine", [2, 0, 1], [1, 3 / math.sqrt(10), 2 / math.sqrt(5)]),
    ("euclidean", [0, 2, 1], [1, math.sqrt(4.5), math.sqrt(50)]),
])  # fmt: skip
def test_nearest_by_hand(metric, rows, values):
    found, numbers = em.nearest([[2, 1], [9, 3], [0.5, 0.5]], [[2, 2]], 3, metric)
    agree("rows", numbers, [rows], *EXACT)
    agree("values", found, [values], *EXACT)


def test_nearest_lists_equal_rows_in_order():
    X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    agree("rows", em.nearest(X, [[1, 0]], 5)[1], [[0, 2, 3, 1, 4]], *EXACT)
    agree("rows", em.nearest(X, [[0, 1]], 5, "euclidean")[1], [[1, 4, 0, 2, 3]], *EXACT)


@pytest.mark.parametrize("n, d, k", [(1, 1, 1), (50, 3, 1), (50, 3, 7), (50, 40, 50)])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_nearest_equals_scikit_learn(metric, n, d, k):
    X, queries = normal(0, n, d), normal(1, 9, d)
    distances, rows = em.sklearn_nearest(X, k, metric).kneighbors(queries)
    values, ours = em.nearest(X, queries, k, metric)
    agree("values", values, distances if metric == "euclidean" else 1 - distances, *em.ALLOWED["similarity"])
    if d > 1:
        agree("rows", ours, rows, *em.ALLOWED["numbers"])


@pytest.mark.parametrize("k, error", [(0, ValueError), (4, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_nearest_refuses_more_neighbours_than_rows(k, error):
    refuses("k must be", em.nearest, np.eye(3), np.eye(3), k, error=error)
    refuses("X must have 2 dim", em.nearest, np.ones(3), np.eye(3), 1)
    refuses("queries must have 2 dim", em.nearest, np.eye(3), np.ones(3), 1)


# --- SVD ------------------------------------------------------------------------------
def test_rotate_pairs_by_hand():
    """Columns (1, 0) and (1, 1) meet at 45 degrees; after one turn they are perpendicular."""
    W = np.array([[1.0, 0], [1, 1]])
    assert em.rotate_pairs(W, np.array([0]), np.array([1])) == pytest.approx(1 / math.sqrt(2))
    agree("p.q", W[0] @ W[1], 0, *EXACT)
    theta = math.atan(2) / 2  # tan 2 theta = 2 p.q / (|q|^2 - |p|^2) = 2
    c, s = math.cos(theta), math.sin(theta)
    agree("p, q", W, [[c - s, -s], [s + c, c]], *EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_rotate_pairs_turns_by_at_most_45_degrees_and_keeps_W_Wt(seed):
    W = normal(seed, 6, 4)
    W[2] = W[3]  # of one length: a turn by 45 degrees
    before, i, j = W.copy(), np.array([0, 2, 4]), np.array([1, 3, 5])
    cosines = [before[a] @ before[b] / np.linalg.norm(before[a]) / np.linalg.norm(before[b]) for a, b in zip(i, j)]
    agree("largest |cosine|", em.rotate_pairs(W, i, j), np.abs(cosines).max(), *EXACT)
    for a, b in zip(i, j):
        agree("p.q", W[a] @ W[b], 0, *EXACT)
        agree("what a turn keeps", W[[a, b]].T @ W[[a, b]], before[[a, b]].T @ before[[a, b]], *EXACT)
        turn = np.linalg.lstsq(before[[a, b]].T, W[a], rcond=None)[0] if a != 2 else [math.cos(math.pi / 4)]
        assert turn[0] >= math.cos(math.pi / 4) - 1e-12, "the smaller of the two possible turns"


def test_rotate_pairs_leaves_perpendicular_rows_alone():
    W = np.array([[2.0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]])
    before = W.copy()
    assert em.rotate_pairs(W, np.array([0, 1]), np.array([2, 3])) == 0
    agree("W", W, before, *EXACT)
    assert em.rotate_pairs(W, np.array([], int), np.array([], int)) == 0
    for size in [1, 1e-100]:
        apart = size * np.array([[1.0, 0], [-1, 1]])  # 135 degrees: the cosine is negative
        assert em.rotate_pairs(apart, np.array([0]), np.array([1])) == pytest.approx(1 / math.sqrt(2))


def test_svd_jacobi_by_hand():
    U, s, Vt = em.svd_jacobi([[3, 0], [4, 5]])
    agree("s", s, [math.sqrt(45), math.sqrt(5)], *EXACT)
    agree("U s Vt", (U * s) @ Vt, [[3, 0], [4, 5]], *EXACT)


def matrices():
    ones = np.outer(np.arange(1.0, 7), [1.0, 2.0, -1.0])
    yield from [normal(i, *shape) for i, shape in enumerate([(1, 1), (7, 1), (1, 6), (12, 5), (9, 9), (4, 11), (60, 20)])]
    yield normal(0, 30, 4) @ normal(1, 4, 12)  # rank 4
    yield from [ones, ones.T, np.zeros((4, 3)), np.eye(5), np.ones((6, 6)), np.diag([1.0, 0, 2, 0])]
    yield normal(0, 8, 6) * 10.0 ** np.arange(0, -30, -5)  # badly scaled columns
    yield 1e90 * normal(0, 6, 4)
    yield -np.abs(normal(0, 5, 3))
    yield np.array([[1.0, 2], [3, 1e-170]])
    yield 1e-160 * normal(0, 6, 4)


@pytest.mark.parametrize("A", list(matrices()), ids=lambda A: f"{A.shape[0]}x{A.shape[1]}")
def test_svd_jacobi_on_every_kind_of_matrix(A):
    kept = A.copy()
    U, s, Vt = em.svd_jacobi(A)
    size = np.abs(A).max() or 1
    agree("A is left alone", A, kept, *EXACT)
    agree("s", s / size, np.linalg.svd(A / size, compute_uv=False), *em.ALLOWED["steps"])
    agree("U s Vt", (U * (s / size)) @ Vt, A / size, *em.ALLOWED["steps"])
    agree("U'U", U.T @ U, np.eye(len(s)), *em.ALLOWED["steps"])
    agree("V'V", Vt @ Vt.T, np.eye(len(s)), *em.ALLOWED["steps"])
    assert (s >= 0).all() and (np.diff(s) <= 0).all()


@pytest.mark.parametrize("D", list(itertools.permutations([1, 1e-10, 1e-20])))
def test_svd_jacobi_keeps_the_digits_of_small_singular_values(D):
    """For A = B diag(D) with whole B, the inverse is known exactly, and its norm is 1 / smallest s.

    LAPACK loses all digits for one of these orders. Products of s are known too: |det A|."""
    B, inverse = np.array([[1.0, 1, 1], [1, 2, 3], [1, 3, 6]]), np.array([[3.0, -3, 1], [-3, 5, -2], [1, -2, 1]])
    s = em.svd_jacobi(B * D)[1]
    smallest = 1 / np.linalg.norm(inverse / np.array(D)[:, None], 2)
    agree("s / exact", [s[2] / smallest, s.prod() / 1e-30], [1, 1], 1e-13, "each s keeps its own digits")


def test_svd_jacobi_says_when_it_runs_out_of_sweeps(monkeypatch):
    turns = []
    monkeypatch.setattr(em, "rotate_pairs", lambda W, i, j: turns.append((i, j)) or 0.5)
    with pytest.warns(DidNotConverge, match="cosine 5.0e-01 left after 30 sweeps"):
        em.svd_jacobi(normal(0, 10, 8))
    assert len(turns) == 30 * 8


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_svd_jacobi_lets_every_column_meet_every_other_once_a_sweep(monkeypatch, n):
    met = []
    monkeypatch.setattr(em, "rotate_pairs", lambda W, i, j: met.append((i, j)) or 0.0)
    em.svd_jacobi(np.eye(n))
    for i, j in met:
        assert len({*i, *j}) == len(i) + len(j), "a column would turn twice at once"
    assert sorted(pair for i, j in met for pair in zip(i, j)) == list(itertools.combinations(range(n), 2))


def test_svd_jacobi_refuses_bad_input():
    refuses("A must have 2 dim", em.svd_jacobi, [1, 2])
    refuses("finite", em.svd_jacobi, [[1, np.nan]])
    refuses("a row and a column", em.svd_jacobi, np.ones((0, 2)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("m, n, k", [(40, 15, 3), (15, 40, 5), (20, 20, 1), (6, 4, 4)])
def test_svd_randomized_equals_scikit_learn_from_the_same_matrix(m, n, k, seed):
    A = normal(seed, m, n) * 0.7 ** np.arange(n)
    ours = em.svd_randomized(A, k, np.random.RandomState(3))
    theirs = em.sklearn_svd_randomized(A, k, np.random.RandomState(3))
    agree("s", ours[1], theirs[1], *em.ALLOWED["steps"])
    agree("Vt up to sign", em.fix_signs(ours[2]), em.fix_signs(theirs[2]), *em.ALLOWED["steps"])
    products = [(U * s) @ Vt for U, s, Vt in (ours, theirs)]
    agree("U s Vt", *products, *em.ALLOWED["steps"])
    assert ours[0].shape == (m, k) and ours[2].shape == (k, n)


def test_svd_randomized_misses_hardly_more_than_the_best():
    A = normal(0, 60, 40) * 0.8 ** np.arange(40)
    U, s, Vt = em.svd_randomized(A, 6, np.random.default_rng(0))
    missed = np.linalg.norm(A - (U * s) @ Vt) / np.sqrt(np.sum(np.linalg.svd(A)[1][6:] ** 2))
    agree("missed / equation (5)", missed, 1, 1e-4, "four passes leave little of the rest")


def test_svd_randomized_looks_four_times():
    """With p = 4 the first s comes out as s^9 weights it: with s hardly falling, fewer passes miss more."""
    A = np.linalg.qr(normal(0, 200, 100))[0] * 0.98 ** np.arange(100)
    ours = em.svd_randomized(A, 5, np.random.default_rng(1))[1]
    Q = np.linalg.qr(np.linalg.matrix_power(A @ A.T, 4) @ A @ np.random.default_rng(1).normal(size=(100, 15)))[0]
    agree("s by equation (7)", ours, np.linalg.svd(Q.T @ A)[1][:5], 1e-9, "the same subspace, without the inner qr")


def test_svd_randomized_refuses_bad_input():
    rng = np.random.default_rng(0)
    for k in [0, 4]:
        refuses("k must be at least 1 and at most 3", em.svd_randomized, np.ones((3, 5)), k, rng)
    refuses("whole number", em.svd_randomized, np.eye(3), 1.5, rng, error=TypeError)
    refuses("A must have 2 dim", em.svd_randomized, np.ones(3), 1, rng)


# --- PCA ------------------------------------------------------------------------------
def test_fix_signs_by_hand():
    agree("signs", em.fix_signs(np.array([[0.6, -0.8], [0.8, 0.6], [-0.9, 0.1]])), [[-0.6, 0.8], [0.8, 0.6], [0.9, -0.1]], *EXACT)


def test_fit_pca_by_hand():
    """Points on the line through (1, 2) along (3, 4): all the variance lies on it."""
    mean, Vt, variance, share = em.fit_pca(np.array([[1, 2]]) + np.outer([-5, 0, 5], [0.6, 0.8]), 2)
    agree("m", mean, [1, 2], *EXACT)
    agree("v1", Vt[0], [0.6, 0.8], *EXACT)
    agree("variance", variance, [25, 0], *EXACT)
    agree("share", share, [1, 0], *EXACT)
    agree("Z", em.pca_transform([[4, 6], [1, 2]], mean, Vt[:1]), [[5], [0]], *EXACT)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n, d, k", [(50, 6, 6), (50, 6, 1), (8, 20, 7), (300, 3, 2), (2, 5, 1), (1001, 3, 2)])
def test_fit_pca_equals_scikit_learn(n, d, k, seed):
    X, new = (normal(s, rows, d) * np.arange(1, d + 1) + 5 for s, rows in [(seed, n), (seed + 9, 4)])
    mean, Vt, variance, share = em.fit_pca(X, k)
    theirs, white = (em.sklearn_pca(X, k, whiten) for whiten in [False, True])
    for what, ours, library in [
        ("mean", mean, theirs.mean_), ("Vt", Vt, theirs.components_),
        ("variance", variance, theirs.explained_variance_),
        ("share", share, theirs.explained_variance_ratio_),
        ("Z of new rows", em.pca_transform(new, mean, Vt), theirs.transform(new)),
        ("whitened", em.pca_transform(new, mean, Vt, variance), white.transform(new)),
    ]:  # fmt: skip
        agree(what, ours, library, *em.ALLOWED["steps"])


def test_pca_transform_whitens_and_centres_with_the_mean_of_the_fit():
    X = normal(0, 100, 4) @ normal(1, 4, 4) + 3
    mean, Vt, variance, _ = em.fit_pca(X, 4)
    Z = em.pca_transform(X, mean, Vt, variance)
    agree("covariance of whitened Z", np.cov(Z.T), np.eye(4), 1e-10, "equation (10)")
    agree("one row at a time", np.vstack([em.pca_transform(X[[i]], mean, Vt, variance) for i in range(3)]), Z[:3], *EXACT)


def test_pca_transform_whitens_in_any_unit_and_however_small_the_last_variance():
    X = normal(0, 20, 2) * [1, 1e-4]
    Z = em.pca_transform(X, *em.fit_pca(X, 2)[:3])
    agree("Z of X in another unit", em.pca_transform(1e-8 * X, *em.fit_pca(1e-8 * X, 2)[:3]), Z, 1e-8, "no unit is left")


def test_fit_pca_takes_a_last_row_that_repeats_the_first():
    agree("variance", em.fit_pca([[1, 2], [4, 2], [1, 2]], 1)[2], [3], *EXACT)


def test_fit_pca_finds_the_eigenvectors_of_the_covariance():
    X = normal(0, 50, 4) @ normal(1, 4, 4) + 3
    _, Vt, variance, _ = em.fit_pca(X, 4)
    agree("C v = variance v, equation (8)", np.cov(X.T) @ Vt.T, Vt.T * variance, 1e-10, "np.cov is C")


def test_fit_pca_keeps_a_short_direction_that_the_covariance_loses():
    """One direction 1e-9 as long as the other: squared, it is below the rounding of the first."""
    X = normal(0, 50, 2)
    X = (X - X.mean(axis=0)) * [1, 1e-9] @ np.array([[0.6, 0.8], [-0.8, 0.6]])
    exact = np.prod(np.linalg.svd(X, compute_uv=False)) ** 2 / 49**2
    assert abs(em.fit_pca(X, 2)[2].prod() / exact - 1) < 1e-4 < 0.1 < abs(np.linalg.det(np.cov(X.T)) / exact - 1)


def test_fit_pca_refuses_bad_input():
    X = normal(0, 5, 3)
    for k in [0, 4]:
        refuses("k must be at least 1 and at most 3", em.fit_pca, X, k)
    refuses("k must be at least 1 and at most 2", em.fit_pca, X[:2], 3)
    refuses("whole number", em.fit_pca, X, 1.5, error=TypeError)
    refuses("two different rows", em.fit_pca, np.ones((4, 3)), 1)
    refuses("two different rows", em.fit_pca, X[:1], 1)
    refuses("X must have 2 dim", em.fit_pca, X[0], 1)
    mean, Vt, variance, _ = em.fit_pca(X, 2)
    refuses("3 feature", em.pca_transform, X[:, :2], mean, Vt)


def test_pca_transform_whitens_a_column_without_variance_to_zeros_not_nan():
    X = np.column_stack([normal(0, 9, 1), np.ones(9)])
    Z = em.pca_transform(X, *em.fit_pca(X, 2)[:3])
    agree("Z", Z[:, 1], np.zeros(9), *EXACT)
    agree("Z", Z[:, 0].var(ddof=1), 1, *EXACT)


# --- TF-IDF and LSA -------------------------------------------------------------------
UNICODE = ["Ärger über Zürich, über alles", "crème brûlée: the crème of crème", "日本語 のテキスト 日本語", "naïve café CAFÉ x y",
           "snake_case and 42 numbers 42", "Ça ne fait rien; rien du tout!", "ΟΔΟΣ οδός Σίσυφος"]  # fmt: skip


def test_words_by_hand():
    assert em.words("A crème-brûlée, isn't it? x2 4") == ["crème", "brûlée", "isn", "it", "x2"]


def test_fit_tfidf_by_hand():
    """Equation (11) as the text states it: 2 texts, "red" in both, the others in one."""
    texts = ["red green red", "blue red"]
    vocabulary, idf = em.fit_tfidf(texts)
    assert vocabulary == {"blue": 0, "green": 1, "red": 2}
    agree("smooth idf", idf, [math.log(3 / 2) + 1, math.log(3 / 2) + 1, 1], *EXACT)
    agree("plain idf", em.fit_tfidf(texts, smooth=False)[1], [math.log(2) + 1, math.log(2) + 1, 1], *EXACT)


def test_tfidf_by_hand():
    vocabulary, idf = {"green": 0, "red": 1}, np.array([2.0, 1.0])
    texts = ["red green red", "blue", ""]
    agree("tf idf", em.tfidf(texts, vocabulary, idf, norm=None), [[2, 2], [0, 0], [0, 0]], *EXACT)
    agree("l1", em.tfidf(texts, vocabulary, idf, norm="l1"), [[0.5, 0.5], [0, 0], [0, 0]], *EXACT)
    agree("l2", em.tfidf(texts, vocabulary, idf), [[0.5**0.5] * 2, [0, 0], [0, 0]], *EXACT)
    agree("l1 of small numbers", em.tfidf(texts[:1], vocabulary, 1e-6 * idf, norm="l1"), [[0.5, 0.5]], *EXACT)
    agree("sublinear", em.tfidf(texts, vocabulary, idf, True, None), [[2, 1 + math.log(2)], [0, 0], [0, 0]], *EXACT)


@pytest.mark.parametrize("texts", [UNICODE, em.TEXTS], ids=["unicode", "plain"])
@pytest.mark.parametrize("smooth, sublinear, norm", list(itertools.product([True, False], [True, False], ["l1", "l2", None])))
def test_tfidf_equals_scikit_learn(texts, smooth, sublinear, norm):
    theirs = em.sklearn_tfidf(texts, smooth, sublinear, norm)
    vocabulary, idf = em.fit_tfidf(texts, smooth)
    assert vocabulary == theirs.vocabulary_
    agree("idf", idf, theirs.idf_, *em.ALLOWED["steps"])
    new = [*texts, "", "nothing known", texts[0] + " " + texts[1]]
    agree("X", em.tfidf(new, vocabulary, idf, sublinear, norm), theirs.transform(new).toarray(), *em.ALLOWED["steps"])


def test_tfidf_refuses_bad_input():
    vocabulary, idf = em.fit_tfidf(["red green"])
    refuses("number of words in texts must be at least 1, not 0", em.fit_tfidf, ["", "a b c"])
    refuses("number of words in texts must be at least 1, not 0", em.fit_tfidf, [])
    refuses("list of str", em.fit_tfidf, "red", error=TypeError)
    for texts in [[1], None, 5, ["red", None]]:
        refuses("list of str", em.fit_tfidf, texts, error=TypeError)
    refuses("list of str", em.tfidf, "red", vocabulary, idf, error=TypeError)
    refuses("norm must be .*not 'max'", em.tfidf, ["red"], vocabulary, idf, norm="max")
    assert em.tfidf(iter(["red", "green"]), vocabulary, idf).shape == (2, 2)
    assert em.tfidf([], vocabulary, idf).shape == (0, 2) and not em.tfidf([""], vocabulary, idf).any()
    assert len(em.fit_tfidf(iter(["red green"]))[1]) == 2


@pytest.mark.parametrize("shape, k", [((12, 7), 3), ((7, 12), 5), ((9, 9), 1)])
def test_fit_lsa_equals_scikit_learn(shape, k):
    X = np.abs(normal(0, *shape))
    Z, Vt = em.fit_lsa(X, k)
    theirs = em.sklearn_lsa(X, k)
    agree("Vt", Vt, theirs.components_, *em.ALLOWED["steps"])
    agree("Z", Z, theirs.transform(X), *em.ALLOWED["steps"])
    agree("lengths of columns of Z", np.linalg.norm(Z, axis=0), theirs.singular_values_, *em.ALLOWED["steps"])


def test_fit_lsa_joins_words_that_never_meet():
    vocabulary, idf = em.fit_tfidf(em.TEXTS)
    X = em.tfidf(em.TEXTS, vocabulary, idf)
    pair = [vocabulary["car"], vocabulary["automobile"]]
    assert em.similarity(X.T[pair], X.T[pair])[0, 1] == 0
    reduced = em.fit_lsa(X, 2)[1].T
    assert em.similarity(reduced[pair], reduced[pair])[0, 1] > 0.9
    assert em.similarity(reduced[pair], reduced[[vocabulary["sugar"]]]).max() < 0.5


def test_fit_lsa_refuses_more_components_than_there_are():
    for k in [0, 3]:
        refuses("k must be at least 1 and at most 2", em.fit_lsa, np.ones((2, 4)), k)
    refuses("whole number", em.fit_lsa, np.ones((2, 4)), 1.5, error=TypeError)
    refuses("finite", em.fit_lsa, [[np.nan, 1]], 1)


# --- k-means --------------------------------------------------------------------------
def test_assign_by_hand():
    centers = np.array([[0.0, 0], [10, 0], [4, 4]])
    agree("labels", em.assign(np.array([[1.0, 1], [9, 1], [3, 3], [5.1, -9]]), centers), [0, 1, 2, 1], *EXACT)


def test_assign_is_right_in_every_block_of_rows():
    X, centers = normal(0, 1281, 2), normal(1, 5, 2)  # five blocks and one row
    agree("labels", em.assign(X, centers), em.squared_distances(X, centers).argmin(axis=1), *EXACT)


def test_move_centers_by_hand():
    X, labels = np.array([[0.0, 0], [2, 0], [4, 4]]), np.array([0, 0, 1])
    agree("means", em.move_centers(X, labels, np.zeros((2, 2))), [[1, 0], [4, 4]], *EXACT)


def test_move_centers_gives_an_empty_cluster_the_point_that_lies_worst():
    """Points 0, 1, 9 belong to centre 0 at 1, and 20 to centre 1; nobody chose centre 2."""
    X, labels = np.array([[0.0], [1], [9], [20]]), np.array([0, 0, 0, 1])
    agree("centres", em.move_centers(X, labels, np.array([[1.0], [20], [99]])), [[0.5], [20], [9]], *EXACT)
    two = em.move_centers(X, labels, np.array([[1.0], [99], [20], [88]])[[0, 2, 1, 3]])
    agree("two empty centres", two, [[1], [20], [9], [0]], *EXACT)


def test_move_centers_with_fewer_different_points_than_centres():
    X = np.array([[1.0], [1], [1]])
    agree("centres", em.move_centers(X, np.array([0, 0, 0]), np.array([[1.0], [5]])), [[1], [5]], *EXACT)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n, d, k", [(60, 2, 1), (60, 2, 2), (60, 5, 9), (500, 3, 20), (6, 2, 6)])
def test_kmeans_plus_plus_equals_scikit_learn_from_the_same_draws(n, d, k, seed):
    from sklearn.cluster import kmeans_plusplus

    X = normal(seed, n, d)
    theirs = kmeans_plusplus(X, k, random_state=np.random.RandomState(seed), n_local_trials=1)[0]
    agree("start", em.kmeans_plus_plus(X, k, np.random.RandomState(seed)), theirs, *em.ALLOWED["numbers"])


class Largest:
    """A generator whose draws are as large as they can be."""

    def uniform(self, size=None):
        return 1 + 1e-12  # as if the sum were rounded up


def test_kmeans_plus_plus_never_draws_past_the_last_row():
    start = em.kmeans_plus_plus(np.array([[0.0], [1], [3]]), 2, Largest())
    assert len(start) == 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n, d, k", [(40, 2, 3), (700, 4, 8), (30, 10, 1), (9, 2, 9)])
def test_fit_kmeans_equals_scikit_learn(n, d, k, seed):
    X = normal(seed, n, d)
    start = X[np.random.default_rng(seed).choice(n, k, replace=False)]
    centers, labels, inertia, steps = em.fit_kmeans(X, start)
    theirs = em.sklearn_kmeans(X, start)
    agree("labels", labels, theirs.labels_, *em.ALLOWED["numbers"])
    agree("steps", steps, theirs.n_iter_, *em.ALLOWED["numbers"])
    agree("centres", centers, theirs.cluster_centers_, *em.ALLOWED["steps"])
    agree("inertia", inertia, theirs.inertia_, *em.ALLOWED["steps"])


@pytest.mark.parametrize("seed", SEEDS)
def test_fit_kmeans_with_an_empty_cluster_equals_scikit_learn(seed):
    X = normal(seed, 80, 3)
    start = np.vstack([X[:4], [[50, 50, 50]]])  # nearest to nothing
    centers, labels, inertia, steps = em.fit_kmeans(X, start)
    theirs = em.sklearn_kmeans(X, start)
    agree("labels", labels, theirs.labels_, *em.ALLOWED["numbers"])
    agree("inertia", inertia, theirs.inertia_, *em.ALLOWED["steps"])
    agree("steps", steps, theirs.n_iter_, *em.ALLOWED["numbers"])
    assert len(np.unique(labels)) == 5


def test_fit_kmeans_with_fewer_different_points_than_centres():
    X = np.array([[0.0], [0], [4], [4]])
    centers, labels, inertia, _ = em.fit_kmeans(X, [[0], [4], [7]])
    assert inertia == 0 and np.isfinite(centers).all() and list(labels) == [0, 0, 1, 1]


@pytest.mark.parametrize("seed", SEEDS)
def test_fit_kmeans_finds_blobs_that_lie_apart(seed):
    X, y = make_blobs(np.random.default_rng(seed), n=90, spread=0.1)
    labels = em.fit_kmeans(X, em.kmeans_plus_plus(X, 3, np.random.default_rng(seed)))[1]
    assert (confusion_matrix(y, labels) > 0).sum() == 3, "each blob is one cluster, whatever its name"


def test_fit_kmeans_never_raises_the_inertia():
    X, start = normal(0, 200, 2), normal(1, 6, 2)
    inertias = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DidNotConverge)
        for steps in range(1, 15):
            inertias.append(em.fit_kmeans(X, start, steps)[2])
    assert (np.diff(inertias) <= 1e-12).all() and inertias[-1] < inertias[0]


def test_fit_kmeans_keeps_its_digits_far_from_the_origin():
    X = np.round(normal(0, 60, 2) * 64) / 64  # exact also after the move
    near, far = em.fit_kmeans(X, X[:3]), em.fit_kmeans(X + 2.0**30, X[:3] + 2.0**30)
    agree("labels", far[1], near[1], *em.ALLOWED["numbers"])
    agree("inertia", far[2], near[2], 1e-6, "the mean is known to 2^-22")
    agree("centres", far[0], near[0] + 2.0**30, *EXACT)


def test_fit_kmeans_says_when_it_runs_out_of_steps():
    X = normal(0, 200, 2)
    with pytest.warns(DidNotConverge, match="still moved after 2 steps"):
        centers, labels, inertia, steps = em.fit_kmeans(X, X[:6], steps=2)
    agree("labels belong to the centres", labels, em.squared_distances(X, centers).argmin(axis=1), *EXACT)
    assert steps == 2


def test_fit_kmeans_refuses_bad_input():
    X = normal(0, 5, 2)
    for k in [0, 6]:
        refuses("k must be at least 1 and at most 5", em.kmeans_plus_plus, X, k, np.random.default_rng(0))
    refuses("whole number", em.kmeans_plus_plus, X, 1.5, np.random.default_rng(0), error=TypeError)
    refuses("finite", em.kmeans_plus_plus, X * np.nan, 2, np.random.default_rng(0))
    refuses("start must be .k, 2., k <= 5, not .6, 2.", em.fit_kmeans, X, np.ones((6, 2)))
    refuses("start must be .k, 2., k <= 5, not .2, 3.", em.fit_kmeans, X, np.ones((2, 3)))
    refuses("start must have 2 dim", em.fit_kmeans, X, [1, 2])
    refuses("steps must be at least 1", em.fit_kmeans, X, X[:2], steps=0)
    refuses("whole number", em.fit_kmeans, X, X[:2], steps=1.5, error=TypeError)
    refuses("finite", em.fit_kmeans, X * np.nan, X[:2])


# --- t-SNE ----------------------------------------------------------------------------
@pytest.mark.parametrize("perplexity", [2.1, 2.5, 2.9999])
def test_joint_probabilities_by_hand(perplexity):
    """Four corners of a square: by symmetry P is the same along all sides, and on both diagonals.

    The diagonal gets p and each side (1 - p) / 2; p solves the entropy."""
    P = em.joint_probabilities([[0, 0], [0, 1], [1, 1], [1, 0]], perplexity)
    p = 4 * P[0, 2]
    agree("rows", 4 * P, [[0, (1 - p) / 2, p, (1 - p) / 2], [(1 - p) / 2, 0, (1 - p) / 2, p],
                          [p, (1 - p) / 2, 0, (1 - p) / 2], [(1 - p) / 2, p, (1 - p) / 2, 0]], *EXACT)  # fmt: skip
    agree("perplexity", np.exp(-p * np.log(p) - (1 - p) * np.log((1 - p) / 2)), perplexity, 1e-10, "59 halvings")
    assert p < 1 / 3


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n, d, perplexity", [(40, 3, 5.0), (80, 10, 30.0), (30, 2, 28.0), (50, 4, 2.0)])
def test_joint_probabilities_equals_scikit_learn(n, d, perplexity, seed):
    X = normal(seed, n, d) * 3
    P = em.joint_probabilities(X, perplexity)
    theirs = em.sklearn_tsne(X, perplexity, P, normal(0, n, 2), 1, 1, 0.5)[0]
    agree("P / max P", P / theirs.max(), theirs / theirs.max(), *em.ALLOWED["t-SNE P"])
    agree("sum, symmetry", [P.sum(), np.abs(P - P.T).max(), np.trace(P)], [1, 0, 0], *EXACT)


def test_joint_probabilities_with_duplicates_far_points_and_one_place():
    X = np.vstack([np.zeros((5, 2)), normal(0, 10, 2), [[1e6, 1e6]]])
    P = em.joint_probabilities(X, 3.0)
    assert np.isfinite(P).all() and P.sum() == pytest.approx(1)
    agree("all in one place", em.joint_probabilities(np.ones((5, 2)), 3.0), (1 - np.eye(5)) / 20, *EXACT)


@pytest.mark.parametrize("scale", [1e-15, 1e-6, 1e9, 1e30])
def test_joint_probabilities_do_not_depend_on_the_unit(scale):
    X = normal(0, 30, 3)
    agree("P", em.joint_probabilities(scale * X, 5.0), em.joint_probabilities(X, 5.0), 1e-10, "beta scales along")


def test_joint_probabilities_refuses_bad_input():
    for perplexity in [1, 9, 0, -3, 100, np.nan]:
        refuses("perplexity must be above 1 and below 9", em.joint_probabilities, normal(0, 10, 2), perplexity)
    refuses("finite", em.joint_probabilities, [[np.nan]])


def closeness(Y):
    """Equation (20) as it stands."""
    w = 1 / (1 + ((Y[:, None] - Y) ** 2).sum(axis=2)) * (1 - np.eye(len(Y)))
    return w, w / w.sum()


def divergence(P, Y):
    """Equation (21) as it stands."""
    return np.sum(P[P > 0] * np.log(P[P > 0] / closeness(Y)[1][P > 0]))


def test_tsne_gradient_by_hand():
    """Two points: w = 1/2 and Q = 1/2 between them, so P - Q vanishes; P = 1/4 pushes them apart."""
    Y = np.array([[0.0, 0], [1, 0]])
    agree("P = Q", em.tsne_gradient(np.array([[0, 0.5], [0.5, 0]]), Y), np.zeros((2, 2)), *EXACT)
    agree("P < Q", em.tsne_gradient(np.array([[0, 0.25], [0.25, 0]]), Y), [[0.5, 0], [-0.5, 0]], *EXACT)


def test_tsne_gradient_is_zero_where_the_map_is_as_close_as_the_data():
    Y = normal(0, 7, 2)
    agree("dKL/dY at P = Q", em.tsne_gradient(closeness(Y)[1], Y), np.zeros((7, 2)), *EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_tsne_gradient_is_the_slope_of_the_divergence(seed):
    P, Y = em.joint_probabilities(normal(seed, 9, 4), 3.0), normal(seed + 5, 9, 2)
    agree("dKL/dY", em.tsne_gradient(P, Y), slopes(lambda Y: divergence(P, Y), Y), 1e-7, "central differences")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size, factor, lr, momentum", [(1e-4, 12, 20, 0.5), (1.0, 1, 20, 0.8), (0.1, 4, 5, 0.8)])
def test_tsne_steps_equals_scikit_learn_for_20_steps(size, factor, lr, momentum, seed):
    X, start = normal(seed, 60, 5), size * normal(seed + 1, 60, 2)
    P = factor * em.joint_probabilities(X, 10.0)
    _, gradient, end = em.sklearn_tsne(X, 10.0, P, start, 20, lr, momentum)
    largest = np.abs(gradient).max()
    agree("gradient / its largest", em.tsne_gradient(P, start) / largest, gradient / largest, *em.ALLOWED["steps"])
    largest = np.abs(end).max()
    agree("map / its largest", em.tsne_steps(P, start, 20, lr, momentum) / largest, end / largest, *em.ALLOWED["steps"])


def test_tsne_steps_never_let_a_gain_fall_below_a_hundredth(monkeypatch):
    """A slope that turns at every step shrinks the gain by 0.8 down to 0.01; one that stays adds 0.2."""
    for turn in [-1, 1]:
        slopes = (turn**t * np.ones((1, 1)) for t in range(40))
        monkeypatch.setattr(em, "tsne_gradient", lambda P, Y: next(slopes))
        gains = [max(0.8**t, 0.01) for t in range(1, 41)] if turn < 0 else 0.8 + 0.2 * np.arange(40)
        expected = -3 * sum(gain * turn**t for t, gain in enumerate(gains))
        agree(f"slopes times {turn}", em.tsne_steps(None, np.zeros((1, 1)), 40, 3.0, 0.0), [[expected]], *EXACT)


def test_fit_tsne_takes_the_steps_that_the_text_names(monkeypatch):
    """From the PCA map with standard deviation 1e-4, as scikit-learn: 250 with 12 P, then with P."""
    X, phases = normal(0, 60, 5), []
    monkeypatch.setattr(em, "tsne_steps", lambda *args, **more: phases.append((args, more)) or args[1])
    Y, P = em.fit_tsne(X, 10.0, 400), em.joint_probabilities(X, 10.0)
    (early, first), (late, second) = phases
    agree("12 P, P", [early[0], late[0]], [12 * P, P], *EXACT)
    assert early[2:] == (250, 50) and late[2:] == (150, 50)
    assert (first, second) == ({"momentum": 0.5}, {"momentum": 0.8})
    start = em.sklearn_pca(X, 2).transform(X)
    agree("start", 1e4 * early[1], start / start[:, 0].std(), 1e-10, "PCA, exact")
    agree("the map is what the last steps return", Y, early[1], *EXACT)
    monkeypatch.setattr(em, "joint_probabilities", lambda X, perplexity: perplexity)
    em.fit_tsne(normal(0, 4800, 2), 10.0, 400)
    assert phases[2][0][3] == 100  # n / 48


def test_fit_tsne_is_as_good_as_scikit_learn_and_keeps_neighbours():
    from sklearn.manifold import TSNE

    X, y = em.load_digits_data(150)
    Y = em.fit_tsne(X, 15.0, 400)
    theirs = TSNE(perplexity=15.0, init="pca", method="exact", max_iter=400).fit(X)
    loss = divergence(em.joint_probabilities(X, 15.0), Y)
    assert loss < 1.05 * theirs.kl_divergence_, f"KL {loss:.3f}, library {theirs.kl_divergence_:.3f}"
    near = em.nearest(Y, Y, 2, "euclidean")[1][:, 1]
    assert np.mean(y[near] == y) > 0.9


def test_fit_tsne_refuses_bad_input():
    refuses("steps must be at least 250", em.fit_tsne, normal(0, 50, 3), 5.0, 249)
    refuses("whole number", em.fit_tsne, normal(0, 50, 3), 5.0, 300.5, error=TypeError)
    refuses("perplexity must be", em.fit_tsne, normal(0, 20, 3), 30.0)
    refuses("X must have 2 dim", em.fit_tsne, normal(0, 20))


# --- word2vec -------------------------------------------------------------------------
def test_make_pairs_by_hand():
    pairs = set(zip(*em.make_pairs([[7, 8, 9, 5], [1, 2], [3], []], window=2)))
    one_way = {(7, 8), (7, 9), (8, 9), (8, 5), (9, 5), (1, 2)}
    assert pairs == one_way | {(b, a) for a, b in one_way}
    assert em.make_pairs([[4, 4, 4]], 1).shape == (2, 4)
    assert em.make_pairs([], 1).shape == (2, 0)


def test_add_rows_by_hand():
    added = em.add_rows((3, 2), np.array([2, 0, 2]), np.array([[1.0, 2], [3, 4], [5, 6]]))
    agree("rows", added, [[3, 4], [0, 0], [6, 8]], *EXACT)


def test_skipgram_gradient_by_hand():
    """One pair, all scores 0: loss (K + 1) ln 2, and every g is 1/2 or -1/2."""
    V, U = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 2.0]])
    loss, dV, dU = em.skipgram_gradient(V, U, np.array([0]), np.array([0]), np.array([[1, 1]]))
    agree("loss", loss, 3 * np.log(2), *EXACT)
    agree("dV", dV, [[0, -0.5 + 2], [0, 0]], *EXACT)
    agree("dU", dU, [[-0.5, 0], [1, 0]], *EXACT)


def batch(seed, size, words, shape):
    rng = np.random.default_rng(seed)
    return *rng.integers(words, size=(2, size)), rng.integers(words, size=shape)


@pytest.mark.parametrize("K", [3, 1])
@pytest.mark.parametrize("seed", SEEDS)
def test_skipgram_gradient_is_the_slope_of_its_loss(K, seed):
    V, U, pairs = normal(seed, 7, 4), normal(seed + 1, 7, 4), batch(seed, 6, 7, (6, K))
    _, dV, dU = em.skipgram_gradient(V, U, *pairs)
    agree("dL/dV", dV, slopes(lambda V: em.skipgram_gradient(V, U, *pairs)[0], V), 1e-8, "central differences")
    agree("dL/dU", dU, slopes(lambda U: em.skipgram_gradient(V, U, *pairs)[0], U), 1e-8, "central differences")


def test_skipgram_gradient_stays_finite_at_huge_scores():
    V, U = np.array([[1e4, 0.0]]), np.array([[1e4, 0.0], [-1e4, 0.0]])
    with np.errstate(over="raise", invalid="raise"):
        for context, negative, loss in [(0, 1, 0), (1, 0, 2e8)]:
            found, dV, dU = em.skipgram_gradient(V, U, np.array([0]), np.array([context]), np.array([[negative]]))
            agree("loss", found, loss, *EXACT)
            agree("dV", dV, [[-2e4 * (context == 1) * -1, 0]], *EXACT)
            assert np.isfinite(dU).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_skipgram_gradient_takes_the_steps_of_torch(seed):
    V, U = normal(seed, 30, 8), normal(seed + 1, 30, 8)
    v, u = V, U
    for step in range(20):
        pairs = batch(step, 32, 30, (32, 5))
        loss, dV, dU = em.skipgram_gradient(V, U, *pairs)
        expected, dv, du = em.torch_skipgram(v, u, *pairs)
        agree(f"loss of step {step}", loss, expected, *em.ALLOWED["steps"])
        V, U, v, u = V - 0.7 * dV, U - 0.7 * dU, v - 0.7 * dv, u - 0.7 * du
    agree("V", V, v, *em.ALLOWED["steps"])
    agree("U", U, u, *em.ALLOWED["steps"])


def test_fit_word2vec_takes_the_steps_of_torch(monkeypatch):
    """What it hands to skipgram_gradient, torch gets too: all losses and vectors must be equal."""
    seen, real = [], em.skipgram_gradient

    def record(V, U, *pairs):
        seen.append((V, U, pairs))
        return real(V, U, *pairs)

    monkeypatch.setattr(em, "skipgram_gradient", record)
    texts = em.make_sentences(np.random.default_rng(0), 20)
    vocabulary, V, U, losses = em.fit_word2vec(texts, np.random.default_rng(1), d=6, window=2, negatives=3, lr=0.5, epochs=2, batch=64)
    v, u, theirs = *seen[0][:2], []
    for _, _, pairs in seen:
        loss, dv, du = em.torch_skipgram(v, u, *pairs)
        v, u = v - 0.5 * dv, u - 0.5 * du
        theirs.append(loss)
    for what, a, b in [("losses", losses, theirs), ("V", V, v), ("U", U, u)]:
        agree(what, a, b, *em.ALLOWED["steps"])
    assert list(vocabulary) == sorted({w for t in texts for w in t.split()}) and list(vocabulary.values()) == list(range(len(V)))
    first = seen[0]
    assert first[0].shape == (len(V), 6) and 0.07 < np.abs(first[0]).max() <= 0.5 / 6 and first[0].min() < -0.07
    assert not first[1].any()
    assert {len(pairs[0]) for _, _, pairs in seen[:3]} == {64} and {pairs[2].shape[1] for _, _, pairs in seen} == {3}
    expected = sorted(map(tuple, em.make_pairs([[vocabulary[w] for w in em.words(t)] for t in texts], 2).T))
    half = seen[: len(seen) // 2]
    centers, contexts = (np.concatenate([pairs[i] for _, _, pairs in half]) for i in range(2))
    assert sorted(zip(centers, contexts)) == expected  # one epoch takes each pair once
    assert [tuple(p) for p in zip(centers, contexts)] != expected  # and in another order


class Recorder:
    """Passes every draw to a real generator, and remembers what choice was asked for."""

    def __init__(self):
        self.rng, self.p = np.random.default_rng(0), None

    def __getattr__(self, name):
        return getattr(self.rng, name)

    def choice(self, n, size, p):
        self.p = p
        return self.rng.choice(n, size=size, p=p)


def test_fit_word2vec_draws_negatives_by_the_three_quarter_power():
    rng = Recorder()
    em.fit_word2vec(["rare " + "common " * 16], rng, d=2, epochs=1)
    agree("equation (25)", rng.p, [8 / 9, 1 / 9], *EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_fit_word2vec_learns_neighbours_and_analogies(seed):
    """By chance 1 of 36 analogies would be right, and sofa would be next to couch once in 38."""
    texts = em.make_sentences(np.random.default_rng(seed), 600)
    vocabulary, V, _, losses = em.fit_word2vec(texts, np.random.default_rng(seed + 9))
    assert np.mean(losses[-20:]) < 0.7 * losses[0]
    agree("loss of the first step", losses[0], 6 * np.log(2), 0.01, "all scores begin at 0")
    row = em.nearest(V, V[[vocabulary["sofa"]]], 2)[1][0, 1]
    assert list(vocabulary)[row] == "couch"
    twos = [role.split()[:2] for role in em.ROLES]
    right = [em.analogy(vocabulary, V, *a, c) == d for a in twos for c, d in twos if a[0] != c]
    assert np.mean(right) > 0.7, f"{sum(right)} of {len(right)} analogies"


def test_analogy_by_hand():
    vocabulary = {"man": 0, "woman": 1, "king": 2, "queen": 3, "near": 4}
    V = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 9], [0, 1, 9], [1, 0.9, 9]]) * [[1], [5], [1], [2], [30]]
    assert em.analogy(vocabulary, V, "man", "woman", "king") == "queen"
    assert em.analogy(vocabulary, V, "queen", "king", "woman") == "man"
    assert em.analogy({"x": 0, "y": 1}, np.eye(2), "x", "x", "x") == "y"


def test_make_sentences_hold_the_planted_relations():
    texts = em.make_sentences(np.random.default_rng(0), 300)
    assert len(texts) == 600
    assert not any("sofa" in t and "couch" in t for t in texts)
    assert {t for t in texts if "queen" in t} == {"queen knows crown her throne"}
    assert {t for t in texts if "king" in t} == {"king knows crown his throne"}


def test_fit_word2vec_refuses_bad_input():
    rng, texts = np.random.default_rng(0), ["red green"]
    for name in ["d", "window", "negatives", "epochs", "batch"]:
        refuses(f"{name} must be at least 1", em.fit_word2vec, texts, rng, **{name: 0})
        refuses("whole number", em.fit_word2vec, texts, rng, **{name: 1.5}, error=TypeError)
        assert len(em.fit_word2vec(texts, rng, **{name: 1})[0]) == 2
    assert len(em.fit_word2vec(texts, rng, batch=1, epochs=1)[3]) == 2  # two pairs, one at a time
    refuses("lr must be above 0", em.fit_word2vec, texts, rng, lr=0)
    for empty in [[], [""], ["lonely"]]:
        refuses("number of pairs of words in texts must be at least 1, not 0", em.fit_word2vec, empty, rng)
    refuses("list of str", em.fit_word2vec, "red green", rng, error=TypeError)


# --- Sentence embeddings --------------------------------------------------------------
def test_mean_vectors_by_hand():
    vocabulary, V = {"red": 0, "green": 1}, np.array([[2.0, 0, 3], [0, 4, 0]])
    Z = em.mean_vectors(["red red Green.", "red unknown", "unknown", ""], vocabulary, V)
    agree("means", Z, [[4 / 3, 4 / 3, 2], [1, 0, 1.5], [0, 0, 0], [0, 0, 0]], *EXACT)
    refuses("list of str", em.mean_vectors, "red", vocabulary, V, error=TypeError)


@pytest.mark.parametrize("seed", SEEDS)
def test_mean_vectors_equal_static_embedding(seed):
    vocabulary = {word: i for i, word in enumerate(sorted({w for t in em.TEXTS for w in em.words(t)}))}
    V, texts = normal(seed, len(vocabulary), 7), [*em.TEXTS, "", "car xx yy", "a", "Crème: CAR! x", *UNICODE]
    theirs = em.sentence_transformers_static(vocabulary, V).encode(texts)
    agree("vectors", em.mean_vectors(texts, vocabulary, V), theirs, *em.ALLOWED["sentences"])


@pytest.mark.parametrize("text, options, expected", [
    ("Hello, World!", {}, ["hello", ",", "world", "!"]),
    ("Crème BRÛLÉE", {}, ["creme", "brulee"]),
    ("Crème BRÛLÉE", dict(strip_accents=False), ["crème", "brûlée"]),
    ("Crème BRÛLÉE", dict(lower=False), ["Creme", "BRULEE"]),
    ("Crème", dict(lower=False, strip_accents=False), ["Crème"]),
    ("in東京tower", {}, ["in", "東", "京", "tower"]),
    ("ΟΔΟΣ", {}, ["οδοσ"]),
    ("a\x00b\ufffdc\u200dd\te\u00a0f\ng\x07", {}, ["abcd", "e", "f", "g"]),
    ("don't $5 a^b!~", {}, ["don", "'", "t", "$", "5", "a", "^", "b", "!", "~"]),
    ("🚗 fast…", {}, ["🚗", "fast", "…"]),
    ("", {}, []),
])  # fmt: skip
def test_split_words_by_hand(text, options, expected):
    assert em.split_words(text, **options) == expected


@pytest.mark.parametrize("lower, strip", list(itertools.product([True, False], repeat=2)))
def test_split_words_equals_tokenizers_on_every_character(lower, strip):
    """All of Unicode 3.2, which every program knows: later tables differ between programs."""
    from tokenizers import normalizers, pre_tokenizers

    old = unicodedata.ucd_3_2_0.category
    characters = [chr(i) for i in [*range(0x3400), *range(0x4DA0, 0x4E20), *range(0x9F00, 0xA000), *range(0xF900, 0x10000), 0x20000, 0x2A6D6, 0x2F800, 0x1D400]]
    same = [c for c in characters if old(c) == unicodedata.category(c) not in ("Cn", "Cs")]
    text = " ".join(f"A{c}b" for c in same if unicodedata.normalize("NFD", c) == unicodedata.ucd_3_2_0.normalize("NFD", c))
    library = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=strip, lowercase=lower)
    theirs = [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(library.normalize_str(text))]
    ours = em.split_words(text, lower, strip)
    wrong = [pair for pair in zip(ours, theirs) if pair[0] != pair[1]]
    assert len(same) > 10000 and ours == theirs, f"first of {len(wrong)}: {wrong[:3]}"


def test_wordpiece_by_hand():
    vocabulary = {"play", "##ing", "##i", "##n", "##g", "p", "playi", "[UNK]"}
    assert em.wordpiece("play", vocabulary) == ["play"]
    assert em.wordpiece("playing", vocabulary) == ["playi", "##n", "##g"]
    assert em.wordpiece("playing", vocabulary - {"playi"}) == ["play", "##ing"]
    assert em.wordpiece("plays", vocabulary) == ["[UNK]"]
    assert em.wordpiece("ing", vocabulary) == ["[UNK]"]
    assert em.wordpiece("plays", vocabulary | {"", "##"}) == ["[UNK]"]  # a piece has a letter
    assert em.wordpiece("p" + "i" * 99, vocabulary) == ["p"] + ["##i"] * 99
    assert em.wordpiece("p" + "i" * 100, vocabulary) == ["[UNK]"]


@pytest.mark.parametrize("seed", SEEDS)
def test_wordpiece_equals_tokenizers(seed):
    from tokenizers import models

    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list("abc"), size=rng.integers(1, 12))) for _ in range(200)]
    pieces = ["[UNK]", "a", "b", "##a", *{t[:2] for t in texts[:30]}, *{"##" + t[:3] for t in texts[:60]}]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    library = models.WordPiece(vocabulary, unk_token="[UNK]")
    for text in texts:
        assert em.wordpiece(text, vocabulary) == [token.value for token in library.tokenize(text)]


def test_layer_norm_by_hand_and_equals_torch():
    import torch

    agree("LN", em.layer_norm(np.array([[1.0, 3.0]]), np.array([2.0, 1.0]), np.array([0.0, 5.0]), 0), [[-2, 6]], *EXACT)
    x, gain, bias = normal(0, 4, 9) * 3 + 7, normal(1, 9), normal(2, 9)
    kept = x.copy()
    theirs = torch.nn.functional.layer_norm(*map(torch.tensor, [x]), (9,), torch.tensor(gain), torch.tensor(bias), 0.1)
    agree("LN", em.layer_norm(x, gain, bias, 0.1), theirs.numpy(), *EXACT)
    agree("x is left alone", x, kept, *EXACT)


def test_gelu_equals_its_definition():
    x = np.linspace(-8, 8, 2001)
    exact = [z * (1 + math.erf(z / math.sqrt(2))) / 2 for z in x]
    gap = np.abs(em.gelu(x) - exact).max()
    assert gap < 2.2e-7, f"off by {gap:.1e}; the erf is good to 1.5e-7, times |x| / 2"
    agree("gelu(0)", em.gelu(np.zeros(1)), [0], *EXACT)
    assert em.gelu(np.ones(2, np.float32)).dtype == np.float32


@pytest.mark.parametrize("heads, size", [(1, 1), (2, 1), (6, 1), (2, 3000)])
def test_attention_equals_torch(heads, size):
    import torch

    q, k, v = normal(0, 3, 3 * 5, 12)
    q = q * size  # exp of the largest score would overflow
    mask = np.arange(5) < np.array([[5], [2], [1]])
    tensors = (torch.tensor(x).reshape(3, 5, heads, -1).transpose(1, 2) for x in (q, k, v))
    theirs = torch.nn.functional.scaled_dot_product_attention(*tensors, torch.tensor(mask)[:, None, None])
    agree("attention", em.attention(q, k, v, mask, heads), theirs.transpose(1, 2).reshape(15, 12).numpy(), *EXACT)


def test_attention_looks_at_no_padding():
    q, k, v = normal(0, 3, 4, 6)
    padded = [np.vstack([x, 100 * normal(1, 3, 6)]) for x in (q, k, v)]
    ours = em.attention(*padded, np.array([[True] * 4 + [False] * 3]), 2)[:4]
    agree("with and without padding", ours, em.attention(q, k, v, np.ones((1, 4), bool), 2), *EXACT)


def read_safetensors(path):
    return em.read_file(path, em.safetensors)


def save(path, tensors, **more):
    """A safetensors file from {name: (dtype, shape, bytes)}; more: header entries to add as they are."""
    header, data = dict(more), b""
    for name, (dtype, shape, numbers) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(numbers)]}
        data += numbers
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_read_safetensors_equals_the_library(tmp_path):
    from safetensors.numpy import save_file

    tensors = {"a.weight": np.float32(normal(0, 3, 4)), "b": np.float16(normal(1, 5)), "c": np.full((), 2, np.float32), "d": np.ones((2, 0), np.float32)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    ours = read_safetensors(tmp_path / "x.safetensors")
    assert set(ours) == set(tensors) and {x.dtype for x in ours.values()} == {np.dtype(np.float32)}
    assert ours.pop("d").shape == tensors.pop("d").shape  # nothing to compare in it
    for name, theirs in tensors.items():
        agree(name, ours[name], np.float32(theirs), *EXACT)


def test_read_safetensors_drops_positions_and_the_prefix_of_older_files(tmp_path):
    numbers = np.float32([1, 2]).tobytes()
    tensors = {"embeddings.position_ids": ("I64", [1], bytes(8)), "bert.x": ("F32", [2], numbers)}
    ours = read_safetensors(save(tmp_path / "x", tensors))
    assert list(ours) == ["x"]
    agree("x", ours["x"], [1, 2], *EXACT)


@pytest.mark.parametrize("dtype", ["BF16", "I64", "F64", "U8", "F8_E4M3"])
def test_read_safetensors_refuses_other_types_by_name(tmp_path, dtype):
    refuses(f"w is of type {dtype}, only F32 and F16", read_safetensors, save(tmp_path / "x", {"w": (dtype, [1], bytes(8))}))


@pytest.mark.parametrize("offsets", [[0, 12], [4, 12], [-4, 4], [8, 4], [4, 2**70]])
def test_read_safetensors_refuses_offsets_outside_the_file(tmp_path, offsets):
    path = save(tmp_path / "x", {"pad": ("F32", [2], bytes(8))}, w={"dtype": "F32", "shape": [1], "data_offsets": offsets})
    refuses("x is .*w lies outside of the file", read_safetensors, path)


def test_read_safetensors_refuses_files_that_are_cut_off_or_something_else(tmp_path):
    whole = save(tmp_path / "x", {"w": ("F32", [2], bytes(8))}).read_bytes()
    for data in [whole[:-1], whole[:30], whole[:5], b"", b"not a model at all" * 9, b"\xff" * 40]:
        (tmp_path / "y").write_bytes(data)
        refuses("y is missing, cut off or not what it should be", read_safetensors, tmp_path / "y")
    for entry in [1, {}, {"dtype": "F32"}, {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
                  {"dtype": "F32", "shape": "x", "data_offsets": [0, 8]}, {"dtype": "F32", "shape": [1], "data_offsets": 5},
                  {"dtype": "F32", "shape": [1], "data_offsets": ["a", "b"]}, {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}]:  # fmt: skip
        refuses("cut off or not what it should be", read_safetensors, save(tmp_path / "z", {"ok": ("F32", [2], bytes(8))}, w=entry))
    (tmp_path / "z").write_bytes((2).to_bytes(8, "little") + b"[]")
    refuses("cut off or not what it should be", read_safetensors, tmp_path / "z")


LETTERS = [chr(i) for i in range(33, 127)]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *("##" + c for c in LETTERS), "the", "##ing", "é", "è", "##è", "東", "🚗"]
VOCABULARY = {piece: i for i, piece in enumerate(PIECES)}
SENTENCES = [
    *em.TEXTS, *UNICODE, "", " ", "a", "A", "Ünïcödé ÀÉÎ", "東京タワー と 東京", "🚗🚙 vroom 🥳", "x" * 101, "x" * 100, "the the the",
    "thing ething singing", "[CLS] in the [MASK] text[SEP]", "[cls] [UNK]x", "tab\tnew\nline\r\n", "nul\x00 bell\x07 soft\u00adhyphen",
    "zero\u200bwidth", "…—“quotes”", "e\u0301 combining", "İstanbul ΣΑΣ", "한국어 문장", "العربية", "हिन्दी", "ﬁ ligature",
    "Ⅷ ½ ²", "a-b_c.d,e;f", "$100 + 5% = ?", "don't can't", "UPPER lower MiXed", "1234567890", "word " * 50, "long " * 23 + "tail",
    "a b c d e f g h i j k l m n o p q r s t u", "a b c d e f g h i j k l m n o p q r s t u v", "a b c d e f g h i j k l m n o p q r s t u v w",
    "crème crème", "東", "é", "mixed 東 and é and 🚗", "end.",
]  # fmt: skip


def test_there_are_at_least_50_sentences():
    assert len(SENTENCES) >= 50


CONFIGURATIONS = [
    dict(),
    dict(layers=1, heads=1, pooling="cls", lower=False, norm=False),
    dict(layers=3, heads=8, pooling="mean", lower=False),
    dict(layers=0, heads=2, pooling="cls"),
    dict(layers=2, heads=2, pooling="mean", norm=False),
]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Each configuration as (folder, SentenceTransformer): saved once, loaded once."""
    saved = []
    for i, options in enumerate(CONFIGURATIONS):
        folder = tmp_path_factory.mktemp(f"encoder{i}")
        em.save_tiny_bert(folder, VOCABULARY, **options)
        saved.append((folder, em.sentence_transformers_encoder(folder)))
    return saved


@pytest.mark.parametrize("i", range(len(CONFIGURATIONS)), ids=lambda i: str(CONFIGURATIONS[i]))
def test_token_ids_and_encode_sentences_equal_sentence_transformers(encoders, i):
    folder, model = encoders[i]
    encoder = em.load_encoder(folder)
    theirs = model.tokenizer(SENTENCES, truncation=True)["input_ids"]
    for sentence, numbers in zip(SENTENCES, theirs):
        ours = em.token_ids(encoder, sentence)
        assert ours == numbers, f"{sentence!r}: {[PIECES[a] for a in ours]} is not {[PIECES[a] for a in numbers]}"
    vectors = model.encode(SENTENCES)
    for batch in [16, 1, 100]:
        ours = em.encode_sentences(encoder, SENTENCES, batch=batch)
        agree(f"vectors, batch {batch}", ours, vectors, *em.ALLOWED["sentences"])
    assert ours.dtype == np.float32
    agree("from the folder", em.encode_sentences(str(folder), SENTENCES[:3]), vectors[:3], *em.ALLOWED["sentences"])


def test_bert_equals_transformers_token_by_token(encoders):
    import torch

    folder, model = encoders[2]
    encoder, bert = em.load_encoder(folder), model[0].auto_model
    lengths = np.array([[9], [4], [1]])
    ids, mask = np.random.default_rng(0).integers(len(PIECES), size=(3, 9)), np.arange(9) < lengths
    with torch.no_grad():
        theirs = bert(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long()).last_hidden_state.numpy()
    ours = em.bert(ids, mask, encoder["weights"], encoder["heads"], encoder["eps"])
    agree("token vectors", ours[mask], theirs[mask], 3e-6, "not averaged over tokens, so each shows its own float32 noise")


def test_encode_sentences_does_not_depend_on_the_company(encoders):
    encoder = em.load_encoder(encoders[0][0])
    alone = np.vstack([em.encode_sentences(encoder, [text]) for text in SENTENCES[:20]])
    agree("one by one and together", alone, em.encode_sentences(encoder, SENTENCES[:20]), *em.ALLOWED["sentences"])
    agree("lengths", np.linalg.norm(alone, axis=1), np.ones(20), 1e-6, "normalised in float32")
    assert em.encode_sentences(encoder, []).shape == (0, 32)
    refuses("list of str", em.encode_sentences, encoder, "one text", error=TypeError)


def changed(source, folder, **files):
    """A copy of a saved encoder in which some JSON files (or their keys) are other ones."""
    shutil.copytree(source, folder)
    for name, change in files.items():
        path = folder / {"pooling": "1_Pooling/config.json"}.get(name, f"{name}.json")
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(change(content) if callable(change) else content | change))
    return folder


OLDER = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False,
         "pooling_mode_mean_sqrt_len_tokens": False, "word_embedding_dimension": 32}  # fmt: skip


@pytest.mark.parametrize("files", [
    dict(pooling=lambda _: OLDER),
    dict(pooling=lambda _: OLDER | {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}),
    dict(sentence_bert_config={"max_seq_length": 9, "do_lower_case": False}),
    dict(tokenizer_config={"model_max_length": 7}),
    dict(tokenizer_config={"model_max_length": 512}),
    dict(tokenizer_config={"strip_accents": False}),
    dict(tokenizer_config={"do_lower_case": False, "strip_accents": True}),
    dict(tokenizer_config=lambda c: {k: v for k, v in c.items() if k not in ("do_lower_case", "tokenize_chinese_chars")}),
    dict(tokenizer_config={"do_lower_case": False}, sentence_bert_config={"do_lower_case": True}),
    dict(config_sentence_transformers={"prompts": {"query": "the query: "}}),
    dict(config={"layer_norm_eps": 0.5}),
    dict(config={"num_attention_heads": 8}),
    dict(tokenizer=lambda t: t | {"truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
         "padding": {"strategy": {"Fixed": 20}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]", "pad_to_multiple_of": None}}),
], ids=str)  # fmt: skip
def test_load_encoder_reads_the_settings_that_the_library_reads(encoders, tmp_path, files):
    folder = changed(encoders[0][0], tmp_path / "model", **files)
    theirs = em.sentence_transformers_encoder(folder).encode(SENTENCES)
    agree("vectors", em.encode_sentences(folder, SENTENCES), theirs, *em.ALLOWED["sentences"])


def test_load_encoder_reads_half_precision(encoders, tmp_path):
    from safetensors.numpy import load_file, save_file
    from sentence_transformers import SentenceTransformer

    folder = changed(encoders[0][0], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    save_file({name: np.float16(w) for name, w in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    theirs = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"}).encode(SENTENCES)
    agree("vectors", em.encode_sentences(folder, SENTENCES), theirs, *em.ALLOWED["sentences"])


@pytest.mark.parametrize("files, message", [
    (dict(config={"model_type": "distilbert"}), "model_type must be bert, not distilbert"),
    (dict(tokenizer_config={"tokenize_chinese_chars": False}), "tokenize_chinese_chars must be True, not False"),
    (dict(config={"hidden_act": "relu"}), "hidden_act must be gelu, not relu"),
    (dict(config_sentence_transformers={"prompts": {"q": "query: "}, "default_prompt_name": "q"}), "default_prompt_name must be None, not q"),
    (dict(tokenizer=lambda t: t | {"model": {"type": "Unigram", "vocab": []}}), "tokenizer must be WordPiece, not Unigram"),
    (dict(modules=lambda m: [{"type": "x.StaticEmbedding", "path": ""}]), "modules must be Transformer Pooling, not StaticEmbedding$"),
    (dict(modules=lambda m: []), "modules must be Transformer Pooling, not $"),
    (dict(pooling={"pooling_mode": "max"}), "pooling must be mean, not max"),
    (dict(pooling={"pooling_mode": ["mean", "cls"]}), "pooling must be mean, not .*mean.*cls"),
    (dict(pooling=lambda _: OLDER | {"pooling_mode_max_tokens": True}), "pooling must be mean, not mean max|not m.* m.*"),
    (dict(modules=lambda m: m[:1]), "modules must be Transformer Pooling, not Transformer$"),
    (dict(modules=lambda m: m[:2] + [m[2] | {"type": "sentence_transformers.models.Dense"}]), "not Transformer Pooling Dense"),
], ids=str)  # fmt: skip
def test_load_encoder_refuses_models_of_another_kind(encoders, tmp_path, files, message):
    refuses(message, em.load_encoder, changed(encoders[0][0], tmp_path / "model", **files))


@pytest.mark.parametrize("name", ["modules.json", "config.json", "1_Pooling/config.json", "tokenizer.json", "model.safetensors"])
def test_load_encoder_names_the_file_that_is_missing_or_broken(encoders, tmp_path, name):
    folder = changed(encoders[0][0], tmp_path / "model")
    (folder / name).write_text("{ this is not")
    refuses(Path(name).name, em.encode_sentences, folder, ["a"])
    (folder / name).unlink()
    with pytest.raises((ValueError, OSError), match=Path(name).name):
        em.encode_sentences(folder, ["a"])


def test_load_encoder_refuses_an_empty_folder_and_a_broken_optional_file(encoders, tmp_path):
    refuses("modules.json is missing, cut off or not", em.load_encoder, tmp_path)
    refuses("modules.json is missing", em.load_encoder, tmp_path / "nowhere")
    folder = changed(encoders[0][0], tmp_path / "model")
    (folder / "tokenizer_config.json").write_text("{")
    refuses("tokenizer_config.json is missing, cut off or not", em.load_encoder, folder)


@pytest.mark.parametrize("prepare", ["nowhere", "empty"])
def test_a_model_folder_that_cannot_be_read_is_one_line_and_exit_2(tmp_path, prepare):
    folder = tmp_path / prepare
    if prepare == "empty":
        folder.mkdir()
    done = subprocess.run([sys.executable, em.__file__, "--model", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "modules.json is missing" in done.stderr


# --- Contrastive loss -----------------------------------------------------------------
def test_info_nce_by_hand():
    """Two perpendicular pairs, scale 1: each softmax is e / (e + 1)."""
    loss, dA, dB = em.info_nce([[2, 0], [0, 3]], [[5, 0], [0, 1]], scale=1.0)
    p = np.e / (np.e + 1)
    agree("loss", loss, -np.log(p), *EXACT)
    agree("dA", dA, [[0, (1 - p) / 2 / 2], [(1 - p) / 2 / 3, 0]], *EXACT)
    agree("dB", dB, [[0, (1 - p) / 2 / 5], [(1 - p) / 2, 0]], *EXACT)


@pytest.mark.parametrize("n, m, d, scale", [(4, 4, 3, 20.0), (3, 7, 5, 1.0), (1, 1, 2, 5.0), (1, 4, 2, 5.0)])
def test_info_nce_gradient_is_the_slope_of_its_loss(n, m, d, scale):
    A, B = normal(0, n, d), normal(1, m, d)
    _, dA, dB = em.info_nce(A, B, scale)
    agree("dL/dA", dA, slopes(lambda A: em.info_nce(A, B, scale)[0], A), 1e-7, "central differences")
    agree("dL/dB", dB, slopes(lambda B: em.info_nce(A, B, scale)[0], B), 1e-7, "central differences")
    agree("no part along a", (A * dA).sum(axis=1), np.zeros(n), *EXACT)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n, m, d", [(8, 8, 5), (8, 16, 5), (8, 24, 3), (2, 2, 40)])
@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
def test_info_nce_equals_sentence_transformers(n, m, d, scale, seed):
    A, B = normal(seed, n, d), normal(seed + 1, m, d)
    for what, ours, theirs in zip(["loss", "dA", "dB"], em.info_nce(A, B, scale), em.sentence_transformers_info_nce(A, B, scale)):
        agree(what, ours, theirs, *em.ALLOWED["steps"])


def test_info_nce_stays_finite_at_a_large_scale():
    with np.errstate(over="raise", invalid="raise"):
        loss, dA, dB = em.info_nce([[1, 0], [0, 1]], [[-1, 0], [1, 1e-3]], scale=1e5)
    assert np.isfinite([loss, *dA.ravel(), *dB.ravel()]).all() and loss > 1e4


def test_info_nce_refuses_bad_input():
    A = np.eye(3)
    refuses("B must be .3 or more, 3.", em.info_nce, A, A[:2])
    refuses("B must be .3 or more, 3.", em.info_nce, A, A[:, :2])
    refuses("row of zeros", em.info_nce, A * 0, A)
    refuses("row of zeros", em.info_nce, A, A * [[1], [1], [0]])
    refuses("row of zeros", em.info_nce, [[1, 1], [0, 0]], np.ones((2, 2)))
    refuses("row of zeros", em.info_nce, np.ones((2, 2)), [[1, 1], [0, 0]])
    assert np.isfinite(em.info_nce([[1, 0], [2, 0]], [[3, 0], [4, 0]])[0])  # a column of zeros is fine
    refuses("scale must be above 0", em.info_nce, A, A, scale=0)
    refuses("A must have 2 dim", em.info_nce, A[0], A)
    refuses("finite", em.info_nce, A, A * np.nan)


# --- Every function -------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["list", "integers", "float32", "fortran", "read-only"])
def test_input_of_every_kind_works_and_is_never_changed(kind):
    X = np.round(normal(0, 12, 3) * 8)
    given = {"list": X.tolist(), "integers": X.astype(int), "float32": X.astype(np.float32), "fortran": np.asfortranarray(X), "read-only": X.copy()}[kind]
    if kind == "read-only":
        given.flags.writeable = False
    for name, f in {
        "nearest": lambda X: em.nearest(X, X, 2, "euclidean")[0], "svd_jacobi": lambda X: em.svd_jacobi(X)[1],
        "svd_randomized": lambda X: em.svd_randomized(X, 2, np.random.default_rng(0))[1],
        "fit_pca": lambda X: em.pca_transform(X, *em.fit_pca(X, 2)[:3]), "fit_lsa": lambda X: em.fit_lsa(X, 2)[0],
        "kmeans": lambda X: em.fit_kmeans(X, em.kmeans_plus_plus(X, 3, np.random.default_rng(0)))[0],
        "joint_probabilities": lambda X: em.joint_probabilities(X, 4.0), "info_nce": lambda X: em.info_nce(X, X)[1],
    }.items():  # fmt: skip
        agree(name, f(given), f(X), 1e-10, "the same numbers in another container")
    agree("X", np.array(given), X, *EXACT)
