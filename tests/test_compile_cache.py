"""The cache of compiled loops: read-only installs, full disks and damaged files cost a compilation, never a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")
from explorer.engine.kernels.cpu import compile_cache

ROOT = Path(__file__).resolve().parents[1]


def double(x):
    return x * 2 + 1


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache.config, "CACHE_DIR", str(tmp_path))
    compile_cache.said.clear()
    return tmp_path


def compiled():
    """Return the function as a new process would have it."""
    return compile_cache.njit(cache=True)(double)


def files(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.rglob(f"*.{kind}"))


def test_what_was_compiled_is_taken_from_the_disk(folder):
    assert compiled()(20) == 41
    again = compiled()
    assert again(20) == 41
    assert sum(again.stats.cache_hits.values()) == 1
    assert files(folder, "nbi")
    assert files(folder, "nbc")


DAMAGE = {
    "a bit": lambda content: content[:-90] + bytes([content[-90] ^ 16]) + content[-89:],
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"hello",
    "a pickle of something else": lambda content: b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_compiled_again(folder, kind, damage, caplog):
    compiled()(20)
    for path in files(folder, kind):
        path.write_bytes(damage(path.read_bytes()))
    again = compiled()
    assert again(20) == 41
    assert not again.stats.cache_hits
    mended = compiled()
    assert mended(20) == 41
    assert mended.stats.cache_hits, "what was compiled again took the damaged file's place"


def times(factor):
    def multiplied(x):
        return x * factor

    return compile_cache.njit(cache=True)(multiplied)


def test_processes_that_compile_at_once_never_take_each_others_loops(folder, monkeypatch):
    """Both have seen an empty index, and write their code in the other order than their entries."""
    written = []
    with monkeypatch.context() as patch:
        patch.setattr(compile_cache.CheckedFile, "_load_index", lambda self: {})
        patch.setattr(compile_cache.CheckedFile, "_save_data", lambda *call: written.append(call))
        assert [times(factor)(20) for factor in (2, 3)] == [40, 60]
    for file, name, code in reversed(written):
        file._save_data(name, code)
    assert len(written) == 2
    assert [times(factor)(20) for factor in (2, 3)] == [40, 60]


def test_loops_of_older_sources_do_not_pile_up(folder, monkeypatch):
    for version in "ab":
        monkeypatch.setattr(compile_cache, "sources", lambda version=version: version)
        compiled()(20)
    assert len(files(folder, "nbc")) == 1


def test_a_full_disk_is_said_once(folder, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compile_cache.CheckedFile, "_open_for_write", full)
    assert compiled()(20) == 41
    assert compiled()(20.0) == 41.0
    assert [record.getMessage().count("No space left") for record in caplog.records] == [1]


def test_a_folder_that_somebody_else_may_change_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    found = compile_cache.private_folder()
    assert found is not None
    assert found.stat().st_mode & 0o777 == 0o700
    found.chmod(0o777)
    assert compile_cache.private_folder() is None
    found.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    found.symlink_to(tmp_path / "elsewhere")
    assert compile_cache.private_folder() is None


SCRIPT = """
import numpy as np
from explorer.engine.kernels import histogram
print(histogram(np.arange(12, dtype=np.float32).reshape(6, 2), 1.0, 16).tolist())
"""


@pytest.mark.parametrize("temporary", [True, False], ids=["a temporary folder", "no folder at all"])
def test_an_install_that_cannot_be_written_to_works(tmp_path, temporary):
    install = tmp_path / "install"
    shutil.copytree(ROOT / "explorer", install / "explorer", ignore=shutil.ignore_patterns("__pycache__"))
    kernels = install / "explorer" / "engine" / "kernels"
    for folder in (kernels, *(path for path in kernels.rglob("*") if path.is_dir())):
        (folder / "__pycache__").write_text("in the way")
    nowhere = str(tmp_path / "install" / "explorer" / "__init__.py" / "x")
    (tmp_path / "tmp").mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA", "PYTHON"))}
    environment |= {
        "HOME": nowhere,
        "XDG_CACHE_HOME": nowhere,
        "TMPDIR": str(tmp_path / "tmp"),
        "PYTHONPATH": str(install),
    }
    script = SCRIPT if temporary else f"import tempfile\ntempfile.gettempdir = lambda: {nowhere!r}\n{SCRIPT}"
    runs = [
        subprocess.run(
            [sys.executable, "-B", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        for _ in range(2 if temporary else 1)
    ]
    expected = str([np.bincount(np.arange(start, 12, 2), minlength=16).tolist() for start in (0, 1)])
    for run in runs:
        assert run.stdout.strip() == expected, run.stderr
        assert "Traceback" not in run.stderr
        said = "compiled loops are kept in" if temporary else "compiled loops cannot be kept"
        assert run.stderr.count(said) == 1
    if temporary:
        kept = next((tmp_path / "tmp").glob("explorer-kernels-*"))
        assert list(kept.rglob("*.nbc"))
