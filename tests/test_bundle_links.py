"""A bundle's folder with a link in it is refused for that: what it leads to is not the bundle's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloodedge.benchmarks.bundle_check import check_bundle
from bloodedge.errors import DataError


@pytest.mark.parametrize("to", ["file", "folder", "nothing"])
def test_a_link_in_a_folder_is_refused_wherever_it_leads(to: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("private")
    (tmp_path / "folder").mkdir()
    models = tmp_path / "bundle" / "models"
    models.mkdir(parents=True)
    (models / "x").symlink_to(tmp_path / to)
    with pytest.raises(DataError, match="'x' is a link or a device"):
        check_bundle(tmp_path / "bundle")
