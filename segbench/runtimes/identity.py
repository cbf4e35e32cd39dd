"""What makes a network what it is, as one digest: its weights, all of its other state, and the code that runs."""

from __future__ import annotations

import ast
import collections
import hashlib
import io
import operator
import sys
import sysconfig
import types
import uuid
import weakref
import zipfile
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..machine import installed

if TYPE_CHECKING:
    from torch import Tensor, nn

ONCE = "-once"  # ends a digest that no other call returns
PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes)
DATA = (*PLAIN, list, tuple, dict, set, frozenset, np.ndarray)
# What a class has beside what its author wrote, or that changes nothing.
NO_STATE = ("__dict__", "__weakref__", "__doc__", "_abc_impl")
PACKAGE = __name__.partition(".")[0]
STANDARD = {Path(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib")}
INSTALLED = {"site-packages", "dist-packages"}


class Unreadable(Exception):
    """An object whose state nothing tells."""


def fingerprint(network: nn.Module, example: Tensor, versions: dict[str, str]) -> str:
    """The same for the same network in every process. Other weights, attributes (at any depth), hooks, code of the
    network or of what it imports from its author's folders, another input or version have another. Where an attribute
    cannot be read, as an open file, every call returns another one, that ends with ONCE."""
    walk = Walk()
    try:
        parts = [walk.digest(network), walk.digest([str(example.dtype), tuple(example.shape), versions])]
        return hashed([*parts, *walk.code()]).hex()
    except (Unreadable, RecursionError):
        return uuid.uuid4().hex[:24] + ONCE


def hashed(parts: Iterable[bytes | str | memoryview]) -> bytes:
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.digest()


class Walk:
    """Through everything that an object refers to. Equal objects have equal digests: no address and no order of a set
    enters."""

    def __init__(self) -> None:
        self.digests: dict[int, bytes] = {}  # by id
        self.visited: list[object] = []  # kept alive, so that no id is given away again
        self.modules: set[str] = set()  # in which what it met was defined

    def digest(self, value: Any) -> bytes:
        """Raises Unreadable."""
        if type(value) in PLAIN:
            return hashed([type(value).__name__, repr(value)])
        if id(value) not in self.digests:
            self.visited.append(value)
            self.digests[id(value)] = b"around again"
            self.digests[id(value)] = hashed([type(value).__qualname__, *self.parts(value)])
        return self.digests[id(value)]

    def parts(self, value: Any) -> Iterable[bytes | str | memoryview]:
        import torch

        match value:
            case torch.Tensor():
                return self.of_tensor(value)
            case np.ndarray() if value.dtype != object:
                return [str(value.dtype), str(value.shape), value.tobytes()]
            case set() | frozenset():
                return sorted(map(self.digest, value))
            case dict() if type(value) in (dict, collections.OrderedDict):
                return map(self.digest, (part for item in value.items() for part in item))
            case list() | tuple() if type(value) in (list, tuple):
                return map(self.digest, value)
            case type():
                return self.of_class(value)
            case types.FunctionType():
                return self.of_function(value)
            case types.CodeType():
                return [value.co_code, *map(self.digest, (value.co_names, value.co_varnames, value.co_consts))]
            case types.ModuleType():
                self.modules.add(value.__name__)
                return [value.__name__]
            case types.CellType():
                return [] if value == types.CellType() else [self.digest(value.cell_contents)]
            case property():
                return map(self.digest, (value.fget, value.fset, value.fdel))
            case staticmethod() | classmethod():
                return [self.digest(value.__func__)]
            case weakref.ReferenceType():
                return [self.digest(value())]
            case torch.jit.ScriptModule():
                return of_archive(value.save_to_buffer())
            case torch.fx.Graph():
                code = value.python_code("self")
                return [code.src, self.digest(code.globals)]
            case torch.nn.Module():
                return self.of_module(value)
        return self.of_object(value)

    def of_tensor(self, tensor: Tensor) -> Iterable[bytes | str | memoryview]:
        import torch

        if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
            return [str(tensor.dtype)]
        about = [str(tensor.dtype), str(tuple(tensor.shape))]
        if tensor.is_meta:
            return about
        try:
            return [*about, tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data]
        except (RuntimeError, TypeError):  # sparse and quantised ones
            return self.of_object(tensor)

    def of_module(self, module: nn.Module) -> Iterator[bytes | str]:
        yield self.digest(type(module))
        for name, value in sorted(vars(module).items()):
            yield name  # hooks have for a key how many of them the process had before
            yield self.digest([*value.values()] if name.endswith("_hooks") and isinstance(value, dict) else value)

    def of_class(self, kind: type) -> Iterator[bytes | str]:
        """By its name and its module's source; one that is not found by its name, by all that it holds."""
        self.modules.update(base.__module__ for base in kind.__mro__)
        yield f"{kind.__module__}.{kind.__qualname__}"
        if by_name(kind) is not kind:
            yield from map(self.digest, kind.__bases__)
            for name, value in sorted(vars(kind).items()):
                if name not in NO_STATE:
                    yield name
                    yield self.digest(value)

    def of_function(self, function: types.FunctionType) -> Iterator[bytes | str]:
        """The same, with what it finds in its closure and among the globals."""
        self.modules.add(function.__module__)
        yield f"{function.__module__}.{function.__qualname__}"
        if by_name(function) is not function:
            code = function.__code__
            yield from map(self.digest, (code, function.__defaults__, function.__kwdefaults__, function.__closure__))
            yield from (self.digest(function.__globals__.get(name)) for name in sorted(names_in(code)))

    def of_object(self, value: Any) -> Iterator[bytes | str]:
        """By what pickle would write of it."""
        try:
            reduced = value.__reduce_ex__(2)
        except Exception:
            if type(value).__module__ != "torch" or " at 0x" in repr(value):  # a device, a layout
                raise Unreadable(type(value).__qualname__) from None
            return iter([repr(value)])
        if isinstance(reduced, str):
            return iter([f"{getattr(value, '__module__', '')}.{reduced}"])
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        return map(self.digest, (make, arguments, state, [*(items or ())], [*(pairs or ())]))

    def code(self) -> Iterator[bytes | str]:
        """Of libraries the files that were met, and the versions; of the author's modules all that they import from
        beside them, and the data that they hold."""
        names = {name for name in self.modules if file_of(name)}
        authors = {name for name in names if not is_library(name)}
        yield self.digest(installed(sorted({name.partition(".")[0] for name in names - authors})))
        files = {file_of(name) for name in names} | imported_beside(authors)
        for name, module in sorted(sys.modules.items()):
            if file_of(name) in files and not is_library(name):
                yield self.digest({key: value for key, value in vars(module).items() if is_data(key, value)})
        for file in sorted(files):
            yield file.name
            yield file.read_bytes()


def of_archive(script: bytes) -> Iterator[bytes | str]:
    """What TorchScript saved; it writes the constants of a class in another order in every process."""
    with zipfile.ZipFile(io.BytesIO(script)) as archive:
        for name in archive.namelist():
            if not name.endswith("/serialization_id"):
                data = archive.read(name)
                yield name
                yield b"\n".join(sorted(data.splitlines())) if name.endswith(".py") else data


def by_name(value: type | types.FunctionType) -> object:
    """What its module has under its name."""
    try:
        return operator.attrgetter(value.__qualname__)(sys.modules[value.__module__])
    except (KeyError, AttributeError):
        return None


def names_in(code: types.CodeType) -> set[str]:
    """Names that it may look up among the globals, and those of functions in it."""
    inner = (names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return {*code.co_names}.union(*inner)


def file_of(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file and Path(file).is_file() else None


def is_library(module: str) -> bool:
    """Whether it is installed, Python's own, or this package."""
    file = file_of(module)
    if file is None or module.partition(".")[0] == PACKAGE:
        return True
    return bool(INSTALLED & {*file.parts}) or not STANDARD.isdisjoint(file.parents)


def is_data(name: str, value: object) -> bool:
    return type(value) in DATA and not name.startswith("__")


def imported_beside(names: Iterable[str]) -> set[Path]:
    """Files in the folders of some modules that these import, in whatever function, or that this process did."""
    todo = {(folder_of(name), name) for name in names}
    folders, files = {folder for folder, _ in todo}, set()
    while todo:
        folder, name = todo.pop()
        path = folder.joinpath(*name.split("."))
        for file, package in ((path / "__init__.py", name), (path.parent / f"{path.name}.py", name.rpartition(".")[0])):
            if file.is_file() and file not in files:
                files.add(file)
                todo |= {(folder, other) for other in imports(file, package) if other.partition(".")[0] != PACKAGE}
    ran = {file_of(name) for name in sys.modules if file_of(name) and not is_library(name)}
    return files | {file for file in ran if not folders.isdisjoint(file.parents)}


def folder_of(module: str) -> Path:
    """Where its topmost package lies."""
    file = file_of(module)
    return file.parents[module.count(".") + (file.stem == "__init__")]


def imports(file: Path, package: str) -> Iterator[str]:
    """Modules that a file of a package may import, and packages around them; nothing of one that Python cannot read."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        names = [alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias)]
        if isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            names = [".".join(filter(None, (*parts, node.module, name))) for name in names]
        for name in names:
            yield from accumulate(name.split("."), "{}.{}".format)
