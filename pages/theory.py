"""Theory: one neuron, no network. Why is one half of the threshold the best start?"""

import numpy as np
import streamlit as st

from explorer.engine.theory import staircase_counts
from explorer.plots import theory
from explorer.plots.membrane import DrawnMembrane, membrane_figure
from explorer.study.scene import INPUTS
from explorer.ui import frame, state, tour, widgets
from explorer.ui.components import chart

frame.question("One neuron under constant input, no network: why is one half of the threshold the best start?")
columns = st.columns(4)
for column, name in zip(columns, ("theory_theta", "theory_T", "theory_v_init", "theory_x"), strict=True):
    widgets.slider(name, at=column)
kind = widgets.radio("theory_inputs")
shown = state.display()
theta, T, v_init, x0 = shown.theory_theta, shown.theory_T, shown.theory_v_init, shown.theory_x * shown.theory_theta

layer = None
if kind == "layer":
    view = frame.view()
    name = view.settings.layer
    share = np.maximum(view.look.a[name], 0) / view.look.theta[name]
    layer = theta * share[share > 0].ravel()
    if layer.size:
        st.caption(
            f"Positive activations of {name} on image {view.settings.image}, scaled so that its threshold is θ "
            f"({layer.size} values). Zeros are left out: with v_init below 1 they never fire."
        )
    else:
        st.warning(
            f"No neuron of {name} is active on image {view.settings.image}: shown are uniform inputs instead. Choose "
            "another layer or image on the Explorer page."
        )
        kind = "uniform"
sample = theory.inputs(kind, theta, layer)
mean, square = theory.moments(sample, theta, T, v_init)
best, unbiased = theory.best_start(sample, theta, T), theory.unbiased_start(sample, theta, T)

n = int(staircase_counts(np.array(x0), theta, T, v_init))
st.latex(
    rf"n = \mathrm{{clip}}\!\left(\left\lfloor \frac{{T x}}{{\theta}} + v_\mathrm{{init}} \right\rfloor, 0, T\right)"
    rf" = \mathrm{{clip}}\!\left(\left\lfloor \frac{{{T} \cdot {x0:.3g}}}{{{theta:.3g}}} + {v_init:.2f} \right\rfloor, 0, {T}\right)"  # noqa: E501
    rf" = {n}, \qquad \hat a = \frac{{\theta n}}{{T}} = {theta * n / T:.3g}"
)
metrics = st.columns(4)
metrics[0].metric("Mean error (units)", frame.signed(round(mean, 5) + 0.0, 5))
metrics[1].metric(
    "Mean squared error (units²)",
    f"{square:.3g}",
    help=f"Uniform inputs: θ²/12T² = {theta**2 / 12 / T**2:.3g} at one half, θ²/3T² = {theta**2 / 3 / T**2:.3g} at zero.",  # noqa: E501
)
metrics[2].metric("Least squared error at v_init", f"{best:.2f}", help="Searched in steps of 0.01 between 0 and 1.")
metrics[3].metric(
    "Zero mean error at v_init", f"{unbiased:.2f}", help="Nearest to zero, searched in steps of 0.01 between 0 and 1."
)

left, right = st.columns(2)
note = f"One neuron at constant input: θ = {theta:.3g}, T = {T}, v_init = {v_init:.2f}, x = {x0:.3g}, inputs {kind}."
with left:
    chart(
        theory.staircase_figure(theta, T, v_init, x0),
        "theory_stairs",
        f"Staircase of {T} steps against the clip.",
        note=note,
    )
    chart(
        theory.error_figure(theta, T, v_init),
        "theory_error",
        f"Error against input; mean {frame.signed(mean, 4)}.",
        note=note,
    )
with right:
    before, after, fired = theory.step(x0, theta, T, v_init)
    a = float(np.clip(x0, 0, theta))
    shown = DrawnMembrane("v(t)", np.full(T, x0), before, after, fired, theta, v_init * theta, a)
    chart(
        membrane_figure([shown]).update_layout(height=340),
        "theory_membrane",
        f"Membrane of this neuron: {n} spikes.",
        note=note,
    )
    chart(
        theory.square_figure(sample, theta, T, v_init),
        "theory_square",
        f"Mean squared error against v_init; least at {best:.2f}.",
        note=note,
    )
chart(theory.density_figure(sample, theta), "theory_density", f"Distribution of inputs: {INPUTS[kind]}.", note=note)
st.caption(
    f"Assumptions: constant input in every step, T = {T}, θ = {theta:.3g}, {sample.size} evenly weighted inputs, nothing random."  # noqa: E501
)
tour.lesson("theory")
