"""Accuracy and ablation: how many steps are enough, and what does each setting do?"""

import streamlit as st

from explorer.limits import limits
from explorer.plots import accuracy, theme
from explorer.study import keys
from explorer.study.results import alike
from explorer.ui import frame, state, tour, widgets
from explorer.ui.components import chart
from explorer.ui.panels import comparison, ensemble, exports, grid, literature, paper

WITHIN = 0.01  # of the ANN, as a share
FURTHER = (64, 128, 256)


def ask(named, sweep):
    """Ask for the curves' runs and, if it is going, the grid's."""
    return comparison.ask(named, sweep.runs() if sweep is not None and grid.is_going(sweep) else [])


def draw(view, named, sweep):
    """Draw curves, steps needed, and the grid, as far as known."""
    jobs = ask(named, sweep)
    results = alike([job.result for job in jobs[: len(named)]])  # read once: the worker replaces them as it goes on
    display = state.display()
    comparison.keep(view.settings, named, results, log=display.log_axis)
    mine = results[0]
    ann = mine.ann_top1 if mine.images and mine.labelled else None
    marks = literature.marks(view.settings) if display.published else []
    figure = accuracy.accuracy_figure(comparison.curves_of(named, results), ann, display.log_axis, marks, 420)
    images = max(result.images for result in results)
    chart(
        theme.sample(figure, images, jobs[0].goal),
        "accuracy",
        "Accuracy against time-steps for yours, both references and pins.",
        note=view.settings.note(images) + ". Bands: 95 % Wilson intervals.",
    )
    with st.container():
        frame.assumptions(view.settings, jobs, results)
    with st.container():
        if ann is not None:
            steps_needed(named, results)
    with st.container():
        if sweep is not None:
            grid.draw(sweep)
        else:
            exports.shown().grid = None


def steps_needed(named, results):
    """Draw from which T on each run stays near the ANN; where that is not reached, offer to go on."""
    st.subheader("Steps to within 1 percentage point of the ANN")
    known = [(one, result) for one, result in zip(named, results, strict=True) if result.images]
    missed = False
    for column, (one, result) in zip(st.columns(max(len(known), 2)), known, strict=False):
        steps = accuracy.steps_to_reach(result.top1, result.ann_top1 - WITHIN)
        missed = missed or steps is None
        column.metric(
            keys.plain(one.name),
            f"T = {steps}" if steps else f"> {result.T}",
            help="First T from which accuracy stays at most 1 percentage point below the ANN's.",
        )
    further = [T for T in FURTHER if results[0].T < T <= limits().steps]
    if missed and further and "time" not in state.hidden():
        row = st.container(horizontal=True, vertical_alignment="center")
        row.caption("Go on to", width="content")
        for T in further:
            row.button(f"T = {T}", key=f"further_{T}", on_click=lambda T=T: state.change(T=T))


frame.question("How many steps are enough, and what does each setting do to the answer?")
view = frame.view()
comparison.pins()
sweep = grid.choose(view)
left, right = st.columns(2)
widgets.toggle("log_axis", at=left)
widgets.toggle("published", at=right)
named = comparison.runs(view)
frame.live(lambda: ask(named, sweep), lambda: draw(view, named, sweep))
if state.display().ablation == "ensemble":
    ensemble.draw(view.settings)
exports.buttons()
paper.draw(sweep is not None)
tour.lesson("accuracy_and_ablation")
