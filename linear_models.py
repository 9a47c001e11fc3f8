# %% [markdown]
"""
# Linear models: how far does a weighted sum go?

A linear model gives every feature a weight and adds up: z = w₁x₁ + ... + w_d x_d + b. What it does
with the score z, and which weights it calls good, makes eight methods out of one formula.

Run `python linear_models.py`, or a part: `python linear_models.py ridge lasso`. `pytest` checks it.
Nothing but numpy is needed before a function called `sklearn_...`, the library version.

    n, d, k   number of examples, of features, of classes
    X         features, one example per row                          (n, d)
    y         targets: real numbers, or labels 0, 1, ..., k-1        (n,)
    w, b      weights and intercept, which the models learn          (d,) and ()
    θ         theta: w and b as one vector, for X with a last column of ones: `X1`
    z         scores z = Xw + b = X1 θ, one per example              (n,)
    r         residuals r = y - z, what the model gets wrong         (n,)
    J, g, H   the objective to make small, its gradient (all slopes ∂J/∂θ), its curvatures
    λ, η      lambda, the price of large weights: `l2`, `l1`; eta, the size of a step: `lr`
    ‖v‖², ‖v‖₁   the sum of vⱼ², and the sum of |vⱼ|
"""
# %%
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np

from utils import (
    DidNotConverge, accuracy, check_array, check_labels, check_number, check_X, check_Xy, compare,
    k_fold, make_moons, r2_score, read_table, report, roc_auc, roc_curve, run_chapter, save_plot,
    stratified_k_fold, train_test_split,
)  # fmt: skip

# How close scratch and library must be, relative to max(1, largest number), and why.
ALLOWED = {
    "linear regression": (1e-10, "two direct solvers: where cond < 1e5 only rounding differs"),
    "gradient descent": (1e-6, "enough steps for six digits in the slowest direction"),
    "ridge": (1e-10, "two direct solvers: only rounding differs"),
    "lasso": (1e-6, "both stop at a small duality gap, about the square of the error"),
    "logistic": (1e-6, "both iterate until J is flat"),
    "softmax": (1e-5, "both iterate; probabilities, as b has a direction without effect"),
    "linear svm": (1e-5, "liblinear iterates; at tol=1e-12 it ends up to 2e-6 away"),
    "kernel svm": (1e-5, "libsvm stores its kernel in float32, which has 7 digits"),
    "same choice": (0, "the same features left out, the same examples as support vectors"),
    "evaluation": (1e-10, "the same folds and scaler, or the same p; the rest is rounding"),
}
def add_ones(X):
    """X1 (n, d + 1): X with a last column of ones, whose weight is b."""
    return np.column_stack([X, np.ones(len(X))])

def compare_weights(what, w, b, model, row):
    """w and b beside those of a fitted scikit-learn estimator, at the tolerance of the row."""
    library = np.append(model.coef_, model.intercept_)
    return compare(f"{what} w, b", np.append(w, b), library, *ALLOWED[row])

def predict_linear(X, w, b):
    """Scores z = Xw + b, (n,): what every model with one weight per feature computes."""
    w = check_array("w", w, ndim=1)
    return check_X(X, features=len(w)) @ w + b  # (n, d) @ (d,) -> (n,)

# %% [markdown]
"""
## Linear regression: which line is closest to all the points?

Squared error decides, and it has a best answer that needs no search:

    J(w, b) = ‖y - Xw - b‖² = Σᵢ (yᵢ - xᵢ·w - b)²                                               (1)

At the best b the residuals add up to zero, so b = mean(y) - mean(X)·w. Put that in, and (1) has no
b, on X and y with their means taken out. Slopes -2Xᵀr = 0 give the normal equations XᵀX w = Xᵀy. Do
not solve those: the condition number κ (kappa, `cond`) says how much an error can grow on its way
from the data to w, and XᵀX has κ², which loses twice as many digits. A factorisation X = QR, with
QᵀQ = I and R triangular, pays no such price, since Q keeps lengths:

    ‖y - Xw‖² = ‖Qᵀy - Rw‖² + a rest that no w can change                                      (2)

The small R also tells how many directions the data have. R = USVᵀ (turn, stretch by the singular
values s, turn): an s below rounding counts as zero. If there is one, many w fit equally well (two
equal columns can share a weight in any proportion), and we return the shortest.
"""
# %%
def solve_least_squares(A, r):
    """The shortest w (d,) that minimises ‖r - Aw‖², for A (n, d) of any shape and rank.
    Equation (2), on columns scaled to one size so that small ones keep their digits. Factor
    [A r] as one: the last column of R is then Qᵀr. Golub and Van Loan (2013), chapter 5."""
    table = np.column_stack([A, r])
    size = np.maximum(table.max(axis=0), -table.min(axis=0))
    size[size == 0] = 1
    table /= size
    R, size = np.linalg.qr(table, mode="r"), size[:-1] / size[-1]
    U, s, Vt = np.linalg.svd(R[:, :-1])
    rank = np.sum(s > max(A.shape) * np.finfo(float).eps * s[0])
    w = Vt[:rank].T @ (U[:, :rank].T @ R[:, -1] / s[:rank]) / size
    if rank < len(w):  # every mix of the other directions fits as well: take it out
        free = np.linalg.qr(Vt[rank:].T / size[:, None])[0]
        w = w - free @ (free.T @ w)
    return w

def fit_linear_regression(X, y):
    """Least squares with an intercept, equation (1): w (d,), b. The shortest w if many fit."""
    X, y = check_Xy(X, y)
    mean = X.mean(axis=0)
    w = solve_least_squares(X - mean, y - y.mean())
    return w, y.mean() - mean @ w

# %% [markdown]
"""
### Gradient descent, for when there is no formula

Walk downhill. Half the mean of the squares has the same minimum, and one step size fits any n:

    J(θ) = ‖y - X1 θ‖² / 2n              g = -X1ᵀr / n               θ ← θ - ηg                 (3)

Where J curves most it is L/2 times a square: L is the largest eigenvalue of X1ᵀX1 / n. There a step
multiplies the error by 1 - ηL. The walk converges if η < 2/L; above, the error grows for ever.
"""
# %%
def step_bound(X):
    """2/L: gradient descent on (3) converges for each lr below it and for none above."""
    return 2 * len(X) / np.linalg.norm(add_ones(check_X(X)), ord=2) ** 2  # largest singular value

def gradient_descent(objective, slope, theta, lr, steps):
    """theta ← theta - lr * slope(theta): w (d,), b, and the objective before each step (steps,)."""
    check_number("lr", lr, above=0)
    check_number("steps", steps, least=0, integer=True)
    losses = []
    for _ in range(steps):
        with np.errstate(over="ignore"):
            losses.append(objective(theta))
        if losses[-1] > 1e12 * losses[0]:
            raise ValueError(f"lr must be below the step bound, not {lr}: the objective explodes")
        theta = theta - lr * slope(theta)
    return theta[:-1], theta[-1], np.array(losses)

def fit_linear_regression_gd(X, y, lr, steps):
    """Equation (3) from zero: w (d,), b, losses (steps,). Explodes if lr > step_bound(X)."""
    X, y = check_Xy(X, y)
    X1 = add_ones(X)
    J = lambda theta: np.sum((y - X1 @ theta) ** 2) / (2 * len(y))
    slope = lambda theta: X1.T @ (X1 @ theta - y) / len(y)
    return gradient_descent(J, slope, np.zeros(X1.shape[1]), lr, steps)

# %%
def sklearn_linear_regression(X, y, tol=1e-14):
    """The library version: w in `coef_`, b in `intercept_`. Since version 1.9 its default tol=1e-6
    drops directions below a millionth of the largest. x, ..., x⁷ over 0 to 10 have such ones: the
    demo shows every digit of w lost; tol=1e-14 brings them back."""
    from sklearn.linear_model import LinearRegression
    return LinearRegression(tol=tol).fit(X, y)

def demo_linear_regression(plot=False):
    """Five points and a line; gradient descent at its bound; powers of x."""
    print("== Linear regression: what does an hour of study add to a score? ==\n")
    X, y = np.array([[1.0], [2], [3], [4], [5]]), np.array([52.0, 55, 61, 64, 68])
    w, b = fit_linear_regression(X, y)
    print(f"  hours 1 to 5, scores {y}, line {predict_linear(X, w, b).round(1)}")
    for share in [0.99, 1.01]:
        J = fit_linear_regression_gd(X, y, share * step_bound(X), 400)[2]
        print(f"  gradient descent, lr = {share} times 2/L: J goes {J[0]:.0f} -> {J[-1]:.2g}")
    true = np.arange(1.0, 8)
    powers = np.linspace(0, 10, 40)[:, None] ** true  # x, x^2, ..., x^7, with weights 1, ..., 7
    found = {"scratch": fit_linear_regression(powers, powers @ true)[0]}
    for tol in [1e-6, 1e-14]:
        found[f"library, tol={tol:g}"] = sklearn_linear_regression(powers, powers @ true, tol).coef_
    for name, weights in found.items():
        error = np.linalg.norm(weights - true) / np.linalg.norm(true)
        print(f"  x, ..., x^7 over 0 to 10: {max(0, int(-np.log10(error)))} correct digits, {name}")
    model = sklearn_linear_regression(X, y)
    descent = fit_linear_regression_gd(X, y, 0.9 * step_bound(X), 1500)[:2]
    rows = [compare_weights("linear regression", w, b, model, "linear regression")]
    return report([*rows, compare_weights("gradient descent", *descent, model, "gradient descent")])
# Try: subtract 3 from every X. The slope stays; what happens to b, and to the step bound?

# %% [markdown]
"""
## Ridge: what if the data leave the weights undecided?

With more features than examples, or two features that nearly repeat each other, least squares fits
the noise with huge weights of opposite sign. Ridge puts a price on size:

    J(w, b) = ‖y - Xw - b‖² + λ‖w‖²                                                             (4)
    (XᵀX + λI) w = Xᵀy,                  the means taken out of X and y                         (5)

A direction in which the data have singular value s is multiplied by s² / (s² + λ): strong ones
hardly shrink, weak ones almost to zero. That is a systematic error (bias), accepted for less
scatter (variance). The intercept stays free, else
the fit would depend on where a thermometer has its zero. It does depend on units: per kilometre a
weight is 1000 times what it is per metre, and its price a million times. Scale the columns first.
Adding λ also keeps (5) away from singular, so that XᵀX is good enough here.
"""
# %%
def centred_gram(X, y, rows=512):
    """XᵀX (d, d) and Xᵀy (d,) with the means taken out, and mean(X), by blocks of rows.
    A block fits in the cache, so no centred copy of X is made. XᵀX - n mean meanᵀ would save a
    quarter of the time, and lose the digits that a large mean takes up."""
    mean, r, gram, moment = X.mean(axis=0), y - y.mean(), 0, 0
    for i in range(0, len(X), rows):
        block = X[i : i + rows] - mean
        gram = gram + block.T @ block  # (d, rows) @ (rows, d) -> (d, d)
        moment = moment + block.T @ r[i : i + rows]
    return gram, moment, mean

def fit_ridge(X, y, l2):
    """Equation (5): w (d,), b. l2 >= 0. Hoerl and Kennard, Ridge Regression (1970)."""
    X, y = check_Xy(X, y)
    check_number("l2", l2, least=0)
    gram, moment, mean = centred_gram(X, y)
    gram = gram + l2 * np.eye(len(gram))
    eigenvalues = np.linalg.eigvalsh(gram)  # ascending
    if eigenvalues[0] > 1e-6 * eigenvalues[-1]:
        w = np.linalg.solve(gram, moment)
    else:  # λ is too small for that: (4) is least squares with d more rows √λ I, target 0
        rows = np.vstack([X - mean, np.sqrt(l2) * np.eye(len(mean))])
        w = solve_least_squares(rows, np.append(y - y.mean(), np.zeros(len(mean))))
    return w, y.mean() - mean @ w

# %%
def sklearn_ridge(X, y, l2):
    """The library version: `Ridge(alpha=λ)` has the same (4). Elsewhere the squares may be a mean
    beside the same `alpha`, and `C` is 1/λ: read the objective before you carry a value over."""
    from sklearn.linear_model import Ridge
    return Ridge(alpha=l2).fit(X, y)

def demo_ridge(plot=False):
    """Two nearly equal columns: least squares goes wild, ridge shares the weight."""
    print("\n== Ridge: two thermometers on one wall; y = 1 + 2 * warmth + noise ==\n")
    rng, rows = np.random.default_rng(0), []
    warmth = rng.normal(size=30)
    X = np.column_stack([warmth, warmth + 0.001 * rng.normal(size=30)])
    y = 1 + 2 * warmth + 0.1 * rng.normal(size=30)
    for l2 in [0, 0.01, 10]:
        w, b = fit_ridge(X, y, l2)
        print(f"  l2 = {l2:<5}  w = {w[0]:6.2f} {w[1]:6.2f}   sum {w.sum():.3f}   b = {b:.3f}")
        model = sklearn_ridge(X, y, l2) if l2 > 0 else sklearn_linear_regression(X, y)
        rows.append(compare_weights(f"ridge l2={l2}", w, b, model, "ridge"))
    return report(rows)
# Try: make the second thermometer 100 times as noisy. How do the first two rows change?

# %% [markdown]
"""
## Lasso and elastic net: which features can be left out?

Ridge makes weights small, never zero. Pay for |w| instead of w², and a feature that earns less than
its price gets the weight 0 exactly:

    J(w, b) = ‖y - Xw - b‖² / 2n + λ₁‖w‖₁ + λ₂/2 ‖w‖²                                           (6)

λ₁ alone is the lasso. With λ₂ it is the elastic net, which keeps near twins where the lasso picks
one. J has a corner at wⱼ = 0, hence no gradient to follow, but one coordinate at a time is easy. On
centred columns let ρⱼ = xⱼ·r/n + (xⱼ·xⱼ/n) wⱼ (rho), the pull of the data on wⱼ when it starts from
zero. The best wⱼ, the others fixed, is then

    wⱼ ← sign(ρⱼ) max(|ρⱼ| - λ₁, 0) / (xⱼ·xⱼ/n + λ₂)                                            (7)

Sweep until nothing moves. A small step does not prove that we are done, but a bound does: shrink r
by s until no feature pulls harder than λ₁, and it yields a number D that J cannot get below:

    D = s r·y/n - s² (r·r/n + λ₂‖w‖²) / 2,        s = min(1, λ₁ / maxⱼ |xⱼ·r/n - λ₂wⱼ|)         (8)

J - D is the duality gap: what is left to win, at most. A zero weight is no proof that a
feature has no effect.
"""
# %%
def soft_threshold(rho, l1):
    """Numerator of equation (7): move rho towards 0 by l1, and stop there."""
    return rho - l1 if rho > l1 else rho + l1 if rho < -l1 else 0.0

def duality_gap(w, pull, moment, yy, l1, l2):
    """J - D by (6) and (8). pull = Xᵀr/n, moment = Xᵀy/n (d,), yy = y·y/n, all centred."""
    ry = yy - w @ moment
    rr = ry - w @ pull  # r·r = r·y - r·Xw
    s = l1 / max(np.abs(pull - l2 * w).max(), l1)
    J = rr / 2 + l1 * np.abs(w).sum() + l2 / 2 * w @ w
    return J - (s * ry - s**2 * (rr + l2 * w @ w) / 2)

def fit_lasso(X, y, l1, l2=0.0, tol=1e-12, sweeps=20_000):
    """Equation (6) by coordinate descent: w (d,), b. l1 > 0, l2 >= 0; gap <= tol * y·y/n.
    pull = Xᵀr/n is kept up to date through XᵀX, so a step costs d, not n. After a full sweep
    only the nonzero weights move, until they rest. Friedman, Hastie, Tibshirani (2010)."""
    X, y = check_Xy(X, y)
    check_number("l1", l1, above=0)
    check_number("l2", l2, least=0)
    gram, moment, mean = centred_gram(X, y)
    gram, moment, yy = gram / len(y), moment / len(y), np.mean((y - y.mean()) ** 2)
    rows, square = list(gram), gram.diagonal().tolist()  # plain floats: faster one at a time
    varying = [j for j in range(len(mean)) if square[j] > 0]  # a constant keeps weight 0
    w, pull, active, gap = [0.0] * len(mean), moment.copy(), varying, np.inf
    for _ in range(sweeps):
        moved = 0.0
        for j in active:
            new = soft_threshold(float(pull[j]) + square[j] * w[j], l1) / (square[j] + l2)
            if (step := new - w[j]) != 0:
                pull -= step * rows[j]
                moved, w[j] = max(moved, step * step * square[j]), new
        gap = duality_gap(np.array(w), pull, moment, yy, l1, l2)
        if gap <= tol * yy:
            break
        at_rest = moved <= 1e-4 * gap  # the zero weights must bring the rest of the gap
        active = varying if at_rest else [j for j in varying if w[j] != 0] or varying
    else:
        warnings.warn(f"lasso: duality gap {gap:.1e} after {sweeps} sweeps", DidNotConverge, 2)
    return np.array(w), y.mean() - mean @ w

# %%
def sklearn_lasso(X, y, l1, l2=0.0):
    """The library version: `Lasso(alpha=λ₁)` divides the squares by 2n as in (6), `Ridge` does not.
    `ElasticNet` splits one `alpha` = λ₁ + λ₂ by `l1_ratio` = λ₁ / alpha."""
    from sklearn.linear_model import ElasticNet, Lasso
    options = dict(tol=1e-12, max_iter=100_000)
    if l2 == 0:
        return Lasso(alpha=l1, **options).fit(X, y)
    return ElasticNet(alpha=l1 + l2, l1_ratio=l1 / (l1 + l2), **options).fit(X, y)

def demo_lasso(plot=False):
    """Real data: at which price does each of ten measurements drop out?"""
    from sklearn.datasets import load_diabetes
    print("\n== Lasso: which of ten measurements predict the course of diabetes? ==\n")
    data, rows = load_diabetes(), []
    X, y = scale(data.data, *fit_scaler(data.data)), data.target  # (22): mean 0, spread 1
    for l1 in [30, 10, 3, 1]:
        w, _ = fit_lasso(X, y, l1)
        kept = [data.feature_names[j] for j in np.argsort(-np.abs(w)) if w[j] != 0]
        print(f"  l1 = {l1:<3} keeps {len(kept):2}: {' '.join(kept)}")
    for name, l1, l2 in [("lasso", 3, 0.0), ("elastic net", 1, 0.5)]:
        (w, b), model = fit_lasso(X, y, l1, l2), sklearn_lasso(X, y, l1, l2)
        rows.append(compare_weights(name, w, b, model, "lasso"))
        rows.append(compare(f"{name} zeros", w == 0, model.coef_ == 0, *ALLOWED["same choice"]))

    return report(rows)
# Try: add a copy of `bmi` to X. Which of the two does the lasso keep, and the elastic net?

# %% [markdown]
"""
## Logistic regression: how likely is class 1?

The sigmoid σ (sigma) squeezes any score between 0 and 1:

    p = σ(z) = 1 / (1 + exp(-z))                                                                (9)

The labels we saw should be likely: -log p where y = 1 and -log(1 - p) where y = 0 should be small.
Both are log(1 + exp(z)) - yz. With a price on w,

    J(w, b) = Σᵢ [log(1 + exp(zᵢ)) - yᵢzᵢ] + λ/2 ‖w‖²                                          (10)
    ∂J/∂w = Xᵀ(p - y) + λw               ∂J/∂b = Σᵢ (pᵢ - yᵢ)                                  (11)

No formula solves (11) = 0. Newton's method takes the parabola with the slope g and the curvature H
of J, jumps to its bottom, and does so again. It needs few steps:

    H = X1ᵀ diag(p(1 - p)) X1 + λI       θ ← θ - t H⁻¹g                                        (12)

with no λ for b. The share t is 1, unless J would rise: then it is halved until J falls. Each step
is least squares with weights p(1 - p). Without a price it can fail, and should: if a line separates
the classes, longer weights make every label likelier without end. No w is best, and we say so.
"""
# %%
def sigmoid(z):
    """Equation (9). Only exp(-|z|) is ever computed, so nothing can overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)

def logistic_loss(z, y):
    """The sum in (10), with log(1 + exp(z)) as max(z, 0) + log(1 + exp(-|z|))."""
    return np.sum(np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - y * z)

def newton(objective, slopes, theta, name, steps=100):
    """Minimise a convex J by (12). objective(theta) is J, slopes(theta) its g and H.
    Returns theta and the last full step, when g·H⁻¹g / 2, the expected gain, is rounding. Where H
    is singular the shortest step is taken. Boyd and Vandenberghe (2004), section 9.5."""
    J = objective(theta)
    for _ in range(steps):
        g, H = slopes(theta)
        s, V = np.linalg.eigh(H)
        real = s > len(s) * np.finfo(float).eps * s[-1]
        step, t = V[:, real] @ (V[:, real].T @ g / s[real]), 1.0
        while (J_new := objective(theta - t * step)) > J * (1 + 1e-12) and t > 1e-12:
            t /= 2
        theta, J = theta - t * step, J_new
        if g @ step <= 1e-18 * (1 + J):
            return theta, step
    warnings.warn(f"{name}: J could fall by {g @ step / 2:.1e} more", DidNotConverge, 3)
    return theta, step

def fit_logistic(X, y, l2):
    """Equation (10) by Newton: w (d,), b, for labels 0 and 1. l2 >= 0.
    Raises ValueError if l2 is 0 and the classes can be separated: then no w is best."""
    X, y = check_labels(X, y, classes=2)
    X1, price = add_ones(X), np.append(np.full(X.shape[1], check_number("l2", l2, least=0)), 0)
    def objective(theta):
        return logistic_loss(X1 @ theta, y) + theta @ (price * theta) / 2
    def slopes(theta):
        p = sigmoid(X1 @ theta)
        H = X1.T @ (X1 * (p * (1 - p))[:, None]) + np.diag(price)
        return X1.T @ (p - y) + price * theta, H  # equation (11)
    theta, step = newton(objective, slopes, np.zeros(X1.shape[1]), "logistic regression")
    rank = [np.linalg.matrix_rank(slopes(at)[1], hermitian=True) for at in (theta, 0 * theta)]
    gone = rank[0] < rank[1] and np.abs(X1 @ theta).max() > 30  # some p is exp(-30) off: J is flat
    if l2 == 0 and (gone or np.abs(X1 @ step).max() > 1e-3):  # or z moves as far as ever
        raise ValueError("l2 must be above 0 here: the classes can be separated, no w is best")
    return theta[:-1], theta[-1]

def fit_logistic_gd(X, y, l2, lr, steps):
    """Gradient descent on (10) / n, from zero: w (d,), b, and J / n before each step (steps,)."""
    X, y = check_labels(X, y, classes=2)
    X1, price = add_ones(X), np.append(np.full(X.shape[1], check_number("l2", l2, least=0)), 0)
    J = lambda theta: (logistic_loss(X1 @ theta, y) + theta @ (price * theta) / 2) / len(y)
    slope = lambda theta: (X1.T @ (sigmoid(X1 @ theta) - y) + price * theta) / len(y)
    return gradient_descent(J, slope, np.zeros(X1.shape[1]), lr, steps)

def predict_logistic(X, w, b):
    """Probability of class 1, (n,), from 0 to 1."""
    return sigmoid(predict_linear(X, w, b))

# %%
def sklearn_logistic(X, y, l2, solver="newton-cholesky"):
    """The library version: `C` = 1/λ, w is a row of `coef_`. At its default tol p is off by 4e-3
    in the demo; newton-cholesky takes steps (12). With k > 2 labels it is softmax regression."""
    from sklearn.linear_model import LogisticRegression
    C = 1 / l2 if l2 > 0 else np.inf
    return LogisticRegression(C=C, solver=solver, tol=1e-10, max_iter=10_000).fit(X, y)

def demo_logistic(plot=False):
    """Real data: Newton beside gradient descent, and how far to trust p on new rows."""
    from sklearn.datasets import load_breast_cancer
    print("\n== Logistic regression: is a tumour benign, from 30 measurements? ==\n")
    X, y = load_breast_cancer(return_X_y=True)
    X = scale(X, *fit_scaler(X))
    w, b = fit_logistic(X, y, l2=1.0)
    J = logistic_loss(X @ w + b, y) + w @ w / 2
    above = len(y) * fit_logistic_gd(X, y, 1.0, lr=0.3, steps=1001)[2] - J
    print(f"  Newton ends at J = {J:.3f}. Gradient descent is above that by {above[100]:.1f} after")
    print(f"  100 steps and {above[1000]:.2f} after 1000. For tumours kept out of the fit:\n")
    p = np.zeros(len(y))
    for train, test in stratified_k_fold(y, 5):
        p[test] = predict_logistic(X[test], *fit_logistic(X[train], y[train], l2=1.0))
    for low, high in [(0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1)]:
        inside = (p >= low) & (p <= high)
        print(f"  p {low:.1f} to {high:.1f}: {inside.sum():3} tumours, {y[inside].sum():3} benign")
    p, few, model = predict_logistic(X, w, b), X[:, :2], sklearn_logistic(X, y, 1.0)
    theirs, free = model.predict_proba(X)[:, 1], sklearn_logistic(few, y, 0)
    descent = fit_logistic_gd(few, y, 0, lr=1.0, steps=1000)[:2]
    rows = [compare("logistic p", p, theirs, *ALLOWED["logistic"])]
    rows += [compare_weights("logistic", w, b, model, "logistic")]
    rows += [compare_weights("logistic l2=0", *fit_logistic(few, y, 0), free, "logistic")]
    return report([*rows, compare_weights("gradient descent", *descent, free, "gradient descent")])
# Try: multiply X by 10 and leave l2 as it is. Does J rise or fall, and why?

# %% [markdown]
"""
## Softmax regression: which of k classes?

Every class gets weights of its own, column c of W (d, k), and its own intercept. The softmax turns
the k scores of an example into k probabilities that add up to 1:

    p_c = exp(z_c) / Σⱼ exp(zⱼ),         Z = XW + b                                            (13)
    J(W, b) = -Σᵢ log p_{i,yᵢ} + λ/2 ‖W‖²                                                      (14)
    ∂J/∂W = Xᵀ(P - Y) + λW               ∂J/∂b = Σᵢ (Pᵢ - Yᵢ)                                  (15)

Row i of Y is 1 at the true class and 0 elsewhere: (11) again. One number added to all k scores
changes no probability, so b is known up to a constant. For k = 2 only the difference of the columns
counts, and λ on W is λ/2 on that difference. Newton's H would have (dk)² entries. L-BFGS (limited-
memory BFGS) learns the curvature from its last ten steps, and asks for the gradient alone.
"""
# %%
def softmax(Z):
    """Equation (13), row by row. The largest score is taken off so that exp cannot overflow."""
    e = np.exp(Z - Z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

def minimize_lbfgs(loss_and_gradient, x, tol, steps):
    """x near the minimum, and the largest slope left there. Explained in optimization.py."""
    (loss, g), history = loss_and_gradient(x), []
    for _ in range(steps):
        if np.abs(g).max() <= tol:
            break
        q, shares = g.copy(), []
        for s, v in reversed(history):  # s: a step taken, v: the change of slope along it
            shares.append(s @ q / (s @ v))
            q -= shares[-1] * v
        s, v = history[-1] if history else (g / np.abs(g).sum(), g)  # so the first step is short
        q *= s @ v / (v @ v)
        for s, v in history:
            q += s * (shares.pop() - v @ q / (s @ v))
        t, slack = 1.0, 1e-14 * abs(loss)  # differences below that are rounding
        while (new := loss_and_gradient(x - t * q))[0] > loss + slack - 1e-4 * t * (g @ q):
            t /= 2  # Armijo: the loss must fall by a fair part of what the slope promises
            if t < 1e-12:
                return x, np.abs(g).max()
        s, v = -t * q, new[1] - g
        x, (loss, g) = x + s, new
        history = [*history, (s, v)][-10:] if s @ v > 0 else history
    return x, np.abs(g).max()

def fit_softmax(X, y, l2, steps=5000):
    """Equation (14) by L-BFGS: W (d, k), b (k,), for labels 0..k-1. l2 >= 0.
    Raises ValueError if l2 is 0 and the classes can be separated: then no W is best."""
    X, y = check_labels(X, y)
    check_number("l2", l2, least=0)
    (n, d), k, rows, mean = X.shape, y.max() + 1, np.arange(len(y)), X.mean(axis=0)
    X = X - mean  # b is free, so this changes b alone, and the valley is less long
    def loss_and_gradient(theta):
        W, b = theta[: d * k].reshape(d, k), theta[d * k :]
        P = softmax(X @ W + b)  # (n, d) @ (d, k) -> (n, k)
        loss = l2 / 2 * np.sum(W**2) - np.log(np.maximum(P[rows, y], 1e-300)).sum()
        P[rows, y] -= 1  # P - Y
        return loss, np.append(X.T @ P + l2 * W, P.sum(axis=0))  # equation (15)
    tol = 1e-8 * n * max(1, np.abs(X).max())  # slopes have the size of n rows of X
    theta, slope = minimize_lbfgs(loss_and_gradient, np.zeros(d * k + k), tol, steps)
    W, b = theta[: d * k].reshape(d, k), theta[d * k :]
    if l2 == 0 and np.all(np.argmax(X @ W + b, axis=1) == y):
        raise ValueError("l2 must be above 0 here: the classes can be separated, no W is best")
    if slope > tol:
        warnings.warn(f"softmax: slope {slope:.1e} left after {steps} steps", DidNotConverge, 2)
    return W, b - mean @ W

def predict_softmax(X, W, b):
    """Probability of each class, (n, k); each row adds up to 1."""
    W = check_array("W", W, ndim=2)
    return softmax(check_X(X, features=len(W)) @ W + b)

# %%
def demo_softmax(plot=False):
    """Real data: three kinds of iris, ten digits, and the digit that is hardest to name."""
    from sklearn.datasets import load_digits, load_iris
    print("\n== Softmax regression: which iris, which digit? ==\n")
    rows = []
    for name, data, unit in [("iris", load_iris(), 10), ("digits", load_digits(), 16)]:
        X, y = data.data / unit, data.target
        train, test = train_test_split(np.random.default_rng(0), len(y))
        W, b = fit_softmax(X[train], y[train], l2=0.1)
        P = predict_softmax(X[test], W, b)
        theirs = sklearn_logistic(X[train], y[train], 0.1).predict_proba(X[test])
        rows.append(compare(f"softmax P, {name}", P, theirs, *ALLOWED["softmax"]))
        print(f"  {name:6} W is {W.shape}; {likeliest_right(y[test], P):.3f} of new ones right")
    worst = P[np.arange(len(test)), y[test]].argmin()
    said, sure = P[worst].argmax(), P[worst].max()
    print(f"  Its worst mistake: it is {sure:.2f} sure that a {y[test][worst]} is a {said}")
    return report(rows)
# Try: set l2=1e-6 for the digits. What happens to the new ones, and why?

# %% [markdown]
"""
## Linear SVM: which line keeps its distance?

Logistic regression listens to every example for ever. A support vector machine does not once an
example is safe. With s = 2y - 1, which is -1 or +1, safe means s z ≥ 1:

    J(w, b) = ½(‖w‖² + b²) + C Σᵢ max(0, 1 - sᵢzᵢ)²                                            (16)

The lines z = -1 and z = 1 are 2/‖w‖ apart: a small ‖w‖ is a wide margin, and C the price of being
inside it. Only the set A of examples with s z < 1 counts, and on A, J is a sum of squares:

    g = θ - 2C X1_Aᵀ(s - z)_A            H = I + 2C X1_AᵀX1_A                                  (17)

Newton (12) is exact once A no longer changes, here after 2 to 8 steps. Penalising b is a flaw that
we copy from liblinear: it pulls the border to the origin. Centred columns help.
"""
# %%
def fit_linear_svm(X, y, C):
    """Equation (16) by Newton: w (d,), b, for labels 0 and 1; class 1 where z > 0. C > 0.
    Keerthi and DeCoste, A Modified Finite Newton Method (2005)."""
    X, y = check_labels(X, y, classes=2)
    check_number("C", C, above=0)
    X1, s = add_ones(X), 2.0 * y - 1
    def objective(theta):
        return theta @ theta / 2 + C * np.sum(np.maximum(0, 1 - s * (X1 @ theta)) ** 2)
    def slopes(theta):
        error = s - X1 @ theta
        A = s * error > 0  # s(s - z) = 1 - sz
        g = theta - 2 * C * X1[A].T @ error[A]
        return g, np.eye(len(theta)) + 2 * C * X1[A].T @ X1[A]  # equation (17)
    theta, _ = newton(objective, slopes, np.zeros(X1.shape[1]), "linear SVM")
    return theta[:-1], theta[-1]

# %%
def sklearn_linear_svm(X, y, C):
    """The library version: liblinear. Its default tol leaves z 5e-3 off at C = 10."""
    from sklearn.svm import LinearSVC
    return LinearSVC(C=C, dual=False, tol=1e-12, max_iter=100_000).fit(X, y)

def demo_linear_svm(plot=False):
    """Real data: the larger C, the fewer examples decide; moving the origin moves the border."""
    from sklearn.datasets import load_wine
    print("\n== Linear SVM: which of 178 wines decide where the border is? ==\n")
    data, rows = load_wine(), []
    X, y = scale(data.data, *fit_scaler(data.data)), (data.target == 1).astype(int)
    for C in [0.001, 0.1, 10]:
        w, b = fit_linear_svm(X, y, C)
        z, theirs = predict_linear(X, w, b), sklearn_linear_svm(X, y, C).decision_function(X)
        inside, wide = np.sum((2 * y - 1) * z < 1), 2 / np.linalg.norm(w)
        print(f"  C = {C:<5}  margin {wide:.2f} wide; {inside} wines in it or on the wrong side")
        rows.append(compare(f"linear SVM z, C={C}", z, theirs, *ALLOWED["linear svm"]))
    for shift in [0, 100]:
        w, b = fit_linear_svm(X[:, :1] + shift, y, 0.1)
        print(f"  alcohol alone, {shift} added to it: border at {-b / w[0] - shift:.2f}")
    return report(rows)
# Try: C=1000. Which way do the margin and the number inside go?

# %% [markdown]
"""
## Kernel SVM: what if no straight line will do?

Compare with examples instead of weighing features. A score is a sum of similarities,

    z(x) = Σᵢ βᵢ K(xᵢ, x) + b,           K(x, x') = exp(-γ‖x - x'‖²)                           (18)

with γ (gamma) for how fast similarity fades; K(x, x') = x·x' gives the straight line. With w a mix
of examples, the dual of ½‖w‖² + C Σᵢ max(0, 1 - sᵢzᵢ), in which b is free, is

    maximise Σᵢ sᵢβᵢ - ½ βᵀKβ            where Σᵢ βᵢ = 0 and 0 ≤ sᵢβᵢ ≤ C                      (19)
    its slope in βᵢ: gᵢ = sᵢ - Σⱼ Kᵢⱼβⱼ                                                        (20)

One β alone cannot move, since the sum must stay 0. Sequential minimal optimisation (SMO) moves two:
βᵢ up and βⱼ down by t. The best t is a formula,

    gain t(gᵢ - gⱼ) - ½t²c,       c = Kᵢᵢ + Kⱼⱼ - 2Kᵢⱼ,       t = (gᵢ - gⱼ) / c                (21)

cut short where a β meets its bound. Take the i with the largest g that may rise, and the j that
then gains most, until no pair gains: every β strictly between its bounds then has g = b. Examples
with β = 0 play no part; the others are the support vectors. K has n² entries: for small n only.
"""
# %%
class KernelSVM(NamedTuple):
    """A fitted (18): row numbers (m,), rows (m, d) and β (m,) of the support vectors, b, γ."""
    support: np.ndarray
    vectors: np.ndarray
    beta: np.ndarray
    b: float
    gamma: float | None

def kernel_matrix(A, B, gamma):
    """K (n, m) between the rows of A and B: equation (18), or dot products if gamma is None."""
    if gamma is None:
        return A @ B.T
    A, B = A - B.mean(axis=0), B - B.mean(axis=0)  # same distances; large means cost digits
    squares = np.sum(A**2, axis=1)[:, None] + np.sum(B**2, axis=1) - 2 * A @ B.T
    return np.exp(-gamma * np.maximum(squares, 0))

def smo(K, s, C, tol, steps):
    """Equation (19) for K (n, n) and s (n,) of -1 and +1: beta (n,) and b.
    Fan, Chen and Lin, Working Set Selection Using Second Order Information (2005)."""
    low, high, beta, g = np.minimum(0, C * s), np.maximum(0, C * s), np.zeros(len(s)), s.copy()
    c = np.maximum(np.add.outer(K.diagonal(), K.diagonal()) - 2 * K, 1e-12)  # of every pair
    top, bottom = np.where(beta < high, 0, np.inf), np.where(beta > low, 0, np.inf)  # inf: stuck
    for _ in range(steps):
        i = np.argmax(g - top)
        gap = g[i] - g - bottom
        if gap.max() <= tol:
            break
        j = np.argmax(np.maximum(gap, 0) ** 2 / c[i])  # twice the gain of equation (21)
        up, down = high[i] - beta[i], beta[j] - low[j]
        t = min(gap[j] / c[i, j], up, down)
        beta[i] = high[i] if t == up else beta[i] + t  # exactly at the bound
        beta[j] = low[j] if t == down else beta[j] - t
        top[i], bottom[j] = np.inf if t == up else 0, np.inf if t == down else 0
        top[j] = bottom[i] = 0
        g -= t * (K[i] - K[j])
    else:
        warnings.warn(f"SMO: slopes still differ by {gap.max():.1e}", DidNotConverge, 3)
    free = (beta > low) & (beta < high)
    b = g[free].mean() if free.any() else (g[beta < high].max() + g[beta > low].min()) / 2
    return beta, float(b)

def fit_kernel_svm(X, y, C, gamma, tol=1e-6, steps=1_000_000):
    """A KernelSVM for labels 0 and 1. C > 0; gamma > 0, or None for the linear kernel."""
    X, y = check_labels(X, y, classes=2)
    for name, value in [("C", C), ("tol", tol), ("gamma", 1 if gamma is None else gamma)]:
        check_number(name, value, above=0)
    beta, b = smo(kernel_matrix(X, X, gamma), 2.0 * y - 1, C, tol, steps)
    support = np.flatnonzero(beta)
    return KernelSVM(support, X[support], beta[support], b, gamma)

def predict_kernel_svm(X, model):
    """Scores z (n,), equation (18): class 1 where z > 0."""
    X = check_X(X, features=model.vectors.shape[1])
    return kernel_matrix(X, model.vectors, model.gamma) @ model.beta + model.b

# %%
def sklearn_kernel_svm(X, y, C, gamma, tol=1e-6):
    """The library version: libsvm, with β in `dual_coef_` and the row numbers in `support_`.
    It keeps K in float32, so z agrees to about six digits, and to fewer where C is large. Where C
    asks for many short steps, its compiled loop is up to three times as fast as ours."""
    from sklearn.svm import SVC
    kernel = dict(kernel="linear") if gamma is None else dict(kernel="rbf", gamma=gamma)
    return SVC(C=C, tol=tol, **kernel).fit(X, y)

def demo_kernel_svm(plot=False):
    """Two moons: a straight line fails, a small gamma bends, a huge one remembers."""
    print("\n== Kernel SVM: can it tell two moons apart? ==\n")
    (X, y), (new_X, new_y) = (make_moons(np.random.default_rng(i), 200, 0.15) for i in (0, 1))
    rows = []
    for name, C, gamma in [("gamma=2000", 10, 2000), ("linear", 1, None), ("gamma=2", 10, 2)]:
        model, library = fit_kernel_svm(X, y, C, gamma), sklearn_kernel_svm(X, y, C, gamma)
        z, theirs = predict_kernel_svm(X, model), np.sort(library.support_)
        old, new = accuracy(y, z > 0), accuracy(new_y, predict_kernel_svm(new_X, model) > 0)
        print(f"  {name:10} {len(theirs):3} support vectors, right {old:.3f}, on new {new:.3f}")
        rows += [compare(f"SVM z, {name}", z, library.decision_function(X), *ALLOWED["kernel svm"])]
        rows += [compare(f"SVM rows, {name}", model.support, theirs, *ALLOWED["same choice"])]
    x1, x2 = np.meshgrid(np.linspace(-1.6, 2.6, 60), np.linspace(1.5, -1, 12))
    z = predict_kernel_svm(np.column_stack([x1.ravel(), x2.ravel()]), model).reshape(12, 60)
    print("  gamma=2: # for class 1, . for class 0, blank inside the margin\n")
    for line in np.where(z > 1, "#", np.where(z < -1, ".", " ")):
        print("    " + "".join(line).rstrip())
    def draw(ax):
        ax.contourf(x1, x2, z, levels=[-9, -1, 0, 1, 9], cmap="RdBu", alpha=0.6)
        ax.scatter(*X.T, c=y, cmap="RdBu", edgecolors="k", s=18)
        ax.scatter(*model.vectors.T, s=70, facecolors="none", edgecolors="k")
        ax.set(xlabel="x1", ylabel="x2", title="gamma=2: margin, and support vectors circled")
    if plot:
        save_plot("linear_models_kernel_svm.png", draw)
    return report(rows)
# Try: gamma=0.01 with C=10. Which of the three rows does it resemble?

# %% [markdown]
"""
## Honest evaluation: how good will it be on data it has not seen?

A score on the training rows says how well a model remembers. So keep rows back; cross-validation
cuts the rows into folds, each being the test once. Whatever learns from data belongs
inside the folds: scaler, choice of features, choice of λ. What has seen the test rows leaks them.

    x' = (x - mean) / std,               both from the training rows, and kept for later       (22)

Accuracy misleads when one class is rare: with 10 % positives, "never" is right 90 % of the time.
Predict 1 where p ≥ t. For every t the ROC curve plots the share of positives found against the
share of negatives taken for one. The area under it (AUC) is the chance that a random positive gets
a higher p than a random negative. Costs choose t, if p can be trusted: with m for a miss and f for
a false alarm, predicting 1 pays where p m > (1 - p) f, so

    t = f / (f + m)                                                                            (23)
"""
# %%
def fit_scaler(X):
    """Mean and standard deviation of each column, (d,) each; std 1 for a constant column."""
    X = check_X(X)
    std = X.std(axis=0)
    return X.mean(axis=0), np.where(std > 1e-14 * np.abs(X).max(axis=0), std, 1.0)

def scale(X, mean, std):
    """Equation (22), (n, d) -> (n, d): a new array; mean and std come from fit_scaler."""
    return (check_X(X, features=len(mean)) - mean) / std

def cross_validate(X, y, folds, fit, predict, score):
    """A score per fold (train, test): fit(X, y), predict(X, *what fit returned), score(y, it)."""
    scores = []
    for train, test in folds:
        scaler = fit_scaler(X[train])
        parameters = fit(scale(X[train], *scaler), y[train])
        scores.append(score(y[test], predict(scale(X[test], *scaler), *parameters)))
    return np.array(scores)

def best_columns(X, y, k):
    """The k columns (k,) that follow y most closely: largest absolute correlation."""
    X, y = X - X.mean(axis=0), y - y.mean()
    return np.argsort(-np.abs(X.T @ y) / np.linalg.norm(X, axis=0), kind="stable")[:k]

def likeliest_right(y, P):
    """Accuracy when the likeliest class is predicted; P (n, k)."""
    return accuracy(y, P.argmax(axis=1))

# %%
def sklearn_evaluation(X, y, folds, model):
    """The library version, a score per fold: a pipeline is one estimator that contains its
    scaler, so `cross_val_score` fits the scaler inside each fold."""
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return cross_val_score(make_pipeline(StandardScaler(), model), X, y, cv=folds)

def demo_evaluation(plot=False):
    """Training score against test score as a model grows, and as l2 holds it back."""
    from sklearn.linear_model import Ridge
    print("\n== Honest evaluation: how many powers of x fit a wave of 40 noisy points? ==\n")
    rng, rows = np.random.default_rng(4), []
    x = rng.uniform(0, 1, size=40)
    y = np.sin(2 * np.pi * x) + 0.3 * rng.normal(size=40)
    folds = k_fold(40, 5, rng)
    print("  powers  l2        R2 in training  R2 in 5 folds")
    for degree, l2 in [(1, 0.0), (3, 0.0), (15, 0.0), (15, 0.01), (15, 100.0)]:
        X = x[:, None] ** np.arange(1, degree + 1)
        how = partial(fit_ridge, l2=l2), predict_linear, r2_score
        seen, new = (cross_validate(X, y, f, *how) for f in ([(range(40), range(40))], folds))
        print(f"  {degree:6}  {l2:<8g}  {seen[0]:14.2f}  {new.mean():13.2f}")
        if l2 > 0:
            theirs = sklearn_evaluation(X, y, folds, Ridge(alpha=l2))
            rows.append(compare(f"fold scores, l2={l2}", new, theirs, *ALLOWED["evaluation"]))
    return report(rows)

def demo_leakage(plot=False):
    """Coin flips and noise: nothing can be learned, and one of two scores looks good."""
    print("\n== Leakage: can 20 of 2000 columns of noise predict 100 coin flips? ==\n")
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 2000)), rng.permutation(100) % 2
    folds, kept = stratified_k_fold(y, 5), best_columns(X, y, 20)
    def score(columns, fold):
        fit = partial(fit_softmax, l2=1.0)
        return cross_validate(X[:, columns], y, [fold], fit, predict_softmax, likeliest_right)[0]
    leak = np.array([score(kept, fold) for fold in folds])
    honest = np.array([score(best_columns(X[fold[0]], y[fold[0]], 20), fold) for fold in folds])
    print(f"  columns chosen on all rows, then 5 folds:  {leak.mean():.2f} right")
    print(f"  columns chosen inside each fold:           {honest.mean():.2f} right")
    half = sklearn_logistic(X[:, kept], y, 0.5)  # two classes: l2 / 2 on the difference
    theirs = sklearn_evaluation(X[:, kept], y, folds, half)
    return report([compare("fold scores that leak", leak, theirs, *ALLOWED["evaluation"])])

def demo_threshold(plot=False):
    """Real data, one class rare: the threshold that costs least is not 0.5."""
    from sklearn.datasets import load_digits
    from sklearn.metrics import roc_auc_score
    print("\n== Threshold: is it an 8? One in ten is. A miss costs 10, a false alarm 1 ==\n")
    X, y = load_digits(return_X_y=True)
    X, y = X / 16, (y == 8).astype(int)
    train, test = train_test_split(np.random.default_rng(0), len(y), test_size=0.5)
    p, y = predict_logistic(X[test], *fit_logistic(X[train], y[train], l2=0.1)), y[test]
    print("  predict 1     right  8s found  false alarms   cost")
    for t in [np.inf, 0.5, 1 / 11, 0.01]:
        found, alarms = np.sum((p >= t) & (y == 1)), np.sum((p >= t) & (y == 0))
        right, cost = accuracy(y, p >= t), 10 * (y.sum() - found) + alarms
        print(f"  p >= {t:<7.3f}  {right:.3f}  {found:4}/{y.sum()}  {alarms:12}  {cost:5}")
    fpr, tpr, _ = roc_curve(y, p)
    def draw(ax):
        ax.plot(fpr, tpr)
        ax.set(xlabel="false alarms / not 8", ylabel="8s found / all 8s", title="Is it an 8?")
    if plot:
        save_plot("linear_models_roc.png", draw)
    pair = roc_auc(y, p), roc_auc_score(y, p)
    return report([compare("area under ROC", *pair, *ALLOWED["evaluation"])])
# Try: give demo_leakage 1000 coin flips instead of 100. Which of the two scores moves?

# %% [markdown]
"""
### Your own table

`python linear_models.py --csv FILE --target COLUMN` fits ridge to your file, and softmax if the
target is text or has at most ten different numbers. A quarter of the rows is kept back; medians for
missing numbers, categories, scaler and λ come from the rest.
"""
# %%
def encode_table(columns, train):
    """{name: column (n,)} as X (n, d) and its names. Learns from the train rows alone: medians,
    which columns have gaps, and the 20 most frequent values of a text, a 0/1 column each."""
    encoded = {}
    for name, column in columns.items():
        if column.dtype.kind == "f":
            missing = np.isnan(column)
            known = column[train][~missing[train]]
            encoded[name] = np.where(missing, np.median(known) if len(known) else 0.0, column)
            if missing[train].any():
                encoded[f"{name} is missing"] = missing * 1.0
        else:
            values, counts = np.unique(column[train], return_counts=True)
            for value in values[np.argsort(-counts, kind="stable")][:20]:
                encoded[f"{name} = {value or 'missing'}"] = (column == value) * 1.0
    return np.column_stack(list(encoded.values())), list(encoded)

def evaluate_table(path, target, plot=False):
    """From a CSV file to a score on rows that nothing has seen, scikit-learn beside it."""
    columns, y, labels = read_table(path, target)
    if labels is None:
        train, test = train_test_split(np.random.default_rng(0), len(y))
        fit, predict, score, name = fit_ridge, predict_linear, r2_score, "R2"
        folds, constant = k_fold(len(train), 5), np.full(len(test), y[train].mean())
    else:
        train, test = stratified_k_fold(y, 4)[0]
        fit, predict, score, name = fit_softmax, predict_softmax, likeliest_right, "accuracy"
        folds, share = stratified_k_fold(y[train], 5), np.bincount(y[train]) / len(train)
        constant = np.tile(share, (len(test), 1))
    X, names = encode_table(columns, train)
    def mean_score(l2):
        return cross_validate(X[train], y[train], folds, partial(fit, l2=l2), predict, score).mean()
    l2 = max([0.01, 0.1, 1.0, 10.0, 100.0], key=mean_score)
    X_train, X_test = (scale(X[rows], *fit_scaler(X[train])) for rows in (train, test))
    ours, known = predict(X_test, *fit(X_train, y[train], l2)), y[test]
    print(f"{path}: {len(y)} rows, {len(names)} features; {name} on {len(test)} rows kept back:\n")
    print(f"  {score(known, constant):6.3f}  the same answer for all")
    print(f"  {score(known, ours):6.3f}  l2={l2:g}, the best of five in 5 folds of the other rows")
    if labels is None:
        model = sklearn_ridge(X_train, y[train], l2)
        return report([compare("predictions", ours, model.predict(X_test), *ALLOWED["ridge"])])
    if len(labels) == 2:
        l2, p = l2 / 2, ours[:, 1]  # the price on the difference of two columns
        print(f"  {roc_auc(known, p):6.3f}  area under the ROC curve, {labels[1]} being positive")
        for t in [0.5, share[1]]:
            found, alarms = np.sum((p >= t) & (known == 1)), np.sum((p >= t) & (known == 0))
            print(f"  p >= {t:.2f} finds {found} of {known.sum()}, with {alarms} false alarms")
    theirs = sklearn_logistic(X_train, y[train], l2).predict_proba(X_test)
    return report([compare("probabilities", ours, theirs, *ALLOWED["softmax"])])

# %%
if __name__ == "__main__":
    demos = [demo_linear_regression, demo_ridge, demo_lasso, demo_logistic, demo_softmax]
    demos += [demo_linear_svm, demo_kernel_svm, demo_evaluation, demo_leakage, demo_threshold]
    run_chapter("Linear models, from scratch and in scikit-learn.", demos, evaluate_table)

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "scikit-learn", "matplotlib"]
# ///
