"""The samples of a data file, encoded once and kept in files: what every process of every run with the same data reads."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from multiverse.dialect import Dialect
from multiverse.train.samples import Encoder, Sample, SampleError

INDEX = "index.json"  # written last: a folder without it was not finished
LINES = 256  # that a process encodes at a time
ARRAYS = {"ids": np.int32, "positions": np.int32, "owners": np.int32, "loss": np.bool_, "lengths": np.int64, "blocks": np.int32}


class Corpus(Sequence):
    """Samples end to end in flat arrays, mapped from files. `refused`: (line number, reason) of each line that gave none."""

    def __init__(self, folder: Path):
        index = json.loads((folder / INDEX).read_text())
        self.refused: list[tuple[int, str]] = [tuple(pair) for pair in index["refused"]]
        arrays = {name: _map(folder / name, dtype) for name, dtype in ARRAYS.items()}
        self._ids, self._positions, self._loss, self._blocks = (arrays[name] for name in ("ids", "positions", "loss", "blocks"))
        self._owners = arrays["owners"].reshape(-1, index["levels"])
        self.lengths: list[int] = arrays["lengths"].tolist()
        self.parallel: list[bool] = (self._blocks > 0).tolist()
        self._starts: list[int] = [0, *np.cumsum(arrays["lengths"]).tolist()]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        here = slice(self._starts[index], self._starts[index + 1])
        return Sample(self._ids[here], self._positions[here], self._owners[here].T, self._loss[here], int(self._blocks[index]))


def _map(path: Path, dtype) -> np.ndarray:
    return np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.empty(0, dtype)


def fingerprint(data: Path, tokenizer_folder: Path, dialect: str, levels: int, longest: int) -> str:
    """Of all that the encoded samples depend on."""
    digest = hashlib.sha256(json.dumps([dialect, levels, longest]).encode())
    for path in (data, *sorted(p for p in tokenizer_folder.iterdir() if "token" in p.name or p.suffix == ".jinja")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def encode(data: Path, tokenizer_folder: Path, dialect: str, levels: int, longest: int, folder: Path, workers: int = 0) -> Corpus:
    """The samples of a JSONL file, from `folder` if they are there already. `longest`: tokens of a sample. `workers`: processes; 0: as
    many as there are processors, where the file is long enough to be worth one."""
    key = fingerprint(data, tokenizer_folder, dialect, levels, longest)
    index = folder / INDEX
    if index.exists() and json.loads(index.read_text())["key"] == key:
        return Corpus(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index.unlink(missing_ok=True)
    lines = data.read_text(encoding="utf-8").splitlines()
    chunks = [(first + 1, lines[first : first + LINES]) for first in range(0, len(lines), LINES)]
    workers = min(workers or os.cpu_count() or 1, len(chunks) // 2)
    given = (str(tokenizer_folder), dialect, levels, longest)
    refused: list[tuple[int, str]] = []
    files = {name: open(folder / name, "wb") for name in ARRAYS}
    for parts, why in _encoded(chunks, given, workers):
        refused += why
        for name, file in files.items():
            parts[name].tofile(file)
    for file in files.values():
        file.close()
    index.write_text(json.dumps({"key": key, "levels": levels, "refused": refused}) + "\n")
    return Corpus(folder)


def _encoded(chunks, given, workers) -> Iterator:
    if workers < 2:
        _start(*given)
        yield from map(_encode_chunk, chunks)
        return
    # Not forked: the parent may hold a GPU, and has threads.
    with multiprocessing.get_context("spawn").Pool(workers, _start, given) as pool:
        yield from pool.imap(_encode_chunk, chunks)


def _start(tokenizer_folder: str, dialect: str, levels: int, longest: int) -> None:
    from transformers import AutoTokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # processes are enough
    global _encoder, _longest
    folder = Path(tokenizer_folder)
    _encoder = Encoder(AutoTokenizer.from_pretrained(folder), folder / "tokenizer.json", Dialect.load(dialect), levels)
    _longest = longest


def _encode_chunk(chunk: tuple[int, Sequence[str]]) -> tuple[dict[str, np.ndarray], list[tuple[int, str]]]:
    first, lines = chunk
    samples, refused = [], []
    for number, line in enumerate(lines, first):
        try:
            sample = _encoder.encode(json.loads(line)["messages"])
            if len(sample) > _longest:
                raise SampleError(f"it has {len(sample)} tokens and a row has room for {_longest}")
            samples.append(sample)
        except (SampleError, ValueError, KeyError, TypeError) as error:
            refused.append((number, f"{type(error).__name__}: {error}" if not isinstance(error, SampleError) else str(error)))
    columns = {
        "ids": [s.ids for s in samples], "positions": [s.positions for s in samples], "loss": [s.loss for s in samples],
        "owners": [s.owners.T.reshape(-1) for s in samples], "lengths": [[len(s)] for s in samples], "blocks": [[s.blocks] for s in samples],
    }  # fmt: skip
    return {name: np.concatenate([np.empty(0, ARRAYS[name]), *parts], dtype=ARRAYS[name]) for name, parts in columns.items()}, refused
