"""Whole programs written by torch.export (.pt2).

An exported program is a flat list of ATen calls; each says which module it once was, so that sites keep the names of
the network they came from (`engine/capture.py`). Reading one can run code hidden in it, as torch says: so it is for the
command line, never for uploads.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from explorer.engine.errors import CheckpointError
from explorer.zoo.memory import require_memory
from explorer.zoo.paths import is_file, why_no_file


def load_program(path: Path) -> nn.Module:
    """Return the network in a .pt2 file, float32 on the CPU.

    Raises:
        CheckpointError: it is missing or damaged, takes other than one tensor, or a fixed number of images.
    """
    if not is_file(path):
        raise CheckpointError(f"{why_no_file(path)}. Give a .pt2 file that torch.export.save wrote.")
    require_memory(3 * path.stat().st_size, path.name)
    try:
        program = torch.export.load(path)
    except Exception as error:  # a damaged archive raises whatever it likes
        reason = (str(error).splitlines() or [""])[0][:160]
        raise CheckpointError(
            f"{path.name}: not a program that torch.export.save wrote, or damaged ({type(error).__name__}: {reason}). "
            "Export it again, with this version of torch."
        ) from error
    return unpack(program, path.name)


def unpack(program: torch.export.ExportedProgram, name: str) -> nn.Module:
    """Return an exported program as a network.

    Raises:
        CheckpointError: it takes other than one tensor, or was exported for a fixed number of images.
    """
    inputs, outputs = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise CheckpointError(
            f"{name}: takes {len(inputs)} inputs and gives {len(outputs)} outputs; one batch of images and one of "
            "class scores are needed. Export the classifier alone."
        )
    for node in program.graph.nodes:
        value = node.meta.get("val")
        images = value.shape[0] if isinstance(value, Tensor) and value.ndim and node.name == inputs[0] else None
        if isinstance(images, int):
            raise CheckpointError(
                f"{name}: exported for exactly {images} image(s) at a time. Export it with "
                "dynamic_shapes=({0: torch.export.Dim('batch')},) and an example of 2 images."
            )
    return without_modes(program.module().float().requires_grad_(False))


def without_modes(net: nn.Module) -> nn.Module:
    """Let eval() pass on an exported program, which is in the mode that it was exported in and refuses to be asked."""
    try:
        return net.eval()
    except NotImplementedError:
        net.train = lambda mode=True: net  # type: ignore[method-assign]
        net.eval = lambda: net  # type: ignore[method-assign]
        return net
