"""Uploads in a real browser: bad files are explained, good ones replace the network and the images."""

import io

import pytest
import torch

from explorer.study import keys, link
from explorer.study.scene import Scene
from explorer.study.settings import Settings
from explorer.zoo.registry import load
from tests import browser_help as help
from tests.pictures import picture

SMALL = f"?{link.PARAMETER}={link.encode(Scene(Settings(images=16, T=8)))}"


@pytest.fixture(scope="module")
def browser():
    with help.chromium() as browser:
        yield browser


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = context.new_page()
    failures = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    context.close()
    assert not failures


def file(name: str, content: bytes) -> dict:
    """Return a file as Playwright takes it."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def give(page, *files: dict) -> None:
    """Put files into the window's upload field and wait until they are there."""
    dialog = page.get_by_role("dialog")
    dialog.locator("input[type=file]").first.set_input_files(list(files))
    dialog.get_by_text(files[-1]["name"]).first.wait_for(timeout=help.WAIT)


def shot(page, name: str) -> None:
    """Save screenshots of the window over the page, by day and by night."""
    help.SHOTS.mkdir(exist_ok=True)
    page.wait_for_timeout(600)  # its opening is animated
    for mode in ("dark", "light"):
        page.emulate_media(color_scheme=mode)
        help.until_theme(page, mode)
        page.screenshot(path=help.SHOTS / f"{name}-{mode}.png")


def test_a_bad_file_then_a_good_one_then_pictures(address, page):
    out = io.BytesIO()
    torch.save({"state_dict": load("resnet20-relu")[0].state_dict()}, out)
    good = out.getvalue()
    help.open_page(page, address + "/" + SMALL)
    help.until_done(page)
    trace = help.line(page, "Membrane")

    page.get_by_role("button", name="More…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Nothing in the file is executed").wait_for(timeout=help.WAIT)
    shot(page, "own-network")
    give(page, file("half.pth", good[: len(good) // 2]))
    dialog.get_by_role("button", name="Load and use").click()
    dialog.get_by_text("half.pth: truncated").wait_for(timeout=help.WAIT)
    shot(page, "own-network-bad")
    assert help.line(page, "Membrane") == trace, "the last good result stays"

    dialog.get_by_role("button", name="Remove").first.click()
    give(page, file("mine.pth", good))
    dialog.get_by_role("button", name="Load and use").click()
    dialog.wait_for(state="detached", timeout=help.WAIT)
    page.get_by_text("mine.pth (resnet20-relu), p99.9").first.wait_for(timeout=help.WAIT)
    help.until_done(page)
    assert help.line(page, "Membrane") == trace, "the same weights give the same trace"

    page.get_by_role("button", name="Report…").click()
    dialog.get_by_text("19 sites with").wait_for(timeout=help.WAIT)
    shot(page, "report")
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached", timeout=help.WAIT)

    page.get_by_text("Images and device").click()
    page.get_by_role("button", name="Your own images").click()
    give(page, file("notes.png", b"hello"))
    dialog.get_by_role("button", name="Use these pictures").click()
    dialog.get_by_text("notes.png: not a readable picture").wait_for(timeout=help.WAIT)
    shot(page, "own-pictures-bad")
    dialog.get_by_role("button", name="Remove").first.click()
    give(
        page,
        *(
            file(f"{name}.png", picture(colour=colour))
            for name, colour in (("red", (220, 30, 30)), ("sea", (0, 90, 180)))
        ),
    )
    dialog.get_by_role("button", name="Use these pictures").click()
    page.get_by_text("2 evaluation images (2 pictures)").first.wait_for(timeout=help.WAIT)
    page.get_by_text("SNN agrees with ANN").first.wait_for(timeout=help.WAIT)
    page.locator(help.chart(page, "Error per layer") + "[data-painted]").wait_for(timeout=help.WAIT)
    help.shoot(page, "own-pictures-light")
    assert page.locator(".stException").count() == 0


def test_a_text_from_a_link_is_shown_as_text(address, page):
    hostile = (
        "http://evil.example/x www.evil.example a@evil.example :smile: :material/bolt: :red[r] :red x:red "
        ":blue-background[y] a -> b <- c -- d >= e $x^2$ `c` *a* **b** <b>d</b> &lt;i&gt; | a | "
        "![p](http://evil.example/p.png) [y](javascript:alert(1))"
    )
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    scene = Scene(Settings(network=hostile, images=16, T=8))
    page.goto(f"{address}/?{link.PARAMETER}={link.encode(scene)}")
    box = page.get_by_test_id("stAlert").filter(has_text="nobody knows").first
    box.wait_for(timeout=help.WAIT)
    text = box.inner_text().replace(keys.WORD_JOINER, "")
    assert text[text.index("http://") :][: len(hostile)] == hostile
    assert box.locator("a, b, em, strong, img, code, h1, table, .katex, [class*=color], iframe").count() == 0
    assert not [url for url in asked if "evil" in url.split("?")[0]]
