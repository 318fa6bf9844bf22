"""Pictures in a page have a bound."""

from pathlib import Path

from mocosfl.report.embedded_pictures import Album, embed_picture
from tests.support.written_runs import picture


def test_pictures_without_room_are_counted_and_told(tmp_path: Path):
    picture(tmp_path / "a.png")
    size = len(embed_picture(tmp_path / "a.png").uri)
    album = Album(1, max_bytes=2 * size + 1)
    drawn = [album.figure(tmp_path / "a.png", "a", "of it") for _ in range(3)]
    assert [len(figures) for figures in drawn] == [1, 1, 0]
    assert album.words == ["No room in this page for 1 picture: see the folder of the run."]
