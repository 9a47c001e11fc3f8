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
import inspect
import sys
import time
import warnings
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

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


def pca(method, n):
    import embeddings as em

    X = np.random.default_rng(0).normal(size=(n, 100)) * np.arange(1, 101)
    return Pair(lambda: em.fit_pca(X, 20, method)[2], lambda: em.sklearn_pca(X, 20, method).explained_variance_, 1e-8)


def pca_svd(n=5000):
    """PCA by SVD, 5k x 100"""
    return pca("svd", n)


def pca_covariance(n=20000):
    """PCA by covariance, 20k x 100"""
    return pca("covariance", n)


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


def word2vec(shape):
    import embeddings as em

    rng = np.random.default_rng(0)
    V, U = rng.normal(size=(2, 2000, 64)) / 8
    batches = [(*rng.integers(2000, size=(2, 512)), rng.integers(2000, size=shape)) for _ in range(10)]

    def scratch():
        v, u = V, U
        for batch in batches:
            _, dV, dU = em.skipgram_gradient(v, u, *batch)
            v, u = v - dV, u - dU
        return v

    return Pair(scratch, lambda: em.torch_skipgram(V, U, batches, 1.0)[1], 1e-9)


def word2vec_own():
    """word2vec, 10 steps, own negatives"""
    return word2vec((512, 10))


def word2vec_shared():
    """word2vec, 10 steps, shared negatives"""
    return word2vec((64,))


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


ROWS = {}  # chapter: its rows, in reading order
ROWS["embeddings"] = [
    exact_search, exact_search_one, svd_jacobi, svd_randomized, pca_svd, pca_covariance, tfidf, kmeans, tsne,
    word2vec_own, word2vec_shared, encode_64, encode_1, info_nce,
]  # fmt: skip

if __name__ == "__main__":
    main()
