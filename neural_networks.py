# %% [markdown]
"""
# Neural networks

A linear model draws one straight line. How can a machine learn a bent one, without anybody
telling it how to bend? A neural network stacks linear maps with a bend between them and
learns all of them at once, by the chain rule applied from the loss backwards: backpropagation.
Here it is done for one neuron with numbers you can check, then by hand for whole layers, then
by a small engine that derives it alone; then come the parts that make deep networks train,
and a real task: handwritten digits.

Read from top to bottom, run `python neural_networks.py`, check with `pytest`. Until a part
called "The library version" numpy is all you need; there, torch does the same.

    symbol    meaning                                            shape          in the code
    n, d, k   examples; features or channels; classes
    x         what enters a layer, one example per row           (n, d_in)      x
    W, b      weights and bias of a layer                        (d_in, d_out)  W, b
    z, a      before and after the bend: z = xW + b, a = φ(z)    (n, d_out)     z, a
    φ, σ, Φ   phi: any bend; sigma: the sigmoid; Phi: share of a standard normal below a point
    J         the loss, which training makes small               ()             J
    ḡ         gradient from behind, ∂J/∂(output)                 as the output  grad
    η, λ      eta, lambda: step size, price of large weights     ()             lr, l2
    γ, β, ε   gamma, beta: learned scale and shift of a norm; epsilon: small    gain, shift, eps
    K         kernel of a convolution            (height, width, d_in, d_out)   K

Images are (n, height, width, channels): channels last. torch puts them second.
"""

# %%
import copy
import itertools
import math
import time

import numpy as np

from utils import LARGEST, accuracy, check_array, check_number, compare, k_fold, make_moons
from utils import report, run_chapter, save_plot

ALLOWED = {
    "neuron": (1e-12, "a dozen float64 operations, each rounded once"),
    "activations and losses": (1e-12, "one formula per entry and a mean, in float64"),
    "MLP": (1e-10, "100 steps carry on the rounding of the first"),
    "gradient check": (1e-6, "central differences: h^2 of curvature, 1e-16 / h of rounding"),
    "autograd": (1e-12, "the same float64 operations in another order"),
    "initialisation": (1e-12, "one square root, one product per weight"),
    "residual": (1e-10, "twenty layers, each rounds once more"),
    "normalisation": (1e-10, "dividing by a small spread enlarges rounding"),
    "dropout": (1e-12, "one product per entry"),
    "convolution": (1e-10, "sums of k k d_in products in another order"),
    "pooling": (1e-12, "a maximum is copied; only gradients of overlapping windows add"),
    "training": (1e-8, "a thousand steps carry on the rounding of the first"),
    "accuracy": (0.03, "another start: two networks differ on a few of 360 digits"),
}


def check_batch(name, x, *shape):
    """x as a float array (float32 stays), not empty, every number finite; shape holds the
    size of each axis, None where any will do, and nothing where any shape will."""
    if not (isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.size and np.isfinite(x).all()):
        x = check_array(name, x, len(shape) or np.ndim(x))  # converts it, or says what is wrong
    if shape and (len(shape) != x.ndim or any(s not in (None, t) for s, t in zip(shape, x.shape))):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have shape ({wanted}), not {x.shape}")
    return x


# %% [markdown]
"""
## One neuron

Which way should each weight move to make one prediction better? A neuron weighs its inputs,
adds a bias, and bends the sum. The loss says how far off it is:

    z = w·x + b        a = σ(z) = 1 / (1 + exp(-z))        J = (a - y)² / 2              (1)

The chain rule multiplies the slopes on the way back, one factor per step forward:

    ∂J/∂z = (a - y) · a (1 - a)                                                          (2)
    ∂J/∂w = ∂J/∂z · x          ∂J/∂b = ∂J/∂z          ∂J/∂x = ∂J/∂z · w                  (3)

Each is (slope from behind) times (own slope). That shape returns in every layer below. Note
what (3) needs: the input x. So the way forward keeps what the way back will use.

By hand: x = (1, 2), w = (2, -1), b = 0, y = 1 give z = 0, a = 1/2, J = 1/8. Going back,
∂J/∂z = (1/2 - 1) · 1/4 = -1/8, so ∂J/∂w = (-1/8, -1/4): both weights should grow. It fails
where σ is flat: for |z| > 10 every gradient is nearly 0, however wrong the answer is.
"""


# %%
def neuron(x, w, b, y):
    """Equations (1) to (3) for one example: J, and its gradients for w, b and x."""
    x = check_batch("x", x, None)
    w = check_batch("w", w, len(x))
    a = 1 / (1 + math.exp(-(w @ x + check_number("b", b))))  # (1)
    error = a - check_number("y", y)
    dz = error * a * (1 - a)  # (2)
    return error**2 / 2, dz * x, dz, dz * w  # (3)


# %% [markdown]
"""
### The library version

torch records the operations while they run; `backward` then fills `.grad` of every tensor
that was created with `requires_grad=True`.
"""


# %%
def torch_neuron(x, w, b, y):
    """J, and the torch tensors w, b, x, which hold their `.grad`."""
    import torch

    x, w, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x, w, b))
    J = (torch.sigmoid(w @ x + b) - y) ** 2 / 2
    J.backward()
    return J, w, b, x


def demo_neuron(plot=False):
    """The numbers of the text, then five steps downhill."""
    print("\n== Which way should each weight of one neuron move? ==")
    x, w, b, y = np.array([1.0, 2.0]), np.array([2.0, -1.0]), 0.0, 1.0
    ours, theirs = neuron(x, w, b, y), torch_neuron(x, w, b, y)
    for step in range(5):
        J, dw, db, _ = neuron(x, w, b, y)
        print(f"  step {step}   J = {J:.4f}   dJ/dw = ({dw[0]:.4f}, {dw[1]:.4f})")
        w, b = w - dw, b - db
    names = ("J", "dJ/dw", "dJ/db", "dJ/dx")
    theirs = [theirs[0].item(), *(t.grad for t in theirs[1:])]
    return report([compare(*v, *ALLOWED["neuron"]) for v in zip(names, ours, theirs)])


# %% [markdown]
"""
Try: start from w = (-20, -1). The answer is all wrong; how large is the gradient?

## Activations and losses

Why bend at all? Two linear maps in a row are one: (xV)W = x(VW). A bend φ between them, entry
by entry, is what depth is for. Five bends, and their slopes:

    sigmoid      a = 1 / (1 + exp(-z))            a' = a (1 - a)                         (4)
    tanh         a = tanh z                       a' = 1 - a²                            (5)
    ReLU         a = max(z, 0)                    a' = 1 if z > 0, else 0                (6)
    leaky ReLU   a = z if z > 0, else z / 100     a' = 1 if z > 0, else 1 / 100          (7)
    GELU         a = z Φ(z)                       a' = Φ(z) + z exp(-z²/2) / √(2π)       (8)

Sigmoid and tanh are flat far from 0. A ReLU whose z is negative on all rows gets no gradient
and stays dead; the leaky one does not. GELU is a ReLU with a smooth corner.

The last bend turns the scores z, the logits, into probabilities: σ for one, softmax for k.
Here every p depends on every z; keeping only the diagonal of its slopes is a common error:

    pᵢ = exp(zᵢ) / Σⱼ exp(zⱼ)         ∂J/∂zᵢ = pᵢ (ḡᵢ - Σⱼ ḡⱼ pⱼ)                        (9)

A loss is a mean, so that one step size suits any n. For numbers it is the squared error, for
labels -log(probability of the truth). The gradient is prediction minus truth, over the count:

    squared error          mean of (z - y)²                           2 (z - y)          (10)
    binary cross-entropy   mean of log(1 + exp(z)) - y z              σ(z) - y           (11)
    cross-entropy          mean over rows of log Σⱼ exp(zⱼ) - z_y     pⱼ - [j = y]       (12)

Written with p instead of z these fail: a sure mistake has p = 0 in float64, log 0 is infinite
and the slope of σ is 0. From logits, z = -1000 with y = 1 costs 1000, and its slope is -1.
"""

# %%
erf = np.vectorize(math.erf, otypes=[float])  # numpy has none: exact, at Python speed


def sigmoid(z):
    """Equation (4): a and a'. Only exp(-|z|) is computed, so nothing overflows."""
    e = np.exp(-np.abs(z))
    a = np.where(z >= 0, 1, e) / (1 + e)
    return a, a * (1 - a)


def tanh(z):
    """Equation (5): a and a'."""
    a = np.tanh(z)
    return a, 1 - a * a


def relu(z):
    """Equation (6): a and a'. At 0 there is no slope; every library takes 0."""
    return np.maximum(z, 0), z > 0


def leaky_relu(z):
    """Equation (7): a and a' (Maas, Hannun, Ng, 2013)."""
    slope = np.where(z > 0, 1, 0.01).astype(z.dtype)
    return z * slope, slope


def gelu(z):
    """Equation (8): a and a' (Hendrycks, Gimpel, 2016). Phi(z) = (1 + erf(z / sqrt 2)) / 2."""
    below = ((1 + erf(z / math.sqrt(2))) / 2).astype(z.dtype)
    return z * below, below + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


ACTIVATIONS = {f.__name__: f for f in (sigmoid, tanh, relu, leaky_relu, gelu)}


def softmax(z):
    """Equation (9), left, per row. Subtracting the largest score only prevents overflow."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(p, grad):
    """Equation (9), right: from dJ/dp to dJ/dz."""
    return p * (grad - np.sum(grad * p, axis=-1, keepdims=True))


def squared_error(z, y):
    """Equation (10): J and dJ/dz; y has the shape of z."""
    error = z - check_batch("y", y, *z.shape)
    return np.mean(error * error), 2 / error.size * error


def binary_cross_entropy(z, y):
    """Equation (11): J and dJ/dz; y has the shape of z, its entries from 0 to 1."""
    y = check_batch("y", y, *z.shape)
    if y.min() < 0 or y.max() > 1:
        raise ValueError(f"y must hold numbers from 0 to 1, not {y.min():g} to {y.max():g}")
    return np.mean(np.logaddexp(0, z) - y * z), (sigmoid(z)[0] - y) / z.size


def cross_entropy(z, y):
    """Equation (12): J and dJ/dz; z (n, k), y (n,) labels 0 ... k-1, not all of them needed."""
    n, k = check_batch("z", z, None, None).shape
    y, rows = check_batch("y", y, n), np.arange(n)
    wrong = (y < 0) | (y >= k) | (y % 1 != 0)
    if wrong.any():
        raise ValueError(f"y must hold whole numbers from 0 to {k - 1}, not {y[wrong][0]:g}")
    y = y.astype(int)
    log_p = z - z.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    grad = np.exp(log_p)
    grad[rows, y] -= 1
    return -np.mean(log_p[rows, y]), grad / n


# %% [markdown]
"""
### The library version

`torch.nn.functional` has the same five bends; its `gelu` offers a tanh formula too, which is
off by up to 5e-4. (11) is `binary_cross_entropy_with_logits`. `cross_entropy` also wants
logits; its name does not say so, and feeding it probabilities raises no error.
"""


# %%
def torch_activation(name, z, grad):
    """a, and dJ/dz for dJ/da = grad; name is one of ACTIVATIONS or softmax."""
    import torch

    z = torch.tensor(z, requires_grad=True)
    a = z.softmax(-1) if name == "softmax" else getattr(torch.nn.functional, name)(z)
    a.backward(torch.tensor(grad))
    return a.detach(), z.grad


def torch_loss(loss, z, y):
    """J as a tensor; loss is one of our three functions, z and y are tensors."""
    import torch.nn.functional as F

    names = {squared_error: "mse_loss", cross_entropy: "cross_entropy"}
    return getattr(F, names.get(loss, "binary_cross_entropy_with_logits"))(z, y)


def demo_activations(plot=False):
    """Where each bend stops learning, what a sure mistake costs, and all of it in torch."""
    import torch

    print("\n== Where does each bend stop learning? Its slope at z = -20, -2, 0, 2, 20 ==")
    z, grad, pairs = np.array([-20.0, -2, 0, 2, 20]), np.array([1.0, -2, 0.5, 0.3, 3]), []
    for name, phi in ACTIVATIONS.items():
        a, slope = phi(z)
        print(f"  {name:10}" + "".join(f"{s:8.4f}" for s in slope))
        pairs += zip((name, name + ", slope"), (a, grad * slope), torch_activation(name, z, grad))
    p, theirs = softmax(z / 10), torch_activation("softmax", z / 10, grad)
    pairs += zip(("softmax", "softmax, backward"), (p, softmax_backward(p, grad)), theirs)
    print("  What does a mistake cost? y = 1, and the score says no ever louder:")
    for score in (-1.0, -10.0, -1000.0):
        J, slope = binary_cross_entropy(np.array([score]), [1.0])
        print(f"  z = {score:5.0f}   loss {J:7.2f}   slope {slope[0]:.4f}")
    z, y, labels = 5 * np.outer(grad, [1, -1, 2]), np.outer(abs(grad), [0, 0.1, 0.3]), [0, 1, 2, 2, 0]
    for loss in (squared_error, binary_cross_entropy, cross_entropy):
        y, t = labels if loss is cross_entropy else y, torch.tensor(z, requires_grad=True)
        J = torch_loss(loss, t, torch.tensor(y))
        J.backward()
        what = (loss.__name__, loss.__name__ + ", gradient")
        pairs += zip(what, loss(z, y), (J.item(), t.grad))
    return report([compare(*pair, *ALLOWED["activations and losses"]) for pair in pairs])


# %% [markdown]
"""
Try: which constant z makes (11) smallest when three labels of four are 1? Predict, then check.

## Layers and backpropagation

How do we get the gradient of a million weights for the price of two predictions? A network is
a chain of layers. Each knows only its own slope, and repeats the shape of (3) on whole arrays:

    forward     z = xW + b                                                               (13)
    backward    ∂J/∂W = xᵀḡ          ∂J/∂b = Σ over rows of ḡ          ∂J/∂x = ḡWᵀ       (14)
    bend        a = φ(z)             ∂J/∂z = ḡ · φ'(z), entry by entry                   (15)

Follow one entry: in every row Wᵢⱼ takes xᵢ to zⱼ, so it collects Σ over rows of xᵢ ḡⱼ. The
shapes leave no choice: (d_in, n) @ (n, d_out). Run forward and keep each x; get ∂J/∂z from
the loss; walk the chain backwards once (Rumelhart, Hinton and Williams, 1986). Then step:

    J = loss + λ/2 Σ ‖W‖²            p ← p - η ∂J/∂p   for every parameter p             (16)

The penalty counts weights, arrays of two axes or more; biases are free. A layer costs three
matrix products: one forward, two backward. The first layer of a network needs only one of
the latter, as no step is taken in the data. It fails if the weights of a layer start equal:
its units then get equal gradients and stay copies for ever. Hence the random start.
"""


# %%
class Layer:
    """One link of the chain. params are its arrays, grads their gradients by the same names,
    running what it tracks without gradient, kept what forward leaves for backward."""

    def __init__(self, **params):
        self.params = {name: np.array(check_batch(name, p)) for name, p in params.items()}
        self.grads, self.running, self.layers, self.kept = {}, {}, [], None

    def keep(self, out, *kept):
        """Leave something for backward; returns the output."""
        self.kept = out.shape, *kept
        return out

    def recall(self, grad):
        """dJ/d(output), checked, and what forward left."""
        if self.kept is None:
            raise ValueError(f"{type(self).__name__}.backward needs a call of forward first")
        return check_batch("grad", grad, *self.kept[0]), *self.kept[1:]


class Linear(Layer):
    """z = xW + b; W (d_in, d_out), b (d_out,). Every layer trains its own copy of its arrays."""

    def __init__(self, W, b):
        W = check_batch("W", W, None, None)
        super().__init__(W=W, b=check_batch("b", b, W.shape[1]))

    def forward(self, x, training=False):
        """Equation (13): (n, d_in) @ (d_in, d_out) -> (n, d_out)."""
        x = check_batch("x", x, None, len(self.params["W"]))
        z = x @ self.params["W"]
        z += self.params["b"]
        return self.keep(z, x)

    def backward(self, grad, to_input=True):
        """Equation (14)."""
        grad, x = self.recall(grad)
        self.grads = {"W": x.T @ grad, "b": grad.sum(axis=0)}
        return grad @ self.params["W"].T if to_input else None


class Activation(Layer):
    """a = phi(z), entry by entry; name is one of ACTIVATIONS."""

    def __init__(self, name):
        super().__init__()
        if name not in ACTIVATIONS:
            raise ValueError(f"name must be one of {', '.join(ACTIVATIONS)}, not {name!r}")
        self.name = name

    def forward(self, x, training=False):
        """Equation (15), left; keeps the slope."""
        return self.keep(*ACTIVATIONS[self.name](check_batch("x", x)))

    def backward(self, grad, to_input=True):
        """Equation (15), right."""
        grad, slope = self.recall(grad)
        return grad * slope


def forward(layers, x, training=False):
    """Send x through the chain."""
    for layer in layers:
        x = layer.forward(x, training)
    return x


def backward(layers, grad, to_input=True):
    """Send dJ/d(output) back: fills every layer's grads, returns dJ/dx (or None)."""
    for layer in reversed(layers[1:]):
        grad = layer.backward(grad)
    return layers[0].backward(grad, to_input)


def parameters(layers):
    """Every parameter of the network, and its gradient (None before backward)."""
    for layer in layers:
        yield from parameters(layer.layers)  # some layers hold layers
        yield from ((p, layer.grads.get(name)) for name, p in layer.params.items())


def train_step(layers, X, y, loss, lr, l2=0.0):
    """Equation (16), once. Changes the layers; returns J as it was before the step."""
    check_number("lr", lr, above=0)
    check_number("l2", l2, least=0)
    with np.errstate(over="ignore", invalid="ignore"):  # what diverges is refused below
        J, grad = loss(forward(layers, X, training=True), y)
        backward(layers, grad, to_input=False)
        J += l2 / 2 * sum(np.sum(p * p) for p, _ in parameters(layers) if l2 and p.ndim > 1)
    if not J < LARGEST:  # nan too
        raise ValueError(f"the loss reached {J:.2g}: lr = {lr:g} is too large")
    for p, grad in parameters(layers):
        p -= lr * (grad + l2 * p if l2 and p.ndim > 1 else grad)
    return float(J)


def make_mlp(rng, sizes, activation="relu"):
    """Linear layers of these sizes, (64, 32, 10) say, with a bend between them: a multi-layer
    perceptron. Each unit starts with weights of its own, see Initialisation."""
    layers = []
    for d_in, d_out in itertools.pairwise(sizes):
        W = initial_weights("he", rng.normal(size=(d_in, d_out)))
        layers += [Linear(W, np.zeros(d_out)), Activation(activation)]
    return layers[:-1]  # the loss holds the last bend


# %% [markdown]
"""
### The library version

torch has each layer as a module and as a function in `torch.nn.functional`, F below. Functions
keep this mirror short: the same layers, from our start, with torch's own gradients. torch
stores W as (d_out, d_in), and its `weight_decay` penalises biases too unless told otherwise.
"""

# %%
MIRRORS = {  # p yields the parameters of the layer, as tensors; each section adds its layers
    Linear: lambda F, layer, x, p, training: F.linear(x, next(p).T, next(p)),
    Activation: lambda F, layer, x, p, training: getattr(F, layer.name)(x),
}


def torch_forward(layers, x, p, training=False):
    """forward() by torch; p is an iterator over the parameters, as tensors."""
    import torch.nn.functional as F

    for layer in layers:
        x = MIRRORS[type(layer)](F, layer, x, p, training)
    return x


def torch_train(layers, batches, loss, lr, l2=0.0):
    """One step of torch.optim.SGD per batch (X, y), from our start: J before each step, and
    the parameters as tensors. Leaves our layers as they are."""
    import torch

    p, losses = [torch.tensor(p, requires_grad=True) for p, _ in parameters(layers)], []
    weights, biases = ([q for q in p if (q.ndim > 1) == many] for many in (True, False))
    groups = [{"params": weights, "weight_decay": l2}, {"params": biases}]
    optimiser = torch.optim.SGD(groups, lr=lr)
    for X, y in batches:
        J = torch_loss(loss, torch_forward(layers, torch.tensor(X), iter(p), True), torch.tensor(y))
        losses.append(J.item() + l2 / 2 * sum((q * q).sum().item() for q in weights))
        optimiser.zero_grad()
        J.backward()
        optimiser.step()
    return losses, p


def beside_torch(layers, x, grad, training=True):
    """(what, ours, torch's) of one pass: output, dJ/dx, and the gradient of each parameter."""
    import torch

    t, *p = (torch.tensor(v, requires_grad=True) for v in (x, *(p for p, _ in parameters(layers))))
    out = torch_forward(layers, t, iter(p), training)
    out.backward(torch.tensor(grad))
    pairs = [("output", forward(layers, x, training), out.detach())]
    pairs += [("dJ/dx", backward(layers, grad), t.grad)]
    names = [name for layer in layers for name in layer.params]
    return pairs + [(f"dJ/d{n}", g, q.grad) for n, (_, g), q in zip(names, parameters(layers), p)]


def train_beside_torch(layers, X, y, loss, lr=0.1, l2=0.0, steps=100):
    """(what, ours, torch's) after these steps from the same start: J, parameters, dJ/dX."""
    losses, p = torch_train(layers, [(X, y)] * steps, loss, lr, l2)
    ours = [train_step(layers, X, y, loss, lr, l2) for _ in range(steps)]
    flat = [np.concatenate([q.ravel() for q, _ in parameters(layers)])]
    flat += [np.concatenate([q.detach().ravel() for q in p])]
    _, grad = loss(forward(layers, X, training=True), y)
    return [("J", ours, losses), ("weights", *flat), beside_torch(layers, X, grad)[1]]


def demo_mlp(plot=False):
    """Two half moons, which no line separates; then each bend and loss beside torch."""
    print("\n== Can it learn a bent boundary? Two moons, 20 tanh units, # where p > 1/2 ==")
    rng = np.random.default_rng(0)
    X, y = make_moons(rng)
    layers = make_mlp(rng, (2, 20, 1), "tanh")
    for _ in range(1000):
        train_step(layers, X, y[:, None], binary_cross_entropy, lr=1.0)
    for height in np.linspace(1.3, -0.9, 10):
        row = forward(layers, [[x, height] for x in np.linspace(-1.4, 2.4, 60)])
        print("  " + "".join(".#"[int(z > 0)] for z in row[:, 0]))
    right = accuracy(y, (forward(layers, X)[:, 0] > 0).astype(int))
    print(f"  accuracy on the training rows: {right:.3f}")
    cases = [(name, squared_error, 0.0) for name in ACTIVATIONS]
    cases += [("tanh", binary_cross_entropy, 0.01), ("relu", cross_entropy, 0.01)]
    X, Y, comparisons = rng.normal(size=(30, 4)), rng.random((30, 3)), []
    for name, loss, l2 in cases:
        y = Y.argmax(axis=1) if loss is cross_entropy else Y
        layers = make_mlp(rng, (4, 8, 8, 3), name)
        for what, *pair in train_beside_torch(layers, X, y, loss, l2=l2):
            title = f"{name}, {loss.__name__}, l2={l2:g}, 100 steps: {what}"
            comparisons.append(compare(title, *pair, *ALLOWED["MLP"]))
    return report(comparisons)


# %% [markdown]
"""
Try: set all weights of the first layer to 0.1. How many different units are there after training?

## Gradient check

How do you know that a backward pass is right? A wrong one often trains too, only worse. Ask
the function itself: nudge one number by h either way, and see how far the value moves:

    slope ≈ (f(x + h) - f(x - h)) / 2h                                                   (17)
    relative error = ‖analytic - numerical‖ / (‖analytic‖ + ‖numerical‖)                 (18)

Curvature makes (17) wrong by about h², rounding by about 1e-16 / h: the sum is least near
h = 1e-5. A right gradient then has a relative error below 1e-7, a wrong one 0.01 to 1.

A layer is checked with f = Σ u · layer(x), for random u. With u all ones, a softmax or a norm
makes f constant and its gradient 0: a backward times 0, 2 or -1 would pass. It fails across a
kink (a ReLU within h of 0), in float32 (rounding 1e-7 / h), and if a layer draws new random
numbers at each call. It costs two passes per number: right for tests, useless for training.
"""


# %%
def numerical_gradient(f, x, h=1e-5):
    """Equation (17) for every entry of x; f takes an array like x and returns a number."""
    check_number("h", h, above=0)
    x = np.array(check_batch("x", x), dtype=float)
    slope = np.empty_like(x)
    for i in np.ndindex(x.shape):
        old = x[i]
        x[i] = old + h
        above = f(x)
        x[i] = old - h
        slope[i] = (above - f(x)) / (2 * h)
        x[i] = old
    return slope


def relative_error(a, b):
    """Equation (18), from 0 to 1. Two zero gradients agree."""
    size = np.linalg.norm(a) + np.linalg.norm(b)
    return float(np.linalg.norm(np.subtract(a, b)) / size) if size > 0 else 0.0


def check_gradients(layer, x, rng, training=True):
    """Relative error of dJ/dx and of each parameter's gradient, by name. Leaves layer as it is."""
    layer, x = copy.deepcopy(layer), np.array(check_batch("x", x), dtype=float)
    u = rng.normal(size=layer.forward(x, training).shape)
    analytic, errors = {"x": layer.backward(u), **layer.grads}, {}
    for name, array in {"x": x, **layer.params}.items():
        start = array.copy()

        def f(nudged):
            array[...] = nudged
            return np.sum(u * layer.forward(x, training))

        errors[name] = relative_error(analytic[name], numerical_gradient(f, start))
        array[...] = start
    return errors


# %% [markdown]
"""
### The library version

`torch.autograd.gradcheck` does the same, entry by entry, and says yes or no. Wrapped in an
`autograd.Function`, our numpy layer becomes a link in torch's own chain.
"""


# %%
def torch_gradcheck(layer, x, training=True):
    """Does torch.autograd.gradcheck accept our layer, for its input and its parameters?"""
    import torch

    layer = copy.deepcopy(layer)

    def run(x, *params):
        layer.params = dict(zip(layer.params, (p.detach().numpy() for p in params)))
        return torch.tensor(layer.forward(x.detach().numpy(), training))

    class Ours(torch.autograd.Function):
        """Our layer as a function of its input and its parameters."""

        @staticmethod
        def forward(ctx, *tensors):
            """Our forward; torch keeps the tensors."""
            ctx.save_for_backward(*tensors)
            return run(*tensors)

        @staticmethod
        def backward(ctx, grad):
            """Our forward again, on the kept tensors, and our backward."""
            run(*ctx.saved_tensors)
            dx = layer.backward(grad.numpy())
            return tuple(torch.tensor(g) for g in (dx, *map(layer.grads.get, layer.params)))

    tensors = [torch.tensor(v, requires_grad=True) for v in (x, *layer.params.values())]
    return torch.autograd.gradcheck(Ours.apply, tensors, raise_exception=False)


def demo_gradient_check(plot=False):
    """Which h? Then right layers and a wrong one, judged by us and by torch."""
    print("\n== How small should the nudge h be? Digits that (17) gets right for tanh at 0.7 ==")
    for power in range(1, 12, 2):
        numerical = numerical_gradient(np.tanh, np.array(0.7), 10.0**-power)
        digits = -math.log10(relative_error(tanh(0.7)[1], numerical))
        print(f"  h = 1e-{power:02d}  {'#' * round(digits)}")
    rng, wrong, comparisons = np.random.default_rng(0), Activation("tanh"), []
    wrong.backward = lambda grad: -grad
    layers = [Linear(rng.normal(size=(3, 2)), [0.5, -1.0]), *map(Activation, ACTIVATIONS), wrong]
    for layer in layers:
        what, x = getattr(layer, "name", "Linear"), rng.normal(size=(4, 3))
        worst = max(check_gradients(layer, x, rng).values())
        right, theirs = worst <= ALLOWED["gradient check"][0], torch_gradcheck(layer, x)
        if layer is wrong:
            what = "tanh with a wrong backward"
        else:
            comparisons.append(compare(what + ", error", worst, 0.0, *ALLOWED["gradient check"]))
        comparisons.append(compare(what + ", passes", right, theirs, 0.0, "both yes, or both no"))
    return report(comparisons)


# %% [markdown]
"""
Try: in `Linear.backward` take the mean of grad over the rows for "b". What error do you expect?

## Autograd

Must we derive a backward for every new formula? No: a formula is built from a few operations
whose slopes are known. Record each as it runs, with an edge to everything it was made from.
Backpropagation is then one walk over that graph, last made first:

    ḡ(source) ← ḡ(source) + pull(ḡ(result))      for every edge from result to source    (19)

    c = a + b     to a: ḡ            to b: ḡ              c = sum a     ḡ, once per entry
    c = a b       to a: ḡ b          to b: ḡ a            c = a[i]      ḡ, put back at i
    c = a @ b     to a: ḡ bᵀ         to b: aᵀ ḡ           c = φ(a)      ḡ φ'(a)          (20)

Three things go wrong in small engines. (a) A value used twice gets two pulls: they add.
(b) Numpy repeats small arrays to fit large ones; the gradients of the copies must be summed.
(c) A tensor may pull only after all its users did. Sources are made before results, so the
order of birth, backwards, is right; and without recursion no depth is too deep. A second
backward adds to the `grad` of the leaves, as in torch; the gradients of inner tensors belong
to one walk alone, or the second would count the first again.
"""


# %%
def unbroadcast(grad, shape):
    """Sum grad over the axes along which numpy repeated an array of this shape."""
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    wide = tuple(i for i, size in enumerate(shape) if size < grad.shape[i])
    return grad.sum(axis=wide, keepdims=True) if wide else grad


def lift(x):
    """x as a Tensor; what was none is a constant, which gets no gradient."""
    return x if isinstance(x, Tensor) else Tensor(x, tracked=False)


class Tensor:
    """An array that remembers how it was made: edges holds (source, pull) pairs, where pull
    takes dJ/d(this) to dJ/d(source). A leaf has none; after backward it has a grad."""

    __array_ufunc__ = None  # leaves array + tensor to our __radd__
    births = itertools.count()

    def __init__(self, data, edges=None, tracked=True):
        self.data = np.asarray(data) if edges else np.array(check_batch("data", data))
        self.edges = [edge for edge in edges or () if edge[0].tracked]
        self.tracked = bool(self.edges) if edges else tracked
        self.grad, self.birth = None, next(Tensor.births)

    def backward(self, grad=None):
        """Equation (19): add dJ/d(leaf) to the grad of every leaf below; grad is dJ/d(this)."""
        if not self.tracked or (grad is None and self.data.size > 1):
            raise ValueError(f"backward needs a result made from Tensors and grad, its gradient, "
                             f"of shape {self.data.shape}; for a single number grad is 1")
        grad = check_batch("grad", np.ones_like(self.data) if grad is None else grad)
        found, todo, pulled = {self}, [self], {self: check_batch("grad", grad, *self.data.shape)}
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

    def __add__(self, other):
        other = lift(other)
        return Tensor(self.data + other.data, [(self, lambda g: g), (other, lambda g: g)])

    def __mul__(self, other):
        a, b = self.data, lift(other).data
        return Tensor(a * b, [(self, lambda g: g * b), (lift(other), lambda g: g * a)])

    def __matmul__(self, other):
        other = lift(other)
        a, b = self.data, other.data
        if a.ndim == 1:  # a row, for the time of the product
            return (self.reshape(1, -1) @ other)[..., 0, :]
        if b.ndim == 1:
            return (self @ other.reshape(-1, 1))[..., 0]
        to_a, to_b = (lambda g: g @ b.swapaxes(-1, -2)), (lambda g: a.swapaxes(-1, -2) @ g)
        return Tensor(a @ b, [(self, to_a), (other, to_b)])

    def __getitem__(self, index):
        def put_back(g):
            whole = np.zeros_like(self.data)
            np.add.at(whole, index, g)  # an entry taken twice gets both gradients
            return whole

        return Tensor(self.data[index], [(self, put_back)])

    def sum(self, axis=None, keepdims=False):
        """Sum over an axis, several, or all."""
        wide, shape = self.data.sum(axis, keepdims=True).shape, self.data.shape
        out = self.data.sum(axis, keepdims=keepdims)
        return Tensor(out, [(self, lambda g: np.broadcast_to(g.reshape(wide), shape))])

    def max(self, axis=None, keepdims=False):
        """Largest entry. Ties share the gradient equally, as in torch's amax."""
        top = self.data.max(axis, keepdims=True)
        share = (self.data == top) / np.sum(self.data == top, axis, keepdims=True)
        out = self.data.max(axis, keepdims=keepdims)
        return Tensor(out, [(self, lambda g: share * g.reshape(top.shape))])

    def reshape(self, *shape):
        """The same entries in another shape."""
        return Tensor(self.data.reshape(*shape), [(self, lambda g: g.reshape(self.data.shape))])

    def transpose(self, *axes):
        """Axes in another order; reversed if none is given."""
        back = np.argsort(axes) if axes else None
        return Tensor(self.data.transpose(*axes), [(self, lambda g: g.transpose(back))])

    def bend(self, out, slope):
        """Entry by entry: the values and slopes of any function of this."""
        if not np.isfinite(out).all():
            raise ValueError("a function outside its range: log needs numbers above 0, say")
        return Tensor(out, [(self, lambda g: g * slope)])

    exp = lambda self: self.bend(np.exp(self.data), np.exp(self.data))
    log = lambda self: self.bend(np.log(self.data), 1 / self.data)
    tanh = lambda self: self.bend(*tanh(self.data))
    relu = lambda self: self.bend(*relu(self.data))
    __pow__ = lambda self, p: self.bend(self.data**p, p * self.data ** (p - 1))
    __neg__ = lambda self: self * -1
    __sub__ = lambda self, other: self + -lift(other)
    __truediv__ = lambda self, other: self * lift(other) ** -1
    __radd__, __rmul__ = __add__, __mul__
    __rsub__ = lambda self, other: lift(other) - self
    __rtruediv__ = lambda self, other: lift(other) / self
    __rmatmul__ = lambda self, other: lift(other) @ self
    mean = lambda self, axis=None: self.sum(axis) * (self.sum(axis).data.size / self.data.size)


# %% [markdown]
"""
### The library version

`torch.Tensor` is the same idea in C++. Three of its habits: a graph is freed after backward
unless `retain_graph=True`; `max(dim)` sends the gradient of a tie to the first, `amax` shares
it; integers have no gradient.
"""


# %%
def gradients(make, f, *arrays):
    """f of tensors, summed, and its gradient for each; make is Tensor or torch_leaf."""
    leaves = [make(array) for array in arrays]
    out = f(*leaves).sum()
    out.backward()
    return [out.data, *(leaf.grad for leaf in leaves)]


def torch_leaf(array):
    """A torch tensor that asks for its gradient."""
    import torch

    return torch.tensor(array, dtype=torch.float64, requires_grad=True)


def demo_autograd(plot=False):
    """A graph you can draw, a deep one, a network without its backward, a formula."""
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
    print(f"  through a graph 10000 tensors deep: grad of a = 0.9999^5000 = {a.grad:.4f}")
    pairs = [("10000 deep: df/da", a.grad, 0.9999**5000)]
    rng = np.random.default_rng(0)
    x, y, layers = rng.normal(size=(20, 4)), np.arange(20) % 3, make_mlp(rng, (4, 8, 3), "tanh")
    J, grad = cross_entropy(forward(layers, x), y)
    backward(layers, grad)

    def network(W, b, V, c):
        z = (x @ W + b).tanh() @ V + c
        return (z.exp().sum(1).log() - z[np.arange(20), y]).mean()

    arrays, by_hand = zip(*parameters(layers))
    for name, *pair in zip(("J", "W1", "b1", "W2", "b2"), gradients(Tensor, network, *arrays), [J, *by_hand]):
        pairs.append((f"MLP, engine and by hand: {name}", *pair))
    arrays, f = (x[:3, :1], x[3]), lambda a, b: (a * b).exp() / (a * a + 1) - b.relu() ** 2
    for name, *pair in zip(("f", "df/da", "df/db"), *(gradients(make, f, *arrays) for make in (Tensor, torch_leaf))):
        pairs.append((f"formula, engine and torch: {name}", *pair))
    return report([compare(*pair, *ALLOWED["autograd"]) for pair in pairs])


# %% [markdown]
"""
Try: f = a * a with a = 3. Predict a.grad after one backward, then after three.

## Initialisation

Why do deep networks need a careful start? Multiply by twenty matrices in a row, and numbers
vanish or explode. If x has mean square s, and W independent entries of mean 0 and variance v,
each z is a sum of d_in terms, so

    mean square of z = d_in v s          of ∂J/∂x = d_out v · mean square of ḡ           (21)

Keeping both needs v = 1 / d_in and v = 1 / d_out. Xavier (Glorot and Bengio, 2010) takes the
middle; He (He et al., 2015) doubles, as a ReLU sets half of the mean square to 0:

    Xavier   v = 2 / (d_in + d_out)   for tanh         He   v = 2 / d_in   for ReLU      (22)

v is a variance: the weights are √v times standard normal numbers. Using v itself as their
spread is a common error. For a convolution d_in is height · width · channels of the kernel.

The other cure is a shorter path. A residual block (He et al., 2016) adds its input:

    y = x + F(x)         ∂J/∂x = ḡ + (∂F/∂x)ᵀ ḡ                                          (23)

The first term reaches the bottom undiminished however long the chain is. It fails in the
other direction: each block adds to the variance, so deep stacks need a norm as well (next).
"""


# %%
def initial_weights(method, draws):
    """Equation (22): standard normal draws (..., d_in, d_out), scaled by sqrt(v)."""
    draws = check_batch("draws", draws)
    if method not in ("xavier", "he") or draws.ndim < 2:
        raise ValueError(f"method must be xavier or he, not {method!r}, and draws have 2 axes")
    d_in, d_out = draws.size // draws.shape[-1], draws.size // draws.shape[-2]
    v = 2 / (d_in + d_out) if method == "xavier" else 2 / d_in
    return math.sqrt(v) * draws


class Residual(Layer):
    """y = x + F(x), where F is a chain of layers that keeps the shape of x."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x, training=False):
        """Equation (23), left."""
        x = check_batch("x", x)
        return self.keep(x + check_batch("F(x)", forward(self.layers, x, training), *x.shape))

    def backward(self, grad, to_input=True):
        """Equation (23), right."""
        (grad,) = self.recall(grad)
        return grad + backward(self.layers, grad)


# %% [markdown]
"""
### The library version

torch says `kaiming_normal_` for He. Given a seed, both versions can share their draws. A fresh
`torch.nn.Linear` uses neither: it is uniform on ±1/√d_in, with variance 1 / (3 d_in), a third
of what keeps the size of a linear map.
"""


# %%
def torch_initial_weights(method, shape, seed):
    """Standard normal draws, and torch.nn.init from the same seed, both in our order of axes."""
    import torch

    axes = (1, 0) if len(shape) == 2 else (2, 3, 1, 0)  # torch: out, in, height, width
    init = {"xavier": torch.nn.init.xavier_normal_, "he": torch.nn.init.kaiming_normal_}[method]
    kind, results = {"nonlinearity": "relu"} if method == "he" else {}, []
    for fill, options in ((torch.Tensor.normal_, {}), (init, kind)):
        W = torch.empty([shape[i] for i in np.argsort(axes)], dtype=torch.float64)
        fill(W, generator=torch.Generator().manual_seed(seed), **options)
        results.append(W.permute(axes).numpy())
    return results


def torch_residual(F, layer, x, p, training):
    """x + F(x) by torch."""
    return x + torch_forward(layer.layers, x, p, training)


MIRRORS[Residual] = torch_residual


def deep_chain(activation, v, residual=False, depth=20, width=100):
    """The mean square of the activations at each depth of a chain, and the chain."""
    rng, sizes, layers = np.random.default_rng(0), [], []
    x = rng.normal(size=(100, width))
    for _ in range(depth):
        W = math.sqrt(v) * rng.normal(size=(width, width))
        block = [Linear(W, np.zeros(width)), Activation(activation)]
        layers += [Residual(block)] if residual else block
        x = forward(layers[-1:] if residual else block, x)
        sizes.append(np.mean(x * x))
    return np.array(sizes), layers


def demo_initialisation(plot=False):
    """Mean square of the activations by depth, for each start; then the same in torch."""
    print("\n== What is left of a signal after 20 layers of 100 units? Its mean square ==")
    starts, curves, pairs = {"0.0001": 1e-4, "1": 1.0, "Xavier": 0.01, "He": 0.02}, {}, []
    for activation, (name, v) in itertools.product(("tanh", "relu"), starts.items()):
        curves[f"{activation}, {name}"] = sizes = deep_chain(activation, v)[0]
        some = "".join(f"{sizes[i]:10.1e}" for i in (0, 4, 9, 19))
        print(f"  {activation}, v = {name:7} at depth 1, 5, 10, 20: {some}")
    u = np.random.default_rng(1).normal(size=(1, 100))
    for residual in (False, True):
        layers = deep_chain("tanh", 0.005, residual)[1]
        _, (_, *pair), *_ = beside_torch(layers, 0.1 * u, u)
        what = "20 residual blocks" if residual else "20 layers"
        print(f"  tanh, v = 0.005, {what}: |dJ/dx| = {np.linalg.norm(pair[0]):.1e} for |dJ/dy| = 10")
        pairs.append((f"dJ/dx of {what}", *pair, *ALLOWED["residual"]))
    for method, shape in itertools.product(("xavier", "he"), [(100, 50), (3, 3, 4, 8)]):
        draws, theirs = torch_initial_weights(method, shape, seed=0)
        ours = initial_weights(method, draws)
        pairs.append((f"{method}, shape {shape}", ours, theirs, *ALLOWED["initialisation"]))
    if plot:
        def draw(ax):
            for name, sizes in curves.items():
                ax.semilogy(range(1, 21), sizes, "--" if "tanh" in name else "-", label=name)
            ax.set(xlabel="depth (layers)", ylabel="mean square of the activations")
            ax.legend(title="bend, v")

        save_plot("neural_networks_initialisation.png", draw)
    return report([compare(*pair) for pair in pairs])


# %% [markdown]
"""
Try: give the ReLU chain v = 1 / d_in. What is left of the mean square after twenty layers?

## Normalisation and dropout

Can a network keep its own numbers in range? A norm centres and scales a group of numbers,
then lets the network choose its own scale γ and shift β:

    x̂ = (x - μ) / s         s = √(variance + ε)         y = γ x̂ + β                      (24)
    ∂J/∂x = (g - mean(g) - x̂ · mean(g x̂)) / s           g = γ ḡ                          (25)

Batch norm (Ioffe and Szegedy, 2015) groups the rows: μ and s per feature. Layer norm (Ba et
al., 2016) groups the features: μ and s per row. The two means in (25) are there because μ and
s depend on x too; treating them as constants leaves ∂J/∂x mostly wrong. The variance is the
mean of (x - μ)², never mean(x²) - μ²: near x = 1e8 that cancels to nonsense.

One row has no batch to be compared with. So batch norm tracks running averages, with momentum
ρ (rho), and uses them, as constants, at prediction. From m numbers per feature:

    running ← (1 - ρ) · running + ρ · (μ, and m / (m - 1) · variance)                    (26)

Dropout (Srivastava et al., 2014) sets each entry to 0 with probability p, so that no unit can
rely on another, and divides the rest by 1 - p, so that the mean stays:

    a = x · mask / (1 - p)   in training          a = x   at prediction                  (27)

Batch norm fails on small batches, whose μ is noise; a single row is refused in training.
Forgetting to switch from training to prediction is the common error with both.
"""


# %%
class Norm(Layer):
    """What both norms share: gain and shift (d,), x (n, ..., d), and the way back."""

    def __init__(self, gain, shift, eps=1e-5):
        gain = check_batch("gain", gain, None)
        super().__init__(gain=gain, shift=check_batch("shift", shift, len(gain)))
        self.eps = check_number("eps", eps, above=0)

    def check(self, x):
        """x, if its last axis has the size of gain."""
        return check_batch("x", x, *[None] * max(np.ndim(x) - 1, 1), len(self.params["gain"]))

    def apply(self, x, axes, mean=None, variance=None):
        """Equation (24), with the statistics along axes, or with those given."""
        fixed = mean is not None
        centred = x - (mean if fixed else x.mean(axis=axes, keepdims=True))
        if not fixed:
            variance = np.mean(centred * centred, axis=axes, keepdims=True)
        s = np.sqrt(variance + self.eps)
        xhat = centred / s
        self.keep(x, xhat, s, None if fixed else axes)
        return xhat * self.params["gain"] + self.params["shift"], variance

    def backward(self, grad, to_input=True):
        """Equation (25); with constant statistics only g / s is left of it."""
        grad, xhat, s, axes = self.recall(grad)
        rows, g = tuple(range(grad.ndim - 1)), grad * self.params["gain"]
        self.grads = {"gain": np.sum(grad * xhat, axis=rows), "shift": grad.sum(axis=rows)}
        if axes is not None:
            share = np.mean(g * xhat, axis=axes, keepdims=True)
            g = g - g.mean(axis=axes, keepdims=True) - xhat * share
        return g / s


class LayerNorm(Norm):
    """Per row over its features; training and prediction are the same."""

    def forward(self, x, training=False):
        """Equation (24)."""
        return self.apply(self.check(x), -1)[0]


class BatchNorm(Norm):
    """Per feature, or channel of images, over all else; momentum is the weight of the new."""

    def __init__(self, gain, shift, eps=1e-5, momentum=0.1):
        super().__init__(gain, shift, eps)
        self.momentum = check_number("momentum", momentum, least=0, most=1)
        zeros = np.zeros_like(self.params["gain"])
        self.running = {"mean": zeros, "variance": zeros + 1}

    def forward(self, x, training=False):
        """Equations (24) and (26)."""
        x, axes = self.check(x), tuple(range(np.ndim(x) - 1))
        if not training:
            return self.apply(x, axes, **self.running)[0]
        m = x.size // x.shape[-1]
        if m < 2:
            raise ValueError(f"batch norm needs 2 rows in training, not x of shape {x.shape}")
        out, variance = self.apply(x, axes)
        new = {"mean": x.mean(axis=axes), "variance": variance.ravel() * m / (m - 1)}
        for name, average in self.running.items():
            average += self.momentum * (new[name] - average)
        return out


class Dropout(Layer):
    """Sets entries to 0 with probability p in training; a mask (1 stays, 0 goes) can be given."""

    def __init__(self, p, rng=None, mask=None):
        super().__init__()
        self.p, self.mask = check_number("p", p, least=0, below=1), mask
        self.rng = np.random.default_rng(0) if rng is None else rng

    def forward(self, x, training=False):
        """Equation (27)."""
        x = check_batch("x", x)
        mask = self.rng.random(x.shape) >= self.p if self.mask is None else self.mask
        factor = check_batch("mask", mask, *x.shape) / (1 - self.p) if training else np.ones(1)
        factor = factor.astype(x.dtype)
        return self.keep(x * factor, factor)

    def backward(self, grad, to_input=True):
        """Equation (27): what was multiplied forward is multiplied backward."""
        grad, factor = self.recall(grad)
        return grad * factor


# %% [markdown]
"""
### The library version

torch splits batch norm into `BatchNorm1d` for tables and `BatchNorm2d` for images. Its momentum
is ρ as well, not 1 - ρ. Its dropout draws its own mask: from the same seed, dropout of ones
shows which entries stay.
"""


# %%
def torch_batch_norm(F, layer, x, p, training):
    """F.batch_norm with copies of our running averages; it wants the channels second."""
    import torch

    running = (torch.tensor(layer.running[name]) for name in ("mean", "variance"))
    x = x.movedim(-1, 1)
    out = F.batch_norm(x, *running, next(p), next(p), training, layer.momentum, layer.eps)
    return out.movedim(1, -1)


def torch_layer_norm(F, layer, x, p, training):
    """F.layer_norm over the last axis."""
    return F.layer_norm(x, x.shape[-1:], next(p), next(p), layer.eps)


def torch_dropout(F, layer, x, p, training):
    """F.dropout from seed 0."""
    import torch

    torch.manual_seed(0)
    return F.dropout(x, layer.p, training)


MIRRORS |= {BatchNorm: torch_batch_norm, LayerNorm: torch_layer_norm, Dropout: torch_dropout}


def demo_normalisation(plot=False):
    """One bad feature, normed by columns and by rows; training and prediction beside torch."""
    import torch

    print("\n== What does a norm do to a table whose second feature is 1000 times larger? ==")
    table, ones = np.array([[1.0, 1000, 3], [2, 3000, 5], [3, 2000, 1]]), np.ones(3)
    for name, norm in [("batch", BatchNorm(ones, 0 * ones)), ("layer", LayerNorm(ones, 0 * ones))]:
        for row in norm.forward(table, training=True):
            print(f"  {name} norm " + "".join(f"{v:8.3f}" for v in row))
    rng, comparisons = np.random.default_rng(0), []
    x, grad = rng.normal(5, 3, size=(16, 4)), rng.normal(size=(16, 4))
    mask = torch_dropout(torch.nn.functional, Dropout(0.3), torch.ones(16, 4), None, True) > 0
    layers = BatchNorm(grad[0], grad[1]), LayerNorm(grad[0], grad[1]), Dropout(0.3, mask=mask.numpy())
    for layer, training in itertools.product(layers, (True, False)):
        name = f"{type(layer).__name__}, {'training' if training else 'prediction'}: "
        row = ALLOWED["dropout" if isinstance(layer, Dropout) else "normalisation"]
        for what, *pair in beside_torch([layer], x, grad, training):
            comparisons.append(compare(name + what, *pair, *row))
    return report(comparisons)


# %% [markdown]
"""
Try: predict the mean of Dropout(0.5) of a million ones, in training and at prediction.

## Convolution and pooling

Must a network learn each pattern anew for every place in an image? A convolution looks for
one small pattern, its kernel K, everywhere. At place (i, j), for output channel o, with
stride s (how far each step moves), on an image padded with zeros:

    z[i, j, o] = b[o] + Σᵤ Σᵥ Σ_c x[s i + u, s j + v, c] K[u, v, c, o]                   (28)

That is a linear layer on patches. Cut out each patch as a row, and one matrix product does
it all: z = patches · K + b. So (14) gives the gradients; what is left is to add that of each
patch back to the place it was cut from. One weight serves all places, and so a few dozen
weights do the work of thousands. A side of z has (size + 2 padding - k) // s + 1 places.

Max pooling keeps the largest value of each k x k window. Its gradient goes to the winner
alone; of equal values the first, row by row, wins:

    z[i, j, c] = max over u, v of x[s i + u, s j + v, c]                                 (29)

It fails where the exact place matters: pooling forgets it. Strictly speaking (28) is a
cross-correlation: a mathematician's convolution flips K, which is all the same to learning.
"""


# %%
def cut_windows(x, height, width, stride):
    """A view (n, H, W, channels, height, width) of every window of x (n, h, w, channels)."""
    if x.shape[1] < height or x.shape[2] < width:
        raise ValueError(f"x of shape {x.shape}, padding and all, has no {height} x {width} window")
    view = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(1, 2))
    return view[:, ::stride, ::stride]


class Conv2D(Layer):
    """Equation (28) for images x (n, h, w, c), with K (height, width, c, out) and b (out,)."""

    def __init__(self, K, b, stride=1, padding=0):
        K = check_batch("K", K, None, None, None, None)
        super().__init__(K=K, b=check_batch("b", b, K.shape[3]))
        self.stride = check_number("stride", stride, least=1, integer=True)
        self.padding = check_number("padding", padding, least=0, integer=True)

    def forward(self, x, training=False):
        """(n, h, w, c) -> patches (n H W, height width c) -> (n, H, W, out)."""
        K, b, p = self.params["K"], self.params["b"], (self.padding, self.padding)
        x = check_batch("x", x, None, None, None, K.shape[2])
        x = np.pad(x, [(0, 0), p, p, (0, 0)]) if self.padding else x
        windows = cut_windows(x, *K.shape[:2], self.stride).transpose(0, 1, 2, 4, 5, 3)
        patches = windows.reshape(-1, K[..., 0].size)
        z = patches @ K.reshape(-1, len(b))
        z += b
        return self.keep(z.reshape(*windows.shape[:3], len(b)), patches, x.shape)

    def backward(self, grad, to_input=True):
        """Equation (14) on the patches, whose gradients then go back to their places."""
        grad, patches, shape = self.recall(grad)
        K, s, p = self.params["K"], self.stride, self.padding
        g = grad.reshape(-1, K.shape[3])
        self.grads = {"K": (patches.T @ g).reshape(K.shape), "b": g.sum(axis=0)}
        if not to_input:
            return None
        (_, H, W, _), dx = grad.shape, np.zeros(shape, grad.dtype)
        back = (g @ K.reshape(-1, K.shape[3]).T).reshape(*grad.shape[:3], *K.shape[:3])
        for u, v in np.ndindex(K.shape[:2]):
            dx[:, u : u + s * H : s, v : v + s * W : s] += back[:, :, :, u, v]
        return dx[:, p : shape[1] - p, p : shape[2] - p]


def conv2d(x, K, b, stride=1, padding=0):
    """Equation (28), forward only."""
    return Conv2D(K, b, stride, padding).forward(x)


class MaxPool2D(Layer):
    """Equation (29) with size x size windows; the stride is size if none is given."""

    def __init__(self, size, stride=None):
        super().__init__()
        self.size = check_number("size", size, least=1, integer=True)
        self.stride = check_number("stride", size if stride is None else stride, least=1, integer=True)

    def places(self, H, W):
        """For each place (u, v) in a window: the slice of x with that place of every window."""
        s = self.stride
        for u, v in np.ndindex(self.size, self.size):
            yield np.s_[:, u : u + s * H : s, v : v + s * W : s]

    def forward(self, x, training=False):
        """(n, h, w, c) -> (n, H, W, c). Keeps the number of the place that won."""
        x = check_batch("x", x, None, None, None, None)
        first, *others = self.places(*cut_windows(x, self.size, self.size, self.stride).shape[1:3])
        best = x[first].copy()
        winner = np.zeros(best.shape, np.int32)
        for number, place in enumerate(others, start=1):
            winner[x[place] > best] = number
            np.maximum(best, x[place], out=best)
        return self.keep(best, winner, x.shape)

    def backward(self, grad, to_input=True):
        """The gradient of each window goes to the place that won."""
        grad, winner, shape = self.recall(grad)
        dx = np.zeros(shape, grad.dtype)
        for number, place in enumerate(self.places(*grad.shape[1:3])):
            dx[place] += grad * (winner == number)
        return dx


class Flatten(Layer):
    """(n, height, width, channels) -> (n, height * width * channels), one row per example."""

    def forward(self, x, training=False):
        """Keeps the old shape."""
        x = check_batch("x", x)
        return self.keep(x.reshape(len(x), -1), x.shape)

    def backward(self, grad, to_input=True):
        """The same numbers in the old shape."""
        grad, shape = self.recall(grad)
        return grad.reshape(shape)


# %% [markdown]
"""
### The library version

torch wants images (n, channels, height, width) and kernels (out, in, height, width). Its
`conv2d` is (28) to the letter.
"""


# %%
def torch_conv(F, layer, x, p, training):
    """F.conv2d; x and K change the order of their axes on the way in, z on the way out."""
    K = next(p).permute(3, 2, 0, 1)
    z = F.conv2d(x.permute(0, 3, 1, 2), K, next(p), layer.stride, layer.padding)
    return z.permute(0, 2, 3, 1)


def torch_pool(F, layer, x, p, training):
    """F.max_pool2d."""
    return F.max_pool2d(x.permute(0, 3, 1, 2), layer.size, layer.stride).permute(0, 2, 3, 1)


MIRRORS |= {Conv2D: torch_conv, MaxPool2D: torch_pool}
MIRRORS[Flatten] = lambda F, layer, x, p, training: x.flatten(1)


def demo_convolution(plot=False):
    """A kernel that finds vertical edges in a small picture; then strides, padding, ties."""
    print("\n== What does the 1 x 2 kernel (-1, 1) see in a picture? Only vertical edges ==")
    picture = np.array([[float(c == "#") for c in row] for row in ("..##..", "..##..", "......")])
    edges = conv2d(picture[None, :, :, None], [[[[-1.0]], [[1.0]]]], [0.0])[0, :, :, 0]
    for row, found in zip(picture.astype(int), edges.astype(int)):
        print(f"  {''.join('.#'[v] for v in row)} -> {''.join('.+-'[v] for v in found)}")
    rng, comparisons = np.random.default_rng(0), []
    x, K, b = rng.normal(size=(2, 7, 6, 3)), rng.normal(size=(3, 2, 3, 4)), rng.normal(size=4)
    cases = [(f"conv, stride {s}, padding {p}", Conv2D(K, b, s, p), x) for s in (1, 2) for p in (0, 1)]
    cases += [(f"pool 3, stride {s}", MaxPool2D(3, s), x) for s in (1, 3)]
    cases += [("pool 2, all ties", MaxPool2D(2), np.ones((2, 4, 4, 3)))]
    for title, layer, x in cases:
        row = ALLOWED["convolution" if layer.params else "pooling"]
        for what, *pair in beside_torch([layer], x, rng.normal(size=layer.forward(x).shape)):
            comparisons.append(compare(f"{title}: {what}", *pair, *row))
    return report(comparisons)


# %% [markdown]
"""
Try: turn the picture by 90 degrees. What does the kernel see now, and which kernel sees it all?

## Training on digits

Does all this read handwriting? scikit-learn brings 1797 digits of 8 x 8 pixels. Training goes
in epochs: shuffle the rows, cut them into mini-batches, one step (16) for each. The gradient
of a batch is the full one plus noise, at a fraction of the price (more in optimization.py).

When to stop? The training loss falls on and on, while the network begins to learn its rows by
heart. So there are three parts: training rows to learn from, validation rows to say when to
stop, and test rows that nobody looks at until the end. Early stopping:

    after an epoch with the lowest validation loss so far, keep a copy of the parameters;
    after `patience` epochs without one, stop, and go back to the copy.                  (30)

Choosing the epoch by the test rows is a common error: it makes the score too good. It fails
with few validation rows, whose loss is noise itself: then patience must be long.

A CNN, a convolutional network, alternates convolution, bend and pooling, then flattens. It is
told what the MLP must find out: that near pixels belong together, and that a stroke one pixel
further on is the same stroke.
"""


# %%
def batches_of(rng, n, batch_size):
    """The row numbers 0 ... n-1, shuffled, in parts of almost equal size."""
    return np.array_split(rng.permutation(n), math.ceil(n / batch_size))


def trained_arrays(layers):
    """Every array that training changes: parameters and running averages."""
    for layer in layers:
        yield from trained_arrays(layer.layers)
        yield from (*layer.params.values(), *layer.running.values())


def fit_network(rng, layers, X, y, loss=cross_entropy, lr=0.3, l2=0.0, epochs=60, batch_size=32,
                validation=None, patience=10):
    """Mini-batch training, with early stopping (30) if validation = (X, y) is given. Changes
    the layers. Returns the mean training J and the validation loss (or nan) of each epoch."""
    X, y = check_batch("X", X), check_batch("y", y)
    if len(y) != len(X):
        raise ValueError(f"y must have {len(X)} rows, as X has, not shape {y.shape}")
    for name, value in {"epochs": epochs, "batch_size": batch_size, "patience": patience}.items():
        check_number(name, value, least=1, integer=True)
    history, lowest, best, kept = [], math.inf, 0, []
    for epoch in range(epochs):
        J = [train_step(layers, X[rows], y[rows], loss, lr, l2)
             for rows in batches_of(rng, len(X), batch_size)]
        judged = loss(forward(layers, validation[0]), validation[1])[0] if validation else math.nan
        history.append((np.mean(J), judged))
        if judged < lowest:
            lowest, best, kept = judged, epoch, [a.copy() for a in trained_arrays(layers)]
        if validation and epoch - best >= patience:
            break
    for array, copied in zip(trained_arrays(layers), kept):
        array[...] = copied
    return np.array(history)


def predict_network(layers, X):
    """The label with the largest score, for each row."""
    return forward(layers, X).argmax(axis=1)


def make_cnn(rng, channels=(16, 32), side=8, classes=10):
    """For each entry of channels a 3 x 3 convolution, a ReLU and pooling by 2; then Linear."""
    layers, d_in = [], 1
    for d_out in channels:
        K = initial_weights("he", rng.normal(size=(3, 3, d_in, d_out)))
        layers += [Conv2D(K, np.zeros(d_out), padding=1), Activation("relu"), MaxPool2D(2)]
        d_in, side = d_out, side // 2
    return [*layers, Flatten(), *make_mlp(rng, (side * side * d_in, classes))]


def load_digits_split(fold=0):
    """Pixels from 0 to 1, and labels: 1293 rows to train, 144 to validate, 360 to test."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    train, test = k_fold(len(X), 5, np.random.default_rng(0))[fold]
    train = np.random.default_rng(fold).permutation(train)
    return [(X[rows] / 16, y[rows]) for rows in (train[144:], train[:144], test)]


# %% [markdown]
"""
### The library version

torch leaves the loop to you: `torch_train` above takes our batches from our start, and walks
the same path. scikit-learn's `MLPClassifier` has the loop inside, draws its own start and
validation rows, and stops by accuracy: there only the share of digits read is comparable.
"""


# %%
def sklearn_mlp(X, y, hidden=(128, 64), lr=0.3, epochs=60, batch_size=32, patience=10, seed=0):
    """The same kind of training by MLPClassifier. Returns the fitted estimator."""
    from sklearn.neural_network import MLPClassifier

    steps = {"solver": "sgd", "momentum": 0, "learning_rate_init": lr, "max_iter": epochs}
    stop = {"early_stopping": True, "n_iter_no_change": patience, "random_state": seed}
    return MLPClassifier(hidden, alpha=0, batch_size=batch_size, **steps, **stop).fit(X, y)


def demo_digits(plot=False):
    """An MLP and a CNN read digits; torch on the same path, and scikit-learn on the same rows."""
    print("\n== Does it read handwriting? 1293 digits to learn, 144 to stop, 360 to test ==")
    (X, y), (X_val, y_val), (X_test, y_test) = load_digits_split()
    networks = {"MLP": (make_mlp(np.random.default_rng(0), (64, 128, 64, 10)), (64,), 0.3),
                "CNN": (make_cnn(np.random.default_rng(0)), (8, 8, 1), 0.3)}
    comparisons, histories = [], {}
    for name, (layers, shape, lr) in networks.items():
        train, val, test = (v.reshape(-1, *shape) for v in (X, X_val, X_test))
        start, began = copy.deepcopy(layers), time.perf_counter()
        epochs = 60 if name == "MLP" else 15
        history = fit_network(np.random.default_rng(1), layers, train, y, lr=lr, epochs=epochs,
                              validation=(val, y_val))
        ours = time.perf_counter() - began
        ...


# %%
if __name__ == "__main__":
    run_chapter(
        "Backpropagation by hand and by machine, equal to torch.",
        [demo_neuron, demo_activations, demo_mlp, demo_gradient_check, demo_autograd,
         demo_initialisation, demo_normalisation, demo_convolution, demo_digits],
    )

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch==2.13.0", "scikit-learn", "matplotlib"]
# ///
