"""What the flat format does not hold natively: pickles by value, and exceptions with all they
carry.

Called by the binding, on both sides, and imported only when first needed.
"""

import functools
import io
import pickle
import sys
import weakref
from collections import ChainMap
from collections.abc import Callable
from contextvars import ContextVar
from types import CellType, CodeType, FrameType, FunctionType, TracebackType
from typing import Any, ClassVar, Final, NamedTuple

import cloudpickle

from plait import _initial
from plait._errors import RemoteError

_FILENAME: Final = 10  # the place of co_filename among CodeType's arguments

# ---- pickles ----


def dumps(obj: object) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """The object as a pickle of protocol 5, by value where it cannot be imported, and its large
    buffers.

    Raises pickle.PicklingError naming what inside the object cannot travel, and the way out.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        return dump(obj, buffers), buffers
    except RecursionError:
        raise
    except Exception as error:
        raise pickle.PicklingError(_explain(obj, error)) from error


def dump(obj: object, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """The object as a pickle, its large buffers in the list if there is one; raises whatever it
    does.
    """
    callback = None if buffers is None else buffers.append
    with io.BytesIO() as file:
        _Pickler(file, protocol=5, buffer_callback=callback).dump(obj)
        return file.getvalue()


def _reduce_variable(variable: ContextVar[Any]) -> Any:
    from plait import _context  # here: few programs have such variables in what travels

    return _context.reduce(variable)


def _reduce_code(code: CodeType) -> Any:
    """As cloudpickle does, which from 3.1.3 on leaves out the name of the file; but tracebacks find
    the source lines by it, and warnings their place.
    """
    make, arguments = cloudpickle.cloudpickle._code_reduce(code)
    return make, (*arguments[:_FILENAME], code.co_filename, *arguments[_FILENAME + 1 :])


def _reduce_cached(function: Any) -> Any:
    if cloudpickle.cloudpickle._lookup_module_and_qualname(function) is not None:
        return function.__reduce__()  # its name
    return _cached, (function.__wrapped__, function.cache_parameters())


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _reduce_weak(mapping: weakref.WeakKeyDictionary[Any, Any]) -> Any:
    entries = dict(mapping)
    if all(isinstance(key, type) for key in entries):
        return weakref.WeakKeyDictionary, (entries,)  # as functools.singledispatch has one
    return mapping.__reduce_ex__(pickle.HIGHEST_PROTOCOL)  # fails: a worker would have no keys


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Cloudpickle's, with what that leaves out: context variables, functions with a cache or with
    variants for types, and the slots of classes.
    """

    dispatch_table: ClassVar[Any] = ChainMap(
        {
            CodeType: _reduce_code,
            ContextVar: _reduce_variable,
            functools._lru_cache_wrapper: _reduce_cached,
            weakref.WeakKeyDictionary: _reduce_weak,
        },
        cloudpickle.Pickler.dispatch_table,
    )

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType):
            return super().reducer_override(obj)
        if not issubclass(type(obj), type):
            return NotImplemented
        reduced = super().reducer_override(obj)
        if isinstance(reduced, tuple) and reduced[0] is _skeleton and "__slots__" in obj.__dict__:
            reduced[1][3]["__slots__"] = obj.__slots__  # the arguments' namespace
        return reduced


_skeleton = cloudpickle.cloudpickle._make_skeleton_class


def loads(data: bytes, buffers: tuple[Any, ...] = ()) -> Any:
    """The object that dumps() was given."""
    if b"_class_setstate" in data or (_initial.exists() and b"_function_setstate" in data):
        return _Unpickler(io.BytesIO(data), buffers=buffers).load()
    return pickle.loads(data, buffers=buffers)


# Classes that came to this interpreter by value; those that began here are not among them.
_arrived: weakref.WeakSet[type] = weakref.WeakSet()


class _Unpickler(pickle.Unpickler):
    """Gives functions what an initializer left behind for them, and leaves a class that began here
    as it is when an instance of it comes back.

    cloudpickle recognises the class by its tracker id, but then sets all its attributes to what
    they were when the class was sent. That is right where the class arrived, and takes updates
    along; at home it would replace its methods by copies and undo what has changed since.
    """

    def find_class(self, module_name: str, name: str, /) -> Any:
        if module_name == "cloudpickle.cloudpickle" and name in _replacements:
            return _replacements[name]
        return super().find_class(module_name, name)


def _make_class(make: Callable[..., type], tracker_id: str, *arguments: Any) -> type:
    known = tracker_id in cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID
    made = make(*arguments)
    if not known:
        _arrived.add(made)
    return made


def _make_skeleton_class(*arguments: Any) -> type:
    return _make_class(cloudpickle.cloudpickle._make_skeleton_class, arguments[4], *arguments)


def _make_skeleton_enum(*arguments: Any) -> type:
    return _make_class(cloudpickle.cloudpickle._make_skeleton_enum, arguments[5], *arguments)


def _class_setstate(made: type, state: Any) -> type:
    if made not in _arrived or all(_same(made.__dict__.get(n), v) for n, v in state[0].items()):
        return made  # at home here; or nothing new, and setting an attribute of a class is dear
    updated: type = cloudpickle.cloudpickle._class_setstate(made, state)
    return updated


def _function_setstate(function: FunctionType, state: Any) -> None:
    came = dict(state[1]["__globals__"])
    cloudpickle.cloudpickle._function_setstate(function, state)
    _initial.adopt(function.__globals__, came)


def _same(old: Any, new: Any) -> bool:
    """Whether what a class has and what came for it are alike; when in doubt, not."""
    if type(old) is not type(new):
        return False
    if isinstance(old, FunctionType):
        names = [name for name in new.__code__.co_names if name in new.__globals__]
        return (
            old.__code__ == new.__code__
            and _same(old.__defaults__, new.__defaults__)
            and _same(old.__kwdefaults__, new.__kwdefaults__)
            and old.__closure__ is new.__closure__ is None
            and all(_same(old.__globals__.get(name), new.__globals__[name]) for name in names)
        )
    if isinstance(old, (staticmethod, classmethod)):
        return _same(old.__func__, new.__func__)
    plain = (type(None), bool, int, float, complex, str, bytes, tuple)
    return old is new or (type(old) in plain and bool(old == new))


_replacements = {
    "_make_skeleton_class": _make_skeleton_class,
    "_make_skeleton_enum": _make_skeleton_enum,
    "_class_setstate": _class_setstate,
    "_function_setstate": _function_setstate,
}


def _travels(obj: object) -> bool:
    try:
        dump(obj)
    except Exception:
        return False
    return True


def _parts(obj: object) -> list[tuple[str, object]]:
    """The direct parts of an object, each with how to write it after the object's own name."""
    if isinstance(obj, dict):
        return [(f"[{_name(key)}]", value) for key, value in obj.items()]
    if isinstance(obj, (list, tuple)):
        return [(f"[{index}]", value) for index, value in enumerate(obj)]
    parts: list[tuple[str, object]] = []
    closure = getattr(obj, "__closure__", None)
    if closure:
        names = obj.__code__.co_freevars  # type: ignore[attr-defined]
        parts += [
            (f", its variable {name!r}", cell.cell_contents)
            for name, cell in zip(names, closure, strict=True)
            if cell != CellType()  # empty ones equal each other
        ]
    code, variables = getattr(obj, "__code__", None), getattr(obj, "__globals__", None)
    if code is not None and variables is not None:
        parts += [(f", its global {n!r}", variables[n]) for n in code.co_names if n in variables]
    state = getattr(obj, "__dict__", None)
    if isinstance(state, dict) and not isinstance(obj, type):
        parts += [(f".{name}", value) for name, value in state.items()]
    return parts


def _name(obj: object) -> str:
    """What an object may be called in a message: nothing of the object's own is run for it."""
    if type(obj) in (str, int, bool, float):
        return repr(obj)
    named = getattr(obj, "__qualname__", None)
    return named if isinstance(named, str) else f"a {type(obj).__qualname__}"


def _culprit(obj: object, path: str, depth: int = 8) -> tuple[str, object]:
    for suffix, part in _parts(obj) if depth else []:
        if not _travels(part):
            return _culprit(part, path + suffix, depth - 1)
    return path, obj


def _explain(obj: object, error: Exception) -> str:
    path, culprit = _culprit(obj, _name(obj))
    what = _name(culprit) if path == _name(culprit) else f"{path} ({_name(culprit)})"
    return (
        f"{what} cannot travel to another interpreter: {error}. "
        "Create it inside the function that the workers run, pass what it is made from instead, "
        "or use kind='thread', whose workers share objects"
    )


# ---- exceptions ----


class _Frame(NamedTuple):
    """One entry of a traceback; columns count UTF-8 bytes from 0, None where unknown."""

    filename: str
    name: str
    first_line: int  # of the code; with it and the name linecache finds what is in no file
    line: int
    end_line: int | None
    column: int | None
    end_column: int | None


# One exception of a chain or group: (pickle, frames, cause, context, suppress_context, members,
# type name, text); cause and context are indices into the list of all records, members lists of
# them, None for none.
_Record = tuple[
    bytes | None, list[_Frame], int | None, int | None, bool, list[int] | None, str, str
]


def _text(error: BaseException) -> str:
    import traceback  # here, and below: it brings much along, and most workers never need it

    try:
        return "".join(traceback.format_exception(error))
    except Exception:
        return ""


def dump_exception(error: BaseException) -> tuple[bytes | None, str, str]:
    """An exception with its causes, contexts, members, notes and tracebacks, as natively encodable
    data.

    (pickle of records or None, type name, text with traceback).
    """
    if isinstance(error, MemoryError):
        from plait import _limits  # here: few errors are

        _limits.explain(error)
    records: list[_Record] = []
    name, text = type(error).__qualname__, _text(error)
    try:
        _record(error, records, {})
        return pickle.dumps([_plain(record) for record in records]), name, text
    except Exception:
        return None, name, text


def _plain(record: _Record) -> tuple[Any, ...]:
    return (record[0], [tuple(frame) for frame in record[1]], *record[2:])


def _record(error: BaseException, records: list[_Record], known: dict[int, int]) -> int:
    """Adds the record of an exception, and of those it leads to; returns its index."""
    if id(error) in known:
        return known[id(error)]
    import traceback

    index = known[id(error)] = len(records)
    records.append(
        (None, [], None, None, False, None, "", "")
    )  # its place, for chains that lead back

    def follow(other: BaseException | None) -> int | None:
        return None if other is None else _record(other, records, known)

    members = None
    if isinstance(error, BaseExceptionGroup):
        members = [_record(member, records, known) for member in error.exceptions]
    records[index] = (
        _dump_one(error),
        [
            _Frame(
                entry.filename,
                frame.f_code.co_qualname,
                frame.f_code.co_firstlineno,
                entry.lineno or 1,
                entry.end_lineno,
                entry.colno,
                entry.end_colno,
            )
            for (frame, _), entry in zip(
                traceback.walk_tb(error.__traceback__),
                traceback.extract_tb(error.__traceback__),
                strict=False,
            )
        ],
        follow(error.__cause__),
        follow(error.__context__),
        error.__suppress_context__,
        members,
        type(error).__qualname__,
        str(error) if type(error).__str__ is BaseException.__str__ else _text(error),
    )
    return index


def _dump_one(error: BaseException) -> bytes | None:
    """The exception's pickle, if it can be had and read again: many classes cannot."""
    try:
        data = dump(error)
        loads(data)
    except Exception:
        return None
    return data


def load_exception(dumped: tuple[bytes | None, str, str] | tuple[str]) -> BaseException:
    """The exception that dump_exception() was given, or a RemoteError in its stead.

    A text alone is what the core found wrong.
    """
    if len(dumped) == 1:
        return RuntimeError(dumped[0])
    if len(dumped) != 3 or dumped[0] is None:
        return RemoteError(*(str(part) for part in dumped[1:]))
    records = pickle.loads(dumped[0])
    errors = [_revive(record) for record in records]
    for error, record in zip(errors, records, strict=True):
        _, frames, cause, context, suppress, _, _, _ = record
        error.__cause__ = None if cause is None else errors[cause]
        error.__context__ = None if context is None else errors[context]
        error.__suppress_context__ = suppress
        error.__traceback__ = _traceback([_Frame(*frame) for frame in frames])
    for error, record in zip(errors, records, strict=True):
        members = record[5]
        if members is not None and isinstance(error, BaseExceptionGroup):
            for own, member in zip(error.exceptions, members, strict=True):
                _adopt(own, errors[member])
    return errors[0]


def _adopt(own: BaseException, full: BaseException) -> None:
    """A group's own members were pickled with it: give them what their own records carry."""
    own.__cause__, own.__context__ = full.__cause__, full.__context__
    own.__suppress_context__, own.__traceback__ = full.__suppress_context__, full.__traceback__


def _revive(record: _Record) -> BaseException:
    try:
        error = loads(record[0]) if record[0] is not None else None
    except Exception:
        error = None
    return error if isinstance(error, BaseException) else RemoteError(record[6], record[7])


def _traceback(frames: list[_Frame]) -> TracebackType | None:
    """A traceback that shows the worker's frames; their locals stayed with the worker."""
    made: TracebackType | None = None
    for frame in reversed(frames):
        made = TracebackType(made, _frame(frame), 0, frame.line)
    return made


def _frame(frame: _Frame) -> FrameType:
    code: CodeType = _stub.replace(
        co_filename=frame.filename,
        co_name=frame.name.rpartition(".")[2],
        co_qualname=frame.name,
        co_firstlineno=frame.first_line,
        co_linetable=_line_table(frame),
    )
    variables: dict[str, Any] = {"current": sys._getframe}
    exec(code, variables)
    found: FrameType = variables["frame"]
    variables.clear()
    return found


def _line_table(frame: _Frame) -> bytes:
    """The same source position for every instruction (CPython's InternalDocs/code_objects.md)."""
    units = 8  # as many code units as one entry can cover
    count = -(-len(_stub.co_code) // 2 // units)
    if frame.end_line is None or frame.column is None or frame.end_column is None:
        return bytes([0x80 | 15 << 3 | units - 1]) * count  # no position
    head = bytes([0x80 | 14 << 3 | units - 1])  # the long form, with columns from 1
    numbers = (frame.end_line - frame.line, frame.column + 1, frame.end_column + 1)
    rest = b"".join(_varint(max(number, 0)) for number in numbers)
    below = frame.line - frame.first_line  # then the next entries are on the same line
    return (
        head + _varint(abs(below) << 1 | (below < 0)) + rest + (head + b"\0" + rest) * (count - 1)
    )


def _varint(number: int) -> bytes:
    digits = []
    while number >= 64:
        digits.append(number & 63 | 64)
        number >>= 6
    return bytes([*digits, number])


_stub = compile("frame = current()", "<worker>", "exec")
