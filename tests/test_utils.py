"""utils.py: each metric and splitter beside scikit-learn's, each check with its sentence."""

import io
import math
import sys

import numpy as np
import pytest
from conftest import agree
from sklearn import metrics, model_selection

import utils
from utils import Comparison, compare

SAME = 1e-12, "the same formula"
BY_HAND = 1e-12, "worked by hand"


def rng(seed=0):
    return np.random.default_rng(seed)


# --- Data


def test_make_regression_is_the_line_that_it_says_plus_noise():
    X, y, w, b = utils.make_regression(rng(), n=5000, d=4, noise=0.5)
    assert X.shape == (5000, 4) and w.shape == (4,)
    r = y - X @ w - b
    assert abs(r.mean()) < 0.03 and abs(r.std() - 0.5) < 0.03
    assert abs(X.mean()) < 0.03 and abs(X.std() - 1) < 0.03
    X, y, w, b = utils.make_regression(rng(), n=10, d=2, noise=0)
    agree("without noise", y, X @ w + b, *SAME)


def test_make_blobs_are_round_and_equally_many():
    X, y = utils.make_blobs(rng(), n=3000, centers=3, d=2, spread=0.5)
    assert X.shape == (3000, 2) and np.bincount(y).tolist() == [1000] * 3
    for k in range(3):
        assert np.all(np.abs(X[y == k].std(axis=0) - 0.5) < 0.05)
        assert np.all(np.abs(X[y == k].mean(axis=0)) < 6.1)
    assert np.ptp([X[y == k].mean(axis=0) for k in range(3)], axis=0).max() > 1
    centers, _ = utils.make_blobs(rng(), n=1000, centers=1000, spread=0)
    assert 5.9 < np.abs(centers).max() <= 6


def test_make_moons_lie_on_two_half_circles():
    X, y = utils.make_moons(rng(), n=400, noise=0)
    assert np.bincount(y).tolist() == [200, 200]
    upper, lower = X[y == 0], X[y == 1]
    agree("upper", np.hypot(*upper.T), np.ones(200), *SAME)
    agree("lower", np.hypot(lower[:, 0] - 1, lower[:, 1] - 0.5), np.ones(200), *SAME)
    assert upper[:, 1].min() >= 0 and lower[:, 1].max() <= 0.5
    assert upper[:, 0].min() < -0.9 and upper[:, 0].max() > 0.9
    noisy, _ = utils.make_moons(rng(), n=400, noise=0.2)
    assert abs((noisy - X).std() - 0.2) < 0.03


def test_make_series_has_its_period_and_its_trend():
    y = utils.make_series(rng(), n=240, period=12, trend=0.5, noise=0)
    agree("a period later", y[12:] - y[:-12], np.full(228, 6), *SAME)
    agree("a quarter of a period in", y[3], 1.5 + 1, *SAME)
    assert abs((utils.make_series(rng(), 240, 12, 0.5, noise=0.3) - y).std() - 0.3) < 0.04


# --- Splits. RandomState(0).permutation is what scikit-learn calls inside.


@pytest.mark.parametrize("n, test_size", [(10, 0.25), (101, 0.3), (7, 0.5), (2, 0.9), (3, 0.99)])
def test_train_test_split_matches_scikit_learn(n, test_size):
    train, test = utils.train_test_split(np.random.RandomState(0), n, test_size)
    if math.ceil(test_size * n) < n:
        theirs = model_selection.train_test_split(np.arange(n), test_size=test_size, random_state=0)
        assert train.tolist() == theirs[0].tolist() and test.tolist() == theirs[1].tolist()
    assert sorted([*train, *test]) == list(range(n)) and len(train) > 0


@pytest.mark.parametrize("n, k", [(10, 5), (11, 3), (7, 7), (100, 2)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_k_fold_matches_scikit_learn(n, k, shuffle):
    ours = utils.k_fold(n, k, np.random.RandomState(0) if shuffle else None)
    theirs = model_selection.KFold(k, shuffle=shuffle, random_state=0 if shuffle else None).split(np.zeros(n))
    for (train, test), (their_train, their_test) in zip(ours, theirs, strict=True):
        assert train.tolist() == their_train.tolist() and test.tolist() == their_test.tolist()


@pytest.mark.parametrize("k", [2, 3, 5])
def test_stratified_k_fold_has_scikit_learns_share_of_each_class(k):
    y = np.array([0] * 23 + [1] * 11 + [2] * 6)
    theirs = model_selection.StratifiedKFold(k).split(y, y)
    for (train, test), (_, their_test) in zip(utils.stratified_k_fold(y, k), theirs, strict=True):
        assert np.bincount(y[test]).tolist() == np.bincount(y[their_test]).tolist()
        assert sorted([*train, *test]) == list(range(40))
    for name, label in [("text", np.array(["a", "b", "c"])[y]), ("floats", y - 5.5)]:
        folds = zip(utils.stratified_k_fold(label, k), utils.stratified_k_fold(y, k))
        assert all(np.array_equal(a[1], b[1]) for a, b in folds), name


@pytest.mark.parametrize(
    "split, message",
    [
        (lambda: utils.train_test_split(rng(), 1), "n must be at least 2, not 1"),
        (lambda: utils.train_test_split(rng(), 5, 1.0), "test_size must be above 0 and below 1, not 1.0"),
        (lambda: utils.train_test_split(rng(), 5, 0), "test_size must be above 0 and below 1, not 0"),
        (lambda: utils.k_fold(4, 5), "k must be at least 2 and at most 4, not 5"),
        (lambda: utils.k_fold(4, 1), "k must be at least 2 and at most 4, not 1"),
        (lambda: utils.stratified_k_fold([0, 0, 0, 1, 1], 3), "k must be at least 2 and at most 2, not 3"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(split, message):
    with pytest.raises(ValueError, match=message):
        split()


def test_a_split_into_half_folds_is_refused():
    for split in [lambda: utils.k_fold(9, 2.5), lambda: utils.stratified_k_fold([0, 1] * 5, 2.5)]:
        with pytest.raises(TypeError, match="k must be a whole number, not 2.5"):
            split()
    with pytest.raises(TypeError, match="n must be a whole number, not 9.5"):
        utils.train_test_split(rng(), 9.5)


# --- Checks


@pytest.mark.parametrize(
    "value, error, message",
    [
        (None, TypeError, r"A must hold real numbers, not NoneType \(dtype object\)"),
        ([["a"]], TypeError, "A must hold real numbers, not text"),
        ([[b"a"]], TypeError, "A must hold real numbers, not bytes"),
        ([[1j]], TypeError, "A must hold real numbers, not complex numbers"),
        (np.array([["2020-01-01"]], dtype="datetime64[D]"), TypeError, "A must hold real numbers, not dates"),
        ([[1], [2, 3]], ValueError, "A must be rectangular: its rows differ in length"),
        ([1, 2], ValueError, r"A must have 2 dimension\(s\), not shape \(2,\) \(for one feature: A\[:, None\]\)"),
        ([[[1]]], ValueError, r"A must have 2 dimension\(s\), not shape \(1, 1, 1\)$"),
        (np.zeros((0, 2)), ValueError, r"A must have a row and a column at least, not shape \(0, 2\)"),
        (np.zeros((2, 0)), ValueError, r"A must have a row and a column at least, not shape \(2, 0\)"),
        ([[1, np.nan]], ValueError, r"A must hold finite numbers up to 1e\+100, not nan \(at index \(0, 1\)\)"),
        ([[1], [-np.inf]], ValueError, r"not -inf \(at index \(1, 0\)\)"),
        ([[1e101]], ValueError, r"not 1e\+101 \(at index \(0, 0\)\)"),
    ],
)
def test_check_array_says_what_is_wrong(value, error, message):
    with pytest.raises(error, match=message):
        utils.check_array("A", value, ndim=2)


def test_check_array_gives_floats_and_leaves_good_arrays_alone():
    good = np.arange(6.0).reshape(2, 3)
    assert utils.check_array("A", good, 2) is good
    for other in [good.astype(int), good.astype(np.float32), good.tolist(), np.asfortranarray(good), good > 2]:
        out = utils.check_array("A", other, 2)
        assert out.dtype == float and np.array_equal(out, np.asarray(other))
    many = np.full((3, 1000), 5e99)  # each is small enough, their norm is not
    assert utils.check_array("A", many, 2) is many
    edge = np.array([1e100, -1e100])
    assert utils.check_array("A", edge, 1) is edge and utils.check_array("A", edge, 1, allow_nan=True) is edge


def test_check_array_lets_nan_pass_on_request_and_nothing_else():
    assert np.isnan(utils.check_array("A", [1, np.nan], 1, allow_nan=True)).tolist() == [False, True]
    for bad in [np.inf, -np.inf]:
        with pytest.raises(ValueError, match=f"not {bad}"):
            utils.check_array("A", [bad, np.nan], 1, allow_nan=True)


def test_check_x_compares_the_number_of_features():
    assert utils.check_X([[1, 2]], features=2).tolist() == [[1, 2]]
    with pytest.raises(ValueError, match=r"X must have 3 feature\(s\), as in the fit, not 2"):
        utils.check_X([[1, 2]], features=3)


def test_check_xy_wants_one_target_per_row():
    X, y = utils.check_Xy([[1], [2]], [3, 4])
    assert X.shape == (2, 1) and y.tolist() == [3, 4]
    for y in [[1], [1, 2, 3], [[1], [2]], [[1, 2]]]:
        with pytest.raises(ValueError, match=r"y must have shape \(2,\), one value per row of X, not"):
            utils.check_Xy([[1], [2]], y)
    with pytest.raises(TypeError, match="y must hold real numbers, not NoneType"):
        utils.check_Xy([[1], [2]], None)


def test_check_labels_wants_every_label_from_zero():
    X = np.ones((6, 1))
    y = utils.check_labels(X, [0, 1, 2, 0, 1, 2.0])[1]
    assert y.dtype.kind == "i" and y.tolist() == [0, 1, 2, 0, 1, 2]
    assert utils.check_labels(X, [0, 1, 0, 1, 0, 1], classes=2)[1].tolist() == [0, 1, 0, 1, 0, 1]
    for y, classes, message in [
        ([0, 1, 2, 0, 1, 2], 2, "from 0 to 1, not just 0, 1, 2 "),
        ([0, 0, 0, 0, 0, 0], None, "from 0 to 1, not just 0 "),
        ([1, 2, 1, 2, 1, 2], None, "from 0 to 1, not just 1, 2 "),
        ([0, 2, 0, 2, 0, 2], None, "from 0 to 1, not just 0, 2 "),
        ([0, 0.5, 1, 0, 0, 0], None, "from 0 to 2, not just 0, 0.5, 1 "),
        ([0, 1, 2, 4, 4, 4], None, r"from 0 to 3, not just 0, 1, 2, 4 "),
        ([0, 1, 2, 3, 5, 5], None, r"from 0 to 4, not just 0, 1, 2, 3, \.\.\. "),
        ([0, 1, 2, 3, 4, 6], None, r"from 0 to 5, not just 0, 1, 2, 3, \.\.\. "),
    ]:
        with pytest.raises(ValueError, match="y must hold every label " + message):
            utils.check_labels(X, y, classes)


def test_check_number_by_its_bounds():
    assert utils.check_number("C", 3, above=0) == 3
    assert utils.check_number("C", np.float32(0.5), least=0.5, most=0.5) == 0.5
    assert utils.check_number("k", np.int64(2), integer=True) == 2
    for bounds in [dict(least=1), dict(above=1), dict(most=-1), dict(below=0)]:
        with pytest.raises(ValueError, match="C must be (at least|above|at most|below) -?[01], not 0"):
            utils.check_number("C", 0, **bounds)
    for value in [np.nan, np.inf, -np.inf]:
        with pytest.raises(ValueError, match="C must be finite, not"):
            utils.check_number("C", value)
    with pytest.raises(ValueError, match="beta must be at least 0 and below 1, not 1"):
        utils.check_number("beta", 1, least=0, below=1)
    for value in ["1", None, True, np.True_, 1j, [1]]:
        with pytest.raises(TypeError, match="C must be a number, not"):
            utils.check_number("C", value)
    with pytest.raises(TypeError, match="k must be a whole number, not 2.0"):
        utils.check_number("k", 2.0, integer=True)


# --- Metrics


@pytest.mark.parametrize("seed", range(3))
def test_metrics_match_scikit_learn(seed):
    y, z = rng(seed).normal(size=(2, 50))
    agree("mse", utils.mse(y, z), metrics.mean_squared_error(y, z), *SAME)
    agree("R2", utils.r2_score(y, z), metrics.r2_score(y, z), *SAME)
    a, b = rng(seed).integers(0, 4, size=(2, 60))
    agree("accuracy", utils.accuracy(a, b), metrics.accuracy_score(a, b), *SAME)
    agree("confusion matrix", utils.confusion_matrix(a, b), metrics.confusion_matrix(a, b), *SAME)
    P = rng(seed).dirichlet(np.ones(4), size=60)
    P[0] = np.eye(4)[(a[0] + 1) % 4]  # sure, and wrong
    agree("log loss", utils.log_loss(a, P), metrics.log_loss(a, P), *SAME)
    agree("log loss of two", utils.log_loss(a % 2, P[:, 1]), metrics.log_loss(a % 2, P[:, 1]), *SAME)


@pytest.mark.parametrize("scores", ["normal", "tied", "constant"])
@pytest.mark.parametrize("seed", range(3))
def test_roc_auc_matches_scikit_learn(scores, seed):
    y = np.append([0, 1], rng(seed).integers(0, 2, size=40))
    score = {"normal": rng(seed).normal(size=42) + y, "tied": rng(seed).integers(0, 4, size=42), "constant": np.ones(42)}[scores]
    agree("area", utils.roc_auc(y, score), metrics.roc_auc_score(y, score), *SAME)


def test_metrics_by_hand():
    agree("mse", utils.mse([1, 2], [1, 4]), 2, *BY_HAND)
    agree("R2 of the mean", utils.r2_score([1, 3], [2, 2]), 0, *BY_HAND)
    agree("R2 of a constant, hit", utils.r2_score([5, 5], [5, 5]), 1, *BY_HAND)
    agree("R2 of a constant, missed", utils.r2_score([5, 5], [5, 6]), 0, *BY_HAND)
    agree("R2 of small numbers", utils.r2_score([0.1, 0.3], [0.1, 0.2]), 0.5, *BY_HAND)
    assert utils.log_loss([1], [1.0]) == -np.log(1 - np.finfo(float).eps)
    assert utils.confusion_matrix([0, 2], [0, 0]).tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]
    agree("a sure mistake", utils.log_loss([0], [1.0]), -np.log(np.finfo(float).eps), *BY_HAND)
    agree("a constant score", utils.roc_auc([0, 1, 1], [7, 7, 7]), 0.5, *BY_HAND)
    assert utils.confusion_matrix([0, 1, 1], [0, 0, 2]).tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 0]]


def test_metrics_refuse_what_would_broadcast():
    two = [utils.mse, utils.r2_score, utils.accuracy, utils.confusion_matrix, utils.roc_auc]
    for metric in two:
        for a, b in [(np.zeros(3), np.zeros((3, 1))), (np.zeros(3), np.zeros(2)), ([], [])]:
            with pytest.raises(ValueError, match=r"a metric needs two arrays of shape \(n,\), not"):
                metric(a, b)
    with pytest.raises(ValueError, match="a metric needs two arrays"):
        utils.log_loss([0, 1], np.full((3, 2), 0.5))
    with pytest.raises(ValueError, match="y must hold both labels, 0 and 1"):
        utils.roc_auc([1, 1], [0.2, 0.3])


# --- Tables


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_read_csv_tells_numbers_from_text_and_finds_what_is_missing(tmp_path):
    path = written(tmp_path, 'size , name,code,gone\n1.5, "a, b" ,1_000,\n?,NA,7,nan\n\n-2e3,x,,None\n', "utf-8-sig")
    table = utils.read_csv(path)
    assert list(table) == ["size", "name", "code", "gone"]
    agree("numbers", np.nan_to_num(table["size"], nan=99), [1.5, 99, -2000], *BY_HAND)
    assert table["name"].tolist() == ["a, b", "", "x"]
    assert table["code"].tolist() == ["1_000", "7", ""]
    assert np.isnan(table["gone"]).all()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_read_csv_finds_the_separator(tmp_path, separator):
    path = written(tmp_path, separator.join(["a", "b", "c"]) + "\n" + separator.join(["1", "2", "3"]))
    assert list(utils.read_csv(path)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "must have a header line and at least one row"),
        ("a,b\n", "must have a header line and at least one row"),
        ("a,a\n1,2\n", "has two columns with the same name"),
        ("a,b\n1,2\n3\n", "row 2 has 1 cells, the header has 2"),
    ],
)
def test_read_csv_says_what_is_wrong(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        utils.read_csv(written(tmp_path, text))


def test_read_table_tells_classes_from_numbers(tmp_path):
    rows = [f"{i},{i % 3},{'ab'[i % 2]},{i / 7}" for i in range(40)]
    path = written(tmp_path, "\n".join(["x,class,name,number", *rows, "5,,,"]))
    for target, labels in [("class", [0, 1, 2]), ("name", ["a", "b"])]:
        columns, y, found = utils.read_table(path, target)
        assert found.tolist() == labels and y.tolist() == [i % len(labels) for i in range(40)]
        assert target not in columns and all(len(column) == 40 for column in columns.values())
    columns, y, found = utils.read_table(path, "number")
    assert found is None
    agree("y", y, np.arange(40) / 7, *SAME)


@pytest.mark.parametrize(
    "text, target, message",
    [
        ("a,b\n1,2", "c", "has no column 'c'; it has a, b"),
        ("a\n" + "1\n" * 30, "a", "must have a second column, and 20 rows with a known a"),
        ("a,b\n" + "1,2\n" * 19, "a", "must have a second column, and 20 rows with a known a"),
        ("a,b\n" + "1,2\n" * 20, "a", "a must have two classes or more, each in at least 8 rows"),
        ("a,b\n" + "1,2\n" * 20 + "2,2\n" * 7, "a", "a must have two classes or more, each in at least 8 rows"),
    ],
)
def test_read_table_says_what_is_wrong(tmp_path, text, target, message):
    with pytest.raises(ValueError, match=message):
        utils.read_table(written(tmp_path, text), target)


def test_read_table_takes_the_smallest_table_it_promises(tmp_path):
    text = "a,b\n" + "1,2\n" * 12 + "2,2\n" * 8
    assert utils.read_table(written(tmp_path, text), "a")[2].tolist() == [1, 2]
    eleven = "a,b\n" + "\n".join(f"{i % 11},1" for i in range(22))
    assert utils.read_table(written(tmp_path, eleven), "a")[2] is None
    ten = "a,b\n" + "\n".join(f"{i % 10},1" for i in range(80))
    assert len(utils.read_table(written(tmp_path, ten), "a")[2]) == 10


# --- Comparisons


def test_compare_is_relative_to_the_largest_library_value_and_never_below_one():
    assert compare("w", [100.0, 0], [100.0, 1], 0.01, "").gap == pytest.approx(0.01)
    assert compare("w", [0.0], [0.1], 1, "").gap == pytest.approx(0.1)
    assert compare("w", [1.0], [1.25], 0.2, "").ok and not compare("w", [1.0], [1.25], 0.19, "").ok
    assert compare("w", [-4.0, 2], [-4.0, 4], 1, "").gap == 0.5
    assert compare("w", [-99.0], [-100.0], 1, "").gap == pytest.approx(0.01)


def test_compare_fails_on_nan_shape_and_nothing():
    assert not compare("w", [1, np.nan], [1, 2], 1e9, "").ok
    assert not compare("w", [1, 2], [1, np.nan], 1e9, "").ok
    assert not compare("w", [1, 2], [[1], [2]], 1e9, "").ok
    assert not compare("w", [], [], 1e9, "").ok
    assert not compare("w", [np.inf], [1], 1e9, "").ok
    assert compare("w", [np.inf, -np.inf], [np.inf, -np.inf], 0, "").ok
    assert compare("w", [True, False], [1, 0], 0, "").ok
    assert not compare("w", [1.0], ["a"], 0.5, "").ok and not compare("w", ["a"], [1.0], 0.5, "").ok
    assert compare("w", ["a", "b"], ["a", "b"], 0, "").ok and not compare("w", ["a", "c"], ["a", "b"], 0.5, "").ok


def test_a_failed_comparison_speaks_in_words():
    text = str(compare("weights w", [[1.0, 2], [3, 4]], [[1.0, 2], [3.5, 4]], 1e-10, "two direct solvers"))
    assert text.splitlines() == [
        "weights w is off by 0.12 at index 1, 0",
        "    scratch  3.0",
        "    library  3.5",
        "    allowed  1e-10: two direct solvers",
    ]
    assert str(compare("b", 1.0, 2.0, 0, "why")).startswith("b is off by 0.5\n")
    assert "off by inf: these are the shapes\n    scratch  (2,)\n    library  (3,)" in str(compare("w", [1, 2], [1, 2, 3], 0, ""))


def test_report_prints_a_line_each_and_returns_the_list(capsys):
    rows = [compare("w", [1.0], [1.0], 1e-10, ""), compare("label", ["cat"], ["dog"], 0, ""), compare("p", [0.5], [0.505], 1e-3, "")]
    assert utils.report(rows) is rows
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "" and lines[1].split() == ["scratch", "library", "largest", "gap", "allowed"]
    assert lines[2].split() == ["w", "1", "1", "<", "1e-12", "1e-10"]
    assert lines[3].split() == ["label", "cat", "dog", "1e+00", "0e+00", "NOT", "EQUAL"]
    assert lines[4].split() == ["p", "0.5", "0.505", "5e-03", "1e-03", "NOT", "EQUAL"]
    ends = [lines[1].index("scratch") + 7, lines[2].index("1") + 1, lines[3].index("cat") + 3, lines[4].index("0.5") + 3]
    assert len(set(ends)) == 1, "the columns are not aligned"


# --- Command line


GOOD, BAD = Comparison("a", 1, 1, 0.0, 1.0, "", ""), Comparison("b", 1, 2, 1.0, 0.5, "", "")


def demo_first(plot):
    print(f"first {plot}")
    return [GOOD, GOOD]


def demo_second(plot):
    print("second")
    return [GOOD]


def demo_wrong(plot):
    return [GOOD, BAD]


def demo_bare(plot):
    raise ModuleNotFoundError("No module named 'sklearn'")


def run(argv, demos=(demo_first, demo_second), **options):
    utils.run_chapter("About.", list(demos), argv=argv, **options)


def test_run_chapter_runs_the_demos_in_order_and_counts(capsys):
    run([])
    assert capsys.readouterr().out == "first False\nsecond\n\n3 comparisons, 3 within tolerance\n"
    run(["second", "first", "--plot"])
    assert capsys.readouterr().out == "second\nfirst True\n\n3 comparisons, 3 within tolerance\n"


def test_run_chapter_exits_with_1_when_a_comparison_fails(capsys):
    with pytest.raises(SystemExit) as stopped:
        run([], [demo_wrong])
    assert stopped.value.code == 1
    assert capsys.readouterr().out == "\n2 comparisons, 1 within tolerance\n"


@pytest.mark.parametrize(
    "argv, message",
    [
        (["third"], "no demo is named 'third'; there are first, second"),
        (["--plots"], "unrecognized arguments: --plots"),
        (["--plo"], "unrecognized arguments: --plo"),
        (["--csv", "a.csv"], "--csv FILE and --target COLUMN go together"),
        (["--target", "y"], "--csv FILE and --target COLUMN go together"),
        (["--csv", "a.csv", "--target", "y"], "no such table"),
    ],
)
def test_run_chapter_explains_a_mistake_in_one_line(argv, message, capsys):
    def on_csv(path, column, plot):
        raise ValueError("no such table")

    with pytest.raises(SystemExit) as stopped:
        run(argv, on_csv=on_csv)
    out, err = capsys.readouterr()
    assert stopped.value.code == 2 and out == "" and err.count("\n") == 1 and message in err


def test_run_chapter_has_no_csv_option_where_the_chapter_reads_no_table(capsys):
    with pytest.raises(SystemExit):
        run(["--csv", "a.csv", "--target", "y"])
    assert "unrecognized arguments: --csv" in capsys.readouterr().err


def test_run_chapter_names_a_missing_library(capsys):
    with pytest.raises(SystemExit) as stopped:
        run([], [demo_bare])
    assert stopped.value.code == 2
    assert "No module named 'sklearn'; pip install -r requirements.txt brings it" in capsys.readouterr().err


def test_run_chapter_hands_over_the_readers_table(capsys):
    seen = []
    run(["--csv", "a.csv", "--column", "x", "--plot"], on_csv=lambda *args: seen.append(args), column="column")
    assert seen == [("a.csv", "x", True)] and capsys.readouterr().out == ""
    run(["first"], on_csv=lambda *args: seen.append(args))
    assert len(seen) == 1


def test_run_chapter_ignores_a_notebook_kernels_arguments(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", io)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    run(None)
    assert "3 comparisons" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(["-f"])


def test_help_names_the_demos(capsys):
    with pytest.raises(SystemExit) as stopped:
        run(["--help"], on_csv=lambda *args: None)
    out = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "About." in out and "first, second" in out and "--plot" in out and "--target" in out


def test_save_plot_writes_one_png_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    drawn = []
    utils.save_plot("two.png", lambda left, right: drawn.extend([left.plot([1, 2]), right]), panels=2)
    assert len(drawn) == 2
    utils.save_plot("one.png", lambda ax: drawn.append(ax.get_title()))
    assert len(drawn) == 3 and capsys.readouterr().out == "saved two.png\nsaved one.png\n"
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules


def test_progress_goes_to_stderr(capsys):
    utils.progress("working")
    assert capsys.readouterr() == ("", "working\n")
