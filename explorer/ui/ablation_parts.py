"""The parts of the ablation page: which runs an ablation needs, and how their results are drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import streamlit as st

from explorer.plots import accuracy, theme
from explorer.study import keys
from explorer.study.results import Result, alike
from explorer.study.runner import Job
from explorer.study.scene import ABLATIONS
from explorer.study.settings import Settings
from explorer.ui import cache, explorer_parts, frame, state, widgets
from explorer.ui.components import chart

V_INITS = [round(0.1 * i, 1) for i in range(11)]
PERCENTILES = [95.0, 97.0, 98.0, 99.0, 99.5, 99.9, 100.0]


@dataclass(frozen=True, eq=False)
class Plan:
    """The runs of one ablation around base: their settings and the value or name each stands for."""

    kind: str
    base: Settings
    settings: list[Settings]
    values: list


def plan(kind: str, base: Settings, layers: list[str]) -> Plan | None:
    """Return the runs of an ablation around these settings."""
    plain = replace(base, start="constant", sites=())
    match kind:
        case "v_init":
            return Plan(kind, base, [replace(plain, v_init=v) for v in V_INITS], V_INITS)
        case "start":
            kinds = {
                "zero": replace(plain, v_init=0.0),
                "half": replace(plain, v_init=0.5),
                "uniform in [0, 1)": replace(plain, start="uniform", v_init=0.5, spread=0.5),
                "Gaussian 0.5 ± 0.2": replace(plain, start="gaussian", v_init=0.5, spread=0.2),
            }
            return Plan(kind, base, list(kinds.values()), list(kinds))
        case "percentile":
            return Plan(kind, base, [replace(base, rule="percentile", p=p) for p in PERCENTILES], PERCENTILES)
        case "scale":
            return Plan(
                kind,
                base,
                [base, *(base.with_site(n, 0.8 * (base.site(n)[0] or base.scale), base.site(n)[1]) for n in layers)],
                ["as it is", *layers],
            )
        case "potential":
            return Plan(
                kind, base, [base, *(base.with_site(n, base.site(n)[0], 0.0) for n in layers)], ["as it is", *layers]
            )
    return None


def choose(view: frame.View) -> Plan | None:
    """Draw the choice of an ablation; return its runs."""
    row = st.container(horizontal=True)
    row.button("Pin this run", key="pin", icon=":material/keep:", on_click=state.pin)
    row.button("Forget pins", key="unpin", disabled=not state.pins(), on_click=state.unpin)
    kind = widgets.segments("ablation")
    left, right = st.columns(2)
    widgets.toggle("log_axis", at=left)
    widgets.toggle("published", at=right)
    return plan(kind or "none", view.settings.look(), list(view.look.shapes))


def ask(runs: explorer_parts.Runs, chosen: Plan | None) -> list[Job]:
    """Ask for the curves' runs and the ablation's."""
    return cache.runner().want(frame.owner(), [*runs.wanted, *(chosen.settings if chosen else [])])


def draw(view: frame.View, runs: explorer_parts.Runs, chosen: Plan | None) -> None:
    """Draw curves, steps needed, and the ablation, as far as known."""
    jobs = ask(runs, chosen)
    every = [job.result for job in jobs]  # read once: the worker replaces them as it goes on
    results, varied = alike(every[: len(runs.wanted)]), alike(every[len(runs.wanted) :])
    more = [(one.describe(), one, result) for one, result in zip(chosen.settings if chosen else [], varied)]
    explorer_parts.keep(view.settings, runs, results, more)
    known = [(name, result) for name, result in zip(runs.names, results) if result.images]
    display = state.display()
    shown = [explorer_parts.as_curve(name, result) for name, result in known]
    ann = known[0][1].ann_top1 if known and known[0][1].labelled else None
    figure = accuracy.accuracy_figure(
        shown, ann, display.log_axis, accuracy.PUBLISHED if display.published else None, 420
    )
    images = known[0][1].images if known else 0
    theme.sample(figure, images, jobs[0].goal)
    chart(
        figure,
        "accuracy",
        "Accuracy against time-steps for yours, both references and pins.",
        note=view.settings.note(images) + ". Bands: 95 % Wilson intervals.",
    )
    frame.assumptions(view.settings, jobs, results)
    if ann is not None:
        st.subheader("Steps to within 1 percentage point of the ANN")
        for column, (name, result) in zip(st.columns(max(len(known), 2)), known, strict=False):
            steps = accuracy.steps_to_reach(result.top1, result.ann_top1 - 0.01)
            column.metric(
                name,
                f"T = {steps}" if steps else f"more than {result.T}",
                help="First T from which accuracy stays at most 1 percentage point below the ANN's.",
            )
    if chosen is not None:
        _ablation(chosen, varied, jobs[-1].goal)


def _ablation(chosen: Plan, results: list[Result], goal: int) -> None:
    done = max(result.images for result in results)
    st.subheader(ABLATIONS[chosen.kind])
    T = chosen.base.T
    if chosen.kind in ("v_init", "percentile"):
        grid = np.array([100 * r.top1 if r.images else np.full(T, np.nan) for r in results])
        title = "v_init (share of θ)" if chosen.kind == "v_init" else "percentile (%)"
        labelled = all(r.labelled for r in results if r.images)
        unit = theme.ACCURACY if labelled else theme.AGREEMENT
        figure = accuracy.grid_figure(
            grid, range(1, T + 1), [f"{v:g}" for v in chosen.values], "time-steps T", title, unit
        )
        alt = f"Heat map of accuracy: {title} by T; the best of each T is marked."
    elif chosen.kind == "start":
        curves = [explorer_parts.as_curve(name, r) for name, r in zip(chosen.values, results) if r.images]
        figure, alt = accuracy.accuracy_figure(curves, None), "Accuracy against T for four kinds of initial potential."
    else:
        base = results[0]
        change = np.array([100 * (r.top1[-1] - base.top1[-1]) if r.images and done else np.nan for r in results[1:]])
        what = "threshold × 0.8" if chosen.kind == "scale" else "v_init = 0 in this layer only"
        figure = accuracy.bars_figure(
            chosen.values[1:], change, f"change of accuracy at T = {T} (percentage points), {what}"
        )
        alt = "Change of accuracy when one layer is changed."
    theme.sample(figure, done, goal)
    chart(figure, f"ablation_{chosen.kind}", alt, note=f"{ABLATIONS[chosen.kind]} around {chosen.base.note(done)}")
    source = keys.plain(keys.label(chosen.base.source))
    st.caption(
        f"{frame.count(done, 'image')} each, the same ones for all runs (the first of {source}), T up to {T}, "
        f"{_seed(chosen)}; around {keys.plain(chosen.base.describe())}."
    )


def _seed(chosen: Plan) -> str:
    seeds = {one.seed for one in chosen.settings if one.start != "constant"}
    return f"seed {', '.join(map(str, sorted(seeds)))}" if seeds else "nothing random"
