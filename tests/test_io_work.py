import pytest

from geosr.errors import OutputError
from geosr.io.work import locked_folder


def test_one_process_at_a_time_has_the_folder_and_what_is_in_it_stays(tmp_path):
    target = tmp_path / "sr.tif"
    with locked_folder(target) as folder:
        (folder / "work").touch()
        assert folder.parent == tmp_path
        with pytest.raises(OutputError, match=r"another geosr is writing .*sr\.tif"), locked_folder(target):
            pass
    with locked_folder(target) as again:
        assert again == folder
        assert (again / "work").exists()
