# %% [markdown]
"""
# Embeddings: how can numbers hold a meaning?
An *embedding* turns a thing into a list of numbers, so that what is alike lies close together.
`python embeddings.py pca tsne` runs two demos. Only demos and "The library version" need libraries.

    n, d, k   number of items, of coordinates, of what is asked for: neighbours, clusters ...
    X, A, B   items, one per row (n, d); ‖a‖ = √(Σⱼ aⱼ²) is the length of a row
    U, s, Vᵀ  singular vectors and values (n, k), (k,), (k, d); V transposed is `Vt`
    m, Z      mean of the rows (d,); coordinates in a smaller space (n, k)
    P, Q, Y   closeness in the data and on the map, both (n, n); the map (n, 2)
    v, u      vectors of a word, as centre in `V` and as context in `U` (words, d)
    β, γ, ζ, ε, σ, τ, Ω   beta, gamma, zeta, epsilon, sigma, tau, omega: said where they appear
"""
# %%
import json
import re
import sys
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from utils import DidNotConverge, check_array, check_number, check_X, compare, report
from utils import run_chapter, run_demos, save_plot, stop
ALLOWED = {  # how close scratch and library must be, relative to max(1, largest number), and why
    "similarity": (1e-12, "the same products, rounded in another order"),
    "numbers": (0, "row numbers, labels and step counts have no rounding"),
    "svd": (1e-10, "two exact algorithms, or the same random subspace"),
    "steps": (1e-10, "the same steps in float64, rounded in another order"),
    "t-SNE P": (1e-4, "theirs is float32, with the entropy matched to 1e-5 only"),
    "sentences": (1e-6, "float32 in every layer, and an erf that is good to 1.5e-7")}  # fmt: skip
def beside(row, results):
    """Comparisons of {name: (scratch, library)}, all at the tolerance of this row."""
    return [compare(what, *pair, *ALLOWED[row]) for what, pair in results.items()]
def load_digits_data(rows=None):
    """Handwritten digits: X (n, 64), grey values 0 to 16, and y. Noise breaks ties between X."""
    from sklearn.datasets import load_digits
    X, y = load_digits(return_X_y=True)
    return (X + 1e-3 * np.random.default_rng(0).normal(size=X.shape))[:rows], y[:rows]
# %% [markdown]
"""
## Similarity: which of these vectors is most like this one?
    dot product a·b = Σⱼ aⱼ bⱼ          cosine cos(a, b) = a·b / (‖a‖ ‖b‖)       (1), (2)
    squared Euclidean distance ‖a - b‖² = ‖a‖² + ‖b‖² - 2 a·b                        (3)
The dot product rewards length; cosine sees direction alone, so a short text can be like a long one;
Euclidean distance asks how far it is to walk. On vectors of length 1 all three rank alike, as (3)
becomes 2 - 2 a·b: search engines normalise once, and one float32 product is the search. (Ours is in
float64, and checks and normalises anew: twice the time.) **When it fails.** Far from the origin the
right side of (3) subtracts large numbers and loses its digits; distances stay when all points move,
so we first move the mean to the origin. A row of zeros has no direction: its cosine is set to 0.
**What people get wrong.** 1 - cos is no distance: two short ways can add up to less than one.
"""
# %%
def unit_rows(A):
    """Each row divided by its length, the bottom of equation (2). A zero row stays zero."""
    length = np.sqrt(np.einsum("ij,ij->i", A, A))[:, None]
    return A / np.where(length > 0, length, 1)
def squared_distances(A, B):
    """Equation (3) for all pairs: (n, d), (m, d) -> (n, m). Rounding may not go below 0."""
    A, B = A - B.mean(axis=0), B - B.mean(axis=0)
    D = (A**2).sum(axis=1)[:, None] + (B**2).sum(axis=1) - 2 * A @ B.T
    return np.maximum(D, 0, out=D)
def similarity(A, B, metric="cosine"):
    """Equation (1), (2) or the root of (3) for all pairs: (n, d), (m, d) -> (n, m)."""
    A, B = check_array("A", A, ndim=2), check_array("B", B, ndim=2)
    if A.shape[1] != B.shape[1]:
        raise ValueError(f"A and B must have as many columns each, not {A.shape} and {B.shape}")
    if metric not in ("dot", "cosine", "euclidean"):
        raise ValueError(f"metric must be 'dot', 'cosine' or 'euclidean', not {metric!r}")
    A, B = (unit_rows(A), unit_rows(B)) if metric == "cosine" else (A, B)
    return np.sqrt(squared_distances(A, B)) if metric == "euclidean" else A @ B.T
def nearest(X, queries, k, metric="cosine"):
    """Values (m, k) and rows (m, k) of X most like each query, best first; if equal, by row."""
    S = similarity(check_array("queries", queries, ndim=2), check_X(X), metric)
    check_number("k", k, least=1, most=S.shape[1], integer=True)
    score = -S if metric == "euclidean" else S
    rows = np.sort(np.argpartition(score, -k)[:, -k:])  # the best k, without sorting the rest
    order = np.argsort(-np.take_along_axis(score, rows, 1), kind="stable")
    rows = np.take_along_axis(rows, order, 1)
    return np.take_along_axis(S, rows, 1), rows

def sklearn_nearest(X, k, metric="cosine"):
    """The library version: a fitted NearestNeighbors. Its cosine is a distance, 1 minus ours."""
    from sklearn.neighbors import NearestNeighbors
    return NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(X)

def demo_similarity(plot=False):
    """Three metrics, three different winners; then neighbours among digits."""
    from sklearn.metrics import pairwise
    print("== Similarity: which of (2, 1), (9, 3), (0.5, 0.5) is most like (2, 2)? ==\n")
    (A, B), same = np.split(load_digits_data()[0], [200]), {}
    libraries = "linear_kernel", "cosine_similarity", "euclidean_distances"
    for metric, name in zip(["dot", "cosine", "euclidean"], libraries):
        values, rows = nearest([[2, 1], [9, 3], [0.5, 0.5]], [[2, 2]], 3, metric)
        print(f"  by {metric:9} rows {rows[0]}, {np.array2string(values[0], precision=2)}")
        same[metric] = similarity(A, B, metric), getattr(pairwise, name)(A, B)
    near = nearest(B, A, 3)[1], sklearn_nearest(B, 3).kneighbors(A, return_distance=False)
    return report(beside("similarity", same) + beside("numbers", {"3 neighbours": near}))
# Try: add the vector (-2, -2) to the demo's three. Which metric does not place it last?
# %% [markdown]
"""
## SVD and PCA: which few directions carry most of a table?
Every matrix is a rotation, a stretch along perpendicular axes, and a rotation again. Its first k
terms are the closest matrix of rank k (Eckart and Young, 1936):

    A = U diag(s) Vᵀ,   UᵀU = VᵀV = I,   s₁ ≥ s₂ ≥ ... ≥ 0                           (4)
    min over all B of rank k of ‖A - B‖² = s²ₖ₊₁ + s²ₖ₊₂ + ...  (squares of all entries)   (5)
*One-sided Jacobi.* If the columns of W = AV are perpendicular, their lengths are s and their
directions U. So turn two columns p, q at a time until γ = p·q is zero, and V with them:

    ζ = (‖q‖² - ‖p‖²) / 2γ,   t = sign(ζ) / (|ζ| + √(1 + ζ²)),   c = 1 / √(1 + t²)
    p, q ← c (p - tq), c (tp + q);   all pairs, again and again until every γ ≈ 0      (6)
*Randomised.* Look at a big A through a few random vectors Ω. Each product with A Aᵀ lifts the
large s further above the small ones (Halko, Martinsson and Tropp, 2011):

    Q = orthonormal basis of (A Aᵀ)ᵖ A Ω,   A ≈ Q (QᵀA),   and QᵀA is small           (7)
*PCA* asks how the rows differ. Take out their mean m; the direction of largest variance is an
eigenvector of the covariance C, which the SVD of X - m finds without squaring the data:

    C = (X - m)ᵀ(X - m) / (n - 1),   maximise vᵀCv where ‖v‖ = 1                     (8)
    X - m = U diag(s) Vᵀ:   Z = (X - m) V,   variance of column i of Z = s²ᵢ / (n - 1)  (9)
    whitened: Z ← Z / √variance, so that all columns have variance 1                (10)
**When it fails.** (7) is poor where the s hardly fall. (8) is quick for n much above d, but in it a
direction 10⁻⁸ as long as the first drowns in rounding. Write metres as millimetres, and another
direction wins. **What people get wrong.** New rows take the mean of the fit, not their own.
"""
# %%
def rotate_pairs(M, n, p, q):
    """Equation (6) on rows p[i], q[i] of M = [Wᵀ Vᵀ], (.., n + n). Returns the largest |cosine|."""
    a, b = M[p], M[q]  # (pairs, 2n): no row is in two pairs, so all turn at once
    aa, bb, gamma = (np.einsum("ij,ij->i", x[:, :n], y[:, :n]) for x, y in [(a, a), (b, b), (a, b)])
    size = np.sqrt(aa) * np.sqrt(bb)
    turn = np.abs(gamma) > 1e-15 * size
    zeta = (bb - aa) / np.where(turn, 2 * gamma, 1)
    t = np.where(turn, np.copysign(1, zeta) / (np.abs(zeta) + np.hypot(1, zeta)), 0)[:, None]
    c = 1 / np.sqrt(1 + t**2)
    M[p], M[q] = c * (a - t * b), c * (t * a + b)
    return np.max(np.abs(gamma[turn]) / size[turn], initial=0)
def svd_jacobi(A, sweeps=30):
    """Equation (4) by rotations: U (m, r), s (r,), Vt (r, n), r = min(m, n). Hestenes (1958). It
    takes 40 to 50 times LAPACK's time, but keeps digits of small s: Demmel and Veselic (1992)."""
    A = check_array("A", A, ndim=2)
    if A.shape[0] < A.shape[1]:
        return tuple(part.T for part in svd_jacobi(A.T, sweeps)[::-1])
    n, scale = A.shape[1], np.abs(A).max() or 1.0
    Q, R = np.linalg.qr(A / scale)  # (m, n), (n, n): shorter columns
    M = np.pad(np.hstack([R.T, np.eye(n)]), [(0, n % 2), (0, 0)])  # for odd n a row of zeros
    order, half = np.arange(len(M)), len(M) // 2
    for _ in range(check_number("sweeps", sweeps, least=1, integer=True)):
        worst = 0.0
        for _ in range(len(M) - 1):  # a round robin: everyone meets everyone once
            worst = max(worst, rotate_pairs(M, n, order[:half], order[: half - 1 : -1]))
            order[1:] = np.roll(order[1:], 1)
        if worst <= 1e-15 * (10 + n):
            break
    else:
        warnings.warn(f"svd_jacobi: cosine {worst:.1e} left after {sweeps} sweeps", DidNotConverge)
    s = np.linalg.norm(M[:n, :n], axis=1)
    order = np.argsort(-s)
    U, R = np.linalg.qr(M[order, :n].T)  # lengths to 1, and directions for columns of length 0
    return Q @ (U * np.where(np.diag(R) < 0, -1, 1)), scale * s[order], M[order, n:]
def svd_randomized(A, k, rng, power=4):
    """The first k of U, s, Vt by equation (7), with k + 10 random vectors from rng."""
    A = check_array("A", A, ndim=2)
    check_number("k", k, least=1, most=min(A.shape), integer=True)
    check_number("power", power, least=0, integer=True)
    Q = rng.normal(size=(A.shape[1], k + 10))
    for _ in range(power):  # qr, or all columns would turn into the first singular vector
        Q = np.linalg.qr(A.T @ np.linalg.qr(A @ Q)[0])[0]
    Q = np.linalg.qr(A @ Q)[0]
    U, s, Vt = np.linalg.svd(Q.T @ A, full_matrices=False)
    return Q @ U[:, :k], s[:k], Vt[:k]
def fix_signs(Vt):
    """Signs are free: flip rows so that the largest entry of each is positive."""
    return Vt * np.where(Vt[np.arange(len(Vt)), np.abs(Vt).argmax(axis=1)] < 0, -1, 1)[:, None]
def fit_pca(X, k, method="svd"):
    """m (d,), Vt (k, d), variance (k,), its share of the whole: (9), or (8) by "covariance"."""
    X = check_X(X)
    check_number("k", k, least=1, most=min(X.shape), integer=True)
    if (X[-1] == X[0]).all() and (X == X[0]).all():  # mostly the last row alone settles it
        raise ValueError(f"X must hold two different rows at least, not {len(X)} time(s) the same")
    mean = X.mean(axis=0)
    if method == "svd":
        s, Vt = np.linalg.svd(X - mean, full_matrices=False)[1:]
        variance = s**2 / (len(X) - 1)
    elif method == "covariance":  # summed over blocks that fit into the processor's cache
        C = sum(B.T @ B for B in (X[i : i + 500] - mean for i in range(0, len(X), 500)))
        variance, V = np.linalg.eigh(C / (len(X) - 1))
        variance, Vt = np.maximum(variance[::-1], 0), V.T[::-1]  # eigh: smallest first
    else:
        raise ValueError(f"method must be 'svd' or 'covariance', not {method!r}")
    return mean, fix_signs(Vt[:k]), variance[:k], variance[:k] / variance.sum()
def pca_transform(X, mean, Vt, whiten=None):
    """Z (n, k), equation (9). Pass the variance as `whiten` for equation (10)."""
    X = check_X(X, len(mean)) - mean
    if whiten is not None and whiten[-1] <= 1e-20 * whiten[0]:  # it would divide noise by zero
        raise ValueError("whiten must be above 0: the last component has no variance, so lower k")
    return X @ Vt.T / np.sqrt(1 if whiten is None else whiten)  # (n, d) @ (d, k) -> (n, k)

def sklearn_svd_randomized(A, k, rng, power=4):
    """The library version; rng: a RandomState, or its seed. For (4) it is np.linalg.svd, LAPACK."""
    from sklearn.utils.extmath import randomized_svd
    options = dict(n_iter=power, power_iteration_normalizer="QR", transpose=False)
    return randomized_svd(A, k, random_state=rng, **options)
def sklearn_pca(X, k, method="svd", whiten=False):
    """The library version: a fitted PCA. It calls our two methods "full" and "covariance_eigh"."""
    from sklearn.decomposition import PCA
    return PCA(k, whiten=whiten, svd_solver="full" if method == "svd" else "covariance_eigh").fit(X)

def demo_svd(plot=False):
    """A digit from ever fewer numbers; a small singular value that LAPACK gets wrong."""
    print("\n== SVD: what do 1, 2, 3 and 8 terms show of a handwritten zero? ==\n")
    X, seeded = load_digits_data(200)[0], np.random.RandomState
    U, s, Vt = svd_jacobi(X[0].reshape(8, 8))
    for row in np.hstack([np.clip((U[:, :k] * s[:k]) @ Vt[:k], 0, 16) for k in [1, 2, 3, 8]]):
        print("  " + "".join(" .:-=+*#@"[round(grey / 2)] for grey in row).rstrip())
    bad = np.array([[1e-10, 1e-20, 1], [1e-10, 2e-20, 3], [1e-10, 3e-20, 6]])  # det = 1e-30
    for name, s in [("Jacobi", svd_jacobi(bad)[1]), ("LAPACK", np.linalg.svd(bad)[1])]:
        print(f"  badly scaled: |det A| / product of the s by {name} = {1e-30 / s.prod():.3f}")
    s = [svd(X, 5, seeded(0))[1] for svd in (svd_randomized, sklearn_svd_randomized)]
    return report(beside("svd", {"s": (svd_jacobi(X)[1], np.linalg.svd(X)[1]), "randomised s": s}))
def plot_map(plot, filename, Z, labels, title):
    """With --plot: each label at its place on the map Z (n, 2); digits in ten colours."""
    def draw(ax):
        ax.set(title=title, xlabel="coordinate 1", ylabel="coordinate 2")
        ax.scatter(Z[:, 0], Z[:, 1], s=0)
        for (x, y), text in zip(Z[:, :2], map(str, labels)):
            ax.text(x, y, text, fontsize=8, color=f"C{text}" if text.isdigit() else "black")
    if plot:
        save_plot(filename, draw, size=(8, 6))

def demo_pca(plot=False):
    """64 grey values as k numbers: what share of the variance is left."""
    print("\n== PCA: what share of the variance of 64 grey values do k numbers keep? ==\n")
    (X, y), same = load_digits_data(), {}
    for method, whiten in [("covariance", True), ("svd", False)]:
        mean, Vt, variance, share = fit_pca(X, 20, method)
        Z = pca_transform(X, mean, Vt, variance if whiten else None)
        same[f"Z, {method}, {whiten=}"] = Z, sklearn_pca(X, 20, method, whiten).transform(X)
    for k in [1, 2, 5, 10, 20]:
        print(f"  k = {k:2}  {'#' * round(50 * share[:k].sum()):50} {share[:k].sum():.0%}")
    plot_map(plot, "embeddings_pca.png", Z, y, "Digits by PCA")
    return report(beside("svd", same))
# Try: multiply one column of X by 1000 before `fit_pca(X, 2)`. What is the first component now?
# %% [markdown]
"""
## TF-IDF and LSA: how does a text become a vector without training?
Count its words: tf. A word that stands in every text says little, so weigh each by how rare it is
among the n texts. df counts the texts that hold it (Sparck Jones, 1972):

    idf = ln((1 + n) / (1 + df)) + 1 if smooth,   else ln(n / df) + 1                (11)
    x = tf · idf, then x ← x / ‖x‖;   sublinear: 1 + ln tf in place of tf > 0        (12)
*Latent semantic analysis* (Deerwester et al., 1990): "car" and "automobile" are two columns. The
first k terms of an SVD of X, which is not centred, merge words that keep the same company:

    X ≈ U diag(s) Vᵀ,   Z = X V = U diag(s)                                          (13)
**When it fails.** Order is lost: "dog bites man" equals "man bites dog". Words that the fit has
not seen count for nothing; a text of only those, or an empty one, becomes a row of zeros.
"""
# %%
def words(text):
    """The lower-case words of two letters or more: what scikit-learn takes for a word."""
    return re.findall(r"\w\w+", text.lower())
def check_texts(texts):
    """A list of str. A lone str would be read letter by letter."""
    found = [None] if isinstance(texts, str) or not np.iterable(texts) else list(texts)
    if all(isinstance(text, str) for text in found):
        return found
    raise TypeError("texts must be a list of str, as in ['one text', 'another']")
def fit_tfidf(texts, smooth=True):
    """The vocabulary {word: column}, in alphabetical order, and equation (11): idf (words,)."""
    texts = check_texts(texts)
    df = Counter(word for text in texts for word in set(words(text)))
    if not df:
        raise ValueError("texts must hold a word of two letters at least: the vocabulary is empty")
    vocabulary = {word: column for column, word in enumerate(sorted(df))}
    counts = np.array([df[word] for word in vocabulary])
    return vocabulary, np.log((len(texts) + smooth) / (counts + smooth)) + 1
def tfidf(texts, vocabulary, idf, sublinear=False, norm="l2"):
    """Equation (12): X (n, words). norm: "l2" (length 1), "l1" (sum 1) or None."""
    rows, d = [words(text) for text in check_texts(texts)], len(vocabulary)
    cells = [i * d + vocabulary[w] for i, row in enumerate(rows) for w in row if w in vocabulary]
    X = np.bincount(cells, minlength=len(rows) * d).astype(float)
    if sublinear:
        X[X > 0] = 1 + np.log(X[X > 0])
    X = X.reshape(len(rows), d) * idf
    if norm not in ("l2", "l1", None):
        raise ValueError(f"norm must be 'l2', 'l1' or None, not {norm!r}")
    X = X / np.maximum(X.sum(axis=1, keepdims=True), 1e-300) if norm == "l1" else X
    return unit_rows(X) if norm == "l2" else X
def fit_lsa(X, k):
    """Equation (13): Z (n, k), and the first rows of Vt (k, words), which map new rows."""
    X = check_X(X)
    check_number("k", k, least=1, most=min(X.shape), integer=True)
    Vt = fix_signs(np.linalg.svd(X, full_matrices=False)[2][:k])
    return X @ Vt.T, Vt

def sklearn_tfidf(texts, smooth=True, sublinear=False, norm="l2"):
    """The library version: a fitted TfidfVectorizer, whose matrices are sparse."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    return TfidfVectorizer(smooth_idf=smooth, sublinear_tf=sublinear, norm=norm).fit(texts)
def sklearn_lsa(X, k):
    """The library version: a fitted TruncatedSVD, exact by "arpack"; its default is like (7)."""
    from sklearn.decomposition import TruncatedSVD
    return TruncatedSVD(k, algorithm="arpack", tol=0, random_state=0).fit(X)
TEXTS = ["the car needs a new engine and new brakes", "an automobile needs an engine and brakes",
         "the engine of this car drives two wheels", "brakes stop the wheels of an automobile",
         "bread needs flour, water and salt", "flour and water make the dough of a bread",
         "a cake needs flour, sugar and butter", "butter and sugar make a cake sweet"]  # fmt: skip

def demo_tfidf(plot=False):
    """Eight short texts, in which two words that never meet become one direction."""
    print("\n== TF-IDF and LSA: is a car an automobile? No text holds both. ==\n")
    vocabulary, idf = fit_tfidf(TEXTS)
    X = tfidf(TEXTS, vocabulary, idf)
    Z, Vt = fit_lsa(X, 2)
    same = {"LSA": (Z, sklearn_lsa(X, 2).transform(X))}
    for name, columns in [("all", X), ("2", Vt)]:
        cosine = similarity(columns.T, columns.T)[vocabulary["car"], vocabulary["automobile"]]
        print(f"  cosine of car and automobile in {name} dimensions: {cosine:.2f}")
    for smooth, sublinear, norm in [(True, False, "l2"), (False, True, "l1"), (True, True, None)]:
        theirs = sklearn_tfidf(TEXTS, smooth, sublinear, norm).transform(TEXTS).toarray()
        ours = tfidf(TEXTS, *fit_tfidf(TEXTS, smooth), sublinear, norm)
        same[f"{smooth=}, {sublinear=}, {norm=}"] = ours, theirs
    return report(beside("steps", same))
# Try: a ninth text, "the automobile is a car". How far does the cosine in 2 dimensions move?
# %% [markdown]
"""
## k-means: into which k groups do the points fall?
Choose centres c and labels l so that each point is near its own centre. J is the *inertia*:

    J(c, l) = Σᵢ ‖xᵢ - c(lᵢ)‖²                                                       (14)
    lᵢ ← argmin over j of ‖xᵢ - cⱼ‖²  =  argmax over j of xᵢ·cⱼ - ‖cⱼ‖²/2              (15)
    cⱼ ← mean of the points with label j                                             (16)
Lloyd (1957) takes (15) and (16) in turn. Neither can raise J and there are finitely many
labellings, so it stops: in a *local* minimum that depends on the start. k-means++ (Arthur and
Vassilvitskii, 2007) draws the next centre among the points:

    probability of xᵢ = D²ᵢ / Σ D²,   D² = squared distance to the nearest centre so far   (17)
**When it fails.** Long groups, or large beside small ones, are cut in pieces. A centre can lose all
its points, and their mean is then 0/0: we move it onto the point that lies worst. **What people get
wrong.** J falls whenever k grows, so the smallest J cannot choose k.
"""
# %%
def assign(X, centers):
    """Equation (15): labels (n,), in blocks of rows that fit into the processor's cache."""
    half, labels = (centers**2).sum(axis=1) / 2, np.empty(len(X), dtype=int)
    for i in range(0, len(X), 256):
        labels[i : i + 256] = np.argmax(X[i : i + 256] @ centers.T - half, axis=1)
    return labels
def add_rows(shape, rows, values):
    """Zeros of this shape, with values[i] added to row rows[i]. Rows may repeat."""
    cells = rows[:, None] * shape[1] + np.arange(shape[1])
    return np.bincount(cells.ravel(), values.ravel(), shape[0] * shape[1]).reshape(shape)
def move_centers(X, labels, centers):
    """Equation (16); each centre without points moves onto the point farthest from its own."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(centers)) == 0)
    if len(empty):
        far = ((X - centers[labels]) ** 2).sum(axis=1)
        worst, labels = np.argsort(-far, kind="stable")[: len(empty)], labels.copy()
        labels[worst] = np.where(far[worst] > 0, empty, labels[worst])
    sums, counts = add_rows(centers.shape, labels, X), np.bincount(labels, minlength=len(centers))
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centers)
def kmeans_plus_plus(X, k, rng):
    """k rows of X as a start, by equation (17)."""
    X = check_X(X)
    rows, D = [], np.full(len(X), 1e250)  # the first draw: all points alike
    for _ in range(check_number("k", k, least=1, most=len(X), integer=True)):
        rows.append(np.searchsorted(D.cumsum()[:-1], rng.uniform() * D.sum()))  # never past the end
        D = np.minimum(D, squared_distances(X[rows[-1:]], X)[0])
    return X[rows]
def fit_kmeans(X, start, steps=300):
    """Lloyd's algorithm from `start` (k, d): centers (k, d), labels (n,), inertia (14), steps."""
    X, centers = check_X(X), check_array("start", start, ndim=2)
    check_number("steps", steps, least=1, integer=True)
    if centers.shape[1] != X.shape[1] or len(centers) > len(X):
        raise ValueError(f"start must be (k, {X.shape[1]}), k <= {len(X)}, not {centers.shape}")
    middle = X.mean(axis=0)
    X, centers = X - middle, centers - middle  # distances stay, rounding shrinks
    for step in range(1, steps + 1):
        labels = assign(X, centers)
        before, centers = centers, move_centers(X, labels, centers)
        if np.array_equal(before, centers):
            break
    else:
        labels = assign(X, centers)
        warnings.warn(f"fit_kmeans: centres still moved after {steps} steps", DidNotConverge)
    return centers + middle, labels, float(((X - centers[labels]) ** 2).sum()), step

def sklearn_kmeans(X, start, steps=300):
    """The library version: KMeans, one start, tol=0: to the end. Compiled: 0.6 of our time."""
    from sklearn.cluster import KMeans
    return KMeans(len(start), init=np.array(start), n_init=1, tol=0, max_iter=steps).fit(X)

def demo_kmeans(plot=False):
    """Ten clusters of digits, found without a label."""
    print("\n== k-means: do digits emerge that nobody named? ==\n")
    X, y = load_digits_data()
    start = kmeans_plus_plus(X, 10, np.random.default_rng(0))
    (_, labels, J, steps), model = fit_kmeans(X, start), sklearn_kmeans(X, start)
    for size in (np.bincount(y[labels == j]) for j in range(10)):
        print(f"  {size.sum():3} digits, {size.max() / size.sum():3.0%} of them a {size.argmax()}")
    same = beside("numbers", {"labels": (labels, model.labels_), "steps": (steps, model.n_iter_)})
    return report(same + beside("steps", {"inertia": (J, model.inertia_)}))
# Try: start from ten random rows eight times. How far apart are the inertias?
# %% [markdown]
"""
## t-SNE: how can 64 dimensions be drawn so that neighbours stay neighbours?
Turn distances into probabilities. Point i picks j by a bell curve of its own width, which is set
so that each point has the same number of neighbours in effect, the *perplexity*:

    p(j|i) = exp(-βᵢ ‖xᵢ - xⱼ‖²) / Σ over l≠i of exp(-βᵢ ‖xᵢ - xₗ‖²)                  (18)
    βᵢ such that exp(-Σⱼ p(j|i) ln p(j|i)) = perplexity;  Pᵢⱼ = (p(j|i) + p(i|j)) / 2n  (19)
On the map, a curve with a heavy tail leaves room to push the unlike apart. Then make Q like P:

    wᵢⱼ = 1 / (1 + ‖yᵢ - yⱼ‖²) for i≠j,   Q = w / Σ w                                 (20)
    KL = Σ P ln(P / Q),   ∂KL/∂yᵢ = 4 Σⱼ (Pᵢⱼ - Qᵢⱼ) wᵢⱼ (yᵢ - yⱼ)                 (21), (22)
The descent has momentum. For 250 steps it follows 12 P, which gathers clusters while there is
still room to pass (van der Maaten and Hinton, 2008). All n² pairs are kept: n up to thousands.
**What people get wrong.** Sizes of clusters and gaps between them mean nothing. The descent is
chaotic: change the last digit of one number, and another map comes out, equally good.
"""
# %%
def joint_probabilities(X, perplexity=30.0):
    """P (n, n), equations (18) and (19): ln β by ever smaller steps, all points at once."""
    X = check_X(X)
    check_number("perplexity", perplexity, above=1, below=len(X) - 1)
    D = squared_distances(X, X)
    np.fill_diagonal(D, D.max())
    D -= D.min(axis=1, keepdims=True)  # p stays the same, and cannot become 0/0
    D /= D.max() or 1
    log_beta = np.full((len(X), 1), 20.0)
    for step in 40 / 2.0 ** np.arange(1, 60):
        p = np.exp(-np.exp(log_beta) * D)
        np.fill_diagonal(p, 0)  # no point picks itself
        total = p.sum(axis=1, keepdims=True)
        p /= total
        entropy = np.log(total) + np.exp(log_beta) * (p * D).sum(axis=1, keepdims=True)
        log_beta += np.where(entropy > np.log(perplexity), step, -step)
    return (p + p.T) / (2 * len(X))
def map_closeness(Y):
    """Equation (20): w (n, n) and Q (n, n)."""
    w = 1 / (1 + squared_distances(Y, Y))
    np.fill_diagonal(w, 0)
    return w, w / w.sum()
def tsne_loss(P, Y):
    """Equation (21). Where P is 0, P ln P is 0 too."""
    Q = map_closeness(Y)[1]
    return float(np.sum(P[P > 0] * np.log(P[P > 0] / Q[P > 0])))
def tsne_gradient(P, Y):
    """Equation (22): (n, 2). The sum over j of F (yi - yj) is (sum of F) yi - F y."""
    w, Q = map_closeness(Y)
    F = (P - Q) * w
    return 4 * (F.sum(axis=1)[:, None] * Y - F @ Y)
def tsne_steps(P, Y, steps, lr, momentum):
    """Descent; a coordinate's gain grows while it goes one way, else shrinks (Jacobs, 1988)."""
    update, gain = np.zeros_like(Y), np.ones_like(Y)
    for _ in range(steps):
        gradient = tsne_gradient(P, Y)
        gain = np.where(update * gradient < 0, gain + 0.2, np.maximum(0.8 * gain, 0.01))
        update = momentum * update - lr * gain * gradient
        Y = Y + update
    return Y
def fit_tsne(X, perplexity=30.0, steps=1000):
    """The map Y (n, 2), from a tiny PCA map: 250 steps with 12 P, the rest with P."""
    check_number("steps", steps, least=250, integer=True)
    P, Y = joint_probabilities(X, perplexity), pca_transform(X, *fit_pca(X, 2)[:2])
    lr = max(len(Y) / 48, 50)
    Y = tsne_steps(12 * P, 1e-4 * Y / Y[:, 0].std(), 250, lr, momentum=0.5)
    return tsne_steps(P, Y, steps - 250, lr, momentum=0.8)

def sklearn_tsne(X, perplexity, P, Y, steps, lr, momentum):
    """The library version, TSNE(method="exact"), in pieces: P; and (21), (22), map from ours."""
    from sklearn.manifold import _t_sne as t
    theirs = t._joint_probabilities(t.pairwise_distances(X, squared=True), perplexity, 0)
    args = [t.squareform(P, checks=False), 1, *Y.shape]
    loss, gradient = t._kl_divergence(Y.ravel(), *args)
    more = dict(learning_rate=lr, momentum=momentum, min_grad_norm=0, args=args)
    end = t._gradient_descent(t._kl_divergence, Y.ravel(), 0, steps, **more)[0]
    return t.squareform(theirs), loss, gradient.reshape(Y.shape), end.reshape(Y.shape)

def demo_tsne(plot=False):
    """A map of digits in text; how often the nearest neighbour on it has the same name."""
    print("\n== t-SNE: a map on which neighbours stay neighbours ==\n")
    (X, y), page = load_digits_data(250), np.full((19, 67), " ")
    Y, flat = fit_tsne(X, 20.0, 500), pca_transform(X, *fit_pca(X, 2)[:2])
    page[*((Y - Y.min(axis=0)) / np.ptp(Y, axis=0) * [18, 66]).round().astype(int).T] = y
    print(*("  " + "".join(line).rstrip() for line in page), sep="\n")
    for name, Z in [("grey values", X), ("PCA map", flat), ("t-SNE map", Y)]:
        same = y[nearest(Z, Z, 2, "euclidean")[1][:, 1]] == y
        print(f"  the nearest neighbour has the same name, {name:11} {same.mean():.0%}")
    plot_map(plot, "embeddings_tsne.png", Y, y, "Digits by t-SNE")
    P, start = 12 * joint_probabilities(X, 20.0), 1e-4 * flat / flat[:, 0].std()
    theirs, _, slope, end = sklearn_tsne(X, 20.0, P, start, 20, 20, 0.5)
    same = beside("t-SNE P", {"P / max": (P / P.max(), 12 * theirs / P.max())})
    return report(same + beside("steps", {"20 steps": (tsne_steps(P, start, 20, 20, 0.5), end),
        "slope / max": (tsne_gradient(P, start) / slope.max(), slope / slope.max())}))  # fmt: skip
# Try: perplexity 3 and 80. Which draws many islands, and do they mean anything?
# %% [markdown]
"""
## word2vec: can meaning be learned from raw text alone?
"You shall know a word by the company it keeps" (Firth, 1957). Given a word, tell a neighbour o
that really stood near it from K words drawn at random: *skip-gram with negative sampling*
(Mikolov et al., 2013). With v the centre, u a context, y = 1 if u is real, else 0, one pair costs

    L = -ln σ(v·uₒ) - Σₖ ln σ(-v·uₖ),   sigmoid σ(x) = 1 / (1 + exp(-x))             (23)
    g = σ(v·u) - y,   ∂L/∂v = Σ g u,   ∂L/∂u = g v                                   (24)
    probability of a word as a negative:  proportional to count^(3/4)                (25)
This is logistic regression on pairs of words, with both sides learned. Words with the same company
get the same v, and a difference in company becomes a difference of vectors: queen - king is about
woman - man. If all pairs of a batch share their negatives, (24) is a matrix product: faster, less
varied. **When it fails.** A word has one vector, so "bank" has one meaning. Opposites keep the
same company and come out alike. Rare words stay near their random start.
"""
# %%
def make_pairs(sentences, window):
    """Centre and context numbers, two arrays, of all words at most `window` apart."""
    gaps = [(ids, ids[gap:]) for ids in sentences for gap in range(1, window + 1)]
    near = np.array([pair for two in gaps for pair in zip(*two)]).reshape(-1, 2)
    return np.vstack([near, near[:, ::-1]]).T
def softplus(z):
    """-ln σ(-z) = ln(1 + exp(z)) and its slope σ(z), in a form that cannot overflow."""
    e = np.exp(-np.abs(z))
    return np.maximum(z, 0) + np.log(1 + e), np.where(z > 0, 1, e) / (1 + e)
def skipgram_gradient(V, U, center, context, negatives):
    """Mean of (23) over B pairs, gradients (24) for V and U; negatives (B, K), or shared: (K,)."""
    v, o, u = V[center], U[context], U[negatives]  # (B, d), (B, d), (B, K, d) or (K, d)
    shared, B = u.ndim == 2, len(center)
    cost, g = softplus(v @ u.T if shared else np.einsum("bd,bkd->bk", v, u))  # (B, K)
    cost_true, minus_g = softplus(-np.einsum("bd,bd->b", v, o)[:, None])  # (B, 1)
    g, g_true = g / B, -minus_g / B
    dv = (g @ u if shared else np.einsum("bk,bkd->bd", g, u)) + g_true * o
    du = g.T @ v if shared else (g[:, :, None] * v[:, None]).reshape(-1, V.shape[1])
    rows, du = np.concatenate([context, negatives.ravel()]), np.vstack([g_true * v, du])
    loss = (cost.sum() + cost_true.sum()) / B
    return loss, add_rows(V.shape, center, dv), add_rows(U.shape, rows, du)
def fit_word2vec(texts, rng, d=16, window=3, negatives=5, lr=2.0, epochs=5, batch=256):
    """{word: row}, V and U (words, d), the loss of each step. lr is large, as (23) is a mean."""
    for key, n in dict(d=d, window=window, negatives=negatives, epochs=epochs, batch=batch).items():
        check_number(key, n, least=1, integer=True)
    check_number("lr", lr, above=0)
    sentences = [words(text) for text in check_texts(texts)]
    counts = Counter(word for sentence in sentences for word in sentence)
    vocabulary = {word: row for row, word in enumerate(sorted(counts))}
    center, context = make_pairs([[vocabulary[w] for w in s] for s in sentences], window)
    if len(center) == 0:
        raise ValueError("texts must hold two words that stand together at least")
    p = np.array([counts[word] for word in vocabulary]) ** 0.75  # equation (25)
    V, U, losses = rng.uniform(-0.5 / d, 0.5 / d, (len(p), d)), np.zeros((len(p), d)), []
    for _ in range(epochs):
        for rows in np.split(rng.permutation(len(center)), range(batch, len(center), batch)):
            drawn = rng.choice(len(p), size=(len(rows), negatives), p=p / p.sum())
            loss, dV, dU = skipgram_gradient(V, U, center[rows], context[rows], drawn)
            V, U = V - lr * dV, U - lr * dU
            losses.append(loss)
    return vocabulary, V, U, losses
def analogy(vocabulary, V, a, b, c):
    """The word d closest in cosine to v(b) - v(a) + v(c). KeyError: a word is unknown."""
    V, (i, j, k) = unit_rows(V), (vocabulary[word] for word in (a, b, c))
    score = V @ (V[j] - V[i] + V[k])
    score[[i, j, k]] = -np.inf  # they would often win
    return list(vocabulary)[score.argmax()]

def torch_skipgram(V, U, batches, lr):
    """The library version: losses, V, U of an SGD step for each (center, context, negatives)."""
    import torch
    V, U = (torch.tensor(np.array(table), requires_grad=True) for table in (V, U))
    optimizer, losses, log = torch.optim.SGD([V, U], lr=lr), [], torch.nn.functional.logsigmoid
    for center, context, negatives in (map(torch.tensor, batch) for batch in batches):
        v, u = V[center], U[negatives]
        z = v @ u.T if u.ndim == 2 else torch.einsum("bd,bkd->bk", v, u)
        loss = -(log((v * U[context]).sum(1)).sum() + log(-z).sum()) / len(v)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, V.detach().numpy(), U.detach().numpy()
ROLES = ["king queen crown throne", "actor actress stage film", "boy girl school toy",
         "waiter waitress table menu", "monk nun prayer abbey", "uncle aunt family visit"]
def make_sentences(rng, n):
    """A grammar: each role is for a man and a woman, with two things of theirs; sofa = couch."""
    texts = []
    for role, woman, seat in zip(*rng.integers([[6], [2], [2]], size=(3, n))):
        *pair, first, second = ROLES[role].split()
        texts += [f"{pair[woman]} knows {first} {['his', 'her'][woman]} {second}",
                  f"sit down {['sofa', 'couch'][seat]} soft pillow"]  # fmt: skip
    return texts

def demo_word2vec(plot=False):
    """Neighbours and analogies after 2000 generated sentences; a step beside torch."""
    print("\n== word2vec: what is king - uncle + aunt? ==\n")
    rng, same, twos = np.random.default_rng(0), {}, [role.split()[:2] for role in ROLES]
    vocabulary, V, U, _ = fit_word2vec(make_sentences(rng, 1000), rng)
    for near in nearest(V, V[[vocabulary["sofa"], vocabulary["king"]]], 4)[1]:
        print("  near {}: {}, {}, {}".format(*(list(vocabulary)[row] for row in near)))
    right = [analogy(vocabulary, V, *a, c) == d for a in twos for c, d in twos if a[0] != c]
    print(f"  analogies as king - uncle + aunt = queen: {np.mean(right):.0%}, chance 1 / {len(V)}")
    for name, shape in [("own", (64, 5)), ("shared", 5)]:
        batch = (*rng.integers(len(V), size=(2, 64)), rng.integers(len(V), size=shape))
        loss, dV, dU = skipgram_gradient(V, U, *batch)
        results = zip(([loss], V - dV, U - dU), torch_skipgram(V, U, [batch], 1.0))
        same |= zip([f"loss, {name} negatives", f"V, {name}", f"U, {name}"], results)
    Z = pca_transform(V, *fit_pca(V, 2)[:2])
    plot_map(plot, "embeddings_words.png", Z, vocabulary, "Word vectors by PCA")
    return report(beside("steps", same))
# Try: `window=1`. Which neighbours does "sofa" keep, and how many analogies are lost?
# %% [markdown]
"""
## Sentence embeddings: what is the vector of a sentence?
The plain answer is the mean of its T word vectors. It ignores order and company:

    z = Σₜ v(wordₜ) / T                                                              (26)
An *encoder* lets each word look at the others first. BERT (Devlin et al., 2019) keeps one row of
x (T, h) for each token. Words outside its vocabulary are cut into known pieces, longest first
(playing: play ##ing); [CLS] and [SEP] mark the ends. A token starts as the sum of three learned
vectors: its piece, its position, its type. Then some layers, each

    layer norm   LN(x) = (x - mean) / √(variance + ε) · gain + bias,  row by row       (27)
    attention    softmax(q kᵀ / √(h / heads)) v,   q, k, v: three linear maps of x     (28)
    GELU         x (1 + erf(x / √2)) / 2                                             (29)
    layer        x ← LN(x + W attention + b),  x ← LN(x + W₂ GELU(W₁ x + b₁) + b₂)     (30)
A row of the softmax sums to 1: each token becomes a mixture of what it looks at. *Heads* do so
side by side, on their own columns. Texts of a batch are padded to one length; a mask gives padding
no weight. *Pooling* makes one vector of T: their mean, or the first, [CLS]. **When it fails.** What
is beyond the model's limit, often 256 tokens, is cut off in silence. Vectors of two models cannot
be compared. **What people get wrong.** Padding counted in the mean.
"""
# %%
def mean_vectors(texts, vocabulary, V):
    """Equation (26): Z (n, d). An unknown word counts as zeros, and an empty text is zeros."""
    Z = np.zeros((len(texts := check_texts(texts)), V.shape[1]))
    for z, found in zip(Z, map(words, texts)):
        z += V[[vocabulary[w] for w in found if w in vocabulary]].sum(axis=0) / max(len(found), 1)
    return Z
CHINESE = "([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f"
CHINESE += "\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f])"
def split_words(text, lower=True, strip_accents=True, chinese=True):
    """BERT's words: no control characters, no accents, each Chinese or punctuation mark alone."""
    kind, drop = unicodedata.category, ("Cc", "Cf", "Co")  # control, format, private use
    text = "".join(c for c in text if c in "\t\n\r" or kind(c) not in drop and c != "\ufffd")
    text = re.sub(CHINESE, r" \1 ", text) if chinese else text
    if strip_accents:  # NFD writes é as e and an accent, which is of kind Mn
        text = "".join(c for c in unicodedata.normalize("NFD", text) if kind(c) != "Mn")
    text = "".join(map(str.lower, text)) if lower else text  # by letter: "ΑΣ".lower() ends in ς
    alone = (kind(c)[0] == "P" or "!" <= c <= "~" and not c.isalnum() for c in text)
    return "".join(f" {c} " if mark else c for c, mark in zip(text, alone)).split()
def wordpiece(word, vocabulary):
    """The longest known piece, again and again; [UNK] for the word if at some place none fits."""
    pieces, start = [], 0
    while start < len(word):
        tries = ("##" * (start > 0) + word[start:end] for end in range(len(word), start, -1))
        piece = next((piece for piece in tries if piece in vocabulary), None)
        if piece is None or len(word) > 100:
            return ["[UNK]"]
        pieces.append(piece)
        start += len(piece) - 2 * (start > 0)
    return pieces
def read_file(path, parse=json.loads):
    """What `parse` makes of the bytes of a file, or one clear sentence."""
    try:
        return parse(Path(path).read_bytes())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is missing, cut off or not what it should be: {error}") from None
def safetensors(data):
    """{name: float32 array}. data: 8 bytes that say n, a JSON header of n bytes, then numbers."""
    end, weights = 8 + int.from_bytes(data[:8], "little"), {}
    for name, entry in json.loads(data[8:end]).items():
        if name != "__metadata__" and not name.endswith("position_ids"):  # 0, 1, 2: not learned
            kind, (first, last) = entry["dtype"], entry["data_offsets"]
            if kind not in ("F32", "F16"):
                raise ValueError(f"{name} is of type {kind}, only F32 and F16 can be read")
            if not 0 <= first <= last <= len(data) - end:
                raise ValueError(f"{name} lies outside of the file")
            numbers = np.frombuffer(data[end + first : end + last], f"<f{int(kind[1:]) // 8}")
            weights[name.removeprefix("bert.")] = numbers.reshape(entry["shape"]).astype("f4")
    return weights
def load_encoder(folder):
    """What SentenceTransformer.save wrote, as a dict. Refuses by name what is not done here."""
    def need(what, value, known):
        if value != known:
            raise ValueError(f"{folder}: {what} must be {known}, not {value}")
    modules = read_file(Path(folder) / "modules.json")
    kinds = " ".join(module["type"].rpartition(".")[2] for module in modules)
    need("modules", kinds.removesuffix(" Normalize"), "Transformer Pooling")
    home, pool = (Path(folder) / module["path"] for module in modules[:2])
    cut, more, prompts = (read_file(path) if path.exists() else {} for path in [
        home / "tokenizer_config.json", home / "sentence_bert_config.json",
        Path(folder) / "config_sentence_transformers.json"])  # fmt: skip
    config, tokenizer = read_file(home / "config.json"), read_file(home / "tokenizer.json")["model"]
    pooling = read_file(pool / "config.json")  # in older files: pooling_mode_cls_token, true
    older = [key.split("_")[2] for key, on in pooling.items() if key[:13] == "pooling_mode_" and on]
    mode = str(pooling.get("pooling_mode", " ".join(older)))
    need("pooling", mode, "cls" if mode == "cls" else "mean")
    need("default_prompt_name", prompts.get("default_prompt_name"), None)
    need("model_type", config.get("model_type"), "bert")
    need("hidden_act", config.get("hidden_act"), "gelu")
    need("tokenizer", tokenizer.get("type"), "WordPiece")
    lower, accents = cut.get("do_lower_case", True), cut.get("strip_accents")
    limit = more.get("max_seq_length") or cut.get("model_max_length", np.inf)
    return dict(cls=mode == "cls", limit=int(min(limit, config["max_position_embeddings"])),
        weights=read_file(home / "model.safetensors", safetensors), vocabulary=tokenizer["vocab"],
        split=(lower or more.get("do_lower_case", False), lower if accents is None else accents,
               cut.get("tokenize_chinese_chars", True)), eps=config["layer_norm_eps"],
        heads=config["num_attention_heads"], normalize="Norm" in kinds)
def token_ids(encoder, text):
    """Numbers of [CLS], of the pieces as far as the limit allows, and of [SEP]."""
    vocabulary, pieces = encoder["vocabulary"], []
    for i, part in enumerate(re.split(r"(\[(?:PAD|UNK|CLS|SEP|MASK)\])", text)):  # marks stay whole
        for word in [part] if i % 2 else split_words(part, *encoder["split"]):
            pieces += [word] if i % 2 else wordpiece(word, vocabulary)
    return [vocabulary[piece] for piece in ["[CLS]", *pieces[: encoder["limit"] - 2], "[SEP]"]]
def layer_norm(x, gain, bias, eps):
    """Equation (27)."""
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * gain + bias
def gelu(x):
    """Equation (29) as max(x, 0) - |x| (1 - erf(|x| / √2)) / 2. numpy has no erf: Abramowitz and
    Stegun (1964), 7.1.26, a polynomial in t that is good to 1.5e-7."""
    z = np.abs(x) / 2**0.5
    t = 1 / (1 + 0.3275911 * z)
    rest = 1.061405429 * t
    for a in [-1.453152027, 1.421413741, -0.284496736, 0.254829592]:
        rest += a
        rest *= t
    return np.maximum(x, 0) - z * rest * np.exp(-z * z) / 2**0.5
def attention(q, k, v, mask, heads):
    """Equation (28) for B texts of T tokens: q, k, v (B T, h), mask (B, T) -> (B T, h)."""
    shape = (*mask.shape, heads, q.shape[1] // heads)
    q, k, v = (x.reshape(shape).swapaxes(1, 2) for x in (q, k, v))  # (B, heads, T, h / heads)
    scores = q @ k.swapaxes(2, 3) / shape[3] ** 0.5  # (B, heads, T, T)
    scores += np.where(mask, 0, -1e9).astype(q.dtype)[:, None, None, :]
    weights = np.exp(scores - scores.max(axis=3, keepdims=True))
    weights /= weights.sum(axis=3, keepdims=True)
    return (weights @ v).swapaxes(1, 2).reshape(mask.size, -1)
def bert(ids, mask, W, heads, eps):
    """Token vectors (B, T, h) of the numbers ids (B, T): three embeddings, then layers (30)."""
    def dense(x, name):
        return x @ W[f"{name}.weight"].T + W[f"{name}.bias"]
    def norm(x, name):
        return layer_norm(x, W[f"{name}.LayerNorm.weight"], W[f"{name}.LayerNorm.bias"], eps)
    at = "embeddings.{}_embeddings.weight".format
    x = W[at("word")][ids] + W[at("position")][: ids.shape[1]] + W[at("token_type")][0]
    x = norm(x.reshape(ids.size, -1), "embeddings")  # (B T, h): one matrix product for all texts
    for i in range(sum(name.endswith("intermediate.dense.bias") for name in W)):
        at = f"encoder.layer.{i}"
        q, k, v = (dense(x, f"{at}.attention.self.{name}") for name in ["query", "key", "value"])
        mixed = dense(attention(q, k, v, mask, heads), f"{at}.attention.output.dense")
        x = norm(x + mixed, f"{at}.attention.output")
        wide = gelu(dense(x, f"{at}.intermediate.dense"))
        x = norm(x + dense(wide, f"{at}.output.dense"), f"{at}.output")
    return x.reshape(*ids.shape, -1)
def encode_sentences(folder, texts, batch=16):
    """What SentenceTransformer(folder).encode(texts) returns, (n, h), with numpy alone, for any
    saved BERT encoder, such as all-MiniLM-L6-v2; or pass as folder what load_encoder returned."""
    encoder = folder if isinstance(folder, dict) else load_encoder(folder)
    tokens, W = [token_ids(encoder, text) for text in check_texts(texts)], encoder["weights"]
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))  # so that little is padded
    Z = np.zeros((len(tokens), len(W["embeddings.LayerNorm.bias"])), np.float32)
    for rows in (order[i : i + batch] for i in range(0, len(order), batch)):
        lengths = np.array([[len(tokens[i])] for i in rows])
        mask = np.arange(lengths.max()) < lengths  # (B, T)
        ids = np.zeros(mask.shape, dtype=int)
        ids[mask] = np.concatenate([tokens[i] for i in rows])
        x = bert(ids, mask, W, encoder["heads"], encoder["eps"])
        Z[rows] = x[:, 0] if encoder["cls"] else (x * mask[:, :, None]).sum(axis=1) / lengths
    return unit_rows(Z) if encoder["normalize"] else Z

def sentence_transformers_static(vocabulary, V):
    """The library version of (26): a SentenceTransformer whose row 0, of zeros, is for [UNK]."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    numbers = {"[UNK]": 0, **{word: row + 1 for word, row in vocabulary.items()}}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w\w+"), "removed", invert=True)
    table = np.vstack([np.zeros(V.shape[1]), V]).astype(np.float32)
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, table)], device="cpu")
def sentence_transformers_encoder(folder):
    """The library version: the SentenceTransformer in this folder. Nothing is fetched."""
    from sentence_transformers import SentenceTransformer
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)
def save_tiny_bert(folder, vocabulary, layers=2, heads=4, pooling="mean", lower=True, norm=True):
    """Save a sentence encoder with random weights, of h = 32 and at most 24 tokens."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer, logging
    logging.disable_progress_bar()
    model = BertModel(BertConfig(vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64,
        num_hidden_layers=layers, num_attention_heads=heads, max_position_embeddings=24))
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():  # the usual start is so small that attention is even
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    model.save_pretrained(folder)
    BertTokenizer(vocabulary, do_lower_case=lower).save_pretrained(folder)
    modules = [Transformer(str(folder)), Pooling(32, pooling)] + [Normalize()] * norm
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))

def demo_sentences(plot=False):
    """Means of word vectors; then all of BERT, in numpy and in the library."""
    import tempfile
    print("\n== Sentence embeddings: what happens to a text on its way into an encoder? ==\n")
    known, V, _, _ = fit_word2vec(TEXTS, np.random.default_rng(0))
    texts, signs = ["Automobile? Crème & 京 🚗", "", *TEXTS, "a " * 30], [*map(chr, range(33, 127))]
    theirs = sentence_transformers_static(known, V).encode(texts)
    same = {"means of word vectors": (mean_vectors(texts, known, V), theirs)}
    pieces = "[PAD] [UNK] [CLS] [SEP] [MASK] auto ##mobile".split() + signs
    vocabulary = {piece: i for i, piece in enumerate(pieces + ["##" + sign for sign in signs])}
    print("  pieces:", *(p for w in split_words(texts[0]) for p in wordpiece(w, vocabulary)))
    for pooling, lower, norm in [("mean", True, True), ("cls", False, False)]:
        with tempfile.TemporaryDirectory() as folder:
            save_tiny_bert(folder, vocabulary, 2, 4, pooling, lower, norm)
            theirs = sentence_transformers_encoder(folder).encode(texts)
            same[f"BERT, {pooling=}, {lower=}, {norm=}"] = encode_sentences(folder, texts), theirs
    return report(beside("sentences", same))
def run_model(folder):
    """--model FOLDER: eight texts through the reader's own encoder, beside the library."""
    try:
        Z = encode_sentences(folder, TEXTS)
        print(*(f"{t:50} {row.round(2)}" for t, row in zip(TEXTS, similarity(Z, Z))), sep="\n")
        theirs = sentence_transformers_encoder(folder).encode(TEXTS)
    except (OSError, ValueError) as error:
        stop(error)
    return report(beside("sentences", {"vectors": (Z, theirs)}))
# Try: `python embeddings.py --model FOLDER` with all-MiniLM-L6-v2, or its kind, on your disk.
# %% [markdown]
"""
## Contrastive loss: how is an encoder trained to place like next to like?
By a game. Given n pairs (a, b), find for each a its own b among all b of the batch. The other b
are wrong answers that cost nothing (InfoNCE, van den Oord et al., 2018):

    Sᵢⱼ = τ cos(aᵢ, bⱼ),   L = -(1/n) Σᵢ ln softmax(Sᵢ)ᵢ                             (31)
The gradient is probability minus truth, then back through the division by the length. A hat makes
the length 1: â = a / ‖a‖. More rows in B than in A are further wrong answers, "hard negatives".

    G = (softmax(S) - I) τ / n,   ∂L/∂â = G b̂,   ∂L/∂b̂ = Gᵀ â                         (32)
    ∂L/∂a = (∂L/∂â - â (â·∂L/∂â)) / ‖a‖,   and the same for b                        (33)
**When it fails.** With τ = 1 softmax cannot tell cosine 1 from -1 clearly, as e¹ / e⁻¹ is only 7;
20 is usual. If two pairs of a batch mean the same, they are pushed apart all the same.
"""
# %%
def info_nce(A, B, scale=20.0):
    """Loss (31), and its gradients (33): (), (n, d), (m, d). Row i of B answers row i of A."""
    A, B = check_array("A", A, ndim=2), check_array("B", B, ndim=2)
    check_number("scale", scale, above=0)
    if A.shape[1] != B.shape[1] or len(B) < len(A):
        raise ValueError(f"B must be ({len(A)} or more, {A.shape[1]}), not {B.shape}")
    a, b = unit_rows(A), unit_rows(B)
    if not (a.any(axis=1).all() and b.any(axis=1).all()):
        raise ValueError("A and B must not hold a row of zeros: it has no direction")
    S = scale * a @ b.T  # (n, m)
    log_p = S - np.logaddexp.reduce(S, axis=1, keepdims=True)
    G, grads = (np.exp(log_p) - np.eye(*S.shape)) * scale / len(a), []
    for X, x, g in [(A, a, G @ b), (B, b, G.T @ a)]:
        along = (x * g).sum(axis=1, keepdims=True)
        grads.append((g - x * along) / np.linalg.norm(X, axis=1, keepdims=True))
    return -np.diag(log_p).mean(), *grads

def sentence_transformers_info_nce(A, B, scale=20.0):
    """The library version: (31) and, by autograd, (33). len(B) is a multiple of len(A)."""
    import torch
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    A, B = (torch.tensor(np.array(X, float), requires_grad=True) for X in (A, B))
    rule = MultipleNegativesRankingLoss(None, scale)
    loss = rule.compute_loss_from_embeddings([A, *B.split(len(A))], None)
    loss.backward()
    return loss.item(), A.grad.numpy(), B.grad.numpy()

def demo_contrastive(plot=False):
    """Upper and lower halves of digits learn to find each other."""
    print("\n== Contrastive loss: does the upper half of a digit know its lower half? ==\n")
    X, rng = load_digits_data()[0] / 16, np.random.default_rng(0)
    upper, lower, W1, W2 = X[:, :32], X[:, 32:], *rng.normal(size=(2, 32, 16)) / 6
    for step in range(301):
        if step % 100 == 0:  # 200 digits that training never sees
            found = nearest(lower[-200:] @ W2, upper[-200:] @ W1, 10)[1].T == np.arange(200)
            print(f"  step {step:3}: own half among the first 10 of 200: {found.sum() / 200:3.0%}")
        rows = rng.choice(len(X) - 200, 128, replace=False)
        _, dA, dB = info_nce(upper[rows] @ W1, lower[rows] @ W2)
        W1, W2 = W1 - 0.1 * upper[rows].T @ dA, W2 - 0.1 * lower[rows].T @ dB
    pair = upper[:6] @ W1, lower[:12] @ W2  # with six hard negatives
    results = zip(info_nce(*pair), sentence_transformers_info_nce(*pair))
    return report(beside("steps", dict(zip(["loss", "dA", "dB"], results))))
# Try: `scale=1.0` in the demo. Do the halves still find each other?
# %%
if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--model":
        run_demos([lambda plot: run_model(sys.argv[2])])
    else:
        run_chapter("Embeddings, from cosine to BERT; --model FOLDER runs an encoder of yours.", [
            demo_similarity, demo_svd, demo_pca, demo_tfidf, demo_kmeans, demo_tsne, demo_word2vec,
            demo_sentences, demo_contrastive])  # fmt: skip

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "scikit-learn", "torch==2.13.0", "sentence-transformers", "matplotlib"]
# ///
