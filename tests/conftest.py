"""Before torch is imported: threads that wait should sleep, or two busy processes stall each other.

Where tests run in several processes (`-n 2`), these share the cores. Where there is no GPU, Triton's kernels run in its
interpreter; it must be told so before it is imported.
"""

import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def address():
    """The app's address: one server for all browser tests of a process."""
    from tests import browser_help

    with browser_help.app_server() as address:
        yield address


@pytest.fixture(scope="session", params=["reference", "cpu", "cuda"])
def backend(request):
    """Every back end by turns: the reference, the CPU's, and CUDA's, in Triton's interpreter where there is no GPU."""
    from explorer.engine.kernels import backend

    if request.param != "cuda":
        return backend(request.param)
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        return backend("cuda")
    from explorer.engine.kernels.cuda.backend import CudaBackend

    assert os.environ.get("TRITON_INTERPRET") == "1"
    return CudaBackend("cpu", places=128)


@pytest.fixture
def everywhere(backend, monkeypatch):
    """As `backend`; whatever is simulated in the test runs on it."""
    monkeypatch.setattr("explorer.engine.simulation.simulate.backend", lambda name: backend)
    return backend
