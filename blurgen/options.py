"""Options as frozen dataclasses: flags, a TOML file and ``--set a.b=c`` become one checked object.

A field of a dataclass is one option. `option` states its help, `click_options` makes the flags,
`resolve` puts the sources of values in order (flag, then ``--set``, then file, then default) and
checks names and types, and `to_toml` writes the outcome so that ``--config`` reads it again.
"""

import dataclasses
import difflib
import json
import math
import os
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

Config = TypeVar("Config")

_SET_HELP = "Set a field of a part, such as kernel.length_px=30; may be repeated."
_MAX_TOML_BYTES = 1 << 20
_CONFIG_HELP = "Read options from a file; flags and --set come before it."


class Chosen(NamedTuple):
    """An entry of a table by its name, and the settings that it is made with.

    Given as ``--kernel walk --set kernel.length_px=30``, or as a table ``[kernel]`` of a TOML file with a key ``name``.
    """

    name: str
    settings: Mapping[str, Any] = types.MappingProxyType({})


def option(
    default: Any, help: str, *, flag: str | None = None, choices: Iterable[str] = (), bare: str | None = None
) -> Any:
    """Return a dataclass field that `click_options` turns into a flag.

    Parameters
    ----------
    default : any
        The value without flag and file; ``dataclasses.MISSING`` makes the option required.
    help : str
        One line for ``--help``, with the unit.
    flag : str, optional
        The flag, where it is not the field's name with dashes.
    choices : iterable of str
        The values allowed, where they are few.
    bare : str, optional
        What the flag means where it is given without a value.
    """
    about = {"help": help, "flag": flag, "choices": tuple(choices), "bare": bare}
    return dataclasses.field(default=default, metadata=about)


def nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return the end of a sentence that points from an unknown `name` to the closest of `names`, after `prefix`."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {prefix + close[0]!r}?" if close else f"known are {', '.join(prefix + one for one in names)}"


def click_options(config: type, parts: bool = True) -> Callable:
    """Return a decorator that adds a flag for every field of the dataclass `config`.

    With `parts` it adds ``--config`` and ``--set``, too. Flags that are not given arrive as None or as an empty tuple,
    so that `resolve` can tell them from given ones.
    """

    def decorate(command: Callable) -> Callable:
        if parts:
            command = click.option("--set", "assignments", multiple=True, metavar="A.B=C", help=_SET_HELP)(command)
            path = click.Path(path_type=Path)
            command = click.option("--config", "config_file", type=path, metavar="TOML", help=_CONFIG_HELP)(command)
        hints = typing.get_type_hints(config)
        for field in reversed(dataclasses.fields(config)):
            command = _click_option(field, hints[field.name])(command)
        return command

    return decorate


def resolve(
    config: type[Config], flags: Mapping[str, Any], config_file: Path | None = None, assignments: Iterable[str] = ()
) -> Config:
    """Return a `config` object from flags, ``--set`` assignments and a TOML file, in this order of precedence.

    Raises
    ------
    ValueError
        An unknown name, a value of the wrong type, a required option that is missing, or a file that is no TOML.
    """
    return resolve_together((config,), flags, config_file, assignments)[0]


def resolve_together(
    configs: Sequence[type],
    flags: Mapping[str, Any],
    config_file: Path | None = None,
    assignments: Iterable[str] = (),
    presets: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda values: {},
) -> tuple[Any, ...]:
    """Return one object for each of the dataclasses `configs`, whose fields share one file and one command line.

    `presets` is given the values of flags, ``--set`` and file, and returns the values that stand below them.
    """
    values = _as_flags(read_toml(config_file, "--config ")) if config_file is not None else {}
    for assignment in assignments:
        assign(values, assignment)
    for name, value in flags.items():
        if value is None or value == ():
            continue
        inner = values.get(name)
        values[name] = {**inner, "name": value} if isinstance(inner, dict) else value
    values = {**presets(values), **values}
    names = [{field.name for field in dataclasses.fields(config)} for config in configs]
    for name in values:
        if not any(name in own for own in names):
            raise ValueError(f"there is no option {name!r}: {nearest(name, set().union(*names))}")
    parts = [{name: value for name, value in values.items() if name in own} for own in names]
    return tuple(build(config, part) for config, part in zip(configs, parts, strict=True))


def build(config: type[Config], values: Mapping[str, Any], prefix: str = "") -> Config:
    """Return the dataclass `config` made from plain `values`, each checked against the type of its field.

    `prefix` stands before the names in messages, such as ``"kernel."``.

    Raises
    ------
    ValueError
        An unknown name (with the nearest known one), a value of the wrong type, or a required field that is missing.
    """
    fields = {field.name: field for field in dataclasses.fields(config) if field.init}
    hints = typing.get_type_hints(config)
    checked = {}
    for name, value in values.items():
        if not fields:
            raise ValueError(f"there is no option {prefix + name!r}: the {prefix.rstrip('.')} chosen has no settings")
        if name not in fields:
            raise ValueError(f"there is no option {prefix + name!r}: {nearest(name, fields, prefix)}")
        if isinstance(value, dict):
            value = _with_default_name(fields[name], hints[name], value, prefix + name)
        checked[name] = coerce(value, hints[name], prefix + name)
        choices = fields[name].metadata.get("choices")
        if choices and checked[name] not in choices:
            raise ValueError(f"{prefix + name} must be one of {', '.join(choices)}, got {value!r}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in checked:
            raise ValueError(
                f"the option {field.metadata.get('flag') or '--' + (prefix + name).replace('_', '-')} is missing"
            )
    return config(**checked)


def _with_default_name(field: dataclasses.Field, kind: Any, settings: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of a part with the name of the part, its default where none is given."""
    if kind is not Chosen and Chosen not in typing.get_args(kind):
        inner = next((key for key in settings if key != "name"), "name")
        raise ValueError(f"there is no option '{name}.{inner}': {name} has no settings, it is {describe(kind)}")
    if isinstance(field.default, Chosen):
        return {"name": field.default.name, **settings}
    if "name" not in settings:
        flag, inner = field.metadata.get("flag") or f"--{name.replace('_', '-')}", next(iter(settings), "name")
        raise ValueError(f"{name}.{inner} is a setting of {flag}, which is not given: name one with {flag}")
    return settings


def coerce(value: Any, kind: Any, name: str) -> Any:
    """Return `value` as the type `kind` (a type hint), or raise a ValueError that names the option `name`."""
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for member in members:
            try:
                return coerce(value, member, name)
            except ValueError:
                continue
    elif kind is types.NoneType and (value is None or value == "none"):
        return None
    elif kind is Chosen and isinstance(value, str):
        return Chosen(value)
    elif kind is Chosen and isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return Chosen(value["name"], {key: item for key, item in value.items() if key != "name"})
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(value, name)
    elif kind in (int, bool, str) and type(value) is kind:
        return value
    elif kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    elif origin is tuple:
        items = value if isinstance(value, (list, tuple)) else (value,)
        if members[-1] is Ellipsis or len(items) == len(members):
            kinds = members[:1] * len(items) if members[-1] is Ellipsis else members
            return tuple(coerce(item, member, name) for item, member in zip(items, kinds, strict=True))
    raise ValueError(f"{name} must be {describe(kind)}, got {value!r}")


def _number(value: int | float, name: str) -> float:
    try:
        if not math.isnan(value):
            return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be a number below 1e308, got one with more digits") from error
    raise ValueError(f"{name} must be a number, got nan")


def describe(kind: Any) -> str:
    """Return the words for a type hint, as in ``a number or none``."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(describe(member) for member in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "a list of values, each " + describe(typing.get_args(kind)[0])
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a word", Path: "a path"}
    return words.get(kind, "none" if kind is types.NoneType else "a name")


def parse_value(text: str) -> Any:
    """Return what `text` means as a TOML value; a text that is none, such as a bare word or a path, is itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def as_values(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass object as plain values (lists, strings, numbers, dicts), None left out."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Chosen):
            value = {"name": value.name, **value.settings}
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Path):
            value = str(value)
        if value is not None:
            plain[field.name] = value
    return plain


def to_toml(config: Any) -> str:
    """Return a dataclass object as TOML text that `resolve` reads back to an equal object.

    Bytes of a path that are no UTF-8 have no place in TOML and become U+FFFD.
    """
    plain = as_values(config)
    lines = [f"{key} = {_toml_value(value)}" for key, value in plain.items() if not isinstance(value, dict)]
    for table, values in plain.items():
        if isinstance(values, dict):
            lines += ["", f"[{table}]", *(f"{key} = {_toml_value(value)}" for key, value in values.items())]
    text = "\n".join(lines) + "\n"
    # Where the locale is not UTF-8, Python keeps the bytes of other scripts as surrogates.
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    # A JSON string is a TOML basic string once DEL is escaped, too.
    return (
        json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        if isinstance(value, str)
        else json.dumps(value)
    )


def _click_option(field: dataclasses.Field, kind: Any) -> Callable:
    flag = field.metadata.get("flag") or "--" + field.name.replace("_", "-")
    members = [member for member in typing.get_args(kind) if member is not types.NoneType]
    many = typing.get_origin(kind) is tuple
    scalar = members[0] if members else kind
    arguments: dict[str, Any] = {"help": _help(field), "default": None}
    if scalar is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, **arguments)
    if field.metadata.get("choices"):
        arguments["type"] = click.Choice(field.metadata["choices"])
    else:
        arguments["type"] = {int: click.INT, float: click.FLOAT, Path: click.Path(path_type=Path)}.get(
            scalar, click.STRING
        )
        arguments["metavar"] = {int: "N", float: "X", Path: "PATH"}.get(scalar, "NAME")
    if field.metadata.get("bare"):
        arguments |= {"is_flag": False, "flag_value": field.metadata["bare"]}
        arguments["metavar"] = "[N]" if scalar is int else "[PATH]"
    return click.option(flag, field.name, multiple=many, **arguments)


def _help(field: dataclasses.Field) -> str:
    text, default = field.metadata.get("help", ""), field.default
    if default in (None, (), False, dataclasses.MISSING):
        return text
    shown = default.name if isinstance(default, Chosen) else default
    shown = ", ".join(map(str, shown)) if isinstance(shown, tuple) else shown
    return f"{text} [default: {'on' if shown is True else shown}]"


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return what a TOML file says; raises ValueError, with `what` in front of its path, for a file that is none."""
    with open(path, "rb") as file:
        data = file.read(_MAX_TOML_BYTES + 1)
    if len(data) > _MAX_TOML_BYTES:
        raise ValueError(f"{what}{path} must be a TOML file of at most {_MAX_TOML_BYTES:,} bytes, got more")
    try:
        # A byte-order mark is what some editors of Windows put in front.
        return tomllib.loads(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError(f"{what}{path} is no valid TOML file: it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{what}{path} is no valid TOML file: {error}") from error


def _as_flags(value: Any) -> Any:
    """Return values with each path as it would be decoded if it stood on the command line, whatever the locale."""
    if isinstance(value, dict):
        return {key: _as_flags(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_flags(item) for item in value]
    return os.fsdecode(value.encode()) if isinstance(value, str) else value


def assign(values: dict[str, Any], assignment: str) -> None:
    """Carry ``a.b=c`` into the nested `values`; raises ValueError where it is of another form."""
    name, equals, text = assignment.partition("=")
    path = name.strip().split(".")
    if not equals or not all(path) or len(path) > 2:
        raise ValueError(f"--set takes NAME=VALUE or PART.NAME=VALUE, got {assignment!r}")
    if len(path) == 1:
        values[path[0]] = parse_value(text.strip())
        return
    part = values.setdefault(path[0], {})
    if not isinstance(part, dict):
        part = values[path[0]] = {"name": part}
    part[path[1]] = parse_value(text.strip())
