# %% [markdown]
"""
# Neural networks: how can a machine learn a bent line?
A linear model draws one straight line. A neural network stacks linear maps with bends between them
and learns them all at once by the chain rule, applied from the loss backwards: backpropagation.
All is numpy but the library versions: functions with torch or sklearn in name or body.

    n, d, k   number of examples; of features or channels; of classes
    x, y      what enters a layer, one example per row; the truth                (n, d_in)
    W, b      weights and bias of a layer                                        (d_in, d_out)
    z, a      before and after the bend φ (phi): z = xW + b, a = φ(z)            (n, d_out)
    J, ḡ      the loss; the gradient from behind (nearer J), ∂J/∂(output of a layer): `g`, `grad`
    η, λ      eta, the size of a step: `lr`; lambda, the price of ‖W‖², the sum of squares: `l2`
    σ, Φ      sigma: the sigmoid; Phi: the share of a standard normal below a point
    γ, β, ε   gamma, beta: learned scale and shift of a norm, `gain`, `shift`; epsilon: `eps`
"""
# %%
import heapq
import itertools
import math
from time import perf_counter

import numpy as np
from utils import LARGEST, accuracy, check_array, check_number, compare, confusion_matrix, k_fold
from utils import make_moons, report, run_chapter, save_plot

ALLOWED = {  # how close scratch and library must be, relative to max(1, largest number), and why
    "formula": (1e-12, "the same float64 operations in another order"),
    "layer": (1e-10, "sums in another order, and the rounding of up to 100 steps"),
    "gradient check": (1e-6, "central differences: h^2 of curvature, 1e-16 / h of rounding"),
    "training": (1e-8, "hundreds of steps carry on the rounding of the first"),
    "accuracy": (0.03, "another start: two networks differ on a few of 360 digits"),
}

def check_batch(name, x, shape=None):
    """x as a float array (float32 stays), not empty, all finite, of this shape (None: any size)."""
    usable = isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.size > 0
    if not (usable and np.vdot(x, x) < np.inf):  # x.x in one fast pass: nan or inf if an entry is
        x = check_array(name, x, np.asarray(x, dtype=object).ndim)  # or says what is wrong
    if shape is not None and x.shape != shape:
        if x.ndim != len(shape) or any(want not in (None, n) for want, n in zip(shape, x.shape)):
            raise ValueError(f"{name} must have shape {shape}, not {x.shape} (None: any size)")
    return x

def side_by_side(row, pairs):
    """A table of {what: (ours, theirs)}, two lists of arrays each, by the tolerance of the row."""
    flat = lambda arrays: np.concatenate([np.ravel(array) for array in arrays])
    return report([compare(what, *map(flat, pair), *ALLOWED[row]) for what, pair in pairs.items()])
# %% [markdown]
"""
## One neuron: which way should each weight move?
A neuron weighs its inputs, adds a bias, and bends the sum. The loss J says how far off it is, its
gradient ∂J/∂w how fast J grows with each weight. The chain rule multiplies slopes on the way back:

    z = w·x + b        a = σ(z) = 1 / (1 + exp(-z))        J = (a - y)² / 2                  (1)
    ∂J/∂z = (a - y) · a (1 - a)                                                              (2)
    ∂J/∂w = ∂J/∂z · x          ∂J/∂b = ∂J/∂z          ∂J/∂x = ∂J/∂z · w                      (3)

Each is (slope from behind) times (own slope), as in every layer below: in (2) a - y is the slope of
J, a (1 - a) that of σ. In (3) it is x for w: the way forward keeps what the way back will use. By
hand: x = (1, 2), w = (2, -1), b = 0, y = 1 give z = 0, a = 1/2, J = 1/8; ∂J/∂z = (1/2 - 1) · 1/4 =
-1/8, ∂J/∂w = (-1/8, -1/4). J falls as a weight grows, so both weights should grow.

**When it fails.** σ is flat far from 0: for |z| > 10 hardly any gradient moves a wrong answer.
"""
# %%
def neuron(x, w, b, y):
    """Equations (1) to (3) for one example: J, and its gradients for x, w and b."""
    x = check_batch("x", x, (None,))
    w = check_batch("w", w, x.shape)
    z = w @ x + check_number("b", b)
    a = (1 + math.tanh(z / 2)) / 2  # (1): the same number, and nothing overflows
    error = a - check_number("y", y)
    dz = error * a * (1 - a)  # (2)
    return error**2 / 2, dz * w, dz * x, dz  # (3)

def torch_leaf(array):
    """A torch tensor that records what is done with it; backward fills its `.grad`."""
    import torch
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)

def gradients(make, f, *arrays):
    """The library version if make=torch_leaf: f is written in tensors, backward does the rest."""
    leaves = [make(array) for array in arrays]
    total = f(*leaves).sum()
    total.backward()
    return [float(total.data), *(leaf.grad for leaf in leaves)]

def demo_neuron(plot=False):
    """The numbers of the text."""
    print("\n== Which way should each weight of one neuron move? ==\n")
    inputs, pairs = ([1.0, 2.0], [2.0, -1.0], 0.0), {}
    formula = lambda x, w, b: ((w @ x + b).sigmoid() - 1.0) ** 2 / 2
    both = zip(neuron(*inputs, 1.0), gradients(torch_leaf, formula, *inputs))
    for name, (ours, theirs) in zip(["J", "dJ/dx", "dJ/dw", "dJ/db"], both):
        print(f"  {name:5} = {ours}")
        pairs[name] = [ours], [theirs]
    return side_by_side("formula", pairs)
# Try: start from w = (-20, -1). The answer is all wrong; how large is the gradient?
# %% [markdown]
"""
## Activations and losses: where to bend, and what to make small?
Two linear maps in a row are one: (xV)W = x(VW). Only a bend φ between them, entry by entry, gives
depth a use. A softmax bends a row of scores z, the logits, into probabilities. A loss is a mean, so
one step size suits any n: squared error for numbers, -log(probability of the truth) for labels.
Beside it: the slope of one term, to be divided by their number. [j = y] is 1 at the label, else 0:

    sigmoid      a = 1 / (1 + exp(-z))            a' = a (1 - a)                             (4)
    tanh         a = tanh z                       a' = 1 - a²                                (5)
    ReLU         a = max(z, 0)                    a' = 1 if z > 0, else 0                    (6)
    GELU         a = z Φ(z)                       a' = Φ(z) + z exp(-z²/2) / √(2π)           (7)
    softmax      pᵢ = exp(zᵢ) / Σⱼ exp(zⱼ)        ∂J/∂zᵢ = pᵢ (ḡᵢ - Σⱼ ḡⱼ pⱼ)                (8)
    squared error          mean of (z - y)²                           2 (z - y)              (9)
    binary cross-entropy   mean of log(1 + exp(z)) - y z              σ(z) - y               (10)
    cross-entropy          mean over rows of log Σⱼ exp(zⱼ) - z_y     pⱼ - [j = y]           (11)

From here on a layer or loss returns its output and, for each input that may learn, a *pull*: a
function from ḡ, the gradient from behind, to that for the input. `a, pull = tanh(0.5)`: a = 0.462
and the slope 1 - a² = 0.786: pull(1) is 0.786, pull(-2) is -1.573. The pull remembers a, as any
function made inside another does: that is how the way forward keeps what the way back uses.

**When it fails.** Sigmoid and tanh are flat far from 0. A ReLU whose z is negative on all rows gets
no gradient and stays dead. With p in place of z, (10) and (11) take log 0 of a sure mistake; from
logits, z = -1000 with y = 1 costs 1000, with slope -1.
**What people get wrong.** In (8) every p depends on every z: pᵢ (1 - pᵢ) ḡᵢ is not enough.
"""
# %%
def sigmoid(z):
    """Equation (4), as (1 + tanh(z / 2)) / 2: the same number, and nothing overflows."""
    z = check_batch("z", z)
    a = (1 + np.tanh(z / 2)) / 2
    return a, lambda g: g * a * (1 - a)  # the output, and the pull from dJ/da to dJ/dz

def tanh(z):
    """Equation (5)."""
    a = np.tanh(check_batch("z", z))
    return a, lambda g: g * (1 - a * a)

def relu(z):
    """Equation (6). At 0 there is no slope; every library takes 0."""
    a = np.maximum(check_batch("z", z), 0)
    return a, lambda g: g * (a > 0)

def gelu(z):
    """Equation (7) (Hendrycks and Gimpel, 2016). Phi(z) = (1 + erf(z / sqrt 2)) / 2."""
    z = check_batch("z", z)
    below = (1 + np.vectorize(math.erf, otypes=[z.dtype])(z / math.sqrt(2))) / 2  # numpy has no erf
    return z * below, lambda g: g * (below + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi))

def softmax(z):
    """Equation (8) for each row. Subtracting the largest score only prevents overflow."""
    z = check_batch("z", z)
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    return p, lambda g: p * (g - np.sum(g * p, axis=-1, keepdims=True))

def squared_error(z, y):
    """Equation (9); y has the shape of z."""
    error = check_batch("z", z) - check_batch("y", y, np.shape(z))
    return np.mean(error * error), lambda g: g * 2 * error / error.size

def binary_cross_entropy(z, y):
    """Equation (10); y has the shape of z, its entries from 0 to 1."""
    z = check_batch("z", z)
    y = check_batch("y", y, z.shape)
    if y.min() < 0 or y.max() > 1:
        raise ValueError(f"y must hold numbers from 0 to 1, not {y.min():g} to {y.max():g}")
    return np.mean(np.logaddexp(0, z) - y * z), lambda g: g * (sigmoid(z)[0] - y) / z.size

def cross_entropy(z, y):
    """Equation (11); z (n, k), y (n,) labels 0 ... k-1, not all of them needed."""
    z = check_batch("z", z, (None, None))
    n, k = z.shape
    y = check_batch("y", y, (n,))
    truth = y[:, None] == np.arange(k)  # (n, k), True at the label: [j = y]
    if np.count_nonzero(truth) < n:
        raise ValueError(f"y must hold labels from 0 to {k - 1}, not {y[~truth.any(axis=1)][0]:g}")
    z = z - z.max(axis=1, keepdims=True)  # as in softmax
    e = np.exp(z)
    total = e.sum(axis=1, keepdims=True)
    J = (np.log(total).sum() - z[truth].sum()) / n
    return J, lambda g: g / n * (e / total - truth)

BENDS, LOSSES = (sigmoid, tanh, relu, gelu), (squared_error, binary_cross_entropy, cross_entropy)

def torch_functions():
    """The library versions, by ours. torch keeps W as (d_out, d_in), and channels before places."""
    import torch.nn.functional as F
    first, last = (lambda x: x.movedim(-1, 1)), lambda x: x.movedim(1, -1)  # channels
    return {
        sigmoid: F.sigmoid, tanh: F.tanh, relu: F.relu, gelu: F.gelu,
        softmax: lambda z: F.softmax(z, dim=-1), squared_error: lambda z, y: F.mse_loss(z, y),
        cross_entropy: lambda z, y: F.cross_entropy(z, y),  # of logits, though the name is silent
        binary_cross_entropy: lambda z, y: F.binary_cross_entropy_with_logits(z, y),
        linear: lambda x, W, b: F.linear(x, W.T, b),
        residual: lambda x, W, b: x + F.tanh(F.linear(x, W.T, b)),
        layer_norm: lambda x, gain, shift, eps=1e-5: F.layer_norm(x, gain.shape, gain, shift, eps),
        batch_norm: lambda x, gain, shift, mean, variance, **options: last(
            F.batch_norm(first(x), mean, variance, gain, shift, **options)),
        dropout: lambda x, p, training, mask: F.dropout(x, p, training),  # draws its own mask
        conv2d: lambda x, K, b, **options: last(  # K is (d_out, d_in, height, width) there
            F.conv2d(first(x), K.permute(3, 2, 0, 1).contiguous(), b, **options)),
        max_pool2d: lambda x, size, stride=None: last(F.max_pool2d(first(x), size, stride)),
        reshape: lambda x, shape: x.reshape(len(x), *shape)}  # fmt: skip

def beside_torch(f, *inputs, **options):
    """Ours and torch's: output, and gradient for each input, for a random gradient from behind."""
    import torch
    torch.manual_seed(0)  # for the mask of dropout
    leaves = [torch_leaf(x) for x in inputs]
    tensors = {k: torch.tensor(a) for k, a in options.items() if isinstance(a, np.ndarray)}
    theirs = torch_functions()[f](*leaves, **(options | tensors))
    g = np.random.default_rng(0).normal(size=theirs.shape)
    theirs.backward(torch.tensor(g))
    ours, *pulls = f(*inputs, **options)
    return [ours, *(pull(g) for pull in pulls)], [theirs.detach(), *(leaf.grad for leaf in leaves)]

def demo_activations(plot=False):
    """Where each bend stops learning, what a sure mistake costs, and all of it in torch."""
    print("\n== Where does each bend stop learning? Its slope at z = -20, -2, 0, 2, 20 ==\n")
    z, pairs = np.array([-20.0, -2, 0, 2, 20]), {}
    for bend in BENDS:
        _, pull = bend(z)
        print(f"  {bend.__name__:8}" + "".join(f"{slope:9.2g}" for slope in pull(np.ones(5))))
    print(f"  y = 1, but z = -1000: the loss is {binary_cross_entropy([-1000.0], [1.0])[0]:.0f}")
    z = np.outer(z, [1, -0.5, 0.1])
    for f in (*BENDS, softmax, *LOSSES):
        y = np.array([0, 1, 2, 2, 0]) if f is cross_entropy else sigmoid(z[::-1])[0]
        options = {"y": y} if f in LOSSES else {}
        pairs[f"{f.__name__} and gradient"] = beside_torch(f, z, **options)
    return side_by_side("formula", pairs)
# Try: which constant z makes (10) smallest when three labels of four are 1? Predict, then check.
# %% [markdown]
"""
## Layers and backpropagation: a million gradients for the price of two predictions?
A network is a chain of layers, each with its own slope, (3) on whole arrays. Then a step downhill:

    z = xW + b         ∂J/∂x = ḡWᵀ         ∂J/∂W = xᵀḡ         ∂J/∂b = Σ over rows of ḡ      (12)
    J = loss + λ/2 Σ ‖W‖²            p ← p - η ∂J/∂p   for every parameter p                 (13)

In every row Wᵢⱼ takes xᵢ to zⱼ, so it collects Σ over rows of xᵢ ḡⱼ; the shapes leave no choice.
Run forward and keep each pull; get ∂J/∂z from the loss; walk the chain backwards once, handing on
each ∂J/∂x as the next ḡ (Rumelhart, Hinton and Williams, 1986). The penalty counts weights, arrays
of two axes or more; biases are free. A layer costs three matrix products, one forward, two back.

**When it fails.** Units that start with equal weights, in and out, stay copies of each other.
"""
# %%
def linear(x, W, b):
    """Equation (12): x (n, d_in), W (d_in, d_out), b (d_out,). Three inputs, three pulls."""
    W = check_batch("W", W, (None, None))
    x, b = check_batch("x", x, (None, W.shape[0])), check_batch("b", b, W.shape[1:])
    z = x @ W  # (n, d_in) @ (d_in, d_out) -> (n, d_out)
    z += b
    to_x = lambda g: g @ W.T  # (n, d_out) @ (d_out, d_in) -> (n, d_in)
    to_W = lambda g: x.T @ g  # (d_in, n) @ (n, d_out) -> (d_in, d_out)
    to_b = lambda g: g.sum(axis=0)  # (n, d_out) -> (d_out,)
    return z, to_x, to_W, to_b

class Layer:
    """A function f with parameters of its own, options such as padding=1, and what it did last."""
    def __init__(self, f, *params, **options):
        if not callable(f):
            raise TypeError(f"f must be a function, such as relu, not {f!r}")
        self.f, self.options = f, options
        self.params = [np.array(check_batch(f"a parameter of {f.__name__}", p)) for p in params]
        self.out, self.pulls, self.grads = None, [], []

def forward(layers, x, training=False):
    """Send x through the chain; each layer keeps its output and its pulls."""
    for layer in layers:
        if "training" in layer.options:  # as in Layer(dropout, p=0.5, rng=rng, training=False)
            layer.options["training"] = training
        layer.out, *layer.pulls = layer.f(x, *layer.params, **layer.options)
        x = layer.out
    return x

def backward(layers, grad, to_input=True):
    """Send dJ/d(output) back: sets the grads of every layer, returns dJ/dx (None if not asked)."""
    if layers[-1].out is None:
        raise ValueError(f"backward of {layers[-1].f.__name__} needs a call of forward first")
    grad = check_batch("grad", grad, layers[-1].out.shape)
    for layer in reversed(layers):
        to_x, *to_params = layer.pulls
        layer.grads = [pull(grad) for pull in to_params]
        grad = to_x(grad) if to_input or layer is not layers[0] else None
    return grad

def parameters(layers):
    """Every parameter of the network."""
    return [p for layer in layers for p in layer.params]

def train_step(layers, X, y, loss, lr, l2=0.0):
    """Equation (13), once. Changes the layers; returns J as it was before the step."""
    check_number("lr", lr, above=0)
    check_number("l2", l2, least=0)
    with np.errstate(over="ignore", invalid="ignore"):  # what diverges is refused below
        J, pull = loss(forward(layers, X, training=True), y)
        J += l2 / 2 * sum(np.sum(p * p) for p in parameters(layers) if l2 > 0 and p.ndim > 1)
    if not J < LARGEST:  # nan too
        raise ValueError(f"the loss reached {J:.2g}: lr = {lr:g} is too large")
    backward(layers, pull(1.0), to_input=False)  # no step is taken in the data: one product less
    for p, grad in zip(parameters(layers), [g for layer in layers for g in layer.grads]):
        p -= lr * ((grad + l2 * p) if l2 > 0 and p.ndim > 1 else grad)  # in place
    return float(J)

def make_mlp(rng, sizes, bend=relu):
    """A multi-layer perceptron: linear layers of these sizes, (64, 32, 10) say, bends between."""
    layers = []
    for d_in, d_out in itertools.pairwise(sizes):
        W = initial_weights("he", rng.normal(size=(d_in, d_out)))  # explained further down
        layers += [Layer(linear, W, np.zeros(d_out)), Layer(bend)]
    return layers[:-1]  # the loss holds the last bend

def torch_train(layers, batches, loss, lr, l2=0.0):
    """The library version of train_step, once per batch (X, y): J before each step, and parameters.
    `weight_decay` is λ, for biases too unless in a group apart; a chain: `torch.nn.Sequential`."""
    import torch
    library, losses = torch_functions(), []
    params = [[torch_leaf(p) for p in layer.params] for layer in layers]
    every = sum(params, [])
    weights, biases = [p for p in every if p.ndim > 1], [p for p in every if p.ndim == 1]
    optimiser = torch.optim.SGD([{"params": weights, "weight_decay": l2}, {"params": biases}], lr)
    for X, y in batches:
        z = torch.tensor(X)
        for layer, p in zip(layers, params):
            z = library[layer.f](z, *p, **layer.options)
        J = library[loss](z, torch.tensor(y))
        losses.append(J.item() + l2 / 2 * sum((W * W).sum().item() for W in weights))
        optimiser.zero_grad()
        J.backward()
        optimiser.step()
    return losses, [p.detach() for p in every]

def demo_mlp(plot=False):
    """Two half moons, which no line separates; then each bend and loss beside torch."""
    print("\n== Can it learn a bent boundary? Two moons, 20 tanh units, # where p > 1/2 ==\n")
    rng, pairs = np.random.default_rng(0), {}
    X, y = make_moons(rng)
    layers = make_mlp(rng, (2, 20, 1), tanh)
    for _ in range(600):
        train_step(layers, X, y[:, None], binary_cross_entropy, lr=1.0)
    for height in np.linspace(1.3, -0.9, 10):
        z = forward(layers, [[x, height] for x in np.linspace(-1.4, 2.4, 60)])
        print("  " + "".join("#" if score > 0 else "." for score in z[:, 0]))
    X, Y = rng.normal(size=(30, 4)), rng.random((30, 3))
    for bend, loss, l2 in zip(BENDS, [*LOSSES, squared_error], [0.0, 0.01, 0.01, 0.01]):
        y = Y.argmax(axis=1) if loss is cross_entropy else Y
        layers = make_mlp(rng, (4, 8, 8, 3), bend)
        losses, p = torch_train(layers, [(X, y)] * 100, loss, 0.1, l2)
        ours = [train_step(layers, X, y, loss, 0.1, l2) for _ in range(100)], *parameters(layers)
        pairs[f"{bend.__name__}, {loss.__name__}, l2={l2:g}: J and weights"] = ours, [losses, *p]
    return side_by_side("layer", pairs)
# Try: start the moons with every weight at 0.1. How many different units are left after training?
# %% [markdown]
"""
## Gradient check: how do you know that a pull is right?
A wrong one often trains too, only worse. Ask the function itself: nudge one number by h both ways:

    slope ≈ (f(x + h) - f(x - h)) / 2h                                                       (14)
    relative error = ‖analytic - numerical‖ / (‖analytic‖ + ‖numerical‖)                     (15)

Curvature makes (14) wrong by about h², rounding by about 1e-16 / h: the sum is least near h = 1e-5.
A right gradient then has an error (15) below 1e-7, a wrong one seldom below 0.01. Check a layer
through the number Σ u · f(x), for random u. It costs two calls of f per entry.

**When it fails.** Across a kink (a ReLU within h of 0), in float32, if f draws new random numbers.
**What people get wrong.** With u all ones a softmax sums to a constant: (15) then compares noise.
"""
# %%
def numerical_gradient(f, x, h=1e-5):
    """Equation (14) for every entry of x; f takes an array like x and returns a number."""
    check_number("h", h, above=0)
    x = check_batch("x", x).astype(float)
    nudges = h * np.eye(x.size).reshape(x.size, *x.shape)  # one entry at a time
    return np.reshape([(f(x + nudge) - f(x - nudge)) / (2 * h) for nudge in nudges], x.shape)

def relative_error(a, b):
    """Equation (15), from 0 to 1. Two zero gradients agree."""
    size = np.linalg.norm(a) + np.linalg.norm(b)
    return float(np.linalg.norm(np.subtract(a, b)) / size) if size != 0 else 0.0

def check_gradients(rng, f, *inputs, **options):
    """The relative error (15) of each pull of f. Library version: `torch.autograd.gradcheck`."""
    out, *pulls = f(*inputs, **options)
    u, errors = rng.normal(size=np.shape(out)), []
    for i, pull in enumerate(pulls):
        value = lambda x: np.sum(u * f(*inputs[:i], x, *inputs[i + 1 :], **options)[0])
        errors.append(relative_error(pull(u), numerical_gradient(value, inputs[i])))
    return errors

def demo_gradient_check(plot=False):
    """Which h? Then a wrong pull, and right ones."""
    print("\n== How small should the nudge h be? Digits that (14) gets right for tanh at 0.7 ==\n")
    for h in [1e-1, 1e-3, 1e-5, 1e-7, 1e-9, 1e-11]:
        error = relative_error(1 - np.tanh(0.7) ** 2, numerical_gradient(np.tanh, 0.7, h))
        print(f"  h = {h:.0e}  {'#' * round(-math.log10(error))}")
    rng, pairs = np.random.default_rng(0), {}
    x, W = rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
    wrong = lambda z: (np.tanh(z), lambda g: g * (1 - np.tanh(z)))  # the square forgotten
    print(f"  a wrong pull of tanh has a relative error of {check_gradients(rng, wrong, x)[0]:.2f}")
    for f, *inputs in [(linear, x, W, W[0]), *((f, x) for f in (*BENDS, softmax))]:
        pairs[f"{f.__name__}: (15)"] = check_gradients(rng, f, *inputs), [0.0] * len(inputs)
    return side_by_side("gradient check", pairs)
# Try: in `linear` take the mean of g over the rows for b. What error do you expect?
# %% [markdown]
"""
## Autograd: must we derive a pull for every new formula?
No: a formula is built from a few operations whose pulls are known. Record each as it runs, with an
edge to everything it was made from. Backpropagation is then one walk over that graph:

    ḡ(source) ← ḡ(source) + pull(ḡ(result))      for every edge from result to source        (16)
    c = a + b     to a: ḡ            to b: ḡ              c = sum a     ḡ, once per entry
    c = a b       to a: ḡ b          to b: ḡ a            c = a[i]      ḡ, put back at i
    c = a @ b     to a: ḡ bᵀ         to b: aᵀ ḡ           c = φ(a)      ḡ φ'(a)              (17)

By hand, f = (a + b) b with a = 2 and b = 3. The inner tensor is s = a + b = 5. First f pulls:
ḡ(s) = b = 3, ḡ(b) = s = 5. Then s pulls: ḡ(a) = 3, and ḡ(b) = 5 + 3 = 8. A tensor may pull only
after all that were made from it. Those are younger: so let the youngest that waits pull next. No
function calls itself, so no depth is too deep. The ḡ of s lives for one walk; leaves keep theirs.

**When it fails.** In a tiny network checks and book-keeping cost more than the arithmetic.
**What people get wrong.** A value used twice, as b here, gets two pulls: they add. Where numpy
repeats a small array to fit a large one, the gradients of the copies must be summed.
"""
# %%
def unbroadcast(grad, shape):
    """Sum grad over the axes along which numpy repeated an array of this shape."""
    if grad.shape != shape:
        grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))  # axes that were put in front
        grad = grad.sum(axis=tuple(np.flatnonzero(np.less(shape, grad.shape))), keepdims=True)
    return grad

def matmul(a, b):
    """Equation (17), for stacks of matrices too; a vector is a row left and a column right."""
    if b.ndim == 1:
        return a @ b, lambda g: g[..., None] * b, lambda g: g[..., None] * a
    if a.ndim == 1:
        to_a = lambda g: (g[..., None, :] * b).sum(axis=-1)
        return a @ b, to_a, lambda g: a[:, None] * g[..., None, :]
    return a @ b, lambda g: g @ b.swapaxes(-1, -2), lambda g: a.swapaxes(-1, -2) @ g

def operation(f):
    """An operation on tensors from f, any function of this chapter with pulls."""
    def on_tensors(*inputs, **options):
        arrays = [x.data if isinstance(x, Tensor) else check_batch("a term", x) for x in inputs]
        out, *pulls = f(*arrays, **options)
        return Tensor(out, [(x, pull) for x, pull in zip(inputs, pulls) if isinstance(x, Tensor)])
    return on_tensors

class Tensor:
    """An array and its edges, (source, pull) pairs: none in a leaf, which the reader makes."""
    births = itertools.count()
    __array_ufunc__ = None  # leaves array + tensor to our __radd__
    def __init__(self, data, edges=None):
        self.data = np.array(check_batch("data", data)) if edges is None else np.asarray(data)
        self.edges, self.grad, self.birth = edges or [], None, next(Tensor.births)
    def backward(self, grad=None):
        """Equation (16): add dJ/d(leaf) to the grad of each leaf, as torch; grad is dJ/d(this)."""
        if grad is None and self.data.size > 1:
            raise ValueError(f"backward needs grad, of shape {self.data.shape}, as J is no number")
        grad = np.ones_like(self.data) if grad is None else grad
        pulled, waiting = {self: check_batch("grad", grad, self.data.shape)}, [(-self.birth, self)]
        while waiting:
            _, result = heapq.heappop(waiting)  # the youngest
            grad = pulled.pop(result)  # complete; unless result is a leaf, it ends with this walk
            if not result.edges:
                result.grad = grad + (0 if result.grad is None else result.grad)
            for source, pull in result.edges:
                part = unbroadcast(pull(grad), source.data.shape)
                if source not in pulled:
                    heapq.heappush(waiting, (-source.birth, source))
                pulled[source] = part + pulled[source] if source in pulled else part
    # Equation (17): the result, and a pull for each source. An exponent p is a number, no tensor.
    __add__ = operation(lambda a, b: (a + b, lambda g: g, lambda g: g))
    __sub__ = operation(lambda a, b: (a - b, lambda g: g, lambda g: -g))
    __mul__ = operation(lambda a, b: (a * b, lambda g: g * b, lambda g: g * a))
    __pow__ = operation(lambda a, p: (a**p, lambda g: g * p * a ** (p - 1 if p != 0 else 1)))
    __matmul__ = operation(matmul)
    exp = operation(lambda a: (np.exp(a), lambda g: g * np.exp(a)))
    tanh, relu = operation(tanh), operation(relu)
    def log(self):
        """The natural logarithm, of numbers above 0."""
        if self.data.min() <= 0:
            raise ValueError(f"log needs numbers above 0, not {self.data.min():g}")
        return Tensor(np.log(self.data), [(self, lambda g: g / self.data)])
    def sum(self, axis=None):
        """Sum over an axis, several, or all."""
        c = self.data.sum(axis, keepdims=True)
        spread = lambda g: g.reshape(c.shape) * np.ones_like(self.data)
        return Tensor(c.squeeze(axis), [(self, spread)])
    def max(self, axis=None):
        """Largest entry. Ties share the gradient, as in torch's amax; its max takes the first."""
        c = self.data.max(axis, keepdims=True)
        share = (self.data == c) / (self.data == c).sum(axis, keepdims=True)
        return Tensor(c.squeeze(axis), [(self, lambda g: g.reshape(c.shape) * share)])
    def __getitem__(self, index):
        def put_back(g):
            whole = np.zeros_like(self.data)
            np.add.at(whole, index, g)  # an entry taken twice gets both
            return whole
        return Tensor(self.data[index], [(self, put_back)])
    __radd__, __rmul__ = __add__, __mul__  # the rest follows from what is there
    __rmatmul__ = lambda a, b: operation(matmul)(b, a)
    reshape = lambda a, *new: Tensor(a.data.reshape(new), [(a, lambda g: g.reshape(a.data.shape))])
    __neg__ = lambda a: a * -1.0
    __rsub__ = lambda a, b: -a + b
    __truediv__ = lambda a, b: a * b**-1.0
    __rtruediv__ = lambda a, b: a**-1.0 * b

def demo_autograd(plot=False):
    """The graph of the text, a network without its pulls, a formula in torch."""
    print("\n== Can a machine derive backpropagation? f = (a + b) b, with a = 2 and b = 3 ==\n")
    a, b, rng = Tensor(2.0), Tensor(3.0), np.random.default_rng(0)
    f = (a + b) * b
    for times in [1, 2]:
        f.backward()
        print(f"  after backward number {times}: grad of a = {a.grad:g}, of b = {b.grad:g}")
    x, y, layers = rng.normal(size=(20, 4)), np.arange(20) % 3, make_mlp(rng, (4, 8, 3), tanh)
    J, pull = cross_entropy(forward(layers, x), y)
    backward(layers, pull(1.0))
    def entropy(W, b, V, c):  # the same network as a formula, with (11) as it stands
        z = (x @ W + b).tanh() @ V + c
        return (z.exp().sum(1).log() - z[np.arange(20), y]) / 20
    engine = gradients(Tensor, entropy, *parameters(layers))
    f = lambda a, b: (a * b).exp() / (a * a + 1) - b.relu() ** 2
    return side_by_side("formula", {
        "an MLP by hand, gradients": (engine, [J, *layers[0].grads, *layers[2].grads]),
        "f in torch, gradients": [gradients(t, f, x[:3, :1], x[3]) for t in (Tensor, torch_leaf)]})
# Try: f = a * a with a = 3. Predict a.grad after one backward, then after three.
# %% [markdown]
"""
## Initialisation: why do deep networks need a careful start?
Multiply by twenty matrices in a row, and numbers vanish or explode. Let x have mean square q, and W
independent entries of mean 0 and variance v. Each z is a sum of d_in terms, each slope of d_out:

    mean square of z = d_in v q          of ∂J/∂x = d_out v · mean square of ḡ               (18)
    Xavier   v = 2 / (d_in + d_out)   for tanh         He   v = 2 / d_in   for ReLU          (19)
    residual block   a = x + F(x)     ∂J/∂x = ḡ + (pull of F)(ḡ)                             (20)

To keep both, v must be 1 / d_in and 1 / d_out; Xavier (Glorot and Bengio, 2010) takes the middle,
and tanh still shrinks x slowly. He (He et al., 2015) doubles, as a ReLU halves the mean square. The
other cure is a shorter path (He et al., 2016): the ḡ of (20) reaches the bottom undiminished.

**When it fails.** Blocks add up: use a norm too (next section). At v = 1 most tanh units are flat.
**What people get wrong.** v is a variance: the weights are √v, not v, times standard normal draws.
"""
# %%
def initial_weights(method, draws):
    """Equation (19): standard normal draws (..., d_in, d_out), scaled by sqrt(v)."""
    draws = check_batch("draws", draws)
    if method not in ("xavier", "he") or draws.ndim < 2:
        raise ValueError(f"method must be xavier or he, not {method!r}; draws need 2 axes")
    d_in, d_out = draws.size // draws.shape[-1], draws.size // draws.shape[-2]
    return math.sqrt(2 / d_in if method == "he" else 2 / (d_in + d_out)) * draws

def residual(x, W, b):
    """Equation (20) with F(x) = tanh(xW + b); x (n, d), W (d, d), b (d,)."""
    z, to_x, to_W, to_b = linear(x, check_batch("W", W, 2 * np.shape(b)), b)
    a, to_z = tanh(z)
    return x + a, lambda g: g + to_x(to_z(g)), lambda g: to_W(to_z(g)), lambda g: to_b(to_z(g))

def deep_chain(bend, v, depth=20, width=100):
    """A chain whose weights have variance v, and the mean square of x at each depth, as in (18)."""
    rng, layers = np.random.default_rng(0), []
    x = rng.normal(size=(100, width))
    for _ in range(depth):
        W, b = math.sqrt(v) * rng.normal(size=(width, width)), np.zeros(width)
        layers += [Layer(bend, W, b)] if bend is residual else [Layer(linear, W, b), Layer(bend)]
    forward(layers, x)
    return layers, np.array([np.mean(layer.out**2) for layer in layers if layer.f is bend])

def torch_initial_weights(method, shape, seed):
    """The library version, which says `kaiming_normal_` for He: draws and the weights made of them.
    A fresh `torch.nn.Linear` uses neither, but v = 1 / (3 d_in), a third of what keeps the size."""
    import torch
    scaled = {"he": torch.nn.init.kaiming_normal_, "xavier": torch.nn.init.xavier_normal_}[method]
    blank = torch.zeros(2, *shape[::-1], dtype=torch.float64)  # torch: outputs first
    for fill, array in zip([torch.nn.init.normal_, scaled], blank):
        fill(array, generator=torch.Generator().manual_seed(seed))
    return [array.numpy().T for array in blank]

def draw_curves(ax, curves, xlabel, ylabel):
    """Named curves on a log scale."""
    for name, curve in curves.items():
        ax.semilogy(range(1, len(curve) + 1), curve, "--" if "tanh" in name else "-", label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()

def demo_initialisation(plot=False):
    """Mean square of the activations by depth, for each start; then the same in torch."""
    print("\n== What is left of a signal, 100 units wide? Mean square at depth 1, 5, 10, 20 ==\n")
    starts, curves, pairs = {"0.0001": 1e-4, "1": 1, "Xavier": 0.01, "He": 0.02}, {}, {}
    for bend, (name, v) in itertools.product([tanh, relu], starts.items()):
        key = f"{bend.__name__}, v = {name}"
        curves[key] = deep_chain(bend, v)[1]
        print(f"  {key:16}" + "".join(f"{curves[key][i]:10.1e}" for i in [0, 4, 9, 19]))
    for bend in [tanh, residual]:
        (layers, _), x = deep_chain(bend, 0.005), np.full((1, 100), 0.1)
        dx = backward(layers, np.ones_like(forward(layers, x)))
        print(f"  20 x {bend.__name__}, v = 0.005: |dJ/dx| = {np.linalg.norm(dx):.1e}, |g| = 10")
    pairs["residual"] = beside_torch(residual, x, *layers[0].params)
    for method, shape in itertools.product(["xavier", "he"], [(100, 50), (3, 3, 4, 8)]):
        draws, weights = torch_initial_weights(method, shape, seed=0)
        pairs[f"{method}, shape {shape}"] = initial_weights(method, draws), weights
    if plot:
        draw = lambda ax: draw_curves(ax, curves, "depth (layers)", "mean square of activations")
        save_plot("neural_networks_initialisation.png", draw)
    return side_by_side("formula", pairs)
# Try: give the ReLU chain v = 3 / d_in. How much larger is the mean square twenty layers on?
# %% [markdown]
"""
## Normalisation and dropout: can a network keep its own numbers in range?
A norm centres and scales groups of m numbers; then the network chooses its own scale γ and shift β:

    x̂ = (x - μ) / s         s = √(variance + ε)         a = γ x̂ + β                          (21)
    ∂J/∂x = (g - mean(g) - x̂ · mean(g x̂)) / s           g = γ ḡ                              (22)
    running ← (1 - ρ) · running + ρ · (μ, and m / (m - 1) · variance)                        (23)
    dropout      a = x · mask / (1 - p)   in training          a = x   at prediction         (24)

Batch norm (Ioffe and Szegedy, 2015) groups the rows: μ (mu, the mean) and s per feature. Layer norm
(Ba et al., 2016) groups the features: μ and s per row. The means in (22) are there because μ and s
depend on x too. One row has no batch to compare with: batch norm tracks running averages (23),
momentum ρ (rho), and uses them at prediction. Dropout (Srivastava et al., 2014) sets entries to 0
with probability p, so that no unit relies on another; dividing by 1 - p keeps the mean.

**When it fails.** Batch norm on small batches, whose μ is noise; one row is refused in training.
**What people get wrong.** They forget to switch to prediction, or the means in (22), or they take
mean(x²) - μ² for the variance: near x = 1e8 that cancels to nonsense.
"""
# %%
def normalise(x, gain, shift, mu, variance, eps, axes):
    """Equation (21) and its pulls. axes: those of the means in (22), None if mu is a constant."""
    check_number("eps", eps, above=0)
    gain, shift = check_batch("gain", gain, x.shape[-1:]), check_batch("shift", shift, x.shape[-1:])
    scale = 1 / np.sqrt(variance + eps)  # 1 / s
    xhat = (x - mu) * scale
    rows = tuple(range(x.ndim - 1))  # all axes but the last
    def to_x(g):
        g = g * gain
        if axes is not None:
            g -= g.mean(axes, keepdims=True) + xhat * (g * xhat).mean(axes, keepdims=True)
        return g * scale
    to_gain = lambda g: (g * xhat).sum(axis=rows)
    return xhat * gain + shift, to_x, to_gain, lambda g: g.sum(axis=rows)

def layer_norm(x, gain, shift, eps=1e-5):
    """Equations (21) and (22) over the last axis; gain and shift (d,)."""
    x = check_batch("x", x)
    mu, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return normalise(x, gain, shift, mu, variance, eps, axes=-1)

def batch_norm(x, gain, shift, mean, variance, training=False, momentum=0.1, eps=1e-5):
    """Equations (21) to (23) over all axes but the last; training moves mean and variance. numpy
    passes over x once per operation, and takes twice torch's time."""
    x = check_batch("x", x)
    check_number("momentum", momentum, least=0, most=1)
    for name, average in [("mean", mean), ("variance", variance)]:
        if check_batch(name, average, x.shape[-1:]) is not average:
            raise TypeError(f"{name} must be an array of floats: training updates it in place")
    if not training:
        return normalise(x, gain, shift, mean, variance, eps, axes=None)
    rows, m = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    if m == 1:
        raise ValueError(f"batch norm needs 2 rows in training, not x of shape {x.shape}")
    mu, spread = x.mean(axis=rows), x.var(axis=rows)
    result = normalise(x, gain, shift, mu, spread, eps, axes=rows)
    mean += momentum * (mu - mean)
    variance += momentum * (spread * m / (m - 1) - variance)
    return result

def dropout(x, p, rng=None, mask=None, training=False):
    """Equation (24). rng draws the mask (1 stays, 0 goes), if none is given."""
    x = check_batch("x", x)
    check_number("p", p, least=0, below=1)
    if not training:
        return x, lambda g: g
    if mask is None and rng is None:
        raise ValueError("dropout needs rng or mask in training")
    mask = rng.random(x.shape) >= p if mask is None else check_batch("mask", mask, x.shape)
    factor = (mask / (1 - p)).astype(x.dtype)
    return x * factor, lambda g: g * factor

def demo_normalisation(plot=False):
    """One large feature, normed by columns and by rows; then training and prediction in torch."""
    import torch
    print("\n== What does a norm do to a table whose second feature is 1000 times larger? ==\n")
    table, one, o = np.array([[1.0, 1000, 3], [2, 3000, 5], [3, 2000, 1]]), np.ones(3), np.zeros(3)
    print(f"{batch_norm(table, one, o, o.copy(), one.copy(), True)[0].round(2) + 0} batch norm")
    print(f"{layer_norm(table, one, o)[0].round(2) + 0} layer norm")
    rng, averages = np.random.default_rng(0), [np.zeros(4), np.ones(4)]
    inputs = rng.normal(5, 3, size=(16, 4)), rng.normal(size=4), rng.normal(size=4)
    pairs = {"layer norm and gradients": beside_torch(layer_norm, *inputs)}
    torch.manual_seed(0)
    mask = torch.nn.functional.dropout(torch.ones(16, 4), 0.3).numpy() > 0
    for training, when in [(True, "in training"), (False, "at prediction")]:
        start = {"mean": np.zeros(4), "variance": np.ones(4), "training": training}
        pairs[f"batch norm and gradients, {when}"] = beside_torch(batch_norm, *inputs, **start)
        options = {"p": 0.3, "mask": mask, "training": training}
        pairs[f"dropout and gradient, {when}"] = beside_torch(dropout, inputs[0], **options)
    module = torch.nn.BatchNorm1d(4, dtype=torch.float64)
    module(torch.tensor(inputs[0]))
    batch_norm(*inputs, *averages, training=True)
    pairs["running averages"] = averages, (module.running_mean, module.running_var)
    return side_by_side("layer", pairs)
# Try: predict the mean of dropout(p=0.5) of a million ones, in training and at prediction.
# %% [markdown]
"""
## Convolution and pooling: must each place in an image learn anew?
A convolution looks for one small pattern, its kernel K, everywhere in an image padded with zeros:
at place (i, j), stride s apart, for output channel o. Max pooling keeps the largest of each window:

    z[i, j, o] = b[o] + Σᵤ Σᵥ Σ_c x[s i + u, s j + v, c] K[u, v, c, o]                       (25)
    z[i, j, c] = max over u, v of x[s i + u, s j + v, c]                                     (26)

(25) is a linear layer on patches: cut out each patch as a row, and z = patches · K + b. So (12)
gives the gradients; what is left is to add that of each patch back to the place it was cut from.
In (26) the gradient goes to the winner alone; of equal values the first, row by row, wins.

**When it fails.** Where the exact place matters: pooling forgets it.
**What people get wrong.** Mathematicians flip K in a convolution. To learning it is all the same.
"""
# %%
def places_in(x, height, width, stride):
    """For each (u, v) of a window: the slice of x (n, h, w, c) with that entry of all windows."""
    check_number("stride", stride, least=1, integer=True)
    if x.shape[1] < height or x.shape[2] < width:
        raise ValueError(f"x of shape {x.shape}, padding and all, has no {height} x {width} window")
    h, w = x.shape[1] - height + 1, x.shape[2] - width + 1
    return [np.s_[:, u : u + h : stride, v : v + w : stride] for u, v in np.ndindex(height, width)]

def conv2d(x, K, b, stride=1, padding=0):
    """Equation (25): x (n, h, w, c), K (height, width, c, out), b (out,) -> z (n, H, W, out)."""
    K = check_batch("K", K, (None, None, None, None))
    height, width, c, out = K.shape
    x = check_batch("x", x, (None, None, None, c))
    p = check_number("padding", padding, least=0, integer=True)
    padded = np.pad(x, [(0, 0), (p, p), (p, p), (0, 0)])
    places = places_in(padded, height, width, stride)
    patches = np.concatenate([padded[place] for place in places], axis=3)  # (n, H, W, u v c)
    z, _, to_K, to_b = linear(patches.reshape(-1, height * width * c), K.reshape(-1, out), b)
    rows = lambda g: g.reshape(z.shape)  # (n, H, W, out) -> (n H W, out)
    def to_x(g):
        dx = np.zeros_like(padded)
        for place, M in zip(places, K.reshape(-1, c, out)):  # M is K at one (u, v)
            dx[place] += (rows(g) @ M.T).reshape(*g.shape[:3], c)
        return dx[:, p : p + x.shape[1], p : p + x.shape[2]]
    return (z.reshape(*patches.shape[:3], out), to_x,
            lambda g: to_K(rows(g)).reshape(K.shape), lambda g: to_b(rows(g)))

def max_pool2d(x, size, stride=None):
    """Equation (26): x (n, h, w, c) -> (n, H, W, c); the stride is size if none is given."""
    x = check_batch("x", x, (None, None, None, None))
    check_number("size", size, least=1, integer=True)
    places = places_in(x, size, size, size if stride is None else stride)
    best = np.max([x[place] for place in places], axis=0)
    def to_x(g):
        dx, free = np.zeros_like(x), np.ones(best.shape, bool)  # free: no winner found yet
        for place in places:
            won = (x[place] == best) & free
            free ^= won
            dx[place] += g * won
        return dx
    return best, to_x

def reshape(x, shape):
    """Each row of x in another shape: 64 pixels as an (8, 8, 1) image, an image as (-1,) again."""
    x = check_batch("x", x)
    return x.reshape(x.shape[:1] + shape), lambda g: g.reshape(x.shape)

def demo_convolution(plot=False):
    """A kernel that finds vertical edges in a small picture; then strides, padding, ties."""
    print("\n== What does the 1 x 2 kernel (-1, 1) see in a picture? Only vertical edges ==\n")
    rows, sign = ["..##..", "..##..", "......"], {-1: "-", 0: ".", 1: "+"}
    picture = np.array([[[[float(c == "#")] for c in row] for row in rows]])  # (1, 3, 6, 1)
    z, *_ = conv2d(picture, [[[[-1.0]], [[1.0]]]], [0.0])
    for row, found in zip(rows, z[0, :, :, 0]):
        print(f"  {row} -> {''.join(sign[edge] for edge in found)}")
    rng, pairs = np.random.default_rng(0), {}
    x, K, b = rng.normal(size=(2, 7, 6, 3)), rng.normal(size=(3, 2, 3, 4)), rng.normal(size=4)
    for stride, padding in itertools.product([1, 2], [0, 1]):
        what = f"conv2d and gradients, stride {stride}, padding {padding}"
        pairs[what] = beside_torch(conv2d, x, K, b, stride=stride, padding=padding)
    for stride, (what, x) in itertools.product([1, 3], [("normal", x), ("all ties", x * 0 + 1)]):
        what = f"max_pool2d and gradient, {what}, stride {stride}"
        pairs[what] = beside_torch(max_pool2d, x, size=3, stride=stride)
    return side_by_side("layer", pairs)
# Try: turn the picture by 90 degrees. What does the kernel see, and which sees what it saw before?
# %% [markdown]
"""
## Training on digits: does all this read handwriting?
Training goes in epochs: shuffle the rows, cut them into mini-batches, one step (13) for each (why:
optimization.py). The training loss falls on and on, while the network learns its rows by heart. So
keep some rows for validation, to say when to stop, and test rows nobody sees until the end. Early
stopping (27): after an epoch with the lowest validation loss so far, keep a copy of the parameters;
after `patience` epochs without one, stop, and go back to the copy. A CNN, a convolutional network,
is told that near pixels belong together; the MLP must find out, and on 1293 small digits it does.

**When it fails.** With few validation rows, whose loss is noise itself.

**What people get wrong.** Choosing the epoch by the test rows: it makes the score too good.
"""
# %%
def batches_of(rng, n, batch_size):
    """The row numbers 0 ... n-1, shuffled, in parts of almost equal size."""
    return np.array_split(rng.permutation(n), math.ceil(n / batch_size))

def fit_network(rng, layers, X, y, loss=cross_entropy, lr=0.3, l2=0.0, epochs=30, batch_size=32,
                validation=None, patience=10):
    """Mini-batch training, with early stopping (27) if validation = (X, y) is given. Changes the
    layers. Returns the mean training J and the validation loss (or nan) of each epoch."""
    X = check_batch("X", X)
    y = check_batch("y", y, (len(X), *np.shape(y)[1:]))
    for name, value in [("epochs", epochs), ("batch_size", batch_size), ("patience", patience)]:
        check_number(name, value, least=1, integer=True)
    averages = [a for layer in layers for a in layer.options.values() if isinstance(a, np.ndarray)]
    learned = [*parameters(layers), *averages]
    history, best, lowest, kept = [], 0, math.inf, []
    for epoch in range(epochs):
        batches = batches_of(rng, len(X), batch_size)
        J = np.mean([train_step(layers, X[i], y[i], loss, lr, l2) for i in batches])
        judged = loss(forward(layers, validation[0]), validation[1])[0] if validation else math.nan
        history.append((J, judged))
        if judged < lowest:
            best, lowest, kept = epoch, judged, [a.copy() for a in learned]
        if validation and epoch - best >= patience:
            break
    for array, copy in zip(learned, kept):
        array[...] = copy
    return np.array(history)

def make_cnn(rng):
    """Twice a 3 x 3 convolution, a ReLU and pooling by 2, from 8 x 8 to 2 x 2; then linear."""
    K1 = initial_weights("he", rng.normal(size=(3, 3, 1, 16)))
    K2 = initial_weights("he", rng.normal(size=(3, 3, 16, 32)))
    return [
        Layer(reshape, shape=(8, 8, 1)),
        Layer(conv2d, K1, np.zeros(16), padding=1), Layer(relu), Layer(max_pool2d, size=2),
        Layer(conv2d, K2, np.zeros(32), padding=1), Layer(relu), Layer(max_pool2d, size=2),
        Layer(reshape, shape=(-1,)), *make_mlp(rng, (2 * 2 * 32, 10))]  # fmt: skip

def load_digits_split(fold=0):
    """Pixels from 0 to 1, and labels: 1293 rows to train, 144 to validate, 360 to test."""
    from sklearn.datasets import load_digits
    check_number("fold", fold, least=0, most=4, integer=True)
    X, y = load_digits(return_X_y=True)
    train, test = k_fold(len(X), 5, np.random.default_rng(0))[fold]
    train = np.random.default_rng(fold).permutation(train)
    return [(X[part] / 16, y[part]) for part in (train[144:], train[:144], test)]

def sklearn_mlp(X, y, lr=0.3, epochs=30, batch_size=32):
    """The library version, fitted. It draws its own start and validation rows: compare scores."""
    from sklearn.neural_network import MLPClassifier
    return MLPClassifier((128, 64), solver="sgd", momentum=0, alpha=0, batch_size=batch_size,
                         learning_rate_init=lr, max_iter=epochs, early_stopping=True,
                         random_state=0).fit(X, y)

def demo_digits(plot=False):
    """An MLP and a CNN read digits; torch on the same path, and scikit-learn on the same rows."""
    print("\n== Does it read handwriting? 1293 digits to learn, 144 to stop, 360 to test ==\n")
    (X, y), validation, (X_test, truth) = load_digits_split()
    start = perf_counter()
    library = sklearn_mlp(X, y)
    print(f"  MLPClassifier: {library.n_iter_} epochs in {perf_counter() - start:.2f} s")
    rng, losses, scores, curves = np.random.default_rng(0), {}, {}, {}
    mlp, cnn = make_mlp(rng, (64, 128, 64, 10)), make_cnn(rng)
    torch_train(mlp, [], cross_entropy, 0.1)  # no step: torch loads what it needs, off the clock
    for name, layers, lr, size, epochs in [("MLP", mlp, 0.3, 32, 20), ("CNN", cnn, 0.2, 16, 8)]:
        rng, t0 = np.random.default_rng(0), perf_counter()
        batches = [(X[i], y[i]) for _ in range(4) for i in batches_of(rng, len(X), size)]
        theirs, _ = torch_train(layers, batches, cross_entropy, lr)
        rng, t1 = np.random.default_rng(0), perf_counter()
        ours = fit_network(rng, layers, X, y, cross_entropy, lr, 0.0, epochs, size, validation)
        t, kept = (perf_counter() - t1) / len(ours), ours[:, 1].argmin() + 1
        print(f"  {name}: epoch {kept} of {len(ours)}, each {t:.3f} s; torch {(t1 - t0) / 4:.3f} s")
        read = forward(layers, X_test).argmax(axis=1)
        wrong = np.argwhere(confusion_matrix(truth, read) * (1 - np.eye(10)))
        print("    takes", ", ".join(f"{digit} for {other}" for digit, other in wrong))
        losses[f"{name}: J, 4 epochs"] = ours[:4, 0], np.reshape(theirs, (4, -1)).mean(axis=1)
        scores[f"{name}, MLPClassifier"] = [accuracy(truth, read)], [library.score(X_test, truth)]
        curves |= {f"{name}, training": ours[:, 0], f"{name}, validation": ours[:, 1]}
    if plot:
        rows = np.pad(mlp[0].params[0].T[:32].reshape(4, 8, 8, 8), ((0,), (0,), (1,), (1,)))
        def draw(left, right):
            draw_curves(left, curves, "epoch", "loss")
            right.imshow(np.vstack([np.hstack(row) for row in rows]), cmap="coolwarm")
            right.set(title="weights of 32 first units: red adds", xticks=[], yticks=[])
        save_plot("neural_networks_digits.png", draw, panels=2, size=(11, 4.5))
    return side_by_side("training", losses) + side_by_side("accuracy", scores)
# Try: train on 200 digits, for 60 epochs each. Which loses more, the MLP or the CNN?
# %%
if __name__ == "__main__":
    run_chapter("Backpropagation by hand and by machine, equal to torch.", [
        demo_neuron, demo_activations, demo_mlp, demo_gradient_check, demo_autograd,
        demo_initialisation, demo_normalisation, demo_convolution, demo_digits])  # fmt: skip

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch==2.13.0", "scikit-learn", "matplotlib"]
# ///
