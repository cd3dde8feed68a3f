"""Every panel of the window, painted off screen and compared with a picture of it that was looked at.

    python tests/test_panels.py   # writes the pictures anew; look at them before they are committed

Tolerance: pictures are averaged over blocks of 8 x 8 pixels; of the 2400 blocks at most 1 % may differ by more than 16
of 255 in a colour. Letters drawn a little otherwise keep within it; other samples, another panel or theme do not, as
the tests show.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PySide6.QtWidgets")
pytest.importorskip("pyqtgraph")

from panels import SCENES, T0, shown, times_of, viewed
from PySide6.QtCore import QSize
from PySide6.QtGui import QImage

from rheobase.devices._panel_compare import apart
from rheobase.devices._panel_connectivity import coupling
from rheobase.devices._panel_cursor import ellipse
from rheobase.devices._panel_fleet import at_risk
from rheobase.devices._panel_path import CORNER, angles, rotation
from rheobase.devices._panel_spectrum import density
from rheobase.devices._panels import PANELS, arranged, lines, planned, usual
from rheobase.devices._theme import DARK, LIGHT, of_state, rgb
from rheobase.devices.view import View, Window
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.files import save_model

PICTURES = Path(__file__).parent / "golden" / "panels"
BLOCK, NEAR, MANY = 8, 16.0, 0.01


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory.mktemp("model") / "w.npz")


def made(path: Path) -> str:
    rng = np.random.default_rng(0)
    W = rng.standard_normal((4, 12, 12)) * (rng.random((4, 12, 12)) < 0.3)
    save_model(path, {"W": W, "b": W[:, 0]}, {"node": "none", "in": {}, "out": {}})
    return str(path)


def pixels(image: QImage) -> np.ndarray:
    image = image.convertToFormat(QImage.Format.Format_RGB888)
    flat = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return flat[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).astype(float)


def blocks(image: QImage) -> np.ndarray:
    x = pixels(image)
    h, w = x.shape[0] // BLOCK, x.shape[1] // BLOCK
    return x[: h * BLOCK, : w * BLOCK].reshape(h, BLOCK, w, BLOCK, 3).mean(axis=(1, 3))


def differs(a: QImage, b: QImage) -> float:
    """Share of blocks that are not alike."""
    if a.size() != b.size():
        return 1.0
    return float((np.abs(blocks(a) - blocks(b)).max(axis=-1) > NEAR).mean())


def stored(name: str) -> QImage:
    image = QImage(str(PICTURES / f"{name}.png"))
    assert image.size() == QSize(480, 320), f"no picture of {name}: see the top of this file"
    return image


def grabbed(w: Window) -> QImage:
    image = w.grab().toImage()
    w.close()
    return image


@pytest.mark.parametrize("name", SCENES)
def test_a_panel_looks_as_it_did(name: str, model: str, tmp_path: Path) -> None:
    """And no other panel would pass for it."""
    image = grabbed(shown(name, model=model if name == "connectivity" else ""))
    image.save(str(tmp_path / f"{name}.png"))
    assert differs(image, stored(name)) <= MANY, f"see {tmp_path / name}.png"
    for other in SCENES:
        if other != name:
            assert differs(image, stored(other)) > 3 * MANY, other


@pytest.mark.parametrize("name", [n for n in SCENES if n not in ("connectivity", "words", "health")])
def test_a_panel_of_other_samples_does_not_pass(name: str) -> None:
    """The same streams, their time turned round."""
    v = viewed(name)
    given = [feed.samples_between(-np.inf, np.inf)[1].astype(float) for feed in v.feeds]
    specs = [feed.spec for feed in v.feeds]
    v.start(*specs)
    for i, (spec, x) in enumerate(zip(specs, given, strict=True)):
        if len(x) and spec.dtype != "str":
            x = x[::-1].copy()
            if name == "orientation":
                x = x * [1, 1, 1, -1]
            if name == "numbers":
                x *= -3.7
            if name.startswith("spect"):
                x = np.repeat(x, 2, axis=0)[: len(x)]  # half the frequency
            v.take(i, Block(x, times_of(spec, len(x))))
    w = v.window()
    w.table.setVisible(False)
    w.status.setVisible(False)
    w.slider.setVisible(False)
    w.resize(480, 320)
    w.grab()
    w.paint()
    less = 0.3 if name in ("numbers", "orientation") else 1.0  # little is drawn there
    assert differs(grabbed(w), stored(name)) > less * MANY


@pytest.mark.parametrize("name", ["traces", "cursor", "fleet", "connectivity"])
def test_a_panel_in_the_other_theme(name: str, model: str) -> None:
    image = grabbed(shown(name, "light", model=model if name == "connectivity" else ""))
    x = pixels(image).reshape(-1, 3)
    assert (np.abs(x - rgb(LIGHT.panel)).max(axis=1) < 8).mean() > 0.4
    assert (np.abs(x - rgb(DARK.panel)).max(axis=1) < 8).mean() < 0.02
    assert differs(image, stored(name)) > 0.5


@pytest.mark.parametrize("theme", [DARK, LIGHT])
def test_words_and_lines_stand_out_from_the_ground(theme: object) -> None:
    """WCAG 2.2: contrast of at least 4.5 for words, 3 for what is drawn."""

    def light(colour: str) -> float:
        c = rgb(colour) / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(a: str, b: str) -> float:
        x, y = sorted((light(a), light(b)))
        return (y + 0.05) / (x + 0.05)

    for colour in (theme.ink, theme.dim):
        assert contrast(colour, theme.panel) >= 4.5, colour
    for colour in theme.lines:
        assert contrast(colour, theme.panel) >= 3.0, colour


@pytest.mark.parametrize("theme", [DARK, LIGHT])
def test_colours_of_lines_are_told_apart_without_red_or_green(theme: object) -> None:
    """Seen by a dichromat (Viénot, Brettel & Mollon, Color Res Appl 24:243, 1999) no two of the first four are near."""
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    for sight in (np.eye(3), protan, deutan):
        seen = [np.linalg.inv(to_lms) @ sight @ to_lms @ (rgb(c) / 255) ** 2.2 for c in theme.lines[:4]]
        seen = [np.clip(s, 0, 1) ** (1 / 2.2) for s in seen]
        for i, a in enumerate(seen):
            for b in seen[i + 1 :]:
                assert np.abs(a - b).max() > 0.12


@pytest.mark.parametrize("theme", [DARK, LIGHT])
def test_states_of_wear_are_levels_of_a_scale(theme: object) -> None:
    many = [of_state(theme, k) for k in range(26)]
    assert len(set(many)) == 26 and many[0] == theme.blue and of_state(theme, 10_000) == theme.red
    first = np.array([rgb(c) for c in many[:6]])
    assert (np.abs(np.diff(first, axis=0)).max(axis=1) > 5).all()


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (Spec(rate=200, channels=("cursor_x", "cursor_y"), unit="m"), "cursor"),
        (Spec(rate=50, channels=numbered("n", 96), unit="count"), "image"),
        (Spec(rate=1000, channels=numbered("eeg", 64), unit="V"), "traces"),
        (Spec(rate=0, channels=("m",), dtype="str"), "numbers"),
        (Spec(rate=50, channels=("p0", "p1", "state")), "states"),
        (Spec(rate=0, channels=("rul_5", "rul_50", "rul_95", "health", "state")), "life"),
        (Spec(rate=0, channels=("unit", "rul_5", "rul_50", "rul_95", "health")), "fleet"),
        (Spec(rate=100, channels=("qw", "qx", "qy", "qz")), "path"),
        (Spec(rate=100, channels=("q_w", "q_x", "q_y", "q_z")), "path"),
        (Spec(rate=100, channels=("x", "y", "heading"), unit="m"), "path"),
    ],
)
def test_each_stream_finds_the_panel_that_suits_it(spec: Spec, kind: str) -> None:
    assert usual(spec) == kind


@pytest.mark.parametrize(
    ("panels", "says"),
    [
        ({"raw": "spectrun"}, "panels: 'raw': no kind 'spectrun'; did you mean 'spectrum'"),
        ({"row": "traces"}, "panels: no input 'row'; did you mean 'raw'"),
        ({"x": {"kind": "states", "off": ["raw"]}}, "'x': unknown key 'off'; did you mean 'of'"),
        ({"x": {"of": ["raw"]}}, "'x': write a kind"),
        ({"x": {"kind": "compare", "of": ["raw"]}}, "'x': compare shows 2 inputs, got 1"),
        ({"x": {"kind": "traces", "of": 3}}, "'x': of: cannot be 3"),
        ({"raw": "cursor"}, "'raw' has no channels 'cursor_x' and 'cursor_y'"),
        ({"raw": "fleet"}, "'raw' has no channels 'unit' and 'rul_5'"),
        ({"words": "traces"}, "'words' carries words"),
        ({"words": "spectrum"}, "'words' carries words"),
        ({"odd": "spectrum"}, "'odd' has no rate"),
        ({"raw": "path"}, "'raw' has neither two `channels`"),
        ({"x": {"kind": "compare", "of": ["raw", "odd"]}}, "no channel of the same name"),
        ({"x": {"kind": "traces", "of": ["raw", "odd"]}}, "channel by channel"),
        ({"raw": "connectivity"}, "'raw': connectivity needs 'model'"),
        ({"raw": "states"}, "one must have channels p0, p1"),
    ],
)
def test_refuses_panels_that_do_not_suit(panels: dict[str, object], says: str) -> None:
    v = View.make(panels=panels)
    v.inputs = ("raw", "words", "odd")
    with pytest.raises(StreamError, match=says):
        v.check()
        v.start(
            Spec(rate=100, channels=("a", "b")),
            Spec(rate=0, channels=("w",), dtype="str"),
            Spec(rate=0, channels=("c",)),
        )


def test_layouts() -> None:
    """Columns of panels; those that lie over one another answer to each name."""
    names = ("task", "a", "b", "raw")
    specs = (
        Spec(rate=200, channels=("cursor_x", "cursor_y"), unit="m"),
        Spec(rate=50, channels=("x", "y"), unit="m/s"),
        Spec(rate=50, channels=("x", "y"), unit="m/s"),
        Spec(rate=50, channels=("c",)),
    )
    found = planned(lines({"raw": "none", "f": {"kind": "spectrum", "of": "raw"}}, names), names, specs)
    assert [(x.name, x.kind, x.of) for x in found] == [
        ("task", "cursor", ("task",)),
        ("a", "traces", ("a", "b")),
        ("f", "spectrum", ("raw",)),
    ]
    given = lines({"c": {"kind": "compare", "of": ["a", "b"]}, "f": {"kind": "spectrum", "of": "raw"}}, names)
    assert [x.name for x in planned(given, names, specs)] == ["task", "raw", "c", "f"]  # a and b are seen in c
    assert [x.name for x in planned(given, names, specs, ["c", ["b", "raw"]])] == ["task", "b", "raw", "c", "f"]
    assert [[x.name for x in c] for c in arranged(found, [])] == [["task"], ["a", "f"]]
    assert [[x.name for x in c] for c in arranged(found, ["f", ["b", "task"]])] == [["f"], ["a", "task"]]
    with pytest.raises(StreamError, match="layout: no panel 'tsk'; did you mean 'task'"):
        arranged(found, ["tsk"])


def test_every_kind_has_a_scene() -> None:
    kinds = {e if isinstance(e, str) else e["kind"] for _, e in SCENES.values()}
    assert kinds == PANELS.keys()


def test_the_spectrum_holds_the_power() -> None:
    """Parseval: the density summed over frequency is the variance; a sine's is where it is."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4096, 2))
    p = density(x, 256.0, 512, 256).mean(axis=0)
    np.testing.assert_allclose(p.sum(axis=0) * 256 / 512, x.var(axis=0), rtol=0.08)
    scipy_signal = pytest.importorskip("scipy.signal")
    f, q = scipy_signal.welch(x, 256.0, "hann", 512, 256, detrend="constant", axis=0)
    np.testing.assert_allclose(p, q, rtol=1e-9)
    s = np.sin(2 * np.pi * 40 * np.arange(4096) / 256)[:, None]
    assert f[density(s, 256.0, 512, 256).mean(axis=0)[:, 0].argmax()] == 40.0


def test_the_ellipse_holds_nine_of_ten() -> None:
    rng = np.random.default_rng(0)
    c = np.array([[2.0, 0.9], [0.9, 1.0]])
    edge = ellipse(c[0, 0], c[0, 1], c[1, 1])
    inverse = np.linalg.inv(c)
    radius = np.einsum("ij,jk,ik->i", edge, inverse, edge)
    np.testing.assert_allclose(radius, radius[0])
    x = rng.multivariate_normal([0, 0], c, 20_000)
    assert abs((np.einsum("ij,jk,ik->i", x, inverse, x) < radius[0]).mean() - 0.9) < 0.01


def test_turns() -> None:
    q = np.array([np.cos(0.3), 0, 0, np.sin(0.3)])  # 0.6 rad about z
    np.testing.assert_allclose(rotation(3 * q)[:, 0], [np.cos(0.6), np.sin(0.6), 0], atol=1e-12)
    rng = np.random.default_rng(0)
    q = rng.standard_normal(4)
    yaw, pitch, roll = angles(rotation(q))
    z = rotation(np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]))
    y = rotation(np.array([np.cos(pitch / 2), 0, np.sin(pitch / 2), 0]))
    x = rotation(np.array([np.cos(roll / 2), np.sin(roll / 2), 0, 0]))
    np.testing.assert_allclose(z @ y @ x, rotation(q), atol=1e-12)
    assert (CORNER @ [0, 0, 1])[1] > 0.9  # up is up


def test_how_far_a_prediction_is_off() -> None:
    t = np.arange(100) / 10
    z = np.sin(t)
    error, r = apart(t + 0.01, z + 0.1, t, z)
    assert error == pytest.approx(0.1 / z.std())
    assert r == pytest.approx(1.0)
    assert np.isnan(apart(t[:1], z[:1], t, z)).all()
    assert np.isnan(apart(t, z, t, np.ones(100))).all()


def test_the_fleet_is_sorted_by_risk_and_a_click_picks_a_unit() -> None:
    from PySide6.QtCore import QPoint, Qt
    from PySide6.QtTest import QTest

    w = shown("fleet")
    [panel] = w.panels
    feed = panel.feeds[0]
    rows = at_risk(feed)
    assert len(rows) == 40 == len(feed.units)
    assert (np.diff(rows[:, 1]) >= 0).all()
    truth = {}
    _, x = feed.samples_between(-np.inf, np.inf)
    for row in x:
        truth[float(row[0])] = row
    for row in rows:
        np.testing.assert_array_equal(row, truth[float(row[0])])
    QTest.mouseClick(panel.table, Qt.MouseButton.LeftButton, pos=QPoint(60, 3 * 20 + 5))
    assert panel.look.unit == rows[2, 0]
    QTest.mouseClick(panel.table, Qt.MouseButton.LeftButton, pos=QPoint(60, 3 * 20 + 5))
    assert panel.look.unit is None
    w.close()


def test_a_unit_of_which_nothing_is_known_comes_last() -> None:
    v = viewed("fleet")
    nan = np.full((1, v.feeds[0].spec.n), np.nan)
    nan[0, 0] = 99
    v.take(0, Block(nan, np.array([T0 + 1.0]), v.feeds[0].samples))
    assert at_risk(v.feeds[0])[-1, 0] == 99
    w = v.window()
    w.grab()
    w.close()


def test_coupling_in_a_model(model: str, tmp_path: Path) -> None:
    W = coupling(Path(model), "W")
    assert W.shape == (4, 12, 12)
    np.testing.assert_array_equal(coupling(Path(model), ""), W)  # b is not square
    with pytest.raises(StreamError, match="has no 'V'; there is W, b"):
        coupling(Path(model), "V")
    with pytest.raises(StreamError, match=r"'b' .* has shape \(4, 12\)"):
        coupling(Path(model), "b")
    save_model(tmp_path / "one.npz", {"A": np.eye(3), "B": np.eye(2)}, {"node": "none", "in": {}, "out": {}})
    assert coupling(tmp_path / "one.npz", "A").shape == (1, 3, 3)
    with pytest.raises(StreamError, match="say which array"):
        coupling(tmp_path / "one.npz", "")


def test_coupling_is_read_anew_when_its_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    v = viewed("connectivity", model=str(path))
    w = v.window()
    [panel] = w.panels
    assert "no file" in panel.shown or "w.npz" in panel.shown  # said, and no error
    made(path)
    panel.looked = -np.inf
    w.paint()
    assert "4 states, 12 channels" in panel.shown
    assert len(panel.frame.getData()[0]) == 5  # around the state that is on
    w.close()


def test_the_busiest_nodes_of_a_run_are_told(tmp_path: Path) -> None:
    """Where its directory says; a file that is not whole, or is gone, tells nothing."""
    w = viewed("health").window()
    [panel] = w.panels
    assert not panel.nodes.isVisibleTo(w)
    live = tmp_path / "live.json"
    nodes = {
        "slow": {"busy": 0.25, "step": 0.0025},
        "source": {"busy": None, "step": None},
        "first": {"busy": 0.5, "step": None},
    }

    def told() -> str:
        panel.looked = -np.inf
        w.paint()
        return panel.nodes.text() if panel.nodes.isVisibleTo(w) else ""

    w.look.folder = tmp_path
    assert told() == ""
    live.write_text(json.dumps({"nodes": nodes}))
    words = told()
    assert words.index("first <b>50 %</b>") < words.index("slow <b>25 %</b>, 2.5 ms") and "source" not in words
    live.write_text('{"nodes": {')
    assert told() == ""
    w.close()


def test_a_delay_that_can_be_seen_is_told() -> None:
    v = View.make(panels={"p": {"kind": "states", "of": "p"}})
    v.inputs = ("p",)
    for delay, word in ((0.5, True), (0.025, False)):
        v.start(Spec(rate=20, channels=("p0", "p1"), delay=delay))
        v.take(0, Block(np.full((10, 2), 0.5), T0 + np.arange(10) / 20))
        w = v.window()
        assert ("0.5 s late" in w.panels[0].shown) == word
        w.close()


if __name__ == "__main__":
    from PIL import Image

    PICTURES.mkdir(exist_ok=True)
    given = made(Path(sys.argv[1] if len(sys.argv) > 1 else "/tmp") / "w.npz")
    for scene in SCENES:
        image = grabbed(shown(scene, model=given if scene == "connectivity" else ""))
        rgb_values = Image.fromarray(pixels(image).astype(np.uint8))
        rgb_values.quantize(128, dither=Image.Dither.NONE).save(PICTURES / f"{scene}.png", optimize=True)
