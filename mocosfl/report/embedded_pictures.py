"""Pictures inside the page: as data URIs, no larger than needed, all of them within a bound."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from mocosfl.report.page_model import Figure

FULL_WIDTH, SMALL_WIDTH = 1300, 700  # pixels
MAX_FULL_RUNS = 8  # more than that get small pictures
MAX_PICTURE_BYTES = 7_000_000  # of all pictures in a page
_QUALITY = 88  # of WebP; text stays sharp


class EmbeddedPicture(NamedTuple):
    """An embedded picture."""

    uri: str
    width: int
    height: int


def embed_picture(path: Path, *, max_width: int = FULL_WIDTH) -> EmbeddedPicture:
    """Return a picture of at most so many pixels' width.

    Args:
        path: a PNG file.
        max_width: pixels; a wider picture is made smaller.

    Raises:
        ValueError: the file is no picture.
    """
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # Pillow raises all three
        raise ValueError(f"not a readable picture ({type(error).__name__})") from error
    if picture.width > max_width:
        height = max(1, round(picture.height * max_width / picture.width))
        picture = picture.resize((max_width, height), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    picture.save(written, "WEBP", quality=_QUALITY, method=2)
    content, kind = written.getvalue(), "webp"
    if picture.width == max_width or len(content) < path.stat().st_size:
        return EmbeddedPicture(_uri(content, kind), *picture.size)
    return EmbeddedPicture(_uri(path.read_bytes(), "png"), *picture.size)


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


class Album:
    """Embeds pictures as long as there is room for them in the page."""

    def __init__(self, num_runs: int, *, max_bytes: int = MAX_PICTURE_BYTES) -> None:
        """Begin with all the room.

        Args:
            num_runs: on the page; of many the pictures are smaller.
            max_bytes: of all pictures.
        """
        self.alone = num_runs == 1
        self.max_width = FULL_WIDTH if num_runs <= MAX_FULL_RUNS else SMALL_WIDTH
        self.left = max_bytes
        self.left_out = 0  # pictures without room
        self.problems: list[str] = []

    def figure(self, path: Path, title: str, caption: str) -> list[Figure]:
        """Return a picture with its caption in a list; [] without the file or without room."""
        if not path.is_file():
            return []
        try:
            picture = embed_picture(path, max_width=self.max_width)
        except ValueError as error:
            self.problems.append(f"{path.parent.name}/{path.name} is {error}")
            return []
        if len(picture.uri) > self.left:
            self.left_out += 1
            return []
        self.left -= len(picture.uri)
        return [
            Figure(title, caption, picture=picture.uri, width=picture.width, height=picture.height)
        ]

    @property
    def words(self) -> list[str]:
        """What a reader must know of the pictures; [] where all are there in full."""
        said = []
        if self.max_width < FULL_WIDTH:
            said.append(
                f"With more than {MAX_FULL_RUNS} runs, pictures are {self.max_width} pixels wide "
                "at most; the report of a run alone shows them in full."
            )
        if self.left_out:
            number = "1 picture" if self.left_out == 1 else f"{self.left_out} pictures"
            place = (
                "see the folder of the run."
                if self.alone
                else "see the folders of the runs, or the report of a run alone."
            )
            said.append(f"No room in this page for {number}: {place}")
        return said
