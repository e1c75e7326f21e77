import zipfile

import pytest
import torch

from geosr.errors import ModelError
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
