"""JSON data to typed values: each type is read once, and made into a function that is kept.

A function raises `DecodeError` with the path below itself; whoever called it for a part adds the step to that part.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import enum
import functools
import threading
import weakref

from ..errors import ConfigError, DecodeError, did_you_mean
from .encoding import kept_for, written_keys, written_members
from .scalars import (
    JSON_CLASSES,
    PLAIN,
    SIMPLE,
    checked,
    choice,
    decode_bytes,
    decode_model,
    flag_decoder,
    int_from_key,
    limited,
    text_decoder,
)
from .shapes import (
    MISSING,
    Spec,
    alias_value,
    bytes_apart,
    declared,
    declared_under,
    deepest,
    expected,
    fields,
    is_abstract,
    is_lasting,
    is_record,
    lacking,
    name_of,
    read,
    records,
    show,
    tag_of,
    under,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Literal

    from .scalars import Converter
    from .shapes import Field


def decode(tp: Any, data: Any, *, mode: Literal["wire", "state", "arguments"] = "wire", path: str = "$") -> Any:
    """JSON data as a value of the type `tp`. Raises `DecodeError` with the path of what does not fit.

    Nothing is converted but what JSON has no form for (text to dates, bytes, enums) and numbers where nothing is lost
    (3.0 to an int, an int to a float): never "3" to 3, never true to 1.

    Args:
        mode: "wire" ignores unknown keys; "state" and "arguments" refuse them.
        path: what stands for the data itself in an error.
    """
    if mode not in ("wire", "state", "arguments"):
        raise ConfigError(f"mode must be 'wire', 'state' or 'arguments', not {mode!r}")
    convert = _converter(tp, mode != "wire")
    try:
        return convert(data)
    except DecodeError as error:
        raise DecodeError(path + error.path, error.problem) from error.__cause__
    except RecursionError:
        raise DecodeError(path, "nested too deep") from None


_compound: dict[Any, Converter] = {}  # of types that are no class, and name none that may go away
_MOST = 500  # kept of them; then all are dropped, so that types made on the fly do not pile up


def _converter(tp: Any, strict: bool) -> Converter:
    key: Any = strict
    if issubclass(type(tp), type):
        kept = kept_for(tp)
    else:  # `int | str` and `str | int` are equal but not the same, so its text belongs to the key
        kept, key = _compound, (tp, strict, repr(tp))
    try:
        made: Converter | None = kept.get(key)
    except TypeError:  # Annotated with something that has no hash
        return _Builder(strict).make(read(tp))
    if made is None:
        made = _Builder(strict).make(read(tp))
        if kept is not _compound:
            kept[key] = made
        elif is_lasting(tp):
            if len(_compound) >= _MOST:
                _compound.clear()
            _compound[key] = made
    return made


class _Builder:
    """Makes the functions that decode one type and all it consists of."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self._made: dict[Any, Converter] = {}  # of types that may be recursive
        self._strict_twin = self if strict else None

    def make(self, spec: Spec) -> Converter:
        """The function that decodes this type."""
        convert: Converter = SIMPLE.get(spec.kind) or getattr(self, "_" + spec.kind)(spec)
        return limited(convert, spec.limits) if spec.limits else convert

    def _once(self, spec: Spec, make: Callable[[], Converter]) -> Converter:
        key = spec.key
        if key not in self._made:
            made: Converter | None = None
            self._made[key] = lambda data: made(data)  # type: ignore[misc]  # what it finds inside itself
            self._made[key] = made = make()
        return self._made[key]

    def _alias(self, spec: Spec) -> Converter:
        return self._once(spec, lambda: self.make(alias_value(spec)))

    def _text(self, spec: Spec) -> Converter:
        return text_decoder(spec.tp, self.strict)

    def _literal(self, spec: Spec) -> Converter:
        return choice(written_members(spec))

    def _enum(self, spec: Spec) -> Converter:
        return flag_decoder(spec.tp) if issubclass(spec.tp, enum.Flag) else self._literal(spec)

    def _image(self, spec: Spec) -> Converter:
        return _one_text("data", name_of(spec), spec.tp.from_base64, self.strict)

    def _model(self, spec: Spec) -> Converter:
        return functools.partial(decode_model, spec.tp)

    def _list(self, spec: Spec) -> Converter:
        (item,) = spec.args
        plain, convert = _plain(item), self.make(item)

        def convert_list(data: Any) -> list[Any]:
            out: list[Any] = []
            if data.__class__ is not list:
                data = _array(data)
            try:
                for each in data:
                    out.append(each if each.__class__ is plain else convert(each))
            except DecodeError as error:
                under(error, len(out))
                raise
            return out

        return convert_list

    def _set(self, spec: Spec) -> Converter:
        kind = frozenset if spec.kind == "frozenset" else set
        convert = self._list(spec)

        def convert_set(data: Any) -> Any:
            items = convert(data)
            try:
                made = kind(items)
            except TypeError as error:
                raise DecodeError("", f"cannot be a set: {error}") from None
            if len(made) != len(items):
                raise DecodeError("", "expected items that differ from each other")
            return made

        return convert_set

    _frozenset = _set

    def _tuple(self, spec: Spec) -> Converter:
        if spec.args[1:] == (...,):
            convert = self._list(Spec("list", None, spec.args[:1]))
            return lambda data: tuple(convert(data))
        converters = [self.make(arg) for arg in spec.args]
        build = tuple if spec.tp is tuple else functools.partial(_build, spec.tp._make, spec.tp.__name__)

        def convert_tuple(data: Any) -> Any:
            data = _array(data)
            if len(data) != len(converters):
                raise expected(f"an array of {len(converters)}", data)
            return build([_step(convert, item, index) for index, (convert, item) in enumerate(zip(converters, data))])

        return convert_tuple

    def _dict(self, spec: Spec) -> Converter:
        convert_key, convert = self._key(spec.args[0]), self.make(spec.args[1])
        plain_key, plain = _plain(spec.args[0]), _plain(spec.args[1])

        def convert_dict(data: Any) -> dict[Any, Any]:
            out: dict[Any, Any] = {}
            name: Any = ""
            if data.__class__ is not dict:
                data = _object(data)
            if not data:
                return out
            try:
                for name, item in data.items():
                    out[name if name.__class__ is plain_key else convert_key(name)] = (
                        item if item.__class__ is plain else convert(item)
                    )
            except DecodeError as error:
                under(error, name if isinstance(name, str) else repr(name))
                raise
            if len(out) != len(data):
                raise DecodeError("", "two keys mean the same")
            return out

        return convert_dict

    def _key(self, spec: Spec) -> Converter:
        if spec.kind == "int":
            return checked(str, "a key that is an integer", int_from_key)
        if spec.kind in ("enum", "literal"):
            return choice(written_keys(spec))
        return self._text(spec) if spec.kind == "text" else SIMPLE["str"]

    def _object(self, spec: Spec) -> Converter:
        return self._once(spec, lambda: self._fields(spec))

    def _fields(self, spec: Spec) -> Converter:
        return _object_decoder(spec.tp, [self._entry(field) for field in fields(spec)], self.strict)

    def _entry(self, field: Field) -> tuple[str, Any, Converter, Callable[[], Any]]:
        absent = _required if field.required else field.factory if field.factory is not MISSING else None
        return field.name, _plain(field.spec), self.make(field.spec), absent or (lambda: field.default)

    # unions

    def _union(self, spec: Spec) -> Converter:
        members = _members(spec)
        others = [member for member in members if member.kind != "none"]
        if len(others) == 1 < len(members):
            return _optional(self.make(others[0]))
        apart = bytes_apart(spec)
        tagged = [member.tp for member in members if member.kind == "object" and tag_of(member.tp) is not None]
        tagged = tagged if len(tagged) > 1 else []
        kinds = [_BYTES_APART if apart and member.tp is bytes else _kinds_taken(member) for member in members]
        table: dict[type, Converter] = {}
        for kind in JSON_CLASSES:
            ranked = [(taken[kind], index) for index, taken in enumerate(kinds) if kind in taken]
            fitting = [members[index] for _, index in sorted(ranked) if members[index].tp not in tagged]
            if fitting:
                table[kind] = self._alternatives(fitting, kind, apart, name_of(spec))
        if tagged:
            table[dict] = _by_tag(tagged, self.strict, table.get(dict))

        def convert_union(data: Any) -> Any:
            convert = table.get(data.__class__)
            if convert is None and isinstance(data, (abc.Mapping, list)):
                convert = table.get(list if isinstance(data, list) else dict)
            if convert is None:
                raise expected(name_of(spec), data)
            return convert(data)

        return convert_union

    def _alternatives(self, members: list[Spec], kind: type, apart: bool, words: str) -> Converter:
        tries = [self._alternative(member, apart) for member in members]
        if len(tries) == 1:
            return tries[0]
        if kind not in (dict, list):
            return functools.partial(_first_fit, (), tries, words)
        exact: Sequence[Converter] = ()
        if not self.strict:  # first without ignoring keys, so that each object goes where all of it fits
            self._strict_twin = self._strict_twin or _Builder(strict=True)
            exact = [self._strict_twin._alternative(member, apart) for member in members]
        return _remembering(functools.partial(_first_fit, exact, tries, words))

    def _alternative(self, member: Spec, apart: bool) -> Converter:
        if apart and member.tp is bytes:
            return _one_text("base64", "bytes", decode_bytes, self.strict)
        return self.make(member)


# --- arrays and objects


def _array(data: Any) -> Any:
    if isinstance(data, list):
        return data
    raise expected("an array", data)


def _object(data: Any) -> Any:
    if isinstance(data, abc.Mapping):
        return data
    raise expected("an object", data)


def _step(convert: Converter, data: Any, step: Any) -> Any:
    try:
        return convert(data)
    except DecodeError as error:
        under(error, step)
        raise


def _one_text(key: str, words: str, make: Converter, strict: bool) -> Converter:
    """Decodes an object with one key that holds text."""
    convert_text = checked(str, f"{words} as base64 text", make)

    def convert(data: Any) -> Any:
        data = _object(data)
        if key not in data:
            raise lacking(key)
        if strict and len(data) > 1:
            raise _unexpected(data, {key})
        return _step(convert_text, data[key], key)

    return convert


def _unexpected(data: Any, known: set[str]) -> DecodeError:
    key = next(key for key in data if key not in known)
    shown = key[:80] if isinstance(key, str) else repr(key)
    return DecodeError("", f"unexpected key {shown!r}{did_you_mean(shown, known)}")


def _plain(spec: Spec) -> type | None:
    """The class whose data is a value of this type as it is."""
    if spec.kind == "union" and any(member.kind == "none" for member in spec.args):
        return type(None)
    return None if spec.limits else PLAIN.get(spec.kind)


def _required() -> Any:
    raise DecodeError("", "this key is missing")


def _is_simple(cls: Any) -> bool:
    """Whether setting the fields does all that the class's own `__init__` does."""
    return (
        (hasattr(cls.__init__, "generated") or _is_generated(getattr(cls.__init__, "__code__", None)))
        and dataclasses.is_dataclass(cls)
        and not hasattr(cls, "__post_init__")
        and cls.__new__ is object.__new__
        and not getattr(cls, "__abstractmethods__", None)
        and cls.__setattr__ is object.__setattr__
        and all(field.init for field in dataclasses.fields(cls))
    )


def _is_generated(code: Any) -> bool:
    """Whether `dataclass` made this code; where that cannot be told, it is taken for hand-made."""
    if code is None or code.co_filename != "<string>":
        return False
    name: str = getattr(code, "co_qualname", "__create_fn__" if code.co_firstlineno == 2 else "")  # 3.10 has no such
    return name.startswith("__create_fn__")


def _object_decoder(cls: Any, entries: Any, strict: bool) -> Converter:
    """Decodes field after field; those of a simple class are set at once, others are what it is called with.

    Its source, a line or two per field, is made of field names and fixed text alone, as that of a dataclass's
    `__init__` is: twice as fast as a loop over the fields.
    """
    simple, known = _is_simple(cls), {entry[0] for entry in entries}
    names: dict[str, Any] = {"under": under, "missing": MISSING, "DecodeError": DecodeError}
    names |= {"as_object": _object, "known": known, "unexpected": _unexpected}
    lines = ["def decode_fields(data):", "    if data.__class__ is not dict:", "        data = as_object(data)"]
    if is_record(cls):
        names |= _told_apart(cls, strict, "type" in known)
        known.update({"type"} if tag_of(cls) is not None else ())
        lines.append("    if data.get('type', unsaid) != own and (other := as_told(data)) is not missing:")
        lines.append("        return other")
    if strict:
        lines += ["    if not known.issuperset(data):", "        raise unexpected(data, known)"]
    lines += [f"    made = {'make(cls)' if simple else '{}'}", "    try:", "        at = ''"]
    for index, (name, plain, convert, absent) in enumerate(entries):
        lines += [f"        at = {name!r}", f"        item = data.get({name!r}, missing)"]
        place = f"made.{name}" if simple else f"made[{name!r}]"
        if not simple and absent is not _required:  # left to the class
            place = f"if item is not missing: {place}"
        otherwise = f"convert_{index}(item) if item is not missing else absent_{index}()"
        lines.append(f"        {place} = item if item.__class__ is plain_{index} else {otherwise}")
        names |= {f"plain_{index}": plain, f"convert_{index}": convert, f"absent_{index}": absent}
    lines += ["    except DecodeError as error:", "        under(error, at)", "        raise"]
    lines.append(f"    return {'made' if simple else 'build(made)'}")
    build = dict if hasattr(cls, "__required_keys__") else functools.partial(_build_from, cls)
    names |= {"cls": cls, "make": object.__new__, "build": build}
    exec("\n".join(lines), names)
    return names["decode_fields"]  # type: ignore[no-any-return]


def _build_from(cls: Any, values: dict[str, Any]) -> Any:
    return _build(lambda given: cls(**given), cls.__name__, values)


def _build(make: Converter, name: str, values: Any) -> Any:
    try:
        return make(values)
    except Exception as error:  # the class checks its values in its own way; whoever gave the data learns of it
        raise DecodeError("", f"{name} refuses these values: {error}") from error


# --- records and unions


def _told_apart(cls: Any, strict: bool, has_field: bool) -> dict[str, Any]:
    """What a record's decoder asks of the `type` of data: its `own`, what an `unsaid` one is, and who takes any other.

    A type that names no record is refused; where `type` is a field like others, or the record has no tag, it says
    nothing, and `as_told` gives MISSING.
    """
    tagged, abstract, own = tag_of(cls) is not None, is_abstract(cls), getattr(cls, "type", None)
    free = not tagged or (has_field and not abstract)
    as_told = _by_tag([cls], strict, (lambda data: MISSING) if free else None)
    return {"own": own, "unsaid": None if tagged and abstract else own, "as_told": as_told}


def _wrong_tag(tag: Any, classes: list[type]) -> DecodeError:
    known = {name for cls in classes for name, made in declared_under(cls).items() if not all(map(is_abstract, made))}
    if not isinstance(tag, str):
        return DecodeError(".type", f"expected the name of a type, found {show(tag)}")
    if len(known) == 1:
        return DecodeError(".type", f"expected {next(iter(known))!r}, found {show(tag)}")
    wanted = " or ".join(cls.__name__ for cls in classes)
    return DecodeError(".type", f"{tag[:80]!r} is not a known {wanted}{did_you_mean(tag[:80], known)}")


def _by_tag(classes: list[type], strict: bool, otherwise: Converter | None) -> Converter:
    """Decodes an object as the record that its `type` names; objects of no such type go to `otherwise`."""
    registry = records()
    known: dict[str, Callable[[], Converter | None]] = {}  # tag -> a weak reference to its converter,
    declarations = -1  # true until another class is declared

    def find(tag: str) -> Converter | None:
        nonlocal declarations
        if declarations != registry.declarations:
            known.clear()
            declarations = registry.declarations
        found = {made for cls in classes if (made := declared(tag, cls)) is not None}
        if len(found) > 1:
            raise DecodeError(".type", f"{tag!r} is ambiguous here: {', '.join(sorted(map(repr, found)))}")
        if not found:
            return None
        converter = _converter(found.pop(), strict)
        known[tag] = weakref.ref(converter)
        return converter

    def convert(data: Any) -> Any:
        tag = data.get("type", MISSING)
        if tag.__class__ is str:
            kept = known.get(tag) if declarations == registry.declarations else None
            made = (kept and kept()) or find(tag)
            if made is not None:
                return made(data)
        if otherwise is not None:
            return otherwise(data)
        if tag is MISSING:
            wanted = " or ".join(cls.__name__ for cls in classes)
            raise DecodeError(".type", f"this key is missing; it says which {wanted} this is")
        raise _wrong_tag(tag, classes)

    return convert


def _members(union: Spec) -> list[Spec]:
    members: list[Spec] = []
    for member in union.args:
        while member.kind == "alias":
            member = alias_value(member)
        members.extend(_members(member) if member.kind == "union" else [member])
    return members


_EXACT, _CONVERTED, _ANYTHING = 0, 1, 2  # how well a member of a union takes data of a class; the best is tried first
_TAKEN: dict[str, dict[type, int]] = {
    "none": {type(None): _EXACT},
    "bool": {bool: _EXACT},
    "int": {int: _EXACT, float: _CONVERTED},
    "float": {float: _EXACT, int: _CONVERTED},
    "str": {str: _EXACT},
    "text": {str: _CONVERTED},
    "duration": {float: _EXACT, int: _CONVERTED},
    "list": {list: _EXACT},
    "set": {list: _EXACT},
    "frozenset": {list: _EXACT},
    "tuple": {list: _EXACT},
    "object": {dict: _EXACT},
    "image": {dict: _EXACT},
    "dict": {dict: _CONVERTED},
    "model": {**dict.fromkeys(JSON_CLASSES, _CONVERTED), dict: _EXACT},
    "any": dict.fromkeys(JSON_CLASSES, _ANYTHING),
}
_BYTES_APART: dict[type, int] = {dict: _EXACT}


def _kinds_taken(spec: Spec) -> dict[type, int]:
    if spec.kind not in ("literal", "enum"):
        return _TAKEN[spec.kind]
    return dict.fromkeys((data.__class__ for data, _ in written_members(spec)), _EXACT)


def _optional(convert: Converter) -> Converter:
    return lambda data: None if data is None else convert(data)


def _first_fit(exact: Sequence[Converter], tries: Sequence[Converter], words: str, data: Any) -> Any:
    for convert in exact:
        try:
            return convert(data)
        except DecodeError:
            continue
    errors = []
    for convert in tries:
        try:
            return convert(data)
        except DecodeError as error:
            errors.append(error)
    raise deepest(errors) or expected(words, data)


_outcomes = threading.local()


def _remembering(fit: Converter) -> Converter:
    """`fit`, which tries each object once however many alternatives around it are tried.

    Without that, objects nested in unions of similar classes take exponential time.
    """

    def convert(data: Any) -> Any:
        known = getattr(_outcomes, "known", None)
        if known is None:
            _outcomes.known = {}
            try:
                return fit(data)
            finally:
                _outcomes.known = None
        key = (id(fit), id(data))
        if key not in known:
            try:
                known[key] = (fit, data, fit(data), None)  # both are kept alive, so that their ids stay theirs
            except DecodeError as error:
                known[key] = (fit, data, None, (error.path, error.problem))
        *_, value, failure = known[key]
        if failure is not None:
            raise DecodeError(*failure)
        return value

    return convert
