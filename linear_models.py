# %% [markdown]
"""
# Linear models: how far does a weighted sum go?

A linear model gives every feature a weight and adds up: z = w₁x₁ + ... + w_d x_d + b. What it does
with the score z, and which weights it calls good, makes eight methods out of one formula.

Run `python linear_models.py`, or a part: `python linear_models.py ridge lasso`. Fitting needs
numpy alone; functions called `sklearn_...` are the library version, for the demos to compare.

    n, d, k   number of examples, of features, of classes
    X         features, one example per row                          (n, d)
    y         targets: real numbers, or labels 0, 1, ..., k-1        (n,)
    w, b      weights and intercept, which the models learn          (d,) and ()
    θ         theta: w and b as one vector, for X with a last column of ones: `X1`
    z         scores z = Xw + b = X1 θ, one per example              (n,)
    r         residuals r = y - z, what the model gets wrong         (n,)
    J, g, H   the objective to make small, its slopes ∂J/∂θⱼ when θⱼ alone moves, the slopes of g
    λ, η      lambda, the price of large weights: `l2`, `l1`; eta, the size of a step: `lr`
    ‖v‖², ‖v‖₁   the sum of vⱼ², and the sum of |vⱼ|
"""
# %%
import warnings
from collections import namedtuple
from functools import partial

import numpy as np

from utils import DidNotConverge, accuracy, check_array, check_labels, check_number, check_X
from utils import check_Xy, compare, confusion_matrix, k_fold, log_loss, make_moons, r2_score
from utils import read_table, report, roc_auc, run_chapter, save_plot, stratified_k_fold
from utils import train_test_split

ALLOWED = {  # how close scratch and library must be, relative to max(1, largest number), and why
    "linear regression": (1e-10, "two direct solvers: where cond < 1e5 only rounding differs"),
    "gradient descent": (1e-6, "enough steps for six digits in the slowest direction"),
    "ridge": (1e-10, "two direct solvers: only rounding differs"),
    "lasso": (1e-6, "both stop at a small duality gap, about the square of the error"),
    "logistic": (1e-6, "both iterate until J is flat"),
    "softmax": (1e-5, "both iterate; compared by P, since b is known up to a constant only"),
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
b, on X and y with their means taken out. Its slopes -2Xᵀr are zero where XᵀX w = Xᵀy, the normal
equations. Do not solve those: the condition number κ (kappa, `cond`) says how much an error can
grow on its way from the data to w, and XᵀX has κ², which loses twice as many digits. X = QR, with
QᵀQ = I and R triangular, loses no more than κ does, since Q keeps lengths:

    ‖y - Xw‖² = ‖Qᵀy - Rw‖² + a rest that no w can change                                      (2)

The small R also tells how many directions the data have. R = USVᵀ (turn, stretch by the singular
values s, turn): where an s is below rounding, many w fit equally well, and we return the shortest.

**When it fails.** One wild point counts with its square and drags the line along. With no more
points than weights, b being one, the line passes through all of them, noise included.

### Gradient descent, for when there is no formula

Walk downhill. Half the mean of the squares has the same minimum, and one step size fits any n:

    J(θ) = ‖y - X1 θ‖² / 2n              g = -X1ᵀr / n               θ ← θ - ηg                 (3)

Where J curves most it is L/2 times a square: L is the largest eigenvalue of X1ᵀX1 / n. There a step
multiplies the error by 1 - ηL. The walk converges if η < 2/L; above, the error grows for ever.
**When it fails.** Where J curves 1000 times less, ten digits take some 10,000 steps.
"""
# %%
def solve_least_squares(A, r):
    """The shortest w (d,) that minimises ‖r - Aw‖², for A (n, d) of any shape and rank.
    Equation (2), on columns of one size, so that small ones keep their digits. The last column
    of R, with [A r] factored as one, is Qᵀr. Golub and Van Loan (2013), chapter 5."""
    table = np.column_stack([A, r])
    size = np.maximum(table.max(axis=0), -table.min(axis=0))  # the largest |value| in each column
    size[size == 0] = 1
    table /= size
    R = np.linalg.qr(table, mode="r")
    U, s, Vt = np.linalg.svd(R[:, :-1])
    rank = np.sum(s > sum(A.shape) * np.finfo(float).eps * s[0])
    unit = size[:-1] / size[-1]  # w is 1 / unit times the weights of the scaled columns
    w = Vt[:rank].T @ (U[:, :rank].T @ R[:, -1] / s[:rank]) / unit
    # The other rows of Vt change no prediction: w is shortest without any part along them.
    free = np.linalg.qr(Vt[rank:].T / unit[:, None])[0]
    return w - free @ (free.T @ w)

def fit_linear_regression(X, y):
    """Least squares with an intercept, equation (1): w (d,), b. The shortest w if many fit."""
    X, y = check_Xy(X, y)
    mean = X.mean(axis=0)
    w = solve_least_squares(X - mean, y - y.mean())
    return w, y.mean() - mean @ w

def step_bound(X):
    """2/L: gradient descent on (3) converges for each lr below it and for none above."""
    return 2 * len(X) / np.linalg.norm(add_ones(check_X(X)), ord=2) ** 2  # largest singular value

def gradient_descent(J, g, theta, lr, steps):
    """theta ← theta - lr * g(theta): w (d,), b, and J(theta) before each step (steps,)."""
    check_number("lr", lr, above=0)
    check_number("steps", steps, least=0, integer=True)
    losses = []
    for _ in range(steps):
        with np.errstate(over="ignore"):  # an explosion is reported in words, below
            losses.append(J(theta))
        if losses[-1] > 1e12 * losses[0]:
            raise ValueError(f"lr must be below the step bound, not {lr}: the objective explodes")
        theta = theta - lr * g(theta)
    return theta[:-1], theta[-1], np.array(losses)

def fit_linear_regression_gd(X, y, lr, steps):
    """Equation (3) from zero: w (d,), b, losses (steps,). Explodes if lr > step_bound(X)."""
    X, y = check_Xy(X, y)
    X1 = add_ones(X)
    J = lambda theta: np.sum((y - X1 @ theta) ** 2) / (2 * len(y))
    g = lambda theta: X1.T @ (X1 @ theta - y) / len(y)
    return gradient_descent(J, g, np.zeros(X1.shape[1]), lr, steps)

# %%
def sklearn_linear_regression(X, y, tol=1e-14):
    """The library version: w in `coef_`, b in `intercept_`. Since version 1.9 its default tol=1e-6
    drops directions below a millionth of the largest; w of x, ..., x⁷ over 0 to 10 is then lost."""
    from sklearn.linear_model import LinearRegression
    return LinearRegression(tol=tol).fit(X, y)

def demo_linear_regression(plot=False):
    """Five points and a line; gradient descent at its bound; powers of x."""
    print("== Linear regression: what does an hour of study add to a score? ==\n")
    X, y = np.array([[1.0], [2], [3], [4], [5]]), np.array([52.0, 55, 61, 64, 68])
    w, b = fit_linear_regression(X, y)
    print(f"  w = {w[0]:.2f}, b = {b:.2f}: line {predict_linear(X, w, b).round(1)}, scores {y}")
    for share in [0.99, 1.01]:
        *_, J = fit_linear_regression_gd(X, y, share * step_bound(X), 400)
        print(f"  lr = {share} of the bound {step_bound(X):.3f}: J goes {J[0]:.0f} -> {J[-1]:.2g}")
    model = sklearn_linear_regression(X, y)
    rows = [compare_weights("linear regression", w, b, model, "linear regression")]
    w, b, _ = fit_linear_regression_gd(X, y, 0.9 * step_bound(X), 1500)
    rows.append(compare_weights("gradient descent", w, b, model, "gradient descent"))
    true = np.arange(1.0, 8)
    X = np.linspace(0, 10, 40)[:, None] ** true  # x, x^2, ..., x^7, with weights 1, ..., 7
    found = [fit_linear_regression(X, X @ true)[0]]
    found += [sklearn_linear_regression(X, X @ true, tol).coef_ for tol in [1e-6, 1e-14]]
    for name, w in zip(["scratch", "library, tol=1e-6", "library, tol=1e-14"], found):
        print(f"  x, ..., x^7 over 0 to 10: w is off by {np.abs(w - true).max():.0e}, {name}")
    return report(rows)
# Try: subtract 3 from every X. The slope stays; what happens to b, and to the step bound?

# %% [markdown]
"""
## Ridge: what if the data leave the weights undecided?

Of two features that nearly repeat each other the data decide the sum of the weights, but hardly
the difference. Least squares then fits the noise, with huge weights of opposite sign; so it does
with more features than examples. Ridge puts a price on size:

    J(w, b) = ‖y - Xw - b‖² + λ‖w‖²                                                             (4)
    (XᵀX + λI) w = Xᵀy,                  the means taken out of X and y                         (5)

A direction in which the data have singular value s is multiplied by s² / (s² + λ): strong ones
hardly shrink, weak ones almost to zero. That is a systematic error (bias), accepted for less
scatter (variance). λ also brings κ down, so that XᵀX is good enough here.

**What people get wrong.** The intercept must stay free, else the fit would depend on where a
thermometer has its zero. And prices depend on units: per kilometre a weight is 1000 times what it
is per metre, its price a million times. Scale the columns first.
**When it fails.** Every feature keeps a weight, even where only a few matter.
"""
# %%
def centred_gram(X, y, rows=512):
    """XᵀX (d, d) and Xᵀy (d,) with the means taken out, and mean(X), by blocks that fit in the
    cache. XᵀX - n mean meanᵀ would be faster, and lose the digits that a large mean takes up."""
    mean, r = X.mean(axis=0), y - y.mean()
    gram, moment = 0.0, 0.0
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
    gram = gram + l2 * np.eye(len(mean))
    if np.linalg.cond(gram) < 1e6:
        w = np.linalg.solve(gram, moment)
    else:  # λ is too small to help: (4) is least squares with d more rows √λ I, target 0
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
    rng = np.random.default_rng(0)
    warmth = rng.normal(size=30)
    X = np.column_stack([warmth, warmth + 0.001 * rng.normal(size=30)])
    y = 1 + 2 * warmth + 0.1 * rng.normal(size=30)
    rows = []
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

λ₁ alone is the lasso, with λ₂ it is the elastic net. J has a corner at wⱼ = 0, hence no gradient to
follow, but one coordinate at a time is easy. On centred columns let ρⱼ = xⱼ·r/n + (xⱼ·xⱼ/n) wⱼ
(rho) be the pull of the data on wⱼ when it starts from zero. The best wⱼ, the others fixed, is then

    wⱼ ← sign(ρⱼ) max(|ρⱼ| - λ₁, 0) / (xⱼ·xⱼ/n + λ₂)                                            (7)

Sweep over the columns again and again. A small step does not prove that we are done, but a bound
does: shrink r by s until no feature pulls harder than λ₁. That gives a D that J cannot get below,
and J - D, the duality gap, is what is left to win, at most:

    D = s r·y/n - s² (r·r/n + λ₂‖w‖²) / 2,        s = min(1, λ₁ / maxⱼ |xⱼ·r/n - λ₂wⱼ|)         (8)

**When it fails.** Of near twins the lasso keeps the one that the noise favours; the elastic net
keeps both. **What people get wrong.** A zero weight is no proof that a feature has no effect.
"""
# %%
def soft_threshold(rho, l1):
    """Numerator of equation (7): move rho towards 0 by l1, and stop there."""
    return max(rho - l1, 0.0) + min(rho + l1, 0.0)

def duality_gap(w, slope, moment, yy, l1, l2):
    """J - D by (6) and (8). slope = Xᵀr/n, moment = Xᵀy/n (d,), yy = y·y/n, all centred."""
    ry = yy - w @ moment
    rr = ry - w @ slope  # r·r = r·y - r·Xw
    s = l1 / max(np.abs(slope - l2 * w).max(), l1)
    J = rr / 2 + l1 * np.abs(w).sum() + l2 / 2 * w @ w
    D = s * ry - s**2 * (rr + l2 * w @ w) / 2
    return J - D

def fit_lasso(X, y, l1, l2=0.0, tol=1e-12, sweeps=20_000):
    """Equation (6) by coordinate descent: w (d,), b. l1 > 0, l2 >= 0; gap <= tol * y·y/n. Nine
    sweeps of ten visit the nonzero weights alone. Friedman, Hastie and Tibshirani (2010)."""
    X, y = check_Xy(X, y)
    check_number("l1", l1, above=0)
    check_number("l2", l2, least=0)
    gram, moment, mean = centred_gram(X, y)
    gram, moment = gram / len(y), moment / len(y)
    yy = np.mean((y - y.mean()) ** 2)
    rows = list(gram)  # lists are faster where numbers are taken one at a time
    square = np.maximum(gram.diagonal(), 1e-300).tolist()  # a constant column keeps weight 0
    w, slope = [0.0] * len(mean), moment.copy()
    for sweep in range(sweeps):
        active = range(len(w)) if sweep % 10 == 0 else np.flatnonzero(w)
        for j in active:
            rho = float(slope[j]) + square[j] * w[j]
            new = soft_threshold(rho, l1) / (square[j] + l2)  # equation (7)
            if new != w[j]:
                slope -= (new - w[j]) * rows[j]  # Xᵀr/n, through XᵀX: costs d, not n
                w[j] = new
        gap = duality_gap(np.array(w), slope, moment, yy, l1, l2)
        if gap <= tol * yy:
            break
    else:
        warnings.warn(f"lasso: duality gap {gap:.1e} after {sweeps} sweeps", DidNotConverge, 2)
    return np.array(w), y.mean() - mean @ w

# %%
def sklearn_lasso(X, y, l1, l2=0.0):
    """The library version: `ElasticNet` divides the squares by 2n as in (6), `Ridge` does not. One
    `alpha` = λ₁ + λ₂ is split by `l1_ratio` = λ₁ / alpha; at l1_ratio=1 it is `Lasso(alpha=λ₁)`."""
    from sklearn.linear_model import ElasticNet
    return ElasticNet(alpha=l1 + l2, l1_ratio=l1 / (l1 + l2), tol=1e-12, max_iter=10**5).fit(X, y)

def demo_lasso(plot=False):
    """Real data: at which price does each of ten measurements drop out?"""
    from sklearn.datasets import load_diabetes
    print("\n== Lasso: which of ten measurements predict the course of diabetes? ==\n")
    data = load_diabetes()
    X, y = scale(data.data, *fit_scaler(data.data)), data.target  # (22): mean 0, spread 1
    for l1, l2 in [(30, 0), (10, 0), (3, 0), (1, 0), (1, 0.5)]:
        w, _ = fit_lasso(X, y, l1, l2)
        kept = [data.feature_names[j] for j in np.argsort(-np.abs(w)) if w[j] != 0]
        print(f"  l1 = {l1:<2}  l2 = {l2:<3}  keeps {len(kept)}, largest first: {' '.join(kept)}")
    rows = []
    for name, l1, l2 in [("lasso", 3, 0.0), ("elastic net", 1, 0.5)]:
        w, b = fit_lasso(X, y, l1, l2)
        model = sklearn_lasso(X, y, l1, l2)
        rows.append(compare_weights(name, w, b, model, "lasso"))
        rows.append(compare(f"{name} zeros", w == 0, model.coef_ == 0, *ALLOWED["same choice"]))
    return report(rows)
# Try: l1 = 50 as well. If no feature is kept, what does (7) say about every ρ?

# %% [markdown]
"""
## Logistic regression: how likely is class 1?

The sigmoid σ (sigma) squeezes any score between 0 and 1:

    p = σ(z) = 1 / (1 + exp(-z))                                                                (9)

The labels we saw should be likely: -log p where y = 1 and -log(1 - p) where y = 0 should be small.
Both are log(1 + exp(z)) - yz, whose slope in z is p - y. With a price on w,

    J(w, b) = Σᵢ [log(1 + exp(zᵢ)) - yᵢzᵢ] + λ/2 ‖w‖²                                          (10)
    ∂J/∂w = Xᵀ(p - y) + λw               ∂J/∂b = Σᵢ (pᵢ - yᵢ)                                  (11)

No formula solves (11) = 0. Newton's method takes the parabola with the slopes g and the curvatures
H of J, jumps to its bottom, and does so again. The slope of p in z is p(1 - p), so

    H = X1ᵀ diag(p(1 - p)) X1 + λI       θ ← θ - t H⁻¹g                                        (12)

with no λ for b. The share t is 1, unless J would rise: then it is halved until J does not.

**When it fails.** If a line separates the classes, longer weights make every label likelier without
end; a rare 0/1 column that comes with one class alone is enough. Without a price no w is best then.
`fit_logistic` reports it if the rows whose p is not yet certain are too few to decide all weights.
"""
# %%
def sigmoid(z):
    """Equation (9), p = exp(-log(1 + exp(-z))). logaddexp(0, z) is log(1 + exp(z)) for any z."""
    return np.exp(-np.logaddexp(0, -z))

def logistic_loss(z, y):
    """The sum in (10)."""
    return np.sum(np.logaddexp(0, z) - y * z)

def newton(J, slopes, theta, name, steps=100):
    """Minimise a convex J >= 0 by (12) until the expected gain, g·H⁻¹g / 2, is rounding. slopes
    gives g and H. H is scaled to a diagonal of ones; where it still is 0 no step is taken."""
    loss = J(theta)
    for _ in range(steps):
        g, H = slopes(theta)
        size = np.sqrt(np.maximum(H.diagonal(), 1e-300))
        s, V = np.linalg.eigh(H / np.outer(size, size))  # the scaled H is V diag(s) Vᵀ
        real = s > len(s) * np.finfo(float).eps * s[-1]
        step = V[:, real] @ (V[:, real].T @ (g / size) / s[real]) / size  # H⁻¹g
        t = 1.0
        while (new := J(theta - t * step)) > loss + 1e-14 * (1 + loss):
            t /= 2
        theta, loss = theta - t * step, new
        if g @ step <= 1e-14 * (1 + loss):
            break
    else:
        warnings.warn(f"{name}: J could fall by {g @ step / 2:.1e} more", DidNotConverge, 3)
    return theta

def fit_logistic(X, y, l2):
    """Equation (10) by Newton: w (d,), b, for labels 0 and 1. l2 >= 0.
    Raises ValueError if l2 is 0 and the classes can be separated: then no w is best."""
    X, y = check_labels(X, y, classes=2)
    check_number("l2", l2, least=0)
    X1 = add_ones(X)
    price = np.append(np.full(X.shape[1], l2), 0)  # b is free
    J = lambda theta: logistic_loss(X1 @ theta, y) + theta @ (price * theta) / 2
    def slopes(theta):
        p = sigmoid(X1 @ theta)
        H = X1.T @ (X1 * (p * (1 - p))[:, None]) + np.diag(price)
        return X1.T @ (p - y) + price * theta, H  # equation (11)
    theta = newton(J, slopes, np.zeros(X1.shape[1]), "logistic regression")
    certain = np.abs(sigmoid(X1 @ theta) - y)[:, None] < 1e-8
    rank = np.linalg.matrix_rank  # how many weights the rows decide
    if l2 == 0 and certain.any() and rank(X1 * ~certain) < rank(X1):
        raise ValueError("l2 must be above 0 here: the classes can be separated, no w is best")
    return theta[:-1], theta[-1]

def predict_logistic(X, w, b):
    """Probability of class 1, (n,), from 0 to 1."""
    return sigmoid(predict_linear(X, w, b))

# %%
def sklearn_logistic(X, y, l2):
    """The library version: `C` = 1/λ, w is a row of `coef_`. At its default tol p is off by 4e-3
    in the demo; newton-cholesky takes steps (12). With k > 2 labels it is softmax regression."""
    from sklearn.linear_model import LogisticRegression
    C = 1 / l2 if l2 > 0 else np.inf
    return LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(X, y)

def demo_logistic(plot=False):
    """Real data: Newton beside gradient descent, without a price and with one."""
    from sklearn.datasets import load_breast_cancer
    print("\n== Logistic regression: is a tumour benign, from 30 measurements? ==\n")
    X, y = load_breast_cancer(return_X_y=True)
    X = scale(X, *fit_scaler(X))
    few = X[:, :2]  # in two measurements the classes overlap, so that no price is needed
    X1 = add_ones(few)
    J = lambda theta: logistic_loss(X1 @ theta, y)
    g = lambda theta: X1.T @ (sigmoid(X1 @ theta) - y)
    w, b, losses = gradient_descent(J, g, np.zeros(3), lr=0.002, steps=1200)
    model = sklearn_logistic(few, y, l2=0)
    rows = [compare_weights("gradient descent", w, b, model, "gradient descent")]
    w, b = fit_logistic(few, y, l2=0)
    rows.append(compare_weights("logistic l2=0", w, b, model, "logistic"))
    print(f"  2 of them: 100 steps of descent end {losses[100] - J(np.append(w, b)):.2f} too high")
    w, b = fit_logistic(X, y, l2=1.0)
    print(f"  all 30, with a price of l2=1: {accuracy(y, X @ w + b > 0):.3f} right")
    model = sklearn_logistic(X, y, l2=1.0)
    rows.append(compare_weights("logistic", w, b, model, "logistic"))
    p, theirs = predict_logistic(X, w, b), model.predict_proba(X)[:, 1]
    return report([*rows, compare("logistic p", p, theirs, *ALLOWED["logistic"])])
# Try: l2=0 on all 30 measurements. Which sentence of the text does the error repeat?

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

**When it fails.** With a small λ it can be quite sure of a mistake. On new rows the log loss, the
mean of -log p_{i,yᵢ}, shows that; the share of right answers hardly does.
"""
# %%
def softmax(Z):
    """Equation (13), row by row. The largest score is taken off so that exp cannot overflow."""
    e = np.exp(Z - Z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

def minimize_lbfgs(loss_and_gradient, x, tol, steps):
    """x near the minimum, and the largest slope left there. Explained in optimization.py."""
    loss, g = loss_and_gradient(x)
    pairs = []  # the last ten steps s, each with v, the change of g along it
    scale = 1 / (1 + np.abs(g).sum())  # so that the first step is short
    for _ in range(steps):
        if np.abs(g).max() <= tol:
            break
        p, shares = -g, []
        for s, v in reversed(pairs):
            shares.append(s @ p / (s @ v))
            p = p - shares[-1] * v
        p = scale * p
        for s, v in pairs:
            p = p + s * (shares.pop() - v @ p / (s @ v))
        t = 1.0
        while (new := loss_and_gradient(x + t * p))[0] > loss + 1e-14 * abs(loss):
            t /= 2
        s, v = t * p, new[1] - g
        if s @ v > 0:
            pairs = [*pairs, (s, v)][-10:]
            scale = s @ v / (v @ v)
        x = x + s
        loss, g = new
    return x, np.abs(g).max()

def fit_softmax(X, y, l2, steps=5000):
    """Equation (14) by L-BFGS: W (d, k), b (k,), for labels 0..k-1. l2 >= 0.
    Raises ValueError if l2 is 0 and W gets every row right: a longer W is better still."""
    X, y = check_labels(X, y)
    check_number("l2", l2, least=0)
    X1 = add_ones(X - X.mean(axis=0))  # moves b alone, as b is free, and rounds the valley
    n, k = len(y), y.max() + 1
    true = np.arange(n), y  # where P holds the p of the true classes
    price = np.append(np.full(X.shape[1], l2), 0)[:, None]  # for each row of [W, b]
    def loss_and_gradient(theta):
        Wb = theta.reshape(-1, k)
        P = softmax(X1 @ Wb)  # (n, d + 1) @ (d + 1, k) -> (n, k)
        loss = np.sum(price * Wb**2) / 2 - np.log(np.maximum(P[true], 1e-300)).sum()
        P[true] -= 1  # P - Y
        return loss, (X1.T @ P + price * Wb).ravel()  # equation (15)
    tol = 1e-10 * n * np.abs(X1).max()  # slopes have the size of n rows of X
    theta, slope = minimize_lbfgs(loss_and_gradient, np.zeros(X1.shape[1] * k), tol, steps)
    Wb = theta.reshape(-1, k)
    if l2 == 0 and np.all(np.argmax(X1 @ Wb, axis=1) == y):
        raise ValueError("l2 must be above 0 here: the classes can be separated, no W is best")
    if slope > tol:
        warnings.warn(f"softmax: slope {slope:.1e} left after {steps} steps", DidNotConverge, 2)
    return Wb[:-1], Wb[-1] - X.mean(axis=0) @ Wb[:-1]

def predict_softmax(X, W, b):
    """Probability of each class, (n, k); each row adds up to 1."""
    W = check_array("W", W, ndim=2)
    return softmax(check_X(X, features=len(W)) @ W + b)

# %%
def demo_softmax(plot=False):
    """Real data: three kinds of iris, ten digits, and what the hardest digit is taken for."""
    from sklearn.datasets import load_digits, load_iris
    print("\n== Softmax regression: which iris, which digit? ==\n")
    rows = []
    for name, data, top, l2 in [("iris", load_iris(), 10, 0.1), ("digits", load_digits(), 16, 0.1)]:
        X, y = data.data / top, data.target
        train, test = train_test_split(np.random.default_rng(0), len(y))
        W, b = fit_softmax(X[train], y[train], l2)
        P = predict_softmax(X[test], W, b)
        right, loss = likeliest_right(y[test], P), log_loss(y[test], P)
        print(f"  {name:6} W is {W.shape}; {right:.3f} of new ones right, log loss {loss:.3f}")
        theirs = sklearn_logistic(X[train], y[train], l2).predict_proba(X[test])
        rows.append(compare(f"softmax P, {name}", P, theirs, *ALLOWED["softmax"]))
    table = confusion_matrix(y[test], P.argmax(axis=1))  # row: the digit, column: the answer
    hard = np.argmin(table.diagonal() / table.sum(axis=1))
    print(f"  The hardest digit is {hard}. How often it was taken for 0 to 9: {table[hard]}")
    return report(rows)
# Try: l2=0.001 for the digits. How do the share of right ones and the log loss change?

# %% [markdown]
"""
## Linear SVM: which line keeps its distance?

Logistic regression listens to every example for ever. A support vector machine does not once an
example is safe. With s = 2y - 1, which is -1 or +1, safe means s z ≥ 1:

    J(w, b) = ½(‖w‖² + b²) + C Σᵢ max(0, 1 - sᵢzᵢ)²                                            (16)

The lines z = -1 and z = 1 are 2/‖w‖ apart: a small ‖w‖ is a wide margin, and C the price of being
inside it. Only the set A of examples with s z < 1 counts. There (1 - s z)² = (s - z)², as s² = 1:

    g = θ - 2C X1_Aᵀ(s - z)_A            H = I + 2C X1_AᵀX1_A                                  (17)

Newton (12) is exact once A no longer changes, here after 2 to 8 steps.
**When it fails.** Penalising b, a flaw that we copy from liblinear, pulls the border to the origin.
"""
# %%
def fit_linear_svm(X, y, C):
    """Equation (16) by Newton: w (d,), b, for labels 0 and 1; class 1 where z > 0. C > 0.
    Keerthi and DeCoste, A Modified Finite Newton Method (2005)."""
    X, y = check_labels(X, y, classes=2)
    check_number("C", C, above=0)
    X1, s = add_ones(X), 2.0 * y - 1
    J = lambda theta: theta @ theta / 2 + C * np.sum(np.maximum(0, 1 - s * (X1 @ theta)) ** 2)
    def slopes(theta):
        z = X1 @ theta
        A = s * z < 1
        g = theta - 2 * C * X1[A].T @ (s - z)[A]
        return g, np.eye(len(theta)) + 2 * C * X1[A].T @ X1[A]  # equation (17)
    theta = newton(J, slopes, np.zeros(X1.shape[1]), "linear SVM")
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
    data = load_wine()
    X, y = scale(data.data, *fit_scaler(data.data)), (data.target == 1).astype(int)
    rows = []
    for C in [0.001, 0.1, 10]:
        w, b = fit_linear_svm(X, y, C)
        z = predict_linear(X, w, b)
        wide, inside = 2 / np.linalg.norm(w), np.sum((2 * y - 1) * z < 1)
        print(f"  C = {C:<5}  margin {wide:.2f} wide; {inside} wines in it or on the wrong side")
        theirs = sklearn_linear_svm(X, y, C).decision_function(X)
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

with γ (gamma) for how fast similarity fades; K(x, x') = x·x' gives the straight line. Where
½‖w‖² + C Σᵢ max(0, 1 - sᵢzᵢ) is least, b being free, w is a mix Σᵢ βᵢxᵢ of examples. The best β
solves the dual, which meets the examples in products xᵢ·xⱼ alone. The kernel trick puts Kᵢⱼ there:

    maximise Σᵢ sᵢβᵢ - ½ βᵀKβ            where Σᵢ βᵢ = 0 and 0 ≤ sᵢβᵢ ≤ C                      (19)
    its slope in βᵢ: gᵢ = sᵢ - Σⱼ Kᵢⱼβⱼ                                                        (20)

One β alone cannot move, since the sum must stay 0. Sequential minimal optimisation (SMO) moves two:
βᵢ up and βⱼ down by t. The best t is a formula, cut short where a β meets its bound:

    gain t(gᵢ - gⱼ) - ½t²c,       c = Kᵢᵢ + Kⱼⱼ - 2Kᵢⱼ,       t = (gᵢ - gⱼ) / c                (21)

Of the β that may rise take the i with the largest g, then the j that gains most, until none does:
every β strictly between its bounds then has g = b. Examples with β = 0 play no part; the others are
the support vectors.

**When it fails.** K has n² entries: for small n only. A huge γ remembers all and learns little.
"""
# %%
# A fitted (18): row numbers (m,), rows (m, d) and beta (m,) of the support vectors, b, gamma.
KernelSVM = namedtuple("KernelSVM", "support vectors beta b gamma")

def kernel_matrix(A, B, gamma):
    """K (n, m) between the rows of A and B: equation (18), or dot products if gamma is None."""
    if gamma is None:
        return A @ B.T
    mean = B.mean(axis=0)
    A, B = A - mean, B - mean  # the same distances; large means would cost digits
    squares = np.sum(A**2, axis=1)[:, None] + np.sum(B**2, axis=1) - 2 * A @ B.T  # ‖a - b‖²
    return np.exp(-gamma * np.maximum(squares, 0))

def smo(K, s, C, tol, steps):
    """Equation (19) for K (n, n) and s (n,) of -1 and +1: beta (n,) and b.
    Fan, Chen and Lin, Working Set Selection Using Second Order Information (2005)."""
    low, high = np.where(s == 1, 0.0, -C), np.where(s == 1, C, 0.0)
    top, bottom = np.where(s == 1, 0.0, np.inf), np.where(s == 1, np.inf, 0.0)  # inf: at the bound
    beta, g = np.zeros(len(s)), s.copy()
    c = np.maximum(np.add.outer(K.diagonal(), K.diagonal()) - 2 * K, 1e-12)  # of every pair
    for _ in range(steps):
        i = np.argmax(g - top)  # top is inf where β may not rise
        gap = g[i] - g - bottom  # bottom is inf where β may not fall
        if gap.max() <= tol:
            break
        j = np.argmax(np.maximum(gap, 0) ** 2 / c[i])  # twice the gain of equation (21)
        up, down = high[i] - beta[i], beta[j] - low[j]
        t = min(gap[j] / c[i, j], up, down)
        beta[i] += t
        beta[j] -= t
        top[i] = np.inf if t == up else 0
        bottom[j] = np.inf if t == down else 0
        top[j] = bottom[i] = 0
        g -= t * (K[i] - K[j])
    else:
        warnings.warn(f"SMO: slopes still differ by {gap.max():.1e}", DidNotConverge, 3)
    b = (np.max(g - top) + np.min(g + bottom)) / 2  # what may rise is below b, what may fall above
    return beta, float(b)

def fit_kernel_svm(X, y, C, gamma, tol=1e-6, steps=1_000_000):
    """A KernelSVM for labels 0 and 1. C > 0; gamma > 0, or None for the linear kernel."""
    X, y = check_labels(X, y, classes=2)
    check_number("C", C, above=0)
    check_number("tol", tol, above=0)
    check_number("gamma", 1 if gamma is None else gamma, above=0)
    beta, b = smo(kernel_matrix(X, X, gamma), 2.0 * y - 1, C, tol, steps)
    support = np.flatnonzero(beta)
    return KernelSVM(support, X[support], beta[support], b, gamma)

def predict_kernel_svm(X, model):
    """Scores z (n,), equation (18): class 1 where z > 0."""
    X = check_X(X, features=model.vectors.shape[1])
    return kernel_matrix(X, model.vectors, model.gamma) @ model.beta + model.b

# %%
def sklearn_kernel_svm(X, y, C, gamma, tol=1e-6):
    """The library version: libsvm, with β in `dual_coef_`. K is float32: z agrees to six digits, or
    to fewer if C is large, and there its compiled loop is up to three times as fast as ours."""
    from sklearn.svm import SVC
    return SVC(C=C, tol=tol, kernel="rbf" if gamma else "linear", gamma=gamma or 1).fit(X, y)

def demo_kernel_svm(plot=False):
    """Two moons: a straight line fails, a small gamma bends, a huge one remembers."""
    print("\n== Kernel SVM: can it tell two moons apart? ==\n")
    X, y = make_moons(np.random.default_rng(0), 200, 0.15)
    new_X, new_y = make_moons(np.random.default_rng(1), 200, 0.15)
    rows = []
    for name, C, gamma in [("gamma=2000", 10, 2000), ("linear", 1, None), ("gamma=2", 10, 2)]:
        model = fit_kernel_svm(X, y, C, gamma)
        z, new_z = predict_kernel_svm(X, model), predict_kernel_svm(new_X, model)
        old, new = accuracy(y, z > 0), accuracy(new_y, new_z > 0)
        print(f"  {name:10} {len(model.support):3} support vectors, right {old:.3f}, new {new:.3f}")
        library = sklearn_kernel_svm(X, y, C, gamma)
        rows += [compare(f"SVM z, {name}", z, library.decision_function(X), *ALLOWED["kernel svm"])]
        theirs = np.sort(library.support_)
        rows += [compare(f"SVM rows, {name}", model.support, theirs, *ALLOWED["same choice"])]
    x1, x2 = np.meshgrid(np.linspace(-1.6, 2.6, 60), np.linspace(1.5, -1, 12))
    z = predict_kernel_svm(np.column_stack([x1.ravel(), x2.ravel()]), model).reshape(x1.shape)
    print(f"  {name}: # for class 1, . for class 0, blank inside the margin\n")
    for line in np.where(z > 1, "#", np.where(z < -1, ".", " ")):
        print("    " + "".join(line).rstrip())
    return report(rows)
# Try: append ("gamma=0.01", 10, 0.01). Which of the three rows does it resemble?

# %% [markdown]
"""
## Honest evaluation: how good will it be on data it has not seen?

A score on the training rows says how well a model remembers; so keep rows back. Cross-validation
cuts the rows into folds, and each is the test once. A model that is too stiff is bad on both (it
underfits); one that learns the noise is bad on the test alone (it overfits). Columns are scaled by

    x' = (x - mean) / std,               both from the training rows, and kept for later       (22)

Call y = 1 positive, y = 0 negative, and predict 1 where p ≥ t. For every t the ROC curve plots the
share of positives found against the share of false alarms among negatives. The area under it (AUC)
is the chance that a random positive gets a higher p than a random negative. If p can be trusted,
costs choose t: a miss costs m, a false alarm f, and predicting 1 pays where p m > (1 - p) f, so

    t = f / (f + m)                                                                            (23)

**What people get wrong.** Whatever learns from data belongs inside the folds: scaler, choice of
features, choice of λ. What has seen the test rows leaks them. And accuracy misleads when one class
is rare: with 10 % positives, "never" is right 90 % of the time.
**When it fails.** Two rows of one patient must not be shuffled apart: one would leak the other.
"""
# %%
def fit_scaler(X):
    """Mean and standard deviation of each column, (d,) each; std 1 for a constant column."""
    X = check_X(X)
    mean, std = X.mean(axis=0), X.std(axis=0)
    return mean, np.where(std > 1e-14 * np.abs(mean), std, 1.0)  # below that it is rounding

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
    correlation = (y - y.mean()) @ X / X.std(axis=0)  # times what is the same for all columns
    return np.argsort(-np.abs(correlation), kind="stable")[:k]

def likeliest_right(y, P):
    """Accuracy when the likeliest class is predicted; P (n, k)."""
    return accuracy(y, P.argmax(axis=1))

# %%
def sklearn_evaluation(X, y, folds, model):
    """The library version: a pipeline is one estimator with its scaler inside. Scores per fold."""
    from sklearn import model_selection, pipeline, preprocessing
    scaled = pipeline.make_pipeline(preprocessing.StandardScaler(), model)
    return model_selection.cross_val_score(scaled, X, y, cv=folds)

def demo_evaluation(plot=False):
    """R² = 1 - Σr² / Σ(y - mean)², 1 at best and 0 for the mean, on rows seen and not seen."""
    from sklearn.linear_model import Ridge
    print("\n== Honest evaluation: how many powers of x fit a wave of 40 noisy points? ==\n")
    rng = np.random.default_rng(4)
    x = rng.uniform(0, 1, size=40)
    y = np.sin(2 * np.pi * x) + 0.3 * rng.normal(size=40)
    folds = k_fold(40, 5, rng)
    rows = []
    print("  powers  l2        R2 in training  R2 in 5 folds")
    for degree, l2 in [(1, 0.0), (3, 0.0), (15, 0.0), (15, 0.01), (15, 100.0)]:
        X = x[:, None] ** np.arange(1, degree + 1)
        method = partial(fit_ridge, l2=l2), predict_linear, r2_score
        seen = cross_validate(X, y, [(range(40), range(40))], *method)  # tested on what it saw
        new = cross_validate(X, y, folds, *method)
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
    folds = stratified_k_fold(y, 5)
    method = partial(fit_softmax, l2=1.0), predict_softmax, likeliest_right
    kept = best_columns(X, y, 20)
    leak = cross_validate(X[:, kept], y, folds, *method)
    honest = []
    for fold in folds:
        inside = best_columns(X[fold[0]], y[fold[0]], 20)
        honest.append(cross_validate(X[:, inside], y, [fold], *method)[0])
    print(f"  columns chosen on all rows, then 5 folds:  {leak.mean():.2f} right")
    print(f"  columns chosen inside each fold:           {np.mean(honest):.2f} right")
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
    p = predict_logistic(X[test], *fit_logistic(X[train], y[train], l2=0.1))
    y = y[test]
    print("  predict 1     right  8s found  false alarms   cost")
    for t in [np.inf, 0.5, 1 / 11, 0.01]:  # (23) with f = 1 and m = 10 is 1 / 11
        (_, alarms), (missed, found) = confusion_matrix(y, p >= t)
        right, cost = accuracy(y, p >= t), 10 * missed + alarms
        print(f"  p >= {t:<7.3f}  {right:.3f}  {found:4}/{y.sum()}  {alarms:12}  {cost:5}")
    def draw(ax):
        t = np.append(np.inf, np.sort(p)[::-1])  # every threshold, from "never" to "always"
        alarms, found = [(p[y == label, None] >= t).mean(axis=0) for label in (0, 1)]
        ax.plot(alarms, found)
        ax.set(xlabel="false alarms / not 8", ylabel="8s found / all 8s", title="Is it an 8?")
    if plot:
        save_plot("linear_models_roc.png", draw)
    return report([compare("ROC area", roc_auc(y, p), roc_auc_score(y, p), *ALLOWED["evaluation"])])
# Try: give demo_leakage 1000 coin flips instead of 100. Which of the two scores moves?

# %%
def encode_table(columns, train):
    """{name: column (n,)} as X (n, d) and its names. Learns from the train rows alone: medians
    for missing numbers, and the 20 most frequent values of a text, a 0/1 column each."""
    encoded = {}
    for name, column in columns.items():
        if column.dtype.kind == "f":
            missing = np.isnan(column)
            known = column[train][~missing[train]]
            encoded[name] = np.where(missing, np.median(known) if len(known) else 0.0, column)
        else:
            values, counts = np.unique(column[train], return_counts=True)
            for value in values[np.argsort(-counts, kind="stable")][:20]:
                encoded[f"{name} = {value or 'missing'}"] = column == value
    return np.column_stack(list(encoded.values())), list(encoded)

def evaluate_table(path, target, plot=False):
    """For `--csv FILE --target COLUMN`: ridge, or softmax if the target is text or has at most ten
    values, on your own table. Medians, categories, scaler and λ come from 3/4 of the rows."""
    columns, y, labels = read_table(path, target)
    if labels is None:
        train, test = train_test_split(np.random.default_rng(0), len(y))
        folds = k_fold(len(train), 5)
        fit, *method = fit_ridge, predict_linear, r2_score
    else:
        train, test = stratified_k_fold(y, 4)[0]
        folds = stratified_k_fold(y[train], 5)
        fit, *method = fit_softmax, predict_softmax, likeliest_right
    X, names = encode_table(columns, train)
    def mean_score(l2):
        return cross_validate(X[train], y[train], folds, partial(fit, l2=l2), *method).mean()
    l2 = max([0.01, 0.1, 1.0, 10.0, 100.0], key=mean_score)
    print(f"{path}: {len(y)} rows, {len(names)} features; l2={l2:g} is the best of five in 5 folds")
    X = scale(X, *fit_scaler(X[train]))
    if labels is not None:
        return evaluate_classes(X[train], y[train], X[test], y[test], l2, labels)
    ours = predict_linear(X[test], *fit_ridge(X[train], y[train], l2))
    print(f"  {r2_score(y[test], ours):.3f} R2 on {len(test)} rows kept back; the mean has 0")
    theirs = sklearn_ridge(X[train], y[train], l2).predict(X[test])
    return report([compare("predictions", ours, theirs, *ALLOWED["ridge"])])

def evaluate_classes(X, y, new, known, l2, labels):
    """Softmax on rows kept back, beside the same answer for all, and beside the library."""
    P = predict_softmax(new, *fit_softmax(X, y, l2))
    share = np.bincount(y) / len(y)
    for name, p in [("softmax", P), ("the same answer for all", np.tile(share, (len(P), 1)))]:
        right, loss = likeliest_right(known, p), log_loss(known, p)
        print(f"  {right:.3f} right on {len(known)} rows kept back, log loss {loss:.3f}: {name}")
    if len(labels) == 2:
        l2 /= 2  # the price on the difference of two columns
        p = P[:, 1]
        print(f"  {roc_auc(known, p):.3f} area under the ROC curve, {labels[1]} being positive")
        for t in [0.5, share[1]]:
            (_, alarms), (missed, found) = confusion_matrix(known, p >= t)
            print(f"  p >= {t:.2f} finds {found} of {found + missed}, with {alarms} false alarms")
    theirs = sklearn_logistic(X, y, l2).predict_proba(new)
    return report([compare("probabilities", P, theirs, *ALLOWED["softmax"])])

# %%
if __name__ == "__main__":
    demos = [demo_linear_regression, demo_ridge, demo_lasso, demo_logistic, demo_softmax]
    demos += [demo_linear_svm, demo_kernel_svm, demo_evaluation, demo_leakage, demo_threshold]
    run_chapter("Linear models, from scratch and in scikit-learn.", demos, evaluate_table)

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "scikit-learn", "matplotlib"]
# ///
