# %% [markdown]
"""
# Sequence models

What comes next? The next letter depends on the letters before it, tomorrow's load on today's. A
recurrent network squeezes the past into a state of fixed size, step by step. Attention keeps all
steps and looks back at those that matter. This chapter builds both with gradients by hand, then
a tiny GPT, its tokens, and forecasts of a series, measured against doing nothing clever at all.

Read from top to bottom, run `python sequence_models.py`, check with `pytest`.
Nothing but numpy is needed until a part called "The library version".

    T, B      steps of a sequence, sequences in a batch                     ()
    D, H, E   width of an input, of a recurrent state, of a transformer     ()
    x         inputs; in recurrent networks time comes first                (T, B, D)
    h, c      states h₁..h_T and cells c₁..c_T; h₀ and c₀ are given         (T, B, H)
    Wx, bx    input weights, k gates side by side: `weights.Wx`             (D, kH), (kH,)
    Wh, bh    recurrent weights: `weights.Wh`                               (H, kH), (kH,)
    Q, K, V   queries, keys and values of attention: `q`, `k`, `v`          (.., T, d)
    dz        the gradient ∂L/∂z of the loss L, for any z                   shape of z
    ⊙, σ      product element by element; sigmoid 1/(1 + exp(-a))

Every layer returns its result and `back`, a function that takes the gradient of the result to the
gradients of all that went in. Examples are rows: a layer is x W + b, and the way back is dz Wᵀ.
"""

# %%
import re
from collections import Counter, namedtuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from utils import check_array, check_number, check_Xy, compare, make_series, mse
from utils import progress, read_csv, report, run_chapter, save_plot

SUMS = "the same sums in another order, in float64"
STEPS = "rounding grows over AdamW steps, which divide by small numbers"
ALLOWED = {
    "recurrent": (1e-10, SUMS),
    "attention": (1e-10, SUMS),
    "GPT": (1e-8, STEPS),
    "cache": (1e-12, "the same numbers, kept in place of computed again"),
    "tokens": (0, "merges, ids and characters are equal or not"),
    "samples": (0, "one uniform number picks one token"),
    "autoregression": (1e-10, "two orthogonal factorisations of a well-conditioned design"),
    "folds": (0, "row numbers are whole numbers"),
    "forecaster": (1e-8, STEPS),
}


def check_shape(name, value, *shape):
    """value as finite floats of this shape, in which None stands for any length."""
    value = check_array(name, value, ndim=len(shape))
    if any(want not in (None, got) for want, got in zip(shape, value.shape)):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} must have shape ({wanted}), not {value.shape}")
    return value


def affine(x, W, b):
    """z = x W + b on the last axis of x, for all steps at once; back(dz) -> dx, dW, db."""
    flat = x.reshape(-1, len(W))
    z = flat @ W
    z += b

    def back(dz):
        """dx = dz Wᵀ, dW = Σ xᵀ dz, db = Σ dz, where Σ runs over all rows."""
        rows = dz.reshape(z.shape)
        return (rows @ W.T).reshape(x.shape), flat.T @ rows, rows.sum(axis=0)

    return z.reshape(*x.shape[:-1], -1), back


# %% [markdown]
"""
## Recurrent networks, and why they forget

**Question.** How can a network of fixed size read a sequence of any length?

**Idea.** Keep a state h. At every step mix the new input into it, with the same weights:

    hₜ = tanh(xₜ Wx + bx + hₜ₋₁ Wh + bh),   t = 1..T                                        (1)

**Backpropagation through time.** Let dₜ be what the loss says about hₜ as an output. But hₜ also
acts on everything later, by way of hₜ₊₁:

    gₜ = ∂L/∂hₜ = dₜ + (gₜ₊₁ ⊙ (1 - hₜ₊₁²)) Whᵀ,   g_T = d_T                                (2)
    dWh = Σ hₜ₋₁ᵀ aₜ,  dWx = Σ xₜᵀ aₜ,  dbx = dbh = Σ aₜ,   where aₜ = gₜ ⊙ (1 - hₜ²)       (3)

**When it fails.** Going back k steps multiplies by k slopes of tanh, at most 1 each, and k times
by Whᵀ. Let ρ (rho) be the spectral radius of Wh, its largest absolute eigenvalue. While slopes
are near 1, ‖gₜ₋ₖ‖ changes like ρᵏ. (4) Below 1 the gradient vanishes: step t learns nothing from
step t - k. Above 1 it explodes until tanh saturates; clipping its norm cures that, but nothing
cures the other. And mistakes hide: without the second term of (2), or with the slope at hₜ in
place of hₜ₊₁, a network still learns a little. Only a comparison shows that it is wrong.
"""

# %%
Recurrent = namedtuple("Recurrent", "Wx Wh bx bh")  # weights or gradients; k = 1, 4 or 3 gates


def init_recurrent(rng, inputs, width, gates=1):
    """Every number uniform within 1/√H of 0, the usual start: D = inputs, H = width."""
    shapes = (inputs, gates * width), (width, gates * width), gates * width, gates * width
    return Recurrent(*(rng.uniform(-1, 1, shape) / np.sqrt(width) for shape in shapes))


def check_recurrent(weights, x, *states):
    """x as (T, B, D) and the initial states h₀ (and c₀) as (B, H), to fit the weights."""
    x = check_shape("x", x, None, None, len(weights.Wx))
    shape = x.shape[1], len(weights.Wh)
    return x, *(check_shape(name, state, *shape) for name, state in zip(("h0", "c0"), states))


def recurrent_gradients(to_x, h0, h, dax, dah):
    """Equation (3): dax and dah (T, B, ..) belong to x Wx + bx, which has to_x, and h Wh + bh."""
    dx, dWx, dbx = to_x(dax.reshape(*h.shape[:2], -1))
    before, rows = np.concatenate([h0[None], h[:-1]]), dah.reshape(h.shape[0] * h.shape[1], -1)
    return dx, Recurrent(dWx, before.reshape(len(rows), -1).T @ rows, dbx, rows.sum(axis=0))


def rnn(weights, x, h0):
    """Equation (1), Elman (1990): x (T, B, D) -> h (T, B, H), of which h[-1] is the final state;
    back(dh) -> dx, dh0 and the weights' gradients."""
    x, h0 = check_recurrent(weights, x, h0)
    h, to_x = affine(x, weights.Wx, weights.bx + weights.bh)  # all inputs in one product
    before = h0
    for a in h:  # a is a view into h
        a += before @ weights.Wh
        before = np.tanh(a, out=a)

    def back(dh):
        """Equations (2), (3): dh (T, B, H) holds the dₜ. Werbos (1990)."""
        a, onward, slope = np.array(check_shape("dh", dh, *h.shape)), 0, 1 - h * h
        for t in range(len(h) - 1, -1, -1):
            a[t] += onward  # dₜ becomes gₜ, and gₜ becomes aₜ
            a[t] *= slope[t]
            onward = a[t] @ weights.Wh.T
        dx, gradients = recurrent_gradients(to_x, h0, h, a, a)
        return dx, onward, gradients

    return h, back


# %% [markdown]
"""
### Gates: the LSTM and the GRU

**Idea.** Do not rewrite the state, add to it. Gates between 0 and 1, computed from the input and
the last state, decide how much stays. With aₜ = xₜ Wx + bx + hₜ₋₁ Wh + bh cut into four parts,
the LSTM (long short-term memory) has two states, h and c:

    iₜ, fₜ, oₜ = σ(a_i), σ(a_f), σ(a_o)  and  nₜ = tanh(a_n)                                (5)
    cₜ = fₜ ⊙ cₜ₋₁ + iₜ ⊙ nₜ,   hₜ = oₜ ⊙ tanh(cₜ)                                          (6)
    dcₜ = dhₜ ⊙ oₜ ⊙ (1 - tanh²cₜ) + fₜ₊₁ ⊙ dcₜ₊₁                                           (7)

By (7) the cell is a road back on which only f stands, and no matrix. The GRU (gated recurrent
unit) has one state: reset r, update z, new value n; U, u are the parts of Wh, bh that feed n:

    rₜ, zₜ = σ(a_r), σ(a_z),   nₜ = tanh(xₜ Wₙ + bₙ + rₜ ⊙ (hₜ₋₁ U + u))                    (8)
    hₜ = (1 - zₜ) ⊙ nₜ + zₜ ⊙ hₜ₋₁                                                          (9)

**Traps.** The slope of s = σ(a) is s(1 - s): of s itself, not of σ(s). And r ⊙ (hU + u), as here
and in torch, is another model than (r ⊙ h)U + u.

**When it fails.** Gates alone do not remember: f = 0.5 leaves 0.000001 after 20 steps. They must
start open: set the bias of f (in a GRU, of z) to 1 or more.
"""


# %%
def squash(a, scale):
    """In place: σ where scale is 1/2, tanh where it is 1, as σ(a) = 1/2 + tanh(a/2) / 2."""
    a *= scale
    np.tanh(a, out=a)
    a *= scale
    a += 1 - scale


def lstm(weights, x, h0, c0):
    """Equations (5), (6): x (T, B, D) -> h and c (T, B, H); back(dh, dc of the final c) -> dx,
    dh0, dc0 and the weights' gradients. Hochreiter and Schmidhuber (1997), Gers et al. (2000)."""
    x, h0, c0 = check_recurrent(weights, x, h0, c0)
    gates, to_x = affine(x, weights.Wx, weights.bx + weights.bh)
    H, (h, c) = len(weights.Wh), np.empty((2, *x.shape[:2], len(weights.Wh)))
    h_before, c_before, scale = h0, c0, np.repeat([0.5, 0.5, 1, 0.5], H)  # n alone is a tanh
    for t, a in enumerate(gates):
        a += h_before @ weights.Wh
        squash(a, scale)
        i, f, n, o = a[:, :H], a[:, H : 2 * H], a[:, 2 * H : 3 * H], a[:, 3 * H :]
        c_before = c[t] = f * c_before + i * n
        h_before = h[t] = o * np.tanh(c_before)

    def back(dh, dc=None):
        """Equation (7), and the chain rule through (6) and (5)."""
        dh, tanh_c = check_shape("dh", dh, *h.shape), np.tanh(c)
        dc = np.zeros_like(c0) if dc is None else check_shape("dc", dc, *c0.shape)
        y = gates.reshape(*h.shape[:2], 4, H)
        i, f, n, o = np.moveaxis(y, 2, 0)  # (T, B, H) each
        da = y * (1 - y)  # slopes, then times what each gate multiplies in (6)
        da[:, :, 2] = 1 - n * n
        da *= np.stack([n, np.concatenate([c0[None], c[:-1]]), i, tanh_c], axis=2)
        to_c, onward = o * (1 - tanh_c * tanh_c), 0
        for t in range(len(h) - 1, -1, -1):
            dh_t = dh[t] + onward
            dc = dc + dh_t * to_c[t]  # equation (7)
            da[t, :, :3] *= dc[:, None]
            da[t, :, 3] *= dh_t
            dc, onward = dc * f[t], da[t].reshape(len(h0), -1) @ weights.Wh.T
        dx, gradients = recurrent_gradients(to_x, h0, h, da, da)
        return dx, onward, dc, gradients

    return h, c, back


def gru(weights, x, h0):
    """Equations (8), (9): x (T, B, D) -> h (T, B, H); back(dh) -> dx, dh0 and the weights'
    gradients. Cho et al. (2014), with r after the product as in cuDNN."""
    x, h0 = check_recurrent(weights, x, h0)
    gates, to_x = affine(x, weights.Wx, weights.bx)
    H, (h, inner) = len(weights.Wh), np.empty((2, *x.shape[:2], len(weights.Wh)))
    before = h0
    for t, a in enumerate(gates):
        u = before @ weights.Wh + weights.bh
        a[:, : 2 * H] += u[:, : 2 * H]
        squash(a[:, : 2 * H], 0.5)
        r, z, n, inner[t] = a[:, :H], a[:, H : 2 * H], a[:, 2 * H :], u[:, 2 * H :]
        n += r * inner[t]
        np.tanh(n, out=n)
        before = h[t] = n + z * (before - n)

    def back(dh):
        """The chain rule through (9) and (8)."""
        g, onward = np.array(check_shape("dh", dh, *h.shape)), 0
        r, z, n = np.moveaxis(gates.reshape(*h.shape[:2], 3, H), 2, 0)
        to_n = (1 - z) * (1 - n * n)  # the slope of h by a_n, then by a_z, then by all three
        to_z = (np.concatenate([h0[None], h[:-1]]) - n) * z * (1 - z)
        dax = np.stack([to_n * inner * r * (1 - r), to_z, to_n], axis=2)
        dah = np.stack([dax[:, :, 0], to_z, to_n * r], axis=2)  # n lies behind the reset gate
        for t in range(len(h) - 1, -1, -1):
            g[t] += onward  # all of dL/dh at step t
            dah[t] *= g[t][:, None]
            onward = g[t] * z[t] + dah[t].reshape(len(h0), -1) @ weights.Wh.T
        dx, gradients = recurrent_gradients(to_x, h0, h, dax * g[:, :, None], dah)
        return dx, onward, gradients

    return h, back


# %% [markdown]
"""
### The library version

torch keeps the transposed matrices, as `weight_ih` (kH, D) and `weight_hh` (kH, H), our biases as
`bias_ih` and `bias_hh`, and gates in our order: i, f, g, o (its g is our n) and r, z, n. States
start at 0 unless given. All of our mirrors compute in float64.

Try: make the sequences 200 steps long. Which of the rows still pass a gradient on?
"""


# %%
def torch_copy(module, arrays):
    """The torch module in float64, its parameters set to copies of our arrays, transposed."""
    import torch

    module = module.double()
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), arrays, strict=True):
            parameter.copy_(torch.tensor(array.T))
    return module


def torch_recurrent(kind, weights):
    """torch.nn.RNN, LSTM or GRU (kind is its name) with copies of our weights."""
    import torch

    return torch_copy(getattr(torch.nn, kind)(len(weights.Wx), len(weights.Wh)), weights)


def torch_gradients(run, inputs, upstream, module=None):
    """The outputs of run(*inputs), then the gradients of L = Σ upstream ⊙ outputs at every
    input and at every parameter of the module, transposed to our shapes."""
    import torch

    inputs = [torch.tensor(np.asarray(a, float), requires_grad=True) for a in inputs]
    outputs, parameters = run(*inputs), module.parameters() if module else []
    sum((o * torch.tensor(d)).sum() for o, d in zip(outputs, upstream)).backward()
    ours = *outputs, *(a.grad for a in inputs), *(p.grad.t() for p in parameters)
    return [a.detach().numpy() for a in ours]


def compare_all(row, title, names, ours, theirs):
    """One comparison for each of the names."""
    together = zip(names.split(), ours, theirs, strict=True)
    return [compare(f"{title} {name}", a, b, *ALLOWED[row]) for name, a, b in together]


def demo_recurrent(plot=False):
    """How fast the gradient shrinks or grows on its way back: equation (4), and gates."""
    print("\n== How far back does the gradient reach? ==\n")
    rng, zero, dh, models = np.random.default_rng(0), np.zeros((4, 32)), np.zeros((60, 4, 32)), {}
    x, dh[-1] = rng.normal(size=(60, 4, 3)), rng.normal(size=(4, 32))  # L: the final state alone
    start = {kind: init_recurrent(rng, 3, 32, k) for kind, k in [("RNN", 1), ("LSTM", 4), ("GRU", 3)]}
    for radius in [0.5, 0.9, 1.0, 1.1, 1.5]:
        Wh = start["RNN"].Wh * radius / np.abs(np.linalg.eigvals(start["RNN"].Wh)).max()
        models[f"RNN, radius {radius}"] = rnn, Recurrent(start["RNN"].Wx, Wh, zero[0], zero[0])
    for kind, layer in [("LSTM", lstm), ("GRU", gru)]:
        for bias in [0, 2, 4]:  # of the second gate: f in the LSTM, z in the GRU
            bx = np.where(np.arange(len(start[kind].bx)) // 32 == 1, bias, start[kind].bx)
            models[f"{kind}, gate bias {bias}"] = layer, start[kind]._replace(bx=bx)
    print("                        share of |dL/dx| that is left     factor per step, inputs")
    print("                        after 59, 39, 19 steps back       all 0     normal")
    shares, comparisons = {}, []
    for name, (layer, weights) in models.items():
        states, factors = [zero] * (1 + (layer is lstm)), []
        for inputs in [0 * x, x]:  # all 0 leaves the RNN at h = 0, where the slope of tanh is 1
            norm = np.linalg.norm(layer(weights, inputs, *states)[-1](dh)[0], axis=(1, 2))
            factors.append((norm[10] / norm[40]) ** (1 / 30))
        shares[name] = norm / norm[-1]
        left = "  ".join(f"{share:7.0e}" for share in shares[name][[0, 20, 40]])
        print(f"  {name:20}  {left}      {factors[0]:8.2f} {factors[1]:10.2f}")
    for layer, weights in [models[name] for name in ("RNN, radius 1.1", "LSTM, gate bias 2", "GRU, gate bias 2")]:
        kind, dh = layer.__name__.upper(), rng.normal(size=dh.shape)
        module = torch_recurrent(kind, weights)
        theirs = torch_gradients(lambda x: module(x)[:1], [x], [dh], module)
        h, *_, back = layer(weights, x, *[zero] * (1 + (kind == "LSTM")))
        dx, *_, gradients = back(dh)
        comparisons += compare_all("recurrent", kind, "h dx dWx dWh dbx dbh", [h, dx, *gradients], theirs)

    def _draw(ax):
        for name, share in shares.items():
            ax.semilogy(np.arange(59, -1, -1), share, "--" if "RNN" in name else "-", label=name)
        ax.set(xlabel="steps before the end", ylabel="|dL/dx|, as a share of the last step's")
        ax.legend(fontsize="small")

    if plot:
        save_plot("sequence_models_recurrent.png", _draw)
    return report(comparisons)


# %% [markdown]
"""
## Attention

**Question.** Why carry everything through one state? Let every step look back itself.

**Idea.** Each step asks with a query, offers a key and holds a value, all of them rows. The better
a query fits a key, the more of that step's value it reads. With d columns in Q and K,

    S = Q Kᵀ/√d,   P = softmax of each row of S,   O = P V                                 (10)

The product of two random rows has standard deviation √d. Divided by it, the softmax stays away
from 0 and 1, where its gradient dies. To predict the next step, no step may see later ones: the
causal mask sets Sₜₛ = -∞ where s > t. Backwards,

    dV = Pᵀ dO,   dS = P ⊙ (dO Vᵀ - rowsum(dO ⊙ O)),   dQ = dS K/√d,   dK = dSᵀ Q/√d       (11)

The row sum is there because a row of P sums to 1: what one key gains, the others lose.

**Heads.** One softmax finds one thing. Multi-head attention cuts the E columns of Q, K and V into
heads of E/heads, lets each attend alone, and mixes: [O₁ .. O_heads] W_out + b_out.

**When it fails.** P costs T² numbers. Without positions, order means nothing. A mask that is off
by one shows each step its own answer, and the loss looks wonderful. A row with all masked has no
softmax: here, as in torch's `scaled_dot_product_attention`, it reads 0.
"""


# %%
def causal_mask(steps):
    """(T, T): True where query t (row) may look at key s (column), that is s ≤ t."""
    return np.tri(check_number("steps", steps, least=1, integer=True), dtype=bool)


def softmax(s):
    """Weights along the last axis that sum to 1; nothing but zeros where all s are -inf."""
    e = s - s.max(axis=-1, keepdims=True, initial=-1e300)
    np.exp(e, out=e)
    e /= np.maximum(e.sum(axis=-1, keepdims=True), 1)  # the largest e is 1, so the sum is, too
    return e


def attention(q, k, v, mask=None):
    """Equation (10), Vaswani et al. (2017): q (.., T, d), k (.., S, d), v (.., S, e) and mask
    (T, S), True where a query may look -> O (.., T, e), P (.., T, S); back(dO) -> dQ, dK, dV."""
    q, k, v = (check_array(name, a, max(np.ndim(a), 2)) for name, a in zip("qkv", (q, k, v)))
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(f"q, k, v must be (T, d), (S, d), (S, e), not {q.shape, k.shape, v.shape}")
    s, root = q @ k.swapaxes(-1, -2), np.sqrt(q.shape[-1])
    s /= root
    if mask is not None:
        if np.shape(mask) != s.shape[-2:] or np.asarray(mask).dtype != bool:
            raise ValueError(f"mask must hold True and False in shape {s.shape[-2:]}, (T, S)")
        np.copyto(s, -np.inf, where=np.logical_not(mask))
    p = softmax(s)
    o = p @ v

    def back(do):
        """Equation (11). What is masked has p = 0 and so no gradient."""
        ds = do @ v.swapaxes(-1, -2)
        ds -= (do * o).sum(axis=-1, keepdims=True)
        ds *= p
        ds /= root
        return ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ do

    return o, p, back


Heads = namedtuple("Heads", "W_in b_in W_out b_out")  # (E, 3E), (3E,), (E, E), (E,)


def split_heads(z, parts, heads):
    """(B, T, parts E) -> (parts, B, heads, T, E / heads)."""
    return z.reshape(*z.shape[:2], parts, heads, -1).transpose(2, 0, 3, 1, 4)


def merge_heads(z):
    """The way back: (parts, B, heads, T, E / heads) -> (B, T, parts E)."""
    return z.transpose(1, 3, 0, 2, 4).reshape(z.shape[1], z.shape[3], -1)


def multi_head(weights, x, heads, mask=None, past=None):
    """x (B, T, E) -> y (B, T, E), and (K, V) of all steps; back(dy) -> dx and the gradients as
    Heads. past: (K, V) of earlier steps, which come before those of x."""
    x = check_shape("x", x, None, None, len(weights.W_out))
    if x.shape[2] % check_number("heads", heads, least=1, integer=True):
        raise ValueError(f"heads must divide the width {x.shape[2]}, not be {heads}")
    qkv, to_x = affine(x, weights.W_in, weights.b_in)
    q, k, v = split_heads(qkv, 3, heads)
    if past is not None:
        k, v = (np.concatenate(pair, axis=2) for pair in zip(past, (k, v)))
    o, _, to_qkv = attention(q, k, v, mask)
    y, to_o = affine(merge_heads(o[None]), weights.W_out, weights.b_out)

    def back(dy):
        """Through W_out, the heads, and W_in."""
        do, dW_out, db_out = to_o(dy)
        dqkv = to_qkv(split_heads(do, 1, heads)[0])
        dx, dW_in, db_in = to_x(merge_heads(np.stack(dqkv)))
        return dx, Heads(dW_in, db_in, dW_out, db_out)

    return y, (k, v), back


# %% [markdown]
"""
### The library version

`scaled_dot_product_attention` takes our mask as it is. nn.MultiheadAttention takes the opposite,
True where looking is forbidden, and gives NaN for a row with all forbidden.

Try: make the query 6 * onehot sharper (20), then 0. What does 0 compute?
"""


# %%
def torch_attention(q, k, v, mask, do):
    """O of torch's scaled_dot_product_attention, and dQ, dK, dV of L = Σ do ⊙ O."""
    import torch

    run, mask = torch.nn.functional.scaled_dot_product_attention, None if mask is None else torch.tensor(mask)
    return torch_gradients(lambda *qkv: [run(*qkv, mask)], [q, k, v], [do])


def torch_multi_head(weights, heads):
    """torch.nn.MultiheadAttention with copies of our weights."""
    import torch

    width = len(weights.W_out)
    return torch_copy(torch.nn.MultiheadAttention(width, heads, batch_first=True), weights)


def demo_attention(plot=False):
    """Every letter looks for letters like itself: the weights P as a table."""
    import torch

    print("\n== Which letters does each letter look at? ==\n")
    text, rng, causal = "abcabdab", np.random.default_rng(0), causal_mask(8)
    onehot = np.eye(4)[["abcd".index(letter) for letter in text]]  # equal letters, equal keys
    p = attention(6 * onehot, onehot, onehot, causal)[1]
    print("       " + "    ".join(text) + "   <- key")
    for letter, row in zip(text, p):
        print(f"  {letter} " + " ".join(f"{share:4.0%}" if share else "   ." for share in row))
    (q, k, v, do), (x, dy) = rng.normal(size=(4, 2, 3, 8, 4)), rng.normal(size=(2, 2, 8, 12))
    comparisons = []
    for title, mask in [("no mask:", None), ("causal:", causal)]:
        o, _, back = attention(q, k, v, mask)
        theirs = torch_attention(q, k, v, mask, do)
        comparisons += compare_all("attention", title, "O dQ dK dV", [o, *back(do)], theirs)
    weights = Heads(*(rng.normal(size=shape) / 3 for shape in [(12, 36), 36, (12, 12), 12]))
    module, (y, _, back) = torch_multi_head(weights, 3), multi_head(weights, x, 3, causal)
    (dx, gradients), hidden = back(dy), torch.tensor(~causal)
    theirs = torch_gradients(lambda x: module(x, x, x, attn_mask=hidden)[:1], [x], [dy], module)
    names, ours = "y dx dW_in db_in dW_out db_out", [y, dx, *gradients]
    comparisons += compare_all("attention", "3 heads:", names, ours, theirs)

    def _draw(ax):
        ax.imshow(p, cmap="Blues")
        ax.set(xlabel="key: is looked at", ylabel="query: looks", title="Attention weights P")
        ax.set_xticks(range(8), text)
        ax.set_yticks(range(8), text)

    if plot:
        save_plot("sequence_models_attention.png", _draw)
    return report(comparisons)


# %% [markdown]
"""
## A tiny GPT that writes

**Question.** How do layers of attention become a model that writes?

**Idea.** A token becomes a row of a table plus a row for its position. Blocks then add corrections
to that stream x. Each reads a normalised copy of it (pre-norm), so the gradient keeps a straight
road back. The table of tokens also reads the result (weight tying). The loss L is the mean
surprise at the next token; thanks to the mask all B T predictions are made at once:

    x = tokens[id] + positions[t]                                                          (12)
    x ← x + MultiHead(LayerNorm(x)),   x ← x + GELU(LayerNorm(x) W_up) W_down              (13)
    logits = LayerNorm(x) tokensᵀ,   L = -1/(BT) Σ log softmax(logits)[next id]            (14)

The table gets two gradients, from (12) and from (14), and needs their sum.

**Writing** appends one token at a time, drawn from softmax(logits / temperature): 1 is what the
model believes, 0 takes the likeliest, top-k cuts off the unlikely. No old step sees the new one,
so keys and values of old steps stay. A cache keeps them: a token then costs one row, not T.

**Perplexity** is exp(L): between how many tokens the model hesitates, on average. It means nothing
without a baseline, such as counts of letters (unigram) or of pairs of letters (bigram).

**When it fails.** Positions end at the context C. Beyond it the window must move, every position
in it changes, and with them all keys and values: the cache is built anew.
"""

# %%
Block = namedtuple("Block", "W_in b_in W_out b_out W_up b_up W_down b_down gain1 bias1 gain2 bias2")
# The tables (V, E) and (C, E); the weights of all blocks stacked, W_in as (layers, E, 3E)
GPT = namedtuple("GPT", ["tokens", "positions", *Block._fields, "gain", "bias"])
HEAD = 8  # columns of a head in the GPT, which thus has E / 8 heads


def init_gpt(rng, vocab, context, width=32, layers=2):
    """Matrices normal with standard deviation 0.08, biases 0, gains 1; GELU on 4E columns."""
    E, F, stacked = width, 4 * width, []
    for rows, columns in [(E, 3 * E), (E, E), (E, F), (F, E)]:
        stacked += [0.08 * rng.normal(size=(layers, rows, columns)), np.zeros((layers, columns))]
    tables = (0.08 * rng.normal(size=(rows, E)) for rows in (vocab, context))
    gain, bias = np.ones((layers, E)), np.zeros((layers, E))
    return GPT(*tables, *stacked, gain, bias, gain, bias, gain[0], bias[0])


def blocks_of(model):
    """The blocks of a GPT one by one: views into the stacked arrays."""
    return [Block(*arrays) for arrays in zip(*model[2:-2])]


def layer_norm(x, gain, bias):  # explained in neural_networks.py
    """Each row to mean 0 and variance 1, then scaled and shifted."""
    x = x - x.mean(axis=-1, keepdims=True)
    inverse = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
    x *= inverse

    def back(dy):
        """dx, dgain, dbias. The mean and the variance depend on x too."""
        g = dy * gain
        g -= g.mean(axis=-1, keepdims=True) + x * (g * x).mean(axis=-1, keepdims=True)
        return g * inverse, (dy * x).sum(axis=(0, 1)), dy.sum(axis=(0, 1))

    return x * gain + bias, back


def gelu(x):  # explained in neural_networks.py
    """x p, where p is about the chance that a normal number is below x (the tanh form of GPT-2),
    and the slope of x p."""
    root, square = np.sqrt(2 / np.pi), x * x
    p = 0.5 + 0.5 * np.tanh(x * (root + 0.044715 * root * square))
    return x * p, p + 2 * x * p * (1 - p) * (root + 0.134145 * root * square)


def gpt_block(block, x, mask=None, past=None):
    """Equation (13): x (B, T, E) -> (B, T, E), and (K, V); back(dx) -> dx and a Block."""
    read1, to_x1 = layer_norm(x, block.gain1, block.bias1)
    seen, kv, to_read1 = multi_head(block, read1, x.shape[2] // HEAD, mask, past)
    x = x + seen
    read2, to_x2 = layer_norm(x, block.gain2, block.bias2)
    up, to_read2 = affine(read2, block.W_up, block.b_up)
    active, slope = gelu(up)
    down, to_active = affine(active, block.W_down, block.b_down)

    def back(dx):
        """A sum in (13) passes the gradient on to both of its terms."""
        dactive, *dW_down = to_active(dx)
        dread2, *dW_up = to_read2(dactive * slope)
        dx2, *dnorm2 = to_x2(dread2)
        dx = dx + dx2
        dread1, dheads = to_read1(dx)
        dx1, *dnorm1 = to_x1(dread1)
        return dx + dx1, Block(*dheads, *dW_up, *dW_down, *dnorm1, *dnorm2)

    return x + down, kv, back


def check_tokens(name, ids, vocab, ndim):
    """Token ids as an array of integers, each from 0 to vocab - 1."""
    ids = check_array(name, ids, ndim)
    bad = ids[(ids % 1 != 0) | (ids < 0) | (ids >= vocab)]
    if len(bad):
        raise ValueError(f"{name} must hold whole numbers from 0 to {vocab - 1}, not {bad[0]:g}")
    return ids.astype(int)


def gpt(model, tokens, past=None):
    """Equations (12) to (14): tokens (B, T) -> logits (B, T, V) and (K, V) of each block;
    back(dlogits) -> a GPT of gradients. past: (K, V) of each block for the steps before."""
    tokens = check_tokens("tokens", tokens, len(model.tokens), ndim=2)
    before, blocks = past[0][0].shape[2] if past else 0, blocks_of(model)
    end, context = before + tokens.shape[1], len(model.positions)
    if end > context:
        raise ValueError(f"tokens must fit into the context of {context} steps, not be {end}")
    x, mask = model.tokens[tokens] + model.positions[before:end], causal_mask(end)[before:]
    kvs, backs = [], []
    for block, kv in zip(blocks, past or [None] * len(blocks)):
        x, kv, to_block = gpt_block(block, x, mask, kv)
        kvs.append(kv)
        backs.append(to_block)
    x, to_x = layer_norm(x, model.gain, model.bias)
    logits, to_read = affine(x, model.tokens.T, 0)

    def back(dlogits):
        """Through the blocks from the last to the first."""
        dx, dread, _ = to_read(dlogits)
        dx, *dnorm = to_x(dx)
        dblocks = []
        for to_block in reversed(backs):
            dx, dblock = to_block(dx)
            dblocks.insert(0, dblock)
        onehot = np.eye(len(model.tokens))[tokens.ravel()]  # (BT, V): adds rows up by token
        dtokens = dread.T + onehot.T @ dx.reshape(len(onehot), -1)  # as reader, and as input
        dpositions = np.zeros_like(model.positions)
        dpositions[:end] = dx.sum(axis=0)
        return GPT(dtokens, dpositions, *map(np.stack, zip(*dblocks)), *dnorm)

    return logits, kvs, back


def cross_entropy(logits, targets):
    """Equation (14): L, and its gradient dlogits = (softmax - onehot of the target)/(BT)."""
    z = logits.reshape(targets.size, -1)
    z, hit = z - z.max(axis=1, keepdims=True), (np.arange(targets.size), targets.ravel())
    e = np.exp(z)
    total = e.sum(axis=1, keepdims=True)
    loss, e = np.mean(np.log(total[:, 0]) - z[hit]), e / total
    e[hit] -= 1
    return loss, e.reshape(logits.shape) / targets.size


def gpt_gradients(model, tokens, targets):
    """The loss of predicting targets (B, T) from tokens (B, T), and a GPT of gradients."""
    logits, _, back = gpt(model, tokens)
    targets = check_tokens("targets", targets, len(model.tokens), ndim=2)
    loss, dlogits = cross_entropy(logits, targets)
    return loss, back(dlogits)


def train(model, gradient, batches, lr=0.01, decay=0.01):  # AdamW, explained in optimization.py
    """gradient(model, *batch) -> the loss and its gradients, a tuple of arrays as model is.

    Returns the trained model, and the loss before every step."""
    flat, cuts = np.concatenate([a.ravel() for a in model]), np.cumsum([a.size for a in model])
    views = (part.reshape(a.shape) for part, a in zip(np.split(flat, cuts), model))
    model, losses, m, v = type(model)(*views), [], 0, 0  # views of flat: one update serves all
    for t, batch in enumerate(batches, start=1):
        loss, gradients = gradient(model, *batch)
        g = np.concatenate([a.ravel() for a in gradients])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g  # running means from 0 of g and g²
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        flat -= lr * (step + decay * flat)
        losses.append(loss)
    return model, losses


def pick_token(logits, u, temperature=1.0, top_k=None):
    """One token, drawn from softmax(logits (V,) / temperature) by a uniform number 0 < u ≤ 1.

    Temperature 0 takes the likeliest. top_k keeps the k largest logits, ties included."""
    logits, _ = check_array("logits", logits, 1), check_number("u", u, above=0, most=1)
    if top_k is not None:
        check_number("top_k", top_k, least=1, most=len(logits), integer=True)
        logits = np.where(logits >= np.sort(logits)[-top_k], logits, -np.inf)
    if check_number("temperature", temperature, least=0) == 0:
        return int(np.argmax(logits))
    total = np.cumsum(softmax((logits - logits.max()) / temperature))
    return int(np.searchsorted(total, u * total[-1]))  # the first whose total reaches u


def generate(model, prompt, uniforms, temperature=1.0, top_k=None, cached=True):
    """The prompt (n,) and one more token for each of the uniforms, as a list.

    cached=False computes all keys and values again for every token: the same, but slower."""
    ids, C = check_tokens("prompt", prompt, len(model.tokens), 1).tolist(), len(model.positions)
    begin, past = max(0, len(ids) - C), None
    for u in uniforms:
        if len(ids) - begin > C:  # the window is full: go on with its second half
            begin, past = len(ids) - (C + 1) // 2, None
        logits, kvs, _ = gpt(model, [ids[-1:] if past else ids[begin:]], past)
        past = kvs if cached else None
        ids.append(pick_token(logits[0, -1], u, temperature, top_k))
    return ids


def ngram_perplexity(train, test, vocab, n):
    """Perplexity on test (m,) of counts, plus 1, of all n = 1 or 2 neighbours in train."""
    counts, grams = np.ones((vocab,) * n), [tuple(sliding_window_view(a, n).T) for a in (train, test)]
    np.add.at(counts, grams[0], 1)
    return np.exp(-np.log((counts / counts.sum(axis=-1, keepdims=True))[grams[1]]).mean())


def gpt_perplexity(model, test):
    """exp(L) over test (m,), read in windows as long as the context."""
    windows = sliding_window_view(test, len(model.positions) + 1)[:: len(model.positions)]
    return np.exp(cross_entropy(gpt(model, windows[:, :-1])[0], windows[:, 1:])[0])


# %% [markdown]
"""
### The library version

Our block is nn.TransformerEncoderLayer with `norm_first=True` and a causal mask (torch's decoder
layer has a second attention, to another text). Its GELU is exact unless told otherwise. Positions
and weight tying are ours to add.

Try: let causal_mask be all True. The loss falls below the best possible. What does it write?
"""


# %%
def torch_gpt(model):
    """A list of three torch.nn modules with copies of our weights: tables and encoder."""
    from torch import nn

    (V, E), C, blocks = model.tokens.shape, len(model.positions), blocks_of(model)
    layer = nn.TransformerEncoderLayer(
        E, E // HEAD, 4 * E, 0.0, nn.GELU("tanh"), batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, len(blocks), nn.LayerNorm(E), enable_nested_tensor=False)
    tables = model.tokens.T, model.positions.T  # torch_copy transposes; embeddings are as ours
    arrays = [*tables, *(array for block in blocks for array in block), model.gain, model.bias]
    return torch_copy(nn.ModuleList([nn.Embedding(V, E), nn.Embedding(C, E), encoder]), arrays)


def torch_gpt_loss(module, tokens, targets):
    """Equation (14) by torch."""
    import torch

    (table, positions, encoder), T = module, tokens.shape[1]
    x, hidden = table(torch.tensor(tokens)) + positions.weight[:T], torch.ones(T, T).triu(1) > 0
    logits = encoder(x, mask=hidden, is_causal=True) @ table.weight.T
    return torch.nn.functional.cross_entropy(logits.mT, torch.tensor(targets))


def torch_train(module, loss_of, batches, lr=0.01):
    """As train, by torch.optim.AdamW. Changes the module, and returns the losses."""
    import torch

    optimizer, losses = torch.optim.AdamW(module.parameters(), lr=lr), []
    for batch in batches:
        loss = loss_of(module, *batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def torch_pick_token(logits, u, temperature=1.0, top_k=None):
    """As pick_token, in torch's idiom."""
    import torch

    logits = torch.tensor(logits) / temperature
    least = logits.topk(top_k or len(logits)).values[-1]
    total = logits.masked_fill(logits < least, -torch.inf).softmax(-1).cumsum(-1)
    return int(torch.searchsorted(total, u * total[-1]))


def make_text(rng, lines):
    """Lines like "ann lost her kite. she wants it back." and the nats of choice in them: name
    and thing are drawn at random; the rest follows, if the model looks back far enough."""
    names = "ann lost her {}. she", "ben lost his {}. he", "cleo lost her {}. she"
    things = "kite it", "book it", "drum it", "boots them", "keys them", "cards them"
    text = ""
    for name, thing in zip(rng.integers(3, size=lines), rng.integers(6, size=lines)):
        noun, pronoun = things[thing].split()
        text += names[name].format(noun) + f" wants {pronoun} back.\n"
    return text, lines * np.log(3 * 6)


def demo_gpt(plot=False):
    """Train on the letters of made-up lines: perplexity, samples, and torch beside it."""
    print("\n== Can a tiny GPT learn to spell, and to look back? ==\n")
    rng = np.random.default_rng(0)
    (text, _), (fresh, nats) = make_text(rng, 500), make_text(rng, 100)
    letters = sorted(set(text))
    ids, test = (np.array([letters.index(c) for c in t]) for t in (text, fresh))
    start, V = init_gpt(rng, len(letters), context=32), len(letters)
    windows = sliding_window_view(ids, 33)[rng.integers(len(ids) - 32, size=(200, 16))]
    batches = [(rows[:, :-1], rows[:, 1:]) for rows in windows]
    progress("training a tiny GPT, 200 steps")
    model, losses = train(start, gpt_gradients, batches)
    print("  perplexity on fresh lines: between how many letters it hesitates")
    for name, value in [
        ("counts of letters", ngram_perplexity(ids, test, V, 1)),
        ("counts of pairs", ngram_perplexity(ids, test, V, 2)),
        ("GPT, untrained", gpt_perplexity(start, test)),
        ("GPT, 200 steps", gpt_perplexity(model, test)),
        ("best possible", np.exp(nats / len(test))),
    ]:
        print(f"  {name:18} {value:6.2f}  {'#' * round(2 * value)}")
    prompt, u, comparisons = [letters.index("\n")], 1 - rng.random(70), []
    (logits, kvs, _), (full, _, _) = gpt(model, [test[:20]]), gpt(model, [test[:21]])
    for temperature, k in [(0, None), (0.7, None), (2, None), (2, 3)]:
        out = generate(model, prompt, u, temperature, k)
        again = generate(model, prompt, u, temperature, k, cached=False)
        written = "".join(letters[i] for i in out).replace("\n", " / ")
        print(f"  temperature {temperature:3}, top {k or V:2}: {written}")
        comparisons.append(compare(f"cached = not, at {temperature}, {k}", out, again, *ALLOWED["cache"]))
    for k in [None, 3]:
        ours, theirs = ([pick(z, number, 0.7, k) for z, number in zip(logits[0], u)]
                        for pick in (pick_token, torch_pick_token))
        comparisons.append(compare(f"samples, top {k}", ours, theirs, *ALLOWED["samples"]))
    step = gpt(model, [test[20:21]], kvs)[0][0, 0]
    comparisons.append(compare("logits by the cache", step, full[0, -1], *ALLOWED["cache"]))
    theirs = torch_train(torch_gpt(start), torch_gpt_loss, batches[:20])
    return report([*comparisons, compare("losses, 20 steps", losses[:20], theirs, *ALLOWED["GPT"])])


# %% [markdown]
"""
## Tokens: byte-pair encoding

**Question.** Which pieces of text should a model read? Letters make long sequences; words make an
endless vocabulary, and a new word is still unknown.

**Idea.** Start from the 256 bytes of UTF-8, so that any text can be written. Cut the text into
words. Then, again and again, make the most frequent pair of neighbours inside words a token:

    (a, b) = argmax over pairs of Σ over words, count(word) · times a b stands in it       (15)

Ties go to the smaller pair of ids. A new text is encoded by the same merges, the earliest first.
Common words become one token, rare ones a few; decoding joins the bytes, and nothing is lost.

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
        if out and (out[-1], i) == pair:
            out[-1] = token
        else:
            out.append(i)
    return out


def train_bpe(text, vocab):
    """Equation (15) until there are vocab tokens, or no pairs. Sennrich et al. (2016)."""
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
        a, b = pair = min(counts, key=lambda pair: (-counts[pair], pair))
        bpe.merges[pair] = token = len(bpe.tokens)
        bpe.tokens.append(bpe.tokens[a] + bpe.tokens[b])
        words = [(merge_pair(ids, pair, token), n) for ids, n in words]
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
    ids = check_tokens("ids", ids, len(bpe.tokens), ndim=1) if len(ids) else []
    return b"".join(bpe.tokens[i] for i in ids).decode(errors="replace")


# %% [markdown]
"""
### The library version

`tokenizers` is written in Rust. It writes each byte as a printable letter and sorts by these,
hence our BYTES. Its pre-tokeniser is told our PIECE.

Try: train 2000 tokens in place of 500. How much shorter does the unseen text become?
"""


# %%
def tokenizers_bpe(text, vocab):
    """tokenizers.Tokenizer, trained on the same pieces of the same text."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer, level = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel
    pieces = pre_tokenizers.Split(Regex(PIECE.pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, level(False, use_regex=False)])
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=vocab, initial_alphabet=level.alphabet(), show_progress=False))
    return tokenizer


def demo_bpe(plot=False):
    """Learn tokens from real text: scikit-learn's description of its breast cancer data."""
    from sklearn.datasets import load_breast_cancer, load_diabetes

    print("\n== Which pieces is English made of? ==\n")
    text, unseen = load_breast_cancer().DESCR, load_diabetes().DESCR
    bpe, library = train_bpe(text, 500), tokenizers_bpe(text, 500)
    print("  the longest tokens:", *(repr(t.decode()) for t in sorted(bpe.tokens, key=len)[:-8:-1]))
    comparisons = []
    for name, sample in [("its own text", text), ("unseen", unseen), ("Greek", "μῆνιν ἄειδε θεά")]:
        ids, theirs = encode(bpe, sample), library.encode(sample).ids
        print(f"  {name:13} {len(sample.encode()):5} bytes -> {len(ids):5} tokens")
        comparisons.append(compare(f"ids, {name}", ids, theirs, *ALLOWED["tokens"]))
        same = decode(bpe, ids) == sample
        comparisons.append(compare(f"decoded, {name}", same, True, *ALLOWED["tokens"]))
    return report(comparisons)


# %% [markdown]
"""
## Forecasting, and how not to be fooled

**Question.** What will the next value of a series be, and is the model better than no model?

**Idea.** Turn the series y into a table: a row is a window of p values, its target the value
`ahead` steps after the window. A linear model of these rows is an autoregression:

    ŷₜ₊₁ = b + w₁ yₜ₋ₚ₊₁ + .. + wₚ yₜ,   minimise Σ (yₜ₊₁ - ŷₜ₊₁)² over w and b            (16)

An RNN may read the same window a value at a time. Both must beat forecasts that cost nothing:
naive, the last value, and seasonal naive, the value one season ago.

**Split by time.** Train on the past, test on the future. A random split puts the neighbours of
each test window, which share all values but one, into the training part, where a model looks them
up. So a random walk, which nobody can forecast, seems easy. Each of our folds trains on what came
before it, less a gap as long as the targets look ahead.

**When it fails.** A change that the training part never saw is unknown to every model. On short or
wild series the baselines win often. Then use the baseline.
"""


# %%
def make_windows(series, p, ahead=1):
    """X (n, p), all windows of p neighbours, and y (n,), the value `ahead` steps after each."""
    series = check_array("series", series, 1)
    most = len(series) - check_number("ahead", ahead, least=1, integer=True)
    check_number("p (the window)", p, least=1, most=most, integer=True)
    return sliding_window_view(series[:most], p), series[p + ahead - 1 :]


def time_folds(n, k, gap=0):
    """k pairs (train, test): the last k blocks of n // (k + 1) rows, and what came before."""
    size = n // (check_number("k", k, least=1, most=n - 1, integer=True) + 1)
    check_number("gap", gap, least=0, below=n - k * size, integer=True)
    starts = range(n - k * size, n, size)
    return [(np.arange(start - gap), np.arange(start, start + size)) for start in starts]


def seasonal_naive(series, start, period=1):
    """Forecasts of series[start:]: each is the value one period before. Period 1 is naive."""
    series = check_array("series", series, 1)
    check_number("period", period, least=1, most=start, integer=True)
    return series[start - period : len(series) - period]


def fit_autoregression(X, y):  # least squares, explained in linear_models.py
    """Equation (16): w (p,) and b; of all w that fit equally well the shortest."""
    X, y = check_Xy(X, y)
    mean, middle = X.mean(axis=0), y.mean()
    U, s, Vt = np.linalg.svd(X - mean, full_matrices=False)
    kept = s > np.finfo(float).eps * max(X.shape) * np.linalg.norm(X)  # the rest is rounding
    w = Vt[kept].T @ (U[:, kept].T @ (y - middle) / s[kept])
    return w, middle - mean @ w


Forecaster = namedtuple("Forecaster", [*Recurrent._fields, "w", "b"])  # an RNN, w (H,), b (1,)


def forecaster(model, X):
    """Forecasts (n,) for windows X (n, p), read a value at a time; back(dforecasts)."""
    h, to_h = rnn(model, X.T[:, :, None], np.zeros((len(X), len(model.w))))

    def back(dout):
        """The last state alone meets the read-out w, b. Returns a Forecaster of gradients."""
        dh = np.zeros_like(h)
        dh[-1] = np.outer(dout, model.w)
        return Forecaster(*to_h(dh)[2], dout @ h[-1], dout.sum(keepdims=True))

    return h[-1] @ model.w + model.b, back


def forecaster_gradients(model, X, y):
    """The mean squared error of the forecasts, and its gradients."""
    forecasts, back = forecaster(model, X)
    return mse(y, forecasts), back(2 / len(y) * (forecasts - y))


def forecast_all(series, p):
    """Train on three quarters of the windows and forecast the rest, one step ahead.

    Returns {name: forecasts}, the true values, and what the RNN began with, saw, and lost. It sees
    each window less its last value, so that a trend stays in the range it was trained on."""
    X, y = make_windows(series, p)
    cut, last = 3 * len(y) // 4, X[:, -1]
    past, rng = series[: p + cut], np.random.default_rng(0)
    period = min(range(2, len(past) // 2), key=lambda k: mse(past[k:], past[:-k]))
    w, b = fit_autoregression(X[:cut], y[:cut])
    spread = (y - last)[:cut].std() or 1.0  # the training part alone decides
    windows, changes = (X - last[:, None]) / spread, (y - last) / spread
    start = Forecaster(*init_recurrent(rng, 1, 16), rng.normal(size=16) / 4, np.zeros(1))
    batches = [(windows[:cut], changes[:cut])] * 200
    model, losses = train(start, forecaster_gradients, batches)
    return {
        "naive": seasonal_naive(series, p + cut),
        f"seasonal naive, {period} steps": seasonal_naive(series, p + cut, period),
        f"autoregression, {p} steps": X[cut:] @ w + b,
        f"RNN, {p} steps": last[cut:] + spread * forecaster(model, windows[cut:])[0],
    }, y[cut:], (start, batches, losses)


def print_errors(forecasts, y):
    """Root mean squared errors as a table, and a plain verdict."""
    errors = {name: np.sqrt(mse(y, values)) for name, values in forecasts.items()}
    for name, error in errors.items():
        print(f"  {name:26} {error:10.4g}  {'#' * round(30 * error / max(errors.values()))}")
    best = min(errors, key=errors.get)
    print(f"  lowest: {best}" + (". No model beats this baseline" if "naive" in best else ""))


# %% [markdown]
"""
### The library version

LinearRegression on the windows is our autoregression; TimeSeriesSplit makes our folds. torch's RNN
has no read-out: nn.Linear adds it.

Try: make the noise of the series 2.0. Which line of the table is lowest then?
"""


# %%
def sklearn_autoregression(X, y):
    """Equation (16) by sklearn.linear_model.LinearRegression."""
    from sklearn.linear_model import LinearRegression

    return LinearRegression().fit(X, y)


def torch_forecaster(model):
    """A list of nn.RNN and nn.Linear with copies of our weights."""
    from torch import nn

    module = nn.ModuleList([nn.RNN(1, len(model.w)), nn.Linear(len(model.w), 1)])
    return torch_copy(module, [*model[:4], model.w[:, None], model.b])


def torch_forecaster_loss(module, X, y):
    """The mean squared error by torch."""
    import torch

    (rnn, linear), x = module, torch.tensor(X.T[:, :, None])
    return torch.nn.functional.mse_loss(linear(rnn(x)[0][-1])[:, 0], torch.tensor(y))


def demo_forecast(plot=False):
    """Models beside baselines, and one look-up model under two ways to split."""
    from sklearn.model_selection import TimeSeriesSplit

    print("\n== Does the model beat no model? ==\n")
    rng = np.random.default_rng(0)
    series = make_series(rng, 400)
    forecasts, y, (start, batches, losses) = forecast_all(series, p=24)
    print_errors(forecasts, y)
    print("\n  A random walk, 10 steps ahead, forecast by looking up the most similar window:")
    X, target = make_windows(rng.normal(size=800).cumsum(), 20, ahead=10)
    order, n = rng.permutation(len(X)), 3 * len(X) // 4
    for name, past, test in [("random split", order[:n], order[n:]),
                             ("split by time", np.arange(n - 9), np.arange(n, len(X)))]:
        apart = (X[past] ** 2).sum(axis=1) - 2 * X[test] @ X[past].T
        error = mse(target[test], target[past][apart.argmin(axis=1)])
        print(f"  {name:14} {error / mse(target[test], X[test, -1]):5.2f} times the naive error")
    X, target = make_windows(series, 24)
    (w, b), model = fit_autoregression(X, target), sklearn_autoregression(X, target)
    theirs = torch_train(torch_forecaster(start), torch_forecaster_loss, batches[:50])
    folds, split = (np.concatenate([np.concatenate(fold) for fold in folds]) for folds in (
        time_folds(100, 4, gap=9), TimeSeriesSplit(4, gap=9).split(np.zeros(100))))

    def _draw(ax):
        for name, values in {"the series": y, **forecasts}.items():
            ax.plot(values, "k" if values is y else "--", label=name)
        ax.set(xlabel="step of the test part", ylabel="value", title="One step ahead")
        ax.legend(fontsize="small")

    if plot:
        save_plot("sequence_models_forecast.png", _draw, size=(9, 4.5))
    return report([
        compare("autoregression w", w, model.coef_, *ALLOWED["autoregression"]),
        compare("autoregression b", b, model.intercept_, *ALLOWED["autoregression"]),
        compare("folds, with a gap", folds, split, *ALLOWED["folds"]),
        compare("RNN losses, 50 steps", losses[:50], theirs, *ALLOWED["forecaster"]),
    ])


def on_csv(path, column, plot):
    """The table of errors for the reader's own series, in the order of its rows."""
    columns = read_csv(path)
    if column not in columns:
        raise ValueError(f"{path} has no column {column!r}; it has {', '.join(columns)}")
    series = columns[column]
    if series.dtype.kind != "f" or np.isnan(series).any() or len(series) < 40:
        raise ValueError(f"column {column!r} must hold 40 numbers or more, without text or gaps")
    print(f"== {column}: root mean squared error, one step ahead, on the last quarter ==\n")
    print_errors(*forecast_all(series, p=min(24, len(series) // 8))[:2])


# %%
if __name__ == "__main__":
    demos = [demo_recurrent, demo_attention, demo_gpt, demo_bpe, demo_forecast]
    about = "Recurrent networks, attention, a tiny GPT, its tokens, and forecasts, from scratch."
    run_chapter(about, demos, on_csv=on_csv, column="column")

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "torch==2.13.0", "sentence-transformers", "scikit-learn", "matplotlib"]
# ///
