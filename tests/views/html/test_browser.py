"""The report in a real browser: charts render, lines hide, nothing is fetched, and it reads on any screen."""

import csv
import statistics
from itertools import pairwise

import handmade
import pytest

from pipeline.views.html.page import write_page
from pipeline.views.html.runs import LocalRun, open_runs

CONTRASTS = """() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => rgb(color).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((rgb(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("body *")].filter((element) =>
    !element.closest("script, style, noscript, .heatmaplayer") && element.getClientRects().length &&
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return texts.map((element) => {
    const style = getComputedStyle(element);
    const pair = [light(element.closest("svg") ? style.fill : style.color), light(ground(element))].sort();
    const [low, high] = pair[0] < pair[1] ? pair : pair.reverse();
    return [(high + 0.05) / (low + 0.05), element.textContent.slice(0, 40)];
  });
}"""
"""Contrast ratio (WCAG 2) of every visible text with what lies behind it."""


class Visit:
    """A page that is open and fully drawn, and everything the browser complained of or asked for since."""

    def __init__(self, browser, path, width=1280):
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme="light")
        self.page, self.complaints, self.requests = self.context.new_page(), [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def draw_all(self) -> "Visit":
        """Open every fold and scroll every chart into view."""
        self.page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
        self.page.evaluate(
            """async () => { for (const plot of document.querySelectorAll(".plot")) {
              plot.scrollIntoView();
              while (!plot.querySelector("svg")) await new Promise((done) => requestAnimationFrame(done)); } }"""
        )
        return self

    @property
    def head(self):
        """The panel of the head's curves."""
        return self.page.locator(".panel", has=self.page.get_by_role("heading", name="Head", exact=True))

    def close(self) -> None:
        """Leave; nothing may have been fetched or complained of."""
        self.context.close()
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture(scope="module")
def desk(browser, digits_run, tmp_path_factory):
    """The report on one run, on a desktop, drawn; tests leave it as they found it."""
    path = tmp_path_factory.mktemp("pages") / "digits.html"
    write_page([LocalRun(digits_run, "digits")], path)
    seen = Visit(browser, path).draw_all()
    yield seen
    seen.close()


@pytest.fixture(scope="module")
def phone(browser, sweep, digits_run, tmp_path_factory):
    """The report on three runs, at the width of a phone, folded as it opens."""
    path = tmp_path_factory.mktemp("pages") / "runs.html"
    write_page(open_runs([sweep, digits_run]), path)
    seen = Visit(browser, path, width=390)
    yield seen
    seen.close()


def assert_every_chart_is_drawn(seen: Visit) -> None:
    drawn = seen.page.evaluate(
        """() => [...document.querySelectorAll(".plot")].map((plot) => [
          plot.querySelectorAll(".scatterlayer .trace path, .heatmaplayer image").length,
          plot.data.filter((trace) => trace.visible !== false).length, plot.getAttribute("aria-label")])"""
    )
    assert len(drawn) >= 15
    for shapes, traces, label in drawn:
        assert shapes >= traces > 0, label


def test_every_chart_renders_its_traces(desk):
    assert_every_chart_is_drawn(desk)


def test_a_link_of_the_overview_opens_the_run_it_names_and_folded_charts_are_drawn_then(phone):
    assert phone.page.locator("article:visible").count() == 0
    phone.page.get_by_role("link", name="sweep/1").click()
    phone.page.locator("#run-1").wait_for(state="visible")
    assert phone.page.locator("article:visible").count() == 1
    assert_every_chart_is_drawn(phone.draw_all())


def test_what_is_drawn_is_what_was_recorded(digits_run, desk):
    with open(digits_run / "record.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if (row["stage"], row["layer"]) == ("head", "3")]
    wanted = [
        statistics.median(float(row["value"]) for row in rows if (row["metric"], row["step"]) == ("dnc3", step))
        for step in dict.fromkeys(row["step"] for row in rows if row["step"] != "0")
    ]
    plot = desk.head.get_by_role("img", name="DNC3").first
    assert plot.evaluate("(plot) => plot.data.find((t) => t.name === 'layer 3 post').y") == pytest.approx(
        wanted, rel=5e-6
    )


LINES = "(panel) => [...panel.querySelectorAll('.plot')].map((p) => p.querySelectorAll('.scatterlayer .trace').length)"
"""How many traces are on the screen, per chart of a panel."""


def test_the_legend_hides_a_layer_in_every_chart_of_its_panel_and_brings_it_back(desk):
    before = desk.head.evaluate(LINES)
    desk.head.get_by_role("checkbox", name="layer 2").uncheck()
    hidden = desk.head.evaluate(LINES)
    assert all(after < count for after, count in zip(hidden[:3], before[:3], strict=True)) and hidden[3] == before[3]
    names = desk.head.evaluate(
        """(panel) => [...panel.querySelectorAll(".plot")].flatMap((plot) =>
          plot.data.filter((trace) => trace.visible !== false).map((trace) => trace.name))"""
    )
    assert not any(name.startswith("layer 2") for name in names) and "layer 3 post" in names
    desk.head.get_by_role("checkbox", name="layer 2").check()
    assert desk.head.evaluate(LINES) == before


def test_the_legend_works_without_a_mouse_and_adds_the_test_split(desk):
    before = desk.head.evaluate(LINES)
    desk.head.get_by_role("checkbox", name="test split").focus()
    desk.page.keyboard.press("Space")
    assert desk.head.evaluate(LINES)[0] > before[0]
    desk.page.keyboard.press("Space")
    assert desk.head.evaluate(LINES) == before


def test_hovering_shows_the_value_of_the_line_and_its_seeds(desk):
    plot = desk.head.get_by_role("img", name="DNC1")
    plot.scroll_into_view_if_needed()
    point = plot.evaluate(
        """(plot) => { const t = plot.data.find((t) => t.name === "layer 3 post"), i = t.x.length - 3,
          box = plot.getBoundingClientRect(), { xaxis, yaxis } = plot._fullLayout;
          return [box.x + xaxis._offset + xaxis.d2p(t.x[i]), box.y + yaxis._offset + yaxis.d2p(t.y[i])]; }"""
    )
    desk.page.mouse.move(*point)
    desk.page.wait_for_selector(".hoverlayer .hovertext")
    assert "seeds" in plot.evaluate("(plot) => plot.querySelector('.hoverlayer').textContent")
    desk.page.mouse.move(0, 0)


LOOK = """() => { const plot = document.querySelector(".plot"), line = plot.querySelector("path.js-line");
  return [document.body, plot.querySelector(".main-svg"), line].map((element) =>
    [getComputedStyle(element).backgroundColor, getComputedStyle(element).stroke]); }"""
"""Colours of the page, of a plot's ground and of a line."""


def test_dark_mode_changes_the_page_and_the_plots_while_it_is_open(desk):
    light = desk.page.evaluate(LOOK)
    desk.page.emulate_media(color_scheme="dark")
    dark = look_unlike(desk.page, light)
    assert all(before != after for before, after in zip(light, dark, strict=True))
    desk.page.emulate_media(color_scheme="light")
    assert look_unlike(desk.page, dark) == light


def look_unlike(page, look: list) -> list:
    """The colours once every part of ``look`` has changed, or after ten seconds."""
    for _ in range(100):
        found = page.evaluate(LOOK)
        if all(before != after for before, after in zip(look, found, strict=True)):
            break
        page.wait_for_timeout(100)
    return found


def test_nothing_overflows_at_the_width_of_a_phone(phone):
    phone.draw_all()
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_what_lies_behind_it(scheme, phone):
    phone.draw_all().page.emulate_media(color_scheme=scheme)
    phone.page.evaluate("Promise.all([...drawn].map(draw))")  # not to wait for the event
    contrasts = phone.page.evaluate(CONTRASTS)
    assert len(contrasts) > 500
    assert [text for ratio, text in contrasts if ratio < 4.5] == []


def test_headings_leave_out_no_level_and_every_box_has_a_name(desk):
    levels = desk.page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((heading) => +heading.tagName[1])")
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    names = desk.page.evaluate("[...document.querySelectorAll('input')].map((box) => box.labels[0]?.textContent)")
    assert len(names) > 8 and all(names)


EVIL = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>%{x}<b>"


def test_names_that_are_scripts_are_harmless(browser, copied, sweep, digits_run, tmp_path):
    def poison(summary):
        summary["problem"]["classes"] = [EVIL, EVIL]
        summary["verdict"]["text"] = summary["environment"]["device"] = EVIL

    folder = copied(digits_run, "<script>window.hacked=1", poison)
    record, config = folder / "record.csv", folder / ".hydra" / "config.yaml"
    record.write_text(record.read_text().replace(",network.hidden1,", f',"{EVIL}",'))
    config.write_text(config.read_text().replace("root: null", f'root: "{EVIL}"'))
    copied(sweep / "1", "<img src=x onerror=window.hacked=1>", lambda summary: summary.update(error=EVIL))
    path = tmp_path / "report.html"
    write_page(open_runs([tmp_path]), path)
    seen = Visit(browser, path).draw_all()
    assert seen.page.evaluate("window.hacked") is None and seen.page.query_selector("img") is None
    for shown in ("<script>window.hacked=1", "<img src=x onerror=window.hacked=1>", EVIL):
        assert seen.page.get_by_text(shown).first.is_visible()
    seen.close()


def test_runs_of_any_kind_are_drawn_whole_and_without_a_complaint(browser, handmade_runs, tmp_path):
    path = tmp_path / "report.html"
    write_page(list(handmade_runs.values()), path)
    seen = Visit(browser, path).draw_all()
    drawn = seen.page.evaluate(
        """() => [...document.querySelectorAll(".plot")].map((plot) => [
          plot.querySelectorAll(".scatterlayer .trace path, .heatmaplayer image").length,
          plot.getAttribute("aria-label")])"""
    )
    assert len(drawn) >= 15 and [label for shapes, label in drawn if shapes == 0] == []
    seen.close()


def test_rows_are_sorted_by_any_column_and_curves_take_the_colours_of_a_setting(browser, tmp_path):
    for index in range(4):
        folder = handmade.without_head(tmp_path / str(index))
        (folder / ".hydra" / "config.yaml").write_text(f"{{width: {(9, 10, 100, 9)[index]}, seed: {index}}}")
        (folder / ".hydra" / "overrides.yaml").write_text(f"[width={(9, 10, 100, 9)[index]}, seed={index}]")
    path = tmp_path / "report.html"
    write_page(open_runs([tmp_path]), path)
    seen = Visit(browser, path).draw_all()
    column = """() => {
      const at = [...document.querySelectorAll('.sortable thead th')].findIndex((head) => head.textContent === 'width');
      return [...document.querySelectorAll('.sortable tbody tr')].map((row) => row.cells[at].textContent);
    }"""
    seen.page.get_by_role("button", name="width").click()
    assert seen.page.evaluate(column) == ["9", "9", "10", "100"]
    seen.page.get_by_role("button", name="width").click()
    assert seen.page.evaluate(column) == ["100", "10", "9", "9"]
    colors = """() => document.querySelector('[aria-label=Comparison] .plot').data
      .filter((trace) => trace.meta.role === 'line').map((trace) => trace.line.color)"""
    assert len(set(seen.page.evaluate(colors))) == 4
    seen.page.get_by_label("coloured by").select_option("width")
    by_width = seen.page.evaluate(colors)
    assert by_width[0] == by_width[3] and len(set(by_width)) == 3
    seen.close()


def test_the_first_curve_of_many_runs_is_within_two_screens_of_a_phone(browser, tmp_path):
    for index in range(30):
        folder = handmade.without_head(tmp_path / f"{index}")
        (folder / ".hydra" / "overrides.yaml").write_text(f"[seed={index}]")
        (folder / ".hydra" / "config.yaml").write_text(f"seed: {index}")
    path = tmp_path / "report.html"
    write_page(open_runs([tmp_path]), path)
    seen = Visit(browser, path, width=400)
    assert seen.page.evaluate("document.querySelector('.plot').getBoundingClientRect().top") < 2 * 800
    said, table = (
        f"document.querySelector('.overview{part}').getBoundingClientRect().right" for part in (" caption span", "")
    )
    assert seen.page.evaluate(said) <= 400 < seen.page.evaluate(table)  # which scrolls under it
    seen.close()
