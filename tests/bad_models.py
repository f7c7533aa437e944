"""Models nobody should serve: damaged, made up, and made to do harm."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from isthmus.files import json_text, sha256
from isthmus.recommender.closed import sealed

Damage = Callable[[Path], None]
BINARY = ("items.parquet", "accounts.parquet", "events.parquet", "features.safetensors", "target-0.safetensors")
FILES = (*BINARY, "target-0-knn.safetensors", "target-1-popularity.safetensors", "tfidf.json")


def reseal(folder: Path, **changed: object) -> None:
    """Write a manifest that names the files as they are: whoever made the folder knew how."""
    manifest = json.loads((folder / "model.json").read_text())
    manifest.pop("sha256")
    names = {name for name in manifest["files"] if os.path.isfile(folder / name)}
    manifest["files"] = {name: sha256(folder / name) for name in sorted(names)}
    manifest.update(changed)
    (folder / "model.json").write_text(json_text(sealed(manifest)))


def declare(folder: Path, name: str, digest: str = "") -> None:
    """Name one more file in the manifest."""
    manifest = json.loads((folder / "model.json").read_text())
    reseal(folder, files={**manifest["files"], name: digest or sha256(folder / name)})


def cut(name: str, share: float, *, knowing: bool) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])
        if knowing:
            reseal(folder)

    return damage


def arrays(name: str, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Damage:
    def damage(folder: Path) -> None:
        made = change({key: array.copy() for key, array in load_file(folder / name).items()})
        save_file({key: np.ascontiguousarray(array) for key, array in made.items()}, folder / name)
        reseal(folder)

    return damage


def poisoned(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for array in found.values():
        if array.dtype.kind == "f" and array.size:
            array.flat[array.size // 2] = np.nan
    return found


def shorter(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array[: array.shape[0] // 2] for name, array in found.items()}


def renamed(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}x": array for name, array in found.items()}


def as_text(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.frombuffer(array.tobytes(), np.uint8) for name, array in found.items()}


def other_catalogue(folder: Path) -> None:
    pl.read_parquet(folder / "items.parquet").head(7).write_parquet(folder / "items.parquet")
    reseal(folder)


def other_columns(name: str) -> Damage:
    def damage(folder: Path) -> None:
        pl.DataFrame({"a": ["b"]}).write_parquet(folder / name)
        reseal(folder)

    return damage


def of_format(number: object) -> Damage:
    return lambda folder: reseal(folder, format=number)


def written(name: str, content: bytes, *, declared: bool) -> Damage:
    """Put a file into the folder, as if it belonged there or not."""

    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)
        if declared:
            declare(folder, name)

    return damage


def manifest(**changed: object) -> Damage:
    return lambda folder: reseal(folder, **changed)


def damaged() -> Iterator[tuple[str, Damage]]:
    """Yield 50 ways in which a model comes to harm."""
    for name in FILES:
        yield f"half of {name}", cut(name, 0.5, knowing=False)
        yield f"half of {name}, sealed", cut(name, 0.5, knowing=True)
        yield f"no {name}", lambda folder, name=name: (folder / name).unlink()  # type: ignore[misc]
        yield f"empty {name}, sealed", cut(name, 0.0, knowing=True)
    for name in ("target-0-knn.safetensors", "target-1-popularity.safetensors", "features.safetensors"):
        for change in (poisoned, shorter, renamed, as_text):
            yield f"{change.__name__} {name}", arrays(name, change)
    yield "other catalogue", other_catalogue
    for name in ("items.parquet", "events.parquet", "accounts.parquet"):
        yield f"other columns in {name}", other_columns(name)
    yield "newer", of_format(4)
    yield "a word for a format", of_format("3")


class Harm:
    """Runs a command when it is read as a pickle."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.canary}",)


def harmful(canary: Path) -> Iterator[tuple[str, Damage]]:
    """Yield 30 models made to run a command, or to read or fill what is not theirs."""
    evil = pickle.dumps(Harm(canary))
    for name in ("pytorch_model.bin", "weights.pt", "model.pkl", "model.joblib", "optimizer.pth"):
        yield f"{name} lies there", written(name, evil, declared=False)
        yield f"{name} is declared", written(name, evil, declared=True)
    for name in ("target-0-knn.safetensors", "items.parquet", "tfidf.json"):
        yield f"a pickle called {name}", written(name, evil, declared=True)
    held = io.BytesIO()
    np.save(held, np.array([Harm(canary)], dtype=object), allow_pickle=True)
    yield "object array", written("features.npy", held.getvalue(), declared=True)
    yield "YAML tag", written("a.yaml", b"!!python/object/apply:os.system ['touch x']", declared=True)
    chat = json.dumps({"chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}"}).encode()
    yield "chat template", written("tokenizer_config.json", chat, declared=False)
    yield "remote code", written("config.json", b'{"auto_map": {"AutoModel": "evil.Model"}}', declared=False)
    yield "program", written("evil.py", b"import os", declared=False)
    yield "archives", lambda folder: _archives(folder)
    yield "graph with data elsewhere", written("model.onnx", b"\x08\x07data/../../../etc/passwd", declared=True)
    yield "link", lambda folder: _link(folder / "items.parquet", Path("/etc/passwd"))
    yield "linked folder", lambda folder: (folder / "more").symlink_to("/etc")
    yield "folder", lambda folder: (folder / "more").mkdir()
    yield "pipe", lambda folder: _pipe(folder / "items.parquet")
    yield "name outside", lambda folder: declare(folder, "../../../../etc/passwd", "0" * 64)
    yield "name from the root", lambda folder: declare(folder, "/etc/passwd", sha256(Path("/etc/passwd")))
    yield "endless header", written("target-0.safetensors", (1 << 62).to_bytes(8, "little") + b"{}", declared=True)
    huge = json.dumps({"items": {"dtype": "I32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    yield "endless array", written("target-0.safetensors", len(huge).to_bytes(8, "little") + huge, declared=True)
    yield "deep JSON", written("model.json", b'{"format": ' + b"[" * 100_000, declared=False)
    yield "unknown method", manifest(targets=[{"domain": "source", "methods": [{"name": "os.system", "settings": {}}]}])


def _archives(folder: Path) -> None:
    with zipfile.ZipFile(folder / "items.parquet", "w") as archive:
        archive.writestr("../../evil.py", "import os")
    with tarfile.open(folder / "events.parquet", "w") as archive:
        archive.addfile(tarfile.TarInfo("../../evil.py"))
    reseal(folder)


def _link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def tampered(rng: np.random.Generator, other: Path) -> Iterator[tuple[str, Damage]]:
    """Yield ways to change a signed model, without end; ``other`` is one signed by somebody else."""

    def flip(folder: Path) -> None:
        files = sorted(file for file in folder.iterdir() if file.name != "consents.json")
        file = files[int(rng.integers(len(files)))]
        flip_byte(file, rng)

    def better_weights(folder: Path) -> None:
        said = json.loads((folder / "model.json").read_text())
        said["targets"][0]["level"] = float(rng.random())
        reseal(folder, targets=said["targets"])

    def another_file(folder: Path) -> None:
        arrays("target-0-popularity.safetensors", lambda found: {n: a + rng.random() for n, a in found.items()})(folder)

    def theirs(folder: Path) -> None:
        shutil.copy(other / "signature.json", folder / "signature.json")

    def whole(folder: Path) -> None:
        shutil.rmtree(folder)
        shutil.copytree(other, folder)

    def said(**changed: object) -> Damage:
        def damage(folder: Path) -> None:
            content = {**json.loads((folder / "signature.json").read_text()), **changed}
            (folder / "signature.json").write_text(json_text(content))

        return damage

    while True:
        yield "a byte", flip
        yield "weights, sealed again", better_weights
        yield "a file, sealed again", another_file
        yield "a signature of somebody else", theirs
        yield "all by somebody else", whole
        yield "no signature", lambda folder: (folder / "signature.json").unlink()
        yield "another algorithm", said(algorithm="none")
        yield "a made-up signature", said(signature=rng.bytes(64).hex())
        yield "an empty signature", said(signature="")
        yield "one file more", written("more.json", rng.bytes(8), declared=False)


def flip_byte(file: Path, rng: np.random.Generator) -> None:
    """Change one byte to another one."""
    content = bytearray(file.read_bytes())
    content[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
    file.write_bytes(bytes(content))


def digest(folder: Path) -> str:
    """Return a hash of all bytes of a folder."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(folder.iterdir()))).hexdigest()
