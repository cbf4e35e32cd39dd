"""The run log: a folder per machine, a file per session, appended to and never changed. It is the only state there is.

`run_logs/<machine>[-label]/<session>.jsonl`: the first line is the header of the session, every further line the
speed of the machine with one number of threads, or a run with all of its raw samples. Two nodes, two people or two pull
requests never write into one file.
"""

import codecs
import contextlib
import os
import secrets
import stat
from collections import Counter
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import msgspec

from .cases import MEASURED, Case
from .problem import Problem
from .records import DECODERS, FILE_NAMES, SCHEMA, Header, MachineSpeed, Run, decoded, renamed

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
LATER = {"in_chans": 3}  # settings that older sessions do not name, and what they had


class RunLog:
    """All sessions of one machine, as they stand on disk. `append` writes a line at once: a kill at any moment loses at
    most that one."""

    def __init__(self, folder: Path, benchmark: str = ""):
        """`benchmark`: the one whose sessions these must be; by default that of the first."""
        self.folder, self.benchmark = folder, benchmark
        self.headers: dict[str, Header] = {}  # by session, in the order of their starts
        self.versions: dict[str, str] = {}  # of all sessions together
        self.machine_speeds: list[MachineSpeed] = []
        self.runs: list[Run] = []
        self.session = ""  # that is being written

    @classmethod
    def read(cls, folder: Path, benchmark: str = "") -> "RunLog":
        """Raises Problem for anything but sessions of one benchmark on one kind of machine, with the same settings
        and versions. A session counts once, however many copies of its file there are."""
        run_log = cls(folder, benchmark)
        sessions: dict[bytes, tuple[str, set[bytes]]] = {}  # header -> name and lines, whatever copies are called
        for path in session_files(folder):
            lines = lines_of(path)
            session, known = sessions.setdefault(lines[0], (path.stem, set())) if lines else ("", set())
            schema = SCHEMA
            for number, text in enumerate(lines, 1):
                if text in known or not text.strip():
                    continue
                try:
                    line = decoded(text, schema)
                except UNREADABLE as error:
                    problem = f"{path}, line {number} is not a run log's: {error}; mend or move the file"
                    raise Problem(problem) from None
                if (number == 1) != isinstance(line, Header):
                    raise Problem(f"{path}, line {number}: a header is the first line, and no other; move the file")
                if number == 1:
                    schema = line.schema
                    run_log.check(path, line)
                run_log.take(line, session)
                known.add(text)
        return run_log

    def check(self, path: Path, header: Header) -> None:
        """Raises Problem where a session does not belong to those that were read before."""
        if not self.name.isprintable():
            raise Problem(f"{str(self.folder)!r}: rename it, tables and pages cannot show that name")
        if header.schema not in DECODERS:
            known = " and ".join(map(str, DECODERS))
            raise Problem(f"{path} has schema {header.schema}, this version reads {known}; move it")
        machine = header.machine.name
        if self.name != machine and not self.name.startswith(f"{machine}-"):
            raise Problem(f"{path} is of {machine}: move it to a folder of that name, or {machine}-LABEL")
        self.benchmark = self.benchmark or header.benchmark
        if (other := header.benchmark) != self.benchmark:
            raise Problem(f"{path} is of the benchmark {other}, not of {self.benchmark}: move it to that one's folder")
        if difference := self.difference(header):
            raise Problem(f"{path}: the sessions before it were measured with {difference}; move it to {machine}-LABEL")

    def difference(self, header: Header) -> str:
        """Why a session does not belong to this run log, in words; "" where it does. Versions of packages that only one
        of both uses do not matter."""
        if not self.headers:
            return ""
        machines = self.header.machine, header.machine
        pairs = [("machine", *(machine.name for machine in machines))]
        pairs += [("instruction sets", *(", ".join(sorted(machine.isa)) for machine in machines))]
        memory, here = [session.machine.ram_gb for session in self.headers.values()], header.machine.ram_gb
        pairs += [("memory in GB", gb, here) for gb in memory if gb and here and not gb / 2 <= here <= 2 * gb]
        shared = sorted(self.versions.keys() & header.versions.keys())
        pairs += [(package, self.versions[package], header.versions[package]) for package in shared]
        # After a round trip through JSON, tuples and lists compare equal.
        mine, theirs = (
            msgspec.json.decode(msgspec.json.encode(LATER | session.settings)) for session in (self.header, header)
        )
        pairs += [(key, mine.get(key), theirs.get(key)) for key in sorted(mine.keys() | theirs.keys())]
        return next((f"{key} {mine!r}, not {theirs!r}" for key, mine, theirs in pairs if mine != theirs), "")

    def take(self, line: Header | MachineSpeed | Run, session: str) -> None:
        if isinstance(line, Header):
            self.headers[session] = line
            self.versions |= line.versions
            return
        line.session = session
        if isinstance(line, MachineSpeed):
            self.machine_speeds.append(line)
        else:
            self.runs.append(line)

    @property
    def header(self) -> Header:
        """Of the latest session. Machine, settings and versions are those of all."""
        return next(reversed(self.headers.values()))

    @property
    def name(self) -> str:
        """Its name in tables: the machine, and the label where it has one."""
        return Path(os.path.abspath(self.folder)).name  # noqa: PTH100 (of `.` too, and a link's own)

    def begin(self, header: Header) -> None:
        """Begin a session in a file of its own, of the schema that this version writes."""
        header = msgspec.structs.replace(header, schema=SCHEMA)
        start = datetime.fromisoformat(header.started).astimezone(UTC)
        self.session = f"{start:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as draft, draft.open("wb") as file:  # a header is there whole, or not at all
                file.write(msgspec.json.encode(renamed(header, FILE_NAMES)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Problem(f"{self.folder} cannot be written to: {error.strerror}") from None
        self.take(header, self.session)

    @property
    def path(self) -> Path:
        """File of the session that is being written."""
        return self.folder / f"{self.session}.jsonl"

    def append(self, line: MachineSpeed | Run) -> None:
        """Add to the session that was begun. Raises Problem where the file cannot be written to."""
        try:
            with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_APPEND), "ab") as file:  # never a file without header
                file.write(msgspec.json.encode(renamed(line, FILE_NAMES)) + b"\n")  # one write
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            problem = f"{self.path} cannot be written to: {error.strerror}; what it holds is unharmed"
            raise Problem(problem) from None
        self.take(line, self.session)

    def host_of(self) -> dict[str, str]:
        """Session -> name of its host: the first eight characters of the boot id of the host's earliest session, "" for
        sessions without one."""
        names: dict[str, str] = {}  # by id of the host
        for header in self.headers.values():
            known_names = [name for host_id, name in names.items() if host_id in header.host_ids]
            name = [*known_names, (header.boot_id or header.host)[:8]][0]
            names = {host_id: name if known in known_names else known for host_id, known in names.items()}
            names |= dict.fromkeys(header.host_ids, name)
        return {session: names[min(header.host_ids)] for session, header in self.headers.items()}

    def hosts(self) -> dict[str, list[str]]:
        """Host -> its sessions, the one with most runs first."""
        host_of, runs = self.host_of(), Counter(run.session for run in self.runs)
        sessions: dict[str, list[str]] = {}
        for session, host in host_of.items():
            sessions.setdefault(host, []).append(session)
        return dict(sorted(sessions.items(), key=lambda pair: -sum(runs[session] for session in pair[1])))

    def others(self, header: Header) -> dict[str, list[str]]:
        """`hosts` without the one that `header` is of."""
        return {
            host: sessions
            for host, sessions in self.hosts().items()
            if not any(header.host_ids & self.headers[session].host_ids for session in sessions)
        }

    def host_like(self, header: Header) -> str:
        """The host that `header` is of; "" where none of the sessions is."""
        others = self.others(header)
        return next((host for host in self.hosts() if host not in others), "")

    def by_case(self) -> dict[Case, list[Run]]:
        """Case -> the runs that count, in the order in which the cases were first met. Every run that was measured
        counts; of a round that a host could not measure only the last one, which says why."""
        host_of = self.host_of()
        rounds_of_case: dict[Case, dict[tuple[str, int], list[Run]]] = {}
        for run in self.runs:
            rounds, key = rounds_of_case.setdefault(run.case, {}), (host_of.get(run.session, ""), run.round)
            measured = [earlier for earlier in rounds.get(key, []) if earlier.status in MEASURED]
            rounds[key] = [*measured, run] if run.status in MEASURED else measured or [run]
        return {case: list(chain.from_iterable(rounds.values())) for case, rounds in rounds_of_case.items()}


def read_all(root: Path, benchmark: str = "", without: Path | None = None) -> list[RunLog]:
    """Every run log of a folder, by name, but for the one of the folder `without`. Raises Problem, also where one is
    not of `benchmark`, or a session lies in two of them."""
    run_logs = [RunLog.read(folder, benchmark) for folder in listed(root) if folder.is_dir() and folder != without]
    places: dict[bytes, Path] = {}
    for run_log in run_logs:
        for session, header in run_log.headers.items():
            path = run_log.folder / f"{session}.jsonl"
            first = places.setdefault(msgspec.json.encode(header), path)
            if first != path:
                raise Problem(f"{path} is a copy of {first}: remove one of them, or it counts twice")
    return [run_log for run_log in run_logs if run_log.headers]


def session_files(folder: Path) -> list[Path]:
    """The files of a run log, in the order of their starts, a copy after what it was made of; drafts are hidden."""
    return sorted((path for path in listed(folder) if path.suffix == ".jsonl"), key=lambda path: path.stem)


def listed(folder: Path) -> list[Path]:
    """What is not hidden in a folder, by name; nothing where there is none. Raises Problem where it cannot be read,
    which glob would take for empty."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Problem(f"{folder} cannot be read: {error.strerror}; it should be a folder of run logs") from None


def lines_of(path: Path) -> list[bytes]:
    """A session's lines, with whatever an editor or git ends them. Raises Problem for what is no file.

    A last line that is not whole was torn by a kill or filled with zero bytes by a crash, and stays, for no session
    appends to another's file; of a file without any other line, a crash of the machine left nothing.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise OSError(0, "Not a file")  # to read a named pipe is to wait for ever
        text = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        target = f", a link to {path.readlink()}," if path.is_symlink() else ""
        raise Problem(f"{path}{target} cannot be read: {error.strerror}; move it, or get the file") from None
    lines = text.splitlines()
    torn = not text.endswith((b"\n", b"\r")) and lines and lines[-1].startswith((b"{", b"\0"))
    return lines[:-1] if torn and not is_json(lines[-1]) else lines


def is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except UNREADABLE:
        return False
    return True


def of_another_host(path: Path, header: Header) -> bool:
    """Whether a session is of another host than `header`; not where that cannot be read."""
    try:
        return not msgspec.json.decode(lines_of(path)[0], type=Header).host_ids & header.host_ids
    except (IndexError, Problem, *UNREADABLE):
        return False


@contextlib.contextmanager
def replacing(path: Path):
    """A temporary path that takes `path`'s place when the block ends well: readers see the old file or the new one."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")  # other nodes have our process id too
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
