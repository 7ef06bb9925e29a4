"""The page: widgets, and what each of them asks the explorer for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from dcgan_jax.explore import drawing, parameters, sheet
from dcgan_jax.explore.explorer import (
    LARGEST_SEED,
    MAX_FRAMES,
    MAX_SAMPLES,
    MAX_SCALE,
    MAX_STEPS,
    MAX_TRAY,
    WAYS,
    Explorer,
    Result,
    Trays,
    View,
)
from dcgan_jax.explore.results import Results
from dcgan_jax.runtime.errors import UserError

SESSION_SECONDS = 3600  # that a closed or idle page's state is kept for
LETTERS = tuple(sheet.COLOURS)
# Of pictures a few pixels wide, the pixels should be seen; not of figures, which are made smaller. Gradio would show
# the upper half of a result alone; it fits into the window as a whole. Reasons come below, not over the tabs.
CSS = """
.toast-wrap {top: auto !important; bottom: 1rem}
.pixels img {image-rendering: pixelated}
#result img:is([src$="forget.png"], [src$="neighbours.png"]) {image-rendering: auto}
#result .thumbnail-lg {aspect-ratio: auto}
#result :is(.gallery-container, .grid-wrap) {height: auto; max-height: none}
#result .thumbnail-lg img {max-height: 55vh}
"""
HOW = (
    "Click on samples to put them into the tray that is chosen below, A, B or C; click again to take one out. "
    "Then choose what to do with them."
)


@contextmanager
def told() -> Iterator[None]:
    """Turns what the explorer refuses into an answer with the reason, to the page and to scripts alike."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error).removeprefix("--"), print_exception=False) from error


def theme() -> gr.Theme:
    """Gradio's, in the fonts that the reader's system has."""
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def build(explorer: Explorer, results: Results) -> gr.Blocks:
    """The page of an explorer. It must be built after GRADIO_TEMP_DIR is set to the folder of `results`."""
    return _Page(explorer, results).blocks


class _Page:
    def __init__(self, explorer: Explorer, results: Results):
        self._explorer, self._results = explorer, results
        self._names = explorer.class_names()
        self._view = explorer.view(explorer.newest, 0, self._names[0] if self._names else None, 36)
        title = f"DCGAN explorer: {explorer.workdir}"
        with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as self.blocks:
            self._state = gr.State(self._view, time_to_live=SESSION_SECONDS)
            self._corner = gr.State(None, time_to_live=SESSION_SECONDS)
            gr.Markdown(f"### {title}\n{HOW}")
            with gr.Row():
                with gr.Column(min_width=320):
                    self._controls()
                with gr.Column(min_width=320):
                    self._tabs()
            self._listen()
        for block in self.blocks.blocks.values():
            if isinstance(block, gr.Number | gr.Slider | gr.Textbox | gr.Dropdown | gr.Radio):
                _take_as_sent(block)

    def _controls(self) -> None:
        with gr.Row():
            self._step = gr.Dropdown(
                [str(step) for step in reversed(self._explorer.steps())],
                value=str(self._view.step),
                label="Checkpoint",
                min_width=100,
            )
            self._class = gr.Dropdown(
                self._names,
                value=self._names[0] if self._names else None,
                label="Class",
                min_width=100,
                visible=bool(self._names),
            )
            self._seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED, min_width=100)
        self._count = gr.Slider(1, MAX_SAMPLES, value=self._view.size, step=1, label="Samples")
        self._make = gr.Button("Make samples", variant="primary")
        self._sheet = _picture("Samples", "sheet")
        self._tray = gr.Radio(LETTERS, value="A", label="A click goes into tray", elem_id="tray")
        with gr.Row():
            self._texts = [
                gr.Textbox(label=f"{letter}: numbers of samples", min_width=90, max_lines=1, elem_id=f"tray-{letter}")
                for letter in LETTERS
            ]
        self._empty = gr.Button("Empty the trays", size="sm")

    def _tabs(self) -> None:
        self._buttons: dict[str, tuple[gr.Button, list[gr.components.Component]]] = {}
        with gr.Tab("Keep"):
            self._action("samples", "Keep the sheet", "The samples as they are, their z, and the command.")
        with gr.Tab("Walk"):
            way = gr.Radio(list(WAYS), value="line", label="Along a straight line, or an arc about the origin")
            frames = gr.Slider(2, MAX_FRAMES, value=16, step=1, label="Frames")
            self._action("walk", "Walk", "From the mean of A to the mean of B: put one into each.", way, frames)
        with gr.Tab("A - B + C"):
            self._action("arithmetic", "Compute", "Of the mean z of each tray. The paper takes three samples in each.")
        with gr.Tab("Move"):
            scale = gr.Slider(-MAX_SCALE, MAX_SCALE, value=1, step=0.05, label="How far")
            self._action(
                "direction", "Move", "Moves the samples in C along the vector from the mean of B to that of A.", scale
            )
            self._scale = scale
        with gr.Tab("Forget") as self._forget_tab:
            self._canvas = _picture("The samples in A", "canvas")
            self._boxes = gr.Textbox(label="Boxes, a line for each: SAMPLE: TOP, LEFT, BOTTOM, RIGHT", lines=3)
            text = "Click on two opposite corners of what to forget, in one or more of the samples in A."
            self._action("forget", "Forget", text, self._boxes)
        with gr.Tab("Nearest"):
            self._action("neighbours", "Find", "The training images nearest to the samples in A.")
        with gr.Tab("Steps"):
            self._steps = gr.Textbox(str(self._view.step), label=f"Steps, at most {MAX_STEPS}", max_lines=1)
            self._action("checkpoints", "Compare", "The samples in A by several checkpoints.", self._steps)
        self._shown = gr.Gallery(
            label="Result",
            show_label=False,
            columns=2,
            object_fit="contain",
            height="auto",
            elem_id="result",
            elem_classes="pixels",
        )
        self._text = gr.Textbox(label="What it shows", interactive=False, elem_id="text")
        self._command = gr.Textbox(
            label="The command that makes it again, where the explorer was started, with these files",
            interactive=False,
            buttons=["copy"],
            elem_id="command",
        )
        self._files = gr.File(label="Files to keep", file_count="multiple", interactive=False, elem_id="files")

    def _action(self, name: str, title: str, text: str, *inputs: gr.components.Component) -> None:
        gr.Markdown(text)
        self._buttons[name] = gr.Button(title, variant="primary", elem_id=f"do-{name}"), list(inputs)

    def _listen(self) -> None:
        heavy: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 1}
        private = heavy | {"api_visibility": "private", "show_progress": "hidden"}
        seen = [self._state, *self._texts]
        opened = [self._step, self._steps, self._state, self._sheet]
        self.blocks.load(self._open, None, opened, **private)
        asked = [self._step, self._seed, self._class, self._count]
        self._make.click(
            self._new_view, [*asked, *self._texts], [self._state, self._sheet], api_name="sheet", **heavy
        ).success(self._new_canvas, [self._boxes, *seen], [self._corner, self._canvas], **private)
        changed = [*self._texts, self._sheet, self._canvas]
        self._sheet.select(self._click, [self._tray, self._boxes, *seen], changed, **private)
        gr.on([text.submit for text in self._texts], self._redraw, [self._boxes, *seen], changed[3:], **private)
        self._empty.click(lambda: ("", "", ""), None, self._texts, api_visibility="private").then(
            self._redraw, [self._boxes, *seen], changed[3:], **private
        )
        gr.on([self._forget_tab.select, self._boxes.submit], self._redraw, [self._boxes, *seen], changed[3:], **private)
        drawn = [self._corner, self._boxes, self._canvas]
        self._canvas.select(self._draw, [self._corner, self._boxes, *seen], drawn, **private)
        shown = [self._shown, self._files, self._command, self._text]
        for name, (button, inputs) in self._buttons.items():
            limits = heavy | ({"concurrency_id": "training images"} if name == "neighbours" else {})
            limits = limits | {"show_progress_on": [self._shown]}  # or an error would be written over all four
            button.click(self._answer(name), [*seen, *inputs], shown, api_name=name, **limits)
        self._scale.release(self._answer("direction"), [*seen, self._scale], shown, **private)

    def _open(self) -> tuple[Any, ...]:
        """What a page that was just opened shows."""
        with told():
            steps = self._explorer.steps()
            view = self._view._replace(step=steps[-1])
            choices = gr.Dropdown([str(step) for step in reversed(steps)], value=str(view.step))
            return choices, ", ".join(map(str, steps[-3:])), view, self._drawn(view, self._trays(view, "", "", ""))

    def _new_view(self, step: Any, seed: Any, name: Any, count: Any, *texts: Any) -> tuple[View, str]:
        with told():
            view = self._explorer.view(step, seed, name, count)
            return view, self._drawn(view, self._trays(view, *texts))

    def _new_canvas(self, boxes: Any, view: View, *texts: Any) -> tuple[None, str | None]:
        """Of another view; a corner that was clicked on the last one is forgotten."""
        with told():
            return None, self._canvas_of(view, self._trays(view, *texts), boxes, None)

    def _click(self, event: gr.SelectData, tray: Any, boxes: Any, view: View, *texts: Any) -> tuple[Any, ...]:
        """Puts the sample that was clicked into a tray, or takes it out of it."""
        with told():
            letter = parameters.choice(tray, "tray", LETTERS)
            trays = self._trays(view, *texts)
            place = parameters.place(event.index, "click")
            hit = sheet.pixel_at(place, view.size, self._explorer.config.image_size)
            if hit is None:
                return tuple(gr.skip() for _ in range(5))
            numbers = trays[letter]
            trays[letter] = [n for n in numbers if n != hit[0]] if hit[0] in numbers else [*numbers, hit[0]]
            if len(trays[letter]) > MAX_TRAY:
                raise UserError(f"{letter}: holds {MAX_TRAY} samples, which is the most; take one out first")
            lists = (", ".join(map(str, trays[each])) for each in LETTERS)
            canvas = self._canvas_of(view, trays, boxes, None) if letter == "A" else gr.skip()
            return *lists, self._drawn(view, trays), canvas

    def _redraw(self, boxes: Any, view: View, *texts: Any) -> tuple[str, str | None]:
        with told():
            trays = self._trays(view, *texts)
            return self._drawn(view, trays), self._canvas_of(view, trays, boxes, None)

    def _draw(
        self, event: gr.SelectData, corner: drawing.Corner | None, boxes: Any, view: View, *texts: Any
    ) -> tuple[Any, ...]:
        """Notes a corner of a box; makes the box at the second one in the same sample."""
        with told():
            trays = self._trays(view, *texts)
            place = parameters.place(event.index, "click")
            hit = drawing.corner_at(place, trays["A"], self._explorer.config.image_size)
            if hit is None:
                return tuple(gr.skip() for _ in range(3))
            found = parameters.boxes(boxes, "boxes")
            if corner is None or corner.sample != hit.sample:
                return hit, gr.skip(), self._canvas_of(view, trays, boxes, hit)
            text = drawing.as_text([*found, drawing.between(corner, hit)])
            return None, text, self._canvas_of(view, trays, text, None)

    def _answer(self, name: str) -> Callable[..., tuple[Any, ...]]:
        """The handler of a button: a method of the explorer, given the view, the trays if it uses them, and fields."""

        def answer(view: View, a: Any, b: Any, c: Any, *fields: Any) -> tuple[Any, ...]:
            with told():
                trays = () if name in ("samples", "forget") else (self._trays(view, a, b, c),)
                method: Callable[..., Result] = getattr(self._explorer, "first" if name == "samples" else name)
                result = method(view, *trays, *fields, self._results.new())
            shown = [(str(file), title or None) for file, title in result.shown]
            return shown, list(map(str, result.files)), result.command, result.text

        return answer

    def _trays(self, view: View, *texts: Any) -> Trays:
        return self._explorer.trays(view, **dict(zip(LETTERS, texts, strict=True)))

    def _drawn(self, view: View, trays: Trays) -> str:
        file = self._results.new() / "sheet.png"
        self._explorer.sheet(view, trays).save(file)
        return str(file)

    def _canvas_of(self, view: View, trays: Trays, boxes: Any, corner: drawing.Corner | None) -> str | None:
        if not trays["A"]:
            return None
        file = self._results.new() / "canvas.png"
        found = parameters.boxes(boxes, "boxes")
        drawing.canvas(self._explorer.images(view), trays["A"], found, corner).save(file)
        return str(file)


def _picture(label: str, name: str) -> gr.Image:
    """A picture to click on. Its label would hide a corner of it, and is for screen readers alone."""
    return gr.Image(
        label=label,
        show_label=False,
        type="filepath",
        interactive=False,
        buttons=[],
        elem_id=name,
        elem_classes="pixels",
    )


def _take_as_sent(block: gr.components.Component) -> None:
    """Leaves checks to the explorer: Gradio's own fail without a reason on other types than a browser sends.

    Gradio would also download a file that is sent as a link, for any widget; none of these takes files.
    """

    async def refuse(_: Any) -> None:
        raise gr.Error("found a file, expected a number or a text", print_exception=False)

    setattr(block, "preprocess", lambda value: value)  # noqa: B010
    setattr(block, "async_move_resource_to_block_cache", refuse)  # noqa: B010
