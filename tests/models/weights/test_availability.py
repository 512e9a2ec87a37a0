"""Which control maps cannot be made for lack of weights."""

import pytest

from models.config import ModelSettings
from models.weights.availability import missing_detectors
from models.weights.hub import repo_file
from models.weights.published import BODY_POSE_FILE, FACE_FILE, HAND_POSE_FILE, MIDAS_FILE
from models.weights.pull import plan, pull
from tests.support.hub import HubStub

ANNOTATORS = "lllyasviel/Annotators"
ANYTHING = "depth-anything/Depth-Anything-V2-Small-hf"


@pytest.fixture
def stocked(hub: HubStub) -> HubStub:
    files = (MIDAS_FILE, BODY_POSE_FILE, HAND_POSE_FILE, FACE_FILE)
    hub.add_repo(ANNOTATORS, {name: name.encode() for name in files})
    rest = ("config.json", "preprocessor_config.json", "model.safetensors")
    hub.add_repo(ANYTHING, dict.fromkeys(rest, b"{}"))
    return hub


def test_map_is_possible_once_its_own_detector_is_there(stocked: HubStub) -> None:
    midas = ModelSettings(_env_file=None)
    anything = ModelSettings(_env_file=None, depth_backend="depth-anything-v2")
    assert set(missing_detectors(midas)) == set(missing_detectors(anything)) == {"depth", "pose"}
    repo_file(ANNOTATORS, MIDAS_FILE)
    assert set(missing_detectors(midas)) == {"pose"}
    assert set(missing_detectors(anything)) == {"depth", "pose"}


def test_size_is_what_the_command_downloads(stocked: HubStub) -> None:
    settings = ModelSettings(_env_file=None)
    everything = missing_detectors(settings)["pose"]
    repo_file(ANNOTATORS, MIDAS_FILE)
    assert 0 < missing_detectors(settings)["pose"] < everything
    pull(plan(settings, ["detectors"]))
    assert missing_detectors(settings) == {}


def test_hub_is_not_asked(stocked: HubStub) -> None:
    missing_detectors(ModelSettings(_env_file=None))
    assert stocked.requests == []
