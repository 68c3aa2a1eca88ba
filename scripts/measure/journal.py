"""An append-only file of JSON lines that survives kill -9: each record is on the disk before the next question is asked."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path


class JournalError(Exception):
    pass


class Journal:
    """One writer at a time, held by a lock. A line that a kill left half written is cut off when the file is opened."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JournalError(f"another run is writing {path}") from error
        self.records = self._recover()

    def append(self, record: dict) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.append(record)

    def close(self) -> None:
        self._file.close()

    def _recover(self) -> list[dict]:
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            self._file.truncate(len(whole))
        records = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise JournalError(f"{self.path}, line {number} is not JSON ({error}); mend or remove it") from error
        return records
