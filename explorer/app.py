"""The ANN-to-SNN conversion explorer: `streamlit run explorer/app.py`.

Puts the repository's root on the path, draws what all pages share (navigation, sidebar), then runs the chosen page.
Nothing heavy is imported here, so that the page's frame appears at once.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads sleep, or visitors stall each other
ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from explorer import limits  # noqa: E402

limits.announce(st.get_option("server.address"))  # before anything is imported that asks for them
from explorer.ui import cache, dialogs, frame, journal, sidebar, state, warm  # noqa: E402
from explorer.ui.components import address  # noqa: E402
from explorer.ui.session import PAGES as PAGES_ENTRY  # noqa: E402

st.set_page_config(page_title="ANN to SNN explorer", page_icon=str(ROOT / "assets" / "icon.svg"), layout="wide")

PAGES = {
    "explorer": (
        "Explorer",
        ":material/travel_explore:",
        "The whole story on one screen: thresholds, potentials, accuracy.",
    ),
    "membrane_lab": ("Membrane lab", ":material/ssid_chart:", "One neuron at a time: click a feature map, play time."),
    "rates_and_errors": (
        "Rates and errors",
        ":material/grid_on:",
        "Where the conversion error comes from, by layer and cause.",
    ),
    "accuracy_and_ablation": (
        "Accuracy and ablation",
        ":material/show_chart:",
        "How many steps are enough, and what each setting does.",
    ),
    "methods": (
        "Methods",
        ":material/leaderboard:",
        "The literature's conversions side by side: which is best at this T?",
    ),
    "theory": ("Theory", ":material/stairs:", "One neuron, no network: why one half is the best start."),
    "fine_tuning": (
        "Fine-tuning",
        ":material/model_training:",
        "What a little training of weights and thresholds wins back, live.",
    ),
    "energy": ("Energy and sparsity", ":material/bolt:", "Spikes, additions and what they might cost."),
}

journal.begin(cache.runner().load, cache.executor().memory_mib)
with frame.drawing():
    frame.require_place()
    state.begin()
    dialogs.settle()
    dialogs.fetch()
    warm.begin(state.current())
    pages = {
        name: st.Page(
            ROOT / "pages" / f"{name}.py",
            title=title,
            icon=icon,
            help=help,
            default=name == "explorer",
            url_path=None if name == "explorer" else name,
        )
        for name, (title, icon, help) in PAGES.items()
        if (ROOT / "pages" / f"{name}.py").exists()
    }
    PAGES_ENTRY.put(pages)
    page = st.navigation(list(pages.values()))
    name = next(name for name, one in pages.items() if one.url_path == page.url_path)
    frame.top(page.title)
    state.remember()
    with st.sidebar:
        sidebar.draw(name)
    dialogs.draw()
    page.run()
    with st.sidebar:
        address(page.title)
