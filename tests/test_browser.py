"""The real app in headless Chromium: a slider moves and what it governs is repainted in place."""

import pytest
from playwright.sync_api import expect

from explorer.study import link
from explorer.study.scene import Scene
from explorer.study.settings import Settings
from tests import browser_help as help

SMALL = f"?{link.PARAMETER}={link.encode(Scene(Settings(images=16, T=16)))}"


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
    help.until_still(page, mark)
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
        "css => { window.kept = document.querySelector(css); return Plotly.relayout(window.kept, {'xaxis.range': [2, 9]}) }",  # noqa: E501
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
    view = link.encode(Scene(Settings(images=16, T=11, v_init=0.25)))
    help.open_page(page, f"{address}/?{link.PARAMETER}={view}")
    help.until_done(page)
    assert len(help.line(page, "Accuracy", 1)) == 11
    page.get_by_text("v_init 0.25").first.wait_for(timeout=help.WAIT)


def test_every_chart_is_drawn_while_results_come_in(address, page):
    for T in range(20, 23):
        help.open_page(page, f"{address}/?{link.PARAMETER}={link.encode(Scene(Settings(images=16, T=T)))}")
        help.until_done(page)
        page.wait_for_function(
            "Array.from(document.querySelectorAll('.plot')).every(plot => plot._fullData && plot.dataset.painted)",
            timeout=help.WAIT,
        )


def test_the_script_is_downloaded(address, page):
    help.open_page(page, address + "/" + SMALL)
    help.until_done(page)
    with page.expect_download(timeout=help.WAIT) as download:
        page.get_by_role("button", name="Export as script").click()
    text = download.value.path().read_text()
    assert "from explorer.engine import" in text and "range" not in download.value.suggested_filename


def exported(page, css, kind):
    """Press a chart's export button; return the file's name and bytes."""
    plot = page.locator(css)
    plot.scroll_into_view_if_needed()
    plot.hover()
    with page.expect_download(timeout=help.WAIT) as download:
        plot.locator(f'.modebar-btn[data-title*="(key {kind})"]').click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def test_a_figure_is_exported_as_image_drawing_and_web_page(address, page, tmp_path):
    help.open_page(page, address + "/" + SMALL)
    help.until_done(page)
    css = help.chart(page, "Accuracy")
    name, png = exported(page, css, "p")
    assert name == "accuracy.png" and png.startswith(b"\x89PNG")
    name, svg = exported(page, css, "s")
    text = svg.decode()
    assert name == "accuracy.svg" and text.startswith("<svg") and "v_init 0.5, T = 16" in text and "16 images" in text
    shown = help.line(page, "Accuracy", 1)
    name, html = exported(page, css, "h")
    assert name == "accuracy.html" and b"v_init 0.5, T = 16" in html
    (tmp_path / name).write_bytes(html)
    alone = page.context.new_page()
    requests = []
    alone.on("request", lambda request: requests.append(request.url))
    alone.goto((tmp_path / name).as_uri())
    alone.locator("#figure .scatterlayer .trace").first.wait_for(timeout=help.WAIT)
    assert alone.evaluate("Array.from(document.querySelector('#figure')._fullData[1].y)") == shown
    assert not [url for url in requests if url.startswith("http")]
    help.SHOTS.mkdir(exist_ok=True)
    (help.SHOTS / "export.png").write_bytes(png)
    alone.screenshot(path=help.SHOTS / "export-html.png")


def test_a_figure_is_exported_by_key(address, page):
    help.open_page(page, address + "/theory" + SMALL)
    css = help.chart(page, "Staircase")
    page.locator(css + "[data-painted]").wait_for(timeout=help.WAIT)
    page.locator(css).focus()
    with page.expect_download(timeout=help.WAIT) as download:
        page.keyboard.press("s")
    assert "T = 8, v_init = 0.00" in download.value.path().read_text()


def test_pages_are_painted_in_light_and_dark(address, page):
    for name in sorted(path.stem for path in (help.ROOT / "pages").glob("*.py")):
        url = "" if name == "explorer" else name
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 800, "height": 900})
        if name == "fine_tuning":  # draws nothing before a training begins
            page.goto(f"{address}/{url}{SMALL}")
            page.get_by_role("button", name="Start", exact=True).wait_for(timeout=help.WAIT)
        else:
            help.open_page(page, f"{address}/{url}{SMALL}")
        if name == "methods":  # not to its end: fits take minutes, and stop when the page is left
            page.get_by_text("Highest, with its 95 % interval").first.wait_for(timeout=help.WAIT)
        if name not in ("theory", "membrane_lab", "fine_tuning", "methods"):
            help.until_done(page)
        if name == "membrane_lab":
            page.locator(help.chart(page, "Median time") + "[data-painted]").wait_for(timeout=help.WAIT)
        for mode, width in (("light", 800), ("dark", 1280)):  # the page is not loaded anew: evening comes
            page.emulate_media(color_scheme=mode)
            page.set_viewport_size({"width": width, "height": 900})
            help.until_theme(page, mode)
            assert page.locator(".stException").count() == 0
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
            help.shoot(page, f"{name}-{mode}-{width}")


def test_clicking_a_heat_map_cell_chooses_the_neuron(address, page):
    help.open_page(page, f"{address}/membrane_lab{SMALL}")
    page.locator(help.chart(page, "Class") + "," + help.chart(page, "Membrane")).first.wait_for(timeout=help.WAIT)
    page.locator(help.chart(page, "Membrane") + "[data-painted]").wait_for(timeout=help.WAIT)
    page.locator(".player .row").first.wait_for(timeout=help.WAIT)
    trace, css = help.line(page, "Membrane"), help.chart(page, "Firing rates")
    help.until_still(page, page.locator(css))
    x, y = page.evaluate(
        """css => { const plot = document.querySelector(css), { xaxis, yaxis } = plot._fullLayout;
           const box = plot.querySelector(".nsewdrag").getBoundingClientRect();
           return [box.x + xaxis.d2p(1), box.y + yaxis.d2p(2)]; }""",
        css,
    )
    page.mouse.move(x, y)  # one move only: Plotly skips the second of two in 50 ms
    page.locator(".hoverlayer .hovertext").first.wait_for(timeout=help.WAIT)
    page.mouse.click(x, y)
    help.until_other(page, "Membrane", trace)
    page.locator("h3").filter(has_text="channel 0, row 2, column 1").first.wait_for(timeout=help.WAIT)


def test_time_plays_in_the_browser(address, page):
    help.open_page(page, f"{address}/membrane_lab{SMALL}")
    player = page.locator(".player")
    player.locator(".row").first.wait_for(timeout=help.WAIT)
    equation = player.locator(".equation").inner_text()
    player.get_by_role("button", name="Play").click()
    player.get_by_role("button", name="Pause").click(timeout=help.WAIT)
    assert "t = 16 of 16" not in player.locator(".time").inner_text()
    assert player.locator(".equation").inner_text() != equation


def test_time_is_played_by_keys_and_by_clicks_in_the_charts(address, page):
    help.open_page(page, f"{address}/membrane_lab{SMALL}")
    player, clock = page.locator(".player"), page.locator(".player .time")
    player.locator(".row").first.wait_for(timeout=help.WAIT)
    player.focus()
    page.keyboard.press("Home")
    assert clock.inner_text() == "t = 1 of 16"
    page.keyboard.press("ArrowRight")
    assert clock.inner_text() == "t = 2 of 16"
    page.keyboard.press(" ")
    player.get_by_role("button", name="Pause").wait_for(timeout=help.WAIT)
    page.keyboard.press(" ")
    player.get_by_role("button", name="Play").wait_for(timeout=help.WAIT)
    css = help.chart(page, "Membrane")
    help.until_still(page, page.locator(css))
    place = """([css, t]) => { const plot = document.querySelector(css), box = plot.getBoundingClientRect();
               const { xaxis, yaxis, _size } = plot._fullLayout, { x, y } = plot._fullData[0];
               return [box.x + _size.l + xaxis.d2p(t), box.y + _size.t + (y && yaxis.d2p(y[x.indexOf(t)]))]; }"""
    x, y = page.evaluate(place, [css, 5])
    page.mouse.move(x, y)
    page.locator(".hoverlayer .hovertext").first.wait_for(timeout=help.WAIT)
    page.mouse.click(x, y)
    player.get_by_text("t = 5 of 16").wait_for(timeout=help.WAIT)
    for name in ("Membrane", "Decoded", "Spikes of"):
        line = page.locator(help.chart(page, name) + " .playhead").bounding_box()
        expected, _ = page.evaluate(place, [help.chart(page, name), 5])
        assert abs(line["x"] + line["width"] / 2 - expected) < 2


def test_the_tour_stays_open_when_a_step_changes_the_controls_above_it(address, page):
    help.open_page(page, address + "/" + SMALL)
    help.until_done(page)
    page.get_by_text("Guided tour").click()
    page.get_by_role("button", name="3. Too high a threshold").click()
    page.get_by_text("A high threshold clips nothing").wait_for(timeout=help.WAIT)
    page.get_by_text("max").first.wait_for(timeout=help.WAIT)  # the percentile's field above it is gone
    assert page.get_by_role("button", name="4. Which layer hurts").is_visible()


def test_two_visitors_at_once_see_their_own_number_of_images(address, browser):
    contexts = [browser.new_context() for _ in range(2)]
    pages = [context.new_page() for context in contexts]
    for page, images in zip(pages, (64, 16)):
        view = link.encode(Scene(Settings(images=images, T=6, v_init=0.35)))
        page.goto(f"{address}/?{link.PARAMETER}={view}")
    for page, images in zip(pages, (64, 16)):
        help.until_done(page)
        page.get_by_text(f"complete · {images} evaluation images").first.wait_for(timeout=help.WAIT)
        page.wait_for_function(
            """([css, n]) => document.querySelector(css)?._fullLayout?.xaxis?.title?.text?.endsWith(`N = ${n}`)""",
            arg=[help.chart(page, "Accuracy"), images],
            timeout=help.WAIT,
        )
    for context in contexts:
        context.close()


def test_a_narrow_window_has_one_column_of_charts(address, page):
    page.set_viewport_size({"width": 800, "height": 900})
    help.open_page(page, address + "/" + SMALL)
    help.until_done(page)
    left, right = (page.locator(help.chart(page, name)).bounding_box() for name in ("Decoded rate", "Error per layer"))
    assert abs(left["x"] - right["x"]) < 2 and right["y"] > left["y"] + left["height"] and left["width"] > 400
    numbers = [box.bounding_box() for box in page.locator("[data-testid=stMetric]").all()]
    assert len({round(box["x"]) for box in numbers}) == 2 and len({round(box["y"]) for box in numbers}) == 2


def test_reloading_the_page_keeps_the_view(address, page):
    help.open_page(page, f"{address}/theory{SMALL}")
    entries = page.evaluate("window.history.length")
    plain, number = page.url, page.locator("[data-testid=stMetricValue]").nth(1)
    before = number.inner_text(timeout=help.WAIT)
    nudge(page, "v_init (share of θ)", "ArrowRight", 30)
    page.locator(".katex").filter(has_text="0.30").first.wait_for(timeout=help.WAIT)
    page.wait_for_function("old => window.location.href !== old", arg=plain, timeout=help.WAIT)
    expect(number).not_to_have_text(before, timeout=help.WAIT)  # the numbers follow the equation
    help.until_still(page, number)
    shown = number.inner_text()
    assert page.evaluate("window.history.length") == entries
    help.open_page(page, page.url)
    expect(number).to_have_text(shown, timeout=help.WAIT)
    page.get_by_role("link", name="Explorer").click()
    help.until_done(page)
    page.wait_for_function("window.location.search.startsWith('?view=')", timeout=help.WAIT)
    assert len(help.line(page, "Accuracy", 1)) == 16


def test_the_equaliser_acts_while_it_is_dragged(address, page):
    help.open_page(page, f"{address}/rates_and_errors{SMALL}")
    help.until_done(page)
    band = page.get_by_label("scale per layer of stages.0.1.act1")
    box = band.bounding_box()
    x = box["x"] + box["width"] / 2
    page.mouse.move(x, box["y"] + box["height"] * 0.53)
    page.mouse.down()
    for share in (0.55, 0.6, 0.65, 0.7):
        page.mouse.move(x, box["y"] + box["height"] * share)
        page.wait_for_timeout(120)
    page.get_by_text("stages.0.1.act1 θ × ").first.wait_for(timeout=help.WAIT)  # before the button is released
    page.mouse.up()
    help.until_done(page)


def test_typing_another_channel_looks_into_it(address, page):
    help.open_page(page, f"{address}/rates_and_errors{SMALL}")
    help.until_done(page)
    field = page.get_by_label("Channel", exact=True).locator("visible=true").last
    page.get_by_text("Inside channel").first.wait_for(timeout=help.WAIT)
    other = "3" if field.input_value() != "3" else "4"
    field.fill(other)
    field.press("Enter")
    page.get_by_text(f"Inside channel {other} of").first.wait_for(timeout=help.WAIT)
    help.until_done(page)


def test_cells_of_the_layer_table_are_edited_by_typing(address, page):
    help.open_page(page, address + "/" + SMALL)
    help.until_done(page)
    last = page.get_by_text("Rates: 16 images; errors: 16 images").first  # stands under the table when it is final
    last.wait_for(timeout=help.WAIT)
    table = page.locator("[data-testid=stDataFrame]").first
    help.until_still(page, table)
    box = table.bounding_box()
    page.mouse.click(box["x"] + 60, box["y"] + 38 + 35 * 3 + 10)

    def chosen(row, column):
        """Wait until the table has moved its mark to this cell: of two keys at once it may lose one."""
        cell = page.get_by_test_id(f"glide-cell-{column}-{row}").and_(page.locator("[aria-selected=true]"))
        cell.first.wait_for(state="attached", timeout=help.WAIT)

    for column in (0, 1, 2):
        if column:
            page.keyboard.press("ArrowRight")
        chosen(3, column)
    editor = page.locator("#portal input")  # a cell's editor opens in an overlay of its own
    canvas = table.locator("canvas").first.element_handle()
    for row, scale, changed in ((3, "0.5", " θ × 0.5"), (4, "0.7", "2 layers changed")):
        chosen(row, 2)
        page.keyboard.press("Enter")
        editor.wait_for(timeout=help.WAIT)
        page.keyboard.press("Control+a")
        page.keyboard.type(scale, delay=40)
        page.keyboard.press("Enter")
        editor.wait_for(state="detached", timeout=help.WAIT)
        page.get_by_text(changed).first.wait_for(timeout=help.WAIT)
        help.until_done(page)
        last.wait_for(timeout=help.WAIT)
        help.until_still(page, table)
    assert canvas.evaluate("node => node.isConnected")  # not mounted anew: place and focus are kept
    page.get_by_role("button", name="Reset layers").click()
    page.get_by_text("2 layers changed").first.wait_for(state="detached", timeout=help.WAIT)
