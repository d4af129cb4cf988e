"""The page in a real browser: opened from disk, clicked, typed at, on a wide and on a narrow screen."""

from pathlib import Path
from typing import Any

import pytest

from crispseg.inspection.page import inspection_page
from tests.inspection.models import SYSTEMS, inspected

pytest.importorskip("selenium", reason="selenium is not installed: pip install 'crispseg[dev]'")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTHS = (1280, 400)
DRAWN = ("sfnet", "ddsm_upernet", "unept")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each system."""
    folder, files = tmp_path_factory.mktemp("pages"), {}
    for name in SYSTEMS:
        files[name] = folder / f"{name}.html"
        files[name].write_text(inspection_page(inspected(name)), encoding="utf-8")
    return files


def set_width(browser: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def open_page(browser: Any, path: Path) -> None:
    set_width(browser, WIDTHS[0])
    browser.get(path.as_uri())
    WebDriverWait(browser, 60).until(lambda b: b.execute_script("return document.body.dataset.ready"))


def click(browser: Any, x: float, y: float) -> None:
    """Click at a pixel of the image of 96 × 64, and wait until it is drawn."""
    stage = browser.find_element("id", "stage")
    ActionChains(browser).scroll_to_element(stage).perform()
    box = stage.size
    across, down = ((x + 0.5) / 96 - 0.5) * box["width"], ((y + 0.5) / 64 - 0.5) * box["height"]
    ActionChains(browser).move_to_element_with_offset(stage, across, down).click().perform()
    wait_for(browser, f"{x}, {y}")


def wait_for(browser: Any, pixel: str) -> None:
    shown = "return document.querySelector('#pixel dd').textContent"  # in one step: the list is made anew all the time
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(shown) == pixel)


def drawn(browser: Any) -> list[str]:
    """What is drawn at the pixel, without the pixel's own cross."""
    script = "return [...document.querySelectorAll('#stage svg > :not(.pixel)')].map((node) => node.outerHTML)"
    shapes: list[str] = browser.execute_script(script)
    return shapes


@pytest.mark.parametrize("name", DRAWN)
def test_a_click_shows_what_the_pixel_looked_at(name: str, browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages[name])
    seen = []
    for x, y in ((20, 12), (70, 50)):
        click(browser, x, y)
        field = browser.find_element("id", "field").text
        seen.append((drawn(browser), field))
    (first, first_text), (second, second_text) = seen
    assert first and second and first != second and first_text != second_text
    assert ("px of its level" if name == "sfnet" else "weighted centre") in second_text
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_keys_move_the_pixel_and_escape_lets_it_go(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["sfnet"])
    click(browser, 20, 12)
    stage = browser.find_element("id", "stage")
    stage.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    wait_for(browser, "22, 13")
    stage.send_keys(Keys.SHIFT + Keys.ARROW_LEFT + Keys.NULL)
    wait_for(browser, "12, 13")
    assert "Pinned" in browser.find_element("id", "pinned").text
    stage.send_keys(Keys.ESCAPE)
    WebDriverWait(browser, 30).until(lambda b: "Click to pin" in b.find_element("id", "pinned").text)


def test_heads_levels_and_layers_can_be_chosen(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["unept"])
    click(browser, 20, 12)
    assert len([shape for shape in drawn(browser) if "circle" in shape]) == 8 * 3 * 4
    choose = (
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input'))"
    )
    browser.execute_script(choose, "group", "5")
    WebDriverWait(browser, 30).until(lambda b: len([s for s in drawn(b) if "circle" in s]) == 4)
    browser.execute_script(choose, "layer", "boundary")
    shown = "return document.getElementById('shown').src === document.querySelector('[data-layer=boundary] img').src"
    assert browser.execute_script(shown)
    browser.execute_script(choose, "opacity", "80")
    assert browser.execute_script("return document.getElementById('edges').hidden")
    browser.find_element("id", "outlined").click()
    assert browser.find_element("css selector", "#edges img").size == browser.find_element("id", "shown").size
    assert browser.execute_script("return document.getElementById('shown').style.opacity") == "0.8"


@pytest.mark.parametrize("name", SYSTEMS)
def test_nothing_is_cut_off(name: str, browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages[name])
    browser.execute_script("for (const fold of document.querySelectorAll('details')) fold.open = true")
    beyond = """
      const edge = document.documentElement.clientWidth + 1;
      return [...document.querySelectorAll("body *:not(svg *)")]
        .filter((node) => node.getBoundingClientRect().right > edge)
        .map((node) => node.outerHTML.slice(0, 80));
    """
    inside = "return [...document.querySelectorAll('.wide')].every((box) => box.scrollWidth <= box.clientWidth + 1)"
    for width in WIDTHS:
        set_width(browser, width)
        assert browser.execute_script(beyond) == [] and browser.execute_script(inside)
