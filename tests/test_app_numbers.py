"""Every page shows the same, to the last digit, whether others ran the same settings on more images before or not."""

from dataclasses import replace

import pytest

from explorer.study.scene import Display, Pin, Scene
from explorer.ui import cache
from tests.app_help import SMALL, open_app, settle

YOURS = replace(SMALL, T=4, images=32, v_init=0.4)
MORE = 80


def screen(at):
    """Return all that a page shows of numbers: figures, metrics, captions, tables."""
    charts = {element.key: element.proto.spec for element in at.get("plotly_chart")}
    tables = [frame.value.to_csv() for frame in at.dataframe]
    return charts, [(m.label, m.value) for m in at.metric], [c.value for c in at.caption], tables


def opened(scene, page):
    """Open a page and rerun it until all that it shows is complete."""
    at = settle(open_app(scene, page))
    while any("Not all have been looked at yet" in caption.value for caption in at.caption):
        at.run()
    return at


def others_run_more():
    """Have another visitor run all that is in the queue, and shorter and longer runs, on more images."""
    known = list(cache.runner()._runs)
    cache.runner.clear()
    runner = cache.runner()
    jobs = runner.want("other", [replace(one, images=MORE) for one in known], errors=True)
    for _ in range(600):
        runner.wait(jobs, 0.2)
        if all(job.done for job in jobs):
            break
    assert all(job.result.images == MORE and job.error is None for job in jobs) and jobs
    for one in known[:3]:
        runner.want(f"third {one.v_init}", [replace(one, images=16, T=2)])


@pytest.mark.parametrize(
    ("page", "display"),
    [
        (None, Display()),
        ("rates_and_errors", Display(squared=True)),
        ("energy", Display()),
        ("membrane_lab", Display(only_wrong=True)),
        ("accuracy_and_ablation", Display(ablation="percentile")),
        ("accuracy_and_ablation", Display(ablation="scale")),
        ("accuracy_and_ablation", Display(ablation="start")),
    ],
)
def test_what_others_computed_changes_no_number(page, display):
    scene = Scene(YOURS, display, (Pin(replace(YOURS.of_run(), rule="max")),))
    cache.runner.clear()
    alone = screen(opened(scene, page))
    others_run_more()
    at = opened(scene, page)
    among = screen(at)
    assert alone[0].keys() == among[0].keys() and alone[0]
    for key, figure in alone[0].items():
        assert figure == among[0][key], key
    assert alone[1:] == among[1:]
    if page != "membrane_lab":
        assert any("32 evaluation images" in caption for caption in among[2])
        n = 16 if page == "rates_and_errors" else 32  # errors rest on the first 16 images, and say so
        assert f"N = {n}" in "".join(among[0].values())
