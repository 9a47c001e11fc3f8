"""Lets plain `pytest` work from anywhere, on one BLAS thread, with warnings as errors."""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Before numpy loads: two BLAS threads on a busy machine are slower than one on small matrices.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils import compare


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    config.addinivalue_line("filterwarnings", "ignore:builtin type [sS]wig:DeprecationWarning")


def run_demos(name, env):
    """The finished process of `python -W error::RuntimeWarning name`, and the files it left."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "error::RuntimeWarning", str(ROOT / name)]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
        return done, os.listdir(folder)


def pytest_collection_modifyitems(items):
    """The tests of whole chapters come last: see below."""
    items.sort(key=lambda item: "demos" in item.fixturenames)


def pytest_collection_finish(session):
    """The chapters that are to be tested start now and run, one by one, beside the other tests."""
    pool = ThreadPoolExecutor(max_workers=1)
    names = [item.callspec.params["name"] for item in session.items if "demos" in item.fixturenames]
    if not session.config.option.collectonly:
        env = dict(os.environ)  # as it is now: a test may change it for a while
        session.config.demos = {name: pool.submit(run_demos, name, env) for name in names}
    session.config.add_cleanup(lambda: pool.shutdown(cancel_futures=True))


@pytest.fixture
def demos(request):
    """{chapter: the future result of run_demos}."""
    return request.config.demos


def agree(what, scratch, expected, allowed, why):
    """compare() as a test: fails in words, with what is off, by how much, where, and why it matters."""
    __tracebackhide__ = True
    comparison = compare(what, scratch, expected, allowed, why)
    if not comparison.ok:
        pytest.fail(str(comparison), pytrace=False)
