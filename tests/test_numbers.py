"""Whatever others ask for, every number shown is that of the visitor's own first N images, as in a run from scratch."""

import zlib
from dataclasses import replace
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.engine.theory import wilson
from explorer.plots import accuracy, theme
from explorer.study.results import Result, SiteSums, alike
from explorer.study.runner import Runner
from explorer.study.settings import Settings
from explorer.ui.panels import comparison

AVAILABLE = 70
SITES = ("a", "b")
SETTINGS = [Settings(T=T, v_init=v, rule=rule) for T in (2, 5) for v in (0.0, 0.5) for rule in ("percentile", "mse")]


@cache
def whole(settings):
    """Return what a run of these settings shows on all images."""
    rng = np.random.default_rng(zlib.crc32(repr(settings).encode()))
    right = rng.random((AVAILABLE, settings.T)) < 0.7
    ann = rng.random(AVAILABLE) < 0.9
    spikes = {site: rng.integers(0, 9, AVAILABLE) for site in SITES}
    neurons, theta = dict.fromkeys(SITES, 4), dict.fromkeys(SITES, 1.0)
    return Result(settings.T, right, ann, spikes, neurons, theta, np.ones(AVAILABLE))


def scratch(settings, n):
    """Return what a run of these settings on the first n images shows, known without the queue."""
    return whole(replace(settings, images=16)).first(n)


class Script:
    """An instrument that knows all results and hands them out in pieces of any size."""

    def __init__(self, pieces):
        self.pieces = pieces

    def available(self, settings, n):
        return min(n, AVAILABLE)

    def advance(self, settings, begin, end, stop, pause):
        end = min(end, begin + next(self.pieces))
        all_ = scratch(settings, end)
        return replace(
            all_,
            right=all_.right[begin:],
            ann_right=all_.ann_right[begin:],
            spikes={site: n[begin:] for site, n in all_.spikes.items()},
            seconds=all_.seconds[begin:],
        )

    def errors(self, settings, images, stop):
        sums = SiteSums(settings.T)
        sums.n = images
        return {"a": sums}


class Still(Runner):
    def _start(self):
        pass


def figures(results):
    """Return what pages draw of these runs, as text: curves with bands, steps needed, a grid, bars, the sample."""
    shown = [comparison.as_curve(str(i), r, theme.YOURS) for i, r in enumerate(results) if r.images]
    ann = shown and results[0].images and results[0].ann_top1
    curves = theme.sample(accuracy.accuracy_figure(shown, ann or None), max(r.images for r in results))
    rows = np.array([np.pad(100 * r.top1 if r.images else np.zeros(r.T), (0, 8 - r.T)) for r in results])
    grid = accuracy.grid_figure(rows, range(8), range(len(results)), "T", "run")
    bars = accuracy.bars_figure(
        list(SITES), np.array([results[0].rate(s) if results[0].spikes else 0 for s in SITES]), ""
    )
    numbers = [(r.images, r.hits.tolist(), r.ann_hits, r.wrong, r.spikes_per_neuron, r.silent()) for r in results]
    return (
        curves.to_json(),
        grid.to_json(),
        bars.to_json(),
        repr(numbers),
        [wilson(r.hits, r.images)[0] for r in results],
    )


def same(shown, expected):
    *texts, bands = shown
    return texts == list(expected[:-1]) and all(map(np.array_equal, bands, expected[-1]))


WANTS = st.tuples(
    st.integers(0, 2), st.lists(st.sampled_from(SETTINGS), min_size=1, max_size=3), st.integers(1, 6), st.booleans()
)
STEPS = st.integers(1, 5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(WANTS, STEPS), min_size=3, max_size=14), st.lists(st.integers(1, 40), min_size=4, max_size=9))
def test_every_visitor_sees_exactly_his_first_images(actions, sizes):
    queue = Still(lambda: None)
    pieces = (sizes[i % len(sizes)] for i in range(10**9))
    instrument = Script(pieces)
    seen = {}

    def check(drawn=False):
        for jobs in seen.values():
            shown = alike([job.result for job in jobs])
            n = {r.images for r in shown if r.images}
            assert len(n) <= 1, "one chart has one N"
            expected = [
                scratch(job.run.settings, r.images) if r.images else Result.empty(r.T) for job, r in zip(jobs, shown)
            ]
            for one, other in zip(shown, expected):
                assert np.array_equal(one.right, other.right) and np.array_equal(one.ann_right, other.ann_right)
                assert all(np.array_equal(one.spikes[site], other.spikes[site]) for site in one.spikes)
            if n and drawn:
                assert same(figures(shown), figures(expected))
            for job in jobs:
                assert job.result.images <= job.images
                alone = scratch(job.run.settings, job.result.images)
                assert np.array_equal(job.result.right, alone.right)

    for action in actions:
        if isinstance(action, int):
            for _ in range(action):
                chosen = queue._next()
                if chosen:
                    queue.step(instrument, *chosen)
        else:
            visitor, several, size, errors = action
            wanted = [replace(one, images=16 * size) for one in several]
            seen[visitor] = queue.want(str(visitor), wanted, errors)
        check()
    while chosen := queue._next():
        queue.step(instrument, *chosen)
    check(drawn=True)
    for jobs in seen.values():
        assert all(job.done and job.error is None for job in jobs)
        assert {job.result.images for job in jobs} == {min(jobs[0].images, AVAILABLE)}
        assert not jobs[0].errors or jobs[0].result.error_images == 16


def test_a_shorter_run_is_the_beginning_of_a_longer_one_where_thresholds_do_not_depend_on_time():
    from explorer.study.measure import Engine

    engine = Engine()
    never = lambda: False  # noqa: E731
    for rule in ("percentile", "max"):
        long, short = (engine.advance(Settings(T=T, rule=rule, v_init=0.4), 0, 24, never, never) for T in (8, 3))
        assert np.array_equal(long.after(3).right, short.right) and short.right.any() and not short.right.all()


def test_what_is_measured_does_not_depend_on_how_it_was_cut():
    from explorer.study.measure import Engine

    engine, never = Engine(), lambda: False
    settings = Settings(T=4, start="uniform", seed=3)
    whole = engine.advance(settings, 0, 40, never, never)
    cut = Result.empty(4)
    for begin, end in ((0, 3), (3, 20), (20, 40)):
        while cut.images < end:
            cut = cut.joined(engine.advance(settings, max(begin, cut.images), end, never, never))
    n = whole.images
    assert n >= 16 and np.array_equal(cut.first(n).right, whole.right)
    assert np.array_equal(cut.first(n).ann_right, whole.ann_right)
    assert all(np.array_equal(cut.first(n).spikes[s], whole.spikes[s]) for s in whole.spikes)
