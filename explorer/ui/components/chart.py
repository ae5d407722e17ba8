"""A Plotly chart that is updated in place: its node, zoom and hover survive every rerun, and any trace can be clicked.

`st.plotly_chart` builds a new chart whenever the figure changes. This component hands the new figure to `Plotly.react`
instead. plotly.js comes from the installed plotly package and is copied once to the static folder Streamlit serves.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import plotly
import plotly.graph_objects as go
import streamlit as st

STATIC = Path(__file__).resolve().parents[2] / "static"
SCRIPT = f"plotly-{plotly.__version__}.min.js"


@cache
def serve_plotly() -> str | None:
    """Put plotly.js where Streamlit serves it and return its address; None if that cannot be done here."""
    if not st.get_option("server.enableStaticServing"):
        return None
    target = STATIC / SCRIPT
    source = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    try:
        if not target.exists() or target.stat().st_size != source.stat().st_size:
            STATIC.mkdir(exist_ok=True)
            partial = target.with_suffix(f".{os.getpid()}")
            shutil.copyfile(source, partial)
            partial.replace(target)
    except OSError:
        return None
    return f"app/static/{SCRIPT}"


_CSS = """
.plot { width: 100%; min-height: 120px; color: var(--st-text-color); font-family: var(--st-font); }
.plot:focus-visible { outline: 2px solid var(--st-primary-color); }
.waiting { opacity: .7; padding: 1rem; font-size: .9rem; }
"""

# The library is fetched as text and run once per browser page: a static file may be served as text/plain, which a
# <script src> refuses. Plotly puts its style sheet into the document head, which a shadow root does not see: the
# component is therefore mounted without isolation.
_JS = """
const charts = new WeakMap();

function library(url) {
  if (window.Plotly && window.Plotly.react) return Promise.resolve(window.Plotly);
  if (!window.__explorerPlotly) {
    window.__explorerPlotly = fetch(new URL(url, document.baseURI)).then(answer => {
      if (!answer.ok) throw new Error(`plotly.js: ${answer.status}`);
      return answer.text();
    }).then(text => {
      const script = document.createElement("script");
      script.textContent = text;
      document.head.appendChild(script);
      return window.Plotly;
    });
  }
  return window.__explorerPlotly;
}

function dress(layout, node) {
  const style = getComputedStyle(node);
  const text = style.getPropertyValue("--st-text-color").trim() || style.color;
  const panel = style.getPropertyValue("--st-secondary-background-color").trim() || "#fff";
  layout.font = Object.assign({}, layout.font, { color: text, family: style.fontFamily });
  layout.hoverlabel = Object.assign({ bgcolor: panel, font: { color: text } }, layout.hoverlabel);
  layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: "rgba(128,136,145,.8)", activecolor: text };
  return layout;
}

function plain(value) { return value === undefined || value === null ? null : (typeof value === "object" ? null : value); }

export default function ({ data, parentElement, setTriggerValue }) {
  const node = parentElement.querySelector(".plot");
  let state = charts.get(parentElement);
  if (!state) { state = { figure: null, text: null }; charts.set(parentElement, state); }
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", data.alt);
  node.style.height = data.height + "px";
  const mode = getComputedStyle(node).getPropertyValue("--st-text-color");
  state.send = setTriggerValue;
  if (state.text !== data.figure || state.mode !== mode) {
    state.text = data.figure; state.mode = mode;
    library(data.library).then(Plotly => {
      if (state.text !== data.figure || state.gone) return;
      const figure = JSON.parse(data.figure);
      node.querySelector(".waiting")?.remove();
      const layout = dress(figure.layout, node);
      layout.autosize = true;
      const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"],
                       toImageButtonOptions: { format: "svg", filename: data.name } };
      const drawn = state.figure ? Plotly.react(node, figure.data, layout, config)
                                 : Plotly.newPlot(node, figure.data, layout, config);
      const first = !state.figure;
      state.figure = figure;
      drawn.then(() => {
        node.dataset.painted = String(Number(node.dataset.painted || 0) + 1);
        if (first) {
          node.on("plotly_click", event => {
            const point = event.points[0];
            state.send("clicked", { x: plain(point.x), y: plain(point.y), z: plain(point.z),
              curve: point.curveNumber, custom: point.customdata === undefined ? null : point.customdata, n: Date.now() });
          });
        }
      });
    }).catch(error => { node.textContent = "The chart could not be drawn: " + error.message; });
  }
  return () => { state.gone = true; if (state.figure && window.Plotly) window.Plotly.purge(node); };
}
"""

_CHART = st.components.v2.component(
    "explorer_chart", html='<div class="plot" tabindex="0"><div class="waiting">Drawing…</div></div>\n', css=_CSS, js=_JS,
    isolate_styles=False,
)


def chart(figure: go.Figure, key: str, alt: str, on_click: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Show a figure; alt says what to see. on_click gets the clicked point (x, y, z, curve, custom) before the rerun."""
    address = serve_plotly()
    if address is None:
        st.plotly_chart(figure, key=f"{key}_plain", theme="streamlit", alt=alt)
        return
    height = int(figure.layout.height or 360)
    data = {"figure": figure.to_json(), "library": address, "alt": alt, "height": height, "name": key}

    def clicked() -> None:
        point = st.session_state[key].get("clicked")
        if point and on_click is not None:
            on_click(point)

    _CHART(key=key, data=data, height="content", on_clicked_change=clicked)
