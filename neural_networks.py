# %% [markdown]
"""
# Neural networks: how can a machine learn a bent line?

A linear model draws one straight line. A neural network stacks linear maps with bends between them
and learns them all at once by the chain rule, applied from the loss backwards: backpropagation.
Nothing but numpy is needed before a function called `torch_...`, the library version.

    n, d, k   examples; features or channels; classes
    x         what enters a layer, one example per row; images channels last      (n, d_in)
    W, b      weights and bias of a layer                                          (d_in, d_out)
    z, a      before and after the bend φ (phi): z = xW + b, a = φ(z)              (n, d_out)
    σ, Φ      sigma: the sigmoid; Phi: share of a standard normal below a point
    J, ḡ      the loss; the gradient from behind, ∂J/∂(output), in the code `g`, `grad`
    η, λ      eta, the size of a step: `lr`; lambda, the price of large weights: `l2`
    γ, β, ε   gamma, beta: learned scale and shift of a norm, `gain`, `shift`; epsilon: `eps`
    K         kernel of a convolution                          (height, width, d_in, d_out)
"""

# %%
import copy
import itertools
import math
import time

import numpy as np

from utils import LARGEST, accuracy, check_array, check_number, compare, k_fold, make_moons
from utils import report, run_chapter, save_plot

# How close scratch and library must be, relative to max(1, largest number), and why.
ALLOWED = {
    "activations and losses": (1e-12, "one formula per entry and a mean, in float64"),
    "MLP": (1e-10, "100 steps carry on the rounding of the first"),
    "gradient check": (1e-6, "central differences: h^2 of curvature, 1e-16 / h of rounding"),
    "autograd": (1e-12, "the same float64 operations in another order"),
    "initialisation": (1e-12, "one square root, one product per weight"),
    "normalisation": (1e-10, "dividing by a small spread enlarges rounding"),
    "convolution": (1e-10, "sums of products in another order"),
    "training": (1e-8, "a thousand steps carry on the rounding of the first"),
    "accuracy": (0.03, "another start: two networks differ on a few of 360 digits"),
}

def check_batch(name, x, *shape):
    """x as a float array (float32 stays), not empty, every number finite; shape holds the size of
    each axis, None where any will do, and nothing where any shape will."""
    if not (isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.size and np.isfinite(x).all()):
        x = check_array(name, x, len(shape) or np.asarray(x, dtype=object).ndim)  # or complains
    if shape and (len(shape) != x.ndim or any(s not in (None, t) for s, t in zip(shape, x.shape))):
        raise ValueError(f"{name} must have shape {shape}, not {x.shape} (None: any size)")
    return x

def rows(row, title, pairs):
    """A comparison for each (what, ours, theirs), by the tolerance of ALLOWED[row]."""
    return [compare(title + what, *pair, *ALLOWED[row]) for what, *pair in pairs]

# %% [markdown]
"""
## One neuron: which way should each weight move?

A neuron weighs its inputs, adds a bias, and bends the sum. The loss says how far off it is. The
chain rule multiplies the slopes on the way back, one factor per step forward:

    z = w·x + b        a = σ(z) = 1 / (1 + exp(-z))        J = (a - y)² / 2                  (1)
    ∂J/∂z = (a - y) · a (1 - a)                                                              (2)
    ∂J/∂w = ∂J/∂z · x          ∂J/∂b = ∂J/∂z          ∂J/∂x = ∂J/∂z · w                      (3)

Each is (slope from behind) times (own slope): the shape of every layer below. Note what (3) needs:
the input x. So the way forward keeps what the way back will use. By hand: x = (1, 2), w = (2, -1),
b = 0, y = 1 give z = 0, a = 1/2, J = 1/8. Going back, ∂J/∂z = (1/2 - 1) · 1/4 = -1/8, so ∂J/∂w =
(-1/8, -1/4): both weights should grow. It fails where σ is flat: for |z| > 10 all gradients are
nearly 0, however wrong the answer is.
"""

# %%
def neuron(x, w, b, y):
    """Equations (1) to (3) for one example: J, and its gradients for x, w and b."""
    x = check_batch("x", x, None)
    w = check_batch("w", w, len(x))
    a = (1 + math.tanh((w @ x + check_number("b", b)) / 2)) / 2  # (1), which cannot overflow so
    error = a - check_number("y", y)
    dz = error * a * (1 - a)  # (2)
    return error**2 / 2, dz * w, dz * x, dz  # (3)

def torch_leaf(array):
    """A torch tensor: it records what is done with it, and backward fills its `.grad`."""
    import torch
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)

def gradients(make, f, *arrays):
    """The library version: f of tensors, summed, and its gradient for each; make is torch_leaf."""
    leaves = [make(array) for array in arrays]
    out = f(*leaves).sum()
    out.backward()
    return [float(out.data), *(leaf.grad for leaf in leaves)]

def demo_neuron(plot=False):
    """The numbers of the text."""
    print("\n== Which way should each weight of one neuron move? ==")
    inputs = [1.0, 2.0], [2.0, -1.0], 0.0
    formula = lambda x, w, b: ((1 + (-(w @ x + b)).exp()) ** -1 - 1.0) ** 2 / 2
    ours, theirs = neuron(*inputs, 1.0), gradients(torch_leaf, formula, *inputs)
    for name, value in zip(names := ("J", "dJ/dx", "dJ/dw", "dJ/db"), ours):
        print(f"  {name:5} = {value}")
    return report(rows("activations and losses", "", zip(names, ours, theirs)))

# Try: start from w = (-20, -1). The answer is all wrong; how large is the gradient?

# %% [markdown]
"""
## Activations and losses: where to bend, and what to make small?

Two linear maps in a row are one: (xV)W = x(VW). A bend φ between them, entry by entry, is what
depth is for. A softmax bends a whole row of scores z, the logits, into probabilities:

    sigmoid      a = 1 / (1 + exp(-z))            a' = a (1 - a)                             (4)
    tanh         a = tanh z                       a' = 1 - a²                                (5)
    ReLU         a = max(z, 0)                    a' = 1 if z > 0, else 0                    (6)
    GELU         a = z Φ(z)                       a' = Φ(z) + z exp(-z²/2) / √(2π)           (7)
    softmax      pᵢ = exp(zᵢ) / Σⱼ exp(zⱼ)        ∂J/∂zᵢ = pᵢ (ḡᵢ - Σⱼ ḡⱼ pⱼ)                (8)

Sigmoid and tanh are flat far from 0. A ReLU whose z is negative on all rows gets no gradient and
stays dead. In (8) every p depends on every z; keeping only the diagonal is a common error.
A loss is a mean, so that one step size suits any n: the squared error for numbers, for labels
-log(probability of the truth). The gradient is prediction minus truth, over the count:

    squared error          mean of (z - y)²                           2 (z - y)              (9)
    binary cross-entropy   mean of log(1 + exp(z)) - y z              σ(z) - y               (10)
    cross-entropy          mean over rows of log Σⱼ exp(zⱼ) - z_y     pⱼ - [j = y]           (11)

Written with p instead of z these fail: a sure mistake has p = 0 in float64, log 0 is infinite and
the slope of σ is 0. From logits, z = -1000 with y = 1 costs 1000, and its slope is -1.
From here on every function returns its output and, for each input, a *pull*: the function that
takes the gradient from behind, ḡ, to the gradient for that input.
"""

# %%
erf = np.vectorize(math.erf, otypes=[float])  # numpy has none: exact, at Python speed

def sigmoid(z):
    """Equation (4). Only exp(-|z|) is computed, so nothing overflows."""
    e = np.exp(-np.abs(z))
    a = np.where(z >= 0, 1, e) / (1 + e)
    return a, lambda g: g * (a * (1 - a))

def tanh(z):
    """Equation (5)."""
    a = np.tanh(z)
    return a, lambda g: g * (1 - a * a)

def relu(z):
    """Equation (6). At 0 there is no slope; every library takes 0."""
    return np.maximum(z, 0), lambda g: g * (z > 0)

def gelu(z):
    """Equation (7) (Hendrycks and Gimpel, 2016). Phi(z) = (1 + erf(z / sqrt 2)) / 2."""
    below = ((1 + erf(z / math.sqrt(2))) / 2).astype(z.dtype)
    return z * below, lambda g: g * (below + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi))

def softmax(z):
    """Equation (8) for each row. Subtracting the largest score only prevents overflow."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    return p, lambda g: p * (g - np.sum(g * p, axis=-1, keepdims=True))

def squared_error(z, y):
    """Equation (9); y has the shape of z."""
    z = check_batch("z", z)
    error = z - check_batch("y", y, *z.shape)
    return np.mean(error * error), lambda g: g * (2 / error.size) * error

def binary_cross_entropy(z, y):
    """Equation (10); y has the shape of z, its entries from 0 to 1."""
    z = check_batch("z", z)
    y = check_batch("y", y, *z.shape)
    if y.min() < 0 or y.max() > 1:
        raise ValueError(f"y must hold numbers from 0 to 1, not {y.min():g} to {y.max():g}")
    return np.mean(np.logaddexp(0, z) - y * z), lambda g: g / z.size * (sigmoid(z)[0] - y)

def cross_entropy(z, y):
    """Equation (11); z (n, k), y (n,) labels 0 ... k-1, not all of them needed."""
    z = check_batch("z", z, None, None)
    (n, k), y = z.shape, check_batch("y", y, len(z))
    wrong = (y < 0) | (y >= k) | (y % 1 != 0)
    if wrong.any():
        raise ValueError(f"y must hold whole numbers from 0 to {k - 1}, not {y[wrong][0]:g}")
    truth = y[:, None] == np.arange(k)  # (n, k), True at the label
    log_p = z - z.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    return -np.sum(log_p * truth) / n, lambda g: g / n * (np.exp(log_p) - truth)

BENDS, LOSSES = (sigmoid, tanh, relu, gelu), (squared_error, binary_cross_entropy, cross_entropy)

MIRRORS = {  # torch.nn.functional, F, has the bends by the same name; what differs stands here
    softmax: lambda F, z: F.softmax(z, -1),
    squared_error: lambda F, z, y: F.mse_loss(z, y),
    binary_cross_entropy: lambda F, z, y: F.binary_cross_entropy_with_logits(z, y),
    cross_entropy: lambda F, z, y: F.cross_entropy(z, y),  # of logits, though the name is silent
}

def torch_function(f, *inputs, **options):
    """The library version of our f, on tensors; arrays among the options become tensors."""
    import torch
    tensors = {k: torch.tensor(v) for k, v in options.items() if isinstance(v, np.ndarray)}
    mirror = MIRRORS.get(f) or (lambda F, z: getattr(F, f.__name__)(z))
    return mirror(torch.nn.functional, *inputs, **(options | tensors))

def beside_torch(f, *inputs, **options):
    """(what, ours, torch's): output of f, and gradient for each input, for a random ḡ behind."""
    import torch
    leaves = [torch_leaf(x) for x in inputs]
    theirs = torch_function(f, *leaves, **options)
    grad = np.random.default_rng(12345).normal(size=theirs.shape)
    theirs.backward(torch.tensor(grad))
    ours, *pulls = f(*inputs, **options)
    pulled = [(f": gradient {i}", pull(grad), leaves[i].grad) for i, pull in enumerate(pulls)]
    return [(": output", ours, theirs.detach()), *pulled]

def demo_activations(plot=False):
    """Where each bend stops learning, what a sure mistake costs, and all of it in torch."""
    print("\n== Where does each bend stop learning? Its slope at z = -20, -2, 0, 2, 20 ==")
    z, comparisons = np.array([-20.0, -2, 0, 2, 20]), []
    for bend in BENDS:
        print(f"  {bend.__name__:8}" + "".join(f"{v + 1e-9:8.3f}" for v in bend(z)[1](1.0)))
    for score in (-1.0, -10.0, -1000.0):
        J, pull = binary_cross_entropy(np.array([score]), [1.0])
        print(f"  y = 1, but z = {score:5.0f}: loss {J:7.2f}, slope {pull(1.0)[0]:.4f}")
    z = np.outer(z, [1, -0.5, 0.1])
    for f in (*BENDS, softmax, *LOSSES):
        y = np.array([0, 1, 2, 2, 0]) if f is cross_entropy else sigmoid(z[::-1])[0]
        pairs = beside_torch(f, z, **({"y": y} if f in LOSSES else {}))
        comparisons += rows("activations and losses", f.__name__, pairs)
    return report(comparisons)

# Try: which constant z makes (10) smallest when three labels of four are 1? Predict, then check.

# %% [markdown]
"""
## Layers and backpropagation: a million gradients for the price of two predictions?

A network is a chain of layers. Each knows only its own slope: (3), on whole arrays.

    z = xW + b         ∂J/∂x = ḡWᵀ         ∂J/∂W = xᵀḡ         ∂J/∂b = Σ over rows of ḡ      (12)

In every row Wᵢⱼ takes xᵢ to zⱼ, so it collects Σ over rows of xᵢ ḡⱼ; the shapes leave no choice.
Run forward and keep each pull; get ∂J/∂z from the loss; walk the chain backwards once, handing on
each ∂J/∂x as the next ḡ (Rumelhart, Hinton and Williams, 1986). Then take one step downhill:

    J = loss + λ/2 Σ ‖W‖²            p ← p - η ∂J/∂p   for every parameter p                 (13)

The penalty counts weights, arrays of two axes or more; biases are free. A layer costs three matrix
products, one forward and two backward; the first layer can leave out ∂J/∂x, as no step is taken in
the data. It fails if the weights of a layer start equal: its units then stay copies for ever.
"""

# %%
def linear(x, W, b):
    """Equation (12): x (n, d_in), W (d_in, d_out), b (d_out,)."""
    W = check_batch("W", W, None, None)
    x, b = check_batch("x", x, None, len(W)), check_batch("b", b, W.shape[1])
    z = x @ W  # (n, d_in) @ (d_in, d_out) -> (n, d_out)
    z += b
    return z, lambda g: g @ W.T, lambda g: x.T @ g, lambda g: g.sum(axis=0)

class Layer:
    """One link of the chain: a function f of x and of parameters, of which it trains its own
    copies. options are what else f needs; training, if among them, is set by forward."""

    def __init__(self, f, *params, **options):
        if not callable(f):
            raise TypeError(f"f must be a function, such as relu, not {f!r}")
        self.f, self.options, self.grads, self.pulls = f, options, [], None
        self.params = [np.array(check_batch(f"a parameter of {f.__name__}", p)) for p in params]

    def mode(self, training):
        """options, with training as it is now."""
        return self.options | ({"training": training} if "training" in self.options else {})

    def forward(self, x, training=False):
        """f(x); its pulls are kept."""
        out, *self.pulls = self.f(x, *self.params, **self.mode(training))
        self.shape = out.shape
        return out

    def backward(self, grad, to_input=True):
        """From dJ/d(output) to grads, one per parameter; returns dJ/dx (None if not to_input)."""
        if self.pulls is None:
            raise ValueError(f"backward of {self.f.__name__} needs a call of forward first")
        if np.shape(grad) != self.shape:
            raise ValueError(f"grad must have shape {self.shape}, not {np.shape(grad)}")
        self.grads = [pull(grad) for pull in self.pulls[1:]]
        return self.pulls[0](grad) if to_input else None

def forward(layers, x, training=False):
    """Send x through the chain. A list among the layers is a residual block, equation (20)."""
    x = check_batch("x", x)
    for layer in layers:
        block = isinstance(layer, list)
        x = x + forward(layer, x, training) if block else layer.forward(x, training)
    return x

def backward(layers, grad, to_input=True):
    """Send dJ/d(output) back: fills the grads of every layer, returns dJ/dx."""
    for i, layer in reversed(list(enumerate(layers))):
        block = isinstance(layer, list)
        grad = grad + backward(layer, grad) if block else layer.backward(grad, to_input or i > 0)
    return grad

def parts(layers):
    """Every Layer of the network, those inside residual blocks too."""
    return [p for layer in layers for p in (parts(layer) if isinstance(layer, list) else [layer])]

def parameters(layers):
    """Every parameter of the network."""
    return [p for layer in parts(layers) for p in layer.params]

def train_step(layers, X, y, loss, lr, l2=0.0):
    """Equation (13), once. Changes the layers; returns J as it was before the step."""
    check_number("lr", lr, above=0)
    check_number("l2", l2, least=0)
    with np.errstate(over="ignore", invalid="ignore"):  # what diverges is refused below
        J, pull = loss(forward(layers, X, training=True), y)
        J += l2 / 2 * sum(np.sum(p * p) for p in parameters(layers) if l2 and p.ndim > 1)
    if not J < LARGEST:  # nan too
        raise ValueError(f"the loss reached {J:.2g}: lr = {lr:g} is too large")
    backward(layers, pull(1.0), to_input=False)
    for p, grad in zip(parameters(layers), [g for layer in parts(layers) for g in layer.grads]):
        p -= lr * (grad + l2 * p if l2 and p.ndim > 1 else grad)
    return float(J)

def make_mlp(rng, sizes, bend=relu):
    """Linear layers of these sizes, (64, 32, 10) say, with a bend between them: a multi-layer
    perceptron. The scale of the start is explained under Initialisation."""
    layers = []
    for d_in, d_out in itertools.pairwise(sizes):
        W = initial_weights("he", rng.normal(size=(d_in, d_out)))
        layers += [Layer(linear, W, np.zeros(d_out)), Layer(bend)]
    return layers[:-1]  # the loss holds the last bend

MIRRORS[linear] = lambda F, x, W, b: F.linear(x, W.T, b)  # torch stores W as (d_out, d_in)

def torch_forward(layers, x, p, training=False):
    """The library version of forward; p is an iterator over the parameters, as tensors."""
    for layer in layers:
        if isinstance(layer, list):
            x = x + torch_forward(layer, x, p, training)
        else:
            inputs = x, *itertools.islice(p, len(layer.params))
            x = torch_function(layer.f, *inputs, **layer.mode(training))
    return x

def torch_train(layers, batches, loss, lr, l2=0.0):
    """The library version of train_step, once per batch (X, y), from our start: J before each step,
    and the parameters. `weight_decay` is λ, for biases too unless they stand in another group."""
    import torch
    p, losses = [torch_leaf(p) for p in parameters(layers)], []
    weights, biases = ([q for q in p if (q.ndim > 1) == many] for many in (True, False))
    optimiser = torch.optim.SGD([{"params": weights, "weight_decay": l2}, {"params": biases}], lr)
    for X, y in batches:
        J = torch_function(loss, torch_forward(layers, torch.tensor(X), iter(p), True), y=y)
        losses.append(J.item() + l2 / 2 * sum((q * q).sum().item() for q in weights))
        optimiser.zero_grad()
        J.backward()
        optimiser.step()
    return losses, p

def train_beside_torch(layers, X, y, loss, lr=0.1, l2=0.0, steps=100):
    """(what, ours, torch's) after these steps from the same start: J, parameters, dJ/dX."""
    losses, p = torch_train(layers, [(X, y)] * steps, loss, lr, l2)
    ours, x = [train_step(layers, X, y, loss, lr, l2) for _ in range(steps)], torch_leaf(X)
    flat = (np.concatenate([*map(np.ravel, q)]) for q in (parameters(layers), [q.data for q in p]))
    grad = backward(layers, loss(forward(layers, X, True), y)[1](1.0))
    torch_function(loss, torch_forward(layers, x, iter(p), True), y=y).backward()
    return [(": J", ours, losses), (": weights", *flat), (": dJ/dX", grad, x.grad)]

def demo_mlp(plot=False):
    """Two half moons, which no line separates; then each bend and loss beside torch."""
    print("\n== Can it learn a bent boundary? Two moons, 20 tanh units, # where p > 1/2 ==")
    rng = np.random.default_rng(0)
    X, y = make_moons(rng)
    layers = make_mlp(rng, (2, 20, 1), tanh)
    for _ in range(600):
        train_step(layers, X, y[:, None], binary_cross_entropy, lr=1.0)
    for height in np.linspace(1.3, -0.9, 10):
        z = forward(layers, [[x, height] for x in np.linspace(-1.4, 2.4, 60)])[:, 0]
        print("  " + "".join(".#"[int(score > 0)] for score in z))
    print(f"  accuracy on its own rows: {accuracy(y, (forward(layers, X)[:, 0] > 0) + 0):.3f}")
    X, Y, comparisons = rng.normal(size=(30, 4)), rng.random((30, 3)), []
    for bend, loss, l2 in zip(BENDS, (*LOSSES, squared_error), (0.0, 0.01, 0.01, 0.01)):
        y, layers = Y.argmax(1) if loss is cross_entropy else Y, make_mlp(rng, (4, 8, 8, 3), bend)
        title = f"{bend.__name__}, {loss.__name__}, l2={l2:g}"
        comparisons += rows("MLP", title, train_beside_torch(layers, X, y, loss, l2=l2))
    return report(comparisons)

# Try: set all weights of the first layer to 0.1. How many different units are left after training?

# %% [markdown]
"""
## Gradient check: how do you know that a pull is right?

A wrong one often trains too, only worse. Ask the function itself: nudge one number by h either way,
and see how far the value moves:

    slope ≈ (f(x + h) - f(x - h)) / 2h                                                       (14)
    relative error = ‖analytic - numerical‖ / (‖analytic‖ + ‖numerical‖)                     (15)

Curvature makes (14) wrong by about h², rounding by about 1e-16 / h: the sum is least near h = 1e-5.
A right gradient then has an error (15) below 1e-7, a wrong one seldom below 0.01. Check a layer
through the number Σ u · f(x), for random u. With u all ones a softmax or a norm gives a constant,
gradient 0: a pull times 0, 2 or -1 would pass. It fails across a kink (a ReLU within h of 0), in
float32, and if f draws new random numbers at each call. It costs two calls of f per number.
"""

# %%
def numerical_gradient(f, x, h=1e-5):
    """Equation (14) for every entry of x; f takes an array like x and returns a number."""
    check_number("h", h, above=0)
    x = check_batch("x", x).astype(float)
    slope = np.empty_like(x)
    for i in np.ndindex(x.shape):
        nudge = np.zeros_like(x)
        nudge[i] = h
        slope[i] = (f(x + nudge) - f(x - nudge)) / (2 * h)
    return slope

def relative_error(a, b):
    """Equation (15), from 0 to 1. Two zero gradients agree."""
    size = np.linalg.norm(a) + np.linalg.norm(b)
    return float(np.linalg.norm(np.subtract(a, b)) / size) if size > 0 else 0.0

def check_gradients(rng, f, *inputs, **options):
    """The relative error (15) of each pull of f, one per input."""
    out, *pulls = f(*inputs, **options)
    u, errors = rng.normal(size=np.shape(out)), []
    for i, pull in enumerate(pulls):
        value = lambda x: np.sum(u * f(*inputs[:i], x, *inputs[i + 1 :], **options)[0])
        errors.append(relative_error(pull(u), numerical_gradient(value, inputs[i])))
    return errors

def torch_gradcheck(f, *inputs, **options):
    """The library version says yes or no: torch.autograd.gradcheck, of our f and its pulls wrapped
    in an `autograd.Function`, which makes them a link in torch's own chain."""
    import torch

    def _forward(ctx, *tensors):
        out, *ctx.pulls = f(*(t.detach().numpy().copy() for t in tensors), **options)
        return torch.tensor(out)

    _backward = lambda ctx, g: tuple(torch.tensor(pull(g.numpy())) for pull in ctx.pulls)
    methods = {"forward": staticmethod(_forward), "backward": staticmethod(_backward)}
    ours = type("Ours", (torch.autograd.Function,), methods)
    return torch.autograd.gradcheck(ours.apply, [*map(torch_leaf, inputs)], raise_exception=False)

def demo_gradient_check(plot=False):
    """Which h? Then right pulls and a wrong one, judged by us and by torch."""
    print("\n== How small should the nudge h be? Digits that (14) gets right for tanh at 0.7 ==")
    for power in range(1, 12, 2):
        numerical = numerical_gradient(np.tanh, 0.7, 10.0**-power)
        digits = -math.log10(relative_error(1 - np.tanh(0.7) ** 2, numerical))
        print(f"  h = 1e-{power:02d}  {'#' * round(digits)}")
    rng, comparisons = np.random.default_rng(0), []
    x, W = rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
    wrong = lambda z: (softmax(z)[0], lambda g: g * softmax(z)[0] * (1 - softmax(z)[0]))  # half (8)
    for f, *inputs in [(linear, x, W, W[0]), *((f, x) for f in (*BENDS, softmax, wrong))]:
        worst = max(check_gradients(rng, f, *inputs))
        right, theirs = worst <= ALLOWED["gradient check"][0], torch_gradcheck(f, *inputs)
        pairs = [(" passes", right, theirs), (" relative error", worst, 0.0)]
        name = "half a softmax" if f is wrong else f.__name__
        comparisons += rows("gradient check", name, pairs[: 1 + right])
    return report(comparisons)

# Try: in `linear` take the mean of g over the rows for b. What error do you expect?

# %% [markdown]
"""
## Autograd: must we derive a pull for every new formula?

No: a formula is built from a few operations whose pulls are known. Record each as it runs, with an
edge to everything it was made from. Backpropagation is one walk over that graph, last made first:

    ḡ(source) ← ḡ(source) + pull(ḡ(result))      for every edge from result to source        (16)

    c = a + b     to a: ḡ            to b: ḡ              c = sum a     ḡ, once per entry
    c = a b       to a: ḡ b          to b: ḡ a            c = a[i]      ḡ, put back at i
    c = a @ b     to a: ḡ bᵀ         to b: aᵀ ḡ           c = φ(a)      ḡ φ'(a)              (17)

Three things go wrong in small engines. (a) A value used twice gets two pulls: they add. (b) Numpy
repeats small arrays to fit large ones; the gradients of the copies must be summed. (c) A tensor may
pull only after all its users did. Sources are made before results, so the order of birth,
backwards, is right; and without recursion no depth is too deep. A second backward adds to the
`grad` of the leaves, as in torch, but inner gradients belong to one walk alone.
"""

# %%
def unbroadcast(grad, shape):
    """Sum grad over the axes along which numpy repeated an array of this shape."""
    if grad.shape == shape:
        return grad
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    wide = tuple(i for i, size in enumerate(shape) if size < grad.shape[i])
    return grad.sum(axis=wide, keepdims=True) if wide else grad

def matmul(a, b):
    """Equation (17), for stacks of matrices too; a vector is a row left and a column right."""
    A, B = a.reshape(1, -1) if a.ndim == 1 else a, b.reshape(-1, 1) if b.ndim == 1 else b
    C, vectors = A @ B, (-2,) * (a.ndim == 1) + (-1,) * (b.ndim == 1)
    to_b = lambda g: A.swapaxes(-1, -2) @ g.reshape(C.shape)
    return (C.squeeze(vectors), lambda g: g.reshape(C.shape) @ B.swapaxes(-1, -2),
            lambda g: to_b(g)[..., 0] if b.ndim == 1 else to_b(g))

def log(a):
    """The natural logarithm, of numbers above 0."""
    if np.min(a) <= 0:
        raise ValueError(f"log needs numbers above 0, not {np.min(a):g}")
    return np.log(a), lambda g: g / a

class Tensor:
    """An array that remembers how it was made: edges holds (source, pull) pairs. A leaf has none;
    after backward it has a grad. Whatever is not a Tensor is a constant."""

    __array_ufunc__ = None  # leaves array + tensor to our __radd__
    births = itertools.count()

    def __init__(self, data, edges=()):
        self.data = np.asarray(data) if edges else np.array(check_batch("data", data))
        self.edges, self.grad, self.birth = edges, None, next(Tensor.births)

    @staticmethod
    def of(f, *inputs, **options):
        """Any function of this chapter as one operation of the engine."""
        arrays = (x.data if isinstance(x, Tensor) else check_batch("a term", x) for x in inputs)
        out, *pulls = f(*arrays, **options)
        return Tensor(out, [(x, pull) for x, pull in zip(inputs, pulls) if isinstance(x, Tensor)])

    def backward(self, grad=None):
        """Equation (16): add dJ/d(leaf) to the grad of every leaf below; grad is dJ/d(this)."""
        if grad is None and self.data.size > 1:
            raise ValueError(f"backward needs grad, of shape {self.data.shape}, as J is no number")
        grad = np.ones_like(self.data) if grad is None else grad
        pulled = {self: check_batch("grad", grad, *self.data.shape)}
        found, todo = {self}, [self]
        while todo:
            new = {source for source, _ in todo.pop().edges} - found
            found |= new
            todo += new
        for node in sorted(found, key=lambda node: node.birth, reverse=True):
            grad = pulled.pop(node)
            if not node.edges:
                node.grad = grad + (0 if node.grad is None else node.grad)
            for source, pull in node.edges:
                part = unbroadcast(pull(grad), source.data.shape)
                pulled[source] = pulled[source] + part if source in pulled else part

    def __getitem__(self, index):
        def _put_back(g):
            np.add.at(whole := np.zeros_like(self.data), index, g)  # taken twice: gets both
            return whole

        return Tensor(self.data[index], [(self, _put_back)])

    def sum(self, axis=None, keepdims=False):
        """Sum over an axis, several, or all."""
        total, shape = self.data.sum(axis, keepdims=True), self.data.shape
        spread = lambda g: np.broadcast_to(g.reshape(total.shape), shape)
        return Tensor(total if keepdims else total.squeeze(axis), [(self, spread)])

    def mean(self, axis=None, keepdims=False):
        """Sum divided by count."""
        total = self.sum(axis, keepdims)
        return total * (total.data.size / self.data.size)

    def max(self, axis=None, keepdims=False):
        """Largest entry. Ties share the gradient, as in torch's amax; its max takes the first."""
        top = self.data.max(axis, keepdims=True)
        won = self.data == top
        share = lambda g: won / won.sum(axis, keepdims=True) * g.reshape(top.shape)
        return Tensor(top if keepdims else top.squeeze(axis), [(self, share)])

    def reshape(self, *shape):
        """The same entries in another shape."""
        return Tensor(self.data.reshape(*shape), [(self, lambda g: g.reshape(self.data.shape))])

    def bend(self, out, slope):
        """out, a function of each entry, with this slope."""
        return Tensor(out, [(self, lambda g: g * slope)])

    exp = lambda a: a.bend(np.exp(a.data), np.exp(a.data))
    log, tanh, relu = (lambda a, f=f: Tensor.of(f, a) for f in (log, tanh, relu))
    __pow__ = lambda a, p: a.bend(a.data**p, p * a.data ** (p - 1) if p else 0)
    __add__ = lambda a, b: Tensor.of(lambda a, b: (a + b, lambda g: g, lambda g: g), a, b)
    __mul__ = lambda a, b: Tensor.of(lambda a, b: (a * b, lambda g: g * b, lambda g: g * a), a, b)
    __matmul__ = lambda a, b: Tensor.of(matmul, a, b)
    __rmatmul__ = lambda a, b: Tensor.of(matmul, b, a)
    __neg__, __sub__ = (lambda a: a * -1.0), lambda a, b: a + b * -1.0
    __truediv__ = lambda a, b: a * b**-1.0
    __radd__, __rmul__ = __add__, __mul__
    __rsub__, __rtruediv__ = (lambda a, b: -a + b), lambda a, b: a**-1.0 * b

def demo_autograd(plot=False):
    """A graph you can draw, a deep one, a network without its pulls, a formula."""
    print("\n== Can a machine derive backpropagation? f = (a + b) b, with a = 2 and b = 3 ==")
    a, b = Tensor(2.0), Tensor(3.0)
    f = (a + b) * b
    for times in (1, 2):
        f.backward()
        print(f"  after backward number {times}: grad of a = {a.grad:g}, of b = {b.grad:g}")
    deep, a.grad = a, None
    for _ in range(5000):
        deep = deep * 0.9999 + 0.0001
    deep.backward()
    pairs, rng = [("10000 deep: grad", a.grad, 0.9999**5000)], np.random.default_rng(0)
    x, y, layers = rng.normal(size=(20, 4)), np.arange(20) % 3, make_mlp(rng, (4, 8, 3), tanh)
    J, pull = cross_entropy(forward(layers, x), y)
    backward(layers, pull(1.0))
    score = lambda W, b, V, c: (x @ W + b).tanh() @ V + c
    entropy = lambda z: (z.exp().sum(1).log() - z[np.arange(20), y]).mean()  # (11) as it stands
    engine = gradients(Tensor, lambda *p: entropy(score(*p)), *parameters(layers))
    by_hand = J, *layers[0].grads, *layers[2].grads
    pairs += zip([f"by hand: {name}" for name in ("J", "W1", "b1", "W2", "b2")], engine, by_hand)
    arrays, f = (x[:3, :1], x[3]), lambda a, b: (a * b).exp() / (a * a + 1) - b.relu() ** 2
    both = (gradients(make, f, *arrays) for make in (Tensor, torch_leaf))
    pairs += zip(("torch: f", "torch: df/da", "torch: df/db"), *both)
    return report(rows("autograd", "", pairs))

# Try: f = a * a with a = 3. Predict a.grad after one backward, then after three.

# %% [markdown]
"""
## Initialisation: why do deep networks need a careful start?

Multiply by twenty matrices in a row, and numbers vanish or explode. If x has mean square s, and W
independent entries of mean 0 and variance v, each z is a sum of d_in terms. Keeping the mean square
both ways needs v = 1 / d_in and v = 1 / d_out. Xavier (Glorot and Bengio, 2010) takes the middle;
He (He et al., 2015) doubles, as a ReLU sets half of the mean square to 0:

    mean square of z = d_in v s          of ∂J/∂x = d_out v · mean square of ḡ               (18)
    Xavier   v = 2 / (d_in + d_out)   for tanh         He   v = 2 / d_in   for ReLU          (19)

v is a variance: the weights are √v times standard normal numbers. Using v itself as their spread is
a common error. The other cure is a shorter path, the residual block (He et al., 2016):

    y = x + F(x)         ∂J/∂x = ḡ + (∂F/∂x)ᵀ ḡ                                              (20)

The first term reaches the bottom undiminished however long the chain is. It fails in the other
direction: each block adds to the variance, so deep stacks need a norm as well (next).
"""

# %%
def initial_weights(method, draws):
    """Equation (19): standard normal draws (..., d_in, d_out), scaled by sqrt(v)."""
    draws = check_batch("draws", draws)
    if method not in ("xavier", "he") or draws.ndim < 2:
        raise ValueError(f"method must be xavier or he, not {method!r}, and draws have 2 axes")
    d_in, d_out = draws.size // draws.shape[-1], draws.size // draws.shape[-2]
    return math.sqrt(2 / (d_in + d_out) if method == "xavier" else 2 / d_in) * draws

def deep_chain(bend, v, residual=False, depth=20, width=100):
    """A chain of layers whose weights have variance v, and the mean square of x at each depth."""
    rng, sizes, layers = np.random.default_rng(0), [], []
    x = rng.normal(size=(100, width))
    for _ in range(depth):
        W = math.sqrt(v) * rng.normal(size=(width, width))
        block = [Layer(linear, W, np.zeros(width)), Layer(bend)]
        layers += [block] if residual else block
        x = forward([block] if residual else block, x)
        sizes.append(np.mean(x * x))
    return layers, np.array(sizes)

def torch_initial_weights(method, shape, seed):
    """The library version, which says `kaiming_normal_` for He: draws and the weights made of them.
    A fresh `torch.nn.Linear` uses neither, but v = 1 / (3 d_in), a third of what keeps the size."""
    import torch
    axes = (1, 0) if len(shape) == 2 else (2, 3, 1, 0)  # torch: out, in, height, width
    draws, W = (torch.empty([shape[i] for i in np.argsort(axes)]).double() for _ in range(2))
    draws.normal_(generator=torch.Generator().manual_seed(seed))
    init = torch.nn.init.xavier_normal_ if method == "xavier" else torch.nn.init.kaiming_normal_
    init(W, generator=torch.Generator().manual_seed(seed))
    return draws.permute(axes).numpy(), W.permute(axes).numpy()

def draw_curves(ax, curves, xlabel, ylabel):
    """Named curves on a log scale."""
    for name, curve in curves.items():
        ax.semilogy(range(1, len(curve) + 1), curve, "--" if "tanh" in name else "-", label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()

def demo_initialisation(plot=False):
    """Mean square of the activations by depth, for each start; then the same in torch."""
    print("\n== What is left of a signal after 20 layers of 100 units? Its mean square ==")
    starts, curves, comparisons = {"0.0001": 1e-4, "1": 1, "Xavier": 0.01, "He": 0.02}, {}, []
    for bend, (name, v) in itertools.product((tanh, relu), starts.items()):
        curves[f"{bend.__name__}, v = {name}"] = sizes = deep_chain(bend, v)[1]
        some = "".join(f"{sizes[i]:10.1e}" for i in (0, 4, 9, 19))
        print(f"  {bend.__name__}, v = {name:7} at depth 1, 5, 10, 20: {some}")
    for what, residual in (("20 layers", False), ("20 blocks", True)):
        layers, x = deep_chain(tanh, 0.005, residual)[0], np.full((1, 100), 0.1)
        chain = lambda x: torch_forward(layers, x, map(torch_leaf, parameters(layers)))
        y, ours = forward(layers, x), backward(layers, np.ones((1, 100)))
        pairs = zip((": sum of y", ": dJ/dx"), (y.sum(), ours), gradients(torch_leaf, chain, x))
        comparisons += rows("MLP", what, pairs)
        print(f"  tanh, v = 0.005, {what}: |dJ/dx| = {np.linalg.norm(ours):.1e}, |dJ/dy| = 10")
    for method, shape in itertools.product(("xavier", "he"), [(100, 50), (3, 3, 4, 8)]):
        draws, W = torch_initial_weights(method, shape, seed=0)
        pairs = [(f", shape {shape}", initial_weights(method, draws), W)]
        comparisons += rows("initialisation", method, pairs)
    if plot:
        save_plot("neural_networks_initialisation.png", lambda ax: draw_curves(
            ax, curves, "depth (layers)", "mean square of the activations"))
    return report(comparisons)

# Try: give the ReLU chain v = 1 / d_in. What is left of the mean square after twenty layers?

# %% [markdown]
"""
## Normalisation and dropout: can a network keep its own numbers in range?

A norm centres and scales a group of numbers; then the network chooses its own scale γ and shift β:

    x̂ = (x - μ) / s         s = √(variance + ε)         y = γ x̂ + β                          (21)
    ∂J/∂x = (g - mean(g) - x̂ · mean(g x̂)) / s           g = γ ḡ                              (22)

Batch norm (Ioffe and Szegedy, 2015) groups the rows: μ and s per feature. Layer norm (Ba et al.,
2016) groups the features: μ and s per row. The means in (22) are there because μ and s depend on x
too; without them ∂J/∂x is mostly wrong. The variance is the mean of (x - μ)², never mean(x²) - μ²:
near x = 1e8 that cancels to nonsense. One row has no batch to compare with: batch norm tracks
running averages, momentum ρ (rho), and uses them at prediction. Dropout (Srivastava et al., 2014)
sets entries to 0 with probability p, so that no unit relies on another, and keeps the mean:

    running ← (1 - ρ) · running + ρ · (μ, and m / (m - 1) · variance)     of m numbers       (23)
    a = x · mask / (1 - p)   in training          a = x   at prediction                      (24)

Batch norm fails on small batches, whose μ is noise; a single row is refused in training. Forgetting
to switch from training to prediction is the common error with both.
"""

# %%
def standardise(x, gain, shift, eps, axes, mean=None, variance=None):
    """Equations (21) and (22) for groups along axes: [y and its pulls], mean, variance. Statistics
    that are given are constants."""
    fixed, rows = mean is not None, tuple(range(x.ndim - 1))
    average = lambda g: g.mean(axes, keepdims=True)
    xhat = x - (mean if fixed else (mean := average(x)))
    s = np.sqrt((variance if fixed else (variance := average(xhat * xhat))) + eps)
    xhat /= s
    centre = lambda g: (g if fixed else g - average(g) - xhat * average(g * xhat)) / s
    pulls = (lambda g: centre(g * gain)), (lambda g: np.sum(g * xhat, rows)), lambda g: g.sum(rows)
    return (xhat * gain + shift, *pulls), mean, variance

def check_norm(x, gain, shift, eps):
    """x (n, ..., d), gain (d,) and shift (d,), checked."""
    check_number("eps", eps, above=0)
    gain = check_batch("gain", gain, None)
    x = check_batch("x", x, *[None] * max(getattr(x, "ndim", 2) - 1, 1), len(gain))
    return x, gain, check_batch("shift", shift, len(gain))

def layer_norm(x, gain, shift, eps=1e-5):
    """Equations (21) and (22) over the last axis; gain and shift (d,)."""
    x, gain, shift = check_norm(x, gain, shift, eps)
    return standardise(x, gain, shift, eps, -1)[0]

def batch_norm(x, gain, shift, mean, variance, training=False, momentum=0.1, eps=1e-5):
    """Equations (21) to (23) over all axes but the last: x (n, d), or images (n, h, w, d). mean and
    variance (d,) are the running averages, which training updates in place."""
    x, gain, shift = check_norm(x, gain, shift, eps)
    check_number("momentum", momentum, least=0, most=1)
    for name, average in (("mean", mean), ("variance", variance)):
        check_batch(name, average, len(gain))
    rows, m = tuple(range(x.ndim - 1)), x.size // len(gain)
    if not training:
        return standardise(x, gain, shift, eps, rows, mean, variance)[0]
    if m < 2:
        raise ValueError(f"batch norm needs 2 rows in training, not x of shape {x.shape}")
    result, new_mean, new_variance = standardise(x, gain, shift, eps, rows)
    mean += momentum * (new_mean.ravel() - mean)
    variance += momentum * (new_variance.ravel() * m / (m - 1) - variance)
    return result

def dropout(x, p, rng=None, mask=None, training=False):
    """Equation (24). rng draws the mask (1 stays, 0 goes), if none is given."""
    x, _ = check_batch("x", x), check_number("p", p, least=0, below=1)
    if not training:
        return x, lambda g: g
    if rng is None and mask is None:
        raise ValueError("dropout needs rng or mask in training")
    mask = rng.random(x.shape) >= p if mask is None else check_batch("mask", mask, *x.shape)
    factor = (mask / (1 - p)).astype(x.dtype)
    return x * factor, lambda g: g * factor

def torch_batch_norm(F, x, gain, shift, mean, variance, training=False, momentum=0.1, eps=1e-5):
    """The library version wants the channels second. Its momentum is ρ as well, not 1 - ρ."""
    args = mean, variance, gain, shift, training, momentum, eps
    return F.batch_norm(x.movedim(-1, 1), *args).movedim(1, -1)

def torch_dropout(F, x, p, rng=None, mask=None, training=False):
    """The library version from seed 0, whatever the mask: of ones it shows which entries stay."""
    F.torch.manual_seed(0)
    return F.dropout(x, p, training)

MIRRORS |= {batch_norm: torch_batch_norm, dropout: torch_dropout}
MIRRORS[layer_norm] = lambda F, x, g, b, eps=1e-5: F.layer_norm(x, g.shape, g, b, eps)

def demo_normalisation(plot=False):
    """One large feature, normed by columns and by rows; then training and prediction in torch."""
    import torch
    print("\n== What does a norm do to a table whose second feature is 1000 times larger? ==")
    table, one = np.array([[1.0, 1000, 3], [2, 3000, 5], [3, 2000, 1]]), np.ones(3)
    normed = batch_norm(table, one, 0 * one, 0 * one, 1 * one, training=True)[0]
    print(f"{normed.round(2) + 0} batch")
    print(f"{layer_norm(table, one, 0 * one)[0].round(2) + 0} layer")
    rng = np.random.default_rng(0)
    inputs = rng.normal(5, 3, size=(16, 4)), rng.normal(size=4), rng.normal(size=4)
    mask = torch_function(dropout, torch.ones(16, 4), p=0.3, training=True).numpy() > 0
    comparisons = rows("normalisation", "layer norm", beside_torch(layer_norm, *inputs))
    for training, mode in ((True, " training"), (False, " prediction")):
        averages = {"mean": np.zeros(4), "variance": np.ones(4), "training": training}
        pairs = beside_torch(batch_norm, *inputs, **averages)
        comparisons += rows("normalisation", "batch norm," + mode, pairs)
        pairs = beside_torch(dropout, inputs[0], p=0.3, mask=mask, training=training)
        comparisons += rows("normalisation", "dropout," + mode, pairs)
    return report(comparisons)

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
It fails where the exact place matters: pooling forgets it. Strictly speaking (25) is a
cross-correlation: a mathematician's convolution flips K, which is all the same to learning.
"""

# %%
def places_in(x, height, width, stride):
    """For each place (u, v) in a window: the slice of x (n, h, w, c) with it, (n, H, W, c)."""
    check_number("stride", stride, least=1, integer=True)
    if x.shape[1] < height or x.shape[2] < width:
        raise ValueError(f"x of shape {x.shape}, padding and all, has no {height} x {width} window")
    down, right = x.shape[1] - height + 1, x.shape[2] - width + 1
    return [np.s_[:, u : u + down : stride, v : v + right : stride]
            for u, v in np.ndindex(height, width)]

def put_back(shape, places, gradients):
    """Zeros of this shape, with a gradient added at each place."""
    dx = np.zeros(shape, gradients[0].dtype)
    for place, gradient in zip(places, gradients):
        dx[place] += gradient
    return dx

def conv2d(x, K, b, stride=1, padding=0):
    """Equation (25): x (n, h, w, c), K (height, width, c, out), b (out,) -> z (n, H, W, out)."""
    K, p = check_batch("K", K, None, None, None, None), padding
    x = check_batch("x", x, None, None, None, K.shape[2])
    check_number("padding", p, least=0, integer=True)
    x = np.pad(x, [(0, 0), (p, p), (p, p), (0, 0)]) if p else x
    places = places_in(x, *K.shape[:2], stride)
    windows = np.lib.stride_tricks.sliding_window_view(x, K.shape[:2], axis=(1, 2))
    windows = windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)
    patches = windows.reshape(*windows.shape[:3], len(places), -1)  # (n, H, W, height width, c)
    flat = patches.reshape(-1, K[..., 0].size), K.reshape(-1, K.shape[3])
    z, to_patches, to_K, to_b = linear(*flat, b)
    rows = lambda g: g.reshape(z.shape)
    back = lambda g: np.moveaxis(to_patches(rows(g)).reshape(patches.shape), 3, 0)
    inside = np.s_[:, p : x.shape[1] - p, p : x.shape[2] - p]
    return (z.reshape(*patches.shape[:3], -1), lambda g: put_back(x.shape, places, back(g))[inside],
            lambda g: to_K(rows(g)).reshape(K.shape), lambda g: to_b(rows(g)))

def max_pool2d(x, size, stride=None):
    """Equation (26): x (n, h, w, c) -> (n, H, W, c); the stride is size if none is given."""
    x = check_batch("x", x, None, None, None, None)
    check_number("size", size, least=1, integer=True)
    places = places_in(x, size, size, size if stride is None else stride)
    choices = np.stack([x[place] for place in places])
    best = choices.max(axis=0)
    winner = choices.argmax(axis=0)  # the first of equals
    share = lambda g: [g * (winner == i) for i in range(len(places))]
    return best, lambda g: put_back(x.shape, places, share(g))

def flatten(x):
    """(n, height, width, channels) -> (n, height * width * channels), one row per example."""
    return x.reshape(len(x), -1), lambda g: g.reshape(x.shape)

def torch_conv2d(F, x, K, b, stride=1, padding=0):
    """The library version: images (n, channels, height, width), K (out, in, height, width)."""
    K = K.permute(3, 2, 0, 1).contiguous()
    return F.conv2d(x.movedim(-1, 1), K, b, stride, padding).movedim(1, -1)

MIRRORS |= {conv2d: torch_conv2d, flatten: lambda F, x: x.flatten(1)}
MIRRORS[max_pool2d] = lambda F, x, size, stride=None: (
    F.max_pool2d(x.movedim(-1, 1), size, stride).movedim(1, -1))

def demo_convolution(plot=False):
    """A kernel that finds vertical edges in a small picture; then strides, padding, ties."""
    print("\n== What does the 1 x 2 kernel (-1, 1) see in a picture? Only vertical edges ==")
    picture = np.array([[float(c == "#") for c in row] for row in ("..##..", "..##..", "......")])
    z, *_ = conv2d(picture[None, :, :, None], [[[[-1.0]], [[1.0]]]], np.zeros(1))
    for row, found in zip(picture.astype(int), z[0, :, :, 0].astype(int)):
        print(f"  {''.join('.#'[v] for v in row)} -> {''.join('.+-'[v] for v in found)}")
    rng, comparisons = np.random.default_rng(0), []
    x, K, b = rng.normal(size=(2, 7, 6, 3)), rng.normal(size=(3, 2, 3, 4)), rng.normal(size=4)
    for stride, padding in itertools.product((1, 2), (0, 1)):
        pairs = beside_torch(conv2d, x, K, b, stride=stride, padding=padding)
        comparisons += rows("convolution", f"conv2d, stride {stride}, padding {padding}", pairs)
    for image, title in ((x, "max_pool2d"), (np.ones((2, 7, 6, 3)), "max_pool2d, all ties")):
        for stride in (1, 3):
            pairs = beside_torch(max_pool2d, image, size=3, stride=stride)
            comparisons += rows("convolution", f"{title}, stride {stride}", pairs)
    return report(comparisons)

# Try: turn the picture by 90 degrees. What does the kernel see now, and which kernel sees it all?

# %% [markdown]
"""
## Training on digits: does all this read handwriting?

Training goes in epochs: shuffle the rows, cut them into mini-batches, one step (13) for each. The
gradient of a batch is the full one plus noise, at a fraction of the price (see optimization.py).
The training loss falls on and on, while the network begins to learn its rows by heart. So there are
three parts: training rows to learn from, validation rows to say when to stop, and test rows that
nobody looks at until the end. Early stopping:

    after an epoch with the lowest validation loss so far, keep a copy of the parameters;
    after `patience` epochs without one, stop, and go back to the copy.                      (27)

Choosing the epoch by the test rows is a common error: it makes the score too good. It fails with
few validation rows, whose loss is noise itself. A CNN, a convolutional network, alternates
convolution, bend and pooling. It is told what the MLP must find out: that near pixels belong
together, and that a stroke one pixel further on is the same stroke.
"""

# %%
def batches_of(rng, n, batch_size):
    """The row numbers 0 ... n-1, shuffled, in parts of almost equal size."""
    return np.array_split(rng.permutation(n), math.ceil(n / batch_size))

def fit_network(rng, layers, X, y, loss=cross_entropy, lr=0.3, l2=0.0, epochs=30, batch_size=32,
                validation=None, patience=10):
    """Mini-batch training, with early stopping (27) if validation = (X, y) is given. Changes the
    layers. Returns the mean training J and the validation loss (or nan) of each epoch."""
    X, y = check_batch("X", X), check_batch("y", y)
    if len(y) != len(X):
        raise ValueError(f"y must have {len(X)} rows, as X has, not shape {y.shape}")
    for name, value in {"epochs": epochs, "batch_size": batch_size, "patience": patience}.items():
        check_number(name, value, least=1, integer=True)
    trained = [a for layer in parts(layers) for a in (*layer.params, *layer.options.values())
               if isinstance(a, np.ndarray)]  # parameters and running averages
    history, best, kept = [], 0, []
    for epoch in range(epochs):
        J = [train_step(layers, X[batch], y[batch], loss, lr, l2)
             for batch in batches_of(rng, len(X), batch_size)]
        judged = loss(forward(layers, validation[0]), validation[1])[0] if validation else math.nan
        history.append((np.mean(J), judged))
        if judged <= min(v for _, v in history):
            best, kept = epoch, [a.copy() for a in trained]
        if validation and epoch - best >= patience:
            break
    for array, copied in zip(trained, kept):
        array[...] = copied
    return np.array(history)

def predict_network(layers, X):
    """The label with the largest score, for each row."""
    return forward(layers, X).argmax(axis=1)

def make_cnn(rng, channels=(16, 32), side=8, classes=10):
    """For each entry of channels a 3 x 3 convolution, a ReLU and pooling by 2; then linear."""
    layers, d_in = [], 1
    for d_out in channels:
        K = initial_weights("he", rng.normal(size=(3, 3, d_in, d_out)))
        layers += [Layer(conv2d, K, np.zeros(d_out), padding=1), Layer(relu)]
        layers += [Layer(max_pool2d, size=2)]
        d_in, side = d_out, side // 2
    return [*layers, Layer(flatten), *make_mlp(rng, (side * side * d_in, classes))]

def load_digits_split(fold=0):
    """Pixels from 0 to 1, and labels: 1293 rows to train, 144 to validate, 360 to test."""
    from sklearn.datasets import load_digits
    check_number("fold", fold, least=0, most=4, integer=True)
    X, y = load_digits(return_X_y=True)
    train, test = k_fold(len(X), 5, np.random.default_rng(0))[fold]
    train = np.random.default_rng(fold).permutation(train)
    return [(X[part] / 16, y[part]) for part in (train[144:], train[:144], test)]

def sklearn_mlp(X, y, hidden=(128, 64), lr=0.3, epochs=30, batch_size=32, patience=10, seed=0):
    """The library version with the loop inside, the fitted estimator. It draws its own start and
    validation rows, and stops by accuracy: only the share of digits read is comparable."""
    from sklearn.neural_network import MLPClassifier
    steps = {"solver": "sgd", "momentum": 0, "learning_rate_init": lr, "max_iter": epochs}
    stop = {"early_stopping": True, "n_iter_no_change": patience, "random_state": seed}
    return MLPClassifier(hidden, alpha=0, batch_size=batch_size, **steps, **stop).fit(X, y)

def demo_digits(plot=False):
    """An MLP and a CNN read digits; torch on the same path, and scikit-learn on the same rows."""
    import torch
    print("\n== Does it read handwriting? 1293 digits to learn, 144 to stop, 360 to test ==")
    (X, y), (X_val, y_val), (X_test, y_test) = load_digits_split()
    began, clock = time.perf_counter(), time.perf_counter
    right = accuracy(y_test, sklearn_mlp(X, y).predict(X_test))
    print(f"  MLPClassifier {right:.4f} of the test digits in {clock() - began:.1f} s")
    comparisons, rng, curves = [], np.random.default_rng(0), {}
    mlp, cnn = make_mlp(rng, (64, 128, 64, 10)), make_cnn(rng)
    for name, layers, shape, options in [
        ("MLP", mlp, (64,), {"lr": 0.3, "batch_size": 32, "epochs": 25}),
        ("CNN", cnn, (8, 8, 1), {"lr": 0.2, "batch_size": 16, "epochs": 8}),
    ]:
        train, val, test = (v.reshape(-1, *shape) for v in (X, X_val, X_test))
        start, rng, began = copy.deepcopy(layers), np.random.default_rng(0), clock()
        history = fit_network(rng, layers, train, y, validation=(val, y_val), **options)
        seconds, best, rng = clock() - began, history[:, 1].argmin() + 1, np.random.default_rng(0)
        began, size = clock(), options["batch_size"]
        order = [batch for _ in range(best) for batch in batches_of(rng, len(X), size)]
        batches = ((train[i], y[i]) for i in order)
        losses, p = torch_train(start, batches, cross_entropy, options["lr"])
        scores = torch_forward(start, torch.tensor(test), iter(p)).detach().numpy()
        ours = accuracy(y_test, predict_network(layers, test))
        print(f"  {name} {ours:.4f} in {seconds:.1f} s, best after epoch {best}; torch the same "
              f"in {clock() - began:.1f} s")
        J = history[:best, 0], np.reshape(losses, (best, -1)).mean(axis=1)
        pairs = [(": J", *J), (": scores", forward(layers, test), scores)]
        pairs += [(": accuracy", ours, accuracy(y_test, scores.argmax(axis=1)))]
        comparisons += rows("training", name, pairs)
        comparisons += rows("accuracy", f"{name} and MLPClassifier", [("", ours, right)])
        curves |= {f"{name}, training": history[:, 0], f"{name}, validation": history[:, 1]}
    if plot:
        W = np.pad(mlp[0].params[0].T[:32].reshape(4, 8, 8, 8), [(0, 0), (0, 0), (0, 1), (0, 1)])

        def _draw(left, right):
            draw_curves(left, curves, "epoch", "loss")
            right.imshow(W.transpose(0, 2, 1, 3).reshape(36, 72), cmap="coolwarm")
            right.set(xticks=[], yticks=[], title="weights of 32 first units: red adds")

        save_plot("neural_networks_digits.png", _draw, panels=2, size=(11, 4.5))
    return report(comparisons)

# Try: train on 200 digits instead of 1293. Which loses more, the MLP or the CNN?

# %%
if __name__ == "__main__":
    run_chapter("Backpropagation by hand and by machine, equal to torch.", [
        demo_neuron, demo_activations, demo_mlp, demo_gradient_check, demo_autograd,
        demo_initialisation, demo_normalisation, demo_convolution, demo_digits,
    ])  # fmt: skip

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch==2.13.0", "scikit-learn", "matplotlib"]
# ///
