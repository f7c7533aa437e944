"""Pictures, sounds and films: what cannot be read is counted and harmless, what can tells items apart."""

from __future__ import annotations

import struct
import wave
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.pages import text_of

from isthmus.data.importer import import_corpus
from isthmus.data.media import media_paths
from isthmus.encode import files
from isthmus.encode.audio import RATE, LogMel
from isthmus.encode.image import ClassicalImages, ModelImages, open_image
from isthmus.encode.modalities import Knowledge, encode_corpus
from isthmus.encode.video import SampledFrames
from isthmus.errors import ArtefactError, InputError, SpecError

image = pytest.importorskip("PIL.Image")


def table(names: list[str | None], kind: str = "image") -> pl.DataFrame:
    return pl.DataFrame(
        {"platform": "shop", "item": [str(place) for place in range(len(names))], kind: names},
        schema_overrides={kind: pl.String},
    )


def picture(path: Path, colour: tuple[int, int, int], stripes: int = 0, seed: int = 0) -> None:
    pixels = np.full((80, 60, 3), colour, np.uint8)
    if stripes:
        pixels[(np.arange(80) // stripes) % 2 == 0] //= 3
    noise = np.random.default_rng(seed).integers(0, 12, pixels.shape)
    image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(path)


def huge_png(path: Path, side: int = 20_000) -> None:
    """Write a PNG of a few bytes that says it has side × side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for place in range(4):
        picture(folder / f"red{place}.png", (200, 20, 20), stripes=6, seed=place)
        picture(folder / f"blue{place}.jpg", (20, 20, 200), seed=place)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes((folder / "blue0.jpg").read_bytes()[:400])
    (folder / "text.jpg").write_text("no picture")
    huge_png(folder / "bomb.png")
    return folder


def test_pictures_of_one_look_are_near_and_bad_ones_are_counted(pictures: Path, tmp_path: Path) -> None:
    good = [f"red{place}.png" for place in range(4)] + [f"blue{place}.jpg" for place in range(4)]
    bad = ["empty.jpg", "cut.jpg", "text.jpg", "bomb.png", "none.jpg", None, "../../etc/passwd"]
    encoder = ClassicalImages({"shop": {"image": str(pictures)}}, cache=tmp_path / "cache")
    rows = encoder.encode(table([*good, *bad]))
    assert rows.shape == (15, encoder.dim)
    assert not rows[8:].any()
    assert dict(encoder.counts) == {
        "read": 8, files.EMPTY: 1, files.BROKEN: 2, files.TOO_LARGE: 1, files.MISSING: 1, files.UNNAMED: 2,
    }  # fmt: skip
    likeness = rows[:8] @ rows[:8].T
    same = likeness[:4, :4][np.triu_indices(4, 1)]
    assert same.min() > likeness[:4, 4:].max() + 0.3
    again = ClassicalImages({"shop": {"image": str(pictures)}}, cache=tmp_path / "cache")
    again.read = lambda _: pytest.fail("a picture was read twice")  # type: ignore[method-assign, assignment]
    assert np.array_equal(again.encode(table(good)), rows[:8])


def test_a_file_that_is_too_large_is_not_opened(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClassicalImages, "most_bytes", 10)
    encoder = ClassicalImages({"": {"image": str(pictures)}})
    assert not encoder.encode(table(["red0.png"])).any()
    assert encoder.counts == {files.TOO_LARGE: 1}


def test_nothing_outside_the_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    names = ["a.png", "../out.png", "/etc/passwd", "http://x/y.png", "link.png", "sub/../a.png", "", "a\0b"]
    found = media_paths(table(names), "image", {"shop": {"image": str(folder)}})
    assert [path is not None for path in found] == [True, False, False, False, False, True, False, False]
    assert media_paths(table(["a.png"]), "image", {}) == [None]


def test_a_model_in_a_folder_reads_pictures(pictures: Path, tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    small = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    ViTModel(small).save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
    encoder = ModelImages({"shop": {"image": str(pictures)}}, str(tmp_path / "vit"))
    rows = encoder.encode(table(["red0.png", "cut.jpg", "blue0.jpg"]))
    assert rows.shape == (3, 8)
    assert not rows[1].any()
    assert np.abs(rows[0] - rows[2]).max() > 1e-4
    (tmp_path / "vit" / "preprocessor_config.json").unlink()
    with pytest.raises(ArtefactError, match="image model"):
        ModelImages({"shop": {"image": str(pictures)}}, str(tmp_path / "vit")).encode(table(["red0.png"]))


def tone(path: Path, hertz: float, seconds: float = 1.0) -> None:
    samples = np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE) * 20_000
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, RATE, 0, "NONE", ""))
        sound.writeframes(samples.astype("<i2").tobytes())


def test_sounds_of_one_pitch_are_near(tmp_path: Path) -> None:
    pytest.importorskip("av")
    for name, hertz in (("low1", 200), ("low2", 210), ("high", 3000)):
        tone(tmp_path / f"{name}.wav", hertz)
    (tmp_path / "bad.wav").write_bytes(b"RIFF nothing")
    encoder = LogMel({"shop": {"audio": str(tmp_path)}})
    rows = encoder.encode(table(["low1.wav", "low2.wav", "high.wav", "bad.wav"], "audio"))
    assert rows.shape == (4, 120)
    assert not rows[3].any()
    assert encoder.counts == {"read": 3, files.BROKEN: 1}
    assert np.linalg.norm(rows[0] - rows[1]) < 0.5 * np.linalg.norm(rows[0] - rows[2])


def film(path: Path, colour: tuple[int, int, int]) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for _ in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), colour, np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def test_films_of_one_colour_are_near(tmp_path: Path) -> None:
    for name, colour in (("red1", (220, 0, 0)), ("red2", (220, 10, 0)), ("blue", (0, 0, 220))):
        film(tmp_path / f"{name}.mp4", colour)
    (tmp_path / "bad.mp4").write_bytes(b"\0" * 64)
    told = pl.DataFrame(
        {
            "platform": "shop",
            "item": ["a", "b", "c", "d"],
            "attributes": [f'{{"video": "{name}.mp4"}}' for name in ("red1", "red2", "blue", "bad")],
        }
    )
    encoder = SampledFrames({"shop": {"video": str(tmp_path)}})
    rows = encoder.encode(told)
    assert encoder.counts == {"read": 3, files.BROKEN: 1}
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.3


SPEC = """
name = "shop"
[[source]]
kind = "events"
platform = "shop"
path = "events.csv"
columns = { user = "user", item = "item" }
event = "like"
time = "order"
[[source]]
kind = "items"
platform = "shop"
path = "items.csv"
columns = { item = "item", title = "title", image = "item", audio = "item" }
files = { image = "pictures/{}.png", audio = "sounds/{}.wav" }
[[source]]
kind = "links"
platform = "shop"
path = "items.csv"
columns = { item = "item", entity = "item" }
[[source]]
kind = "edges"
path = "items.csv"
columns = { head = "item", tail = "maker" }
relation = "maker"
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A shop whose items differ in looks, sound and maker; everybody likes one of two kinds. Item 11 is never met."""
    pytest.importorskip("av")
    for folder in ("pictures", "sounds"):
        (tmp_path / folder).mkdir()
    rows = []
    for place in range(12):
        kind = place % 2
        picture(tmp_path / "pictures" / f"{place}.png", (200, 20, 20) if kind else (20, 20, 200), 6 * kind, place)
        tone(tmp_path / "sounds" / f"{place}.wav", 3000 if kind else 200 + place, 0.2)
        rows.append(f"{place},商品 {place},maker{kind}")
    (tmp_path / "items.csv").write_text("item,title,maker\n" + "\n".join(rows), encoding="utf-8")
    rng = np.random.default_rng(0)
    events = [f"u{u},{item}" for u in range(60) for item in 2 * rng.permutation(5)[:4] + u % 2]
    (tmp_path / "events.csv").write_text("user,item\n" + "\n".join(events), encoding="utf-8")
    (tmp_path / "SPEC.toml").write_text(SPEC, encoding="utf-8")
    return tmp_path


def test_from_files_to_lists_with_all_that_is_there(shop: Path, tmp_path: Path) -> None:
    from isthmus.recommender import Recommender
    from isthmus.split.temporal import Split
    from isthmus.train.fit import FitSettings

    corpus = import_corpus(shop / "SPEC.toml", tmp_path / "corpus")
    assert corpus.manifest["graph"]["linked_items"] == 12  # type: ignore[index]
    assert corpus.items["image"][0] == "0.png"
    known = Knowledge.of(corpus, ("graph", "image", "fused"))
    assert known.kinds == ("image", "audio")
    how = FitSettings(methods=("popularity", "graph", "image", "fused"), budget=20.0)
    model = Recommender.fit(Split.make(corpus, protocol="leave-last"), settings=how)
    assert model.targets["shop"].blend.methods == ("popularity", "graph", "image", "fused")
    model.save(tmp_path / "model")
    saved = Recommender.open(tmp_path / "model")
    user = pl.DataFrame({"platform": ["shop"], "user": ["u1"]})
    lists = model.recommend(user, k=3)
    assert lists.equals(saved.recommend(user, k=3))
    told = {"attributes": ['{"entity": "0"}', '{"entity": "1"}'], "image": ["0.png", "1.png"]}
    added = pl.DataFrame({"platform": ["shop"] * 2, "item": ["n0", "n1"], "domain": ["shop"] * 2, **told})
    grown = saved.add_items(added)
    for method in ("graph", "image", "fused"):
        asked = grown.system("shop", method).score(_history(grown, "1", "3"))[0]
        place = {item: n for n, item in enumerate(grown.items["item"][grown.targets["shop"].items])}
        assert asked[place["n1"]] > asked[place["n0"]], method


def _history(model: object, *names: str) -> object:
    from isthmus.data.sequences import Histories

    items = model.items["item"].to_list()  # type: ignore[attr-defined]
    return Histories.of([[items.index(name) for name in names]])


def test_encode_fuses_what_is_named(shop: Path, tmp_path: Path) -> None:
    corpus = import_corpus(shop / "SPEC.toml", tmp_path / "corpus")
    vectors, counts = encode_corpus(corpus, ("graph", "image", "audio"))
    assert counts == {"graph": 12, "image": 12, "audio": 12}
    likeness = vectors.matrix @ vectors.matrix.T
    kinds = corpus.items["item"].cast(pl.Int32).to_numpy() % 2
    same = (kinds[:, None] == kinds) & ~np.eye(12, dtype=bool)
    assert likeness[same].mean() > likeness[kinds[:, None] != kinds].mean() + 0.3
    with pytest.raises(InputError, match="did you mean 'graph'"):
        encode_corpus(corpus, ("grahp",))
    with pytest.raises(InputError, match="nothing for video"):
        encode_corpus(corpus, ("video",))


@pytest.mark.parametrize("template", ["pictures/a.png", "http://shop/{}.png", "{}/{}.png"])
def test_a_template_that_names_no_file_is_refused(shop: Path, tmp_path: Path, template: str) -> None:
    spec = (shop / "SPEC.toml").read_text("utf-8").replace("pictures/{}.png", template)
    (shop / "SPEC.toml").write_text(spec, encoding="utf-8")
    with pytest.raises(SpecError, match="files"):
        import_corpus(shop / "SPEC.toml", tmp_path / "corpus")


def test_open_image_says_why() -> None:
    assert open_image(Path("/nowhere.png")) == files.BROKEN


def test_the_page_and_the_command_go_together(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from isthmus.cli.main import app

    page = text_of("fusion.md")
    (line,) = [line for line in page.splitlines() if line.startswith("isthmus encode CORPUS --with text,graph")]
    corpus = import_corpus(shop / "SPEC.toml", tmp_path / "corpus")
    words = line.replace("CORPUS", str(corpus.path)).replace("VECTORS", str(tmp_path / "vectors")).split()[1:]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "12 of them with a text, 12 of them with a graph" in done.output
    assert (tmp_path / "vectors" / "vectors.json").exists()
    wrong = CliRunner().invoke(app, ["encode", str(corpus.path), "--with", "video"])
    assert wrong.exit_code == 2
    assert "nothing for video" in wrong.output
