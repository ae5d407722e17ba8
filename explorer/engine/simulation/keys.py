"""Under which names spike trains are kept: digests of everything that they depend on."""

from __future__ import annotations

import hashlib

from torch import Tensor

from explorer.engine.compile.plan import Plan, StepKind
from explorer.engine.conversion import SpikingNetwork


def image_keys(images: Tensor) -> list[bytes]:
    """Return a digest of each image's pixels."""
    return [hashlib.blake2b(i.numpy().tobytes(), digest_size=12).digest() for i in images.contiguous()]


def joined(keys: list[bytes]) -> bytes:
    """Return a digest of a chunk of images."""
    return hashlib.blake2b(b"".join(keys), digest_size=12).digest()


def step_digests(snn: SpikingNetwork, plan: Plan, path: str) -> dict[str, bytes]:
    """Return, per step, a digest of everything its result depends on besides images and time.

    path: whatever else tells two ways of computing apart, such as the precision of what runs as traced. The plan is
    the network's own for this path. All chunks of images share them.
    """
    key = ("step digests", path)
    if key not in snn.kept:
        snn.kept[key] = _step_digests(snn, plan, path)
    return snn.kept[key]


def _step_digests(snn: SpikingNetwork, plan: Plan, path: str) -> dict[str, bytes]:
    digests: dict[str, bytes] = {}
    for step in plan.steps:
        digest = hashlib.blake2b(f"{snn.network.fingerprint}/{step.name}/{path}".encode(), digest_size=12)
        if step.kind is StepKind.SITE:
            digest.update(snn.neurons[step.name].digest)
        for source in step.sources:
            digest.update(digests[plan.by_node[source].name])
        digests[step.name] = digest.digest()
    return digests
