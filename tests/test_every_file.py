"""Promises that every chapter keeps: it imports fast and silently, it runs, it has the form."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted(path.name for path in ROOT.glob("*.py") if path.name != "utils.py")
FILES = [*CHAPTERS, "utils.py"]
LIBRARIES = ["scipy", "sklearn", "torch", "tokenizers", "transformers", "sentence_transformers"]
LIBRARIES += ["safetensors", "faiss", "matplotlib", "tqdm"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def python(*args, cwd=ROOT):
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("name", FILES)
def test_importing_needs_numpy_alone_prints_nothing_and_takes_no_time(name):
    """A module set to None in sys.modules cannot be imported. The clock counts this process alone."""
    code = f"""
import sys, time, numpy
sys.modules.update(dict.fromkeys({LIBRARIES}))
start = time.process_time()
import {name.removesuffix(".py")}
sys.exit(f"takes {{extra:.2f}} s on top of numpy" if (extra := time.process_time() - start) > 0.5 else 0)"""
    done = python("-W", "error", "-c", code)
    assert done.returncode == 0, f"importing {name} needs a library, or long:\n{done.stderr}"
    assert done.stdout == done.stderr == "", f"{name} prints on import"


@pytest.mark.parametrize("name", CHAPTERS)
def test_running_it_exits_0_and_every_comparison_holds(name, demos):
    """From another folder, as a reader might; -W turns an overflow into a failure."""
    done, left = demos[name].result()
    assert done.returncode == 0, f"python {name} failed:\n{done.stdout[-2000:]}{done.stderr}"
    total, held = re.search(r"(\d+) comparisons, (\d+) within tolerance\n$", done.stdout).groups()
    assert int(total) == int(held) > 0
    assert done.stdout.isascii(), f"{name} prints more than ASCII"
    if name == "linear_models.py":
        assert f"    {total} comparisons, {held} within tolerance\n" in README, "README shows another count"
    assert not left, f"{name} leaves files behind without --plot: {left}"


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_mistyped_demo_is_explained_without_a_traceback(name):
    args = ["--demo", "no_such_demo"] if name == "rag_basics.py" else ["no_such_demo"]
    done = python(name, *args)
    assert done.returncode == 2 and done.stdout == ""
    assert args[-1] in done.stderr and "Traceback" not in done.stderr


def cells(text):
    """(header, body) of each cell of a percent-format file."""
    parts = re.split(r"^(# %%.*)\n", text, flags=re.M)
    return list(zip(parts[1::2], parts[2::2]))


@pytest.mark.parametrize("name", CHAPTERS)
def test_text_cells_are_plain_strings_that_any_screen_shows(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.startswith('# %% [markdown]\n"""\n# '), f"{name} must open with its title"
    parts = cells(text)
    for (header, body), (following, _) in zip(parts, parts[1:]):
        if header == "# %% [markdown]":
            assert re.fullmatch(r'"""\n[^\\]*?\n"""\n+', body), f"text cell of {name}:\n{body[:200]}"
            assert not re.search(r"\$.+\$", body), f"LaTeX in {name}:\n{body[:200]}"
            assert following.startswith("# %%")


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_section_has_a_demo_that_runs_and_something_to_try(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    demos = re.findall(r"^def (demo_\w+)\(plot=False\):", text, re.M)
    assert demos, f"{name} has no demo"
    assert len(re.findall(r"^(?:# )?Try:", text, re.M)) >= len(re.findall(r"^## ", text, re.M))
    main = text[text.index('if __name__ == "__main__":') :]
    used = [demo for demo in demos if re.search(rf"\b{demo}\b", main)]
    assert used == demos, f"not run by {name}: {set(demos) - set(used)}"


@pytest.mark.parametrize("name", FILES)
def test_functions_are_short_documented_and_named_in_ascii(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 900
    assert max(map(len, text.splitlines())) <= 100
    tree = ast.parse(text)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in [*tree.body, *(method for group in classes for method in group.body)]:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}: {node.name} has no docstring"
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert all(map(str.isascii, names)), f"{name} has names beyond ASCII"


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_last_lines_tell_uv_what_the_chapter_imports(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    block = re.search(r'# /// script\n# requires-python = ">=3.11"\n# dependencies = (\[.*\])\n# ///\n$', text)
    assert block, f"{name} must end with a PEP 723 block"
    declared = {re.match(r"[\w-]+", item)[0] for item in ast.literal_eval(block[1])}
    package = {"sklearn": "scikit-learn", "faiss": "faiss-cpu", "sentence_transformers": "sentence-transformers"}
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    needed = {package.get(m, m) for m in imported - sys.stdlib_module_names - {"utils"}} | {"matplotlib"}
    brought = {"scipy": "scikit-learn", "transformers": "sentence-transformers", "tokenizers": "sentence-transformers"}
    missing = {m for m in needed - declared if brought.get(m) not in declared}
    assert not missing, f"{name} imports {missing} without declaring it"
    assert declared <= needed, f"{name} declares {declared - needed} without a use"


def test_readme_is_short_and_names_every_chapter_and_none_that_is_not_there():
    rows = re.findall(r"^\| `(\w+\.py)` \|", README, re.M)
    assert sorted(rows) == CHAPTERS
    prose = [line for line in README.splitlines() if not line.startswith(("|", "    "))]
    assert len(" ".join(prose).split()) <= 500


def test_readme_table_names_what_is_there_and_tolerances_that_are_tested():
    chapter, seen = None, set()
    for line in README[README.index("| concept |") :].splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 5:
            break
        if heading := re.fullmatch(r"\*\*(\w+)\.py\*\*", cells[0]):
            chapter = importlib.import_module(heading[1])
            seen.add(f"{heading[1]}.py")
            continue
        missing = [name for name in re.findall(r"`(\w+)`", cells[1]) if not hasattr(chapter, name)]
        assert not missing, f"README: {chapter.__name__}.py has no {missing}"
        if cells[3] != "by hand":
            allowed = {tolerance for tolerance, _ in chapter.ALLOWED.values()}
            assert float(cells[3].replace("exactly", "0")) in allowed, f"README: no {cells[3]} in {chapter.__name__}"
    assert seen == set(CHAPTERS)
