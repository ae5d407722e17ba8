"""Every number in the lesson texts is computed here; a text with a number that nobody checks fails."""

import re

import pytest

from explorer.engine.theory import wilson
from explorer.plots import theory
from explorer.study import catalogue, published
from explorer.study.energy import ADD_PJ, MAC_PJ
from explorer.study.scene import Display
from explorer.ui import tour

TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(tour.LESSONS.glob("*.md"))}
# Names, not measurements: arXiv's number, years, the interval's level, the size of the test set, the technology, the
# steps and threshold a statement is made for, and the small whole numbers of the formulas.
NAMES = {"2202.01440", "2022", "2014", "95", "10,000", "45", "32", "20", "16", "10", "8"} | {str(n) for n in range(5)}


def numbers(text):
    """Return the numbers of a text as they are written."""
    return re.findall(r"\d[\d,]*\.?\d+|\d", text)


def claims():
    """Return per lesson the numbers it may state, as written, each computed by the code that draws the page."""
    uniform = theory.inputs("uniform", 1.0, None)
    mean_zero, square_zero = theory.moments(uniform, 1.0, 8, 0.0)
    _, square_half = theory.moments(uniform, 1.0, 8, 0.5)
    opi, qcfs = (
        next(one for one in published.PUBLISHED if (one.method, one.network) == (method, "resnet20"))
        for method in ("opi", "qcfs")
    )
    wide = next(one for one in published.PUBLISHED if (one.method, one.network) == ("opi", "vgg16"))
    clip, quantised = (catalogue.card(name) for name in ("resnet20-clip", "resnet20-qcfs"))
    vgg, tuned = (catalogue.card(name) for name in ("vgg16-clip", "vgg16-hybrid"))
    after = {T: 100 * clip["top1_after"][str(T)] for T in (8, 16, 32)}
    ratio = MAC_PJ / ADD_PJ
    images = Display().methods_images
    low, high = wilson(images // 2, images)
    return {
        "theory": {f"{abs(mean_zero):.4f}", f"{square_zero:.5f}", f"{square_half:.5f}", "12"},
        "energy": {f"{ADD_PJ:g}", f"{MAC_PJ:g}", f"{ratio:.1f}", f"{ratio:.0f}"},
        "methods": {str(images), f"{100 / images:.1f}", "50", f"{100 * (high - low) / 2:.0f}"},
        "accuracy_and_ablation": {
            f"{share:.2f}"
            for share in (
                *(opi.top1[T] for T in after),
                opi.ann,
                *after.values(),
                100 * clip["top1"],
                qcfs.top1[4],
                100 * quantised["top1_after"]["4"],
                100 * catalogue.card("resnet20-qcfs-hybrid")["top1_after"]["4"],
                *(wide.ann, wide.top1[16], 100 * vgg["top1"]),
                *(100 * vgg["top1_after"]["16"], 100 * tuned["top1_after"]["16"], 100 * tuned["top1_after"]["4"]),
            )
        },
    }


@pytest.mark.parametrize("lesson", TEXTS)
def test_every_number_of_a_lesson_is_checked(lesson):
    allowed = NAMES | claims().get(lesson, set())
    assert [number for number in numbers(TEXTS[lesson]) if number not in allowed] == []


@pytest.mark.parametrize("lesson", ["theory", "energy", "methods", "accuracy_and_ablation"])
def test_every_claim_is_made(lesson):
    assert claims()[lesson] <= set(numbers(TEXTS[lesson])), "a number changed: change the text with it"
    assert claims()[lesson]


def test_an_unchecked_number_is_found():
    assert numbers("from 0.5 to 1,234 at T = 7") == ["0.5", "1,234", "7"]


def test_what_the_theory_lesson_says_of_starts():
    uniform, half_normal = theory.inputs("uniform", 1.0, None), theory.inputs("half-normal", 1.0, None)
    assert theory.moments(uniform, 1.0, 8, 0.0)[0] == pytest.approx(-1 / 16, rel=0.01)
    assert theory.moments(uniform, 1.0, 8, 0.5)[0] == pytest.approx(0, abs=1e-4)
    assert theory.unbiased_start(uniform, 1.0, 1) == pytest.approx(0.5, abs=0.011)
    assert abs(theory.unbiased_start(half_normal, 1.0, 1) - 0.5) > 0.02
