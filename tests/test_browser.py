"""The real app in headless Chromium: a slider moves and what it governs is repainted in place."""

import pytest

from explorer.ui import link
from explorer.ui.settings import Settings
from tests import browser_help as help

SMALL = f"?{link.PARAMETER}={link.encode(Settings(images=16, T=16))}"


@pytest.fixture(scope="module")
def address():
    with help.app_server() as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with help.chromium() as browser:
        yield browser


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    failures = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    context.close()
    assert not failures


def nudge(page, label, key="ArrowRight", times=1):
    slider = page.get_by_label(label, exact=False).locator("visible=true").first
    slider = page.locator(".stSlider").filter(has_text=label).locator("input").first
    slider.focus()
    for _ in range(times):
        slider.press(key)


def hover_and_click(page, mark):
    """Click a drawn mark as a person does: Plotly reports a click on what is hovered."""
    mark.scroll_into_view_if_needed()
    page.wait_for_timeout(500)  # the page may still shift when its last result arrives
    box = mark.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 1, y - 2)
    page.mouse.move(x, y)
    page.locator(".hoverlayer .hovertext").first.wait_for(timeout=help.WAIT)
    page.mouse.click(x, y)


def test_a_slider_repaints_trace_and_accuracy_and_keeps_the_zoom(address, page):
    help.open_page(page, address + "/" + SMALL)
    help.until_done(page)
    trace, curve = help.line(page, "Membrane"), help.line(page, "Accuracy", 1)
    css = help.chart(page, "Accuracy")
    page.evaluate(
        "css => { window.kept = document.querySelector(css); return Plotly.relayout(window.kept, {'xaxis.range': [2, 9]}) }",
        css,
    )
    nudge(page, "v_init (share", "ArrowLeft", 4)
    help.until_other(page, "Membrane", trace)
    help.until_other(page, "Accuracy", curve, 1)
    help.until_done(page)
    assert page.evaluate("css => window.kept.isConnected && window.kept === document.querySelector(css)", css)
    assert page.evaluate("window.kept.layout.xaxis.range.map(Math.round)") == [2, 9]


def test_clicking_a_layer_bar_chooses_the_layer(address, page):
    help.open_page(page, address + "/" + SMALL)
    help.until_done(page)
    trace = help.line(page, "Membrane")
    plot = page.locator(help.chart(page, "Error per layer"))
    plot.scroll_into_view_if_needed()
    hover_and_click(page, plot.locator(".barlayer .point path").nth(3))
    help.until_other(page, "Membrane", trace)
    page.get_by_text("stages.0.1.act1, 16 images").first.wait_for(timeout=help.WAIT)


def test_a_shared_link_opens_the_same_view(address, page):
    view = link.encode(Settings(images=16, T=11, v_init=0.25))
    help.open_page(page, f"{address}/?{link.PARAMETER}={view}")
    help.until_done(page)
    assert len(help.line(page, "Accuracy", 1)) == 11
    page.get_by_text("v_init 0.25").first.wait_for(timeout=help.WAIT)


def test_the_script_is_downloaded(address, page):
    help.open_page(page, address + "/" + SMALL)
    help.until_done(page)
    with page.expect_download(timeout=help.WAIT) as download:
        page.get_by_role("button", name="Export as script").click()
    text = download.value.path().read_text()
    assert "from explorer.engine import" in text and "range" not in download.value.suggested_filename


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800])
def test_pages_are_painted_in_light_and_dark(address, browser, mode, width):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=mode)
    page = context.new_page()
    for name in sorted(path.stem for path in (help.ROOT / "pages").glob("*.py")):
        url = "" if name == "explorer" else name
        help.open_page(page, f"{address}/{url}{SMALL}")
        if name != "theory":
            help.until_done(page)
        assert page.locator(".stException").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
        help.shoot(page, f"{name}-{mode}-{width}")
    context.close()
