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
    each axis, None where any will do. These checks are half of the time of a tiny network."""
    good = isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.size > 0
    if not (good and np.vdot(x, x) < np.inf):  # x.x in one fast pass: nan or inf if any entry is
        x = check_array(name, x, len(shape) or np.asarray(x, dtype=object).ndim)  # or complains
    if shape and (len(shape) != x.ndim or [s or t for s, t in zip(shape, x.shape)] != [*x.shape]):
        raise ValueError(f"{name} must have shape {shape}, not {x.shape} (None: any size)")
    return x

def same(row, what, ours, theirs):
    """The comparison of two lists of arrays, all numbers in one, by the tolerance of the row."""
    flat = (np.concatenate([np.ravel(a) for a in arrays]) for arrays in (ours, theirs))
    return compare(what, *flat, *ALLOWED[row])
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
b = 0, y = 1 give z = 0, a = 1/2, J = 1/8; ∂J/∂z = (1/2 - 1) · 1/4 = -1/8, ∂J/∂w = (-1/8, -1/4):
both weights should grow. It fails where σ is flat: for |z| > 10 no gradient moves a wrong answer.
"""
# %%
def neuron(x, w, b, y):
    """Equations (1) to (3) for one example: J, and its gradients for x, w and b."""
    w = check_batch("w", w, len(x := check_batch("x", x, None)))
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
    (out := f(*leaves).sum()).backward()
    return [float(out.data), *(leaf.grad for leaf in leaves)]

def demo_neuron(plot=False):
    """The numbers of the text."""
    print("\n== Which way should each weight of one neuron move? ==")
    inputs = [1.0, 2.0], [2.0, -1.0], 0.0
    formula = lambda x, w, b: ((1 + (-(w @ x + b)).exp()) ** -1 - 1.0) ** 2 / 2
    ours, theirs = neuron(*inputs, 1.0), gradients(torch_leaf, formula, *inputs)
    for name, value in zip(names := ("J", "dJ/dx", "dJ/dw", "dJ/db"), ours):
        print(f"  {name:5} = {value}")
    three = zip(names, zip(ours), zip(theirs))
    return report([same("activations and losses", *values) for values in three])
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
def sigmoid(z):
    """Equation (4), as (1 + tanh(z / 2)) / 2: the same number, and nothing overflows."""
    a = (1 + np.tanh(check_batch("z", z) / 2)) / 2
    return a, lambda g: g * (a * (1 - a))

def tanh(z):
    """Equation (5)."""
    a = np.tanh(check_batch("z", z))
    return a, lambda g: g * (1 - a * a)

def relu(z):
    """Equation (6). At 0 there is no slope; every library takes 0."""
    return np.maximum(z := check_batch("z", z), 0), lambda g: g * (z > 0)

def gelu(z):
    """Equation (7) (Hendrycks and Gimpel, 2016). Phi(z) = (1 + erf(z / sqrt 2)) / 2."""
    z, erf = check_batch("z", z), np.vectorize(math.erf, otypes=[float])  # numpy has none
    below = ((1 + erf(z / math.sqrt(2))) / 2).astype(z.dtype)
    return z * below, lambda g: g * (below + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi))

def softmax(z):
    """Equation (8) for each row. Subtracting the largest score only prevents overflow."""
    e = np.exp((z := check_batch("z", z)) - z.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    return p, lambda g: p * (g - np.sum(g * p, axis=-1, keepdims=True))

def squared_error(z, y):
    """Equation (9); y has the shape of z."""
    error = (z := check_batch("z", z)) - check_batch("y", y, *z.shape)
    return np.mean(error * error), lambda g: g * (2 / error.size) * error

def binary_cross_entropy(z, y):
    """Equation (10); y has the shape of z, its entries from 0 to 1."""
    y = check_batch("y", y, *(z := check_batch("z", z)).shape)
    if y.min() < 0 or y.max() > 1:
        raise ValueError(f"y must hold numbers from 0 to 1, not {y.min():g} to {y.max():g}")
    return np.mean(np.logaddexp(0, z) - y * z), lambda g: g / z.size * (sigmoid(z)[0] - y)

def cross_entropy(z, y):
    """Equation (11); z (n, k), y (n,) labels 0 ... k-1, not all of them needed."""
    z = check_batch("z", z, None, None)
    (n, k), y = z.shape, check_batch("y", y, len(z))
    truth = y[:, None] == np.arange(k)  # (n, k), True at the label
    if np.count_nonzero(truth) < n:
        raise ValueError(f"y must hold labels from 0 to {k - 1}, not {y[~truth.any(axis=1)][0]:g}")
    z = z - z.max(axis=1, keepdims=True)  # changes no probability, prevents overflow
    total = (e := np.exp(z)).sum(axis=1, keepdims=True)
    return (np.log(total).sum() - z[truth].sum()) / n, lambda g: g / n * (e / total - truth)

BENDS, LOSSES = (sigmoid, tanh, relu, gelu), (squared_error, binary_cross_entropy, cross_entropy)
TORCH = {  # our functions in torch.nn.functional, F. The bends have the same name there
    "softmax": lambda F, z: F.softmax(z, -1),
    "squared_error": lambda F, z, y: F.mse_loss(z, y),
    "binary_cross_entropy": lambda F, z, y: F.binary_cross_entropy_with_logits(z, y),
    "cross_entropy": lambda F, z, y: F.cross_entropy(z, y),  # of logits, though the name is silent
    "linear": lambda F, x, W, b: F.linear(x, W.T, b),  # W is (d_out, d_in) there
    "residual": lambda F, x, W, b: x + F.tanh(F.linear(x, W.T, b)),
    "layer_norm": lambda F, x, gain, shift, eps=1e-5: F.layer_norm(x, gain.shape, gain, shift, eps),
    "batch_norm": lambda F, x, gain, shift, mean, variance, **options: F.batch_norm(  # momentum: ρ
        x.movedim(-1, 1), mean, variance, gain, shift, **options).movedim(1, -1),  # channels second
    "dropout": lambda F, x, p, training, mask=None, rng=None: F.dropout(x, p, training),
    "conv2d": lambda F, x, K, b, **options: F.conv2d(  # kernels (d_out, d_in, height, width)
        x.movedim(-1, 1), K.permute(3, 2, 0, 1).contiguous(), b, **options).movedim(1, -1),
    "max_pool2d": lambda F, x, size, stride=None: F.max_pool2d(
        x.movedim(-1, 1), size, stride).movedim(1, -1),
    "flatten": lambda F, x: x.flatten(1),
}

def torch_function(f, *inputs, **options):
    """The library version of our f, on tensors; arrays among the options become tensors."""
    import torch
    if f is dropout:
        torch.manual_seed(0)  # the same entries go at every call
    tensors = {k: torch.tensor(v) for k, v in options.items() if isinstance(v, np.ndarray)}
    mirror = TORCH.get(f.__name__) or (lambda F, z: getattr(F, f.__name__)(z))
    return mirror(torch.nn.functional, *inputs, **(options | tensors))

def beside_torch(f, *inputs, **options):
    """(ours, torch's): output and gradient for each input, for random numbers from behind."""
    theirs = torch_function(f, *(leaves := [*map(torch_leaf, inputs)]), **options)
    grad = np.random.default_rng(12345).normal(size=theirs.shape)
    theirs.backward(torch_leaf(grad).detach())
    ours, *pulls = f(*inputs, **options)
    return [ours, *(p(grad) for p in pulls)], [theirs.detach(), *(leaf.grad for leaf in leaves)]

def demo_activations(plot=False):
    """Where each bend stops learning, what a sure mistake costs, and all of it in torch."""
    print("\n== Where does each bend stop learning? Its slope at z = -20, -2, 0, 2, 20 ==")
    z, comparisons = np.array([-20.0, -2, 0, 2, 20]), []
    for bend in BENDS:
        print(f"  {bend.__name__:8}" + "".join(f"{v + 1e-9:8.3f}" for v in bend(z)[1](1.0)))
    for score in (-1.0, -10.0, -1000.0):
        J, pull = binary_cross_entropy([score], [1.0])
        print(f"  y = 1, but z = {score:5.0f}: loss {J:7.2f}, slope {pull(1.0)[0]:.4f}")
    z = np.outer(z, [1, -0.5, 0.1])
    for f in (*BENDS, softmax, *LOSSES):
        y = np.array([0, 1, 2, 2, 0]) if f is cross_entropy else sigmoid(z[::-1])[0]
        both = beside_torch(f, z, **({"y": y} if f in LOSSES else {}))
        comparisons += [same("activations and losses", f"{f.__name__} and gradient", *both)]
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
    """A function f of x, of parameters, of which it trains its own copies, and of options."""
    def __init__(self, f, *params, **options):
        if not callable(f):
            raise TypeError(f"f must be a function, such as relu, not {f!r}")
        self.f, self.options, self.grads, self.pulls = f, options, [], None
        self.params = [np.array(check_batch(f"a parameter of {f.__name__}", p)) for p in params]
    def forward(self, x, training=False):
        """f(x); its pulls are kept."""
        if "training" in self.options:  # batch norm and dropout ask
            self.options["training"] = training
        self.out, *self.pulls = self.f(x, *self.params, **self.options)
        return self.out
    def backward(self, grad, to_input=True):
        """From dJ/d(output) to grads, one per parameter; returns dJ/dx (None if not to_input)."""
        if self.pulls is None:
            raise ValueError(f"backward of {self.f.__name__} needs a call of forward first")
        grad = check_batch("grad", grad, *self.out.shape)
        self.grads = [pull(grad) for pull in self.pulls[1:]]
        return self.pulls[0](grad) if to_input else None

def forward(layers, x, training=False):
    """Send x through the chain."""
    for layer in layers:
        x = layer.forward(x, training)
    return x

def backward(layers, grad, to_input=True):
    """Send dJ/d(output) back: fills the grads of every layer, returns dJ/dx."""
    for layer in reversed(layers):
        grad = layer.backward(grad, to_input or layer is not layers[0])
    return grad

def parameters(layers):
    """Every parameter of the network."""
    return [p for layer in layers for p in layer.params]

def train_step(layers, X, y, loss, lr, l2=0.0):
    """Equation (13), once. Changes the layers; returns J as it was before the step."""
    check_number("lr", lr, above=0), check_number("l2", l2, least=0)
    with np.errstate(over="ignore", invalid="ignore"):  # what diverges is refused below
        J, pull = loss(forward(layers, X, training=True), y)
        J += l2 / 2 * sum(np.sum(p * p) for p in parameters(layers) if l2 and p.ndim > 1)
    if not J < LARGEST:  # nan too
        raise ValueError(f"the loss reached {J:.2g}: lr = {lr:g} is too large")
    backward(layers, pull(1.0), to_input=False)
    for p, grad in zip(parameters(layers), [g for layer in layers for g in layer.grads]):
        p -= lr * (grad + l2 * p if l2 and p.ndim > 1 else grad)
    return float(J)

def make_mlp(rng, sizes, bend=relu):
    """A multi-layer perceptron: linear layers of these sizes, (64, 32, 10) say, bends between."""
    layers = []
    for d_in, d_out in itertools.pairwise(sizes):
        W = initial_weights("he", rng.normal(size=(d_in, d_out)))  # explained further down
        layers += [Layer(linear, W, np.zeros(d_out)), Layer(bend)]
    return layers[:-1]  # the loss holds the last bend

def torch_train(layers, batches, loss, lr, l2=0.0):
    """The library version of train_step, once per batch (X, y), from our start: J before each step,
    and the parameters. `weight_decay` is λ, for biases too unless they stand in another group."""
    import torch
    p, losses = [torch_leaf(p) for p in parameters(layers)], []
    weights, biases = ([q for q in p if (q.ndim > 1) == many] for many in (True, False))
    optimiser = torch.optim.SGD([{"params": weights, "weight_decay": l2}, {"params": biases}], lr)
    for X, y in batches:
        z, rest = torch.tensor(X), iter(p)
        for layer in layers:
            options = {k: k == "training" or v for k, v in layer.options.items()}
            inputs = z, *itertools.islice(rest, len(layer.params))
            z = torch_function(layer.f, *inputs, **options)
        J = torch_function(loss, z, y=y)
        losses.append(J.item() + l2 / 2 * sum((q * q).sum().item() for q in weights))
        optimiser.zero_grad(), J.backward(), optimiser.step()
    return losses, [q.detach() for q in p]

def demo_mlp(plot=False):
    """Two half moons, which no line separates; then each bend and loss beside torch."""
    print("\n== Can it learn a bent boundary? Two moons, 20 tanh units, # where p > 1/2 ==")
    X, y = make_moons(rng := np.random.default_rng(0))
    layers = make_mlp(rng, (2, 20, 1), tanh)
    for _ in range(600):
        train_step(layers, X, y[:, None], binary_cross_entropy, lr=1.0)
    for height in np.linspace(1.3, -0.9, 10):
        z = forward(layers, [[x, height] for x in np.linspace(-1.4, 2.4, 60)])
        print("  " + "".join(".#"[int(score > 0)] for score in z[:, 0]))
    print(f"  accuracy on its own rows: {accuracy(y, (forward(layers, X)[:, 0] > 0) + 0):.3f}")
    X, Y, comparisons = rng.normal(size=(30, 4)), rng.random((30, 3)), []
    for bend, loss, l2 in zip(BENDS, (*LOSSES, squared_error), (0.0, 0.01, 0.01, 0.01)):
        y, layers = Y.argmax(1) if loss is cross_entropy else Y, make_mlp(rng, (4, 8, 8, 3), bend)
        losses, p = torch_train(layers, [(X, y)] * 100, loss, 0.1, l2)
        ours = [train_step(layers, X, y, loss, 0.1, l2) for _ in range(100)], *parameters(layers)
        title = f"{bend.__name__}, {loss.__name__}, l2={l2:g}: J and weights"
        comparisons += [same("MLP", title, ours, [losses, *p])]
    return report(comparisons)
# Try: set all weights of the first layer to 0.1. How many different units are left after training?
# %% [markdown]
"""
## Gradient check: how do you know that a pull is right?
A wrong one often trains too, only worse. Ask the function itself: nudge one number by h both ways:

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
    nudges = h * np.eye(x.size).reshape(x.size, *x.shape)  # one entry at a time
    return np.reshape([(f(x + e) - f(x - e)) / (2 * h) for e in nudges], x.shape)

def relative_error(a, b):
    """Equation (15), from 0 to 1. Two zero gradients agree."""
    size = np.linalg.norm(a) + np.linalg.norm(b)
    return float(np.linalg.norm(np.subtract(a, b)) / size) if size != 0 else 0.0

def check_gradients(rng, f, *inputs, **options):
    """The relative error (15) of each pull of f, one per input. The library version says only yes
    or no, and is `torch.autograd.gradcheck`: the tests run it on every function of this chapter."""
    out, *pulls = f(*inputs, **options)
    u, errors = rng.normal(size=np.shape(out)), []
    for i, pull in enumerate(pulls):
        value = lambda x: np.sum(u * f(*inputs[:i], x, *inputs[i + 1 :], **options)[0])
        errors.append(relative_error(pull(u), numerical_gradient(value, inputs[i])))
    return errors

def demo_gradient_check(plot=False):
    """Which h? Then right pulls, and a wrong one."""
    print("\n== How small should the nudge h be? Digits that (14) gets right for tanh at 0.7 ==")
    for power in range(1, 12, 2):
        numerical = numerical_gradient(np.tanh, 0.7, 10.0**-power)
        digits = -math.log10(relative_error(1 - np.tanh(0.7) ** 2, numerical))
        print(f"  h = 1e-{power:02d}  {'#' * round(digits)}")
    rng, comparisons = np.random.default_rng(0), []
    x, W = rng.normal(size=(4, 3)), rng.normal(size=(3, 2))
    for f, *inputs in [(linear, x, W, W[0]), *((f, x) for f in (*BENDS, softmax))]:
        error = check_gradients(rng, f, *inputs)
        comparisons += [same("gradient check", f"{f.__name__}: (15)", error, [0.0] * len(inputs))]
    half = lambda z: ((p := softmax(z)[0]), lambda g: g * p * (1 - p))  # of (8) the diagonal
    print(f"  half a softmax has a relative error of {check_gradients(rng, half, x)[0]:.2f}")
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
    full = (1,) * (grad.ndim - len(shape)) + shape
    repeated = tuple(i for i, size in enumerate(full) if size < grad.shape[i])
    return grad.sum(axis=repeated).reshape(shape)

def matmul(a, b):
    """Equation (17), for stacks of matrices too; a vector is a row left and a column right."""
    A, B = a.reshape(1, -1) if a.ndim == 1 else a, b.reshape(-1, 1) if b.ndim == 1 else b
    C, vectors = A @ B, (-2,) * (a.ndim == 1) + (-1,) * (b.ndim == 1)
    to_b = lambda g: A.swapaxes(-1, -2) @ g.reshape(C.shape)
    return (C.squeeze(vectors), lambda g: g.reshape(C.shape) @ B.swapaxes(-1, -2),
            lambda g: to_b(g)[..., 0] if b.ndim == 1 else to_b(g))

class Tensor:
    """An array and its edges: (source, pull) pairs, none in a leaf. Any other is a constant. In a
    tiny network this book-keeping costs more than the arithmetic."""
    __array_ufunc__ = None  # leaves array + tensor to our __radd__
    births = itertools.count()
    def __init__(self, data, edges=()):
        self.data = np.asarray(data) if edges else np.array(check_batch("data", data))
        self.edges, self.grad, self.birth = edges, None, next(Tensor.births)
    @staticmethod
    def of(f, *inputs, **options):
        """Any function of this chapter as one operation of the engine."""
        arrays = [x.data if isinstance(x, Tensor) else check_batch("a term", x) for x in inputs]
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
        total = self.data.sum(axis, keepdims=True)
        spread = lambda g: g.reshape(total.shape) * np.ones_like(self.data)
        return Tensor(total if keepdims else total.squeeze(axis), [(self, spread)])
    def max(self, axis=None, keepdims=False):
        """Largest entry. Ties share the gradient, as in torch's amax; its max takes the first."""
        top = self.data.max(axis, keepdims=True)
        won = self.data == top
        share = lambda g: won / won.sum(axis, keepdims=True) * g.reshape(top.shape)
        return Tensor(top if keepdims else top.squeeze(axis), [(self, share)])
    def log(self):
        """The natural logarithm, of numbers above 0."""
        if (least := self.data.min()) <= 0:
            raise ValueError(f"log needs numbers above 0, not {least:g}")
        return self.bend(np.log(self.data), 1 / self.data)
    reshape = lambda a, *new: Tensor(a.data.reshape(new), [(a, lambda g: g.reshape(a.data.shape))])
    bend = lambda a, out, slope: Tensor(out, [(a, lambda g: g * slope)])  # entry by entry
    exp = lambda a: a.bend(e := np.exp(a.data), e)
    tanh = lambda a: a.bend(t := np.tanh(a.data), 1 - t * t)
    relu = lambda a: a.bend(np.maximum(a.data, 0), a.data > 0)
    __pow__ = lambda a, p: a.bend(a.data**p, p * a.data ** (p - 1) if p else 0)
    __add__ = lambda a, b: Tensor.of(lambda a, b: (a + b, lambda g: g, lambda g: g), a, b)
    __sub__ = lambda a, b: Tensor.of(lambda a, b: (a - b, lambda g: g, lambda g: -g), a, b)
    __mul__ = lambda a, b: Tensor.of(lambda a, b: (a * b, lambda g: g * b, lambda g: g * a), a, b)
    __matmul__ = lambda a, b: Tensor.of(matmul, a, b)
    __rmatmul__, __rsub__ = (lambda a, b: Tensor.of(matmul, b, a)), lambda a, b: a * -1.0 + b
    __truediv__, __rtruediv__ = (lambda a, b: a * b**-1.0), lambda a, b: a**-1.0 * b
    __neg__, __radd__, __rmul__ = (lambda a: a * -1.0), __add__, __mul__

def demo_autograd(plot=False):
    """A graph you can draw, a network without its pulls, a formula in torch."""
    print("\n== Can a machine derive backpropagation? f = (a + b) b, with a = 2 and b = 3 ==")
    a, b = Tensor(2.0), Tensor(3.0)
    f = (a + b) * b
    for times in (1, 2):
        f.backward()
        print(f"  after backward number {times}: grad of a = {a.grad:g}, of b = {b.grad:g}")
    rng, pairs = np.random.default_rng(0), {}
    x, y, layers = rng.normal(size=(20, 4)), np.arange(20) % 3, make_mlp(rng, (4, 8, 3), tanh)
    J, pull = cross_entropy(forward(layers, x), y)
    backward(layers, pull(1.0))
    score = lambda W, b, V, c: (x @ W + b).tanh() @ V + c
    entropy = lambda z: (z.exp().sum(1).log() - z[np.arange(20), y]) / 20  # (11) as it stands
    engine = gradients(Tensor, lambda *p: entropy(score(*p)), *parameters(layers))
    pairs["an MLP by hand"] = engine, [J, *layers[0].grads, *layers[2].grads]
    f = lambda a, b: (a * b).exp() / (a * a + 1) - b.relu() ** 2
    pairs["f in torch"] = [gradients(make, f, x[:3, :1], x[3]) for make in (Tensor, torch_leaf)]
    return report([same("autograd", what + ", gradients", *pair) for what, pair in pairs.items()])
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

def residual(x, W, b):
    """Equation (20) with F(x) = tanh(xW + b); x (n, d), W (d, d), b (d,)."""
    d = len(check_batch("b", b, None))
    W = check_batch("W", W, d, d)
    z, to_x, to_W, to_b = linear(x, W, b)
    a, to_z = tanh(z)
    return (x + a, lambda g: g + to_x(to_z(g)), lambda g: to_W(to_z(g)), lambda g: to_b(to_z(g)))

def deep_chain(bend, v, depth=20, width=100):
    """A chain of layers whose weights have variance v, and the mean square of x at each depth."""
    rng, sizes, layers = np.random.default_rng(0), [], []
    x = rng.normal(size=(100, width))
    for _ in range(depth):
        params = math.sqrt(v) * rng.normal(size=(width, width)), np.zeros(width)
        last = [Layer(bend, *params)] if bend is residual else [Layer(linear, *params), Layer(bend)]
        x, layers = forward(last, x), layers + last
        sizes.append(np.mean(x * x))
    return layers, np.array(sizes)

def torch_initial_weights(method, shape, seed):
    """The library version, which says `kaiming_normal_` for He: draws and the weights made of them.
    A fresh `torch.nn.Linear` uses neither, but v = 1 / (3 d_in), a third of what keeps the size."""
    import torch
    scaled = {"he": torch.nn.init.kaiming_normal_, "xavier": torch.nn.init.xavier_normal_}[method]
    blank = lambda: torch.empty(shape[::-1], dtype=torch.float64)  # torch: outputs first
    seeded = lambda: torch.Generator().manual_seed(seed)
    return [fill(blank(), generator=seeded()).numpy().T for fill in (torch.nn.init.normal_, scaled)]

def draw_curves(ax, curves, xlabel, ylabel):
    """Named curves on a log scale."""
    for name, curve in curves.items():
        ax.semilogy(range(1, len(curve) + 1), curve, "--" if "tanh" in name else "-", label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel), ax.legend()

def demo_initialisation(plot=False):
    """Mean square of the activations by depth, for each start; then the same in torch."""
    print("\n== What is left of a signal after 20 layers of 100 units? Its mean square ==")
    starts, curves, comparisons = {"0.0001": 1e-4, "1": 1, "Xavier": 0.01, "He": 0.02}, {}, []
    for bend, (name, v) in itertools.product((tanh, relu), starts.items()):
        curves[f"{bend.__name__}, v = {name}"] = sizes = deep_chain(bend, v)[1]
        some = "".join(f"{sizes[i]:10.1e}" for i in (0, 4, 9, 19))
        print(f"  {bend.__name__}, v = {name:7} at depth 1, 5, 10, 20: {some}")
    for bend in (tanh, residual):
        layers, x = deep_chain(bend, 0.005)[0], np.full((1, 100), 0.1)
        dx = backward(layers, np.ones_like(forward(layers, x)))
        print(f"  20 {bend.__name__} layers, v = 0.005: |dJ/dx| = {np.linalg.norm(dx):.1e} from 10")
    comparisons += [same("MLP", "residual", *beside_torch(residual, x, *layers[0].params))]
    for method, shape in itertools.product(("xavier", "he"), [(100, 50), (3, 3, 4, 8)]):
        draws, W = torch_initial_weights(method, shape, seed=0)
        ours, what = initial_weights(method, draws), f"{method}, shape {shape}"
        comparisons += [same("initialisation", what, ours, W)]
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
def standardise(x, gain, shift, eps, axis, averages=(), fixed=False):
    """Equations (21) and (22) for each column (axis 0) or row (axis 1) of x, as a table (rows, d):
    [y and its pulls], mean, variance. If fixed, these are the given averages, constants."""
    check_number("eps", eps, above=0)
    gain = check_batch("gain", gain, None)
    x = check_batch("x", x, *[None] * max(getattr(x, "ndim", 2) - 1, 1), len(gain))
    shift, shape, x = check_batch("shift", shift, len(gain)), x.shape, x.reshape(-1, len(gain))
    for name, average in zip(("mean", "variance"), averages):
        if check_batch(name, average, len(gain)) is not average:
            raise TypeError(f"{name} must be an array of floats: training updates it in place")
    sums = lambda a, b: np.expand_dims(np.einsum(("nd,nd->d", "nd,nd->n")[axis], a, b), axis)
    mean = averages[0] if fixed else x.mean(axis, keepdims=True)
    xhat = x - mean
    variance = averages[1] if fixed else sums(xhat, xhat) / x.shape[axis]
    xhat *= (scale := 1 / np.sqrt(variance + eps))
    y = xhat * gain  # in place from here on; yet numpy makes ten passes, torch two, and is faster
    y += shift
    def _to_x(g):  # along columns the gain is constant, and can wait
        g = g.reshape(x.shape) * gain if axis == 1 else g.reshape(x.shape)
        dx = xhat * (0 if fixed else sums(g, xhat) / -x.shape[axis])
        dx += g
        dx -= 0 if fixed else g.mean(axis, keepdims=True)
        dx *= scale if axis == 1 else scale * gain
        return dx.reshape(shape)
    to_gain = lambda g: np.einsum("nd,nd->d", g.reshape(x.shape), xhat)
    y = [y.reshape(shape), _to_x, to_gain, lambda g: g.reshape(x.shape).sum(axis=0)]
    return y, mean, variance

def layer_norm(x, gain, shift, eps=1e-5):
    """Equations (21) and (22) over the last axis; gain and shift (d,)."""
    return standardise(x, gain, shift, eps, axis=1)[0]

def batch_norm(x, gain, shift, mean, variance, training=False, momentum=0.1, eps=1e-5):
    """Equations (21) to (23) over all axes but the last: x (n, d), or images (n, h, w, d). mean and
    variance (d,) are the running averages, which training updates in place."""
    check_number("momentum", momentum, least=0, most=1)
    averages, m = (mean, variance), np.size(x) // max(np.size(gain), 1)
    if training and m == 1:
        raise ValueError(f"batch norm needs 2 rows in training, not x of shape {np.shape(x)}")
    result, *new = standardise(x, gain, shift, eps, 0, averages, fixed=not training)
    if training:
        mean += momentum * (new[0][0] - mean)
        variance += momentum * (new[1][0] * m / (m - 1) - variance)
    return result

def dropout(x, p, rng=None, mask=None, training=False):
    """Equation (24). rng draws the mask (1 stays, 0 goes), if none is given."""
    x, _ = check_batch("x", x), check_number("p", p, least=0, below=1)
    if not training:
        return x, lambda g: g
    if rng is mask is None:
        raise ValueError("dropout needs rng or mask in training")
    mask = rng.random(x.shape) >= p if mask is None else check_batch("mask", mask, *x.shape)
    factor = (mask / (1 - p)).astype(x.dtype)
    return x * factor, lambda g: g * factor

def demo_normalisation(plot=False):
    """One large feature, normed by columns and by rows; then training and prediction in torch."""
    import torch
    print("\n== What does a norm do to a table whose second feature is 1000 times larger? ==")
    table, one = np.array([[1.0, 1000, 3], [2, 3000, 5], [3, 2000, 1]]), np.ones(3)
    for name, axis in (("batch", 0), ("layer", 1)):
        print(f"{standardise(table, one, 0 * one, 1e-5, axis)[0][0].round(2) + 0} {name} norm")
    rng = np.random.default_rng(0)
    inputs = rng.normal(5, 3, size=(16, 4)), rng.normal(size=4), rng.normal(size=4)
    mask = torch_function(dropout, torch.ones(16, 4), p=0.3, training=True).numpy() > 0
    pairs = {"layer norm and gradients": beside_torch(layer_norm, *inputs)}
    for training, when in ((True, "in training"), (False, "at prediction")):
        start = {"mean": np.zeros(4), "variance": np.ones(4), "training": training}
        pairs[f"batch norm and gradients, {when}"] = beside_torch(batch_norm, *inputs, **start)
        options = {"p": 0.3, "mask": mask, "training": training}
        pairs[f"dropout and gradient, {when}"] = beside_torch(dropout, inputs[0], **options)
    module, ours = torch.nn.BatchNorm1d(4).double(), (np.zeros(4), np.ones(4))
    module(torch.tensor(inputs[0])), batch_norm(*inputs, *ours, training=True)
    pairs["running averages"] = ours, (module.running_mean, module.running_var)
    return report([same("normalisation", what, *pair) for what, pair in pairs.items()])
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
    h, w = x.shape[1] - height + 1, x.shape[2] - width + 1
    return [np.s_[:, u : u + h : stride, v : v + w : stride] for u, v in np.ndindex(height, width)]

def conv2d(x, K, b, stride=1, padding=0):
    """Equation (25): x (n, h, w, c), K (height, width, c, out), b (out,) -> z (n, H, W, out)."""
    K, p = check_batch("K", K, None, None, None, None), padding
    x = check_batch("x", x, None, None, None, K.shape[2])
    check_number("padding", p, least=0, integer=True)
    n, h, w, c = x.shape
    wide, inside = np.zeros((n, h + 2 * p, w + 2 * p, c), x.dtype), np.s_[:, p : p + h, p : p + w]
    wide[inside] = x
    places = places_in(wide, *K.shape[:2], stride)
    patches = np.concatenate([wide[place] for place in places], axis=3)  # (n, H, W, height width c)
    z, _, to_K, to_b = linear(patches.reshape(-1, patches.shape[3]), K.reshape(-1, K.shape[3]), b)
    def _to_x(g):
        dx = np.zeros_like(wide)
        for place, M in zip(places, K.reshape(-1, *K.shape[2:])):  # M (c, out) is K at one place
            dx[place] += (g.reshape(z.shape) @ M.T).reshape(*g.shape[:3], c)
        return dx[inside]
    return (z.reshape(*patches.shape[:3], -1), _to_x,
            lambda g: to_K(g.reshape(z.shape)).reshape(K.shape), lambda g: to_b(g.reshape(z.shape)))

def max_pool2d(x, size, stride=None):
    """Equation (26): x (n, h, w, c) -> (n, H, W, c); the stride is size if none is given."""
    x = check_batch("x", x, None, None, None, None)
    check_number("size", size, least=1, integer=True)
    places = places_in(x, size, size, size if stride is None else stride)
    best = np.max([x[place] for place in places], axis=0)
    def _to_x(g):
        dx, free = np.zeros_like(x), np.ones(best.shape, bool)  # free: no winner found yet
        for place in places:
            won = (x[place] == best) & free
            free ^= won
            dx[place] += g * won
        return dx
    return best, _to_x

def flatten(x):
    """(n, height, width, channels) -> (n, height * width * channels), one row per example."""
    return (x := check_batch("x", x)).reshape(len(x), -1), lambda g: g.reshape(x.shape)

def demo_convolution(plot=False):
    """A kernel that finds vertical edges in a small picture; then strides, padding, ties."""
    print("\n== What does the 1 x 2 kernel (-1, 1) see in a picture? Only vertical edges ==")
    picture = np.array([[float(c == "#") for c in row] for row in ("..##..", "..##..", "......")])
    z, *_ = conv2d(picture[None, :, :, None], [[[[-1.0]], [[1.0]]]], np.zeros(1))
    for row, found in zip(picture.astype(int), z[0, :, :, 0].astype(int)):
        print(f"  {''.join('.#'[v] for v in row)} -> {''.join('.+-'[v] for v in found)}")
    rng, pairs = np.random.default_rng(0), {}
    x, K, b = rng.normal(size=(2, 7, 6, 3)), rng.normal(size=(3, 2, 3, 4)), rng.normal(size=4)
    for stride, padding in itertools.product((1, 2), (0, 1)):
        both = beside_torch(conv2d, x, K, b, stride=stride, padding=padding)
        pairs[f"conv2d and gradients, stride {stride}, padding {padding}"] = both
    for what, stride in itertools.product(("normal", "all ties"), (1, 3)):
        both = beside_torch(max_pool2d, x if what == "normal" else 0 * x + 1, size=3, stride=stride)
        pairs[f"max_pool2d and gradient, {what}, stride {stride}"] = both
    return report([same("convolution", what, *pair) for what, pair in pairs.items()])
# Try: turn the picture by 90 degrees. What does the kernel see now, and which kernel sees it all?
# %% [markdown]
"""
## Training on digits: does all this read handwriting?
Training goes in epochs: shuffle the rows, cut them into mini-batches, one step (13) for each. The
gradient of a batch is the full one plus noise, at a fraction of the price (see optimization.py).
The training loss falls on and on, while the network begins to learn its rows by heart. So keep some
rows for validation, to say when to stop, and test rows nobody sees until the end. Early stopping:

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
    X, y = check_batch("X", X), check_batch("y", y, len(X), *np.shape(y)[1:])
    for name, value in zip(("epochs", "batch_size", "patience"), (epochs, batch_size, patience)):
        check_number(name, value, least=1, integer=True)
    trained = [a for layer in layers for a in (*layer.params, *layer.options.values())
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

def make_cnn(rng, channels=(16, 32), side=8, classes=10):
    """For each entry of channels a 3 x 3 convolution, a ReLU and pooling by 2; then linear."""
    layers, d_in = [], 1
    for d_out in channels:
        K = initial_weights("he", rng.normal(size=(3, 3, d_in, d_out)))
        conv, d_in, side = Layer(conv2d, K, np.zeros(d_out), padding=1), d_out, side // 2
        layers += [conv, Layer(relu), Layer(max_pool2d, size=2)]
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
    print("\n== Does it read handwriting? 1293 digits to learn, 144 to stop, 360 to test ==")
    split, clock, curves, comparisons = load_digits_split(), time.perf_counter, {}, []
    began, estimator = clock(), sklearn_mlp(*split[0])
    seconds, library = clock() - began, estimator.score(*split[2])
    print(f"  MLPClassifier {library:.4f}, {estimator.n_iter_} epochs in {seconds:.2f} s")
    mlp, cnn = make_mlp(rng := np.random.default_rng(0), (64, 128, 64, 10)), make_cnn(rng)
    torch_train(mlp, [], cross_entropy, 0.1)  # no step: torch loads what it needs, off the clock
    for name, layers, shape, lr, size, epochs in [
        ("MLP", mlp, (64,), 0.3, 32, 20), ("CNN", cnn, (8, 8, 1), 0.2, 16, 8)]:
        (X, y), validation, (X_test, truth) = ((x.reshape(-1, *shape), y) for x, y in split)
        start, rng, began = copy.deepcopy(layers), np.random.default_rng(0), clock()
        history = fit_network(rng, layers, X, y, cross_entropy, lr, 0.0, epochs, size, validation)
        seconds, rng, began = clock() - began, np.random.default_rng(0), clock()
        batches = ((X[i], y[i]) for _ in range(4) for i in batches_of(rng, len(X), size))
        losses = np.reshape(torch_train(start, batches, cross_entropy, lr)[0], (4, -1)).mean(axis=1)
        ours = accuracy(truth, forward(layers, X_test).argmax(axis=1))
        print(f"  {name} {ours:.4f}, best epoch {history[:, 1].argmin() + 1} of {len(history)}, "
              f"each {seconds / len(history):.3f} s, in torch {(clock() - began) / 4:.3f} s")
        comparisons += [same("training", f"{name}: J, 4 epochs", history[:4, 0], losses),
                        same("accuracy", f"{name}, MLPClassifier: accuracy", [ours], [library])]
        curves |= {f"{name}, training": history[:, 0], f"{name}, validation": history[:, 1]}
    if plot:
        W = np.pad(mlp[0].params[0].T[:32].reshape(4, 8, 8, 8), [(0, 0), (0, 0), (0, 1), (0, 1)])
        def _draw(left, right):
            draw_curves(left, curves, "epoch", "loss"), right.set(xticks=[], yticks=[])
            right.imshow(W.transpose(0, 2, 1, 3).reshape(36, 72), cmap="coolwarm")
            right.set(title="weights of 32 first units: red adds")
        save_plot("neural_networks_digits.png", _draw, panels=2, size=(11, 4.5))
    return report(comparisons)
# Try: train on 200 digits instead of 1293. Which loses more, the MLP or the CNN?
# %%
if __name__ == "__main__":
    run_chapter("Backpropagation by hand and by machine, equal to torch.", [
        demo_neuron, demo_activations, demo_mlp, demo_gradient_check, demo_autograd,
        demo_initialisation, demo_normalisation, demo_convolution, demo_digits])  # fmt: skip

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch==2.13.0", "scikit-learn", "matplotlib"]
# ///
