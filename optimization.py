# %% [markdown]
"""
# Optimization

How do you find the lowest point of a landscape when all you can feel is the slope under your feet?
Training is that question in millions of dimensions. Each method below adds one idea: walk downhill,
walk on a cheap guess of the slope, keep some speed, give every coordinate its own step, use the
curvature, share the work. At the end they race. Run `python optimization.py`, or one part with its
picture: `python optimization.py race --plot`; check with `pytest`.
Only the demos and the functions named torch_..., the library version, need more than numpy.

    w, g      parameters; gradient of the loss at w, or an estimate of it      (d,)
    A, H      Hessian: the curvature (A where it is constant)                  (d, d)
    L, ℓ, κ   largest and smallest curvature; kappa: `condition` = L / ℓ
    η         eta: step size, the learning rate `lr`
    β, τ      beta: share of the past that is kept, `momentum`, `betas`; tau: `dampening`
    m, v      running mean (or sum) of g, and of g²                            (d,)
    λ, ε      lambda: `weight_decay` (λᵢ: a curvature); epsilon: a small number, `eps`
    t         number of the step, from 1, in schedules from 0; in a line search, its length
    p, s, y   in L-BFGS: a direction, a step, the change of g along it; elsewhere y: targets (d,)
"""
# %%
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import namedtuple
from contextlib import contextmanager, suppress

import numpy as np

from utils import DidNotConverge, check_array, check_number, check_Xy, compare, make_regression
from utils import report, run_chapter, save_plot

# How far each result may be from the library's, relative to max(1, its largest number), and why
PATH = (1e-12, "every iterate: the same arithmetic, rounded in another order")
ALLOWED = {
    **dict.fromkeys(["gradient descent", "mini-batches", "momentum", "AdaGrad, RMSProp"], PATH),
    **dict.fromkeys(["Adam, AdamW", "schedules", "clipping", "L-BFGS", "data-parallel"], PATH),
    "rate": (0.01, "theory speaks of the limit; after t steps momentum is off by about 1/t"),
    "minimum": (1e-6, "both stop when the gradient is small, not when w is exact"),
}

# %% [markdown]
"""
## Gradient descent

The gradient g points uphill, so walk against it. The one choice is how far:

    w ← w - η g(w)                                                              (1)

All about η can be seen on a ravine, f(w) = ½ wᵀAw, whose gradient is Aw. Along an eigenvector, that
A only stretches, by the curvature λᵢ, a step multiplies the distance to the bottom by 1 - η λᵢ.
This must stay between -1 and 1 for every λᵢ, so η < 2 / L: beyond it each step lands higher on the
opposite wall. Well below it the flattest direction is slow, close to it the steepest. At best

    η = 2 / (L + ℓ),     error × (κ - 1) / (κ + 1) per step                     (2)

both are equally slow. κ = 100 gives 0.98: 115 steps for one digit. Conditioning, not dimension,
makes it slow. If the loss rises, try a tenth of the step before you look for a bug in the gradient.
"""
# %%
Problem = namedtuple("Problem", "loss gradient hessian start")  # three functions of w (d,), and w

def ravine(condition=100.0, angle=0.0):
    """½ wᵀAw in two dimensions: curvature 1 along a valley, `condition` across, turned."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    A = turn @ np.diag([1.0, condition]) @ turn.T
    return Problem(lambda w: w @ A @ w / 2, lambda w: A @ w, lambda w: A, turn @ [8.0, 2.0])

def rosenbrock():
    """(1 - x)² + 100 (y - x²)²: a bent valley with its minimum at (1, 1) (Rosenbrock 1960)."""
    return Problem(
        lambda w: (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2,
        lambda w: 200 * (w[1] - w[0] ** 2) * np.array([-2 * w[0], 1]) + [2 * (w[0] - 1), 0],
        lambda w: np.array([[2 + 1200 * w[0] ** 2 - 400 * w[1], -400 * w[0]], [-400 * w[0], 200]]),
        np.array([-1.2, 1.0]),
    )

def check_gradient(g, w):
    """g as a float array like w, finite. A column would broadcast into a matrix."""
    if np.shape(g) != w.shape:
        raise ValueError(f"the gradient must have the shape of w, {w.shape}, not {np.shape(g)}")
    return check_array("the gradient", g, ndim=w.ndim)

def gradient_descent(gradient, w, lr, steps):
    """Equation (1). Returns the path: every iterate, the start included, (steps + 1, d)."""
    check_number("lr", lr, least=0), check_number("steps", steps, least=0, integer=True)
    path = [check_array("w", w, ndim=1)]
    for _ in range(steps):
        path.append(path[-1] - lr * check_gradient(gradient(path[-1]), path[-1]))
    return np.array(path)

# %% [markdown]
"""
### The library version

`torch.optim.SGD` is equation (1) too; how stochastic it is depends on the gradient it gets. The
parameter is a tensor, changed in place. Its gradient waits in `.grad`, usually put there by
`loss.backward()`; here both sides get the same numpy gradient, so that only the optimizers differ.
A scheduler holds an optimizer and changes its `lr`. All optimizers and schedulers work like this.
"""
# %%
def torch_optimizer(name, w, **options):
    """torch.optim.<name> for a copy of the vector w. Its options have the names used here."""
    import torch
    return getattr(torch.optim, name)([torch.tensor(np.array(w, float))], **options)

def torch_path(optimizer, gradient, steps, scheduler=None, max_norm=None):
    """Every iterate (steps + 1, d) of a torch optimizer of one vector, given our gradient."""
    import torch
    (p,) = optimizer.param_groups[0]["params"]
    path = [p.numpy().copy()]
    for _ in range(steps):
        p.grad = torch.tensor(gradient(path[-1]))
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_([p], max_norm)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        path.append(p.numpy().copy())
    return np.array(path)

def demo_gradient_descent(plot=False):
    """One ravine, six step sizes: slow, best, and beyond the bound 2/L."""
    print("== Gradient descent: how large may a step be? ==")
    print("\n  A ravine with curvatures 1 and 100: 2/L = 0.02. Distance to the bottom:")
    print("      lr   10 steps   100 steps   200 steps")
    p, results = ravine(condition=100), []
    for lr in [0.001, 0.01, 0.019, 2 / 101, 0.02, 0.021]:
        path = gradient_descent(p.gradient, p.start, lr, steps=200)
        size = np.linalg.norm(path, axis=1)
        print(f"  {lr:.4f}    {size[10]:7.2f}   {size[100]:9.4g}   {size[200]:9.4g}")
        theirs = torch_path(torch_optimizer("SGD", p.start, lr=lr), p.gradient, 200)
        results.append(compare(f"lr {lr:.4f}", path, theirs, *ALLOWED["gradient descent"]))
    print("  At 0.02 it bounces between the walls for ever, beyond it leaves.")
    return report(results)

# Try: ravine(condition=1000), every lr a tenth as long. Predict 2/L and the steps per digit.

# %% [markdown]
"""
## Mini-batches

A loss over n examples has a gradient that is a mean of n terms. Why pay for them all to take one
small step? A random batch B costs less, is right on average, and, while it is much smaller than n,
its squared error falls as 1/|B|:

    g_B = 1/|B| Σᵢ gᵢ   over i in B,        E ‖g_B - g‖² ≈ 1/|B| · 1/n Σᵢ ‖gᵢ - g‖²     (3)

Four times the work for half the noise. One pass through the shuffled examples is an epoch. With a
constant η noise kicks the iterates as fast as the slope pulls them back: they end in a cloud around
the minimum, the larger the larger η. Two cures: let η fall (see Schedules), or average the last
iterates, so that the kicks cancel (Polyak and Juditsky 1992). Averaging from the first step on is
the usual mistake: unless η or the path is long, it keeps the far-away start in the mean.
"""
# %%
def minibatches(rng, n, size):
    """One epoch: the rows 0..n-1 shuffled and cut into batches of `size`, the last one short."""
    check_number("n", n, least=1, integer=True), check_number("size", size, least=1, integer=True)
    return np.split(rng.permutation(n), range(size, n, size))

def squared_error_gradient(X, y):
    """gradient(w, rows) of the mean of (xᵢw - yᵢ)² over the rows of a batch: equation (3)."""
    X, y = check_Xy(X, y)
    return lambda w, rows: 2 / len(rows) * X[rows].T @ (X[rows] @ w - y[rows])  # (d,)

def minibatch_sgd(gradient, w, lr, batches):
    """Equation (1) on one batch after another: gradient(w, rows) (Robbins and Monro 1951)."""
    rows = iter(batches)
    return gradient_descent(lambda w: gradient(w, next(rows)), w, lr, len(batches))

def torch_minibatch(X, y, w, lr, batches):
    """The same by torch: a DataLoader deals out our batches, autograd finds the gradient."""
    import torch
    from torch.utils.data import DataLoader

    w, path = torch.tensor(w, requires_grad=True), [w]
    optimizer = torch.optim.SGD([w], lr)
    for inputs, targets in DataLoader(list(zip(X, y)), batch_sampler=batches):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(inputs @ w, targets).backward()
        optimizer.step()
        path.append(w.detach().numpy().copy())
    return np.array(path)

def demo_minibatches(plot=False):
    """The cloud around the minimum: step size, batch size, and what averaging does."""
    print("\n== Mini-batches: how noisy is a cheap gradient? ==")
    rng, w, results = np.random.default_rng(0), np.zeros(5), []
    X, y, *_ = make_regression(rng, n=256, d=5)
    gradient, best = squared_error_gradient(X, y), np.linalg.solve(X.T @ X, X.T @ y)
    print("\n  batch    lr   distance to the minimum after 10 epochs   of the mean of the last 5")
    for size, lr in [(8, 0.1), (8, 0.02), (64, 0.1)]:
        batches = [rows for _ in range(10) for rows in minibatches(rng, 256, size)]
        path = minibatch_sgd(gradient, w, lr, batches)
        mean = path[len(path) // 2 :].mean(axis=0)
        end, middle = np.linalg.norm([path[-1] - best, mean - best], axis=1)
        print(f"  {size:5}  {lr:4}   {end:39.4f}   {middle:26.4f}")
        label, theirs = f"batches of {size}, lr {lr}", torch_minibatch(X, y, w, lr, batches)
        results.append(compare(label, path, theirs, *ALLOWED["mini-batches"]))
    return report(results)

# Try: average the whole path. Predict in which of the three rows the start still shows.

# %% [markdown]
"""
## Momentum

In a ravine the gradient mostly points at the walls, now one, now the other. Keep a running sum:
what alternates cancels, what persists adds up (Polyak 1964). Nesterov (1983) adds the next β m:

    m ← β m + (1 - τ) g     (the first step: m = g)                             (4)
    w ← w - η m,            with Nesterov  w ← w - η (g + β m)                  (5)

With τ = 0 a steady gradient builds up to g / (1 - β): β = 0.9 means steps ten times as long. With
τ = β, m is an average and nothing grows; the two forms are often confused. On a quadratic the
best constants are known, with L, ℓ and κ as in (2):

    η = 4 / (√L + √ℓ)²,   β = ((√κ - 1) / (√κ + 1))²,   error × √β per step     (6)

This is (2) with √κ for κ: for κ = 100 a digit takes 11 to 12 steps in the end, not 115. Nesterov
with η = 1/L and β = (√κ - 1) / (√κ + 1) multiplies the error by 1 - 1/√κ. If β is too large, the
ball swings, and a step leaves √β of the swing, however short it is.
"""
# %%
BLOCK = 32768  # numbers, 256 KB: what a step computes in between stays in the cache

def as_arrays(name, value):
    """value as a list of float arrays, and whether it was a list of arrays."""
    many = isinstance(value, (list, tuple)) and any(isinstance(v, np.ndarray) for v in value)
    arrays = value if many else [value]
    ndims = [np.asarray(a, dtype=getattr(a, "dtype", object)).ndim for a in arrays]
    return [check_array(name, a, ndim) for a, ndim in zip(arrays, ndims)], many

class Optimizer:
    """State, and a step. One flat vector w holds all parameters; `params` shows it as the array or
    the list of arrays that was given: views, so one step moves them all. A subclass writes its
    equations in _update(w, g, *state), which changes w and state in place, a block at a time.
    On a million numbers SGD takes about 2.4, momentum 1.5 times torch's time: numpy reads them once
    per operation, and once more to check that g is finite; torch once in all."""

    def __init__(self, params, lr, weight_decay=0.0, maximize=False, states=0):
        self.lr = check_number("lr", lr, least=0)
        self.weight_decay = check_number("weight_decay", weight_decay, least=0)
        arrays, self.many = as_arrays("params", params)
        self.shapes, sizes = [a.shape for a in arrays], [a.size for a in arrays]
        self.w = np.concatenate([a.ravel() for a in arrays])  # a copy
        self.maximize, self.t, self.state = maximize, 0, np.zeros((states, len(self.w)))
        parts = zip(np.split(self.w, np.cumsum(sizes)[:-1]), self.shapes)
        views = [part.reshape(shape) for part, shape in parts]
        self.params = views if self.many else views[0]

    def flatten(self, grads):
        """The gradients as one finite vector like w; if they are not, raises and moves nothing."""
        arrays = grads if self.many and isinstance(grads, (list, tuple)) else [grads]
        if (shapes := [np.shape(g) for g in arrays]) != self.shapes:
            raise ValueError(f"the gradient must have the shape {self.shapes}, not {shapes}")
        flat = [np.ravel(g) for g in arrays]
        g = np.concatenate(flat) if len(flat) > 1 else flat[0]
        with np.errstate(over="ignore"):
            fine = g.dtype == float and g.dot(g) <= 1e100  # quick, and False for nan
        return g if fine else check_array("the gradient", g, ndim=1)

    def step(self, grads):
        """One step downhill (with maximize uphill), given the gradient at params."""
        g = self.flatten(grads)
        self.t += 1
        for start in range(0, len(g), BLOCK):
            part = slice(start, start + BLOCK)
            w, slope = self.w[part], -g[part] if self.maximize else g[part]
            if self.weight_decay:
                slope = slope + self.weight_decay * w  # the gradient of λ/2 ‖w‖²
            self._update(w, slope, *self.state[:, part])

class SGD(Optimizer):
    """Equations (4) and (5); with momentum 0, equation (1). As in torch τ spares the first step."""

    def __init__(self, params, lr, momentum=0.0, dampening=0.0, nesterov=False, **common):
        self.momentum = check_number("momentum", momentum, least=0, below=1)
        self.dampening = check_number("dampening", dampening, least=0, most=1)
        self.nesterov = nesterov
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError("nesterov needs momentum above 0 and dampening 0")
        super().__init__(params, lr, states=int(momentum > 0), **common)

    def _update(self, w, g, m=None):
        if m is not None:
            m *= self.momentum  # equation (4); m starts at 0
            m += g if self.t == 1 or self.dampening == 0 else (1 - self.dampening) * g
            g = g + self.momentum * m if self.nesterov else m
        w -= self.lr * g  # equation (5)

def descend(optimizer, gradient, steps, schedule=None):
    """The path of w, (steps + 1, d), by steps with gradient(params). schedule(t) gives lr."""
    path = [optimizer.w.copy()]
    for t in range(check_number("steps", steps, least=0, integer=True)):
        if schedule is not None:
            optimizer.lr = check_number("schedule(t)", schedule(t), least=0)
        optimizer.step(gradient(optimizer.params))
        path.append(optimizer.w.copy())
    return np.array(path)

def beside_torch(row, method, p=rosenbrock(), **options):
    """200 iterates of one of our optimizers, and of torch's class of that name."""
    name = method.__name__
    ours = descend(method(p.start, **options), p.gradient, 200)
    theirs = torch_path(torch_optimizer(name, p.start, **options), p.gradient, 200)
    label = ", ".join([name, *(f"{k} {v}" for k, v in options.items())])
    return compare(label, ours, theirs, *ALLOWED[row])

def demo_momentum(plot=False):
    """Rates against theory, momentum that overshoots, and every option beside torch."""
    print("\n== Momentum: how much does memory help? ==")
    print("\n  condition 100: factor on the error per step   measured   theory")
    results, p = [], ravine(100)
    for name, theory, options in [
        ("gradient descent", 99 / 101, dict(lr=2 / 101)),
        ("momentum", 9 / 11, dict(lr=4 / 11**2, momentum=(9 / 11) ** 2)),
        ("Nesterov", 1 - 1 / 10, dict(lr=1 / 100, momentum=9 / 11, nesterov=True)),
    ]:
        size = np.linalg.norm(descend(SGD(p.start, **options), p.gradient, 400), axis=1)
        rate = (size[400] / size[200]) ** (1 / 200)
        print(f"  {name:42}   {rate:8.4f}   {theory:6.4f}")
        results.append(compare(f"rate of {name}", rate, theory, *ALLOWED["rate"]))
    print("\n  A ball in a bowl from 10 (curvature 1, lr 0.1): where it is every 5 steps")
    for beta in [0.0, 0.5, 0.9, 0.97]:
        path = descend(SGD([10.0], 0.1, beta), lambda w: w, 60)[:, 0]
        print(f"  momentum {beta:4}  " + " ".join(f"{x:6.2f}" for x in path[:51:5]))
    for extra in [{}, dict(dampening=0.5), dict(nesterov=True), dict(weight_decay=0.1)]:
        results.append(beside_torch("momentum", SGD, lr=1e-4, momentum=0.9, **extra))
    return report(results)

# Try: give momentum 0.97 a step a tenth as long. Does the ball swing less often? Or less far?

# %% [markdown]
"""
## A step for every coordinate

One η suits no coordinate when their gradients differ in size. AdaGrad (Duchi, Hazan and Singer
2011) divides each by the size its gradients have had so far; all operations per coordinate:

    v ← v + g²,                  w ← w - η g / (√v + ε)                         (7)

Multiply a coordinate of g by 1000 and its steps stay the same. But v only grows: under a steady
gradient step t is η / √t long, and after a steep start steps stay short for ever. RMSProp (Hinton,
lectures, 2012) forgets, keeping a share α (alpha); as v starts at 0, its first step is 1/√(1 - α)
= 10 times η. Adam (Kingma and Ba 2015) smooths g, too, and corrects such starts:

    v ← α v + (1 - α) g²,        w ← w - η g / (√v + ε)                         (8)
    m ← β₁ m + (1 - β₁) g,       v ← β₂ v + (1 - β₂) g²                         (9)
    m̂ = m / (1 - β₁ᵗ),           v̂ = v / (1 - β₂ᵗ)                             (10)
    w ← w - η m̂ / (√v̂ + ε)                                                     (11)

Why does Adam correct its bias? Both means start at 0: after t steps of a steady g they are only
m = (1 - β₁ᵗ) g and v = (1 - β₂ᵗ) g². Dividing by these factors removes the bias, and the first step
has length η. Without (10) it is 3.2 η and the tenth 6.5 η: too long just when the direction is
known least. Weight decay adds λw to g; (11) divides it by √v̂, so weights with large gradients
hardly decay. AdamW (Loshchilov and Hutter 2019) shrinks all alike, before (9):

    w ← (1 - η λ) w                                                            (12)

Common mistakes: t missing in (10); ε inside the root, where 1e-8 acts like 1e-4. And all these
stretch axes and cannot turn them: in a ravine at 45 degrees they help little.
"""
# %%
class Adagrad(Optimizer):
    """Equation (7)."""

    def __init__(self, params, lr=0.01, eps=1e-10, **common):
        self.eps = check_number("eps", eps, above=0)
        super().__init__(params, lr, states=1, **common)

    def _update(self, w, g, v):
        v += g * g
        w -= self.lr * g / (np.sqrt(v) + self.eps)

class RMSprop(Optimizer):
    """Equation (8)."""

    def __init__(self, params, lr=0.01, alpha=0.99, eps=1e-8, **common):
        self.alpha = check_number("alpha", alpha, least=0, below=1)
        self.eps = check_number("eps", eps, above=0)
        super().__init__(params, lr, states=1, **common)

    def _update(self, w, g, v):
        v *= self.alpha
        v += (1 - self.alpha) * (g * g)
        w -= self.lr * g / (np.sqrt(v) + self.eps)

class Adam(Optimizer):
    """Equations (9) to (11). correct=False leaves out (10), to show what it is for."""

    def __init__(self, params, lr=0.001, betas=(0.9, 0.999), eps=1e-8, correct=True, **common):
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"betas must be a pair of numbers, not {betas!r}")
        self.betas = [check_number("betas", beta, least=0, below=1) for beta in betas]
        self.eps, self.correct = check_number("eps", eps, above=0), correct
        super().__init__(params, lr, states=2, **common)

    def _update(self, w, g, m, v):
        (beta1, beta2), t = self.betas, self.t if self.correct else np.inf
        m += (1 - beta1) * (g - m)  # the same as β₁ m + (1 - β₁) g
        v *= beta2
        v += (1 - beta2) * (g * g)
        share1, share2 = 1 - beta1**t, 1 - beta2**t  # equation (10): m̂ = m / share1
        w -= self.lr / share1 * m / (np.sqrt(v / share2) + self.eps)  # equation (11)

class AdamW(Adam):
    """Equation (12), then Adam. As in torch it decays by 0.01 unless told otherwise."""

    def __init__(self, params, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, **common):
        super().__init__(params, lr, betas, eps, **common)
        self.decay = check_number("weight_decay", weight_decay, least=0)

    def _update(self, w, g, m, v):
        w *= 1 - self.lr * self.decay
        super()._update(w, g, m, v)

def demo_adaptive(plot=False):
    """AdaGrad stops where RMSProp recovers; both beside `torch_optimizer("Adagrad", ...)`."""
    print("\n== AdaGrad and RMSProp: what if every coordinate had its own step? ==")
    print("\n  Slope 100 for 10 steps, then 1 (lr 0.1). Length of step t:")
    print("  t        " + " ".join(f"{t:7}" for t in [1, 2, 10, 11, 100, 1000, 2000]))
    for method in [Adagrad, RMSprop]:
        slopes = iter([100.0] * 10 + [1.0] * 1990)
        path = descend(method([0.0], lr=0.1), lambda w: [next(slopes)], 2000)
        length = -np.diff(path[:, 0])[[0, 1, 9, 10, 99, 999, 1999]]
        print(f"  {method.__name__:9}" + " ".join(f"{x:7.4f}" for x in length))
    tables = [(Adagrad, dict(lr=0.1), dict(eps=0.01)), (RMSprop, dict(lr=1e-3), dict(alpha=0.9))]
    return report([
        beside_torch("AdaGrad, RMSProp", method, **options, **extra)
        for method, options, own in tables
        for extra in [{}, own, dict(weight_decay=0.1, maximize=True)]
    ])  # fmt: skip

def demo_adam(plot=False):
    """The first ten steps with and without (10); weight decay in Adam against AdamW."""
    print("\n== Adam: why does it correct its bias? ==")
    print("\n  A steady gradient, lr 1. Length of step 1, 2, ..., 10:")
    for name, correct in [("with (10)", True), ("without", False)]:
        path = descend(Adam([0.0], lr=1.0, correct=correct), lambda w: -np.ones(1), 10)
        print(f"  {name:10}" + " ".join(f"{step:5.2f}" for step in np.diff(path[:, 0])))
    print("\n  Two weights of 1 under gradients that flip their sign, of size 1 and of size 100.")
    print("  200 steps, lr 0.001, weight decay 1: 0.999^200 = 0.819, less what the flips add:")
    for method in [Adam, AdamW]:
        optimizer = method([1.0, 1.0], lr=0.001, weight_decay=1.0)
        for t in range(200):
            optimizer.step((-1.0) ** t * np.array([1.0, 100.0]))
        print(f"  {method.__name__:6} {optimizer.w[0]:.3f}  {optimizer.w[1]:.3f}")
    extras = [{}, dict(betas=(0.5, 0.9), eps=0.1), dict(weight_decay=0.5, maximize=True)]
    pairs = [(method, extra) for method in [Adam, AdamW] for extra in extras]
    return report([beside_torch("Adam, AdamW", m, lr=0.01, **extra) for m, extra in pairs])

# Try: betas=(0.9, 0.9) in the table of ten steps. Predict the row without (10), then explain it.

# %% [markdown]
"""
## Schedules and clipping

A large step finds the valley, a small one the bottom. A schedule is η as a function of the step
t = 0, 1, 2, ... Three in use; γ (gamma) is the `factor` of a decay, k its `every`, η₀ the `lowest`
rate, T the `steps`, s the share of η at the `start`:

    step decay     η γ^⌊t / k⌋             (with k = 1: exponential decay)     (13)
    cosine         η₀ + ½ (η - η₀) (1 + cos(π t / T)),       t ≤ T             (14)
    warm-up        η (s + (1 - s) t / T),                    t ≤ T             (15)

Warm-up, often followed by the cosine, serves the first steps of Adam, whose v̂ rests on a few
gradients only. Clipping shortens the gradient; one norm for all arrays keeps its direction:

    ‖g‖ = √(sum of squares over all arrays),    g ← g · min(1, c / ‖g‖)        (16)

It is for cliffs, where one step on a huge gradient throws away what was learned. It does not cure
an η that is too large everywhere: each step then has length ηc.
"""
# %%
def step_lr(t, lr, every, factor=0.1):
    """Equation (13)."""
    check_number("t", t, least=0), check_number("every", every, above=0)
    return lr * factor ** (t // every)

def cosine_lr(t, lr, steps, lowest=0.0):
    """Equation (14) (Loshchilov and Hutter 2017); after `steps` it stays at `lowest`."""
    check_number("t", t, least=0), check_number("steps", steps, above=0)
    return lowest + (lr - lowest) * (1 + np.cos(np.pi * min(t / steps, 1))) / 2

def warmup_lr(t, lr, steps, start=0.1):
    """Equation (15); after `steps` it stays at lr."""
    check_number("t", t, least=0), check_number("steps", steps, above=0)
    return lr * (start + (1 - start) * min(t / steps, 1))

def clip_by_global_norm(grads, max_norm):
    """Equation (16) for an array or a list of arrays: what is left, and the norm it had.
    As in torch the norm gets 1e-6 added, so that a zero gradient stays zero."""
    check_number("max_norm", max_norm, above=0)
    arrays, many = as_arrays("grads", grads)
    norm = np.sqrt(sum(np.sum(g * g) for g in arrays))
    clipped = [g * min(1, max_norm / (norm + 1e-6)) for g in arrays]
    return clipped if many else clipped[0], float(norm)

def demo_schedules(plot=False):
    """The shape of each schedule, and a clipped walk beside one that falls off a cliff."""
    from torch.optim import lr_scheduler
    print("\n== Schedules and clipping: when should a step be short? ==")
    print("\n  lr at t =             0     20     40     60     80     99")
    (results, p), up = ([], rosenbrock()), lambda w: -np.ones(1)  # a slope of 1: each step is lr
    for name, schedule, theirs, *options in [
        ("step decay", lambda t: step_lr(t, 1.0, 30, 0.5), "StepLR", 30, 0.5),
        ("exponential", lambda t: step_lr(t, 1.0, 1, 0.97), "ExponentialLR", 0.97),
        ("cosine", lambda t: cosine_lr(t, 1.0, 100, 0.05), "CosineAnnealingLR", 100, 0.05),
        ("warm-up", lambda t: warmup_lr(t, 1.0, 50, 0.1), "LinearLR", 0.1, 1.0, 50),
    ]:
        print(f"  {name:18}" + "  ".join(f"{schedule(t):5.3f}" for t in [0, 20, 40, 60, 80, 99]))
        rates = np.diff(descend(SGD([0.0], 1.0), up, 100, schedule), axis=0)
        optimizer = torch_optimizer("SGD", [0.0], lr=1.0)
        theirs = torch_path(optimizer, up, 100, getattr(lr_scheduler, theirs)(optimizer, *options))
        results.append(compare(name, rates, np.diff(theirs, axis=0), *ALLOWED["schedules"]))
    free = descend(SGD(p.start, 0.01), p.gradient, 4)
    clipped = descend(SGD(p.start, 0.01), lambda w: clip_by_global_norm(p.gradient(w), 10)[0], 200)
    print("\n  Rosenbrock's valley, lr 0.01: distance to the minimum after 0, 1, ... steps")
    for name, path in [("free", free), ("clipped", clipped)]:
        print(f"  {name:9}" + " ".join(f"{np.linalg.norm(w - 1):10.3g}" for w in path[:5]))
    theirs = torch_path(torch_optimizer("SGD", p.start, lr=0.01), p.gradient, 200, max_norm=10)
    return report([*results, compare("clipped to 10", clipped, theirs, *ALLOWED["clipping"])])

# Try: clip to norm 1 with ten times the rate, in torch's line too. Predict the path.

# %% [markdown]
"""
## Newton and L-BFGS

The gradient says where down is, the Hessian H how soon the slope ends. Newton's step goes to the
bottom of the quadratic that fits at w:

    w ← w - H⁻¹ g                                                              (17)

Near a minimum it doubles the number of right digits each time, whatever the conditioning. It costs
a (d, d) system per step, and it looks for any flat point: where H has a negative eigenvalue it
climbs to the saddle. With |H|, all eigenvalues made positive, it walks down (Dauphin et al. 2014).
L-BFGS (Liu and Nocedal 1989) never forms H. It keeps the last steps s, with the change y of the
gradient along each, and from (sᵀy / yᵀy) I builds, pair after pair, an H⁻¹ that maps this y to s:

    H⁻¹ ← (I - ρ s yᵀ) H⁻¹ (I - ρ y sᵀ) + ρ s sᵀ,     ρ = 1 / yᵀs              (18)

Far from the minimum a full step can be too long. So search along the direction p for a t that
lowers the loss f enough and flattens the slope, the strong Wolfe conditions:

    f(w + tp) ≤ f(w) + c₁ t gᵀp,       |g(w + tp)ᵀp| ≤ c₂ |gᵀp|                (19)

The second makes yᵀs > 0, without which (18) may point uphill. All this fails on mini-batches: y is
a difference of gradients and measures mostly their noise.
"""
# %%
def line_search(problem, w, p, g, t=1.0, c1=1e-4, c2=0.9, tries=60):
    """A step t along p that meets (19), and the gradient there (Nocedal and Wright 2006, 3.5).
    Between `low`, the best step so far, and `high` there is a good one: double t until there is a
    high, then halve. Differences of the loss below `noise` are rounding. tries=0 just takes t."""
    if tries == 0:
        return t, check_gradient(problem.gradient(w + t * p), w)
    f0, slope0 = problem.loss(w), g @ p
    noise = 10 * np.finfo(float).eps * abs(f0)
    low, f_low, g_low, high = 0.0, f0, g, np.inf
    for _ in range(tries):
        f, g = problem.loss(w + t * p), check_gradient(problem.gradient(w + t * p), w)
        slope = g @ p
        if not f <= min(f0 + c1 * t * slope0, f_low) + noise:
            high = t  # too far, or not a number
        elif abs(slope) <= -c2 * slope0:
            return t, g
        else:
            high = low if slope * (high - low) >= 0 else high
            low, f_low, g_low = t, f, g
        t = 2 * t if high == np.inf else (low + high) / 2
    return low, g_low

def follow(problem, step, steps, tol):
    """w ← w + s with s, g = step(w, g) until max|g| <= tol; returns the path."""
    check_number("steps", steps, least=0, integer=True), check_number("tol", tol, least=0)
    path = [check_array("start", problem.start, ndim=1)]
    g = check_gradient(problem.gradient(path[0]), path[0])
    while (size := np.abs(g).max()) > tol and len(path) <= steps:
        s, g = step(path[-1], g)
        path.append(path[-1] + s)
    if size > tol:
        text = f"after {len(path) - 1} steps the largest gradient is {size:.3g}, not {tol:g}"
        warnings.warn(text, DidNotConverge, stacklevel=3)
    return np.array(path)

def newton(problem, steps=50, tol=1e-8, search=True):
    """Newton's method; returns the path. search=False is equation (17) as it stands; otherwise |H|
    (no eigenvalue below 1e-8 of the largest) and a line search."""

    def _step(w, g):
        H = check_array("the Hessian", problem.hessian(w), ndim=2)
        if search:
            curvature, axes = np.linalg.eigh(H)
            size = np.maximum(np.abs(curvature), 1e-8 * np.abs(curvature).max())
            p = -axes @ (axes.T @ g / size)
        else:
            p = -np.linalg.solve(H, g)
        t, g = line_search(problem, w, p, g, tries=60 if search else 0)
        return t * p, g

    return follow(problem, _step, steps, tol)

def lbfgs_direction(g, pairs):
    """-H⁻¹g (d,): (18) from the outside in. The first loop applies I - ρ y sᵀ, newest pair first,
    the second I - ρ s yᵀ, and adds the ρ s sᵀ."""
    p, alphas = -g, []
    for s, y in reversed(pairs):
        alphas.append((s @ p) / (y @ s))
        p = p - alphas[-1] * y
    if pairs:
        s, y = pairs[-1]
        p = (s @ y) / (y @ y) * p
    for (s, y), alpha in zip(pairs, reversed(alphas)):
        p = p + (alpha - (y @ p) / (y @ s)) * s
    return p

def lbfgs(problem, lr=1.0, memory=10, steps=200, tol=1e-8, search=True):
    """L-BFGS on the last `memory` pairs; returns the path. search=False is torch's: full steps
    times lr, the first lr long at most, no pair with yᵀs <= 1e-10."""
    check_number("lr", lr, above=0), check_number("memory", memory, least=1, integer=True)
    pairs = []

    def _step(w, g):
        p = lbfgs_direction(g, pairs)
        t = lr if pairs else lr * min(1, 1 / np.abs(g).sum())
        t, g_new = line_search(problem, w, p, g, t, tries=60 if search else 0)
        s, y = t * p, g_new - g
        if y @ s > (0 if search else 1e-10):
            pairs[:] = [*pairs, (s, y)][-memory:]
        return s, g_new

    return follow(problem, _step, steps, tol)

# %% [markdown]
"""
### The library version

torch has no Newton. `torch.optim.LBFGS` calls a closure for loss and gradient. Without line search
its iterates are ours. With one, `strong_wolfe`, it interpolates where ours halves, and still drops
pairs with yᵀs <= 1e-10, which costs it steps near the minimum: the same end by another way.
"""
# %%
def torch_lbfgs(problem, lr=1.0, memory=10, steps=200, tol=1e-8, search=True):
    """The path of torch.optim.LBFGS; when it has converged it stays where it is."""
    import torch
    options = dict(lr=lr, history_size=memory, tolerance_grad=tol, tolerance_change=0, max_iter=1)
    wolfe = dict(max_eval=100, line_search_fn="strong_wolfe" if search else None)
    optimizer = torch_optimizer("LBFGS", problem.start, **options, **wolfe)
    (p,) = optimizer.param_groups[0]["params"]
    path = [p.numpy().copy()]

    def _closure():
        p.grad = torch.tensor(problem.gradient(p.numpy()))
        return problem.loss(p.numpy())

    for _ in range(steps):
        optimizer.step(_closure)
        path.append(p.numpy().copy())
    return np.array(path)

def demo_newton(plot=False):
    """Digits that double, a saddle, and L-BFGS where columns resemble one another."""
    print("\n== Newton and L-BFGS: what does curvature buy? ==")
    p, path = rosenbrock(), newton(rosenbrock(), search=False)
    gaps = " ".join(f"{np.linalg.norm(w - 1):.0e}" for w in path)
    print(f"\n  Rosenbrock's valley, distance to the minimum (it may first rise): {gaps}")
    print("  x^4/4 - x^2/2 + y^4/4 - y^2/2: saddle at (1, 0), minimum at (1, 1). From (0.8, 0.3):")
    loss, slope = lambda w: sum(w**4 / 4 - w**2 / 2), lambda w: w**3 - w
    wells = Problem(loss, slope, lambda w: np.diag(3 * w**2 - 1), np.array([0.8, 0.3]))
    for name, search in [("equation (17)", False), ("|H| and search", True)]:
        x, y = np.abs(newton(wells, search=search)[-1])
        print(f"  {name:14} ends at ({x:.3f}, {y:.3f})")
    X, y, *_ = make_regression(np.random.default_rng(0), n=400, d=5)
    X = X.cumsum(axis=1) / 3  # each column is the one before, and something new
    gradient = squared_error_gradient(X, y)
    loss = lambda w: np.mean((X @ w - y) ** 2)
    q = Problem(loss, lambda w: gradient(w, range(400)), None, np.zeros(5))
    plain, full = gradient_descent(q.gradient, q.start, 0.6, 25), lbfgs(q, search=False)
    print("\n  Five correlated columns, squared error after 0, 5, ... steps (lr below 2/L = 0.77):")
    for name, ours in [("gradient", plain), ("L-BFGS", lbfgs(q))]:
        print(f"  {name:9}" + " ".join(f"{q.loss(w):8.2f}" for w in ours[:26:5]))
    theirs = torch_lbfgs(q, steps=len(full) - 1, search=False)
    return report([
        compare("Newton", path[-1], torch_lbfgs(p)[-1], *ALLOWED["minimum"]),
        compare("Newton, |H| and search", newton(p)[-1], torch_lbfgs(p)[-1], *ALLOWED["minimum"]),
        compare("L-BFGS, every iterate", full, theirs, *ALLOWED["L-BFGS"]),
        compare("L-BFGS, search: minimum", lbfgs(q)[-1], torch_lbfgs(q)[-1], *ALLOWED["minimum"]),
    ])  # fmt: skip

# Try: start at (0.8, 0.6), just beyond where H changes its sign. Where does (17) end?

# %% [markdown]
"""
## Data-parallel SGD

A batch too large for one machine: give each of K workers a copy of w and a shard of n_k rows. Each
finds the mean gradient g_k of its shard; the gradient of the whole batch is

    g = Σ_k (n_k / n) g_k                                                      (20)

All take the same step, so the copies stay equal: it is one worker with the whole batch, not an
approximation of it. The plain mean 1/K Σ g_k is right for equal shards only; otherwise rows of
small shards count more. The sum is an all-reduce. In a ring each worker passes chunks of its vector
to a neighbour, who adds its own: 2 (K - 1) / K · d numbers sent by each. What people get wrong:
different starts, so that the copies never agree; the same shard for all, so that K workers learn
what one would; K times the batch with an η that was chosen for one.
"""
# %%
def data_parallel_sgd(gradient, w, lr, steps, sizes, weighted=True):
    """Equation (20), worker by worker: gradient(w, rows) is a mean over the rows of a shard,
    sizes the rows of each. weighted=False takes the plain mean. Returns the path."""
    sizes = np.array([check_number("sizes", size, least=1, integer=True) for size in sizes])
    shards = np.split(np.arange(sizes.sum()), np.cumsum(sizes)[:-1])
    shares = sizes / sizes.sum() if weighted else np.full(len(sizes), 1 / len(sizes))

    def _mean(w):  # on K machines at once
        return sum(s * check_gradient(gradient(w, rows), w) for s, rows in zip(shares, shards))

    return gradient_descent(_mean, w, lr, steps)

# %% [markdown]
"""
### The library version

In `torch.distributed` each worker is a process. They meet through a store (here a file), gloo
carries the numbers, `all_reduce` is the sum. `DistributedDataParallel` wraps a model and does the
rest: it copies the first worker's w to all, sums the gradients in buckets while the backward pass
still runs, and divides by K: the plain mean.
"""
# %%
def torch_worker(folder, rank, K):
    """What each of K processes does: take a task, save the path of w for each split."""
    from datetime import timedelta
    import torch
    import torch.distributed as dist

    torch.set_default_dtype(torch.float64)
    task, paths = json.load(sys.stdin), []  # waits for it
    store, limit = dist.FileStore(f"{folder}/store"), timedelta(seconds=30)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=K, timeout=limit)
    for sizes, ddp in zip(task["splits"], task["ddp"], strict=True):
        mine = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        X, y = torch.tensor(task["X"][mine]), torch.tensor(task["y"][mine])
        model = torch.nn.Linear(X.shape[1], 1, bias=False)
        model.weight.data[0] = torch.tensor(task["w"])
        copy = torch.nn.parallel.DistributedDataParallel(model) if ddp else model
        path = [task["w"]]
        for _ in range(task["steps"]):
            model.zero_grad()
            torch.nn.functional.mse_loss(copy(X)[:, 0], y).backward()
            if not ddp:  # equation (20) by hand
                model.weight.grad *= sizes[rank] / sum(sizes)
                dist.all_reduce(model.weight.grad)
            model.weight.data -= task["lr"] * model.weight.grad
            path.append(model.weight.detach().numpy()[0].copy())
        paths.append(path)
    np.save(f"{folder}/paths{rank}.npy", paths)
    dist.destroy_process_group()

@contextmanager
def torch_workers(K, seconds=60):
    """K processes for torch.distributed. They take seconds to import torch, so start them early.
    Yields run(X, y, w, lr, steps, splits, ddp): squared error, once for each of the splits (runs,
    K), which hold the rows of each worker; ddp (runs,) says whether the wrapper does the work. It
    returns the path in each process, (K, runs, steps + 1, d). None outlives the with block."""
    code = "import optimization as o, sys; o.torch_worker(sys.argv[1], *map(int, sys.argv[2:]))"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    if sys.platform in (loopback := {"linux": "lo", "darwin": "lo0"}):
        env["GLOO_SOCKET_IFNAME"] = loopback[sys.platform]

    def _run(**task):
        text = json.dumps({name: np.asarray(value).tolist() for name, value in task.items()})
        for job in jobs:
            with suppress(BrokenPipeError), job.stdin:  # one that failed is told by its code
                job.stdin.write(text.encode())
        codes = [job.wait(timeout=seconds) for job in jobs]
        if any(codes):
            raise RuntimeError("a worker failed; what it said stands above")
        return np.array([np.load(f"{folder}/paths{rank}.npy") for rank in range(K)])

    jobs = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for rank in range(K):
                command = [sys.executable, "-c", code, folder, str(rank), str(K)]
                jobs.append(subprocess.Popen(command, env=env, stdin=subprocess.PIPE))
            yield _run
        finally:
            for job in jobs:
                job.kill()
                with suppress(BrokenPipeError), job:  # waits, and closes the pipe
                    pass

def demo_data_parallel(plot=False):
    """442 real patients: one worker, two imagined workers, two real processes."""
    print("\n== Data-parallel SGD: do two workers find what one finds? ==")
    with torch_workers(2) as run:  # while they start, the data is loaded here
        from sklearn.datasets import load_diabetes

        X, y = load_diabetes(return_X_y=True, scaled=False)
        X, y, w = (X - X.mean(axis=0)) / X.std(axis=0), y - y.mean(), np.zeros(10)
        splits, gradient, results = [(221, 221), (332, 110)], squared_error_gradient(X, y), []
        theirs = run(X=X, y=y, w=w, lr=0.1, steps=200, splits=splits, ddp=[False, False])
    whole = gradient_descent(lambda w: gradient(w, range(442)), w, 0.1, steps=200)
    print("\n  442 patients. Largest distance from one worker's path:")
    print("  rows         weighted by (20)   plain mean")
    for i, sizes in enumerate(splits):
        by_hand = data_parallel_sgd(gradient, w, 0.1, 200, sizes)
        plain = data_parallel_sgd(gradient, w, 0.1, 200, sizes, weighted=False)
        gaps = [np.abs(path - whole).max() for path in (by_hand, plain)]
        print(f"  {sizes}   {gaps[0]:16.4f}   {gaps[1]:10.4f}")
        for name, path in [("two workers", by_hand), ("one worker", whole)]:
            what, both = f"{name}, rows {sizes}", [path, path]  # the same in both processes
            results.append(compare(what, both, theirs[:, i], *ALLOWED["data-parallel"]))
    return report(results)

# Try: splits of (432, 10). How much does a row of the ten outweigh another in the plain mean?

# %% [markdown]
"""
## The race

Three courses: a ravine with κ = 100 along the axes, the same turned by 45 degrees, Rosenbrock's
bent valley. Each method has one setting for all, so some crawl on the ravine for the bent valley's
sake. Count the steps until the loss is 1e-6 of what it was. A step of Newton costs more than the
others: it is a race of ideas, not of seconds.
"""
# %%
RACERS = {  # one setting each for all courses
    "gradient descent": (SGD, dict(lr=0.001)),
    "momentum": (SGD, dict(lr=0.001, momentum=0.95)),
    "Nesterov": (SGD, dict(lr=0.001, momentum=0.95, nesterov=True)),
    "AdaGrad": (Adagrad, dict(lr=1.0)),
    "RMSProp": (RMSprop, dict(lr=0.01)),
    "Adam": (Adam, dict(lr=0.3)),
}

def race(p, most=2000):
    """The path of each method until the loss is 1e-6 of what it was: {method: path}."""
    goal, paths = 1e-6 * p.loss(p.start), {"L-BFGS": lbfgs(p), "Newton": newton(p)}
    for name, (method, options) in RACERS.items():
        optimizer, path = method(p.start, **options), [p.start]
        while p.loss(path[-1]) > goal and len(path) <= most:
            optimizer.step(p.gradient(path[-1]))
            path.append(optimizer.w.copy())
        paths[name] = np.array(path)
    for name in ["L-BFGS", "Newton"]:
        paths[name] = paths[name][: 1 + sum(p.loss(w) > goal for w in paths[name])]
    return paths

def demo_race(plot=False):
    """Every method on three courses: steps needed, and with --plot the paths."""
    print("\n== The race: who reaches the valley floor first? ==\n")
    courses = {"ravine": ravine(), "turned": ravine(angle=np.pi / 4), "bent": rosenbrock()}
    paths = {name: race(p) for name, p in courses.items()}
    print(f"  {'steps to 1e-6 of the loss':28}" + "".join(f"{name:>8}" for name in courses))
    for method in paths["bent"]:
        steps = [len(paths[name][method]) - 1 for name in courses]
        print(f"  {method:28}" + "".join(f"{n if n < 2000 else '-':>8}" for n in steps))
    if plot:

        def _draw(*axes):
            for ax, name in zip(axes, courses):
                draw_paths(ax, courses[name], paths[name])

        save_plot("optimization_race.png", _draw, panels=3, size=(15, 5))
    turned = courses["turned"]
    return report([beside_torch("momentum", m, turned, **kw) for m, kw in RACERS.values()])

def draw_paths(ax, problem, paths):
    """Paths in two dimensions on the contours of the loss."""
    points = np.concatenate(list(paths.values()))
    low, high = points.min(axis=0) - 1, points.max(axis=0) + 1
    x, y = np.linspace(low[0], high[0], 100), np.linspace(low[1], high[1], 100)
    z = [[problem.loss(np.array([a, b])) for a in x] for b in y]
    ax.contour(x, y, np.log10(np.array(z) + 1e-3), levels=12, colors="0.8")
    for name, path in paths.items():
        ax.plot(*path.T, ".-", markersize=3, linewidth=1, label=f"{name}: {len(path) - 1}")
    ax.set(xlabel="w[0]", ylabel="w[1]")
    ax.legend(title="steps", fontsize=8)

# Try: turn the ravine by 10 degrees only. Which methods notice?

# %%
if __name__ == "__main__":
    run_chapter("Optimization: from gradient descent to AdamW, L-BFGS and data-parallel SGD", [
        demo_gradient_descent, demo_minibatches, demo_momentum, demo_adaptive, demo_adam,
        demo_schedules, demo_newton, demo_data_parallel, demo_race])  # fmt: skip

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch==2.13.0", "scikit-learn", "matplotlib"]
# ///
