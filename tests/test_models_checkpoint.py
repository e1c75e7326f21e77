import re
import zipfile
from dataclasses import replace

import pytest
import torch

from geosr.errors import ModelError
from geosr.models import Model, ModelSpec, load_model
from geosr.models.checkpoint import require_intact


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"weight": torch.arange(1000.0)}, "step": 7}, path)
    return path


def test_a_checkpoint_as_it_was_written_is_intact(checkpoint):
    require_intact(checkpoint)


def test_a_bit_that_flipped_in_the_weights_or_the_plain_values_is_found(checkpoint):
    content = checkpoint.read_bytes()
    with zipfile.ZipFile(checkpoint) as archive:
        values = {part.filename: archive.read(part) for part in archive.infolist() if part.file_size > 20}
    assert {name.split("/", 1)[1] for name in values} >= {"data.pkl", "data/0"}
    for name, value in values.items():
        place = content.index(value) + len(value) // 2
        checkpoint.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(ModelError, match=rf"last\.ckpt is damaged: its part '{name}' differs from its checksum"):
            require_intact(checkpoint)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_checkpoint_that_is_cut_off_or_empty_is_refused(checkpoint, share):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"last\.ckpt is no checkpoint of geosr, or is cut off"):
        require_intact(checkpoint)


def test_an_archive_that_unpacks_to_more_than_its_bytes_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10_000_000))
    with pytest.raises(ModelError, match="its parts are packed"):
        require_intact(path)


SPEC = ModelSpec("tiny", "compact", 2, ("B02", "B03"), {"channels": 4, "blocks": 1})


def run_of(path, *, spec=None, state=None, drop=(), **others):
    """A checkpoint of a run; what is left out or changed is damage."""
    weights = Model(SPEC).network.state_dict()
    state = {f"model.network.{name}": value for name, value in weights.items()} if state is None else state
    content = {"geosr": {"spec": SPEC.to_dict() if spec is None else spec}, "state_dict": state} | others
    torch.save({key: value for key, value in content.items() if key not in drop}, path)
    return path


def test_a_checkpoint_gives_the_weights_of_its_run(tmp_path):
    model = load_model(run_of(tmp_path / "last.ckpt"))
    assert replace(model.spec, halo=None) == SPEC
    assert model.spec.halo == Model(SPEC).spec.halo


def tensors(**changes):
    weights = {f"model.network.{name}": value for name, value in Model(SPEC).network.state_dict().items()}
    return {name: value for name, value in (weights | changes).items() if value is not None}


FIRST = "model.network.body.0.weight"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"drop": ("state_dict",)}, "holds no weights: its state_dict is missing"),
        ({"state": 7}, "its state_dict is of type int"),
        ({"state": [torch.zeros(2)]}, "its state_dict is of type list"),
        ({"state": {1: torch.zeros(2)}}, "no tensors by name"),
        ({"state": {"model.network.x": 3}}, "x is of type int, no plain tensor"),
        ({"state": {}}, "does not fit the architecture it names, compact: body.0.weight is missing"),
        ({"state": tensors(**{FIRST: None})}, "body.0.weight is missing"),
        ({"state": tensors(**{FIRST: torch.zeros(4, 2, 5, 5)})}, "is 4 x 2 x 5 x 5 float32 and not 4 x 2 x 3 x 3"),
        ({"state": tensors(**{FIRST: torch.zeros(4, 2, 3, 3, dtype=torch.int32)})}, "int32 and not"),
        ({"state": tensors(**{FIRST: torch.zeros(()).expand(4, 2, 3, 3)})}, "more values than are stored"),
        ({"state": tensors(**{FIRST: torch.full((4, 2, 3, 3), torch.nan)})}, "72 weights that are not finite, in body"),
        ({"state": tensors(**{"ema.average.n_averaged": torch.zeros(0)})}, None),
        ({"state": tensors(**{"ema.average.n_averaged": torch.ones(1)})}, "body.0.weight is missing"),
        ({"drop": ("geosr",)}, "is no checkpoint of geosr"),
        ({"geosr": 7}, "is no checkpoint of geosr"),
        ({"spec": 7}, "damaged geosr specification"),
        ({"spec": {"name": "x"}}, "lacks architecture scale bands"),
        ({"spec": SPEC.to_dict() | {"arguments": {"channels": 100_000}}}, "takes channels as a whole number"),
        ({"spec": SPEC.to_dict() | {"arguments": {"channels": 4, "blocks": 900}}}, "of more tensors than there are"),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_told_in_a_sentence(tmp_path, damage, told):
    path = run_of(tmp_path / "last.ckpt", **damage)
    if told is None:
        load_model(path)
        return
    with pytest.raises(ModelError, match=rf"last\.ckpt.*{re.escape(told)}"):
        load_model(path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_run_s_folder_with_a_checkpoint_that_is_cut_off_says_so(tmp_path, share):
    path = run_of(tmp_path / "last.ckpt")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelError, match="is no checkpoint of geosr, or is cut off"):
        load_model(tmp_path)


def test_a_flipped_bit_is_not_loaded(tmp_path):
    path = run_of(tmp_path / "last.ckpt", state=tensors(**{FIRST: torch.full((4, 2, 3, 3), 0.125)}))
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((72,), 0.125).numpy().tobytes()) + 7] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="differs from its checksum"):
        load_model(path)
