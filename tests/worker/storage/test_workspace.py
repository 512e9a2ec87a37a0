"""What is kept beside the record while a request is on its way."""

import os
from pathlib import Path

import numpy as np
import pytest

from worker.errors import StorageError
from worker.storage.folder import FolderObjects
from worker.storage.workspace import INLINE_CHARACTERS, Workspace, holds_picture

LONG = "data:image/png;base64," + "A" * INLINE_CHARACTERS


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(FolderObjects(tmp_path))


def test_pixels_come_back_as_they_were(workspace: Workspace) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    name = workspace.save("a", "token", pixels)
    np.testing.assert_array_equal(workspace.load("a", name), pixels)


def test_a_stage_leaves_more_than_one_picture(workspace: Workspace) -> None:
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    names = workspace.save("a", "token", black), workspace.save("a", "token", white, "control")
    np.testing.assert_array_equal(workspace.load("a", names[0]), black)
    np.testing.assert_array_equal(workspace.load("a", names[1]), white)


def test_lost_pixels_are_told_with_the_likely_cause(workspace: Workspace) -> None:
    with pytest.raises(StorageError, match="share one ZTURBO_DATA_DIR"):
        workspace.load("a", "token.npy")


def test_picture_in_the_request_is_kept_beside_the_record(workspace: Workspace) -> None:
    body = {"prompt": "a fox", "image_url": LONG}
    assert holds_picture(body)
    detached = workspace.detach_pictures("a", body)
    assert len(str(detached.body)) < 200
    assert detached.size == len(LONG)
    assert workspace.attach_pictures("a", detached.body) == body


def test_mask_in_the_request_is_kept_beside_its_image(workspace: Workspace) -> None:
    mask = LONG.replace("A", "B")
    for image, size in ((LONG, len(LONG + mask)), ("https://example.com/a.png", len(mask))):
        body = {"prompt": "a fox", "image_url": image, "mask_image_url": mask}
        assert holds_picture(body)
        detached = workspace.detach_pictures("a", body)
        assert len(str(detached.body)) < 200
        assert detached.size == size
        assert workspace.attach_pictures("a", detached.body) == body


@pytest.mark.parametrize("url", ["https://example.com/a.png", "data:image/png;base64,AAAA"])
def test_short_input_stays_in_the_record(workspace: Workspace, url: str) -> None:
    body = {"prompt": "a fox", "image_url": url}
    assert not holds_picture(body)
    assert workspace.attach_pictures("a", body) == body


def test_sweeping_removes_only_what_is_old_and_of_requests_that_are_over(
    workspace: Workspace, tmp_path: Path
) -> None:
    for request_id in ("over", "running", "submitted just now"):
        workspace.detach_pictures(request_id, {"image_url": LONG})
    for request_id in ("over", "running"):
        os.utime(tmp_path / "work" / request_id / "image_url.txt", (0, 0))
    assert workspace.sweep(lambda request_id: request_id != "running") == 1
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["running", "submitted just now"]
