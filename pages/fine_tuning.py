"""Fine-tuning: how much does a little training of weights and thresholds win back, and is it worth it?"""

from collections.abc import Callable

import numpy as np
import streamlit as st

from explorer.engine.theory import wilson
from explorer.plots import tuning as figures
from explorer.study import keys
from explorer.study.tuning import IMAGES, RATES, UPDATES_MAX, Wanted
from explorer.ui import cache, dialogs, frame, state
from explorer.ui.components import chart
from explorer.ui.session import OWN_NETWORKS, TUNED

METHODS = {"hybrid": "Through time", "dsr": "Through means (DSR)", "tandem": "Layer by layer"}
ABOUT = {
    "hybrid": "Spikes forward; backward through every time-step, a smooth step in place of the spike's jump (surrogate "
    "gradients, Neftci et al. 2019, from a converted network as in Rathi et al. 2020). It sees in which order spikes "
    "arrive, which means do not, and costs T passes back.",
    "dsr": "Spikes forward; backward through the mean over time, as through a clip, so that gradients cost one pass of "
    "the ANN's size whatever T is (Meng et al. 2022). Weights and thresholds of all layers are trained.",
    "tandem": "One layer after the other turns to spikes and is left alone from then on; its counts feed the rest, "
    "which goes on training as an ANN with clips, until the loss on the held-back images stalls (Wu et al. 2020).",
}


def controls(settings) -> Wanted:
    """Draw the choices and return them."""
    method = st.segmented_control(
        "Method",
        list(METHODS),
        format_func=METHODS.get,
        default="hybrid",
        key="tuning_method",
        persist_state="session",
        required=True,
        help="All start from the network calibrated for this T, with one threshold a channel and no shifts in time.",
    )
    left, middle, right = st.columns(3)
    images = left.select_slider(
        "Images",
        IMAGES,
        value=256,
        key="tuning_images",
        persist_state="session",
        help="Calibration images of the chosen source. A quarter of them is held back; evaluation images are never "
        "looked at.",
    )
    updates = middle.number_input(
        "Updates",
        10,
        UPDATES_MAX,
        200,
        10,
        key="tuning_updates",
        persist_state="session",
        help="Steps of Adam. The learning rate rises over the first tenth of them and falls to zero at the last.",
    )
    batch = middle.select_slider(
        "Images in a batch", (8, 16, 32, 64), value=16, key="tuning_batch", persist_state="session"
    )
    rate = right.select_slider(
        "Learning rate",
        RATES,
        value=2e-4,
        key="tuning_rate",
        persist_state="session",
        format_func=lambda rate: f"{rate:g}",
        help="The largest one. Too high, and the start is lost before anything is learned.",
    )
    moved = right.toggle(
        "Shift and mirror the images",
        value=True,
        key="tuning_moved",
        persist_state="session",
        help="Every epoch sees them a little otherwise. Switch it off where left and right mean something.",
    )
    st.caption(f"{ABOUT[method or 'hybrid']} Trained for T = {settings.T} time-steps, the sidebar's.")
    return Wanted(
        settings.network, settings.source, method or "hybrid", settings.T, int(updates), int(batch), rate, images, moved
    )


def keep(pin: bool) -> None:
    """Take the best state so far as a network of the visitor's own, choose it, and pin its run if asked."""
    owner, shop = frame.owner(), cache.workshop()
    try:
        job, made = shop.job(owner), shop.finish(owner)
        if job is None or made is None:
            return
        key = cache.take_network(made.name, made.content, made.source, "CIFAR-10", lambda _: None).key
    except Exception as error:
        state.say(frame.words(error))
        return
    OWN_NETWORKS.put(list(dict.fromkeys([*OWN_NETWORKS.get(), key])))
    TUNED.put((key, made.name, made.content, made.architecture))
    state.change(**dialogs.with_network(key) | {"rule": "clip", "method": "", "law": "integrate_and_fire"})
    state.change(T=job.wanted.T, start="constant", v_init=0.5, scale=1.0)
    if pin:
        state.pin()
    state.say(
        f"{keys.label(key)} is the network now, its thresholds the trained ones, v_init 1/2. All pages show it; the "
        "sidebar lists it beside the others."
    )


def buttons(job, wanted: Wanted, fits: bool) -> None:
    """Draw what can be done now."""
    owner, shop = frame.owner(), cache.workshop()
    row = st.container(horizontal=True)

    def button(label: str, key: str, icon: str, act: Callable[[], object], disabled: bool = False, **how) -> None:
        row.button(label, key=f"tuning_{key}", icon=icon, on_click=act, disabled=disabled, **how)

    active, opened = job is not None and job.active, job is not None and job.opened is not None
    standing = job is not None and job.status == "stopped"
    if active:
        button("Stop", "stop", ":material/stop:", lambda: shop.stop(owner), type="primary")
    else:
        label = "Start" if job is None else "Start anew"
        button(label, "start", ":material/play_arrow:", lambda: shop.start(owner, wanted), not fits, type="primary")
    button("Go on", "go_on", ":material/resume:", lambda: shop.go_on(owner), not standing)
    told = "The best state on the held-back images so far becomes a network of your own, as if you had uploaded it."
    button("Keep", "keep", ":material/save:", lambda: keep(False), not opened, help=told)
    button("Keep and pin", "pin", ":material/keep:", lambda: keep(True), not opened, help=f"{told} Its run is pinned.")
    button("Discard", "discard", ":material/delete:", lambda: shop.discard(owner), job is None)


def draw_job(job) -> None:
    """Draw how far it is, its numbers and its figures."""
    w = job.wanted
    where = f"{keys.plain(keys.label(w.network))}, {METHODS[w.method]}, T = {w.T}, learning rate {w.rate:g}"
    if job.status == "failed":
        st.error(keys.plain(job.error), icon=":material/error:")
    if job.opened is None:
        if job.active:
            done, layers = job.layers
            st.progress(done / layers if layers else 0.0, f"Calibrating the start: {done} of {layers or '?'} layers")
            st.caption(f":material/hourglass_top: {where}")
        elif job.status == "stopped":
            st.caption(f"Stopped before the first update ({where}).")
        return
    o = job.opened
    status = {
        "waiting": ":material/hourglass_top: waiting",
        "running": ":material/model_training: training",
        "stopped": ":material/pause: stopped",
        "done": ":material/check: done",
        "failed": ":material/error: failed",
    }[job.status]
    left = f" · about {job.left:.0f} s of training left" if job.active and job.left else ""
    st.progress(
        min(job.update / w.updates, 1.0),
        f"{status} · {job.update} of {w.updates} updates{left}",
    )
    labels = "with labels" if o.labelled else "without labels"
    st.caption(f"{where} · {o.trained} images to train on, {labels} · {o.held} held back")
    at, best = job.best
    what = "Top-1" if o.labelled else "Agreement with the ANN"
    columns = st.columns(4)
    low, high = wilson(round(best * o.held), o.held)
    columns[0].metric(f"{what} at the start", f"{100 * o.accuracy:.1f} %", help="Calibrated for T, before any update.")
    columns[1].metric(
        f"{what}, best so far",
        f"{100 * best:.1f} %",
        f"{100 * (best - o.accuracy):+.1f} points" if at else "no gain yet",
        delta_color="normal" if at else "off",
        help=f"After update {at}; on {o.held} held-back images, 95 % interval {100 * low:.1f} to {100 * high:.1f} %. "
        "The best of several looks flatters: judge by the evaluation images once it is kept.",
    )
    columns[2].metric(
        "ANN on the same images",
        f"{100 * o.ann:.1f} %",
        help="Calibration images are often among those that the ANN was trained on, and then it knows them: all "
        "numbers here are higher than on new images. Compare them with one another; judge by the evaluation images.",
    )
    columns[3].metric("Layers that spike", f"{job.progress[-1].spiking if job.progress else '-'} of {len(o.sites)}")
    if job.status == "done" and at == 0:
        st.warning(
            f"Accuracy on the {o.held} held-back images did not rise: training won nothing. What would be kept is the "
            "calibrated start. More images, more updates or another learning rate may help; the full training set, on "
            "the command line, helps more.",
            icon=":material/trending_flat:",
        )
    looks = [(0, o.loss, o.accuracy), *((each.update, each.loss, each.accuracy) for each in job.looks)]
    bands = [wilson(round(share * o.held), o.held) for _, _, share in looks]
    note = f"{where}; {o.held} held-back images"
    one, two = st.columns(2)
    with one:
        figure = figures.accuracy_figure(
            [(a, c) for a, _, c in looks],
            (np.array([b[0] for b in bands]), np.array([b[1] for b in bands])),
            o.ann,
            w.updates,
            o.labelled,
        )
        chart(figure, "tuning_accuracy", "Accuracy on the held-back images, update by update.", note=note)
        losses = [each.loss for each in job.progress]
        figure = figures.loss_figure(losses, [(a, b) for a, b, _ in looks], w.updates)
        chart(figure, "tuning_loss", "Loss of training batches and of the held-back images.", note=note)
    with two:
        theta = job.progress[-1].theta if job.progress else o.theta
        chart(
            figures.threshold_figure(theta, o.theta),
            "tuning_thresholds",
            "How far each layer's mean threshold has moved.",
            note=note,
        )


def download() -> None:
    """Offer the network kept last as a file."""
    if TUNED.get() is None:
        return
    key, name, content, architecture = TUNED.get()
    st.download_button(
        f"Download {keys.plain(name)}",
        content,
        file_name=name,
        mime="application/octet-stream",
        key="tuning_download",
        icon=":material/download:",
        on_click="ignore",
        help=f"Kept as {keys.label(key)}. To use it again: “More…” under the network, architecture {architecture}.",
    )


frame.question("How much accuracy at few time-steps does a little training win back, and what does it cost?")
settings = state.current()
try:
    with st.spinner("Loading the network…"):
        fits = cache.tunable(settings.network)
except Exception as error:
    st.error(keys.plain(frame.words(error)), icon=":material/error:")
    st.stop()
wanted = controls(settings)
trouble = ""
if not fits:
    trouble = (
        "Fine-tuned thresholds need a place in the network's file, and this architecture has none. Choose a network of "
        "the ResNet-20 or VGG-16 kind: a shipped one, or your own weights for one of them."
    )
elif settings.T < 2:
    trouble = "With one time-step there is no mean over time to train through. Choose T = 2 or more in the sidebar."
if trouble:
    st.info(trouble, icon=":material/info:")
job = cache.workshop().job(frame.owner())
buttons(job, wanted, not trouble)
download()
if job is None:
    passes = "3 T + 1" if wanted.method == "hybrid" else "T + 3"  # back counts two; one is the teacher's
    st.caption(
        "Nothing is trained yet. The start is calibrated first, which takes some seconds; then every update takes "
        f"about as long as {passes} passes of a batch through the ANN. Simulations of all visitors come first."
    )
else:
    status = job.status

    def body() -> None:
        """Draw the fine-tuning; the whole page follows when its state changes."""
        now = cache.workshop().job(frame.owner())
        if now is not job or now.status != status:
            st.rerun()
        draw_job(now)

    st.fragment(body, run_every=1.0 if job.active else None)()
