"""A big array on disk, computed once by whoever comes first, and verified whenever it is read.

Beside the binary NAME.bin stands a sealed note NAME.json: bytes a row, shape, type, and of every
block that is done the number of rows and the CRC-32. What was killed goes on at the first block
that is missing, and a damaged block is computed again.
"""

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import AcquireReturnProxy, Timeout
from torch import Tensor
from tqdm import tqdm

from caltech import files
from caltech.amounts import counted
from caltech.errors import DamagedError
from caltech.waiting import TELL_SECONDS, Progress

log = logging.getLogger(__name__)

WAIT_SECONDS = 1.0  # for another process, before that is told


def _bytes_of(values: Tensor) -> np.ndarray:
    """Of a contiguous tensor, row after row; view alone refuses some strides of a length of one."""
    return values.reshape(-1).view(torch.uint8).numpy()


@dataclass(frozen=True)
class CachedArray:
    """A tensor (rows, ...) in a file.

    Args:
        path: ends in .bin; its folder's name is shown at the progress bar.
        rows: how many the whole array has, at least one.
        block_rows: how many are computed at a time, and are then in memory.
        compute: given a range of rows, their values (n, ...) on the CPU, always of one shape and
            type; it also gets a function to call with the number of rows done since the last call.
        doing: what computing is called in the log, with %s for how many images.
        row_bytes: if known, room on the disk is asked for before any work, else after a block.
    """

    path: Path
    rows: int
    block_rows: int
    compute: Callable[[range, Callable[[int], object]], Tensor]
    doing: str
    row_bytes: int = 0

    def ensure(self) -> bool:
        """Compute what is missing, without verifying what is there; whether anything was.

        Raises:
            DiskError: there is no room. What was computed stays; the next call goes on from it.
        """
        return not self.is_complete() and self._complete()

    def is_complete(self) -> bool:
        """Whether every row has been computed; none is verified."""
        return self._is_complete(self._note())

    def read(self) -> Tensor:
        """All rows, every byte verified; memory-mapped, and no change of it reaches the file.

        Raises:
            DiskError: as ensure.
            DamagedError: the disk does not give back what was written to it.
        """
        if (values := self._verified()) is None:
            self._complete()
            values = self._verified()
        if values is None:
            raise DamagedError(f"{self.path} is not what was just written: look after this disk.")
        return values

    def discard(self) -> None:
        """Delete it: it has the name of something else."""
        self._note_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    @property
    def _note_path(self) -> Path:
        return self.path.with_suffix(".json")

    def _is_complete(self, note: Mapping[str, Any]) -> bool:
        rows = sum(rows for rows, _ in note["blocks"])
        return rows == self.rows and self.path.stat().st_size >= rows * note["row_bytes"]

    def _note(self) -> dict[str, Any]:
        """What is known of the file: nothing but what was given if there is no good note."""
        note: dict[str, Any] = {}
        try:
            if self._note_path.is_file() and self.path.is_file():
                note = files.read_sealed_json(self._note_path)
        except DamagedError as error:
            log.warning("%s", error)
        # That of the first version has no blocks.
        return note if "blocks" in note else {"row_bytes": self.row_bytes, "blocks": []}

    def _verified(self) -> Tensor | None:
        """All rows, if all are there and none is damaged."""
        note = self._note()
        if not self._is_complete(note):
            return None
        data = self._map()
        if _differing(data, note["blocks"], note["row_bytes"]):
            return None
        values = torch.from_numpy(data[: self.rows * note["row_bytes"]])
        return values.view(getattr(torch, note["dtype"])).view(note["shape"])

    def _map(self) -> np.ndarray:
        """The file's bytes, copy-on-write, so that a tensor can share the memory."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        return np.memmap(self.path, np.uint8, "c") if size else np.empty(0, np.uint8)

    def _complete(self) -> bool:
        """Compute the blocks that are damaged or missing; whether there were any."""
        with self._alone():
            note = self._note()
            blocks = list(note["blocks"])
            for first in range(sum(rows for rows, _ in blocks), self.rows, self.block_rows):
                blocks.append((min(self.block_rows, self.rows - first), None))
            todo = _differing(self._map(), blocks, note["row_bytes"])
            if todo:  # else another process has computed them while this one waited
                damaged = [number for number in todo if number < len(note["blocks"])]
                if damaged or not note["blocks"]:
                    self._replace(damaged)
                self._compute(blocks, todo, note["row_bytes"])
        return bool(todo)

    def _alone(self) -> AcquireReturnProxy:
        """Its lock, once no other process has it; meanwhile the log says how far that one is."""
        lock, seconds = self.path.with_suffix(".lock"), WAIT_SECONDS
        while True:
            try:
                return files.acquire(lock, timeout=seconds)  # which makes the folder, too
            except Timeout:
                done, seconds = sum(rows for rows, _ in self._note()["blocks"]), TELL_SECONDS
                log.info(
                    "%s: another process computes them, and this one waits: %d of %s",
                    self.path.parent.name, done, counted(self.rows, "image"),
                )  # fmt: skip

    def _compute(self, blocks: list[tuple], todo: Sequence[int], row_bytes: int) -> None:
        """Write one block after the other, and note each once it is written."""
        ends = list(accumulate(rows for rows, _ in blocks))
        count = sum(blocks[number][0] for number in todo)
        log.info(f"{self.doing}\ninto %s", counted(count, "image"), self.path)
        kind = self.path.parent.name
        bar = tqdm(total=self.rows, initial=self.rows - count, desc=kind, disable=None)
        progress = Progress()
        if bar.disable:
            progress = Progress(kind, "images", self.rows - count, self.rows)
        with bar, self.path.open("rb+") as file:
            for number in todo:
                rows = range(ends[number] - blocks[number][0], ends[number])
                missing_bytes = self.rows * row_bytes - self.path.stat().st_size
                files.require_room(self.path, missing_bytes)
                values = self.compute(rows, bar.update).contiguous()
                row_bytes, data = values[0].nbytes, _bytes_of(values)
                # A memory map would end the process (SIGBUS) where this tells of a full disk.
                with files.explaining_full_disk(self.path, max(missing_bytes, data.nbytes)):
                    files.write_at(file.fileno(), data, rows.start * row_bytes)
                    os.fsync(file.fileno())
                blocks[number] = (len(rows), files.sum_of(data))
                note = {"row_bytes": row_bytes, "shape": [self.rows, *values.shape[1:]]}
                note["dtype"] = str(values.dtype).removeprefix("torch.")
                note["blocks"] = [block for block in blocks if block[1] is not None]
                files.write_sealed_json(self._note_path, note)
                progress.tell(sum(rows for rows, _ in note["blocks"]))

    def _replace(self, damaged: Sequence[int]) -> None:
        """Go on in another file: a process may have mapped the one that was complete."""
        reason = "checksums are missing (an earlier version wrote it, or they were lost); all"
        if damaged:
            reason = f"blocks {', '.join(map(str, damaged))} do not match their checksums; each"
        if len(self._map()):
            log.warning("%s: %s is computed again.", self.path, reason)
        with files.replacing(self.path) as fresh:
            shutil.copyfile(self.path, fresh) if damaged else fresh.touch()


def _differing(data: np.ndarray, blocks: Sequence[tuple], row_bytes: int) -> list[int]:
    """Which blocks (rows, CRC-32) are missing or do not match, read by as many threads as cores."""

    def differs(end: int, block: tuple) -> bool:
        rows, checksum = block
        return checksum != files.sum_of(data[(end - rows) * row_bytes : end * row_bytes])

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = list(pool.map(differs, accumulate(rows for rows, _ in blocks), blocks))
    return [number for number, is_different in enumerate(found) if is_different]
