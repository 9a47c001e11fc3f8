"""How fast is readable numpy?   python tests/benchmark.py [row ...]

Times scratch against library on the same data, with the same result (checked first): turn
by turn, in process time, on one BLAS thread. Prints the median of each, the median ratio
scratch / library with its quartiles (below 1.0 scratch is faster), and the exponent with
which scratch time grows when n grows tenfold. It never fails a build.

A row is a function of n that returns Pair(scratch, library, tolerance): two functions
without arguments that return the same numbers. Its first docstring line is its title.
"""

import os

for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]:
    os.environ.setdefault(name, "1")  # before numpy loads

import argparse
import functools
import inspect
import sys
import time
import warnings
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import linear_models as lm
import tree_models as tm
import optimization as op
import rag_basics as rag
from utils import compare, make_regression


class Pair(NamedTuple):
    scratch: Callable
    library: Callable
    tolerance: float  # relative to max(1, max|library|), as everywhere


def seconds(work, at_least=0.02):
    """Process time of one call: repeated until it lasts long enough to be measured."""
    calls, start = 0, time.process_time()
    while (spent := time.process_time() - start) < at_least:
        work()
        calls += 1
    return spent / calls


def measure(row, repeats):
    """One line of the table, as a dict; the result is checked before anything is timed."""
    default = inspect.signature(row).parameters.get("n")
    pair = row()
    same = compare("result", pair.scratch(), pair.library(), pair.tolerance, "the chapter's tests")
    times = np.array([[seconds(pair.scratch), seconds(pair.library)] for _ in range(repeats)])
    low, ratio, high = np.percentile(times[:, 0] / times[:, 1], [25, 50, 75])
    growth = np.nan
    if default is not None:
        small = row(n=default.default // 10)
        short = np.median([seconds(small.scratch) for _ in range(repeats)])
        growth = np.log10(np.median(times[:, 0]) / short)
    scratch, library = 1000 * np.median(times, axis=0)
    return dict(scratch=scratch, library=library, ratio=ratio, low=low, high=high, growth=growth, same=same)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("row", nargs="*", help="rows or chapters whose name contains one of these words")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = [
        (chapter, row)
        for chapter, rows in ROWS.items()
        for row in rows
        if not args.row or any(word in f"{chapter} {row.__name__}" for word in args.row)
    ]
    print(f"{'':44} {'scratch':>10} {'library':>10} {'ratio':>7} {'quartiles':>13} {'growth':>7}")
    ratios, last = [], None
    for chapter, row in chosen:
        if chapter != last:
            print(chapter)
            last = chapter
        m = measure(row, args.repeats)
        title = inspect.getdoc(row).split("\n")[0]
        growth = "" if np.isnan(m["growth"]) else f"{m['growth']:7.2f}"
        print(
            f"  {title:42} {m['scratch']:7.2f} ms {m['library']:7.2f} ms {m['ratio']:7.2f}"
            f" {m['low']:6.2f}-{m['high']:<6.2f} {growth:>7}" + ("" if m["same"].ok else "  RESULTS DIFFER")
        )
        if not m["same"].ok:
            print("   ", str(m["same"]).replace("\n", "\n    "))
        ratios.append(m["ratio"])
    if ratios:
        print(f"geometric mean of {len(ratios)} ratios: {np.exp(np.mean(np.log(ratios))):.2f}")


# --- linear_models.py


def least_squares(n=100_000):
    """least squares, 100k x 50"""
    X, y, _, _ = make_regression(np.random.default_rng(0), n, 50)
    return Pair(
        lambda: lm.fit_linear_regression(X, y)[0],
        lambda: lm.sklearn_linear_regression(X, y).coef_,
        1e-10,
    )


def ridge(n=100_000):
    """ridge, 100k x 50"""
    X, y, _, _ = make_regression(np.random.default_rng(0), n, 50)
    return Pair(lambda: lm.fit_ridge(X, y, 1.0)[0], lambda: lm.sklearn_ridge(X, y, 1.0).coef_, 1e-10)


def lasso(l1, n):
    """Ten of 100 correlated columns matter."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 100)) + rng.normal(size=(n, 1))
    y = X[:, :10] @ rng.normal(size=10) + rng.normal(size=n)
    return Pair(lambda: lm.fit_lasso(X, y, l1)[0], lambda: lm.sklearn_lasso(X, y, l1).coef_, 1e-6)


def lasso_01(n=10_000):
    """lasso, l1 = 0.1, 10k x 100"""
    return lasso(0.1, n)


def lasso_001(n=10_000):
    """lasso, l1 = 0.01, 10k x 100"""
    return lasso(0.01, n)


def classes(n, d, k):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d))
    return X, (X @ rng.normal(size=(d, k)) + 3 * rng.gumbel(size=(n, k))).argmax(axis=1)


def logistic(n=20_000):
    """logistic, Newton, 20k x 30 (newton-cholesky)"""
    X, y = classes(n, 30, 2)
    return Pair(lambda: lm.fit_logistic(X, y, 1.0)[0], lambda: lm.sklearn_logistic(X, y, 1.0).coef_[0], 1e-6)


def softmax():
    """softmax, L-BFGS, digits (lbfgs to the same 1e-5)"""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    X, y = load_digits(return_X_y=True)
    X = X / 16
    model = LogisticRegression(C=10.0, tol=1e-8, max_iter=10_000)
    return Pair(
        lambda: lm.predict_softmax(X, *lm.fit_softmax(X, y, 0.1)),
        lambda: model.fit(X, y).predict_proba(X),
        1e-5,
    )


def linear_svm(n=20_000):
    """linear SVM, 20k x 30 (liblinear, dual=False)"""
    X, y = classes(n, 30, 2)
    return Pair(lambda: lm.fit_linear_svm(X, y, 1.0)[0], lambda: lm.sklearn_linear_svm(X, y, 1.0).coef_[0], 1e-5)


def kernel_svm(C, n):
    X, y = classes(n, 10, 2)
    return Pair(
        lambda: lm.predict_kernel_svm(X, lm.fit_kernel_svm(X, y, C, 0.1, tol=1e-3)),
        lambda: lm.sklearn_kernel_svm(X, y, C, 0.1, tol=1e-3).decision_function(X),
        1e-2,  # both stop at tol = 1e-3, the library's default
    )


def kernel_svm_1(n=1000):
    """kernel SVM, RBF, C = 1, 1000 x 10"""
    return kernel_svm(1.0, n)


def kernel_svm_10(n=1000):
    """kernel SVM, RBF, C = 10, 1000 x 10"""
    return kernel_svm(10.0, n)


# --- optimization.py
def optimizer_pair(name, shapes, **options):
    """One step of one of our optimizers, and of torch's class of that name."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    params = [rng.normal(size=shape) for shape in shapes]
    grads = [rng.normal(size=shape) for shape in shapes]
    ours = getattr(op, name)(params, **options)
    tensors = [torch.tensor(p) for p in params]
    for tensor, g in zip(tensors, grads):
        tensor.grad = torch.tensor(g)
    theirs = getattr(torch.optim, name)(tensors, **options)

    def scratch():
        ours.step(grads)
        return ours.params[-1]

    def library():
        theirs.step()
        return tensors[-1].numpy()

    return Pair(scratch, library, 1e-12)


SMALL_TENSORS = [(16, 16), (16,)] * 10


def sgd_long(n=1_000_000):
    """SGD, one tensor of a million"""
    return optimizer_pair("SGD", [n], lr=1e-6)


def momentum_long(n=1_000_000):
    """momentum, one tensor of a million"""
    return optimizer_pair("SGD", [n], lr=1e-6, momentum=0.9)


def rmsprop_long(n=1_000_000):
    """RMSProp, one tensor of a million"""
    return optimizer_pair("RMSprop", [n], lr=1e-6)


def adam_long(n=1_000_000):
    """Adam, one tensor of a million"""
    return optimizer_pair("Adam", [n], lr=1e-6)


def sgd_small():
    """SGD, 20 small tensors"""
    return optimizer_pair("SGD", SMALL_TENSORS, lr=1e-6)


def momentum_small():
    """momentum, 20 small tensors"""
    return optimizer_pair("SGD", SMALL_TENSORS, lr=1e-6, momentum=0.9)


def adam_small():
    """Adam, 20 small tensors"""
    return optimizer_pair("Adam", SMALL_TENSORS, lr=1e-6)


def lbfgs_logistic(n=20_000):
    """L-BFGS, logistic loss, 20000 x 30"""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 30)) * np.sign(rng.normal(size=(n, 1)) + 0.3)
    problem = op.Problem(
        lambda w: np.mean(np.logaddexp(0, -X @ w)) + 0.005 * w @ w,
        lambda w: 0.01 * w - X.T @ (1 / (1 + np.exp(X @ w))) / n,
        None,
        np.full(30, 0.5),
    )
    steps = len(op.lbfgs(problem)) - 1
    return Pair(
        lambda: op.lbfgs(problem)[-1],
        lambda: op.torch_lbfgs(problem, steps=steps)[-1],
        1e-6,
    )


# --- sequence_models.py
def recurrent_pair(kind, step, gates, states, n):
    """Forward and backward over n steps, 32 sequences, 64 inputs, width 128: h, dx and dWh."""
    import torch

    import sequence_models as sm

    rng, zero = np.random.default_rng(0), np.zeros((32, 128))
    weights = sm.init_recurrent(rng, 64, 128, gates)
    x, dh = rng.normal(size=(n, 32, 64)), rng.normal(size=(n, 32, 128))
    module, x2, dh2 = sm.torch_recurrent(kind, weights), torch.tensor(x, requires_grad=True), torch.tensor(dh)

    def scratch():
        h, _, back = sm.unroll(step, weights, x, *[zero] * states)
        dx, *_, gradients = back(dh, *[zero] * (states - 1))
        return np.concatenate([h.ravel(), dx.ravel(), gradients.Wh.ravel()])

    def library():
        module.zero_grad()
        x2.grad = None
        h, _ = module(x2)
        h.backward(dh2)
        return torch.cat([h.detach().flatten(), x2.grad.flatten(), module.weight_hh_l0.grad.T.flatten()]).numpy()

    return Pair(scratch, library, 1e-10)


def sequence_rnn(n=50):
    """RNN, forward and backward"""
    import sequence_models as sm

    return recurrent_pair("RNN", sm.rnn_step, 1, 1, n)


def sequence_lstm(n=50):
    """LSTM, forward and backward"""
    import sequence_models as sm

    return recurrent_pair("LSTM", sm.lstm_step, 4, 2, n)


def sequence_gru(n=50):
    """GRU, forward and backward"""
    import sequence_models as sm

    return recurrent_pair("GRU", sm.gru_step, 3, 1, n)


def sequence_attention(n=200):
    """causal attention, forward and backward"""
    import torch

    import sequence_models as sm

    q, k, v, do = np.random.default_rng(0).normal(size=(4, 4, 4, n, 32))
    mask, ours = sm.causal_mask(n), [torch.tensor(a, requires_grad=True) for a in (q, k, v)]
    do2, attend = torch.tensor(do), torch.nn.functional.scaled_dot_product_attention

    def scratch():
        o, _, back = sm.attention(q, k, v, mask)
        return np.stack([o, *back(do)])

    def library():
        for a in ours:
            a.grad = None
        o = attend(*ours, is_causal=True)
        o.backward(do2)
        return torch.stack([o.detach(), *(a.grad for a in ours)]).numpy()

    return Pair(scratch, library, 1e-10)


def sequence_gpt():
    """tiny GPT, 10 steps of AdamW"""
    import sequence_models as sm

    rng = np.random.default_rng(0)
    model, ids = sm.init_gpt(rng, 40, 64, width=64), rng.integers(40, size=(10, 8, 65))
    batches = [(rows[:, :-1], rows[:, 1:]) for rows in ids]
    return Pair(
        lambda: sm.train(model, sm.gpt_gradients, batches)[1], lambda: sm.torch_train_gpt(model, batches), 1e-8
    )


def sequence_autoregression(n=20000):
    """autoregression on 24 values"""
    import sequence_models as sm
    from utils import make_series

    X, y = sm.make_windows(make_series(np.random.default_rng(0), n), 24)
    return Pair(lambda: sm.fit_autoregression(X, y)[0], lambda: sm.sklearn_autoregression(X, y).coef_, 1e-10)


# --- neural_networks.py ---------------------------------------------------------------
def network_pair(sizes, n, dtype=np.float64, tolerance=1e-10):
    """Loss and every gradient of a ReLU network on n rows; the result is that of the first W."""
    import torch

    import neural_networks as nn

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n, sizes[0])).astype(dtype), rng.integers(sizes[-1], size=n)
    layers = nn.make_mlp(rng, sizes)
    for layer in layers:
        layer.params = [p.astype(dtype) for p in layer.params]
    modules = [torch.nn.Linear(*p) for p in zip(sizes, sizes[1:])]
    for module, layer in zip(modules, layers[::2]):
        module.weight.data = torch.tensor(layer.params[0].T.copy())
        module.bias.data = torch.tensor(layer.params[1])
    bends = [torch.nn.ReLU() for _ in modules]
    net = torch.nn.Sequential(*[m for pair in zip(modules, bends) for m in pair][:-1])
    tX, ty = torch.tensor(X), torch.tensor(y)

    def scratch():
        _, pull = nn.cross_entropy(nn.forward(layers, X, training=True), y)
        nn.backward(layers, pull(1.0), to_input=False)
        return layers[0].grads[0]

    def library():
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(tX), ty).backward()
        return modules[0].weight.grad.T.numpy()

    return Pair(scratch, library, tolerance), layers, X, y


def mlp_float32(n=1280):
    """MLP 784-256-128-10, float32"""
    return network_pair((784, 256, 128, 10), n // 10, np.float32, 1e-5)[0]


def mlp_float64(n=1280):
    """MLP 784-256-128-10, float64"""
    return network_pair((784, 256, 128, 10), n // 10)[0]


def mlp_small():
    """MLP 20-32-16-3 on 32 rows"""
    return network_pair((20, 32, 16, 3), 32)[0]


def autograd_small():
    """the same by the autograd engine"""
    import neural_networks as nn

    pair, layers, X, y = network_pair((20, 32, 16, 3), 32)
    rows = np.arange(len(X))

    def scratch():
        W, b, V, c, U, d = leaves = [nn.Tensor(p) for p in nn.parameters(layers)]
        z = ((X @ W + b).relu() @ V + c).relu() @ U + d
        ((z.exp().sum(1).log() - z[rows, y]).sum() / len(X)).backward()
        return leaves[0].grad

    return Pair(scratch, pair.library, pair.tolerance)


def image_pair(f, images, *params, library, **options):
    """One function of images and its gradients, on both sides; the result is that for x."""
    import torch

    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape) for shape in (images, *params)]
    grad = rng.normal(size=f(*inputs, **options)[0].shape)
    order = {1: (0,), 2: (0, 1), 4: (0, 3, 1, 2)}
    first = torch.tensor(inputs[0].transpose(order[inputs[0].ndim]).copy(), requires_grad=True)
    others = [torch.tensor(p.transpose(3, 2, 0, 1).copy() if p.ndim == 4 else p, requires_grad=True) for p in inputs[1:]]
    tgrad = torch.tensor(grad.transpose(order[grad.ndim]).copy())

    def scratch():
        _, *pulls = f(*inputs, **options)
        return [pull(grad) for pull in pulls][0]

    def torchs():
        back = torch.autograd.grad(library(first, *others), (first, *others), tgrad)[0]
        return back.permute(*np.argsort(order[back.ndim]).tolist()).numpy()

    return Pair(scratch, torchs, 1e-10)


def conv_few_channels(n=640):
    """convolution, 1 to 16 channels, 8 x 8"""
    import torch.nn.functional as F

    import neural_networks as nn

    shapes = (n // 10, 8, 8, 1), (3, 3, 1, 16), (16,)
    return image_pair(nn.conv2d, *shapes, padding=1, library=lambda x, K, b: F.conv2d(x, K, b, padding=1))


def conv_many_channels(n=160):
    """convolution, 64 to 64 channels, 14 x 14"""
    import torch.nn.functional as F

    import neural_networks as nn

    shapes = (n // 10, 14, 14, 64), (3, 3, 64, 64), (64,)
    return image_pair(nn.conv2d, *shapes, padding=1, library=lambda x, K, b: F.conv2d(x, K, b, padding=1))


def max_pooling(n=640):
    """max pooling, 16 channels, 16 x 16"""
    import torch.nn.functional as F

    import neural_networks as nn

    return image_pair(nn.max_pool2d, (n // 10, 16, 16, 16), size=2, library=lambda x: F.max_pool2d(x, 2))


def batch_normalisation(n=2560):
    """batch norm, 256 features"""
    import torch.nn.functional as F

    import neural_networks as nn

    running = {"mean": np.zeros(256), "variance": np.ones(256)}
    return image_pair(
        nn.batch_norm, (n // 10, 256), (256,), (256,), training=True, **running,
        library=lambda x, gain, shift: F.batch_norm(x, None, None, gain, shift, True),
    )  # fmt: skip


def digits_epochs():
    """digits, five epochs of the MLP 64-128-64-10"""
    import neural_networks as nn

    (X, y), *_ = nn.load_digits_split()

    def scratch():
        layers = nn.make_mlp(np.random.default_rng(0), (64, 128, 64, 10))
        return nn.fit_network(np.random.default_rng(0), layers, X, y, epochs=5)[:, 0]

    def library():
        layers, rng = nn.make_mlp(np.random.default_rng(0), (64, 128, 64, 10)), np.random.default_rng(0)
        order = [batch for _ in range(5) for batch in nn.batches_of(rng, len(X), 32)]
        losses, _ = nn.torch_train(layers, ((X[i], y[i]) for i in order), nn.cross_entropy, 0.3)
        return np.reshape(losses, (5, -1)).mean(axis=1)

    return Pair(scratch, library, 1e-8)


# --- embeddings.py
def exact_search(n=20000):
    """nearest, 100 queries among 20k x 64"""
    return search(n, 100)


def exact_search_one(n=20000):
    """nearest, 1 query among 20k x 64"""
    return search(n, 1)


def search(n, queries):
    import embeddings as em

    rng = np.random.default_rng(0)
    X, Q = rng.normal(size=(n, 64)), rng.normal(size=(queries, 64))
    model = em.sklearn_nearest(X, 10, "cosine")
    return Pair(lambda: em.nearest(X, Q, 10)[0], lambda: 1 - model.kneighbors(Q)[0], 1e-10)


def svd_jacobi(n=400):
    """SVD by Jacobi, 400 x 100, against LAPACK"""
    import embeddings as em

    A = np.random.default_rng(0).normal(size=(n, n // 4))
    return Pair(lambda: em.svd_jacobi(A)[1], lambda: np.linalg.svd(A, full_matrices=False)[1], 1e-10)


def svd_randomized(n=4000):
    """randomised SVD, 4000 x 500, k 10"""
    import embeddings as em

    A = np.random.default_rng(0).normal(size=(n, 500)) * 0.99 ** np.arange(500)
    seed = np.random.RandomState
    return Pair(lambda: em.svd_randomized(A, 10, seed(0))[1], lambda: em.sklearn_svd_randomized(A, 10, seed(0))[1], 1e-8)


def pca_svd(n=5000):
    """PCA by SVD, 5k x 100"""
    import embeddings as em

    X = np.random.default_rng(0).normal(size=(n, 100)) * np.arange(1, 101)
    return Pair(lambda: em.fit_pca(X, 20)[2], lambda: em.sklearn_pca(X, 20).explained_variance_, 1e-8)


def tfidf(n=1000):
    """TF-IDF, fit and transform, 1000 texts"""
    import embeddings as em

    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.zipf(1.5, 100) if i < 3000) for _ in range(n)]
    return Pair(
        lambda: em.tfidf(texts, *em.fit_tfidf(texts)), lambda: em.sklearn_tfidf(texts).fit_transform(texts).toarray(), 1e-10
    )


def kmeans(n=20000):
    """k-means, 20k x 32, k 64, 20 steps"""
    import embeddings as em

    X = np.random.default_rng(0).normal(size=(n, 32))
    start = X[:64]
    return Pair(lambda: em.fit_kmeans(X, start, 20)[2], lambda: em.sklearn_kmeans(X, start, 20).inertia_, 1e-8)


def tsne(n=500):
    """t-SNE, exact, n 500, 50 steps"""
    import embeddings as em
    from scipy.spatial.distance import squareform
    from sklearn.manifold import _t_sne

    X = np.random.default_rng(0).normal(size=(n, 10))
    P, start = em.joint_probabilities(X, 12.0), X[:, :2]
    args = [squareform(P, checks=False), 1, n, 2]

    def library():
        more = dict(learning_rate=5.0, momentum=0.5, min_grad_norm=0, n_iter_check=50, args=args)
        return _t_sne._gradient_descent(_t_sne._kl_divergence, start.ravel(), 0, 50, **more)[0].reshape(n, 2)

    return Pair(lambda: em.tsne_steps(P, start, 50, 5.0, 0.5), library, 1e-6)


def word2vec():
    """word2vec, 10 steps, own negatives"""
    import embeddings as em

    rng = np.random.default_rng(0)
    V, U = rng.normal(size=(2, 2000, 64)) / 8
    batches = [(*rng.integers(2000, size=(2, 512)), rng.integers(2000, size=(512, 10))) for _ in range(10)]

    def steps(gradient):
        v, u = V, U
        for batch in batches:
            _, dV, dU = gradient(v, u, *batch)
            v, u = v - dV, u - dU
        return v

    return Pair(lambda: steps(em.skipgram_gradient), lambda: steps(em.torch_skipgram), 1e-9)


ENCODER = []  # built once for the two rows


def encoder(texts):
    import logging
    import tempfile

    import embeddings as em
    import torch
    from transformers import BertConfig, BertModel

    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if not ENCODER:
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *{w for t in em.TEXTS for w in em.words(t)}]
        sizes = dict(hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=12)
        with tempfile.TemporaryDirectory() as folder:
            em.save_tiny_bert(folder, {p: i for i, p in enumerate(pieces)})
            model, ours = em.sentence_transformers_encoder(folder), em.load_encoder(folder)
        bert = BertModel(BertConfig(vocab_size=len(pieces), **sizes)).eval()
        model[0].model = bert
        weights = {name: w.detach().numpy() for name, w in bert.state_dict().items()}
        ENCODER.extend([ours | {"weights": weights, "heads": 12}, model])
    ours, model = ENCODER
    return Pair(lambda: em.encode_sentences(ours, texts), lambda: model.encode(texts), 1e-5)


def encode_64():
    """BERT of MiniLM's size, 64 short sentences"""
    import embeddings as em

    return encoder(em.TEXTS * 8)


def encode_1():
    """BERT of MiniLM's size, 1 sentence"""
    import embeddings as em

    return encoder(em.TEXTS[:1])


def info_nce(n=256):
    """InfoNCE and its gradients, 256 pairs, d 128"""
    import embeddings as em

    A, B = np.random.default_rng(0).normal(size=(2, n, 128))
    return Pair(lambda: em.info_nce(A, B)[1], lambda: em.sentence_transformers_info_nce(A, B)[1], 1e-8)


# --- tree_models.py


def tree_data(n, k=0):
    """20 features, float32 as the library stores them; y continuous, or two noisy classes."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 20)).astype(np.float32).astype(float)
    y = X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=n)
    return X, (y > 0).astype(int) if k else y


def trees(n, criterion, depth, leaf=1):
    """Fitted and asked for their training rows. (Full trees of both know these by heart.)"""
    X, y = tree_data(n, criterion != "variance")
    return Pair(
        lambda: tm.fit_tree(X, y, criterion, depth, leaf).impurity,
        lambda: tm.sklearn_tree(X, y, criterion, depth, leaf).tree_.impurity[0],
        1e-10,
    )


def classification_tree_1k(n=1000):
    """classification tree, gini, 1k x 20"""
    return trees(n, "gini", None)


def classification_tree_10k(n=10_000):
    """classification tree, gini, 10k x 20"""
    return trees(n, "gini", None)


def classification_tree_100k(n=100_000):
    """classification tree, gini, 100k x 20"""
    return trees(n, "gini", None)


def regression_tree(n=10_000):
    """regression tree, full depth, 10k x 20"""
    return trees(n, "variance", None)


def regression_tree_8(n=10_000):
    """regression tree, depth 8, 10k x 20"""
    X, y = tree_data(n)
    pair = trees(n, "variance", 8, 10)
    ours, library = tm.fit_tree(X, y, "variance", 8, 10), tm.sklearn_tree(X, y, "variance", 8, 10)
    assert np.allclose(tm.predict_tree(ours, X), library.predict(X), atol=1e-10)
    return pair


def tree_prediction(n=100_000):
    """tree prediction, 100k rows, a tree of 10k"""
    X, y = tree_data(10_000)
    new = tree_data(n + 1)[0][1:]
    root, model = tm.fit_tree(X, y, "variance", None, 10), tm.sklearn_tree(X, y, "variance", None, 10)
    return Pair(lambda: tm.predict_tree(root, new), lambda: model.predict(new), 1e-10)


def forest(n=2000):
    """forest, 50 regression trees, all features, 2k x 20"""
    X, y = tree_data(n)
    counts = tm.sklearn_forest(X, y, "variance", 50, None, None, 10)[1]
    return Pair(
        lambda: tm.predict_forest(tm.fit_forest(X, y, "variance", 50, None, None, 10, counts=counts), X[:9]),
        lambda: tm.sklearn_forest(X, y, "variance", 50, None, None, 10)[0].predict(X[:9]),
        1e-10,
    )


def forest_sqrt(n=2000):
    """forest, 50 classification trees, sqrt features, 2k x 20"""
    X, y = tree_data(n, 2)

    def score():
        ours = tm.fit_forest(X, y, trees=50)
        rows, labels = tm.out_of_bag(ours, X)
        return np.mean(labels == y[rows])

    return Pair(score, lambda: tm.sklearn_forest(X, y, trees=50)[0].oob_score_, 0.03)


def boosting(n, depth):
    X, y = tree_data(n)
    return Pair(
        lambda: tm.predict_boosting(tm.fit_boosting(X, y, "squared", 50, 0.1, depth, 10), X[:9]),
        lambda: tm.sklearn_boosting(X, y, "squared", 50, 0.1, depth, 10).predict(X[:9]),
        1e-8,
    )


def boosting_stumps(n=5000):
    """gradient boosting, 50 stumps, 5k x 20"""
    return boosting(n, 1)


def boosting_depth_3(n=5000):
    """gradient boosting, 50 trees of depth 3, 5k x 20"""
    return boosting(n, 3)


def newton(n, steps=20):
    X, y = tree_data(n)
    options = ("squared", steps, 0.1, 6, 1.0, 20)
    return Pair(
        lambda: tm.predict_boosting(tm.fit_newton_boosting(X, y, *options), X[:99]),
        lambda: tm.sklearn_newton_boosting(X, y, *options).predict(X[:99]),
        1e-6,
    )


def newton_10k(n=10_000):
    """histogram boosting, 20 trees of depth 6, 10k x 20"""
    return newton(n)


def newton_100k(n=100_000):
    """histogram boosting, 20 trees of depth 6, 100k x 20"""
    return newton(n)


# --- rag_basics.py
# The rows of one m read as one table: recall against time for flat, IVF and PQ, faiss beside it.


@functools.lru_cache(maxsize=2)
def vectors_and_index(make, n, d=32, groups=2000):
    """Vectors in groups, as real embeddings are, 100 queries, their true neighbours and an index."""
    rng = np.random.default_rng(0)
    group, middle = rng.integers(groups, size=n + 100), rng.normal(size=(groups, d))
    vectors = middle[group] + 0.6 * rng.normal(size=(n + 100, d))
    X, Q = np.split(vectors.astype(np.float32), [n])
    return X, Q, rag.FlatIndex(X).search(Q, 10)[1], make(X)


def vector_search(make, name, m, nprobe=None):
    """One index and faiss's with the same centres, k = 10; the title tells the recall."""

    def row(n=100_000):
        X, Q, exact, index = vectors_and_index(make, n)
        index.nprobe = nprobe and min(nprobe, len(index.centers))
        library, asked = rag.faiss_index(index, X), Q[:m]
        found, theirs = (rag.recall(i.search(Q, 10)[1], exact) for i in (index, library))
        row.__doc__ = f"{name}, {m} x 100k: {found:.3f}, {theirs:.3f} found"

        def ours():
            index.nprobe = nprobe and min(nprobe, len(index.centers))
            return index.search(asked, 10)[0]

        return Pair(ours, lambda: library.search(asked, 10)[0], 1e-5)

    row.__name__ = f"{name.replace(', nprobe ', '_').replace(', 8 bytes', '').lower()}_{m}"
    return row


def flat(X):
    return rag.FlatIndex(X)


def ivf(X):
    return rag.IVFIndex(X, max(1, min(316, len(X) // 30)))


def pq(X):
    return rag.PQIndex(X, 8, 8)


def bm25():
    """BM25, 100 queries, 10k documents (scipy.sparse)"""
    from scipy import sparse

    rng = np.random.default_rng(0)
    chance = 1 / np.arange(100, 20_100)  # as after dropping the stop words
    words = [f"w{i}" for i in range(20_000)]
    draw = rng.choice(20_000, size=(10_100, 60), p=chance / chance.sum())
    texts = [" ".join(words[i] for i in row) for row in draw[:10_000]]
    queries = [" ".join(words[i] for i in rng.choice(row, 5)) for row in draw[10_000:]]
    index = rag.BM25Index(texts, str.split)
    ids, weights = (np.concatenate(parts) for parts in zip(*index.lists.values()))
    border = np.append(0, np.cumsum([len(ids) for ids, _ in index.lists.values()]))
    column = {term: j for j, term in enumerate(index.lists)}
    matrix = sparse.csc_matrix((weights, ids, border), (10_000, len(column)))

    def library(query):
        columns = [column[term] for term in query.split() if term in column]
        scores = np.asarray(matrix[:, columns].sum(axis=1))[:, 0]
        return -np.sort(np.partition(-scores, 9)[:10])

    return Pair(
        lambda: np.array([index.search(query, 10)[0] for query in queries]),
        lambda: np.array([library(query) for query in queries]),
        1e-10,
    )


ROWS = {}  # chapter: its rows, in reading order
ROWS["linear_models"] = [
    least_squares, ridge, lasso_01, lasso_001, logistic, softmax, linear_svm, kernel_svm_1, kernel_svm_10,
]  # fmt: skip
ROWS["neural_networks"] = [
    mlp_float32, mlp_float64, mlp_small, autograd_small, conv_few_channels, conv_many_channels,
    max_pooling, batch_normalisation, digits_epochs,
]  # fmt: skip
ROWS["optimization"] = [sgd_long, momentum_long, rmsprop_long, adam_long]
ROWS["optimization"] += [sgd_small, momentum_small, adam_small, lbfgs_logistic]
ROWS["sequence_models"] = [
    sequence_rnn, sequence_lstm, sequence_gru, sequence_attention, sequence_gpt, sequence_autoregression,
]  # fmt: skip
ROWS["embeddings"] = [
    exact_search, exact_search_one, svd_jacobi, svd_randomized, pca_svd, tfidf, kmeans, tsne, word2vec, encode_64, encode_1,
    info_nce,
]  # fmt: skip
ROWS["tree_models"] = [
    classification_tree_1k, classification_tree_10k, classification_tree_100k, regression_tree,
    regression_tree_8, tree_prediction, forest, forest_sqrt, boosting_stumps, boosting_depth_3,
    newton_10k, newton_100k,
]  # fmt: skip
ROWS["rag_basics"] = [bm25] + [
    vector_search(make, name, m, nprobe)
    for m, probes in [(100, (1, 8, 32)), (1, (8,))]
    for make, name, nprobe in [
        (flat, "flat", None), *[(ivf, f"IVF, nprobe {n}", n) for n in probes], (pq, "PQ, 8 bytes", None),
    ]
]  # fmt: skip


if __name__ == "__main__":
    main()
