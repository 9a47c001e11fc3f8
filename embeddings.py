# %% [markdown]
"""
# Embeddings: how can numbers hold a meaning?
An *embedding* turns a thing into a list of numbers, so that what is alike lies close together.
`python embeddings.py pca tsne` runs two demos. Demos and library versions need more than numpy.

    n, d, k   number of items, of coordinates, of what is asked for: neighbours, clusters ...
    X, A, B   items, one per row (n, d); ‖a‖ = √(Σⱼ aⱼ²) is the length of a row
    U, s, Vᵀ  singular vectors and values (n, k), (k,), (k, d); Vᵀ is `Vt`; I: diagonal 1, else 0
    m, Z      mean of the rows (d,); coordinates in a smaller space (n, k)
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
from utils import DidNotConverge, check_array, check_number, check_X, compare, confusion_matrix
from utils import report, run_chapter, run_demos, save_plot, stop

ALLOWED = {  # how close scratch and library must be, relative to max(1, largest number), and why
    "similarity": (1e-12, "the same products, rounded in another order"),
    "numbers": (0, "row numbers, labels and step counts have no rounding"),
    "steps": (1e-10, "the same steps, or two exact algorithms, in float64: only rounding differs"),
    "t-SNE P": (1e-4, "theirs is float32, with the entropy matched to 1e-5 only"),
    "sentences": (1e-6, "float32 in every layer, and an erf that is good to 1.5e-7")}  # fmt: skip

def beside(row, results):
    """One comparison for each {what: (scratch, library)}, at the tolerance of this row."""
    return [compare(what, ours, theirs, *ALLOWED[row]) for what, (ours, theirs) in results.items()]

def load_digits_data(rows=None):
    """Handwritten digits: X (n, 64), grey values 0 to 16, and y. A little noise breaks ties."""
    from sklearn.datasets import load_digits
    X, y = load_digits(return_X_y=True)
    return (X + 1e-3 * np.random.default_rng(0).normal(size=X.shape))[:rows], y[:rows]
# %% [markdown]
"""
## Similarity: which of these vectors is most like this one?
    dot product                  a·b = Σⱼ aⱼ bⱼ                                      (1)
    cosine                       cos(a, b) = a·b / (‖a‖ ‖b‖)                         (2)
    squared Euclidean distance   ‖a - b‖² = ‖a‖² + ‖b‖² - 2 a·b                      (3)
The dot product rewards length; cosine sees direction alone, so a short text can be like a long one;
Euclidean distance asks how far it is to walk. On vectors of length 1 all three rank alike, as (3)
becomes 2 - 2 a·b: search engines normalise once, and one product is the search. **When it fails.**
Far from the origin the right side of (3) subtracts large numbers and loses its digits; distances
stay when all points move, so we first move the mean to the origin. A row of zeros has no direction:
its cosine is set to 0. **What people get wrong.** 1 - cos is no distance: a detour can be shorter.
"""
# %%
def unit_rows(A):
    """Each row divided by its length, the bottom of equation (2). A zero row stays zero."""
    length = np.sqrt(np.einsum("ij,ij->i", A, A))[:, None]  # einsum: the sum over j of A * A
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
    if metric == "euclidean":
        return np.sqrt(squared_distances(A, B))
    if metric not in ("dot", "cosine"):
        raise ValueError(f"metric must be 'dot', 'cosine' or 'euclidean', not {metric!r}")
    return A @ B.T if metric == "dot" else unit_rows(A) @ unit_rows(B).T

def nearest(X, queries, k, metric="cosine"):
    """Values (m, k) and rows (m, k) of X most like each query. Equal ones: any of them, by row."""
    S = similarity(check_array("queries", queries, ndim=2), check_X(X), metric)
    check_number("k", k, least=1, most=S.shape[1], integer=True)
    score = -S if metric == "euclidean" else S
    rows = np.argpartition(score, -k)[:, -k:]  # the best k in any order, without sorting the rest
    order = np.lexsort((rows, -np.take_along_axis(score, rows, axis=1)))
    rows = np.take_along_axis(rows, order, axis=1)
    return np.take_along_axis(S, rows, axis=1), rows
# %%
def sklearn_nearest(X, k, metric="cosine"):
    """The library version: a fitted NearestNeighbors. Its cosine is a distance, 1 minus ours."""
    from sklearn.neighbors import NearestNeighbors
    return NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(X)

def demo_similarity(plot=False):
    """Three metrics, three different winners; then neighbours among digits."""
    from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances, linear_kernel
    print("== Similarity: which of (2, 1), (9, 3), (0.5, 0.5) is most like (2, 2)? ==\n")
    A, B = np.split(load_digits_data()[0], [200])
    same, libraries = {}, [linear_kernel, cosine_similarity, euclidean_distances]
    for metric, theirs in zip(["dot", "cosine", "euclidean"], libraries):
        values, rows = nearest([[2, 1], [9, 3], [0.5, 0.5]], [[2, 2]], 3, metric)
        print(f"  by {metric:9} rows {rows[0]}, {values[0].round(2)}")
        same[metric] = similarity(A, B, metric), theirs(A, B)
    near = nearest(B, A, 3)[1], sklearn_nearest(B, 3).kneighbors(A, return_distance=False)
    return report(beside("similarity", same) + beside("numbers", {"3 neighbours": near}))
# Try: add (-2, -2) to the demo's three, and 4 for 3. Which metric does not place it last?
# %% [markdown]
"""
## SVD and PCA: which few directions carry most of a table?
Every matrix is a rotation, a stretch by s along perpendicular axes, and a rotation again. The first
k columns of U and V give the closest matrix of rank k: of k directions (Eckart and Young, 1936):

    A = U diag(s) Vᵀ,   UᵀU = VᵀV = I,   s₁ ≥ s₂ ≥ ... ≥ 0                           (4)
    min over all B of rank k of ‖A - B‖² = s²ₖ₊₁ + s²ₖ₊₂ + ...  (squares of all entries)   (5)
*One-sided Jacobi.* Turn columns of A two at a time, p and q by the angle θ (theta) that makes p·q
zero, until all are perpendicular, AV = U diag(s). Their lengths are s, and AᵀU = V diag(s).

    tan 2θ = 2 p·q / (‖q‖² - ‖p‖²),     p, q ← p cos θ - q sin θ, p sin θ + q cos θ   (6)
*Randomised.* Look at a big A through a few random vectors Ω (omega). Each product with A Aᵀ lifts
the large s further above the small ones (Halko, Martinsson and Tropp, 2011):

    Q = (A Aᵀ)⁴ A Ω with columns made perpendicular, of length 1;   A ≈ Q (QᵀA)       (7)
**When it fails.** (7) is poor where the s hardly fall. (6) keeps digits of tiny s, but takes long.
"""
# %%
def rotate_pairs(W, i, j):
    """Equation (6) on rows i[..] and j[..] of W, in place. Returns the largest |cosine| it met."""
    p, q = W[i], W[j]  # (pairs, n): no row is in two pairs, so all turn at once
    pp, qq, pq = (p * p).sum(axis=1), (q * q).sum(axis=1), (p * q).sum(axis=1)
    theta = np.arctan2(2 * pq * np.copysign(1, qq - pp), np.abs(qq - pp)) / 2  # at most 45°
    c, s = np.cos(theta)[:, None], np.sin(theta)[:, None]
    W[i], W[j] = c * p - s * q, s * p + c * q
    return np.max(np.abs(pq) / np.maximum(np.sqrt(pp) * np.sqrt(qq), 1e-300), initial=0)

def svd_jacobi(A):
    """Equation (4) by rotations: U (m, r), s (r,), Vt (r, n), r = min(m, n). Hestenes (1958). It
    takes about 30 times LAPACK's time, but keeps digits of small s: Demmel and Veselic (1992)."""
    A = check_array("A", A, ndim=2)
    if A.shape[0] < A.shape[1]:
        return tuple(part.T for part in svd_jacobi(A.T)[::-1])
    n, scale = A.shape[1], np.abs(A).max() or 1.0
    Q, R = np.linalg.qr(A / scale)  # (m, n), (n, n): turn the short columns of R, not those of A
    W, i = R.T.copy(), np.arange(n)  # the columns are the rows of W
    for _ in range(30):
        worst = 0.0
        for total in range(n):  # this time i meets j where i + j is total or total + n
            j = (total - i) % n
            worst = max(worst, rotate_pairs(W, i[i < j], j[i < j]))
        if worst <= 1e-15 * (10 + n):
            break
    else:
        warnings.warn(f"svd_jacobi: cosine {worst:.1e} left after 30 sweeps", DidNotConverge)
    s = np.linalg.norm(W, axis=1)
    order = np.argsort(-s)
    U = np.linalg.qr(W[order].T)[0]  # columns / s, up to sign; for s = 0 a direction still free
    V, upper = np.linalg.qr(R.T @ U)  # RᵀU = V diag(s), and here are the signs
    return Q @ U, scale * s[order], (V * np.where(np.diag(upper) < 0, -1, 1)).T

def svd_randomized(A, k, rng):
    """The first k of U, s, Vt by equation (7), with k + 10 random vectors from rng."""
    A = check_array("A", A, ndim=2)
    check_number("k", k, least=1, most=min(A.shape), integer=True)
    Q = np.linalg.qr(A @ rng.normal(size=(A.shape[1], k + 10)))[0]
    for _ in range(4):  # qr, or all columns would turn into the first singular vector
        Q = np.linalg.qr(A.T @ Q)[0]
        Q = np.linalg.qr(A @ Q)[0]
    U, s, Vt = np.linalg.svd(Q.T @ A, full_matrices=False)
    return Q @ U[:, :k], s[:k], Vt[:k]
# %% [markdown]
"""
### SVD of centred rows is PCA: how do the rows differ?
Take out their mean m. The direction v in which they vary most makes vᵀCv largest; C is called the
covariance. The SVD of X - m finds v without C, where s below 10⁻⁸ of the first drown in rounding:

    C = (X - m)ᵀ(X - m) / (n - 1),   maximise vᵀCv where ‖v‖ = 1                     (8)
    X - m = U diag(s) Vᵀ:   Z = (X - m) V,   variance of column i of Z = s²ᵢ / (n - 1)  (9)
    whitened: Z ← Z / √variance, so that all columns have variance 1                (10)
**When it fails.** Units matter: write metres as millimetres, and another direction wins. **What
people get wrong.** New rows less a mean of their own: they need the mean of the fit.
"""
# %%
def fix_signs(Vt):
    """Signs are free: flip rows so that the largest entry of each is positive."""
    return Vt * np.sign(Vt[np.arange(len(Vt)), np.abs(Vt).argmax(axis=1)])[:, None]

def fit_pca(X, k):
    """Equation (9): m (d,), Vt (k, d), variance (k,), and its share of the whole variance (k,)."""
    X = check_X(X)
    check_number("k", k, least=1, most=min(X.shape), integer=True)
    if (X == X[0]).all():
        raise ValueError(f"X must hold two different rows at least, not {len(X)} time(s) the same")
    mean = X.mean(axis=0)
    _, s, Vt = np.linalg.svd(X - mean, full_matrices=False)
    variance = s**2 / (len(X) - 1)
    return mean, fix_signs(Vt[:k]), variance[:k], variance[:k] / variance.sum()

def pca_transform(X, mean, Vt, variance=None):
    """Z (n, k), equation (9); given the variance too, whitened: equation (10)."""
    Z = (check_X(X, len(mean)) - mean) @ Vt.T  # (n, d) @ (d, k) -> (n, k)
    return Z if variance is None else Z / np.sqrt(np.maximum(variance, 1e-200))  # never 0/0

def plot_map(plot, filename, Z, labels, title):
    """With --plot: each label at its place on the map Z (n, 2); digits in ten colours."""
    def draw(ax):
        ax.set_title(title)
        ax.scatter(Z[:, 0], Z[:, 1], s=0)
        for (x, y), text in zip(Z[:, :2], map(str, labels)):
            ax.text(x, y, text, fontsize=8, color=f"C{text}" if text.isdigit() else "black")
    if plot:
        save_plot(filename, draw, size=(8, 6))
# %%
def sklearn_svd_randomized(A, k, rng):
    """The library version; rng: a RandomState, or its seed. For (4) it is np.linalg.svd, LAPACK."""
    from sklearn.utils.extmath import randomized_svd as svd
    return svd(A, k, n_iter=4, power_iteration_normalizer="QR", transpose=False, random_state=rng)
def sklearn_pca(X, k, whiten=False):
    """The library version: a fitted PCA. By default it takes C, (8), if n >= 10 d and d <= 1000."""
    from sklearn.decomposition import PCA
    return PCA(k, whiten=whiten, svd_solver="full").fit(X)

def demo_pca(plot=False):
    """64 grey values as k numbers: what share of the variance is left; both SVDs and PCA."""
    print("\n== SVD and PCA: what share of the variance of 64 grey values do k numbers keep? ==\n")
    X, y = load_digits_data()
    mean, Vt, variance, share = fit_pca(X, 20)
    for k in [1, 2, 5, 10, 20]:
        print(f"  k = {k:2}  {'#' * round(50 * share[:k].sum()):50} {share[:k].sum():.0%}")
    Z, white = pca_transform(X, mean, Vt), pca_transform(X, mean, Vt, variance)
    plot_map(plot, "embeddings_pca.png", Z, y, "Digits by PCA")
    first = [f(X, 5, np.random.RandomState(0))[1] for f in (svd_randomized, sklearn_svd_randomized)]
    theirs = [sklearn_pca(X, 20, whiten).transform(X) for whiten in [False, True]]
    return report(beside("steps", {"s": (svd_jacobi(X)[1], np.linalg.svd(X)[1]),
        "randomised s": first, "Z": (Z, theirs[0]), "Z whitened": (white, theirs[1])}))  # fmt: skip
# Try: in the demo, `X[:, 20] *= 1000` before `fit_pca`. What share has k = 1 now, and why?
# %% [markdown]
"""
## TF-IDF and LSA: how does a text become a vector without training?
Count its words: tf. A word that stands in every text says little, so weigh each by how rare it is
among the n texts. df counts the texts that hold it (Sparck Jones, 1972):

    idf = ln((1 + n) / (1 + df)) + 1 if smooth,   else ln(n / df) + 1                (11)
    x = tf · idf, then x ← x / ‖x‖;   sublinear: 1 + ln tf for tf, where tf > 0      (12)
*Latent semantic analysis* (Deerwester et al., 1990): "car" and "automobile" are two columns. The
first k columns of V, from the SVD of X, not centred, merge words of the same company: Z = X V (13).
**When it fails.** Order is lost: "dog bites man" equals "man bites dog". Words that the fit has
not seen count for nothing; a text of only those, or an empty one, becomes a row of zeros.
"""
# %%
def words(text):
    """The lower-case words of two letters or more: what scikit-learn takes for a word."""
    return re.findall(r"\w\w+", text.lower())

def check_texts(texts):
    """texts as a list of str. A lone str would be read letter by letter."""
    found = list(texts) if np.iterable(texts) and not isinstance(texts, str) else [None]
    if not all(isinstance(text, str) for text in found):
        raise TypeError("texts must be a list of str, as in ['one text', 'another']")
    return found

def fit_tfidf(texts, smooth=True):
    """The vocabulary {word: column}, in alphabetical order, and equation (11): idf (words,)."""
    texts = check_texts(texts)
    df = Counter(word for text in texts for word in set(words(text)))
    check_number("the number of words in texts", len(df), least=1)
    vocabulary = {word: column for column, word in enumerate(sorted(df))}
    counts = np.array([df[word] for word in vocabulary])
    return vocabulary, np.log((len(texts) + smooth) / (counts + smooth)) + 1  # True counts as 1

def tfidf(texts, vocabulary, idf, sublinear=False, norm="l2"):
    """Equation (12): X (n, words). norm: "l2" (length 1), "l1" (sum 1) or None."""
    rows = [words(text) for text in check_texts(texts)]
    X = np.zeros((len(rows), len(vocabulary)))
    for x, found in zip(X, rows):
        x += np.bincount([vocabulary[w] for w in found if w in vocabulary], minlength=len(x))
    if sublinear:
        X[X > 0] = 1 + np.log(X[X > 0])
    X = X * idf
    if norm not in ("l2", "l1", None):
        raise ValueError(f"norm must be 'l2', 'l1' or None, not {norm!r}")
    if norm == "l1":
        X = X / np.maximum(X.sum(axis=1, keepdims=True), 1e-300)
    return unit_rows(X) if norm == "l2" else X

def fit_lsa(X, k):
    """Equation (13): Z (n, k), and the first rows of Vt (k, words), which map new rows."""
    X = check_X(X)
    check_number("k", k, least=1, most=min(X.shape), integer=True)
    Vt = fix_signs(np.linalg.svd(X, full_matrices=False)[2][:k])
    return X @ Vt.T, Vt
# %%
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
    for other in ["automobile", "bread"]:
        cos = [similarity(C.T, C.T)[vocabulary["car"], vocabulary[other]] for C in (X, Vt)]
        print(f"  cosine of car and {other:10}: {cos[0]:.2f} in all dimensions, {cos[1]:.2f} in 2")
    same = {"LSA": (Z, sklearn_lsa(X, 2).transform(X))}
    for smooth, sublinear, norm in [(True, False, "l2"), (False, True, "l1"), (True, True, None)]:
        ours = tfidf(TEXTS, *fit_tfidf(TEXTS, smooth), sublinear, norm)
        theirs = sklearn_tfidf(TEXTS, smooth, sublinear, norm).transform(TEXTS).toarray()
        same[f"{smooth=}, {sublinear=}, {norm=}"] = ours, theirs
    return report(beside("steps", same))
# Try: a ninth text, "the automobile is a car". Which of the two cosines moves, and why?
# %% [markdown]
"""
## k-means: into which k groups do the points fall?
Choose centres c and labels l so that each point is near its own centre. J is the *inertia*:

    J(c, l) = Σᵢ ‖xᵢ - c(lᵢ)‖²                                                       (14)
    lᵢ ← the j with the least ‖xᵢ - cⱼ‖²  =  the most xᵢ·cⱼ - ‖cⱼ‖²/2,                  (15)
    cⱼ ← mean of the points with label j                                             (16)
as ‖xᵢ‖² in (3) is one for all j. Lloyd (1957) takes (15) and (16) in turn. Neither raises J, so it
stops, in a *local* minimum. k-means++ (Arthur and Vassilvitskii, 2007) draws a start, row by row:

    probability of xᵢ = Dᵢ / Σ D,   D = squared distance to the nearest centre so far      (17)
**When it fails.** Long groups, or large beside small ones, are cut in pieces. A centre can lose all
its points, and their mean is then 0/0: we move it onto the point that lies worst. **What people get
wrong.** The least J there is falls with every k, down to 0 at k = n: J cannot choose k.
"""
# %%
def assign(X, centers):
    """Equation (15): labels (n,), in blocks of rows that fit into the processor's cache."""
    half = (centers**2).sum(axis=1) / 2
    blocks = (X[i : i + 256] for i in range(0, len(X), 256))
    return np.concatenate([np.argmax(block @ centers.T - half, axis=1) for block in blocks])

def add_rows(shape, rows, values):
    """Zeros of this shape, with values[i] added to row rows[i]. Rows may repeat."""
    cells = rows[:, None] * shape[1] + np.arange(shape[1])  # numbered row by row
    return np.bincount(cells.ravel(), values.ravel(), shape[0] * shape[1]).reshape(shape)

def move_centers(X, labels, centers):
    """Equation (16); each centre without points moves onto the point farthest from its own."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(centers)) == 0)
    if len(empty):
        far, labels = ((X - centers[labels]) ** 2).sum(axis=1), labels.copy()
        worst = np.argsort(-far, kind="stable")[: len(empty)]
        labels[worst] = np.where(far[worst] > 0, empty, labels[worst])
    counts = np.bincount(labels, minlength=len(centers))[:, None]
    return np.where(counts > 0, add_rows(centers.shape, labels, X) / np.maximum(counts, 1), centers)

def kmeans_plus_plus(X, k, rng):
    """k rows of X as a start, by equation (17)."""
    X = check_X(X)
    rows, D = [], np.full(len(X), 1e250)  # the first draw: all points alike, and far from any
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
# %%
def sklearn_kmeans(X, start, steps=300):
    """The library version: KMeans, one start, tol=0: to the end. Compiled: 0.6 of our time."""
    from sklearn.cluster import KMeans
    return KMeans(len(start), init=np.array(start), n_init=1, tol=0, max_iter=steps).fit(X)

def demo_kmeans(plot=False):
    """Ten clusters of digits, found without a label; each takes the name that most of it has."""
    print("\n== k-means: do digits emerge that nobody named? ==\n")
    X, y = load_digits_data()
    start = kmeans_plus_plus(X, 10, np.random.default_rng(0))
    _, labels, J, steps = fit_kmeans(X, start)
    names = np.array([np.bincount(y[labels == j]).argmax() for j in range(10)])
    print("  rows: digits; columns: names of clusters\n", confusion_matrix(y, names[labels]))
    model = sklearn_kmeans(X, start)
    same = beside("numbers", {"labels": (labels, model.labels_), "steps": (steps, model.n_iter_)})
    return report(same + beside("steps", {"inertia": (J, model.inertia_)}))
# Try: `start = X[:10]`, one row of each digit. Is the inertia lower, and is it the minimum?
# %% [markdown]
"""
## t-SNE: how can 64 dimensions be drawn so that neighbours stay neighbours?
Turn distances into probabilities P. Point i picks j by a bell curve of its own width: βᵢ (beta) is
set so that all have as many neighbours, the *perplexity* (van der Maaten and Hinton, 2008):

    p(j|i) = exp(-βᵢ ‖xᵢ - xⱼ‖²) / Σ over l≠i of exp(-βᵢ ‖xᵢ - xₗ‖²)                  (18)
    βᵢ such that exp(-Σⱼ p(j|i) ln p(j|i)) = perplexity;  Pᵢⱼ = (p(j|i) + p(i|j)) / 2n  (19)
On the map Y (n, 2), a heavy-tailed curve leaves room for the unlike. KL says how far Q is from P:

    wᵢⱼ = 1 / (1 + ‖yᵢ - yⱼ‖²) for i≠j,   Q = w / Σ w                                 (20)
    KL = Σ P ln(P / Q),   ∂KL/∂yᵢ = 4 Σⱼ (Pᵢⱼ - Qᵢⱼ) wᵢⱼ (yᵢ - yⱼ)                 (21), (22)
∂KL/∂y, the *gradient*, is the slope of KL as y alone moves. A step goes against it, with momentum
and a *gain* per coordinate that falls when it turns (Jacobs, 1988). The first 250 follow 12 P, and
clusters gather (van der Maaten, 2014). **When it fails.** All n² pairs are kept: n up to thousands.
**What people get wrong.** Sizes of clusters and gaps between them mean nothing. The descent is
chaotic: change the last digit of one number, and another map comes out, equally good.
"""
# %%
def joint_probabilities(X, perplexity=30.0):
    """P (n, n), equations (18) and (19): bisection for ln β, all points at once."""
    X = check_X(X)
    check_number("perplexity", perplexity, above=1, below=len(X) - 1)
    D = squared_distances(X, X)
    np.fill_diagonal(D, D.max())
    D -= D.min(axis=1, keepdims=True)  # p stays the same, and cannot become 0/0
    D /= D.max() or 1
    log_beta = np.full((len(X), 1), 20.0)  # the middle of -20 to 60
    for step in 40 / 2.0 ** np.arange(1, 60):
        p = np.exp(-np.exp(log_beta) * D)
        np.fill_diagonal(p, 0)  # no point picks itself
        total = p.sum(axis=1, keepdims=True)
        p /= total  # ln p = -β D - ln total, which gives the entropy -Σ p ln p below
        entropy = np.log(total) + np.exp(log_beta) * (p * D).sum(axis=1, keepdims=True)
        log_beta += np.where(entropy > np.log(perplexity), step, -step)
    return (p + p.T) / (2 * len(X))

def tsne_gradient(P, Y):
    """Equation (22), slope of (21): (n, 2). Sum over j of F (yi - yj) is (sum of F) yi - F y."""
    w = 1 / (1 + squared_distances(Y, Y))  # equation (20)
    np.fill_diagonal(w, 0)
    F = (P - w / w.sum()) * w
    return 4 * (F.sum(axis=1)[:, None] * Y - F @ Y)

def tsne_steps(P, Y, steps, lr, momentum):
    """The map Y (n, 2) after so many steps of descent with momentum and gains."""
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
# %%
def sklearn_tsne(X, perplexity, P, Y, steps, lr, momentum):
    """The library version, TSNE(method="exact"), in pieces: P; gradient and later map from ours."""
    from sklearn.manifold import _t_sne as t
    theirs = t._joint_probabilities(t.pairwise_distances(X, squared=True), perplexity, 0)
    args = [t.squareform(P, checks=False), 1, *Y.shape]
    gradient = t._kl_divergence(Y.ravel(), *args)[1]
    options = dict(learning_rate=lr, momentum=momentum, min_grad_norm=0, args=args)
    end = t._gradient_descent(t._kl_divergence, Y.ravel(), 0, steps, **options)[0]
    return t.squareform(theirs), gradient.reshape(Y.shape), end.reshape(Y.shape)

def demo_tsne(plot=False):
    """How often the nearest neighbour on a map of digits has its name; --plot draws the map."""
    print("\n== t-SNE: is the nearest neighbour on a map the same digit? ==\n")
    X, y = load_digits_data(250)
    Y, flat = fit_tsne(X, 20.0, 500), pca_transform(X, *fit_pca(X, 2)[:2])
    for name, Z in [("grey values", X), ("PCA map", flat), ("t-SNE map", Y)]:
        same = y[nearest(Z, Z, 2, "euclidean")[1][:, 1]] == y  # the nearest of all is itself
        print(f"  the nearest neighbour is the same digit, {name:11} {same.mean():.0%}")
    plot_map(plot, "embeddings_tsne.png", Y, y, "Digits by t-SNE")
    P, start = 12 * joint_probabilities(X, 20.0), 1e-4 * flat / flat[:, 0].std()
    theirs, slope, end = sklearn_tsne(X, 20.0, P, start, 20, 20, 0.5)
    same = beside("t-SNE P", {"P / max": (P / P.max(), 12 * theirs / P.max())})
    return report(same + beside("steps", {"20 steps": (tsne_steps(P, start, 20, 20, 0.5), end),
        "slope / max": (tsne_gradient(P, start) / slope.max(), slope / slope.max())}))  # fmt: skip
# Try: perplexity 3 and 80 with --plot. Which draws many islands, and do they mean anything?
# %% [markdown]
"""
## word2vec: can meaning be learned from raw text alone?
"You shall know a word by the company it keeps" (Firth, 1957). Given a word, tell a neighbour o that
really stood near it from K words drawn at random: *skip-gram with negative sampling* (Mikolov et
al., 2013). Row v of V is the centre, row u of U a context; y = 1 if u is real, else 0:

    L = -ln σ(v·uₒ) - Σₖ ln σ(-v·uₖ),   sigmoid σ(x) = 1 / (1 + exp(-x))             (23)
    g = σ(v·u) - y,   ∂L/∂v = Σ g u,   ∂L/∂u = g v                                   (24)
    probability of a word as a negative:  proportional to count^(3/4)                (25)
This is logistic regression on pairs of words, with both sides learned. Words with the same company
get the same v, and a difference in company becomes a difference of vectors: queen - king is about
woman - man. **When it fails.** A word has one vector, so "bank" has one meaning. Opposites keep the
same company and come out alike. Rare words stay near their random start.
"""
# %%
def make_pairs(sentences, window):
    """Centre and context numbers, two arrays, of all words at most `window` apart."""
    near = [two for s in sentences for gap in range(1, window + 1) for two in zip(s, s[gap:])]
    near = np.array(near, dtype=int).reshape(-1, 2)
    return np.vstack([near, near[:, ::-1]]).T  # each word is once the centre, once the context

def skipgram_gradient(V, U, center, context, negatives):
    """Mean of (23) over B pairs, and its gradients (24) for V and U. negatives: (B, K)."""
    rows = np.column_stack([context, negatives])  # (B, K + 1): the real context comes first
    v, u = V[center], U[rows]  # (B, d), (B, K + 1, d)
    sign = np.where(np.arange(rows.shape[1]) == 0, -1, 1)  # z is -v·u for the real one
    z = sign * np.einsum("bd,bkd->bk", v, u)
    cost = np.logaddexp(0, z)  # all terms of (23) are -ln σ(-z) = ln(1 + exp(z))
    g = sign * np.exp(z - cost) / len(v)  # with the slope σ(z), which cannot overflow like this
    dV = add_rows(V.shape, center, np.einsum("bk,bkd->bd", g, u))
    dU = add_rows(U.shape, rows.ravel(), (g[:, :, None] * v[:, None]).reshape(-1, V.shape[1]))
    return cost.sum() / len(v), dV, dU

def fit_word2vec(texts, rng, d=16, window=3, negatives=5, lr=2.0, epochs=5, batch=256):
    """{word: row}, V and U (words, d), the loss of each step. lr is large, as a batch is a mean."""
    for key, n in dict(d=d, window=window, negatives=negatives, epochs=epochs, batch=batch).items():
        check_number(key, n, least=1, integer=True)
    check_number("lr", lr, above=0)
    sentences = [words(text) for text in check_texts(texts)]
    counts = Counter(word for sentence in sentences for word in sentence)
    vocabulary = {word: row for row, word in enumerate(sorted(counts))}
    center, context = make_pairs([[vocabulary[w] for w in s] for s in sentences], window)
    check_number("the number of pairs of words in texts", len(center), least=1)
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
    V, i, j, k = unit_rows(V), vocabulary[a], vocabulary[b], vocabulary[c]
    score = V @ (V[j] - V[i] + V[k])
    score[[i, j, k]] = -np.inf  # they would often win
    return list(vocabulary)[score.argmax()]
# %%
def torch_skipgram(V, U, center, context, negatives):
    """The library version: the loss and, by autograd, its gradients for V and U."""
    import torch
    V, U = (torch.tensor(table, requires_grad=True) for table in (V, U))
    v, log = V[center], torch.nn.functional.logsigmoid
    z = torch.einsum("bd,bkd->bk", v, U[negatives])
    loss = -(log((v * U[context]).sum(1)).sum() + log(-z).sum()) / len(v)
    loss.backward()
    return loss.item(), V.grad.numpy(), U.grad.numpy()

ROLES = ["king queen crown throne", "actor actress stage film", "boy girl school toy",
         "waiter waitress table menu", "monk nun prayer abbey", "uncle aunt family visit"]
def make_sentences(rng, n):
    """A grammar: each role is for a man or a woman, with two things of theirs; sofa = couch."""
    texts = []
    for man, woman, first, second in map(str.split, rng.choice(ROLES, size=n)):
        who, whose = rng.choice([[man, "his"], [woman, "her"]])
        texts.append(f"{who} knows {first} {whose} {second}")
        texts.append(f"sit down {rng.choice(['sofa', 'couch'])} soft pillow")
    return texts

def demo_word2vec(plot=False):
    """Neighbours and analogies after 2000 generated sentences; a gradient beside torch."""
    print("\n== word2vec: what is king - uncle + aunt? ==\n")
    rng = np.random.default_rng(0)
    vocabulary, V, U, _ = fit_word2vec(make_sentences(rng, 1000), rng)
    for rows in nearest(V, V[[vocabulary["sofa"], vocabulary["king"]]], 4)[1]:
        print("  near {}: {}, {}, {}".format(*(list(vocabulary)[row] for row in rows)))
    pairs = [role.split()[:2] for role in ROLES]
    right = [analogy(vocabulary, V, *a, c) == d for a in pairs for c, d in pairs if a[0] != c]
    print(f"  analogies as king - uncle + aunt = queen: {np.mean(right):.0%}, chance 1 / {len(V)}")
    Z = pca_transform(V, *fit_pca(V, 2)[:2])
    plot_map(plot, "embeddings_words.png", Z, vocabulary, "Word vectors by PCA")
    batch = *rng.integers(len(V), size=(2, 64)), rng.integers(len(V), size=(64, 5))
    results = zip(skipgram_gradient(V, U, *batch), torch_skipgram(V, U, *batch))
    return report(beside("steps", dict(zip(["loss", "dV", "dU"], results))))
# Try: `window=1`. Which neighbours does "sofa" keep, and how many analogies are lost?
# %% [markdown]
"""
## Sentence embeddings: what is the vector of a sentence?
The plain answer is the mean of its T word vectors, z = Σₜ v(wordₜ) / T (26). It ignores order and
company. An *encoder* lets each word look at the others first. BERT (Devlin et al., 2019) begins
with *tokens*: words outside its vocabulary are cut into known pieces, longest first (playing: play
##ing, where ## says: inside a word), and [CLS] and [SEP] mark the ends.
"""
# %%
def mean_vectors(texts, vocabulary, V):
    """Equation (26): Z (n, d). An unknown word counts as zeros, and an empty text is zeros."""
    rows = [words(text) for text in check_texts(texts)]
    Z = np.zeros((len(rows), V.shape[1]))
    for z, found in zip(Z, rows):
        z += V[[vocabulary[w] for w in found if w in vocabulary]].sum(axis=0) / max(len(found), 1)
    return Z

CHINESE = "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f"
CHINESE += "\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f]"
def split_words(text, lower=True, strip_accents=True):
    """BERT's words: no control characters, no accents, each Chinese or punctuation mark alone."""
    kind, drop = unicodedata.category, ("Cc", "Cf", "Co")  # control, format, private use
    text = "".join(c for c in text if c in "\t\n\r" or kind(c) not in drop and c != "\ufffd")
    text = re.sub(CHINESE, r" \g<0> ", text)
    if strip_accents:  # NFD writes é as e and an accent, which is of kind Mn
        text = "".join(c for c in unicodedata.normalize("NFD", text) if kind(c) != "Mn")
    if lower:  # letter by letter, as "ΑΣ".lower() ends in ς
        text = "".join(map(str.lower, text))
    marks = {c for c in text if kind(c)[0] == "P" or "!" <= c <= "~" and not c.isalnum()}
    return "".join(f" {c} " if c in marks else c for c in text).split()

def wordpiece(word, vocabulary):
    """The longest known piece, again and again; [UNK] for the word if at some place none fits."""
    pieces, start = [], 0
    while start < len(word) <= 100:
        mark = "##" if start else ""
        ends = [e for e in range(start + 1, len(word) + 1) if mark + word[start:e] in vocabulary]
        if not ends:
            return ["[UNK]"]
        pieces.append(mark + word[start : ends[-1]])
        start = ends[-1]
    return pieces or ["[UNK]"]

def token_ids(encoder, text):
    """Numbers of [CLS], of the pieces as far as the limit allows, and of [SEP]."""
    vocabulary, pieces = encoder["vocabulary"], []
    for part in re.split(r"(\[(?:PAD|UNK|CLS|SEP|MASK)\])", text):
        if part in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"):
            pieces.append(part)  # a mark stays whole
        else:
            for word in split_words(part, encoder["lower"], encoder["strip"]):
                pieces += wordpiece(word, vocabulary)
    return [vocabulary[piece] for piece in ["[CLS]", *pieces[: encoder["limit"] - 2], "[SEP]"]]

def read_file(path, parse=json.loads):
    """What `parse` makes of the bytes of a file, or one clear sentence."""
    try:
        return parse(path.read_bytes())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is missing, cut off or not what it should be: {error}") from None

def safetensors(data):
    """{name: float32 array}. data: 8 bytes that say n, a JSON header of n bytes, then numbers."""
    n, weights = int.from_bytes(data[:8], "little"), {}
    header, numbers = json.loads(data[8 : 8 + n]), data[8 + n :]
    for name, entry in header.items():
        if name != "__metadata__" and not name.endswith("position_ids"):  # 0, 1, 2: not learned
            kind, (first, last) = entry["dtype"], entry["data_offsets"]
            if kind not in ("F32", "F16"):
                raise ValueError(f"{name} is of type {kind}, only F32 and F16 can be read")
            if not 0 <= first <= last <= len(numbers):
                raise ValueError(f"{name} lies outside of the file")
            w = np.frombuffer(numbers[first:last], "<f4" if kind == "F32" else "<f2")
            weights[name.removeprefix("bert.")] = w.reshape(entry["shape"]).astype("f4")
    return weights

def load_encoder(folder):
    """What SentenceTransformer.save wrote, as a dict. Refuses by name what is not done here."""
    def need(what, value, known):
        if value != known:
            raise ValueError(f"{folder}: {what} must be {known}, not {value}")
    folder = Path(folder)
    modules = read_file(folder / "modules.json")
    kinds = " ".join(module["type"].rpartition(".")[2] for module in modules)
    need("modules", kinds.removesuffix(" Normalize"), "Transformer Pooling")
    home, pool = (folder / module["path"] for module in modules[:2])
    config, tokenizer = read_file(home / "config.json"), read_file(home / "tokenizer.json")["model"]
    cut, more, prompts = (read_file(path) if path.exists() else {} for path in [
        home / "tokenizer_config.json", home / "sentence_bert_config.json",
        folder / "config_sentence_transformers.json"])  # fmt: skip
    pooling = read_file(pool / "config.json")  # older files say pooling_mode_cls_token: true
    older = [key.split("_")[2] for key, on in pooling.items() if on and "pooling_mode_" in key]
    mode = str(pooling.get("pooling_mode", " ".join(older)))
    need("pooling", mode, "cls" if mode == "cls" else "mean")
    need("default_prompt_name", prompts.get("default_prompt_name"), None)
    need("model_type", config.get("model_type"), "bert")
    need("hidden_act", config.get("hidden_act"), "gelu")
    need("tokenizer", tokenizer.get("type"), "WordPiece")
    need("tokenize_chinese_chars", cut.get("tokenize_chinese_chars", True), True)
    lower, strip = cut.get("do_lower_case", True), cut.get("strip_accents")
    limit = more.get("max_seq_length") or cut.get("model_max_length", np.inf)
    weights = read_file(home / "model.safetensors", safetensors)
    return dict(weights=weights, vocabulary=tokenizer["vocab"], cls=mode == "cls",
        lower=lower or more.get("do_lower_case", False), strip=lower if strip is None else strip,
        limit=int(min(limit, config.get("max_position_embeddings", 512))),  # else BERT's own sizes
        eps=config.get("layer_norm_eps", 1e-12), heads=config.get("num_attention_heads", 12),
        normalize="Norm" in kinds)  # fmt: skip
# %% [markdown]
"""
### Sentence encoders: what does each layer do?
BERT keeps h numbers for each of T tokens: x (T, h). A token starts as the sum of three vectors, for
its piece, its position, its type (here always 0). W, b, gain, bias are learned. Then layers, each

    layer norm   LN(x) = (x - mean) / √(variance + ε) · gain + bias,  row by row       (27)
    attention    softmax(q kᵀ / √(h / heads)) v,   q, k, v: three linear maps of x     (28)
    GELU         x (1 + erf(x / √2)) / 2                                             (29)
    layer        x ← LN(x + W attention + b),  x ← LN(x + W₂ GELU(W₁ x + b₁) + b₂)     (30)
ε (epsilon) keeps (27) from 0/0. softmax(x)ᵢ = exp(xᵢ) / Σⱼ exp(xⱼ), row by row: a token becomes a
mixture of those it looks at. *Heads* do so side by side, on their own columns. Texts are padded to
one length; a mask gives padding no weight. *Pooling* makes one vector of T: their mean, or the
first, [CLS]. **When it fails.** What is beyond the model's limit, often 256 tokens, is left out.
Vectors of two models cannot be compared. **What people get wrong.** Padding counted in the mean.
"""
# %%
def layer_norm(x, gain, bias, eps):
    """Equation (27)."""
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * gain + bias

def gelu(x):
    """Equation (29). numpy has no erf: 7.1.26 of Abramowitz and Stegun (1964) is good to 1.5e-7."""
    z = np.abs(x) / 2**0.5
    t = 1 / (1 + 0.3275911 * z)
    rest = 1.061405429 * t
    for a in [-1.453152027, 1.421413741, -0.284496736, 0.254829592]:
        rest += a  # in place: no new array
        rest *= t
    return np.maximum(x, 0) - z * rest * np.exp(-z * z) / 2**0.5  # rest exp(-z²) = 1 - erf(z)

def attention(q, k, v, mask, heads):
    """Equation (28) for B texts of T tokens: q, k, v (B T, h), mask (B, T) -> (B T, h)."""
    shape = (*mask.shape, heads, q.shape[1] // heads)
    q, k, v = (x.reshape(shape).swapaxes(1, 2) for x in (q, k, v))  # (B, heads, T, h / heads)
    scores = q @ k.swapaxes(2, 3) / shape[3] ** 0.5  # (B, heads, T, T)
    scores += np.where(mask, 0, -1e9).astype(q.dtype)[:, None, None, :]  # exp(-1e9) is 0
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
    for i in range(sum(name.endswith("intermediate.dense.bias") for name in W)):  # one per layer
        layer = f"encoder.layer.{i}"
        q, k, v = (dense(x, f"{layer}.attention.self.{name}") for name in ["query", "key", "value"])
        mixed = dense(attention(q, k, v, mask, heads), f"{layer}.attention.output.dense")
        x = norm(x + mixed, f"{layer}.attention.output")
        wide = gelu(dense(x, f"{layer}.intermediate.dense"))
        x = norm(x + dense(wide, f"{layer}.output.dense"), f"{layer}.output")
    return x.reshape(*ids.shape, -1)

def encode_sentences(folder, texts, batch=16):
    """What SentenceTransformer(folder).encode(texts) returns, (n, h); or pass a loaded encoder."""
    encoder = folder if isinstance(folder, dict) else load_encoder(folder)
    tokens, W = [token_ids(encoder, text) for text in check_texts(texts)], encoder["weights"]
    Z = np.zeros((len(tokens), len(W["embeddings.LayerNorm.bias"])), np.float32)
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))  # so that little is padded
    for rows in (order[i : i + batch] for i in range(0, len(order), batch)):
        lengths = np.array([[len(tokens[i])] for i in rows])
        mask = np.arange(lengths.max()) < lengths  # (B, T): which are tokens, and not padding
        ids = np.zeros(mask.shape, dtype=int)
        ids[mask] = np.concatenate([tokens[i] for i in rows])
        x = bert(ids, mask, W, encoder["heads"], encoder["eps"])
        Z[rows] = x[:, 0] if encoder["cls"] else (x * mask[:, :, None]).sum(axis=1) / lengths
    return unit_rows(Z) if encoder["normalize"] else Z
# %%
def sentence_transformers_static(vocabulary, V):
    """The library version of (26): a SentenceTransformer whose row 0, of zeros, is for [UNK]."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    numbers = {"[UNK]": 0, **{word: row + 1 for word, row in vocabulary.items()}}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w\w+"), "removed", invert=True)
    static = StaticEmbedding(tokenizer, np.vstack([0 * V[:1], V]).astype(np.float32))
    return SentenceTransformer(modules=[static], device="cpu")
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
    modules = [Transformer(str(folder)), Pooling(32, pooling), Normalize()]
    SentenceTransformer(modules=modules if norm else modules[:2], device="cpu").save(str(folder))

def demo_sentences(plot=False):
    """Means of word vectors; then all of BERT, in numpy and in the library."""
    import tempfile
    print("\n== Sentence embeddings: what happens to a text on its way into an encoder? ==\n")
    texts = ["Automobile? Crème & 京 🚗", "", *TEXTS, "a " * 30]
    known, V, _, _ = fit_word2vec(TEXTS, np.random.default_rng(0))
    theirs = sentence_transformers_static(known, V).encode(texts)
    same = {"means of word vectors": (mean_vectors(texts, known, V), theirs)}
    pieces = "[PAD] [UNK] [CLS] [SEP] [MASK] auto ##mobile".split()
    pieces += [start + chr(i) for start in ["", "##"] for i in range(33, 127)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
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
        theirs = sentence_transformers_encoder(folder).encode(TEXTS)
    except (OSError, ValueError) as error:
        stop(error)
    print(*(f"{t:50} {row.round(2)}" for t, row in zip(TEXTS, similarity(Z, Z))), sep="\n")
    return report(beside("sentences", {"vectors": (Z, theirs)}))
# Try: `python embeddings.py --model FOLDER`, say of all-MiniLM-L6-v2. Which two texts are closest?
# %% [markdown]
"""
## Contrastive loss: how is an encoder trained to place like next to like?
By a game. Given n pairs (a, b), find for each a its own b among all b of the batch. The other b are
wrong answers for free (InfoNCE, van den Oord et al., 2018). τ (tau) is a scale, 1 / "temperature":

    Sᵢⱼ = τ cos(aᵢ, bⱼ),   L = -(1/n) Σᵢ ln softmax(Sᵢ)ᵢ                             (31)
The gradient is probability minus truth, then back through the division by the length. A hat makes
the length 1: â = a / ‖a‖. More rows in B than in A are further wrong answers, "hard negatives".

    G = (softmax(S) - I) τ / n,   ∂L/∂â = G b̂,   ∂L/∂b̂ = Gᵀ â                         (32)
    ∂L/∂a = (∂L/∂â - â (â·∂L/∂â)) / ‖a‖,   and the same for b                        (33)
**When it fails.** With τ = 1 no softmax comes near 1, as e¹ / e⁻¹ is only 7, and (32) is small: 20
is usual. If two pairs of a batch mean the same, they are pushed apart all the same.
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
    for X, x, g in [(A, a, G @ b), (B, b, G.T @ a)]:  # equations (32), (33)
        along = (x * g).sum(axis=1, keepdims=True)
        grads.append((g - x * along) / np.linalg.norm(X, axis=1, keepdims=True))
    return -np.diag(log_p).mean(), *grads
# %%
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
    rng = np.random.default_rng(0)
    upper, lower = np.split(load_digits_data()[0] / 16, 2, axis=1)  # (1797, 32) each
    W1, W2 = rng.normal(size=(2, 32, 16)) / 6
    for step in range(301):
        if step % 100 == 0:  # 200 digits that training never sees
            found = nearest(lower[-200:] @ W2, upper[-200:] @ W1, 10)[1].T == np.arange(200)
            print(f"  step {step:3}: own half among 10 of 200 (chance 5%): {found.sum() / 200:.0%}")
        rows = rng.choice(len(upper) - 200, 128, replace=False)
        _, dA, dB = info_nce(upper[rows] @ W1, lower[rows] @ W2)
        W1, W2 = W1 - 0.1 * upper[rows].T @ dA, W2 - 0.1 * lower[rows].T @ dB
    pair = upper[:6] @ W1, lower[:12] @ W2  # with six hard negatives
    results = zip(info_nce(*pair), sentence_transformers_info_nce(*pair))
    return report(beside("steps", dict(zip(["loss", "dA", "dB"], results))))
# Try: `scale=1.0` in the demo. By (32), why does it learn slower, and do steps of 2.0 help?
# %%
if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--model":
        run_demos([lambda plot: run_model(sys.argv[2])])
    else:
        run_chapter("Embeddings, from cosine to BERT; --model FOLDER runs an encoder of yours.", [
            demo_similarity, demo_pca, demo_tfidf, demo_kmeans, demo_tsne, demo_word2vec,
            demo_sentences, demo_contrastive])  # fmt: skip
# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "scikit-learn", "torch==2.13.0", "sentence-transformers", "matplotlib"]
# ///
