"""What linear_models.py promises, in the order in which it is read: `pytest -x` names the
first equation that is wrong. Practise: delete the body of fit_ridge, write it anew, and run
`pytest -k ridge -x`."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
from conftest import agree

import linear_models as lm
from linear_models import ALLOWED
from utils import DidNotConverge, make_moons, make_regression

BY_HAND = 1e-12, "worked by hand"
EPS = np.finfo(float).eps


def data(seed, n, d, noise=0.5):
    return make_regression(np.random.default_rng(seed), n, d, noise)[:2]


def labelled(seed, n=80, d=3, k=2, noise=1.0):
    """X (n, d) and labels 0..k-1 that overlap, so that no line separates them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    score = X @ rng.normal(size=(d, k)) + noise * rng.gumbel(size=(n, k))
    y = score.argmax(axis=1)
    y[:k] = np.arange(k)
    return X, y


def slope_of(objective, theta, h=1e-6):
    """Central differences: how the objective really changes."""
    return np.array([(objective(theta + e) - objective(theta - e)) / (2 * h) for e in h * np.eye(len(theta))])


# --- Linear regression


def test_predict_linear_by_hand():
    agree("z = Xw + b", lm.predict_linear([[1, 2], [3, 4]], [10, 1], 0.5), [12.5, 34.5], *BY_HAND)


def test_solve_least_squares_by_hand():
    agree("the mean of 1 and 3", lm.solve_least_squares(np.ones((2, 1)), np.array([1.0, 3])), [2], *BY_HAND)
    w = lm.solve_least_squares(np.array([[1.0, 2]]), np.array([5.0]))
    agree("the shortest w with w1 + 2 w2 = 5", w, [1, 2], *BY_HAND)


@pytest.mark.parametrize("sign", [1, -1])
def test_solve_least_squares_keeps_a_small_column_of_one_sign(sign):
    A = np.array([[sign * 1e-20, 1], [0, 1], [0, -1]])
    w = lm.solve_least_squares(A, np.array([3.0, 1, -1])) / [1e20, 1]
    agree("w in units of 1e20", w, [2 * sign, 1], *BY_HAND)


def test_fit_linear_regression_by_hand():
    w, b = lm.fit_linear_regression([[1], [2], [3], [4], [5]], [52, 55, 61, 64, 68])
    agree("slope 41 / 10", w, [4.1], *BY_HAND)
    agree("intercept 60 - 3 * 4.1", b, 47.7, *BY_HAND)


@pytest.mark.parametrize("n, d", [(60, 3), (20, 19), (30, 1), (10, 25), (5, 5), (2, 1), (1, 3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_fit_linear_regression_matches_scikit_learn(n, d, seed):
    X, y = data(seed, n, d)
    w, b = lm.fit_linear_regression(X, y)
    model = lm.sklearn_linear_regression(X, y, tol=1e-12)
    agree("w", w, model.coef_, *ALLOWED["linear regression"])
    agree("b", b, model.intercept_, *ALLOWED["linear regression"])


@pytest.mark.parametrize("case", ["duplicate", "constant", "sum", "all constant", "rows repeat"])
def test_fit_linear_regression_returns_the_shortest_w_when_many_fit(case):
    X, y = data(2, 30, 3)
    columns = {
        "duplicate": [X, 1000 * X[:, :1]],
        "constant": [X, np.full((30, 1), 7.0)],
        "sum": [X, X.sum(axis=1, keepdims=True), X[:, :1] - X[:, 1:2]],
        "all constant": [np.ones((30, 2))],
        "rows repeat": [np.repeat(X[:3], 10, axis=0), np.repeat(X[3:6], 10, axis=0)],
    }
    X = np.hstack(columns[case])
    w, b = lm.fit_linear_regression(X, y)
    shortest = np.linalg.pinv(X - X.mean(axis=0), rcond=1e-12) @ (y - y.mean())
    agree("the shortest w", w, shortest, 1e-9, "pinv works in the original units")
    agree("residuals add up to 0", np.mean(y - X @ w - b), 0, 1e-12, "b is mean(y) - mean(X)·w")


def exact_least_squares(X, y):
    """w (d,) in rational arithmetic, by Gauss on the normal equations: no rounding at all."""
    rows = [[Fraction(1), *map(Fraction, row.tolist())] for row in X]
    target, size = [Fraction(v) for v in y.tolist()], X.shape[1] + 1
    table = [[sum(row[i] * row[j] for row in rows) for j in range(size)] for i in range(size)]
    table = [line + [sum(row[i] * t for row, t in zip(rows, target))] for i, line in enumerate(table)]
    for k in range(size):
        for i in [i for i in range(size) if i != k]:
            factor = table[i][k] / table[k][k]
            table[i] = [a - factor * b for a, b in zip(table[i], table[k])]
    return np.array([float(table[i][-1] / table[i][i]) for i in range(1, size)])


@pytest.mark.parametrize("noise", [0, 0.1])
@pytest.mark.parametrize("design", [(5, 0, 10), (7, 0, 10), (10, 0, 10), (10, -1, 1), (5, 100, 120), "twins 1e-6", "twins 1e-9"])
def test_fit_linear_regression_keeps_its_digits_on_bad_designs(design, noise):
    rng = np.random.default_rng(3)
    if isinstance(design, tuple):
        degree, low, high = design
        X = np.linspace(low, high, 30)[:, None] ** np.arange(1, degree + 1)
    else:
        X = rng.normal(size=(30, 3))
        X[:, 2] = X[:, 0] + float(design.split()[1]) * X[:, 2]
    y = np.sin(np.arange(30) / 10) + noise * rng.normal(size=30)
    scale = np.linalg.norm(X - X.mean(axis=0), axis=0)
    cond = np.linalg.cond((X - X.mean(axis=0)) / scale)
    exact = exact_least_squares(X, y)
    error = np.linalg.norm((lm.fit_linear_regression(X, y)[0] - exact) * scale) / np.linalg.norm(exact * scale)
    agree(f"error where cond is {cond:.0e}", error, 0, 100 * EPS * cond, "100 eps cond")


def test_fit_linear_regression_is_better_than_the_librarys_default_where_the_text_says_so():
    true = np.arange(1.0, 8)
    X = np.linspace(0, 10, 40)[:, None] ** true
    assert np.abs(lm.fit_linear_regression(X, X @ true)[0] - true).max() < 1e-5
    assert np.abs(lm.sklearn_linear_regression(X, X @ true, tol=1e-6).coef_ - true).max() > 1


@pytest.mark.parametrize("size", [1e-90, 1e90, 1e-300])
def test_fit_linear_regression_does_not_mind_the_units(size):
    X, y = data(4, 20, 2)
    w, _ = lm.fit_linear_regression(X * [1, size], y)
    agree("w in the usual units", w * [1, size], lm.fit_linear_regression(X, y)[0], 1e-10, "only the unit changed")


def test_step_bound_by_hand():
    agree("X1'X1/n = [[1, 1], [1, 1]], L = 2", lm.step_bound([[1], [1]]), 1, *BY_HAND)
    agree("X1'X1/n = [[4, 0], [0, 1]], L = 4", lm.step_bound([[2], [-2], [2], [-2]]), 0.5, *BY_HAND)


def test_fit_linear_regression_gd_takes_the_step_of_equation_3():
    w, b, losses = lm.fit_linear_regression_gd([[1], [3]], [2, 4], lr=0.1, steps=1)
    agree("J(0) = (4 + 16) / 4", losses, [5], *BY_HAND)
    agree("w = 0.1 (1 * 2 + 3 * 4) / 2", w, [0.7], *BY_HAND)
    agree("b = 0.1 * 3", b, 0.3, *BY_HAND)
    w, b, losses = lm.fit_linear_regression_gd([[1], [3]], [2, 4], lr=0.1, steps=0)
    assert w.tolist() == [0] and b == 0 and losses.shape == (0,)


def test_fit_linear_regression_gd_falls_below_the_step_bound_and_explodes_above():
    X, y = data(5, 40, 3)
    bound = lm.step_bound(X)
    losses = lm.fit_linear_regression_gd(X, y, 0.999 * bound, 100)[2]
    assert losses.shape == (100,) and np.all(np.diff(losses) <= 0)
    with pytest.raises(ValueError, match="lr must be below the step bound, not"):
        lm.fit_linear_regression_gd(X, y, 1.01 * bound, 10_000)


def test_gradient_descent_gives_up_at_a_million_million_times_the_first_loss():
    """X1'X1/n = I, so lr = 3 turns an error into -2 times itself and J into 4 J: 4^20 is 1.1e12."""
    losses = lm.fit_linear_regression_gd([[1], [-1]], [1, -1], lr=3, steps=20)[2]
    agree("J", losses, 0.5 * 4.0 ** np.arange(20), *BY_HAND)
    with pytest.raises(ValueError, match="the objective explodes"):
        lm.fit_linear_regression_gd([[1], [-1]], [1, -1], lr=3, steps=21)


def test_gradient_descent_says_nothing_while_a_loss_of_zero_stays_zero():
    w, b, losses = lm.fit_linear_regression_gd([[1], [2]], [0, 0], lr=0.1, steps=5)
    assert losses.tolist() == [0] * 5 and w.tolist() == [0] and b == 0


def test_fit_linear_regression_gd_matches_scikit_learn():
    X, y = data(6, 60, 4)
    w, b, _ = lm.fit_linear_regression_gd(X, y, 0.9 * lm.step_bound(X), 1000)
    model = lm.sklearn_linear_regression(X, y)
    agree("w", w, model.coef_, *ALLOWED["gradient descent"])
    agree("b", b, model.intercept_, *ALLOWED["gradient descent"])


# --- Ridge


def test_centred_gram_is_the_gram_matrix_of_centred_columns_across_block_seams():
    X, y = data(7, 103, 4)
    for rows in [10, 103, 2048]:
        gram, moment, mean = lm.centred_gram(X + 1e3, y + 5, rows)
        C = X - X.mean(axis=0)
        agree("X'X", gram, C.T @ C, 1e-10, "only the order of the sums differs")
        agree("X'y", moment, C.T @ (y - y.mean()), 1e-10, "only the order of the sums differs")
        agree("mean", mean, X.mean(axis=0) + 1e3, 1e-12, "the same mean")


def test_fit_ridge_by_hand():
    w, b = lm.fit_ridge([[-1], [1]], [-1, 3], l2=1)
    agree("w = X'y / (X'X + l2) = 4 / (2 + 1)", w, [4 / 3], *BY_HAND)
    agree("b = mean(y), it costs nothing", b, 1, *BY_HAND)


def test_fit_ridge_leaves_the_intercept_free():
    X, y = data(8, 30, 3)
    (w, b), (w_up, b_up) = lm.fit_ridge(X, y, 5.0), lm.fit_ridge(X + 10, y + 1000, 5.0)
    agree("w after moving X and y", w_up, w, 1e-10, "only the origin moved")
    agree("b after moving X and y", b_up, b + 1000 - 10 * w.sum(), 1e-10, "b takes it up")


@pytest.mark.parametrize("l2", [1e-3, 1, 100], ids=lambda l2: f"l2={l2}")
@pytest.mark.parametrize("n, d, seed", [(60, 3, 0), (60, 3, 1), (10, 30, 2), (4100, 2, 3), (1, 2, 4)])
def test_fit_ridge_matches_scikit_learn(n, d, seed, l2):
    X, y = data(seed, n, d)
    w, b = lm.fit_ridge(X, y, l2)
    model = lm.sklearn_ridge(X, y, l2)
    agree("w", w, model.coef_, *ALLOWED["ridge"])
    agree("b", b, model.intercept_, *ALLOWED["ridge"])


@pytest.mark.parametrize("size", [1e-6, 1, 1e6], ids="X in units of {:g}".format)
@pytest.mark.parametrize("l2", [0, 1e-12, 1e-5])
def test_fit_ridge_keeps_its_digits_when_l2_is_too_small_to_help(l2, size):
    X, y = data(9, 40, 3)
    X[:, 2] = X[:, 0] + 1e-5 * X[:, 2]
    C, r = X - X.mean(axis=0), y - y.mean()
    exact = np.linalg.lstsq(np.vstack([C, np.sqrt(l2) * np.eye(3)]), np.append(r, np.zeros(3)), rcond=None)[0]
    w = lm.fit_ridge(X * size, y, l2 * size**2)[0] * size
    agree("w", w, exact, 1e-8, "cond is 1e5, so 1e5 eps times a little")


@pytest.mark.parametrize("l2", [0, 1e-9, 1.0])
def test_fit_ridge_does_not_mind_a_distant_y(l2):
    """2^40 is added without rounding. Were y not centred first, four of its digits would be left."""
    X, y = data(9, 60, 3)
    y = np.round(100 * y)
    agree("w", lm.fit_ridge(X, y + 2.0**40, l2)[0], lm.fit_ridge(X, y, l2)[0], 1e-10, "the same y, further away")
    assert abs(lm.fit_ridge(X, y + 2.0**40, l2)[1] - 2.0**40) < 1e3


def test_fit_ridge_keeps_a_distant_y_where_l2_is_too_small_to_help():
    X, y = data(9, 40, 3)
    X[:, 2], y = X[:, 0] + 2.0**-17 * X[:, 2], np.round(100 * y)
    w, near = lm.fit_ridge(X, y + 2.0**40, 1e-12)[0], lm.fit_ridge(X, y, 1e-12)[0]
    agree("w", w, near, 1e-9, "the same y, further away")


def test_fit_ridge_factors_only_where_equation_5_would_lose_digits(monkeypatch):
    """(5) costs a third of a factorisation."""
    calls, exact = [], lm.solve_least_squares
    monkeypatch.setattr(lm, "solve_least_squares", lambda A, r: calls.append(len(A)) or exact(A, r))
    X, y = data(0, 60, 3)
    lm.fit_ridge(X, y, 1.0)
    assert not calls
    lm.fit_ridge(np.column_stack([X, X[:, 0]]), y, 1e-9)
    assert calls == [64]


def test_fit_ridge_with_no_price_is_least_squares():
    X, y = data(10, 15, 20)
    agree("w", lm.fit_ridge(X, y, 0)[0], lm.fit_linear_regression(X, y)[0], 1e-10, "the same J")


# --- Lasso and elastic net


@pytest.mark.parametrize("rho, expected", [(3, 2), (-3, -2), (0.5, 0), (-0.5, 0), (1, 0), (-1, 0)])
def test_soft_threshold_by_hand(rho, expected):
    assert lm.soft_threshold(rho, 1) == expected


@pytest.mark.parametrize("l2", [0, 0.3])
def test_duality_gap_is_j_minus_d_of_equations_6_and_8(l2):
    X, y = data(11, 25, 4)
    X, y, l1 = X - X.mean(axis=0), y - y.mean(), 0.2
    best = lm.fit_lasso(X, y, l1, l2)[0]
    for w in [best, best + 0.1, np.zeros(4)]:
        r = y - X @ w
        s = min(1, l1 / np.abs(X.T @ r / 25 - l2 * w).max())
        J = r @ r / 50 + l1 * np.abs(w).sum() + l2 / 2 * w @ w
        D = s * r @ y / 25 - s**2 * (r @ r / 25 + l2 * w @ w) / 2
        gap = lm.duality_gap(w, X.T @ r / 25, X.T @ y / 25, y @ y / 25, l1, l2)
        agree("gap", gap, J - D, 1e-12, "the same formula on the rows themselves")
        assert gap > -1e-12 and (gap < 1e-10) == (w is best)


@pytest.mark.parametrize("l1, l2", [(0.5, 0), (0.5, 1)])
def test_fit_lasso_by_hand(l1, l2):
    """One column with x·x/n = 1 and rho = x·y/n = 2: w = (2 - l1) / (1 + l2)."""
    w, b = lm.fit_lasso([[-1], [1]], [1, 5], l1, l2)
    agree("w", w, [1.5 / (1 + l2)], *BY_HAND)
    agree("b", b, 3, *BY_HAND)


def test_fit_lasso_leaves_everything_out_when_the_price_exceeds_every_pull():
    X, y = data(12, 40, 5)
    highest = np.abs((X - X.mean(axis=0)).T @ (y - y.mean())).max() / 40
    assert np.all(lm.fit_lasso(X, y, highest * 1.0001)[0] == 0)
    assert np.sum(lm.fit_lasso(X, y, highest * 0.999)[0] != 0) == 1


@pytest.mark.parametrize("l1, l2", [(0.01, 0), (0.3, 0), (0.1, 0.5), (0.01, 2.0)])
@pytest.mark.parametrize("n, d, seed", [(80, 6, 0), (80, 6, 1), (20, 40, 2)])
def test_fit_lasso_matches_scikit_learn(n, d, seed, l1, l2):
    X, y = data(seed, n, d)
    X = X + 0.7 * X[:, :1]  # correlated columns
    w, b = lm.fit_lasso(X + 3, y, l1, l2)
    model = lm.sklearn_lasso(X + 3, y, l1, l2)
    agree("w", w, model.coef_, *ALLOWED["lasso"])
    agree("b", b, model.intercept_, *ALLOWED["lasso"])
    agree("zeros", w == 0, model.coef_ == 0, *ALLOWED["same choice"])


@pytest.mark.parametrize("unit", [1e-30, 1e-3, 1e3, 1e30])
def test_fit_lasso_does_not_mind_the_units_of_all_columns(unit):
    X, y = data(13, 40, 4)
    agree("w", lm.fit_lasso(X * unit, y, 0.1 * unit)[0] * unit, lm.fit_lasso(X, y, 0.1)[0], 1e-8, "only the unit changed")


def test_fit_lasso_gives_a_constant_column_no_weight():
    X, y = data(13, 30, 2)
    w, _ = lm.fit_lasso(np.column_stack([X, np.full(30, 4.0)]), y, 0.1)
    agree("the others", w, [*lm.fit_lasso(X, y, 0.1)[0], 0], 1e-10, "a constant explains nothing")
    assert lm.fit_lasso(np.ones((5, 2)), [1, 2, 3, 4, 5], 0.1)[0].tolist() == [0, 0]


@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_fit_lasso_stops_as_soon_as_the_gap_is_small_enough(tol):
    X, y = data(15, 60, 8)
    X, y, l1 = X + 2 * X[:, :1], 9 * y, 0.05
    C, r = X - X.mean(axis=0), y - y.mean()
    w, b = lm.fit_lasso(X, y, l1, tol=tol)
    gap = lm.duality_gap(w, C.T @ (r - C @ w) / 60, C.T @ r / 60, r @ r / 60, l1, 0)
    share = gap / (r @ r / 60)
    assert tol / 100 < share <= tol, f"stopped at a gap of {share:.1e} y·y/n, allowed {tol:g}"


def test_fit_lasso_needs_one_sweep_where_columns_are_orthogonal():
    X = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    w, _ = lm.fit_lasso(X, X @ [3.0, -2], l1=0.5, sweeps=1)
    agree("each moves l1 towards 0", w, [2.5, -1.5], *BY_HAND)


def test_fit_lasso_sweeps_over_all_columns_only_when_the_nonzero_ones_rest(monkeypatch):
    calls, exact = [], lm.soft_threshold
    monkeypatch.setattr(lm, "soft_threshold", lambda rho, l1: calls.append(rho) or exact(rho, l1))
    X, y = data(16, 200, 100)
    X, y = X + 2 * X[:, :1], X[:, :3] @ [5.0, 4, 3]
    w, _ = lm.fit_lasso(X, y, 0.3)
    kept = np.sum(w != 0)
    assert kept < 20 and len(calls) < 40_000, f"{len(calls)} steps for {kept} weights; 600,000 if all always move"


def test_fit_lasso_says_how_far_it_got():
    X, y = data(14, 50, 8)
    X = X + X[:, :1]
    with pytest.warns(DidNotConverge, match=r"lasso: duality gap \d.* after 2 sweeps") as warned:
        w, _ = lm.fit_lasso(X, y, 0.001, sweeps=2)
    C, r = X - X.mean(axis=0), y - y.mean()
    gap = lm.duality_gap(w, C.T @ (r - C @ w) / 50, C.T @ r / 50, r @ r / 50, 0.001, 0)
    agree("the gap it speaks of", float(str(warned[0].message).split()[3]) / gap, 1, 0.05, "two digits")


# --- Logistic regression


@pytest.mark.parametrize("z, p", [(0, 1 / 2), (np.log(3), 3 / 4), (-np.log(3), 1 / 4), (-1000, 0), (1000, 1)])
def test_sigmoid_by_hand(z, p):
    agree("sigmoid, equation (9)", lm.sigmoid(z), p, *BY_HAND)


def test_logistic_loss_by_hand():
    agree("two coin flips", lm.logistic_loss(np.zeros(2), np.array([0, 1])), 2 * np.log(2), *BY_HAND)
    agree("-log(3/4) - log(1/4)", lm.logistic_loss(np.log([3, 3]), np.array([1, 0])), np.log(16 / 3), *BY_HAND)
    agree("a sure mistake", lm.logistic_loss(np.array([-1000.0, 1000]), np.array([1, 0])), 2000, *BY_HAND)


def test_newton_needs_one_step_on_a_parabola_even_where_it_is_flat():
    H, c, calls = np.diag([2.0, 8.0, 0.0]), np.array([4.0, 8.0, 0.0]), []

    def slopes(theta):
        calls.append(theta)
        return H @ theta - c, H

    theta = lm.newton(lambda t: t @ H @ t / 2 - c @ t + 50, slopes, np.zeros(3), "parabola")
    agree("bottom", theta, [2, 1, 0], *BY_HAND)
    assert len(calls) == 2
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    H, c = turn @ H @ turn.T, turn @ c  # the same parabola, turned: its flat direction is rounding now
    theta = lm.newton(lambda t: t @ H @ t / 2 - c @ t + 50, slopes, np.zeros(3), "parabola", steps=2)
    agree("slopes at the bottom, turned", H @ theta, c, 1e-10, "the flat direction takes no part")
    size = np.sqrt(H.diagonal())
    shortest = np.linalg.pinv(H / np.outer(size, size), rcond=1e-12) @ (c / size) / size
    agree("bottom, turned", theta, shortest, 1e-10, "the shortest where every curvature is 1")


def test_newton_halves_a_step_that_would_climb():
    """log(cosh) from 3: the full step lands near -100 and is worse."""
    seen = []

    def slopes(theta):
        seen.append(float(theta[0]))
        return np.tanh(theta), np.diag(1 - np.tanh(theta) ** 2)

    theta = lm.newton(lambda t: float(np.log(np.cosh(t[0]))), slopes, np.array([3.0]), "log cosh")
    agree("the bottom is at 0", theta, [0], 1e-9, "g·step is then below 1e-18")
    assert np.all(np.diff(np.log(np.cosh(seen))) <= 0) and min(seen) > -3


def test_newton_ends_when_the_gain_is_rounding_beside_j():
    """theta ← theta - tanh(theta): 1, 0.24, 4e-3, 3e-8. Beside 1e8 a gain of 1e-15 is nothing, one of 2e-5 is not."""
    calls = []
    lm.newton(lambda t: float(np.cosh(t[0])) + 1e8, lambda t: calls.append(t) or (np.sinh(t), np.diag(np.cosh(t))), np.ones(1), "cosh")
    assert len(calls) == 4


def test_newton_says_how_far_it_got():
    with pytest.warns(DidNotConverge, match="cube: J could fall by"):
        lm.newton(lambda t: float(t[0] ** 4), lambda t: (4 * t**3, np.diag(12 * t**2)), np.ones(1), "cube", steps=2)


def logistic_objective(X, y, l2):
    return lambda theta: lm.logistic_loss(X @ theta[:-1] + theta[-1], y) + l2 / 2 * theta[:-1] @ theta[:-1]


@pytest.mark.parametrize("l2", [0, 2.0])
def test_fit_logistic_ends_where_j_is_flat(l2):
    X, y = labelled(0)
    w, b = lm.fit_logistic(X, y, l2)
    slope = slope_of(logistic_objective(X, y, l2), np.append(w, b))
    agree("slope of J at the end", slope, np.zeros(4), 1e-6, "central differences")


def test_fit_logistic_accepts_a_far_outlier_without_a_price():
    """Its score is beyond 30 and rightly so: the others overlap, so a best w exists."""
    x = np.array([-1.0, 0, 1, -0.5, 0.5, 0.2, 200])
    w, b = lm.fit_logistic(x[:, None], [0, 1, 1, 0, 1, 0, 1], 0)
    assert 200 * w[0] + b > 30
    for sign in [1, -1]:
        flipped = lm.fit_logistic(sign * x[:, None], [0, 1, 1, 0, 1, 0, 1], 0)[0]
        agree("w", flipped, sign * w, 1e-8, "only the sign of x changed")


@pytest.mark.parametrize("fit", [lambda X, y: lm.fit_logistic(X, y, 3.0), lambda X, y: lm.fit_linear_svm(X, y, 0.7)], ids=["fit_logistic", "fit_linear_svm"])
def test_newton_is_handed_an_objective_with_its_true_slopes_and_curvatures(fit, monkeypatch):
    X, y = labelled(6)
    handed = {}

    def spy(objective, slopes, theta, name, **options):
        handed.update(objective=objective, slopes=slopes)
        assert not theta.any(), "it starts at zero"
        return theta

    monkeypatch.setattr(lm, "newton", spy)
    fit(X, y)
    at = np.array([0.3, -0.2, 0.5, 0.1])
    g, H = handed["slopes"](at)
    agree("g", g, slope_of(handed["objective"], at), 1e-6, "central differences")
    agree("H", H, np.array([slope_of(lambda t: handed["slopes"](t)[0][i], at) for i in range(4)]), 1e-5, "central differences")


@pytest.mark.parametrize("l2", [0, 0.01, 1, 100], ids=lambda l2: f"l2={l2}")
@pytest.mark.parametrize("seed, n, d", [(0, 80, 3), (1, 300, 5), (2, 60, 1)])
def test_fit_logistic_matches_scikit_learn(seed, n, d, l2):
    X, y = labelled(seed, n, d)
    w, b = lm.fit_logistic(X + 2, y, l2)
    model = lm.sklearn_logistic(X + 2, y, l2)
    agree("w", w, model.coef_[0], *ALLOWED["logistic"])
    agree("b", b, model.intercept_[0], *ALLOWED["logistic"])
    p = lm.predict_logistic(X + 2, w, b)
    agree("p", p, model.predict_proba(X + 2)[:, 1], *ALLOWED["logistic"])


def test_fit_logistic_with_more_features_than_rows():
    X, y = labelled(3, n=15, d=40)
    w, b = lm.fit_logistic(X, y, 0.5)
    agree("w", w, lm.sklearn_logistic(X, y, 0.5).coef_[0], *ALLOWED["logistic"])


@pytest.mark.parametrize(
    "x, y",
    [([1, 2, 3, 4], [0, 0, 1, 1]), ([1, 2, 2, 3], [0, 0, 1, 1]), ([0, 1], [1, 0]), ([1, 1, 2, 2], [0, 1, 1, 1]), ([1, 1, 2, 2], [0, 1, 0, 0])],
    ids=["separable", "touching", "two rows", "half", "the other half"],
)
def test_fit_logistic_refuses_separable_classes_without_a_price(x, y):
    X = np.array(x, dtype=float)[:, None]
    with pytest.raises(ValueError, match="l2 must be above 0 here: the classes can be separated"):
        lm.fit_logistic(X, y, 0)
    w, b = lm.fit_logistic(X, y, 1e-3)
    agree("w with a price", w, lm.sklearn_logistic(X, y, 1e-3).coef_[0], *ALLOWED["logistic"])


def test_fit_logistic_refuses_thirty_columns_that_separate_without_a_warning():
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    with pytest.raises(ValueError, match="the classes can be separated"):
        lm.fit_logistic(lm.scale(X, *lm.fit_scaler(X)), y, 0)


@pytest.mark.parametrize("hidden", [False, True], ids=["bare", "hidden in a difference"])
@pytest.mark.parametrize("rows", [1, 3, 20])
@pytest.mark.parametrize("n", [100, 1000, 10_000])
def test_fit_logistic_refuses_a_rare_column_that_comes_with_one_class_alone(n, rows, hidden):
    """The others overlap, but its own weight grows for ever."""
    X, y = labelled(0, n, 2)
    rare = np.zeros(n)
    rare[np.flatnonzero(y == 1)[:rows]] = 1
    columns = [X, X[:, 0] + rare] if hidden else [X, rare]
    with pytest.raises(ValueError, match="l2 must be above 0 here"):
        lm.fit_logistic(np.column_stack(columns), y, 0)
    rare[np.flatnonzero(y == 0)[0]] = 1  # one row of the other class, and there is a best w
    w, b = lm.fit_logistic(np.column_stack([X, rare]), y, 0)
    agree("p of the rare rows", lm.predict_logistic(np.column_stack([X, rare]), w, b)[rare == 1].sum(), rows, 1e-8, "(11) = 0")


@pytest.mark.parametrize("x, y", [(-2.5, [0, 0]), (0, [1, 1]), (0, [0, 0])], ids=["p near 0", "class 1", "class 0"])
def test_fit_logistic_accepts_a_column_that_two_rows_of_one_class_decide(x, y):
    """Its values are 1 and -1 there: a large weight is wrong for one of them. p = 0.004 is not certain."""
    X, labels = labelled(2, 60, 1, noise=0.3)
    X = np.column_stack([np.append(X, [x, x]), np.append(np.zeros(60), [1, -1])])
    labels = np.append(labels if np.corrcoef(X[:60, 0], labels)[0, 1] > 0 else 1 - labels, y)
    w, b = lm.fit_logistic(X, labels, 0)
    agree("w of the column", w[1], 0, 1e-6, "the two rows are mirror images")


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6, 1e12])
def test_fit_logistic_without_a_price_does_not_mind_the_units(unit):
    X, y = labelled(1)
    w, b = lm.fit_logistic(X, y, 0)
    w_unit, b_unit = lm.fit_logistic(X * [1, unit, 1], y, 0)
    agree("w", w_unit * [1, unit, 1], w, 1e-8, "only a unit changed")
    agree("b", b_unit, b, 1e-8, "only a unit changed")


def test_fit_logistic_ignores_what_a_repeated_or_constant_column_adds():
    X, y = labelled(4)
    more = np.column_stack([X, X[:, 0], np.ones(len(y))])
    p, p_more = lm.predict_logistic(X, *lm.fit_logistic(X, y, 0)), lm.predict_logistic(more, *lm.fit_logistic(more, y, 0))
    agree("p", p_more, p, 1e-8, "the same scores can be reached")


# --- Softmax regression


def test_softmax_by_hand():
    agree("odds 1 : 2 : 5", lm.softmax(np.log([[1.0, 2, 5]])), [[1 / 8, 2 / 8, 5 / 8]], *BY_HAND)
    agree("huge scores", lm.softmax(np.array([[1e4, 0], [-1e4, 0]])), [[1, 0], [0, 1]], *BY_HAND)


def test_minimize_lbfgs_finds_the_bottom_of_a_long_valley():
    H, c = np.diag([1.0, 10, 1000]), np.array([1.0, 1, 1])
    calls = []

    def valley(x):
        calls.append(x)
        return x @ H @ x / 2 - c @ x, H @ x - c

    x, slope = lm.minimize_lbfgs(valley, np.full(3, 5.0), tol=1e-9, steps=100)
    agree("H^-1 c", x, [1, 0.1, 0.001], 1e-8, "slope below 1e-9")
    assert slope <= 1e-9 and len(calls) < 60
    x, slope = lm.minimize_lbfgs(valley, np.full(3, 5.0), tol=1e-9, steps=1)
    assert slope > 1e-9


def rosenbrock(x):
    """A bent valley with its bottom at (1, 1): value and slopes."""
    a, b = 1 - x[0], x[1] - x[0] ** 2
    return a * a + 100 * b * b, np.array([-2 * a - 400 * x[0] * b, 200 * b])


def test_minimize_lbfgs_only_goes_down_and_says_what_slope_is_left():
    last = np.inf
    for steps in range(60):
        x, slope = lm.minimize_lbfgs(rosenbrock, np.array([-1.2, 1.0]), tol=1e-10, steps=steps)
        value, g = rosenbrock(x)
        assert value < last or slope <= 1e-10
        agree("slope", slope, np.abs(g).max(), *BY_HAND)
        last = value
    agree("bottom", x, [1, 1], 1e-8, "slope below 1e-10")


def test_minimize_lbfgs_stays_where_no_step_goes_down():
    """A gradient of the wrong sign: every step climbs, so all are halved to nothing."""
    x, slope = lm.minimize_lbfgs(lambda x: (x @ x, -2 * x), np.array([1.0, -3.0]), tol=1e-9, steps=50)
    agree("x", x, [1, -3], *BY_HAND)
    agree("slope", slope, 6, *BY_HAND)


@pytest.mark.parametrize("l2", [0, 0.7])
def test_fit_softmax_hands_over_a_loss_with_its_true_slopes(l2, monkeypatch):
    X, y = labelled(7, k=3)
    X[0, 0] = -9
    handed = []
    monkeypatch.setattr(lm, "minimize_lbfgs", lambda f, theta, tol, steps: handed.extend([f, theta, tol]) or (theta, 0))
    lm.fit_softmax(X, y, l2)
    assert handed[1].shape == (12,) and not handed[1].any(), "it starts at zero"
    largest = 9 + X[:, 0].mean()
    agree("tol is 1e-10 times 80 rows", handed[2] / largest, 80e-10, *BY_HAND)
    theta = 3 * np.random.default_rng(0).normal(size=12)  # some p are below 1e-3 here
    slopes = slope_of(lambda t: handed[0](t)[0], theta)
    agree("slopes", handed[0](theta)[1], slopes, 1e-6, "central differences")


def test_minimize_lbfgs_goes_down_where_rounding_hides_it():
    """Beside 1e8 the last differences of J are rounding: they must not stop it."""
    H, c = np.diag([1.0, 10, 1000]), np.array([1.0, 1, 1])
    x, slope = lm.minimize_lbfgs(lambda x: (x @ H @ x / 2 - c @ x + 1e8, H @ x - c), np.full(3, 5.0), tol=1e-9, steps=100)
    assert slope <= 1e-9


def test_minimize_lbfgs_on_a_slope_without_curvature():
    x, _ = lm.minimize_lbfgs(lambda x: (x.sum(), np.ones(2)), np.zeros(2), tol=1e-9, steps=4)
    agree("four steps of 1 / (1 + 2)", x, [-4 / 3, -4 / 3], *BY_HAND)


def test_minimize_lbfgs_takes_the_direction_of_the_chapter_that_explains_it():
    optimization = pytest.importorskip("optimization")
    H, c, start = np.diag(np.geomspace(1, 100, 20)), np.arange(1.0, 21), np.full(20, 2.0)
    valley = lambda x: (x @ H @ x / 2 - c @ x, H @ x - c)
    x = [start] + [lm.minimize_lbfgs(valley, start, tol=0, steps=k)[0] for k in range(1, 15)]
    g = [H @ at - c for at in x]
    pairs = [(x[i + 1] - x[i], g[i + 1] - g[i]) for i in range(14)]
    for i in range(1, 14):
        step, direction = pairs[i][0], optimization.lbfgs_direction(g[i], pairs[max(0, i - 10) : i])
        agree(f"way of step {i + 1}", step / np.linalg.norm(step), direction / np.linalg.norm(direction), 1e-9, "the same two loops")


@pytest.mark.parametrize("l2", [0.01, 1, 50], ids=lambda l2: f"l2={l2}")
@pytest.mark.parametrize("seed, n, d, k", [(0, 120, 3, 3), (1, 200, 2, 5), (2, 40, 60, 3)])
def test_fit_softmax_matches_scikit_learn(seed, n, d, k, l2):
    X, y = labelled(seed, n, d, k)
    W, b = lm.fit_softmax(X + 1, y, l2)
    assert W.shape == (d, k) and b.shape == (k,)
    P, model = lm.predict_softmax(X + 1, W, b), lm.sklearn_logistic(X + 1, y, l2)
    agree("P", P, model.predict_proba(X + 1), *ALLOWED["softmax"])
    agree("W", W, model.coef_.T, 1e-3, "W has one best value when it has a price")


def test_fit_softmax_without_a_price_matches_scikit_learn():
    X, y = labelled(3, 300, 2, 3)
    P = lm.predict_softmax(X, *lm.fit_softmax(X, y, 0))
    agree("P", P, lm.sklearn_logistic(X, y, 0).predict_proba(X), *ALLOWED["softmax"])


def test_fit_softmax_of_two_classes_is_logistic_regression_at_half_the_price():
    X, y = labelled(4)
    W, b = lm.fit_softmax(X, y, 2.0)
    w, b_logistic = lm.fit_logistic(X, y, 1.0)
    agree("difference of the columns", W[:, 1] - W[:, 0], w, *ALLOWED["softmax"])
    agree("difference of b", b[1] - b[0], b_logistic, *ALLOWED["softmax"])


def test_fit_softmax_refuses_separable_classes_without_a_price_and_says_when_it_stops_early():
    with pytest.raises(ValueError, match="l2 must be above 0 here: the classes can be separated"):
        lm.fit_softmax([[0.0], [1], [2], [10], [11], [12]], [0, 0, 0, 1, 1, 1], 0)
    with pytest.raises(ValueError, match="l2 must be above 0 here: the classes can be separated"):
        lm.fit_softmax([[0.0], [0.1], [0.2], [10]], [0, 0, 0, 1], 0)
    X, y = labelled(5, 100, 3, 3)
    with pytest.warns(DidNotConverge, match=r"softmax: slope \d.* left after 2 steps"):
        lm.fit_softmax(X, y, 0.1, steps=2)


# --- Linear SVM


@pytest.mark.parametrize("C", [0.1, 1, 10])
def test_fit_linear_svm_by_hand(C):
    """-1 and 1: J = w^2 / 2 + 2C (1 - w)^2 is least at w = 4C / (1 + 4C)."""
    w, b = lm.fit_linear_svm([[-1], [1]], [0, 1], C)
    agree("w", w, [4 * C / (1 + 4 * C)], *BY_HAND)
    agree("b", b, 0, *BY_HAND)


@pytest.mark.parametrize("C", [0.01, 1, 50], ids=lambda C: f"C={C}")
@pytest.mark.parametrize("seed, n, d", [(0, 80, 3), (1, 200, 6), (2, 15, 40)])
def test_fit_linear_svm_matches_scikit_learn(seed, n, d, C):
    X, y = labelled(seed, n, d)
    w, b = lm.fit_linear_svm(X + 1, y, C)
    model = lm.sklearn_linear_svm(X + 1, y, C)
    agree("w", w, model.coef_[0], *ALLOWED["linear svm"])
    agree("b", b, model.intercept_[0], *ALLOWED["linear svm"])


def test_fit_linear_svm_is_pulled_to_the_origin_as_the_text_warns():
    X, y = labelled(3, d=1)
    border = [-b / w[0] - shift for shift in (0, 100) for w, b in [lm.fit_linear_svm(X + shift, y, 1.0)]]
    assert abs(border[0] - border[1]) > 1


# --- Kernel SVM


def test_kernel_matrix_by_hand():
    K = lm.kernel_matrix(np.array([[0.0, 0], [3, 4]]), np.array([[0.0, 0]]), 0.1)
    agree("exp(-0.1 * 25)", K, [[1], [np.exp(-2.5)]], *BY_HAND)
    agree("dot products", lm.kernel_matrix(np.array([[1.0, 2]]), np.array([[3.0, 4], [5, 6]]), None), [[11, 17]], *BY_HAND)
    X = data(0, 10, 2)[0]
    agree("far from the origin", lm.kernel_matrix(X + 1e6, X + 1e6, 1.0), lm.kernel_matrix(X, X, 1.0), 1e-8, "the same distances")
    assert lm.kernel_matrix(X, X, 1e-3).max() <= 1


@pytest.mark.parametrize("C, beta", [(5.0, 1.0), (0.5, 0.5)])
def test_smo_by_hand(C, beta):
    """K = I, one example each: 2 beta - beta^2 is largest at 1, or at the bound C."""
    found, b = lm.smo(np.eye(2), np.array([1.0, -1]), C, 1e-9, 100)
    agree("beta", found, [beta, -beta], *BY_HAND)
    agree("b", b, 0, *BY_HAND)


@pytest.mark.parametrize("C", [0.1, 10.0])
@pytest.mark.parametrize("gamma", [0.5, None])
def test_smo_ends_where_no_pair_can_gain(C, gamma):
    X, y = labelled(6)
    s = 2.0 * y - 1
    K = lm.kernel_matrix(X, X, gamma)
    beta, b = lm.smo(K, s, C, 1e-8, 1_000_000)
    slack = s * (K @ beta + b) - 1
    a = s * beta  # 0 <= a <= C
    agree("sum of beta", beta.sum(), 0, 1e-9, "every step adds and takes the same")
    assert a.min() >= 0 and a.max() <= C
    assert np.all(slack[a == 0] > -1e-7) and np.all(slack[a == C] < 1e-7)
    assert np.abs(slack[(a > 0) & (a < C)]).max() < 1e-7


@pytest.mark.parametrize("C", [0.01, 1.0, 10.0], ids=lambda C: f"C={C}")
@pytest.mark.parametrize("gamma", [0.1, 1.0, 10.0], ids=lambda g: f"gamma={g}")
@pytest.mark.parametrize("seed", [0, 1])
def test_fit_kernel_svm_matches_scikit_learn(seed, gamma, C):
    X, y = labelled(seed, n=60 + seed) if seed else make_moons(np.random.default_rng(0), 80, 0.2)
    model, library = lm.fit_kernel_svm(X, y, C, gamma), lm.sklearn_kernel_svm(X, y, C, gamma)
    new = np.random.default_rng(9).normal(size=(50, X.shape[1]))
    agree("z on new rows", lm.predict_kernel_svm(new, model), library.decision_function(new), *ALLOWED["kernel svm"])
    agree("support vectors", model.support, np.sort(library.support_), *ALLOWED["same choice"])
    order = np.argsort(library.support_)
    agree("beta", model.beta, library.dual_coef_[0][order], 1e-4, "z agrees to 1e-5, beta depends on it through K^-1")
    assert model.gamma == gamma and np.array_equal(model.vectors, X[model.support])
    at_bound = np.sum(np.abs(model.beta) == C), np.sum(np.abs(library.dual_coef_) == C)
    assert at_bound[0] == at_bound[1], f"{at_bound[0]} of our beta are exactly at C, {at_bound[1]} of libsvm's"


@pytest.mark.parametrize("C", [0.1, 1.0, 1000.0])
def test_fit_kernel_svm_without_gamma_is_linear_and_matches_once_rounded_as_libsvm_rounds(C, monkeypatch):
    X, y = labelled(7, n=24, d=2)
    exact = lm.kernel_matrix
    monkeypatch.setattr(lm, "kernel_matrix", lambda A, B, gamma: exact(A, B, gamma).astype(np.float32).astype(float))
    model, library = lm.fit_kernel_svm(X, y, C, None), lm.sklearn_kernel_svm(X, y, C, None)
    monkeypatch.undo()
    agree("z", lm.predict_kernel_svm(X, model), library.decision_function(X), *ALLOWED["kernel svm"])


@pytest.mark.parametrize("C, gamma", [(10.0, 1.0), (100.0, 0.3)])
def test_smo_needs_about_as_few_steps_as_libsvm(C, gamma):
    """The choice of the pair decides how many: (21) looks at the gain, not at the slope alone."""
    X, y = labelled(10, n=150)
    most = int(1.3 * lm.sklearn_kernel_svm(X, y, C, gamma).n_iter_[0])
    lm.fit_kernel_svm(X, y, C, gamma, steps=most)


def test_smo_stops_at_the_step_it_was_given():
    with pytest.warns(DidNotConverge):
        lm.smo(np.eye(2), np.array([1.0, -1]), 5.0, 1e-9, 1)
    lm.smo(np.eye(2), np.array([1.0, -1]), 5.0, 1e-9, 2)


def test_fit_kernel_svm_says_when_it_stops_early():
    X, y = labelled(8)
    with pytest.warns(DidNotConverge, match="SMO: slopes still differ by"):
        lm.fit_kernel_svm(X, y, 10.0, 1.0, steps=3)


# --- Honest evaluation


def test_fit_scaler_and_scale_by_hand():
    X = np.array([[1.0, 5, 0.1], [3, 5, 0.1], [5, 5, 0.1]])
    before = X.copy()
    mean, std = lm.fit_scaler(X)
    agree("mean", mean, [3, 5, 0.1], *BY_HAND)
    agree("std, 1 for a constant", std, [np.sqrt(8 / 3), 1, 1], *BY_HAND)
    agree("scaled", lm.scale([[3, 6, 0.1]], mean, std), [[0, 1, 0]], *BY_HAND)
    assert np.array_equal(X, before)
    far = np.array([[998, -0.1], [1002, -0.1], [998, -0.1], [1002, -0.1], [998, -0.1], [1002, -0.1]])
    agree("small beside the mean, and a rounded constant", lm.fit_scaler(far)[1], [2, 1], *BY_HAND)
    tiny = np.array([[0, 1e-20], [0, 3e-20]])
    agree("zeros, and small numbers", lm.fit_scaler(tiny)[1] / [1, 1e-20], [1, 1], *BY_HAND)
    with pytest.raises(ValueError, match="X must have 2 dimension"):
        lm.fit_scaler([1.0, 2])


def test_scale_treats_a_row_alone_as_it_treats_it_in_a_batch():
    X = data(0, 20, 3)[0]
    scaler = lm.fit_scaler(X)
    alone = np.vstack([lm.scale(X[i : i + 1], *scaler) for i in range(20)])
    agree("row by row", alone, lm.scale(X, *scaler), *BY_HAND)


@pytest.mark.parametrize("shuffled", [False, True])
def test_cross_validate_matches_scikit_learn(shuffled):
    from sklearn.linear_model import Ridge

    X, y = data(1, 53, 4)
    X[:, 1] = 100 + 50 * X[:, 1]
    folds = lm.k_fold(53, 4, np.random.default_rng(0) if shuffled else None)
    ours = lm.cross_validate(X, y, folds, lambda X, y: lm.fit_ridge(X, y, 3.0), lm.predict_linear, lm.r2_score)
    agree("R2 per fold", ours, lm.sklearn_evaluation(X, y, folds, Ridge(alpha=3.0)), *ALLOWED["evaluation"])


def test_best_columns_by_hand():
    y = np.array([0.0, 0, 1, 1])
    X = np.column_stack([[1, 2, 1, 2], 5 + 100 * y, -y, [0, 0, 0, 1]])
    assert set(lm.best_columns(X[:, :3] + [[0, 0, 0]], y, 2)) == {1, 2}
    assert lm.best_columns(X, y, 4).tolist()[2:] == [3, 0]
    noisy = np.array([0, 0.4, 0.6, 1])
    assert lm.best_columns(np.column_stack([100 * noisy, 1000 + y, noisy[::-1] ** 2]), y, 3)[0] == 1


def test_likeliest_right_by_hand():
    assert lm.likeliest_right(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])) == 2 / 3


def test_demo_leakage_leaks_and_the_honest_score_does_not(capsys):
    lm.demo_leakage()
    leak, honest = [float(word) for word in capsys.readouterr().out.split() if word.startswith("0.") and len(word) == 4][:2]
    assert leak > 0.75 and honest < 0.62


def test_encode_table_learns_from_the_training_rows_alone():
    columns = {
        "age": np.array([1.0, np.nan, 2, 9, 1000]),
        "city": np.array(["a", "b", "", "b", "c"]),
        "empty": np.full(5, np.nan),
        "late": np.array([1.0, 2, 3, 4, np.nan]),
    }
    X, names = lm.encode_table(columns, train=np.array([0, 1, 2, 3]))
    assert names == ["age", "city = b", "city = missing", "city = a", "empty", "late"]
    agree("age, with the median of 1, 2 and 9", X[:, 0], [1, 2, 2, 9, 1000], *BY_HAND)
    agree("cities seen in training", X[:, 1:4], [[0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]], *BY_HAND)
    agree("nothing known", X[:, 4], [0] * 5, *BY_HAND)
    agree("late, with the median of 1 to 4", X[:, 5], [1, 2, 3, 4, 2.5], *BY_HAND)
    assert X.dtype == float


def test_encode_table_keeps_the_twenty_most_frequent_values():
    values = np.array([f"v{i:02}" for i in range(30) for _ in range(30 - i)])
    X, names = lm.encode_table({"c": values}, np.arange(len(values)))
    assert names == [f"c = v{i:02}" for i in range(20)]
    assert X.sum(axis=0).tolist() == [30 - i for i in range(20)]


def write_csv(path, kind):
    rng = np.random.default_rng(0)
    lines = ["age,city,income,target"]
    for i in range(200):
        age, city = rng.integers(18, 80), ["Oslo", "Lima", ""][rng.integers(3)]
        score = age / 20 + 2 * (city == "Oslo") + 0.3 * rng.normal()
        target = {"two": "yes" if score > 4 else "no", "three": int(score > 3) + int(score > 4), "number": score}[kind]
        income = "" if rng.random() < 0.1 else f"{rng.normal():.3f}"
        lines.append(f"{age},{city},{income},{'' if i == 5 else target}")
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("kind", ["two", "three", "number"])
def test_evaluate_table_beats_the_constant_answer_and_agrees_with_scikit_learn(kind, tmp_path, capsys):
    [comparison] = lm.evaluate_table(write_csv(tmp_path / "t.csv", kind), "target")
    out = capsys.readouterr().out
    assert comparison.ok, str(comparison)
    scores = [float(line.split()[0]) for line in out.splitlines() if "rows kept back" in line]
    fitted, constant = scores if kind != "number" else (scores[0], 0)
    assert fitted > constant + 0.2
    assert "199 rows" in out and ("ROC" in out) == (kind == "two")
    if kind == "two":
        area = float(next(line for line in out.splitlines() if "ROC" in line).split()[0])
        assert area > 0.9


@pytest.mark.parametrize("kind", ["two", "number"])
def test_evaluate_table_prints_what_scikit_learn_finds_by_the_same_way(kind, tmp_path, capsys):
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    path = write_csv(tmp_path / "t.csv", kind)
    lm.evaluate_table(path, "target")
    out = capsys.readouterr().out
    columns, y, _ = lm.read_table(path, "target")
    if kind == "two":
        train, test = lm.stratified_k_fold(y, 4)[0]
        folds, tail = lm.stratified_k_fold(y[train], 5), dict(solver="newton-cholesky", tol=1e-10)
        models = {l2: LogisticRegression(C=2 / l2, **tail) for l2 in [0.01, 0.1, 1, 10, 100]}
    else:
        train, test = lm.train_test_split(np.random.default_rng(0), len(y))
        folds, models = lm.k_fold(len(train), 5), {l2: Ridge(alpha=l2) for l2 in [0.01, 0.1, 1, 10, 100]}
    X, names = lm.encode_table(columns, train)
    models = {l2: make_pipeline(StandardScaler(), model) for l2, model in models.items()}
    from sklearn.model_selection import cross_val_score

    best = max(models, key=lambda l2: cross_val_score(models[l2], X[train], y[train], cv=folds).mean())
    model = models[best].fit(X[train], y[train])
    assert f"199 rows, {len(names)} features; l2={best:g} is the best of five" in out
    score, kept = model.score(X[test], y[test]), f"on {len(test)} rows kept back"
    assert f"  {score:.3f} {'right' if kind == 'two' else 'R2'} {kept}" in out
    if kind == "two":
        P, share = model.predict_proba(X[test]), np.bincount(y[train]) / len(train)
        always = np.mean(y[test] == share.argmax())
        assert f"{kept}, log loss {log_loss(y[test], P):.3f}: softmax\n" in out
        constant = log_loss(y[test], np.tile(share, (len(test), 1)))
        assert f"  {always:.3f} right {kept}, log loss {constant:.3f}: the same answer for all\n" in out
        p = P[:, 1]
        for t in [0.5, np.mean(y[train])]:
            found, alarms = np.sum(y[test][p >= t]), np.sum(1 - y[test][p >= t])
            assert f"p >= {t:.2f} finds {found} of {y[test].sum()}, with {alarms} false alarms\n" in out


def test_evaluate_table_tries_five_prices(tmp_path, monkeypatch):
    tried, exact = [], lm.cross_validate
    monkeypatch.setattr(lm, "cross_validate", lambda X, y, folds, fit, *rest: tried.append(fit.keywords["l2"]) or exact(X, y, folds, fit, *rest))
    lm.evaluate_table(write_csv(tmp_path / "t.csv", "number"), "target")
    assert tried == [0.01, 0.1, 1, 10, 100]


# --- Input that nobody should send


FITS = {
    "linear_regression": lm.fit_linear_regression,
    "linear_regression_gd": lambda X, y: lm.fit_linear_regression_gd(X, y, 0.01, 3),
    "ridge": lambda X, y: lm.fit_ridge(X, y, 1.0),
    "lasso": lambda X, y: lm.fit_lasso(X, y, 0.1),
    "logistic": lambda X, y: lm.fit_logistic(X, y, 1.0),
    "softmax": lambda X, y: lm.fit_softmax(X, y, 1.0),
    "linear_svm": lambda X, y: lm.fit_linear_svm(X, y, 1.0),
    "kernel_svm": lambda X, y: lm.fit_kernel_svm(X, y, 1.0, 1.0),
}
PREDICTS = {
    "linear": lambda X: lm.predict_linear(X, [1.0, 2], 0.5),
    "logistic": lambda X: lm.predict_logistic(X, [1.0, 2], 0.5),
    "softmax": lambda X: lm.predict_softmax(X, [[1.0, 2, 3], [3, 4, 5]], [0.0, 1, 2]),
    "kernel_svm": lambda X: lm.predict_kernel_svm(X, lm.fit_kernel_svm([[0.0, 1], [2, 3]], [0, 1], 1.0, 1.0)),
    "scale": lambda X: lm.scale(X, np.zeros(2), np.ones(2)),
}
CLASSIFIERS = ["logistic", "softmax", "linear_svm", "kernel_svm"]
GOOD_X, GOOD_Y = np.array([[0.0, 1], [2, 3], [4, 1], [1, 0]]), np.array([0, 1, 1, 0])
BAD_X = {
    "nan": np.where(GOOD_X == 4, np.nan, GOOD_X),
    "inf": np.where(GOOD_X == 4, np.inf, GOOD_X),
    "1e300": GOOD_X * 1e300,
    "1-D": np.arange(4.0),
    "3-D": np.zeros((4, 2, 1)),
    "no rows": np.zeros((0, 2)),
    "no columns": np.zeros((4, 0)),
    "text": [["a", "b"]] * 4,
    "None": None,
    "complex": GOOD_X + 1j,
    "ragged": [[1, 2], [3]],
}
BAD_Y = {
    "column": GOOD_Y[:, None],
    "short": GOOD_Y[:3],
    "nan": [0, 1, np.nan, 0],
    "text": ["a", "b", "a", "b"],
    "None": None,
    "scalar": 1,
}


@pytest.mark.parametrize("bad", BAD_X)
@pytest.mark.parametrize("name", [*FITS, *PREDICTS])
def test_a_bad_x_is_refused_by_name(name, bad):
    with pytest.raises((ValueError, TypeError), match="^X must"):
        PREDICTS[name](BAD_X[bad]) if name in PREDICTS else FITS[name](BAD_X[bad], GOOD_Y)


@pytest.mark.parametrize("bad", BAD_Y)
@pytest.mark.parametrize("name", FITS)
def test_a_bad_y_is_refused_by_name(name, bad):
    with pytest.raises((ValueError, TypeError), match="^y must"):
        FITS[name](GOOD_X, BAD_Y[bad])


@pytest.mark.parametrize("y", [[0, 0, 0, 0], [1, 1, 1, 1], [1, 2, 1, 2], [0, 1, 0.5, 1], [-1, 1, -1, 1]])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_labels_other_than_0_to_k_are_refused(name, y):
    with pytest.raises(ValueError, match="^y must hold every label from 0 to"):
        FITS[name](GOOD_X, y)


@pytest.mark.parametrize("name", PREDICTS)
def test_another_number_of_features_is_refused(name):
    with pytest.raises(ValueError, match=r"^X must have 2 feature\(s\), as in the fit, not 3"):
        PREDICTS[name](np.zeros((4, 3)))


NUMBERS = {
    "lr": [lambda v: lm.fit_linear_regression_gd(GOOD_X, GOOD_Y, v, 3)],
    "steps": [lambda v: lm.fit_linear_regression_gd(GOOD_X, GOOD_Y, 0.1, v)],
    "l2": [
        lambda v: lm.fit_ridge(GOOD_X, GOOD_Y, v), lambda v: lm.fit_lasso(GOOD_X, GOOD_Y, 1.0, v),
        lambda v: lm.fit_logistic(GOOD_X, GOOD_Y, v), lambda v: lm.fit_softmax(GOOD_X, GOOD_Y, v),
    ],
    "l1": [lambda v: lm.fit_lasso(GOOD_X, GOOD_Y, v)],
    "C": [lambda v: lm.fit_linear_svm(GOOD_X, GOOD_Y, v), lambda v: lm.fit_kernel_svm(GOOD_X, GOOD_Y, v, 1.0)],
    "gamma": [lambda v: lm.fit_kernel_svm(GOOD_X, GOOD_Y, 1.0, v)],
    "tol": [lambda v: lm.fit_kernel_svm(GOOD_X, GOOD_Y, 1.0, 1.0, tol=v)],
}  # fmt: skip


@pytest.mark.parametrize("value", [-1, np.nan, np.inf, "1", True, [1.0]], ids=str)
@pytest.mark.parametrize("name", NUMBERS)
def test_a_bad_hyper_parameter_is_refused_by_name(name, value):
    for fit in NUMBERS[name]:
        with pytest.raises((ValueError, TypeError), match=f"^{name} must be"):
            fit(value)


def test_half_a_step_and_weights_of_another_kind_are_refused():
    for fit in NUMBERS["steps"]:
        with pytest.raises(TypeError, match="^steps must be a whole number, not 2.5"):
            fit(2.5)
    for predict, bad, name in [(lm.predict_linear, [[1.0], [2]], "w"), (lm.predict_softmax, [1.0, 2], "W")]:
        with pytest.raises(ValueError, match=rf"^{name} must have . dimension\(s\), not shape"):
            predict(GOOD_X, bad, 0.0)


@pytest.mark.parametrize("name", ["lr", "l1", "C", "gamma", "tol"])
def test_zero_is_refused_where_it_has_no_meaning(name):
    for fit in NUMBERS[name]:
        with pytest.raises(ValueError, match=f"^{name} must be above 0, not 0"):
            fit(0)


def flat(result):
    return np.concatenate([np.ravel(part) for part in result if part is not None])


@pytest.mark.parametrize("name", FITS)
def test_every_kind_of_good_input_gives_the_same_fit_and_stays_as_it_was(name):
    expected = flat(FITS[name](GOOD_X, GOOD_Y))
    frozen_X, frozen_y = GOOD_X.copy(), GOOD_Y.copy()
    frozen_X.flags.writeable = frozen_y.flags.writeable = False
    for X, y in [
        (GOOD_X.tolist(), GOOD_Y.tolist()),
        (GOOD_X.astype(int), GOOD_Y.astype(bool)),
        (GOOD_X.astype(np.float32), GOOD_Y.astype(np.float32)),
        (np.asfortranarray(GOOD_X), GOOD_Y[::1]),
        (np.repeat(GOOD_X, 2, axis=0)[::2], GOOD_Y),
        (frozen_X, frozen_y),
    ]:
        agree(name, flat(FITS[name](X, y)), expected, 1e-12, "the same numbers in another container")


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("case", ["constant", "duplicate columns", "duplicate rows", "1e-300", "1e90", "wide"])
def test_strange_but_legal_x_gives_finite_numbers(name, case):
    X = {
        "constant": np.column_stack([GOOD_X, np.full(4, 3.0)]),
        "duplicate columns": np.column_stack([GOOD_X, GOOD_X]),
        "duplicate rows": GOOD_X[[0, 0, 1, 1]],
        "1e-300": GOOD_X * 1e-300,
        "1e90": GOOD_X * 1e90,
        "wide": np.column_stack([GOOD_X, np.random.default_rng(0).normal(size=(4, 30))]),
    }[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DidNotConverge)
        try:
            fitted = flat(FITS[name](X, GOOD_Y))
        except ValueError as error:
            assert case == "1e90" and "_gd" in name and str(error).startswith("lr must be below")
        else:
            assert np.all(np.isfinite(fitted))
