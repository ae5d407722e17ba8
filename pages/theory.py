"""Theory: one neuron, no network. Why is one half of the threshold the best start?"""

import numpy as np
import streamlit as st

from explorer.engine.errors import ExplorerError
from explorer.engine.theory import staircase_counts
from explorer.plots import theory
from explorer.plots.membrane import DrawnMembrane, membrane_figure
from explorer.study import keys
from explorer.study.scene import INPUTS
from explorer.ui import cache, frame, state, tour, widgets
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


RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def reach_of(found):
    """Return up to which site the bounds say something, and why they say nothing behind it."""
    sites = found.sites
    wide = next((i for i, each in enumerate(sites) if each.width > 1), len(sites))
    last = sites[-1]
    if wide == len(sites):
        return f"The bounds say something at all {len(sites)} sites: nowhere are they wider than θ on average."
    head = (
        f"The bounds say something at the first {wide} of {len(sites)} sites."
        if wide
        else "The bounds say nothing at any site: the box is too large."
    )
    return (
        f"{head} From {keys.plain(sites[wide].name)} on they are wider than θ on average, and at the last site "
        f"{scientific(last.looseness)} times as wide as what {found.samples} sampled inputs reach. That is the limit "
        "of intervals and says nothing against the network: they forget that neurons move together, so each layer "
        "multiplies a width by the sum of its weights' absolute values. A smaller radius lets bounds reach deeper; a "
        "trained clip helps, because what leaves it lies between 0 and θ."
    )


def scientific(value):
    """Return a number as people write it, large ones with a power of ten."""
    if abs(value) < 10_000:
        return frame.plain_number(value)
    power = int(np.log10(abs(value)))
    return f"{value / 10**power:.1f} · 10{str(power).translate(RAISED)}".replace("-", "−")


def certainty(radius):
    """Draw what holds for every input of a box around the chosen image."""
    view = frame.view()
    settings = view.settings
    try:
        with st.spinner("Bounding every neuron…"):
            found = cache.certainty(frame.one_image(settings), 10.0**radius)
    except ExplorerError as error:
        st.error(keys.plain(str(error)), icon=":material/error:")
        return
    classes, reach = view.look.classes, f"10^{radius:g}".replace("-", "−")
    name = keys.plain(classes[found.chosen] if found.chosen < len(classes) else str(found.chosen))
    row = st.columns(3)
    row[0].metric("Class in the box", f"{name}: {'certain' if found.certain else 'not certain'}")
    row[1].metric(
        "Least lead of that class",
        scientific(found.margin),
        help="A lower bound of its score less the best other, over the whole box; above 0 the class is certain.",
    )
    wide = next((each.name for each in found.sites if each.width > 1), None)
    row[2].metric("First site whose bounds are wider than θ", keys.plain(wide or "none"))
    st.markdown(reach_of(found))
    names, box = [each.name for each in found.sites], f"pixels within {reach} of 255 levels"
    about = f"{settings.note()}. Image {settings.image}, {box}; {found.samples} sampled inputs."
    left, right = st.columns(2)
    shares = {
        "never above θ": [each.unclipped for each in found.sites],
        "never above 0": [each.silent for each in found.sites],
        "always above 0": [each.active for each in found.sites],
    }
    with left:
        chart(theory.certain_figure(names, shares), "theory_certain", f"Certain of all inputs: {box}.", note=about)
    with right:
        figure = theory.width_figure(names, [s.width for s in found.sites], [s.looseness for s in found.sites])
        chart(figure, "theory_width", "How wide the bounds are, and how loose.", note=about)
    st.caption(
        f"Interval bounds of what goes into each rectifier of the ANN, rounding included, for all inputs with {box} "
        f"around image {settings.image}. They are the mean currents that the spiking network tends to as T grows, as "
        f"long as no threshold is exceeded. {found.samples} sampled inputs, half of them corners, give a width from "
        "below."
    )


if widgets.toggle("theory_bounds"):
    st.subheader("What is certain in a box of inputs")
    widgets.slider("theory_radius")
    certainty(state.display().theory_radius)
tour.lesson("theory")
