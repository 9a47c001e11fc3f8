"""What sequence_models.py promises, in the order it is read: `pytest -x` names the first
equation that is wrong, and `pytest -k lstm` is an exercise."""

import math
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import agree

import linear_models
import sequence_models as sm
from utils import log_loss, make_series, mse

HAND = (1e-12, "worked by hand")
SLOPE = (1e-7, "central differences have an error of h squared")
CELLS = {"RNN": (sm.rnn_step, 1, 1), "LSTM": (sm.lstm_step, 4, 2), "GRU": (sm.gru_step, 3, 1)}


def slopes(loss, array, h=1e-5):
    """Central differences of loss() by every entry of the array, which is nudged in place."""
    out = np.empty_like(array)
    for i in np.ndindex(array.shape):
        kept = array[i]
        array[i] = kept + h
        up = loss()
        array[i] = kept - h
        out[i] = (up - loss()) / (2 * h)
        array[i] = kept
    return out


def frozen(*arrays):
    """Read-only copies: whoever writes to them fails."""
    copies = [np.array(a, float) for a in arrays]
    for copy in copies:
        copy.flags.writeable = False
    return copies


# --- Shared pieces ----------------------------------------------------------------------
def test_check_shape_names_what_was_expected_and_what_came():
    assert sm.check_shape("x", [[1, 2]], None, 2).dtype == float
    with pytest.raises(ValueError, match=r"x must have shape \(None, 3\) \(None: any\), not \(1, 2\)"):
        sm.check_shape("x", [[1, 2]], None, 3)
    with pytest.raises(ValueError, match="x must have 2 dimension"):
        sm.check_shape("x", [1, 2], None, 2)


def test_affine_by_hand():
    z, back = sm.affine(np.array([[[1.0, 2.0]]]), np.array([[1.0, 0.0, 3.0], [2.0, 1.0, 1.0]]), np.ones(3))
    agree("z", z, [[[6, 3, 6]]], *HAND)
    dx, dW, db = back(np.array([[[1.0, 10.0, 100.0]]]))
    agree("dx = dz W^T", dx, [[[301, 112]]], *HAND)
    agree("dW = x^T dz", dW, [[1, 10, 100], [2, 20, 200]], *HAND)
    agree("db", db, [1, 10, 100], *HAND)


def test_affine_adds_gradients_up_over_steps_and_sequences():
    rng = np.random.default_rng(0)
    x, W, b, dz = rng.normal(size=(4, 3, 2)), rng.normal(size=(2, 5)), rng.normal(size=5), rng.normal(size=(4, 3, 5))
    _, back = sm.affine(*frozen(x, W, b))
    for name, ours, array in zip(["dx", "dW", "db"], back(dz), [x, W, b]):
        agree(name, ours, slopes(lambda: (sm.affine(x, W, b)[0] * dz).sum(), array), *SLOPE)


# --- Recurrent networks -----------------------------------------------------------------
@pytest.mark.parametrize("gates", [1, 3, 4])
def test_init_recurrent_is_uniform_within_one_over_root_H(gates):
    weights = sm.init_recurrent(np.random.default_rng(0), 5, 16, gates)
    assert [w.shape for w in weights] == [(5, 16 * gates), (16, 16 * gates), (16 * gates,), (16 * gates,)]
    for w in weights:
        assert np.abs(w).max() <= 0.25 and abs(w.mean()) < 0.12 and 0.08 < w.std() < 0.2
    assert not np.array_equal(weights.bx, weights.bh)
    assert weights.Wh.min() < -0.2 and weights.Wh.max() > 0.2


@pytest.mark.parametrize("inputs, width, error", [(0, 3, ValueError), (2, 0, ValueError), (2, "3", TypeError), (1.5, 3, TypeError), (2, 3.5, TypeError)])
def test_init_recurrent_refuses_bad_sizes(inputs, width, error):
    with pytest.raises(error, match="inputs must be|width must be"):
        sm.init_recurrent(np.random.default_rng(0), inputs, width)


@pytest.mark.parametrize("a, s", [(0, 0.5), (math.log(3), 0.75), (-1000, 0), (1000, 1)])
def test_sigmoid_by_hand(a, s):
    agree("sigmoid", sm.sigmoid(np.array(a)), s, *HAND)


def test_rnn_step_by_hand():
    """Two steps of a network of width 1, every number followed with a pocket calculator."""
    weights = sm.Recurrent(*map(np.array, ([[0.5]], [[2.0]], [0.1], [-0.3])))
    x, h0 = np.array([[[1.0]], [[-2.0]]]), np.array([[0.25]])
    h, last, back = sm.unroll(sm.rnn_step, weights, x, h0)
    h1 = math.tanh(0.5 * 1 + 0.1 + 2 * 0.25 - 0.3)
    h2 = math.tanh(0.5 * -2 + 0.1 + 2 * h1 - 0.3)
    agree("h, equation (1)", h.ravel(), [h1, h2], *HAND)
    agree("final state", last[0], [[h2]], *HAND)
    dx, dh0, gradients = back(np.array([[[3.0]], [[7.0]]]))
    a2 = 7 * (1 - h2**2)
    a1 = (3 + a2 * 2) * (1 - h1**2)
    agree("dh0, equation (2)", dh0, [[2 * a1]], *HAND)
    agree("dx", dx.ravel(), [0.5 * a1, 0.5 * a2], *HAND)
    agree("dWx, equation (3)", gradients.Wx, [[a1 * 1 + a2 * -2]], *HAND)
    agree("dWh, equation (3)", gradients.Wh, [[a1 * 0.25 + a2 * h1]], *HAND)
    agree("dbx, dbh", [gradients.bx[0], gradients.bh[0]], [a1 + a2, a1 + a2], *HAND)


def test_lstm_step_by_hand():
    a, u = np.array([[0.2, 0.1, -0.5, 1.0]]), np.array([[0.1, 0.4, 0.3, -0.2]])
    h, c = np.array([[9.0]]), np.array([[0.7]])
    (new_h, new_c), back = sm.lstm_step(a, u, h, c)
    s = lambda v: 1 / (1 + math.exp(-v))
    i, f, n, o = s(0.3), s(0.5), math.tanh(-0.2), s(0.8)
    cell = f * 0.7 + i * n
    agree("c, equation (6)", new_c, [[cell]], *HAND)
    agree("h, equation (6)", new_h, [[o * math.tanh(cell)]], *HAND)
    da, du, dh, dc = back(np.array([[2.0]]), np.array([[-3.0]]))
    d = -3 + 2 * o * (1 - math.tanh(cell) ** 2)
    agree("dc, equation (7)", dc, [[d * f]], *HAND)
    parts = [d * n * i * (1 - i), d * 0.7 * f * (1 - f), d * i * (1 - n**2), 2 * math.tanh(cell) * o * (1 - o)]
    agree("da of i, f, n, o", da, [parts], *HAND)
    agree("du", du, da, *HAND)
    assert dh == 0  # h acts through u alone


def test_gru_step_by_hand_with_the_reset_gate_after_the_product():
    a, u, h = np.array([[0.2, -0.4, 0.5]]), np.array([[0.3, 0.1, 2.0]]), np.array([[0.6]])
    (new,), back = sm.gru_step(a, u, h)
    s = lambda v: 1 / (1 + math.exp(-v))
    r, z = s(0.5), s(-0.3)
    n = math.tanh(0.5 + r * 2.0)
    agree("h, equation (8)", new, [[(1 - z) * n + z * 0.6]], *HAND)
    da, du, dh = back(np.array([[2.0]]))
    dn, dz = 2 * (1 - z) * (1 - n**2), 2 * (0.6 - n) * z * (1 - z)
    dr = dn * 2.0 * r * (1 - r)
    agree("da of r, z, n", da, [[dr, dz, dn]], *HAND)
    agree("du of r, z, n", du, [[dr, dz, dn * r]], *HAND)
    agree("dh past the gates", dh, [[2 * z]], *HAND)


@pytest.mark.parametrize("radius", [0.5, 0.9, 1.0, 1.1, 1.5])
def test_unroll_at_rest_the_gradient_changes_by_the_spectral_radius_at_every_step(radius):
    """Equation (4) is exact when Wh is `radius` times a rotation and h stays 0."""
    rng = np.random.default_rng(1)
    Q = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    weights = sm.Recurrent(np.ones((1, 6)), radius * Q, np.zeros(6), np.zeros(6))
    for steps in [1, 5, 30]:
        dh = np.zeros((steps, 2, 6))
        dh[-1] = rng.normal(size=(2, 6))
        _, _, back = sm.unroll(sm.rnn_step, weights, np.zeros((steps, 2, 1)), np.zeros((2, 6)))
        ratio = np.linalg.norm(back(dh)[1]) / np.linalg.norm(dh)
        agree(f"|g| after {steps} steps", ratio / radius**steps, 1, 1e-10, "a rotation keeps lengths")


@pytest.mark.parametrize("kind", CELLS)
def test_unroll_the_gradient_at_early_inputs_counts_all_later_steps(kind):
    step, k, states = CELLS[kind]
    rng = np.random.default_rng(2)
    weights, x, dh = sm.init_recurrent(rng, 2, 3, k), rng.normal(size=(5, 2, 2)), np.zeros((5, 2, 3))
    dh[4] = rng.normal(size=(2, 3))
    start = [rng.normal(size=(2, 3)) for _ in range(states)]
    dc = [np.zeros((2, 3))] * (states - 1)
    dx = sm.unroll(step, weights, x, *start)[-1](dh, *dc)[0]
    agree("dx", dx, slopes(lambda: (sm.unroll(step, weights, x, *start)[0] * dh).sum(), x), *SLOPE)
    assert np.abs(dx[0]).max() > 1e-6


def test_lstm_with_open_forget_and_closed_input_gates_remembers_without_loss():
    weights = sm.init_recurrent(np.random.default_rng(0), 2, 4, 4)
    weights.bx[:4], weights.bx[4:8] = -60, 60
    c0 = np.random.default_rng(1).normal(size=(3, 4))
    x = np.random.default_rng(2).normal(size=(100, 3, 2))
    h, (_, c), back = sm.unroll(sm.lstm_step, weights, x, np.zeros((3, 4)), c0)
    agree("c after 100 steps", c, c0, *HAND)
    agree("dc0 = dc", back(np.zeros_like(h), c0)[2], c0, *HAND)


def test_gru_with_a_closed_update_gate_keeps_its_state():
    weights = sm.init_recurrent(np.random.default_rng(0), 2, 4, 3)
    weights.bx[4:8] = 60
    h0 = np.random.default_rng(1).normal(size=(3, 4))
    h, _, _ = sm.unroll(sm.gru_step, weights, np.ones((50, 3, 2)), h0)
    agree("h after 50 steps", h[-1], h0, *HAND)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (7, 3, 2, 5), (4, 1, 6, 3), (2, 5, 1, 8), (30, 2, 3, 4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_unroll_of_rnn_lstm_gru_equals_torch_in_outputs_states_and_all_gradients(kind, shape, seed):
    (T, B, D, H), rng, (step, k, states) = shape, np.random.default_rng(seed), CELLS[kind]
    weights = sm.Recurrent(*frozen(*sm.init_recurrent(rng, D, H, k)))
    x, *start = frozen(rng.normal(size=(T, B, D)), *rng.normal(size=(states, B, H)))
    upstream = frozen(rng.normal(size=(T, B, H)), *rng.normal(size=(states - 1, B, H)))
    h, last, back = sm.unroll(step, weights, x, *start)
    dx, *dstart, gradients = back(*upstream)
    module = sm.torch_recurrent(kind, weights)

    def run(x, *start):
        h, last = module(x, tuple(s[None] for s in start) if kind == "LSTM" else start[0][None])
        last = last[::-1] if kind == "LSTM" else [last]  # c first, as upstream has dc second
        return h, *(state[0] for state in last)

    theirs = sm.torch_gradients(run, [x, *start], upstream, module)
    ours = [h, *last[::-1], dx, *dstart, *gradients]
    names = ["h", *["c_T", "h_T"][-states:], "dx", *["dh0", "dc0"][:states], "dWx", "dWh", "dbx", "dbh"]
    for name, a, b in zip(names, ours, theirs, strict=True):
        agree(f"{kind} {name}", a, b, *sm.ALLOWED["layers"])


def test_unroll_back_twice_gives_the_same():
    rng = np.random.default_rng(0)
    weights, x, dh = sm.init_recurrent(rng, 2, 3, 3), rng.normal(size=(4, 2, 2)), rng.normal(size=(4, 2, 3))
    _, _, back = sm.unroll(sm.gru_step, weights, x, np.zeros((2, 3)))
    agree("second call", back(dh)[0], back(dh)[0], 0, "nothing is added up between calls")


def test_unroll_takes_lists_and_integers():
    weights = sm.init_recurrent(np.random.default_rng(0), 1, 2)
    h, _, _ = sm.unroll(sm.rnn_step, weights, [[[1]], [[2]]], [[0, 0]])
    again, _, _ = sm.unroll(sm.rnn_step, weights, np.array([[[1.0]], [[2.0]]]), np.zeros((1, 2)))
    agree("h", h, again, *HAND)


@pytest.mark.parametrize(
    "x, h0, error, words",
    [
        (np.zeros((0, 2, 3)), np.zeros((2, 4)), ValueError, "x must have a row"),
        (np.zeros((5, 2)), np.zeros((2, 4)), ValueError, "x must have 3 dimension"),
        (np.zeros((5, 2, 4)), np.zeros((2, 4)), ValueError, r"x must have shape \(None, None, 3\)"),
        (np.zeros((5, 2, 3)), np.zeros((3, 4)), ValueError, r"h0 must have shape \(2, 4\)"),
        (np.zeros((5, 2, 3)), np.zeros(4), ValueError, "h0 must have 2 dimension"),
        (np.full((5, 2, 3), np.nan), np.zeros((2, 4)), ValueError, "x must hold finite"),
        (np.zeros((5, 2, 3)), np.full((2, 4), np.inf), ValueError, "h0 must hold finite"),
        ([[["a"]]], np.zeros((2, 4)), TypeError, "x must hold real numbers"),
        (None, np.zeros((2, 4)), TypeError, "x must hold real numbers"),
    ],
)
def test_unroll_refuses_bad_input(x, h0, error, words):
    with pytest.raises(error, match=words):
        sm.unroll(sm.rnn_step, sm.init_recurrent(np.random.default_rng(0), 3, 4), x, h0)


def test_unroll_says_which_steps_have_a_cell():
    """Python's own words name the step, and the c or dc that is missing or too many."""
    rng, x, zero = np.random.default_rng(0), np.zeros((5, 2, 3)), np.zeros((2, 4))
    lstm, gru = sm.init_recurrent(rng, 3, 4, 4), sm.init_recurrent(rng, 3, 4, 3)
    with pytest.raises(TypeError, match=r"lstm_step\(\) missing 1 required positional argument: 'c'"):
        sm.unroll(sm.lstm_step, lstm, x, zero)
    with pytest.raises(TypeError, match=r"gru_step\(\) takes 3 positional arguments but 4 were given"):
        sm.unroll(sm.gru_step, gru, x, zero, zero)
    with pytest.raises(TypeError, match=r"lstm_step.*missing 1 required positional argument: 'dc'"):
        sm.unroll(sm.lstm_step, lstm, x, zero, zero)[-1](np.zeros((5, 2, 4)))
    with pytest.raises(TypeError, match=r"gru_step.*takes 1 positional argument but 2 were given"):
        sm.unroll(sm.gru_step, gru, x, zero)[-1](np.zeros((5, 2, 4)), zero)


def test_unroll_refuses_bad_gradients_and_bad_cells():
    weights, zero = sm.init_recurrent(np.random.default_rng(0), 3, 4, 4), np.zeros((2, 4))
    with pytest.raises(ValueError, match=r"c0 must have shape \(2, 4\)"):
        sm.unroll(sm.lstm_step, weights, np.zeros((5, 2, 3)), zero, np.zeros((2, 5)))
    _, _, back = sm.unroll(sm.lstm_step, weights, np.zeros((5, 2, 3)), zero, zero)
    with pytest.raises(ValueError, match=r"dh must have shape \(5, 2, 4\)"):
        back(np.zeros((4, 2, 4)), zero)
    with pytest.raises(ValueError, match=r"dc must have shape \(2, 4\)"):
        back(np.zeros((5, 2, 4)), np.zeros((1, 4)))


# --- Attention --------------------------------------------------------------------------
def test_causal_mask_by_hand():
    assert sm.causal_mask(3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    for bad, error in [(0, ValueError), (2.5, TypeError), ("3", TypeError)]:
        with pytest.raises(error, match="steps must be"):
            sm.causal_mask(bad)


def test_softmax_by_hand():
    agree("softmax", sm.softmax(np.log([[1.0, 2.0, 5.0]])), [[1 / 8, 2 / 8, 5 / 8]], *HAND)
    agree("huge scores", sm.softmax(np.array([[1e5, 1e5 - math.log(3)]])), [[3 / 4, 1 / 4]], *HAND)
    agree("tiny scores", sm.softmax(np.array([[-1e5, -1e5 - math.log(3)]])), [[3 / 4, 1 / 4]], *HAND)
    agree("masked", sm.softmax(np.array([[-np.inf, 2.0], [-np.inf, -np.inf]])), [[0, 1], [0, 0]], *HAND)
    scores = np.zeros((2, 2))
    sm.softmax(scores)
    assert not scores.any(), "softmax must not write to its input"


def test_attention_by_hand():
    """Keys log 1 and log 3 under queries of 1: weights 1/4 and 3/4. d = 1, so the root is 1."""
    o, p, back = sm.attention([[1.0]], [[0.0], [math.log(3)]], [[4.0, 0.0], [8.0, 1.0]])
    agree("P, equation (9)", p, [[0.25, 0.75]], *HAND)
    agree("O, equation (9)", o, [[7, 0.75]], *HAND)
    dq, dk, dv = back(np.array([[1.0, 0.0]]))
    agree("dV, equation (10)", dv, [[0.25, 0], [0.75, 0]], *HAND)
    ds = [0.25 * (4 - 7), 0.75 * (8 - 7)]
    agree("dK, equation (10)", dk, [[ds[0]], [ds[1]]], *HAND)
    agree("dQ, equation (10)", dq, [[ds[1] * math.log(3)]], *HAND)


def test_attention_divides_by_the_root_of_the_width():
    _, p, _ = sm.attention(np.ones((1, 4)), [[math.log(3) / 2] * 4, [0.0] * 4], np.ones((2, 1)))
    agree("P", p, [[0.75, 0.25]], *HAND)


def test_attention_with_a_causal_mask_never_sees_the_future():
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 6, 4))
    o, p, back = sm.attention(q, k, v, sm.causal_mask(6))
    k2, v2 = k.copy(), v.copy()
    k2[4:], v2[4:] = 99, -99
    agree("O before step 4", sm.attention(q, k2, v2, sm.causal_mask(6))[0][:4], o[:4], 0, "the same sums")
    do = np.zeros_like(o)
    do[3] = 1
    _, dk, dv = back(do)
    assert not dk[4:].any() and not dv[4:].any() and dv[3].all() and dk[3].any()


def attention_mask(name, rng, T, S):
    if name == "causal":
        return np.tri(T, S, dtype=bool)
    return None if name == "none" else np.vstack([rng.random((T - 1, S)) < 0.6, np.zeros((1, S), bool)])


@pytest.mark.parametrize("mask", ["none", "causal", "random, last row all masked"])
@pytest.mark.parametrize("shape", [((), 1, 1, 1, 1), ((2,), 5, 5, 4, 4), ((2, 3), 4, 7, 5, 2), ((), 6, 3, 2, 8)])
@pytest.mark.parametrize("seed", [0, 1])
def test_attention_equals_torch_in_output_and_gradients(mask, shape, seed):
    import torch

    (lead, T, S, d, e), rng = shape, np.random.default_rng(seed)
    q, k, v = frozen(rng.normal(size=(*lead, T, d)), rng.normal(size=(*lead, S, d)), rng.normal(size=(*lead, S, e)))
    mask, do = attention_mask(mask, rng, T, S), rng.normal(size=(*lead, T, e))
    o, _, back = sm.attention(q, k, v, mask)
    theirs = None if mask is None else torch.tensor(mask)
    run = torch.nn.functional.scaled_dot_product_attention
    theirs = sm.torch_gradients(lambda *qkv: [run(*qkv, theirs)], [q, k, v], [do])
    for name, a, b in zip(["O", "dQ", "dK", "dV"], [o, *back(do)], theirs, strict=True):
        agree(name, a, b, *sm.ALLOWED["layers"])


@pytest.mark.parametrize(
    "q, k, v, mask, error, words",
    [
        (np.ones((2, 3)), np.ones((2, 4)), np.ones((2, 3)), None, ValueError, "q, k, v must be"),
        (np.ones((2, 3)), np.ones((2, 3)), np.ones((3, 3)), None, ValueError, "q, k, v must be"),
        (np.ones(3), np.ones((2, 3)), np.ones((2, 3)), None, ValueError, "q must have 2 dim"),
        (np.ones((2, 3)), np.ones((2, 3)), np.full((2, 3), np.nan), None, ValueError, "v must hold finite"),
        (np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 2)), ValueError, "mask must hold booleans"),
        (np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3)), sm.causal_mask(3), ValueError, r"shape \(2, 2\)"),
        ("text", np.ones((2, 3)), np.ones((2, 3)), None, TypeError, "q must hold real"),
        (np.ones((0, 3)), np.ones((2, 3)), np.ones((2, 3)), None, ValueError, "q must have a row"),
    ],
)
def test_attention_refuses_bad_input(q, k, v, mask, error, words):
    with pytest.raises(error, match=words):
        sm.attention(q, k, v, mask)


def heads_of(rng, width):
    shapes = [(width, 3 * width), 3 * width, (width, width), width]
    return sm.Heads(*frozen(*(rng.normal(size=shape) / np.sqrt(width) for shape in shapes)))


def test_attention_takes_a_mask_as_lists():
    q, k, v = np.random.default_rng(0).normal(size=(3, 2, 3))
    o, _, _ = sm.attention(q.tolist(), k.tolist(), v.tolist(), [[True, False], [True, True]])
    agree("O", o, sm.attention(q, k, v, sm.causal_mask(2))[0], 0, "the same numbers")


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("batch, steps", [(1, 1), (2, 5), (3, 8)])
def test_multi_head_equals_torch_in_output_and_gradients(heads, causal, batch, steps):
    import torch

    rng = np.random.default_rng(heads)
    weights, (x, dy) = heads_of(rng, 12), frozen(*rng.normal(size=(2, batch, steps, 12)))
    mask = sm.causal_mask(steps) if causal else None
    y, _, back = sm.multi_head(weights, x, heads, mask)
    dx, gradients = back(dy)
    module, hidden = sm.torch_multi_head(weights, heads), None if mask is None else torch.tensor(~mask)
    theirs = sm.torch_gradients(lambda x: module(x, x, x, attn_mask=hidden)[:1], [x], [dy], module)
    for name, a, b in zip(["y", "dx", *sm.Heads._fields], [y, dx, *gradients], theirs, strict=True):
        agree(name, a, b, *sm.ALLOWED["layers"])


def test_multi_head_with_the_past_of_earlier_steps_continues_them():
    rng = np.random.default_rng(0)
    weights, x, mask = heads_of(rng, 6), rng.normal(size=(2, 7, 6)), sm.causal_mask(7)
    full, (k, v), _ = sm.multi_head(weights, x, 3, mask)
    _, past, _ = sm.multi_head(weights, x[:, :4], 3, mask[:4, :4])
    rest, now, _ = sm.multi_head(weights, x[:, 4:], 3, mask[4:], past)
    agree("y of the last three", rest, full[:, 4:], *sm.ALLOWED["cache"])
    agree("K", now[0], k, *sm.ALLOWED["cache"])
    agree("V", now[1], v, *sm.ALLOWED["cache"])


@pytest.mark.parametrize("heads, error", [(0, ValueError), (4, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_multi_head_refuses_bad_heads(heads, error):
    with pytest.raises(error, match="heads must"):
        sm.multi_head(heads_of(np.random.default_rng(0), 6), np.zeros((1, 2, 6)), heads)


def test_multi_head_refuses_another_width():
    with pytest.raises(ValueError, match=r"x must have shape \(None, None, 6\)"):
        sm.multi_head(heads_of(np.random.default_rng(0), 6), np.zeros((1, 2, 5)), 2)


# --- GPT --------------------------------------------------------------------------------
def test_layer_norm_and_its_gradient_equal_torch():
    import torch

    rng = np.random.default_rng(0)
    x, dy = frozen(5 + 3 * rng.normal(size=(2, 3, 7)), rng.normal(size=(2, 3, 7)))
    gain, bias = frozen(*rng.normal(size=(2, 7)))
    y, back = sm.layer_norm(x, gain, bias)
    theirs = sm.torch_gradients(
        lambda x, g, b: [torch.nn.functional.layer_norm(x, (7,), g, b)], [x, gain, bias], [dy])
    for name, a, b in zip(["y", "dx", "dgain", "dbias"], [y, *back(dy)], theirs, strict=True):
        agree(name, a, b, *sm.ALLOWED["layers"])
    small = sm.layer_norm(np.array([[[1e-3, -1e-3]]]), np.ones(2), np.zeros(2))[0]
    agree("eps under the root", small, [[[1 / math.sqrt(11), -1 / math.sqrt(11)]]], *HAND)


def torch_gpt_gradients(model, tokens, targets):
    """The loss of torch's twin and its gradients, in our shapes."""
    import torch

    table, positions, encoder = module = sm.torch_gpt(model)
    tokens, targets = torch.tensor(tokens), torch.tensor(targets)
    T = tokens.shape[1]
    x = table(tokens) + positions.weight[:T]
    logits = encoder(x, mask=torch.ones(T, T).triu(1) > 0) @ table.weight.T
    loss = torch.nn.functional.cross_entropy(logits.mT, targets)
    loss.backward()
    tables, inner, norm = [], [], []
    grads = [p.grad.t().numpy() for p in module.parameters()]
    tables, inner, norm = [g.T for g in grads[:2]], grads[2:-2], grads[-2:]
    stacked = [np.stack(inner[i::12]) for i in range(12)]
    return loss.item(), logits.detach().numpy(), sm.GPT(*tables, *stacked, *norm)


def noisy_gpt(rng, *args, **options):
    """A GPT whose biases and gains are random too, so that each of them matters."""
    model = sm.init_gpt(rng, *args, **options)
    return sm.GPT(*(a + 0.3 * rng.normal(size=a.shape) for a in model))


def test_layer_norm_agrees_with_neural_networks():
    """explained in neural_networks.py"""
    networks = pytest.importorskip("neural_networks")
    rng = np.random.default_rng(0)
    x, dy, (gain, bias) = rng.normal(size=(2, 3, 7)), rng.normal(size=(2, 3, 7)), rng.normal(size=(2, 7))
    y, back = sm.layer_norm(x, gain, bias)
    theirs, *pulls = networks.layer_norm(x, gain, bias)
    for a, b in zip([y, *back(dy)], [theirs, *(pull(dy) for pull in pulls)], strict=True):
        agree("layer norm", a, b, *sm.ALLOWED["layers"])


@pytest.mark.parametrize("layers, width", [(2, 32), (1, 8), (3, 16)])
def test_init_gpt_shapes_and_spread(layers, width):
    model = sm.init_gpt(np.random.default_rng(0), vocab=11, context=9, width=width, layers=layers)
    assert model.tokens.shape == (11, width) and model.positions.shape == (9, width)
    assert model.W_in.shape == (layers, width, 3 * width) and model.W_up.shape == (layers, width, 4 * width)
    assert model.W_out.shape == (layers, width, width) and model.W_down.shape == (layers, 4 * width, width)
    for name, array in model._asdict().items():
        if name.startswith(("gain", "b")):
            assert np.all(array == name.startswith("gain")), name
        else:
            assert abs(array.mean()) < 0.03 and 0.06 < array.std() < 0.1, name
    options = sm.init_gpt(np.random.default_rng(0), 11, 9)
    assert options.W_up.shape == (2, 32, 128)


@pytest.mark.parametrize("sizes, words", [((0, 6, 8, 1), "vocab"), ((5, 2.5, 8, 1), "context"), ((5, 6, 8, 0), "layers"), ((5, "6", 8, 1), "context")])
def test_init_gpt_refuses_sizes_that_leave_nothing(sizes, words):
    with pytest.raises((ValueError, TypeError), match=words):
        sm.init_gpt(np.random.default_rng(0), *sizes)


@pytest.mark.parametrize("width, words", [(12, "multiple of 8, not 12"), (4, "width must be at least 8"), (0, "width must")])
def test_init_gpt_refuses_a_width_without_whole_heads(width, words):
    with pytest.raises(ValueError, match=words):
        sm.init_gpt(np.random.default_rng(0), 5, 6, width=width)
    with pytest.raises(TypeError, match="width must be a whole number"):
        sm.init_gpt(np.random.default_rng(0), 5, 6, width=16.0)


@pytest.mark.parametrize("layers, width, vocab, context, batch, steps", [
    (1, 8, 3, 4, 1, 1), (2, 16, 7, 9, 2, 9), (3, 24, 5, 6, 3, 4), (2, 32, 20, 12, 4, 10)])
def test_gpt_loss_logits_and_all_gradients_equal_torch(layers, width, vocab, context, batch, steps):
    rng = np.random.default_rng(layers)
    model = sm.GPT(*frozen(*noisy_gpt(rng, vocab, context, width=width, layers=layers)))
    tokens, targets = rng.integers(vocab, size=(2, batch, steps))
    loss, gradients = sm.gpt_gradients(model, tokens, targets)
    their_loss, logits, theirs = torch_gpt_gradients(model, tokens, targets)
    agree("logits", sm.gpt(model, tokens)[0], logits, *sm.ALLOWED["layers"])
    agree("loss", loss, their_loss, *sm.ALLOWED["layers"])
    for name, a, b in zip(sm.GPT._fields, gradients, theirs, strict=True):
        agree(f"d{name}", a, b, *sm.ALLOWED["layers"])


def test_gpt_gradient_is_the_slope_of_the_loss():
    rng = np.random.default_rng(0)
    model = noisy_gpt(rng, 4, 5, width=8, layers=1)
    tokens, targets = rng.integers(4, size=(2, 2, 3))
    _, gradients = sm.gpt_gradients(model, tokens, targets)
    for name in ["tokens", "positions", "b_in", "gain1", "bias2", "gain"]:
        array = getattr(model, name)
        slope = slopes(lambda: sm.gpt_gradients(model, tokens, targets)[0], array)
        agree(f"d{name}", getattr(gradients, name), slope, *SLOPE)
    assert not gradients.positions[3:].any()  # positions that were not used


def test_gpt_never_sees_the_future_and_knows_the_order():
    rng = np.random.default_rng(0)
    model = noisy_gpt(rng, 6, 8, width=16)
    tokens = rng.integers(6, size=(1, 8))
    other = tokens.copy()
    other[0, 5] = (tokens[0, 5] + 1) % 6
    a, b = sm.gpt(model, tokens)[0], sm.gpt(model, other)[0]
    agree("logits before the change", b[0, :5], a[0, :5], *sm.ALLOWED["cache"])
    assert np.abs(a[0, 5:] - b[0, 5:]).max() > 1e-3
    swapped = sm.gpt(model, tokens[:, [2, 1, 0, 3, 4, 5, 6, 7]])[0]
    assert tokens[0, 0] != tokens[0, 2] and np.abs(a[0, 7] - swapped[0, 7]).max() > 1e-6


def test_gpt_untrained_is_as_surprised_as_a_die():
    rng = np.random.default_rng(0)
    loss, _ = sm.gpt_gradients(sm.init_gpt(rng, 50, 16), *rng.integers(50, size=(2, 8, 16)))
    assert abs(loss - math.log(50)) < 0.3


def test_cross_entropy_by_hand():
    loss, dlogits = sm.cross_entropy(np.log([[[1.0, 3.0], [1.0, 1.0]]]), np.array([[1, 0]]))
    agree("L, equation (13)", loss, (math.log(4 / 3) + math.log(2)) / 2, *HAND)
    agree("dlogits", dlogits, np.array([[[0.25, -0.25], [-0.5, 0.5]]]) / 2, *HAND)


def test_cross_entropy_equals_log_loss_of_utils():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(2, 3, 5)), rng.integers(5, size=(2, 3))
    p = sm.softmax(logits).reshape(6, 5)
    agree("L, equation (13)", sm.cross_entropy(logits, targets)[0], log_loss(targets.ravel(), p), *HAND)


def test_cross_entropy_of_saturated_logits_stays_finite():
    loss, dlogits = sm.cross_entropy(np.array([[[1e4, 0.0]]]), np.array([[1]]))
    agree("L", loss, 1e4, *HAND)
    agree("dlogits", dlogits, [[[1, -1]]], *HAND)


@pytest.mark.parametrize("tokens, error, words", [
    ([[0, 7]], ValueError, "tokens must hold whole numbers from 0 to 6, not 7"),
    ([[0, -1]], ValueError, "whole numbers from 0 to 6, not -1"),
    ([[0, 0.5]], ValueError, "not 0.5"),
    ([0, 1], ValueError, "tokens must have 2 dim"),
    (np.zeros((0, 3)), ValueError, "tokens must have a row"),
    ([["a"]], TypeError, "tokens must hold real"),
    (np.zeros((1, 6)), ValueError, "tokens must fit into the context of 5 steps, not be 6"),
])
def test_gpt_refuses_bad_tokens(tokens, error, words):
    with pytest.raises(error, match=words):
        sm.gpt(sm.init_gpt(np.random.default_rng(0), 7, 5, width=8), tokens)


def test_gpt_gradients_refuse_bad_targets():
    model = sm.init_gpt(np.random.default_rng(0), 7, 5, width=8)
    with pytest.raises(ValueError, match="targets must hold whole numbers from 0 to 6, not 9"):
        sm.gpt_gradients(model, [[0, 1]], [[1, 9]])
    with pytest.raises(ValueError, match="targets must have shape"):
        sm.gpt_gradients(model, [[0, 1]], [[1]])


@pytest.mark.parametrize("lr, decay", [(0.01, 0.01), (0.1, 0.3)])
def test_train_steps_as_adamw_of_torch(lr, decay):
    """explained in optimization.py; the same path on a bowl, step by step."""
    import torch

    Bowl = namedtuple("Bowl", "a b")
    start = Bowl(*frozen([[1.0, -2.0], [0.3, 4.0]], [5.0]))
    target, paths = [np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([1.0])], []

    def gradient(model, scale):
        paths.append(np.concatenate([p.ravel() for p in model]))
        return sum(((p - t) ** 2).sum() for p, t in zip(model, target)), Bowl(*(scale * (p - t) for p, t in zip(model, target)))

    model, losses = sm.train(start, gradient, [(2.0,)] * 25, lr=lr, weight_decay=decay)
    theirs = [torch.tensor(np.array(p), requires_grad=True) for p in start]
    optimizer = torch.optim.AdamW(theirs, lr=lr, weight_decay=decay)
    for path in paths:
        agree("path", path, np.concatenate([p.detach().numpy().ravel() for p in theirs]), 1e-12, "the same steps")
        optimizer.zero_grad()
        sum(((p - torch.tensor(t)) ** 2).sum() for p, t in zip(theirs, target)).backward()
        optimizer.step()
    agree("after the last step", model.a, theirs[0].detach().numpy(), 1e-12, "the same steps")
    assert isinstance(model, Bowl) and len(losses) == 25 and losses[0] > losses[-1]


def test_train_agrees_with_adamw_of_optimization():
    """explained in optimization.py; both decay by 0.01."""
    optimization = pytest.importorskip("optimization")
    start, target = np.array([1.0, -2.0, 3.0]), np.array([0.0, 1.0, 3.0])
    One = namedtuple("One", "a")
    model, _ = sm.train(One(start), lambda m: (0.0, One(2 * (m.a - target))), [()] * 30, lr=0.05)
    optimizer = optimization.AdamW(start, lr=0.05)
    for _ in range(30):
        optimizer.step(2 * (optimizer.params - target))
    agree("after 30 steps", model.a, optimizer.params, 1e-12, "the same steps")


@pytest.mark.parametrize("layers, width, seed", [(1, 16, 0), (2, 16, 1), (3, 8, 2)])
def test_train_gpt_follows_torch_for_20_steps_of_adamw(layers, width, seed):
    rng = np.random.default_rng(seed)
    model = sm.init_gpt(rng, 9, 8, width=width, layers=layers)
    ids = rng.integers(9, size=(20, 4, 9))
    batches = [(rows[:, :-1], rows[:, 1:]) for rows in ids]
    before = [a.copy() for a in model]
    _, losses = sm.train(model, sm.gpt_gradients, batches)
    agree("loss by step", losses, sm.torch_train_gpt(model, batches), *sm.ALLOWED["GPT"])
    assert all(np.array_equal(a, b) for a, b in zip(model, before)), "train must not change its start"


# --- Writing ----------------------------------------------------------------------------
def test_gpt_logits_by_the_cache_equal_recomputing():
    rng = np.random.default_rng(0)
    model = noisy_gpt(rng, 6, 9, width=16)
    tokens = rng.integers(6, size=(2, 9))
    full = sm.gpt(model, tokens)[0]
    for cut in [1, 4, 8]:
        _, past, _ = sm.gpt(model, tokens[:, :cut])
        agree(f"the rest after {cut}", sm.gpt(model, tokens[:, cut:], past)[0], full[:, cut:], *sm.ALLOWED["cache"])
    past = None
    for t in range(9):
        logits, past, _ = sm.gpt(model, tokens[:, t : t + 1], past)
        agree(f"step {t}", logits[:, 0], full[:, t], *sm.ALLOWED["cache"])
    with pytest.raises(ValueError, match="context of 9 steps, not be 10"):
        sm.gpt(model, tokens[:, :1], past)


@pytest.mark.parametrize("context", [1, 2, 7, 8])
@pytest.mark.parametrize("prompt", [1, 5, 12])
@pytest.mark.parametrize("temperature, top_k", [(0, None), (1.0, None), (0.7, 3)])
def test_generate_with_a_cache_writes_what_recomputing_writes(context, prompt, temperature, top_k):
    """Each token is drawn from the logits of the last `context` tokens, also far beyond the context."""
    rng = np.random.default_rng(context)
    model = noisy_gpt(rng, 6, context, width=8, layers=1)
    start, uniforms = rng.integers(6, size=prompt), 1 - rng.random(20)
    ids = start.tolist()
    for u in uniforms:
        logits, _, _ = sm.gpt(model, [ids[-context:]])
        ids.append(sm.pick_token(logits[0, -1], u, temperature, top_k))
    assert sm.generate(model, start, uniforms, temperature, top_k) == ids


def test_generate_computes_one_row_per_token_while_the_window_rests(monkeypatch):
    rows, real = [], sm.gpt
    monkeypatch.setattr(sm, "gpt", lambda model, tokens, past: rows.append(len(tokens[0])) or real(model, tokens, past))
    model = sm.init_gpt(np.random.default_rng(0), 6, 8, width=8, layers=1)
    sm.generate(model, [1, 2, 3], [0.5] * 5)
    assert rows == [3, 1, 1, 1, 1]
    rows.clear()
    sm.generate(model, [1, 2, 3], [0.5] * 8)
    assert rows == [3, 1, 1, 1, 1, 1, 8, 8]


def test_generate_refuses_a_bad_prompt():
    model = sm.init_gpt(np.random.default_rng(0), 6, 8, width=8)
    for bad, words in [([], "prompt must have a row"), ([6], "prompt must hold whole"), ([[1]], "prompt must have 1 dim")]:
        with pytest.raises(ValueError, match=words):
            sm.generate(model, bad, [0.5])


def test_pick_token_by_hand():
    logits = np.log([0.2, 0.5, 0.3])
    for u, token in [(1e-9, 0), (0.19, 0), (0.21, 1), (0.69, 1), (0.71, 2), (1.0, 2)]:
        assert sm.pick_token(logits, u) == token, u
    assert sm.pick_token(logits, 0.19, temperature=0.5) == 1  # 4/38, 25/38, 9/38
    assert sm.pick_token(logits, 0.10, temperature=0.5) == 0
    assert sm.pick_token(logits, 0.30, temperature=1e6) == 0  # nearly a third each
    assert sm.pick_token(logits, 0.70, temperature=1e-3) == 1
    assert [sm.pick_token(logits, u, top_k=2) for u in (1e-9, 0.62, 0.63, 1)] == [1, 1, 2, 2]
    assert [sm.pick_token(logits, u, top_k=1) for u in (1e-9, 1)] == [1, 1]
    assert [sm.pick_token(logits, u, top_k=3) for u in (1e-9, 1)] == [0, 2]
    assert sm.pick_token([1.0, 1.0, 0.0], 1.0, top_k=1) == 1  # ties stay in
    assert isinstance(sm.pick_token(logits, 0.5), int)


def test_pick_token_at_temperature_0_takes_the_likeliest_whatever_u():
    for u in [1e-9, 0.5, 1]:
        assert sm.pick_token([0.0, 3.0, 2.9], u, temperature=0) == 1
        assert sm.pick_token([0.0, 3.0, 2.9], u, temperature=0, top_k=2) == 1
        assert sm.pick_token([0.0, 3.0, 2.9], u, temperature=1e-320) == 1


def test_pick_token_draws_with_the_right_frequencies():
    u = (np.arange(1000) + 0.5) / 1000
    drawn = np.bincount([sm.pick_token(np.log([0.2, 0.5, 0.3]), one) for one in u], minlength=3)
    assert drawn.tolist() == [200, 500, 300]


def test_pick_token_stays_in_the_vocabulary_when_rounding_sums_to_less_than_one():
    rows = np.random.default_rng(0).normal(size=(200, 30))
    assert min(np.cumsum(sm.softmax(row))[-1] for row in rows) < 1
    assert all(sm.pick_token(row, 1.0) == 29 for row in rows)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 5, 30])
def test_pick_token_equals_torch_given_the_uniforms(temperature, top_k):
    import torch

    rng = np.random.default_rng(0)
    for logits, u in zip(5 * rng.normal(size=(40, 30)), 1 - rng.random(40)):
        z = torch.tensor(logits) / temperature
        if top_k:
            z[z < z.topk(top_k).values[-1]] = -torch.inf
        total = z.softmax(-1).cumsum(-1)
        theirs = int(torch.searchsorted(total, u * total[-1]))
        agree("token", sm.pick_token(logits, u, temperature, top_k), theirs, *sm.ALLOWED["whole numbers"])


@pytest.mark.parametrize("options, error, words", [
    ({"temperature": -1}, ValueError, "temperature must be at least 0, not -1"),
    ({"temperature": np.nan}, ValueError, "temperature"),
    ({"temperature": "1"}, TypeError, "temperature"),
    ({"top_k": 4}, ValueError, "top_k must be at least 1 and at most 3, not 4"),
    ({"top_k": 0}, ValueError, "top_k"),
    ({"top_k": 1.5}, TypeError, "top_k"),
    ({"u": 0}, ValueError, "u must be"),
    ({"u": 1.1}, ValueError, "u must be"),
    ({"logits": [np.nan, 1, 2]}, ValueError, "logits must hold finite"),
    ({"logits": []}, ValueError, "logits must have"),
    ({"logits": [[1.0]]}, ValueError, "logits must have 1 dim"),
])
def test_pick_token_refuses_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        sm.pick_token(**{"logits": [1.0, 2.0, 3.0], "u": 0.5, **options})


def test_ngram_perplexity_by_hand():
    train, test = np.array([0, 1, 0, 0]), np.array([0, 1, 1])
    # plus one: letters 4/6 and 2/6; pairs 0,0: 2/4, 0,1: 2/4, 1,0: 2/3, 1,1: 1/3
    agree("letters", sm.ngram_perplexity(train, test, 2, 1), (4 / 6 * 2 / 6 * 2 / 6) ** (-1 / 3), *HAND)
    agree("pairs", sm.ngram_perplexity(train, test, 2, 2), (2 / 4 * 1 / 3) ** (-1 / 2), *HAND)
    agree("uniform", sm.ngram_perplexity(np.arange(5), np.arange(5), 5, 1), 5, *HAND)


def test_make_text_is_drawn_from_18_lines_whose_pronouns_fit():
    text = sm.make_text(np.random.default_rng(0), 400)
    lines = text.splitlines()
    assert len(lines) == 400 and len(set(lines)) == 18 and text.endswith("\n")
    for line in set(lines):
        assert ("ben" in line) == (" his " in line) == (". he " in line) != (". she " in line)
        assert (" them " in line) == ("s. " in line) != (" it " in line)


def test_train_teaches_a_gpt_more_than_pairs_of_letters_know():
    rng = np.random.default_rng(0)
    text = sm.make_text(rng, 200)
    letters = sorted(set(text))
    ids = np.array([letters.index(c) for c in text])
    windows = np.lib.stride_tricks.sliding_window_view(ids, 17)[rng.integers(len(ids) - 16, size=(80, 16))]
    start = sm.init_gpt(rng, len(letters), 16, width=16, layers=1)
    _, losses = sm.train(start, sm.gpt_gradients, [(w[:, :-1], w[:, 1:]) for w in windows], lr=0.02)
    pairs = sm.ngram_perplexity(ids, ids, len(letters), 2)
    assert losses[0] > 2.9 and np.exp(np.mean(losses[-5:])) < 0.9 * pairs


# --- Tokens -----------------------------------------------------------------------------
def test_bytes_hold_every_byte_once_and_pieces_every_character():
    assert sorted(sm.BYTES) == list(range(256)) and sm.BYTES[0] == ord("!")
    text = "Hi, there.  Two\n\nlines (and) tabs\t... é 漢字 🙂 \n "
    assert "".join(sm.PIECE.findall(text)) == text
    assert sm.PIECE.findall("Hi, you two!\n") == ["Hi", ",", " you", " two", "!", "\n"]


@pytest.mark.parametrize("ids, merged", [
    ([], []), ([1], [1]), ([1, 2], [9]), ([2, 1], [2, 1]), ([1, 2, 1, 2], [9, 9]), ([1, 1, 2, 3], [1, 9, 3])])
def test_merge_pair_by_hand(ids, merged):
    assert sm.merge_pair(ids, (1, 2), 9) == merged


def test_merge_pair_of_equal_tokens_goes_from_left_to_right():
    assert sm.merge_pair([1, 1, 1], (1, 1), 9) == [9, 1]
    assert sm.merge_pair([1, 1, 1, 1], (1, 1), 9) == [9, 9]


def letter(c):
    return sm.BYTES.index(ord(c))


def test_train_bpe_by_hand():
    """ab stands 3 times, bc twice, ' a' once: ab first. Then (ab, c) twice."""
    bpe = sm.train_bpe("abc\nabc\nab", 258)
    assert bpe.tokens[256:] == [b"ab", b"abc"]
    assert bpe.merges == {(letter("a"), letter("b")): 256, (256, letter("c")): 257}
    assert sm.encode(bpe, "abcab") == [257, 256] and sm.decode(bpe, [257, 256]) == "abcab"


def test_train_bpe_gives_ties_to_the_smaller_pair_and_stops_without_pairs():
    bpe = sm.train_bpe("ba ab", 1000)
    assert bpe.tokens[256:] == [b"ab", b"ba", b" ab"]  # a < b < space, as printable ones come first
    assert len(sm.train_bpe("a", 300).tokens) == 256
    assert len(sm.train_bpe("", 300).tokens) == 256


def test_train_bpe_counts_words_as_often_as_they_stand():
    assert sm.train_bpe("xy\nab\nab", 257).tokens[256] == b"ab"
    assert sm.train_bpe("ab\nxy\nxy\nab\nxy", 257).tokens[256] == b"xy"


def test_encode_takes_the_earliest_merge_first():
    bpe = sm.BPE([bytes([b]) for b in sm.BYTES] + [b"bc", b"ab"],
                 {(letter("b"), letter("c")): 256, (letter("a"), letter("b")): 257})
    assert sm.encode(bpe, "abc") == [letter("a"), 256]


TEXTS = {
    "english": "the cat sat on the mat. the other cat (the fat one) sat there, then ran! " * 2,
    "unicode": "Die Straße grüßt: naïve Café, 東京と京都, 🙂🙂 и ещё раз ещё. " * 3,
    "code": "for i in range(10):\n    total += i * i\n\n\treturn total  # done\n" * 2,
    "repeats": "aaaa aaa aa a aaaaaaa bbbb bbb abab ababab aabb " * 3,
    "random": "".join(np.random.default_rng(0).choice(list("abc .,\n"), 600)),
    "bytes": "\x00\x7f \x85 \xa0\xad ÿ",
}


def library_merges(tokenizer):
    import json

    number = tokenizer.token_to_id
    return [(number(a), number(b)) for a, b in json.loads(tokenizer.to_str())["model"]["merges"]]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("vocab", [256, 270, 320])
def test_train_bpe_and_encode_equal_tokenizers(name, vocab):
    text = TEXTS[name]
    bpe, library = sm.train_bpe(text, vocab), sm.tokenizers_bpe(text, vocab)
    assert list(bpe.merges) == library_merges(library)
    assert len(bpe.tokens) == library.get_vocab_size() and list(bpe.merges.values()) == list(range(256, len(bpe.tokens)))
    for sample in TEXTS.values():
        ids = sm.encode(bpe, sample)
        agree(f"ids of {name}", ids, library.encode(sample).ids, *sm.ALLOWED["whole numbers"])
        assert sm.decode(bpe, ids) == sample


def test_decode_gives_back_any_text():
    rng, bpe = np.random.default_rng(0), sm.train_bpe(TEXTS["english"], 300)
    for _ in range(50):
        codes = rng.integers(1, 0x10FFFF, size=20)
        text = "".join(chr(c) for c in codes if not 0xD800 <= c < 0xE000)
        assert sm.decode(bpe, sm.encode(bpe, text)) == text
    assert sm.decode(bpe, []) == "" == sm.decode(bpe, sm.encode(bpe, ""))


def test_decode_marks_half_a_character_and_refuses_unknown_tokens():
    bpe = sm.train_bpe("x", 256)
    assert sm.decode(bpe, sm.encode(bpe, "é")[:1]) == "\ufffd"
    for bad in [[256], [-1], [0.5]]:
        with pytest.raises(ValueError, match="ids must hold whole numbers from 0 to 255"):
            sm.decode(bpe, bad)


def test_train_bpe_refuses_a_vocabulary_without_all_bytes():
    with pytest.raises(ValueError, match="vocab must be at least 256, not 255"):
        sm.train_bpe("text", 255)
    with pytest.raises(TypeError, match="vocab must be a whole number"):
        sm.train_bpe("text", 300.5)


# --- Forecasting ------------------------------------------------------------------------
def test_make_windows_by_hand():
    X, y = sm.make_windows([1, 2, 3, 4, 5], 2)
    assert X.tolist() == [[1, 2], [2, 3], [3, 4]] and y.tolist() == [3, 4, 5]
    X, y = sm.make_windows([1, 2, 3, 4, 5], 2, ahead=3)
    assert X.tolist() == [[1, 2]] and y.tolist() == [5]
    X, y = sm.make_windows([1, 2], 1)
    assert X.tolist() == [[1]] and y.tolist() == [2]


@pytest.mark.parametrize("series, p, ahead, error, words", [
    ([1, 2, 3], 3, 1, ValueError, r"p \(the window\) must be at least 1 and at most 2, not 3"),
    ([1, 2, 3], 2, 2, ValueError, "p "),
    ([1, 2, 3], 0, 1, ValueError, "p "),
    ([1, 2, 3], 1, 0, ValueError, "ahead must be at least 1"),
    ([1, 2, 3], 1, 5, ValueError, "p "),
    ([1, 2, 3], 1.5, 1, TypeError, "p "),
    ([1, 2, 3], 1, 1.0, TypeError, "ahead must be a whole number"),
    ([1, np.nan, 3], 1, 1, ValueError, "series must hold finite"),
    ([], 1, 1, ValueError, "series must have"),
    ([[1, 2, 3]], 1, 1, ValueError, "series must have 1 dim"),
    (["a", "b"], 1, 1, TypeError, "series must hold real"),
])
def test_make_windows_refuses_bad_input(series, p, ahead, error, words):
    with pytest.raises(error, match=words):
        sm.make_windows(series, p, ahead)


@pytest.mark.parametrize("n, k, gap", [(10, 2, 0), (11, 3, 0), (100, 5, 7), (7, 6, 0), (25, 4, 4), (6, 2, 1)])
def test_time_folds_equal_time_series_split(n, k, gap):
    from sklearn.model_selection import TimeSeriesSplit

    ours, theirs = sm.time_folds(n, k, gap), list(TimeSeriesSplit(k, gap=gap).split(np.zeros((n, 1))))
    assert len(ours) == len(theirs) == k
    for (train, test), (their_train, their_test) in zip(ours, theirs):
        agree("train", train, their_train, *sm.ALLOWED["whole numbers"])
        agree("test", test, their_test, *sm.ALLOWED["whole numbers"])
        assert train.max() + gap < test.min()


@pytest.mark.parametrize("n, k, gap, error, words", [
    (5, 5, 0, ValueError, "k must be"), (5, 0, 0, ValueError, "k must be"), (10, 2, -1, ValueError, "gap must be"),
    ("10", 2, 0, TypeError, "n must be"), (1, 1, 0, ValueError, "n must be at least 2"),
    (10, 2, 4, ValueError, "gap must be at least 0 and below 4"), (10, 1.5, 0, TypeError, "k must be"),
    (10.0, 2, 0, TypeError, "n must be a whole number"), (10, 2, 1.0, TypeError, "gap must be a whole number")])
def test_time_folds_refuse_what_leaves_nothing_to_train_on(n, k, gap, error, words):
    with pytest.raises(error, match=words):
        sm.time_folds(n, k, gap)


def test_seasonal_naive_by_hand():
    series = [1, 2, 3, 4, 5, 6]
    assert sm.seasonal_naive(series, 4).tolist() == [4, 5]
    assert sm.seasonal_naive(series, 4, period=3).tolist() == [2, 3]
    assert sm.seasonal_naive(series, 3, period=3).tolist() == [1, 2, 3]
    for period, error in [(5, ValueError), (0, ValueError), (1.5, TypeError)]:
        with pytest.raises(error, match="period must be"):
            sm.seasonal_naive(series, 4, period)
    for start, error in [(0, ValueError), (6, ValueError), (None, TypeError), (4.0, TypeError)]:
        with pytest.raises(error, match="start must be"):
            sm.seasonal_naive(series, start)


def test_fit_autoregression_finds_the_rule_of_a_series():
    """y = 2 + 0.5 y(t-1) - 0.3 y(t-2), without noise."""
    series = [1.0, -2.0]
    for _ in range(12):
        series.append(2 + 0.5 * series[-1] - 0.3 * series[-2])
    w, b = sm.fit_autoregression(*sm.make_windows(series, 2))
    agree("w", w, [-0.3, 0.5], 1e-10, "the series is exact")
    agree("b", b, 2, 1e-10, "the series is exact")


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("p", [1, 5, 24])
def test_fit_autoregression_equals_scikit_learn_and_linear_models(seed, p):
    X, y = sm.make_windows(make_series(np.random.default_rng(seed), 120), p)
    w, b = sm.fit_autoregression(*frozen(X, y))
    model = sm.sklearn_autoregression(X, y)
    agree("w", w, model.coef_, *sm.ALLOWED["autoregression"])
    agree("b", b, model.intercept_, *sm.ALLOWED["autoregression"])
    w2, b2 = linear_models.fit_linear_regression(X, y)
    agree("w of linear_models.py", w, w2, *sm.ALLOWED["autoregression"])
    agree("b of linear_models.py", b, b2, *sm.ALLOWED["autoregression"])


@pytest.mark.parametrize("series", [np.full(20, 7.0), np.arange(20.0), 1e6 + np.arange(20) % 2, np.zeros(20)])
def test_fit_autoregression_of_a_series_that_leaves_weights_open_takes_the_shortest(series):
    X, y = sm.make_windows(series, 3)
    w, b = sm.fit_autoregression(X, y)
    model = sm.sklearn_autoregression(X, y)
    agree("forecasts", X @ w + b, y, 1e-9, "the rule is exact")
    agree("w", w, model.coef_, 1e-8, "columns that differ by rounding alone")


def test_fit_autoregression_refuses_bad_input():
    with pytest.raises(ValueError, match="y must have shape"):
        sm.fit_autoregression(np.ones((3, 2)), np.ones((3, 1)))
    with pytest.raises(ValueError, match="X must hold finite"):
        sm.fit_autoregression([[np.inf]], [1])


def forecaster_of(rng, width=4):
    return sm.Forecaster(*sm.init_recurrent(rng, 1, width), rng.normal(size=width), rng.normal(size=1))


def torch_forecaster(model):
    """nn.RNN and nn.Linear with our weights."""
    from torch import nn

    module = nn.ModuleList([nn.RNN(1, len(model.w)), nn.Linear(len(model.w), 1)])
    return sm.torch_copy(module, [*model[:4], model.w[:, None], model.b])


def test_forecast_rnn_equals_torch():
    import torch

    rng = np.random.default_rng(0)
    model, X = forecaster_of(rng), rng.normal(size=(6, 5))
    rnn, linear = torch_forecaster(model)
    theirs = linear(rnn(torch.tensor(X.T[:, :, None].copy()))[0][-1])[:, 0].detach().numpy()
    agree("forecasts", sm.forecast_rnn(model, X)[0], theirs, *sm.ALLOWED["layers"])


def test_forecaster_gradients_are_the_slopes_of_the_error():
    rng = np.random.default_rng(0)
    model, X, y = forecaster_of(rng), rng.normal(size=(6, 5)), rng.normal(size=6)
    error, gradients = sm.forecaster_gradients(model, X, y)
    agree("error", error, np.mean((y - sm.forecast_rnn(model, X)[0]) ** 2), *HAND)
    for name, array, ours in zip(model._fields, model, gradients):
        slope = slopes(lambda: sm.forecaster_gradients(model, X, y)[0], array)
        agree(f"d{name}", ours, slope, *SLOPE)


def test_train_of_a_forecaster_follows_torch():
    import torch

    rng = np.random.default_rng(0)
    model, X, y = forecaster_of(rng), rng.normal(size=(30, 6)), rng.normal(size=30)
    _, losses = sm.train(model, sm.forecaster_gradients, [(X, y)] * 20)
    rnn, linear = module = torch_forecaster(model)
    optimizer, theirs = torch.optim.AdamW(module.parameters(), lr=0.01), []
    for _ in range(20):
        loss = ((linear(rnn(torch.tensor(X.T[:, :, None].copy()))[0][-1])[:, 0] - torch.tensor(y)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        theirs.append(loss.item())
    agree("loss by step", losses, theirs, *sm.ALLOWED["GPT"])


@pytest.fixture(scope="module")
def forecasts():
    series = make_series(np.random.default_rng(0), 200, period=7)
    return SimpleNamespace(series=series, result=sm.forecast_all(series, p=14))


def test_forecast_all_finds_the_season_and_beats_the_baselines(forecasts):
    table, y, _ = forecasts.result
    assert list(table) == ["naive", "seasonal naive, 7 steps", "autoregression, 14 steps", "RNN, 14 steps"]
    cut = 14 + 3 * 186 // 4
    agree("true values", y, forecasts.series[cut:], 0, "the last quarter of the windows")
    agree("naive", table["naive"], forecasts.series[cut - 1 : -1], 0, "the value before")
    agree("seasonal", table["seasonal naive, 7 steps"], forecasts.series[cut - 7 : -7], 0, "a season before")
    errors = [mse(y, values) for values in table.values()]
    assert errors[1] < errors[0] and max(errors[2:]) < 0.8 * min(errors[:2])


def test_find_period_by_hand():
    assert sm.find_period(np.array([1, 5, 2, 1, 5, 2, 1, 5, 2, 1])) == 3
    assert sm.find_period(np.array([0, 9, 0, 9, 0, 9, 0, 9, 0])) == 2  # not 4, which fits as well
    assert sm.find_period(np.array([0, 0, 3, 1, 1, 4, 2, 2])) == 3  # lag 2 is off by 28/6, lag 3 by 5/5


def test_fit_rnn_scales_by_the_spread_of_the_training_part_alone():
    """The same by hand: 12 windows, of which 9 train; their changes have the spread that counts."""
    series, rng = np.random.default_rng(1).normal(size=40).cumsum(), np.random.default_rng(0)
    X, y = sm.make_windows(series, 28)
    change = y - X[:, -1]
    spread = change[:9].std()
    start = sm.Forecaster(*sm.init_recurrent(rng, 1, 16), rng.normal(size=16) / 4, np.zeros(1))
    windows = (X - X[:, -1:]) / spread
    model, _ = sm.train(start, sm.forecaster_gradients, [(windows[:9], change[:9] / spread)] * 200)
    expected = X[9:, -1] + spread * sm.forecast_rnn(model, windows[9:])[0]
    table, truth, _ = sm.forecast_all(series, p=28)
    agree("RNN", table["RNN, 28 steps"], expected, 1e-9, "the same steps")
    agree("true values", truth, y[9:], 0, "the last three")


@pytest.mark.parametrize("period", [4, 7, 12])
def test_forecast_all_takes_the_shortest_good_season_not_a_multiple(period):
    series = make_series(np.random.default_rng(1), 160, period=period, trend=0, noise=0.1)
    assert f"seasonal naive, {period} steps" in sm.forecast_all(series, p=6)[0]
    exact = np.tile(np.random.default_rng(2).normal(size=period), 60 // period)
    assert f"seasonal naive, {period} steps" in sm.forecast_all(exact, p=6)[0]


def test_forecast_all_does_not_look_ahead(forecasts):
    """Another future, the same forecasts of all that comes before it is known."""
    changed = forecasts.series.copy()
    changed[180:] = 5 - changed[180:]
    table, y, _ = sm.forecast_all(changed, p=14)
    begin = len(changed) - len(y)
    for name, values in table.items():
        agree(name, values[: 181 - begin], forecasts.result[0][name][: 181 - begin], 1e-12, "the same past")
        assert np.abs(values[181 - begin :] - forecasts.result[0][name][181 - begin :]).max() > 0.1


def test_forecast_all_of_a_trend_stays_in_range():
    """A straight line leaves the training range; forecasts relative to the last value follow it."""
    table, y, _ = sm.forecast_all(np.arange(80.0) + 0.1 * np.sin(np.arange(80)), p=8)
    assert mse(y, table["RNN, 8 steps"]) < mse(y, table["naive"]) / 4


def test_forecast_all_of_a_constant_series_is_exact():
    table, y, _ = sm.forecast_all(np.full(60, 3.0), p=5)
    for name, values in table.items():
        if "RNN" not in name:
            agree(name, values, y, 1e-10, "nothing changes")
        assert np.isfinite(values).all()


def test_show_forecasts_says_so_when_a_baseline_wins(capsys):
    y = np.array([1.0, 2.0])
    sm.show_forecasts({"naive": y + 0.1, "RNN": y + 0.2}, y, False)
    out = capsys.readouterr().out
    assert "lowest: naive. No model beats this baseline" in out
    assert "naive                             0.1\n" in out and "RNN                               0.2\n" in out
    sm.show_forecasts({"naive": y + 3.0, "RNN": y + 0.2}, y, False)
    assert capsys.readouterr().out.endswith("lowest: RNN\n")
    sm.show_forecasts({"naive": y, "RNN": y}, y, False)
    assert "lowest: naive." in capsys.readouterr().out


def test_show_forecasts_saves_a_picture_when_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sm.show_forecasts({"naive": np.zeros(3)}, np.ones(3), True)
    assert [path.name for path in tmp_path.iterdir()] == ["sequence_models_forecast.png"]


def write_csv(tmp_path, values):
    path = tmp_path / "series.csv"
    path.write_text("day,load,name\n" + "".join(f"{i},{v},x\n" for i, v in enumerate(values)))
    return path


def test_on_csv_compares_models_with_baselines(tmp_path, capsys):
    sm.on_csv(write_csv(tmp_path, make_series(np.random.default_rng(0), 120)), "load", False)
    out = capsys.readouterr().out
    assert all(word in out for word in ["load:", "naive", "seasonal naive, 12", "autoregression, 15", "RNN, 15", "lowest"])


def test_on_csv_says_that_nothing_beats_the_last_value_of_a_random_walk(tmp_path, capsys):
    walk = np.random.default_rng(0).normal(size=160).cumsum()
    sm.on_csv(write_csv(tmp_path, walk), "load", False)
    assert "No model beats this baseline" in capsys.readouterr().out


@pytest.mark.parametrize("values, column, words", [
    (range(50), "lode", "no column 'lode'; it has day, load, name"),
    (range(50), "name", "column 'name' must hold numbers, without text or gaps"),
    ([*range(49), ""], "load", "without text or gaps"),
    (range(39), "load", "the length of series must be at least 40, not 39"),
    (range(3), "load", "the length of series must be at least 40, not 3"),
])
def test_on_csv_refuses_what_it_cannot_forecast(tmp_path, values, column, words):
    with pytest.raises(ValueError, match=words):
        sm.on_csv(write_csv(tmp_path, values), column, False)


def test_on_csv_takes_40_values(tmp_path, capsys):
    sm.on_csv(write_csv(tmp_path, range(40)), "load", False)
    assert "autoregression, 5 steps" in capsys.readouterr().out
    sm.on_csv(write_csv(tmp_path, range(210)), "load", False)
    assert "autoregression, 24 steps" in capsys.readouterr().out


@pytest.mark.parametrize("period", [2, 3, 15])
def test_forecast_all_finds_the_season_of_the_training_part(period):
    """The shortest and the longest that 40 values allow; 31 of the windows' targets are the past."""
    rng = np.random.default_rng(0)
    series = np.resize(rng.normal(size=period), 44) + 1e-3 * rng.normal(size=44)
    forecasts, y, _ = sm.forecast_all(series, p=1)
    assert f"seasonal naive, {period} steps" in forecasts
    seasonal = forecasts[f"seasonal naive, {period} steps"]
    agree("a season ago", seasonal, series[len(series) - len(y) - period : len(series) - period], 0, "the same numbers")
