"""Pages made from the code: every key is there with its meaning, every command with its help."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest
from generated_pages.choices import read_choice, written
from generated_pages.commands import (
    NOT_TYPED,
    OF_HYDRA,
    commands_page,
    config_file,
    find_commands,
    help_text,
    subcommands,
)
from generated_pages.configuration import (
    composed_values,
    configuration_page,
    default_choice,
    escaped,
    programs,
    type_words,
)
from generated_pages.schema import Field, Schema, read_schema

from mocosfl.config import schema as schema_module
from mocosfl.config.hydra_setup import CONF


@pytest.fixture(scope="module")
def schema() -> Schema:
    return read_schema()


@pytest.fixture(scope="module")
def page() -> str:
    return configuration_page()


def keys_of(section: Any, prefix: str = "") -> Iterator[str]:
    """Yield the full keys of a dataclass, as Hydra knows them."""
    for field in dataclasses.fields(section):
        inner = field.type
        if dataclasses.is_dataclass(inner):
            yield from keys_of(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def test_every_field_says_what_it_means(schema: Schema) -> None:
    silent = [
        f"{section.name}.{field.name}"
        for section in schema.sections.values()
        for field in section.fields
        if not field.meaning and field.annotation.removesuffix(" | None") not in schema.sections
    ]
    assert silent == []


def test_schema_has_the_fields_that_hydra_knows(schema: Schema) -> None:
    for name, section in schema.sections.items():
        known = getattr(schema_module, name, None)
        if known is not None:
            assert [f.name for f in section.fields] == [f.name for f in dataclasses.fields(known)]
    assert {"Config", "ProbeConfig", "AttackConfig", "EdgeConfig"} <= schema.sections.keys()


def test_every_key_stands_on_the_page(page: str) -> None:
    missing = [key for key in keys_of(schema_module.Config) if f"| `{key}` |" not in page]
    # Sections that may be null: their keys are those of `dataset`, and of the networked server.
    assert missing == ["taressfl.auxiliary", "edge"]
    assert "| `edge.step_deadline_seconds` | number | `30.0` |" in page


def test_every_choice_stands_on_the_page(page: str) -> None:
    for file in CONF.glob("*/*.yaml"):
        if file.parent.name == "experiment":
            assert file.stem == "none" or f"### {file.stem}\n" in page
        else:
            row = rf"`{file.parent.name}=` \|.*\n\| --- .*\n(\|.*\n)*\| `{file.stem}` \|"
            assert re.search(row, page), file


def test_every_program_with_a_configuration_has_its_section(schema: Schema, page: str) -> None:
    found = {file: section.name for file, section in programs(schema)}
    assert found["linear_probe"] == "ProbeConfig"
    assert found["attack"] == "AttackConfig"
    for file in found:
        assert f"\n## {file}\n" in page


def test_defaults_are_those_of_the_composition(page: str) -> None:
    values = composed_values("config")
    assert values["backbone.width"] == "16"  # as the digits want it
    assert values["partition.classes_per_client"] == "`2`, computed"  # of 10 classes
    assert "| `moco.queue_length` | integer | `1024` |" in page


def test_choice_says_what_it_and_its_parents_set() -> None:
    choice = read_choice("split", "cut2_c4s2")
    assert choice.values["split.cut_layer"] == "2"
    assert choice.values["split.bottleneck_channels"] == "4"
    assert choice.values["split.client_residual"] == "true"  # of cut1
    assert choice.comment == "Bottleneck C4S2: 4 channels, stride 2."
    assert read_choice("taressfl", "on").values["optimizer.client_lr"] == "0.0"
    assert default_choice("split") == "cut1"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), ([0.1, 0.01], "[0.1,0.01]"), ("", '""'), (1.0, "1.0")],
)
def test_values_are_written_as_they_are_typed(value: object, text: str) -> None:
    assert written(value) == text


def test_types_are_told_in_words(schema: Schema) -> None:
    assert type_words(Field("x", "int | None", ""), schema) == "integer or null"
    assert type_words(Field("x", "Averaging", ""), schema) == (
        "`mean`, `by_images`, `divergence_aware`"
    )


def test_text_of_the_source_means_the_same_in_markdown() -> None:
    assert escaped("in [0, 1), `a|b*` or <x>") == r"in \[0, 1), `a|b*` or \<x\>"


def test_commands_are_all_that_a_user_types() -> None:
    commands = find_commands()
    assert commands[:2] == ["train.py", "linear_probe.py"]
    assert {"mocosfl.overhead", "mocosfl.report", "mocosfl.edge.client"} <= set(commands)
    assert not set(commands) & set(NOT_TYPED)


def test_a_program_of_hydras_has_its_comment_and_not_its_configuration():
    files = {name: file for name in find_commands() if (file := config_file(name))}
    assert files["mocosfl.attack"] == "attack"
    # The last is W&B's, no program's.
    assert {*files.values(), "wandb_sweep"} == {file.stem for file in CONF.glob("*.yaml")}
    sections = commands_page().split("\n## python ")
    for name in files.keys() - {"train.py"}:
        (section,) = (s for s in sections if s.startswith((f"{name}\n", f"-m {name}\n")))
        assert OF_HYDRA in section
        assert "== " not in section and "Powered by Hydra" not in section


def test_help_of_a_command_and_of_its_parts_is_its_own() -> None:
    text = help_text("mocosfl.export")
    assert text.startswith("usage: python -m mocosfl.export")
    assert "head" in subcommands(text)
    assert "--which {last,best}" in help_text("mocosfl.export", ["head"])


def test_help_without_subcommands_has_none() -> None:
    assert subcommands(help_text("mocosfl.report")) == []
