"""neural_networks.py, in the order it is read: `pytest -x` names the first wrong equation."""

import functools
import math

import numpy as np
import pytest
import torch
from conftest import agree

import neural_networks as nn
from neural_networks import Layer, Tensor
from utils import accuracy

HAND = (1e-12, "worked by hand")
rng = np.random.default_rng(7)
digits = functools.cache(nn.load_digits_split)  # reading the file takes as long as learning from it


def same_as_torch(row, f, *inputs, **options):
    """Output and every gradient, for a random upstream gradient."""
    ours, theirs = nn.beside_torch(f, *inputs, **options)
    for i, pair in enumerate(zip(ours, theirs, strict=True)):
        what = "output" if i == 0 else f"gradient of input {i - 1}"
        agree(f"{f.__name__} {what} {options}", *pair, *nn.ALLOWED[row])


def torch_gradcheck(f, *inputs, **options):
    """torch's own verdict on f and its pulls, wrapped as a link of its chain."""

    class Ours(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            out, *ctx.pulls = f(*(t.detach().numpy().copy() for t in tensors), **options)
            return torch.tensor(out)

        @staticmethod
        def backward(ctx, g):
            return tuple(torch.tensor(pull(g.numpy())) for pull in ctx.pulls)

    return torch.autograd.gradcheck(Ours.apply, [*map(nn.torch_leaf, inputs)], raise_exception=False)


def walk_beside_torch(row, layers, X, y, loss, l2=0.0, steps=100):
    """From the same start: J before each step; after the last one every parameter, and dJ/dX."""
    losses, p = nn.torch_train(layers, [(X, y)] * steps, loss, 0.1, l2)
    ours = [nn.train_step(layers, X, y, loss, 0.1, l2) for _ in range(steps)]
    agree("J of each step", ours, losses, *nn.ALLOWED[row])
    for i, (a, b) in enumerate(zip(nn.parameters(layers), p, strict=True)):
        agree(f"parameter {i}", a, b, *nn.ALLOWED[row])
    dx, library = nn.backward(layers, loss(nn.forward(layers, X, True), y)[1](1.0)), nn.torch_functions()
    z, rest = (x := nn.torch_leaf(X)), iter(p)
    for layer in layers:
        z = library[layer.f](z, *[next(rest) for _ in layer.params], **layer.options)
    library[loss](z, torch.tensor(y)).backward()
    agree("dJ/dX", dx, x.grad, *nn.ALLOWED[row])


def check_pulls(f, *inputs, **options):
    """Every pull is the slope of f."""
    for i, error in enumerate(nn.check_gradients(np.random.default_rng(54321), f, *inputs, **options)):
        agree(f"{f.__name__}: relative error, input {i}", error, 0.0, *nn.ALLOWED["gradient check"])


# --- Input ------------------------------------------------------------------------------
BAD = {
    "nan": ([[1.0, np.nan]], ValueError, "finite"),
    "inf": (np.array([[1.0, np.inf]]), ValueError, "finite"),
    "text": ([["a", "b"]], TypeError, "not text"),
    "None": (None, TypeError, "real numbers"),
    "complex": ([[1j, 2]], TypeError, "complex"),
    "ragged": ([[1.0], [1.0, 2.0]], ValueError, "rectangular"),
    "no row": (np.zeros((0, 2)), ValueError, r"\(0, 2\)"),
    "no column": (np.zeros((2, 0)), ValueError, r"\(2, 0\)"),
    "wrong width": (np.zeros((2, 3)), ValueError, r"\(None, 2\), not \(2, 3\)"),
    "one axis": (np.zeros(2), ValueError, "must have"),
    "three axes": (np.zeros((1, 1, 2)), ValueError, "must have"),
}


@pytest.mark.parametrize("case", BAD)
def test_check_batch_linear_forward_train_step_refuse_bad_input(case):
    bad, error, message = BAD[case]
    layers = [Layer(nn.linear, np.ones((2, 1)), [0.0])]
    for way in [lambda: nn.linear(bad, np.ones((2, 1)), np.zeros(1)), lambda: nn.forward(layers, bad),
                lambda: nn.train_step(layers, bad, [[0.0]], nn.squared_error, 0.1)]:  # fmt: skip
        with pytest.raises(error, match=message):
            way()


def test_check_batch_keeps_float32_and_converts_integers_and_lists():
    for shape in [(2, 2), (1,), ()]:
        assert nn.check_batch("x", np.ones(shape, np.float32)).dtype == np.float32
    assert nn.check_batch("x", [[1, 2]], (None, 2)).dtype == np.float64
    assert nn.check_batch("x", 3).shape == ()
    x = np.ones((2, 3))
    assert nn.check_batch("x", x, (None, 3)) is x
    with pytest.raises(ValueError, match=r"b must have shape \(None, 4\), not \(2, 3\)"):
        nn.check_batch("b", x, (None, 4))
    for shape in [(), (2,), (2, 3, None)]:
        with pytest.raises(ValueError, match=r"b must have"):
            nn.check_batch("b", x, shape)
    with pytest.raises(ValueError, match="b must be rectangular"):
        nn.check_batch("b", [[1.0], [1.0, 2.0]])


def test_side_by_side_compares_all_numbers_of_both_lists(capsys):
    pairs = {"what": ([np.ones((2, 2)), 3.0], [np.ones((2, 2)), 3.0 + 3e-11])}
    [close], [far] = (nn.side_by_side(row, pairs) for row in ("layer", "formula"))
    assert close.ok and not far.ok and far.what == "what" and far.where == " at index 4"
    assert "what" in capsys.readouterr().out


# --- One neuron -------------------------------------------------------------------------
def test_neuron_by_hand():
    J, dx, dw, db = nn.neuron([1, 2], [2, -1], 0, 1)
    agree("J, equation (1)", J, 1 / 8, *HAND)
    agree("dJ/dw, equation (3)", dw, [-1 / 8, -1 / 4], *HAND)
    agree("dJ/db, equation (3)", db, -1 / 8, *HAND)
    agree("dJ/dx, equation (3)", dx, [-1 / 4, 1 / 8], *HAND)


def test_neuron_with_a_bias_matches_torch():
    x, w, b, y = [0.5, -1.0, 2.0], [0.3, 0.7, -0.2], 0.4, 0.25
    formula = lambda x, w, b: ((1 + (-(w @ x + b)).exp()) ** -1 - y) ** 2 / 2
    theirs = nn.gradients(nn.torch_leaf, formula, x, w, b)
    for name, a, t in zip(("J", "dx", "dw", "db"), nn.neuron(x, w, b, y), theirs):
        agree(name, a, t, *nn.ALLOWED["formula"])


def test_neuron_saturates_without_overflow():
    for sign, a in ((1, 1), (-1, 0)):
        J, dx, dw, db = nn.neuron([1e3 * sign], [1e3], 0, 0.5)
        agree("J", J, (a - 0.5) ** 2 / 2, *HAND)
        agree("slopes", [dx[0], dw[0], db], [0, 0, 0], *HAND)


def test_neuron_refuses_weights_of_another_length():
    with pytest.raises(ValueError, match=r"w must have shape \(2,\), not \(3,\)"):
        nn.neuron([1, 2], [1, 2, 3], 0, 1)
    with pytest.raises(TypeError, match="b must be a number"):
        nn.neuron([1, 2], [1, 2], "0", 1)
    with pytest.raises(ValueError, match="y must be finite"):
        nn.neuron([1, 2], [1, 2], 0, math.nan)


# --- Activations and losses ----------------------------------------------------------------
@pytest.mark.parametrize("f, z, a, slope", [
    (nn.sigmoid, math.log(3), 3 / 4, 3 / 16), (nn.sigmoid, -1000.0, 0, 0), (nn.sigmoid, 1000.0, 1, 0),
    (nn.tanh, math.log(2), 3 / 5, 16 / 25), (nn.relu, 2.0, 2, 1), (nn.relu, -2.0, 0, 0),
    (nn.relu, 0.0, 0, 0), (nn.gelu, 0.0, 0, 1 / 2), (nn.gelu, 40.0, 40, 1), (nn.gelu, -40.0, 0, 0),
    (nn.gelu, 1.0, 0.8413447460685429, 0.8413447460685429 + math.exp(-0.5) / math.sqrt(2 * math.pi)),
])  # fmt: skip
def test_sigmoid_tanh_relu_gelu_by_hand(f, z, a, slope):
    out, pull = f(np.array([z]))
    agree(f"{f.__name__}({z:g})", out, [a], *HAND)
    agree(f"slope of {f.__name__} at {z:g}, times 2", pull(np.array([2.0])), [2 * slope], *HAND)


@pytest.mark.parametrize("f", [*nn.BENDS, nn.softmax], ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape, scale", [((5, 4), 1), ((3, 2, 6), 1), ((40, 3), 30)])
def test_sigmoid_tanh_relu_gelu_softmax_match_torch(f, shape, scale):
    z = scale * np.random.default_rng(0).normal(size=shape)
    same_as_torch("formula", f, z)
    if scale == 1:
        check_pulls(f, z)


@pytest.mark.parametrize("f", [*nn.BENDS, nn.softmax], ids=lambda f: f.__name__)
def test_sigmoid_tanh_relu_gelu_softmax_keep_float32(f):
    out, pull = f(np.ones((2, 3), np.float32))
    assert out.dtype == np.float32 and pull(np.ones((2, 3), np.float32)).dtype == np.float32


@pytest.mark.parametrize("f", [*nn.BENDS, nn.softmax, nn.Tensor.relu], ids=lambda f: f.__name__)
def test_sigmoid_tanh_relu_gelu_softmax_refuse_nonsense(f):
    f = (lambda z: nn.Tensor(z).relu()) if f is nn.Tensor.relu else f
    for bad, error, message in [([[1.0, np.nan]], ValueError, "finite"), (np.array([np.inf]), ValueError, "finite"),
                                (np.zeros((0, 3)), ValueError, r"\(0, 3\)"), ("a", TypeError, "text"),
                                (None, TypeError, "real numbers")]:  # fmt: skip
        with pytest.raises(error, match=message):
            f(bad)


def test_softmax_by_hand_saturated_and_shifted():
    p, pull = nn.softmax(np.log([[1.0, 2, 5]]))
    agree("softmax", p, [[1 / 8, 2 / 8, 5 / 8]], *HAND)
    agree("softmax, pull of (8, 0, 0)", pull(np.array([[8.0, 0, 0]])), [[7 / 8, -2 / 8, -5 / 8]], *HAND)
    agree("softmax, saturated", nn.softmax(np.array([[1000.0, 0, -1000]]))[0], [[1, 0, 0]], *HAND)
    z = rng.normal(size=(3, 4))
    agree("softmax, shifted", nn.softmax(z + 7)[0], nn.softmax(z)[0], *HAND)


@pytest.mark.parametrize("loss, z, y, J, slope", [
    (nn.squared_error, [[1.0, 2.0]], [[0.0, 4.0]], 5 / 2, [[1, -2]]),
    (nn.binary_cross_entropy, [math.log(3), 0.0], [1.0, 0.0], math.log(8 / 3) / 2, [-1 / 8, 1 / 4]),
    (nn.binary_cross_entropy, [-1000.0], [1.0], 1000, [-1]),
    (nn.binary_cross_entropy, [1000.0], [1.0], 0, [0]),
    (nn.cross_entropy, [[0.0, math.log(3)]], [0], math.log(4), [[-3 / 4, 3 / 4]]),
    (nn.cross_entropy, [[1000.0, 0.0], [0, 0]], [1, 1], 500 + math.log(2) / 2, [[1 / 2, -1 / 2], [1 / 4, -1 / 4]]),
])  # fmt: skip
def test_squared_error_binary_cross_entropy_cross_entropy_by_hand(loss, z, y, J, slope):
    ours, pull = loss(np.array(z), y)
    agree("J", ours, J, *HAND)
    agree("dJ/dz", pull(1.0), slope, *HAND)


@pytest.mark.parametrize("seed, n, k, scale", [(0, 1, 2, 1), (1, 7, 3, 1), (2, 20, 5, 50)])
def test_squared_error_binary_cross_entropy_cross_entropy_match_torch(seed, n, k, scale):
    rng = np.random.default_rng(seed)
    z, y = scale * rng.normal(size=(n, k)), rng.random((n, k))
    for loss in nn.LOSSES:
        target = rng.integers(k, size=n) if loss is nn.cross_entropy else y
        same_as_torch("formula", loss, z, y=target)
        if scale == 1:
            check_pulls(loss, z, y=target)


@pytest.mark.parametrize("y, message", [
    ([0, 3], "0 to 2, not 3"), ([0, -1], "0 to 2, not -1"), ([0, 0.5], "0 to 2, not 0.5"),
    ([0], r"\(2,\), not \(1,\)"), ([[0], [1]], "must have"), ([0, np.nan], "finite"),
])  # fmt: skip
def test_cross_entropy_refuses_labels(y, message):
    with pytest.raises(ValueError, match=message):
        nn.cross_entropy(np.zeros((2, 3)), np.array(y))


def test_squared_error_binary_cross_entropy_cross_entropy_take_lists_and_refuse_nan():
    for loss, y in [(nn.squared_error, [[0, 1]]), (nn.binary_cross_entropy, [[0, 1]]), (nn.cross_entropy, [1])]:
        assert np.isfinite(loss([[1, 2]], y)[0])
        with pytest.raises(ValueError, match="z must hold finite"):
            loss(np.array([[np.nan, 1.0]]), y)


def test_squared_error_and_binary_cross_entropy_refuse_another_shape():
    """(n,) against (n, 1) would broadcast to (n, n)."""
    for loss in (nn.squared_error, nn.binary_cross_entropy):
        with pytest.raises(ValueError, match=r"y must have shape \(4, 1\), not \(4,\)|dimension"):
            loss(np.zeros((4, 1)), np.zeros(4))
    for y in ([0.5, 1.5], [-0.5, 0.5]):
        with pytest.raises(ValueError, match="y must hold numbers from 0 to 1"):
            nn.binary_cross_entropy(np.zeros(2), y)
    with pytest.raises(ValueError, match="z must have shape"):
        nn.cross_entropy(np.zeros(3), [0, 1, 1])
    for loss in (nn.squared_error, nn.binary_cross_entropy):
        with pytest.raises(ValueError, match="y must have"):
            loss(0.5, [0.0, 1.0])  # one score, two answers


# --- Layers and backpropagation --------------------------------------------------------------
def test_linear_by_hand():
    x, W, b = np.array([[1.0, 2.0], [0, 1]]), np.array([[1.0, 0], [3, -1]]), np.array([10.0, 20])
    z, to_x, to_W, to_b = nn.linear(x, W, b)
    g = np.array([[1.0, 2.0], [3, 4]])
    agree("z, equation (12)", z, [[17, 18], [13, 19]], *HAND)
    agree("dJ/dx, equation (12)", to_x(g), [[1, 1], [3, 5]], *HAND)
    agree("dJ/dW, equation (12)", to_W(g), [[1, 2], [5, 8]], *HAND)
    agree("dJ/db, equation (12)", to_b(g), [4, 6], *HAND)


def test_linear_matches_torch_and_refuses_shapes_that_do_not_fit():
    x, W, b = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)
    same_as_torch("layer", nn.linear, x, W, b)
    check_pulls(nn.linear, x, W, b)
    with pytest.raises(ValueError, match=r"x must have shape \(None, 3\), not \(5, 4\)"):
        nn.linear(np.zeros((5, 4)), W, b)
    with pytest.raises(ValueError, match=r"b must have shape \(4,\), not \(3,\)"):
        nn.linear(x, W, b[:3])


def test_layer_trains_copies_and_leaves_its_input_alone():
    W, x = np.ones((2, 2)), np.ones((3, 2))
    layers = [Layer(nn.linear, W, np.zeros(2)), Layer(nn.relu)]
    x.flags.writeable = False
    nn.train_step(layers, x, np.zeros((3, 2)), nn.squared_error, lr=0.1)
    assert (W == 1).all() and not (layers[0].params[0] == 1).any()


def test_layer_forward_backward_refuse_nonsense():
    layers = [Layer(nn.linear, np.ones((2, 3)), np.zeros(3))]
    with pytest.raises(ValueError, match="backward of linear needs a call of forward first"):
        nn.backward(layers, np.ones((1, 3)))
    with pytest.raises(ValueError, match="backward of relu needs a call of forward first"):
        nn.backward([*layers, Layer(nn.relu)], np.ones((1, 3)))
    nn.forward(layers, [[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"grad must have shape \(1, 3\), not \(1, 2\)"):
        nn.backward(layers, np.ones((1, 2)))
    with pytest.raises(ValueError, match="grad must hold finite"):
        nn.backward(layers, [[1.0, np.nan, 1.0]])
    with pytest.raises(TypeError, match="f must be a function, such as relu, not 'relu'"):
        Layer("relu")
    with pytest.raises(ValueError, match="W must hold finite"):
        nn.linear([[1.0]], [[np.inf]], [0.0])
    with pytest.raises(ValueError, match="a parameter of linear must hold finite"):
        Layer(nn.linear, [[np.nan]], [0.0])
    assert nn.backward(layers, np.ones((1, 3)), to_input=False) is None
    agree("grads of to_input=False", layers[0].grads[1], [1, 1, 1], *HAND)


@pytest.mark.parametrize("bend", nn.BENDS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("loss", nn.LOSSES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("l2", [0.0, 0.02])
def test_train_step_100_times_matches_torch(bend, loss, l2):
    rng = np.random.default_rng(len(bend.__name__))
    X, y = rng.normal(size=(20, 4)), rng.random((20, 3))
    y = y.argmax(axis=1) if loss is nn.cross_entropy else y
    layers = nn.make_mlp(rng, (4, 6, 5, 3), bend)
    walk_beside_torch("layer", layers, X, y, loss, l2)


def test_train_step_by_hand():
    """One weight, one row: J = (w - 3)^2 + w^2 / 2 at w = 1 is 4.5, slope -4 + 1."""
    layers = [Layer(nn.linear, [[1.0]], [0.0])]
    J = nn.train_step(layers, [[1.0]], [[3.0]], nn.squared_error, lr=0.1, l2=1.0)
    agree("J", J, 4.5, *HAND)
    agree("w, penalised", layers[0].params[0], [[1.3]], *HAND)
    agree("b, free", layers[0].params[1], [0.4], *HAND)


def test_train_step_lowers_the_loss_and_says_when_it_diverges():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 1))
    layers = nn.make_mlp(rng, (3, 5, 1), nn.tanh)
    J = [nn.train_step(layers, X, y, nn.squared_error, lr=0.05) for _ in range(50)]
    assert (np.diff(J) < 0).all()
    with pytest.raises(ValueError, match="lr = 1000 is too large|must hold finite"):
        for _ in range(200):
            nn.train_step(layers, X, y, nn.squared_error, lr=1000)
    with pytest.raises(ValueError, match=r"the loss reached 1e\+120: lr = 0.1 is too large"):
        nn.train_step([Layer(nn.linear, [[1e60]], [0.0])], [[1.0]], [[0.0]], nn.squared_error, lr=0.1)
    for lr in (0, -1, math.nan, "1"):
        with pytest.raises((ValueError, TypeError), match="lr must be"):
            nn.train_step(layers, X, y, nn.squared_error, lr=lr)
    with pytest.raises(ValueError, match="l2 must be at least 0"):
        nn.train_step(layers, X, y, nn.squared_error, lr=1, l2=-1)


def test_backward_computes_dx_of_the_first_layer_only_when_asked():
    layers = nn.make_mlp(np.random.default_rng(0), (2, 3, 1))
    nn.forward(layers, [[1.0, 2.0]])
    assert nn.backward(layers, np.ones((1, 1)), to_input=False) is None
    assert nn.backward(layers, np.ones((1, 1))).shape == (1, 2)
    first = Layer(lambda x: (np.asarray(x), lambda g: pytest.fail("train_step computes dJ/dX for nothing")))
    nn.train_step([first, *layers], [[1.0, 2.0]], [[0.0]], nn.squared_error, lr=0.1)


def test_parameters_come_in_the_order_of_the_chain():
    layers = [Layer(nn.linear, [[float(i)]], [i + 0.5]) for i in range(3)]
    assert [p.item() for p in nn.parameters(layers)] == [0, 0.5, 1, 1.5, 2, 2.5]


def test_make_mlp_has_the_sizes_and_ends_without_a_bend():
    layers = nn.make_mlp(np.random.default_rng(0), (200, 100, 3), nn.gelu)
    assert [layer.f for layer in layers] == [nn.linear, nn.gelu, nn.linear]
    assert [p.shape for p in nn.parameters(layers)] == [(200, 100), (100,), (100, 3), (3,)]
    assert not layers[0].params[1].any() and not layers[2].params[1].any()
    agree("variance of W, equation (19)", layers[0].params[0].var(), 2 / 200, 1e-3, "20000 draws")


def test_equal_weights_stay_equal():
    layers = nn.make_mlp(np.random.default_rng(0), (2, 4, 1), nn.tanh)
    layers[0].params[0][...] = 0.1
    layers[2].params[0][...] = 0.2
    for _ in range(20):
        nn.train_step(layers, [[1.0, 2.0], [3, 1]], [[0.0], [1]], nn.squared_error, 0.1)
    W = layers[0].params[0]
    agree("units that started equal", W, np.tile(W[:, :1], 4), *HAND)


# --- Gradient check ---------------------------------------------------------------------------
def test_numerical_gradient_by_hand():
    f = lambda x: x[0, 0] ** 2 + 3 * x[0, 1]
    agree("slope", nn.numerical_gradient(f, [[2, 5]]), [[4, 3]], 1e-9, "rounding 1e-16 / h")
    agree("slope of a cube, h = 0.5", nn.numerical_gradient(lambda x: x**3, 2.0, h=0.5), 12.25, *HAND)
    for h in (0, -1, math.nan):
        with pytest.raises(ValueError, match="h must be above 0"):
            nn.numerical_gradient(f, [[2, 5]], h)


def test_relative_error_by_hand():
    agree("(3, 4) and (0, 0)", nn.relative_error([3, 4], [0, 0]), 1, *HAND)
    agree("1 and 3", nn.relative_error([1], [3]), 1 / 2, *HAND)
    agree("0 and 0", nn.relative_error([0], [0]), 0, *HAND)
    assert math.isnan(nn.relative_error([np.nan], [1])), "a gradient that is no number is not right"


@pytest.mark.parametrize("factor", [0, 0.99, 2, -1])
def test_check_gradients_and_gradcheck_refuse_a_wrong_pull(factor):
    def wrong(x, W, b):
        z, to_x, to_W, to_b = nn.linear(x, W, b)
        return z, to_x, lambda g: factor * to_W(g), to_b

    inputs = rng.normal(size=(3, 2)), rng.normal(size=(2, 2)), rng.normal(size=2)
    errors = nn.check_gradients(np.random.default_rng(0), wrong, *inputs)
    assert errors[0] < 1e-7 and errors[1] > 1e-3 and errors[2] < 1e-7
    assert torch_gradcheck(wrong, *inputs) is False
    assert torch_gradcheck(nn.linear, *inputs) is True


def half_softmax(z):
    """Keeps only the diagonal of equation (8): a common error."""
    p, _ = nn.softmax(z)
    return p, lambda g: g * p * (1 - p)


def test_check_gradients_sees_half_a_softmax():
    x = rng.normal(size=(3, 4))
    assert nn.check_gradients(np.random.default_rng(0), half_softmax, x)[0] > 0.01
    assert not torch_gradcheck(half_softmax, x)


def test_gradcheck_accepts_every_function():
    x, K = rng.normal(size=(2, 5, 4, 2)), rng.normal(size=(2, 3, 2, 3))
    gain, shift = rng.normal(size=2), rng.normal(size=2)
    table = rng.normal(size=(6, 2))
    for norm, options in [(nn.layer_norm, {}), (nn.batch_norm, {"training": True}), (nn.batch_norm, {})]:
        if norm is nn.batch_norm:
            options |= {"mean": np.ones(2), "variance": np.full(2, 3.0)}
        assert torch_gradcheck(norm, table, gain, shift, **options)
        check_pulls(norm, table, gain, shift, **options)
    for f, *inputs in [(nn.conv2d, x, K, rng.normal(size=3)), *((b, x) for b in nn.BENDS)]:
        assert torch_gradcheck(f, *inputs), f.__name__
    assert torch_gradcheck(nn.max_pool2d, x, size=2) and torch_gradcheck(nn.reshape, x, shape=(4, 10))


# --- Autograd ---------------------------------------------------------------------------------
def test_add_multiply_matmul_power_exp_log_pulls_by_hand():
    a, b = Tensor([1.0, 2.0]), Tensor([3.0, 5.0])
    f = (a * b + a / b - b + a**3 + a.exp() + b.log()).sum()
    f.backward()
    agree("f", f.data, 3 + 10 + 1 / 3 + 2 / 5 - 8 + 1 + 8 + math.e + math.e**2 + math.log(15), *HAND)
    agree("da", a.grad, [3 + 1 / 3 + 3 + math.e, 5 + 1 / 5 + 12 + math.e**2], *HAND)
    agree("db", b.grad, [1 - 1 / 9 - 1 + 1 / 3, 2 - 2 / 25 - 1 + 1 / 5], *HAND)


def test_tensor_backward_adds_where_a_value_is_used_twice():
    a = Tensor(3.0)
    (a * a + a).backward()
    agree("d(a^2 + a)", a.grad, 7, *HAND)


def test_tensor_backward_twice_adds_to_the_leaves_only():
    a, t = Tensor(3.0), torch.tensor(3.0, requires_grad=True)
    f, g = ((a * a) * a) * 2, ((t * t) * t) * 2
    for times in (1, 2, 3):
        f.backward()
        g.backward(retain_graph=True)
        agree(f"after {times}", a.grad, 54 * times, *HAND)
        agree(f"torch after {times}", a.grad, t.grad, *HAND)


def test_tensor_keeps_gradients_in_leaves_only_and_copies_no_result():
    a, out = Tensor([1.0, 2.0]), np.array([3.0, 4.0])
    inner = Tensor(out, [(a, lambda g: g * [10.0, 20.0])])
    inner.sum().backward()
    assert inner.data is out and inner.grad is None and isinstance((Tensor(1.0) + 1).data, np.ndarray)
    agree("grad of the leaf", a.grad, [10, 20], *HAND)


def test_tensor_backward_of_a_diamond_pulls_once_per_tensor():
    """Each doubling would be walked 2^200 times by an engine without an order."""
    a = x = Tensor(1.0)
    for _ in range(200):
        x = x + x
    x.backward()
    agree("2^200", a.grad / 2.0**200, 1, *HAND)
    calls = []
    inner = Tensor(2.0, [(Tensor(1.0), lambda g: calls.append(g) or g)])
    ((inner * 3.0 + 1.0) + inner).backward()
    assert [float(g) for g in calls] == [4.0], "pulls before the tensors that were made from it"


def test_tensor_backward_survives_10000_tensors_without_recursion():
    a = x = Tensor([1.0])
    for _ in range(5_000):
        x = x * 1.0 + 1e-5
    x.backward()
    agree("deep", a.grad, [1], *HAND)
    del x  # must not overflow either


def test_tensor_backward_takes_an_upstream_gradient_and_refuses_without():
    a = Tensor(np.ones((2, 2)))
    (a * 2).backward(np.array([[1.0, 2], [3, 4]]))
    agree("upstream", a.grad, [[2, 4], [6, 8]], *HAND)
    with pytest.raises(ValueError, match=r"backward needs grad, of shape \(2, 2\)"):
        (a * 2).backward()
    with pytest.raises(ValueError, match=r"grad must have shape \(2, 2\), not \(2,\)"):
        (a * 2).backward(np.ones(2))
    b = Tensor([[4.0]])
    (b * 3).backward()
    agree("one number of any shape", b.grad, [[3]], *HAND)


@pytest.mark.parametrize("bad, error", [([np.nan], ValueError), ("a", TypeError), ([], ValueError), (None, TypeError)])
def test_tensor_refuses_bad_data(bad, error):
    with pytest.raises(error, match="data must"):
        Tensor(bad)


def test_tensor_copies_its_data_and_takes_arrays_on_either_side():
    data = np.array([1.0, 2.0])
    a = Tensor(data)
    a.data[0] = 5
    assert data[0] == 1
    b = Tensor(data)
    (data + b + data * b + (data - b) + data / b + 1 - b + 2 / b + (np.eye(2) @ b)).sum().backward()
    agree("constants left", b.grad, [1 + 1 - 1 - 1 - 1 - 2 + 1, 1 + 2 - 1 - 2 / 4 - 1 - 2 / 4 + 1], *HAND)


@pytest.mark.parametrize("bad", [np.nan, None, "a", [1.0, np.inf]])
def test_tensor_refuses_bad_constants(bad):
    with pytest.raises((ValueError, TypeError), match="a term must hold"):
        Tensor([1.0, 2.0]) + bad


def test_log_power_and_bad_values():
    with pytest.raises(ValueError, match="log needs numbers above 0, not -1"):
        Tensor([2.0, -1.0]).log()
    with pytest.raises(ValueError, match="log needs numbers above 0, not 0"):
        Tensor([0.0]).log()
    a = Tensor([0.0, 2.0])
    (a**0).sum().backward()
    agree("slope of a^0", a.grad, [0, 0], *HAND)
    b = Tensor([0.5, 0.0, -1.0])
    (b[:1].log() + b.relu()).sum().backward()
    agree("3 slopes of log at 1/2; relu has none at 0", b.grad, [2 * 3 + 1, 0, 0], *HAND)


def test_tensor_getitem_twice_taken_gets_both():
    a = Tensor([1.0, 2.0, 3.0])
    (a[[0, 0, 2]] * np.array([1.0, 10, 100])).sum().backward()
    agree("a[[0, 0, 2]]", a.grad, [11, 0, 100], *HAND)


def test_tensor_max_shares_ties_as_amax():
    x, g = np.array([[1.0, 3, 3], [2, 2, 2]]), np.array([6.0, 30])
    a, t = Tensor(x), nn.torch_leaf(x)
    a.max(1).backward(g)
    t.amax(1).backward(torch.tensor(g))
    agree("max(1), ties", a.grad, [[0, 3, 3], [10, 10, 10]], *HAND)
    agree("max(1), torch", a.grad, t.grad, *HAND)
    b = Tensor(x)
    b.max().backward()
    agree("max of all", b.grad, [[0, 0.5, 0.5], [0, 0, 0]], *HAND)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((5, 2, 3), (3, 4)),
                                    ((2, 3), (5, 3, 4)), ((4, 1, 2, 3), (5, 3, 2)), ((3,), (5, 3, 2)),
                                    ((5, 2, 3), (3,))], ids=str)  # fmt: skip
def test_matmul_matches_torch_for_vectors_matrices_and_stacks(shapes):
    arrays = [rng.normal(size=s) for s in shapes]
    weigh = rng.normal(size=np.shape(arrays[0] @ arrays[1]))
    ours = nn.gradients(Tensor, lambda a, b: (a @ b) * weigh, *arrays)
    theirs = nn.gradients(nn.torch_leaf, lambda a, b: (a @ b) * torch.tensor(weigh), *arrays)
    for what, a, t in zip(("sum", "da", "db"), ours, theirs):
        agree(f"{shapes}: {what}", a, t, *nn.ALLOWED["formula"])


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2)])
@pytest.mark.parametrize("name", ["sum", "max"])
def test_tensor_sum_max_match_torch(name, axis):
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    a, t = Tensor(x), nn.torch_leaf(x)
    ours, reduce = getattr(a, name)(axis), getattr(torch, {"max": "amax"}.get(name, name))
    theirs = reduce(t, (0, 1, 2) if axis is None else axis)
    g = rng.normal(size=theirs.shape)
    ours.backward(g)
    theirs.backward(torch.tensor(g))
    agree(name, ours.data, theirs.detach(), *nn.ALLOWED["formula"])
    agree(f"pull of {name}", a.grad, t.grad, *nn.ALLOWED["formula"])


UNARY = [
    lambda x: x.tanh(), lambda x: x.relu(), lambda x: (x * 0.3).exp(), lambda x: -x,
    lambda x: (x * x + 1.5).log(), lambda x: x**2 - x, lambda x: 1.5 / (x * x + 2), lambda x: 2 - x,
    lambda x: x.sum(), lambda x: x.sum() / 7, lambda x: x.sum(0), lambda x: x[-1:], lambda x: x[1, ::2],
    lambda x: x[np.array([0, 2, 0])], lambda x: x.reshape(4, 3).reshape(2, 6)[:, :4].sum(1),
    lambda x: (x.max(1) if isinstance(x, Tensor) else x.amax(1)),
]  # fmt: skip
BINARY = [
    lambda x, y: x + y, lambda x, y: x * y, lambda x, y: x - y, lambda x, y: x / (y * y + 1),
    lambda x, y: x @ y.reshape(4, 3), lambda x, y: x[0] @ y.reshape(4, 3), lambda x, y: x @ y[1],
]  # fmt: skip


def random_graph(seed):
    """A function of three leaves whose shapes broadcast to (3, 4), made of random operations,
    for our tensors and torch's alike. Values are used again and again."""

    def f(*leaves):
        rng, wide = np.random.default_rng(seed), sum(leaves[1:], leaves[0])
        pool = [wide, *(wide * 0 + leaf for leaf in leaves)]
        for _ in range(12):
            x, y = (pool[i] * 0.5 for i in rng.integers(len(pool), size=2))
            if rng.random() < 0.6:
                new = UNARY[rng.integers(len(UNARY))](x)
            else:
                new = BINARY[rng.integers(len(BINARY))](x, y)
            if tuple(new.shape if torch.is_tensor(new) else new.data.shape) != (3, 4):
                new = leaves[rng.integers(3)] * new.sum() * 0.1 + wide
            pool.append(new.tanh())
        return sum(pool[1:], pool[0])

    return f


@pytest.mark.parametrize("block", range(8))
def test_tensor_backward_matches_torch_on_25_random_graphs(block):
    for seed in range(25 * block, 25 * block + 25):
        rng = np.random.default_rng(seed)
        arrays = [rng.normal(size=s) for s in [(3, 4), (1, 4) if seed % 2 else (4,), (3, 1)]]
        f = random_graph(seed)
        ours, theirs = nn.gradients(Tensor, f, *arrays), nn.gradients(nn.torch_leaf, f, *arrays)
        for what, a, t in zip(("f", "da", "db", "dc"), ours, theirs):
            agree(f"graph {seed}: {what}", a, t, *nn.ALLOWED["formula"])


def test_operation_runs_any_function_of_the_chapter():
    x, K, b, y = rng.normal(size=(2, 5, 5, 1)), rng.normal(size=(2, 2, 1, 3)), np.zeros(3), np.array([0, 2])
    W, c = rng.normal(size=(12, 3)), np.zeros(3)
    kernel, weights = Tensor(K), Tensor(W)
    z = nn.operation(nn.relu)(nn.operation(nn.conv2d)(x, kernel, b))
    z = nn.operation(nn.reshape)(nn.operation(nn.max_pool2d)(z, size=2), shape=(-1,))
    z = nn.operation(nn.linear)(z, weights, c)
    nn.operation(nn.cross_entropy)(z, y=y).backward()
    layers = [Layer(nn.conv2d, K, b), Layer(nn.relu), Layer(nn.max_pool2d, size=2), Layer(nn.reshape, shape=(-1,)),
              Layer(nn.linear, W, c)]
    nn.backward(layers, nn.cross_entropy(nn.forward(layers, x), y)[1](1.0))
    agree("dJ/dK, engine and by hand", kernel.grad, layers[0].grads[0], *nn.ALLOWED["formula"])
    agree("dJ/dW, engine and by hand", weights.grad, layers[4].grads[0], *nn.ALLOWED["formula"])


# --- Initialisation -----------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["xavier", "he"])
@pytest.mark.parametrize("shape", [(7, 5), (300, 20), (3, 2, 4, 6)])
def test_initial_weights_match_torch(method, shape):
    draws, theirs = nn.torch_initial_weights(method, shape, seed=3)
    assert draws.shape == shape and draws.dtype == np.float64
    agree(f"{method} {shape}", nn.initial_weights(method, draws), theirs, *nn.ALLOWED["formula"])


def test_initial_weights_by_hand():
    agree("xavier, d_in 2, d_out 6", nn.initial_weights("xavier", np.ones((2, 6))), np.full((2, 6), 1 / 2), *HAND)
    agree("he, d_in 8", nn.initial_weights("he", np.ones((8, 3))), np.full((8, 3), 1 / 2), *HAND)
    agree("he, kernel 2 x 2 x 2", nn.initial_weights("he", np.ones((2, 2, 2, 5)))[0, 0, 0], np.full(5, 1 / 2), *HAND)
    agree("he, a list", nn.initial_weights("he", [[2.0], [4.0]]), [[2.0], [4.0]], *HAND)
    with pytest.raises(ValueError, match="draws must hold finite"):
        nn.initial_weights("he", [[np.nan]])
    for method, draws in [("glorot", np.ones((2, 2))), ("he", np.ones(3))]:
        with pytest.raises(ValueError, match="method must be xavier or he"):
            nn.initial_weights(method, draws)


def test_deep_chain_he_keeps_the_mean_square_of_relu_and_xavier_that_of_linear_maps():
    """Each layer multiplies the mean square by d_in v / 2, equation (18)."""
    for v in (0.02, 0.04):
        sizes = np.mean([nn.deep_chain(nn.relu, v, depth=d)[1][-1] ** (1 / d) for d in (8, 9, 10)])
        agree("growth per ReLU layer", sizes, 100 * v / 2, 0.1, "100 units, ten layers")
    z = rng.normal(size=(200, 100)) @ nn.initial_weights("xavier", rng.normal(size=(100, 100)))
    agree("mean square after Xavier", np.mean(z * z), 1, 0.1, "20000 numbers")


def test_deep_chain_measures_100_rows_after_each_bend():
    rng = np.random.default_rng(0)
    x, W, V = rng.normal(size=(100, 3)), rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    a = np.tanh(0.5 * x @ W)
    layers, sizes = nn.deep_chain(nn.tanh, 0.25, depth=2, width=3)
    agree("mean squares", sizes, [np.mean(a**2), np.mean(np.tanh(0.5 * a @ V) ** 2)], *HAND)
    assert sizes.shape == (2,)
    agree("second W", layers[2].params[0], 0.5 * V, *HAND)


def test_draw_curves_puts_each_curve_over_its_epochs_on_a_log_scale():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    nn.draw_curves(ax, {"tanh": [1.0, 0.1, 0.01], "relu": [5.0, 6.0]}, "epoch", "loss")
    dashed, solid = ax.get_lines()
    assert dashed.get_xydata().tolist() == [[1, 1.0], [2, 0.1], [3, 0.01]] and dashed.get_linestyle() == "--"
    assert solid.get_xydata().tolist() == [[1, 5.0], [2, 6.0]] and solid.get_linestyle() == "-"
    assert (ax.get_yscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "epoch", "loss")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["tanh", "relu"]


def test_residual_matches_torch_and_its_chain_keeps_the_gradient():
    x, W, b = rng.normal(size=(5, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)
    same_as_torch("layer", nn.residual, x, W, b)
    y, to_x, *_ = nn.residual(np.array([[2.0]]), np.array([[0.5]]), np.array([-1.0]))
    agree("y = x + tanh(x / 2 - 1), equation (20)", y, [[2]], *HAND)
    agree("dJ/dx", to_x(np.array([[4.0]])), [[6]], *HAND)
    norms = []
    for bend, links in [(nn.tanh, 30), (nn.residual, 15)]:
        layers, sizes = nn.deep_chain(bend, 0.005, depth=15, width=30)
        assert len(sizes) == 15 and len(layers) == links
        nn.forward(layers, np.full((1, 30), 0.1))
        norms.append(np.linalg.norm(nn.backward(layers, np.ones((1, 30)))))
    assert norms[0] < 1e-3 and norms[1] > 5
    with pytest.raises(ValueError, match=r"W must have shape \(2, 2\), not \(3, 2\)"):
        nn.residual(np.ones((1, 3)), np.ones((3, 2)), np.zeros(2))


# --- Normalisation and dropout ---------------------------------------------------------------------
def norm_inputs(seed, shape, mean=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(mean, 2, size=shape), rng.normal(size=shape[-1]), rng.normal(size=shape[-1])


def averages(d, **more):
    return {"mean": np.linspace(-1, 1, d), "variance": np.linspace(1, 3, d), **more}


@pytest.mark.parametrize("shape", [(2, 1), (16, 5), (3, 4, 2, 3), (1, 3, 2, 2)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"eps": 0.1, "momentum": 0.3}], ids=str)
def test_batch_norm_matches_torch(shape, training, options):
    options = averages(shape[-1], training=training, **options)
    same_as_torch("layer", nn.batch_norm, *norm_inputs(0, shape), **options)
    check_pulls(nn.batch_norm, *norm_inputs(0, shape), **options)


@pytest.mark.parametrize("shape", [(2, 3), (16, 5), (3, 4, 2, 3)])
def test_batch_norm_running_averages_match_torch_after_five_batches(shape):
    ours = averages(shape[-1])
    kind = torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d
    module = kind(shape[-1], dtype=torch.float64)
    module.running_mean.copy_(torch.tensor(ours["mean"]))
    module.running_var.copy_(torch.tensor(ours["variance"]))
    for seed in range(5):
        x, gain, shift = norm_inputs(seed, shape, mean=3)
        nn.batch_norm(x, gain, shift, training=True, **ours)
        module(torch.tensor(x).movedim(-1, 1))
    agree("running mean", ours["mean"], module.running_mean, *nn.ALLOWED["layer"])
    agree("running variance", ours["variance"], module.running_var, *nn.ALLOWED["layer"])
    before = ours["mean"].copy()
    nn.batch_norm(x, gain, shift, training=False, **ours)
    agree("prediction changes no average", ours["mean"], before, *HAND)


def test_batch_norm_by_hand():
    """Column (1, 3): mean 2, variance 1 (2 if unbiased), x-hat (-1, 1)."""
    running, x = {"mean": np.array([10.0]), "variance": np.array([20.0])}, np.array([[1.0], [3.0]])
    y, to_x, to_gain, to_shift = nn.batch_norm(x, np.array([2.0]), np.array([5.0]), training=True,
                                               momentum=0.5, eps=1e-30, **running)
    agree("y, equation (21)", y, [[3], [7]], *HAND)
    agree("running mean, equation (23)", running["mean"], [6], *HAND)
    agree("running variance, equation (23)", running["variance"], [11], *HAND)
    agree("to gain", to_gain(np.array([[1.0], [10]])), [9], *HAND)
    agree("to shift", to_shift(np.array([[1.0], [10]])), [11], *HAND)
    agree("to x: two numbers always become -1 and 1", to_x(np.array([[1.0], [10]])), [[0], [0]], *HAND)


def test_batch_norm_of_one_row_is_refused_as_torch_does():
    for shape in [(1, 3), (1, 1, 1, 3)]:
        x, *affine = norm_inputs(0, shape)
        with pytest.raises(ValueError, match="batch norm needs 2 rows in training"):
            nn.batch_norm(x, *affine, **averages(3, training=True))
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            nn.beside_torch(nn.batch_norm, x, *affine, **averages(3, training=True))
        same_as_torch("layer", nn.batch_norm, x, *affine, **averages(3))
    with pytest.raises(ValueError, match=r"mean must have shape \(2,\), not \(3,\)"):
        nn.batch_norm(np.zeros((4, 2)), *affine, **averages(3))


@pytest.mark.parametrize("norm", [nn.batch_norm, nn.layer_norm], ids=lambda f: f.__name__)
def test_batch_norm_and_layer_norm_keep_their_digits_on_large_means(norm):
    """mean(x^2) - mean(x)^2 would cancel to nonsense at 1e8."""
    x = np.random.default_rng(0).normal(size=(8, 8))
    options = averages(8, training=True) if norm is nn.batch_norm else {}
    shifted = norm(x + 1e8, np.ones(8), np.zeros(8), **options)[0]
    agree(norm.__name__, shifted, norm(x, np.ones(8), np.zeros(8), **options)[0], 1e-6, "1e8 keeps 8 digits")


@pytest.mark.parametrize("shape", [(1, 4), (6, 3), (2, 3, 4), (2, 3, 2, 5)])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_layer_norm_matches_torch(shape, eps):
    same_as_torch("layer", nn.layer_norm, *norm_inputs(1, shape), eps=eps)
    check_pulls(nn.layer_norm, *norm_inputs(1, shape), eps=eps)


def test_layer_norm_by_hand_and_refuses_another_width():
    y = nn.layer_norm(np.array([[1.0, 3.0], [5, 5]]), np.array([2.0, 3]), np.array([0.0, 1]), eps=1e-30)[0]
    agree("y", y, [[-2, 4], [0, 1]], *HAND)
    with pytest.raises(ValueError, match=r"gain must have shape \(2,\), not \(3,\)"):
        nn.layer_norm(np.zeros((4, 2)), np.ones(3), np.zeros(3))


@pytest.mark.parametrize("change, message", [
    ({"gain": np.ones((3, 1))}, "gain must have"), ({"gain": np.ones(0)}, "gain must have"), ({"shift": np.ones(2)}, r"shift must have shape \(3,\)"),
    ({"eps": -1}, "eps must be above 0"), ({"x": [[1, np.nan, 3]]}, "finite"),
    ({"mean": np.ones(2)}, r"mean must have shape \(3,\)"), ({"variance": ["a"] * 3}, "variance must hold"),
    ({"momentum": 2}, "momentum must be at least 0 and at most 1"), ({"momentum": -1}, "momentum must be"),
    ({"mean": [0.0] * 3}, "mean must be an array of floats"), ({"variance": np.arange(3)}, "updates it in place"),
])  # fmt: skip
def test_batch_norm_and_layer_norm_refuse_bad_input(change, message):
    good = {"x": np.eye(3), "gain": np.ones(3), "shift": np.zeros(3)}
    with pytest.raises((ValueError, TypeError), match=message):
        nn.batch_norm(**(good | averages(3) | change))
    if not change.keys() & {"mean", "variance", "momentum"}:
        with pytest.raises((ValueError, TypeError), match=message):
            nn.layer_norm(**(good | change))


def test_a_network_with_batch_norm_trains_and_predicts_row_by_row():
    """Prediction uses running averages: one row at a time gives the same as all at once."""
    rng = np.random.default_rng(0)
    layers = nn.make_mlp(rng, (3, 4, 1))
    layers.insert(1, Layer(nn.batch_norm, np.ones(4), np.zeros(4), training=False, **averages(4)))
    layers.append(Layer(nn.dropout, p=0.5, rng=rng, training=False))
    X, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 1))
    before = layers[1].options["mean"].copy()
    for _ in range(5):
        nn.train_step(layers, X, y, nn.squared_error, 0.01)
    assert not np.allclose(before, layers[1].options["mean"])
    singly = np.concatenate([nn.forward(layers, row[None]) for row in X])
    agree("row by row", singly, nn.forward(layers, X), *HAND)
    assert not np.allclose(nn.forward(layers, X, training=True), singly)


def test_dropout_by_hand_and_with_torchs_mask():
    x, mask = np.array([[1.0, 2.0, 3.0, 4.0]]), [[1, 0, 1, 0]]
    y, to_x = nn.dropout(x, 0.2, mask=mask, training=True)
    agree("a, equation (24)", y, [[1.25, 0, 3.75, 0]], *HAND)
    agree("pull", to_x(np.full((1, 4), 8.0)), [[10, 0, 10, 0]], *HAND)
    for p in (0.0, 0.3, 0.9):
        x = rng.normal(size=(30, 20))
        torch.manual_seed(0)
        mask = torch.nn.functional.dropout(torch.ones(x.shape, dtype=torch.float64), p).numpy() > 0
        same_as_torch("layer", nn.dropout, x, p=p, mask=mask, training=True)
        same_as_torch("layer", nn.dropout, x, p=p, mask=mask, training=False)


def test_beside_torch_of_dropout_repeats_itself():
    options = {"p": 0.5, "mask": np.ones((8, 8)), "training": True}
    first, second = (nn.beside_torch(nn.dropout, np.ones((8, 8)), **options)[1][0] for _ in range(2))
    assert torch.equal(first, second) and len(torch.unique(first)) == 2


def test_dropout_keeps_the_mean_drops_a_share_p_and_is_off_at_prediction():
    y, _ = nn.dropout(np.ones((400, 500)), 0.3, rng=np.random.default_rng(0), training=True)
    agree("mean", y.mean(), 1, 0.01, "200000 draws")
    agree("share dropped", np.mean(y == 0), 0.3, 0.01, "200000 draws")
    x = rng.normal(size=(3, 3))
    agree("prediction", nn.dropout(x, 0.3, rng=rng)[0], x, *HAND)
    class Always:
        def random(self, shape):
            return np.full(shape, 0.25)

    agree("a number equal to p stays", nn.dropout(x, 0.25, rng=Always(), training=True)[0], x / 0.75, *HAND)
    for p in (1, -0.1, math.nan, "a"):
        with pytest.raises((ValueError, TypeError), match="p must be"):
            nn.dropout(x, p)
    with pytest.raises(ValueError, match="dropout needs rng or mask in training"):
        nn.dropout(x, 0.3, training=True)
    with pytest.raises(ValueError, match=r"mask must have shape \(3, 3\)"):
        nn.dropout(x, 0.5, mask=np.ones((3, 1)), training=True)


# --- Convolution and pooling ------------------------------------------------------------------------
def test_conv2d_by_hand():
    x = np.arange(9.0).reshape(1, 3, 3, 1)
    K = np.array([[1.0, 2], [3, 4]]).reshape(2, 2, 1, 1)
    z, to_x, to_K, to_b = nn.conv2d(x, K, np.array([100.0]))
    agree("z, equation (25)", z[0, :, :, 0], [[127, 137], [157, 167]], *HAND)
    g = np.array([[1.0, 0], [0, 10]]).reshape(1, 2, 2, 1)
    agree("to x", to_x(g)[0, :, :, 0], [[1, 2, 0], [3, 14, 20], [0, 30, 40]], *HAND)
    agree("to K", to_K(g)[:, :, 0, 0], [[40, 51], [73, 84]], *HAND)
    agree("to b", to_b(g), [11], *HAND)
    z, *_ = nn.conv2d(x, x.reshape(3, 3, 1, 1), [0.0])
    agree("a kernel as large as the image", z, [[[[204]]]], *HAND)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("kernel", [(1, 1, 2, 3), (3, 3, 1, 2), (2, 3, 3, 1), (4, 2, 2, 2)])
def test_conv2d_matches_torch(stride, padding, kernel):
    rng = np.random.default_rng(stride)
    x = rng.normal(size=(2, 6, 5, kernel[2]))
    inputs = x, rng.normal(size=kernel), rng.normal(size=kernel[3])
    same_as_torch("layer", nn.conv2d, *inputs, stride=stride, padding=padding)


@pytest.mark.parametrize("change, message", [
    ({"x": np.zeros((1, 4, 4, 3))}, r"x must have shape \(None, None, None, 2\), not \(1, 4, 4, 3\)"),
    ({"x": np.zeros((4, 4, 2))}, r"not \(4, 4, 2\)"),
    ({"x": np.zeros((1, 2, 4, 2))}, "has no 3 x 3 window"), ({"x": np.zeros((1, 4, 2, 2))}, "3 x 3 window"),
    ({"x": np.full((1, 4, 4, 2), np.nan)}, "finite"), ({"x": np.zeros((0, 4, 4, 2))}, r"\(0, 4, 4, 2\)"),
    ({"K": np.zeros((3, 3, 2))}, "K must have"), ({"b": np.zeros(3)}, r"b must have shape \(4,\), not \(3,\)"),
    ({"stride": 0}, "stride must be at least 1"), ({"stride": 1.5}, "stride must be a whole number"),
    ({"padding": -1}, "padding must be at least 0"), ({"padding": "a"}, "padding must be a whole number"),
])  # fmt: skip
def test_conv2d_refuses_bad_input(change, message):
    good = {"x": np.zeros((1, 4, 4, 2)), "K": np.zeros((3, 3, 2, 4)), "b": np.zeros(4)}
    with pytest.raises((ValueError, TypeError), match=message):
        nn.conv2d(**(good | change))


def test_max_pool2d_by_hand():
    x = np.array([[1.0, 5, 2, 0], [3, 4, 1, 9]]).reshape(1, 2, 4, 1)
    z, to_x = nn.max_pool2d(x, 2)
    agree("z, equation (26)", z[0, :, :, 0], [[5, 9]], *HAND)
    agree("to x", to_x(np.array([7.0, 8]).reshape(1, 1, 2, 1))[0, :, :, 0], [[0, 7, 0, 0], [0, 0, 0, 8]], *HAND)
    z, to_x = nn.max_pool2d(x, 2, stride=1)
    agree("overlapping", z[0, :, :, 0], [[5, 5, 9]], *HAND)
    agree("two windows, one winner", to_x(np.array([1.0, 10, 100]).reshape(1, 1, 3, 1))[0, 0, :, 0], [0, 11, 0, 0], *HAND)


@pytest.mark.parametrize("size, stride", [(1, 1), (2, 2), (2, 1), (3, 2), (2, 3), (3, None)])
def test_max_pool2d_matches_torch_with_ties(size, stride):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, 3, size=(2, 7, 6, 3)).astype(float)
        same_as_torch("layer", nn.max_pool2d, x, size=size, stride=stride)
        same_as_torch("layer", nn.max_pool2d, -1 - x, size=size, stride=stride)
        same_as_torch("layer", nn.max_pool2d, rng.normal(size=(1, 5, 5, 2)), size=size, stride=stride)


def test_max_pool2d_refuses_bad_input():
    x = np.zeros((1, 4, 4, 1))
    for options, message in [({"size": 0}, "size must be at least 1"), ({"size": 5}, "no 5 x 5 window"),
                             ({"size": 2, "stride": 0}, "stride must be at least 1"), ({"size": 2.0}, "size must be a whole")]:
        with pytest.raises((ValueError, TypeError), match=message):
            nn.max_pool2d(x, **options)
    with pytest.raises(ValueError, match="x must have"):
        nn.max_pool2d(x[0], 2)


def test_reshape_and_back():
    x = np.arange(24.0).reshape(2, 3, 2, 2)
    out, to_x = nn.reshape(x, (-1,))
    agree("row 1", out[1], np.arange(12.0, 24), *HAND)
    agree("back", to_x(out), x, *HAND)
    agree("as images", nn.reshape(out, (3, 2, 2))[0], x, *HAND)
    same_as_torch("layer", nn.reshape, x, shape=(4, 3))
    for bad in ([[1.0, np.nan]], "a", np.zeros((0, 4))):
        with pytest.raises((ValueError, TypeError), match="x must"):
            nn.reshape(bad, (-1,))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conv2d_max_pool2d_norms_keep_the_dtype(dtype):
    x, K = np.ones((2, 4, 4, 2), dtype), np.ones((3, 3, 2, 2), dtype)
    b, running = np.ones(2, dtype), {"mean": np.ones(2, dtype), "variance": np.ones(2, dtype)}
    for f, *inputs in [(nn.conv2d, x, K, b), (nn.layer_norm, x, b, b)]:
        out, *pulls = f(*inputs)
        assert out.dtype == dtype and all(pull(out).dtype == dtype for pull in pulls)
    for out, *pulls in [nn.max_pool2d(x, 2), nn.dropout(x, 0.5, rng=rng, training=True),
                        nn.batch_norm(x, b, b, training=True, **running)]:
        assert out.dtype == dtype and all(pull(out).dtype == dtype for pull in pulls)


# --- Training on digits -------------------------------------------------------------------------------
def test_batches_of_hold_every_row_once_and_differ_by_one_in_size():
    batches = nn.batches_of(np.random.default_rng(0), 33, 16)
    assert sorted(map(len, batches)) == [11, 11, 11]
    assert sorted(np.concatenate(batches)) == list(range(33))
    assert list(batches[0]) != list(range(11))
    assert [len(b) for b in nn.batches_of(rng, 5, 100)] == [5]


def small_task(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 2))
    return rng, X, (X[:, 0] * X[:, 1] > 0).astype(int)


def test_fit_network_walks_torchs_path():
    rng, X, y = small_task()
    layers = nn.make_mlp(rng, (2, 8, 2))
    order, batches = np.random.default_rng(1), []
    for _ in range(3):
        batches += [(X[i], y[i]) for i in nn.batches_of(order, 60, 16)]
    losses, p = nn.torch_train(layers, batches, nn.cross_entropy, 0.2, 0.01)
    history = nn.fit_network(np.random.default_rng(1), layers, X, y, lr=0.2, l2=0.01, epochs=3, batch_size=16)
    agree("J per epoch", history[:, 0], np.reshape(losses, (3, 4)).mean(axis=1), *nn.ALLOWED["training"])
    assert np.isnan(history[:, 1]).all()
    for ours, theirs in zip(nn.parameters(layers), p):
        agree("parameters", ours, theirs, *nn.ALLOWED["training"])


def test_fit_network_stops_early_and_goes_back_to_the_best_epoch():
    rng, X, y = small_task()
    layers = [*nn.make_mlp(rng, (2, 30), nn.tanh), *nn.make_mlp(rng, (30, 2))]
    layers.insert(1, Layer(nn.batch_norm, np.ones(30), np.zeros(30), training=False, **averages(30)))
    validation = X[:20], rng.integers(2, size=20)  # noise: the loss must soon rise
    history = nn.fit_network(rng, layers, X[20:], y[20:], lr=0.5, epochs=200, validation=validation, patience=4)
    best = history[:, 1].argmin()
    assert len(history) == best + 1 + 4 < 200
    now = nn.cross_entropy(nn.forward(layers, X[:20]), validation[1])[0]
    agree("validation loss of the kept network", now, history[best, 1], *HAND)
    assert history[-1, 1] > history[best, 1]


def test_fit_network_refuses_bad_input():
    rng, X, y = small_task()
    layers = nn.make_mlp(rng, (2, 2))
    for change, message in [({"epochs": 0}, "epochs must be at least 1"), ({"lr": -1}, "lr must be above 0"),
                            ({"batch_size": 0}, "batch_size must be at least 1"), ({"l2": -1}, "l2 must be"),
                            ({"patience": 0.5}, "patience must be a whole"), ({"lr": "a"}, "lr must be a number"),
                            ({"y": y[:-1]}, r"y must have shape \(60,\), not \(59,\)"), ({"y": y + 1}, "0 to 1, not 2"),
                            ({"y": y[:, None]}, "y must have"), ({"X": X[:, :1]}, r"\(None, 2\), not"),
                            ({"X": X * np.nan}, "X must hold finite"), ({"y": ["a"] * 60}, "y must hold real"),
                            ({"X": X[:0], "y": y[:0]}, r"\(0, 2\)")]:  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=message):
            nn.fit_network(**({"rng": rng, "layers": layers, "X": X, "y": y} | change))


def test_make_cnn_has_the_layers_and_gradients_of_torch():
    rng = np.random.default_rng(0)
    layers = nn.make_cnn(rng)
    shapes = [(3, 3, 1, 16), (16,), (3, 3, 16, 32), (32,), (128, 10), (10,)]
    assert [p.shape for p in nn.parameters(layers)] == shapes
    assert not any(bias.any() for bias in nn.parameters(layers)[1::2])
    walk_beside_torch("layer", layers, rng.random((5, 64)), np.array([0, 1, 2, 3, 9]), nn.cross_entropy, steps=10)


def test_load_digits_split_tests_every_digit_once_and_shares_no_row():
    parts = [digits(fold) for fold in range(5)]
    assert sum(len(test[1]) for *_, test in parts) == 1797
    for train, validation, test in parts:
        assert len(validation[0]) == 144 and len(train[0]) + 144 + len(test[0]) == 1797
        rows = np.concatenate([train[0], validation[0], test[0]])
        assert len({row.tobytes() for row in rows}) == 1797 and rows.max() == 1 and rows.min() == 0
    for fold, message in [(5, "at most 4"), (-1, "at least 0"), (1.0, "whole number"), ("a", "whole number")]:
        with pytest.raises((ValueError, TypeError), match=f"fold must be .*{message}"):
            nn.load_digits_split(fold)


def test_fit_network_mlp_reads_digits_on_five_splits():
    scores = []
    for fold in range(5):
        (X, y), (X_val, y_val), (X_test, y_test) = digits(fold)
        layers = nn.make_mlp(np.random.default_rng(0), (64, 128, 64, 10))
        X, y = np.concatenate([X, X_val]), np.concatenate([y, y_val])  # fixed epochs: none to watch
        nn.fit_network(np.random.default_rng(0), layers, X, y, epochs=20)
        scores.append(accuracy(y_test, nn.forward(layers, X_test).argmax(axis=1)))
    assert np.mean(scores) >= 0.97 and min(scores) >= 0.955, scores


def test_fit_network_cnn_reads_digits():
    (X, y), (X_val, y_val), (X_test, y_test) = digits(0)
    layers, X, y = nn.make_cnn(np.random.default_rng(0)), np.concatenate([X, X_val]), np.concatenate([y, y_val])
    nn.fit_network(np.random.default_rng(0), layers, X, y, lr=0.2, batch_size=16, epochs=8)
    score = accuracy(y_test, nn.forward(layers, X_test).argmax(axis=1))
    assert score >= 0.98, score


def test_sklearn_mlp_reads_digits_about_as_well():
    (X, y), _, (X_test, y_test) = digits(0)
    assert nn.sklearn_mlp(X, y).score(X_test, y_test) > 0.95
