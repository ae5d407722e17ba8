"""Every number of docs/methods.md is computed here, by the engine's own neurons."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer.engine.methods.catalogue.cos import moved_start
from explorer.engine.methods.catalogue.radix import digits
from explorer.engine.methods.coded import levels
from explorer.engine.methods.fitted import read_out
from explorer.engine.neurons import law_named
from explorer.engine.simulation.differential import changes
from explorer.engine.theory import neuron, staircase, staircase_counts

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n", 1)[0]: " ".join(part.split()) for part in TEXT.split("\n## ")[1:]}


def told(value) -> str:
    """A number as the text writes it."""
    return f"{round(float(value), 6):g}".replace("-", "−")


def sent(x, v_init=0.0, law="integrate_and_fire") -> str:
    """What a neuron of threshold 1 sends, as the text writes it."""
    return " ".join(
        told(z) for z in neuron(torch.tensor(x, dtype=torch.float64).numpy(), 1.0, v_init, law_named(law))[2]
    )


def facts() -> dict[str, list[str]]:
    """By section, the words that its text must hold."""
    x, early, a = [0.4] * 4, [1, 1, -1.2, -0.5, 0.9, 0], [0.125, 0.25, 0.375, 0.5, 2.0]
    zero, half = (float(staircase(np.array(0.4), 1.0, 4, v)) for v in (0.0, 0.5))
    phase = [0.6, -0.8, -0.6, 0.0]
    before, after, _ = neuron(np.array(phase), 1.0, 0.5)
    start = float(moved_start(torch.tensor(phase)[:, None], torch.tensor(1.0), torch.tensor([0.5])))
    value, one = torch.tensor(0.6, dtype=torch.float64), torch.tensor(1.0)
    n4, n8 = int(levels(value, one / 2, one, 4, 4)), int(levels(value, one / 2, one, 8, 7))
    binary = " ".join(str((n8 >> k) & 1) for k in (2, 1, 0))
    assert int(digits(torch.tensor(n8), 3)) == binary.count("1")
    left, z = changes(law_named("thresholds_4"), torch.tensor([[5.0], [0], [0]]), torch.zeros(1), torch.ones(1))
    _, once = changes(law_named("thresholds_4"), torch.tensor([[8.0], [0], [0]]), torch.zeros(1), torch.ones(1))
    assert z.flatten().tolist() == [4, 2, 0] and once.flatten().tolist() == [8, 0, 0] and float(left[0]) == 1
    currents = torch.arange(1.0, 9.0)[:, None, None]
    mean = currents.cumsum(0) / torch.arange(1, 9)[:, None, None]
    missing = 0.4 - zero
    steps = [0.5 * (0.4 - s) for s in map(float, sent(x).split())]
    return {
        "Threshold rules": [
            f"With θ = {told(max(a))}, their maximum, 0.375 makes ⌊4 · 0.375 / 2⌋ = "
            f"{told(staircase_counts(torch.tensor(0.375), 2.0, 4, 0.0))} spikes",
            f"With θ = 0.5 it makes {told(staircase_counts(torch.tensor(0.375), 0.5, 4, 0.0))} spikes, which stand for "
            f"{told(staircase(torch.tensor(0.375), 0.5, 4, 0.0))}",
            f"2 is cut to {told(staircase(torch.tensor(2.0), 0.5, 4, 0.0))}.",
        ],
        "Starts": [
            f"Started at 0 the neuron sends {sent(x)}, which stands for {told(zero)}: it errs by {told(zero - 0.4)}.",
            f"Started at 1/2 it sends {sent(x, 0.5)}, which stands for {told(half)}: it errs by {told(half - 0.4)}.",
        ],
        "Shifts": [f"With a shift of {told(1 / 8)} and an empty start the neuron sends {sent([0.4 + 1 / 8] * 4)}."],
        "Two phases": [
            f"The neuron fires at {told(before[0])} and ends at {told(after[-1])}",
            f"max(1, {told(before[0])} − 0.999) = {told(max(1, before[0] - 0.999))} to {told(start)}",
            f"{told(after[-1])} at or below 0.001",
        ],
        "Spikes that are taken back, and bursts": [
            f"{told(sum(early))} in all and so worth {int(sum(early))} spike. The plain neuron sends {sent(early)}.",
            f"`signed` sends {sent(early, law='signed')};",
            f"taken back at zero it is {sent(early, law='signed_at_zero')}.",
            f"The plain neuron sends {sent([4.25, 0, 0])}; bursts of up to 2 send {sent([4.25, 0, 0], law='burst_2')}, "
            f"bursts of up to 5 send {sent([4.25, 0, 0], law='burst_5')}.",
        ],
        "One value, coded": [
            f"⌊4 · 0.6 + 1/2⌋ = {n4} spikes, which stand for {told(n4 / 4)}.",
            f"in step 4 − {n4} = {4 - n4}",
            f"⌊8 · 0.6 + 1/2⌋ = {n8} and sends its digits {binary}, which stand for {told(n8 / 8)}.",
        ],
        "Differences": [
            f"In step 1 the neuron sends {int(z[0])}, the nearest, and {told(float(left[0]))} is left.",
            f"In step 2 what is left has grown to {told(2 * float(left[0]))}: it sends {int(z[1])}, which counts "
            f"{int(z[1])} / 2 = {told(int(z[1]) / 2)}. The mean told is {told(int(z[0]) + int(z[1]) / 2)}",
        ],
        "Read-out": [
            f"Their mean is {told(float(mean[-1]))}; without the first 3 it is {told(float(read_out(mean, 3)[-1]))}."
        ],
        "Calibration": [
            f"stands for {told(zero)} where 0.4 is wanted. `light-calibration` adds the difference, {told(missing)},",
            f"it then sends {sent([0.4 + missing] * 4)}.",
            f"nothing was sent in step 1, which gets {told(steps[0])}, and a spike in step 3, which gets",
            f"which gets {told(steps[2])}.",
        ],
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_the_numbers_of_a_family_are_the_engines(section):
    for words in facts()[section]:
        assert words in SECTIONS[section], words


def test_every_family_is_told_and_every_method_has_one():
    from explorer.engine import methods

    assert set(facts()) == set(SECTIONS)
    named = set(re.findall(r"`([a-z-]+)`", TEXT))
    assert {kind.key for kind in methods.all()} - {"qcfs"} <= named, "qcfs is training, not conversion"
    assert {kind.key for kind in methods.all()} >= named - {"v_init"}


def test_bits_that_are_told_are_the_laws():
    told_bits = {law_named(f"thresholds_{count}").bits for count in (2, 3, 4)}
    assert told_bits == {3, 4}, "the text of differential coding and the README say 3 or 4"
