# %% [markdown]
"""
# Sequence models: what comes next?

The next letter depends on the letters before it, tomorrow's load on today's. A recurrent network
squeezes the past into a state of fixed size, step by step. Attention keeps all steps and looks back
at those that matter. This chapter builds both with gradients by hand, then a tiny GPT, its tokens,
and forecasts of a series, measured against doing nothing clever at all.

Run `python sequence_models.py`, or a part: `python sequence_models.py gpt`. `pytest` checks it.
Functions named torch_..., tokenizers_... and sklearn_... are the library version; ours need numpy.

    T, B      steps of a sequence, sequences in a batch                     ()
    D, H, E   width of an input, of a recurrent state, of a transformer     ()
    x         inputs; in recurrent networks time comes first                (T, B, D)
    h, c      states h₁..h_T and cells c₁..c_T; h₀ and c₀ are given         (T, B, H)
    Wx, bx    input weights, parts side by side (m = 1, GRU 3, LSTM 4)      (D, mH), (mH,)
    Wh, bh    recurrent weights: `weights.Wh`                               (H, mH), (mH,)
    Q, K, V   queries, keys and values of attention: `q`, `k`, `v`          (.., T, d)
    ⊙, σ      product element by element; sigmoid 1/(1 + exp(-a))

Write dz for ∂L/∂z, the gradient of a loss L. Every layer returns its result z, and `back`, which
takes dz to the gradients of all that went in. Examples are rows: z = x W + b, and dx = dz Wᵀ.
"""
# %%
import re
from collections import Counter, namedtuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from utils import check_array, check_number, check_Xy, compare, make_series, mse
from utils import progress, read_csv, report, run_chapter, save_plot, train_test_split

ALLOWED = {  # how close scratch and library must be, relative to max(1, largest number), and why
    "layers": (1e-10, "the same sums in another order, in float64"),
    "GPT": (1e-8, "rounding grows over AdamW steps, which divide by small numbers"),
    "cache": (1e-12, "the same numbers, kept in place of computed again"),
    "autoregression": (1e-10, "two orthogonal factorisations of a well-conditioned design"),
    "whole numbers": (0, "whole numbers are equal or not"),
}

def check_shape(name, value, *shape):
    """value as finite floats of this shape, in which None stands for any length."""
    value = check_array(name, value, ndim=len(shape))
    if any(want not in (None, got) for want, got in zip(shape, value.shape)):
        raise ValueError(f"{name} must have shape {shape} (None: any), not {value.shape}")
    return value

def affine(x, W, b):
    """z = x W + b on the last axis of x, for all steps at once; back(dz) -> dx, dW, db."""
    rows = x.reshape(-1, len(W))
    z = rows @ W + b
    def back(dz):
        dz = dz.reshape(z.shape)  # dW and db add up over all rows
        return (dz @ W.T).reshape(x.shape), rows.T @ dz, dz.sum(axis=0)
    return z.reshape(*x.shape[:-1], -1), back

# %% [markdown]
"""
## Recurrent networks: how can a fixed size read any length?

Keep a state h. At every step mix the new input into it, with the same weights:

    hₜ = tanh(aₜ + uₜ),   aₜ = xₜ Wx + bx,   uₜ = hₜ₋₁ Wh + bh,   t = 1..T                  (1)

**Backpropagation through time.** Let dₜ be what the loss says about hₜ as an output. But hₜ also
acts on everything later, by way of uₜ₊₁. Walk from the last step, where duₜ₊₁ is 0, to the first:

    gₜ = ∂L/∂hₜ = dₜ + duₜ₊₁ Whᵀ,   daₜ = duₜ = gₜ ⊙ (1 - hₜ²)                              (2)
    dWx = Σ xₜᵀ daₜ,   dbx = Σ daₜ,   dWh = Σ hₜ₋₁ᵀ duₜ,   dbh = Σ duₜ                      (3)

**When it fails.** Going back k steps multiplies by k slopes of tanh, at most 1 each, and k times
by Whᵀ. With slopes near 1, and ρ (rho) the spectral radius of Wh, its largest |eigenvalue|,

    ‖gₜ₋ₖ‖ grows or shrinks like ρᵏ as k grows                                              (4)

Below 1 the gradient vanishes: step t learns nothing from step t - k. Above 1 it explodes, unless
tanh saturates: on normal inputs ρ = 1.1 shrinks. Clipping, a cap on ‖g‖, cures explosion only.
**What people get wrong.** Without duₜ₊₁ Whᵀ in (2) a network still learns, but less.
"""
# %%
Recurrent = namedtuple("Recurrent", "Wx Wh bx bh")  # weights, or their gradients

def init_recurrent(rng, inputs, width, gates=1):
    """Every number uniform within 1/√H of 0, the usual start: D = inputs, H = width, m = gates."""
    D = check_number("inputs", inputs, least=1, integer=True)
    H = check_number("width", width, least=1, integer=True)
    shapes = [(D, gates * H), (H, gates * H), gates * H, gates * H]
    return Recurrent(*(rng.uniform(-1, 1, shape) / np.sqrt(H) for shape in shapes))

def rnn_step(a, u, h):
    """Equation (1): the new state, and back(g) -> da, du by (2), and 0: h acts through u alone."""
    h = np.tanh(a + u)
    def back(g):
        da = g * (1 - h * h)
        return da, da, 0
    return [h], back

def unroll(step, weights, x, h0, *c0):
    """Run a step over x (T, B, D) from h₀ (B, H): all h (T, B, H), the final state, and back(dh),
    dₜ of (2) -> dx, dh₀ and a Recurrent of gradients. The LSTM, below, has a second state: it
    starts from c₀, too, and has back(dh, dc), dc for the final c, -> dx, dh₀, dc₀ and gradients."""
    H = len(weights.Wh)
    x = check_shape("x", x, None, None, len(weights.Wx))
    T, B, _ = x.shape
    states = [check_shape(name, s, B, H) for name, s in zip(["h0", "c0"], [h0, *c0])]
    a, to_x = affine(x, weights.Wx, weights.bx)  # the inputs' part of all steps at once
    to_steps = []
    h = np.empty((T + 1, B, H))
    h[0] = states[0]
    for t in range(T):
        states, to_step = step(a[t], h[t] @ weights.Wh + weights.bh, *states)
        h[t + 1] = states[0]
        to_steps.append(to_step)
    def back(dh, *dc):  # backpropagation through time (2), then (3), Werbos (1990)
        dh, dc = check_shape("dh", dh, T, B, H), [check_shape("dc", d, B, H) for d in dc]
        da, du = np.empty_like(a), np.empty_like(a)
        later = np.zeros((B, H))  # what the later steps say about h: duₜ₊₁ Whᵀ
        for t in reversed(range(T)):
            da[t], du[t], direct, *dc = to_steps[t](dh[t] + later, *dc)  # the sum is gₜ
            later = du[t] @ weights.Wh.T + direct
        dx, dWx, dbx = to_x(da)
        dWh = np.tensordot(h[:-1], du, axes=([0, 1], [0, 1]))  # the sum over steps and sequences
        return dx, later, *dc, Recurrent(dWx, dWh, dbx, du.sum(axis=(0, 1)))
    return h[1:], states, back

# %% [markdown]
"""
### Gates: how does an LSTM or a GRU remember?

Do not rewrite the state, add to it, by gates between 0 and 1. The LSTM (long short-term memory) has
two states, h and c, and cuts aₜ + uₜ into four parts: gates i (how much to take in), f (how much to
keep; Gers et al., 2000), o (how much to show), new value n. Back from c to c is only f, no matrix:

    i, f, o = σ(a_i + u_i), σ(a_f + u_f), σ(a_o + u_o)   and   n = tanh(a_n + u_n)          (5)
    cₜ = f ⊙ cₜ₋₁ + i ⊙ n,   hₜ = o ⊙ tanh(cₜ)                                              (6)
    dcₜ = (f ⊙ dc)ₜ₊₁ + gₜ ⊙ o ⊙ (1 - tanh²cₜ)                                              (7)

The GRU (gated recurrent unit) has one state and three parts, reset, update and new value. Here
hₜ₋₁ acts on hₜ directly, too: gₜ₋₁ gets z ⊙ gₜ more, in the code `direct`:

    r, z = σ(a_r + u_r), σ(a_z + u_z),   n = tanh(a_n + r ⊙ u_n),   hₜ = n + z ⊙ (hₜ₋₁ - n) (8)

**When it fails.** Gates alone do not remember: f = 0.5 leaves 0.000001 after 20 steps. Let them
start open: a bias of 1 or more for f (or z). Too open, an LSTM may grow, a GRU takes nothing in.
**What people get wrong.** The slope of s = σ(a) is s(1 - s): of s itself, not of σ(s). And r acts
after the product with Wh, as in torch; before it would be another model.
"""
# %%
def sigmoid(a):
    """σ(a) = 1/2 + tanh(a/2) / 2, which cannot overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * a)

def lstm_step(a, u, h, c):
    """Equations (5), (6): new h, c; back(g, dc) -> da, du, 0, dc. Hochreiter, Schmidhuber 1997."""
    a_i, a_f, a_n, a_o = np.split(a + u, 4, axis=1)
    i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)
    n = np.tanh(a_n)
    new = f * c + i * n
    y = np.tanh(new)
    def back(g, dc):  # equation (7), then what each part multiplies in (6), times its own slope
        dc = dc + g * o * (1 - y * y)
        da_i = dc * n * i * (1 - i)
        da_f = dc * c * f * (1 - f)
        da_n = dc * i * (1 - n * n)
        da_o = g * y * o * (1 - o)
        da = np.concatenate([da_i, da_f, da_n, da_o], axis=1)
        return da, da, 0, dc * f
    return [o * y, new], back

def gru_step(a, u, h):
    """Equation (8): new h; back(g) -> da, du, direct dh. Cho et al. (2014), r as in cuDNN."""
    a_r, a_z, a_n = np.split(a, 3, axis=1)
    u_r, u_z, u_n = np.split(u, 3, axis=1)
    r, z = sigmoid(a_r + u_r), sigmoid(a_z + u_z)
    n = np.tanh(a_n + r * u_n)
    def back(g):  # the chain rule through (8), from right to left
        da_z = g * (h - n) * z * (1 - z)
        da_n = g * (1 - z) * (1 - n * n)
        da_r = da_n * u_n * r * (1 - r)
        da = np.concatenate([da_r, da_z, da_n], axis=1)
        du = np.concatenate([da_r, da_z, da_n * r], axis=1)
        return da, du, g * z
    return [n + z * (h - n)], back

# %%
def torch_copy(module, arrays):
    """A torch module in float64 with copies of our arrays. torch keeps every matrix transposed."""
    import torch
    with torch.no_grad():
        for parameter, array in zip(module.double().parameters(), arrays, strict=True):
            parameter.copy_(torch.tensor(array.T))
    return module

def torch_recurrent(kind, weights):
    """The library version: torch.nn.RNN, LSTM or GRU. Gates stand in our order; its g is our n."""
    from torch import nn
    return torch_copy(getattr(nn, kind)(len(weights.Wx), len(weights.Wh)), weights)

def torch_gradients(run, inputs, upstream, module=None):
    """Outputs of run(*inputs), and gradients of Σ upstream ⊙ outputs at inputs and parameters."""
    import torch
    inputs = [torch.tensor(a, requires_grad=True) for a in inputs]
    parameters = module.parameters() if module else []
    outputs = run(*inputs)
    sum((o * torch.tensor(d)).sum() for o, d in zip(outputs, upstream)).backward()
    theirs = *outputs, *(a.grad for a in inputs), *(p.grad.t() for p in parameters)
    return [a.detach().numpy() for a in theirs]

def compare_layer(title, names, ours, theirs):
    """Results and gradients of a layer: one comparison for each of the names."""
    together = zip(names.split(), ours, theirs, strict=True)
    return [compare(f"{title} {name}", a, b, *ALLOWED["layers"]) for name, a, b in together]

def compare_recurrent(kind, step, weights, x, start):
    """From states of 0: h and all gradients beside torch's, for L = Σ h²/2, so that dh = h."""
    h, _, back = unroll(step, weights, x, *start)
    dx, *_, gradients = back(h, *start[1:])  # dc is 0, as is c₀
    module = torch_recurrent(kind, weights)
    theirs = torch_gradients(lambda x: module(x)[:1], [x], [h], module)
    return compare_layer(kind, "h dx dWx dWh dbx dbh", [h, dx, *gradients], theirs)

def show_reach(networks, plot):
    """How |dL/dx| changes on its way back, for each of {name: (step, weights, x, start)}."""
    reaches = {}
    for name, (*network, start) in networks.items():
        h, _, back = unroll(*network, *start)
        dh = np.zeros_like(h)
        dh[-1] = np.random.default_rng(0).normal(size=dh[-1].shape)  # L reads the last h alone
        reaches[name] = np.linalg.norm(back(dh, *start[1:])[0], axis=(1, 2))[::-1]
        change = reaches[name][50] / reaches[name][10]
        print(f"  {name:31} {change:6.0e} in 40 steps, {change ** (1 / 40):.2f} in one")
    def draw(ax):
        for name, reach in reaches.items():
            ax.semilogy(reach, "--" if "RNN" in name else "-", label=name)
        ax.set(xlabel="steps back from the end", ylabel="|dL/dx|")
        ax.legend(fontsize="small", bbox_to_anchor=(1, 1))  # beside the picture
    if plot:
        save_plot("sequence_models_recurrent.png", draw, size=(9, 4.5))

def demo_recurrent(plot=False):
    """How fast the gradient shrinks or grows on its way back: equation (4), and gates."""
    print("\n== Recurrent networks: what becomes of the gradient on its way back? ==\n")
    rng, networks = np.random.default_rng(0), {}
    x, zero = rng.normal(size=(60, 16, 3)), np.zeros((16, 32))
    Wx, Wh, bx, bh = init_recurrent(rng, 3, 32)
    Wh /= np.abs(np.linalg.eigvals(Wh)).max()  # spectral radius 1
    for radius, scale in [(0.5, 0), (0.9, 0), (1.0, 0), (1.1, 0), (1.5, 0), (1.1, 1), (1.5, 1)]:
        weights = Recurrent(Wx, radius * Wh, 0 * bx, 0 * bh)  # inputs 0 keep the slopes at 1
        networks[f"RNN, radius {radius}, {scale} * inputs"] = rnn_step, weights, scale * x, [zero]
    comparisons = compare_recurrent("RNN", rnn_step, weights, x, [zero])
    for kind, step, m, start in [("LSTM", lstm_step, 4, [zero] * 2), ("GRU", gru_step, 3, [zero])]:
        for bias in [0, 2, 4]:
            weights = init_recurrent(rng, 3, 32, m)
            weights.bx[32:64] = bias  # of the second part: f in the LSTM, z in the GRU
            networks[f"{kind}, gate bias {bias}"] = step, weights, x, start
        comparisons += compare_recurrent(kind, step, weights, x, start)
    show_reach(networks, plot)
    return report(comparisons)
# Try: gate biases of -2 and of 8. How far back does the gradient of each reach?

# %% [markdown]
"""
## Attention: why carry everything through one state?

Let every step look back itself: it asks with a query, offers a key, holds a value, all rows. The
better the fit, the more is read: softmax makes shares exp(s)/Σ exp(s). With d columns in Q and K:

    S = Q Kᵀ/√d,   P = softmax of each row of S,   O = P V                                  (9)

A product of two rows of d standard normal numbers has standard deviation √d. Divided by it, P keeps
off 0 and 1, where its gradient dies. The causal mask sets Sₜₛ = -∞ where s > t: no step may see
later ones if it is to predict the next. A row of P sums to 1, so what one key gains others lose:

    dV = Pᵀ dO,   dS = P ⊙ (dO Vᵀ - rowsum(dO ⊙ O)),   dQ = dS K/√d,   dK = dSᵀ Q/√d       (10)

**Heads.** One softmax finds one thing. Multi-head attention makes [Q K V] = x W_in + b_in, cuts the
E columns of each into heads of d = E/heads, lets each attend alone, and mixes their [O₁ .. O_heads]
by W_out and b_out.

**When it fails.** P costs T² numbers. Without positions, order means nothing. A row with all masked
has no softmax: here, as in torch's `scaled_dot_product_attention`, it reads 0.
**What people get wrong.** A mask off by one shows each step its own answer: a wonderful loss.
"""
# %%
Heads = namedtuple("Heads", "W_in b_in W_out b_out")  # (E, 3E), (3E,), (E, E), (E,)

def causal_mask(steps):
    """(T, T): True where query t (row) may look at key s (column), that is s ≤ t."""
    return np.tri(check_number("steps", steps, least=1, integer=True), dtype=bool)

def softmax(s):
    """exp(s)/Σ exp(s) along the last axis, less the maximum against overflow; all -inf: zeros."""
    e = np.exp(s - s.max(axis=-1, keepdims=True, initial=-1e300))  # a finite maximum, always
    e /= np.maximum(e.sum(axis=-1, keepdims=True), 1)  # the sum is at least 1; all masked: 0
    return e

def attention(q, k, v, mask=None):
    """Equation (9), Vaswani et al. (2017): q (.., T, d), k (.., N, d), v (.., N, e) and mask
    (T, N), True where a query may look -> O (.., T, e), P (.., T, N); back(dO) -> dQ, dK, dV."""
    q, k, v = (check_array(name, a, max(np.ndim(a), 2)) for name, a in zip("qkv", (q, k, v)))
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(f"q, k, v must be (T, d), (N, d), (N, e), not {q.shape, k.shape, v.shape}")
    root = np.sqrt(q.shape[-1])
    s = (q / root) @ k.mT  # .mT swaps the last two axes
    if mask is not None:
        if np.shape(mask) != s.shape[-2:] or np.asarray(mask).dtype != bool:
            raise ValueError(f"mask must hold booleans in shape {s.shape[-2:]}, (T, N)")
        np.copyto(s, -np.inf, where=np.logical_not(mask))
    p = softmax(s)
    o = p @ v
    def back(do):  # equation (10); what is masked has p = 0 and so no gradient
        ds = p * (do @ v.mT - (do * o).sum(axis=-1, keepdims=True))
        return ds @ k / root, ds.mT @ (q / root), p.mT @ do
    return o, p, back

def multi_head(weights, x, heads, mask=None, past=None):
    """x (B, T, E) -> y (B, T, E), (K, V) of all steps, and back(dy) -> dx and a Heads of gradients.
    past: (K, V) of earlier steps, which come before those of x."""
    x = check_shape("x", x, None, None, len(weights.W_out))
    B, T, E = x.shape
    if E % check_number("heads", heads, least=1, integer=True):
        raise ValueError(f"heads must divide the width {E}, not be {heads}")
    qkv, to_x = affine(x, weights.W_in, weights.b_in)
    q, k, v = qkv.reshape(B, T, 3, heads, -1).transpose(2, 0, 3, 1, 4)  # (B, heads, T, E / heads)
    if past is not None:
        k, v = np.concatenate([past[0], k], axis=2), np.concatenate([past[1], v], axis=2)
    o, _, to_qkv = attention(q, k, v, mask)
    y, to_o = affine(o.swapaxes(1, 2).reshape(B, T, E), weights.W_out, weights.b_out)
    def back(dy):
        do, dW_out, db_out = to_o(dy)
        dqkv = np.stack(to_qkv(do.reshape(B, T, heads, -1).swapaxes(1, 2)))
        dx, dW_in, db_in = to_x(dqkv.transpose(1, 3, 0, 2, 4).reshape(B, T, 3 * E))
        return dx, Heads(dW_in, db_in, dW_out, db_out)
    return y, (k, v), back

# %%
def torch_multi_head(weights, heads):
    """The library version: MultiheadAttention. Its mask is True where looking is forbidden."""
    from torch import nn
    return torch_copy(nn.MultiheadAttention(len(weights.W_out), heads, batch_first=True), weights)

def compare_attention(rng, title, mask):
    """Attention alone and in three heads, under a mask (8, 8), beside torch's, for L = Σ O²/2."""
    from torch import nn, tensor
    q, k, v = rng.normal(size=(3, 2, 3, 8, 4))
    o, _, back = attention(q, k, v, mask)
    run = lambda *qkv: [nn.functional.scaled_dot_product_attention(*qkv, tensor(mask))]
    theirs = torch_gradients(run, [q, k, v], [o])
    alone = compare_layer(title, "O dQ dK dV", [o, *back(o)], theirs)
    weights = Heads(*(rng.normal(size=shape) / 3 for shape in [(12, 36), 36, (12, 12), 12]))
    x, module = rng.normal(size=(2, 8, 12)), torch_multi_head(weights, 3)
    y, _, back = multi_head(weights, x, 3, mask)
    dx, gradients = back(y)
    run = lambda x: module(x, x, x, attn_mask=tensor(~mask))[:1]
    theirs = torch_gradients(run, [x], [y], module)
    names = "y dx dW_in db_in dW_out db_out"
    return alone + compare_layer(f"{title} heads", names, [y, dx, *gradients], theirs)

def demo_attention(plot=False):
    """Every letter looks for letters like itself: the weights P as a table."""
    print("\n== Attention: which letters does each letter look at? ==\n")
    text, rng, causal = "abcabdab", np.random.default_rng(0), causal_mask(8)
    onehot = np.eye(4)[["abcd".index(letter) for letter in text]]  # equal letters, equal keys
    _, p, _ = attention(6 * onehot, onehot, onehot, causal)
    print("       " + "    ".join(text) + "   <- key")
    for letter, row in zip(text, p):
        print(f"  {letter} " + " ".join(f"{share:4.0%}" if share else "   ." for share in row))
    def draw(ax):
        ax.imshow(p)
        ax.set(xticks=range(8), xticklabels=text, xlabel="key: is looked at")
        ax.set(yticks=range(8), yticklabels=text, ylabel="query: looks", title="weights P")
    if plot:
        save_plot("sequence_models_attention.png", draw)
    free = compare_attention(rng, "all True:", causal | True)
    return report(free + compare_attention(rng, "causal:", causal))
# Try: 20, then 0, for the 6 of 6 * onehot. With 6 a like letter counts e^(6/2) = 20 times; now?

# %% [markdown]
"""
## A tiny GPT: how do layers of attention become a model that writes?

A token, here one of V letters, becomes a row of a table plus a row for its position. Blocks add to
that stream x what attention reads from other steps, then what two layers make of each step alone,
from copies with mean 0 and variance 1 (LayerNorm). Sums keep the gradient's road back straight. A
token's logit, its score as next, reuses the table (weight tying): two gradients. Biases left out:

    x = tokens[id] + positions[t],   the blocks,   logits = LayerNorm(x) tokensᵀ           (11)
    block: x ← x + MultiHead(LayerNorm(x)),   x ← x + max(0, LayerNorm(x) W_up) W_down     (12)

**When it fails.** No step sees further back than the context C, where the positions end.
"""
# %%
Block = namedtuple("Block", "W_in b_in W_out b_out W_up b_up W_down b_down gain1 bias1 gain2 bias2")
# V tokens, C positions: tables (V, E), (C, E); all blocks stacked, W_in as (layers, E, 3E)
GPT = namedtuple("GPT", ["tokens", "positions", *Block._fields, "gain", "bias"])
HEAD = 8  # columns of a head in the GPT, which thus has E / 8 heads

def init_gpt(rng, vocab, context, width=32, layers=2):
    """Matrices normal with standard deviation 0.08, biases 0, gains 1; W_up has 4E columns."""
    for name, count in [("vocab", vocab), ("context", context), ("layers", layers)]:
        check_number(name, count, least=1, integer=True)
    if check_number("width", width, least=HEAD, integer=True) % HEAD:
        raise ValueError(f"width must be a multiple of {HEAD}, not {width}")
    E, stacked = width, []
    for rows, columns in [(E, 3 * E), (E, E), (E, 4 * E), (4 * E, E)]:
        stacked += [0.08 * rng.normal(size=(layers, rows, columns)), np.zeros((layers, columns))]
    tables = [0.08 * rng.normal(size=(rows, E)) for rows in (vocab, context)]
    ones, zeros = np.ones((layers, E)), np.zeros((layers, E))
    return GPT(*tables, *stacked, ones, zeros, ones, zeros, np.ones(E), np.zeros(E))

def layer_norm(x, gain, bias):  # explained in neural_networks.py
    """Each row to mean 0 and variance 1, then scaled and shifted; back(dy) -> dx, dgain, dbias."""
    x = x - x.mean(axis=-1, keepdims=True)
    inverse = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
    x *= inverse
    def back(dy):  # the mean and the variance depend on x, too
        g = dy * gain
        g -= g.mean(axis=-1, keepdims=True) + x * (g * x).mean(axis=-1, keepdims=True)
        return g * inverse, (dy * x).sum(axis=(0, 1)), dy.sum(axis=(0, 1))
    return x * gain + bias, back

def gpt_block(block, x, mask=None, past=None):
    """Equation (12): x (B, T, E) -> (B, T, E), and (K, V); back(dx) -> dx and a Block."""
    read1, to_x1 = layer_norm(x, block.gain1, block.bias1)
    seen, kv, to_read1 = multi_head(block, read1, x.shape[2] // HEAD, mask, past)
    x = x + seen
    read2, to_x2 = layer_norm(x, block.gain2, block.bias2)
    up, to_read2 = affine(read2, block.W_up, block.b_up)
    down, to_active = affine(np.maximum(up, 0), block.W_down, block.b_down)
    def back(dx):  # a sum passes the gradient on to both of its terms
        dactive, *dW_down = to_active(dx)
        dread2, *dW_up = to_read2(dactive * (up > 0))
        dx2, *dnorm2 = to_x2(dread2)
        dx = dx + dx2
        dread1, dheads = to_read1(dx)
        dx1, *dnorm1 = to_x1(dread1)
        return dx + dx1, Block(*dheads, *dW_up, *dW_down, *dnorm1, *dnorm2)
    return x + down, kv, back

def check_tokens(name, ids, vocab, *shape):
    """Token ids as an array of integers of this shape (None: any), each from 0 to vocab - 1."""
    ids = check_shape(name, ids, *shape)
    bad = ids[(ids % 1 != 0) | (ids < 0) | (ids >= vocab)]
    if len(bad):
        raise ValueError(f"{name} must hold whole numbers from 0 to {vocab - 1}, not {bad[0]:g}")
    return ids.astype(int)

def gpt(model, tokens, past=None):
    """Equation (11): tokens (B, T) -> logits (B, T, V) and (K, V) of each block; back(dlogits) ->
    a GPT of gradients. past: (K, V) of each block for the steps before, kept by an earlier call."""
    tokens = check_tokens("tokens", tokens, len(model.tokens), None, None)
    begin = past[0][0].shape[2] if past else 0  # the steps in K of the first block
    end, context = begin + tokens.shape[1], len(model.positions)
    if end > context:
        raise ValueError(f"tokens must fit into the context of {context} steps, not be {end}")
    blocks = [Block(*arrays) for arrays in zip(*model[2:-2])]  # one for each layer
    x, mask = model.tokens[tokens] + model.positions[begin:end], causal_mask(end)[begin:]
    kvs, backs = [], []
    for block, kv in zip(blocks, past or [None] * len(blocks)):
        x, kv, to_block = gpt_block(block, x, mask, kv)
        kvs.append(kv)
        backs.append(to_block)
    x, to_x = layer_norm(x, model.gain, model.bias)
    logits, to_read = affine(x, model.tokens.T, 0)
    def back(dlogits):
        dread, dtable, _ = to_read(dlogits)
        dx, *dnorm = to_x(dread)
        dblocks = []
        for to_block in reversed(backs):
            dx, dblock = to_block(dx)
            dblocks.insert(0, dblock)
        dtokens = dtable.T  # the table as reader,
        np.add.at(dtokens, tokens, dx)  # and as input: a token counts as often as it stands
        dpositions = np.zeros_like(model.positions)
        dpositions[:end] = dx.sum(axis=0)
        return GPT(dtokens, dpositions, *map(np.stack, zip(*dblocks)), *dnorm)
    return logits, kvs, back

# %% [markdown]
"""
### A tiny GPT in training and at work: what does it learn, and how does it write?

The loss L is the mean surprise at the next token; thanks to the mask, at all steps at once:

    L = -1/(BT) Σ log softmax(logits)[next id]                                             (13)

**Perplexity** is exp(L): one is as unsure as between that many equally likely tokens. It means
nothing alone: below stand counts of letters and of pairs, and the best possible, as each of our
lines is one of 18 and holds no other choice (1.13 on windows of 32, which begin inside a line).

**Writing** appends tokens drawn from softmax(logits / temperature). Temperature 1 is what the model
believes, 0 takes the likeliest, above 1 evens the odds; top-k cuts off all but the k likeliest. No
old step sees a new one, so old keys and values stay. A key-value cache keeps them, as long as the
window does not move: a token then costs one row, not T.
"""
# %%
def cross_entropy(logits, targets):
    """Equation (13): L, and its gradient dlogits = (softmax - onehot of the target)/(BT)."""
    z = logits - logits.max(axis=-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    onehot = np.eye(logits.shape[-1])[targets]
    return -np.sum(onehot * log_p) / targets.size, (np.exp(log_p) - onehot) / targets.size

def gpt_gradients(model, tokens, targets):
    """The loss of predicting targets (B, T) from tokens (B, T), and a GPT of gradients."""
    logits, _, back = gpt(model, tokens)
    targets = check_tokens("targets", targets, logits.shape[2], *logits.shape[:2])
    loss, dlogits = cross_entropy(logits, targets)
    return loss, back(dlogits)

def train(model, gradient, batches, lr=0.01, weight_decay=0.01):  # explained in optimization.py
    """AdamW on a tuple of arrays, by gradient(model, *batch) -> loss, gradients: model, losses."""
    model = model._make(array.copy() for array in model)
    losses, m, v = [], [0] * len(model), [0] * len(model)
    for t, batch in enumerate(batches, start=1):
        loss, gradients = gradient(model, *batch)
        losses.append(loss)
        for i, (array, g) in enumerate(zip(model, gradients)):
            m[i] = 0.9 * m[i] + 0.1 * g  # running means from 0, of g and of g²
            v[i] = 0.999 * v[i] + 0.001 * g * g
            step = m[i] / (1 - 0.9**t) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
            array -= lr * (step + weight_decay * array)
    return model, losses

def ngram_perplexity(train, test, vocab, n):
    """Perplexity on test (m,) of counts, plus 1, of all n = 1 or 2 neighbours in train."""
    counts = np.ones((vocab,) * n)
    np.add.at(counts, tuple(sliding_window_view(train, n).T), 1)
    p = counts / counts.sum(axis=-1, keepdims=True)
    return np.exp(-np.log(p[tuple(sliding_window_view(test, n).T)]).mean())

def make_text(rng, lines):
    """Lines like "ann lost her kite. she wants it back.", drawn from 18 that are equally likely."""
    names = ["ann lost her {}. she", "ben lost his {}. he", "cleo lost her {}. she"]
    things = ["kite it", "book it", "drum it", "boots them", "keys them", "cards them"]
    pairs = [(rng.choice(names), *rng.choice(things).split()) for _ in range(lines)]
    return "".join(f"{name.format(thing)} wants {it} back.\n" for name, thing, it in pairs)

def pick_token(logits, u, temperature=1.0, top_k=None):
    """One token, drawn from softmax(logits (V,) / temperature) by a uniform number 0 < u ≤ 1.
    Temperature 0 takes the likeliest. top_k keeps the k largest logits, ties included."""
    logits = check_array("logits", logits, 1)
    check_number("u", u, above=0, most=1)
    if top_k is not None:
        check_number("top_k", top_k, least=1, most=len(logits), integer=True)
        logits = np.where(logits >= np.sort(logits)[-top_k], logits, -np.inf)
    if check_number("temperature", temperature, least=0) < 1e-9:
        return int(np.argmax(logits))
    total = np.cumsum(softmax(logits / temperature))
    return int(np.searchsorted(total, u * total[-1]))  # total[-1] is 1, but for rounding

def generate(model, prompt, uniforms, temperature=1.0, top_k=None):
    """The prompt (n,), then a token for each of the uniforms."""
    ids = check_tokens("prompt", prompt, len(model.tokens), None).tolist()
    context = len(model.positions)
    past = None
    for u in uniforms:
        if len(ids) > context:  # the window moves, and so does every letter's position
            past = None
        logits, past, _ = gpt(model, [ids[-1:] if past else ids[-context:]], past)
        ids.append(pick_token(logits[0, -1], u, temperature, top_k))
    return ids

# %%
def torch_gpt(model):
    """The library version. With `norm_first` its encoder layer, not its decoder, is our block."""
    from torch import nn
    (V, E), blocks = model.tokens.shape, list(zip(*model[2:-2]))
    layer = nn.TransformerEncoderLayer(E, E // HEAD, 4 * E, 0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, len(blocks), nn.LayerNorm(E), enable_nested_tensor=False)
    tables = [nn.Embedding(V, E), nn.Embedding(len(model.positions), E)]  # as ours: hence .T below
    arrays = [model.tokens.T, model.positions.T, *(array for block in blocks for array in block)]
    return torch_copy(nn.ModuleList([*tables, encoder]), [*arrays, model.gain, model.bias])

def torch_train_gpt(model, batches, lr=0.01):
    """The loss before every step of torch.optim.AdamW on torch_gpt."""
    import torch
    table, positions, encoder = module = torch_gpt(model)
    optimizer, losses = torch.optim.AdamW(module.parameters(), lr=lr), []
    for tokens, targets in batches:
        x = table(torch.tensor(tokens)) + positions.weight[: tokens.shape[1]]
        logits = encoder(x, mask=torch.tensor(~causal_mask(x.shape[1]))) @ table.weight.T
        loss = torch.nn.functional.cross_entropy(logits.mT, torch.tensor(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses

def show_writing(model, letters, prompt):
    """Samples at four temperatures; the cache beside recomputing; samples beside torch's."""
    from torch import searchsorted, tensor
    V, uniforms = len(letters), 1 - np.random.default_rng(0).random(70)
    for temperature, k in [(0, V), (0.7, V), (2, V), (2, 3)]:
        ids = generate(model, [0], uniforms, temperature, k)  # from 0, the end of a line
        written = "".join(letters[ids]).replace("\n", " / ")
        print(f"  temperature {temperature:3}, top {k:2}:{written}")
    past, full = gpt(model, [prompt[:-1]])[1], gpt(model, [prompt])[0][0, -1]
    logits = gpt(model, [prompt[-1:]], past)[0][0, -1]  # the last letter alone, by the cache
    comparisons = [compare("logits by the cache", logits, full, *ALLOWED["cache"])]
    for k in [V, 3]:
        ours = [pick_token(logits, u, 2, k) for u in uniforms]
        z = tensor(logits) / 2
        total = z.masked_fill(z < z.topk(k).values[-1], -np.inf).softmax(-1).cumsum(-1)
        theirs = searchsorted(total, tensor(uniforms) * total[-1])
        comparisons.append(compare(f"samples, top {k}", ours, theirs, *ALLOWED["whole numbers"]))
    return comparisons

def demo_gpt(plot=False):
    """Perplexity on fresh lines before and after training, torch's losses beside ours, samples."""
    print("\n== A tiny GPT: can it learn to spell, and to look back? ==\n")
    rng = np.random.default_rng(0)
    letters, ids = np.unique(list(make_text(rng, 500)), return_inverse=True)
    test, V = np.searchsorted(letters, list(make_text(rng, 100))), len(letters)
    windows = sliding_window_view(ids, 33)[rng.integers(len(ids) - 32, size=(200, 12))]
    batches = [(w[:, :-1], w[:, 1:]) for w in windows]  # the target is the next letter
    start = init_gpt(rng, V, context=32)
    progress("training a tiny GPT, 200 steps")
    model, losses = train(start, gpt_gradients, batches)
    new = sliding_window_view(test, 33)[::32]
    before, after = (gpt_gradients(m, new[:, :-1], new[:, 1:])[0] for m in (start, model))
    print(f"  perplexity on fresh lines: as unsure as between so many letters, of {V}")
    for name, value in [("count letters", ngram_perplexity(ids, test, V, 1)),
                        ("count pairs", ngram_perplexity(ids, test, V, 2)),
                        ("GPT, untrained", np.exp(before)), ("GPT, 200 steps", np.exp(after)),
                        ("best possible", 18 ** (100 / len(test)))]:  # 18 choices in 100 lines
        print(f"  {name:15} {value:6.2f}  {'#' * round(2 * value)}")
    theirs = torch_train_gpt(start, batches[:20])
    losses = compare("GPT losses, 20 steps", losses[:20], theirs, *ALLOWED["GPT"])
    return report([losses, *show_writing(model, letters, test[:21])])
# Try: causal_mask all True and size=(400, 12). What is written? Why is the cache NOT EQUAL now?

# %% [markdown]
"""
## Tokens: what should a model read?

Letters make long texts, and no list of words is complete. Byte-pair encoding lies between. Start
from the 256 bytes of UTF-8, so that any text can be written, and cut the text into words. Then,
again and again, make the most frequent pair of neighbours in words a new token:

    (a, b) = argmax over pairs of Σ over words of count(word) · (times a b stands in it)   (14)

Ties go to the smaller pair of ids. A new text takes the same merges, the earliest first. Decoding
joins the bytes, and nothing is lost. Words that become one token leave their stages behind.

**When it fails.** The merges belong to the text they come from: other languages fall apart into
many tokens. An "é" is two bytes, so one token may be half a character and cannot be shown.
"""
# %%
# A word takes one space before it along, marks stand apart; every character is in one piece
PIECE = re.compile(r""" ?[^ \n.,;:!?"()]+| ?[.,;:!?"()]+|[ \n]""")
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]  # printable ones first, as in GPT-2
BYTES += [b for b in range(256) if b not in BYTES]  # token i < 256 is the byte BYTES[i]
BPE = namedtuple("BPE", "tokens merges")  # the bytes of each token; {(a, b): token}, in order

def merge_pair(ids, pair, token):
    """ids with every pair, from left to right, replaced by the token."""
    out = []
    for i in ids:
        out.append(i)
        if tuple(out[-2:]) == pair:
            out[-2:] = [token]
    return out

def train_bpe(text, vocab):
    """Equation (14) until there are vocab tokens, or no pairs. Sennrich et al. (2016)."""
    check_number("vocab", vocab, least=256, integer=True)
    bpe = BPE([bytes([b]) for b in BYTES], {})
    words = [(encode(bpe, word), n) for word, n in Counter(PIECE.findall(text)).items()]
    while len(bpe.tokens) < vocab:
        counts = Counter()
        for ids, n in words:
            for pair in zip(ids, ids[1:]):
                counts[pair] += n
        if not counts:
            break
        a, b = min(counts, key=lambda pair: (-counts[pair], pair))
        token = bpe.merges[a, b] = len(bpe.tokens)
        bpe.tokens.append(bpe.tokens[a] + bpe.tokens[b])
        words = [(merge_pair(ids, (a, b), token), n) for ids, n in words]
    return bpe

def encode(bpe, text):
    """The tokens of a text, as a list: in each word, the merge learned first goes first."""
    out = []
    for word in PIECE.findall(text):
        ids = [BYTES.index(byte) for byte in word.encode()]
        while known := [pair for pair in zip(ids, ids[1:]) if pair in bpe.merges]:
            pair = min(known, key=bpe.merges.get)
            ids = merge_pair(ids, pair, bpe.merges[pair])
        out += ids
    return out

def decode(bpe, ids):
    """The text of tokens. Bytes that are no UTF-8, half a character, give the mark U+FFFD."""
    ids = check_tokens("ids", ids, len(bpe.tokens), None) if len(ids) else []
    return b"".join(bpe.tokens[i] for i in ids).decode(errors="replace")

# %%
def tokenizers_bpe(text, vocab):
    """The library version: Rust, over ten times as fast. It sorts the bytes as our BYTES does."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    tokenizer, level = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel
    pieces = pre_tokenizers.Split(Regex(PIECE.pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, level(False, use_regex=False)])
    options = dict(initial_alphabet=level.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(vocab_size=vocab, **options))
    return tokenizer

def demo_bpe(plot=False):
    """Learn tokens from real text: scikit-learn's description of its breast cancer data."""
    from sklearn.datasets import load_breast_cancer, load_diabetes
    print("\n== Tokens: which pieces is English made of? ==\n")
    text, unseen = load_breast_cancer().DESCR, load_diabetes().DESCR
    bpe, library = train_bpe(text, 500), tokenizers_bpe(text, 500)
    print("  the longest tokens:", *(repr(t.decode()) for t in sorted(bpe.tokens, key=len)[:-8:-1]))
    comparisons = []
    for name, sample in [("its own text", text), ("unseen", unseen), ("Greek", "μῆνιν ἄειδε θεά")]:
        ids = encode(bpe, sample)
        print(f"  {name:13} {len(sample.encode()):5} bytes -> {len(ids):5} tokens")
        same = decode(bpe, ids) == sample
        for what, a, b in [("ids", ids, library.encode(sample).ids), ("decoded", same, True)]:
            comparisons.append(compare(f"{what}, {name}", a, b, *ALLOWED["whole numbers"]))
    return report(comparisons)
# Try: ask for 2000 tokens. How many does the text yield, and which of the two texts gains more?

# %% [markdown]
"""
## Forecasting: is the model better than no model?

Turn the series y into a table: a row is a window of p values, its target the value `ahead` steps
after the window. A linear model of these rows is an autoregression:

    ŷₜ₊₁ = b + w₁ yₜ₋ₚ₊₁ + .. + wₚ yₜ,   minimise Σ (yₜ₊₁ - ŷₜ₊₁)²   (ahead = 1)           (15)

An RNN may read the same window a value at a time, less its last value, so that a trend stays in
range. Both must beat forecasts that cost nothing: naive, the last value, and seasonal naive, the
value one season ago. The season is the shortest lag at which the past nearly repeats itself.

**When it fails.** No model knows a change that training never saw. A small gap may be chance.
**What people get wrong.** A random split puts the neighbours of each test window, which share all
values but one, into the training part, where a model looks them up: a random walk, which nobody can
forecast, seems easy. Train on the past, test on the future: there few have a near copy. Each
fold, a training and a test part, leaves out ahead - 1 rows between, with targets not yet known.
"""
# %%
Forecaster = namedtuple("Forecaster", [*Recurrent._fields, "w", "b"])  # an RNN, w (H,), b (1,)

def make_windows(series, p, ahead=1):
    """X (n, p), all windows of p neighbours, and y (n,), the value `ahead` steps after each."""
    series = check_array("series", series, 1)
    most = len(series) - check_number("ahead", ahead, least=1, integer=True)
    check_number("p (the window)", p, least=1, most=most, integer=True)
    return sliding_window_view(series[:most], p), series[p + ahead - 1 :]

def time_folds(n, k, gap=0):
    """k pairs (train, test): the last k blocks of n // (k + 1) rows, and what came before."""
    check_number("n", n, least=2, integer=True)
    size = n // (check_number("k", k, least=1, most=n - 1, integer=True) + 1)
    first = n - k * size
    check_number("gap", gap, least=0, below=first, integer=True)
    return [(np.arange(i - gap), np.arange(i, i + size)) for i in range(first, n, size)]

def seasonal_naive(series, start, period=1):
    """Forecasts of series[start:]: each is the value one period before. Period 1 is naive."""
    series = check_array("series", series, 1)
    check_number("start", start, least=1, most=len(series) - 1, integer=True)
    check_number("period", period, least=1, most=start, integer=True)
    return series[start - period : len(series) - period]

def find_period(past):
    """The shortest lag, from 2 on, whose squared error is at most 1.5 times the least of all."""
    errors = np.array([mse(past[k:], past[:-k]) for k in range(2, len(past) // 2)])
    return 2 + int(np.argmax(errors <= 1.5 * errors.min()))

def fit_autoregression(X, y):  # least squares, explained in linear_models.py
    """Equation (15): w (p,) and b; of all w that fit equally well the shortest."""
    X, y = check_Xy(X, y)
    A = np.column_stack([X, y])
    mean = A.mean(axis=0)
    R = np.linalg.qr(A - mean, mode="r")  # small, with the lengths and angles of A
    U, s, Vt = np.linalg.svd(R[:, :-1], full_matrices=False)  # = U S Vt, so w = V Uᵀr/s
    kept = s > np.finfo(float).eps * max(X.shape) * np.linalg.norm(X)  # the rest is rounding
    w = Vt[kept].T @ (U[:, kept].T @ R[:, -1] / s[kept])
    return w, mean[-1] - mean[:-1] @ w

def forecast_rnn(model, X):
    """Forecasts (n,) for windows X (n, p), read a value at a time; the states h, and back."""
    h, _, back = unroll(rnn_step, model, X.T[:, :, None], np.zeros((len(X), len(model.w))))
    return h[-1] @ model.w + model.b, h, back

def forecaster_gradients(model, X, y):
    """The mean squared error of the forecasts, and its gradients as a Forecaster."""
    forecasts, h, back = forecast_rnn(model, X)
    dout, dh = 2 / len(y) * (forecasts - y), np.zeros_like(h)
    dh[-1] = np.outer(dout, model.w)  # the last state alone is read out
    return mse(y, forecasts), Forecaster(*back(dh)[2], dout @ h[-1], dout.sum(keepdims=True))

def fit_rnn(X, y, cut):
    """An RNN fitted to the first `cut` windows, less their last value; forecasts of the others."""
    rng, last = np.random.default_rng(0), X[:, -1]
    spread = (y - last)[:cut].std() or 1.0  # the training part alone decides
    windows, changes = (X - last[:, None]) / spread, (y - last) / spread
    start = Forecaster(*init_recurrent(rng, 1, 16), rng.normal(size=16) / 4, np.zeros(1))
    model, _ = train(start, forecaster_gradients, [(windows[:cut], changes[:cut])] * 200)
    return model, last[cut:] + spread * forecast_rnn(model, windows[cut:])[0]

def forecast_all(series, p):
    """Train on 3/4 of the windows: {name: one-step forecasts of the rest}, true values, the RNN."""
    X, y = make_windows(series, p)
    check_number("the length of series", len(series), least=40)
    cut = 3 * len(y) // 4
    period = find_period(series[: p + cut])
    w, b = fit_autoregression(X[:cut], y[:cut])
    rnn, forecasts = fit_rnn(X, y, cut)
    return {
        "naive": seasonal_naive(series, p + cut),
        f"seasonal naive, {period} steps": seasonal_naive(series, p + cut, period),
        f"autoregression, {p} steps": X[cut:] @ w + b,
        f"RNN, {p} steps": forecasts,
    }, y[cut:], rnn

def show_forecasts(forecasts, y, plot):
    """Root mean squared errors as a table, a plain verdict, and the picture."""
    errors = {name: np.sqrt(mse(y, values)) for name, values in forecasts.items()}
    for name, error in errors.items():
        print(f"  {name:26} {error:10.4g}")
    best = min(errors, key=errors.get)
    print(f"  lowest: {best}" + (". No model beats this baseline" if "naive" in best else ""))
    def draw(ax):
        ax.plot(np.column_stack(list(forecasts.values())), "--", label=list(forecasts))
        ax.plot(y, "k", label="the series")
        ax.set(xlabel="step of the test part", ylabel="value, and its forecasts")
        ax.legend(fontsize="small")
    if plot:
        save_plot("sequence_models_forecast.png", draw, size=(9, 4.5))

def show_leak(series):
    """Forecasts 10 steps ahead by looking up the most similar window, under two ways to split."""
    print("\n  A random walk, 10 steps ahead, forecast by looking up the most similar window:")
    X, y = make_windows(series, 20, ahead=10)
    splits = [train_test_split(np.random.default_rng(0), len(X)), time_folds(len(X), 3, gap=9)[-1]]
    for name, (past, test) in zip(["random split", "split by time"], splits):
        apart = np.linalg.norm(X[test][:, None] - X[past], axis=2)  # (test, past)
        error = mse(y[test], y[past][apart.argmin(axis=1)])
        print(f"  {name:14} {error / mse(y[test], X[test, -1]):5.2f} times the naive error")

# %%
def sklearn_autoregression(X, y):
    """The library version of equation (15): LinearRegression."""
    from sklearn.linear_model import LinearRegression
    return LinearRegression().fit(X, y)

def demo_forecast(plot=False):
    """Two models beside two baselines; then a random walk, which a random split makes easy."""
    from sklearn.model_selection import TimeSeriesSplit
    from torch import tensor
    print("\n== Forecasting: does the model beat no model? ==\n")
    rng = np.random.default_rng(0)
    series = make_series(rng, 400)
    forecasts, truth, rnn = forecast_all(series, p=24)
    show_forecasts(forecasts, truth, plot)
    X, y = make_windows(series, 24)
    ours, model = np.append(*fit_autoregression(X, y)), sklearn_autoregression(X, y)
    theirs = np.append(model.coef_, model.intercept_)
    rows = [compare("autoregression w, b", ours, theirs, *ALLOWED["autoregression"])]
    h, _ = torch_recurrent("RNN", Recurrent(*rnn[:4]))(tensor(X.T[:, :, None].copy()))
    theirs = h[-1].detach().numpy() @ rnn.w + rnn.b
    rows.append(compare("RNN", forecast_rnn(rnn, X)[0], theirs, *ALLOWED["layers"]))
    library = TimeSeriesSplit(4, gap=9).split(np.zeros(100))
    for i, (a, b) in enumerate(zip(time_folds(100, 4, gap=9), library)):
        rows.append(compare(f"fold {i}", np.append(*a), np.append(*b), *ALLOWED["whole numbers"]))
    show_leak(rng.normal(size=800).cumsum())
    return report(rows)
# Try: make_series(..., noise=2.0). Who is lowest, and which season is found?

def on_csv(path, column, plot):
    """The table of errors for the reader's own series, in the order of its rows."""
    columns = read_csv(path)
    if column not in columns:
        raise ValueError(f"{path} has no column {column!r}; it has {', '.join(columns)}")
    series = columns[column]
    if series.dtype.kind != "f" or np.isnan(series).any():
        raise ValueError(f"column {column!r} must hold numbers, without text or gaps")
    forecasts, y, _ = forecast_all(series, p=max(1, min(24, len(series) // 8)))
    print(f"== {column}: root mean squared error, one step ahead, on the last quarter ==\n")
    show_forecasts(forecasts, y, plot)

# %%
if __name__ == "__main__":
    run_chapter("Recurrent networks, attention, a tiny GPT, its tokens, and forecasts.", [
        demo_recurrent, demo_attention, demo_gpt, demo_bpe, demo_forecast], on_csv, "column")

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch==2.13.0", "tokenizers", "scikit-learn", "matplotlib"]
# ///
