"""`rlframe shrink`: a smaller student of some of a model's layers."""

from __future__ import annotations

from rlframe.cli import exits
from rlframe.cli.merge import new_folder, numbers, settings_of
from rlframe.errors import ConfigError, RunFailed

HEADLINE = "The model cannot be shrunk"
USAGE = """rlframe shrink MODEL out=FOLDER keep_layers=[0,1,2,...]

Writes a model with some of its layers as a Hugging Face folder, to be tuned on a teacher's rows. Layers are renumbered,
and the config follows: kinds of layers, first dense layers, windows. Embeddings, final norm, head and tokenizer stay.
MODEL is a folder, a hub id or a GGUF file.
"""


def main(arguments: list[str]) -> int:
    """Writes the smaller model; returns the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    from rlframe.model import base_model
    from rlframe.model.drop_layers import drop_layers

    try:
        models = [argument for argument in arguments if "=" not in argument]
        settings = settings_of([argument for argument in arguments if "=" in argument], "rlframe shrink")
        if len(models) != 1 or settings.keys() != {"out", "keep_layers"}:
            raise ConfigError("needs one model, out and keep_layers; see rlframe shrink --help")
        keep = numbers("keep_layers", settings["keep_layers"])
        out = new_folder(settings["out"])
        before, after = drop_layers(base_model.prepare(models[0]), keep, out)
    except (ConfigError, RunFailed, ValueError, OSError) as error:  # of a disk that is full
        return exits.refuse(HEADLINE, str(error))
    print(f"{after} of {before} layers in {out}")
    return 0
