# %% [markdown]
"""
# Optimization: where is the lowest point, if all you can feel is the slope under your feet?

Training asks this in millions of dimensions. Each method below adds one idea: walk downhill, walk
on a cheap guess of the slope, keep some speed, give every coordinate its own step, use the
curvature, share the work. At the end they race.

Run `python optimization.py`, or a part with its picture: `python optimization.py race --plot`.
`pytest` checks it. Only the demos and `torch_...`, the library version, need more than numpy.

    n, d, t   number of examples, of parameters, of the step (from 1; in schedules from 0)
    w         parameters, which the methods move; ‖w‖ = √(wᵀw) is its length (d,)
    f, g      the loss; its gradient, all slopes ∂f/∂w, or an estimate of it (d,)
    H, A      Hessian: all slopes of g, the curvature (A if it is constant)  (d, d)
    L, ℓ, κ   largest and smallest curvature; kappa: L / ℓ, the `condition`
    η         eta: the size of a step, the learning rate `lr`
    β, τ      beta: share of the past that is kept, `momentum`, `betas`; tau: `dampening`
    m, v      running mean (or sum) of g, and of g²                          (d,)
    λ, ε      lambda: `weight_decay` (λᵢ: a curvature); epsilon: a small number, `eps`
"""
# %%
import os
import subprocess
import sys
import tempfile
import warnings
from collections import namedtuple
from datetime import timedelta

import numpy as np

from utils import DidNotConverge, check_array, check_number, check_Xy, compare, make_regression
from utils import report, run_chapter, save_plot

# How far each result may be from the library's, relative to max(1, its largest number), and why
ALLOWED = {
    "path": (1e-12, "every iterate: the same arithmetic, rounded in another order"),
    "rate": (0.01, "theory speaks of the limit; after t steps momentum is off by about 1/t"),
    "minimum": (1e-6, "both stop when the gradient is small, not when w is exact"),
}

# %% [markdown]
"""
## Gradient descent: how large may a step be?

The gradient g points uphill, where the loss rises fastest. So walk against it:

    w ← w - η g(w)                                                              (1)

The one choice is η. A ravine shows all about it: f(w) = ½ wᵀAw, A = Aᵀ, whose gradient is Aw and
whose bottom is w = 0. An eigenvector of A is a direction that A only stretches, by the curvature
λᵢ. Along it g is λᵢ times w, so a step multiplies the distance to the bottom by 1 - η λᵢ. This must
stay between -1 and 1 for every λᵢ, hence η < 2 / L: beyond it each step lands higher on the
opposite wall. A small η is slow in the flattest direction, one close to 2 / L in the steepest. The
best makes both equally slow:

    η = 2 / (L + ℓ),     error × (κ - 1) / (κ + 1) per step                     (2)

For κ = 100 the factor is 0.98: one more digit, a tenth of the error, takes 115 steps.

**When it fails.** Bad conditioning, a large κ, makes gradient descent slow, in two dimensions as in
millions. **What people get wrong.** If the loss rises they look for a bug: try a tenth of η first.
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
    check_number("lr", lr, least=0)
    check_number("steps", steps, least=0, integer=True)
    w = check_array("w", w, ndim=1)
    path = [w]
    for _ in range(steps):
        w = w - lr * check_gradient(gradient(w), w)
        path.append(w)
    return np.array(path)

# %%
def torch_optimizer(name, w, **options):
    """The library version: the class torch.optim.<name>, its options named as ours, for a tensor
    that holds a copy of the vector w and is changed in place."""
    import torch
    return getattr(torch.optim, name)([torch.tensor(np.array(w, float))], **options)

def torch_path(optimizer, gradient, steps, scheduler=None, max_norm=None, loss=None):
    """Every iterate (steps + 1, d) of a torch optimizer. It gets the numpy gradient that ours gets,
    in `p.grad`, where `loss.backward()` usually puts it. A scheduler changes the optimizer's lr."""
    import torch
    p = optimizer.param_groups[0]["params"][0]  # the tensor

    def closure():  # what a step asks for; L-BFGS asks for it at other points, too
        p.grad = torch.tensor(gradient(p.numpy()))
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_([p], max_norm)
        return loss(p.numpy()) if loss else None

    path = [p.numpy().copy()]
    for _ in range(steps):
        optimizer.step(closure)
        if scheduler is not None:
            scheduler.step()
        path.append(p.numpy().copy())
    return np.array(path)

def demo_gradient_descent(plot=False):
    """One ravine, six step sizes: slow, best, and beyond the bound 2/L."""
    print("== Gradient descent: how large may a step be? ==")
    print("\n  A ravine with curvatures 1 and 100: 2/L = 0.02. Distance to the bottom:")
    print("      lr   10 steps   100 steps   200 steps")
    p = ravine(condition=100)
    results = []
    for lr in [0.001, 0.01, 0.019, 2 / 101, 0.02, 0.021]:
        path = gradient_descent(p.gradient, p.start, lr, steps=200)
        size = np.linalg.norm(path, axis=1)
        print(f"  {lr:.4f}    {size[10]:7.2f}   {size[100]:9.4g}   {size[200]:9.4g}")
        theirs = torch_path(torch_optimizer("SGD", p.start, lr=lr), p.gradient, 200)
        results.append(compare(f"lr {lr:.4f}", path, theirs, *ALLOWED["path"]))
    return report(results)

# Try: ravine(condition=50). Predict 2/L, whether lr 0.021 still flies off, and which row is best.

# %% [markdown]
"""
## Mini-batches: how noisy is a cheap gradient?

A loss over n examples has a gradient g that is the mean of n terms gᵢ. Why pay for them all to take
one small step? A random batch B costs less, is right on average, and, while it is much smaller than
n, its squared error, in the mean E over all batches, falls as 1 / |B|:

    g_B = 1/|B| Σᵢ gᵢ   over i in B,        E ‖g_B - g‖² ≈ 1/|B| · 1/n Σᵢ ‖gᵢ - g‖²     (3)

Four times the work for half the noise. One pass through the shuffled examples is an epoch.

**When it fails.** With a constant η the noise kicks the iterates as fast as the slope pulls them
back: they end in a cloud around the minimum, the larger the larger η. Two cures: let η fall (see
Schedules), or average the last iterates, so that the kicks cancel (Polyak and Juditsky 1992).
**What people get wrong.** Averages from the first step on, with the far-away start still in them.
"""
# %%
def minibatches(rng, n, size):
    """One epoch: the rows 0..n-1 shuffled and cut into batches of `size`, the last one short."""
    check_number("n", n, least=1, integer=True)
    check_number("size", size, least=1, integer=True)
    return np.split(rng.permutation(n), range(size, n, size))

def squared_error_gradient(X, y):
    """The function gradient(w, rows): equation (3) for the squared errors (xᵢw - yᵢ)²."""
    X, y = check_Xy(X, y)

    def gradient(w, rows):
        errors = X[rows] @ w - y[rows]  # (|B|, d) @ (d,) -> (|B|,)
        return 2 / len(rows) * X[rows].T @ errors  # (d, |B|) @ (|B|,) -> (d,)

    return gradient

def minibatch_sgd(gradient, w, lr, batches):
    """Equation (1), a batch after the other: stochastic gradient descent (Robbins, Monro 1951)."""
    rows = iter(batches)
    return gradient_descent(lambda w: gradient(w, next(rows)), w, lr, len(batches))

def torch_minibatch(X, y, w, lr, batches):
    """The library version: a DataLoader deals out our batches, autograd finds the gradient."""
    import torch
    w = torch.tensor(w, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr)
    path = [w.detach().numpy().copy()]
    for inputs, targets in torch.utils.data.DataLoader(list(zip(X, y)), batch_sampler=batches):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(inputs @ w, targets).backward()
        optimizer.step()
        path.append(w.detach().numpy().copy())
    return np.array(path)

def demo_minibatches(plot=False):
    """The cloud around the minimum: step size, batch size, and what averaging does."""
    print("\n== Mini-batches: how noisy is a cheap gradient? ==")
    print("\n  batch    lr   |g_B - g|   to the minimum after 10 epochs   from mean of last 5")
    rng = np.random.default_rng(0)
    X, y, _, _ = make_regression(rng, n=256, d=5)
    best, gradient = np.linalg.solve(X.T @ X, X.T @ y), squared_error_gradient(X, y)
    results = []
    for size, lr in [(8, 0.1), (8, 0.02), (32, 0.1)]:
        batches = [rows for _ in range(10) for rows in minibatches(rng, 256, size)]
        noise = np.mean([np.linalg.norm(gradient(best, rows)) for rows in batches])  # there g is 0
        path = minibatch_sgd(gradient, np.zeros(5), lr, batches)
        end, middle = np.linalg.norm([path[-1], path[len(path) // 2 :].mean(axis=0)] - best, axis=1)
        print(f"  {size:5}  {lr:4}   {noise:9.4f}   {end:30.4f}   {middle:19.4f}")
        theirs = torch_minibatch(X, y, np.zeros(5), lr, batches)
        results.append(compare(f"batches of {size}, lr {lr}", path, theirs, *ALLOWED["path"]))
    return report(results)

# Try: average the whole path. Predict in which of the three rows the start still shows.

# %% [markdown]
"""
## Momentum: how much does memory help?

In a ravine the gradient mostly points at the walls, now one, now the other. Keep a running sum:
what alternates cancels, what persists adds up (Polyak 1964). Nesterov (1983) adds the next β m:

    m ← β m + (1 - τ) g     (the first step: m = g)                             (4)
    w ← w - η m,            with Nesterov  w ← w - η (g + β m)                  (5)

With τ = 0 a steady gradient builds up to g / (1 - β): β = 0.9 means steps ten times as long. With
τ = β, m is an average and nothing grows. On a quadratic the best constants are known:

    η = 4 / (√L + √ℓ)²,   β = ((√κ - 1) / (√κ + 1))²,   error × √β per step     (6)

This is (2) with √κ for κ: for κ = 100 a digit takes 11 to 12 steps in the end, not 115. Nesterov
with η = 1 / L and β = (√κ - 1) / (√κ + 1) multiplies the error by 1 - 1/√κ.

**When it fails.** With too large a β the ball swings about the minimum. Each step leaves √β of the
swing; a smaller η calms it no sooner. **What people get wrong.** They use the η of τ = β at τ = 0.
"""
# %%
BLOCK = 131072  # numbers, 1 MB: what a step computes in between stays in the cache

def as_arrays(name, value):
    """value as a list of float arrays, and whether it was a list of arrays."""
    many = isinstance(value, (list, tuple)) and any(isinstance(v, np.ndarray) for v in value)
    arrays = value if many else [value]
    ndims = [a.ndim if isinstance(a, np.ndarray) else np.array(a, object).ndim for a in arrays]
    return [check_array(name, a, ndim) for a, ndim in zip(arrays, ndims)], many

class Optimizer:
    """State, and a step. One flat vector w holds all parameters; `params` shows it in the shapes
    that were given: views, so one step moves them all. A subclass writes its equations in _update,
    which changes w and state in place, a block at a time. On a million numbers SGD takes about
    twice torch's time: numpy reads them once per operation, and once to check g; torch once."""
    def __init__(self, params, lr, weight_decay=0.0, maximize=False, states=0):
        self.lr = check_number("lr", lr, least=0)
        self.weight_decay = check_number("weight_decay", weight_decay, least=0)
        self.maximize = maximize
        arrays, self.many = as_arrays("params", params)
        self.w = np.concatenate([a.ravel() for a in arrays])  # a copy, (d,)
        parts = np.split(self.w, np.cumsum([a.size for a in arrays])[:-1])
        views = [part.reshape(a.shape) for part, a in zip(parts, arrays)]
        self.params = views if self.many else views[0]
        self.shapes = [a.shape for a in arrays]
        self.state = np.zeros((states, len(self.w)))
        self.t = 0

    def flatten(self, grads):
        """The gradients as one finite vector like w; if they are not, raises and moves nothing."""
        arrays = grads if self.many and isinstance(grads, (list, tuple)) else [grads]
        shapes = [np.shape(g) for g in arrays]
        if shapes != self.shapes:
            raise ValueError(f"the gradient must have the shape {self.shapes}, not {shapes}")
        parts = [np.ravel(g) for g in arrays]
        g = np.concatenate(parts) if len(parts) > 1 else parts[0]  # one array needs no copy
        return check_array("the gradient", g, ndim=1)

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
    """Equations (4) and (5); with momentum 0, equation (1)."""
    def __init__(self, params, lr, momentum=0.0, dampening=0.0, nesterov=False, **common):
        self.momentum = check_number("momentum", momentum, least=0, below=1)
        self.dampening = check_number("dampening", dampening, least=0, most=1)
        self.nesterov = nesterov
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError("nesterov needs momentum above 0 and dampening 0")
        super().__init__(params, lr, states=int(momentum > 0), **common)

    def _update(self, w, g, m=None):
        if m is not None:  # equation (4); m starts at 0
            dampened = self.dampening > 0 and self.t > 1
            m *= self.momentum
            m += (1 - self.dampening) * g if dampened else g
            g = g + self.momentum * m if self.nesterov else m
        w -= self.lr * g  # equation (5)

def descend(optimizer, gradient, steps, schedule=None):
    """The path of w, (steps + 1, d), by steps with gradient(params). schedule(t) gives lr."""
    check_number("steps", steps, least=0, integer=True)
    path = [optimizer.w.copy()]
    for t in range(steps):
        if schedule is not None:
            optimizer.lr = check_number("schedule(t)", schedule(t), least=0)
        optimizer.step(gradient(optimizer.params))
        path.append(optimizer.w.copy())
    return np.array(path)

def beside_torch(method, problem, **options):
    """200 iterates of one of our optimizers, and of torch's class of that name."""
    name = method.__name__
    ours = descend(method(problem.start, **options), problem.gradient, 200)
    theirs = torch_path(torch_optimizer(name, problem.start, **options), problem.gradient, 200)
    label = ", ".join([name, *(f"{option} {value}" for option, value in options.items())])
    return compare(label, ours, theirs, *ALLOWED["path"])

def demo_momentum(plot=False):
    """Rates against theory, momentum that overshoots, and every option beside torch."""
    print("\n== Momentum: how much does memory help? ==")
    print("\n  condition 100: factor on the error per step   measured   theory")
    p = ravine(condition=100)
    results = []
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
        path = descend(SGD([10.0], lr=0.1, momentum=beta), lambda w: w, 50)
        print(f"  momentum {beta:4}  " + " ".join(f"{x:6.2f}" for x in path[::5, 0]))
    for extra in [{}, dict(dampening=0.5), dict(nesterov=True), dict(weight_decay=0.1)]:
        results.append(beside_torch(SGD, rosenbrock(), lr=1e-4, momentum=0.9, **extra))
    return report(results)

# Try: lr=0.01 for the ball. With momentum 0.97, does it swing less often? Is it calmer at step 30?

# %% [markdown]
"""
## A step for every coordinate: what if gradients differ in size?

Then one η suits no coordinate. AdaGrad (Duchi, Hazan and Singer 2011) divides each by the size its
gradients have had so far; all operations are per coordinate:

    v ← v + g²,                  w ← w - η g / (√v + ε)                         (7)

Multiply a coordinate of g by 1000 and its steps stay the same. But v only grows: under a steady
gradient step t is η / √t long, and after a steep start steps stay short for ever. RMSProp (Hinton,
lectures, 2012) forgets, keeping a share α (alpha) of v:

    v ← α v + (1 - α) g²,        w ← w - η g / (√v + ε)                         (8)

As v starts at 0, it is too small at first: for α = 0.99 step 1 is 1 / √(1 - α) = 10 times η long.

**When it fails.** They stretch axes and cannot turn them: a ravine at 45 degrees stays one.
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

def demo_adaptive(plot=False):
    """AdaGrad stops where RMSProp recovers; every option beside torch."""
    print("\n== AdaGrad and RMSProp: what if gradients differ in size? ==")
    print("\n  Slope 100 for 10 steps, then 1 (lr 0.1). Length of step t:")
    times = np.array([1, 2, 10, 11, 100, 1000, 2000])
    print("  t        " + " ".join(f"{t:7}" for t in times))
    for method, own in [(Adagrad, {}), (RMSprop, dict(alpha=0.99))]:
        slopes = iter([100.0] * 10 + [1.0] * 1990)
        path = descend(method([0.0], lr=0.1, **own), lambda w: [next(slopes)], 2000)
        lengths = -np.diff(path[:, 0])
        print(f"  {method.__name__:9}" + " ".join(f"{x:7.4f}" for x in lengths[times - 1]))
    results, uphill = [], dict(weight_decay=0.1, maximize=True)
    for method, lr, own in [(Adagrad, 0.1, dict(eps=0.01)), (RMSprop, 0.001, dict(alpha=0.9))]:
        for extra in [{}, own, uphill]:
            results.append(beside_torch(method, rosenbrock(), lr=lr, **extra))
    return report(results)

# Try: alpha=0.9 in the table. Predict RMSProp's first step, and whether t = 100 has recovered.

# %% [markdown]
"""
Adam (Kingma and Ba 2015) smooths g, too, and makes up for means that start at 0:

    m ← β₁ m + (1 - β₁) g,       v ← β₂ v + (1 - β₂) g²                         (9)
    m̂ = m / (1 - β₁ᵗ),           v̂ = v / (1 - β₂ᵗ)                             (10)
    w ← w - η m̂ / (√v̂ + ε)                                                     (11)

Why does Adam correct its bias? After t steps of a steady g both means are still too small, biased
towards 0: m = (1 - β₁ᵗ) g and v = (1 - β₂ᵗ) g². Dividing by these factors removes the bias, and the
first step has length η. Without (10) it is 3.2 η and the tenth 6.5 η: too long just when the
direction is known least.

Weight decay adds λw to g; (11) divides it by √v̂, so weights with large gradients hardly decay.
AdamW (Loshchilov and Hutter 2019) shrinks all weights alike, before (9):

    w ← (1 - η λ) w                                                            (12)

**What people get wrong.** The power t is missing in (10); or ε stands inside the root, where 1e-8
acts like 1e-4.
"""
# %%
class Adam(Optimizer):
    """Equations (9) to (11). correct=False leaves out (10), to show what it is for."""
    def __init__(self, params, lr=0.001, betas=(0.9, 0.999), eps=1e-8, correct=True, **common):
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"betas must be a pair of numbers, not {betas!r}")
        self.betas = [check_number("betas", beta, least=0, below=1) for beta in betas]
        self.eps = check_number("eps", eps, above=0)
        self.correct = correct
        super().__init__(params, lr, states=2, **common)

    def _update(self, w, g, m, v):
        beta1, beta2 = self.betas
        t = self.t if self.correct else np.inf  # in the long run (10) changes nothing
        m *= beta1  # equation (9)
        m += (1 - beta1) * g
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

def demo_adam(plot=False):
    """The first ten steps with and without (10); weight decay in Adam against AdamW."""
    print("\n== Adam: why does it correct its bias? ==")
    print("\n  A steady gradient, lr 1. Length of step 1, 2, ..., 10:")
    for name, correct in [("with (10)", True), ("without", False)]:
        path = descend(Adam([0.0], lr=1.0, correct=correct), lambda w: -np.ones(1), 10)
        print(f"  {name:10}" + " ".join(f"{step:5.2f}" for step in np.diff(path[:, 0])))
    print("\n  Two weights of 1 under gradients that flip their sign, of size 1 and of size 100.")
    print("  200 steps, lr 0.001, weight decay 1. By (12) both fall to 0.999^200 = 0.819, nearly:")
    results = []
    for method in [Adam, AdamW]:
        optimizer = method([1.0, 1.0], lr=0.001, weight_decay=1.0)
        for t in range(200):
            optimizer.step((-1.0) ** t * np.array([1.0, 100.0]))
        print(f"  {method.__name__:6} {optimizer.w[0]:.3f}  {optimizer.w[1]:.3f}")
        for extra in [{}, dict(betas=(0.5, 0.9), eps=0.1), dict(weight_decay=0.5, maximize=True)]:
            results.append(beside_torch(method, rosenbrock(), lr=0.01, **extra))
    return report(results)

# Try: betas=(0.9, 0.9) in the table of ten steps. Predict the row without (10), then explain it.

# %% [markdown]
"""
## Schedules and clipping: when should a step be short?

A large step finds the valley, a small one the bottom. A schedule is η as a function of the step
t = 0, 1, 2, ... Three in use; γ (gamma) is the `factor` of a decay, k its `every`, η₀ the `lowest`
rate, T the `steps`, s the share of η at the `start`:

    step decay     η γ^⌊t / k⌋             (⌊ ⌋ rounds down; k=1: exponential) (13)
    cosine         η₀ + ½ (η - η₀) (1 + cos(π t / T)),       t ≤ T             (14)
    warm-up        η (s + (1 - s) t / T),                    t ≤ T             (15)

Warm-up, often followed by the cosine, serves the first steps of Adam, whose v̂ rests on a few
gradients only. Clipping cuts ‖g‖ to c, the `max_norm`; one norm for all arrays keeps the direction:

    ‖g‖ = √(sum of squares over all arrays),    g ← g · min(1, c / ‖g‖)        (16)

It is for cliffs, where one step on a huge gradient throws away what was learned. **When it fails.**
Clipping does not cure an η that is too large everywhere: each step then has length ηc.
"""
# %%
def step_lr(t, lr, every, factor=0.1):
    """Equation (13)."""
    check_number("t", t, least=0)
    check_number("every", every, above=0)
    return lr * factor ** (t // every)

def cosine_lr(t, lr, steps, lowest=0.0):
    """Equation (14) (Loshchilov and Hutter 2017); after `steps` it stays at `lowest`."""
    check_number("t", t, least=0)
    check_number("steps", steps, above=0)
    return lowest + (lr - lowest) * (1 + np.cos(np.pi * min(t / steps, 1))) / 2

def warmup_lr(t, lr, steps, start=0.1):
    """Equation (15); after `steps` it stays at lr."""
    check_number("t", t, least=0)
    check_number("steps", steps, above=0)
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
    """The shape of each schedule."""
    from torch.optim import lr_scheduler
    print("\n== Schedules: when should a step be short? ==")
    print("\n  lr at t =             0     20     40     60     80     99")
    slope = lambda w: -np.ones(1)  # each step has the length lr
    results = []
    for name, schedule, library, options in [
        ("step decay", lambda t: step_lr(t, 1.0, 30, 0.5), "StepLR", (30, 0.5)),
        ("exponential", lambda t: step_lr(t, 1.0, 1, 0.97), "ExponentialLR", (0.97,)),
        ("cosine", lambda t: cosine_lr(t, 1.0, 100, 0.05), "CosineAnnealingLR", (100, 0.05)),
        ("warm-up", lambda t: warmup_lr(t, 1.0, 50, 0.1), "LinearLR", (0.1, 1.0, 50)),
    ]:
        print(f"  {name:18}" + "  ".join(f"{schedule(t):5.3f}" for t in [0, 20, 40, 60, 80, 99]))
        ours = descend(SGD([0.0], lr=1.0), slope, 100, schedule)
        optimizer = torch_optimizer("SGD", [0.0], lr=1.0)
        scheduler = getattr(lr_scheduler, library)(optimizer, *options)
        theirs = torch_path(optimizer, slope, 100, scheduler)
        results.append(compare(name, ours[1:], theirs[1:], *ALLOWED["path"]))
    return report(results)

def demo_clipping(plot=False):
    """A clipped walk beside one that falls off a cliff."""
    print("\n== Clipping: what does one huge gradient do? ==")
    print("\n  Rosenbrock's valley, lr 0.01: distance to the minimum after 0, 1, ... steps")
    p = rosenbrock()
    free = descend(SGD(p.start, lr=0.01), p.gradient, 4)
    clip = lambda w: clip_by_global_norm(p.gradient(w), 10)[0]
    clipped = descend(SGD(p.start, lr=0.01), clip, 200)
    for name, path in [("free", free), ("clipped", clipped)]:
        print(f"  {name:9}" + " ".join(f"{np.linalg.norm(w - 1):10.3g}" for w in path[:5]))
    theirs = torch_path(torch_optimizer("SGD", p.start, lr=0.01), p.gradient, 200, max_norm=10)
    return report([compare("clipped to 10", clipped, theirs, *ALLOWED["path"])])

# Try: clip to norm 1 with ten times the rate, in torch's line too. Predict the path.

# %% [markdown]
"""
## Newton and L-BFGS: what does curvature buy?

The gradient says where down is, the Hessian H how soon the slope ends. Going p from w, the gradient
becomes g + Hp, nearly. Newton's step solves g + Hp = 0 for p; H⁻¹, the inverse, undoes H:

    w ← w + p,      p = -H⁻¹ g                                                 (17)

Near a minimum the right digits double each time, whatever κ is, for a (d, d) system per step.

Far from the minimum a full step can be too long. So search along the direction p for a length t
that lowers f enough (c₁ = 1e-4) and flattens the slope gᵀp (c₂ = 0.9), strong Wolfe conditions:

    f(w + tp) ≤ f(w) + c₁ t gᵀp,       |g(w + tp)ᵀp| ≤ c₂ |gᵀp|                (18)

**When it fails.** Newton's step looks for any flat point: where H has a negative eigenvalue it can
climb to a saddle, a minimum in one direction and a maximum in another. With |H|, all eigenvalues
made positive, it walks down (Dauphin et al. 2014).
"""
# %%
def line_search(problem, w, p, g, t=1.0, c1=1e-4, c2=0.9, tries=60):
    """A length t along p that meets (18), and the gradient there. A good one lies between `low`,
    too short, and `high`, too long: double t until there is a high, then halve the interval. If
    there is none, the last low. Differences of the loss below `noise` are rounding."""
    f0, slope0 = problem.loss(w), g @ p
    noise = 10 * np.finfo(float).eps * abs(f0)
    low, high = 0.0, np.inf
    for _ in range(tries):
        if not problem.loss(w + t * p) <= f0 + c1 * t * slope0 + noise:
            high = t  # the loss is too high, or not a number
        else:
            g_t = check_gradient(problem.gradient(w + t * p), w)
            if abs(g_t @ p) <= -c2 * slope0:
                return t, g_t
            if g_t @ p > 0:
                high = t  # it rises again
            else:
                low, g = t, g_t  # it still falls steeply
        t = 2 * t if high == np.inf else (low + high) / 2
    return low, g

def begin(problem, steps, tol):
    """The start of a minimisation and the gradient there, both checked, as are steps and tol."""
    check_number("steps", steps, least=0, integer=True)
    check_number("tol", tol, least=0)
    w = check_array("start", problem.start, ndim=1)
    return w, check_gradient(problem.gradient(w), w)

def finish(path, g, tol):
    """The path as an array. Warns if it ends before max|g| <= tol."""
    size = np.abs(g).max()
    if size > tol:
        text = f"after {len(path) - 1} steps the largest gradient is {size:.3g}, not {tol:g}"
        warnings.warn(text, DidNotConverge, stacklevel=3)
    return np.array(path)

def newton(problem, steps=50, tol=1e-8, search=True):
    """Newton's method; returns the path. search=False is equation (17) as it stands; otherwise |H|
    (no eigenvalue below 1e-8 of the largest) and a line search."""
    w, g = begin(problem, steps, tol)
    path = [w]
    while np.abs(g).max() > tol and len(path) <= steps:
        H = check_array("the Hessian", problem.hessian(w), ndim=2)
        if search:
            curvature, axes = np.linalg.eigh(H)
            size = np.maximum(np.abs(curvature), 1e-8 * np.abs(curvature).max())
            p = -axes @ (axes.T @ g / size)  # -|H|⁻¹ g
            t, g = line_search(problem, w, p, g)
            w = w + t * p
        else:
            w = w - np.linalg.solve(H, g)  # equation (17)
            g = check_gradient(problem.gradient(w), w)
        path.append(w)
    return finish(path, g, tol)

# %% [markdown]
"""
L-BFGS (Liu and Nocedal 1989) never forms H. It keeps the last steps s, with the change y of the
gradient along each. From (sᵀy / yᵀy) I, with Iw = w, each pair makes an H⁻¹ that maps its y to s:

    H⁻¹ ← (I - ρ s yᵀ) H⁻¹ (I - ρ y sᵀ) + ρ s sᵀ,     ρ = 1 / yᵀs              (19)

That needs yᵀs > 0, or -H⁻¹g may point uphill; the second condition in (18) sees to it.
**When it fails.** On mini-batches y, a difference of gradients, measures mostly their noise.
"""
# %%
def lbfgs_direction(g, pairs):
    """-H⁻¹g (d,) by (19) from the outside in, without a matrix. The way back through the pairs (s,
    y) applies each I - ρ y sᵀ, the way forth each I - ρ s yᵀ, and adds its ρ s sᵀ."""
    p = -g
    amounts = []
    for s, y in reversed(pairs):
        amounts.append((s @ p) / (y @ s))  # ρ sᵀp
        p = p - amounts[-1] * y
    if pairs:
        s, y = pairs[-1]
        p = (s @ y) / (y @ y) * p
    for (s, y), amount in zip(pairs, reversed(amounts)):
        p = p + (amount - (y @ p) / (y @ s)) * s
    return p

def lbfgs(problem, lr=1.0, memory=10, steps=200, tol=1e-8, search=True):
    """L-BFGS on the last `memory` pairs; returns the path. search=False is torch's: full steps
    times lr, the first lr long at most, no pair with yᵀs <= 1e-10."""
    check_number("lr", lr, above=0)
    check_number("memory", memory, least=1, integer=True)
    w, g = begin(problem, steps, tol)
    path, pairs = [w], []
    while np.abs(g).max() > tol and len(path) <= steps:
        p = lbfgs_direction(g, pairs)
        t = lr if pairs else lr * min(1, 1 / np.abs(g).sum())
        if search:
            t, g_new = line_search(problem, w, p, g, t)
        else:
            g_new = check_gradient(problem.gradient(w + t * p), w)
        s, y = t * p, g_new - g
        if y @ s > (0 if search else 1e-10):
            pairs = [*pairs, (s, y)][-memory:]
        w, g = w + s, g_new
        path.append(w)
    return finish(path, g, tol)

def torch_lbfgs(problem, lr=1.0, memory=10, steps=200, tol=1e-8, search=True):
    """The library version: the path of torch.optim.LBFGS. Without search its iterates are ours; at
    the end it stays. With search it interpolates where ours halves, and still drops pairs with yᵀs
    <= 1e-10, which costs steps near the minimum: the same end by another way."""
    wolfe = dict(line_search_fn="strong_wolfe" if search else None, max_eval=100)
    stop = dict(tolerance_grad=tol, tolerance_change=0, max_iter=1)
    optimizer = torch_optimizer("LBFGS", problem.start, lr=lr, history_size=memory, **wolfe, **stop)
    return torch_path(optimizer, problem.gradient, steps, loss=problem.loss)

def demo_newton(plot=False):
    """Digits that double, a saddle, and minima without a matrix."""
    print("\n== Newton and L-BFGS: what does curvature buy? ==")
    valley, turned = rosenbrock(), ravine(angle=np.pi / 4)
    path = newton(valley, search=False)
    gaps = " ".join(f"{np.linalg.norm(w - 1):.0e}" for w in path)
    print(f"\n  Rosenbrock's valley, distance to the minimum (it may first rise): {gaps}")
    print("  x^4/4 - x^2/2 + y^4/4 - y^2/2: saddle at (1, 0), minimum at (1, 1). From (0.8, 0.3):")
    loss = lambda w: np.sum(w**4 / 4 - w**2 / 2)
    hessian = lambda w: np.diag(3 * w**2 - 1)
    wells = Problem(loss, lambda w: w**3 - w, hessian, np.array([0.8, 0.3]))
    for name, search in [("equation (17)", False), ("|H| and search", True)]:
        x, y = np.abs(newton(wells, search=search)[-1])
        print(f"  {name:14} ends at ({x:.3f}, {y:.3f})")
    ours, minimum = lbfgs(turned, search=False), torch_lbfgs(valley)[-1]
    theirs = torch_lbfgs(turned, steps=len(ours) - 1, search=False)
    return report([
        compare("Newton", path[-1], minimum, *ALLOWED["minimum"]),
        compare("Newton, |H| and search", newton(valley)[-1], minimum, *ALLOWED["minimum"]),
        compare("L-BFGS, every iterate", ours, theirs, *ALLOWED["path"]),
        compare("L-BFGS, search: minimum", lbfgs(valley)[-1], minimum, *ALLOWED["minimum"]),
    ])  # fmt: skip

# Try: start at (0.8, 0.6), just beyond where H changes its sign. Where does (17) end?

# %% [markdown]
"""
## Data-parallel SGD: do two workers find what one finds?

A batch too large for one machine: give each of K workers a copy of w and a shard of n_k rows. Each
finds the mean gradient g_k of its shard; the gradient of the whole batch is

    g = Σ_k (n_k / n) g_k                                                      (20)

All take the same step, so the copies stay equal: it is one worker with the whole batch, not an
approximation of it. The sum that all of them get is called an all-reduce.

**When it fails.** The plain mean 1/K Σ g_k is right for equal shards only; otherwise rows of small
shards count more. **What people get wrong.** Different starts, so that the copies never agree; the
same shard for all, so that K workers learn what one would; K times the batch, with the old η.
"""
# %%
def data_parallel_sgd(gradient, w, lr, steps, sizes, weighted=True):
    """Equation (20), worker by worker: gradient(w, rows) is a mean over the rows of a shard,
    sizes the rows of each. weighted=False takes the plain mean. Returns the path."""
    sizes = np.array([check_number("sizes", size, least=1, integer=True) for size in sizes])
    shards = np.split(np.arange(sizes.sum()), np.cumsum(sizes)[:-1])
    shares = sizes / sizes.sum() if weighted else np.full(len(sizes), 1 / len(sizes))

    def mean(w):  # on K machines at once
        return sum(s * check_gradient(gradient(w, rows), w) for s, rows in zip(shares, shards))

    return gradient_descent(mean, w, lr, steps)

# %%
def torch_data_parallel(X, y, w, lr, steps, sizes, ddp=False, seconds=60):
    """The library version, torch.distributed: each worker is a process that imports this file, from
    a notebook too. Returns the path of each, (K, steps + 1, d). ddp=True leaves all this to
    DistributedDataParallel: it wraps a model, copies the first worker's w to the others, sums the
    gradients in buckets while the backward pass still runs, and takes the plain mean."""
    # _exit leaves without tidying up, which takes torch half a second
    code = "import os, sys, optimization; optimization.torch_worker(*sys.argv[1:]); os._exit(0)"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    env["GLOO_SOCKET_IFNAME"] = {"linux": "lo", "darwin": "lo0"}.get(sys.platform, "")  # loopback
    jobs = []
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/task.npz", X=X, y=y, w=w, lr=lr, steps=steps, sizes=sizes, ddp=ddp)
        try:
            for rank in range(len(sizes)):
                command = [sys.executable, "-c", code, folder, str(rank)]
                jobs.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
            errors = [job.communicate(timeout=seconds)[1] for job in jobs]
        finally:  # none outlives this call
            for job in jobs:
                with job:  # closes its pipe and waits for its end
                    job.kill()
        if any(job.returncode for job in jobs):
            raise RuntimeError("a worker failed. " + "\n".join(errors))
        return np.array([np.load(f"{folder}/path{rank}.npy") for rank in range(len(sizes))])

def torch_worker(folder, rank):
    """What each process does: it takes the task, meets the others, and saves the path it finds.
    They meet through a file, the store. gloo carries the numbers, `all_reduce` is the sum."""
    import torch
    import torch.distributed as dist
    rank, task = int(rank), dict(np.load(f"{folder}/task.npz"))
    sizes, w, lr = task["sizes"], task["w"], float(task["lr"])
    store = dist.FileStore(f"{folder}/store", len(sizes))
    limit = timedelta(seconds=30)  # the longest that one waits for another
    dist.init_process_group("gloo", store=store, rank=rank, world_size=len(sizes), timeout=limit)
    mine = slice(sizes[:rank].sum(), sizes[: rank + 1].sum())
    X, y = torch.tensor(task["X"][mine]), torch.tensor(task["y"][mine])
    model = torch.nn.Linear(len(w), 1, bias=False, dtype=torch.float64)
    model.weight.data[0] = torch.tensor(w)
    copy = torch.nn.parallel.DistributedDataParallel(model) if task["ddp"] else model
    path = [w]
    for _ in range(task["steps"]):
        model.zero_grad()
        torch.nn.functional.mse_loss(copy(X)[:, 0], y).backward()
        if not task["ddp"]:  # equation (20)
            model.weight.grad *= sizes[rank] / sizes.sum()
            dist.all_reduce(model.weight.grad)
        model.weight.data -= lr * model.weight.grad
        path.append(model.weight.detach().numpy()[0].copy())
    np.save(f"{folder}/path{rank}.npy", path)
    dist.destroy_process_group()

def demo_data_parallel(plot=False):
    """442 real patients: one worker, two imagined workers, two real processes."""
    print("\n== Data-parallel SGD: do two workers find what one finds? ==")
    from sklearn.datasets import load_diabetes
    X, y = load_diabetes(return_X_y=True, scaled=False)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    y = y - y.mean()
    start = dict(w=np.zeros(10), lr=0.1, steps=200)
    gradient = squared_error_gradient(X, y)
    whole = gradient_descent(lambda w: gradient(w, range(442)), **start)
    theirs = torch_data_parallel(X, y, **start, sizes=(332, 110))  # (2, 201, 10)
    print("\n  442 patients. Largest distance from one worker's path:")
    print("  rows             weighted by (20)   plain mean")
    results = [compare("one worker", [whole, whole], theirs, *ALLOWED["path"])]
    for sizes in [(221, 221), (332, 110), (300, 100, 42)]:
        ours = data_parallel_sgd(gradient, **start, sizes=sizes)
        plain = data_parallel_sgd(gradient, **start, sizes=sizes, weighted=False)
        gaps = [np.abs(path - whole).max() for path in (ours, plain)]
        print(f"  {str(sizes):14}   {gaps[0]:16.4f}   {gaps[1]:10.4f}")
        results.append(compare(f"rows {sizes}", [ours, ours], theirs, *ALLOWED["path"]))
    return report(results)

# Try: splits of (432, 10). How much does a row of the ten outweigh another in the plain mean?

# %% [markdown]
"""
## The race: who reaches the valley floor first?

Three courses: a ravine with κ = 100 along the axes, the same turned by 45 degrees, Rosenbrock's
bent valley. Each method has one setting for all, so some crawl on the ravine for the bent valley's
sake. Count the steps until the loss is 1e-6 of what it was. **When it fails.** A step of Newton
solves a system, one of L-BFGS may try several lengths: a race of ideas, not of seconds.
"""
# %%
RACERS = {  # one setting each for all courses
    "gradient descent": (SGD, dict(lr=0.001)),
    "momentum": (SGD, dict(lr=0.001, momentum=0.95)),
    "Nesterov": (SGD, dict(lr=0.001, momentum=0.95, nesterov=True)),
    "AdaGrad": (Adagrad, dict(lr=2.0)),
    "RMSProp": (RMSprop, dict(lr=0.05)),
    "Adam": (Adam, dict(lr=0.3)),
}

def race(p, most=600):
    """The path of each method until the loss is 1e-6 of what it was: {method: path}."""
    paths = {"L-BFGS": lbfgs(p), "Newton": newton(p)}
    for name, (method, options) in RACERS.items():
        paths[name] = descend(method(p.start, **options), p.gradient, most)
    for name, path in paths.items():
        losses = np.array([p.loss(w) for w in path])
        below = np.flatnonzero(losses <= 1e-6 * losses[0])
        if len(below) > 0:
            paths[name] = path[: below[0] + 1]
    return paths

def draw_paths(ax, problem, paths):
    """Paths in two dimensions on the contours of the loss."""
    points = np.concatenate(list(paths.values()))
    low, high = points.min(axis=0) - 1, points.max(axis=0) + 1
    x, y = np.linspace(low, high, 100).T
    z = np.array([[problem.loss(np.array([a, b])) for a in x] for b in y])
    ax.contour(x, y, np.log10(z + 1e-3), levels=12, colors="0.8")
    for name, path in paths.items():
        ax.plot(*path.T, ".-", markersize=3, linewidth=1, label=f"{name}: {len(path) - 1}")
    ax.set(xlabel="w[0]", ylabel="w[1]")
    ax.legend(title="steps", fontsize=8)

def demo_race(plot=False):
    """Every method on three courses: steps needed, and with --plot the paths."""
    print("\n== The race: who reaches the valley floor first? ==\n")
    courses = {"ravine": ravine(), "turned": ravine(angle=np.pi / 4), "bent": rosenbrock()}
    paths = {name: race(p) for name, p in courses.items()}
    print(f"  {'steps to 1e-6 (-: over 600)':28}" + "".join(f"{name:>8}" for name in courses))
    for method in paths["bent"]:
        steps = [len(paths[name][method]) - 1 for name in courses]
        print(f"  {method:28}" + "".join(f"{n if n < 600 else '-':>8}" for n in steps))
    def draw(*axes):
        for ax, name in zip(axes, courses):
            draw_paths(ax, courses[name], paths[name])
    if plot:
        save_plot("optimization_race.png", draw, panels=3, size=(15, 5))
    return report([beside_torch(m, courses["turned"], **kw) for m, kw in RACERS.values()])

# Try: turn the ravine by 10 degrees only. Which methods notice?

# %%
if __name__ == "__main__":
    run_chapter("Optimization: from gradient descent to AdamW, L-BFGS and data-parallel SGD", [
        demo_gradient_descent, demo_minibatches, demo_momentum, demo_adaptive, demo_adam,
        demo_schedules, demo_clipping, demo_newton, demo_data_parallel, demo_race])  # fmt: skip

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch==2.13.0", "scikit-learn", "matplotlib"]
# ///
