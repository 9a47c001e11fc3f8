# %% [markdown]
"""
# Sequence models

What comes next? The next letter depends on the letters before it, tomorrow's load on today's. A
recurrent network squeezes the past into a state of fixed size, step by step. Attention keeps all
steps and looks back at those that matter. This chapter builds both with gradients by hand, then
a tiny GPT, its tokens, and forecasts of a series, measured against doing nothing clever at all.
Run `python sequence_models.py`, or a part: `python sequence_models.py gpt`; your own series:
`--csv FILE --column NAME`; check with `pytest`.
Functions named torch_..., tokenizers_..., sklearn_... are the library version; the rest is ours.

    T, B      steps of a sequence, sequences in a batch                     ()
    D, H, E   width of an input, of a recurrent state, of a transformer     ()
    x         inputs; in recurrent networks time comes first                (T, B, D)
    h, c      states h₁..h_T and cells c₁..c_T; h₀ and c₀ are given         (T, B, H)
    Wx, bx    input weights, gates side by side (k = 1, GRU 3, LSTM 4)      (D, kH), (kH,)
    Wh, bh    recurrent weights: `weights.Wh`                               (H, kH), (kH,)
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
from utils import progress, read_csv, report, run_chapter, save_plot

SUMS = "the same sums in another order, in float64"
ALLOWED = {
    "recurrent": (1e-10, SUMS),
    "attention": (1e-10, SUMS),
    "GPT": (1e-8, "rounding grows over AdamW steps, which divide by small numbers"),
    "cache": (1e-12, "the same numbers, kept in place of computed again"),
    "samples": (0, "whole numbers are equal or not"),
    "tokens": (0, "whole numbers are equal or not"),
    "autoregression": (1e-10, "two orthogonal factorisations of a well-conditioned design"),
    "folds": (0, "whole numbers are equal or not"),
}

def check_shape(name, value, *shape):
    """value as finite floats of this shape, in which None stands for any length."""
    value = check_array(name, value, ndim=len(shape))
    if any(want not in (None, got) for want, got in zip(shape, value.shape)):
        raise ValueError(f"{name} must have shape {shape} (None: any), not {value.shape}")
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

    hₜ = tanh(aₜ + uₜ),   aₜ = xₜ Wx + bx,   uₜ = hₜ₋₁ Wh + bh,   t = 1..T                  (1)

**Backpropagation through time.** Let dₜ be what the loss says about hₜ as an output. But hₜ also
acts on everything later, by way of uₜ₊₁. So walk from the last step to the first:

    gₜ = ∂L/∂hₜ = dₜ + duₜ₊₁ Whᵀ,   daₜ = duₜ = gₜ ⊙ (1 - hₜ²)                              (2)
    dWx = Σ xₜᵀ daₜ,   dbx = Σ daₜ,   dWh = Σ hₜ₋₁ᵀ duₜ,   dbh = Σ duₜ                      (3)

**When it fails.** Going back k steps multiplies by k slopes of tanh, at most 1 each, and k times
by Whᵀ. With slopes near 1, and ρ (rho) the spectral radius of Wh, its largest |eigenvalue|,

    ‖gₜ₋ₖ‖ grows or shrinks like ρᵏ as k grows                                              (4)

Below 1 the gradient vanishes: step t learns nothing from step t - k. Above 1 it explodes, unless
tanh saturates: on normal inputs even ρ = 1.5 shrinks. Clipping cures one, but nothing the other.
And mistakes hide: a network without the second term of gₜ still learns a little. Only a comparison
shows the error.

### Gates: the LSTM and the GRU

**Idea.** Do not rewrite the state, add to it. Gates between 0 and 1 decide how much stays. The LSTM
(long short-term memory) cuts aₜ + uₜ into four parts and has two states, h and c. On the way back
c is a road with nothing on it but f, and no matrix:

    i, f, o = σ(a_i + u_i), σ(a_f + u_f), σ(a_o + u_o)   and   n = tanh(a_n + u_n)          (5)
    cₜ = f ⊙ cₜ₋₁ + i ⊙ n,   hₜ = o ⊙ tanh(cₜ)                                              (6)
    dcₜ = (f ⊙ dc)ₜ₊₁ + gₜ ⊙ o ⊙ (1 - tanh²cₜ)                                              (7)

The GRU (gated recurrent unit) has one state and three parts, reset, update and new value:

    r, z = σ(a_r + u_r), σ(a_z + u_z),   n = tanh(a_n + r ⊙ u_n),   hₜ = n + z ⊙ (hₜ₋₁ - n) (8)

So hₜ₋₁ acts on hₜ directly, too: gₜ₋₁ gets z ⊙ gₜ more, in the code `direct`.

**Traps.** The slope of s = σ(a) is s(1 - s): of s itself, not of σ(s). r acts after the product
with Wh, as in torch; before it would be another model. And gates alone do not remember: f = 0.5
leaves 0.000001 after 20 steps. Let them start open: a bias of 1 or more for f (or z). Fully open,
c and h together may even grow a little.
"""

# %%
# Weights, or their gradients. The parts stand side by side: LSTM i, f, n, o (k = 4), GRU r, z, n
Recurrent = namedtuple("Recurrent", "Wx Wh bx bh")

def init_recurrent(rng, inputs, width, gates=1):
    """Every number uniform within 1/√H of 0, the usual start: D = inputs, H = width."""
    k = gates * check_number("width", width, least=1, integer=True)
    shapes = (check_number("inputs", inputs, least=1, integer=True), k), (width, k), k, k
    return Recurrent(*(rng.uniform(-1, 1, shape) / np.sqrt(width) for shape in shapes))

def sigmoid(a):
    """σ(a) = 1/2 + tanh(a/2) / 2, which cannot overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * a)

def rnn_step(a, u, h):
    """Equation (1): the new state, and back(g) -> da, du (2), 0: h is reached by way of du."""
    h = np.tanh(a + u)
    return (h,), lambda g: (g * (1 - h * h),) * 2 + (0,)

def lstm_step(a, u, h, c):
    """Equations (5), (6): new h, c; back(g, dc) -> da, du, 0, dc. Hochreiter and Schmidhuber
    (1997); the gate f is from Gers, Schmidhuber and Cummins (2000)."""
    i, f, n, o = np.split(a + u, 4, axis=1)
    i, f, n, o = sigmoid(i), sigmoid(f), np.tanh(n), sigmoid(o)
    new = f * c + i * n
    y = np.tanh(new)
    def back(g, dc):
        """Equation (7), then each gate's slope times what it multiplies in (6)."""
        dc = dc + g * o * (1 - y * y)
        d_i, d_f, d_n, d_o = dc * n, dc * c, dc * i, g * y
        parts = d_i * i * (1 - i), d_f * f * (1 - f), d_n * (1 - n * n), d_o * o * (1 - o)
        da = np.concatenate(parts, axis=1)
        return da, da, 0, dc * f
    return (o * y, new), back

def gru_step(a, u, h):
    """Equation (8): new h; back(g) -> da, du, direct dh. Cho et al. (2014), r as in cuDNN."""
    (a_r, a_z, a_n), (u_r, u_z, u_n) = np.split(a, 3, axis=1), np.split(u, 3, axis=1)
    r, z = sigmoid(a_r + u_r), sigmoid(a_z + u_z)
    n = np.tanh(a_n + r * u_n)
    def back(g):
        """The chain rule through (8), from right to left; dz, dn, dr are at a_z, a_n, a_r."""
        dz, dn = g * (h - n) * z * (1 - z), g * (1 - z) * (1 - n * n)
        dr = dn * u_n * r * (1 - r)
        return np.concatenate([dr, dz, dn], axis=1), np.concatenate([dr, dz, dn * r], axis=1), g * z
    return (n + z * (h - n),), back

def unroll(step, weights, x, h0, *c0):
    """Run a step over x (T, B, D) from h₀ (LSTM: and c₀) (B, H): h (T, B, H), the final states,
    and back(dh), the dₜ of (2) (LSTM: and dc, for the final c) -> dx, dh₀ (dc₀), and gradients."""
    x, H = check_shape("x", x, None, None, len(weights.Wx)), len(weights.Wh)
    if len(c0) != (step is lstm_step):
        raise ValueError("lstm_step starts from h0 and c0, the other steps from h0 alone")
    states = [check_shape(f"{n}0", s, x.shape[1], H) for n, s in zip("hc", (h0, *c0))]
    a, to_x = affine(x, weights.Wx, weights.bx)  # the inputs' part of all steps at once
    h, to_steps = np.empty((len(x) + 1, x.shape[1], H)), []
    h[0] = states[0]
    for t in range(len(x)):
        states, to_step = step(a[t], h[t] @ weights.Wh + weights.bh, *states)
        h[t + 1] = states[0]
        to_steps.append(to_step)
    def back(dh, *dlast):
        """Backpropagation through time (2), then (3). Werbos (1990)."""
        if len(dlast) != len(c0):
            raise ValueError("back takes dh, and for the LSTM dc, of the final cell, as well")
        dh, (da, du) = check_shape("dh", dh, *h[1:].shape), np.empty((2, *a.shape))
        onward, *dc = np.zeros_like(h[0]), *(check_shape("dc", d, *h[0].shape) for d in dlast)
        for t in range(len(x) - 1, -1, -1):
            da[t], du[t], direct, *dc = to_steps[t](dh[t] + onward, *dc)
            onward = direct + du[t] @ weights.Wh.T
        (dx, dWx, dbx), rows = to_x(da), du.reshape(-1, du.shape[2])
        gradients = Recurrent(dWx, h[:-1].reshape(-1, H).T @ rows, dbx, rows.sum(axis=0))
        return dx, onward, *dc, gradients
    return h[1:], states, back

# %%
def torch_copy(module, arrays):
    """A torch module in float64 with copies of our arrays. torch keeps every matrix transposed."""
    import torch
    with torch.no_grad():
        for parameter, array in zip(module.double().parameters(), arrays, strict=True):
            parameter.copy_(torch.tensor(array.T))
    return module

def torch_recurrent(kind, weights):
    """torch.nn.RNN, LSTM or GRU, as `kind` says. Its gates stand in our order; its g is our n."""
    from torch import nn
    return torch_copy(getattr(nn, kind)(len(weights.Wx), len(weights.Wh)), weights)

def torch_gradients(run, inputs, upstream, module=None):
    """Outputs of run(*inputs), and gradients of Σ upstream ⊙ outputs at inputs and parameters."""
    import torch
    inputs = [torch.tensor(a, requires_grad=True) for a in inputs]
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
    x, dh[-1] = rng.normal(size=(60, 4, 3)), rng.normal(size=(4, 32))  # the final state alone
    Wx, Wh, bx, bh = init_recurrent(rng, 3, 32)
    for radius in [0.5, 0.9, 1.0, 1.1, 1.5]:
        scaled = Wh * radius / np.abs(np.linalg.eigvals(Wh)).max()
        models["RNN", f"radius {radius}"] = rnn_step, Recurrent(Wx, scaled, 0 * bx, 0 * bh), [zero]
    for kind, step, k, start in [("LSTM", lstm_step, 4, [zero] * 2), ("GRU", gru_step, 3, [zero])]:
        for bias in [0, 2, 4]:  # of the second gate: f in the LSTM, z in the GRU
            weights = init_recurrent(rng, 3, 32, k)
            weights.bx[32:64] = bias
            models[kind, f"gate bias {bias}"] = step, weights, start
    print("                        |dL/dx| 59, 39 and 19 steps      factor per step")
    print("                        back, over that of the last      inputs 0   normal inputs")
    shares, comparisons = {}, []
    for (kind, option), (step, weights, start) in models.items():
        norms = []
        for inputs in [0 * x, x]:  # all 0 leaves the RNN at h = 0, where the slope of tanh is 1
            h, _, back = unroll(step, weights, inputs, *start)
            norms.append(np.linalg.norm(back(dh, *start[1:])[0], axis=(1, 2)))
        share = shares[f"{kind}, {option}"] = norms[0] / norms[0][-1]
        far = "  ".join(f"{v:7.0e}" for v in share[[0, 20, 40]])
        quiet, normal = ((norm[10] / norm[40]) ** (1 / 30) for norm in norms)
        print(f"  {kind:4} {option:15}  {far}      {quiet:8.2f} {normal:10.2f}")
        if option in ("radius 1.1", "gate bias 2"):
            run, d = torch_recurrent(kind, weights), rng.normal(size=dh.shape)
            (dx, *_, gradients), names = back(d, *start[1:]), "h dx dWx dWh dbx dbh"
            theirs = torch_gradients(lambda x, run=run: run(x)[:1], [x], [d], run)
            comparisons += compare_all("recurrent", kind, names, [h, dx, *gradients], theirs)
    if plot:
        save_plot("sequence_models_recurrent.png", lambda ax: [
            *(ax.semilogy(share[::-1], "--" if "RNN" in name else "-", label=name)
              for name, share in shares.items()),
            ax.set(xlabel="steps back from the end", ylabel="|dL/dx|, over that of the last step"),
            ax.legend(fontsize="small")])
    return report(comparisons)

# Try: gate biases of -2 and of 8. How far back does the gradient of each reach?

# %% [markdown]
"""
## Attention

**Question.** Why carry everything through one state? Let every step look back itself.

**Idea.** Each step asks with a query, offers a key and holds a value, all of them rows. The better
a query fits a key, the more of that step's value it reads. With d columns in Q and K,

    S = Q Kᵀ/√d,   P = softmax of each row of S,   O = P V                                  (9)

The product of two random rows has standard deviation √d. Divided by it, the softmax stays away
from 0 and 1, where its gradient dies. No step may see later ones if it is to predict the next:
the causal mask sets Sₜₛ = -∞ where s > t. A row of P sums to 1, so what one key gains the others
lose; hence the row sum on the way back:

    dV = Pᵀ dO,   dS = P ⊙ (dO Vᵀ - rowsum(dO ⊙ O)),   dQ = dS K/√d,   dK = dSᵀ Q/√d       (10)

**Heads.** One softmax finds one thing. Multi-head attention makes [Q K V] = x W_in + b_in, cuts the
E columns of each into heads of d = E/heads, lets each attend alone, and mixes them again:
[O₁ .. O_heads] W_out + b_out.

**When it fails.** P costs T² numbers. Without positions, order means nothing. A mask that is off
by one shows each step its own answer, and the loss looks wonderful. A row with all masked has no
softmax: here, as in torch's `scaled_dot_product_attention`, it reads 0.
"""

# %%
Heads = namedtuple("Heads", "W_in b_in W_out b_out")  # (E, 3E), (3E,), (E, E), (E,)

def causal_mask(steps):
    """(T, T): True where query t (row) may look at key s (column), that is s ≤ t."""
    return np.tri(check_number("steps", steps, least=1, integer=True), dtype=bool)

def softmax(s):
    """Weights along the last axis that sum to 1; nothing but zeros where all s are -inf."""
    e = np.exp(s - s.max(axis=-1, keepdims=True, initial=-1e300))
    e /= np.maximum(e.sum(axis=-1, keepdims=True), 1)  # the sum is at least 1; all masked: 0
    return e

def attention(q, k, v, mask=None):
    """Equation (9), Vaswani et al. (2017): q (.., T, d), k (.., N, d), v (.., N, e) and mask
    (T, N), True where a query may look -> O (.., T, e), P (.., T, N); back(dO) -> dQ, dK, dV."""
    q, k, v = (check_array(name, a, max(np.ndim(a), 2)) for name, a in zip("qkv", (q, k, v)))
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(f"q, k, v must be (T, d), (N, d), (N, e), not {q.shape, k.shape, v.shape}")
    s, root = q @ k.swapaxes(-1, -2), np.sqrt(q.shape[-1])
    s /= root
    if mask is not None:
        if np.shape(mask) != s.shape[-2:] or np.asarray(mask).dtype != bool:
            raise ValueError(f"mask must hold booleans in shape {s.shape[-2:]}, (T, N)")
        np.copyto(s, -np.inf, where=np.logical_not(mask))
    p = softmax(s)
    o = p @ v
    def back(do):
        """Equation (10). What is masked has p = 0 and so no gradient."""
        ds = do @ v.swapaxes(-1, -2)
        ds -= (do * o).sum(axis=-1, keepdims=True)
        ds *= p
        ds /= root
        return ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ do
    return o, p, back

def multi_head(weights, x, heads, mask=None, past=None):
    """x (B, T, E) -> y (B, T, E), and (K, V) of all steps; back(dy) -> dx and the gradients as
    Heads. past: (K, V) of earlier steps, which come before those of x."""
    B, T, E = (x := check_shape("x", x, None, None, len(weights.W_out))).shape
    if E % check_number("heads", heads, least=1, integer=True):
        raise ValueError(f"heads must divide the width {E}, not be {heads}")
    qkv, to_x = affine(x, weights.W_in, weights.b_in)
    q, k, v = qkv.reshape(B, T, 3, heads, -1).transpose(2, 0, 3, 1, 4)  # (B, heads, T, E / heads)
    if past is not None:
        k, v = (np.concatenate(pair, axis=2) for pair in zip(past, (k, v)))
    o, _, to_qkv = attention(q, k, v, mask)
    y, to_o = affine(o.swapaxes(1, 2).reshape(B, T, E), weights.W_out, weights.b_out)
    def back(dy):
        """Through W_out, the heads, and W_in."""
        do, dW_out, db_out = to_o(dy)
        dqkv = np.stack(to_qkv(do.reshape(B, T, heads, -1).swapaxes(1, 2)))
        dx, dW_in, db_in = to_x(dqkv.transpose(1, 3, 0, 2, 4).reshape(B, T, 3 * E))
        return dx, Heads(dW_in, db_in, dW_out, db_out)
    return y, (k, v), back

# %%
def torch_multi_head(weights, heads):
    """torch.nn.MultiheadAttention. Its mask is True where looking is forbidden, against ours."""
    from torch import nn
    return torch_copy(nn.MultiheadAttention(len(weights.W_out), heads, batch_first=True), weights)

def demo_attention(plot=False):
    """Every letter looks for letters like itself: the weights P as a table."""
    from torch import nn, tensor
    print("\n== Which letters does each letter look at? ==\n")
    text, rng, causal, comparisons = "abcabdab", np.random.default_rng(0), causal_mask(8), []
    onehot = np.eye(4)[["abcd".index(letter) for letter in text]]  # equal letters, equal keys
    p = attention(6 * onehot, onehot, onehot, causal)[1]
    print("       " + "    ".join(text) + "   <- key")
    for letter, row in zip(text, p):
        print(f"  {letter} " + " ".join(f"{share:4.0%}" if share else "   ." for share in row))
    (q, k, v, do), (x, dy) = rng.normal(size=(4, 2, 3, 8, 4)), rng.normal(size=(2, 2, 8, 12))
    for title, mask in [("all True:", causal | True), ("causal:", causal)]:
        (o, _, back), run = attention(q, k, v, mask), nn.functional.scaled_dot_product_attention
        theirs = torch_gradients(lambda *qkv, m=tensor(mask): [run(*qkv, m)], [q, k, v], [do])
        comparisons += compare_all("attention", title, "O dQ dK dV", [o, *back(do)], theirs)
    weights = Heads(*(rng.normal(size=shape) / 3 for shape in [(12, 36), 36, (12, 12), 12]))
    module, (y, _, back) = torch_multi_head(weights, 3), multi_head(weights, x, 3, causal)
    (dx, gradients), hidden, names = back(dy), tensor(~causal), "y dx dW_in db_in dW_out db_out"
    theirs = torch_gradients(lambda x: module(x, x, x, attn_mask=hidden)[:1], [x], [dy], module)
    comparisons += compare_all("attention", "3 heads:", names, [y, dx, *gradients], theirs)
    if plot:
        save_plot("sequence_models_attention.png", lambda ax: [
            ax.imshow(p), ax.set_xticks(range(8), text), ax.set_yticks(range(8), text),
            ax.set(xlabel="key: is looked at", ylabel="query: looks", title="weights P")])
    return report(comparisons)

# Try: make the query 6 * onehot (a letter like itself counts e^3 = 20 times) sharper, then 0.

# %% [markdown]
"""
## A tiny GPT that writes

**Question.** How do layers of attention become a model that writes?

**Idea.** A token becomes a row of a table plus a row for its position. Blocks add corrections to
that stream x, each read from a normalised copy (pre-norm), so the gradient keeps a straight road
back. LayerNorm brings each row to mean 0 and variance 1; GELU is a smooth max(0, x). The table of
tokens also reads the result (weight tying), so it has two gradients to add up. The loss L is the
mean surprise at the next token; thanks to the mask, at all steps at once:

    x = tokens[id] + positions[t]                                                          (11)
    x ← x + MultiHead(LayerNorm(x)),   x ← x + GELU(LayerNorm(x) W_up) W_down              (12)
    logits = LayerNorm(x) tokensᵀ,   L = -1/(BT) Σ log softmax(logits)[next id]            (13)

**Writing** appends tokens drawn from softmax(logits / temperature): 1 is what the model believes,
0 takes the likeliest, top-k cuts off the unlikely. No old step sees a new one, so old keys and
values stay. A cache keeps them: a token then costs one row, not T. **Perplexity**, exp(L), is
that many equally likely tokens leave one as unsure. It means nothing without a baseline beside it:
here counts, and the choices in the whole text (windows of 32 cut lines in two: 1.13 at best).

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
    for name, count in [("vocab", vocab), ("context", context), ("layers", layers)]:
        check_number(name, count, least=1, integer=True)
    if check_number("width", width, least=HEAD, integer=True) % HEAD:
        raise ValueError(f"width must be a multiple of {HEAD}, not {width}")
    E, L, stacked = width, layers, []
    for rows, columns in [(E, 3 * E), (E, E), (E, 4 * E), (4 * E, E)]:
        stacked += [0.08 * rng.normal(size=(L, rows, columns)), np.zeros((L, columns))]
    tables = (0.08 * rng.normal(size=(rows, E)) for rows in (vocab, context))
    norms = np.ones((L, E)), np.zeros((L, E)), np.ones((L, E)), np.zeros((L, E))
    return GPT(*tables, *stacked, *norms, np.ones(E), np.zeros(E))

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

def gelu(x):  # explained in neural_networks.py, in its exact form
    """x p and its slope; p is about the chance that a normal number is below x, as in GPT-2."""
    root, square = np.sqrt(2 / np.pi), x * x
    p = 0.5 + 0.5 * np.tanh(x * (root + 0.044715 * root * square))
    return x * p, p + 2 * x * p * (1 - p) * (root + 0.134145 * root * square)

def gpt_block(block, x, mask=None, past=None):
    """Equation (12): x (B, T, E) -> (B, T, E), and (K, V); back(dx) -> dx and a Block."""
    read1, to_x1 = layer_norm(x, block.gain1, block.bias1)
    seen, kv, to_read1 = multi_head(block, read1, x.shape[2] // HEAD, mask, past)
    x = x + seen
    read2, to_x2 = layer_norm(x, block.gain2, block.bias2)
    up, to_read2 = affine(read2, block.W_up, block.b_up)
    active, slope = gelu(up)
    down, to_active = affine(active, block.W_down, block.b_down)
    def back(dx):
        """A sum in (12) passes the gradient on to both of its terms."""
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
    """Equations (11) to (13): tokens (B, T) -> logits (B, T, V) and (K, V) of each block;
    back(dlogits) -> a GPT of gradients. past: (K, V) of each block for the steps before."""
    tokens = check_tokens("tokens", tokens, len(model.tokens), ndim=2)
    before, blocks = past[0][0].shape[2] if past else 0, [Block(*a) for a in zip(*model[2:-2])]
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
    """Equation (13): L, and its gradient dlogits = (softmax - onehot of the target)/(BT)."""
    z, hit = logits.reshape(targets.size, -1), (np.arange(targets.size), targets.ravel())
    z = z - z.max(axis=1, keepdims=True)
    total = np.exp(z).sum(axis=1, keepdims=True)
    loss, dz = np.mean(np.log(total[:, 0]) - z[hit]), np.exp(z) / total
    dz[hit] -= 1
    return loss, dz.reshape(logits.shape) / targets.size

def gpt_gradients(model, tokens, targets):
    """The loss of predicting targets (B, T) from tokens (B, T), and a GPT of gradients."""
    logits, _, back = gpt(model, tokens)
    targets = check_shape("targets", targets, *logits.shape[:2])
    loss, dlogits = cross_entropy(logits, check_tokens("targets", targets, logits.shape[2], 2))
    return loss, back(dlogits)

def train(model, gradient, batches, lr=0.01, weight_decay=0.01):  # explained in optimization.py
    """AdamW: the trained model, and the loss before every step. model is a tuple of arrays, and
    gradient(model, *batch) -> the loss, and a tuple of gradients like model."""
    flat, cuts = np.concatenate([a.ravel() for a in model]), np.cumsum([a.size for a in model])
    views = (part.reshape(a.shape) for part, a in zip(np.split(flat, cuts), model))
    model, losses, m, v = type(model)(*views), [], 0, 0  # views of flat: one update serves all
    for t, batch in enumerate(batches, start=1):
        loss, gradients = gradient(model, *batch)
        g = np.concatenate([a.ravel() for a in gradients])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g  # running means from 0 of g and g²
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        flat -= lr * (step + weight_decay * flat)
        losses.append(loss)
    return model, losses

def pick_token(logits, u, temperature=1.0, top_k=None):
    """One token, drawn from softmax(logits (V,) / temperature) by a uniform number 0 < u ≤ 1.
    Temperature 0 takes the likeliest. top_k keeps the k largest logits, ties included."""
    logits, _ = check_array("logits", logits, 1), check_number("u", u, above=0, most=1)
    if top_k is not None:
        check_number("top_k", top_k, least=1, most=len(logits), integer=True)
        logits = np.where(logits >= np.sort(logits)[-top_k], logits, -np.inf)
    if check_number("temperature", temperature, least=0) < 1e-9:
        return int(np.argmax(logits))
    total = np.cumsum(softmax(logits / temperature))
    return int(np.searchsorted(total, u * total[-1]))  # total[-1] is 1, but for rounding

def generate(model, prompt, uniforms, temperature=1.0, top_k=None, cached=True):
    """The prompt (n,), then a token for each of the uniforms. cached=False: the same, slower."""
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
    grams, new = (tuple(sliding_window_view(ids, n).T) for ids in (train, test))
    np.add.at(counts := np.ones((vocab,) * n), grams, 1)
    return np.exp(-np.log((counts / counts.sum(axis=-1, keepdims=True))[new]).mean())

# %%
def torch_gpt(model):
    """Tables and encoder of torch.nn. With `norm_first` its encoder layer is our block; its decoder
    layer has a second attention. GELU is exact unless told otherwise."""
    from torch import nn
    (V, E), C, blocks = model.tokens.shape, len(model.positions), [*zip(*model[2:-2])]
    layer = nn.TransformerEncoderLayer(
        E, E // HEAD, 4 * E, 0.0, nn.GELU("tanh"), batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, len(blocks), nn.LayerNorm(E), enable_nested_tensor=False)
    tables = model.tokens.T, model.positions.T  # torch_copy transposes; embeddings are as ours
    arrays = [*tables, *(array for block in blocks for array in block), model.gain, model.bias]
    return torch_copy(nn.ModuleList([nn.Embedding(V, E), nn.Embedding(C, E), encoder]), arrays)

def torch_train_gpt(model, batches, lr=0.01):
    """The loss before every step of torch.optim.AdamW on torch_gpt."""
    import torch
    table, positions, encoder = module = torch_gpt(model)
    optimizer, losses = torch.optim.AdamW(module.parameters(), lr=lr), []
    for tokens, targets in batches:
        x = table(torch.tensor(tokens)) + positions.weight[: tokens.shape[1]]
        hidden = torch.tensor(~causal_mask(tokens.shape[1]))
        logits = encoder(x, mask=hidden) @ table.weight.T
        loss = torch.nn.functional.cross_entropy(logits.mT, torch.tensor(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses

def make_text(rng, lines):
    """Lines like "ann lost her kite. she wants it back." and the log of the number of ways to
    choose name and thing; the rest follows from them, if the model looks back far enough."""
    names = "ann lost her {}. she", "ben lost his {}. he", "cleo lost her {}. she"
    things = "kite it", "book it", "drum it", "boots them", "keys them", "cards them"
    pairs = [(rng.choice(names), *rng.choice(things).split()) for _ in range(lines)]
    text = "".join(f"{name.format(thing)} wants {it} back.\n" for name, thing, it in pairs)
    return text, lines * np.log(len(names) * len(things))

def demo_gpt(plot=False):
    """Train on the letters of made-up lines: perplexity, samples, and torch beside it."""
    from torch import searchsorted, tensor
    print("\n== Can a tiny GPT learn to spell, and to look back? ==\n")
    rng = np.random.default_rng(0)
    (text, _), (fresh, nats) = make_text(rng, 500), make_text(rng, 100)
    letters, V = sorted(set(text)), len(set(text))
    ids, test = (np.array([letters.index(c) for c in t]) for t in (text, fresh))
    windows = sliding_window_view(ids, 33)[rng.integers(len(ids) - 32, size=(200, 12))]
    batches, new = [(w[:, :-1], w[:, 1:]) for w in windows], sliding_window_view(test, 33)[::32]
    start = init_gpt(rng, V, context=32)
    progress("training a tiny GPT, 200 steps")
    model, losses = train(start, gpt_gradients, batches)
    before, after = (gpt_gradients(one, new[:, :-1], new[:, 1:])[0] for one in (start, model))
    print(f"  perplexity on fresh lines: as unsure as between so many letters, of {V}")
    values = [ngram_perplexity(ids, test, V, n) for n in (1, 2)]
    values += np.exp([before, after, nats / len(test)]).tolist()
    names = "count letters", "count pairs", "GPT, untrained", "GPT, 200 steps", "whole text"
    for name, value in zip(names, values):
        print(f"  {name:15} {value:6.2f}  {'#' * round(2 * value)}")
    theirs = torch_train_gpt(start, batches[:20])
    comparisons = [compare("GPT losses, 20 steps", losses[:20], theirs, *ALLOWED["GPT"])]
    (logits, kvs, _), u = gpt(model, [test[:20]]), 1 - rng.random(70)
    step, full = gpt(model, [test[20:21]], kvs)[0], gpt(model, [test[:21]])[0][:, -1:]
    comparisons.append(compare("logits by the cache", step, full, *ALLOWED["cache"]))
    for temperature, k in [(0, V), (0.7, V), (2, V), (2, 3)]:
        ids = generate(model, [letters.index("\n")], u, temperature, k)
        written = "".join(letters[i] for i in ids).replace("\n", " / ")
        print(f"  temperature {temperature:3}, top {k:2}:{written}")
    for k in [V, 3]:
        ours = [pick_token(logits[0, -1], one, temperature, k) for one in u]
        z = tensor(logits[0, -1]) / temperature
        total = z.masked_fill(z < z.topk(k).values[-1], -np.inf).softmax(-1).cumsum(-1)
        theirs = searchsorted(total, tensor(u) * total[-1])
        comparisons.append(compare(f"samples, top {k}", ours, theirs, *ALLOWED["samples"]))
    return report(comparisons)

# Try: make causal_mask all True and size=(400, 12). The loss falls below the best. What is written?

# %% [markdown]
"""
## Tokens: byte-pair encoding

**Question.** What should a model read? Letters make long texts, and no list of words is complete.

**Idea.** Start from the 256 bytes of UTF-8, so that any text can be written, and cut the text into
words. Then, again and again, make the most frequent pair of neighbours in words a new token:

    (a, b) = argmax over pairs of Σ over words of count(word) · (times a b stands in it)   (14)

Ties go to the smaller pair of ids. A new text takes the same merges, the earliest first. Common
words become one token, leaving their unfinished stages behind; decoding joins the bytes, and
nothing is lost.

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

# %%
def tokenizers_bpe(text, vocab):
    """tokenizers.Tokenizer, trained on the same pieces. It is Rust, and over ten times as fast. It
    writes each byte as a printable letter and sorts by these: hence our BYTES."""
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
    text, unseen, comparisons = load_breast_cancer().DESCR, load_diabetes().DESCR, []
    bpe, library = train_bpe(text, 500), tokenizers_bpe(text, 500)
    print("  the longest tokens:", *(repr(t.decode()) for t in sorted(bpe.tokens, key=len)[:-8:-1]))
    for name, sample in [("its own text", text), ("unseen", unseen), ("Greek", "μῆνιν ἄειδε θεά")]:
        ids, theirs = encode(bpe, sample), library.encode(sample).ids
        print(f"  {name:13} {len(sample.encode()):5} bytes -> {len(ids):5} tokens")
        comparisons.append(compare(f"ids, {name}", ids, theirs, *ALLOWED["tokens"]))
        same = decode(bpe, ids) == sample
        comparisons.append(compare(f"decoded, {name}", same, True, *ALLOWED["tokens"]))
    return report(comparisons)

# Try: ask for 2000 tokens. How many does the text yield, and which of the two texts gains more?

# %% [markdown]
"""
## Forecasting, and how not to be fooled

**Question.** What will the next value of a series be, and is the model better than no model?

**Idea.** Turn the series y into a table: a row is a window of p values, its target the value
`ahead` steps after the window. A linear model of these rows is an autoregression:

    ŷₜ₊₁ = b + w₁ yₜ₋ₚ₊₁ + .. + wₚ yₜ,   minimise Σ (yₜ₊₁ - ŷₜ₊₁)²   (ahead = 1)           (15)

An RNN may read the same window a value at a time. Both must beat forecasts that cost nothing:
naive, the last value, and seasonal naive, the value one season ago.

**Split by time.** Train on the past, test on the future. A random split puts the neighbours of each
test window, which share all values but one, into the training part, where a model looks them up; a
random walk, which nobody can forecast, then seems easy. Each of our folds trains on what came
before it, less a gap of ahead - 1 rows. By time the look-up fails: the walk has left for levels
never seen before.

**When it fails.** A change that the training part never saw is unknown to every model.
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
    check_number("gap", gap, least=0, below=n - k * size, integer=True)
    starts = range(n - k * size, n, size)
    return [(np.arange(start - gap), np.arange(start, start + size)) for start in starts]

def seasonal_naive(series, start, period=1):
    """Forecasts of series[start:]: each is the value one period before. Period 1 is naive."""
    series = check_array("series", series, 1)
    check_number("start", start, least=1, most=len(series) - 1, integer=True)
    check_number("period", period, least=1, most=start, integer=True)
    return series[start - period : len(series) - period]

def fit_autoregression(X, y):  # least squares, explained in linear_models.py
    """Equation (15): w (p,) and b; of all w that fit equally well the shortest."""
    X, y = check_Xy(X, y)
    mean = (A := np.column_stack([X, y])).mean(axis=0)
    R = np.linalg.qr(A - mean, mode="r")  # small, with the lengths and angles of A
    U, s, Vt = np.linalg.svd(R[:, :-1], full_matrices=False)
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

def forecast_all(series, p):
    """Train on three quarters of the windows; {name: one-step forecasts of the rest}, the true
    values, and the RNN, which sees windows less their last value: so a trend stays in range."""
    X, y = make_windows(series, p)
    check_number("the length of series", len(series), least=40)
    cut, last = 3 * len(y) // 4, X[:, -1]
    past, rng = series[: p + cut], np.random.default_rng(0)
    errors = np.array([mse(past[k:], past[:-k]) for k in range(2, len(past) // 2)])
    period = 2 + int(np.argmax(errors <= 1.5 * errors.min()))  # the shortest good lag
    w, b = fit_autoregression(X[:cut], y[:cut])
    spread = (y - last)[:cut].std() or 1.0  # the training part alone decides
    windows, changes = (X - last[:, None]) / spread, (y - last) / spread
    start = Forecaster(*init_recurrent(rng, 1, 16), rng.normal(size=16) / 4, np.zeros(1))
    model, _ = train(start, forecaster_gradients, [(windows[:cut], changes[:cut])] * 200)
    return {
        "naive": seasonal_naive(series, p + cut),
        f"seasonal naive, {period} steps": seasonal_naive(series, p + cut, period),
        f"autoregression, {p} steps": X[cut:] @ w + b,
        f"RNN, {p} steps": last[cut:] + spread * forecast_rnn(model, windows[cut:])[0],
    }, y[cut:], model

def show_forecasts(forecasts, y, plot):
    """Root mean squared errors as a table, a plain verdict, and the picture."""
    errors = {name: np.sqrt(mse(y, values)) for name, values in forecasts.items()}
    for name, error in errors.items():
        print(f"  {name:26} {error:10.4g}  {'#' * round(30 * error / (max(errors.values()) or 1))}")
    best = min(errors, key=errors.get)
    print(f"  lowest: {best}" + ". No model beats this baseline" * ("naive" in best))
    if plot:
        save_plot("sequence_models_forecast.png", size=(9, 4.5), draw=lambda ax: [
            *(ax.plot(values, "--", label=name) for name, values in forecasts.items()),
            ax.plot(y, "k", label="the series"), ax.legend(fontsize="small"),
            ax.set(xlabel="step of the test part", ylabel="value, and its forecasts")])

# %%
def sklearn_autoregression(X, y):
    """Equation (15) by sklearn.linear_model.LinearRegression."""
    from sklearn.linear_model import LinearRegression
    return LinearRegression().fit(X, y)

def torch_forecaster(model):
    """nn.RNN and, as it has no read-out, nn.Linear, with our weights."""
    from torch import nn
    module = nn.ModuleList([nn.RNN(1, len(model.w)), nn.Linear(len(model.w), 1)])
    return torch_copy(module, [*model[:4], model.w[:, None], model.b])

def demo_forecast(plot=False):
    """Models beside baselines, and one look-up model under two ways to split."""
    from sklearn.model_selection import TimeSeriesSplit
    from torch import tensor
    print("\n== Does the model beat no model? ==\n")
    series = make_series(rng := np.random.default_rng(0), 400)
    forecasts, y, rnn = forecast_all(series, p=24)
    show_forecasts(forecasts, y, plot)
    print("\n  A random walk, 10 steps ahead, forecast by looking up the most similar window:")
    X, target = make_windows(rng.normal(size=800).cumsum(), 20, ahead=10)
    order, n = rng.permutation(len(X)), 3 * len(X) // 4
    for name, past, test in [("random split", order[:n], order[n:]),
                             ("split by time", np.arange(n - 9), np.arange(n, len(X)))]:
        apart = (X[past] ** 2).sum(axis=1) - 2 * X[test] @ X[past].T
        error = mse(target[test], target[past][apart.argmin(axis=1)])
        print(f"  {name:14} {error / mse(target[test], X[test, -1]):5.2f} times the naive error")
    X, target = make_windows(series, 24)
    ours, model = np.append(*fit_autoregression(X, target)), sklearn_autoregression(X, target)
    fitted, (layer, readout) = np.append(model.coef_, model.intercept_), torch_forecaster(rnn)
    theirs = readout(layer(tensor(X.T[:, :, None].copy()))[0][-1])[:, 0].detach().numpy()
    folds, split = (np.hstack([np.hstack(fold) for fold in folds]) for folds in (
        time_folds(100, 4, gap=9), TimeSeriesSplit(4, gap=9).split(np.zeros(100))))
    return report([compare("autoregression w, b", ours, fitted, *ALLOWED["autoregression"]),
                   compare("RNN", forecast_rnn(rnn, X)[0], theirs, *ALLOWED["recurrent"]),
                   compare("folds, with a gap", folds, split, *ALLOWED["folds"])])

# Try: make_series(..., noise=2.0). Who is lowest, and which season is found?

def on_csv(path, column, plot):
    """The table of errors for the reader's own series, in the order of its rows."""
    if column not in (columns := read_csv(path)):
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
