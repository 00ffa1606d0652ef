"""A figure as a sheet of panels: laid out for the medium at hand, and finished so that it can be read.

Whoever draws fills panels; how many stand side by side, how titles break, where ticks are and how labels that would
touch one another are thinned out is decided here (and in `pipeline.views.style`). matplotlib is loaded by the first
sheet, and figures are drawn by Agg.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any

from pipeline.views import labels, marks, style
from pipeline.views.measured import text_width, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INNER = 0.72
"""Of a panel's height, the part that its axes are to have."""
AMPLE = 2.5
"""How much higher a sheet is while it is not known how much of it labels take."""


class Sheet:
    """Panels in rows and columns, ``sheet[row, column]``; columns that the medium has no room for go below the others.

        with Sheet(2, 3, title="What is shown") as sheet:
            sheet[0, 0].plot(steps, values)
            sheet[0, 0].set(xlabel="gradient step", ylabel="loss")
        sheet.figure

    Args:
        rows, columns: of panels.
        title: what a figure on the screen says above its panels.
        alike: panels of one row show one quantity: they share their y axis, and only the first carries its label.
        same_x: panels of one column share their x axis, and only the last carries its label.
        height, width: of a panel, in units of the medium's (where the medium has a width, that of the sheet is its).
        most: panels side by side, at most, if not as many as the medium has room for.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        title: str = "",
        alike: bool = False,
        same_x: bool = False,
        height: float = 1.0,
        width: float = 1.0,
        most: int | None = None,
    ) -> None:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.medium = style.medium()
        self._settings = ExitStack()
        self._settings.enter_context(matplotlib.rc_context(self.medium.rc))
        blocks = -(-columns // (most or self.medium.most + alike))
        self._across = -(-columns // blocks)
        self._rows, self._columns, self._alike, self._same_x = rows, columns, alike, same_x
        self._title, self._handles, self._ends, self._cells, self._labels = title, [], [], [], {}
        self._tall = self.medium.panel[1] * height
        panel = self.medium.panel[0]
        inches = self.medium.width or max(2 * panel, panel * width * self._across)
        self.figure: Figure = Figure(figsize=(inches, AMPLE * self._tall * rows * blocks), layout="constrained")
        FigureCanvasAgg(self.figure)
        self.figure.medium = self.medium  # whoever saves it needs the same settings
        self.figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
        self._grid = self.figure.subplots(rows * blocks, self._across, squeeze=False)
        for place in range(columns, blocks * self._across):
            for row in range(rows):
                self._at(row, place).remove()
        if alike:
            for row in range(rows):
                for column in range(1, columns):
                    self[row, column].sharey(self[row, 0])
        if same_x:
            for column in range(columns):
                for row in range(1, rows):
                    self[row, column].sharex(self[0, column])

    def __enter__(self) -> "Sheet":
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._settings.close()

    def __getitem__(self, place: tuple[int, int]) -> "Axes":
        return self._at(*place)

    def _at(self, row: int, column: int) -> "Axes":
        block, across = divmod(column, self._across)
        return self._grid[block * self._rows + row, across]

    def row(self, row: int) -> "list[Axes]":
        """The panels of a row."""
        return [self[row, column] for column in range(self._columns)]

    def column(self, column: int) -> "list[Axes]":
        """The panels of a column."""
        return [self[row, column] for row in range(self._rows)]

    def panels(self) -> "Iterator[Axes]":
        """All of them, row by row."""
        return (axes for row in range(self._rows) for axes in self.row(row))

    def drop(self, axes: "Axes") -> None:
        """Take a panel out that has nothing to show."""
        axes.set_visible(False)
        axes.set_in_layout(False)

    def tag(self, axes: "Axes", text: str) -> None:
        """Write above a panel which case it shows."""
        place = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center", "va": "bottom"}
        axes.annotate(text, (0.5, 1.0), (0, 3), **place).set_gid("tag")

    def note(self, axes: "Axes", text: str, color: str = style.GREY) -> None:
        """Write into a panel why it shows nothing."""
        note = axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=color)
        note.set_gid("note")

    def legend(self, handles: Sequence[Any]) -> None:
        """Lines, dots and patches (`pipeline.views.marks`) that the panels have in common; stands below them."""
        self._handles += [one for one in handles if one.get_label() not in {old.get_label() for old in self._handles}]

    def caption(self, text: str) -> None:
        """Write below all panels what has to be known to read them, in print too."""
        lines = wrapped(text, self.figure.get_figwidth() * 72 - 12, self.medium.text)
        self.figure.supxlabel(lines)
        self._add_height((lines.count("\n") + 1) * labels.LINE_HEIGHT * self.medium.text / 72)

    def name_ends(self, axes: "Axes", ends: Sequence[tuple[float, str, Mapping[str, Any]]]) -> None:
        """Name lines beside their ends, which is where legends would repeat themselves.

        Where the names would take the panel's room they stand in the legend.

        Args:
            ends: value at the end, name and look (``color``, ``marker``) of each line.
        """
        room = 0.25 * 72 * self.figure.get_figwidth() / self._across
        if max(text_width(text, self.medium.text) for _, text, _ in ends) > room:
            self.legend([marks.line(text, **look) for _, text, look in ends])
            return
        place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center"}
        for height, text, look in ends:
            self._ends.append((axes, axes.annotate(text, (1.0, height), (3, 0), color=look["color"], **place)))

    def cells(self, axes: "Axes", values: Any, image: Any, form: str = "{:.2g}") -> None:
        """Write the numbers of a heat map, ``(rows, columns)``, into its cells, if they have room; NaN has none."""
        texts = []
        for row, line in enumerate(values.tolist()):
            for column, value in enumerate(line):
                if value == value:
                    dark = style.contrast_on_white(image.cmap(image.norm(value))) > 5
                    color = "#ffffff" if dark else style.BLACK
                    texts.append(axes.text(column, row, form.format(value), ha="center", va="center", color=color))
                    texts[-1].set_gid("cell")
        self._cells.append((axes, texts))

    def _finish(self) -> None:
        self._label_outer_panels()
        self._write_title_and_legend()
        self._tick()
        self._fit_labels()  # to the places that panels have for now: of labels too long nothing can be laid out
        self._lay_out()
        self._set_height()
        self._fit_labels()
        self._lay_out()
        for axes in {axes for axes, _ in self._ends}:
            labels.spread([end for own, end in self._ends if own is axes])
        labels.fit_cells(self._cells)
        # The layout is done. With "none" matplotlib would still draw every file twice.
        self.figure.set_layout_engine(None)

    def _fit_labels(self) -> None:
        for axes in self._visible():
            labels.wrap(axes, 72 * INNER * self._tall)
            labels.thin(axes, self.medium.text, self._labels)

    def _lay_out(self) -> None:
        self.figure.get_layout_engine().execute(self.figure)

    def _label_outer_panels(self) -> None:
        for column in range(self._columns):
            shown = [axes for axes in self.column(column) if axes.get_visible()]
            for axes in shown[:-1] if self._same_x else ():
                axes.set_xlabel("")
                axes.tick_params(labelbottom=False)
            for axes in shown if self._alike and column % self._across else ():
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)

    def _write_title_and_legend(self) -> None:
        points = self.figure.get_figwidth() * 72
        text, lines = self.medium.text, 0
        if self._title and self.medium.titled:
            title = wrapped(self._title, points - 12, text + 1)
            self.figure.suptitle(title, fontsize=text + 1)
            lines += title.count("\n") + 1
        if self._handles:
            across = self._entries_side_by_side(points)
            self.figure.legend(handles=self._handles, loc="outside lower center", ncols=across)
            lines += ceil(len(self._handles) / across)
        self._add_height(lines * labels.LINE_HEIGHT * text / 72 + 0.08 * bool(lines))

    def _entries_side_by_side(self, points: float) -> int:
        """How many of a legend's columns so many points have room for."""
        widths = [text_width(one.get_label(), self.medium.text) + 3.4 * self.medium.text for one in self._handles]
        for across in range(len(widths), 1, -1):
            deep, longer = divmod(len(widths), across)  # matplotlib makes the first columns longer
            ends = [place * deep + min(place, longer) for place in range(across + 1)]
            if sum(max(widths[a:b]) for a, b in pairwise(ends)) < points - 8:
                return across
        return 1

    def _add_height(self, inches: float) -> None:
        self.figure.set_figheight(self.figure.get_figheight() + inches)

    def _visible(self) -> "Iterator[Axes]":
        return (axes for axes in self.figure.axes if axes.get_visible() and axes.axison)

    def _tick(self) -> None:
        from matplotlib.ticker import FixedLocator

        from pipeline.views.ticks import ticked

        for axes in self._visible():
            for axis in (axes.xaxis, axes.yaxis):
                if axis.get_scale() == "log" and not isinstance(axis.get_major_locator(), FixedLocator):
                    ticked(axis, self.medium.text)
        self.figure.align_ylabels([axes for axes in self._grid.flat if axes.figure and axes.get_visible()])

    def _set_height(self) -> None:
        """Make the sheet as high as its panels, and what is written around them, need."""
        shown = [axes for axes in self._grid.flat if axes.figure and axes.get_visible()]
        if heights := [axes.get_position(original=True).height for axes in shown]:
            lacking = INNER * self._tall - min(heights) * self.figure.get_figheight()
            self._add_height(lacking * len(self._grid))
