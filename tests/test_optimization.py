"""What optimization.py promises, in the order it is read: `pytest -x` names the first equation
that is wrong, `pytest -k adam` checks Adam alone."""

import subprocess
import sys
import types

import numpy as np
import pytest

import optimization as op
from conftest import agree
from utils import DidNotConverge

HAND = (1e-12, "worked by hand")
SLOPE = (1e-6, "central differences with h = 1e-6 are good to about seven digits")


# --- problems: a quadratic, a logistic loss, Rosenbrock's valley ---------------------------
def quadratic(seed, d=5, condition=30.0):
    """½ wᵀAw with eigenvalues from 1 to `condition` along random axes."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
    A = axes * np.geomspace(1, condition, d) @ axes.T
    return op.Problem(lambda w: w @ A @ w / 2, lambda w: A @ w, lambda w: A, 3 * rng.normal(size=d))


def logistic(seed, n=60, d=4, l2=0.05):
    """Mean logistic loss, labels -1 and 1, with a ridge penalty."""
    rng = np.random.default_rng(seed)
    X, w = rng.normal(size=(n, d)), rng.normal(size=d)
    X = X * np.where(X @ w + rng.normal(size=n) > 0, 1, -1)[:, None]

    def p(w):
        return 1 / (1 + np.exp(X @ w))

    return op.Problem(
        lambda w: np.mean(np.logaddexp(0, -X @ w)) + l2 / 2 * w @ w,
        lambda w: l2 * w - X.T @ p(w) / n,
        lambda w: l2 * np.eye(d) + X.T * (p(w) * (1 - p(w))) @ X / n,
        rng.normal(size=d),
    )


def valley(seed):
    """Rosenbrock's valley from a start near the usual one."""
    start = np.array([-1.2, 1.0]) + 0.1 * np.random.default_rng(seed).normal(size=2)
    return op.rosenbrock()._replace(start=start)


PROBLEMS = {"quadratic": quadratic, "logistic": logistic, "rosenbrock": valley}
SMALL = {"quadratic": 1e-2, "logistic": 0.1, "rosenbrock": 2e-4}  # steps that do not oscillate


def slope(f, w, h=1e-6):
    """df/dw by central differences; f may return a number or an array."""
    nudges = h * np.eye(len(w))
    return np.array([(f(w + e) - f(w - e)) / (2 * h) for e in nudges])


@pytest.mark.parametrize("make", [op.ravine, lambda: op.ravine(7.0, 0.3), op.rosenbrock])
def test_ravine_and_rosenbrock_gradients_are_the_slope_of_the_loss(make):
    p, w = make(), np.array([0.7, -1.3])
    agree("gradient", p.gradient(w), slope(p.loss, w), *SLOPE)
    agree("Hessian", p.hessian(w), slope(p.gradient, w), *SLOPE)


def test_ravine_has_the_curvatures_and_start_it_promises():
    p = op.ravine(50.0, np.pi / 6)
    agree("eigenvalues", np.linalg.eigvalsh(p.hessian(p.start)), [1, 50], *HAND)
    along, across = np.array([np.sqrt(3) / 2, 0.5]), np.array([-0.5, np.sqrt(3) / 2])
    agree("the valley's direction", p.gradient(along), along, *HAND)
    agree("start", p.start, 8 * along + 2 * across, *HAND)
    agree("loss there", p.loss(p.start), (8**2 + 50 * 2**2) / 2, *HAND)
    agree("default condition", op.ravine().gradient(np.array([2.0, 3.0])), [2, 300], *HAND)


def test_rosenbrock_by_hand():
    p = op.rosenbrock()
    agree("loss at the start", p.loss(p.start), 2.2**2 + 100 * 0.44**2, *HAND)
    agree("loss at the minimum", p.loss(np.ones(2)), 0.0, *HAND)
    agree("gradient at the start", p.gradient(p.start), [-215.6, -88.0], *HAND)
    agree("the start is an array", 2 * p.start, [-2.4, 2.0], *HAND)


# --- gradient descent ------------------------------------------------------------------
def test_gradient_descent_by_hand():
    path = op.gradient_descent(lambda w: 2 * w, [4.0, -1.0], lr=0.25, steps=2)
    agree("path", path, [[4, -1], [2, -0.5], [1, -0.25]], *HAND)
    assert path.shape == (3, 2)


def test_gradient_descent_with_zero_steps_stays():
    agree("path", op.gradient_descent(lambda w: w, [4.0], 0.1, 0), [[4.0]], *HAND)


@pytest.mark.parametrize("lr, grows", [(0.0199, False), (0.0201, True)])
def test_gradient_descent_diverges_beyond_2_over_L(lr, grows):
    p = op.ravine(100)
    path = op.gradient_descent(p.gradient, p.start, lr, 2000)
    assert (np.linalg.norm(path[-1]) > np.linalg.norm(path[0])) == grows


@pytest.mark.parametrize("condition", [5.0, 50.0])
def test_gradient_descent_rate_is_k_minus_1_over_k_plus_1(condition):
    p = op.ravine(condition, 0.4)
    path = op.gradient_descent(p.gradient, p.start, 2 / (condition + 1), 300)
    size = np.linalg.norm(path, axis=1)
    rate = (size[300] / size[100]) ** (1 / 200)
    agree("equation (2)", rate, (condition - 1) / (condition + 1), *op.ALLOWED["rate"])


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_gradient_descent_matches_torch(name, seed):
    p, lr = PROBLEMS[name](seed), SMALL[name]
    ours = op.gradient_descent(p.gradient, p.start, lr, 200)
    theirs = op.torch_path(op.torch_optimizer("SGD", p.start, lr=lr), p.gradient, 200)
    agree(name, ours, theirs, *op.ALLOWED["path"])


BAD_GRADIENTS = {
    "length": lambda w: np.ones(1),
    "shape": lambda w: w[:, None],
    "NaN": lambda w: w * np.nan,
    "inf": lambda w: np.full_like(w, np.inf),
    "text": lambda w: np.array(["a"] * len(w)),
    "None": lambda w: None,
}


@pytest.mark.parametrize("kind", BAD_GRADIENTS)
def test_gradient_descent_refuses_a_bad_gradient(kind):
    with pytest.raises((ValueError, TypeError), match="the gradient must"):
        op.gradient_descent(BAD_GRADIENTS[kind], [1.0, 2.0], 0.1, 3)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(lr=-0.1), "lr must be at least 0"),
        (dict(lr=np.nan), "lr must be"),
        (dict(lr="fast"), "lr must be a number"),
        (dict(steps=-1), "steps must be at least 0"),
        (dict(steps=1.5), "steps must be a whole number"),
        (dict(w=[np.nan]), "w must hold finite"),
        (dict(w=[]), "w must have"),
        (dict(w=[[1.0]]), "w must have 1 dimension"),
        (dict(w="ab"), "w must hold real numbers"),
        (dict(w=None), "w must hold real numbers"),
    ],
)
def test_gradient_descent_refuses_bad_input(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        op.gradient_descent(**{**dict(gradient=lambda w: w, w=[1.0], lr=0.1, steps=2), **options})


# --- mini-batches ----------------------------------------------------------------------
def test_minibatches_deal_out_every_row_once_in_random_order():
    batches = op.minibatches(np.random.default_rng(0), 10, 4)
    assert [len(rows) for rows in batches] == [4, 4, 2]
    rows = np.concatenate(batches)
    assert sorted(rows) == list(range(10)) and list(rows) != list(range(10))
    again = op.minibatches(np.random.default_rng(0), 10, 4)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again))
    assert [len(rows) for rows in op.minibatches(np.random.default_rng(0), 1, 1)] == [1]
    assert [len(rows) for rows in op.minibatches(np.random.default_rng(0), 6, 3)] == [3, 3]
    assert [len(rows) for rows in op.minibatches(np.random.default_rng(0), 3, 8)] == [3]
    assert [len(rows) for rows in op.minibatches(np.random.default_rng(0), 5, 4)] == [4, 1]


@pytest.mark.parametrize("n, size", [(0, 1), (5.5, 1), (5, 0), (5, -1), (5, 1.5), (True, 1)])
def test_minibatches_refuse_bad_sizes(n, size):
    with pytest.raises((ValueError, TypeError), match="(n|size) must be"):
        op.minibatches(np.random.default_rng(0), n, size)


def test_squared_error_gradient_is_the_slope_of_the_mean_over_the_batch():
    rng = np.random.default_rng(1)
    X, y, w, rows = rng.normal(size=(9, 3)), rng.normal(size=9), rng.normal(size=3), [1, 4, 5, 8]
    expected = slope(lambda w: np.mean((X[rows] @ w - y[rows]) ** 2), w)
    agree("equation (3)", op.squared_error_gradient(X, y)(w, rows), expected, *SLOPE)


def test_squared_error_gradient_of_batches_is_right_on_average_and_its_noise_falls_as_claimed():
    """All 15 pairs of 6 rows: E‖g_B - g‖² = (n - |B|)/(n - 1) · 1/|B| · 1/n Σ‖gᵢ - g‖², exactly."""
    from itertools import combinations

    rng = np.random.default_rng(2)
    gradient = op.squared_error_gradient(rng.normal(size=(6, 2)), rng.normal(size=6))
    w, whole = np.array([0.3, -0.8]), None
    whole = gradient(w, range(6))
    pairs = np.array([gradient(w, list(rows)) for rows in combinations(range(6), 2)])
    each = np.array([gradient(w, [i]) for i in range(6)])
    agree("mean over batches", pairs.mean(axis=0), whole, *HAND)
    noise, spread = (np.mean(np.sum((g - whole) ** 2, axis=1)) for g in (pairs, each))
    agree("equation (3)", noise, (6 - 2) / (6 - 1) / 2 * spread, *HAND)


@pytest.mark.parametrize("X, y", [([[1.0]], [[1.0]]), ([[np.nan]], [1.0]), ([1.0], [1.0])])
def test_squared_error_gradient_refuses_bad_data(X, y):
    with pytest.raises(ValueError, match="(X|y) must"):
        op.squared_error_gradient(X, y)


def test_minibatch_sgd_by_hand():
    gradient = op.squared_error_gradient([[1.0], [2.0]], [1.0, 0.0])
    path = op.minibatch_sgd(gradient, [1.0], 0.125, [[1], [0], [0, 1]])
    # row 1: 2·2·(2·1 - 0) = 8; row 0: 2·(0 - 1) = -2; both at 0.25: (2·(0.25 - 1) + 4·0.5) / 2 = 0.25
    agree("path", path, [[1.0], [0.0], [0.25], [0.21875]], *HAND)


@pytest.mark.parametrize("n, d, size", [(50, 3, 8), (20, 1, 20), (7, 4, 1)])
def test_minibatch_sgd_matches_torch(n, d, size):
    rng = np.random.default_rng(n)
    X, y, w = rng.normal(size=(n, d)), rng.normal(size=n), rng.normal(size=d)
    batches = [rows for _ in range(200 * size // n + 1) for rows in op.minibatches(rng, n, size)]
    ours = op.minibatch_sgd(op.squared_error_gradient(X, y), w, 0.01, batches)
    theirs = op.torch_minibatch(X, y, w, 0.01, batches)
    agree("path", ours, theirs, *op.ALLOWED["path"])
    assert len(ours) > 200


def test_minibatch_sgd_averaging_beats_the_last_iterate():
    rng = np.random.default_rng(0)
    X, noise = rng.normal(size=(200, 3)), rng.normal(size=200)
    y = X @ [1.0, -2.0, 3.0] + noise
    best = np.linalg.solve(X.T @ X, X.T @ y)
    batches = [rows for _ in range(20) for rows in op.minibatches(rng, 200, 4)]
    path = op.minibatch_sgd(op.squared_error_gradient(X, y), np.zeros(3), 0.1, batches)
    last, mean = path[-500:] - best, path[-500:].mean(axis=0) - best
    assert np.linalg.norm(mean) < 0.2 * np.sqrt(np.mean(np.sum(last**2, axis=1)))


# --- every optimizer, by name
ALL = {
    op.SGD: dict(lr=0.1),
    op.Adagrad: dict(lr=0.1),
    op.RMSprop: dict(lr=0.1),
    op.Adam: dict(lr=0.1),
    op.AdamW: dict(lr=0.1),
}


def parity(method, name, seed, **options):
    """200 iterates beside torch's class of the same name, on one of the problems."""
    p = PROBLEMS[name](seed)
    ours = op.descend(method(p.start, **options), p.gradient, 200)
    theirs = op.torch_path(
        op.torch_optimizer(method.__name__, p.start, **options), p.gradient, 200
    )
    agree(f"{method.__name__} {options} on {name}", ours, theirs, *op.ALLOWED["path"])


every_problem = pytest.mark.parametrize("name", PROBLEMS)
every_seed = pytest.mark.parametrize("seed", [0, 1])
every_case = pytest.mark.parametrize(
    "name, seed", [("quadratic", 0), ("logistic", 1), ("rosenbrock", 2), ("quadratic", 3)]
)


# --- momentum ------------------------------------------------------------------------------
def steps_of(optimizer, grads):
    """Where a single parameter stands after each of the given gradients."""
    path = []
    for g in grads:
        optimizer.step([g])
        path.append(optimizer.w[0])
    return path


def test_sgd_momentum_by_hand():
    # m = 2, then 0.5·2 + 4 = 5, then 0.5·5 + 0 = 2.5; w = 10 - 0.1·2 - 0.1·5 - 0.1·2.5
    path = steps_of(op.SGD([10.0], 0.1, momentum=0.5), [2.0, 4.0, 0.0])
    agree("equations (4) and (5)", path, [9.8, 9.3, 9.05], *HAND)


def test_sgd_dampening_by_hand_spares_the_first_step():
    # m = 2, then 0.5·2 + 0.75·4 = 4
    path = steps_of(op.SGD([10.0], 0.1, momentum=0.5, dampening=0.25), [2.0, 4.0])
    agree("equation (4)", path, [9.8, 9.4], *HAND)
    # with τ = 1 the first gradient is all there ever is: m = 2, then 0.5·2
    path = steps_of(op.SGD([10.0], 0.1, momentum=0.5, dampening=1.0), [2.0, 4.0])
    agree("equation (4) with τ = 1", path, [9.8, 9.7], *HAND)


def test_sgd_nesterov_by_hand_from_its_first_step():
    # g + βm: 2 + 0.5·2 = 3, then m = 5 and 4 + 0.5·5 = 6.5
    path = steps_of(op.SGD([10.0], 0.1, momentum=0.5, nesterov=True), [2.0, 4.0])
    agree("equation (5)", path, [9.7, 9.05], *HAND)


def test_sgd_weight_decay_and_maximize_by_hand():
    # uphill with decay: slope = -2 + 0.5·10 = 3
    path = steps_of(op.SGD([10.0], 0.1, weight_decay=0.5, maximize=True), [2.0])
    agree("w", path, [9.7], *HAND)


def test_sgd_momentum_sums_and_with_dampening_averages():
    """A steady gradient g: the step becomes g / (1 - β) with τ = 0, and stays g with τ = β."""
    for dampening, length in [(0.0, 10.0), (0.9, 1.0)]:
        path = steps_of(op.SGD([0.0], 1.0, momentum=0.9, dampening=dampening), [-1.0] * 300)
        agree("last step", path[-1] - path[-2], length, 1e-10, "0.9 to the power 300 is 2e-14")


@every_case
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(momentum=0.5),
        dict(momentum=0.9, dampening=0.3),
        dict(momentum=0.9, nesterov=True),
        dict(momentum=0.9, weight_decay=0.1),
        dict(momentum=0.5, nesterov=True, weight_decay=0.1),
        dict(dampening=0.5, weight_decay=0.1),
    ],
    ids=str,
)
def test_sgd_matches_torch(name, seed, options):
    lr = SMALL[name] * (1 - options.get("momentum", 0))
    parity(op.SGD, name, seed, lr=lr, **options)


@pytest.mark.parametrize("condition", [10.0, 100.0])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_momentum_rate_is_what_theory_says(condition, nesterov):
    p, root = op.ravine(condition, 0.4), np.sqrt(condition)
    beta = (root - 1) / (root + 1)
    lr, beta, theory = (1 / condition, beta, 1 - 1 / root) if nesterov else (4 / (root + 1) ** 2, beta**2, beta)
    path = op.descend(op.SGD(p.start, lr, beta, nesterov=nesterov), p.gradient, 400)
    size = np.linalg.norm(path, axis=1)
    agree("equation (6)", (size[400] / size[200]) ** (1 / 200), theory, *op.ALLOWED["rate"])


# --- a step for every coordinate ---------------------------------------------------------
def test_adagrad_by_hand():
    # v = 9, then 25: steps of 3/3 and 4/5
    path = steps_of(op.Adagrad([10.0], lr=0.5, eps=1e-300), [3.0, 4.0])
    agree("equation (7)", path, [9.5, 9.1], *HAND)


def test_adagrad_steps_shrink_as_one_over_root_t():
    path = steps_of(op.Adagrad([0.0], lr=1.0), [-2.0] * 100)
    agree("steps", np.diff([0.0, *path]), 1 / np.sqrt(np.arange(1, 101)), 1e-9, "eps is 1e-10")


def test_rmsprop_by_hand():
    # v = 0.75·16 = 12, then 0.25·12 + 0.75·8 = 9
    path = steps_of(op.RMSprop([10.0], lr=1.0, alpha=0.25, eps=1e-300), [4.0, np.sqrt(8)])
    expected = [10 - 4 / np.sqrt(12), 10 - 4 / np.sqrt(12) - np.sqrt(8) / 3]
    agree("equation (8)", path, expected, *HAND)


def test_adam_by_hand():
    # β = (0.5, 0.75): m = 1, 2.5; v = 1, 4.75; corrected m̂ = 2, 10/3; v̂ = 4, 76/7
    path = steps_of(op.Adam([10.0], lr=1.0, betas=(0.5, 0.75), eps=1e-300), [2.0, 4.0])
    agree("equations (9) to (11)", path, [9.0, 9 - (10 / 3) / np.sqrt(76 / 7)], *HAND)


def test_adam_without_correction_by_hand():
    path = steps_of(op.Adam([0.0], 1.0, (0.5, 0.75), eps=1e-300, correct=False), [2.0, 4.0])
    agree("equations (9) and (11)", path, [-1, -1 - 2.5 / np.sqrt(4.75)], *HAND)


def test_adam_steps_have_length_lr_under_a_steady_gradient_from_the_first_on():
    """Fails when (10) lacks the power t."""
    path = steps_of(op.Adam([0.0], lr=0.1), [-3.0] * 50)
    agree("steps", np.diff([0.0, *path]), np.full(50, 0.1), 1e-8, "eps / 3 of the step")


@pytest.mark.parametrize("method", [op.Adagrad, op.RMSprop, op.Adam, op.AdamW])
def test_adaptive_steps_do_not_change_with_the_scale_of_a_coordinate(method):
    grads = np.random.default_rng(5).normal(size=(20, 2))
    a, b = (method([1.0, 1.0], lr=0.1, eps=1e-300) for _ in range(2))
    for g in grads:
        a.step(g)
        b.step(g * [1.0, 1000.0])
    agree("w", a.w, b.w, *HAND)


@pytest.mark.parametrize("method", [op.Adagrad, op.RMSprop, op.Adam, op.AdamW])
def test_adaptive_eps_stands_outside_of_the_root(method):
    """First step with g = eps, moments corrected or not: lr g / (√v + ε)."""
    path = steps_of(method([0.0], lr=1.0, eps=1e-4), [-1e-4])
    root = np.sqrt(0.01) if method is op.RMSprop else 1.0
    agree("first step", path, [1 / (root + 1)], *HAND)


def test_adamw_by_hand_shrinks_outside_of_the_moments():
    # w ← (1 - 0.5·0.2)·10 = 9, then a step of exactly lr
    path = steps_of(op.AdamW([10.0], lr=0.5, weight_decay=0.2, eps=1e-300), [7.0])
    agree("equation (12)", path, [8.5], *HAND)
    agree("default decay", steps_of(op.AdamW([10.0], lr=0.5), [0.0]), [10 * (1 - 0.5 * 0.01)], *HAND)


def test_adamw_decays_weights_alike_where_adam_spares_large_gradients():
    left = {}
    for method in (op.Adam, op.AdamW):
        optimizer = method([1.0, 1.0], lr=0.001, weight_decay=1.0)
        for t in range(200):
            optimizer.step((-1.0) ** t * np.array([1.0, 100.0]))
        left[method] = optimizer.w
    assert abs(left[op.AdamW][0] - left[op.AdamW][1]) < 1e-6
    assert left[op.Adam][1] > 0.99 > 0.9 > left[op.Adam][0]


# Near a minimum these methods dance, and rounding grows: the rates are such that none gets there.
ADAPTIVE = [
    (op.Adagrad, 0.05, [dict(), dict(eps=0.01), dict(weight_decay=0.1), dict(maximize=True)]),
    (op.RMSprop, 1e-4, [dict(), dict(alpha=0.9), dict(eps=0.01), dict(weight_decay=0.1), dict(maximize=True)]),
    *[
        (method, 5e-4, [dict(), dict(betas=(0.5, 0.9)), dict(betas=(0.0, 0.99)), dict(eps=0.1), dict(weight_decay=0.5), dict(maximize=True)])
        for method in (op.Adam, op.AdamW)
    ],
]  # fmt: skip
TABLE = [(m, lr, options) for m, lr, table in ADAPTIVE for options in table]


@every_case
@pytest.mark.parametrize("method, lr, options", TABLE, ids=lambda v: getattr(v, "__name__", str(v)))
def test_adaptive_methods_match_torch(name, seed, method, lr, options):
    """adagrad, rmsprop, adam and adamw, option by option."""
    parity(method, name, seed, lr=lr, **options)


@pytest.mark.parametrize("method", ALL)
def test_optimizer_defaults_match_torch(method):
    given = dict(lr=1e-3) if method is op.SGD else {}
    parity(method, "logistic", 3, **given)


@pytest.mark.parametrize("method", ALL)
@every_problem
def test_optimizer_maximize_is_descent_on_minus_the_loss(method, name):
    p = PROBLEMS[name](0)
    up = op.descend(method(p.start, lr=1e-4, maximize=True), p.gradient, 20)
    down = op.descend(method(p.start, lr=1e-4), lambda w: -p.gradient(w), 20)
    agree("path", up, down, *HAND)


@pytest.mark.parametrize("method", ALL)
def test_optimizer_on_many_small_tensors_matches_torch(method):
    import torch

    rng = np.random.default_rng(6)
    given = [rng.normal(size=shape) for shape in [(3, 4), (4,), (), (2, 1, 2)] * 5]
    optimizer = method(given, **ALL[method])
    tensors = [torch.tensor(p) for p in given]
    library = getattr(torch.optim, method.__name__)(tensors, **ALL[method])
    for _ in range(20):
        optimizer.step([np.cos(p) for p in optimizer.params])
        for tensor in tensors:
            tensor.grad = torch.cos(tensor)
        library.step()
    theirs = np.concatenate([tensor.numpy().ravel() for tensor in tensors])
    agree("all parameters", optimizer.w, theirs, *op.ALLOWED["path"])


# --- optimizers: the state and the step ----------------------------------------------------
@pytest.mark.parametrize("method", ALL)
def test_optimizer_params_keep_their_shapes_and_move_together(method):
    given = [np.ones((2, 3)), np.full((), 2.0), np.array([3, 4]), np.ones((1, 2, 1), np.float32)]
    optimizer = method(given, **ALL[method])
    assert [p.shape for p in optimizer.params] == [(2, 3), (), (2,), (1, 2, 1)]
    agree("w", optimizer.w, [1, 1, 1, 1, 1, 1, 2, 3, 4, 1, 1], *HAND)
    optimizer.step([np.ones((2, 3)), np.ones(()), np.ones(2), np.ones((1, 2, 1))])
    assert all(np.all(p < g) for p, g in zip(optimizer.params, given))
    assert all(np.shares_memory(p, optimizer.w) for p in optimizer.params)
    assert np.array_equal(given[2], [3, 4]) and np.array_equal(given[0], np.ones((2, 3)))


@pytest.mark.parametrize("method", ALL)
def test_optimizer_gives_one_vector_a_matrix_and_a_list_the_same_steps(method):
    rng = np.random.default_rng(3)
    w, grads = rng.normal(size=6), rng.normal(size=(5, 6))
    ends = []
    for shaped in [
        lambda v: v,
        lambda v: list(v),
        lambda v: v.reshape(2, 3),
        lambda v: v.reshape(2, 3).tolist(),
        lambda v: np.asfortranarray(v.reshape(2, 3)),
        lambda v: [v[:4].reshape(2, 2), v[4:]],
        lambda v: (v[:1], v[1:].reshape(5, 1)),
    ]:
        optimizer = method(shaped(w), **ALL[method])
        for g in grads:
            optimizer.step(shaped(g))
        ends.append(optimizer.w)
    agree("ends", ends, [ends[0]] * len(ends), *HAND)


@pytest.mark.parametrize("method", ALL)
def test_optimizer_takes_integers_float32_and_read_only_arrays_and_changes_none(method):
    w, g = np.array([1, -2, 3]), np.array([1, 2, -1], dtype=np.float32)
    w.flags.writeable = g.flags.writeable = False
    optimizer = method(w, **ALL[method])
    optimizer.step(g)
    plain = method([1.0, -2.0, 3.0], **ALL[method])
    plain.step([1.0, 2.0, -1.0])
    agree("w", optimizer.params, plain.params, *HAND)
    assert np.array_equal(w, [1, -2, 3]) and optimizer.params.dtype == float


@pytest.mark.parametrize("method", ALL)
def test_optimizer_in_blocks_matches_torch_on_a_long_vector(method):
    rng, n = np.random.default_rng(4), 2 * op.BLOCK + 3
    w, g = rng.normal(size=n), rng.normal(size=n)
    options = dict(lr=0.1, momentum=0.9) if method is op.SGD else ALL[method]
    ours = op.descend(method(w, **options), lambda w: g * w, 3)
    theirs = op.torch_path(
        op.torch_optimizer(method.__name__, w, **options), lambda w: g * w, 3
    )
    agree("path", ours, theirs, *op.ALLOWED["path"])


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize(
    "params, grads, words",
    [
        (np.ones(2), np.ones(3), "the gradient must have the shape"),
        (np.ones(2), np.ones((2, 1)), "the gradient must have the shape"),
        (np.ones((2, 2)), np.ones(4), "the gradient must have the shape"),
        (np.ones(2), [np.ones(2)], "the gradient must have the shape"),
        ([np.ones(2), np.ones(3)], [np.ones(2)], "the gradient must have the shape"),
        ([np.ones(2), np.ones(3)], [np.ones(3), np.ones(2)], "the gradient must have the shape"),
        ([np.ones(2), np.ones(2)], np.ones((2, 2)), "the gradient must have the shape"),
        ([np.ones(2)], None, "the gradient must have the shape"),
        (np.ones(2), None, "the gradient must have the shape"),
        (np.ones(2), [1.0, np.nan], "the gradient must hold finite numbers"),
        (np.ones(2), [np.inf, 1.0], "the gradient must hold finite numbers"),
        (np.ones(2), [1.0, -np.inf], "the gradient must hold finite numbers"),
        (np.ones(2), [1e101, 1.0], "the gradient must hold finite numbers"),
        (np.ones(2), [1.0, -1e101], "the gradient must hold finite numbers"),
        ([np.ones(2), np.ones(1)], [np.ones(2), np.full(1, np.nan)], "the gradient must hold"),
        (np.ones(2), ["a", "b"], "the gradient must hold real numbers"),
        (np.ones(2), [1j, 2.0], "the gradient must hold real numbers"),
    ],
)
def test_optimizer_refuses_a_bad_gradient_and_does_not_move(method, params, grads, words):
    optimizer = method(params, **ALL[method])
    before = optimizer.w.copy()
    with pytest.raises((ValueError, TypeError), match=words):
        optimizer.step(grads)
    assert np.array_equal(optimizer.w, before) and optimizer.t == 0 and not optimizer.state.any()


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize(
    "params, words",
    [
        ([], "params must have"),
        ([1.0, np.nan], "params must hold finite"),
        ([np.ones(2), np.array([np.inf])], "params must hold finite"),
        ([[1.0], [1.0, 2.0]], "params must be rectangular"),
        ("abc", "params must hold real numbers"),
        (None, "params must hold real numbers"),
        ([np.ones(2), "abc"], "params must hold real numbers"),
    ],
)
def test_optimizer_refuses_bad_params(method, params, words):
    with pytest.raises((ValueError, TypeError), match=words):
        method(params, **ALL[method])


@pytest.mark.parametrize(
    "method, options, words",
    [
        *[(m, dict(lr=lr), "lr must be") for m in ALL for lr in (-0.1, np.nan, np.inf, "1", None)],
        *[(m, dict(lr=0.1, weight_decay=-1), "weight_decay must be at least 0") for m in ALL],
        *[(m, dict(lr=0.1, weight_decay=np.nan), "weight_decay must be") for m in ALL],
        *[(m, dict(lr=0.1, eps=0), "eps must be above 0") for m in ALL if m is not op.SGD],
        *[(m, dict(lr=0.1, eps=np.nan), "eps must be") for m in ALL if m is not op.SGD],
        (op.SGD, dict(lr=0.1, momentum=1.0), "momentum must be at least 0 and below 1"),
        (op.SGD, dict(lr=0.1, momentum=-0.1), "momentum must be at least 0"),
        (op.SGD, dict(lr=0.1, dampening=-0.1), "dampening must be at least 0"),
        (op.SGD, dict(lr=0.1, dampening=1.1), "dampening must be at least 0 and at most 1"),
        (op.SGD, dict(lr=0.1, nesterov=True), "nesterov needs momentum"),
        (op.SGD, dict(lr=0.1, momentum=0.9, dampening=0.1, nesterov=True), "nesterov needs"),
        (op.RMSprop, dict(alpha=1.0), "alpha must be at least 0 and below 1"),
        (op.RMSprop, dict(alpha=-0.1), "alpha must be at least 0"),
        *[(m, dict(betas=(1.0, 0.9)), "betas must be") for m in (op.Adam, op.AdamW)],
        *[(m, dict(betas=(0.9, -0.1)), "betas must be") for m in (op.Adam, op.AdamW)],
        *[(m, dict(betas=0.9), "betas must be a pair") for m in (op.Adam, op.AdamW)],
        *[(m, dict(betas=(0.9,)), "betas must be a pair") for m in (op.Adam, op.AdamW)],
        (op.Adam, dict(betas=(0.9, 0.9, 0.9)), "betas must be a pair"),
    ],
)
def test_optimizer_refuses_bad_options(method, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        method([1.0], **options)


def test_optimizer_options_at_their_bounds_are_allowed():
    for method, options in [
        (op.SGD, dict(lr=0, momentum=0.0, dampening=1.0)),
        (op.RMSprop, dict(lr=0, alpha=0.0, weight_decay=0)),
        (op.Adam, dict(lr=0, betas=[0.0, 0.0])),
    ]:
        optimizer = method([1.0], **options)
        optimizer.step([1.0])
        agree("lr 0 stays", optimizer.params, [1.0], *HAND)


# --- descend, schedules, clipping ----------------------------------------------------------
def test_descend_by_hand_with_a_list_of_arrays():
    optimizer = op.SGD([np.array([4.0]), np.array([[8.0]])], lr=0.5)
    path = op.descend(optimizer, lambda params: [p.copy() for p in params], 2)
    agree("path", path, [[4, 8], [2, 4], [1, 2]], *HAND)


def test_descend_with_zero_steps_stays_and_refuses_bad_ones():
    agree("path", op.descend(op.SGD([3.0], 0.1), lambda w: w, 0), [[3.0]], *HAND)
    for steps in (-1, 2.5, "3", None):
        with pytest.raises((ValueError, TypeError), match="steps must be"):
            op.descend(op.SGD([3.0], 0.1), lambda w: w, steps)


def test_descend_follows_its_schedule():
    path = op.descend(op.SGD([0.0], 7.0), lambda w: [-1.0], 4, schedule=lambda t: 10.0**-t)
    agree("path", path[:, 0], [0, 1, 1.1, 1.11, 1.111], *HAND)
    for bad in (-1.0, np.nan, None):
        with pytest.raises((ValueError, TypeError), match=r"schedule\(t\) must be"):
            op.descend(op.SGD([0.0], 1.0), lambda w: [-1.0], 4, schedule=lambda t: bad)


def test_step_lr_by_hand():
    rates = [op.step_lr(t, 8.0, 3, 0.5) for t in range(8)]
    agree("equation (13)", rates, [8, 8, 8, 4, 4, 4, 2, 2], *HAND)
    agree("default factor", op.step_lr(2, 1.0, 2), 0.1, *HAND)


def test_cosine_lr_by_hand():
    rates = [op.cosine_lr(t, 3.0, 4, lowest=1.0) for t in (0, 2, 4, 9)]
    agree("equation (14)", rates, [3, 2, 1, 1], *HAND)
    agree("default lowest", op.cosine_lr(4, 3.0, 4), 0.0, *HAND)


def test_warmup_lr_by_hand():
    rates = [op.warmup_lr(t, 2.0, 4, start=0.5) for t in (0, 1, 2, 4, 9)]
    agree("equation (15)", rates, [1, 1.25, 1.5, 2, 2], *HAND)
    agree("default start", op.warmup_lr(0, 2.0, 4), 0.2, *HAND)


def test_schedules_of_one_step():
    """step_lr, cosine_lr and warmup_lr at t = 0 and t = 1."""
    for schedule, rates in [(op.step_lr, [2, 0.2]), (op.cosine_lr, [2, 0]), (op.warmup_lr, [0.2, 2])]:
        agree(schedule.__name__, [schedule(t, 2.0, 1) for t in (0, 1)], rates, *HAND)


@pytest.mark.parametrize("schedule", [op.step_lr, op.cosine_lr, op.warmup_lr])
@pytest.mark.parametrize("t, length", [(-1, 5), (np.nan, 5), ("1", 5), (1, 0), (1, -2), (1, np.nan)])
def test_schedules_refuse_bad_input(schedule, t, length):
    """step_lr, cosine_lr and warmup_lr."""
    with pytest.raises((ValueError, TypeError), match="(t|every|steps) must be"):
        schedule(t, 1.0, length)


@pytest.mark.parametrize("lr", [1.0, 0.03])
@pytest.mark.parametrize(
    "schedule, theirs, options",
    [
        (lambda t, lr: op.step_lr(t, lr, 30, 0.5), "StepLR", (30, 0.5)),
        (lambda t, lr: op.step_lr(t, lr, 7), "StepLR", (7, 0.1)),
        (lambda t, lr: op.step_lr(t, lr, 1, 0.97), "ExponentialLR", (0.97,)),
        (lambda t, lr: op.cosine_lr(t, lr, 200), "CosineAnnealingLR", (200,)),
        (lambda t, lr: op.cosine_lr(t, lr, 200, 0.01), "CosineAnnealingLR", (200, 0.01)),
        (lambda t, lr: op.warmup_lr(t, lr, 50, 0.2), "LinearLR", (0.2, 1.0, 50)),
    ],
)
def test_schedules_match_torch_value_by_value(lr, schedule, theirs, options):
    """step_lr, cosine_lr, warmup_lr: the rate that each of 200 steps used."""
    import torch

    optimizer = op.torch_optimizer("SGD", [0.0], lr=lr)
    scheduler, rates = getattr(torch.optim.lr_scheduler, theirs)(optimizer, *options), []
    for _ in range(200):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    agree(theirs, [schedule(t, lr) for t in range(200)], rates, *op.ALLOWED["path"])


@pytest.mark.parametrize("method", ALL)
def test_descend_with_a_schedule_matches_torch(method):
    import torch

    p = logistic(7)
    ours = op.descend(method(p.start, lr=0.1), p.gradient, 200, lambda t: op.cosine_lr(t, 0.1, 200))
    optimizer = op.torch_optimizer(method.__name__, p.start, lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    theirs = op.torch_path(optimizer, p.gradient, 200, scheduler=scheduler)
    agree("path", ours, theirs, *op.ALLOWED["path"])


def test_clip_by_global_norm_by_hand():
    g = [np.array([3.0]), np.array([[0.0, 4.0]])]
    clipped, norm = op.clip_by_global_norm(g, 1.0)
    agree("norm", norm, 5.0, *HAND)
    agree("first", clipped[0], [3 / 5.000001], *HAND)
    agree("second", clipped[1], [[0, 4 / 5.000001]], *HAND)
    assert np.array_equal(g[0], [3.0]) and np.array_equal(g[1], [[0.0, 4.0]])
    agree("one array", op.clip_by_global_norm([6.0, 8.0], 100.0)[0], [6, 8], *HAND)
    agree("zero stays zero", op.clip_by_global_norm([0.0, 0.0], 1.0)[0], [0, 0], *HAND)


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 1e3])
def test_clip_by_global_norm_matches_torch(max_norm):
    import torch

    rng = np.random.default_rng(8)
    grads = [rng.normal(size=(3, 2)), rng.normal(size=()), rng.normal(size=4)]
    tensors = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in grads]
    for tensor, g in zip(tensors, grads):
        tensor.grad = torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_(tensors, max_norm)
    ours, our_norm = op.clip_by_global_norm(grads, max_norm)
    agree("norm", our_norm, float(norm), *op.ALLOWED["path"])
    for g, tensor in zip(ours, tensors):
        agree("gradient", g, tensor.grad.numpy(), *op.ALLOWED["path"])


@pytest.mark.parametrize("max_norm", [0.5, 10.0])
def test_clip_by_global_norm_gives_the_clipped_path_of_torch(max_norm):
    p = valley(0)
    clipped = lambda w: op.clip_by_global_norm(p.gradient(w), max_norm)[0]
    ours = op.descend(op.SGD(p.start, 0.001), clipped, 200)
    optimizer = op.torch_optimizer("SGD", p.start, lr=0.001)
    theirs = op.torch_path(optimizer, p.gradient, 200, max_norm=max_norm)
    agree("path", ours, theirs, *op.ALLOWED["path"])


@pytest.mark.parametrize(
    "grads, max_norm, words",
    [
        ([1.0], 0, "max_norm must be above 0"),
        ([1.0], np.nan, "max_norm must be"),
        ([np.nan], 1.0, "grads must hold finite"),
        ([], 1.0, "grads must have"),
        (None, 1.0, "grads must hold real"),
    ],
)
def test_clip_by_global_norm_refuses_bad_input(grads, max_norm, words):
    with pytest.raises((ValueError, TypeError), match=words):
        op.clip_by_global_norm(grads, max_norm)


# --- line search, Newton, L-BFGS -------------------------------------------------------------
def wolfe(p, w, d, t, c1=1e-4, c2=0.9):
    """Both conditions of equation (18), up to rounding of the loss."""
    f, slope = p.loss(w), p.gradient(w) @ d
    lower = p.loss(w + t * d) <= f + c1 * t * slope + 1e-14 * abs(f)
    return lower and abs(p.gradient(w + t * d) @ d) <= c2 * abs(slope)


@every_problem
@pytest.mark.parametrize("first", [1e-6, 1e-3, 1.0, 50.0])
@pytest.mark.parametrize("seed", range(5))
def test_line_search_meets_both_wolfe_conditions(name, first, seed):
    p = PROBLEMS[name](seed)
    g = p.gradient(p.start)
    for d in [-g, -np.linalg.solve(p.hessian(p.start) + 10 * np.eye(len(g)), g)]:
        t, g_new = op.line_search(p, p.start, d, g, first)
        assert t > 0 and wolfe(p, p.start, d, t)
        agree("gradient there", g_new, p.gradient(p.start + t * d), *HAND)


def test_line_search_meets_sharper_conditions_too():
    p = valley(0)
    g = p.gradient(p.start)
    t, _ = op.line_search(p, p.start, -g, g, c1=0.4, c2=0.45)
    assert wolfe(p, p.start, -g, t, c1=0.4, c2=0.45)


def line(f, slope):
    """A problem in one dimension from two functions of a number."""
    return op.Problem(lambda w: f(w[0]), lambda w: np.array([slope(w[0])]), None, np.zeros(1))


def trials(f, slope, **options):
    """The steps that a line search from 0 along +1 tries, and the one it takes."""
    seen = []

    def loss(x):
        seen.append(x)
        return f(x)

    t, _ = op.line_search(line(loss, slope), np.zeros(1), np.ones(1), np.array([slope(0.0)]), **options)
    return [float(x) for x in seen[1:]], t


def test_line_search_by_hand():
    # (x - 10)²: too short until the slope -2(10 - t) is below 9·... with c2 = 0.1: |slope| <= 2
    tried, t = trials(lambda x: (x - 10) ** 2, lambda x: 2 * (x - 10), c2=0.1)
    assert tried == [1, 2, 4, 8, 16, 12, 10] and t == 10
    # with c2 = 0.2 a slope of exactly 0.2 · 20 = 4 is flat enough
    tried, t = trials(lambda x: (x - 10) ** 2, lambda x: 2 * (x - 10), c2=0.2)
    assert tried == [1, 2, 4, 8] and t == 8
    # x² - 0.2x: the first steps overshoot, then halves of the way back
    tried, t = trials(lambda x: x**2 - 0.2 * x, lambda x: 2 * x - 0.2)
    assert tried == [1, 0.5, 0.25, 0.125] and t == 0.125
    # low enough but beyond the minimum: the slope tells that it lies between here and 0
    tried, t = trials(lambda x: (x - 1) ** 2, lambda x: 2 * (x - 1), t=1.9, c2=0.1)
    assert tried == [1.9, 0.95] and t == 0.95


def test_line_search_turns_back_when_the_lower_end_moves_past_the_minimum():
    # quartic: 1 fails (too high), 0.5 is low with a positive slope, so the good one is below it
    tried, t = trials(lambda x: 20 * x**4 - x, lambda x: 80 * x**3 - 1, c2=0.1)
    assert tried[:3] == [1, 0.5, 0.25] and abs(80 * t**3 - 1) <= 0.1


def test_line_search_backs_off_from_nan_and_from_infinity():
    for wall in (np.nan, np.inf):
        tried, t = trials(lambda x: x**2 - x if x < 0.7 else wall, lambda x: 2 * x - 1)
        assert tried == [1, 0.5] and t == 0.5


def test_line_search_that_finds_nothing_stays():
    """Uphill, no step is low enough; on a bottomless slope the search ends after its tries."""
    assert trials(lambda x: x, lambda x: 1.0, tries=5)[1] == 0
    tried, t = trials(lambda x: -x, lambda x: -1.0, tries=5)
    assert tried == [1, 2, 4, 8, 16] and t == 16


def test_line_search_takes_a_loss_that_is_just_low_enough():
    tried, t = trials(lambda x: -1e-4 * x, lambda x: -1.0 if x == 0 else 0.0)
    assert tried == [1] and t == 1


def test_line_search_asks_for_no_gradient_where_the_loss_is_not_a_number():
    """Beyond a wall neither is one; a search that starts there turns back."""
    tried, t = trials(lambda x: x**2 - x if x < 0.7 else np.nan, lambda x: 2 * x - 1 if x < 0.7 else np.nan)
    assert tried == [1, 0.5] and t == 0.5


def test_line_search_ignores_differences_of_rounding_size():
    """At 1e6 + x² the loss cannot tell 1e-6 from 0, but the slope can."""
    p = line(lambda x: 1e6 + (x - 1e-6) ** 2, lambda x: 2 * (x - 1e-6))
    t, _ = op.line_search(p, np.zeros(1), np.array([2e-6]), np.array([-2e-6]))
    agree("t", t, 0.5, *HAND)


def test_newton_by_hand():
    # w⁴/4 - w from w = 2: g = 7, H = 12; a quadratic takes one step
    p = line(lambda w: w**4 / 4 - w, lambda w: w**3 - 1)
    p = p._replace(hessian=lambda w: np.diag(3 * w**2), start=np.array([2.0]))
    path = op.newton(p, search=False)
    agree("first step", path[1], [2 - 7 / 12], *HAND)
    agree("minimum", path[-1], [1.0], *HAND)
    for search in (False, True):
        path = op.newton(quadratic(0), search=search)
        assert len(path) == 2
        agree("one step", path[-1], np.zeros(5), 1e-10, "one linear solve")


@pytest.mark.parametrize("seed", [0, 1])
def test_newton_path_matches_one_made_with_torch_autograd(seed):
    import torch
    from torch.autograd.functional import hessian, jacobian

    p = valley(seed)
    path = op.newton(p, search=False)
    theirs = [torch.tensor(p.start)]
    for _ in path[1:]:
        g, H = jacobian(p.loss, theirs[-1]), hessian(p.loss, theirs[-1])
        theirs.append(theirs[-1] - torch.linalg.solve(H, g))
    agree("iterates", path, torch.stack(theirs).numpy(), 1e-10, "the condition of H near 2500")


@pytest.mark.parametrize("search", [False, True])
def test_newton_doubles_its_digits(search):
    p = logistic(0)
    path = op.newton(p, tol=1e-14, search=search)
    best = path[-1]
    gaps = np.linalg.norm(path[:-1] - best, axis=1)
    close = gaps[(gaps < 0.1) & (gaps > 1e-7)]
    assert len(path) < 12 and all(b < 10 * a**2 for a, b in zip(close, close[1:])) and len(close) > 1


def wells(start):
    """Σ wᵢ⁴/4 - wᵢ²/2: minima at ±1, a saddle where one wᵢ is 0."""
    return op.Problem(
        lambda w: np.sum(w**4 / 4 - w**2 / 2),
        lambda w: w**3 - w,
        lambda w: np.diag(3 * w**2 - 1),
        np.array(start),
    )


def test_newton_climbs_to_a_saddle_and_with_search_does_not():
    p = wells([0.8, 0.3])
    agree("saddle", op.newton(p, search=False)[-1], [1, 0], 1e-8, "stops at a small gradient")
    path = op.newton(p)
    agree("minimum", path[-1], [1, 1], 1e-8, "stops at a small gradient")
    losses = [p.loss(w) for w in path]
    assert all(b < a for a, b in zip(losses, losses[1:]))


@pytest.mark.parametrize(
    "curvature, g, first",
    [
        ([2.0, -4.0], [1.0, 1.0], [-0.5, -0.25]),  # |H|, so against g in both
        ([1.0, 0.0], [1.0, -1e-9], [-1.0, 0.1]),  # 0 counts as 1e-8 of the largest
        ([-4.0, 1e-9], [1.0, 1e-8], [-0.25, -0.25]),  # the largest may be negative
    ],
)
def test_newton_with_search_tries_the_step_of_the_absolute_hessian_first(curvature, g, first):
    g, seen = np.array(g), []
    p = op.Problem(
        lambda w: seen.append(w.copy()) or g @ w, lambda w: g, lambda w: np.diag(curvature), np.zeros(2)
    )
    with pytest.warns(DidNotConverge):
        op.newton(p, steps=1)
    agree("first trial", seen[1], first, *HAND)


def test_newton_says_that_a_singular_hessian_has_no_step():
    p = op.Problem(lambda w: w.sum(), lambda w: np.ones(2), lambda w: np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="[Ss]ingular"):
        op.newton(p, search=False)


def test_newton_refuses_a_hessian_that_is_not_finite():
    p = quadratic(0)._replace(hessian=lambda w: np.full((5, 5), np.nan))
    with pytest.raises(ValueError, match="the Hessian must hold finite"):
        op.newton(p)


@pytest.mark.parametrize("method", [op.newton, op.lbfgs])
def test_newton_and_lbfgs_warn_when_they_run_out_of_steps(method):
    with pytest.warns(DidNotConverge, match="after 2 steps the largest gradient is .*, not 1e-08"):
        assert len(method(valley(0), steps=2)) == 3
    with pytest.warns(DidNotConverge, match="after 0 steps"):
        agree("start", method(valley(0), steps=0), [valley(0).start], *HAND)
    at_minimum = valley(0)._replace(start=[1, 1])
    agree("already there", method(at_minimum, steps=0), [[1, 1]], *HAND)


@pytest.mark.parametrize("method", [op.newton, op.lbfgs])
@pytest.mark.parametrize(
    "options, words",
    [
        (dict(steps=-1), "steps must be"),
        (dict(steps=1.5), "steps must be"),
        (dict(tol=-1e-8), "tol must be"),
        (dict(tol=np.nan), "tol must be"),
    ],
)
def test_newton_and_lbfgs_refuse_bad_options(method, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        method(valley(0), **options)


@pytest.mark.parametrize("method", [op.newton, op.lbfgs])
@pytest.mark.parametrize("kind", BAD_GRADIENTS)
def test_newton_and_lbfgs_refuse_a_bad_gradient(method, kind):
    with pytest.raises((ValueError, TypeError), match="the gradient must"):
        method(valley(0)._replace(gradient=BAD_GRADIENTS[kind]))
    late = lambda w: BAD_GRADIENTS[kind](w) if w[0] != 2.0 else np.ones(2)  # only after a step
    for search in (False, True):
        with pytest.raises((ValueError, TypeError), match="the gradient must"):
            method(quadratic(0, d=2)._replace(gradient=late, start=np.array([2.0, 2.0])), search=search)


@pytest.mark.parametrize("method", [op.newton, op.lbfgs])
@pytest.mark.parametrize("start", [[np.nan, 1.0], [[1.0, 2.0]], "ab", None])
def test_newton_and_lbfgs_refuse_a_bad_start(method, start):
    with pytest.raises((ValueError, TypeError), match="start must"):
        method(valley(0)._replace(start=start))


def test_lbfgs_direction_is_the_formula_with_the_matrix_written_out():
    """Equation (19) applied to (sᵀy / yᵀy) I, pair after pair."""
    rng = np.random.default_rng(9)
    pairs = []
    for k in range(5):
        H = np.eye(4)
        if pairs:
            s, y = pairs[-1]
            H *= (s @ y) / (y @ y)
        for s, y in pairs:
            rho, I = 1 / (y @ s), np.eye(4)
            H = (I - rho * np.outer(s, y)) @ H @ (I - rho * np.outer(y, s)) + rho * np.outer(s, s)
        g = rng.normal(size=4)
        agree(f"{k} pairs", op.lbfgs_direction(g, pairs), -H @ g, 1e-10, "one solve by two routes")
        s = rng.normal(size=4)
        pairs.append((s, s * rng.uniform(0.5, 2, size=4)))
    agree("secant equation", op.lbfgs_direction(pairs[-1][1], pairs), -pairs[-1][0], 1e-10, "H⁻¹y = s")


@every_seed
@pytest.mark.parametrize(
    "name, lr, memory, steps",
    [("quadratic", 0.02, 3, 200), ("quadratic", 0.05, 10, 200), ("logistic", 0.1, 5, 200)]
    + [("logistic", 0.05, 1, 200), ("rosenbrock", 0.05, 5, 20)],
)
def test_lbfgs_iterates_match_torch_without_search(name, lr, memory, steps, seed):
    """In Rosenbrock's bend full steps go wild, and rounding grows tenfold every few steps."""
    p = PROBLEMS[name](seed)
    options = dict(lr=lr, memory=memory, steps=steps, tol=1e-13, search=False)
    with pytest.warns(DidNotConverge):
        ours = op.lbfgs(p, **options)
    agree(name, ours, op.torch_lbfgs(p, **options), *op.ALLOWED["path"])
    assert len(ours) == steps + 1


def test_lbfgs_full_steps_match_torch_until_it_has_converged():
    p = logistic(4, d=8)
    ours = op.lbfgs(p, search=False)
    theirs = op.torch_lbfgs(p, steps=len(ours) + 4, search=False)
    assert theirs.shape == (len(ours) + 5, 8)
    agree("iterates", ours, theirs[: len(ours)], *op.ALLOWED["path"])
    agree("then it stays", theirs[len(ours) :], [ours[-1]] * 5, *op.ALLOWED["path"])


def test_lbfgs_first_step_has_length_lr_at_most():
    p = quadratic(0, d=2)._replace(gradient=lambda w: np.array([30.0, -10.0]), start=np.zeros(2))
    for scale, step in [(1, 0.5 / 40), (0.01, 0.5)]:
        q = p._replace(gradient=lambda w: scale * np.array([30.0, -10.0]))
        with pytest.warns(DidNotConverge):
            path = op.lbfgs(q, lr=0.5, steps=1, search=False)
        agree("first step", path[1], -step * scale * np.array([30.0, -10.0]), *HAND)


@pytest.mark.parametrize("method", [op.newton, op.lbfgs])
def test_newton_and_lbfgs_stop_where_the_gradient_equals_tol(method):
    p = line(lambda x: 0.25 * x, lambda x: 0.25)._replace(hessian=lambda w: np.eye(1))
    assert len(method(p, tol=0.25)) == 1


def test_lbfgs_with_search_survives_a_slope_that_never_bends():
    p = line(lambda x: -x, lambda x: -1.0)
    with pytest.warns(DidNotConverge, match="after 3 steps"):
        path = op.lbfgs(p, steps=3)
    assert np.all(np.diff(path[:, 0]) > 1e15)


def test_lbfgs_leaves_out_pairs_without_curvature():
    """On a slope that does not bend yᵀs = 0: every step is plain gradient descent."""
    p = op.Problem(lambda w: w.sum(), lambda w: np.full(2, 0.25), None, np.zeros(2))
    with pytest.warns(DidNotConverge):
        path = op.lbfgs(p, steps=5, search=False)
    agree("path", path, -0.25 * np.arange(6)[:, None] * np.ones(2), *HAND)


@every_problem
@every_seed
@pytest.mark.parametrize("memory", [1, 10])
def test_lbfgs_with_search_finds_the_minimum_of_torch(name, seed, memory):
    p = PROBLEMS[name](seed)
    path = op.lbfgs(p, memory=memory, steps=500, tol=1e-9)
    theirs = op.torch_lbfgs(p, memory=memory, steps=150, tol=1e-9)[-1]
    agree("minimum", path[-1], theirs, *op.ALLOWED["minimum"])
    losses = np.array([p.loss(w) for w in path])
    assert np.all(np.diff(losses) <= 1e-14 * np.abs(losses[:-1]) + 1e-300)


@pytest.mark.parametrize("d", [1, 2, 30])
def test_lbfgs_needs_few_steps_where_gradient_descent_needs_many(d):
    p = quadratic(1, d=d, condition=1e3)
    assert len(op.lbfgs(p, memory=50)) < 160
    path = op.gradient_descent(p.gradient, p.start, 2 / 1001, 1500)
    assert d == 1 or np.abs(p.gradient(path[-1])).max() > 1e-3


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(lr=0), "lr must be above 0"),
        (dict(lr=np.nan), "lr must be"),
        (dict(memory=0), "memory must be at least 1"),
        (dict(memory=2.5), "memory must be a whole number"),
    ],
)
def test_lbfgs_refuses_bad_options(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        op.lbfgs(valley(0), **options)


# --- data-parallel SGD -----------------------------------------------------------------------
def regression(n=24, d=3, seed=10):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=n), rng.normal(size=d)


@pytest.mark.parametrize("sizes", [(24,), (12, 12), (20, 4), (1, 23), (3, 5, 7, 9)])
def test_data_parallel_sgd_equals_one_worker_with_the_whole_batch(sizes):
    X, y, w = regression()
    gradient = op.squared_error_gradient(X, y)
    whole = op.gradient_descent(lambda w: gradient(w, range(24)), w, 0.05, 200)
    ours = op.data_parallel_sgd(gradient, w, 0.05, 200, sizes)
    agree("equation (20)", ours, whole, *op.ALLOWED["path"])


def test_data_parallel_sgd_by_hand():
    # y = 1, 1, 4 and w = 0: row gradients -2, -2, -8; shards (2, 1): means -2 and -8
    gradient = op.squared_error_gradient([[1.0], [1.0], [1.0]], [1.0, 1.0, 4.0])
    for weighted, step in [(True, (2 * 2 + 8) / 3), (False, (2 + 8) / 2)]:
        path = op.data_parallel_sgd(gradient, [0.0], 0.1, 1, (2, 1), weighted)
        agree("first step", path, [[0.0], [0.1 * step]], *HAND)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(sizes=(24, 0)), "sizes must be at least 1"),
        (dict(sizes=(12.0, 12)), "sizes must be a whole number"),
        (dict(lr=-1), "lr must be"),
        (dict(steps=-1), "steps must be"),
        (dict(w=[np.nan] * 3), "w must hold finite"),
        (dict(gradient=lambda w, rows: w[:, None]), "the gradient must have the shape"),
    ],
)
def test_data_parallel_sgd_refuses_bad_input(options, words):
    X, y, w = regression()
    given = dict(gradient=op.squared_error_gradient(X, y), w=w, lr=0.1, steps=2, sizes=(12, 12))
    with pytest.raises((ValueError, TypeError), match=words):
        op.data_parallel_sgd(**{**given, **options})


def start_processes_by(popen, monkeypatch):
    """In optimization.py alone: subprocess is shared with whatever else runs beside this test."""
    monkeypatch.setattr(op, "subprocess", types.SimpleNamespace(**{**vars(subprocess), "Popen": popen}))


@pytest.fixture
def jobs(monkeypatch):
    """Every process that torch_data_parallel starts."""
    started = []

    def record(*args, **options):
        started.append(subprocess.Popen(*args, **options))
        return started[-1]

    start_processes_by(record, monkeypatch)
    return started


def ended(jobs, number=2):
    return len(jobs) == number and all(job.poll() is not None and job.stderr.closed for job in jobs)


def parallel(**options):
    X, y, w = regression()
    return op.torch_data_parallel(**{**dict(X=X, y=y, w=w, lr=0.05, steps=200, sizes=(12, 12)), **options})


def test_torch_data_parallel_stops_the_workers_at_the_time_limit(jobs):
    with pytest.raises(subprocess.TimeoutExpired, match="timed out"):
        parallel(seconds=0.1)
    assert ended(jobs)


def test_torch_data_parallel_stops_the_first_worker_if_the_second_cannot_start(jobs, monkeypatch):
    record = op.subprocess.Popen

    def fails(command, **options):
        if command[-1] == "1":
            raise OSError("no more processes")
        return record(command, **options)

    start_processes_by(fails, monkeypatch)
    with pytest.raises(OSError, match="no more processes"):
        parallel()
    assert ended(jobs, 1)


@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (1, 0)])
def test_torch_data_parallel_says_what_went_wrong_in_a_worker(codes, jobs, monkeypatch):
    record = op.subprocess.Popen

    def exits(command, **options):
        code = "import sys; sys.stderr.write('no memory'); sys.exit(int(sys.argv[1]))"
        return record([sys.executable, "-c", code, str(codes[int(command[-1])])], **options)

    start_processes_by(exits, monkeypatch)
    with pytest.raises(RuntimeError, match="a worker failed. no memory"):
        parallel()
    assert ended(jobs)


@pytest.mark.parametrize("sizes, ddp", [((12, 12), False), ((17, 7), False), ((17, 7), True)])
def test_torch_data_parallel_matches_data_parallel_sgd(sizes, ddp, jobs, tmp_path, monkeypatch):
    """Equal and unequal shards, in both processes; DistributedDataParallel takes the plain mean.

    From another folder: the processes must find optimization.py where this one found it."""
    monkeypatch.chdir(tmp_path)
    theirs = parallel(sizes=sizes, ddp=ddp)
    assert ended(jobs) and all(job.returncode == 0 for job in jobs) and not list(tmp_path.iterdir())
    X, y, w = regression()
    ours = op.data_parallel_sgd(op.squared_error_gradient(X, y), w, 0.05, 200, sizes, weighted=not ddp)
    agree(f"rows {sizes}, ddp {ddp}", [ours, ours], theirs, *op.ALLOWED["path"])


# --- the race ----------------------------------------------------------------------------
def test_race_stops_at_the_first_iterate_that_is_low_enough():
    p = op.ravine(20.0)
    paths = op.race(p, most=300)
    assert set(paths) == {*op.RACERS, "L-BFGS", "Newton"}
    for name, path in paths.items():
        losses = np.array([p.loss(w) for w in path])
        done = losses <= 1e-6 * losses[0]
        assert not done[:-1].any() and (done[-1] or len(path) == 301), name
        agree("start", path[0], p.start, *HAND)
    assert len(paths["Newton"]) == 2


def test_race_ravine_turned_by_45_degrees_slows_only_the_methods_that_scale_coordinates():
    straight, turned = op.race(op.ravine()), op.race(op.ravine(angle=np.pi / 4))
    steps = {name: (len(straight[name]), len(turned[name])) for name in straight}
    assert all(steps[name][0] == steps[name][1] for name in ("momentum", "Nesterov", "Newton"))
    assert all(steps[name][1] > 1.2 * steps[name][0] for name in ("AdaGrad", "RMSProp", "Adam"))


def test_torch_optimizer_holds_a_float_copy_of_its_parameters():
    w = np.array([1, 2])
    (p,) = op.torch_optimizer("SGD", w, lr=0.1).param_groups[0]["params"]
    p += 0.5
    agree("parameters", p.numpy(), [1.5, 2.5], *HAND)
    assert w[0] == 1
