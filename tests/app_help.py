"""How tests drive the app without a browser: open it by a link, wait for its runs, read its charts."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from streamlit.testing.v1 import AppTest

from explorer.study import link
from explorer.study.scene import Scene
from explorer.study.settings import Settings
from explorer.ui import session

ROOT = Path(__file__).resolve().parents[1]
SMALL = Settings(images=16, T=8)


def open_app(settings: Settings | Scene = SMALL, page: str | None = None) -> AppTest:
    """Open the app at a page with these settings, or as a scene."""
    at = AppTest.from_file(str(ROOT / "explorer" / "app.py"), default_timeout=120)
    at.query_params[link.PARAMETER] = link.encode(Scene(settings) if isinstance(settings, Settings) else settings)
    if page == "theory":
        return at.switch_page(f"../pages/{page}.py").run()
    at.run()
    if page is not None:
        at.switch_page(f"../pages/{page}.py").run()
    return at


def settle(at: AppTest, seconds: float = 90) -> AppTest:
    """Rerun until no simulation is going on."""
    end = time.monotonic() + seconds
    while any(":material/sync:" in caption.value for caption in at.caption):
        assert time.monotonic() < end, [caption.value for caption in at.caption]
        time.sleep(0.1)
        at.run()
    assert not at.exception, [e.value for e in at.exception]
    return at


def held(at: AppTest) -> dict[str, Any]:
    """Return the session's entries that are no widget's."""
    return at.session_state[session.ALL]


def pull(at: AppTest, *drawers: str) -> AppTest:
    """Open drawers of the sidebar or of the page, by name."""
    for name in drawers:
        at.session_state[f"drawer_{name}"] = True
    return at.run()


def chart(at: AppTest, key: str) -> dict[str, Any]:
    """Return the figure a chart shows, as Plotly JSON. (AppTest serves no static files: charts fall back to Streamlit's.)"""  # noqa: E501
    found = [element for element in at.get("plotly_chart") if element.key == f"{key}_plain"]
    assert found, f"no chart {key!r} on this page"
    return json.loads(found[0].proto.spec)


def values(array: Any) -> np.ndarray:
    """Return a trace's numbers, also where Plotly wrote them in base64."""
    if isinstance(array, dict):
        flat = np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"])
        return flat.reshape([int(n) for n in array["shape"].split(",")]) if "shape" in array else flat
    return np.asarray(array)


def metric(at: AppTest, label: str) -> str:
    """Return the value of the metric with this label."""
    return next(m.value for m in at.metric if m.label == label)


def errors(at: AppTest) -> str:
    """Return all error messages on screen."""
    return " ".join(e.value for e in at.error)
