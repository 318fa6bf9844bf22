"""The page of all configuration keys, made from the schema and from `conf/`."""

import re
from collections.abc import Iterator
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from generated_pages.choices import flat, head_comment, read_choice, read_group
from generated_pages.schema import Field, Schema, Section, read_schema
from mocosfl.config.hydra_setup import CONF, compose_file

# Groups without keys of their own.
OTHER_GROUPS = {
    "launcher": "how the runs of a sweep are started.",
    "debug": "to try a setting, or to look for a fault.",
}
COMPUTED = "${mocosfl."  # a value that one of our own rules gives, from other keys
HEADER = "| key | type | default | meaning |\n| --- | --- | --- | --- |"


def configuration_page() -> str:
    """Return the generated part of `docs/configuration.md`, MyST Markdown."""
    schema = read_schema()
    defaults = composed_values("config") | composed_values("edge_server", only="edge.")
    run = schema.sections["Config"]
    parts = ["## Run-wide keys", table(_leaves(run, schema), "", defaults, schema)]
    for field in run.fields:
        section = _section_of(field, schema)
        if section is not None:
            parts += _group(field.name, section, defaults, schema)
    parts += _other_groups()
    parts += _programs(schema)
    parts += _experiments()
    return "\n\n".join(parts) + "\n"


def composed_values(name: str, *, only: str = "") -> dict[str, str]:
    """Return the values of a program's default composition by dotted key, as they are typed.

    Args:
        name: of the file in `conf/`.
        only: prefix of the keys to keep.
    """
    composed = compose_file(name)
    found = {key: value for key, value in flat(_plain(composed)).items() if key.startswith(only)}
    return {key: _resolved(composed, key, value) for key, value in found.items()}


def _plain(composed: DictConfig) -> dict[str, Any]:
    content = OmegaConf.to_container(composed, resolve=False, enum_to_str=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _resolved(composed: DictConfig, key: str, value: str) -> str:
    """Return what an interpolation of our own comes to; Hydra's and the shell's stay as written."""
    if not value.startswith(COMPUTED):
        return value
    return f"`{OmegaConf.select(composed, key)}`, computed"


def _section_of(field: Field, schema: Schema) -> Section | None:
    return schema.sections.get(field.annotation.removesuffix(" | None"))


def _leaves(section: Section, schema: Schema) -> list[Field]:
    return [field for field in section.fields if _section_of(field, schema) is None]


def _group(name: str, section: Section, defaults: dict[str, str], schema: Schema) -> list[str]:
    """Return a group's heading, keys and choices."""
    parts = [f"## {name}", sentence(section.purpose)]
    parts.append(table(_leaves(section, schema), f"{name}.", defaults, schema))
    for field in section.fields:
        inner = _section_of(field, schema)
        if inner is None:
            continue
        key = f"{name}.{field.name}"
        if inner.name == "DatasetConfig":
            parts.append(f"`{key}`: {sentence(field.meaning)} Its keys are those of `dataset`.")
        else:
            prefix = f"{key}."
            parts += [sentence(inner.purpose), table(inner.fields, prefix, defaults, schema)]
    if (CONF / name).is_dir():
        parts.append(_choices_table(name, default_choice(name)))
    return parts


def default_choice(group: str) -> str:
    """Return the choice of a group that `conf/config.yaml` names."""
    content = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"), resolve=False)
    assert isinstance(content, dict)
    named = {
        k: v for entry in content["defaults"] if isinstance(entry, dict) for k, v in entry.items()
    }
    return str(named[group])


def _choices_table(group: str, default: str) -> str:
    """Return a group's choices and in what each differs from the default one."""
    usual = read_choice(group, default).values
    lines = [f"| `{group}=` | what it is | differs from `{default}` in |", "| --- | --- | --- |"]
    for choice in read_group(group):
        differs = {
            key.removeprefix(f"{group}."): value
            for key, value in choice.values.items()
            if usual.get(key) != value
        }
        cell = "the default" if choice.name == default else _settings(differs) or "nothing"
        lines.append(f"| `{choice.name}` | {escaped(choice.comment)} | {cell} |")
    return "\n".join(lines)


def _settings(values: dict[str, str]) -> str:
    return ", ".join(
        f"{code(key)} computed" if value.startswith(COMPUTED) else code(f"{key}={value}")
        for key, value in values.items()
    )


def table(fields: list[Field], prefix: str, defaults: dict[str, str], schema: Schema) -> str:
    """Return the table of a section's keys.

    Args:
        fields: of the section.
        prefix: what stands before their names on a command line, with its dot.
        defaults: values of the default composition by full key.
        schema: for the choices of an enum.
    """
    lines = [HEADER]
    for field in fields:
        key = prefix + field.name
        default = defaults.get(key, "null")
        if "`" not in default:
            default = code(default) if default != "???" else "to be given"
        meaning = escaped(field.meaning)
        lines.append(f"| `{key}` | {type_words(field, schema)} | {default} | {meaning} |")
    return "\n".join(lines)


def type_words(field: Field, schema: Schema) -> str:
    """Return a field's type in words: "integer or null", "`mean`, `by_images`"."""
    names = {"int": "integer", "str": "text", "bool": "true or false", "float": "number"}
    names |= {"list[float]": "list of numbers"}
    names |= {name: ", ".join(map(code, members)) for name, members in schema.enums.items()}
    name = field.annotation.removesuffix(" | None")
    return names[name] + (" or null" if field.annotation.endswith(" | None") else "")


def _other_groups() -> list[str]:
    """Return the groups whose files set keys of Hydra's or of other groups."""
    parts = []
    for group, purpose in OTHER_GROUPS.items():
        lines = [f"| `{group}=` | what it is | sets |", "| --- | --- | --- |"]
        for choice in read_group(group):
            cells = (code(choice.name), escaped(choice.comment), _settings(choice.values))
            lines.append(f"| {' | '.join(cells)} |")
        parts += [f"## {group}", f"`{group}=`: {purpose}", "\n".join(lines)]
    return parts


def _programs(schema: Schema) -> list[str]:
    """Return the sections of the programs with a configuration of their own."""
    parts = []
    for file, section in programs(schema):
        defaults = composed_values(file)
        parts += [f"## {file}", sentence(section.purpose)]
        parts.append(table(_leaves(section, schema), "", defaults, schema))
        for field in section.fields:
            inner = _section_of(field, schema)
            if inner is not None:
                keys = table(inner.fields, f"{field.name}.", defaults, schema)
                parts += [sentence(inner.purpose), keys]
    return parts


def programs(schema: Schema) -> Iterator[tuple[str, Section]]:
    """Yield the programs beside train.py: the file in `conf/` and the section it is checked by."""
    for file in sorted(CONF.glob("*.yaml")):
        content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        assert isinstance(content, dict)
        first, *_ = content.get("defaults") or [""]
        if str(first).endswith("_schema"):
            checked_by = OmegaConf.get_type(ConfigStore.instance().load(f"{first}.yaml").node)
            assert checked_by is not None
            yield file.stem, schema.sections[checked_by.__name__]


def _experiments() -> list[str]:
    """Return the comments of the experiment files: command, source, expectation, hours."""
    parts = ["## experiment", "`experiment=`: recipes; the comment at the head of each file."]
    for file in sorted((CONF / "experiment").glob("*.yaml")):
        if file.stem != "none":
            comment = "\n".join(head_comment(file.read_text()))
            parts += [f"### {file.stem}", f"```text\n{comment}\n```"]
    return parts


def sentence(text: str) -> str:
    """Return a text of the source as Markdown that ends like a sentence."""
    text = escaped(text)
    return text if text.endswith((".", "`")) else f"{text}."


def code(text: str) -> str:
    """Return text as code that may stand in a table."""
    return f"`{text.replace('|', chr(92) + '|')}`"


def escaped(text: str) -> str:
    """Return a text of the source as Markdown that means just that, code spans left alone."""
    parts = text.split("`")
    for number in range(0, len(parts), 2):
        parts[number] = re.sub(r"([<>|*\[\]])", r"\\\1", parts[number])
    return "`".join(parts)
