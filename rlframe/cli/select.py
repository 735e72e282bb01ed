"""`rlframe select`: rows for `rlframe tune` out of scored completions."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rlframe.cli import command_line, exits
from rlframe.config import compose as config
from rlframe.errors import ConfigError

if TYPE_CHECKING:
    from rlframe.select.config import SelectConfig
    from rlframe.select.heldout import HeldOut

HEADLINE = "Nothing can be selected"
USAGE = """rlframe select FROM... out=rows.jsonl [select=KIND] [key=value ...]

Writes rows for `rlframe tune` out of run directories, folders of step_* or part_*.jsonl.gz, and files of rows, and
beside them NAME.counts.json: one count for each reason, which add up to the lines that were read. Starts no engine.
The same inputs and settings give the same bytes.

  select=all, best, shortest, random    demonstrations; select.per_prompt=N
  select=pairs, grades                  comparisons, by length or by grade
  keep.*, right.*, duplicates           filters; a bound is [least, greatest], null for none
  prompts=NAME, heldout.*               held-out questions, which no row may have
  --cfg                                 print the composed config; conf/select.yaml explains every key
"""


def main(arguments: list[str]) -> int:
    """Selects, and prints the counts; returns the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    try:
        selected = _config(arguments)
        if selected is not None:
            _select(selected)
    except (ValueError, OSError) as error:  # a ConfigError too; a file that cannot be read
        return exits.refuse(HEADLINE, str(error))
    return 0


def _config(arguments: list[str]) -> SelectConfig | None:
    """The checked config; None where it was only printed."""
    from omegaconf import OmegaConf

    from rlframe.select.config import SelectConfig

    settings = [argument for argument in arguments if "=" in argument]
    sources = [argument for argument in arguments if argument not in settings and argument != "--cfg"]
    if unknown := [source for source in sources if source.startswith("-")]:
        raise ConfigError(f"{unknown[0]}: there is no such option; see rlframe select --help")
    composed = command_line.composed("select", settings)
    composed.sources = [*composed.sources, *sources]
    if "--cfg" in arguments:
        print(OmegaConf.to_yaml(composed), end="")
        return None
    if composed.get("prompts") is not None:
        composed.prompts.train = composed.prompts.heldout  # only held-out problems are read
    return config.checked(composed, SelectConfig)


def _select(selected: SelectConfig) -> None:
    from rich.console import Console

    from rlframe.rows.files import write_rows
    from rlframe.select import counts, selection
    from rlframe.select.items import inputs_of

    out = Path(selected.out)
    inputs = inputs_of(selected.sources)
    if out.resolve() in [source_file.file.resolve() for source_file in inputs]:
        raise ConfigError(f"out: {out} is one of the sources; write to another file")
    if not out.parent.is_dir():
        raise ConfigError(f"out: there is no folder {out.parent.resolve()}")
    decisions = selection.decide(selected, inputs, _held_out(selected))
    console = Console(highlight=False)
    if not decisions.kept and not decisions.pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in decisions.total.most_common())
        raise ConfigError(f"no row is left of {decisions.total.total()} lines: {reasons or 'the inputs are empty'}")
    tokenizer_of = cache(lambda source: _tokenizer_of(selected, source))
    written = write_rows(selection.rows(selected, inputs, decisions, tokenizer_of), out)
    file = counts.write_counts(selected, decisions, written)
    console.print(counts.table(decisions))
    if decisions.held_out:
        console.print(f"held out: {', '.join(decisions.held_out)}", soft_wrap=True)
    console.print(f"{written} rows in {out}; counts in {file}", soft_wrap=True)


def _held_out(selected: SelectConfig) -> HeldOut:
    from rlframe.prompts.base import in_order
    from rlframe.select.heldout import HeldOut, read_questions
    from rlframe.select.items import question_of

    sets = [read_questions(path) for path in selected.heldout.files]
    rendered: Iterable[str] = ()
    if selected.prompts is not None:
        template, problems = selected.prompts.template, selected.prompts.heldout.load()
        sets.append(question_of(problem.messages) for problem in in_order(problems))
        rendered = (question_of(template.messages(problem)) for problem in in_order(problems))
    return HeldOut(sets, selected.heldout.ngram, values=selected.heldout.values, rendered=rendered)


def _tokenizer_of(selected: SelectConfig, source: str) -> str | None:
    """The digest of the tokenizer of a source's token ids; None where it is unknown. Raises ConfigError."""
    model = config.saved_model(Path(source).expanduser()) if selected.tokenizer is None else selected.tokenizer
    if not model:
        return None
    from rlframe.model import base_model

    try:
        folder = base_model.prepare(model)
    except ValueError as error:
        remedy = "name the model whose tokenizer made the token ids; tokenizer='' leaves them out"
        raise ConfigError(f"tokenizer: {error}; {remedy}") from error
    from transformers import AutoTokenizer

    from rlframe.rows.tokens import tokenizer_digest

    return tokenizer_digest(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
