"""Depth and pose: the real networks, with weights made up, read from a cache laid out as the hub's is."""

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from torch import Tensor, nn
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

from models.config import ModelSettings
from models.errors import CheckpointError, WeightsMissing
from models.inference.control.annotators import import_annotators
from models.inference.control.depth import midas_network
from models.inference.control.detectors import Detectors
from models.inference.control.openpose import draw_hand

ANNOTATORS = "lllyasviel/Annotators"
MIDAS = "dpt_hybrid-midas-501f0c75.pt"

Cached = Callable[[str, str], Path]


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cached:
    """The place of a repository's file in a hub cache of the test's own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    def place(repo_id: str, filename: str) -> Path:
        path = tmp_path / f"models--{repo_id.replace('/', '--')}" / "snapshots" / ("0" * 40) / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    return place


@pytest.fixture(autouse=True)
def small_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks see 64 pixels: their arithmetic is the same, and quick."""
    monkeypatch.setattr("models.inference.control.depth.DETECTION_SIZE", 64)
    monkeypatch.setattr("models.inference.control.openpose.DETECTION_SIZE", 64)


def made_up(network: nn.Module) -> dict[str, Tensor]:
    """Weights of the right shapes, all of them views of one random block, which is all that is saved."""
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    block = torch.randn(
        max(shape.numel() for shape in shapes.values()), generator=torch.Generator().manual_seed(0)
    )
    return {name: block[: shape.numel()].view(shape) for name, shape in shapes.items()}


def photo(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def detectors(**settings: str) -> Detectors:
    return Detectors(ModelSettings(_env_file=None, **settings), "cpu")


class Evil:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture
def midas(cached: Cached) -> Path:
    torch.save(made_up(midas_network()), path := cached(ANNOTATORS, MIDAS))
    return path


def test_depth_map_is_controlnet_aux_own_at_its_own_size(midas):
    from controlnet_aux import MidasDetector

    network = midas_network()
    network.load_state_dict(torch.load(midas), assign=True)
    theirs = MidasDetector(network.eval())(photo(128, 64), detect_resolution=64, image_resolution=64)

    ours = detectors().depth(photo(128, 64), 128, 64)

    assert len(np.unique(ours)) > 2
    assert np.array_equal(ours, theirs)


def test_depth_map_has_the_output_size_and_is_grey_from_black_to_white(midas):
    depth = detectors().depth(photo(100, 80), 112, 80)

    assert depth.shape == (80, 112, 3)
    assert depth.dtype == np.uint8
    assert (depth == depth[:, :, :1]).all()
    assert (depth.min(), depth.max()) == (0, 255)


def test_network_is_loaded_once(midas):
    made = detectors()
    first = made.depth(photo(64, 64), 64, 64)
    midas.unlink()

    assert np.array_equal(made.depth(photo(64, 64), 64, 64), first)


def openpose_networks() -> dict[str, nn.Module]:
    import_annotators()
    from controlnet_aux.open_pose.face import FaceNet
    from controlnet_aux.open_pose.model import bodypose_model, handpose_model

    with torch.device("meta"):
        return {
            "body_pose_model.pth": bodypose_model(),
            "hand_pose_model.pth": handpose_model(),
            "facenet.pth": FaceNet(),
        }


@pytest.fixture
def openpose(cached: Cached) -> list[Path]:
    """Its files; those of body and hand name their tensors without the network's first level."""
    paths = []
    for filename, network in openpose_networks().items():
        weights = made_up(network)
        if filename != "facenet.pth":
            weights = {name.partition(".")[2]: tensor for name, tensor in weights.items()}
        torch.save(weights, path := cached(ANNOTATORS, filename))
        paths.append(path)
    return paths


def test_pose_map_is_controlnet_aux_own_at_its_own_size(openpose):
    from controlnet_aux import OpenposeDetector
    from controlnet_aux.open_pose.body import Body
    from controlnet_aux.open_pose.face import Face
    from controlnet_aux.open_pose.hand import Hand

    estimators = [kind(path) for kind, path in zip((Body, Hand, Face), openpose, strict=True)]
    theirs = OpenposeDetector(*estimators)(photo(64, 64), 64, 64, include_hand=True, output_type="np")

    assert np.array_equal(detectors().pose(photo(64, 64), 64, 64), theirs)


def test_skeletons_are_drawn_at_the_output_size_where_they_are_seen(openpose, monkeypatch):
    from controlnet_aux.open_pose import OpenposeDetector, PoseResult
    from controlnet_aux.open_pose.body import BodyResult, Keypoint

    shoulders = {2: Keypoint(0.25, 0.5), 5: Keypoint(0.75, 0.5), 1: Keypoint(0.5, 0.5)}
    body = BodyResult([shoulders.get(part) for part in range(18)], 3.0, 3)
    seen = []
    hand = [Keypoint(0.5 + finger / 100, 0.25) for finger in range(21)]

    def detect_poses(self: OpenposeDetector, picture: np.ndarray, **_: bool) -> list[PoseResult]:
        seen.append(picture.shape)
        return [PoseResult(body, hand, None, [Keypoint(0.5, 0.75)])]

    monkeypatch.setattr(OpenposeDetector, "detect_poses", detect_poses)

    pose = detectors().pose(photo(100, 80), 320, 160)

    assert seen == [(64, 128, 3)]
    assert pose.shape == (160, 320, 3)
    rows, columns = np.nonzero(pose[60:100].any(axis=2))
    assert rows.mean() == pytest.approx(20, abs=3)
    assert (columns.min(), columns.max()) == (pytest.approx(80, abs=6), pytest.approx(240, abs=6))
    assert pose[40, 160].tolist() == [0, 0, 255]
    assert pose[120, 160].tolist() == [255, 255, 255]


def test_hand_is_drawn_finger_by_finger_and_unseen_points_are_left_out():
    canvas = np.zeros((100, 100, 3), np.uint8)
    hand = [SimpleNamespace(x=0.1, y=0.1)] + [SimpleNamespace(x=-0.01, y=-0.01)] * 20
    hand[9] = SimpleNamespace(x=0.1, y=0.9)

    draw_hand(canvas, hand)

    rows, columns = np.nonzero(canvas.any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 94, 6, 14)
    # The middle finger's first bone, the ninth of twenty, is two fifths round the colour circle.
    assert canvas[50, 10].tolist() == [0, 255, 102]
    assert draw_hand(canvas, None) is None


@pytest.fixture
def depth_anything(cached: Cached) -> None:
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        patch_size=14,
    )
    torch.manual_seed(0)
    folder = cached("depth-anything/Depth-Anything-V2-Small-hf", "config.json").parent
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14
    ).save_pretrained(folder)


def test_setting_chooses_depth_anything(depth_anything):
    depth = detectors(depth_backend="depth-anything-v2").depth(photo(100, 80), 112, 80)

    assert depth.shape == (80, 112, 3)
    assert (depth == depth[:, :, :1]).all()
    assert (depth.min(), depth.max()) == (0, 255)


@pytest.mark.parametrize(
    ("kind", "backend", "filename"),
    [
        ("depth", "midas", MIDAS),
        ("depth", "depth-anything-v2", "config.json"),
        ("pose", "midas", "body_pose_model.pth"),
    ],
)
def test_missing_weights_are_named_with_the_line_that_brings_them(cached, kind, backend, filename):
    with pytest.raises(WeightsMissing, match=f"{filename}.*zturbo pull detectors"):
        getattr(detectors(depth_backend=backend), kind)(photo(64, 64), 64, 64)


@pytest.mark.parametrize(("kind", "filename"), [("depth", MIDAS), ("pose", "body_pose_model.pth")])
def test_pickle_that_holds_code_is_refused_and_not_run(cached, tmp_path, kind, filename):
    proof = tmp_path / "proof"
    with cached(ANNOTATORS, filename).open("wb") as file:
        pickle.dump({"weights": Evil(proof)}, file, protocol=2)

    with pytest.raises(CheckpointError, match="more than tensors"):
        getattr(detectors(), kind)(photo(64, 64), 64, 64)

    assert not proof.exists()


@pytest.mark.parametrize("data", [b"", b"no pickle", b"PK\x03\x04" + bytes(100)])
def test_damaged_weights_are_refused(cached, data):
    cached(ANNOTATORS, MIDAS).write_bytes(data)

    with pytest.raises(CheckpointError, match="damaged"):
        detectors().depth(photo(64, 64), 64, 64)


@pytest.mark.parametrize("weights", [{"other": torch.zeros(1)}, [torch.zeros(1)]])
@pytest.mark.parametrize(("kind", "filename"), [("depth", MIDAS), ("pose", "body_pose_model.pth")])
def test_other_weights_are_refused(cached, kind, filename, weights):
    torch.save(weights, cached(ANNOTATORS, filename))

    with pytest.raises(CheckpointError, match=filename):
        getattr(detectors(), kind)(photo(64, 64), 64, 64)


def test_import_of_controlnet_aux_is_silent_and_no_other_warning_is(recwarn):
    import_annotators()

    assert not recwarn.list
