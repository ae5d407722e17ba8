"""Windows over the page: other networks, other images, and what the conversion does to the network.

Which window is open is kept in the session, so that it stays while the page behind it refines its result. What a window
chooses is applied at the top of the next run, before any widget is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from explorer.limits import NAMED, limits
from explorer.study import keys, link, uploads
from explorer.study.seen import Described, Taken
from explorer.study.settings import Settings
from explorer.ui import cache, frame, state
from explorer.ui.session import DIALOG, OWN_NETWORKS, OWN_PICTURES, PENDING

PARTS = {"average": "Take the average (EMA, SWA)", "raw": "Take the raw weights"}
MINE = {"network": OWN_NETWORKS, "source": OWN_PICTURES}


def open_dialog(name: str) -> None:
    """Open a window on the next run: 'network', 'images' or 'report'."""
    DIALOG.put(name)


def _close() -> None:
    DIALOG.put(None)


def draw() -> None:
    """Draw the window that is open, if one is."""
    match DIALOG.get():
        case "network":
            _network_dialog()
        case "images":
            _images_dialog()
        case "report":
            _report_dialog()


def mine(name: str) -> list[str]:
    """Return the keys of this visitor's uploads that are still here; name is 'network' or 'source'."""
    return [key for key in MINE[name].get() if not cache.missing(key, name)]


def with_network(name: str) -> dict[str, Any]:
    """Return what changes with the network: no layer of another one is kept, and a trained clip is used."""
    return {"network": name, "layer": "", "sites": (), "rule": cache.fitting_rule(state.current().rule, name)}


def settle() -> None:
    """Apply what a window chose; where an upload is gone, go back to what works and say so. Before the widgets."""
    pending = PENDING.get()
    PENDING.put(None)
    if pending:
        state.change(**pending)
    now, good = state.current(), state.last_good() or Settings()
    for name, default in (("network", Settings().network), ("source", Settings().source)):
        chosen, before = getattr(now, name), getattr(good, name)
        if cache.missing(chosen, name):
            state.say(cache.gone(chosen))
            found = default if cache.missing(before, name) else before
            state.change(**(with_network(found) if name == "network" else {name: found}))
    state.unpin(but=lambda pin: not (cache.missing(pin.network, "network") or cache.missing(pin.source, "source")))


def fetch() -> None:
    """Fetch a torchvision network's weights, with a bar; where they cannot be had, say so and go back to what works."""
    name = state.current().network
    if not name.startswith("torchvision:"):
        return
    from explorer.engine.errors import AssetError, ExplorerError, UnsupportedLayerError
    from explorer.zoo.architectures import convertible
    from explorer.zoo.hub import is_fetched

    try:
        if name not in convertible():
            raise UnsupportedLayerError(f"{name} does not convert. Choose one of the list under “More…”.")
        if not limits().downloads and not is_fetched(name.removeprefix("torchvision:")):
            raise AssetError(f"{name} is not on this server, and a public one fetches nothing. Choose another network.")
        _fetch(name)
    except ExplorerError as error:
        good = state.last_good()
        state.say(str(error))
        state.change(**with_network((good or Settings()).network))


def _fetch(name: str) -> Path:
    """Return where a torchvision network's weights lie, fetched if they are not there, drawing a bar."""
    from explorer.zoo.hub import fetch_torchvision

    place = st.empty()

    def on_progress(done: int, total: int) -> None:
        place.progress(
            min(done / max(total, 1), 1.0), f"Fetching {name}: {done / 2**20:.0f} of {total / 2**20:.0f} MiB"
        )

    try:
        return fetch_torchvision(name.removeprefix("torchvision:"), on_progress)
    finally:
        place.empty()


def _choose(name: str, key: str) -> None:
    """Make an upload, or any other name, the network or the image source, and close the window."""
    if keys.is_upload(key):
        MINE[name].put(list(dict.fromkeys([*MINE[name].get(), key])))
    PENDING.put(with_network(key) if name == "network" else {name: key, "image": 0})
    _close()
    st.rerun()


def _try(label: str, work: Callable[[Callable[[str], None]], Any]) -> Any:
    """Run work(tell) beside a line that says how far it is; explain a fault and return None."""
    with st.status(label) as status:
        try:
            found = work(lambda words: status.update(label=words))
        except Exception as error:
            status.update(label="This cannot be used; what was on screen before stays.", state="error")
            st.error(keys.plain(frame.words(error)), icon=":material/error:")
            status.update(expanded=True)
            return None
        status.update(label="Ready", state="complete")
        return found


@st.dialog("More networks", width="medium", icon=":material/neurology:", on_dismiss=_close)
def _network_dialog() -> None:
    with st.spinner("Looking up architectures…"):
        from explorer.zoo.architectures import architectures, convertible
    names = list(dict.fromkeys([*convertible(), *architectures()]))
    if not limits().downloads:
        _own_network(names)
        return
    own, theirs = st.tabs(["Your own weights", "From torchvision"])
    with own:
        _own_network(names)
    with theirs:
        st.caption(
            "Networks with ReLU throughout, trained on ImageNet. Their weights are fetched from torchvision's hub "
            "once; images of other classes than theirs show agreement with the ANN."
        )
        listed = [name for name in convertible() if name.startswith("torchvision:")]
        name = st.selectbox(
            "Network", listed, index=listed.index("torchvision:resnet18"), key="hub_name", persist_state="session"
        )
        asked = st.button("Fetch and use", key="hub_load", type="primary", icon=":material/cloud_download:")
        if asked and _try(f"Fetching {name}…", lambda _: _fetch(name)):
            _choose("network", name)


def _own_network(names: list[str]) -> None:
    from explorer.zoo.own import PRESETS, NetworkSource, class_list, numbers

    st.caption(
        f"A state dict, at most {uploads.NETWORK_MIB} MiB, and the architecture it belongs to. Nothing in the file is "
        "executed. Whole programs (.pt2) and Python files can hide code: use them from the command line only."
    )
    session = st.session_state
    session.setdefault("own_preset", "CIFAR-10")

    def fill() -> None:
        preset = PRESETS[session["own_preset"]]
        session["own_size"] = preset.input_size
        session["own_mean"], session["own_std"] = (", ".join(f"{x:g}" for x in v) for v in (preset.mean, preset.std))

    def guess() -> None:
        theirs = str(session["own_architecture"]).startswith("torchvision:")
        session["own_preset"] = "ImageNet" if theirs else "CIFAR-10"
        fill()

    if "own_size" not in session:
        fill()
    left, right = st.columns(2)
    architecture = left.selectbox(
        "Architecture", names, key="own_architecture", on_change=guess, help="As it was when the weights were saved."
    )
    right.selectbox("Trained on", list(PRESETS), key="own_preset", on_change=fill, help="Fills in the fields below.")
    file = st.file_uploader(
        "Weights",
        list(uploads.NETWORK_TYPES),
        key="own_file",
        max_upload_size=uploads.NETWORK_MIB,
        help=f"torch.save(model.state_dict(), path) or safetensors, at most {uploads.NETWORK_MIB} MiB.",
    )
    size, mean, std = st.columns([1, 2, 2])
    pixels = size.number_input("Input size (pixels)", 4, limits().input_size, key="own_size")
    means = mean.text_input("Mean", key="own_mean", help="Per channel, of pixels scaled to 0..1.")
    stds = std.text_input("Standard deviation", key="own_std", help="Per channel, of pixels scaled to 0..1.")
    part = st.selectbox(
        "Where the file holds an average of the weights too",
        list(PARTS),
        key="own_part",
        format_func=lambda one: PARTS[one],
        help="Accuracies are usually reported of the average. Files that hold one set of weights do not mind.",
    )
    classes = st.text_area(
        "Class names (optional)",
        key="own_classes",
        height=68,
        help="In the order of the outputs: a, b, c or a line each.",
    )
    if not st.button("Load and use", key="own_load", type="primary", disabled=file is None) or file is None:
        return
    content = file.getvalue()

    def work(tell: Callable[[str], None]) -> Taken:
        preset = PRESETS[session["own_preset"]]
        source = NetworkSource(
            str(architecture),
            input_size=int(pixels),
            mean=numbers(means, "mean"),
            std=numbers(stds, "standard deviation"),
            classes=class_list(classes) or None,
            resize=preset.resize if pixels == preset.input_size else 0,
            part=str(part),
        )
        return cache.take_network(file.name, content, source, session["own_preset"], tell)

    found = _try("Reading the file…", work)
    if found is not None and not found.key:
        st.error(
            "The weights fit, but the network cannot be converted: the calls below have no rule. What was on screen "
            "before stays.",
            icon=":material/error:",
        )
        _report(found.described)
    elif found is not None:
        if len(found.parts) > 1:
            state.say(f"{file.name} holds {' and '.join(found.parts)}; taken: {found.part}.")
        _choose("network", found.key)


@st.dialog("Images to show the networks", width="medium", icon=":material/image:", on_dismiss=_close)
def _images_dialog() -> None:
    pictures, folder = st.tabs(["Your pictures", "A folder"]) if _folders_offered() else (st.container(), None)
    with pictures:
        st.caption(
            "They are cut to the centre and scaled as the network wants them. Nothing says what they show, so the "
            "curves tell how often the spiking network agrees with the ANN."
        )
        files = st.file_uploader(
            "Pictures",
            list(uploads.PICTURE_TYPES),
            accept_multiple_files=True,
            key="own_pictures_files",
            max_upload_size=uploads.PICTURE_MIB,
            help=f"At most {uploads.PICTURES_MAX}, {uploads.PICTURE_MIB} MiB each, {uploads.PICTURES_MIB} MiB in all.",
        )
        if st.button("Use these pictures", key="own_pictures_load", type="primary", disabled=not files) and files:
            network, given = state.current().network, [(file.name, file.getvalue()) for file in files]
            key = _try("Reading the pictures…", lambda _: cache.take_pictures(given, network))
            if key:
                _choose("source", key)
    if folder is not None:
        with folder:
            _folder()


def _folders_offered() -> bool:
    return limits().free_folders or bool(limits().folders)


def _folder() -> None:
    """Draw the choice of a folder of this computer: those that the operator named, or any where it is one's own."""
    st.caption(
        "On the computer that runs this app: a folder with one folder of pictures per class (which gives "
        "accuracy), a folder of pictures, or torchvision's CIFAR-10 folder."
    )
    named = [f"{NAMED}{name}" for name in limits().folders]
    path = ""
    if named:
        path = st.selectbox("Named folder", named, index=None, key="folder_named", format_func=keys.label) or ""
    if limits().free_folders:
        path = st.text_input("Folder", key="folder_path", persist_state="session") or path
    if st.button("Use this folder", key="folder_load", type="primary", disabled=not path.strip()):
        network = state.current().network
        if _try("Reading the folder…", lambda _: cache.images(network, path)) is not None:
            link.allow_folder(path)
            _choose("source", path)


@st.dialog("What the conversion does to this network", width="large", icon=":material/lab_profile:", on_dismiss=_close)
def _report_dialog() -> None:
    name = state.current().network
    with st.spinner("Tracing the network…"):
        try:
            found = cache.describe(name)
        except Exception as error:
            st.error(keys.plain(frame.words(error)), icon=":material/error:")
            return
    st.markdown(
        f"**{keys.plain(keys.label(name))}**: input {'×'.join(map(str, found.input_shape))}, "
        f"{found.classes} classes, {found.parameters:,} parameters"
    )
    _report(found)


def _report(told: Described) -> None:
    import pandas as pd

    st.caption(told.summary)
    for problem in told.problems[:5]:
        st.error(keys.plain(problem), icon=":material/block:")
    st.dataframe(
        pd.DataFrame(told.lines, columns=list(told.head)), hide_index=True, width="stretch", key="report_table"
    )
