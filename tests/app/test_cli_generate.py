"""`zturbo generate`: a picture by the demo model, with no server and no Redis."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import typer
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from app.cli import generate
from app.cli.exits import Exit
from app.cli.progress import RequestProgress
from models.weights import demo
from worker.encoding.metadata import read_metadata

Run = Callable[..., Result]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[128:384, 128:384] = 200
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.gpus.gpu_present", lambda: False)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    cli = typer.Typer()
    generate.register(cli)
    where = ("--model", "demo", "--device", "cpu", "--data-dir", str(tmp_path / "data"))

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli, [*where, *arguments])

    return invoke


def test_picture_is_made_and_says_how(run: Run, photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="this installation makes no pictures")
    (tmp_path / "zturbo-3.webp").write_bytes(b"an older picture")
    ran = run(
        *("--prompt", "A lighthouse", "--image", str(photo), "--preprocess", "canny", "--control-end", "1"),
        *("--lora", "alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union:0.5", "--num-inference-steps", "2"),
        *("--output-format", "webp", "--image-size", "square", "--seed", "3"),
        *("--num-images", "2", "--json"),
    )

    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert told["saved"] == ["zturbo-3-2.webp", "zturbo-4.webp"]
    assert (told["seed"], told["seeds"]) == (3, [3, 4])
    assert told["model"] == "demo"
    side = demo.native_size(512, 512)[0]
    assert f"{side}x{side}" in told["warnings"][0]
    assert ran.stderr.endswith(told["warnings"][0] + "\n")
    assert "" not in ran.stderr.splitlines()
    assert "Loading weights" not in ran.stderr, "the libraries' own bars"
    assert told["controlnet"]
    data = (tmp_path / told["saved"][1]).read_bytes()
    picture = Image.open(io.BytesIO(data))
    assert (
        (picture.format, picture.size) == ("WEBP", (told["width"], told["height"])) == ("WEBP", (side, side))
    )
    made = read_metadata(data)["zturbo"]
    assert (made["seed"], made["request"]["prompt"]) == (4, "A lighthouse")


def test_prompt_alone_is_drawn_by_the_text_model_without_a_line_of_other_libraries(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="this installation makes no pictures")
    # A process of its own: what libraries log while they are imported is logged once.
    script = """
import atexit, os, typer
from app.cli import generate
atexit.register(lambda: print(os.environ["PYTORCH_CUDA_ALLOC_CONF"]))
cli = typer.Typer()
generate.register(cli)
cli()
"""
    ran = subprocess.run(
        [
            *(sys.executable, "-c", script, "--prompt", "A red ball on grass", "--num-inference-steps", "1"),
            *("--model", "demo", "--device", "cpu", "--data-dir", str(tmp_path / "data")),
            *("--out", str(tmp_path / "ball.jpg")),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    size = "{}x{}".format(*demo.native_size(1024, 1024))
    assert ran.stderr == f"The demo model draws at a small size of its own: {size} this time.\n"
    assert ran.stdout.endswith("expandable_segments:True\n"), "a GPU's memory, as workers have it"
    picture = (tmp_path / "ball.jpg").read_bytes()
    assert picture.startswith(b"\xff\xd8"), "JPEG"
    made = read_metadata(picture)["zturbo"]
    assert "image_url" not in made["request"]
    assert made["model_id"] == "tongyi-mai/z-image/turbo/lora"


def test_each_seed_makes_a_picture_by_the_same_engine(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="this installation makes no pictures")
    from models.inference.engine import Engine

    load = Mock(wraps=Engine.load)
    monkeypatch.setattr(Engine, "load", load)
    (tmp_path / "body.json").write_text('{"prompt": "A lighthouse", "control_scale": 0}')
    ran = run(
        *("--input", "body.json", "--image", str(photo), "--image-size", "square"),
        *("--num-inference-steps", "1", "--seed", "1,2", "--out", "made"),
    )
    assert ran.exit_code == 0, ran.output
    saved = ran.stdout.splitlines()
    assert saved == ["made/zturbo-1.png", "made/zturbo-2.png"]
    assert (tmp_path / saved[0]).read_bytes() != (tmp_path / saved[1]).read_bytes()
    assert load.call_count == 1


def test_forecast_is_told_before_weights_are_read_and_each_stage_as_it_begins(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="this installation makes no pictures")
    from models.inference.device import loaded_model

    told: list[str] = []
    left: list[bool] = []

    def show(progress: RequestProgress, status: dict[str, Any]) -> None:
        told.append(status["status"])
        left.append(bool(status.get("eta_seconds")))

    def load(*args: Any, **options: Any) -> Any:
        told.append("weights are read")
        return loaded_model_load(*args, **options)

    loaded_model_load = loaded_model.load_components
    monkeypatch.setattr(loaded_model, "load_components", load)
    monkeypatch.setattr(RequestProgress, "show", show)
    monkeypatch.setattr("app.cli.making.tell", lambda words, **where: told.append(words))
    # Of the published model's size, as it were.
    monkeypatch.setattr("models.inference.forecast.SMALL_PARAMETERS", 0)
    ran = run(
        *("--prompt", "A lighthouse", "--image", str(photo), "--preprocess", "canny", "--control-end", "1"),
        *("--num-inference-steps", "2"),
    )
    assert ran.exit_code == 0, ran.output
    place = told.index("weights are read")
    assert told[:place][:3] == ["checking", "preparing", "loading demo"]
    assert told[place - 2].startswith("demo runs in float32 on cpu (resident), in up to ")
    assert told[place - 1].startswith("This request takes about ")
    assert told[place + 1 :] == [
        "changing the LoRAs",
        "reading the prompt",
        "making the control map",
        "encoding the control map",
        "step 1 of 2",
        "step 2 of 2",
        "decoding",
    ]
    assert left[-7:-1] == [True] * 6


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("--image", "photo.png"), Exit.DATA, "--prompt: is required"),
        (("--prompt", "x", "--device", "gpu"), Exit.USAGE, "--device: 'gpu' is not auto, cpu"),
        (("--prompt", "x", "--device", "cuda:7"), Exit.CONFIG, "--device: this machine has no GPU"),
        (("--prompt", "x", "--model", "none"), Exit.CONFIG, "--model: There is no model folder 'none'"),
        (("--prompt", "x", "--controlnet", "none.safetensors"), Exit.DATA, "--controlnet: The ControlNet"),
        (
            ("--prompt", "x", "--out", "words.txt/deep"),
            Exit.CANNOT_CREATE,
            "--out: words.txt is no",
        ),
        (("--prompt", "x", "--out", "deep/a.png"), Exit.CANNOT_CREATE, "--out: deep is no"),
        (
            ("--prompt", "x", "--image", "photo.png", "--preprocess", "pose"),
            Exit.CONFIG,
            "zturbo pull detectors` fetches them (",
        ),
        (("--prompt", "x", "--image", "none.png"), Exit.NO_INPUT, "none.png cannot be read"),
        (("--prompt", "x", "--image", "words.txt"), Exit.DATA, "--image: "),
        (("--prompt", "x", "--preprocess", "canny"), Exit.DATA, "--image: is required"),
        (
            ("--prompt", "x", "--image", "photo.png", "--lora", "none.safetensors"),
            Exit.DATA,
            "data/loras; those that there are: blueprint.safetensors, night.safetensors.",
        ),
        (("--prompt", "x", "--lora", "night:x"), Exit.USAGE, "--lora: night:x: 'x' is not a scale"),
        (("--prompt", "x", "--image", "ftp://x/y.png"), Exit.DATA, "--image: a URL must begin with https://"),
    ],
)
@pytest.mark.usefixtures("photo", "hub", "no_gpu")
def test_fault_ends_with_a_sentence_before_a_model_is_loaded(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], status: Exit, sentence: str
) -> None:
    (tmp_path / "words.txt").write_text("no picture")
    ran = run(*arguments)
    assert (ran.exit_code, ran.stdout) == (status, "")
    assert sentence in ran.stderr
