"""The journal: one file per machine and benchmark, appended to and never changed. It is the only state there is.

The first line is the header, every further line a session (one run of a script), the floors that a session found for
one number of threads, or a visit with all of its raw samples.
"""

import contextlib
import os
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import msgspec

from .cases import Case, Visit
from .machine import Machine

SCHEMA = 1


class JournalError(Exception):
    """A journal that cannot be read or gone on with. Its text is one line: what is wrong and what to do."""


class Header(msgspec.Struct, kw_only=True, tag_field="kind", tag="header"):
    schema: int
    benchmark: str
    machine: Machine
    versions: dict[str, str]  # of torch and what else the numbers depend on
    settings: dict[str, object]  # what changes what is measured
    label: str = ""

    @property
    def name(self) -> str:
        """What tables call it: the machine's name, and the label where one was given."""
        return f"{self.machine.name}-{self.label}" if self.label else self.machine.name


class Session(msgspec.Struct, kw_only=True, tag_field="kind", tag="session"):
    number: int
    started: str  # UTC, ISO 8601
    boot_id: str
    commit: str
    load: float  # 1-minute load average before anything was run


class Floor(msgspec.Struct, kw_only=True, tag_field="kind", tag="floor"):
    """What `worker.find_floors` saw in a session before the first case with that many threads."""

    session: int
    threads: int
    started: str
    readings_ms: list[tuple[float, float]]
    peak_gflops: dict[str, float]  # by dtype
    seconds: float = 0  # wall time, with the start of the server where that was needed


Line = Header | Session | Floor | Visit


class Journal:
    """A journal as it stands on disk. `append` writes a line at once: a kill at any moment loses at most that one."""

    def __init__(self, path: Path):
        self.path = path
        self.header: Header
        self.sessions: list[Session] = []
        self.floors: list[Floor] = []
        self.visits: list[Visit] = []

    @classmethod
    def create(cls, path: Path, header: Header) -> "Journal":
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:  # a journal without a whole header never stands there
            draft.write_bytes(msgspec.json.encode(header) + b"\n")
        journal = cls(path)
        journal.take(header)
        return journal

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """Raises JournalError for anything but a journal of this schema. A torn last line, which a kill leaves behind,
        is left out here and cut off by the next `mend`."""
        journal, decoder = cls(path), msgspec.json.Decoder(Line)
        raw = path.read_bytes()
        for number, line in enumerate(whole_lines(raw), 1):
            try:
                journal.take(decoder.decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise JournalError(
                    f"{path}, line {number} is not a journal's: {error}; mend or move the file"
                ) from None
            if number == 1 and not hasattr(journal, "header"):
                raise JournalError(f"{path} does not begin with a header; mend or move the file")
        if not hasattr(journal, "header"):
            raise JournalError(f"{path} is empty; remove it")
        if journal.header.schema != SCHEMA:
            raise JournalError(
                f"{path} has schema {journal.header.schema}, this version reads {SCHEMA}; move it, or use --label"
            )
        return journal

    def take(self, line: Line) -> None:
        match line:
            case Header():
                self.header = line
            case Session():
                self.sessions.append(line)
            case Floor():
                self.floors.append(line)
            case Visit():
                self.visits.append(line)

    def mend(self) -> None:
        """Cut off a torn last line."""
        raw = self.path.read_bytes()
        whole = sum(len(line) + 1 for line in whole_lines(raw))
        if whole < len(raw):
            os.truncate(self.path, whole)

    def append(self, line: Line) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")  # one write
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise JournalError(
                f"{self.path} cannot be written to: {error.strerror}; what it holds is unharmed"
            ) from None
        self.take(line)

    def by_case(self) -> dict[Case, dict[int, Visit]]:
        """Case -> round -> its last visit, in the order in which the cases were first met."""
        found: dict[Case, dict[int, Visit]] = defaultdict(dict)
        for visit in self.visits:
            found[visit.case][visit.round] = visit
        return dict(found)

    def readings(self, session: int, threads: int) -> tuple[list[float], list[tuple[float, float]]]:
        """All readings of the yardsticks in a session with that many threads: seconds since the epoch, (conv, GEMM) ms.

        A visit's readings count as taken at its start: windows are far longer than visits.
        """
        times, readings = [], []
        for line in (*self.floors, *self.visits):
            of = line.threads if isinstance(line, Floor) else line.case.threads
            if line.session == session and of == threads and line.readings_ms:
                times += [datetime.fromisoformat(line.started).timestamp()] * len(line.readings_ms)
                readings += line.readings_ms
        return times, readings

    def difference(self, header: Header) -> str:
        """What keeps a run with that header from going on with this journal, in words; "" where nothing does."""
        for what, here, there in (
            ("benchmark", header.benchmark, self.header.benchmark),
            ("machine", header.machine.name, self.header.machine.name),
        ):
            if here != there:
                return f"{what} {there!r}, not {here!r}"
        for here, there in ((header.versions, self.header.versions), (header.settings, self.header.settings)):
            for key in sorted(here.keys() | there.keys()):
                # A JSON round trip, so that tuples and lists compare equal.
                if plain(here.get(key)) != plain(there.get(key)):
                    return f"{key} {plain(there.get(key))!r}, not {plain(here.get(key))!r}"
        return ""


def read_all(folder: Path) -> list[Journal]:
    """Every journal of a folder in the order of the names that tables give them. Raises JournalError."""
    return sorted((Journal.read(path) for path in folder.glob("*.jsonl")), key=lambda journal: journal.header.name)


def whole_lines(raw: bytes) -> list[bytes]:
    return raw.split(b"\n")[:-1]


def plain(value: object) -> object:
    return msgspec.json.decode(msgspec.json.encode(value))


@contextlib.contextmanager
def replacing(path: Path):
    """A temporary path that takes `path`'s place when the block ends well: readers see the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
