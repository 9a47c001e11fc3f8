"""Lets plain `pytest` work from anywhere, on one BLAS thread, with warnings as errors."""

import os
import sys
from pathlib import Path

# Before numpy loads: two BLAS threads on a busy machine are slower than one on small matrices.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils import compare


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    config.addinivalue_line("filterwarnings", "ignore:builtin type [sS]wig:DeprecationWarning")


def agree(what, scratch, expected, allowed, why):
    """compare() as a test: fails in words, with what is off, by how much, where, and why it matters."""
    __tracebackhide__ = True
    comparison = compare(what, scratch, expected, allowed, why)
    if not comparison.ok:
        pytest.fail(str(comparison), pytrace=False)
