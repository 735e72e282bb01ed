"""`drop_layers`: a smaller student of some of a model's layers, as a Hugging Face folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlframe.errors import ConfigError, RunFailed
from rlframe.model import quantisation
from rlframe.model.base_model import make_folder
from rlframe.model.checkpoint_files import CheckpointFiles
from rlframe.model.checkpoint_names import is_classifier, model_on_meta
from rlframe.model.conversion import conversions
from rlframe.model.merge import new_tensor, pieces
from rlframe.model.shrink import LAYER_COUNTS, PERIODS
from rlframe.model.tensor_files import TYPES, copy_settings, write_tensors

LAYER = re.compile(r"^(.*?\.?(?:layers|h|blocks|layer))\.(\d+)\.")
# Keys that number the first layers of a kind, the last ones, or list layers by their numbers.
FIRST_LAYERS = re.compile(r"^(first_k_dense_replace|num_dense_layers|max_window_layers)$")
LAST_LAYERS = re.compile(r"^num_kv_shared_layers$")
LISTED_LAYERS = re.compile(r"(^mlp_only_layers|_layer_indices|_layers_idx|_idxs)$")
NEXT_TOKEN_LAYERS = "num_nextn_predict_layers"  # layers behind the last one, which guess further tokens


def drop_layers(model: Path, keep: Sequence[int], out: Path) -> tuple[int, int]:
    """Writes the model with the layers `keep`, renumbered -> numbers of layers before and after.

    keep [0, 1, 3] of 4 layers: layer 3 becomes layer 2, and layer 2 is left out. Embeddings, final norm and head stay.
    Raises ConfigError for layers that do not exist, and for a config that cannot say what the kept layers are; then
    nothing is left on disk.
    """
    from transformers import AutoConfig

    if method := quantisation.method(model):
        raise ConfigError(f"{model}: its weights are quantised ({method}); save them dequantised first")
    config: Any = AutoConfig.from_pretrained(model, trust_remote_code=False)
    if is_classifier(config.architectures):
        raise ConfigError(f"{model}: is a sequence classifier; shrink a language model, and train its score head then")
    text = config.get_text_config(decoder=True)
    layers = text.num_hidden_layers
    whole = all(isinstance(layer, int) for layer in keep)
    if not keep or not whole or list(keep) != sorted(set(keep)) or not 0 <= keep[0] <= keep[-1] < layers:
        raise ConfigError(f"keep_layers: {list(keep)} must be rising numbers from 0 to {layers - 1}")
    change_config(text, keep)
    files = CheckpointFiles(model)
    stack = _stack(files.names(), layers)
    numbers = {old: new for new, old in enumerate(keep)}
    sources: dict[str, str] = {}  # new name -> name in the files
    for name in files.names():
        found = LAYER.match(name)
        if found is None or found[1] != stack:
            sources[name] = name
        elif (new := numbers.get(int(found[2]))) is not None:
            sources[f"{stack}.{new}.{name[found.end() :]}"] = name
    tensors = [new_tensor(files, source, name) for name, source in sources.items()]

    def fill(folder: Path) -> None:
        copy_settings(model, folder)
        config.save_pretrained(folder)
        write_tensors(folder, tensors, lambda tensor: pieces(files, sources[tensor.name], TYPES[tensor.type]))
        try:
            conversions(model_on_meta(folder), CheckpointFiles(folder))
        except RunFailed as error:
            kinds = f"the config cannot say which kind each of the layers {list(keep)} is"
            raise ConfigError(f"keep_layers: {kinds}; keep a whole period of kinds. transformers: {error}") from error

    make_folder(out, fill)
    return layers, len(keep)


def change_config(text: Any, keep: Sequence[int]) -> None:
    """Sets the keys of a config that tell one layer from another.

    keep [0, 1, 3] of 4 layers: layer_types [a, b, a, b] becomes [a, b, b], first_k_dense_replace 3 becomes 2, and
    mlp_only_layers [0, 3] becomes [0, 2]. Raises ConfigError for a period that the kept layers do not have.
    """
    keys = {key: value for key, value in vars(text).items() if not key.endswith("token_id")}
    layers = text.num_hidden_layers
    listed = False
    for key, value in keys.items():
        if isinstance(value, list | tuple) and LISTED_LAYERS.search(key):
            setattr(text, key, [new for new, old in enumerate(keep) if old in value])
        elif isinstance(value, list | tuple) and len(value) == layers and not key.startswith("architectures"):
            setattr(text, key, [value[old] for old in keep])
            listed = True
    for key, value in keys.items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        if FIRST_LAYERS.match(key):
            setattr(text, key, sum(old < value for old in keep))
        elif LAST_LAYERS.match(key):
            setattr(text, key, sum(old >= layers - value for old in keep))
        elif key == NEXT_TOKEN_LAYERS:
            setattr(text, key, 0)
        elif (
            PERIODS.search(key)
            and value > 1
            and not listed
            and any((old - new) % value for new, old in enumerate(keep))
        ):
            raise ConfigError(
                f"keep_layers: {key}={value} repeats kinds of layers, and {list(keep)} would shift them; keep or drop "
                f"{value} neighbours at a time"
            )
    for key in [key for key in keys if LAYER_COUNTS.match(key)]:
        setattr(text, key, len(keep))


def _stack(names: list[str], layers: int) -> str:
    """The prefix of the names of layers: "model.layers". Raises ConfigError where no or several stacks may be meant."""
    numbers: dict[str, set[int]] = {}
    for name in names:
        if found := LAYER.match(name):
            numbers.setdefault(found[1], set()).add(int(found[2]))
    stacks = [prefix for prefix, found in numbers.items() if set(range(layers)) <= found]
    if len(stacks) != 1:
        raise ConfigError(
            f"the files have {len(stacks)} stacks of {layers} layers ({', '.join(sorted(numbers)) or 'none'}), and "
            "layers are dropped from exactly one"
        )
    return stacks[0]
