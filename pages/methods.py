"""Methods: which conversion is best for this network at this T?"""

from dataclasses import replace

import numpy as np
import streamlit as st

from explorer.engine.methods.names import NAMES, anytime, split, title
from explorer.plots import methods, theme
from explorer.study import keys, nouns, ranking
from explorer.study.case import run_key
from explorer.ui import cache, frame, state, tour, widgets
from explorer.ui.components import chart
from explorer.ui.panels import literature, standings
from explorer.ui.session import METHOD_TOLD, WINDOWS

PLAIN = "Plain conversion of the sidebar"
CHOICE = "methods_choice"
BLOCK = 32  # images whose windows are read at a time


def choose(method):
    """Make a method the explorer's, on all pages; changes on top of another one are dropped."""
    METHOD_TOLD.put(method)
    if method != state.current().method:
        state.change(method=method, **({"scale": 1.0, "sites": ()} if method else {}))


def _look_at():
    METHOD_TOLD.put(st.session_state[CHOICE])


def draw(view, now):
    """Draw the table, the chart, what was left out, and what else was asked for."""
    jobs = standings.ask(now)
    results = standings.known(now)  # read once: the worker replaces them as it goes on
    n = ranking.sample(now.listed, now.steps, results)
    with st.container():
        standings.progress(now, results, jobs)
    if not n:
        st.caption("The first images are being simulated." if jobs else "Nothing has been measured yet.")
        return
    rows = ranking.read(now.listed, now.steps, results, now.faults, n)
    known = next(result.first(n) for result in results.values() if result.images >= n)
    shown = [row for row in rows if len(row.refused) < len(now.steps)]
    method = view.settings.method
    with st.container():
        standings.table(now, shown, method, choose)
        st.caption(f"**Highest, with its 95 % interval.** {standings.highest(now, shown)}")
        st.caption(legend(now, n, known))
    unit = "Accuracy" if known.labelled else "Agreement"
    figure = standings.figure(now, shown, method, known.ann_top1 if known.labelled else None, known.labelled)
    chart(
        theme.sample(figure, n, standings.aim(now)),
        "methods",
        f"{unit} of {len(shown)} conversions against {'latency' if state.display().methods_latency else 'time-steps'}.",
        on_click=lambda point: choose(point["custom"][0]),
        note=f"{view.settings.note(n)}. Each method as its paper has it.",
    )
    with st.container():
        standings.refused(rows)
    with st.container():
        literature.table(view.settings, rows, now.steps, n)
    if now.starts:
        starts(view, now, results, n, known.labelled)


def legend(now, n, known):
    """Return the line under the table: what it rests on, and what its marks mean."""
    what = "Top-1 accuracy" if known.labelled else "Agreement with the ANN"
    images = nouns.count(n, "image")
    ann = f"; the ANN has {100 * known.ann_top1:.1f} %" if known.labelled else ""
    source, level = keys.plain(keys.label(now.settings.source)), f"{100 * ranking.SIGNIFICANT:.0f} %"
    return (
        f"{what} in per cent on the first {images} ({source}), the same ones in all cells{ann}. "
        f"{standings.BEST} better than every other of its column; {standings.SHARED} cannot be told from the "
        f"highest, so that none is best (McNemar's exact test at {level}, adjusted for their number). On {images} "
        f"single values are uncertain by up to ±{100 * widest(n):.0f} points. Latency, bits, spikes, additions and "
        f"energy at T = {now.T}. Methods stand as their papers have them, without scales and changed layers. Click a "
        "row's box, or a point of the chart, to make a method the explorer's (once more: the plain conversion); a "
        "column's head sorts."
    )


def widest(n):
    """Return half the width of the widest 95 % interval of a share of n images."""
    low, high = ranking.wilson(n // 2, n)
    return (high - low) / 2


def starts(view, now, results, n, labelled):
    """Draw what a start at zero, its own and one half give each method."""
    st.subheader(f"Each method with v_init 0, its own and 1/2, T = {now.T}")
    triples = [ranking.read(three, [now.T], results, now.faults, n) for three in now.starts]
    known = [rows for rows in triples if all(now.T in row.points for row in rows)]
    if not known:
        st.caption("The first of these runs are still to come.")
        return
    names = [own.entry.title for _, own, _ in known]
    points = [[row.points[now.T] for row in rows] for rows in known]
    shares = np.array([[point.top1 for point in three] for three in points]).T
    chart(
        theme.sample(methods.starts_figure(names, *shares, now.T, labelled), n),
        "methods_starts",
        f"What the initial potential does to each of {len(names)} methods.",
        note=f"{view.settings.note(n)}. Each method as its paper has it, but for the start.",
    )
    listed = []
    for name, (zero, own, half) in zip(names, points, strict=True):
        gain = ranking.gain(zero, half)
        listed.append(
            {
                "method": name,
                "v_init = 0 (%)": 100 * zero.top1,
                "its own (%)": 100 * own.top1,
                "v_init = 1/2 (%)": 100 * half.top1,
                "1/2 less 0 (pp)": 100 * gain.difference,
                "its 95 % interval (pp)": f"{frame.signed(100 * gain.low, 1)} to {frame.signed(100 * gain.high, 1)}",
                "p (McNemar)": gain.p,
            }
        )
    number = st.column_config.NumberColumn
    one_digit = {title: number(format="%.1f") for title in listed[0] if title.endswith("(%)") or "less" in title}
    st.dataframe(
        listed,
        hide_index=True,
        width="stretch",
        key="methods_starts_table",
        column_config=one_digit | {"p (McNemar)": number(format="%.4f", help="Exact, not adjusted for their number.")},
    )
    waiting = [rows[1].entry.title for rows in triples if rows not in known and not any(row.refused for row in rows)]
    told = f" Still to come: {', '.join(waiting)}." if waiting else ""
    left_out = [rows[1].entry.title for rows in triples if any(row.refused for row in rows)]
    told += f" Without a start of their own, or refused: {', '.join(left_out)}." if left_out else ""
    st.caption(f"The first {nouns.count(n, 'image')}, the same ones everywhere; interval: bootstrap over images.{told}")


def story(view):
    """Draw what a method is, its own words and formula, and the buttons that make it the explorer's."""
    method = view.settings.method
    listed = ["", *NAMES, *([method] if method not in ("", *NAMES) else [])]
    shown = METHOD_TOLD.get()
    st.session_state[CHOICE] = shown if shown in listed else method
    row = st.container(horizontal=True, vertical_alignment="bottom")
    key = row.selectbox("Method", listed, format_func=named, key=CHOICE, on_change=_look_at)
    row.button(
        "Use it on all pages",
        key="methods_use",
        icon=":material/check:",
        type="primary",
        disabled=key == method,
        on_click=choose,
        args=(key,),
    )
    row.button(
        "Back to the plain conversion",
        key="methods_back",
        icon=":material/undo:",
        disabled=not method,
        on_click=choose,
        args=("",),
    )
    if not key:
        st.caption("Thresholds, initial potential and neuron as the sidebar has them, by no paper's method.")
        return
    kind, (name, told) = cache.told(split(key)[0]), split(key)
    st.markdown(f"**{kind.title}** ({kind.citation}){' · in force on all pages' if key == method else ''}")
    st.latex(kind.equation)
    st.markdown(kind.about)
    when = "the same conversion for every T" if anytime(key) else "fitted for one T"
    st.caption(f"v(0) / θ of its own: {NAMES[name].own_start} · {when}")
    fields = [
        {"field": one.name, "value": told.get(one.name, str(one.default)), "what it is": one.help}
        for one in kind.options
    ]
    st.dataframe(fields, hide_index=True, width="stretch", key="methods_fields")


def named(method):
    """Return how a method is listed."""
    return title(method) if method else PLAIN


def windows(view, now):
    """Draw accuracy over every read-out window for the explorer's present conversion, if that was asked for."""
    st.subheader("Accuracy over every read-out window")
    if not widgets.toggle("methods_windows"):
        return
    from explorer.engine.errors import ExplorerError

    base = run_key(view.settings)
    try:
        with st.spinner("Reading every window…"):
            goal = standings.aim(now)
            found = more_windows(replace(base, images=goal))
    except ExplorerError as error:
        st.caption(keys.plain(str(error)))
        return
    refining, first = found.images < goal, [found]

    def part():
        now = first.pop() if first else more_windows(replace(base, images=goal))
        draw_windows(view, now, goal)
        if refining and now.images >= goal:
            st.rerun()

    st.fragment(part, run_every=frame.PACE if refining else None)()


def more_windows(settings):
    """Return the windows on the images read so far and some more, up to settings.images: the page waits for no more."""
    before = WINDOWS.get()
    found = before[1] if before is not None and before[0] == settings else None
    begin = 0 if found is None else found.images
    if begin < settings.images:
        part = cache.windows(replace(settings, images=16), begin, min(settings.images, begin + BLOCK))
        found = part if found is None else found.joined(part)
        WINDOWS.put((settings, found))
    return found


def draw_windows(view, found, goal):
    """Draw the heat map of windows, and say which are the method's own and the best."""
    settings = view.settings
    T, shares, images = settings.T, found.hits / found.images, nouns.count(found.images, "image")
    i, j = np.unravel_index(int(shares.argmax()), shares.shape)
    own, best = shares[found.begin, T - 1], shares[i, j]
    figure = methods.windows_figure(found.hits, found.images, found.begin, found.labelled)
    chart(
        theme.sample(figure, found.images, goal),
        "methods_windows",
        f"Accuracy over every read-out window; the best reads steps {i + 1} to {j + 1}.",
        note=view.settings.note(found.images),
    )
    ann = f", the ANN {100 * found.ann_hits / found.images:.1f} %" if found.labelled else ""
    st.caption(
        f"{keys.plain(view.settings.describe())}, T = {T}, {images}: scores are the mean current over the "
        f"steps i + 1 to j alone. Its own window, steps {found.begin + 1} to {T}: {100 * own:.1f} %{ann}. The best, "
        f"steps {i + 1} to {j + 1}: {100 * best:.1f} %, chosen on these same images, so it flatters. Where no spike "
        "has reached the last layer yet, the biases alone answer."
    )


frame.question("Which conversion is best for this network at this T?")
view = frame.view()
left, middle, right = st.columns(3, vertical_alignment="bottom")
widgets.number("methods_images", at=left)
widgets.toggle("methods_latency", at=middle)
widgets.toggle("methods_starts", at=right)
now = standings.present(view.settings)
frame.live(lambda: standings.ask(now), lambda: draw(view, now))
with st.container():
    st.subheader("What a method is")
    story(view)
with st.container():
    windows(view, now)
tour.lesson("methods")
