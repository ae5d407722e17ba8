"""What papers report beside what is measured here: marks in the accuracy chart, a table, a link for each figure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache as once

import streamlit as st

from explorer.engine.methods.names import NAMES
from explorer.plots.accuracy import Marks
from explorer.study import keys, link, published
from explorer.study.ranking import Row
from explorer.study.settings import Settings
from explorer.ui import cache
from explorer.ui.panels import standings

UNCHECKED = " (from memory, unchecked)"
REMEMBERED = "\\*"  # the same where there is little room


def dataset(settings: Settings) -> str:
    """Return which known test set the images are, for a network of a family with published figures; else ""."""
    known = published.family(settings.network)
    return cache.dataset(settings.source) if known and settings.source != Settings().source else known and "CIFAR-10"


def marks(settings: Settings) -> list[Marks]:
    """Return the published figures for networks of this family, and ours on all test images, as marks of a chart."""
    found = []
    for one in published.beside(settings.network, dataset(settings)):
        notes = tuple("" if one.is_checked(T) else UNCHECKED for T in one.top1)
        remembered = [str(T) for T in one.top1 if not one.is_checked(T)]
        at = "" if len(remembered) == len(one.top1) else f" at T = {', '.join(remembered)}"
        told = f", from memory{at}" if remembered else ""
        found.append(Marks(published.named(one) + told, tuple(one.top1), tuple(one.top1.values()), notes=notes))
    for own in published.ours(settings.network, dataset(settings)):
        low, high = zip(*(own.interval(T) for T in own.top1), strict=True)
        how = "fine-tuned on spikes" if own.tuned else NAMES[own.method].title
        name = f"{own.network} here, {how}, {own.images:,} images (ANN {own.ann:.2f})"
        found.append(Marks(name, tuple(own.top1), tuple(own.top1.values()), low, high))
    return found


def table(settings: Settings, rows: Sequence[Row], steps: Sequence[int], n: int) -> None:
    """Draw the published figures beside ours: on the first n test images, and on all of them where that is known."""
    told = published.beside(settings.network, dataset(settings))
    if not told:
        return
    cards = [own for own in published.ours(settings.network, dataset(settings)) if not own.tuned]
    known = {(own.method, T): own for own in cards for T in own.top1}
    with st.expander("Published figures beside ours", icon=":material/menu_book:", key="methods_published"):
        listed = []
        for one in told:
            row = next(row for row in rows if row.entry.method == one.method and not row.entry.yours)
            for T, figure in one.top1.items():
                point, own = row.points.get(T), known.get((one.method, T))
                if T in row.refused:
                    ours = "does not apply to this network"
                elif T not in steps:
                    ours = f"not measured: T = {steps[-1]} is in force"
                else:
                    ours = "" if point is None else standings.interval(point, " to ")
                listed.append(
                    {
                        "method": NAMES[one.method].title,
                        "T": T,
                        "published (%)": f"{figure:.2f}" + ("" if one.is_checked(T) else UNCHECKED),
                        "their ANN (%)": one.ann,
                        "ours (%)": None if point is None else 100 * point.top1,
                        "ours, 95 % interval": ours,
                        "ours, all test images": "" if own is None else _whole(own, T),
                        "paper": one.paper + (f": {one.note}" if one.note else ""),
                    }
                )
        number = st.column_config.NumberColumn
        st.dataframe(
            listed,
            hide_index=True,
            width="stretch",
            placeholder="–",
            column_config={"their ANN (%)": number(format="%.2f"), "ours (%)": number(format="%.1f")},
        )
        st.caption(
            "Theirs: CIFAR-10, all 10,000 test images, networks of the same family trained with their own recipes. "
            f"Ours: {keys.plain(keys.label(settings.network))} on the first {n:,} test images, in the set's order"
            f"{', which are all of them' if n == 10_000 else ''}. All test images: from the cards of our networks of "
            "this family, measured once, when they were trained, with v_init = 1/2 and trained thresholds."
        )


def _whole(own: published.Ours, T: int) -> str:
    low, high = own.interval(T)
    return f"{own.top1[T]:.2f} ({low:.2f} to {high:.2f}), {own.network}, ANN {own.ann:.2f}"


def links(root: str, settings: Settings) -> None:
    """Draw a link for each published figure, which opens network, method and T alone; root: the app's address."""
    source = settings.source if cache.dataset(settings.source) else Settings().source
    st.markdown("**Reproduce the paper**")
    st.caption(
        "Each link opens one published figure's setting in a new tab: our network of that family, the method, that T. "
        "The chart has the paper's figure as a mark. "
        f"{REMEMBERED} from memory, not checked in print."
    )
    st.markdown(_links(root, source, settings.device))


@once
def _links(root: str, source: str, device: str) -> str:
    lines, page = [], f"{root}accuracy_and_ablation?{link.PARAMETER}="
    for one in published.PUBLISHED:
        scenes = {T: published.reproduction(one, T, source, device) for T in one.top1}
        opened = [
            f"[T\u00a0=\u00a0{T}: {one.top1[T]:.2f}\u00a0%]({page}{link.encode(scene)})"
            + ("" if one.is_checked(T) else REMEMBERED)
            for T, scene in scenes.items()
            if scene is not None
        ]
        told = " · ".join(opened) or f"no {published.CALLED[one.network]} trained this way is shipped"
        lines.append(f"* :small[{published.named(one)}, {NAMES[one.method].title}: {told}]")
    return "\n".join(lines)
